/* SPDX-License-Identifier: ISC */
/*
 * A delta is, little-endian:
 *
 *   u64 base      XXH3-64 of the page before
 *   u16 length    bytes that follow
 *   segments      u16: first word, 0 to 511, in bits 0 to 8; words - 1 in bits 9 to 15;
 *                 then the words' new contents, 8 bytes each
 *
 * Segments ascend and do not overlap. An unchanged page is ten bytes. New contents
 * rather than an xor: they are as long, and are copied instead of computed.
 *
 * The cache is an array of sets of WAYS pages, chosen by the page's place in its
 * channel. A page that comes to a full set replaces one that has not been used for
 * REST rounds, and only once in ODDS times, so that pages which are written in
 * turn, and are more than fit, do not push each other out before their turn comes
 * again; one that was not used for LONG rounds goes at once. Slots of neighbours are
 * neighbours: a slot is way * sets + set.
 */
#define _GNU_SOURCE
#include "precopy/delta.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "transport/frame.h"

#define SEGMENT_WORDS 128u
#define WAYS 8u
#define REST 2u
#define LONG 16u
#define ODDS 16u

uint64_t delta_digest(const uint8_t *page)
{
    return XXH3_64bits(page, SCAN_PAGE);
}

/* --- encoding --- */

/* First word at or after `from` whose bit is `set`; SCAN_WORDS if there is none. */
static unsigned next_word(const uint64_t mask[SCAN_MASK], unsigned from, bool set)
{
    while (from < SCAN_WORDS) {
        uint64_t w = (set ? mask[from / 64] : ~mask[from / 64]) >> (from % 64);

        if (w != 0)
            return from + (unsigned)__builtin_ctzll(w);
        from = (from / 64 + 1) * 64;
    }
    return SCAN_WORDS;
}

size_t delta_encode(
    uint8_t *out, const uint8_t *page, const uint64_t mask[SCAN_MASK], uint64_t base)
{
    size_t at = DELTA_HEAD;
    unsigned first = 0;
    uint16_t length;

    while ((first = next_word(mask, first, true)) < SCAN_WORDS) {
        unsigned n = next_word(mask, first, false) - first;
        uint16_t head;

        if (n > SEGMENT_WORDS)
            n = SEGMENT_WORDS;
        if (at + 2 + n * 8 > DELTA_WORTH)
            return 0;
        head = (uint16_t)(first | (n - 1) << 9);
        memcpy(out + at, &head, sizeof head);
        memcpy(out + at + 2, page + first * 8, n * 8);
        at += 2 + n * 8;
        first += n;
    }
    length = (uint16_t)(at - DELTA_HEAD);
    memcpy(out, &base, sizeof base);
    memcpy(out + 8, &length, sizeof length);
    return at;
}

/* --- decoding --- */

static int apply_body(uint8_t *page, const uint8_t *in, size_t len, struct err *e)
{
    unsigned next = 0;
    size_t at = 0;

    while (at < len) {
        uint16_t head;
        unsigned first, n;

        if (len - at < 2)
            return err_set(e, ERR_PROTOCOL, "a delta ends inside of a segment");
        memcpy(&head, in + at, sizeof head);
        at += 2;
        first = head & 511u;
        n = (head >> 9) + 1u;
        if (first < next || n > SCAN_WORDS - first)
            return err_set(e, ERR_PROTOCOL, "a delta's segments overlap or leave the page");
        if (len - at < n * 8)
            return err_set(e, ERR_PROTOCOL, "a delta ends inside of a segment");
        memcpy(page + first * 8, in + at, n * 8);
        at += n * 8;
        next = first + n;
    }
    return 0;
}

int delta_apply(uint8_t *page, const uint8_t *in, size_t len, struct err *e)
{
    uint64_t base;
    uint16_t length;

    if (len < DELTA_HEAD)
        return err_set(e, ERR_PROTOCOL, "a delta is cut off");
    memcpy(&base, in, sizeof base);
    memcpy(&length, in + 8, sizeof length);
    if (length > len - DELTA_HEAD)
        return err_set(e, ERR_PROTOCOL, "a delta is cut off");
    if (delta_digest(page) != base)
        return err_set(e, ERR_INTEGRITY,
            "a delta was made from other contents than are here: memory was damaged on a host or "
            "on the way; try again, with TLS if this was plain TCP");
    if (apply_body(page, in + DELTA_HEAD, length, e) < 0)
        return -1;
    return (int)(DELTA_HEAD + length);
}

