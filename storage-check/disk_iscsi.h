/* SPDX-License-Identifier: ISC */
/*
 * disk_iscsi: what the parts of iSCSI disks share: disk_iscsi.c logs in and tells whether it is the
 * same disk, disk_iscsi_io.c sends requests, and the commands of leases. All of it in the disk's
 * thread but disk_iscsi_run. Internal to storage-check.
 */
#ifndef STORAGE_CHECK_DISK_ISCSI_H
#define STORAGE_CHECK_DISK_ISCSI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <iscsi/scsi-lowlevel.h>

#include "storage-check/disk_loop.h"
#include "storage-check/secrets.h"

#define SCSI_NAMES_MAX 1200u

/* The disk as its target describes it. */
struct scsi_look {
    char names[SCSI_NAMES_MAX]; /* designators and serial number, as text */
    uint64_t size;
    uint32_t block_size;
    bool provisioned, write_protected;
    uint32_t max_transfer, max_unmap; /* blocks; 0: not said */
    uint64_t max_same;
};

struct scsi_call;

struct scsi_disk {
    struct net_disk n; /* first */
    struct iscsi_context *ctx;
    uint32_t isid; /* the same for all logins, so that a new session ends the old one */
    bool has_secret;
    struct secret secret;

    unsigned step, tries;         /* of looking at the disk */
    struct scsi_look look, first; /* of this connection; as it was opened */
    bool no_unmap, no_same, no_sync16, no_sync;
    struct scsi_call *calls; /* of disk_iscsi_run; under the lock */
};

static inline struct scsi_disk *scsi_of(struct net_disk *n)
{
    return (struct scsi_disk *)n;
}

/* ---- disk_iscsi_io.c, for disk_iscsi.c ---- */

uint64_t scsi_part_max(struct net_disk *n, enum disk_op op);
int scsi_start(struct net_disk *n, struct net_part *p);
void scsi_turn(struct net_disk *n);
/* The connection is gone: commands of disk_iscsi_run end. */
void scsi_forget(struct scsi_disk *s);

/* Is a UNIT ATTENTION of another disk, size or mode behind that LUN? */
bool scsi_look_again(const struct scsi_task *t);

/* "CHECK CONDITION, ILLEGAL REQUEST, INVALID FIELD IN CDB". */
void scsi_task_text(int status, const struct scsi_task *t, char *out, size_t size);

#endif
