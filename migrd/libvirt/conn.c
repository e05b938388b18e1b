/* SPDX-License-Identifier: ISC */
/*
 * One client. Bytes come in as the socket has them; the buffer grows with what has come,
 * never with what a length promises. Whole frames are run at once and may be answered in
 * any order.
 *
 * While a client has libvirt-max-calls calls or libvirt-max-bytes bytes under way nothing
 * more is read from it: it waits, the host does not. Who sends many calls at once gets TURN_NS for
 * them, then others have their turn. It is cut off if
 *     TLS, where it is used, has not come about after SHAKE_S
 *     it has not opened its connection after OPEN_S
 *     a frame that it began is not whole after FRAME_S
 *     answers wait and it takes nothing for SEND_S, or they exceed libvirt-max-bytes
 *     it said that it answers pings and does not: PING_S of silence, PINGS times
 * Any byte counts as a sign of life.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrd/libvirt/internal.h"

#define SHAKE_S 10
#define OPEN_S 20
#define FRAME_S 20
#define SEND_S 20
#define PING_S 5
#define PINGS 5
#define READ_BYTES 16384
#define TURN_NS (2 * NS_PER_MS)

/* --- end --- */

static void free_if_done(struct lv_conn *c)
{
    if (!c->gone || c->handle_open || c->under_way > 0 || c->in_use)
        return;
    free(c);
}

static void poll_closed(uv_handle_t *h)
{
    struct lv_conn *c = h->data;

    c->handle_open = false;
    free_if_done(c);
}

void lv_conn_close(struct lv_conn *c)
{
    struct libvirt *lv = c->m->libvirt;

    if (c->gone)
        return;
    c->gone = true;
    for (struct lv_conn **p = &lv->conns; *p != NULL; p = &(*p)->next)
        if (*p == c) {
            *p = c->next;
            lv->n_conns--;
            break;
        }
    lv_events_forget(c);
    lv_moves_forget(c);
    uv_close((uv_handle_t *)&c->poll, poll_closed);
    lv_streams_forget(c);
    tls_link_free(&c->tls);
    close(c->fd);
    free(c->in);
    free(c->out);
    c->in = c->out = NULL;
}

static void cut_off(struct lv_conn *c, const char *why)
{
    lv_refused(c->m, "client %s: %s; cut off", c->who, why);
    lv_conn_close(c);
}

/* --- what is waited for --- */

static bool is_full(const struct lv_conn *c)
{
    const struct config *cfg = &c->m->config;

    return c->under_way >= cfg->libvirt_max_calls || c->held >= cfg->libvirt_max_bytes ||
           lv_streams_full(c);
}

static void ready(uv_poll_t *h, int status, int events);

/* One that came while the client was full, or had had its turn. */
static bool frame_waits(const struct lv_conn *c)
{
    struct lv_header h;

    return lv_header_read(c->in, c->in_len, &h, NULL) != 0;
}

static void listen_for(struct lv_conn *c)
{
    int events = 0;

    if (c->gone)
        return;
    /* What waits is done before more is read. */
    if ((!is_full(c) && !c->ending) || c->shaking)
        events |= frame_waits(c) ? UV_WRITABLE : UV_READABLE;
    if (c->out_sent < c->out_len)
        events |= UV_WRITABLE;
    if (c->tls != NULL && tls_link_wants_write(c->tls))
        events |= UV_WRITABLE;
    uv_poll_start(&c->poll, events | UV_DISCONNECT, ready);
}

void lv_conn_listen(struct lv_conn *c)
{
    listen_for(c);
}

/* --- sending --- */

static void flush(struct lv_conn *c)
{
    while (c->out_sent < c->out_len) {
        const uint8_t *p = c->out + c->out_sent;
        size_t left = c->out_len - c->out_sent;
        ssize_t n =
            c->tls != NULL ? tls_link_write(c->tls, p, left) : send(c->fd, p, left, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            lv_conn_close(c);
            return;
        }
        if (n < 0)
            break;
        c->out_sent += (size_t)n;
        c->sent_ns = clock_ns();
    }
    if (c->out_sent == c->out_len) {
        free(c->out);
        c->out = NULL;
        c->out_sent = c->out_len = c->out_cap = 0;
        if (c->ending) {
            lv_conn_close(c);
            return;
        }
    }
    lv_streams_resume(c);
    listen_for(c);
}

