/* SPDX-License-Identifier: ISC */
#include "precopy/worker.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "precopy/ctl.h"
#include "precopy/worker_internal.h"

#define FIRST_MESSAGE_MS 30000

static int wrong_start(struct ctl *ctl, const char *what)
{
    Migrd__Finished f = MIGRD__FINISHED__INIT;
    struct err e = { 0 };

    err_set(&e, ERR_INVALID, "migrd's first message %s", what);
    send_finished(ctl, &f, &e);
    return -1;
}

/* Each job takes over `fd`; jobs that expect none close one that came. */
static int dispatch(
    struct ctl *ctl, const Migrd__ToWorker *m, int fd, const struct worker_options *opt)
{
    switch (m->body_case) {
    case MIGRD__TO_WORKER__BODY_TARGET:
        return fd < 0 ? wrong_start(ctl, "has no socket") : target_run(ctl, m->target, fd, opt);
    case MIGRD__TO_WORKER__BODY_SAVE:
        if (m->save->domain != NULL)
            return save_run(ctl, m->save, fd, opt);
        io_close(&fd);
        return wrong_start(ctl, "names no domain");
    case MIGRD__TO_WORKER__BODY_DUMP:
        io_close(&fd);
        if (m->dump->domain == NULL)
            return wrong_start(ctl, "names no domain");
        return dump_run(ctl, m->dump, opt);
    case MIGRD__TO_WORKER__BODY_RESTORE:
        return restore_run(ctl, m->restore, fd, opt);
    case MIGRD__TO_WORKER__BODY_SOURCE:
        io_close(&fd);
        if (m->source->domain == NULL)
            return wrong_start(ctl, "names no domain");
        return source_run(ctl, m->source, opt);
    case MIGRD__TO_WORKER__BODY_DRY_RUN:
        io_close(&fd);
        if (m->dry_run->domain == NULL)
            return wrong_start(ctl, "names no domain");
        return dry_source_run(ctl, m->dry_run, opt);
    case MIGRD__TO_WORKER__BODY_QUERY:
        io_close(&fd);
        return query_run(ctl, m->query);
    case MIGRD__TO_WORKER__BODY_FACTS:
        io_close(&fd);
        return facts_run(ctl, m->facts);
    case MIGRD__TO_WORKER__BODY__NOT_SET:
    case MIGRD__TO_WORKER__BODY_CHANNEL:
    case MIGRD__TO_WORKER__BODY_OFFER_VERDICT:
    case MIGRD__TO_WORKER__BODY_QUERY_VERDICT:
    case MIGRD__TO_WORKER__BODY_FACTS_VERDICT:
    case MIGRD__TO_WORKER__BODY_STEP:
    case MIGRD__TO_WORKER__BODY_CANCEL:
    case MIGRD__TO_WORKER__BODY_SET_PARAMS:
    default:
        io_close(&fd);
        return wrong_start(ctl, "is no job");
    }
}

int worker_run(int fd, const struct worker_options *opt)
{
    struct err e = { 0 };
    struct ctl *ctl = ctl_new(fd, &e);
    Migrd__ToWorker *m = NULL;
    int job_fd = -1, r = -1;

    if (ctl == NULL) {
        log_error("worker", "%s", e.text);
        return -1;
    }
    if (ctl_first(ctl, clock_ns() + FIRST_MESSAGE_MS * NS_PER_MS, &m, &job_fd, &e) < 0)
        log_error("worker", "no job from migrd: %s", e.text);
    else
        r = dispatch(ctl, m, job_fd, opt);
    if (m != NULL)
        migrd__to_worker__free_unpacked(m, NULL);
    ctl_free(&ctl);
    return r;
}
