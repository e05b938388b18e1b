/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "precopy/verify.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "precopy/pages.h"
#include "transport/digest.h"

_Static_assert(TR_DIGEST_PAGES <= HV_BATCH_PAGES, "one range is one mapping");

/* --- which ranges --- */

struct lister {
    struct verify_range *range;
    size_t n, cap;
    uint64_t every, next; /* sample: take a range when the pages seen reach `next` */
    uint64_t seen;
    uint32_t longest;
};

static int add_range(struct lister *l, uint64_t gfn, uint32_t pages, struct err *e)
{
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 1024 : l->cap * 2;
        struct verify_range *p = realloc(l->range, cap * sizeof *p);

        if (p == NULL)
            return err_set(e, ERR_MEMORY, "out of memory for %zu digests", cap);
        l->range = p;
        l->cap = cap;
    }
    l->range[l->n++] = (struct verify_range){ .gfn = gfn, .pages = pages };
    return 0;
}

static int take_run(struct lister *l, uint64_t gfn, uint32_t pages, struct err *e)
{
    l->seen += pages;
    if (l->every == 0)
        return add_range(l, gfn, pages, e);
    if (l->seen <= l->next)
        return 0;
    l->next = l->seen - 1 + l->every;
    return add_range(l, gfn, pages > l->longest ? l->longest : pages, e);
}

static int list_region(
    struct lister *l, const uint64_t *bitmap, const struct hv_region *r, struct err *e)
{
    uint64_t end = r->gfn + r->pages, g = r->gfn;

    while (g < end) {
        uint64_t first = g;

        if ((g & 63) == 0 && bitmap[g >> 6] == 0) {
            g += 64;
            continue;
        }
        while (g < end && bitmap_test(bitmap, g) && (g == first || g % TR_DIGEST_PAGES != 0))
            g++;
        if (g > first && take_run(l, first, (uint32_t)(g - first), e) < 0)
            return -1;
        g += g == first;
    }
    return 0;
}

int verify_list(const uint64_t *bitmap, const struct hv_layout *layout, bool sample,
    struct verify_range **out, size_t *n, struct err *e)
{
    uint64_t total = bitmap_count(bitmap, HV_BITMAP_WORDS(layout->max_gfn));
    struct lister l = { .longest = sample ? VERIFY_SAMPLE_PAGES : TR_DIGEST_PAGES };

    if (sample)
        l.every = total / VERIFY_SAMPLE_RANGES + 1;
    for (unsigned i = 0; i < layout->n; i++) {
        if (list_region(&l, bitmap, &layout->region[i], e) < 0) {
            free(l.range);
            return -1;
        }
    }
    *out = l.range;
    *n = l.n;
    return 0;
}

/* --- hashing --- */

struct hashing {
    const struct hv_ops *ops;
    struct hv_mig *mig;
    struct verify_range *range;
    size_t n;
    _Atomic size_t next;
    atomic_bool failed;
    struct err err; /* by the thread that set `failed` first */
};

/* What one thread needs. */
struct hasher {
    XXH3_state_t *state;
    struct hv_mapping map;
};

static void hash_pages(struct verify_range *r, XXH3_state_t *state, const struct hv_mapping *map)
{
    XXH128_hash_t h;
    size_t i = 0;

    XXH3_128bits_reset(state);
    while (i < map->n) {
        size_t first = i++;

        while (i < map->n && map->page[i] == map->page[i - 1] + HV_PAGE_SIZE)
            i++;
        XXH3_128bits_update(state, map->page[first], (i - first) * HV_PAGE_SIZE);
    }
    h = XXH3_128bits_digest(state);
    r->low = h.low64;
    r->high = h.high64;
}

static int hash_range(struct hashing *h, struct verify_range *r, struct hasher *own, struct err *e)
{
    uint64_t gfn[TR_DIGEST_PAGES];

    for (uint32_t i = 0; i < r->pages; i++)
        gfn[i] = r->gfn + i;
    if (h->ops->mig_map(h->mig, gfn, r->pages, false, &own->map, e) < 0)
        return -1;
    hash_pages(r, own->state, &own->map);
    h->ops->mig_unmap(h->mig, &own->map);
    return 0;
}

static void *hash_some(void *arg)
{
    struct hashing *h = arg;
    struct hasher *own = calloc(1, sizeof *own);
    struct err e = { 0 };
    size_t i;

    if (own == NULL || (own->state = XXH3_createState()) == NULL)
        err_set(&e, ERR_MEMORY, "out of memory for verifying");
    while (e.code == ERR_NONE && !atomic_load(&h->failed) &&
           (i = atomic_fetch_add(&h->next, 1)) < h->n)
        hash_range(h, &h->range[i], own, &e);
    if (e.code != ERR_NONE && !atomic_exchange(&h->failed, true))
        h->err = e;
    if (own != NULL)
        XXH3_freeState(own->state);
    free(own);
    return NULL;
}

static unsigned helpers(size_t n)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned want = cpus > VERIFY_THREADS_MAX ? VERIFY_THREADS_MAX : cpus < 1 ? 1 : (unsigned)cpus;

    return n <= VERIFY_SAMPLE_RANGES ? 0 : want - 1;
}

int verify_hash(const struct hv_ops *ops, struct hv_mig *mig, struct verify_range *range, size_t n,
    struct err *e)
{
    struct hashing h = { .ops = ops, .mig = mig, .range = range, .n = n };
    pthread_t thread[VERIFY_THREADS_MAX];
    unsigned started = 0, want = helpers(n);

    while (started < want && pthread_create(&thread[started], NULL, hash_some, &h) == 0)
        started++;
    hash_some(&h);
    for (unsigned i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    if (atomic_load(&h.failed) && e != NULL)
        *e = h.err;
    return atomic_load(&h.failed) ? -1 : 0;
}

uint64_t verify_compare(
    const struct verify_range *a, const struct verify_range *b, size_t n, char *text, size_t len)
{
    uint64_t pages = 0;
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        if (a[i].low == b[i].low && a[i].high == b[i].high)
            continue;
        pages += a[i].pages;
        if (used + 40 < len)
            used += (size_t)snprintf(text + used, len - used, "%s%#" PRIx64 "-%#" PRIx64,
                used > 0 ? ", " : "", a[i].gfn, a[i].gfn + a[i].pages - 1);
    }
    return pages;
}
