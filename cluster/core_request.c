/* SPDX-License-Identifier: ISC */
/*
 * Own proposals: first in, first out, each with a number of its own that counts up. Each is sent
 * once in a term, and again if it is late or a new term begins; the log applies a number once. It
 * leaves the queue when its entry has been applied, or when a state came in that says so. A vote
 * that is no entry when a new term begins is not sent again: it was about the time before.
 */
#include <stdlib.h>

#include "cluster/core_internal.h"

#define STUCK_TOKENS 20u

bool request_room(const struct ha_core *c)
{
    return c->n_requests < HA_REQUESTS_MAX;
}

static void propose(struct ha_core *c, struct ha_request *r)
{
    Migrd__HaMessage m = MIGRD__HA_MESSAGE__INIT;
    Migrd__HaPropose p = MIGRD__HA_PROPOSE__INIT;

    p.term = c->log.term;
    p.entry = (ProtobufCBinaryData){ r->len, r->bytes };
    m.propose = &p;
    log_send(c, &m);
    r->sent_at = c->now;
}

void request_send(struct ha_core *c, Migrd__HaEntry *e, const Migrd__HaCommand *command, bool *busy)
{
    struct ha_request *r = &c->request[c->n_requests];

    memset(r, 0, sizeof *r);
    r->busy = busy;
    if (busy)
        *busy = true;
    e->node = c->config.node;
    e->incarnation = c->config.incarnation;
    e->request = c->last_request + 1;
    e->time = core_log_time(c);
    r->len = migrd__ha_entry__get_packed_size(e);
    r->bytes = arena_keep(&c->arena, NULL, r->len);
    migrd__ha_entry__pack(e, r->bytes);
    r->request = ++c->last_request;
    r->vote = e->expired ? e->expired->node : 0;
    if (command) {
        r->answer = true;
        r->command_id = command->id;
        r->kind = command->kind;
        ha_copy(r->uuid, sizeof r->uuid, command->uuid);
        r->epoch = command->epoch;
        r->node = command->node;
    }
    c->n_requests++;
    if (core_active(c)) {
        r->tried_at = c->now;
        propose(c, r);
    }
}

void request_resend(struct ha_core *c)
{
    if (c->n_requests > 0 && c->request[0].tried_at == 0)
        c->request[0].tried_at = c->now;
    for (unsigned i = 0; i < c->n_requests; i++)
        propose(c, &c->request[i]);
}

/* The first of them is decided within a moment where all is well. If not, it is sent again; if that
 * does not help either, the members compare what they have. */
void request_time(struct ha_core *c)
{
    uint64_t token = c->config.times.token;

    if (!core_active(c) || c->n_requests == 0)
        return;
    if (c->now >= c->request[0].tried_at + STUCK_TOKENS * token) {
        c->request[0].tried_at = c->now;
        core_note(c, true,
            "a proposal of this node is not decided for %llu ms: the members compare anew",
            (unsigned long long)(STUCK_TOKENS * token));
        sync_again(c, c->log.promise + 1);
    } else if (c->now >= c->request[0].sent_at + 2 * token) {
        request_resend(c);
    }
}

void request_answer(struct ha_core *c, uint64_t id, const char *uuid, bool ok, const char *text,
    const char *warning, Migrd__HaPlan *plan)
{
    struct ha_action *a = core_act(c, HA_ACT_ANSWER);
    Migrd__HaAnswer *m = arena_alloc(&c->arena, sizeof *m);
    const struct ha_domain *d = uuid ? state_domain(&c->state, uuid) : NULL;

    migrd__ha_answer__init(m);
    m->id = a->id = id;
    m->ok = a->ok = ok;
    m->text = arena_text(&c->arena, "%s", text);
    m->warning = arena_text(&c->arena, "%s", warning);
    m->plan = plan;
    a->text = m->text;
    a->answer = m;
    if (uuid)
        ha_copy(a->uuid, sizeof a->uuid, uuid);
    if (d) {
        m->owner = a->node = d->owner;
        m->epoch = a->epoch = d->epoch;
        m->state = d->state;
    }
}

static void pop(struct ha_core *c)
{
    if (c->request[0].busy)
        *c->request[0].busy = false;
    free(c->request[0].bytes);
    c->n_requests--;
    memmove(c->request, c->request + 1, c->n_requests * sizeof c->request[0]);
    if (c->n_requests > 0)
        c->request[0].tried_at = c->now;
}

void request_applied(struct ha_core *c, uint64_t request)
{
    while (c->n_requests > 0 && c->request[0].request <= request) {
        const struct ha_request *r = &c->request[0];

        if (r->answer)
            request_answer(c, r->command_id, r->uuid, c->ok, c->said, r->warning, NULL);
        pop(c);
    }
}

/* A state came in: what it has applied of ours is answered by what it says. */
void request_settle(struct ha_core *c)
{
    const struct ha_node *n = state_node(&c->state, c->config.node);

    if (!n || n->incarnation != c->config.incarnation)
        return;
    while (c->n_requests > 0 && c->request[0].request <= n->request) {
        const struct ha_request *r = &c->request[0];
        char text[HA_WHY_LEN];
        bool ok = command_outcome(c, r, text, sizeof text);

        if (r->answer)
            request_answer(c, r->command_id, r->uuid, ok, text, r->warning, NULL);
        pop(c);
    }
}

/* All entries of older terms have been applied here, and what was proposed in one can't become an
 * entry any more: these votes never count. */
void request_forget_votes(struct ha_core *c, void (*forgotten)(struct ha_core *c, uint32_t node))
{
    unsigned kept = 0;

    for (unsigned i = 0; i < c->n_requests; i++) {
        struct ha_request *r = &c->request[i];

        if (r->vote) {
            forgotten(c, r->vote);
            free(r->bytes);
        } else {
            c->request[kept++] = *r;
        }
    }
    c->n_requests = kept;
}

void request_dispose(struct ha_core *c)
{
    while (c->n_requests > 0)
        pop(c);
    free(c->request);
}
