/* SPDX-License-Identifier: ISC */
/*
 * disk_internal: what the parts of storage-check know of a disk and its users do not: how a
 * kind of disk is implemented (disk_ops), the gate that a lease holds between a new connection
 * and the requests that wait for it, SCSI commands on the session of an open disk, and contexts
 * of libnfs and libiscsi as disks use them. Nobody outside storage-check includes this.
 */
#ifndef STORAGE_CHECK_DISK_INTERNAL_H
#define STORAGE_CHECK_DISK_INTERNAL_H

#include <iscsi/iscsi.h>

#include "storage-check/disk.h"
#include "storage-check/url.h"

struct nfs_context;
struct secret;

/* A kind of disk. Each member is there; `close` is called once, after which the kind's part of the
 * disk is gone. */
struct disk_ops {
    void (*submit)(struct disk *d, struct disk_io *io);
    void (*abort)(struct disk *d);
    int (*set_owner)(struct disk *d, unsigned uid, unsigned gid, struct err *e);
    void (*mark)(struct disk *d, struct disk_mark *m, bool expect); /* out, or in */
    void (*close)(struct disk *d);
};

/* Common head of all kinds; each kind embeds it first. */
struct disk {
    const struct disk_ops *ops;
    Migrd__StorageKind kind;
    char *source;
    struct storage_url url;
    struct disk_options options; /* its strings are ours */
    uint64_t size;
    uint32_t block_size;
};

/* Of one kind each; `d` is the head of what was allocated. Fill *out or fail. */
int disk_file_open(
    const struct disk_options *o, const char *source, struct disk **out, struct err *e);
int disk_nfs_open(const struct disk_options *o, const struct storage_url *u, const char *source,
    struct disk **out, struct err *e);
int disk_iscsi_open(const struct disk_options *o, const struct storage_url *u, const char *source,
    struct disk **out, struct err *e);

/* Copies what the caller gave; false without memory. Undone by disk_dispose. */
bool disk_init(struct disk *d, const struct disk_ops *ops, Migrd__StorageKind kind,
    const struct disk_options *o, const char *source);
void disk_dispose(struct disk *d);

/* Calls io->done. */
void disk_io_done(struct disk_io *io, int error);

/* ---- for leases ---- */

/*
 * The gate. `up` is called in the disk's thread after each new connection to the same disk, from
 * the next one on after disk_set_gate, before any request is sent on it; it must not block, and
 * may call disk_admit.
 * `connection` counts them. The requests wait until disk_admit for that connection: 0 lets them go;
 * an errno (EACCES) is what they, and all later ones, get until the next new connection. Without a
 * gate nothing waits. A disk_admit for an older connection does nothing; connection 0 is the one
 * there is, so that a lease that was lost can refuse at once, and may take that back. Network disks
 * only; on others nothing happens. Any thread, but not from a `done`.
 */
void disk_set_gate(struct disk *d, void (*up)(void *arg, unsigned connection), void *arg);
void disk_admit(struct disk *d, unsigned connection, int verdict);

/* One command of one's own on the session that carries the data. */
struct disk_scsi {
    /* In the disk's thread: queues the command with `cb` and `priv`, as iscsi_*_task and
     * iscsi_task_mgmt_*_async do; 0, or -1 if it could not. */
    int (*start)(struct iscsi_context *c, unsigned lun, iscsi_command_cb cb, void *priv, void *arg);
    /* In the disk's thread, at most once and only while disk_iscsi_run waits: `status` and `data`
     * as libiscsi gives them. A struct scsi_task in `data` is freed behind it. */
    void (*result)(int status, void *data, void *arg);
    void *arg;
    bool management; /* a task management function: `data` is its response, a uint32_t */
};

/* Waits for a connection and for the answer, together at most timeout_ms. Works while the gate is
 * shut. 0: `result` was called. ERR_TIMEOUT: no connection or no answer; ERR_PEER: the connection
 * broke under it, whether it was done nobody knows; ERR_CANCELLED: disk_abort or disk_close. */
int disk_iscsi_run(struct disk *d, const struct disk_scsi *s, unsigned timeout_ms, struct err *e);

/* ---- connections of one's own ---- */

/* Once the socket of a connection is closed (-1: none), by whomever: what the kernel has not sent yet
 * is dropped, with a reset. Otherwise it would go on sending for minutes, and reach a server that was
 * cut off after the same was done again, here or by another host. */
void disk_drop_unsent(int fd);

/* A context that is set up as those of disks: v3 unless the URL says 4, ports, ids, no
 * reconnecting by itself. Mount u->path on u->host, open u->file. Free with nfs_destroy_context. */
struct nfs_context *disk_nfs_context(
    const struct storage_url *u, const struct disk_options *o, struct err *e);

/* This host's iSCSI name. */
void disk_initiator_name(const struct disk_options *o, char *out, size_t size);

/* Initiator's name, target, CHAP, digests, no reconnecting by itself; `isid` 0: random. Connect to
 * storage_url_portal(u) and u->lun. Free with iscsi_destroy_context. Ignore or block SIGPIPE. */
struct iscsi_context *disk_iscsi_context(
    const struct storage_url *u, const struct disk_options *o, uint32_t isid, struct err *e);
/* The same with a password that is known already; NULL: none. */
struct iscsi_context *disk_iscsi_context_with(const struct storage_url *u,
    const struct disk_options *o, uint32_t isid, const struct secret *secret, struct err *e);

#endif
