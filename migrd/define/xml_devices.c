/* SPDX-License-Identifier: ISC */
/* The devices of libvirt's domain XML, in their domain or one by one. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrd/define/xml_node.h"

/* ---- disk ---- */

static int refuse_elsewhere(struct reader *r, xmlNode *n)
{
    if (define_is_xen(r->d))
        return 0;
    return define_fault(r, xml_line_of(n), ERR_UNSUPPORTED, "<%.40s> in <%.40s> is not supported",
        xml_name_of(n), xml_name_of(n->parent));
}

/* libvirt's names of Xen's backends. */
static int read_xen_driver(struct reader *r, xmlNode *n, Migrd__Disk *k)
{
    char name[XML_ATTR_MAX], type[XML_ATTR_MAX];

    if (xml_get_attr(r, n, "name", name) < 0 || xml_get_attr(r, n, "type", type) < 0 ||
        xml_want_attr(r, n, "name", "phy file qemu tap tap2") < 0)
        return -1;
    if (type[0] != '\0' && define_disk_format(r, xml_line_of(n), type, &k->format) < 0)
        return -1;
    if (name[0] == '\0' || strcmp(name, "file") == 0)
        return 0;
    return define_text(r, &k->backend,
        strcmp(name, "qemu") == 0      ? "qdisk"
        : strncmp(name, "tap", 3) == 0 ? "tap"
                                       : "phy");
}

static int read_disk_driver(struct reader *r, xmlNode *n, void *object)
{
    char cache[XML_ATTR_MAX], policy[XML_ATTR_MAX];
    Migrd__Disk *k = object;

    if (define_is_xen(r->d) ? read_xen_driver(r, n, k) < 0 : xml_want_attr(r, n, "type", "raw") < 0)
        return -1;
    if (xml_get_attr(r, n, "cache", cache) < 0 || xml_get_attr(r, n, "error_policy", policy) < 0)
        return -1;
    if (cache[0] != '\0' && define_cache(r, xml_line_of(n), cache, &k->cache) < 0)
        return -1;
    return policy[0] == '\0'
               ? 0
               : define_io_error(r, xml_line_of(n), "error_policy", policy, &k->on_io_error);
}

static int read_source_host(struct reader *r, xmlNode *n, void *object)
{
    char host[XML_ATTR_MAX], port[XML_ATTR_MAX];
    struct define_source *s = object;

    if (xml_want_attr(r, n, "transport", "tcp") < 0 || xml_need_attr(r, n, "name", host) < 0 ||
        xml_get_attr(r, n, "port", port) < 0)
        return -1;
    if (strpbrk(host, "/?@[]") != NULL || strlen(port) >= sizeof s->port)
        return define_fault(
            r, xml_line_of(n), ERR_INVALID, "<host name='%.60s' port='%.20s'> is none", host, port);
    strcpy(s->host, host);
    strcpy(s->port, port);
    return 0;
}

static int read_auth_secret(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return xml_want_attr(r, n, "type", "iscsi") < 0
               ? -1
               : xml_want_attr(r, n, "usage", "storage-secrets");
}

static const struct xml_rule auth_rules[] = {
    { "secret", "type usage", read_auth_secret, NULL, false },
};

static int read_source_auth(struct reader *r, xmlNode *n, void *object)
{
    char user[XML_ATTR_MAX];
    struct define_source *s = object;

    if (xml_need_attr(r, n, "username", user) < 0)
        return -1;
    if (strpbrk(user, "/?") != NULL)
        return define_fault(
            r, xml_line_of(n), ERR_INVALID, "<auth username='%.60s'>: no user's name", user);
    strcpy(s->user, user);
    return xml_walk(r, n, auth_rules, XML_COUNT(auth_rules), NULL);
}

static const struct xml_rule network_rules[] = {
    { "host", "name port transport", read_source_host, NULL, false },
    { "auth", "username", read_source_auth, NULL, false },
};

