/* SPDX-License-Identifier: ISC */
/*
 * libvirt's domain XML. For each element that may have children there is a table of
 * those we know: read, harmless (it asks for nothing that could be lost: wiring, hints,
 * notes), or refused with a reason. Attributes are listed as well. Whatever is in no
 * table is refused by name and line, so that no wish of the author is dropped in silence.
 *
 * Bytes may come from anywhere: no DTD (hence no entities), no network, no files, at most
 * DEFINE_TEXT_MAX bytes, libxml2's own limit on depth; the tables go five levels deep.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libxml/parser.h>
#include <libxml/tree.h>

#include "hypervisor/cpu_level.h"
#include "migrd/define/internal.h"

#define ATTR_MAX 1024

typedef int read_fn(struct reader *r, xmlNode *n, void *object);

struct rule {
    const char *name;
    const char *attrs;   /* those allowed, separated by blanks */
    read_fn *read;       /* NULL: harmless */
    const char *refused; /* the reason; then the rest does not matter */
    bool many;           /* may be there several times */
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define WIRING                                                                                     \
    { "alias", "name", NULL, NULL, false },                                                        \
    {                                                                                              \
        "address", "*", NULL, NULL, false                                                          \
    }

/* ---- nodes ---- */

static unsigned line_of(const xmlNode *n)
{
    return (unsigned)xmlGetLineNo(n);
}

static const char *name_of(const xmlNode *n)
{
    return (const char *)n->name;
}

static bool in_words(const char *words, const char *w)
{
    size_t n = strlen(w);

    if (n == 0 || strchr(w, ' ') != NULL)
        return false;
    for (const char *p = strstr(words, w); p != NULL; p = strstr(p + 1, w))
        if ((p == words || p[-1] == ' ') && (p[n] == '\0' || p[n] == ' '))
            return true;
    return false;
}

/* 1 and the value, 0 if there is no such attribute, -1. */
static int get_attr(struct reader *r, xmlNode *n, const char *name, char out[ATTR_MAX])
{
    xmlChar *value = xmlGetNoNsProp(n, (const xmlChar *)name);
    int rc = 1;

    out[0] = '\0';
    if (value == NULL)
        return 0;
    if (strlen((char *)value) >= ATTR_MAX)
        rc = define_fault(
            r, line_of(n), ERR_INVALID, "<%.40s %s=...>: the value is too long", name_of(n), name);
    else
        strcpy(out, (char *)value);
    xmlFree(value);
    return rc;
}

/* The attribute is absent or one of the words. */
static int want_attr(struct reader *r, xmlNode *n, const char *name, const char *words)
{
    char value[ATTR_MAX];
    int rc = get_attr(r, n, name, value);

    if (rc <= 0 || in_words(words, value))
        return rc < 0 ? -1 : 0;
    return define_fault(r, line_of(n), ERR_UNSUPPORTED,
        "<%.40s %s='%.40s'> is not supported; supported: %s", name_of(n), name, value, words);
}

static int need_attr(struct reader *r, xmlNode *n, const char *name, char out[ATTR_MAX])
{
    int rc = get_attr(r, n, name, out);

    if (rc == 0)
        return define_fault(
            r, line_of(n), ERR_INVALID, "<%.40s> has no attribute %s", name_of(n), name);
    return rc < 0 ? -1 : 0;
}

/* The text of an element without children, blanks around it cut; malloc'ed, NULL on failure. */
static char *get_text(struct reader *r, xmlNode *n)
{
    xmlChar *content;
    char *text, *begin;
    size_t len;

    for (const xmlNode *c = n->children; c != NULL; c = c->next)
        if (c->type == XML_ELEMENT_NODE) {
            define_fault(r, line_of(c), ERR_INVALID,
                "<%.40s> has text, not elements such as <%.40s>", name_of(n), name_of(c));
            return NULL;
        }
    content = xmlNodeGetContent(n);
    if (content == NULL) {
        define_no_memory(r);
        return NULL;
    }
    begin = (char *)content;
    while (isspace((unsigned char)*begin))
        begin++;
    len = strlen(begin);
    while (len > 0 && isspace((unsigned char)begin[len - 1]))
        len--;
    text = strndup(begin, len);
    xmlFree(content);
    if (text == NULL)
        define_no_memory(r);
    return text;
}

static int set_text(struct reader *r, xmlNode *n, char **field)
{
    char *text = get_text(r, n);
    int rc = text == NULL ? -1 : define_text(r, field, text);

    free(text);
    return rc;
}

/* ---- walking ---- */

static int check_attrs(struct reader *r, xmlNode *n, const char *allowed)
{
    if (strcmp(allowed, "*") == 0)
        return 0;
    for (const xmlAttr *a = n->properties; a != NULL; a = a->next)
        if (a->ns != NULL || !in_words(allowed, (const char *)a->name))
            return define_fault(r, line_of(n), ERR_UNSUPPORTED,
                "<%.40s %.40s=...>: this attribute is not supported", name_of(n),
                (const char *)a->name);
    return 0;
}

