/* SPDX-License-Identifier: ISC */
/*
 * libvirt: the server side of libvirt's remote protocol, so that the stock virsh manages
 * this host's domains (docs/virsh.md). Two unix sockets beside the control socket, for
 * the same people: libvirt-sock, and libvirt-sock-ro on which nothing can be changed.
 * Clients, calls under way and bytes held for each are limited (config keys libvirt-...);
 * a client that is slow, silent or speaks nonsense is cut off. In the loop's thread.
 */
#ifndef MIGRD_LIBVIRT_H
#define MIGRD_LIBVIRT_H

#include "migrd/migrd.h"

int libvirt_start(struct migrd *m, struct err *e);
/* m->config is the fresh one. */
void libvirt_reload(struct migrd *m, const struct config *before);
void libvirt_stop(struct migrd *m);
/* After the loop has ended. */
void libvirt_close(struct migrd *m);

#endif
