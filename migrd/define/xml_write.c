/* SPDX-License-Identifier: ISC */
/*
 * A definition as libvirt's domain XML, in the order of elements that libvirt writes.
 * Reading the result gives the same definition again.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libxml/xmlwriter.h>

#include "hypervisor/cpu_level.h"
#include "migrd/define/internal.h"
#include "storage-check/url.h"

/* Failures of single calls are collected in `failed`: they all mean no memory. */
struct writer {
    xmlTextWriter *w;
    bool failed;
    const struct define_live *live;
};

static void begin(struct writer *x, const char *name)
{
    x->failed |= xmlTextWriterStartElement(x->w, (const xmlChar *)name) < 0;
}

static void end(struct writer *x)
{
    x->failed |= xmlTextWriterEndElement(x->w) < 0;
}

static void attr(struct writer *x, const char *name, const char *value)
{
    x->failed |=
        xmlTextWriterWriteAttribute(x->w, (const xmlChar *)name, (const xmlChar *)value) < 0;
}

static void text(struct writer *x, const char *name, const char *value)
{
    x->failed |= xmlTextWriterWriteElement(x->w, (const xmlChar *)name, (const xmlChar *)value) < 0;
}

/* <name a='v'/>, or nothing without a value. */
static void tag(struct writer *x, const char *name, const char *a, const char *value)
{
    if (value[0] == '\0')
        return;
    begin(x, name);
    attr(x, a, value);
    end(x);
}

static void number(struct writer *x, const char *name, uint64_t kib)
{
    begin(x, name);
    attr(x, "unit", "KiB");
    x->failed |= xmlTextWriterWriteFormatString(x->w, "%" PRIu64, kib) < 0;
    end(x);
}

/* A level of one's own: libvirt has no words for it. */
static void put_metadata(struct writer *x, const Migrd__Domain *d)
{
    if (strchr(d->cpu_level, '/') == NULL)
        return;
    begin(x, "metadata");
    x->failed |= xmlTextWriterStartElementNS(x->w, (const xmlChar *)"migrd",
                     (const xmlChar *)"cpu", (const xmlChar *)DEFINE_XML_NS) < 0;
    attr(x, "level", d->cpu_level);
    end(x);
    end(x);
}

/* "x86-64-v2,-avx,+aes", or "host,-avx". */
static void put_cpu(struct writer *x, const Migrd__Domain *d)
{
    size_t n = strcspn(d->cpu_level, ",");
    bool host = strncmp(d->cpu_level, "host", 4) == 0;
    const char *p = d->cpu_level + n;
    char word[CPU_LEVEL_MAX];

    if (d->cpu_level[0] == '\0' || strchr(d->cpu_level, '/') != NULL)
        return;
    begin(x, "cpu");
    attr(x, "mode", host ? "host-passthrough" : "custom");
    if (!host) {
        attr(x, "match", "exact");
        snprintf(word, sizeof word, "%.*s", (int)n, d->cpu_level);
        text(x, "model", word);
    }
    for (; *p == ','; p += n) {
        n = 1 + strcspn(p + 1, ",");
        snprintf(word, sizeof word, "%.*s", (int)n - 2, p + 2);
        begin(x, "feature");
        attr(x, "policy", p[1] == '-' ? "disable" : "require");
        attr(x, "name", word);
        end(x);
    }
    end(x);
}

static void put_head(struct writer *x, const Migrd__Domain *d)
{
    text(x, "name", d->name);
    text(x, "uuid", d->uuid);
    put_metadata(x, d);
    number(x, "memory", d->max_memory_kib);
    number(x, "currentMemory", d->memory_kib);
    if (d->huge_pages) {
        begin(x, "memoryBacking");
        begin(x, "hugepages");
        end(x);
        end(x);
    }
    begin(x, "vcpu");
    attr(x, "placement", "static");
    if (d->vcpu_pinning[0] != '\0')
        attr(x, "cpuset", d->vcpu_pinning);
    x->failed |= xmlTextWriterWriteFormatString(x->w, "%u", d->vcpus) < 0;
    end(x);
}

static void put_os(struct writer *x, const Migrd__Domain *d)
{
    begin(x, "os");
    begin(x, "type");
    attr(x, "arch", "x86_64");
    x->failed |= xmlTextWriterWriteString(x->w, (const xmlChar *)"linux") < 0;
    end(x);
    text(x, "kernel", d->kernel);
    if (d->initrd[0] != '\0')
        text(x, "initrd", d->initrd);
    if (d->cmdline[0] != '\0')
        text(x, "cmdline", d->cmdline);
    end(x);
    put_cpu(x, d);
    tag(x, "clock", "offset", "utc");
}

static void put_event(struct writer *x, const char *name, Migrd__OnEvent on)
{
    const char *word = define_on_event_word(on);

    if (word != NULL)
        text(x, name, word);
}

static void put_network_source(struct writer *x, const struct define_source *s)
{
    begin(x, "source");
    attr(x, "protocol", s->protocol);
    attr(x, "name", s->name);
    if (s->query[0] != '\0')
        attr(x, "query", s->query);
    begin(x, "host");
    attr(x, "name", s->host);
    if (s->port[0] != '\0')
        attr(x, "port", s->port);
    end(x);
    if (s->user[0] != '\0') {
        begin(x, "auth");
        attr(x, "username", s->user);
        begin(x, "secret");
        attr(x, "type", "iscsi");
        attr(x, "usage", "storage-secrets");
        end(x);
        end(x);
    }
    end(x);
}

