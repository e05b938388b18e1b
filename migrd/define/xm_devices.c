/* SPDX-License-Identifier: ISC */
/*
 * xm's words for devices.
 *
 *   disk  TYPE:PATH,DEVICE,MODE[,KEY=VALUE...]
 *         TYPE  file:, phy:, tap:aio:, tap2:aio:, raw:, or nothing before a path
 *         PATH  of a raw file or block device; phy: without a slash is below /dev
 *         in place of both: nfs://SERVER/EXPORT/FILE or iscsi://PORTAL/TARGET/LUN, also
 *         nfs:SERVER:/EXPORT/FILE and iscsi:TARGET/LUN@PORTAL
 *         MODE  r or w (also ro, rw)
 *         KEY   serial, on_io_error (report, stop, ignore), cache (none, writethrough,
 *               writeback, unsafe), wwn, npiv (WWPN:WWNN)
 *   disk  as newer files have it: TARGET,FORMAT,DEVICE,MODE, parts from the right may be missing,
 *         or KEY=VALUE for any of them in any order, target= last: target, format, vdev, access
 *         (r, ro, w, rw), backendtype, script, devtype (disk, cdrom), cdrom, discard, no-discard,
 *         direct-io-safe, and the keys above. A path may then have commas.
 *   vif   KEY=VALUE,... with mac, bridge, vifname, mtu; with Xen also script, model, ip, rate;
 *         '' is all defaults
 *
 * Blanks around commas are ignored.
 */
#include "migrd/define/xm_devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/nearest.h"
#include "storage-check/url.h"

#define PARTS_MAX 16
#define DEVICE_TEXT_MAX 2048

/* A text cut at its commas, blanks around the parts gone. */
struct parts {
    char text[DEVICE_TEXT_MAX];
    char *part[PARTS_MAX];
    int n;
};