static int read_network_source(struct reader *r, xmlNode *n, Migrd__Disk *k)
{
    struct define_source s = { .host = "" };
    char protocol[XML_ATTR_MAX];

    if (xml_check_attrs(r, n, "protocol name query") < 0 ||
        xml_need_attr(r, n, "protocol", protocol) < 0 ||
        xml_want_attr(r, n, "protocol", "nfs iscsi") < 0 ||
        xml_need_attr(r, n, "name", s.name) < 0 || xml_get_attr(r, n, "query", s.query) < 0 ||
        xml_walk(r, n, network_rules, XML_COUNT(network_rules), &s) < 0)
        return -1;
    s.protocol = strcmp(protocol, "nfs") == 0 ? "nfs" : "iscsi";
    if (s.host[0] == '\0')
        return define_fault(r, xml_line_of(n), ERR_INVALID, "<source> has no <host>");
    if (strcmp(protocol, "nfs") == 0 && s.name[0] != '/')
        return define_fault(r, xml_line_of(n), ERR_INVALID,
            "<source protocol='nfs' name='%.60s'> must begin with '/'", s.name);
    return define_source_join(r, xml_line_of(n), &s, &k->source);
}

static int read_adapter(struct reader *r, xmlNode *n, void *object)
{
    char wwnn[XML_ATTR_MAX], wwpn[XML_ATTR_MAX], text[2 * XML_ATTR_MAX + 2];

    if (xml_want_attr(r, n, "type", "fc_host") < 0 || xml_need_attr(r, n, "wwnn", wwnn) < 0 ||
        xml_need_attr(r, n, "wwpn", wwpn) < 0)
        return -1;
    snprintf(text, sizeof text, "%s:%s", wwpn, wwnn);
    return define_text(r, &((Migrd__Disk *)object)->npiv, text);
}

static const struct xml_rule source_rules[] = {
    { "adapter", "type wwnn wwpn", read_adapter, NULL, false },
};

static int read_disk_source(struct reader *r, xmlNode *n, void *object)
{
    char type[XML_ATTR_MAX], path[XML_ATTR_MAX];
    Migrd__Disk *k = object;

    if (xml_need_attr(r, n->parent, "type", type) < 0)
        return -1;
    if (strcmp(type, "network") == 0)
        return read_network_source(r, n, k);
    if (xml_check_attrs(r, n, "file dev index startupPolicy") < 0 ||
        xml_need_attr(r, n, strcmp(type, "block") == 0 ? "dev" : "file", path) < 0 ||
        define_text(r, &k->source, path) < 0)
        return -1;
    if (path[0] != '/')
        return define_fault(r, xml_line_of(n), ERR_INVALID,
            "<source> of type %s: %.100s must be an absolute path", type, path);
    return xml_walk(r, n, source_rules, XML_COUNT(source_rules), k);
}

static int read_disk_wwn(struct reader *r, xmlNode *n, void *object)
{
    return xml_set_text(r, n, &((Migrd__Disk *)object)->wwn);
}

static int read_disk_target(struct reader *r, xmlNode *n, void *object)
{
    Migrd__Disk *k = object;
    char dev[XML_ATTR_MAX];

    if (xml_need_attr(r, n, "dev", dev) < 0 ||
        xml_want_attr(r, n, "bus", define_is_xen(r->d) ? "xen ide scsi" : "virtio xen") < 0)
        return -1;
    return define_text(r, &k->device, dev);
}

static int read_disk_serial(struct reader *r, xmlNode *n, void *object)
{
    return xml_set_text(r, n, &((Migrd__Disk *)object)->serial);
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
        return define_fault(r, xml_line_of(n), ERR_UNSUPPORTED,
            "<backingStore>: images with a backing file are not supported");
    return 0;
}

/* libvirt has it for interfaces only. */
static int read_disk_script(struct reader *r, xmlNode *n, void *object)
{
    char path[XML_ATTR_MAX];

    if (refuse_elsewhere(r, n) < 0 || xml_need_attr(r, n, "path", path) < 0)
        return -1;
    return define_script(r, xml_line_of(n), "disk", path, &((Migrd__Disk *)object)->script);
}

