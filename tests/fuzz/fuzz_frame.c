/* SPDX-License-Identifier: ISC */
/* A frame's header and runs: whatever passes the checks must lie inside the guest's memory and
 * inside the limits, told here in another way than in frame.c. */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/hypervisor.h"
#include "transport/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct hv_layout layout = {
    .n = 3,
    .region = { { 0, 160 }, { 256, 65536 }, { UINT64_C(1) << 20, UINT64_C(1) << 28 } },
    .max_gfn = (UINT64_C(1) << 20) + (UINT64_C(1) << 28) - 1,
};

static bool in_memory(uint64_t gfn, uint64_t pages)
{
    for (unsigned i = 0; i < layout.n; i++)
        if (gfn >= layout.region[i].gfn && gfn <= layout.max_gfn &&
            gfn + pages <= layout.region[i].gfn + layout.region[i].pages)
            return true;
    return false;
}

static bool length_fits(const struct frame_run *r)
{
    uint64_t whole = (uint64_t)r->pages * HV_PAGE_SIZE;

    switch (r->encoding) {
    case FRAME_RAW:
        return r->length == whole;
    case FRAME_ZERO:
        return r->length == 0;
    case FRAME_LZ4:
    case FRAME_ZSTD:
        return r->pages <= 16 && r->length > 0 && r->length < whole;
    case FRAME_DELTA:
        return r->length >= (uint64_t)r->pages * 10 && r->length < whole;
    }
    return false;
}

static void must_be_sound(const struct frame_header *h, const struct frame_run *run)
{
    uint64_t pages = 0, bytes = 0;

    for (uint32_t i = 0; i < h->runs; i++) {
        if (!in_memory(run[i].gfn, run[i].pages) || run[i].pages == 0)
            abort();
        if (i > 0 && run[i].gfn < run[i - 1].gfn + run[i - 1].pages)
            abort();
        if (!length_fits(&run[i]))
            abort();
        pages += run[i].encoding != FRAME_ZERO ? run[i].pages : 0;
        bytes += run[i].length;
    }
    if (pages > FRAME_PAGES_MAX || bytes != h->payload)
        abort();
}

/* The fuzzer should not have to find the magic by itself; the fields that matter are its own. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct frame_run run[FRAME_RUNS_MAX];
    struct frame_header h;
    struct err e;

    if (size < sizeof h)
        return 0;
    memcpy(&h, data, sizeof h);
    frame_check_header(&h, 1, 0, &e);
    h.magic = FRAME_MAGIC;
    h.version = FRAME_VERSION;
    h.channel = 1 + h.channel % 4;
    h.seq = 0;
    h.reserved = 0;
    if (frame_check_header(&h, h.channel, 0, &e) < 0)
        return 0;
    if (h.runs > FRAME_RUNS_MAX || h.payload > FRAME_PAYLOAD_MAX)
        abort();
    if ((size - sizeof h) / sizeof run[0] < h.runs)
        return 0;
    memcpy(run, data + sizeof h, h.runs * sizeof run[0]);
    if (frame_check_runs(&h, run, &layout, FRAME_EVERY, &e) < 0)
        return 0;
    must_be_sound(&h, run);
    frame_check_channel(&h, run, 4, &e);
    return 0;
}
