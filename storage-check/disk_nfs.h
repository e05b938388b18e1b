/* SPDX-License-Identifier: ISC */
/*
 * disk_nfs: what the parts of NFS disks share: disk_nfs.c connects and tells whether it is the
 * same file, disk_nfs_io.c reads, writes and commits. All of it in the disk's thread. Internal to
 * storage-check.
 */
#ifndef STORAGE_CHECK_DISK_NFS_H
#define STORAGE_CHECK_DISK_NFS_H

#include <sys/time.h>

#include <nfsc/libnfs.h>

/* these need the one above */
#include <nfsc/libnfs-raw-nfs.h>
#include <nfsc/libnfs-raw.h>

#include "storage-check/disk_held.h"
#include "storage-check/disk_loop.h"

#define NFS_HANDLE_MAX 64u

struct nfs_disk {
    struct net_disk n; /* first */
    struct nfs_context *ctx;
    struct rpc_context *rpc; /* of ctx */

    /* the file, from the first connection on */
    char handle[NFS_HANDLE_MAX];
    unsigned handle_len;
    uint64_t fsid, fileid;
    uint64_t read_max, write_max;

    bool owned; /* the lease gave the file to a user of its epoch (disk_set_owner) */
    struct held held;
    bool has_verifier;
    char verifier[NFS3_WRITEVERFSIZE]; /* of all that is held */
    bool committing;                   /* a COMMIT of our own is on its way */
    uint64_t commit_seq;               /* and covers what was held up to here */
    bool lost_writes;                  /* the next flush reports it: a COMMIT of our own failed */
    bool rewrite;                      /* a flush's COMMIT failed: what is held may be gone */
    bool committed;                    /* a flush was answered since the disk was opened */
    bool expecting;                    /* another process owed writes to that life of the server */
    char expected[NFS3_WRITEVERFSIZE];
    struct held_piece *replay; /* being written again */
    uint32_t replay_done;
};

static inline struct nfs_disk *nfs_of(struct net_disk *n)
{
    return (struct nfs_disk *)n;
}

static inline struct nfs_fh3 nfs_handle(struct nfs_disk *f)
{
    return (struct nfs_fh3){ { f->handle_len, f->handle } };
}

/* ---- disk_nfs_io.c, for disk_nfs.c ---- */

void nfs_prepare(struct net_disk *n);
uint64_t nfs_part_max(struct net_disk *n, enum disk_op op);
int nfs_start(struct net_disk *n, struct net_part *p);
void nfs_turn(struct net_disk *n);
void nfs_mark(struct net_disk *n, struct disk_mark *m, bool expect);
/* The connection is gone: buffers of parts on their way are taken back. */
void nfs_forget(struct nfs_disk *f);

/* The connection is of no use any more. */
void nfs_broke(struct nfs_disk *f, const char *text);

/* True if the answer has come; else the connection is given up, or is being closed. */
bool nfs_answered(struct nfs_disk *f, int status, void *data);

#endif
