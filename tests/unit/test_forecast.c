/* SPDX-License-Identifier: ISC */
/*
 * The forecast against a guest played page by page: a writer of a known kind dirties a
 * bitmap, a sender works it off in the order of the pages and leaves out what it knows to
 * be dirty again, the real policy decides. The forecast sees only what a dry run would: the
 * curve, the costs. Total, pause, bytes and the verdict must agree.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "precopy/forecast.h"

#define STEP_US 500.0
#define PEEK_US 20000.0
#define PAGE 4120.0

enum writer { ROUND_ROBIN, ANYWHERE, HOT_AND_COLD };

struct guest {
    enum writer kind;
    uint32_t pages, ws, hot; /* of its memory; written ever; written most */
    double rate;             /* pages per second */
    uint8_t *dirty, *known;  /* since the collect; at the last peek */
    uint32_t at;
    uint64_t rng;
    double owed;
};

static uint32_t chance(struct guest *g, uint32_t n)
{
    g->rng = g->rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((g->rng >> 33) % n);
}

static uint32_t next_page(struct guest *g)
{
    switch (g->kind) {
    case ROUND_ROBIN:
        return g->at = (g->at + 1) % g->ws;
    case HOT_AND_COLD:
        return chance(g, 10) > 0 ? chance(g, g->hot) : chance(g, g->ws);
    case ANYWHERE:
        break;
    }
    return chance(g, g->ws);
}

static void runs(struct guest *g, double us, unsigned throttle)
{
    g->owed += g->rate * us / 1e6 * (1 - throttle / 100.0);
    for (; g->owed >= 1; g->owed--)
        g->dirty[next_page(g)] = 1;
}

static uint32_t dirty_pages(const struct guest *g)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < g->pages; i++)
        n += g->dirty[i];
    return n;
}

static void made(struct guest *g)
{
    g->dirty = calloc(g->pages, 1);
    g->known = calloc(g->pages, 1);
    assert_non_null(g->dirty);
    assert_non_null(g->known);
}

static void gone(struct guest *g)
{
    free(g->dirty);
    free(g->known);
}

static void sample(struct guest *g, struct forecast_input *in)
{
    static const uint64_t at[] = { 10, 25, 50, 100, 200, 400, 700, 1000, 1500, 2500, 5000 };
    uint64_t now = 0;

    memset(g->dirty, 0, g->pages);
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        runs(g, (double)(at[i] * 1000 - now), 0);
        now = at[i] * 1000;
        in->curve[in->n_curve++] = (struct forecast_point){ now, dirty_pages(g) };
    }
}

struct truth {
    bool converged;
    double total_us, pause_us, bytes;
    unsigned throttle;
};

/* Sends `work` in order; returns the pages that went out. */
static uint32_t send_round(struct guest *g, const struct forecast_input *in, const uint8_t *work,
    bool first, unsigned throttle, double *us)
{
    double cost = (first ? in->first_ns : in->again_ns) / 1000, next_peek = PEEK_US, done = 0;
    uint32_t sent = 0;

    if (in->cap > 0 && cost < PAGE * 1e6 / (double)in->cap)
        cost = PAGE * 1e6 / (double)in->cap;
    memset(g->known, 0, g->pages);
    *us = (double)in->round_us;
    runs(g, *us, throttle);
    for (uint32_t i = 0; i < g->pages; i++) {
        if (!work[i] || g->known[i])
            continue;
        sent++;
        *us += cost;
        done += cost;
        if (done < STEP_US)
            continue;
        runs(g, done, throttle);
        done = 0;
        if (*us > next_peek) {
            memcpy(g->known, g->dirty, g->pages);
            next_peek = *us + PEEK_US;
        }
    }
    runs(g, done, throttle);
    return sent;
}

