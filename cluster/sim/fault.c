/* SPDX-License-Identifier: ISC */
/*
 * fault: each kind of fault has a beginning and, if it lasts, an end, which comes to nothing when
 * everything has been healed before. An operator's word that a node is dead is given when it is
 * true, and sometimes when it is not: then what runs there is marked, and may run twice.
 */
#include "cluster/sim/ask.h"
#include "cluster/sim/fault.h"
#include "cluster/sim/host.h"
#include "cluster/sim/move.h"
#include "cluster/sim/node.h"
#include "cluster/sim/oracle.h"
#include "cluster/sim/ring.h"

#define LIES_PER_THOUSAND 100
#define TOKENS_TO_JOIN 4 /* until its ring is whole again */
#define BOOT_MS 3000
#define KIND(name) MIGRD__HA_COMMAND_KIND__HA_##name

static void sick(struct world *w, uint32_t node, uint64_t ms)
{
    uint64_t until = w->now + ms * MS;

    if (node_of(w, node)->sick_at < until)
        node_of(w, node)->sick_at = until;
}

static void cut_one(struct world *w, unsigned planes, uint32_t from, uint32_t to, int by)
{
    for (unsigned p = 0; p < 3; p++)
        if (planes & 1u << p)
            w->cut[p][from - 1][to - 1] += (unsigned)by;
    if (planes & (PLANE_BEAT | PLANE_RING))
        oracle_link(w, from, to);
}

static void cut(struct world *w, const struct sim_fault *f, int by)
{
    if (f->kind == SIM_CUT && f->arg[0] != f->arg[1])
        cut_one(w, f->arg[2], f->arg[0], f->arg[1], by);
    for (uint32_t a = 1; f->kind == SIM_SPLIT && a <= w->nodes; a++)
        for (uint32_t b = 1; b <= w->nodes; b++)
            if ((f->arg[0] >> (a - 1) & 1) != (f->arg[0] >> (b - 1) & 1))
                cut_one(w, f->arg[1], a, b, by);
    ring_look(w);
}

static bool moving(const struct world *w, uint32_t domain)
{
    for (uint32_t i = 0; i < MOVES_MAX; i++)
        if (w->move[i].used && w->move[i].domain == domain)
            return true;
    return false;
}

/* An operator pauses what runs, or resumes it. */
static void pause_guest(struct world *w, uint32_t domain, bool on)
{
    for (unsigned i = 0; !moving(w, domain) && i < COPIES_MAX; i++) {
        struct copy *c = &w->domain[domain].copy[i];

        if (c->state != COPY_GONE && node_of(w, c->node)->up && node_of(w, c->node)->pauses == 0)
            copy_pause(w, c, on);
    }
}

/* --- ends --- */

/* a: number of the fault, x: life of the daemon that was stopped. */
static void undo(struct world *w, const struct event *e)
{
    const struct sim_fault *f = &w->plan->fault[e->a];
    struct node *n = node_of(w, f->arg[0] <= w->nodes ? f->arg[0] : 1);

    if (w->healed)
        return;
    switch (f->kind) {
    case SIM_HOST_PAUSE:
        if (n->boots == e->x)
            host_pause(w, n, false);
        break;
    case SIM_CORO_STOP:
        if (n->coro.starts == e->x)
            ring_pause(w, n->id, false);
        break;
    case SIM_CUT:
    case SIM_SPLIT:
        cut(w, f, -1);
        break;
    case SIM_GUEST_PAUSE:
        pause_guest(w, f->arg[0] - 1, false);
        break;
    default:
        break;
    }
}

static void undo_in(struct world *w, uint32_t number, uint64_t ms, uint64_t x)
{
    at(w, w->now + ms * MS, undo, number, 0, x, 0, NULL);
}

/* --- what lasts a while --- */

static void cut_off(struct world *w, uint32_t node, int by)
{
    for (uint32_t id = 1; id <= w->nodes; id++)
        if (id != node) {
            cut_one(w, PLANE_RING | PLANE_BEAT | PLANE_MOVE, id, node, by);
            cut_one(w, PLANE_RING | PLANE_BEAT | PLANE_MOVE, node, id, by);
        }
    ring_look(w);
}