static const struct xml_rule disk_rules[] = {
    { "script", "path", read_disk_script, NULL, false },
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
    XML_WIRING,
};

static int read_disk(struct reader *r, xmlNode *n, void *object)
{
    char type[XML_ATTR_MAX], device[XML_ATTR_MAX];
    Migrd__Disk *k;

    (void)object;
    if (xml_need_attr(r, n, "type", type) < 0 ||
        xml_want_attr(r, n, "type", "file block network") < 0 ||
        xml_get_attr(r, n, "device", device) < 0 ||
        xml_want_attr(r, n, "device", define_is_xen(r->d) ? "disk cdrom" : "disk") < 0)
        return -1;
    k = define_add_disk(r);
    if (k != NULL)
        k->cdrom = strcmp(device, "cdrom") == 0;
    if (k == NULL || xml_walk(r, n, disk_rules, XML_COUNT(disk_rules), k) < 0)
        return -1;
    if ((k->source[0] == '\0' && !r->partial) || k->device[0] == '\0')
        return define_fault(r, xml_line_of(n), ERR_INVALID, "<disk> has no <%s>",
            k->source[0] == '\0' ? "source" : "target");
    return 0;
}

/* ---- interface ---- */

static int read_mac(struct reader *r, xmlNode *n, void *object)
{
    char value[XML_ATTR_MAX];

    if (xml_need_attr(r, n, "address", value) < 0)
        return -1;
    return define_text(r, &((Migrd__Vif *)object)->mac, value);
}

static int read_vif_source(struct reader *r, xmlNode *n, void *object)
{
    char value[XML_ATTR_MAX];

    if (xml_need_attr(r, n, "bridge", value) < 0)
        return -1;
    return define_text(r, &((Migrd__Vif *)object)->bridge, value);
}

static int read_vif_target(struct reader *r, xmlNode *n, void *object)
{
    char value[XML_ATTR_MAX];

    if (xml_need_attr(r, n, "dev", value) < 0)
        return -1;
    return define_text(r, &((Migrd__Vif *)object)->ifname, value);
}

static int read_vif_model(struct reader *r, xmlNode *n, void *object)
{
    char model[XML_ATTR_MAX];

    if (!define_is_xen(r->d))
        return xml_want_attr(r, n, "type", "virtio netfront");
    if (xml_need_attr(r, n, "type", model) < 0)
        return -1;
    return define_text(r, &((Migrd__Vif *)object)->model, model);
}

/* vif-bridge is what there is without a word. */
static int read_vif_script(struct reader *r, xmlNode *n, void *object)
{
    char path[XML_ATTR_MAX];
    Migrd__Vif *v = object;

    if (refuse_elsewhere(r, n) < 0 || xml_need_attr(r, n, "path", path) < 0 ||
        define_script(r, xml_line_of(n), "vif", path, &v->script) < 0)
        return -1;
    return strcmp(v->script, "vif-bridge") == 0 ? define_text(r, &v->script, "") : 0;
}

static int read_vif_ip(struct reader *r, xmlNode *n, void *object)
{
    char address[XML_ATTR_MAX], prefix[XML_ATTR_MAX], all[4 * XML_ATTR_MAX];
    Migrd__Vif *v = object;

    if (refuse_elsewhere(r, n) < 0 || xml_need_attr(r, n, "address", address) < 0 ||
        xml_get_attr(r, n, "prefix", prefix) < 0)
        return -1;
    snprintf(all, sizeof all, "%.1000s%s%s%s%s", v->ip, v->ip[0] != '\0' ? " " : "", address,
        prefix[0] != '\0' ? "/" : "", prefix);
    return define_text(r, &v->ip, all);
}

static int read_outbound(struct reader *r, xmlNode *n, void *object)
{
    char average[XML_ATTR_MAX], *end;
    unsigned long rate;

    if (xml_need_attr(r, n, "average", average) < 0)
        return -1;
    rate = strtoul(average, &end, 10);
    if (!isdigit((unsigned char)average[0]) || *end != '\0' || rate == 0 || rate > UINT32_MAX)
        return define_fault(r, xml_line_of(n), ERR_INVALID,
            "<outbound average='%.20s'> must be a number of KiB per second", average);
    ((Migrd__Vif *)object)->rate_kib = (uint32_t)rate;
    return 0;
}

