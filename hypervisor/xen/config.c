/* SPDX-License-Identifier: ISC */
/*
 * A definition as libxl wants it, and what can be told the other way round of a domain that
 * xl or libvirtd made. Nothing here asks Xen or looks at a file.
 *
 * libxl's own on_* are "preserve": migrd's policy decides, from what Xen tells. In the
 * definition of a domain that somebody else made they are "preserve" as well: who made it
 * looks after it.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpulist.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/xen/xen_domain.h"

#define RATE_INTERVAL_US 50000u
#define HOST_CPUS 1024 /* bits of a cpu_set_t */

static int no_memory(const Migrd__Domain *def, struct err *e)
{
    return err_set(e, ERR_MEMORY, "domain %s: out of memory", def->name);
}

/* A copy; "" is none. */
static int set_text(char **field, const char *text)
{
    if (text == NULL || text[0] == '\0')
        return 0;
    *field = strdup(text);
    return *field != NULL ? 0 : -1;
}

/* --- devices --- */

static libxl_disk_format format_of(const char *word)
{
    static const struct {
        const char *word;
        libxl_disk_format format;
    } known[] = { { "qcow2", LIBXL_DISK_FORMAT_QCOW2 }, { "qcow", LIBXL_DISK_FORMAT_QCOW },
        { "vhd", LIBXL_DISK_FORMAT_VHD }, { "qed", LIBXL_DISK_FORMAT_QED } };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].word, word) == 0)
            return known[i].format;
    return LIBXL_DISK_FORMAT_RAW;
}

static libxl_disk_backend backend_of(const char *word)
{
    if (strcmp(word, "phy") == 0)
        return LIBXL_DISK_BACKEND_PHY;
    if (strcmp(word, "qdisk") == 0)
        return LIBXL_DISK_BACKEND_QDISK;
    return strcmp(word, "tap") == 0 ? LIBXL_DISK_BACKEND_TAP : LIBXL_DISK_BACKEND_UNKNOWN;
}

int xen_config_disk(const Migrd__Disk *d, libxl_device_disk *out, struct err *e)
{
    if (d->source[0] != '/' && !(d->source[0] == '\0' && d->cdrom))
        return err_set(e, ERR_UNSUPPORTED,
            "disk %s (%s): Xen's backends take files and block devices of the host; mount it, or "
            "log in to its target, on every host and name the path",
            d->device, d->source);
    out->format = d->source[0] != '\0' ? format_of(d->format) : LIBXL_DISK_FORMAT_EMPTY;
    out->backend = backend_of(d->backend);
    out->readwrite = !d->read_only && !d->cdrom;
    out->is_cdrom = out->removable = d->cdrom;
    out->direct_io_safe = strcmp(d->cache, "none") == 0;
    if (set_text(&out->pdev_path, d->source) < 0 || set_text(&out->vdev, d->device) < 0 ||
        set_text(&out->script, d->script) < 0)
        return err_set(e, ERR_MEMORY, "disk %s: out of memory", d->device);
    return 0;
}

static int parse_mac(const char *text, libxl_mac mac)
{
    unsigned b[6];

    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]) != 6)
        return -1;
    for (unsigned i = 0; i < 6; i++)
        mac[i] = (uint8_t)b[i];
    return 0;
}

static int config_vif(
    const Migrd__Vif *v, int id, libxl_domain_type type, libxl_device_nic *out, struct err *e)
{
    bool emulated = type == LIBXL_DOMAIN_TYPE_HVM && strcmp(v->model, "netfront") != 0;

    out->devid = id;
    out->nictype = emulated ? LIBXL_NIC_TYPE_VIF_IOEMU : LIBXL_NIC_TYPE_VIF;
    if (parse_mac(v->mac, out->mac) < 0)
        return err_set(e, ERR_INVALID, "vif %d: mac %.20s is none", id, v->mac);
    if (v->mtu != 0)
        out->mtu = (int)v->mtu;
    if (v->rate_kib != 0) {
        out->rate_interval_usecs = RATE_INTERVAL_US;
        out->rate_bytes_per_interval = (uint64_t)v->rate_kib * 1024 * RATE_INTERVAL_US / 1000000;
    }
    if (set_text(&out->bridge, v->bridge) < 0 || set_text(&out->ifname, v->ifname) < 0 ||
        set_text(&out->script, v->script) < 0 || set_text(&out->ip, v->ip) < 0 ||
        (emulated && set_text(&out->model, v->model) < 0))
        return err_set(e, ERR_MEMORY, "vif %d: out of memory", id);
    return 0;
}

