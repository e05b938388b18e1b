/* SPDX-License-Identifier: ISC */
/*
 * Messages of the first channel: u32 big-endian length, one packed Session. What comes in
 * is looked at before protobuf-c builds objects from it: exactly one field at the top,
 * which fills the message; only a FinalState may be longer than TR_MESSAGE_SMALL, and it
 * has few fields. So a peer cannot make us allocate much more than it sent.
 *
 * Pings: whoever waits in tr_recv sends one every third of dead_peer_ms, and answers
 * those that come. Any message is a sign of life.
 */
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/io.h"
#include "transport/internal.h"

#define PING_SHARE 3   /* pings in dead_peer_ms */
#define RATE_MIN 65536 /* bytes per second that a started message must keep up */
#define FINAL_STATE_FIELDS_MAX 64

/* --- out --- */

static size_t limit_of(Migrd__Session__BodyCase kind)
{
    return kind == MIGRD__SESSION__BODY_FINAL_STATE ? TR_MESSAGE_MAX : TR_MESSAGE_SMALL;
}

/* Length and message in one piece; the caller frees. */
static uint8_t *pack(const Migrd__Session *m, size_t *len, struct err *e)
{
    size_t n = migrd__session__get_packed_size(m);
    uint32_t be = htonl((uint32_t)n);
    uint8_t *buf;

    if (n == 0 || n > limit_of(m->body_case)) {
        err_set(e, ERR_RESOURCE, "message of kind %d has %zu bytes, at most %zu are allowed",
            (int)m->body_case, n, limit_of(m->body_case));
        return NULL;
    }
    buf = malloc(sizeof be + n);
    if (buf == NULL) {
        err_set(e, ERR_MEMORY, "message of %zu bytes: out of memory", n);
        return NULL;
    }
    memcpy(buf, &be, sizeof be);
    migrd__session__pack(m, buf + sizeof be);
    *len = sizeof be + n;
    return buf;
}

int tr_send(struct tr_conn *c, const Migrd__Session *m, struct err *e)
{
    size_t len;
    uint8_t *buf = pack(m, &len, e);
    int r;

    if (buf == NULL)
        return -1;
    r = tr_write(c, buf, len, e);
    free(buf);
    return r;
}

/* A message that traffic of another thread makes needless. */
static int send_if_idle(struct tr_conn *c, const Migrd__Session *m, struct err *e)
{
    size_t len;
    uint8_t *buf = pack(m, &len, e);
    int r;

    if (buf == NULL)
        return -1;
    r = conn_try_write(c, buf, len, e);
    free(buf);
    return r < 0 ? -1 : 0;
}

int tr_ping(struct tr_conn *c, struct err *e)
{
    Migrd__Ping ping = MIGRD__PING__INIT;
    Migrd__Session m = MIGRD__SESSION__INIT;

    ping.stamp_ns = clock_ns();
    m.body_case = MIGRD__SESSION__BODY_PING;
    m.ping = &ping;
    return send_if_idle(c, &m, e);
}

static int send_pong(struct tr_conn *c, uint64_t stamp_ns, struct err *e)
{
    Migrd__Pong pong = MIGRD__PONG__INIT;
    Migrd__Session m = MIGRD__SESSION__INIT;

    pong.stamp_ns = stamp_ns;
    m.body_case = MIGRD__SESSION__BODY_PONG;
    m.pong = &pong;
    return send_if_idle(c, &m, e);
}

/* --- looking at bytes --- */

/* A varint at *p; false when it does not end before `end` or is too long. */
static bool get_varint(const uint8_t **p, const uint8_t *end, uint64_t *v)
{
    *v = 0;
    for (unsigned shift = 0; shift < 64 && *p < end; shift += 7) {
        uint8_t b = *(*p)++;

        *v |= (uint64_t)(b & 0x7f) << shift;
        if ((b & 0x80) == 0)
            return true;
    }
    return false;
}

/* Skips one field's value; false when it leaves the message. */
static bool skip_value(const uint8_t **p, const uint8_t *end, unsigned wire_type)
{
    uint64_t n = 0;

    if (wire_type == 0)
        return get_varint(p, end, &n);
    if (wire_type == 1)
        n = 8;
    else if (wire_type == 5)
        n = 4;
    else if (wire_type != 2 || !get_varint(p, end, &n))
        return false;
    if (n > (uint64_t)(end - *p))
        return false;
    *p += n;
    return true;
}

static bool few_fields(const uint8_t *p, const uint8_t *end, unsigned max)
{
    uint64_t tag;

    for (unsigned n = 0; p < end; n++)
        if (n == max || !get_varint(&p, end, &tag) || !skip_value(&p, end, tag & 7))
            return false;
    return true;
}

/* Exactly one length-delimited field fills the message; 0 or its number. */
static unsigned only_field(const uint8_t *p, size_t len, const uint8_t **value)
{
    const uint8_t *end = p + len;
    uint64_t tag, n;

    if (!get_varint(&p, end, &tag) || (tag & 7) != 2 || tag >> 3 == 0 || tag >> 3 > 1000)
        return 0;
    if (!get_varint(&p, end, &n) || n != (uint64_t)(end - p))
        return 0;
    *value = p;
    return (unsigned)(tag >> 3);
}

