/* SPDX-License-Identifier: ISC */
/*
 * guest: what the parts of the test guest know of each other. One vCPU, one thread, no
 * interrupts: main.c's loop calls each part's step function, which returns within some
 * 100 us, so that the heartbeat goes on whatever else is being done.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guest_abi.h"

#define PAGE 4096u
#define PAGES_PER_MIB 256u

static inline void out8(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline void out16(uint16_t port, uint16_t v)
{
    __asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline uint8_t in8(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
    return v;
}

static inline uint16_t in16(uint16_t port)
{
    uint16_t v;
    __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory");
    return v;
}

static inline uint32_t in32(uint16_t port)
{
    uint32_t v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
    return v;
}

static inline uint64_t tsc_now(void)
{
    uint32_t lo, hi;
    __asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
    return (uint64_t)hi << 32 | lo;
}

/* One number out of a few; the base of all patterns. */
static inline uint64_t mix64(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* What boot.c found in ring 0. */
struct ram_range {
    uint64_t start, end; /* page-aligned, above the image */
};
#define MAX_RANGES 16
struct boot_info {
    char cmdline[2048];
    struct ram_range ram[MAX_RANGES];
    unsigned ranges;
    uint32_t cpuid_tsc_khz; /* 0 unknown */
    uint32_t cpuid1_ecx, cpuid7_ebx;
    bool kvmclock;
    char warning[80]; /* shown by ring 3, "" none */
};
extern struct boot_info boot;

/* Calls that go through the gate to ring 0. */
enum ring0_call { RING0_CHECK_REGISTERS, RING0_TRIPLE_FAULT };
static inline uint64_t call_ring0(enum ring0_call c)
{
    uint64_t r = CALL_MAGIC;
    __asm__ volatile("ud2" : "+a"(r) : "D"((uint64_t)c) : "memory", "cc");
    return r;
}

/* Options of the command line, options.c. */
enum guest_mode { MODE_RUN, MODE_SELFTEST };
struct mix {
    uint32_t zero, comp, rand; /* percent, 100 together */
};
#define RATE_MAX UINT64_MAX
struct options {
    enum guest_mode mode;
    uint64_t fill_mib; /* UINT64_MAX: all that is left */
    struct mix mix;
    uint64_t ws_mib;
    uint64_t rate_mib; /* per second; RATE_MAX: unbounded */
    uint64_t touch;    /* bytes written in each dirtied page */
    uint64_t seed;
    uint64_t tick_ms;  /* 0: none */
    uint64_t verify_s; /* pause between two background passes; 0: only on request */
    uint64_t exit_ms;  /* power off by itself; 0: never */
    uint64_t tsc_khz;
    uint64_t disk_mib;   /* of the disk that is worked on; 0: no disk */
    uint64_t disk_rate;  /* jobs per second; RATE_MAX: unbounded */
    uint64_t disk_depth; /* requests in flight, at most BLK_DEPTH */
    uint64_t disk_flush; /* after so many writes; 0: never */
    uint64_t bench_mib;  /* buffers of the bench */
    uint8_t ip[4];       /* of the network card; 0: it is not used */
    uint64_t nap_ms;     /* one use of the sleep port, 1..1000 */
    bool spin;           /* never use it */
    bool clock_tsc;      /* do not use kvmclock */
};
extern struct options opt;
void options_parse(const char *cmdline);
bool parse_u64(const char *s, size_t len, uint64_t *v);
bool word_is(const char *s, size_t len, const char *word);
/* Words between blanks, at most `max`; returns how many there are. */
unsigned split_words(const char *s, const char **word, size_t *len, unsigned max);

/* Console, console.c: printing queues, console_step sends; nothing waits unless the queue is full.
 */
void put(const char *s);
void put_u64(uint64_t v);
void put_hex(uint64_t v);
void put_kv(const char *key, uint64_t v, const char *unit);
bool console_step(uint64_t now_ns); /* true: there is more to send */
void console_flush(void);
/* A line that was typed, without its end, or NULL. Valid until the next console_step. */
const char *console_line(void);

/* Clocks, clock.c. */
void clock_init(void);
uint64_t clock_ns(void); /* since some moment; never backwards */
uint64_t clock_tsc_khz(void);
const char *clock_name(void);
extern uint64_t clock_backward; /* times that the source went back */
void idle_init(void);
void idle_wait(void); /* about 1 ms, or a short spin */
const char *idle_name(void);

/* Memory: static part and working set, memory.c. All page numbers are indices, not addresses. */
struct verdict {
    uint64_t passes; /* completed */
    uint64_t bad_static, bad_ws;
    uint64_t sum; /* of the static part, by the last pass */
    uint64_t last_ms;
};
extern struct verdict verdict;
extern uint64_t dirtied_pages;
void memory_init(void);
void memory_set_rate(uint64_t mib, uint64_t now_ns);
bool dirty_step(uint64_t now_ns);   /* true: wrote something */
void verify_start(uint64_t now_ns); /* a pass on request: from the beginning, faster */
bool verify_step(uint64_t now_ns);  /* true: busy */
bool verify_request_done(void);     /* once after the pass that verify_start asked for */
uint64_t memory_static_pages(void);
uint64_t memory_ws_pages(void);
uint64_t memory_generation(void);
uint64_t memory_free_mib(void);

/* Registers that a lost vCPU state would change, registers.c (checks in ring 3) and boot.c. */
void registers_init(void);
bool registers_fpu_ok(void);
bool registers_ok(void);

/* The compiler makes calls to these two, main.c. */
void *memset(void *p, int c, size_t n);
void *memcpy(void *restrict to, const void *restrict from, size_t n);

/* The driver of the block device, blk.c. Request n is the caller's until blk_poll names it. */
#define BLK_DEPTH 32u
enum blk_op { BLK_READ = 0, BLK_WRITE = 1, BLK_FLUSH = 4 };
extern uint64_t blk_sectors;
bool blk_init(void); /* false: there is none */
bool blk_can_flush(void);
void blk_submit(unsigned n, enum blk_op op, uint64_t sector, void *data, uint32_t len);
void blk_kick(void); /* tells the device of what was submitted */
bool blk_poll(unsigned *n, bool *ok);

/* Verified work on the disk, disk.c; all but the first do nothing without disk=. */
void disk_init(void);            /* before memory_init: takes memory */
bool disk_step(uint64_t now_ns); /* true: busy */
void disk_start(uint64_t now_ns);
void disk_stop(void); /* says so once nothing is in flight and all is flushed */
bool disk_is_stopped(void);
void disk_verify(void); /* reads all blocks back, then says so */
void disk_set_rate(uint64_t per_second);
void disk_reset_gap(void);
bool disk_is_used(void);
void disk_put_verdict(void);
void disk_put_counts(void);

/* Speed of the disk behind first_sector, bench.c. */
void bench_init(void *buffers, uint64_t len, uint64_t first_sector);
void bench_run(const char *words);

/* The network card, net.c; nothing without ip=. */
void net_init(void);
bool net_step(void); /* true: busy */
bool net_is_used(void);
void net_put_counts(void);

/* Ends, each does not return. */
void power_off(void) __attribute__((noreturn));
void reboot(void) __attribute__((noreturn));
void panic(const char *why) __attribute__((noreturn));

#endif
