/* SPDX-License-Identifier: ISC */
/*
 * virtio-balloon: the memory balloon of virtio 1.1, 5.5. Queue 0 inflates: the guest
 * lists pages (u32 frame numbers) that it will not use, and their memory goes back to
 * the host. Queue 1 deflates: nothing to do, as the pages are still the guest's and
 * read as zeroes. What we wish for is config's num_pages, what the guest has given is
 * `actual`; both are units of 4 KiB. A domain defined with less memory than its maximum
 * starts with that wish.
 *
 * State after the transport's: u32 num_pages, u32 actual.
 */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/xvm/virtio.h"

#define PAGE_SHIFT 12
#define PAGE_LEN (UINT64_C(1) << PAGE_SHIFT)
#define KIB_PER_PAGE 4u
#define FEATURE_DEFLATE_ON_OOM (UINT64_C(1) << 2)
#define BATCH 256u

enum { QUEUE_INFLATE, QUEUE_DEFLATE, QUEUES };

/* Config space (5.5.4). */
struct balloon_config {
    uint32_t num_pages, actual;
};

struct balloon {
    struct virtio v;
    pthread_mutex_t lock; /* innermost; protects config */
    struct balloon_config config;
};

static struct balloon *balloon_of(struct virtio *v)
{
    return (struct balloon *)v;
}

static struct balloon_config config_now(struct balloon *b)
{
    struct balloon_config c;

    pthread_mutex_lock(&b->lock);
    c = b->config;
    pthread_mutex_unlock(&b->lock);
    return c;
}

static void balloon_config_read(struct virtio *v, unsigned offset, void *data, unsigned len)
{
    struct balloon_config c = config_now(balloon_of(v));

    memcpy(data, (const uint8_t *)&c + offset, len);
}

/* Only `actual` is the driver's. */
static void balloon_config_write(struct virtio *v, unsigned offset, const void *data, unsigned len)
{
    struct balloon *b = balloon_of(v);

    if (offset != offsetof(struct balloon_config, actual) || len != sizeof b->config.actual)
        return;
    pthread_mutex_lock(&b->lock);
    memcpy(&b->config.actual, data, len);
    pthread_mutex_unlock(&b->lock);
}

/* Gives n frames back, neighbours together. False: one of them is not memory. */
static bool discard(struct virtio *v, const uint32_t *frame, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint64_t gpa = (uint64_t)frame[i] << PAGE_SHIFT;
        size_t run = 1;

        while (i + run < n && frame[i + run] == frame[i] + run)
            run++;
        if (machine_ram(v->d.m, gpa, run * PAGE_LEN) == NULL) {
            if (run > 1) { /* neighbours may be on both sides of a gap */
                run = 1;
            }
            if (machine_ram(v->d.m, gpa, PAGE_LEN) == NULL)
                return false;
        }
        machine_discard(v->d.m, gpa, run * PAGE_LEN);
        i += run;
    }
    return true;
}

static bool inflate(struct virtio *v, const struct virtio_chain *c)
{
    uint32_t frame[BATCH];
    uint64_t at = 0;
    size_t got;

    do {
        got = virtio_chain_read(c, at, frame, sizeof frame);
        if (!discard(v, frame, got / sizeof frame[0]))
            return false;
        at += got;
    } while (got == sizeof frame && !virtio_held(v));
    return true;
}

static void balloon_work(struct virtio *v, unsigned queue)
{
    struct virtio_chain c;

    while (virtio_pop(v, queue, &c) > 0) {
        if (queue == QUEUE_INFLATE && !inflate(v, &c)) {
            virtio_broken(v, "a page outside of memory in the balloon");
            return;
        }
        virtio_push(v, queue, &c, 0);
        virtio_notify(v, queue);
    }
}

static void balloon_reset(struct virtio *v)
{
    struct balloon *b = balloon_of(v);

    pthread_mutex_lock(&b->lock);
    b->config.actual = 0; /* the new driver has everything */
    pthread_mutex_unlock(&b->lock);
}

