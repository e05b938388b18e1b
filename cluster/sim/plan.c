/* SPDX-License-Identifier: ISC */
/*
 * plan: what a run is made of. A seed gives a swarm: each kind of fault is on or off for the whole
 * run, how often and how long is drawn too, so that some runs have one kind alone and others all at
 * once. Times like to lie at the edges of the timers that the proof is made of: T - 1, T, T + 1, 2
 * T after the fault before.
 *
 * As text, one item a line; "#" begins a comment:
 *
 *   ha-sim 1
 *   seed 42
 *   nodes 3
 *   token 1000
 *   horizon 40000
 *   memory 8192
 *   fence 1
 *   early 0
 *   odd 0
 *   watchdog 0
 *   upgrade 0
 *   noise beat-loss 20
 *   domain memory 512 node 1 fuse 1 protected 1 priority 2 group 0 hard 0
 *   at 12000 host-crash node 2 back 5000
 */
#include <stdlib.h>
#include <string.h>

#include "cluster/core.h"
#include "cluster/sim/rng.h"
#include "cluster/sim/sim.h"

enum arg_type { ARG_NONE, ARG_NODE, ARG_DOMAIN, ARG_MS, ARG_MASK, ARG_COUNT, ARG_PLANES };

struct arg {
    const char *name;
    enum arg_type type;
    unsigned max; /* of a count */
};

struct kind {
    const char *name;
    unsigned weight; /* among those that are on */
    struct arg arg[SIM_ARGS];
};

#define NODE                                                                                       \
    {                                                                                              \
        "node", ARG_NODE, 0                                                                        \
    }
#define MS(name)                                                                                   \
    {                                                                                              \
        name, ARG_MS, 0                                                                            \
    }
#define DOMAIN                                                                                     \
    {                                                                                              \
        "domain", ARG_DOMAIN, 0                                                                    \
    }
#define COUNT(name, max)                                                                           \
    {                                                                                              \
        name, ARG_COUNT, max                                                                       \
    }

