/* SPDX-License-Identifier: ISC */
/*
 * Leases on NFS.
 *
 * Beside the disk NAME stands the folder NAME.migrd-lease. In it each claim has a file of its own,
 * "EPOCH.UUID", with one record (lease_record.c); there is one such file except while somebody
 * takes the lease over. "NONCE.new" is a record that was written and may become a claim.
 *
 * Taking, under an epoch E:
 *   1  link(NONCE.new, E.UUID): the server lets one of several do it, and what it names is
 * complete. There is already one of another host: ERR_EPOCH. One of this host's, of a process
 * before that is gone (or is watched, and stands still): replaced. 2  list the folder and read each
 * other claim; lease_judge decides. Whoever claims after this list was made finds ours in its own,
 * whoever claimed before it is in ours: of two at least one sees the other, and the older gives
 * way. Claims to be watched are read again and again for valid_ms and a fifth more; one that
 * changes has a living holder, who is left alone. 3 write into ours what the disk's owner was, then
 * unlink the others: that is the moment of taking. 4  where a claim was watched rather than given:
 * wait as long again. Its holder may have renewed just before step 3, and believes that for
 * valid_ms. Not on an operator's word (PROVEN): it says what this wait is to make sure of. 5  give
 * the disk to the user id of E (below), the data connection too. The server may have looked at the
 * user of a WRITE just before, and not have written yet: unless an owner who has nothing in flight
 * handed over, wait for that (on the cluster's proof: lease_drain). 6  is ours still there under its name, the same inode? Else somebody
 * took it meanwhile: ERR_EPOCH.
 *
 * Renewing: write the record with another beat through the open handle, then look the name up. A
 * handle alone says nothing: servers write happily to a file that has no name any more (ganesha
 * keeps it open). A name that is gone, with a newer claim beside it, is a loss for certain. With
 * nothing beside it somebody cleared the folder by hand: while the lease is sure it is claimed
 * again; if this host was not sure any more, it cannot know what happened meanwhile, and stays
 * unsure.
 *
 * Released: the record says so, stays, and keeps its epoch for whoever comes next.
 *
 * The fence. NFSv3 has no reservations, and a request that is on its way cannot be called back. But
 * each WRITE carries a user id, and the server checks it each time: with storage-nfs-uid-base = B,
 * the disk belongs to user B + E % 65536, mode 0600, while E holds it, so requests of any epoch
 * before get EACCES, however late they come. The leases' own connection is root's, so this needs a
 * server that lets root of the hosts change owners (no_root_squash). What the disk's owner was
 * stands in the record, and is put back at the release. A stale holder's release may undo the fence
 * of a new one in one unlucky moment (it looked, was stopped, went on); the new one looks at the
 * disk's owner at each renewal and mends it.
 *
 * Taking over the client name of NFSv4 also fences (the old holder gets NFS4ERR_EXPIRED), but only
 * requests of v4, and libnfs 4.0 cannot write more than 3944 bytes at once in v4: the data go over
 * v3.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "storage-check/lease_internal.h"
#include "storage-check/lease_nfs_io.h"

#define PATH_LEN (STORAGE_SOURCE_MAX + 128)
#define NEW_SUFFIX ".new"
#define STALE_S 86400u /* age of a .new that nobody will use any more, by the server's clock */
#define WATCH_MAX 8u
#define DRAIN_MS 250u /* the server finishes a WRITE that it has begun to look at */

struct claim {
    struct nfsfh *fh;
    uint64_t ino;
    char path[PATH_LEN];
    struct lease_note note;
};

struct lease_nfs {
    struct nfsio io;
    char disk[PATH_LEN], dir[PATH_LEN], fresh[PATH_LEN];
    uint64_t disk_ino, disk_dev;
    struct claim now;  /* path "": none taken */
    struct claim next; /* being taken */
    bool fenced;
    uint32_t uid, gid;
};

static int fail(struct lease *l, int r, struct err *e, const char *what)
{
    struct lease_nfs *n = l->kind;

    return nfsio_error(&n->io, r, e, l->source, "its lease: %s", what);
}

/* ---- records */

/* 0 and the note; 1 it is no record, or a damaged one; negative errno. */
static int load_note(struct nfsio *io, const char *path, struct lease_note *out)
{
    uint8_t data[LEASE_RECORD_SIZE + 1];
    struct nfsfh *fh;
    int r = nfsio_open(io, path, O_RDONLY, 0, &fh);

    memset(out, 0, sizeof *out);
    if (r < 0)
        return r;
    r = nfsio_pread(io, fh, data, sizeof data);
    nfsio_close(io, &fh);
    if (r < 0)
        return r;
    return lease_decode(data, (size_t)r, out, NULL) < 0;
}

