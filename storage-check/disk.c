/* SPDX-License-Identifier: ISC */
/*
 * The front of all kinds of disks: which kind a source is, and the rules that hold for each request
 * whatever its kind: within the disk, nothing written to a disk that was opened read-only.
 */
#include "storage-check/disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "storage-check/disk_internal.h"

/* ---- the common head ---- */

static bool copy(const char **field)
{
    if (*field == NULL)
        return true;
    *field = strdup(*field);
    return *field != NULL;
}

bool disk_init(struct disk *d, const struct disk_ops *ops, Migrd__StorageKind kind,
    const struct disk_options *o, const char *source)
{
    bool good;

    d->ops = ops;
    d->kind = kind;
    d->block_size = DISK_SECTOR;
    d->options = *o;
    if (d->options.timeout_ms == 0)
        d->options.timeout_ms = DISK_TIMEOUT_MS;
    d->source = strdup(source);
    good = copy(&d->options.host);
    good = copy(&d->options.initiator) && good;
    good = copy(&d->options.secrets) && good;
    if (d->source != NULL && good)
        return true;
    disk_dispose(d);
    return false;
}

void disk_dispose(struct disk *d)
{
    free(d->source);
    free((char *)(uintptr_t)d->options.host);
    free((char *)(uintptr_t)d->options.initiator);
    free((char *)(uintptr_t)d->options.secrets);
}

/* ---- public ---- */

int disk_open(const char *source, const struct disk_options *o, struct disk **out, struct err *e)
{
    struct storage_url u;

    *out = NULL;
    if (storage_url_check_disk(source, &u, e) < 0)
        return -1;
    switch (u.kind) {
    case MIGRD__STORAGE_KIND__STORAGE_NFS:
        return disk_nfs_open(o, &u, source, out, e);
    case MIGRD__STORAGE_KIND__STORAGE_ISCSI:
        return disk_iscsi_open(o, &u, source, out, e);
    case MIGRD__STORAGE_KIND__STORAGE_FILE:
    case MIGRD__STORAGE_KIND__STORAGE_BLOCK:
    case MIGRD__STORAGE_KIND__STORAGE_UNKNOWN:
    case _MIGRD__STORAGE_KIND_IS_INT_SIZE:
        break;
    }
    return disk_file_open(o, source, out, e);
}

uint64_t disk_size(const struct disk *d)
{
    return d->size;
}

uint32_t disk_block_size(const struct disk *d)
{
    return d->block_size;
}

bool disk_is_network(const struct disk *d)
{
    return d->kind == MIGRD__STORAGE_KIND__STORAGE_NFS ||
           d->kind == MIGRD__STORAGE_KIND__STORAGE_ISCSI;
}

Migrd__StorageKind disk_kind(const struct disk *d)
{
    return d->kind;
}

void disk_io_done(struct disk_io *io, int error)
{
    io->result = error;
    io->done(io, error);
}

/* 0, or what the request gets without being sent. */
static int refused(const struct disk *d, const struct disk_io *io)
{
    if (io->op == DISK_FLUSH)
        return 0;
    if (io->offset > d->size || io->len > d->size - io->offset || io->offset % d->block_size != 0 ||
        io->len % d->block_size != 0)
        return EIO;
    return io->op != DISK_READ && d->options.read_only ? EACCES : 0;
}

void disk_submit(struct disk *d, struct disk_io *io)
{
    int error = refused(d, io);

    io->disk = d;
    io->moved = 0;
    io->parts = 0;
    io->result = 0;
    if (error != 0 || (io->op != DISK_FLUSH && io->len == 0) ||
        (io->op != DISK_READ && d->options.read_only))
        disk_io_done(io, error);
    else
        d->ops->submit(d, io);
}

void disk_abort(struct disk *d)
{
    d->ops->abort(d);
}

int disk_set_owner(struct disk *d, unsigned uid, unsigned gid, struct err *e)
{
    return d->ops->set_owner(d, uid, gid, e);
}

void disk_mark(struct disk *d, struct disk_mark *out)
{
    *out = (struct disk_mark){ .owed = false };
    d->ops->mark(d, out, false);
}

void disk_expect(struct disk *d, const struct disk_mark *m)
{
    struct disk_mark mark = *m;

    d->ops->mark(d, &mark, true);
}

void disk_close(struct disk **d)
{
    if (*d != NULL)
        (*d)->ops->close(*d);
    *d = NULL;
}
