/* SPDX-License-Identifier: ISC */
/*
 * The simulator. N decision cores (cluster/core.h), each with what surrounds a real one:
 *
 *   plan.c    what a run is made of: from a seed, or from a file
 *   heap.c    virtual time: events by (time, seq)
 *   ring.c    corosync: rings, views, ordered messages, what partitions do to them
 *   node.c    hosts and daemons; the queue before a core, its actions, its beats
 *   host.c    disks and hypervisors: guests that execute or not, fuses; fence devices
 *   move.c    live migrations of two migrds
 *   ask.c     commands and their answers
 *   fault.c   what is done to all of these
 *   oracle.c  what must never be, looked at after each event
 *   shrink.c  makes a plan that fails smaller
 *
 * A run: hosts boot, guests run, operators protect some of them. Faults happen until the plan's
 * horizon. Then everything is healed, and within a bound that is computed from the timers each
 * protected guest has to run once, or to wait for a reason that is true, no command may be open,
 * and nothing that was acknowledged forgotten; and it stays so for a while.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/record.h"
#include "cluster/sim/ask.h"
#include "cluster/sim/fault.h"
#include "cluster/sim/host.h"
#include "cluster/sim/move.h"
#include "cluster/sim/node.h"
#include "cluster/sim/oracle.h"
#include "cluster/sim/ring.h"
#include "cluster/sim/world.h"

#define SETUP_MS 60000
#define STAYS_MS 3000
#define LOOK_MS 100 /* how often the end is looked for */
#define EVENTS_MAX 20000000u
#define BACKOFF_MS 600000u
#define START_MS 300000u
#define STOP_MS 60000u
#define BOOT_MS 30000u

#define KIND(name) MIGRD__HA_COMMAND_KIND__HA_##name

/* --- services of the world --- */

uint64_t draw(struct world *w, unsigned purpose, uint64_t key, uint64_t max)
{
    return rng_upto(rng_hash(w->plan->seed, purpose, rng_mix(key) ^ w->now), max);
}

bool chance_of(struct world *w, unsigned purpose, uint64_t key, unsigned per_thousand)
{
    return !w->healed && per_thousand > 0 && draw(w, purpose, key, 999) < per_thousand;
}

void at(struct world *w, uint64_t when, void (*fn)(struct world *, const struct event *),
    uint32_t a, uint32_t b, uint64_t x, uint64_t y, struct blob *blob)
{
    struct event e = { .at = when, .fn = fn, .a = a, .b = b, .x = x, .y = y, .blob = blob };

    if (!heap_push(&w->heap, &e)) {
        w->no_memory = true;
        blob_drop(blob);
    }
}

void say(struct world *w, const char *fmt, ...)
{
    va_list ap;

    if (w->log == NULL)
        return;
    fprintf(w->log, "%9" PRIu64 ".%03u  ", w->now / MS, (unsigned)(w->now % MS));
    va_start(ap, fmt);
    vfprintf(w->log, fmt, ap);
    va_end(ap);
    fputc('\n', w->log);
}

void broken(struct world *w, const char *oracle, const char *fmt, ...)
{
    va_list ap;

    if (w->failed)
        return;
    w->failed = true;
    w->out->oracle = oracle;
    w->out->at_ms = w->now / MS;
    va_start(ap, fmt);
    vsnprintf(w->out->text, sizeof w->out->text, fmt, ap);
    va_end(ap);
    say(w, "BROKEN %s: %s", oracle, w->out->text);
}

struct node *node_of(struct world *w, uint32_t id)
{
    return &w->node[id - 1];
}

uint64_t clock_ms(const struct world *w, const struct node *n)
{
    int64_t us = (int64_t)(w->now - n->boot_at);

    return n->clock_base_ms + (uint64_t)((us + us / 1000 * n->ppm / 1000) / 1000);
}

uint64_t when_ms(const struct world *w, const struct node *n, uint64_t ms)
{
    uint64_t now = clock_ms(w, n), left = ms > now ? ms - now : 0, us;

    if (left > 100000000) /* more than a day: never */
        return w->now + UINT64_C(100000000) * MS;
    us = left * MS;
    return w->now + us - (uint64_t)((int64_t)(us / 1000) * n->ppm / 1000) + (left > 0);
}

bool linked(const struct world *w, enum plane plane, uint32_t from, uint32_t to)
{
    unsigned p = plane == PLANE_RING ? 0 : plane == PLANE_BEAT ? 1 : 2;

    return w->cut[p][from - 1][to - 1] == 0;
}

/* --- a run --- */

static void run_until(struct world *w, uint64_t when)
{
    struct event e;

    while (!w->failed && !w->no_memory && w->heap.n > 0 && w->heap.event[0].at <= when) {
        heap_pop(&w->heap, &e);
        w->now = e.at;
        e.fn(w, &e);
        blob_drop(e.blob);
        if (++w->out->events > EVENTS_MAX)
            broken(w, "busy", "more than %u events", EVENTS_MAX);
    }
    if (!w->failed)
        w->now = when;
}

static void make_guests(struct world *w)
{
    for (uint32_t d = 0; d < w->plan->domains; d++) {
        struct copy *c;

        snprintf(w->domain[d].uuid, HA_UUID_LEN, "d0000000-0000-4000-8000-%012u", d + 1);
        c = copy_make(w, d, w->plan->domain[d].node, 1, COPY_RUNNING);
        c->fuse_ms = UINT64_MAX; /* nobody has asked for protection */
        c->fresh = false;
    }
}

