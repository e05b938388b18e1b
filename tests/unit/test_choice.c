/* SPDX-License-Identifier: ISC */
/* The choice of a compression, with costs made up: a link, and what each encoding takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "precopy/choice.h"

#define ALL (1u << FRAME_RAW | 1u << FRAME_LZ4 | 1u << FRAME_ZSTD)
#define BATCH 1024u

struct world {
    double link_ns;                                     /* per byte */
    double ns[FRAME_ENCODINGS], bytes[FRAME_ENCODINGS]; /* per page */
};

static const struct world soft = { .ns = { [FRAME_LZ4] = 3000, [FRAME_ZSTD] = 9000 },
    .bytes = { [FRAME_RAW] = 4096, [FRAME_LZ4] = 1600, [FRAME_ZSTD] = 1100 } };

struct tally {
    unsigned pages[FRAME_ENCODINGS];
};

static void encode(struct choice *c, enum choice_class k, const struct world *w,
    enum frame_encoding e, unsigned pages, struct tally *t, double *bytes)
{
    if (e != FRAME_RAW)
        choice_encoded(
            c, k, e, pages, (uint64_t)(w->ns[e] * pages), (uint64_t)(w->bytes[e] * pages));
    t->pages[e] += pages;
    *bytes += w->bytes[e] * pages;
}

/* While pages are compressed the link drains: writing takes less time than the link. */
static void send(
    struct choice *c, enum choice_class k, const struct world *w, unsigned batches, struct tally *t)
{
    for (unsigned i = 0; i < batches; i++) {
        struct choice_plan plan = choice_next(c, k);
        unsigned trial = plan.trial != plan.encoding ? CHOICE_TRIAL_PAGES : 0;
        double bytes = 0, ns;

        encode(c, k, w, plan.trial, trial, t, &bytes);
        encode(c, k, w, plan.encoding, BATCH - trial, t, &bytes);
        ns = bytes * w->link_ns;
        if (plan.encoding != FRAME_RAW)
            ns = ns > w->ns[plan.encoding] * BATCH ? ns - w->ns[plan.encoding] * BATCH : ns / 10;
        choice_sent(c, (uint64_t)bytes, (uint64_t)ns, plan.encoding == FRAME_RAW && trial == 0);
    }
}

static struct tally after(
    struct choice *c, enum choice_class k, struct world w, double link_ns, unsigned batches)
{
    struct tally t = { { 0 } };

    w.link_ns = link_ns;
    send(c, k, &w, batches, &t);
    return t;
}

static void a_fast_link_is_left_raw(void **state)
{
    struct choice c;
    struct tally t;

    (void)state;
    choice_init(&c, ALL);
    t = after(&c, CHOICE_FIRST, soft, 0.25, 2000);
    assert_true(t.pages[FRAME_RAW] > 1990 * BATCH); /* trials are a thousandth */
    assert_true(t.pages[FRAME_LZ4] > 0 && t.pages[FRAME_ZSTD] > 0);
}

static void a_slow_link_is_compressed(void **state)
{
    struct choice c;
    struct tally t;

    (void)state;
    choice_init(&c, ALL);
    after(&c, CHOICE_FIRST, soft, 2.0, 20); /* 500 MB/s: 2500 bytes saved are 5 us, for 3 */
    t = after(&c, CHOICE_FIRST, soft, 2.0, 500);
    assert_true(t.pages[FRAME_LZ4] > 460 * BATCH);
    choice_init(&c, ALL);
    after(&c, CHOICE_FIRST, soft, 100, 20); /* 10 MB/s */
    t = after(&c, CHOICE_FIRST, soft, 100, 500);
    assert_true(t.pages[FRAME_ZSTD] > 460 * BATCH);
}

static void what_does_not_shrink_stays_raw(void **state)
{
    struct world hard = soft;
    struct choice c;
    struct tally t;

    (void)state;
    hard.bytes[FRAME_LZ4] = hard.bytes[FRAME_ZSTD] = 4096;
    choice_init(&c, ALL);
    after(&c, CHOICE_FIRST, hard, 100, 20);
    t = after(&c, CHOICE_FIRST, hard, 100, 500);
    assert_true(t.pages[FRAME_RAW] > 490 * BATCH);
}

static void it_follows_the_link(void **state)
{
    struct choice c;
    struct tally t;

    (void)state;
    choice_init(&c, ALL);
    after(&c, CHOICE_FIRST, soft, 0.25, 300);
    after(
        &c, CHOICE_FIRST, soft, 20, 300); /* it became slow: noticed by the next trial at latest */
    t = after(&c, CHOICE_FIRST, soft, 20, 300);
    assert_true(t.pages[FRAME_ZSTD] + t.pages[FRAME_LZ4] > 270 * BATCH);
    after(&c, CHOICE_FIRST, soft, 0.25, 1500); /* and fast again */
    t = after(&c, CHOICE_FIRST, soft, 0.25, 300);
    assert_true(t.pages[FRAME_RAW] > 290 * BATCH);
}