static char *trimmed(char *s)
{
    size_t n;

    while (*s == ' ' || *s == '\t')
        s++;
    for (n = strlen(s); n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t');)
        s[--n] = '\0';
    return s;
}

static int cut(struct reader *r, unsigned line, const char *what, const char *text, struct parts *p)
{
    char *rest, *comma;

    if (strlen(text) >= sizeof p->text)
        return define_fault(r, line, ERR_INVALID, "%s '%.40s...' is too long", what, text);
    strcpy(p->text, text);
    rest = p->text;
    for (p->n = 0; p->n < PARTS_MAX; rest = comma + 1) {
        comma = strchr(rest, ',');
        if (comma != NULL)
            *comma = '\0';
        p->part[p->n++] = trimmed(rest);
        if (comma == NULL)
            return 0;
    }
    return define_fault(r, line, ERR_INVALID, "%s '%.40s' has too many parts", what, text);
}

/* ---- disk ---- */

static const char *const disk_types[] = {
    "file:", "phy:", "tap:aio:", "tap2:aio:", "tap:raw:", "raw:"
};

static int refuse_disk_type(struct reader *r, unsigned line, const char *uname)
{
    const char *colon = strchr(uname, ':');
    int n = colon == NULL ? 0 : (int)(colon - uname);

    if (strncmp(uname, "tap:", 4) == 0 || strncmp(uname, "tap2:", 5) == 0 ||
        strncmp(uname, "qcow", 4) == 0 || strncmp(uname, "vhd:", 4) == 0 ||
        strncmp(uname, "vmdk:", 5) == 0)
        return define_fault(r, line, ERR_UNSUPPORTED,
            "disk '%.80s': only raw images are supported; convert it with qemu-img convert -O raw",
            uname);
    if (colon != NULL && strchr(uname, '/') != NULL && colon < strchr(uname, '/'))
        return define_fault(r, line, ERR_UNSUPPORTED,
            "disk '%.80s': %.*s: is not supported; use file:, phy:, tap:aio:, raw:, nfs:// or "
            "iscsi://",
            uname, n, uname);
    return define_fault(r, line, ERR_INVALID, "disk '%.80s': an absolute path is missing", uname);
}

/* nfs:SERVER:/EXPORT/FILE, as mount writes it. */
static int set_nfs(struct reader *r, unsigned line, Migrd__Disk *k, const char *text)
{
    const char *path = strstr(text, ":/");
    char url[DEVICE_TEXT_MAX + 16];

    if (path == NULL)
        return define_fault(r, line, ERR_INVALID,
            "disk 'nfs:%.80s': it must be of the form nfs:SERVER:/EXPORT/FILE or "
            "nfs://SERVER/EXPORT/FILE",
            text);
    snprintf(url, sizeof url, "nfs://%.*s%s", (int)(path - text), text, path + 1);
    return define_text(r, &k->source, url);
}

/* iscsi:TARGET/LUN@PORTAL */
static int set_iscsi(struct reader *r, unsigned line, Migrd__Disk *k, const char *text)
{
    const char *at = strchr(text, '@'), *slash = strchr(text, '/');
    char url[DEVICE_TEXT_MAX + 16];

    if (at == NULL || slash == NULL || slash > at)
        return define_fault(r, line, ERR_INVALID,
            "disk 'iscsi:%.80s': it must be of the form iscsi:TARGET/LUN@PORTAL or "
            "iscsi://PORTAL/TARGET/LUN",
            text);
    snprintf(url, sizeof url, "iscsi://%s/%.*s", at + 1, (int)(at - text), text);
    return define_text(r, &k->source, url);
}

static int set_source(struct reader *r, unsigned line, Migrd__Disk *k, const char *uname)
{
    char path[DEVICE_TEXT_MAX + 8];

    if (storage_url_is_network(uname))
        return define_text(r, &k->source, uname);
    if (strncmp(uname, "nfs:", 4) == 0)
        return set_nfs(r, line, k, uname + 4);
    if (strncmp(uname, "iscsi:", 6) == 0)
        return set_iscsi(r, line, k, uname + 6);

    for (size_t i = 0; i < sizeof disk_types / sizeof disk_types[0]; i++) {
        size_t n = strlen(disk_types[i]);

        if (strncmp(uname, disk_types[i], n) != 0)
            continue;
        if (uname[n] == '/')
            return define_text(r, &k->source, uname + n);
        if (strcmp(disk_types[i], "phy:") != 0 || uname[n] == '\0')
            break;
        snprintf(path, sizeof path, "/dev/%s", uname + n);
        return define_text(r, &k->source, path);
    }
    if (uname[0] == '/')
        return define_text(r, &k->source, uname);
    return refuse_disk_type(r, line, uname);
}

static int set_cdrom(struct reader *r, unsigned line, Migrd__Disk *k, const char *text)
{
    k->cdrom = k->read_only = true;
    return r->d->type == MIGRD__GUEST_TYPE__GUEST_HVM
               ? 0
               : define_fault(r, line, ERR_UNSUPPORTED,
                     "disk device '%.40s': there are no CD drives; use it as a read-only disk",
                     text);
}

static int set_device(struct reader *r, unsigned line, Migrd__Disk *k, char *device)
{
    char *colon = strchr(device, ':');

    if (strncmp(device, "ioemu:", 6) == 0 && r->d->type == MIGRD__GUEST_TYPE__GUEST_HVM)
        return set_device(r, line, k, device + 6);
    if (strncmp(device, "ioemu:", 6) == 0)
        return define_fault(r, line, ERR_UNSUPPORTED,
            "disk device '%.40s': there are no emulated disks; write it without ioemu:", device);
    if (colon != NULL && strcmp(colon, ":cdrom") == 0 && set_cdrom(r, line, k, device) < 0)
        return -1;
    if (colon != NULL && (strcmp(colon, ":disk") == 0 || strcmp(colon, ":cdrom") == 0))
        *colon = '\0';
    return define_text(r, &k->device, device);
}

static int set_mode(struct reader *r, unsigned line, Migrd__Disk *k, const char *mode)
{
    if (strcmp(mode, "r") == 0 || strcmp(mode, "ro") == 0) {
        k->read_only = true;
        return 0;
    }
    if (strcmp(mode, "w") == 0 || strcmp(mode, "rw") == 0)
        return 0;
    if (strcmp(mode, "w!") == 0 || strcmp(mode, "!") == 0)
        return define_fault(r, line, ERR_UNSUPPORTED,
            "disk mode '%s': a disk that is written by several domains is not supported; use w",
            mode);
    return define_fault(r, line, ERR_INVALID, "disk mode '%.20s' must be r or w", mode);
}

/* What follows the mode. */
static int set_further(struct reader *r, unsigned line, Migrd__Disk *k, const char *part)
{
    if (strncmp(part, "serial=", 7) == 0)
        return define_text(r, &k->serial, part + 7);
    if (strncmp(part, "on_io_error=", 12) == 0)
        return define_io_error(r, line, "on_io_error", part + 12, &k->on_io_error);
    if (strncmp(part, "cache=", 6) == 0)
        return define_cache(r, line, part + 6, &k->cache);
    if (strncmp(part, "wwn=", 4) == 0)
        return define_text(r, &k->wwn, part + 4);
    if (strncmp(part, "npiv=", 5) == 0)
        return define_text(r, &k->npiv, part + 5);
    if (strncmp(part, "backendtype=", 12) == 0)
        return define_disk_backend(r, line, part + 12, &k->backend);
    if (strncmp(part, "script=", 7) == 0)
        return define_script(r, line, "disk", part + 7, &k->script);
    if (strncmp(part, "format=", 7) == 0)
        return define_disk_format(r, line, part + 7, &k->format);
    if (strchr(part, '=') != NULL)
        return define_fault(r, line, ERR_INVALID,
            "disk: '%.40s' is not known; serial=, on_io_error=, cache=, wwn= and npiv= are", part);
    return define_fault(r, line, ERR_UNSUPPORTED,
        "disk: '%.40s' behind the mode is not supported (there are no driver domains)", part);
}

/* Newer files: [TARGET[,FORMAT[,DEVICE[,MODE]]]], and keys. */
static int set_new_key(struct reader *r, unsigned line, Migrd__Disk *k, char *part)
{
    if (strncmp(part, "vdev=", 5) == 0)
        return set_device(r, line, k, part + 5);
    if (strncmp(part, "access=", 7) == 0)
        return set_mode(r, line, k, part + 7);
    if (strcmp(part, "cdrom") == 0 || strcmp(part, "devtype=cdrom") == 0)
        return set_cdrom(r, line, k, part);
    if (strcmp(part, "direct-io-safe") == 0)
        return define_text(r, &k->cache, "none");
    if (strcmp(part, "devtype=disk") == 0 || strcmp(part, "discard") == 0 ||
        strcmp(part, "no-discard") == 0)
        return 0;
    return set_further(r, line, k, part);
}

static bool is_keyed(const char *part)
{
    return strchr(part, '=') != NULL || strcmp(part, "cdrom") == 0 ||
           strcmp(part, "discard") == 0 || strcmp(part, "no-discard") == 0 ||
           strcmp(part, "direct-io-safe") == 0;
}

static int set_new_position(struct reader *r, unsigned line, Migrd__Disk *k, int at, char *part)
{
    switch (at) {
    case 0:
        return set_source(r, line, k, part);
    case 1:
        return part[0] == '\0' ? 0 : define_disk_format(r, line, part, &k->format);
    case 2:
        return set_device(r, line, k, part);
    case 3:
        return part[0] == '\0' ? 0 : set_mode(r, line, k, part);
    default:
        return define_fault(r, line, ERR_INVALID,
            "disk: '%.40s' is the %dth part; there are target, format, vdev and access", part,
            at + 1);
    }
}

/* Everything behind target= is its value, commas too. */
static int add_new_disk(struct reader *r, unsigned line, const char *text)
{
    const char *target = strstr(text, "target=");
    char head[DEVICE_TEXT_MAX];
    int at = 0;
    struct parts p;
    Migrd__Disk *k;

    while (target != NULL && target != text && target[-1] != ',' && target[-1] != ' ')
        target = strstr(target + 1, "target=");
    snprintf(
        head, sizeof head, "%.*s", (int)(target != NULL ? target - text : (int)strlen(text)), text);
    if (cut(r, line, "disk", head, &p) < 0)
        return -1;
    if (p.part[p.n - 1][0] == '\0') /* before target=, or a comma at the end */
        p.n--;
    k = define_add_disk(r);
    if (k == NULL)
        return -1;
    for (int i = 0; i < p.n; i++)
        if ((is_keyed(p.part[i]) ? set_new_key(r, line, k, p.part[i])
                                 : set_new_position(r, line, k, at++, p.part[i])) < 0)
            return -1;
    if (target != NULL && set_source(r, line, k, target + 7) < 0)
        return -1;
    if (k->source[0] == '\0' || k->device[0] == '\0')
        return define_fault(r, line, ERR_INVALID, "disk '%.80s' has no %s", text,
            k->source[0] == '\0' ? "target=" : "vdev=");
    return 0;
}

/* The old form has its device and mode in the second and third part. */
static bool is_new_form(const struct parts *p, const char *text)
{
    static const char *const words[] = { "raw", "qcow", "qcow2", "vhd", "qed", "" };

    if (strstr(text, "target=") != NULL || strstr(text, "vdev=") != NULL)
        return true;
    for (size_t i = 0; p->n > 1 && i < sizeof words / sizeof words[0]; i++)
        if (strcmp(p->part[1], words[i]) == 0)
            return p->part[0][0] == '/';
    return false;
}

int xm_add_disk(struct reader *r, unsigned line, const char *text)
{
    struct parts p;
    Migrd__Disk *k;

    if (strstr(text, "target=") != NULL)
        return add_new_disk(r, line, text);
    if (cut(r, line, "disk", text, &p) < 0)
        return -1;
    if (is_new_form(&p, text))
        return add_new_disk(r, line, text);
    if (p.n < 3)
        return define_fault(r, line, ERR_INVALID,
            "disk '%.80s' has %d parts; it must be of the form 'file:/path,xvda,w'", text, p.n);
    k = define_add_disk(r);
    if (k == NULL || set_source(r, line, k, p.part[0]) < 0 ||
        set_device(r, line, k, p.part[1]) < 0 || set_mode(r, line, k, p.part[2]) < 0)
        return -1;
    for (int i = 3; i < p.n; i++)
        if (set_further(r, line, k, p.part[i]) < 0)
            return -1;
    return 0;
}

/* ---- vif ---- */

/* N[K|M|G]{b|B}/s[@INTERVAL]: decimal, bits or bytes. Kept as KiB per second, rounded up; the
 * interval in which it is counted is Xen's own. */
static int set_rate(struct reader *r, unsigned line, Migrd__Vif *v, const char *value)
{
    static const char units[] = "KMG";
    uint64_t factor = 1, bytes;
    const char *unit;
    char *end;
    unsigned long n = strtoul(value, &end, 10);

    if (value[0] >= '0' && value[0] <= '9' && *end != '\0' && n > 0) {
        unit = strchr(units, *end);
        for (const char *u = units; unit != NULL && u <= unit; u++)
            factor *= 1000;
        end += unit != NULL;
        bytes = n > UINT32_MAX * UINT64_C(1024) / factor ? UINT64_MAX - 1023 : n * factor;
        bytes = *end == 'b' ? bytes / 8 : bytes;
        if ((*end == 'b' || *end == 'B') && strncmp(end + 1, "/s", 2) == 0 &&
            (end[3] == '\0' || end[3] == '@') && (bytes + 1023) / 1024 <= UINT32_MAX) {
            v->rate_kib = (uint32_t)((bytes + 1023) / 1024);
            return 0;
        }
    }
    return define_fault(
        r, line, ERR_INVALID, "vif: rate=%.30s must be of the form 10Mb/s or 1250KB/s", value);
}

static int set_mtu(struct reader *r, unsigned line, Migrd__Vif *v, const char *value)
{
    char *end;
    unsigned long n = strtoul(value, &end, 10);

    if (value[0] < '0' || value[0] > '9' || *end != '\0' || n < 68 || n > 65535)
        return define_fault(r, line, ERR_INVALID, "vif: mtu=%.20s must be from 68 to 65535", value);
    v->mtu = (uint32_t)n;
    return 0;
}

static int refuse_vif_key(struct reader *r, unsigned line, const char *key)
{
    static const char *const known[] = { "mac", "bridge", "vifname", "mtu", "type", "model",
        "script" };
    static const char *const others[] = { "ip", "rate", "backend", "policy", "uuid", "netfront",
        "accel", "vlan", "gatewaydev" };
    const char *near = nearest_word(key, known, sizeof known / sizeof known[0]);

    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(others[i], key) == 0)
            return define_fault(r, line, ERR_UNSUPPORTED,
                "vif: %s= is not supported; mac, bridge, vifname and mtu are", key);
    if (near != NULL)
        return define_fault(
            r, line, ERR_INVALID, "vif: unknown %.40s=; did you mean %s=?", key, near);
    return define_fault(
        r, line, ERR_INVALID, "vif: unknown %.40s=; mac, bridge, vifname and mtu are known", key);
}

