/* SPDX-License-Identifier: ISC */
/*
 * What CPU a guest sees: KVM's own list of what it supports, minus what cannot be
 * migrated or needs state that we do not carry, plus the topology of this domain. A
 * guest keeps the table it booted with for its whole life, also on other hosts: it is
 * part of the saved state, and a host that lacks one of its features refuses it.
 *
 * Taken away: nested virtualization, MONITOR, performance counters and tracing, SGX,
 * user interrupts, the invariant-TSC promise (the next host may tick differently),
 * asynchronous page faults (their pending tokens are not readable), AMX, shadow stacks
 * (their pointer is no MSR). XSAVE state components that no offered feature uses go too,
 * and sizes follow: Linux compares them with its own sum. EBX of 0xd is KVM's own, always
 * as XCR0 is then. A guest without XSAVE has an empty leaf 0xd.
 *
 * A CPU level (cpu_level.h) takes more away: of this host (host-cpu-level) from what is offered, of
 * the domain when it boots. A guest that comes from another host has its table with it.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "hypervisor/cpu.h"
#include "hypervisor/cpu_level.h"
#include "hypervisor/xvm/machine_internal.h"

_Static_assert(
    offsetof(struct cpuid_table, entry) == offsetof(struct kvm_cpuid2, entries), "kvm_cpuid2");

struct mask {
    uint32_t leaf, index;
    enum hv_reg reg;
    uint32_t clear;
};

#define BIT(n) (1u << (n))

static const struct mask masks[] = {
    { 0x1, 0, HV_ECX, BIT(2) | BIT(3) | BIT(5) | BIT(6) | BIT(11) | BIT(15) | BIT(27) },
    { 0x1, 0, HV_EDX, BIT(21) | BIT(22) },
    { 0x7, 0, HV_EBX, BIT(2) | BIT(12) | BIT(14) | BIT(15) | BIT(25) },
    { 0x7, 0, HV_ECX, BIT(4) | BIT(5) | BIT(7) | BIT(13) | BIT(23) | BIT(29) | BIT(30) },
    { 0x7, 0, HV_EDX,
        BIT(5) | BIT(15) | BIT(18) | BIT(19) | BIT(20) | BIT(22) | BIT(24) | BIT(25) },
    { 0x7, 1, HV_EAX, BIT(17) | BIT(21) },
    { 0x7, 1, HV_EDX, BIT(21) },
    { 0xd, 1, HV_EAX, BIT(4) },
    { 0xd, 1, HV_ECX, UINT32_MAX },
    { 0xd, 1, HV_EDX, UINT32_MAX },
    { 0x80000001, 0, HV_ECX, BIT(2) | BIT(10) | BIT(12) | BIT(13) | BIT(23) | BIT(24) | BIT(28) },
    { 0x80000007, 0, HV_EDX, BIT(8) },
    { 0x40000001, 0, HV_EAX, BIT(4) | BIT(10) | BIT(14) },
};

/* Leaves that are emptied: performance monitoring, SGX, tracing, AMX, SVM, memory encryption. */
static const uint32_t emptied[] = { 0xa, 0x12, 0x14, 0x19, 0x1d, 0x1e, 0x8000000a, 0x8000001b,
    0x8000001c, 0x8000001f, 0x80000022 };

static uint32_t *reg_of(struct kvm_cpuid_entry2 *x, enum hv_reg reg)
{
    switch (reg) {
    case HV_EAX:
        return &x->eax;
    case HV_EBX:
        return &x->ebx;
    case HV_ECX:
        return &x->ecx;
    case HV_EDX:
        return &x->edx;
    }
    return NULL;
}

static struct kvm_cpuid_entry2 *find(const struct cpuid_table *t, uint32_t leaf, uint32_t index)
{
    for (uint32_t i = 0; i < t->nent; i++) {
        const struct kvm_cpuid_entry2 *x = &t->entry[i];

        if (x->function == leaf &&
            ((x->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) == 0 || x->index == index))
            return (struct kvm_cpuid_entry2 *)x;
    }
    return NULL;
}