/* --- the cache --- */

struct delta_cache {
    unsigned channels;
    uint64_t sets;
    uint64_t *tag;  /* sets * WAYS: gfn + 1, or 0 */
    uint32_t *used; /* the round */
    uint8_t *page;  /* slots */
    size_t page_bytes, tag_bytes, used_bytes;
    uint64_t chance;
};

/* Zero pages until they are written. */
static void *lazily(size_t bytes)
{
    void *p = mmap(
        NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

struct delta_cache *delta_cache_new(uint64_t bytes, unsigned channels)
{
    struct delta_cache *c = calloc(1, sizeof *c);

    if (c == NULL)
        return NULL;
    c->channels = channels;
    c->sets = bytes / SCAN_PAGE / WAYS;
    c->chance = 1;
    if (c->sets == 0)
        c->sets = 1;
    c->page_bytes = c->sets * WAYS * SCAN_PAGE;
    c->tag_bytes = c->sets * WAYS * sizeof *c->tag;
    c->used_bytes = c->sets * WAYS * sizeof *c->used;
    c->page = lazily(c->page_bytes);
    c->tag = lazily(c->tag_bytes);
    c->used = lazily(c->used_bytes);
    if (c->page == NULL || c->tag == NULL || c->used == NULL)
        delta_cache_free(&c);
    else
        madvise(c->page, c->page_bytes, MADV_HUGEPAGE);
    return c;
}

void delta_cache_free(struct delta_cache **cp)
{
    struct delta_cache *c = *cp;

    if (c == NULL)
        return;
    *cp = NULL;
    if (c->page != NULL)
        munmap(c->page, c->page_bytes);
    if (c->tag != NULL)
        munmap(c->tag, c->tag_bytes);
    if (c->used != NULL)
        munmap(c->used, c->used_bytes);
    free(c);
}

static uint64_t set_of(const struct delta_cache *c, uint64_t gfn)
{
    uint64_t block = gfn / FRAME_BLOCK_PAGES / c->channels;

    return (block * FRAME_BLOCK_PAGES + gfn % FRAME_BLOCK_PAGES) % c->sets;
}

static uint8_t *slot(const struct delta_cache *c, uint64_t set, unsigned way)
{
    return c->page + (way * c->sets + set) * SCAN_PAGE;
}

/* Its way, or WAYS. */
static unsigned way_of(const struct delta_cache *c, uint64_t set, uint64_t tag)
{
    unsigned w = 0;

    while (w < WAYS && c->tag[set * WAYS + w] != tag)
        w++;
    return w;
}

uint8_t *delta_cache_find(struct delta_cache *c, uint64_t gfn, uint32_t round)
{
    uint64_t set = set_of(c, gfn);
    unsigned w = way_of(c, set, gfn + 1);

    if (w == WAYS)
        return NULL;
    c->used[set * WAYS + w] = round;
    return slot(c, set, w);
}

static bool lucky(struct delta_cache *c)
{
    c->chance ^= c->chance << 13;
    c->chance ^= c->chance >> 7;
    c->chance ^= c->chance << 17;
    return c->chance % ODDS == 0;
}

/* The way that a newcomer may have, or WAYS. */
static unsigned victim(struct delta_cache *c, uint64_t set, uint32_t round)
{
    const uint32_t *used = c->used + set * WAYS;
    unsigned oldest = 0;
    uint32_t age;

    for (unsigned w = 1; w < WAYS; w++)
        if (used[w] < used[oldest])
            oldest = w;
    age = round - used[oldest];
    return age >= LONG || (age > REST && lucky(c)) ? oldest : WAYS;
}

uint8_t *delta_cache_admit(struct delta_cache *c, uint64_t gfn, uint32_t round)
{
    uint64_t set = set_of(c, gfn);
    unsigned w = way_of(c, set, 0);

    if (w == WAYS)
        w = victim(c, set, round);
    if (w == WAYS)
        return NULL;
    c->tag[set * WAYS + w] = gfn + 1;
    c->used[set * WAYS + w] = round;
    return slot(c, set, w);
}

void delta_cache_drop(struct delta_cache *c, uint64_t gfn)
{
    uint64_t set = set_of(c, gfn);
    unsigned w = way_of(c, set, gfn + 1);

    if (w < WAYS)
        c->tag[set * WAYS + w] = 0;
}
