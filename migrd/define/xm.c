/* SPDX-License-Identifier: ISC */
/*
 * xm's domain file: which keys there are and what they mean for us. One table names
 * every key that xm knew: those we honour have a function; those we do not honour have
 * the reason, and are accepted only with a value that asks for nothing (0, '', []).
 * A key that is in no list is refused with the nearest that is.
 *
 * The kernel command line has three sources in xm: root= is put in front of extra=;
 * cmdline= (as in newer files) is both. They are put together when all is read, so that
 * an override of one keeps the other.
 *
 * hypervisor=, type= and builder= are read first, of the file and then of the command line: what
 * other keys mean depends on them. xm's and xl's words for a screen are left out with a note
 * where the hypervisor is Xen, whose files have them as a matter of course.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/nearest.h"
#include "migrd/define/pyvalue.h"
#include "migrd/define/xm_devices.h"

struct xm {
    struct reader *r;
    unsigned line; /* of the assignment at hand, 0 an override */
    const char *key;
    char *root, *extra, *cmdline; /* NULL: not given */
    bool command_line_given;
};

typedef int xm_set(struct xm *x, const struct pyvalue *v);

/* ---- values ---- */

static int wants(struct xm *x, const char *what)
{
    return define_fault(x->r, x->line, ERR_INVALID, "%s must be %s", x->key, what);
}

static bool on_xen(const struct xm *x)
{
    return define_is_xen(x->r->d);
}

/* A text; a number is taken as its digits, as xm did. NULL on failure. */
static const char *text_of(struct xm *x, const struct pyvalue *v, char space[24])
{
    if (v->type == PY_NUMBER) {
        snprintf(space, 24, "%lld", v->number);
        return space;
    }
    if (v->type != PY_TEXT) {
        wants(x, "a text in quotes");
        return NULL;
    }
    return v->text;
}

static int number_of(
    struct xm *x, const struct pyvalue *v, long long min, long long max, uint64_t *out)
{
    long long n = v->number;
    char range[80], *end;

    snprintf(range, sizeof range, "a whole number from %lld to %lld", min, max);
    if (v->type == PY_TEXT) {
        n = strtoll(v->text, &end, 10);
        if (v->text[0] == '\0' || *end != '\0' || strlen(v->text) > 18)
            return wants(x, range);
    } else if (v->type != PY_NUMBER) {
        return wants(x, range);
    }
    if (n < min || n > max)
        return wants(x, range);
    *out = (uint64_t)n;
    return 0;
}

static int bool_of(struct xm *x, const struct pyvalue *v, bool *out)
{
    static const char *const words[][2] = { { "1", "0" }, { "yes", "no" }, { "true", "false" } };

    if ((v->type == PY_NUMBER || v->type == PY_BOOL) && (v->number == 0 || v->number == 1)) {
        *out = v->number == 1;
        return 0;
    }
    for (size_t i = 0; v->type == PY_TEXT && i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(v->text, words[i][0]) == 0 || strcasecmp(v->text, words[i][1]) == 0) {
            *out = strcasecmp(v->text, words[i][0]) == 0;
            return 0;
        }
    }
    return wants(x, "1 or 0");
}

static int set_field(struct xm *x, const struct pyvalue *v, char **field)
{
    char space[24];
    const char *text = text_of(x, v, space);

    if (text == NULL)
        return -1;
    return define_text(x->r, field, text);
}

/* ---- keys that are honoured ---- */

static int set_name(struct xm *x, const struct pyvalue *v)
{
    return set_field(x, v, &x->r->d->name);
}

static int set_uuid(struct xm *x, const struct pyvalue *v)
{
    return set_field(x, v, &x->r->d->uuid);
}

static int set_kernel(struct xm *x, const struct pyvalue *v)
{
    return set_field(x, v, &x->r->d->kernel);
}

static int set_title(struct xm *x, const struct pyvalue *v)
{
    return set_field(x, v, &x->r->d->title);
}

static int set_description(struct xm *x, const struct pyvalue *v)
{
    return set_field(x, v, &x->r->d->description);
}

static int set_metadata(struct xm *x, const struct pyvalue *v)
{
    return set_field(x, v, &x->r->d->metadata);
}

static int set_ramdisk(struct xm *x, const struct pyvalue *v)
{
    return set_field(x, v, &x->r->d->initrd);
}

