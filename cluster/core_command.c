/* SPDX-License-Identifier: ISC */
/* Operators' commands and the hand-over's questions: asked here, decided by the log. */
#include "cluster/core_internal.h"
#include "cluster/mutant.h"

#define DEFINITIONS_MAX ((size_t)32 << 20)

static void no(struct ha_core *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void no(struct ha_core *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(c->said, sizeof c->said, fmt, ap);
    va_end(ap);
    c->ok = false;
}

/* --- domains --- */

static void add(struct ha_core *c, const struct ha_node *by, const Migrd__HaCommand *m)
{
    struct ha_state *s = &c->state;
    const Migrd__HaDomain *x = m->domain;
    struct ha_domain *d;

    if (!x || !ha_uuid_ok(x->uuid) || x->definition.len > HA_DEFINITION_MAX) {
        no(c, "no domain, or a definition of more than %u bytes", HA_DEFINITION_MAX);
        return;
    }
    if (state_domain(s, x->uuid) || s->definitions + x->definition.len > DEFINITIONS_MAX) {
        no(c, "%s is protected already, or the definitions have become too many", x->name);
        return;
    }
    if ((m->node && m->node != by->id) || !(d = state_domain_add(s, &c->arena, x->uuid))) {
        no(c, "%s: ask on the host where it runs; at most %u domains", x->name, HA_DOMAINS_MAX);
        return;
    }
    ha_copy(d->name, sizeof d->name, x->name);
    d->epoch = m->epoch;
    d->given_at = c->now;
    policy_read(&d->policy, x->policy);
    d->memory_kib = x->memory_kib;
    d->vcpus = x->vcpus;
    state_define(s, d, &c->arena, &x->definition);
    d->obeys_fuse = x->obeys_fuse;
    d->want_run = x->want_run || m->node;
    d->since = s->time;
    d->owner = m->node;
    d->state = m->node ? DS(RUNNING) : DS(STOPPED);
    d->seen = m->node ? SEEN(RUNNING) : SEEN(GONE);
    if (!c->rehearsal) /* in a plan they have answered */
        domain_ask(s, d);
    domain_why(d, "added on node %u", by->id);
    apply_touch(c, d);
}

static void drop(struct ha_core *c, struct ha_domain *d, bool force)
{
    const struct ha_node *n = state_node(&c->state, d->owner);

    if (d->state != DS(STOPPED) && d->state != DS(WAITING) && d->state != DS(RUNNING)) {
        no(c, "%s is %s: wait until that has ended", d->name, domain_state_name(d->state));
        return;
    }
    if (d->state == DS(RUNNING) && (!n || n->state != NS(ONLINE)) && !force) {
        no(c, "%s may run on node %u, which is away; --force forgets it all the same", d->name,
            d->owner);
        return;
    }
    if (d->n_old && !force) {
        no(c,
            "node %u may still have an older copy of %s, which only its record keeps from "
            "running: wait until it is back, or --force if it never comes",
            d->old[0], d->name);
        return;
    }
    apply_touch(c, d);
    state_domain_remove(&c->state, d);
}

static bool named(const Migrd__HaCommand *m, const char *field)
{
    for (size_t i = 0; i < m->n_set; i++)
        if (strcmp(m->set[i], field) == 0)
            return true;
    return false;
}

static void set(struct ha_core *c, struct ha_domain *d, const Migrd__HaCommand *m)
{
    const Migrd__HaDomain *x = m->domain;

    if (!x || x->definition.len > HA_DEFINITION_MAX) {
        no(c, "nothing to set, or a definition of more than %u bytes", HA_DEFINITION_MAX);
        return;
    }
    if (named(m, "policy"))
        policy_read(&d->policy, x->policy);
    if (named(m, "memory_kib"))
        d->memory_kib = x->memory_kib;
    if (named(m, "vcpus"))
        d->vcpus = x->vcpus;
    if (named(m, "definition"))
        state_define(&c->state, d, &c->arena, &x->definition);
    if (named(m, "want_run")) {
        d->want_run = x->want_run;
        d->failures = d->n_failed = 0;
        d->not_before = 0;
        domain_why(d, "an operator wants it to %s%s%s", x->want_run ? "run" : "stop",
            *m->who ? ", " : "", m->who);
    }
    apply_touch(c, d);
}

static bool move_ok(struct ha_core *c, const struct ha_domain *d, uint32_t node)
{
    char text[HA_WHY_LEN];

    if (plan_move(&c->state, &c->arena, d, node, text))
        return true;
    no(c, "%s can't go to node %u, which %s", d->name, node, text);
    return false;
}

static void migrate(struct ha_core *c, struct ha_domain *d, const Migrd__HaCommand *m)
{
    struct ha_domain_change x = { .node = m->node, .text = "" };

    if (!move_ok(c, d, m->node))
        return;
    if (!domain_event(c, d, DE_MIGRATE, &x)) {
        no(c, "%s is %s", d->name, domain_state_name(d->state));
        return;
    }
    d->move = MOVE(OPERATOR);
    domain_why(d, "an operator moves it to node %u", m->node);
}

static void cancel(struct ha_core *c, struct ha_domain *d)
{
    if (d->state != DS(MIGRATING)) {
        no(c, "%s is %s, it does not move", d->name, domain_state_name(d->state));
        return;
    }
    d->cancel = true;
    apply_touch(c, d);
}

/* --- the hand-over --- */

static bool owns(
    struct ha_core *c, const struct ha_domain *d, const struct ha_node *by, uint64_t epoch)
{
    if (d->owner == by->id && d->epoch == epoch)
        return true;
    no(c, "%s belongs to node %u under epoch %llu (%s)", d->name, d->owner,
        (unsigned long long)d->epoch, domain_state_name(d->state));
    return false;
}

/* The target of a move that was begun has room; it must still be there. */
static bool target_ok(struct ha_core *c, const struct ha_domain *d, uint32_t node)
{
    const struct ha_node *n = state_node(&c->state, node);

    if (d->state != DS(MIGRATING) || d->to != node)
        return move_ok(c, d, node);
    if (n && n->state == NS(ONLINE) && n->member)
        return true;
    no(c, "%s can't go to node %u, which is %s", d->name, node,
        n ? node_state_name(n->state) : "unknown to the cluster");
    return false;
}

static void migrate_begin(
    struct ha_core *c, struct ha_domain *d, const struct ha_node *by, const Migrd__HaCommand *m)
{
    struct ha_domain_change x = { .node = m->node, .text = "" };

    if (!owns(c, d, by, m->epoch))
        return;
    if (d->state == DS(MIGRATING) && d->to == m->node)
        return;
    if (!move_ok(c, d, m->node))
        return;
    if (!domain_event(c, d, DE_MIGRATE, &x))
        no(c, "%s is %s", d->name, domain_state_name(d->state));
    else
        domain_why(d, "node %u sends it to node %u", d->owner, m->node);
}

static void handover(
    struct ha_core *c, struct ha_domain *d, const struct ha_node *by, const Migrd__HaCommand *m)
{
    struct ha_domain_change x = { .node = m->node, .text = "" };

    if (d->owner == m->node && d->epoch == m->epoch + 1 && d->state == DS(HANDED) &&
        d->from == by->id)
        return; /* asked again */
    if ((!mutant(MUTANT_HANDOVER) && !owns(c, d, by, m->epoch)) || !target_ok(c, d, m->node))
        return;
    if (d->state == DS(MIGRATING) && d->to != m->node)
        no(c, "%s moves to node %u, not to node %u", d->name, d->to, m->node);
    else if (!domain_event(c, d, DE_HANDOVER, &x))
        no(c, "%s is %s", d->name, domain_state_name(d->state));
}

static void take_back(
    struct ha_core *c, struct ha_domain *d, const struct ha_node *by, const Migrd__HaCommand *m)
{
    struct ha_domain_change x = { .node = by->id, .text = "" };

    if (d->owner == by->id && d->epoch == m->epoch + 1 && d->state == DS(RUNNING))
        return; /* asked again */
    if (d->from != by->id || d->epoch != m->epoch || !domain_event(c, d, DE_TAKE_BACK, &x))
        no(c, "%s belongs to node %u under epoch %llu (%s)", d->name, d->owner,
            (unsigned long long)d->epoch, domain_state_name(d->state));
}

static void never_ran(
    struct ha_core *c, struct ha_domain *d, const struct ha_node *by, const Migrd__HaCommand *m)
{
    struct ha_domain_change x = { .node = by->id, .text = "" };

    if (d->owner == by->id && d->epoch == m->epoch && d->state != DS(RETURNED) &&
        !domain_event(c, d, DE_NEVER_RAN, &x))
        no(c, "%s is %s", d->name, domain_state_name(d->state));
}

static void migrate_end(
    struct ha_core *c, struct ha_domain *d, const struct ha_node *by, const Migrd__HaCommand *m)
{
    struct ha_domain_change x = { .node = by->id, .text = *m->text ? m->text : "no reason given" };

    if (d->owner == by->id && d->epoch == m->epoch)
        domain_event(c, d, DE_MIGRATE_END, &x);
}

static void domain_command(
    struct ha_core *c, struct ha_domain *d, const struct ha_node *by, const Migrd__HaCommand *m)
{
    switch (m->kind) {
    case KIND(REMOVE):
        drop(c, d, m->force);
        break;
    case KIND(SET):
        set(c, d, m);
        break;
    case KIND(MIGRATE):
        migrate(c, d, m);
        break;
    case KIND(CANCEL):
        cancel(c, d);
        break;
    case KIND(RELEASE):
        d->blocked = false;
        apply_touch(c, d);
        break;
    case KIND(MIGRATE_BEGIN):
        migrate_begin(c, d, by, m);
        break;
    case KIND(HANDOVER):
        handover(c, d, by, m);
        break;
    case KIND(TAKE_BACK):
        take_back(c, d, by, m);
        break;
    case KIND(NEVER_RAN):
        never_ran(c, d, by, m);
        break;
    case KIND(MIGRATE_END):
        migrate_end(c, d, by, m);
        break;
    case KIND(OWNER):
        break;
    default:
        no(c, "command %d is unknown here", m->kind);
    }
}

/* --- nodes --- */

static void drain_on(struct ha_core *c, struct ha_node *n)
{
    n->drain = true;
    ha_text(n->why, sizeof n->why, "being drained");
    (void)c;
}

static void drain_off(struct ha_core *c, struct ha_node *n, bool return_home)
{
    n->drain = false;
    n->why[0] = 0;
    for (unsigned i = 0; i < c->state.n_domains; i++) {
        struct ha_domain *d = c->state.domain[i];

        if (d->state == DS(MIGRATING) && d->move == MOVE(DRAIN) && d->owner == n->id) {
            d->cancel = true;
            apply_touch(c, d);
        }
        if (d->origin == n->id && !return_home)
            d->origin = 0;
    }
}

/* A person's word is about the host as the log had it then. It may have waited for long in a queue
 * of a node that was cut off, while that host came back. */
static void confirm_dead(struct ha_core *c, struct ha_node *n, const Migrd__HaCommand *m)
{
    char text[HA_WHY_LEN];

    if (n->incarnation != m->incarnation || n->request != m->request) {
        no(c, "node %u has taken part in the cluster since that was said: look at it again", n->id);
        return;
    }
    ha_text(
        text, sizeof text, "%s%s%s", *m->who ? m->who : "somebody", *m->text ? ", " : "", m->text);
    node_fenced(c, n->id, n->incarnation, n->life, PROOF(OPERATOR), text);
}

static void node_command(struct ha_core *c, struct ha_node *n, const Migrd__HaCommand *m)
{
    switch (m->kind) {
    case KIND(DRAIN):
        drain_on(c, n);
        break;
    case KIND(UNDRAIN):
        drain_off(c, n, m->return_home);
        break;
    case KIND(RELEASE):
        n->quarantined = 0;
        n->n_losses = 0;
        break;
    case KIND(CONFIRM_DEAD):
        confirm_dead(c, n, m);
        break;
    default:
        no(c, "command %d is not one for a node", m->kind);
    }
}

/* What people did by hand meanwhile is asked for before anything is decided. */
static void arm(struct ha_core *c)
{
    bool again = c->state.armed == ARMED(DISARMED);

    c->state.armed = ARMED(ARMED);
    for (unsigned i = 0; i < c->state.n_domains; i++) {
        struct ha_domain *d = c->state.domain[i];

        if (again) {
            domain_ask(&c->state, d);
            d->reread = true;
        }
        apply_touch(c, d);
    }
}

void command_apply(struct ha_core *c, struct ha_node *by, const Migrd__HaCommand *m)
{
    struct ha_domain *d = state_domain(&c->state, m->uuid);
    struct ha_node *n = state_node(&c->state, m->node);

    if (m->kind == KIND(ADD))
        add(c, by, m);
    else if (m->kind == KIND(DISARM) && c->state.armed == ARMED(ARMED))
        c->state.armed = ARMED(DISARMING);
    else if (m->kind == KIND(ARM))
        arm(c);
    else if (m->kind == KIND(DISARM))
        no(c, "high availability is disarmed already, or about to be");
    else if (*m->uuid && d)
        domain_command(c, d, by, m);
    else if (*m->uuid)
        no(c, "domain %s is not protected", m->uuid);
    else if (n)
        node_command(c, n, m);
    else
        no(c, "node %u is unknown to the cluster", m->node);
}

/* --- asked here --- */

/* The state after it, tried on a copy. */
static Migrd__HaPlan *rehearse(struct ha_core *c, const Migrd__HaCommand *m)
{
    struct ha_state real = c->state;
    size_t actions = c->n_actions;
    Migrd__HaState *copy = state_message(&real, &c->arena);
    size_t len = migrd__ha_state__get_packed_size(copy);
    uint8_t *bytes = arena_alloc(&c->arena, len);
    Migrd__HaPlan *plan;
    struct err e;

    migrd__ha_state__pack(copy, bytes);
    state_init(&c->state);
    c->rehearsal = true;
    c->ok = true;
    c->said[0] = 0;
    if (ha_state_parse(&c->state, &c->arena, bytes, len, &e) < 0)
        no(c, "%s", e.text);
    else
        command_apply(c, state_node(&c->state, c->config.node), m);
    decide(c);
    plan = plan_certificate(&c->state, &c->arena, 1);
    state_dispose(&c->state);
    c->state = real;
    c->rehearsal = false;
    c->n_actions = actions;
    return plan;
}

static bool weighs(Migrd__HaCommandKind kind)
{
    return kind == KIND(ADD) || kind == KIND(SET) || kind == KIND(DRAIN) || kind == KIND(MIGRATE);
}

/* Why the first domain without a place has none: what the nodes that are left have against it, as
 * far as a request's text (HA_WHY_LEN) has room. */
static const char *first_without(struct ha_core *c, const Migrd__HaPlan *plan)
{
    const size_t room = 100;
    const Migrd__HaPlanStep *step = NULL;
    const char *text = "";

    for (size_t i = 0; i < plan->n_step && !step; i++)
        if (!plan->step[i]->node)
            step = plan->step[i];
    for (size_t i = 0; step && i < step->n_rejected; i++) {
        const Migrd__HaRejected *r = step->rejected[i];

        if (ha_node_in(plan->dead, (unsigned)plan->n_dead, r->node))
            continue;
        if (strlen(text) + strlen(r->reason) > room && *text)
            return arena_text(&c->arena, ": %s:%s; and others", step->name, text);
        text = arena_text(&c->arena, "%s%s node %u %s", text, *text ? ";" : "", r->node, r->reason);
    }
    return *text ? arena_text(&c->arena, ": %s:%s", step->name, text) : "";
}

static const char *warning(struct ha_core *c, const Migrd__HaPlan *after)
{
    const Migrd__HaPlan *before = plan_certificate(&c->state, &c->arena, 1);

    if (!before->holds || after->holds)
        return "";
    return arena_text(&c->arena,
        "with this, the loss of node %u would leave %u domain%s without a place%s",
        after->n_dead ? after->dead[0] : 0, after->lost, after->lost == 1 ? "" : "s",
        first_without(c, after));
}

static const char *why_not_now(const struct ha_core *c)
{
    if (!core_active(c))
        return arena_text((struct ha_arena *)&c->arena, "nothing can be decided: %s", c->log.why);
    if (!c->joined)
        return "the cluster's log has not admitted this host yet";
    if (c->n_requests >= HA_REQUESTS_MAX / 2)
        return "too much waits to be decided already; try again";
    return NULL;
}

/* What the asker's log has stands for what it leaves open. */
static void complete(const struct ha_core *c, Migrd__HaCommand *m)
{
    const struct ha_node *n = state_node(&c->state, m->node);

    if (m->kind != KIND(CONFIRM_DEAD) || m->incarnation || !n)
        return;
    m->incarnation = n->incarnation;
    m->request = n->request;
}

void command_event(struct ha_core *c, const Migrd__HaCommand *asked)
{
    const char *why = why_not_now(c), *warn = "";
    Migrd__HaCommand whole = *asked, *m = &whole;
    Migrd__HaEntry e = MIGRD__HA_ENTRY__INIT;
    Migrd__HaPlan *plan = NULL;

    complete(c, m);
    if (why || migrd__ha_command__get_packed_size(m) > HA_MESSAGE_MAX / 2) {
        request_answer(c, m->id, m->uuid, false, why ? why : "the command is too long", "", NULL);
        return;
    }
    if (weighs(m->kind) || m->dry_run) {
        plan = rehearse(c, m);
        warn = warning(c, plan);
    }
    if (m->dry_run) {
        request_answer(c, m->id, m->uuid, c->ok, c->said, warn, plan);
        return;
    }
    e.command = m;
    request_send(c, &e, m, NULL);
    ha_copy(c->request[c->n_requests - 1].warning, HA_WHY_LEN, warn);
}

bool command_outcome(struct ha_core *c, const struct ha_request *r, char *text, size_t size)
{
    const struct ha_domain *d = state_domain(&c->state, r->uuid);

    ha_text(text, size, "decided while this host caught up; its record says the rest");
    if (r->kind == KIND(HANDOVER))
        return d && d->epoch == r->epoch + 1 && d->owner == r->node && d->proof == PROOF(SELF) &&
               (d->state == DS(HANDED) || d->state == DS(RUNNING));
    if (r->kind == KIND(TAKE_BACK))
        return d && d->epoch == r->epoch + 1 && d->owner == c->config.node;
    if (r->kind == KIND(ADD) || r->kind == KIND(REMOVE))
        return (d != NULL) == (r->kind == KIND(ADD));
    return true;
}
