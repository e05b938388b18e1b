/* SPDX-License-Identifier: ISC */
/*
 * /v1/events: one stream per reader. Events are put into the stream's own buffer as they
 * are published; the server takes them from there as fast as the reader reads. With
 * nothing to send the connection is suspended, and an event or the heartbeat wakes it.
 *
 *   suspended --event, heartbeat, end--> sending --buffer empty--> suspended
 *   sending --buffer empty, ending--> closed
 *
 * A buffer that is full loses events, counts them, and says so as soon as there is room.
 * An event's id is "<start of migrd>-<number>": after a restart of migrd a reader that
 * comes back with an id of before gets everything that is kept.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/pbjson.h"
#include "migrd/events.h"
#include "migrd/status_internal.h"

#define BLOCK 4096 /* bytes that the server takes at once */

struct status_stream {
    struct status_stream *next, **prev;
    struct status_listener *l;
    struct MHD_Connection *connection;
    int subscription; /* 0 none */
    char *buf;
    size_t len, at; /* unsent: buf[at..len) */
    uint64_t lost;
    uint64_t last_ns; /* when something was put into the buffer */
    bool suspended, ending;
};

/* False: no room, nothing was added. */
static bool put(struct status_stream *st, const char *text, size_t n)
{
    if (st->at > 0) {
        memmove(st->buf, st->buf + st->at, st->len - st->at);
        st->len -= st->at;
        st->at = 0;
    }
    if (n > STATUS_STREAM_BYTES - st->len)
        return false;
    memcpy(st->buf + st->len, text, n);
    st->len += n;
    st->last_ns = clock_ns();
    return true;
}

static void wake(struct status_stream *st)
{
    if (!st->suspended)
        return;
    st->suspended = false;
    MHD_resume_connection(st->connection);
    status_kick(st->l);
}

static void set_text(json_t *o, const char *key, const char *value)
{
    if (value != NULL && value[0] != '\0')
        json_object_set_new(o, key, pbjson_text(value));
}

/* One line of JSON: the event's common members, and what its publisher added as "data". */
static char *event_json(const struct event *ev)
{
    json_t *o = json_object(), *data = ev->json != NULL ? json_loads(ev->json, 0, NULL) : NULL;
    char *text;

    json_object_set_new(o, "id", json_integer((json_int_t)ev->id));
    json_object_set_new(o, "wall_ns", json_integer((json_int_t)ev->wall_ns));
    set_text(o, "type", ev->type);
    set_text(o, "domain", ev->name);
    set_text(o, "uuid", ev->uuid);
    set_text(o, "migration", ev->migration);
    if (data != NULL)
        json_object_set_new(o, "data", data);
    text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return text;
}

static void put_lost(struct status_stream *st)
{
    char text[96];
    int n = snprintf(text, sizeof text, "event: lost\ndata: {\"lost\":%" PRIu64 "}\n\n", st->lost);

    if (put(st, text, (size_t)n))
        st->lost = 0;
}

static void on_event(void *arg, const struct event *ev)
{
    struct status_stream *st = arg;
    char *json = event_json(ev), *text = NULL;
    int n = -1;

    if (json != NULL)
        n = asprintf(&text, "id: %" PRIx64 "-%" PRIu64 "\nevent: %s\ndata: %s\n\n",
            st->l->s->m->start_wall_ns, ev->id, ev->type, json);
    if (st->lost > 0)
        put_lost(st);
    if (n < 0 || st->lost > 0 || !put(st, text, (size_t)n))
        st->lost++;
    if (n >= 0)
        free(text);
    free(json);
    wake(st);
}

/* Which events a reader has seen already, by the id it sends back. */
static uint64_t seen_before(const struct status_stream *st)
{
    const char *id = MHD_lookup_connection_value(st->connection, MHD_HEADER_KIND, "Last-Event-ID");
    uint64_t start, number;

    if (id == NULL)
        return INT64_MAX; /* a new reader: from now on */
    if (sscanf(id, "%16" SCNx64 "-%20" SCNu64, &start, &number) == 2 &&
        start == st->l->s->m->start_wall_ns)
        return number < INT64_MAX ? number : INT64_MAX;
    return 0;
}

static ssize_t reader(void *cls, uint64_t pos, char *out, size_t max)
{
    struct status_stream *st = cls;
    size_t n = st->len - st->at;

    (void)pos;
    if (n > max)
        n = max;
    if (n > 0) {
        memcpy(out, st->buf + st->at, n);
        st->at += n;
        return (ssize_t)n;
    }
    if (st->ending)
        return MHD_CONTENT_READER_END_OF_STREAM;
    st->suspended = true;
    MHD_suspend_connection(st->connection);
    return 0;
}

static void stream_free(void *cls)
{
    struct status_stream *st = cls;

    if (st->subscription != 0)
        events_unsubscribe(st->l->s->m->events, st->subscription);
    *st->prev = st->next;
    if (st->next != NULL)
        st->next->prev = st->prev;
    st->l->s->n_streams--;
    free(st->buf);
    free(st);
}

static void link_stream(struct status *s, struct status_stream *st)
{
    st->next = s->streams;
    st->prev = &s->streams;
    if (st->next != NULL)
        st->next->prev = &st->next;
    s->streams = st;
    s->n_streams++;
}

struct MHD_Response *status_stream_new(
    struct status_listener *l, struct MHD_Connection *c, unsigned *http_code)
{
    static const char hello[] = ": migrd's events\nretry: 2000\n\n";
    struct status_stream *st = NULL;
    struct MHD_Response *r;

    *http_code = MHD_HTTP_SERVICE_UNAVAILABLE;
    if (l->s->n_streams < STATUS_STREAMS_MAX && !l->s->stopping)
        st = calloc(1, sizeof *st);
    if (st != NULL)
        st->buf = malloc(STATUS_STREAM_BYTES);
    if (st == NULL || st->buf == NULL) {
        free(st);
        return NULL;
    }
    st->l = l;
    st->connection = c;
    link_stream(l->s, st);
    put(st, hello, sizeof hello - 1);
    r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, reader, st, stream_free);
    if (r == NULL) {
        stream_free(st);
        return NULL;
    }
    st->subscription = events_subscribe(l->s->m->events, seen_before(st), on_event, st);
    status_set_deadline(c, 0);
    *http_code = MHD_HTTP_OK;
    return r;
}

void status_streams_beat(struct status *s, uint64_t now_ns)
{
    for (struct status_stream *st = s->streams; st != NULL; st = st->next) {
        if (now_ns - st->last_ns < STATUS_HEARTBEAT_MS * NS_PER_MS || st->len != st->at)
            continue;
        put(st, ":\n\n", 3);
        wake(st);
    }
}

void status_streams_end(struct status *s)
{
    for (struct status_stream *st = s->streams; st != NULL; st = st->next) {
        st->ending = true;
        wake(st);
    }
}
