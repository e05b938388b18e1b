/* SPDX-License-Identifier: ISC */
/*
 * What only Xen's domains have, for both readers and both writers: words of the guest's type,
 * of TSC modes, image formats and backends; names of scripts and boot loaders; the rules.
 *
 * Scripts and boot loaders run as root on whichever host the definition comes to, also one that
 * a peer sent. They are therefore names of what the host's administrator or Xen's packages
 * put into one folder, never paths: the usual ones are cut to their last part, others refused.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrd/define/internal.h"
#include "storage-check/url.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define SCRIPTS "/etc/xen/scripts/"
#define NAME_MAX_ 40
#define XEN_DISKS_MAX HV_STAT_DEVICES
#define XEN_VIFS_MAX HV_STAT_DEVICES

bool define_is_xen(const Migrd__Domain *d)
{
    return strcmp(d->hypervisor, "xen") == 0;
}

/* ---- words ---- */

static const char *const formats[] = { "raw", "qcow2", "qcow", "vhd", "qed" };
static const char *const backends[] = { "phy", "qdisk", "tap" };

static bool among(const char *word, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(words[i], word) == 0)
            return true;
    return false;
}

int define_disk_format(struct reader *r, unsigned line, const char *word, char **field)
{
    if (strcmp(word, "aio") == 0) /* libvirt's word for tap's raw images */
        word = "raw";
    if (!among(word, formats, COUNT(formats)))
        return define_fault(
            r, line, ERR_INVALID, "disk: format %.20s must be raw, qcow2, qcow, vhd or qed", word);
    return define_text(r, field, strcmp(word, "raw") == 0 ? "" : word);
}

int define_disk_backend(struct reader *r, unsigned line, const char *word, char **field)
{
    if (!among(word, backends, COUNT(backends)))
        return define_fault(
            r, line, ERR_INVALID, "disk: backend %.20s must be phy, qdisk or tap", word);
    return define_text(r, field, word);
}

static const struct {
    const char *mode, *libvirt;
} tsc_modes[] = {
    { "", "auto" },
    { "always_emulate", "emulate" },
    { "native", "native" },
    { "native_paravirt", "paravirt" },
};

int define_tsc_mode(struct reader *r, unsigned line, const char *word, char **field)
{
    for (size_t i = 0; i < COUNT(tsc_modes); i++)
        if (strcmp(tsc_modes[i].mode, word) == 0 || strcmp(tsc_modes[i].libvirt, word) == 0)
            return define_text(r, field, tsc_modes[i].mode);
    if (strcmp(word, "default") == 0)
        return define_text(r, field, "");
    return define_fault(r, line, ERR_INVALID,
        "tsc_mode %.20s must be default, always_emulate, native or native_paravirt", word);
}

const char *define_tsc_timer(const char *mode)
{
    for (size_t i = 0; i < COUNT(tsc_modes); i++)
        if (strcmp(tsc_modes[i].mode, mode) == 0)
            return tsc_modes[i].libvirt;
    return NULL;
}

int define_firmware(struct reader *r, unsigned line, const char *word, char **field)
{
    if (strcmp(word, "seabios") == 0 || strcmp(word, "bios") == 0)
        return define_text(r, field, "");
    if (strcmp(word, "ovmf") == 0 || strcmp(word, "uefi") == 0 || strcmp(word, "efi") == 0)
        return define_text(r, field, "ovmf");
    return define_fault(
        r, line, ERR_UNSUPPORTED, "firmware %.40s is not supported; use seabios or ovmf", word);
}

/* ---- names of programs ---- */

static bool is_name(const char *s)
{
    size_t n = strlen(s);

    for (const char *p = s; *p != '\0'; p++)
        if (!isascii((unsigned char)*p) ||
            (!isalnum((unsigned char)*p) && strchr("._+-", *p) == NULL))
            return false;
    return n > 0 && n <= NAME_MAX_ && s[0] != '.' && s[0] != '-';
}

int define_script(struct reader *r, unsigned line, const char *what, const char *word, char **field)
{
    const char *name = strncmp(word, SCRIPTS, strlen(SCRIPTS)) == 0 ? word + strlen(SCRIPTS) : word;

    if (!is_name(name))
        return define_fault(r, line, ERR_INVALID,
            "%s: script %.60s: this must be the name of a script in " SCRIPTS, what, word);
    return define_text(r, field, name);
}