/* "via": the node whose migctl asks. */
static const struct kind kinds[SIM_FAULT_KINDS] = {
    [SIM_HOST_CRASH] = { "host-crash", 6, { NODE, MS("back") } },
    [SIM_HOST_PAUSE] = { "host-pause", 3, { NODE, MS("ms") } },
    [SIM_DAEMON_KILL] = { "daemon-kill", 4, { NODE, MS("back") } },
    [SIM_DAEMON_STOP] = { "daemon-stop", 4, { NODE, MS("ms") } },
    [SIM_DAEMON_SLOW] = { "daemon-slow", 2, { NODE, MS("ms"), COUNT("delay", 60) } },
    [SIM_DAEMON_DIE_AFTER] = { "daemon-die-after", 5, { NODE, COUNT("actions", 20), MS("back") } },
    [SIM_CORO_KILL] = { "coro-kill", 3, { NODE, MS("back") } },
    [SIM_CORO_STOP] = { "coro-stop", 3, { NODE, MS("ms") } },
    [SIM_CUT] = { "cut", 5,
        { { "from", ARG_NODE, 0 }, { "to", ARG_NODE, 0 }, { "planes", ARG_PLANES, 0 }, MS("ms") } },
    [SIM_SPLIT] = { "split", 5,
        { { "nodes", ARG_MASK, 0 }, { "planes", ARG_PLANES, 0 }, MS("ms") } },
    [SIM_DISK_STALL] = { "disk-stall", 2, { NODE, MS("ms") } },
    [SIM_OP_FAILS] = { "op-fails", 3, { NODE, COUNT("op", 2), COUNT("times", 3) } },
    [SIM_OP_SLOW] = { "op-slow", 3, { NODE, COUNT("op", 2), MS("ms") } },
    [SIM_OP_REPLY_LOST] = { "op-reply-lost", 3, { NODE, COUNT("op", 2), COUNT("times", 3) } },
    [SIM_FENCE_MODE] = { "fence-mode", 2, { NODE, COUNT("mode", 3), MS("ms") } },
    /* who: even the source, odd the target; its daemon dies, its host, its copy; it is cut off, its
     * daemon is stopped */
    [SIM_MOVE_DIES] = { "move-dies", 6, { COUNT("step", 7), COUNT("who", 9), MS("back") } },
    [SIM_GUEST_CRASH] = { "guest-crash", 3, { DOMAIN } },
    [SIM_GUEST_SHUTDOWN] = { "guest-shutdown", 1, { DOMAIN } },
    [SIM_GUEST_PAUSE] = { "guest-pause", 2, { DOMAIN, MS("ms") } }, /* by an operator */
    [SIM_CMD_ADD] = { "cmd-add", 3, { DOMAIN, { "via", ARG_NODE, 0 } } },
    [SIM_CMD_REMOVE] = { "cmd-remove", 1, { DOMAIN, { "via", ARG_NODE, 0 } } },
    [SIM_CMD_SET] = { "cmd-set", 2,
        { DOMAIN, { "via", ARG_NODE, 0 }, COUNT("priority", 3), COUNT("policy", 7) } },
    [SIM_CMD_WANT] = { "cmd-want", 2, { DOMAIN, { "via", ARG_NODE, 0 }, COUNT("run", 1) } },
    [SIM_CMD_DRAIN] = { "cmd-drain", 4, { NODE, { "via", ARG_NODE, 0 } } },
    [SIM_CMD_UNDRAIN] = { "cmd-undrain", 3, { NODE, { "via", ARG_NODE, 0 } } },
    [SIM_CMD_CONFIRM_DEAD] = { "cmd-confirm-dead", 2, { NODE, { "via", ARG_NODE, 0 } } },
    [SIM_CMD_DISARM] = { "cmd-disarm", 1, { { "via", ARG_NODE, 0 } } },
    [SIM_CMD_ARM] = { "cmd-arm", 2, { { "via", ARG_NODE, 0 } } },
    /* by: 0 the hand-over begins it, 1 the cluster is asked, 2 the cluster is asked to cancel it */
    [SIM_CMD_MOVE] = { "cmd-move", 6, { DOMAIN, { "to", ARG_NODE, 0 }, COUNT("by", 2) } },
    /* while disarmed: an operator ends it and starts it there */
    [SIM_HAND_START] = { "hand-start", 0, { DOMAIN, NODE } },
};

static const char *const noises[SIM_NOISES] = {
    [SIM_BEAT_LOSS] = "beat-loss",
    [SIM_BEAT_TWICE] = "beat-twice",
    [SIM_BEAT_LATE] = "beat-late",
    [SIM_BEAT_LATE_MS] = "beat-late-ms",
    [SIM_ORDER_MS] = "order-ms",
    [SIM_DELIVER_MS] = "deliver-ms",
    [SIM_DISK_MS] = "disk-ms",
    [SIM_CLOCK_PPM] = "clock-ppm",
    [SIM_TIMER_MS] = "timer-ms",
    [SIM_START_MS] = "start-ms",
};

/* What a line may set besides; each a number of the plan with its limits. */
static const struct number {
    const char *name;
    size_t offset;
    unsigned min, max;
} numbers[] = {
    { "nodes", offsetof(struct sim_plan, nodes), SIM_NODES_MIN, SIM_NODES_MAX },
    { "token", offsetof(struct sim_plan, token), 100, 60000 },
    { "horizon", offsetof(struct sim_plan, horizon_ms), 0, 3600000 },
    { "memory", offsetof(struct sim_plan, memory_mib), 1, 1u << 20 },
    { "fence", offsetof(struct sim_plan, fence), 0, 1 },
    { "early", offsetof(struct sim_plan, early), 0, 1 },
    { "odd", offsetof(struct sim_plan, odd), 0, 60000 },
    { "watchdog", offsetof(struct sim_plan, watchdog), 0, 600000 },
    { "upgrade", offsetof(struct sim_plan, upgrade), 0, 3600000 },
};
#define NUMBERS (sizeof numbers / sizeof *numbers)

#define MS_MAX 3600000u
#define DOMAIN_FORMAT "domain memory %u node %u fuse %u protected %u priority %u group %u hard %u"

/* --- chance --- */

struct dice {
    uint64_t seed, n;
};

