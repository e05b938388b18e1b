/* SPDX-License-Identifier: ISC */
/* The cluster's core against its peers' bytes, and against what its own disk gives back. The first
 * byte chooses: a record of the disk; a node of three that gets messages and beats as they are; or
 * a cluster of one, which hears itself and gets entries, commands and its guests' doings. What it
 * has written must make the same core again. */
#include <stdlib.h>
#include <string.h>

#include "cluster/core.h"

#define STEPS_MAX 200
#define RECORDS_MAX 4000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
    struct ha_core *core;
    struct ha_config config;
    uint64_t now, persisted;
    struct ha_record disk[RECORDS_MAX];
    size_t n;
    bool echo;
    unsigned depth;
};

static void disk_clear(struct world *w)
{
    while (w->n > 0)
        free((void *)w->disk[--w->n].bytes);
}

static void disk_add(struct world *w, const struct ha_action *a)
{
    uint8_t *copy = malloc(a->len + 1);

    if (a->whole)
        disk_clear(w);
    if (w->n == RECORDS_MAX || !copy)
        abort();
    memcpy(copy, a->bytes, a->len);
    w->disk[w->n++] = (struct ha_record){ copy, a->len };
    w->persisted = a->id;
}

/* Takes the actions as its own before the next step forgets them. */
static void step(struct world *w, const struct ha_event *e)
{
    struct ha_actions out;
    uint8_t *sent[64];
    size_t len[64], n = 0;
    uint64_t before = w->persisted;

    ha_step(w->core, e, w->now, &out);
    if (out.wake < w->now)
        abort();
    for (size_t i = 0; i < out.n; i++) {
        const struct ha_action *a = &out.action[i];

        if (!a->text || a->type >= HA_ACT_MAX || (a->type == HA_ACT_BEAT && a->len > HA_BEAT_MAX) ||
            (a->type == HA_ACT_SEND && a->len > HA_MESSAGE_MAX))
            abort();
        if (a->type == HA_ACT_PERSIST)
            disk_add(w, a);
        if (a->type == HA_ACT_SEND && w->echo && n < 64) {
            sent[n] = malloc(a->len + 1);
            memcpy(sent[n], a->bytes, a->len);
            len[n++] = a->len;
        }
    }
    w->depth++;
    if (w->persisted != before && w->depth < 40)
        step(w, &(struct ha_event){ .type = HA_EV_PERSISTED, .u.id = w->persisted });
    for (size_t i = 0; i < n; i++) {
        struct ha_event m = { .type = HA_EV_MESSAGE,
            .u.message = { .from = w->config.node, .bytes = sent[i], .len = len[i] } };

        if (w->depth < 40)
            step(w, &m);
        free(sent[i]);
    }
    w->depth--;
}

static bool world_new(struct world *w, unsigned nodes)
{
    struct ha_event view = { .type = HA_EV_VIEW };
    struct ha_event host = { .type = HA_EV_HOST, .u.host = { .memory_kib = 1 << 24, .cpus = 4 } };
    struct err e;

    w->now = 1000;
    w->echo = nodes == 1;
    w->config = (struct ha_config){ .node = 1, .incarnation = 7, .n_nodes = nodes };
    ha_times_derive(&w->config.times, 1000, 0);
    for (unsigned i = 0; i < nodes; i++)
        view.u.view.members[view.u.view.n++] = w->config.nodes[i] = i + 1;
    w->core = ha_core_new(&w->config, NULL, 0, w->now, &e);
    if (!w->core)
        return false;
    step(w, &host);
    step(w, &view);
    return true;
}

static void world_end(struct world *w)
{
    Migrd__HaState *s = ha_core_state(w->core);
    struct ha_core *again;
    struct err e;

    if (!s)
        abort();
    migrd__ha_state__free_unpacked(s, NULL);
    again = ha_core_new(&w->config, w->disk, w->n, w->now, &e);
    if (!again)
        abort();
    ha_core_free(&again);
    ha_core_free(&w->core);
    disk_clear(w);
}

static void one_command(struct world *w, const uint8_t *data, size_t len)
{
    Migrd__HaCommand *m = migrd__ha_command__unpack(NULL, len, data);
    struct ha_event e = { .type = HA_EV_COMMAND };

    if (!m)
        return;
    e.u.command = m;
    step(w, &e);
    migrd__ha_command__free_unpacked(m, NULL);
}

