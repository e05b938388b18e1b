/* SPDX-License-Identifier: ISC */
/*
 * A dirty bit that is lost on purpose, in whole migrations: a migration with verify never
 * ends well then, one without finds it as often as its sample is large, and a retry at once
 * succeeds in either case.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "precopy_lab.h"

#define PAGES 2048u
#define WS_PAGES 1200u

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define RUNS 12u
#else
#define RUNS 120u
#endif

static void begin(struct lab *l, struct lab_scenario *sc, bool verify, const char *fault)
{
    *sc = (struct lab_scenario){ .fault = { fault, NULL } };
    migrd__precopy_params__init(&sc->par);
    sc->par.live = 1;
    sc->par.verify = verify;
    sc->par.channels = 1;
    sc->par.pause_budget_ms = 2000;
    lab_init(l, sc, PAGES);
    fake_fill(l->d[LAB_SRC], 16, 0);
    l->d[LAB_SRC]->ws_first = 300;
    l->d[LAB_SRC]->ws_pages = WS_PAGES;
    l->d[LAB_SRC]->pages_per_s = 100000;
    fake_start_guest(l->d[LAB_SRC]);
}

static bool same_memory(const struct lab *l)
{
    return memcmp(l->d[0]->mem, l->d[1]->mem, (fake_max_gfn(l->d[0]) + 1) * HV_PAGE_SIZE) == 0;
}

/* Again with the same two domains, as migrd would: new workers, a new copy. */
static void retry(struct lab *l, struct lab_scenario *sc)
{
    for (int i = 0; i < 2; i++) {
        msgconn_free(&l->conn[i]);
        if (l->end[i].m != NULL)
            migrd__from_worker__free_unpacked(l->end[i].m, NULL);
        l->end[i] = (struct lab_end){ NULL, 0 };
    }
    io_close(&l->listener);
    memset(l->seen, 0, sizeof l->seen);
    sc->fault[LAB_SRC] = NULL;
    atomic_store(&l->d[LAB_DST]->loaded, false);
    assert_true(lab_run(l));
    assert_string_equal(lab_finished(l, LAB_SRC)->text, "");
    assert_true(lab_finished(l, LAB_SRC)->ok);
    assert_true(same_memory(l));
}

static void test_verify_always(void **state)
{
    unsigned lost = 0, runs = 0;

    (void)state;
    for (; runs < RUNS / 8 || (lost == 0 && runs < RUNS); runs++) {
        struct lab_scenario sc;
        struct lab l;

        begin(&l, &sc, true, "source-lose-dirty=error");
        assert_true(lab_run(&l));
        if (lab_finished(&l, LAB_SRC)->ok) { /* nothing was dirty at the end: nothing to lose */
            assert_true(same_memory(&l));
            lab_end(&l);
            continue;
        }
        lost++;
        assert_string_equal(lab_finished(&l, LAB_SRC)->code, "integrity");
        assert_true(lab_finished(&l, LAB_SRC)->guest_resumed);
        assert_int_equal(l.go_received, 0);
        assert_true(atomic_load(&l.d[LAB_SRC]->run));
        retry(&l, &sc);
        lab_end(&l);
    }
    print_message("    a bit was lost in %u of %u migrations with verify: all found\n", lost, runs);
    assert_true(lost > 0);
}

/* By the formula at least as often as a sample without classes would find it. */
static void test_sample_rate(void **state)
{
    unsigned lost = 0, found = 0;
    uint64_t compared = 0;

    (void)state;
    for (unsigned i = 0; i < RUNS; i++) {
        struct lab_scenario sc;
        struct lab l;
        const Migrd__Finished *f;

        begin(&l, &sc, false, "source-lose-dirty=error");
        assert_true(lab_run(&l));
        f = lab_finished(&l, LAB_SRC);
        if (!f->ok) {
            assert_string_equal(f->code, "integrity");
            assert_true(f->guest_resumed);
            lost++;
            found++;
        } else if (!same_memory(&l)) {
            lost++;
            compared += f->verified_pages;
            assert_true(f->verified_pages < PAGES);
        }
        lab_end(&l);
    }
    print_message("    a bit was lost in %u of %u migrations, the sample found %u (%.0f%%)\n", lost,
        RUNS, found, lost > 0 ? 100.0 * found / lost : 0);
    assert_true(lost > 0);
    if (lost > found) {
        double k = (double)compared / (lost - found),
               expected = lost * k / (PAGES + FAKE_LOW_PAGES);
        double less = expected - found;

        print_message(
            "    %.0f pages of %u were compared where it was missed: at least %.0f expected\n", k,
            PAGES + FAKE_LOW_PAGES, expected);
        assert_true(less < 0 || less * less <= 16 * expected); /* four standard deviations */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verify_always),
        cmocka_unit_test(test_sample_rate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