static const struct xml_rule bandwidth_rules[] = {
    { "outbound", "average", read_outbound, NULL, false },
    { "inbound", "", NULL, "only what the guest sends can be limited", false },
};

static int read_bandwidth(struct reader *r, xmlNode *n, void *object)
{
    if (refuse_elsewhere(r, n) < 0)
        return -1;
    return xml_walk(r, n, bandwidth_rules, XML_COUNT(bandwidth_rules), object);
}

static int read_mtu(struct reader *r, xmlNode *n, void *object)
{
    char value[XML_ATTR_MAX], *end;
    unsigned long mtu;

    if (xml_need_attr(r, n, "size", value) < 0)
        return -1;
    mtu = strtoul(value, &end, 10);
    if (!isdigit((unsigned char)value[0]) || *end != '\0' || mtu < 68 || mtu > 65535)
        return define_fault(
            r, xml_line_of(n), ERR_INVALID, "<mtu size='%.20s'> must be from 68 to 65535", value);
    ((Migrd__Vif *)object)->mtu = (uint32_t)mtu;
    return 0;
}

static int read_link(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return xml_want_attr(r, n, "state", "up");
}

static const struct xml_rule vif_rules[] = {
    { "mac", "address", read_mac, NULL, false },
    { "source", "bridge", read_vif_source, NULL, false },
    { "target", "dev managed", read_vif_target, NULL, false },
    { "model", "type", read_vif_model, NULL, false },
    { "script", "path", read_vif_script, NULL, false },
    { "ip", "address family prefix", read_vif_ip, NULL, true },
    { "bandwidth", "", read_bandwidth, NULL, false },
    { "mtu", "size", read_mtu, NULL, false },
    { "link", "state", read_link, NULL, false },
    { "driver", "name", NULL, NULL, false },
    { "boot", "order", NULL, NULL, false },
    XML_WIRING,
};

static int read_interface(struct reader *r, xmlNode *n, void *object)
{
    char type[XML_ATTR_MAX];
    Migrd__Vif *v;

    (void)object;
    if (xml_need_attr(r, n, "type", type) < 0)
        return -1;
    if (strcmp(type, "network") == 0)
        return define_fault(r, xml_line_of(n), ERR_UNSUPPORTED,
            "<interface type='network'> is not supported: there are no virtual networks; name the "
            "bridge: <interface type='bridge'><source bridge='virbr0'/>");
    if (xml_want_attr(r, n, "type", "bridge ethernet") < 0)
        return -1;
    v = define_add_vif(r);
    if (v == NULL || xml_walk(r, n, vif_rules, XML_COUNT(vif_rules), v) < 0)
        return -1;
    if ((strcmp(type, "bridge") == 0) != (v->bridge[0] != '\0') && !r->partial)
        return define_fault(r, xml_line_of(n), ERR_INVALID, "<interface type='%s'> %s", type,
            v->bridge[0] == '\0' ? "has no <source bridge=...>" : "has no <source>");
    return 0;
}

/* ---- other devices ---- */

static int read_rng_backend(struct reader *r, xmlNode *n, void *object)
{
    char *text;
    int rc = 0;

    (void)object;
    if (xml_want_attr(r, n, "model", "random builtin") < 0)
        return -1;
    text = xml_get_text(r, n);
    if (text == NULL)
        return -1;
    if (text[0] != '\0' && !xml_in_words("/dev/urandom /dev/random", text))
        rc = define_fault(r, xml_line_of(n), ERR_UNSUPPORTED,
            "<backend>%.60s</backend> is not supported; use /dev/urandom", text);
    free(text);
    return rc;
}

static const struct xml_rule rng_rules[] = {
    { "backend", "model", read_rng_backend, NULL, false },
    XML_WIRING,
};