static void balloon_save(struct virtio *v, struct state_writer *w)
{
    struct balloon_config c = config_now(balloon_of(v));

    state_put_u32(w, c.num_pages);
    state_put_u32(w, c.actual);
}

static int balloon_load(struct virtio *v, struct state_reader *r, struct err *e)
{
    struct balloon *b = balloon_of(v);
    struct balloon_config c;

    if (state_get_u32(r, &c.num_pages, e) < 0 || state_get_u32(r, &c.actual, e) < 0)
        return -1;
    pthread_mutex_lock(&b->lock);
    b->config = c;
    pthread_mutex_unlock(&b->lock);
    return 0;
}

static void balloon_destroy(struct virtio *v)
{
    pthread_mutex_destroy(&balloon_of(v)->lock);
    free(v);
}

static const struct virtio_ops balloon_ops = {
    .type = VIRTIO_BALLOON,
    .queues = QUEUES,
    .workers = 1,
    .config_len = sizeof(struct balloon_config),
    .config_read = balloon_config_read,
    .config_write = balloon_config_write,
    .work = balloon_work,
    .wake = virtio_nothing,
    .abandon = virtio_no_abandon,
    .activate = virtio_nothing,
    .start = virtio_nothing,
    .quiesced = virtio_nothing,
    .reset = balloon_reset,
    .save = balloon_save,
    .load = balloon_load,
    .destroy = balloon_destroy,
};

/* What the guest has with an empty balloon: the size of its RAM. */
static uint64_t full_kib(const struct machine *m)
{
    const Migrd__Domain *def = machine_def(m);

    return def->max_memory_kib > 0 ? def->max_memory_kib : def->memory_kib;
}

int virtio_balloon_create(struct machine *m, unsigned slot, struct err *e)
{
    struct balloon *b = calloc(1, sizeof *b);
    uint64_t now = machine_def(m)->memory_kib;

    if (b == NULL)
        return err_set(e, ERR_MEMORY, "virtio-balloon0: out of memory");
    virtio_init(&b->v, &balloon_ops, m, slot, "balloon", 0, FEATURE_DEFLATE_ON_OOM);
    pthread_mutex_init(&b->lock, NULL);
    if (now > 0 && now < full_kib(m))
        b->config.num_pages = (uint32_t)((full_kib(m) - now) / KIB_PER_PAGE);
    return virtio_add(&b->v, e);
}

int virtio_balloon_set(struct machine *m, uint64_t memory_kib, struct err *e)
{
    struct virtio *v = virtio_find(m, VIRTIO_BALLOON, NULL);
    const char *name = machine_def(m)->name;
    struct balloon *b;

    if (v == NULL)
        return err_set(e, ERR_UNSUPPORTED,
            "domain %s has no balloon; define it with one and start it anew", name);
    if (memory_kib == 0 || memory_kib > full_kib(m))
        return err_set(e, ERR_INVALID, "domain %s: %llu KiB is not within 1 and its maximum, %llu",
            name, (unsigned long long)memory_kib, (unsigned long long)full_kib(m));
    if (!virtio_driven(v))
        return err_set(
            e, ERR_STATE, "domain %s: the guest runs no driver for its balloon (yet)", name);
    b = balloon_of(v);
    pthread_mutex_lock(&b->lock);
    b->config.num_pages = (uint32_t)((full_kib(m) - memory_kib) / KIB_PER_PAGE);
    pthread_mutex_unlock(&b->lock);
    virtio_config_changed(v);
    return 0;
}

uint64_t virtio_balloon_now(const struct machine *m)
{
    struct virtio *v = virtio_find(m, VIRTIO_BALLOON, NULL);
    uint64_t given;

    if (v == NULL)
        return full_kib(m);
    given = (uint64_t)config_now(balloon_of(v)).actual * KIB_PER_PAGE;
    return given < full_kib(m) ? full_kib(m) - given : 0;
}
