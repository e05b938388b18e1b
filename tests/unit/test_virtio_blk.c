/* SPDX-License-Identifier: ISC */
/*
 * The block device on a disk that does as it is told: a fake in place of storage-check's
 * disks and leases, with a thread that ends requests, holds them back, fails them, or
 * says that its server is gone. What must hold: no request is lost or done twice for the
 * guest, what waits is kept across pauses and moves, and the guest stops and goes on when
 * the policy says so.
 */
#define _GNU_SOURCE
#include "tests/unit/virtio_guest.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "storage-check/disk.h"
#include "storage-check/lease.h"

#define DISK_BYTES 65536u
#define TIMEOUT_MS 150

/* ---- the fake disk: one for all, as a server's would be; and a lease ---- */

struct disk {
    struct disk_options o;
    bool network, end, poked, feeding;
    void (*feed)(void *arg);
    void *feed_arg;
    pthread_t thread;
    struct disk_io *first, *last; /* under fake.lock; each is one sector for the guest */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    uint8_t data[DISK_BYTES];
    bool stalled;    /* requests wait */
    int error;       /* of the next requests */
    unsigned errors; /* how many */
    unsigned writes, aborts, opens, closes;
    struct disk *disk; /* opened last */
    struct disk_mark mark, expected;
    /* lease */
    bool unsure;
    const char *refuse; /* lease_take fails with that */
    struct lease_wish wish;
    unsigned prepared, taken, closed, released, drained;
    uint64_t epoch;
    enum lease_claim claim;
    bool yielded;
} fake = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

struct lease {
    uint64_t epoch;
};

static void copy(const struct disk_io *io, bool write)
{
    uint64_t at = io->offset;

    for (unsigned i = 0; i < io->n_iov; at += io->iov[i].iov_len, i++) {
        if (write)
            memcpy(fake.data + at, io->iov[i].iov_base, io->iov[i].iov_len);
        else
            memcpy(io->iov[i].iov_base, fake.data + at, io->iov[i].iov_len);
    }
    assert_int_equal(at - io->offset, io->len);
}

/* Under the lock. */
static int perform(const struct disk_io *io)
{
    if (fake.errors > 0) {
        fake.errors -= io->len <= 512; /* what was joined is tried one by one */
        return fake.error;
    }
    fake.writes += io->op == DISK_WRITE ? (unsigned)(io->len / 512) : 0;
    if (io->op == DISK_READ || io->op == DISK_WRITE)
        copy(io, io->op == DISK_WRITE);
    else if (io->op != DISK_FLUSH)
        memset(fake.data + io->offset, 0, io->len);
    return 0;
}

/* Under the lock, which is released meanwhile. */
static void be_fed(struct disk *d)
{
    void (*feed)(void *arg) = d->feed;
    void *arg = d->feed_arg;

    d->poked = false;
    d->feeding = true;
    pthread_mutex_unlock(&fake.lock);
    feed(arg);
    pthread_mutex_lock(&fake.lock);
    d->feeding = false;
    pthread_cond_broadcast(&fake.cond);
}

static void *disk_thread(void *arg)
{
    struct disk *d = arg;

    pthread_mutex_lock(&fake.lock);
    while (!d->end) {
        struct disk_io *io = fake.stalled ? NULL : d->first;
        int error;

        if (d->poked && d->feed != NULL) {
            be_fed(d);
            continue;
        }
        if (io == NULL) {
            pthread_cond_wait(&fake.cond, &fake.lock);
            continue;
        }
        d->first = io->next;
        error = perform(io);
        pthread_mutex_unlock(&fake.lock);
        io->done(io, error);
        pthread_mutex_lock(&fake.lock);
    }
    pthread_mutex_unlock(&fake.lock);
    return NULL;
}

int disk_open(const char *source, const struct disk_options *o, struct disk **out, struct err *e)
{
    struct disk *d = calloc(1, sizeof *d);

    (void)e;
    assert_non_null(d);
    d->o = *o;
    d->network = source[0] != '/';
    fake.disk = *out = d;
    fake.opens++;
    if (d->network)
        assert_int_equal(pthread_create(&d->thread, NULL, disk_thread, d), 0);
    return 0;
}

uint64_t disk_size(const struct disk *d)
{
    (void)d;
    return DISK_BYTES;
}

uint32_t disk_block_size(const struct disk *d)
{
    (void)d;
    return 512;
}

void disk_submit(struct disk *d, struct disk_io *io)
{
    int error;

    pthread_mutex_lock(&fake.lock);
    if (d->network) {
        io->next = NULL;
        *(d->first != NULL ? &d->last->next : &d->first) = io;
        d->last = io;
        pthread_cond_broadcast(&fake.cond);
        pthread_mutex_unlock(&fake.lock);
        return;
    }
    error = perform(io);
    pthread_mutex_unlock(&fake.lock);
    io->done(io, error);
}

void disk_set_feed(struct disk *d, void (*feed)(void *arg), void *arg)
{
    pthread_mutex_lock(&fake.lock);
    d->feed = feed;
    d->feed_arg = arg;
    while (feed == NULL && d->feeding)
        pthread_cond_wait(&fake.cond, &fake.lock);
    pthread_mutex_unlock(&fake.lock);
}

void disk_poke(struct disk *d)
{
    pthread_mutex_lock(&fake.lock);
    d->poked = true;
    pthread_cond_broadcast(&fake.cond);
    pthread_mutex_unlock(&fake.lock);
}

int disk_poke_fd(const struct disk *d)
{
    (void)d;
    return -1;
}

