/* SPDX-License-Identifier: ISC */
/*
 * One run plays rounds as the engine does them, with W(t), the pages written within t:
 *
 *   round 0 sends what is populated, each later one what the collect before it found
 *   left out is what was written again before its turn. With windows that follow each other,
 *     A of length p (the round before) and B of length t, the pages written in both are
 *     W(p) + W(t) - W(p + t): no assumption on how the guest writes, but that it goes on
 *     as it did. The log is peeked at every PEEK_US, so the newest writes are not seen.
 *   a round lasts as long as its pages take, and that depends on what is left out: iterated
 *   the collect at its end finds W(its duration); the real policy decides
 *
 * Pages that deltas pay for enter the cache when they are sent again; of a later round those are
 * deltas that would be, if each page of the working set were in the cache with the same chance.
 *
 * A throttled guest writes in time t what it would write in t x (1 - throttle). The curve is
 * taken as its upper concave hull: a working set cannot grow faster later, so a dent is noise.
 * Beyond its end it goes on with a slope that falls as it fell before.
 *
 * Runs 1.. move the inputs by fixed steps of a golden-ratio sequence within SPREAD_: evenly
 * spread, and the same in every forecast. Figures are medians of the runs that converge (of
 * all, where most do not).
 */
#include "precopy/forecast.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_WIRE_BYTES 4120.0
#define PEEK_US 20000.0
#define GAP_US 2000.0 /* from the decision to the pause */
#define ROUNDS_MAX 2000
#define ROUND_MIN_US 200.0
#define STEPS 12 /* of the integral over a round */
#define ITERATIONS 5
#define SPREAD_LINK 0.15
#define SPREAD_WRITES 0.20
#define SPREAD_PAUSE 0.20
#define TAIL_US 750000.0
#define SURE 0.8  /* share of runs that counts as "converges" */
#define HALF 0.55 /* of a pause or total: about halved */
#define KNOB_RUNS 7
#define WORTH_US 20000 /* a pause below this is not worth a knob */
#define MIB (1024.0 * 1024)

/* Inputs of one run, ready to use. */
struct world {
    const struct forecast_input *in;
    struct forecast_point hull[FORECAST_POINTS_MAX + 1]; /* from the origin */
    unsigned n_hull;
    double speed;  /* of the guest's writes, relative */
    double costs;  /* of a page, relative */
    double pauses; /* of the pause's fixed part, relative */
};

struct run {
    bool converged;
    double total_us, pause_us, bytes;
    uint32_t rounds;
    unsigned throttle;
    char reason[400];
};

/* --- the curve --- */

static int by_time(const void *a, const void *b)
{
    const struct forecast_point *p = a, *q = b;

    return p->us < q->us ? -1 : p->us > q->us;
}

/* True if `b` lies on or below the line from `a` to `c`. */
static bool below(
    const struct forecast_point *a, const struct forecast_point *b, const struct forecast_point *c)
{
    double along = (double)(b->us - a->us) / (double)(c->us - a->us);
    double line = (double)a->pages + ((double)c->pages - (double)a->pages) * along;

    return (double)b->pages <= line;
}

static void make_hull(const struct forecast_input *in, struct world *w)
{
    struct forecast_point p[FORECAST_POINTS_MAX], *h = w->hull;
    unsigned n = in->n_curve < FORECAST_POINTS_MAX ? in->n_curve : FORECAST_POINTS_MAX;
    unsigned k = 1;

    memcpy(p, in->curve, n * sizeof p[0]);
    qsort(p, n, sizeof p[0], by_time);
    h[0] = (struct forecast_point){ 0, 0 };
    for (unsigned i = 0; i < n; i++) {
        if (p[i].us <= h[k - 1].us)
            continue;
        if (p[i].pages < h[k - 1].pages)
            p[i].pages = h[k - 1].pages;
        while (k > 1 && below(&h[k - 2], &h[k - 1], &p[i]))
            k--;
        h[k++] = p[i];
    }
    w->n_hull = k;
}

static double on_line(const struct forecast_point *a, const struct forecast_point *b, double us)
{
    double slope = ((double)b->pages - (double)a->pages) / (double)(b->us - a->us);

    return (double)a->pages + slope * (us - (double)a->us);
}

