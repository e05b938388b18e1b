/* SPDX-License-Identifier: ISC */
/*
 * Is it the same disk, and safe to share? Each case changes one thing of a pair that agrees, and
 * expects one line: its verdict, its text and its remedy, to the letter.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/pbjson.h"
#include "storage-check/identity_internal.h"

#define NONCE "00112233445566778899aabbccddeeff"
#define OTHER_NONCE "ffeeddccbbaa99887766554433221100"
#define NFS "nfs://nas/export/web1.img"
#define ISCSI "iscsi://nas/iqn.2026-01.net:web/1"

struct pair {
    Migrd__Disk disk;
    Migrd__DiskIdentity *s, *t;
    char answer[NONCE_LEN + 1], why[200];
};

typedef void make_fn(struct pair *p);
typedef void change_fn(struct pair *p);

/* --- pairs that agree --- */

static Migrd__DiskIdentity *identity(Migrd__StorageKind kind, const char *source)
{
    Migrd__DiskIdentity *id = malloc(sizeof *id);

    assert_non_null(id);
    migrd__disk_identity__init(id);
    id->kind = kind;
    id->size = 10737418240;
    id_text(&id->device, "vda");
    id_text(&id->source, "%s", source);
    return id;
}

static void challenge(struct pair *p)
{
    p->s->challenge = malloc(sizeof(Migrd__Challenge));
    migrd__challenge__init(p->s->challenge);
    id_text(&p->s->challenge->name, ".web1.img.migrd-check-0123456789abcdef");
    id_text(&p->s->challenge->nonce, NONCE);
    strcpy(p->answer, NONCE);
}

/* The target sees what the source sees. */
static void both(struct pair *p)
{
    p->t = pb_copy(&p->s->base);
    assert_non_null(p->t);
}

static void nfs(struct pair *p)
{
    p->disk.source = (char *)(uintptr_t)NFS;
    p->s = identity(MIGRD__STORAGE_KIND__STORAGE_NFS, NFS);
    p->s->shared = true;
    id_add(p->s, "nfs-server", "nas");
    id_add(p->s, "nfs-address", "10.0.0.7");
    id_add(p->s, "nfs-export", "/export");
    id_add(p->s, "nfs-fsid", "1f");
    id_add(p->s, "nfs-handle", "43000001");
    id_add(p->s, "inode", "1234");
    id_text(&p->s->fence, "uid");
    both(p);
    challenge(p);
}

static void shared_file(struct pair *p)
{
    p->disk.source = (char *)(uintptr_t) "/vm/web1.img";
    p->s = identity(MIGRD__STORAGE_KIND__STORAGE_FILE, "/vm/web1.img");
    p->s->shared = true;
    id_text(&p->s->path_kind, "nfs4");
    id_text(&p->s->fence, "uid");
    id_add(p->s, "mount-source", "nas:/export");
    id_add(p->s, "inode", "1234");
    both(p);
    challenge(p);
}

static void local_file(struct pair *p)
{
    shared_file(p);
    p->s->shared = p->t->shared = false;
    id_text(&p->s->path_kind, "ext4");
    id_text(&p->t->path_kind, "ext4");
}

static void iscsi(struct pair *p)
{
    p->disk.source = (char *)(uintptr_t)ISCSI;
    p->s = identity(MIGRD__STORAGE_KIND__STORAGE_ISCSI, ISCSI);
    p->s->shared = true;
    p->s->block_size = 512;
    id_add(p->s, "naa", "6001405aaaaaaaaaaaaaaaaaaaaaaaaa");
    id_add(p->s, "t10", "LIO-ORG web1");
    id_add(p->s, "serial", "aaaa-1");
    id_text(&p->s->fence, "reservation");
    both(p);
}

static void fibre(struct pair *p)
{
    p->disk.source = (char *)(uintptr_t) "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4";
    p->s = identity(MIGRD__STORAGE_KIND__STORAGE_BLOCK, p->disk.source);
    p->s->shared = true;
    p->s->block_size = 512;
    id_add(p->s, "naa", "5000c500a1b2c3d4");
    id_add(p->s, "serial", "Z1F0");
    id_add(p->s, "device-name", "sdb");
    id_text(&p->s->fence, "reservation");
    both(p);
}

static void serial_only(struct pair *p)
{
    fibre(p);
    id_text(&p->s->designators[0]->kind, "vendor");
    id_text(&p->t->designators[0]->kind, "vendor");
}

