/* SPDX-License-Identifier: ISC */
/*
 * bench_disk: how fast disk.h is without a guest, the counterpart of "qemu-img bench": COUNT
 * requests of SIZE bytes, DEPTH of them in flight, positions STEP bytes apart (round and round).
 * "write+flush" drains and flushes after each DEPTH writes, as --flush-interval=DEPTH does; "write"
 * ends with one flush.
 *
 *   bench_disk SOURCE read|write|write+flush SIZE DEPTH STEP COUNT [SECRETS]
 *
 * Prints one line of JSON. Exit status 1: an error of the disk.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/log.h"
#include "storage-check/disk.h"

#define DEPTH_MAX 256u

struct bench {
    struct disk *disk;
    enum disk_op op;
    bool flush;
    uint64_t size, step, count, disk_size;
    unsigned depth;

    pthread_mutex_t lock; /* protects what follows */
    pthread_cond_t cond;
    uint64_t begun, done, wait_ns;
    unsigned flying;
    bool flushing;
    int error;
};

struct request {
    struct disk_io io;
    struct iovec iov;
    struct bench *b;
    uint64_t began_ns;
};

static struct request requests[DEPTH_MAX];
static struct request flush_request;

static double cpu_seconds(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void answered(struct disk_io *io, int error);

/* Fills in the next one; with the lock held. */
static void prepare(struct bench *b, struct request *r)
{
    uint64_t offset = b->begun * b->step % b->disk_size;

    r->io = (struct disk_io){ .op = b->op,
        .offset = offset + b->size <= b->disk_size ? offset : 0,
        .len = b->size,
        .iov = &r->iov,
        .n_iov = 1,
        .done = answered,
        .arg = r };
    r->iov.iov_len = b->size;
    r->began_ns = clock_ns();
    b->begun++;
    b->flying++;
}

/* Main waits for that alone: to be woken for each request would cost as much as the request. */
static bool finished(const struct bench *b)
{
    return b->flying == 0 && !b->flushing && (b->begun == b->count || b->error != 0);
}

/* The batch is written: true if it must be flushed now. */
static bool batch_ended(struct bench *b)
{
    return b->flush && b->flying == 0;
}

static void submit_batch(struct bench *b)
{
    unsigned n = 0;

    pthread_mutex_lock(&b->lock);
    while (n < b->depth && b->begun < b->count)
        prepare(b, &requests[n++]);
    pthread_mutex_unlock(&b->lock);
    for (unsigned i = 0; i < n; i++)
        disk_submit(b->disk, &requests[i].io);
}

static void flushed(struct disk_io *io, int error)
{
    struct bench *b = ((struct request *)io->arg)->b;
    bool more;

    pthread_mutex_lock(&b->lock);
    b->flushing = false;
    if (error != 0)
        b->error = error;
    more = b->error == 0 && b->begun < b->count;
    if (!more)
        pthread_cond_signal(&b->cond);
    pthread_mutex_unlock(&b->lock);
    if (more)
        submit_batch(b);
}

static void start_flush(struct bench *b)
{
    flush_request.io = (struct disk_io){ .op = DISK_FLUSH, .done = flushed, .arg = &flush_request };
    disk_submit(b->disk, &flush_request.io);
}

static void answered(struct disk_io *io, int error)
{
    struct request *r = io->arg;
    struct bench *b = r->b;
    bool again, flush;

    pthread_mutex_lock(&b->lock);
    b->done++;
    b->flying--;
    b->wait_ns += clock_ns() - r->began_ns;
    if (error != 0)
        b->error = error;
    again = !b->flush && b->error == 0 && b->begun < b->count;
    flush = batch_ended(b);
    b->flushing = flush;
    if (again)
        prepare(b, r);
    if (finished(b))
        pthread_cond_signal(&b->cond);
    pthread_mutex_unlock(&b->lock);
    if (again)
        disk_submit(b->disk, &r->io);
    if (flush)
        start_flush(b);
}

static void run(struct bench *b)
{
    submit_batch(b);
    pthread_mutex_lock(&b->lock);
    while (!finished(b))
        pthread_cond_wait(&b->cond, &b->lock);
    b->flushing = b->op == DISK_WRITE && !b->flush;
    pthread_mutex_unlock(&b->lock);
    if (!b->flushing)
        return;
    start_flush(b);
    pthread_mutex_lock(&b->lock);
    while (b->flushing)
        pthread_cond_wait(&b->cond, &b->lock);
    pthread_mutex_unlock(&b->lock);
}

static int parse(struct bench *b, char **v)
{
    b->flush = strcmp(v[2], "write+flush") == 0;
    b->op = strcmp(v[2], "read") == 0 ? DISK_READ : DISK_WRITE;
    b->size = strtoull(v[3], NULL, 10);
    b->depth = (unsigned)strtoul(v[4], NULL, 10);
    b->step = strtoull(v[5], NULL, 10);
    b->count = strtoull(v[6], NULL, 10);
    return b->size == 0 || b->depth == 0 || b->depth > DEPTH_MAX || b->step == 0 ? -1 : 0;
}

static void make_buffers(struct bench *b)
{
    for (unsigned i = 0; i < b->depth; i++) {
        requests[i].b = b;
        requests[i].iov.iov_base = aligned_alloc(4096, (b->size + 4095) & ~UINT64_C(4095));
        if (requests[i].iov.iov_base == NULL)
            abort();
        memset(requests[i].iov.iov_base, 0x5a, b->size);
    }
    flush_request.b = b;
}

static void report(const struct bench *b, double seconds, double cpu)
{
    printf("{\"ops\": %llu, \"seconds\": %.6f, \"mean_us\": %.2f, \"cpu_s\": %.4f}\n",
        (unsigned long long)b->done, seconds, (double)b->wait_ns / (double)b->done / 1e3, cpu);
}

int main(int argc, char **argv)
{
    struct bench b = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
    struct disk_options o = { .host = "bench", .secrets = argc == 8 ? argv[7] : NULL };
    double cpu;
    struct err e;
    uint64_t t;

    if (argc < 7 || parse(&b, argv) < 0) {
        fprintf(stderr,
            "usage: bench_disk SOURCE read|write|write+flush SIZE DEPTH STEP COUNT [SECRETS]\n");
        return 2;
    }
    if (disk_open(argv[1], &o, &b.disk, &e) < 0) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    b.disk_size = disk_size(b.disk);
    make_buffers(&b);
    cpu = cpu_seconds();
    t = clock_ns();
    run(&b);
    report(&b, (double)(clock_ns() - t) / 1e9, cpu_seconds() - cpu);
    disk_close(&b.disk);
    if (b.error != 0)
        fprintf(stderr, "the disk answers: %s\n", strerror(b.error));
    for (unsigned i = 0; i < b.depth; i++)
        free(requests[i].iov.iov_base);
    return b.error != 0;
}