/* As above, of a claim found in a folder; damaged ones get what their name says. */
static int load_entry(struct nfsio *io, const char *dir, const char *name, struct lease_note *out)
{
    char path[PATH_LEN + NFSIO_NAME_MAX], uuid[37];
    uint64_t epoch;
    int r;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    r = load_note(io, path, out);
    if (r < 0)
        return r;
    if (!lease_entry_parse(name, &epoch, uuid))
        return -ENOENT;
    if (r == 1 || out->r.epoch != epoch || strcmp(out->r.uuid, uuid) != 0) {
        memset(out, 0, sizeof *out);
        out->r.epoch = epoch;
        memcpy(out->r.uuid, uuid, sizeof uuid);
    }
    return 0;
}

static int store_note(struct nfsio *io, const struct claim *c)
{
    uint8_t data[LEASE_RECORD_SIZE];

    lease_encode(&c->note, data);
    return nfsio_pwrite(io, c->fh, data, sizeof data);
}

static void claim_drop(struct nfsio *io, struct claim *c)
{
    nfsio_close(io, &c->fh);
    c->path[0] = '\0';
    c->ino = 0;
}

/* ---- preparing */

static int look_at_disk(struct lease *l, struct nfs_stat_64 *st, struct err *e)
{
    struct lease_nfs *n = l->kind;
    int r = nfsio_stat(&n->io, n->disk, st);

    if (r < 0)
        return fail(l, r, e, "look at the disk");
    if (n->disk_ino != 0 && (st->nfs_ino != n->disk_ino || st->nfs_dev != n->disk_dev))
        return err_set(e, ERR_REFUSED,
            "disk %s: another file has this name than when it was opened; was the export switched?",
            l->source);
    n->disk_ino = st->nfs_ino;
    n->disk_dev = st->nfs_dev;
    return 0;
}

static int make_folder(struct lease *l, struct err *e)
{
    struct lease_nfs *n = l->kind;
    int r = nfsio_mkdir(&n->io, n->dir, 0700);

    if (r == -EACCES || r == -EPERM || r == -EROFS)
        return err_set(e, ERR_REFUSED,
            "disk %s: the server does not let this host make the folder of its lease, %s: %s; "
            "export "
            "it read-write and without root squash, or set storage-leases = no",
            l->source, n->dir, strerror(-r));
    return r < 0 && r != -EEXIST ? fail(l, r, e, "make its folder") : 0;
}

static int create_fresh(struct lease_nfs *n)
{
    return nfsio_open(&n->io, n->fresh, O_RDWR | O_CREAT | O_EXCL, 0600, &n->next.fh);
}

/* A file with the record of n->next, under a name of its own. */
static int write_fresh(struct lease *l, struct err *e)
{
    struct lease_nfs *n = l->kind;
    struct nfs_stat_64 st;
    int r;

    claim_drop(&n->io, &n->next);
    r = create_fresh(n);
    if (r == -EEXIST) /* of an attempt before; perhaps it is a claim already, so not that file */
        r = nfsio_unlink(&n->io, n->fresh);
    else if (r == -ENOENT && make_folder(l, e) < 0) /* somebody cleared it */
        return -1;
    else if (r == -ENOENT)
        r = 0;
    if (r == 0 && n->next.fh == NULL)
        r = create_fresh(n);
    if (r == 0)
        r = store_note(&n->io, &n->next);
    if (r == 0)
        r = nfsio_fsync(&n->io, n->next.fh);
    if (r >= 0)
        r = nfsio_stat(&n->io, n->fresh, &st);
    if (r < 0)
        return fail(l, r, e, "write its record");
    n->next.ino = st.nfs_ino;
    return 0;
}

static void fill_note(const struct lease *l, uint64_t epoch, struct lease_note *out)
{
    memset(out, 0, sizeof *out);
    snprintf(out->r.owner, sizeof out->r.owner, "%s", l->owner);
    snprintf(out->r.uuid, sizeof out->r.uuid, "%s", l->uuid);
    out->r.epoch = epoch;
    out->r.beat = lease_random();
    out->claimed = true;
    out->nonce = l->nonce;
    out->who = *lease_who_here();
    out->valid_ms = l->valid_ms;
}

static int set_paths(struct lease *l, struct err *e)
{
    struct lease_nfs *n = l->kind;
    const char *base = strrchr(l->url.file, '/');

    if (strlen(base != NULL ? base + 1 : l->url.file) + strlen(LEASE_SUFFIX) > NAME_MAX)
        return err_set(
            e, ERR_INVALID, "disk %s: its name is too long for a lease beside it", l->source);
    snprintf(n->disk, sizeof n->disk, "%s", l->url.file);
    snprintf(n->dir, sizeof n->dir, "%.*s%s", STORAGE_SOURCE_MAX, l->url.file, LEASE_SUFFIX);
    snprintf(n->fresh, sizeof n->fresh, "%.*s%s/%016" PRIx64 NEW_SUFFIX, STORAGE_SOURCE_MAX,
        l->url.file, LEASE_SUFFIX, l->nonce);
    return 0;
}

