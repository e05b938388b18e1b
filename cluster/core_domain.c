/* SPDX-License-Identifier: ISC */
/*
 * A domain as the log has it. `-`: refused, or of no account.
 *
 *   state      runs     gone     shutdown crashed  failed   stuck     never    lost     from gone
 *   STOPPED    -        -        -        -        -        -         -        -        -
 *   WAITING    RUNNING  WAITING  -        -        -        -         -        WAITING  -
 *   STARTING   RUNNING  WAITING  CLEANING CLEANING WAITING  -         -        WAITING  -
 *   RUNNING    RUNNING  WAITING  CLEANING CLEANING -        -         -        WAITING  -
 *   MIGRATING  MIGRATING WAITING CLEANING CLEANING -        -         -        WAITING  -
 *   HANDED     RUNNING  WAITING  CLEANING CLEANING -        -         RETURNED WAITING  -
 *   RETURNED   -        -        -        -        -        -         -        -        WAITING
 *   STOPPING   STOPPING WAITING  CLEANING CLEANING -        STOPPING  -        WAITING  -
 *   CLEANING   CLEANING WAITING  CLEANING CLEANING -        CLEANING  -        WAITING  -
 *
 *   state      migrate   its end  hand-over take back place    stop
 *   WAITING    -         -        -         -         STARTING -
 *   STARTING   -         -        -         -         -        STOPPING
 *   RUNNING    MIGRATING -        HANDED    -         -        STOPPING
 *   MIGRATING  -         RUNNING  HANDED    -         -        -      (its end comes first)
 *   RETURNED   -         -        -         RUNNING   -        -
 *
 * WAITING becomes STOPPED by core_decide.c where nobody wants it to run. WAITING means that it is
 * proved to run nowhere: the owner that it still names may be the host of a paused copy of that
 * epoch, which goes on if the owner is back before another place was found (runs).
 */
#include "cluster/core_internal.h"

#define BACKOFF_FIRST_MS 10000u
#define BACKOFF_MAX_MS 600000u
#define HEALTHY_MS (UINT64_C(30) * 60 * 1000)
#define MOVE_PAUSE_MS 30000u /* after a move that failed */

#define NO (-1)
#define S(x) ((int)DS(x))

