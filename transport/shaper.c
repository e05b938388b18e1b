/* SPDX-License-Identifier: ISC */
/*
 * The bandwidth cap: one bucket that all channels of a migration draw from. It fills at
 * the rate, up to a burst of 10 ms worth (256 KiB at least, for low rates); what finds it
 * empty waits outside of the lock and comes again, so that a new rate holds at once.
 */
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "transport/internal.h"

#define BURST_MIN (256u << 10)
#define BURST_MAX (8u << 20)
#define BURST_PER_S 100 /* 10 ms worth: as late as a thread of a busy host may wake */
#define GRANT_MIN 4096u /* do not bother for less, unless less is wanted */
#define WAIT_MAX (20 * NS_PER_MS)

struct tr_shaper {
    pthread_mutex_t lock;
    /* the lock protects: */
    uint64_t rate; /* bytes per second; 0: no cap */
    uint64_t burst;
    uint64_t have;      /* bytes in the bucket */
    uint64_t filled_at; /* clock_ns up to which they were credited */
};

static void set_rate(struct tr_shaper *s, uint64_t rate)
{
    uint64_t burst = rate / BURST_PER_S;

    s->rate = rate;
    s->burst = burst < BURST_MIN ? BURST_MIN : burst > BURST_MAX ? BURST_MAX : burst;
    if (s->have > s->burst)
        s->have = s->burst;
}

struct tr_shaper *tr_shaper_new(uint64_t bytes_per_s)
{
    struct tr_shaper *s = calloc(1, sizeof *s);

    if (s == NULL)
        return NULL;
    pthread_mutex_init(&s->lock, NULL);
    s->filled_at = clock_ns();
    set_rate(s, bytes_per_s);
    return s;
}

static void fill(struct tr_shaper *s)
{
    uint64_t now = clock_ns(), gone = now - s->filled_at, bytes;

    if (gone > NS_PER_S) /* more than any burst; keeps the product below 64 bits */
        gone = NS_PER_S;
    bytes = (uint64_t)((unsigned __int128)gone * s->rate / NS_PER_S);
    if (bytes == 0 && s->rate != 0)
        return; /* too early for a whole byte: keep the time */
    s->filled_at = now;
    s->have = s->have + bytes > s->burst ? s->burst : s->have + bytes;
}

void tr_shaper_set(struct tr_shaper *s, uint64_t bytes_per_s)
{
    pthread_mutex_lock(&s->lock);
    fill(s);
    set_rate(s, bytes_per_s);
    pthread_mutex_unlock(&s->lock);
}

void tr_shaper_free(struct tr_shaper **s)
{
    if (*s == NULL)
        return;
    pthread_mutex_destroy(&(*s)->lock);
    free(*s);
    *s = NULL;
}

size_t shaper_take(struct tr_shaper *s, size_t want, uint64_t *wait_ns)
{
    size_t need = want < GRANT_MIN ? want : GRANT_MIN, got = 0;

    pthread_mutex_lock(&s->lock);
    fill(s);
    if (s->rate == 0) {
        got = want;
    } else if (s->have >= need) {
        got = want < s->have ? want : s->have;
        s->have -= got;
    } else {
        /* Wait for a fair portion, a quarter of the burst, rather than waking for every page. */
        uint64_t portion = want < s->burst / 4 ? want : s->burst / 4;
        uint64_t short_of = portion > s->have ? portion - s->have : 1;

        *wait_ns = (uint64_t)((unsigned __int128)short_of * NS_PER_S / s->rate) + 1;
        if (*wait_ns > WAIT_MAX)
            *wait_ns = WAIT_MAX;
    }
    pthread_mutex_unlock(&s->lock);
    return got;
}
