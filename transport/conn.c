/* SPDX-License-Identifier: ISC */
/*
 * One connection: made (tr_connect, tr_accept), used by one reading and one writing
 * thread, ended (tr_abort from anywhere, tr_close by its owner).
 *
 * The socket never blocks. A thread tries, and where there is nothing to do waits in
 * poll, which tr_abort wakes by shutting the socket down. Plain vectors go to sendmsg
 * and recvmsg as they are, for TLS see tls_stream.c. Bytes are shaped before they are
 * sent; a thread that waits for the cap watches the socket meanwhile.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/io.h"
#include "transport/internal.h"

#define CONNECT_TIMEOUT_MS 10000
#define DEAD_PEER_MS 15000
#define CLOSE_MS 1000
#define VECTORS 256 /* of one sendmsg or recvmsg; more bring nothing */

/* --- failures --- */

static int conn_broken(struct tr_conn *c)
{
    atomic_store(&c->broken, true);
    return -1;
}

int conn_errno(struct tr_conn *c, struct err *e)
{
    if (atomic_load(&c->aborted))
        return err_set(e, ERR_CANCELLED, "%s: connection was aborted", c->who);
    if (errno == ETIMEDOUT || errno == EHOSTUNREACH || errno == ENETUNREACH)
        return err_set(e, ERR_TIMEOUT, "%s does not answer any more: %s", c->who, strerror(errno));
    return err_set(e, ERR_PEER, "%s: connection lost: %s", c->who, strerror(errno));
}

int conn_wait(struct tr_conn *c, short events, uint64_t deadline_ns, struct err *e)
{
    struct err w = { .code = ERR_NONE };

    if (!atomic_load(&c->aborted) && io_wait(c->fd, events, deadline_ns, &w) == 0 &&
        !atomic_load(&c->aborted))
        return 0;
    if (atomic_load(&c->aborted))
        return err_set(e, ERR_CANCELLED, "%s: connection was aborted", c->who);
    if (w.code == ERR_TIMEOUT)
        return err_set(e, ERR_TIMEOUT, "%s: %s for %.1f s", c->who,
            events == POLLIN ? "silent" : "takes no data", (double)c->dead_ns / NS_PER_S);
    return err_set(e, w.code, "%s: %s", c->who, w.text);
}

static size_t vectors_len(const struct iovec *iov, int n)
{
    size_t sum = 0;

    for (int i = 0; i < n; i++)
        sum += iov[i].iov_len;
    return sum;
}

/* --- writing --- */

/* Asleep for the bandwidth cap; an aborted connection ends it early, and one that is dead, which
 * is told. */
static bool shaped_sleep(struct tr_conn *c, uint64_t ns)
{
    struct pollfd p = { .fd = c->fd, .events = 0 };
    struct timespec ts = { (time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S) };
    uint64_t start = clock_ns();
    bool dead = ppoll(&p, 1, &ts, NULL) > 0;

    atomic_fetch_add(&c->shaped_ns, clock_ns() - start);
    return dead;
}

size_t conn_shaped(struct tr_conn *c, size_t want)
{
    uint64_t wait;
    size_t n;

    if (c->shaper == NULL)
        return want;
    while ((n = shaper_take(c->shaper, want, &wait)) == 0) {
        bool dead = shaped_sleep(c, wait);

        if (atomic_load(&c->aborted))
            return 0;
        if (dead) /* the write fails and says why; waiting would spin */
            return want;
    }
    return n;
}

int conn_aborted(struct tr_conn *c, struct err *e)
{
    return err_set(e, ERR_CANCELLED, "%s: connection was aborted", c->who);
}

/* One try with plain TCP: bytes sent, 0 after a wait, -1. */
static ssize_t plain_write_some(
    struct tr_conn *c, const struct cursor *cur, size_t limit, struct err *e)
{
    struct iovec v[VECTORS];
    struct msghdr m = { .msg_iov = v };
    size_t bytes;
    ssize_t n;

    m.msg_iovlen = (size_t)cursor_peek(cur, v, VECTORS, limit, &bytes);
    n = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0)
        return n;
    if (errno == EINTR)
        return 0;
    if (errno != EAGAIN)
        return conn_errno(c, e);
    return conn_wait(c, POLLOUT, clock_ns() + c->dead_ns, e);
}

