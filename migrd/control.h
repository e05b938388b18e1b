/* SPDX-License-Identifier: ISC */
/*
 * control: the socket of xm and migctl (control.proto; docs/control.md). Root and the
 * control group may connect; what changes something is logged with the caller's uid.
 * Clients, messages and requests under way are limited; a client that goes away stops
 * nothing. In the loop's thread.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include "migrd/migrd.h"

#define CONTROL_CLIENTS_MAX 64
#define CONTROL_MESSAGE_MAX (1u << 20)
#define CONTROL_REQUESTS_MAX 32 /* under way, per client */

int control_start(struct migrd *m, struct err *e);
void control_stop(struct migrd *m);
/* After the loop has ended. */
void control_close(struct migrd *m);

#endif
