/* SPDX-License-Identifier: ISC */
/*
 * move: a live migration as docs/handover.md has it, with the log in the place of the journal's
 * guess:
 *
 *   source   BEGIN -> CONNECT -> COPY -> HELD -> ASKED -> GO -> RUNS -> DONE
 *            (log knows) (pages) (pages) (paused) (HANDOVER) (until the target answers)
 *   target              RECEIVING      READY               RUNS, or DISCARDED -> NEVER
 *
 * What fails before ASKED goes on at the source, which tells the log MIGRATE_END. A source that
 * does not know whether its HANDOVER was decided asks the log OWNER and stays paused until it
 * hears. After it, only the target's "never ran", which it puts into the log first, and TAKE_BACK
 * let the source run again. A target that has everything and has lost its source asks the log, too.
 * Where the domain is protected no longer, the target is asked in the log's place.
 *
 * Each side looks every few ms whether it can go on. Steps are in journals, and outlive daemons.
 */
#include <stdio.h>

#include "cluster/sim/ask.h"
#include "cluster/sim/fault.h"
#include "cluster/sim/host.h"
#include "cluster/sim/move.h"
#include "cluster/sim/node.h"

#define TICK_MS 15
#define ASK_AGAIN_MS 1000
#define PATIENCE_MS 1500 /* of a target whose source is silent */

static bool able(struct world *w, uint32_t node)
{
    const struct node *n = node_of(w, node);

    return n->up && n->life != 0 && n->pauses == 0 && n->stops == 0;
}

static bool reach(struct world *w, const struct move *m)
{
    return able(w, m->from) && able(w, m->to) && linked(w, PLANE_MOVE, m->from, m->to) &&
           linked(w, PLANE_MOVE, m->to, m->from);
}

static struct copy *copy_of(struct world *w, const struct move *m, uint32_t node, uint64_t epoch)
{
    struct copy *c = copy_at(w, m->domain, node);

    return c != NULL && c->epoch == epoch ? c : NULL;
}

/* The incoming copy, not that of a later move of the same epoch. */
static struct copy *incoming(struct world *w, const struct move *m)
{
    struct copy *c = copy_of(w, m, m->to, m->epoch + 1);

    return c != NULL && c->gen == m->target_gen ? c : NULL;
}

static uint64_t soon(struct world *w, const struct move *m, uint64_t from_ms, uint64_t to_ms)
{
    return w->now + (from_ms + draw(w, P_MOVE, m->domain, to_ms - from_ms)) * MS;
}

/* A fault that waits for this step. */
static void strike(struct world *w, struct move *m, unsigned i)
{
    struct node *side = node_of(w, w->die[i].who % 2 == 0 ? m->from : m->to);
    struct copy *c = copy_at(w, m->domain, side->id);

    w->die[i].on = false;
    if (side->sick_at < w->now) /* another fault may last longer */
        side->sick_at = w->now;
    switch (w->die[i].who / 2) {
    case 0:
        daemon_start_in(w, side, w->die[i].back);
        daemon_kill(w, side);
        break;
    case 1:
        host_boot_in(w, side, w->die[i].back);
        host_crash(w, side);
        break;
    case 3:
        isolate(w, side->id, w->die[i].back);
        break;
    case 4:
        stop_daemon(w, side, w->die[i].back);
        break;
    default:
        if (c != NULL && c->state == COPY_RUNNING)
            guest_ends(w, c, false);
        else if (c != NULL)
            copy_end(w, c, HA_SEEN_CRASHED, false);
    }
}

static const char *const step_names[MOVE_STEPS] = { "begins", "connects", "sends pages", "is held",
    "asks for the hand-over", "is handed over", "runs there", "is taken back", "ends", "is over" };

static void go_to(struct world *w, struct move *m, enum move_step step)
{
    m->step = step;
    say(w, "move of domain %u from node %u to node %u: %s", m->domain + 1, m->from, m->to,
        step_names[step]);
    for (unsigned i = 0; i < sizeof w->die / sizeof *w->die; i++)
        if (w->die[i].on && w->die[i].step == (unsigned)step)
            strike(w, m, i);
}