static const int next_state[DS_MAX][DE_MAX] = {
    [DS(STOPPED)] = { [DE_RUNS] = NO,
        [DE_GONE] = NO,
        [DE_SHUTDOWN] = NO,
        [DE_CRASHED] = NO,
        [DE_FAILED] = NO,
        [DE_STUCK] = NO,
        [DE_NEVER_RAN] = NO,
        [DE_LOST] = NO,
        [DE_FROM_GONE] = NO,
        [DE_MIGRATE] = NO,
        [DE_MIGRATE_END] = NO,
        [DE_HANDOVER] = NO,
        [DE_TAKE_BACK] = NO,
        [DE_PLACE] = NO,
        [DE_STOP] = NO },
    [DS(WAITING)] = { [DE_RUNS] = S(RUNNING),
        [DE_GONE] = S(WAITING),
        [DE_SHUTDOWN] = NO,
        [DE_CRASHED] = NO,
        [DE_FAILED] = NO,
        [DE_STUCK] = NO,
        [DE_NEVER_RAN] = NO,
        [DE_LOST] = S(WAITING),
        [DE_FROM_GONE] = NO,
        [DE_MIGRATE] = NO,
        [DE_MIGRATE_END] = NO,
        [DE_HANDOVER] = NO,
        [DE_TAKE_BACK] = NO,
        [DE_PLACE] = S(STARTING),
        [DE_STOP] = NO },
    [DS(STARTING)] = { [DE_RUNS] = S(RUNNING),
        [DE_GONE] = S(WAITING),
        [DE_SHUTDOWN] = S(CLEANING),
        [DE_CRASHED] = S(CLEANING),
        [DE_FAILED] = S(WAITING),
        [DE_STUCK] = NO,
        [DE_NEVER_RAN] = NO,
        [DE_LOST] = S(WAITING),
        [DE_FROM_GONE] = NO,
        [DE_MIGRATE] = NO,
        [DE_MIGRATE_END] = NO,
        [DE_HANDOVER] = NO,
        [DE_TAKE_BACK] = NO,
        [DE_PLACE] = NO,
        [DE_STOP] = S(STOPPING) },
    [DS(RUNNING)] = { [DE_RUNS] = S(RUNNING),
        [DE_GONE] = S(WAITING),
        [DE_SHUTDOWN] = S(CLEANING),
        [DE_CRASHED] = S(CLEANING),
        [DE_FAILED] = NO,
        [DE_STUCK] = NO,
        [DE_NEVER_RAN] = NO,
        [DE_LOST] = S(WAITING),
        [DE_FROM_GONE] = NO,
        [DE_MIGRATE] = S(MIGRATING),
        [DE_MIGRATE_END] = NO,
        [DE_HANDOVER] = S(HANDED),
        [DE_TAKE_BACK] = NO,
        [DE_PLACE] = NO,
        [DE_STOP] = S(STOPPING) },
    [DS(MIGRATING)] = { [DE_RUNS] = S(MIGRATING),
        [DE_GONE] = S(WAITING),
        [DE_SHUTDOWN] = S(CLEANING),
        [DE_CRASHED] = S(CLEANING),
        [DE_FAILED] = NO,
        [DE_STUCK] = NO,
        [DE_NEVER_RAN] = NO,
        [DE_LOST] = S(WAITING),
        [DE_FROM_GONE] = NO,
        [DE_MIGRATE] = NO,
        [DE_MIGRATE_END] = S(RUNNING),
        [DE_HANDOVER] = S(HANDED),
        [DE_TAKE_BACK] = NO,
        [DE_PLACE] = NO,
        [DE_STOP] = NO },
    [DS(HANDED)] = { [DE_RUNS] = S(RUNNING),
        [DE_GONE] = S(WAITING),
        [DE_SHUTDOWN] = S(CLEANING),
        [DE_CRASHED] = S(CLEANING),
        [DE_FAILED] = NO,
        [DE_STUCK] = NO,
        [DE_NEVER_RAN] = S(RETURNED),
        [DE_LOST] = S(WAITING),
        [DE_FROM_GONE] = NO,
        [DE_MIGRATE] = NO,
        [DE_MIGRATE_END] = NO,
        [DE_HANDOVER] = NO,
        [DE_TAKE_BACK] = NO,
        [DE_PLACE] = NO,
        [DE_STOP] = NO },
    [DS(RETURNED)] = { [DE_RUNS] = NO,
        [DE_GONE] = NO,
        [DE_SHUTDOWN] = NO,
        [DE_CRASHED] = NO,
        [DE_FAILED] = NO,
        [DE_STUCK] = NO,
        [DE_NEVER_RAN] = NO,
        [DE_LOST] = NO,
        [DE_FROM_GONE] = S(WAITING),
        [DE_MIGRATE] = NO,
        [DE_MIGRATE_END] = NO,
        [DE_HANDOVER] = NO,
        [DE_TAKE_BACK] = S(RUNNING),
        [DE_PLACE] = NO,
        [DE_STOP] = NO },
    [DS(STOPPING)] = { [DE_RUNS] = S(STOPPING),
        [DE_GONE] = S(WAITING),
        [DE_SHUTDOWN] = S(CLEANING),
        [DE_CRASHED] = S(CLEANING),
        [DE_FAILED] = NO,
        [DE_STUCK] = S(STOPPING),
        [DE_NEVER_RAN] = NO,
        [DE_LOST] = S(WAITING),
        [DE_FROM_GONE] = NO,
        [DE_MIGRATE] = NO,
        [DE_MIGRATE_END] = NO,
        [DE_HANDOVER] = NO,
        [DE_TAKE_BACK] = NO,
        [DE_PLACE] = NO,
        [DE_STOP] = NO },
    [DS(CLEANING)] = { [DE_RUNS] = S(CLEANING),
        [DE_GONE] = S(WAITING),
        [DE_SHUTDOWN] = S(CLEANING),
        [DE_CRASHED] = S(CLEANING),
        [DE_FAILED] = NO,
        [DE_STUCK] = S(CLEANING),
        [DE_NEVER_RAN] = NO,
        [DE_LOST] = S(WAITING),
        [DE_FROM_GONE] = NO,
        [DE_MIGRATE] = NO,
        [DE_MIGRATE_END] = NO,
        [DE_HANDOVER] = NO,
        [DE_TAKE_BACK] = NO,
        [DE_PLACE] = NO,
        [DE_STOP] = NO },
};

