/* SPDX-License-Identifier: ISC */
/*
 * xen_hold: what a fuse has done to a domain of Xen, and what it has to do: RUN_DIR/<uuid>/hold, a
 * page that xen-fuse (xen/xen-fuse_main.c) and the driver share, and the table of decisions, which
 * needs no Xen. Either side may die between any two steps; the page outlives both, and goes with
 * the domain's folder. Unmap with munmap(hold, FUSE_PAGE_LEN).
 */
#ifndef HV_XEN_HOLD_H
#define HV_XEN_HOLD_H

#include "hypervisor/fuse_page.h"

#define XEN_HOLD_FILE "hold"
#define XEN_HOLD_MAGIC UINT64_C(0x31646c6f68766878)

struct xen_hold {
    uint64_t magic;
    uint64_t begun_blown;    /* no instruction before the first order */
    _Atomic uint64_t epoch;  /* of the copy */
    _Atomic uint64_t ran;    /* the epoch under which it was seen running last */
    _Atomic uint32_t held;   /* of Xen's count of pauses, so many are the fuse's */
    _Atomic uint32_t person; /* it is paused by somebody else, too */
    _Atomic uint64_t looked; /* when xen-fuse looked last, clock_boot_ms() */
};

enum xen_hold_step {
    XEN_HOLD_STAY,
    XEN_HOLD_PAUSE,   /* pause the domain, then count that in `held` */
    XEN_HOLD_RELEASE, /* take `held` to 0, then unpause so many times */
    XEN_HOLD_RAN,     /* it runs: remember that */
};

/* `paused` as Xen says; `ended`: its guest has shut down, or suspended itself. */
enum xen_hold_step xen_hold_step(
    struct fuse_order order, struct xen_hold *h, bool paused, bool ended);

bool xen_hold_lit(struct fuse_order order, struct xen_hold *h);
/* It has not run under its epoch. */
bool xen_hold_fresh(struct xen_hold *h);
/* The copy has that epoch from now on; an older one is not taken. */
void xen_hold_set_epoch(struct xen_hold *h, uint64_t epoch);

int xen_hold_make(const char *dir, uint64_t epoch, bool begun_blown, struct err *e);
struct xen_hold *xen_hold_map(const char *dir);

#endif