void disk_mark(struct disk *d, struct disk_mark *out)
{
    assert_true(d->network);
    *out = fake.mark;
}

void disk_expect(struct disk *d, const struct disk_mark *m)
{
    assert_true(d->network);
    fake.expected = *m;
}

void disk_abort(struct disk *d)
{
    struct disk_io *list;

    pthread_mutex_lock(&fake.lock);
    list = d->first;
    d->first = NULL;
    fake.aborts++;
    pthread_mutex_unlock(&fake.lock);
    while (list != NULL) {
        struct disk_io *io = list;

        list = io->next;
        io->done(io, ECANCELED);
    }
}

void disk_close(struct disk **d)
{
    pthread_mutex_lock(&fake.lock);
    (*d)->end = true;
    assert_null((*d)->first);
    pthread_cond_broadcast(&fake.cond);
    pthread_mutex_unlock(&fake.lock);
    if ((*d)->network)
        pthread_join((*d)->thread, NULL);
    free(*d);
    *d = NULL;
    fake.closes++;
}

int lease_prepare(const struct lease_wish *w, struct disk *d, struct lease **out, struct err *e)
{
    (void)e;
    assert_non_null(d);
    fake.wish = *w;
    fake.prepared++;
    *out = calloc(1, sizeof **out);
    return 0;
}

int lease_take(struct lease *l, uint64_t epoch, enum lease_claim claim, struct err *e)
{
    if (fake.refuse != NULL)
        return err_set(e, ERR_REFUSED, "%s", fake.refuse);
    fake.taken++;
    fake.yielded = false;
    l->epoch = fake.epoch = epoch;
    fake.claim = claim;
    return 0;
}

int lease_yield(struct lease *l, bool yielded, struct err *e)
{
    (void)l;
    if (fake.refuse != NULL)
        return err_set(e, ERR_EPOCH, "%s", fake.refuse);
    fake.yielded = yielded;
    return 0;
}

bool lease_sure(const struct lease *l)
{
    (void)l;
    return !__atomic_load_n(&fake.unsure, __ATOMIC_SEQ_CST);
}

void lease_drain(struct lease *l)
{
    (void)l;
    fake.drained++;
}

const char *lease_fence(const struct lease *l, char *note, size_t len)
{
    (void)l;
    snprintf(note, len, "it is a fake");
    return "";
}

void lease_close(struct lease **l, bool release)
{
    free(*l);
    *l = NULL;
    fake.closed++;
    fake.released += release;
}

static void stall(bool on)
{
    pthread_mutex_lock(&fake.lock);
    fake.stalled = on;
    pthread_cond_broadcast(&fake.cond);
    pthread_mutex_unlock(&fake.lock);
}

static void fail_next(unsigned n, int error)
{
    pthread_mutex_lock(&fake.lock);
    fake.errors = n;
    fake.error = error;
    pthread_mutex_unlock(&fake.lock);
}

static void set_unsure(bool on)
{
    __atomic_store_n(&fake.unsure, on, __ATOMIC_SEQ_CST);
}

static unsigned writes(void)
{
    unsigned n;

    pthread_mutex_lock(&fake.lock);
    n = fake.writes;
    pthread_mutex_unlock(&fake.lock);
    return n;
}

/* Requests of a sector each that the disk has not ended. */
static unsigned waiting(void)
{
    unsigned n = 0;

    pthread_mutex_lock(&fake.lock);
    for (const struct disk_io *io = fake.disk->first; io != NULL; io = io->next)
        n += io->op == DISK_FLUSH ? 1 : (unsigned)(io->len / 512);
    pthread_mutex_unlock(&fake.lock);
    return n;
}

static uint64_t first_len(void)
{
    uint64_t len;

    pthread_mutex_lock(&fake.lock);
    len = fake.disk->first->len;
    pthread_mutex_unlock(&fake.lock);
    return len;
}

/* ---- the guest ---- */

struct set_up {
    Migrd__OnIoError policy;
    bool file, incoming, leases, read_only;
};

static int add(struct machine *m, const struct set_up *s, struct err *e)
{
    Migrd__Disk disk = MIGRD__DISK__INIT;

    disk.source = (char *)(uintptr_t)(s->file ? "/disk" : "nfs://server/export/disk");
    disk.device = (char *)(uintptr_t) "vda";
    disk.on_io_error = s->policy;
    disk.read_only = s->read_only;
    m->storage.io_timeout_ms = TIMEOUT_MS;
    m->storage.leases = s->leases;
    return virtio_blk_create(m, 0, &disk, s->incoming, e);
}

static struct guest guest_of(const struct set_up *s)
{
    struct guest g = { .m = fake_new(), .queues = 1 };
    struct err e;

    assert_int_equal(add(g.m, s, &e), 0);
    g.d = g.m->dev[0];
    if (!s->incoming)
        drive(&g, F_VERSION_1 | F_INDIRECT);
    return g;
}

static struct guest new_guest(Migrd__OnIoError policy)
{
    const struct set_up s = { .policy = policy };

    return guest_of(&s);
}

static int setup(void **state)
{
    (void)state;
    fake.stalled = fake.unsure = false;
    fake.errors = fake.writes = fake.aborts = fake.opens = fake.closes = 0;
    fake.prepared = fake.taken = fake.closed = fake.released = fake.drained = 0;
    fake.epoch = 0;
    fake.refuse = NULL;
    fake.mark = fake.expected = (struct disk_mark){ .owed = false };
    memset(fake.data, 0, sizeof fake.data);
    return 0;
}

