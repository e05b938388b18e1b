/* SPDX-License-Identifier: ISC */
/*
 * verify: digests of guest memory, to compare both sides before the guest runs on the
 * target. Either all memory that may hold something, or a sample of it in a fixed time.
 * The source picks and hashes, the target hashes the same ranges. docs/precopy.md has
 * the arithmetic of the sample.
 */
#ifndef VERIFY_H
#define VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "hypervisor/hypervisor.h"

#define VERIFY_MESSAGE_RANGES 256  /* ranges of one MemoryDigests message: at most 512 MiB */
#define VERIFY_SAMPLE_MAX 1024     /* pages of a sample, at most */
#define VERIFY_SUSPECT_SHARE 3 / 4 /* of the sample: pages that may have lost a dirty bit */
#define VERIFY_SAMPLE_US 250       /* hashing a sample ends after that */
#define VERIFY_THREADS_MAX 4

struct verify_range {
    uint64_t gfn;
    uint32_t pages; /* 1..TR_DIGEST_PAGES */
    uint64_t low, high;
};

/* All ranges of `bitmap`: runs of set bits that stay inside a block and a region. *out is
 * malloc'ed. */
int verify_list(const uint64_t *bitmap, const struct hv_layout *layout, struct verify_range **out,
    size_t *n, struct err *e);

/* Where a sample comes from: bitmaps of `words` words. A dirty bit can only have been lost of a
 * page that is dirtied now and then, and a page of the last round was sent while the guest stood
 * still: suspect are the pages in `ever_dirty` that are not in `last`. */
struct verify_population {
    const uint64_t *populated, *ever_dirty, *last;
    size_t words;
};

/* Up to VERIFY_SAMPLE_MAX single pages, each page of a class with the same probability: suspects
 * have their share of the sample, more where the others are few, and are all in it where they are
 * fewer than that. In an order such that the beginning is a sample too. Returns how many. */
size_t verify_sample(
    const struct verify_population *p, uint64_t seed, struct verify_range out[VERIFY_SAMPLE_MAX]);

/* Fills low and high of each range; where there is much to do with up to VERIFY_THREADS_MAX
 * threads. */
int verify_hash(const struct hv_ops *ops, struct hv_mig *mig, struct verify_range *range, size_t n,
    struct err *e);

/* The same by this thread alone, for at most VERIFY_SAMPLE_US; *done is how many there were. */
int verify_hash_some(const struct hv_ops *ops, struct hv_mig *mig, struct verify_range *range,
    size_t n, size_t *done, struct err *e);

/* One line on the ranges of `a` that differ from `b`, into text; returns how many pages do. */
uint64_t verify_compare(
    const struct verify_range *a, const struct verify_range *b, size_t n, char *text, size_t len);

#endif