static int set_mib(struct xm *x, const struct pyvalue *v, uint64_t *kib)
{
    uint64_t mib;

    if (number_of(x, v, 1, (long long)(DEFINE_MEMORY_MAX_KIB / 1024), &mib) < 0)
        return -1;
    *kib = mib * 1024;
    return 0;
}

static int set_memory(struct xm *x, const struct pyvalue *v)
{
    return set_mib(x, v, &x->r->d->memory_kib);
}

static int set_maxmem(struct xm *x, const struct pyvalue *v)
{
    return set_mib(x, v, &x->r->d->max_memory_kib);
}

static int set_vcpus(struct xm *x, const struct pyvalue *v)
{
    uint64_t n;

    if (number_of(x, v, 1, DEFINE_VCPUS_MAX, &n) < 0)
        return -1;
    x->r->d->vcpus = (uint32_t)n;
    return 0;
}

/* cpu = -1 means any. */
static int set_cpu(struct xm *x, const struct pyvalue *v)
{
    if (v->type == PY_NUMBER && v->number == -1)
        return define_text(x->r, &x->r->d->vcpu_pinning, "");
    return set_field(x, v, &x->r->d->vcpu_pinning);
}

/* "all" is any. */
static const char *cpus_of(struct xm *x, const struct pyvalue *v, char space[24])
{
    const char *text = text_of(x, v, space);

    return text != NULL && strcmp(text, "all") == 0 ? "" : text;
}

static void clear_pins(Migrd__Domain *d)
{
    for (size_t i = 0; i < d->n_vcpu_pins; i++)
        free(d->vcpu_pins[i]);
    free(d->vcpu_pins);
    d->vcpu_pins = NULL;
    d->n_vcpu_pins = 0;
}

/* One list for all, or a list for each vCPU, of which those behind the last are free. */
static int set_cpus(struct xm *x, const struct pyvalue *v)
{
    bool each = v->type == PY_LIST && v->first != NULL && v->first->next != NULL;
    const char *text;
    char space[24];
    unsigned i = 0;

    clear_pins(x->r->d);
    if (v->type == PY_LIST && v->first == NULL)
        return define_text(x->r, &x->r->d->vcpu_pinning, "");
    if (!each) {
        text = cpus_of(x, v->type == PY_LIST ? v->first : v, space);
        return text == NULL ? -1 : define_text(x->r, &x->r->d->vcpu_pinning, text);
    }
    for (const struct pyvalue *one = v->first; one != NULL; one = one->next, i++) {
        text = cpus_of(x, one, space);
        if (text == NULL)
            return -1;
        if (i >= DEFINE_VCPUS_MAX)
            return define_fault(
                x->r, x->line, ERR_INVALID, "cpus: more than %d vCPUs", DEFINE_VCPUS_MAX);
        if (hv_set_vcpu_pinning(x->r->d, i, text, x->r->e) < 0)
            return -1;
    }
    return define_text(x->r, &x->r->d->vcpu_pinning, "");
}

static int set_maxvcpus(struct xm *x, const struct pyvalue *v)
{
    uint64_t n;

    if (number_of(x, v, 1, DEFINE_VCPUS_MAX, &n) < 0)
        return -1;
    x->r->d->max_vcpus = (uint32_t)n;
    return 0;
}

static int set_weight(struct xm *x, const struct pyvalue *v)
{
    uint64_t n;

    if (number_of(x, v, 1, HV_WEIGHT_MAX, &n) < 0)
        return -1;
    define_set_sched(x->r->d, (unsigned)n, x->r->d->cpu_cap);
    return 0;
}

static int set_cap(struct xm *x, const struct pyvalue *v)
{
    uint64_t n;

    if (number_of(x, v, 0, HV_CAP_MAX, &n) < 0)
        return -1;
    x->r->d->cpu_cap = (uint32_t)n;
    return 0;
}

static int set_part(struct xm *x, const struct pyvalue *v, char **part)
{
    char space[24];
    const char *text = text_of(x, v, space);

    if (text == NULL)
        return -1;
    free(*part);
    *part = strdup(text);
    x->command_line_given = true;
    return *part == NULL ? define_no_memory(x->r) : 0;
}

static int set_root(struct xm *x, const struct pyvalue *v)
{
    return set_part(x, v, &x->root);
}

