/* SPDX-License-Identifier: ISC */
/*
 * Requests. A worker pops a chain (or takes one that is to be done again), checks it, and
 * submits it to the disk; `done` ends it or sends its next range. On a file all that
 * happens within disk_submit. On a network disk the worker is the disk's own thread, in
 * which guests' kicks arrive, `done` comes later, and in between the request counts as in
 * flight (virtio_async_begin).
 *
 *   worker:  take -> pop -> serve -> submit ---------------+
 *                                 \-> end (no disk needed) |
 *   disk:    done -> more ranges: submit --> done          |
 *                 -> 0: end with OK           <------------+
 *                 -> errno: blk_judge: end with a status, or kept
 *
 * Reads, or writes, of a network disk that the guest asks for together and that lie one behind
 * the other are one request to the disk (`with`). If that fails, each is tried by itself, and
 * has a result of its own.
 *
 * What went well on a network disk is given back when all answers that came with it have been
 * looked at (blk_publish): the driver sees them at once, and asks for as many new ones at once,
 * with one interrupt and one kick. Until then they count as in flight.
 *
 * A kept request is nothing but its head: the chain is read anew from the ring, which
 * the driver leaves alone until it gets the request back. What the disk may have written
 * into guest memory by then is marked dirty in any case.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "hypervisor/xvm/virtio_blk_internal.h"

enum request_type {
    REQ_IN = 0,
    REQ_OUT = 1,
    REQ_FLUSH = 4,
    REQ_GET_ID = 8,
    REQ_DISCARD = 11,
    REQ_WRITE_ZEROES = 13,
};

/* Header (virtio 1.1, 5.2.6). */
struct request {
    uint32_t type, reserved;
    uint64_t sector;
};

_Static_assert(sizeof(struct request) == 16, "request header of virtio 1.1, 5.2.6");
_Static_assert(sizeof(struct blk_range) == 16, "range of virtio 1.1, 5.2.6");
_Static_assert(VIRTIO_CHAIN_MAX <= DISK_IOV_MAX, "a chain is one request");

#define RANGE_UNMAP 0x1u
#define SUBMITTED (-1)
#define JOINED_MAX (1u << 20) /* bytes */
#define AWAIT_NS 20000u
#define LUCK_MAX 8u

/* ---- memory of requests ---- */

/* Never NULL: see blk_work. */
static struct blk_request *take_request(struct blk *b)
{
    struct blk_request *r;

    pthread_mutex_lock(&b->lock);
    r = b->unused;
    if (r != NULL)
        b->unused = r->next;
    else
        r = &b->pool[b->n_pool++];
    r->b = b;
    r->next = r->prev = r->with = NULL;
    r->async = false;
    if (b->network) {
        r->began_ns = clock_ns();
        r->prev = b->active_tail;
        *(r->prev != NULL ? &r->prev->next : &b->active) = r;
        b->active_tail = r;
        if (b->lost)
            pthread_cond_broadcast(&b->cond); /* its time runs */
    }
    pthread_mutex_unlock(&b->lock);
    return r;
}

/* With `lock` held. */
static void put_locked(struct blk *b, struct blk_request *r)
{
    if (b->network) {
        *(r->prev != NULL ? &r->prev->next : &b->active) = r->next;
        *(r->next != NULL ? &r->next->prev : &b->active_tail) = r->prev;
    }
    r->next = b->unused;
    b->unused = r;
}

static void put_request(struct blk *b, struct blk_request *r)
{
    pthread_mutex_lock(&b->lock);
    put_locked(b, r);
    pthread_mutex_unlock(&b->lock);
}

/* ---- the end ---- */

static void count(struct blk *b, const struct blk_request *r)
{
    if (r->type == REQ_IN) {
        atomic_fetch_add(&b->count.rd_ops, 1);
        atomic_fetch_add(&b->count.rd_bytes, r->c.in_len - 1);
    } else if (r->type == REQ_OUT) {
        atomic_fetch_add(&b->count.wr_ops, 1);
        atomic_fetch_add(&b->count.wr_bytes, r->c.out_len - sizeof(struct request));
    } else if (r->type == REQ_FLUSH) {
        atomic_fetch_add(&b->count.flush_ops, 1);
    }
}