/* /usr/bin/pygrub and /usr/lib/xen-4.17/bin/pygrub are where Xen looks for it itself. */
int define_bootloader(struct reader *r, unsigned line, const char *word, char **field)
{
    const char *slash = strrchr(word, '/'), *name = slash != NULL ? slash + 1 : word;
    size_t folder = slash != NULL ? (size_t)(slash - word) : 0;
    bool usual = slash == NULL || (folder == 8 && strncmp(word, "/usr/bin", 8) == 0) ||
                 (strncmp(word, "/usr/lib/xen", 12) == 0 && strstr(word, "..") == NULL);

    if (!usual || !is_name(name))
        return define_fault(r, line, ERR_UNSUPPORTED,
            "bootloader %.60s is not supported; use the name of one of Xen's own: pygrub", word);
    return define_text(r, field, name);
}

int define_add_bootloader_arg(struct reader *r, const char *text)
{
    Migrd__Domain *d = r->d;
    char **list = realloc(d->bootloader_args, (d->n_bootloader_args + 1) * sizeof *list);

    if (list == NULL)
        return define_no_memory(r);
    d->bootloader_args = list;
    list[d->n_bootloader_args] = strdup(text);
    if (list[d->n_bootloader_args] == NULL)
        return define_no_memory(r);
    d->n_bootloader_args++;
    return 0;
}

/* "a b  c": as libvirt has them, in one text. */
int define_add_bootloader_args(struct reader *r, const char *text)
{
    char *copy = strdup(text), *rest = NULL;
    int rc = copy == NULL ? define_no_memory(r) : 0;

    for (char *w = copy == NULL ? NULL : strtok_r(copy, " \t\r\n", &rest); w != NULL && rc == 0;
         w = strtok_r(NULL, " \t\r\n", &rest))
        rc = define_add_bootloader_arg(r, w);
    free(copy);
    return rc;
}

/* ---- what is missing ---- */

int define_fill_xen(struct reader *r)
{
    Migrd__Domain *d = r->d;

    if (!define_is_xen(d)) {
        if (d->type == MIGRD__GUEST_TYPE__GUEST_PVH)
            d->type = MIGRD__GUEST_TYPE__GUEST_DEFAULT;
        return 0;
    }
    d->type = hv_guest_type(d);
    for (size_t i = 0; i < d->n_disks; i++)
        d->disks[i]->read_only |= d->disks[i]->cdrom;
    for (size_t i = 0; i < d->n_vifs; i++)
        if (d->type != MIGRD__GUEST_TYPE__GUEST_HVM && strcmp(d->vifs[i]->model, "netfront") == 0 &&
            define_text(r, &d->vifs[i]->model, "") < 0)
            return -1;
    return 0;
}

/* ---- rules ---- */

#define XEN_ONLY(field)                                                                            \
    err_set(e, ERR_UNSUPPORTED, "%s is for domains of Xen, and hypervisor is %s; remove it",       \
        field, d->hypervisor)

/* What a domain of another hypervisor must not have. */
static int check_none(const Migrd__Domain *d, struct err *e)
{
    if (d->type != MIGRD__GUEST_TYPE__GUEST_DEFAULT && d->type != MIGRD__GUEST_TYPE__GUEST_PVH)
        return err_set(e, ERR_UNSUPPORTED,
            "type %s is for domains of Xen, and hypervisor is %s; boot a Linux kernel directly "
            "(kernel=, ramdisk=, extra=)",
            hv_guest_type_name(d->type), d->hypervisor);
    if (d->on_watchdog != MIGRD__ON_EVENT__ON_DEFAULT)
        return XEN_ONLY("on_watchdog");
    if (d->bootloader[0] != '\0' || d->n_bootloader_args > 0)
        return XEN_ONLY("bootloader");
    if (d->tsc_mode[0] != '\0')
        return XEN_ONLY("tsc_mode");
    if (d->boot[0] != '\0' || d->firmware[0] != '\0')
        return XEN_ONLY("boot, firmware");
    for (size_t i = 0; i < d->n_disks; i++) {
        const Migrd__Disk *k = d->disks[i];

        if (k->format[0] != '\0')
            return err_set(e, ERR_UNSUPPORTED,
                "disk %s: format %.20s: only raw images are supported; convert it with qemu-img "
                "convert -O raw",
                k->device, k->format);
        if (k->backend[0] != '\0' || k->script[0] != '\0' || k->cdrom)
            return XEN_ONLY("a disk's backend, script or CD drive");
    }
    for (size_t i = 0; i < d->n_vifs; i++)
        if (d->vifs[i]->script[0] != '\0' || d->vifs[i]->model[0] != '\0' ||
            d->vifs[i]->ip[0] != '\0' || d->vifs[i]->rate_kib != 0)
            return XEN_ONLY("a vif's script, model, ip or rate");
    return 0;
}

