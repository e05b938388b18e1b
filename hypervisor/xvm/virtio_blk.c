/* SPDX-License-Identifier: ISC */
/*
 * virtio-blk: the block device of virtio 1.1, 5.2, on a raw disk: file, block device, nfs://
 * or iscsi:// (storage-check/disk.h). Requests are taken from the one queue; on files
 * by WORKERS threads that do them, on network disks by the disk's own. A request is a
 * header, data, and one status byte at the end of what we write; how the guest cuts that
 * into descriptors does not matter. virtio_blk_io.c has the way of a request,
 * virtio_blk_guard.c what happens when it fails or gets no answer.
 *
 * Opening, and the lease on each disk that can be written (if leases are on):
 *
 *                     boots here                  comes by migration
 *   made              opened, lease taken         file: looked at, closed again
 *                                                 network: opened, lease prepared
 *   first resume      -                           file: opened; lease taken (hand-over)
 *   resume, newer     lease moved                 lease moved
 *   epoch
 *   yielded           an operator may let it be taken; the next claim or resume takes that back
 *   destroyed         lease given back            the same, if it was taken
 *
 * Until its first resume an incoming domain writes nothing: the other host is the writer. A
 * file is opened as late as that because opening drops what this host's kernel has cached of
 * it. A resume that cannot open a disk or take a lease fails, and nothing was written.
 *
 * Hand-over. Quiesce waits for requests in flight and then for a flush, so that what was
 * written is on the shared storage before another host reads it. If the flush fails, so
 * does the pause: the guest goes on here, and its next flush hears of it. A guest that had
 * stopped for its disk anyway is paused without: its next flush, here or elsewhere, makes all
 * durable that the server got (a disk's first flush always asks it). An NFS server that restarts
 * between the last write here and that flush there has forgotten what only this process could
 * write again: the state says which life of the server it was (disk_mark), and if that is over, the
 * flush there fails.
 *
 * State after the transport's:
 *   version 1: u64 capacity in sectors
 *   version 2: the same; u32 flags: 1 the next flush fails; u32 n, and n times u32: head
 *              of a chain that was popped and is to be done (again)
 *   version 3: the same; flag 2: 8 bytes follow, the disk_mark of what no flush has made durable
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/xvm/virtio_blk_internal.h"
#include "storage-check/identity.h"
#include "storage-check/url.h"

#define SEG_MAX (VIRTIO_CHAIN_MAX - 2u)
#define STATE_WITH_REQUESTS 2u
#define STATE_WITH_MARK 3u
#define STATE_LOST_WRITES 1u
#define STATE_OWED 2u

/* Feature bits (5.2.3). */
#define FEATURE_SEG_MAX (UINT64_C(1) << 2)
#define FEATURE_RO (UINT64_C(1) << 5)
#define FEATURE_BLK_SIZE (UINT64_C(1) << 6)
#define FEATURE_FLUSH (UINT64_C(1) << 9)
#define FEATURE_DISCARD (UINT64_C(1) << 13)
#define FEATURE_WRITE_ZEROES (UINT64_C(1) << 14)

/* ---- opening, leases; control thread ---- */

static int open_disk(struct blk *b, struct err *e)
{
    return disk_open(b->source, &b->options, &b->disk, e);
}

/* A file of an incoming domain: is it there, how long is it, could it be opened for writing? */
static int look_at_file(struct blk *b, struct disk **d, struct err *e)
{
    struct disk_options o = b->options;

    o.read_only = true;
    if (disk_open(b->source, &o, d, e) < 0)
        return -1;
    if (!b->read_only && access(b->source, R_OK | W_OK) < 0)
        return err_sys(e, "disk %s: no permission to write", b->source);
    return 0;
}

static bool wants_lease(const struct blk *b)
{
    return !b->read_only && machine_storage(b->v.d.m)->leases;
}

