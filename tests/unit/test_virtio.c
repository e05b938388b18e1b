/* SPDX-License-Identifier: ISC */
/*
 * The virtio transport and its small devices, driven by a tiny guest driver in here:
 * the status machine, I/O on a disk image, suppression of interrupts, hostile rings of
 * every kind we could think of and of random ones, and the move to another machine.
 * Each time a device has worked, what it changed in memory must be marked dirty.
 */
#define _GNU_SOURCE
#include "tests/unit/virtio_guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define DISK_SECTORS 2048u

#define HANG_MS 3000

/* ---- disk ---- */

static char *disk_path(const struct machine *m)
{
    static char path[128];

    snprintf(path, sizeof path, "%s/disk", m->dir);
    return path;
}

static void make_disk(const struct machine *m, off_t size)
{
    int fd = open(disk_path(m), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

static int add_disk(struct machine *m, bool read_only, bool incoming, struct err *e)
{
    Migrd__Disk disk = MIGRD__DISK__INIT;

    disk.source = disk_path(m);
    disk.device = (char *)(uintptr_t) "vda";
    disk.serial = (char *)(uintptr_t) "serial-4711";
    disk.read_only = read_only;
    return virtio_blk_create(m, 0, &disk, incoming, e);
}

static struct guest blk_guest(bool read_only)
{
    struct guest g = { .m = fake_new(), .queues = 1 };
    struct err e;

    make_disk(g.m, DISK_SECTORS * 512);
    assert_int_equal(add_disk(g.m, read_only, false, &e), 0);
    g.d = g.m->dev[0];
    return g;
}

static void test_identity(void **state)
{
    struct guest g = blk_guest(false);

    (void)state;
    assert_int_equal(in32(&g, 0x00), 0x74726976);
    assert_int_equal(in32(&g, 0x04), 2);
    assert_int_equal(in32(&g, 0x08), 2);
    assert_int_equal(in32(&g, 0x34), 256);
    assert_int_equal(in32(&g, 0x100), DISK_SECTORS);
    assert_int_equal(g.d->base, 0xd0000000);
    assert_int_equal(g.d->irq, 5);
    out32(&g, 0x30, 1); /* there is no queue 1 */
    assert_int_equal(in32(&g, 0x34), 0);
    out32(&g, 0x14, 1);
    assert_int_equal(in32(&g, 0x10), 1);
    fake_free(&g.m);
}

static void test_status(void **state)
{
    struct guest g = blk_guest(false);

    (void)state;
    out32(&g, 0x70, 4); /* DRIVER_OK too early */
    assert_int_equal(in32(&g, 0x70), 0);
    out32(&g, 0x70, 3);
    out32(&g, 0x70, 11); /* no VERSION_1 */
    assert_int_equal(in32(&g, 0x70), 3);
    out32(&g, 0x24, 1);
    out32(&g, 0x20, 0x11); /* VERSION_1, and a bit that we do not offer */
    out32(&g, 0x70, 11);
    assert_int_equal(in32(&g, 0x70), 3);
    out32(&g, 0x20, 0x1);
    out32(&g, 0x70, 11);
    assert_int_equal(in32(&g, 0x70), 11);
    out32(&g, 0x20, 0x10); /* too late */
    drive(&g, F_VERSION_1);
    out32(&g, 0x70, 0);
    assert_int_equal(in32(&g, 0x70), 0);
    out32(&g, 0x30, 0);
    assert_int_equal(in32(&g, 0x44), 0);
    fake_free(&g.m);
}

static void test_disk(void **state)
{
    struct guest g = blk_guest(false);
    uint8_t *ram = g.m->ram, back[4096];
    int fd;

    (void)state;
    drive(&g, F_VERSION_1);
    for (unsigned i = 0; i < 4096; i++)
        ram[DATA + i] = (uint8_t)(i * 7 + i / 256);
    assert_int_equal(request(&g, 1, 8, DATA, 4096, false), 0);
    assert_int_equal(request(&g, 0, 8, DATA + 0x10000, 4096, true), 0);
    assert_memory_equal(ram + DATA, ram + DATA + 0x10000, 4096);
    assert_int_equal(request(&g, 4, 0, DATA, 0, false), 0);
    fd = open(disk_path(g.m), O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, back, sizeof back, 8 * 512), sizeof back);
    close(fd);
    assert_memory_equal(back, ram + DATA, 4096);
    assert_int_equal(request(&g, 8, 0, DATA, 20, true), 0);
    assert_string_equal((char *)ram + DATA, "serial-4711");
    assert_true(fake_edges(g.m, 5) > 0);
    assert_int_equal(in32(&g, 0x60), 1);
    out32(&g, 0x64, 1);
    assert_int_equal(in32(&g, 0x60), 0);
    fake_free(&g.m);
}

/* The process's first request of a disk hangs for a while, its first flush before a pause fails:
 * see main. */
static void test_disk_trouble(void **state)
{
    struct guest g = blk_guest(false);
    uint64_t began;

    (void)state;
    drive(&g, F_VERSION_1);
    memset(g.m->ram + DATA, 0, 16);
    set_desc(&g, DESC, 0, DATA, 16, 1, 1);
    set_desc(&g, DESC, 1, DATA + 0x1000, 513, 2, 0);
    offer(&g, 0, 0);
    g.d->ops->start(g.d);
    out32(&g, 0x50, 0);
    usleep(20000);
    began = clock_ns();
    g.m->drain_until_ns = began + 50 * NS_PER_MS;
    quiet(&g);
    assert_string_equal(g.m->undrained, g.d->ops->name);
    assert_true(clock_ns() - began < HANG_MS * NS_PER_MS);
    g.d->ops->start(g.d); /* as if nothing had been: the request is served */
    g.m->undrained = NULL;
    g.m->drain_until_ns = clock_ns() + 20000 * NS_PER_MS;
    quiet(&g);
    assert_null(g.m->undrained);
    assert_string_equal(g.m->unflushed, g.d->ops->name);
    assert_int_equal(get16(&g, USED + 2), 1);
    assert_int_equal(g.m->ram[DATA + 0x1000 + 512], 0);
    drive(&g, F_VERSION_1);
    assert_int_equal(request(&g, 4, 0, DATA, 0, false), 1); /* the guest hears of it, once */
    assert_int_equal(request(&g, 4, 0, DATA, 0, false), 0);
    fake_free(&g.m);
}

static void test_disk_ranges(void **state)
{
    struct guest g = blk_guest(false);
    uint8_t *ram = g.m->ram;
    struct {
        uint64_t sector;
        uint32_t n, flags;
    } range = { 8, 4, 0 };

    (void)state;
    drive(&g, F_VERSION_1 | F_EVENT_IDX | F_INDIRECT);
    memset(ram + DATA, 0xaa, 4096);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(request(&g, 1, 8, DATA, 4096, false), 0);
        range.flags = i;
        memcpy(ram + DATA + 0x1000, &range, sizeof range);
        assert_int_equal(request(&g, 13, 0, DATA + 0x1000, 16, false), 0); /* write zeroes */
        assert_int_equal(request(&g, 0, 8, DATA + 0x2000, 4096, true), 0);
        for (unsigned j = 0; j < 4096; j++)
            assert_int_equal(ram[DATA + 0x2000 + j], j < 2048 ? 0 : 0xaa);
    }
    range.flags = 0;
    memcpy(ram + DATA + 0x1000, &range, sizeof range);
    assert_int_equal(request(&g, 11, 0, DATA + 0x1000, 16, false), 0); /* discard */
    assert_int_equal(request(&g, 11, 0, DATA + 0x1000, 15, false), 1);
    range.sector = DISK_SECTORS - 1;
    memcpy(ram + DATA + 0x1000, &range, sizeof range);
    assert_int_equal(request(&g, 13, 0, DATA + 0x1000, 16, false), 1);
    fake_free(&g.m);
}

