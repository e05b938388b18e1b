/* SPDX-License-Identifier: ISC */
/*
 * The sample that is compared before a guest changes hosts: which pages are in it, and at
 * what rate it finds a page whose dirty bit was lost, against the formula of docs/precopy.md.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "precopy/pages.h"
#include "precopy/verify.h"

#define PAGES 65536u
#define WORDS (PAGES / 64)
#define TRIALS 2000u

struct memory {
    uint64_t populated[WORDS], ever_dirty[WORDS], last[WORDS];
    struct verify_range pick[VERIFY_SAMPLE_MAX];
};

/* Pages [0, populated), of which [from, from + dirty) were dirty, the last ones of them at the end.
 */
static struct memory *memory(uint64_t populated, uint64_t from, uint64_t dirty, uint64_t last)
{
    struct memory *m = calloc(1, sizeof *m);

    assert_non_null(m);
    for (uint64_t i = 0; i < populated; i++)
        bitmap_set(m->populated, i);
    for (uint64_t i = from; i < from + dirty; i++)
        bitmap_set(m->ever_dirty, i);
    for (uint64_t i = from + dirty - last; i < from + dirty; i++)
        bitmap_set(m->last, i);
    return m;
}

static size_t sample(struct memory *m, uint64_t seed)
{
    struct verify_population p = { m->populated, m->ever_dirty, m->last, WORDS };

    return verify_sample(&p, seed, m->pick);
}

static bool is_suspect(const struct memory *m, uint64_t gfn)
{
    return bitmap_test(m->ever_dirty, gfn) && !bitmap_test(m->last, gfn);
}

static void check(struct memory *m, size_t want_suspects, size_t want_others)
{
    uint64_t seen[WORDS] = { 0 };
    size_t n = sample(m, 1), suspects = 0;

    assert_int_equal(n, want_suspects + want_others);
    for (size_t i = 0; i < n; i++) {
        uint64_t g = m->pick[i].gfn;

        assert_int_equal(m->pick[i].pages, 1);
        assert_true(g < PAGES);
        assert_true(bitmap_test(m->populated, g) || bitmap_test(m->ever_dirty, g));
        assert_false(bitmap_test(seen, g));
        bitmap_set(seen, g);
        suspects += is_suspect(m, g);
    }
    assert_int_equal(suspects, want_suspects);
    free(m);
}

static void test_shares(void **state)
{
    (void)state;
    check(memory(0, 0, 0, 0), 0, 0);
    check(memory(100, 0, 0, 0), 0, 100);
    check(memory(PAGES, 0, 0, 0), 0, VERIFY_SAMPLE_MAX);
    check(memory(PAGES, 1000, 300, 0), 300, VERIFY_SAMPLE_MAX - 300);
    check(memory(PAGES, 1000, 300, 300), 0, VERIFY_SAMPLE_MAX);
    check(memory(PAGES, 1000, 20000, 100), 768, 256);
    check(memory(20100, 0, 20000, 0), 924, 100);
    check(memory(1, 40000, 25000, 0), VERIFY_SAMPLE_MAX - 1, 1);
}

/* The share of trials in which one lost page, any of the suspects, is in the sample. */
static double caught(struct memory *m, uint64_t from, uint64_t suspects, size_t cut)
{
    unsigned hits = 0;

    for (unsigned t = 0; t < TRIALS; t++) {
        uint64_t lost = from + (t * UINT64_C(2654435761)) % suspects;
        size_t n = sample(m, t * UINT64_C(7919) + 17);

        for (size_t i = 0; i < n && i < cut; i++)
            hits += m->pick[i].gfn == lost;
    }
    return (double)hits / TRIALS;
}

static void rate(uint64_t suspects, size_t cut)
{
    struct memory *m = memory(PAGES, 4096, suspects, 0);
    double k = suspects < 768 ? (double)suspects : 768,
           of = cut < VERIFY_SAMPLE_MAX ? (double)cut / VERIFY_SAMPLE_MAX : 1;
    double formula = of * k / (double)suspects, measured = caught(m, 4096, suspects, cut);
    double off = measured - formula, variance = formula * (1 - formula) / TRIALS;

    print_message(
        "    1 page lost of %5llu suspects, %4zu pages hashed: formula %.3f, measured %.3f\n",
        (unsigned long long)suspects, cut, formula, measured);
    assert_true(off * off <= 25 * variance + 1e-12); /* five standard deviations */
    free(m);
}

static void test_rate(void **state)
{
    (void)state;
    rate(1, VERIFY_SAMPLE_MAX);
    rate(700, VERIFY_SAMPLE_MAX);
    rate(1536, VERIFY_SAMPLE_MAX);
    rate(7680, VERIFY_SAMPLE_MAX);
    rate(60000, VERIFY_SAMPLE_MAX);
    rate(7680, VERIFY_SAMPLE_MAX / 4); /* the time was over after a quarter */
}

static void test_list(void **state)
{
    struct hv_layout layout = {
        .n = 2, .region = { { 0, 160 }, { 1000, 3000 } }, .max_gfn = PAGES - 1
    };
    struct memory *m = memory(PAGES, 0, 0, 0);
    struct verify_range *r;
    uint64_t pages = 0;
    size_t n;

    (void)state;
    assert_int_equal(verify_list(m->populated, &layout, &r, &n, NULL), 0);
    for (size_t i = 0; i < n; i++) {
        assert_true(r[i].gfn / 512 == (r[i].gfn + r[i].pages - 1) / 512);
        pages += r[i].pages;
    }
    assert_int_equal(pages, 3160);
    free(r);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
