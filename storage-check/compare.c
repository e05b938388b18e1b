/* SPDX-License-Identifier: ISC */
/*
 * In this order; a refusal that says "another disk" ends the list, for the rest would
 * compare apples with pears:
 *   1 both hosts could look at it
 *   2 it is of the same kind
 *   3 it is the same one. Proof: NFS and files, the challenge (and the same inode: two names in
 *     one folder are two disks); iSCSI and block devices, the names that the device gives
 *     itself, all of them (a target may give one of its names to all of its LUNs). Without a
 *     challenge (the source could not leave one) handles and inodes must do, with a warning.
 *     A local file system's disk passes only by its challenge: then both hosts see one folder.
 *   4 size, block size, the record of its lease: the same on both sides
 *   5 it may be written there; nobody else has it open; what it needs below it is there
 *   6 cache mode: whatever the guest was told is written has been flushed when the
 *     guest is paused, and the target drops what it had cached before its first read; so only
 *     "unsafe", which ignores flushes, is refused
 *   7 what keeps a stale owner from writing, and locks: warnings
 * A disk that nobody may write needs no proof of being the same, its size must do.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "storage-check/identity.h"
#include "storage-check/identity_internal.h"

#define AREA "storage"
#define VALUE_LEN 160u

struct pair {
    struct checks *c;
    const Migrd__Disk *disk;
    const Migrd__DiskIdentity *s, *t;
    const char *answer, *why;
    const char *name;
    bool proof, another;
};

/* --- lines --- */

