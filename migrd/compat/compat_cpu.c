/* SPDX-License-Identifier: ISC */
/*
 * The CPU. What the guest was booted with counts (guest_cpu of the offer); a source that does
 * not tell it gave it all that its host has (its facts, or Offer.cpu, which has the words that
 * every release knows). TSC: KVM takes frequencies within 250 ppm for the same, scales where the
 * CPU can; without that a guest that needs a faster clock is helped along at each exit, and one
 * that needs a slower clock runs too fast.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/cpulist.h"
#include "hypervisor/cpu_level.h"
#include "migrd/compat/compat_internal.h"

#define TSC_TOLERANCE_PPM 250
#define INVARIANT_TSC_BIT 8 /* of the word below: the guest was promised a steady TSC */
#define INVARIANT_TSC_WORD "80000007.edx"
#define XSAVE_WORD "1.ecx"
#define XSAVE_BIT 26
#define BASELINE_REMEDY                                                                            \
    "boot the guest at a level that both hosts have: `migctl cpu baseline %s %s` tells it, "       \
    "cpu_level= sets it"
/* Xen's guests have what the host has where they boot. */
#define XEN_REMEDY                                                                                 \
    "shut the guest down and start it on the host with the lesser CPU of %s and %s: from there it "\
    "can move to both"

static const char *const xcr0_names[] = { "x87", "sse", "avx", "bndregs", "bndcsr", "avx512_opmask",
    "avx512_zmm", "avx512_hi16_zmm", "pt", "pkru", "pasid", "cet_u", "cet_s", "hdc", "uintr", "lbr",
    "hwp", "amx_tilecfg", "amx_tiledata" };

/* --- features --- */

static bool vendor(struct compare *c, const Migrd__CpuReport *guest, const Migrd__CpuReport *host)
{
    if (strcmp(guest->vendor, host->vendor) == 0) {
        compat_line(c, CHECK_OK, "cpu", "vendor", guest->vendor, host->vendor,
            "both CPUs are by the same vendor");
        return true;
    }
    checks_remedy(compat_line(c, CHECK_REFUSED, "cpu", "vendor", guest->vendor, host->vendor,
                      "the guest was booted on a CPU by %.16s, host %s has one by %.16s",
                      guest->vendor, c->dst, host->vendor),
        "choose a target with a CPU by %.16s, or shut the guest down and start it on host %s",
        guest->vendor, c->dst);
    return false;
}

/* The word of that name; 0 where the report has none. */
static uint32_t word_of(const Migrd__CpuReport *cpu, const char *name)
{
    for (unsigned w = 0; w < cpu->n_features && hv_feature_word_name(w) != NULL; w++)
        if (strcmp(hv_feature_word_name(w), name) == 0)
            return cpu->features[w];
    return 0;
}

static bool has_xsave(const Migrd__CpuReport *guest)
{
    return (word_of(guest, XSAVE_WORD) >> XSAVE_BIT & 1) != 0;
}

/* As many as there are. */
static void copy_words(const Migrd__CpuReport *cpu, uint32_t out[HV_FEATURE_WORDS])
{
    size_t n = cpu->n_features < HV_FEATURE_WORDS ? cpu->n_features : HV_FEATURE_WORDS;

    memset(out, 0, HV_FEATURE_WORDS * sizeof *out);
    if (n > 0)
        memcpy(out, cpu->features, n * sizeof *out);
}

static void features(struct compare *c, const Migrd__CpuReport *guest, const Migrd__CpuReport *host)
{
    uint32_t wants[HV_FEATURE_WORDS], has[HV_FEATURE_WORDS];
    char list[256], shown[48];
    unsigned missing;

    copy_words(guest, wants);
    copy_words(host, has);
    missing = cpu_level_missing(wants, HV_FEATURE_WORDS, has, list, sizeof list);
    if (missing == 0) {
        compat_line(c, CHECK_OK, "cpu", "features", guest->model, host->model,
            "the CPU of host %s has all that the guest may use", c->dst);
        return;
    }
    snprintf(shown, sizeof shown, "lacks %u", missing);
    checks_remedy(compat_line(c, CHECK_REFUSED, "cpu", "features", guest->model, shown,
                      "the CPU of host %s lacks %u feature%s that the guest may use: %s", c->dst,
                      missing, missing == 1 ? "" : "s", list),
        compat_is_xen(c) ? XEN_REMEDY : BASELINE_REMEDY, c->src, c->dst);
}

