/* SPDX-License-Identifier: ISC */
/* hypervisor/cpu_level.c: what levels are, what they take away, what hosts share, and the text of
 * each refusal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "hypervisor/cpu.h"
#include "hypervisor/cpu_level.h"

#define BIT(n) (UINT32_C(1) << (n))

static bool has(const struct hv_caps *c, const char *name)
{
    for (unsigned at = 0; at < HV_FEATURE_WORDS * 32; at++) {
        const char *is = hv_feature_name(at / 32, at % 32);

        if (is != NULL && strcmp(is, name) == 0)
            return (c->features[at / 32] >> (at % 32) & 1) != 0;
    }
    fail_msg("there is no feature %s", name);
    return false;
}

static void set(struct hv_caps *c, const char *names, bool on)
{
    char copy[512], *save = NULL;

    snprintf(copy, sizeof copy, "%s", names);
    for (char *n = strtok_r(copy, " ", &save); n != NULL; n = strtok_r(NULL, " ", &save))
        for (unsigned at = 0; at < HV_FEATURE_WORDS * 32; at++) {
            const char *is = hv_feature_name(at / 32, at % 32);

            if (is == NULL || strcmp(is, n) != 0)
                continue;
            c->features[at / 32] &= ~BIT(at % 32);
            if (on)
                c->features[at / 32] |= BIT(at % 32);
        }
}

static void base(struct hv_caps *c, const char *vendor)
{
    memset(c, 0, sizeof *c);
    snprintf(c->cpu_vendor, sizeof c->cpu_vendor, "%s", vendor);
    set(c,
        "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr "
        "sse sse2 ht syscall nx lm pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm x2apic hypervisor "
        "tsc_deadline_timer arat kvm_clock kvm_clock_new kvm_send_ipi aes pclmulqdq",
        true);
}

/* As Haswell, with protection keys. */
static void haswell(struct hv_caps *c)
{
    base(c, "GenuineIntel");
    set(c, "xsave xsaveopt avx avx2 bmi1 bmi2 f16c fma abm movbe smep erms pku", true);
    c->xcr0 = 0x207;
    c->features[8] = 0x207;
    c->xsave_size = 2696;
}

static void skylake(struct hv_caps *c)
{
    haswell(c);
    set(c, "avx512f avx512bw avx512cd avx512dq avx512vl clwb", true);
    c->xcr0 = 0x2e7;
    c->features[8] = 0x2e7;
}

static void apply(const char *level, struct hv_caps *c)
{
    struct err e;

    if (cpu_level_apply(level, c, &e) < 0)
        fail_msg("%s: %s", level, e.text);
}

static void psabi_levels(void **state)
{
    struct hv_caps c;

    (void)state;
    skylake(&c);
    apply("x86-64-v2", &c);
    assert_true(has(&c, "sse4_2") && has(&c, "lahf_lm") && has(&c, "x2apic"));
    assert_false(has(&c, "avx") || has(&c, "aes") || has(&c, "xsave") || has(&c, "smep"));
    assert_false(has(&c, "kvm_send_ipi"));
    assert_true(has(&c, "kvm_clock"));
    assert_int_equal(c.xcr0, 0);
    assert_int_equal(c.xsave_size, 0);
    assert_int_equal(c.features[8], 0);
    skylake(&c);
    apply("x86-64-v3", &c);
    assert_true(has(&c, "avx2") && has(&c, "movbe") && has(&c, "xsave"));
    assert_false(has(&c, "pku") || has(&c, "avx512f") || has(&c, "xsaveopt"));
    assert_int_equal(c.xcr0, 7);
    assert_int_equal(c.xsave_size, 832);
    skylake(&c);
    apply("x86-64-v4", &c);
    assert_true(has(&c, "avx512vl"));
    assert_int_equal(c.xcr0, 0xe7);
    assert_int_equal(c.xsave_size, 2688);
    skylake(&c);
    apply("", &c);
    assert_true(has(&c, "pku"));
    assert_int_equal(c.xcr0, 0x2e7);
}

/* The same guest on two different hosts: that is what a level is for. */
static void same_everywhere(void **state)
{
    struct hv_caps a, b;

    (void)state;
    haswell(&a);
    skylake(&b);
    set(&b, "kvm_poll_control kvm_msi_ext_dest_id sha_ni fsrm", true);
    apply("x86-64-v3", &a);
    apply("x86-64-v3", &b);
    assert_memory_equal(a.features, b.features, sizeof a.features);
    assert_true(a.xcr0 == b.xcr0 && a.xsave_size == b.xsave_size);
}