static int prepare_lease(struct blk *b, enum lease_claim claim, struct err *e)
{
    const struct machine_storage *s = machine_storage(b->v.d.m);
    const struct lease_wish w = { .source = b->source,
        .options = &b->options,
        .uuid = machine_def(b->v.d.m)->uuid,
        .epoch = machine_epoch(b->v.d.m),
        .claim = claim,
        .valid_ms = s->lease_ms,
        .nfs_uid_base = s->nfs_uid_base,
        .lost = blk_lease_lost,
        .sure = blk_lease_sure,
        .arg = b };

    return lease_prepare(&w, b->disk, &b->lease, e);
}

static int take_lease(struct blk *b, uint64_t epoch, enum lease_claim claim, struct err *e)
{
    char note[400];
    const char *fence;

    if (lease_take(b->lease, epoch, claim, e) < 0)
        return -1;
    b->lease_epoch = epoch;
    fence = lease_fence(b->lease, note, sizeof note);
    log_info("xvm", "%s: disk %s: lease of epoch %llu taken; %s: %s", b->v.name, b->device,
        (unsigned long long)epoch,
        fence[0] != '\0' ? "the storage enforces it" : "the storage does not enforce it",
        fence[0] != '\0' ? fence : note);
    return 0;
}

/* A lost lease never comes back, but a newer epoch may take it anew. Until then it stays lost:
 * devices and, if nothing held it, the guest would be at work without one. */
static int check_lost(struct blk *b, uint64_t epoch, struct err *e)
{
    bool lost;

    pthread_mutex_lock(&b->lock);
    lost = b->lease_lost;
    pthread_mutex_unlock(&b->lock);
    if (!lost || epoch > b->lease_epoch)
        return 0;
    return err_set(e, ERR_STATE,
        "disk %s: its lease of epoch %llu is another host's: this copy of the guest can only be "
        "destroyed",
        b->source, (unsigned long long)b->lease_epoch);
}

static int claim_lease(struct blk *b, uint64_t epoch, enum lease_claim how, struct err *e)
{
    if (!wants_lease(b))
        return 0;
    if (check_lost(b, epoch, e) < 0)
        return -1;
    if (b->lease == NULL && prepare_lease(b, how, e) < 0)
        return -1;
    if (epoch <= b->lease_epoch)
        return lease_yield(b->lease, false, e);
    if (take_lease(b, epoch, how, e) < 0)
        return -1;
    blk_lease_anew(b);
    return 0;
}

static int claim(struct blk *b, uint64_t epoch, enum lease_claim how, struct err *e)
{
    if (b->disk == NULL && open_disk(b, e) < 0)
        return -1;
    if (claim_lease(b, epoch, how, e) < 0)
        return -1;
    b->incoming = false;
    blk_redo(b, true);
    return 0;
}

int virtio_blk_claim(struct machine *m, uint64_t epoch, bool decided, struct err *e)
{
    enum lease_claim how = decided ? LEASE_PROVEN : LEASE_HANDOVER;
    struct virtio *v = NULL;

    while ((v = virtio_find(m, VIRTIO_BLK, v)) != NULL)
        if (claim(blk_of(v), epoch, how, e) < 0)
            return -1;
    return 0;
}

void virtio_blk_drain(struct machine *m)
{
    struct virtio *v = NULL;

    while ((v = virtio_find(m, VIRTIO_BLK, v)) != NULL)
        if (blk_of(v)->lease != NULL)
            lease_drain(blk_of(v)->lease);
}

void virtio_blk_again(struct machine *m)
{
    struct virtio *v = NULL;

    while ((v = virtio_find(m, VIRTIO_BLK, v)) != NULL)
        blk_redo(blk_of(v), false);
}

void virtio_blk_poke(struct machine *m)
{
    struct virtio *v = NULL;

    while ((v = virtio_find(m, VIRTIO_BLK, v)) != NULL)
        if (blk_of(v)->network)
            disk_poke(blk_of(v)->disk);
}

