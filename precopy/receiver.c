/* SPDX-License-Identifier: ISC */
/*
 * A channel must end its rounds in order, 0, 1, 2 and so on; FRAME_END follows the end of the last.
 * Frames carry their round, so a page that comes after its round was ended is refused.
 */
#define _GNU_SOURCE
#include "precopy/receiver.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/io.h"
#include "precopy/pages.h"
#include "transport/digest.h"

struct channel {
    struct receiver *rx;
    struct tr_conn *conn;
    pthread_t thread;
    struct pages_reader r; /* the thread's own, counters apart */
    uint64_t ended;        /* under the lock: rounds that this channel has ended */
    bool pages;            /* under the lock: some came since then */
    bool over;             /* under the lock: FRAME_END came */
};

struct receiver {
    unsigned channels; /* these only written by receiver_new */
    struct channel *ch;
    struct tr_conn *msg;
    unsigned started;

    pthread_mutex_t lock; /* all below, and two fields of each channel */
    pthread_cond_t cond;
    bool failed;
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

/* One frame's effect on the channel; 1 at its end. */
static int note_frame(struct channel *c, enum frame_type type, uint32_t round, struct err *e)
{
    struct receiver *rx = c->rx;
    int r = 0;

    pthread_mutex_lock(&rx->lock);
    if (type == FRAME_END && (c->pages || round + UINT64_C(1) != c->ended)) {
        r = err_set(
            e, ERR_PROTOCOL, "the frames end inside of round %llu", (unsigned long long)c->ended);
    } else if (type == FRAME_END) {
        c->over = true;
        r = 1;
    } else if (round != c->ended) {
        r = err_set(e, ERR_PROTOCOL, "a frame of round %u came in round %llu", round,
            (unsigned long long)c->ended);
    } else if (type == FRAME_ROUND_END) {
        c->ended++;
    }
    c->pages = type == FRAME_PAGES;
    if (type != FRAME_PAGES)
        pthread_cond_broadcast(&rx->cond);
    pthread_mutex_unlock(&rx->lock);
    return r;
}

static void fail(struct receiver *rx, const struct channel *c, const struct err *e)
{
    pthread_mutex_lock(&rx->lock);
    if (!rx->failed) {
        rx->failed = true;
        rx->err = *e;
        err_prefix(&rx->err, "data channel %u", c->r.channel);
    }
    for (unsigned i = 0; i < rx->channels; i++)
        tr_abort(rx->ch[i].conn);
    tr_abort(rx->msg);
    pthread_cond_broadcast(&rx->cond);
    pthread_mutex_unlock(&rx->lock);
}

static void *run(void *arg)
{
    struct channel *c = arg;
    struct err e = { 0 };
    int r;

    do {
        enum frame_type type;
        uint32_t round;

        r = pages_read_frame(&c->r, &type, &round, &e);
        if (r == 0)
            r = note_frame(c, type, round, &e);
    } while (r == 0);
    if (r < 0)
        fail(c->rx, c, &e);
    return NULL;
}

static int start_thread(struct receiver *rx, unsigned i, const struct hv_ops *ops,
    struct hv_mig *mig, const struct hv_layout *layout, unsigned encodings)
{
    struct channel *c = &rx->ch[i];

    c->rx = rx;
    c->r.ops = ops;
    c->r.mig = mig;
    c->r.layout = layout;
    c->r.channel = i + 1;
    c->r.channels = rx->channels;
    c->r.encodings = encodings;
    c->r.port = (struct pages_port){ port_writev, port_readv, c->conn };
    return pthread_create(&c->thread, NULL, run, c);
}

static struct receiver *allocate(struct tr_conn *const *conn, unsigned channels)
{
    struct receiver *rx = calloc(1, sizeof *rx);
    pthread_condattr_t attr;

