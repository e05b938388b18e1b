/* SPDX-License-Identifier: ISC */
/*
 * While a domain moves, and before.
 *
 * migrate-setspeed and migrate-setmaxdowntime: wishes for a domain's migrations, which count
 * until migrd ends or the domain goes, whoever starts them, where that one says nothing
 * else; a migration under way gets them at once.
 *
 * virsh suspend (which is also what `migrate --timeout` does when the time is over) pauses
 * the guest where it is, in the middle of the copying: the rest follows while it stands,
 * then it runs on the target. A migration that fails makes it run here again.
 */
#include "migrd/libvirt/internal.h"
#include "migrd/migration.h"

#define MIB (1u << 20)
#define SPEED_MAX UINT32_MAX /* MiB/s */
#define DOWNTIME_MAX_MS 2000000

static int tune(struct domain *d, const Migrd__SetParams *p, struct err *e)
{
    return d->mig != NULL ? migration_tune(d->mig, p, e) : 0;
}

int lv_set_speed(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_wish *a = args;
    struct domain *d = lv_domain(k, &a->dom, e);
    Migrd__SetParams p = MIGRD__SET_PARAMS__INIT;

    (void)ret;
    if (d == NULL)
        return -1;
    if (a->flags != 0)
        return lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED, "--postcopy is not supported");
    if (a->value > SPEED_MAX)
        return lv_fail(
            k, e, LV_E_INVALID_ARG, "bandwidth must be at most %u MiB/s; 0 is no limit", SPEED_MAX);
    p.set_bandwidth = true;
    p.bandwidth = a->value * MIB;
    lv_audit(k, "set the speed of migrations of", d->name);
    if (tune(d, &p, e) < 0)
        return -1;
    d->wish.set_bandwidth = true;
    d->wish.bandwidth = p.bandwidth;
    return 0;
}

int lv_get_speed(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_flags *a = args;
    struct domain *d = lv_domain(k, &a->dom, e);

    if (d == NULL)
        return -1;
    if (a->flags != 0)
        return lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED, "--postcopy is not supported");
    ((lv_uhyper *)ret)->value = migration_wishes(k->m, d).bandwidth / MIB;
    return 0;
}

int lv_set_downtime(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_wish *a = args;
    struct domain *d = lv_domain(k, &a->dom, e);
    Migrd__SetParams p = MIGRD__SET_PARAMS__INIT;

    (void)ret;
    if (d == NULL || lv_check_flags(k, a->flags, 0, e) < 0)
        return -1;
    if (a->value == 0 || a->value > DOWNTIME_MAX_MS)
        return lv_fail(
            k, e, LV_E_INVALID_ARG, "maximum downtime must be 1 to %d ms", DOWNTIME_MAX_MS);
    p.set_budget = true;
    p.pause_budget_ms = (uint32_t)a->value;
    lv_audit(k, "set the pause of migrations of", d->name);
    if (tune(d, &p, e) < 0)
        return -1;
    d->wish.pause_budget_ms = p.pause_budget_ms;
    return 0;
}

int lv_get_downtime(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_flags *a = args;
    struct domain *d = lv_domain(k, &a->dom, e);

    if (d == NULL || lv_check_flags(k, a->flags, 0, e) < 0)
        return -1;
    ((lv_uhyper *)ret)->value = migration_wishes(k->m, d).pause_budget_ms;
    return 0;
}

int lv_start_postcopy(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_flags *a = args;

    (void)ret;
    if (lv_domain(k, &a->dom, e) == NULL)
        return -1;
    return lv_fail(k, e, LV_E_UNSUPPORTED,
        "post-copy is not supported; virsh suspend stops the guest for the rest of its migration");
}

/* --- suspend --- */

static bool stands(const struct migration *g)
{
    Migrd__MigrationInfo i;

    migration_info(g, &i);
    return i.progress != NULL && i.progress->phase >= MIGRD__PHASE__PHASE_PAUSED;
}

static void watch_pause(void *call, struct migration *g, bool last)
{
    struct lv_call *k = call;
    struct err e = { 0 };

    if (!last && !stands(g))
        return;
    if (!last)
        migration_unwatch(k->m, watch_pause, k);
    else if (migration_outcome(g, &e) == 0)
        err_clear(&e);
    lv_call_end(k, "", &e);
}

int lv_suspend_moving(struct lv_call *k, struct domain *d, struct err *e)
{
    Migrd__SetParams p = MIGRD__SET_PARAMS__INIT;

    p.stop = true;
    if (stands(d->mig))
        return 0;
    lv_audit(k, "suspend in its migration", d->name);
    if (migration_tune(d->mig, &p, e) < 0)
        return -1;
    if (migration_watch(d->mig, watch_pause, k) == 0)
        return LV_LATER;
    return lv_fail(k, e, LV_E_BUSY, "too many clients watch the migration; it will be suspended");
}
