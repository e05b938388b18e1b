/* SPDX-License-Identifier: ISC */
/* hypervisor/xvm/cpuid.c: what is taken away from KVM's list leaves a consistent one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "hypervisor/xvm/machine_internal.h"

static struct kvm_cpuid_entry2 *add(struct cpuid_table *t, uint32_t leaf, uint32_t index,
    uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
    struct kvm_cpuid_entry2 *x = &t->entry[t->nent++];

    *x = (struct kvm_cpuid_entry2){ .function = leaf,
        .index = index,
        .flags = leaf == 7 || leaf == 0xd ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
        .eax = eax,
        .ebx = ebx,
        .ecx = ecx,
        .edx = edx };
    return x;
}

static struct kvm_cpuid_entry2 *get(struct cpuid_table *t, uint32_t leaf, uint32_t index)
{
    for (uint32_t i = 0; i < t->nent; i++)
        if (t->entry[i].function == leaf && t->entry[i].index == index)
            return &t->entry[i];
    return NULL;
}

/* A CPU with everything: AVX, AVX-512, protection keys, MPX, AMX, shadow stacks. */
static void big_cpu(struct cpuid_table *t)
{
    memset(t, 0, sizeof *t);
    add(t, 0x0, 0, 0x1f, 1, 2, 3);
    add(t, 0x1, 0, 0, 0, 1u << 28 | 1u << 26, 0);
    add(t, 0x7, 0, 2, 1u << 16 | 1u << 14, 1u << 3 | 1u << 7, 1u << 20 | 1u << 24);
    add(t, 0xd, 0, 0x602ff, 576, 11008, 0);
    add(t, 0xd, 1, 0x1f, 576, 0x1900, 0);
    add(t, 0xd, 2, 256, 576, 0, 0);
    add(t, 0xd, 3, 64, 960, 0, 0);
    add(t, 0xd, 4, 64, 1024, 0, 0);
    add(t, 0xd, 5, 64, 1088, 0, 0);
    add(t, 0xd, 6, 512, 1152, 0, 0);
    add(t, 0xd, 7, 1024, 1664, 0, 0);
    add(t, 0xd, 9, 8, 2688, 0, 0);
    add(t, 0xd, 11, 16, 0, 1, 0);
    add(t, 0xd, 17, 64, 2752, 0, 0);
    add(t, 0xd, 18, 8192, 2816, 6, 0);
}

static void components_follow_features(void **state)
{
    struct cpuid_table t;

    (void)state;
    big_cpu(&t);
    cpuid_mask(&t);
    assert_int_equal(get(&t, 0xd, 0)->eax, 0x2e7);
    assert_int_equal(get(&t, 0xd, 0)->ecx, 2696);
    assert_int_equal(get(&t, 0xd, 1)->eax, 0xf);
    assert_int_equal(get(&t, 0xd, 1)->ecx, 0);
    assert_int_equal(get(&t, 0xd, 9)->ebx, 2688);
    assert_int_equal(get(&t, 0xd, 3)->eax, 0);
    assert_int_equal(get(&t, 0xd, 11)->eax, 0);
    assert_int_equal(get(&t, 0xd, 18)->eax, 0);
    assert_int_equal(get(&t, 0x7, 0)->ecx, 1u << 3);
    assert_int_equal(get(&t, 0x7, 0)->edx, 0);
}

static void small_cpu(void **state)
{
    struct cpuid_table t;

    (void)state;
    big_cpu(&t);
    get(&t, 0x1, 0)->ecx = 1u << 26;
    get(&t, 0x7, 0)->ebx = get(&t, 0x7, 0)->ecx = 0;
    cpuid_mask(&t);
    assert_int_equal(get(&t, 0xd, 0)->eax, 3);
    assert_int_equal(get(&t, 0xd, 0)->ecx, 576);
    /* No XSAVE at all: an empty leaf stays empty. */
    get(&t, 0xd, 0)->eax = get(&t, 0xd, 0)->ecx = 0;
    cpuid_mask(&t);
    assert_int_equal(get(&t, 0xd, 0)->ecx, 0);
}

