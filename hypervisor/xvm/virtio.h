/* SPDX-License-Identifier: ISC */
/*
 * virtio: what the virtio devices of a domain share: the virtio-mmio transport,
 * version 2 (virtio 1.1, 4.2), split virtqueues (2.6), worker threads, and their part
 * of the saved state. A device embeds `struct virtio` first, fills in a struct
 * virtio_ops, calls virtio_init and, when it is ready, virtio_add; from then on the
 * machine owns it. Only virtio.c and virtio_ring.c touch the members of struct virtio.
 */
#ifndef XVM_VIRTIO_H
#define XVM_VIRTIO_H

#include <pthread.h>

#include "hypervisor/xvm/machine.h"
#include "hypervisor/xvm/state.h"

#define VIRTIO_QUEUES_MAX 2
#define VIRTIO_QUEUE_SIZE 256u
#define VIRTIO_CHAIN_MAX 256u
#define VIRTIO_WORKERS_MAX 4u

/* Device types (virtio 1.1, 5). */
enum virtio_type { VIRTIO_NET = 1, VIRTIO_BLK = 2, VIRTIO_RNG = 4, VIRTIO_BALLOON = 5 };

/* Reserved feature bits (virtio 1.1, 6). */
#define VIRTIO_FEATURE_INDIRECT (UINT64_C(1) << 28)
#define VIRTIO_FEATURE_EVENT_IDX (UINT64_C(1) << 29)
#define VIRTIO_FEATURE_VERSION_1 (UINT64_C(1) << 32)

struct virtio;

/*
 * All members are mandatory. work, wake, and the rest are called without locks except
 * where said; work by the queue's worker threads, at most `workers` at once.
 */
struct virtio_ops {
    enum virtio_type type;
    uint32_t state_version; /* of its section; 0 is 1. Older ones are read, too */
    unsigned queues;
    unsigned workers;    /* threads of each queue; 0: one of the device's own calls virtio_serve */
    unsigned config_len; /* bytes of config space */
    /* Both stay inside config_len; called with the transport's lock held: no virtio_* calls. */
    void (*config_read)(struct virtio *v, unsigned offset, void *data, unsigned len);
    void (*config_write)(struct virtio *v, unsigned offset, const void *data, unsigned len);
    /* Works on a queue until virtio_pop gives nothing. May wait for something else only if `wake`
     * ends that wait; after it, virtio_held is true. What it leaves in flight when it returns is
     * between virtio_async_begin and virtio_async_end. */
    void (*work)(struct virtio *v, unsigned queue);
    void (*wake)(struct virtio *v);
    /* Without workers only. poke: virtio_serve is to be called soon; the transport's lock is held.
     * stop: the end of that; no call is going on, nor comes, when it returns. */
    void (*poke)(struct virtio *v);
    void (*stop)(struct virtio *v);
    /* What is in flight outside of work takes too long: it is given up, and has ended when this
     * returns. Nothing new begins meanwhile. With `keep` the next start does it again, without it
     * is as if it had never been asked for. May be called by several threads at once. */
    void (*abandon)(struct virtio *v, bool keep);
    /* The driver said DRIVER_OK, or a state with it was loaded: features are final. Before the
     * first work. */
    void (*activate)(struct virtio *v);
    /* The machine starts or goes on; before the first work. */
    void (*start)(struct virtio *v);
    /* No work is going on any more, and none begins. */
    void (*quiesced)(struct virtio *v);
    void (*reset)(struct virtio *v); /* as quiesced, and the driver starts anew */
    void (*save)(struct virtio *v, struct state_writer *w);
    int (*load)(struct virtio *v, struct state_reader *r, struct err *e);
    void (*destroy)(struct virtio *v); /* frees everything, `v` too */
};

/* One virtqueue. Addresses are the guest's; pointers are valid while `ready`. */
struct virtio_queue {
    /* Transport's lock, changed only while no worker is busy. */
    uint32_t num;
    bool ready;
    uint64_t desc_gpa, avail_gpa, used_gpa;
    uint8_t *desc, *avail, *used;
    bool kicked; /* transport's lock */
    pthread_cond_t cond;

    pthread_mutex_t lock; /* protects what follows */
    uint16_t last_avail, used_idx, staged, signalled;
    bool signalled_valid;
    bool no_notify; /* what used->flags says */
};

struct virtio_worker {
    struct virtio *v;
    unsigned queue;
    pthread_t thread;
};

struct virtio {
    struct device d;
    struct device_ops d_ops;
    char name[32]; /* "virtio-blk0" */
    const struct virtio_ops *ops;
    uint64_t offered;
    struct virtio *next; /* of this process, see virtio_find */

    pthread_mutex_t lock; /* protects what follows, down to the queues */
    pthread_cond_t idle;
    unsigned hold;  /* reasons why no worker may begin; also read without the lock */
    unsigned busy;  /* workers inside work() */
    unsigned async; /* requests in flight outside of it */
    bool quiesced, stop, broken_logged;
    uint32_t status; /* also read without the lock */
    uint64_t features;
    uint32_t offered_sel, features_sel, queue_sel, generation;
    uint32_t isr; /* atomic */
    struct virtio_queue queue[VIRTIO_QUEUES_MAX];

