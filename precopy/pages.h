/* SPDX-License-Identifier: ISC */
/*
 * pages: guest memory to frames and back, for one stream (a data channel or a save
 * file). The writer walks its share of a bitmap, leaves out pages that are dirty again,
 * finds zero pages, and sends runs straight from guest memory, or encoded where that was
 * agreed on and pays; the reader checks each frame and reads runs straight into guest
 * memory, or decodes them there. One thread per struct; the structs are the caller's and
 * hold their buffers (about 80 KiB each; encoded runs take more, when they come).
 */
#ifndef PAGES_H
#define PAGES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "hypervisor/hypervisor.h"
#include "precopy/choice.h"
#include "precopy/codec.h"
#include "precopy/delta.h"
#include "transport/frame.h"

#define PAGES_IOV_MAX (1 + FRAME_PAGES_MAX) /* header, or run entries, and one for each page */

/* Where a stream goes to or comes from. read: exactly the bytes asked for. */
struct pages_port {
    int (*writev)(void *ctx, const struct iovec *iov, int n, struct err *e);
    int (*readv)(void *ctx, const struct iovec *iov, int n, struct err *e);
    void *ctx;
};

/* Counters are written by the stream's thread and read by any. */
struct pages_count {
    _Atomic uint64_t skipped, bytes, frames;
    _Atomic uint64_t pages[FRAME_ENCODINGS], data[FRAME_ENCODINGS]; /* data: bytes of the runs */
};

/* Their values, of one stream or summed over several. */
struct pages_total {
    uint64_t sent, zero; /* pages with content; pages of zeroes */
    uint64_t skipped, bytes, frames;
    uint64_t pages[FRAME_ENCODINGS], data[FRAME_ENCODINGS];
};
void pages_total_add(struct pages_total *t, const struct pages_count *c);

struct pages_frame {
    struct frame_header head;
    struct frame_run run[FRAME_RUNS_MAX];
};
_Static_assert(sizeof(struct pages_frame) ==
                   sizeof(struct frame_header) + FRAME_RUNS_MAX * sizeof(struct frame_run),
    "header and runs leave in one piece");

/* How a writer may encode; all zero: raw and zero only. */
struct pages_encode {
    unsigned compress;    /* bit mask to choose among: RAW, LZ4, ZSTD; one alone is always taken */
    uint64_t cache_bytes; /* for deltas; 0: none */
    bool measure;         /* pages enter the cache only where that is measured to pay */
};

/* Pages with neighbouring frame numbers that may become one compressed run. */
struct pages_group {
    uint64_t gfn;
    unsigned n;
    uint8_t *page[FRAME_PACKED_PAGES];
};

struct pages_writer {
    const struct hv_ops *ops; /* set by the caller, as the next five */
    struct hv_mig *mig;
    const struct hv_layout *layout;
    struct pages_port port;
    unsigned channel, channels; /* 1.. of how many */
    struct pages_count count;

    uint64_t seq, fold; /* frames sent; their digests folded */
    uint64_t gfn[HV_BATCH_PAGES];
    struct hv_mapping map;
    struct pages_frame frame;
    struct iovec iov[PAGES_IOV_MAX];
    int n_iov;

    bool measure;
    unsigned cached; /* uses of the cache, of which some are timed */
    bool encodes;    /* pages_writer_encode was called; all below */
    struct choice choice;
    struct codec *codec;
    struct delta_cache *cache;
    uint8_t *out, *gather; /* encoded runs of the frame; pages to compress */
    size_t out_len;
    struct pages_group group;
    enum frame_encoding now; /* of data pages; RAW: not compressed */
    struct choice_plan plan;
    unsigned trial_left;
    struct choice_estimate spent[FRAME_ENCODINGS]; /* by the batch */
};

/* Before the first round; at most once. Afterwards pages_writer_free must be called. */
int pages_writer_encode(struct pages_writer *w, const struct pages_encode *how, struct err *e);
void pages_writer_free(struct pages_writer *w);

struct pages_round {
    uint32_t number;
    bool live;                     /* the guest may run: digests cover no payload */
    const uint64_t *bitmap;        /* what to send */
    const _Atomic uint64_t *again; /* dirty again already: leave out; NULL: send all */
    const atomic_bool *stop;       /* true: return early with ERR_CANCELLED; may be NULL */
};

/* This stream's share of the round, without an end mark. */
int pages_write_round(struct pages_writer *w, const struct pages_round *r, struct err *e);
/* A frame without runs: FRAME_ROUND_END, FRAME_END. */
int pages_write_mark(struct pages_writer *w, enum frame_type type, uint32_t round, struct err *e);

struct pages_reader {
    const struct hv_ops *ops; /* set by the caller, as the next six */
    struct hv_mig *mig;
    const struct hv_layout *layout;
    struct pages_port port;
    unsigned channel, channels;
    unsigned encodings; /* bit mask of those that were agreed on */
    struct pages_count count;

    uint64_t seq, fold;
    uint64_t gfn[HV_BATCH_PAGES];
    struct hv_mapping map;
    struct pages_frame frame;
    struct iovec iov[PAGES_IOV_MAX];
    int n_iov;
    struct codec *codec;   /* these when the first encoded run came */
    uint8_t *in, *scatter; /* encoded runs of the frame; pages that lie apart */
};

/* Reads one frame into guest memory. *type and *round tell which it was. */
int pages_read_frame(struct pages_reader *r, enum frame_type *type, uint32_t *round, struct err *e);
void pages_reader_free(struct pages_reader *r);

/* --- bitmaps of hypervisor.h --- */

static inline void bitmap_set(uint64_t *b, uint64_t i)
{
    b[i >> 6] |= UINT64_C(1) << (i & 63);
}

static inline bool bitmap_test(const uint64_t *b, uint64_t i)
{
    return (b[i >> 6] >> (i & 63) & 1) != 0;
}

uint64_t bitmap_count(const uint64_t *b, size_t words);
void bitmap_or(uint64_t *to, const uint64_t *from, size_t words);

#endif
