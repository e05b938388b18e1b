/* SPDX-License-Identifier: ISC */
/*
 * What a disk is: files in a folder of our own, block devices of a /sys that we make, image
 * headers, SCSI answers, and the children of storage_serve.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/paths.h"
#include "storage-check/ask_disks.h"
#include "storage-check/identity_internal.h"
#include "storage-check/image.h"
#include "storage-check/vpd.h"

static char root[64];

/* --- tools --- */

static void path_of(char out[PATH_MAX], const char *name)
{
    snprintf(out, PATH_MAX, "%s%s", root, name);
}

static void put(const char *name, const void *data, size_t len)
{
    char path[PATH_MAX], folder[PATH_MAX];
    int fd;

    path_of(path, name);
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    assert_int_equal(io_make_dirs(folder, 0755, NULL), 0);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    close(fd);
}

static void put_text(const char *name, const char *text)
{
    put(name, text, strlen(text));
}

static void put_link(const char *name, const char *to)
{
    char path[PATH_MAX], folder[PATH_MAX];

    path_of(path, name);
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    assert_int_equal(io_make_dirs(folder, 0755, NULL), 0);
    unlink(path);
    assert_int_equal(symlink(to, path), 0);
}

struct lab {
    struct look l;
    Migrd__StorageRequest rq;
    Migrd__Disk disk;
    char step[LOOK_STEP], source[PATH_MAX];
};

static void lab_begin(struct lab *t, const char *name)
{
    memset(t, 0, sizeof *t);
    migrd__storage_request__init(&t->rq);
    migrd__disk__init(&t->disk);
    path_of(t->source, name);
    t->disk.source = t->source;
    t->l = (struct look){ .what = MIGRD__STORAGE_REQUEST__WHAT__IDENTIFY,
        .rq = &t->rq,
        .disk = &t->disk,
        .timeout_ms = 2000,
        .root = "",
        .step = t->step };
    t->l.out = malloc(sizeof *t->l.out);
    assert_non_null(t->l.out);
    migrd__disk_identity__init(t->l.out);
}

static void lab_end(struct lab *t)
{
    migrd__disk_identity__free_unpacked(t->l.out, NULL);
}

static void expect_failure(struct lab *t, const char *code, const char *text)
{
    assert_string_equal(t->l.out->code, code);
    if (strstr(t->l.out->error, text) == NULL)
        fail_msg("'%s' is not in '%s'", text, t->l.out->error);
    lab_end(t);
}

static int make_root(void **state)
{
    (void)state;
    strcpy(root, "/tmp/migrd-identity-XXXXXX");
    return mkdtemp(root) != NULL && log_open("test", "/dev/null", NULL) == 0 ? 0 : -1;
}

static int remove_root(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command);
}

/* --- files --- */

static void a_file(void **state)
{
    struct lab t;
    struct stat st;
    char inode[32];

    (void)state;
    put_text("/a.img", "not an image of any format");
    lab_begin(&t, "/a.img");
    look_at(&t.l);
    assert_string_equal(t.l.out->error, "");
    assert_int_equal(t.l.out->kind, MIGRD__STORAGE_KIND__STORAGE_FILE);
    assert_int_equal(t.l.out->size, 26);
    assert_false(t.l.out->read_only);
    assert_false(t.l.out->shared);
    assert_string_not_equal(t.l.out->path_kind, "");
    assert_string_equal(t.l.out->used_by, "");
    assert_null(t.l.out->challenge);
    assert_int_equal(stat(t.source, &st), 0);
    snprintf(inode, sizeof inode, "%ju", (uintmax_t)st.st_ino);
    assert_string_equal(id_value(t.l.out, "inode"), inode);
    lab_end(&t);
}

static void files_that_cannot_be_used(void **state)
{
    struct lab t;

    (void)state;
    lab_begin(&t, "/nowhere.img");
    look_at(&t.l);
    expect_failure(&t, "not-found", "No such file or directory; mount what it lies on");
    lab_begin(&t, "/a.img/below");
    look_at(&t.l);
    expect_failure(&t, "not-found", "Not a directory");
    lab_begin(&t, "");
    look_at(&t.l);
    expect_failure(&t, "invalid", "neither a file nor a block device");
    lab_begin(&t, "/a.img");
    t.disk.source = (char *)(uintptr_t) "relative.img";
    look_at(&t.l);
    assert_true(look_failed(&t.l));
    lab_end(&t);
    lab_begin(&t, "/a.img");
    t.disk.source = (char *)(uintptr_t) "http://nas/a.img";
    look_at(&t.l);
    assert_true(look_failed(&t.l));
    lab_end(&t);
}