static void connected(struct world *w, const struct event *e)
{
    if (!w->healed)
        cut_off(w, e->a, -1);
}

void isolate(struct world *w, uint32_t node, uint64_t ms)
{
    say(w, "node %u is cut off", node);
    cut_off(w, node, 1);
    at(w, w->now + ms * MS, connected, node, 0, 0, 0, NULL);
}

static void goes_on(struct world *w, const struct event *e)
{
    if (!w->healed && node_of(w, e->a)->life == e->x)
        daemon_stop(w, node_of(w, e->a), false);
}

void stop_daemon(struct world *w, struct node *n, uint64_t ms)
{
    if (n->life == 0)
        return;
    daemon_stop(w, n, true);
    at(w, w->now + ms * MS, goes_on, n->id, 0, n->life, 0, NULL);
}

/* --- what is done to hosts and daemons --- */

static void crash_and_stop(struct world *w, uint32_t number)
{
    const struct sim_fault *f = &w->plan->fault[number];
    struct node *n = node_of(w, f->arg[0]);

    sick(w, n->id, f->arg[1] + BOOT_MS + TOKENS_TO_JOIN * w->times.token);
    switch (f->kind) {
    case SIM_HOST_CRASH:
        host_crash(w, n);
        host_boot_in(w, n, f->arg[1]);
        break;
    case SIM_HOST_PAUSE:
        if (n->up) {
            host_pause(w, n, true);
            undo_in(w, number, f->arg[1], n->boots);
        }
        break;
    case SIM_DAEMON_KILL:
        daemon_kill(w, n);
        daemon_start_in(w, n, f->arg[1]);
        break;
    case SIM_DAEMON_STOP:
        stop_daemon(w, n, f->arg[1]);
        break;
    case SIM_DAEMON_SLOW:
        n->slow_until = w->now + f->arg[1] * MS;
        n->slow_ms = f->arg[2];
        break;
    case SIM_DAEMON_DIE_AFTER:
        sick(w, n->id, f->arg[2] + BOOT_MS + TOKENS_TO_JOIN * w->times.token);
        n->die_after = n->life != 0 ? 1 + f->arg[1] : 0;
        n->die_back_ms = f->arg[2];
        break;
    case SIM_DISK_STALL:
        disk_stall(w, n, w->now + f->arg[1] * MS);
        break;
    default:
        break;
    }
}

static void to_corosync(struct world *w, uint32_t number)
{
    const struct sim_fault *f = &w->plan->fault[number];
    struct node *n = node_of(w, f->arg[0]);

    if (n->coro.state == CORO_DOWN)
        return;
    sick(w, n->id, f->arg[1] + TOKENS_TO_JOIN * w->times.token);
    if (f->kind == SIM_CORO_KILL) {
        ring_stop(w, n->id);
        node_view(w, n, 0);
        coro_start_in(w, n, f->arg[1]);
    } else {
        ring_pause(w, n->id, true);
        undo_in(w, number, f->arg[1], n->coro.starts);
    }
}

static void to_devices(struct world *w, const struct sim_fault *f)
{
    struct node *n = node_of(w, f->arg[0]);

    switch (f->kind) {
    case SIM_OP_FAILS:
        n->op_fails[f->arg[1]] += f->arg[2];
        break;
    case SIM_OP_SLOW:
        n->op_slow_until[f->arg[1]] = w->now + f->arg[2] * MS;
        break;
    case SIM_OP_REPLY_LOST:
        n->op_lost[f->arg[1]] += f->arg[2];
        break;
    case SIM_FENCE_MODE:
        n->fence_mode = f->arg[1];
        n->fence_until = w->now + f->arg[2] * MS;
        break;
    default:
        break;
    }
}

static void to_guest(struct world *w, const struct sim_fault *f)
{
    struct domain *d = &w->domain[f->arg[0] - 1];

    for (unsigned i = 0; i < COPIES_MAX; i++) {
        struct copy *c = &d->copy[i];

        if (!copy_runs(w, c))
            continue;
        d->may_stop = d->may_stop || f->kind == SIM_GUEST_SHUTDOWN;
        guest_ends(w, c, f->kind == SIM_GUEST_SHUTDOWN);
    }
}