static struct check *say(struct pair *p, enum check_result r, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static struct check *say(struct pair *p, enum check_result r, const char *fmt, ...)
{
    char text[CHECKS_TEXT];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return checks_add(p->c, r, AREA, p->name, "disk %s: %s", p->name, text);
}

/* It is not the same disk: nothing else is worth comparing. */
static void another(
    struct pair *p, const char *source, const char *target, const char *text, const char *remedy)
{
    struct check *k = say(p, CHECK_REFUSED, "%s", text);

    checks_values(k, source, target);
    checks_remedy(k, "%s", remedy);
    p->another = true;
}

/* --- names of one kind on both sides --- */

enum same { SAME_NONE, SAME_YES, SAME_NO };

static bool all_there(
    const Migrd__DiskIdentity *a, const Migrd__DiskIdentity *b, const char *kind, size_t *n)
{
    *n = 0;
    for (size_t i = 0; i < a->n_designators; i++) {
        if (strcmp(a->designators[i]->kind, kind) != 0)
            continue;
        if (!id_has(b, kind, a->designators[i]->value))
            return false;
        ++*n;
    }
    return true;
}

/* All values of that kind must agree: NONE if neither side has one. */
static enum same compare_kind(const struct pair *p, const char *kind)
{
    size_t n, m;

    if (!all_there(p->s, p->t, kind, &n) || !all_there(p->t, p->s, kind, &m))
        return SAME_NO;
    return n == 0 ? SAME_NONE : SAME_YES;
}

/* The longest one: short ones are the target's, rather than the LUN's. */
static const char *best_value(const Migrd__DiskIdentity *id, const char *kind)
{
    const char *best = "";

    for (size_t i = 0; i < id->n_designators; i++)
        if (strcmp(id->designators[i]->kind, kind) == 0 &&
            strlen(id->designators[i]->value) > strlen(best))
            best = id->designators[i]->value;
    return best;
}

/* The value in which they differ, or the first. */
static const char *odd_value(
    const Migrd__DiskIdentity *a, const Migrd__DiskIdentity *b, const char *kind)
{
    for (size_t i = 0; i < a->n_designators; i++)
        if (strcmp(a->designators[i]->kind, kind) == 0 &&
            !id_has(b, kind, a->designators[i]->value))
            return a->designators[i]->value;
    return id_value(a, kind)[0] != '\0' ? id_value(a, kind) : "none";
}

static bool equal(const struct pair *p, const char *kind)
{
    return strcmp(id_value(p->s, kind), id_value(p->t, kind)) == 0;
}

static bool both_equal(const struct pair *p, const char *kind)
{
    return id_value(p->s, kind)[0] != '\0' && equal(p, kind);
}

/* --- 1, 2: looked at, and of one kind --- */

static bool looked_at(struct pair *p)
{
    const Migrd__DiskIdentity *sides[] = { p->s, p->t };
    static const char *const names[] = { "source", "target" };
    bool fine = true;

    for (size_t i = 0; i < 2; i++)
        if (sides[i]->code[0] != '\0') {
            say(p, CHECK_REFUSED, "it cannot be used on the %s: %s", names[i], sides[i]->error);
            fine = false;
        }
    return fine;
}

static bool same_kind(struct pair *p)
{
    if (p->s->kind == p->t->kind)
        return true;
    another(p, id_kind_words(p->s->kind), id_kind_words(p->t->kind),
        "its name means something else on either host",
        "use a name that means the same on both, such as nfs://, iscsi:// or /dev/disk/by-id/...");
    return false;
}

/* --- 3: files and NFS --- */

static bool is_nfs(const struct pair *p)
{
    return p->s->kind == MIGRD__STORAGE_KIND__STORAGE_NFS;
}

static void no_answer(struct pair *p)
{
    char text[CHECKS_TEXT];

    if (is_nfs(p)) {
        snprintf(text, sizeof text,
            "the target does not find what the source left beside it (%s): %s is another export "
            "with the same path",
            p->why, p->t->source);
        another(p, id_value(p->s, "nfs-address"), id_value(p->t, "nfs-address"), text,
            "look what the server's name means on the target, and what the server exports there");
    } else if (p->s->shared && p->t->shared) {
        snprintf(text, sizeof text,
            "the target does not find what the source left beside it (%s): %s is on another "
            "share there",
            p->why, p->t->source);
        another(p, id_value(p->s, "mount-source"), id_value(p->t, "mount-source"), text,
            "mount the same share on both hosts");
    } else {
        bool here = !p->s->shared;

        snprintf(text, sizeof text, "it is a file on a local file system (%s) of the %s",
            here ? p->s->path_kind : p->t->path_kind, here ? "source" : "target");
        another(p, p->s->path_kind, p->t->path_kind, text,
            "put it on NFS or iSCSI, where both hosts reach it");
    }
}

/* The challenge has gone through: it is one folder. Is it one file? */
static void same_folder(struct pair *p)
{
    bool fixed = is_nfs(p) || !p->s->shared || both_equal(p, "fs-uuid") ||
                 strncmp(p->s->path_kind, "nfs", 3) == 0;
    struct check *k;

    if (fixed && !equal(p, "inode")) {
        another(p, id_value(p->s, "inode"), id_value(p->t, "inode"),
            "both hosts see the same folder, but another file in it (the inodes differ)",
            "look for a symbolic link, or a file that was replaced while the guest ran");
        return;
    }
    if (is_nfs(p) && (!equal(p, "nfs-server") || !equal(p, "nfs-export"))) {
        k = say(p, CHECK_OK,
            "the same file, although the hosts name its server or export "
            "differently");
        checks_values(k, id_value(p->s, "nfs-export"), id_value(p->t, "nfs-export"));
    } else if (!is_nfs(p) && !p->s->shared) {
        say(p, CHECK_OK,
            "the same file: its file system (%s) counts as local, but both hosts "
            "reach it",
            p->s->path_kind);
    } else {
        say(p, CHECK_OK, "the same file: the target has read what the source left beside it");
    }
}

/* No challenge could be left: is it the same by what the server says of it? */
static void by_handle(struct pair *p)
{
    bool handle = both_equal(p, "nfs-handle"), fsid = both_equal(p, "nfs-fsid");
    bool same = is_nfs(p) ? both_equal(p, "inode") && (handle || fsid) && equal(p, "nfs-fsid")
                          : p->s->shared && p->t->shared && both_equal(p, "inode") &&
                                (both_equal(p, "fs-uuid") || both_equal(p, "mount-source"));
    const char *why = p->s->error[0] != '\0' ? p->s->error : "none was asked for";
    char text[CHECKS_TEXT];

    if (!same) {
        snprintf(text, sizeof text,
            "nothing proves that it is the same file: %s differ, and no "
            "challenge was left beside it (%s)",
            is_nfs(p) ? "file system id or inode" : "file system or inode", why);
        another(p, id_value(p->s, "inode"), id_value(p->t, "inode"), text,
            "let the source write the folder of the disk, or use the same server and path on both "
            "hosts");
        return;
    }
    say(p, CHECK_WARN,
        "taken for the same file by %s and inode alone: no challenge was left "
        "beside it (%s)",
        is_nfs(p) ? "file system id" : "file system", why);
}

static void files(struct pair *p)
{
    const Migrd__Challenge *c = p->s->challenge;

    if (p->proof)
        same_folder(p);
    else if (p->disk->read_only && p->s->size == p->t->size)
        say(p, CHECK_WARN, "a file that the guest only reads; only its size was compared");
    else if (c == NULL && !is_nfs(p) && !(p->s->shared && p->t->shared))
        no_answer(p);
    else if (c == NULL)
        by_handle(p);
    else if (p->answer[0] == '\0')
        no_answer(p);
    else
        another(p, c->nonce, p->answer,
            "the file that the source left beside it reads differently "
            "on the target",
            "another host's challenge, or a cache in between: try again");
}

/* --- 3: LUNs and block devices --- */

static const char *const unique_kinds[] = { "naa", "eui64", "scsi-name", "t10", "uuid", "dm-uuid" };

static const char *words_of(const char *kind)
{
    if (strcmp(kind, "naa") == 0)
        return "NAA name (WWN)";
    if (strcmp(kind, "eui64") == 0)
        return "EUI-64 name (WWN)";
    if (strcmp(kind, "scsi-name") == 0)
        return "SCSI name";
    if (strcmp(kind, "t10") == 0)
        return "T10 name";
    return strcmp(kind, "dm-uuid") == 0 ? "device mapper uuid" : "uuid";
}

static const char *other_device(const struct pair *p)
{
    return p->s->kind == MIGRD__STORAGE_KIND__STORAGE_ISCSI
               ? "the URL leads to another LUN there: correct the portal, target or LUN"
               : "set wwn= in the definition, or use /dev/disk/by-id/...: kernel names change";
}

/* A kind that differs: refused. */
static void kinds_differ(struct pair *p, const char *kind)
{
    char text[CHECKS_TEXT];

    snprintf(text, sizeof text, "the target has another %s under this name: its %s differs",
        id_kind_words(p->s->kind), words_of(kind));
    another(p, odd_value(p->s, p->t, kind), odd_value(p->t, p->s, kind), text, other_device(p));
}

/* tgt gives these to the LUNs of every target whose administrator set no names. */
static bool is_default_name(const Migrd__DiskIdentity *id)
{
    return strncmp(id_value(id, "serial"), "beaf", 4) == 0 &&
           strncmp(id_value(id, "t10"), "IET", 3) == 0;
}

static void same_device(struct pair *p, const char *kind)
{
    const char *here = id_value(p->s, "device-name"), *there = id_value(p->t, "device-name");
    struct check *k;

    if (is_default_name(p->s)) {
        k = say(p, CHECK_WARN,
            "the same %s by its %s, but that is what every tgt server calls its "
            "LUNs",
            id_kind_words(p->s->kind), words_of(kind));
        checks_remedy(k, "set scsi_id and scsi_sn of the LUN on the server");
    } else if (strcmp(here, there) != 0) {
        k = say(p, CHECK_OK, "the same %s by its %s, as %s on the source and %s on the target",
            id_kind_words(p->s->kind), words_of(kind), here, there);
    } else {
        k = say(p, CHECK_OK, "the same %s by its %s", id_kind_words(p->s->kind), words_of(kind));
    }
    checks_values(k, best_value(p->s, kind), best_value(p->t, kind));
}

/* A device that gives itself no name that is unique in the world. */
static void by_serial(struct pair *p)
{
    bool serial = both_equal(p, "serial"), fs = both_equal(p, "fs-uuid");

    if (compare_kind(p, "serial") == SAME_NO)
        another(p, odd_value(p->s, p->t, "serial"), odd_value(p->t, p->s, "serial"),
            "the target has another device under this name: its serial number differs",
            other_device(p));
    else if (p->disk->read_only && p->s->size == p->t->size)
        say(p, CHECK_WARN, "a device that the guest only reads; only its size was compared");
    else if (!serial && !fs)
        another(p, "", "",
            "nothing tells whether it is the same device: it has neither a WWN nor a "
            "serial number",
            "use storage that names its LUNs, or nfs:// or iscsi://");
    else if (p->s->kind == MIGRD__STORAGE_KIND__STORAGE_BLOCK && !(p->s->shared && p->t->shared) &&
             !fs)
        another(p, id_value(p->s, "transport"), id_value(p->t, "transport"),
            "it is a device of one host alone",
            "put the disk on NFS, iSCSI or Fibre Channel, where both hosts reach it");
    else
        say(p, CHECK_WARN, "taken for the same device by its %s alone",
            serial ? "serial number" : "file system's uuid");
}

static void devices(struct pair *p)
{
    const char *agreed = NULL;

    for (size_t i = 0; i < sizeof unique_kinds / sizeof unique_kinds[0]; i++) {
        enum same r = compare_kind(p, unique_kinds[i]);

        if (r == SAME_NO) {
            kinds_differ(p, unique_kinds[i]);
            return;
        }
        if (r == SAME_YES && agreed == NULL)
            agreed = unique_kinds[i];
    }
    if (agreed == NULL) {
        by_serial(p);
    } else if (compare_kind(p, "serial") == SAME_NO) {
        another(p, odd_value(p->s, p->t, "serial"), odd_value(p->t, p->s, "serial"),
            "two devices claim one name: the WWN agrees, the serial number does not",
            "one is a copy of the other, with its name: give it a WWN of its own on the storage");
    } else if (!equal(p, "partition")) {
        another(p, id_value(p->s, "partition"), id_value(p->t, "partition"),
            "it is another partition of the same device", other_device(p));
    } else {
        same_device(p, agreed);
    }
}

/* --- 4 --- */

static void sizes(struct pair *p)
{
    char a[VALUE_LEN], b[VALUE_LEN];
    struct check *k;

    if (p->s->size != p->t->size) {
        snprintf(a, sizeof a, "%llu", (unsigned long long)p->s->size);
        snprintf(b, sizeof b, "%llu", (unsigned long long)p->t->size);
        k = say(p, CHECK_REFUSED, "it has %s bytes on the source and %s on the target", a, b);
        checks_values(k, a, b);
        checks_remedy(k, "rescan it on the host that is behind, or finish its resizing first");
    }
    if (p->s->block_size != p->t->block_size) {
        snprintf(a, sizeof a, "%u", p->s->block_size);
        snprintf(b, sizeof b, "%u", p->t->block_size);
        k = say(p, CHECK_REFUSED,
            "its logical blocks have %s bytes on the source and %s on the target", a, b);
        checks_values(k, a, b);
        checks_remedy(k, "present it with the same block size to both hosts");
    }
}

/* Who holds the lease, as each host reads it. A reservation tells a key only, whose host none but
 * that one knows by name. */
static void lease_of(const Migrd__DiskIdentity *id, char out[VALUE_LEN])
{
    const char *holder = id_value(id, "pr-holder");

    if (id->kind == MIGRD__STORAGE_KIND__STORAGE_ISCSI)
        snprintf(out, VALUE_LEN, "%.100s", holder[0] != '\0' ? holder : "none");
    else
        snprintf(out, VALUE_LEN, "%.100s, epoch %llu",
            id->lease_owner[0] != '\0' ? id->lease_owner : "none",
            (unsigned long long)id->lease_epoch);
}

static void lease_records(struct pair *p)
{
    char a[VALUE_LEN], b[VALUE_LEN];
    struct check *k;

    lease_of(p->s, a);
    lease_of(p->t, b);
    if (strcmp(a, b) == 0)
        return;
    k = say(p, CHECK_REFUSED, "the record of its lease reads differently on either host");
    checks_values(k, a, b);
    checks_remedy(k,
        "it is another disk, or another host is just taking it over: see 'migctl storage lease %s' "
        "on both",
        p->disk->source);
}

/* --- 5 --- */

static const char *write_remedy(const struct pair *p)
{
    switch (p->t->kind) {
    case MIGRD__STORAGE_KIND__STORAGE_NFS:
        return "export it read and write to the target (rw), or make the disk read only";
    case MIGRD__STORAGE_KIND__STORAGE_ISCSI:
        return "take the LUN's write protection off, or make the disk read only";
    case MIGRD__STORAGE_KIND__STORAGE_BLOCK:
        return "blockdev --setrw there, or make the disk read only";
    default:
        return "mount it read and write there, or make the disk read only";
    }
}

static void writable(struct pair *p)
{
    struct check *k;

    if (p->disk->read_only || !(p->s->read_only || p->t->read_only))
        return;
    k = say(p, p->t->read_only ? CHECK_REFUSED : CHECK_WARN, "the %s can only read it%s",
        p->t->read_only ? "target" : "source",
        p->s->read_only && p->t->read_only ? ", nor can the source write it" : "");
    checks_values(k, p->s->read_only ? "read only" : "read and write",
        p->t->read_only ? "read only" : "read and write");
    checks_remedy(k, "%s", write_remedy(p));
}

static void users(struct pair *p)
{
    struct check *k;

    if (p->t->used_by[0] != '\0') {
        k = say(p, p->disk->read_only ? CHECK_WARN : CHECK_REFUSED,
            "on the target it is in use by %s", p->t->used_by);
        checks_remedy(k, "end that there first");
    }
    if (p->s->used_by[0] != '\0' && !p->disk->read_only) {
        k = say(p, CHECK_WARN, "on the source it is also in use by %s", p->s->used_by);
        checks_remedy(k, "two writers ruin a disk: see that this one only reads");
    }
}

static void backing(struct pair *p)
{
    for (size_t i = 0; i < p->s->n_backing; i++) {
        bool there = false;
        struct check *k;

        for (size_t j = 0; j < p->t->n_backing; j++)
            there = there || strcmp(p->s->backing[i], p->t->backing[j]) == 0;
        if (there)
            continue;
        k = say(p, CHECK_REFUSED, "the file below it, %s, is not on the target", p->s->backing[i]);
        checks_remedy(k, "put that on shared storage, too, or merge the snapshot into one image");
    }
}

static void npiv(struct pair *p)
{
    const char *there = id_value(p->t, "npiv"), *host = id_value(p->t, "npiv-host");
    struct check *k;

    if (p->disk->npiv[0] == '\0')
        return;
    if (strcmp(there, "online") == 0) {
        say(p, CHECK_OK, "its virtual port %s is up on the target (%s)", p->disk->npiv, host);
        return;
    }
    k = say(p, CHECK_REFUSED, "its virtual Fibre Channel port %s is %s on the target",
        p->disk->npiv, strcmp(there, "offline") == 0 ? "down" : "not there");
    checks_values(k, id_value(p->s, "npiv"), there);
    if (strcmp(there, "offline") == 0)
        checks_remedy(k, "bring the link of %s up: see its port_state in /sys/class/fc_host", host);
    else if (host[0] != '\0')
        checks_remedy(k, "make it there: echo '%s' > /sys/class/fc_host/%s/vport_create",
            p->disk->npiv, host);
    else
        checks_remedy(k, "the target has no Fibre Channel adapter with NPIV and a port left");
}

/* --- 6, 7 --- */

static void cache_mode(struct pair *p)
{
    struct check *k;

    if (p->disk->read_only || strcmp(p->disk->cache, "unsafe") != 0)
        return;
    k = say(p, CHECK_REFUSED,
        "cache mode unsafe ignores the guest's flushes, so the storage may "
        "lack what the guest has written");
    checks_values(k, p->s->cache, p->t->cache);
    checks_remedy(k, "use none, writethrough or writeback");
}

static void fence(struct pair *p)
{
    struct check *k;

    if (p->disk->read_only || !p->t->shared)
        return;
    if (p->t->fence[0] == '\0') {
        k = say(p, CHECK_WARN,
            "nothing on the storage keeps a host that lost the disk from "
            "writing%s%s",
            p->t->fence_note[0] != '\0' ? ": " : "", p->t->fence_note);
        checks_remedy(k, "leases alone guard it then; docs/storage.md tells what each server can");
    } else if (strcmp(p->s->fence, p->t->fence) != 0) {
        k = say(p, CHECK_WARN, "the storage fences it on the target only");
        checks_values(k, p->s->fence, p->t->fence);
        checks_remedy(k, "use the same storage-nfs-uid-base on all hosts");
    }
    if (strncmp(id_value(p->t, "nfs-locks"), "refused", 7) == 0) {
        k = say(p, CHECK_WARN, "the NFS server grants no locks to the target (%s)",
            id_value(p->t, "nfs-locks"));
        checks_remedy(k, "start its lock service, or serve the export by version 4");
    }
}

void storage_compare(struct checks *c, const Migrd__Disk *disk, const Migrd__DiskIdentity *source,
    const Migrd__DiskIdentity *target, const char *answer, const char *answer_error)
{
    struct pair p = { .c = c,
        .disk = disk,
        .s = source,
        .t = target,
        .answer = answer,
        .why = answer_error[0] != '\0' ? answer_error : "no such file",
        .name = disk->device[0] != '\0' ? disk->device : disk->source };

    p.proof = source->challenge != NULL && answer[0] != '\0' &&
              strcmp(source->challenge->nonce, answer) == 0;
    if (!looked_at(&p) || !same_kind(&p))
        return;
    if (source->kind == MIGRD__STORAGE_KIND__STORAGE_FILE || is_nfs(&p))
        files(&p);
    else
        devices(&p);
    if (p.another)
        return;
    sizes(&p);
    lease_records(&p);
    writable(&p);
    users(&p);
    backing(&p);
    npiv(&p);
    cache_mode(&p);
    fence(&p);
}