static void test_disk_errors(void **state)
{
    struct guest g = blk_guest(false), ro = blk_guest(true);

    (void)state;
    drive(&g, F_VERSION_1);
    assert_int_equal(request(&g, 0, DISK_SECTORS, DATA, 512, true), 1);
    assert_int_equal(request(&g, 0, DISK_SECTORS - 1, DATA, 1024, true), 1);
    assert_int_equal(request(&g, 0, UINT64_MAX, DATA, 512, true), 1);
    assert_int_equal(request(&g, 0, UINT64_MAX / 512, DATA, 512, true), 1);
    assert_int_equal(request(&g, 0, 0, DATA, 100, true), 1);
    assert_int_equal(request(&g, 77, 0, DATA, 512, true), 2);
    assert_int_equal(truncate(disk_path(g.m), 4096), 0);
    assert_int_equal(request(&g, 0, 64, DATA, 512, true), 1);
    assert_int_equal(request(&g, 0, 0, DATA, 512, true), 0);
    drive(&ro, F_VERSION_1);
    assert_int_equal(request(&ro, 1, 0, DATA, 512, false), 1);
    assert_int_equal(request(&ro, 13, 0, DATA, 16, false), 1);
    assert_int_equal(request(&ro, 0, 0, DATA, 512, true), 0);
    fake_free(&g.m);
    fake_free(&ro.m);
}