static void arm_death(struct world *w, const struct sim_fault *f)
{
    for (unsigned i = 0; i < sizeof w->die / sizeof *w->die; i++)
        if (!w->die[i].on) {
            w->die[i].on = true;
            w->die[i].step = 1 + f->arg[0];
            w->die[i].who = f->arg[1];
            w->die[i].back = f->arg[2];
            return;
        }
}

/* --- operators --- */

void ask_add(struct world *w, uint32_t domain, uint32_t via)
{
    struct ask q = { .kind = KIND(ADD),
        .by_operator = true,
        .domain = domain,
        .value = w->plan->domain[domain].priority };

    q.epoch = w->domain[domain].top_epoch;
    for (unsigned i = 0; i < COPIES_MAX; i++)
        if (w->domain[domain].copy[i].state != COPY_GONE) {
            q.node = w->domain[domain].copy[i].node;
            q.epoch = w->domain[domain].copy[i].epoch;
        }
    ask(w, q.node != 0 ? q.node : via, &q);
}

/* A domain that is not protected runs where an operator has started it. */
static void add(struct world *w, uint32_t domain, uint32_t via)
{
    unsigned copies = 0;

    for (unsigned i = 0; i < COPIES_MAX; i++)
        copies += w->domain[domain].copy[i].state != COPY_GONE;
    if (!moving(w, domain) && copies == 1 && !w->domain[domain].in_log)
        ask_add(w, domain, via);
}

static void confirm_dead(struct world *w, struct ask *q, uint32_t via)
{
    struct node *n = node_of(w, q->node);

    if (n->up) {
        if (!chance_of(w, P_LIE, n->id, LIES_PER_THOUSAND))
            return;
        say(w, "an operator is wrong: node %u is not dead", n->id);
        q->lie = true;
    }
    ask(w, via, q);
}

static void hand_start(struct world *w, uint32_t domain, uint32_t node)
{
    struct domain *d = &w->domain[domain];
    struct copy *c;

    if (!oracle_disarmed(w) || moving(w, domain) || d->tainted)
        return;
    for (unsigned i = 0; i < COPIES_MAX; i++)
        if (d->copy[i].state != COPY_GONE)
            copy_end(w, &d->copy[i], HA_SEEN_GONE, false);
    c = copy_make(w, domain, node, oracle_epoch(w, domain) + 1, COPY_RUNNING);
    c->fuse_ms = UINT64_MAX;
    c->fresh = false;
    c->knows = ++d->writes;
    d->may_stop = true;
    d->by_hand = c->epoch;
    say(w, "an operator starts domain %u on node %u, epoch %llu", domain + 1, node,
        (unsigned long long)c->epoch);
    copy_tell(w, c);
}

static void operate(struct world *w, const struct sim_fault *f)
{
    static const int kinds[SIM_FAULT_KINDS] = {
        [SIM_CMD_REMOVE] = KIND(REMOVE),
        [SIM_CMD_SET] = KIND(SET),
        [SIM_CMD_WANT] = KIND(SET),
        [SIM_CMD_DRAIN] = KIND(DRAIN),
        [SIM_CMD_UNDRAIN] = KIND(UNDRAIN),
        [SIM_CMD_CONFIRM_DEAD] = KIND(CONFIRM_DEAD),
        [SIM_CMD_DISARM] = KIND(DISARM),
        [SIM_CMD_ARM] = KIND(ARM),
    };
    struct ask q = { .kind = kinds[f->kind], .by_operator = true };

    switch (f->kind) {
    case SIM_CMD_ADD:
        add(w, f->arg[0] - 1, f->arg[1]);
        break;
    case SIM_HAND_START:
        hand_start(w, f->arg[0] - 1, f->arg[1]);
        break;
    case SIM_CMD_WANT:
        w->domain[f->arg[0] - 1].may_stop = true;
        q.wants = true;
        __attribute__((fallthrough));
    case SIM_CMD_REMOVE:
    case SIM_CMD_SET:
        q.domain = f->arg[0] - 1;
        q.value = f->arg[2];
        q.policy = f->arg[3];
        ask(w, f->arg[1], &q);
        break;
    case SIM_CMD_DRAIN:
    case SIM_CMD_UNDRAIN:
        q.node = f->arg[0];
        q.domain = NOBODY;
        ask(w, f->arg[1], &q);
        break;
    case SIM_CMD_CONFIRM_DEAD:
        q.node = f->arg[0];
        q.domain = NOBODY;
        confirm_dead(w, &q, f->arg[1]);
        break;
    case SIM_CMD_MOVE:
        q.domain = f->arg[0] - 1;
        q.node = f->arg[1];
        q.kind = f->arg[2] == 1 ? KIND(MIGRATE) : KIND(CANCEL);
        if (f->arg[2] == 0 && w->domain[q.domain].in_log)
            move_by_hand(w, q.domain, q.node);
        else if (f->arg[2] != 0)
            ask(w, q.node, &q);
        break;
    default:
        q.domain = NOBODY;
        ask(w, f->arg[0], &q);
    }
}

