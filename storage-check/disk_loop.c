/* SPDX-License-Identifier: ISC */
/*
 * A disk's thread. Other threads put requests on `submitted` and orders beside it, under the lock,
 * and wake it; all else is the thread's own. One turn:
 *
 *   let the user submit (feed); take what was ordered; move the connection on (disk_connect.c);
 * send; sleep in poll(2) until the connection, a wake-up or a timer; let the protocol read and
 * write
 *
 * A request waits in `pending` until its last part was sent, then in `active` until the last
 * answer. If the connection breaks, the socket is closed first, then all of it goes back to
 * `pending` in the order in which it came, and is sent again from its beginning on the next
 * connection. Nobody was told that these requests were done, so no later request rests on them.
 *
 * One flush is on its way at a time. It does for all that were asked for before it was sent
 * (`flush_with`); those that come later wait for its end and are one flush then (`flush_next`).
 *
 * A server that is silent: it owes an answer while parts are on their way. After half of the time
 * limit without any sign of life it is asked for one (a cheap question, which a server that is
 * merely busy with a flush answers), after all of it the connection is given up.
 */
#define _GNU_SOURCE
#include "storage-check/disk_loop.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"

#define TRIES_MAX 200u

/* ---- lists and vectors ---- */

static void list_add(struct io_list *l, struct disk_io *io)
{
    io->next = NULL;
    io->prev = l->last;
    *(l->last != NULL ? &l->last->next : &l->first) = io;
    l->last = io;
}

static void list_remove(struct io_list *l, struct disk_io *io)
{
    *(io->prev != NULL ? &io->prev->next : &l->first) = io->next;
    *(io->next != NULL ? &io->next->prev : &l->last) = io->prev;
}

/* Appends all of `from`, which is empty then. */
static void list_append(struct io_list *l, struct io_list *from)
{
    if (from->first == NULL)
        return;
    from->first->prev = l->last;
    *(l->last != NULL ? &l->last->next : &l->first) = from->first;
    l->last = from->last;
    *from = (struct io_list){ NULL, NULL };
}

typedef void copy_fn(void *mine, void *theirs, size_t len);

static void each_piece(
    const struct iovec *iov, unsigned n, uint64_t skip, uint8_t *other, uint64_t len, copy_fn *copy)
{
    for (unsigned i = 0; i < n && len > 0; i++) {
        uint64_t step;

        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        step = iov[i].iov_len - skip < len ? iov[i].iov_len - skip : len;
        copy((uint8_t *)iov[i].iov_base + skip, other, (size_t)step);
        other += step;
        len -= step;
        skip = 0;
    }
}

static void copy_to(void *mine, void *theirs, size_t len)
{
    memcpy(mine, theirs, len);
}

static void copy_from(void *mine, void *theirs, size_t len)
{
    memcpy(theirs, mine, len);
}

void net_iov_to(const struct iovec *iov, unsigned n, uint64_t skip, const void *from, uint64_t len)
{
    each_piece(iov, n, skip, (uint8_t *)(uintptr_t)from, len, copy_to);
}

void net_iov_from(const struct iovec *iov, unsigned n, uint64_t skip, void *to, uint64_t len)
{
    each_piece(iov, n, skip, to, len, copy_from);
}

/* ---- parts ---- */

/* What `moved` reaches when all parts were sent; a flush is one part of one. */
static uint64_t total(const struct disk_io *io)
{
    return io->op == DISK_FLUSH ? 1 : io->len;
}

static bool has_data(const struct disk_io *io)
{
    return io->op == DISK_READ || io->op == DISK_WRITE;
}

/* The part's vector: the request's own if it covers all of it. */
static int cut_iov(struct net_part *p)
{
    const struct disk_io *io = p->io;
    uint64_t skip = p->at, len = p->len;

    p->cut = NULL;
    p->iov = io->iov;
    p->n_iov = io->n_iov;
    if (!has_data(io) || p->len == io->len)
        return 0;
    p->cut = calloc(io->n_iov, sizeof *p->cut);
    if (p->cut == NULL)
        return ENOMEM;
    p->iov = p->cut;
    p->n_iov = 0;
    for (unsigned i = 0; i < io->n_iov && len > 0; i++) {
        struct iovec v = io->iov[i];

        if (skip >= v.iov_len) {
            skip -= v.iov_len;
            continue;
        }
        v.iov_base = (uint8_t *)v.iov_base + skip;
        v.iov_len -= skip;
        if (v.iov_len > len)
            v.iov_len = (size_t)len;
        len -= v.iov_len;
        skip = 0;
        p->cut[p->n_iov++] = v;
    }
    return 0;
}