static int nfs_open_(struct lease *l, struct err *e)
{
    struct lease_nfs *n = calloc(1, sizeof *n);
    struct nfs_stat_64 st;
    int r;

    if (n == NULL)
        return err_set(e, ERR_MEMORY, "disk %s: no memory for its lease", l->source);
    l->kind = n;
    n->io = (struct nfsio){
        .url = &l->url, .options = &l->options, .stop = &l->stop, .deadline_ns = l->deadline_ns
    };
    lease_set_fence(l, "", "the lease has not been taken yet");
    if (set_paths(l, e) < 0)
        return -1;
    r = nfsio_connect(&n->io);
    if (r < 0)
        return fail(l, r, e, "mount the export");
    if (look_at_disk(l, &st, e) < 0 || make_folder(l, e) < 0)
        return -1;
    if ((st.nfs_mode & S_IFMT) != S_IFREG)
        return err_set(e, ERR_INVALID, "disk %s: is no regular file", l->source);
    fill_note(l, l->epoch, &n->next.note);
    return write_fresh(l, e);
}

/* ---- taking */

static bool same_note(const struct lease_note *a, const struct lease_note *b)
{
    return a->nonce == b->nonce && a->r.beat == b->r.beat && a->r.epoch == b->r.epoch;
}

/* Of our epoch: 0 its holder is gone, 1 he is alive. */
static int watch_claim(struct lease *l, const struct lease_note *before, struct err *e)
{
    struct lease_nfs *n = l->kind;
    uint64_t ns = lease_watch_ns(before->valid_ms, l->valid_ms), until = lease_clock() + ns;
    struct lease_note found;

    while (lease_clock() < until) {
        int r;

        if (lease_pause(l, ns / 20, e) < 0)
            return -1;
        n->io.deadline_ns = l->deadline_ns;
        r = load_note(&n->io, n->next.path, &found);
        if (r < 0 && r != -ENOENT)
            return fail(l, r, e, "watch its holder");
        if (r == -ENOENT || !same_note(&found, before))
            return 1;
    }
    return 0;
}

/* There is a claim of this epoch. One of this host's processes gives way; 0 replaced. */
static int replace_claim(struct lease *l, const struct lease_bid *b, struct err *e)
{
    struct lease_nfs *n = l->kind;
    struct lease_note found;
    int r = load_note(&n->io, n->next.path, &found);
    enum lease_verdict v;

    if (r < 0 && r != -ENOENT)
        return fail(l, r, e, "read the claim that is there");
    if (r == 1) {
        found.r.epoch = b->epoch;
        snprintf(found.r.uuid, sizeof found.r.uuid, "%s", b->uuid);
    }
    v = r == -ENOENT ? LEASE_OLDER : lease_judge(&found, b);
    if (v == LEASE_WATCH) {
        r = watch_claim(l, &found, e);
        if (r < 0)
            return -1;
        v = r == 0 ? LEASE_TAKE : LEASE_WATCH;
    }
    if (v != LEASE_TAKE) {
        found.r.epoch = b->epoch;
        return lease_refuse(e, v, &found, b, l->source);
    }
    if (found.has_was) {
        n->next.note.has_was = true;
        n->next.note.was_uid = found.was_uid;
        n->next.note.was_gid = found.was_gid;
        n->next.note.was_mode = found.was_mode;
        r = store_note(&n->io, &n->next);
        if (r < 0)
            return fail(l, r, e, "write its record");
    }
    r = nfsio_rename(&n->io, n->fresh, n->next.path);
    return r < 0 ? fail(l, r, e, "replace the claim of a process before") : 0;
}

/* Step 1. */
static int make_claim(struct lease *l, const struct lease_bid *b, struct err *e)
{
    struct lease_nfs *n = l->kind;
    char name[LEASE_ENTRY_LEN], path[PATH_LEN];
    int r;

    if (n->next.fh == NULL || n->io.c == NULL || n->next.note.r.epoch != b->epoch) {
        fill_note(l, b->epoch, &n->next.note);
        if (write_fresh(l, e) < 0)
            return -1;
    }
    lease_entry_name(b->epoch, b->uuid, name);
    snprintf(path, sizeof path, "%.*s%s/%s", STORAGE_SOURCE_MAX, n->disk, LEASE_SUFFIX, name);
    snprintf(n->next.path, sizeof n->next.path, "%s", path);
    r = nfsio_link(&n->io, n->fresh, path);
    if (r == -ENOENT || r == -ESTALE) { /* cleared since it was prepared */
        if (write_fresh(l, e) < 0)
            return -1;
        snprintf(n->next.path, sizeof n->next.path, "%s", path);
        r = nfsio_link(&n->io, n->fresh, path);
    }
    if (r == -EEXIST)
        return replace_claim(l, b, e);
    if (r == -EOPNOTSUPP || r == -EMLINK)
        return err_set(e, ERR_UNSUPPORTED,
            "disk %s: its file system makes no hard links, which a lease needs; set "
            "storage-leases = no",
            l->source);
    return r < 0 ? fail(l, r, e, "claim it") : 0;
}

