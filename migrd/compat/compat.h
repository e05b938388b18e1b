/* SPDX-License-Identifier: ISC */
/*
 * compat: can this guest run on that host? The rules of a migration, as lines of a report
 * with the value on both sides and what would mend it. Pure: the facts of both hosts come
 * in, nothing is looked up here (facts.c gathers them). What is looked at and in which
 * order stands at the top of compat.c; refusals have exact texts, tested one by one.
 */
#ifndef MIGRD_COMPAT_H
#define MIGRD_COMPAT_H

#include "base/checks.h"
#include "transport/session.pb-c.h"

struct compat {
    const Migrd__Offer *offer;      /* the source's side, with `domain` */
    const Migrd__HostFacts *target; /* with the nets that the domain names */
    size_t n_disks; /* of the target's identities, in the order of the domain's disks */
    Migrd__DiskIdentity *const *disks;
    char *const *answers, *const *answer_errors; /* to the source's challenges; as many */

    /* What only the target's registry knows. */
    size_t n_others;
    const Migrd__Domain *const *others; /* that run there, or come, beside this one */
    uint64_t committed_kib;             /* memory that they have been given */
    uint64_t promised_huge_kib; /* of it: of huge pages, not yet seen in `target->huge_pages` */
    const struct err *taken;    /* why it may not have an entry there; NULL or ERR_NONE: it may */
    bool no_kernel, no_initrd;  /* the definition names one that is missing there */
};

void compat_check(const struct compat *in, struct checks *out);

/* For the wire and for tools: a message that owns all of it. NULL only without memory. Texts of
 * others may be in it: control characters and broken UTF-8 become '?'. */
Migrd__CheckReport *compat_report(const struct checks *c);

#endif
