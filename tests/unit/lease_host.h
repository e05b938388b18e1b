/* SPDX-License-Identifier: ISC */
/*
 * lease_host: a host in a test of leases: it opens a disk, takes its lease, writes, as lines of
 * text tell it. Also writes when its lease says that it must not, because what the storage does
 * about that is what the tests want to know. One process has one host; lh_do answers each line.
 *
 *   open SOURCE                     prepare EPOCH [VALID_MS]     take EPOCH free|handover|proven|cluster
 *   sure                            told                         fence
 *   yield                           unyield
 *   write BLOCK COUNT BYTE          COUNT writes of 64 KiB, all in flight at once
 *   flood BLOCKS BYTE [polite], flood end     writes all over BLOCKS, 16 in flight, until told to
 * end; polite: asks its lease before each close keep|release              read SOURCE remove SOURCE
 * EPOCH
 */
#ifndef TESTS_LEASE_HOST_H
#define TESTS_LEASE_HOST_H

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "storage-check/disk.h"
#include "storage-check/lease.h"
#include "storage-check/lease_nfs_io.h"

#define LH_BLOCK 65536u
#define LH_FLIGHT 16u
#define LH_LINE 1024u
#define LH_UUID "11111111-2222-3333-4444-555555555555"

struct lh_write {
    struct disk_io io;
    uint64_t head; /* of a flood: no two writes are the same */
    struct iovec iov[2];
    struct lease_host *h;
};

struct lease_host {
    const char *name, *uuid, *secrets;
    unsigned uid_base, timeout_ms;
    char source[512];
    struct disk *disk;
    struct lease *lease;

    pthread_mutex_t lock; /* what follows */
    pthread_cond_t done;
    unsigned lost, unsure, sure;
    char text[600];
    unsigned in_flight, good, refused, cancelled, other;
    int other_error;
    uint64_t last_good_ns, first_refused_ns, last_unsure_ns;
    bool flooding, end_flood, polite;
    pthread_t flood;
    unsigned blocks;
    uint8_t data[LH_BLOCK];
    struct lh_write writes[256];
};

static void lh_lost(void *arg, const char *text)
{
    struct lease_host *h = arg;

    pthread_mutex_lock(&h->lock);
    h->lost++;
    snprintf(h->text, sizeof h->text, "%s", text);
    pthread_mutex_unlock(&h->lock);
}

static void lh_sure(void *arg, bool sure, const char *text)
{
    struct lease_host *h = arg;

    pthread_mutex_lock(&h->lock);
    if (sure)
        h->sure++;
    else
        h->unsure++;
    if (!sure)
        h->last_unsure_ns = clock_ns();
    snprintf(h->text, sizeof h->text, "%s", text);
    pthread_mutex_unlock(&h->lock);
}

static void lh_written(struct disk_io *io, int error)
{
    struct lease_host *h = io->arg;

    pthread_mutex_lock(&h->lock);
    h->in_flight--;
    if (error == 0) {
        h->good++;
        h->last_good_ns = clock_ns();
    } else if (error == EACCES || error == EPERM) {
        if (h->refused++ == 0)
            h->first_refused_ns = clock_ns();
    } else if (error == ECANCELED) {
        h->cancelled++;
    } else {
        h->other++;
        h->other_error = error;
    }
    pthread_cond_broadcast(&h->done);
    pthread_mutex_unlock(&h->lock);
}

/* With the lock held, which is given up meanwhile. */
static void lh_submit(struct lease_host *h, struct lh_write *w, uint64_t block)
{
    memcpy(&w->head, h->data, sizeof w->head);
    if (h->flooding)
        w->head = clock_ns() ^ block;
    w->iov[0] = (struct iovec){ .iov_base = &w->head, .iov_len = sizeof w->head };
    w->iov[1] = (struct iovec){ .iov_base = h->data, .iov_len = LH_BLOCK - sizeof w->head };
    w->io = (struct disk_io){ .op = DISK_WRITE,
        .offset = block * LH_BLOCK,
        .len = LH_BLOCK,
        .iov = w->iov,
        .n_iov = 2,
        .done = lh_written,
        .arg = h };
    h->in_flight++;
    pthread_mutex_unlock(&h->lock);
    disk_submit(h->disk, &w->io);
    pthread_mutex_lock(&h->lock);
}

static void lh_count_from_zero(struct lease_host *h)
{
    h->good = h->refused = h->cancelled = h->other = 0;
    h->other_error = 0;
    h->last_good_ns = h->first_refused_ns = 0;
}

static void lh_counts(const struct lease_host *h, char *out)
{
    snprintf(out, LH_LINE,
        "good %u refused %u cancelled %u other %u errno %d last-good %" PRIu64
        " first-refused %" PRIu64,
        h->good, h->refused, h->cancelled, h->other, h->other_error, h->last_good_ns,
        h->first_refused_ns);
}

