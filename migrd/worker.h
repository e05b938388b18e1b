/* SPDX-License-Identifier: ISC */
/*
 * worker: one migrd-worker process and the socket pair to it. The owner gets messages as
 * they come and, exactly once and last, `ended`, when the process is gone: after that it
 * can do nothing more. A worker that sent Finished and does not go is killed after
 * WORKER_GRACE_MS. In the loop's thread. migrd's end ends no worker: it sees the closed
 * socket and gives up unless it is past the point of commit.
 */
#ifndef WORKER_H
#define WORKER_H

#include "migrd/migrd.h"
#include "precopy/worker.pb-c.h"

#define WORKER_GRACE_MS 3000
#define WORKER_MESSAGE_MAX (1u << 20)

struct worker;

struct worker_calls {
    /* m is the worker's and lives during the call. Not called for Finished. */
    void (*message)(void *arg, const Migrd__FromWorker *m);
    /* `fin` NULL: it died without a word; `how` says of what. The worker is freed afterwards. */
    void (*ended)(void *arg, const Migrd__Finished *fin, const char *how);
};

/* limit_ms 0: none; else it is killed when it lives longer. */
int worker_start(struct migrd *m, uint64_t limit_ms, const struct worker_calls *calls, void *arg,
    struct worker **out, struct err *e);
/* Queues a message; `fd` -1 or passed on (the caller keeps its own). Failures are logged: the
 * worker's end will tell. */
void worker_send(struct worker *w, const Migrd__ToWorker *m, int fd);
void worker_cancel(struct worker *w, const char *reason);
void worker_kill(struct worker *w);
/* No more calls to the owner; the process is left to itself and reaped. */
void worker_forget(struct worker *w);
int worker_pid(const struct worker *w);

#endif
