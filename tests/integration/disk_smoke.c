/* SPDX-License-Identifier: ISC */
/*
 * disk_smoke: storage-check's disks by themselves, against a real server.
 *
 *   disk_smoke [OPTION...] open SOURCE
 *       opens it, says what it is
 *   disk_smoke [OPTION...] verify SOURCE SECONDS
 *       reads, writes, flushes, zeroes at random for so long, 32 requests in flight, over its first
 *       64 MiB, and compares all of it at the end by another disk handle
 *   disk_smoke [OPTION...] bench SOURCE
 *       figures of all sorts
 *   disk_smoke -b BYTES [OPTION...] bench SOURCE COUNT
 *       so many requests one behind the other: writes, with -r reads
 *   disk_smoke [OPTION...] write SOURCE COUNT
 *       so many writes of 4 KiB, until one fails
 *   disk_smoke [OPTION...] abort SOURCE COUNT
 *       disk_abort with requests in flight, so often
 *
 *   -r read-only, -s FILE secrets, -t MS time limit, -u UID, -d DEPTH, -b BYTES of a request
 *
 * The last line of a good run begins with "ok". Events are printed as they come.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "storage-check/disk.h"

#define BLOCK 4096u
#define BLOCKS 16384u
#define MOST_BLOCKS 320u /* of one request: larger than what a server takes at once */
#define DEPTH_MAX 256u
#define UNKNOWN UINT32_MAX

struct slot {
    struct disk_io io;
    struct iovec iov[DISK_IOV_MAX];
    uint8_t *data;
    uint32_t first, count, version;
    bool busy, done;
    int error;
};

static struct disk_options options = { .host = "smoke", .timeout_ms = 5000 };
static unsigned depth = 32, bytes_of_request;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static struct slot slots[DEPTH_MAX];
static uint32_t versions[BLOCKS]; /* what is in a block; 0 zeroes */
static bool taken[BLOCKS];
static uint64_t seed = 0x9e3779b97f4a7c15u, began;

static void fail(const char *what, const char *why)
{
    printf("FAILED %s: %s\n", what, why);
    exit(1);
}

static uint32_t dice(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 33) % n;
}

static double seconds(void)
{
    return (double)(clock_ns() - began) / 1e9;
}

static void on_event(void *arg, enum disk_event ev, const char *text)
{
    (void)arg;
    printf("%8.3f %s: %s\n", seconds(), ev == DISK_LOST ? "lost" : "back", text);
}

static void on_done(struct disk_io *io, int error)
{
    struct slot *s = io->arg;

    pthread_mutex_lock(&lock);
    s->done = true;
    s->error = error;
    pthread_cond_signal(&cond);
    pthread_mutex_unlock(&lock);
}

static struct disk *open_disk(const char *source)
{
    struct disk *d;
    struct err e;

    options.event = on_event;
    if (disk_open(source, &options, &d, &e) == 0)
        return d;
    printf("refused (%s): %s\n", err_code_name(e.code), e.text);
    exit(2);
}

static void make_slots(void)
{
    for (unsigned i = 0; i < depth; i++) {
        slots[i].data = aligned_alloc(BLOCK, MOST_BLOCKS * BLOCK);
        if (slots[i].data == NULL)
            fail("memory", strerror(errno));
        memset(slots[i].data, (int)i, MOST_BLOCKS * BLOCK);
    }
}

/* ---- verify ---- */

static void fill_block(uint8_t *data, uint32_t block, uint32_t version)
{
    uint64_t *w = (uint64_t *)data, x = ((uint64_t)block << 32 | version) * 0x2545f4914f6cdd1du;

    for (unsigned i = 0; i < BLOCK / sizeof *w; i++)
        w[i] = version == 0 ? 0 : x + i;
}

static void compare_block(const uint8_t *data, uint32_t block, uint32_t version, const char *when)
{
    uint8_t want[BLOCK];
    char text[120];

    fill_block(want, block, version);
    if (version == UNKNOWN || memcmp(want, data, BLOCK) == 0)
        return;
    snprintf(text, sizeof text, "block %u is not version %u (%s)", block, version, when);
    fail("compare", text);
}