/* Request i of the ring, by an indirect table: one sector at sector i. */
static void ask(struct guest *g, uint16_t i, uint32_t type, uint8_t fill)
{
    uint8_t *ram = g->m->ram;
    uint64_t table = DATA + i * 0x1000u, sector = i;

    memset(ram + table, 0, 0x1000);
    memcpy(ram + table + 256, &type, 4);
    memcpy(ram + table + 264, &sector, 8);
    ram[table + 512] = 0xee;
    memset(ram + table + 1024, fill, 512);
    set_desc(g, table, 0, table + 256, 16, D_NEXT, 1);
    set_desc(g, table, 1, table + 1024, 512, type == 1 ? D_NEXT : D_NEXT | D_WRITE, 2);
    set_desc(g, table, 2, table + 512, 1, D_WRITE, 0);
    set_desc(g, DESC, i, table, 48, D_INDIRECT, 0);
    offer(g, 0, i);
}

static uint8_t status_of(const struct guest *g, unsigned i)
{
    return __atomic_load_n(&g->m->ram[DATA + i * 0x1000u + 512], __ATOMIC_SEQ_CST);
}

static void go(struct guest *g)
{
    g->d->ops->start(g->d);
    out32(g, 0x50, 0);
}

static unsigned used(struct guest *g)
{
    return get16(g, USED + 2);
}

#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        for (int wait_i = 0; wait_i < 50000 && !(condition); wait_i++)                             \
            usleep(100);                                                                           \
        assert_true(condition);                                                                    \
    } while (0)

static const struct machine_hold *hold_of(struct guest *g)
{
    const struct machine_hold *h = __atomic_load_n(&g->m->hold, __ATOMIC_SEQ_CST);

    assert_non_null(h);
    return h;
}

/* As machine_pause does. */
static void pause_for(struct guest *g, unsigned ms)
{
    g->m->undrained = g->m->unflushed = NULL;
    g->m->drain_until_ns = clock_ns() + ms * NS_PER_MS;
    g->d->ops->quiesce(g->d);
    g->m->drain_until_ns = 0;
}

static int unpause(struct guest *g, struct err *e)
{
    if (virtio_blk_claim(g->m, g->m->epoch, false, e) < 0)
        return -1;
    g->d->ops->start(g->d);
    return 0;
}

/* ---- in flight ---- */

static void test_async(void **state)
{
    struct guest g = new_guest(MIGRD__ON_IO_ERROR__IO_DEFAULT);

    (void)state;
    for (unsigned round = 0; round < 50; round++) {
        bool write = round % 2 == 0;

        for (uint16_t i = 0; i < QUEUE_SIZE; i++)
            ask(&g, i, write, write ? (uint8_t)(round + i) : 0);
        fake_clean(g.m);
        assert_true(run(&g, 0));
        fake_check_dirty(g.m);
        for (unsigned i = 0; i < QUEUE_SIZE; i++) {
            assert_int_equal(status_of(&g, i), 0);
            assert_int_equal(g.m->ram[DATA + i * 0x1000 + 1024 + 511],
                (uint8_t)((write ? round : round - 1) + i));
        }
    }
    assert_int_equal(writes(), 25 * QUEUE_SIZE);
    assert_int_equal(fake.aborts, 0);
    fake_free(&g.m);
    assert_int_equal(fake.closes, 1);
}

/* A running guest whose disk is slow is not paused, and nothing is lost by the attempt. */
static void test_slow(void **state)
{
    struct guest g = new_guest(MIGRD__ON_IO_ERROR__IO_DEFAULT);

    (void)state;
    stall(true);
    for (uint16_t i = 0; i < 4; i++)
        ask(&g, i, 1, 7);
    go(&g);
    WAIT_FOR(waiting() == 4);
    pause_for(&g, 30);
    assert_string_equal(g.m->undrained, g.d->ops->name);
    stall(false);
    WAIT_FOR(used(&g) == 4);
    pause_for(&g, 5000);
    assert_null(g.m->undrained);
    assert_int_equal(writes(), 4);
    assert_int_equal(fake.aborts, 0);
    fake_free(&g.m);
}

/* A flush that takes longer than the pause stays in flight, and the next pause waits for it. */
static void test_slow_flush(void **state)
{
    struct guest g = new_guest(MIGRD__ON_IO_ERROR__IO_DEFAULT);

    (void)state;
    ask(&g, 0, 1, 7);
    go(&g);
    WAIT_FOR(used(&g) == 1);
    stall(true);
    pause_for(&g, 30);
    assert_string_equal(g.m->undrained, g.d->ops->name);
    g.d->ops->start(g.d);
    pause_for(&g, 30);
    assert_string_equal(g.m->undrained, g.d->ops->name);
    stall(false);
    pause_for(&g, 5000);
    assert_null(g.m->undrained);
    g.d->ops->start(g.d);
    fail_next(1, EIO);
    ask(&g, 1, 1, 8);
    out32(&g, 0x50, 0);
    WAIT_FOR(machine_suspended(g.m)); /* the write failed: stop */
    fake_free(&g.m);
}

/* A reset with requests that nobody answers gives them up; the disk works afterwards. */
static void test_reset(void **state)
{
    struct guest g = new_guest(MIGRD__ON_IO_ERROR__IO_DEFAULT);

    (void)state;
    stall(true);
    ask(&g, 0, 1, 7);
    go(&g);
    WAIT_FOR(waiting() == 1);
    drive(&g, F_VERSION_1 | F_INDIRECT);
    assert_int_equal(fake.aborts, 1);
    assert_int_equal(used(&g), 0);
    stall(false);
    ask(&g, 0, 1, 9);
    out32(&g, 0x50, 0);
    WAIT_FOR(used(&g) == 1);
    assert_int_equal(fake.data[0], 9);
    assert_int_equal(writes(), 1);
    fake_free(&g.m);
}

