/* SPDX-License-Identifier: ISC */
/*
 * The decision after a round, in order:
 *
 *   inside the budget   another round would at least nearly halve the pages left, and
 *                       those still cost milliseconds: go on (at most POLISH_MAX times
 *                       in a migration); else stop. Nothing else ever stops the guest,
 *                       so a peak of an oscillating workload is never chosen.
 *   limit of time or of rounds: give up.
 *   progress            the dirty set shrank by PROGRESS since it last did: go on.
 *   stalled             for a number of rounds and a time ("patience"; longer where a
 *                       valley near the budget was seen, as it may come again): raise
 *                       the throttle a step; at its maximum, or when the fixed cost
 *                       alone is above the budget: give up.
 *
 * It ends always: within one throttle step `best_pages` only falls, each time by a
 * fixed share, so progress is seen a bounded number of times; steps are bounded too.
 *
 * Bandwidth is a quotient of two fading sums. Both fade with the bytes sent and the
 * time it took, so that a link that became slower counts at once (slow rounds weigh more
 * by their time), and one that became faster within some FADE_BYTES. Rounds too small to tell are
 * left out; of rounds longer than a second only the last second counts.
 *
 * The last round is like the ones before it: its pages were sent before, and travel as deltas or
 * compressed as theirs did. So once a round of re-sent pages was long enough to tell, the pause is
 * predicted from the time such a page takes, be it the link's or the processor's; before that from
 * whole pages and bandwidth. Rounds whose pages were mostly left at home by encoding say nothing
 * about bandwidth.
 *
 * Between the decision and the pause migrd writes its journal: what the guest dirties in
 * GAP_US is part of the prediction.
 */
#include "precopy/policy.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PAGE_BYTES 4096.0
#define PAGE_WIRE_BYTES 4120.0 /* with its run entry, where pages lie apart */
#define FADE_BYTES (32.0 * 1024 * 1024)
#define FADE_PAGES 8192.0
#define SMALL_ROUND_BYTES (1u << 20)
#define SMALL_ROUND_US 10000
#define SMALL_ROUND_PAGES 1024
#define FULL_PAGE_BYTES 2048 /* on the wire: more than that, and the link was at work */
#define FADE_US 1000000.0
#define GUESS_BYTES_PER_US 100.0 /* before anything was measured: 100 MB/s */
#define MARGIN 1.15              /* of the part of the prediction that was measured */
#define SHARE_MIN 0.25
#define POLISH_MAX 6
#define POLISH_WORTH_US 2000
#define POLISH_RATIO 0.6
#define PROGRESS 0.85
#define GAP_US 2000.0
#define PATIENCE_ROUNDS 3
#define LONG_ROUND_US 1000000
#define PATIENCE_US 1000000      /* before the first throttle step */
#define PATIENCE_STEP_US 500000  /* before each further one */
#define PATIENCE_LAST_US 5000000 /* before giving up */
#define PATIENCE_VALLEY 4        /* times longer where a valley was near the budget */
#define VALLEY_NEAR 2.0          /* a valley that fits into this many budgets */
#define THROTTLE_FIRST 20
#define THROTTLE_STEP_MIN 10
#define THROTTLE_STEP_MAX 30
#define RATIO_WANTED 0.5 /* dirty rate / bandwidth that a throttle step aims at */
#define MIB (1024.0 * 1024)

static const char *const action_names[] = {
    [POLICY_CONTINUE] = "continue",
    [POLICY_STOP] = "stop",
    [POLICY_THROTTLE] = "throttle",
    [POLICY_GIVE_UP] = "give up",
};
_Static_assert(sizeof action_names / sizeof action_names[0] == POLICY_ACTION_MAX, "name them all");

const char *policy_action_name(enum policy_action a)
{
    return (unsigned)a < POLICY_ACTION_MAX ? action_names[a] : "unknown";
}

