/* SPDX-License-Identifier: ISC */
/*
 * fuse: a domain's fuse under Xen. xen-fuse, a small process for each domain, watches its
 * page and pauses the domain (xen_hold.h has the table); the driver, xen-domain and xen-fuse
 * all go through what is here when they pause a domain or let it run. A struct xen_fuse
 * belongs to its caller; it is two mapped pages of the domain's folder.
 */
#ifndef XEN_FUSE_H
#define XEN_FUSE_H

#include <xenctrl.h>
#include <xenstore.h>

#include "base/err.h"
#include "hypervisor/xen_hold.h"

#define XEN_FUSE_PROGRAM "xen-fuse"

struct xen_fuse {
    struct fuse_page *page;
    struct xen_hold *hold;
};

/* --- fuse_act.c --- */

/* False: this domain has none (nobody but Xen's own tools knows it). */
bool xen_fuse_map(struct xen_fuse *f, const char *dir);
void xen_fuse_unmap(struct xen_fuse *f);

/* Does what the table says. -1 and errno: Xen refuses; ESRCH: the domain is gone. */
int xen_fuse_look(struct xen_fuse *f, xc_interface *xc, uint32_t domid);
/* Nobody watches it from now on: one that may not run without a limit is held. -1 and errno. */
int xen_fuse_leave(struct xen_fuse *f, xc_interface *xc, uint32_t domid);
/* Somebody pauses it. -1 and errno. */
int xen_fuse_pause(struct xen_fuse *f, xc_interface *xc, const xc_domaininfo_t *d);
/* Somebody wants it to run: everything that keeps it still ends, or, under a blown fuse, only that
 * somebody's own pause (or its suspension by a migration). ERR_STATE if there is none, either. */
int xen_fuse_resume(
    struct xen_fuse *f, xc_interface *xc, struct xs_handle *xs, uint32_t domid, struct err *e);
/* Its fuse keeps it still, and nobody else. */
bool xen_fuse_is_blown(struct xen_fuse *f);

/* --- fuse_begin.c --- */

/* Starts xen-fuse for a domain whose folder has a fuse; returns when it watches. */
int xen_fuse_spawn(const char *run_dir, const char *uuid, uint32_t domid, struct err *e);
/* For a domain that was just built and is paused still: makes its fuse, and starts xen-fuse. */
int xen_fuse_begin(const char *run_dir, const char *uuid, uint32_t domid, uint64_t epoch,
    bool blown, struct err *e);
/* The builder's last word: it may run, as far as its fuse is concerned. */
int xen_fuse_go(const char *run_dir, const char *uuid, uint32_t domid, struct err *e);

#endif
