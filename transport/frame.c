/* SPDX-License-Identifier: ISC */
/*
 * The checks between a peer's bytes and guest memory. The order in which a receiver
 * uses them: read 48 bytes; frame_check_header; read runs * 24 bytes;
 * frame_check_runs and frame_check_channel; only then read the payload to where the
 * runs say; then compare the digest. Work and memory per frame are bounded: at most
 * FRAME_RUNS_MAX runs, which ascend, so that no frame touches a page twice.
 */
#include "transport/frame.h"

#include <inttypes.h>
#include <sys/uio.h>
#define XXH_STATIC_LINKING_ONLY /* the size of XXH3_state_t */
#include <xxhash.h>

#include "hypervisor/hypervisor.h"

_Static_assert(FRAME_PAGES_MAX <= HV_BATCH_PAGES, "one frame is one mapping");

uint64_t frame_digest(const struct iovec *iov, int n)
{
    XXH3_state_t state;

    XXH3_64bits_reset(&state);
    for (int i = 0; i < n; i++)
        if (iov[i].iov_len > 0)
            XXH3_64bits_update(&state, iov[i].iov_base, iov[i].iov_len);
    return XXH3_64bits_digest(&state);
}

static int bad(const struct frame_header *h, struct err *e, const char *what, uint64_t value)
{
    return err_set(e, ERR_PROTOCOL, "channel %" PRIu32 " frame %" PRIu64 ": %s (%" PRIu64 ")",
        h->channel, h->seq, what, value);
}

static int check_place(const struct frame_header *h, uint32_t channel, uint64_t seq, struct err *e)
{
    if (h->magic != FRAME_MAGIC)
        return err_set(e, ERR_PROTOCOL,
            "channel %" PRIu32 ": no frame where frame %" PRIu64 " should start (0x%08" PRIx32 ")",
            channel, seq, h->magic);
    if (h->version != FRAME_VERSION)
        return bad(h, e, "unknown frame version", h->version);
    if (h->channel != channel)
        return err_set(e, ERR_PROTOCOL, "channel %" PRIu32 ": frame says it is of channel %" PRIu32,
            channel, h->channel);
    if (h->seq != seq)
        return err_set(e, ERR_PROTOCOL,
            "channel %" PRIu32 ": frame %" PRIu64 " came where %" PRIu64 " was due", channel,
            h->seq, seq);
    return 0;
}

int frame_check_header(const struct frame_header *h, uint32_t channel, uint64_t seq, struct err *e)
{
    if (check_place(h, channel, seq, e) < 0)
        return -1;
    if ((h->flags & ~(h->type == FRAME_PAGES ? FRAME_F_LIVE : 0u)) != 0)
        return bad(h, e, "unknown flags", h->flags);
    if (h->reserved != 0)
        return bad(h, e, "reserved field is not zero", h->reserved);
    switch (h->type) {
    case FRAME_PAGES:
        if (h->runs == 0 || h->runs > FRAME_RUNS_MAX)
            return bad(h, e, "number of runs is out of range", h->runs);
        if (h->payload > FRAME_PAYLOAD_MAX)
            return bad(h, e, "payload is too long", h->payload);
        return 0;
    case FRAME_ROUND_END:
    case FRAME_END:
        if (h->runs != 0 || h->payload != 0)
            return bad(h, e, "a frame of this type has neither runs nor payload", h->type);
        return 0;
    }
    return bad(h, e, "unknown frame type", h->type);
}

/* The region that holds all of [gfn, gfn + pages) or NULL; *at moves along with ascending runs. */
static bool in_a_region(const struct hv_layout *l, unsigned *at, uint64_t gfn, uint64_t pages)
{
    for (; *at < l->n; (*at)++) {
        const struct hv_region *r = &l->region[*at];

        if (gfn < r->gfn)
            return false;
        if (gfn - r->gfn < r->pages)
            return pages <= r->pages - (gfn - r->gfn);
    }
    return false;
}

static const char *const encoding_names[] = { "raw", "zero", "lz4", "zstd", "delta" };
_Static_assert(sizeof encoding_names / sizeof encoding_names[0] == FRAME_ENCODINGS, "name all");

