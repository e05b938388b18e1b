/* SPDX-License-Identifier: ISC */
/*
 * record: an event costs a copy, the rest is done by the file's thread. A file that was turned
 * over begins with the view of that moment; what a core knows by itself and has nowhere written
 * (whose beats it saw when) is not in it, so a replay is exact from the next view on.
 */
#include "cluster/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/log.h"
#include "cluster/record.pb-c.h"
#include "cluster/record_file.h"

#define MAGIC "MIGRDHA1"
#define MAGIC_LEN 8
#define VERSION 1
#define TIMES (sizeof(struct ha_times) / sizeof(unsigned))

_Static_assert(sizeof(struct ha_times) == 9 * sizeof(unsigned), "times are a list in the file");

/* --- writer --- */

struct flight {
    struct record_file *file;
    bool stopped; /* it can't be written any more */
    size_t limit, len;
    struct ha_config config;
    struct ha_event view; /* the newest */
    bool has_view;
};

static void put32(uint8_t *at, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(v >> 8 * i);
}

static void stop(struct flight *f, const char *why)
{
    f->stopped = true;
    log_warn("ha", "%s; the cluster's decisions are not recorded any more", why);
}

static void put_frame(struct flight *f, const Migrd__HaFlightFrame *frame)
{
    size_t len = migrd__ha_flight_frame__get_packed_size(frame);
    uint8_t *bytes;

    if (f->stopped)
        return;
    if (len > FLIGHT_FRAME_MAX || (bytes = malloc(8 + len)) == NULL) {
        stop(f, "an event does not fit into the flight record");
        return;
    }
    migrd__ha_flight_frame__pack(frame, bytes + 8);
    put32(bytes, (uint32_t)len);
    put32(bytes + 4, XXH32(bytes + 8, len, 0));
    record_file_put(f->file, bytes, 8 + len);
    f->len += 8 + len;
    free(bytes);
}

static void put_start(struct flight *f, size_t saved, uint64_t now, bool continued)
{
    Migrd__HaFlightStart start = MIGRD__HA_FLIGHT_START__INIT;
    Migrd__HaFlightFrame frame = MIGRD__HA_FLIGHT_FRAME__INIT;
    uint32_t times[TIMES];

    memcpy(times, &f->config.times, sizeof times);
    start.version = VERSION;
    start.now = now;
    start.continued = continued;
    start.node = f->config.node;
    start.name = f->config.name;
    start.incarnation = f->config.incarnation;
    start.boot_id = f->config.boot_id;
    start.nodes = f->config.nodes;
    start.n_nodes = f->config.n_nodes;
    start.starts_at_once = f->config.starts_at_once;
    start.moves_at_once = f->config.moves_at_once;
    start.times = times;
    start.n_times = TIMES;
    start.saved = (uint32_t)saved;
    frame.start = &start;
    put_frame(f, &frame);
}

static void begin(
    struct flight *f, const struct ha_record *saved, size_t n, uint64_t now, bool continued)
{
    f->len = MAGIC_LEN;
    if (n > FLIGHT_SAVED_MAX) {
        stop(f, "the cluster's saved state has too many records for the flight record");
        return;
    }
    record_file_put(f->file, MAGIC, MAGIC_LEN);
    put_start(f, n, now, continued);
    for (size_t i = 0; i < n; i++) {
        Migrd__HaFlightFrame frame = MIGRD__HA_FLIGHT_FRAME__INIT;

        frame.saved = (ProtobufCBinaryData){ saved[i].len, (uint8_t *)saved[i].bytes };
        put_frame(f, &frame);
    }
}

struct flight *flight_open(const char *path, size_t limit, const struct ha_config *config,
    const struct ha_record *saved, size_t n, uint64_t now, struct err *e)
{
    struct flight *f = calloc(1, sizeof *f);

    if (f == NULL) {
        err_set(e, ERR_MEMORY, "no memory to record the cluster's decisions");
        return NULL;
    }
    f->limit = limit;
    f->config = *config;
    f->file = record_file_open(path, e);
    if (f->file == NULL) {
        free(f);
        return NULL;
    }
    begin(f, saved, n, now, false);
    return f;
}

static void fill_event(Migrd__HaFlightEvent *m, const struct ha_event *e)
{
    switch (e->type) {
    case HA_EV_VIEW:
        m->members = (uint32_t *)e->u.view.members;
        m->n_members = e->u.view.n;
        break;
    case HA_EV_QUORUM:
        m->ok = e->u.quorate;
        break;
    case HA_EV_MESSAGE:
    case HA_EV_BEAT:
        m->from = e->u.message.from;
        m->bytes = (ProtobufCBinaryData){ e->u.message.len, (uint8_t *)e->u.message.bytes };
        break;
    case HA_EV_PERSISTED:
        m->id = e->u.id;
        break;
    case HA_EV_DOMAIN:
        m->uuid = (char *)e->u.domain.uuid;
        m->epoch = e->u.domain.epoch;
        m->seen = e->u.domain.seen;
        m->fused = e->u.domain.fused;
        m->by_guest = e->u.domain.by_guest;
        m->blown = e->u.domain.blown;
        break;
    case HA_EV_HOST:
        m->memory_kib = e->u.host.memory_kib;
        m->cpus = e->u.host.cpus;
        m->others_kib = e->u.host.others_kib;
        break;
    case HA_EV_RESULT:
        m->id = e->u.result.id;
        m->ok = e->u.result.ok;
        m->text = (char *)(e->u.result.text != NULL ? e->u.result.text : "");
        break;
    case HA_EV_COMMAND:
        m->command = (Migrd__HaCommand *)e->u.command;
        break;
    case HA_EV_TIME:
    case HA_EV_MAX:
        break;
    }
}

