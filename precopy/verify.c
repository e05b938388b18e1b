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

#include "base/clock.h"
#include "precopy/pages.h"
#include "transport/digest.h"

#define BETWEEN_LOOKS 32 /* ranges that are hashed between two looks at the clock */

_Static_assert(TR_DIGEST_PAGES <= HV_BATCH_PAGES, "one range is one mapping");

/* --- which ranges --- */

struct lister {
    struct verify_range *range;
    size_t n, cap;
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
        if (g > first && add_range(l, first, (uint32_t)(g - first), e) < 0)
            return -1;
        g += g == first;
    }
    return 0;
}

int verify_list(const uint64_t *bitmap, const struct hv_layout *layout, struct verify_range **out,
    size_t *n, struct err *e)
{
    struct lister l = { .range = NULL };

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

/* --- the sample --- */

static uint64_t suspects(const struct verify_population *p, size_t word)
{
    return p->ever_dirty[word] & ~p->last[word];
}

static uint64_t others(const struct verify_population *p, size_t word)
{
    return (p->populated[word] | p->ever_dirty[word]) & ~suspects(p, word);
}

/* Most words are empty or full, and not every build has an instruction for the others. */
static unsigned bits_of(uint64_t word)
{
    if (word == 0)
        return 0;
    return word == ~UINT64_C(0) ? 64 : (unsigned)__builtin_popcountll(word);
}

static uint64_t count_class(
    const struct verify_population *p, uint64_t (*class)(const struct verify_population *, size_t))
{
    uint64_t n = 0;

    for (size_t i = 0; i < p->words; i++)
        n += bits_of(class(p, i));
    return n;
}

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* The page of the class that has `rank` others before it; words before *word hold *before. */
static uint64_t page_of_rank(const struct verify_population *p,
    uint64_t (*class)(const struct verify_population *, size_t), uint64_t rank, size_t *word,
    uint64_t *before)
{
    uint64_t bits = class(p, *word);

    while (rank - *before >= bits_of(bits)) {
        *before += bits_of(bits);
        bits = class(p, ++*word);
    }
    for (uint64_t skip = rank - *before; skip > 0; skip--)
        bits &= bits - 1;
    return (uint64_t)*word * 64 + (unsigned)__builtin_ctzll(bits);
}

/* One page at random out of each of `want` equal parts of the class's `total` pages. */
static void draw(const struct verify_population *p,
    uint64_t (*class)(const struct verify_population *, size_t), uint64_t total, size_t want,
    uint64_t *seed, struct verify_range *out)
{
    uint64_t before = 0;
    size_t word = 0;

    for (size_t i = 0; i < want; i++) {
        uint64_t from = i * total / want, to = (i + 1) * total / want;
        uint64_t rank = from + next_random(seed) % (to - from);

        out[i] = (struct verify_range){ .gfn = page_of_rank(p, class, rank, &word, &before),
            .pages = 1 };
    }
}

static void shuffle(struct verify_range *range, size_t n, uint64_t *seed)
{
    for (size_t i = n; i > 1; i--) {
        size_t k = next_random(seed) % i;
        struct verify_range t = range[i - 1];

        range[i - 1] = range[k];
        range[k] = t;
    }
}

size_t verify_sample(
    const struct verify_population *p, uint64_t seed, struct verify_range out[VERIFY_SAMPLE_MAX])
{
    uint64_t a = count_class(p, suspects), b = count_class(p, others);
    size_t from_a = VERIFY_SAMPLE_MAX * VERIFY_SUSPECT_SHARE, from_b;

    if (b < VERIFY_SAMPLE_MAX - from_a)
        from_a = VERIFY_SAMPLE_MAX - b;
    if (a < from_a)
        from_a = a;
    from_b = VERIFY_SAMPLE_MAX - from_a < b ? VERIFY_SAMPLE_MAX - from_a : b;
    draw(p, suspects, a, from_a, &seed, out);
    draw(p, others, b, from_b, &seed, out + from_a);
    shuffle(out, from_a + from_b, &seed);
    return from_a + from_b;
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

/* Threads besides this one: none where starting them takes as long as the work. */
static unsigned helpers(const struct verify_range *range, size_t n)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned want = cpus > VERIFY_THREADS_MAX ? VERIFY_THREADS_MAX : cpus < 1 ? 1 : (unsigned)cpus;
    uint64_t pages = 0;

    for (size_t i = 0; i < n; i++)
        pages += range[i].pages;
    return pages <= VERIFY_SAMPLE_MAX ? 0 : want - 1;
}

int verify_hash(const struct hv_ops *ops, struct hv_mig *mig, struct verify_range *range, size_t n,
    struct err *e)
{
    struct hashing h = { .ops = ops, .mig = mig, .range = range, .n = n };
    pthread_t thread[VERIFY_THREADS_MAX];
    unsigned started = 0, want = helpers(range, n);

    while (started < want && pthread_create(&thread[started], NULL, hash_some, &h) == 0)
        started++;
    hash_some(&h);
    for (unsigned i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    if (atomic_load(&h.failed) && e != NULL)
        *e = h.err;
    return atomic_load(&h.failed) ? -1 : 0;
}

int verify_hash_some(const struct hv_ops *ops, struct hv_mig *mig, struct verify_range *range,
    size_t n, size_t *done, struct err *e)
{
    uint64_t end = clock_ns() + VERIFY_SAMPLE_US * NS_PER_US;

    *done = 0;
    while (*done < n && clock_ns() < end) {
        size_t k = n - *done < BETWEEN_LOOKS ? n - *done : BETWEEN_LOOKS;

        if (verify_hash(ops, mig, range + *done, k, e) < 0)
            return -1;
        *done += k;
    }
    return 0;
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