/* Pieces of odd lengths, whole sectors each. */
static void make_iov(struct slot *s, uint64_t len)
{
    uint64_t at = 0;
    unsigned n = 0;

    for (; at < len; n++) {
        uint64_t step = n + 1 == 16 ? len - at : 512u * (1 + dice(512));

        if (step > len - at || dice(4) == 0)
            step = len - at;
        s->iov[n] = (struct iovec){ s->data + at, (size_t)step };
        at += step;
    }
    s->io.iov = s->iov;
    s->io.n_iov = n;
}

static bool choose_range(struct slot *s)
{
    s->count = dice(3) == 0 ? 1 + dice(MOST_BLOCKS) : 1 + dice(16);
    s->first = dice(BLOCKS - s->count);
    for (uint32_t i = 0; i < s->count; i++)
        if (taken[s->first + i])
            return false;
    memset(taken + s->first, 1, s->count);
    return true;
}

static void begin_random(struct disk *d, struct slot *s, bool writes)
{
    uint32_t what = writes ? dice(100) : 99;

    if (what < 4)
        s->count = 0;
    else if (!choose_range(s))
        return;
    s->busy = true;
    s->done = false;
    s->io = (struct disk_io){ .op = what < 4    ? DISK_FLUSH
                                    : what < 7  ? DISK_ZEROES
                                    : what < 8  ? DISK_DISCARD
                                    : what < 65 ? DISK_WRITE
                                                : DISK_READ,
        .unmap = dice(2) == 0,
        .offset = (uint64_t)s->first * BLOCK,
        .len = (uint64_t)s->count * BLOCK,
        .done = on_done,
        .arg = s };
    make_iov(s, s->io.len);
    if (s->io.op == DISK_WRITE) {
        s->version = 1 + dice(1000000);
        for (uint32_t i = 0; i < s->count; i++)
            fill_block(s->data + (size_t)i * BLOCK, s->first + i, s->version);
    }
    disk_submit(d, &s->io);
}

static void end_random(struct slot *s, unsigned *errors)
{
    static const char *const names[] = { "read", "write", "flush", "discard", "zeroes" };

    s->busy = false;
    if (s->error != 0) {
        if (++*errors < 10)
            printf("%8.3f %s of %u blocks at %u: %s\n", seconds(), names[s->io.op], s->count,
                s->first, strerror(s->error));
    }
    for (uint32_t i = 0; i < s->count; i++) {
        uint32_t block = s->first + i;

        taken[block] = false;
        if (s->io.op == DISK_READ && s->error == 0)
            compare_block(s->data + (size_t)i * BLOCK, block, versions[block], "while running");
        if (s->io.op == DISK_WRITE)
            versions[block] = s->error == 0 ? s->version : UNKNOWN;
        if (s->io.op == DISK_ZEROES)
            versions[block] = s->error == 0 ? 0 : UNKNOWN;
        if (s->io.op == DISK_DISCARD)
            versions[block] = UNKNOWN;
    }
}

/* Waits for one that is done; NULL if none is in flight. */
static struct slot *wait_done(void)
{
    struct slot *found = NULL;
    bool any = true;