/* The connection may have been idle since lease_prepare, and have ended without our noticing. */
static int make_claim_anyhow(struct lease *l, const struct lease_bid *b, struct err *e)
{
    struct lease_nfs *n = l->kind;
    uint64_t now = lease_clock();
    bool old = n->io.c != NULL;
    int r;

    n->io.deadline_ns =
        old && l->deadline_ns > now ? now + (l->deadline_ns - now) / 2 : l->deadline_ns;
    r = make_claim(l, b, e);
    n->io.deadline_ns = l->deadline_ns;
    return r < 0 && old && n->io.c == NULL ? make_claim(l, b, e) : r;
}

struct rivals {
    struct nfsio_names names; /* of claims, ours left out */
    bool alive;               /* one of them was not given up */
    unsigned n_watch;
    struct {
        unsigned name; /* number in names */
        struct lease_note note;
    } watch[WATCH_MAX];
};

/* What the disk's owner was, as a record before ours knew it. */
static void inherit_was(struct lease_note *to, const struct lease_note *from)
{
    if (to->has_was || !from->has_was)
        return;
    to->has_was = true;
    to->was_uid = from->was_uid;
    to->was_gid = from->was_gid;
    to->was_mode = from->was_mode;
}

static int judge_rival(
    struct lease *l, const struct lease_bid *b, struct rivals *v, unsigned i, struct err *e)
{
    struct lease_nfs *n = l->kind;
    struct lease_note found;
    enum lease_verdict verdict;
    int r = load_entry(&n->io, n->dir, v->names.at[i].name, &found);

    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return fail(l, r, e, "read a claim");
    verdict = lease_judge(&found, b);
    if (verdict == LEASE_OLDER || (verdict == LEASE_WATCH && v->n_watch == WATCH_MAX))
        return lease_refuse(e, verdict, &found, b, l->source);
    inherit_was(&n->next.note, &found);
    v->alive = v->alive || !found.r.released;
    if (verdict == LEASE_WATCH) {
        v->watch[v->n_watch].name = i;
        v->watch[v->n_watch++].note = found;
    }
    return 0;
}

static void drop_old_fresh(struct lease_nfs *n, const struct nfsio_names *names, uint64_t now_s)
{
    char path[PATH_LEN + NFSIO_NAME_MAX];

    for (unsigned i = 0; i < names->n; i++) {
        const char *dot = strchr(names->at[i].name, '.');

        if (dot == NULL || strcmp(dot, NEW_SUFFIX) != 0 || names->at[i].mtime_s + STALE_S > now_s)
            continue;
        snprintf(path, sizeof path, "%s/%s", n->dir, names->at[i].name);
        nfsio_unlink(&n->io, path);
    }
}

/* Step 2, the list. */
static int find_rivals(struct lease *l, const struct lease_bid *b, struct rivals *v, struct err *e)
{
    struct lease_nfs *n = l->kind;
    const char *own = strrchr(n->next.path, '/') + 1;
    struct nfsio_names all;
    uint64_t epoch, now_s = 0;
    char uuid[37];
    int r = nfsio_list(&n->io, n->dir, &all);

    if (r < 0)
        return fail(l, r, e, "list its folder");
    v->names.n = v->n_watch = 0;
    for (unsigned i = 0; i < all.n; i++) {
        if (strcmp(all.at[i].name, own) == 0)
            now_s = all.at[i].mtime_s;
        else if (lease_entry_parse(all.at[i].name, &epoch, uuid))
            v->names.at[v->names.n++] = all.at[i];
    }
    drop_old_fresh(n, &all, now_s);
    for (unsigned i = 0; i < v->names.n; i++)
        if (judge_rival(l, b, v, i, e) < 0)
            return -1;
    return 0;
}

/* Have all that are watched stood still so far? A claim that vanished or was released is given. */
static int look_again(struct lease *l, const struct lease_bid *b, struct rivals *v, struct err *e)
{
    struct lease_nfs *n = l->kind;

    for (unsigned i = 0; i < v->n_watch; i++) {
        const struct lease_note *before = &v->watch[i].note;
        struct lease_note found;
        int r = load_entry(&n->io, n->dir, v->names.at[v->watch[i].name].name, &found);

        if (r == -ENOENT || (r == 0 && found.r.released))
            continue;
        if (r < 0)
            return fail(l, r, e, "watch its holder");
        if (!same_note(&found, before))
            return lease_refuse(e, LEASE_WATCH, &found, b, l->source);
    }
    return 0;
}

