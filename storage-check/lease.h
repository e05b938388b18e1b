/* SPDX-License-Identifier: ISC */
/*
 * lease: the (owner, epoch) record of a domain on its disk's own storage, and what the
 * storage can do to keep a stale owner from writing: an NFS lease file with an owner per
 * epoch, a SCSI-3 persistent reservation keyed by host and epoch, a lock file on local
 * files. lease.c tells the formats. A `struct lease` renews itself in a thread of its own
 * and belongs to who took it; it borrows the disk.
 */
#ifndef STORAGE_CHECK_LEASE_H
#define STORAGE_CHECK_LEASE_H

#include "storage-check/disk.h"

#define LEASE_OWNER_MAX 128
#define LEASE_VALID_MS 5000 /* default of storage-lease-time */

enum lease_claim {
    LEASE_FREE, /* nobody else may hold it: refused while another owner's record is alive, or newer
                 */
    LEASE_HANDOVER, /* its owner gave it to us (GO), or gave it back: taken over at once if ours is
                       newer */
    LEASE_PROVEN,   /* its owner is proved not to run, or an operator says so: as above */
};

struct lease_record {
    char owner[LEASE_OWNER_MAX]; /* host; "" none */
    char uuid[37];               /* domain */
    uint64_t epoch;
    uint64_t beat; /* changes with each renewal */
    bool released; /* given up in good order: free for any newer epoch */
};

struct lease_wish {
    const char *source; /* as the disk was opened with */
    const struct disk_options *options;
    const char *uuid; /* domain */
    uint64_t epoch;
    enum lease_claim claim;
    unsigned valid_ms;     /* a lease not renewed for that long is not sure; 0: LEASE_VALID_MS */
    unsigned nfs_uid_base; /* 0: no user ids per epoch */
    /* From the lease's thread, once it is certain that another owner has it: it never comes back.
     */
    void (*lost)(void *arg, const char *text);
    /* From the lease's thread: it became unsure (nothing renewed in time), or sure again. */
    void (*sure)(void *arg, bool sure, const char *text);
    void *arg;
};

struct lease;

/* Opens what it needs of its own, so that lease_take is quick; before the disk is written to. */
int lease_prepare(const struct lease_wish *w, struct disk *d, struct lease **out, struct err *e);
/* Takes it under that epoch and begins to renew it. ERR_EPOCH: the storage knows a newer one;
 * ERR_REFUSED: another owner is alive. Blocks. Also moves a lease that is held to a newer epoch. */
int lease_take(struct lease *l, uint64_t epoch, enum lease_claim claim, struct err *e);

/* True while no other host can have taken it: renewed less than valid_ms ago by the monotonic
 * clock. Any thread; a load and a clock. Asked before each write. */
bool lease_sure(const struct lease *l);

/* What enforces it: "uid", "reservation", or "" and the reason in `note`. */
const char *lease_fence(const struct lease *l, char *note, size_t len);

/* Stops renewing. `release`: says so on the storage, if it is still ours. Frees. */
void lease_close(struct lease **l, bool release);

/* The record as it stands; for reports. owner "" where there is none. */
int lease_read(
    const char *source, const struct disk_options *o, struct lease_record *out, struct err *e);

/* A guest that never ran again: removes the record (after undefine, or by an operator). */
int lease_remove(const char *source, const struct disk_options *o, uint64_t epoch, struct err *e);

#endif
