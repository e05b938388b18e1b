/* SPDX-License-Identifier: ISC */
/*
 * sim_policy: thousands of seeded workloads against precopy/policy, without a clock. A
 * workload writes `rate` pages a second into a working set of `ws` pages at random, so
 * that in time t it dirties ws * (1 - exp(-rate * t / ws)) different pages; the rate may
 * swing between two levels or burst, the link may change its speed, jitter, have a cap.
 *
 * In a third of them re-sent pages travel as deltas: so many bytes each, and so much of the
 * processor's time, whichever is slower; pages of the first round cross the link as they are.
 *
 * An oracle computes from the same numbers, without running rounds, whether the budget
 * can be met: with the strongest throttle allowed, does the cycle "send what is dirty,
 * meanwhile so much is dirtied" settle inside the budget, in the lower phase (must, if
 * that phase is long enough) or even in the upper one? Checked of each run:
 *
 *   it ends, within a bounded number of rounds and a bounded time
 *   it stops the guest only inside the budget: the pause that then really happens may
 *   exceed it by the jitter of the link, and by a change of the link in that very moment
 *   where the oracle says "surely in reach" it does not give up, unless the time is up
 *   where the oracle says "out of reach" it gives up, with a reason
 *   the throttle never exceeds its maximum, and is not used where none is needed
 *
 * Usage: sim_policy [RUNS [FIRST-SEED]]; deterministic.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "precopy/policy.h"

#define RUNS 6000
#define PAGE 4120.0
#define ROUNDS_MAX 20000
#define SETTLED 1.35 /* an oracle's "surely" leaves room for margins and jitter */
#define BEYOND 1.6   /* and its "out of reach" too */
#define JITTER_SLACK 1.35
#define LINK_KNOWN_S 1.5 /* a change of the link is known after that */
#define TAIL_S 1.0

enum swing { STEADY, SQUARE, BURSTS, SWINGS };
enum verdict { IN_REACH, MAYBE, OUT_OF_REACH, VERDICTS };

struct world {
    double total, ws; /* pages */
    double low, high; /* pages per second */
    double period_s, duty, phase_s;
    enum swing swing;
    double bw[2], change_s; /* bytes per second, before and after */
    double jitter;
    double delta_bytes, delta_s; /* of a re-sent page; 0: not encoded */
    double fixed_s, budget_s;
    unsigned throttle_max;
    uint64_t seed, rng;
};

struct outcome {
    enum policy_action end;
    uint32_t rounds;
    double time_s, pause_s;
    double burst_s; /* of the pause, for what is dirtied while the guest is stopping */
    unsigned throttle;
    bool link_changed_late;
    char reason[400];
};

/* --- chance --- */

static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static double uniform(uint64_t *rng)
{
    *rng = mix(*rng);
    return (double)(*rng >> 11) / 9007199254740992.0;
}

static double between(uint64_t *rng, double a, double b)
{
    return a + (b - a) * uniform(rng);
}

/* Evenly over orders of magnitude. */
static double scale(uint64_t *rng, double a, double b)
{
    return a * pow(b / a, uniform(rng));
}

static struct world make_world(uint64_t seed)
{
    struct world w = { .seed = seed, .rng = mix(seed) };
    uint64_t *r = &w.rng;

    w.total = scale(r, 8192, 4 << 20);
    w.ws = w.total * scale(r, 0.001, 0.9);
    w.high = scale(r, 10, 600000);
    w.low = w.high;
    w.swing = (enum swing)(uniform(r) * SWINGS);
    if (w.swing != STEADY)
        w.low = w.high * scale(r, 0.001, 0.5);
    w.period_s = w.swing == BURSTS ? scale(r, 0.5, 6) : scale(r, 0.3, 12);
    w.duty = w.swing == BURSTS ? between(r, 0.02, 0.2) : between(r, 0.3, 0.7);
    w.phase_s = between(r, 0, w.period_s);
    w.bw[0] = scale(r, 10e6, 4e9);
    w.bw[1] = uniform(r) < 0.25 ? w.bw[0] * scale(r, 0.2, 5) : w.bw[0];
    w.change_s = w.total * PAGE / w.bw[0] * between(r, 0.5, 1.5);
    w.jitter = between(r, 0, 0.15);
    w.fixed_s = scale(r, 0.002, 0.03);
    w.budget_s = scale(r, 0.02, 1.0);
    w.throttle_max = uniform(r) < 0.3 ? 0 : (unsigned)between(r, 30, 99);
    if (uniform(r) < 0.33) {
        w.delta_bytes = scale(r, 20, 3000);
        w.delta_s = scale(r, 0.3e-6, 3e-6);
    }
    return w;
}

