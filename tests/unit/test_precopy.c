/* SPDX-License-Identifier: ISC */
/* The engine end to end: two worker processes, a guest that writes, real sockets. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "precopy_lab.h"

#define MIB_PAGES 256u

/* A link through a sanitizer is some twenty times slower than one without. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define BUDGET_MS 4000
#else
#define BUDGET_MS 300
#endif

static Migrd__PrecopyParams live_params(unsigned channels)
{
    Migrd__PrecopyParams p = MIGRD__PRECOPY_PARAMS__INIT;

    p.live = 1;
    p.channels = channels;
    p.pause_budget_ms = BUDGET_MS;
    p.throttle_max = 80;
    return p;
}

static void show(const char *name, const struct lab *l)
{
    const Migrd__Finished *f = lab_finished(l, LAB_SRC);

    if (f == NULL)
        return;
    print_message("    %s: %s %s, %.3f s, pause %.2f ms, %zu rounds, %.1f MiB, %s, cpu %.0f ms\n",
        name, f->ok ? "ok" : f->code, f->text, (double)f->total_us / 1e6, (double)f->pause_us / 1e3,
        f->n_rounds, (double)f->wire_bytes / 1048576, f->cipher, (double)f->cpu_us / 1e3);
    for (size_t i = 0; i < f->n_pause_steps; i++)
        print_message(
            "      %s %.2f ms\n", f->pause_steps[i]->name, (double)f->pause_steps[i]->us / 1e3);
}

static void check_moved(const struct lab *l)
{
    const Migrd__Finished *s = lab_finished(l, LAB_SRC), *t = lab_finished(l, LAB_DST);

    assert_non_null(s);
    assert_non_null(t);
    assert_string_equal(s->text, "");
    assert_true(s->ok);
    assert_true(t->ok);
    assert_int_equal(s->phase, MIGRD__PHASE__PHASE_DONE);
    assert_int_equal(l->end[0].status, 0);
    assert_int_equal(l->end[1].status, 0);
    assert_false(atomic_load(&l->d[LAB_SRC]->run));
    assert_true(atomic_load(&l->d[LAB_DST]->loaded));
    assert_int_equal(l->go_received, 1);
    for (uint64_t g = 0; g <= fake_max_gfn(l->d[0]); g++)
        if (memcmp(fake_page(l->d[0], g), fake_page(l->d[1], g), HV_PAGE_SIZE) != 0)
            fail_msg("page %llu differs", (unsigned long long)g);
}

static void migrate(const char *name, const struct lab_scenario *sc, uint64_t rate, uint64_t ws)
{
    struct lab l;

    lab_init(&l, sc, 64 * MIB_PAGES);
    fake_fill(l.d[LAB_SRC], 8, 4);
    l.d[LAB_SRC]->ws_first = 1024;
    l.d[LAB_SRC]->ws_pages = ws;
    l.d[LAB_SRC]->pages_per_s = rate;
    fake_start_guest(l.d[LAB_SRC]);
    assert_true(lab_run(&l));
    show(name, &l);
    check_moved(&l);
    lab_end(&l);
}

static void test_idle(void **state)
{
    struct lab_scenario sc = { .par = live_params(1) };

    (void)state;
    migrate("idle", &sc, 0, 1);
}

static void test_writing(void **state)
{
    struct lab_scenario sc = { .par = live_params(2) };

    (void)state;
    migrate("16 MiB at 40 MiB/s, 2 channels", &sc, 40 * MIB_PAGES, 16 * MIB_PAGES);
}

static void test_fast_writer(void **state)
{
    struct lab_scenario sc = { .par = live_params(4) };

    (void)state;
    sc.par.verify = 1;
    migrate("32 MiB at 400 MiB/s, 4 channels, verify", &sc, 400 * MIB_PAGES, 32 * MIB_PAGES);
}

static void test_not_live(void **state)
{
    struct lab_scenario sc = { .par = live_params(2) };

    (void)state;
    sc.par.live = 0;
    migrate("not live", &sc, 40 * MIB_PAGES, 16 * MIB_PAGES);
}

/* Where the hypervisor has no dirty log for this guest: refused by name, or paused where that was
 * allowed; one that cannot move at all is refused either way. */
