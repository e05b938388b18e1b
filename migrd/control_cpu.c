/* SPDX-License-Identifier: ISC */
/* Requests about CPUs and memory of domains: what the vCPUs do, and changes (tune.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpulist.h"
#include "migrd/control_internal.h"
#include "migrd/domain_figures.h"
#include "migrd/tune.h"

/* --- changes --- */

static void tune(struct client *c, const Migrd__Request *rq, struct domain *d, const char *what,
    const struct tune *t)
{
    struct request *r = request_new(c, rq);
    struct err e;

    if (r == NULL)
        return;
    control_audit(c, what, d->name);
    if (tune_domain(c->m, d, t, request_done, r, &e) == 0)
        return;
    control_fail(c, rq->serial, &e);
    request_end(r);
}

void control_set_memory(struct client *c, const Migrd__Request *rq)
{
    const struct tune t = {
        .what = TUNE_MEMORY, .scope = TUNE_ALL, .kib = rq->set_memory->memory_kib
    };
    struct domain *d = control_domain(c, rq->serial, rq->set_memory->domain);

    if (d != NULL)
        tune(c, rq, d, "set-memory", &t);
}

static int take_cpus(const struct migrd *m, const char *list, struct hv_cpus *out, struct err *e)
{
    if (strcmp(list, "all") == 0) {
        tune_host_cpus(m, out);
        return 0;
    }
    if (list[0] == '\0')
        return err_set(e, ERR_INVALID, "no CPUs are given: write them as 0-3,^2, or all");
    return cpulist_parse(list, out, e) < 0 ? -1 : 0;
}

static int take_change(
    const struct migrd *m, const Migrd__TuneDomain *q, struct tune *t, struct err *e)
{
    *t = (struct tune){ .scope = q->config_only ? TUNE_CONFIG : TUNE_ALL,
        .vcpu = q->vcpu,
        .vcpus = q->vcpus,
        .set_weight = q->set_weight,
        .set_cap = q->set_cap,
        .sched = { .weight = q->weight, .cap = q->cap },
        .kib = q->memory_kib };
    switch (q->change) {
    case MIGRD__CPU_CHANGE__CPU_PIN:
        t->what = TUNE_PIN;
        return take_cpus(m, q->cpus, &t->cpus, e);
    case MIGRD__CPU_CHANGE__CPU_SCHED:
        t->what = TUNE_SCHED;
        return 0;
    case MIGRD__CPU_CHANGE__CPU_COUNT:
        t->what = TUNE_VCPUS;
        return 0;
    case MIGRD__CPU_CHANGE__MAX_MEMORY:
        t->what = TUNE_MAX_MEMORY;
        return 0;
    default:
        return err_set(e, ERR_UNSUPPORTED, "unknown change of CPUs");
    }
}

void control_tune_domain(struct client *c, const Migrd__Request *rq)
{
    static const char *const words[] = { [TUNE_PIN] = "vcpu-pin",
        [TUNE_SCHED] = "sched-credit",
        [TUNE_VCPUS] = "vcpu-set",
        [TUNE_MAX_MEMORY] = "set-max-memory" };
    struct domain *d = control_domain(c, rq->serial, rq->tune_domain->domain);
    struct tune t;
    struct err e;

    if (d == NULL)
        return;
    if (take_change(c->m, rq->tune_domain, &t, &e) < 0)
        control_fail(c, rq->serial, &e);
    else
        tune(c, rq, d, words[t.what], &t);
}

/* --- what vCPUs do --- */

static char *allowed_of(const struct migrd *m, const struct hv_vcpu *v, char *list, size_t len)
{
    struct hv_cpus host;
    bool any = true;

    tune_host_cpus(m, &host);
    for (unsigned c = 0; c < HV_CPUS_MAX; c++)
        any = any && (!hv_cpus_has(&host, c) || hv_cpus_has(&v->allowed, c));
    list[0] = '\0';
    if (!any)
        cpulist_format(&v->allowed, list, len);
    return list;
}

static void vcpus_known(void *arg, const struct domain_figures *f, const struct err *e)
{
    struct request *r = arg;
    Migrd__Reply reply = MIGRD__REPLY__INIT;
    Migrd__VcpuInfo info[HV_VCPUS_MAX], *list[HV_VCPUS_MAX];
    char *text = malloc((size_t)HV_VCPUS_MAX * CPULIST_LEN);
    const struct err none = { ERR_MEMORY, "migrd is out of memory" };

    for (; text != NULL && reply.n_vcpus < f->n_vcpus && reply.n_vcpus < HV_VCPUS_MAX;
         reply.n_vcpus++) {
        Migrd__VcpuInfo *i = list[reply.n_vcpus] = &info[reply.n_vcpus];
        const struct hv_vcpu *v = &f->vcpu[reply.n_vcpus];

        migrd__vcpu_info__init(i);
        i->running = v->state == HV_VCPU_RUNNING;
        i->cpu_ns = v->cpu_ns;
        i->cpu = v->cpu;
        i->cpus = allowed_of(r->c->m, v, text + reply.n_vcpus * CPULIST_LEN, CPULIST_LEN);
    }
    reply.vcpus = list;
    if (e->code != ERR_NONE || text == NULL)
        control_fail(r->c, r->serial, e->code != ERR_NONE ? e : &none);
    else
        control_send(r->c, r->serial, &reply, true);
    free(text);
    request_end(r);
}

void control_get_vcpus(struct client *c, const Migrd__Request *rq)
{
    struct domain *d = control_domain(c, rq->serial, rq->get_vcpus->domain);
    struct request *r;
    struct err e;

    if (d == NULL || (r = request_new(c, rq)) == NULL)
        return;
    if (figures_ask(c->m, d, FIGURES_VCPUS, vcpus_known, r, &e) == 0)
        return;
    control_fail(c, rq->serial, &e);
    request_end(r);
}
