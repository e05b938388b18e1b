/* SPDX-License-Identifier: ISC */
/*
 * node: what reaches a core waits in a queue, as in the daemon's sockets: a stopped or slow daemon
 * finds it later, in order. A core's actions are carried out one after the other; a daemon may die
 * between any two of them. What it had sent is under way, what it had given to the disk may be
 * there or not.
 *
 * After a start the daemon tells its core of each domain that is there, then HOST: that is all of
 * them. Domains are told again every two seconds and when they change.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/record.h"
#include "cluster/sim/ask.h"
#include "cluster/sim/host.h"
#include "cluster/sim/move.h"
#include "cluster/sim/node.h"
#include "cluster/sim/oracle.h"
#include "cluster/sim/ring.h"
#include "cluster/sim/text.h"

#define SCAN_MS 2000
#define NEWER 2          /* version of the protocol */
#define TOKENS_TO_JOIN 5 /* so long it counts as ill */
#define CONNECT_MS 400   /* of the daemon to a corosync that has just started */

/* --- what waits for the core --- */

static void pump_later(struct world *w, const struct event *e)
{
    struct node *n = node_of(w, e->a);

    if (n->life == e->x)
        node_pump(w, n);
}

static void feed(struct world *w, struct node *n, const struct input *in)
{
    if (n->life == 0 || n->core == NULL) {
        blob_drop(in->blob);
        return;
    }
    /* The socket of the beats has a buffer of its own, and loses what does not fit. */
    if (n->n_in == INPUTS_MAX || (in->event.type == HA_EV_BEAT && n->n_in > INPUTS_MAX / 2)) {
        if (in->event.type != HA_EV_BEAT)
            broken(w, "flood", "node %u has %u events waiting", n->id, n->n_in);
        blob_drop(in->blob);
        return;
    }
    n->input[(n->in_head + n->n_in++) % INPUTS_MAX] = *in;
    node_pump(w, n);
}

void node_view(struct world *w, struct node *n, uint32_t group)
{
    struct input in = { .event.type = HA_EV_VIEW };

    for (uint32_t id = 1; id <= w->nodes; id++)
        if (group & 1u << (id - 1))
            in.event.u.view.members[in.event.u.view.n++] = id;
    say(w, "node %u: group is %#x", n->id, group);
    feed(w, n, &in);
    in.event = (struct ha_event){ .type = HA_EV_QUORUM,
        .u.quorate = 2u * (unsigned)__builtin_popcount(group) > w->nodes };
    feed(w, n, &in);
}

void node_message(struct world *w, struct node *n, uint32_t from, struct blob *b)
{
    struct input in = { .event.type = HA_EV_MESSAGE, .blob = blob_hold(b) };

    in.event.u.message.from = from;
    feed(w, n, &in);
}

void node_persisted(struct world *w, struct node *n, uint64_t id)
{
    feed(w, n, &(struct input){ .event = { .type = HA_EV_PERSISTED, .u.id = id } });
}

void node_domain(struct world *w, struct node *n, uint32_t domain, uint64_t epoch,
    enum ha_seen seen, bool fused, bool by_guest, bool blown)
{
    struct input in = { .event.type = HA_EV_DOMAIN };

    memcpy(in.event.u.domain.uuid, w->domain[domain].uuid, HA_UUID_LEN);
    in.event.u.domain.epoch = epoch;
    in.event.u.domain.seen = seen;
    in.event.u.domain.fused = fused;
    in.event.u.domain.by_guest = by_guest;
    in.event.u.domain.blown = blown;
    feed(w, n, &in);
}

void node_capacity(struct world *w, struct node *n)
{
    struct input in = { .event.type = HA_EV_HOST };

    in.event.u.host.memory_kib = (uint64_t)w->plan->memory_mib << 10;
    in.event.u.host.cpus = 8;
    for (uint32_t d = 0; d < w->plan->domains; d++)
        if (copy_at(w, d, n->id) != NULL && !w->domain[d].in_log)
            in.event.u.host.others_kib += (uint64_t)w->plan->domain[d].memory_mib << 10;
    feed(w, n, &in);
}

