/* SPDX-License-Identifier: ISC */
/*
 * What a migration must not leave on at a domain, of each domain of this Xen: one line
 * "DOMID log=off|on cap=PERCENT". A dirty log that is off can be switched on, and only then: it is,
 * and off again. In dom0: xen_log_smoke
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "hypervisor/xen/find.h"
#include "hypervisor/xen/mig_internal.h"
#include "hypervisor/xen/release.h"

static bool log_is_on(xc_interface *xc, uint32_t domid)
{
    struct err e;

    if (xen_log_dirty(xc, domid, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, NULL, 0, NULL) < 0)
        return true;
    return xen_log_off(xc, domid, &e) < 0;
}

int main(void)
{
    struct err e = { 0 };
    xc_interface *xc = xen_open_xc(&e);
    xc_domaininfo_t *list = NULL;
    size_t n = 0;

    if (xc == NULL || xen_list(xc, &list, &n, &e) < 0) {
        printf("%s\n", e.text);
        return 1;
    }
    for (size_t i = 0; i < n; i++) {
        struct xen_shares s = { 0, 0 };
        bool on = log_is_on(xc, list[i].domain);

        if (xen_shares_get(xc, "credit2", list[i].domain, &s) < 0)
            printf("%u: its cap: error %d\n", list[i].domain, errno);
        printf("%u log=%s cap=%u\n", list[i].domain, on ? "on" : "off", s.cap);
    }
    free(list);
    xc_interface_close(xc);
    return 0;
}
