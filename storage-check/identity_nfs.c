/* SPDX-License-Identifier: ISC */
/*
 * A disk on NFS. What it is: fsid, file handle and inode by version 3 (version 4 of libnfs knows
 * no fsid); the folder that is mounted is that of the disk. What may be done there is tried with a
 * file of our own beside the disk, the challenge or, where none is wanted, one that is removed at
 * once:
 *   cannot be made: EROFS, the export is read only; EACCES, root squash or the folder's mode
 *   its owner is not who we said we are: the server squashes root
 *   its owner can be changed, and then another user can not write it: a user id per
 *     epoch keeps a stale owner of the disk from writing (lease.h)
 *   opened by version 4 and locked: the server grants locks. A server that does not
 *     speak version 4 cannot be asked: libnfs has no locks of version 3.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nfsc/libnfs.h>
#include <nfsc/libnfs-raw.h>

#include "base/clock.h"
#include "storage-check/disk_internal.h"
#include "storage-check/identity_internal.h"
#include "storage-check/image.h"

#define LOCK_MS 3000u
#define PORTMAPPER 111u
#define NFS_PORT 2049u
#define FOLDER_MAX (1u << 20) /* bytes of a folder that is searched for old challenges */
#define NAME_MAX_LEN 1100u
#define HANDLE_MAX 128

/* libnfs 4 and 5 have this behind nfs_get_fh, but not in a public header. */
struct nfs_fh {
    int len;
    char *val;
};

struct nfs_look {
    struct look *l;
    struct storage_url u;
    struct disk_options o;
    struct nfs_context *nfs;
    struct nfsfh *disk;
    struct nfs_stat_64 st;
    int may_not_write; /* what opening it for writing gave */
    const char *what;  /* the source, for texts */
};

/* --- what went wrong --- */

static bool says(const char *text, const char *word)
{
    return strcasestr(text, word) != NULL;
}

/* Why the export could not be mounted; libnfs tells it in words only. */
static void mount_failed(struct nfs_look *n, int r)
{
    const char *why = nfs_get_error(n->nfs);
    const char *host = n->u.host, *path = n->u.path;

    if (r == -EINTR || r == -ETIMEDOUT || says(why, "timed out") || says(why, "timeout"))
        look_fail(n->l, ERR_TIMEOUT,
            "%s: the NFS server %s does not answer; check that it is up and reachable from this "
            "host, or raise storage-timeout",
            n->what, host);
    else if (r == -EACCES || says(why, "ACCES") || says(why, "PERM"))
        look_fail(n->l, ERR_REFUSED,
            "%s: the NFS server %s does not export %s to this host; add this host's address to its "
            "export list",
            n->what, host, path);
    else if (r == -ENOENT || says(why, "NOENT") || says(why, "NOTDIR"))
        look_fail(n->l, ERR_NOT_FOUND,
            "%s: the NFS server %s exports no %s; see 'showmount -e %s', or correct the URL",
            n->what, host, path, host);
    else if (look_reach(n->l, host, n->u.port != 0 ? n->u.port : NFS_PORT, "NFS"))
        look_fail(n->l, ERR_SYSTEM,
            "%s: cannot be mounted: %s; the NFS server %s answers, look whether it speaks version "
            "%u "
            "and whether its mount service runs",
            n->what, why, host, n->u.version);
}

