/* SPDX-License-Identifier: ISC */
/*
 * figures: what an xvm-domain tells of itself while it runs: vCPUs, disks, vifs, memory.
 * For the control thread.
 */
#ifndef XVM_FIGURES_H
#define XVM_FIGURES_H

#include "hypervisor/xvm/machine_internal.h"
#include "hypervisor/xvm/xvm.pb-c.h"

/* Both give an answer, which is to be freed with migrd__xvm__reply__free_unpacked; NULL without
 * memory. */
Migrd__Xvm__Reply *figures_vcpus(struct machine *m);
Migrd__Xvm__Reply *figures_stats(struct machine *m);

#endif
