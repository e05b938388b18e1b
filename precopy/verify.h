/* SPDX-License-Identifier: ISC */
/*
 * verify: digests of guest memory, to compare both sides before the guest runs on the
 * target. Either all memory that may hold something, or a sample of it that costs less
 * than a millisecond. The source picks and hashes, the target hashes the same ranges.
 */
#ifndef VERIFY_H
#define VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "hypervisor/hypervisor.h"

#define VERIFY_MESSAGE_RANGES 256 /* ranges of one MemoryDigests message: at most 512 MiB */
#define VERIFY_SAMPLE_RANGES 32
#define VERIFY_SAMPLE_PAGES 16 /* at most, of one sampled range */
#define VERIFY_THREADS_MAX 4

struct verify_range {
    uint64_t gfn;
    uint32_t pages; /* 1..TR_DIGEST_PAGES */
    uint64_t low, high;
};

/* The ranges of `bitmap`: runs of set bits that stay inside a block and a region; a sample of them,
 * or all. *out is malloc'ed. */
int verify_list(const uint64_t *bitmap, const struct hv_layout *layout, bool sample,
    struct verify_range **out, size_t *n, struct err *e);

/* Fills low and high of each range, by up to VERIFY_THREADS_MAX threads. */
int verify_hash(const struct hv_ops *ops, struct hv_mig *mig, struct verify_range *range, size_t n,
    struct err *e);

/* One line on the ranges of `a` that differ from `b`, into text; returns how many pages do. */
uint64_t verify_compare(
    const struct verify_range *a, const struct verify_range *b, size_t n, char *text, size_t len);

#endif
