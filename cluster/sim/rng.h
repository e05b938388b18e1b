/* SPDX-License-Identifier: ISC */
/*
 * rng: chance from one seed. A draw is a hash of (seed, purpose, key), not the next of a
 * sequence: what a run draws for one thing does not change when a fault elsewhere is dropped, so
 * that a shrunk plan stays close to the one that it comes from.
 */
#ifndef CLUSTER_SIM_RNG_H
#define CLUSTER_SIM_RNG_H

#include <stdbool.h>
#include <stdint.h>

static inline uint64_t rng_mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static inline uint64_t rng_hash(uint64_t seed, unsigned purpose, uint64_t key)
{
    return rng_mix(seed ^ rng_mix(key ^ (uint64_t)purpose << 56));
}

/* 0 .. max, max included. */
static inline uint64_t rng_upto(uint64_t draw, uint64_t max)
{
    return max == UINT64_MAX ? draw : draw % (max + 1);
}

#endif
