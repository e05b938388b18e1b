/* SPDX-License-Identifier: ISC */
/*
 * domain_figures: asks the hypervisor about a domain that runs: its vCPUs, its devices'
 * counters, its weight and cap. In the pool, also while a migration holds the domain; only a
 * few at once and one for each domain, the others wait: a domain whose process hangs must not
 * take the threads that journal and resumes need.
 */
#ifndef DOMAIN_FIGURES_H
#define DOMAIN_FIGURES_H

#include "migrd/registry.h"

enum figures_want { FIGURES_VCPUS = 1, FIGURES_STATS = 2, FIGURES_SCHED = 4 };

struct domain_figures {
    struct hv_vcpu *vcpu; /* FIGURES_VCPUS */
    unsigned n_vcpus;
    struct hv_stats *stats; /* FIGURES_STATS */
    struct hv_sched sched;  /* FIGURES_SCHED */
};

/* Once, in the loop. The figures are there only until it returns, if e->code is ERR_NONE. */
typedef void figures_done(void *arg, const struct domain_figures *f, const struct err *e);

/* -1: the domain does not run; `done` is not called. */
int figures_ask(struct migrd *m, const struct domain *d, unsigned want, figures_done *done,
    void *arg, struct err *e);
/* Nothing new comes: those that wait are told so, instead of asked for. */
void figures_stop(struct migrd *m);

#endif