static int config_disks(const Migrd__Domain *def, libxl_domain_config *c, struct err *e)
{
    c->disks = calloc(def->n_disks + 1, sizeof *c->disks);
    if (c->disks == NULL)
        return no_memory(def, e);
    for (size_t i = 0; i < def->n_disks; i++) {
        libxl_device_disk_init(&c->disks[i]);
        c->num_disks++;
        if (xen_config_disk(def->disks[i], &c->disks[i], e) < 0)
            return err_prefix(e, "domain %s", def->name);
    }
    return 0;
}

static int config_vifs(const Migrd__Domain *def, libxl_domain_config *c, struct err *e)
{
    c->nics = calloc(def->n_vifs + 1, sizeof *c->nics);
    if (c->nics == NULL)
        return no_memory(def, e);
    for (size_t i = 0; i < def->n_vifs; i++) {
        libxl_device_nic_init(&c->nics[i]);
        c->num_nics++;
        if (config_vif(def->vifs[i], (int)i, c->c_info.type, &c->nics[i], e) < 0)
            return err_prefix(e, "domain %s", def->name);
    }
    return 0;
}

/* --- CPUs --- */

static int make_bitmap(libxl_bitmap *b, unsigned bits)
{
    b->size = (bits + 7) / 8;
    b->map = calloc(b->size, 1);
    return b->map != NULL ? 0 : -1;
}

static int first_bits(libxl_bitmap *b, unsigned bits, unsigned set)
{
    if (make_bitmap(b, bits) < 0)
        return -1;
    for (unsigned i = 0; i < set; i++)
        b->map[i / 8] |= (uint8_t)(1u << (i % 8));
    return 0;
}

static int pin_vcpu(const Migrd__Domain *def, unsigned v, libxl_bitmap *out, struct err *e)
{
    cpu_set_t set;
    int given = cpulist_parse(hv_vcpu_pinning(def, v), &set, e);

    if (given < 0)
        return err_prefix(e, "domain %s: vCPU %u", def->name, v);
    if (make_bitmap(out, HOST_CPUS) < 0)
        return no_memory(def, e);
    for (int c = 0; c < HOST_CPUS; c++)
        if (given == 0 || CPU_ISSET((size_t)c, &set))
            out->map[c / 8] |= (uint8_t)(1u << (c % 8));
    return 0;
}

static int config_cpus(const Migrd__Domain *def, libxl_domain_build_info *b, struct err *e)
{
    unsigned max = def->max_vcpus > def->vcpus ? def->max_vcpus : def->vcpus;

    b->max_vcpus = (int)max;
    if (first_bits(&b->avail_vcpus, max, def->vcpus) < 0)
        return no_memory(def, e);
    if (def->cpu_weight != 0)
        b->sched_params.weight = (int)def->cpu_weight;
    if (def->cpu_cap != 0)
        b->sched_params.cap = (int)def->cpu_cap;
    if (def->vcpu_pinning[0] == '\0' && def->n_vcpu_pins == 0)
        return 0;
    b->vcpu_hard_affinity = calloc(max, sizeof *b->vcpu_hard_affinity);
    if (b->vcpu_hard_affinity == NULL)
        return no_memory(def, e);
    for (unsigned v = 0; v < max; v++) {
        libxl_bitmap_init(&b->vcpu_hard_affinity[v]);
        b->num_vcpu_hard_affinity++;
        if (pin_vcpu(def, v, &b->vcpu_hard_affinity[v], e) < 0)
            return -1;
    }
    return 0;
}

/* --- the domain --- */

static libxl_domain_type type_of(const Migrd__Domain *def)
{
    switch (hv_guest_type(def)) {
    case MIGRD__GUEST_TYPE__GUEST_PV:
        return LIBXL_DOMAIN_TYPE_PV;
    case MIGRD__GUEST_TYPE__GUEST_HVM:
        return LIBXL_DOMAIN_TYPE_HVM;
    default:
        return LIBXL_DOMAIN_TYPE_PVH;
    }
}

static int config_create(const Migrd__Domain *def, libxl_domain_create_info *c, struct err *e)
{
    c->type = type_of(def);
    if (libxl_uuid_from_string(&c->uuid, def->uuid) < 0)
        return err_set(e, ERR_INVALID, "domain %s: %.64s is no uuid", def->name, def->uuid);
    return set_text(&c->name, def->name) < 0 ? no_memory(def, e) : 0;
}

static int config_bootloader(const Migrd__Domain *def, libxl_domain_build_info *b)
{
    if (set_text(&b->bootloader, def->bootloader) < 0)
        return -1;
    if (def->n_bootloader_args == 0)
        return 0;
    b->bootloader_args = calloc(def->n_bootloader_args + 1, sizeof *b->bootloader_args);
    if (b->bootloader_args == NULL)
        return -1;
    for (size_t i = 0; i < def->n_bootloader_args; i++)
        if ((b->bootloader_args[i] = strdup(def->bootloader_args[i])) == NULL)
            return -1;
    return 0;
}

