/* SPDX-License-Identifier: ISC */
/*
 * shares: weight and cap of one domain, whichever of Xen's credit schedulers has them. The
 * scheduler is named as Xen's tools do; the others ("null", "rtds") have neither.
 */
#ifndef XEN_SHARES_H
#define XEN_SHARES_H

#include <stdbool.h>
#include <xenctrl.h>

struct xen_shares {
    uint16_t weight, cap; /* as struct hv_sched */
};

bool xen_has_shares(const char *scheduler);
/* 0, or -1 and errno: ENOTSUP if !xen_has_shares, ESRCH if there is no such domain. */
int xen_shares_get(xc_interface *xc, const char *scheduler, uint32_t domid, struct xen_shares *out);
int xen_shares_set(xc_interface *xc, const char *scheduler, uint32_t domid, struct xen_shares s);

#endif
