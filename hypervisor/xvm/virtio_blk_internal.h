/* SPDX-License-Identifier: ISC */
/*
 * virtio_blk_internal: the block device's parts: virtio_blk.c (device, life, state),
 * virtio_blk_io.c (requests on their way to the disk and back) and virtio_blk_guard.c
 * (errors, servers that are gone, the lease). All of a struct blk lives until the
 * device's `destroy`, which ends the guard's thread, the lease and the disk, in this order.
 */
#ifndef XVM_VIRTIO_BLK_INTERNAL_H
#define XVM_VIRTIO_BLK_INTERNAL_H

#include <stdatomic.h>

#include "hypervisor/xvm/virtio.h"
#include "storage-check/disk.h"
#include "storage-check/lease.h"

#define BLK_SECTOR 512u
#define BLK_WORKERS 4u
#define BLK_RANGES 32u /* of one discard */
/* Limits of one request; zeroes may have to be written out, and a pause waits for that. */
#define BLK_DISCARD_SECTORS (1u << 21) /* 1 GiB */
#define BLK_ZERO_RANGES 1u
#define BLK_ZERO_SECTORS (1u << 15) /* 16 MiB */

struct blk;

/* One range of discard or write zeroes (virtio 1.1, 5.2.6). */
struct blk_range {
    uint64_t sector;
    uint32_t sectors, flags;
};

/* From being popped until it is pushed, or kept. */
struct blk_request {
    struct blk *b;
    struct blk_request *next, *prev; /* b->active, or b->unused by `next` */
    uint64_t began_ns;               /* network disks only */
    struct blk_request *with, *last; /* done together with it, and the last of them */
    bool async;                      /* virtio_async_begin was called */
    uint32_t type;
    unsigned n_ranges, next_range;
    struct virtio_chain c;
    struct disk_io io;
    struct iovec iov[VIRTIO_CHAIN_MAX];
    struct blk_range range[BLK_RANGES];
};

#define BLK_REQUESTS (VIRTIO_QUEUE_SIZE + BLK_WORKERS)

/* What a request ends with: a status for the guest, or one of these. */
enum blk_end {
    BLK_OK = 0,
    BLK_IOERR = 1,
    BLK_UNSUPP = 2,
    BLK_KEPT,    /* noted in b->kept: done again later */
    BLK_DROPPED, /* the driver does not want it any more */
};

/* Config space (virtio 1.1, 5.2.4). */
struct blk_config {
    uint64_t capacity;
    uint32_t size_max, seg_max;
    uint8_t geometry[4];
    uint32_t blk_size;
    uint8_t topology[8];
    uint8_t writeback, unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
    uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap, unused1[3];
} __attribute__((packed));

_Static_assert(sizeof(struct blk_config) == 60, "config space of virtio 1.1, 5.2.4");

struct blk {
    struct virtio v; /* first */
    struct virtio_ops ops;
    /* Read only after creation. */
    char *source, *device;
    char id[20];
    bool network, read_only;
    Migrd__OnIoError policy; /* never IO_DEFAULT */
    unsigned io_timeout_ms;
    struct blk_config config;
    struct disk_options options;
    struct blk_request *pool;  /* BLK_REQUESTS */
    struct blk_request *batch; /* of the disk's thread, in blk_work: not submitted yet */
    struct blk_request *ended; /* of the disk's thread: done, staged in the ring, by `with` */
    uint64_t idle_ns;          /* the same: when the driver got back the last one there was; or 0 */
    unsigned luck;             /* the same: worth of looking for the next one, see await_next */

    /* Control thread; workers read `disk` and `lease` after the first start. */
    bool incoming;
    bool kick_event;   /* kicks go to the disk's eventfd */
    struct disk *disk; /* NULL: an incoming domain's file before its first resume */
    struct lease *lease;
    uint64_t lease_epoch; /* under which it was taken; 0 never */

    /* Requests that the guest has got back; see hv_disk_stats. */
    struct {
        _Atomic uint64_t rd_ops, rd_bytes, wr_ops, wr_bytes, flush_ops, errors;
    } count;

    atomic_bool lost_writes; /* a flush before a pause failed: the guest's next one fails */
    atomic_bool unflushed;   /* something was written since the last flush */
    atomic_uint n_again;     /* changed under lock */
    atomic_uint outstanding; /* requests that the driver has not got back */

    pthread_mutex_t abort_lock; /* one disk_abort at a time; outermost */
    pthread_mutex_t lock;       /* protects what follows */
    pthread_cond_t cond;        /* for the guard, and for `flushing` */
    unsigned n_pool;            /* requests of the pool that were ever used */
    struct blk_request *unused, *active, *active_tail; /* active: oldest first, network only */
    uint16_t kept[VIRTIO_QUEUE_SIZE], again[VIRTIO_QUEUE_SIZE]; /* heads: wait; go to a worker */
    unsigned n_kept;
    unsigned dropping, keeping, failing; /* what disk_abort is called for, nested */
    bool flushing;                       /* flush_io is in flight */
    int flush_error;
    struct disk_io flush_io;

    /* The guard's: why requests wait, under lock too. */
    pthread_t guard;
    bool has_guard, stop;
    bool failed;     /* policy stop: a request failed */
    bool unsure;     /* the guest waits for the lease */
    bool lease_lost; /* for good, under lease_epoch */
    bool lost;       /* the server does not answer */
    bool stalled;    /* and that is longer than the policy's time: stop */
    bool gave_up;    /* the same: report and ignore */
    bool error_logged;
    char why_failed[120], why_unsure[120], why_stalled[120];
    struct machine_hold hold;
};

static inline struct blk *blk_of(struct virtio *v)
{
    return (struct blk *)v;
}

/* ---- virtio_blk_io.c ---- */

void blk_work(struct virtio *v, unsigned queue);
/* Gives a request back: to the guest with a status, or to nobody. */
void blk_end(struct blk_request *r, enum blk_end end);
/* In the disk's thread: what ended well becomes the driver's. */
void blk_publish(struct blk *b);
/* Makes what was written durable; waits until a pause must be over, for network disks at all only
 * if the server answers. */
void blk_flush_for_pause(struct blk *b);

/* ---- virtio_blk_guard.c ---- */

int blk_guard_start(struct blk *b, struct err *e);
void blk_guard_stop(struct blk *b);
/* Callbacks of the disk and of the lease; arg is the struct blk. */
void blk_disk_event(void *arg, enum disk_event ev, const char *text);
void blk_lease_lost(void *arg, const char *text);
bool blk_may_send(void *arg);
void blk_lease_sure(void *arg, bool sure, const char *text);

/* False: the lease is not sure, or the fuse is blown; the request was kept, and the guest is being
 * stopped. On a network disk all requests are asked about: even a read would make it connect anew, and send again what a
 * server that restarted had not committed. */
bool blk_may_submit(struct blk_request *r);
/* The first one of a time of trouble. */
void blk_log_error(struct blk *b, const char *what, int error);
/* What becomes of a request that ended with that errno. */
enum blk_end blk_judge(struct blk_request *r, int error);
/* Head of a request that is to be done again, or -1. */
int blk_take_again(struct blk *b);
/* What was kept is done again, if nothing speaks against it; with `failed` (an unpause) a failed
 * request is no reason any more. */
void blk_redo(struct blk *b, bool failed);
/* As virtio_ops.abandon. */
void blk_abandon(struct virtio *v, bool keep);
/* Nothing is kept any more, the driver starts anew. */
void blk_forget(struct blk *b);
/* The lease was taken under a newer epoch: also if it was lost before. */
void blk_lease_anew(struct blk *b);

#endif