static void write_status(struct blk_request *r, enum blk_end end)
{
    uint8_t status = (uint8_t)end;

    if (end == BLK_OK)
        count(r->b, r);
    virtio_chain_write(&r->b->v, &r->c, r->c.in_len - 1, &status, 1);
}

void blk_end(struct blk_request *r, enum blk_end end)
{
    struct blk *b = r->b;
    struct virtio *v = &b->v;
    bool async = r->async;

    virtio_chain_dirty(v, &r->c, 0, r->c.in_len - 1);
    if (end <= BLK_UNSUPP) {
        write_status(r, end);
        virtio_push(v, 0, &r->c, (uint32_t)r->c.in_len);
        virtio_notify(v, 0);
    }
    if (end != BLK_KEPT)
        atomic_fetch_sub(&b->outstanding, 1);
    put_request(b, r);
    if (async)
        virtio_async_end(v, 1);
}

/* All is well, and the driver hears of it soon; in the disk's thread, of requests that were
 * submitted. */
static void end_soon(struct blk_request *r)
{
    struct blk *b = r->b;

    if (!b->network) {
        blk_end(r, BLK_OK);
        return;
    }
    virtio_chain_dirty(&b->v, &r->c, 0, r->c.in_len - 1);
    write_status(r, BLK_OK);
    virtio_stage(&b->v, 0, &r->c, (uint32_t)r->c.in_len);
    if (b->ended == NULL)
        disk_poke(b->disk); /* its thread does not sleep before blk_publish */
    r->with = b->ended;
    b->ended = r;
}

void blk_publish(struct blk *b)
{
    struct blk_request *r = b->ended, *next;
    unsigned n = 0;

    if (r == NULL)
        return;
    b->ended = NULL;
    virtio_publish(&b->v, 0);
    virtio_notify(&b->v, 0);
    pthread_mutex_lock(&b->lock);
    for (; r != NULL; r = next, n++) {
        next = r->with;
        put_locked(b, r);
    }
    b->idle_ns = b->active == NULL ? clock_ns() : 0;
    pthread_mutex_unlock(&b->lock);
    atomic_fetch_sub(&b->outstanding, n);
    virtio_async_end(&b->v, n);
}

static bool changes_disk(const struct blk_request *r)
{
    return r->type == REQ_OUT || r->type == REQ_DISCARD || r->type == REQ_WRITE_ZEROES;
}

/* Policy ignore: the guest reads zeroes rather than what was there before. */
static void clear_data(const struct blk_request *r)
{
    uint64_t left = r->c.in_len - 1;

    for (unsigned i = r->c.out_n; i < r->c.out_n + r->c.in_n && left > 0; i++) {
        size_t n = r->c.iov[i].iov_len < left ? r->c.iov[i].iov_len : (size_t)left;

        memset(r->c.iov[i].iov_base, 0, n);
        left -= n;
    }
}

static void fail(struct blk_request *r, int error)
{
    enum blk_end end = blk_judge(r, error);

    if (error != ECANCELED)
        atomic_fetch_add(&r->b->count.errors, 1);
    if (r->type == REQ_FLUSH)
        atomic_store(&r->b->unflushed, true);
    if (end == BLK_OK && r->type == REQ_IN)
        clear_data(r);
    blk_end(r, end);
}

static void submit_range(struct blk_request *r);
static void alone(struct blk_request *r);

/* Of a request, and of those with it. */
static void done(struct disk_io *io, int error)
{
    struct blk_request *r = io->arg, *next;
    bool joined = r->with != NULL;

    if (error == 0 && changes_disk(r))
        atomic_store(&r->b->unflushed, true);
    for (; joined && r != NULL; r = next) {
        next = r->with;
        r->with = NULL;
        if (error == 0)
            end_soon(r);
        else if (error == ECANCELED)
            fail(r, error);
        else
            alone(r);
    }
    if (joined)
        return;
    if (error != 0)
        fail(r, error);
    else if (r->next_range < r->n_ranges)
        submit_range(r);
    else
        end_soon(r);
}

/* ---- the beginning ---- */

static void submit_batch(struct blk *b)
{
    struct blk_request *r = b->batch;

    b->batch = NULL;
    if (r != NULL)
        disk_submit(b->disk, &r->io);
}