/* --- the guest and the link --- */

static bool in_high_phase(const struct world *w, double t)
{
    return w->swing == STEADY || fmod(t + w->phase_s, w->period_s) < w->duty * w->period_s;
}

static double rate_at(const struct world *w, double t, unsigned throttle)
{
    return (in_high_phase(w, t) ? w->high : w->low) * (1.0 - throttle / 100.0);
}

/* Seconds from t to the next change of phase. */
static double to_change(const struct world *w, double t)
{
    double pos = fmod(t + w->phase_s, w->period_s), edge = w->duty * w->period_s;

    if (w->swing == STEADY)
        return 1e9;
    return (pos < edge ? edge - pos : w->period_s - pos) + 1e-6;
}

static double dirtied(const struct world *w, double t, double dt, unsigned throttle)
{
    double u = 0, end = t + dt;

    while (t < end) {
        double step = fmin(end - t, to_change(w, t));

        u = w->ws - (w->ws - u) * exp(-rate_at(w, t, throttle) * step / w->ws);
        t += step;
    }
    return u;
}

static double send_time(struct world *w, double t, double bytes)
{
    double noise = 1.0 + w->jitter * (2 * uniform(&w->rng) - 1);
    double first = w->bw[0] * noise, second = w->bw[1] * noise;

    if (t >= w->change_s)
        return bytes / second;
    if (t + bytes / first <= w->change_s)
        return bytes / first;
    return w->change_s - t + (bytes - (w->change_s - t) * first) / second;
}

static double page_bytes(const struct world *w, bool again)
{
    return again && w->delta_bytes > 0 ? w->delta_bytes : PAGE;
}

static double send_pages(struct world *w, double t, double pages, bool again)
{
    double link = send_time(w, t, pages * page_bytes(w, again));

    return again ? fmax(link, pages * w->delta_s) : link;
}

/* The link as if re-sent pages were whole ones. */
static double effective(const struct world *w, double bw)
{
    return PAGE / fmax(page_bytes(w, true) / bw, w->delta_s);
}

/* What the link took in the last TAIL_S before t. */
static double link_tail(struct world *w, double t)
{
    double noise = 1.0 + w->jitter * (2 * uniform(&w->rng) - 1);
    double after = fmin(fmax(t - w->change_s, 0), TAIL_S);

    return noise * (after * w->bw[1] + (TAIL_S - after) * w->bw[0]);
}

/* Less where the processor is what limits. */
static double tail_bytes(struct world *w, double t, bool again)
{
    double link = link_tail(w, t);

    return again && w->delta_s > 0 ? fmin(link, w->delta_bytes * TAIL_S / w->delta_s) : link;
}

/* --- the oracle --- */

/* Where the cycle settles at this rate: seconds to send what is dirty. */
static double settles_at(const struct world *w, double rate, double bw)
{
    double t = 1e-3;

    if (rate * PAGE < bw * 0.999)
        return 0;
    for (int i = 0; i < 400; i++)
        t = w->ws * (1 - exp(-rate * t / w->ws)) * PAGE / bw;
    return t;
}

/* Seconds the lower phase needs to work off what the upper one left. */
static double drain_time(const struct world *w, double rate, double bw)
{
    double ratio = rate * PAGE / bw, t = w->ws * PAGE / bw, sum = 0;

    if (ratio > 0.9)
        return 1e9;
    for (int i = 0; i < 200 && t > 1e-3; i++, t *= ratio)
        sum += t;
    return sum;
}

static enum verdict oracle(const struct world *w)
{
    double left = 1.0 - w->throttle_max / 100.0;
    double slow = effective(w, fmin(w->bw[0], w->bw[1]));
    double fast = effective(w, fmax(w->bw[0], w->bw[1]));
    double room = w->budget_s - w->fixed_s;
    double valley_s = w->period_s * (1 - w->duty);

