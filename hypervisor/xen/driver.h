/* SPDX-License-Identifier: ISC */
/*
 * driver: Xen, driven from its control domain. Quick calls (list, pause, memory, CPUs,
 * dirty log) go through libxenctrl, libxenforeignmemory and libxenstore in the caller's
 * process; what libxl does with processes and scripts of its own (build, attach disks,
 * destroy) runs in a short-lived `xen-domain`. Holds no state that a restart would miss:
 * Xen, xenstore and run_dir/<uuid>/ are the truth. Part of the build where libxen-dev is.
 */
#ifndef XEN_DRIVER_H
#define XEN_DRIVER_H

#include "hypervisor/hypervisor.h"

extern const struct hv_ops xen_driver;

#endif