/* xvda, sda1, hdc: the names that libxl takes. */
static bool is_vdev(const char *s)
{
    const char *p = strncmp(s, "xvd", 3) == 0                              ? s + 3
                    : strncmp(s, "sd", 2) == 0 || strncmp(s, "hd", 2) == 0 ? s + 2
                                                                           : NULL;
    size_t letters = 0;

    if (p == NULL)
        return false;
    while (letters < 3 && p[letters] >= 'a' && p[letters] <= 'z')
        letters++;
    return letters > 0 && letters < 3 && strspn(p + letters, "0123456789") == strlen(p + letters) &&
           p[letters] != '0';
}

static int check_disk_kind(const Migrd__Disk *k, struct err *e)
{
    if (!is_vdev(k->device))
        return err_set(e, ERR_INVALID,
            "disk %.60s: device %s: Xen's disks are called xvda, xvdb, ...", k->source, k->device);
    if (storage_url_is_network(k->source))
        return err_set(e, ERR_UNSUPPORTED,
            "disk %s: %.100s: Xen's backends take files and block devices; mount the export, or "
            "log in to the target, and name what then is there",
            k->device, k->source);
    if ((k->format[0] != '\0' && !among(k->format, formats, COUNT(formats))) ||
        (k->backend[0] != '\0' && !among(k->backend, backends, COUNT(backends))))
        return err_set(e, ERR_INVALID, "disk %s: format %.20s or backend %.20s is not known",
            k->device, k->format, k->backend);
    if (k->format[0] != '\0' && strcmp(k->backend, "phy") == 0)
        return err_set(e, ERR_INVALID,
            "disk %s: backend phy takes raw images only, and format is %s; remove backend",
            k->device, k->format);
    if (k->script[0] != '\0' && !is_name(k->script))
        return err_set(e, ERR_INVALID,
            "disk %s: script %.60s: this must be the name of a script in " SCRIPTS, k->device,
            k->script);
    return 0;
}

#define NOT_ON_XEN(field)                                                                          \
    err_set(e, ERR_UNSUPPORTED, "disk %s: %s is not supported by Xen's backends; remove it",       \
        k->device, field)

static int check_disk(const Migrd__Domain *d, const Migrd__Disk *k, struct err *e)
{
    if (check_disk_kind(k, e) < 0)
        return -1;
    if (k->cdrom && d->type != MIGRD__GUEST_TYPE__GUEST_HVM)
        return err_set(e, ERR_UNSUPPORTED,
            "disk %s: there are CD drives only in hvm guests; use it as a read-only disk",
            k->device);
    if (k->serial[0] != '\0')
        return NOT_ON_XEN("serial");
    if (k->wwn[0] != '\0' || k->npiv[0] != '\0')
        return NOT_ON_XEN("wwn or npiv");
    if (k->on_io_error > MIGRD__ON_IO_ERROR__IO_REPORT)
        return NOT_ON_XEN("on_io_error other than report");
    if (k->cache[0] != '\0' && strcmp(k->cache, "none") != 0)
        return NOT_ON_XEN("cache other than none");
    return 0;
}

/* For a hotplug script: addresses, separated by single blanks. */
static bool are_addresses(const char *s)
{
    return strlen(s) < 200 && strspn(s, "0123456789abcdefABCDEF.:/ ") == strlen(s) && s[0] != ' ' &&
           strstr(s, "  ") == NULL && s[strlen(s) - 1] != ' ';
}

