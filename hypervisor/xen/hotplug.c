/* SPDX-License-Identifier: ISC */
/*
 * What both kinds of devices use: nodes of the store, and the lock.
 *
 * The lock is that of Xen's scripts (locking.sh), which may run beside us: a file that is locked by
 * flock(2) and still has its name. Who holds it removes the file when done.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "hypervisor/xen/hotplug.h"

#define LOCK_FOLDER_MODE 0755

/* --- the store --- */

static int node_path(const struct hotplug *h, const char *name, char out[HOTPLUG_LEN])
{
    int n = snprintf(out, HOTPLUG_LEN, "%s/%s", h->path, name);

    return n > 0 && n < HOTPLUG_LEN ? 0 : -1;
}

int hotplug_read(const struct hotplug *h, const char *name, char *out, size_t size)
{
    char path[HOTPLUG_LEN], *value;
    size_t len;

    out[0] = '\0';
    if (node_path(h, name, path) < 0)
        return 1;
    value = h->store->read(h->store->of, path);
    if (value == NULL)
        return errno == ENOENT ? -1 : 1;
    len = strlen(value);
    if (len < size)
        memcpy(out, value, len + 1);
    free(value);
    return len < size ? 0 : 1;
}

int hotplug_write(const struct hotplug *h, const char *name, const char *value, struct err *e)
{
    char path[HOTPLUG_LEN];

    if (node_path(h, name, path) < 0)
        return err_set(e, ERR_INVALID, "%s: the path is too long", h->path);
    if (h->store->write(h->store->of, path, value) < 0)
        return err_sys(e, "xenstore: %s", path);
    return 0;
}

void hotplug_tell_error(const struct hotplug *h, const char *text)
{
    hotplug_write(h, "hotplug-error", text, NULL);
    hotplug_write(h, "hotplug-status", "error", NULL);
}

enum hotplug_result hotplug_leave(struct err *e, const char *what, const char *why)
{
    err_set(e, ERR_UNSUPPORTED, "%s: %s", what, why);
    return HOTPLUG_SCRIPT;
}

/* --- the lock --- */

static int lock_path(const struct hotplug *h, const char *name, char out[HOTPLUG_LEN])
{
    int n = snprintf(out, HOTPLUG_LEN, "%s/%s", h->locks, name);

    return n > 0 && n < HOTPLUG_LEN ? 0 : -1;
}

static bool still_named(int fd, const char *path)
{
    struct stat mine, named;

    return fstat(fd, &mine) == 0 && stat(path, &named) == 0 && mine.st_dev == named.st_dev &&
           mine.st_ino == named.st_ino;
}

int hotplug_lock(const struct hotplug *h, const char *name, struct err *e)
{
    char path[HOTPLUG_LEN];
    int fd;

    if (lock_path(h, name, path) < 0)
        return err_set(e, ERR_INVALID, "%s: the path is too long", h->locks);
    if (io_make_dirs(h->locks, LOCK_FOLDER_MODE, e) < 0)
        return -1;
    for (;;) {
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0)
            return err_sys(e, "lock %s", path);
        while (flock(fd, LOCK_EX) < 0)
            if (errno != EINTR) {
                err_sys(e, "lock %s", path);
                close(fd);
                return -1;
            }
        if (still_named(fd, path))
            return fd;
        close(fd);
    }
}

void hotplug_unlock(const struct hotplug *h, const char *name, int fd)
{
    char path[HOTPLUG_LEN];

    if (lock_path(h, name, path) == 0)
        unlink(path);
    close(fd);
}