/* What a daemon began and did not see the end of is told to none that comes after it. */
void node_result(struct world *w, struct node *n, uint64_t id, bool ok)
{
    struct input in = { .event.type = HA_EV_RESULT };

    if (id >> ACTION_BITS != n->life)
        return;
    in.event.u.result.id = id & ACTION_MASK;
    in.event.u.result.ok = ok;
    in.event.u.result.text = ok ? "" : "the hypervisor says no";
    feed(w, n, &in);
}

void node_command(struct world *w, struct node *n, uint32_t ask)
{
    feed(w, n, &(struct input){ .event.type = HA_EV_COMMAND, .ask = ask });
}

/* --- beats --- */

/* a: to, b: from, x: life of the sender, y: its clock when it sent. */
static void beat_arrives(struct world *w, const struct event *e)
{
    struct node *n = node_of(w, e->a);
    struct input in = { .event.type = HA_EV_BEAT, .sent_life = e->x, .sent_ms = e->y };

    if (!n->up || !linked(w, PLANE_BEAT, e->b, e->a))
        return;
    in.blob = blob_hold(e->blob);
    in.event.u.message.from = e->b;
    feed(w, n, &in);
}

static void beat_send(struct world *w, struct node *n, const struct ha_action *a)
{
    const unsigned *noise = w->plan->noise;
    uint64_t key = (uint64_t)n->id << 8 | a->node;
    struct blob *b;

    if (a->node < 1 || a->node > w->nodes || a->len > HA_BEAT_MAX) {
        broken(
            w, "nonsense", "node %u sends a beat of %zu bytes to node %u", n->id, a->len, a->node);
        return;
    }
    if (!linked(w, PLANE_BEAT, n->id, a->node) ||
        chance_of(w, P_BEAT_LOSS, key, noise[SIM_BEAT_LOSS]))
        return;
    b = blob_make(w, a->bytes, a->len);
    for (int i = chance_of(w, P_BEAT_TWICE, key, noise[SIM_BEAT_TWICE]); b != NULL && i >= 0; i--) {
        uint64_t late = 100 + draw(w, P_BEAT, key + (uint64_t)i, 3 * MS);

        if (chance_of(w, P_BEAT_LATE, key + (uint64_t)i, noise[SIM_BEAT_LATE]))
            late += draw(w, P_BEAT, key, noise[SIM_BEAT_LATE_MS] * MS);
        at(w, w->now + late, beat_arrives, a->node, n->id, n->life, clock_ms(w, n), blob_hold(b));
    }
    blob_drop(b);
}

/* --- steps --- */

static void wake(struct world *w, const struct event *e)
{
    struct node *n = node_of(w, e->a);
    struct input in = { .event.type = HA_EV_TIME };

    if (n->life == e->x && n->wake_gen == e->y)
        feed(w, n, &in);
}

static void wake_at(struct world *w, struct node *n, uint64_t ms)
{
    uint64_t when = when_ms(w, n, ms);

    if (when <= w->now)
        when = w->now + MS / 2;
    when += draw(w, P_TIMER, n->id, (w->healed ? 1 : w->plan->noise[SIM_TIMER_MS]) * MS);
    at(w, when, wake, n->id, 0, n->life, ++n->wake_gen, NULL);
}

