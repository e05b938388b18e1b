/* SPDX-License-Identifier: ISC */
/*
 * host: the disk keeps what was durable when its writer died, and of the writes under way a prefix.
 * The hypervisor has one process for each domain on a node. A process with a fuse runs its guest
 * while the host's clock is before the deadline and pauses it at most `fuse_check` later, whatever
 * the daemon does; it is made with a blown one. One without a fuse runs until it is told to end.
 *
 *   STARTING -> RUNNING <-> PAUSED (by its fuse; RESUME)      INCOMING -> RUNNING (GO)
 *               RUNNING <-> HELD   (by the hand-over)         any -> GONE
 */
#include <stdlib.h>
#include <string.h>

#include "cluster/sim/host.h"
#include "cluster/sim/move.h"
#include "cluster/sim/node.h"
#include "cluster/sim/oracle.h"

#define STOP_MS 1500 /* longest that a guest takes to shut down */

/* --- disk --- */

static void apply(struct world *w, struct disk *d, struct disk_write *write)
{
    if (write->whole)
        while (d->n > 0)
            blob_drop(d->record[--d->n]);
    if (d->n == d->room) {
        size_t room = d->room > 0 ? 2 * d->room : 64;
        struct blob **more = realloc(d->record, room * sizeof *more);

        if (more == NULL) {
            w->no_memory = true;
            return;
        }
        d->record = more;
        d->room = room;
    }
    d->record[d->n++] = write->blob;
    write->blob = NULL;
}

static void disk_pump(struct world *w, struct node *n);

/* All that waited when the writing began is durable with one sync. */
static void disk_done(struct world *w, const struct event *e)
{
    struct node *n = node_of(w, e->a);
    struct disk *d = &n->disk;
    uint64_t life = n->life;

    if (e->x != d->gen)
        return;
    if (w->now < d->stalled_until) {
        at(w, d->stalled_until, disk_done, e->a, 0, e->x, e->y, NULL);
        return;
    }
    d->busy = false;
    for (uint64_t i = 0; i < e->y; i++) {
        uint64_t id = d->queue[d->head].id;

        apply(w, d, &d->queue[d->head]);
        d->head = (d->head + 1) % DISK_QUEUE_MAX;
        d->n_queue--;
        node_persisted(w, n, id);
        if (n->life != life || e->x != d->gen)
            return;
    }
    disk_pump(w, n);
}

static void disk_pump(struct world *w, struct node *n)
{
    struct disk *d = &n->disk;
    uint64_t most = (w->healed ? 5 : w->plan->noise[SIM_DISK_MS]) * MS;

    if (d->busy || d->n_queue == 0)
        return;
    d->busy = true;
    at(w, w->now + 200 + draw(w, P_DISK, n->id, most), disk_done, n->id, 0, d->gen, d->n_queue,
        NULL);
}

void disk_put(struct world *w, struct node *n, const struct ha_action *a)
{
    struct disk *d = &n->disk;
    struct disk_write *write = &d->queue[(d->head + d->n_queue) % DISK_QUEUE_MAX];

    if (d->n_queue == DISK_QUEUE_MAX) {
        broken(
            w, "disk-flood", "node %u has %u records on their way to the disk", n->id, d->n_queue);
        return;
    }
    *write = (struct disk_write){ blob_make(w, a->bytes, a->len), a->id, a->whole };
    if (write->blob == NULL)
        return;
    d->n_queue++;
    disk_pump(w, n);
}

void disk_tear(struct world *w, struct node *n)
{
    struct disk *d = &n->disk;
    uint64_t kept = draw(w, P_DISK_LOST, n->id, d->n_queue);

    for (uint64_t i = 0; d->n_queue > 0; i++) {
        if (i < kept)
            apply(w, d, &d->queue[d->head]);
        else
            blob_drop(d->queue[d->head].blob);
        d->head = (d->head + 1) % DISK_QUEUE_MAX;
        d->n_queue--;
    }
    d->busy = false;
    d->gen++;
}