const char *frame_encoding_name(unsigned encoding)
{
    return encoding < FRAME_ENCODINGS ? encoding_names[encoding] : "unknown";
}

static int check_raw(const struct frame_header *h, const struct frame_run *r, struct err *e)
{
    if (r->length != r->pages * HV_PAGE_SIZE)
        return bad(h, e, "length of a raw run is not that of its pages", r->length);
    return 0;
}

static int check_zero(const struct frame_header *h, const struct frame_run *r, struct err *e)
{
    if (r->pages > FRAME_ZERO_PAGES_MAX)
        return bad(h, e, "zero run is too long", r->pages);
    if (r->length != 0)
        return bad(h, e, "zero run with data", r->length);
    return 0;
}

/* What is not shorter than its pages travels raw. */
static int check_packed(const struct frame_header *h, const struct frame_run *r, struct err *e)
{
    if (r->pages > FRAME_PACKED_PAGES)
        return bad(h, e, "compressed run of too many pages", r->pages);
    if (r->length == 0 || r->length >= r->pages * HV_PAGE_SIZE)
        return bad(h, e, "length of a compressed run is out of range", r->length);
    return 0;
}

static int check_delta(const struct frame_header *h, const struct frame_run *r, struct err *e)
{
    if (r->length < r->pages * FRAME_DELTA_PAGE_MIN || r->length >= r->pages * HV_PAGE_SIZE)
        return bad(h, e, "length of a delta run is out of range", r->length);
    return 0;
}

static int check_encoding(
    const struct frame_header *h, const struct frame_run *r, uint64_t *data_pages, struct err *e)
{
    if (r->encoding == FRAME_ZERO)
        return check_zero(h, r, e);
    *data_pages += r->pages; /* first of all: it keeps the products below within 32 bits */
    if (*data_pages > FRAME_PAGES_MAX)
        return bad(h, e, "too many pages", *data_pages);
    switch (r->encoding) {
    case FRAME_RAW:
        return check_raw(h, r, e);
    case FRAME_LZ4:
    case FRAME_ZSTD:
        return check_packed(h, r, e);
    default:
        return check_delta(h, r, e);
    }
}

static int check_agreed(
    const struct frame_header *h, const struct frame_run *r, unsigned encodings, struct err *e)
{
    if (r->encoding >= FRAME_ENCODINGS)
        return bad(h, e, "unknown encoding", r->encoding);
    if (((encodings | FRAME_PLAIN) >> r->encoding & 1) == 0)
        return bad(h, e, "encoding was not agreed on", r->encoding);
    return 0;
}

int frame_check_runs(const struct frame_header *h, const struct frame_run *runs,
    const struct hv_layout *layout, unsigned encodings, struct err *e)
{
    uint64_t next = 0, data_pages = 0, length = 0;
    unsigned region = 0;

    for (uint32_t i = 0; i < h->runs; i++) {
        const struct frame_run *r = &runs[i];

        if (r->pages == 0)
            return bad(h, e, "empty run", i);
        if (r->reserved != 0 || r->reserved2 != 0)
            return bad(h, e, "reserved field of a run is not zero", i);
        if (r->gfn < next)
            return bad(h, e, "runs overlap or do not ascend", r->gfn);
        if (!in_a_region(layout, &region, r->gfn, r->pages))
            return bad(h, e, "run is not inside one region of the guest's memory", r->gfn);
        if (check_agreed(h, r, encodings, e) < 0 || check_encoding(h, r, &data_pages, e) < 0)
            return -1;
        next = r->gfn + r->pages;
        length += r->length;
    }
    if (length != h->payload)
        return bad(h, e, "payload is not the sum of its runs", length);
    return 0;
}

int frame_check_channel(
    const struct frame_header *h, const struct frame_run *runs, unsigned channels, struct err *e)
{
    if (channels == 1)
        return 0;
    for (uint32_t i = 0; i < h->runs; i++) {
        uint64_t first = runs[i].gfn, last = first + runs[i].pages - 1;

        if (first / FRAME_BLOCK_PAGES != last / FRAME_BLOCK_PAGES)
            return bad(h, e, "run crosses a block of 512 pages", first);
        if (frame_channel_of(first, channels) != h->channel)
            return bad(h, e, "page travels on the wrong channel", first);
    }
    return 0;
}