/* Step 2, the watch. How long it was goes to *ns; 0: there was nothing to watch. */
static int watch_rivals(
    struct lease *l, const struct lease_bid *b, struct rivals *v, uint64_t *ns, struct err *e)
{
    struct lease_nfs *n = l->kind;
    uint64_t until, step;

    *ns = 0;
    for (unsigned i = 0; i < v->n_watch; i++) {
        uint64_t need = lease_watch_ns(v->watch[i].note.valid_ms, l->valid_ms);

        *ns = need > *ns ? need : *ns;
    }
    until = lease_clock() + *ns;
    step = *ns / 20;
    while (lease_clock() < until) {
        if (lease_pause(l, step, e) < 0)
            return -1;
        n->io.deadline_ns = l->deadline_ns;
        if (look_again(l, b, v, e) < 0)
            return -1;
    }
    return 0;
}

/* Step 3. */
static int oust(struct lease *l, const struct rivals *v, struct err *e)
{
    struct lease_nfs *n = l->kind;
    char path[PATH_LEN + NFSIO_NAME_MAX];
    int r = n->next.note.has_was ? store_note(&n->io, &n->next) : 0;

    for (unsigned i = 0; r >= 0 && i < v->names.n; i++) {
        snprintf(path, sizeof path, "%s/%s", n->dir, v->names.at[i].name);
        r = nfsio_unlink(&n->io, path);
        if (r == -ENOENT)
            r = 0;
    }
    return r < 0 ? fail(l, r, e, "take it over") : 0;
}

/* ---- the fence, step 5 */

static void no_fence(struct lease *l, const char *why)
{
    struct lease_nfs *n = l->kind;

    n->fenced = false;
    lease_set_fence(
        l, "", "nothing keeps an owner before from writing but its own look at the lease: %s", why);
}

static int give_disk(
    struct lease_nfs *n, uint32_t uid, uint32_t gid, uint32_t mode, const struct nfs_stat_64 *st)
{
    int r = 0;

    if ((st->nfs_mode & 07777) != mode)
        r = nfsio_chmod(&n->io, n->disk, mode);
    if (r == 0 && (st->nfs_uid != uid || st->nfs_gid != gid))
        r = nfsio_chown(&n->io, n->disk, uid, gid);
    return r;
}

/* As it was before leases. */
static int give_back(struct lease *l, const struct nfs_stat_64 *st, const struct lease_note *was)
{
    struct lease_nfs *n = l->kind;

    return was->has_was ? give_disk(n, was->was_uid, was->was_gid, was->was_mode, st) : 0;
}

static uint32_t fence_uid(const struct lease *l, uint64_t epoch)
{
    return l->nfs_uid_base + (uint32_t)(epoch % 65536);
}

static int set_up_fence(struct lease *l, const struct nfs_stat_64 *st, struct err *e)
{
    struct lease_nfs *n = l->kind;
    int r = give_disk(n, n->uid, n->gid, 0600, st);

    if (r == -EPERM || r == -EACCES || r == -EROFS) {
        no_fence(
            l, "the server does not let root of this host change the disk's owner (root squash)");
        return 0;
    }
    if (r == 0) /* does the server tell users apart at all? */
        r = nfsio_may_write(&n->io, n->disk, n->uid + 1, n->gid);
    if (r < 0)
        return fail(l, r, e, "give the disk to the user of its epoch");
    if (r == 1) {
        no_fence(l, "the server takes all users for one (all squash)");
        return 0;
    }
    n->fenced = true;
    lease_set_fence(l, "uid",
        "the disk belongs to user %" PRIu32 " while epoch %" PRIu64 " holds it", n->uid,
        n->next.note.r.epoch);
    return l->disk != NULL ? disk_set_owner(l->disk, n->uid, n->gid, e) : 0;
}

static int fence(struct lease *l, const struct nfs_stat_64 *st, struct err *e)
{
    struct lease_nfs *n = l->kind;
    int r;

    if (l->nfs_uid_base != 0)
        return set_up_fence(l, st, e);
    no_fence(l, "storage-nfs-uid-base is 0");
    /* Another host's configuration has fenced it. */
    r = give_back(l, st, &n->next.note);
    n->next.note.has_was = false;
    return r < 0 ? fail(l, r, e, "give the disk back to its first owner") : 0;
}

/* Before anything is changed: who has the disk, and what the record must remember. */
static int before_fence(struct lease *l, struct nfs_stat_64 *st, struct err *e)
{
    struct lease_nfs *n = l->kind;
    struct lease_note *note = &n->next.note;

    if (look_at_disk(l, st, e) < 0)
        return -1;
    if (l->nfs_uid_base != 0 && !note->has_was) {
        note->has_was = true;
        note->was_uid = (uint32_t)st->nfs_uid;
        note->was_gid = (uint32_t)st->nfs_gid;
        note->was_mode = (uint32_t)st->nfs_mode & 07777;
    }
    n->uid = fence_uid(l, note->r.epoch);
    n->gid = note->has_was ? note->was_gid : (uint32_t)st->nfs_gid;
    return 0;
}

