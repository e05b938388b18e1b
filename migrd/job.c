/* SPDX-License-Identifier: ISC */
#include "migrd/job.h"

static void run(uv_work_t *req)
{
    struct job *j = req->data;

    j->work(j);
}

static void finish(uv_work_t *req, int status)
{
    struct job *j = req->data;

    if (status < 0)
        j->result = err_set(&j->err, ERR_INTERNAL, "thread pool: %s", uv_strerror(status));
    j->done(j);
}

void job_run(uv_loop_t *loop, struct job *j)
{
    j->req.data = j;
    j->result = 0;
    err_clear(&j->err);
    /* Fails only for a NULL work callback. */
    uv_queue_work(loop, &j->req, run, finish);
}