static struct net_part *take_part(struct net_disk *n, struct disk_io *io)
{
    struct net_part *p = n->free_parts;

    if (p == NULL)
        return NULL;
    n->free_parts = p->next;
    *p = (struct net_part){ .net = n, .io = io, .at = io->op == DISK_FLUSH ? 0 : io->moved };
    p->next = n->flying;
    if (n->flying != NULL)
        n->flying->prev = p;
    n->flying = p;
    return p;
}

static void give_part(struct net_part *p)
{
    struct net_disk *n = p->net;

    *(p->prev != NULL ? &p->prev->next : &n->flying) = p->next;
    if (p->next != NULL)
        p->next->prev = p->prev;
    free(p->cut);
    p->next = n->free_parts;
    n->free_parts = p;
}

static void finish_all(struct io_list *l, int error)
{
    struct io_list all = *l;

    *l = (struct io_list){ NULL, NULL };
    while (all.first != NULL) {
        struct disk_io *io = all.first;

        list_remove(&all, io);
        disk_io_done(io, error);
    }
}

/* Flushes that were not sent, in front of what else was not. */
static void flush_ended(struct net_disk *n)
{
    n->flush = NULL;
    list_append(&n->flush_next, &n->pending);
    n->pending = n->flush_next;
    n->flush_next = (struct io_list){ NULL, NULL };
}

/* One part less; the request is done with its last one. */
static void settle(struct net_disk *n, struct disk_io *io, int error)
{
    if (io->result == 0)
        io->result = error;
    if (io->moved < total(io)) {
        if (io->result == 0)
            return;
        io->moved = total(io); /* the rest need not be sent */
        list_remove(&n->pending, io);
        list_add(&n->active, io);
    }
    if (io->parts > 0)
        return;
    list_remove(&n->active, io);
    if (io == n->flush) {
        flush_ended(n);
        finish_all(&n->flush_with, io->result);
    }
    disk_io_done(io, io->result);
}

void net_part_done(struct net_part *p, int error)
{
    struct net_disk *n = p->net;
    struct disk_io *io = p->io;

    net_heard(n);
    if (error == 0)
        n->failures = 0;
    n->n_sent--;
    give_part(p);
    io->parts--;
    settle(n, io, error);
}

void net_part_again(struct net_part *p, unsigned delay_ms)
{
    net_heard(p->net);
    if (++p->tries > TRIES_MAX) {
        net_part_done(p, EIO);
        return;
    }
    p->net->n_sent--;
    p->due_ns = clock_ns() + delay_ms * NS_PER_MS;
}

void net_heard(struct net_disk *n)
{
    n->heard_ns = clock_ns();
    n->probing = false;
}

void net_requeue(struct net_disk *n)
{
    struct io_list all = n->active;

    while (n->flying != NULL)
        give_part(n->flying);
    n->n_sent = 0;
    n->n_own = 0;
    n->active = (struct io_list){ NULL, NULL };
    list_append(&all, &n->flush_with);
    flush_ended(n);
    list_append(&all, &n->pending);
    n->pending = all;
    for (struct disk_io *io = all.first; io != NULL; io = io->next) {
        io->moved = 0;
        io->parts = 0;
        io->result = 0;
    }
}

/* ---- sending ---- */

/* 0: sent, or over already; -1: not yet. */
static int send_part(struct net_disk *n, struct net_part *p)
{
    int rc;

    p->due_ns = 0;
    n->n_sent++;
    rc = n->ops->start(n, p);
    if (rc > 0)
        net_part_done(p, rc);
    if (rc < 0)
        n->n_sent--;
    return rc < 0 ? -1 : 0;
}