static bool is_blank_text(const xmlNode *n)
{
    for (const xmlChar *p = n->content; p != NULL && *p != '\0'; p++)
        if (!isspace(*p))
            return false;
    return true;
}

static bool came_before(const xmlNode *n)
{
    for (const xmlNode *p = n->prev; p != NULL; p = p->prev)
        if (p->type == XML_ELEMENT_NODE && xmlStrEqual(p->name, n->name))
            return true;
    return false;
}

static int read_element(
    struct reader *r, xmlNode *n, const struct rule *rules, size_t count, void *object)
{
    const char *parent = name_of(n->parent);

    if (n->ns != NULL && n->ns->prefix != NULL)
        return define_fault(r, line_of(n), ERR_UNSUPPORTED, "<%.40s:%.40s> is not supported",
            (const char *)n->ns->prefix, name_of(n));
    for (size_t i = 0; i < count; i++) {
        const struct rule *u = &rules[i];

        if (strcmp(u->name, name_of(n)) != 0)
            continue;
        if (u->refused != NULL)
            return define_fault(r, line_of(n), ERR_UNSUPPORTED, "<%s> in <%s> is not supported: %s",
                u->name, parent, u->refused);
        if (!u->many && came_before(n))
            return define_fault(
                r, line_of(n), ERR_INVALID, "<%s> is there twice in <%s>", u->name, parent);
        if (check_attrs(r, n, u->attrs) < 0)
            return -1;
        return u->read == NULL ? 0 : u->read(r, n, object);
    }
    return define_fault(
        r, line_of(n), ERR_UNSUPPORTED, "<%.40s> in <%.40s> is not supported", name_of(n), parent);
}

static int walk(
    struct reader *r, xmlNode *parent, const struct rule *rules, size_t count, void *object)
{
    for (xmlNode *n = parent->children; n != NULL; n = n->next) {
        if (n->type == XML_ELEMENT_NODE) {
            if (read_element(r, n, rules, count, object) < 0)
                return -1;
        } else if ((n->type == XML_TEXT_NODE || n->type == XML_CDATA_SECTION_NODE) &&
                   !is_blank_text(n)) {
            return define_fault(
                r, line_of(n), ERR_INVALID, "there is text in <%.40s>", name_of(parent));
        } else if (n->type == XML_ENTITY_REF_NODE) {
            return define_fault(r, line_of(n), ERR_UNSUPPORTED, "entities are not supported");
        }
    }
    return 0;
}

/* ---- disk ---- */

static int read_disk_driver(struct reader *r, xmlNode *n, void *object)
{
    char cache[ATTR_MAX], policy[ATTR_MAX];
    Migrd__Disk *k = object;

    if (want_attr(r, n, "type", "raw") < 0 || get_attr(r, n, "cache", cache) < 0 ||
        get_attr(r, n, "error_policy", policy) < 0)
        return -1;
    if (cache[0] != '\0' && define_cache(r, line_of(n), cache, &k->cache) < 0)
        return -1;
    return policy[0] == '\0' ? 0
                             : define_io_error(
                                   r, line_of(n), "error_policy", policy, &k->on_io_error);
}

static int read_source_host(struct reader *r, xmlNode *n, void *object)
{
    char host[ATTR_MAX], port[ATTR_MAX];
    struct define_source *s = object;

    if (want_attr(r, n, "transport", "tcp") < 0 || need_attr(r, n, "name", host) < 0 ||
        get_attr(r, n, "port", port) < 0)
        return -1;
    if (strpbrk(host, "/?@[]") != NULL || strlen(port) >= sizeof s->port)
        return define_fault(r, line_of(n), ERR_INVALID, "<host name='%.60s' port='%.20s'> is none",
            host, port);
    strcpy(s->host, host);
    strcpy(s->port, port);
    return 0;
}

static int read_auth_secret(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return want_attr(r, n, "type", "iscsi") < 0 ? -1 : want_attr(r, n, "usage", "storage-secrets");
}

static const struct rule auth_rules[] = {
    { "secret", "type usage", read_auth_secret, NULL, false },
};

static int read_source_auth(struct reader *r, xmlNode *n, void *object)
{
    char user[ATTR_MAX];
    struct define_source *s = object;

    if (need_attr(r, n, "username", user) < 0)
        return -1;
    if (strpbrk(user, "/?") != NULL)
        return define_fault(
            r, line_of(n), ERR_INVALID, "<auth username='%.60s'>: no user's name", user);
    strcpy(s->user, user);
    return walk(r, n, auth_rules, COUNT(auth_rules), NULL);
}

static const struct rule network_rules[] = {
    { "host", "name port transport", read_source_host, NULL, false },
    { "auth", "username", read_source_auth, NULL, false },
};