/* Pages beyond the last point, `us` after it: new ones become rarer as they did towards the end. */
static double beyond(const struct world *w, double us)
{
    const struct forecast_point *c = &w->hull[w->n_hull - 1], *b = c - 1, *a;
    double last = on_line(b, c, (double)c->us + us) - (double)c->pages, before, x;

    if (w->n_hull < 3 || last <= 0)
        return last;
    a = b - 1;
    before = on_line(a, b, (double)b->us + us) - (double)b->pages;
    x = 2 * (before - last) / (before + last) * us / ((double)(c->us - a->us) / 2);
    return x < 1e-6 ? last : last / x * (1 - 1 / (1 + x + x * x / 2)); /* about 1 - exp(-x) */
}

static double written(const struct world *w, double us)
{
    const struct forecast_point *end = &w->hull[w->n_hull - 1];
    unsigned i = 1;
    double pages;

    if (w->n_hull < 2 || us <= 0)
        return 0;
    while (i + 1 < w->n_hull && us > (double)w->hull[i].us)
        i++;
    pages = us > (double)end->us ? (double)end->pages + beyond(w, us - (double)end->us)
                                 : on_line(&w->hull[i - 1], &w->hull[i], us);
    return pages > (double)w->in->populated ? (double)w->in->populated : pages;
}

double forecast_written(const struct forecast_input *in, double us)
{
    struct world w = { .in = in };

    make_hull(in, &w);
    return written(&w, us);
}

/* --- one run --- */

/* The newest figure that is known for that round, of those from round 1 on. */
static double of_round(const double by_round[FORECAST_ROUNDS], uint32_t round, double unknown)
{
    for (uint32_t i = round < FORECAST_ROUNDS ? round : FORECAST_ROUNDS - 1; i > 0; i--)
        if (by_round[i] > 0)
            return by_round[i];
    return unknown;
}

static double page_bytes(const struct forecast_input *in, uint32_t round)
{
    return of_round(in->round_bytes, round, in->page_bytes > 0 ? in->page_bytes : PAGE_WIRE_BYTES);
}

/* Microseconds for a page with content. */
static double page_us(const struct world *w, uint32_t round)
{
    const struct forecast_input *in = w->in;
    double ns = of_round(in->round_ns, round, round == 0 ? in->first_ns : in->again_ns);
    double us = ns / 1000 * w->costs;
    double capped = in->cap > 0 ? page_bytes(in, round) * 1e6 / (double)in->cap : 0;

    return us > capped ? us : capped;
}

/* Deltas pay as they do in choice.c: what the rounds to come, as many as were, would gain. */
static bool cache_pays(const struct world *w, uint32_t round)
{
    const struct forecast_input *in = w->in;

    if (in->admit_ns <= 0 || in->hit_ns <= 0 || round == 0 || in->round_ns[1] > 0)
        return false;
    return round * (page_us(w, round) * 1000 - in->hit_ns) > in->admit_ns;
}

/* Microseconds for a page of which a share of `hits` are in the cache. */
static double mixed_us(const struct world *w, uint32_t round, double hits)
{
    const struct forecast_input *in = w->in;
    double whole = page_us(w, round);
    double hit = in->hit_ns / 1000 * w->costs + whole * in->hit_bytes / page_bytes(in, round);
    double miss = whole + (cache_pays(w, round) ? in->admit_ns / 1000 * w->costs : 0);

    return hits * hit + (1 - hits) * miss;
}

struct state {
    double cached;          /* pages */
    double work, before_us; /* pages of this round; how long the window was that found them */
    double zero_share;
    double at_us;
    uint32_t round;
    unsigned throttle;
};

static double slowed(const struct world *w, const struct state *s, double us)
{
    return us * w->speed * (1.0 - s->throttle / 100.0);
}

/* Of this round's pages, those written again within `us` of its beginning. */
static double again(const struct world *w, const struct state *s, double us)
{
    double t = slowed(w, s, us), p = slowed(w, s, s->before_us), both;

    if (s->round == 0)
        return written(w, t);
    both = written(w, p) + written(w, t) - written(w, p + t);
    return both < 0 ? 0 : both > s->work ? s->work : both;
}

static double left_out(const struct world *w, const struct state *s, double us)
{
    double sum = 0;

    for (int i = 0; i < STEPS; i++) {
        double t = us * (i + 0.5) / STEPS - PEEK_US;

        sum += t > 0 ? again(w, s, t) : 0;
    }
    return sum / STEPS;
}

/* Of a round's pages, those that are in the cache. */
static double hits_of(const struct world *w, const struct state *s)
{
    double all = written(w, s->at_us * w->speed);

    return s->cached <= 0 ? 0 : s->cached >= all ? 1 : s->cached / all;
}