static int set_extra(struct xm *x, const struct pyvalue *v)
{
    return set_part(x, v, &x->extra);
}

static int set_cmdline(struct xm *x, const struct pyvalue *v)
{
    return set_part(x, v, &x->cmdline);
}

static int set_devices(struct xm *x, const struct pyvalue *v,
    int add(struct reader *r, unsigned line, const char *text))
{
    if (v->type == PY_TEXT) /* an override: disk=phy:/dev/x,xvda,w */
        return add(x->r, x->line, v->text);
    if (v->type != PY_LIST)
        return wants(x, "a list of texts, as [ '...', '...' ]");
    for (const struct pyvalue *m = v->first; m != NULL; m = m->next) {
        if (m->type != PY_TEXT)
            return wants(x, "a list of texts, as [ '...', '...' ]");
        if (add(x->r, x->line, m->text) < 0)
            return -1;
    }
    return 0;
}

static int set_disk(struct xm *x, const struct pyvalue *v)
{
    return set_devices(x, v, xm_add_disk);
}

static int set_vif(struct xm *x, const struct pyvalue *v)
{
    return set_devices(x, v, xm_add_vif);
}

static int set_event(struct xm *x, const struct pyvalue *v, Migrd__OnEvent *on)
{
    if (v->type != PY_TEXT)
        return wants(x, "destroy, restart or preserve");
    return define_on_event(x->r, x->line, x->key, v->text, on);
}

static int set_on_poweroff(struct xm *x, const struct pyvalue *v)
{
    return set_event(x, v, &x->r->d->on_poweroff);
}

static int set_on_reboot(struct xm *x, const struct pyvalue *v)
{
    return set_event(x, v, &x->r->d->on_reboot);
}

static int set_on_crash(struct xm *x, const struct pyvalue *v)
{
    return set_event(x, v, &x->r->d->on_crash);
}

static int set_on_watchdog(struct xm *x, const struct pyvalue *v)
{
    return set_event(x, v, &x->r->d->on_watchdog);
}

/* The old way to say all three. */
static int set_restart(struct xm *x, const struct pyvalue *v)
{
    const Migrd__OnEvent destroy = MIGRD__ON_EVENT__ON_DESTROY,
                         restart = MIGRD__ON_EVENT__ON_RESTART;
    const char *w = v->type == PY_TEXT ? v->text : "";
    Migrd__Domain *d = x->r->d;

    if (strcmp(w, "onreboot") != 0 && strcmp(w, "always") != 0 && strcmp(w, "never") != 0)
        return wants(x, "'onreboot', 'always' or 'never'");
    d->on_poweroff = d->on_crash = strcmp(w, "always") == 0 ? restart : destroy;
    d->on_reboot = strcmp(w, "never") == 0 ? destroy : restart;
    return 0;
}

/* Elsewhere than on Xen there is one type, which boots what pv and pvh guests boot. */
static int set_builder(struct xm *x, const struct pyvalue *v)
{
    static const struct {
        const char *word;
        Migrd__GuestType type;
    } types[] = {
        { "linux", MIGRD__GUEST_TYPE__GUEST_PV },
        { "generic", MIGRD__GUEST_TYPE__GUEST_PV },
        { "pv", MIGRD__GUEST_TYPE__GUEST_PV },
        { "pvh", MIGRD__GUEST_TYPE__GUEST_PVH },
        { "hvm", MIGRD__GUEST_TYPE__GUEST_HVM },
    };
    const char *word = v->type == PY_TEXT ? v->text : "";
    size_t i = 0, n = sizeof types / sizeof types[0];

    while (i < n && strcmp(types[i].word, word) != 0)
        i++;
    if (i == n)
        return wants(x, on_xen(x) ? "'pvh', 'pv' or 'hvm'" : "'linux' or 'generic'");
    if (on_xen(x))
        x->r->d->type = types[i].type;
    else if (types[i].type == MIGRD__GUEST_TYPE__GUEST_HVM)
        return define_fault(x->r, x->line, ERR_UNSUPPORTED,
            "%s = 'hvm' is not supported: there is no firmware and no emulated hardware; boot a "
            "Linux kernel directly (kernel=, ramdisk=, extra=)",
            x->key);
    return 0;
}

