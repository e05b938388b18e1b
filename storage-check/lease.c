/* SPDX-License-Identifier: ISC */
/*
 * The front of a lease: its states, its thread, its clock.
 *
 *   state      TAKEN   RENEWED  LATE    FOREIGN  RELEASED
 *   PREPARED   HELD    -        -       -        RELEASED     opened, nothing claimed
 *   HELD       HELD    -        UNSURE  LOST     RELEASED     renewed less than valid_ms ago
 *   UNSURE     HELD    HELD     -       LOST     RELEASED     nobody knows; still ours if nobody
 * took it LOST       HELD    -        -       -        RELEASED     another owner has it; only
 * lease_take under a newer epoch leads out RELEASED   -       -        -       -        - being
 * closed
 *
 * TAKEN comes from lease_take, LATE from the clock, RENEWED and FOREIGN from what the storage says,
 * RELEASED from lease_close. "-": nothing changes.
 *
 * Yielded (lease_yield) is no state of its own: the lease is held, is renewed so, and its
 * record says that a newer epoch may take it from a living holder on an operator's word.
 *
 * Time. A renewal counts from before its first request was sent, and lasts for valid_ms by this
 * host's own clock. No host compares its clock with another's, nor with the storage's: who wants a
 * lease that is not given up watches it for valid_ms and a fifth more by its own clock, and two
 * clocks that run so differently that this is too short do not exist. The clock goes on while the
 * host is suspended; while this process is stopped (SIGSTOP), too, so the first look afterwards
 * says "not sure". What remains is a process that is stopped between that look and the write: there
 * only the storage can help (lease_fence).
 *
 * Renewals are tried every valid_ms / 5, each for at most valid_ms / 3, so that one lost
 * answer does not make the lease unsure, and a connection that is silently dead is given up
 * while there is still time to make a new one.
 *
 * In flight. At LOST the disk's connections are destroyed (disk_abort), so that nothing of ours
 * that waits in a buffer gets through later; where the storage enforces nothing, at UNSURE as well:
 * a host that is cut off must not send its old writes when the cable is back and the lease
 * is another's. The guest's requests end with ECANCELED then, and are to be done again when the
 * lease is sure again.
 *
 * Threads. One per lease, from lease_prepare on. `io` is held around calls of the storage,
 * `lock` around the state; `io` is taken first. The callbacks are called from the thread without a
 * lock held, in the order in which things happened; they must not call lease_take or lease_close.
 */
#include "storage-check/lease_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/fault.h"

#define CHANCES 3u  /* of a renewal within valid_ms */
#define BUSY_MS 20u /* until the next look, while lease_take runs */

static const enum lease_state table[LS_MAX][LH_MAX] = {
    [LS_PREPARED] = { LS_HELD, LS_PREPARED, LS_PREPARED, LS_PREPARED, LS_RELEASED },
    [LS_HELD] = { LS_HELD, LS_HELD, LS_UNSURE, LS_LOST, LS_RELEASED },
    [LS_UNSURE] = { LS_HELD, LS_HELD, LS_UNSURE, LS_LOST, LS_RELEASED },
    [LS_LOST] = { LS_HELD, LS_LOST, LS_LOST, LS_LOST, LS_RELEASED },
    [LS_RELEASED] = { LS_RELEASED, LS_RELEASED, LS_RELEASED, LS_RELEASED, LS_RELEASED },
};

enum lease_state lease_next(enum lease_state s, enum lease_happened h)
{
    return table[s][h];
}

const char *lease_state_name(enum lease_state s)
{
    static const char *const names[LS_MAX] = { "prepared", "held", "unsure", "lost", "released" };

    return names[s];
}

uint64_t lease_random(void)
{
    uint64_t n = 0;

    while (n == 0)
        if (getrandom(&n, sizeof n, 0) != (ssize_t)sizeof n)
            n = lease_clock() ^ (uintptr_t)&n; /* different enough from another process's */
    return n;
}

struct lease_bid lease_bid_of(const struct lease *l, uint64_t epoch, enum lease_claim claim)
{
    return (struct lease_bid){ .owner = l->owner,
        .uuid = l->uuid,
        .who = lease_who_here(),
        .epoch = epoch,
        .nonce = l->nonce,
        .claim = claim };
}

