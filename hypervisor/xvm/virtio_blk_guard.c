/* SPDX-License-Identifier: ISC */
/*
 * The guard of a disk: what happens when requests fail, when the server is gone, and when
 * the lease is not sure.
 *
 *   what                       report            stop                        ignore
 *   request fails              guest gets it     kept, guest stops           guest is told OK
 *   no answer (DISK_LOST)      waits             waits                       waits
 *   ... for io_timeout_ms      all get errors    guest stops, they wait on   all are told OK
 *   lease unsure               the guest stops, whatever the policy; new requests (of files:
 *                              writes) are kept; what is in flight may be given up by the
 *                              lease: it is kept, too
 *   lease lost                 the same, for good
 *   fuse blown                 the machine stops the guest (fuse.h); all requests (of files:
 *                              writes) are kept, those in flight on the network are given up,
 *                              until the guest runs again
 *
 * The default is report for files and stop for network disks: a server that is away for a
 * while must not make a guest's file system read-only. A flush that fails on a file, or tells of
 * lost writes (DISK_WRITES_LOST), is reported even with stop: that is told once only, and doing
 * it again would look like success. Reads that are ignored give zeroes.
 *
 * A guest that stopped goes on by itself when the server answers (DISK_BACK) or the lease is
 * sure again; after a failed request it waits for an unpause. Paused in that
 * state (by an operator or a migration), what is in flight is given up by disk_abort, so
 * that nothing of it can arrive later, and kept; the next start, here or on another host, does
 * it again.
 *
 * Threads. One of ours per network disk or lease waits for what is due: the policy's time
 * of the oldest request, or (a lease tells when it becomes sure, but not each time that it was
 * late by a moment) the next look at the lease. The callbacks of disk and lease only take
 * note and wake it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "hypervisor/xvm/virtio_blk_internal.h"

#define LEASE_LOOK_MS 20
#define FAIL_AGAIN_MS 1000 /* report and ignore: time of a request while the server stays away */

/* ---- telling the machine; all with `lock` held ---- */

static bool stops(const struct blk *b)
{
    return b->policy == MIGRD__ON_IO_ERROR__IO_STOP;
}

static void update_hold(struct blk *b)
{
    struct machine *m = b->v.d.m;

    if (b->lease_lost)
        machine_suspend(m, &b->hold, HOLD_LOST, b->why_unsure);
    else if (b->failed) /* the others end by themselves */
        machine_suspend(m, &b->hold, HOLD_RETRY, b->why_failed);
    else if (b->unsure)
        machine_suspend(m, &b->hold, HOLD_WAIT, b->why_unsure);
    else if (b->stalled)
        machine_suspend(m, &b->hold, HOLD_WAIT, b->why_stalled);
    else
        machine_unsuspend(m, &b->hold);
}

static void keep(struct blk *b, uint16_t head)
{
    b->kept[b->n_kept++] = head;
}

/* Returns whether there is something for the workers, who must be told without the lock. */
static bool release_kept(struct blk *b)
{
    unsigned n = atomic_load(&b->n_again);

    for (unsigned i = 0; i < b->n_kept; i++)
        b->again[n++] = b->kept[i];
    b->n_kept = 0;
    atomic_store(&b->n_again, n);
    return n > 0;
}

/* ---- requests ---- */

void blk_log_error(struct blk *b, const char *what, int error)
{
    bool first;

    pthread_mutex_lock(&b->lock);
    first = !b->error_logged;
    b->error_logged = true;
    pthread_mutex_unlock(&b->lock);
    if (first)
        log_error("xvm", "%s: disk %s (%s): %s: %s", b->v.name, b->device, b->source, what,
            strerror(error));
}

static const char *op_name(enum disk_op op)
{
    static const char *const names[] = { [DISK_READ] = "read",
        [DISK_WRITE] = "write",
        [DISK_FLUSH] = "flush",
        [DISK_DISCARD] = "discard",
        [DISK_ZEROES] = "write of zeroes" };
    _Static_assert(sizeof names / sizeof names[0] == DISK_OP_MAX, "name every operation");

    return names[op];
}