static void image_is_refused(void **state)
{
    uint8_t qcow2[512] = { 'Q', 'F', 'I', 0xfb, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 8 };
    struct lab t;

    (void)state;
    memcpy(qcow2 + 64, "base.img", 8);
    put("/q.img", qcow2, sizeof qcow2);
    lab_begin(&t, "/q.img");
    look_at(&t.l);
    assert_int_equal(t.l.out->n_backing, 1);
    assert_string_equal(t.l.out->backing[0], "base.img");
    expect_failure(&t, "unsupported",
        "is a qcow2 image on top of base.img (a snapshot), and only raw ones can be used");
}

static void locked_files(void **state)
{
    struct flock k = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 1 };
    struct lab t;
    char want[64];
    int fd;

    (void)state;
    put_text("/l.img", "raw");
    lab_begin(&t, "/l.img");
    fd = open(t.source, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &k), 0);
    look_at(&t.l);
    assert_string_equal(t.l.out->used_by, "another program that locks images as QEMU does");
    lab_end(&t);
    k.l_type = F_UNLCK;
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &k), 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    lab_begin(&t, "/l.img");
    look_at(&t.l);
    snprintf(want, sizeof want, "process %ld (test_identity) with flock(2)", (long)getpid());
    assert_string_equal(t.l.out->used_by, want);
    lab_end(&t);
    close(fd);
}

/* --- the challenge --- */

static void challenge_and_answer(void **state)
{
    struct lab s, t;
    char path[PATH_MAX + 300];

    (void)state;
    put_text("/c.img", "raw");
    put_link("/link.img", "c.img");
    lab_begin(&s, "/c.img");
    s.rq.challenge = true;
    look_at(&s.l);
    assert_non_null(s.l.out->challenge);
    assert_true(challenge_name_ok(s.l.out->challenge->name));
    assert_memory_equal(s.l.out->challenge->name, ".c.img.migrd-check-", 19);
    snprintf(path, sizeof path, "%s/%s", root, s.l.out->challenge->name);
    assert_int_equal(access(path, R_OK), 0);

    lab_begin(&t, "/link.img");
    t.l.what = MIGRD__STORAGE_REQUEST__WHAT__ANSWER;
    t.l.theirs = s.l.out;
    look_at(&t.l);
    assert_string_equal(t.l.answer, s.l.out->challenge->nonce);
    assert_string_equal(t.l.answer_error, "");
    lab_end(&t);

    lab_begin(&t, "/c.img");
    t.l.what = MIGRD__STORAGE_REQUEST__WHAT__CLEAN;
    t.l.theirs = s.l.out;
    look_at(&t.l);
    assert_string_equal(t.l.out->error, "");
    assert_int_equal(access(path, F_OK), -1);
    lab_end(&t);

    lab_begin(&t, "/c.img");
    t.l.what = MIGRD__STORAGE_REQUEST__WHAT__ANSWER;
    t.l.theirs = s.l.out;
    look_at(&t.l);
    assert_string_equal(t.l.answer, "");
    assert_non_null(strstr(t.l.answer_error, "there is no .c.img.migrd-check-"));
    lab_end(&t);
    lab_end(&s);
}