static int set_tsc_mode(struct xm *x, const struct pyvalue *v)
{
    static const char *const numbers[] = { "default", "always_emulate", "native",
        "native_paravirt" };
    char space[24];
    const char *word = text_of(x, v, space);

    if (word == NULL)
        return -1;
    if (word[0] >= '0' && word[0] <= '3' && word[1] == '\0') /* as xm had them */
        word = numbers[word[0] - '0'];
    if (on_xen(x))
        return define_tsc_mode(x->r, x->line, word, &x->r->d->tsc_mode);
    return strcmp(word, "default") == 0
               ? 0
               : define_fault(x->r, x->line, ERR_UNSUPPORTED,
                     "%s is not supported: the guest uses the kvm-clock", x->key);
}

static int set_bootloader(struct xm *x, const struct pyvalue *v)
{
    char space[24];
    const char *word = text_of(x, v, space);

    if (word == NULL || word[0] == '\0')
        return word == NULL ? -1 : define_text(x->r, &x->r->d->bootloader, "");
    return on_xen(x) ? define_bootloader(x->r, x->line, word, &x->r->d->bootloader)
                     : define_fault(x->r, x->line, ERR_UNSUPPORTED,
                           "%s is not supported: kernels are not taken out of disk images; set "
                           "kernel= and ramdisk=",
                           x->key);
}

static int set_bootloader_args(struct xm *x, const struct pyvalue *v)
{
    char space[24];
    const char *text;

    if (v->type != PY_LIST) {
        text = text_of(x, v, space);
        return text == NULL ? -1 : define_add_bootloader_args(x->r, text);
    }
    for (const struct pyvalue *m = v->first; m != NULL; m = m->next)
        if ((text = text_of(x, m, space)) == NULL || define_add_bootloader_arg(x->r, text) < 0)
            return -1;
    return 0;
}

static int set_boot(struct xm *x, const struct pyvalue *v)
{
    return set_field(x, v, &x->r->d->boot);
}

static int set_firmware(struct xm *x, const struct pyvalue *v)
{
    char space[24];
    const char *word = text_of(x, v, space);

    if (word == NULL || word[0] == '\0')
        return word == NULL ? -1 : 0;
    return define_firmware(x->r, x->line, word, &x->r->d->firmware);
}

static int set_hugepages(struct xm *x, const struct pyvalue *v)
{
    bool on;

    if (bool_of(x, v, &on) < 0)
        return -1;
    x->r->d->huge_pages = on;
    return 0;
}

static int set_rng(struct xm *x, const struct pyvalue *v)
{
    bool on;

    if (bool_of(x, v, &on) < 0)
        return -1;
    x->r->d->rng = on;
    return 0;
}

static int set_balloon(struct xm *x, const struct pyvalue *v)
{
    bool on;

    if (bool_of(x, v, &on) < 0)
        return -1;
    x->r->d->balloon = on;
    x->r->balloon_set = true;
    return 0;
}

/* "host" is the same as nothing. */
static int set_cpu_level(struct xm *x, const struct pyvalue *v)
{
    if (v->type == PY_TEXT && strcmp(v->text, "host") == 0)
        return define_text(x->r, &x->r->d->cpu_level, "");
    return set_field(x, v, &x->r->d->cpu_level);
}

static int set_hypervisor(struct xm *x, const struct pyvalue *v)
{
    if (v->type != PY_TEXT || (strcmp(v->text, "xvm") != 0 && strcmp(v->text, "xen") != 0))
        return wants(x, "'xvm' or 'xen'");
    return define_text(x->r, &x->r->d->hypervisor, v->text);
}

/* ---- the table ---- */

#define IN_EXTRA "write it into extra=, as ip=..., see the kernel's nfsroot documentation"
#define HVM_ONLY "it belongs to fully emulated machines (builder = 'hvm')"
static const char no_screen[] = "domains have no screen; use xm console";

struct xm_key {
    const char *name;
    xm_set *set;          /* NULL: not honoured */
    const char *reason;   /* then why */
    const char *harmless; /* a value that asks for nothing, beside 0, '', [] and None */
};