void disk_stall(struct world *w, struct node *n, uint64_t until)
{
    (void)w;
    if (n->disk.stalled_until < until)
        n->disk.stalled_until = until;
}

void disk_free(struct disk *d)
{
    while (d->n > 0)
        blob_drop(d->record[--d->n]);
    free(d->record);
    for (; d->n_queue > 0; d->n_queue--, d->head = (d->head + 1) % DISK_QUEUE_MAX)
        blob_drop(d->queue[d->head].blob);
}

/* --- copies --- */

uint32_t domain_of(const struct world *w, const char *uuid)
{
    for (uint32_t i = 0; i < w->plan->domains; i++)
        if (strcmp(w->domain[i].uuid, uuid) == 0)
            return i;
    return NOBODY;
}

struct copy *copy_at(struct world *w, uint32_t domain, uint32_t node)
{
    for (unsigned i = 0; domain < w->plan->domains && i < COPIES_MAX; i++) {
        struct copy *c = &w->domain[domain].copy[i];

        if (c->state != COPY_GONE && c->node == node)
            return c;
    }
    return NULL;
}

struct copy *copy_make(
    struct world *w, uint32_t domain, uint32_t node, uint64_t epoch, enum copy_state state)
{
    for (unsigned i = 0; i < COPIES_MAX; i++) {
        struct copy *c = &w->domain[domain].copy[i];

        if (c->state != COPY_GONE)
            continue;
        *c = (struct copy){ .state = state,
            .node = node,
            .domain = domain,
            .epoch = epoch,
            .fuse = w->plan->domain[domain].fuse,
            .fresh = true,
            .boots = state == COPY_STARTING,
            .gen = ++w->copies,
            .since = w->now };
        if (w->domain[domain].top_epoch < epoch)
            w->domain[domain].top_epoch = epoch;
        return c;
    }
    return NULL;
}

bool copy_runs(struct world *w, const struct copy *c)
{
    return c->state == COPY_RUNNING && node_of(w, c->node)->up && node_of(w, c->node)->pauses == 0;
}

void copy_tell(struct world *w, const struct copy *c)
{
    static const enum ha_seen seen[] = {
        [COPY_GONE] = HA_SEEN_GONE,
        [COPY_STARTING] = HA_SEEN_PAUSED,
        [COPY_RUNNING] = HA_SEEN_RUNNING,
        [COPY_PAUSED] = HA_SEEN_PAUSED,
        [COPY_INCOMING] = HA_SEEN_INCOMING,
        [COPY_HELD] = HA_SEEN_PAUSED,
        [COPY_ENDED] = HA_SEEN_CRASHED,
    };
    enum ha_seen now = c->state == COPY_ENDED && c->by_guest ? HA_SEEN_SHUTDOWN : seen[c->state];

    node_domain(w, node_of(w, c->node), c->domain, c->epoch, now, c->fuse, c->by_guest,
        c->fuse && (c->state == COPY_PAUSED || c->state == COPY_STARTING));
}

void copies_tell(struct world *w, struct node *n)
{
    for (uint32_t d = 0; d < w->plan->domains; d++) {
        struct copy *c = copy_at(w, d, n->id);

        if (c != NULL)
            copy_tell(w, c);
    }
}

static void stops(struct world *w, const struct copy *c)
{
    if (copy_runs(w, c))
        w->domain[c->domain].ran_at = w->now;
}

static void set_state(struct world *w, struct copy *c, enum copy_state state)
{
    static const char *const names[] = { "is gone", "is starting", "runs", "is paused by its fuse",
        "is incoming", "is held", "has ended" };

    if (c->state == state)
        return;
    stops(w, c);
    if (c->state == COPY_RUNNING && state == COPY_PAUSED)
        oracle_blown(w, c);
    c->state = state;
    c->since = w->now;
    say(w, "domain %u on node %u, epoch %llu, %s", c->domain + 1, c->node,
        (unsigned long long)c->epoch, names[state]);
    if (state == COPY_RUNNING)
        oracle_runs(w, c);
    copy_tell(w, c);
}