static int queue(struct lv_conn *c, const uint8_t *frame, size_t len)
{
    size_t want = c->out_len + len;
    uint8_t *p;

    if (c->out_sent == c->out_len)
        c->sent_ns = clock_ns();
    /* Of one who always takes some but never all, what has gone must not stay. */
    if (want > c->out_cap && c->out_sent > 0 && c->out_sent >= c->out_len / 2) {
        memmove(c->out, c->out + c->out_sent, c->out_len - c->out_sent);
        c->out_len -= c->out_sent;
        c->out_sent = 0;
        want = c->out_len + len;
    }
    if (want > c->out_cap) {
        p = realloc(c->out, want + want / 2);
        if (p == NULL)
            return -1;
        c->out = p;
        c->out_cap = want + want / 2;
    }
    memcpy(c->out + c->out_len, frame, len);
    c->out_len = want;
    return 0;
}

void lv_conn_send(struct lv_conn *c, uint8_t *frame, size_t len)
{
    if (frame != NULL && !c->gone) {
        /* One answer may be large; a second one waits for a client that takes the first. */
        if (c->out_len > c->out_sent &&
            c->out_len - c->out_sent + len > c->m->config.libvirt_max_bytes)
            cut_off(c, "too many answers wait for it");
        else if (queue(c, frame, len) < 0)
            cut_off(c, "no memory for an answer");
        else
            flush(c);
    }
    free(frame);
}

static void send_keepalive(struct lv_conn *c, int proc)
{
    struct lv_header h = {
        .prog = LV_PROGRAM_KEEPALIVE, .vers = LV_VERSION, .proc = proc, .type = LV_MESSAGE
    };
    uint8_t *frame = lv_pack(&h, NULL, NULL, NULL);

    lv_conn_send(c, frame, h.len);
}

/* --- receiving --- */

static void keepalive(struct lv_conn *c, const struct lv_header *h)
{
    if (h->vers != LV_VERSION || h->type != LV_MESSAGE || h->len != LV_HEADER_BYTES ||
        (h->proc != LV_PING && h->proc != LV_PONG))
        cut_off(c, "a wrong keepalive message");
    else if (h->proc == LV_PING)
        send_keepalive(c, LV_PONG);
}

static void run_frame(struct lv_conn *c, const struct lv_header *h, const uint8_t *payload)
{
    if (h->prog == LV_PROGRAM_KEEPALIVE) {
        keepalive(c, h);
    } else if (h->type == LV_STREAM && h->prog == LV_PROGRAM && c->opened) {
        lv_stream_frame(c, h, payload);
    } else if (h->type != LV_CALL || h->status != LV_OK) {
        cut_off(c, "a frame that is no call");
    } else {
        c->under_way++;
        c->held += h->len;
        lv_call_run(c, h, payload);
    }
}

void lv_conn_release(struct lv_conn *c, size_t bytes)
{
    c->under_way--;
    c->held -= bytes;
    listen_for(c);
    free_if_done(c);
}

static void take_frames(struct lv_conn *c)
{
    uint64_t until = clock_ns() + TURN_NS;
    struct lv_header h;
    size_t used = 0;
    struct err e;
    int r = 0;

    while (!c->gone && !c->ending && !is_full(c) && (used == 0 || clock_ns() < until) &&
           (r = lv_header_read(c->in + used, c->in_len - used, &h, &e)) == 1) {
        const uint8_t *payload = c->in + used + LV_HEADER_BYTES;

        used += h.len;
        run_frame(c, &h, payload);
    }
    if (c->gone)
        return;
    if (r < 0) {
        cut_off(c, e.text);
        return;
    }
    if (used > 0) {
        memmove(c->in, c->in + used, c->in_len - used);
        c->in_len -= used;
        c->frame_ns = clock_ns();
    }
}