/* The message in buf as an object, or NULL. */
Migrd__Session *message_parse(const uint8_t *buf, size_t len, struct err *e)
{
    const uint8_t *value = NULL;
    unsigned kind = only_field(buf, len, &value);
    Migrd__Session *m;

    if (kind == 0) {
        err_set(e, ERR_PROTOCOL, "message of %zu bytes does not hold exactly one body", len);
        return NULL;
    }
    if (len > limit_of((Migrd__Session__BodyCase)kind)) {
        err_set(e, ERR_PROTOCOL, "message of kind %u has %zu bytes, too many", kind, len);
        return NULL;
    }
    if (kind == MIGRD__SESSION__BODY_FINAL_STATE &&
        !few_fields(value, buf + len, FINAL_STATE_FIELDS_MAX)) {
        err_set(e, ERR_PROTOCOL, "state message is malformed");
        return NULL;
    }
    m = migrd__session__unpack(NULL, len, buf);
    if (m == NULL) {
        err_set(e, ERR_PROTOCOL, "message of kind %u (%zu bytes) is malformed", kind, len);
        return NULL;
    }
    if ((unsigned)m->body_case != kind) {
        err_set(e, ERR_PROTOCOL, "message of unknown kind %u; is the peer a newer release?", kind);
        migrd__session__free_unpacked(m, NULL);
        return NULL;
    }
    return m;
}

/* --- in --- */

static int broken(struct tr_conn *c)
{
    atomic_store(&c->broken, true);
    return -1;
}

/*
 * The length of the next message. Waits for its first byte until *deadline, pinging
 * meanwhile; a time-out before that byte breaks nothing.
 */
static int read_length(struct tr_conn *c, uint64_t deadline, uint32_t *len, struct err *e)
{
    uint64_t step = c->dead_ns / PING_SHARE;
    uint32_t be;

    for (;;) {
        uint64_t now = clock_ns(), next = now + step < deadline ? now + step : deadline;
        struct err w = { .code = ERR_NONE };
        bool any;

        if (conn_read(c, &be, sizeof be, next, next + c->dead_ns, &any, &w) == 0)
            break;
        if (w.code != ERR_TIMEOUT || any) {
            err_set(e, w.code, "%s", w.text);
            return broken(c);
        }
        if (clock_ns() >= deadline)
            return err_set(e, ERR_TIMEOUT, "%s: no message came in time", c->who);
        if (tr_ping(c, e) < 0)
            return -1;
    }
    *len = ntohl(be);
    if (*len == 0 || *len > TR_MESSAGE_MAX) {
        err_set(e, ERR_PROTOCOL, "%s: message of %" PRIu32 " bytes, 1 to %u are allowed", c->who,
            *len, TR_MESSAGE_MAX);
        return broken(c);
    }
    return 0;
}

/* Reads the body in growing pieces, so that memory is only used for what really came. */
static uint8_t *read_body(struct tr_conn *c, size_t len, struct err *e)
{
    uint64_t deadline = clock_ns() + c->dead_ns + len / RATE_MIN * NS_PER_S;
    size_t have = 0, room = len < TR_MESSAGE_SMALL ? len : TR_MESSAGE_SMALL;
    uint8_t *buf = NULL;

    while (have < len) {
        uint8_t *bigger = realloc(buf, room);
        bool any;

        if (bigger == NULL) {
            err_set(e, ERR_MEMORY, "%s: message of %zu bytes: out of memory", c->who, len);
            break;
        }
        buf = bigger;
        if (conn_read(c, buf + have, room - have, clock_ns() + c->dead_ns, deadline, &any, e) < 0)
            break;
        have = room;
        room = room * 2 < len ? room * 2 : len;
    }
    if (have == len)
        return buf;
    free(buf);
    broken(c);
    return NULL;
}

static Migrd__Session *recv_any(struct tr_conn *c, uint64_t deadline, struct err *e)
{
    Migrd__Session *m;
    uint32_t len;
    uint8_t *buf;

    if (read_length(c, deadline, &len, e) < 0)
        return NULL;
    buf = read_body(c, len, e);
    if (buf == NULL)
        return NULL;
    m = message_parse(buf, len, e);
    free(buf);
    if (m == NULL) {
        err_prefix(e, "%s", c->who);
        broken(c);
    }
    return m;
}

int tr_recv(struct tr_conn *c, unsigned timeout_ms, Migrd__Session **m, struct err *e)
{
    uint64_t deadline = clock_ns() + timeout_ms * NS_PER_MS;

    *m = NULL;
    for (;;) {
        uint64_t until = timeout_ms != 0 ? deadline : clock_ns() + c->dead_ns;
        Migrd__Session *got = recv_any(c, until, e);
        int r = 0;

        if (got == NULL)
            return -1;
        if (got->body_case != MIGRD__SESSION__BODY_PING &&
            got->body_case != MIGRD__SESSION__BODY_PONG) {
            *m = got;
            return 0;
        }
        if (got->body_case == MIGRD__SESSION__BODY_PING)
            r = send_pong(c, got->ping->stamp_ns, e);
        migrd__session__free_unpacked(got, NULL);
        if (r < 0)
            return broken(c);
        if (timeout_ms != 0 && clock_ns() >= deadline)
            return err_set(e, ERR_TIMEOUT, "%s: no message came in time", c->who);
    }
}

int tr_refused(const struct tr_conn *c, const Migrd__Refuse *r, struct err *e)
{
    enum err_code code = ERR_REFUSED;
    char text[400];

    for (unsigned i = 1; i < ERR_CODE_MAX; i++)
        if (strcmp(r->code, err_code_name((enum err_code)i)) == 0)
            code = (enum err_code)i;
    text_clean(text, sizeof text, r->text, strlen(r->text));
    return err_set(e, code, "%.90s: %s", c->who, text);
}