/* A peer that asks for other files gets nothing. */
static void foreign_challenges(void **state)
{
    static const char *const bad[] = { "", ".", "passwd", "../etc/passwd",
        ".migrd-check-0123456789abcdef", ".x.migrd-check-0123456789abcde",
        ".x.migrd-check-0123456789abcdeg", ".x.migrd-check-0123456789ABCDEF",
        "x.migrd-check-0123456789abcdef", ".a/b.migrd-check-0123456789abcdef",
        ".x.migrd-chuck-0123456789abcdef" };
    char longest[CHALLENGE_NAME + 40];
    Migrd__Challenge c = MIGRD__CHALLENGE__INIT;
    Migrd__DiskIdentity theirs = MIGRD__DISK_IDENTITY__INIT;
    struct lab t;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(challenge_name_ok(bad[i]));
    memset(longest, 'x', sizeof longest);
    longest[0] = '.';
    strcpy(longest + CHALLENGE_NAME, ".migrd-check-0123456789abcdef");
    assert_false(challenge_name_ok(longest));
    assert_true(challenge_name_ok(".x.migrd-check-0123456789abcdef"));

    put_text("/c.img", "raw");
    put_text("/.y.migrd-check-0123456789abcdef", "no nonce");
    put_link("/.z.migrd-check-0123456789abcdef", "/etc/passwd");
    theirs.challenge = &c;
    c.name = (char *)(uintptr_t) "passwd";
    lab_begin(&t, "/c.img");
    t.l.what = MIGRD__STORAGE_REQUEST__WHAT__ANSWER;
    t.l.theirs = &theirs;
    look_at(&t.l);
    assert_string_equal(t.l.answer_error, "its name is not that of a challenge");
    lab_end(&t);
    c.name = (char *)(uintptr_t) ".y.migrd-check-0123456789abcdef";
    lab_begin(&t, "/c.img");
    t.l.what = MIGRD__STORAGE_REQUEST__WHAT__ANSWER;
    t.l.theirs = &theirs;
    look_at(&t.l);
    assert_string_equal(t.l.answer, "");
    assert_non_null(strstr(t.l.answer_error, "holds something else"));
    lab_end(&t);
    c.name = (char *)(uintptr_t) ".z.migrd-check-0123456789abcdef";
    lab_begin(&t, "/c.img");
    t.l.what = MIGRD__STORAGE_REQUEST__WHAT__ANSWER;
    t.l.theirs = &theirs;
    look_at(&t.l);
    assert_string_equal(t.l.answer, "");
    lab_end(&t);
}

static void old_challenges_go(void **state)
{
    struct timespec day_before[2] = { { .tv_sec = time(NULL) - 2 * CHALLENGE_STALE_S },
        { .tv_sec = time(NULL) - 2 * CHALLENGE_STALE_S } };
    char old[PATH_MAX], young[PATH_MAX], other[PATH_MAX];
    struct lab t;

    (void)state;
    put_text("/c.img", "raw");
    put_text("/.old.img.migrd-check-0123456789abcdef", "x");
    put_text("/.young.img.migrd-check-0123456789abcdef", "x");
    put_text("/.old.img", "x");
    path_of(old, "/.old.img.migrd-check-0123456789abcdef");
    path_of(young, "/.young.img.migrd-check-0123456789abcdef");
    path_of(other, "/.old.img");
    assert_int_equal(utimensat(AT_FDCWD, old, day_before, 0), 0);
    assert_int_equal(utimensat(AT_FDCWD, other, day_before, 0), 0);
    lab_begin(&t, "/c.img");
    t.rq.challenge = true;
    look_at(&t.l);
    assert_int_equal(access(old, F_OK), -1);
    assert_int_equal(access(young, F_OK), 0);
    assert_int_equal(access(other, F_OK), 0);
    lab_end(&t);
}

/* --- block devices --- */

#define FC_DEVICE "devices/pci0000:00/host3/rport-3:0-1/target3:0:0/3:0:0:1"
#define FC "/sys/" FC_DEVICE

static const uint8_t page83[] = { 0, 0x83, 0, 12 + 8, 0x01, 0x03, 0, 8, 0x50, 0, 0xc5, 0, 0xa1,
    0xb2, 0xc3, 0xd4, 0x01, 0x14, 0, 4, 0, 0, 0, 1 };
static const uint8_t page80[] = { 0, 0x80, 0, 8, ' ', ' ', 'Z', '1', 'F', '0', ' ', ' ' };