static const struct xm_key keys[] = {
    { "name", set_name, NULL, NULL },
    { "uuid", set_uuid, NULL, NULL },
    { "memory", set_memory, NULL, NULL },
    { "maxmem", set_maxmem, NULL, NULL },
    { "vcpus", set_vcpus, NULL, NULL },
    { "maxvcpus", set_maxvcpus, NULL, NULL },
    { "cpu_weight", set_weight, NULL, NULL },
    { "cpu_cap", set_cap, NULL, NULL },
    { "cpu", set_cpu, NULL, NULL },
    { "cpus", set_cpus, NULL, NULL },
    { "cpu_level", set_cpu_level, NULL, NULL },
    { "title", set_title, NULL, NULL },
    { "description", set_description, NULL, NULL },
    { "metadata", set_metadata, NULL, NULL },
    { "kernel", set_kernel, NULL, NULL },
    { "ramdisk", set_ramdisk, NULL, NULL },
    { "root", set_root, NULL, NULL },
    { "extra", set_extra, NULL, NULL },
    { "cmdline", set_cmdline, NULL, NULL },
    { "disk", set_disk, NULL, NULL },
    { "vif", set_vif, NULL, NULL },
    { "on_poweroff", set_on_poweroff, NULL, NULL },
    { "on_reboot", set_on_reboot, NULL, NULL },
    { "on_crash", set_on_crash, NULL, NULL },
    { "on_watchdog", set_on_watchdog, NULL, NULL },
    { "restart", set_restart, NULL, NULL },
    { "builder", set_builder, NULL, NULL },
    { "type", set_builder, NULL, NULL },
    { "hugepages", set_hugepages, NULL, NULL },
    { "rng", set_rng, NULL, NULL },
    { "balloon", set_balloon, NULL, NULL },
    { "hypervisor", set_hypervisor, NULL, NULL },
    { "bootloader", set_bootloader, NULL, NULL },
    { "bootloader_args", set_bootloader_args, NULL, NULL },
    { "bootargs", set_bootloader_args, NULL, NULL },
    { "tsc_mode", set_tsc_mode, NULL, NULL },
    { "boot", set_boot, HVM_ONLY, NULL },
    { "bios", set_firmware, HVM_ONLY, NULL },
    { "firmware", set_firmware, HVM_ONLY, NULL },

    { "acpi", NULL, HVM_ONLY, "1" },
    { "apic", NULL, HVM_ONLY, "1" },
    { "pae", NULL, HVM_ONLY, "1" },
    { "hap", NULL, HVM_ONLY, "1" },
    { "nx", NULL, HVM_ONLY, "1" },
    { "device_model", NULL, HVM_ONLY, NULL },
    { "device_model_version", NULL, "there is one device model, Xen's QEMU", "qemu-xen" },
    { "xen_platform_pci", NULL, HVM_ONLY, "1" },
    { "altp2m", NULL, "it cannot be migrated", "disabled" },
    { "nestedhvm", NULL, "a guest with guests of its own cannot be migrated", NULL },
    { "nomigrate", NULL, "domains are made to be migrated", NULL },
    { "claim_mode", NULL, "memory is always claimed", "1" },
    { "max_grant_frames", NULL, "Xen's default is used", NULL },
    { "max_maptrack_frames", NULL, "Xen's default is used", NULL },
    { "cpuid_faulting", NULL, "use cpu_level=", NULL },
    { "vnuma", NULL, "the guest has one node", NULL },
    { "dtdev", NULL, "a domain with a device of the host cannot migrate", NULL },
    { "p9", NULL, "a folder of the host does not move along; use a disk or NFS", NULL },
    { "pvcalls", NULL, "sockets of the host do not move along", NULL },
    { "channel", NULL, "there are no channels", NULL },
    { "usbctrl", NULL, "a domain with a device of the host cannot migrate", NULL },
    { "usbdev", NULL, "a domain with a device of the host cannot migrate", NULL },
    { "vsnd", NULL, no_screen, NULL },
    { "vdispl", NULL, no_screen, NULL },
    { "vga", NULL, no_screen, NULL },
    { "gfx_passthru", NULL, "a domain with a device of the host cannot migrate", NULL },
    { "on_soft_reset", NULL, "soft resets are not supported", "soft-reset" },
    { "viridian", NULL, HVM_ONLY, NULL },
    { "hpet", NULL, HVM_ONLY, NULL },
    { "timer_mode", NULL, HVM_ONLY, NULL },
    { "shadow_memory", NULL, HVM_ONLY, NULL },
    { "usb", NULL, HVM_ONLY, NULL },
    { "usbdevice", NULL, HVM_ONLY, NULL },
    { "soundhw", NULL, HVM_ONLY, NULL },
    { "fda", NULL, HVM_ONLY, NULL },
    { "fdb", NULL, HVM_ONLY, NULL },
    { "cdrom", NULL, HVM_ONLY, NULL },
    { "isa", NULL, HVM_ONLY, NULL },
    { "guest_os_type", NULL, HVM_ONLY, "default" },
    { "sdl", NULL, no_screen, NULL },
    { "vnc", NULL, no_screen, NULL },
    { "vfb", NULL, no_screen, NULL },
    { "opengl", NULL, no_screen, NULL },
    { "stdvga", NULL, no_screen, NULL },
    { "videoram", NULL, no_screen, NULL },
    { "spice", NULL, no_screen, NULL },
    { "vncconsole", NULL, no_screen, NULL },
    { "vncdisplay", NULL, no_screen, NULL },
    { "vnclisten", NULL, no_screen, NULL },
    { "vncpasswd", NULL, no_screen, NULL },
    { "vncunused", NULL, no_screen, "1" },
    { "vncviewer", NULL, no_screen, NULL },
    { "keymap", NULL, no_screen, NULL },
    { "xauthority", NULL, no_screen, NULL },
    { "display", NULL, no_screen, NULL },
    { "nographic", NULL, no_screen, "1" },
    { "serial", NULL, "the serial console is always a pty; use xm console", "pty" },
    { "monitor", NULL, "there is no such monitor; use migctl", NULL },
    { "localtime", NULL, "the guest's clock is UTC; set the time zone in the guest", NULL },
    { "rtc_timeoffset", NULL, "the guest's clock is UTC", NULL },
    { "tsc_native", NULL, "the guest uses the kvm-clock", "1" },
    { "vcpu_avail", NULL, "all vCPUs are there from the start; use vcpus= and maxvcpus=", NULL },
    { "cpuid", NULL, "use cpu_level=", NULL },
    { "cpuid_check", NULL, "use cpu_level=", NULL },
    { "bootentry", NULL, "there is no boot loader", NULL },
    { "features", NULL, "kernels are not patched at boot", NULL },
    { "pci", NULL, "a domain with a PCI device of the host cannot migrate", NULL },
    { "vscsi", NULL, "use disk=", NULL },
    { "vtpm", NULL, "there is no virtual TPM", NULL },
    { "vkb", NULL, no_screen, NULL },
    { "ioports", NULL, "a domain with ports of the host cannot migrate", NULL },
    { "irq", NULL, "a domain with interrupts of the host cannot migrate", NULL },
    { "iomem", NULL, "a domain with memory of the host cannot migrate", NULL },
    { "blkif", NULL, "there are no driver domains", NULL },
    { "netif", NULL, "there are no driver domains", NULL },
    { "tpmif", NULL, "there are no driver domains", NULL },
    { "driver_domain", NULL, "there are no driver domains", NULL },
    { "dhcp", NULL, IN_EXTRA, "off" },
    { "interface", NULL, IN_EXTRA, NULL },
    { "ip", NULL, IN_EXTRA, NULL },
    { "gateway", NULL, IN_EXTRA, NULL },
    { "netmask", NULL, IN_EXTRA, NULL },
    { "hostname", NULL, IN_EXTRA, NULL },
    { "nfs_server", NULL, IN_EXTRA, NULL },
    { "nfs_root", NULL, IN_EXTRA, NULL },
    { "on_xend_start", NULL, "domains are not started with the daemon", "ignore" },
    { "on_xend_stop", NULL, "domains go on when the daemon stops", "ignore" },
    { "access_control", NULL, "there are no security labels", NULL },
    { "seclabel", NULL, "there are no security labels", NULL },
    { "pool", NULL, "there are no CPU pools; use cpus=", "Pool-0" },
    { "vhpt", NULL, HVM_ONLY, NULL },
};

