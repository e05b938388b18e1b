/* SPDX-License-Identifier: ISC */
/*
 * dry_delta: what deltas of a guest's pages would be like: of some that it writes, copies are taken
 * and compared a little later, with the cache and the encoder of a migration. The caller owns
 * the struct, all zero before the first call; dry_delta_end frees what it holds.
 */
#ifndef DRY_DELTA_H
#define DRY_DELTA_H

#include "precopy/delta.h"
#include "precopy/worker_internal.h"

#define DRY_DELTA_PAGES 2048u

struct dry_delta {
    double admit_ns;          /* of a page's way into the cache; 0: not measured */
    double hit_ns, hit_bytes; /* of a page that was there and has changed */

    struct delta_cache *cache;
    uint64_t gfn[DRY_DELTA_PAGES];
    unsigned n;
};

/* Takes copies of pages of the bitmap. */
int dry_delta_begin(
    struct dry_delta *d, const struct attach *at, const uint64_t *written, struct err *e);
/* Compares; what did not change since does not count. */
int dry_delta_compare(struct dry_delta *d, const struct attach *at, struct err *e);
void dry_delta_end(struct dry_delta *d);

#endif
