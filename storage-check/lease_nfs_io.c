/* SPDX-License-Identifier: ISC */
/*
 * Each call: queue, then poll and nfs_service until the callback came, the deadline is over, or
 * somebody wants to stop. A call that was not answered leaves a context whose state nobody
 * knows: it is destroyed, which calls the callback a last time.
 */
#include "storage-check/lease_nfs_io.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "storage-check/lease_internal.h"

#define SLICE_MS 50 /* how long a wish to stop may wait */

struct call {
    bool done;
    int status;
    void *data; /* handle or folder; else only valid in the callback */
    uint8_t *bytes;
    size_t len;
    struct nfs_stat_64 *st;
    char why[200];
};

static void on_done(int status, struct nfs_context *c, void *data, void *priv)
{
    struct call *call = priv;

    (void)c;
    call->done = true;
    call->status = status;
    if (status < 0) { /* data is the library's text, and goes with the context */
        snprintf(call->why, sizeof call->why, "%s", data != NULL ? (const char *)data : "");
        return;
    }
    call->data = data;
    if (call->bytes != NULL)
        memcpy(call->bytes, data, (size_t)status < call->len ? (size_t)status : call->len);
    if (call->st != NULL)
        memcpy(call->st, data, sizeof *call->st);
}

/* The server's own answers; everything else means that it was not reached. */
static bool is_answer(int status)
{
    switch (-status) {
    case EPERM:
    case ENOENT:
    case EACCES:
    case EEXIST:
    case EXDEV:
    case ENODEV:
    case ENOTDIR:
    case EISDIR:
    case EFBIG:
    case ENOSPC:
    case EROFS:
    case EMLINK:
    case ENAMETOOLONG:
    case ENOTEMPTY:
    case ESTALE:
    case EDQUOT:
    case EOPNOTSUPP:
        return true;
    default:
        return status >= 0;
    }
}

void nfsio_disconnect(struct nfsio *n)
{
    if (n->c != NULL) {
        disk_drop_unsent(nfs_get_fd(n->c));
        nfs_destroy_context(n->c);
    }
    n->c = NULL;
}

static int give_up(struct nfsio *n, int r, const char *why)
{
    snprintf(n->why, sizeof n->why, "%s", why);
    nfsio_disconnect(n);
    return r;
}

static int wait_ms(const struct nfsio *n)
{
    uint64_t now = lease_clock(), left;

    if (now >= n->deadline_ns)
        return 0;
    left = (n->deadline_ns - now) / NS_PER_MS + 1;
    return left < SLICE_MS ? (int)left : SLICE_MS;
}

/* Runs `expr`, an asynchronous call with `call`, on the connection that there is. */
#define RUN(n, call, expr) ((n)->c == NULL ? -EIO : finish(n, call, expr))
/* The same, connecting first if need be. */
#define CALL(n, call, expr) (nfsio_connect(n) < 0 ? connect_failed(n) : finish(n, call, expr))

static int connect_failed(const struct nfsio *n)
{
    return n->stop != NULL && atomic_load(n->stop) ? -ECANCELED : -EIO;
}

/* `queued` is what the asynchronous call returned. */
static int finish(struct nfsio *n, struct call *call, int queued)
{
    if (queued < 0)
        return give_up(n, -EIO, nfs_get_error(n->c));
    while (!call->done) {
        struct pollfd p = { .fd = nfs_get_fd(n->c), .events = (short)nfs_which_events(n->c) };
        int ms = wait_ms(n);

        if (n->stop != NULL && atomic_load(n->stop))
            return give_up(n, -ECANCELED, "stopped");
        if (ms == 0)
            return give_up(n, -ETIMEDOUT, "the server does not answer");
        if (poll(&p, 1, ms) < 0 && errno != EINTR)
            return give_up(n, -EIO, strerror(errno));
        if (nfs_service(n->c, p.revents) < 0 && !call->done)
            return give_up(n, -EIO, nfs_get_error(n->c));
    }
    if (is_answer(call->status)) {
        snprintf(n->why, sizeof n->why, "%s", call->status < 0 ? strerror(-call->status) : "");
        return call->status;
    }
    return give_up(n, -EIO, call->why[0] != '\0' ? call->why : "the connection broke");
}