/* All of the ring in flight at once, through indirect tables. */
static void test_disk_many(void **state)
{
    struct guest g = blk_guest(false);
    uint8_t *ram = g.m->ram;

    (void)state;
    drive(&g, F_VERSION_1 | F_EVENT_IDX | F_INDIRECT);
    for (unsigned round = 0; round < 200; round++) {
        for (unsigned i = 0; i < QUEUE_SIZE; i++) {
            uint64_t table = DATA + i * 0x1000, data = DATA + 0x40000 + i * 0x1000;
            uint32_t type = round % 2 == 0;
            uint64_t sector = (round / 2 * QUEUE_SIZE + i) * 8 % DISK_SECTORS;

            memset(ram + table, 0, 0x1000);
            memcpy(ram + table + 256, &type, 4);
            memcpy(ram + table + 264, &sector, 8);
            ram[table + 512] = 0xee;
            memset(ram + data, type ? (int)(round / 2 + i) : 0x55, 4096);
            set_desc(&g, table, 0, table + 256, 16, D_NEXT, 1);
            set_desc(&g, table, 1, data, 4096, type ? D_NEXT : D_NEXT | D_WRITE, 2);
            set_desc(&g, table, 2, table + 512, 1, D_WRITE, 0);
            set_desc(&g, DESC, i, table, 48, D_INDIRECT, 0);
        }
        for (uint16_t i = 0; i < QUEUE_SIZE; i++)
            offer(&g, 0, i);
        fake_clean(g.m);
        assert_true(run(&g, 0));
        fake_check_dirty(g.m);
        for (unsigned i = 0; i < QUEUE_SIZE; i++) {
            assert_int_equal(ram[DATA + i * 0x1000 + 512], 0);
            assert_int_equal(ram[DATA + 0x40000 + i * 0x1000 + 4095], (uint8_t)(round / 2 + i));
        }
    }
    fake_free(&g.m);
}

static void test_no_disk(void **state)
{
    struct machine *m = fake_new();
    struct err e;

    (void)state;
    assert_int_equal(add_disk(m, false, false, &e), -1);
    assert_non_null(strstr(e.text, disk_path(m)));
    make_disk(m, 100);
    assert_int_equal(add_disk(m, false, false, &e), -1);
    assert_non_null(strstr(e.text, "smaller than one sector"));
    fake_free(&m);
}

/* ---- suppression of interrupts ---- */

