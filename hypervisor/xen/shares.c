/* SPDX-License-Identifier: ISC */
#include "hypervisor/xen/shares.h"

#include <errno.h>
#include <string.h>

static bool is_first(const char *scheduler)
{
    return strcmp(scheduler, "credit") == 0;
}

static bool is_second(const char *scheduler)
{
    return strcmp(scheduler, "credit2") == 0;
}

bool xen_has_shares(const char *scheduler)
{
    return is_first(scheduler) || is_second(scheduler);
}

int xen_shares_get(xc_interface *xc, const char *scheduler, uint32_t domid, struct xen_shares *out)
{
    struct xen_domctl_sched_credit one = { 0 };
    struct xen_domctl_sched_credit2 two = { 0 };

    if (is_first(scheduler)) {
        if (xc_sched_credit_domain_get(xc, domid, &one) < 0)
            return -1;
        *out = (struct xen_shares){ one.weight, one.cap };
        return 0;
    }
    if (is_second(scheduler)) {
        if (xc_sched_credit2_domain_get(xc, domid, &two) < 0)
            return -1;
        *out = (struct xen_shares){ two.weight, two.cap };
        return 0;
    }
    errno = ENOTSUP;
    return -1;
}

int xen_shares_set(xc_interface *xc, const char *scheduler, uint32_t domid, struct xen_shares s)
{
    struct xen_domctl_sched_credit one = { .weight = s.weight, .cap = s.cap };
    struct xen_domctl_sched_credit2 two = { .weight = s.weight, .cap = s.cap };

    if (is_first(scheduler))
        return xc_sched_credit_domain_set(xc, domid, &one);
    if (is_second(scheduler))
        return xc_sched_credit2_domain_set(xc, domid, &two);
    errno = ENOTSUP;
    return -1;
}