const char *domain_state_name(ha_dstate s)
{
    static const char *const name[DS_MAX] = { "stopped", "waiting", "starting", "running",
        "migrating", "handed over", "returned", "stopping", "cleaning up" };

    return (unsigned)s < DS_MAX ? name[s] : "?";
}

const char *proof_name(ha_proof p)
{
    static const char *const name[] = { "nothing ran before", "its lease is over",
        "the owner says that it does not run", "power-off confirmed", "cut off from its storage",
        "an operator's word" };

    return (unsigned)p < sizeof name / sizeof name[0] ? name[p] : "?";
}

bool domain_occupies(const struct ha_domain *d)
{
    return d->owner != 0 && d->state != DS(STOPPED) && d->state != DS(WAITING);
}

void domain_why(struct ha_domain *d, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(d->why, sizeof d->why, fmt, ap);
    va_end(ap);
}

/* --- failures and their price --- */

static struct ha_failure *failure_of(struct ha_domain *d, uint32_t node, uint64_t now)
{
    uint64_t window = (d->policy.window_s ? d->policy.window_s : 600u) * UINT64_C(1000);
    struct ha_failure *oldest = &d->failed[0];

    for (unsigned i = 0; i < d->n_failed; i++) {
        struct ha_failure *f = &d->failed[i];

        if (f->node == node) {
            if (now - f->since >= window)
                *f = (struct ha_failure){ .node = node, .since = now };
            return f;
        }
        if (f->since < oldest->since)
            oldest = f;
    }
    if (d->n_failed < HA_FAILED_MAX)
        oldest = &d->failed[d->n_failed++];
    *oldest = (struct ha_failure){ .node = node, .since = now };
    return oldest;
}

/* The first failure after a healthy time costs nothing, then 10 s, doubled, to 10 min. */
static void failed(struct ha_core *c, struct ha_domain *d)
{
    uint64_t now = c->state.time, pause;

    if (d->state == DS(RUNNING) && now - d->since >= HEALTHY_MS)
        d->failures = 0;
    failure_of(d, d->owner, now)->count++;
    d->failures++;
    pause =
        d->failures < 2 ? 0 : (uint64_t)BACKOFF_FIRST_MS << (d->failures < 9 ? d->failures - 2 : 7);
    d->not_before = now + (pause < BACKOFF_MAX_MS ? pause : BACKOFF_MAX_MS);
}

/* --- what an event does --- */

static void drop(uint32_t *list, unsigned *n, uint32_t node)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < *n; i++)
        if (list[i] != node)
            list[kept++] = list[i];
    *n = kept;
}

void domain_clean(struct ha_domain *d, uint32_t node)
{
    drop(d->old, &d->n_old, node);
    drop(d->unsure, &d->n_unsure, node);
}

void domain_ask(const struct ha_state *s, struct ha_domain *d)
{
    d->asked = s->index;
    d->n_unsure = 0;
    for (unsigned i = 0; i < s->n_nodes; i++)
        d->unsure[d->n_unsure++] = s->nodes[i];
}

