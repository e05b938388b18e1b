/* SPDX-License-Identifier: ISC */
/*
 * main: the guest's only loop, in ring 3. Each turn writes the heartbeat, dirties a batch,
 * verifies a slice, looks after disk and network, moves some console bytes, obeys a typed line or the power
 * button, ticks, and waits when there was nothing to do.
 *
 * The heartbeat page is the first page of the image (guest-physical 0x100000), so that a test
 * can look at it from outside. A gap is the time between two beats; the longest is
 * kept until reset-gap. It is measured twice, by the clock and by the raw TSC: after a pause, only
 * a clock that the hypervisor let run on shows the pause.
 */
#include "guest.h"

#define HEARTBEAT_MAGIC UINT64_C(0x74616562746c6775) /* "ugltbeat" */
#define POWER_POLL_NS 100000000u

struct heartbeat {
    uint64_t magic, beats, tsc, clock_ns;
    uint64_t longest_tsc, longest_ns, longest_at_ns; /* clock when the longest one ended */
    uint64_t dirtied_pages, generation, passes, bad_static, bad_ws, tsc_khz;
};
static struct heartbeat hb __attribute__((section(".heartbeat"), aligned(PAGE))) = {
    .magic = HEARTBEAT_MAGIC,
};

void guest_main(void);

static struct {
    uint64_t number, next_ns, last_ns, last_dirtied;
} tick;
static uint64_t started_ns, next_power_ns, verify_count;

void *memset(void *p, int c, size_t n)
{
    void *at = p;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(c) : "memory");
    return p;
}

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    void *at = to;
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(n) : : "memory");
    return to;
}

static void end_here(void) __attribute__((noreturn));
static void end_here(void)
{
    for (;;)
        idle_wait();
}

void power_off(void)
{
    put("power off\n");
    console_flush();
    out16(PORT_PM1_CONTROL, PM1_SLP_EN);
    end_here();
}

void reboot(void)
{
    put("reboot\n");
    console_flush();
    out8(PORT_KEYBOARD, KEYBOARD_RESET);
    end_here();
}

void panic(const char *why)
{
    put("panic: ");
    put(why);
    put("\n");
    console_flush();
    out8(PORT_PANIC, 1);
    end_here();
}

static void reset_gap(void)
{
    hb.longest_tsc = hb.longest_ns = hb.longest_at_ns = 0;
    disk_reset_gap();
}

static uint64_t beat(void)
{
    uint64_t tsc = tsc_now(), now = clock_ns();
    if (hb.beats) {
        uint64_t gap_tsc = tsc > hb.tsc ? tsc - hb.tsc : 0;
        if (gap_tsc > hb.longest_tsc)
            hb.longest_tsc = gap_tsc;
        if (now - hb.clock_ns > hb.longest_ns) {
            hb.longest_ns = now - hb.clock_ns;
            hb.longest_at_ns = now;
        }
    }
    hb.tsc = tsc;
    hb.clock_ns = now;
    hb.beats++;
    hb.dirtied_pages = dirtied_pages;
    hb.generation = memory_generation();
    hb.passes = verdict.passes;
    hb.bad_static = verdict.bad_static;
    hb.bad_ws = verdict.bad_ws;
    return now;
}

static void put_seconds(uint64_t ns)
{
    uint64_t ms = ns / 1000000 % 1000;
    put_u64(ns / 1000000000u);
    put(ms < 10 ? ".00" : ms < 100 ? ".0" : ".");
    put_u64(ms);
    put("s");
}

static void put_verdict(const char *key, uint64_t bad)
{
    if (bad) {
        put_kv(key, bad, "-bad");
        return;
    }
    put(" ");
    put(key);
    put(verdict.passes ? "=ok" : "=unverified");
}

static void put_checks(void)
{
    put_verdict("static", verdict.bad_static);
    put_verdict("ws", verdict.bad_ws);
    put(registers_fpu_ok() ? " fpu=ok" : " fpu=bad");
    put(registers_ok() ? " regs=ok" : " regs=bad");
    if (disk_is_used())
        disk_put_verdict();
}

static void put_state(const char *what, uint64_t number, uint64_t now)
{
    uint64_t ms = (now - tick.last_ns) / 1000000;
    put(what);
    put_u64(number);
    put(" t=");
    put_seconds(now - started_ns);
    put_kv("beats", hb.beats, "");
    put_kv("dirtied", dirtied_pages / PAGES_PER_MIB, "MiB");
    put_kv(
        "rate", ms ? (dirtied_pages - tick.last_dirtied) * 1000 / ms / PAGES_PER_MIB : 0, "MiB/s");
    put_kv("longest_gap_us", hb.longest_ns / 1000, "");
    put_kv("tsc_gap_us", hb.longest_tsc * 1000 / hb.tsc_khz, "");
    put_checks();
    put_kv("passes", verdict.passes, "");
    if (clock_backward)
        put_kv("clock_went_back", clock_backward, "");
    if (disk_is_used())
        disk_put_counts();
    if (net_is_used())
        net_put_counts();
    put("\n");
}

static void put_verified(void)
{
    put("verify ");
    put_u64(++verify_count);
    put_checks();
    put(" static_sum=");
    put_hex(verdict.sum);
    put_kv("pages", memory_static_pages() + memory_ws_pages(), "");
    put_kv("generation", memory_generation(), "");
    put_kv("ms", verdict.last_ms, "");
    put("\n");
}

