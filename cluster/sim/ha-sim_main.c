/* SPDX-License-Identifier: ISC */
/*
 * ha-sim: runs the simulator for many seeds, for one with its time line, for a plan in a file; and
 * replays what a core of a real cluster has recorded.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "cluster/sim/replay.h"
#include "cluster/mutant.h"
#include "cluster/sim/sim.h"

#define JOBS_MAX 64
#define SHRINK_RUNS 3000
#define FAILURES_SHOWN 20

enum { EXIT_WELL, EXIT_BROKEN, EXIT_USAGE };

struct options {
    uint64_t seed;
    unsigned seeds, nodes, jobs, node;
    bool verbose, shrink, print;
    const char *plan, *replay, *record;
};

/* What a job tells in the end. */
struct sum {
    uint64_t runs, broken, steps, events, failovers, moves, starts, entries;
    uint64_t heal_max_ms, heal_max_seed;
};

static const char help[] =
    "usage: ha-sim [OPTION...]\n"
    "\n"
    "Simulates clusters: hosts, corosync, disks, guests and operators, in virtual time, with "
    "faults.\n"
    "\n"
    "  --seeds N       so many runs, each from a seed of its own (200)\n"
    "  --seed S        the first seed (1); without --seeds that one alone\n"
    "  --nodes N       clusters of 2 to 7 nodes (drawn for each seed)\n"
    "  --jobs N        so many processes (1)\n"
    "  --plan FILE     runs the plan in a file, as --print and --shrink write it\n"
    "  --verbose       the time line of what happens\n"
    "  --print         the plan of the seed, and nothing else\n"
    "  --shrink        makes a failing plan small, prints it, and its time line\n"
    "  --record FILE   the newest life of a core is recorded there\n"
    "  --node N        which one: of node N (1)\n"
    "  --replay FILE   the events that a core recorded, and what it decided\n"
    "  --mutant N      the core has deliberate bug N, 1 to 5 (builds for tests only)\n"
    "\n"
    "Exit status: 0 all is well, 1 an oracle is broken, 2 wrong options or files.\n";

static void print_plan(const struct sim_plan *p)
{
    static char text[SIM_PLAN_TEXT_MAX];

    sim_plan_write(p, text, sizeof text);
    fputs(text, stdout);
}

static void print_source(void)
{
    char line[80] = "";
    FILE *git = popen("git rev-parse --short HEAD 2>/dev/null", "r");

    if (git != NULL) {
        if (fgets(line, sizeof line, git) == NULL)
            line[0] = '\0';
        pclose(git);
    }
    line[strcspn(line, "\n")] = '\0';
    printf("migrd %s, commit %s\n", MIGRD_VERSION, line[0] != '\0' ? line : "unknown");
}

static void add(struct sum *s, const struct sim_outcome *o, uint64_t seed)
{
    s->runs++;
    s->broken += o->oracle != NULL;
    s->steps += o->steps;
    s->events += o->events;
    s->failovers += o->failovers;
    s->moves += o->moves;
    s->starts += o->starts;
    s->entries += o->entries;
    if (o->heal_ms > s->heal_max_ms) {
        s->heal_max_ms = o->heal_ms;
        s->heal_max_seed = seed;
    }
}

static int run_plan(struct sim_plan *p, const struct options *opt, struct sum *s)
{
    struct sim_options how = { opt->verbose ? stdout : NULL, opt->node, opt->record };
    struct sim_outcome o;
    struct err e;

    if (sim_run(p, &how, &o, &e) < 0) {
        fprintf(stderr, "ha-sim: %s\n", e.text);
        return EXIT_USAGE;
    }
    add(s, &o, p->seed);
    if (o.oracle == NULL)
        return EXIT_WELL;
    if (s->broken <= FAILURES_SHOWN)
        printf("seed %" PRIu64 ": %s at %" PRIu64 " ms: %s\n", p->seed, o.oracle, o.at_ms, o.text);
    if (opt->shrink) {
        const char *oracle = o.oracle;
        unsigned runs = sim_shrink(p, oracle, SHRINK_RUNS);

        print_source();
        how.log = stdout;
        sim_run(p, &how, &o, &e);
        printf("# %s: %s; smaller in %u runs\n", oracle, o.text, runs);
        print_plan(p);
    }
    fflush(stdout);
    return EXIT_BROKEN;
}