static void test_interrupts(void **state)
{
    struct guest g = blk_guest(false);
    unsigned before;

    (void)state;
    drive(&g, F_VERSION_1);
    put16(&g, AVAIL, 1); /* NO_INTERRUPT */
    assert_int_equal(request(&g, 0, 0, DATA, 512, true), 0);
    assert_int_equal(fake_edges(g.m, 5), 0);

    drive(&g, F_VERSION_1 | F_EVENT_IDX);
    assert_int_equal(request(&g, 0, 0, DATA, 512, true), 0);
    before = fake_edges(g.m, 5);
    assert_true(before > 0);
    out32(&g, 0x64, 3);
    put16(&g, AVAIL + 4 + 2 * QUEUE_SIZE, 3); /* used_event: wake me after the fourth */
    assert_int_equal(request(&g, 0, 0, DATA, 512, true), 0);
    assert_int_equal(request(&g, 0, 0, DATA, 512, true), 0);
    assert_int_equal(fake_edges(g.m, 5), before);
    assert_int_equal(request(&g, 0, 0, DATA, 512, true), 0);
    assert_int_equal(fake_edges(g.m, 5), before + 1);
    assert_int_equal(get16(&g, USED + 4 + 8 * QUEUE_SIZE), 4); /* avail_event */
    fake_free(&g.m);
}

/* ---- hostile drivers ---- */

static void expect_broken(struct guest *g, const char *what)
{
    g->d->ops->start(g->d);
    out32(g, 0x50, 0);
    for (int i = 0; i < 20000 && (in32(g, 0x70) & NEEDS_RESET) == 0; i++)
        usleep(100);
    if ((in32(g, 0x70) & NEEDS_RESET) == 0)
        fail_msg("not noticed: %s", what);
    assert_int_equal(in32(g, 0x60) & 2, 2);
    quiet(g);
    drive(g, F_VERSION_1 | F_INDIRECT); /* and it works again after a reset */
    assert_int_equal(request(g, 0, 0, DATA, 512, true), 0);
    drive(g, F_VERSION_1 | F_INDIRECT);
}

static void test_hostile_chains(void **state)
{
    struct guest g = blk_guest(false);

    (void)state;
    drive(&g, F_VERSION_1 | F_INDIRECT);
    offer(&g, 0, QUEUE_SIZE);
    expect_broken(&g, "head out of range");
    set_desc(&g, DESC, 0, DATA, 16, D_NEXT, 1);
    set_desc(&g, DESC, 1, DATA, 16, D_NEXT, 0);
    offer(&g, 0, 0);
    expect_broken(&g, "loop");
    set_desc(&g, DESC, 0, DATA, 16, D_NEXT, 0x7fff);
    offer(&g, 0, 0);
    expect_broken(&g, "next out of range");
    set_desc(&g, DESC, 0, FAKE_RAM - 8, 16, 0, 0);
    offer(&g, 0, 0);
    expect_broken(&g, "crosses the end of memory");
    set_desc(&g, DESC, 0, UINT64_MAX - 7, 16, 0, 0);
    offer(&g, 0, 0);
    expect_broken(&g, "address wraps");
    set_desc(&g, DESC, 0, DATA, UINT32_MAX, D_WRITE, 0);
    offer(&g, 0, 0);
    expect_broken(&g, "huge length");
    set_desc(&g, DESC, 0, DATA, 16, D_NEXT | D_WRITE, 1);
    set_desc(&g, DESC, 1, DATA, 16, 0, 0);
    offer(&g, 0, 0);
    expect_broken(&g, "readable after writable");
    set_desc(&g, DESC, 0, DATA, 8, D_NEXT, 1);
    set_desc(&g, DESC, 1, DATA, 16, D_WRITE, 0);
    offer(&g, 0, 0);
    expect_broken(&g, "short header");
    set_desc(&g, DESC, 0, DATA, 16, 0, 0);
    offer(&g, 0, 0);
    expect_broken(&g, "no status byte");
    set_desc(&g, DESC, 0, DATA, 0, 0, 0);
    offer(&g, 0, 0);
    expect_broken(&g, "empty chain");
    g.avail[0] = QUEUE_SIZE + 1;
    put16(&g, AVAIL + 2, g.avail[0]);
    expect_broken(&g, "available index too far");
    fake_free(&g.m);
}