static uint32_t question(struct world *w, struct move *m, uint32_t via, int kind, uint64_t epoch)
{
    struct ask q = { .kind = kind,
        .domain = m->domain,
        .node = kind == MIGRD__HA_COMMAND_KIND__HA_TAKE_BACK ? m->from : m->to,
        .epoch = epoch };

    return ask(w, via, &q) + 1;
}

static enum ask_state answer(const struct world *w, uint32_t number)
{
    return number == 0 ? ASK_LOST : w->ask[number - 1].state;
}

/* --- source --- */

/* Before the hand-over was asked for: our guest goes on. */
static void fail(struct world *w, struct move *m)
{
    struct copy *c = copy_of(w, m, m->from, m->epoch);

    if (c != NULL && c->state == COPY_HELD && !c->paused)
        copy_run(w, c);
    m->source_ask = question(w, m, m->from, MIGRD__HA_COMMAND_KIND__HA_MIGRATE_END, m->epoch);
    go_to(w, m, MOVE_ENDING);
}

static void end(struct world *w, struct move *m, bool ok)
{
    struct node *n = node_of(w, m->from);

    if (m->by_core && n->life == m->source_life && !(n->op_lost[OP_MOVE] > 0 && !w->healed))
        node_result(w, n, m->action, ok);
    else
        op_takes(&n->op_lost[OP_MOVE]);
    w->out->moves += ok;
    go_to(w, m, MOVE_DONE);
}

static void restarted(struct world *w, struct move *m)
{
    m->source_life = node_of(w, m->from)->life;
    m->by_core = false;
    m->source_ask = 0;
    if (m->step < MOVE_ASKED || m->step == MOVE_ENDING)
        fail(w, m);
    else if (m->step == MOVE_RUNS)
        go_to(w, m, MOVE_GO);
}

static void source_begin(struct world *w, struct move *m)
{
    switch (answer(w, m->source_ask)) {
    case ASK_OPEN:
        return;
    case ASK_YES:
        go_to(w, m, MOVE_CONNECT);
        m->until = soon(w, m, 20, 300);
        return;
    case ASK_NO:
    case ASK_LOST:
        end(w, m, false);
    }
}

static void source_connect(struct world *w, struct move *m)
{
    struct copy *c = copy_of(w, m, m->from, m->epoch), *in = NULL;

    if (c != NULL && c->state == COPY_RUNNING && !m->cancelled && reach(w, m) &&
        copy_at(w, m->domain, m->to) == NULL)
        in = copy_make(w, m->domain, m->to, m->epoch + 1, COPY_INCOMING);
    if (in == NULL) {
        fail(w, m);
        return;
    }
    m->end = END_RECEIVING;
    m->target_life = node_of(w, m->to)->life;
    m->target_gen = in->gen;
    copy_tell(w, in);
    go_to(w, m, MOVE_COPY);
    m->until = soon(w, m, 50, 3000);
}

static void source_copy(struct world *w, struct move *m)
{
    struct node *n = node_of(w, m->from);
    struct copy *c = copy_of(w, m, m->from, m->epoch);

    if (m->cancelled || m->end != END_RECEIVING || c == NULL || c->state != COPY_RUNNING ||
        (!w->healed && op_takes(&n->op_fails[OP_MOVE]))) {
        fail(w, m);
        return;
    }
    copy_hold(w, c);
    go_to(w, m, MOVE_HELD);
    m->until = soon(w, m, 2, 60);
}

static void source_held(struct world *w, struct move *m)
{
    if (m->end != END_READY || incoming(w, m) == NULL || copy_of(w, m, m->from, m->epoch) == NULL) {
        fail(w, m);
        return;
    }
    incoming(w, m)->knows = copy_of(w, m, m->from, m->epoch)->knows;
    m->source_ask = question(w, m, m->from, MIGRD__HA_COMMAND_KIND__HA_HANDOVER, m->epoch);
    go_to(w, m, MOVE_ASKED);
}