    pthread_mutex_t irq_lock; /* one pulse of the line at a time */
    struct virtio_worker worker[VIRTIO_QUEUES_MAX * VIRTIO_WORKERS_MAX];
    unsigned workers;
};

/*
 * A descriptor chain, pieces that the device reads first, then those it writes. The memory is the
 * guest's and may change at any time: copy what is looked at twice.
 */
struct virtio_chain {
    uint16_t head;
    unsigned out_n, in_n;
    uint64_t out_len, in_len;
    struct iovec iov[VIRTIO_CHAIN_MAX]; /* out_n, then in_n */
    uint64_t gpa[VIRTIO_CHAIN_MAX];
};

/* `kind` and `index` make the name. The reserved feature bits are added. */
void virtio_init(struct virtio *v, const struct virtio_ops *ops, struct machine *m, unsigned slot,
    const char *kind, unsigned index, uint64_t features);

/* Frees a device that was not added, by its `destroy`. */
void virtio_dispose(struct virtio *v);

/* Starts the workers (held until the device's start) and gives it to the machine. On failure v is
 * destroyed. */
int virtio_add(struct virtio *v, struct err *e);

/* The device of that type of machine m which was added before `after` (NULL: the newest). */
struct virtio *virtio_find(
    const struct machine *m, enum virtio_type type, const struct virtio *after);

unsigned virtio_count(const struct machine *m, enum virtio_type type);

bool virtio_has(const struct virtio *v, uint64_t feature); /* negotiated; inside work, activate */
bool virtio_driven(const struct virtio *v);                /* a driver is there, not broken */
bool virtio_held(const struct virtio *v);

/* Does what a worker of the queue does after a kick: calls `work`, unless it has to wait. One
 * thread at a time; no lock is held. */
void virtio_serve(struct virtio *v, unsigned queue);

/* The guest's kicks of the queue go to that eventfd if the machine can do it; whoever waits for it
 * calls virtio_serve. Those of others (virtio_ops.poke) do not. */
bool virtio_kick_event(struct virtio *v, unsigned queue, int fd, bool on);

/* 1 and the next chain; 0 none now (the guest will notify), or held, or broken. */
int virtio_pop(struct virtio *v, unsigned queue, struct virtio_chain *c);

/* Within work, for who looks at the ring for a moment instead of sleeping. quiet: the driver need
 * not notify, until the next pop that gives nothing. */
bool virtio_waiting(struct virtio *v, unsigned queue);
void virtio_quiet(struct virtio *v, unsigned queue);

/* A chain that was popped before and has not been pushed: reads its descriptors anew. 0: they are
 * broken. */
int virtio_again(struct virtio *v, unsigned queue, uint16_t head, struct virtio_chain *c);

/* A request stays in flight when work returns: begin is called inside work (or while the device is
 * silent), end by any thread, of `n` requests, with no lock held. After the last end, v may be
 * gone. */
void virtio_async_begin(struct virtio *v);
void virtio_async_end(struct virtio *v, unsigned n);

/* Work for a sleeping worker of the queue; takes the transport's lock. */
void virtio_kick(struct virtio *v, unsigned queue);

/* Gives a chain back with `len` bytes written, which the device has marked dirty. */
void virtio_push(struct virtio *v, unsigned queue, const struct virtio_chain *c, uint32_t len);

/* For several chains that must show up together; queues with one worker only. */
void virtio_stage(struct virtio *v, unsigned queue, const struct virtio_chain *c, uint32_t len);
void virtio_publish(struct virtio *v, unsigned queue);
/* Takes back the staged chains and `more` that were popped: the next pop gives them again. */
void virtio_unpop(struct virtio *v, unsigned queue, unsigned more);

/* Interrupts the guest if it wants to know of what was pushed. */
void virtio_notify(struct virtio *v, unsigned queue);

/* The config space changed. */
void virtio_config_changed(struct virtio *v);

/* The driver broke the rules: nothing more is done until it resets the device. */
void virtio_broken(struct virtio *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Copies at most len bytes from or (marked dirty) to a chain, from byte `at` on; returns how many.
 */
size_t virtio_chain_read(const struct virtio_chain *c, uint64_t at, void *buf, size_t len);
size_t virtio_chain_write(
    struct virtio *v, const struct virtio_chain *c, uint64_t at, const void *buf, size_t len);
/* Marks bytes [at, at + len) of the written part dirty. */
void virtio_chain_dirty(struct virtio *v, const struct virtio_chain *c, uint64_t at, uint64_t len);

/* Members for devices that have nothing to do there. */
void virtio_no_config_write(struct virtio *v, unsigned offset, const void *data, unsigned len);
void virtio_nothing(struct virtio *v);
void virtio_no_abandon(struct virtio *v, bool keep);

#endif
