/* SPDX-License-Identifier: ISC */
/*
 * ha_lab: a few cores, one ordered channel, one host each, and a clock that a test turns. All is
 * done at once and in order unless a test holds it: a message goes to the members of the sender's
 * view, a record is on the disk, a domain starts. Who is `up`, in which `part` of the network he
 * is, and whether he `hangs` is the test's. After each step the lab looks for two running copies.
 */
#ifndef HA_LAB_H
#define HA_LAB_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/core.h"

#define LAB_NODES 5
#define LAB_DOMAINS 24
#define LAB_QUEUE 20000
#define LAB_RECORDS 20000
#define GIB (UINT64_C(1) << 20) /* in KiB */

struct lab_copy {
    bool here, running, incoming, crashed;
    uint64_t epoch, fuse;
    bool blown, fuseless; /* fuseless: says that it obeys none */
    bool defies;          /* obeys none, and does not say so */
};

struct lab_record {
    uint8_t *bytes;
    size_t len;
};

struct lab_node {
    uint32_t id;
    bool up, hangs, slow_disk, blank_host;
    bool no_results, no_starts; /* results are lost; a start takes for ever */
    bool fail_starts, fail_destroys;
    int part;
    uint32_t one_more; /* its configuration has that node, too */
    unsigned boots;
    uint64_t incarnation;
    struct ha_core *core;
    struct lab_record disk[LAB_RECORDS];
    unsigned n_disk;
    uint64_t held_persist;
    struct lab_copy copy[LAB_DOMAINS];
    uint64_t wake, petted; /* petted: until when its watchdog may be */
    unsigned starts, resumes, destroys, migrates, cancels, fences, alarms;
    uint64_t quiet_ms; /* of the last START */
    uint64_t start_id, fence_id, migrate_id;
    uint32_t migrate_to;
    bool answered, answer_ok;
    char answer[500], warning[300];
    uint64_t answer_epoch;
    uint32_t answer_owner;
};

struct lab_event { /* that waits for its turn */
    int to;        /* slot */
    struct ha_event e;
    uint8_t *bytes;
    char *text;
};

struct lab {
    struct lab_node node[LAB_NODES];
    unsigned n;
    uint64_t now;
    struct ha_times times;
    struct lab_event queue[LAB_QUEUE];
    unsigned head, tail;
    bool talk;
    unsigned moves_at_once, starts_at_once;
    bool drop_beats; /* on their way; the ordered channel works */
};

static inline const char *lab_uuid(unsigned d)
{
    static char text[LAB_DOMAINS][HA_UUID_LEN];

    snprintf(text[d], sizeof text[d], "00000000-0000-4000-8000-%012u", d);
    return text[d];
}

static inline unsigned lab_domain(const char *uuid)
{
    return (unsigned)atoi(uuid + 24);
}

static inline void lab_push(struct lab *l, int to, const struct ha_event *e)
{
    struct lab_event *q = &l->queue[l->tail % LAB_QUEUE];

    if (l->tail - l->head >= LAB_QUEUE)
        abort();
    l->tail++;
    q->to = to;
    q->e = *e;
    q->bytes = NULL;
    q->text = NULL;
    if (e->type == HA_EV_MESSAGE || e->type == HA_EV_BEAT) {
        q->bytes = malloc(e->u.message.len + 1);
        memcpy(q->bytes, e->u.message.bytes, e->u.message.len);
        q->e.u.message.bytes = q->bytes;
    }
    if (e->type == HA_EV_RESULT) {
        q->text = strdup(e->u.result.text ? e->u.result.text : "");
        q->e.u.result.text = q->text;
    }
}

static inline int lab_slot(const struct lab *l, uint32_t id)
{
    for (unsigned i = 0; i < l->n; i++)
        if (l->node[i].id == id)
            return (int)i;
    return -1;
}

static inline bool lab_linked(const struct lab *l, unsigned a, unsigned b)
{
    return l->node[a].up && l->node[b].up && l->node[a].part == l->node[b].part;
}

static inline bool lab_runs(const struct lab *l, unsigned i, unsigned d)
{
    const struct lab_copy *k = &l->node[i].copy[d];

    return k->here && k->running && !k->blown && l->now < k->fuse;
}