/* Its serial port is its console; its screen is on a socket of VNC's, as libxl chooses. */
static int config_hvm(const Migrd__Domain *def, libxl_domain_build_info *b)
{
    if (strcmp(def->firmware, "ovmf") == 0)
        b->u.hvm.bios = LIBXL_BIOS_TYPE_OVMF;
    if (set_text(&b->u.hvm.boot, def->boot) < 0)
        return -1;
    return set_text(&b->u.hvm.serial, "pty");
}

static int config_build(
    const Migrd__Domain *def, libxl_domain_type type, libxl_domain_build_info *b, struct err *e)
{
    libxl_domain_build_info_init_type(b, type);
    b->target_memkb = def->memory_kib;
    b->max_memkb = def->max_memory_kib > def->memory_kib ? def->max_memory_kib : def->memory_kib;
    if (def->tsc_mode[0] != '\0' && libxl_tsc_mode_from_string(def->tsc_mode, &b->tsc_mode) < 0)
        return err_set(
            e, ERR_INVALID, "domain %s: tsc_mode %.20s is unknown", def->name, def->tsc_mode);
    if (set_text(&b->kernel, def->kernel) < 0 || set_text(&b->ramdisk, def->initrd) < 0 ||
        set_text(&b->cmdline, def->cmdline) < 0 || config_bootloader(def, b) < 0 ||
        (type == LIBXL_DOMAIN_TYPE_HVM && config_hvm(def, b) < 0))
        return no_memory(def, e);
    return config_cpus(def, b, e);
}

/* What xen-hotplug might do: libxl would run vif-bridge, or block, for it. A device model
 * and a bootloader open a disk by themselves, or by libxl's hand, without our script's knowledge.
 */
static int set_hotplug(const Migrd__Domain *def, const char *program, libxl_domain_config *c)
{
    bool phy = c->c_info.type != LIBXL_DOMAIN_TYPE_HVM && def->bootloader[0] == '\0';

    for (int i = 0; i < c->num_nics; i++) {
        libxl_device_nic *n = &c->nics[i];

        if (n->nictype == LIBXL_NIC_TYPE_VIF && n->script == NULL && n->bridge != NULL &&
            n->ip == NULL && set_text(&n->script, program) < 0)
            return -1;
    }
    for (int i = 0; i < c->num_disks; i++) {
        libxl_device_disk *d = &c->disks[i];

        if (phy && d->script == NULL && d->format == LIBXL_DISK_FORMAT_RAW && !d->is_cdrom &&
            (d->backend == LIBXL_DISK_BACKEND_UNKNOWN || d->backend == LIBXL_DISK_BACKEND_PHY) &&
            set_text(&d->script, program) < 0)
            return -1;
    }
    return 0;
}

int xen_config(const Migrd__Domain *def, bool devices, const char *hotplug, libxl_domain_config *c,
    struct err *e)
{
    if (config_create(def, &c->c_info, e) < 0 ||
        config_build(def, c->c_info.type, &c->b_info, e) < 0 ||
        (devices && (config_vifs(def, c, e) < 0 || config_disks(def, c, e) < 0)))
        return -1;
    if (set_hotplug(def, hotplug, c) < 0)
        return no_memory(def, e);
    c->on_poweroff = c->on_reboot = c->on_watchdog = c->on_crash = c->on_soft_reset =
        LIBXL_ACTION_ON_SHUTDOWN_PRESERVE;
    return 0;
}

/* --- back --- */

/* Of protobuf-c's own, which its free knows, or a copy; NULL without memory. */
static char *text_of(const char *text)
{
    if (text == NULL || text[0] == '\0')
        return (char *)(uintptr_t)protobuf_c_empty_string;
    return strdup(text);
}

static const char *format_word(libxl_disk_format f)
{
    return f == LIBXL_DISK_FORMAT_RAW || f == LIBXL_DISK_FORMAT_EMPTY ||
                   f == LIBXL_DISK_FORMAT_UNKNOWN
               ? ""
               : libxl_disk_format_to_string(f);
}

/* xen-hotplug is of this host's installation, not of the domain. */
static const char *script_of(const char *path)
{
    const char *name = path != NULL ? strrchr(path, '/') : NULL;

    return name != NULL && strcmp(name + 1, XEN_HOTPLUG) == 0 ? "" : path;
}

