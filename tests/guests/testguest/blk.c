/* SPDX-License-Identifier: ISC */
/*
 * blk: a polled virtio-blk driver (virtio 1.1, 4.2 and 5.2) for ring 3: the first block device
 * among the virtio-mmio slots, one split queue, no interrupts. Request n always has the descriptors
 * 3n (header), 3n + 1 (data) and 3n + 2 (status), so there is nothing to allocate. Addresses are
 * identity-mapped: a pointer is what the device wants. Loads and stores of the registers are one
 * plain MOV each, because that is what every KVM can emulate.
 */
#include "guest.h"

#define MMIO_LEN 0x200u
#define MMIO_SLOTS 32u
#define MAGIC 0x74726976u /* "virt" */
#define VERSION 2u
#define DEVICE_BLK 2u
#define QUEUE 128u
#define FEATURE_FLUSH (UINT64_C(1) << 9)
#define FEATURE_VERSION_1 (UINT64_C(1) << 32)
#define DESC_NEXT 1u
#define DESC_WRITE 2u /* by the device */
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
    REG_CAPACITY = 0x100,
};

enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};
struct avail {
    uint16_t flags, idx, ring[QUEUE], used_event;
};
struct used {
    uint16_t flags, idx;
    struct {
        uint32_t id, len;
    } ring[QUEUE];
    uint16_t avail_event;
};
struct header {
    uint32_t type, reserved;
    uint64_t sector;
};

uint64_t blk_sectors;
/* Where virtio-mmio slots begin: ours, and those of QEMU's microvm. */
static const uint64_t mmio_bases[] = { UINT64_C(0xd0000000), UINT64_C(0xfeb00000) };
static uint64_t device; /* address of its registers */
static uint16_t avail_next, used_next;
static bool kick, has_flush;
static struct desc desc[QUEUE] __attribute__((aligned(PAGE)));
static struct avail avail __attribute__((aligned(PAGE)));
static struct used used __attribute__((aligned(PAGE)));
static struct header header[BLK_DEPTH];
static uint8_t status[BLK_DEPTH];

static uint32_t reg_read(uint64_t base, unsigned reg)
{
    uint32_t v;
    __asm__ volatile("movl (%1), %0" : "=r"(v) : "r"(base + reg) : "memory");
    return v;
}

static void reg_write(unsigned reg, uint32_t v)
{
    __asm__ volatile("movl %0, (%1)" : : "r"(v), "r"(device + reg) : "memory");
}

static void reg_write64(unsigned reg, const void *p)
{
    reg_write(reg, (uint32_t)(uint64_t)p);
    reg_write(reg + 4, (uint32_t)((uint64_t)p >> 32));
}

static bool is_disk(uint64_t base)
{
    return reg_read(base, REG_MAGIC) == MAGIC && reg_read(base, REG_VERSION) == VERSION &&
           reg_read(base, REG_DEVICE) == DEVICE_BLK;
}

static bool find_device(void)
{
    for (unsigned i = 0; i < 2 * MMIO_SLOTS; i++) {
        device = mmio_bases[i / MMIO_SLOTS] + i % MMIO_SLOTS * MMIO_LEN;
        if (is_disk(device))
            return true;
    }
    return false;
}

static uint64_t offered_features(void)
{
    reg_write(REG_FEATURES_SEL, 1);
    uint64_t high = reg_read(device, REG_FEATURES);
    reg_write(REG_FEATURES_SEL, 0);
    return high << 32 | reg_read(device, REG_FEATURES);
}

static bool agree_on_features(void)
{
    uint64_t wanted = offered_features() & (FEATURE_FLUSH | FEATURE_VERSION_1);
    has_flush = wanted & FEATURE_FLUSH;
    reg_write(REG_DRIVER_FEATURES_SEL, 1);
    reg_write(REG_DRIVER_FEATURES, (uint32_t)(wanted >> 32));
    reg_write(REG_DRIVER_FEATURES_SEL, 0);
    reg_write(REG_DRIVER_FEATURES, (uint32_t)wanted);
    reg_write(REG_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    return (wanted & FEATURE_VERSION_1) && (reg_read(device, REG_STATUS) & FEATURES_OK);
}

static bool start_queue(void)
{
    avail.flags = NO_INTERRUPT;
    reg_write(REG_QUEUE_SEL, 0);
    if (reg_read(device, REG_QUEUE_MAX) < QUEUE)
        return false;
    reg_write(REG_QUEUE_NUM, QUEUE);
    reg_write64(REG_DESC, desc);
    reg_write64(REG_AVAIL, &avail);
    reg_write64(REG_USED, &used);
    reg_write(REG_QUEUE_READY, 1);
    return true;
}

bool blk_init(void)
{
    if (!find_device())
        return false;
    reg_write(REG_STATUS, 0);
    reg_write(REG_STATUS, ACKNOWLEDGE | DRIVER);
    if (!agree_on_features() || !start_queue())
        return false;
    reg_write(REG_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    blk_sectors =
        (uint64_t)reg_read(device, REG_CAPACITY + 4) << 32 | reg_read(device, REG_CAPACITY);
    return true;
}

bool blk_can_flush(void)
{
    return has_flush;
}

static void set_desc(unsigned i, const void *p, uint32_t len, unsigned flags)
{
    desc[i] = (struct desc){
        .addr = (uint64_t)p, .len = len, .flags = (uint16_t)flags, .next = (uint16_t)(i + 1)
    };
}

void blk_submit(unsigned n, enum blk_op op, uint64_t sector, void *data, uint32_t len)
{
    unsigned first = 3 * n;
    header[n] = (struct header){ .type = op, .sector = sector };
    status[n] = 0xff;
    set_desc(first, &header[n], sizeof(header[n]), DESC_NEXT);
    if (op == BLK_FLUSH)
        desc[first].next = (uint16_t)(first + 2);
    else
        set_desc(first + 1, data, len, DESC_NEXT | (op == BLK_READ ? DESC_WRITE : 0));
    set_desc(first + 2, &status[n], 1, DESC_WRITE);
    avail.ring[avail_next++ % QUEUE] = (uint16_t)first;
    kick = true;
}

void blk_kick(void)
{
    if (!kick)
        return;
    kick = false;
    __asm__ volatile("" : : : "memory");
    *(volatile uint16_t *)&avail.idx = avail_next;
    __asm__ volatile("mfence" : : : "memory");
    if (!(*(volatile uint16_t *)&used.flags & NO_NOTIFY))
        reg_write(REG_NOTIFY, 0);
}

bool blk_poll(unsigned *n, bool *ok)
{
    if (used_next == *(volatile uint16_t *)&used.idx)
        return false;
    __asm__ volatile("" : : : "memory");
    uint32_t id = used.ring[used_next++ % QUEUE].id;
    if (id % 3 || id / 3 >= BLK_DEPTH)
        panic("the disk answered a request that was never made");
    *n = id / 3;
    *ok = status[*n] == 0;
    return true;
}
