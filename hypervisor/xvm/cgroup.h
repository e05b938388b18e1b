/* SPDX-License-Identifier: ISC */
/*
 * cgroup: the control group of a running domain, where the kernel gives CPU time by its
 * weight and limits what its vCPUs get. Version 2 or 1, whichever has the cpu controller
 * here. Nothing is kept in memory: a group is found again by uuid and process.
 */
#ifndef XVM_CGROUP_H
#define XVM_CGROUP_H

#include <sys/types.h>

#include "hypervisor/hypervisor.h"

struct cgroup_domain {
    const char *uuid;
    pid_t pid;         /* all threads of it go into the group */
    const pid_t *vcpu; /* and these below the cap */
    unsigned n_vcpus;
};

/* Makes the group if need be. sched->how is set. ERR_UNSUPPORTED: no control groups for us here. */
int cgroup_apply(const struct cgroup_domain *d, struct hv_sched *sched, struct err *e);

/* "cgroup2", "cgroup1"; NULL: it is in none. */
const char *cgroup_of(const char *uuid, pid_t pid);

/* Removes groups whose process is gone. */
void cgroup_sweep(void);

/* The nice level whose weight comes closest. */
int cgroup_nice(unsigned weight);

#endif