static int read_network_source(struct reader *r, xmlNode *n, Migrd__Disk *k)
{
    struct define_source s = { .host = "" };
    char protocol[ATTR_MAX];

    if (check_attrs(r, n, "protocol name query") < 0 ||
        need_attr(r, n, "protocol", protocol) < 0 ||
        want_attr(r, n, "protocol", "nfs iscsi") < 0 || need_attr(r, n, "name", s.name) < 0 ||
        get_attr(r, n, "query", s.query) < 0 ||
        walk(r, n, network_rules, COUNT(network_rules), &s) < 0)
        return -1;
    s.protocol = strcmp(protocol, "nfs") == 0 ? "nfs" : "iscsi";
    if (s.host[0] == '\0')
        return define_fault(r, line_of(n), ERR_INVALID, "<source> has no <host>");
    if (strcmp(protocol, "nfs") == 0 && s.name[0] != '/')
        return define_fault(r, line_of(n), ERR_INVALID,
            "<source protocol='nfs' name='%.60s'> must begin with '/'", s.name);
    return define_source_join(r, line_of(n), &s, &k->source);
}

static int read_adapter(struct reader *r, xmlNode *n, void *object)
{
    char wwnn[ATTR_MAX], wwpn[ATTR_MAX], text[2 * ATTR_MAX + 2];

    if (want_attr(r, n, "type", "fc_host") < 0 || need_attr(r, n, "wwnn", wwnn) < 0 ||
        need_attr(r, n, "wwpn", wwpn) < 0)
        return -1;
    snprintf(text, sizeof text, "%s:%s", wwpn, wwnn);
    return define_text(r, &((Migrd__Disk *)object)->npiv, text);
}

static const struct rule source_rules[] = {
    { "adapter", "type wwnn wwpn", read_adapter, NULL, false },
};

static int read_disk_source(struct reader *r, xmlNode *n, void *object)
{
    char type[ATTR_MAX], path[ATTR_MAX];
    Migrd__Disk *k = object;

    if (need_attr(r, n->parent, "type", type) < 0)
        return -1;
    if (strcmp(type, "network") == 0)
        return read_network_source(r, n, k);
    if (check_attrs(r, n, "file dev index startupPolicy") < 0 ||
        need_attr(r, n, strcmp(type, "block") == 0 ? "dev" : "file", path) < 0 ||
        define_text(r, &k->source, path) < 0)
        return -1;
    if (path[0] != '/')
        return define_fault(r, line_of(n), ERR_INVALID,
            "<source> of type %s: %.100s must be an absolute path", type, path);
    return walk(r, n, source_rules, COUNT(source_rules), k);
}

static int read_disk_wwn(struct reader *r, xmlNode *n, void *object)
{
    return set_text(r, n, &((Migrd__Disk *)object)->wwn);
}

static int read_disk_target(struct reader *r, xmlNode *n, void *object)
{
    Migrd__Disk *k = object;
    char dev[ATTR_MAX];

    if (need_attr(r, n, "dev", dev) < 0 || want_attr(r, n, "bus", "virtio xen") < 0)
        return -1;
    return define_text(r, &k->device, dev);
}

static int read_disk_serial(struct reader *r, xmlNode *n, void *object)
{
    return set_text(r, n, &((Migrd__Disk *)object)->serial);
}

static int read_readonly(struct reader *r, xmlNode *n, void *object)
{
    (void)r;
    (void)n;
    ((Migrd__Disk *)object)->read_only = true;
    return 0;
}

static int read_backing_store(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    if (xmlFirstElementChild(n) != NULL)
        return define_fault(r, line_of(n), ERR_UNSUPPORTED,
            "<backingStore>: images with a backing file are not supported");
    return 0;
}

static const struct rule disk_rules[] = {
    { "driver", "name type cache io discard detect_zeroes error_policy queues", read_disk_driver,
        NULL, false },
    { "source", "*", read_disk_source, NULL, false },
    { "target", "dev bus", read_disk_target, NULL, false },
    { "serial", "", read_disk_serial, NULL, false },
    { "wwn", "", read_disk_wwn, NULL, false },
    { "readonly", "", read_readonly, NULL, false },
    { "backingStore", "", read_backing_store, NULL, false },
    { "boot", "order", NULL, NULL, false },
    { "shareable", "", NULL, "a disk that is written by several domains would be destroyed",
        false },
    WIRING,
};

static int read_disk(struct reader *r, xmlNode *n, void *object)
{
    char type[ATTR_MAX];
    Migrd__Disk *k;

    (void)object;
    if (need_attr(r, n, "type", type) < 0 || want_attr(r, n, "type", "file block network") < 0 ||
        want_attr(r, n, "device", "disk") < 0)
        return -1;
    k = define_add_disk(r);
    if (k == NULL || walk(r, n, disk_rules, COUNT(disk_rules), k) < 0)
        return -1;
    if (k->source[0] == '\0' || k->device[0] == '\0')
        return define_fault(r, line_of(n), ERR_INVALID, "<disk> has no <%s>",
            k->source[0] == '\0' ? "source" : "target");
    return 0;
}