/* The guest stops, and what is kept is done again, once the lease is sure. With `lock` held. */
static void wait_for_lease(struct blk *b)
{
    if (!b->unsure && !b->lease_lost)
        snprintf(b->why_unsure, sizeof b->why_unsure,
            "disk %.20s: its lease cannot be renewed, so another host may have it; the guest "
            "goes on when it can",
            b->device);
    b->unsure = true;
    update_hold(b);
    pthread_cond_broadcast(&b->cond);
}

/* Given up by one of us; the gravest reason counts. If it was none, the lease did it. With `lock`
 * held. */
static enum blk_end judge_cancelled(struct blk *b, const struct blk_request *r)
{
    if (b->dropping > 0)
        return BLK_DROPPED;
    if (b->keeping == 0 && b->failing == 0 && !machine_may_write(b->v.d.m)) {
        keep(b, r->c.head);
        return BLK_KEPT;
    }
    if (b->keeping == 0 && b->failing == 0 && b->lease != NULL && !b->lease_lost)
        wait_for_lease(b);
    if (b->keeping > 0 || b->failing == 0 || b->lease_lost || stops(b)) {
        keep(b, r->c.head);
        return BLK_KEPT;
    }
    return b->policy == MIGRD__ON_IO_ERROR__IO_IGNORE ? BLK_OK : BLK_IOERR;
}

/* With `lock` held. */
static enum blk_end judge_failed(struct blk *b, const struct blk_request *r, int error)
{
    bool lost_for_good = r->io.op == DISK_FLUSH && (!b->network || error == DISK_WRITES_LOST);

    if (b->lease_lost || (stops(b) && !lost_for_good)) {
        keep(b, r->c.head);
        b->failed = true;
        snprintf(b->why_failed, sizeof b->why_failed,
            "disk %.20s: %s failed: %.60s; unpause tries again", b->device, op_name(r->io.op),
            strerror(error));
        update_hold(b);
        return BLK_KEPT;
    }
    return b->policy == MIGRD__ON_IO_ERROR__IO_IGNORE ? BLK_OK : BLK_IOERR;
}

enum blk_end blk_judge(struct blk_request *r, int error)
{
    struct blk *b = r->b;
    enum blk_end end;
    char what[64];

    if (error == EOPNOTSUPP && r->io.op == DISK_DISCARD)
        return BLK_OK; /* it is advice */
    if (error == EOPNOTSUPP && r->io.op == DISK_ZEROES)
        return BLK_UNSUPP;
    if (error != ECANCELED) {
        snprintf(what, sizeof what, "%s at sector %llu", op_name(r->io.op),
            (unsigned long long)r->io.offset / BLK_SECTOR);
        blk_log_error(b, what, error);
    }
    pthread_mutex_lock(&b->lock);
    end = error == ECANCELED ? judge_cancelled(b, r) : judge_failed(b, r, error);
    pthread_mutex_unlock(&b->lock);
    return end;
}

bool blk_may_submit(struct blk_request *r)
{
    struct blk *b = r->b;
    bool sure = b->lease == NULL || lease_sure(b->lease), may = machine_may_write(b->v.d.m);

    if (sure && may)
        return true;
    pthread_mutex_lock(&b->lock);
    /* The same for the fuse: what is kept with its hold on is released when that has ended. */
    may = machine_may_write(b->v.d.m);
    if (!may)
        keep(b, r->c.head);
    if (sure || !may) {
        pthread_mutex_unlock(&b->lock);
        return may;
    }
    /* Looked at again: whoever made it sure meanwhile has released what was kept by then. */
    sure = !b->lease_lost && lease_sure(b->lease);
    if (!sure) {
        keep(b, r->c.head);
        wait_for_lease(b);
    }
    pthread_mutex_unlock(&b->lock);
    return sure;
}