bool flight_event(struct flight *f, const struct ha_event *event, uint64_t now)
{
    Migrd__HaFlightEvent m = MIGRD__HA_FLIGHT_EVENT__INIT;
    Migrd__HaFlightFrame frame = MIGRD__HA_FLIGHT_FRAME__INIT;
    struct err e;

    if (event->type == HA_EV_VIEW) {
        f->view = *event;
        f->has_view = true;
    }
    m.type = event->type;
    m.now = now;
    fill_event(&m, event);
    frame.event = &m;
    put_frame(f, &frame);
    if (!f->stopped && record_file_failed(f->file, &e))
        stop(f, e.text);
    return !f->stopped && f->len >= f->limit;
}

void flight_turn(struct flight *f, const struct ha_record *saved, size_t n, uint64_t now)
{
    if (f->stopped)
        return;
    record_file_turn(f->file);
    begin(f, saved, n, now, true);
    if (f->has_view)
        flight_event(f, &f->view, now);
}

void flight_sync(struct flight *f)
{
    if (!f->stopped)
        record_file_sync(f->file);
}

void flight_close(struct flight **f)
{
    if (*f != NULL)
        record_file_close(&(*f)->file);
    free(*f);
    *f = NULL;
}

/* --- reader --- */

struct flight_reader {
    const uint8_t *bytes;
    size_t len, at;
    struct ha_config config;
    uint64_t now;
    bool continued;
    struct ha_record *saved;
    Migrd__HaFlightFrame **frames; /* of the saved records */
    size_t n_saved;
    Migrd__HaFlightFrame *frame; /* of the event */
};

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* 1: *frame; 0: the end. */
static int next_frame(struct flight_reader *r, Migrd__HaFlightFrame **frame, struct err *e)
{
    size_t left = r->len - r->at;
    uint32_t len;

    if (left < 8)
        return 0;
    len = get32(r->bytes + r->at);
    if (len > FLIGHT_FRAME_MAX)
        return err_set(e, ERR_INVALID, "a frame of %u bytes at offset %zu", len, r->at);
    if (len > left - 8)
        return 0;
    if (XXH32(r->bytes + r->at + 8, len, 0) != get32(r->bytes + r->at + 4))
        return err_set(e, ERR_INTEGRITY, "the frame at offset %zu is damaged", r->at);
    *frame = migrd__ha_flight_frame__unpack(NULL, len, r->bytes + r->at + 8);
    if (*frame == NULL)
        return err_set(e, ERR_INVALID, "the frame at offset %zu is not readable", r->at);
    r->at += 8 + len;
    return 1;
}

static int take_start(struct flight_reader *r, const Migrd__HaFlightStart *s, struct err *e)
{
    struct ha_config *c = &r->config;

    if (s == NULL)
        return err_set(e, ERR_INVALID, "it does not begin with the start of a core");
    if (s->version != VERSION)
        return err_set(
            e, ERR_UNSUPPORTED, "version %u; this program reads %u", s->version, VERSION);
    if (s->n_nodes == 0 || s->n_nodes > HA_NODES_MAX || s->n_times != TIMES ||
        strlen(s->name) >= HA_NAME_LEN || strlen(s->boot_id) >= HA_UUID_LEN ||
        s->saved > FLIGHT_SAVED_MAX)
        return err_set(e, ERR_INVALID, "its configuration has more than a core takes");
    c->node = s->node;
    strcpy(c->name, s->name);
    c->incarnation = s->incarnation;
    strcpy(c->boot_id, s->boot_id);
    memcpy(c->nodes, s->nodes, s->n_nodes * sizeof *c->nodes);
    c->n_nodes = (unsigned)s->n_nodes;
    c->starts_at_once = s->starts_at_once;
    c->moves_at_once = s->moves_at_once;
    memcpy(&c->times, s->times, sizeof c->times);
    r->now = s->now;
    r->continued = s->continued;
    return 0;
}

static int take_saved(struct flight_reader *r, size_t n, struct err *e)
{
    r->saved = calloc(n + 1, sizeof *r->saved);
    r->frames = calloc(n + 1, sizeof(Migrd__HaFlightFrame *));
    if (r->saved == NULL || r->frames == NULL)
        return err_set(e, ERR_MEMORY, "no memory for %zu saved records", n);
    while (r->n_saved < n) {
        Migrd__HaFlightFrame *frame;
        int got = next_frame(r, &frame, e);

        if (got <= 0)
            return got < 0 ? -1 : err_set(e, ERR_INVALID, "saved records are missing");
        r->frames[r->n_saved] = frame;
        r->saved[r->n_saved++] = (struct ha_record){ frame->saved.data, frame->saved.len };
    }
    return 0;
}

