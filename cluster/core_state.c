/* SPDX-License-Identifier: ISC */
/* The replicated state in memory, and as a message. */
#include <stdlib.h>

#include "cluster/core_internal.h"

void state_init(struct ha_state *s)
{
    memset(s, 0, sizeof *s);
    s->version = HA_OLDEST;
    s->wake = HA_NEVER;
}

void state_dispose(struct ha_state *s)
{
    for (unsigned i = 0; i < s->n_domains; i++) {
        free(s->domain[i]->definition);
        free(s->domain[i]);
    }
    free(s->domain);
    state_init(s);
}

struct ha_node *state_node(const struct ha_state *s, uint32_t id)
{
    for (unsigned i = 0; i < s->n_node; i++)
        if (s->node[i].id == id)
            return (struct ha_node *)&s->node[i];
    return NULL;
}

struct ha_node *state_node_add(struct ha_state *s, uint32_t id)
{
    struct ha_node *n = state_node(s, id);
    unsigned i = 0;

    if (n)
        return n;
    if (s->n_node == HA_NODES_MAX || id == 0)
        return NULL;
    while (i < s->n_node && s->node[i].id < id)
        i++;
    memmove(&s->node[i + 1], &s->node[i], (s->n_node - i) * sizeof s->node[0]);
    s->n_node++;
    memset(&s->node[i], 0, sizeof s->node[i]);
    s->node[i].id = id;
    return &s->node[i];
}

