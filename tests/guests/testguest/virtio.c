/* SPDX-License-Identifier: ISC */
#include "virtio.h"

#define MMIO_LEN 0x200u
#define MMIO_SLOTS 32u
#define MAGIC 0x74726976u /* "virt" */
#define VERSION 2u
#define FEATURE_VERSION_1 (UINT64_C(1) << 32)
#define NO_INTERRUPT 1u
#define NO_NOTIFY 1u

enum reg {
    REG_MAGIC = 0x00,
    REG_VERSION = 0x04,
    REG_DEVICE = 0x08,
    REG_FEATURES = 0x10,
    REG_FEATURES_SEL = 0x14,
    REG_DRIVER_FEATURES = 0x20,
    REG_DRIVER_FEATURES_SEL = 0x24,
    REG_QUEUE_SEL = 0x30,
    REG_QUEUE_MAX = 0x34,
    REG_QUEUE_NUM = 0x38,
    REG_QUEUE_READY = 0x44,
    REG_NOTIFY = 0x50,
    REG_STATUS = 0x70,
    REG_DESC = 0x80,
    REG_AVAIL = 0x90,
    REG_USED = 0xa0,
    REG_CONFIG = 0x100,
};

enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };

/* Where virtio-mmio slots begin: ours, and those of QEMU's microvm. */
static const uint64_t mmio_bases[] = { UINT64_C(0xd0000000), UINT64_C(0xfeb00000) };

static uint32_t reg_read(uint64_t device, unsigned reg)
{
    uint32_t v;
    __asm__ volatile("movl (%1), %0" : "=r"(v) : "r"(device + reg) : "memory");
    return v;
}

static void reg_write(uint64_t device, unsigned reg, uint32_t v)
{
    __asm__ volatile("movl %0, (%1)" : : "r"(v), "r"(device + reg) : "memory");
}

static void reg_write64(uint64_t device, unsigned reg, const void *p)
{
    reg_write(device, reg, (uint32_t)(uint64_t)p);
    reg_write(device, reg + 4, (uint32_t)((uint64_t)p >> 32));
}

uint64_t virtio_find(enum virtio_kind kind)
{
    for (unsigned i = 0; i < 2 * MMIO_SLOTS; i++) {
        uint64_t device = mmio_bases[i / MMIO_SLOTS] + i % MMIO_SLOTS * MMIO_LEN;
        if (reg_read(device, REG_MAGIC) == MAGIC && reg_read(device, REG_VERSION) == VERSION &&
            reg_read(device, REG_DEVICE) == kind)
            return device;
    }
    return 0;
}

static uint64_t offered_features(uint64_t device)
{
    reg_write(device, REG_FEATURES_SEL, 1);
    uint64_t high = reg_read(device, REG_FEATURES);
    reg_write(device, REG_FEATURES_SEL, 0);
    return high << 32 | reg_read(device, REG_FEATURES);
}

bool virtio_agree(uint64_t device, uint64_t wanted, uint64_t *agreed)
{
    reg_write(device, REG_STATUS, 0);
    reg_write(device, REG_STATUS, ACKNOWLEDGE | DRIVER);
    *agreed = offered_features(device) & (wanted | FEATURE_VERSION_1);
    reg_write(device, REG_DRIVER_FEATURES_SEL, 1);
    reg_write(device, REG_DRIVER_FEATURES, (uint32_t)(*agreed >> 32));
    reg_write(device, REG_DRIVER_FEATURES_SEL, 0);
    reg_write(device, REG_DRIVER_FEATURES, (uint32_t)*agreed);
    reg_write(device, REG_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    return (*agreed & FEATURE_VERSION_1) && (reg_read(device, REG_STATUS) & FEATURES_OK);
}

bool virtq_start(struct virtq *q, uint64_t device, uint16_t number)
{
    q->device = device;
    q->number = number;
    q->avail.flags = NO_INTERRUPT;
    reg_write(device, REG_QUEUE_SEL, number);
    if (reg_read(device, REG_QUEUE_MAX) < VIRTQ_SIZE)
        return false;
    reg_write(device, REG_QUEUE_NUM, VIRTQ_SIZE);
    reg_write64(device, REG_DESC, q->desc);
    reg_write64(device, REG_AVAIL, &q->avail);
    reg_write64(device, REG_USED, &q->used);
    reg_write(device, REG_QUEUE_READY, 1);
    return true;
}

void virtio_driver_ok(uint64_t device)
{
    reg_write(device, REG_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

uint32_t virtio_config(uint64_t device, unsigned at)
{
    return reg_read(device, REG_CONFIG + at);
}

void virtq_put(struct virtq *q, uint16_t head)
{
    q->avail.ring[q->avail_next++ % VIRTQ_SIZE] = head;
    q->kick = true;
}

void virtq_kick(struct virtq *q)
{
    if (!q->kick)
        return;
    q->kick = false;
    __asm__ volatile("" : : : "memory");
    *(volatile uint16_t *)&q->avail.idx = q->avail_next;
    __asm__ volatile("mfence" : : : "memory");
    if (!(*(volatile uint16_t *)&q->used.flags & NO_NOTIFY))
        reg_write(q->device, REG_NOTIFY, q->number);
}

bool virtq_take(struct virtq *q, uint32_t *head, uint32_t *len)
{
    if (q->used_next == *(volatile uint16_t *)&q->used.idx)
        return false;
    __asm__ volatile("" : : : "memory");
    *head = q->used.ring[q->used_next % VIRTQ_SIZE].id;
    *len = q->used.ring[q->used_next++ % VIRTQ_SIZE].len;
    return true;
}
