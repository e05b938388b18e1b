/* SPDX-License-Identifier: ISC */
/*
 * Candidates of the bitmap are gathered up to HV_BATCH_PAGES, mapped at once, and become
 * one frame, which leaves by one gathering write: header and runs, then data in the
 * order of the runs. A page becomes, the first that fits:
 *
 *   delta        the cache has it: the copy is brought up to date, and what changed goes
 *                to `out`; where too much did, it is sent from the copy
 *   zero
 *   entering     sent again, the guest runs, and there is room in the cache: it is copied, and
 *                sent from the copy
 *   plain        straight from guest memory
 *
 * What the last two send is raw, or, where choice.h finds that it pays, gathered into
 * groups of up to 16 neighbours and compressed into `out`; a group that does not get
 * shorter goes raw. The copy in the cache is what the target has in its memory after the
 * frame: each way of sending a page either updates its copy or drops it.
 *
 * A guest that runs may change a page between the look or the digest and the write.
 * That is harmless for memory, as such a page is in the dirty log and comes again, but
 * it rules out a digest of the payload: live frames carry FRAME_F_LIVE and a digest of
 * the run entries alone. The frames of the last round, sent while the guest is paused,
 * carry a digest of runs and payload.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "precopy/pages_internal.h"
#include "transport/digest.h"

#define TIMED 8u
#define GROUP_BYTES (FRAME_PACKED_PAGES * HV_PAGE_SIZE)
#define PACKED_WORTH(pages) ((size_t)(pages)*HV_PAGE_SIZE / 16 * 15) /* longer ones go raw */

_Static_assert(HV_BATCH_PAGES <= FRAME_PAGES_MAX && HV_BATCH_PAGES <= FRAME_RUNS_MAX,
    "a batch fits into one frame, whatever its runs");

int pages_writer_encode(struct pages_writer *w, const struct pages_encode *how, struct err *e)
{
    const unsigned packed = 1u << FRAME_LZ4 | 1u << FRAME_ZSTD;

    w->now = FRAME_RAW;
    w->measure = how->measure;
    if ((how->compress & packed) == 0 && how->cache_bytes == 0)
        return 0;
    choice_init(&w->choice, (how->compress & packed) != 0 ? how->compress : 1u << FRAME_RAW);
    w->out = pages_buffer();
    w->gather = aligned_alloc(HV_PAGE_SIZE, GROUP_BYTES);
    w->codec = codec_new();
    if (how->cache_bytes > 0)
        w->cache = delta_cache_new(how->cache_bytes, w->channels);
    if (w->out == NULL || w->gather == NULL || w->codec == NULL ||
        (how->cache_bytes > 0 && w->cache == NULL))
        return err_set(e, ERR_MEMORY, "out of memory for encoding pages");
    w->encodes = true;
    return 0;
}

void pages_writer_free(struct pages_writer *w)
{
    pages_buffer_free(&w->out);
    free(w->gather);
    w->gather = NULL;
    codec_free(&w->codec);
    delta_cache_free(&w->cache);
    w->encodes = false;
}

/* --- frames --- */

static void begin_frame(struct pages_writer *w, enum frame_type type, uint32_t round, bool live)
{
    struct frame_header *h = &w->frame.head;

    memset(h, 0, sizeof *h);
    h->type = (uint8_t)type;
    h->flags = live ? FRAME_F_LIVE : 0;
    h->round = round;
    w->n_iov = 1;
    w->out_len = 0;
}

static int write_timed(struct pages_writer *w, struct err *e)
{
    const struct frame_header *h = &w->frame.head;
    uint64_t began = clock_ns(), raw = 0;

    if (w->port.writev(w->port.ctx, w->iov, w->n_iov, e) < 0)
        return -1;
    for (uint32_t i = 0; i < h->runs; i++)
        raw += w->frame.run[i].encoding == FRAME_RAW ? w->frame.run[i].length : 0;
    choice_sent(&w->choice, w->iov[0].iov_len + h->payload, clock_ns() - began,
        raw > 0 && raw == h->payload);
    return 0;
}

static int send_frame(struct pages_writer *w, struct err *e)
{
    struct frame_header *h = &w->frame.head;

    h->magic = FRAME_MAGIC;
    h->version = FRAME_VERSION;
    h->channel = w->channel;
    h->seq = w->seq;
    h->reserved = 0;
    w->iov[0].iov_base = &w->frame;
    w->iov[0].iov_len = sizeof *h + pages_runs_bytes(h);
    h->digest = pages_digest(&w->frame, w->iov, w->n_iov);
    if ((w->encodes ? write_timed(w, e) : w->port.writev(w->port.ctx, w->iov, w->n_iov, e)) < 0)
        return -1;
    w->seq++;
    tr_digest_add(&w->fold, h->digest);
    pages_count_frame(&w->count, &w->frame);
    return 0;
}

/* --- runs --- */