/* Why a call about the disk itself failed. */
static void call_failed(struct nfs_look *n, const char *what, int r)
{
    int code = -r;

    if (code == EINTR || code == ETIMEDOUT)
        look_fail(n->l, ERR_TIMEOUT, "%s: %s: the NFS server %s has stopped to answer", n->what,
            what, n->u.host);
    else if (code == ENOENT)
        look_fail(n->l, ERR_NOT_FOUND,
            "%s: there is no %s in the export %s of %s; correct the URL, or look whether that is "
            "the right export",
            n->what, n->u.file + 1, n->u.path, n->u.host);
    else if (code == EACCES || code == EPERM)
        look_fail(n->l, ERR_REFUSED,
            "%s: %s: permission denied as user %u: the file belongs to %llu:%llu with mode %03llo; "
            "export it with no_root_squash, or give the file to the user that root is mapped to",
            n->what, what, n->u.has_uid ? n->u.uid : 0, (unsigned long long)n->st.nfs_uid,
            (unsigned long long)n->st.nfs_gid, (unsigned long long)n->st.nfs_mode & 07777);
    else
        look_fail(n->l, ERR_SYSTEM, "%s: %s: %s (%s)", n->what, what, strerror(code),
            nfs_get_error(n->nfs));
}

/* --- names --- */

static void add_address(struct nfs_look *n)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
    char text[NI_MAXHOST];

    if (getaddrinfo(n->u.host, NULL, &hints, &list) != 0)
        return;
    if (getnameinfo(list->ai_addr, list->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST) ==
        0)
        id_add(n->l->out, "nfs-address", "%s", text);
    freeaddrinfo(list);
}

static void add_handle(struct nfs_look *n)
{
    const struct nfs_fh *h = nfs_get_fh(n->disk);
    char text[2 * HANDLE_MAX + 1];

    if (h == NULL || h->len <= 0 || h->len > HANDLE_MAX || h->val == NULL)
        return;
    for (int i = 0; i < h->len; i++)
        snprintf(text + 2 * i, 3, "%02x", (unsigned char)h->val[i]);
    id_add(n->l->out, "nfs-handle", "%s", text);
}

static void add_names(struct nfs_look *n)
{
    Migrd__DiskIdentity *id = n->l->out;

    id->size = n->st.nfs_size;
    id_add(id, "nfs-server", "%s", n->u.host);
    add_address(n);
    id_add(id, "nfs-export", "%s", n->u.path);
    if (n->st.nfs_dev != 0)
        id_add(id, "nfs-fsid", "%llx", (unsigned long long)n->st.nfs_dev);
    id_add(id, "inode", "%llu", (unsigned long long)n->st.nfs_ino);
    id_add(id, "nfs-owner", "%llu:%llu %03llo", (unsigned long long)n->st.nfs_uid,
        (unsigned long long)n->st.nfs_gid, (unsigned long long)n->st.nfs_mode & 07777);
}

/* --- the disk --- */

static bool open_disk(struct nfs_look *n)
{
    int r;

    look_step(n->l, "asking %s for the file %s", n->u.host, n->u.file + 1);
    r = nfs_stat64(n->nfs, n->u.file, &n->st);
    if (r < 0) {
        call_failed(n, "looking for the file", r);
        return false;
    }
    if (!S_ISREG(n->st.nfs_mode)) {
        look_fail(n->l, ERR_INVALID, "%s is no regular file", n->what);
        return false;
    }
    add_names(n);
    look_step(n->l, "opening the file on %s", n->u.host);
    r = n->l->disk->read_only ? 0 : nfs_open(n->nfs, n->u.file, O_RDWR, &n->disk);
    if (r < 0)
        n->may_not_write = r; /* whose fault that is shows when a file is made beside it */
    if (n->disk == NULL || r < 0)
        r = nfs_open(n->nfs, n->u.file, O_RDONLY, &n->disk);
    if (r < 0) {
        n->disk = NULL;
        call_failed(n, "opening", r);
        return false;
    }
    add_handle(n);
    return true;
}

static void read_head(struct nfs_look *n)
{
    uint8_t head[IMAGE_HEAD];
    int r;

    look_step(n->l, "reading the beginning of the file on %s", n->u.host);
    r = nfs_pread(n->nfs, n->disk, 0, sizeof head, head);
    if (r < 0)
        call_failed(n, "reading", r);
    else
        look_head(n->l, head, (size_t)r);
}

/* --- the file beside it --- */