static int check_vif(const Migrd__Domain *d, const Migrd__Vif *v, struct err *e)
{
    if (v->script[0] != '\0' && !is_name(v->script))
        return err_set(e, ERR_INVALID,
            "vif %s: script %.60s: this must be the name of a script in " SCRIPTS, v->mac,
            v->script);
    if (v->model[0] != '\0' && (!is_name(v->model) || d->type != MIGRD__GUEST_TYPE__GUEST_HVM))
        return err_set(e, ERR_UNSUPPORTED,
            "vif %s: model %.40s: the interfaces of %s guests are netfront; remove model", v->mac,
            v->model, hv_guest_type_name(hv_guest_type(d)));
    if (v->ip[0] != '\0' && !are_addresses(v->ip))
        return err_set(e, ERR_INVALID,
            "vif %s: ip %.60s: these must be addresses with single blanks between", v->mac, v->ip);
    return 0;
}

/* What it boots from. */
static int check_start(const Migrd__Domain *d, struct err *e)
{
    bool hvm = d->type == MIGRD__GUEST_TYPE__GUEST_HVM;

    if (d->bootloader[0] != '\0' && (hvm || d->n_disks == 0 || !is_name(d->bootloader)))
        return err_set(e, ERR_INVALID, "bootloader %.40s: %s", d->bootloader,
            hvm               ? "an hvm guest boots by its firmware; remove bootloader"
            : d->n_disks == 0 ? "there is no disk to take a kernel from"
                              : "this must be the name of one of Xen's own: pygrub");
    if (d->bootloader[0] != '\0' && d->kernel[0] != '\0')
        return err_set(e, ERR_INVALID,
            "the kernel is either %.60s or what %s finds; remove kernel or bootloader", d->kernel,
            d->bootloader);
    if (d->n_bootloader_args > 0 && d->bootloader[0] == '\0')
        return err_set(e, ERR_INVALID, "bootloader_args, and there is no bootloader");
    if (!hvm && (d->boot[0] != '\0' || d->firmware[0] != '\0'))
        return err_set(e, ERR_UNSUPPORTED,
            "boot and firmware are for hvm guests, and type is %s; remove them",
            hv_guest_type_name(hv_guest_type(d)));
    if (strlen(d->boot) > 3 || strspn(d->boot, "cdn") != strlen(d->boot) ||
        (d->firmware[0] != '\0' && strcmp(d->firmware, "ovmf") != 0))
        return err_set(e, ERR_INVALID,
            "boot %.10s must be letters of c, d, n; firmware %.20s must be seabios or ovmf",
            d->boot, d->firmware);
    if (hvm && d->kernel[0] == '\0' && d->n_disks == 0 && strchr(d->boot, 'n') == NULL)
        return err_set(
            e, ERR_INVALID, "the domain has nothing to boot from; set disk, kernel, or boot = 'n'");
    return 0;
}

static int check_args(const Migrd__Domain *d, struct err *e)
{
    for (size_t i = 0; i < d->n_bootloader_args; i++) {
        const char *a = d->bootloader_args[i];

        if (a[0] == '\0' || strlen(a) > 200)
            return err_set(e, ERR_INVALID, "bootloader_args: 1 to 200 characters each");
        for (; *a != '\0'; a++)
            if (*a <= ' ' || *a > '~')
                return err_set(
                    e, ERR_INVALID, "bootloader_args: no blanks within them, ASCII only");
    }
    return d->n_bootloader_args <= 16 ? 0 : err_set(e, ERR_INVALID, "bootloader_args: at most 16");
}

int define_check_xen(const Migrd__Domain *d, struct err *e)
{
    if (!define_is_xen(d))
        return check_none(d, e);
    if ((unsigned)d->type > MIGRD__GUEST_TYPE__GUEST_HVM)
        return err_set(e, ERR_INVALID, "the guest's type is out of range");
    if (d->rng)
        return err_set(e, ERR_UNSUPPORTED,
            "rng is not supported: domains of Xen have no virtio devices; remove it");
    if (d->n_disks > XEN_DISKS_MAX || d->n_vifs > XEN_VIFS_MAX)
        return err_set(e, ERR_INVALID, "%zu disks, %zu vifs: at most %d of each", d->n_disks,
            d->n_vifs, XEN_DISKS_MAX);
    for (size_t i = 0; i < d->n_disks; i++)
        if (check_disk(d, d->disks[i], e) < 0)
            return -1;
    for (size_t i = 0; i < d->n_vifs; i++)
        if (check_vif(d, d->vifs[i], e) < 0)
            return -1;
    if (define_tsc_timer(d->tsc_mode) == NULL)
        return err_set(e, ERR_INVALID, "tsc_mode %.20s is not known", d->tsc_mode);
    return check_start(d, e) < 0 ? -1 : check_args(d, e);
}
