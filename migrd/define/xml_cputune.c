/* SPDX-License-Identifier: ISC */
/*
 * <cputune>: pins of single vCPUs, weight, cap. <shares> is the weight as Xen has it, as in
 * libvirt's driver for Xen: 256 is the default. <global_quota> in <global_period> is the cap,
 * which is for all vCPUs of the domain together; both are in microseconds, and the cap is a whole
 * percentage. What libvirt has for single vCPUs or for its emulator's threads is refused.
 */
#include <stdlib.h>
#include <string.h>

#include "migrd/define/xml_node.h"

#define PERIOD_MIN_US 1000
#define PERIOD_MAX_US 1000000

struct tune {
    long long period_us, quota_us; /* quota 0: none */
};

static int read_number(struct reader *r, xmlNode *n, long long min, long long max, long long *out)
{
    char *text = xml_get_text(r, n), *end;
    bool good;

    if (text == NULL)
        return -1;
    *out = strtoll(text, &end, 10);
    good = text[0] != '\0' && *end == '\0' && strlen(text) < 18 && *out >= min && *out <= max;
    free(text);
    return good ? 0
                : define_fault(r, xml_line_of(n), ERR_INVALID,
                      "<%.40s> must be a number from %lld to %lld", xml_name_of(n), min, max);
}

static int read_vcpupin(struct reader *r, xmlNode *n, void *object)
{
    char vcpu[XML_ATTR_MAX], cpuset[XML_ATTR_MAX], *end;
    unsigned long i;

    (void)object;
    if (xml_need_attr(r, n, "vcpu", vcpu) < 0 || xml_need_attr(r, n, "cpuset", cpuset) < 0)
        return -1;
    i = strtoul(vcpu, &end, 10);
    if (vcpu[0] < '0' || vcpu[0] > '9' || *end != '\0' || i >= DEFINE_VCPUS_MAX)
        return define_fault(r, xml_line_of(n), ERR_INVALID,
            "<vcpupin vcpu='%.20s'>: a vCPU's number is from 0 to %d", vcpu, DEFINE_VCPUS_MAX - 1);
    if (i < r->d->n_vcpu_pins && r->d->vcpu_pins[i][0] != '\0')
        return define_fault(
            r, xml_line_of(n), ERR_INVALID, "<vcpupin vcpu='%lu'> is there twice", i);
    return hv_set_vcpu_pinning(r->d, (unsigned)i, cpuset, r->e);
}

static int read_shares(struct reader *r, xmlNode *n, void *object)
{
    long long weight;

    (void)object;
    if (read_number(r, n, 1, HV_WEIGHT_MAX, &weight) < 0)
        return -1;
    define_set_sched(r->d, (unsigned)weight, r->d->cpu_cap);
    return 0;
}

static int read_period(struct reader *r, xmlNode *n, void *object)
{
    return read_number(r, n, PERIOD_MIN_US, PERIOD_MAX_US, &((struct tune *)object)->period_us);
}

/* Negative: as much as it likes, as none. */
static int read_quota(struct reader *r, xmlNode *n, void *object)
{
    struct tune *t = object;

    if (read_number(r, n, -1, (long long)PERIOD_MAX_US * HV_CAP_MAX / 100, &t->quota_us) < 0)
        return -1;
    if (t->quota_us < 0)
        t->quota_us = 0;
    return 0;
}

#define ALL_VCPUS "a cap is for all vCPUs together; use <global_period> and <global_quota>"
#define VCPUS_ONLY "what is not a vCPU is neither pinned nor capped"

static const struct xml_rule rules[] = {
    { "vcpupin", "vcpu cpuset", read_vcpupin, NULL, true },
    { "shares", "", read_shares, NULL, false },
    { "global_period", "", read_period, NULL, false },
    { "global_quota", "", read_quota, NULL, false },
    { "period", "", NULL, ALL_VCPUS, false },
    { "quota", "", NULL, ALL_VCPUS, false },
    { "emulatorpin", "", NULL, VCPUS_ONLY, false },
    { "emulator_period", "", NULL, VCPUS_ONLY, false },
    { "emulator_quota", "", NULL, VCPUS_ONLY, false },
    { "iothreadpin", "", NULL, VCPUS_ONLY, true },
    { "iothread_period", "", NULL, VCPUS_ONLY, false },
    { "iothread_quota", "", NULL, VCPUS_ONLY, false },
    { "vcpusched", "", NULL, "vCPUs are scheduled by weight", true },
    { "iothreadsched", "", NULL, VCPUS_ONLY, true },
    { "emulatorsched", "", NULL, VCPUS_ONLY, false },
    { "cachetune", "", NULL, "caches are not divided", true },
    { "memorytune", "", NULL, "memory bandwidth is not divided", true },
};

int xml_read_cputune(struct reader *r, xmlNode *n, void *object)
{
    struct tune t = { .period_us = DEFINE_CAP_PERIOD_US };
    long long percent;

    (void)object;
    if (xml_walk(r, n, rules, XML_COUNT(rules), &t) < 0)
        return -1;
    percent = t.quota_us * 100 / t.period_us;
    if (percent * t.period_us != t.quota_us * 100 || percent > HV_CAP_MAX)
        return define_fault(r, xml_line_of(n), ERR_UNSUPPORTED,
            "<global_quota> %lld in <global_period> %lld: a cap is a whole percentage of a CPU, up "
            "to %d",
            t.quota_us, t.period_us, HV_CAP_MAX);
    r->d->cpu_cap = (uint32_t)percent;
    return 0;
}
