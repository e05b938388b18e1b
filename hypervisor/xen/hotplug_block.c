/* SPDX-License-Identifier: ISC */
/*
 * A disk's backend on a block device, or on a file by a loop device: the plain part of Xen's
 * script `block`.
 *
 * add: `params` names the block device, or the file for which a free loop device is taken
 * (node = its name); physical-device = MAJOR:MINOR in hex, physical-device-path, and then
 * hotplug-status = connected. remove: the loop device lets its file go. Both under
 * the scripts' lock, since the look whether a device is used already counts only so.
 * Left to the script: any device in use already, and a mode that wants no such look ("w!").
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <linux/loop.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "hypervisor/xen/hotplug.h"

#define LOCK "block"
#define INIT_WAIT "2" /* XenbusStateInitWait */
#define LOOP_TRIES 16 /* others take free loop devices, too */
#define NUMBER_LEN 32
#define LOOP_PATH_LEN 24

struct disk {
    char params[HOTPLUG_LEN];
    char path[PATH_MAX]; /* params without links */
    struct stat is;
    bool write;
};

static void device_number(dev_t d, char out[NUMBER_LEN])
{
    snprintf(out, NUMBER_LEN, "%x:%x", major(d), minor(d));
}

/* --- who uses it already --- */

static bool is_mounted(dev_t d)
{
    FILE *mounts = setmntent("/proc/self/mounts", "re");
    struct mntent *m;
    struct stat st;
    bool found = mounts == NULL;

    while (!found && (m = getmntent(mounts)) != NULL)
        found = m->mnt_fsname[0] == '/' && stat(m->mnt_fsname, &st) == 0 && S_ISBLK(st.st_mode) &&
                st.st_rdev == d;
    if (mounts != NULL)
        endmntent(mounts);
    return found;
}

/* base: the folder of all domains' disks in the store. */
static bool domain_has(
    const struct hotplug_store *s, const char *base, const char *domid, const char *number)
{
    char path[HOTPLUG_LEN], *value;
    unsigned n = 0;
    bool found = false;
    char **devs;

    if (snprintf(path, sizeof path, "%s/%s", base, domid) >= (int)sizeof path)
        return true;
    devs = s->list(s->of, path, &n);
    for (unsigned i = 0; devs != NULL && i < n && !found; i++) {
        found = snprintf(path, sizeof path, "%s/%s/%s/physical-device", base, domid, devs[i]) >=
                (int)sizeof path;
        value = found ? NULL : s->read(s->of, path);
        found = found || (value != NULL && strcmp(value, number) == 0);
        free(value);
    }
    free(devs);
    return found;
}

/* h->path less DOMID/DEVID. */
static int base_of(const struct hotplug *h, char out[HOTPLUG_LEN])
{
    if (snprintf(out, HOTPLUG_LEN, "%s", h->path) >= HOTPLUG_LEN)
        return -1;
    for (int i = 0; i < 2; i++) {
        char *slash = strrchr(out, '/');

        if (slash == NULL)
            return -1;
        *slash = '\0';
    }
    return 0;
}

static bool a_domain_has(const struct hotplug *h, dev_t d)
{
    char base[HOTPLUG_LEN], number[NUMBER_LEN];
    bool found = false;
    unsigned n = 0;
    char **domains;

    if (base_of(h, base) < 0)
        return true;
    device_number(d, number);
    domains = h->store->list(h->store->of, base, &n);
    for (unsigned i = 0; domains != NULL && i < n && !found; i++)
        found = domain_has(h->store, base, domains[i], number);
    free(domains);
    return found;
}

/* --- loop devices --- */

static bool serves(const char *node, const struct stat *file)
{
    int fd = open(node, O_RDONLY | O_CLOEXEC);
    struct loop_info64 info;
    bool is = fd >= 0 && ioctl(fd, LOOP_GET_STATUS64, &info) == 0 &&
              info.lo_device == file->st_dev && info.lo_inode == file->st_ino;

    if (fd >= 0)
        close(fd);
    return is;
}