/* --- changes --- */

static void nothing(struct pair *p)
{
    (void)p;
}

static void set(Migrd__DiskIdentity *id, const char *kind, const char *value)
{
    for (size_t i = 0; i < id->n_designators; i++)
        if (strcmp(id->designators[i]->kind, kind) == 0) {
            id_text(&id->designators[i]->value, "%s", value);
            return;
        }
    id_add(id, kind, "%s", value);
}

static void set_error(Migrd__DiskIdentity *id, const char *code, const char *text)
{
    id_text(&id->code, "%s", code);
    id_text(&id->error, "%s", text);
}

static void source_fails(struct pair *p)
{
    set_error(p->s, "timeout", NFS ": the NFS server nas does not answer");
}

static void target_fails(struct pair *p)
{
    set_error(p->t, "refused", NFS ": the NFS server nas does not export /export to this host");
}

static void target_is_device(struct pair *p)
{
    p->t->kind = MIGRD__STORAGE_KIND__STORAGE_BLOCK;
}

static void unanswered(struct pair *p)
{
    p->answer[0] = '\0';
    strcpy(p->why, "there is no .web1.img.migrd-check-0123456789abcdef in /export of nas");
}

static void unanswered_elsewhere(struct pair *p)
{
    unanswered(p);
    set(p->t, "nfs-address", "10.0.0.9");
}

static void unanswered_silently(struct pair *p)
{
    p->answer[0] = '\0';
}

static void answered_wrong(struct pair *p)
{
    strcpy(p->answer, OTHER_NONCE);
}

static void other_inode(struct pair *p)
{
    set(p->t, "inode", "1235");
}

static void other_server(struct pair *p)
{
    set(p->t, "nfs-server", "10.0.0.7");
    set(p->t, "nfs-export", "/srv/export");
}

static void other_handle(struct pair *p)
{
    set(p->t, "nfs-handle", "43000002");
}

static void no_challenge(struct pair *p)
{
    migrd__challenge__free_unpacked(p->s->challenge, NULL);
    p->s->challenge = NULL;
    p->answer[0] = '\0';
    id_text(&p->s->error, "no file can be made beside it: permission denied");
}

static void no_challenge_other_fsid(struct pair *p)
{
    no_challenge(p);
    set(p->t, "nfs-fsid", "20");
}

static void no_challenge_other_mount(struct pair *p)
{
    no_challenge(p);
    set(p->t, "mount-source", "nas2:/export");
}

static void no_challenge_same_uuid(struct pair *p)
{
    no_challenge(p);
    set(p->s, "fs-uuid", "aa-bb");
    set(p->t, "fs-uuid", "aa-bb");
}

static void read_only_unanswered(struct pair *p)
{
    unanswered(p);
    p->disk.read_only = true;
}

static void read_only_other_size(struct pair *p)
{
    read_only_unanswered(p);
    p->t->size = 1024;
}

static void target_local(struct pair *p)
{
    unanswered(p);
    p->t->shared = false;
    id_text(&p->t->path_kind, "xfs");
}

static void smaller(struct pair *p)
{
    p->t->size = 5368709120;
}

static void bigger_blocks(struct pair *p)
{
    p->t->block_size = 4096;
}

static void target_reads(struct pair *p)
{
    p->t->read_only = true;
}

static void source_reads(struct pair *p)
{
    p->s->read_only = true;
}

static void both_read(struct pair *p)
{
    p->s->read_only = p->t->read_only = true;
}

static void cd_rom(struct pair *p)
{
    both_read(p);
    p->disk.read_only = true;
}

static void used_there(struct pair *p)
{
    id_text(&p->t->used_by, "process 4711 (qemu-system-x86) that locks images as QEMU does");
}

static void used_here(struct pair *p)
{
    id_text(&p->s->used_by, "process 4711 (dd) with a lock on it");
}

static void used_there_read_only(struct pair *p)
{
    used_there(p);
    p->disk.read_only = true;
}

static void backing_missing(struct pair *p)
{
    id_add_backing(p->s, "/vm/base.img");
    id_add_backing(p->s, "/vm/snap.img");
    id_add_backing(p->t, "/vm/base.img");
}

static void backing_there(struct pair *p)
{
    id_add_backing(p->s, "/vm/base.img");
    id_add_backing(p->t, "/vm/base.img");
}