static void another_layout_is_refused(void **state)
{
    struct cpuid_table guest, host;
    struct err e;

    (void)state;
    big_cpu(&guest);
    cpuid_mask(&guest);
    host = guest;
    assert_int_equal(cpuid_fits(&guest, &host, &e), 0);
    get(&host, 0xd, 9)->ebx = 832;
    assert_int_equal(cpuid_fits(&guest, &host, &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    get(&guest, 0xd, 0)->eax = 0xe7;
    assert_int_equal(cpuid_fits(&guest, &host, &e), 0);
}

static void base_features(struct cpuid_table *t)
{
    get(t, 0x1, 0)->edx = 0x178bfbff;
    get(t, 0x1, 0)->ecx |= 0x80982201; /* to SSE 4.2, POPCNT, hypervisor */
    get(t, 0x7, 0)->ebx |= 1u << 5;    /* AVX2 */
    add(t, 0x80000001, 0, 0, 0, 1, 0x2c100800);
}

/* A guest at a level sees no feature beyond it, and no XSAVE where the level has none. */
static void levels(void **state)
{
    struct cpuid_table t, low;
    struct hv_caps caps;
    struct err e;

    (void)state;
    big_cpu(&t);
    base_features(&t);
    cpuid_mask(&t);
    low = t;
    assert_int_equal(cpuid_limit(&low, "", &e), 0);
    assert_memory_equal(&low, &t, sizeof t);
    if (cpuid_limit(&low, "x86-64-v2", &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(get(&low, 0x7, 0)->ebx, 0);
    assert_int_equal(get(&low, 0x7, 0)->ecx, 0);
    assert_int_equal(get(&low, 0x1, 0)->ecx & (1u << 26 | 1u << 28), 0);
    for (uint32_t i = 0; i < low.nent; i++)
        if (low.entry[i].function == 0xd)
            assert_int_equal(low.entry[i].eax | low.entry[i].ebx | low.entry[i].ecx, 0);
    assert_int_equal(cpuid_fits(&low, &t, &e), 0);
    low = t;
    assert_int_equal(cpuid_limit(&low, "host,-pku", &e), 0);
    assert_int_equal(get(&low, 0xd, 0)->eax, 0xe7);
    assert_int_equal(get(&low, 0xd, 0)->ecx, 2688);
    memset(&caps, 0, sizeof caps);
    cpuid_caps(&low, &caps);
    assert_int_equal(caps.xcr0, 0xe7);
    assert_int_equal(cpuid_fits(&t, &low, &e), -1);
    assert_string_equal(
        e.text, "the guest booted with CPU features that are missing here: pku pkru_state");
    assert_int_equal(cpuid_limit(&low, "x86-64-v3", &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
}

static void kvm_features(void **state)
{
    struct cpuid_table guest, host;
    struct err e;

    (void)state;
    big_cpu(&guest);
    base_features(&guest);
    add(&guest, 0x40000001, 0, 1u << 24 | 1u << 11 | 1u << 3, 0, 0, 0);
    cpuid_mask(&guest);
    host = guest;
    get(&host, 0x40000001, 0)->eax &= ~(1u << 11);
    assert_int_equal(cpuid_fits(&guest, &host, &e), -1);
    assert_string_equal(e.text,
        "the guest booted with CPU features that are missing here: kvm_send_ipi; kvm_ ones come "
        "with a newer kernel");
    assert_int_equal(cpuid_limit(&guest, "x86-64-v2", &e), 0);
    assert_int_equal(cpuid_fits(&guest, &host, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(components_follow_features),
        cmocka_unit_test(small_cpu),
        cmocka_unit_test(another_layout_is_refused),
        cmocka_unit_test(levels),
        cmocka_unit_test(kvm_features),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