/* It was just sent; the other ones go with it. */
static void gather_flushes(struct net_disk *n)
{
    struct disk_io *next;

    for (struct disk_io *io = n->pending.first; io != NULL; io = next) {
        next = io->next;
        if (io->op != DISK_FLUSH)
            continue;
        list_remove(&n->pending, io);
        list_add(&n->flush_with, io);
    }
}

static bool may_send(const struct net_disk *n)
{
    const struct disk_options *o = &n->d.options;

    return o->may_send == NULL || o->may_send(o->event_arg);
}

/* The next part of the first request that waits; false if it has to wait on. */
static bool send_next(struct net_disk *n)
{
    struct disk_io *io = n->pending.first;
    uint64_t most = n->ops->part_max(n, io->op), before = io->moved;
    struct net_part *p = take_part(n, io);

    if (p == NULL)
        return false;
    p->len = total(io) - io->moved < most ? total(io) - io->moved : most;
    io->parts++;
    io->moved += p->len;
    if (io->moved == total(io)) {
        list_remove(&n->pending, io);
        list_add(&n->active, io);
    }
    if (cut_iov(p) != 0) {
        n->n_sent++;
        net_part_done(p, EIO);
        return true;
    }
    if (send_part(n, p) == 0)
        return true;
    if (io->moved == total(io)) {
        list_remove(&n->active, io);
        io->prev = NULL;
        io->next = n->pending.first;
        *(io->next != NULL ? &io->next->prev : &n->pending.last) = io;
        n->pending.first = io;
    }
    io->moved = before;
    io->parts--;
    give_part(p);
    return false;
}

/* The same of a flush. */
static bool send_flush(struct net_disk *n)
{
    struct disk_io *io = n->pending.first;

    if (n->flush != NULL) {
        list_remove(&n->pending, io);
        list_add(&n->flush_next, io);
        return true;
    }
    n->flush = io;
    if (!send_next(n)) {
        n->flush = NULL;
        return false;
    }
    if (n->flush == io)
        gather_flushes(n);
    return true;
}

static bool send_first(struct net_disk *n)
{
    return n->pending.first->op == DISK_FLUSH ? send_flush(n) : send_next(n);
}

/* True if any was sent. */
static bool send_due(struct net_disk *n, uint64_t now)
{
    struct net_part *next;
    bool any = false;

    for (struct net_part *p = n->flying; p != NULL && !n->broken; p = next) {
        next = p->next;
        if (p->due_ns == 0 || p->due_ns > now)
            continue;
        if (send_part(n, p) == 0)
            any = true;
        else
            p->due_ns = now + NS_PER_MS;
    }
    return any;
}

/* What is not on its way gets the verdict; the rest gets the server's own answers. */
static void refuse_pending(struct net_disk *n)
{
    struct net_part *next;

    for (struct net_part *p = n->flying; p != NULL; p = next) {
        next = p->next;
        if (p->due_ns != 0) {
            n->n_sent++;
            net_part_done(p, n->verdict);
        }
    }
    while (n->pending.first != NULL) {
        struct disk_io *io = n->pending.first;

        list_remove(&n->pending, io);
        list_add(&n->active, io);
        io->moved = total(io);
        settle(n, io, n->verdict);
    }
}

static void send_pending(struct net_disk *n, uint64_t now)
{
    bool any;

    if (n->verdict != 0) {
        refuse_pending(n);
        return;
    }
    if (n->state != NET_UP)
        return;
    any = send_due(n, now);
    while (n->pending.first != NULL && !n->broken && may_send(n) && send_first(n))
        any = true;
    if (any && !n->broken)
        n->ops->service(n, POLLOUT);
}

/* ---- a silent server ---- */

static bool owes(const struct net_disk *n)
{
    return n->state == NET_PREPARING ||
           ((n->state == NET_UP || n->state == NET_GATED) && n->n_sent + n->n_own > 0);
}

static uint64_t limit_ns(const struct net_disk *n)
{
    return n->d.options.timeout_ms * NS_PER_MS;
}

static uint64_t silent_since(const struct net_disk *n)
{
    return n->heard_ns > n->busy_ns ? n->heard_ns : n->busy_ns;
}

