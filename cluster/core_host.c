/* SPDX-License-Identifier: ISC */
/*
 * This node's side: what is here against what the log says. Level-triggered: an event, an entry or
 * two tokens of time make a domain "dirty"; then its record and its copy are compared, and what
 * differs is told to the log or done. An action is begun once and again only after its result, or
 * after its time.
 *
 * What may run: a copy whose epoch is the record's, whose record names this node and a state in
 * which it runs. It gets the lease as its fuse, and nothing else does. A copy with an older epoch,
 * or with the same one of another owner, is a stray: its fuse is burnt, and it is destroyed; but
 * not the copy that was handed over, as long as the log may give it back. A copy with a newer epoch
 * is what people started by hand: it is destroyed after its guest has ended.
 */
#include <stdlib.h>

#include "cluster/core_internal.h"

#define RETRY_MS 30000u
#define RESUME_RETRY_MS 2000u
#define GRACE_MS 10000u /* the hand-over's own word comes first */
#define REPORT_MAX 512u
#define LOCAL_MAX (2u * HA_DOMAINS_MAX)

/* --- the table --- */

struct ha_local *host_local(struct ha_core *c, const char *uuid, bool make)
{
    bool found;
    unsigned i = ha_uuid_place(c->local, c->n_local, uuid, &found);
    struct ha_local *l;

    if (found)
        return c->local[i];
    if (!make || c->n_local == LOCAL_MAX)
        return NULL;
    if (c->n_local == c->cap_local) {
        c->local =
            arena_keep(&c->arena, c->local, (c->cap_local ? c->cap_local * 2 : 16) * sizeof l);
        c->cap_local = c->cap_local ? c->cap_local * 2 : 16;
    }
    l = arena_keep(&c->arena, NULL, sizeof *l);
    memset(l, 0, sizeof *l);
    ha_copy(l->uuid, sizeof l->uuid, uuid);
    memmove(&c->local[i + 1], &c->local[i], (c->n_local - i) * sizeof c->local[0]);
    c->local[i] = l;
    c->n_local++;
    return l;
}

void host_dispose(struct ha_core *c)
{
    for (unsigned i = 0; i < c->n_local; i++)
        free(c->local[i]);
    free(c->local);
}

static void touch(struct ha_core *c, struct ha_local *l)
{
    l->dirty = true;
    c->any_dirty = true;
}

/* Not here, not wanted here, nothing on its way. */
static bool forgettable(const struct ha_core *c, const struct ha_local *l)
{
    const struct ha_domain *d = state_domain(&c->state, l->uuid);

    return !l->here && l->op == OP_NONE && !l->move_id && !l->ending &&
           (!d || !domain_concerns(d, c->config.node));
}

static void sweep(struct ha_core *c)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < c->n_local; i++) {
        if (forgettable(c, c->local[i]))
            free(c->local[i]);
        else
            c->local[kept++] = c->local[i];
    }
    c->n_local = kept;
}

/* --- events --- */

static bool alive(const struct ha_local *l)
{
    return l->here && (l->seen == HA_SEEN_RUNNING || l->seen == HA_SEEN_PAUSED);
}

/* What was on its way has visibly come about. A copy that is just being made is there, and paused
 * by its fuse. */
static void op_by_sight(struct ha_local *l)
{
    bool made = l->seen == HA_SEEN_RUNNING || !l->blown || !l->op_id;

    if ((l->op == OP_START && alive(l) && l->epoch == l->op_epoch && made) ||
        ((l->op == OP_STOP || l->op == OP_DESTROY) && (!l->here || l->epoch > l->op_epoch)) ||
        (l->op == OP_RESUME && (!l->here || l->seen == HA_SEEN_RUNNING)))
        l->op = OP_NONE;
}