/* False when the client has gone. */
static bool fill(struct lv_conn *c)
{
    ssize_t n;

    if (c->in_cap - c->in_len < READ_BYTES) {
        size_t cap = c->in_len + 2 * READ_BYTES;
        uint8_t *p = realloc(c->in, cap);

        if (p == NULL)
            return false;
        c->in = p;
        c->in_cap = cap;
    }
    do
        n = c->tls != NULL ? tls_link_read(c->tls, c->in + c->in_len, c->in_cap - c->in_len)
                           : recv(c->fd, c->in + c->in_len, c->in_cap - c->in_len, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN;
    if (n > 0 && c->in_len == 0)
        c->frame_ns = clock_ns();
    c->in_len += (size_t)n;
    c->heard_ns = clock_ns();
    c->pings = 0;
    return n > 0;
}

/* TLS first; then the byte that tells the client whether it is admitted. */
static void shake(struct lv_conn *c)
{
    struct err e;
    int r = tls_link_handshake(c->tls, &e);
    bool may;

    if (r == 0) {
        listen_for(c);
        return;
    }
    if (r < 0) {
        lv_refused(c->m, "client %s: %s; hung up", c->who, e.text);
        lv_conn_close(c);
        return;
    }
    c->shaking = false;
    may = lv_tls_admitted(c);
    if (may)
        log_info("libvirt", "client %s", c->who);
    else
        lv_refused(
            c->m, "client %s: libvirt-tls-allow has none of its certificate's names", c->who);
    c->ending = !may;
    if (queue(c, (const uint8_t *)(may ? "\1" : "\0"), 1) < 0)
        lv_conn_close(c);
    else
        flush(c);
}

static void ready(uv_poll_t *h, int status, int events)
{
    struct lv_conn *c = h->data;
    bool full = is_full(c);

    if (status == 0 && c->shaking) {
        shake(c);
        return;
    }

    /* Of a client that may send no more for now only the end is of interest. */
    if (status < 0 || ((events & UV_DISCONNECT) != 0 && (full || c->ending)) ||
        ((events & UV_READABLE) != 0 && !full && !c->ending && !fill(c))) {
        lv_conn_close(c);
        return;
    }
    c->in_use = true; /* while its frames run it may be closed, not freed */
    take_frames(c);
    c->in_use = false;
    if (!c->gone)
        flush(c);
    else
        free_if_done(c);
}

/* --- time --- */

static bool older(uint64_t since, uint64_t now, uint64_t seconds)
{
    return now > since && now - since > seconds * NS_PER_S;
}

static void check_silence(struct lv_conn *c, uint64_t now)
{
    if (is_full(c) || !older(c->heard_ns, now, (uint64_t)PING_S * (c->pings + 1)))
        return;
    if (c->pings == PINGS) {
        cut_off(c, "it does not answer");
        return;
    }
    c->pings++;
    send_keepalive(c, LV_PING);
}

void lv_conn_tick(struct lv_conn *c, uint64_t now)
{
    if (c->shaking && older(c->born_ns, now, SHAKE_S))
        cut_off(c, "TLS has not come about");
    else if (!c->opened && older(c->born_ns, now, OPEN_S))
        cut_off(c, "it has not opened its connection");
    else if (c->in_len > 0 && !is_full(c) && !frame_waits(c) && older(c->frame_ns, now, FRAME_S))
        cut_off(c, "a message of its is not whole");
    else if (c->out_sent < c->out_len && older(c->sent_ns, now, SEND_S))
        cut_off(c, "it takes no answers");
    else if (c->keepalive)
        check_silence(c, now);
    if (!c->gone && c->streams != NULL)
        lv_streams_tick(c, now);
}

static struct lv_conn *add(struct migrd *m, int fd)
{
    struct libvirt *lv = m->libvirt;
    struct lv_conn *c = calloc(1, sizeof *c);

    if (c == NULL)
        return NULL;
    c->m = m;
    c->fd = fd;
    c->born_ns = c->heard_ns = c->sent_ns = c->frame_ns = clock_ns();
    uv_poll_init(m->loop, &c->poll, fd);
    c->poll.data = c;
    c->handle_open = true;
    c->next = lv->conns;
    lv->conns = c;
    lv->n_conns++;
    return c;
}

void lv_conn_add(struct migrd *m, int fd, const struct ucred *who, bool read_only)
{
    struct lv_conn *c = add(m, fd);

    if (c == NULL) {
        close(fd);
        return;
    }
    snprintf(c->who, sizeof c->who, "uid %u pid %d", who->uid, (int)who->pid);
    c->read_only = read_only;
    listen_for(c);
}

void lv_conn_add_tls(struct migrd *m, int fd, struct tls_link *link, const char *address)
{
    struct lv_conn *c = link != NULL ? add(m, fd) : NULL;

    if (c == NULL) {
        tls_link_free(&link);
        close(fd);
        return;
    }
    c->tls = link;
    c->shaking = true;
    snprintf(c->address, sizeof c->address, "%s", address);
    snprintf(c->who, sizeof c->who, "%s", address);
    listen_for(c);
}