    if (room < 0)
        return OUT_OF_REACH;
    if (room < fmax(0.004, 0.3 * w->budget_s)) /* less than rounds and gaps can tell */
        return MAYBE;
    if (settles_at(w, w->high * left * SETTLED, slow) * SETTLED < room)
        return IN_REACH;
    if (w->swing != STEADY && w->period_s < 8 &&
        settles_at(w, w->low * left * SETTLED, slow) * SETTLED < room &&
        drain_time(w, w->low * left, slow) * 3 < valley_s)
        return IN_REACH;
    if (settles_at(w, w->low * left / BEYOND, fast) / BEYOND > room)
        return OUT_OF_REACH;
    return MAYBE;
}

/* --- a run --- */

/* Nothing may need longer than this: every phase of the policy is bounded by rounds and patience.
 */
static double time_allowed(const struct world *w)
{
    double slow = fmin(w->bw[0], w->bw[1]);

    return 120 + 40 * w->total * PAGE / slow;
}

static void stop_guest(
    struct world *w, struct outcome *o, double t, double pages, unsigned throttle)
{
    double gap = dirtied(w, t, 0.002, throttle); /* until it really stops */
    double send = send_pages(w, t, pages + gap, true);

    o->pause_s = w->fixed_s + send;
    o->burst_s = gap * PAGE / effective(w, fmin(w->bw[0], w->bw[1]));
    o->link_changed_late = w->bw[0] != w->bw[1] && fabs(t - w->change_s) < LINK_KNOWN_S;
}

static struct outcome run(struct world *w)
{
    struct policy_params par = { .budget_us = (uint64_t)(w->budget_s * 1e6),
        .fixed_us = (uint64_t)(w->fixed_s * 1e6),
        .throttle_max = w->throttle_max,
        .live = true };
    struct policy_decision d;
    struct outcome o = { .rounds = 0 };
    struct policy p;
    double t = 0, pages = w->total * 0.8;
    unsigned throttle = 0;

    policy_init(&p, &par);
    policy_begin(&p, &d);
    while ((d.action == POLICY_CONTINUE || d.action == POLICY_THROTTLE) && o.rounds < ROUNDS_MAX &&
           t < time_allowed(w)) {
        double dt = send_pages(w, t, pages, o.rounds > 0) + 0.0003;
        double dirty = dirtied(w, t, dt, throttle);
        double skipped = o.rounds > 0 ? pages * dirty / w->ws / 2 : 0;
        struct policy_round r = { .pages_sent = (uint64_t)(pages - skipped),
            .pages_skipped = (uint64_t)skipped,
            .bytes = (uint64_t)((pages - skipped) * page_bytes(w, o.rounds > 0)) };

        dt *= pages > 0 ? (pages - skipped) / pages : 1;
        dt += 0.0001;
        t += dt;
        r.duration_us = (uint64_t)(dt * 1e6) + 1;
        r.dirty_pages = (uint64_t)dirty;
        if (dt > TAIL_S) {
            r.tail_us = (uint64_t)(TAIL_S * 1e6);
            r.tail_bytes = (uint64_t)tail_bytes(w, t, o.rounds > 0);
        }
        r.elapsed_us = (uint64_t)(t * 1e6);
        policy_round(&p, &r, &d);
        o.rounds++;
        o.time_s = t;
        pages = dirty;
        throttle = d.throttle;
    }
    o.end = d.action;
    o.throttle = throttle;
    memcpy(o.reason, d.reason, sizeof o.reason);
    if (d.action == POLICY_STOP)
        stop_guest(w, &o, t, pages, throttle);
    return o;
}

/* --- checks --- */

static unsigned failures;