int blk_take_again(struct blk *b)
{
    int head = -1;
    unsigned n;

    if (atomic_load_explicit(&b->n_again, memory_order_relaxed) == 0)
        return -1;
    pthread_mutex_lock(&b->lock);
    n = atomic_load(&b->n_again);
    if (n > 0) {
        head = b->again[0];
        memmove(b->again, b->again + 1, (n - 1) * sizeof b->again[0]);
        atomic_store(&b->n_again, n - 1);
    }
    pthread_mutex_unlock(&b->lock);
    if (n > 1)
        virtio_kick(&b->v, 0);
    return head;
}

void blk_redo(struct blk *b, bool failed)
{
    bool work;

    pthread_mutex_lock(&b->lock);
    if (failed) {
        b->failed = b->error_logged = false;
        update_hold(b);
    }
    work = !b->failed && !b->unsure && !b->lease_lost && release_kept(b);
    pthread_mutex_unlock(&b->lock);
    if (work)
        virtio_kick(&b->v, 0);
}

void blk_forget(struct blk *b)
{
    pthread_mutex_lock(&b->lock);
    b->n_kept = 0;
    b->failed = b->unsure = b->stalled = false;
    atomic_store(&b->n_again, 0);
    atomic_store(&b->outstanding, 0);
    update_hold(b);
    pthread_mutex_unlock(&b->lock);
}

void blk_lease_anew(struct blk *b)
{
    pthread_mutex_lock(&b->lock);
    b->lease_lost = b->unsure = false;
    update_hold(b);
    pthread_mutex_unlock(&b->lock);
}

/* ---- giving up ---- */

/* `reason` is one of dropping, keeping, failing. */
static void abort_disk(struct blk *b, unsigned *reason)
{
    pthread_mutex_lock(&b->abort_lock);
    pthread_mutex_lock(&b->lock);
    ++*reason;
    pthread_mutex_unlock(&b->lock);
    disk_abort(b->disk);
    pthread_mutex_lock(&b->lock);
    --*reason;
    pthread_mutex_unlock(&b->lock);
    pthread_mutex_unlock(&b->abort_lock);
}

void blk_abandon(struct virtio *v, bool keep_them)
{
    struct blk *b = blk_of(v);

    abort_disk(b, keep_them ? &b->keeping : &b->dropping);
}

/* ---- the disk's and the lease's word ---- */

bool blk_may_send(void *arg)
{
    struct blk *b = arg;

    return machine_may_write(b->v.d.m);
}

void blk_disk_event(void *arg, enum disk_event ev, const char *text)
{
    struct blk *b = arg;

    if (ev == DISK_BACK)
        log_info("xvm", "%s: %s", b->v.name, text);
    else
        log_warn("xvm", "%s: %s", b->v.name, text);
    pthread_mutex_lock(&b->lock);
    b->lost = ev == DISK_LOST;
    if (!b->lost)
        b->stalled = b->gave_up = false;
    update_hold(b);
    pthread_cond_broadcast(&b->cond);
    pthread_mutex_unlock(&b->lock);
}

void blk_lease_sure(void *arg, bool sure, const char *text)
{
    struct blk *b = arg;

    if (sure)
        log_info("xvm", "%s: %s", b->v.name, text);
    else
        log_warn("xvm", "%s: %s", b->v.name, text);
    pthread_mutex_lock(&b->lock);
    if (!sure && !b->lease_lost)
        wait_for_lease(b); /* also a guest that does not write: another host may run it by now */
    pthread_cond_broadcast(&b->cond);
    pthread_mutex_unlock(&b->lock);
}