#define XSAVE_LEGACY 576u /* x87, SSE, and the header */
#define XCR0_LEGACY UINT64_C(3)
#define XSAVE_FEATURE BIT(26) /* 1.ecx */

/* XSAVE state components of XCR0 and the feature that uses them. */
static const struct {
    uint64_t components;
    uint32_t leaf;
    enum hv_reg reg;
    uint32_t feature;
} xsave_users[] = {
    { UINT64_C(0x04), 0x1, HV_ECX, BIT(28) }, /* AVX */
    { UINT64_C(0xe0), 0x7, HV_EBX, BIT(16) }, /* AVX-512 */
    { UINT64_C(0x200), 0x7, HV_ECX, BIT(3) }, /* protection keys */
};

static void empty_leaf(struct cpuid_table *t, uint32_t leaf)
{
    for (uint32_t i = 0; i < t->nent; i++)
        if (t->entry[i].function == leaf)
            t->entry[i].eax = t->entry[i].ebx = t->entry[i].ecx = t->entry[i].edx = 0;
}

static uint64_t xcr0_of(const struct cpuid_table *t)
{
    const struct kvm_cpuid_entry2 *x = find(t, 0xd, 0);

    return x == NULL ? 0 : (uint64_t)x->edx << 32 | x->eax;
}

static void fit_xsave(struct cpuid_table *t)
{
    struct kvm_cpuid_entry2 *top = find(t, 0xd, 0), *x;
    uint64_t xcr0 = XCR0_LEGACY;
    uint32_t size = XSAVE_LEGACY;

    if (top == NULL)
        return;
    if ((x = find(t, 0x1, 0)) != NULL && (x->ecx & XSAVE_FEATURE) == 0) {
        empty_leaf(t, 0xd);
        return;
    }
    for (size_t i = 0; i < sizeof xsave_users / sizeof xsave_users[0]; i++)
        if ((x = find(t, xsave_users[i].leaf, 0)) != NULL &&
            (*reg_of(x, xsave_users[i].reg) & xsave_users[i].feature) != 0)
            xcr0 |= xsave_users[i].components;
    xcr0 &= xcr0_of(t);
    for (uint32_t i = 0; i < t->nent; i++) {
        x = &t->entry[i];
        if (x->function != 0xd || x->index < 2)
            continue;
        if (x->index > 63 || (xcr0 >> x->index & 1) == 0)
            x->eax = x->ebx = x->ecx = x->edx = 0;
        else if (x->ebx + x->eax > size)
            size = x->ebx + x->eax;
    }
    top->eax = (uint32_t)xcr0;
    top->edx = (uint32_t)(xcr0 >> 32);
    if (xcr0 != 0)
        top->ecx = size;
}

void cpuid_mask(struct cpuid_table *t)
{
    struct kvm_cpuid_entry2 *x;

    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++)
        if ((x = find(t, masks[i].leaf, masks[i].index)) != NULL)
            *reg_of(x, masks[i].reg) &= ~masks[i].clear;
    for (size_t k = 0; k < sizeof emptied / sizeof emptied[0]; k++)
        empty_leaf(t, emptied[k]);
    if ((x = find(t, 0x1, 0)) != NULL)
        x->ecx |= BIT(31);
    fit_xsave(t);
}

int cpuid_offered(int kvm_fd, struct cpuid_table *out, struct err *e)
{
    memset(out, 0, sizeof *out);
    out->nent = CPUID_MAX;
    if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, out) < 0)
        return err_sys(e, "/dev/kvm: what CPU features it supports");
    cpuid_mask(out);
    return 0;
}

int cpuid_limit(struct cpuid_table *t, const char *level, struct err *e)
{
    const struct hv_word_place *p;
    struct kvm_cpuid_entry2 *x;
    struct hv_caps caps;

    if (level[0] == '\0')
        return 0;
    memset(&caps, 0, sizeof caps);
    cpuid_caps(t, &caps);
    if (cpu_level_apply(level, &caps, e) < 0)
        return -1;
    for (unsigned w = 0; (p = hv_word_place(w)) != NULL; w++)
        if ((x = find(t, p->leaf, p->index)) != NULL)
            *reg_of(x, p->reg) &= caps.features[w];
    fit_xsave(t);
    return 0;
}

