/* SPDX-License-Identifier: ISC */
/*
 * Figures of domains as libvirt's lists of parameters: virsh domstats, cpu-stats, domcontrol.
 *
 * domstats is one call for any number of domains. What the loop knows itself (state, CPU
 * time, memory) is put down at once; for vCPUs, disks and network cards of domains that run the
 * hypervisor is asked in the pool, one domain after the other, so that a long list keeps
 * no more than one thread busy. A domain that goes meanwhile is left out.
 */
#include <stdlib.h>
#include <string.h>

#include "migrd/domain_figures.h"
#include "migrd/libvirt/internal.h"
#include "migrd/migration.h"

enum {
    GROUP_STATE = 1,
    GROUP_CPU = 2,
    GROUP_BALLOON = 4,
    GROUP_VCPU = 8,
    GROUP_VIF = 16,
    GROUP_DISK = 32,
    GROUPS = 63
};
#define ENFORCE (1u << 31)     /* refuse groups that are not there */
#define TYPED_STRING_OKAY 4
#define OTHER_FLAGS (3u << 29) /* backing chains, no waiting: neither is there to do */

struct asked {
    struct lv_call *k;
    unsigned groups;
    char (*uuid)[HV_UUID_LEN];
    unsigned n, at;
    lv_stats_list list;
};

/* --- one domain --- */

static void put_known(struct lv_params *l, const struct domain *d, unsigned groups)
{
    const Migrd__Domain *def = registry_definition(d);
    int reason, state = lv_domain_state(d, &reason);

    if ((groups & GROUP_STATE) != 0) {
        lv_put_int(l, "state.state", state);
        lv_put_int(l, "state.reason", reason);
    }
    if ((groups & GROUP_CPU) != 0 && d->live)
        lv_put_ullong(l, "cpu.time", d->info.cpu_ns);
    if ((groups & GROUP_BALLOON) != 0) {
        lv_put_ullong(l, "balloon.current", d->live ? d->info.memory_kib : def->memory_kib);
        lv_put_ullong(l, "balloon.maximum", d->live ? d->info.max_memory_kib : def->max_memory_kib);
    }
    if ((groups & GROUP_VCPU) != 0) {
        lv_put_uint(l, "vcpu.current", d->live ? d->info.vcpus : def->vcpus);
        lv_put_uint(l, "vcpu.maximum", def->max_vcpus > def->vcpus ? def->max_vcpus : def->vcpus);
    }
}

static void put_vcpus(struct lv_params *l, const struct domain_figures *f)
{
    static const int states[] = {
        [HV_VCPU_OFFLINE] = 0, [HV_VCPU_RUNNING] = 1, [HV_VCPU_BLOCKED] = 2
    };
    struct lv_field name;

    for (unsigned i = 0; i < f->n_vcpus; i++) {
        lv_put_int(l, lv_field(&name, "vcpu.%u.state", i), states[f->vcpu[i].state]);
        lv_put_ullong(l, lv_field(&name, "vcpu.%u.time", i), f->vcpu[i].cpu_ns);
    }
}

static void put_vifs(struct lv_params *l, const struct hv_stats *s)
{
    struct lv_field name;

    lv_put_uint(l, "net.count", s->n_vifs);
    for (unsigned i = 0; i < s->n_vifs; i++) {
        const struct hv_vif_stats *v = &s->vif[i];
        const struct {
            const char *what;
            uint64_t value;
        } figures[] = { { "rx.bytes", v->rx_bytes }, { "rx.pkts", v->rx_packets },
            { "rx.errs", v->rx_errors }, { "rx.drop", v->rx_drops }, { "tx.bytes", v->tx_bytes },
            { "tx.pkts", v->tx_packets }, { "tx.errs", v->tx_errors }, { "tx.drop", v->tx_drops } };

        lv_put_text(l, lv_field(&name, "net.%u.name", i), v->ifname);
        for (size_t n = 0; n < sizeof figures / sizeof figures[0]; n++)
            lv_put_ullong(l, lv_field(&name, "net.%u.%s", i, figures[n].what), figures[n].value);
    }
}