/* True: r goes with the batch. */
static bool join(struct blk *b, struct blk_request *r)
{
    struct blk_request *to = b->batch;

    if (to == NULL || to->io.op != r->io.op || to->io.offset + to->io.len != r->io.offset ||
        to->io.len + r->io.len > JOINED_MAX || to->io.n_iov + r->io.n_iov > VIRTIO_CHAIN_MAX)
        return false;
    memcpy(to->iov + to->io.n_iov, r->iov, r->io.n_iov * sizeof r->iov[0]);
    to->io.n_iov += r->io.n_iov;
    to->io.len += r->io.len;
    (to->with != NULL ? to->last : to)->with = r;
    to->last = r;
    return true;
}

static void submit(struct blk_request *r)
{
    struct blk *b = r->b;

    r->io.done = done;
    r->io.arg = r;
    if (b->network && !r->async) {
        r->async = true;
        virtio_async_begin(&b->v);
    }
    disk_submit(b->disk, &r->io);
}

/* As submit, within blk_work: reads and writes wait for others to go with. */
static void submit_data(struct blk_request *r)
{
    struct blk *b = r->b;

    if (!b->network) {
        submit(r);
        return;
    }
    r->io.done = done;
    r->io.arg = r;
    r->async = true;
    virtio_async_begin(&b->v);
    if (join(b, r))
        return;
    submit_batch(b);
    b->batch = r;
}

static bool sectors_fit(const struct blk *b, uint64_t sector, uint64_t sectors)
{
    uint64_t block = b->config.blk_size / BLK_SECTOR;

    return sector <= b->config.capacity && sectors <= b->config.capacity - sector &&
           sector % block == 0 && sectors % block == 0;
}

/* Cuts `skip` bytes off the front and everything behind `len` bytes; returns how many remain. */
static unsigned trim_iov(struct iovec *iov, unsigned n, uint64_t skip, uint64_t len)
{
    unsigned out = 0;

    for (unsigned i = 0; i < n && len > 0; i++) {
        struct iovec io = iov[i];

        if (skip >= io.iov_len) {
            skip -= io.iov_len;
            continue;
        }
        io.iov_base = (uint8_t *)io.iov_base + skip;
        io.iov_len -= skip;
        skip = 0;
        if (io.iov_len > len)
            io.iov_len = len;
        len -= io.iov_len;
        iov[out++] = io;
    }
    return out;
}

/* Fills r->io. */
static void describe(struct blk_request *r, uint64_t offset, uint64_t len)
{
    const struct virtio_chain *c = &r->c;
    bool write = r->type == REQ_OUT;
    unsigned n = write ? c->out_n : c->in_n;

    memcpy(r->iov, c->iov + (write ? 0 : c->out_n), n * sizeof r->iov[0]);
    n = trim_iov(r->iov, n, write ? sizeof(struct request) : 0, len);
    r->io = (struct disk_io){ .op = write ? DISK_WRITE : DISK_READ,
        .offset = offset,
        .len = len,
        .iov = r->iov,
        .n_iov = n };
}

static uint64_t data_len(const struct blk_request *r)
{
    return r->type == REQ_OUT ? r->c.out_len - sizeof(struct request) : r->c.in_len - 1;
}

/* What failed together with others. */
static void alone(struct blk_request *r)
{
    if (!blk_may_submit(r)) {
        blk_end(r, BLK_KEPT);
        return;
    }
    describe(r, r->io.offset, data_len(r));
    submit(r);
}

/* This and the next ones: a status at once, or SUBMITTED. */
static int read_or_write(struct blk_request *r, uint64_t sector)
{
    struct blk *b = r->b;
    bool write = r->type == REQ_OUT;
    uint64_t len = data_len(r);

    if (len % BLK_SECTOR != 0 || !sectors_fit(b, sector, len / BLK_SECTOR) ||
        (write && b->read_only))
        return BLK_IOERR;
    if ((write || b->network) && !blk_may_submit(r))
        return BLK_KEPT;
    if (len == 0)
        return BLK_OK;
    describe(r, sector * BLK_SECTOR, len);
    submit_data(r);
    return SUBMITTED;
}