/* One more address. */
static int add_ip(struct reader *r, Migrd__Vif *v, const char *value)
{
    char all[DEVICE_TEXT_MAX * 2];

    snprintf(all, sizeof all, "%.1000s%s%.1000s", v->ip, v->ip[0] != '\0' ? " " : "", value);
    return define_text(r, &v->ip, all);
}

/* 1: not one of them. */
static int set_xen_part(
    struct reader *r, unsigned line, Migrd__Vif *v, const char *key, const char *value)
{
    bool front = strcmp(value, "netfront") == 0 || strcmp(value, "vif") == 0;

    if (strcmp(key, "script") == 0)
        return strcmp(value, "vif-bridge") == 0 ? 0
                                                : define_script(r, line, "vif", value, &v->script);
    if (strcmp(key, "model") == 0)
        return define_text(r, &v->model, value);
    if (strcmp(key, "type") == 0 && (front || strcmp(value, "ioemu") == 0))
        return front ? define_text(r, &v->model, "netfront") : 0;
    if (strcmp(key, "ip") == 0)
        return add_ip(r, v, value);
    if (strcmp(key, "rate") == 0)
        return set_rate(r, line, v, value);
    return 1;
}

/* Words of xm that describe what a vif is anyway. */
static bool is_redundant(const char *key, const char *value)
{
    return (strcmp(key, "type") == 0 &&
               (strcmp(value, "netfront") == 0 || strcmp(value, "vif") == 0)) ||
           (strcmp(key, "model") == 0 &&
               (strcmp(value, "virtio") == 0 || strcmp(value, "netfront") == 0)) ||
           (strcmp(key, "script") == 0 && strcmp(value, "vif-bridge") == 0);
}