static void put_source(struct writer *x, const Migrd__Disk *k, bool block)
{
    char wwpn[17];

    begin(x, "source");
    attr(x, block ? "dev" : "file", k->source);
    if (k->npiv[0] != '\0') {
        snprintf(wwpn, sizeof wwpn, "%.16s", k->npiv);
        begin(x, "adapter");
        attr(x, "type", "fc_host");
        attr(x, "wwnn", k->npiv + 17);
        attr(x, "wwpn", wwpn);
        end(x);
    }
    end(x);
}

static void put_disk(struct writer *x, const Migrd__Domain *d, const Migrd__Disk *k)
{
    const char *policy = define_io_error_word(k->on_io_error);
    bool block = strncmp(k->source, "/dev/", 5) == 0;
    struct define_source s;

    begin(x, "disk");
    attr(x, "type", storage_url_is_network(k->source) ? "network" : block ? "block" : "file");
    attr(x, "device", "disk");
    begin(x, "driver");
    attr(x, "type", "raw");
    if (k->cache[0] != '\0')
        attr(x, "cache", k->cache);
    if (policy != NULL)
        attr(x, "error_policy", policy);
    end(x);
    if (define_source_split(k->source, &s))
        put_network_source(x, &s);
    else
        put_source(x, k, block);
    begin(x, "target");
    attr(x, "dev", k->device);
    attr(x, "bus", strcmp(d->hypervisor, "xen") == 0 ? "xen" : "virtio");
    end(x);
    if (k->serial[0] != '\0')
        text(x, "serial", k->serial);
    if (k->wwn[0] != '\0')
        text(x, "wwn", k->wwn);
    if (k->read_only) {
        begin(x, "readonly");
        end(x);
    }
    end(x);
}

static void put_vif(struct writer *x, const Migrd__Domain *d, const Migrd__Vif *v)
{
    begin(x, "interface");
    attr(x, "type", v->bridge[0] != '\0' ? "bridge" : "ethernet");
    tag(x, "mac", "address", v->mac);
    tag(x, "source", "bridge", v->bridge);
    tag(x, "target", "dev", v->ifname);
    tag(x, "model", "type", strcmp(d->hypervisor, "xen") == 0 ? "netfront" : "virtio");
    if (v->mtu != 0) {
        begin(x, "mtu");
        x->failed |=
            xmlTextWriterWriteFormatAttribute(x->w, (const xmlChar *)"size", "%u", v->mtu) < 0;
        end(x);
    }
    end(x);
}

static void put_devices(struct writer *x, const Migrd__Domain *d)
{
    bool xen = strcmp(d->hypervisor, "xen") == 0;

    begin(x, "devices");
    for (size_t i = 0; i < d->n_disks; i++)
        put_disk(x, d, d->disks[i]);
    for (size_t i = 0; i < d->n_vifs; i++)
        put_vif(x, d, d->vifs[i]);
    begin(x, "console");
    attr(x, "type", "pty");
    if (x->live->console[0] != '\0')
        attr(x, "tty", x->live->console);
    tag(x, "source", "path", x->live->console);
    tag(x, "target", "type", xen ? "xen" : "serial");
    end(x);
    tag(x, "memballoon", "model", !d->balloon ? "none" : xen ? "xen" : "virtio");
    if (d->rng) {
        begin(x, "rng");
        attr(x, "model", "virtio");
        begin(x, "backend");
        attr(x, "model", "random");
        x->failed |= xmlTextWriterWriteString(x->w, (const xmlChar *)"/dev/urandom") < 0;
        end(x);
        end(x);
    }
    end(x);
}

static void put_domain(struct writer *x, const Migrd__Domain *d)
{
    int id = x->live->id;

    begin(x, "domain");
    attr(x, "type", d->hypervisor);
    if (id >= 0)
        x->failed |= xmlTextWriterWriteFormatAttribute(x->w, (const xmlChar *)"id", "%d", id) < 0;
    put_head(x, d);
    put_os(x, d);
    put_event(x, "on_poweroff", d->on_poweroff);
    put_event(x, "on_reboot", d->on_reboot);
    put_event(x, "on_crash", d->on_crash);
    put_devices(x, d);
    end(x);
    x->failed |= xmlTextWriterWriteRaw(x->w, (const xmlChar *)"\n") < 0;
}

char *define_xml(const Migrd__Domain *d, int id, struct err *e)
{
    const struct define_live live = { .id = id, .console = "" };

    return define_xml_live(d, &live, e);
}

char *define_xml_live(const Migrd__Domain *d, const struct define_live *live, struct err *e)
{
    xmlBuffer *buffer = NULL;
    struct writer x = { NULL, true, live };
    char *result = NULL;

    if (define_check(d, e) < 0)
        return NULL;
    buffer = xmlBufferCreate();
    x.w = buffer == NULL ? NULL : xmlNewTextWriterMemory(buffer, 0);
    if (x.w != NULL) {
        x.failed = xmlTextWriterSetIndent(x.w, 1) < 0 ||
                   xmlTextWriterSetIndentString(x.w, (const xmlChar *)"  ") < 0;
        put_domain(&x, d);
        x.failed |= xmlTextWriterFlush(x.w) < 0;
        xmlFreeTextWriter(x.w);
    }
    if (!x.failed)
        result = strdup((const char *)xmlBufferContent(buffer));
    xmlBufferFree(buffer);
    if (result == NULL)
        err_set(e, ERR_MEMORY, "domain %s: no memory to write its definition", d->name);
    return result;
}