void host_event_domain(struct ha_core *c, const struct ha_event *e)
{
    bool here = e->u.domain.seen != HA_SEEN_GONE, lived;
    struct ha_local *l;

    if (!ha_uuid_ok(e->u.domain.uuid) || e->u.domain.seen >= HA_SEEN_MAX)
        return;
    l = host_local(c, e->u.domain.uuid, here);
    if (!l) {
        if (here)
            core_note(c, true, "more than %u domains are here: %s is not looked after", LOCAL_MAX,
                e->u.domain.uuid);
        return;
    }
    lived = alive(l) || (l->here && l->seen == HA_SEEN_INCOMING);
    l->here = here;
    l->seen = e->u.domain.seen;
    if (here) {
        l->epoch = e->u.domain.epoch;
        l->fused = e->u.domain.fused;
    }
    if (!here)
        l->gone_epoch = e->u.domain.epoch;
    if ((lived && !alive(l)) || (!here && l->op == OP_START))
        l->gone_at = c->now;
    if (l->seen == HA_SEEN_RUNNING)
        l->ran_epoch = l->epoch;
    l->by_guest = e->u.domain.by_guest;
    l->blown = e->u.domain.blown;
    if (!c->joined || !here)
        l->left = l->fused && l->epoch && !l->blown && l->seen == HA_SEEN_RUNNING;
    op_by_sight(l);
    touch(c, l);
}

void host_event_host(struct ha_core *c, const struct ha_event *e)
{
    c->memory_kib = e->u.host.memory_kib;
    c->cpus = e->u.host.cpus;
    c->others_kib = e->u.host.others_kib;
    if (!c->host_known)
        c->all_dirty = true;
    c->host_known = true;
    c->host_changed = true;
}

static void op_result(struct ha_core *c, struct ha_local *l, bool ok, const char *text)
{
    enum ha_op op = l->op;

    l->op_id = 0;
    if (op == OP_START && ok) {
        op_by_sight(l); /* now, or when it is seen, or its time is over */
        return;
    }
    l->op = OP_NONE;
    if (!ok)
        ha_copy(l->text, sizeof l->text, text);
    if (op == OP_START)
        l->failed_epoch = l->op_epoch;
    else if (op == OP_DESTROY && ok && l->epoch <= l->op_epoch)
        l->here = false;
    else if (op == OP_DESTROY && !ok)
        l->stuck_epoch = l->op_epoch;
    else if (op == OP_STOP && !ok)
        l->unstopped_epoch = l->op_epoch; /* destroyed next */
    else if (op == OP_STOP)
        l->retry_at = c->now + RESUME_RETRY_MS; /* what is seen comes first */
    if (op == OP_DESTROY || op == OP_RESUME)
        l->retry_at = c->now + (ok                   ? RESUME_RETRY_MS
                                   : op == OP_RESUME ? RESUME_RETRY_MS
                                                     : RETRY_MS);
}

static void fence_result(struct ha_core *c, struct ha_fence *f, bool ok, const char *text)
{
    Migrd__HaEntry e = MIGRD__HA_ENTRY__INIT;
    Migrd__HaFenced m = MIGRD__HA_FENCED__INIT;

    f->id = 0;
    f->retry_at = c->now + RETRY_MS;
    if (!request_room(c) || !c->joined)
        return;
    m.node = f->node;
    m.incarnation = f->incarnation;
    m.life = f->life;
    m.proof = PROOF(FENCED);
    m.text = (char *)text;
    m.failed = !ok;
    e.fenced = &m;
    request_send(c, &e, NULL, NULL);
}

void host_event_result(struct ha_core *c, const struct ha_event *e)
{
    const char *text = e->u.result.text ? e->u.result.text : "";
    uint64_t id = e->u.result.id;

    for (unsigned i = 0; id && i < HA_NODES_MAX; i++)
        if (c->fence[i].id == id) {
            fence_result(c, &c->fence[i], e->u.result.ok, text);
            return;
        }
    for (unsigned i = 0; id && i < c->n_local; i++) {
        struct ha_local *l = c->local[i];

        if (l->op != OP_NONE && l->op_id == id) {
            op_result(c, l, e->u.result.ok, text);
        } else if (l->move_id == id) {
            l->move_id = 0;
            l->moved = true;
            ha_copy(l->text, sizeof l->text, e->u.result.ok ? "it said that it succeeded" : text);
        } else {
            continue;
        }
        touch(c, l);
    }
}