static void lh_write_some(struct lease_host *h, unsigned block, unsigned count, int byte, char *out)
{
    pthread_mutex_lock(&h->lock);
    lh_count_from_zero(h);
    memset(h->data, byte, sizeof h->data);
    for (unsigned i = 0; i < count && i < 256; i++)
        lh_submit(h, &h->writes[i], block + i);
    while (h->in_flight > 0)
        pthread_cond_wait(&h->done, &h->lock);
    lh_counts(h, out);
    pthread_mutex_unlock(&h->lock);
}

/* Waves: what was refused is tried again with the next one. */
static void *lh_flood_main(void *arg)
{
    struct lease_host *h = arg;
    unsigned next = 0;

    pthread_mutex_lock(&h->lock);
    while (!h->end_flood) {
        for (unsigned i = 0; i < LH_FLIGHT && (!h->polite || lease_sure(h->lease)); i++)
            lh_submit(h, &h->writes[i], next++ % h->blocks);
        if (h->in_flight == 0) {
            pthread_mutex_unlock(&h->lock);
            usleep(10000);
            pthread_mutex_lock(&h->lock);
        }
        while (h->in_flight > 0)
            pthread_cond_wait(&h->done, &h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

static void lh_flood_begin(struct lease_host *h, unsigned blocks, int byte, bool polite, char *out)
{
    h->polite = polite;
    h->blocks = blocks;
    h->end_flood = false;
    lh_count_from_zero(h);
    memset(h->data, byte, sizeof h->data);
    h->flooding = true;
    if (pthread_create(&h->flood, NULL, lh_flood_main, h) != 0)
        abort();
    snprintf(out, LH_LINE, "ok");
}

/* Requests that a gate holds back are cancelled. */
static void lh_flood_end(struct lease_host *h, char *out)
{
    if (!h->flooding) {
        snprintf(out, LH_LINE, "no flood");
        return;
    }
    pthread_mutex_lock(&h->lock);
    h->end_flood = true;
    pthread_mutex_unlock(&h->lock);
    disk_abort(h->disk);
    pthread_join(h->flood, NULL);
    h->flooding = false;
    pthread_mutex_lock(&h->lock);
    lh_counts(h, out);
    pthread_mutex_unlock(&h->lock);
}

static struct disk_options lh_options(const struct lease_host *h)
{
    return (
        struct disk_options){ .host = h->name, .secrets = h->secrets, .timeout_ms = h->timeout_ms };
}

static void lh_answer(char *out, int r, const struct err *e)
{
    if (r == 0)
        snprintf(out, LH_LINE, "ok");
    else
        snprintf(out, LH_LINE, "%s: %s", err_code_name(e->code), e->text);
}

static void lh_prepare(struct lease_host *h, uint64_t epoch, unsigned valid_ms, char *out)
{
    struct disk_options o = lh_options(h);
    struct lease_wish w = { .source = h->source,
        .options = &o,
        .uuid = h->uuid,
        .epoch = epoch,
        .valid_ms = valid_ms,
        .nfs_uid_base = h->uid_base,
        .lost = lh_lost,
        .sure = lh_sure,
        .arg = h };
    struct err e = { .code = ERR_NONE };

    lh_answer(out, lease_prepare(&w, h->disk, &h->lease, &e), &e);
}

static void lh_take(struct lease_host *h, uint64_t epoch, const char *word, char *out)
{
    enum lease_claim claim = word[0] == 'h'   ? LEASE_HANDOVER
                             : word[0] == 'p' ? LEASE_PROVEN
                             : word[0] == 'c' ? LEASE_CLUSTER
                                              : LEASE_FREE;
    uint64_t began = clock_ns(), ended, drained;
    struct err e = { .code = ERR_NONE };
    int r = lease_take(h->lease, epoch, claim, &e);

    ended = drained = clock_ns();
    if (r == 0 && claim == LEASE_CLUSTER) {
        lease_drain(h->lease);
        drained = clock_ns();
    }
    lh_answer(out, r, &e);
    if (r == 0)
        snprintf(out, LH_LINE, "ok at %" PRIu64 " us %" PRIu64 " drained %" PRIu64, drained,
            (ended - began) / NS_PER_US, (drained - began) / NS_PER_US);
}

static void lh_told(struct lease_host *h, char *out)
{
    pthread_mutex_lock(&h->lock);
    snprintf(out, LH_LINE, "lost %u unsure %u sure %u at %" PRIu64 ": %.600s", h->lost, h->unsure,
        h->sure, h->last_unsure_ns, h->text);
    pthread_mutex_unlock(&h->lock);
}

static void lh_read(const struct lease_host *h, const char *source, char *out)
{
    struct disk_options o = lh_options(h);
    struct lease_record r;
    struct err e = { .code = ERR_NONE };
    int rc = lease_read(source, &o, &r, &e);

    lh_answer(out, rc, &e);
    if (rc == 0)
        snprintf(out, LH_LINE, "owner %s epoch %" PRIu64 " %s", r.owner[0] != '\0' ? r.owner : "-",
            r.epoch,
            r.released  ? "released"
            : r.yielded ? "yielded"
                        : "held");
}

static void lh_yield(struct lease_host *h, bool yielded, char *out)
{
    struct err e = { .code = ERR_NONE };

    lh_answer(out, lease_yield(h->lease, yielded, &e), &e);
}

static void lh_do_lease(
    struct lease_host *h, const char *verb, const char *a, const char *b, char *out)
{
    char note[400];

    if (strcmp(verb, "take") == 0)
        lh_take(h, strtoull(a, NULL, 10), b, out);
    else if (strcmp(verb, "sure") == 0)
        snprintf(out, LH_LINE, "%s", lease_sure(h->lease) ? "yes" : "no");
    else if (strcmp(verb, "yield") == 0 || strcmp(verb, "unyield") == 0)
        lh_yield(h, verb[0] == 'y', out);
    else if (strcmp(verb, "told") == 0)
        lh_told(h, out);
    else if (strcmp(verb, "fence") == 0)
        snprintf(out, LH_LINE, "\"%s\": %s", lease_fence(h->lease, note, sizeof note), note);
    else if (strcmp(verb, "close") == 0) {
        lease_close(&h->lease, strcmp(a, "release") == 0);
        snprintf(out, LH_LINE, "ok");
    }
}

static void lh_open(struct lease_host *h, const char *source, char *out)
{
    struct disk_options o = lh_options(h);
    struct err e = { .code = ERR_NONE };

    snprintf(h->source, sizeof h->source, "%s", source);
    lh_answer(out, disk_open(source, &o, &h->disk, &e), &e);
}

static void lh_remove(struct lease_host *h, const char *source, uint64_t epoch, char *out)
{
    struct disk_options o = lh_options(h);
    struct err e = { .code = ERR_NONE };

    lh_answer(out, lease_remove(source, &o, epoch, &e), &e);
}

static void lh_chown(struct lease_host *h, const char *source, unsigned uid, char *out)
{
    struct disk_options o = lh_options(h);
    struct storage_url u;
    struct nfsio n = {
        .url = &u, .options = &o, .deadline_ns = clock_of(CLOCK_BOOTTIME) + 5 * NS_PER_S
    };
    struct err e = { .code = ERR_NONE };
    int r = storage_url_parse(source, &u, &e);

    if (r == 0 && nfsio_chown(&n, u.file, uid, 0) < 0)
        r = err_set(&e, ERR_SYSTEM, "chown: %s", n.why);
    nfsio_disconnect(&n);
    lh_answer(out, r, &e);
}

static inline void lh_do(struct lease_host *h, const char *line, char out[LH_LINE])
{
    char verb[16] = "", a[512] = "", b[32] = "", c[32] = "";

    sscanf(line, "%15s %511s %31s %31s", verb, a, b, c);
    snprintf(out, LH_LINE, "what is %s?", verb);
    if (strcmp(verb, "open") == 0)
        lh_open(h, a, out);
    else if (strcmp(verb, "prepare") == 0)
        lh_prepare(h, strtoull(a, NULL, 10), (unsigned)strtoul(b, NULL, 10), out);
    else if (strcmp(verb, "read") == 0)
        lh_read(h, a, out);
    else if (strcmp(verb, "remove") == 0)
        lh_remove(h, a, strtoull(b, NULL, 10), out);
    else if (strcmp(verb, "chown") == 0)
        lh_chown(h, a, (unsigned)strtoul(b, NULL, 10), out);
    else if (strcmp(verb, "write") == 0)
        lh_write_some(h, (unsigned)strtoul(a, NULL, 10), (unsigned)strtoul(b, NULL, 10), c[0], out);
    else if (strcmp(verb, "flood") == 0 && strcmp(a, "end") == 0)
        lh_flood_end(h, out);
    else if (strcmp(verb, "flood") == 0)
        lh_flood_begin(h, (unsigned)strtoul(a, NULL, 10), b[0], c[0] == 'p', out);
    else if (h->lease != NULL)
        lh_do_lease(h, verb, a, b, out);
}

static inline struct lease_host *lh_new(const char *name)
{
    struct lease_host *h = calloc(1, sizeof *h);

    if (h == NULL)
        abort();
    h->name = name;
    h->uuid = LH_UUID;
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->done, NULL);
    return h;
}

static inline void lh_end(struct lease_host **h)
{
    char out[LH_LINE];

    if ((*h)->flooding)
        lh_flood_end(*h, out);
    lease_close(&(*h)->lease, false);
    if ((*h)->disk != NULL)
        disk_close(&(*h)->disk);
    free(*h);
    *h = NULL;
}

#endif