static void test_hostile_indirect(void **state)
{
    struct guest g = blk_guest(false);

    (void)state;
    drive(&g, F_VERSION_1);
    set_desc(&g, DESC, 0, DATA, 48, D_INDIRECT, 0);
    offer(&g, 0, 0);
    expect_broken(&g, "indirect not negotiated");
    for (unsigned len = 0; len < 48; len += 47) {
        set_desc(&g, DESC, 0, DATA, len, D_INDIRECT, 0);
        offer(&g, 0, 0);
        expect_broken(&g, "length of table");
    }
    set_desc(&g, DESC, 0, DATA, 16 * 257, D_INDIRECT, 0);
    offer(&g, 0, 0);
    expect_broken(&g, "long table");
    set_desc(&g, DESC, 0, FAKE_RAM - 16, 32, D_INDIRECT, 0);
    offer(&g, 0, 0);
    expect_broken(&g, "table outside");
    set_desc(&g, DESC, 0, DATA, 32, D_INDIRECT | D_NEXT, 1);
    offer(&g, 0, 0);
    expect_broken(&g, "indirect and next");
    set_desc(&g, DESC, 0, DATA, 32, D_INDIRECT, 0);
    set_desc(&g, DATA, 0, DATA, 32, D_INDIRECT, 0);
    offer(&g, 0, 0);
    expect_broken(&g, "nested");
    set_desc(&g, DESC, 0, DATA, 32, D_INDIRECT, 0);
    set_desc(&g, DATA, 0, DATA, 16, D_NEXT, 2);
    offer(&g, 0, 0);
    expect_broken(&g, "next outside the table");
    set_desc(&g, DATA, 0, DATA, 16, D_NEXT, 0);
    offer(&g, 0, 0);
    expect_broken(&g, "loop in the table");
    fake_free(&g.m);
}

static void test_hostile_setup(void **state)
{
    static const struct {
        uint32_t num, desc, avail, used;
    } bad[] = {
        { 0, 0x10000, 0x14000, 0x18000 },
        { 3, 0x10000, 0x14000, 0x18000 },
        { 512, 0x10000, 0x14000, 0x18000 },
        { 16, 0x10008, 0x14000, 0x18000 },
        { 16, 0x10000, 0x14001, 0x18000 },
        { 16, 0x10000, 0x14000, 0x18002 },
        { 16, (uint32_t)FAKE_RAM - 16, 0x14000, 0x18000 },
        { 16, 0x10000, (uint32_t)FAKE_RAM - 2, 0x18000 },
        { 16, 0x10000, 0x14000, 0xfffffffc },
    };
    struct guest g = blk_guest(false);

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        out32(&g, 0x70, 0);
        out32(&g, 0x30, 0);
        out32(&g, 0x38, bad[i].num);
        out32(&g, 0x80, bad[i].desc);
        out32(&g, 0x90, bad[i].avail);
        out32(&g, 0xa0, bad[i].used);
        out32(&g, 0x44, 1);
        assert_int_equal(in32(&g, 0x44), 0);
        assert_int_equal(in32(&g, 0x70), NEEDS_RESET);
        out32(&g, 0x50, 0);
    }
    out32(&g, 0x50, 9999);
    for (uint32_t reg = 0; reg < 0x200; reg++) /* every register, wrong widths too */
        for (unsigned len = 1; len <= 8; len *= 2) {
            uint64_t v = UINT64_MAX;

            g.d->ops->io_read(g.d, reg, &v, len);
            v = reg;
            g.d->ops->io_write(g.d, reg, &v, len);
        }
    drive(&g, F_VERSION_1);
    assert_int_equal(request(&g, 0, 0, DATA, 512, true), 0);
    fake_free(&g.m);
}