#define N_KEYS (sizeof keys / sizeof keys[0])

static bool asks_for_nothing(const struct xm_key *k, const struct pyvalue *v)
{
    char text[24];

    switch (v->type) {
    case PY_NONE:
        return true;
    case PY_LIST:
        return v->first == NULL;
    case PY_TEXT:
        return v->text[0] == '\0' || strcmp(v->text, "0") == 0 ||
               (k->harmless != NULL && strcmp(v->text, k->harmless) == 0);
    case PY_NUMBER:
    case PY_BOOL:
        snprintf(text, sizeof text, "%lld", v->number);
        return v->number == 0 || (k->harmless != NULL && strcmp(text, k->harmless) == 0);
    }
    return false;
}

static int unknown_key(struct xm *x)
{
    const char *names[N_KEYS], *near;

    for (size_t i = 0; i < N_KEYS; i++)
        names[i] = keys[i].name;
    near = nearest_word(x->key, names, N_KEYS);
    if (near != NULL)
        return define_fault(
            x->r, x->line, ERR_INVALID, "unknown key %s; did you mean %s?", x->key, near);
    return define_fault(
        x->r, x->line, ERR_INVALID, "unknown key %s; xm-domain(5) lists the known ones", x->key);
}

static bool is_hvm(const struct xm *x)
{
    return x->r->d->type == MIGRD__GUEST_TYPE__GUEST_HVM;
}