/* Of the server's addresses the first. May block for as long as the name service likes. */
static int look_up(struct nfsio *n)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
    struct addrinfo *all = NULL;
    int r;

    if (n->in_time && n->address[0] != '\0')
        return 0;
    r = getaddrinfo(n->url->host, NULL, &hints, &all);
    if (r == 0) {
        r = getnameinfo(
            all->ai_addr, all->ai_addrlen, n->address, sizeof n->address, NULL, 0, NI_NUMERICHOST);
        freeaddrinfo(all);
    }
    if (r == 0 || n->address[0] != '\0')
        return 0;
    snprintf(
        n->why, sizeof n->why, "the server %s is not known: %s", n->url->host, gai_strerror(r));
    return -EIO;
}

int nfsio_connect(struct nfsio *n)
{
    struct call call = { 0 };
    struct err e = { .code = ERR_NONE };
    int r;

    if (n->c != NULL)
        return 0;
    r = look_up(n);
    if (r < 0)
        return r;
    n->c = disk_nfs_context(n->url, n->options, &e);
    if (n->c == NULL)
        return give_up(n, -EIO, e.text);
    nfs_set_dircache(n->c, 0);
    r = finish(n, &call, nfs_mount_async(n->c, n->address, n->url->path, on_done, &call));
    if (r < 0 && n->c != NULL)
        nfsio_disconnect(n);
    return r < 0 ? r : 0;
}

int nfsio_stat(struct nfsio *n, const char *path, struct nfs_stat_64 *out)
{
    struct call call = { .st = out };

    return CALL(n, &call, nfs_lstat64_async(n->c, path, on_done, &call));
}

int nfsio_mkdir(struct nfsio *n, const char *path, int mode)
{
    struct call call = { 0 };

    return CALL(n, &call, nfs_mkdir2_async(n->c, path, mode, on_done, &call));
}

int nfsio_rmdir(struct nfsio *n, const char *path)
{
    struct call call = { 0 };

    return CALL(n, &call, nfs_rmdir_async(n->c, path, on_done, &call));
}

int nfsio_open(struct nfsio *n, const char *path, int flags, int mode, struct nfsfh **out)
{
    struct call call = { 0 };
    int r = CALL(n, &call, nfs_open2_async(n->c, path, flags, mode, on_done, &call));

    *out = r < 0 ? NULL : call.data;
    return r < 0 ? r : 0;
}

static void ignore(int status, struct nfs_context *c, void *data, void *priv)
{
    (void)status;
    (void)c;
    (void)data;
    (void)priv;
}

/* v3 has no open files on the server: closing is freeing. A handle may have outlived its context,
 * and the call wants one. */
void nfsio_close(struct nfsio *n, struct nfsfh **fh)
{
    struct nfs_context *c = n->c != NULL ? n->c : nfs_init_context();

    if (*fh != NULL && c != NULL)
        nfs_close_async(c, *fh, ignore, NULL);
    if (c != n->c)
        nfs_destroy_context(c);
    *fh = NULL;
}

int nfsio_pread(struct nfsio *n, struct nfsfh *fh, uint8_t *data, size_t len)
{
    struct call call = { .bytes = data, .len = len };

    return RUN(n, &call, nfs_pread_async(n->c, fh, 0, len, on_done, &call));
}

int nfsio_pwrite(struct nfsio *n, struct nfsfh *fh, const uint8_t *data, size_t len)
{
    struct call call = { 0 };
    int r = RUN(n, &call, nfs_pwrite_async(n->c, fh, 0, len, data, on_done, &call));

    if (r >= 0 && (size_t)r != len)
        return give_up(n, -EIO, "short write");
    return r < 0 ? r : 0;
}