/* Random tables, near enough to right ones to get far. */
static void random_table(struct guest *g, uint64_t table, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t gpa = DATA + (uint64_t)rand() % 0x10000;
        uint32_t len = (uint32_t)rand() % (rand() % 4 == 0 ? 70000 : 600);
        uint16_t flags = (uint16_t)(rand() % 2 | (rand() % 3 == 0 ? D_WRITE : 0));

        if (rand() % 16 == 0)
            flags |= D_INDIRECT;
        if (rand() % 50 == 0)
            gpa = (uint64_t)rand() << (unsigned)(rand() % 33);
        set_desc(g, table, i, gpa, rand() % 3 == 0 ? 16 : len, flags,
            (uint16_t)(rand() % 8 == 0 ? rand() : (int)(i + 1) % (int)n));
    }
}

/* Not for the thread sanitizer: random buffers overlap, and so two workers write the same guest
 * memory, which is such a guest's own affair. */
static void torture(struct guest *g, unsigned rounds)
{
#ifdef __SANITIZE_THREAD__
    rounds = 0;
#endif
    uint64_t features = F_VERSION_1 | F_INDIRECT;

    for (unsigned round = 0; round < rounds; round++) {
        unsigned q = (unsigned)rand() % g->queues;

        drive(g, rand() % 2 ? features : features | F_EVENT_IDX);
        random_table(g, DESC + q * QUEUE_STEP, QUEUE_SIZE);
        for (unsigned i = 0; i < 8; i++)
            random_table(g, DATA + i * 256, 16);
        for (int i = rand() % 4; i >= 0; i--)
            offer(g, q, (uint16_t)(rand() % 16));
        fake_clean(g->m);
        g->d->ops->start(g->d);
        out32(g, 0x50, q);
        if (rand() % 4 == 0)
            usleep(50);
        quiet(g);
        fake_check_dirty(g->m);
    }
}

static void test_random_disk(void **state)
{
    struct guest g = blk_guest(false);

    (void)state;
    srand(4711);
    torture(&g, 1500);
    fake_free(&g.m);
}

static void test_random_others(void **state)
{
    struct guest g = { .m = fake_new(), .queues = 1 };
    struct err e;

    (void)state;
    assert_int_equal(virtio_rng_create(g.m, 0, &e), 0);
    assert_int_equal(virtio_balloon_create(g.m, 1, &e), 0);
    srand(4712);
    for (unsigned i = 0; i < 2; i++) {
        g.d = g.m->dev[i];
        g.queues = i + 1;
        torture(&g, 700);
    }
    fake_free(&g.m);
}

/* ---- entropy, balloon ---- */

static void test_rng(void **state)
{
    struct guest g = { .m = fake_new(), .queues = 1 };
    unsigned zeroes = 0;
    struct err e;

    (void)state;
    assert_int_equal(virtio_rng_create(g.m, 3, &e), 0);
    g.d = g.m->dev[0];
    assert_int_equal(g.d->irq, 8);
    drive(&g, F_VERSION_1);
    set_desc(&g, DESC, 0, DATA, 1000, D_WRITE, 0);
    offer(&g, 0, 0);
    fake_clean(g.m);
    assert_true(run(&g, 0));
    fake_check_dirty(g.m);
    for (unsigned i = 0; i < 1000; i++)
        zeroes += g.m->ram[DATA + i] == 0;
    assert_true(zeroes < 100);
    assert_int_equal(g.m->ram[DATA + 1000], 0);
    fake_free(&g.m);
}