/* Of a copy that stands still this is what is to be expected: the guest runs elsewhere. */
void blk_lease_lost(void *arg, const char *text)
{
    struct blk *b = arg;

    if (machine_paused(b->v.d.m))
        log_info("xvm", "%s: %s", b->v.name, text);
    else
        log_error("xvm", "%s: %s; this copy of the guest stops, and can only be destroyed",
            b->v.name, text);
    pthread_mutex_lock(&b->lock);
    b->lease_lost = true;
    snprintf(b->why_unsure, sizeof b->why_unsure,
        "disk %.20s: its lease is another host's; this copy of the guest can only be destroyed",
        b->device);
    update_hold(b);
    pthread_mutex_unlock(&b->lock);
}

/* ---- our own thread; all with `lock` held ---- */

/* The oldest request has waited for as long as it may. Returns when to look again, 0 when told. */
static uint64_t overdue(struct blk *b, uint64_t now)
{
    if (stops(b)) {
        if (!b->stalled)
            log_error("xvm",
                "%s: disk %s (%s): no answer for %u ms: the guest stops until there is", b->v.name,
                b->device, b->source, b->io_timeout_ms);
        b->stalled = true;
        snprintf(b->why_stalled, sizeof b->why_stalled,
            "disk %.20s: its server has not answered for %u ms; the guest goes on when it does",
            b->device, b->io_timeout_ms);
        update_hold(b);
        return 0;
    }
    if (!b->gave_up)
        log_error("xvm", "%s: disk %s (%s): no answer for %u ms: the guest %s", b->v.name,
            b->device, b->source, b->io_timeout_ms,
            b->policy == MIGRD__ON_IO_ERROR__IO_IGNORE ? "is told that all went well"
                                                       : "gets I/O errors");
    b->gave_up = true;
    pthread_mutex_unlock(&b->lock);
    abort_disk(b, &b->failing);
    pthread_mutex_lock(&b->lock);
    return now; /* look again, see below */
}

static uint64_t look_at_server(struct blk *b)
{
    uint64_t now = clock_ns(), due;

    if (!b->lost || b->active == NULL || b->stalled)
        return 0;
    due = b->active->began_ns + (b->gave_up ? FAIL_AGAIN_MS : b->io_timeout_ms) * NS_PER_MS;
    return due > now ? due : overdue(b, now);
}

static uint64_t look_at_lease(struct blk *b)
{
    bool work;

    if (!b->unsure || b->lease_lost)
        return 0;
    if (!lease_sure(b->lease))
        return clock_ns() + LEASE_LOOK_MS * NS_PER_MS;
    b->unsure = false;
    update_hold(b);
    work = !b->failed && release_kept(b);
    pthread_mutex_unlock(&b->lock);
    if (work)
        virtio_kick(&b->v, 0);
    pthread_mutex_lock(&b->lock);
    return clock_ns(); /* look again: what was told in between may have been missed */
}

static void *guard_main(void *arg)
{
    struct blk *b = arg;

    pthread_mutex_lock(&b->lock);
    while (!b->stop) {
        uint64_t lease = look_at_lease(b), server = look_at_server(b);
        uint64_t due = lease == 0 || (server != 0 && server < lease) ? server : lease;
        struct timespec ts = { (time_t)(due / NS_PER_S), (long)(due % NS_PER_S) };

        if (b->stop)
            break;
        if (due != 0)
            pthread_cond_clockwait(&b->cond, &b->lock, CLOCK_MONOTONIC, &ts);
        else
            pthread_cond_wait(&b->cond, &b->lock);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

int blk_guard_start(struct blk *b, struct err *e)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&b->guard, NULL, guard_main, b);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    b->has_guard = rc == 0;
    if (rc != 0)
        return err_set(e, ERR_RESOURCE, "%s: no thread: %s", b->v.name, strerror(rc));
    return 0;
}

void blk_guard_stop(struct blk *b)
{
    if (!b->has_guard)
        return;
    pthread_mutex_lock(&b->lock);
    b->stop = true;
    pthread_cond_broadcast(&b->cond);
    pthread_mutex_unlock(&b->lock);
    pthread_join(b->guard, NULL);
    b->has_guard = false;
}
