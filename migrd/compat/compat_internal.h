/* SPDX-License-Identifier: ISC */
/* compat_internal: one comparison and its parts, by area; private to migrd/compat. */
#ifndef COMPAT_INTERNAL_H
#define COMPAT_INTERNAL_H

#include "hypervisor/hypervisor.h"
#include "migrd/compat/compat.h"

#define COMPAT_LIST_LEN 160 /* of a value: struct check's */

struct compare {
    const struct compat *in;
    const Migrd__Offer *offer;
    const Migrd__Domain *def;
    const Migrd__HostFacts *source, *target; /* source: empty where it says nothing */
    bool told;                               /* the source's facts are its own */
    const char *src, *dst;                   /* names of the hosts */
    struct checks *out;
};

/* One line. Values "" are not shown. */
struct check *compat_line(struct compare *c, enum check_result r, const char *area,
    const char *object, const char *source, const char *target, const char *fmt, ...)
    __attribute__((format(printf, 7, 8)));

bool compat_is_xen(const struct compare *c);
void compat_release(struct compare *c);
void compat_domain(struct compare *c);
void compat_cpu(struct compare *c);
void compat_memory(struct compare *c);
void compat_net(struct compare *c);
void compat_disks(struct compare *c);

/* How two releases stand to each other, as compat.c's head says. */
enum release_step { REL_SAME, REL_TARGET_NEWER, REL_TARGET_OLDER, REL_TOO_FAR, REL_UNKNOWN };
enum release_step compat_release_step(const char *source, const char *target);

#endif