static void test_balloon(void **state)
{
    struct guest g = { .m = fake_new(), .queues = 2 };
    uint32_t frames[3] = { 0x200, 0x201, 0x300 }, actual = 3;
    struct err e;

    (void)state;
    assert_int_equal(virtio_balloon_set(g.m, 1024, &e), -1);
    g.m->def.memory_kib -= 64;
    assert_int_equal(virtio_balloon_create(g.m, 0, &e), 0);
    g.d = g.m->dev[0];
    assert_int_equal(in32(&g, 0x100), 16); /* wished for from the start: 64 KiB */
    assert_int_equal(virtio_balloon_set(g.m, 1024, &e), -1);
    assert_non_null(strstr(e.text, "no driver"));
    drive(&g, F_VERSION_1);
    assert_int_equal(virtio_balloon_set(g.m, (FAKE_RAM >> 10) - 12, &e), 0);
    assert_int_equal(virtio_balloon_set(g.m, FAKE_RAM, &e), -1);
    assert_int_equal(in32(&g, 0x60), 2);
    assert_int_equal(in32(&g, 0x100), 3);
    memset(g.m->ram + 0x200000, 0x11, 0x2000);
    memcpy(g.m->ram + DATA, frames, sizeof frames);
    set_desc(&g, DESC, 0, DATA, sizeof frames, 0, 0);
    offer(&g, 0, 0);
    assert_true(run(&g, 0));
    assert_int_equal(g.m->ram[0x201fff], 0);
    assert_int_equal(g.m->discarded[0x200] + g.m->discarded[0x201] + g.m->discarded[0x300], 3);
    out32(&g, 0x104, actual);
    assert_int_equal(virtio_balloon_now(g.m), (FAKE_RAM >> 10) - 12);
    frames[1] = 0x10000000; /* far outside */
    memcpy(g.m->ram + DATA, frames, sizeof frames);
    offer(&g, 0, 0);
    assert_false(run(&g, 0));
    fake_free(&g.m);
}

/* ---- the move ---- */

static bool is_open(const char *path)
{
    DIR *dir = opendir("/proc/self/fd");
    char link[300], target[300];
    bool found = false;

    assert_non_null(dir);
    for (struct dirent *d = readdir(dir); d != NULL; d = readdir(dir)) {
        ssize_t n;

        snprintf(link, sizeof link, "/proc/self/fd/%s", d->d_name);
        n = readlink(link, target, sizeof target - 1);
        target[n < 0 ? 0 : n] = '\0';
        found |= strcmp(target, path) == 0;
    }
    closedir(dir);
    return found;
}

/* A request that the guest made while the devices were silent is served on the other host; the
 * disk is not opened there before. */
static void test_move(void **state)
{
    struct guest a = blk_guest(false), b = { .m = fake_new(), .queues = 1 };
    struct err e;

    (void)state;
    drive(&a, F_VERSION_1 | F_EVENT_IDX | F_INDIRECT);
    memset(a.m->ram + DATA, 0x42, 512);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(request(&a, 1, i, DATA, 512, false), 0);
    make_disk(b.m, DISK_SECTORS * 512);
    assert_int_equal(add_disk(b.m, false, true, &e), 0);
    b.d = b.m->dev[0];
    quiet(&a);
    quiet(&a);
    offer(&a, 0, 0);
    out32(&a, 0x50, 0);
    usleep(20000);
    assert_int_equal(get16(&a, USED + 2), 20);
    assert_int_equal(fake_move(a.m, b.m, &e), 0);
    assert_false(is_open(disk_path(b.m)));
    assert_int_equal(in32(&b, 0x70), 15);
    b.avail[0] = a.avail[0];
    b.m->ram[DATA - 32] = 0xee;
    assert_int_equal(virtio_blk_claim(b.m, 2, false, &e), 0);
    b.d->ops->start(b.d);
    assert_true(is_open(disk_path(b.m)));
    for (int i = 0; i < 20000 && get16(&b, USED + 2) != 21; i++)
        usleep(100);
    assert_int_equal(get16(&b, USED + 2), 21);
    quiet(&b);
    assert_int_equal(b.m->ram[DATA - 32], 0);
    assert_int_equal(request(&b, 1, 5, DATA, 512, false), 0);
    a.d->ops->start(a.d); /* the source may go on, too, if it comes to that */
    for (int i = 0; i < 20000 && get16(&a, USED + 2) != 21; i++)
        usleep(100);
    assert_int_equal(get16(&a, USED + 2), 21);
    fake_free(&a.m);
    fake_free(&b.m);
}

