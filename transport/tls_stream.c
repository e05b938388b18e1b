/* SPDX-License-Identifier: ISC */
/*
 * TLS 1.3 after the handshake: the records of one connection, made and opened here and
 * not by OpenSSL, which wants a copy, a lock and a system call for each of them.
 *
 * Writing: vectors are encrypted from where they lie (guest memory) into `out`, a batch
 * of records that stays in the cache, and one send takes the batch. A call's first byte
 * always begins a record, so that a header and what follows it in another call never
 * share one. Reading: one recv fills `in`; records whose whole content is wanted
 * are decrypted to where it is wanted, others into `plain`, out of which the next reads
 * are served. Nobody gets a byte before the tag of its record has been checked, but the
 * memory it was meant for may have been written: it belongs to a target's copy of a guest,
 * which does not survive the error.
 *
 * Besides data there are, between records:
 *   KeyUpdate     changes the peer's key; one that asks is answered before our next data
 *   NewSessionTicket   from a server: skipped, nothing is resumed here
 *   alerts        close_notify is the end, user_canceled nothing, all others an error
 * Everything else is refused with an alert. The reading thread sends it if nobody is writing,
 * else tr_close does. Our own key is changed after tls_rekey_after records.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "transport/internal.h"
#include "transport/record.h"

#define BATCH_RECORDS 16u
#define BATCH ((size_t)BATCH_RECORDS * RECORD_PLAIN)
#define OUT_SIZE ((BATCH_RECORDS + 1) * RECORD_MAX) /* and one for a KeyUpdate */
#define IN_SIZE (256u << 10)
#define MESSAGE_KEY_UPDATE 24
#define MESSAGE_TICKET 4
#define TICKET_MAX (256u << 10)
#define IDLE_MAX 32           /* records in a row that carry no data */
#define LAST_WORDS (4u << 20) /* how much to read for the alert behind it */

/* RFC 8446 5.5: 2^24.5 full records for one AES-GCM key are safe; change it at a third of that. */
uint64_t tls_rekey_after = UINT64_C(1) << 23;

struct tls_stream {
    /* the writer's, under write_lock */
    struct record_key out_key;
    uint8_t *out;
    size_t out_len;
    bool torn;    /* nothing may follow: a record went out in part, or an alert */
    bool alerted; /* an alert went out */

    /* the reader's, under read_lock */
    struct record_key in_key;
    uint8_t *in;
    size_t in_from, in_to;
    uint8_t *plain;
    size_t plain_from, plain_to;
    uint8_t head[4]; /* of a handshake message that came in pieces */
    unsigned head_len;
    uint32_t left;
    unsigned idle;
    struct err failure; /* what ended reading, for good: nothing behind it is taken */

    atomic_bool update_wanted; /* the peer asked for a KeyUpdate */
    atomic_int alert;          /* still to be sent, or -1 */
};

/* --- making --- */

/* CLIENT_TRAFFIC_SECRET_0 and SERVER_TRAFFIC_SECRET_0 are kept, and nothing is written. */
void tls_keylog(const SSL *ssl, const char *line)
{
    struct tr_conn *c = SSL_get_app_data(ssl);
    static const char *const labels[2] = { "CLIENT_TRAFFIC_SECRET_0 ", "SERVER_TRAFFIC_SECRET_0 " };
    const char *hex = strrchr(line, ' ');

    for (unsigned i = 0; i < 2 && c != NULL && hex != NULL; i++) {
        struct tls_secret *s = &c->secret[i];

        if (strncmp(line, labels[i], strlen(labels[i])) == 0 &&
            OPENSSL_hexstr2buf_ex(s->bytes, sizeof s->bytes, &s->len, hex + 1, '\0') != 1)
            s->len = 0;
    }
}

static int make(struct tr_conn *c, struct tls_stream *s, unsigned suite, struct err *e)
{
    const struct tls_secret *out = &c->secret[c->server], *in = &c->secret[!c->server];

    s->out = malloc(OUT_SIZE);
    s->in = malloc(IN_SIZE);
    s->plain = malloc(RECORD_PLAIN);
    if (s->out == NULL || s->in == NULL || s->plain == NULL)
        return err_set(e, ERR_MEMORY, "TLS: out of memory");
    if (record_key_init(&s->out_key, suite, out->bytes, out->len, true, e) < 0)
        return -1;
    return record_key_init(&s->in_key, suite, in->bytes, in->len, false, e);
}

int stream_start(struct tr_conn *c, unsigned suite, struct err *e)
{
    struct tls_stream *s = calloc(1, sizeof *s);
    int r;

    c->stream = s;
    if (s == NULL)
        return err_set(e, ERR_MEMORY, "TLS: out of memory");
    atomic_store(&s->alert, -1);
    r = make(c, s, suite, e);
    OPENSSL_cleanse(c->secret, sizeof c->secret);
    return r;
}

