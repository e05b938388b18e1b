/* SPDX-License-Identifier: ISC */
/*
 * Leases of local files and block devices.
 *
 * Beside a file PATH stands PATH.migrd-lease with one record (lease_record.c). Its bytes are locked
 * by open file description locks, which the kernel, or the server of a network file system, drops
 * when their process ends:
 *
 *   byte 1                  held by who reads and writes the record in one go, for milliseconds
 *   byte 1024 + epoch       held as long as the lease: its holder is alive
 *
 * So nobody has to watch a beat: a record whose byte is not locked has no living holder, and
 * LEASE_FREE takes it at once; one whose byte is locked is refused to LEASE_FREE, also to another
 * process of the same host, and to PROVEN unless the record says that its holder yields. HANDOVER
 * under a newer epoch takes it whether or not the byte is locked; the old holder finds another
 * nonce in the record at its next look. The record is not written at renewals, its beat stands
 * still.
 *
 * A block device has no place for a record beside it. There the locks on the device itself are all:
 * the holder's byte tells its epoch, not its name, and nothing remains of a lease that was given
 * up; who yields unlocks its byte. Other hosts see none of it, whatever the device is: a LUN that
 * the kernel logged in to is better given to the guest as iscsi://, where a reservation keeps
 * others out (persistent reservations through SG_IO are not made here).
 *
 * A record that somebody removed by hand while it was held is made again, if nobody made a new one
 * before. Nothing enforces a lease of this kind: it binds who asks.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/io.h"
#include "storage-check/lease_internal.h"

#define TURN_BYTE 1
#define EPOCH_BYTES 1024
#define EPOCH_LAST (INT64_MAX - EPOCH_BYTES - 1)

struct lease_file {
    int fd;      /* the lease file, or the device; -1 */
    bool record; /* there is one: it is no device */
    char path[STORAGE_SOURCE_MAX + sizeof LEASE_SUFFIX];
    uint64_t held; /* epoch whose byte is ours; 0 none */
};

static int set_lock(int fd, short type, int64_t byte)
{
    struct flock lk = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

    return fcntl(fd, F_OFD_SETLK, &lk);
}

static int64_t epoch_byte(uint64_t epoch)
{
    return EPOCH_BYTES + (int64_t)(epoch % EPOCH_LAST);
}

/* Who else holds one of these epochs' bytes: 1 and the epoch, 0 nobody, -1. */
static int others_lock(int fd, uint64_t first, uint64_t last, uint64_t *epoch)
{
    struct flock lk = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = epoch_byte(first) };

    lk.l_len = last == UINT64_MAX ? 0 : epoch_byte(last) - lk.l_start + 1;
    if (fcntl(fd, F_OFD_GETLK, &lk) < 0)
        return -1;
    if (lk.l_type == F_UNLCK)
        return 0;
    *epoch = (uint64_t)(lk.l_start - EPOCH_BYTES);
    return 1;
}

/* The short lock around reading and writing. Another process may have been stopped inside. */
static int turn_begin(int fd, const char *path, uint64_t deadline, struct err *e)
{
    while (set_lock(fd, F_WRLCK, TURN_BYTE) < 0) {
        if (errno != EAGAIN && errno != EACCES)
            return err_sys(e, "%s: lock; the file system must grant locks for leases", path);
        if (lease_clock() >= deadline)
            return err_set(e, ERR_TIMEOUT,
                "%s: another process has been busy with this lease for long; is one stopped?",
                path);
        usleep(2000);
    }
    return 0;
}

static void turn_end(int fd)
{
    set_lock(fd, F_UNLCK, TURN_BYTE);
}

/* 1 and the record, 0 there is none, -1. */
static int record_load(int fd, const char *path, struct lease_note *out, struct err *e)
{
    uint8_t data[LEASE_RECORD_SIZE];
    ssize_t n = pread(fd, data, sizeof data, 0);

    memset(out, 0, sizeof *out);
    if (n < 0)
        return err_sys(e, "%s: read", path);
    if (n == 0)
        return 0;
    if (lease_decode(data, (size_t)n, out, e) < 0)
        return err_prefix(e, "%s (remove it if the domain runs nowhere)", path);
    return 1;
}