static void play_round(const struct world *w, const struct state *s, struct policy_round *r)
{
    double hits = hits_of(w, s);
    double cost = (1 - s->zero_share) * mixed_us(w, s->round, hits) +
                  s->zero_share * w->in->zero_ns / 1000 * w->costs;
    double base = (double)w->in->round_us > ROUND_MIN_US ? (double)w->in->round_us : ROUND_MIN_US;
    double skipped = 0, us = base;

    for (int i = 0; i < ITERATIONS; i++) {
        us = base + (s->work - skipped) * cost;
        skipped = (skipped + left_out(w, s, us)) / (i == 0 ? 1 : 2);
    }
    memset(r, 0, sizeof *r);
    r->pages_skipped = (uint64_t)skipped;
    r->pages_zero = (uint64_t)((s->work - skipped) * s->zero_share);
    r->pages_sent = (uint64_t)((s->work - skipped) * (1 - s->zero_share));
    r->bytes = (uint64_t)((double)r->pages_sent *
                          (hits * w->in->hit_bytes + (1 - hits) * page_bytes(w->in, s->round)));
    r->duration_us = (uint64_t)us;
    r->dirty_pages = (uint64_t)(written(w, slowed(w, s, us)) + 0.5);
    r->elapsed_us = (uint64_t)(s->at_us + us);
    if (us > TAIL_US * 4 / 3) {
        r->tail_us = (uint64_t)TAIL_US;
        r->tail_bytes = (uint64_t)((double)r->bytes * TAIL_US / us);
    }
}

static double stop_us(const struct world *w, const struct state *s, double dirty, double window)
{
    double more = written(w, slowed(w, s, window + GAP_US)) - written(w, slowed(w, s, window));

    return (double)w->in->pause_us * w->pauses +
           (dirty + more) * mixed_us(w, s->round, hits_of(w, s));
}

static void give_up(struct run *out, const struct policy_decision *d)
{
    out->converged = false;
    snprintf(out->reason, sizeof out->reason, "%s", d->reason);
}

/* Without a live phase: everything is sent in the pause. */
static void play_stopped(const struct world *w, struct run *out)
{
    double raw = (double)w->in->populated * (1 - w->in->zero_share);
    double zero = (double)w->in->populated * w->in->zero_share;

    out->converged = true;
    out->bytes = raw * page_bytes(w->in, 0);
    out->pause_us = (double)w->in->pause_us * w->pauses + raw * page_us(w, 0) +
                    zero * w->in->zero_ns / 1000 * w->costs;
    out->total_us = (double)w->in->setup_us + out->pause_us;
}

static void play(const struct world *w, struct run *out)
{
    struct state s = { .work = (double)w->in->populated,
        .zero_share = w->in->zero_share,
        .at_us = (double)w->in->setup_us };
    struct policy_decision d;
    struct policy_round r = { 0 };
    struct policy p;

    memset(out, 0, sizeof *out);
    policy_init(&p, &w->in->par);
    policy_begin(&p, &d);
    if (d.action == POLICY_STOP) {
        play_stopped(w, out);
        return;
    }
    while (d.action != POLICY_STOP && d.action != POLICY_GIVE_UP && out->rounds < ROUNDS_MAX) {
        play_round(w, &s, &r);
        policy_round(&p, &r, &d);
        out->rounds++;
        out->bytes += (double)r.bytes;
        if (cache_pays(w, s.round))
            s.cached += (double)r.pages_sent * (1 - hits_of(w, &s));
        s = (struct state){ .cached = s.cached,
            .work = (double)r.dirty_pages,
            .before_us = (double)r.duration_us,
            .at_us = s.at_us + (double)r.duration_us,
            .round = out->rounds,
            .throttle = d.throttle };
    }
    out->throttle = s.throttle;
    out->pause_us = stop_us(w, &s, (double)r.dirty_pages, (double)r.duration_us);
    out->total_us = s.at_us;
    out->converged = d.action == POLICY_STOP;
    if (!out->converged) {
        give_up(out, &d);
        return;
    }
    out->total_us += out->pause_us;
    out->bytes += (double)r.dirty_pages * page_bytes(w->in, s.round);
}

/* --- many runs --- */

/* The i-th of an evenly spread sequence in -1..1; dimension d. */
static double spread(unsigned i, unsigned d)
{
    static const double step[] = { 0.6180339887498949, 0.7548776662466927, 0.5698402909980532 };
    double x = 0.5 + (double)i * step[d];

    return (x - (double)(uint64_t)x) * 2 - 1;
}