/* The brand string is the host's: KVM leaves it empty. */
static void set_brand(struct cpuid_table *t)
{
    struct hv_caps host;
    char text[48] = { 0 };

    memset(&host, 0, sizeof host);
    hv_host_cpu(&host);
    memcpy(text, host.cpu_model, strnlen(host.cpu_model, sizeof text));
    for (uint32_t i = 0; i < 3; i++) {
        struct kvm_cpuid_entry2 *x = find(t, 0x80000002 + i, 0);

        if (x == NULL)
            continue;
        memcpy(&x->eax, text + 16 * i, 4);
        memcpy(&x->ebx, text + 16 * i + 4, 4);
        memcpy(&x->ecx, text + 16 * i + 8, 4);
        memcpy(&x->edx, text + 16 * i + 12, 4);
    }
}

/* Extended topology: no threads, all vCPUs are cores of one package. */
static void set_topology_leaf(struct cpuid_table *t, unsigned id, unsigned n, unsigned bits)
{
    uint32_t to = 0;

    for (uint32_t i = 0; i < t->nent; i++)
        if (t->entry[i].function != 0xb && t->entry[i].function != 0x1f)
            t->entry[to++] = t->entry[i];
    t->nent = to;
    for (uint32_t level = 0; level < 3 && t->nent < CPUID_MAX; level++) {
        struct kvm_cpuid_entry2 *x = &t->entry[t->nent++];

        memset(x, 0, sizeof *x);
        x->function = 0xb;
        x->index = level;
        x->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        x->eax = level == 1 ? bits : 0;
        x->ebx = level == 0 ? 1 : level == 1 ? n : 0;
        x->ecx = level | (level == 0 ? 1u << 8 : level == 1 ? 2u << 8 : 0);
        x->edx = id;
    }
}

void cpuid_for_vcpu(struct cpuid_table *t, unsigned id, unsigned n)
{
    struct kvm_cpuid_entry2 *x;
    unsigned bits = 0;

    while ((1u << bits) < n)
        bits++;
    set_brand(t);
    if ((x = find(t, 0x1, 0)) != NULL) {
        x->ebx = (x->ebx & 0xff00) | id << 24 | n << 16;
        x->edx = n > 1 ? x->edx | BIT(28) : x->edx & ~BIT(28);
    }
    if ((x = find(t, 0x80000008, 0)) != NULL)
        x->ecx = (x->ecx & ~0xf0ffu) | bits << 12 | (n - 1);
    if ((x = find(t, 0x8000001e, 0)) != NULL) {
        x->eax = id;
        x->ebx = id;
        x->ecx = 0;
    }
    set_topology_leaf(t, id, n, bits);
}

static uint32_t word_of(const struct cpuid_table *t, unsigned word)
{
    const struct hv_word_place *p = hv_word_place(word);
    struct kvm_cpuid_entry2 *x = p == NULL ? NULL : find(t, p->leaf, p->index);

    return x == NULL ? 0 : *reg_of(x, p->reg);
}

static void vendor_of(const struct cpuid_table *t, char out[13])
{
    const struct kvm_cpuid_entry2 *x = find(t, 0, 0);

    memset(out, 0, 13);
    if (x == NULL)
        return;
    memcpy(out, &x->ebx, 4);
    memcpy(out + 4, &x->edx, 4);
    memcpy(out + 8, &x->ecx, 4);
}

static void model_of(const struct cpuid_table *t, char out[49])
{
    memset(out, 0, 49);
    for (uint32_t i = 0; i < 3; i++) {
        const struct kvm_cpuid_entry2 *x = find(t, 0x80000002 + i, 0);

        if (x != NULL)
            memcpy(out + 16 * i, &x->eax, 16);
    }
}

