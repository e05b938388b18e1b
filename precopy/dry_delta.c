/* SPDX-License-Identifier: ISC */
/*
 * Every so many-th of the written pages. A cache's memory is fresh when its first pages come:
 * getting it is most of what they cost, and is measured with them.
 */
#include "precopy/dry_delta.h"

#include <string.h>

#include "base/clock.h"
#include "precopy/pages.h"
#include "precopy/scan.h"

#define ROUND_COPIED 1
#define ROUND_COMPARED 2
#define CHANGED_MIN 32u
#define ROOM 4 /* pages of a cache for each of a sample: sets are filled unevenly */

struct changes {
    unsigned pages;
    uint64_t ns, bytes;
};

static void choose(struct dry_delta *d, const struct attach *at, const uint64_t *written)
{
    uint64_t every = bitmap_count(written, at->words) / DRY_DELTA_PAGES + 1, seen = 0;

    d->n = 0;
    for (size_t i = 0; i < at->words; i++)
        for (uint64_t word = written[i]; word != 0; word &= word - 1)
            if (seen++ % every == 0 && d->n < DRY_DELTA_PAGES)
                d->gfn[d->n++] = i * 64 + (unsigned)__builtin_ctzll(word);
}

/* Calls `each` for all chosen pages. */
static int for_pages(struct dry_delta *d, const struct attach *at,
    void (*each)(struct dry_delta *, uint64_t, const uint8_t *, struct changes *),
    struct changes *sum, struct err *e)
{
    struct hv_mapping map;

    for (unsigned i = 0; i < d->n; i += HV_BATCH_PAGES) {
        unsigned n = d->n - i < HV_BATCH_PAGES ? d->n - i : HV_BATCH_PAGES;

        if (at->ops->mig_map(at->mig, d->gfn + i, n, false, &map, e) < 0)
            return -1;
        for (unsigned k = 0; k < n; k++)
            each(d, d->gfn[i + k], map.page[k], sum);
        at->ops->mig_unmap(at->mig, &map);
    }
    return 0;
}

static void copy_page(struct dry_delta *d, uint64_t gfn, const uint8_t *page, struct changes *sum)
{
    uint8_t *copy = delta_cache_admit(d->cache, gfn, ROUND_COPIED);

    if (copy == NULL)
        return;
    memcpy(copy, page, HV_PAGE_SIZE);
    sum->pages++;
}

static void compare_page(
    struct dry_delta *d, uint64_t gfn, const uint8_t *page, struct changes *sum)
{
    uint8_t *copy = delta_cache_find(d->cache, gfn, ROUND_COMPARED), out[DELTA_WORTH];
    uint64_t changed[SCAN_MASK], began = clock_ns(), base, any = 0;
    size_t len;
    bool zero;

    if (copy == NULL)
        return;
    base = delta_digest(copy);
    scan->replace(copy, page, changed, &zero);
    len = delta_encode(out, copy, changed, base);
    for (unsigned i = 0; i < SCAN_MASK; i++)
        any |= changed[i];
    if (any == 0)
        return;
    sum->pages++;
    sum->ns += clock_ns() - began;
    sum->bytes += len > 0 ? len : HV_PAGE_SIZE;
}

int dry_delta_begin(
    struct dry_delta *d, const struct attach *at, const uint64_t *written, struct err *e)
{
    struct changes sum = { 0 };
    uint64_t began;

    choose(d, at, written);
    if (d->n < CHANGED_MIN)
        return 0;
    d->cache = delta_cache_new((uint64_t)DRY_DELTA_PAGES * HV_PAGE_SIZE * ROOM, 1);
    if (d->cache == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for a sample of what the guest writes");
    began = clock_ns();
    if (for_pages(d, at, copy_page, &sum, e) < 0)
        return -1;
    d->admit_ns = sum.pages > 0 ? (double)(clock_ns() - began) / sum.pages : 0;
    return 0;
}

int dry_delta_compare(struct dry_delta *d, const struct attach *at, struct err *e)
{
    struct changes sum = { 0 };

    if (d->cache == NULL)
        return 0;
    if (for_pages(d, at, compare_page, &sum, e) < 0)
        return -1;
    if (sum.pages >= CHANGED_MIN) {
        d->hit_ns = (double)sum.ns / sum.pages;
        d->hit_bytes = (double)sum.bytes / sum.pages;
    }
    dry_delta_end(d);
    return 0;
}

void dry_delta_end(struct dry_delta *d)
{
    delta_cache_free(&d->cache);
}
