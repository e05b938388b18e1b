/* SPDX-License-Identifier: ISC */
#include "transport/digest.h"

#include <endian.h>
#include <xxhash.h>

void tr_digest_add(uint64_t *channel_digest, uint64_t frame_digest)
{
    uint64_t pair[2] = { htole64(*channel_digest), htole64(frame_digest) };

    *channel_digest = XXH3_64bits(pair, sizeof pair);
}

static uint64_t rotate_left(uint64_t v, unsigned n)
{
    n &= 63;
    return n == 0 ? v : v << n | v >> (64 - n);
}

uint64_t tr_digest_fold(const uint64_t *of, unsigned n)
{
    uint64_t all = 0;

    for (unsigned i = 0; i < n; i++)
        all ^= rotate_left(of[i], i + 1);
    return all;
}

void tr_digest_memory(const void *data, uint64_t len, uint64_t *low, uint64_t *high)
{
    XXH128_hash_t h = XXH3_128bits(data, len);

    *low = h.low64;
    *high = h.high64;
}