bool domain_concerns(const struct ha_domain *d, uint32_t node)
{
    return d->owner == node || d->from == node || ha_node_in(d->old, d->n_old, node) ||
           ha_node_in(d->unsure, d->n_unsure, node);
}

/* What the owner before has, if it has anything, is older from here on. */
static void new_owner(struct ha_domain *d, uint32_t node, bool left)
{
    drop(d->old, &d->n_old, d->owner);
    if (left && d->owner && d->owner != node && d->n_old < HA_NODES_MAX)
        d->old[d->n_old++] = d->owner;
    domain_clean(d, node);
    d->owner = node;
}

static void forget_move(struct ha_domain *d)
{
    d->to = 0;
    d->from = 0;
    d->move = MOVE(NONE);
    d->cancel = false;
}

static void on_runs(struct ha_domain *d, const struct ha_domain_change *x)
{
    d->seen = x->seen;
    d->fused = x->fused;
    d->awaits = false;
    if (d->state == DS(STARTING) || d->state == DS(HANDED) || d->state == DS(WAITING)) {
        forget_move(d);
        domain_why(d, "runs on node %u", d->owner);
    }
}

static void on_gone(struct ha_core *c, struct ha_domain *d, const struct ha_domain_change *x)
{
    bool ran = d->state == DS(RUNNING) || d->state == DS(MIGRATING) || d->state == DS(HANDED);

    if (ran && d->want_run) {
        domain_why(d, "it ended on node %u%s%s", d->owner, *x->text ? ": " : "", x->text);
        failed(c, d);
    }
    d->seen = SEEN(GONE);
    d->awaits = false;
    d->blocked = false;
    d->proof = PROOF(SELF);
    forget_move(d);
}

static void on_end(struct ha_core *c, struct ha_domain *d, bool by_guest, const char *text)
{
    bool first = d->state != DS(CLEANING);

    d->seen = by_guest ? SEEN(SHUTDOWN) : SEEN(CRASHED);
    if (first && by_guest && !d->policy.restart_on_shutdown && d->state != DS(STOPPING))
        d->want_run = false;
    if (first && d->want_run && !by_guest)
        failed(c, d);
    if (first)
        domain_why(d, by_guest ? "its guest shut down on node %u%s%s" : "it crashed on node %u%s%s",
            d->owner, *text ? ": " : "", text);
    forget_move(d);
}

static void on_lost(struct ha_domain *d, const struct ha_domain_change *x)
{
    if (d->state != DS(WAITING))
        domain_why(d, "node %u was lost: %s", d->owner, x->text);
    d->quiet = x->quiet;
    d->proof = x->proof;
    d->not_before = 0;
    d->awaits = false;
    d->blocked = false;
    forget_move(d);
}

static void on_handover(struct ha_domain *d, const struct ha_domain_change *x)
{
    uint32_t origin = d->move == MOVE(DRAIN) ? d->owner : d->origin;

    forget_move(d);
    d->from = d->owner;
    d->from_fused = d->fused;
    new_owner(d, x->node, true);
    d->epoch++;
    d->fused = d->obeys_fuse;
    d->origin = origin == x->node ? 0 : origin;
    d->proof = PROOF(SELF);
    domain_why(d, "handed over by node %u", d->from);
}

static void on_take_back(struct ha_domain *d)
{
    domain_why(d, "node %u took it back: node %u never ran it", d->from, d->owner);
    new_owner(d, d->from, true);
    d->epoch++;
    d->fused = d->from_fused; /* the same process, with or without a fuse */
    d->seen = SEEN(PAUSED);
    forget_move(d);
}