/* An entry with a sender and a term that count. */
static void one_entry(struct world *w, const uint8_t *data, size_t len)
{
    Migrd__HaEntry *e = migrd__ha_entry__unpack(NULL, len, data);
    Migrd__HaMessage m = MIGRD__HA_MESSAGE__INIT;
    Migrd__HaPropose p = MIGRD__HA_PROPOSE__INIT;
    struct ha_event v = { .type = HA_EV_MESSAGE };
    Migrd__HaState *s = ha_core_state(w->core);
    uint8_t *bytes;

    if (!e || !s)
        abort();
    e->node = m.from = v.u.message.from = 1;
    e->incarnation = m.incarnation = 7;
    p.term = s->term;
    p.entry.len = migrd__ha_entry__get_packed_size(e);
    p.entry.data = malloc(p.entry.len + 1);
    migrd__ha_entry__pack(e, p.entry.data);
    m.version = m.needs = 1;
    m.propose = &p;
    v.u.message.len = migrd__ha_message__get_packed_size(&m);
    v.u.message.bytes = bytes = malloc(v.u.message.len + 1);
    migrd__ha_message__pack(&m, bytes);
    step(w, &v);
    free(bytes);
    free(p.entry.data);
    migrd__ha_entry__free_unpacked(e, NULL);
    migrd__ha_state__free_unpacked(s, NULL);
}

static void one_guest(struct world *w, const uint8_t *data, size_t len)
{
    struct ha_event e = { .type = HA_EV_DOMAIN };

    memcpy(e.u.domain.uuid, "00000000-0000-4000-8000-000000000000", HA_UUID_LEN);
    e.u.domain.uuid[35] = (char)('0' + (len > 0 ? data[0] % 4 : 0));
    e.u.domain.seen = (enum ha_seen)(len > 1 ? data[1] % (HA_SEEN_MAX + 1) : 0);
    e.u.domain.epoch = len > 2 ? data[2] : 0;
    e.u.domain.fused = len > 3 && data[3] & 1;
    e.u.domain.blown = len > 3 && data[3] & 2;
    e.u.domain.by_guest = len > 3 && data[3] & 4;
    step(w, &e);
}

static void raw(
    struct world *w, enum ha_event_type type, uint32_t from, const uint8_t *d, size_t len)
{
    struct ha_event e = { .type = type, .u.message = { .from = from, .bytes = d, .len = len } };

    step(w, &e);
}

static void one(struct world *w, unsigned kind, const uint8_t *data, size_t len)
{
    Migrd__HaEntry *e;

    switch (kind % 8) {
    case 0:
        raw(w, HA_EV_MESSAGE, w->echo ? 1 : 2, data, len);
        break;
    case 1:
        raw(w, HA_EV_BEAT, 2, data, len);
        break;
    case 2:
        w->now += len > 0 ? data[0] * 20u : 1;
        step(w, &(struct ha_event){ .type = HA_EV_TIME });
        break;
    case 3:
        one_command(w, data, len);
        break;
    case 4:
        e = migrd__ha_entry__unpack(NULL, len, data);
        if (e) {
            migrd__ha_entry__free_unpacked(e, NULL);
            one_entry(w, data, len);
        }
        break;
    case 5:
        one_guest(w, data, len);
        break;
    case 6:
        step(w, &(struct ha_event){ .type = HA_EV_RESULT,
                    .u.result = { .id = len > 0 ? data[0] : 0, .ok = len > 1, .text = "no" } });
        break;
    default:
        raw(w, HA_EV_MESSAGE, 3, data, len);
        break;
    }
}

static void from_disk(const uint8_t *data, size_t size)
{
    struct ha_config config = { .node = 1, .incarnation = 7, .n_nodes = 1, .nodes = { 1 } };
    struct ha_record r = { data, size };
    struct ha_core *c;
    struct err e;

    ha_times_derive(&config.times, 1000, 0);
    c = ha_core_new(&config, &r, 1, 0, &e);
    if (c)
        ha_core_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world w;
    size_t at = 1;

    if (size < 2)
        return 0;
    if (data[0] % 3 == 0) {
        from_disk(data + 1, size - 1);
        return 0;
    }
    memset(&w, 0, sizeof w);
    if (!world_new(&w, data[0] % 3 == 1 ? 1 : 3))
        abort();
    for (unsigned n = 0; n < STEPS_MAX && at + 3 <= size; n++) {
        size_t len = data[at + 1] | (size_t)(data[at + 2] & 0xf) << 8;

        if (len > size - at - 3)
            len = size - at - 3;
        one(&w, data[at], data + at + 3, len);
        at += 3 + len;
    }
    world_end(&w);
    return 0;
}
