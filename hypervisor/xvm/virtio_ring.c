/* SPDX-License-Identifier: ISC */
/*
 * Split virtqueues. Constants are those of virtio 1.1: descriptors 2.6.5, rings 2.6.6
 * and 2.6.8, suppression of notifications 2.6.7 and 2.6.10.
 *
 * Hostile guests. Ring addresses are checked once, when a queue is made ready, chains
 * at each pop: index range, length of the walk, order of pieces, every address. The
 * first violation marks the device as NEEDS_RESET and is logged; later ones are silent.
 *
 * All that the device writes, rings and buffers, is marked dirty when it is written;
 * the interrupt comes last.
 */
#define _GNU_SOURCE
#include <string.h>

#include "hypervisor/xvm/virtio_internal.h"

#define DESC_LEN 16u
#define DESC_NEXT 0x1u
#define DESC_WRITE 0x2u
#define DESC_INDIRECT 0x4u
#define AVAIL_NO_INTERRUPT 0x1u
#define USED_NO_NOTIFY 0x1u
#define RING_HEAD 4u /* flags and idx before the ring, in both rings */
#define USED_ELEM 8u

/* ---- rings: fields of guest memory, read once and written once. Sequential consistency: we write
 * an index and then look at what the driver wants, it does the same, and one must see the other.
 * ---- */

static uint16_t ring_get(const uint8_t *p)
{
    return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_SEQ_CST);
}

static void ring_put(uint8_t *p, uint16_t v)
{
    __atomic_store_n((uint16_t *)(void *)p, v, __ATOMIC_SEQ_CST);
}

/* Offsets of used_event in the available ring and of avail_event in the used ring. */
static uint64_t used_event_at(const struct virtio_queue *q)
{
    return RING_HEAD + 2 * (uint64_t)q->num;
}

static uint64_t avail_event_at(const struct virtio_queue *q)
{
    return RING_HEAD + USED_ELEM * (uint64_t)q->num;
}

/* Writes a 16-bit field of the used ring. */
static void used_put(struct virtio *v, struct virtio_queue *q, uint64_t at, uint16_t value)
{
    ring_put(q->used + at, value);
    machine_dirty(v->d.m, q->used_gpa + at, sizeof value);
}

/* Finds the rings of a queue that is made ready. False: an address or size is wrong. */
bool virtio_ring_map(struct virtio *v, struct virtio_queue *q)
{
    uint64_t n = q->num;

    if (n == 0 || n > VIRTIO_QUEUE_SIZE || (n & (n - 1)) != 0)
        return false;
    if (q->desc_gpa % 16 != 0 || q->avail_gpa % 2 != 0 || q->used_gpa % 4 != 0)
        return false;
    q->desc = machine_ram(v->d.m, q->desc_gpa, DESC_LEN * n);
    q->avail = machine_ram(v->d.m, q->avail_gpa, used_event_at(q) + 2);
    q->used = machine_ram(v->d.m, q->used_gpa, avail_event_at(q) + 2);
    return q->desc != NULL && q->avail != NULL && q->used != NULL;
}

/* ---- chains ---- */

struct desc {
    uint64_t gpa;
    uint32_t len;
    uint16_t flags, next;
};

_Static_assert(sizeof(struct desc) == DESC_LEN, "descriptor of virtio 1.1, 2.6.5");

static struct desc fetch_desc(const uint8_t *table, uint32_t i)
{
    struct desc d;

    memcpy(&d, table + (size_t)i * DESC_LEN, sizeof d);
    __asm__ volatile("" ::: "memory"); /* the guest may change it: never read it again */
    return d;
}

/* Adds a piece of guest memory; NULL or what is wrong with it. */
static const char *add_piece(struct virtio *v, struct virtio_chain *c, const struct desc *d)
{
    unsigned i = c->out_n + c->in_n;
    bool in = (d->flags & DESC_WRITE) != 0;

    if (!in && c->in_n > 0)
        return "a readable descriptor after a writable one";
    if (d->len == 0)
        return NULL;
    if (i == VIRTIO_CHAIN_MAX)
        return "chain too long";
    c->iov[i].iov_base = machine_ram(v->d.m, d->gpa, d->len);
    if (c->iov[i].iov_base == NULL)
        return "descriptor outside of memory";
    c->iov[i].iov_len = d->len;
    c->gpa[i] = d->gpa;
    if (in) {
        c->in_n++;
        c->in_len += d->len;
    } else {
        c->out_n++;
        c->out_len += d->len;
    }
    return NULL;
}

/* Follows `next` through a table of n descriptors, for at most n steps. A descriptor that points
 * to an indirect table, allowed for the first in the ring's own table, ends up in *indirect. */