static bool allowed(struct world *w, const struct copy *c)
{
    return !c->fuse || clock_ms(w, node_of(w, c->node)) < c->fuse_ms;
}

static void blow(struct world *w, const struct event *e);

static void watch_fuse(struct world *w, struct copy *c)
{
    const struct node *n = node_of(w, c->node);
    uint64_t when = when_ms(w, n, c->fuse_ms);

    if (!c->fuse || c->watched || c->state != COPY_RUNNING)
        return;
    c->watched = true;
    when = when > w->now ? when : w->now;
    when += draw(w, P_BLOW, c->domain, w->times.fuse_check * MS * 99 / 100);
    at(w, when, blow, c->domain, (uint32_t)(c - w->domain[c->domain].copy), c->gen, ++c->watch,
        NULL);
}

static void blow(struct world *w, const struct event *e)
{
    struct copy *c = &w->domain[e->a].copy[e->b];

    if (c->gen != e->x || !c->watched || c->watch != e->y)
        return;
    c->watched = false;
    if (c->state != COPY_RUNNING || node_of(w, c->node)->pauses > 0)
        return;
    if (allowed(w, c))
        watch_fuse(w, c);
    else
        set_state(w, c, COPY_PAUSED);
}

void copy_pause(struct world *w, struct copy *c, bool on)
{
    if (on && c->state == COPY_RUNNING) {
        c->paused = true;
        set_state(w, c, COPY_HELD);
    } else if (!on && c->state == COPY_HELD && c->paused) {
        copy_run(w, c);
    }
}

void copy_run(struct world *w, struct copy *c)
{
    c->paused = false;
    if (c->state == COPY_ENDED)
        return;
    if (!allowed(w, c)) {
        set_state(w, c, COPY_PAUSED);
        return;
    }
    c->fresh = false;
    if (c->boots)
        c->knows = w->domain[c->domain].writes;
    c->boots = false;
    oracle_memory(w, c);
    c->knows = ++w->domain[c->domain].writes;
    set_state(w, c, COPY_RUNNING);
    watch_fuse(w, c);
}

void copy_renew(struct world *w, struct copy *c, uint64_t epoch)
{
    c->fuse_ms = c->next_epoch == epoch ? c->next_fuse_ms : 0;
    c->epoch = epoch;
    c->fresh = true;
    if (w->domain[c->domain].top_epoch < epoch)
        w->domain[c->domain].top_epoch = epoch;
    copy_run(w, c);
}

void copy_hold(struct world *w, struct copy *c)
{
    set_state(w, c, COPY_HELD);
}

void copy_end(struct world *w, struct copy *c, enum ha_seen why, bool by_guest)
{
    struct node *n = node_of(w, c->node);
    uint64_t epoch = c->epoch;
    bool fuse = c->fuse;

    if (c->state == COPY_GONE)
        return;
    say(w, "domain %u on node %u, epoch %llu, ends", c->domain + 1, c->node,
        (unsigned long long)epoch);
    stops(w, c);
    c->state = COPY_GONE;
    c->gen = ++w->copies;
    c->watched = false;
    if (n->up)
        node_domain(w, n, c->domain, epoch, why, fuse, by_guest, false);
}

void guest_ends(struct world *w, struct copy *c, bool by_guest)
{
    if (draw(w, P_STOP, c->domain, 1) == 0) {
        copy_end(w, c, by_guest ? HA_SEEN_SHUTDOWN : HA_SEEN_CRASHED, by_guest);
        return;
    }
    c->by_guest = by_guest;
    set_state(w, c, COPY_ENDED);
}

/* --- what a core wants --- */

bool op_takes(unsigned *left)
{
    if (*left == 0)
        return false;
    --*left;
    return true;
}

static void answer(struct world *w, struct node *n, enum op op, uint64_t id, bool ok)
{
    if (!w->healed && op_takes(&n->op_lost[op]))
        say(w, "node %u: the result of %llu is lost", n->id,
            (unsigned long long)(id & ACTION_MASK));
    else
        node_result(w, n, id, ok);
}

