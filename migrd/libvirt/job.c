/* SPDX-License-Identifier: ISC */
/*
 * A domain's job: the hand-over, save or restore that it is in, whoever asked for it, or
 * (for domjobinfo --completed) the last one that has ended.
 */
#include <stdlib.h>
#include <string.h>

#include "migrd/libvirt/internal.h"
#include "migrd/migration.h"

/* libvirt's numbers. */
enum { JOB_NONE, JOB_BOUNDED, JOB_UNBOUNDED, JOB_COMPLETED, JOB_FAILED };
enum { OP_UNKNOWN, OP_SAVE = 2, OP_RESTORE = 3, OP_IN = 4, OP_OUT = 5, OP_DUMP = 8 };
#define STATS_COMPLETED 1
#define STATS_KEEP 2

struct figures {
    uint64_t total, remaining, processed;
};

/* While it goes on never nothing is left: 0 means to virsh that it has ended. */
static struct figures figures_of(const Migrd__Progress *p)
{
    struct figures f = { 0 };

    if (p == NULL)
        return f;
    f.total = p->pages_total * HV_PAGE_SIZE;
    f.remaining = (p->pages_remaining > 0 ? p->pages_remaining : 1) * HV_PAGE_SIZE;
    if (f.remaining > f.total)
        f.total = f.remaining;
    f.processed = f.total - f.remaining;
    return f;
}

static int operation(const Migrd__MigrationInfo *i)
{
    static const struct {
        const char *direction;
        int op;
    } ops[] = { { "out", OP_OUT }, { "in", OP_IN }, { "save", OP_SAVE },
        { "restore", OP_RESTORE }, { "dump", OP_DUMP } };

    for (size_t n = 0; n < sizeof ops / sizeof ops[0]; n++)
        if (strcmp(i->direction, ops[n].direction) == 0)
            return ops[n].op;
    return OP_UNKNOWN;
}

/* --- under way --- */

int lv_get_job_info(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    struct domain *d = lv_domain(k, args, e);
    Migrd__MigrationInfo i;
    lv_job_info *j = ret;
    struct figures f;

    if (d == NULL)
        return -1;
    if (d->mig == NULL)
        return 0;
    migration_info(d->mig, &i);
    f = figures_of(i.progress);
    j->type = JOB_UNBOUNDED;
    j->elapsed_ms = i.progress != NULL ? i.progress->elapsed_ms : 0;
    j->data_total = j->mem_total = f.total;
    j->data_processed = j->mem_processed = f.processed;
    j->data_remaining = j->mem_remaining = f.remaining;
    return 0;
}

int lv_abort_job(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    struct domain *d = lv_domain(k, args, e);

    (void)ret;
    if (d == NULL)
        return -1;
    if (d->mig == NULL)
        return lv_fail(k, e, LV_E_INVALID, "no job is active on the domain");
    lv_audit(k, "abort job of", d->name);
    return migration_cancel(k->m, d->mig, e);
}

/* --- statistics --- */

static void add_progress(struct lv_params *l, const Migrd__Progress *p)
{
    struct figures f = figures_of(p);

    if (p == NULL)
        return;
    lv_put_ullong(l, "time_elapsed", p->elapsed_ms);
    lv_put_ullong(l, "data_total", f.total);
    lv_put_ullong(l, "data_processed", f.processed);
    lv_put_ullong(l, "data_remaining", f.remaining);
    lv_put_ullong(l, "memory_total", f.total);
    lv_put_ullong(l, "memory_processed", f.processed);
    lv_put_ullong(l, "memory_remaining", f.remaining);
    lv_put_ullong(l, "memory_constant", p->pages_zero);
    lv_put_ullong(l, "memory_normal", p->pages_sent);
    lv_put_ullong(l, "memory_normal_bytes", p->pages_sent * HV_PAGE_SIZE);
    lv_put_ullong(l, "memory_bps", p->bandwidth);
    lv_put_ullong(l, "memory_dirty_rate", p->dirty_rate / HV_PAGE_SIZE);
    lv_put_ullong(l, "memory_page_size", HV_PAGE_SIZE);
    lv_put_ullong(l, "memory_iteration", p->round + 1);
    lv_put_ullong(l, "downtime", p->expected_pause_ms);
    lv_put_int(l, "auto_converge_throttle", (int)p->throttle);
}