int nfsio_fsync(struct nfsio *n, struct nfsfh *fh)
{
    struct call call = { 0 };

    return RUN(n, &call, nfs_fsync_async(n->c, fh, on_done, &call));
}

int nfsio_link(struct nfsio *n, const char *from, const char *to)
{
    struct call call = { 0 };

    return CALL(n, &call, nfs_link_async(n->c, from, to, on_done, &call));
}

int nfsio_rename(struct nfsio *n, const char *from, const char *to)
{
    struct call call = { 0 };

    return CALL(n, &call, nfs_rename_async(n->c, from, to, on_done, &call));
}

int nfsio_unlink(struct nfsio *n, const char *path)
{
    struct call call = { 0 };

    return CALL(n, &call, nfs_unlink_async(n->c, path, on_done, &call));
}

int nfsio_chown(struct nfsio *n, const char *path, unsigned uid, unsigned gid)
{
    struct call call = { 0 };

    return CALL(n, &call, nfs_chown_async(n->c, path, (int)uid, (int)gid, on_done, &call));
}

int nfsio_chmod(struct nfsio *n, const char *path, unsigned mode)
{
    struct call call = { 0 };

    return CALL(n, &call, nfs_chmod_async(n->c, path, (int)mode, on_done, &call));
}

static int copy_names(struct nfsio *n, struct nfsdir *dir, struct nfsio_names *out)
{
    struct nfsdirent *d;

    out->n = 0;
    while ((d = nfs_readdir(n->c, dir)) != NULL) {
        if (strcmp(d->name, ".") == 0 || strcmp(d->name, "..") == 0 ||
            strlen(d->name) >= NFSIO_NAME_MAX)
            continue;
        if (out->n == NFSIO_NAMES)
            return -1;
        snprintf(out->at[out->n].name, NFSIO_NAME_MAX, "%s", d->name);
        out->at[out->n++].mtime_s = (uint64_t)d->mtime.tv_sec;
    }
    return 0;
}

int nfsio_list(struct nfsio *n, const char *path, struct nfsio_names *out)
{
    struct call call = { 0 };
    int r = CALL(n, &call, nfs_opendir_async(n->c, path, on_done, &call));

    if (r < 0)
        return r;
    r = copy_names(n, call.data, out);
    nfs_closedir(n->c, call.data);
    if (r < 0)
        snprintf(n->why, sizeof n->why, "more than %u names", NFSIO_NAMES);
    return r < 0 ? -EFBIG : 0;
}

int nfsio_may_write(struct nfsio *n, const char *path, unsigned uid, unsigned gid)
{
    struct call call = { 0 };
    int r = nfsio_connect(n);

    if (r < 0)
        return r;
    nfs_set_uid(n->c, (int)uid);
    nfs_set_gid(n->c, (int)gid);
    r = finish(n, &call, nfs_access_async(n->c, path, W_OK, on_done, &call));
    if (n->c != NULL) {
        nfs_set_uid(n->c, (int)n->options->uid);
        nfs_set_gid(n->c, (int)n->options->gid);
    }
    if (r == -EACCES || r == -EPERM)
        return 0;
    return r < 0 ? r : 1;
}

int nfsio_error(
    const struct nfsio *n, int r, struct err *e, const char *source, const char *fmt, ...)
{
    enum err_code code = r == -ETIMEDOUT               ? ERR_TIMEOUT
                         : r == -ECANCELED             ? ERR_CANCELLED
                         : r == -EACCES || r == -EPERM ? ERR_REFUSED
                         : r == -ENOENT                ? ERR_NOT_FOUND
                         : r == -EIO                   ? ERR_PEER
                                                       : ERR_SYSTEM;
    char what[300];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(
        e, code, "disk %s: %s: %s", source, what, n->why[0] != '\0' ? n->why : strerror(-r));
}