int virtio_blk_yield(struct machine *m, struct err *e)
{
    struct virtio *v = NULL;

    while ((v = virtio_find(m, VIRTIO_BLK, v)) != NULL)
        if (blk_of(v)->lease != NULL && lease_yield(blk_of(v)->lease, true, e) < 0)
            return -1;
    return 0;
}

/* ---- life ---- */

static void blk_config_read(struct virtio *v, unsigned offset, void *data, unsigned len)
{
    memcpy(data, (const uint8_t *)&blk_of(v)->config + offset, len);
}

static void blk_start(struct virtio *v)
{
    blk_redo(blk_of(v), false);
}

static void blk_quiesced(struct virtio *v)
{
    blk_flush_for_pause(blk_of(v));
}

static void blk_reset(struct virtio *v)
{
    blk_forget(blk_of(v));
}

static void blk_save(struct virtio *v, struct state_writer *w)
{
    struct blk *b = blk_of(v);
    unsigned n = atomic_load(&b->n_again);
    struct disk_mark m = { .owed = false };

    if (b->network)
        disk_mark(b->disk, &m);
    state_put_u64(w, b->config.capacity);
    state_put_u32(w, (m.lost || atomic_load(&b->lost_writes) ? STATE_LOST_WRITES : 0) |
                         (m.owed ? STATE_OWED : 0));
    pthread_mutex_lock(&b->lock);
    state_put_u32(w, n + b->n_kept);
    for (unsigned i = 0; i < n; i++)
        state_put_u32(w, b->again[i]);
    for (unsigned i = 0; i < b->n_kept; i++)
        state_put_u32(w, b->kept[i]);
    pthread_mutex_unlock(&b->lock);
    if (m.owed)
        state_put(w, m.server, sizeof m.server);
}

static int load_mark(struct blk *b, struct state_reader *r, struct err *e)
{
    struct disk_mark m = { .owed = true };

    if (state_get(r, m.server, sizeof m.server, e) < 0)
        return -1;
    if (b->network)
        disk_expect(b->disk, &m);
    return 0;
}

/* Heads are as little to be trusted as those in the ring: virtio_again checks them. */
static int load_requests(struct blk *b, struct state_reader *r, struct err *e)
{
    uint32_t flags, n, head, known = STATE_LOST_WRITES;

    if (r->version >= STATE_WITH_MARK)
        known |= STATE_OWED;
    if (state_get_u32(r, &flags, e) < 0 || state_get_u32(r, &n, e) < 0)
        return -1;
    if ((flags & ~known) != 0 || n > VIRTIO_QUEUE_SIZE)
        return err_set(e, ERR_INVALID, "%s: flags %#x, %u requests", b->v.name, flags, n);
    for (uint32_t i = 0; i < n; i++) {
        if (state_get_u32(r, &head, e) < 0)
            return -1;
        if (head >= VIRTIO_QUEUE_SIZE)
            return err_set(e, ERR_INVALID, "%s: request %u", b->v.name, head);
        b->kept[i] = (uint16_t)head;
    }
    b->n_kept = n;
    atomic_store(&b->outstanding, n);
    atomic_store(&b->lost_writes, (flags & STATE_LOST_WRITES) != 0);
    return (flags & STATE_OWED) != 0 ? load_mark(b, r, e) : 0;
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
            v->name, b->source, (unsigned long long)b->config.capacity,
            (unsigned long long)capacity);
    atomic_store(&b->unflushed, true); /* by another host, as far as we know */
    return r->version >= STATE_WITH_REQUESTS ? load_requests(b, r, e) : 0;
}

/* The disk last: callbacks of the lease and the guard's thread use it. */
static void blk_destroy(struct virtio *v)
{
    struct blk *b = blk_of(v);

    blk_guard_stop(b);
    if (b->lease != NULL)
        lease_close(&b->lease, true);
    if (b->disk != NULL)
        disk_close(&b->disk);
    machine_unsuspend(v->d.m, &b->hold);
    pthread_cond_destroy(&b->cond);
    pthread_mutex_destroy(&b->lock);
    pthread_mutex_destroy(&b->abort_lock);
    free(b->pool);
    free(b->source);
    free(b->device);
    free(b);
}