static inline void lab_check(const struct lab *l)
{
    for (unsigned d = 0; d < LAB_DOMAINS; d++) {
        unsigned n = 0;

        for (unsigned i = 0; i < l->n; i++)
            n += lab_runs(l, i, d);
        if (n > 1) {
            fprintf(stderr, "domain %u runs %u times at %llu\n", d, n, (unsigned long long)l->now);
            abort();
        }
    }
}

static inline void lab_see(struct lab *l, unsigned i, unsigned d)
{
    const struct lab_copy *k = &l->node[i].copy[d];
    struct ha_event e = { .type = HA_EV_DOMAIN };

    memcpy(e.u.domain.uuid, lab_uuid(d), HA_UUID_LEN);
    e.u.domain.epoch = k->epoch;
    e.u.domain.seen = !k->here                  ? HA_SEEN_GONE
                      : k->crashed              ? HA_SEEN_CRASHED
                      : k->incoming             ? HA_SEEN_INCOMING
                      : k->running && !k->blown ? HA_SEEN_RUNNING
                                                : HA_SEEN_PAUSED;
    e.u.domain.fused = !k->fuseless;
    e.u.domain.blown = k->blown;
    lab_push(l, (int)i, &e);
}

static inline void lab_result(struct lab *l, unsigned i, uint64_t id, bool ok)
{
    struct ha_event e = { .type = HA_EV_RESULT };

    if (l->node[i].no_results)
        return;
    e.u.result.id = id;
    e.u.result.ok = ok;
    e.u.result.text = ok ? "" : "it would not";
    lab_push(l, (int)i, &e);
}

static inline void lab_send(struct lab *l, unsigned i, const struct ha_action *a)
{
    struct ha_event e = { .type = HA_EV_MESSAGE };

    e.u.message.from = l->node[i].id;
    e.u.message.bytes = a->bytes;
    e.u.message.len = a->len;
    for (unsigned k = 0; k < l->n; k++)
        if (lab_linked(l, i, k))
            lab_push(l, (int)k, &e);
}

static inline void lab_beat(struct lab *l, unsigned i, const struct ha_action *a)
{
    struct ha_event e = { .type = HA_EV_BEAT };
    int to = lab_slot(l, a->node);

    e.u.message.from = l->node[i].id;
    e.u.message.bytes = a->bytes;
    e.u.message.len = a->len;
    if (to >= 0 && lab_linked(l, i, (unsigned)to) && !l->drop_beats)
        lab_push(l, to, &e);
}

static inline void lab_persist(struct lab *l, unsigned i, const struct ha_action *a)
{
    struct lab_node *n = &l->node[i];
    struct ha_event e = { .type = HA_EV_PERSISTED };

    if (a->whole) {
        for (unsigned k = 0; k < n->n_disk; k++)
            free(n->disk[k].bytes);
        n->n_disk = 0;
    }
    if (n->n_disk == LAB_RECORDS)
        abort();
    n->disk[n->n_disk].bytes = malloc(a->len + 1);
    memcpy(n->disk[n->n_disk].bytes, a->bytes, a->len);
    n->disk[n->n_disk++].len = a->len;
    n->held_persist = a->id;
    e.u.id = a->id;
    if (!n->slow_disk)
        lab_push(l, (int)i, &e);
}

static inline void lab_start(struct lab *l, unsigned i, const struct ha_action *a)
{
    struct lab_node *n = &l->node[i];
    unsigned d = lab_domain(a->uuid);

    n->starts++;
    n->start_id = a->id;
    n->quiet_ms = a->quiet_ms;
    if (n->no_starts)
        return;
    if (n->fail_starts) {
        lab_result(l, i, a->id, false);
        return;
    }
    n->copy[d] = (struct lab_copy){ .here = true, .running = true, .epoch = a->epoch };
    lab_result(l, i, a->id, true);
    lab_see(l, i, d);
}

static inline void lab_fuse(struct lab *l, unsigned i, const struct ha_action *a)
{
    struct lab_copy *k = &l->node[i].copy[lab_domain(a->uuid)];

    if (k->here && k->epoch == a->epoch && !(k->blown && a->deadline < l->now))
        k->fuse = a->deadline;
}

