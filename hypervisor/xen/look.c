/* SPDX-License-Identifier: ISC */
/*
 * What is only looked at: Xen's own log, and whether a domain can move.
 *
 *   pvh   live, with Xen's dirty log on hardware's page tables
 *   pv    paused: its page tables hold the frame numbers of this machine, so it leaves as libxc's
 *         stream (pv.h). Live would need a dirty log besides, and that shadow paging, which a Xen
 *         may have been built without (Debian's is); Xen's capabilities tell, so that nothing is
 *         switched on at a guest to find out
 *   hvm   not at all: its device model's state is not ours
 */
#include <stdlib.h>
#include <xenctrl.h>

#include "hypervisor/xen/mig_internal.h"

#define LOG_MAX (256u << 10)

int xen_dmesg(struct hv *hv, bool clear, char **text, struct err *e)
{
    unsigned n = LOG_MAX - 1, index = 0;
    int r;

    *text = malloc(LOG_MAX);
    if (*text == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for Xen's log");
    r = xc_readconsolering(xen_lock(hv), *text, &n, clear, 0, &index);
    xen_unlock(hv);
    if (r < 0) {
        free(*text);
        *text = NULL;
        return err_sys(e, "reading Xen's log");
    }
    (*text)[n < LOG_MAX ? n : LOG_MAX - 1] = '\0';
    return 0;
}

static int check_pv(struct hv *hv, bool live, struct err *e)
{
    xc_physinfo_t p = { 0 };
    int r;

    if (!live)
        return 0;
    r = xc_physinfo(xen_lock(hv), &p);
    xen_unlock(hv);
    if (r < 0)
        return err_sys(e, "asking Xen what it can do");
    if ((p.capabilities & XEN_SYSCTL_PHYSCAP_shadow) == 0)
        return err_set(e, ERR_UNSUPPORTED,
            "it is a pv guest, and this Xen was built without shadow paging, so it keeps no dirty "
            "log of it");
    return err_set(e, ERR_UNSUPPORTED,
        "it is a pv guest, whose page tables hold the frame numbers of this machine, so that its "
        "memory leaves in one piece; a pvh guest (type=), which the same kernel can be, moves "
        "live");
}

int xen_mig_check(struct hv *hv, const char *uuid, bool live, struct err *e)
{
    xc_domaininfo_t d;

    if (xen_find(hv, uuid, &d, e) < 0)
        return -1;
    if ((d.flags & XEN_DOMINF_paused) != 0 && !xen_is_suspended(&d))
        return err_set(e, ERR_STATE,
            "it is paused, and a guest of Xen takes part in its move: it suspends itself; unpause "
            "it first");
    switch (xen_type_of(&d)) {
    case XEN_HVM:
        return err_set(e, ERR_UNSUPPORTED,
            "it is an hvm guest, and the state of its device model (QEMU) is not moved; make it a "
            "pvh guest (type=)");
    case XEN_PV:
        return check_pv(hv, live, e);
    default:
        return 0;
    }
}
