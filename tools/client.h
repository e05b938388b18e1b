/* SPDX-License-Identifier: ISC */
/*
 * client: the control socket from the outside, for xm and migctl: connects, sends one
 * request at a time, hands its replies back. Blocking, with deadlines. Errors say what
 * the person at the keyboard can do about it. One client per process is enough.
 */
#ifndef TOOLS_CLIENT_H
#define TOOLS_CLIENT_H

#include <stdint.h>

#include "base/err.h"
#include "base/paths.h"
#include "migrd/control.pb-c.h"

struct client;

/* Sets the member of a request's oneof: CLIENT_BODY(rq, GET, get, &get). */
#define CLIENT_BODY(rq, CASE, member, msg)                                                         \
    ((rq).body_case = MIGRD__REQUEST__BODY_##CASE, (rq).member = (msg))

/* ERR_NOT_FOUND when no daemon listens there, ERR_REFUSED without permission. */
int client_open(const struct paths *p, struct client **out, struct err *e);
void client_close(struct client **c);

/* Sends, having set rq->serial. */
int client_send(struct client *c, Migrd__Request *rq, struct err *e);

/*
 * The next reply to the request sent last, progress or final: 1 and *out (free it with
 * migrd__reply__free_unpacked), 0 after `timeout_ms` (0: no limit) while the request stands, -1
 * when the connection is broken. A reply with `failure` is handed out like any other.
 */
int client_next(struct client *c, unsigned timeout_ms, Migrd__Reply **out, struct err *e);

/* The failure that a reply carries as an error: -1, or 0 when it carries none. */
int client_failure(const Migrd__Reply *r, struct err *e);

/* Sends and waits for the final reply, dropping progress; a failure is NULL and that error. */
Migrd__Reply *client_call(struct client *c, Migrd__Request *rq, unsigned timeout_ms, struct err *e);

#endif