/* /sys/block/loopN/loop is there while loopN serves a file. */
static bool has_loop(const struct stat *file)
{
    char node[LOOP_PATH_LEN];
    bool found = false;
    glob_t bound;
    int n;

    if (glob("/sys/block/loop*/loop", 0, NULL, &bound) != 0)
        return false;
    for (size_t i = 0; i < bound.gl_pathc && !found; i++)
        if (sscanf(bound.gl_pathv[i], "/sys/block/loop%d/loop", &n) == 1) {
            snprintf(node, sizeof node, "/dev/loop%d", n);
            found = serves(node, file);
        }
    globfree(&bound);
    return found;
}

/* Of a loop device that serves the file now; -1 and errno. */
static int take_loop(const struct disk *d, int file, char node[LOOP_PATH_LEN])
{
    struct loop_config c = { .fd = (unsigned)file,
        .info.lo_flags = d->write ? 0 : LO_FLAGS_READ_ONLY };
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), fd = -1;

    snprintf((char *)c.info.lo_file_name, LO_NAME_SIZE, "%.*s", LO_NAME_SIZE - 1, d->path);
    for (int i = 0; control >= 0 && fd < 0 && i < LOOP_TRIES; i++) {
        int n = ioctl(control, LOOP_CTL_GET_FREE);

        if (n < 0)
            break;
        snprintf(node, LOOP_PATH_LEN, "/dev/loop%d", n);
        fd = open(node, (d->write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
        if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &c) < 0) {
            int why = errno;

            close(fd);
            fd = -1;
            errno = why;
            if (why != EBUSY)
                break;
        }
    }
    if (control >= 0)
        close(control);
    return fd;
}

/* --- add --- */

static int tell(const struct hotplug *h, const char *node, dev_t number, struct err *e)
{
    char text[NUMBER_LEN];

    device_number(number, text);
    if (hotplug_write(h, "physical-device", text, e) < 0 ||
        hotplug_write(h, "physical-device-path", node, e) < 0)
        return -1;
    return hotplug_write(h, "hotplug-status", "connected", e);
}

static enum hotplug_result add_device(const struct hotplug *h, const struct disk *d, struct err *e)
{
    if (is_mounted(d->is.st_rdev))
        return hotplug_leave(e, d->path, "it is mounted");
    if (a_domain_has(h, d->is.st_rdev))
        return hotplug_leave(e, d->path, "another disk is on it");
    return tell(h, d->path, d->is.st_rdev, e) < 0 ? HOTPLUG_FAILED : HOTPLUG_DONE;
}

static enum hotplug_result tell_loop(
    const struct hotplug *h, const char *node, int loop, struct err *e)
{
    struct stat st;

    if (fstat(loop, &st) < 0)
        err_sys(e, "%s", node);
    else if (hotplug_write(h, "node", node, e) == 0 && tell(h, node, st.st_rdev, e) == 0)
        return HOTPLUG_DONE;
    ioctl(loop, LOOP_CLR_FD);
    return HOTPLUG_FAILED;
}

static enum hotplug_result add_file(const struct hotplug *h, const struct disk *d, struct err *e)
{
    char state[4], node[LOOP_PATH_LEN];
    enum hotplug_result r;
    int file, loop;