static void complain(const struct world *w, const struct outcome *o, const char *what)
{
    if (++failures > 12)
        return;
    printf("seed %" PRIu64
           ": %s\n  ws %.0f MiB, %.1f..%.1f MiB/s, swing %d period %.2f s duty %.2f, "
           "link %.0f -> %.0f MiB/s at %.1f s\n  budget %.0f ms, fixed %.1f ms, throttle max %u; "
           "ended with %s after %u rounds, %.1f s, throttle %u, pause %.1f ms\n  %s\n",
        w->seed, what, w->ws * PAGE / 1048576, w->low * PAGE / 1048576, w->high * PAGE / 1048576,
        (int)w->swing, w->period_s, w->duty, w->bw[0] / 1048576, w->bw[1] / 1048576, w->change_s,
        w->budget_s * 1e3, w->fixed_s * 1e3, w->throttle_max, policy_action_name(o->end), o->rounds,
        o->time_s, o->throttle, o->pause_s * 1e3, o->reason);
}

static bool needs_no_throttle(const struct world *w)
{
    double slow = effective(w, fmin(w->bw[0], w->bw[1]));

    return w->budget_s - w->fixed_s > 0.004 &&
           settles_at(w, w->high * SETTLED, slow) * SETTLED < w->budget_s - w->fixed_s &&
           w->high * PAGE * 2 < slow;
}

static void check(const struct world *w, const struct outcome *o, enum verdict v)
{
    if (o->end != POLICY_STOP && o->end != POLICY_GIVE_UP)
        complain(w, o, "did not end");
    if (o->time_s > time_allowed(w))
        complain(w, o, "took too long");
    if (o->throttle > w->throttle_max)
        complain(w, o, "throttled too much");
    if (o->end == POLICY_STOP && !o->link_changed_late &&
        o->pause_s - o->burst_s > w->budget_s * JITTER_SLACK + 0.002)
        complain(w, o, "broke the budget");
    if (v == IN_REACH && o->end == POLICY_GIVE_UP)
        complain(w, o, "gave up although the budget is in reach");
    if (v == OUT_OF_REACH && o->end == POLICY_STOP && !o->link_changed_late &&
        o->pause_s - o->burst_s > w->budget_s * JITTER_SLACK + 0.002)
        complain(w, o, "stopped although the budget is out of reach");
    if (o->end == POLICY_GIVE_UP && strstr(o->reason, "raise the pause budget") == NULL)
        complain(w, o, "gave up without naming a way out");
    if (needs_no_throttle(w) && o->throttle > 0)
        complain(w, o, "throttled without need");
}

struct summary {
    unsigned n[VERDICTS][POLICY_ACTION_MAX];
    unsigned stops, over, throttled;
    double worst, ratio_sum, rounds_sum;
};

static void add(struct summary *s, const struct world *w, const struct outcome *o, enum verdict v)
{
    double ratio = o->pause_s / w->budget_s;

    s->n[v][o->end]++;
    s->rounds_sum += o->rounds;
    if (o->end != POLICY_STOP)
        return;
    s->stops++;
    s->over += ratio > 1;
    s->throttled += o->throttle > 0;
    s->ratio_sum += ratio;
    if (!o->link_changed_late && ratio > s->worst)
        s->worst = ratio;
}

static void print(const struct summary *s, unsigned runs)
{
    static const char *const names[] = { "in reach", "unclear", "out of reach" };

    printf("%u workloads, %.1f rounds on average\n", runs, s->rounds_sum / runs);
    printf("%-14s %8s %8s\n", "budget is", "stopped", "gave up");
    for (int v = 0; v < VERDICTS; v++)
        printf("%-14s %8u %8u\n", names[v], s->n[v][POLICY_STOP], s->n[v][POLICY_GIVE_UP]);
    printf(
        "pauses: %.0f %% of the budget on average, %u of %u over it, worst %.0f %%; %u throttled\n",
        100 * s->ratio_sum / (s->stops > 0 ? s->stops : 1), s->over, s->stops, 100 * s->worst,
        s->throttled);
}

int main(int argc, char **argv)
{
    unsigned runs = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : RUNS;
    uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    struct summary s = { .stops = 0 };

    for (unsigned i = 0; i < runs; i++) {
        struct world w = make_world(first + i);
        enum verdict v = oracle(&w);
        struct outcome o = run(&w);

        check(&w, &o, v);
        add(&s, &w, &o, v);
    }
    print(&s, runs);
    if (failures > 0)
        printf("%u failures\n", failures);
    return failures == 0 ? 0 : 1;
}