static void modifiers(void **state)
{
    struct hv_caps c;

    (void)state;
    skylake(&c);
    apply("x86-64-v2,+aes,+pclmulqdq", &c);
    assert_true(has(&c, "aes") && has(&c, "pclmulqdq"));
    skylake(&c);
    apply("x86-64-v3,-avx", &c); /* and all that is built on it */
    assert_false(has(&c, "avx") || has(&c, "avx2") || has(&c, "fma") || has(&c, "f16c"));
    assert_true(has(&c, "bmi2") && has(&c, "xsave"));
    assert_int_equal(c.xcr0, 3);
    assert_int_equal(c.xsave_size, 576);
    skylake(&c);
    apply("host,-avx512f", &c);
    assert_false(has(&c, "avx512f") || has(&c, "avx512vl"));
    assert_true(has(&c, "avx2") && has(&c, "pku") && has(&c, "clwb"));
    assert_int_equal(c.xcr0, 0x207);
}

static void expect_level_error(const char *level, const char *text)
{
    struct err e = { 0 };

    assert_int_equal(cpu_level_check(level, &e), -1);
    if (strstr(e.text, text) == NULL)
        fail_msg("%s: \"%s\" does not say \"%s\"", level, e.text, text);
}

static void what_is_no_level(void **state)
{
    char longer[CPU_LEVEL_MAX + 40] = "x86-64-v2";

    (void)state;
    expect_level_error("Haswell", "cpu_level Haswell is not known; x86-64-v1 to x86-64-v4");
    expect_level_error("x86-64-v5", "x86-64-v5 is not known");
    expect_level_error("x86-64-v2,avx", "avx: a feature is taken away by -NAME, added by +NAME");
    expect_level_error("x86-64-v2,", "a feature is taken away by -NAME");
    expect_level_error("x86-64-v2, -avx", "a feature is taken away by -NAME");
    expect_level_error(
        "x86-64-v3,-popcntt", "there is no CPU feature popcntt; did you mean popcnt?");
    expect_level_error("x86-64-v3,-zzzzzzz", "no CPU feature zzzzzzz; migctl cpu show");
    expect_level_error("x86-64-v3,-lm", "lacks lm, which every 64-bit guest needs");
    expect_level_error("x86-64-v2,+avx2", "avx2: what it is built on");
    expect_level_error("x86-64-v3,+aes,-aes", "aes: what it is built on is taken away");
    expect_level_error("x86-64-v3,+ht", "ht follows from other features");
    expect_level_error("x86-64-v3,-avx_state", "avx_state follows from other features");
    expect_level_error("GenuineIntel/", "knows no CPUID word \"\"");
    expect_level_error(
        "GenuineIntel/9.eax=1", "knows no CPUID word \"9.eax\"; make the level anew");
    expect_level_error("GenuineIntel/1.ecx=", "1.ecx=: this must be 1.ecx=HEX, once");
    expect_level_error("GenuineIntel/1.ecx=0", "this must be 1.ecx=HEX");
    expect_level_error("GenuineIntel/1.ecx=FF", "this must be 1.ecx=HEX");
    expect_level_error("GenuineIntel/1.ecx=123456789", "this must be 1.ecx=HEX");
    expect_level_error("GenuineIntel/1.ecx=1,1.ecx=1", "this must be 1.ecx=HEX, once");
    expect_level_error("GenuineIntel/1.ecx=1", "lacks fpu, which every 64-bit guest needs");
    expect_level_error("GenuineIntelCorp/1.ecx=1", "is not known");
    expect_level_error("/1.ecx=1", "is not known");
    memset(longer + 9, 'a', sizeof longer - 10);
    expect_level_error(longer, "longer than 399 characters");
    assert_int_equal(cpu_level_check("", NULL), 0);
    assert_int_equal(cpu_level_check("host", NULL), 0);
    assert_int_equal(cpu_level_check("x86-64-v1", NULL), 0);
}

