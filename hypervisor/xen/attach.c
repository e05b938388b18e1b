/* SPDX-License-Identifier: ISC */
/*
 * The interfaces and disks of a domain that comes by a migration. Xen's hotplug scripts take
 * their time, so they run beside the pre-copy: `xen-domain incoming` answers once the domain is
 * built, and a child of it attaches what can be attached before the hand-over.
 * RUN_DIR/<uuid>/attach:
 *
 *   vif 0           a line for each device that is attached
 *   disk xvda
 *   whole           last: nothing more is done before the hand-over; or, also last:
 *   failed TEXT     what could not be attached, and why
 *
 * While its writer lives, it has an open file description lock on it (F_OFD_SETLK), which the
 * target's worker asks for before it acknowledges a round (mig_settle): a script that fails ends
 * the migration while the guest still runs at its source. `claim` attaches what is not in the file.
 *
 * A block device may be opened here while its guest runs at the source: nothing is read or written
 * before the guest's frontend connects. So may a file that goes past this host's page cache.
 * Whatever keeps a copy of it (QEMU, the page cache, a block script of its own) waits for the
 * claim. A file that a loop device serves goes past the page cache (LOOP_SET_DIRECT_IO), unless the
 * disk's cache says otherwise: what the guest was told is written is then where the next host
 * reads it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xenstore.h>

#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"
#include "hypervisor/xen/folder.h"
#include "hypervisor/xen/xen_domain.h"

/* --- past the page cache --- */

static bool through_cache(const Migrd__Disk *d)
{
    return d->read_only || strcmp(d->cache, "writeback") == 0 || strcmp(d->cache, "unsafe") == 0;
}

/* "/dev/loop0" if that serves the disk; malloc'ed. */
static char *loop_of(struct xl *x, struct xs_handle *xs, const libxl_device_disk *disk)
{
    libxl_diskinfo info;
    char path[160], *node = NULL;
    unsigned n;

    libxl_diskinfo_init(&info);
    if (libxl_device_disk_getinfo(x->ctx, x->domid, disk, &info) == 0 && info.backend != NULL) {
        snprintf(path, sizeof path, "%s/node", info.backend);
        node = xs_read(xs, XBT_NULL, path, &n);
    }
    libxl_diskinfo_dispose(&info);
    if (node == NULL || strncmp(node, "/dev/loop", 9) == 0)
        return node;
    free(node);
    return NULL;
}

/* False: a loop device serves it, through the cache. */
static bool past_cache(struct xl *x, struct xs_handle *xs, const libxl_device_disk *disk)
{
    char *loop = loop_of(x, xs, disk);
    bool ok = true;
    int fd;

    if (loop == NULL)
        return true;
    fd = open(loop, O_RDWR | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, LOOP_SET_DIRECT_IO, 1UL) < 0) {
        log_warn("xen",
            "disk %s (%s): it goes through this host's page cache (%s: %s); only after a sync "
            "here does another host read what the guest wrote",
            disk->vdev, disk->pdev_path, loop, strerror(errno));
        ok = false;
    }
    if (fd >= 0)
        close(fd);
    free(loop);
    return ok;
}

void xl_past_cache(struct xl *x, const Migrd__Domain *def, const libxl_device_disk *disk, int n)
{
    struct xs_handle *xs = n > 0 ? xs_open(0) : NULL;

    for (int i = 0; xs != NULL && i < n && (size_t)i < def->n_disks; i++)
        if (!through_cache(def->disks[i]))
            past_cache(x, xs, &disk[i]);
    if (xs != NULL)
        xs_close(xs);
}

/* --- what is attached already --- */

struct list {
    int fd; /* of the file; has the lock */
    char text[FOLDER_ATTACH_MAX];
};

static void path_of(const struct xl *x, char out[RUNDIR_LEN + 16])
{
    snprintf(out, RUNDIR_LEN + 16, "%s/" FOLDER_ATTACH, x->dir);
}

static int list_lock(int fd)
{
    struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    return fcntl(fd, F_OFD_SETLK, &whole);
}

int xl_attach_begin(const struct xl *x, struct err *e)
{
    char path[RUNDIR_LEN + 16];
    int fd;

    path_of(x, path);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd >= 0 && list_lock(fd) == 0)
        return fd;
    err_sys(e, "%s", path);
    io_close(&fd);
    return -1;
}

static int list_open(const struct xl *x, int fd, struct list *l, struct err *e)
{
    char path[RUNDIR_LEN + 16];
    ssize_t n;

    path_of(x, path);
    l->fd = fd >= 0 ? fd : open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (l->fd < 0)
        return err_sys(e, "%s", path);
    n = pread(l->fd, l->text, sizeof l->text - 1, 0);
    l->text[n > 0 ? n : 0] = '\0';
    return lseek(l->fd, 0, SEEK_END) < 0 ? err_sys(e, "%s", path) : 0;
}

static bool list_has(const struct list *l, const char *line)
{
    size_t n = strlen(line);

    for (const char *p = l->text; p != NULL && *p != '\0'; p = strchr(p, '\n')) {
        p += *p == '\n';
        if (strncmp(p, line, n) == 0 && p[n] == '\n')
            return true;
    }
    return false;
}

static int list_add(struct list *l, const char *line, struct err *e)
{
    return dprintf(l->fd, "%s\n", line) > 0 ? 0 : err_sys(e, "noting that %s is attached", line);
}