static void really(struct guest *g, const struct forecast_input *in, struct truth *out)
{
    uint8_t *work = malloc(g->pages);
    struct policy_decision d = { 0 };
    struct policy p;
    double us, now = (double)in->setup_us;
    bool first = true;

    assert_non_null(work);
    memset(work, 1, g->pages);
    memset(g->dirty, 0, g->pages);
    memset(out, 0, sizeof *out);
    policy_init(&p, &in->par);
    do {
        uint32_t sent = send_round(g, in, work, first, d.throttle, &us);
        struct policy_round r = { .pages_sent = sent,
            .bytes = (uint64_t)(sent * PAGE),
            .duration_us = (uint64_t)us,
            .dirty_pages = dirty_pages(g) };

        now += us;
        r.elapsed_us = (uint64_t)now;
        out->bytes += (double)r.bytes;
        memcpy(work, g->dirty, g->pages);
        memset(g->dirty, 0, g->pages);
        policy_round(&p, &r, &d);
        first = false;
    } while (d.action != POLICY_STOP && d.action != POLICY_GIVE_UP);
    out->converged = d.action == POLICY_STOP;
    out->throttle = d.throttle;
    memset(g->dirty, 0, g->pages);
    send_round(g, in, work, false, 99, &us);
    out->pause_us = (double)in->pause_us + us - (double)in->round_us;
    out->total_us = now + (out->converged ? out->pause_us : 0);
    free(work);
}

static struct forecast_input input(uint32_t pages)
{
    return (struct forecast_input){ .populated = pages,
        .first_ns = 2000,
        .again_ns = 1500,
        .zero_ns = 150,
        .round_us = 1000,
        .setup_us = 100000,
        .pause_us = 6000,
        .channels = 1,
        .channels_useful = 1,
        .par = { .budget_us = 100000, .fixed_us = 6600, .throttle_max = 80, .live = true } };
}

static void near(const char *what, double is, double want, double share)
{
    if (is >= want * (1 - share) && is <= want * (1 + share))
        return;
    fail_msg("%s: forecast %.1f, was %.1f", what, is, want);
}

static void compare(struct guest *g, struct forecast_input *in)
{
    struct forecast f;
    struct truth t;

    made(g);
    sample(g, in);
    forecast_make(in, &f);
    really(g, in, &t);
    gone(g);
    print_message(
        "  forecast %7.1f ms, pause %6.1f ms, %2u rounds, throttle %2u, %3.0f %%; was %7.1f "
        "ms, pause %6.1f ms, throttle %2u%s  [%s]\n",
        (double)f.total_us / 1e3, (double)f.pause_us / 1e3, f.rounds, f.throttle, f.converges * 100,
        t.total_us / 1e3, t.pause_us / 1e3, t.throttle, t.converged ? "" : ", gave up", f.knob);
    assert_true(t.converged ? f.converges > 0.5 : f.converges < 0.5);
    near("total", (double)f.total_us, t.total_us, 0.25);
    near("pause", (double)f.pause_us, t.pause_us, 0.5);
    if (!t.converged)
        return;
    near("bytes", (double)f.wire_bytes, t.bytes + t.pause_us / in->again_ns * 1000 * PAGE, 0.25);
}

static void test_idle(void **state)
{
    struct forecast_input in = input(200000);
    struct guest g = { .kind = ANYWHERE, .pages = 200000, .ws = 100, .rate = 50 };

    (void)state;
    compare(&g, &in);
}

static void test_round_robin(void **state)
{
    (void)state;
    for (double mib = 100; mib <= 1600; mib *= 2) {
        struct forecast_input in = input(262144);
        struct guest g = {
            .kind = ROUND_ROBIN, .pages = 262144, .ws = 65536, .rate = mib * 256, .rng = 1
        };

        compare(&g, &in);
    }
}

static void test_anywhere(void **state)
{
    (void)state;
    for (double mib = 100; mib <= 1600; mib *= 2) {
        struct forecast_input in = input(262144);
        struct guest g = {
            .kind = ANYWHERE, .pages = 262144, .ws = 65536, .rate = mib * 256, .rng = 2
        };

        compare(&g, &in);
    }
}

static void test_hot_and_cold(void **state)
{
    (void)state;
    for (double mib = 200; mib <= 3200; mib *= 2) {
        struct forecast_input in = input(262144);
        struct guest g = { .kind = HOT_AND_COLD,
            .pages = 262144,
            .ws = 200000,
            .hot = 2000,
            .rate = mib * 256,
            .rng = 3 };

        compare(&g, &in);
    }
}

