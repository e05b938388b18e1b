/* SPDX-License-Identifier: ISC */
/* What libvirt's domain XML says of boot, CPUs and memory. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/cpu_level.h"
#include "migrd/define/xml_node.h"

/* ---- os, cpu, memory ---- */

/* As libvirt's driver for Xen has it; "linux" is its old word for pv. */
static int read_xen_type(struct reader *r, xmlNode *n, const char *text)
{
    static const struct {
        const char *word, *machine;
        Migrd__GuestType type;
    } types[] = {
        { "linux", "xenpv", MIGRD__GUEST_TYPE__GUEST_PV },
        { "xen", "xenpv", MIGRD__GUEST_TYPE__GUEST_PV },
        { "xenpvh", "xenpvh", MIGRD__GUEST_TYPE__GUEST_PVH },
        { "hvm", "xenfv", MIGRD__GUEST_TYPE__GUEST_HVM },
    };

    for (size_t i = 0; i < XML_COUNT(types); i++)
        if (strcmp(types[i].word, text) == 0) {
            r->d->type = types[i].type;
            return xml_want_attr(r, n, "machine", types[i].machine);
        }
    return define_fault(r, xml_line_of(n), ERR_UNSUPPORTED,
        "<type>%.40s</type> is not supported; use xenpvh, xen or hvm", text);
}

static int read_os_type(struct reader *r, xmlNode *n, void *object)
{
    char *text;
    int rc = 0;

    (void)object;
    if (xml_want_attr(r, n, "arch", define_is_xen(r->d) ? "x86_64 i686" : "x86_64") < 0)
        return -1;
    text = xml_get_text(r, n);
    if (text == NULL)
        return -1;
    if (define_is_xen(r->d))
        rc = read_xen_type(r, n, text);
    else if (!xml_in_words("hvm linux xen xenpvh xvm", text))
        rc = define_fault(r, xml_line_of(n), ERR_UNSUPPORTED,
            "<type>%.40s</type> is not supported; use linux", text);
    free(text);
    return rc;
}

static int read_kernel(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return xml_set_text(r, n, &r->d->kernel);
}

static int read_initrd(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return xml_set_text(r, n, &r->d->initrd);
}

static int read_cmdline(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return xml_set_text(r, n, &r->d->cmdline);
}

#define NO_FIRMWARE "there is no firmware; kernels are booted directly"

/* An hvm guest has one of Xen's two; their paths are not the definition's business. */
static int read_loader(struct reader *r, xmlNode *n, void *object)
{
    char *text;
    int rc = 0;

    (void)object;
    if (!define_is_xen(r->d))
        return define_fault(
            r, xml_line_of(n), ERR_UNSUPPORTED, "<loader> in <os> is not supported: " NO_FIRMWARE);
    text = xml_get_text(r, n);
    if (text == NULL)
        return -1;
    if (strcasestr(text, "ovmf") != NULL)
        rc = define_text(r, &r->d->firmware, "ovmf");
    else if (text[0] != '\0' && strstr(text, "hvmloader") == NULL)
        rc = define_fault(r, xml_line_of(n), ERR_UNSUPPORTED,
            "<loader>%.60s</loader> is not supported: it is hvmloader, or ovmf", text);
    free(text);
    return rc;
}

/* Order of the devices of an hvm guest. */
static int read_boot(struct reader *r, xmlNode *n, void *object)
{
    char dev[XML_ATTR_MAX], order[16];

    (void)object;
    if (!define_is_xen(r->d))
        return 0;
    if (xml_need_attr(r, n, "dev", dev) < 0 || xml_want_attr(r, n, "dev", "hd cdrom network") < 0)
        return -1;
    if (strlen(r->d->boot) >= 3)
        return define_fault(r, xml_line_of(n), ERR_INVALID, "<boot> is there four times");
    snprintf(order, sizeof order, "%.3s%c", r->d->boot,
        strcmp(dev, "hd") == 0      ? 'c'
        : strcmp(dev, "cdrom") == 0 ? 'd'
                                    : 'n');
    return define_text(r, &r->d->boot, order);
}

/* Only an hvm guest takes note of it; what virt-install writes for others is harmless. */
static int finish_os(struct reader *r, xmlNode *n)
{
    char firmware[XML_ATTR_MAX];

    if (r->d->type != MIGRD__GUEST_TYPE__GUEST_HVM)
        return define_text(r, &r->d->boot, "");
    if (xml_get_attr(r, n, "firmware", firmware) < 0)
        return -1;
    return firmware[0] == '\0' ? 0 : define_firmware(r, xml_line_of(n), firmware, &r->d->firmware);
}

