/* SPDX-License-Identifier: ISC */
/*
 * sim: a cluster of decision cores in one thread and virtual time, with everything around them
 * that can break, and oracles after each event. A run is a function of its plan and of nothing
 * else; a plan is made from a seed, or read from a text file. The story is at the top of world.c.
 * Plans are plain values: copy them as you like; nothing in them needs freeing.
 */
#ifndef CLUSTER_SIM_SIM_H
#define CLUSTER_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

#define SIM_NODES_MIN 2
#define SIM_NODES_MAX 7
#define SIM_DOMAINS_MAX 16
#define SIM_FAULTS_MAX 96
#define SIM_ARGS 4
#define SIM_PLAN_TEXT_MAX (64u << 10)

/* What happens once, at its time. The table in plan.c has name, arguments and meaning of each. */
enum sim_fault_kind {
    SIM_HOST_CRASH,
    SIM_HOST_PAUSE,
    SIM_DAEMON_KILL,
    SIM_DAEMON_STOP,
    SIM_DAEMON_SLOW,
    SIM_DAEMON_DIE_AFTER,
    SIM_CORO_KILL,
    SIM_CORO_STOP,
    SIM_CUT,
    SIM_SPLIT,
    SIM_DISK_STALL,
    SIM_OP_FAILS,
    SIM_OP_SLOW,
    SIM_OP_REPLY_LOST,
    SIM_FENCE_MODE,
    SIM_MOVE_DIES,
    SIM_GUEST_CRASH,
    SIM_GUEST_SHUTDOWN,
    SIM_GUEST_PAUSE,
    SIM_CMD_ADD,
    SIM_CMD_REMOVE,
    SIM_CMD_SET,
    SIM_CMD_WANT,
    SIM_CMD_DRAIN,
    SIM_CMD_UNDRAIN,
    SIM_CMD_CONFIRM_DEAD,
    SIM_CMD_DISARM,
    SIM_CMD_ARM,
    SIM_CMD_MOVE,
    SIM_HAND_START,
    SIM_FAULT_KINDS
};

struct sim_fault {
    unsigned at; /* ms */
    enum sim_fault_kind kind;
    unsigned arg[SIM_ARGS];
};

/* What goes on all the time; per thousand where it is a chance. */
enum sim_noise {
    SIM_BEAT_LOSS,
    SIM_BEAT_TWICE,
    SIM_BEAT_LATE,
    SIM_BEAT_LATE_MS,
    SIM_ORDER_MS,   /* longest time from sending to the order */
    SIM_DELIVER_MS, /* longest time from the order to a member */
    SIM_DISK_MS,    /* longest time of a record to the disk */
    SIM_CLOCK_PPM,  /* a node's clock is wrong by at most that, in parts of a million */
    SIM_TIMER_MS,   /* longest lateness of a timer */
    SIM_START_MS,   /* longest start of a domain */
    SIM_NOISES
};

struct sim_domain {
    unsigned memory_mib;
    unsigned node;  /* where it runs at the beginning, from 1 */
    bool fuse;      /* its process obeys one */
    bool protected; /* added at the beginning */
    unsigned priority;
    unsigned group; /* 0 none; of anti-affinity */
    bool hard;      /* that group is a must */
};

struct sim_plan {
    uint64_t seed;
    unsigned nodes, domains, token, horizon_ms;
    unsigned memory_mib; /* of a node */
    unsigned fence;      /* 1: there are fence devices */
    unsigned early;      /* 1: faults begin with the boot of the hosts */
    unsigned odd;        /* token that the last node's configuration has; 0: as all */
    unsigned watchdog;   /* of each host, ms; 0: none */
    unsigned upgrade;    /* daemons that start later, ms, speak a newer version; 0: none */
    unsigned noise[SIM_NOISES];
    struct sim_domain domain[SIM_DOMAINS_MAX];
    struct sim_fault fault[SIM_FAULTS_MAX];
    unsigned faults;
};

/* A plan from a seed; nodes 0: drawn. */
void sim_plan_make(struct sim_plan *p, uint64_t seed, unsigned nodes);
/* Text of at most SIM_PLAN_TEXT_MAX; 0 or -1. */
int sim_plan_read(struct sim_plan *p, const char *text, struct err *e);
/* Returns the length, as snprintf. */
size_t sim_plan_write(const struct sim_plan *p, char *text, size_t size);
const char *sim_fault_name(enum sim_fault_kind kind);
/* Makes the fault line of a plan, without its end of line. */
void sim_fault_text(const struct sim_fault *f, char *text, size_t size);

/* How a run ended. `oracle` NULL: well. */
struct sim_outcome {
    const char *oracle; /* name of the broken one */
    char text[900];     /* what broke */
    uint64_t at_ms;
    uint64_t steps, events; /* of cores, of the world */
    unsigned failovers, moves, starts, entries;
    uint64_t decided; /* digest of all that the recorded life of a core decided */
    uint64_t heal_ms,
        bound_ms; /* from the end of the faults to the last domain, and what it may take */
};

struct sim_options {
    FILE *log;          /* the time line; NULL: none */
    uint32_t node;      /* whose core is recorded; 0: none */
    const char *record; /* the file, of its newest life */
};

/* `opt` NULL: nothing of it. -1: out of memory. */
int sim_run(
    const struct sim_plan *p, const struct sim_options *opt, struct sim_outcome *o, struct err *e);

/* Makes *p smaller as long as the same oracle breaks; returns the number of runs. */
unsigned sim_shrink(struct sim_plan *p, const char *oracle, unsigned runs_max);

#endif