static void test_move_refused(void **state)
{
    struct guest a = blk_guest(false), b = { .m = fake_new(), .queues = 1 };
    struct guest ro = blk_guest(true);
    struct err e;

    (void)state;
    drive(&a, F_VERSION_1 | UINT64_C(1) << 13);
    make_disk(b.m, DISK_SECTORS * 512 + 512);
    assert_int_equal(add_disk(b.m, false, true, &e), 0);
    assert_int_equal(fake_move(a.m, b.m, &e), -1);
    assert_non_null(strstr(e.text, "virtio-blk0"));
    assert_non_null(strstr(e.text, "not the same disk"));
    quiet(&ro);
    assert_int_equal(fake_move(a.m, ro.m, &e), -1); /* no discard on a disk that is read only */
    assert_non_null(strstr(e.text, "features"));
    fake_free(&a.m);
    fake_free(&b.m);
    fake_free(&ro.m);
}

/* A state with every byte changed in turn is refused or loaded, but never harms. */
static void test_state_fuzz(void **state)
{
    struct guest a = blk_guest(false), b = { .m = fake_new(), .queues = 1 };
    struct state_writer w;
    struct err e;
    uint8_t *blob;
    size_t len;

    (void)state;
    drive(&a, F_VERSION_1 | F_EVENT_IDX);
    assert_int_equal(request(&a, 0, 0, DATA, 512, true), 0);
    quiet(&a);
    state_writer_init(&w);
    assert_int_equal(a.d->ops->save(a.d, &w, &e), 0);
    assert_int_equal(state_finish(&w, &blob, &len, &e), 0);
    make_disk(b.m, DISK_SECTORS * 512);
    assert_int_equal(add_disk(b.m, false, true, &e), 0);
    b.d = b.m->dev[0];
    assert_int_equal(virtio_blk_claim(b.m, 2, false, &e), 0);
    srand(4713);
    for (size_t i = 0; i < 20 * len; i++) {
        uint8_t before = blob[i % len];
        struct state_blob *parsed = NULL;
        struct state_reader r;

        blob[i % len] = (uint8_t)rand();
        memcpy(b.m->ram, a.m->ram, FAKE_RAM >> 2);
        if (state_parse(blob, len, &parsed, &e) == 0 &&
            state_open(parsed, "virtio-blk0", &r, &e) == 0 && b.d->ops->load(b.d, &r, &e) == 0) {
            b.d->ops->start(b.d);
            out32(&b, 0x50, 0);
            quiet(&b);
        }
        state_blob_free(&parsed);
        blob[i % len] = before;
    }
    free(blob);
    fake_free(&a.m);
    fake_free(&b.m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disk_trouble),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_disk),
        cmocka_unit_test(test_disk_ranges),
        cmocka_unit_test(test_disk_errors),
        cmocka_unit_test(test_disk_many),
        cmocka_unit_test(test_no_disk),
        cmocka_unit_test(test_interrupts),
        cmocka_unit_test(test_hostile_chains),
        cmocka_unit_test(test_hostile_indirect),
        cmocka_unit_test(test_hostile_setup),
        cmocka_unit_test(test_random_disk),
        cmocka_unit_test(test_random_others),
        cmocka_unit_test(test_rng),
        cmocka_unit_test(test_balloon),
        cmocka_unit_test(test_move),
        cmocka_unit_test(test_move_refused),
        cmocka_unit_test(test_state_fuzz),
    };

    /* HANG_MS; each fires once */
    setenv("MIGRD_FAULT", "disk-request=sleep:3000,disk-flush=error", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
