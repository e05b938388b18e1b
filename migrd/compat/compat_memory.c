/* SPDX-License-Identifier: ISC */
/*
 * Memory. What is free there now, without what was promised to migrations under way and what is
 * kept for the host; and what all domains there have together. With memory-overcommit only
 * what is free now is asked for. A guest on huge pages needs as many free ones of that size, and
 * nothing of the rest. Xen's free memory is what it tells, Domain-0's is not in it; there are no
 * huge pages to be set aside, and page tables come out of the same pool.
 */
#include <stdio.h>

#include "migrd/compat/compat_internal.h"

#define HUGE_KIB 2048u /* of a domain with huge_pages */

typedef unsigned long long ull;

static uint64_t most_of(const Migrd__Domain *d)
{
    return d->max_memory_kib > d->memory_kib ? d->max_memory_kib : d->memory_kib;
}

/* --- huge pages --- */

static const Migrd__HugePages *huge_of(const Migrd__HostFacts *f, uint32_t size_kib)
{
    for (size_t i = 0; i < f->n_huge_pages; i++)
        if (f->huge_pages[i]->size_kib == size_kib)
            return f->huge_pages[i];
    return NULL;
}

static void huge_pages(struct compare *c)
{
    const Migrd__HugePages *h = huge_of(c->target, HUGE_KIB);
    const uint64_t need = (most_of(c->def) + HUGE_KIB - 1) / HUGE_KIB;
    const uint64_t promised = (c->in->promised_huge_kib + HUGE_KIB - 1) / HUGE_KIB;
    const uint64_t free = h != NULL ? h->free : 0;
    char s[64], t[64];

    snprintf(s, sizeof s, "%llu of 2 MiB", (ull)need);
    snprintf(t, sizeof t, "%llu of 2 MiB free, %llu promised", (ull)free, (ull)promised);
    if (h == NULL || h->total == 0) {
        checks_remedy(compat_line(c, CHECK_REFUSED, "memory", "huge pages", s, "none",
                          "domain %s needs %llu huge pages of 2 MiB, host %s has none",
                          c->def->name, (ull)need, c->dst),
            "on host %s: sysctl vm.nr_hugepages=%llu", c->dst, (ull)need);
    } else if (need + promised > free) {
        checks_remedy(
            compat_line(c, CHECK_REFUSED, "memory", "huge pages", s, t,
                "domain %s needs %llu huge pages of 2 MiB, host %s has %llu free, of which %llu "
                "are promised",
                c->def->name, (ull)need, c->dst, (ull)free, (ull)promised),
            "on host %s: sysctl vm.nr_hugepages=%llu", c->dst,
            (ull)(h->total + need + promised - free));
    } else {
        compat_line(
            c, CHECK_OK, "memory", "huge pages", s, t, "host %s has huge pages for it", c->dst);
    }
}

/* --- the rest --- */

static bool fits_together(struct compare *c, uint64_t need, const char *s)
{
    const Migrd__HostFacts *h = c->target;
    const uint64_t committed = c->in->committed_kib, reserve = h->memory_reserve_kib;
    char t[96];

    if (h->overcommit || committed + reserve + need <= h->memory_total_kib)
        return true;
    snprintf(t, sizeof t, "%llu MiB, %llu MiB of domains, %llu MiB kept",
        (ull)h->memory_total_kib / 1024, (ull)committed / 1024, (ull)reserve / 1024);
    checks_remedy(compat_line(c, CHECK_REFUSED, "memory", "memory", s, t,
                      "host %s has %llu MiB of memory, its domains have %llu MiB and %llu MiB are "
                      "kept for the host: %llu MiB more do not fit",
                      c->dst, (ull)h->memory_total_kib / 1024, (ull)committed / 1024,
                      (ull)reserve / 1024, (ull)need / 1024),
        "move or end a domain there, or change memory-reserve or memory-overcommit on host %s",
        c->dst);
    return false;
}

static void memory(struct compare *c)
{
    const Migrd__HostFacts *h = c->target;
    const uint64_t need = hv_memory_need(c->def);
    const uint64_t promised = h->overcommit ? 0 : h->memory_promised_kib;
    const uint64_t reserve = h->overcommit ? 0 : h->memory_reserve_kib;
    char s[48], t[96];

    snprintf(s, sizeof s, "%llu MiB", (ull)need / 1024);
    if (!fits_together(c, c->def->memory_kib, s))
        return;
    snprintf(t, sizeof t, "%llu MiB free, %llu MiB promised, %llu MiB kept",
        (ull)h->memory_free_kib / 1024, (ull)promised / 1024, (ull)reserve / 1024);
    if (need + promised + reserve > h->memory_free_kib)
        checks_remedy(compat_line(c, CHECK_REFUSED, "memory", "memory", s, t,
                          "host %s has %llu MiB of memory free, of which %llu MiB are promised and "
                          "%llu MiB are kept for the host: %llu MiB more do not fit",
                          c->dst, (ull)h->memory_free_kib / 1024, (ull)promised / 1024,
                          (ull)reserve / 1024, (ull)need / 1024),
            promised > 0 ? "wait for the migrations under way, or free memory on host %s"
                         : "free memory on host %s, or choose another target",
            c->dst);
    else
        compat_line(c, CHECK_OK, "memory", "memory", s, t, "host %s has memory for it%s", c->dst,
            h->overcommit ? "; memory-overcommit is on there, so nothing is kept or counted" : "");
}

void compat_memory(struct compare *c)
{
    if (c->def->huge_pages && !compat_is_xen(c))
        huge_pages(c);
    else
        memory(c);
}
