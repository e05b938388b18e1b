/* SPDX-License-Identifier: ISC */
/* What is learned from reports, what survives a restart, and that a damaged file does no harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "migrd/link_history.h"

static const struct link_kind here = { .host = "b.lab", .port = 8002, .channels = 1, .tls = true };
static const struct link_kind packed = { .host = "b.lab",
    .port = 8002,
    .channels = 1,
    .tls = true,
    .compression = MIGRD__COMPRESSION__COMPRESSION_ZSTD };
static const struct link_kind there = { .host = "c.lab", .port = 8002, .channels = 1 };

struct report {
    Migrd__RoundReport round[3], *ptr[3];
    Migrd__Finished f;
};

/* 100000 pages at 2 us, 10000 at 1 us, 1000 in a pause of 7 ms. */
static void make(struct report *r, double slower)
{
    static const uint64_t pages[] = { 100000, 10000, 1000 }, us[] = { 200150, 10300, 1000 };

    migrd__finished__init(&r->f);
    r->f.ok = true;
    r->f.rounds = r->ptr;
    r->f.n_rounds = 3;
    for (unsigned i = 0; i < 3; i++) {
        migrd__round_report__init(&r->round[i]);
        r->ptr[i] = &r->round[i];
        r->round[i].round = i;
        r->round[i].pages = pages[i];
        r->round[i].bytes = pages[i] * 4120;
        r->round[i].duration_us = (uint64_t)((double)us[i] * slower);
    }
    r->round[0].zero = 1000;
    r->f.pause_us = 7000;
    r->f.total_us = r->round[0].duration_us + r->round[1].duration_us + 7000 + 50000;
}

static struct link_history *empty(void)
{
    struct link_history *h = link_history_open("/nonexistent/link-history.json");

    assert_non_null(h);
    return h;
}

static void near(double is, double want)
{
    if (is < want * 0.99 || is > want * 1.01)
        fail_msg("%f, not %f", is, want);
}

static void test_learns(void **state)
{
    Migrd__PrecopyParams par = MIGRD__PRECOPY_PARAMS__INIT;
    struct link_history *h = empty();
    Migrd__LinkHistory l;
    struct report r;

    (void)state;
    make(&r, 1);
    assert_false(link_history_get(h, &here, &l));
    link_history_learn(h, NULL, &here, &par, &r.f, 1); /* not live: says nothing */
    assert_false(link_history_get(h, &here, &l));
    par.live = true;
    link_history_learn(h, NULL, &here, &par, &r.f, 1);
    assert_true(link_history_get(h, &here, &l));
    assert_false(link_history_get(h, &there, &l));
    assert_int_equal(l.migrations, 1);
    near(l.first_ns, 2000);
    near(l.again_ns, 1000);
    near(l.page_bytes, 4120);
    near(l.pause_us, 6000);
    near(l.other_us, 50000);
    near(l.round_ns[1], 1000);
    assert_true(l.round_ns[3] == 0);
    make(&r, 2);
    for (int i = 0; i < 20; i++)
        link_history_learn(h, NULL, &here, &par, &r.f, 2);
    assert_true(link_history_get(h, &here, &l));
    near(l.first_ns, 4000); /* the new cost has taken over */
    link_history_close(&h);
    assert_null(h);
}

static void test_cap_and_failure(void **state)
{
    Migrd__PrecopyParams par = MIGRD__PRECOPY_PARAMS__INIT;
    struct link_history *h = empty();
    Migrd__LinkHistory l;
    struct report r;

    (void)state;
    make(&r, 1);
    par.live = true;
    r.f.ok = false;
    link_history_learn(h, NULL, &here, &par, &r.f, 1);
    assert_false(link_history_get(h, &here, &l));
    r.f.ok = true;
    par.bandwidth = 1000;
    link_history_learn(h, NULL, &here, &par, &r.f, 1);
    assert_true(link_history_get(h, &here, &l));
    assert_false(link_history_get(h, &packed, &l));
    assert_true(l.first_ns == 0); /* a capped link says nothing about pages */
    near(l.pause_us, 6000);
    link_history_close(&h);
}

static void test_file(void **state)
{
    Migrd__PrecopyParams par = MIGRD__PRECOPY_PARAMS__INIT;
    struct link_history *h = empty(), *again;
    char path[] = "/tmp/test_link_history.XXXXXX", host[32], *text;
    Migrd__LinkHistory l, m;
    struct report r;
    struct err e;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    make(&r, 1);
    par.live = true;
    for (unsigned i = 0; i < LINK_HISTORY_MAX + 9; i++) {
        struct link_kind k = { .host = host, .port = 1 };

        snprintf(host, sizeof host, "h%u", i);
        link_history_learn(h, NULL, &k, &par, &r.f, i + 1);
    }
    link_history_learn(h, NULL, &here, &par, &r.f, 1000);
    text = link_history_text(h);
    assert_non_null(text);
    assert_int_equal(io_replace_file(path, text, strlen(text), 0600, &e), 0);
    again = link_history_open(path);
    assert_true(link_history_get(h, &here, &l));
    assert_true(link_history_get(again, &here, &m));
    near(m.first_ns, l.first_ns);
    near(m.other_us, l.other_us);
    assert_false(link_history_get(again, &(struct link_kind){ .host = "h0", .port = 1 }, &m));
    link_history_close(&again);
    for (size_t cut = 0; cut < strlen(text); cut += 97) { /* cut off: ignored */
        assert_int_equal(link_history_parse(h, text, cut, &e), -1);
        assert_false(link_history_get(h, &here, &m));
    }
    assert_int_equal(link_history_parse(h,
                         "{\"version\":1,\"links\":[{\"link\":\"x\","
                         "\"migrations\":1,\"first_ns\":-1}]}",
                         66, &e),
        -1);
    assert_int_equal(link_history_parse(h, "{\"version\":1,\"links\":[]}", 24, &e), 0);
    unlink(path);
    free(text);
    link_history_close(&h);
}

static void test_dry_runs(void **state)
{
    Migrd__PrecopyParams par = MIGRD__PRECOPY_PARAMS__INIT, other;
    Migrd__Forecast f = MIGRD__FORECAST__INIT, *found;
    struct link_history *h = empty();

    (void)state;
    other = par;
    other.pause_budget_ms = 5;
    f.total_ms = 7;
    for (unsigned i = 0; i < LINK_HISTORY_DRY_RUNS * 2; i++)
        link_history_dry_run(h, "u", &there, &par, &f, 100);
    f.total_ms = 8;
    link_history_dry_run(h, "u", &here, &par, &f, 100);
    assert_null(link_history_forecast(h, "v", &here, &par, 101));
    assert_null(link_history_forecast(h, "u", &here, &other, 101));
    assert_null(link_history_forecast(h, "u", &packed, &par, 101));
    assert_null(link_history_forecast(h, "u", &here, &par, 101 + LINK_HISTORY_DRY_RUN_S));
    found = link_history_forecast(h, "u", &here, &par, 130);
    assert_non_null(found);
    assert_true(found->total_ms == 8);
    assert_int_equal(found->age_s, 30);
    migrd__forecast__free_unpacked(found, NULL);
    link_history_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns),
        cmocka_unit_test(test_cap_and_failure),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_dry_runs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
