/* SPDX-License-Identifier: ISC */
/*
 * virtio-rng: the entropy device of virtio 1.1, 5.4. One queue; each buffer of the
 * guest is filled from the host's getrandom, at most FILL_MAX bytes of it. No config,
 * no features, no state of its own.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "hypervisor/xvm/virtio.h"

#define FILL_MAX 65536u

struct rng {
    struct virtio v;
};

static uint32_t fill(struct virtio *v, const struct virtio_chain *c)
{
    uint64_t want = c->in_len < FILL_MAX ? c->in_len : FILL_MAX;
    uint64_t done = 0;

    while (done < want) {
        uint8_t buf[256]; /* getrandom gives that much at once, or nothing */
        size_t n = want - done < sizeof buf ? (size_t)(want - done) : sizeof buf;
        ssize_t got = getrandom(buf, n, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        done += virtio_chain_write(v, c, done, buf, (size_t)got);
    }
    return (uint32_t)done;
}

static void rng_work(struct virtio *v, unsigned queue)
{
    struct virtio_chain c;

    while (virtio_pop(v, queue, &c) > 0) {
        virtio_push(v, queue, &c, fill(v, &c));
        virtio_notify(v, queue);
    }
}

static void rng_config_read(struct virtio *v, unsigned offset, void *data, unsigned len)
{
    (void)v;
    (void)offset;
    (void)data;
    (void)len;
}

static void rng_save(struct virtio *v, struct state_writer *w)
{
    (void)v;
    (void)w;
}

static int rng_load(struct virtio *v, struct state_reader *r, struct err *e)
{
    (void)v;
    (void)r;
    (void)e;
    return 0;
}

static void rng_destroy(struct virtio *v)
{
    free(v);
}

static const struct virtio_ops rng_ops = {
    .type = VIRTIO_RNG,
    .queues = 1,
    .workers = 1,
    .config_len = 0,
    .config_read = rng_config_read,
    .config_write = virtio_no_config_write,
    .work = rng_work,
    .wake = virtio_nothing,
    .abandon = virtio_no_abandon,
    .activate = virtio_nothing,
    .start = virtio_nothing,
    .quiesced = virtio_nothing,
    .reset = virtio_nothing,
    .save = rng_save,
    .load = rng_load,
    .destroy = rng_destroy,
};

int virtio_rng_create(struct machine *m, unsigned slot, struct err *e)
{
    struct rng *r = calloc(1, sizeof *r);

    if (r == NULL)
        return err_set(e, ERR_MEMORY, "virtio-rng0: out of memory");
    virtio_init(&r->v, &rng_ops, m, slot, "rng", 0, 0);
    return virtio_add(&r->v, e);
}
