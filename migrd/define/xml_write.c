/* SPDX-License-Identifier: ISC */
/*
 * A definition as libvirt's domain XML, in the order of elements that libvirt writes.
 * Reading the result gives the same definition again.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/cpu_level.h"
#include "migrd/define/internal.h"
#include "migrd/define/xml_out.h"
#include "storage-check/url.h"

/* <name a='v'/>, or nothing without a value. */
static void tag(struct xml_out *x, const char *name, const char *a, const char *value)
{
    if (value[0] == '\0')
        return;
    xml_begin(x, name);
    xml_attr(x, a, value);
    xml_end(x);
}

static void number(struct xml_out *x, const char *name, uint64_t kib)
{
    xml_begin(x, name);
    xml_attr(x, "unit", "KiB");
    x->failed |= xmlTextWriterWriteFormatString(x->w, "%" PRIu64, kib) < 0;
    xml_end(x);
}

/* <migrd:NAME ATTR='value'/> */
static void put_own(struct xml_out *x, const char *name, const char *attr, const char *value)
{
    x->failed |= xmlTextWriterStartElementNS(x->w, (const xmlChar *)"migrd", (const xmlChar *)name,
                     (const xmlChar *)DEFINE_XML_NS) < 0;
    xml_attr(x, attr, value);
    xml_end(x);
}

/* Notes of others, and what libvirt has no words for. */
static void put_metadata(struct xml_out *x, const Migrd__Domain *d)
{
    bool own = strchr(d->cpu_level, '/') != NULL;
    const char *watchdog = define_on_event_word(d->on_watchdog);

    if (!own && watchdog == NULL && d->metadata[0] == '\0')
        return;
    xml_begin(x, "metadata");
    if (d->metadata[0] != '\0')
        x->failed |= xmlTextWriterWriteRaw(x->w, (const xmlChar *)d->metadata) < 0;
    if (own)
        put_own(x, "cpu", "level", d->cpu_level);
    if (watchdog != NULL)
        put_own(x, "xen", "on_watchdog", watchdog);
    xml_end(x);
}

/* "x86-64-v2,-avx,+aes", or "host,-avx". */
static void put_cpu(struct xml_out *x, const Migrd__Domain *d)
{
    size_t n = strcspn(d->cpu_level, ",");
    bool host = strncmp(d->cpu_level, "host", 4) == 0;
    const char *p = d->cpu_level + n;
    char word[CPU_LEVEL_MAX];

    if (d->cpu_level[0] == '\0' || strchr(d->cpu_level, '/') != NULL)
        return;
    xml_begin(x, "cpu");
    xml_attr(x, "mode", host ? "host-passthrough" : "custom");
    if (!host) {
        xml_attr(x, "match", "exact");
        snprintf(word, sizeof word, "%.*s", (int)n, d->cpu_level);
        xml_text(x, "model", word);
    }
    for (; *p == ','; p += n) {
        n = 1 + strcspn(p + 1, ",");
        snprintf(word, sizeof word, "%.*s", (int)n - 2, p + 2);
        xml_begin(x, "feature");
        xml_attr(x, "policy", p[1] == '-' ? "disable" : "require");
        xml_attr(x, "name", word);
        xml_end(x);
    }
    xml_end(x);
}

static void attr_number(struct xml_out *x, const char *name, uint64_t n)
{
    char text[32];

    snprintf(text, sizeof text, "%" PRIu64, n);
    xml_attr(x, name, text);
}

static void text_number(struct xml_out *x, const char *name, uint64_t n)
{
    char text[32];

    snprintf(text, sizeof text, "%" PRIu64, n);
    xml_text(x, name, text);
}

/* See xml_cputune.c. */
static void put_cputune(struct xml_out *x, const Migrd__Domain *d)
{
    if (d->n_vcpu_pins == 0 && d->cpu_weight == 0 && d->cpu_cap == 0)
        return;
    xml_begin(x, "cputune");
    if (d->cpu_weight != 0)
        text_number(x, "shares", d->cpu_weight);
    if (d->cpu_cap != 0) {
        text_number(x, "global_period", DEFINE_CAP_PERIOD_US);
        text_number(x, "global_quota", (uint64_t)DEFINE_CAP_PERIOD_US * d->cpu_cap / 100);
    }
    for (size_t i = 0; i < d->n_vcpu_pins; i++) {
        if (d->vcpu_pins[i][0] == '\0')
            continue;
        xml_begin(x, "vcpupin");
        attr_number(x, "vcpu", i);
        xml_attr(x, "cpuset", d->vcpu_pins[i]);
        xml_end(x);
    }
    xml_end(x);
}