/* The log's word about who owns it. */
static void source_decided(struct world *w, struct move *m, uint32_t owner, uint64_t epoch)
{
    struct copy *c = copy_of(w, m, m->from, m->epoch);

    if (owner == m->to && epoch == m->epoch + 1) {
        go_to(w, m, MOVE_GO);
        m->until = soon(w, m, 0, 20);
    } else if (owner == m->from && epoch == m->epoch && c != NULL) {
        fail(w, m);
    } else {
        end(w, m, false); /* it is somebody else's; our core has the rest destroyed */
    }
}

/* The log knows it no longer: the two decide among themselves. Nobody said GO. */
static void unprotected(struct world *w, struct move *m)
{
    struct copy *in = incoming(w, m);

    if (in != NULL)
        copy_end(w, in, HA_SEEN_GONE, false);
    m->end = END_NEVER;
    fail(w, m);
}

static void source_asked(struct world *w, struct move *m)
{
    const struct ask *q = m->source_ask > 0 ? &w->ask[m->source_ask - 1] : NULL;
    bool handover = q != NULL && q->kind == MIGRD__HA_COMMAND_KIND__HA_HANDOVER;

    switch (answer(w, m->source_ask)) {
    case ASK_OPEN:
        return;
    case ASK_YES:
        if (handover)
            source_decided(w, m, m->to, m->epoch + 1);
        else
            source_decided(w, m, q->owner, q->owner_epoch);
        return;
    case ASK_NO:
        if (handover) {
            source_decided(w, m, q->owner, q->owner_epoch);
            return;
        }
        if (copy_of(w, m, m->from, m->epoch) == NULL) { /* nothing is left to be decided */
            end(w, m, false);
            return;
        }
        if (q->owner_epoch == 0 && !w->domain[m->domain].in_log && reach(w, m) &&
            m->end != END_RUNS) {
            unprotected(w, m);
            return;
        }
        m->until = w->now + ASK_AGAIN_MS * MS;
        break;
    case ASK_LOST:
        break;
    }
    m->source_ask = question(w, m, m->from, MIGRD__HA_COMMAND_KIND__HA_OWNER, m->epoch);
}

static void source_go(struct world *w, struct move *m)
{
    struct copy *c = copy_of(w, m, m->from, m->epoch);

    m->until = soon(w, m, 200, 1500);
    if (c == NULL) { /* the log had it destroyed, or its host died */
        end(w, m, m->end == END_RUNS);
        return;
    }
    if (!reach(w, m))
        return;
    m->go = true;
    m->until = soon(w, m, 5, 400);
    if (m->end == END_RUNS) {
        go_to(w, m, MOVE_RUNS);
        c = copy_of(w, m, m->from, m->epoch);
        if (c != NULL && m->step == MOVE_RUNS && able(w, m->from)) {
            copy_end(w, c, HA_SEEN_GONE, false);
            end(w, m, true);
        }
    } else if (m->end == END_NEVER) {
        m->source_ask = question(w, m, m->from, MIGRD__HA_COMMAND_KIND__HA_TAKE_BACK, m->epoch + 1);
        go_to(w, m, MOVE_BACK);
    }
}

static void source_back(struct world *w, struct move *m)
{
    struct copy *c = copy_of(w, m, m->from, m->epoch);

    if (c == NULL) {
        end(w, m, false);
        return;
    }
    switch (answer(w, m->source_ask)) {
    case ASK_OPEN:
        return;
    case ASK_YES:
        copy_renew(w, c, m->epoch + 2);
        end(w, m, false);
        return;
    case ASK_NO: /* somebody else has it, or it can be asked again */
        if (w->ask[m->source_ask - 1].owner == m->from &&
            w->ask[m->source_ask - 1].owner_epoch == m->epoch + 2) {
            copy_renew(w, c, m->epoch + 2);
            end(w, m, false);
            return;
        }
        __attribute__((fallthrough));
    case ASK_LOST:
        m->until = w->now + ASK_AGAIN_MS * MS;
        m->source_ask = question(w, m, m->from, MIGRD__HA_COMMAND_KIND__HA_TAKE_BACK, m->epoch + 1);
    }
}

