/* SPDX-License-Identifier: ISC */
/*
 * migrate-setspeed and migrate-setmaxdowntime: wishes for a domain's migrations, which count
 * until migrd ends or the domain goes, whoever starts them, where that one says nothing
 * else; a migration under way gets them at once.
 */
#include "migrd/libvirt/migrate.h"

#define MIB (1u << 20)
#define SPEED_MAX UINT32_MAX /* MiB/s */
#define DOWNTIME_MAX_MS 2000000

static int tune(struct domain *d, const Migrd__SetParams *p, struct err *e)
{
    return d->mig != NULL ? migration_tune(d->mig, p, e) : 0;
}

int lv_set_speed(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_number *a = args;
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
    const lv_dom_number *a = args;
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