    if (rx == NULL)
        return NULL;
    rx->ch = calloc(channels, sizeof *rx->ch);
    if (rx->ch == NULL) {
        free(rx);
        return NULL;
    }
    rx->channels = channels;
    for (unsigned i = 0; i < channels; i++)
        rx->ch[i].conn = conn[i];
    pthread_mutex_init(&rx->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&rx->cond, &attr);
    pthread_condattr_destroy(&attr);
    return rx;
}

struct receiver *receiver_new(const struct hv_ops *ops, struct hv_mig *mig,
    const struct hv_layout *layout, struct tr_conn *const *conn, unsigned channels,
    unsigned encodings, struct tr_conn *msg, struct err *e)
{
    struct receiver *rx = allocate(conn, channels);

    if (rx == NULL) {
        err_set(e, ERR_MEMORY, "out of memory for %u data channels", channels);
        return NULL;
    }
    rx->msg = msg;
    for (; rx->started < channels; rx->started++) {
        int r = start_thread(rx, rx->started, ops, mig, layout, encodings);

        if (r != 0) {
            err_set(e, ERR_SYSTEM, "cannot start a thread: %s", strerror(r));
            receiver_free(&rx);
            return NULL;
        }
    }
    return rx;
}

void receiver_free(struct receiver **rp)
{
    struct receiver *rx = *rp;

    if (rx == NULL)
        return;
    *rp = NULL;
    pthread_mutex_lock(&rx->lock);
    for (unsigned i = 0; i < rx->channels; i++)
        if (!rx->ch[i].over)
            tr_abort(rx->ch[i].conn);
    pthread_mutex_unlock(&rx->lock);
    for (unsigned i = 0; i < rx->started; i++)
        pthread_join(rx->ch[i].thread, NULL);
    for (unsigned i = 0; i < rx->channels; i++)
        pages_reader_free(&rx->ch[i].r);
    pthread_cond_destroy(&rx->cond);
    pthread_mutex_destroy(&rx->lock);
    free(rx->ch);
    free(rx);
}

/* Called with the lock. `round` UINT64_MAX asks for the end of all. */
static bool all_past(const struct receiver *rx, uint64_t round)
{
    for (unsigned i = 0; i < rx->channels; i++)
        if (round == UINT64_MAX ? !rx->ch[i].over : rx->ch[i].ended <= round)
            return false;
    return true;
}

static int wait_for(struct receiver *rx, uint64_t round, uint64_t deadline_ns, struct err *e)
{
    struct timespec ts = { (time_t)(deadline_ns / NS_PER_S), (long)(deadline_ns % NS_PER_S) };
    int r = 0, w = 0;

    pthread_mutex_lock(&rx->lock);
    while (!rx->failed && !all_past(rx, round) && w != ETIMEDOUT)
        w = pthread_cond_timedwait(&rx->cond, &rx->lock, &ts);
    if (rx->failed && e != NULL)
        *e = rx->err;
    if (rx->failed)
        r = -1;
    else if (!all_past(rx, round))
        r = err_set(e, ERR_TIMEOUT, "the data channels did not end a round in time");
    pthread_mutex_unlock(&rx->lock);
    return r;
}

int receiver_wait_round(struct receiver *rx, uint32_t round, uint64_t deadline_ns, struct err *e)
{
    return wait_for(rx, round, deadline_ns, e);
}

int receiver_wait_end(struct receiver *rx, uint64_t deadline_ns, struct err *e)
{
    return wait_for(rx, UINT64_MAX, deadline_ns, e);
}

bool receiver_failed(struct receiver *rx, struct err *e)
{
    bool r;

    pthread_mutex_lock(&rx->lock);
    r = rx->failed;
    if (r && e != NULL)
        *e = rx->err;
    pthread_mutex_unlock(&rx->lock);
    return r;
}

void receiver_count(const struct receiver *rx, struct pages_total *out)
{
    memset(out, 0, sizeof *out);
    for (unsigned i = 0; i < rx->channels; i++)
        pages_total_add(out, &rx->ch[i].r.count);
}

uint64_t receiver_digest(const struct receiver *rx)
{
    uint64_t of[TR_CHANNELS_MAX];

    for (unsigned i = 0; i < rx->channels; i++)
        of[i] = rx->ch[i].r.fold;
    return tr_digest_fold(of, rx->channels);
}
