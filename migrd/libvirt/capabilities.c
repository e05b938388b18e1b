/* SPDX-License-Identifier: ISC */
/*
 * libvirt's <capabilities>: what virt-install and virt-manager ask before they write a
 * definition. CPU features are named as libvirt names them, which is how Linux does. On Xen there
 * is one <guest> for each type that the host can build, as libvirt's own driver writes them, and
 * <domainCapabilities> of each.
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

static const struct {
    Migrd__GuestType type;
    const char *os, *machine, *bus;
} xen_types[] = {
    { MIGRD__GUEST_TYPE__GUEST_PVH, "xenpvh", "xenpvh", "xen" },
    { MIGRD__GUEST_TYPE__GUEST_PV, "xen", "xenpv", "xen" },
    { MIGRD__GUEST_TYPE__GUEST_HVM, "hvm", "xenfv", "ide" },
};

#define N_XEN_TYPES (sizeof xen_types / sizeof xen_types[0])

static bool is_xen(const struct migrd *m)
{
    return strcmp(m->hv_ops->name, "xen") == 0;
}

const char *lv_os_word(const struct migrd *m, Migrd__GuestType t)
{
    for (size_t i = 0; is_xen(m) && i < N_XEN_TYPES; i++)
        if (xen_types[i].type == t)
            return xen_types[i].os;
    return "linux";
}

static void put_guest(struct xml_out *x, const struct migrd *m, const char *os, const char *machine)
{
    xml_begin(x, "guest");
    xml_text(x, "os_type", os);
    xml_begin(x, "arch");
    xml_attr(x, "name", "x86_64");
    xml_text(x, "wordsize", "64");
    if (machine != NULL)
        xml_text(x, "machine", machine);
    xml_begin(x, "domain");
    xml_attr(x, "type", m->hv_ops->name);
    xml_end(x);
    xml_end(x);
    xml_end(x);
}

static bool can_build(const struct migrd *m, size_t i)
{
    return m->caps.guest_types == 0 ||
           (m->caps.guest_types >> (unsigned)xen_types[i].type & 1) != 0;
}

static void put_guests(struct xml_out *x, const struct migrd *m)
{
    if (!is_xen(m))
        put_guest(x, m, "linux", NULL);
    for (size_t i = 0; is_xen(m) && i < N_XEN_TYPES; i++)
        if (can_build(m, i))
            put_guest(x, m, xen_types[i].os, xen_types[i].machine);
}

char *lv_capabilities(const struct migrd *m, struct err *e)
{
    struct xml_out x;
    char *result;

    xml_start(&x);
    if (!x.failed) {
        xml_begin(&x, "capabilities");
        put_host(&x, m);
        put_guests(&x, m);
        xml_end(&x);
    }
    result = xml_finish(&x);
    if (result == NULL)
        err_set(e, ERR_MEMORY, "no memory to write the host's capabilities");
    return result;
}

/* --- of one type of guest --- */

static void put_enum(struct xml_out *x, const char *name, const char *value)
{
    xml_begin(x, "enum");
    xml_attr(x, "name", name);
    xml_text(x, "value", value);
    xml_end(x);
}

static void put_supported(struct xml_out *x, const char *name, bool yes)
{
    xml_begin(x, name);
    xml_attr(x, "supported", yes ? "yes" : "no");
    xml_end(x);
}

static void put_devices(struct xml_out *x, size_t i)
{
    static const char *const none[] = { "graphics", "video", "hostdev", "rng", "filesystem",
        "tpm" };

    xml_begin(x, "devices");
    xml_begin(x, "disk");
    xml_attr(x, "supported", "yes");
    put_enum(x, "diskDevice", "disk");
    put_enum(x, "bus", xen_types[i].bus);
    xml_end(x);
    for (size_t n = 0; n < sizeof none / sizeof none[0]; n++)
        put_supported(x, none[n], false);
    xml_end(x);
}

static char *domain_capabilities(const struct migrd *m, size_t i)
{
    struct xml_out x;

    xml_start(&x);
    if (x.failed)
        return xml_finish(&x);
    xml_begin(&x, "domainCapabilities");
    xml_text(&x, "domain", "xen");
    xml_text(&x, "machine", xen_types[i].machine);
    xml_text(&x, "arch", "x86_64");
    xml_begin(&x, "vcpu");
    xml_attr_number(&x, "max", m->caps.max_vcpus);
    xml_end(&x);
    put_supported(&x, "os", true);
    put_devices(&x, i);
    xml_end(&x);
    return xml_finish(&x);
}

/* Which of the types is asked for; the first that there is where nothing is said. */
static int type_asked(const struct migrd *m, const char *machine)
{
    for (size_t i = 0; i < N_XEN_TYPES; i++)
        if (can_build(m, i) && (machine[0] == '\0' || strcmp(xen_types[i].machine, machine) == 0))
            return (int)i;
    return -1;
}

static const char *word(lv_name *const *field)
{
    return *field != NULL ? **field : "";
}

int lv_get_domain_capabilities(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_domcaps_args *a = args;
    const char *arch = word(&a->arch), *virt = word(&a->virt), *machine = word(&a->machine);
    int i = is_xen(k->m) ? type_asked(k->m, machine) : -1;

    if (!is_xen(k->m))
        return lv_fail(k, e, LV_E_NO_SUPPORT,
            "capabilities for a kind of domain: there is one kind here; virsh capabilities has the "
            "host's");
    if (lv_check_flags(k, a->flags, 0, e) < 0)
        return -1;
    if (i < 0 || (virt[0] != '\0' && strcmp(virt, "xen") != 0) ||
        (arch[0] != '\0' && strcmp(arch, "x86_64") != 0))
        return lv_fail(k, e, LV_E_INVALID_ARG,
            "no domains of type '%.40s', machine '%.40s', architecture '%.40s' on this host", virt,
            machine, arch);
    ((lv_string *)ret)->value = domain_capabilities(k->m, (size_t)i);
    return ((lv_string *)ret)->value != NULL
               ? 0
               : err_set(e, ERR_MEMORY, "no memory to write the capabilities of domains");
}