static const struct xml_rule os_rules[] = {
    { "type", "arch machine", read_os_type, NULL, false },
    { "kernel", "", read_kernel, NULL, false },
    { "initrd", "", read_initrd, NULL, false },
    { "cmdline", "", read_cmdline, NULL, false },
    { "boot", "dev", read_boot, NULL, true },
    { "loader", "type readonly secure", read_loader, NULL, false },
    { "nvram", "", NULL, NO_FIRMWARE, false },
    { "firmware", "", NULL, NO_FIRMWARE, false },
    { "bios", "", NULL, NO_FIRMWARE, false },
    { "bootmenu", "", NULL, NO_FIRMWARE, false },
    { "smbios", "", NULL, NO_FIRMWARE, false },
    { "init", "", NULL, "this is for containers", true },
};

int xml_read_os(struct reader *r, xmlNode *n, void *object)
{
    if (xml_walk(r, n, os_rules, XML_COUNT(os_rules), object) < 0)
        return -1;
    return finish_os(r, n);
}

static int read_topology(struct reader *r, xmlNode *n, void *object)
{
    static const char *const parts[] = { "sockets", "dies", "clusters", "cores", "threads" };
    char value[XML_ATTR_MAX];
    unsigned long product = 1;

    (void)object;
    for (size_t i = 0; i < XML_COUNT(parts); i++) {
        int rc = xml_get_attr(r, n, parts[i], value);

        if (rc < 0)
            return -1;
        if (rc == 1)
            product *= strlen(value) < 4 ? strtoul(value, NULL, 10) : 0;
    }
    /* <vcpu> comes before <cpu> wherever libvirt writes it; 0 is then its default, 1. */
    if (product != (r->d->vcpus != 0 ? define_max_vcpus(r->d) : 1))
        return define_fault(r, xml_line_of(n), ERR_UNSUPPORTED,
            "<topology> has %lu CPUs, <vcpu> %u: they must be the same", product,
            define_max_vcpus(r->d));
    return 0;
}

/* A CPU level as <cpu> tells it: the model (or "host"), and its features behind it. */
struct cpu_text {
    bool custom, has_model;
    char level[CPU_LEVEL_MAX], features[CPU_LEVEL_MAX];
};

static int read_cpu_model(struct reader *r, xmlNode *n, void *object)
{
    struct cpu_text *c = object;
    char *text = xml_get_text(r, n);
    int rc = 0;

    if (text == NULL)
        return -1;
    c->has_model = true;
    if (c->custom && (strncmp(text, "x86-64-v", 8) != 0 || strlen(text) != 9))
        rc = define_fault(r, xml_line_of(n), ERR_UNSUPPORTED,
            "<model>%.40s</model> is not supported; use x86-64-v1 to x86-64-v4", text);
    else if (c->custom)
        snprintf(c->level, sizeof c->level, "%s", text);
    free(text);
    return rc;
}

static int read_cpu_feature(struct reader *r, xmlNode *n, void *object)
{
    char name[XML_ATTR_MAX], policy[XML_ATTR_MAX];
    struct cpu_text *c = object;
    size_t at = strlen(c->features);

    if (xml_need_attr(r, n, "name", name) < 0 || xml_need_attr(r, n, "policy", policy) < 0 ||
        xml_want_attr(r, n, "policy", "require disable") < 0)
        return -1;
    if (strchr(name, ',') != NULL || at + strlen(name) + 3 > sizeof c->features)
        return define_fault(r, xml_line_of(n), ERR_INVALID,
            "<feature name='%.40s'>: no such feature, or too many of them", name);
    snprintf(c->features + at, sizeof c->features - at, ",%c%s",
        strcmp(policy, "disable") == 0 ? '-' : '+', name);
    return 0;
}

static const struct xml_rule cpu_rules[] = {
    { "topology", "sockets dies clusters cores threads", read_topology, NULL, false },
    { "model", "fallback", read_cpu_model, NULL, false },
    { "feature", "name policy", read_cpu_feature, NULL, true },
    { "numa", "", NULL, "the guest has one node", false },
    { "cache", "", NULL, "the guest sees the host's", false },
};

/* <topology> is the same without a mode; then only a model says that it is a custom one. */
static bool is_custom(xmlNode *n, const char *mode)
{
    if (mode[0] != '\0')
        return strcmp(mode, "custom") == 0;
    for (const xmlNode *c = n->children; c != NULL; c = c->next)
        if (c->type == XML_ELEMENT_NODE && strcmp(xml_name_of(c), "model") == 0)
            return true;
    return false;
}

