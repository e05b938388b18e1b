/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"

#define LISTEN_BACKLOG 64

static int poll_ms(uint64_t deadline_ns)
{
    uint64_t now, ms;

    if (deadline_ns == IO_FOREVER)
        return -1;
    now = clock_ns();
    if (now >= deadline_ns)
        return 0;
    ms = (deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS;
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

int io_wait(int fd, short events, uint64_t deadline_ns, struct err *e)
{
    struct pollfd p = { .fd = fd, .events = events };

    for (;;) {
        int r = poll(&p, 1, poll_ms(deadline_ns));

        if (r > 0)
            return 0;
        if (r == 0)
            return err_set(e, ERR_TIMEOUT, "no answer in time");
        if (errno != EINTR)
            return err_sys(e, "poll");
    }
}

static bool would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK;
}

int io_read_full(int fd, void *buf, size_t len, uint64_t deadline_ns, struct err *e)
{
    char *p = buf;

    while (len > 0) {
        ssize_t n;

        if (deadline_ns != IO_FOREVER && io_wait(fd, POLLIN, deadline_ns, e) < 0)
            return -1;
        n = read(fd, p, len);
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        } else if (n == 0) {
            return err_set(e, ERR_PEER, "the other side closed the connection");
        } else if (would_block()) {
            if (io_wait(fd, POLLIN, deadline_ns, e) < 0)
                return -1;
        } else if (errno != EINTR) {
            return err_sys(e, "read");
        }
    }
    return 0;
}

static ssize_t write_some(int fd, const void *buf, size_t len)
{
    ssize_t n = send(fd, buf, len, MSG_NOSIGNAL);

    if (n < 0 && errno == ENOTSOCK)
        n = write(fd, buf, len);
    return n;
}

int io_write_full(int fd, const void *buf, size_t len, uint64_t deadline_ns, struct err *e)
{
    const char *p = buf;

    while (len > 0) {
        ssize_t n = write_some(fd, p, len);

        if (n >= 0) {
            p += n;
            len -= (size_t)n;
        } else if (would_block()) {
            if (io_wait(fd, POLLOUT, deadline_ns, e) < 0)
                return -1;
        } else if (errno != EINTR) {
            return err_sys(e, "write");
        }
    }
    return 0;
}

static char *read_all(int fd, const char *path, size_t limit, size_t *len, struct err *e)
{
    size_t cap = 4096, n = 0;
    char *buf = malloc(cap + 1), *bigger;

    while (buf != NULL) {
        ssize_t r = read(fd, buf + n, cap - n);

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0) {
            err_sys(e, "%s", path);
            break;
        }
        n += (size_t)r;
        if (n > limit) {
            err_set(e, ERR_INVALID, "%s: larger than %zu bytes", path, limit);
            break;
        }
        if (r == 0) {
            buf[n] = '\0';
            if (len != NULL)
                *len = n;
            return buf;
        }
        if (n == cap) {
            cap *= 2;
            bigger = realloc(buf, cap + 1);
            if (bigger == NULL) {
                err_set(e, ERR_MEMORY, "%s: out of memory", path);
                break;
            }
            buf = bigger;
        }
    }
    free(buf);
    return NULL;
}

char *io_read_file(const char *path, size_t limit, size_t *len, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *buf;

    if (fd < 0) {
        err_sys(e, "%s", path);
        return NULL;
    }
    buf = read_all(fd, path, limit, len, e);
    close(fd);
    return buf;
}

int io_sync_folder_of(const char *path, struct err *e)
{
    char dir[PATH_MAX];
    char *slash;
    int fd, r;

    snprintf(dir, sizeof dir, "%s", path);
    slash = strrchr(dir, '/');
    if (slash == NULL)
        strcpy(dir, ".");
    else
        slash[slash == dir] = '\0';
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, "%s", dir);
    /* there are file systems that do not sync folders: these say so, and keep order by themselves
     */
    r = fsync(fd) < 0 && errno != EINVAL && errno != EROFS ? err_sys(e, "fsync of %s", dir) : 0;
    close(fd);
    return r;
}

int io_replace_file(const char *path, const void *data, size_t len, mode_t mode, struct err *e)
{
    char tmp[PATH_MAX];
    int fd, r;

    if ((size_t)snprintf(tmp, sizeof tmp, "%s.tmp", path) >= sizeof tmp)
        return err_set(e, ERR_INVALID, "%.64s...: path is too long", path);
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (fd < 0)
        return err_sys(e, "%s", tmp);
    r = io_write_full(fd, data, len, IO_FOREVER, e);
    if (r < 0)
        err_prefix(e, "%s", tmp);
    if (r == 0 && fsync(fd) < 0)
        r = err_sys(e, "fsync of %s", tmp);
    close(fd);
    if (r == 0 && rename(tmp, path) < 0)
        r = err_sys(e, "rename of %s", tmp);
    if (r < 0) {
        unlink(tmp);
        return -1;
    }
    return io_sync_folder_of(path, e);
}

int io_make_dirs(const char *path, mode_t mode, struct err *e)
{
    char dir[PATH_MAX];

    if ((size_t)snprintf(dir, sizeof dir, "%s", path) >= sizeof dir)
        return err_set(e, ERR_INVALID, "%.64s...: path is too long", path);
    for (char *p = dir + 1;; p++) {
        char c = *p;

        if (c != '/' && c != '\0')
            continue;
        *p = '\0';
        if (mkdir(dir, mode) < 0 && errno != EEXIST)
            return err_sys(e, "mkdir %s", dir);
        if (c == '\0')
            return 0;
        *p = c;
    }
}

static int unix_address(const char *path, struct sockaddr_un *sa, struct err *e)
{
    memset(sa, 0, sizeof *sa);
    sa->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof sa->sun_path)
        return err_set(e, ERR_INVALID, "%s: a socket's path has at most %zu characters", path,
            sizeof sa->sun_path - 1);
    strcpy(sa->sun_path, path);
    return 0;
}

int io_unix_listen(const char *path, mode_t mode, struct err *e)
{
    struct sockaddr_un sa;
    int fd;

    if (unix_address(path, &sa, e) < 0)
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(e, "socket");
    unlink(path);
    if (bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || chmod(path, mode) < 0 ||
        listen(fd, LISTEN_BACKLOG) < 0) {
        err_sys(e, "socket %s", path);
        close(fd);
        return -1;
    }
    return fd;
}

int io_unix_connect(const char *path, struct err *e)
{
    struct sockaddr_un sa;
    int fd;

    if (unix_address(path, &sa, e) < 0)
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(e, "socket");
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0) {
        err_sys(e, "socket %s", path);
        close(fd);
        return -1;
    }
    return fd;
}

int io_set_nonblock(int fd, bool on, struct err *e)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) < 0)
        return err_sys(e, "fcntl");
    return 0;
}

void io_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}