/* at: where others read which seed is being run. */
static int run_seeds(
    const struct options *opt, unsigned first, unsigned step, _Atomic uint64_t *at, struct sum *s)
{
    int status = EXIT_WELL;

    for (unsigned i = first; i < opt->seeds; i += step) {
        struct sim_plan p;
        int r;

        *at = opt->seed + i;
        sim_plan_make(&p, opt->seed + i, opt->nodes);
        r = run_plan(&p, opt, s);
        status = r > status ? r : status;
    }
    return status;
}

static pid_t start_job(const struct options *opt, unsigned number, _Atomic uint64_t *at, int *fd)
{
    int pipes[2];
    pid_t pid;

    if (pipe(pipes) < 0)
        return -1;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        struct sum s = { 0 };
        int status;

        close(pipes[0]);
        status = run_seeds(opt, number, opt->jobs, at, &s);
        if (io_write_full(pipes[1], &s, sizeof s, IO_FOREVER, NULL) < 0)
            status = EXIT_USAGE;
        exit(status);
    }
    close(pipes[1]);
    *fd = pipes[0];
    return pid;
}

static void merge(struct sum *all, const struct sum *s)
{
    all->runs += s->runs;
    all->broken += s->broken;
    all->steps += s->steps;
    all->events += s->events;
    all->failovers += s->failovers;
    all->moves += s->moves;
    all->starts += s->starts;
    all->entries += s->entries;
    if (s->heal_max_ms > all->heal_max_ms) {
        all->heal_max_ms = s->heal_max_ms;
        all->heal_max_seed = s->heal_max_seed;
    }
}

/* The exit status of a process; one that died has left seeds without a result. */
static int end_of(pid_t pid, uint64_t seed)
{
    int r;

    if (waitpid(pid, &r, 0) < 0)
        return EXIT_USAGE;
    if (WIFEXITED(r))
        return WEXITSTATUS(r);
    printf("seed %" PRIu64 ": its process died by signal %d; those behind it were not run\n", seed,
        WTERMSIG(r));
    return EXIT_BROKEN;
}

static int run_jobs(const struct options *opt, struct sum *all)
{
    int fd[JOBS_MAX], status = EXIT_WELL;
    pid_t pid[JOBS_MAX];
    _Atomic uint64_t *at = mmap(
        NULL, sizeof *at * JOBS_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED) {
        perror("ha-sim");
        return EXIT_USAGE;
    }
    for (unsigned i = 0; i < opt->jobs; i++) {
        pid[i] = start_job(opt, i, &at[i], &fd[i]);
        if (pid[i] < 0) {
            perror("ha-sim");
            return EXIT_USAGE;
        }
    }
    for (unsigned i = 0; i < opt->jobs; i++) {
        struct sum s = { 0 };
        int r;

        if (io_read_full(fd[i], &s, sizeof s, IO_FOREVER, NULL) == 0)
            merge(all, &s);
        close(fd[i]);
        r = end_of(pid[i], at[i]);
        status = r > status ? r : status;
    }
    munmap(at, sizeof *at * JOBS_MAX);
    return status;
}

static int run_file(const struct options *opt, struct sum *s)
{
    struct sim_plan p;
    struct err e;
    char *text = io_read_file(opt->plan, SIM_PLAN_TEXT_MAX - 1, NULL, &e);
    int r = text != NULL ? sim_plan_read(&p, text, &e) : -1;

    free(text);
    if (r < 0) {
        fprintf(stderr, "ha-sim: %s: %s\n", opt->plan, e.text);
        return EXIT_USAGE;
    }
    return run_plan(&p, opt, s);
}

static int number(const char *text, uint64_t min, uint64_t max, uint64_t *v)
{
    char *end;

    errno = 0;
    *v = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || *v < min || *v > max) {
        fprintf(
            stderr, "ha-sim: %s is not a number of %" PRIu64 " to %" PRIu64 "\n", text, min, max);
        return -1;
    }
    return 0;
}