/* ---- interface ---- */

static int read_mac(struct reader *r, xmlNode *n, void *object)
{
    char value[ATTR_MAX];

    if (need_attr(r, n, "address", value) < 0)
        return -1;
    return define_text(r, &((Migrd__Vif *)object)->mac, value);
}

static int read_vif_source(struct reader *r, xmlNode *n, void *object)
{
    char value[ATTR_MAX];

    if (need_attr(r, n, "bridge", value) < 0)
        return -1;
    return define_text(r, &((Migrd__Vif *)object)->bridge, value);
}

static int read_vif_target(struct reader *r, xmlNode *n, void *object)
{
    char value[ATTR_MAX];

    if (need_attr(r, n, "dev", value) < 0)
        return -1;
    return define_text(r, &((Migrd__Vif *)object)->ifname, value);
}

static int read_vif_model(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return want_attr(r, n, "type", "virtio netfront");
}

static int read_mtu(struct reader *r, xmlNode *n, void *object)
{
    char value[ATTR_MAX], *end;
    unsigned long mtu;

    if (need_attr(r, n, "size", value) < 0)
        return -1;
    mtu = strtoul(value, &end, 10);
    if (!isdigit((unsigned char)value[0]) || *end != '\0' || mtu < 68 || mtu > 65535)
        return define_fault(
            r, line_of(n), ERR_INVALID, "<mtu size='%.20s'> must be from 68 to 65535", value);
    ((Migrd__Vif *)object)->mtu = (uint32_t)mtu;
    return 0;
}

static int read_link(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return want_attr(r, n, "state", "up");
}

static const struct rule vif_rules[] = {
    { "mac", "address", read_mac, NULL, false },
    { "source", "bridge", read_vif_source, NULL, false },
    { "target", "dev managed", read_vif_target, NULL, false },
    { "model", "type", read_vif_model, NULL, false },
    { "mtu", "size", read_mtu, NULL, false },
    { "link", "state", read_link, NULL, false },
    { "driver", "name", NULL, NULL, false },
    { "boot", "order", NULL, NULL, false },
    WIRING,
};

static int read_interface(struct reader *r, xmlNode *n, void *object)
{
    char type[ATTR_MAX];
    Migrd__Vif *v;

    (void)object;
    if (need_attr(r, n, "type", type) < 0)
        return -1;
    if (strcmp(type, "network") == 0)
        return define_fault(r, line_of(n), ERR_UNSUPPORTED,
            "<interface type='network'> is not supported: there are no virtual networks; name the "
            "bridge: <interface type='bridge'><source bridge='virbr0'/>");
    if (want_attr(r, n, "type", "bridge ethernet") < 0)
        return -1;
    v = define_add_vif(r);
    if (v == NULL || walk(r, n, vif_rules, COUNT(vif_rules), v) < 0)
        return -1;
    if ((strcmp(type, "bridge") == 0) != (v->bridge[0] != '\0'))
        return define_fault(r, line_of(n), ERR_INVALID, "<interface type='%s'> %s", type,
            v->bridge[0] == '\0' ? "has no <source bridge=...>" : "has no <source>");
    return 0;
}

/* ---- other devices ---- */

static int read_rng_backend(struct reader *r, xmlNode *n, void *object)
{
    char *text;
    int rc = 0;

    (void)object;
    if (want_attr(r, n, "model", "random builtin") < 0)
        return -1;
    text = get_text(r, n);
    if (text == NULL)
        return -1;
    if (text[0] != '\0' && !in_words("/dev/urandom /dev/random", text))
        rc = define_fault(r, line_of(n), ERR_UNSUPPORTED,
            "<backend>%.60s</backend> is not supported; use /dev/urandom", text);
    free(text);
    return rc;
}

static const struct rule rng_rules[] = {
    { "backend", "model", read_rng_backend, NULL, false },
    WIRING,
};

static int read_rng(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    if (want_attr(r, n, "model", "virtio") < 0)
        return -1;
    r->d->rng = true;
    return walk(r, n, rng_rules, COUNT(rng_rules), NULL);
}

static const struct rule balloon_rules[] = {
    { "stats", "period", NULL, NULL, false },
    WIRING,
};

static int read_balloon(struct reader *r, xmlNode *n, void *object)
{
    char model[ATTR_MAX];

    (void)object;
    if (need_attr(r, n, "model", model) < 0 || want_attr(r, n, "model", "virtio xen none") < 0)
        return -1;
    r->balloon_set = true;
    r->d->balloon = strcmp(model, "none") != 0;
    return walk(r, n, balloon_rules, COUNT(balloon_rules), NULL);
}

static int read_console_target(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return want_attr(r, n, "type", "serial xen isa-serial");
}