/* --- all --- */

static void strike(struct world *w, const struct event *e)
{
    const struct sim_fault *f = &w->plan->fault[e->a];
    char text[200];

    if (w->healed)
        return;
    sim_fault_text(f, text, sizeof text);
    say(w, "--- %s", text);
    switch (f->kind) {
    case SIM_HOST_CRASH:
    case SIM_HOST_PAUSE:
    case SIM_DAEMON_KILL:
    case SIM_DAEMON_STOP:
    case SIM_DAEMON_SLOW:
    case SIM_DAEMON_DIE_AFTER:
    case SIM_DISK_STALL:
        crash_and_stop(w, e->a);
        break;
    case SIM_CORO_KILL:
    case SIM_CORO_STOP:
        to_corosync(w, e->a);
        break;
    case SIM_CUT:
    case SIM_SPLIT:
        cut(w, f, 1);
        undo_in(w, e->a, f->kind == SIM_CUT ? f->arg[3] : f->arg[2], 0);
        break;
    case SIM_OP_FAILS:
    case SIM_OP_SLOW:
    case SIM_OP_REPLY_LOST:
    case SIM_FENCE_MODE:
        to_devices(w, f);
        break;
    case SIM_MOVE_DIES:
        arm_death(w, f);
        break;
    case SIM_GUEST_CRASH:
    case SIM_GUEST_SHUTDOWN:
        to_guest(w, f);
        break;
    case SIM_GUEST_PAUSE:
        pause_guest(w, f->arg[0] - 1, true);
        undo_in(w, e->a, f->arg[1], 0);
        break;
    default:
        operate(w, f);
    }
}

void faults_schedule(struct world *w)
{
    for (uint32_t i = 0; i < w->plan->faults; i++)
        at(w, w->now + w->plan->fault[i].at * MS, strike, i, 0, 0, 0, NULL);
}

static void heal_node(struct world *w, struct node *n)
{
    while (n->up && n->pauses > 0)
        host_pause(w, n, false);
    while (n->coro.state != CORO_DOWN && n->coro.stops > 0)
        ring_pause(w, n->id, false);
    while (n->life != 0 && n->stops > 0)
        daemon_stop(w, n, false);
    n->slow_until = 0;
    n->die_after = 0;
    n->disk.stalled_until = 0;
    n->fence_until = 0;
    for (unsigned i = 0; i < OPS; i++)
        n->op_fails[i] = n->op_lost[i] = 0, n->op_slow_until[i] = 0;
    host_boot(w, n);
    daemon_start_in(w, n, 100);
    coro_start_in(w, n, 100);
}

static void mend_link(struct world *w, uint32_t from, uint32_t to)
{
    for (unsigned p = 0; p < 3; p++) {
        if (w->cut[p][from - 1][to - 1] != 0)
            oracle_link(w, from, to);
        w->cut[p][from - 1][to - 1] = 0;
    }
}

void faults_heal(struct world *w)
{
    say(w, "--- everything is healed");
    w->healed = true;
    for (uint32_t from = 1; from <= w->nodes; from++)
        for (uint32_t to = 1; to <= w->nodes; to++)
            mend_link(w, from, to);
    for (unsigned i = 0; i < sizeof w->die / sizeof *w->die; i++)
        w->die[i].on = false;
    for (uint32_t id = 1; id <= w->nodes; id++)
        heal_node(w, node_of(w, id));
    for (uint32_t d = 0; d < w->plan->domains; d++)
        pause_guest(w, d, false);
    ring_look(w);
}