static void xcr0_list(uint64_t bits, char *out, size_t len)
{
    size_t n = 0;

    out[0] = '\0';
    for (unsigned b = 0; b < 64 && n + 24 < len; b++) {
        if ((bits >> b & 1) == 0)
            continue;
        if (b < sizeof xcr0_names / sizeof xcr0_names[0])
            n += (size_t)snprintf(out + n, len - n, "%s%s", n > 0 ? " " : "", xcr0_names[b]);
        else
            n += (size_t)snprintf(out + n, len - n, "%sbit %u", n > 0 ? " " : "", b);
    }
}

static void xsave(struct compare *c, const Migrd__CpuReport *guest, const Migrd__CpuReport *host)
{
    uint64_t lack = guest->xcr0 & ~host->xcr0;
    char s[48], t[48], list[200];
    struct check *k = NULL;

    if (!has_xsave(guest))
        return;
    snprintf(s, sizeof s, "%u bytes, XCR0 %#" PRIx64, guest->xsave_size, guest->xcr0);
    snprintf(t, sizeof t, "%u bytes, XCR0 %#" PRIx64, host->xsave_size, host->xcr0);
    xcr0_list(lack, list, sizeof list);
    if (lack != 0)
        k = compat_line(c, CHECK_REFUSED, "cpu", "xsave", s, t,
            "host %s cannot keep parts of the guest's register state: %s", c->dst, list);
    else if (guest->xsave_size > host->xsave_size)
        k = compat_line(c, CHECK_REFUSED, "cpu", "xsave", s, t,
            "the guest's register state has %u bytes, host %s takes %u", guest->xsave_size, c->dst,
            host->xsave_size);
    else if (guest->xcr0 != 0)
        compat_line(
            c, CHECK_OK, "cpu", "xsave", s, t, "host %s keeps the guest's register state", c->dst);
    if (k != NULL)
        checks_remedy(k, compat_is_xen(c) ? XEN_REMEDY : BASELINE_REMEDY, c->src, c->dst);
}

/* --- the clock --- */

static bool invariant_tsc(const Migrd__CpuReport *guest)
{
    return (word_of(guest, INVARIANT_TSC_WORD) >> INVARIANT_TSC_BIT & 1) != 0;
}

/* The target's clock is the faster one and cannot be slowed down. */
static void tsc_fast(
    struct compare *c, const Migrd__CpuReport *guest, const char *s, const char *t, double percent)
{
    bool promised = invariant_tsc(guest);

    checks_remedy(
        compat_line(c, promised ? CHECK_REFUSED : CHECK_WARN, "cpu", "tsc", s, t,
            "the guest's TSC would run %.2f %% too fast on host %s, %.0f s an hour: %s", percent,
            c->dst, percent * 36,
            promised ? "the guest was promised a steady one"
                     : "programs that read it themselves measure wrong times; the kernel's clock "
                       "(kvmclock) is right"),
        "choose a target with %s or less, or with TSC scaling", s);
}

/* Xen keeps a guest's TSC at the speed that it was booted with: by scaling where the CPU can, by
 * emulation else; but not one that is told to be the host's own. */
static void xen_tsc(struct compare *c, const Migrd__CpuReport *guest, const char *s, const char *t)
{
    const bool native = strncmp(c->def->tsc_mode, "native", 6) == 0;

    if (!native)
        compat_line(c, CHECK_OK, "cpu", "tsc", s, t,
            "the TSCs differ; Xen on host %s keeps the guest's at its speed", c->dst);
    else
        checks_remedy(compat_line(c, invariant_tsc(guest) ? CHECK_REFUSED : CHECK_WARN, "cpu",
                          "tsc", s, t,
                          "the guest reads the TSC of its host (tsc_mode %s), which has another "
                          "speed on host %s: its clock would go wrong%s",
                          c->def->tsc_mode, c->dst,
                          invariant_tsc(guest) ? ", and it was promised a steady one" : ""),
            "start the guest without tsc_mode=, or choose a target with %s", s);
}

static void tsc(struct compare *c, const Migrd__CpuReport *guest, const Migrd__CpuReport *host)
{
    const double want = (double)guest->tsc_khz, has = (double)host->tsc_khz;
    char s[48], t[48];

    if (guest->tsc_khz == 0 || host->tsc_khz == 0)
        return;
    snprintf(s, sizeof s, "%.3f MHz", want / 1000);
    snprintf(t, sizeof t, "%.3f MHz", has / 1000);
    if (fabs(want - has) * 1e6 <= want * TSC_TOLERANCE_PPM)
        compat_line(c, CHECK_OK, "cpu", "tsc", s, t, "the TSCs run at the same speed");
    else if (compat_is_xen(c))
        xen_tsc(c, guest, s, t);
    else if (c->target->tsc_scaling)
        compat_line(c, CHECK_OK, "cpu", "tsc", s, t,
            "the TSCs differ; host %s scales its own for the guest", c->dst);
    else if (has > want)
        tsc_fast(c, guest, s, t, (has - want) * 100 / want);
    else
        checks_remedy(compat_line(c, CHECK_WARN, "cpu", "tsc", s, t,
                          "the TSC of host %s runs %.2f %% slower than the guest's and cannot be "
                          "scaled: KVM sets it forward each time the guest leaves the CPU, and in "
                          "between it is slow",
                          c->dst, (want - has) * 100 / want),
            "choose a target with %s or more, or with TSC scaling", s);
}

