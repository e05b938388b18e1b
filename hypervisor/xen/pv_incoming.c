/* SPDX-License-Identifier: ISC */
/*
 * `xen-domain incoming` of a PV guest. libxl builds it while it reads the guest's stream, so this
 * process stays until the last byte:
 *
 *   libxl's thread     libxl_domain_create_restore, from a pipe
 *   relay              libxl's header into the pipe
 *                      libxl has taken it, the domain is there: x->exists lights its fuse, takes
 *                      `building` away and answers migrd
 *                      the migration's worker connects to FOLDER_STREAM; its bytes go into the pipe
 *                      end of the socket: end of the pipe
 *   libxl's thread     behind the last record of the stream: the worker reads "ok";
 *                      a pipe that ends earlier: libxl destroys the domain
 *
 * A second connection is `xen-domain destroy`, which wants all that to end. Interfaces and disks
 * are attached beside it (attach.c).
 *
 * The domain stays paused: it may run once the worker has noted that all of it came.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "hypervisor/xen/folder.h"
#include "hypervisor/xen/stream.h"
#include "hypervisor/xen/xen_domain.h"

#define CONNECT_MS 120000 /* from the answer to the worker */
#define LOOK_MS 10
#define CHUNK (256u << 10)

struct relay {
    struct xl *x;
    int listener, over, pipe, conn; /* over: libxl has ended */
    struct err err;                 /* why it ended the pipe */
    uint8_t chunk[CHUNK];
};

/* --- the thread beside libxl --- */

/* True: something else came first than what is waited for. */
static bool is_over(const struct relay *r, int fd, short events, int timeout_ms)
{
    struct pollfd p[] = { { .fd = r->over, .events = POLLIN },
        { .fd = r->listener, .events = POLLIN }, { .fd = fd, .events = events } };
    int n;

    do
        n = poll(p, 3, timeout_ms);
    while (n < 0 && errno == EINTR);
    return n <= 0 || p[0].revents != 0 || (fd >= 0 && p[1].revents != 0);
}

/* Until libxl has read what is in the pipe. */
static bool await_taken(const struct relay *r)
{
    struct pollfd p = { .fd = r->over, .events = POLLIN };
    int left = 1;

    while (ioctl(r->pipe, FIONREAD, &left) == 0 && left > 0)
        if (poll(&p, 1, LOOK_MS) > 0)
            return false;
    return left == 0;
}

static int await_worker(struct relay *r, struct err *e)
{
    if (is_over(r, -1, 0, CONNECT_MS))
        return err_set(e, ERR_TIMEOUT, "nobody brought the guest's memory");
    r->conn = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC);
    return r->conn >= 0 ? 0 : err_sys(e, "accept");
}

static int copy_chunk(struct relay *r, size_t len, struct err *e)
{
    for (size_t at = 0; at < len;) {
        ssize_t n;

        if (is_over(r, r->pipe, POLLOUT, -1))
            return err_set(e, ERR_CANCELLED, "the domain is to end");
        n = write(r->pipe, r->chunk + at, len - at);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return err_sys(e, "handing the guest's memory to libxl");
        at += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int copy(struct relay *r, struct err *e)
{
    for (;;) {
        ssize_t n;

        if (is_over(r, r->conn, POLLIN, -1))
            return err_set(e, ERR_CANCELLED, "the domain is to end");
        n = read(r->conn, r->chunk, sizeof r->chunk);
        if (n < 0 && errno != EINTR)
            return err_sys(e, "reading the guest's memory");
        if (n == 0)
            return 0;
        if (n > 0 && copy_chunk(r, (size_t)n, e) < 0)
            return -1;
    }
}

static void *relay(void *arg)
{
    struct relay *r = arg;

    if (await_taken(r) && r->x->exists(r->x, &r->err) == 0 && await_worker(r, &r->err) == 0)
        copy(r, &r->err);
    io_close(&r->pipe);
    return NULL;
}

/* --- libxl's --- */

/* The header of its stream, and the record behind which libxc's begins. */
static int write_head(int fd, struct err *e)
{
    const uint64_t ident = htobe64(XEN_LIBXL_IDENT);
    const uint32_t head[] = { htobe32(XEN_STREAM_VERSION), 0, htole32(XEN_LIBXL_LIBXC_CONTEXT), 0 };

    if (write(fd, &ident, sizeof ident) != (ssize_t)sizeof ident ||
        write(fd, head, sizeof head) != (ssize_t)sizeof head)
        return err_sys(e, "pipe");
    return 0;
}

static int open_relay(struct relay *r, int *read_end, struct err *e)
{
    char path[RUNDIR_LEN + 16];
    int p[2];

    snprintf(path, sizeof path, "%s/%s", r->x->dir, FOLDER_STREAM);
    r->over = eventfd(0, EFD_CLOEXEC);
    if (r->over < 0 || pipe2(p, O_CLOEXEC) < 0)
        return err_sys(e, "pipe");
    *read_end = p[0];
    r->pipe = p[1];
    r->listener = io_unix_listen(path, 0600, e);
    if (r->listener < 0 || write_head(r->pipe, e) < 0)
        return -1;
    return io_set_nonblock(r->pipe, true, e);
}

static void close_relay(struct relay *r, int *read_end)
{
    folder_unmark(r->x->dir, FOLDER_STREAM);
    io_close(read_end);
    io_close(&r->pipe);
    io_close(&r->conn);
    io_close(&r->listener);
    io_close(&r->over);
}

/* The worker may be gone. */
static void tell_worker(const struct relay *r, int rc, const struct err *e)
{
    char line[600];
    int n = rc == 0 ? snprintf(line, sizeof line, "ok %u\n", r->x->domid)
                    : snprintf(line, sizeof line, "%s %s\n", err_code_name(e->code), e->text);

    if (r->conn >= 0)
        io_write_full(r->conn, line, (size_t)n, clock_ns() + NS_PER_S, NULL);
}

/* What the relay says is the cause, if libxl missed nothing but bytes. */
static int restore(struct relay *r, libxl_domain_config *c, int fd, struct err *e)
{
    const uint64_t one = 1;
    uint32_t domid = (uint32_t)INVALID_DOMID;
    pthread_t thread;
    int rc = pthread_create(&thread, NULL, relay, r);

    if (rc != 0)
        return err_set(e, ERR_SYSTEM, "cannot start a thread: %s", strerror(rc));
    rc = xl_restore(r->x, c, fd, &domid, e);
    if (write(r->over, &one, sizeof one) < 0)
        log_warn("xen", "eventfd: %s", strerror(errno));
    pthread_join(thread, NULL);
    if (rc < 0 && r->err.code != ERR_NONE && r->err.code != ERR_SYSTEM && e != NULL)
        *e = r->err;
    if (rc == 0)
        r->x->domid = domid;
    return rc;
}

int xl_incoming_pv(struct xl *x, libxl_domain_config *c, struct err *e)
{
    static struct relay r; /* a chunk is no small thing for a stack */
    int fd = -1, rc = -1;

    r = (struct relay){ .x = x, .listener = -1, .over = -1, .pipe = -1, .conn = -1 };
    if (open_relay(&r, &fd, e) == 0) {
        rc = restore(&r, c, fd, e);
        tell_worker(&r, rc, e);
    }
    close_relay(&r, &fd);
    return rc;
}

void xl_give_up_pv(const char *dir)
{
    char path[RUNDIR_LEN + 16];
    int fd;

    snprintf(path, sizeof path, "%s/%s", dir, FOLDER_STREAM);
    fd = io_unix_connect(path, NULL);
    io_close(&fd);
}