static uint64_t roll(struct dice *d)
{
    return rng_hash(d->seed, 0, d->n++);
}

static unsigned upto(struct dice *d, unsigned max)
{
    return (unsigned)rng_upto(roll(d), max);
}

static bool chance(struct dice *d, unsigned percent)
{
    return upto(d, 99) < percent;
}

static void make_noise(struct sim_plan *p, struct dice *d)
{
    static const unsigned most[SIM_NOISES] = {
        [SIM_BEAT_LOSS] = 200,
        [SIM_BEAT_TWICE] = 100,
        [SIM_BEAT_LATE] = 50,
        [SIM_BEAT_LATE_MS] = 5000,
        [SIM_ORDER_MS] = 30,
        [SIM_DELIVER_MS] = 100,
        [SIM_DISK_MS] = 60,
        [SIM_CLOCK_PPM] = 5000,
        [SIM_TIMER_MS] = 15,
        [SIM_START_MS] = 4000,
    };
    static const unsigned calm[SIM_NOISES] = {
        [SIM_ORDER_MS] = 1,
        [SIM_DELIVER_MS] = 2,
        [SIM_DISK_MS] = 8,
        [SIM_TIMER_MS] = 1,
        [SIM_START_MS] = 400,
    };

    for (unsigned i = 0; i < SIM_NOISES; i++)
        p->noise[i] = chance(d, 35) ? upto(d, most[i]) : calm[i];
}

static void make_domains(struct sim_plan *p, struct dice *d)
{
    bool fuses = chance(d, 75), groups = chance(d, 40);
    unsigned room[SIM_NODES_MAX], n = 1 + upto(d, chance(d, 20) ? SIM_DOMAINS_MAX - 1 : 6);

    p->memory_mib = 1024 * (2 + upto(d, 14));
    for (unsigned i = 0; i < p->nodes; i++)
        room[i] = p->memory_mib;
    while (p->domains < n) {
        struct sim_domain *m = &p->domain[p->domains];

        m->memory_mib = 128 * (1 + upto(d, 8));
        m->node = 1 + upto(d, p->nodes - 1);
        m->fuse = fuses || chance(d, 60);
        m->protected = chance(d, 85);
        m->priority = upto(d, 3);
        m->group = groups && chance(d, 50) ? 1 : 0;
        m->hard = chance(d, 50);
        if (room[m->node - 1] < m->memory_mib)
            return; /* full enough; the first one always fits */
        room[m->node - 1] -= m->memory_mib;
        p->domains++;
    }
}

/* A span of time at the edge of a timer, or anything. */
static unsigned edge(struct dice *d, const struct ha_times *t)
{
    const unsigned timers[] = { t->token, t->token * 11 / 5, t->beat, t->lease, t->fuse_check,
        t->proof, t->tilt, t->slack, t->proof - t->lease };
    unsigned span = timers[upto(d, sizeof timers / sizeof *timers - 1)];

    switch (upto(d, 6)) {
    case 0:
        return span > 0 ? span - 1 : 0;
    case 1:
        return span;
    case 2:
        return span + 1;
    case 3:
        return span * 2;
    case 4:
        return upto(d, 20);
    default:
        return upto(d, 10000);
    }
}

static unsigned make_arg(
    const struct arg *a, const struct sim_plan *p, struct dice *d, const struct ha_times *t)
{
    switch (a->type) {
    case ARG_NODE:
        return 1 + upto(d, p->nodes - 1);
    case ARG_DOMAIN:
        return 1 + upto(d, p->domains - 1);
    case ARG_MS:
        return chance(d, 10) ? p->horizon_ms : edge(d, t);
    case ARG_MASK:
        return chance(d, 50) ? 1u << upto(d, p->nodes - 1) : 1 + upto(d, (1u << p->nodes) - 3);
    case ARG_PLANES:
        return chance(d, 50) ? 7 : 1 + upto(d, 6);
    case ARG_COUNT:
        return upto(d, a->max);
    case ARG_NONE:
        break;
    }
    return 0;
}

