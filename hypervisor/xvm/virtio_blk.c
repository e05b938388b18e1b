/* SPDX-License-Identifier: ISC */
/*
 * virtio-blk: the block device of virtio 1.1, 5.2, on a raw file or block device of
 * the host. WORKERS threads take requests from the one queue, so that many are in
 * flight. A request is a header (struct request), data, and one status byte at the end
 * of what we write; how the guest cuts that into descriptors does not matter.
 *
 * Opening. A domain that boots here opens its disk when it is made, so that errors name
 * it in time. One that comes by migration only looks at the disk then, and opens it for
 * writing when the domain starts to run here: until then the other host is the writer.
 * If that fails, the guest gets I/O errors until it works; each request tries again.
 *
 * Hand-over. Quiesce waits for requests in flight and then for fdatasync, so that what
 * was written is on the shared storage before another host reads it; dirty pages are
 * pushed out along the way to keep that short. If it fails, so does the pause: the guest
 * goes on here, and its next flush hears of it. The first start after a migration drops
 * what this host has cached of the disk before it was the writer.
 *
 * State after the transport's: u64 capacity in sectors.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"
#include "hypervisor/xvm/virtio.h"

#define WORKERS 4u
#define SECTOR 512u
#define SEG_MAX (VIRTIO_CHAIN_MAX - 2u)
#define ID_LEN 20u
/* Limits of one request; zeroes may have to be written out, and a pause waits for that. */
#define DISCARD_RANGES 32u
#define DISCARD_SECTORS (1u << 21) /* 1 GiB */
#define ZERO_RANGES 1u
#define ZERO_SECTORS (1u << 15) /* 16 MiB */
#define WRITEBACK_BYTES (UINT64_C(8) << 20)

/* Feature bits (5.2.3). */
#define FEATURE_SEG_MAX (UINT64_C(1) << 2)
#define FEATURE_RO (UINT64_C(1) << 5)
#define FEATURE_BLK_SIZE (UINT64_C(1) << 6)
#define FEATURE_FLUSH (UINT64_C(1) << 9)
#define FEATURE_DISCARD (UINT64_C(1) << 13)
#define FEATURE_WRITE_ZEROES (UINT64_C(1) << 14)

enum request_type {
    REQ_IN = 0,
    REQ_OUT = 1,
    REQ_FLUSH = 4,
    REQ_GET_ID = 8,
    REQ_DISCARD = 11,
    REQ_WRITE_ZEROES = 13,
};

enum request_status { STATUS_OK = 0, STATUS_IOERR = 1, STATUS_UNSUPP = 2 };

struct request {
    uint32_t type, reserved;
    uint64_t sector;
};

_Static_assert(sizeof(struct request) == 16, "request header of virtio 1.1, 5.2.6");

/* One range of discard or write zeroes (5.2.6). */
struct range {
    uint64_t sector;
    uint32_t sectors, flags;
};

#define RANGE_UNMAP 0x1u

/* Config space (5.2.4). */
struct blk_config {
    uint64_t capacity;
    uint32_t size_max, seg_max;
    uint8_t geometry[4];
    uint32_t blk_size;
    uint8_t topology[8];
    uint8_t writeback, unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
    uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap, unused1[3];
} __attribute__((packed));

_Static_assert(sizeof(struct blk_config) == 60, "config space of virtio 1.1, 5.2.4");

struct blk {
    struct virtio v;
    char *path;
    char id[ID_LEN];
    bool read_only, incoming;
    atomic_bool lost_writes;  /* a flush before a pause failed */
    struct blk_config config; /* read only after creation */
    pthread_mutex_t lock;     /* protects what follows */
    int fd;                   /* -1 not open yet; atomic for readers */
    bool open_failed, io_failed;
    uint64_t unwritten; /* bytes since writeback was last started */
};

static struct blk *blk_of(struct virtio *v)
{
    return (struct blk *)v;
}

/* ---- the disk ---- */

