/* SPDX-License-Identifier: ISC */
/*
 * Writing. Candidates of the bitmap are gathered up to HV_BATCH_PAGES, mapped at once,
 * each looked at for zeroes, and put into runs; a run is extended while frame number
 * and kind go on. Data leave by one gathering write per frame: header and runs, then
 * guest memory itself, merged where neighbours are neighbours in our memory too.
 *
 * A guest that runs may change a page between the look or the digest and the write.
 * That is harmless for memory, as such a page is in the dirty log and comes again, but
 * it rules out a digest of the payload: live frames carry FRAME_F_LIVE and a digest of
 * the run entries alone. The frames of the last round, sent while the guest is paused,
 * carry a digest of runs and payload.
 *
 * Reading believes nothing before frame_check_header and frame_check_runs passed. The
 * payload of a raw run is read into mapped guest memory directly: a frame whose digest
 * turns out wrong has written there already, so it ends the migration, and the target's
 * copy with it.
 */
#include "precopy/pages.h"

#include <string.h>

#include "transport/digest.h"

bool pages_is_zero(const void *page)
{
    const uint64_t *w = page;

    for (unsigned i = 0; i < HV_PAGE_SIZE / 8; i += 8)
        if ((w[i] | w[i + 1] | w[i + 2] | w[i + 3] | w[i + 4] | w[i + 5] | w[i + 6] | w[i + 7]) !=
            0)
            return false;
    return true;
}

uint64_t bitmap_count(const uint64_t *b, size_t words)
{
    uint64_t n = 0;

    for (size_t i = 0; i < words; i++)
        n += (unsigned)__builtin_popcountll(b[i]);
    return n;
}

void bitmap_or(uint64_t *to, const uint64_t *from, size_t words)
{
    for (size_t i = 0; i < words; i++)
        to[i] |= from[i];
}