void stream_free(struct tr_conn *c)
{
    struct tls_stream *s = c->stream;

    c->stream = NULL;
    OPENSSL_cleanse(c->secret, sizeof c->secret);
    if (s == NULL)
        return;
    record_key_wipe(&s->out_key);
    record_key_wipe(&s->in_key);
    free(s->out);
    free(s->in);
    if (s->plain != NULL)
        OPENSSL_cleanse(s->plain, RECORD_PLAIN);
    free(s->plain);
    free(s);
}

/* --- writing --- */

static int broken_cipher(struct tr_conn *c, struct err *e)
{
    ERR_clear_error();
    return err_set(e, ERR_INTERNAL, "%s: OpenSSL's cipher fails", c->who);
}

/* Adds a record of up to RECORD_PLAIN bytes to the batch. */
static int add_record(
    struct tr_conn *c, uint8_t type, struct cursor *from, size_t len, struct err *e)
{
    struct tls_stream *s = c->stream;
    size_t n = record_seal(&s->out_key, type, from, len, s->out + s->out_len);

    if (n == 0)
        return broken_cipher(c, e);
    s->out_len += n;
    return 0;
}

static int add_bytes(struct tr_conn *c, uint8_t type, const void *p, size_t len, struct err *e)
{
    struct iovec v = { (void *)p, len };
    struct cursor cur = { &v, 1, 0 };

    return add_record(c, type, &cur, len, e);
}

/* A fresh key, when the old one has served long enough or the peer wishes for one. */
static int maybe_rekey(struct tr_conn *c, struct err *e)
{
    static const uint8_t update[5] = { MESSAGE_KEY_UPDATE, 0, 0, 1, 0 /* not requested */ };
    struct tls_stream *s = c->stream;

    if (s->out_key.seq < tls_rekey_after && !atomic_load(&s->update_wanted))
        return 0;
    atomic_store(&s->update_wanted, false);
    if (add_bytes(c, RECORD_HANDSHAKE, update, sizeof update, e) < 0)
        return -1;
    return record_key_next(&s->out_key, e);
}

static int add_batch(struct tr_conn *c, struct cursor *cur, size_t len, struct err *e)
{
    if (maybe_rekey(c, e) < 0)
        return -1;
    while (len > 0) {
        size_t n = len < RECORD_PLAIN ? len : RECORD_PLAIN;

        if (add_record(c, RECORD_DATA, cur, n, e) < 0)
            return -1;
        len -= n;
    }
    return 0;
}

/* All of the batch goes out; on failure the peer may have said why. */
static int flush(struct tr_conn *c, struct err *e)
{
    struct tls_stream *s = c->stream;
    size_t done = 0;

    while (done < s->out_len) {
        ssize_t n = send(c->fd, s->out + done, s->out_len - done, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n >= 0)
            done += (size_t)n;
        else if (errno == EAGAIN) {
            if (conn_wait(c, POLLOUT, clock_ns() + c->dead_ns, e) < 0)
                break;
        } else if (errno != EINTR) {
            conn_errno(c, e);
            break;
        }
    }
    s->torn = done < s->out_len;
    s->out_len = 0;
    return s->torn ? -1 : 0;
}

static void last_words(struct tr_conn *c, struct err *e);

int stream_writev(struct tr_conn *c, struct cursor *cur, size_t left, struct err *e)
{
    while (left > 0) {
        size_t now = conn_shaped(c, left < BATCH ? left : BATCH);

        if (now == 0)
            return conn_aborted(c, e);
        if (add_batch(c, cur, now, e) < 0)
            return -1;
        if (flush(c, e) < 0) {
            if (e != NULL && e->code == ERR_PEER)
                last_words(c, e);
            return -1;
        }
        left -= now;
    }
    return 0;
}