static const struct rule console_rules[] = {
    { "source", "path", NULL, NULL, false },
    { "target", "type port", read_console_target, NULL, false },
    WIRING,
};

static int read_console(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    if (want_attr(r, n, "type", "pty") < 0)
        return -1;
    return walk(r, n, console_rules, COUNT(console_rules), NULL);
}

static int read_controller(struct reader *r, xmlNode *n, void *object)
{
    char type[ATTR_MAX];

    (void)object;
    if (need_attr(r, n, "type", type) < 0)
        return -1;
    if (strcmp(type, "usb") == 0)
        return want_attr(r, n, "model", "none");
    return want_attr(r, n, "type", "pci virtio-serial");
}

static int read_audio(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return want_attr(r, n, "type", "none");
}

#define NO_SCREEN "domains have no screen, keyboard or sound; use the serial console"
#define NO_PASSTHROUGH "a domain with a device of the host cannot migrate"

static const struct rule device_rules[] = {
    { "emulator", "", NULL, NULL, false },
    { "disk", "type device snapshot model", read_disk, NULL, true },
    { "interface", "type managed", read_interface, NULL, true },
    { "rng", "model", read_rng, NULL, false },
    { "memballoon", "model autodeflate freePageReporting", read_balloon, NULL, false },
    { "console", "type tty", read_console, NULL, false },
    { "serial", "type", read_console, NULL, false },
    { "controller", "*", read_controller, NULL, true },
    { "audio", "id type", read_audio, NULL, false },
    { "input", "", NULL, NO_SCREEN, true },
    { "graphics", "", NULL, NO_SCREEN, true },
    { "video", "", NULL, NO_SCREEN, true },
    { "sound", "", NULL, NO_SCREEN, true },
    { "hostdev", "", NULL, NO_PASSTHROUGH, true },
    { "redirdev", "", NULL, NO_PASSTHROUGH, true },
    { "filesystem", "", NULL, "a folder of the host does not move along; use a disk or NFS", true },
    { "channel", "", NULL, "there is no guest agent; remove it", true },
    { "tpm", "", NULL, "there is no virtual TPM", true },
    { "watchdog", "", NULL, "there is no virtual watchdog", true },
    { "panic", "", NULL, "a panic is noticed without a device (panic=-1 or a triple fault)", true },
};

static int read_devices(struct reader *r, xmlNode *n, void *object)
{
    return walk(r, n, device_rules, COUNT(device_rules), object);
}

/* ---- os, cpu, memory ---- */

static int read_os_type(struct reader *r, xmlNode *n, void *object)
{
    char *text;
    int rc = 0;

    (void)object;
    if (want_attr(r, n, "arch", "x86_64") < 0)
        return -1;
    text = get_text(r, n);
    if (text == NULL)
        return -1;
    if (!in_words("hvm linux xen xenpvh xvm", text))
        rc = define_fault(
            r, line_of(n), ERR_UNSUPPORTED, "<type>%.40s</type> is not supported; use linux", text);
    free(text);
    return rc;
}

static int read_kernel(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return set_text(r, n, &r->d->kernel);
}

static int read_initrd(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return set_text(r, n, &r->d->initrd);
}

static int read_cmdline(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return set_text(r, n, &r->d->cmdline);
}

#define NO_FIRMWARE "there is no firmware; kernels are booted directly"

static const struct rule os_rules[] = {
    { "type", "arch machine", read_os_type, NULL, false },
    { "kernel", "", read_kernel, NULL, false },
    { "initrd", "", read_initrd, NULL, false },
    { "cmdline", "", read_cmdline, NULL, false },
    { "boot", "dev", NULL, NULL, true },
    { "loader", "", NULL, NO_FIRMWARE, false },
    { "nvram", "", NULL, NO_FIRMWARE, false },
    { "firmware", "", NULL, NO_FIRMWARE, false },
    { "bios", "", NULL, NO_FIRMWARE, false },
    { "bootmenu", "", NULL, NO_FIRMWARE, false },
    { "smbios", "", NULL, NO_FIRMWARE, false },
    { "init", "", NULL, "this is for containers", true },
};

static int read_os(struct reader *r, xmlNode *n, void *object)
{
    if (walk(r, n, os_rules, COUNT(os_rules), object) < 0)
        return -1;
    if (r->d->kernel[0] == '\0')
        return define_fault(r, line_of(n), ERR_UNSUPPORTED,
            "<os> has no <kernel>: only direct kernel boot is supported; add <kernel>, <initrd> "
            "and <cmdline>");
    return 0;
}

