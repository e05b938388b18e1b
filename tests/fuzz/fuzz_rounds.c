/* SPDX-License-Identifier: ISC */
/*
 * The input changes a small guest in rounds, which must be equal at the other end after each,
 * whatever the encodings, the cache of deltas among them. The first byte chooses those.
 */
#include "../unit/pages_fake.h"

#define ROUND_CHANGES 48u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct hv_mig from, to;

static size_t change(const uint8_t *data, size_t size, uint64_t *dirty)
{
    size_t n = size / 4 < ROUND_CHANGES ? size / 4 : ROUND_CHANGES;

    for (size_t i = 0; i < n; i++, data += 4) {
        uint64_t gfn = data[0] & 31u;
        unsigned at = data[1] * 16u, len = data[2] & 0x80 ? HV_PAGE_SIZE - at : data[2] & 31u;

        bitmap_set(dirty, gfn);
        for (unsigned k = 0; k < len && at + k < HV_PAGE_SIZE; k++)
            pf_page(&from, gfn)[at + k] =
                data[2] & 0x40 ? (uint8_t)(data[3] * (k + 1) * 167u >> 3) : data[3];
    }
    return n * 4;
}

static void round_trip(const uint8_t *data, size_t size)
{
    struct pages_encode how = { 1u << (FRAME_LZ4 + (data[0] & 1u)), (data[0] & 2u) * 65536u,
        false };
    struct pf_pipe pipe = { .data = NULL };
    struct pages_writer *w = pf_writer(&from, &pipe);
    struct pages_reader *r = pf_reader(&to, &pipe, FRAME_EVERY);
    struct pages_round round = { .live = true };
    struct err e;

    memset(from.mem, 0, 64 * HV_PAGE_SIZE);
    memset(to.mem, 0, 64 * HV_PAGE_SIZE);
    if (pages_writer_encode(w, &how, &e) < 0)
        abort();
    for (size_t at = 1; at + 4 <= size && round.number < 20; round.number++) {
        uint64_t dirty[HV_BITMAP_WORDS(PF_PAGES - 1)] = { 0 };
        enum frame_type type = FRAME_PAGES;
        uint32_t number;

        at += change(data + at, size - at, dirty);
        round.bitmap = dirty;
        pipe.len = pipe.at = 0;
        if (pages_write_round(w, &round, &e) < 0 ||
            pages_write_mark(w, FRAME_ROUND_END, round.number, &e) < 0)
            abort();
        while (type == FRAME_PAGES)
            if (pages_read_frame(r, &type, &number, &e) < 0)
                abort();
        if (memcmp(from.mem, to.mem, 64 * HV_PAGE_SIZE) != 0)
            abort();
    }
    pages_writer_free(w);
    pages_reader_free(r);
    free(w);
    free(r);
    free(pipe.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (from.mem == NULL) {
        pf_guest(&from, false);
        pf_guest(&to, false);
    }
    if (size > 0)
        round_trip(data, size);
    return 0;
}
