/* SPDX-License-Identifier: ISC */
#include "migrd/domain_figures.h"

#include <stdio.h>
#include <stdlib.h>

#include "migrd/job.h"

struct ask_job {
    struct job job; /* first */
    const struct hv_ops *ops;
    struct hv *hv;
    char uuid[HV_UUID_LEN];
    unsigned want;
    struct domain_figures f;
    figures_done *done;
    void *arg;
};

static int ask_stats(struct ask_job *a, struct err *e)
{
    a->f.stats = calloc(1, sizeof *a->f.stats);
    if (a->f.stats == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for statistics");
    return a->ops->stats(a->hv, a->uuid, a->f.stats, e);
}

static void work(struct job *j)
{
    struct ask_job *a = (struct ask_job *)j;

    err_clear(&j->err);
    j->result = 0;
    if ((a->want & FIGURES_VCPUS) != 0)
        j->result = a->ops->vcpus(a->hv, a->uuid, &a->f.vcpu, &a->f.n_vcpus, &j->err);
    if (j->result == 0 && (a->want & FIGURES_STATS) != 0)
        j->result = ask_stats(a, &j->err);
    if (j->result == 0 && (a->want & FIGURES_SCHED) != 0)
        j->result = a->ops->sched_get(a->hv, a->uuid, &a->f.sched, &j->err);
}

static void finish(struct job *j)
{
    struct ask_job *a = (struct ask_job *)j;

    a->done(a->arg, &a->f, &j->err);
    free(a->f.vcpu);
    free(a->f.stats);
    free(a);
}

int figures_ask(struct migrd *m, const struct domain *d, unsigned want, figures_done *done,
    void *arg, struct err *e)
{
    struct ask_job *a;

    if (!d->live)
        return err_set(e, ERR_STATE, "domain is not running");
    a = calloc(1, sizeof *a);
    if (a == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", d->name);
    a->job.work = work;
    a->job.done = finish;
    a->ops = m->hv_ops;
    a->hv = m->hv;
    snprintf(a->uuid, sizeof a->uuid, "%s", d->uuid);
    a->want = want;
    a->done = done;
    a->arg = arg;
    job_run(m->loop, &a->job);
    return 0;
}
