/* SPDX-License-Identifier: ISC */
/*
 * Files and block devices of this host. A request is done in the thread that submits it, so the
 * number in flight is the number of such threads.
 *
 * What this host has cached of the disk is dropped when it is opened: another host may have been
 * the writer until then. Written data is pushed out along the way (sync_file_range), so that the
 * flush before a hand-over is short.
 *
 * The kernel cannot be told to forget a request: disk_abort waits for those in flight.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fs.h>

#include "base/io.h"
#include "storage-check/disk_internal.h"

#define WRITEBACK_BYTES (UINT64_C(8) << 20)

struct file_disk {
    struct disk d; /* first */
    int fd;
    pthread_mutex_t lock; /* the next ones */
    pthread_cond_t idle;
    unsigned in_flight;
    uint64_t unwritten; /* bytes since writeback was last started */
};

static struct file_disk *file_of(struct disk *d)
{
    return (struct file_disk *)d;
}

/* ---- requests ---- */

/* Starts writing to the medium what has gathered in the page cache; does not wait for it. */
static void start_writeback(struct file_disk *f, uint64_t written)
{
    bool now;

    pthread_mutex_lock(&f->lock);
    f->unwritten += written;
    now = f->unwritten >= WRITEBACK_BYTES;
    if (now)
        f->unwritten = 0;
    pthread_mutex_unlock(&f->lock);
    if (now)
        sync_file_range(f->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

/* Cuts `skip` bytes off the front; returns how many vectors remain. */
static unsigned trim(struct iovec *iov, unsigned n, size_t skip)
{
    unsigned gone = 0;

    while (gone < n && skip >= iov[gone].iov_len)
        skip -= iov[gone++].iov_len;
    memmove(iov, iov + gone, (n - gone) * sizeof *iov);
    if (gone < n) {
        iov[0].iov_base = (uint8_t *)iov[0].iov_base + skip;
        iov[0].iov_len -= skip;
    }
    return n - gone;
}

/* The whole of iov, `len` bytes; 0 or an errno. */
static int transfer(
    struct file_disk *f, struct iovec *iov, unsigned n, uint64_t offset, uint64_t len, bool write)
{
    while (len > 0) {
        ssize_t done = write ? pwritev(f->fd, iov, (int)n, (off_t)offset)
                             : preadv(f->fd, iov, (int)n, (off_t)offset);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return errno;
        if (done == 0)
            return EIO; /* the file became shorter */
        len -= (uint64_t)done;
        offset += (uint64_t)done;
        n = trim(iov, n, (size_t)done);
    }
    return 0;
}

static int do_write(struct file_disk *f, struct disk_io *io)
{
    int error = transfer(f, io->iov, io->n_iov, io->offset, io->len, true);

    if (error == 0)
        start_writeback(f, io->len);
    return error;
}

static int do_discard(struct file_disk *f, const struct disk_io *io)
{
    if (fallocate(f->fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, (off_t)io->offset,
            (off_t)io->len) == 0)
        return 0;
    return errno == EOPNOTSUPP ? 0 : errno; /* it is advice */
}

/* For storage that cannot make zeroes by itself. */
static int write_zeroes(struct file_disk *f, uint64_t offset, uint64_t len)
{
    static const uint8_t zeroes[65536];
    int error = 0;

    for (uint64_t step; len > 0 && error == 0; offset += step, len -= step) {
        struct iovec io = { .iov_base = (void *)(uintptr_t)zeroes };

        step = len < sizeof zeroes ? len : sizeof zeroes;
        io.iov_len = (size_t)step;
        error = transfer(f, &io, 1, offset, step, true);
        start_writeback(f, step);
    }
    return error;
}

static int do_zeroes(struct file_disk *f, const struct disk_io *io)
{
    int mode = FALLOC_FL_KEEP_SIZE | (io->unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);

    if (fallocate(f->fd, mode, (off_t)io->offset, (off_t)io->len) == 0)
        return 0;
    return write_zeroes(f, io->offset, io->len);
}

static int serve(struct file_disk *f, struct disk_io *io)
{
    switch (io->op) {
    case DISK_READ:
        return transfer(f, io->iov, io->n_iov, io->offset, io->len, false);
    case DISK_WRITE:
        return do_write(f, io);
    case DISK_FLUSH:
        return fdatasync(f->fd) == 0 ? 0 : errno;
    case DISK_DISCARD:
        return do_discard(f, io);
    case DISK_ZEROES:
        return do_zeroes(f, io);
    case DISK_OP_MAX:
        break;
    }
    return EIO;
}

/* As disk.h names errors. */
static int plain_error(int error)
{
    switch (error) {
    case 0:
    case ENOSPC:
    case EACCES:
    case ESTALE:
        return error;
    case EDQUOT:
        return ENOSPC;
    case EPERM:
    case EROFS:
        return EACCES;
    default:
        return EIO;
    }
}

static void file_submit(struct disk *d, struct disk_io *io)
{
    struct file_disk *f = file_of(d);
    int error;

    pthread_mutex_lock(&f->lock);
    f->in_flight++;
    pthread_mutex_unlock(&f->lock);
    error = plain_error(serve(f, io));
    disk_io_done(io, error);
    pthread_mutex_lock(&f->lock);
    if (--f->in_flight == 0)
        pthread_cond_broadcast(&f->idle);
    pthread_mutex_unlock(&f->lock);
}

static void file_abort(struct disk *d)
{
    struct file_disk *f = file_of(d);

    pthread_mutex_lock(&f->lock);
    while (f->in_flight > 0)
        pthread_cond_wait(&f->idle, &f->lock);
    pthread_mutex_unlock(&f->lock);
}

static int file_set_owner(struct disk *d, unsigned uid, unsigned gid, struct err *e)
{
    (void)uid;
    (void)gid;
    return err_set(e, ERR_UNSUPPORTED, "disk %.200s: only NFS has owners", d->source);
}

/* ---- life ---- */

static void file_close(struct disk *d)
{
    struct file_disk *f = file_of(d);

    io_close(&f->fd);
    pthread_cond_destroy(&f->idle);
    pthread_mutex_destroy(&f->lock);
    disk_dispose(d);
    free(f);
}

/* What the kernel was told to write, it writes, whoever has gone. */
static void file_mark(struct disk *d, struct disk_mark *m, bool expect)
{
    (void)d;
    (void)m;
    (void)expect;
}

static const struct disk_ops file_ops = {
    .submit = file_submit,
    .abort = file_abort,
    .set_owner = file_set_owner,
    .mark = file_mark,
    .close = file_close,
};

static int look_at(struct file_disk *f, struct err *e)
{
    const char *source = f->d.source;
    unsigned sector;
    struct stat st;
    off_t end;

    if (fstat(f->fd, &st) < 0)
        return err_sys(e, "disk %.300s", source);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return err_set(e, ERR_INVALID, "disk %.300s: neither a file nor a block device", source);
    end = lseek(f->fd, 0, SEEK_END);
    if (end < 0)
        return err_sys(e, "disk %.300s: its size", source);
    if (S_ISBLK(st.st_mode)) {
        f->d.kind = MIGRD__STORAGE_KIND__STORAGE_BLOCK;
        if (ioctl(f->fd, BLKSSZGET, &sector) == 0 && sector > DISK_SECTOR)
            f->d.block_size = sector;
    }
    if (end < (off_t)DISK_SECTOR)
        return err_set(e, ERR_INVALID, "disk %.300s: smaller than one sector of %u bytes", source,
            DISK_SECTOR);
    f->d.size = (uint64_t)end / DISK_SECTOR * DISK_SECTOR;
    posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
    return 0;
}

int disk_file_open(
    const struct disk_options *o, const char *source, struct disk **out, struct err *e)
{
    struct file_disk *f = calloc(1, sizeof *f);

    if (f == NULL || !disk_init(&f->d, &file_ops, MIGRD__STORAGE_KIND__STORAGE_FILE, o, source)) {
        free(f);
        return err_set(e, ERR_MEMORY, "disk %.300s: out of memory", source);
    }
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->idle, NULL);
    f->fd = open(source, (o->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY);
    if (f->fd < 0)
        err_sys(e, "disk %.300s", source);
    if (f->fd < 0 || look_at(f, e) < 0) {
        file_close(&f->d);
        return -1;
    }
    *out = &f->d;
    return 0;
}