static int set_cpu_level(struct reader *r, xmlNode *n, const struct cpu_text *c)
{
    char level[2 * CPU_LEVEL_MAX];

    if (c->custom && !c->has_model)
        return define_fault(r, xml_line_of(n), ERR_INVALID, "<cpu mode='custom'> has no <model>");
    if (!c->custom && c->features[0] == '\0')
        return 0; /* a level in <metadata> stays */
    if (r->d->cpu_level[0] != '\0')
        return define_fault(r, xml_line_of(n), ERR_INVALID,
            "<cpu> chooses features, and <metadata> has a level; remove one of them");
    snprintf(level, sizeof level, "%s%s", c->custom ? c->level : "host", c->features);
    return define_text(r, &r->d->cpu_level, level);
}

int xml_read_cpu(struct reader *r, xmlNode *n, void *object)
{
    struct cpu_text c = { .custom = false };
    char mode[XML_ATTR_MAX];

    (void)object;
    if (xml_want_attr(r, n, "mode", "host-passthrough host-model maximum custom") < 0 ||
        xml_want_attr(r, n, "match", "exact") < 0 || xml_get_attr(r, n, "mode", mode) < 0)
        return -1;
    c.custom = is_custom(n, mode);
    if (xml_walk(r, n, cpu_rules, XML_COUNT(cpu_rules), &c) < 0)
        return -1;
    return set_cpu_level(r, n, &c);
}

static int unit_factor(struct reader *r, xmlNode *n, uint64_t *bytes)
{
    static const struct {
        const char *names;
        uint64_t bytes;
    } units[] = { { "b bytes", 1 }, { "KB", 1000 }, { "k K KiB", 1024 }, { "MB", 1000000 },
        { "M MiB", 1 << 20 }, { "GB", 1000000000 }, { "G GiB", 1 << 30 },
        { "TB", UINT64_C(1000000000000) }, { "T TiB", UINT64_C(1) << 40 } };
    char unit[XML_ATTR_MAX];
    int rc = xml_get_attr(r, n, "unit", unit);

    *bytes = 1024;
    if (rc <= 0)
        return rc;
    for (size_t i = 0; i < XML_COUNT(units); i++)
        if (xml_in_words(units[i].names, unit)) {
            *bytes = units[i].bytes;
            return 0;
        }
    return define_fault(r, xml_line_of(n), ERR_INVALID,
        "<%s unit='%.20s'>: this unit is not known; use KiB, MiB or GiB", xml_name_of(n), unit);
}

/* KiB, rounded up as libvirt does. */
static int get_memory(struct reader *r, xmlNode *n, uint64_t *kib)
{
    char *text = xml_get_text(r, n), *end;
    uint64_t number, factor;
    int rc = -1;

    if (text == NULL)
        return -1;
    if (unit_factor(r, n, &factor) < 0)
        goto out;
    errno = 0;
    number = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno != 0 || number == 0 ||
        number > (DEFINE_MEMORY_MAX_KIB << 10) / factor) {
        define_fault(r, xml_line_of(n), ERR_INVALID,
            "<%s>%.30s</%s> is not an amount of memory from 1 byte to 16 TiB", xml_name_of(n), text,
            xml_name_of(n));
        goto out;
    }
    *kib = (number * factor + 1023) / 1024;
    rc = 0;
out:
    free(text);
    return rc;
}

int xml_read_memory(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return get_memory(r, n, &r->d->max_memory_kib);
}

int xml_read_current_memory(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return get_memory(r, n, &r->d->memory_kib);
}

static int read_page(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    if (xml_want_attr(r, n, "size", "2 2048 2097152") < 0)
        return -1;
    return xml_want_attr(r, n, "unit", "b bytes k K KiB M MiB");
}

static const struct xml_rule huge_rules[] = { { "page", "size unit", read_page, NULL, false } };

static int read_huge(struct reader *r, xmlNode *n, void *object)
{
    r->d->huge_pages = true;
    return xml_walk(r, n, huge_rules, XML_COUNT(huge_rules), object);
}

static int read_memory_source(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return xml_want_attr(r, n, "type", "memfd");
}

static int read_access(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return xml_want_attr(r, n, "mode", "shared");
}

static const struct xml_rule backing_rules[] = {
    { "hugepages", "", read_huge, NULL, false },
    { "source", "type", read_memory_source, NULL, false },
    { "access", "mode", read_access, NULL, false },
    { "nosharepages", "", NULL, NULL, false },
    { "locked", "", NULL, "guest memory is not locked", false },
    { "allocation", "", NULL, "guest memory is allocated as it is used", false },
};

int xml_read_backing(struct reader *r, xmlNode *n, void *object)
{
    return xml_walk(r, n, backing_rules, XML_COUNT(backing_rules), object);
}
