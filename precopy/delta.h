/* SPDX-License-Identifier: ISC */
/*
 * delta: a page as what changed in it since the target got it, and the cache that knows
 * what the target got. Encoding and decoding are plain functions; a cache belongs to one
 * thread, that of the channel whose pages it holds, and to the caller of delta_cache_new.
 * docs/WIRE.md section 5.1 has the bytes.
 */
#ifndef DELTA_H
#define DELTA_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "precopy/scan.h"

#define DELTA_HEAD 10u                  /* bytes before the body: digest of the base, length */
#define DELTA_WORTH (SCAN_PAGE / 4 * 3) /* a longer one is not made */

/*
 * The words of `page` that `mask` names, to out[DELTA_WORTH]; `base` is the digest of the page
 * before the change. Returns the length, or 0 when it would be more than DELTA_WORTH.
 */
size_t delta_encode(
    uint8_t *out, const uint8_t *page, const uint64_t mask[SCAN_MASK], uint64_t base);

/* Applies the delta at the head of in[len], foreign bytes, to `page`; returns its length, or -1:
 * ERR_PROTOCOL, or ERR_INTEGRITY when the page is not the one it was made from. `page` may have
 * been changed in part then. */
int delta_apply(uint8_t *page, const uint8_t *in, size_t len, struct err *e);

uint64_t delta_digest(const uint8_t *page);

struct delta_cache;

/* For the pages of one of `channels` channels. Memory is taken as it is used. NULL: no memory. */
struct delta_cache *delta_cache_new(uint64_t bytes, unsigned channels);
void delta_cache_free(struct delta_cache **c);

/* The copy of a page, or NULL. It counts as used in `round`. */
uint8_t *delta_cache_find(struct delta_cache *c, uint64_t gfn, uint32_t round);
/* Room for a page that is not in it, to be filled by the caller; NULL: not worth it. Never the
 * room of a page that was used in this round. */
uint8_t *delta_cache_admit(struct delta_cache *c, uint64_t gfn, uint32_t round);
/* The target gets the page in another way. */
void delta_cache_drop(struct delta_cache *c, uint64_t gfn);

#endif