/* A screen in a file for Xen is no reason not to start the guest. */
static int refuse(struct xm *x, const struct xm_key *k)
{
    if (on_xen(x) && k->reason == no_screen) {
        define_note(x->r, x->line, "%s is left out: %s", x->key, k->reason);
        return 0;
    }
    return define_fault(
        x->r, x->line, ERR_UNSUPPORTED, "%s is not supported: %s", x->key, k->reason);
}

static int assign(struct xm *x, const struct pyvalue *v)
{
    for (size_t i = 0; i < N_KEYS; i++) {
        const struct xm_key *k = &keys[i];

        if (strcmp(k->name, x->key) != 0)
            continue;
        if (k->set == NULL || (k->reason != NULL && !is_hvm(x)))
            return asks_for_nothing(k, v) ? 0 : refuse(x, k);
        return v->type == PY_NONE ? 0 : k->set(x, v);
    }
    return unknown_key(x);
}

/* ---- text, overrides, command line ---- */

#define OVERRIDE_KEY 64

static const char *const kinds[] = { "hypervisor", "type", "builder" };
#define N_KINDS (sizeof kinds / sizeof kinds[0])

static bool is_kind(const char *key)
{
    for (size_t i = 0; i < N_KINDS; i++)
        if (strcmp(kinds[i], key) == 0)
            return true;
    return false;
}

static int assign_all(struct xm *x, const struct assignment *first)
{
    for (const struct assignment *a = first; a != NULL; a = a->next) {
        for (const struct assignment *b = first; b != a; b = b->next)
            if (strcmp(a->key, b->key) == 0)
                return define_fault(x->r, a->line, ERR_INVALID,
                    "%s was set in line %u already; remove one", a->key, b->line);
        x->line = a->line;
        x->key = a->key;
        if (!is_kind(a->key) && assign(x, a->value) < 0)
            return -1;
    }
    return 0;
}

/* The key of an override, and its value behind the '='. NULL and a fault. */
static const char *split_override(struct xm *x, const char *text, char key[OVERRIDE_KEY])
{
    const char *equals = strchr(text, '=');
    size_t len = equals == NULL ? 0 : (size_t)(equals - text);

    if (len == 0 || len >= OVERRIDE_KEY || strlen(text) > 4096) {
        define_fault(x->r, 0, ERR_INVALID, "\"%.60s\" is not of the form key=value", text);
        return NULL;
    }
    memcpy(key, text, len);
    key[len] = '\0';
    return equals + 1;
}

/* A value of the command line is Python if it begins like it, else taken as it is. */
static int override_value(struct xm *x, const char *text)
{
    struct pyvalue *v;
    int rc;

    if (text[0] == '[' || text[0] == '(' || text[0] == '\'' || text[0] == '"') {
        if (pyvalue_parse_one(x->r, text, &v) < 0)
            return -1;
    } else if ((v = pyvalue_plain(x->r, text)) == NULL) {
        return -1;
    }
    rc = assign(x, v);
    pyvalue_free(&v);
    return rc;
}

