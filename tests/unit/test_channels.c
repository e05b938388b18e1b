/* SPDX-License-Identifier: ISC */
/* migrd/migration_source.c: how many data channels where nobody asked for a number. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "migrd/migration_internal.h"

static void half_of_the_cpus_up_to_a_limit(void **state)
{
    static const struct {
        unsigned cpus, tls, plain;
    } want[] = { { 0, 1, 1 }, { 1, 1, 1 }, { 2, 1, 1 }, { 3, 1, 1 }, { 4, 2, 2 }, { 6, 3, 2 },
        { 8, 4, 2 }, { 256, 4, 2 } };

    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        assert_int_equal(mig_auto_channels(true, want[i].cpus), want[i].tls);
        assert_int_equal(mig_auto_channels(false, want[i].cpus), want[i].plain);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(half_of_the_cpus_up_to_a_limit) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