static int flush(struct blk_request *r)
{
    struct blk *b = r->b;

    if (atomic_exchange(&b->lost_writes, false))
        return BLK_IOERR;
    if (b->read_only)
        return BLK_OK;
    if (b->network && !blk_may_submit(r))
        return BLK_KEPT;
    atomic_store(&b->unflushed, false); /* what is written from here on may be part of it, or not */
    r->io = (struct disk_io){ .op = DISK_FLUSH };
    submit(r);
    return SUBMITTED;
}

static void submit_range(struct blk_request *r)
{
    const struct blk_range *g = &r->range[r->next_range++];

    r->io = (struct disk_io){ .op = r->type == REQ_DISCARD ? DISK_DISCARD : DISK_ZEROES,
        .unmap = (g->flags & RANGE_UNMAP) != 0,
        .offset = g->sector * BLK_SECTOR,
        .len = (uint64_t)g->sectors * BLK_SECTOR };
    submit(r);
}

/* Leaves out what is empty. */
static int check_ranges(struct blk_request *r, unsigned n, bool zeroes)
{
    for (unsigned i = 0; i < n; i++) {
        struct blk_range g = r->range[i];

        if ((g.flags & ~RANGE_UNMAP) != 0 || (!zeroes && g.flags != 0))
            return BLK_UNSUPP;
        if (g.sectors > (zeroes ? BLK_ZERO_SECTORS : BLK_DISCARD_SECTORS) ||
            !sectors_fit(r->b, g.sector, g.sectors))
            return BLK_IOERR;
        if (g.sectors > 0)
            r->range[r->n_ranges++] = g;
    }
    return BLK_OK;
}

static int ranges(struct blk_request *r)
{
    bool zeroes = r->type == REQ_WRITE_ZEROES;
    uint64_t limit = (zeroes ? BLK_ZERO_RANGES : BLK_RANGES) * sizeof r->range[0];
    uint64_t len = r->c.out_len - sizeof(struct request);
    int status;

    if (r->b->read_only || len == 0 || len % sizeof r->range[0] != 0 || len > limit)
        return BLK_IOERR;
    virtio_chain_read(&r->c, sizeof(struct request), r->range, len);
    status = check_ranges(r, (unsigned)(len / sizeof r->range[0]), zeroes);
    if (status != BLK_OK || r->n_ranges == 0)
        return status;
    if (!blk_may_submit(r))
        return BLK_KEPT;
    submit_range(r);
    return SUBMITTED;
}

static int get_id(struct blk_request *r)
{
    uint64_t room = r->c.in_len - 1;
    struct blk *b = r->b;

    virtio_chain_write(&b->v, &r->c, 0, b->id, room < sizeof b->id ? (size_t)room : sizeof b->id);
    return BLK_OK;
}

static int begin(struct blk_request *r)
{
    struct request req;

    virtio_chain_read(&r->c, 0, &req, sizeof req);
    r->type = req.type;
    r->n_ranges = r->next_range = 0;
    switch ((enum request_type)req.type) {
    case REQ_IN:
    case REQ_OUT:
        return read_or_write(r, req.sector);
    case REQ_FLUSH:
        return flush(r);
    case REQ_GET_ID:
        return get_id(r);
    case REQ_DISCARD:
    case REQ_WRITE_ZEROES:
        return ranges(r);
    }
    return BLK_UNSUPP;
}

static void serve(struct blk_request *r)
{
    int end;

    if (FAULT("disk-request")) {
        r->type = REQ_IN;
        r->io.op = DISK_READ;
        fail(r, EIO);
        return;
    }
    end = begin(r);
    if (end != SUBMITTED)
        blk_end(r, (enum blk_end)end);
}

/* What is wrong with the next chain; NULL and *got false: there is none. A driver that offers more
 * than its ring holds offers chains again that it did not get back. */
static const char *next_chain(struct blk_request *r, unsigned queue, bool *got)
{
    struct blk *b = r->b;
    int head = virtio_held(&b->v) ? -1 : blk_take_again(b);

    if (head >= 0) {
        *got = virtio_again(&b->v, queue, (uint16_t)head, &r->c) > 0;
    } else {
        *got = virtio_pop(&b->v, queue, &r->c) > 0;
        if (*got && atomic_fetch_add(&b->outstanding, 1) >= VIRTIO_QUEUE_SIZE)
            return "more requests than its ring holds";
    }
    if (*got &&
        (r->c.out_len < sizeof(struct request) || r->c.in_len < 1 || r->c.in_len > UINT32_MAX))
        return "a request without header or status";
    return NULL;
}

