/* SPDX-License-Identifier: ISC */
/*
 * The driver's side of fuses. A domain that xen-domain built has one, a domain that Xen's own tools
 * made has none: it runs without a limit, and hv_info.fused says so. A xen-fuse that has
 * died under a living domain is started again by the next who lists domains, and takes
 * over what its page says; until then nobody stops that domain.
 */
#define _GNU_SOURCE
#include "hypervisor/xen/fuse.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "hypervisor/xen/xen_internal.h"

#define LOOKED_MAX_MS 10000 /* it looks each second: one that has not for so long hangs */

int xen_fuse(struct hv *hv, const char *uuid, uint64_t epoch, uint64_t deadline_ms, struct err *e)
{
    return fuse_orders_set(&hv->fuses, uuid, epoch, deadline_ms, e);
}

/* A hold of another epoch is another one: xen-fuse must not sleep over it. */
void xen_fuse_epoch(const char *dir, uint64_t epoch)
{
    struct fuse_page *page = fuse_page_map(dir, true);
    struct xen_fuse f = { .page = page, .hold = xen_hold_map(dir) };

    if (f.hold != NULL)
        xen_hold_set_epoch(f.hold, epoch);
    if (page != NULL)
        fuse_page_wake(page);
    xen_fuse_unmap(&f);
}

static bool is_alive(const char *dir)
{
    pid_t pid;
    bool alive;

    rundir_process(dir, &pid, &alive);
    return alive;
}

void xen_fuse_tend(struct hv *hv, const char *uuid, uint32_t domid)
{
    char dir[RUNDIR_LEN];
    struct xen_fuse f;
    struct err e;

    xen_dir(hv, uuid, dir);
    if (is_alive(dir) || !xen_fuse_map(&f, dir))
        return;
    xen_fuse_unmap(&f);
    if (xen_fuse_spawn(hv->run_dir, uuid, domid, &e) < 0)
        log_error("xen", "its fuse is dead, and nobody stops it at its deadline: %s", e.text);
    else
        log_warn("xen", "domain %s: its xen-fuse had died; another one watches it", uuid);
}

void xen_fuse_fill(struct hv *hv, const char *dir, const xc_domaininfo_t *d, struct hv_info *i)
{
    struct xen_fuse f;
    uint64_t looked;

    if (!xen_fuse_map(&f, dir))
        return;
    looked = atomic_load(&f.hold->looked);
    i->fused = is_alive(dir) && looked + LOOKED_MAX_MS > clock_boot_ms() &&
               fuse_orders_reach(&hv->fuses, i->uuid);
    i->blown =
        i->state == HV_PAUSED && xen_shutdown_code(d) == XEN_NO_SHUTDOWN && xen_fuse_is_blown(&f);
    if (i->blown)
        fuse_order_reason(
            fuse_page_read(f.page), atomic_load(&f.hold->epoch), i->reason, sizeof i->reason);
    xen_fuse_unmap(&f);
}

int xen_do_pause(struct hv *hv, const char *uuid, const xc_domaininfo_t *d, struct err *e)
{
    char dir[RUNDIR_LEN];
    struct xen_fuse f;
    int r = 0;

    xen_dir(hv, uuid, dir);
    if (xen_fuse_map(&f, dir)) {
        r = xen_fuse_pause(&f, xen_lock(hv), d);
        xen_unlock(hv);
        xen_fuse_unmap(&f);
    } else if ((d->flags & XEN_DOMINF_paused) == 0) {
        r = xc_domain_pause(xen_lock(hv), d->domain);
        xen_unlock(hv);
    }
    return r < 0 ? err_sys(e, "pausing domain %s", uuid) : 0;
}

int xen_do_resume(struct hv *hv, const char *uuid, uint32_t domid, struct err *e)
{
    char dir[RUNDIR_LEN];
    struct xen_fuse f;
    int r;

    xen_dir(hv, uuid, dir);
    if (xen_fuse_map(&f, dir)) {
        r = xen_fuse_resume(&f, xen_lock(hv), hv->xs, domid, e);
        xen_unlock(hv);
        xen_fuse_unmap(&f);
    } else {
        r = xen_let_run(xen_lock(hv), hv->xs, domid, e);
        xen_unlock(hv);
    }
    return r < 0 ? err_prefix(e, "domain %s", uuid) : 0;
}
