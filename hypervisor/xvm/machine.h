/* SPDX-License-Identifier: ISC */
/*
 * machine: what the parts of one xvm-domain process know of each other. The
 * machine (machine.c) owns guest memory, KVM's descriptors, vCPU threads and the list
 * of devices; a device model owns its own state and threads, and reaches the guest
 * only through the functions below. Everything lives until machine_free, which calls
 * each device's `free` once, after all vCPUs and I/O have stopped.
 */
#ifndef XVM_MACHINE_H
#define XVM_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "hypervisor/domain.pb-c.h"
#include "hypervisor/hypervisor.h"

struct machine;
struct device;

/* Growing byte buffer of a state section; see state.h for the framing. */
struct state_writer;
struct state_reader;

/*
 * One device. All members are mandatory. io_read/io_write are called by vCPU threads,
 * several at once: the device locks itself. `base` and `len` are guest-physical for
 * MMIO and port numbers for PIO. Guest memory is never trusted: a bad address or
 * descriptor chain marks the device as broken (needs reset) and is logged once.
 */
struct device_ops {
    const char *name; /* also the name of its state section: "serial0", "virtio-blk0" */
    void (*io_read)(struct device *d, uint64_t offset, void *data, unsigned len);
    void (*io_write)(struct device *d, uint64_t offset, const void *data, unsigned len);
    /* Stops taking new requests and waits until none is in flight; all guest memory written by
     * then is marked dirty. Idempotent. */
    void (*quiesce)(struct device *d);
    /* Undoes quiesce; also the first start. Looks at queues for work that the guest left there. */
    void (*start)(struct device *d);
    /* Both only while quiesced. `load` refuses what does not fit, by name. */
    int (*save)(struct device *d, struct state_writer *w, struct err *e);
    int (*load)(struct device *d, struct state_reader *r, struct err *e);
    void (*reset)(struct device *d);
    void (*free)(struct device *d);
};

/* First member of every device's own struct. */
struct device {
    const struct device_ops *ops;
    struct machine *m;
    struct device *next; /* the machine's list */
    bool pio;
    uint64_t base, len;
    int irq; /* GSI of the in-kernel irqchip, -1 none */
};

/* Adds to the machine's buses; before the machine starts. The machine owns it afterwards. */
int machine_add_device(struct machine *m, struct device *d, struct err *e);

/* virtio-mmio slots: guest-physical base and GSI of slot n (0..15): 0xd0000000 + n * 0x200 and
 * GSI 5 + n where free; the kernel command line gets virtio_mmio.device=... for each. */
#define VIRTIO_MMIO_BASE UINT64_C(0xd0000000)
#define VIRTIO_MMIO_LEN UINT64_C(0x200)
#define VIRTIO_MMIO_SLOTS 11
#define VIRTIO_MMIO_IRQ(slot) (5 + (int)(slot))

/* Level or edge as the GSI is wired (edge for all of ours). */
void machine_irq(struct machine *m, int gsi, bool level);

/* With `on`, a guest's writes of 4 bytes with this value to `gpa` are not seen by the device, but
 * written to the eventfd `fd`, without leaving the kernel. False: that cannot be done. */
bool machine_write_event(struct machine *m, uint64_t gpa, uint32_t value, int fd, bool on);

/*
 * Guest memory: a pointer valid for `len` bytes at guest-physical `gpa`, or NULL if any byte of it
 * is not RAM. Stays valid for the machine's life. After writing through it, say so with
 * machine_dirty (before the guest can see the completion).
 */
void *machine_ram(struct machine *m, uint64_t gpa, uint64_t len);
void machine_dirty(struct machine *m, uint64_t gpa, uint64_t len);

/* Gives pages back to the host (balloon); they read as zeroes later. */
void machine_discard(struct machine *m, uint64_t gpa, uint64_t len);

const Migrd__Domain *machine_def(const struct machine *m);

/* quiesce waits for requests in flight until then (CLOCK_MONOTONIC; 0: for ever). A device that has
 * some even then is left at work and says so: the guest goes on. */
uint64_t machine_drain_until(const struct machine *m);
void machine_not_drained(struct machine *m, const char *device);
/* As that, of a device that could not make the guest's writes durable while it was quiesced. */
void machine_not_flushed(struct machine *m, const char *device);

