/* SPDX-License-Identifier: ISC */
/*
 * A stream of frames out of a peer's hands, of which magic, sequence and digests are put right, so
 * that what is tested lies behind them: the decoders of pages. The pages that it is decoded into
 * must stay the only memory that is written.
 */
#include <xxhash.h>

#include "../unit/pages_fake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct hv_mig to;

static void decode(const uint8_t *data, size_t size)
{
    struct pf_pipe pipe = { .data = (uint8_t *)data, .len = size };
    struct pages_reader *r = pf_reader(&to, &pipe, FRAME_EVERY);
    enum frame_type type = FRAME_PAGES;
    uint32_t round;
    struct err e;

    while (pages_read_frame(r, &type, &round, &e) == 0)
        ;
    pages_reader_free(r);
    free(r);
}

/* What a sender would have filled in; the copy is the caller's to free. */
static uint8_t *mend(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size + 1);
    size_t at = 0;

    memcpy(copy, data, size);
    for (uint64_t seq = 0; size - at >= sizeof(struct frame_header); seq++) {
        struct frame_header h;

        memcpy(&h, copy + at, sizeof h);
        h.magic = FRAME_MAGIC;
        h.version = FRAME_VERSION;
        h.type = FRAME_PAGES;
        h.flags = FRAME_F_LIVE;
        h.channel = 1;
        h.seq = seq;
        h.reserved = 0;
        h.runs = 1 + h.runs % 8;
        at += sizeof h;
        if (size - at < h.runs * sizeof(struct frame_run))
            break;
        h.payload = 0;
        for (uint32_t i = 0; i < h.runs; i++) {
            struct frame_run run;

            memcpy(&run, copy + at + i * sizeof run, sizeof run);
            h.payload += run.length;
        }
        h.digest = XXH3_64bits(copy + at, h.runs * sizeof(struct frame_run));
        memcpy(copy + at - sizeof h, &h, sizeof h);
        at += h.runs * sizeof(struct frame_run);
        if (size - at < h.payload)
            break;
        at += h.payload;
    }
    return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy;

    if (to.mem == NULL)
        pf_guest(&to, false);
    copy = mend(data, size);
    decode(copy, size);
    free(copy);
    return 0;
}