static void put_head(struct xml_out *x, const Migrd__Domain *d)
{
    xml_text(x, "name", d->name);
    xml_text(x, "uuid", d->uuid);
    if (d->title[0] != '\0')
        xml_text(x, "title", d->title);
    if (d->description[0] != '\0')
        xml_text(x, "description", d->description);
    put_metadata(x, d);
    number(x, "memory", d->max_memory_kib);
    number(x, "currentMemory", d->memory_kib);
    if (d->huge_pages) {
        xml_begin(x, "memoryBacking");
        xml_begin(x, "hugepages");
        xml_end(x);
        xml_end(x);
    }
    xml_begin(x, "vcpu");
    xml_attr(x, "placement", "static");
    if (d->vcpu_pinning[0] != '\0')
        xml_attr(x, "cpuset", d->vcpu_pinning);
    if (define_max_vcpus(d) != d->vcpus)
        attr_number(x, "current", d->vcpus);
    x->failed |= xmlTextWriterWriteFormatString(x->w, "%u", define_max_vcpus(d)) < 0;
    xml_end(x);
    put_cputune(x, d);
}

/* As libvirt's driver for Xen writes it: "linux" with the machine xenpv is a pv guest. */
static const char *machine_of(const Migrd__Domain *d, const char **os)
{
    *os = "linux";
    if (!define_is_xen(d))
        return "";
    switch (hv_guest_type(d)) {
    case MIGRD__GUEST_TYPE__GUEST_PV:
        return "xenpv";
    case MIGRD__GUEST_TYPE__GUEST_HVM:
        *os = "hvm";
        return "xenfv";
    default:
        *os = "xenpvh";
        return "xenpvh";
    }
}

static void put_boot(struct xml_out *x, const Migrd__Domain *d)
{
    for (const char *p = d->boot; *p != '\0'; p++)
        tag(x, "boot", "dev", *p == 'c' ? "hd" : *p == 'd' ? "cdrom" : "network");
}

static void put_bootloader(struct xml_out *x, const Migrd__Domain *d)
{
    if (d->bootloader[0] == '\0')
        return;
    xml_text(x, "bootloader", d->bootloader);
    if (d->n_bootloader_args == 0)
        return;
    xml_begin(x, "bootloader_args");
    for (size_t i = 0; i < d->n_bootloader_args; i++)
        x->failed |= xmlTextWriterWriteFormatString(
                         x->w, "%s%s", i > 0 ? " " : "", d->bootloader_args[i]) < 0;
    xml_end(x);
}

static void put_clock(struct xml_out *x, const Migrd__Domain *d)
{
    xml_begin(x, "clock");
    xml_attr(x, "offset", "utc");
    if (d->tsc_mode[0] != '\0') {
        xml_begin(x, "timer");
        xml_attr(x, "name", "tsc");
        xml_attr(x, "mode", define_tsc_timer(d->tsc_mode));
        xml_end(x);
    }
    xml_end(x);
}

static void put_os(struct xml_out *x, const Migrd__Domain *d)
{
    const char *os, *machine = machine_of(d, &os);

    put_bootloader(x, d);
    xml_begin(x, "os");
    if (d->firmware[0] != '\0')
        xml_attr(x, "firmware", "efi");
    xml_begin(x, "type");
    xml_attr(x, "arch", "x86_64");
    if (machine[0] != '\0')
        xml_attr(x, "machine", machine);
    x->failed |= xmlTextWriterWriteString(x->w, (const xmlChar *)os) < 0;
    xml_end(x);
    put_boot(x, d);
    if (d->kernel[0] != '\0')
        xml_text(x, "kernel", d->kernel);
    if (d->initrd[0] != '\0')
        xml_text(x, "initrd", d->initrd);
    if (d->cmdline[0] != '\0')
        xml_text(x, "cmdline", d->cmdline);
    xml_end(x);
    put_cpu(x, d);
    put_clock(x, d);
}