static uint32_t able_node(struct world *w)
{
    for (uint32_t id = 1; id <= w->nodes; id++)
        if (node_of(w, id)->life != 0 && node_of(w, id)->stops == 0 && node_of(w, id)->pauses == 0)
            return id;
    return 0;
}

static bool add_open(const struct world *w, uint32_t domain)
{
    for (uint32_t i = 0; i < w->asks; i++)
        if (w->ask[i].state == ASK_OPEN && w->ask[i].kind == KIND(ADD) &&
            w->ask[i].domain == domain)
            return true;
    return false;
}

/* Asks until all that are to be protected are in the log. */
static bool protect(struct world *w)
{
    bool all = true;

    for (uint32_t d = 0; d < w->plan->domains; d++) {
        if (!w->plan->domain[d].protected || w->domain[d].in_log)
            continue;
        all = false;
        if (!add_open(w, d) && able_node(w) != 0)
            ask_add(w, d, able_node(w));
    }
    return all;
}

static void set_up(struct world *w)
{
    char why[500] = "";

    for (uint32_t id = 1; id <= w->nodes; id++)
        node_init(w, id);
    make_guests(w);
    for (uint32_t id = 1; id <= w->nodes && !w->no_memory; id++)
        host_boot(w, node_of(w, id));
    if (w->plan->early) {
        faults_schedule(w);
        run_until(w, w->now + 2000 * MS);
        protect(w);
        return;
    }
    for (unsigned ms = 0; ms < SETUP_MS && !w->failed && !w->no_memory; ms += 500) {
        run_until(w, w->now + 500 * MS);
        if (protect(w) && oracle_quiet(w, why, sizeof why)) {
            say(w, "--- the cluster is up");
            faults_schedule(w);
            return;
        }
    }
    broken(w, "set-up", "the cluster is not up after %u s: %s", SETUP_MS / 1000, why);
}

/* What an operator does when all is well again. */
static void tidy(struct world *w)
{
    const Migrd__HaState *s = oracle_newest(w);
    uint32_t via = able_node(w);

    if (s == NULL || via == 0)
        return;
    for (uint32_t i = 0; i < w->asks; i++)
        if (w->ask[i].state == ASK_OPEN && w->ask[i].by_operator)
            return;
    if (s->armed != MIGRD__HA_ARMED__ARMED)
        ask(w, via, &(struct ask){ .kind = KIND(ARM), .by_operator = true, .domain = NOBODY });
    for (size_t i = 0; i < s->n_node; i++) {
        struct ask q = { .by_operator = true, .domain = NOBODY, .node = s->node[i]->id };

        q.kind = s->node[i]->drain ? KIND(UNDRAIN) : KIND(RELEASE);
        if (s->node[i]->drain || s->node[i]->quarantined > s->time)
            ask(w, via, &q);
    }
    for (size_t i = 0; i < s->n_domain; i++)
        if (s->domain[i]->blocked)
            ask(w, via,
                &(struct ask){ .kind = KIND(RELEASE),
                    .by_operator = true,
                    .domain = domain_of(w, s->domain[i]->uuid) });
}

static uint64_t bound_ms(const struct world *w)
{
    const struct ha_times *t = &w->times;

    return BOOT_MS + BACKOFF_MS + START_MS + STOP_MS +
           10u * (t->token * 11 / 5 + t->proof + t->tilt + t->ready);
}

static void settle(struct world *w)
{
    uint64_t begin = w->now, quiet_at = 0;
    char why[700] = "";

    w->out->bound_ms = bound_ms(w);
    while (!w->failed && !w->no_memory) {
        run_until(w, w->now + LOOK_MS * MS);
        if ((w->now - begin) / MS % 2000 == 0)
            tidy(w);
        if (!oracle_quiet(w, why, sizeof why) || !moves_over(w, why, sizeof why))
            quiet_at = 0;
        else if (quiet_at == 0)
            quiet_at = w->now;
        else if (w->now - quiet_at >= STAYS_MS * MS)
            break;
        if ((w->now - begin) / MS > w->out->bound_ms)
            broken(w, "liveness", "%" PRIu64 " ms after all was healed: %s", w->out->bound_ms, why);
    }
    w->out->heal_ms = quiet_at > begin ? (quiet_at - begin) / MS : 0;
}

static void release(struct world *w)
{
    heap_free(&w->heap);
    ring_free(w);
    for (uint32_t id = 1; id <= w->nodes; id++)
        node_free(w, node_of(w, id));
    oracle_free(w);
    flight_close(&w->flight);
    free(w->ask);
    free(w);
}

int sim_run(
    const struct sim_plan *p, const struct sim_options *opt, struct sim_outcome *o, struct err *e)
{
    static const struct sim_options none;
    struct world *w = calloc(1, sizeof *w);
    bool no_memory;

    memset(o, 0, sizeof *o);
    if (w == NULL || !oracle_init(w)) {
        free(w);
        return err_set(e, ERR_MEMORY, "no memory for a simulated cluster");
    }
    w->plan = p;
    w->out = o;
    w->opt = opt != NULL ? opt : &none;
    w->log = w->opt->log;
    w->nodes = p->nodes;
    ha_times_derive(&w->times, p->token, 0);
    set_up(w);
    run_until(w, w->now + p->horizon_ms * MS);
    if (!w->failed && !w->no_memory)
        faults_heal(w);
    settle(w);
    if (w->failed)
        oracle_dump(w);
    no_memory = w->no_memory;
    release(w);
    return no_memory ? err_set(e, ERR_MEMORY, "no memory for a simulated cluster") : 0;
}
