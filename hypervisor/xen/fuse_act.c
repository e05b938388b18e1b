/* SPDX-License-Identifier: ISC */
/*
 * Pauses and unpauses of a domain that has a fuse. Any of these may run at the same time in
 * xen-fuse and in the driver, and none waits for another: a pause that one of them took back
 * while another one had just made it is seen by xen-fuse, which looks every 20 ms while
 * the fuse is blown.
 */
#define _GNU_SOURCE
#include "hypervisor/xen/fuse.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "hypervisor/xen/xen_internal.h"

#define STEPS_MAX 4 /* of one look; another look follows */

bool xen_fuse_map(struct xen_fuse *f, const char *dir)
{
    f->page = fuse_page_map(dir, false);
    f->hold = f->page != NULL ? xen_hold_map(dir) : NULL;
    if (f->hold != NULL)
        return true;
    xen_fuse_unmap(f);
    return false;
}

void xen_fuse_unmap(struct xen_fuse *f)
{
    if (f->page != NULL)
        munmap(f->page, FUSE_PAGE_LEN);
    if (f->hold != NULL)
        munmap(f->hold, FUSE_PAGE_LEN);
    memset(f, 0, sizeof *f);
}

static bool is_paused(const xc_domaininfo_t *d)
{
    return (d->flags & XEN_DOMINF_paused) != 0;
}

/* --- the table's steps --- */

static int hold(struct xen_hold *h, xc_interface *xc, const xc_domaininfo_t *d)
{
    bool paused = is_paused(d);

    if (!paused) {
        atomic_store(&h->person, 0);
        atomic_store(&h->held, 0); /* what there was of ours has been taken back */
    }
    if (xc_domain_pause(xc, d->domain) < 0)
        return -1;
    if (paused)
        atomic_store(&h->person, 1);
    atomic_fetch_add(&h->held, 1);
    return 0;
}

static int release(struct xen_hold *h, xc_interface *xc, uint32_t domid)
{
    uint32_t n = atomic_exchange(&h->held, 0);

    for (; n > 0; n--)
        if (xc_domain_unpause(xc, domid) < 0 && errno != EINVAL) /* somebody did it already */
            return -1;
    return 0;
}

static void note_running(struct xen_hold *h)
{
    atomic_store(&h->person, 0);
    atomic_store(&h->ran, atomic_load(&h->epoch));
}

static int look_once(struct xen_fuse *f, xc_interface *xc, uint32_t domid, enum xen_hold_step *step)
{
    struct xen_hold *h = f->hold;
    xc_domaininfo_t d;

    if (xen_domain_facts(xc, domid, &d) < 0)
        return -1;
    *step = xen_hold_step(
        fuse_page_read(f->page), h, is_paused(&d), (d.flags & XEN_DOMINF_shutdown) != 0);
    switch (*step) {
    case XEN_HOLD_PAUSE:
        return hold(h, xc, &d);
    case XEN_HOLD_RELEASE:
        return release(h, xc, domid);
    case XEN_HOLD_RAN:
        note_running(h);
        return 0;
    case XEN_HOLD_STAY:
        break;
    }
    return 0;
}

int xen_fuse_look(struct xen_fuse *f, xc_interface *xc, uint32_t domid)
{
    enum xen_hold_step step = XEN_HOLD_PAUSE;

    for (int i = 0; i < STEPS_MAX && step != XEN_HOLD_STAY; i++)
        if (look_once(f, xc, domid, &step) < 0)
            return -1;
    return 0;
}

int xen_fuse_leave(struct xen_fuse *f, xc_interface *xc, uint32_t domid)
{
    struct fuse_order o = fuse_page_read(f->page);
    bool limited = o.epoch != 0 ? o.deadline != UINT64_MAX : f->hold->begun_blown != 0;
    xc_domaininfo_t d;

    if (!limited || (atomic_load(&f->hold->held) != 0 && !xen_hold_lit(o, f->hold)))
        return 0;
    if (xen_domain_facts(xc, domid, &d) < 0)
        return -1;
    return hold(f->hold, xc, &d);
}

/* --- what people want --- */

/* A pause that is there may be xen-fuse's, a moment before it says so: ours is another one. */
int xen_fuse_pause(struct xen_fuse *f, xc_interface *xc, const xc_domaininfo_t *d)
{
    bool have = is_paused(d) && atomic_load(&f->hold->person) != 0;

    if (!have && xc_domain_pause(xc, d->domain) < 0)
        return -1;
    atomic_store(&f->hold->person, 1);
    return 0;
}

/* Its pause becomes the fuse's, which takes it back with its own. */
static bool give_pause_to_fuse(struct xen_hold *h)
{
    if (atomic_exchange(&h->person, 0) == 0)
        return false;
    atomic_fetch_add(&h->held, 1);
    return true;
}

static int end_pause(
    struct xen_fuse *f, xc_interface *xc, struct xs_handle *xs, uint32_t domid, struct err *e)
{
    struct fuse_order o = fuse_page_read(f->page);
    xc_domaininfo_t d;
    char why[160];

    if (xen_domain_facts(xc, domid, &d) < 0)
        return err_sys(e, "domain %u", domid);
    if (xen_shutdown_code(&d) == SHUTDOWN_suspend) {
        if (xen_unsuspend(xc, xs, domid, e) < 0)
            return -1;
        give_pause_to_fuse(f->hold);
        return 0;
    }
    if (give_pause_to_fuse(f->hold))
        return 0;
    fuse_order_reason(o, atomic_load(&f->hold->epoch), why, sizeof why);
    return err_set(e, ERR_STATE, "cannot run: %s", why);
}

int xen_fuse_resume(
    struct xen_fuse *f, xc_interface *xc, struct xs_handle *xs, uint32_t domid, struct err *e)
{
    if (xen_fuse_look(f, xc, domid) < 0)
        return err_sys(e, "domain %u: its fuse", domid);
    if (!xen_hold_lit(fuse_page_read(f->page), f->hold))
        return end_pause(f, xc, xs, domid, e);
    atomic_store(&f->hold->person, 0);
    atomic_store(&f->hold->held, 0); /* its pauses are taken back with all others */
    if (xen_let_run(xc, xs, domid, e) < 0)
        return -1;
    if (xen_fuse_look(f, xc, domid) < 0)
        return err_sys(e, "domain %u: its fuse", domid);
    return 0;
}

bool xen_fuse_is_blown(struct xen_fuse *f)
{
    return atomic_load(&f->hold->held) != 0 && atomic_load(&f->hold->person) == 0;
}