static int plain_writev(struct tr_conn *c, struct cursor *cur, size_t left, struct err *e)
{
    while (left > 0) {
        size_t allowed = conn_shaped(c, left);

        if (allowed == 0)
            return conn_aborted(c, e);
        left -= allowed;
        while (allowed > 0) {
            ssize_t n = plain_write_some(c, cur, allowed, e);

            if (n < 0)
                return -1;
            cursor_skip(cur, (size_t)n);
            allowed -= (size_t)n;
        }
    }
    return 0;
}

/* Under write_lock. */
static int write_locked(struct tr_conn *c, const struct iovec *iov, int n, struct err *e)
{
    struct cursor cur = { iov, n, 0 };
    size_t len = vectors_len(iov, n);
    uint64_t start = clock_ns();
    int r;

    if (atomic_load(&c->aborted))
        r = conn_aborted(c, e);
    else if (atomic_load(&c->broken))
        r = err_set(e, ERR_PEER, "%s: connection is broken", c->who);
    else
        r = c->stream != NULL ? stream_writev(c, &cur, len, e) : plain_writev(c, &cur, len, e);
    atomic_fetch_add(&c->write_ns, clock_ns() - start);
    if (r < 0)
        return conn_broken(c);
    atomic_fetch_add(&c->sent, len);
    return 0;
}