static void beside(char out[NAME_MAX_LEN], const char *name)
{
    snprintf(out, NAME_MAX_LEN, "/%s", name);
}

/* A user must not be able to write a file that is another's, its owner must. Tried on our file, as
 * users that epochs would have. (The library tells failed writes of all kinds as EFAULT.) */
static void try_fence(struct nfs_look *n, const char *path, struct nfsfh *fh)
{
    unsigned base = n->l->rq->nfs_uid_base, uid = n->u.has_uid ? n->u.uid : 0;
    unsigned gid = n->u.has_gid ? n->u.gid : 0;
    char byte[1] = { '\n' };
    int r, other, owner;

    if (base == 0) {
        id_text(&n->l->out->fence_note, "storage-nfs-uid-base is not set");
        return;
    }
    r = nfs_chown(n->nfs, path, (int)base, (int)base);
    if (r == 0)
        r = nfs_chmod(n->nfs, path, 0600);
    if (r < 0) {
        id_text(&n->l->out->fence_note,
            "the server does not let this host change the owner of a file (%s; root squash?)",
            strerror(-r));
        return;
    }
    nfs_set_uid(n->nfs, (int)(base + 1));
    nfs_set_gid(n->nfs, (int)(base + 1));
    other = nfs_pwrite(n->nfs, fh, NONCE_LEN + 1, sizeof byte, byte);
    nfs_set_uid(n->nfs, (int)base);
    nfs_set_gid(n->nfs, (int)base);
    owner = nfs_pwrite(n->nfs, fh, NONCE_LEN + 1, sizeof byte, byte);
    nfs_set_uid(n->nfs, (int)uid);
    nfs_set_gid(n->nfs, (int)gid);
    nfs_chown(n->nfs, path, (int)uid, (int)gid);
    if (other < 0 && owner > 0)
        id_text(&n->l->out->fence, "uid");
    else if (other > 0)
        id_text(&n->l->out->fence_note, "the server lets one user write another one's file");
    else
        id_text(&n->l->out->fence_note, "the server does not let users %u and up write their files",
            base);
}

static void lock_result(struct nfs_look *n, struct nfs_context *v4, int r)
{
    const char *why = r < 0 ? nfs_get_error(v4) : "";

    if (r == 0) {
        n->l->out->locks = true;
        id_add(n->l->out, "nfs-locks", "granted");
    } else if (says(why, "GRACE")) {
        id_add(n->l->out, "nfs-locks", "not known: the server is in its grace period");
    } else {
        id_add(n->l->out, "nfs-locks", "refused: %.200s", why);
    }
}

static void try_lock(struct nfs_look *n, struct nfs_context *v4, const char *path)
{
    struct nfs4_flock k = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
    struct nfsfh *fh = NULL;
    int r;

    k.l_pid = (uint32_t)getpid();
    r = nfs_open(v4, path, O_RDWR, &fh);
    if (r < 0) {
        id_add(n->l->out, "nfs-locks", "not known: %.200s", nfs_get_error(v4));
        return;
    }
    r = nfs_fcntl(v4, fh, NFS4_F_SETLK, &k);
    lock_result(n, v4, r);
    if (r == 0) {
        k.l_type = F_UNLCK;
        nfs_fcntl(v4, fh, NFS4_F_SETLK, &k);
    }
    nfs_close(v4, fh);
}

static void look_nfs_locks(struct nfs_look *n, const char *path)
{
    struct storage_url u = n->u;
    struct disk_options o = n->o;
    struct nfs_context *v4;
    char name[64];

    look_step(n->l, "asking %s for a lock by NFS version 4", u.host);
    u.version = 4;
    o.timeout_ms = n->l->timeout_ms / 3 < LOCK_MS ? n->l->timeout_ms / 3 : LOCK_MS;
    v4 = disk_nfs_context(&u, &o, NULL);
    if (v4 == NULL)
        return;
    snprintf(name, sizeof name, "migrd-storage %.20s %ld %" PRIu64, n->l->rq->host, (long)getpid(),
        clock_ns());
    nfs4_set_client_name(v4, name);
    nfs_set_timeout(v4, (int)o.timeout_ms);
    if (nfs_mount(v4, u.host, u.path) == 0)
        try_lock(n, v4, path);
    else
        id_add(n->l->out, "nfs-locks", "not known: the server does not serve it by version 4");
    nfs_destroy_context(v4);
}

