/* SPDX-License-Identifier: ISC */
/* The policy's decisions one by one; tests/sim/sim_policy.c has the workloads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "precopy/policy.h"

#define MIB (UINT64_C(1) << 20)

static struct policy start(struct policy_params par)
{
    struct policy p;

    par.live = true;
    policy_init(&p, &par);
    return p;
}

/* A round at 1000 MiB/s that moved `sent` MiB and left `dirty` MiB. */
static struct policy_decision feed(
    struct policy *p, uint64_t *now_us, uint64_t sent, uint64_t dirty)
{
    struct policy_round r = { .pages_sent = sent * 256,
        .bytes = sent * MIB,
        .duration_us = sent * 1000,
        .dirty_pages = dirty * 256 };
    struct policy_decision d;

    *now_us += r.duration_us;
    r.elapsed_us = *now_us;
    policy_round(p, &r, &d);
    return d;
}

static void test_not_live(void **state)
{
    struct policy_params par = { .live = false };
    struct policy_decision d;
    struct policy p;

    (void)state;
    policy_init(&p, &par);
    policy_begin(&p, &d);
    assert_int_equal(d.action, POLICY_STOP);
}

static void test_idle_stops_at_once(void **state)
{
    struct policy p = start((struct policy_params){ .budget_us = 100000 });
    struct policy_decision d;
    uint64_t now = 0;

    (void)state;
    d = feed(&p, &now, 4096, 0);
    assert_int_equal(d.action, POLICY_STOP);
    assert_in_range(d.bandwidth, 999 * MIB, 1100 * MIB);
    assert_in_range(d.predicted_us, POLICY_DEFAULT_FIXED_US, POLICY_DEFAULT_FIXED_US + 1000);
}

static void test_one_more_round_when_it_pays(void **state)
{
    struct policy p = start((struct policy_params){ .budget_us = 100000 });
    struct policy_decision d;
    uint64_t now = 0;

    (void)state;
    d = feed(&p, &now, 1000, 60);
    assert_int_equal(d.action, POLICY_CONTINUE);
    assert_non_null(strstr(d.reason, "one more round"));
    d = feed(&p, &now, 60, 1);
    assert_int_equal(d.action, POLICY_STOP);
}

static void test_diverging_throttles_then_gives_up(void **state)
{
    struct policy p = start((struct policy_params){
        .budget_us = 100000, .throttle_max = 50, .bandwidth_cap = 1000 * MIB });
    struct policy_decision d = { .action = POLICY_CONTINUE };
    unsigned raised = 0, last = 0;
    uint64_t now = 0;

    (void)state;
    for (int i = 0; i < 200 && d.action != POLICY_GIVE_UP; i++) {
        d = feed(&p, &now, 2000, 2000);
        assert_int_not_equal(d.action, POLICY_STOP);
        assert_true(d.throttle >= last && d.throttle <= 50);
        raised += d.throttle > last;
        last = d.throttle;
    }
    assert_int_equal(d.action, POLICY_GIVE_UP);
    assert_int_equal(last, 50);
    assert_true(raised >= 2);
    assert_non_null(strstr(d.reason, "raise the pause budget above"));
    assert_non_null(strstr(d.reason, "bandwidth cap of 1000 MiB/s"));
    assert_non_null(strstr(d.reason, "throttle-max (now 50)"));
}

static void test_waits_for_the_valley(void **state)
{
    struct policy p = start((struct policy_params){ .budget_us = 100000 });
    struct policy_decision d;
    uint64_t now = 0;

    (void)state;
    d = feed(&p, &now, 4000, 400);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(d.action, POLICY_CONTINUE);
        d = feed(&p, &now, 400, i % 4 == 3 ? 150 : 400);
    }
    assert_int_equal(d.action, POLICY_CONTINUE);
    d = feed(&p, &now, 150, 40);
    assert_true(d.action == POLICY_STOP || d.action == POLICY_CONTINUE);
    d = feed(&p, &now, 40, 35);
    assert_int_equal(d.action, POLICY_STOP);
}

static void test_limits(void **state)
{
    struct policy p = start((struct policy_params){ .time_limit_us = 3000000, .throttle_max = 90 });
    struct policy_decision d;
    uint64_t now = 0;

    (void)state;
    feed(&p, &now, 2000, 2000);
    d = feed(&p, &now, 2000, 2000);
    assert_int_equal(d.action, POLICY_GIVE_UP);
    assert_non_null(strstr(d.reason, "time limit"));
    p = start((struct policy_params){ .max_rounds = 3 });
    now = 0;
    for (int i = 0; i < 3; i++)
        d = feed(&p, &now, 200, 200);
    assert_int_equal(d.action, POLICY_GIVE_UP);
    assert_non_null(strstr(d.reason, "limit of rounds"));
}

static void test_budget_below_the_fixed_cost(void **state)
{
    struct policy p = start((struct policy_params){ .budget_us = 5000, .fixed_us = 9000 });
    struct policy_decision d;
    uint64_t now = 0;

    (void)state;
    policy_begin(&p, &d);
    assert_int_equal(d.action, POLICY_GIVE_UP);
    assert_non_null(strstr(d.reason, "last step alone takes 9 ms"));
    p = start((struct policy_params){ .budget_us = 20000 });
    policy_set_fixed(&p, 30000); /* one bad measurement is no reason */
    d = feed(&p, &now, 100, 1);
    assert_int_equal(d.action, POLICY_CONTINUE);
    policy_set_fixed(&p, 4000);
    d = feed(&p, &now, 1, 0);
    assert_int_equal(d.action, POLICY_STOP);
}

static void test_new_budget_counts(void **state)
{
    struct policy p = start((struct policy_params){ .budget_us = 50000 });
    struct policy_decision d;
    uint64_t now = 0;

    (void)state;
    d = feed(&p, &now, 1000, 200);
    assert_int_equal(d.action, POLICY_CONTINUE);
    policy_set_budget(&p, 500000);
    d = feed(&p, &now, 200, 200);
    assert_int_equal(d.action, POLICY_STOP);
}

/* Re-sent pages cost a hundred bytes, and a microsecond of the processor: neither their bytes over
 * the link's bandwidth nor whole pages tell how long the last round takes. */
static void test_deltas_count_by_the_page(void **state)
{
    struct policy p = start((struct policy_params){ .budget_us = 100000 });
    struct policy_round r = { .pages_sent = 65536, .bytes = 6553600, .duration_us = 65536 };
    struct policy_decision d;
    uint64_t now = 0;

    (void)state;
    d = feed(&p, &now, 1000, 400); /* 400 ms at 1000 MiB/s */
    assert_int_equal(d.action, POLICY_CONTINUE);
    assert_in_range(d.predicted_us, 400000, 420000);
    r.dirty_pages = 65536;
    r.elapsed_us = now + r.duration_us;
    policy_round(&p, &r, &d);
    assert_in_range(d.bandwidth, 999 * MIB, 1001 * MIB); /* the link did not become slower */
    assert_in_range(d.predicted_us, 70000, 80000);
    assert_int_equal(d.action, POLICY_STOP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_live),
        cmocka_unit_test(test_idle_stops_at_once),
        cmocka_unit_test(test_one_more_round_when_it_pays),
        cmocka_unit_test(test_diverging_throttles_then_gives_up),
        cmocka_unit_test(test_waits_for_the_valley),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_budget_below_the_fixed_cost),
        cmocka_unit_test(test_new_budget_counts),
        cmocka_unit_test(test_deltas_count_by_the_page),
    };

    return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