/* Step 6. */
static int still_ours(struct lease *l, const struct lease_bid *b, struct err *e)
{
    struct lease_nfs *n = l->kind;
    struct nfs_stat_64 st;
    int r = nfsio_stat(&n->io, n->next.path, &st);

    if (r < 0 && r != -ENOENT && r != -ESTALE)
        return fail(l, r, e, "look at the claim");
    if (r < 0 || st.nfs_ino != n->next.ino)
        return err_set(e, ERR_EPOCH,
            "disk %s: another host took its lease over while it was taken under epoch %" PRIu64,
            l->source, b->epoch);
    return 0;
}

/* As that wait, but the caller does something else meanwhile. */
static void set_drained(struct lease *l)
{
    pthread_mutex_lock(&l->lock);
    l->drained_ns = lease_clock() + DRAIN_MS * NS_PER_MS;
    pthread_mutex_unlock(&l->lock);
}

static int settle(struct lease *l, const struct lease_bid *b, struct err *e)
{
    struct rivals *v = calloc(1, sizeof *v);
    struct nfs_stat_64 st;
    uint64_t watched;
    int r = -1;

    if (v == NULL)
        return err_set(e, ERR_MEMORY, "disk %s: no memory for its lease", l->source);
    if (find_rivals(l, b, v, e) == 0 && watch_rivals(l, b, v, &watched, e) == 0 &&
        before_fence(l, &st, e) == 0 && oust(l, v, e) == 0) {
        r = watched > 0 && b->claim == LEASE_FREE ? lease_pause(l, watched, e) : 0;
        ((struct lease_nfs *)l->kind)->io.deadline_ns = l->deadline_ns;
        if (r == 0)
            r = fence(l, &st, e);
        if (r == 0 && v->alive && b->claim == LEASE_CLUSTER)
            set_drained(l);
        else if (r == 0 && v->alive && b->claim != LEASE_HANDOVER)
            r = lease_pause(l, DRAIN_MS * NS_PER_MS, e);
        if (r == 0)
            r = still_ours(l, b, e);
    }
    free(v);
    return r;
}

static int nfs_take(struct lease *l, uint64_t epoch, enum lease_claim claim, struct err *e)
{
    struct lease_nfs *n = l->kind;
    const struct lease_bid b = lease_bid_of(l, epoch, claim);
    bool claimed;
    int r;

    claimed = make_claim_anyhow(l, &b, e) == 0;
    if (claimed && FAULT("lease-claimed"))
        r = err_set(e, ERR_SYSTEM, "fault lease-claimed");
    else
        r = claimed ? settle(l, &b, e) : -1;
    nfsio_unlink(&n->io, n->fresh);
    if (r < 0) {
        /* Of our own lease's epoch only if it is not the same claim as the one that is held. */
        if (claimed && strcmp(n->next.path, n->now.path) != 0)
            nfsio_unlink(&n->io, n->next.path);
        claim_drop(&n->io, &n->next);
        return -1;
    }
    claim_drop(&n->io, &n->now);
    n->now = n->next;
    memset(&n->next, 0, sizeof n->next);
    l->epoch = epoch;
    return 0;
}

/* ---- renewing */

/* The own claim is gone, or is another's. */
static enum lease_seen find_out(struct lease *l, struct err *e)
{
    struct lease_nfs *n = l->kind;
    struct nfsio_names *all = calloc(1, sizeof *all);
    enum lease_seen seen = LEASE_SEEN_NOTHING;
    struct nfs_stat_64 st;
    int r = all != NULL ? nfsio_list(&n->io, n->dir, all) : -ENOMEM;

    if (r < 0 && r != -ENOENT)
        fail(l, r, e, "list its folder");
    for (unsigned i = 0; r == 0 && i < all->n && seen != LEASE_SEEN_FOREIGN; i++) {
        struct lease_note found;

        if (load_entry(&n->io, n->dir, all->at[i].name, &found) != 0 || found.nonce == l->nonce)
            continue;
        if (strcmp(found.r.uuid, l->uuid) == 0 ? found.r.epoch < l->epoch : found.r.released)
            continue;
        err_set(e, ERR_EPOCH,
            "disk %s: host %s took its lease under epoch %" PRIu64 ", ours was %" PRIu64, l->source,
            found.r.owner[0] != '\0' ? found.r.owner : "unknown", found.r.epoch, l->epoch);
        seen = LEASE_SEEN_FOREIGN;
    }
    free(all);
    if (seen == LEASE_SEEN_FOREIGN || (r < 0 && r != -ENOENT) || look_at_disk(l, &st, e) < 0)
        return seen;
    if (lease_clock() >= atomic_load(&l->sure_until)) {
        err_set(e, ERR_STATE,
            "disk %s: the record of its lease, %s, was removed while this host could not renew it, "
            "and "
            "nobody knows who wrote meanwhile; if nobody did: migctl resolve DOMAIN --run-here "
            "--force",
            l->source, n->now.path);
        return seen;
    }
    return nfs_take(l, l->epoch, LEASE_FREE, e) == 0 ? LEASE_SEEN_OURS : LEASE_SEEN_NOTHING;
}

