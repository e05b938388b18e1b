/* SPDX-License-Identifier: ISC */
/*
 * job: one piece of blocking work (a hypervisor call, an fsync, a name lookup) in libuv's
 * thread pool. Embed `struct job` first in a struct that holds copies of all that the
 * work needs; `work` runs in a pool thread and touches nothing else, `done` runs in the
 * loop and frees. A job cannot be cancelled; `done` is called exactly once.
 */
#ifndef JOB_H
#define JOB_H

#include <uv.h>

#include "base/err.h"

struct job {
    uv_work_t req;
    void (*work)(struct job *j);
    void (*done)(struct job *j);
    int result; /* work's: 0 or -1 with err */
    struct err err;
};

/* After this the job owns itself. If it cannot be queued, result is -1 and `done` is called from
 * the loop all the same. */
void job_run(uv_loop_t *loop, struct job *j);

#endif