static void unsafe(struct pair *p)
{
    p->disk.cache = (char *)(uintptr_t) "unsafe";
}

static void unsafe_read_only(struct pair *p)
{
    unsafe(p);
    p->disk.read_only = true;
}

static void writeback(struct pair *p)
{
    p->disk.cache = (char *)(uintptr_t) "writeback";
}

static void unfenced(struct pair *p)
{
    id_text(&p->s->fence, "%s", "");
    id_text(&p->t->fence, "%s", "");
    id_text(&p->t->fence_note, "storage-nfs-uid-base is not set");
}

static void unfenced_silently(struct pair *p)
{
    id_text(&p->t->fence, "%s", "");
}

static void fenced_there_only(struct pair *p)
{
    id_text(&p->s->fence, "%s", "");
}

static void no_reservations(struct pair *p)
{
    id_text(&p->t->fence, "%s", "");
    id_text(&p->t->fence_note, "the LUN has no persistent reservations");
}

static void no_locks(struct pair *p)
{
    set(p->t, "nfs-locks", "refused: NFS4ERR_NOTSUPP");
}

static void other_lease(struct pair *p)
{
    id_text(&p->s->lease_owner, "host1");
    p->s->lease_epoch = 4;
    id_text(&p->t->lease_owner, "host3");
    p->t->lease_epoch = 5;
}

static void lease_missing(struct pair *p)
{
    id_text(&p->s->lease_owner, "host1");
    p->s->lease_epoch = 4;
}

static void held(struct pair *p)
{
    id_text(&p->s->lease_owner, "host1");
    id_text(&p->t->lease_owner, "with-key-6d09");
    set(p->s, "pr-holder", "6d09 type 5");
    set(p->t, "pr-holder", "6d09 type 5");
}

static void other_holder(struct pair *p)
{
    held(p);
    set(p->t, "pr-holder", "6d0a type 5");
}

static void holder_missing(struct pair *p)
{
    held(p);
    set(p->t, "pr-holder", "");
}

static void other_naa(struct pair *p)
{
    set(p->t, "naa", "6001405bbbbbbbbbbbbbbbbbbbbbbbbb");
}

static void second_naa(struct pair *p)
{
    id_add(p->s, "naa", "3000000100000000");
    id_add(p->t, "naa", "3000000100000000");
    other_naa(p);
}

static void naa_missing(struct pair *p)
{
    id_text(&p->t->designators[0]->kind, "vendor");
}

static void other_t10(struct pair *p)
{
    set(p->t, "t10", "LIO-ORG web2");
}

static void other_serial(struct pair *p)
{
    set(p->t, "serial", "bbbb-2");
}

static void tgt_default(struct pair *p)
{
    set(p->s, "serial", "beaf11"), set(p->t, "serial", "beaf11");
    set(p->s, "t10", "IET     00010001"), set(p->t, "t10", "IET     00010001");
}

static void nameless(struct pair *p)
{
    for (size_t i = 0; i < p->s->n_designators; i++) {
        id_text(&p->s->designators[i]->kind, "vendor");
        id_text(&p->t->designators[i]->kind, "vendor");
    }
}

static void nameless_read_only(struct pair *p)
{
    nameless(p);
    p->disk.read_only = true;
}

static void other_name_there(struct pair *p)
{
    set(p->t, "device-name", "sdc");
}

static void other_partition(struct pair *p)
{
    set(p->s, "partition", "1");
    set(p->t, "partition", "2");
}

static void one_host_alone(struct pair *p)
{
    p->s->shared = p->t->shared = false;
    set(p->s, "transport", "ATA");
    set(p->t, "transport", "ATA");
}

static void npiv_up(struct pair *p)
{
    p->disk.npiv = (char *)(uintptr_t) "5001a4a000000001:5001a4a000000002";
    set(p->t, "npiv", "online");
    set(p->t, "npiv-host", "host7");
}

static void npiv_down(struct pair *p)
{
    npiv_up(p);
    set(p->t, "npiv", "offline");
}

static void npiv_absent(struct pair *p)
{
    npiv_up(p);
    set(p->t, "npiv", "absent");
    set(p->t, "npiv-host", "host5");
}

static void npiv_impossible(struct pair *p)
{
    npiv_up(p);
    set(p->t, "npiv", "impossible");
    set(p->t, "npiv-host", "");
}

