/* SPDX-License-Identifier: ISC */
/*
 * sim_ha: the decision core of the cluster under its simulator (cluster/sim): some hundred seeds,
 * each plan of tests/sim/ha-*.txt that once failed, total cuts of all lengths, and a core that is
 * recorded and replayed.
 * `ha-sim` runs more of them, shows one, and makes a failing one small:
 *
 *   build/ha-sim --seed N --shrink > tests/sim/ha-WHAT.txt
 *
 * Usage: sim_ha [SEEDS [FIRST-SEED]]; deterministic.
 */
#include <glob.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "cluster/sim/replay.h"
#include "cluster/sim/sim.h"

#ifdef __SANITIZE_ADDRESS__
#define SEEDS 40
#else
#define SEEDS 200
#endif
#define RECORDED 5

static int judge(const char *what, const struct sim_plan *p, const struct sim_options *opt,
    struct sim_outcome *o)
{
    struct err e;

    if (sim_run(p, opt, o, &e) < 0) {
        printf("%s: %s\n", what, e.text);
        return 1;
    }
    if (o->oracle != NULL)
        printf("%s: %s at %" PRIu64 " ms: %s\n", what, o->oracle, o->at_ms, o->text);
    return o->oracle != NULL;
}

static int run_seeds(uint64_t first, unsigned seeds)
{
    unsigned failovers = 0, moves = 0, starts = 0, bad = 0;
    uint64_t steps = 0, longest = 0;

    for (unsigned i = 0; i < seeds; i++) {
        struct sim_outcome o;
        struct sim_plan p;
        char what[60];

        snprintf(what, sizeof what, "seed %" PRIu64, first + i);
        sim_plan_make(&p, first + i, 0);
        bad += (unsigned)judge(what, &p, NULL, &o);
        failovers += o.failovers;
        moves += o.moves;
        starts += o.starts;
        steps += o.steps;
        longest = o.heal_ms > longest ? o.heal_ms : longest;
    }
    printf("%u seeds, %u broken: %u starts, %u failovers, %u moves, %" PRIu64
           " steps; longest healing %" PRIu64 " ms\n",
        seeds, bad, starts, failovers, moves, steps, longest);
    /* A simulation in which nothing happens proves nothing. */
    return bad > 0 || (seeds >= SEEDS && (failovers < seeds / 4 || moves < seeds / 4));
}

static int read_plan(const char *path, struct sim_plan *p)
{
    struct err e;
    char *text = io_read_file(path, SIM_PLAN_TEXT_MAX - 1, NULL, &e);
    int r = text != NULL ? sim_plan_read(p, text, &e) : -1;

    free(text);
    if (r < 0)
        printf("%s: %s\n", path, e.text);
    return r;
}

static int run_file(const char *path)
{
    struct sim_outcome o;
    struct sim_plan p, again;
    struct err e;
    char *copy;
    int r;

    if (read_plan(path, &p) < 0)
        return 1;
    /* What is written is what was read. */
    copy = calloc(1, SIM_PLAN_TEXT_MAX);
    if (copy == NULL)
        abort();
    sim_plan_write(&p, copy, SIM_PLAN_TEXT_MAX);
    r = sim_plan_read(&again, copy, &e) < 0 || memcmp(&p, &again, sizeof p) != 0;
    free(copy);
    if (r != 0)
        printf("%s: is not the same when it is written and read again\n", path);
    return r | judge(path, &p, NULL, &o);
}

static int run_files(void)
{
    glob_t found;
    int r = 0;

    if (glob("tests/sim/ha-*.txt", 0, NULL, &found) != 0)
        return 0;
    for (size_t i = 0; i < found.gl_pathc; i++)
        r |= run_file(found.gl_pathv[i]);
    printf("%zu plans from files\n", found.gl_pathc);
    globfree(&found);
    return r;
}

/* All nodes are cut from each other, healed, and each guest goes on where it is: beats fail first,
 * the ring `lag` later, so long that the view ends. */
static int total_cut(const struct sim_plan *base, unsigned ms, unsigned lag)
{
    struct sim_plan p = *base;
    struct sim_outcome o;
    char what[60];

    snprintf(what, sizeof what, "a total cut of %u ms, the ring's %u ms later", ms, lag);
    p.seed = ms + lag;
    for (unsigned i = 0; i < p.faults; i++) {
        bool ring = p.fault[i].arg[1] == 1;

        p.fault[i].at = 10000 + (ring ? lag : 0);
        p.fault[i].arg[2] = ms - (ring ? lag : 0);
    }
    if (judge(what, &p, NULL, &o) != 0)
        return 1;
    if (o.failovers == 0 && o.starts == 0)
        return 0;
    printf("%s: %u domains changed their owner, %u were started\n", what, o.failovers, o.starts);
    return 1;
}

static int run_total_cuts(void)
{
    struct sim_plan p;
    int r = 0;

    if (read_plan("tests/sim/ha-total-cut.txt", &p) < 0)
        return 1;
    for (unsigned ms = 1000; ms <= 10000; ms += 50) {
        r |= total_cut(&p, ms, 0);
        for (unsigned lag = 500; ms >= lag + 3 * p.token && lag <= 2000; lag += 500)
            r |= total_cut(&p, ms, lag);
    }
    return r;
}

/* The same events make the same decisions, in a core of another process as well. */
static int run_recorded(uint64_t seed)
{
    char path[] = "/tmp/sim_ha.XXXXXX";
    struct sim_options opt = { .node = 1, .record = path };
    int fd = mkstemp(path), r;
    struct sim_outcome o;
    struct sim_plan p;
    uint64_t decided = 0;
    struct err e;

    if (fd < 0) {
        perror(path);
        return 1;
    }
    close(fd);
    sim_plan_make(&p, seed, 3);
    r = judge("recorded", &p, &opt, &o);
    if (r == 0 && replay_file(path, false, NULL, &decided, &e) < 0) {
        printf("seed %" PRIu64 ": %s\n", seed, e.text);
        r = 1;
    }
    if (r == 0 && decided != o.decided) {
        printf("seed %" PRIu64 ": replayed, the core decides otherwise\n", seed);
        r = 1;
    }
    unlink(path);
    return r;
}

int main(int argc, char **argv)
{
    unsigned seeds = argc > 1 ? (unsigned)atoi(argv[1]) : SEEDS;
    uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    int r = run_files() | run_total_cuts();

    for (uint64_t i = 0; i < RECORDED; i++)
        r |= run_recorded(first + i);
    return r | run_seeds(first, seeds);
}
