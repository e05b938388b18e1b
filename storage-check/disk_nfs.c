/* SPDX-License-Identifier: ISC */
/*
 * A file on an NFSv3 server, through libnfs. One connection:
 *   mount the folder; the first time: open the file, which checks that it may be written, and keep
 * its handle, file system and number; later: ask for the attributes of that handle
 *
 * The handle is what the file is. After a reconnect the server is asked about the old handle, not
 * about the name: as long as it answers for it with the same file system, number and size, it is
 * the same file, whatever the name stands for. If the handle is stale, the name decides what to do:
 * another file is there: the disk was replaced, requests get ESTALE; none is there (a server that
 * exports before it has mounted its disks): waited for.
 *
 * Ids: each RPC carries its own, so that disk_set_owner counts for all that is sent from then on.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "storage-check/disk_nfs.h"

#define HEAP_PIECE (4 << 20)
#define HEAP_KEPT (16 << 20)

/* As libnfs 4.0 lays it out; nfs_get_fh has no public type for it. */
struct nfs_fh {
    int len;
    char *val;
};

/* ---- connecting ---- */

static void forget_file(int error, struct nfs_context *c, void *data, void *priv)
{
    (void)error;
    (void)c;
    (void)data;
    (void)priv;
}

static void mount_failed(struct nfs_disk *f, int error, const char *text)
{
    const struct storage_url *u = &f->n.d.url;

    if (error == -EACCES || error == -EPERM)
        net_lost(&f->n, ERR_REFUSED,
            "the server %.100s does not let this host mount %.150s; is it exported, and to this "
            "host?",
            u->host, u->path);
    else if (error == -ENOENT || error == -ENOTDIR)
        net_lost(&f->n, ERR_NOT_FOUND, "the server %.100s has no folder %.200s to mount", u->host,
            u->path);
    else if (strstr(text, "POLLHUP") != NULL || strstr(text, "POLLERR") != NULL)
        net_lost(
            &f->n, ERR_PEER, "no NFS server answers on %.100s, or its port is not open", u->host);
    else
        net_lost(&f->n, ERR_PEER, "mounting %.100s from %.100s: %.150s", u->path, u->host, text);
}

static void open_failed(struct nfs_disk *f, int error, const char *text)
{
    const struct storage_url *u = &f->n.d.url;

    if (error == -ENOENT)
        net_lost(&f->n, ERR_NOT_FOUND, "there is no file %.150s in %.150s on %.80s", u->file + 1,
            u->path, u->host);
    else if (error == -EACCES || error == -EPERM || error == -EROFS)
        net_lost(&f->n, ERR_REFUSED,
            "the server does not let user %u %s it: look at the export (ro? root_squash?) and at "
            "the file's owner and mode%s",
            f->n.uid, f->n.d.options.read_only ? "read" : "write",
            f->n.d.options.read_only ? "" : "; or define the disk as read-only");
    else
        net_lost(&f->n, ERR_PEER, "opening %.150s: %.150s", u->file + 1, text);
}

static void take_limits(struct nfs_disk *f)
{
    uint64_t r = nfs_get_readmax(f->ctx), w = nfs_get_writemax(f->ctx);

    f->read_max = r == 0 || r > NET_PART_MAX ? NET_PART_MAX : r;
    f->write_max = w == 0 || w > NET_PART_MAX ? NET_PART_MAX : w;
}

/* The attributes of the file that was just opened. */
static void take_file(struct nfs_disk *f, const fattr3 *a)
{
    if (a->type != NF3REG) {
        net_lost(&f->n, ERR_INVALID, "this is no regular file");
        return;
    }
    if (a->size < DISK_SECTOR) {
        net_lost(&f->n, ERR_INVALID, "smaller than one sector of %u bytes", DISK_SECTOR);
        return;
    }
    f->fsid = a->fsid;
    f->fileid = a->fileid;
    f->n.d.size = a->size / DISK_SECTOR * DISK_SECTOR;
    net_connected(&f->n);
}

