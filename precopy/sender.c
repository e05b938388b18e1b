/* SPDX-License-Identifier: ISC */
/*
 * A thread's life: wait for a new round number, write its share, write the end mark,
 * report, wait again. The first failure is kept and aborts all channels, so that the
 * other threads do not stay in a write to a peer that is gone.
 */
#define _GNU_SOURCE
#include "precopy/sender.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "precopy/pages.h"
#include "transport/digest.h"

struct channel {
    struct sender *s;
    struct tr_conn *conn;
    pthread_t thread;
    struct pages_writer w; /* the thread's own, counters apart */
};

struct sender {
    unsigned channels; /* these only written by sender_new */
    const struct hv_layout *layout;
    struct channel *ch;
    _Atomic uint64_t *again;
    unsigned started; /* threads that run */

    atomic_bool stop;

    pthread_mutex_t lock; /* all below */
    pthread_cond_t go, done;
    uint64_t turn; /* counts rounds begun */
    struct pages_round round;
    bool last, quit, failed;
    unsigned busy;
    struct err err;
};

static int port_writev(void *ctx, const struct iovec *iov, int n, struct err *e)
{
    return tr_writev(ctx, iov, n, e);
}

static int port_readv(void *ctx, const struct iovec *iov, int n, struct err *e)
{
    return tr_readv(ctx, iov, n, e);
}

static int send_share(struct channel *c, const struct pages_round *r, bool last, struct err *e)
{
    if (pages_write_round(&c->w, r, e) < 0 ||
        pages_write_mark(&c->w, FRAME_ROUND_END, r->number, e) < 0)
        return -1;
    return last ? pages_write_mark(&c->w, FRAME_END, r->number, e) : 0;
}

/* Called with the lock. */
static void fail(struct sender *s, const struct channel *c, const struct err *e)
{
    if (s->failed)
        return;
    s->failed = true;
    s->err = *e;
    err_prefix(&s->err, "data channel %u", c->w.channel);
    atomic_store(&s->stop, true);
    for (unsigned i = 0; i < s->channels; i++)
        tr_abort(s->ch[i].conn);
}

static void *run(void *arg)
{
    struct channel *c = arg;
    struct sender *s = c->s;
    uint64_t seen = 0;

    pthread_mutex_lock(&s->lock);
    for (;;) {
        struct pages_round r;
        struct err e = { 0 };
        bool last;
        int rc;

        while (s->turn == seen && !s->quit)
            pthread_cond_wait(&s->go, &s->lock);
        if (s->quit)
            break;
        seen = s->turn;
        r = s->round;
        last = s->last;
        pthread_mutex_unlock(&s->lock);
        rc = send_share(c, &r, last, &e);
        pthread_mutex_lock(&s->lock);
        if (rc < 0)
            fail(s, c, &e);
        if (--s->busy == 0 || s->failed)
            pthread_cond_broadcast(&s->done);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void init_locks(struct sender *s)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->go, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->done, &attr);
    pthread_condattr_destroy(&attr);
}

static int prepare(struct sender *s, unsigned i, const struct hv_ops *ops, struct hv_mig *mig,
    const struct pages_encode *how, struct err *e)
{
    struct pages_encode part = { how->compress, how->cache_bytes / s->channels, how->measure };
    struct channel *c = &s->ch[i];

    c->s = s;
    c->w.ops = ops;
    c->w.mig = mig;
    c->w.layout = s->layout;
    c->w.port = (struct pages_port){ port_writev, port_readv, c->conn };
    c->w.channel = i + 1;
    c->w.channels = s->channels;
    return pages_writer_encode(&c->w, &part, e);
}