/* --- fuses --- */

static bool disarmed(const struct ha_core *c)
{
    return c->state.armed == ARMED(DISARMED);
}

/* Of a move, whatever epoch it says: no start makes such a copy. */
static bool unfinished(const struct ha_local *l)
{
    return l->here && l->seen == HA_SEEN_INCOMING;
}

static bool may_run(const struct ha_core *c, const struct ha_domain *d, const struct ha_local *l)
{
    if (d->owner != c->config.node || !c->joined)
        return false;
    if (d->state == DS(STOPPED) || d->state == DS(WAITING) || d->state == DS(RETURNED) ||
        d->state == DS(CLEANING) ||
        (d->state == DS(STARTING) && (unfinished(l) || l->failed_epoch == d->epoch)))
        return false;
    return (l->here && l->epoch == d->epoch) || (l->op == OP_START && l->op_epoch == d->epoch);
}

static void fuse_send(struct ha_core *c, struct ha_local *l, uint64_t epoch, uint64_t deadline)
{
    struct ha_action *a = core_act(c, HA_ACT_FUSE);

    memcpy(a->uuid, l->uuid, sizeof a->uuid);
    a->epoch = l->fuse_epoch = epoch;
    a->deadline = l->fuse_deadline = deadline;
}

static void fuse(struct ha_core *c, const struct ha_domain *d, struct ha_local *l)
{
    uint64_t deadline = disarmed(c) ? HA_NEVER : c->lease.until;

    if (!may_run(c, d, l) || deadline <= c->now)
        return;
    if (l->fuse_epoch != d->epoch || l->fuse_deadline != deadline)
        fuse_send(c, l, d->epoch, deadline);
}

void host_fuses(struct ha_core *c)
{
    for (unsigned i = 0; i < c->n_local; i++) {
        const struct ha_domain *d = state_domain(&c->state, c->local[i]->uuid);

        if (d)
            fuse(c, d, c->local[i]);
    }
}

/* --- actions --- */

static struct ha_action *begin(struct ha_core *c, struct ha_local *l, enum ha_op op,
    enum ha_action_type type, uint64_t epoch, const char *why)
{
    struct ha_action *a = core_act(c, type);

    a->id = l->op_id = core_id(c);
    l->op = op;
    l->op_epoch = epoch;
    l->op_at = c->now;
    memcpy(a->uuid, l->uuid, sizeof a->uuid);
    a->epoch = epoch;
    a->text = arena_text(&c->arena, "%s", why);
    return a;
}

static void destroy(struct ha_core *c, struct ha_local *l, const char *why)
{
    if ((l->op == OP_DESTROY && c->now < l->op_at + RETRY_MS) || c->now < l->retry_at)
        return;
    fuse_send(c, l, l->epoch, 0);
    begin(c, l, OP_DESTROY, HA_ACT_DESTROY, l->epoch, why);
}

static void start(struct ha_core *c, const struct ha_domain *d, struct ha_local *l)
{
    struct ha_action *a;

    if (l->op != OP_NONE || l->here || l->told_epoch != d->epoch || l->begun_epoch == d->epoch ||
        (!lease_valid(c) && !disarmed(c)))
        return;
    a = begin(c, l, OP_START, HA_ACT_START, d->epoch,
        arena_text(&c->arena, "%s; %s", proof_name(d->proof), d->why));
    l->begun_epoch = d->epoch;
    /* The log's time may leap: what has gone by since is told by this clock. */
    if (d->proof == PROOF(LEASE))
        a->quiet_ms = l->told_quiet + (c->now - l->told_at);
    a->bytes = d->definition;
    a->len = d->definition_len;
    fuse(c, d, l);
}

static unsigned start_limit(const struct ha_domain *d)
{
    return d && d->policy.start_s ? d->policy.start_s : 300u;
}