/* After a new connection; 0, or 1: the claim is not ours any more. */
static int open_claim(struct lease *l, struct err *e)
{
    struct lease_nfs *n = l->kind;
    uint8_t data[LEASE_RECORD_SIZE + 1];
    struct lease_note found;
    int r;

    nfsio_close(&n->io, &n->now.fh);
    r = nfsio_open(&n->io, n->now.path, O_RDWR, 0, &n->now.fh);
    if (r == -ENOENT || r == -ESTALE || r == -ENOTDIR)
        return 1;
    if (r == 0)
        r = nfsio_pread(&n->io, n->now.fh, data, sizeof data);
    if (r < 0)
        return fail(l, r, e, "open it again");
    return lease_decode(data, (size_t)r, &found, NULL) == 0 && found.nonce != l->nonce;
}

/* Is this the user of an epoch after ours? Epochs that are compared are near each other. */
static bool is_newer_user(const struct lease *l, uint64_t uid)
{
    uint64_t after = (uid - fence_uid(l, l->epoch)) % 65536;

    return uid >= l->nfs_uid_base && uid - l->nfs_uid_base < 65536 && after > 0 && after < 32768;
}

/* The disk still belongs to our epoch's user? If not, an owner before us put it back too late; but
 * it is never taken from an epoch after ours, whose claim we may just not have seen. 1: that is so.
 */
static int mend_fence(struct lease *l, struct err *e)
{
    struct lease_nfs *n = l->kind;
    struct nfs_stat_64 st;
    int r;

    if (!n->fenced)
        return 0;
    if (look_at_disk(l, &st, e) < 0)
        return -1;
    if (is_newer_user(l, st.nfs_uid)) {
        err_set(e, ERR_STATE, "disk %s: belongs to user %" PRIu64 ", of an epoch after ours",
            l->source, st.nfs_uid);
        return 1;
    }
    r = give_disk(n, n->uid, n->gid, 0600, &st);
    return r < 0 ? fail(l, r, e, "give the disk to the user of its epoch") : 0;
}

static enum lease_seen nfs_renew(struct lease *l, struct err *e)
{
    struct lease_nfs *n = l->kind;
    struct nfs_stat_64 st;
    bool fresh = n->io.c == NULL;
    int r;

    n->io.deadline_ns = l->deadline_ns;
    n->io.in_time = lease_clock() < atomic_load(&l->sure_until);
    r = nfsio_connect(&n->io);
    if (r < 0) {
        fail(l, r, e, "mount the export");
        return LEASE_SEEN_NOTHING;
    }
    r = fresh || n->now.fh == NULL ? open_claim(l, e) : 0;
    if (r != 0)
        return r < 0 ? LEASE_SEEN_NOTHING : find_out(l, e);
    n->now.note.r.beat++;
    n->now.note.claimed = false;
    n->now.note.r.yielded = atomic_load(&l->yielded);
    r = store_note(&n->io, &n->now);
    if (r >= 0)
        r = nfsio_stat(&n->io, n->now.path, &st);
    if (r == -ESTALE || r == -ENOENT || r == -ENOTDIR || (r >= 0 && st.nfs_ino != n->now.ino))
        return find_out(l, e);
    if (r < 0) {
        fail(l, r, e, "renew it");
        return LEASE_SEEN_NOTHING;
    }
    return mend_fence(l, e) == 0 ? LEASE_SEEN_OURS : LEASE_SEEN_NOTHING;
}

static int nfs_release(struct lease *l, struct err *e)
{
    struct lease_nfs *n = l->kind;
    struct nfs_stat_64 st;
    int r;

    n->io.deadline_ns = l->deadline_ns;
    if (n->now.note.has_was) {
        if (look_at_disk(l, &st, e) < 0)
            return -1;
        r = is_newer_user(l, st.nfs_uid) ? 0 : give_back(l, &st, &n->now.note);
        if (r < 0)
            return fail(l, r, e, "give the disk back to its first owner");
    }
    n->now.note.r.released = true;
    n->now.note.r.yielded = false;
    n->now.note.has_was = false;
    r = store_note(&n->io, &n->now);
    if (r >= 0)
        r = nfsio_fsync(&n->io, n->now.fh);
    return r < 0 ? fail(l, r, e, "release it") : 0;
}

