/* SPDX-License-Identifier: ISC */
/*
 * ring: corosync as its users see it, extended virtual synchrony with all that is unpleasant in it.
 *
 * Nodes that reach each other both ways share a ring: one list of entries, delivered to each
 * member in that order, to each at its own time. What a node sends waits with it until the token
 * comes; then it has its place in the order, and its sender may see it before, or long before,
 * anybody else does: own delivery proves nothing.
 *
 * A ring breaks when a member dies, stops, or can't be reached. Nothing is ordered or delivered
 * then. If all is well again within a token's time it goes on; else, 2.2 tokens after the break,
 * those who still reach each other form new rings. Members of a new ring that come from the same
 * old one first deliver the same entries of the old one: all that any of them has delivered, all
 * that they sent themselves, and perhaps more. So entries may be seen on one side of a partition
 * alone, in another place of the order or never on the other. What waited is sent in the new ring.
 *
 * A corosync that was stopped while the others went on sees it half a token to a token after it
 * goes on, and is alone then. Rings that reach each other merge. The process group is part of the
 * order: JOIN and LEAVE of daemons are entries; a fast restart can come as one change.
 */
#include <stdlib.h>
#include <string.h>

#include "cluster/sim/node.h"
#include "cluster/sim/oracle.h"
#include "cluster/sim/ring.h"

#define HEAL_TOKENS 1000 /* thousandths of a token */
#define FORM_TOKENS 2200
#define NOTICE_TOKENS 500 /* at least, of one that was stopped */
#define BATCH 12          /* messages that a node sends while it has the token */

static uint32_t bit(uint32_t node)
{
    return 1u << (node - 1);
}

static bool live(struct world *w, uint32_t node)
{
    const struct node *n = node_of(w, node);

    return n->up && n->coro.state == CORO_UP && n->coro.stops == 0;
}

static struct ring *ring_of(struct world *w, uint64_t id)
{
    for (size_t i = 0; i < sizeof w->ring / sizeof *w->ring; i++)
        if (w->ring[i].used && w->ring[i].id == id)
            return &w->ring[i];
    return NULL;
}

static struct ring *ring_new(struct world *w, uint32_t members)
{
    struct ring *r = w->ring;

    while (r->used)
        r++;
    *r = (struct ring){ .used = true, .members = members, .id = ++w->rings };
    return r;
}

static void ring_drop(struct ring *r)
{
    for (size_t i = 0; i < r->n; i++)
        blob_drop(r->entry[i].blob);
    free(r->entry);
    memset(r, 0, sizeof *r);
}

static bool push_entry(
    struct world *w, struct entry **list, size_t *n, size_t *room, const struct entry *e)
{
    if (*n == *room) {
        size_t more = *room > 0 ? 2 * *room : 64;
        struct entry *l = realloc(*list, more * sizeof *l);

        if (l == NULL) {
            w->no_memory = true;
            blob_drop(e->blob);
            return false;
        }
        *list = l;
        *room = more;
    }
    (*list)[(*n)++] = *e;
    return true;
}

/* --- delivery --- */

/* LEAVE and JOIN of a daemon that was restarted may come as one change of the group. */
static bool hidden(struct world *w, const struct ring *r, size_t i)
{
    return r->entry[i].kind == ENTRY_LEAVE && i + 1 < r->n && r->entry[i + 1].kind == ENTRY_JOIN &&
           r->entry[i + 1].from == r->entry[i].from &&
           rng_hash(w->plan->seed, P_HIDDEN, r->id * 100000 + i) % 2 == 0;
}

static void hand_over(struct world *w, struct node *n, const struct ring *r, size_t i)
{
    const struct entry *e = &r->entry[i];
    struct corosync *c = &n->coro;
    uint32_t was = c->shown;

    switch (e->kind) {
    case ENTRY_MESSAGE:
        if (c->in)
            node_message(w, n, e->from, e->blob);
        return;
    case ENTRY_VIEW:
        c->group = e->group;
        if (c->group == c->shown)
            return;
        break;
    case ENTRY_JOIN:
        c->group |= bit(e->from);
        if (e->from == n->id && e->life == n->life)
            c->in = true;
        break;
    case ENTRY_LEAVE:
        c->group &= ~bit(e->from);
        break;
    }
    if (c->in && !hidden(w, r, i)) {
        c->shown = c->group;
        oracle_view(w, n, was);
        node_view(w, n, c->group);
    }
}