static void add_report(struct lv_params *l, const Migrd__MigrationInfo *i)
{
    const Migrd__Finished *r = i->report;

    if (r == NULL)
        return;
    lv_put_ullong(l, "time_elapsed", r->total_us / 1000);
    if (r->pause_us > 0)
        lv_put_ullong(l, "downtime", r->pause_us / 1000);
    lv_put_ullong(l, "data_total", r->wire_bytes);
    lv_put_ullong(l, "data_processed", r->wire_bytes);
    lv_put_ullong(l, "data_remaining", 0);
    lv_put_ullong(l, "memory_total", r->wire_bytes);
    lv_put_ullong(l, "memory_processed", r->wire_bytes);
    lv_put_ullong(l, "memory_remaining", 0);
    lv_put_ullong(
        l, "memory_bps", r->total_us > 0 ? r->wire_bytes * 1000 / (r->total_us / 1000 + 1) : 0);
    lv_put_ullong(l, "memory_page_size", HV_PAGE_SIZE);
    lv_put_ullong(l, "memory_constant", r->pages_zero);
    lv_put_ullong(l, "memory_normal", r->pages_sent);
    lv_put_ullong(l, "memory_normal_bytes", r->pages_sent * HV_PAGE_SIZE);
    if (r->n_rounds > 0) /* the target does not know them all */
        lv_put_ullong(l, "memory_iteration", r->n_rounds);
    lv_put_bool(l, "success", r->ok);
    if (!r->ok)
        lv_put_text(l, "errmsg", r->text);
}

int lv_job_params(const Migrd__MigrationInfo *i, struct lv_params *out, struct err *e)
{
    if (lv_params_start(out, LV_PARAMS_MAX, e) < 0)
        return -1;
    lv_put_int(out, "operation", operation(i));
    if (i->report != NULL)
        add_report(out, i);
    else
        add_progress(out, i->progress);
    return 0;
}

/* That nobody has read yet. */
static struct migration *last_ended(struct migrd *m, const struct domain *d)
{
    struct migration *found = NULL;
    Migrd__MigrationInfo i;
    uint64_t end = d->job_read_ns;

    for (struct migration *g = migration_next(m, NULL, true); g != NULL;
         g = migration_next(m, g, true)) {
        migration_info(g, &i);
        if (i.report == NULL || strcmp(i.uuid, d->uuid) != 0 || i.end_wall_ns <= end)
            continue;
        end = i.end_wall_ns;
        found = g;
    }
    return found;
}

int lv_get_job_stats(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_flags *a = args;
    struct domain *d = lv_domain(k, &a->dom, e);
    bool completed = (a->flags & STATS_COMPLETED) != 0;
    lv_job_stats *s = ret;
    struct lv_params l;
    Migrd__MigrationInfo i;
    struct migration *g;

    if (d == NULL || lv_check_flags(k, a->flags, STATS_COMPLETED | STATS_KEEP, e) < 0)
        return -1;
    g = completed ? last_ended(k->m, d) : d->mig;
    if (g == NULL)
        return 0;
    migration_info(g, &i);
    if (!completed)
        i.report = NULL;
    if (lv_job_params(&i, &l, e) < 0)
        return -1;
    s->params.params_val = l.val;
    s->params.params_len = l.len;
    s->type = !completed ? JOB_UNBOUNDED : i.report->ok ? JOB_COMPLETED : JOB_FAILED;
    if (completed && (a->flags & STATS_KEEP) == 0)
        d->job_read_ns = i.end_wall_ns;
    return 0;
}