/* One run in five is about moves, and what happens in their midst. */
static unsigned make_kinds(unsigned *on, struct dice *d)
{
    unsigned total = 0, percent = 15 + upto(d, 70);
    bool moves = chance(d, 20);

    for (unsigned k = 0; k < SIM_FAULT_KINDS; k++) {
        on[k] = chance(d, moves ? 10 : percent) ? kinds[k].weight : 0;
        if (moves && (k == SIM_CMD_MOVE || k == SIM_MOVE_DIES))
            on[k] = 20;
        total += on[k];
    }
    return total;
}

/* The hand-over's question is where what is old can come late: its asker is away until others have
 * decided. */
static void late_question(struct sim_fault *f, struct dice *d, const struct ha_times *t)
{
    f->arg[0] = 3;
    f->arg[1] = chance(d, 70) ? 6 : 8;
    f->arg[2] = t->proof + t->token * 3 + upto(d, 5000);
}

static void make_faults(struct sim_plan *p, struct dice *d, const struct ha_times *t)
{
    unsigned on[SIM_FAULT_KINDS], total = make_kinds(on, d), last = 0;
    unsigned n = 1 + upto(d, chance(d, 30) ? 70 : 20);

    for (p->faults = 0; total > 0 && p->faults < n; p->faults++) {
        struct sim_fault *f = &p->fault[p->faults];
        unsigned w = upto(d, total - 1), k = 0;

        while (w >= on[k])
            w -= on[k++];
        f->kind = (enum sim_fault_kind)k;
        f->at = chance(d, 45) ? last + edge(d, t) : upto(d, p->horizon_ms);
        f->at = f->at > p->horizon_ms ? upto(d, p->horizon_ms) : f->at;
        for (unsigned i = 0; i < SIM_ARGS; i++)
            f->arg[i] = make_arg(&kinds[k].arg[i], p, d, t);
        if (f->kind == SIM_MOVE_DIES && chance(d, 30))
            late_question(f, d, t);
        last = f->at;
    }
}

/* Disarmed, something is done by hand, armed again. */
static void by_hand(struct sim_plan *p, struct dice *d)
{
    const enum sim_fault_kind what[] = { SIM_CMD_DISARM, SIM_HAND_START, SIM_HAND_START,
        SIM_CMD_ARM };
    unsigned at = upto(d, p->horizon_ms * 3 / 4);

    for (unsigned i = 0; i < 4 && p->faults < SIM_FAULTS_MAX; i++) {
        struct sim_fault *f = &p->fault[p->faults++];

        f->at = at += 200 + upto(d, 2500);
        f->kind = what[i];
        f->arg[0] =
            what[i] == SIM_HAND_START ? 1 + upto(d, p->domains - 1) : 1 + upto(d, p->nodes - 1);
        f->arg[1] = what[i] == SIM_HAND_START ? 1 + upto(d, p->nodes - 1) : 0;
    }
}

void sim_plan_make(struct sim_plan *p, uint64_t seed, unsigned nodes)
{
    static const unsigned tokens[] = { 300, 500, 1000, 1000, 1000, 3000 };
    struct dice d = { .seed = rng_mix(seed) };
    struct ha_times t;

    memset(p, 0, sizeof *p);
    p->seed = seed;
    p->nodes = chance(&d, 60) ? 3 : SIM_NODES_MIN + upto(&d, SIM_NODES_MAX - SIM_NODES_MIN);
    if (nodes != 0)
        p->nodes = nodes;
    p->token = tokens[upto(&d, sizeof tokens / sizeof *tokens - 1)];
    p->horizon_ms = 8000 + upto(&d, 32000);
    p->fence = chance(&d, 40);
    p->early = chance(&d, 8);
    ha_times_derive(&t, p->token, 0);
    make_noise(p, &d);
    make_domains(p, &d);
    make_faults(p, &d, &t);
    if (chance(&d, 6))
        by_hand(p, &d);
    p->odd = chance(&d, 8) ? tokens[upto(&d, sizeof tokens / sizeof *tokens - 1)] : 0;
    p->watchdog = chance(&d, 20) ? 10000 : 0;
    p->upgrade = chance(&d, 8) ? 1 + upto(&d, p->horizon_ms) : 0;
}

