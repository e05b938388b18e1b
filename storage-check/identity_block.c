/* SPDX-License-Identifier: ISC */
/*
 * A disk that is a block device of this host, out of /sys and /dev/disk. The kernel's name (sdb)
 * depends on the order in which devices were found and proves nothing: the names are
 * those that the device gives itself, on VPD page 0x83 as the kernel keeps it
 * (device/vpd_pg83), else its wwid; a device mapper's uuid (multipath's has the WWN in it); for
 * partitions their number on such a device.
 *
 * Disk.wwn: the device must have that name; if the one of the definition's path has not, or is
 * not there, another one that has it is taken (storage_path), and the report says so.
 * Disk.npiv: a virtual port of Fibre Channel "WWPN:WWNN" that this host must have.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/io.h"
#include "storage-check/identity_internal.h"
#include "storage-check/image.h"
#include "storage-check/vpd.h"

#define SECTOR 512u
#define VPD_PAGE_MAX 4096u
#define BY_ID_MAX 12u
#define NAME_LEN 256u

/* A device in /sys. */
struct device {
    char name[NAME_LEN]; /* sdb1 */
    char dir[PATH_MAX];  /* below root: /sys/devices/.../block/sdb/sdb1 */
    char disk[PATH_MAX]; /* the same, or that of the whole disk: .../block/sdb */
    unsigned partition;  /* 0: the whole disk */
};

/* --- texts --- */

bool wwn_normal(const char *text, char out[33])
{
    size_t n = 0;

    if (strncasecmp(text, "naa.", 4) == 0 || strncasecmp(text, "eui.", 4) == 0)
        text += 4;
    if (strncasecmp(text, "0x", 2) == 0)
        text += 2;
    while (n < 33 && isxdigit((unsigned char)text[n]))
        n++;
    if (text[n] != '\0' || (n != 16 && n != 32))
        return false;
    for (size_t i = 0; i <= n; i++)
        out[i] = (char)tolower((unsigned char)text[i]);
    return true;
}

/* --- /sys --- */

static bool real_below(const struct look *l, const char *path, char out[PATH_MAX])
{
    char full[PATH_MAX], real[PATH_MAX], root[PATH_MAX] = "";
    size_t n;

    if ((size_t)snprintf(full, sizeof full, "%s%s", l->root, path) >= sizeof full ||
        realpath(full, real) == NULL)
        return false;
    if (l->root[0] != '\0' && realpath(l->root, root) == NULL)
        return false;
    n = strlen(root);
    if (strncmp(real, root, n) != 0)
        return false;
    snprintf(out, PATH_MAX, "%s", real + n);
    return true;
}

static bool exists_below(const struct look *l, const char *dir, const char *name)
{
    char path[PATH_MAX];

    return (size_t)snprintf(path, sizeof path, "%s%s/%s", l->root, dir, name) < sizeof path &&
           access(path, F_OK) == 0;
}

static bool find_device(const struct look *l, dev_t dev, struct device *d)
{
    char path[64], number[16];
    char *slash;

    memset(d, 0, sizeof *d);
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u", major(dev), minor(dev));
    if (!real_below(l, path, d->dir))
        return false;
    slash = strrchr(d->dir, '/');
    snprintf(d->name, sizeof d->name, "%s", slash + 1);
    memcpy(d->disk, d->dir, sizeof d->disk);
    if (look_read(l, number, sizeof number, "%s/partition", d->dir)) {
        d->partition = (unsigned)strtoul(number, NULL, 10);
        d->disk[slash - d->dir] = '\0';
    }
    return true;
}

static uint64_t number_of(const struct look *l, const char *dir, const char *name)
{
    char text[32];

    return look_read(l, text, sizeof text, "%s/%s", dir, name) ? strtoull(text, NULL, 10) : 0;
}

static size_t read_page(
    const struct look *l, const char *dir, const char *page, uint8_t out[VPD_PAGE_MAX])
{
    char path[PATH_MAX];
    ssize_t n = -1;
    int fd;

    if ((size_t)snprintf(path, sizeof path, "%s%s/device/%s", l->root, dir, page) >= sizeof path)
        return 0;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        n = read(fd, out, VPD_PAGE_MAX);
        close(fd);
    }
    return n > 0 ? (size_t)n : 0;
}

/* --- names --- */

/* "naa.600...", "eui.002...", "t10.ATA     ..." */
static void add_wwid(struct look *l, const char *wwid)
{
    static const struct {
        const char *prefix, *kind;
    } kinds[] = { { "naa.", "naa" }, { "eui.", "eui64" }, { "t10.", "t10" }, { "uuid.", "uuid" } };

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strncmp(wwid, kinds[i].prefix, strlen(kinds[i].prefix)) == 0)
            id_add(l->out, kinds[i].kind, "%s", wwid + strlen(kinds[i].prefix));
}