static int read_rng(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    if (xml_want_attr(r, n, "model", "virtio") < 0)
        return -1;
    r->d->rng = r->rng_set = true;
    return xml_walk(r, n, rng_rules, XML_COUNT(rng_rules), NULL);
}

static const struct xml_rule balloon_rules[] = {
    { "stats", "period", NULL, NULL, false },
    XML_WIRING,
};

static int read_balloon(struct reader *r, xmlNode *n, void *object)
{
    char model[XML_ATTR_MAX];

    (void)object;
    if (xml_need_attr(r, n, "model", model) < 0 ||
        xml_want_attr(r, n, "model", "virtio xen none") < 0)
        return -1;
    r->balloon_set = true;
    r->d->balloon = strcmp(model, "none") != 0;
    return xml_walk(r, n, balloon_rules, XML_COUNT(balloon_rules), NULL);
}

static int read_console_target(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return xml_want_attr(r, n, "type", "serial xen isa-serial");
}

static const struct xml_rule console_rules[] = {
    { "source", "path", NULL, NULL, false },
    { "target", "type port", read_console_target, NULL, false },
    XML_WIRING,
};

static int read_console(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    if (xml_want_attr(r, n, "type", "pty") < 0)
        return -1;
    return xml_walk(r, n, console_rules, XML_COUNT(console_rules), NULL);
}

static int read_controller(struct reader *r, xmlNode *n, void *object)
{
    char type[XML_ATTR_MAX];

    (void)object;
    if (xml_need_attr(r, n, "type", type) < 0)
        return -1;
    if (strcmp(type, "usb") == 0)
        return xml_want_attr(r, n, "model", "none");
    return xml_want_attr(
        r, n, "type", define_is_xen(r->d) ? "xenbus ide scsi" : "pci virtio-serial");
}

static int read_audio(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return xml_want_attr(r, n, "type", "none");
}

#define NO_SCREEN "domains have no screen, keyboard or sound; use the serial console"

/* Xen's definitions have them as a matter of course; there they are left out with a note. */
static int read_screen(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    if (!define_is_xen(r->d))
        return define_fault(r, xml_line_of(n), ERR_UNSUPPORTED,
            "<%s> in <devices> is not supported: " NO_SCREEN, xml_name_of(n));
    define_note(r, xml_line_of(n), "<%s> is left out: " NO_SCREEN, xml_name_of(n));
    return 0;
}

#define NO_PASSTHROUGH "a domain with a device of the host cannot migrate"

static const struct xml_rule device_rules[] = {
    { "emulator", "", NULL, NULL, false },
    { "disk", "type device snapshot model", read_disk, NULL, true },
    { "interface", "type managed", read_interface, NULL, true },
    { "rng", "model", read_rng, NULL, false },
    { "memballoon", "model autodeflate freePageReporting", read_balloon, NULL, false },
    { "console", "type tty", read_console, NULL, false },
    { "serial", "type", read_console, NULL, false },
    { "controller", "*", read_controller, NULL, true },
    { "audio", "id type", read_audio, NULL, false },
    { "input", "*", read_screen, NULL, true },
    { "graphics", "*", read_screen, NULL, true },
    { "video", "*", read_screen, NULL, true },
    { "sound", "", NULL, NO_SCREEN, true },
    { "hostdev", "", NULL, NO_PASSTHROUGH, true },
    { "redirdev", "", NULL, NO_PASSTHROUGH, true },
    { "filesystem", "", NULL, "a folder of the host does not move along; use a disk or NFS", true },
    { "channel", "", NULL, "there is no guest agent; remove it", true },
    { "tpm", "", NULL, "there is no virtual TPM", true },
    { "watchdog", "", NULL, "there is no virtual watchdog", true },
    { "panic", "", NULL, "a panic is noticed without a device (panic=-1 or a triple fault)", true },
};

int xml_read_devices(struct reader *r, xmlNode *n, void *object)
{
    return xml_walk(r, n, device_rules, XML_COUNT(device_rules), object);
}

int xml_read_device(struct reader *r, xmlNode *n)
{
    return xml_read_element(r, n, device_rules, XML_COUNT(device_rules), NULL);
}
