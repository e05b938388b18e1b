/* SPDX-License-Identifier: ISC */
/*
 * status: the read-only status socket: HTTP/1.1 on status.sock (and on
 * status-address if configured) by libmicrohttpd inside the libuv loop:
 * /v1/status, /v1/domains[/NAME], /v1/migrations[/ID], /v1/events (server-sent events)
 * and /metrics. Documented in docs/status.md. GET and HEAD only; limits on clients,
 * request size and unsent event bytes; a slow reader loses events, never delays us.
 */
#ifndef MIGRD_STATUS_H
#define MIGRD_STATUS_H

#include "base/err.h"

struct migrd;
struct status;

int status_start(struct migrd *m, struct status **out, struct err *e);
/* Closes all clients; must be called before the loop ends. */
void status_stop(struct status **s);

#endif