/* Why no file can be made beside the disk. */
static void not_made(struct nfs_look *n, int r)
{
    if (r == -EROFS) {
        n->l->out->read_only = true;
        look_no_challenge(n->l, "the export %s of %s is read only", n->u.path, n->u.host);
    } else if (r == -EACCES || r == -EPERM) {
        look_no_challenge(n->l,
            "no file can be made beside it: permission denied; export it with no_root_squash, or "
            "let the user that root is mapped to write the folder %s",
            n->u.path);
        id_text(&n->l->out->fence_note, "no file can be made beside it (root squash?)");
    } else {
        look_no_challenge(n->l, "no file can be made beside it: %s", strerror(-r));
    }
}

/* In the new file: what the server makes of who we are. */
static void look_powers(struct nfs_look *n, const char *path, struct nfsfh *fh)
{
    struct nfs_stat_64 st;
    unsigned uid = n->u.has_uid ? n->u.uid : 0;

    if (nfs_fstat64(n->nfs, fh, &st) == 0 && st.nfs_uid != uid)
        id_add(n->l->out, "nfs-squash", "%llu", (unsigned long long)st.nfs_uid);
    look_nfs_locks(n, path);
    look_step(n->l, "trying on %s whether a user id keeps others from writing", n->u.host);
    try_fence(n, path, fh);
}

static void make_file(struct nfs_look *n)
{
    char nonce[NONCE_LEN + 2], path[NAME_MAX_LEN];
    struct nfsfh *fh = NULL;
    bool keep = look_wants_challenge(n->l);
    int r;

    if (challenge_make(n->l, n->u.file + 1, nonce) < 0)
        return;
    nonce[NONCE_LEN] = '\n';
    beside(path, n->l->out->challenge->name);
    look_step(n->l, "making a file beside the disk on %s", n->u.host);
    r = nfs_open2(n->nfs, path, O_RDWR | O_CREAT | O_EXCL, 0644, &fh);
    if (r == 0) {
        r = nfs_pwrite(n->nfs, fh, 0, NONCE_LEN + 1, nonce);
        if (r >= 0)
            r = nfs_fsync(n->nfs, fh);
        look_powers(n, path, fh);
        if (keep)
            nfs_fchmod(n->nfs, fh, 0644);
        nfs_close(n->nfs, fh);
        if (!keep || r < 0)
            nfs_unlink(n->nfs, path);
    }
    if (r < 0)
        not_made(n, r);
    if (!keep || r < 0) {
        migrd__challenge__free_unpacked(n->l->out->challenge, NULL);
        n->l->out->challenge = NULL;
    }
}

static void read_challenge(struct nfs_look *n, const char *name)
{
    char path[NAME_MAX_LEN], text[NONCE_LEN + 2] = "";
    struct nfsfh *fh = NULL;
    int r;

    look_step(n->l, "reading the source's challenge on %s", n->u.host);
    beside(path, name);
    r = nfs_open(n->nfs, path, O_RDONLY, &fh);
    if (r == 0) {
        r = nfs_pread(n->nfs, fh, 0, sizeof text - 1, text);
        nfs_close(n->nfs, fh);
    }
    if (r == -ENOENT)
        look_no_challenge(n->l, "there is no %s in %s of %s", name, n->u.path, n->u.host);
    else if (r < 0)
        look_no_challenge(n->l, "%s: %s", name, strerror(-r));
    else
        challenge_take(n->l, text, (size_t)r);
}

