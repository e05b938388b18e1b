/* SPDX-License-Identifier: ISC */
/*
 * Streams: raw bytes under the number of the call that opened them, both ways. There is one
 * kind, a domain's console, which is the slave side of its pty.
 *
 *     client                          here
 *     OPEN_CONSOLE            ->
 *                             <-      its answer
 *     CONTINUE, bytes         <->     CONTINUE, bytes
 *     OK, to finish           ->
 *                             <-      OK
 *     or ERROR, to abort      ->
 *                             <-      ERROR
 *                             <-      or ERROR at any time: the domain has ended, another client
 * has taken the console. What still comes is not looked at
 *
 * Nothing piles up. Of the pty no more is read while OUT_MOST bytes wait for the client. While
 * the guest does not take IN_MOST bytes nothing more is read from the client; after STALL_S of
 * that the stream ends with an error, so that the client's calls get through again.
 *
 * A console has one stream. Others who open it are refused, or take it over (--force). Programs
 * that read the pty themselves, as xm console, hold a lock (flock) on it, as does a stream.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "migrd/libvirt/internal.h"

#define CONSOLE_FORCE 1
#define CONSOLE_SAFE 2 /* always so here */

#define STREAMS_MAX 16 /* of a client */
#define CHUNK 4096
#define IN_MOST (64u << 10)
#define OUT_MOST (64u << 10)
#define STALL_S 10
#define END_S 5 /* after which the end of a console is told without its reason */
#define PTS "/dev/pts/"

struct lv_stream {
    struct lv_stream *next;
    struct lv_conn *c; /* NULL: over, waits for its handle to close */
    struct lv_header h;
    char uuid[HV_UUID_LEN], name[HV_NAME_LEN];
    int domid, fd;
    uint64_t ended_ns; /* the pty has closed, 0 not; told at a tick, when it is known why */
    uv_poll_t poll;
    uint8_t in[IN_MOST + LV_FRAME_MAX]; /* what the pty has not taken */
    size_t in_len;
    uint64_t moved_ns; /* the pty took something, or there was nothing to take */
};

/* --- end --- */

static void handle_closed(uv_handle_t *h)
{
    free(h->data);
}

static void forget(struct lv_stream *s)
{
    struct lv_conn *c = s->c;

    for (struct lv_stream **p = &c->streams; *p != NULL; p = &(*p)->next)
        if (*p == s) {
            *p = s->next;
            break;
        }
    c->n_streams--;
    s->c = NULL;
    uv_close((uv_handle_t *)&s->poll, handle_closed);
    close(s->fd);
}

void lv_streams_forget(struct lv_conn *c)
{
    while (c->streams != NULL)
        forget(c->streams);
}

static struct lv_header frame_header(const struct lv_header *call, enum lv_status status)
{
    struct lv_header h = *call;

    h.type = LV_STREAM;
    h.status = status;
    return h;
}