static int read_topology(struct reader *r, xmlNode *n, void *object)
{
    static const char *const parts[] = { "sockets", "dies", "clusters", "cores", "threads" };
    char value[ATTR_MAX];
    unsigned long product = 1;

    (void)object;
    for (size_t i = 0; i < COUNT(parts); i++) {
        int rc = get_attr(r, n, parts[i], value);

        if (rc < 0)
            return -1;
        if (rc == 1)
            product *= strlen(value) < 4 ? strtoul(value, NULL, 10) : 0;
    }
    /* <vcpu> comes before <cpu> wherever libvirt writes it; 0 is then its default, 1. */
    if (product != (r->d->vcpus != 0 ? r->d->vcpus : 1))
        return define_fault(r, line_of(n), ERR_UNSUPPORTED,
            "<topology> has %lu CPUs, <vcpu> %u: they must be the same", product, r->d->vcpus);
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
    char *text = get_text(r, n);
    int rc = 0;

    if (text == NULL)
        return -1;
    c->has_model = true;
    if (c->custom && (strncmp(text, "x86-64-v", 8) != 0 || strlen(text) != 9))
        rc = define_fault(r, line_of(n), ERR_UNSUPPORTED,
            "<model>%.40s</model> is not supported; use x86-64-v1 to x86-64-v4", text);
    else if (c->custom)
        snprintf(c->level, sizeof c->level, "%s", text);
    free(text);
    return rc;
}

static int read_cpu_feature(struct reader *r, xmlNode *n, void *object)
{
    char name[ATTR_MAX], policy[ATTR_MAX];
    struct cpu_text *c = object;
    size_t at = strlen(c->features);

    if (need_attr(r, n, "name", name) < 0 || need_attr(r, n, "policy", policy) < 0 ||
        want_attr(r, n, "policy", "require disable") < 0)
        return -1;
    if (strchr(name, ',') != NULL || at + strlen(name) + 3 > sizeof c->features)
        return define_fault(r, line_of(n), ERR_INVALID,
            "<feature name='%.40s'>: no such feature, or too many of them", name);
    snprintf(c->features + at, sizeof c->features - at, ",%c%s",
        strcmp(policy, "disable") == 0 ? '-' : '+', name);
    return 0;
}

static const struct rule cpu_rules[] = {
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
        if (c->type == XML_ELEMENT_NODE && strcmp(name_of(c), "model") == 0)
            return true;
    return false;
}

static int set_cpu_level(struct reader *r, xmlNode *n, const struct cpu_text *c)
{
    char level[2 * CPU_LEVEL_MAX];

    if (c->custom && !c->has_model)
        return define_fault(r, line_of(n), ERR_INVALID, "<cpu mode='custom'> has no <model>");
    if (!c->custom && c->features[0] == '\0')
        return 0; /* a level in <metadata> stays */
    if (r->d->cpu_level[0] != '\0')
        return define_fault(r, line_of(n), ERR_INVALID,
            "<cpu> chooses features, and <metadata> has a level; remove one of them");
    snprintf(level, sizeof level, "%s%s", c->custom ? c->level : "host", c->features);
    return define_text(r, &r->d->cpu_level, level);
}

static int read_cpu(struct reader *r, xmlNode *n, void *object)
{
    struct cpu_text c = { .custom = false };
    char mode[ATTR_MAX];

    (void)object;
    if (want_attr(r, n, "mode", "host-passthrough host-model maximum custom") < 0 ||
        want_attr(r, n, "match", "exact") < 0 || get_attr(r, n, "mode", mode) < 0)
        return -1;
    c.custom = is_custom(n, mode);
    if (walk(r, n, cpu_rules, COUNT(cpu_rules), &c) < 0)
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
    char unit[ATTR_MAX];
    int rc = get_attr(r, n, "unit", unit);

    *bytes = 1024;
    if (rc <= 0)
        return rc;
    for (size_t i = 0; i < COUNT(units); i++)
        if (in_words(units[i].names, unit)) {
            *bytes = units[i].bytes;
            return 0;
        }
    return define_fault(r, line_of(n), ERR_INVALID,
        "<%s unit='%.20s'>: this unit is not known; use KiB, MiB or GiB", name_of(n), unit);
}

/* KiB, rounded up as libvirt does. */
static int get_memory(struct reader *r, xmlNode *n, uint64_t *kib)
{
    char *text = get_text(r, n), *end;
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
        define_fault(r, line_of(n), ERR_INVALID,
            "<%s>%.30s</%s> is not an amount of memory from 1 byte to 16 TiB", name_of(n), text,
            name_of(n));
        goto out;
    }
    *kib = (number * factor + 1023) / 1024;
    rc = 0;
out:
    free(text);
    return rc;
}

static int read_memory(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return get_memory(r, n, &r->d->max_memory_kib);
}

static int read_current_memory(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return get_memory(r, n, &r->d->memory_kib);
}

static int read_page(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    if (want_attr(r, n, "size", "2 2048 2097152") < 0)
        return -1;
    return want_attr(r, n, "unit", "b bytes k K KiB M MiB");
}

static const struct rule huge_rules[] = { { "page", "size unit", read_page, NULL, false } };

