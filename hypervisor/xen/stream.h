/* SPDX-License-Identifier: ISC */
/*
 * stream: a migration stream as libxl_domain_create_restore reads it, of a guest that has
 * nothing yet: no memory but the special pages, no vCPU that runs. From it libxl builds
 * the domain with all that belongs to it and leaves it paused. Format: Xen's
 * docs/specs/libxl-migration-stream.pandoc (version 2) and libxc-migration-stream.pandoc
 * (version 3); numbers that no public header has stand here.
 */
#ifndef XEN_STREAM_H
#define XEN_STREAM_H

#include <stdint.h>

#include "base/err.h"

/* Where libxc puts the special pages of a PVH domain, since 4.10: the last eight below 0xff000
 * (xg_dom_x86.c); the ring of xenstore and that of the console are among them. */
#define XEN_SPECIAL_GFN 0xfeff8u
#define XEN_SPECIAL_PAGES 8u
#define XEN_SPECIAL_STORE (XEN_SPECIAL_GFN + 4)
#define XEN_SPECIAL_CONSOLE (XEN_SPECIAL_GFN + 7)

#define XEN_LIBXL_IDENT UINT64_C(0x4c6962786c466d74) /* "LibxlFmt" */
#define XEN_LIBXL_LIBXC_CONTEXT 1 /* a record's type: libxc's stream follows it */
#define XEN_STREAM_VERSION 2 /* for libxl_domain_restore_params */

/* A descriptor that reads as that stream from its beginning; -1 on failure. The numbers are the
 * running hypervisor's. */
int xen_stream_open(unsigned xen_major, unsigned xen_minor, struct err *e);

#endif
