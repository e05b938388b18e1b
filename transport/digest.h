/* SPDX-License-Identifier: ISC */
/*
 * digest: what was sent and what was received, in 64 bits, so that both sides can
 * compare before the guest runs elsewhere. Each channel folds the digest field of every
 * frame (of any type, in order) into its own running value; at the end the channels'
 * values are combined. No locks: a channel's value belongs to that channel's thread, the
 * fold is taken when all frames are through. docs/WIRE.md section 6 is normative.
 */
#ifndef DIGEST_H
#define DIGEST_H

#include <stdint.h>

/* Starts at 0; call once per frame with frame_header.digest. */
void tr_digest_add(uint64_t *channel_digest, uint64_t frame_digest);

/* of[0] is channel 1's value, of[n - 1] channel n's. */
uint64_t tr_digest_fold(const uint64_t *of, unsigned n);

/* XXH3-128 of a run of guest memory, for MemoryDigests. */
void tr_digest_memory(const void *data, uint64_t len, uint64_t *low, uint64_t *high);

/* Guest pages one DigestRange covers at most: 2 MiB. */
#define TR_DIGEST_PAGES 512u

#endif