/* --- text --- */

const char *sim_fault_name(enum sim_fault_kind kind)
{
    return kinds[kind].name;
}

void sim_fault_text(const struct sim_fault *f, char *text, size_t size)
{
    const struct kind *k = &kinds[f->kind];
    size_t n = (size_t)snprintf(text, size, "at %u %s", f->at, k->name);

    for (unsigned i = 0; i < SIM_ARGS && k->arg[i].type != ARG_NONE; i++)
        if (n < size)
            n += (size_t)snprintf(text + n, size - n, " %s %u", k->arg[i].name, f->arg[i]);
}

size_t sim_plan_write(const struct sim_plan *p, char *text, size_t size)
{
    char *at = text;
    FILE *f = fmemopen(text, size, "w");

    if (f == NULL)
        return size;
    fprintf(f, "ha-sim 1\nseed %llu\n", (unsigned long long)p->seed);
    for (unsigned i = 0; i < NUMBERS; i++)
        fprintf(f, "%s %u\n", numbers[i].name,
            *(const unsigned *)((const char *)p + numbers[i].offset));
    for (unsigned i = 0; i < SIM_NOISES; i++)
        fprintf(f, "noise %s %u\n", noises[i], p->noise[i]);
    for (unsigned i = 0; i < p->domains; i++) {
        const struct sim_domain *m = &p->domain[i];

        fprintf(f, DOMAIN_FORMAT "\n", m->memory_mib, m->node, m->fuse, m->protected, m->priority,
            m->group, m->hard);
    }
    for (unsigned i = 0; i < p->faults; i++) {
        char line[200];

        sim_fault_text(&p->fault[i], line, sizeof line);
        fprintf(f, "%s\n", line);
    }
    fclose(f);
    return strlen(at);
}

static int read_number(const char *word, unsigned min, unsigned max, unsigned *v, struct err *e)
{
    char *end;
    unsigned long n;

    if (word == NULL || *word < '0' || *word > '9')
        return err_set(e, ERR_INVALID, "a number is missing");
    n = strtoul(word, &end, 10);
    if (*end != '\0' || n < min || n > max)
        return err_set(e, ERR_INVALID, "%.40s is not a number of %u to %u", word, min, max);
    *v = (unsigned)n;
    return 0;
}

static int limits_of(const struct arg *a, const struct sim_plan *p, unsigned *min, unsigned *max)
{
    *min = a->type == ARG_NODE || a->type == ARG_DOMAIN || a->type == ARG_PLANES ? 1 : 0;
    *max = a->type == ARG_NODE     ? p->nodes
           : a->type == ARG_DOMAIN ? p->domains
           : a->type == ARG_MS     ? MS_MAX
           : a->type == ARG_MASK   ? (1u << p->nodes) - 1
           : a->type == ARG_PLANES ? 7
                                   : a->max;
    return a->type != ARG_NONE;
}

static int read_fault(struct sim_plan *p, char **save, struct err *e)
{
    struct sim_fault f = { .at = 0 };
    const char *name;
    unsigned k = 0, min, max;

    if (read_number(strtok_r(NULL, " ", save), 0, MS_MAX, &f.at, e) < 0)
        return -1;
    name = strtok_r(NULL, " ", save);
    while (k < SIM_FAULT_KINDS && (name == NULL || strcmp(name, kinds[k].name) != 0))
        k++;
    if (k == SIM_FAULT_KINDS)
        return err_set(e, ERR_INVALID, "no fault has the name %.40s", name != NULL ? name : "");
    if (p->faults == SIM_FAULTS_MAX)
        return err_set(e, ERR_INVALID, "more than %u faults", SIM_FAULTS_MAX);
    f.kind = (enum sim_fault_kind)k;
    for (unsigned i = 0; i < SIM_ARGS && limits_of(&kinds[k].arg[i], p, &min, &max); i++) {
        const char *word = strtok_r(NULL, " ", save);

        if (word == NULL || strcmp(word, kinds[k].arg[i].name) != 0)
            return err_set(e, ERR_INVALID, "%s wants %s there", name, kinds[k].arg[i].name);
        if (read_number(strtok_r(NULL, " ", save), min, max, &f.arg[i], e) < 0)
            return err_prefix(e, "%s of %s", word, name);
    }
    p->fault[p->faults++] = f;
    return 0;
}

