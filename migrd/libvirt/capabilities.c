/* SPDX-License-Identifier: ISC */
/*
 * libvirt's <capabilities>: what virt-install and virt-manager ask before they write a
 * definition. CPU features are named as libvirt names them, which is how Linux does.
 */
#include <stdlib.h>
#include <string.h>

#include <libxml/xmlwriter.h>

#include "migrd/libvirt/internal.h"

struct writer {
    xmlTextWriter *w;
    bool failed;
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

static void attr_number(struct writer *x, const char *name, unsigned long long value)
{
    x->failed |= xmlTextWriterWriteFormatAttribute(x->w, (const xmlChar *)name, "%llu", value) < 0;
}

static void text(struct writer *x, const char *name, const char *value)
{
    x->failed |= xmlTextWriterWriteElement(x->w, (const xmlChar *)name, (const xmlChar *)value) < 0;
}

static const char *vendor(const struct hv_caps *c)
{
    if (strcmp(c->cpu_vendor, "GenuineIntel") == 0)
        return "Intel";
    return strcmp(c->cpu_vendor, "AuthenticAMD") == 0 ? "AMD" : c->cpu_vendor;
}

static void put_features(struct writer *x, const struct hv_caps *c)
{
    for (unsigned w = 0; hv_feature_word_name(w) != NULL; w++)
        for (unsigned bit = 0; bit < 32; bit++) {
            const char *name = hv_feature_name(w, bit);

            if ((c->features[w] >> bit & 1) == 0 || name == NULL)
                continue;
            begin(x, "feature");
            attr(x, "name", name);
            end(x);
        }
}

static void put_cpu(struct writer *x, const struct hv_caps *c)
{
    begin(x, "cpu");
    text(x, "arch", "x86_64");
    text(x, "vendor", vendor(c));
    begin(x, "topology");
    attr(x, "sockets", "1");
    attr_number(x, "cores", c->host_cpus);
    attr(x, "threads", "1");
    end(x);
    put_features(x, c);
    end(x);
}

static void put_host(struct writer *x, const struct migrd *m)
{
    begin(x, "host");
    put_cpu(x, &m->caps);
    begin(x, "migration_features");
    text(x, "live", "");
    end(x);
    end(x);
}

static void put_guest(struct writer *x, const struct migrd *m)
{
    begin(x, "guest");
    text(x, "os_type", "linux");
    begin(x, "arch");
    attr(x, "name", "x86_64");
    text(x, "wordsize", "64");
    begin(x, "domain");
    attr(x, "type", m->hv_ops->name);
    end(x);
    end(x);
    end(x);
}

char *lv_capabilities(const struct migrd *m, struct err *e)
{
    xmlBuffer *buffer = xmlBufferCreate();
    struct writer x = { NULL, true };
    char *result = NULL;

    x.w = buffer == NULL ? NULL : xmlNewTextWriterMemory(buffer, 0);
    if (x.w != NULL) {
        x.failed = xmlTextWriterSetIndent(x.w, 1) < 0 ||
                   xmlTextWriterSetIndentString(x.w, (const xmlChar *)"  ") < 0;
        begin(&x, "capabilities");
        put_host(&x, m);
        put_guest(&x, m);
        end(&x);
        x.failed |= xmlTextWriterFlush(x.w) < 0;
        xmlFreeTextWriter(x.w);
    }
    if (!x.failed)
        result = strdup((const char *)xmlBufferContent(buffer));
    xmlBufferFree(buffer);
    if (result == NULL)
        err_set(e, ERR_MEMORY, "no memory to write the host's capabilities");
    return result;
}