void lease_set_fence(struct lease *l, const char *fence, const char *fmt, ...)
{
    va_list ap;

    pthread_mutex_lock(&l->lock);
    snprintf(l->fence, sizeof l->fence, "%s", fence);
    va_start(ap, fmt);
    vsnprintf(l->note, sizeof l->note, fmt, ap);
    va_end(ap);
    pthread_mutex_unlock(&l->lock);
}

void lease_hurry(struct lease *l)
{
    pthread_mutex_lock(&l->lock);
    l->hurry = true;
    pthread_cond_broadcast(&l->wake);
    pthread_mutex_unlock(&l->lock);
}

static void wait_until(struct lease *l, uint64_t ns)
{
    /* The condition's clock stops while the host is suspended; what is late then is late anyway,
     * and lease_sure does not depend on this. */
    uint64_t now = lease_clock(), at = clock_ns() + (ns > now ? ns - now : 0);
    struct timespec ts = { .tv_sec = (time_t)(at / NS_PER_S), .tv_nsec = (long)(at % NS_PER_S) };

    pthread_cond_timedwait(&l->wake, &l->lock, &ts);
}

int lease_pause(struct lease *l, uint64_t ns, struct err *e)
{
    uint64_t until = lease_clock() + ns;

    pthread_mutex_lock(&l->lock);
    while (!atomic_load(&l->stop) && lease_clock() < until)
        wait_until(l, until);
    pthread_mutex_unlock(&l->lock);
    l->deadline_ns += ns;
    return atomic_load(&l->stop) ? err_set(e, ERR_CANCELLED, "disk %s: lease is closed", l->source)
                                 : 0;
}

/* ---- the thread */

static bool renews(const struct lease *l)
{
    return l->state == LS_HELD || l->state == LS_UNSURE;
}

static void no_writes(struct lease *l, bool lost)
{
    bool fenced;

    pthread_mutex_lock(&l->lock);
    fenced = l->fence[0] != '\0';
    pthread_mutex_unlock(&l->lock);
    if (l->disk != NULL && (lost || !fenced))
        disk_abort(l->disk);
}

static void become_late(struct lease *l, const char *why)
{
    char text[600];

    snprintf(text, sizeof text, "disk %s: its lease was not renewed for %" PRIu32 " ms: %s",
        l->source, l->valid_ms, why[0] != '\0' ? why : "the storage does not answer");
    l->state = lease_next(l->state, LH_LATE);
    l->told_unsure = true;
    pthread_mutex_unlock(&l->lock);
    no_writes(l, false);
    if (l->sure != NULL)
        l->sure(l->arg, false, text);
    pthread_mutex_lock(&l->lock);
}

static void become_lost(struct lease *l, const char *why)
{
    l->state = lease_next(l->state, LH_FOREIGN);
    atomic_store(&l->sure_until, 0);
    pthread_mutex_unlock(&l->lock);
    no_writes(l, true);
    if (l->lost != NULL)
        l->lost(l->arg, why);
    pthread_mutex_lock(&l->lock);
}

static void become_renewed(struct lease *l, uint64_t since)
{
    char text[500];
    bool tell = l->told_unsure && l->sure != NULL;

    atomic_store(&l->sure_until, since + l->valid_ms * NS_PER_MS);
    l->state = lease_next(l->state, LH_RENEWED);
    l->told_unsure = false;
    if (!tell)
        return;
    snprintf(text, sizeof text, "disk %s: its lease is renewed, nobody else took it", l->source);
    pthread_mutex_unlock(&l->lock);
    l->sure(l->arg, true, text);
    pthread_mutex_lock(&l->lock);
}

static bool is_late(const struct lease *l)
{
    return l->state == LS_HELD && lease_clock() >= atomic_load(&l->sure_until);
}

/* One attempt, not beyond the moment at which the lease becomes unsure. */
static enum lease_seen attempt(struct lease *l, uint64_t *since, struct err *e)
{
    uint64_t limit = l->valid_ms * NS_PER_MS / CHANCES, sure = atomic_load(&l->sure_until);
    enum lease_seen seen;