    if (hotplug_read(h, "state", state, sizeof state) != 0 || strcmp(state, INIT_WAIT) != 0) {
        err_set(e, ERR_STATE, "%s: the disk was given up while it was added", h->path);
        return HOTPLUG_FAILED;
    }
    if (has_loop(&d->is))
        return hotplug_leave(e, d->path, "a loop device serves it already");
    file = open(d->path, (d->write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (file < 0)
        return hotplug_leave(e, d->path, "it cannot be opened");
    loop = take_loop(d, file, node);
    close(file);
    if (loop < 0)
        return hotplug_leave(e, d->path, "no loop device takes it");
    r = tell_loop(h, node, loop, e);
    close(loop);
    return r;
}

/* Which of its users may write is for the mode to tell: as the script, root's right to write a file
 * that nobody may write does not count. */
static int look_at(struct disk *d, struct err *e)
{
    if (d->params[0] != '/' || stat(d->params, &d->is) < 0)
        return err_sys(e, "disk %s: this host cannot reach it", d->params);
    if (realpath(d->params, d->path) == NULL)
        return err_sys(e, "disk %s", d->params);
    if (d->write && S_ISREG(d->is.st_mode) && (d->is.st_mode & 0222) == 0)
        return err_set(e, ERR_REFUSED,
            "disk %s: the file is read-only, the domain wants to write; chmod u+w it, or attach "
            "it with mode r",
            d->params);
    return 0;
}

static enum hotplug_result add(const struct hotplug *h, struct err *e)
{
    enum hotplug_result r;
    struct disk d = { 0 };
    char text[NUMBER_LEN];
    int lock;

    if (hotplug_read(h, "physical-device", text, sizeof text) == 0)
        return HOTPLUG_DONE; /* libxl, or a hand, asked twice */
    if (hotplug_read(h, "params", d.params, sizeof d.params) != 0 || d.params[0] != '/')
        return hotplug_leave(e, h->path, "params is no path");
    if (hotplug_read(h, "mode", text, sizeof text) != 0 || strchr(text, '!') != NULL)
        return hotplug_leave(e, h->path, "its mode is for the script");
    d.write = strchr(text, 'w') != NULL;
    if (look_at(&d, e) < 0)
        return HOTPLUG_FAILED;
    if (!S_ISBLK(d.is.st_mode) && !S_ISREG(d.is.st_mode))
        return hotplug_leave(e, d.params, "neither a block device nor a file");
    lock = hotplug_lock(h, LOCK, e);
    if (lock < 0)
        return HOTPLUG_FAILED;
    r = S_ISBLK(d.is.st_mode) ? add_device(h, &d, e) : add_file(h, &d, e);
    hotplug_unlock(h, LOCK, lock);
    return r;
}

/* --- remove --- */

/* Is it the domain's? The file may be gone by now, or be another by its name. */
static bool still_serves(int loop, const char *params)
{
    struct loop_info64 info;
    char path[PATH_MAX];
    struct stat st;

    if (ioctl(loop, LOOP_GET_STATUS64, &info) < 0)
        return false;
    if (stat(params, &st) == 0)
        return info.lo_device == st.st_dev && info.lo_inode == st.st_ino;
    if (realpath(params, path) == NULL)
        snprintf(path, sizeof path, "%s", params);
    return strncmp((const char *)info.lo_file_name, path, sizeof info.lo_file_name - 1) == 0;
}

static enum hotplug_result clear(const char *node, const char *params, struct err *e)
{
    int loop = open(node, O_RDONLY | O_CLOEXEC);
    bool failed =
        loop >= 0 && still_serves(loop, params) && ioctl(loop, LOOP_CLR_FD) < 0 && errno != ENXIO;

    if (failed)
        err_sys(e, "%s does not let %s go", node, params);
    if (loop >= 0)
        close(loop);
    return failed ? HOTPLUG_FAILED : HOTPLUG_DONE;
}

static enum hotplug_result take_away(const struct hotplug *h, struct err *e)
{
    char node[LOOP_PATH_LEN], params[HOTPLUG_LEN];
    enum hotplug_result r;
    int lock, had = hotplug_read(h, "node", node, sizeof node);

    if (had < 0)
        return HOTPLUG_DONE;
    if (had > 0 || strncmp(node, "/dev/loop", 9) != 0)
        return hotplug_leave(e, h->path, "its node is no loop device");
    if (hotplug_read(h, "params", params, sizeof params) != 0)
        return hotplug_leave(e, h->path, "params cannot be read");
    lock = hotplug_lock(h, LOCK, e);
    if (lock < 0)
        return HOTPLUG_FAILED;
    r = clear(node, params, e);
    hotplug_unlock(h, LOCK, lock);
    return r;
}

enum hotplug_result hotplug_block(const struct hotplug *h, const char *verb, struct err *e)
{
    if (strcmp(verb, "add") == 0)
        return add(h, e);
    if (strcmp(verb, "remove") == 0)
        return take_away(h, e);
    return hotplug_leave(e, verb, "done by the script alone");
}