static void carry_out(struct world *w, struct node *n, const struct ha_action *asked)
{
    struct ha_action own = *asked, *a = &own;

    if (a->type != HA_ACT_PERSIST && a->type != HA_ACT_ANSWER)
        a->id |= n->life << ACTION_BITS;
    switch (a->type) {
    case HA_ACT_SEND:
        oracle_message(w, n, a);
        ring_send(w, n->id, a->bytes, a->len);
        break;
    case HA_ACT_BEAT:
        beat_send(w, n, a);
        break;
    case HA_ACT_PERSIST:
        disk_put(w, n, a);
        break;
    case HA_ACT_FUSE:
        host_fuse(w, n, a);
        break;
    case HA_ACT_START:
        host_start(w, n, a);
        break;
    case HA_ACT_STOP:
        host_stop(w, n, a);
        break;
    case HA_ACT_DESTROY:
        host_destroy(w, n, a);
        break;
    case HA_ACT_RESUME:
        host_resume(w, n, a);
        break;
    case HA_ACT_MIGRATE:
        move_begin(w, n, a);
        break;
    case HA_ACT_CANCEL:
        move_cancel(w, n, a);
        break;
    case HA_ACT_FENCE:
        host_fence(w, n, a);
        break;
    case HA_ACT_ANSWER:
        ask_answered(w, n, a);
        break;
    case HA_ACT_WATCHDOG:
        oracle_watchdog(w, n, a);
        break;
    case HA_ACT_NOTE:
        say(w, "node %u: %s%s", n->id, a->alarm ? "ALARM " : "", a->text);
        break;
    case HA_ACT_MAX:
        broken(w, "nonsense", "node %u asks for what is no action", n->id);
        break;
    }
}

static void say_action(struct world *w, const struct node *n, const struct ha_action *a)
{
    uint32_t domain = domain_of(w, a->uuid);

    if (!action_is_decision(a->type) || a->type == HA_ACT_NOTE)
        return;
    say(w, "node %u: %s #%" PRIu64 " domain %u epoch %" PRIu64 " node %u: %s", n->id,
        action_name(a->type), a->id, domain + 1, a->epoch, a->node,
        a->text != NULL ? a->text : "(no reason)");
}

static void step(struct world *w, struct node *n, const struct ha_event *event)
{
    struct ha_actions out;
    uint64_t life = n->life;

    memset(&out, 0, sizeof out);
    if (w->flight != NULL && n->id == w->opt->node)
        flight_event(w->flight, event, clock_ms(w, n));
    ha_step(n->core, event, clock_ms(w, n), &out);
    w->out->steps++;
    if (n->id == w->opt->node)
        w->out->decided = actions_digest(w->out->decided, &out);
    oracle_stepped(w, n, &out);
    wake_at(w, n, out.wake);
    if (event->type == HA_EV_MESSAGE) /* the log goes on with messages alone */
        oracle_state(w, n);
    for (size_t i = 0; i < out.n && !w->failed && n->life == life; i++) {
        if (out.action[i].text == NULL)
            broken(w, "nonsense", "%s of node %u gives no reason", action_name(out.action[i].type),
                n->id);
        if (w->log != NULL)
            say_action(w, n, &out.action[i]);
        carry_out(w, n, &out.action[i]);
        if (n->life == life && n->die_after > 0 && --n->die_after == 0) {
            say(w, "node %u: the daemon dies after this %s", n->id,
                action_name(out.action[i].type));
            daemon_start_in(w, n, n->die_back_ms);
            daemon_kill(w, n);
        }
    }
}

static void take(struct world *w, struct node *n, const struct input *in)
{
    struct ha_event event = in->event;

    if (event.type == HA_EV_MESSAGE || event.type == HA_EV_BEAT) {
        event.u.message.bytes = in->blob->bytes;
        event.u.message.len = in->blob->len;
    }
    if (event.type == HA_EV_BEAT)
        oracle_beat(w, n, event.u.message.from, in->sent_life, in->sent_ms);
    if (event.type == HA_EV_COMMAND)
        ask_step(w, n, in->ask, step);
    else
        step(w, n, &event);
}