    *since = lease_clock();
    l->deadline_ns = *since + limit;
    if (sure > *since && sure < l->deadline_ns)
        l->deadline_ns = sure;
    if (FAULT("lease-renew")) {
        err_set(e, ERR_TIMEOUT, "fault lease-renew");
        return LEASE_SEEN_NOTHING;
    }
    seen = l->ops->renew(l, e);
    /* Old news by now: it says nothing about the time to come. */
    if (seen == LEASE_SEEN_OURS && lease_clock() >= *since + l->valid_ms * NS_PER_MS) {
        err_set(e, ERR_TIMEOUT, "the storage's answer took longer than the lease lasts");
        seen = LEASE_SEEN_NOTHING;
    }
    return seen;
}

/* With `lock` held, which is given up meanwhile. False: not now, lease_take is at it; waiting for
 * it here would make us miss the moment at which the lease becomes unsure. */
static bool renew(struct lease *l, char why[500])
{
    struct err e = { .code = ERR_NONE };
    enum lease_seen seen;
    uint64_t since;

    if (pthread_mutex_trylock(&l->io) != 0)
        return false;
    l->hurry = false;
    pthread_mutex_unlock(&l->lock);
    seen = attempt(l, &since, &e);
    pthread_mutex_lock(&l->lock);
    snprintf(why, 500, "%s", seen == LEASE_SEEN_OURS ? "" : e.text);
    /* `io` stays ours, so that nobody hears of a loss after lease_take has made it good. */
    if (!atomic_load(&l->stop) && seen == LEASE_SEEN_OURS)
        become_renewed(l, since);
    else if (!atomic_load(&l->stop) && seen == LEASE_SEEN_FOREIGN)
        become_lost(l, e.text);
    pthread_mutex_unlock(&l->io);
    return true;
}

static void *thread_main(void *arg)
{
    struct lease *l = arg;
    uint64_t period = l->valid_ms * NS_PER_MS / 5, next = 0;
    char why[500] = "";

    pthread_mutex_lock(&l->lock);
    while (!atomic_load(&l->stop)) {
        if (is_late(l))
            become_late(l, why);
        else if (!renews(l)) {
            next = 0;
            pthread_cond_wait(&l->wake, &l->lock);
        } else if (l->hurry || lease_clock() >= next) {
            uint64_t now = lease_clock();

            if (renew(l, why)) {
                next = now + period;
            } else {
                l->hurry = false; /* soon is soon enough */
                next = now + BUSY_MS * NS_PER_MS;
            }
        } else {
            uint64_t late = atomic_load(&l->sure_until);

            wait_until(l, l->state == LS_HELD && late < next ? late : next);
        }
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---- from outside */

static int copy_options(struct lease *l, const struct disk_options *o)
{
    struct disk_options *to = &l->options;

    *to = *o;
    to->event = NULL;
    to->event_arg = NULL;
    to->host = strdup(o->host != NULL ? o->host : "");
    to->initiator = strdup(o->initiator != NULL ? o->initiator : "");
    to->secrets = strdup(o->secrets != NULL ? o->secrets : "");
    if (to->timeout_ms == 0)
        to->timeout_ms = DISK_TIMEOUT_MS;
    return to->host == NULL || to->initiator == NULL || to->secrets == NULL ? -1 : 0;
}

static void lease_free(struct lease *l)
{
    free((char *)l->options.host);
    free((char *)l->options.initiator);
    free((char *)l->options.secrets);
    free(l->source);
    pthread_mutex_destroy(&l->io);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->wake);
    free(l);
}

static void locks_init(struct lease *l)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&l->io, NULL);
    pthread_mutex_init(&l->lock, NULL);
}

static int check_wish(const struct lease *l, const struct lease_wish *w, struct err *e)
{
    const struct lease_note n = { .nonce = 1, .valid_ms = l->valid_ms };
    struct lease_note named = n;

    snprintf(named.r.owner, sizeof named.r.owner, "%s", l->owner);
    snprintf(named.r.uuid, sizeof named.r.uuid, "%s", l->uuid);
    named.r.epoch = w->epoch;
    if (w->options->read_only)
        return err_set(e, ERR_INVALID, "disk %s: a read-only disk needs no lease", w->source);
    if (strlen(w->options->host != NULL ? w->options->host : "") >= LEASE_OWNER_MAX ||
        !lease_note_ok(&named))
        return err_set(e, ERR_INVALID,
            "disk %s: no lease for host \"%s\", domain \"%s\", epoch %" PRIu64 ", %" PRIu32
            " ms: a host's name has at most %d characters and no blank, times are %u to %u ms",
            w->source, l->owner, l->uuid, w->epoch, l->valid_ms, LEASE_OWNER_MAX - 1,
            LEASE_VALID_MIN_MS, LEASE_VALID_MAX_MS);
    return 0;
}

