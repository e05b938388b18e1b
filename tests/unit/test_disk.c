/* SPDX-License-Identifier: ISC */
/* Disks that are files of this host. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "storage-check/disk.h"

#define BYTES (256u * 1024)

static char path[] = "/tmp/test_disk.XXXXXX";
static int fd;

static int setup(void **state)
{
    (void)state;
    strcpy(path, "/tmp/test_disk.XXXXXX");
    fd = mkstemp(path);
    return fd < 0 || ftruncate(fd, BYTES + 100) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    close(fd);
    unlink(path);
    return 0;
}

static void on_done(struct disk_io *io, int error)
{
    *(int *)io->arg = error;
}

static int run(struct disk *d, enum disk_op op, uint64_t at, uint64_t len, struct iovec *iov,
    unsigned n, bool unmap)
{
    int error = -1;
    struct disk_io io = { .op = op,
        .unmap = unmap,
        .offset = at,
        .len = len,
        .iov = iov,
        .n_iov = n,
        .done = on_done,
        .arg = &error };

    disk_submit(d, &io);
    return error;
}

static struct disk *open_it(bool read_only)
{
    struct disk_options o = { .read_only = read_only };
    struct disk *d;
    struct err e;

    assert_int_equal(disk_open(path, &o, &d, &e), 0);
    return d;
}

static void reads_and_writes(void **state)
{
    struct disk *d = open_it(false);
    uint8_t a[512], b[1536], back[2048], more[BYTES];
    struct iovec iov[2] = { { a, sizeof a }, { b, sizeof b } }, in = { back, sizeof back };

    (void)state;
    assert_int_equal(disk_size(d), BYTES); /* whole sectors */
    assert_int_equal(disk_block_size(d), 512);
    assert_int_equal(disk_kind(d), MIGRD__STORAGE_KIND__STORAGE_FILE);
    assert_false(disk_is_network(d));
    memset(a, 1, sizeof a);
    memset(b, 2, sizeof b);
    assert_int_equal(run(d, DISK_WRITE, 1024, 2048, iov, 2, false), 0);
    assert_int_equal(run(d, DISK_FLUSH, 0, 0, NULL, 0, false), 0);
    assert_int_equal(run(d, DISK_READ, 1024, 2048, &in, 1, false), 0);
    assert_memory_equal(back, a, 512);
    assert_memory_equal(back + 512, b, 1536);
    assert_int_equal(run(d, DISK_ZEROES, 0, BYTES / 2, NULL, 0, false), 0);
    assert_int_equal(run(d, DISK_ZEROES, BYTES / 2, BYTES / 2, NULL, 0, true), 0);
    in = (struct iovec){ more, sizeof more };
    assert_int_equal(run(d, DISK_READ, 0, BYTES, &in, 1, false), 0);
    for (unsigned i = 0; i < BYTES; i++)
        assert_int_equal(more[i], 0);
    assert_int_equal(run(d, DISK_DISCARD, 0, 65536, NULL, 0, false), 0);
    assert_int_equal(run(d, DISK_READ, BYTES, 512, &in, 1, false), EIO);
    disk_abort(d);
    disk_close(&d);
}

static void shorter(void **state)
{
    struct disk *d = open_it(false);
    uint8_t b[1024];
    struct iovec in = { b, sizeof b };

    (void)state;
    assert_int_equal(ftruncate(fd, 512), 0);
    assert_int_equal(run(d, DISK_READ, 0, 1024, &in, 1, false), EIO);
    disk_close(&d);
}

static void read_only(void **state)
{
    struct disk *d = open_it(true);
    uint8_t b[512];
    struct iovec io = { b, sizeof b };

    (void)state;
    assert_int_equal(run(d, DISK_WRITE, 0, 512, &io, 1, false), EACCES);
    assert_int_equal(run(d, DISK_DISCARD, 0, 512, NULL, 0, false), EACCES);
    assert_int_equal(run(d, DISK_FLUSH, 0, 0, NULL, 0, false), 0);
    assert_int_equal(run(d, DISK_READ, 0, 512, &io, 1, false), 0);
    disk_close(&d);
}

static void refused(void **state)
{
    struct disk_options o = { .host = "h", .initiator = "i", .secrets = "s" };
    struct disk *d;
    struct err e;

    (void)state;
    assert_int_equal(disk_open("/nonexistent/x", &o, &d, &e), -1);
    assert_string_equal(e.text, "disk /nonexistent/x: No such file or directory");
    assert_null(d);
    assert_int_equal(disk_open("/tmp", &o, &d, &e), -1);
    assert_int_equal(disk_open("/dev/null", &o, &d, &e), -1);
    assert_string_equal(e.text, "disk /dev/null: neither a file nor a block device");
    assert_int_equal(ftruncate(fd, 511), 0);
    assert_int_equal(disk_open(path, &o, &d, &e), -1);
    assert_non_null(strstr(e.text, "smaller than one sector of 512 bytes"));
    assert_int_equal(disk_open("ftp://x/y", &o, &d, &e), -1);
    assert_int_equal(disk_open("nfs://x/y/z?version=4", &o, &d, &e), -1);
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    assert_int_equal(disk_open("nfs://127.0.0.1:1/y/z?mountport=1", &o, &d, &e), -1);
    assert_int_equal(e.code, ERR_PEER);
    assert_int_equal(disk_open("iscsi://127.0.0.1:1/iqn.x:y/1", &o, &d, &e), -1);
    assert_int_equal(e.code, ERR_PEER);
    assert_int_equal(disk_open("iscsi://joe@127.0.0.1:1/iqn.x:y/1", &o, &d, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(ftruncate(fd, 512), 0);
    d = open_it(false);
    assert_int_equal(disk_set_owner(d, 1, 1, &e), -1);
    disk_close(&d);
    disk_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_and_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(shorter, setup, teardown),
        cmocka_unit_test_setup_teardown(read_only, setup, teardown),
        cmocka_unit_test_setup_teardown(refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
