/* SPDX-License-Identifier: ISC */
#include "precopy/encodings.h"

#define CACHE_SHARE 4 /* the cache is at most one part in so many of the guest's memory */

static unsigned compress_wanted(Migrd__Compression c)
{
    switch (c) {
    case MIGRD__COMPRESSION__COMPRESSION_NONE:
        return 1u << FRAME_RAW;
    case MIGRD__COMPRESSION__COMPRESSION_LZ4:
        return 1u << FRAME_LZ4;
    case MIGRD__COMPRESSION__COMPRESSION_ZSTD:
        return 1u << FRAME_ZSTD;
    case MIGRD__COMPRESSION__COMPRESSION_DEFAULT:
    case MIGRD__COMPRESSION__COMPRESSION_AUTO:
    default:
        return 1u << FRAME_RAW | 1u << FRAME_LZ4 | 1u << FRAME_ZSTD;
    }
}

unsigned encodings_wanted(const Migrd__PrecopyParams *par)
{
    return FRAME_PLAIN | compress_wanted(par->compression) |
           (par->delta_cache > 0 && par->live ? 1u << FRAME_DELTA : 0);
}

struct pages_encode encodings_plan(
    const Migrd__PrecopyParams *par, unsigned agreed, const struct hv_layout *layout)
{
    struct pages_encode how = { .compress = compress_wanted(par->compression) & agreed,
        .measure = true };
    uint64_t pages = 0;

    for (unsigned i = 0; i < layout->n; i++)
        pages += layout->region[i].pages;
    if ((agreed & encodings_wanted(par) & 1u << FRAME_DELTA) != 0)
        how.cache_bytes = pages * HV_PAGE_SIZE / CACHE_SHARE;
    if (how.cache_bytes > par->delta_cache)
        how.cache_bytes = par->delta_cache;
    return how;
}

size_t encodings_count(
    struct encoding_counts *c, const struct pages_total *now, const struct pages_total *since)
{
    size_t n = 0;

    for (unsigned i = 0; i < FRAME_ENCODINGS; i++) {
        uint64_t pages = now->pages[i] - (since != NULL ? since->pages[i] : 0);
        Migrd__EncodingCount *m = &c->of[n];

        if (pages == 0)
            continue;
        migrd__encoding_count__init(m);
        m->encoding = (char *)frame_encoding_name(i);
        m->pages = pages;
        m->bytes = now->data[i] - (since != NULL ? since->data[i] : 0);
        c->ptr[n++] = m;
    }
    return n;
}