void cpuid_caps(const struct cpuid_table *t, struct hv_caps *out)
{
    const struct kvm_cpuid_entry2 *x;

    vendor_of(t, out->cpu_vendor);
    for (unsigned i = 0; i < HV_FEATURE_WORDS; i++)
        out->features[i] = word_of(t, i);
    if ((x = find(t, 0x1, 0)) != NULL)
        hv_cpu_signature(out, x->eax);
    if ((x = find(t, 0xd, 0)) != NULL) {
        out->xcr0 = (uint64_t)x->edx << 32 | x->eax;
        out->xsave_size = x->ecx;
    }
}

int machine_cpu(const struct machine *m, struct hv_caps *out, struct err *e)
{
    struct cpuid_table t = m->vcpu[0].cpuid;
    int khz = ioctl(m->vcpu[0].fd, KVM_GET_TSC_KHZ, 0);

    if (t.nent == 0) { /* incoming, and its state has not come yet */
        t = m->offered;
        if (cpuid_limit(&t, m->def->cpu_level, e) < 0)
            return -1;
        cpuid_for_vcpu(&t, 0, m->n_vcpus);
    }
    memset(out, 0, sizeof *out);
    cpuid_caps(&t, out);
    model_of(&t, out->cpu_model);
    out->tsc_khz = khz > 0 ? (uint64_t)khz : 0;
    return 0;
}

static bool same_vendor(const struct cpuid_table *a, const struct cpuid_table *b)
{
    const struct kvm_cpuid_entry2 *x = find(a, 0, 0), *y = find(b, 0, 0);

    return x != NULL && y != NULL && x->ebx == y->ebx && x->ecx == y->ecx && x->edx == y->edx;
}

/* A state component lies where the CPU says, on some CPUs of one vendor elsewhere: KVM would load
 * one register as another. */
static int same_xsave_layout(
    const struct cpuid_table *guest, const struct cpuid_table *host, struct err *e)
{
    uint64_t xcr0 = xcr0_of(guest);

    for (uint32_t i = 2; i < 63; i++) {
        const struct kvm_cpuid_entry2 *x = find(guest, 0xd, i), *y = find(host, 0xd, i);

        if ((xcr0 >> i & 1) == 0 || x == NULL || y == NULL)
            continue;
        if (x->eax != y->eax || x->ebx != y->ebx)
            return err_set(e, ERR_REFUSED,
                "the guest booted on a CPU that keeps state component %u of XSAVE at %u, this one "
                "at %u",
                i, x->ebx, y->ebx);
    }
    return 0;
}

static unsigned missing(
    const struct cpuid_table *guest, const struct cpuid_table *host, char *names, size_t len)
{
    uint32_t g[HV_FEATURE_WORDS], h[HV_FEATURE_WORDS];

    for (unsigned i = 0; i < HV_FEATURE_WORDS; i++) {
        g[i] = word_of(guest, i);
        h[i] = word_of(host, i);
    }
    return cpu_level_missing(g, HV_FEATURE_WORDS, h, names, len);
}

int cpuid_fits(const struct cpuid_table *guest, const struct cpuid_table *host, struct err *e)
{
    char names[240];
    unsigned lacks;

    if (!same_vendor(guest, host))
        return err_set(e, ERR_REFUSED, "the guest booted on a CPU of another vendor");
    lacks = missing(guest, host, names, sizeof names);
    if (lacks > 0)
        return err_set(e, ERR_REFUSED,
            "the guest booted with CPU features that are missing here: %s%s", names,
            strstr(names, "kvm_") != NULL ? "; kvm_ ones come with a newer kernel" : "");
    return same_xsave_layout(guest, host, e);
}

int cpuid_set(struct vcpu *v, const struct cpuid_table *t, struct err *e)
{
    /* Reading it back from KVM would give OSXSAVE and the like as they are now, and on some
     * kernels bits of the host's CPU. */
    v->cpuid = *t;
    return ioctl(v->fd, KVM_SET_CPUID2, t) < 0 ? err_sys(e, "CPUID of vcpu %u", v->id) : 0;
}