/* sdb, a LUN of Fibre Channel with a partition; sdc, an ATA disk; dm-0, a multipath device. */
static void make_machine(void)
{
    put_text(FC "/block/sdb/size", "20971520\n");
    put_text(FC "/block/sdb/ro", "0\n");
    put_text(FC "/block/sdb/dev", "8:16\n");
    put_text(FC "/block/sdb/queue/logical_block_size", "512\n");
    put_link(FC "/block/sdb/device", "../..");
    put(FC "/vpd_pg83", page83, sizeof page83);
    put(FC "/vpd_pg80", page80, sizeof page80);
    put_text(FC "/block/sdb/sdb1/partition", "1\n");
    put_text(FC "/block/sdb/sdb1/size", "2048\n");
    put_text(FC "/block/sdb/sdb1/ro", "1\n");
    put_text("/sys/devices/ata1/block/sdc/size", "100\n");
    put_text("/sys/devices/ata1/block/sdc/dev", "8:32\n");
    put_text("/sys/devices/ata1/block/sdc/queue/logical_block_size", "4096\n");
    put_text("/sys/devices/ata1/block/sdc/wwid", "t10.ATA     QEMU HARDDISK\n");
    put_text("/sys/devices/ata1/block/sdc/holders/dm-5/x", "");
    put_text("/sys/devices/virtual/block/dm-0/size", "20971520\n");
    put_text("/sys/devices/virtual/block/dm-0/dm/uuid", "mpath-35000c500a1b2c3d4\n");
    put_link("/dev/disk/by-id/wwn-0x5000c500a1b2c3d4", "../../sdb");
    put_link("/dev/disk/by-id/scsi-35000c500a1b2c3d4", "../../sdb");
    put_link("/dev/disk/by-id/ata-QEMU", "../../sdc");
    put_link("/dev/disk/by-uuid/aaaa-bbbb", "../../sdb");
}

static void link_devices(void)
{
    put_link("/sys/dev/block/8:16", "../../" FC_DEVICE "/block/sdb");
    put_link("/sys/dev/block/8:17", "../../" FC_DEVICE "/block/sdb/sdb1");
    put_link("/sys/class/block/sdb", "../../" FC_DEVICE "/block/sdb");
    put_link("/sys/dev/block/8:32", "../../devices/ata1/block/sdc");
    put_link("/sys/dev/block/253:0", "../../devices/virtual/block/dm-0");
}

static void block_begin(struct lab *t, const char *name)
{
    make_machine();
    link_devices();
    lab_begin(t, "");
    snprintf(t->source, sizeof t->source, "%s", name);
    t->l.root = root;
}

static void a_fibre_channel_disk(void **state)
{
    struct lab t;

    (void)state;
    block_begin(&t, "/dev/sdb");
    look_block(&t.l, makedev(8, 16), true);
    assert_string_equal(t.l.out->error, "");
    assert_int_equal(t.l.out->kind, MIGRD__STORAGE_KIND__STORAGE_BLOCK);
    assert_int_equal(t.l.out->size, UINT64_C(20971520) * 512);
    assert_int_equal(t.l.out->block_size, 512);
    assert_false(t.l.out->read_only);
    assert_true(t.l.out->shared);
    assert_string_equal(id_value(t.l.out, "naa"), "5000c500a1b2c3d4");
    assert_string_equal(id_value(t.l.out, "serial"), "Z1F0");
    assert_string_equal(id_value(t.l.out, "device-name"), "sdb");
    assert_string_equal(id_value(t.l.out, "fs-uuid"), "aaaa-bbbb");
    assert_string_equal(id_value(t.l.out, "transport"), "Fibre Channel");
    assert_true(id_has(t.l.out, "by-id", "wwn-0x5000c500a1b2c3d4"));
    assert_true(id_has(t.l.out, "by-id", "scsi-35000c500a1b2c3d4"));
    assert_false(id_has(t.l.out, "by-id", "ata-QEMU"));
    lab_end(&t);
    block_begin(&t, "/dev/sdb1");
    look_block(&t.l, makedev(8, 17), true);
    assert_string_equal(id_value(t.l.out, "partition"), "1");
    assert_string_equal(id_value(t.l.out, "naa"), "5000c500a1b2c3d4");
    assert_int_equal(t.l.out->size, 2048 * 512);
    assert_true(t.l.out->read_only);
    lab_end(&t);
}

static void other_devices(void **state)
{
    struct lab t;

    (void)state;
    block_begin(&t, "/dev/sdc");
    look_block(&t.l, makedev(8, 32), true);
    assert_string_equal(id_value(t.l.out, "t10"), "ATA     QEMU HARDDISK");
    assert_string_equal(t.l.out->used_by, "the device dm-5 that is made of it");
    assert_int_equal(t.l.out->block_size, 4096);
    assert_false(t.l.out->shared);
    lab_end(&t);
    block_begin(&t, "/dev/mapper/mpatha");
    look_block(&t.l, makedev(253, 0), true);
    assert_string_equal(id_value(t.l.out, "dm-uuid"), "mpath-35000c500a1b2c3d4");
    assert_string_equal(id_value(t.l.out, "naa"), "5000c500a1b2c3d4");
    assert_true(t.l.out->shared);
    lab_end(&t);
    block_begin(&t, "/dev/sdz");
    look_block(&t.l, makedev(9, 9), true);
    expect_failure(&t, "not-found", "/dev/sdz: /sys/dev/block has no device 9:9");
}