static void lvm(struct pair *p)
{
    nameless(p);
    set(p->s, "dm-uuid", "LVM-abc");
    set(p->t, "dm-uuid", "LVM-def");
}

/* --- the table --- */

static const struct {
    make_fn *make;
    change_fn *change;
    enum check_result result;
    const char *text, *remedy;
} cases[] = {
#define OK CHECK_OK
#define WARN CHECK_WARN
#define REFUSED CHECK_REFUSED
    /* what is fine */
    { nfs, nothing, OK,
        "disk vda: the same file: the target has read what the source left beside it", "" },
    { nfs, other_server, OK,
        "disk vda: the same file, although the hosts name its server or export differently", "" },
    { nfs, other_handle, OK,
        "disk vda: the same file: the target has read what the source left beside it", "" },
    { nfs, cd_rom, OK,
        "disk vda: the same file: the target has read what the source left beside it", "" },
    { nfs, writeback, OK,
        "disk vda: the same file: the target has read what the source left beside it", "" },
    { nfs, backing_there, OK,
        "disk vda: the same file: the target has read what the source left beside it", "" },
    { shared_file, nothing, OK,
        "disk vda: the same file: the target has read what the source left beside it", "" },
    { local_file, nothing, OK,
        "disk vda: the same file: its file system (ext4) counts as local, but both hosts reach it",
        "" },
    { iscsi, nothing, OK, "disk vda: the same iSCSI LUN by its NAA name (WWN)", "" },
    { fibre, nothing, OK, "disk vda: the same block device by its NAA name (WWN)", "" },
    { fibre, other_name_there, OK,
        "disk vda: the same block device by its NAA name (WWN), as sdb on the source and sdc on "
        "the target",
        "" },
    { fibre, npiv_up, OK,
        "disk vda: its virtual port 5001a4a000000001:5001a4a000000002 is up on the target (host7)",
        "" },

    /* 1, 2 */
    { nfs, source_fails, REFUSED,
        "disk vda: it cannot be used on the source: " NFS ": the NFS server nas does not answer",
        "" },
    { nfs, target_fails, REFUSED,
        "disk vda: it cannot be used on the target: " NFS
        ": the NFS server nas does not export /export to this host",
        "" },
    { local_file, target_is_device, REFUSED,
        "disk vda: its name means something else on either host",
        "use a name that means the same on both, such as nfs://, iscsi:// or "
        "/dev/disk/by-id/..." },

    /* 3: NFS and files */
    { nfs, unanswered, REFUSED,
        "disk vda: the target does not find what the source left beside it (there is no "
        ".web1.img.migrd-check-0123456789abcdef in /export of nas): " NFS
        " is another export with the same path",
        "look what the server's name means on the target, and what the server exports there" },
    { nfs, unanswered_elsewhere, REFUSED,
        "disk vda: the target does not find what the source left beside it (there is no "
        ".web1.img.migrd-check-0123456789abcdef in /export of nas): " NFS
        " is another export with the same path",
        "look what the server's name means on the target, and what the server exports there" },
    { nfs, unanswered_silently, REFUSED,
        "disk vda: the target does not find what the source left beside it (no such file): " NFS
        " is another export with the same path",
        "look what the server's name means on the target, and what the server exports there" },
    { nfs, answered_wrong, REFUSED,
        "disk vda: the file that the source left beside it reads differently on the target",
        "another host's challenge, or a cache in between: try again" },
    { nfs, other_inode, REFUSED,
        "disk vda: both hosts see the same folder, but another file in it (the inodes differ)",
        "look for a symbolic link, or a file that was replaced while the guest ran" },
    { nfs, no_challenge, WARN,
        "disk vda: taken for the same file by file system id and inode alone: no challenge was "
        "left beside it (no file can be made beside it: permission denied)",
        "" },
    { nfs, no_challenge_other_fsid, REFUSED,
        "disk vda: nothing proves that it is the same file: file system id or inode differ, and "
        "no challenge was left beside it (no file can be made beside it: permission denied)",
        "let the source write the folder of the disk, or use the same server and path on both "
        "hosts" },
    { nfs, read_only_unanswered, WARN,
        "disk vda: a file that the guest only reads; only its size was compared", "" },
    { nfs, read_only_other_size, REFUSED,
        "disk vda: the target does not find what the source left beside it (there is no "
        ".web1.img.migrd-check-0123456789abcdef in /export of nas): " NFS
        " is another export with the same path",
        "look what the server's name means on the target, and what the server exports there" },
    { shared_file, unanswered_silently, REFUSED,
        "disk vda: the target does not find what the source left beside it (no such file): "
        "/vm/web1.img is on another share there",
        "mount the same share on both hosts" },
    { shared_file, target_local, REFUSED,
        "disk vda: it is a file on a local file system (xfs) of the target",
        "put it on NFS or iSCSI, where both hosts reach it" },
    { shared_file, no_challenge, WARN,
        "disk vda: taken for the same file by file system and inode alone: no challenge was left "
        "beside it (no file can be made beside it: permission denied)",
        "" },
    { shared_file, no_challenge_same_uuid, WARN,
        "disk vda: taken for the same file by file system and inode alone: no challenge was left "
        "beside it (no file can be made beside it: permission denied)",
        "" },
    { shared_file, no_challenge_other_mount, REFUSED,
        "disk vda: nothing proves that it is the same file: file system or inode differ, and no "
        "challenge was left beside it (no file can be made beside it: permission denied)",
        "let the source write the folder of the disk, or use the same server and path on both "
        "hosts" },
    { local_file, unanswered, REFUSED,
        "disk vda: it is a file on a local file system (ext4) of the source",
        "put it on NFS or iSCSI, where both hosts reach it" },
    { local_file, no_challenge, REFUSED,
        "disk vda: it is a file on a local file system (ext4) of the source",
        "put it on NFS or iSCSI, where both hosts reach it" },
    { local_file, read_only_unanswered, WARN,
        "disk vda: a file that the guest only reads; only its size was compared", "" },

    /* 3: LUNs and devices */
    { iscsi, other_naa, REFUSED,
        "disk vda: the target has another iSCSI LUN under this name: its NAA name (WWN) differs",
        "the URL leads to another LUN there: correct the portal, target or LUN" },
    { iscsi, second_naa, REFUSED,
        "disk vda: the target has another iSCSI LUN under this name: its NAA name (WWN) differs",
        "the URL leads to another LUN there: correct the portal, target or LUN" },
    { iscsi, naa_missing, REFUSED,
        "disk vda: the target has another iSCSI LUN under this name: its NAA name (WWN) differs",
        "the URL leads to another LUN there: correct the portal, target or LUN" },
    { iscsi, other_t10, REFUSED,
        "disk vda: the target has another iSCSI LUN under this name: its T10 name differs",
        "the URL leads to another LUN there: correct the portal, target or LUN" },
    { iscsi, other_serial, REFUSED,
        "disk vda: two devices claim one name: the WWN agrees, the serial number does not",
        "one is a copy of the other, with its name: give it a WWN of its own on the storage" },
    { iscsi, tgt_default, WARN,
        "disk vda: the same iSCSI LUN by its NAA name (WWN), but that is what every tgt server "
        "calls its LUNs",
        "set scsi_id and scsi_sn of the LUN on the server" },
    { iscsi, nameless, REFUSED,
        "disk vda: nothing tells whether it is the same device: it has neither a WWN nor a serial "
        "number",
        "use storage that names its LUNs, or nfs:// or iscsi://" },
    { fibre, other_naa, REFUSED,
        "disk vda: the target has another block device under this name: its NAA name (WWN) differs",
        "set wwn= in the definition, or use /dev/disk/by-id/...: kernel names change" },
    { fibre, other_partition, REFUSED, "disk vda: it is another partition of the same device",
        "set wwn= in the definition, or use /dev/disk/by-id/...: kernel names change" },
    { fibre, lvm, REFUSED,
        "disk vda: the target has another block device under this name: its device mapper uuid "
        "differs",
        "set wwn= in the definition, or use /dev/disk/by-id/...: kernel names change" },
    { serial_only, nothing, WARN, "disk vda: taken for the same device by its serial number alone",
        "" },
    { serial_only, other_serial, REFUSED,
        "disk vda: the target has another device under this name: its serial number differs",
        "set wwn= in the definition, or use /dev/disk/by-id/...: kernel names change" },
    { serial_only, one_host_alone, REFUSED, "disk vda: it is a device of one host alone",
        "put the disk on NFS, iSCSI or Fibre Channel, where both hosts reach it" },
    { fibre, nameless_read_only, WARN,
        "disk vda: a device that the guest only reads; only its size was compared", "" },

    /* 4 */
    { nfs, smaller, REFUSED,
        "disk vda: it has 10737418240 bytes on the source and 5368709120 on the target",
        "rescan it on the host that is behind, or finish its resizing first" },
    { iscsi, smaller, REFUSED,
        "disk vda: it has 10737418240 bytes on the source and 5368709120 on the target",
        "rescan it on the host that is behind, or finish its resizing first" },
    { iscsi, bigger_blocks, REFUSED,
        "disk vda: its logical blocks have 512 bytes on the source and 4096 on the target",
        "present it with the same block size to both hosts" },
    { nfs, other_lease, REFUSED,
        "disk vda: the record of its lease reads differently on either host",
        "it is another disk, or another host is just taking it over: see 'migctl storage lease " NFS
        "' on both" },
    { nfs, lease_missing, REFUSED,
        "disk vda: the record of its lease reads differently on either host",
        "it is another disk, or another host is just taking it over: see 'migctl storage lease " NFS
        "' on both" },
    { iscsi, held, OK, "disk vda: the same iSCSI LUN by its NAA name (WWN)", "" },
    { iscsi, other_holder, REFUSED,
        "disk vda: the record of its lease reads differently on either host",
        "it is another disk, or another host is just taking it over: see 'migctl storage "
        "lease " ISCSI "' on both" },
    { iscsi, holder_missing, REFUSED,
        "disk vda: the record of its lease reads differently on either host",
        "it is another disk, or another host is just taking it over: see 'migctl storage "
        "lease " ISCSI "' on both" },

    /* 5 */
    { nfs, target_reads, REFUSED, "disk vda: the target can only read it",
        "export it read and write to the target (rw), or make the disk read only" },
    { nfs, both_read, REFUSED, "disk vda: the target can only read it, nor can the source write it",
        "export it read and write to the target (rw), or make the disk read only" },
    { nfs, source_reads, WARN, "disk vda: the source can only read it",
        "export it read and write to the target (rw), or make the disk read only" },
    { iscsi, target_reads, REFUSED, "disk vda: the target can only read it",
        "take the LUN's write protection off, or make the disk read only" },
    { fibre, target_reads, REFUSED, "disk vda: the target can only read it",
        "blockdev --setrw there, or make the disk read only" },
    { shared_file, target_reads, REFUSED, "disk vda: the target can only read it",
        "mount it read and write there, or make the disk read only" },
    { shared_file, used_there, REFUSED,
        "disk vda: on the target it is in use by process 4711 (qemu-system-x86) that locks images "
        "as QEMU does",
        "end that there first" },
    { shared_file, used_there_read_only, WARN,
        "disk vda: on the target it is in use by process 4711 (qemu-system-x86) that locks images "
        "as QEMU does",
        "end that there first" },
    { shared_file, used_here, WARN,
        "disk vda: on the source it is also in use by process 4711 (dd) with a lock on it",
        "two writers ruin a disk: see that this one only reads" },
    { fibre, backing_missing, REFUSED,
        "disk vda: the file below it, /vm/snap.img, is not on the target",
        "put that on shared storage, too, or merge the snapshot into one image" },
    { fibre, npiv_down, REFUSED,
        "disk vda: its virtual Fibre Channel port 5001a4a000000001:5001a4a000000002 is down on the "
        "target",
        "bring the link of host7 up: see its port_state in /sys/class/fc_host" },
    { fibre, npiv_absent, REFUSED,
        "disk vda: its virtual Fibre Channel port 5001a4a000000001:5001a4a000000002 is not there "
        "on "
        "the target",
        "make it there: echo '5001a4a000000001:5001a4a000000002' > "
        "/sys/class/fc_host/host5/vport_create" },
    { fibre, npiv_impossible, REFUSED,
        "disk vda: its virtual Fibre Channel port 5001a4a000000001:5001a4a000000002 is not there "
        "on "
        "the target",
        "the target has no Fibre Channel adapter with NPIV and a port left" },

    /* 6, 7 */
    { nfs, unsafe, REFUSED,
        "disk vda: cache mode unsafe ignores the guest's flushes, so the storage may lack what the "
        "guest has written",
        "use none, writethrough or writeback" },
    { nfs, unsafe_read_only, OK,
        "disk vda: the same file: the target has read what the source left beside it", "" },
    { nfs, unfenced, WARN,
        "disk vda: nothing on the storage keeps a host that lost the disk from writing: "
        "storage-nfs-uid-base is not set",
        "leases alone guard it then; docs/storage.md tells what each server can" },
    { nfs, unfenced_silently, WARN,
        "disk vda: nothing on the storage keeps a host that lost the disk from writing",
        "leases alone guard it then; docs/storage.md tells what each server can" },
    { nfs, fenced_there_only, WARN, "disk vda: the storage fences it on the target only",
        "use the same storage-nfs-uid-base on all hosts" },
    { iscsi, no_reservations, WARN,
        "disk vda: nothing on the storage keeps a host that lost the disk from writing: the LUN "
        "has no persistent reservations",
        "leases alone guard it then; docs/storage.md tells what each server can" },
    { nfs, no_locks, WARN,
        "disk vda: the NFS server grants no locks to the target (refused: NFS4ERR_NOTSUPP)",
        "start its lock service, or serve the export by version 4" },
};