/* Of the owner's copy by its proof; older ones had ended when it was given that epoch. */
static uint64_t quiet(const struct ha_core *c, const struct ha_domain *d)
{
    uint64_t given = d->given_at ? c->now - d->given_at : 0;

    return d->proof != PROOF(LEASE) ? 0 : d->quiet < given ? d->quiet : given;
}

static void on_place(struct ha_core *c, struct ha_domain *d, const struct ha_domain_change *x)
{
    struct ha_local *l;

    new_owner(d, x->node, d->proof != PROOF(SELF) && d->proof != PROOF(NONE));
    d->epoch += 2; /* + 1 is what an incoming copy of a move has, which may be there still */
    d->fused = d->obeys_fuse;
    d->seen = SEEN(GONE);
    d->origin = 0;
    d->awaits = false;
    forget_move(d);
    domain_why(d, "%s", x->text);
    core_note(c, false, "%s: epoch %llu is started by node %u (%s; %s)", d->name,
        (unsigned long long)d->epoch, d->owner, proof_name(d->proof), x->text);
    if (x->node != c->config.node || !c->joined || c->rehearsal)
        return;
    l = host_local(c, d->uuid, true);
    if (l) {
        l->told_epoch = d->epoch;
        l->told_at = c->now;
        l->told_quiet = quiet(c, d);
    }
}

static void on_migrate_end(struct ha_core *c, struct ha_domain *d, const struct ha_domain_change *x)
{
    domain_why(d, "its move to node %u ended: %s", d->to, x->text);
    d->not_before = c->state.time + MOVE_PAUSE_MS;
    forget_move(d);
}

/* What its owner says of it, or a proof in his place. */
static void on_word(struct ha_core *c, struct ha_domain *d, enum ha_domain_event e,
    const struct ha_domain_change *x)
{
    switch (e) {
    case DE_RUNS:
        on_runs(d, x);
        break;
    case DE_GONE:
        on_gone(c, d, x);
        break;
    case DE_SHUTDOWN:
    case DE_CRASHED:
        on_end(c, d, e == DE_SHUTDOWN, x->text);
        break;
    case DE_FAILED:
        domain_why(d, "node %u could not start it: %s", d->owner, x->text);
        failed(c, d);
        d->proof = PROOF(SELF);
        break;
    case DE_STUCK:
        d->blocked = true;
        domain_why(d, "node %u could not stop it: %s", d->owner, x->text);
        break;
    case DE_NEVER_RAN:
        domain_why(d, "node %u will never run it; node %u may take it back", d->owner, d->from);
        break;
    case DE_LOST:
        on_lost(d, x);
        break;
    case DE_FROM_GONE:
        d->proof = PROOF(SELF);
        forget_move(d);
        break;
    default:
        break;
    }
}

/* What is decided about it. */
static void on_decision(struct ha_core *c, struct ha_domain *d, enum ha_domain_event e,
    const struct ha_domain_change *x)
{
    switch (e) {
    case DE_MIGRATE:
        d->to = x->node;
        d->cancel = false;
        break;
    case DE_MIGRATE_END:
        on_migrate_end(c, d, x);
        break;
    case DE_HANDOVER:
        on_handover(d, x);
        break;
    case DE_TAKE_BACK:
        on_take_back(d);
        break;
    case DE_PLACE:
        on_place(c, d, x);
        break;
    case DE_STOP:
    default:
        break;
    }
}

bool domain_event(struct ha_core *c, struct ha_domain *d, enum ha_domain_event e,
    const struct ha_domain_change *change)
{
    int next = next_state[d->state][e];
    uint64_t epoch = d->epoch;

    if (next == NO)
        return false;
    if (e < DE_MIGRATE)
        on_word(c, d, e, change);
    else
        on_decision(c, d, e, change);
    if (d->epoch != epoch)
        d->given_at = c->now;
    if (d->state != (ha_dstate)next || e == DE_HANDOVER)
        d->since = c->state.time;
    d->state = (ha_dstate)next;
    apply_touch(c, d);
    return true;
}

