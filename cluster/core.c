/* SPDX-License-Identifier: ISC */
#include "cluster/core.h"

#include <stdlib.h>

#include "cluster/core_internal.h"

#define TICK_RANK 4 /* beats between the lowest member's turn to tick and the next one's */

/* --- actions
 * --------------------------------------------------------------------------------------------- */

struct ha_action *core_act(struct ha_core *c, enum ha_action_type type)
{
    struct ha_action *a;

    if (c->n_actions == c->cap_actions) {
        size_t cap = c->cap_actions ? c->cap_actions * 2 : 64;

        c->action = arena_keep(&c->arena, c->action, cap * sizeof *a);
        c->cap_actions = cap;
    }
    a = &c->action[c->n_actions++];
    memset(a, 0, sizeof *a);
    a->type = type;
    a->text = "";
    return a;
}

uint64_t core_id(struct ha_core *c)
{
    return ++c->next_id;
}

void core_note(struct ha_core *c, bool alarm, const char *fmt, ...)
{
    char text[500];
    struct ha_action *a;
    va_list ap;

    if (c->rehearsal)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    a = core_act(c, HA_ACT_NOTE);
    a->alarm = alarm;
    a->text = arena_text(&c->arena, "%s", text);
}

/* --- small questions
 * ---------------------------------------------------------------------------------------- */

int core_slot(const struct ha_core *c, uint32_t node)
{
    for (unsigned i = 0; i < c->config.n_nodes; i++)
        if (c->config.nodes[i] == node)
            return (int)i;
    return -1;
}

unsigned core_majority(const struct ha_core *c)
{
    return c->config.n_nodes / 2 + 1;
}

uint64_t core_log_time(const struct ha_core *c)
{
    return c->state.time + (c->now - c->applied_at);
}

bool core_active(const struct ha_core *c)
{
    return c->log.phase == PHASE(ACTIVE);
}

/* --- time
 * ------------------------------------------------------------------------------------------------------
 */

/* When the log's next time is ours to tell: the lowest member's at once, the others' later. */
static uint64_t tick_at(const struct ha_core *c)
{
    const struct ha_state *s = &c->state;
    uint64_t rank = 0;

    if (!core_active(c) || !c->joined || c->ticking || s->wake == HA_NEVER)
        return HA_NEVER;
    while (rank < c->log.n_members && c->log.members[rank] != c->config.node)
        rank++;
    return c->applied_at + (s->wake > s->time ? s->wake - s->time : 0) +
           rank * TICK_RANK * c->config.times.beat;
}

static void tick(struct ha_core *c)
{
    Migrd__HaEntry e = MIGRD__HA_ENTRY__INIT;
    Migrd__HaTick t = MIGRD__HA_TICK__INIT;

    if (c->now < tick_at(c) || !request_room(c))
        return;
    e.tick = &t;
    request_send(c, &e, NULL, &c->ticking);
}