static void test_too_many(void **state)
{
    struct guest g = new_guest(MIGRD__ON_IO_ERROR__IO_DEFAULT);

    (void)state;
    stall(true);
    g.d->ops->start(g.d);
    ask(&g, 0, 1, 7);
    for (unsigned i = 0; i < 300 && (in32(&g, 0x70) & NEEDS_RESET) == 0; i++) {
        offer(&g, 0, 0); /* again and again, though it is in flight */
        out32(&g, 0x50, 0);
        usleep(300);
    }
    WAIT_FOR((in32(&g, 0x70) & NEEDS_RESET) != 0);
    stall(false);
    fake_free(&g.m);
}

/* ---- policies ---- */

static void test_report(void **state)
{
    struct guest g = new_guest(MIGRD__ON_IO_ERROR__IO_REPORT);

    (void)state;
    fail_next(1, EIO);
    ask(&g, 0, 1, 7);
    assert_true(run(&g, 0));
    assert_int_equal(status_of(&g, 0), 1);
    assert_false(machine_suspended(g.m));
    fake_free(&g.m);
}

static void test_ignore(void **state)
{
    struct guest g = new_guest(MIGRD__ON_IO_ERROR__IO_IGNORE);

    (void)state;
    fail_next(2, ENOSPC);
    ask(&g, 0, 1, 7);
    ask(&g, 1, 0, 0x55);
    fake_clean(g.m);
    assert_true(run(&g, 0));
    fake_check_dirty(g.m);
    assert_int_equal(status_of(&g, 0), 0);
    assert_int_equal(status_of(&g, 1), 0);
    assert_int_equal(g.m->ram[DATA + 0x1000 + 1024], 0);
    assert_false(machine_suspended(g.m));
    fake_free(&g.m);
}

static void test_file_reports(void **state)
{
    const struct set_up s = { .file = true };
    struct guest g = guest_of(&s);

    (void)state;
    fail_next(1, EIO);
    ask(&g, 0, 1, 7);
    assert_true(run(&g, 0));
    assert_int_equal(status_of(&g, 0), 1);
    assert_false(machine_suspended(g.m));
    fake_free(&g.m);
}

/* Done again it would look like success. */
static void test_writes_lost(void **state)
{
    struct guest g = new_guest(MIGRD__ON_IO_ERROR__IO_STOP);

    (void)state;
    fail_next(1, DISK_WRITES_LOST);
    ask(&g, 0, 4, 0);
    assert_true(run(&g, 0));
    assert_int_equal(status_of(&g, 0), 1);
    assert_false(machine_suspended(g.m));
    fake_free(&g.m);
}

static void test_stop(void **state)
{
    struct guest g = new_guest(MIGRD__ON_IO_ERROR__IO_STOP);
    struct err e;

    (void)state;
    fail_next(2, ENOSPC);
    for (uint16_t i = 0; i < 3; i++)
        ask(&g, i, 1, (uint8_t)(i + 1));
    go(&g);
    WAIT_FOR(machine_suspended(g.m) && used(&g) == 1);
    assert_int_equal(hold_of(&g)->kind, HOLD_RETRY);
    assert_non_null(strstr(hold_of(&g)->text, "No space left"));
    assert_int_equal(virtio_blk_claim(g.m, g.m->epoch, false, &e), 0); /* unpause */
    WAIT_FOR(used(&g) == 3);
    assert_false(machine_suspended(g.m));
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(status_of(&g, i), 0);
        assert_int_equal(fake.data[i * 512], i + 1);
    }
    assert_int_equal(writes(), 3);
    fake_free(&g.m);
}

/* What lies one behind the other goes to the disk as one. */
static void test_joined(void **state)
{
    struct guest g = new_guest(MIGRD__ON_IO_ERROR__IO_REPORT);

    (void)state;
    stall(true);
    for (uint16_t i = 0; i < 4; i++)
        ask(&g, i, 1, (uint8_t)(i + 1));
    ask(&g, 6, 1, 7);
    go(&g);
    WAIT_FOR(waiting() == 5);
    assert_int_equal(first_len(), 4 * 512);
    stall(false);
    WAIT_FOR(used(&g) == 5);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(fake.data[i * 512 + 511], i + 1);
    assert_int_equal(fake.data[6 * 512], 7);
    fail_next(1, EIO);
    for (uint16_t i = 0; i < 3; i++)
        ask(&g, i, 0, 0);
    go(&g);
    WAIT_FOR(used(&g) == 8);
    assert_int_equal(status_of(&g, 0), 1);
    for (unsigned i = 1; i < 3; i++) {
        assert_int_equal(status_of(&g, i), 0);
        assert_int_equal(g.m->ram[DATA + i * 0x1000u + 1024], i + 1);
    }
    fake_free(&g.m);
}

/* Without sleeping: what comes next comes at once. */
static void wait_used(struct guest *g, uint16_t n)
{
    uint64_t until = clock_ns() + 10 * NS_PER_S;

    while (used(g) != n && clock_ns() < until)
        sched_yield();
    assert_int_equal(used(g), n);
}

/* One request after the other, by a driver that notifies only where it is asked to: none is
 * overlooked, whether the next one comes at once, or after the device stopped looking out for it.
 */