static void compare_file(struct nfs_disk *f, const fattr3 *a)
{
    if (a->fsid != f->fsid || a->fileid != f->fileid || a->type != NF3REG)
        net_foreign(&f->n,
            "the server has another file now (file system %llx, number %llu; it was "
            "%llx, %llu)",
            (unsigned long long)a->fsid, (unsigned long long)a->fileid, (unsigned long long)f->fsid,
            (unsigned long long)f->fileid);
    else if (a->size < f->n.d.size)
        net_foreign(&f->n, "the file became smaller: %llu bytes, it had %llu",
            (unsigned long long)a->size, (unsigned long long)f->n.d.size);
    else
        net_connected(&f->n);
}

/* The old handle is stale: is there a file of that name? */
static void looked_up(int error, struct nfs_context *c, void *data, void *priv)
{
    struct nfs_disk *f = priv;

    (void)c;
    if (f->n.dying)
        return;
    if (error < 0) {
        open_failed(f, error, data);
        return;
    }
    net_foreign(&f->n, "another file is there under that name");
}

static void got_attributes(struct rpc_context *rpc, int status, void *data, void *priv)
{
    struct nfs_disk *f = priv;
    GETATTR3res *res = data;

    (void)rpc;
    if (!nfs_answered(f, status, data))
        return;
    if (res->status == NFS3_OK && f->n.opened) {
        compare_file(f, &res->GETATTR3res_u.resok.obj_attributes);
    } else if (res->status == NFS3_OK) {
        take_file(f, &res->GETATTR3res_u.resok.obj_attributes);
    } else if (f->n.opened && (res->status == NFS3ERR_STALE || res->status == NFS3ERR_BADHANDLE)) {
        if (nfs_stat64_async(f->ctx, f->n.d.url.file, looked_up, f) != 0)
            net_lost(&f->n, ERR_MEMORY, "no memory to look the file up");
    } else {
        net_lost(&f->n, ERR_PEER, "the server does not tell the file's attributes (NFS error %d)",
            (int)res->status);
    }
}

static void ask_attributes(struct nfs_disk *f)
{
    GETATTR3args args = { .object = nfs_handle(f) };

    if (rpc_nfs3_getattr_async(f->rpc, got_attributes, &args, f) != 0)
        net_lost(&f->n, ERR_MEMORY, "no memory to ask for the file's attributes");
}

static void file_opened(int error, struct nfs_context *c, void *data, void *priv)
{
    struct nfs_disk *f = priv;
    const struct nfs_fh *handle;

    if (f->n.dying)
        return;
    if (error < 0) {
        open_failed(f, error, data);
        return;
    }
    handle = nfs_get_fh(data);
    if (handle->len <= 0 || (unsigned)handle->len > NFS_HANDLE_MAX) {
        net_lost(&f->n, ERR_PROTOCOL, "the server gave a handle of %d bytes", handle->len);
        return;
    }
    memcpy(f->handle, handle->val, (size_t)handle->len);
    f->handle_len = (unsigned)handle->len;
    nfs_close_async(c, data, forget_file, NULL);
    ask_attributes(f);
}

static void mounted(int error, struct nfs_context *c, void *data, void *priv)
{
    struct nfs_disk *f = priv;
    int flags = f->n.d.options.read_only ? O_RDONLY : O_RDWR;

    if (f->n.dying)
        return;
    if (error < 0) {
        mount_failed(f, error, data);
        return;
    }
    take_limits(f);
    if (f->n.opened)
        ask_attributes(f);
    else if (nfs_open_async(c, f->n.d.url.file, flags, file_opened, f) != 0)
        net_lost(&f->n, ERR_MEMORY, "opening: %.150s", nfs_get_error(c));
}

static void nfs_owner(struct net_disk *n)
{
    struct nfs_disk *f = nfs_of(n);
    unsigned uid, gid;

    pthread_mutex_lock(&n->lock);
    uid = n->uid;
    gid = n->gid;
    pthread_mutex_unlock(&n->lock);
    f->owned = uid != 0;
    if (f->ctx == NULL)
        return;
    nfs_set_uid(f->ctx, (int)uid);
    nfs_set_gid(f->ctx, (int)gid);
}

