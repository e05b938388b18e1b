/* SPDX-License-Identifier: ISC */
/*
 * Nothing is believed before frame_check_header and frame_check_runs passed. The payload
 * is then read in one piece: raw runs into mapped guest memory directly, encoded ones
 * into a buffer, from where they are decoded into guest memory once the digest was
 * compared. A frame whose digest turns out wrong has written to guest memory already, so
 * it ends the migration, and the target's copy with it; so does a run that cannot be
 * decoded, or a delta of another page than is here.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "precopy/pages_internal.h"
#include "transport/digest.h"

static int read_bytes(struct pages_reader *r, void *buf, size_t len, struct err *e)
{
    struct iovec iov = { buf, len };

    return len == 0 ? 0 : r->port.readv(r->port.ctx, &iov, 1, e);
}

static bool is_encoded(const struct frame_run *run)
{
    return run->encoding != FRAME_RAW && run->encoding != FRAME_ZERO;
}

static size_t list_pages(struct pages_reader *r, bool *encoded)
{
    size_t n = 0;

    *encoded = false;
    for (uint32_t i = 0; i < r->frame.head.runs; i++) {
        const struct frame_run *run = &r->frame.run[i];

        *encoded = *encoded || is_encoded(run);
        for (uint32_t k = 0; run->encoding != FRAME_ZERO && k < run->pages; k++)
            r->gfn[n++] = run->gfn + k;
    }
    return n;
}

static int make_buffers(struct pages_reader *r, struct err *e)
{
    if (r->in == NULL)
        r->in = pages_buffer();
    if (r->scatter == NULL)
        r->scatter = malloc(FRAME_PACKED_PAGES * HV_PAGE_SIZE);
    if (r->codec == NULL)
        r->codec = codec_new();
    if (r->in == NULL || r->scatter == NULL || r->codec == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for decoding pages");
    return 0;
}

static int read_payload(struct pages_reader *r, struct err *e)
{
    uint8_t **page = r->map.page;
    size_t in = 0;

    for (uint32_t i = 0; i < r->frame.head.runs; i++) {
        const struct frame_run *run = &r->frame.run[i];

        if (run->encoding == FRAME_ZERO)
            continue;
        for (uint32_t k = 0; run->encoding == FRAME_RAW && k < run->pages; k++)
            r->n_iov = pages_add_iov(r->iov, r->n_iov, page[k], HV_PAGE_SIZE);
        if (is_encoded(run)) {
            r->n_iov = pages_add_iov(r->iov, r->n_iov, r->in + in, run->length);
            in += run->length;
        }
        page += run->pages;
    }
    return r->port.readv(r->port.ctx, r->iov + 1, r->n_iov - 1, e);
}

static int check_digest(struct pages_reader *r, struct err *e)
{
    const struct frame_header *h = &r->frame.head;

    if (pages_digest(&r->frame, r->iov, r->n_iov) == h->digest)
        return 0;
    return err_set(e, ERR_INTEGRITY,
        "frame %llu of channel %u differs from its digest: memory was damaged on the way",
        (unsigned long long)h->seq, r->channel);
}

/* --- decoding --- */

static bool in_one_piece(uint8_t *const *page, uint32_t pages)
{
    for (uint32_t i = 1; i < pages; i++)
        if (page[i] != page[0] + (size_t)i * HV_PAGE_SIZE)
            return false;
    return true;
}

static int decode_packed(struct pages_reader *r, const struct frame_run *run, const uint8_t *in,
    uint8_t *const *page, struct err *e)
{
    bool whole = in_one_piece(page, run->pages);
    uint8_t *to = whole ? page[0] : r->scatter;

    if (codec_unpack(r->codec, (enum frame_encoding)run->encoding, in, run->length, to,
            run->pages * HV_PAGE_SIZE, e) < 0)
        return -1;
    for (uint32_t i = 0; !whole && i < run->pages; i++)
        memcpy(page[i], r->scatter + (size_t)i * HV_PAGE_SIZE, HV_PAGE_SIZE);
    return 0;
}

static int decode_delta(
    const struct frame_run *run, const uint8_t *in, uint8_t *const *page, struct err *e)
{
    size_t left = run->length;

    for (uint32_t i = 0; i < run->pages; i++) {
        int n = delta_apply(page[i], in, left, e);

        if (n < 0)
            return err_prefix(e, "page 0x%" PRIx64, run->gfn + i);
        in += n;
        left -= (size_t)n;
    }
    return left == 0 ? 0 : err_set(e, ERR_PROTOCOL, "a delta run is longer than its pages");
}

static int decode(struct pages_reader *r, struct err *e)
{
    uint8_t *const *page = r->map.page;
    const uint8_t *in = r->in;

    for (uint32_t i = 0; i < r->frame.head.runs; i++) {
        const struct frame_run *run = &r->frame.run[i];

        if (run->encoding == FRAME_ZERO)
            continue;
        if (is_encoded(run)) {
            if ((run->encoding == FRAME_DELTA ? decode_delta(run, in, page, e)
                                              : decode_packed(r, run, in, page, e)) < 0)
                return err_prefix(
                    e, "channel %u frame %llu", r->channel, (unsigned long long)r->frame.head.seq);
            in += run->length;
        }
        page += run->pages;
    }
    return 0;
}

/* --- frames --- */

static int take_data(struct pages_reader *r, struct err *e)
{
    bool encoded;
    size_t n = list_pages(r, &encoded);
    int rc;

    r->n_iov = 1; /* as in the writer, [0] belongs to the run entries */
    r->iov[0] = (struct iovec){ NULL, 0 };
    if (n == 0)
        return check_digest(r, e);
    if ((encoded && make_buffers(r, e) < 0) ||
        r->ops->mig_map(r->mig, r->gfn, n, true, &r->map, e) < 0)
        return -1;
    rc = read_payload(r, e);
    if (rc == 0)
        rc = check_digest(r, e);
    if (rc == 0 && encoded)
        rc = decode(r, e);
    r->ops->mig_unmap(r->mig, &r->map);
    return rc;
}

static int take_zero(struct pages_reader *r, struct err *e)
{
    for (uint32_t i = 0; i < r->frame.head.runs; i++) {
        const struct frame_run *run = &r->frame.run[i];

        if (run->encoding == FRAME_ZERO && r->ops->mig_zero(r->mig, run->gfn, run->pages, e) < 0)
            return -1;
    }
    return 0;
}

int pages_read_frame(struct pages_reader *r, enum frame_type *type, uint32_t *round, struct err *e)
{
    struct frame_header *h = &r->frame.head;

    if (read_bytes(r, h, sizeof *h, e) < 0 || frame_check_header(h, r->channel, r->seq, e) < 0 ||
        read_bytes(r, r->frame.run, pages_runs_bytes(h), e) < 0 ||
        frame_check_runs(h, r->frame.run, r->layout, r->encodings, e) < 0 ||
        frame_check_channel(h, r->frame.run, r->channels, e) < 0 || take_data(r, e) < 0 ||
        take_zero(r, e) < 0)
        return -1;
    r->seq++;
    tr_digest_add(&r->fold, h->digest);
    pages_count_frame(&r->count, &r->frame);
    *type = (enum frame_type)h->type;
    *round = h->round;
    return 0;
}

void pages_reader_free(struct pages_reader *r)
{
    pages_buffer_free(&r->in);
    free(r->scatter);
    r->scatter = NULL;
    codec_free(&r->codec);
}