static uint64_t stop_limit(const struct ha_domain *d)
{
    return (d && d->policy.stop_s ? d->policy.stop_s : 60u) * UINT64_C(1000);
}

/* It took too long, or its result was lost. */
static bool start_over(
    const struct ha_core *c, const struct ha_domain *d, const struct ha_local *l, bool *ended)
{
    *ended = !l->here && l->gone_epoch == l->op_epoch && l->gone_at >= l->op_at &&
             c->now >= l->gone_at + GRACE_MS;
    return *ended || c->now >= l->op_at + start_limit(d) * UINT64_C(1000);
}

/* The log hears that a start failed when nothing of it is left. */
static void start_late(struct ha_core *c, const struct ha_domain *d, struct ha_local *l)
{
    bool ended;

    if (l->here && l->epoch == d->epoch && l->failed_epoch == d->epoch)
        destroy(c, l, l->text);
    if (l->op != OP_START || l->op_epoch != d->epoch || !start_over(c, d, l, &ended))
        return;
    if (ended)
        ha_text(l->text, sizeof l->text, "it ended while it was being started");
    else
        ha_text(l->text, sizeof l->text, "it took longer than %u s", start_limit(d));
    l->failed_epoch = d->epoch;
    l->epoch = d->epoch;
    l->retry_at = 0;
    destroy(c, l, l->text);
}

/* Of an action that the record does not wait for any more, and whose result does not come: it must
 * not stand in the way of the next one. What a start may still bring is destroyed before. */
static void op_late(struct ha_core *c, const struct ha_domain *d, struct ha_local *l)
{
    bool mine = d && d->owner == c->config.node && d->epoch == l->op_epoch, over, ended;

    switch (l->op) {
    case OP_START:
        over = !(mine && (d->state == DS(STARTING) || d->state == DS(STOPPING))) &&
               start_over(c, d, l, &ended);
        break;
    case OP_STOP:
        over = !(mine && d->state == DS(STOPPING)) && c->now > l->op_at + stop_limit(d) + GRACE_MS;
        break;
    case OP_DESTROY:
    case OP_RESUME:
        over = c->now >= l->op_at + RETRY_MS;
        break;
    case OP_NONE:
    default:
        return;
    }
    if (!over)
        return;
    if (d && !l->here && (l->op == OP_START || l->op == OP_DESTROY)) {
        l->epoch = l->op_epoch;
        l->retry_at = 0;
        destroy(c, l, "it is not known how an action on it ended");
    } else {
        l->op = OP_NONE;
    }
}

static void stop(struct ha_core *c, const struct ha_domain *d, struct ha_local *l)
{
    uint64_t time = stop_limit(d);

    if (!l->here || l->epoch != d->epoch || l->op == OP_START)
        return;
    if (!alive(l) || l->unstopped_epoch == d->epoch ||
        (l->op == OP_STOP && c->now > l->op_at + time + GRACE_MS))
        destroy(c, l, "it did not stop when it was asked, or has crashed");
    else if (l->op == OP_NONE && c->now >= l->retry_at)
        begin(c, l, OP_STOP, HA_ACT_STOP, d->epoch, d->why)->deadline = c->now + time;
}

static void resume(struct ha_core *c, const struct ha_domain *d, struct ha_local *l)
{
    if (!l->here || l->seen != HA_SEEN_PAUSED || !l->blown || l->op != OP_NONE ||
        c->now < l->retry_at || !may_run(c, d, l) || (!lease_valid(c) && !disarmed(c)))
        return;
    begin(c, l, OP_RESUME, HA_ACT_RESUME, d->epoch,
        "its fuse had burnt, and it is this node's still");
}

static void move_end(struct ha_core *c, const struct ha_domain *d, struct ha_local *l)
{
    Migrd__HaEntry e = MIGRD__HA_ENTRY__INIT;
    Migrd__HaCommand m = MIGRD__HA_COMMAND__INIT;

    if (l->ending || !core_active(c) || !c->joined || !request_room(c))
        return;
    m.kind = KIND(MIGRATE_END);
    m.uuid = l->uuid;
    m.epoch = d->epoch;
    m.text = l->text;
    e.command = &m;
    request_send(c, &e, NULL, &l->ending);
}