static void test_one_by_one(void **state)
{
    const uint64_t avail_event = USED + 4 + 8 * QUEUE_SIZE;
    struct guest g = { .m = fake_new(), .queues = 1 };
    const struct set_up s = { .policy = MIGRD__ON_IO_ERROR__IO_REPORT };
    struct err e;

    (void)state;
    assert_int_equal(add(g.m, &s, &e), 0);
    g.d = g.m->dev[0];
    drive(&g, F_VERSION_1 | F_INDIRECT | F_EVENT_IDX);
    g.d->ops->start(g.d);
    for (unsigned n = 1; n <= 3000; n++) {
        uint16_t old = g.avail[0];

        if (n % 16 == 0)
            usleep(n % 64);
        ask(&g, n % QUEUE_SIZE, 1, (uint8_t)n);
        if (get16(&g, avail_event) == old)
            out32(&g, 0x50, 0);
        wait_used(&g, (uint16_t)n);
        assert_int_equal(status_of(&g, n % QUEUE_SIZE), 0);
        if (n % 500 == 0) {
            quiet(&g);
            g.d->ops->start(g.d);
        }
    }
    assert_int_equal(writes(), 3000);
    fake_free(&g.m);
}

static void lost(bool gone)
{
    fake.disk->o.event(fake.disk->o.event_arg, gone ? DISK_LOST : DISK_BACK, "says the fake");
}

/* The default of network disks: requests wait, the guest stops after a while, and goes on. */
static void test_server_gone(void **state)
{
    struct guest g = new_guest(MIGRD__ON_IO_ERROR__IO_DEFAULT);
    uint64_t began;

    (void)state;
    stall(true);
    lost(true);
    g.d->ops->start(g.d);
    usleep(2 * TIMEOUT_MS * 1000); /* nobody waits for the disk: no reason to stop */
    assert_false(machine_suspended(g.m));
    ask(&g, 0, 1, 7);
    began = clock_ns();
    out32(&g, 0x50, 0);
    WAIT_FOR(machine_suspended(g.m));
    assert_true(clock_ns() - began >= TIMEOUT_MS * NS_PER_MS);
    assert_int_equal(hold_of(&g)->kind, HOLD_WAIT);
    assert_int_equal(used(&g), 0);
    lost(false);
    assert_false(machine_suspended(g.m));
    stall(false);
    WAIT_FOR(used(&g) == 1);
    assert_int_equal(status_of(&g, 0), 0);
    assert_int_equal(fake.aborts, 0);
    fake_free(&g.m);
}

static void test_server_gone_report(void **state)
{
    struct guest g = new_guest(MIGRD__ON_IO_ERROR__IO_REPORT);

    (void)state;
    stall(true);
    lost(true);
    ask(&g, 0, 1, 7);
    go(&g);
    WAIT_FOR(used(&g) == 1);
    assert_int_equal(status_of(&g, 0), 1);
    assert_false(machine_suspended(g.m));
    ask(&g, 1, 1, 7);
    out32(&g, 0x50, 0);
    WAIT_FOR(used(&g) == 2);
    assert_int_equal(status_of(&g, 1), 1);
    stall(false);
    lost(false);
    ask(&g, 2, 1, 7);
    out32(&g, 0x50, 0);
    WAIT_FOR(used(&g) == 3);
    assert_int_equal(status_of(&g, 2), 0);
    assert_int_equal(writes(), 1);
    fake_free(&g.m);
}

/* ---- moves with requests in flight ---- */

/* Paused while it stands still for its server, the guest takes what was in flight along. */
static void test_move_in_flight(void **state)
{
    struct guest a = new_guest(MIGRD__ON_IO_ERROR__IO_DEFAULT), b;
    const struct set_up s = { .incoming = true };
    struct err e;

    (void)state;
    stall(true);
    lost(true);
    for (uint16_t i = 0; i < 5; i++)
        ask(&a, i, 1, (uint8_t)(i + 1));
    go(&a);
    WAIT_FOR(machine_suspended(a.m));
    fake_clean(a.m);
    pause_for(&a, 50);
    fake_check_dirty(a.m);
    assert_null(a.m->undrained);
    assert_int_equal(fake.aborts, 1);
    assert_int_equal(used(&a), 0);
    assert_int_equal(writes(), 0);
    stall(false);
    b = guest_of(&s);
    assert_int_equal(fake_move(a.m, b.m, &e), 0);
    b.avail[0] = a.avail[0];
    assert_int_equal(writes(), 0);
    assert_int_equal(unpause(&b, &e), 0);
    WAIT_FOR(used(&b) == 5);
    assert_int_equal(writes(), 5);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(status_of(&b, i), 0);
        assert_int_equal(fake.data[i * 512], i + 1);
    }
    fake_free(&a.m);
    fake_free(&b.m);
}

/* The flush of such a pause could not be done; the one that comes next, on the target, counts. */
static void test_move_unflushed(void **state)
{
    struct guest a = new_guest(MIGRD__ON_IO_ERROR__IO_DEFAULT), b;
    const struct set_up s = { .incoming = true };
    struct err e;

    (void)state;
    ask(&a, 0, 1, 1);
    go(&a);
    WAIT_FOR(used(&a) == 1);
    stall(true);
    lost(true);
    ask(&a, 1, 1, 2);
    out32(&a, 0x50, 0);
    WAIT_FOR(machine_suspended(a.m));
    pause_for(&a, 50);
    assert_null(a.m->undrained);
    stall(false);
    b = guest_of(&s);
    assert_int_equal(fake_move(a.m, b.m, &e), 0);
    b.avail[0] = a.avail[0];
    assert_int_equal(unpause(&b, &e), 0);
    WAIT_FOR(used(&b) == 2);
    assert_int_equal(status_of(&b, 1), 0);
    ask(&b, 2, 4, 0);
    out32(&b, 0x50, 0);
    WAIT_FOR(used(&b) == 3);
    assert_int_equal(status_of(&b, 2), 0);
    fake_free(&a.m);
    fake_free(&b.m);
}

