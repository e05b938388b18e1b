/* SPDX-License-Identifier: ISC */
/*
 * ctl: a worker's line to its migrd (messages of worker.proto over a msgconn). One
 * thread reads it all the time, so that a Cancel or migrd's death takes effect in the
 * middle of any read or write: it aborts the connections being watched. Answers wait
 * in a mailbox for ctl_wait. Everything here may be called from any thread.
 */
#ifndef CTL_H
#define CTL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "precopy/worker.pb-c.h"
#include "transport/transport.h"

#define CTL_MAIL_MAX 64 /* answers and sockets not yet taken */
#define CTL_WATCH_MAX (TR_CHANNELS_MAX + 1)

struct ctl;

/* Takes over `fd` in any case. NULL on failure. */
struct ctl *ctl_new(int fd, struct err *e);
/* Sends what is queued (bounded by 2 s), stops the thread, closes, sets NULL. */
void ctl_free(struct ctl **c);

/* Queues a message; never blocks. ERR_PEER when migrd is gone. */
int ctl_send(struct ctl *c, const Migrd__FromWorker *m, struct err *e);

/* The oldest message of that kind; free with migrd__to_worker__free_unpacked. `fd` may be NULL.
 * ERR_CANCELLED, ERR_PEER (migrd is gone), ERR_TIMEOUT. By one thread at a time. */
int ctl_wait(struct ctl *c, Migrd__ToWorker__BodyCase want, uint64_t deadline_ns,
    Migrd__ToWorker **out, int *fd, struct err *e);

/* The first message, whatever it is (except Cancel and SetParams). */
int ctl_first(struct ctl *c, uint64_t deadline_ns, Migrd__ToWorker **out, int *fd, struct err *e);

/* True, with the reason in `e`, once cancelled or left alone, unless ctl_hold was called. */
bool ctl_ended(struct ctl *c, struct err *e);

/* Connections that Cancel and migrd's death abort. Unwatch before tr_close. */
void ctl_watch(struct ctl *c, struct tr_conn *conn);
void ctl_unwatch(struct ctl *c, struct tr_conn *conn);

/* The point of no return: from now on Cancel and migrd's death abort nothing. False if one of them
 * came first: the caller goes back. */
bool ctl_hold(struct ctl *c, struct err *e);
/* Undoes ctl_hold: the step that needed it was refused. */
void ctl_release(struct ctl *c);

/* Newest SetParams since the last call. */
bool ctl_params(struct ctl *c, Migrd__SetParams *out);

#endif
