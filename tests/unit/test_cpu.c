/* SPDX-License-Identifier: ISC */
/* hypervisor/cpu.c: names are unique and stable, the host's words are plausible. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "hypervisor/cpu.h"

static void words_have_names(void **state)
{
    unsigned n = 0;

    (void)state;
    while (hv_feature_word_name(n) != NULL)
        n++;
    assert_true(n > 0 && n <= HV_FEATURE_WORDS);
    assert_null(hv_feature_word_name(HV_FEATURE_WORDS));
    assert_null(hv_word_place(n));
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(hv_feature_word_name(i), hv_feature_word_name(k));
}

/* The order is part of what two releases say to each other. */
static void order_is_fixed(void **state)
{
    (void)state;
    assert_string_equal(hv_feature_word_name(0), "1.ecx");
    assert_string_equal(hv_feature_word_name(2), "7.0.ebx");
    assert_string_equal(hv_feature_word_name(10), "80000001.ecx");
    assert_string_equal(hv_feature_word_name(17), "19.ebx");
}

static void known_bits(void **state)
{
    (void)state;
    assert_string_equal(hv_feature_name(2, 5), "avx2");
    assert_string_equal(hv_feature_name(0, 28), "avx");
    assert_string_equal(hv_feature_name(1, 26), "sse2");
    assert_string_equal(hv_feature_name(10, 2), "svm");
    assert_string_equal(hv_feature_name(11, 29), "lm");
    assert_string_equal(hv_feature_name(8, 9), "pkru_state");
    assert_null(hv_feature_name(0, 16));
    assert_null(hv_feature_name(0, 32));
    assert_null(hv_feature_name(HV_FEATURE_WORDS, 0));
}

static void host_is_x86_64(void **state)
{
    struct hv_caps c;

    (void)state;
    memset(&c, 0xff, sizeof c);
    hv_host_cpu(&c);
    assert_int_equal(strlen(c.cpu_vendor), 12);
    assert_true(memchr(c.cpu_model, '\0', sizeof c.cpu_model) != NULL);
    assert_true(c.cpu_family >= 6);
    assert_true((c.features[11] >> 29 & 1) != 0);
    assert_true((c.features[1] >> 26 & 1) != 0);
    assert_int_equal(c.features[HV_FEATURE_WORDS - 1], 0);
}

static void signatures(void **state)
{
    struct hv_caps c;

    (void)state;
    hv_cpu_signature(&c, 0x00a00f11); /* Milan */
    assert_int_equal(c.cpu_family, 25);
    assert_int_equal(c.cpu_model_no, 1);
    assert_int_equal(c.cpu_stepping, 1);
    hv_cpu_signature(&c, 0x000906ea); /* Coffee Lake */
    assert_int_equal(c.cpu_family, 6);
    assert_int_equal(c.cpu_model_no, 158);
    assert_int_equal(c.cpu_stepping, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_have_names),
        cmocka_unit_test(order_is_fixed),
        cmocka_unit_test(known_bits),
        cmocka_unit_test(host_is_x86_64),
        cmocka_unit_test(signatures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