/* An option with a number; -1: bad. */
static int take_number(struct options *opt, int which)
{
    uint64_t v = 0;

    switch (which) {
    case 'n':
        if (number(optarg, 1, UINT32_MAX, &v) < 0)
            return -1;
        opt->seeds = (unsigned)v;
        return 0;
    case 's':
        return number(optarg, 0, UINT64_MAX, &opt->seed);
    case 'N':
        if (number(optarg, SIM_NODES_MIN, SIM_NODES_MAX, &v) < 0)
            return -1;
        opt->nodes = (unsigned)v;
        return 0;
    case 'i':
        if (number(optarg, 1, SIM_NODES_MAX, &v) < 0)
            return -1;
        opt->node = (unsigned)v;
        return 0;
    case 'j':
        if (number(optarg, 1, JOBS_MAX, &v) < 0)
            return -1;
        opt->jobs = (unsigned)v;
        return 0;
    default:
        if (number(optarg, 1, MUTANTS, &v) < 0)
            return -1;
        if (!mutant_choose((unsigned)v)) {
            fprintf(stderr, "ha-sim: this build has no mutants; ha-sim-mutants has them\n");
            return -1;
        }
        return 0;
    }
}

static int options(struct options *opt, int argc, char **argv)
{
    static const struct option list[] = { { "seeds", 1, NULL, 'n' }, { "seed", 1, NULL, 's' },
        { "nodes", 1, NULL, 'N' }, { "jobs", 1, NULL, 'j' }, { "record", 1, NULL, 'R' },
        { "node", 1, NULL, 'i' }, { "mutant", 1, NULL, 'm' }, { "plan", 1, NULL, 'p' },
        { "replay", 1, NULL, 'r' }, { "verbose", 0, NULL, 'v' }, { "shrink", 0, NULL, 'S' },
        { "print", 0, NULL, 'P' }, { "help", 0, NULL, 'h' }, { NULL, 0, NULL, 0 } };
    bool one = false;

    for (int c; (c = getopt_long(argc, argv, "", list, NULL)) != -1;) {
        switch (c) {
        case 'p':
            opt->plan = optarg;
            break;
        case 'r':
            opt->replay = optarg;
            break;
        case 'R':
            opt->record = optarg;
            break;
        case 'v':
            opt->verbose = true;
            break;
        case 'S':
            opt->shrink = true;
            break;
        case 'P':
            opt->print = true;
            break;
        case 'h':
            fputs(help, stdout);
            exit(EXIT_WELL);
        case '?':
            return -1;
        default:
            one = one || c == 's';
            if (take_number(opt, c) < 0)
                return -1;
        }
    }
    if (opt->seeds == 0)
        opt->seeds = one ? 1 : 200;
    if (opt->record == NULL)
        opt->node = 0;
    else if (opt->node == 0)
        opt->node = 1;
    if (opt->jobs > opt->seeds)
        opt->jobs = opt->seeds;
    return optind == argc ? 0 : -1;
}

static void print_sum(const struct sum *s, uint64_t ns)
{
    printf("%" PRIu64 " runs in %.1f s, %" PRIu64 " broken; %" PRIu64 " events, %" PRIu64
           " steps, %" PRIu64 " entries, %" PRIu64 " starts, %" PRIu64 " failovers, %" PRIu64
           " moves; longest healing %.1f s (seed %" PRIu64 ")\n",
        s->runs, (double)ns / 1e9, s->broken, s->events, s->steps, s->entries, s->starts,
        s->failovers, s->moves, (double)s->heal_max_ms / 1000, s->heal_max_seed);
}

int main(int argc, char **argv)
{
    struct options opt = { .seed = 1, .jobs = 1 };
    _Atomic uint64_t at;
    struct sum sum = { 0 };
    uint64_t begin = clock_ns();
    int status;

    if (options(&opt, argc, argv) < 0) {
        fprintf(stderr, "Try ha-sim --help.\n");
        return EXIT_USAGE;
    }
    if (opt.replay != NULL) {
        struct err e;

        if (replay_file(opt.replay, opt.verbose, stdout, NULL, &e) == 0)
            return EXIT_WELL;
        fprintf(stderr, "ha-sim: %s\n", e.text);
        return EXIT_USAGE;
    }
    if (opt.print) {
        struct sim_plan p;

        sim_plan_make(&p, opt.seed, opt.nodes);
        print_plan(&p);
        return EXIT_WELL;
    }
    if (opt.plan != NULL)
        status = run_file(&opt, &sum);
    else if (opt.jobs > 1)
        status = run_jobs(&opt, &sum);
    else
        status = run_seeds(&opt, 0, 1, &at, &sum);
    print_sum(&sum, clock_ns() - begin);
    if (status == EXIT_BROKEN)
        print_source();
    return status;
}