void policy_init(struct policy *p, const struct policy_params *par)
{
    memset(p, 0, sizeof *p);
    p->par = *par;
    if (p->par.budget_us == 0)
        p->par.budget_us = POLICY_DEFAULT_BUDGET_MS * UINT64_C(1000);
    if (p->par.fixed_us == 0)
        p->par.fixed_us = POLICY_DEFAULT_FIXED_US;
    if (p->par.max_rounds == 0)
        p->par.max_rounds = POLICY_MAX_ROUNDS;
    if (p->par.throttle_max > POLICY_THROTTLE_LIMIT)
        p->par.throttle_max = POLICY_THROTTLE_LIMIT;
    p->raw_share = 1.0;
}

void policy_set_budget(struct policy *p, uint64_t budget_us)
{
    if (budget_us != 0)
        p->par.budget_us = budget_us;
}

void policy_set_fixed(struct policy *p, uint64_t fixed_us)
{
    p->par.fixed_us = fixed_us;
}

void policy_set_cap(struct policy *p, uint64_t bandwidth_cap)
{
    p->par.bandwidth_cap = bandwidth_cap;
}

static bool fixed_too_long(const struct policy *p)
{
    return p->par.fixed_us > p->par.budget_us;
}

static void say_fixed(const struct policy *p, struct policy_decision *d)
{
    d->action = POLICY_GIVE_UP;
    snprintf(d->reason, sizeof d->reason,
        "the last step alone takes %" PRIu64 " ms without any memory to send, the pause budget is "
        "%" PRIu64 " ms; raise the pause budget above %" PRIu64 " ms",
        p->par.fixed_us / 1000, p->par.budget_us / 1000, p->par.fixed_us * 3 / 2 / 1000 + 1);
}

void policy_begin(const struct policy *p, struct policy_decision *out)
{
    memset(out, 0, sizeof *out);
    out->predicted_us = p->par.fixed_us;
    if (!p->par.live) {
        out->action = POLICY_STOP;
        snprintf(out->reason, sizeof out->reason, "not live: the guest is stopped first");
    } else if (fixed_too_long(p)) {
        say_fixed(p, out);
    } else {
        out->action = POLICY_CONTINUE;
    }
}

/* Bytes per microsecond. */
static double bandwidth(const struct policy *p)
{
    if (p->bw_bytes < 1 || p->bw_us < 1)
        return GUESS_BYTES_PER_US;
    return p->bw_bytes / p->bw_us;
}

/* Microseconds that a re-sent page takes which is not zero. */
static double page_us(const struct policy *p)
{
    return p->page_n >= 1 ? p->page_us / p->page_n : PAGE_WIRE_BYTES / bandwidth(p);
}

/* A round, or of a long one its last second. */
struct stretch {
    double bytes, us, pages;
};

static struct stretch stretch_of(const struct policy_round *r)
{
    struct stretch s = { (double)r->bytes, (double)r->duration_us, (double)r->pages_sent };

    if (r->tail_us == 0 || r->tail_us >= r->duration_us)
        return s;
    s.us = (double)r->tail_us;
    s.bytes = (double)r->tail_bytes;
    s.pages *= r->bytes > 0 ? s.bytes / (double)r->bytes : 0;
    return s;
}

/* How much of what is known still counts. Of a long round the beginning is long ago, and what was
 * before it even longer. */
static double fading(const struct policy_round *r, double amount, double half)
{
    double fade = half / (half + amount), fade_us = FADE_US / (FADE_US + (double)r->duration_us);

    if (r->tail_us > 0 && r->tail_us < r->duration_us)
        return 0;
    return fade < fade_us ? fade : fade_us;
}

static void learn_pages(struct policy *p, const struct policy_round *r)
{
    uint64_t content = r->pages_sent + r->pages_zero;
    struct stretch s = stretch_of(r);
    double fade = fading(r, s.pages, FADE_PAGES);

    if (content >= 64)
        p->raw_share = (p->raw_share + (double)r->pages_sent / (double)content) / 2;
    if (s.pages < 1)
        return;
    /* Of small rounds the fixed part is the larger: they only show that pages are cheaper. */
    if (s.pages < SMALL_ROUND_PAGES && s.us < SMALL_ROUND_US && s.us / s.pages > page_us(p))
        return;
    p->page_n = p->page_n * fade + s.pages;
    p->page_us = p->page_us * fade + s.us;
}

