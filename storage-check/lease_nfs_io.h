/* SPDX-License-Identifier: ISC */
/*
 * lease_nfs_io: one NFS call at a time, with a deadline, for leases. libnfs's own synchronous
 * calls may wait for ever; here the asynchronous ones are driven by a poll loop, and a
 * connection that misses its deadline is destroyed with whatever it still had to send. A
 * `struct nfsio` belongs to one thread at a time; it connects when it is first needed.
 *
 * Calls return 0, or a negative errno as the server gave it (-ENOENT, -EEXIST, -ESTALE, ...);
 * -ETIMEDOUT, -ECANCELED or -EIO when it could not be asked, and then the connection is gone.
 * nfsio_error makes the text.
 */
#ifndef STORAGE_CHECK_LEASE_NFS_IO_H
#define STORAGE_CHECK_LEASE_NFS_IO_H

#include <stdatomic.h>
#include <sys/time.h>

#include <nfsc/libnfs.h> /* wants struct timeval */

#include "storage-check/disk_internal.h"

struct nfsio {
    const struct storage_url *url;
    const struct disk_options *options;
    const atomic_bool *stop; /* NULL: nobody stops it */
    struct nfs_context *c;   /* NULL: not connected */
    char address[64];        /* of the server when it was last looked up */
    bool in_time;            /* that one will do: a name service may take longer than we have */
    uint64_t deadline_ns;    /* lease_clock() */
    char why[500];           /* what the library said last */
};

/* Names in a folder; at most NFSIO_NAMES, beyond that the call fails. */
#define NFSIO_NAMES 256u
#define NFSIO_NAME_MAX 64u /* longer ones are none of ours and left out */

struct nfsio_names {
    unsigned n;
    struct {
        char name[NFSIO_NAME_MAX];
        uint64_t mtime_s; /* the server's clock */
    } at[NFSIO_NAMES];
};

/* Connects and mounts, if it is not. */
int nfsio_connect(struct nfsio *n);
void nfsio_disconnect(struct nfsio *n);

int nfsio_stat(struct nfsio *n, const char *path, struct nfs_stat_64 *out);
int nfsio_mkdir(struct nfsio *n, const char *path, int mode);
int nfsio_rmdir(struct nfsio *n, const char *path);
int nfsio_open(struct nfsio *n, const char *path, int flags, int mode, struct nfsfh **out);
/* Frees the handle, connected or not. */
void nfsio_close(struct nfsio *n, struct nfsfh **fh);
int nfsio_pread(struct nfsio *n, struct nfsfh *fh, uint8_t *data, size_t len); /* bytes */
int nfsio_pwrite(struct nfsio *n, struct nfsfh *fh, const uint8_t *data, size_t len);
int nfsio_fsync(struct nfsio *n, struct nfsfh *fh);
int nfsio_link(struct nfsio *n, const char *from, const char *to);
int nfsio_rename(struct nfsio *n, const char *from, const char *to);
int nfsio_unlink(struct nfsio *n, const char *path);
int nfsio_chown(struct nfsio *n, const char *path, unsigned uid, unsigned gid);
int nfsio_chmod(struct nfsio *n, const char *path, unsigned mode);
int nfsio_list(struct nfsio *n, const char *path, struct nfsio_names *out);
/* May this user write to it, as far as the server tells? 1, 0, or negative. */
int nfsio_may_write(struct nfsio *n, const char *path, unsigned uid, unsigned gid);

/* "disk SOURCE: WHAT: reason"; returns -1. */
int nfsio_error(const struct nfsio *n, int r, struct err *e, const char *source, const char *fmt,
    ...) __attribute__((format(printf, 5, 6)));

#endif