/* Under write_lock; what the socket does not take now is lost. */
static void send_alert(struct tr_conn *c, int alert)
{
    struct tls_stream *s = c->stream;
    uint8_t bytes[2] = { alert == SSL_AD_CLOSE_NOTIFY ? 1 : 2, (uint8_t)alert };

    if (s->torn)
        return;
    s->out_len = 0;
    if (add_bytes(c, RECORD_ALERT, bytes, sizeof bytes, NULL) == 0)
        s->alerted = send(c->fd, s->out, s->out_len, MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
    s->torn = true;
    s->out_len = 0;
}

/* --- reading --- */

/* The peer broke a rule: tells it by an alert, and our caller in words. */
static int refuse(struct tr_conn *c, int alert, const char *why, struct err *e)
{
    struct tls_stream *s = c->stream;

    ERR_clear_error();
    atomic_store(&s->alert, alert);
    if (pthread_mutex_trylock(&c->write_lock) == 0) {
        send_alert(c, atomic_exchange(&s->alert, -1));
        shutdown(c->fd, SHUT_WR);
        pthread_mutex_unlock(&c->write_lock);
    }
    return err_set(
        e, ERR_PROTOCOL, "%s: %s (TLS alert %s)", c->who, why, SSL_alert_desc_string_long(alert));
}

static int got_alert(struct tr_conn *c, const uint8_t *p, size_t len, struct err *e)
{
    if (len != 2)
        return refuse(c, SSL_AD_DECODE_ERROR, "sent a malformed alert", e);
    if (p[1] == SSL_AD_CLOSE_NOTIFY)
        return err_set(e, ERR_PEER, "%s closed the connection", c->who);
    if (p[1] == SSL_AD_USER_CANCELLED)
        return 0;
    return tls_alert_error(c, p[1], e);
}

/* The last byte of a KeyUpdate. */
static int key_update(struct tr_conn *c, uint8_t request, bool last, struct err *e)
{
    struct tls_stream *s = c->stream;

    if (request > 1)
        return refuse(c, SSL_AD_ILLEGAL_PARAMETER, "sent a malformed KeyUpdate", e);
    if (!last)
        return refuse(c, SSL_AD_UNEXPECTED_MESSAGE, "sent more behind a KeyUpdate", e);
    if (request == 1)
        atomic_store(&s->update_wanted, true);
    return record_key_next(&s->in_key, e);
}

/* The four bytes before a handshake message are complete. */
static int message_head(struct tr_conn *c, struct err *e)
{
    struct tls_stream *s = c->stream;

    s->left = (uint32_t)s->head[1] << 16 | (uint32_t)s->head[2] << 8 | s->head[3];
    if (s->head[0] == MESSAGE_KEY_UPDATE)
        return s->left == 1 ? 0 : refuse(c, SSL_AD_DECODE_ERROR, "sent a malformed KeyUpdate", e);
    if (s->head[0] != MESSAGE_TICKET || c->server)
        return refuse(c, SSL_AD_UNEXPECTED_MESSAGE, "sent a handshake message too late", e);
    if (s->left == 0 || s->left > TICKET_MAX)
        return refuse(c, SSL_AD_DECODE_ERROR, "sent a malformed NewSessionTicket", e);
    return 0;
}

/* Handshake messages, in as many pieces as the peer likes. */
static int got_handshake(struct tr_conn *c, const uint8_t *p, size_t len, struct err *e)
{
    struct tls_stream *s = c->stream;

    if (len == 0)
        return refuse(c, SSL_AD_UNEXPECTED_MESSAGE, "sent an empty handshake record", e);
    while (len > 0) {
        size_t n = 1;

        if (s->head_len < sizeof s->head) {
            s->head[s->head_len++] = *p;
            if (s->head_len == sizeof s->head && message_head(c, e) < 0)
                return -1;
        } else {
            if (s->head[0] == MESSAGE_KEY_UPDATE && key_update(c, *p, len == 1, e) < 0)
                return -1;
            n = len < s->left ? len : s->left;
            s->left -= (uint32_t)n;
            if (s->left == 0)
                s->head_len = 0;
        }
        p += n;
        len -= n;
    }
    return 0;
}

/* In one piece, unless it is there already. */
static void gather(uint8_t *out, struct cursor at, size_t len)
{
    for (size_t done = 0, part; done < len; done += part) {
        const uint8_t *piece = cursor_take(&at, len - done, &part);

        if (piece != out + done)
            memcpy(out + done, piece, part);
    }
}

/* Content of `len` bytes at `at`: data's length, 0 for others, which are dealt with; -1. */
static ssize_t got_record(
    struct tr_conn *c, uint8_t type, struct cursor at, size_t len, struct err *e)
{
    struct tls_stream *s = c->stream;

    if (type == RECORD_DATA && len > 0 && s->head_len == 0) {
        s->idle = 0;
        return (ssize_t)len;
    }
    if (s->head_len > 0 && type != RECORD_HANDSHAKE)
        return refuse(c, SSL_AD_UNEXPECTED_MESSAGE, "broke off a handshake message", e);
    if (++s->idle > IDLE_MAX)
        return refuse(c, SSL_AD_UNEXPECTED_MESSAGE, "sends records without data", e);
    gather(s->plain, at, len);
    switch (type) {
    case RECORD_DATA:
        return 0;
    case RECORD_ALERT:
        return got_alert(c, s->plain, len, e);
    case RECORD_HANDSHAKE:
        return got_handshake(c, s->plain, len, e);
    }
    return refuse(c, SSL_AD_UNEXPECTED_MESSAGE, "sent a record of unknown type", e);
}

/* The record at in_from is complete: bytes that `cur` got, 0 for none, -1. */
static ssize_t open_record(
    struct tr_conn *c, size_t body, struct cursor *cur, size_t want, struct err *e)
{
    struct tls_stream *s = c->stream;
    struct iovec v = { s->plain, RECORD_PLAIN };
    bool direct = record_room(body) <= want;
    struct cursor to = direct ? *cur : (struct cursor){ &v, 1, 0 };
    const uint8_t *rec = s->in + s->in_from;
    struct record_fault f;
    uint8_t type;
    ssize_t n;

    s->in_from += RECORD_HEADER + body;
    n = record_open(&s->in_key, rec, body, to, &type, &f);
    if (n < 0)
        return refuse(c, f.alert, f.why, e);
    n = got_record(c, type, to, (size_t)n, e);
    if (n > 0 && direct) {
        cursor_skip(cur, (size_t)n);
    } else if (n > 0) {
        s->plain_from = 0;
        s->plain_to = (size_t)n;
        n = 0;
    }
    return n;
}

/* Out of `plain`, what the last record had more than was wanted then. */
static size_t take_plain(struct tls_stream *s, struct cursor *cur, size_t want)
{
    size_t n = s->plain_to - s->plain_from;

    if (n > want)
        n = want;
    for (size_t left = n, part; left > 0; left -= part) {
        uint8_t *piece = cursor_take(cur, left, &part);

        memcpy(piece, s->plain + s->plain_from, part);
        s->plain_from += part;
    }
    return n;
}

/* The length of the next record's body when all of it is there; 0: not yet; -1. */
static int next_body(struct tr_conn *c, struct err *e)
{
    struct tls_stream *s = c->stream;
    size_t have = s->in_to - s->in_from;
    struct record_fault f;
    int body;

    if (have < RECORD_HEADER)
        return 0;
    body = record_body_len(s->in + s->in_from, &f);
    if (body < 0)
        return refuse(c, f.alert, f.why, e);
    return have >= RECORD_HEADER + (size_t)body ? body : 0;
}

/* More bytes from the socket: 1, 0 there are none now, -1. */
static int fill(struct tr_conn *c, struct err *e)
{
    struct tls_stream *s = c->stream;
    size_t have = s->in_to - s->in_from;
    ssize_t n;

    memmove(s->in, s->in + s->in_from, have);
    s->in_from = 0;
    s->in_to = have;
    n = recv(c->fd, s->in + have, IN_SIZE - have, MSG_DONTWAIT);
    if (n > 0) {
        s->in_to += (size_t)n;
        return 1;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n < 0)
        return conn_errno(c, e);
    if (atomic_load(&c->aborted))
        return conn_aborted(c, e);
    return err_set(e, ERR_PEER, "%s closed the connection%s", c->who,
        have > 0 ? " in the middle of a TLS record" : "");
}

static int failed(const struct tls_stream *s, struct err *e)
{
    if (e != NULL)
        *e = s->failure;
    return -1;
}

ssize_t stream_read(struct tr_conn *c, struct cursor *cur, size_t want, struct err *e)
{
    struct tls_stream *s = c->stream;
    size_t got = 0;

    if (s->failure.code != ERR_NONE)
        return failed(s, e);
    while (got < want) {
        ssize_t n = (ssize_t)take_plain(s, cur, want - got);
        int body = 0;

        if (n == 0) {
            body = next_body(c, &s->failure);
            if (body > 0)
                n = open_record(c, (size_t)body, cur, want - got, &s->failure);
            else if (body == 0 && got == 0)
                body = fill(c, &s->failure);
        }
        if (n < 0 || body < 0)
            return failed(s, e);
        if (n == 0 && body == 0)
            break;
        got += (size_t)n;
    }
    return (ssize_t)got;
}

/* --- ending --- */

/* A peer that resets the connection has often sent an alert before. */
static void last_words(struct tr_conn *c, struct err *e)
{
    uint8_t bin[4096];
    struct iovec v = { bin, sizeof bin };
    struct err w = { .code = ERR_NONE };
    size_t sum = 0;
    ssize_t n = 1;

    if (pthread_mutex_trylock(&c->read_lock) != 0)
        return; /* the reader will hear it */
    for (; n > 0 && sum < LAST_WORDS; sum += (size_t)n) {
        struct cursor cur = { &v, 1, 0 };

        n = stream_read(c, &cur, sizeof bin, &w);
    }
    pthread_mutex_unlock(&c->read_lock);
    if (n < 0 && (w.code == ERR_PROTOCOL || w.code == ERR_REFUSED))
        *e = w;
}

bool stream_goodbye(struct tr_conn *c, bool broken)
{
    struct tls_stream *s = c->stream;
    int alert = atomic_exchange(&s->alert, -1);

    if (alert >= 0 || !broken)
        send_alert(c, alert >= 0 ? alert : SSL_AD_CLOSE_NOTIFY);
    return s->alerted;
}