static unsigned play_many(const struct forecast_input *in, struct run *run, unsigned n)
{
    struct world w = { .in = in };
    unsigned converged = 0;

    make_hull(in, &w);
    for (unsigned i = 0; i < n; i++) {
        w.costs = i == 0 ? 1 : 1 + SPREAD_LINK * spread(i, 0);
        w.speed = i == 0 ? 1 : 1 + SPREAD_WRITES * spread(i, 1);
        w.pauses = i == 0 ? 1 : 1 + SPREAD_PAUSE * spread(i, 2);
        play(&w, &run[i]);
        converged += run[i].converged;
    }
    return converged;
}

static int by_value(const void *a, const void *b)
{
    double p = *(const double *)a, q = *(const double *)b;

    return p < q ? -1 : p > q;
}

/* Of what `pick` says of those runs that ended as most did: the 10th, 50th and 90th of 100. */
static void quantiles(const struct run *run, unsigned n, bool converged,
    double (*pick)(const struct run *), double out[3])
{
    double v[FORECAST_RUNS];
    unsigned k = 0;

    for (unsigned i = 0; i < n; i++)
        if (run[i].converged == converged)
            v[k++] = pick(&run[i]);
    qsort(v, k, sizeof v[0], by_value);
    for (unsigned q = 0; q < 3; q++)
        out[q] = k == 0 ? 0 : v[(k - 1) * (q == 0 ? 1 : q == 1 ? 5 : 9) / 10];
}

static double pick_total(const struct run *r)
{
    return r->total_us;
}

static double pick_pause(const struct run *r)
{
    return r->pause_us;
}

static double pick_bytes(const struct run *r)
{
    return r->bytes;
}

static double pick_rounds(const struct run *r)
{
    return r->rounds;
}

static double pick_throttle(const struct run *r)
{
    return r->throttle;
}

static void summarise(const struct forecast_input *in, unsigned n, struct forecast *out)
{
    struct run run[FORECAST_RUNS];
    unsigned converged = play_many(in, run, n);
    bool kind = converged * 2 >= n;
    double q[3];

    memset(out, 0, sizeof *out);
    out->converges = (double)converged / n;
    quantiles(run, n, kind, pick_total, q);
    out->total_low_us = (uint64_t)q[0];
    out->total_us = (uint64_t)q[1];
    out->total_high_us = (uint64_t)q[2];
    quantiles(run, n, kind, pick_pause, q);
    out->pause_low_us = (uint64_t)q[0];
    out->pause_us = (uint64_t)q[1];
    out->pause_high_us = (uint64_t)q[2];
    quantiles(run, n, kind, pick_bytes, q);
    out->wire_bytes = (uint64_t)q[1];
    quantiles(run, n, kind, pick_rounds, q);
    out->rounds = (uint32_t)q[1];
    quantiles(run, n, kind, pick_throttle, q);
    out->throttle = (unsigned)q[1];
    for (unsigned i = 0; i < n && out->reason[0] == '\0'; i++)
        if (!run[i].converged)
            snprintf(out->reason, sizeof out->reason, "%s", run[i].reason);
}

/* --- the knob --- */

/* Does `in` change it for the better, compared with `base`? */
static bool helps(const struct forecast_input *in, const struct forecast *base, struct forecast *f)
{
    summarise(in, KNOB_RUNS, f);
    if (f->converges < SURE)
        return false;
    if (base->converges < SURE)
        return true;
    if (base->throttle > 0 && f->throttle * 2 <= base->throttle)
        return true;
    return (double)f->total_us < HALF * (double)base->total_us ||
           (base->pause_us > WORTH_US && (double)f->pause_us < HALF * (double)base->pause_us);
}

static bool more_channels(
    const struct forecast_input *in, const struct forecast *base, struct forecast *out)
{
    struct forecast_input t = *in;
    struct forecast f;

    for (t.channels = in->channels * 2; t.channels <= in->channels_useful; t.channels *= 2) {
        double gain = (double)t.channels / in->channels;

        t.first_ns = in->first_ns / gain;
        t.again_ns = in->again_ns / gain;
        for (unsigned i = 0; i < FORECAST_ROUNDS; i++)
            t.round_ns[i] = in->round_ns[i] / gain;
        if (!helps(&t, base, &f))
            continue;
        snprintf(out->knob, sizeof out->knob, "--channels %u", t.channels);
        return true;
    }
    return false;
}