static void put_disks(struct lv_params *l, const struct hv_stats *s)
{
    struct lv_field name;

    lv_put_uint(l, "block.count", s->n_disks);
    for (unsigned i = 0; i < s->n_disks; i++) {
        const struct hv_disk_stats *d = &s->disk[i];
        const struct {
            const char *what;
            uint64_t value;
        } figures[] = { { "rd.reqs", d->rd_ops }, { "rd.bytes", d->rd_bytes },
            { "wr.reqs", d->wr_ops }, { "wr.bytes", d->wr_bytes }, { "fl.reqs", d->flush_ops },
            { "errors", d->errors } };

        lv_put_text(l, lv_field(&name, "block.%u.name", i), d->device);
        lv_put_text(l, lv_field(&name, "block.%u.path", i), d->source);
        for (size_t n = 0; n < sizeof figures / sizeof figures[0]; n++)
            lv_put_ullong(l, lv_field(&name, "block.%u.%s", i, figures[n].what), figures[n].value);
    }
}

static void put_figures(struct lv_params *l, const struct domain_figures *f, unsigned groups)
{
    if ((groups & GROUP_BALLOON) != 0 && f->stats != NULL) {
        lv_put_ullong(l, "balloon.rss", f->stats->rss_kib);
        if (f->stats->unused_kib != HV_UNKNOWN)
            lv_put_ullong(l, "balloon.unused", f->stats->unused_kib);
    }
    if ((groups & GROUP_VCPU) != 0)
        put_vcpus(l, f);
    if ((groups & GROUP_VIF) != 0 && f->stats != NULL)
        put_vifs(l, f->stats);
    if ((groups & GROUP_DISK) != 0 && f->stats != NULL)
        put_disks(l, f->stats);
}

/* --- domstats --- */

static void asked_free(struct asked *a)
{
    xdr_free((xdrproc_t)xdr_lv_stats_list, (char *)&a->list);
    free(a->uuid);
    free(a);
}

/* A record of the list; `f` NULL: the hypervisor has nothing to say. */
static void put_record(struct asked *a, const struct domain *d, const struct domain_figures *f)
{
    lv_stats_record *r = &a->list.records.records_val[a->list.records.records_len];
    struct lv_params l;
    struct err e;

    if (lv_domain_put(d, &r->dom, &e) < 0)
        return;
    a->list.records.records_len++;
    if (lv_params_start(&l, LV_STATS_MAX, &e) < 0)
        return;
    put_known(&l, d, a->groups);
    if (f != NULL)
        put_figures(&l, f, a->groups);
    r->params.params_val = l.val;
    r->params.params_len = l.len;
}

static void next_domain(struct asked *a);

static void figures_came(void *arg, const struct domain_figures *f, const struct err *e)
{
    struct asked *a = arg;
    const struct domain *d = registry_by_uuid(a->k->m->registry, a->uuid[a->at++]);

    if (d != NULL)
        put_record(a, d, e->code == ERR_NONE ? f : NULL);
    next_domain(a);
}

/* What is known of the domain at a->at is put down; true if the hypervisor is asked first. */
static bool ask(struct asked *a)
{
    const struct domain *d = registry_by_uuid(a->k->m->registry, a->uuid[a->at]);
    unsigned want = 0;
    struct err e;

    if (d == NULL)
        return false;
    if ((a->groups & GROUP_VCPU) != 0)
        want |= FIGURES_VCPUS;
    if ((a->groups & (GROUP_BALLOON | GROUP_VIF | GROUP_DISK)) != 0)
        want |= FIGURES_STATS;
    if (d->live && want != 0 && figures_ask(a->k->m, d, want, figures_came, a, &e) == 0)
        return true;
    put_record(a, d, NULL);
    return false;
}

static void next_domain(struct asked *a)
{
    const struct err none = { 0 };

    for (; a->at < a->n; a->at++)
        if (ask(a))
            return;
    lv_call_finish(a->k, 0, &a->list, &none);
    asked_free(a);
}