static void deliver(struct world *w, const struct event *e)
{
    struct node *n = node_of(w, e->a);
    struct ring *r = n->coro.ring;

    if (r == NULL || r->id != e->x || r->broken || !live(w, e->a) || n->coro.delivered != e->y)
        return;
    n->coro.delivered++;
    hand_over(w, n, r, e->y);
}

static void schedule_delivery(struct world *w, struct node *n, size_t i)
{
    uint64_t most = w->plan->noise[SIM_DELIVER_MS] * MS + 1;
    uint64_t when = w->now + 100 + draw(w, P_DELIVER, n->id, most);

    if (w->healed)
        when = w->now + 100 + draw(w, P_DELIVER, n->id, 2 * MS);
    if (when < n->coro.deliver_at)
        when = n->coro.deliver_at;
    n->coro.deliver_at = when;
    at(w, when, deliver, n->id, 0, n->coro.ring->id, i, NULL);
}

static void append(struct world *w, struct ring *r, const struct entry *e)
{
    if (!push_entry(w, &r->entry, &r->n, &r->room, e))
        return;
    for (uint32_t id = 1; id <= w->nodes; id++)
        if (r->members & bit(id) && node_of(w, id)->coro.ring == r)
            schedule_delivery(w, node_of(w, id), r->n - 1);
}

static void kick(struct world *w, struct node *n);

static void order(struct world *w, const struct event *e)
{
    struct corosync *c = &node_of(w, e->a)->coro;
    struct ring *r = c->ring;
    size_t n = c->n_waiting < BATCH ? c->n_waiting : BATCH;

    if (r == NULL || r->id != e->x)
        return;
    c->ordering = false;
    if (r->broken || !live(w, e->a))
        return;
    for (size_t i = 0; i < n; i++)
        append(w, r, &c->waiting[i]);
    c->n_waiting -= n;
    memmove(c->waiting, c->waiting + n, c->n_waiting * sizeof *c->waiting);
    kick(w, node_of(w, e->a));
}

/* The token will come. */
static void kick(struct world *w, struct node *n)
{
    struct corosync *c = &n->coro;
    uint64_t most = w->healed ? MS : w->plan->noise[SIM_ORDER_MS] * MS;

    if (c->n_waiting == 0 || c->ordering || c->ring == NULL || c->ring->broken || !live(w, n->id))
        return;
    c->ordering = true;
    at(w, w->now + 50 + draw(w, P_ORDER, n->id, most), order, n->id, 0, c->ring->id, 0, NULL);
}

static void resume(struct world *w, struct node *n)
{
    n->coro.deliver_at = w->now;
    for (size_t i = n->coro.delivered; i < n->coro.ring->n; i++)
        schedule_delivery(w, n, i);
    kick(w, n);
}

/* --- membership --- */

static bool whole(struct world *w, uint32_t members)
{
    for (uint32_t a = 1; a <= w->nodes; a++) {
        if (!(members & bit(a)))
            continue;
        if (!live(w, a))
            return false;
        for (uint32_t b = 1; b <= w->nodes; b++)
            if (members & bit(b) && a != b && !linked(w, PLANE_RING, a, b))
                return false;
    }
    return true;
}

static uint64_t tokens(const struct world *w, unsigned thousandths)
{
    return (uint64_t)w->times.token * thousandths;
}

/* Delivers what is left of the old ring to a member of a new one. */
static void drain(
    struct world *w, struct node *n, const struct ring *old, size_t sure, uint32_t clique)
{
    for (size_t i = n->coro.delivered; i < old->n; i++)
        if (i < sure || clique & bit(old->entry[i].from))
            hand_over(w, n, old, i);
}

/* What a node brings into a new ring: each corosync tells the others of its own processes. */
static uint32_t own_group(const struct node *n)
{
    return n->coro.in ? bit(n->id) : 0;
}

static void enter(struct world *w, struct node *n, struct ring *r)
{
    n->coro.ring = r;
    n->coro.delivered = 0;
    n->coro.deliver_at = w->now;
    n->coro.ordering = false;
}

/* The first entry of a ring: who of its nodes is in the group. */
static void open_ring(struct world *w, struct ring *r, uint32_t group)
{
    struct entry view = { .kind = ENTRY_VIEW, .from = NOBODY, .group = group };

    for (uint32_t id = 1; id <= w->nodes; id++)
        if (r->members & bit(id))
            view.from = id;
    say(w, "ring of nodes %#x, group %#x", r->members, group);
    append(w, r, &view);
    for (uint32_t id = 1; id <= w->nodes; id++)
        if (r->members & bit(id))
            kick(w, node_of(w, id));
}