static void wanted_wwn(void **state)
{
    struct lab t;

    (void)state;
    block_begin(&t, "/dev/sdb");
    t.disk.wwn = (char *)(uintptr_t) "5000C500A1B2C3D4";
    look_block(&t.l, makedev(8, 16), true);
    assert_string_equal(t.l.out->error, "");
    assert_string_equal(id_value(t.l.out, "found-as"), "");
    lab_end(&t);
    block_begin(&t, "/dev/sdc"); /* it is sdb today */
    t.disk.wwn = (char *)(uintptr_t) "0x5000c500a1b2c3d4";
    look_block(&t.l, makedev(8, 32), true);
    assert_string_equal(t.l.out->error, "");
    assert_string_equal(id_value(t.l.out, "device-name"), "sdb");
    assert_string_equal(id_value(t.l.out, "found-as"), "/dev/sdb");
    assert_string_equal(t.l.out->used_by, "");
    lab_end(&t);
    block_begin(&t, "/dev/sdq"); /* not there at all */
    t.disk.wwn = (char *)(uintptr_t) "5000c500a1b2c3d4";
    look_block(&t.l, 0, false);
    assert_string_equal(id_value(t.l.out, "found-as"), "/dev/sdb");
    lab_end(&t);
    block_begin(&t, "/dev/sdb");
    t.disk.wwn = (char *)(uintptr_t) "5000c500ffffffff";
    look_block(&t.l, makedev(8, 16), true);
    expect_failure(&t, "not-found",
        "no block device of this host has the WWN 5000c500ffffffff (/dev/sdb has "
        "5000c500a1b2c3d4); map the LUN to this host");
    block_begin(&t, "/dev/sdb");
    t.disk.wwn = (char *)(uintptr_t) "12345";
    look_block(&t.l, makedev(8, 16), true);
    expect_failure(&t, "invalid", "wwn 12345: give 16 or 32 hex digits");
}