static inline void lab_destroy(struct lab *l, unsigned i, const struct ha_action *a)
{
    struct lab_copy *k = &l->node[i].copy[lab_domain(a->uuid)];

    l->node[i].destroys++;
    if (l->node[i].fail_destroys) {
        lab_result(l, i, a->id, false);
        return;
    }
    if (k->here && k->epoch <= a->epoch)
        *k = (struct lab_copy){ .here = false };
    lab_result(l, i, a->id, true);
    lab_see(l, i, lab_domain(a->uuid));
}

static inline void lab_act(struct lab *l, unsigned i, const struct ha_action *a)
{
    struct lab_node *n = &l->node[i];

    switch (a->type) {
    case HA_ACT_SEND:
        lab_send(l, i, a);
        break;
    case HA_ACT_BEAT:
        lab_beat(l, i, a);
        break;
    case HA_ACT_PERSIST:
        lab_persist(l, i, a);
        break;
    case HA_ACT_FUSE:
        lab_fuse(l, i, a);
        break;
    case HA_ACT_START:
        lab_start(l, i, a);
        break;
    case HA_ACT_STOP:
    case HA_ACT_DESTROY:
        lab_destroy(l, i, a);
        break;
    case HA_ACT_RESUME:
        n->resumes++;
        n->copy[lab_domain(a->uuid)].blown = false;
        lab_result(l, i, a->id, true);
        lab_see(l, i, lab_domain(a->uuid));
        break;
    case HA_ACT_MIGRATE:
        n->migrates++;
        n->migrate_id = a->id;
        n->migrate_to = a->node;
        break;
    case HA_ACT_CANCEL:
        n->cancels++;
        break;
    case HA_ACT_FENCE:
        n->fences++;
        n->fence_id = a->id;
        break;
    case HA_ACT_ANSWER:
        n->answered = true;
        n->answer_ok = a->ok;
        n->answer_epoch = a->answer->epoch;
        n->answer_owner = a->answer->owner;
        snprintf(n->answer, sizeof n->answer, "%s", a->text);
        snprintf(n->warning, sizeof n->warning, "%s", a->answer->warning);
        break;
    case HA_ACT_NOTE:
        n->alarms += a->alarm;
        break;
    case HA_ACT_WATCHDOG:
        n->petted = a->deadline;
        break;
    case HA_ACT_MAX:
        break;
    }
    if (l->talk && a->type != HA_ACT_BEAT && a->type != HA_ACT_FUSE)
        fprintf(stderr, "%7llu node %u action %d %.36s e%llu n%u %zu %s\n",
            (unsigned long long)l->now, n->id, a->type, a->uuid, (unsigned long long)a->epoch,
            a->node, a->len, a->text);
}

static inline void lab_step(struct lab *l, unsigned i, const struct ha_event *e)
{
    struct ha_actions out;

    if (!l->node[i].up)
        return;
    ha_step(l->node[i].core, e, l->now, &out);
    for (size_t k = 0; k < out.n; k++)
        lab_act(l, i, &out.action[k]);
    l->node[i].wake = out.wake;
    lab_check(l);
}

/* What waits for a node that hangs goes on waiting. */
static inline void lab_drain(struct lab *l)
{
    unsigned upto;

    do {
        upto = l->tail;
        while (l->head < upto) {
            struct lab_event q = l->queue[l->head++ % LAB_QUEUE];

            if (l->node[q.to].up && l->node[q.to].hangs) {
                l->queue[l->tail++ % LAB_QUEUE] = q;
                continue;
            }
            lab_step(l, (unsigned)q.to, &q.e);
            free(q.bytes);
            free(q.text);
        }
    } while (l->tail != l->head && ({
        bool again = false;
        for (unsigned k = l->head; k < l->tail; k++)
            again |= !l->node[l->queue[k % LAB_QUEUE].to].hangs;
        again;
    }));
}

static inline void lab_fuses(struct lab *l, unsigned i)
{
    for (unsigned d = 0; d < LAB_DOMAINS; d++) {
        struct lab_copy *k = &l->node[i].copy[d];

        if (k->here && k->running && !k->blown && !k->defies && k->fuse && l->now >= k->fuse) {
            k->blown = true;
            lab_see(l, i, d);
        }
    }
}