/* Fault point flip-inside: one bit of a frame or message is wrong before it is encrypted. */
static int write_flipped(struct tr_conn *c, const struct iovec *iov, int n, struct err *e)
{
    struct iovec v = { .iov_len = vectors_len(iov, n) };
    uint8_t *copy = malloc(v.iov_len + 1);
    size_t at = 0;
    int r;

    if (copy == NULL)
        return err_set(e, ERR_MEMORY, "%s: out of memory", c->who);
    for (int i = 0; i < n; i++) {
        memcpy(copy + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    if (at > 0)
        copy[at - 1] ^= 1;
    v.iov_base = copy;
    r = write_locked(c, &v, 1, e);
    free(copy);
    return r;
}

int tr_writev(struct tr_conn *c, const struct iovec *iov, int n, struct err *e)
{
    int r;

    pthread_mutex_lock(&c->write_lock);
    r = FAULT("flip-inside") ? write_flipped(c, iov, n, e) : write_locked(c, iov, n, e);
    pthread_mutex_unlock(&c->write_lock);
    return r;
}

int tr_write(struct tr_conn *c, const void *buf, size_t len, struct err *e)
{
    struct iovec v = { (void *)buf, len };

    return tr_writev(c, &v, 1, e);
}

int conn_try_write(struct tr_conn *c, const void *buf, size_t len, struct err *e)
{
    struct iovec v = { (void *)buf, len };
    int r;

    if (pthread_mutex_trylock(&c->write_lock) != 0)
        return 1;
    r = write_locked(c, &v, 1, e);
    pthread_mutex_unlock(&c->write_lock);
    return r;
}

/* --- reading --- */

/* Bytes read, 0 for none now, -1. */
static ssize_t plain_read(struct tr_conn *c, struct cursor *cur, struct err *e)
{
    struct iovec v[VECTORS];
    struct msghdr m = { .msg_iov = v };
    size_t bytes;
    ssize_t n;

    m.msg_iovlen = (size_t)cursor_peek(cur, v, VECTORS, SIZE_MAX, &bytes);
    n = recvmsg(c->fd, &m, MSG_DONTWAIT);
    if (n > 0)
        cursor_skip(cur, (size_t)n);
    if (n > 0)
        return n;
    if (n == 0 && atomic_load(&c->aborted))
        return conn_aborted(c, e);
    if (n == 0)
        return err_set(e, ERR_PEER, "%s closed the connection", c->who);
    if (errno == EAGAIN || errno == EINTR)
        return 0;
    return conn_errno(c, e);
}

/* `first` is the deadline of the first byte, `last` that of the last one. */
static int read_cursor(struct tr_conn *c, struct cursor *cur, size_t len, uint64_t first,
    uint64_t last, size_t *done, struct err *e)
{
    uint64_t deadline = first;

    while (*done < len) {
        ssize_t n;

        if (atomic_load(&c->aborted))
            return conn_aborted(c, e);
        n = c->stream != NULL ? stream_read(c, cur, len - *done, e) : plain_read(c, cur, e);
        if (n < 0 || (n == 0 && conn_wait(c, POLLIN, deadline, e) < 0))
            return -1;
        if (n == 0)
            continue;
        *done += (size_t)n;
        deadline = clock_ns() + c->dead_ns;
        if (deadline > last)
            deadline = last;
    }
    return 0;
}

static int read_counted(struct tr_conn *c, const struct iovec *iov, int n, uint64_t first,
    uint64_t last, size_t *done, struct err *e)
{
    struct cursor cur = { iov, n, 0 };
    uint64_t start = clock_ns();
    int r;

    pthread_mutex_lock(&c->read_lock);
    r = read_cursor(c, &cur, vectors_len(iov, n), first, last, done, e);
    pthread_mutex_unlock(&c->read_lock);
    atomic_fetch_add(&c->read_ns, clock_ns() - start);
    atomic_fetch_add(&c->received, *done);
    return r;
}

int tr_readv(struct tr_conn *c, const struct iovec *iov, int n, struct err *e)
{
    uint64_t deadline = c->patient ? IO_FOREVER : clock_ns() + c->dead_ns;
    size_t done = 0;

    if (read_counted(c, iov, n, deadline, IO_FOREVER, &done, e) < 0)
        return conn_broken(c);
    return 0;
}

int tr_read(struct tr_conn *c, void *buf, size_t len, struct err *e)
{
    struct iovec v = { buf, len };

    return tr_readv(c, &v, 1, e);
}

int conn_read(struct tr_conn *c, void *buf, size_t len, uint64_t first_ns, uint64_t last_ns,
    bool *any, struct err *e)
{
    struct iovec v = { buf, len };
    size_t done = 0;
    int r = read_counted(c, &v, 1, first_ns, last_ns, &done, e);

    *any = done > 0;
    return r;
}

/* --- making and ending --- */

static struct tr_conn *conn_new(int fd, const struct tr_options *opt, bool server)
{
    unsigned dead_ms = opt->dead_peer_ms != 0 ? opt->dead_peer_ms : DEAD_PEER_MS;
    struct tr_conn *c = calloc(1, sizeof *c);

    if (c == NULL)
        return NULL;
    c->fd = fd;
    c->server = server;
    c->patient = opt->patient;
    c->shaper = opt->shaper;
    c->dead_ns = dead_ms * NS_PER_MS;
    pthread_mutex_init(&c->read_lock, NULL);
    pthread_mutex_init(&c->write_lock, NULL);
    snprintf(c->cipher, sizeof c->cipher, "plain TCP");
    sock_peer_text(fd, c->who);
    sock_tune(fd, dead_ms);
    sock_tune_congestion(fd);
    return c;
}

static void conn_free(struct tr_conn *c)
{
    tls_free(c);
    close(c->fd);
    pthread_mutex_destroy(&c->read_lock);
    pthread_mutex_destroy(&c->write_lock);
    free(c);
}

static uint64_t connect_deadline(const struct tr_options *opt)
{
    unsigned ms = opt->connect_timeout_ms;

    if (ms == 0)
        ms = opt->dead_peer_ms > CONNECT_TIMEOUT_MS ? opt->dead_peer_ms : CONNECT_TIMEOUT_MS;
    return clock_ns() + ms * NS_PER_MS;
}

static int read_answer(struct tr_conn *c, char line[TR_LINE_MAX], uint64_t deadline, struct err *e)
{
    struct err w = { .code = ERR_NONE };

    if (sock_read_line(c->fd, line, deadline, &w) == 0)
        return 0;
    if (w.code == ERR_TIMEOUT)
        return err_set(e, ERR_TIMEOUT, "%s: accepts connections, but says nothing", c->who);
    return err_set(e, w.code, "%s: %s", c->who, w.text);
}

static int send_line(struct tr_conn *c, const char *text, uint64_t deadline, struct err *e)
{
    char line[TR_LINE_MAX];
    int n = snprintf(line, sizeof line, "%s\r\n", text);

    if (n >= (int)sizeof line)
        return err_set(e, ERR_INTERNAL, "preamble is longer than %d bytes", TR_LINE_MAX);
    if (io_write_full(c->fd, line, (size_t)n, deadline, e) < 0)
        return err_prefix(e, "%s", c->who);
    return 0;
}

static int introduce(struct tr_conn *c, const char *preamble, uint64_t deadline, struct err *e)
{
    char line[TR_LINE_MAX];

    if (read_answer(c, line, deadline, e) < 0 || greeting_check(line, c->who, e) < 0)
        return -1;
    if (send_line(c, preamble, deadline, e) < 0 || read_answer(c, line, deadline, e) < 0)
        return -1;
    return answer_check(line, c->who, e);
}

int tr_connect(const char *host, unsigned port, const char *preamble, const struct tr_options *opt,
    struct tr_conn **out, struct err *e)
{
    uint64_t deadline = connect_deadline(opt);
    struct tr_conn *c;
    int fd;

    *out = NULL;
    fd = sock_connect(host, port, deadline, e);
    if (fd < 0)
        return -1;
    c = conn_new(fd, opt, false);
    if (c == NULL) {
        close(fd);
        return err_set(e, ERR_MEMORY, "connection to %s: out of memory", host);
    }
    snprintf(c->who, sizeof c->who, "%s", host);
    snprintf(c->expect, sizeof c->expect, "%s", host);
    if (introduce(c, preamble, deadline, e) < 0 ||
        (opt->tls != NULL && tls_handshake(c, opt->tls, deadline, e) < 0)) {
        conn_free(c);
        return -1;
    }
    *out = c;
    return 0;
}

int tr_accept(int fd, const struct tr_options *opt, struct tr_conn **out, struct err *e)
{
    uint64_t deadline = connect_deadline(opt);
    struct tr_conn *c;

    *out = NULL;
    if (io_set_nonblock(fd, true, e) < 0) {
        close(fd);
        return -1;
    }
    c = conn_new(fd, opt, true);
    if (c == NULL) {
        close(fd);
        return err_set(e, ERR_MEMORY, "connection: out of memory");
    }
    if (opt->tls != NULL && tls_handshake(c, opt->tls, deadline, e) < 0) {
        conn_free(c);
        return -1;
    }
    *out = c;
    return 0;
}

void tr_abort(struct tr_conn *c)
{
    atomic_store(&c->aborted, true);
    shutdown(c->fd, SHUT_RDWR);
}

/* Everything sent has arrived there, or time is up. What the peer still says is thrown away. */
static void drain(struct tr_conn *c)
{
    uint64_t deadline = clock_ns() + CLOSE_MS * NS_PER_MS;
    char bin[16384];
    int unsent = 1;

    while (clock_ns() < deadline && unsent > 0) {
        ssize_t n = recv(c->fd, bin, sizeof bin, MSG_DONTWAIT);

        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return;
        if (n < 0) {
            if (ioctl(c->fd, SIOCOUTQ, &unsent) < 0)
                return;
            if (unsent > 0)
                io_wait(c->fd, POLLIN, clock_ns() + 2 * NS_PER_MS, NULL);
        }
    }
}

/* False when the connection can be cut off as it is. */
static bool say_goodbye(struct tr_conn *c)
{
    bool broken = atomic_load(&c->broken);

    if (atomic_load(&c->aborted))
        return false;
    return c->stream != NULL ? stream_goodbye(c, broken) : !broken;
}

void tr_close(struct tr_conn **c)
{
    if (*c == NULL)
        return;
    if (say_goodbye(*c)) {
        shutdown((*c)->fd, SHUT_WR);
        drain(*c);
    }
    conn_free(*c);
    *c = NULL;
}

/* --- questions --- */

const char *tr_peer_name(const struct tr_conn *c)
{
    return c->name;
}

bool tr_peer_has_name(const struct tr_conn *c, const char *name)
{
    return c->peer_cert != NULL && cert_has_name(c->peer_cert, name);
}

const char *tr_cipher(const struct tr_conn *c)
{
    return c->cipher;
}

int tr_fd(const struct tr_conn *c)
{
    return c->fd;
}

void tr_stats(const struct tr_conn *c, struct tr_stats *out)
{
    out->sent = atomic_load(&c->sent);
    out->received = atomic_load(&c->received);
    out->write_ns = atomic_load(&c->write_ns);
    out->read_ns = atomic_load(&c->read_ns);
    out->shaped_ns = atomic_load(&c->shaped_ns);
}