/* Somebody may die of what is delivered: the ring stays until all have heard it. */
static void drain_all(struct world *w, struct ring *old, size_t sure, uint32_t clique)
{
    old->held = true;
    for (uint32_t id = 1; id <= w->nodes; id++)
        if (clique & bit(id) && node_of(w, id)->coro.ring == old)
            drain(w, node_of(w, id), old, sure, clique);
    old->held = false;
}

/* Those of two rings, or one, who are left: all enter a new one. */
static void move_to_new(
    struct world *w, const struct ring *a, const struct ring *b, uint32_t clique)
{
    uint32_t group = 0, members = 0;
    struct ring *r;

    for (uint32_t id = 1; id <= w->nodes; id++) {
        const struct node *n = node_of(w, id);

        if (clique & bit(id) && n->coro.ring != NULL && (n->coro.ring == a || n->coro.ring == b)) {
            members |= bit(id);
            group |= own_group(n);
        }
    }
    if (members == 0)
        return;
    r = ring_new(w, members);
    for (uint32_t id = 1; id <= w->nodes; id++)
        if (members & bit(id))
            enter(w, node_of(w, id), r);
    open_ring(w, r, group);
}

static void split_off(struct world *w, struct ring *old, uint32_t clique)
{
    size_t sure = 0;

    for (uint32_t id = 1; id <= w->nodes; id++)
        if (clique & bit(id) && node_of(w, id)->coro.delivered > sure)
            sure = node_of(w, id)->coro.delivered;
    if (chance_of(w, P_TAIL, old->id, 300))
        sure += draw(w, P_TAIL, clique, old->n - sure);
    drain_all(w, old, sure, clique);
    move_to_new(w, old, old, clique);
    old->members &= ~clique;
}

static uint32_t clique_in(struct world *w, uint32_t rest)
{
    uint32_t clique = 0;
    unsigned first = (unsigned)draw(w, P_CLIQUE, rest, w->nodes - 1);

    for (uint32_t i = 0; i < w->nodes; i++) {
        uint32_t id = 1 + (first + i) % w->nodes;

        if (rest & bit(id) && whole(w, clique | bit(id)))
            clique |= bit(id);
    }
    return clique;
}

/* Who is still in it and runs; who died meanwhile is no member any more. */
static uint32_t rest_of(struct world *w, struct ring *r)
{
    uint32_t rest = 0;

    for (uint32_t id = 1; id <= w->nodes; id++) {
        if (r->members & bit(id) && node_of(w, id)->coro.ring != r)
            r->members &= ~bit(id);
        if (r->members & bit(id) && live(w, id))
            rest |= bit(id);
    }
    return rest;
}

static void form(struct world *w, const struct event *e)
{
    struct ring *r = ring_of(w, e->x);
    uint32_t rest;

    if (r == NULL || !r->broken || r->form_gen != e->y)
        return;
    r->torn = true;
    while ((rest = rest_of(w, r)) != 0)
        split_off(w, r, clique_in(w, rest));
    if (r->members == 0)
        ring_drop(r);
    ring_look(w);
}

static void schedule_form(struct world *w, struct ring *r, uint64_t when)
{
    at(w, when, form, 0, 0, r->id, ++r->form_gen, NULL);
}

static void merge_two(struct world *w, struct ring *a, struct ring *b)
{
    drain_all(w, a, a->n, a->members);
    drain_all(w, b, b->n, b->members);
    move_to_new(w, a, b, a->members | b->members);
    ring_drop(a);
    ring_drop(b);
}

static bool mergeable(struct world *w, const struct ring *a, const struct ring *b)
{
    return a != b && a->used && b->used && !a->broken && !b->broken &&
           whole(w, a->members | b->members);
}

static void merge(struct world *w, const struct event *e)
{
    const size_t n = sizeof w->ring / sizeof *w->ring;

    (void)e;
    w->merging = false;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            if (mergeable(w, &w->ring[i], &w->ring[j])) {
                merge_two(w, &w->ring[i], &w->ring[j]);
                i = j = 0;
            }
    ring_look(w);
}