static void test_no_dirty_log(void **state)
{
    static const struct {
        bool allow, never, live;
        const char *text;
    } cases[] = {
        { false, false, true, "there is no dirty log; with --allow-paused (or without --live) it is "
                              "paused for the time that its move takes" },
        { true, false, true, NULL },
        { false, false, false, NULL },
        { true, true, true, "cannot be moved: it is nailed down" },
        { false, true, false, "cannot be moved: it is nailed down" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lab_scenario sc = { .par = live_params(1) };
        struct lab l;

        sc.par.live = cases[i].live;
        sc.par.allow_paused = cases[i].allow;
        lab_init(&l, &sc, MIB_PAGES);
        fake_fill(l.d[LAB_SRC], 8, 4);
        l.d[LAB_SRC]->ws_pages = 16;
        l.d[LAB_SRC]->pages_per_s = 100;
        atomic_store(&l.d[LAB_SRC]->no_live, true);
        atomic_store(&l.d[LAB_SRC]->no_move, cases[i].never);
        fake_start_guest(l.d[LAB_SRC]);
        lab_run(&l);
        assert_non_null(lab_finished(&l, LAB_SRC));
        if (cases[i].text == NULL) {
            check_moved(&l);
            assert_int_equal(lab_finished(&l, LAB_SRC)->n_rounds, 1);
        } else {
            assert_non_null(strstr(lab_finished(&l, LAB_SRC)->text, cases[i].text));
            assert_string_equal(lab_finished(&l, LAB_SRC)->code, "unsupported");
            assert_true(lab_finished(&l, LAB_SRC)->guest_resumed);
        }
        lab_end(&l);
    }
}

/* A guest whose memory leaves as one stream: by one channel, page after page, the state last; it is
 * not read again to be compared. */
static void test_stream(void **state)
{
    (void)state;
    for (int verify = 0; verify < 2; verify++) {
        struct lab_scenario sc = { .par = live_params(3), .sandbox = true };
        struct lab l;

        sc.par.allow_paused = 1;
        sc.par.verify = verify;
        sc.par.compression = MIGRD__COMPRESSION__COMPRESSION_LZ4;
        lab_init(&l, &sc, 8 * MIB_PAGES);
        fake_fill(l.d[LAB_SRC], 8, 4);
        for (int i = 0; i < 2; i++) {
            atomic_store(&l.d[i]->stream, true);
            atomic_store(&l.d[i]->no_live, true);
        }
        l.d[LAB_SRC]->ws_pages = 16;
        l.d[LAB_SRC]->pages_per_s = 100;
        fake_start_guest(l.d[LAB_SRC]);
        lab_run(&l);
        assert_non_null(lab_finished(&l, LAB_SRC));
        if (!verify) {
            check_moved(&l);
            assert_int_equal(lab_finished(&l, LAB_SRC)->channels, 1);
            assert_int_equal(lab_finished(&l, LAB_SRC)->verified_pages, 0);
        } else {
            assert_non_null(strstr(lab_finished(&l, LAB_SRC)->text, "leaves as one stream"));
            assert_true(lab_finished(&l, LAB_SRC)->guest_resumed);
        }
        lab_end(&l);
    }
}

static uint64_t pages_in(const Migrd__Finished *f, const char *encoding)
{
    for (size_t i = 0; i < f->n_encodings; i++)
        if (strcmp(f->encodings[i]->encoding, encoding) == 0)
            return f->encodings[i]->pages;
    return 0;
}

/* A guest that rewrites the same pages for several rounds, on a link that does not keep up with
 * whole ones; `encoding` must have been used, and reported alike on both sides. */
static void migrate_encoded(const char *encoding, const struct lab_scenario *sc)
{
    const Migrd__Finished *s, *t;
    struct lab l;

    lab_init(&l, sc, 64 * MIB_PAGES);
    fake_fill(l.d[LAB_SRC], 8, 4);
    l.d[LAB_SRC]->ws_first = 1024;
    l.d[LAB_SRC]->ws_pages = 16 * MIB_PAGES;
    l.d[LAB_SRC]->pages_per_s = 60 * MIB_PAGES;
    fake_start_guest(l.d[LAB_SRC]);
    assert_true(lab_run(&l));
    show(encoding, &l);
    check_moved(&l);
    s = lab_finished(&l, LAB_SRC);
    t = lab_finished(&l, LAB_DST);
    assert_true(pages_in(s, encoding) > 0);
    assert_int_equal(pages_in(s, encoding), pages_in(t, encoding));
    lab_end(&l);
}

static void test_encodings(void **state)
{
    struct lab_scenario sc = { .par = live_params(2), .sandbox = true };

    (void)state;
    sc.par.bandwidth = 40 << 20;
    sc.par.pause_budget_ms = BUDGET_MS / 4;
    sc.par.delta_cache = 1 << 30;
    sc.par.compression = MIGRD__COMPRESSION__COMPRESSION_NONE;
    migrate_encoded("delta", &sc);
    sc.par.delta_cache = 0;
    sc.par.bandwidth = 0;
    sc.par.pause_budget_ms = BUDGET_MS;
    sc.par.compression = MIGRD__COMPRESSION__COMPRESSION_LZ4;
    migrate_encoded("lz4", &sc);
    sc.par.compression = MIGRD__COMPRESSION__COMPRESSION_ZSTD;
    migrate_encoded("zstd", &sc);
}

static void test_sandbox(void **state)
{
    struct lab_scenario sc = { .par = live_params(2), .sandbox = true };

    (void)state;
    sc.par.verify = 1;
    migrate("in the sandbox", &sc, 40 * MIB_PAGES, 16 * MIB_PAGES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_writing),
        cmocka_unit_test(test_fast_writer),
        cmocka_unit_test(test_not_live),
        cmocka_unit_test(test_no_dirty_log),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_encodings),
        cmocka_unit_test(test_sandbox),
    };

    return cmocka_run_group_tests_name("precopy", tests, NULL, NULL);
}
