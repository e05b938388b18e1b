/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "precopy/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/io.h"
#include "precopy/savefile.h"

#define PROGRESS_NS (200 * NS_PER_MS)

/* A directory, a device or a pipe would be replaced, or wait for ever. */
static int check_path(const char *path, struct err *e)
{
    struct stat st;

    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : err_sys(e, "%s", path);
    if (S_ISREG(st.st_mode))
        return 0;
    return err_set(e, ERR_INVALID, "%s is there already and is no regular file", path);
}

/* Is what PATH.tmp names now ours alone? Not while another job fills it, or has just given it its
 * name. */
static int lock(const struct outfile *f, struct stat *st, struct err *e)
{
    struct stat there;

    if (flock(f->fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        return err_set(
            e, ERR_STATE, "%s: another save or dump writes it; name another file", f->tmp);
    if (fstat(f->fd, st) < 0 || lstat(f->tmp, &there) < 0)
        return err_sys(e, "%s", f->tmp);
    if (st->st_dev != there.st_dev || st->st_ino != there.st_ino)
        return err_set(e, ERR_STATE, "%s: another save or dump has just written it", f->path);
    return 0;
}

/* What an earlier job left. */
static int take_over(const struct outfile *f, struct err *e)
{
    struct stat st;

    if (lock(f, &st, e) < 0)
        return -1;
    if (st.st_nlink != 1 || st.st_uid != geteuid())
        return err_set(
            e, ERR_INVALID, "%s is there already and is somebody else's: remove it", f->tmp);
    if (fchmod(f->fd, 0600) < 0 || ftruncate(f->fd, 0) < 0)
        return err_sys(e, "%s", f->tmp);
    return 0;
}

static int open_tmp(struct outfile *f, struct err *e)
{
    const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
    struct stat st;
    bool made;

    f->fd = open(f->tmp, flags | O_EXCL, 0600);
    made = f->fd >= 0;
    if (!made && errno == EEXIST)
        f->fd = open(f->tmp, flags, 0600);
    if (f->fd < 0)
        return err_sys(e, "cannot create %s", f->tmp);
    if ((made ? lock(f, &st, e) : take_over(f, e)) == 0)
        return 0;
    io_close(&f->fd);
    return -1;
}

int outfile_open(struct outfile *f, int fd, struct err *e)
{
    f->fd = fd;
    if (fd >= 0)
        return 0;
    if (snprintf(f->tmp, sizeof f->tmp, "%s.tmp", f->path) >= (int)sizeof f->tmp) {
        f->tmp[0] = '\0';
        return err_set(e, ERR_INVALID, "%.100s...: the path is too long", f->path);
    }
    if (check_path(f->path, e) == 0 && check_path(f->tmp, e) == 0 && open_tmp(f, e) == 0)
        return 0;
    f->tmp[0] = '\0'; /* not ours to remove */
    return -1;
}

static void send_progress(struct outfile *f, uint64_t now)
{
    Migrd__FromWorker m = MIGRD__FROM_WORKER__INIT;
    Migrd__Progress p = MIGRD__PROGRESS__INIT;
    struct pages_total c = { 0 };

    pages_total_add(&c, f->count);
    p.phase = MIGRD__PHASE__PHASE_PRECOPY;
    p.pages_total = f->pages;
    p.pages_sent = c.sent;
    p.pages_zero = c.zero;
    p.pages_remaining = c.sent + c.zero < f->pages ? f->pages - c.sent - c.zero : 0;
    p.wire_bytes = c.bytes;
    p.elapsed_ms = (now - f->began_ns) / NS_PER_MS;
    m.body_case = MIGRD__FROM_WORKER__BODY_PROGRESS;
    m.progress = &p;
    ctl_send(f->ctl, &m, NULL);
}

int outfile_step(struct outfile *f, struct err *e)
{
    uint64_t now = clock_ns();

    if (FAULT("outfile-step"))
        return err_set(e, ERR_SYSTEM, "%s: fault point", f->path);
    if (ctl_ended(f->ctl, e))
        return -1;
    if (f->count != NULL && f->pages > 0 && now >= f->next_ns) {
        send_progress(f, now);
        f->next_ns = now + PROGRESS_NS;
    }
    return 0;
}

static int port_writev(void *ctx, const struct iovec *iov, int n, struct err *e)
{
    struct outfile *f = ctx;
    struct pages_port file = savefile_port(&f->fd);

    return outfile_step(f, e) < 0 ? -1 : file.writev(file.ctx, iov, n, e);
}

struct pages_port outfile_port(struct outfile *f)
{
    return (struct pages_port){ port_writev, NULL, f };
}

int outfile_write(struct outfile *f, const void *data, size_t len, uint64_t at, struct err *e)
{
    const char *p = data;

    while (len > 0) {
        ssize_t n = pwrite(f->fd, p, len, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "%s", f->tmp[0] != '\0' ? f->tmp : f->path);
        p += n;
        at += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

int outfile_finish(struct outfile *f, struct err *e)
{
    if (fsync(f->fd) < 0 && errno != EINVAL && errno != EROFS)
        return err_sys(e, "%s: fsync", f->tmp[0] != '\0' ? f->tmp : f->path);
    if (f->drop_cache)
        posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
    if (f->tmp[0] == '\0')
        return 0;
    if (rename(f->tmp, f->path) < 0)
        return err_sys(e, "cannot rename %s to %s", f->tmp, f->path);
    f->tmp[0] = '\0';
    /* What follows a success may end the domain: the name must be as durable as the memory. */
    if (io_sync_folder_of(f->path, e) == 0)
        return 0;
    unlink(f->path); /* the guest goes on: what was saved must not be restored */
    return -1;
}

void outfile_close(struct outfile *f)
{
    if (f->tmp[0] != '\0') /* while it is locked: it might be another job's the moment after */
        unlink(f->tmp);
    io_close(&f->fd);
    f->tmp[0] = '\0';
}