static bool begins_region(const struct hv_layout *l, uint64_t gfn)
{
    for (unsigned i = 0; i < l->n; i++)
        if (l->region[i].gfn == gfn)
            return true;
    return false;
}

/* A run stays inside one region; stripes keep it inside one block where that matters. */
static bool extends(const struct pages_writer *w, uint64_t gfn, enum frame_encoding encoding)
{
    const struct frame_header *h = &w->frame.head;
    const struct frame_run *last = h->runs > 0 ? &w->frame.run[h->runs - 1] : NULL;

    return last != NULL && last->encoding == encoding && last->gfn + last->pages == gfn &&
           encoding != FRAME_LZ4 && encoding != FRAME_ZSTD && !begins_region(w->layout, gfn);
}

static void add_run(struct pages_writer *w, uint64_t gfn, uint32_t pages,
    enum frame_encoding encoding, size_t length)
{
    struct frame_header *h = &w->frame.head;

    if (extends(w, gfn, encoding)) {
        w->frame.run[h->runs - 1].pages += pages;
        w->frame.run[h->runs - 1].length += (uint32_t)length;
    } else {
        w->frame.run[h->runs++] = (struct frame_run){
            .gfn = gfn, .pages = pages, .encoding = (uint16_t)encoding, .length = (uint32_t)length
        };
    }
    h->payload += (uint32_t)length;
}

static void add_raw(struct pages_writer *w, uint64_t gfn, uint8_t *page)
{
    add_run(w, gfn, 1, FRAME_RAW, HV_PAGE_SIZE);
    w->n_iov = pages_add_iov(w->iov, w->n_iov, page, HV_PAGE_SIZE);
}

/* The bytes are at the end of `out` already. */
static void add_encoded(struct pages_writer *w, uint64_t gfn, uint32_t pages,
    enum frame_encoding encoding, size_t length)
{
    add_run(w, gfn, pages, encoding, length);
    w->n_iov = pages_add_iov(w->iov, w->n_iov, w->out + w->out_len, length);
    w->out_len += length;
}

/* --- compression --- */

/* A copy, so that what is compressed does not change meanwhile. */
static size_t pack_group(struct pages_writer *w, const struct pages_group *g)
{
    uint64_t began = clock_ns();
    struct choice_estimate *spent = &w->spent[w->now];
    size_t len;

    for (unsigned i = 0; i < g->n; i++)
        memcpy(w->gather + i * HV_PAGE_SIZE, g->page[i], HV_PAGE_SIZE);
    len = codec_pack(
        w->codec, w->now, w->gather, g->n * HV_PAGE_SIZE, w->out + w->out_len, PACKED_WORTH(g->n));
    spent->pages += g->n;
    spent->ns += (double)(clock_ns() - began);
    spent->bytes += (double)(len > 0 ? len : g->n * HV_PAGE_SIZE);
    return len;
}

static void flush_group(struct pages_writer *w)
{
    struct pages_group *g = &w->group;
    size_t len;

    if (g->n == 0)
        return;
    len = pack_group(w, g);
    if (len > 0)
        add_encoded(w, g->gfn, g->n, w->now, len);
    for (unsigned i = 0; len == 0 && i < g->n; i++)
        add_raw(w, g->gfn + i, g->page[i]);
    g->n = 0;
    if (w->trial_left > 0 && (w->trial_left -= 1) == 0)
        w->now = w->plan.encoding;
}

static void add_data(struct pages_writer *w, uint64_t gfn, uint8_t *page)
{
    struct pages_group *g = &w->group;

    if (g->n > 0 && (g->gfn + g->n != gfn || begins_region(w->layout, gfn)))
        flush_group(w);
    if (w->now == FRAME_RAW) { /* only a flush ends a trial */
        add_raw(w, gfn, page);
        return;
    }
    if (g->n == 0)
        g->gfn = gfn;
    g->page[g->n++] = page;
    if (g->n == FRAME_PACKED_PAGES)
        flush_group(w);
}

static enum choice_class class_of(const struct pages_round *r)
{
    return r->number == 0 ? CHOICE_FIRST : CHOICE_AGAIN;
}

static void begin_batch(struct pages_writer *w, const struct pages_round *r)
{
    begin_frame(w, FRAME_PAGES, r->number, r->live);
    if (!w->encodes)
        return;
    w->plan = choice_next(&w->choice, class_of(r));
    w->now = w->plan.trial;
    w->trial_left = w->plan.trial != w->plan.encoding ? CHOICE_TRIAL_PAGES / FRAME_PACKED_PAGES : 0;
    memset(w->spent, 0, sizeof w->spent);
}

static void end_batch(struct pages_writer *w, const struct pages_round *r)
{
    flush_group(w);
    for (unsigned i = FRAME_LZ4; w->encodes && i <= FRAME_ZSTD; i++)
        if (w->spent[i].pages > 0)
            choice_encoded(&w->choice, class_of(r), (enum frame_encoding)i,
                (uint64_t)w->spent[i].pages, (uint64_t)w->spent[i].ns, (uint64_t)w->spent[i].bytes);
}

