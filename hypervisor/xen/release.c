/* SPDX-License-Identifier: ISC */
/*
 * Since 4.18 there is no xc_domain_getinfo; xc_domain_getinfolist, which is in all of
 * them, is used instead. It answers with the next domain where the one asked for is
 * gone, so the number is compared.
 */
#include "hypervisor/xen/release.h"

#include <errno.h>
#include <stdio.h>

/* libxenctrl exports it for libxenguest; no header that is installed declares it. */
int xc_get_pfn_type_batch(xc_interface *xch, uint32_t dom, unsigned int num, xen_pfn_t *arr);

int xen_release_running(xc_interface *xc, char *out, size_t size, struct err *e)
{
    xen_extraversion_t extra = { 0 };
    int v = xc_version(xc, XENVER_version, NULL);

    if (v < 0 || xc_version(xc, XENVER_extraversion, &extra) < 0)
        return err_sys(e, "asking Xen for its version");
    snprintf(out, size, "%d.%d", v >> 16, v & 0xffff);
    return 0;
}

const char *xen_release_built(void)
{
    static char text[16];

    snprintf(text, sizeof text, "%d.%d", XEN_RELEASE / 100, XEN_RELEASE % 100);
    return text;
}

int xen_domain_facts(xc_interface *xc, uint32_t domid, xc_domaininfo_t *out)
{
    int n = xc_domain_getinfolist(xc, domid, 1, out);

    if (n == 1 && out->domain == domid)
        return 0;
    if (n >= 0)
        errno = ESRCH;
    return -1;
}

long long xen_log_dirty(xc_interface *xc, uint32_t domid, unsigned op,
    xc_hypercall_buffer_t *bitmap, unsigned long pages, xc_shadow_op_stats_t *stats)
{
    return xc_logdirty_control(xc, domid, op, bitmap, pages, 0, stats);
}

int xen_frame_types(xc_interface *xc, uint32_t domid, unsigned n, xen_pfn_t *frame)
{
    return xc_get_pfn_type_batch(xc, domid, n, frame) < 0 ? -1 : 0;
}