static void look_at(struct world *w, struct ring *r)
{
    bool well = !r->torn && whole(w, r->members);

    if (!r->broken && !well) {
        r->broken = true;
        r->broken_at = w->now;
        schedule_form(w, r, w->now + tokens(w, FORM_TOKENS) + draw(w, P_FORM, r->id, 100 * MS));
    } else if (r->broken && well && w->now - r->broken_at < tokens(w, HEAL_TOKENS)) {
        r->broken = false;
        for (uint32_t id = 1; id <= w->nodes; id++)
            if (r->members & bit(id))
                resume(w, node_of(w, id));
    }
}

void ring_look(struct world *w)
{
    const size_t n = sizeof w->ring / sizeof *w->ring;

    for (size_t i = 0; i < n; i++)
        if (w->ring[i].used)
            look_at(w, &w->ring[i]);
    for (size_t i = 0; i < n && !w->merging; i++)
        for (size_t j = 0; j < n && !w->merging; j++)
            if (mergeable(w, &w->ring[i], &w->ring[j])) {
                w->merging = true;
                at(w, w->now + draw(w, P_MERGE, w->rings, tokens(w, HEAL_TOKENS)) + 20 * MS, merge,
                    0, 0, 0, 0, NULL);
            }
}

/* --- what happens to a corosync --- */

void ring_start(struct world *w, uint32_t node)
{
    struct node *n = node_of(w, node);

    if (n->coro.state != CORO_DOWN)
        return;
    n->coro.state = CORO_UP;
    n->coro.starts++;
    n->coro.stops = n->pauses;
    n->coro.group = n->coro.shown = 0;
    n->coro.in = false;
    enter(w, n, ring_new(w, bit(node)));
    if (n->life != 0)
        ring_join(w, node);
    ring_look(w);
}

static void forget_waiting(struct corosync *c)
{
    for (size_t i = 0; i < c->n_waiting; i++)
        blob_drop(c->waiting[i].blob);
    c->n_waiting = 0;
}

/* Its ring lives on if others are in it. */
void ring_stop(struct world *w, uint32_t node)
{
    struct corosync *c = &node_of(w, node)->coro;
    struct ring *r = c->ring;
    bool alone = true;

    if (c->state == CORO_DOWN)
        return;
    c->state = CORO_DOWN;
    c->ring = NULL;
    c->group = 0;
    c->in = false;
    forget_waiting(c);
    for (uint32_t id = 1; id <= w->nodes; id++)
        alone = alone && node_of(w, id)->coro.ring != r;
    if (alone && !r->held)
        ring_drop(r);
    else
        r->torn = true; /* started again it is somebody else */
    ring_look(w);
}

void ring_pause(struct world *w, uint32_t node, bool on)
{
    struct node *n = node_of(w, node);
    struct ring *r = n->coro.ring;

    n->coro.stops += on ? 1u : -1u;
    ring_look(w);
    if (on || !live(w, node) || r == NULL || n->coro.ring != r)
        return;
    if (r->torn)
        schedule_form(w, r,
            w->now + tokens(w, NOTICE_TOKENS) + draw(w, P_FORM, node, tokens(w, NOTICE_TOKENS)));
    else if (!r->broken)
        resume(w, n);
}

static void put(struct world *w, uint32_t node, const struct entry *e)
{
    struct node *n = node_of(w, node);

    if (n->coro.state == CORO_DOWN) {
        blob_drop(e->blob);
        return;
    }
    if (push_entry(w, &n->coro.waiting, &n->coro.n_waiting, &n->coro.waiting_room, e))
        kick(w, n);
}

void ring_join(struct world *w, uint32_t node)
{
    struct entry e = { .kind = ENTRY_JOIN, .from = node, .life = node_of(w, node)->life };

    put(w, node, &e);
}

void ring_leave(struct world *w, uint32_t node)
{
    struct entry e = { .kind = ENTRY_LEAVE, .from = node };

    node_of(w, node)->coro.in = false;
    node_of(w, node)->coro.shown = 0;
    put(w, node, &e);
}

void ring_send(struct world *w, uint32_t node, const uint8_t *bytes, size_t len)
{
    struct entry e = { .kind = ENTRY_MESSAGE, .from = node, .blob = blob_make(w, bytes, len) };

    if (e.blob != NULL)
        put(w, node, &e);
}

void ring_free(struct world *w)
{
    for (size_t i = 0; i < sizeof w->ring / sizeof *w->ring; i++)
        if (w->ring[i].used)
            ring_drop(&w->ring[i]);
    for (uint32_t id = 1; id <= w->nodes; id++) {
        forget_waiting(&node_of(w, id)->coro);
        free(node_of(w, id)->coro.waiting);
    }
}