static size_t count(const struct checks *c, enum check_result r)
{
    size_t n = 0;

    for (size_t i = 0; i < c->n; i++)
        n += c->check[i].result == r;
    return n;
}

/* The line that the case is about: the first of its verdict, for what is fine the last. */
static const struct check *line_of(const struct checks *c, enum check_result r)
{
    const struct check *found = NULL;

    for (size_t i = 0; i < c->n; i++)
        if (c->check[i].result == r && (found == NULL || r == CHECK_OK))
            found = &c->check[i];
    return found;
}

static void one_case(size_t i)
{
    struct pair p = { .disk = MIGRD__DISK__INIT };
    struct checks c = { 0 };
    const struct check *k;

    p.disk.device = (char *)(uintptr_t) "vda";
    cases[i].make(&p);
    cases[i].change(&p);
    storage_compare(&c, &p.disk, p.s, p.t, p.answer, p.why);
    k = line_of(&c, cases[i].result);
    if (k == NULL || strcmp(k->text, cases[i].text) != 0 || strcmp(k->remedy, cases[i].remedy) != 0)
        print_error("case %zu: %s\n    wanted %s\n    remedy %s\n", i, cases[i].text,
            k != NULL ? k->text : "a line of that verdict", k != NULL ? k->remedy : "");
    assert_non_null(k);
    assert_string_equal(k->text, cases[i].text);
    assert_string_equal(k->remedy, cases[i].remedy);
    assert_string_equal(k->area, "storage");
    assert_string_equal(k->object, "vda");
    assert_int_equal(count(&c, CHECK_REFUSED), cases[i].result == CHECK_REFUSED);
    assert_int_equal(count(&c, CHECK_WARN), cases[i].result == CHECK_WARN);
    checks_free(&c);
    migrd__disk_identity__free_unpacked(p.s, NULL);
    migrd__disk_identity__free_unpacked(p.t, NULL);
}