static const char *walk(struct virtio *v, struct virtio_chain *c, const uint8_t *table, uint32_t n,
    uint32_t i, struct desc *indirect)
{
    for (uint32_t steps = 0; steps < n; steps++) {
        struct desc d = fetch_desc(table, i);
        const char *wrong;

        if ((d.flags & DESC_INDIRECT) != 0) {
            if (indirect == NULL || steps > 0 || (d.flags & DESC_NEXT) != 0)
                return "indirect descriptor in a wrong place";
            *indirect = d;
            return NULL;
        }
        wrong = add_piece(v, c, &d);
        if (wrong != NULL)
            return wrong;
        if ((d.flags & DESC_NEXT) == 0)
            return NULL;
        i = d.next;
        if (i >= n)
            return "next descriptor out of range";
    }
    return "descriptor chain has a loop";
}

static const char *walk_indirect(struct virtio *v, struct virtio_chain *c, const struct desc *d)
{
    const uint8_t *table;

    if (!virtio_has(v, VIRTIO_FEATURE_INDIRECT))
        return "indirect descriptor, not negotiated";
    if (d->len == 0 || d->len % DESC_LEN != 0 || d->len / DESC_LEN > VIRTIO_CHAIN_MAX)
        return "bad length of an indirect table";
    table = machine_ram(v->d.m, d->gpa, d->len);
    if (table == NULL)
        return "indirect table outside of memory";
    return walk(v, c, table, d->len / DESC_LEN, 0, NULL);
}

static const char *read_chain(
    struct virtio *v, struct virtio_queue *q, struct virtio_chain *c, uint16_t head)
{
    struct desc indirect = { .gpa = 0 };
    const char *wrong;

    c->head = head;
    c->out_n = c->in_n = 0;
    c->out_len = c->in_len = 0;
    if (head >= q->num)
        return "head of a chain out of range";
    wrong = walk(v, c, q->desc, q->num, head, &indirect);
    if (wrong == NULL && (indirect.flags & DESC_INDIRECT) != 0)
        wrong = walk_indirect(v, c, &indirect);
    return wrong;
}

/* Asks for (or, where that is possible, forbids) notifications. */
static void want_notify(struct virtio *v, struct virtio_queue *q, bool want)
{
    if (virtio_has(v, VIRTIO_FEATURE_EVENT_IDX)) {
        /* Not asking anew is enough to have no more of them. */
        if (want && ring_get(q->used + avail_event_at(q)) != q->last_avail)
            used_put(v, q, avail_event_at(q), q->last_avail);
        return;
    }
    if (q->no_notify == !want)
        return;
    q->no_notify = !want;
    used_put(v, q, 0, want ? 0 : USED_NO_NOTIFY);
}

/* How many chains wait, or -1: more than the ring has. Asks for notifications when none do, and
 * looks again, as the driver may have added one in between. */
static int chains_waiting(struct virtio *v, struct virtio_queue *q)
{
    uint16_t n = (uint16_t)(ring_get(q->avail + 2) - q->last_avail);

    if (n == 0) {
        want_notify(v, q, true);
        n = (uint16_t)(ring_get(q->avail + 2) - q->last_avail);
    }
    return n <= q->num ? n : -1;
}

bool virtio_waiting(struct virtio *v, unsigned queue)
{
    struct virtio_queue *q = &v->queue[queue];

    return ring_get(q->avail + 2) != q->last_avail;
}

/* An index that lies behind us is never reached. */
void virtio_quiet(struct virtio *v, unsigned queue)
{
    struct virtio_queue *q = &v->queue[queue];

    pthread_mutex_lock(&q->lock);
    if (virtio_has(v, VIRTIO_FEATURE_EVENT_IDX))
        used_put(v, q, avail_event_at(q), (uint16_t)(q->last_avail - 1));
    else
        want_notify(v, q, false);
    pthread_mutex_unlock(&q->lock);
}

static int pop_locked(
    struct virtio *v, struct virtio_queue *q, struct virtio_chain *c, const char **wrong)
{
    int n = chains_waiting(v, q);

    if (n < 0)
        *wrong = "index of the available ring runs away";
    if (n <= 0)
        return 0;
    want_notify(v, q, false);
    *wrong =
        read_chain(v, q, c, ring_get(q->avail + RING_HEAD + 2 * (q->last_avail & (q->num - 1))));
    if (*wrong != NULL)
        return 0;
    q->last_avail++;
    return n;
}

int virtio_pop(struct virtio *v, unsigned queue, struct virtio_chain *c)
{
    struct virtio_queue *q = &v->queue[queue];
    const char *wrong = NULL;
    int n;

    if (virtio_held(v) || !virtio_driven(v))
        return 0;
    pthread_mutex_lock(&q->lock);
    n = pop_locked(v, q, c, &wrong);
    pthread_mutex_unlock(&q->lock);
    if (wrong != NULL)
        virtio_broken(v, "queue %u: %s", queue, wrong);
    if (n > 1 && v->ops->workers > 1)
        virtio_kick(v, queue); /* work for the next worker */
    return n > 0;
}

int virtio_again(struct virtio *v, unsigned queue, uint16_t head, struct virtio_chain *c)
{
    const char *wrong;

    if (!virtio_driven(v))
        return 0;
    wrong = read_chain(v, &v->queue[queue], c, head);
    if (wrong != NULL)
        virtio_broken(v, "queue %u: %s", queue, wrong);
    return wrong == NULL;
}