/* The log is told until it knows, or knows better. */
static void source_ending(struct world *w, struct move *m)
{
    const struct ask *q = m->source_ask > 0 ? &w->ask[m->source_ask - 1] : NULL;

    switch (answer(w, m->source_ask)) {
    case ASK_OPEN:
        return;
    case ASK_YES:
        end(w, m, false);
        return;
    case ASK_NO:
        if (!q->moving || q->owner_epoch != m->epoch) {
            end(w, m, false);
            return;
        }
        m->until = w->now + ASK_AGAIN_MS * MS;
        break;
    case ASK_LOST:
        break;
    }
    m->source_ask = question(w, m, m->from, MIGRD__HA_COMMAND_KIND__HA_MIGRATE_END, m->epoch);
}

static void source_tick(struct world *w, struct move *m)
{
    const struct copy *renewed = copy_of(w, m, m->from, m->epoch + 2);

    if (!able(w, m->from) || w->now < m->until)
        return;
    if (node_of(w, m->from)->life != m->source_life)
        restarted(w, m);
    switch (m->step) {
    case MOVE_BEGIN:
        source_begin(w, m);
        break;
    case MOVE_CONNECT:
        source_connect(w, m);
        break;
    case MOVE_COPY:
        source_copy(w, m);
        break;
    case MOVE_HELD:
        source_held(w, m);
        break;
    case MOVE_ASKED:
        source_asked(w, m);
        break;
    case MOVE_GO:
    case MOVE_RUNS:
        source_go(w, m);
        break;
    case MOVE_BACK:
        if (renewed != NULL)
            end(w, m, false);
        else
            source_back(w, m);
        break;
    case MOVE_ENDING:
        source_ending(w, m);
        break;
    case MOVE_DONE:
    case MOVE_STEPS:
        break;
    }
}

/* --- target --- */

static void discard(struct world *w, struct move *m)
{
    struct copy *c = incoming(w, m);

    m->end = END_DISCARDED;
    m->target_ask = 0;
    if (c != NULL)
        copy_end(w, c, HA_SEEN_GONE, false);
}

static void run(struct world *w, struct move *m, struct copy *c)
{
    if (!w->healed && op_takes(&node_of(w, m->to)->op_fails[OP_MOVE])) {
        say(w, "node %u refuses to run domain %u", m->to, m->domain + 1);
        discard(w, m);
        return;
    }
    m->end = END_RUNS;
    copy_run(w, c);
}

/* It has everything, and its source is silent. */
static void target_alone(struct world *w, struct move *m, struct copy *c)
{
    const struct ask *q = m->target_ask > 0 ? &w->ask[m->target_ask - 1] : NULL;

    m->target_until = w->now + PATIENCE_MS * MS;
    if (q != NULL && q->state == ASK_OPEN)
        return;
    if (q != NULL && q->state == ASK_YES && q->owner == m->to && q->owner_epoch == m->epoch + 1) {
        run(w, m, c);
        return;
    }
    if (q != NULL && q->state == ASK_YES && q->owner_epoch > m->epoch) {
        discard(w, m);
        return;
    }
    m->target_ask = question(w, m, m->to, MIGRD__HA_COMMAND_KIND__HA_OWNER, m->epoch + 1);
}

static void target_ready(struct world *w, struct move *m, struct copy *c)
{
    if (m->go)
        run(w, m, c);
    else if (reach(w, m) && m->step >= MOVE_ENDING)
        discard(w, m);
    else if (!reach(w, m) && w->now >= m->target_until)
        target_alone(w, m, c);
}

static void target_discarded(struct world *w, struct move *m)
{
    if (!m->go)
        return;
    m->go = false; /* asked again with the next question of the source */
    if (answer(w, m->target_ask) == ASK_OPEN)
        return;
    if (answer(w, m->target_ask) == ASK_YES)
        m->end = END_NEVER;
    else
        m->target_ask = question(w, m, m->to, MIGRD__HA_COMMAND_KIND__HA_NEVER_RAN, m->epoch + 1);
}