static Migrd__Disk *disk_of(const libxl_device_disk *d)
{
    Migrd__Disk *out = malloc(sizeof *out);

    if (out == NULL)
        return NULL;
    migrd__disk__init(out);
    out->source = text_of(d->pdev_path);
    out->device = text_of(d->vdev);
    out->format = text_of(format_word(d->format));
    out->script = text_of(script_of(d->script));
    out->read_only = !d->readwrite;
    out->cdrom = d->is_cdrom;
    return out;
}

static Migrd__Vif *vif_of(const libxl_device_nic *n)
{
    Migrd__Vif *out = malloc(sizeof *out);
    char mac[18];

    if (out == NULL)
        return NULL;
    migrd__vif__init(out);
    snprintf(mac, sizeof mac, "%02x:%02x:%02x:%02x:%02x:%02x", n->mac[0], n->mac[1], n->mac[2],
        n->mac[3], n->mac[4], n->mac[5]);
    out->mac = text_of(mac);
    out->bridge = text_of(n->bridge);
    out->script = text_of(script_of(n->script));
    out->ifname = text_of(n->ifname);
    out->model = text_of(n->model);
    return out;
}

static int take_devices(const libxl_domain_config *c, Migrd__Domain *def)
{
    def->disks = calloc((size_t)c->num_disks + 1, sizeof(Migrd__Disk *));
    def->vifs = calloc((size_t)c->num_nics + 1, sizeof(Migrd__Vif *));
    if (def->disks == NULL || def->vifs == NULL)
        return -1;
    for (int i = 0; i < c->num_disks; i++)
        if ((def->disks[def->n_disks++] = disk_of(&c->disks[i])) == NULL)
            return -1;
    for (int i = 0; i < c->num_nics; i++)
        if ((def->vifs[def->n_vifs++] = vif_of(&c->nics[i])) == NULL)
            return -1;
    return 0;
}

static unsigned count_bits(const libxl_bitmap *b)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < b->size; i++)
        n += (unsigned)__builtin_popcount(b->map[i]);
    return n;
}

static Migrd__GuestType type_back(libxl_domain_type t)
{
    return t == LIBXL_DOMAIN_TYPE_PV    ? MIGRD__GUEST_TYPE__GUEST_PV
           : t == LIBXL_DOMAIN_TYPE_HVM ? MIGRD__GUEST_TYPE__GUEST_HVM
                                        : MIGRD__GUEST_TYPE__GUEST_PVH;
}

static void take_scalars(const libxl_domain_config *c, Migrd__Domain *def)
{
    const libxl_domain_build_info *b = &c->b_info;
    unsigned on = count_bits(&b->avail_vcpus);

    def->type = type_back(c->c_info.type);
    def->memory_kib = b->target_memkb;
    def->max_memory_kib = b->max_memkb;
    def->max_vcpus = b->max_vcpus > 0 ? (uint32_t)b->max_vcpus : 1;
    def->vcpus = on > 0 ? on : def->max_vcpus;
    def->cpu_weight = b->sched_params.weight > 0 ? (uint32_t)b->sched_params.weight : 0;
    def->cpu_cap = b->sched_params.cap > 0 ? (uint32_t)b->sched_params.cap : 0;
    def->on_poweroff = def->on_reboot = def->on_crash = def->on_watchdog =
        MIGRD__ON_EVENT__ON_PRESERVE;
}

static void take_texts(const libxl_domain_config *c, Migrd__Domain *def)
{
    const libxl_domain_build_info *b = &c->b_info;
    char uuid[HV_UUID_LEN];

    snprintf(uuid, sizeof uuid, LIBXL_UUID_FMT, LIBXL_UUID_BYTES(c->c_info.uuid));
    def->uuid = text_of(uuid);
    def->name = text_of(c->c_info.name);
    def->hypervisor = text_of("xen");
    def->kernel = text_of(b->kernel);
    def->initrd = text_of(b->ramdisk);
    def->cmdline = text_of(b->cmdline);
    def->bootloader = text_of(b->bootloader);
    def->tsc_mode =
        text_of(b->tsc_mode != LIBXL_TSC_MODE_DEFAULT ? libxl_tsc_mode_to_string(b->tsc_mode) : "");
}

Migrd__Domain *xen_config_definition(const libxl_domain_config *c, struct err *e)
{
    Migrd__Domain *def = malloc(sizeof *def);

    if (def == NULL) {
        err_set(e, ERR_MEMORY, "out of memory");
        return NULL;
    }
    migrd__domain__init(def);
    take_scalars(c, def);
    take_texts(c, def);
    if (take_devices(c, def) == 0)
        return def;
    migrd__domain__free_unpacked(def, NULL);
    err_set(e, ERR_MEMORY, "out of memory");
    return NULL;
}
