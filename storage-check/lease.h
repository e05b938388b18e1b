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
    LEASE_PROVEN,   /* its owner is said not to run (by an operator): believed, unless its record
                       shows that it is alive and does not yield */
    LEASE_CLUSTER,  /* the cluster's log has proof that its guest does not run and sends nothing
                       more: taken at once, also from a holder that still renews; the disk may be
                       used after lease_drain */
};

struct lease_record {
    char owner[LEASE_OWNER_MAX]; /* host; "" none */
    char uuid[37];               /* domain */
    uint64_t epoch;
    uint64_t beat; /* changes with each renewal */
    bool released; /* given up in good order: free for any newer epoch */
    bool yielded;  /* its guest stands still for good, and may run elsewhere: see lease_yield */
};

struct lease_wish {
    const char *source; /* as the disk was opened with */
    const struct disk_options *options;
    const char *uuid; /* domain */
    uint64_t epoch;
    enum lease_claim claim;
    unsigned valid_ms;     /* a lease not renewed for that long is not sure; 0: LEASE_VALID_MS */
    unsigned nfs_uid_base; /* 0: no user ids per epoch */
    /* From the lease's thread; neither may call lease_take or lease_close, and lease_close waits
     * for one that runs. It is certain that another owner has it: it never comes back by itself,
     * only by lease_take under a newer epoch. */
    void (*lost)(void *arg, const char *text);
    /* It became unsure (nothing renewed in time), or sure again. Where the storage enforces
     * nothing, and at each loss, disk_abort was called before: requests in flight end with
     * ECANCELED, and are to be done again if the lease becomes sure again. */
    void (*sure)(void *arg, bool sure, const char *text);
    void *arg;
};

struct lease;

/* Opens what it needs of its own, so that lease_take is quick; before the disk is written to. */
int lease_prepare(const struct lease_wish *w, struct disk *d, struct lease **out, struct err *e);
/* Takes it under that epoch and begins to renew it. ERR_EPOCH: the storage knows a newer one;
 * ERR_REFUSED: another owner is alive, or it is another domain's. Blocks: for the disk's timeout_ms
 * at most, and against a record that was not given up (or a domain's that is not ours) longer:
 * with LEASE_FREE up to 2.5 times its valid_ms, with LEASE_PROVEN 1.3 times. Also moves a lease that is held, or was lost, to a newer
 * epoch. After a failure it may be called again, with the same epoch or a newer one. */
int lease_take(struct lease *l, uint64_t epoch, enum lease_claim claim, struct err *e);

/* Waits until the server has finished what it had begun for the owner before: of use after
 * LEASE_CLUSTER, which does not wait for it, so that other work can be done meanwhile. At most
 * 250 ms after lease_take. */
void lease_drain(struct lease *l);

/* The guest was paused for good and another host may be told to run it; who that is, is not known
 * here. The lease stays ours and says so on the storage: a newer epoch by LEASE_PROVEN may then
 * take it although its holder is alive, LEASE_FREE still may not. Meanwhile it is not sure. False
 * takes the word back: ERR_EPOCH if somebody took the lease. Nothing is in flight when it is
 * called. */
int lease_yield(struct lease *l, bool yielded, struct err *e);

/* True while no other host can have taken it: renewed less than valid_ms ago by the monotonic
 * clock. Any thread; a load and a clock. Asked before each write. */
bool lease_sure(const struct lease *l);

/* What enforces it: "uid", "reservation", or "" and the reason in `note`. */
const char *lease_fence(const struct lease *l, char *note, size_t len);

/* Stops renewing. `release`: says so on the storage, if it is still ours, and gives the disk back
 * to its first owner; nothing may be written afterwards. Blocks for the disk's timeout_ms at most.
 * Frees. Before disk_close. */
void lease_close(struct lease **l, bool release);

/* The record as it stands; for reports. owner "" where there is none. iSCSI: epoch modulo 2^24, no
 * uuid, and an owner that is not this host is "with-key-HEX". */
int lease_read(
    const char *source, const struct disk_options *o, struct lease_record *out, struct err *e);

/* A guest that never ran again: removes the record (after undefine, or by an operator). */
int lease_remove(const char *source, const struct disk_options *o, uint64_t epoch, struct err *e);

#endif
