/* SPDX-License-Identifier: ISC */
/*
 * libvirt's <capabilities>: what virt-install and virt-manager ask before they write a
 * definition. CPU features are named as libvirt names them, which is how Linux does.
 */
#include <string.h>

#include "migrd/define/xml_out.h"
#include "migrd/libvirt/internal.h"

static const char *vendor(const struct hv_caps *c)
{
    if (strcmp(c->cpu_vendor, "GenuineIntel") == 0)
        return "Intel";
    return strcmp(c->cpu_vendor, "AuthenticAMD") == 0 ? "AMD" : c->cpu_vendor;
}

static void put_features(struct xml_out *x, const struct hv_caps *c)
{
    for (unsigned w = 0; hv_feature_word_name(w) != NULL; w++)
        for (unsigned bit = 0; bit < 32; bit++) {
            const char *name = hv_feature_name(w, bit);

            if ((c->features[w] >> bit & 1) == 0 || name == NULL)
                continue;
            xml_begin(x, "feature");
            xml_attr(x, "name", name);
            xml_end(x);
        }
}

static void put_cpu(struct xml_out *x, const struct hv_caps *c)
{
    xml_begin(x, "cpu");
    xml_text(x, "arch", "x86_64");
    xml_text(x, "vendor", vendor(c));
    xml_begin(x, "topology");
    xml_attr(x, "sockets", "1");
    xml_attr_number(x, "cores", c->host_cpus);
    xml_attr(x, "threads", "1");
    xml_end(x);
    put_features(x, c);
    xml_end(x);
}

static void put_host(struct xml_out *x, const struct migrd *m)
{
    xml_begin(x, "host");
    put_cpu(x, &m->caps);
    xml_begin(x, "migration_features");
    xml_text(x, "live", "");
    xml_end(x);
    xml_end(x);
}

static void put_guest(struct xml_out *x, const struct migrd *m)
{
    xml_begin(x, "guest");
    xml_text(x, "os_type", "linux");
    xml_begin(x, "arch");
    xml_attr(x, "name", "x86_64");
    xml_text(x, "wordsize", "64");
    xml_begin(x, "domain");
    xml_attr(x, "type", m->hv_ops->name);
    xml_end(x);
    xml_end(x);
    xml_end(x);
}

char *lv_capabilities(const struct migrd *m, struct err *e)
{
    struct xml_out x;
    char *result;

    xml_start(&x);
    if (!x.failed) {
        xml_begin(&x, "capabilities");
        put_host(&x, m);
        put_guest(&x, m);
        xml_end(&x);
    }
    result = xml_finish(&x);
    if (result == NULL)
        err_set(e, ERR_MEMORY, "no memory to write the host's capabilities");
    return result;
}