static int read_domain(struct sim_plan *p, const char *line, struct err *e)
{
    struct sim_domain m = { .memory_mib = 0 };
    unsigned fuse, protected, hard;

    if (p->domains == SIM_DOMAINS_MAX)
        return err_set(e, ERR_INVALID, "more than %u domains", SIM_DOMAINS_MAX);
    if (sscanf(line, DOMAIN_FORMAT, &m.memory_mib, &m.node, &fuse, &protected, &m.priority,
            &m.group, &hard) != 7 ||
        m.node < 1 || m.node > p->nodes || m.memory_mib < 1 || m.priority > 9)
        return err_set(
            e, ERR_INVALID, "a domain is written as " DOMAIN_FORMAT, 512u, 1u, 1u, 1u, 2u, 0u, 0u);
    m.fuse = fuse != 0;
    m.protected = protected != 0;
    m.hard = hard != 0;
    p->domain[p->domains++] = m;
    return 0;
}

static int read_item(struct sim_plan *p, const char *word, char **save, struct err *e)
{
    unsigned i = 0;

    if (strcmp(word, "seed") == 0) {
        const char *s = strtok_r(NULL, " ", save);

        p->seed = s != NULL ? strtoull(s, NULL, 10) : 0;
        return s != NULL ? 0 : err_set(e, ERR_INVALID, "a seed is a number");
    }
    if (strcmp(word, "noise") == 0) {
        const char *name = strtok_r(NULL, " ", save);

        while (i < SIM_NOISES && (name == NULL || strcmp(name, noises[i]) != 0))
            i++;
        if (i == SIM_NOISES)
            return err_set(e, ERR_INVALID, "no noise has that name");
        return read_number(strtok_r(NULL, " ", save), 0, 100000, &p->noise[i], e);
    }
    while (i < NUMBERS && strcmp(word, numbers[i].name) != 0)
        i++;
    if (i == NUMBERS)
        return err_set(e, ERR_INVALID, "%.40s means nothing here", word);
    return read_number(strtok_r(NULL, " ", save), numbers[i].min, numbers[i].max,
        (unsigned *)((char *)p + numbers[i].offset), e);
}

static int read_line(struct sim_plan *p, char *line, struct err *e)
{
    char whole[256], *save = NULL;
    const char *word;

    line[strcspn(line, "#")] = '\0';
    snprintf(whole, sizeof whole, "%s", line);
    word = strtok_r(line, " ", &save);
    if (word == NULL || strcmp(word, "ha-sim") == 0)
        return 0;
    if (strcmp(word, "at") == 0)
        return read_fault(p, &save, e);
    if (strcmp(word, "domain") == 0)
        return read_domain(p, whole, e);
    return read_item(p, word, &save, e);
}

int sim_plan_read(struct sim_plan *p, const char *text, struct err *e)
{
    unsigned n = 1;

    memset(p, 0, sizeof *p);
    p->nodes = 3;
    p->token = 1000;
    p->horizon_ms = 20000;
    p->memory_mib = 8192;
    if (strncmp(text, "ha-sim 1\n", 9) != 0)
        return err_set(e, ERR_INVALID, "not a plan: the first line is not \"ha-sim 1\"");
    if (strlen(text) >= SIM_PLAN_TEXT_MAX)
        return err_set(e, ERR_INVALID, "a plan has at most %u bytes", SIM_PLAN_TEXT_MAX);
    while (*text != '\0') {
        size_t len = strcspn(text, "\n");
        char line[256];

        if (len >= sizeof line)
            return err_set(e, ERR_INVALID, "line %u is too long", n);
        memcpy(line, text, len);
        line[len] = '\0';
        if (read_line(p, line, e) < 0)
            return err_prefix(e, "line %u", n);
        text += len + (text[len] == '\n');
        n++;
    }
    return p->domains > 0 ? 0 : err_set(e, ERR_INVALID, "the plan has no domain");
}
