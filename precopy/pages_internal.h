/* SPDX-License-Identifier: ISC */
/* pages_internal: what writing and reading share; private to precopy/pages*.c. */
#ifndef PAGES_INTERNAL_H
#define PAGES_INTERNAL_H

#include "precopy/pages.h"

static inline size_t pages_runs_bytes(const struct frame_header *h)
{
    return h->runs * sizeof(struct frame_run);
}

static inline void pages_count_add(_Atomic uint64_t *c, uint64_t n)
{
    atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

/* Of a whole frame: what it was and how long. */
void pages_count_frame(struct pages_count *c, const struct pages_frame *f);
/* Digest of runs and payload; iov[0] is the header's (or nothing's), the rest is the payload. */
uint64_t pages_digest(struct pages_frame *f, struct iovec *iov, int n);
/* Adds `len` bytes at `at` to iov[1..], merged with the last where they follow it. */
int pages_add_iov(struct iovec *iov, int n, uint8_t *at, size_t len);
/* Address space for the encoded runs of one frame, taken as it is used; NULL: none. */
uint8_t *pages_buffer(void);
void pages_buffer_free(uint8_t **b);

#endif