static void add_scsi_names(struct look *l, const struct device *d)
{
    uint8_t page[VPD_PAGE_MAX];
    struct vpd_name *names = calloc(VPD_NAMES_MAX, sizeof *names);
    char text[VPD_NAME_LEN];
    size_t n;

    if (names == NULL)
        return;
    n = vpd_names(page, read_page(l, d->disk, "vpd_pg83", page), names);
    for (size_t i = 0; i < n; i++)
        id_add(l->out, names[i].kind, "%s", names[i].value);
    free(names);
    if (n == 0 && (look_read(l, text, sizeof text, "%s/wwid", d->disk) ||
                      look_read(l, text, sizeof text, "%s/device/wwid", d->disk)))
        add_wwid(l, text);
    vpd_serial(page, read_page(l, d->disk, "vpd_pg80", page), text);
    if (text[0] != '\0' || look_read(l, text, sizeof text, "%s/device/serial", d->disk) ||
        look_read(l, text, sizeof text, "%s/serial", d->disk))
        id_add(l->out, "serial", "%s", text);
}

static void add_mapper_names(struct look *l, const struct device *d)
{
    static const char mpath[] = "mpath-3"; /* 3: the WWN is an NAA name */
    char uuid[VPD_NAME_LEN], path[NAME_LEN], wwn[33];

    if (look_read(l, uuid, sizeof uuid, "%s/dm/uuid", d->disk) && uuid[0] != '\0') {
        id_add(l->out, "dm-uuid", "%s", uuid);
        if (strncmp(uuid, mpath, sizeof mpath - 1) == 0 &&
            wwn_normal(uuid + sizeof mpath - 1, wwn)) {
            id_add(l->out, "naa", "%s", wwn);
            l->out->shared = true;
        }
    }
    if (look_read(l, path, sizeof path, "%s/loop/backing_file", d->disk)) {
        id_add_backing(l->out, path);
        id_text(&l->out->path_kind, "loop");
    }
}

/* What it hangs on, by its place among the devices. */
static void look_transport(struct look *l, const struct device *d)
{
    static const struct {
        const char *part, *name;
        bool shared;
    } kinds[] = { { "/rport-", "Fibre Channel", true }, { "/session", "iSCSI", true },
        { "/nvme-fabrics/", "NVMe over fabrics", true }, { "/nvme-subsystem/", "NVMe", false },
        { "/end_device-", "SAS", false }, { "/usb", "USB", false }, { "/ata", "ATA", false },
        { "/virtio", "virtio", false }, { "/virtual/", "virtual", false } };

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strstr(d->dir, kinds[i].part) == NULL)
            continue;
        id_add(l->out, "transport", "%s", kinds[i].name);
        l->out->shared = l->out->shared || kinds[i].shared;
        return;
    }
}

/* Links of a folder of /dev/disk that lead to that device. */
static void add_links(
    struct look *l, const struct device *d, const char *folder, const char *kind, size_t most)
{
    char dir[PATH_MAX], to[PATH_MAX];
    struct dirent *de;
    DIR *dp;

    snprintf(dir, sizeof dir, "%s/dev/disk/%s", l->root, folder);
    dp = opendir(dir);
    while (dp != NULL && most > 0 && (de = readdir(dp)) != NULL) {
        ssize_t n = readlinkat(dirfd(dp), de->d_name, to, sizeof to - 1);
        const char *slash;

        if (n <= 0)
            continue;
        to[n] = '\0';
        slash = strrchr(to, '/');
        if (strcmp(slash != NULL ? slash + 1 : to, d->name) != 0)
            continue;
        id_add(l->out, kind, "%s", de->d_name);
        most--;
    }
    if (dp != NULL)
        closedir(dp);
}

static void look_holders(struct look *l, const struct device *d)
{
    char dir[PATH_MAX];
    struct dirent *de;
    DIR *dp;

    if ((size_t)snprintf(dir, sizeof dir, "%s%s/holders", l->root, d->dir) >= sizeof dir)
        return;
    dp = opendir(dir);
    while (dp != NULL && (de = readdir(dp)) != NULL)
        if (de->d_name[0] != '.' && l->out->used_by[0] == '\0')
            id_text(&l->out->used_by, "the device %s that is made of it", de->d_name);
    if (dp != NULL)
        closedir(dp);
}

static void look_device(struct look *l, const struct device *d)
{
    l->out->size = number_of(l, d->dir, "size") * SECTOR;
    l->out->block_size = (uint32_t)number_of(l, d->disk, "queue/logical_block_size");
    l->out->read_only = number_of(l, d->dir, "ro") != 0;
    id_add(l->out, "device-name", "%s", d->name);
    if (d->partition != 0)
        id_add(l->out, "partition", "%u", d->partition);
    add_scsi_names(l, d);
    add_mapper_names(l, d);
    add_links(l, d, "by-id", "by-id", BY_ID_MAX);
    add_links(l, d, "by-uuid", "fs-uuid", 1);
    look_transport(l, d);
    look_holders(l, d);
}