static void what_to_open(void **state)
{
    Migrd__Disk disk = MIGRD__DISK__INIT;
    char path[PATH_MAX], file[PATH_MAX];
    struct err e;
    struct lab t;

    (void)state;
    put_text("/c.img", "raw");
    path_of(file, "/c.img");
    disk.source = file;
    assert_int_equal(storage_path(&disk, path, sizeof path, &e), 0);
    assert_string_equal(path, file);
    disk.device = (char *)(uintptr_t) "vda";
    disk.wwn = (char *)(uintptr_t) "0123456789abcdef";
    assert_int_equal(storage_path(&disk, path, sizeof path, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    disk.source = (char *)(uintptr_t) "nfs://nas/export/c.img";
    assert_int_equal(storage_path(&disk, path, sizeof path, &e), 0);
    lab_begin(&t, "/c.img");
    t.disk.wwn = disk.wwn;
    look_at(&t.l);
    expect_failure(&t, "invalid", "is a file and has no WWN");
}

static void virtual_ports(void **state)
{
    static char npiv[] = "5001a4a000000001:5001a4a000000002";
    struct lab t;

    (void)state;
    block_begin(&t, "/dev/sdb");
    t.disk.npiv = npiv;
    look_block(&t.l, makedev(8, 16), true);
    assert_string_equal(id_value(t.l.out, "npiv"), "impossible");
    lab_end(&t);

    put_text("/sys/class/fc_host/host5/port_name", "0x2100000000000001\n");
    put_text("/sys/class/fc_host/host5/max_npiv_vports", "4\n");
    put_text("/sys/class/fc_host/host5/npiv_vports_inuse", "1\n");
    put_text("/sys/class/fc_host/host5/vport_create", "");
    block_begin(&t, "/dev/sdb");
    t.disk.npiv = npiv;
    look_block(&t.l, makedev(8, 16), true);
    assert_string_equal(id_value(t.l.out, "npiv"), "absent");
    assert_string_equal(id_value(t.l.out, "npiv-host"), "host5");
    lab_end(&t);

    put_text("/sys/class/fc_host/host7/port_name", "0x5001a4a000000001\n");
    put_text("/sys/class/fc_host/host7/node_name", "0x5001a4a000000002\n");
    put_text("/sys/class/fc_host/host7/port_state", "Linkdown\n");
    block_begin(&t, "/dev/sdb");
    t.disk.npiv = npiv;
    look_block(&t.l, makedev(8, 16), true);
    assert_string_equal(id_value(t.l.out, "npiv"), "offline");
    lab_end(&t);
    put_text("/sys/class/fc_host/host7/port_state", "Online\n");
    block_begin(&t, "/dev/sdb");
    t.disk.npiv = npiv;
    look_block(&t.l, makedev(8, 16), true);
    assert_string_equal(id_value(t.l.out, "npiv"), "online");
    lab_end(&t);
    block_begin(&t, "/dev/sdb");
    t.disk.npiv = (char *)(uintptr_t) "5001a4a000000001";
    look_block(&t.l, makedev(8, 16), true);
    expect_failure(&t, "invalid", "give WWPN:WWNN, 16 hex digits each");
}

/* --- parsers --- */

static void scsi_names(void **state)
{
    struct vpd_name names[VPD_NAMES_MAX];
    char serial[VPD_NAME_LEN];
    uint8_t many[4 + 40 * 5] = { 0, 0x83, 0, 40 * 5 };

    (void)state;
    assert_int_equal(vpd_names(page83, sizeof page83, names), 1);
    assert_string_equal(names[0].kind, "naa");
    assert_int_equal(vpd_names(page83, 15, names), 0); /* cut within the name */
    assert_int_equal(vpd_names(page80, sizeof page80, names), 0);
    assert_int_equal(vpd_names(page83, 3, names), 0);
    for (size_t i = 0; i < 40; i++)
        memcpy(many + 4 + 5 * i, (uint8_t[]){ 2, 1, 0, 1, (uint8_t)('A' + i) }, 5);
    assert_int_equal(vpd_names(many, sizeof many, names), VPD_NAMES_MAX);
    vpd_serial(page80, sizeof page80, serial);
    assert_string_equal(serial, "Z1F0");
    vpd_serial(page83, sizeof page83, serial);
    assert_string_equal(serial, "");
}

static void scsi_answers(void **state)
{
    static const uint8_t capacity[32] = { 0, 0, 0, 0, 0, 0x3f, 0xff, 0xff, 0, 0, 2, 0 };
    static const uint8_t all[12] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0 };
    static const uint8_t odd[12] = { 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 3, 0 };
    static const uint8_t keys[24] = { 0, 0, 0, 1, 0, 0, 0, 64, 1, 2, 3, 4, 5, 6, 7, 8 };
    static const uint8_t holder[24] = { 0, 0, 0, 1, 0, 0, 0, 16, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0,
        0, 5 };
    static const uint8_t nobody[8] = { 0, 0, 0, 1 };
    uint64_t bytes, key[VPD_KEYS_MAX];
    uint32_t block;
    unsigned type;

    (void)state;
    assert_true(vpd_capacity(capacity, sizeof capacity, &bytes, &block));
    assert_int_equal(bytes, UINT64_C(0x400000) * 512);
    assert_int_equal(block, 512);
    assert_false(vpd_capacity(capacity, 11, &bytes, &block));
    assert_false(vpd_capacity(all, sizeof all, &bytes, &block));
    assert_false(vpd_capacity(odd, sizeof odd, &bytes, &block));
    assert_int_equal(vpd_keys(keys, sizeof keys, key), 2); /* of 8 that it claims */
    assert_true(key[0] == UINT64_C(0x0102030405060708));
    assert_int_equal(vpd_keys(keys, 7, key), 0);
    assert_true(vpd_holder(holder, sizeof holder, &key[0], &type));
    assert_int_equal(type, 5);
    assert_false(vpd_holder(nobody, sizeof nobody, &key[0], &type));
    assert_true(vpd_write_protected((uint8_t[]){ 3, 0, 0x80, 0 }, 4));
    assert_false(vpd_write_protected((uint8_t[]){ 3, 0, 0x80 }, 3));
    assert_true(vpd_can_reserve((uint8_t[]){ 0, 8, 0, 0x80, 0x20, 0, 0, 0 }, 8));
    assert_false(vpd_can_reserve((uint8_t[]){ 0, 8, 0, 0x80, 0x02, 0, 0, 0 }, 8));
    assert_true(vpd_can_reserve((uint8_t[]){ 0, 8, 0, 0, 0, 0, 0, 0 }, 8));
    assert_false(vpd_can_reserve((uint8_t[]){ 0, 8 }, 2));
}

static void image_formats(void **state)
{
    static const char vmdk[] = "# Disk DescriptorFile\nparentFileNameHint=\"base.vmdk\"\n";
    uint8_t head[IMAGE_HEAD] = { 0 };
    char backing[IMAGE_NAME];

    (void)state;
    assert_null(image_format(head, sizeof head, backing));
    assert_null(image_format(head, 0, backing));
    memcpy(head, "QFI\xfb\0\0\0\1", 8);
    assert_string_equal(image_format(head, sizeof head, backing), "qcow");
    assert_string_equal(backing, "");
    assert_string_equal(image_format(head, 8, backing), "qcow");
    memcpy(head + 8, "\xff\xff\xff\xff\xff\xff\xff\xff\0\0\1\0", 12);
    assert_string_equal(image_format(head, sizeof head, backing), "qcow");
    assert_string_equal(backing, "?");
    assert_string_equal(image_format((const uint8_t *)vmdk, sizeof vmdk, backing), "vmdk");
    assert_string_equal(backing, "base.vmdk");
    assert_string_equal(image_format((const uint8_t *)vmdk, 50, backing), "vmdk");
    assert_string_equal(backing, "");
    memset(head, 0, sizeof head);
    memcpy(head + 64, "\x7f\x10\xda\xbe", 4);
    assert_string_equal(image_format(head, sizeof head, backing), "vdi");
    memset(head, 0, sizeof head);
    memcpy(head, "vhdxfile", 8);
    assert_string_equal(image_format(head, sizeof head, backing), "vhdx");
    memset(head, 0, sizeof head);
    memcpy(head, "QED\0", 4);
    head[16] = 1, head[56] = 64, head[60] = 4;
    memcpy(head + 64, "base", 4);
    assert_string_equal(image_format(head, sizeof head, backing), "qed");
    assert_string_equal(backing, "base");
}

/* --- all at once --- */

static void several_disks(void **state)
{
    Migrd__StorageRequest rq = MIGRD__STORAGE_REQUEST__INIT;
    Migrd__StorageReply r = MIGRD__STORAGE_REPLY__INIT;
    Migrd__Disk like = MIGRD__DISK__INIT;
    char a[PATH_MAX], b[PATH_MAX];
    char *sources[] = { a, b };

    (void)state;
    put_text("/c.img", "raw");
    path_of(a, "/c.img");
    path_of(b, "/missing.img");
    like.device = (char *)(uintptr_t) "vda";
    rq.n_disks = 2;
    rq.disks = storage_disks(&like, sources, 2);
    assert_non_null(rq.disks);
    storage_serve(&rq, &r);
    assert_int_equal(r.n_disks, 2);
    assert_int_equal(r.n_answers, 2);
    assert_string_equal(r.disks[0]->code, "");
    assert_string_equal(r.disks[0]->device, "vda");
    assert_string_equal(r.disks[0]->source, a);
    assert_string_equal(r.disks[1]->code, "not-found");
    free(rq.disks);
    for (size_t i = 0; i < 2; i++) {
        migrd__disk_identity__free_unpacked(r.disks[i], NULL);
        free(r.answers[i]);
        free(r.answer_errors[i]);
    }
    free(r.disks);
    free(r.answers);
    free(r.answer_errors);
}

/* Beside a test there is no migrd-storage: each disk says so. */
static void no_program(void **state)
{
    Migrd__StorageRequest rq = MIGRD__STORAGE_REQUEST__INIT;
    Migrd__Disk like = MIGRD__DISK__INIT;
    char a[] = "/a.img", b[] = "/b.img", old[PATHS_LEN];
    char *sources[] = { a, b };
    Migrd__StorageReply *r;

    (void)state;
    if (paths_program(old, "migrd-storage", NULL) == 0)
        skip();
    rq.n_disks = 2;
    rq.disks = storage_disks(&like, sources, 2);
    r = storage_ask_disks(&rq, 0);
    assert_non_null(r);
    assert_int_equal(r->n_disks, 2);
    assert_int_equal(r->n_answers, 2);
    assert_int_equal(r->n_answer_errors, 2);
    assert_string_equal(r->disks[1]->source, b);
    assert_string_equal(r->disks[1]->code, "not-found");
    migrd__storage_reply__free_unpacked(r, NULL);
    free(rq.disks);
}

/* A program of ours in place of migrd-storage. */
static int ask_script(const char *script, unsigned ms, Migrd__StorageReply **r, struct err *e)
{
    Migrd__StorageRequest rq = MIGRD__STORAGE_REQUEST__INIT;
    Migrd__Disk like = MIGRD__DISK__INIT;
    char source[] = "/a.img", path[PATH_MAX], text[512];
    char *sources[] = { source };
    int rc;

    snprintf(text, sizeof text, "#!/bin/sh\n%s\n", script);
    put_text("/script", text);
    path_of(path, "/script");
    chmod(path, 0755);
    rq.n_disks = 1;
    rq.disks = storage_disks(&like, sources, 1);
    assert_non_null(rq.disks);
    rc = storage_ask_program(path, &rq, ms, r, e);
    free(rq.disks);
    return rc;
}

static void programs_that_fail(void **state)
{
    static const struct {
        const char *script, *text;
        enum err_code code;
    } cases[] = {
        { "cat >/dev/null; printf '\\377\\377'", "migrd-storage: its answer cannot be read",
            ERR_INTERNAL },
        { "exit 0", "migrd-storage: 0 disks in its answer instead of 1", ERR_INTERNAL },
        { "exit 3", "migrd-storage ended with status 3; see the log", ERR_INTERNAL },
        { "echo mischief >&2; kill -SEGV $$", "migrd-storage ended with signal 11; see the log",
            ERR_INTERNAL },
        { "exec sleep 60", "migrd-storage did not answer in time and was killed; the storage hangs",
            ERR_TIMEOUT },
        { "exec >&-; exec 2>&-; exec sleep 60", "migrd-storage ended with signal 9; see the log",
            ERR_INTERNAL },
    };
    uint64_t began = clock_ns();

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Migrd__StorageReply *r;
        struct err e;

        assert_int_equal(ask_script(cases[i].script, 700, &r, &e), -1);
        assert_null(r);
        assert_string_equal(e.text, cases[i].text);
        assert_int_equal(e.code, cases[i].code);
    }
    assert_true(clock_ns() - began < 30 * NS_PER_S);
}