/* Time goes on, 10 ms at once. */
static inline void lab_run(struct lab *l, unsigned ms)
{
    const struct ha_event time = { .type = HA_EV_TIME };

    lab_drain(l);
    for (unsigned t = 0; t < ms; t += 10) {
        l->now += 10;
        for (unsigned i = 0; i < l->n; i++) {
            if (l->node[i].up)
                lab_fuses(l, i);
            if (l->node[i].up && !l->node[i].hangs && l->now >= l->node[i].wake)
                lab_step(l, i, &time);
        }
        lab_drain(l);
    }
}

static inline void lab_boot(struct lab *l, unsigned i, bool host)
{
    struct lab_node *n = &l->node[i];
    struct ha_config config = { .node = n->id, .n_nodes = l->n, .times = l->times };
    static struct ha_record saved[LAB_RECORDS];
    struct ha_event e = { .type = HA_EV_HOST };
    struct err err;

    if (host) {
        n->boots++;
        memset(n->copy, 0, sizeof n->copy);
    }
    n->incarnation += 1 + n->id * 1000;
    config.incarnation = n->incarnation;
    config.starts_at_once = l->starts_at_once ? l->starts_at_once : 4;
    config.moves_at_once = l->moves_at_once ? l->moves_at_once : 2;
    snprintf(config.name, sizeof config.name, "node%u", n->id);
    snprintf(config.boot_id, sizeof config.boot_id, "boot-%u-%u", n->id, n->boots);
    for (unsigned k = 0; k < l->n; k++)
        config.nodes[k] = l->node[k].id;
    if (n->one_more)
        config.nodes[config.n_nodes++] = n->one_more;
    for (unsigned k = 0; k < n->n_disk; k++)
        saved[k] = (struct ha_record){ n->disk[k].bytes, n->disk[k].len };
    n->core = ha_core_new(&config, saved, n->n_disk, l->now, &err);
    if (!n->core) {
        fprintf(stderr, "node %u: %s\n", n->id, err.text);
        abort();
    }
    n->up = true;
    n->hangs = n->slow_disk = false;
    n->wake = l->now;
    for (unsigned d = 0; d < LAB_DOMAINS; d++)
        if (n->copy[d].here)
            lab_see(l, i, d);
    if (n->blank_host)
        return;
    e.u.host.memory_kib = 16 * GIB;
    e.u.host.cpus = 8;
    lab_push(l, (int)i, &e);
}

/* The ordered channel sees who is there. */
static inline void lab_views(struct lab *l)
{
    for (unsigned i = 0; i < l->n; i++) {
        struct ha_event e = { .type = HA_EV_VIEW };

        if (!l->node[i].up)
            continue;
        for (unsigned k = 0; k < l->n; k++)
            if (lab_linked(l, i, k))
                e.u.view.members[e.u.view.n++] = l->node[k].id;
        lab_push(l, (int)i, &e);
    }
}

/* host: everything in it dies; else its daemon alone. What is on its way to it is lost. */
static inline void lab_kill(struct lab *l, unsigned i, bool host)
{
    struct lab_node *n = &l->node[i];

    n->up = n->hangs = false;
    for (unsigned k = l->head; k < l->tail; k++)
        if (l->queue[k % LAB_QUEUE].to == (int)i) { /* answered by nobody */
            l->queue[k % LAB_QUEUE].e = (struct ha_event){ .type = HA_EV_MAX };
        }
    ha_core_free(&n->core);
    if (host)
        memset(n->copy, 0, sizeof n->copy);
}

static inline struct lab *lab_new(unsigned n)
{
    struct lab *l = calloc(1, sizeof *l);

    l->n = n;
    l->now = 100000;
    ha_times_derive(&l->times, 1000, 0);
    for (unsigned i = 0; i < n; i++)
        l->node[i].id = i + 1;
    for (unsigned i = 0; i < n; i++)
        lab_boot(l, i, true);
    lab_views(l);
    return l;
}

static inline void lab_free(struct lab *l)
{
    for (unsigned k = l->head; k < l->tail; k++) {
        free(l->queue[k % LAB_QUEUE].bytes);
        free(l->queue[k % LAB_QUEUE].text);
    }
    for (unsigned i = 0; i < l->n; i++) {
        if (l->node[i].core)
            ha_core_free(&l->node[i].core);
        for (unsigned k = 0; k < l->node[i].n_disk; k++)
            free(l->node[i].disk[k].bytes);
    }
    free(l);
}

