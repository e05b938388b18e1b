/* SPDX-License-Identifier: ISC */
/*
 * release: what differs between the releases of Xen's libraries (4.17, 4.18, 4.20).
 * Nothing else in this folder looks at a release number. XEN_RELEASE comes from
 * pkg-config: 417 for 4.17.
 */
#ifndef XEN_RELEASE_H
#define XEN_RELEASE_H

#include <xenctrl.h>

#include "base/err.h"

/* "4.17", of the hypervisor that runs. */
int xen_release_running(xc_interface *xc, char *out, size_t size, struct err *e);

/* The release of the libraries this was built with: "4.17". */
const char *xen_release_built(void);

/* Facts about one domain; 0, or -1 and errno (ESRCH: no such domain). */
int xen_domain_facts(xc_interface *xc, uint32_t domid, xc_domaininfo_t *out);

/* XEN_DOMCTL_SHADOW_OP_* with a bitmap of `pages` bits (NULL without one); the count of pages, or
 * -1 and errno. */
long long xen_log_dirty(xc_interface *xc, uint32_t domid, unsigned op,
    xc_hypercall_buffer_t *bitmap, unsigned long pages, xc_shadow_op_stats_t *stats);

/* Replaces each of n <= 1024 frame numbers by XEN_DOMCTL_PFINFO_*: XTAB where there is no page.
 * -1 and errno. */
int xen_frame_types(xc_interface *xc, uint32_t domid, unsigned n, xen_pfn_t *frame);

#endif