static void stage_locked(
    struct virtio *v, struct virtio_queue *q, const struct virtio_chain *c, uint32_t len)
{
    uint16_t at = (uint16_t)(q->used_idx + q->staged) & (uint16_t)(q->num - 1);
    uint64_t offset = RING_HEAD + USED_ELEM * (uint64_t)at;
    uint32_t elem[2] = { c->head, len };

    memcpy(q->used + offset, elem, sizeof elem);
    machine_dirty(v->d.m, q->used_gpa + offset, sizeof elem);
    q->staged++;
}

static void publish_locked(struct virtio *v, struct virtio_queue *q)
{
    q->used_idx = (uint16_t)(q->used_idx + q->staged);
    q->staged = 0;
    used_put(v, q, 2, q->used_idx);
}

void virtio_stage(struct virtio *v, unsigned queue, const struct virtio_chain *c, uint32_t len)
{
    pthread_mutex_lock(&v->queue[queue].lock);
    stage_locked(v, &v->queue[queue], c, len);
    pthread_mutex_unlock(&v->queue[queue].lock);
}

void virtio_publish(struct virtio *v, unsigned queue)
{
    pthread_mutex_lock(&v->queue[queue].lock);
    publish_locked(v, &v->queue[queue]);
    pthread_mutex_unlock(&v->queue[queue].lock);
}

void virtio_unpop(struct virtio *v, unsigned queue, unsigned more)
{
    struct virtio_queue *q = &v->queue[queue];

    pthread_mutex_lock(&q->lock);
    q->last_avail = (uint16_t)(q->last_avail - q->staged - more);
    q->staged = 0;
    pthread_mutex_unlock(&q->lock);
}

void virtio_push(struct virtio *v, unsigned queue, const struct virtio_chain *c, uint32_t len)
{
    struct virtio_queue *q = &v->queue[queue];

    pthread_mutex_lock(&q->lock);
    stage_locked(v, q, c, len);
    publish_locked(v, q);
    pthread_mutex_unlock(&q->lock);
}

/* Does the driver want an interrupt for what was published since the last one? */
static bool wants_interrupt(const struct virtio *v, struct virtio_queue *q)
{
    uint16_t old = q->signalled, new = q->used_idx, event;
    bool first = !q->signalled_valid;

    q->signalled = new;
    q->signalled_valid = true;
    if (!virtio_has(v, VIRTIO_FEATURE_EVENT_IDX))
        return (ring_get(q->avail) & AVAIL_NO_INTERRUPT) == 0;
    event = ring_get(q->avail + used_event_at(q));
    return first || (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

void virtio_notify(struct virtio *v, unsigned queue)
{
    struct virtio_queue *q = &v->queue[queue];
    bool wanted;

    pthread_mutex_lock(&q->lock);
    wanted = wants_interrupt(v, q);
    pthread_mutex_unlock(&q->lock);
    if (wanted)
        virtio_interrupt(v, VIRTIO_ISR_USED);
}

size_t virtio_chain_read(const struct virtio_chain *c, uint64_t at, void *buf, size_t len)
{
    size_t done = 0;

    for (unsigned i = 0; i < c->out_n && done < len; i++) {
        const struct iovec *io = &c->iov[i];
        size_t n;

        if (at >= io->iov_len) {
            at -= io->iov_len;
            continue;
        }
        n = io->iov_len - at < len - done ? io->iov_len - at : len - done;
        memcpy((uint8_t *)buf + done, (const uint8_t *)io->iov_base + at, n);
        done += n;
        at = 0;
    }
    __asm__ volatile("" ::: "memory");
    return done;
}

/* Writes buf, unless it is NULL, and marks dirty. */
static size_t write_or_mark(
    struct virtio *v, const struct virtio_chain *c, uint64_t at, const void *buf, uint64_t len)
{
    uint64_t done = 0;

    for (unsigned i = c->out_n; i < c->out_n + c->in_n && done < len; i++) {
        const struct iovec *io = &c->iov[i];
        uint64_t n;

        if (at >= io->iov_len) {
            at -= io->iov_len;
            continue;
        }
        n = io->iov_len - at < len - done ? io->iov_len - at : len - done;
        if (buf != NULL)
            memcpy((uint8_t *)io->iov_base + at, (const uint8_t *)buf + done, n);
        machine_dirty(v->d.m, c->gpa[i] + at, n);
        done += n;
        at = 0;
    }
    return done;
}

size_t virtio_chain_write(
    struct virtio *v, const struct virtio_chain *c, uint64_t at, const void *buf, size_t len)
{
    return write_or_mark(v, c, at, buf, len);
}

void virtio_chain_dirty(struct virtio *v, const struct virtio_chain *c, uint64_t at, uint64_t len)
{
    write_or_mark(v, c, at, NULL, len);
}