/* The same, but it stays here. */
static void test_stay_in_flight(void **state)
{
    struct guest a = new_guest(MIGRD__ON_IO_ERROR__IO_DEFAULT);
    struct err e;

    (void)state;
    stall(true);
    lost(true);
    ask(&a, 0, 1, 1);
    go(&a);
    WAIT_FOR(machine_suspended(a.m));
    pause_for(&a, 50);
    assert_null(a.m->undrained);
    assert_int_equal(unpause(&a, &e), 0);
    assert_int_equal(hold_of(&a)->kind, HOLD_WAIT); /* as long as there is no answer */
    stall(false);
    WAIT_FOR(used(&a) == 1);
    lost(false);
    assert_false(machine_suspended(a.m));
    assert_int_equal(writes(), 1);
    fake_free(&a.m);
}

static uint32_t saved_version(struct guest *g, uint8_t **blob, size_t *len)
{
    struct state_writer w;
    struct state_blob *b;
    struct state_reader r;
    struct err e;
    uint32_t version;

    state_writer_init(&w);
    assert_int_equal(g->d->ops->save(g->d, &w, &e), 0);
    assert_int_equal(state_finish(&w, blob, len, &e), 0);
    assert_int_equal(state_parse(*blob, *len, &b, &e), 0);
    assert_int_equal(state_open(b, g->d->ops->name, &r, &e), 0);
    version = r.version;
    state_blob_free(&b);
    return version;
}

static int load_into(struct guest *g, const uint8_t *blob, size_t len, struct err *e)
{
    struct state_blob *b;
    struct state_reader r;
    int rc;

    assert_int_equal(state_parse(blob, len, &b, e), 0);
    assert_int_equal(state_open(b, g->d->ops->name, &r, e), 0);
    rc = g->d->ops->load(g->d, &r, e);
    state_blob_free(&b);
    return rc;
}

/* The target's disk hears what the source's was told and did not flush; what is gone already, the
 * guest's next flush hears of. */
static void test_mark(void **state)
{
    struct guest a = new_guest(MIGRD__ON_IO_ERROR__IO_DEFAULT), b;
    const struct set_up s = { .incoming = true };
    struct err e;
    uint8_t *blob;
    size_t len;

    (void)state;
    fake.mark = (struct disk_mark){ .owed = true, .server = "abcdefg" };
    b = guest_of(&s);
    pause_for(&a, 50);
    assert_int_equal(saved_version(&a, &blob, &len), 3);
    assert_int_equal(load_into(&b, blob, len, &e), 0);
    assert_true(fake.expected.owed);
    assert_memory_equal(fake.expected.server, fake.mark.server, DISK_MARK_LEN);
    free(blob);
    fake.mark = (struct disk_mark){ .lost = true };
    assert_int_equal(fake_move(a.m, b.m, &e), 0);
    ask(&b, 0, 4, 0);
    assert_int_equal(unpause(&b, &e), 0);
    WAIT_FOR(used(&b) == 1);
    assert_int_equal(status_of(&b, 0), 1);
    ask(&b, 0, 4, 0);
    out32(&b, 0x50, 0);
    WAIT_FOR(used(&b) == 2);
    assert_int_equal(status_of(&b, 0), 0);
    fake_free(&a.m);
    fake_free(&b.m);
}

/* Without what came with version 2: the last 8 bytes, as no request waits. */
static void make_version_1(uint8_t *blob, size_t *len)
{
    const size_t head = 12 + 2 + strlen("virtio-blk0");
    uint32_t body;

    blob[head] = 1;
    memcpy(&body, blob + head + 4, sizeof body);
    body -= 8;
    memcpy(blob + head + 4, &body, sizeof body);
    *len -= 8;
}

static void test_state_versions(void **state)
{
    struct guest a = new_guest(MIGRD__ON_IO_ERROR__IO_DEFAULT), b;
    const struct set_up s = { .incoming = true };
    struct err e;
    uint8_t *blob;
    size_t len;

    (void)state;
    b = guest_of(&s);
    pause_for(&a, 50);
    assert_int_equal(saved_version(&a, &blob, &len), 3);
    assert_int_equal(load_into(&b, blob, len, &e), 0);
    make_version_1(blob, &len);
    assert_int_equal(load_into(&b, blob, len, &e), 0);
    free(blob);
    fail_next(1, EIO);
    ask(&a, 3, 1, 1);
    go(&a);
    WAIT_FOR(machine_suspended(a.m));
    pause_for(&a, 50);
    assert_null(a.m->undrained);
    assert_int_equal(saved_version(&a, &blob, &len), 3);
    memcpy(b.m->ram, a.m->ram, FAKE_RAM);
    assert_int_equal(load_into(&b, blob, len, &e), 0);
    for (unsigned at = 1; at <= 12; at++) { /* flags, number, head */
        uint8_t *p = blob + len - at, was = *p;

        if (at == 4) /* any number below the ring's largest may be a head */
            continue;
        *p = 0xff;
        assert_int_equal(load_into(&b, blob, len, &e), -1);
        *p = was;
    }
    free(blob);
    fake_free(&a.m);
    fake_free(&b.m);
}