/* One disk, an answer, and no word on stderr that would stop it. */
static void a_program_that_answers(void **state)
{
    Migrd__StorageReply *r;
    struct err e;

    (void)state;
    assert_int_equal(
        ask_script("cat >/dev/null; echo a word >&2; printf '\\n\\3\\n\\1x\\22\\1y\\32\\1z'", 5000,
            &r, &e),
        0);
    assert_string_equal(r->disks[0]->device, "x");
    assert_string_equal(r->answers[0], "y");
    assert_string_equal(r->answer_errors[0], "z");
    migrd__storage_reply__free_unpacked(r, NULL);
}

static void replies(void **state)
{
    struct err e;

    (void)state;
    assert_null(storage_reply_parse("\xff\xff", 2, 1, &e));
    assert_int_equal(e.code, ERR_INTERNAL);
    assert_null(storage_reply_parse("", 0, 1, &e));
    assert_string_equal(e.text, "migrd-storage: 0 disks in its answer instead of 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file),
        cmocka_unit_test(files_that_cannot_be_used),
        cmocka_unit_test(image_is_refused),
        cmocka_unit_test(locked_files),
        cmocka_unit_test(challenge_and_answer),
        cmocka_unit_test(foreign_challenges),
        cmocka_unit_test(old_challenges_go),
        cmocka_unit_test(a_fibre_channel_disk),
        cmocka_unit_test(other_devices),
        cmocka_unit_test(wanted_wwn),
        cmocka_unit_test(what_to_open),
        cmocka_unit_test(virtual_ports),
        cmocka_unit_test(scsi_names),
        cmocka_unit_test(scsi_answers),
        cmocka_unit_test(image_formats),
        cmocka_unit_test(several_disks),
        cmocka_unit_test(no_program),
        cmocka_unit_test(programs_that_fail),
        cmocka_unit_test(a_program_that_answers),
        cmocka_unit_test(replies),
    };

    return cmocka_run_group_tests(tests, make_root, remove_root);
}