/* A number, or "max"; says what is wrong with it. */
static bool rate_of(const char *word, size_t len, uint64_t *rate)
{
    if (word_is(word, len, "max"))
        *rate = RATE_MAX;
    else if (!parse_u64(word, len, rate)) {
        put("rate: a number, or max\n");
        return false;
    }
    return true;
}

/* "disk stop", "disk start", "disk verify", "disk rate N". */
static void obey_disk(const char *const *word, const size_t *len, unsigned words, uint64_t now)
{
    uint64_t rate;
    if (!disk_is_used())
        put("disk: there is none, see disk=\n");
    else if (words == 2 && word_is(word[1], len[1], "stop"))
        disk_stop();
    else if (words == 2 && word_is(word[1], len[1], "verify"))
        disk_verify();
    else if (words == 2 && word_is(word[1], len[1], "start")) {
        disk_start(now);
        put("disk started\n");
    } else if (words == 3 && word_is(word[1], len[1], "rate") && rate_of(word[2], len[2], &rate)) {
        disk_set_rate(rate);
        put("disk rate set\n");
    } else
        put("disk: stop, start, verify, rate N|max\n");
}

static void set_rate(const char *word, size_t len, uint64_t now)
{
    uint64_t rate;
    if (!rate_of(word, len, &rate))
        return;
    memory_set_rate(rate, now);
    put("rate set\n");
}

static void obey(const char *line, uint64_t now)
{
    const char *word[3] = { "", "", "" };
    size_t len[3] = { 0, 0, 0 };
    unsigned words = split_words(line, word, len, 3);
    const char *w = word[0];
    size_t l = len[0];
    if (word_is(w, l, "stat"))
        put_state("stat ", tick.number, now);
    else if (word_is(w, l, "verify"))
        verify_start(now);
    else if (word_is(w, l, "reset-gap")) {
        reset_gap();
        put("gap reset\n");
    } else if (word_is(w, l, "rate") && words == 2)
        set_rate(word[1], len[1], now);
    else if (word_is(w, l, "disk"))
        obey_disk(word, len, words, now);
    else if (word_is(w, l, "bench"))
        bench_run(w + l);
    else if (word_is(w, l, "shutdown") || word_is(w, l, "quit"))
        power_off();
    else if (word_is(w, l, "reboot"))
        reboot();
    else if (word_is(w, l, "panic"))
        panic("asked for");
    else if (word_is(w, l, "triplefault"))
        call_ring0(RING0_TRIPLE_FAULT);
    else
        put("commands: stat verify reset-gap rate N|max disk bench shutdown reboot panic "
            "triplefault\n");
}

static void poll_power(uint64_t now)
{
    if (now < next_power_ns)
        return;
    next_power_ns = now + POWER_POLL_NS;
    uint16_t status = in16(PORT_PM1_STATUS);
    if (status != 0xffff && (status & PM1_POWER_BUTTON)) {
        out16(PORT_PM1_STATUS, PM1_POWER_BUTTON);
        put("power button\n");
        power_off();
    }
    if (opt.exit_ms && now - started_ns > opt.exit_ms * 1000000)
        power_off();
}

static void step_tick(uint64_t now)
{
    if (!opt.tick_ms || now < tick.next_ns)
        return;
    put_state("tick ", ++tick.number, now);
    tick.next_ns = now + opt.tick_ms * 1000000;
    tick.last_ns = now;
    tick.last_dirtied = dirtied_pages;
}

static void set_up(void)
{
    if (boot.warning[0]) {
        put("warning: ");
        put(boot.warning);
        put("\n");
    }
    options_parse(boot.cmdline);
    registers_init();
    clock_init();
    idle_init();
    hb.tsc_khz = clock_tsc_khz();
    uint64_t before = clock_ns();
    disk_init();
    memory_init();
    net_init();
    started_ns = clock_ns();
    put("testguest up clock=");
    put(clock_name());
    put_kv("tsc_khz", hb.tsc_khz, "");
    put(" idle=");
    put(idle_name());
    put_kv("fill", memory_static_pages() / PAGES_PER_MIB, "MiB");
    put_kv("ws", memory_ws_pages() / PAGES_PER_MIB, "MiB");
    put_kv("free", memory_free_mib(), "MiB");
    put_kv("fill_ms", (started_ns - before) / 1000000, "");
    put(" cpuid1_ecx=");
    put_hex(boot.cpuid1_ecx);
    put(" cpuid7_ebx=");
    put_hex(boot.cpuid7_ebx);
    put("\n");
}

void guest_main(void)
{
    set_up();
    memory_set_rate(opt.rate_mib, started_ns);
    tick.last_ns = started_ns;
    tick.next_ns = started_ns + opt.tick_ms * 1000000;
    if (opt.mode == MODE_SELFTEST)
        verify_start(started_ns);
    for (;;) {
        uint64_t now = beat();
        bool busy = dirty_step(now);
        busy |= verify_step(now);
        busy |= disk_step(now);
        busy |= net_step();
        busy |= console_step(now);
        if (console_line())
            obey(console_line(), now);
        if (verify_request_done()) {
            put_verified();
            if (opt.mode == MODE_SELFTEST)
                power_off();
        }
        poll_power(now);
        step_tick(now);
        if (!busy)
            idle_wait();
    }
}