static inline void lab_command(struct lab *l, unsigned i, Migrd__HaCommand *m)
{
    struct ha_event e = { .type = HA_EV_COMMAND };

    l->node[i].answered = false;
    e.u.command = m;
    lab_step(l, i, &e);
    lab_drain(l);
}

/* What node i's log says of the domain; the caller frees it. */
static inline Migrd__HaDomain lab_record(struct lab *l, unsigned i, unsigned d)
{
    Migrd__HaState *s = ha_core_state(l->node[i].core);
    Migrd__HaDomain copy = MIGRD__HA_DOMAIN__INIT;
    static char why[8][400];
    static unsigned turn;

    for (size_t k = 0; k < s->n_domain; k++)
        if (strcmp(s->domain[k]->uuid, lab_uuid(d)) == 0)
            copy = *s->domain[k];
    snprintf(why[++turn % 8], 400, "%s", copy.why ? copy.why : "");
    copy.why = why[turn % 8];
    copy.uuid = copy.name = NULL;
    copy.policy = NULL;
    copy.failed = NULL;
    migrd__ha_state__free_unpacked(s, NULL);
    return copy;
}

static inline Migrd__HaNode lab_node_record(struct lab *l, unsigned i, uint32_t id)
{
    Migrd__HaState *s = ha_core_state(l->node[i].core);
    Migrd__HaNode copy = MIGRD__HA_NODE__INIT;

    for (size_t k = 0; k < s->n_node; k++)
        if (s->node[k]->id == id)
            copy = *s->node[k];
    migrd__ha_state__free_unpacked(s, NULL);
    return copy;
}

static inline Migrd__HaPhase lab_phase(struct lab *l, unsigned i)
{
    Migrd__HaState *s = ha_core_state(l->node[i].core);
    Migrd__HaPhase p = s->local->phase;

    migrd__ha_state__free_unpacked(s, NULL);
    return p;
}

/* Domain d, 1 GiB, added on node i, where it runs. */
static inline void lab_add(struct lab *l, unsigned i, unsigned d, const Migrd__HaPolicy *policy)
{
    Migrd__HaCommand m = MIGRD__HA_COMMAND__INIT;
    Migrd__HaDomain x = MIGRD__HA_DOMAIN__INIT;
    char name[20];

    snprintf(name, sizeof name, "vm%u", d);
    l->node[i].copy[d] =
        (struct lab_copy){ .here = true, .running = true, .epoch = 5, .fuse = UINT64_MAX };
    lab_see(l, i, d);
    lab_drain(l);
    x.uuid = (char *)lab_uuid(d);
    x.name = name;
    x.memory_kib = GIB;
    x.want_run = x.obeys_fuse = true;
    x.policy = (Migrd__HaPolicy *)policy;
    x.definition.data = (uint8_t *)name;
    x.definition.len = strlen(name);
    m.kind = MIGRD__HA_COMMAND_KIND__HA_ADD;
    m.domain = &x;
    m.node = l->node[i].id;
    m.epoch = 5;
    lab_command(l, i, &m);
}

/* How many copies run. */
static inline unsigned lab_running(const struct lab *l, unsigned d, unsigned *where)
{
    unsigned n = 0;

    for (unsigned i = 0; i < l->n; i++)
        if (lab_runs(l, i, d)) {
            n++;
            *where = i;
        }
    return n;
}

/* The same log, the same state. */
static inline bool lab_agree(struct lab *l, unsigned a, unsigned b)
{
    Migrd__HaState *x = ha_core_state(l->node[a].core), *y = ha_core_state(l->node[b].core);
    size_t n, m;
    uint8_t *p, *q;
    bool same;

    migrd__ha_local__free_unpacked(x->local, NULL);
    migrd__ha_local__free_unpacked(y->local, NULL);
    x->local = y->local = NULL;
    n = migrd__ha_state__get_packed_size(x);
    m = migrd__ha_state__get_packed_size(y);
    p = malloc(n + 1);
    q = malloc(m + 1);
    migrd__ha_state__pack(x, p);
    migrd__ha_state__pack(y, q);
    same = n == m && memcmp(p, q, n) == 0;
    free(p);
    free(q);
    migrd__ha_state__free_unpacked(x, NULL);
    migrd__ha_state__free_unpacked(y, NULL);
    return same;
}

#endif