static void move(struct ha_core *c, const struct ha_domain *d, struct ha_local *l)
{
    struct ha_action *a;
    bool begun = l->move_epoch == d->epoch && l->move_to == d->to && l->move_since == d->since &&
                 (l->move_id || l->moved);

    if (begun && l->moved) {
        move_end(c, d, l);
        return;
    }
    if (d->cancel && !l->cancelled) {
        a = core_act(c, HA_ACT_CANCEL);
        memcpy(a->uuid, l->uuid, sizeof a->uuid);
        a->epoch = d->epoch;
        a->node = d->to;
        l->cancelled = true;
    }
    if (begun || d->move == MOVE(NONE))
        return;
    if (d->cancel) { /* nothing to end */
        ha_text(l->text, sizeof l->text, "cancelled before it began");
        move_end(c, d, l);
        return;
    }
    a = core_act(c, HA_ACT_MIGRATE);
    a->id = l->move_id = core_id(c);
    memcpy(a->uuid, l->uuid, sizeof a->uuid);
    a->epoch = l->move_epoch = d->epoch;
    a->node = l->move_to = d->to;
    l->move_since = d->since;
    a->text = arena_text(&c->arena, "%s", d->why);
    l->moved = l->cancelled = false;
}

/* --- strays --- */

static bool ended(const struct ha_local *l)
{
    return l->here && !alive(l) && !unfinished(l);
}

/* A copy that the log did not order and does not know: told, not destroyed. One that has burnt its
 * fuse, or that the log knows of, is known to be old. */
static bool found(const struct ha_core *c, const struct ha_domain *d, const struct ha_local *l)
{
    uint32_t me = c->config.node;

    if (!ha_node_in(d->unsure, d->n_unsure, me) || !l->here || unfinished(l) ||
        (d->owner == me && d->epoch == l->epoch && domain_occupies(d)))
        return false;
    if (!alive(l))
        return l->epoch > d->epoch && d->owner == me;
    return l->epoch >= d->epoch || (!l->blown && !ha_node_in(d->old, d->n_old, me));
}

/* Of a copy that people started while the cluster was disarmed, and whose guest has ended: nobody
 * waits for it, and it would stand in the way of a start. What the log may not have heard of yet
 * has its time. */
static bool remains(const struct ha_core *c, const struct ha_domain *d, const struct ha_local *l)
{
    return ended(l) && !d->blocked && c->joined && core_active(c) &&
           c->now >= l->gone_at + GRACE_MS;
}

static bool stray(const struct ha_core *c, const struct ha_domain *d, const struct ha_local *l)
{
    bool mine = d->owner == c->config.node;

    if (!l->here || disarmed(c) || found(c, d, l))
        return false;
    if (l->epoch > d->epoch)
        return remains(c, d, l);
    if (!mine)
        return !(d->from == c->config.node && (d->state == DS(HANDED) || d->state == DS(RETURNED)));
    if (d->state == DS(STOPPED) || d->state == DS(CLEANING))
        return true;
    if (d->state == DS(WAITING))
        return l->epoch < d->epoch || !alive(l);
    return d->state == DS(STARTING) && (l->epoch < d->epoch || unfinished(l));
}

static void alarm_once(struct ha_core *c, const struct ha_domain *d, struct ha_local *l)
{
    if (l->noted_epoch == l->epoch || l->seen != HA_SEEN_RUNNING || d->state == DS(CLEANING))
        return;
    l->noted_epoch = l->epoch;
    core_note(c, true,
        "%s runs here under epoch %llu, but belongs to node %u under epoch %llu (%s): this copy is "
        "destroyed",
        d->name, (unsigned long long)l->epoch, d->owner, (unsigned long long)d->epoch,
        domain_state_name(d->state));
}

/* --- what the log is told --- */