struct flight_reader *flight_read(const void *bytes, size_t len, struct err *e)
{
    struct flight_reader *r = calloc(1, sizeof *r);
    Migrd__HaFlightFrame *frame = NULL;
    int status;

    if (r == NULL) {
        err_set(e, ERR_MEMORY, "no memory to read a flight record");
        return NULL;
    }
    r->bytes = bytes;
    r->len = len;
    r->at = MAGIC_LEN;
    if (len < MAGIC_LEN || memcmp(bytes, MAGIC, MAGIC_LEN) != 0)
        status = err_set(e, ERR_INVALID, "not a flight record: it does not begin with " MAGIC);
    else
        status = next_frame(r, &frame, e);
    if (status == 0)
        status = err_set(e, ERR_INVALID, "the flight record is empty");
    if (status > 0)
        status = take_start(r, frame->start, e);
    if (status == 0)
        status = take_saved(r, frame->start->saved, e);
    if (frame != NULL)
        migrd__ha_flight_frame__free_unpacked(frame, NULL);
    if (status < 0)
        flight_read_free(&r);
    return r;
}

const struct ha_config *flight_config(const struct flight_reader *r)
{
    return &r->config;
}

const struct ha_record *flight_saved(const struct flight_reader *r, size_t *n, uint64_t *now)
{
    *n = r->n_saved;
    *now = r->now;
    return r->saved;
}

bool flight_continued(const struct flight_reader *r)
{
    return r->continued;
}

static int take_domain(const Migrd__HaFlightEvent *m, struct ha_event *event, struct err *e)
{
    if (strlen(m->uuid) >= HA_UUID_LEN || m->seen >= HA_SEEN_MAX)
        return err_set(e, ERR_INVALID, "an event of a domain that can't be");
    strcpy(event->u.domain.uuid, m->uuid);
    event->u.domain.epoch = m->epoch;
    event->u.domain.seen = (enum ha_seen)m->seen;
    event->u.domain.fused = m->fused;
    event->u.domain.by_guest = m->by_guest;
    event->u.domain.blown = m->blown;
    return 1;
}

static int take_event(const Migrd__HaFlightEvent *m, struct ha_event *event, struct err *e)
{
    switch (event->type) {
    case HA_EV_VIEW:
        if (m->n_members > HA_NODES_MAX)
            return err_set(e, ERR_INVALID, "a view of %zu members", m->n_members);
        event->u.view.n = (unsigned)m->n_members;
        if (m->n_members > 0)
            memcpy(event->u.view.members, m->members, m->n_members * sizeof *m->members);
        return 1;
    case HA_EV_QUORUM:
        event->u.quorate = m->ok;
        return 1;
    case HA_EV_MESSAGE:
    case HA_EV_BEAT:
        event->u.message.from = m->from;
        event->u.message.bytes = m->bytes.data;
        event->u.message.len = m->bytes.len;
        return 1;
    case HA_EV_PERSISTED:
        event->u.id = m->id;
        return 1;
    case HA_EV_DOMAIN:
        return take_domain(m, event, e);
    case HA_EV_HOST:
        event->u.host.memory_kib = m->memory_kib;
        event->u.host.cpus = m->cpus;
        event->u.host.others_kib = m->others_kib;
        return 1;
    case HA_EV_RESULT:
        event->u.result.id = m->id;
        event->u.result.ok = m->ok;
        event->u.result.text = m->text;
        return 1;
    case HA_EV_COMMAND:
        if (m->command == NULL)
            return err_set(e, ERR_INVALID, "a command without a command");
        event->u.command = m->command;
        return 1;
    case HA_EV_TIME:
    case HA_EV_MAX:
        break;
    }
    return 1;
}

int flight_next(struct flight_reader *r, struct ha_event *event, uint64_t *now, struct err *e)
{
    int got;

    if (r->frame != NULL)
        migrd__ha_flight_frame__free_unpacked(r->frame, NULL);
    r->frame = NULL;
    got = next_frame(r, &r->frame, e);
    if (got <= 0)
        return got;
    if (r->frame->event == NULL || r->frame->event->type >= HA_EV_MAX)
        return err_set(e, ERR_INVALID, "before offset %zu there is no event", r->at);
    memset(event, 0, sizeof *event);
    event->type = (enum ha_event_type)r->frame->event->type;
    *now = r->frame->event->now;
    return take_event(r->frame->event, event, e);
}

void flight_read_free(struct flight_reader **r)
{
    if (*r == NULL)
        return;
    for (size_t i = 0; i < (*r)->n_saved; i++)
        migrd__ha_flight_frame__free_unpacked((*r)->frames[i], NULL);
    if ((*r)->frame != NULL)
        migrd__ha_flight_frame__free_unpacked((*r)->frame, NULL);
    free((*r)->saved);
    free((*r)->frames);
    free(*r);
    *r = NULL;
}