static uint64_t op_end(struct world *w, struct node *n, enum op op, uint64_t ms)
{
    uint64_t end = w->now + ms * MS;

    return end < n->op_slow_until[op] ? n->op_slow_until[op] : end;
}

/* a: node, b: domain and copy, x: gen of the copy, y: action. */
static void started(struct world *w, const struct event *e)
{
    struct node *n = node_of(w, e->a);
    struct copy *c = &w->domain[e->b >> 8].copy[e->b & 255];

    if (c->gen != e->x || c->state != COPY_STARTING)
        return;
    if (!w->healed && op_takes(&n->op_fails[OP_START])) {
        copy_end(w, c, HA_SEEN_GONE, false);
        answer(w, n, OP_START, e->y, false);
        return;
    }
    copy_run(w, c);
    w->out->starts++;
    answer(w, n, OP_START, e->y, true);
}

void host_start(struct world *w, struct node *n, const struct ha_action *a)
{
    uint32_t domain = domain_of(w, a->uuid);
    uint64_t most = w->healed ? 500 : w->plan->noise[SIM_START_MS];
    struct copy *c = NULL;

    if (domain == NOBODY) {
        broken(w, "nonsense", "node %u starts %s, which is no domain", n->id, a->uuid);
        return;
    }
    oracle_start(w, n, domain, a);
    if (copy_at(w, domain, n->id) == NULL)
        c = copy_make(w, domain, n->id, a->epoch, COPY_STARTING);
    if (c == NULL) {
        node_result(w, n, a->id, false);
        return;
    }
    at(w, op_end(w, n, OP_START, 30 + draw(w, P_START, domain, most)), started, n->id,
        domain << 8 | (uint32_t)(c - w->domain[domain].copy), c->gen, a->id, NULL);
}

static void stopped(struct world *w, const struct event *e)
{
    struct node *n = node_of(w, e->a);
    struct copy *c = &w->domain[e->b >> 8].copy[e->b & 255];

    if (c->gen == e->x)
        copy_end(w, c, HA_SEEN_SHUTDOWN, false);
    answer(w, n, OP_STOP, e->y, true);
}

/* The copy that an action is about; an older or newer life of the domain is not. */
static struct copy *aimed_at(struct world *w, struct node *n, const struct ha_action *a)
{
    struct copy *c = copy_at(w, domain_of(w, a->uuid), n->id);

    return c != NULL && c->epoch == a->epoch ? c : NULL;
}

static void end_later(struct world *w, struct node *n, const struct ha_action *a, uint64_t ms,
    void (*then)(struct world *, const struct event *))
{
    struct copy *c = aimed_at(w, n, a);

    if (c != NULL)
        oracle_paused(w, c);
    if (c == NULL || (!w->healed && op_takes(&n->op_fails[OP_STOP]))) {
        node_result(w, n, a->id, c == NULL);
        return;
    }
    at(w, op_end(w, n, OP_STOP, ms), then, n->id,
        c->domain << 8 | (uint32_t)(c - w->domain[c->domain].copy), c->gen, a->id, NULL);
}

void host_stop(struct world *w, struct node *n, const struct ha_action *a)
{
    end_later(w, n, a, 10 + draw(w, P_STOP, n->id, STOP_MS), stopped);
}

static void destroyed(struct world *w, const struct event *e)
{
    struct node *n = node_of(w, e->a);
    struct copy *c = &w->domain[e->b >> 8].copy[e->b & 255];

    if (c->gen == e->x)
        copy_end(w, c, HA_SEEN_GONE, false);
    answer(w, n, OP_STOP, e->y, true);
}

void host_destroy(struct world *w, struct node *n, const struct ha_action *a)
{
    end_later(w, n, a, 1 + draw(w, P_STOP, n->id, 30), destroyed);
}