/* In the disk's thread. */
static void feed(void *arg)
{
    blk_publish(arg);
    virtio_serve(arg, 0);
}

static void blk_poke(struct virtio *v)
{
    disk_poke(blk_of(v)->disk);
}

static void blk_stop(struct virtio *v)
{
    struct blk *b = blk_of(v);

    if (b->disk == NULL)
        return;
    if (b->kick_event)
        virtio_kick_event(v, 0, disk_poke_fd(b->disk), false);
    disk_set_feed(b->disk, NULL, NULL);
}

static const struct virtio_ops blk_ops = {
    .type = VIRTIO_BLK,
    .state_version = STATE_WITH_MARK,
    .queues = 1,
    .workers = BLK_WORKERS,
    .config_len = sizeof(struct blk_config),
    .config_read = blk_config_read,
    .config_write = virtio_no_config_write,
    .work = blk_work,
    .wake = virtio_nothing,
    .poke = blk_poke,
    .stop = blk_stop,
    .abandon = blk_abandon,
    .activate = virtio_nothing,
    .start = blk_start,
    .quiesced = blk_quiesced,
    .reset = blk_reset,
    .save = blk_save,
    .load = blk_load,
    .destroy = blk_destroy,
};

/* ---- creation ---- */

static void fill_config(struct blk *b, const struct disk *d)
{
    uint32_t block = disk_block_size(d);

    b->config = (struct blk_config){ .capacity = disk_size(d) / BLK_SECTOR,
        .seg_max = SEG_MAX,
        .blk_size = block,
        .num_queues = 1,
        .max_discard_sectors = BLK_DISCARD_SECTORS,
        .max_discard_seg = BLK_RANGES,
        .discard_sector_alignment = block > 4096 ? block / BLK_SECTOR : 8,
        .max_write_zeroes_sectors = BLK_ZERO_SECTORS,
        .max_write_zeroes_seg = BLK_ZERO_RANGES,
        .write_zeroes_may_unmap = 1 };
}

static int check_disk(const struct blk *b, const struct disk *d, struct err *e)
{
    uint32_t block = disk_block_size(d);

    if (block < BLK_SECTOR || block % BLK_SECTOR != 0)
        return err_set(e, ERR_UNSUPPORTED, "disk %s: blocks of %u bytes", b->source, block);
    return 0;
}

static enum lease_claim claim_of(enum hv_proof proof)
{
    return proof == HV_PROOF_CLUSTER ? LEASE_CLUSTER
           : proof == HV_PROOF_WORD  ? LEASE_PROVEN
                                     : LEASE_FREE;
}

/* Opens, or for the file of an incoming domain only looks; takes or prepares the lease. */
static int attach(struct blk *b, struct err *e)
{
    const struct machine_storage *s = machine_storage(b->v.d.m);
    bool later = b->incoming && !b->network;
    struct disk *d = NULL;
    int r = later ? look_at_file(b, &d, e) : open_disk(b, e);

    if (r == 0)
        r = check_disk(b, later ? d : b->disk, e);
    if (r == 0)
        fill_config(b, later ? d : b->disk);
    if (d != NULL)
        disk_close(&d);
    if (r < 0 || later || !wants_lease(b))
        return r;
    if (b->incoming)
        return prepare_lease(b, LEASE_HANDOVER, e);
    if (prepare_lease(b, claim_of(s->proof), e) < 0)
        return -1;
    return take_lease(b, machine_epoch(b->v.d.m), claim_of(s->proof), e);
}

static void set_options(struct blk *b)
{
    const struct machine_storage *s = machine_storage(b->v.d.m);

    b->io_timeout_ms = s->io_timeout_ms != 0 ? s->io_timeout_ms : DISK_TIMEOUT_MS;
    b->options = (struct disk_options){ .read_only = b->read_only,
        .host = s->host,
        .initiator = s->initiator,
        .secrets = s->secrets[0] != '\0' ? s->secrets : NULL,
        .timeout_ms = b->io_timeout_ms < DISK_TIMEOUT_MS ? b->io_timeout_ms : DISK_TIMEOUT_MS,
        .event = blk_disk_event,
        .event_arg = b,
        .may_send = blk_may_send };
}