/* --- devices --- */

/* One that is there already is what somebody left who was killed: it may be half attached. */
static int attach_disk(struct xl *x, libxl_device_disk *disk)
{
    int rc = libxl_device_disk_add(x->ctx, x->domid, disk, NULL);

    if (rc != ERROR_DEVICE_EXISTS)
        return rc;
    rc = libxl_device_disk_destroy(x->ctx, x->domid, disk, NULL);
    return rc != 0 ? rc : libxl_device_disk_add(x->ctx, x->domid, disk, NULL);
}

static int attach_nic(struct xl *x, libxl_device_nic *nic)
{
    int rc = libxl_device_nic_add(x->ctx, x->domid, nic, NULL);

    if (rc != ERROR_DEVICE_EXISTS)
        return rc;
    rc = libxl_device_nic_destroy(x->ctx, x->domid, nic, NULL);
    return rc != 0 ? rc : libxl_device_nic_add(x->ctx, x->domid, nic, NULL);
}

/* Served by blkback as it is, and by nothing that keeps a copy. */
static bool may_come_early(const Migrd__Disk *d)
{
    bool plain = (d->format[0] == '\0' || strcmp(d->format, "raw") == 0) &&
                 (d->backend[0] == '\0' || strcmp(d->backend, "phy") == 0) &&
                 (d->script[0] == '\0' || strcmp(d->script, "block") == 0);
    struct stat st;

    if (!plain || stat(d->source, &st) < 0)
        return false;
    return S_ISBLK(st.st_mode) || (S_ISREG(st.st_mode) && !through_cache(d));
}

/* 1 attached, 0 it has to wait for the claim, -1 failed. */
static int one_disk(struct xl *x, const Migrd__Disk *d, libxl_device_disk *disk, bool claim,
    struct xs_handle *xs, struct err *e)
{
    bool past;
    int rc;

    if (!claim && !may_come_early(d))
        return 0;
    rc = attach_disk(x, disk);
    if (rc != 0)
        return xl_fail(x, e, rc, disk->vdev);
    past = through_cache(d) || past_cache(x, xs, disk);
    if (claim || past)
        return 1;
    rc = libxl_device_disk_destroy(x->ctx, x->domid, disk, NULL);
    return rc == 0 ? 0 : xl_fail(x, e, rc, disk->vdev);
}

static int attach_nics(struct xl *x, libxl_domain_config *c, struct list *l, struct err *e)
{
    for (int i = 0; i < c->num_nics; i++) {
        char line[64];
        int rc;

        snprintf(line, sizeof line, "vif %d", c->nics[i].devid);
        if (list_has(l, line))
            continue;
        rc = attach_nic(x, &c->nics[i]);
        if (rc != 0)
            return xl_fail(x, e, rc, line);
        if (list_add(l, line, e) < 0)
            return -1;
    }
    return 0;
}

/* The number of disks that wait for the claim, or -1. */
static int attach_disks(struct xl *x, const Migrd__Domain *def, libxl_domain_config *c, bool claim,
    struct list *l, struct err *e)
{
    struct xs_handle *xs = c->num_disks > 0 ? xs_open(0) : NULL;
    int left = 0, r = 0;

    if (c->num_disks > 0 && xs == NULL)
        return err_sys(e, "xenstore");
    for (int i = 0; r >= 0 && i < c->num_disks; i++) {
        char line[64];

        snprintf(line, sizeof line, "disk %.50s", def->disks[i]->device);
        if (list_has(l, line))
            continue;
        r = one_disk(x, def->disks[i], &c->disks[i], claim, xs, e);
        left += r == 0;
        if (r == 1)
            r = list_add(l, line, e);
    }
    if (xs != NULL)
        xs_close(xs);
    return r < 0 ? -1 : left;
}

/* What is not attached yet; without `claim` only what may come early. */
static int attach_all(
    struct xl *x, const Migrd__Domain *def, bool claim, struct list *l, struct err *e)
{
    libxl_domain_config c;
    int left = -1;

    libxl_domain_config_init(&c);
    if (xen_config(def, true, x->hotplug, &c, e) == 0 && attach_nics(x, &c, l, e) == 0)
        left = attach_disks(x, def, &c, claim, l, e);
    libxl_domain_config_dispose(&c);
    if (left == 0 && folder_mark(x->dir, FOLDER_CLAIMED, "", e) < 0)
        return -1;
    return left < 0 ? -1 : 0;
}

int xl_attach(struct xl *x, const Migrd__Domain *def, int fd, struct err *e)
{
    struct list l;
    int r;

    if (list_open(x, fd, &l, e) < 0)
        return -1;
    if (FAULT("xen-attaching"))
        r = err_set(e, ERR_INTERNAL, "fault point xen-attaching");
    else
        r = attach_all(x, def, false, &l, e);
    if (r < 0)
        dprintf(l.fd, FOLDER_ATTACH_FAILED "%s\n", e->text);
    else
        dprintf(l.fd, FOLDER_ATTACH_WHOLE "\n");
    return r;
}

int xl_claim(struct xl *x, const Migrd__Domain *def, struct err *e)
{
    struct list l;
    int r;

    if (list_open(x, -1, &l, e) < 0)
        return -1;
    r = attach_all(x, def, true, &l, e);
    io_close(&l.fd);
    return r;
}