void node_pump(struct world *w, struct node *n)
{
    uint64_t life = n->life;

    if (n->pumping)
        return;
    n->pumping = true;
    while (!w->failed && n->n_in > 0 && n->life == life && n->pauses == 0 && n->stops == 0 &&
           w->now >= n->busy_until) {
        struct input in = n->input[n->in_head];

        n->in_head = (n->in_head + 1) % INPUTS_MAX;
        n->n_in--;
        if (w->now < n->slow_until) {
            n->busy_until = w->now + n->slow_ms * MS;
            at(w, n->busy_until, pump_later, n->id, 0, n->life, 0, NULL);
        }
        take(w, n, &in);
        blob_drop(in.blob);
    }
    n->pumping = false;
    if (n->life != life && n->life != 0)
        node_pump(w, n);
}

/* --- daemons --- */

static void scan(struct world *w, const struct event *e)
{
    struct node *n = node_of(w, e->a);

    if (n->life != e->x)
        return;
    copies_tell(w, n);
    node_capacity(w, n);
    at(w, w->now + SCAN_MS * MS, scan, e->a, 0, e->x, 0, NULL);
}

static void configure(struct world *w, struct node *n)
{
    struct ha_config *c = &n->config;
    bool odd = w->plan->odd != 0 && n->id == w->nodes;

    memset(c, 0, sizeof *c);
    c->node = n->id;
    snprintf(c->name, sizeof c->name, "node%u", n->id);
    c->incarnation = rng_hash(w->plan->seed, P_ID, n->id * 1000 + n->lives) | 1;
    snprintf(c->boot_id, sizeof c->boot_id, "b0000000-0000-4000-8000-%06u%06u", n->id,
        (unsigned)n->boots);
    for (uint32_t id = 1; id <= w->nodes; id++)
        c->nodes[c->n_nodes++] = id;
    c->starts_at_once = 2;
    c->moves_at_once = 2;
    ha_times_derive(&c->times, odd ? w->plan->odd : w->plan->token, w->plan->watchdog);
    if (w->plan->upgrade != 0 && w->now >= w->plan->upgrade * MS)
        c->version = NEWER;
}

static struct ha_core *load(struct world *w, struct node *n, struct err *e)
{
    struct ha_record *saved = calloc(n->disk.n + 1, sizeof *saved);
    struct ha_core *core;

    if (saved == NULL) {
        w->no_memory = true;
        return NULL;
    }
    for (size_t i = 0; i < n->disk.n; i++)
        saved[i] = (struct ha_record){ n->disk.record[i]->bytes, n->disk.record[i]->len };
    if (n->id == w->opt->node) {
        flight_close(&w->flight);
        w->flight =
            flight_open(w->opt->record, SIZE_MAX, &n->config, saved, n->disk.n, clock_ms(w, n), e);
        w->out->decided = 0;
    }
    core = ha_core_new(&n->config, saved, n->disk.n, clock_ms(w, n), e);
    free(saved);
    return core;
}

void daemon_start(struct world *w, struct node *n)
{
    struct err e;

    if (!n->up || n->life != 0)
        return;
    n->life = ++n->lives;
    configure(w, n);
    err_clear(&e);
    n->core = load(w, n, &e);
    say(w, "node %u: daemon starts, incarnation %" PRIx64, n->id, n->config.incarnation);
    if (n->core == NULL) {
        broken(w, "refused-record", "node %u can't read what it wrote itself: %s", n->id, e.text);
        return;
    }
    n->busy_until = n->slow_until = n->dog_ms = 0;
    if (n->sick_at < w->now + TOKENS_TO_JOIN * w->times.token * MS)
        n->sick_at = w->now + TOKENS_TO_JOIN * w->times.token * MS;
    oracle_state(w, n);
    feed(w, n, &(struct input){ .event.type = HA_EV_TIME });
    copies_tell(w, n);
    node_capacity(w, n);
    at(w, w->now + SCAN_MS * MS, scan, n->id, 0, n->life, 0, NULL);
    if (n->coro.state != CORO_DOWN)
        ring_join(w, n->id);
}

