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
enum { OP_UNKNOWN, OP_SAVE = 2, OP_RESTORE = 3, OP_IN = 4, OP_OUT = 5 };
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
        { "restore", OP_RESTORE } };

    for (size_t n = 0; n < sizeof ops / sizeof ops[0]; n++)
        if (strcmp(i->direction, ops[n].direction) == 0)
            return ops[n].op;
    return OP_UNKNOWN;
}

/* --- under way ----------------------------------------------------------------------------------
 */

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

/* --- statistics
 * ----------------------------------------------------------------------------------- */

static lv_param *add(lv_job_stats *s, const char *field, lv_value_type type)
{
    lv_param *p;

    if (s->params.params_len == LV_PARAMS_MAX)
        return NULL;
    p = &s->params.params_val[s->params.params_len];
    p->field = lv_copy(field);
    p->value.type = type;
    if (p->field == NULL)
        return NULL;
    s->params.params_len++;
    return p;
}

static void add_number(lv_job_stats *s, const char *field, uint64_t v)
{
    lv_param *p = add(s, field, LV_ULLONG);

    if (p != NULL)
        p->value.lv_value_u.ul = v;
}

static void add_int(lv_job_stats *s, const char *field, lv_value_type type, int v)
{
    lv_param *p = add(s, field, type);

    if (p != NULL)
        p->value.lv_value_u.i = v; /* both int members lie there */
}

static void add_progress(lv_job_stats *s, const Migrd__Progress *p)
{
    struct figures f = figures_of(p);

    if (p == NULL)
        return;
    add_number(s, "time_elapsed", p->elapsed_ms);
    add_number(s, "data_total", f.total);
    add_number(s, "data_processed", f.processed);
    add_number(s, "data_remaining", f.remaining);
    add_number(s, "memory_total", f.total);
    add_number(s, "memory_processed", f.processed);
    add_number(s, "memory_remaining", f.remaining);
    add_number(s, "memory_constant", p->pages_zero);
    add_number(s, "memory_normal", p->pages_sent);
    add_number(s, "memory_normal_bytes", p->pages_sent * HV_PAGE_SIZE);
    add_number(s, "memory_bps", p->bandwidth);
    add_number(s, "memory_dirty_rate", p->dirty_rate / HV_PAGE_SIZE);
    add_number(s, "memory_page_size", HV_PAGE_SIZE);
    add_number(s, "memory_iteration", p->round);
    add_number(s, "downtime", p->expected_pause_ms);
    add_int(s, "auto_converge_throttle", LV_INT, (int)p->throttle);
}

static void add_report(lv_job_stats *s, const Migrd__MigrationInfo *i)
{
    const Migrd__Finished *r = i->report;
    lv_param *p;

    if (r == NULL)
        return;
    add_number(s, "time_elapsed", r->total_us / 1000);
    add_number(s, "downtime", r->pause_us / 1000);
    add_number(s, "data_total", r->wire_bytes);
    add_number(s, "data_processed", r->wire_bytes);
    add_number(s, "data_remaining", 0);
    add_number(s, "memory_constant", r->pages_zero);
    add_number(s, "memory_normal", r->pages_sent);
    add_number(s, "memory_normal_bytes", r->pages_sent * HV_PAGE_SIZE);
    add_number(s, "memory_iteration", r->n_rounds);
    add_int(s, "success", LV_BOOL, r->ok);
    if (!r->ok && (p = add(s, "errmsg", LV_STRING)) != NULL)
        p->value.lv_value_u.s = lv_copy(r->text);
}

static struct migration *last_ended(struct migrd *m, const char *uuid)
{
    struct migration *found = NULL;
    Migrd__MigrationInfo i;
    uint64_t end = 0;

    for (struct migration *g = migration_next(m, NULL, true); g != NULL;
         g = migration_next(m, g, true)) {
        migration_info(g, &i);
        if (i.report == NULL || strcmp(i.uuid, uuid) != 0 || i.end_wall_ns <= end)
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
    Migrd__MigrationInfo i;
    struct migration *g;

    if (d == NULL || lv_check_flags(k, a->flags, STATS_COMPLETED | STATS_KEEP, e) < 0)
        return -1;
    g = completed ? last_ended(k->m, d->uuid) : d->mig;
    if (g == NULL)
        return 0;
    s->params.params_val = calloc(LV_PARAMS_MAX, sizeof *s->params.params_val);
    if (s->params.params_val == NULL)
        return err_set(e, ERR_MEMORY, "migrd is out of memory");
    migration_info(g, &i);
    add_int(s, "operation", LV_INT, operation(&i));
    if (completed)
        add_report(s, &i);
    else
        add_progress(s, i.progress);
    s->type = !completed ? JOB_UNBOUNDED : i.report->ok ? JOB_COMPLETED : JOB_FAILED;
    return 0;
}
