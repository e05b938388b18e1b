/* SPDX-License-Identifier: ISC */
/*
 * blocking: a thread for calls that may block for as long as corosync hangs, so that neither the
 * loop nor libuv's thread pool, where the disk waits, stands still with them. Jobs are done one
 * after the other. A thread that is blocked when it is closed is left behind and ends by itself.
 * A job belongs to whoever made it again with `done` or `drop`; exactly one of them is called.
 */
#ifndef CLUSTER_BLOCKING_H
#define CLUSTER_BLOCKING_H

#include <uv.h>

#include "base/err.h"

struct blocking_job {
    void (*work)(struct blocking_job *j); /* in the thread; not called if closed before */
    void (*done)(struct blocking_job *j); /* in the loop */
    void (*drop)(struct blocking_job *j); /* closed meanwhile; in the thread: may block too */
    struct blocking_job *next;
};

struct blocking;

int blocking_open(uv_loop_t *loop, const char *name, struct blocking **out, struct err *e);
void blocking_run(struct blocking *b, struct blocking_job *j);
/* No `done` comes after it. The loop must run once more for its handle. */
void blocking_close(struct blocking **b);

#endif