static void put_event(struct xml_out *x, const char *name, Migrd__OnEvent on)
{
    const char *word = define_on_event_word(on);

    if (word != NULL)
        xml_text(x, name, word);
}

static void put_network_source(struct xml_out *x, const struct define_source *s)
{
    xml_begin(x, "source");
    xml_attr(x, "protocol", s->protocol);
    xml_attr(x, "name", s->name);
    if (s->query[0] != '\0')
        xml_attr(x, "query", s->query);
    xml_begin(x, "host");
    xml_attr(x, "name", s->host);
    if (s->port[0] != '\0')
        xml_attr(x, "port", s->port);
    xml_end(x);
    if (s->user[0] != '\0') {
        xml_begin(x, "auth");
        xml_attr(x, "username", s->user);
        xml_begin(x, "secret");
        xml_attr(x, "type", "iscsi");
        xml_attr(x, "usage", "storage-secrets");
        xml_end(x);
        xml_end(x);
    }
    xml_end(x);
}

static void put_source(struct xml_out *x, const Migrd__Disk *k, bool block)
{
    char wwpn[17];

    xml_begin(x, "source");
    xml_attr(x, block ? "dev" : "file", k->source);
    if (k->npiv[0] != '\0') {
        snprintf(wwpn, sizeof wwpn, "%.16s", k->npiv);
        xml_begin(x, "adapter");
        xml_attr(x, "type", "fc_host");
        xml_attr(x, "wwnn", k->npiv + 17);
        xml_attr(x, "wwpn", wwpn);
        xml_end(x);
    }
    xml_end(x);
}

/* libvirt's words for Xen's backends, which is none where libxl chooses. */
static void put_driver_name(struct xml_out *x, const Migrd__Disk *k)
{
    if (k->backend[0] != '\0')
        xml_attr(x, "name", strcmp(k->backend, "qdisk") == 0 ? "qemu" : k->backend);
    xml_attr(x, "type", k->format[0] != '\0' ? k->format : "raw");
}

static const char *bus_of(const Migrd__Domain *d, const Migrd__Disk *k)
{
    if (!define_is_xen(d))
        return "virtio";
    return strncmp(k->device, "hd", 2) == 0   ? "ide"
           : strncmp(k->device, "sd", 2) == 0 ? "scsi"
                                              : "xen";
}

static void put_disk(struct xml_out *x, const Migrd__Domain *d, const Migrd__Disk *k)
{
    const char *policy = define_io_error_word(k->on_io_error);
    bool block = strncmp(k->source, "/dev/", 5) == 0;
    struct define_source s;

    xml_begin(x, "disk");
    xml_attr(x, "type", storage_url_is_network(k->source) ? "network" : block ? "block" : "file");
    xml_attr(x, "device", k->cdrom ? "cdrom" : "disk");
    xml_begin(x, "driver");
    put_driver_name(x, k);
    if (k->cache[0] != '\0')
        xml_attr(x, "cache", k->cache);
    if (policy != NULL)
        xml_attr(x, "error_policy", policy);
    xml_end(x);
    if (define_source_split(k->source, &s))
        put_network_source(x, &s);
    else
        put_source(x, k, block);
    xml_begin(x, "target");
    xml_attr(x, "dev", k->device);
    xml_attr(x, "bus", bus_of(d, k));
    xml_end(x);
    tag(x, "script", "path", k->script);
    if (k->serial[0] != '\0')
        xml_text(x, "serial", k->serial);
    if (k->wwn[0] != '\0')
        xml_text(x, "wwn", k->wwn);
    if (k->read_only) {
        xml_begin(x, "readonly");
        xml_end(x);
    }
    xml_end(x);
}

/* "10.0.0.1/24 fe80::1": one element for each. */
static void put_addresses(struct xml_out *x, const char *ip)
{
    char one[200], *slash;

    for (size_t n; *ip != '\0'; ip += n + (ip[n] == ' ')) {
        n = strcspn(ip, " ");
        snprintf(one, sizeof one, "%.*s", (int)n, ip);
        slash = strchr(one, '/');
        if (slash != NULL)
            *slash = '\0';
        xml_begin(x, "ip");
        xml_attr(x, "address", one);
        xml_attr(x, "family", strchr(one, ':') != NULL ? "ipv6" : "ipv4");
        if (slash != NULL)
            xml_attr(x, "prefix", slash + 1);
        xml_end(x);
    }
}

