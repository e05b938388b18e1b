/* SPDX-License-Identifier: ISC */
/*
 * The verbs of xen-domain but `incoming`, over libxl. A file that a loop device serves goes past
 * this host's page cache (LOOP_SET_DIRECT_IO), unless the disk's cache says otherwise: what
 * the guest was told is written is then where the next host reads it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <xenstore.h>

#include "base/log.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/xen/folder.h"
#include "hypervisor/xen/xen_domain.h"

static enum err_code code_of(int rc)
{
    switch (rc) {
    case ERROR_NOMEM:
        return ERR_MEMORY;
    case ERROR_INVAL:
        return ERR_INVALID;
    case ERROR_TIMEDOUT:
        return ERR_TIMEOUT;
    case ERROR_DOMAIN_NOTFOUND:
        return ERR_NOT_FOUND;
    case ERROR_FEATURE_REMOVED:
    case ERROR_NI:
        return ERR_UNSUPPORTED;
    default:
        return ERR_SYSTEM;
    }
}

int xl_fail(struct xl *x, struct err *e, int rc, const char *what)
{
    return err_set(e, code_of(rc), "%s: %s (libxl: %s)", what,
        x->said[0] != '\0' ? x->said : "no reason given", libxl_error_to_string(rc));
}

/* --- disks ---------------------------------------------------------------------------------- */

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

static void past_cache(struct xl *x, struct xs_handle *xs, const libxl_device_disk *disk)
{
    char *loop = loop_of(x, xs, disk);
    int fd;

    if (loop == NULL)
        return;
    fd = open(loop, O_RDWR | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, LOOP_SET_DIRECT_IO, 1UL) < 0)
        log_warn("xen",
            "disk %s (%s): it goes through this host's page cache (%s: %s); only after a sync "
            "here does another host read what the guest wrote",
            disk->vdev, disk->pdev_path, loop, strerror(errno));
    if (fd >= 0)
        close(fd);
    free(loop);
}

/* disk[i] is that of def->disks[i]; both in the same order. */
static void all_past_cache(
    struct xl *x, const Migrd__Domain *def, const libxl_device_disk *disk, int n)
{
    struct xs_handle *xs = n > 0 ? xs_open(0) : NULL;

    for (int i = 0; xs != NULL && i < n && (size_t)i < def->n_disks; i++)
        if (!through_cache(def->disks[i]))
            past_cache(x, xs, &disk[i]);
    if (xs != NULL)
        xs_close(xs);
}

/* One that is there already is what a claim left that was killed: it may be half attached. */
static int attach_disk(struct xl *x, libxl_device_disk *disk)
{
    int rc = libxl_device_disk_add(x->ctx, x->domid, disk, NULL);

    if (rc != ERROR_DEVICE_EXISTS)
        return rc;
    rc = libxl_device_disk_destroy(x->ctx, x->domid, disk, NULL);
    return rc != 0 ? rc : libxl_device_disk_add(x->ctx, x->domid, disk, NULL);
}

static int attach_disks(struct xl *x, libxl_device_disk *disk, int n, struct err *e)
{
    for (int i = 0; i < n; i++) {
        int rc = attach_disk(x, &disk[i]);

        if (rc == 0)
            continue;
        xl_fail(x, e, rc, disk[i].vdev);
        while (i-- > 0)
            libxl_device_disk_destroy(x->ctx, x->domid, &disk[i], NULL);
        return -1;
    }
    return 0;
}

/* --- verbs -------------------------------------------------------------------------------------
 */

int xl_start(struct xl *x, const Migrd__Domain *def, struct err *e)
{
    libxl_domain_config c;
    int rc, r;

    libxl_domain_config_init(&c);
    r = xen_config(def, true, &c, e);
    if (r == 0) {
        rc = libxl_domain_create_new(x->ctx, &c, &x->domid, NULL, NULL);
        if (rc != 0)
            r = xl_fail(x, e, rc, "building the domain");
    }
    if (r == 0)
        all_past_cache(x, def, c.disks, c.num_disks);
    libxl_domain_config_dispose(&c);
    return r;
}

int xl_claim(struct xl *x, const Migrd__Domain *def, struct err *e)
{
    libxl_domain_config c;
    int r;

    libxl_domain_config_init(&c);
    r = xen_config(def, true, &c, e);
    if (r == 0)
        r = attach_disks(x, c.disks, c.num_disks, e);
    if (r == 0)
        all_past_cache(x, def, c.disks, c.num_disks);
    libxl_domain_config_dispose(&c);
    return r < 0 ? -1 : folder_mark(x->dir, FOLDER_CLAIMED, "", e);
}

int xl_destroy(struct xl *x, const Migrd__Domain *def, struct err *e)
{
    int rc = libxl_domain_destroy(x->ctx, x->domid, NULL);

    (void)def;
    return rc == 0 ? 0 : xl_fail(x, e, rc, "destroying the domain");
}

int xl_memory(struct xl *x, const Migrd__Domain *def, struct err *e)
{
    int rc = libxl_set_memory_target(x->ctx, x->domid, (int64_t)x->kib, 0, 1);

    (void)def;
    return rc == 0 ? 0 : xl_fail(x, e, rc, "another memory size");
}

int xl_vcpus(struct xl *x, const Migrd__Domain *def, struct err *e)
{
    libxl_bitmap map;
    int rc;

    (void)def;
    libxl_bitmap_init(&map);
    rc = libxl_cpu_bitmap_alloc(x->ctx, &map, HV_VCPUS_MAX);
    for (unsigned v = 0; rc == 0 && v < x->vcpus; v++)
        libxl_bitmap_set(&map, (int)v);
    if (rc == 0)
        rc = libxl_set_vcpuonline(x->ctx, x->domid, &map, NULL);
    libxl_bitmap_dispose(&map);
    return rc == 0 ? 0 : xl_fail(x, e, rc, "another number of vCPUs");
}

/* --- what is known of a domain that was not made here
 * ----------------------------------------------- */

/* Without libxl's own notes: what Xen tells. */
static int bare_config(struct xl *x, libxl_domain_config *c)
{
    libxl_dominfo info;
    char *name = libxl_domid_to_name(x->ctx, x->domid);
    int rc;

    libxl_dominfo_init(&info);
    rc = libxl_domain_info(x->ctx, &info, x->domid);
    c->c_info.name = name;
    if (rc == 0) {
        c->c_info.type = info.domain_type;
        libxl_uuid_copy(x->ctx, &c->c_info.uuid, &info.uuid);
        libxl_domain_build_info_init_type(&c->b_info, info.domain_type);
        c->b_info.target_memkb = info.current_memkb;
        c->b_info.max_memkb = info.max_memkb;
        c->b_info.max_vcpus = (int)info.vcpu_max_id + 1;
    }
    libxl_dominfo_dispose(&info);
    return rc;
}

Migrd__Domain *xl_definition(struct xl *x, struct err *e)
{
    libxl_domain_config c;
    Migrd__Domain *def = NULL;
    int rc;

    libxl_domain_config_init(&c);
    rc = libxl_retrieve_domain_configuration(x->ctx, x->domid, &c, NULL);
    if (rc != 0) {
        libxl_domain_config_dispose(&c);
        libxl_domain_config_init(&c);
        rc = bare_config(x, &c);
    }
    if (rc == 0)
        def = xen_config_definition(&c, e);
    else
        xl_fail(x, e, rc, "its definition");
    libxl_domain_config_dispose(&c);
    return def;
}
