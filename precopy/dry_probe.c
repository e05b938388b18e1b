/* SPDX-License-Identifier: ISC */
/*
 * The probe of a dry run is the engine itself: a pages_writer sends pages of the guest, found
 * where a sample found content, as frames; before each piece a Probe says how many bytes follow.
 *
 *   trips    TRIPS probes without bytes; the shortest counts
 *   zero     zero pages through a writer whose frames go nowhere
 *   bursts   of BURST_MS or their share of BYTES_MAX (under a cap of what that gives in a second):
 *            one into memory that the target has not touched yet, as round 0 does, one into the
 *            same again
 *
 * Of each burst the first part, WARM, only warms up what warms up: caches, windows, buffers. It
 * ends with an answer, and the time from that to the next one counts, for what waits in buffers was
 * not taken yet. Pieces grow from PIECE_MIN pages while they are quick, so that a slow link is not
 * held up.
 */
#include "precopy/dry_probe.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "precopy/encodings.h"
#include "precopy/pages.h"

#define TRIPS 7
#define TRIP_MS 10000
#define BURSTS 2
#define BURST_MS 150
#define BYTES_MAX (UINT64_C(256) << 20)
#define BYTES_MIN (UINT64_C(1) << 20)
#define WARM 0.3
#define PIECE_MIN 64u
#define PIECE_MAX 4096u
#define PIECE_QUICK_NS (5 * NS_PER_MS)
#define ZERO_PAGES 4096u
#define PAGES_MIN 64 /* fewer tell nothing */

struct spent { /* the parts of bursts that count */
    double ns, bytes, pages, zero;
};

struct dry_probe {
    struct tr_conn *c;
    const struct attach *at;
    const uint64_t *populated;
    const Migrd__PrecopyParams *par;
    uint32_t number;
    uint64_t sent, total; /* since the last answer; in all */
    const uint64_t *from; /* sampled pages, whose neighbourhoods are sent in turn */
    unsigned n_from, at_from;
    uint64_t *bitmap;
    struct pages_writer w;
    bool writes; /* `w` is to be freed */

    unsigned pages; /* of the next piece */
    uint64_t burst_ns, burst_bytes;
    struct spent spent[BURSTS]; /* fresh, again */
    uint64_t wall_ns, cpu_ns, there_us;
    double zero_ns;
    uint64_t rtt_us;
};

static int send_probe(struct dry_probe *p, size_t bytes, bool last, bool anew, struct err *e)
{
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__Probe probe = MIGRD__PROBE__INIT;

    probe.number = ++p->number;
    probe.last = last;
    probe.anew = anew;
    probe.follow = (uint32_t)bytes;
    m.body_case = MIGRD__SESSION__BODY_PROBE;
    m.probe = &probe;
    return tr_send(p->c, &m, e);
}

static int take_ack(struct dry_probe *p, Migrd__ProbeAck *out, struct err *e)
{
    Migrd__Session *m;

    if (expect(p->c, MIGRD__SESSION__BODY_PROBE_ACK, TRIP_MS, &m, e) < 0)
        return -1;
    *out = *m->probe_ack;
    migrd__session__free_unpacked(m, NULL);
    if (out->number != p->number || out->bytes != p->sent)
        return err_set(e, ERR_PROTOCOL,
            "the target acknowledges %" PRIu64 " bytes of probe %u, sent were %" PRIu64 " of %u",
            out->bytes, out->number, p->sent, p->number);
    p->sent = 0;
    return 0;
}

static int measure_trip(struct dry_probe *p, uint64_t *us, struct err *e)
{
    uint64_t least = UINT64_MAX;
    Migrd__ProbeAck ack;

    for (int i = 0; i < TRIPS; i++) {
        uint64_t began = clock_ns(), took;

        if (send_probe(p, 0, true, false, e) < 0 || take_ack(p, &ack, e) < 0)
            return -1;
        took = clock_ns() - began;
        least = took < least ? took : least;
    }
    *us = least / NS_PER_US;
    return 0;
}

static size_t length_of(const struct iovec *iov, int n)
{
    size_t sum = 0;

    for (int i = 0; i < n; i++)
        sum += iov[i].iov_len;
    return sum;
}

static int to_target(void *ctx, const struct iovec *iov, int n, struct err *e)
{
    struct dry_probe *p = ctx;
    size_t bytes = length_of(iov, n);

    p->sent += bytes;
    p->total += bytes;
    return send_probe(p, bytes, false, false, e) < 0 ? -1 : tr_writev(p->c, iov, n, e);
}

static int to_nowhere(void *ctx, const struct iovec *iov, int n, struct err *e)
{
    (void)ctx;
    (void)iov;
    (void)n;
    (void)e;
    return 0;
}

static int from_nowhere(void *ctx, const struct iovec *iov, int n, struct err *e)
{
    (void)ctx;
    (void)iov;
    (void)n;
    return err_set(e, ERR_INTERNAL, "a probe reads no pages");
}