static Migrd__OnIoError policy_of(const Migrd__Disk *disk, bool network)
{
    if (disk->on_io_error != MIGRD__ON_IO_ERROR__IO_DEFAULT)
        return disk->on_io_error;
    return network ? MIGRD__ON_IO_ERROR__IO_STOP : MIGRD__ON_IO_ERROR__IO_REPORT;
}

static int fill_in(struct blk *b, const Migrd__Disk *disk, struct err *e)
{
    char path[STORAGE_SOURCE_MAX + 1];

    if (storage_path(disk, path, sizeof path, e) < 0)
        return -1;
    b->read_only = disk->read_only;
    b->policy = policy_of(disk, b->network);
    b->source = strdup(path);
    b->device = strdup(disk->device[0] != '\0' ? disk->device : b->v.name);
    b->pool = calloc(BLK_REQUESTS, sizeof *b->pool);
    if (b->source == NULL || b->device == NULL || b->pool == NULL)
        return err_set(e, ERR_MEMORY, "disk %s: out of memory", disk->source);
    memcpy(b->id, disk->serial, strnlen(disk->serial, sizeof b->id));
    set_options(b);
    return 0;
}

int virtio_blk_create(
    struct machine *m, unsigned slot, const Migrd__Disk *disk, bool incoming, struct err *e)
{
    uint64_t features = FEATURE_SEG_MAX | FEATURE_BLK_SIZE | FEATURE_FLUSH;
    struct blk *b = calloc(1, sizeof *b);

    if (b == NULL)
        return err_set(e, ERR_MEMORY, "disk %s: out of memory", disk->source);
    features |= disk->read_only ? FEATURE_RO : FEATURE_DISCARD | FEATURE_WRITE_ZEROES;
    b->ops = blk_ops;
    b->network = storage_url_is_network(disk->source);
    if (b->network)
        b->ops.workers = 0;
    b->incoming = incoming;
    virtio_init(&b->v, &b->ops, m, slot, "blk", slot, features);
    pthread_mutex_init(&b->abort_lock, NULL);
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->cond, NULL);
    if (fill_in(b, disk, e) < 0 || ((b->network || wants_lease(b)) && blk_guard_start(b, e) < 0) ||
        attach(b, e) < 0) {
        virtio_dispose(&b->v);
        return -1;
    }
    if (b->network) {
        disk_set_feed(b->disk, feed, &b->v);
        b->kick_event = virtio_kick_event(&b->v, 0, disk_poke_fd(b->disk), true);
    }
    return virtio_add(&b->v, e);
}

static void take_stats(struct blk *b, struct hv_disk_stats *s)
{
    memset(s, 0, sizeof *s);
    snprintf(s->device, sizeof s->device, "%s", b->device);
    snprintf(s->source, sizeof s->source, "%s", b->source);
    s->rd_ops = atomic_load(&b->count.rd_ops);
    s->rd_bytes = atomic_load(&b->count.rd_bytes);
    s->wr_ops = atomic_load(&b->count.wr_ops);
    s->wr_bytes = atomic_load(&b->count.wr_bytes);
    s->flush_ops = atomic_load(&b->count.flush_ops);
    s->errors = atomic_load(&b->count.errors);
}

unsigned virtio_blk_stats(const struct machine *m, struct hv_disk_stats *out, unsigned max)
{
    unsigned n = virtio_count(m, VIRTIO_BLK), at = n;

    for (struct virtio *v = virtio_find(m, VIRTIO_BLK, NULL); v != NULL && at > 0;
         v = virtio_find(m, VIRTIO_BLK, v))
        if (--at < max)
            take_stats(blk_of(v), &out[at]);
    return n < max ? n : max;
}