/* --- the wanted WWN --- */

static bool has_wwn(const Migrd__DiskIdentity *id, const char *wwn)
{
    return id_has(id, "naa", wwn) || id_has(id, "eui64", wwn);
}

/* The link that udev makes of that name; multipath's before a single path's. */
static bool wwn_link(const char *root, const char *wwn, char out[PATH_MAX])
{
    static const char *const forms[] = { "dm-uuid-mpath-3", "wwn-0x", "scsi-3", "nvme-eui." };

    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        char path[PATH_MAX], to[8];

        if ((size_t)snprintf(out, PATH_MAX, "/dev/disk/by-id/%s%s", forms[i], wwn) < PATH_MAX &&
            (size_t)snprintf(path, sizeof path, "%s%s", root, out) < sizeof path &&
            readlink(path, to, sizeof to) > 0)
            return true;
    }
    return false;
}

/* The number of the device behind a link. */
static bool device_of_link(const struct look *l, const char *link, dev_t *dev)
{
    char path[PATH_MAX], to[PATH_MAX], text[32];
    unsigned a, b;
    ssize_t n;

    if ((size_t)snprintf(path, sizeof path, "%s%s", l->root, link) >= sizeof path)
        return false;
    n = readlink(path, to, sizeof to - 1);
    if (n <= 0)
        return false;
    to[n] = '\0';
    if (strrchr(to, '/') == NULL ||
        !look_read(l, text, sizeof text, "/sys/class/block%s/dev", strrchr(to, '/')) ||
        sscanf(text, "%u:%u", &a, &b) != 2)
        return false;
    *dev = makedev(a, b);
    return true;
}

/* The names of the device at the disk's own path; false if there is none. */
static bool look_at_path(struct look *l)
{
    struct device d;
    struct stat st;

    if (stat(l->disk->source, &st) < 0 || !S_ISBLK(st.st_mode) || !find_device(l, st.st_rdev, &d))
        return false;
    look_device(l, &d);
    return true;
}

int storage_path(const Migrd__Disk *disk, char *out, size_t size, struct err *e)
{
    Migrd__DiskIdentity *id;
    struct look l = { .disk = disk, .root = "" };
    char wwn[33], link[PATH_MAX];
    bool here;

    snprintf(out, size, "%s", disk->source);
    if (disk->wwn[0] == '\0' || disk->source[0] != '/')
        return 0;
    if (!wwn_normal(disk->wwn, wwn))
        return err_set(
            e, ERR_INVALID, "disk %s: wwn %s: 16 or 32 hex digits", disk->device, disk->wwn);
    id = l.out = malloc(sizeof *id);
    if (id == NULL)
        return err_set(e, ERR_MEMORY, "disk %s: out of memory", disk->device);
    migrd__disk_identity__init(id);
    here = look_at_path(&l) && has_wwn(id, wwn);
    migrd__disk_identity__free_unpacked(id, NULL);
    if (here)
        return 0;
    if (!wwn_link("", wwn, link))
        return err_set(e, ERR_NOT_FOUND,
            "disk %s: no block device of this host has the WWN %s; map the LUN to this host and "
            "rescan, or correct wwn= in the definition",
            disk->device, wwn);
    snprintf(out, size, "%s", link);
    return 0;
}

/* --- NPIV --- */

static bool port_is(const struct look *l, const char *host, const char *what, const char *wwn)
{
    char text[64], normal[33];

    return look_read(l, text, sizeof text, "/sys/class/fc_host/%s/%s", host, what) &&
           wwn_normal(text, normal) && strcmp(normal, wwn) == 0;
}

static bool can_carry(const struct look *l, const char *host)
{
    char dir[NAME_LEN + 32];

    snprintf(dir, sizeof dir, "/sys/class/fc_host/%s", host);
    return exists_below(l, dir, "vport_create") &&
           number_of(l, dir, "max_npiv_vports") > number_of(l, dir, "npiv_vports_inuse");
}

static bool parse_npiv(const char *text, char wwpn[33], char wwnn[33])
{
    char first[64];
    const char *colon = strchr(text, ':');

    if (colon == NULL || (size_t)(colon - text) >= sizeof first)
        return false;
    snprintf(first, sizeof first, "%.*s", (int)(colon - text), text);
    return wwn_normal(first, wwpn) && wwn_normal(colon + 1, wwnn) && strlen(wwpn) == 16 &&
           strlen(wwnn) == 16;
}