static void nfs_close_(struct lease *l)
{
    struct lease_nfs *n = l->kind;

    if (n == NULL)
        return;
    n->io.deadline_ns = lease_clock() + NS_PER_S;
    if (n->next.fh != NULL && n->io.c != NULL)
        nfsio_unlink(&n->io, n->fresh); /* prepared, and never taken */
    claim_drop(&n->io, &n->next);
    claim_drop(&n->io, &n->now);
    nfsio_disconnect(&n->io);
    free(n);
}

const struct lease_ops lease_nfs_ops = {
    .open = nfs_open_,
    .take = nfs_take,
    .renew = nfs_renew,
    .release = nfs_release,
    .close = nfs_close_,
};

/* ---- looking from outside */

/* The claim that counts: held before claimed before released, then the newest. */
static bool counts_more(const struct lease_note *a, const struct lease_note *b)
{
    int ra = a->r.released ? 0 : a->claimed ? 1 : 2, rb = b->r.released ? 0 : b->claimed ? 1 : 2;

    return ra != rb ? ra > rb : a->r.epoch > b->r.epoch;
}

struct outside {
    struct nfsio io;
    char dir[PATH_LEN], disk[PATH_LEN];
    struct nfsio_names names;
};

/* 1 there is a folder, and its names; 0 none; -1. */
static int outside_open(
    struct outside *x, const struct storage_url *u, const struct disk_options *o, struct err *e)
{
    unsigned ms = o->timeout_ms != 0 ? o->timeout_ms : DISK_TIMEOUT_MS;
    char source[sizeof u->host + sizeof u->path + sizeof u->file + 16];
    int r;

    x->io = (struct nfsio){ .url = u, .options = o, .deadline_ns = lease_clock() + ms * NS_PER_MS };
    snprintf(x->disk, sizeof x->disk, "%s", u->file);
    snprintf(x->dir, sizeof x->dir, "%.*s%s", STORAGE_SOURCE_MAX, u->file, LEASE_SUFFIX);
    r = nfsio_list(&x->io, x->dir, &x->names);
    if (r == -ENOENT)
        return 0;
    snprintf(source, sizeof source, u->ipv6 ? "nfs://[%s]%s%s" : "nfs://%s%s%s", u->host, u->path,
        u->file);
    return r < 0 ? nfsio_error(&x->io, r, e, source, "read its lease") : 1;
}

int lease_nfs_read(const struct storage_url *u, const struct disk_options *o,
    struct lease_record *out, struct err *e)
{
    struct outside *x = calloc(1, sizeof *x);
    struct lease_note best = { 0 }, found;
    int r = x != NULL ? outside_open(x, u, o, e) : err_set(e, ERR_MEMORY, "no memory");

    for (unsigned i = 0; r == 1 && i < x->names.n; i++)
        if (load_entry(&x->io, x->dir, x->names.at[i].name, &found) == 0 &&
            (best.r.epoch == 0 || counts_more(&found, &best)))
            best = found;
    *out = best.r;
    if (x != NULL)
        nfsio_disconnect(&x->io);
    free(x);
    return r < 0 ? -1 : 0;
}

static int remove_all(struct outside *x, uint64_t epoch, const char *source, struct err *e)
{
    char path[PATH_LEN + NFSIO_NAME_MAX];
    struct lease_note was = { 0 }, found;
    int r = 0;

    for (unsigned i = 0; i < x->names.n; i++) {
        if (load_entry(&x->io, x->dir, x->names.at[i].name, &found) != 0)
            continue;
        if (found.r.epoch > epoch)
            return err_set(e, ERR_EPOCH,
                "disk %s: its lease knows epoch %" PRIu64 " of host %s, newer than %" PRIu64,
                source, found.r.epoch, found.r.owner, epoch);
        inherit_was(&was, &found);
    }
    if (was.has_was) {
        r = nfsio_chmod(&x->io, x->disk, was.was_mode);
        if (r >= 0)
            r = nfsio_chown(&x->io, x->disk, was.was_uid, was.was_gid);
    }
    for (unsigned i = 0; (r >= 0 || r == -ENOENT) && i < x->names.n; i++) {
        snprintf(path, sizeof path, "%s/%s", x->dir, x->names.at[i].name);
        r = nfsio_unlink(&x->io, path);
    }
    if (r >= 0 || r == -ENOENT)
        r = nfsio_rmdir(&x->io, x->dir);
    return r < 0 && r != -ENOENT ? nfsio_error(&x->io, r, e, source, "remove its lease") : 0;
}

int lease_nfs_remove(
    const struct storage_url *u, const struct disk_options *o, uint64_t epoch, struct err *e)
{
    struct outside *x = calloc(1, sizeof *x);
    int r = x != NULL ? outside_open(x, u, o, e) : err_set(e, ERR_MEMORY, "no memory");

    if (r == 1)
        r = remove_all(x, epoch, u->file, e);
    if (x != NULL)
        nfsio_disconnect(&x->io);
    free(x);
    return r < 0 ? -1 : 0;
}