static void check_life(struct net_disk *n, uint64_t now)
{
    uint64_t silent;

    if (!owes(n)) {
        n->busy_ns = 0;
        n->probing = false;
        return;
    }
    if (n->busy_ns == 0)
        n->busy_ns = now;
    silent = now > silent_since(n) ? now - silent_since(n) : 0;
    if (silent >= limit_ns(n)) {
        net_lost(n, ERR_TIMEOUT, "the server has not answered for %u ms", n->d.options.timeout_ms);
    } else if (silent >= limit_ns(n) / 2 && !n->probing) {
        n->probing = true;
        n->ops->probe(n);
    }
}

static uint64_t life_due(const struct net_disk *n)
{
    if (!owes(n) || n->busy_ns == 0)
        return UINT64_MAX;
    return silent_since(n) + (n->probing ? limit_ns(n) : limit_ns(n) / 2);
}

/* ---- the loop ---- */

/* Whoever pokes from here on is heard in the next turn. */
static void call_feed(struct net_disk *n)
{
    void (*feed)(void *arg);
    void *arg;

    pthread_mutex_lock(&n->lock);
    n->awake = true;
    n->poked = false;
    feed = n->feed;
    arg = n->feed_arg;
    n->feeding = feed != NULL;
    pthread_mutex_unlock(&n->lock);
    if (feed == NULL)
        return;
    feed(arg);
    pthread_mutex_lock(&n->lock);
    n->feeding = false;
    if (n->feed == NULL)
        pthread_cond_broadcast(&n->cond);
    pthread_mutex_unlock(&n->lock);
}

struct orders {
    bool end, owner, admitted, expected;
    int verdict;
    unsigned aborts;
    struct disk_mark *mark;
};

static void take_orders(struct net_disk *n, struct orders *o)
{
    pthread_mutex_lock(&n->lock);
    list_append(&n->pending, &n->submitted);
    *o = (struct orders){ .end = n->end,
        .owner = n->owner_changed,
        .admitted = n->admitted,
        .verdict = n->admit_verdict,
        .mark = n->mark,
        .expected = n->mark_expected,
        .aborts = n->aborts_wanted };
    n->owner_changed = false;
    n->admitted = false;
    n->called = false;
    pthread_mutex_unlock(&n->lock);
}

static void cancel_all(struct net_disk *n)
{
    connect_drop(n);
    finish_all(&n->pending, ECANCELED);
}

/* Before each turn, and before what waits in buffers may leave them: the user may not send any
 * more. */
static void check_leave(struct net_disk *n)
{
    if ((n->pending.first != NULL || n->active.first != NULL || n->flush_next.first != NULL) &&
        !may_send(n))
        cancel_all(n);
}

static void obey(struct net_disk *n, const struct orders *o)
{
    if (o->aborts != n->aborts_done) {
        cancel_all(n);
        pthread_mutex_lock(&n->lock);
        n->aborts_done = o->aborts;
        pthread_cond_broadcast(&n->cond);
        pthread_mutex_unlock(&n->lock);
    }
    if (o->mark != NULL) {
        n->ops->mark(n, o->mark, o->expected);
        pthread_mutex_lock(&n->lock);
        n->mark = NULL;
        pthread_cond_broadcast(&n->cond);
        pthread_mutex_unlock(&n->lock);
    }
    if (o->owner)
        n->ops->owner(n);
    if (o->admitted)
        connect_admit(n, o->verdict);
}

/* False if there are orders already. */
static bool may_sleep(struct net_disk *n)
{
    bool may;

    pthread_mutex_lock(&n->lock);
    may = n->submitted.first == NULL && !n->end && !n->owner_changed && !n->admitted &&
          !n->called && !n->poked && n->mark == NULL && n->aborts_wanted == n->aborts_done;
    n->awake = !may;
    pthread_mutex_unlock(&n->lock);
    return may;
}

static int sleep_ms(const struct net_disk *n, uint64_t now)
{
    uint64_t due = connect_due(n), life = life_due(n);

    if (life < due)
        due = life;
    for (const struct net_part *p = n->flying; p != NULL && n->state == NET_UP; p = p->next)
        if (p->due_ns != 0 && p->due_ns < due)
            due = p->due_ns;
    if (due == UINT64_MAX)
        return -1;
    if (due <= now)
        return 0;
    due = (due - now + NS_PER_MS - 1) / NS_PER_MS;
    return due > 60000 ? 60000 : (int)due;
}

