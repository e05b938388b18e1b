/* SPDX-License-Identifier: ISC */
/*
 * virtio_guest: a tiny guest driver of a virtio-mmio device in a fake_machine: sets the
 * device up, offers chains, waits until they are used. For the tests of the devices.
 */
#ifndef VIRTIO_GUEST_H
#define VIRTIO_GUEST_H

#include "tests/unit/fake_machine.h"

#define DESC UINT64_C(0x10000) /* rings of queue 0; queue n is n * 0x10000 further */
#define AVAIL UINT64_C(0x14000)
#define USED UINT64_C(0x18000)
#define QUEUE_STEP UINT64_C(0x10000)
#define DATA UINT64_C(0x100000)
#define QUEUE_SIZE 16u

#define D_NEXT 1
#define D_WRITE 2
#define D_INDIRECT 4
#define F_VERSION_1 (UINT64_C(1) << 32)
#define F_EVENT_IDX (UINT64_C(1) << 29)
#define F_INDIRECT (UINT64_C(1) << 28)
#define NEEDS_RESET 0x40u

struct guest {
    struct machine *m;
    struct device *d;
    unsigned queues;
    uint16_t avail[2];
};

static inline uint32_t in32(struct guest *g, uint64_t reg)
{
    uint32_t v = 0;

    g->d->ops->io_read(g->d, reg, &v, 4);
    return v;
}

static inline void out32(struct guest *g, uint64_t reg, uint32_t v)
{
    g->d->ops->io_write(g->d, reg, &v, 4);
}

static inline void put16(struct guest *g, uint64_t gpa, uint16_t v)
{
    __atomic_store_n((uint16_t *)(void *)(g->m->ram + gpa), v, __ATOMIC_SEQ_CST);
}

static inline uint16_t get16(struct guest *g, uint64_t gpa)
{
    return __atomic_load_n((uint16_t *)(void *)(g->m->ram + gpa), __ATOMIC_SEQ_CST);
}

static inline void set_desc(struct guest *g, uint64_t table, unsigned i, uint64_t gpa, uint32_t len,
    uint16_t flags, uint16_t next)
{
    uint8_t *p = g->m->ram + table + (uint64_t)i * 16;

    memcpy(p, &gpa, 8);
    memcpy(p + 8, &len, 4);
    memcpy(p + 12, &flags, 2);
    memcpy(p + 14, &next, 2);
}

static inline void offer(struct guest *g, unsigned q, uint16_t head)
{
    put16(g, AVAIL + q * QUEUE_STEP + 4 + 2 * (g->avail[q] % QUEUE_SIZE), head);
    put16(g, AVAIL + q * QUEUE_STEP + 2, ++g->avail[q]);
}

static inline void set_queue(struct guest *g, unsigned q)
{
    uint64_t step = q * QUEUE_STEP;

    memset(g->m->ram + DESC + step, 0, QUEUE_STEP);
    out32(g, 0x30, q);
    out32(g, 0x38, QUEUE_SIZE);
    out32(g, 0x80, (uint32_t)(DESC + step));
    out32(g, 0x84, 0);
    out32(g, 0x90, (uint32_t)(AVAIL + step));
    out32(g, 0x94, 0);
    out32(g, 0xa0, (uint32_t)(USED + step));
    out32(g, 0xa4, 0);
    out32(g, 0x44, 1);
    g->avail[q] = 0;
}

static inline void drive(struct guest *g, uint64_t features)
{
    out32(g, 0x70, 0);
    out32(g, 0x70, 1);
    out32(g, 0x70, 3);
    out32(g, 0x24, 0);
    out32(g, 0x20, (uint32_t)features);
    out32(g, 0x24, 1);
    out32(g, 0x20, (uint32_t)(features >> 32));
    out32(g, 0x70, 11);
    assert_int_equal(in32(g, 0x70), 11);
    for (unsigned q = 0; q < g->queues; q++)
        set_queue(g, q);
    out32(g, 0x70, 15);
    assert_int_equal(in32(g, 0x70), 15);
}

static inline void quiet(struct guest *g)
{
    g->d->ops->quiesce(g->d);
}

/* Starts the device, kicks, and waits until it has used as many chains as were offered, or is
 * broken. It is silent again afterwards, so that nothing moves while a test looks. */
static inline bool run(struct guest *g, unsigned q)
{
    g->d->ops->start(g->d);
    out32(g, 0x50, q);
    for (int i = 0; i < 20000; i++) {
        if (get16(g, USED + q * QUEUE_STEP + 2) == g->avail[q]) {
            quiet(g);
            return true;
        }
        if ((in32(g, 0x70) & NEEDS_RESET) != 0) {
            quiet(g);
            return false;
        }
        usleep(100);
    }
    fail_msg("no answer");
    return false;
}

/* A request of header, data in two pieces, status; returns the status, -1 if broken. */
static inline int request(
    struct guest *g, uint32_t type, uint64_t sector, uint64_t data, uint32_t len, bool in)
{
    uint64_t header = DATA - 64, status = DATA - 32;
    uint16_t way = in ? D_WRITE : 0;
    uint32_t half = len / 3;

    memset(g->m->ram + header, 0, 16);
    memcpy(g->m->ram + header, &type, 4);
    memcpy(g->m->ram + header + 8, &sector, 8);
    g->m->ram[status] = 0xee;
    set_desc(g, DESC, 0, header, 16, D_NEXT, 1);
    set_desc(g, DESC, 1, data, half, way | D_NEXT, 2);
    set_desc(g, DESC, 2, data + half, len - half, way | D_NEXT, 3);
    set_desc(g, DESC, 3, status, 1, D_WRITE, 0);
    offer(g, 0, 0);
    fake_clean(g->m);
    if (!run(g, 0))
        return -1;
    fake_check_dirty(g->m);
    return g->m->ram[status];
}

#endif
