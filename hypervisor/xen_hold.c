/* SPDX-License-Identifier: ISC */
/*
 * The table. "Lit" is what the order says about the copy's epoch (fuse_page.h).
 *
 *   lit    held    domain                    step
 *   no     0       any                       pause
 *   no     > 0     paused                    stay
 *   no     > 0     not paused                pause: somebody has taken our pause back
 *   yes    > 0     fresh                     release
 *   yes    > 0     has run under its epoch   stay: `resume` ends it
 *   yes    0       runs, not known as such   ran
 *   yes    0       else                      stay
 *
 * Xen counts the pauses of a domain and shows only whether there is one. `held` is our part of
 * that count: it goes up after a pause and down before an unpause, so that whoever dies in between
 * leaves a domain that stands still. Two that pause at once count two.
 */
#include "hypervisor/xen_hold.h"

bool xen_hold_lit(struct fuse_order order, struct xen_hold *h)
{
    return fuse_order_lit(order, h->begun_blown != 0, atomic_load(&h->epoch));
}

bool xen_hold_fresh(struct xen_hold *h)
{
    return atomic_load(&h->ran) != atomic_load(&h->epoch);
}

void xen_hold_set_epoch(struct xen_hold *h, uint64_t epoch)
{
    uint64_t was = atomic_load(&h->epoch);

    while (was < epoch && !atomic_compare_exchange_weak(&h->epoch, &was, epoch))
        ;
}

enum xen_hold_step xen_hold_step(
    struct fuse_order order, struct xen_hold *h, bool paused, bool ended)
{
    bool held = atomic_load(&h->held) != 0, fresh = xen_hold_fresh(h);

    if (!xen_hold_lit(order, h))
        return held && paused ? XEN_HOLD_STAY : XEN_HOLD_PAUSE;
    if (held)
        return fresh ? XEN_HOLD_RELEASE : XEN_HOLD_STAY;
    if (!paused && !ended && (fresh || atomic_load(&h->person) != 0))
        return XEN_HOLD_RAN;
    return XEN_HOLD_STAY;
}

int xen_hold_make(const char *dir, uint64_t epoch, bool begun_blown, struct err *e)
{
    const struct xen_hold h = {
        .magic = XEN_HOLD_MAGIC, .begun_blown = begun_blown, .epoch = epoch, .ran = UINT64_MAX
    };

    return fuse_file_make(dir, XEN_HOLD_FILE, &h, sizeof h, e);
}

struct xen_hold *xen_hold_map(const char *dir)
{
    return fuse_file_map(dir, XEN_HOLD_FILE, XEN_HOLD_MAGIC, true);
}