static void count_add(_Atomic uint64_t *c, uint64_t n)
{
    atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

/* --- writing --- */

static size_t runs_bytes(const struct frame_header *h)
{
    return h->runs * sizeof(struct frame_run);
}

/* iov[0] is made to cover the run entries alone for the time of the digest. */
static uint64_t digest_of(struct pages_frame *f, struct iovec *iov, int n)
{
    struct iovec head = iov[0];
    uint64_t digest;

    iov[0] = (struct iovec){ f->run, runs_bytes(&f->head) };
    digest = frame_digest(iov, (f->head.flags & FRAME_F_LIVE) != 0 ? 1 : n);
    iov[0] = head;
    return digest;
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
    w->iov[0].iov_len = sizeof *h + runs_bytes(h);
    h->digest = digest_of(&w->frame, w->iov, w->n_iov);
    if (w->port.writev(w->port.ctx, w->iov, w->n_iov, e) < 0)
        return -1;
    w->seq++;
    tr_digest_add(&w->fold, h->digest);
    count_add(&w->count.frames, 1);
    count_add(&w->count.bytes, sizeof *h + runs_bytes(h) + h->payload);
    return 0;
}

static void begin_frame(struct pages_writer *w, enum frame_type type, uint32_t round, bool live)
{
    struct frame_header *h = &w->frame.head;

    memset(h, 0, sizeof *h);
    h->type = (uint8_t)type;
    h->flags = live ? FRAME_F_LIVE : 0;
    h->round = round;
    w->n_iov = 1;
}

static bool begins_region(const struct hv_layout *l, uint64_t gfn)
{
    for (unsigned i = 0; i < l->n; i++)
        if (l->region[i].gfn == gfn)
            return true;
    return false;
}

/* A run stays inside one region; stripes keep it inside one block where that matters. */
static bool extends(const struct pages_writer *w, uint64_t gfn, uint16_t encoding)
{
    const struct frame_header *h = &w->frame.head;
    const struct frame_run *last = h->runs > 0 ? &w->frame.run[h->runs - 1] : NULL;

    return last != NULL && last->encoding == encoding && last->gfn + last->pages == gfn &&
           !begins_region(w->layout, gfn);
}

static void add_to_runs(struct pages_writer *w, uint64_t gfn, uint16_t encoding)
{
    struct frame_header *h = &w->frame.head;
    uint32_t length = encoding == FRAME_RAW ? HV_PAGE_SIZE : 0;

    if (extends(w, gfn, encoding)) {
        h->runs--;
        w->frame.run[h->runs].pages++;
        w->frame.run[h->runs++].length += length;
    } else {
        w->frame.run[h->runs++] =
            (struct frame_run){ .gfn = gfn, .pages = 1, .encoding = encoding, .length = length };
    }
    h->payload += length;
}

static int add_iov(struct iovec *iov, int n, uint8_t *page)
{
    if (n > 0 && (uint8_t *)iov[n - 1].iov_base + iov[n - 1].iov_len == page) {
        iov[n - 1].iov_len += HV_PAGE_SIZE;
        return n;
    }
    iov[n] = (struct iovec){ page, HV_PAGE_SIZE };
    return n + 1;
}

static bool frame_full(const struct pages_writer *w)
{
    return w->frame.head.runs == FRAME_RUNS_MAX || w->n_iov == PAGES_IOV_MAX - 1;
}

static int send_mapped(struct pages_writer *w, size_t n, const struct pages_round *r, struct err *e)
{
    uint64_t raw = 0, zero = 0;

    begin_frame(w, FRAME_PAGES, r->number, r->live);
    for (size_t i = 0; i < n; i++) {
        if (frame_full(w)) {
            if (send_frame(w, e) < 0)
                return -1;
            begin_frame(w, FRAME_PAGES, r->number, r->live);
        }
        if (pages_is_zero(w->map.page[i])) {
            add_to_runs(w, w->gfn[i], FRAME_ZERO);
            zero++;
        } else {
            add_to_runs(w, w->gfn[i], FRAME_RAW);
            /* iov[0] is the header's: it must not be merged with. */
            w->n_iov = 1 + add_iov(w->iov + 1, w->n_iov - 1, w->map.page[i]);
            raw++;
        }
    }
    if (send_frame(w, e) < 0)
        return -1;
    count_add(&w->count.raw, raw);
    count_add(&w->count.zero, zero);
    return 0;
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
        count_add(&w->count.skipped, (unsigned)__builtin_popcountll(again));
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

/* --- reading --- */

static int read_bytes(struct pages_reader *r, void *buf, size_t len, struct err *e)
{
    struct iovec iov = { buf, len };

    return len == 0 ? 0 : r->port.readv(r->port.ctx, &iov, 1, e);
}

static size_t list_raw_pages(struct pages_reader *r)
{
    size_t n = 0;

    for (uint32_t i = 0; i < r->frame.head.runs; i++) {
        const struct frame_run *run = &r->frame.run[i];

        for (uint32_t k = 0; run->encoding == FRAME_RAW && k < run->pages; k++)
            r->gfn[n++] = run->gfn + k;
    }
    return n;
}

static int read_raw(struct pages_reader *r, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++)
        r->n_iov = 1 + add_iov(r->iov + 1, r->n_iov - 1, r->map.page[i]);
    return r->port.readv(r->port.ctx, r->iov + 1, r->n_iov - 1, e);
}

static int check_digest(struct pages_reader *r, struct err *e)
{
    const struct frame_header *h = &r->frame.head;

    if (digest_of(&r->frame, r->iov, r->n_iov) == h->digest)
        return 0;
    return err_set(e, ERR_INTEGRITY,
        "frame %llu of channel %u differs from its digest: memory was damaged on the way",
        (unsigned long long)h->seq, r->channel);
}

static int take_raw(struct pages_reader *r, struct err *e)
{
    size_t n = list_raw_pages(r);
    int rc;

    r->n_iov = 1; /* as in the writer, [0] belongs to the run entries */
    r->iov[0] = (struct iovec){ NULL, 0 };
    if (n == 0)
        return check_digest(r, e);
    if (r->ops->mig_map(r->mig, r->gfn, n, true, &r->map, e) < 0)
        return -1;
    rc = read_raw(r, n, e);
    if (rc == 0)
        rc = check_digest(r, e);
    r->ops->mig_unmap(r->mig, &r->map);
    if (rc == 0)
        count_add(&r->count.raw, n);
    return rc;
}

static int take_zero(struct pages_reader *r, struct err *e)
{
    for (uint32_t i = 0; i < r->frame.head.runs; i++) {
        const struct frame_run *run = &r->frame.run[i];

        if (run->encoding != FRAME_ZERO)
            continue;
        if (r->ops->mig_zero(r->mig, run->gfn, run->pages, e) < 0)
            return -1;
        count_add(&r->count.zero, run->pages);
    }
    return 0;
}

int pages_read_frame(struct pages_reader *r, enum frame_type *type, uint32_t *round, struct err *e)
{
    struct frame_header *h = &r->frame.head;

    if (read_bytes(r, h, sizeof *h, e) < 0 || frame_check_header(h, r->channel, r->seq, e) < 0 ||
        read_bytes(r, r->frame.run, runs_bytes(h), e) < 0 ||
        frame_check_runs(h, r->frame.run, r->layout, e) < 0 ||
        frame_check_channel(h, r->frame.run, r->channels, e) < 0 || take_raw(r, e) < 0 ||
        take_zero(r, e) < 0)
        return -1;
    r->seq++;
    tr_digest_add(&r->fold, h->digest);
    count_add(&r->count.frames, 1);
    count_add(&r->count.bytes, sizeof *h + runs_bytes(h) + h->payload);
    *type = (enum frame_type)h->type;
    *round = h->round;
    return 0;
}