static bool is_fused(const struct ha_core *c, const struct ha_domain *d, const struct ha_local *l)
{
    if (!l->fused || disarmed(c))
        return false;
    if (l->fuse_epoch == d->epoch && l->fuse_deadline)
        return l->fuse_deadline != HA_NEVER;
    return d->fused;
}

static bool waited(const struct ha_core *c, const struct ha_domain *d, unsigned ms)
{
    return core_log_time(c) >= d->since + ms;
}

static bool tell_seen(const struct ha_core *c, const struct ha_domain *d, const struct ha_local *l,
    Migrd__HaObservation *o)
{
    o->seen = (ha_seen_t)l->seen;
    o->by_guest = l->by_guest;
    o->fused = is_fused(c, d, l);
    return true;
}

static bool tell_gone(Migrd__HaObservation *o)
{
    o->seen = SEEN(GONE);
    return true;
}

static bool tell_starting(const struct ha_core *c, const struct ha_domain *d,
    const struct ha_local *l, bool has, Migrd__HaObservation *o)
{
    if (has && l->op == OP_NONE && l->seen != HA_SEEN_INCOMING && l->failed_epoch != d->epoch)
        return tell_seen(c, d, l, o);
    if (l->here || l->op != OP_NONE)
        return false;
    if (l->begun_epoch == d->epoch) {
        o->failed = true;
        o->text = l->failed_epoch == d->epoch ? (char *)l->text
                                              : (char *)"it ended while it was being started";
        return true;
    }
    return l->told_epoch != d->epoch && tell_gone(o);
}

static bool tell_running(const struct ha_core *c, const struct ha_domain *d,
    const struct ha_local *l, bool has, Migrd__HaObservation *o)
{
    if (has && alive(l))
        return ((ha_seen_t)l->seen != d->seen || is_fused(c, d, l) != d->fused ||
                   ha_node_in(d->unsure, d->n_unsure, c->config.node)) &&
               tell_seen(c, d, l, o);
    if (has && l->seen != HA_SEEN_INCOMING)
        return tell_seen(c, d, l, o);
    if (has)
        return false;
    /* A copy that is being taken back is there under its old epoch for a moment. */
    return (!l->here || (l->epoch < d->epoch && waited(c, d, RETRY_MS))) && tell_gone(o);
}

/* A copy that ended before it was seen to run may be one that never ran: then the hand-over says
 * so, and the source takes it back. */
static bool tell_handed(const struct ha_core *c, const struct ha_domain *d,
    const struct ha_local *l, bool has, Migrd__HaObservation *o)
{
    bool wait =
        l->ran_epoch != d->epoch && (!waited(c, d, GRACE_MS) || c->now < l->gone_at + GRACE_MS);

    if (has && (l->seen == HA_SEEN_INCOMING || (wait && !alive(l))))
        return false;
    return has ? tell_seen(c, d, l, o) : !wait && tell_gone(o);
}

static bool tell_ending(
    const struct ha_domain *d, const struct ha_local *l, bool has, Migrd__HaObservation *o)
{
    if (!has)
        return l->op != OP_START && tell_gone(o);
    if (l->stuck_epoch == d->epoch && !d->blocked) {
        o->stuck = true;
        o->text = (char *)l->text;
        return true;
    }
    if (d->state == DS(STOPPING) && !alive(l) && l->seen != HA_SEEN_INCOMING) {
        o->seen = (ha_seen_t)l->seen;
        o->by_guest = l->by_guest;
        return true;
    }
    return false;
}

static bool tell_claim(const struct ha_domain *d, const struct ha_local *l, Migrd__HaObservation *o)
{
    o->claims = true;
    o->epoch = l->epoch;
    o->seen = (ha_seen_t)l->seen;
    return !d->blocked;
}