static void put_xen_vif(struct xml_out *x, const Migrd__Vif *v)
{
    put_addresses(x, v->ip);
    tag(x, "script", "path", v->script);
    if (v->rate_kib == 0)
        return;
    xml_begin(x, "bandwidth");
    xml_begin(x, "outbound");
    attr_number(x, "average", v->rate_kib);
    xml_end(x);
    xml_end(x);
}

static const char *model_of(const Migrd__Domain *d, const Migrd__Vif *v)
{
    if (!define_is_xen(d))
        return "virtio";
    return v->model[0] != '\0' || hv_guest_type(d) == MIGRD__GUEST_TYPE__GUEST_HVM ? v->model
                                                                                   : "netfront";
}

static void put_vif(struct xml_out *x, const Migrd__Domain *d, const Migrd__Vif *v)
{
    xml_begin(x, "interface");
    xml_attr(x, "type", v->bridge[0] != '\0' ? "bridge" : "ethernet");
    tag(x, "mac", "address", v->mac);
    tag(x, "source", "bridge", v->bridge);
    tag(x, "target", "dev", v->ifname);
    tag(x, "model", "type", model_of(d, v));
    put_xen_vif(x, v);
    if (v->mtu != 0) {
        xml_begin(x, "mtu");
        x->failed |=
            xmlTextWriterWriteFormatAttribute(x->w, (const xmlChar *)"size", "%u", v->mtu) < 0;
        xml_end(x);
    }
    xml_end(x);
}

static void put_devices(struct xml_out *x, const Migrd__Domain *d, const struct define_live *live)
{
    bool xen = define_is_xen(d);

    xml_begin(x, "devices");
    for (size_t i = 0; i < d->n_disks; i++)
        put_disk(x, d, d->disks[i]);
    for (size_t i = 0; i < d->n_vifs; i++)
        put_vif(x, d, d->vifs[i]);
    xml_begin(x, "console");
    xml_attr(x, "type", "pty");
    if (live->console[0] != '\0')
        xml_attr(x, "tty", live->console);
    tag(x, "source", "path", live->console);
    tag(x, "target", "type", xen ? "xen" : "serial");
    xml_end(x);
    tag(x, "memballoon", "model", !d->balloon ? "none" : xen ? "xen" : "virtio");
    if (d->rng) {
        xml_begin(x, "rng");
        xml_attr(x, "model", "virtio");
        xml_begin(x, "backend");
        xml_attr(x, "model", "random");
        x->failed |= xmlTextWriterWriteString(x->w, (const xmlChar *)"/dev/urandom") < 0;
        xml_end(x);
        xml_end(x);
    }
    xml_end(x);
}

static void put_domain(struct xml_out *x, const Migrd__Domain *d, const struct define_live *live)
{
    xml_begin(x, "domain");
    xml_attr(x, "type", d->hypervisor);
    if (live->id >= 0)
        x->failed |=
            xmlTextWriterWriteFormatAttribute(x->w, (const xmlChar *)"id", "%d", live->id) < 0;
    put_head(x, d);
    put_os(x, d);
    put_event(x, "on_poweroff", d->on_poweroff);
    put_event(x, "on_reboot", d->on_reboot);
    put_event(x, "on_crash", d->on_crash);
    put_devices(x, d, live);
    xml_end(x);
    x->failed |= xmlTextWriterWriteRaw(x->w, (const xmlChar *)"\n") < 0;
}

char *define_xml(const Migrd__Domain *d, int id, struct err *e)
{
    const struct define_live live = { .id = id, .console = "" };

    return define_xml_live(d, &live, e);
}

char *define_xml_live(const Migrd__Domain *d, const struct define_live *live, struct err *e)
{
    struct xml_out x;
    char *result;

    if (define_check(d, e) < 0)
        return NULL;
    xml_start(&x);
    if (!x.failed)
        put_domain(&x, d, live);
    result = xml_finish(&x);
    if (result == NULL)
        err_set(e, ERR_MEMORY, "domain %s: no memory to write its definition", d->name);
    return result;
}