/* ---- leases ---- */

static void test_lease_boot(void **state)
{
    const struct set_up s = { .leases = true }, ro = { .leases = true, .read_only = true };
    struct machine *m = fake_new();
    struct err e;

    (void)state;
    fake.refuse = "host b is alive";
    assert_int_equal(add(m, &s, &e), -1);
    assert_string_equal(e.text, "host b is alive");
    assert_int_equal(fake.opens, fake.closes);
    assert_int_equal(fake.prepared, fake.closed);
    fake.refuse = NULL;
    m->epoch = 7;
    assert_int_equal(add(m, &s, &e), 0);
    assert_int_equal(fake.epoch, 7);
    assert_int_equal(fake.claim, LEASE_FREE);
    assert_int_equal(virtio_blk_claim(m, 7, false, &e), 0);
    assert_int_equal(fake.taken, 1);
    assert_int_equal(virtio_blk_claim(m, 9, false, &e), 0); /* taken back after a hand-over */
    assert_int_equal(fake.epoch, 9);
    assert_int_equal(fake.claim, LEASE_HANDOVER);
    assert_int_equal(virtio_blk_yield(m, &e), 0);
    assert_true(fake.yielded);
    assert_int_equal(virtio_blk_claim(m, 9, false, &e), 0); /* runs here again, under its epoch */
    assert_false(fake.yielded);
    assert_int_equal(virtio_blk_yield(m, &e), 0);
    fake.refuse = "host b took it";
    assert_int_equal(virtio_blk_claim(m, 9, false, &e), -1);
    fake.refuse = NULL;
    assert_int_equal(virtio_blk_claim(m, 11, true, &e), 0); /* an operator decided */
    assert_int_equal(fake.claim, LEASE_PROVEN);
    assert_false(fake.yielded);
    fake_free(&m);
    m = fake_new();
    m->storage.proof = HV_PROOF_WORD;
    assert_int_equal(add(m, &s, &e), 0);
    assert_int_equal(fake.claim, LEASE_PROVEN);
    fake_free(&m);
    m = fake_new();
    m->storage.proof = HV_PROOF_CLUSTER;
    assert_int_equal(add(m, &s, &e), 0);
    assert_int_equal(fake.claim, LEASE_CLUSTER);
    assert_int_equal(fake.drained, 0);
    virtio_blk_drain(m);
    assert_int_equal(fake.drained, 1);
    fake_free(&m);
    assert_int_equal(fake.prepared, fake.closed);
    m = fake_new();
    fake.prepared = 0;
    assert_int_equal(add(m, &ro, &e), 0);
    assert_int_equal(fake.prepared, 0);
    fake_free(&m);
}

static void test_lease_incoming(void **state)
{
    struct guest a = new_guest(MIGRD__ON_IO_ERROR__IO_DEFAULT), b;
    const struct set_up s = { .leases = true, .incoming = true };
    struct err e;

    (void)state;
    b = guest_of(&s);
    assert_int_equal(fake.prepared, 1);
    assert_int_equal(fake.taken, 0);
    pause_for(&a, 50);
    ask(&a, 0, 1, 5);
    assert_int_equal(fake_move(a.m, b.m, &e), 0);
    b.avail[0] = a.avail[0];
    b.m->epoch = 2;
    fake.refuse = "the storage knows epoch 3";
    assert_int_equal(unpause(&b, &e), -1);
    assert_non_null(strstr(e.text, "epoch 3"));
    usleep(10000);
    assert_int_equal(writes(), 0);
    fake.refuse = NULL;
    assert_int_equal(unpause(&b, &e), 0);
    assert_int_equal(fake.epoch, 2);
    assert_int_equal(fake.claim, LEASE_HANDOVER);
    WAIT_FOR(used(&b) == 1);
    assert_int_equal(writes(), 1);
    fake_free(&a.m);
    fake_free(&b.m);
}

static void test_lease_unsure(void **state)
{
    const struct set_up s = { .leases = true, .policy = MIGRD__ON_IO_ERROR__IO_REPORT };
    struct guest g = guest_of(&s);

    (void)state;
    set_unsure(true);
    fake.wish.sure(fake.wish.arg, false, "it was not renewed"); /* the guest need not write */
    assert_int_equal(hold_of(&g)->kind, HOLD_WAIT);
    assert_non_null(strstr(hold_of(&g)->text, "lease"));
    ask(&g, 0, 1, 5);
    ask(&g, 1, 0, 0x55);
    ask(&g, 2, 1, 6);
    go(&g);
    usleep(30000);
    assert_int_equal(used(&g), 0); /* nothing may make the disk connect again */
    assert_int_equal(waiting(), 0);
    assert_int_equal(writes(), 0);
    assert_int_equal(hold_of(&g)->kind, HOLD_WAIT);
    set_unsure(false); /* nobody tells: it is looked at */
    WAIT_FOR(used(&g) == 3);
    assert_false(machine_suspended(g.m));
    assert_int_equal(writes(), 2);
    fake_free(&g.m);
}

/* The lease gives up what is in flight when it is not sure: that is kept, too. */
static void test_lease_aborts(void **state)
{
    const struct set_up s = { .leases = true };
    struct guest g = guest_of(&s);

    (void)state;
    stall(true);
    for (uint16_t i = 0; i < 4; i++)
        ask(&g, i, i % 2, 5);
    go(&g);
    WAIT_FOR(waiting() == 4);
    set_unsure(true);
    disk_abort(fake.disk);
    assert_int_equal(hold_of(&g)->kind, HOLD_WAIT);
    stall(false);
    set_unsure(false);
    WAIT_FOR(used(&g) == 4);
    assert_false(machine_suspended(g.m));
    assert_int_equal(writes(), 2);
    fake_free(&g.m);
}

