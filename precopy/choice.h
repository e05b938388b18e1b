/* SPDX-License-Identifier: ISC */
/*
 * choice: which compression pays on this link. Pure: no clock, no I/O. The engine tells
 * what encoding and sending cost, and asks before each batch. Caller-owned. Per class of
 * pages (sent for the first time, sent again) it takes the encoding with the least time
 * to encode plus time on the link, and tries the others from time to time.
 */
#ifndef CHOICE_H
#define CHOICE_H

#include <stdbool.h>
#include <stdint.h>

#include "transport/frame.h"

#define CHOICE_TRIAL_PAGES 64u

enum choice_class { CHOICE_FIRST, CHOICE_AGAIN, CHOICE_CLASSES };

struct choice_estimate { /* fading sums */
    double pages, ns, bytes;
};

/* What the cache of deltas takes the processor. */
enum choice_cache { CHOICE_ADMIT, CHOICE_HIT, CHOICE_CACHE_USES };

struct choice {
    unsigned among; /* bit mask of 1u << enum frame_encoding: RAW, LZ4, ZSTD */
    double link_ns, link_bytes;
    struct choice_estimate cache[CHOICE_CACHE_USES];
    struct choice_class_state {
        struct choice_estimate of[FRAME_ENCODINGS];
        unsigned batches;  /* since the last trial */
        unsigned every;    /* so many lie between two */
        unsigned raw_left; /* of a trial of raw */
        enum frame_encoding tried;
    } class[CHOICE_CLASSES];
};

struct choice_plan {
    enum frame_encoding encoding; /* of the batch */
    enum frame_encoding trial;    /* of its first CHOICE_TRIAL_PAGES; the same: no trial */
};

/* `among` has at least one encoding; a single one is always taken. */
void choice_init(struct choice *c, unsigned among);

struct choice_plan choice_next(struct choice *c, enum choice_class k);

/* `pages` were encoded in `ns` and are `bytes` on the wire. Not for RAW: that costs nothing. */
void choice_encoded(struct choice *c, enum choice_class k, enum frame_encoding e, uint64_t pages,
    uint64_t ns, uint64_t bytes);
/* `bytes` left in `ns`. full: as many as the pages have, so the link was kept busy; otherwise it
 * counts only where it was slower than is known. */
void choice_sent(struct choice *c, uint64_t bytes, uint64_t ns, bool full);

/* A page entered the cache, or was encoded against it, in `ns`. Some of them are enough. */
void choice_cached(struct choice *c, enum choice_cache use, uint64_t ns);
/* Whether a page should enter the cache: rounds to come, as many as were, must earn it. */
bool choice_cache_pays(const struct choice *c, uint32_t rounds);

/* Nanoseconds that a page of the class costs in this encoding; negative while unknown. */
double choice_cost(const struct choice *c, enum choice_class k, enum frame_encoding e);

#endif
