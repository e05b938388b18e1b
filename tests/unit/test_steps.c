/* SPDX-License-Identifier: ISC */
/* Steps of the pause: what a target says of its own ends up within the source's, or nowhere. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "precopy/steps.h"

#define GIVEN 40

static Migrd__TargetStep store[GIVEN], *list[GIVEN];

static Migrd__Running running(const char *const *name, size_t n)
{
    Migrd__Running r = MIGRD__RUNNING__INIT;

    for (size_t i = 0; i < n; i++) {
        migrd__target_step__init(&store[i]);
        store[i].name = (char *)(uintptr_t)name[i];
        store[i].us = 100 + i;
        list[i] = &store[i];
    }
    r.n_steps = n;
    r.steps = list;
    return r;
}

static void test_take(void **state)
{
    static const char *const name[] = { "state-load", "", "resume", "Up", "a b", "\x1b[31m", "new",
        "a-name-that-is-longer-than-thirty-one" };
    Migrd__Running r = running(name, sizeof name / sizeof name[0]);
    struct steps s = { .n = 0 };

    (void)state;
    steps_begin(&s);
    steps_end(&s, "pause");
    steps_take(&s, &r);
    assert_int_equal(s.n, 4);
    assert_string_equal(s.step[0].name, "pause");
    assert_string_equal(s.step[0].within, "");
    assert_string_equal(s.step[1].name, "state-load");
    assert_string_equal(s.step[1].within, "ready");
    assert_string_equal(s.step[1].where, "target");
    assert_int_equal(s.step[1].us, 100);
    assert_string_equal(s.step[2].within, "running");
    assert_string_equal(s.step[2].where, "target's migrd");
    assert_string_equal(s.step[3].name, "new");
    assert_string_equal(s.step[3].within, "running");
}

static void test_limits(void **state)
{
    const char *name[GIVEN];
    struct steps s = { .n = 0 }, own = { .n = 0 };
    struct steps_store given;
    Migrd__Running r;

    (void)state;
    for (unsigned i = 0; i < GIVEN; i++)
        name[i] = "compare";
    r = running(name, GIVEN);
    steps_take(&s, &r);
    assert_int_equal(s.n, STEPS_OF_TARGET_MAX);
    for (unsigned i = 0; i < GIVEN; i++)
        steps_within(&s, "journal", i, "commit", "migrd");
    assert_int_equal(s.n, STEPS_MAX);
    steps_give(&s, &given, &r);
    assert_int_equal(r.n_steps, STEPS_OF_TARGET_MAX);
    steps_target(&own, "last-pages", 7);
    steps_give(&own, &given, &r);
    assert_int_equal(r.n_steps, 1);
    assert_string_equal(r.steps[0]->name, "last-pages");
    assert_int_equal(r.steps[0]->us, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_take),
        cmocka_unit_test(test_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