static void table(void **state)
{
    size_t refusals = 0;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        one_case(i);
        refusals += cases[i].result != CHECK_OK;
    }
    assert_true(refusals >= 30);
}

/* Values of both sides stand in the line, and both hosts' failures are told. */
static void values_and_both_fail(void **state)
{
    struct pair p = { .disk = MIGRD__DISK__INIT };
    struct checks c = { 0 };
    struct err e;

    (void)state;
    p.disk.device = (char *)(uintptr_t) "vda";
    iscsi(&p);
    second_naa(&p);
    storage_compare(&c, &p.disk, p.s, p.t, "", "");
    assert_int_equal(c.n, 1);
    assert_string_equal(c.check[0].source, "6001405aaaaaaaaaaaaaaaaaaaaaaaaa");
    assert_string_equal(c.check[0].target, "6001405bbbbbbbbbbbbbbbbbbbbbbbbb");
    checks_free(&c);
    source_fails(&p);
    target_fails(&p);
    storage_compare(&c, &p.disk, p.s, p.t, "", "");
    assert_int_equal(c.refused, 2);
    assert_int_equal(checks_verdict(&c, &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    assert_string_equal(e.text, "disk vda: it cannot be used on the source: " NFS
                                ": the NFS server nas does not answer (and 1 more)");
    checks_free(&c);
    migrd__disk_identity__free_unpacked(p.s, NULL);
    migrd__disk_identity__free_unpacked(p.t, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(table),
        cmocka_unit_test(values_and_both_fail) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