/* The descriptor, opened now if need be; -1 if that fails. */
static int disk_fd(struct blk *b)
{
    int fd;

    pthread_mutex_lock(&b->lock);
    if (b->fd < 0) {
        b->fd = open(b->path, (b->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
        if (b->fd < 0 && !b->open_failed)
            log_error("xvm", "%s: disk %s: %s; the guest gets I/O errors until it can be opened",
                b->v.name, b->path, strerror(errno));
        else if (b->fd >= 0 && b->open_failed)
            log_info("xvm", "%s: disk %s is open now", b->v.name, b->path);
        b->open_failed = b->fd < 0;
    }
    fd = b->fd;
    pthread_mutex_unlock(&b->lock);
    return fd;
}

static int io_error(struct blk *b, const char *what, uint64_t sector)
{
    int code = errno;

    pthread_mutex_lock(&b->lock);
    if (!b->io_failed)
        log_error("xvm", "%s: disk %s: %s at sector %llu: %s", b->v.name, b->path, what,
            (unsigned long long)sector, strerror(code));
    b->io_failed = true;
    pthread_mutex_unlock(&b->lock);
    return STATUS_IOERR;
}

/* Starts writing to the medium what has gathered in the page cache; does not wait for it. */
static void start_writeback(struct blk *b, int fd, uint64_t written)
{
    bool now;

    pthread_mutex_lock(&b->lock);
    b->unwritten += written;
    now = b->unwritten >= WRITEBACK_BYTES;
    if (now)
        b->unwritten = 0;
    pthread_mutex_unlock(&b->lock);
    if (now)
        sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

/* ---- requests ---- */

static bool sectors_fit(const struct blk *b, uint64_t sector, uint64_t sectors)
{
    return sector <= b->config.capacity && sectors <= b->config.capacity - sector;
}

/* Cuts `skip` bytes off the front and everything behind `len` bytes; returns how many remain. */
static unsigned trim_iov(struct iovec *iov, unsigned n, uint64_t skip, uint64_t len)
{
    unsigned out = 0;

    for (unsigned i = 0; i < n && len > 0; i++) {
        struct iovec io = iov[i];

        if (skip >= io.iov_len) {
            skip -= io.iov_len;
            continue;
        }
        io.iov_base = (uint8_t *)io.iov_base + skip;
        io.iov_len -= skip;
        skip = 0;
        if (io.iov_len > len)
            io.iov_len = len;
        len -= io.iov_len;
        iov[out++] = io;
    }
    return out;
}

/* The whole of iov at `offset`; false with errno set. */
static bool transfer(
    int fd, struct iovec *iov, unsigned n, uint64_t len, uint64_t offset, bool write)
{
    while (len > 0) {
        ssize_t done = write ? pwritev(fd, iov, (int)n, (off_t)offset)
                             : preadv(fd, iov, (int)n, (off_t)offset);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            if (done == 0)
                errno = ENODATA; /* the file became shorter */
            return false;
        }
        len -= (uint64_t)done;
        offset += (uint64_t)done;
        n = trim_iov(iov, n, (uint64_t)done, len);
    }
    return true;
}

static int read_or_write(struct blk *b, const struct virtio_chain *c, uint64_t sector, bool write)
{
    struct iovec iov[VIRTIO_CHAIN_MAX];
    uint64_t len = write ? c->out_len - sizeof(struct request) : c->in_len - 1;
    int fd = disk_fd(b);
    unsigned n;

    if (len % SECTOR != 0 || !sectors_fit(b, sector, len / SECTOR) || (write && b->read_only))
        return STATUS_IOERR;
    if (fd < 0)
        return STATUS_IOERR;
    if (write) {
        memcpy(iov, c->iov, c->out_n * sizeof iov[0]);
        n = trim_iov(iov, c->out_n, sizeof(struct request), len);
    } else {
        memcpy(iov, c->iov + c->out_n, c->in_n * sizeof iov[0]);
        n = trim_iov(iov, c->in_n, 0, len);
    }
    if (!transfer(fd, iov, n, len, sector * SECTOR, write))
        return io_error(b, write ? "write" : "read", sector);
    if (write)
        start_writeback(b, fd, len);
    return STATUS_OK;
}

static int flush(struct blk *b)
{
    int fd = disk_fd(b);

    if (fd < 0 || atomic_exchange(&b->lost_writes, false))
        return STATUS_IOERR;
    if (!b->read_only && fdatasync(fd) < 0)
        return io_error(b, "flush", 0);
    return STATUS_OK;
}

/* For storage that cannot make zeroes by itself. */
static bool write_zeroes_slowly(struct blk *b, int fd, uint64_t offset, uint64_t len)
{
    static const uint8_t zeroes[65536];

    while (len > 0) {
        struct iovec io = { .iov_base = (void *)(uintptr_t)zeroes,
            .iov_len = len < sizeof zeroes ? len : sizeof zeroes };
        uint64_t step = io.iov_len;

        if (!transfer(fd, &io, 1, step, offset, true))
            return false;
        start_writeback(b, fd, step);
        offset += step;
        len -= step;
    }
    return true;
}

static int one_range(struct blk *b, int fd, const struct range *r, bool zeroes)
{
    off_t at = (off_t)(r->sector * SECTOR), len = (off_t)((uint64_t)r->sectors * SECTOR);
    bool punch = !zeroes || (r->flags & RANGE_UNMAP) != 0;
    int mode = FALLOC_FL_KEEP_SIZE | (punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);

    if (r->sectors > (zeroes ? ZERO_SECTORS : DISCARD_SECTORS) ||
        !sectors_fit(b, r->sector, r->sectors))
        return STATUS_IOERR;
    if (len == 0 || fallocate(fd, mode, at, len) == 0)
        return STATUS_OK;
    if (!zeroes) /* a discard is advice */
        return errno == EOPNOTSUPP ? STATUS_OK : io_error(b, "discard", r->sector);
    if (!write_zeroes_slowly(b, fd, (uint64_t)at, (uint64_t)len))
        return io_error(b, "write zeroes", r->sector);
    return STATUS_OK;
}

static int ranges(struct blk *b, const struct virtio_chain *c, bool zeroes)
{
    struct range r[DISCARD_RANGES];
    uint64_t limit = (zeroes ? ZERO_RANGES : DISCARD_RANGES) * sizeof r[0];
    uint64_t len = c->out_len - sizeof(struct request);
    int fd = disk_fd(b), status = STATUS_OK;

    if (fd < 0 || b->read_only || len == 0 || len % sizeof r[0] != 0 || len > limit)
        return STATUS_IOERR;
    virtio_chain_read(c, sizeof(struct request), r, len);
    for (size_t i = 0; i < len / sizeof r[0] && status == STATUS_OK; i++) {
        if ((r[i].flags & ~RANGE_UNMAP) != 0 || (!zeroes && r[i].flags != 0))
            return STATUS_UNSUPP;
        status = one_range(b, fd, &r[i], zeroes);
    }
    return status;
}

static int get_id(struct blk *b, const struct virtio_chain *c)
{
    uint64_t room = c->in_len - 1;

    virtio_chain_write(&b->v, c, 0, b->id, room < ID_LEN ? (size_t)room : ID_LEN);
    return STATUS_OK;
}

static int serve(struct blk *b, const struct virtio_chain *c)
{
    struct request req;

    virtio_chain_read(c, 0, &req, sizeof req);
    if (FAULT("disk-request"))
        return STATUS_IOERR;
    switch ((enum request_type)req.type) {
    case REQ_IN:
        return read_or_write(b, c, req.sector, false);
    case REQ_OUT:
        return read_or_write(b, c, req.sector, true);
    case REQ_FLUSH:
        return flush(b);
    case REQ_GET_ID:
        return get_id(b, c);
    case REQ_DISCARD:
        return ranges(b, c, false);
    case REQ_WRITE_ZEROES:
        return ranges(b, c, true);
    }
    return STATUS_UNSUPP;
}

static void blk_work(struct virtio *v, unsigned queue)
{
    struct virtio_chain c;

    while (virtio_pop(v, queue, &c) > 0) {
        uint8_t status;

        if (c.out_len < sizeof(struct request) || c.in_len < 1 || c.in_len > UINT32_MAX) {
            virtio_broken(v, "a request without header or status");
            return;
        }
        status = (uint8_t)serve(blk_of(v), &c);
        virtio_chain_dirty(v, &c, 0, c.in_len - 1);
        virtio_chain_write(v, &c, c.in_len - 1, &status, 1);
        virtio_push(v, queue, &c, (uint32_t)c.in_len);
        virtio_notify(v, queue);
    }
}

/* ---- life ---- */

static void blk_config_read(struct virtio *v, unsigned offset, void *data, unsigned len)
{
    memcpy(data, (const uint8_t *)&blk_of(v)->config + offset, len);
}

static void blk_start(struct virtio *v)
{
    struct blk *b = blk_of(v);
    int fd = disk_fd(b);

    if (b->incoming && fd >= 0)
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    b->incoming = false;
}

/* The kernel tells a failed write once only: the guest must still hear of it. */
static void blk_quiesced(struct virtio *v)
{
    struct blk *b = blk_of(v);

    if (b->fd < 0 || b->read_only || (!FAULT("disk-flush") && fdatasync(b->fd) == 0))
        return;
    io_error(b, "flush before a pause", 0);
    atomic_store(&b->lost_writes, true);
    machine_not_flushed(v->d.m, v->d.ops->name);
}

static void blk_save(struct virtio *v, struct state_writer *w)
{
    state_put_u64(w, blk_of(v)->config.capacity);
}

static int blk_load(struct virtio *v, struct state_reader *r, struct err *e)
{
    struct blk *b = blk_of(v);
    uint64_t capacity;

    if (state_get_u64(r, &capacity, e) < 0)
        return -1;
    if (capacity != b->config.capacity)
        return err_set(e, ERR_INVALID,
            "%s: disk %s has %llu sectors here, the guest's has %llu: it is not the same disk",
            v->name, b->path, (unsigned long long)b->config.capacity, (unsigned long long)capacity);
    return 0;
}

static void blk_destroy(struct virtio *v)
{
    struct blk *b = blk_of(v);

    io_close(&b->fd);
    pthread_mutex_destroy(&b->lock);
    free(b->path);
    free(b);
}

static const struct virtio_ops blk_ops = {
    .type = VIRTIO_BLK,
    .queues = 1,
    .workers = WORKERS,
    .config_len = sizeof(struct blk_config),
    .config_read = blk_config_read,
    .config_write = virtio_no_config_write,
    .work = blk_work,
    .wake = virtio_nothing,
    .activate = virtio_nothing,
    .start = blk_start,
    .quiesced = blk_quiesced,
    .reset = virtio_nothing,
    .save = blk_save,
    .load = blk_load,
    .destroy = blk_destroy,
};

/* Size in bytes of the file or block device. */
static int look_at(const Migrd__Disk *disk, int fd, uint64_t *size, struct err *e)
{
    struct stat st;
    off_t end;

    if (fstat(fd, &st) < 0)
        return err_sys(e, "disk %s", disk->source);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return err_set(e, ERR_INVALID, "disk %s: neither a file nor a block device", disk->source);
    end = lseek(fd, 0, SEEK_END);
    if (end < 0)
        return err_sys(e, "disk %s: its size", disk->source);
    if (end < (off_t)SECTOR)
        return err_set(
            e, ERR_INVALID, "disk %s: smaller than one sector of %u bytes", disk->source, SECTOR);
    *size = (uint64_t)end;
    return 0;
}

/* Opens the disk, or for an incoming domain only makes sure as far as possible that it can be
 * opened later. */
static int attach(struct blk *b, const Migrd__Disk *disk, uint64_t *size, struct err *e)
{
    bool writable = !disk->read_only && !b->incoming;
    int fd = open(disk->source, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);

    if (fd < 0)
        return err_sys(e, "disk %s", disk->source);
    if (look_at(disk, fd, size, e) < 0) {
        close(fd);
        return -1;
    }
    if (!b->incoming) {
        b->fd = fd;
        return 0;
    }
    close(fd);
    if (!disk->read_only && access(disk->source, R_OK | W_OK) < 0)
        return err_sys(e, "disk %s: no permission to write", disk->source);
    return 0;
}

static void fill_config(struct blk *b, uint64_t size)
{
    b->config = (struct blk_config){ .capacity = size / SECTOR,
        .seg_max = SEG_MAX,
        .blk_size = SECTOR,
        .num_queues = 1,
        .max_discard_sectors = DISCARD_SECTORS,
        .max_discard_seg = DISCARD_RANGES,
        .discard_sector_alignment = 8,
        .max_write_zeroes_sectors = ZERO_SECTORS,
        .max_write_zeroes_seg = ZERO_RANGES,
        .write_zeroes_may_unmap = 1 };
}

int virtio_blk_create(
    struct machine *m, unsigned slot, const Migrd__Disk *disk, bool incoming, struct err *e)
{
    uint64_t features = FEATURE_SEG_MAX | FEATURE_BLK_SIZE | FEATURE_FLUSH;
    struct blk *b = calloc(1, sizeof *b);
    uint64_t size = 0;

    if (b == NULL)
        return err_set(e, ERR_MEMORY, "disk %s: out of memory", disk->source);
    features |= disk->read_only ? FEATURE_RO : FEATURE_DISCARD | FEATURE_WRITE_ZEROES;
    virtio_init(&b->v, &blk_ops, m, slot, "blk", slot, features);
    pthread_mutex_init(&b->lock, NULL);
    b->fd = -1;
    b->read_only = disk->read_only;
    b->incoming = incoming;
    b->path = strdup(disk->source);
    if (b->path == NULL || attach(b, disk, &size, e) < 0) {
        if (b->path == NULL)
            err_set(e, ERR_MEMORY, "disk %s: out of memory", disk->source);
        virtio_dispose(&b->v);
        return -1;
    }
    memcpy(b->id, disk->serial, strnlen(disk->serial, ID_LEN));
    fill_config(b, size);
    return virtio_add(&b->v, e);
}