static int new_writer(
    struct dry_probe *p, int (*out)(void *, const struct iovec *, int, struct err *), struct err *e)
{
    struct pages_encode how = encodings_plan(p->par, FRAME_EVERY, &p->at->layout);

    how.cache_bytes = 0;
    if ((how.compress & 1u << FRAME_RAW) != 0) /* trials of the others would be most of so little */
        how.compress = 1u << FRAME_RAW;
    memset(&p->w, 0, sizeof p->w);
    p->w.ops = p->at->ops;
    p->w.mig = p->at->mig;
    p->w.layout = &p->at->layout;
    p->w.port = (struct pages_port){ out, from_nowhere, p };
    p->w.channel = p->w.channels = 1;
    return pages_writer_encode(&p->w, &how, e);
}

/* Sets at least `want` pages in the bitmap, where there are as many: whole blocks around samples,
 * or the first part of one. */
static void choose(struct dry_probe *p, unsigned want)
{
    unsigned got = 0;

    memset(p->bitmap, 0, p->at->words * sizeof *p->bitmap);
    for (unsigned turns = 0; got < want && turns < p->n_from; turns++) {
        uint64_t gfn = p->from[p->at_from++ % p->n_from];
        size_t first = (size_t)(gfn / FRAME_BLOCK_PAGES * FRAME_BLOCK_PAGES / 64);

        if (want < FRAME_BLOCK_PAGES)
            first = (size_t)(gfn / 64);
        for (size_t i = first; got < want && i < first + FRAME_BLOCK_PAGES / 64; i++) {
            if (i >= p->at->words)
                break;
            got += (unsigned)__builtin_popcountll(p->populated[i] & ~p->bitmap[i]);
            p->bitmap[i] |= p->populated[i];
        }
    }
}

static int send_piece(struct dry_probe *p, unsigned *pages, struct err *e)
{
    const struct pages_round r = { .live = true, .bitmap = p->bitmap };
    uint64_t began = clock_ns();

    choose(p, *pages);
    if (pages_write_round(&p->w, &r, e) < 0)
        return -1;
    if (clock_ns() - began < PIECE_QUICK_NS && *pages < PIECE_MAX)
        *pages *= 2;
    return 0;
}

struct mark {
    uint64_t ns, sent, zero, bytes;
};

static struct mark mark_of(const struct dry_probe *p)
{
    struct pages_total t = { 0 };

    pages_total_add(&t, &p->w.count);
    return (struct mark){ clock_ns(), t.sent, t.zero, p->total };
}

/* Sends for a part of a burst, until all of it was read there. */
static int stretch(struct dry_probe *p, double part, bool anew, struct err *e)
{
    const uint64_t end = clock_ns() + (uint64_t)(part * (double)p->burst_ns);
    const uint64_t most = (uint64_t)(part * (double)p->burst_bytes);
    unsigned pages = part < 0.5 ? PIECE_MIN : p->pages;
    Migrd__ProbeAck ack;

    do {
        if (send_piece(p, &pages, e) < 0)
            return -1;
    } while (clock_ns() < end && p->sent < most);
    p->pages = pages;
    if (send_probe(p, 0, true, anew, e) < 0 || take_ack(p, &ack, e) < 0)
        return -1;
    p->there_us += ack.cpu_us;
    return 0;
}

static void add_spent(
    struct spent *to, const struct mark *a, const struct mark *b, uint64_t trip_ns)
{
    uint64_t ns = b->ns - a->ns;

    to->ns +=
        (double)(ns > 2 * trip_ns ? ns - trip_ns : ns); /* the answer's way is not part of it */
    to->bytes += (double)(b->bytes - a->bytes);
    to->pages += (double)(b->sent - a->sent);
    to->zero += (double)(b->zero - a->zero);
}

static int burst(struct dry_probe *p, struct spent *to, struct err *e)
{
    struct mark a, b;

    if (stretch(p, WARM, false, e) < 0)
        return -1;
    a = mark_of(p);
    if (stretch(p, 1 - WARM, true, e) < 0)
        return -1;
    b = mark_of(p);
    add_spent(to, &a, &b, p->rtt_us * NS_PER_US);
    return 0;
}

int dry_probe_send(struct dry_probe *p, struct err *e)
{
    uint64_t began = clock_ns(), cpu = clock_cpu_ns();

    for (unsigned i = 0; i < BURSTS; i++)
        if (burst(p, &p->spent[i], e) < 0)
            return -1;
    p->wall_ns = clock_ns() - began;
    p->cpu_ns = clock_cpu_ns() - cpu;
    return 0;
}

static double page_ns(const struct dry_probe *p, const struct spent *s)
{
    return s->pages < PAGES_MIN ? 0 : (s->ns - s->zero * p->zero_ns) / s->pages;
}

static unsigned percent(uint64_t part, uint64_t whole)
{
    return whole > 0 ? (unsigned)(part * 100 / whole) : 0;
}