struct sender *sender_new(const struct hv_ops *ops, struct hv_mig *mig,
    const struct hv_layout *layout, struct tr_conn *const *conn, unsigned channels,
    const struct pages_encode *how, struct err *e)
{
    struct sender *s = calloc(1, sizeof *s);

    if (s != NULL) {
        init_locks(s);
        s->channels = channels;
        s->layout = layout;
        s->ch = calloc(channels, sizeof *s->ch);
        s->again = calloc(HV_BITMAP_WORDS(layout->max_gfn), sizeof *s->again);
    }
    if (s == NULL || s->ch == NULL || s->again == NULL) {
        err_set(e, ERR_MEMORY, "out of memory for %u data channels", channels);
        sender_free(&s);
        return NULL;
    }
    for (unsigned i = 0; i < channels; i++) {
        s->ch[i].conn = conn[i];
        if (prepare(s, i, ops, mig, how, e) < 0) {
            sender_free(&s);
            return NULL;
        }
    }
    for (; s->started < channels; s->started++) {
        struct channel *c = &s->ch[s->started];
        int r = pthread_create(&c->thread, NULL, run, c);

        if (r != 0) {
            err_set(e, ERR_SYSTEM, "cannot start a thread: %s", strerror(r));
            sender_free(&s);
            return NULL;
        }
    }
    return s;
}

void sender_free(struct sender **sp)
{
    struct sender *s = *sp;

    if (s == NULL)
        return;
    *sp = NULL;
    atomic_store(&s->stop, true);
    pthread_mutex_lock(&s->lock);
    s->quit = true;
    if (s->busy > 0)
        for (unsigned i = 0; i < s->channels; i++)
            tr_abort(s->ch[i].conn);
    pthread_cond_broadcast(&s->go);
    pthread_mutex_unlock(&s->lock);
    for (unsigned i = 0; i < s->started; i++)
        pthread_join(s->ch[i].thread, NULL);
    for (unsigned i = 0; s->ch != NULL && i < s->channels; i++)
        pages_writer_free(&s->ch[i].w);
    pthread_cond_destroy(&s->go);
    pthread_cond_destroy(&s->done);
    pthread_mutex_destroy(&s->lock);
    free(s->ch);
    free(s->again);
    free(s);
}

void sender_start(struct sender *s, const uint64_t *bitmap, uint32_t round, bool live, bool last)
{
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < HV_BITMAP_WORDS(s->layout->max_gfn); i++)
        atomic_store_explicit(&s->again[i], 0, memory_order_relaxed);
    s->round = (struct pages_round){ .number = round,
        .live = live,
        .bitmap = bitmap,
        .again = live ? s->again : NULL,
        .stop = &s->stop };
    s->last = last;
    s->busy = s->channels;
    s->turn++;
    pthread_cond_broadcast(&s->go);
    pthread_mutex_unlock(&s->lock);
}

void sender_again(struct sender *s, const uint64_t *bitmap)
{
    for (size_t i = 0; i < HV_BITMAP_WORDS(s->layout->max_gfn); i++)
        if (bitmap[i] != 0)
            atomic_store_explicit(&s->again[i], bitmap[i], memory_order_relaxed);
}

static struct timespec in_ms(unsigned ms)
{
    uint64_t at = clock_ns() + ms * NS_PER_MS;

    return (struct timespec){ (time_t)(at / NS_PER_S), (long)(at % NS_PER_S) };
}

int sender_wait(struct sender *s, unsigned wait_ms, struct err *e)
{
    struct timespec ts = in_ms(wait_ms);
    int r = 0;

    pthread_mutex_lock(&s->lock);
    while (s->busy > 0 && !s->failed && r != ETIMEDOUT)
        r = pthread_cond_timedwait(&s->done, &s->lock, &ts);
    r = s->failed ? -1 : s->busy == 0;
    if (r < 0 && e != NULL)
        *e = s->err;
    pthread_mutex_unlock(&s->lock);
    return r;
}

void sender_count(const struct sender *s, struct pages_total *out)
{
    memset(out, 0, sizeof *out);
    for (unsigned i = 0; i < s->channels; i++)
        pages_total_add(out, &s->ch[i].w.count);
}

uint64_t sender_digest(const struct sender *s)
{
    uint64_t of[TR_CHANNELS_MAX];

    for (unsigned i = 0; i < s->channels; i++)
        of[i] = s->ch[i].w.fold;
    return tr_digest_fold(of, s->channels);
}