static void look_npiv(struct look *l)
{
    char dir[PATH_MAX], wwpn[33], wwnn[33], state[64], able[NAME_LEN] = "";
    struct dirent *de;
    bool found = false;
    DIR *d;

    if (l->disk->npiv[0] == '\0')
        return;
    if (!parse_npiv(l->disk->npiv, wwpn, wwnn)) {
        look_fail(l, ERR_INVALID, "npiv %s: give WWPN:WWNN, 16 hex digits each", l->disk->npiv);
        return;
    }
    snprintf(dir, sizeof dir, "%s/sys/class/fc_host", l->root);
    d = opendir(dir);
    while (d != NULL && !found && (de = readdir(d)) != NULL) {
        if (de->d_name[0] == '.')
            continue;
        if (port_is(l, de->d_name, "port_name", wwpn) &&
            port_is(l, de->d_name, "node_name", wwnn)) {
            look_read(l, state, sizeof state, "/sys/class/fc_host/%s/port_state", de->d_name);
            id_add(l->out, "npiv", "%s", strcmp(state, "Online") == 0 ? "online" : "offline");
            id_add(l->out, "npiv-host", "%s", de->d_name);
            found = true;
        } else if (can_carry(l, de->d_name)) {
            snprintf(able, sizeof able, "%s", de->d_name);
        }
    }
    if (d != NULL)
        closedir(d);
    if (found)
        return;
    id_add(l->out, "npiv", "%s", able[0] != '\0' ? "absent" : "impossible");
    if (able[0] != '\0')
        id_add(l->out, "npiv-host", "%s", able);
}

/* --- the look --- */

/* The real device, beside what /sys tells of it. */
static void look_open(struct look *l, const char *path)
{
    int fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
    uint8_t head[IMAGE_HEAD];
    ssize_t n;

    if (fd < 0 && errno == EBUSY) {
        if (l->out->used_by[0] == '\0')
            id_text(&l->out->used_by, "this host's kernel (it is mounted, or part of a device)");
        fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    if (fd < 0) {
        look_fail(l, ERR_REFUSED, "%s: %s", path, strerror(errno));
        return;
    }
    n = pread(fd, head, sizeof head, 0);
    if (n > 0)
        look_head(l, head, (size_t)n);
    else if (n < 0)
        look_fail(l, ERR_SYSTEM, "%s: it cannot be read: %s", path, strerror(errno));
    close(fd);
}

/* Throws away what was found of another device. */
static void forget(Migrd__DiskIdentity *id)
{
    for (size_t i = 0; i < id->n_designators; i++)
        migrd__designator__free_unpacked(id->designators[i], NULL);
    for (size_t i = 0; i < id->n_backing; i++)
        free(id->backing[i]);
    id->n_designators = id->n_backing = 0;
    id_text(&id->used_by, "%s", "");
    id_text(&id->path_kind, "%s", "");
    id->shared = false;
}

/* The device by its WWN, wherever it is; its path in `path`. */
static bool look_by_wwn(struct look *l, char path[PATH_MAX])
{
    char wwn[33], old[NAME_LEN], here[80] = "";
    struct device d;
    dev_t dev;

    if (!wwn_normal(l->disk->wwn, wwn)) {
        look_fail(l, ERR_INVALID, "wwn %s: give 16 or 32 hex digits", l->disk->wwn);
        return false;
    }
    if (has_wwn(l->out, wwn))
        return true;
    snprintf(old, sizeof old, "%s", id_value(l->out, "naa"));
    if (old[0] != '\0')
        snprintf(here, sizeof here, " (%.24s has %.32s)", l->disk->source, old);
    if (wwn_link(l->root, wwn, path) && device_of_link(l, path, &dev) && find_device(l, dev, &d)) {
        forget(l->out);
        look_device(l, &d);
        id_add(l->out, "found-as", "/dev/%s", d.name);
        if (has_wwn(l->out, wwn))
            return true;
    }
    look_fail(l, ERR_NOT_FOUND,
        "no block device of this host has the WWN %s%s; map the LUN to this host (zoning, masking) "
        "and rescan, or correct wwn= in the definition",
        wwn, here);
    return false;
}

void look_block(struct look *l, dev_t dev, bool there)
{
    char path[PATH_MAX];
    struct device d;

    l->out->kind = MIGRD__STORAGE_KIND__STORAGE_BLOCK;
    snprintf(path, sizeof path, "%s", l->disk->source);
    look_step(l, "reading /sys");
    look_npiv(l);
    if (there && find_device(l, dev, &d))
        look_device(l, &d);
    else if (there)
        look_fail(l, ERR_NOT_FOUND, "%s: /sys/dev/block has no device %u:%u", l->disk->source,
            major(dev), minor(dev));
    if (look_failed(l) || (l->disk->wwn[0] != '\0' && !look_by_wwn(l, path)))
        return;
    look_step(l, "reading the beginning of %s", path);
    if (l->root[0] == '\0')
        look_open(l, path);
}