/* disk= and vif= replace the file's, but several on the command line add up. */
static void forget_list(struct xm *x, bool *disks, bool *vifs)
{
    if (strcmp(x->key, "disk") == 0 && !*disks) {
        define_clear_disks(x->r->d);
        *disks = true;
    } else if (strcmp(x->key, "vif") == 0 && !*vifs) {
        define_clear_vifs(x->r->d);
        *vifs = true;
    }
}

static int assign_overrides(struct xm *x, const char *const *overrides, size_t n)
{
    const char *file = x->r->file;
    bool disks = false, vifs = false;
    char key[OVERRIDE_KEY];
    const char *value;
    int rc = 0;

    x->r->file = "command line";
    x->line = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        value = split_override(x, overrides[i], key);
        if (value == NULL) {
            rc = -1;
            break;
        }
        x->key = key;
        forget_list(x, &disks, &vifs);
        if (!is_kind(key))
            rc = override_value(x, value);
    }
    x->r->file = file;
    return rc;
}

static int override_kind(struct xm *x, const char *kind, const char *const *overrides, size_t n)
{
    const char *file = x->r->file, *value;
    char key[OVERRIDE_KEY];
    int rc = 0;

    x->r->file = "command line";
    x->line = 0;
    x->key = kind;
    for (size_t i = 0; i < n && rc == 0; i++) {
        value = split_override(x, overrides[i], key);
        if (value == NULL)
            rc = -1;
        else if (strcmp(key, kind) == 0)
            rc = override_value(x, value);
    }
    x->r->file = file;
    return rc;
}

/* Hypervisor and type, before anything that depends on them. */
static int assign_kinds(
    struct xm *x, const struct assignment *all, const char *const *overrides, size_t n)
{
    for (size_t i = 0; i < N_KINDS; i++) {
        for (const struct assignment *a = all; a != NULL; a = a->next) {
            if (strcmp(a->key, kinds[i]) != 0)
                continue;
            x->line = a->line;
            x->key = a->key;
            if (assign(x, a->value) < 0)
                return -1;
        }
        if (override_kind(x, kinds[i], overrides, n) < 0 || define_fill_hypervisor(x->r) < 0)
            return -1;
    }
    return 0;
}

static int join_command_line(struct xm *x)
{
    size_t size;
    char *line;
    int rc;

    if (!x->command_line_given)
        return 0;
    if (x->cmdline != NULL) {
        if (x->root != NULL || x->extra != NULL)
            return define_fault(x->r, 0, ERR_INVALID,
                "cmdline= is the whole kernel command line; it does not go with root= or extra=");
        return define_text(x->r, &x->r->d->cmdline, x->cmdline);
    }
    size = 8 + (x->root != NULL ? strlen(x->root) : 0) + (x->extra != NULL ? strlen(x->extra) : 0);
    line = malloc(size);
    if (line == NULL)
        return define_no_memory(x->r);
    if (x->root == NULL || x->root[0] == '\0')
        snprintf(line, size, "%s", x->extra != NULL ? x->extra : "");
    else
        snprintf(line, size, "root=%s %s", x->root, x->extra != NULL ? x->extra : "");
    rc = define_text(x->r, &x->r->d->cmdline, line);
    free(line);
    return rc;
}

static void dispose(struct xm *x)
{
    free(x->root);
    free(x->extra);
    free(x->cmdline);
}

int define_read_xm(struct reader *r, const char *text, size_t len, const char *const *overrides,
    size_t n_overrides)
{
    struct xm x = { .r = r };
    struct assignment *all;
    int rc;

    if (pyvalue_parse(r, text, len, &all) < 0)
        return -1;
    r->d->memory_kib = 128 * 1024; /* xm's default */
    rc = assign_kinds(&x, all, overrides, n_overrides);
    if (rc == 0)
        rc = assign_all(&x, all);
    if (rc == 0)
        rc = assign_overrides(&x, overrides, n_overrides);
    if (rc == 0)
        rc = join_command_line(&x);
    pyvalue_free_all(&all);
    dispose(&x);
    return rc;
}

int define_override(struct reader *r, const char *const *overrides, size_t n_overrides)
{
    struct xm x = { .r = r };
    int rc = assign_kinds(&x, NULL, overrides, n_overrides);

    if (rc == 0)
        rc = assign_overrides(&x, overrides, n_overrides);
    if (rc == 0)
        rc = join_command_line(&x);
    dispose(&x);
    return rc;
}