static void it_follows_the_processor(void **state)
{
    struct world busy = soft;
    struct choice c;
    struct tally t;

    (void)state;
    busy.ns[FRAME_LZ4] *= 4;
    busy.ns[FRAME_ZSTD] *= 4;
    choice_init(&c, ALL);
    after(&c, CHOICE_AGAIN, soft, 2.0, 100);
    after(&c, CHOICE_AGAIN, busy, 2.0, 100);
    t = after(&c, CHOICE_AGAIN, busy, 2.0, 300);
    assert_true(t.pages[FRAME_RAW] > 290 * BATCH);
}

static void classes_are_apart(void **state)
{
    struct world hard = soft;
    struct choice c;
    struct tally t;

    (void)state;
    hard.bytes[FRAME_LZ4] = hard.bytes[FRAME_ZSTD] = 4096;
    choice_init(&c, ALL);
    after(&c, CHOICE_FIRST, hard, 20, 200);
    after(&c, CHOICE_AGAIN, soft, 20, 50);
    t = after(&c, CHOICE_AGAIN, soft, 20, 200);
    assert_true(t.pages[FRAME_ZSTD] > 150 * BATCH);
    t = after(&c, CHOICE_FIRST, hard, 20, 200);
    assert_true(t.pages[FRAME_RAW] > 190 * BATCH);
}

static void one_alone_is_always_taken(void **state)
{
    struct choice c;
    struct tally t;

    (void)state;
    choice_init(&c, 1u << FRAME_ZSTD);
    t = after(&c, CHOICE_FIRST, soft, 0.1, 300);
    assert_int_equal(t.pages[FRAME_ZSTD], 300 * BATCH);
    choice_init(&c, 1u << FRAME_RAW);
    t = after(&c, CHOICE_FIRST, soft, 1000, 300);
    assert_int_equal(t.pages[FRAME_RAW], 300 * BATCH);
}

static void costs_are_as_measured(void **state)
{
    struct choice c;

    (void)state;
    choice_init(&c, ALL);
    assert_true(choice_cost(&c, CHOICE_FIRST, FRAME_RAW) < 0);
    choice_sent(&c, 8 << 20, 8 << 20, true);
    assert_true(choice_cost(&c, CHOICE_FIRST, FRAME_RAW) == 4096.0);
    assert_true(choice_cost(&c, CHOICE_FIRST, FRAME_LZ4) < 0);
    choice_encoded(&c, CHOICE_FIRST, FRAME_LZ4, 10, 20000, 10000);
    assert_true(choice_cost(&c, CHOICE_FIRST, FRAME_LZ4) == 3000.0);
    assert_true(choice_cost(&c, CHOICE_AGAIN, FRAME_LZ4) < 0);
    choice_sent(&c, 1 << 20, 1 << 18, false); /* faster, but with gaps: does not count */
    assert_true(choice_cost(&c, CHOICE_FIRST, FRAME_RAW) == 4096.0);
    choice_sent(&c, 100, 1 << 18, false); /* nor does a single small write */
    assert_true(choice_cost(&c, CHOICE_FIRST, FRAME_RAW) == 4096.0);
    choice_sent(&c, 1 << 20, 4 << 20, false);
    assert_true(choice_cost(&c, CHOICE_FIRST, FRAME_RAW) > 4096.0);
}

static void the_cache_has_to_pay(void **state)
{
    struct choice c;

    (void)state;
    choice_init(&c, ALL);
    assert_false(choice_cache_pays(&c, 5));  /* nothing is known */
    choice_sent(&c, 8 << 20, 2 << 20, true); /* 4 GB/s: a page takes 1 us */
    assert_false(choice_cache_pays(&c, 10));
    choice_sent(&c, 800 << 20, 800 << 20, true); /* 1 GB/s: 4 us */
    assert_true(choice_cache_pays(&c, 1));
    for (int i = 0; i < 1000; i++)
        choice_cached(&c, CHOICE_ADMIT, 10000); /* memory is dear */
    assert_false(choice_cache_pays(&c, 1));
    assert_true(choice_cache_pays(&c, 4)); /* but it goes on and on */
    for (int i = 0; i < 20000; i++)
        choice_cached(&c, CHOICE_HIT, 5000);
    assert_false(choice_cache_pays(&c, 1000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(costs_are_as_measured),
        cmocka_unit_test(a_fast_link_is_left_raw),
        cmocka_unit_test(a_slow_link_is_compressed),
        cmocka_unit_test(what_does_not_shrink_stays_raw),
        cmocka_unit_test(it_follows_the_link),
        cmocka_unit_test(it_follows_the_processor),
        cmocka_unit_test(classes_are_apart),
        cmocka_unit_test(one_alone_is_always_taken),
        cmocka_unit_test(the_cache_has_to_pay),
    };

    return cmocka_run_group_tests_name("choice", tests, NULL, NULL);
}