static void learn(struct policy *p, const struct policy_round *r)
{
    struct stretch s = stretch_of(r);
    double fade = fading(r, (double)r->bytes, FADE_BYTES);

    if (p->rounds > 0)
        learn_pages(p, r);
    if (r->bytes < r->pages_sent * FULL_PAGE_BYTES)
        return;
    if (r->bytes >= SMALL_ROUND_BYTES || s.us >= SMALL_ROUND_US) {
        p->bw_bytes = p->bw_bytes * fade + s.bytes;
        p->bw_us = p->bw_us * fade + s.us;
    }
}

static double time_to_send(const struct policy *p, double pages)
{
    double share = p->raw_share < SHARE_MIN ? SHARE_MIN : p->raw_share;

    return pages * share * page_us(p);
}

static bool fits(const struct policy *p, double pages, double budgets)
{
    return (double)p->par.fixed_us + time_to_send(p, pages) * MARGIN <=
           (double)p->par.budget_us * budgets;
}

static double pages_per_us(const struct policy_round *r)
{
    return (double)r->dirty_pages / (double)(r->duration_us > 0 ? r->duration_us : 1);
}

static void inside_budget(struct policy *p, const struct policy_round *r, struct policy_decision *d)
{
    double send_us = time_to_send(p, (double)r->dirty_pages);
    double next = pages_per_us(r) * send_us;
    bool shrinks = next < POLISH_RATIO * (double)r->dirty_pages;

    if (shrinks && send_us > POLISH_WORTH_US && p->polish < POLISH_MAX) {
        p->polish++;
        d->action = POLICY_CONTINUE;
        snprintf(d->reason, sizeof d->reason,
            "a pause of %.1f ms would be inside the budget; one more round promises %.1f ms",
            (double)d->predicted_us / 1000,
            ((double)p->par.fixed_us + time_to_send(p, next)) / 1000);
        return;
    }
    d->action = POLICY_STOP;
    snprintf(d->reason, sizeof d->reason,
        "%" PRIu64 " pages left, expected pause %.1f ms, budget %.1f ms", r->dirty_pages,
        (double)d->predicted_us / 1000, (double)p->par.budget_us / 1000);
}

/* The sentence that every give-up for memory ends with: which knob helps. */
static size_t knobs(const struct policy *p, const struct policy_decision *d, char *out, size_t len)
{
    int n = snprintf(out, len, "raise the pause budget above %" PRIu64 " ms",
        d->predicted_us * 5 / 4 / 1000 + 1);
    size_t used = n > 0 && (size_t)n < len ? (size_t)n : 0;

    if (p->par.bandwidth_cap > 0)
        used += (size_t)snprintf(out + used, len - used, ", lift the bandwidth cap of %.0f MiB/s",
            (double)p->par.bandwidth_cap / MIB);
    if (p->par.throttle_max < POLICY_THROTTLE_LIMIT && used < len)
        snprintf(out + used, len - used,
            p->par.throttle_max == 0 ? ", or allow throttling (throttle-max)"
                                     : ", or raise throttle-max (now %u)",
            p->par.throttle_max);
    return used;
}

static void give_up(const struct policy *p, struct policy_decision *d, const char *why)
{
    char help[200];

    knobs(p, d, help, sizeof help);
    d->action = POLICY_GIVE_UP;
    snprintf(d->reason, sizeof d->reason,
        "%s: the guest dirties %.1f MiB/s, the link takes %.1f MiB/s, throttle %u percent, "
        "expected pause %" PRIu64 " ms, budget %" PRIu64 " ms; %s",
        why, (double)d->dirty_rate / MIB, (double)d->bandwidth / MIB, p->throttle,
        d->predicted_us / 1000, p->par.budget_us / 1000, help);
}