static void test_lease_lost(void **state)
{
    const struct set_up s = { .leases = true };
    struct guest g = guest_of(&s);
    struct err e;

    (void)state;
    g.d->ops->start(g.d);
    set_unsure(true);
    fake.wish.lost(fake.wish.arg, "host b has it under epoch 2");
    assert_int_equal(hold_of(&g)->kind, HOLD_LOST);
    ask(&g, 0, 1, 5);
    out32(&g, 0x50, 0);
    usleep(20000);
    assert_int_equal(virtio_blk_claim(g.m, 1, false, &e), -1);
    assert_non_null(strstr(e.text, "another host"));
    assert_int_equal(used(&g), 0);
    assert_int_equal(writes(), 0);
    fake.refuse = "the server does not answer";
    assert_int_equal(virtio_blk_claim(g.m, 3, false, &e), -1);
    usleep(30000);
    assert_int_equal(hold_of(&g)->kind, HOLD_LOST); /* nothing has changed */
    set_unsure(false);
    usleep(30000);
    assert_int_equal(hold_of(&g)->kind, HOLD_LOST);
    assert_int_equal(used(&g), 0);
    fake.refuse = NULL;
    assert_int_equal(virtio_blk_claim(g.m, 3, false, &e), 0); /* it was given back */
    assert_int_equal(fake.epoch, 3);
    assert_int_equal(fake.closed, 0);
    assert_false(machine_suspended(g.m));
    WAIT_FOR(used(&g) == 1);
    fake_free(&g.m);
}

/* ---- the fuse ---- */

static void set_blown(struct guest *g, bool on)
{
    __atomic_store_n(&g->m->blown, on, __ATOMIC_SEQ_CST);
    if (!on)
        virtio_blk_again(g->m);
}

/* Requests of a network disk that come after it, and those in flight, which its thread gives up:
 * nothing is told to the guest, all of it is done when it runs again. */
static void test_fuse(void **state)
{
    const struct set_up s = { .leases = true, .policy = MIGRD__ON_IO_ERROR__IO_REPORT };
    struct guest g = guest_of(&s);

    (void)state;
    stall(true);
    for (uint16_t i = 0; i < 4; i++)
        ask(&g, i, i % 2, 5);
    go(&g);
    WAIT_FOR(waiting() == 4);
    set_blown(&g, true);
    assert_false(fake.disk->o.may_send(fake.disk->o.event_arg));
    disk_abort(fake.disk);
    stall(false);
    ask(&g, 4, 1, 5);
    ask(&g, 5, 4, 0);
    out32(&g, 0x50, 0);
    usleep(30000);
    assert_int_equal(used(&g), 0);
    assert_int_equal(waiting(), 0);
    assert_int_equal(writes(), 0);
    assert_false(machine_suspended(g.m)); /* of the lease it is not: the hold is the fuse's own */
    set_blown(&g, false);
    WAIT_FOR(used(&g) == 6);
    assert_int_equal(writes(), 3);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(status_of(&g, i), 0);
    fake_free(&g.m);
}

static void test_fuse_file(void **state)
{
    const struct set_up s = { .file = true };
    struct guest g = guest_of(&s);

    (void)state;
    set_blown(&g, true);
    ask(&g, 0, 1, 5);
    ask(&g, 1, 0, 5);
    go(&g);
    WAIT_FOR(used(&g) == 1); /* a read harms nobody */
    usleep(20000);
    assert_int_equal(writes(), 0);
    set_blown(&g, false);
    WAIT_FOR(used(&g) == 2);
    assert_int_equal(writes(), 1);
    fake_free(&g.m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_async, setup),
        cmocka_unit_test_setup(test_slow, setup),
        cmocka_unit_test_setup(test_slow_flush, setup),
        cmocka_unit_test_setup(test_reset, setup),
        cmocka_unit_test_setup(test_too_many, setup),
        cmocka_unit_test_setup(test_report, setup),
        cmocka_unit_test_setup(test_ignore, setup),
        cmocka_unit_test_setup(test_file_reports, setup),
        cmocka_unit_test_setup(test_writes_lost, setup),
        cmocka_unit_test_setup(test_stop, setup),
        cmocka_unit_test_setup(test_joined, setup),
        cmocka_unit_test_setup(test_one_by_one, setup),
        cmocka_unit_test_setup(test_server_gone, setup),
        cmocka_unit_test_setup(test_server_gone_report, setup),
        cmocka_unit_test_setup(test_move_in_flight, setup),
        cmocka_unit_test_setup(test_move_unflushed, setup),
        cmocka_unit_test_setup(test_stay_in_flight, setup),
        cmocka_unit_test_setup(test_mark, setup),
        cmocka_unit_test_setup(test_state_versions, setup),
        cmocka_unit_test_setup(test_lease_boot, setup),
        cmocka_unit_test_setup(test_lease_incoming, setup),
        cmocka_unit_test_setup(test_lease_unsure, setup),
        cmocka_unit_test_setup(test_lease_aborts, setup),
        cmocka_unit_test_setup(test_lease_lost, setup),
        cmocka_unit_test_setup(test_fuse, setup),
        cmocka_unit_test_setup(test_fuse_file, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