static void host_lacks(void **state)
{
    struct hv_caps c;
    struct err e;

    (void)state;
    haswell(&c);
    assert_int_equal(cpu_level_apply("x86-64-v4", &c, &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    assert_string_equal(e.text,
        "this host's CPU lacks avx512f avx512dq avx512cd avx512bw avx512vl, which CPU level "
        "x86-64-v4 has; use a lower one, see migctl cpu baseline");
    assert_true(has(&c, "pku")); /* nothing was taken away */
    assert_int_equal(
        cpu_level_apply("AuthenticAMD/1.edx=178bfbff,80000001.edx=2fd3fbff", &c, &e), -1);
    assert_string_equal(e.text,
        "the CPU level was made for CPUs by AuthenticAMD, this host has one by GenuineIntel");
}

static void common(void **state)
{
    struct hv_caps c[3], x;
    char text[CPU_LEVEL_MAX];
    struct err e;

    (void)state;
    skylake(&c[0]);
    haswell(&c[1]);
    haswell(&c[2]);
    set(&c[2], "movbe", false);
    assert_int_equal(cpu_level_common(c, 3, text, &e), 0);
    for (unsigned i = 0; i < 3; i++) {
        x = c[i];
        apply(text, &x);
        assert_true(has(&x, "avx2") && has(&x, "pku") && has(&x, "kvm_send_ipi"));
        assert_false(has(&x, "movbe") || has(&x, "avx512f"));
        assert_int_equal(x.xcr0, 0x207);
    }
    /* Two hosts of the same kind lose nothing but what is each guest's own. */
    assert_int_equal(cpu_level_common(c + 1, 1, text, &e), 0);
    x = c[1];
    apply(text, &x);
    assert_int_equal(cpu_level_missing(c[1].features, HV_FEATURE_WORDS, x.features, NULL, 0), 0);

    base(&c[2], "AuthenticAMD");
    assert_int_equal(cpu_level_common(c, 3, text, &e), -1);
    assert_string_equal(e.text,
        "CPUs by GenuineIntel and by AuthenticAMD have no level in common: a guest cannot move "
        "between them");
    assert_int_equal(cpu_level_common(c, 0, text, &e), -1);
}

/* A CPU whose XSAVE has no AVX state has no AVX, whatever it says. */
static void no_feature_without_its_state(void **state)
{
    struct hv_caps c;

    (void)state;
    haswell(&c);
    c.xcr0 = c.features[8] = 3;
    apply("host,-pku", &c);
    assert_false(has(&c, "avx") || has(&c, "avx2"));
    assert_int_equal(c.xcr0, 3);
}

static void missing_by_name(void **state)
{
    struct hv_caps guest, host;
    char names[64], few[20];

    (void)state;
    skylake(&guest);
    haswell(&host);
    set(&guest, "ht", true);
    set(&host, "ht", false);
    guest.features[8] = host.features[8];
    assert_int_equal(
        cpu_level_missing(guest.features, HV_FEATURE_WORDS, host.features, names, sizeof names), 6);
    assert_string_equal(names, "avx512f avx512dq clwb avx512cd avx512bw avx512vl");
    assert_int_equal(
        cpu_level_missing(guest.features, HV_FEATURE_WORDS, host.features, few, sizeof few), 6);
    assert_string_equal(few, "avx512f avx512dq");
    assert_int_equal(cpu_level_missing(guest.features, 2, host.features, NULL, 0), 0);
    guest.features[7] |= BIT(3);
    cpu_level_missing(guest.features, HV_FEATURE_WORDS, host.features, names, sizeof names);
    assert_non_null(strstr(names, " 7.2.edx[3]"));
    assert_int_equal(
        cpu_level_missing(host.features, HV_FEATURE_WORDS, host.features, names, sizeof names), 0);
    assert_string_equal(names, "");
}

static void level_of(void **state)
{
    struct hv_caps c;

    (void)state;
    skylake(&c);
    assert_string_equal(cpu_level_of(c.features, HV_FEATURE_WORDS), "x86-64-v4");
    haswell(&c);
    assert_string_equal(cpu_level_of(c.features, HV_FEATURE_WORDS), "x86-64-v3");
    set(&c, "popcnt", false);
    assert_string_equal(cpu_level_of(c.features, HV_FEATURE_WORDS), "x86-64-v1");
    assert_string_equal(cpu_level_of(c.features, 2), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(psabi_levels),
        cmocka_unit_test(same_everywhere),
        cmocka_unit_test(modifiers),
        cmocka_unit_test(what_is_no_level),
        cmocka_unit_test(host_lacks),
        cmocka_unit_test(common),
        cmocka_unit_test(no_feature_without_its_state),
        cmocka_unit_test(missing_by_name),
        cmocka_unit_test(level_of),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
