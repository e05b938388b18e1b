/* SPDX-License-Identifier: ISC */
/* Lists of host CPUs. */
#define _GNU_SOURCE
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cpulist.h"

static void lists(void **state)
{
    cpu_set_t set;
    struct err e;

    (void)state;
    assert_int_equal(cpulist_parse("", &set, &e), 0);
    assert_int_equal(cpulist_parse(NULL, &set, &e), 0);
    assert_int_equal(cpulist_parse("3", &set, &e), 1);
    assert_int_equal(CPU_COUNT(&set), 1);
    assert_true(CPU_ISSET(3, &set));
    assert_int_equal(cpulist_parse("0-3,^2,7", &set, &e), 1);
    assert_int_equal(CPU_COUNT(&set), 4);
    assert_false(CPU_ISSET(2, &set));
    assert_true(CPU_ISSET(7, &set));
}

static void written(void **state)
{
    static const char *const lists[][2] = { { "3", "3" }, { "0-3,^2,7", "0,1,3,7" },
        { "0-7,^1,100-102,1023", "0,2-7,100-102,1023" }, { "2,1,0", "0-2" } };
    char text[CPULIST_LEN];
    cpu_set_t set;

    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        assert_int_equal(cpulist_parse(lists[i][0], &set, NULL), 1);
        cpulist_format(&set, text, sizeof text);
        assert_string_equal(text, lists[i][1]);
    }
    cpulist_format(&set, text, 2);
    assert_string_equal(text, "0");
    CPU_ZERO(&set);
    cpulist_format(&set, text, sizeof text);
    assert_string_equal(text, "");
    for (unsigned c = 0; c < CPU_SETSIZE; c += 2)
        CPU_SET(c, &set);
    cpulist_format(&set, text, sizeof text);
    assert_int_equal(cpulist_parse(text, &set, NULL), 1);
    assert_int_equal(CPU_COUNT(&set), CPU_SETSIZE / 2);
}

static void refused(void **state)
{
    static const char *const bad[] = { "a", "1,", ",1", "1-", "3-1", "-1", "1024", "^", "0,^0",
        "99999999999999999999", "1 2", "0--1" };
    cpu_set_t set;
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(cpulist_parse(bad[i], &set, &e), -1);
        assert_int_equal(e.code, ERR_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(lists), cmocka_unit_test(written),
        cmocka_unit_test(refused) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