void host_fuse(struct world *w, struct node *n, const struct ha_action *a)
{
    struct copy *c = aimed_at(w, n, a);

    struct copy *other = copy_at(w, domain_of(w, a->uuid), n->id);

    oracle_fuse(w, n, a);
    if (other != NULL && a->epoch > other->epoch) {
        other->next_epoch = a->epoch;
        other->next_fuse_ms = a->deadline;
    }
    if (c == NULL || !c->fuse)
        return;
    if (a->deadline < c->fuse_ms)
        c->watched = false; /* the event that watches would come too late */
    c->fuse_ms = a->deadline;
    if (a->deadline == 0 && c->state == COPY_RUNNING)
        set_state(w, c, COPY_PAUSED);
    else if (c->fresh && c->state == COPY_PAUSED)
        copy_run(w, c);
    else
        watch_fuse(w, c);
}

void host_resume(struct world *w, struct node *n, const struct ha_action *a)
{
    struct copy *c = aimed_at(w, n, a);

    if (c != NULL)
        oracle_paused(w, c);
    if (c != NULL && c->state == COPY_PAUSED)
        copy_run(w, c);
    node_result(w, n, a->id, c != NULL && c->state == COPY_RUNNING);
}

void host_stops(struct world *w, const struct node *n)
{
    for (uint32_t d = 0; d < w->plan->domains; d++) {
        const struct copy *c = copy_at(w, d, n->id);

        if (c != NULL)
            stops(w, c);
    }
}

void host_woken(struct world *w, struct node *n)
{
    for (uint32_t d = 0; d < w->plan->domains; d++) {
        struct copy *c = copy_at(w, d, n->id);
        uint64_t ran_at = w->domain[d].ran_at;

        if (c == NULL || c->state != COPY_RUNNING)
            continue;
        if (!allowed(w, c))
            set_state(w, c, COPY_PAUSED);
        else
            watch_fuse(w, c);
        if (c->state != COPY_RUNNING)
            w->domain[d].ran_at = ran_at; /* it did not execute any more */
        if (c->state == COPY_RUNNING)
            oracle_runs(w, c);
    }
}

void host_ended(struct world *w, struct node *n)
{
    for (uint32_t d = 0; d < w->plan->domains; d++) {
        struct copy *c = copy_at(w, d, n->id);

        if (c != NULL)
            copy_end(w, c, HA_SEEN_GONE, false);
    }
}

/* --- fencing --- */

enum fence_mode { FENCE_GOOD, FENCE_DEAD, FENCE_SLOW, FENCE_LIES };

/* a: who asked, b: target, x: action, y: whether it works. */
static void fenced(struct world *w, const struct event *e)
{
    struct node *n = node_of(w, e->a), *target = node_of(w, e->b);

    if (e->y == FENCE_GOOD || e->y == FENCE_SLOW) {
        oracle_fenced(w, target);
        host_crash(w, target);
        host_boot_in(w, target, 3000 + draw(w, P_BOOT, target->id, 15000));
    } else if (e->y == FENCE_LIES) {
        say(w, "the fence device of node %u lies", target->id);
        oracle_lie(w, target);
    }
    node_result(w, n, e->x, e->y != FENCE_DEAD);
}

void host_fence(struct world *w, struct node *n, const struct ha_action *a)
{
    struct node *target = a->node >= 1 && a->node <= w->nodes ? node_of(w, a->node) : NULL;
    unsigned mode = FENCE_GOOD;
    uint64_t ms;

    if (target == NULL || !w->plan->fence) {
        node_result(w, n, a->id, false);
        return;
    }
    if (w->now < target->fence_until)
        mode = target->fence_mode;
    ms = mode == FENCE_SLOW ? 10000 : mode == FENCE_DEAD ? 5000 : 300;
    say(w, "node %u fences node %u: %s", n->id, target->id, a->text);
    at(w, w->now + (ms + draw(w, P_FENCE, target->id, 2 * ms)) * MS, fenced, n->id, target->id,
        a->id, mode, NULL);
}
