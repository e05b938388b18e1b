/* SPDX-License-Identifier: ISC */
/*
 * forecast: how a live migration would go, computed before it is begun. Pure: inputs are
 * what a dry run samples (how many different pages the guest writes in how long, how many
 * of its pages are zero) and measures (the link, the hosts' costs per page); the rounds are
 * played by the real policy. Uncertainty comes from playing them again with inputs that are
 * a little off, always the same ones. Everything is the caller's; nothing is allocated.
 */
#ifndef FORECAST_H
#define FORECAST_H

#include <stdbool.h>
#include <stdint.h>

#include "precopy/policy.h"

#define FORECAST_POINTS_MAX 24
#define FORECAST_RUNS 21
#define FORECAST_ROUNDS 6 /* whose costs are told apart; the last stands for all later ones */

/* The writable working set: different pages written within a time. */
struct forecast_point {
    uint64_t us;
    uint64_t pages;
};

struct forecast_input {
    struct forecast_point curve[FORECAST_POINTS_MAX]; /* in any order; from 0 it begins at 0 */
    unsigned n_curve;
    uint64_t populated; /* pages */
    double zero_share;  /* of them, 0..1 */
    double page_bytes;  /* on the wire, of a page with content; 0: as it is */
    double first_ns;    /* a page that the target has not yet: both hosts and the link */
    double again_ns;    /* a page that it has */
    double zero_ns;
    /* Of a page in round i from 1, nanoseconds and bytes, where known (0: as the round before, else
     * as above): a page that was sent before may travel as a delta. */
    double round_ns[FORECAST_ROUNDS], round_bytes[FORECAST_ROUNDS];
    /* Deltas, 0: none. A page enters the cache in admit_ns when it is sent again, and is then
     * encoded in hit_ns to hit_bytes each time; rounds whose costs are known have this in them. */
    double admit_ns, hit_ns, hit_bytes;
    uint64_t round_us; /* of a round without pages: collect, trip to the target */
    uint64_t setup_us; /* before the first round and after the pause */
    uint64_t pause_us; /* of the pause without pages, as it really is */
    uint64_t cap;      /* bytes per second over all channels; 0: none */
    unsigned channels;
    unsigned channels_useful; /* more than this gain nothing: CPU or link is full */
    struct policy_params par; /* fixed_us as the engine sets it */
};

struct forecast {
    double converges; /* share of the runs that ended with a stopped guest, 0..1 */
    uint64_t total_us, total_low_us, total_high_us; /* median, 10 and 90 of 100 */
    uint64_t pause_us, pause_low_us, pause_high_us;
    uint64_t wire_bytes;
    uint32_t rounds;
    unsigned throttle;
    char reason[400]; /* why it does not converge: the policy's words, or "" */
    char knob[160];   /* what would help, or "" */
};

/* Also finds the knob. Without convergence the times are those until the policy gives up. */
void forecast_make(const struct forecast_input *in, struct forecast *out);

/* The same without a knob: quicker. */
void forecast_play(const struct forecast_input *in, struct forecast *out);

/* Pages written within `us`: the curve made monotone and concave, straight between its points. */
double forecast_written(const struct forecast_input *in, double us);

#endif