/* False: the log knows all that is to be known. */
static bool tells(const struct ha_core *c, const struct ha_domain *d, const struct ha_local *l,
    Migrd__HaObservation *o)
{
    bool has = l->here && l->epoch == d->epoch;

    migrd__ha_observation__init(o);
    o->uuid = (char *)l->uuid;
    o->epoch = d->epoch;
    if (d->state == DS(RETURNED) && d->from == c->config.node) {
        o->epoch = d->epoch - 1;
        return !l->here && tell_gone(o);
    }
    if (found(c, d, l))
        return tell_claim(d, l, o);
    if (d->owner != c->config.node) {
        o->clean = domain_concerns(d, c->config.node) && d->from != c->config.node &&
                   (!l->here || (ended(l) && l->epoch > d->epoch)) && l->op == OP_NONE;
        return o->clean;
    }
    switch (d->state) {
    case DS(STARTING):
        return tell_starting(c, d, l, has, o);
    case DS(RUNNING):
    case DS(MIGRATING):
        return tell_running(c, d, l, has, o);
    case DS(HANDED):
        return tell_handed(c, d, l, has, o);
    case DS(STOPPING):
    case DS(CLEANING):
        return tell_ending(d, l, has, o);
    case DS(WAITING):
        if (has && alive(l))
            return tell_seen(c, d, l, o);
        return (d->awaits || (!l->here && ha_node_in(d->unsure, d->n_unsure, c->config.node))) &&
               tell_gone(o);
    default:
        return false;
    }
}

static bool host_news(struct ha_core *c, Migrd__HaReport *r)
{
    const struct ha_node *n = state_node(&c->state, c->config.node);
    Migrd__HaJoin *j;

    if (!c->host_changed || !n)
        return false;
    c->host_changed = false;
    if (n->memory_kib == c->memory_kib && n->cpus == c->cpus && n->others_kib == c->others_kib)
        return false;
    j = arena_alloc(&c->arena, sizeof *j);
    migrd__ha_join__init(j);
    j->memory_kib = c->memory_kib;
    j->cpus = c->cpus;
    j->others_kib = c->others_kib;
    j->starts_at_once = c->config.starts_at_once;
    j->moves_at_once = c->config.moves_at_once;
    j->ready = c->config.times.ready;
    r->host = j;
    return true;
}

static void report(struct ha_core *c)
{
    Migrd__HaEntry e = MIGRD__HA_ENTRY__INIT;
    Migrd__HaReport r = MIGRD__HA_REPORT__INIT;
    Migrd__HaObservation *o;
    bool news;

    if (!core_active(c) || !c->joined || c->reporting || !request_room(c) ||
        (!c->telling && !c->host_changed && !lease_news(c)))
        return;
    news = host_news(c, &r);
    r.applied = c->state.index;
    r.holds = lease_news(c) ? c->lease.life : 0;
    r.domain = arena_alloc(&c->arena, REPORT_MAX * sizeof *r.domain);
    c->telling = false;
    for (unsigned i = 0; i < c->n_local; i++) {
        struct ha_local *l = c->local[i];
        const struct ha_domain *d = l->tell ? state_domain(&c->state, l->uuid) : NULL;

        if (r.n_domain == REPORT_MAX) {
            c->telling |= l->tell;
            continue;
        }
        l->tell = false;
        o = d ? arena_alloc(&c->arena, sizeof *o) : NULL;
        if (d && tells(c, d, l, o))
            r.domain[r.n_domain++] = o;
    }
    if (r.n_domain == 0 && !news && !r.holds)
        return;
    e.report = &r;
    request_send(c, &e, NULL, &c->reporting);
}

/* --- all of it --- */

static void own(struct ha_core *c, const struct ha_domain *d, struct ha_local *l)
{
    fuse(c, d, l);
    switch (d->state) {
    case DS(STARTING):
        start(c, d, l);
        start_late(c, d, l);
        break;
    case DS(RUNNING):
        l->moved = l->cancelled = false;
        l->retry_at = l->retry_at > c->now ? l->retry_at : 0;
        resume(c, d, l);
        break;
    case DS(MIGRATING):
        resume(c, d, l);
        move(c, d, l);
        break;
    case DS(STOPPING):
        start_late(c, d, l);
        stop(c, d, l);
        break;
    default:
        break;
    }
}