static int record_store(int fd, const char *path, const struct lease_note *n, struct err *e)
{
    uint8_t data[LEASE_RECORD_SIZE];

    lease_encode(n, data);
    if (pwrite(fd, data, sizeof data, 0) != (ssize_t)sizeof data || fdatasync(fd) < 0)
        return err_sys(e, "%s: write", path);
    return 0;
}

static int open_record(struct lease_file *f, struct err *e)
{
    struct stat st;

    f->fd = open(f->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (f->fd < 0)
        return err_sys(e,
            "%s: the lease of the disk beside it; the folder must be writable, or set "
            "storage-leases = no",
            f->path);
    if (fstat(f->fd, &st) < 0 || !S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "%s: is no regular file", f->path);
    return 0;
}

static int open_device(struct lease_file *f, struct err *e)
{
    f->fd = open(f->path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    return f->fd < 0 ? err_sys(e, "%s", f->path) : 0;
}

static int file_open(struct lease *l, struct err *e)
{
    struct lease_file *f = calloc(1, sizeof *f);
    char real[STORAGE_SOURCE_MAX + 1], *path;
    struct stat st;

    if (f == NULL)
        return err_set(e, ERR_MEMORY, "disk %s: no memory for its lease", l->source);
    f->fd = -1;
    l->kind = f;
    /* Two names of one file must meet at one lease. */
    path = realpath(l->url.path, NULL);
    if (path == NULL || stat(path, &st) < 0 || strlen(path) >= sizeof real) {
        free(path);
        return err_sys(e, "disk %s", l->source);
    }
    snprintf(real, sizeof real, "%s", path);
    free(path);
    f->record = !S_ISBLK(st.st_mode);
    snprintf(f->path, sizeof f->path, "%s%s", real, f->record ? LEASE_SUFFIX : "");
    if (f->record)
        lease_set_fence(l, "",
            "a local file: nothing keeps a program that does not ask for the "
            "lease from writing to it");
    else
        lease_set_fence(l, "",
            "a local block device: locks of this host only, no persistent "
            "reservation is made; give a LUN to the guest as iscsi://");
    return f->record ? open_record(f, e) : open_device(f, e);
}

/* Refuses, or 0: may be taken. Inside the turn. */
static int judge(
    struct lease *l, const struct lease_note *found, const struct lease_bid *b, struct err *e)
{
    struct lease_file *f = l->kind;
    enum lease_verdict v = lease_judge(found, b);
    uint64_t alive = 0;
    int locked;

    if (v == LEASE_OLDER)
        return lease_refuse(e, v, found, b, l->source);
    /* Who was replaced may keep the byte of his epoch until he is told to end. */
    locked = others_lock(f->fd, b->claim == LEASE_FREE ? 0 : found->r.epoch, UINT64_MAX, &alive);
    if (locked < 0)
        return err_sys(e, "%s: lock", f->path);
    /* Also a process of this host: it runs, whatever it is. */
    if (locked == 1 && found->nonce != b->nonce && (v == LEASE_WATCH || b->claim == LEASE_FREE))
        return lease_refuse(e, LEASE_WATCH, found, b, l->source);
    return 0;
}

static int judge_device(struct lease *l, const struct lease_bid *b, struct err *e)
{
    struct lease_file *f = l->kind;
    bool at_once = b->claim == LEASE_HANDOVER || b->claim == LEASE_CLUSTER;
    struct lease_note other = { 0 };
    int locked =
        others_lock(f->fd, at_once ? b->epoch : 0, UINT64_MAX, &other.r.epoch);

    if (locked < 0)
        return err_sys(e, "%s: lock", f->path);
    if (locked == 0)
        return 0;
    return lease_refuse(
        e, other.r.epoch >= b->epoch ? LEASE_OLDER : LEASE_WATCH, &other, b, l->source);
}

static int lock_epoch(struct lease *l, const struct lease_bid *b, struct err *e)
{
    struct lease_file *f = l->kind;
    struct lease_note other = { .r.epoch = b->epoch };

    if (f->held == b->epoch)
        return 0;
    if (set_lock(f->fd, F_WRLCK, epoch_byte(b->epoch)) == 0)
        return 0;
    if (errno != EAGAIN && errno != EACCES)
        return err_sys(e, "%s: lock", f->path);
    return lease_refuse(e, LEASE_OLDER, &other, b, l->source);
}

static int take_record(struct lease *l, const struct lease_bid *b, struct err *e)
{
    struct lease_file *f = l->kind;
    struct lease_note n;
    int r = record_load(f->fd, f->path, &n, e);

    if (r < 0 || (r == 1 && judge(l, &n, b, e) < 0) || lock_epoch(l, b, e) < 0)
        return -1;
    memset(&n, 0, sizeof n);
    snprintf(n.r.owner, sizeof n.r.owner, "%s", l->owner);
    snprintf(n.r.uuid, sizeof n.r.uuid, "%s", l->uuid);
    n.r.epoch = b->epoch;
    n.r.beat = lease_random();
    n.nonce = l->nonce;
    n.who = *lease_who_here();
    n.valid_ms = l->valid_ms;
    if (record_store(f->fd, f->path, &n, e) == 0)
        return 0;
    if (f->held != b->epoch)
        set_lock(f->fd, F_UNLCK, epoch_byte(b->epoch));
    return -1;
}

static int take_device(struct lease *l, const struct lease_bid *b, struct err *e)
{
    return judge_device(l, b, e) < 0 ? -1 : lock_epoch(l, b, e);
}

/* The turn, on the file that has the name: a prepared lease's may have been removed since. */
static int turn_begin_named(struct lease *l, struct err *e)
{
    struct lease_file *f = l->kind;
    struct stat st;

    for (;;) {
        if (turn_begin(f->fd, f->path, l->deadline_ns, e) < 0)
            return -1;
        if (!f->record || (fstat(f->fd, &st) == 0 && st.st_nlink != 0))
            return 0;
        io_close(&f->fd);
        f->held = 0;
        if (open_record(f, e) < 0)
            return -1;
    }
}

static int file_take(struct lease *l, uint64_t epoch, enum lease_claim claim, struct err *e)
{
    struct lease_file *f = l->kind;
    const struct lease_bid b = lease_bid_of(l, epoch, claim);
    int r;

    if (turn_begin_named(l, e) < 0)
        return -1;
    if (FAULT("lease-claimed"))
        r = err_set(e, ERR_SYSTEM, "fault lease-claimed");
    else
        r = f->record ? take_record(l, &b, e) : take_device(l, &b, e);
    if (r == 0 && f->held != 0 && f->held != epoch)
        set_lock(f->fd, F_UNLCK, epoch_byte(f->held));
    if (r == 0)
        l->epoch = f->held = epoch;
    turn_end(f->fd);
    return r;
}

/* The file was unlinked, or replaced: a new one is opened, and taken if nobody has it. The old one
 * stays open until then, its lock with it. */
static enum lease_seen record_again(struct lease *l, struct err *e)
{
    struct lease_file *f = l->kind, was = *f;
    enum lease_seen seen = LEASE_SEEN_OURS;
    struct lease_note n;

    f->fd = -1;
    f->held = 0;
    if (open_record(f, e) < 0)
        seen = LEASE_SEEN_NOTHING;
    else if (record_load(f->fd, f->path, &n, e) == 1 && n.nonce != l->nonce)
        seen = LEASE_SEEN_FOREIGN;
    else if (file_take(l, l->epoch, LEASE_FREE, e) < 0)
        seen = LEASE_SEEN_NOTHING;
    if (seen == LEASE_SEEN_FOREIGN)
        err_set(e, ERR_EPOCH,
            "disk %s: its lease was removed, and taken by host %s (epoch %" PRIu64 ")", l->source,
            n.r.owner, n.r.epoch);
    if (seen == LEASE_SEEN_OURS) {
        io_close(&was.fd);
        return seen;
    }
    io_close(&f->fd);
    *f = was;
    return seen;
}

static enum lease_seen taken_by(const struct lease *l, const struct lease_note *n, struct err *e)
{
    err_set(e, ERR_EPOCH,
        "disk %s: host %s took its lease under epoch %" PRIu64 ", ours was %" PRIu64, l->source,
        n->r.owner, n->r.epoch, l->epoch);
    return LEASE_SEEN_FOREIGN;
}

/* Who yields gives its byte back, and needs it again to go on. */
static enum lease_seen lock_as_told(struct lease *l, struct err *e)
{
    const struct lease_bid b = lease_bid_of(l, l->epoch, LEASE_FREE);
    struct lease_file *f = l->kind;

    if (atomic_load(&l->yielded) == (f->held == 0))
        return LEASE_SEEN_OURS;
    if (f->held != 0) {
        set_lock(f->fd, F_UNLCK, epoch_byte(f->held));
        f->held = 0;
        return LEASE_SEEN_OURS;
    }
    if (lock_epoch(l, &b, e) < 0)
        return e->code == ERR_EPOCH ? LEASE_SEEN_FOREIGN : LEASE_SEEN_NOTHING;
    f->held = l->epoch;
    return LEASE_SEEN_OURS;
}

static enum lease_seen renew_device(struct lease *l, struct err *e)
{
    struct lease_file *f = l->kind;
    uint64_t newer = 0;
    enum lease_seen seen = lock_as_told(l, e);
    int locked = seen == LEASE_SEEN_OURS ? others_lock(f->fd, l->epoch + 1, UINT64_MAX, &newer) : 0;

    if (seen != LEASE_SEEN_OURS)
        return seen;
    if (locked == 0)
        return LEASE_SEEN_OURS;
    if (locked < 0) {
        err_sys(e, "%s: lock", f->path);
        return LEASE_SEEN_NOTHING;
    }
    err_set(e, ERR_EPOCH, "disk %s: another process took its lease under epoch %" PRIu64, l->source,
        newer);
    return LEASE_SEEN_FOREIGN;
}

/* Inside the turn, or somebody's newer record would be written over. */
static enum lease_seen say_yielded(struct lease *l, bool yielded, struct err *e)
{
    struct lease_file *f = l->kind;
    enum lease_seen seen = LEASE_SEEN_NOTHING;
    struct lease_note n;

    if (turn_begin(f->fd, f->path, l->deadline_ns, e) < 0)
        return seen;
    if (record_load(f->fd, f->path, &n, e) == 1) {
        n.r.yielded = yielded;
        if (n.nonce != l->nonce)
            seen = taken_by(l, &n, e);
        else if (record_store(f->fd, f->path, &n, e) == 0)
            seen = LEASE_SEEN_OURS;
    }
    turn_end(f->fd);
    return seen;
}

static enum lease_seen file_renew(struct lease *l, struct err *e)
{
    struct lease_file *f = l->kind;
    struct stat mine, named = { 0 };
    struct lease_note n;
    bool yielded;
    int r;

    if (!f->record)
        return renew_device(l, e);
    if (fstat(f->fd, &mine) < 0 || (lstat(f->path, &named) < 0 && errno != ENOENT)) {
        err_sys(e, "%s", f->path);
        return LEASE_SEEN_NOTHING;
    }
    if (mine.st_nlink == 0 || mine.st_ino != named.st_ino || mine.st_dev != named.st_dev)
        return record_again(l, e);
    r = record_load(f->fd, f->path, &n, e);
    if (r == 0)
        err_set(e, ERR_INTEGRITY, "%s: was emptied", f->path);
    if (r <= 0)
        return LEASE_SEEN_NOTHING;
    if (n.nonce != l->nonce)
        return taken_by(l, &n, e);
    yielded = atomic_load(&l->yielded);
    return n.r.yielded == yielded ? LEASE_SEEN_OURS : say_yielded(l, yielded, e);
}

static int file_release(struct lease *l, struct err *e)
{
    struct lease_file *f = l->kind;
    struct lease_note n;
    int r = 0;

    if (!f->record)
        return 0;
    if (turn_begin(f->fd, f->path, l->deadline_ns, e) < 0)
        return -1;
    if (record_load(f->fd, f->path, &n, e) == 1 && n.nonce == l->nonce) {
        n.r.released = true;
        n.r.yielded = false;
        r = record_store(f->fd, f->path, &n, e);
    }
    turn_end(f->fd);
    return r;
}

static void file_close(struct lease *l)
{
    struct lease_file *f = l->kind;

    if (f != NULL)
        io_close(&f->fd); /* with its locks */
    free(f);
}

const struct lease_ops lease_file_ops = {
    .open = file_open,
    .take = file_take,
    .renew = file_renew,
    .release = file_release,
    .close = file_close,
};

/* ---- looking from outside */

/* 1 opened; 0 there is no record; -1. */
static int open_existing(const char *disk, struct lease_file *f, int flags, struct err *e)
{
    struct stat st;
    char *real = realpath(disk, NULL);
    bool device = real != NULL && stat(real, &st) == 0 && S_ISBLK(st.st_mode);

    f->fd = -1;
    f->record = !device;
    /* The disk may be gone, its lease not. */
    if (snprintf(f->path, sizeof f->path, "%s%s", real != NULL ? real : disk,
            device ? "" : LEASE_SUFFIX) >= (int)sizeof f->path) {
        free(real);
        return err_set(e, ERR_INVALID, "disk %s: name too long", disk);
    }
    free(real);
    f->fd = open(f->path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (f->fd >= 0)
        return 1;
    return errno == ENOENT || errno == ENOTDIR ? 0 : err_sys(e, "%s", f->path);
}

int lease_file_read(const char *path, struct lease_record *out, struct err *e)
{
    struct lease_file f;
    struct lease_note n;
    int r = open_existing(path, &f, O_RDONLY, e);

    if (r <= 0)
        return r;
    if (f.record) {
        r = record_load(f.fd, f.path, &n, e);
        if (r == 1)
            *out = n.r;
    } else if (others_lock(f.fd, 0, UINT64_MAX, &out->epoch) == 1)
        snprintf(out->owner, sizeof out->owner, "a process of this host");
    io_close(&f.fd);
    return r < 0 ? -1 : 0;
}

static int remove_record(struct lease_file *f, uint64_t epoch, struct err *e)
{
    struct lease_note n;
    uint64_t alive = 0;
    int r = record_load(f->fd, f->path, &n, NULL);

    if (r == 1 && n.r.epoch > epoch)
        return err_set(e, ERR_EPOCH, "%s: knows epoch %" PRIu64 " of host %s, newer than %" PRIu64,
            f->path, n.r.epoch, n.r.owner, epoch);
    if (others_lock(f->fd, 0, UINT64_MAX, &alive) != 0)
        return err_set(e, ERR_STATE,
            "%s: is held under epoch %" PRIu64 "; destroy the domain first", f->path, alive);
    return unlink(f->path) < 0 ? err_sys(e, "%s", f->path) : 0;
}

int lease_file_remove(const char *path, uint64_t epoch, struct err *e)
{
    struct lease_file f;
    int r = open_existing(path, &f, O_RDWR, e);

    if (r <= 0)
        return r;
    r = 0;
    if (f.record) {
        r = turn_begin(f.fd, f.path, lease_clock() + NS_PER_S, e);
        if (r == 0)
            r = remove_record(&f, epoch, e);
    }
    io_close(&f.fd);
    return r;
}