static void target_tick(struct world *w, struct move *m)
{
    struct copy *c = incoming(w, m);
    bool again = node_of(w, m->to)->life != m->target_life;

    if (!able(w, m->to) || m->end == END_NONE)
        return;
    if (again) {
        m->target_life = node_of(w, m->to)->life;
        m->target_ask = 0;
    }
    if ((m->end == END_RECEIVING && (again || c == NULL || !reach(w, m) || m->step > MOVE_HELD)) ||
        (m->end == END_READY && c == NULL))
        discard(w, m);
    else if (m->end == END_RECEIVING && m->step == MOVE_HELD) {
        m->end = END_READY;
        m->target_until = w->now + PATIENCE_MS * MS;
    } else if (m->end == END_READY)
        target_ready(w, m, c);
    else if (m->end == END_DISCARDED)
        target_discarded(w, m);
}

/* --- both --- */

static bool over(struct world *w, const struct move *m)
{
    const struct copy *in = incoming(w, m);

    return m->step == MOVE_DONE && (in == NULL || m->end == END_RUNS);
}

static void tick(struct world *w, const struct event *e)
{
    struct move *m = &w->move[e->a];

    if (!m->used)
        return;
    source_tick(w, m);
    target_tick(w, m);
    if (over(w, m))
        m->used = false;
    else
        at(w, w->now + TICK_MS * MS + draw(w, P_MOVE, 100 + e->a, 10 * MS), tick, e->a, 0, 0, 0,
            NULL);
}

static struct move *make(struct world *w, uint32_t domain, uint32_t from, uint32_t to)
{
    for (uint32_t i = 0; i < MOVES_MAX; i++) {
        struct move *m = &w->move[i];

        if (m->used)
            continue;
        *m = (struct move){ .used = true, .domain = domain, .from = from, .to = to };
        m->epoch = copy_at(w, domain, from)->epoch;
        m->source_life = node_of(w, from)->life;
        at(w, w->now + 2 * MS, tick, i, 0, 0, 0, NULL);
        return m;
    }
    return NULL;
}

static struct move *move_of(struct world *w, uint32_t domain, uint32_t from)
{
    for (uint32_t i = 0; i < MOVES_MAX; i++)
        if (w->move[i].used && w->move[i].domain == domain && w->move[i].from == from)
            return &w->move[i];
    return NULL;
}

void move_begin(struct world *w, struct node *n, const struct ha_action *a)
{
    uint32_t domain = domain_of(w, a->uuid);
    struct copy *c = copy_at(w, domain, n->id);
    struct move *m = NULL;

    if (c != NULL && c->epoch == a->epoch && c->state == COPY_RUNNING && a->node != n->id &&
        a->node >= 1 && a->node <= w->nodes && move_of(w, domain, n->id) == NULL)
        m = make(w, domain, n->id, a->node);
    if (m == NULL) {
        node_result(w, n, a->id, false);
        return;
    }
    m->by_core = true;
    m->action = a->id;
    go_to(w, m, MOVE_CONNECT);
    m->until = soon(w, m, 20, 300);
    if (m->until < n->op_slow_until[OP_MOVE])
        m->until = n->op_slow_until[OP_MOVE];
}

void move_cancel(struct world *w, struct node *n, const struct ha_action *a)
{
    struct move *m = move_of(w, domain_of(w, a->uuid), n->id);

    if (m != NULL)
        m->cancelled = true;
    node_result(w, n, a->id, m != NULL);
}

void move_by_hand(struct world *w, uint32_t domain, uint32_t to)
{
    for (uint32_t id = 1; id <= w->nodes; id++) {
        const struct copy *c = copy_at(w, domain, id);
        struct move *m;

        if (c == NULL || c->state != COPY_RUNNING || id == to || !able(w, id) ||
            move_of(w, domain, id) != NULL)
            continue;
        m = make(w, domain, id, to);
        if (m == NULL)
            return;
        m->source_ask = question(w, m, id, MIGRD__HA_COMMAND_KIND__HA_MIGRATE_BEGIN, m->epoch);
        go_to(w, m, MOVE_BEGIN);
        return;
    }
}

bool moves_over(const struct world *w, char *why, size_t size)
{
    for (uint32_t i = 0; i < MOVES_MAX; i++)
        if (w->move[i].used) {
            const struct move *m = &w->move[i];

            snprintf(why, size, "a move of domain %u from node %u to node %u %s; its target %d",
                m->domain + 1, m->from, m->to, step_names[m->step], m->end);
            return false;
        }
    return true;
}