static unsigned next_throttle(const struct policy *p, const struct policy_decision *d)
{
    double rate = (double)d->dirty_rate / (1.0 - p->throttle / 100.0);
    double sent = PAGE_BYTES * 1e6 / time_to_send(p, 1);
    double want = 100.0 * (1.0 - RATIO_WANTED * sent / (rate > 1 ? rate : 1));
    unsigned low = p->throttle == 0 ? THROTTLE_FIRST : p->throttle + THROTTLE_STEP_MIN;
    unsigned high = p->throttle + THROTTLE_STEP_MAX;
    unsigned t = want > high ? high : want < low ? low : (unsigned)want;

    return t > p->par.throttle_max ? p->par.throttle_max : t;
}

static void note_progress(struct policy *p, const struct policy_round *r)
{
    if (p->have_round && (double)r->dirty_pages >= PROGRESS * (double)p->best_pages) {
        p->stall_rounds++;
        return;
    }
    p->have_round = true;
    p->best_pages = r->dirty_pages;
    p->stall_rounds = 0;
    p->stall_since_us = r->elapsed_us;
}

static bool out_of_patience(const struct policy *p, const struct policy_round *r)
{
    bool last = p->throttle >= p->par.throttle_max;
    bool valley = (double)r->dirty_pages > (double)p->best_pages * 1.5 &&
                  fits(p, (double)p->best_pages, VALLEY_NEAR);
    uint64_t us = last ? PATIENCE_LAST_US : p->throttle > 0 ? PATIENCE_STEP_US : PATIENCE_US;
    uint32_t rounds = PATIENCE_ROUNDS - (r->duration_us > LONG_ROUND_US) + last;

    if (valley)
        us *= PATIENCE_VALLEY;
    return p->stall_rounds >= rounds && r->elapsed_us - p->stall_since_us >= us;
}

static void raise_throttle(
    struct policy *p, const struct policy_round *r, struct policy_decision *d)
{
    unsigned t = next_throttle(p, d);

    snprintf(d->reason, sizeof d->reason,
        "no progress in %u rounds: the guest dirties %.1f MiB/s, the link takes %.1f MiB/s; "
        "throttle %u -> %u percent",
        p->stall_rounds, (double)d->dirty_rate / MIB, (double)d->bandwidth / MIB, p->throttle, t);
    p->throttle = t;
    p->best_pages = r->dirty_pages;
    p->stall_rounds = 0;
    p->stall_since_us = r->elapsed_us;
    d->action = POLICY_THROTTLE;
}

static void outside_budget(
    struct policy *p, const struct policy_round *r, struct policy_decision *d)
{
    note_progress(p, r);
    if (p->par.time_limit_us > 0 && r->elapsed_us >= p->par.time_limit_us)
        give_up(p, d, "the time limit is reached");
    else if (p->rounds >= p->par.max_rounds)
        give_up(p, d, "the limit of rounds is reached");
    else if (!out_of_patience(p, r))
        d->action = POLICY_CONTINUE;
    else if (fixed_too_long(p)) /* not before: the first round trips wait behind full buffers */
        say_fixed(p, d);
    else if (p->throttle < p->par.throttle_max)
        raise_throttle(p, r, d);
    else
        give_up(p, d, "the migration does not converge");
}

void policy_round(struct policy *p, const struct policy_round *r, struct policy_decision *out)
{
    double dirty = (double)r->dirty_pages + pages_per_us(r) * GAP_US;

    memset(out, 0, sizeof *out);
    learn(p, r);
    p->rounds++;
    /* Not more than was ever seen dirty: a small working set is written again and again. */
    if (r->dirty_pages > p->most_pages)
        p->most_pages = r->dirty_pages;
    if (dirty > (double)p->most_pages)
        dirty = (double)p->most_pages;
    out->bandwidth = (uint64_t)(bandwidth(p) * 1e6);
    out->dirty_rate = (uint64_t)(pages_per_us(r) * PAGE_BYTES * 1e6);
    out->predicted_us = p->par.fixed_us + (uint64_t)time_to_send(p, dirty);
    if (fits(p, dirty, 1.0))
        inside_budget(p, r, out);
    else
        outside_budget(p, r, out);
    out->throttle = p->throttle;
}
