/* SPDX-License-Identifier: ISC */
/*
 * frame: page batches on a data channel. A frame is a fixed header, `runs` run
 * entries, and the payload: the runs' data in order, without padding. All numbers are
 * little-endian. The receiver reads raw pages straight into guest memory, so it must
 * believe nothing before frame_check: every run inside the guest's memory, every
 * length as its encoding demands, all totals within the limits below.
 */
#ifndef FRAME_H
#define FRAME_H

#include <stdint.h>

#include "base/err.h"

#define FRAME_MAGIC 0x4250474dU /* "MGPB" */
#define FRAME_VERSION 1
#define FRAME_PAGES_MAX 1024 /* data pages of one frame; zero runs do not count */
#define FRAME_RUNS_MAX 1024
#define FRAME_PAYLOAD_MAX (FRAME_PAGES_MAX * 4096u)
#define FRAME_ZERO_PAGES_MAX (1u << 28) /* 1 TiB: the most pages of one zero run */

enum frame_type {
    FRAME_PAGES = 1,     /* runs and payload */
    FRAME_ROUND_END = 2, /* no runs; `round` has ended on this channel */
    FRAME_END = 3,       /* no runs; nothing follows on this channel */
};

enum frame_encoding {
    FRAME_RAW = 0,   /* length = pages * 4096 */
    FRAME_ZERO = 1,  /* length = 0 */
    FRAME_LZ4 = 2,   /* one block, of up to FRAME_PACKED_PAGES */
    FRAME_ZSTD = 3,  /* one frame, of as many */
    FRAME_DELTA = 4, /* for each page what changed; precopy/delta.c */
    FRAME_ENCODINGS
};

/* Bit masks of 1u << encoding; what was not agreed on in Offer and Accept is refused. */
#define FRAME_PLAIN (1u << FRAME_RAW | 1u << FRAME_ZERO) /* always allowed */
#define FRAME_EVERY ((1u << FRAME_ENCODINGS) - 1)
#define FRAME_PACKED_PAGES 16u   /* of one LZ4 or zstd run */
#define FRAME_DELTA_PAGE_MIN 10u /* bytes of a page's delta */

/*
 * Set on pages sent while the guest runs: they may change under the sender's hands, so
 * `digest` covers the run entries only. Any other flag is refused.
 */
#define FRAME_F_LIVE 1u

struct frame_header { /* 48 bytes */
    uint32_t magic;
    uint8_t version;
    uint8_t type;
    uint16_t flags; /* FRAME_F_LIVE or zero */
    uint32_t round;
    uint32_t runs;
    uint32_t payload; /* bytes */
    uint32_t channel; /* 1.. */
    uint64_t seq;     /* frames sent before this one on this channel */
    uint64_t digest;  /* XXH3-64 of run entries and payload; see FRAME_F_LIVE */
    uint64_t reserved;
};
_Static_assert(sizeof(struct frame_header) == 48, "wire format");

struct frame_run { /* 24 bytes */
    uint64_t gfn;
    uint32_t pages;
    uint16_t encoding;
    uint16_t reserved;
    uint32_t length; /* bytes of this run in the payload */
    uint32_t reserved2;
};
_Static_assert(sizeof(struct frame_run) == 24, "wire format");

struct hv_layout;

/*
 * Order: frames of one channel are applied in the order of that channel, different channels in any
 * order. So every page, zero or not, always travels on the channel that frame_channel_of names, and
 * with more than one channel no run crosses a multiple of FRAME_BLOCK_PAGES. Within a frame, runs
 * ascend and do not overlap; a run lies in one region of the layout.
 */
#define FRAME_BLOCK_PAGES 512u

static inline unsigned frame_channel_of(uint64_t gfn, unsigned channels)
{
    return 1 + (unsigned)((gfn / FRAME_BLOCK_PAGES) % channels);
}

/* XXH3-64 of vectors: the run entries, and for frames without FRAME_F_LIVE the payload; of nothing
 * for frames without runs. */
struct iovec;
uint64_t frame_digest(const struct iovec *iov, int n);

/* "raw", "zero", ...; never NULL. */
const char *frame_encoding_name(unsigned encoding);

/* Header alone, before anything else is read; `channel` and `seq` are what must come next. */
int frame_check_header(const struct frame_header *h, uint32_t channel, uint64_t seq, struct err *e);
/* The runs against the header, the guest's memory and the encodings that were agreed on. */
int frame_check_runs(const struct frame_header *h, const struct frame_run *runs,
    const struct hv_layout *layout, unsigned encodings, struct err *e);

/* Every page of the runs belongs on h->channel of `channels`. */
int frame_check_channel(
    const struct frame_header *h, const struct frame_run *runs, unsigned channels, struct err *e);

#endif
