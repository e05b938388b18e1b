/* SPDX-License-Identifier: ISC */
/*
 * blk: a polled virtio-blk driver (virtio 1.1, 5.2) for ring 3: the first block device, one
 * queue. Request n always has the descriptors 3n (header), 3n + 1 (data) and 3n + 2 (status), so
 * there is nothing to allocate.
 */
#include "virtio.h"

#define FEATURE_FLUSH (UINT64_C(1) << 9)

struct header {
    uint32_t type, reserved;
    uint64_t sector;
};

uint64_t blk_sectors;
static bool has_flush;
static struct virtq queue;
static struct header header[BLK_DEPTH];
static uint8_t status[BLK_DEPTH];

bool blk_init(void)
{
    uint64_t device = virtio_find(VIRTIO_BLK), agreed;

    if (!device || !virtio_agree(device, FEATURE_FLUSH, &agreed) || !virtq_start(&queue, device, 0))
        return false;
    has_flush = agreed & FEATURE_FLUSH;
    virtio_driver_ok(device);
    blk_sectors = (uint64_t)virtio_config(device, 4) << 32 | virtio_config(device, 0);
    return true;
}

bool blk_can_flush(void)
{
    return has_flush;
}

static void set_desc(unsigned i, const void *p, uint32_t len, unsigned flags)
{
    queue.desc[i] = (struct virtq_desc){
        .addr = (uint64_t)p, .len = len, .flags = (uint16_t)flags, .next = (uint16_t)(i + 1)
    };
}

void blk_submit(unsigned n, enum blk_op op, uint64_t sector, void *data, uint32_t len)
{
    unsigned first = 3 * n;
    header[n] = (struct header){ .type = op, .sector = sector };
    status[n] = 0xff;
    set_desc(first, &header[n], sizeof(header[n]), VIRTQ_DESC_NEXT);
    if (op == BLK_FLUSH)
        queue.desc[first].next = (uint16_t)(first + 2);
    else
        set_desc(first + 1, data, len, VIRTQ_DESC_NEXT | (op == BLK_READ ? VIRTQ_DESC_WRITE : 0));
    set_desc(first + 2, &status[n], 1, VIRTQ_DESC_WRITE);
    virtq_put(&queue, (uint16_t)first);
}

void blk_kick(void)
{
    virtq_kick(&queue);
}

bool blk_poll(unsigned *n, bool *ok)
{
    uint32_t id, len;

    if (!virtq_take(&queue, &id, &len))
        return false;
    if (id % 3 || id / 3 >= BLK_DEPTH)
        panic("the disk answered a request that was never made");
    *n = id / 3;
    *ok = status[*n] == 0;
    return true;
}