    pthread_mutex_lock(&lock);
    while (found == NULL && any) {
        any = false;
        for (unsigned i = 0; i < depth && found == NULL; i++) {
            any |= slots[i].busy;
            if (slots[i].busy && slots[i].done)
                found = &slots[i];
        }
        if (found == NULL && any)
            pthread_cond_wait(&cond, &lock);
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static int sync_io(struct disk *d, enum disk_op op, uint64_t offset, uint64_t len)
{
    struct slot *s = &slots[0];

    s->busy = true;
    s->done = false;
    s->iov[0] = (struct iovec){ s->data, (size_t)len };
    s->io = (struct disk_io){
        .op = op, .offset = offset, .len = len, .iov = s->iov, .n_iov = 1, .done = on_done, .arg = s
    };
    disk_submit(d, &s->io);
    wait_done();
    s->busy = false;
    return s->error;
}

static void compare_all(const char *source)
{
    struct disk *d = open_disk(source);

    for (uint32_t b = 0; b < BLOCKS; b += 256) {
        int error = sync_io(d, DISK_READ, (uint64_t)b * BLOCK, 256 * BLOCK);

        if (error != 0)
            fail("reading back", strerror(error));
        for (uint32_t i = 0; i < 256; i++)
            compare_block(slots[0].data + (size_t)i * BLOCK, b + i, versions[b + i], "at the end");
    }
    disk_close(&d);
}

static void verify(const char *source, double time)
{
    struct disk *d = open_disk(source);
    unsigned errors = 0, done = 0;
    struct slot *s;

    for (uint32_t b = 0; b < BLOCKS; b++)
        versions[b] = UNKNOWN;
    while ((s = wait_done()) != NULL || seconds() < time) {
        if (s != NULL) {
            end_random(s, &errors);
            done++;
        }
        for (unsigned i = 0; i < depth && seconds() < time; i++)
            if (!slots[i].busy)
                begin_random(d, &slots[i], true);
    }
    if (sync_io(d, DISK_FLUSH, 0, 0) != 0)
        fail("flush", strerror(slots[0].error));
    disk_close(&d);
    compare_all(source);
    printf("%s %u requests, %u errors\n", errors == 0 ? "ok" : "FAILED", done, errors);
    exit(errors == 0 ? 0 : 1);
}

/* ---- bench ---- */

static void begin_bench(struct disk *d, struct slot *s, enum disk_op op, uint64_t at, uint32_t len)
{
    s->busy = true;
    s->done = false;
    s->iov[0] = (struct iovec){ s->data, len };
    s->io = (struct disk_io){
        .op = op, .offset = at, .len = len, .iov = s->iov, .n_iov = 1, .done = on_done, .arg = s
    };
    disk_submit(d, &s->io);
}

/* COUNT requests of LEN bytes, `at_once` in flight; one after the other, or anywhere. */
static void bench_one(struct disk *d, const char *name, enum disk_op op, uint32_t len,
    unsigned count, unsigned at_once, bool anywhere)
{
    uint64_t room = disk_size(d) / len, t = clock_ns();
    unsigned sent = 0, flying = 0;
    struct slot *s;
    double took;

    while (sent < count || flying > 0) {
        for (unsigned i = 0; i < at_once && sent < count; i++)
            if (!slots[i].busy) {
                uint64_t n = anywhere ? dice((uint32_t)room) : sent % room;

                begin_bench(d, &slots[i], op, n * len, len);
                sent++;
                flying++;
            }
        s = wait_done();
        if (s->error != 0)
            fail(name, strerror(s->error));
        s->busy = false;
        flying--;
    }
    took = (double)(clock_ns() - t) / 1e9;
    printf("%-28s %8.1f MiB/s %9.0f /s %8.1f us\n", name, (double)len * count / took / (1 << 20),
        count / took, took / count * 1e6 * at_once);
}

static void flush_now(struct disk *d)
{
    uint64_t t = clock_ns();

    if (sync_io(d, DISK_FLUSH, 0, 0) != 0)
        fail("flush", strerror(slots[0].error));
    printf("%-28s %37.1f us\n", "flush", (double)(clock_ns() - t) / 1e3);
}

static void bench(const char *source, unsigned count)
{
    struct disk *d = open_disk(source);
    unsigned most = (unsigned)(disk_size(d) >> 20);

    if (most > 512)
        most = 512;
    if (bytes_of_request != 0) {
        bench_one(d, options.read_only ? "read" : "write",
            options.read_only ? DISK_READ : DISK_WRITE, bytes_of_request, count, depth, false);
        disk_close(&d);
        return;
    }
    bench_one(d, "first write 1M x 8", DISK_WRITE, 1u << 20, most, 8, false);
    flush_now(d);
    bench_one(d, "write 1M x 8", DISK_WRITE, 1u << 20, 2 * most, 8, false);
    flush_now(d);
    bench_one(d, "read 1M x 8", DISK_READ, 1u << 20, 2 * most, 8, false);
    bench_one(d, "write 64K x 16", DISK_WRITE, 1u << 16, 8 * most, 16, true);
    flush_now(d);
    bench_one(d, "read 64K x 16", DISK_READ, 1u << 16, 8 * most, 16, true);
    bench_one(d, "write 4K x 32", DISK_WRITE, 4096, 40000, 32, true);
    flush_now(d);
    bench_one(d, "read 4K x 32", DISK_READ, 4096, 40000, 32, true);
    bench_one(d, "write 4K x 1", DISK_WRITE, 4096, 5000, 1, true);
    bench_one(d, "read 4K x 1", DISK_READ, 4096, 5000, 1, true);
    disk_close(&d);
    printf("ok\n");
}

/* ---- others ---- */

static void show(const char *source)
{
    struct disk *d = open_disk(source);

    printf("ok %llu bytes, blocks of %u\n", (unsigned long long)disk_size(d), disk_block_size(d));
    disk_close(&d);
}

static void write_until(const char *source, unsigned count)
{
    struct disk *d = open_disk(source);
    unsigned i;
    int error = 0;

    for (i = 0; i < count && error == 0; i++) {
        error = sync_io(d, DISK_WRITE, (uint64_t)dice(BLOCKS) * BLOCK, BLOCK);
        usleep(1000);
    }
    disk_close(&d);
    printf("%s after %u writes: %s\n", error == 0 ? "ok" : "ended", i, strerror(error));
}

static void abort_often(const char *source, unsigned count)
{
    struct disk *d = open_disk(source);
    unsigned cancelled = 0, done = 0;
    struct slot *s;

    for (unsigned n = 0; n < count; n++) {
        for (unsigned i = 0; i < depth; i++)
            begin_bench(d, &slots[i], DISK_WRITE, (uint64_t)dice(BLOCKS) * BLOCK, 16 * BLOCK);
        usleep(dice(4000));
        disk_abort(d);
        for (unsigned i = 0; i < depth; i++)
            if (!slots[i].done)
                fail("abort", "a request is not done");
        while ((s = wait_done()) != NULL) {
            s->busy = false;
            if (s->error != 0 && s->error != ECANCELED)
                fail("abort", strerror(s->error));
            *(s->error == 0 ? &done : &cancelled) += 1;
        }
        if (sync_io(d, DISK_WRITE, 0, BLOCK) != 0)
            fail("write after abort", strerror(slots[0].error));
    }
    disk_close(&d);
    printf("ok %u done, %u cancelled\n", done, cancelled);
}

static void usage(void)
{
    fprintf(stderr, "disk_smoke [-r] [-s FILE] [-t MS] [-u UID] [-d DEPTH] [-b BYTES] "
                    "open|verify|bench|write|abort SOURCE [N]\n");
    exit(64);
}

int main(int argc, char **argv)
{
    int c;

    setvbuf(stdout, NULL, _IOLBF, 0);
    while ((c = getopt(argc, argv, "rs:t:u:d:b:")) != -1) {
        switch (c) {
        case 'r':
            options.read_only = true;
            break;
        case 's':
            options.secrets = optarg;
            break;
        case 't':
            options.timeout_ms = (unsigned)atoi(optarg);
            break;
        case 'u':
            options.uid = (unsigned)atoi(optarg);
            break;
        case 'd':
            depth = (unsigned)atoi(optarg);
            break;
        case 'b':
            bytes_of_request = (unsigned)atoi(optarg);
            break;
        default:
            usage();
        }
    }
    if (argc - optind < 2 || depth == 0 || depth > DEPTH_MAX)
        usage();
    began = clock_ns();
    seed ^= began;
    make_slots();
    argv += optind;
    c = argv[2] != NULL ? atoi(argv[2]) : 1;
    if (strcmp(argv[0], "open") == 0)
        show(argv[1]);
    else if (strcmp(argv[0], "verify") == 0)
        verify(argv[1], c);
    else if (strcmp(argv[0], "bench") == 0)
        bench(argv[1], (unsigned)c);
    else if (strcmp(argv[0], "write") == 0)
        write_until(argv[1], (unsigned)c);
    else if (strcmp(argv[0], "abort") == 0)
        abort_often(argv[1], (unsigned)c);
    else
        usage();
    return 0;
}
