/* SPDX-License-Identifier: ISC */
/*
 * The cache of deltas costs memory that must be had and written before it gains anything: on a link
 * that takes a page as fast as the processor compares it, it never would. A page enters
 * only where the rounds to come, taken to be as many as were, are worth it; so a
 * migration that does not end makes its own case.
 *
 * cost(encoding) = encode time + bytes * link time per byte, per page of a class.
 *
 * The link's time per byte is what writev took, with TLS, cap and back-pressure in it.
 * Compressed batches leave gaps in which the socket's buffer drains, so they make the link look
 * faster than it is: such a measurement only counts when it is slower than what is
 * known. Raw batches tell the truth, and come with every trial of raw: a link that became
 * faster is noticed then.
 *
 * A trial encodes the first pages of a batch in another encoding; of raw it is RAW_BATCHES
 * whole ones, more than a socket's buffer takes. Trials come soon until all is known,
 * then after EVERY batches; while raw wins clearly, half as often each time, down to one
 * in EVERY_MAX.
 */
#include "precopy/choice.h"

#include <string.h>

#define PAGE_BYTES 4096.0
#define FADE_PAGES 2048.0
#define FADE_LINK_BYTES (16.0 * 1024 * 1024)
#define LINK_KNOWN_BYTES (4.0 * 1024 * 1024)
#define PART_BYTES (64u << 10) /* less says nothing about the link */
#define EVERY_FIRST 2u
#define EVERY 64u
#define EVERY_MAX 1024u
#define RAW_BATCHES 4u
#define CLEARLY 1.5
#define ADMIT_GUESS_NS 2000.0
#define HIT_GUESS_NS 1000.0
#define GUESS_PAGES 512.0 /* one of so many waits for a huge page: a first one tells nothing */
#define FADE_CACHE 4096.0
#define GAIN 0.95 /* a change must be worth it */

void choice_init(struct choice *c, unsigned among)
{
    memset(c, 0, sizeof *c);
    c->cache[CHOICE_ADMIT] =
        (struct choice_estimate){ GUESS_PAGES, GUESS_PAGES * ADMIT_GUESS_NS, 0 };
    c->cache[CHOICE_HIT] = (struct choice_estimate){ GUESS_PAGES, GUESS_PAGES * HIT_GUESS_NS, 0 };
    c->among = among;
    for (unsigned k = 0; k < CHOICE_CLASSES; k++) {
        c->class[k].every = EVERY_FIRST;
        c->class[k].tried = FRAME_RAW;
    }
}

static bool allowed(const struct choice *c, enum frame_encoding e)
{
    return (c->among >> e & 1) != 0;
}

static bool link_known(const struct choice *c)
{
    return c->link_bytes >= LINK_KNOWN_BYTES;
}

double choice_cost(const struct choice *c, enum choice_class k, enum frame_encoding e)
{
    const struct choice_estimate *s = &c->class[k].of[e];
    double link = c->link_bytes > 0 ? c->link_ns / c->link_bytes : 0;

    if (!link_known(c))
        return -1;
    if (e == FRAME_RAW)
        return PAGE_BYTES * link;
    return s->pages < 1 ? -1 : (s->ns + s->bytes * link) / s->pages;
}

static const enum frame_encoding all[] = { FRAME_RAW, FRAME_LZ4, FRAME_ZSTD };
#define N_ALL (sizeof all / sizeof all[0])

/* The first that is allowed, unless the measured cost of another is clearly less. */
static enum frame_encoding cheapest(const struct choice *c, enum choice_class k)
{
    enum frame_encoding best = FRAME_RAW;
    bool found = false;
    double least = -1;

    for (unsigned i = 0; i < N_ALL; i++) {
        double cost = choice_cost(c, k, all[i]);

        if (allowed(c, all[i]) && (!found || (cost >= 0 && cost < least * GAIN))) {
            found = true;
            best = all[i];
            least = cost;
        }
    }
    return best;
}

/* The next of the others, in turn; `now` when there is none. */
static enum frame_encoding next_trial(
    const struct choice *c, const struct choice_class_state *s, enum frame_encoding now)
{
    unsigned from = 0;

    while (from < N_ALL - 1 && all[from] != s->tried)
        from++;
    for (unsigned i = 1; i <= N_ALL; i++) {
        enum frame_encoding e = all[(from + i) % N_ALL];

        if (e != now && allowed(c, e))
            return e;
    }
    return now;
}

/* How long until the one after this trial. */
static unsigned pace(const struct choice *c, enum choice_class k, enum frame_encoding now)
{
    const struct choice_class_state *s = &c->class[k];
    double mine = choice_cost(c, k, now);

    for (unsigned i = 0; i < N_ALL; i++) {
        double cost = choice_cost(c, k, all[i]);

        if (all[i] == now || !allowed(c, all[i]))
            continue;
        if (cost < 0)
            return EVERY_FIRST;
        if (cost < mine * CLEARLY)
            return EVERY;
    }
    if (now != FRAME_RAW) /* only a trial of raw shows that the link became faster */
        return EVERY;
    return s->every < EVERY ? EVERY : s->every * 2 > EVERY_MAX ? EVERY_MAX : s->every * 2;
}

struct choice_plan choice_next(struct choice *c, enum choice_class k)
{
    struct choice_class_state *s = &c->class[k];
    enum frame_encoding e = cheapest(c, k);
    struct choice_plan plan = { e, e };

    if (s->raw_left > 0) {
        s->raw_left--;
        return (struct choice_plan){ FRAME_RAW, FRAME_RAW };
    }
    if (!link_known(c) || ++s->batches < s->every)
        return plan;
    s->batches = 0;
    s->every = pace(c, k, e);
    plan.trial = s->tried = next_trial(c, s, e);
    if (plan.trial == FRAME_RAW) {
        plan.encoding = FRAME_RAW;
        s->raw_left = RAW_BATCHES - 1;
    }
    return plan;
}

void choice_encoded(struct choice *c, enum choice_class k, enum frame_encoding e, uint64_t pages,
    uint64_t ns, uint64_t bytes)
{
    struct choice_estimate *s = &c->class[k].of[e];
    double fade = FADE_PAGES / (FADE_PAGES + (double)pages);

    s->pages = s->pages * fade + (double)pages;
    s->ns = s->ns * fade + (double)ns;
    s->bytes = s->bytes * fade + (double)bytes;
}

void choice_sent(struct choice *c, uint64_t bytes, uint64_t ns, bool full)
{
    double fade = FADE_LINK_BYTES / (FADE_LINK_BYTES + (double)bytes);

    if (!full && allowed(c, FRAME_RAW) &&
        (bytes < PART_BYTES || (double)ns * c->link_bytes <= c->link_ns * (double)bytes))
        return;
    c->link_ns = c->link_ns * fade + (double)ns;
    c->link_bytes = c->link_bytes * fade + (double)bytes;
}

void choice_cached(struct choice *c, enum choice_cache use, uint64_t ns)
{
    struct choice_estimate *s = &c->cache[use];
    double fade = FADE_CACHE / (FADE_CACHE + 1);

    s->pages = s->pages * fade + 1;
    s->ns = s->ns * fade + (double)ns;
}

bool choice_cache_pays(const struct choice *c, uint32_t rounds)
{
    const struct choice_estimate *admit = &c->cache[CHOICE_ADMIT], *hit = &c->cache[CHOICE_HIT];
    double link = c->link_bytes > 0 ? c->link_ns / c->link_bytes : 0;

    return rounds * (PAGE_BYTES * link - hit->ns / hit->pages) > admit->ns / admit->pages;
}
