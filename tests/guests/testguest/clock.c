/* SPDX-License-Identifier: ISC */
/*
 * clock: nanoseconds from kvmclock's page where KVM offers it, else from the TSC, whose
 * frequency comes from the command line, CPUID, kvmclock's factors, or, last, the PIT. And the
 * idle wait: the hypervisor's sleep port where writes to it take their time, else a spin.
 */
#include "guest.h"

struct pvclock {
    uint32_t version, pad0;
    uint64_t tsc, system_ns;
    uint32_t mul;
    int8_t shift;
    uint8_t flags, pad[2];
};
extern uint8_t pvclock_page[PAGE];

uint64_t clock_backward;
static uint64_t tsc_khz, tsc_start, last_ns, adjust_ns;
static bool use_kvmclock, sleep_port;

static uint64_t scale(uint64_t delta, uint32_t mul, int shift)
{
    if (shift >= 0)
        delta <<= shift;
    else
        delta >>= -shift;
    return (uint64_t)((unsigned __int128)delta * mul >> 32);
}

static uint64_t kvmclock_ns(void)
{
    const volatile struct pvclock *p = (const volatile struct pvclock *)pvclock_page;
    uint32_t version;
    uint64_t ns;
    do {
        version = p->version;
        __asm__ volatile("" : : : "memory");
        ns = p->system_ns + scale(tsc_now() - p->tsc, p->mul, p->shift);
        __asm__ volatile("" : : : "memory");
    } while ((version & 1) || version != p->version);
    return ns;
}

/* ns = ticks * mul >> 32 << shift, turned round. */
static uint64_t khz_of_kvmclock(void)
{
    const volatile struct pvclock *p = (const volatile struct pvclock *)pvclock_page;
    if (!p->mul)
        return 0;
    uint64_t khz = (UINT64_C(1000000) << 32) / p->mul;
    return p->shift >= 0 ? khz >> p->shift : khz << -p->shift;
}

/* Channel 2 counts 50 ms; the exits that polling costs blur it by some us. */
static uint64_t khz_of_pit(void)
{
    const unsigned count = 1193182 / 20;
    out8(0x61, (uint8_t)((in8(0x61) & ~2u) | 1u));
    out8(0x43, 0xb0);
    out8(0x42, count & 0xff);
    out8(0x42, count >> 8);
    uint64_t start = tsc_now(), now = start;
    while (!(in8(0x61) & 0x20) && now - start < UINT64_C(2000000000))
        now = tsc_now();
    return (now - start) / 50;
}

static uint64_t tsc_ns(void)
{
    uint64_t ticks = tsc_now() - tsc_start;
    return ticks / tsc_khz * 1000000 + ticks % tsc_khz * 1000000 / tsc_khz;
}

void clock_init(void)
{
    use_kvmclock = boot.kvmclock && khz_of_kvmclock() && !opt.clock_tsc;
    tsc_khz = opt.tsc_khz;
    if (!tsc_khz)
        tsc_khz = boot.cpuid_tsc_khz;
    if (!tsc_khz && boot.kvmclock)
        tsc_khz = khz_of_kvmclock();
    if (!tsc_khz)
        tsc_khz = khz_of_pit();
    if (!tsc_khz)
        panic("the TSC stands still or its frequency is unknown: give tsc_khz=");
    tsc_start = tsc_now();
}

/*
 * A source that went back (another host's, badly set) goes on from where it was. Less than 100 us
 * is what kvmclock may do between host CPUs whose TSCs differ: evened out, not counted.
 */
uint64_t clock_ns(void)
{
    uint64_t ns = (use_kvmclock ? kvmclock_ns() : tsc_ns()) + adjust_ns;
    if (ns < last_ns) {
        clock_backward += last_ns - ns > 100000;
        adjust_ns += last_ns - ns;
        ns = last_ns;
    }
    last_ns = ns;
    return ns;
}

uint64_t clock_tsc_khz(void)
{
    return tsc_khz;
}

const char *clock_name(void)
{
    return use_kvmclock ? "kvmclock" : "tsc";
}

void idle_init(void)
{
    if (opt.spin)
        return;
    uint64_t before = clock_ns();
    out16(PORT_SLEEP, 2);
    sleep_port = clock_ns() - before >= 1000000;
}

void idle_wait(void)
{
    if (sleep_port)
        out16(PORT_SLEEP, (uint16_t)opt.nap_ms);
    else
        for (unsigned i = 0; i < 200; i++)
            __asm__ volatile("pause");
}

const char *idle_name(void)
{
    return sleep_port ? "sleep" : "spin";
}