/* --- reports --- */

static int event_of(const Migrd__HaObservation *o)
{
    if (o->failed)
        return DE_FAILED;
    if (o->stuck)
        return DE_STUCK;
    switch (o->seen) {
    case SEEN(RUNNING):
    case SEEN(PAUSED):
        return DE_RUNS;
    case SEEN(GONE):
        return DE_GONE;
    case SEEN(SHUTDOWN):
        return o->by_guest ? DE_SHUTDOWN : DE_CRASHED;
    case SEEN(CRASHED):
        return DE_CRASHED;
    case SEEN(INCOMING):
    default:
        return NO;
    }
}

/* A copy that the log did not order: the domain's, where nobody else has it. */
static void claim(
    struct ha_core *c, struct ha_domain *d, const struct ha_node *n, const Migrd__HaObservation *o)
{
    const struct ha_domain_change end = { .node = n->id, .text = "" };
    bool ended = o->seen == SEEN(CRASHED) || o->seen == SEEN(SHUTDOWN);
    bool free = d->owner == n->id || d->state == DS(WAITING) || d->state == DS(STOPPED);
    /* a host has one copy: what was to be cleaned up there is gone */
    bool cleaned = d->owner == n->id && d->state == DS(CLEANING) && o->epoch > d->epoch;

    if (!ha_node_in(d->unsure, d->n_unsure, n->id) || d->blocked || (!free && d->reread))
        return; /* it is said again */
    if (free && o->epoch >= d->epoch &&
        (d->state == DS(WAITING) || d->state == DS(STOPPED) || d->state == DS(RUNNING) ||
            cleaned)) {
        new_owner(d, n->id, d->proof != PROOF(SELF) && d->proof != PROOF(NONE));
        drop(d->unsure, &d->n_unsure, n->id);
        d->epoch = o->epoch;
        d->given_at = c->now;
        d->state = DS(RUNNING);
        d->since = c->state.time;
        d->seen = o->seen;
        d->fused = d->awaits = false;
        d->reread =
            d->reread && ended; /* what ended here may have been started by hand elsewhere */
        d->want_run = true;
        domain_why(d, "was found on node %u, started by hand", n->id);
        if (ended)
            domain_event(c, d, DE_CRASHED, &end);
    } else {
        d->blocked = true;
        domain_why(d,
            "a copy of epoch %llu is on node %u, while node %u has it under epoch %llu (%s): "
            "destroy "
            "one of them, then release it",
            (unsigned long long)o->epoch, n->id, d->owner, (unsigned long long)d->epoch,
            domain_state_name(d->state));
    }
    core_note(c, d->blocked, "%s: %s", d->name, d->why);
    apply_touch(c, d);
}

void domain_report(
    struct ha_core *c, const struct ha_node *n, const Migrd__HaObservation *o, uint64_t applied)
{
    struct ha_domain *d = state_domain(&c->state, o->uuid);
    struct ha_domain_change x = { .node = n->id,
        .fused = o->fused && c->state.armed != ARMED(DISARMED),
        .seen = o->seen,
        .text = o->text };
    int e = event_of(o);

    if (!d)
        return;
    if (o->claims) {
        claim(c, d, n, o);
        return;
    }
    if (o->clean && d->owner != n->id && applied >= d->asked)
        domain_clean(d, n->id);
    if (d->owner == n->id && e != NO && applied >= d->asked) {
        d->reread = d->reread && e != DE_RUNS;
        drop(d->unsure, &d->n_unsure, n->id);
    }
    if (e == NO)
        return;
    if (d->owner == n->id && d->epoch == o->epoch)
        domain_event(c, d, (enum ha_domain_event)e, &x);
    else if (d->from == n->id && d->state == DS(RETURNED) && d->epoch == o->epoch + 1 &&
             e == DE_GONE)
        domain_event(c, d, DE_FROM_GONE, &x);
}