/* Challenges of migrations that died, by the server's clock. */
static void remove_stale(struct nfs_look *n)
{
    struct nfs_stat_64 st;
    struct nfsdir *d = NULL;
    struct nfsdirent *de;
    char path[NAME_MAX_LEN];
    int64_t now;

    if (n->l->out->challenge == NULL || nfs_stat64(n->nfs, "/", &st) < 0 ||
        st.nfs_size > FOLDER_MAX)
        return;
    now = (int64_t)st.nfs_mtime; /* we have just made a file in it */
    look_step(n->l, "looking for old challenges on %s", n->u.host);
    if (nfs_opendir(n->nfs, "/", &d) < 0)
        return;
    while ((de = nfs_readdir(n->nfs, d)) != NULL) {
        if (!challenge_name_ok(de->name) || de->mtime.tv_sec > now - CHALLENGE_STALE_S)
            continue;
        beside(path, de->name);
        nfs_unlink(n->nfs, path);
    }
    nfs_closedir(n->nfs, d);
}

/* --- the look --- */

/* Where the library knocks first. */
static unsigned first_port(const struct storage_url *u)
{
    if (u->mount_port != 0)
        return u->mount_port;
    return u->version == 4 && u->port != 0 ? u->port : PORTMAPPER;
}

static bool mount_it(struct nfs_look *n)
{
    struct err e;
    int r;

    n->o = (struct disk_options){ .read_only = n->l->disk->read_only,
        .host = n->l->rq->host,
        .initiator = n->l->rq->initiator,
        .secrets = n->l->rq->secrets,
        .timeout_ms = n->l->timeout_ms - n->l->timeout_ms / 5 };
    if (!look_reach(n->l, n->u.host, first_port(&n->u), "NFS"))
        return false;
    n->nfs = disk_nfs_context(&n->u, &n->o, &e);
    if (n->nfs == NULL) {
        look_fail(n->l, e.code, "%s", e.text);
        return false;
    }
    nfs_set_timeout(n->nfs, (int)n->o.timeout_ms);
    look_step(n->l, "mounting %s of the NFS server %s", n->u.path, n->u.host);
    r = nfs_mount(n->nfs, n->u.host, n->u.path);
    if (r < 0)
        mount_failed(n, r);
    return r >= 0;
}

static void clean(struct nfs_look *n)
{
    const char *name = challenge_theirs(n->l);
    char path[NAME_MAX_LEN];
    int r;

    if (name == NULL || !mount_it(n))
        return;
    beside(path, name);
    r = nfs_unlink(n->nfs, path);
    if (r < 0 && r != -ENOENT)
        look_fail(n->l, ERR_SYSTEM, "%s beside %s: %s", name, n->what, strerror(-r));
}

static void identify(struct nfs_look *n)
{
    const char *name;

    if (!mount_it(n) || !open_disk(n))
        return;
    read_head(n);
    name = challenge_theirs(n->l);
    if (name != NULL)
        read_challenge(n, name);
    if (!n->l->disk->read_only && !look_failed(n->l))
        make_file(n);
    if (n->may_not_write == -EROFS)
        n->l->out->read_only = true;
    else if (n->may_not_write < 0 && !n->l->out->read_only)
        call_failed(n, "opening for writing", n->may_not_write);
    remove_stale(n);
}

void look_nfs(struct look *l)
{
    struct nfs_look *n = calloc(1, sizeof *n);

    if (n == NULL)
        return;
    n->l = l;
    n->what = l->disk->source;
    if (storage_url_parse(l->disk->source, &n->u, NULL) == 0) {
        if (l->what == MIGRD__STORAGE_REQUEST__WHAT__CLEAN)
            clean(n);
        else
            identify(n);
    }
    if (n->disk != NULL)
        nfs_close(n->nfs, n->disk);
    if (n->nfs != NULL)
        nfs_destroy_context(n->nfs);
    free(n);
}