static void forget_inputs(struct node *n)
{
    for (; n->n_in > 0; n->n_in--, n->in_head = (n->in_head + 1) % INPUTS_MAX)
        blob_drop(n->input[n->in_head].blob);
}

void daemon_kill(struct world *w, struct node *n)
{
    if (n->life == 0)
        return;
    say(w, "node %u: daemon is gone", n->id);
    n->life = 0;
    n->stops = 0;
    n->die_after = 0;
    ha_core_free(&n->core);
    forget_inputs(n);
    disk_tear(w, n);
    ring_leave(w, n->id);
    ask_daemon_died(w, n);
}

void daemon_stop(struct world *w, struct node *n, bool on)
{
    if (n->life == 0)
        return;
    say(w, "node %u: daemon %s", n->id, on ? "stops" : "goes on");
    n->stops += on ? 1u : -1u;
    if (n->sick_at < w->now)
        n->sick_at = w->now;
    if (!on)
        node_pump(w, n);
}

static void start_event(struct world *w, const struct event *e)
{
    daemon_start(w, node_of(w, e->a));
}

void daemon_start_in(struct world *w, struct node *n, uint64_t ms)
{
    at(w, w->now + ms * MS, start_event, n->id, 0, 0, 0, NULL);
}

static void coro_event(struct world *w, const struct event *e)
{
    struct node *n = node_of(w, e->a);

    if (n->up)
        ring_start(w, n->id);
}

void coro_start_in(struct world *w, struct node *n, uint64_t ms)
{
    at(w, w->now + (ms + CONNECT_MS) * MS, coro_event, n->id, 0, 0, 0, NULL);
}

/* --- hosts --- */

void host_boot(struct world *w, struct node *n)
{
    if (n->up)
        return;
    n->up = true;
    n->boots++;
    n->boot_at = w->now;
    n->clock_base_ms = 1000 + draw(w, P_CLOCK, n->id, 100000);
    say(w, "node %u: host boots", n->id);
    coro_start_in(w, n, draw(w, P_BOOT, n->id, 500));
    daemon_start_in(w, n, draw(w, P_BOOT, n->id + 100, 1500));
}

static void boot_event(struct world *w, const struct event *e)
{
    host_boot(w, node_of(w, e->a));
}

void host_boot_in(struct world *w, struct node *n, uint64_t ms)
{
    at(w, w->now + ms * MS, boot_event, n->id, 0, 0, 0, NULL);
}

void host_crash(struct world *w, struct node *n)
{
    if (!n->up)
        return;
    say(w, "node %u: host crashes", n->id);
    host_stops(w, n);
    n->up = false;
    ring_stop(w, n->id);
    daemon_kill(w, n);
    host_ended(w, n);
    n->coro.stops -= n->pauses;
    n->pauses = 0;
}

void host_pause(struct world *w, struct node *n, bool on)
{
    if (!n->up)
        return;
    say(w, "node %u: host %s", n->id, on ? "stands still" : "goes on");
    if (on)
        host_stops(w, n);
    n->pauses += on ? 1u : -1u;
    if (n->sick_at < w->now)
        n->sick_at = w->now;
    if (!on && n->pauses == 0)
        host_woken(w, n);
    ring_pause(w, n->id, on);
    if (!on)
        node_pump(w, n);
}

void node_init(struct world *w, uint32_t id)
{
    struct node *n = &w->node[id - 1];
    int64_t most = (int64_t)w->plan->noise[SIM_CLOCK_PPM];

    n->id = id;
    n->ppm = (int64_t)draw(w, P_CLOCK, 1000 + id, (uint64_t)(2 * most)) - most;
    n->input = calloc(INPUTS_MAX, sizeof *n->input);
    if (n->input == NULL)
        w->no_memory = true;
}

void node_free(struct world *w, struct node *n)
{
    (void)w;
    ha_core_free(&n->core);
    if (n->input != NULL)
        forget_inputs(n);
    free(n->input);
    disk_free(&n->disk);
}
