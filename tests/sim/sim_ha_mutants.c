/* SPDX-License-Identifier: ISC */
/*
 * sim_ha_mutants: each deliberate bug of cluster/mutant.h breaks an oracle within so many seeds.
 * Linked with a core that has them; the same seeds leave the core without one whole (sim_ha).
 *
 * Usage: sim_ha_mutants [SEEDS]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cluster/mutant.h"
#include "cluster/sim/sim.h"

#define SEEDS 4000

static int hunt(unsigned mutant, unsigned seeds)
{
    for (unsigned seed = 1; seed <= seeds; seed++) {
        struct sim_outcome o;
        struct sim_plan p;
        struct err e;

        sim_plan_make(&p, seed, 0);
        if (sim_run(&p, NULL, &o, &e) < 0) {
            printf("seed %u: %s\n", seed, e.text);
            return 1;
        }
        if (o.oracle != NULL) {
            printf("mutant %u: seed %u: %s: %s\n", mutant, seed, o.oracle, o.text);
            return 0;
        }
    }
    printf("mutant %u: nobody saw it in %u seeds\n", mutant, seeds);
    return 1;
}

int main(int argc, char **argv)
{
    unsigned seeds = argc > 1 ? (unsigned)atoi(argv[1]) : SEEDS;
    int r = 0;

    for (unsigned m = 1; m <= MUTANTS; m++) {
        if (!mutant_choose(m)) {
            printf("this core has no mutants\n");
            return 1;
        }
        r |= hunt(m, seeds);
    }
    return r;
}
