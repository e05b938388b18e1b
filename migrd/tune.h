/* SPDX-License-Identifier: ISC */
/*
 * tune: changes of a domain's CPUs, weight, cap and memory: in the domain that runs, in its
 * definition, so that they are there at the next boot, or in both. virsh and xm come here.
 * A change of both is made in the running domain first; if that refuses, nothing is saved.
 */
#ifndef TUNE_H
#define TUNE_H

#include "migrd/registry.h"

enum tune_what {
    TUNE_PIN,       /* vcpu, cpus */
    TUNE_SCHED,     /* sched, of which set_weight and set_cap tell what counts */
    TUNE_VCPUS,     /* vcpus */
    TUNE_MAX_VCPUS, /* vcpus */
    TUNE_MEMORY,    /* kib */
    TUNE_MAX_MEMORY /* kib */
};

/* 0: what runs if it runs, else the definition. */
enum tune_scope {
    TUNE_LIVE = 1,   /* it must run */
    TUNE_CONFIG = 2, /* it must have a definition */
    TUNE_ALL = 4     /* whichever of the two there is */
};

struct tune {
    enum tune_what what;
    unsigned scope; /* enum tune_scope, LIVE and CONFIG together too */
    unsigned vcpu;
    struct hv_cpus cpus;
    unsigned vcpus;
    bool set_weight, set_cap;
    struct hv_sched sched;
    uint64_t kib;
};

/* -1: refused at once, `done` is not called. */
int tune_domain(struct migrd *m, struct domain *d, const struct tune *t, registry_done *done,
    void *arg, struct err *e);

/* Does that scope mean the running domain? -1: it cannot be. */
int tune_is_live(const struct domain *d, unsigned scope, struct err *e);

/* CPUs of this host that work. */
void tune_host_cpus(const struct migrd *m, struct hv_cpus *out);

/* CPUs that a vCPU may use by a definition: all of the host's if it does not say. */
void tune_pinned(
    const struct migrd *m, const Migrd__Domain *def, unsigned vcpu, struct hv_cpus *out);

#endif