/* --- vCPUs --- */

static void vcpus(struct compare *c)
{
    const Migrd__HostFacts *t = c->target;
    const unsigned n = c->def->vcpus;
    char s[32], v[48];

    snprintf(s, sizeof s, "%u", n);
    snprintf(v, sizeof v, "%u CPUs, at most %u vCPUs", t->cpus, t->max_vcpus);
    if (t->max_vcpus != 0 && n > t->max_vcpus)
        checks_remedy(compat_line(c, CHECK_REFUSED, "cpu", "vcpus", s, v,
                          "domain %s has %u vCPUs, host %s gives at most %u", c->def->name, n,
                          c->dst, t->max_vcpus),
            "boot it with %u vCPUs or less", t->max_vcpus);
    else if (t->cpus != 0 && n > t->cpus)
        checks_remedy(compat_line(c, CHECK_WARN, "cpu", "vcpus", s, v,
                          "domain %s has %u vCPUs, host %s has %u CPU%s: they will wait for one "
                          "another",
                          c->def->name, n, c->dst, t->cpus, t->cpus == 1 ? "" : "s"),
            "boot it with %u vCPU%s or less, or choose a larger target", t->cpus,
            t->cpus == 1 ? "" : "s");
    else
        compat_line(c, CHECK_OK, "cpu", "vcpus", s, v, "host %s has CPUs for all vCPUs", c->dst);
}

/* Of a list of CPUs, how many the target has, and how many there are. */
static void count_cpus(const struct compare *c, const char *list, unsigned *named, unsigned *there)
{
    cpu_set_t set;

    *named = *there = 0;
    if (cpulist_parse(list, &set, NULL) <= 0)
        return;
    for (unsigned i = 0; i < CPU_SETSIZE; i++) {
        *named += CPU_ISSET(i, &set) != 0;
        *there += CPU_ISSET(i, &set) != 0 && i < c->target->cpus;
    }
}

/* One list: that of all vCPUs (`which` NULL), or of one. */
static void pinning_of(struct compare *c, const char *which, const char *list)
{
    unsigned named, there;
    char v[32], who[40];

    count_cpus(c, list, &named, &there);
    if (named == 0)
        return;
    snprintf(v, sizeof v, "CPUs 0-%u", c->target->cpus - 1);
    snprintf(who, sizeof who, "%s", which != NULL ? which : "the vCPUs are");
    if (there == named)
        compat_line(c, CHECK_OK, "cpu", "pinning", list, v,
            "host %s has the CPUs that %s pinned to", c->dst, who);
    else
        checks_remedy(
            compat_line(c, CHECK_WARN, "cpu", "pinning", list, v,
                there == 0 ? "%s pinned to CPUs %s, of which host %s has none: they will run on "
                             "all of its CPUs"
                           : "%s pinned to CPUs %s, of which host %s lacks some: they will "
                             "share the others",
                who, list, c->dst),
            "choose CPUs that both hosts have (cpus=)");
}

static void pinning(struct compare *c)
{
    char who[40];

    if (c->target->cpus == 0)
        return;
    pinning_of(c, NULL, c->def->vcpu_pinning);
    for (size_t i = 0; i < c->def->n_vcpu_pins; i++) {
        snprintf(who, sizeof who, "vCPU %zu is", i);
        pinning_of(c, who, c->def->vcpu_pins[i]);
    }
}

void compat_cpu(struct compare *c)
{
    static const Migrd__CpuReport nothing = MIGRD__CPU_REPORT__INIT;
    const Migrd__CpuReport *guest = c->offer->guest_cpu != NULL ? c->offer->guest_cpu
                                    : c->source->cpu != NULL    ? c->source->cpu
                                                                : c->offer->cpu;
    const Migrd__CpuReport *host = c->target->cpu != NULL ? c->target->cpu : &nothing;

    if (guest == NULL || guest->vendor[0] == '\0')
        checks_remedy(compat_line(c, CHECK_REFUSED, "cpu", "vendor", "", host->vendor,
                          "host %s does not tell which CPU the guest was booted on", c->src),
            "update migrd on host %s", c->src);
    else if (vendor(c, guest, host)) {
        features(c, guest, host);
        xsave(c, guest, host);
        tsc(c, guest, host);
    }
    vcpus(c);
    pinning(c);
}