/* The log does not have it. What burns may be this daemon's fuse, or that of the one before it,
 * under which the domain was removed. */
static void let_go(struct ha_core *c, struct ha_local *l)
{
    bool left = l->left && !l->fuse_epoch;

    if (l->blown) {
        l->fuse_epoch = 0; /* who lights it from here on does not tell */
        l->left = false;
    } else if (l->here && c->joined && (left || (l->fuse_epoch && l->fuse_deadline != HA_NEVER))) {
        fuse_send(c, l, left ? l->epoch : l->fuse_epoch, HA_NEVER);
    }
}

static void reconcile(struct ha_core *c, struct ha_local *l)
{
    const struct ha_domain *d = state_domain(&c->state, l->uuid);
    Migrd__HaObservation o;

    op_late(c, d, l);
    if (!d) {
        let_go(c, l);
        return;
    }
    if (stray(c, d, l)) {
        alarm_once(c, d, l);
        destroy(c, l, d->why);
    } else if (d->owner == c->config.node && c->joined) {
        own(c, d, l);
    }
    l->tell = c->joined && tells(c, d, l, &o);
    c->telling |= l->tell;
}

/* A fuse that did not stop its copy: the last resort is the hardware's watchdog. Asked whenever it
 * is to be petted: a daemon that stood still learns only then that its fuses did their work. */
bool host_rebels(const struct ha_core *c)
{
    uint64_t grace = c->config.times.watchdog / 2;

    for (unsigned i = 0; i < c->n_local; i++) {
        const struct ha_local *l = c->local[i];

        if (l->here && l->fused && l->seen == HA_SEEN_RUNNING && l->fuse_epoch == l->epoch &&
            l->fuse_deadline != HA_NEVER && c->now > l->fuse_deadline + grace &&
            state_domain(&c->state, l->uuid) && l->op != OP_START)
            return true;
    }
    return false;
}

static void fences(struct ha_core *c)
{
    const struct ha_state *s = &c->state;

    if (!core_active(c) || !c->joined)
        return;
    for (unsigned i = 0; i < s->n_node; i++)
        if (s->node[i].state == NS(ONLINE) && s->node[i].member) {
            if (s->node[i].id != c->config.node)
                return; /* the first one sees to it */
            break;
        }
    for (unsigned i = 0; i < s->n_node; i++) {
        const struct ha_node *n = &s->node[i];
        struct ha_fence *f = &c->fence[i];
        struct ha_action *a;

        /* Who is in the group lives: what has no fuse goes on there. */
        if (!n->fencing || n->member || c->now < f->retry_at)
            continue;
        a = core_act(c, HA_ACT_FENCE);
        *f = (struct ha_fence){ .node = n->id,
            .id = core_id(c),
            .incarnation = n->incarnation,
            .life = n->life,
            .retry_at = c->now + 2 * RETRY_MS };
        a->id = f->id;
        a->node = n->id;
        a->text = arena_text(&c->arena, "%s", n->why);
    }
}

void host_time(struct ha_core *c)
{
    if (c->now >= c->look_again) {
        c->look_again = c->now + 2 * (uint64_t)c->config.times.token;
        c->all_dirty = true;
        sweep(c);
        fences(c);
    }
}

/* A state that came in may name this node where it did not know. */
static void know_own(struct ha_core *c)
{
    for (unsigned i = 0; i < c->state.n_domains; i++) {
        const struct ha_domain *d = c->state.domain[i];

        if (domain_concerns(d, c->config.node))
            host_local(c, d->uuid, true);
    }
}

void host_reconcile(struct ha_core *c)
{
    if (!c->host_known)
        return;
    if (c->all_dirty)
        know_own(c);
    if (c->all_dirty || c->any_dirty) {
        for (unsigned i = 0; i < c->n_local; i++) {
            struct ha_local *l = c->local[i];

            if (!c->all_dirty && !l->dirty)
                continue;
            l->dirty = false;
            reconcile(c, l);
        }
        c->all_dirty = c->any_dirty = false;
    }
    report(c);
}