static bool has_connection(const struct net_disk *n)
{
    return n->state == NET_CONNECTING || n->state == NET_GATED || n->state == NET_PREPARING ||
           n->state == NET_UP;
}

/* Whoever submits or pokes from here on, answers' callbacks first of all, need not write the
 * eventfd: the next turn looks. */
static void set_awake(struct net_disk *n)
{
    pthread_mutex_lock(&n->lock);
    n->awake = true;
    pthread_mutex_unlock(&n->lock);
}

static void wait_and_serve(struct net_disk *n, int ms)
{
    struct pollfd fds[2] = { { .fd = n->wake, .events = POLLIN }, { .fd = -1 } };
    uint64_t count;

    if (has_connection(n)) {
        fds[1].fd = n->ops->fd(n);
        fds[1].events = n->ops->events(n);
    }
    if (poll(fds, 2, ms) <= 0)
        return;
    set_awake(n);
    if (fds[0].revents != 0 && read(n->wake, &count, sizeof count) < 0 && errno != EAGAIN)
        net_lost(n, ERR_SYSTEM, "eventfd: %s", strerror(errno));
    if (fds[1].revents != 0)
        check_leave(n);
    if (fds[1].revents != 0 && has_connection(n))
        n->ops->service(n, fds[1].revents);
}

static void *net_main(void *arg)
{
    struct net_disk *n = arg;
    struct orders o;

    for (;;) {
        uint64_t now = clock_ns();

        call_feed(n);
        take_orders(n, &o);
        if (o.end)
            break;
        obey(n, &o);
        check_leave(n);
        connect_turn(n, now);
        if (!n->broken)
            send_pending(n, now);
        n->ops->turn(n);
        check_life(n, now);
        if (n->broken)
            connect_broken(n, now);
        else
            wait_and_serve(n, may_sleep(n) ? sleep_ms(n, now) : 0);
    }
    cancel_all(n);
    return NULL;
}

void net_wake(struct net_disk *n)
{
    uint64_t one = 1;
    ssize_t rc;

    do
        rc = write(n->wake, &one, sizeof one);
    while (rc < 0 && errno == EINTR);
}

/* ---- what others call ---- */

static void net_submit(struct disk *d, struct disk_io *io)
{
    struct net_disk *n = net_of(d);
    bool asleep;

    io->disk = d;
    io->moved = 0;
    io->parts = 0;
    io->result = 0;
    pthread_mutex_lock(&n->lock);
    list_add(&n->submitted, io);
    asleep = !n->awake;
    n->awake = true;
    pthread_mutex_unlock(&n->lock);
    if (asleep)
        net_wake(n);
}

static void net_abort(struct disk *d)
{
    struct net_disk *n = net_of(d);
    unsigned mine;

    pthread_mutex_lock(&n->lock);
    mine = ++n->aborts_wanted;
    net_wake(n);
    while ((int)(n->aborts_done - mine) < 0)
        pthread_cond_wait(&n->cond, &n->lock);
    pthread_mutex_unlock(&n->lock);
}

static void net_mark(struct disk *d, struct disk_mark *m, bool expect)
{
    struct net_disk *n = net_of(d);

    pthread_mutex_lock(&n->lock);
    while (n->mark != NULL)
        pthread_cond_wait(&n->cond, &n->lock);
    n->mark = m;
    n->mark_expected = expect;
    net_wake(n);
    while (n->mark == m)
        pthread_cond_wait(&n->cond, &n->lock);
    pthread_mutex_unlock(&n->lock);
}

static int net_set_owner(struct disk *d, unsigned uid, unsigned gid, struct err *e)
{
    struct net_disk *n = net_of(d);

    if (d->kind != MIGRD__STORAGE_KIND__STORAGE_NFS)
        return err_set(e, ERR_UNSUPPORTED, "disk %.200s: only NFS has owners", d->source);
    pthread_mutex_lock(&n->lock);
    n->uid = uid;
    n->gid = gid;
    n->owner_changed = true;
    pthread_mutex_unlock(&n->lock);
    net_wake(n);
    return 0;
}

