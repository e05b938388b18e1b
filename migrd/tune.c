/* SPDX-License-Identifier: ISC */
#include "migrd/tune.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpulist.h"
#include "base/log.h"
#include "migrd/define/define.h"

/* --- which of the two --- */

static int need_live(const struct domain *d, struct err *e)
{
    return d->live ? 0 : err_set(e, ERR_STATE, "domain is not running");
}

static int need_definition(const struct domain *d, struct err *e)
{
    if (d->def != NULL)
        return 0;
    return err_set(e, ERR_STATE, "domain %s is transient: it has no definition to change", d->name);
}

int tune_is_live(const struct domain *d, unsigned scope, struct err *e)
{
    if ((scope & TUNE_LIVE) != 0 && need_live(d, e) < 0)
        return -1;
    if ((scope & TUNE_CONFIG) != 0 && need_definition(d, e) < 0)
        return -1;
    return (scope & TUNE_LIVE) != 0 || ((scope & TUNE_CONFIG) == 0 && d->live);
}

static bool is_for_config(const struct domain *d, unsigned scope)
{
    if ((scope & TUNE_ALL) != 0)
        return d->def != NULL;
    return (scope & TUNE_CONFIG) != 0 || ((scope & TUNE_LIVE) == 0 && !d->live);
}

/* --- CPUs of the host --- */

void tune_host_cpus(const struct migrd *m, struct hv_cpus *out)
{
    if (cpulist_host("online", out) == 0)
        return;
    memset(out, 0, sizeof *out);
    for (unsigned c = 0; c < m->caps.host_cpus && c < HV_CPUS_MAX; c++)
        out->word[c >> 6] |= UINT64_C(1) << (c & 63);
}

void tune_pinned(
    const struct migrd *m, const Migrd__Domain *def, unsigned vcpu, struct hv_cpus *out)
{
    if (cpulist_parse(hv_vcpu_pinning(def, vcpu), out, NULL) <= 0)
        tune_host_cpus(m, out);
}

/* Of all CPUs that work: any, also of the next host, unless the definition says something for all
 * vCPUs. */
static int check_cpus(const struct migrd *m, const struct domain *d, struct tune *t, struct err *e)
{
    struct hv_cpus host;
    bool all = true, none = true;

    tune_host_cpus(m, &host);
    for (unsigned c = 0; c < HV_CPUS_MAX; c++) {
        bool has = hv_cpus_has(&t->cpus, c), there = hv_cpus_has(&host, c);

        if (has && !there)
            return err_set(e, ERR_INVALID,
                "domain %s: vcpu %u: this host has no CPU %u, or it is switched off", d->name,
                t->vcpu, c);
        all = all && has == there;
        none = none && !has;
    }
    if (none)
        return err_set(
            e, ERR_INVALID, "domain %s: vcpu %u: no CPU is left to it", d->name, t->vcpu);
    if (all && registry_definition(d)->vcpu_pinning[0] == '\0')
        memset(&t->cpus, 0xff, sizeof t->cpus);
    return 0;
}

/* --- is it possible? --- */

static int check_vcpu(const struct domain *d, unsigned vcpu, unsigned n, struct err *e)
{
    if (vcpu < n)
        return 0;
    return err_set(e, ERR_INVALID, "vcpu %u is out of range of domain %s, which has vcpus 0 to %u",
        vcpu, d->name, n - 1);
}

static int check_sched(
    const struct domain *d, const struct hv_sched *s, unsigned vcpus, struct err *e)
{
    if (s->weight < 1 || s->weight > HV_WEIGHT_MAX)
        return err_set(e, ERR_INVALID, "domain %s: weight %u must be from 1 to %d", d->name,
            s->weight, HV_WEIGHT_MAX);
    if (s->cap > 100 * vcpus)
        return err_set(e, ERR_INVALID,
            "domain %s: cap %u must be from 0 to %u, 100 for each of its vCPUs", d->name, s->cap,
            100 * vcpus);
    return 0;
}

static int check_count(
    const struct migrd *m, const struct domain *d, unsigned n, unsigned max, struct err *e)
{
    if (n == 0)
        return err_set(e, ERR_INVALID, "domain %s: it needs at least one vCPU", d->name);
    if (n > max)
        return err_set(e, ERR_INVALID,
            "domain %s: requested vcpus is greater than max allowable vcpus: %u > %u", d->name, n,
            max);
    if (m->caps.max_vcpus != 0 && n > m->caps.max_vcpus)
        return err_set(e, ERR_INVALID, "domain %s: %s gives at most %u vCPUs", d->name,
            m->hv_ops->name, m->caps.max_vcpus);
    return 0;
}

static int check_memory(const struct domain *d, uint64_t kib, uint64_t max, struct err *e)
{
    if (kib <= max)
        return 0;
    return err_set(e, ERR_INVALID, "domain %s: at most %llu KiB (virsh setmaxmem, xm mem-max)",
        d->name, (unsigned long long)max);
}

/* What the one has, with what is asked for. */
static struct hv_sched merged(const Migrd__Domain *def, const struct tune *t)
{
    struct hv_sched s = hv_sched_of(def);

    if (t->set_weight)
        s.weight = t->sched.weight;
    if (t->set_cap)
        s.cap = t->sched.cap;
    return s;
}

/* --- the definition --- */

static int pin(Migrd__Domain *def, const struct tune *t, struct err *e)
{
    char *list = hv_cpus_list(&t->cpus);
    int r = list != NULL ? hv_set_vcpu_pinning(def, t->vcpu, list, e)
                         : err_set(e, ERR_MEMORY, "domain %s: out of memory", def->name);

    free(list);
    return r;
}