static void break_off(struct lv_stream *s, enum lv_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The last word: an error, and the stream is over. The client may be, too. */
static void break_off(struct lv_stream *s, enum lv_code code, const char *fmt, ...)
{
    struct lv_header h = frame_header(&s->h, LV_ERROR);
    struct lv_conn *c = s->c;
    char text[600];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    forget(s);
    lv_send_error(c, &h, code, text);
}

/* What the pty has not taken nobody will take, and the client need not wait for that. */
static void has_ended(struct lv_stream *s)
{
    s->ended_ns = clock_ns();
    s->in_len = 0;
}

/* --- from the pty --- */

static void ready(uv_poll_t *p, int status, int events);

static void watch(struct lv_stream *s)
{
    struct lv_conn *c = s->c;
    int events = 0;

    if (s->ended_ns == 0 && c->out_len - c->out_sent < OUT_MOST)
        events |= UV_READABLE;
    if (s->ended_ns == 0 && s->in_len > 0)
        events |= UV_WRITABLE;
    if (events != 0)
        uv_poll_start(&s->poll, events, ready);
    else
        uv_poll_stop(&s->poll);
}

void lv_streams_resume(struct lv_conn *c)
{
    for (struct lv_stream *s = c->streams; s != NULL; s = s->next)
        watch(s);
}

/* Sending may end the client, and the stream with it. */
static void move_out(struct lv_stream *s)
{
    struct lv_header h = frame_header(&s->h, LV_CONTINUE);
    uint8_t buf[CHUNK], *frame;
    ssize_t n = read(s->fd, buf, sizeof buf);

    if (n > 0) {
        frame = lv_pack_raw(&h, buf, (size_t)n);
        lv_conn_send(s->c, frame, h.len);
        return;
    }
    if (n == 0 || (errno != EAGAIN && errno != EINTR))
        has_ended(s); /* EIO: the domain's side is gone */
    watch(s);
    lv_conn_listen(s->c);
}

/* --- to the pty --- */

static void move_in(struct lv_stream *s)
{
    ssize_t n = s->in_len > 0 ? write(s->fd, s->in, s->in_len) : 0;

    if (n < 0 && errno != EAGAIN && errno != EINTR)
        has_ended(s);
    if (n <= 0)
        return;
    s->in_len -= (size_t)n;
    memmove(s->in, s->in + n, s->in_len);
    s->moved_ns = clock_ns();
}

bool lv_streams_full(const struct lv_conn *c)
{
    for (const struct lv_stream *s = c->streams; s != NULL; s = s->next)
        if (s->in_len >= IN_MOST)
            return true;
    return false;
}

static void ready(uv_poll_t *p, int status, int events)
{
    struct lv_stream *s = p->data;

    if (status == 0 && (events & UV_WRITABLE) != 0) {
        move_in(s);
        watch(s);
        lv_conn_listen(s->c);
    }
    if (status < 0 || (events & UV_READABLE) != 0)
        move_out(s);
}

static struct lv_stream *find(struct lv_conn *c, const struct lv_header *h)
{
    for (struct lv_stream *s = c->streams; s != NULL; s = s->next)
        if (s->h.serial == h->serial && s->h.proc == h->proc)
            return s;
    return NULL;
}

/* The client has said its last; it waits for the same. */
static void finish(struct lv_stream *s)
{
    struct lv_header h = frame_header(&s->h, LV_OK);
    struct lv_conn *c = s->c;
    uint8_t *frame;

    move_in(s);
    forget(s);
    frame = lv_pack(&h, NULL, NULL, NULL);
    lv_conn_send(c, frame, h.len);
}

void lv_stream_frame(struct lv_conn *c, const struct lv_header *h, const uint8_t *payload)
{
    struct lv_stream *s = find(c, h);
    size_t n = h->len - LV_HEADER_BYTES;

    if (s == NULL)
        return; /* it is over already */
    if (h->status == LV_OK) {
        finish(s);
    } else if (h->status != LV_CONTINUE) {
        break_off(s, LV_E_RPC, "stream aborted at client request");
    } else if (s->ended_ns == 0) {
        /* There is room: while IN_MOST bytes wait no frame is run. */
        if (s->in_len == 0)
            s->moved_ns = clock_ns();
        memcpy(s->in + s->in_len, payload, n);
        s->in_len += n;
        move_in(s);
        watch(s);
    }
}

/* --- time --- */

static void tell_end(struct lv_stream *s, uint64_t now)
{
    struct migrd *m = s->c->m;
    struct domain *d = registry_by_uuid(m->registry, s->uuid);
    bool late = now - s->ended_ns > END_S * NS_PER_S;

    if (d != NULL && !late && (d->mig != NULL || (d->live && d->info.domid == s->domid)))
        return; /* a hand-over is at work, or the end is not known yet */
    if (d != NULL && !d->live && !registry_owned(m, d))
        break_off(s, LV_E_FAILED, "domain %s runs on host %s now; its console is there", s->name,
            d->owner);
    else if (d != NULL && d->live)
        break_off(s, LV_E_FAILED, "the console of domain %s has closed; open it again", s->name);
    else
        break_off(s, LV_E_FAILED, "domain %s does not run here any more", s->name);
}

void lv_streams_tick(struct lv_conn *c, uint64_t now)
{
    struct lv_stream *next;

    for (struct lv_stream *s = c->streams; s != NULL && !c->gone; s = next) {
        next = s->next;
        if (s->ended_ns != 0)
            tell_end(s, now);
        else if (s->in_len >= IN_MOST && now - s->moved_ns > STALL_S * NS_PER_S)
            break_off(s, LV_E_TIMEOUT, "domain %s takes no input from its console", s->name);
    }
    if (!c->gone)
        lv_conn_listen(c);
}

/* --- opening --- */

static struct lv_stream *stream_of(struct migrd *m, const char *uuid)
{
    for (struct lv_conn *c = m->libvirt->conns; c != NULL; c = c->next)
        for (struct lv_stream *s = c->streams; s != NULL; s = s->next)
            if (strcmp(s->uuid, uuid) == 0)
                return s;
    return NULL;
}

/* The path is the domain's word, and is checked. */
static int open_pty(struct lv_call *k, const struct domain *d, bool force, struct err *e)
{
    const char *path = d->info.console;
    struct stat st;
    int fd = -1;

    if (strncmp(path, PTS, strlen(PTS)) == 0 && strchr(path + strlen(PTS), '/') == NULL)
        fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return lv_fail(k, e, LV_E_INTERNAL, "domain %s has no console: %.60s", d->name,
            path[0] != '\0' ? path : "its definition has none");
    if (fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && (flock(fd, LOCK_EX | LOCK_NB) == 0 || force))
        return fd;
    close(fd);
    return lv_fail(k, e, LV_E_FAILED,
        "Active console session exists for this domain: another program has %s; --force shares it",
        path);
}

static int open_stream(struct lv_call *k, const struct domain *d, int fd, struct err *e)
{
    struct lv_stream *s = calloc(1, sizeof *s);

    if (s == NULL || uv_poll_init(k->m->loop, &s->poll, fd) < 0) {
        free(s);
        close(fd);
        return err_set(e, ERR_MEMORY, "migrd is out of memory");
    }
    s->poll.data = s;
    s->c = k->c;
    s->h = k->h;
    s->fd = fd;
    s->domid = d->info.domid;
    snprintf(s->uuid, sizeof s->uuid, "%s", d->uuid);
    snprintf(s->name, sizeof s->name, "%s", d->name);
    s->next = k->c->streams;
    k->c->streams = s;
    k->c->n_streams++;
    return 0; /* watched from the answer on, see flush */
}

/* libvirt's names of the first serial device. */
static bool is_console(const lv_name *device)
{
    return device == NULL || strcmp(*device, "serial0") == 0 || strcmp(*device, "console0") == 0;
}

int lv_open_console(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_console *a = args;
    struct domain *d = lv_domain(k, &a->dom, e);
    bool force = (a->flags & CONSOLE_FORCE) != 0;
    struct lv_stream *other;
    int fd;

    (void)ret;
    if (d == NULL || lv_check_flags(k, a->flags, CONSOLE_FORCE | CONSOLE_SAFE, e) < 0)
        return -1;
    if (!is_console(a->device))
        return lv_fail(k, e, LV_E_INTERNAL, "cannot find character device %.100s", *a->device);
    if (!d->live)
        return lv_fail(k, e, LV_E_INVALID, "domain is not running");
    if (k->c->n_streams >= STREAMS_MAX || find(k->c, &k->h) != NULL)
        return lv_fail(k, e, LV_E_BUSY, "at most %d streams of one client", STREAMS_MAX);
    other = stream_of(k->m, d->uuid);
    if (other != NULL && !force)
        return lv_fail(k, e, LV_E_FAILED, "Active console session exists for this domain");
    if (other != NULL)
        break_off(other, LV_E_FAILED, "console of domain %s was taken by %s", d->name, k->c->who);
    if (k->c->gone)
        return lv_fail(k, e, LV_E_FAILED, "the client has gone");
    d = lv_domain(k, &a->dom, e); /* the other client may be gone, and what it had begun */
    if (d == NULL)
        return -1;
    fd = open_pty(k, d, force, e);
    if (fd < 0)
        return -1;
    lv_audit(k, "console", d->name);
    return open_stream(k, d, fd, e);
}