/* A driver that does one request after the other asks for the next one within microseconds: to
 * sleep and be woken takes longer than that. With nothing else to do the disk's thread looks out
 * for it, as long as that turns out well: each time that nothing comes halves the luck, and without
 * luck it is only noted whether the next one would have been in time. */
static void await_next(struct blk *b, unsigned queue)
{
    uint64_t until = b->idle_ns + AWAIT_NS;
    bool came = virtio_waiting(&b->v, queue), look = b->luck > 0 && !came;

    if (look)
        virtio_quiet(&b->v, queue);
    while (look && !came && !virtio_held(&b->v) && clock_ns() < until) {
        __builtin_ia32_pause();
        came = virtio_waiting(&b->v, queue);
    }
    if (came && clock_ns() < until)
        b->luck += b->luck < LUCK_MAX;
    else
        b->luck /= 2;
    if (came || look)
        b->idle_ns = 0;
}

void blk_work(struct virtio *v, unsigned queue)
{
    struct blk *b = blk_of(v);
    const char *wrong = NULL;
    bool got = true;
    unsigned n = 0;

    if (b->idle_ns != 0)
        await_next(b, queue);
    for (; got && wrong == NULL && n < VIRTIO_QUEUE_SIZE; n++) {
        struct blk_request *r = take_request(b);

        wrong = next_chain(r, queue, &got);
        if (got && wrong == NULL)
            serve(r);
        else
            put_request(b, r);
    }
    if (b->network)
        submit_batch(b);
    if (wrong != NULL)
        virtio_broken(v, "%s", wrong);
    else if (got)
        virtio_kick(v, queue); /* the disk's thread has other things to do, too */
}

/* ---- the flush of a pause ---- */

static void flush_done(struct disk_io *io, int error)
{
    struct blk *b = io->arg;

    pthread_mutex_lock(&b->lock);
    b->flushing = false;
    b->flush_error = error;
    pthread_cond_broadcast(&b->cond);
    pthread_mutex_unlock(&b->lock);
    if (b->network)
        virtio_async_end(&b->v, 1);
}

/* Of a network disk it may take longer than the pause has time: then it stays in flight. */
static bool flush_ended(struct blk *b, uint64_t until)
{
    struct timespec ts = { (time_t)(until / NS_PER_S), (long)(until % NS_PER_S) };
    bool ended;
    int r = 0;

    pthread_mutex_lock(&b->lock);
    while (b->flushing && r != ETIMEDOUT)
        r = pthread_cond_clockwait(&b->cond, &b->lock, CLOCK_MONOTONIC, &ts);
    ended = !b->flushing;
    pthread_mutex_unlock(&b->lock);
    return ended;
}

void blk_flush_for_pause(struct blk *b)
{
    struct machine *m = b->v.d.m;
    uint64_t until = machine_drain_until(m);

    if (b->disk == NULL || b->read_only)
        return;
    if (b->network && (until == 0 || machine_suspended(m) || !atomic_load(&b->unflushed)))
        return;
    atomic_store(&b->unflushed, false);
    b->flush_error = 0;
    b->flushing = true;
    b->flush_io = (struct disk_io){ .op = DISK_FLUSH, .done = flush_done, .arg = b };
    if (b->network)
        virtio_async_begin(&b->v);
    disk_submit(b->disk, &b->flush_io);
    if (!flush_ended(b, until)) {
        machine_not_drained(m, b->v.name);
        return;
    }
    if (b->flush_error == 0 && !FAULT("disk-flush"))
        return;
    if (b->flush_error == ECANCELED) { /* the lease gave it up: nothing is lost */
        atomic_store(&b->unflushed, true);
        machine_not_flushed(m, b->v.name);
        return;
    }
    blk_log_error(b, "flush before a pause", b->flush_error != 0 ? b->flush_error : EIO);
    atomic_store(&b->unflushed, true);
    atomic_store(&b->lost_writes, true);
    machine_not_flushed(m, b->v.name);
}