static int read_huge(struct reader *r, xmlNode *n, void *object)
{
    r->d->huge_pages = true;
    return walk(r, n, huge_rules, COUNT(huge_rules), object);
}

static int read_memory_source(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return want_attr(r, n, "type", "memfd");
}

static int read_access(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return want_attr(r, n, "mode", "shared");
}

static const struct rule backing_rules[] = {
    { "hugepages", "", read_huge, NULL, false },
    { "source", "type", read_memory_source, NULL, false },
    { "access", "mode", read_access, NULL, false },
    { "nosharepages", "", NULL, NULL, false },
    { "locked", "", NULL, "guest memory is not locked", false },
    { "allocation", "", NULL, "guest memory is allocated as it is used", false },
};

static int read_backing(struct reader *r, xmlNode *n, void *object)
{
    return walk(r, n, backing_rules, COUNT(backing_rules), object);
}

/* ---- domain ---- */

static int read_name(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return set_text(r, n, &r->d->name);
}

static int read_uuid(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return set_text(r, n, &r->d->uuid);
}

static int read_vcpu(struct reader *r, xmlNode *n, void *object)
{
    char current[ATTR_MAX], cpuset[ATTR_MAX], *text, *end;
    unsigned long count = 0;

    (void)object;
    if (want_attr(r, n, "placement", "static") < 0 || get_attr(r, n, "current", current) < 0 ||
        get_attr(r, n, "cpuset", cpuset) < 0)
        return -1;
    text = get_text(r, n);
    if (text == NULL)
        return -1;
    if (isdigit((unsigned char)text[0]) && strlen(text) < 6) {
        count = strtoul(text, &end, 10);
        count = *end == '\0' ? count : 0;
    }
    free(text);
    if (count < 1 || count > DEFINE_VCPUS_MAX)
        return define_fault(
            r, line_of(n), ERR_INVALID, "<vcpu> must be from 1 to %d", DEFINE_VCPUS_MAX);
    if (current[0] != '\0' && strtoul(current, NULL, 10) != count)
        return define_fault(r, line_of(n), ERR_UNSUPPORTED,
            "<vcpu current='%.20s'>: all vCPUs are there from the start", current);
    r->d->vcpus = (uint32_t)count;
    return define_text(r, &r->d->vcpu_pinning, cpuset);
}

static int read_event(struct reader *r, xmlNode *n, void *object)
{
    Migrd__OnEvent *on = strcmp(name_of(n), "on_poweroff") == 0 ? &r->d->on_poweroff
                         : strcmp(name_of(n), "on_reboot") == 0 ? &r->d->on_reboot
                                                                : &r->d->on_crash;
    char *text = get_text(r, n);
    int rc;

    (void)object;
    if (text == NULL)
        return -1;
    rc = define_on_event(r, line_of(n), name_of(n), text, on);
    free(text);
    return rc;
}

static const struct rule feature_rules[] = {
    { "acpi", "", NULL, NULL, false },
    { "apic", "eoi", NULL, NULL, false },
    { "pae", "", NULL, NULL, false },
    { "hap", "state", NULL, NULL, false },
    { "vmport", "state", NULL, NULL, false },
};

static int read_features(struct reader *r, xmlNode *n, void *object)
{
    return walk(r, n, feature_rules, COUNT(feature_rules), object);
}

static const struct rule clock_rules[] = { { "timer", "*", NULL, NULL, true } };

static int read_clock(struct reader *r, xmlNode *n, void *object)
{
    if (want_attr(r, n, "offset", "utc") < 0)
        return -1;
    return walk(r, n, clock_rules, COUNT(clock_rules), object);
}

static int read_seclabel(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return want_attr(r, n, "type", "none dynamic");
}

static int read_own_cpu(struct reader *r, xmlNode *n)
{
    char level[ATTR_MAX];

    if (check_attrs(r, n, "level") < 0 || need_attr(r, n, "level", level) < 0)
        return -1;
    if (r->d->cpu_level[0] != '\0')
        return define_fault(r, line_of(n), ERR_INVALID,
            "<migrd:cpu>: the CPU level is there twice, here and in <cpu> or before");
    return define_text(r, &r->d->cpu_level, strcmp(level, "host") == 0 ? "" : level);
}

/* Other programs' notes are theirs; what is in our namespace we know. */
static int read_metadata(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    for (xmlNode *c = n->children; c != NULL; c = c->next) {
        if (c->type != XML_ELEMENT_NODE || c->ns == NULL || c->ns->href == NULL ||
            strcmp((const char *)c->ns->href, DEFINE_XML_NS) != 0)
            continue;
        if (strcmp(name_of(c), "cpu") != 0)
            return define_fault(r, line_of(c), ERR_UNSUPPORTED,
                "<%.40s> of namespace " DEFINE_XML_NS " is not supported", name_of(c));
        if (read_own_cpu(r, c) < 0)
            return -1;
    }
    return 0;
}

