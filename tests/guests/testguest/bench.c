/* SPDX-License-Identifier: ISC */
/*
 * bench: how fast the disk is, on request. One run keeps `depth` requests in flight for a time,
 * without a pause between them, and measures each; a run with flushes counts a write and the flush
 * behind it as one, a run of writes ends with one flush within its time: what was written is
 * written then. It works behind the part that disk.c verifies, and the loop of main.c stands
 * still meanwhile.
 */
#include "guest.h"

#define STEPS 16u /* of the histogram, to a power of two */
#define BUCKETS (64u * STEPS)

enum step { IDLE, DATA, FLUSH_BEHIND };

static uint8_t *memory;
static uint64_t memory_len, first_sector;
static uint32_t histogram[BUCKETS];

static struct {
    enum blk_op op;
    bool random, flush;
    uint64_t size, depth, position;
    uint64_t done, errors, sum_ns, max_ns;
    uint64_t began_ns[BLK_DEPTH];
    enum step step[BLK_DEPTH];
} b;

void bench_init(void *buffers, uint64_t len, uint64_t sector)
{
    memory = buffers;
    memory_len = len;
    first_sector = sector;
    for (uint64_t i = 0; i < len / 8; i++)
        ((uint64_t *)memory)[i] = mix64(i + 1);
}

static unsigned bucket_of(uint64_t ns)
{
    if (ns < STEPS)
        return (unsigned)ns;
    unsigned top = 63 - (unsigned)__builtin_clzll(ns);
    return (top - 3) * STEPS + (unsigned)(ns >> (top - 4) & (STEPS - 1));
}

static uint64_t bucket_start(unsigned i)
{
    if (i < STEPS)
        return i;
    return (uint64_t)(STEPS + i % STEPS) << (i / STEPS - 1);
}

static uint64_t percentile(uint64_t percent)
{
    uint64_t seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (seen * 100 >= b.done * percent)
            return bucket_start(i);
    }
    return 0;
}

static uint64_t next_sector(void)
{
    uint64_t sectors = b.size / 512, places = (blk_sectors - first_sector) / sectors;
    uint64_t place = b.random ? mix64(b.position) % places : b.position % places;
    b.position++;
    return first_sector + place * sectors;
}

static void next_request(unsigned n, uint64_t now)
{
    b.began_ns[n] = now;
    b.step[n] = DATA;
    blk_submit(n, b.op, next_sector(), memory + n * b.size, (uint32_t)b.size);
}

/* True: the request and what belongs to it are done. */
static bool answered(unsigned n, bool ok, uint64_t now)
{
    uint64_t ns = now - b.began_ns[n];
    b.errors += !ok;
    if (b.flush && b.step[n] == DATA) {
        b.step[n] = FLUSH_BEHIND;
        blk_submit(n, BLK_FLUSH, 0, NULL, 0);
        return false;
    }
    b.step[n] = IDLE;
    b.done++;
    b.sum_ns += ns;
    if (ns > b.max_ns)
        b.max_ns = ns;
    histogram[bucket_of(ns)]++;
    return true;
}

static void flush_at_end(void)
{
    unsigned n;
    bool ok;
    blk_submit(0, BLK_FLUSH, 0, NULL, 0);
    blk_kick();
    while (!blk_poll(&n, &ok))
        __asm__ volatile("pause");
    b.errors += !ok;
}

static uint64_t run_for(uint64_t ms)
{
    uint64_t start = clock_ns(), now = start;
    unsigned flying = 0, n;
    bool ok;
    for (; flying < b.depth; flying++)
        next_request(flying, now);
    while (flying) {
        blk_kick();
        __asm__ volatile("pause");
        now = clock_ns();
        while (blk_poll(&n, &ok)) {
            if (!answered(n, ok, now))
                continue;
            if (now - start < ms * 1000000)
                next_request(n, now);
            else
                flying--;
        }
    }
    if (b.op == BLK_WRITE && !b.flush) {
        flush_at_end();
        now = clock_ns();
    }
    return now - start;
}

static void put_result(uint64_t ns)
{
    uint64_t us = ns / 1000 ? ns / 1000 : 1;
    put("bench");
    put(b.op == BLK_READ ? " op=read" : b.flush ? " op=write+flush" : " op=write");
    put(b.random ? " pattern=random" : " pattern=sequential");
    put_kv("size", b.size, "");
    put_kv("depth", b.depth, "");
    put_kv("ops", b.done, "");
    put_kv("ms", us / 1000, "");
    put_kv("kib_s", b.done * b.size * 1000 / 1024 * 1000 / us, "");
    put_kv("iops", b.done * 1000000 / us, "");
    put_kv("mean_ns", b.done ? b.sum_ns / b.done : 0, "");
    put_kv("p50_ns", percentile(50), "");
    put_kv("p99_ns", percentile(99), "");
    put_kv("max_ns", b.max_ns, "");
    put_kv("errors", b.errors, "\n");
}

/* "read|write|write+flush SIZE DEPTH sequential|random MS" */
static bool understand(const char *words, uint64_t *ms)
{
    const char *word[5];
    size_t len[5];
    uint64_t size, depth;
    if (split_words(words, word, len, 5) != 5)
        return false;
    b.flush = word_is(word[0], len[0], "write+flush");
    b.op = word_is(word[0], len[0], "read") ? BLK_READ : BLK_WRITE;
    b.random = word_is(word[3], len[3], "random");
    if (b.op == BLK_WRITE && !b.flush && !word_is(word[0], len[0], "write"))
        return false;
    if (!parse_u64(word[1], len[1], &size) || !parse_u64(word[2], len[2], &depth) ||
        !parse_u64(word[4], len[4], ms))
        return false;
    b.size = size;
    b.depth = depth;
    return size >= 512 && size % 512 == 0 && depth >= 1 && depth <= BLK_DEPTH &&
           size * depth <= memory_len && first_sector + size / 512 <= blk_sectors;
}

void bench_run(const char *words)
{
    uint64_t ms;
    memset(&b, 0, sizeof(b));
    memset(histogram, 0, sizeof(histogram));
    if (!memory || !disk_is_stopped() || !understand(words, &ms)) {
        put("bench refused: stop the disk, then bench read|write|write+flush SIZE DEPTH "
            "sequential|random "
            "MS, with bench=MIB on the command line for SIZE * DEPTH\n");
        return;
    }
    put_result(run_for(ms));
}