void dry_probe_result(const struct dry_probe *p, struct dry_costs *out)
{
    const struct spent *f = &p->spent[0], *a = &p->spent[1];

    memset(out, 0, sizeof *out);
    out->first_ns = page_ns(p, f);
    out->again_ns = page_ns(p, a);
    out->zero_ns = p->zero_ns;
    out->rtt_us = p->rtt_us;
    if (f->pages + a->pages >= PAGES_MIN) {
        out->page_bytes = (f->bytes + a->bytes) / (f->pages + a->pages);
        out->rate = (f->bytes + a->bytes) * 1e9 / (f->ns + a->ns);
    }
    out->source_cpu = percent(p->cpu_ns, p->wall_ns);
    out->target_cpu = percent(p->there_us * NS_PER_US, p->wall_ns);
}

static int measure_zero(struct dry_probe *p, const struct dry_pages *pages, struct err *e)
{
    struct mark a, b;
    unsigned n = ZERO_PAGES;
    int r;

    p->from = pages->zero;
    p->n_from = pages->n_zero;
    if (new_writer(p, to_nowhere, e) < 0)
        return -1;
    a = mark_of(p);
    r = send_piece(p, &n, e);
    b = mark_of(p);
    pages_writer_free(&p->w);
    if (r == 0 && b.zero > a.zero + PAGES_MIN) /* those with content are read to their first byte */
        p->zero_ns = (double)(b.ns - a.ns) / (double)(b.zero - a.zero);
    return r;
}

static void plan(struct dry_probe *p, uint64_t cap)
{
    uint64_t limit = cap == 0 || cap > BYTES_MAX ? BYTES_MAX : cap < BYTES_MIN ? BYTES_MIN : cap;

    p->burst_ns = BURST_MS * NS_PER_MS;
    p->burst_bytes = limit / BURSTS;
}

static int begin(struct dry_probe *p, const struct dry_pages *pages, struct err *e)
{
    if (p->bitmap == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for the probe");
    if (measure_trip(p, &p->rtt_us, e) < 0 || measure_zero(p, pages, e) < 0 ||
        new_writer(p, to_target, e) < 0)
        return -1;
    p->writes = true;
    p->from = pages->content;
    p->n_from = pages->n_content;
    p->at_from = 0;
    plan(p, p->par->bandwidth);
    return 0;
}

struct dry_probe *dry_probe_new(struct tr_conn *c, const struct attach *at,
    const uint64_t *populated, const struct dry_pages *pages, const Migrd__PrecopyParams *par,
    struct err *e)
{
    struct dry_probe *p = calloc(1, sizeof *p);

    if (p == NULL) {
        err_set(e, ERR_MEMORY, "out of memory for the probe");
        return NULL;
    }
    p->c = c;
    p->at = at;
    p->populated = populated;
    p->par = par;
    p->bitmap = calloc(at->words, sizeof *p->bitmap);
    if (begin(p, pages, e) < 0)
        dry_probe_free(&p);
    return p;
}

void dry_probe_free(struct dry_probe **pp)
{
    struct dry_probe *p = *pp;

    *pp = NULL;
    if (p == NULL)
        return;
    if (p->writes)
        pages_writer_free(&p->w);
    free(p->bitmap);
    free(p);
}

/* --- which pages have content --- */

static int sort_out(
    const struct attach *at, const uint64_t *gfn, size_t n, struct dry_pages *out, struct err *e)
{
    struct hv_mapping map;

    if (n == 0)
        return 0;
    if (at->ops->mig_map(at->mig, gfn, n, false, &map, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (map.page[i][0] == 0 && memcmp(map.page[i], map.page[i] + 1, HV_PAGE_SIZE - 1) == 0)
            out->zero[out->n_zero++] = gfn[i];
        else
            out->content[out->n_content++] = gfn[i];
    }
    at->ops->mig_unmap(at->mig, &map);
    return 0;
}

int dry_sample(
    const struct attach *at, const uint64_t *populated, struct dry_pages *out, struct err *e)
{
    uint64_t every = bitmap_count(populated, at->words) / DRY_SAMPLE + 1, seen = 0;
    uint64_t gfn[HV_BATCH_PAGES];
    size_t n = 0;

    out->n_content = out->n_zero = 0;
    for (uint64_t g = 0; g <= at->layout.max_gfn; g++) {
        if (!bitmap_test(populated, g) || seen++ % every != 0)
            continue;
        gfn[n++] = g;
        if (n < HV_BATCH_PAGES)
            continue;
        if (sort_out(at, gfn, n, out, e) < 0)
            return -1;
        n = 0;
    }
    return sort_out(at, gfn, n, out, e);
}

double dry_zero_share(const struct dry_pages *pages)
{
    unsigned n = pages->n_zero + pages->n_content;

    return n > 0 ? (double)pages->n_zero / n : 0;
}