static const struct rule domain_rules[] = {
    { "name", "", read_name, NULL, false },
    { "uuid", "", read_uuid, NULL, false },
    { "title", "", NULL, NULL, false },
    { "description", "", NULL, NULL, false },
    { "metadata", "*", read_metadata, NULL, false },
    { "memory", "unit", read_memory, NULL, false },
    { "currentMemory", "unit", read_current_memory, NULL, false },
    { "memoryBacking", "", read_backing, NULL, false },
    { "vcpu", "placement cpuset current", read_vcpu, NULL, false },
    { "os", "", read_os, NULL, false },
    { "features", "", read_features, NULL, false },
    { "cpu", "mode check migratable match", read_cpu, NULL, false },
    { "clock", "offset", read_clock, NULL, false },
    { "on_poweroff", "", read_event, NULL, false },
    { "on_reboot", "", read_event, NULL, false },
    { "on_crash", "", read_event, NULL, false },
    { "pm", "", NULL, NULL, false },
    { "resource", "", NULL, NULL, false },
    { "devices", "", read_devices, NULL, false },
    { "seclabel", "type model relabel", read_seclabel, NULL, true },
    { "maxMemory", "", NULL, "memory is not plugged in; raise <memory>", false },
    { "bootloader", "", NULL, "kernels are not taken out of disk images; use <kernel>", false },
    { "bootloader_args", "", NULL, "there is no boot loader", false },
    { "cputune", "", NULL, "use <vcpu cpuset=...>", false },
    { "launchSecurity", "", NULL, "encrypted memory cannot be migrated", false },
};

static int read_domain(struct reader *r, xmlNode *root)
{
    char type[ATTR_MAX];

    if (root == NULL || strcmp(name_of(root), "domain") != 0 || root->ns != NULL)
        return define_fault(r, 1, ERR_INVALID, "<%.40s> is no domain; <domain> is needed",
            root == NULL ? "" : name_of(root));
    if (check_attrs(r, root, "type id") < 0 || need_attr(r, root, "type", type) < 0 ||
        want_attr(r, root, "type", "xvm kvm xen") < 0)
        return -1;
    if (define_text(r, &r->d->hypervisor, strcmp(type, "xen") == 0 ? "xen" : "xvm") < 0 ||
        walk(r, root, domain_rules, COUNT(domain_rules), NULL) < 0)
        return -1;
    if (r->d->max_memory_kib == 0)
        return define_fault(r, line_of(root), ERR_INVALID, "<domain> has no <memory>");
    if (r->d->memory_kib == 0)
        r->d->memory_kib = r->d->max_memory_kib;
    return 0;
}

/* ---- the parser ---- */

/* What the parser told us; the first error says most, the later ones follow from it. */
struct told {
    bool doctype, error;
    int line;
    char message[200];
};

/* Called at <!DOCTYPE: nothing in it is wanted, and entities are a way to fill memory. */
static void on_doctype(
    void *ctx, const xmlChar *name, const xmlChar *external, const xmlChar *system)
{
    xmlParserCtxt *parser = ctx;
    struct told *t = parser->_private;

    (void)name;
    (void)external;
    (void)system;
    if (!t->error && !t->doctype) {
        t->doctype = true;
        t->line = parser->input->line;
    }
    xmlStopParser(parser);
}

static void on_error(void *ctx, xmlError *x)
{
    struct told *t = ((xmlParserCtxt *)ctx)->_private;

    if (t->error || x->level < XML_ERR_ERROR)
        return;
    t->error = true;
    t->line = x->line;
    snprintf(t->message, sizeof t->message, "%s", x->message != NULL ? x->message : "error");
    t->message[strcspn(t->message, "\n")] = '\0';
}

static int parse_fault(struct reader *r, const struct told *t)
{
    if (t->doctype)
        return define_fault(
            r, (unsigned)t->line, ERR_UNSUPPORTED, "<!DOCTYPE> is not supported; remove it");
    return define_fault(r, t->error ? (unsigned)t->line : 0, ERR_INVALID, "this is no XML: %s",
        t->error ? t->message : "it ends too early");
}

int define_read_xml(struct reader *r, const char *text, size_t len)
{
    const int options = XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
                        XML_PARSE_BIG_LINES | XML_PARSE_NOCDATA;
    xmlParserCtxt *parser = xmlNewParserCtxt();
    struct told told = { 0 };
    xmlDoc *doc;
    int rc;

    if (parser == NULL)
        return define_no_memory(r);
    parser->_private = &told;
    parser->sax->internalSubset = on_doctype;
    parser->sax->serror = on_error;
    doc = xmlCtxtReadMemory(parser, text, (int)len, "domain.xml", NULL, options);
    if (doc == NULL || told.doctype)
        rc = parse_fault(r, &told);
    else
        rc = read_domain(r, xmlDocGetRootElement(doc));
    xmlFreeDoc(doc);
    xmlFreeParserCtxt(parser);
    return rc;
}
