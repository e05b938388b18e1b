/* SPDX-License-Identifier: ISC */
/*
 * tls_server: TLS for a server in an event loop: certificates on both sides, nothing
 * blocks. For protocols of other people's clients (libvirt's), hence TLS 1.2 too, and no
 * session tickets, which such a client may take for an answer. A link belongs to one
 * socket, which stays the caller's, and may outlive the tls_server that it was made of.
 * One thread at a time.
 */
#ifndef TLS_SERVER_H
#define TLS_SERVER_H

#include <sys/types.h>

#include "transport/transport.h"

struct tls_server;
struct tls_link;

/* Checks as tr_tls_open does. */
int tls_server_open(const struct tr_tls_files *files, struct tls_server **out, struct err *e);
void tls_server_free(struct tls_server **s);

/* NULL without memory. */
struct tls_link *tls_link_new(const struct tls_server *s, int fd);
/* Says goodbye if the socket takes it at once. */
void tls_link_free(struct tls_link **l);

/* 1: the client has shown a certificate of the CA; 0: wait for the socket; -1: over. */
int tls_link_handshake(struct tls_link *l, struct err *e);
/* As recv and send on a non-blocking socket: -1 with EAGAIN is to wait. Reads of 16 KiB or more
 * leave nothing behind that the socket would not report. */
ssize_t tls_link_read(struct tls_link *l, void *buf, size_t len);
ssize_t tls_link_write(struct tls_link *l, const void *buf, size_t len);
/* What had to wait waits until the socket can be written, not read. */
bool tls_link_wants_write(const struct tls_link *l);
/* The client's names, of its certificate: the common name is number 0, then the alternative ones.
 * False: there is no such number. */
bool tls_link_name(const struct tls_link *l, unsigned number, char out[TR_NAME_LEN]);

#endif