static int nfs_connect(struct net_disk *n, const char *address, struct err *e)
{
    struct nfs_disk *f = nfs_of(n);

    f->ctx = disk_nfs_context(&n->d.url, &n->d.options, e);
    if (f->ctx == NULL)
        return -1;
    nfs_owner(n);
    f->rpc = nfs_get_rpc_context(f->ctx);
    if (nfs_mount_async(f->ctx, address, n->d.url.path, mounted, f) != 0)
        return err_set(e, ERR_PEER, "the server %.100s cannot be reached: %.150s", n->d.url.host,
            nfs_get_error(f->ctx));
    return 0;
}

static void nfs_disconnect(struct net_disk *n)
{
    struct nfs_disk *f = nfs_of(n);

    if (f->ctx != NULL)
        nfs_destroy_context(f->ctx);
    f->ctx = NULL;
    f->rpc = NULL;
    nfs_forget(f);
}

/* ---- the loop's ---- */

static int nfs_fd(struct net_disk *n)
{
    return nfs_of(n)->ctx != NULL ? nfs_get_fd(nfs_of(n)->ctx) : -1;
}

static short nfs_events(struct net_disk *n)
{
    return (short)nfs_which_events(nfs_of(n)->ctx);
}

static int nfs_serve(struct net_disk *n, short revents)
{
    struct nfs_disk *f = nfs_of(n);

    if (nfs_service(f->ctx, revents) == 0)
        return 0;
    nfs_broke(f, nfs_get_error(f->ctx));
    return -1;
}

static void sign_of_life(struct rpc_context *rpc, int status, void *data, void *priv)
{
    struct nfs_disk *f = priv;

    (void)rpc;
    if (nfs_answered(f, status, data))
        net_heard(&f->n);
}

static void nfs_probe(struct net_disk *n)
{
    struct nfs_disk *f = nfs_of(n);
    GETATTR3args args = { .object = nfs_handle(f) };

    if (rpc_nfs3_getattr_async(f->rpc, sign_of_life, &args, f) != 0)
        net_lost(n, ERR_MEMORY, "no memory to ask the server for a sign of life");
}

static void nfs_dispose(struct net_disk *n)
{
    held_dispose(&nfs_of(n)->held);
}

static const struct net_ops nfs_ops = {
    .connect = nfs_connect,
    .prepare = nfs_prepare,
    .disconnect = nfs_disconnect,
    .fd = nfs_fd,
    .events = nfs_events,
    .service = nfs_serve,
    .part_max = nfs_part_max,
    .start = nfs_start,
    .probe = nfs_probe,
    .owner = nfs_owner,
    .mark = nfs_mark,
    .turn = nfs_turn,
    .dispose = nfs_dispose,
};

/* libnfs allocates each request and each answer, and frees them. By its defaults glibc gives the
 * end of the thread's heap back to the kernel each time that some of those of 1 MiB are free, and
 * the next ones are 256 page faults each. For the whole process: who has a disk on NFS keeps that
 * much. */
static void keep_heap(void)
{
    mallopt(M_MMAP_THRESHOLD, HEAP_PIECE);
    mallopt(M_TRIM_THRESHOLD, HEAP_KEPT);
}

int disk_nfs_open(const struct disk_options *o, const struct storage_url *u, const char *source,
    struct disk **out, struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct nfs_disk *f = calloc(1, sizeof *f);

    pthread_once(&once, keep_heap);
    if (f == NULL || !net_init(&f->n, &nfs_ops, MIGRD__STORAGE_KIND__STORAGE_NFS, o, u, source)) {
        free(f);
        return err_set(e, ERR_MEMORY, "disk %.300s: out of memory", source);
    }
    if (net_open(&f->n, e) < 0)
        return -1;
    *out = &f->n.d;
    return 0;
}