void disk_set_gate(struct disk *d, void (*up)(void *arg, unsigned connection), void *arg)
{
    struct net_disk *n = net_of(d);

    if (!disk_is_network(d))
        return;
    pthread_mutex_lock(&n->lock);
    n->gate = up;
    n->gate_arg = arg;
    pthread_mutex_unlock(&n->lock);
}

void disk_admit(struct disk *d, unsigned connection, int verdict)
{
    struct net_disk *n = net_of(d);

    if (!disk_is_network(d))
        return;
    pthread_mutex_lock(&n->lock);
    if (connection == 0 || connection == n->connections) {
        n->admitted = true;
        n->admit_verdict = verdict;
    }
    pthread_mutex_unlock(&n->lock);
    net_wake(n);
}

void disk_set_feed(struct disk *d, void (*feed)(void *arg), void *arg)
{
    struct net_disk *n = net_of(d);

    pthread_mutex_lock(&n->lock);
    n->feed = feed;
    n->feed_arg = arg;
    while (feed == NULL && n->feeding)
        pthread_cond_wait(&n->cond, &n->lock);
    pthread_mutex_unlock(&n->lock);
}

void disk_poke(struct disk *d)
{
    struct net_disk *n = net_of(d);
    bool asleep;

    pthread_mutex_lock(&n->lock);
    n->poked = true;
    asleep = !n->awake;
    n->awake = true;
    pthread_mutex_unlock(&n->lock);
    if (asleep)
        net_wake(n);
}

int disk_poke_fd(const struct disk *d)
{
    return ((const struct net_disk *)d)->wake;
}

/* ---- life ---- */

static void net_dispose(struct net_disk *n)
{
    n->ops->dispose(n);
    io_close(&n->wake);
    pthread_cond_destroy(&n->cond);
    pthread_mutex_destroy(&n->lock);
    disk_dispose(&n->d);
    free(n);
}

static void net_close(struct disk *d)
{
    struct net_disk *n = net_of(d);

    pthread_mutex_lock(&n->lock);
    n->end = true;
    pthread_mutex_unlock(&n->lock);
    net_wake(n);
    pthread_join(n->thread, NULL);
    net_dispose(n);
}

const struct disk_ops net_disk_ops = {
    .submit = net_submit,
    .abort = net_abort,
    .set_owner = net_set_owner,
    .mark = net_mark,
    .close = net_close,
};

bool net_init(struct net_disk *n, const struct net_ops *ops, Migrd__StorageKind kind,
    const struct disk_options *o, const struct storage_url *u, const char *source)
{
    pthread_condattr_t attr;

    n->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (n->wake < 0)
        return false;
    if (!disk_init(&n->d, &net_disk_ops, kind, o, source)) {
        io_close(&n->wake);
        return false;
    }
    pthread_mutex_init(&n->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&n->cond, &attr);
    pthread_condattr_destroy(&attr);
    n->ops = ops;
    n->d.url = *u;
    n->uid = u->has_uid ? u->uid : o->uid;
    n->gid = u->has_gid ? u->gid : o->gid;
    for (unsigned i = 0; i < NET_PARTS; i++) {
        n->parts[i].next = n->free_parts;
        n->free_parts = &n->parts[i];
    }
    return true;
}

/* Signals are other threads' business; SIGPIPE of a broken connection is nobody's. */
static int start_thread(struct net_disk *n)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&n->thread, NULL, net_main, n);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        pthread_setname_np(n->thread, "disk");
    return rc;
}

int net_open(struct net_disk *n, struct err *e)
{
    int rc = start_thread(n);
    struct err why;

    if (rc != 0) {
        err_set(e, ERR_SYSTEM, "disk %.200s: thread: %s", n->d.source, strerror(rc));
        net_dispose(n);
        return -1;
    }
    pthread_mutex_lock(&n->lock);
    while (!n->open_done)
        pthread_cond_wait(&n->cond, &n->lock);
    why = n->open_error;
    pthread_mutex_unlock(&n->lock);
    if (why.code == ERR_NONE)
        return 0;
    if (e != NULL)
        *e = why;
    net_close(&n->d);
    return -1;
}