static int set_vif_part(struct reader *r, unsigned line, Migrd__Vif *v, char *part)
{
    char *equals = strchr(part, '='), *key, *value;
    int rc;

    if (equals == NULL)
        return define_fault(
            r, line, ERR_INVALID, "vif: '%.40s' is not of the form key=value", part);
    *equals = '\0';
    key = trimmed(part);
    value = trimmed(equals + 1);
    if (strcmp(key, "mac") == 0)
        return define_text(r, &v->mac, value);
    if (strcmp(key, "bridge") == 0)
        return define_text(r, &v->bridge, value);
    if (strcmp(key, "vifname") == 0)
        return define_text(r, &v->ifname, value);
    if (strcmp(key, "mtu") == 0)
        return set_mtu(r, line, v, value);
    rc = define_is_xen(r->d) ? set_xen_part(r, line, v, key, value) : 1;
    if (rc <= 0)
        return rc;
    if (is_redundant(key, value))
        return 0;
    if (strcmp(key, "type") == 0 || strcmp(key, "model") == 0 || strcmp(key, "script") == 0)
        return define_fault(r, line, ERR_UNSUPPORTED,
            "vif: %s=%.40s is not supported: vifs are virtio devices on a bridge", key, value);
    return refuse_vif_key(r, line, key);
}

int xm_add_vif(struct reader *r, unsigned line, const char *text)
{
    struct parts p;
    Migrd__Vif *v;

    if (cut(r, line, "vif", text, &p) < 0)
        return -1;
    v = define_add_vif(r);
    if (v == NULL)
        return -1;
    if (p.n == 1 && p.part[0][0] == '\0')
        return 0;
    for (int i = 0; i < p.n; i++)
        if (set_vif_part(r, line, v, p.part[i]) < 0)
            return -1;
    return 0;
}