/*
 * A reason of a device why the guest must stand still, or go on standing still; the device's own
 * memory, zeroed. The guest runs while no device has one and nobody paused it.
 */
enum machine_hold_kind {
    HOLD_RETRY, /* somebody must mend something: an unpause tries again */
    HOLD_WAIT,  /* ends by itself; an unpause does not help */
    HOLD_LOST,  /* for good: this copy of the guest can only be destroyed */
};

struct machine_hold {
    struct machine_hold *next;
    bool on;
    enum machine_hold_kind kind;
    char text[160]; /* for people */
};

/* Sets or changes it, ends it; from any thread, with any device's lock held. vCPUs stop soon, the
 * rest follows in the control thread. */
void machine_suspend(
    struct machine *m, struct machine_hold *h, enum machine_hold_kind kind, const char *text);
void machine_unsuspend(struct machine *m, struct machine_hold *h);
/* Is there any? */
bool machine_suspended(struct machine *m);
/* May anything be sent to its disks? Not under a blown fuse (fuse.h). Any thread, also with a
 * device's lock held. */
bool machine_may_write(struct machine *m);
/* Did somebody pause the guest, or has it not run here yet? */
bool machine_paused(const struct machine *m);

/* How this host reaches disks and keeps them its own: hv_config's. */
struct machine_storage {
    char host[256], secrets[256], initiator[224];
    bool leases;
    enum hv_proof proof; /* of the boot */
    unsigned lease_ms, nfs_uid_base, io_timeout_ms;
};

const struct machine_storage *machine_storage(const struct machine *m);
uint64_t machine_epoch(const struct machine *m);

/* Folder of this domain below paths.xvm, for the console's link and the like. */
const char *machine_run_dir(const struct machine *m);
const char *machine_log_dir(const struct machine *m);

enum machine_stop { STOP_SHUTDOWN, STOP_REBOOT, STOP_CRASH };

/* The guest ended itself; from any thread. The first call counts. */
void machine_guest_stopped(struct machine *m, enum machine_stop why, const char *detail);

/* Device constructors, each adds itself to m and is listed in devices.c. */
int serial_create(struct machine *m, struct err *e); /* 8250 at port 0x3f8, GSI 4 */
int virtio_blk_create(
    struct machine *m, unsigned slot, const Migrd__Disk *disk, bool incoming, struct err *e);
/* At each resume, before devices start: the disks are this host's under that epoch, from the first
 * resume of an incoming domain on; requests that failed are done again. Blocks for the storage. */
int virtio_blk_claim(struct machine *m, uint64_t epoch, bool decided, struct err *e);
/* At the end of a boot's building: what the disks' servers still do for an owner before is over. */
void virtio_blk_drain(struct machine *m);
/* Under a blown fuse requests were kept: they are done now. */
void virtio_blk_again(struct machine *m);
/* Network disks look at the fuse now; any thread. */
void virtio_blk_poke(struct machine *m);
/* The leases say that an operator may have the disks taken (lease_yield), until the next claim. */
int virtio_blk_yield(struct machine *m, struct err *e);
int virtio_net_create(
    struct machine *m, unsigned slot, const Migrd__Vif *vif, unsigned index, struct err *e);
int virtio_rng_create(struct machine *m, unsigned slot, struct err *e);
int virtio_balloon_create(struct machine *m, unsigned slot, struct err *e);

/* What the devices have counted, oldest device first; at most `max` are filled in, returns how
 * many. */
struct hv_disk_stats;
struct hv_vif_stats;
unsigned virtio_blk_stats(const struct machine *m, struct hv_disk_stats *out, unsigned max);
unsigned virtio_net_stats(const struct machine *m, struct hv_vif_stats *out, unsigned max);

/* Asks the balloon (if the guest drives it) for that much memory. */
int virtio_balloon_set(struct machine *m, uint64_t memory_kib, struct err *e);
uint64_t virtio_balloon_now(const struct machine *m); /* KiB the guest has */

/* Path of the console's pty, "" before serial_create. */
const char *serial_pty(const struct machine *m);

/* Makes all devices of the definition, slots in order: disks, vifs, rng, balloon. devices.c. */
int devices_create(struct machine *m, bool incoming, struct err *e);

/* After the switch to this host: gratuitous ARP (as RARP) for each vif; called on resume. */
void virtio_net_announce(struct machine *m);

#endif