/* --- pages --- */

static void add_zero(struct pages_writer *w, uint64_t gfn)
{
    flush_group(w);
    add_run(w, gfn, 1, FRAME_ZERO, 0);
}

/* One use of the cache in TIMED is timed; 0 otherwise. */
static uint64_t cache_clock(struct pages_writer *w)
{
    return w->cached++ % TIMED == 0 ? clock_ns() : 0;
}

static uint8_t *enter_cache(
    struct pages_writer *w, uint64_t gfn, const uint8_t *page, const struct pages_round *r)
{
    uint64_t began = cache_clock(w);
    uint8_t *copy = delta_cache_admit(w->cache, gfn, r->number);

    if (copy == NULL)
        return NULL;
    memcpy(copy, page, HV_PAGE_SIZE);
    if (began != 0)
        choice_cached(&w->choice, CHOICE_ADMIT, clock_ns() - began);
    return copy;
}

static void add_known(struct pages_writer *w, uint64_t gfn, const uint8_t *page, uint8_t *copy)
{
    uint64_t changed[SCAN_MASK], began, base;
    size_t len;
    bool zero;

    flush_group(w); /* its time is not the cache's */
    began = cache_clock(w);
    base = delta_digest(copy);
    scan->replace(copy, page, changed, &zero);
    if (zero) {
        delta_cache_drop(w->cache, gfn);
        add_zero(w, gfn);
        return;
    }
    len = delta_encode(w->out + w->out_len, copy, changed, base);
    if (began != 0)
        choice_cached(&w->choice, CHOICE_HIT, clock_ns() - began);
    if (len > 0)
        add_encoded(w, gfn, 1, FRAME_DELTA, len);
    else
        add_data(w, gfn, copy);
}

static void add_page(
    struct pages_writer *w, uint64_t gfn, uint8_t *page, const struct pages_round *r)
{
    uint8_t *copy = NULL;

    if (w->cache != NULL && r->number > 0) {
        copy = delta_cache_find(w->cache, gfn, r->number);
        if (copy != NULL) {
            add_known(w, gfn, page, copy);
            return;
        }
    }
    if (scan->is_zero(page)) {
        add_zero(w, gfn);
        return;
    }
    if (w->cache != NULL && r->number > 0 && r->live &&
        (!w->measure || choice_cache_pays(&w->choice, r->number)))
        copy = enter_cache(w, gfn, page, r);
    add_data(w, gfn, copy != NULL ? copy : page);
}

static int send_mapped(struct pages_writer *w, size_t n, const struct pages_round *r, struct err *e)
{
    begin_batch(w, r);
    for (size_t i = 0; i < n; i++)
        add_page(w, w->gfn[i], w->map.page[i], r);
    end_batch(w, r);
    return send_frame(w, e);
}

static int send_batch(struct pages_writer *w, size_t *n, const struct pages_round *r, struct err *e)
{
    int rc;

    if (*n == 0)
        return 0;
    if (r->stop != NULL && atomic_load_explicit(r->stop, memory_order_relaxed))
        return err_set(e, ERR_CANCELLED, "stopped");
    if (w->ops->mig_map(w->mig, w->gfn, *n, false, &w->map, e) < 0)
        return -1;
    rc = send_mapped(w, *n, r, e);
    w->ops->mig_unmap(w->mig, &w->map);
    *n = 0;
    return rc;
}

static uint64_t word_to_send(struct pages_writer *w, const struct pages_round *r, size_t i)
{
    uint64_t word = r->bitmap[i], again;

    if (word == 0 || r->again == NULL)
        return word;
    again = word & atomic_load_explicit(&r->again[i], memory_order_relaxed);
    if (again != 0)
        pages_count_add(&w->count.skipped, (unsigned)__builtin_popcountll(again));
    return word & ~again;
}

int pages_write_round(struct pages_writer *w, const struct pages_round *r, struct err *e)
{
    const size_t words = HV_BITMAP_WORDS(w->layout->max_gfn);
    const size_t stripe = FRAME_BLOCK_PAGES / 64;
    size_t n = 0;

    for (size_t s = (size_t)(w->channel - 1) * stripe; s < words; s += w->channels * stripe) {
        for (size_t i = s; i < s + stripe && i < words; i++) {
            uint64_t word = word_to_send(w, r, i);

            if (n + 64 > HV_BATCH_PAGES && send_batch(w, &n, r, e) < 0)
                return -1;
            for (; word != 0; word &= word - 1)
                w->gfn[n++] = i * 64 + (unsigned)__builtin_ctzll(word);
        }
    }
    return send_batch(w, &n, r, e);
}

int pages_write_mark(struct pages_writer *w, enum frame_type type, uint32_t round, struct err *e)
{
    begin_frame(w, type, round, false);
    return send_frame(w, e);
}