static bool higher_cap(
    const struct forecast_input *in, const struct forecast *base, struct forecast *out)
{
    struct forecast_input t = *in;
    double most = page_bytes(in, 0) * 1e9 / in->first_ns;
    struct forecast f;

    if (in->cap == 0)
        return false;
    for (t.cap = in->cap * 2; (double)t.cap < most; t.cap *= 2) {
        t.par.bandwidth_cap = t.cap;
        if (!helps(&t, base, &f))
            continue;
        snprintf(out->knob, sizeof out->knob, "--bandwidth %.0fM", (double)t.cap / MIB);
        return true;
    }
    t.cap = t.par.bandwidth_cap = 0;
    if (!helps(&t, base, &f))
        return false;
    snprintf(out->knob, sizeof out->knob, "no --bandwidth cap");
    return true;
}

static bool longer_budget(
    const struct forecast_input *in, const struct forecast *base, struct forecast *out)
{
    static const unsigned ms[] = { 20, 50, 100, 200, 300, 500, 1000, 2000, 3000, 5000 };
    struct forecast_input t = *in;
    struct forecast f;

    for (size_t i = 0; i < sizeof ms / sizeof ms[0]; i++) {
        t.par.budget_us = ms[i] * UINT64_C(1000);
        if (t.par.budget_us <= in->par.budget_us || !helps(&t, base, &f))
            continue;
        snprintf(out->knob, sizeof out->knob, "--budget %ums", ms[i]);
        return true;
    }
    return false;
}

static bool stronger_throttle(
    const struct forecast_input *in, const struct forecast *base, struct forecast *out)
{
    static const unsigned percent[] = { 30, 50, 80, 95, 99 };
    struct forecast_input t = *in;
    struct forecast f;

    for (size_t i = 0; i < sizeof percent / sizeof percent[0]; i++) {
        t.par.throttle_max = percent[i];
        if (percent[i] <= in->par.throttle_max || !helps(&t, base, &f))
            continue;
        snprintf(out->knob, sizeof out->knob, "--throttle-max %u", percent[i]);
        return true;
    }
    return false;
}

static bool longer_limit(
    const struct forecast_input *in, const struct forecast *base, struct forecast *out)
{
    struct forecast_input t = *in;
    struct forecast f;

    if (in->par.time_limit_us == 0)
        return false;
    for (unsigned k = 2; k <= 16; k *= 2) {
        t.par.time_limit_us = in->par.time_limit_us * k;
        if (!helps(&t, base, &f))
            continue;
        snprintf(out->knob, sizeof out->knob, "--time-limit %" PRIu64 "s",
            t.par.time_limit_us / 1000000);
        return true;
    }
    return false;
}

static void last_resort(
    const struct forecast_input *in, const struct forecast *base, struct forecast *out)
{
    struct forecast_input t = *in;
    struct forecast f;

    if (base->converges >= SURE)
        return;
    t.par.live = false;
    summarise(&t, KNOB_RUNS, &f);
    snprintf(out->knob, sizeof out->knob, "--not-live (the guest would stand still for %.1f s)",
        (double)f.pause_us / 1e6);
}

/* Cheapest first: for the guest, and for who else uses the link and the hosts. */
static void find_knob(const struct forecast_input *in, struct forecast *out)
{
    const struct forecast base = *out;

    if (!in->par.live || more_channels(in, &base, out) || higher_cap(in, &base, out) ||
        longer_limit(in, &base, out) || longer_budget(in, &base, out) ||
        stronger_throttle(in, &base, out))
        return;
    last_resort(in, &base, out);
}

static struct forecast_input sane(const struct forecast_input *in)
{
    struct forecast_input t = *in;

    if (t.par.budget_us == 0)
        t.par.budget_us = POLICY_DEFAULT_BUDGET_MS * UINT64_C(1000);
    t.channels = t.channels == 0 ? 1 : t.channels;
    t.first_ns = t.first_ns < 1 ? 1 : t.first_ns;
    t.again_ns = t.again_ns < 1 ? 1 : t.again_ns;
    t.par.bandwidth_cap = t.cap;
    return t;
}

void forecast_play(const struct forecast_input *in, struct forecast *out)
{
    const struct forecast_input t = sane(in);

    summarise(&t, FORECAST_RUNS, out);
}

void forecast_make(const struct forecast_input *in, struct forecast *out)
{
    const struct forecast_input t = sane(in);

    summarise(&t, FORECAST_RUNS, out);
    find_knob(&t, out);
}