/* Pins of vCPUs that there are no more go. */
static int set_max_vcpus(
    const struct migrd *m, const struct domain *d, Migrd__Domain *def, unsigned max, struct err *e)
{
    if (check_count(m, d, max, HV_VCPUS_MAX, e) < 0)
        return -1;
    define_set_vcpus(def, def->vcpus < max ? def->vcpus : max, max);
    for (unsigned i = max; i < def->n_vcpu_pins;)
        if (hv_set_vcpu_pinning(def, (unsigned)def->n_vcpu_pins - 1, "", e) < 0)
            return -1;
    return 0;
}

static int change(const struct migrd *m, const struct domain *d, Migrd__Domain *def,
    const struct tune *t, struct err *e)
{
    unsigned max = define_max_vcpus(def);
    struct hv_sched s = merged(def, t);

    switch (t->what) {
    case TUNE_PIN:
        return check_vcpu(d, t->vcpu, max, e) < 0 ? -1 : pin(def, t, e);
    case TUNE_SCHED:
        if (check_sched(d, &s, max, e) < 0)
            return -1;
        define_set_sched(def, s.weight, s.cap);
        return 0;
    case TUNE_VCPUS:
        if (check_count(m, d, t->vcpus, max, e) < 0)
            return -1;
        define_set_vcpus(def, t->vcpus, max);
        return 0;
    case TUNE_MAX_VCPUS:
        return set_max_vcpus(m, d, def, t->vcpus, e);
    case TUNE_MEMORY:
        if (check_memory(d, t->kib, def->max_memory_kib, e) < 0)
            return -1;
        def->memory_kib = t->kib;
        return 0;
    case TUNE_MAX_MEMORY:
        def->max_memory_kib = t->kib;
        if (def->memory_kib > t->kib)
            def->memory_kib = t->kib;
        return 0;
    }
    return err_set(e, ERR_INTERNAL, "unknown change %d", (int)t->what);
}

/* NULL and *e: no definition can be like that. */
static Migrd__Domain *changed(
    const struct migrd *m, const struct domain *d, const struct tune *t, struct err *e)
{
    Migrd__Domain *def = define_copy(d->def);

    if (def == NULL) {
        err_set(e, ERR_MEMORY, "domain %s: out of memory", d->name);
        return NULL;
    }
    if (change(m, d, def, t, e) == 0 && define_check(def, e) == 0)
        return def;
    migrd__domain__free_unpacked(def, NULL);
    return NULL;
}

/* --- what runs, then its definition --- */

struct tune_job {
    struct migrd *m;
    Migrd__Domain *def; /* to be saved; NULL nothing */
    registry_done *done;
    void *arg;
};

static void job_free(struct tune_job *j)
{
    if (j->def != NULL)
        migrd__domain__free_unpacked(j->def, NULL);
    free(j);
}

static void live_done(void *arg, const char *uuid, const struct err *e)
{
    struct tune_job *j = arg;
    struct err why = *e;

    if (e->code == ERR_NONE && j->def != NULL &&
        registry_define(j->m, &j->def, j->done, j->arg, &why) == 0) {
        job_free(j);
        return;
    }
    if (e->code == ERR_NONE && j->def != NULL)
        err_prefix(&why, "changed until it ends, but not saved");
    j->done(j->arg, uuid, &why);
    job_free(j);
}

static int live_args(struct migrd *m, struct domain *d, const struct tune *t, enum registry_op *op,
    struct registry_args *a, struct err *e)
{
    const Migrd__Domain *def = registry_definition(d);

    *a = (struct registry_args){ .vcpu = t->vcpu,
        .cpus = t->cpus,
        .vcpus = t->vcpus,
        .sched = merged(def, t),
        .memory_kib = t->kib };
    switch (t->what) {
    case TUNE_PIN:
        *op = REG_PIN;
        return check_vcpu(d, t->vcpu, d->info.vcpus, e);
    case TUNE_SCHED:
        *op = REG_SCHED;
        return check_sched(d, &a->sched, d->info.vcpus, e);
    case TUNE_VCPUS:
        *op = REG_SET_VCPUS;
        return check_count(m, d, t->vcpus, define_max_vcpus(def), e);
    case TUNE_MEMORY:
        *op = REG_SET_MEMORY;
        return 0;
    case TUNE_MAX_VCPUS:
    case TUNE_MAX_MEMORY:
        break;
    }
    return err_set(e, ERR_STATE,
        "domain %s: the maximum cannot be changed while it runs; use --config", d->name);
}

static int change_live(struct migrd *m, struct domain *d, const struct tune *t, Migrd__Domain **def,
    registry_done *done, void *arg, struct err *e)
{
    struct registry_args a;
    enum registry_op op = REG_OP_MAX;
    struct tune_job *j;

    if (live_args(m, d, t, &op, &a, e) < 0)
        return -1;
    j = calloc(1, sizeof *j);
    if (j == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", d->name);
    *j = (struct tune_job){ m, *def, done, arg };
    if (registry_act(m, d, op, &a, live_done, j, e) < 0) {
        free(j);
        return -1;
    }
    *def = NULL;
    return 0;
}

int tune_domain(struct migrd *m, struct domain *d, const struct tune *asked, registry_done *done,
    void *arg, struct err *e)
{
    Migrd__Domain *def = NULL;
    struct tune t = *asked;
    int live = tune_is_live(d, t.scope, e), r;

    if (live < 0 || (t.what == TUNE_PIN && check_cpus(m, d, &t, e) < 0))
        return -1;
    if (is_for_config(d, t.scope) && (def = changed(m, d, &t, e)) == NULL)
        return -1;
    r = live ? change_live(m, d, &t, &def, done, arg, e) : registry_define(m, &def, done, arg, e);
    if (def != NULL)
        migrd__domain__free_unpacked(def, NULL);
    return r;
}
