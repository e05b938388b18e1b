/* SPDX-License-Identifier: ISC */
#include "migrd/domain_figures.h"

#include <stdio.h>
#include <stdlib.h>

#include <string.h>

#include "migrd/job.h"

#define AT_ONCE 4 /* beside LOOKS_MAX, of the pool's threads */

struct ask_job {
    struct job job; /* first */
    struct ask_job *next;
    struct migrd *m;
    bool under_way, too_late;
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
    if (a->too_late)
        j->result = err_set(&j->err, ERR_CANCELLED, "migrd is being stopped");
    if (j->result == 0 && (a->want & FIGURES_VCPUS) != 0)
        j->result = a->ops->vcpus(a->hv, a->uuid, &a->f.vcpu, &a->f.n_vcpus, &j->err);
    if (j->result == 0 && (a->want & FIGURES_STATS) != 0)
        j->result = ask_stats(a, &j->err);
    if (j->result == 0 && (a->want & FIGURES_SCHED) != 0)
        j->result = a->ops->sched_get(a->hv, a->uuid, &a->f.sched, &j->err);
}

static void run(struct ask_job *a)
{
    a->under_way = true;
    job_run(a->m->loop, &a->job);
}

/* Those whose turn it is, in the order in which they came. */
static void begin(struct migrd *m)
{
    const struct ask_job *now[AT_ONCE];
    unsigned n = 0, i;

    for (const struct ask_job *a = m->figures; a != NULL && n < AT_ONCE; a = a->next)
        if (a->under_way)
            now[n++] = a;
    for (struct ask_job *a = m->figures; a != NULL && n < AT_ONCE; a = a->next) {
        for (i = 0; i < n && strcmp(now[i]->uuid, a->uuid) != 0; i++)
            ;
        if (i < n)
            continue;
        run(a);
        now[n++] = a;
    }
}

void figures_stop(struct migrd *m)
{
    for (struct ask_job *a = m->figures; a != NULL; a = a->next) {
        if (a->under_way)
            continue;
        a->too_late = true;
        run(a);
    }
}

static void leave(struct ask_job *a)
{
    struct ask_job **p = &a->m->figures;

    while (*p != a)
        p = &(*p)->next;
    *p = a->next;
}

static void finish(struct job *j)
{
    struct ask_job *a = (struct ask_job *)j;

    leave(a);
    begin(a->m);
    a->done(a->arg, &a->f, &j->err);
    free(a->f.vcpu);
    free(a->f.stats);
    free(a);
}

int figures_ask(struct migrd *m, const struct domain *d, unsigned want, figures_done *done,
    void *arg, struct err *e)
{
    struct ask_job *a, **end = &m->figures;

    if (!d->live)
        return err_set(e, ERR_STATE, "domain is not running");
    a = calloc(1, sizeof *a);
    if (a == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", d->name);
    a->job.work = work;
    a->job.done = finish;
    a->m = m;
    a->ops = m->hv_ops;
    a->hv = m->hv;
    snprintf(a->uuid, sizeof a->uuid, "%s", d->uuid);
    a->want = want;
    a->done = done;
    a->arg = arg;
    while (*end != NULL)
        end = &(*end)->next;
    *end = a;
    begin(m);
    return 0;
}