/* Whose figures are wanted: those that were named, else all; of both those that the flags list. */
static int choose(struct lv_call *k, const lv_stats_args *args, struct asked *a, struct err *e)
{
    unsigned flags = args->flags & ~(ENFORCE | OTHER_FLAGS), most = args->doms.doms_len;
    struct domain *d;

    if (most == 0)
        for (d = registry_first(k->m->registry); d != NULL; d = d->next)
            most++;
    a->uuid = calloc(most + 1, sizeof *a->uuid);
    a->list.records.records_val = calloc(most + 1, sizeof *a->list.records.records_val);
    if (a->uuid == NULL || a->list.records.records_val == NULL)
        return err_set(e, ERR_MEMORY, "migrd is out of memory");
    for (u_int i = 0; i < args->doms.doms_len; i++) {
        d = lv_domain(k, &args->doms.doms_val[i], e);
        if (d == NULL)
            return -1;
        if (lv_is_listed(d, flags))
            memcpy(a->uuid[a->n++], d->uuid, HV_UUID_LEN);
    }
    if (args->doms.doms_len == 0)
        for (d = registry_first(k->m->registry); d != NULL; d = d->next)
            if (lv_is_listed(d, flags))
                memcpy(a->uuid[a->n++], d->uuid, HV_UUID_LEN);
    return 0;
}

int lv_domain_stats(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_stats_args *s = args;
    struct asked *a;

    (void)ret;
    if (lv_check_flags(k, s->flags, ENFORCE | OTHER_FLAGS | LV_LIST_ALL, e) < 0)
        return -1;
    if ((s->flags & ENFORCE) != 0 && (s->stats & ~(unsigned)GROUPS) != 0)
        return lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED,
            "statistics of groups 0x%x; there are state, cpu-total, balloon, vcpu, interface, "
            "block",
            s->stats & ~(unsigned)GROUPS);
    a = calloc(1, sizeof *a);
    if (a == NULL)
        return err_set(e, ERR_MEMORY, "migrd is out of memory");
    a->k = k;
    a->groups = s->stats != 0 ? s->stats & GROUPS : GROUPS;
    if (choose(k, s, a, e) < 0) {
        asked_free(a);
        return -1;
    }
    next_domain(a);
    return LV_LATER;
}

/* --- others --- */

/* cpu-stats asks for sums with CPU -1, first how many there are. */
int lv_cpu_stats(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_cpu_stats_args *a = args;
    struct domain *d = lv_domain(k, &a->dom, e);
    lv_cpu_stats_ret *r = ret;
    struct lv_params l;

    if (d == NULL || lv_check_flags(k, a->flags, TYPED_STRING_OKAY, e) < 0)
        return -1;
    if (!d->live)
        return lv_fail(k, e, LV_E_INVALID, "domain is not running");
    if (a->start_cpu != -1)
        return lv_fail(k, e, LV_E_UNSUPPORTED,
            "how long a domain ran on each CPU is not counted; its sum is: virsh cpu-stats "
            "--total");
    r->n = 1;
    if (a->n_params == 0)
        return 0;
    if (lv_params_start(&l, 1, e) < 0)
        return -1;
    lv_put_ullong(&l, "cpu_time", d->info.cpu_ns);
    r->params.params_val = l.val;
    r->params.params_len = l.len;
    return 0;
}

int lv_control_info(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    enum { CONTROL_OK, CONTROL_JOB };
    const lv_dom_flags *a = args;
    struct domain *d = lv_domain(k, &a->dom, e);
    lv_control *c = ret;
    Migrd__MigrationInfo i;

    if (d == NULL || lv_check_flags(k, a->flags, 0, e) < 0)
        return -1;
    if (!d->live)
        return lv_fail(k, e, LV_E_INVALID, "domain is not running");
    c->state = d->mig != NULL ? CONTROL_JOB : CONTROL_OK;
    if (d->mig == NULL)
        return 0;
    migration_info(d->mig, &i);
    c->since_ms = i.progress != NULL ? i.progress->elapsed_ms : 0;
    return 0;
}