static void watchdog(struct ha_core *c)
{
    if (c->config.times.watchdog == 0 || c->rebel || c->now < c->pet_at)
        return;
    core_act(c, HA_ACT_WATCHDOG)->deadline = c->now + c->config.times.watchdog;
    c->pet_at = c->now + c->config.times.watchdog / 4;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* --- the step
 * ---------------------------------------------------------------------------------------------------
 */

static void dispatch(struct ha_core *c, const struct ha_event *e)
{
    switch (e->type) {
    case HA_EV_VIEW:
        log_view(c, e->u.view.members, e->u.view.n);
        break;
    case HA_EV_QUORUM:
        c->quorate = e->u.quorate;
        break;
    case HA_EV_MESSAGE:
        log_message(c, e->u.message.from, e->u.message.bytes, e->u.message.len);
        break;
    case HA_EV_BEAT:
        lease_beat(c, e->u.message.from, e->u.message.bytes, e->u.message.len);
        break;
    case HA_EV_PERSISTED:
        log_persisted(c, e->u.id);
        break;
    case HA_EV_DOMAIN:
        host_event_domain(c, e);
        break;
    case HA_EV_HOST:
        host_event_host(c, e);
        break;
    case HA_EV_RESULT:
        host_event_result(c, e);
        break;
    case HA_EV_COMMAND:
        command_event(c, e->u.command);
        break;
    case HA_EV_TIME:
    case HA_EV_MAX:
        break;
    }
}

static void step(struct ha_core *c, const struct ha_event *e)
{
    lease_tilt(c);
    dispatch(c, e);
    log_time(c);
    lease_time(c);
    request_time(c);
    host_time(c);
    tick(c);
    watchdog(c);
    host_reconcile(c);
    c->expected = earlier(earlier(lease_wake(c), log_wake(c)), tick_at(c));
    c->stepped = true;
}

void ha_step(struct ha_core *c, const struct ha_event *e, uint64_t now, struct ha_actions *out)
{
    *out = (struct ha_actions){ .wake = now + c->config.times.beat };
    if (c->dead)
        return;
    if (now > c->now)
        c->now = now;
    c->n_actions = 0;
    arena_reset(&c->arena);
    if (setjmp(c->oom) != 0) {
        c->dead = true;
        return;
    }
    step(c, e);
    if (c->expected < c->now)
        c->expected = c->now;
    *out = (struct ha_actions){ c->action, c->n_actions, c->expected };
}

/* --- birth and death
 * -----------------------------------------------------------------------------------------------
 */

static int config_check(const struct ha_config *config, struct err *e)
{
    bool here = false;

    if (config->n_nodes == 0 || config->n_nodes > HA_NODES_MAX)
        return err_set(
            e, ERR_INVALID, "a cluster has 1 to %u nodes, not %u", HA_NODES_MAX, config->n_nodes);
    for (unsigned i = 0; i < config->n_nodes; i++) {
        here |= config->nodes[i] == config->node;
        if (config->nodes[i] == 0 || ha_node_in(config->nodes, i, config->nodes[i]))
            return err_set(e, ERR_INVALID, "node id %u is 0 or there twice", config->nodes[i]);
    }
    if (!here || config->incarnation == 0)
        return err_set(e, ERR_INVALID,
            "node %u is not one of the configured nodes, or has no incarnation", config->node);
    return ha_times_check(&config->times, e);
}

static void sort_nodes(struct ha_config *config)
{
    for (unsigned i = 1; i < config->n_nodes; i++)
        for (unsigned j = i; j > 0 && config->nodes[j - 1] > config->nodes[j]; j--) {
            uint32_t swap = config->nodes[j];

            config->nodes[j] = config->nodes[j - 1];
            config->nodes[j - 1] = swap;
        }
}

static int load(struct ha_core *c, const struct ha_record *saved, size_t n, struct err *e)
{
    if (setjmp(c->oom) != 0)
        return err_set(e, ERR_MEMORY, "no memory for the cluster's saved state");
    c->request = arena_keep(&c->arena, NULL, HA_REQUESTS_MAX * sizeof *c->request);
    state_init(&c->state);
    c->me = (unsigned)core_slot(c, c->config.node);
    if (log_load(c, saved, n, e) < 0)
        return -1;
    c->applied_at = c->now;
    lease_init(c);
    return 0;
}

struct ha_core *ha_core_new(const struct ha_config *config, const struct ha_record *saved, size_t n,
    uint64_t now, struct err *e)
{
    struct ha_core *c;

    if (config_check(config, e) < 0)
        return NULL;
    c = calloc(1, sizeof *c);
    if (!c) {
        err_set(e, ERR_MEMORY, "no memory for the cluster's decision core");
        return NULL;
    }
    c->config = *config;
    c->now = now;
    sort_nodes(&c->config);
    arena_init(&c->arena, &c->oom);
    if (load(c, saved, n, e) < 0)
        ha_core_free(&c);
    return c;
}

void ha_core_free(struct ha_core **cp)
{
    struct ha_core *c = *cp;

    if (!c)
        return;
    request_dispose(c);
    log_dispose(c);
    host_dispose(c);
    state_dispose(&c->state);
    arena_free(&c->arena);
    free(c->action);
    free(c);
    *cp = NULL;
}

/* --- for people
 * ------------------------------------------------------------------------------------------------------
 */

static void local_message(const struct ha_core *c, struct ha_arena *a, Migrd__HaState *m)
{
    Migrd__HaLocal *l = arena_alloc(a, sizeof *l);
    unsigned n = c->config.n_nodes;

    migrd__ha_local__init(l);
    l->phase = c->log.phase;
    l->promise = c->log.promise;
    l->last_term = c->log.term;
    l->last_index = c->log.index;
    l->members = (uint32_t *)c->log.members;
    l->n_members = c->log.n_members;
    l->joined = c->joined;
    l->lease_until = c->lease.until;
    l->tilt_until = c->lease.tilt_until;
    l->why = (char *)c->log.why;
    l->waiting = c->n_requests;
    l->peer = arena_alloc(a, n * sizeof *l->peer);
    for (unsigned i = 0; i < n; i++) {
        const struct ha_peer *p = &c->lease.peer[i];
        Migrd__HaPeer *x = l->peer[i] = arena_alloc(a, sizeof *x);

        migrd__ha_peer__init(x);
        x->node = p->node;
        x->seen = p->heard;
        x->voted = p->voted_incarnation != 0;
        x->acked = p->acked_at;
    }
    l->n_peer = n;
    m->local = l;
}

Migrd__HaState *ha_core_state(const struct ha_core *c)
{
    struct ha_arena a;
    jmp_buf oom;
    Migrd__HaState *volatile result = NULL;

    arena_init(&a, &oom);
    if (setjmp(oom) == 0) {
        Migrd__HaState *m = state_message(&c->state, &a);
        uint8_t *bytes;
        size_t len;

        local_message(c, &a, m);
        len = migrd__ha_state__get_packed_size(m);
        bytes = arena_alloc(&a, len);
        migrd__ha_state__pack(m, bytes);
        result = migrd__ha_state__unpack(NULL, len, bytes);
    }
    arena_free(&a);
    return result;
}