static const struct lease_ops *ops_of(const struct storage_url *u)
{
    switch (u->kind) {
    case MIGRD__STORAGE_KIND__STORAGE_NFS:
        return &lease_nfs_ops;
    case MIGRD__STORAGE_KIND__STORAGE_ISCSI:
        return &lease_iscsi_ops;
    default:
        return &lease_file_ops;
    }
}

static int lease_fill(struct lease *l, const struct lease_wish *w, struct disk *d, struct err *e)
{
    l->source = strdup(w->source);
    if (l->source == NULL || copy_options(l, w->options) < 0)
        return err_set(e, ERR_MEMORY, "disk %s: no memory for its lease", w->source);
    snprintf(l->owner, sizeof l->owner, "%s", l->options.host);
    snprintf(l->uuid, sizeof l->uuid, "%s", w->uuid);
    l->epoch = w->epoch;
    l->valid_ms = w->valid_ms != 0 ? w->valid_ms : LEASE_VALID_MS;
    l->nfs_uid_base = w->nfs_uid_base;
    l->nonce = lease_random();
    lease_who_here();
    l->disk = d;
    l->lost = w->lost;
    l->sure = w->sure;
    l->arg = w->arg;
    if (check_wish(l, w, e) < 0 || storage_url_parse(w->source, &l->url, e) < 0)
        return -1;
    l->ops = ops_of(&l->url);
    return 0;
}

int lease_prepare(const struct lease_wish *w, struct disk *d, struct lease **out, struct err *e)
{
    struct lease *l = calloc(1, sizeof *l);
    int r;

    *out = NULL;
    if (l == NULL)
        return err_set(e, ERR_MEMORY, "disk %s: no memory for its lease", w->source);
    locks_init(l);
    if (lease_fill(l, w, d, e) < 0) {
        lease_free(l);
        return -1;
    }
    l->deadline_ns = lease_clock() + l->options.timeout_ms * NS_PER_MS;
    if (l->ops->open(l, e) < 0) {
        l->ops->close(l);
        lease_free(l);
        return -1;
    }
    r = pthread_create(&l->thread, NULL, thread_main, l);
    if (r != 0) {
        l->ops->close(l);
        lease_free(l);
        errno = r;
        return err_sys(e, "disk %s: thread of its lease", w->source);
    }
    *out = l;
    return 0;
}

static int take(struct lease *l, uint64_t epoch, enum lease_claim claim, struct err *e)
{
    uint64_t since;

    if (epoch == 0 || epoch < l->epoch)
        return err_set(e, ERR_EPOCH,
            "disk %s: lease under epoch %" PRIu64 " asked for, it had %" PRIu64, l->source, epoch,
            l->epoch);
    if (FAULT("lease-take"))
        return err_set(e, ERR_SYSTEM, "fault lease-take");
    l->deadline_ns = lease_clock() + l->options.timeout_ms * NS_PER_MS;
    if (l->ops->take(l, epoch, claim, e) < 0)
        return -1;
    atomic_store(&l->yielded, false);
    /* Taking may have lasted: what counts is a look that begins here. */
    since = lease_clock();
    l->deadline_ns = since + l->options.timeout_ms * NS_PER_MS;
    switch (l->ops->renew(l, e)) {
    case LEASE_SEEN_OURS:
        break;
    case LEASE_SEEN_NOTHING:
        return err_prefix(e, "disk %s: the lease was taken, but cannot be renewed", l->source);
    case LEASE_SEEN_FOREIGN:
        e->code = ERR_EPOCH;
        return -1;
    }
    pthread_mutex_lock(&l->lock);
    atomic_store(&l->sure_until, since + l->valid_ms * NS_PER_MS);
    l->state = lease_next(l->state, LH_TAKEN);
    l->hurry = true; /* the thread tells that it is sure again, if it had told that it is not */
    pthread_cond_broadcast(&l->wake);
    pthread_mutex_unlock(&l->lock);
    return 0;
}

int lease_take(struct lease *l, uint64_t epoch, enum lease_claim claim, struct err *e)
{
    struct err own;
    int r;

    pthread_mutex_lock(&l->io);
    r = take(l, epoch, claim, e != NULL ? e : &own);
    pthread_mutex_unlock(&l->io);
    return r;
}