unsigned ha_uuid_place(const void *list, unsigned n, const char *uuid, bool *found)
{
    unsigned lo = 0, hi = n;

    *found = false;
    while (lo < hi) {
        unsigned mid = lo + (hi - lo) / 2;
        const char *item;
        int cmp;

        memcpy(&item, (const char *)list + mid * sizeof item, sizeof item);
        cmp = strcmp(item, uuid);
        if (cmp == 0) {
            *found = true;
            return mid;
        }
        if (cmp < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct ha_domain *state_domain(const struct ha_state *s, const char *uuid)
{
    bool found;
    unsigned i = ha_uuid_place(s->domain, s->n_domains, uuid, &found);

    return found ? s->domain[i] : NULL;
}

struct ha_domain *state_domain_add(struct ha_state *s, struct ha_arena *a, const char *uuid)
{
    bool found;
    unsigned i = ha_uuid_place(s->domain, s->n_domains, uuid, &found);
    struct ha_domain *d;

    if (found)
        return s->domain[i];
    if (s->n_domains == HA_DOMAINS_MAX)
        return NULL;
    if (s->n_domains == s->cap) {
        s->domain = arena_keep(a, s->domain, (s->cap ? s->cap * 2 : 16) * sizeof s->domain[0]);
        s->cap = s->cap ? s->cap * 2 : 16;
    }
    d = arena_keep(a, NULL, sizeof *d);
    memset(d, 0, sizeof *d);
    ha_copy(d->uuid, sizeof d->uuid, uuid);
    memmove(&s->domain[i + 1], &s->domain[i], (s->n_domains - i) * sizeof s->domain[0]);
    s->domain[i] = d;
    s->n_domains++;
    return d;
}

void state_domain_remove(struct ha_state *s, struct ha_domain *d)
{
    bool found;
    unsigned i = ha_uuid_place(s->domain, s->n_domains, d->uuid, &found);

    s->definitions -= d->definition_len;
    free(d->definition);
    free(d);
    s->n_domains--;
    memmove(&s->domain[i], &s->domain[i + 1], (s->n_domains - i) * sizeof s->domain[0]);
}

void state_define(struct ha_state *s, struct ha_domain *d, struct ha_arena *a,
    const ProtobufCBinaryData *definition)
{
    d->definition = arena_keep(a, d->definition, definition->len);
    if (definition->len)
        memcpy(d->definition, definition->data, definition->len);
    s->definitions += definition->len - d->definition_len;
    d->definition_len = definition->len;
}

bool ha_node_in(const uint32_t *list, unsigned n, uint32_t id)
{
    for (unsigned i = 0; i < n; i++)
        if (list[i] == id)
            return true;
    return false;
}

bool state_majority(const struct ha_state *s, unsigned n)
{
    return n > s->n_nodes / 2;
}

bool ha_uuid_ok(const char *uuid)
{
    return strnlen(uuid, HA_UUID_LEN) == HA_UUID_LEN - 1;
}

/* --- as a message --- */

static Migrd__HaPolicy *policy_message(const struct ha_policy *p, struct ha_arena *a)
{
    Migrd__HaPolicy *m = arena_alloc(a, sizeof *m);

    migrd__ha_policy__init(m);
    m->class_ = p->class;
    m->max_restarts = p->max_restarts;
    m->window_s = p->window_s;
    m->failback_min = p->failback_min;
    m->restart_on_shutdown = p->restart_on_shutdown;
    m->ready_s = p->ready_s;
    m->preferred = (uint32_t *)p->preferred;
    m->n_preferred = p->n_preferred;
    m->only = (uint32_t *)p->only;
    m->n_only = p->n_only;
    m->together = (char *)p->together;
    m->together_hard = p->together_hard;
    m->apart = (char *)p->apart;
    m->apart_hard = p->apart_hard;
    m->stop_s = p->stop_s;
    m->start_s = p->start_s;
    return m;
}

static void failures_message(const struct ha_domain *d, struct ha_arena *a, Migrd__HaDomain *m)
{
    Migrd__HaFailure *f = arena_alloc(a, d->n_failed * sizeof *f + 1);

    m->failed = arena_alloc(a, d->n_failed * sizeof *m->failed + 1);
    m->n_failed = d->n_failed;
    for (unsigned i = 0; i < d->n_failed; i++) {
        migrd__ha_failure__init(&f[i]);
        f[i].node = d->failed[i].node;
        f[i].count = d->failed[i].count;
        f[i].since = d->failed[i].since;
        m->failed[i] = &f[i];
    }
}

Migrd__HaDomain *domain_message(const struct ha_domain *d, struct ha_arena *a)
{
    Migrd__HaDomain *m = arena_alloc(a, sizeof *m);

    migrd__ha_domain__init(m);
    m->uuid = (char *)d->uuid;
    m->name = (char *)d->name;
    m->epoch = d->epoch;
    m->owner = d->owner;
    m->state = d->state;
    m->want_run = d->want_run;
    m->policy = policy_message(&d->policy, a);
    m->memory_kib = d->memory_kib;
    m->vcpus = d->vcpus;
    m->definition = (ProtobufCBinaryData){ d->definition_len, d->definition };
    m->seen = d->seen;
    m->obeys_fuse = d->obeys_fuse;
    m->fused = d->fused;
    m->proof = d->proof;
    m->to = d->to;
    m->from = d->from;
    m->move = d->move;
    m->cancel = d->cancel;
    m->origin = d->origin;
    m->failures = d->failures;
    failures_message(d, a, m);
    m->since = d->since;
    m->not_before = d->not_before;
    m->why = (char *)d->why;
    m->blocked = d->blocked;
    m->awaits = d->awaits;
    m->old = (uint32_t *)d->old;
    m->n_old = d->n_old;
    m->unsure = (uint32_t *)d->unsure;
    m->n_unsure = d->n_unsure;
    m->reread = d->reread;
    m->asked = d->asked;
    m->from_fused = d->from_fused;
    m->quiet = d->quiet;
    return m;
}

static Migrd__HaNode *node_message(const struct ha_node *n, struct ha_arena *a)
{
    Migrd__HaNode *m = arena_alloc(a, sizeof *m);

    migrd__ha_node__init(m);
    m->id = n->id;
    m->name = (char *)n->name;
    m->state = n->state;
    m->member = n->member;
    m->incarnation = n->incarnation;
    m->life = n->life;
    m->floor = n->floor;
    m->boot_id = (char *)n->boot_id;
    m->version = n->version;
    m->request = n->request;
    m->memory_kib = n->memory_kib;
    m->cpus = n->cpus;
    m->others_kib = n->others_kib;
    m->starts_at_once = n->starts_at_once;
    m->moves_at_once = n->moves_at_once;
    m->ready = n->ready;
    m->votes = (uint32_t *)n->votes;
    m->n_votes = n->n_votes;
    m->drain = n->drain;
    m->losses = (uint64_t *)n->losses;
    m->n_losses = n->n_losses;
    m->quarantined = n->quarantined;
    m->since = n->since;
    m->why = (char *)n->why;
    m->fencing = n->fencing;
    m->holds = n->holds;
    m->quiet = n->quiet;
    return m;
}

Migrd__HaState *state_message(const struct ha_state *s, struct ha_arena *a)
{
    Migrd__HaState *m = arena_alloc(a, sizeof *m);

    migrd__ha_state__init(m);
    m->version = s->version;
    m->term = s->term;
    m->index = s->index;
    m->chain = s->chain;
    m->time = s->time;
    m->nodes = (uint32_t *)s->nodes;
    m->n_nodes = s->n_nodes;
    m->armed = s->armed;
    m->times = (uint32_t *)s->times;
    m->n_times = s->times[0] ? HA_LOG_TIMES : 0;
    m->n_node = s->n_node;
    m->node = arena_alloc(a, s->n_node * sizeof *m->node + 1);
    for (unsigned i = 0; i < s->n_node; i++)
        m->node[i] = node_message(&s->node[i], a);
    m->n_domain = s->n_domains;
    m->domain = arena_alloc(a, s->n_domains * sizeof *m->domain + 1);
    for (unsigned i = 0; i < s->n_domains; i++)
        m->domain[i] = domain_message(s->domain[i], a);
    return m;
}

/* --- from a message: limits only; what it means was decided where it was made --- */

static unsigned numbers(uint32_t *to, unsigned max, const uint32_t *from, size_t n)
{
    if (n > max)
        n = max;
    if (n)
        memcpy(to, from, n * sizeof *to);
    return (unsigned)n;
}

void policy_read(struct ha_policy *p, const Migrd__HaPolicy *m)
{
    memset(p, 0, sizeof *p);
    if (!m)
        return;
    p->class = m->class_;
    p->max_restarts = m->max_restarts;
    p->window_s = m->window_s;
    p->failback_min = m->failback_min;
    p->restart_on_shutdown = m->restart_on_shutdown;
    p->ready_s = m->ready_s;
    p->n_preferred = numbers(p->preferred, HA_PREFERRED_MAX, m->preferred, m->n_preferred);
    p->n_only = numbers(p->only, HA_NODES_MAX, m->only, m->n_only);
    ha_copy(p->together, sizeof p->together, m->together);
    p->together_hard = m->together_hard;
    ha_copy(p->apart, sizeof p->apart, m->apart);
    p->apart_hard = m->apart_hard;
    p->stop_s = m->stop_s;
    p->start_s = m->start_s;
}

static void failures_read(struct ha_domain *d, const Migrd__HaDomain *m)
{
    d->n_failed = m->n_failed < HA_FAILED_MAX ? (unsigned)m->n_failed : HA_FAILED_MAX;
    for (unsigned i = 0; i < d->n_failed; i++)
        d->failed[i] = (struct ha_failure){
            .node = m->failed[i]->node, .count = m->failed[i]->count, .since = m->failed[i]->since
        };
}

static void domain_read(
    struct ha_state *s, struct ha_arena *a, struct ha_domain *d, const Migrd__HaDomain *m)
{
    ha_copy(d->name, sizeof d->name, m->name);
    d->epoch = m->epoch;
    d->owner = m->owner;
    d->state = m->state;
    d->want_run = m->want_run;
    policy_read(&d->policy, m->policy);
    d->memory_kib = m->memory_kib;
    d->vcpus = m->vcpus;
    state_define(s, d, a, &m->definition);
    d->seen = m->seen;
    d->obeys_fuse = m->obeys_fuse;
    d->fused = m->fused;
    d->proof = m->proof;
    d->to = m->to;
    d->from = m->from;
    d->move = m->move;
    d->cancel = m->cancel;
    d->origin = m->origin;
    d->failures = m->failures;
    failures_read(d, m);
    d->since = m->since;
    d->not_before = m->not_before;
    ha_copy(d->why, sizeof d->why, m->why);
    d->blocked = m->blocked;
    d->awaits = m->awaits;
    d->n_old = numbers(d->old, HA_NODES_MAX, m->old, m->n_old);
    d->n_unsure = numbers(d->unsure, HA_NODES_MAX, m->unsure, m->n_unsure);
    d->reread = m->reread;
    d->asked = m->asked;
    d->from_fused = m->from_fused;
    d->quiet = m->quiet;
}

static void node_read(struct ha_node *n, const Migrd__HaNode *m)
{
    ha_copy(n->name, sizeof n->name, m->name);
    n->state = m->state;
    n->member = m->member;
    n->incarnation = m->incarnation;
    n->life = m->life;
    n->floor = m->floor;
    ha_copy(n->boot_id, sizeof n->boot_id, m->boot_id);
    n->version = m->version;
    n->request = m->request;
    n->memory_kib = m->memory_kib;
    n->cpus = m->cpus;
    n->others_kib = m->others_kib;
    n->starts_at_once = m->starts_at_once;
    n->moves_at_once = m->moves_at_once;
    n->ready = m->ready;
    n->n_votes = numbers(n->votes, HA_NODES_MAX, m->votes, m->n_votes);
    n->drain = m->drain;
    n->n_losses = m->n_losses < HA_LOSSES_MAX ? (unsigned)m->n_losses : HA_LOSSES_MAX;
    for (unsigned i = 0; i < n->n_losses; i++)
        n->losses[i] = m->losses[i];
    n->quarantined = m->quarantined;
    n->since = m->since;
    ha_copy(n->why, sizeof n->why, m->why);
    n->fencing = m->fencing;
    n->holds = m->holds;
    n->quiet = m->quiet;
}

static int domains_read(
    struct ha_state *s, struct ha_arena *a, const Migrd__HaState *m, struct err *e)
{
    for (size_t i = 0; i < m->n_domain; i++) {
        const Migrd__HaDomain *d = m->domain[i];

        if (!ha_uuid_ok(d->uuid) || (unsigned)d->state >= DS_MAX ||
            d->definition.len > HA_DEFINITION_MAX ||
            (i > 0 && strcmp(m->domain[i - 1]->uuid, d->uuid) >= 0))
            return err_set(e, ERR_PROTOCOL, "state of the cluster: domain %zu is damaged", i);
        domain_read(s, a, state_domain_add(s, a, d->uuid), d);
    }
    return 0;
}

static int nodes_read(struct ha_state *s, const Migrd__HaState *m, struct err *e)
{
    for (size_t i = 0; i < m->n_node; i++) {
        struct ha_node *n;

        if (m->node[i]->id == 0 || (unsigned)m->node[i]->state >= NS_MAX ||
            (i > 0 && m->node[i - 1]->id >= m->node[i]->id))
            return err_set(e, ERR_PROTOCOL, "state of the cluster: node %zu is damaged", i);
        n = state_node_add(s, m->node[i]->id);
        node_read(n, m->node[i]);
    }
    return 0;
}

int ha_state_parse(
    struct ha_state *s, struct ha_arena *a, const uint8_t *bytes, size_t len, struct err *e)
{
    ProtobufCAllocator pa = arena_protobuf(a);
    Migrd__HaState *m = len <= HA_STATE_MAX ? migrd__ha_state__unpack(&pa, len, bytes) : NULL;

    if (!m)
        return err_set(e, ERR_PROTOCOL, "state of the cluster: %zu bytes that are none", len);
    if (m->n_node > HA_NODES_MAX || m->n_nodes > HA_NODES_MAX || m->n_domain > HA_DOMAINS_MAX)
        return err_set(e, ERR_PROTOCOL, "state of the cluster: %zu nodes, %zu domains are too many",
            m->n_node, m->n_domain);
    s->version = m->version;
    s->term = m->term;
    s->index = m->index;
    s->chain = m->chain;
    s->time = m->time;
    s->n_nodes = numbers(s->nodes, HA_NODES_MAX, m->nodes, m->n_nodes);
    s->armed = m->armed;
    if (m->n_times == HA_LOG_TIMES)
        numbers(s->times, HA_LOG_TIMES, m->times, m->n_times);
    if (nodes_read(s, m, e) < 0 || domains_read(s, a, m, e) < 0)
        return -1;
    return 0;
}