static void test_too_fast(void **state)
{
    struct forecast_input in = input(131072);
    struct guest g = { .kind = ANYWHERE, .pages = 131072, .ws = 65536, .rate = 50000, .rng = 4 };
    struct forecast f;

    (void)state;
    in.cap = in.par.bandwidth_cap = 20 << 20;
    in.par.throttle_max = 0;
    compare(&g, &in);
    forecast_make(&in, &f);
    assert_true(f.converges < 0.1);
    assert_non_null(strstr(f.reason, "does not converge"));
    assert_non_null(strstr(f.knob, "--bandwidth"));
    in.cap = 0;
    forecast_make(&in, &f);
    assert_true(f.converges > 0.9);
}

/* The knobs, one after the other: each is named where it is the cheapest that helps. */
static void test_knobs(void **state)
{
    struct forecast_input in = input(131072);
    struct forecast f;

    (void)state;
    in.curve[in.n_curve++] = (struct forecast_point){ 1000, 50000 };
    in.curve[in.n_curve++] = (struct forecast_point){ 1000000, 60000 };
    in.par.throttle_max = 0;
    in.par.budget_us = 20000;
    in.channels_useful = 4;
    forecast_make(&in, &f);
    assert_true(f.converges < 0.1);
    assert_non_null(strstr(f.knob, "--budget")); /* four channels are not enough for 20 ms */
    in.par.budget_us = 50000;
    forecast_make(&in, &f);
    assert_string_equal(f.knob, "--channels 4");
    in.par.live = false;
    forecast_make(&in, &f);
    assert_true(f.converges > 0.9);
    assert_string_equal(f.knob, "");
}

/* Pages that change little: cheaper where the cache pays, and as without it where it does not. */
static void test_deltas(void **state)
{
    struct forecast_input in = input(131072);
    struct forecast without, with, dear;

    (void)state;
    in.curve[in.n_curve++] = (struct forecast_point){ 100000, 20000 };
    in.curve[in.n_curve++] = (struct forecast_point){ 1000000, 25000 };
    in.again_ns = 40000;
    in.par.budget_us = 20000;
    forecast_play(&in, &without);
    in.admit_ns = 3000;
    in.hit_ns = 1000;
    in.hit_bytes = 80;
    forecast_play(&in, &with);
    assert_true(with.total_us < without.total_us);
    assert_true(with.wire_bytes < without.wire_bytes);
    assert_true(with.pause_us <= without.pause_us);
    in.admit_ns = 1e12;
    forecast_play(&in, &dear);
    assert_int_equal(dear.total_us, without.total_us);
    assert_int_equal(dear.wire_bytes, without.wire_bytes);
}

static void test_curve(void **state)
{
    struct forecast_input in = { .populated = 1000, .n_curve = 3 };

    (void)state;
    assert_true(forecast_written(&in, 0) == 0);
    in.curve[0] = (struct forecast_point){ 300, 300 };
    in.curve[1] = (struct forecast_point){ 100, 200 };
    in.curve[2] = (struct forecast_point){ 200, 150 }; /* noise: less than before */
    assert_true(forecast_written(&in, 50) == 100);
    assert_true(forecast_written(&in, 200) == 250);
    assert_true(forecast_written(&in, 400) > 320);
    assert_true(forecast_written(&in, 400) < 350); /* ever fewer */
    assert_true(forecast_written(&in, 1e9) < 400);
    in.n_curve = 1;
    assert_true(forecast_written(&in, 1e9) == 1000); /* no sign of an end but the memory's */
    in.n_curve = 0;
    assert_true(forecast_written(&in, 1e9) == 0);
}

/* Twice the same gives the same; odd inputs end. */
static void test_odd(void **state)
{
    struct forecast_input in = input(0);
    struct forecast a, b;

    (void)state;
    forecast_make(&in, &a);
    forecast_make(&in, &b);
    assert_memory_equal(&a, &b, sizeof a);
    assert_true(a.converges > 0.9);
    in = (struct forecast_input){ .par = { .live = true } };
    forecast_make(&in, &a);
    in = input(UINT32_MAX);
    in.curve[in.n_curve++] = (struct forecast_point){ 1, UINT32_MAX };
    in.par.fixed_us = 1000000;
    forecast_make(&in, &a);
    assert_true(a.converges == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_curve),
        cmocka_unit_test(test_odd),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_round_robin),
        cmocka_unit_test(test_anywhere),
        cmocka_unit_test(test_hot_and_cold),
        cmocka_unit_test(test_too_fast),
        cmocka_unit_test(test_knobs),
        cmocka_unit_test(test_deltas),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