void lease_drain(struct lease *l)
{
    uint64_t now = lease_clock();

    pthread_mutex_lock(&l->lock);
    while (!atomic_load(&l->stop) && now < l->drained_ns) {
        wait_until(l, l->drained_ns);
        now = lease_clock();
    }
    pthread_mutex_unlock(&l->lock);
}

/* With `io` held. */
static int yield(struct lease *l, bool yielded, struct err *e)
{
    bool before = atomic_load(&l->yielded);

    if (yielded == before)
        return 0;
    l->deadline_ns = lease_clock() + l->options.timeout_ms * NS_PER_MS;
    atomic_store(&l->yielded, yielded);
    switch (l->ops->renew(l, e)) {
    case LEASE_SEEN_OURS:
        return 0;
    case LEASE_SEEN_FOREIGN: /* the thread tells it at its next look */
        e->code = ERR_EPOCH;
        break;
    case LEASE_SEEN_NOTHING:
        break;
    }
    /* Once said it may have arrived: only the storage's own word takes it back. */
    atomic_store(&l->yielded, true);
    return -1;
}

int lease_yield(struct lease *l, bool yielded, struct err *e)
{
    struct err own;
    int r;

    pthread_mutex_lock(&l->io);
    r = yield(l, yielded, e != NULL ? e : &own);
    pthread_mutex_unlock(&l->io);
    return r;
}

bool lease_sure(const struct lease *l)
{
    return !atomic_load(&l->yielded) && lease_clock() < atomic_load(&l->sure_until);
}

const char *lease_fence(const struct lease *l, char *note, size_t len)
{
    /* The mutex is no part of what the lease is. */
    struct lease *w = (struct lease *)l;
    const char *fence = "";

    pthread_mutex_lock(&w->lock);
    if (strcmp(l->fence, "uid") == 0)
        fence = "uid";
    else if (strcmp(l->fence, "reservation") == 0)
        fence = "reservation";
    if (note != NULL && len > 0)
        snprintf(note, len, "%s", l->note);
    pthread_mutex_unlock(&w->lock);
    return fence;
}

static void release(struct lease *l)
{
    struct err e;

    if (FAULT("lease-release"))
        return;
    l->deadline_ns = lease_clock() + l->options.timeout_ms * NS_PER_MS;
    /* What could not be said is found out by whoever watches the record. */
    if (l->ops->renew(l, &e) == LEASE_SEEN_OURS)
        l->ops->release(l, &e);
}

void lease_close(struct lease **lp, bool want_release)
{
    struct lease *l = *lp;
    bool held;

    if (l == NULL)
        return;
    *lp = NULL;
    pthread_mutex_lock(&l->lock);
    held = renews(l);
    l->state = lease_next(l->state, LH_RELEASED);
    atomic_store(&l->sure_until, 0);
    atomic_store(&l->stop, true);
    pthread_cond_broadcast(&l->wake);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    atomic_store(&l->stop, false); /* the calls below shall work */
    if (held && want_release)
        release(l);
    l->ops->close(l);
    lease_free(l);
}

int lease_read(
    const char *source, const struct disk_options *o, struct lease_record *out, struct err *e)
{
    struct storage_url u;

    memset(out, 0, sizeof *out);
    if (storage_url_parse(source, &u, e) < 0)
        return -1;
    switch (u.kind) {
    case MIGRD__STORAGE_KIND__STORAGE_NFS:
        return lease_nfs_read(&u, o, out, e);
    case MIGRD__STORAGE_KIND__STORAGE_ISCSI:
        return lease_iscsi_read(source, o, out, e);
    default:
        return lease_file_read(u.path, out, e);
    }
}

int lease_remove(const char *source, const struct disk_options *o, uint64_t epoch, struct err *e)
{
    struct storage_url u;

    if (storage_url_parse(source, &u, e) < 0)
        return -1;
    switch (u.kind) {
    case MIGRD__STORAGE_KIND__STORAGE_NFS:
        return lease_nfs_remove(&u, o, epoch, e);
    case MIGRD__STORAGE_KIND__STORAGE_ISCSI:
        return lease_iscsi_remove(source, o, epoch, e);
    default:
        return lease_file_remove(u.path, epoch, e);
    }
}
