/* SPDX-License-Identifier: ISC */
/*
 * libvirt's domain XML. For each element that may have children there is a table of
 * those we know: read, harmless (it asks for nothing that could be lost: wiring, hints,
 * notes), or refused with a reason. Attributes are listed as well. Whatever is in no
 * table is refused by name and line, so that no wish of the author is dropped in silence.
 * Here are the parser and the domain itself; xml_devices.c and xml_cpu.c have the parts.
 *
 * Bytes may come from anywhere: no DTD (hence no entities), no network, no files, at most
 * DEFINE_TEXT_MAX bytes, libxml2's own limit on depth; the tables go five levels deep.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libxml/parser.h>

#include "migrd/define/xml_node.h"

/* ---- domain ---- */

static int read_name(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return xml_set_text(r, n, &r->d->name);
}

static int read_uuid(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return xml_set_text(r, n, &r->d->uuid);
}

/* 0: it is none. */
static unsigned long vcpu_count(const char *text)
{
    char *end;
    unsigned long count =
        isdigit((unsigned char)text[0]) && strlen(text) < 6 ? strtoul(text, &end, 10) : 0;

    return count != 0 && *end == '\0' && count <= DEFINE_VCPUS_MAX ? count : 0;
}

static int read_title(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return xml_set_text(r, n, &r->d->title);
}

static int read_description(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return xml_set_text(r, n, &r->d->description);
}

static int read_vcpu(struct reader *r, xmlNode *n, void *object)
{
    char current[XML_ATTR_MAX], cpuset[XML_ATTR_MAX], *text;
    unsigned long most, now;

    (void)object;
    if (xml_want_attr(r, n, "placement", "static") < 0 ||
        xml_get_attr(r, n, "current", current) < 0 || xml_get_attr(r, n, "cpuset", cpuset) < 0)
        return -1;
    text = xml_get_text(r, n);
    if (text == NULL)
        return -1;
    most = vcpu_count(text);
    free(text);
    if (most == 0)
        return define_fault(
            r, xml_line_of(n), ERR_INVALID, "<vcpu> must be from 1 to %d", DEFINE_VCPUS_MAX);
    now = current[0] != '\0' ? vcpu_count(current) : most;
    if (now == 0 || now > most)
        return define_fault(r, xml_line_of(n), ERR_INVALID,
            "<vcpu current='%.20s'> must be from 1 to %lu, its maximum", current, most);
    define_set_vcpus(r->d, (unsigned)now, (unsigned)most);
    return define_text(r, &r->d->vcpu_pinning, cpuset);
}

static int read_event(struct reader *r, xmlNode *n, void *object)
{
    Migrd__OnEvent *on = strcmp(xml_name_of(n), "on_poweroff") == 0 ? &r->d->on_poweroff
                         : strcmp(xml_name_of(n), "on_reboot") == 0 ? &r->d->on_reboot
                                                                    : &r->d->on_crash;
    char *text = xml_get_text(r, n);
    int rc;

    (void)object;
    if (text == NULL)
        return -1;
    rc = define_on_event(r, xml_line_of(n), xml_name_of(n), text, on);
    free(text);
    return rc;
}

static const struct xml_rule feature_rules[] = {
    { "acpi", "", NULL, NULL, false },
    { "viridian", "", NULL, "guests are not told of another hypervisor than theirs", false },
    { "apic", "eoi", NULL, NULL, false },
    { "pae", "", NULL, NULL, false },
    { "hap", "state", NULL, NULL, false },
    { "vmport", "state", NULL, NULL, false },
};

static int read_features(struct reader *r, xmlNode *n, void *object)
{
    return xml_walk(r, n, feature_rules, XML_COUNT(feature_rules), object);
}

/* Of Xen's guests the TSC's mode; the other timers are as they are. */
static int read_timer(struct reader *r, xmlNode *n, void *object)
{
    char name[XML_ATTR_MAX], mode[XML_ATTR_MAX];

    (void)object;
    if (xml_get_attr(r, n, "name", name) < 0 || xml_get_attr(r, n, "mode", mode) < 0)
        return -1;
    if (!define_is_xen(r->d) || strcmp(name, "tsc") != 0 || mode[0] == '\0')
        return 0;
    return define_tsc_mode(r, xml_line_of(n), mode, &r->d->tsc_mode);
}

static const struct xml_rule clock_rules[] = { { "timer", "*", read_timer, NULL, true } };

/* libvirt's driver for Xen says "variable" for a clock that begins as UTC. */
static int read_clock(struct reader *r, xmlNode *n, void *object)
{
    if (xml_want_attr(r, n, "offset", define_is_xen(r->d) ? "utc variable" : "utc") < 0 ||
        xml_want_attr(r, n, "adjustment", "0") < 0 || xml_want_attr(r, n, "basis", "utc") < 0)
        return -1;
    return xml_walk(r, n, clock_rules, XML_COUNT(clock_rules), object);
}

static int read_seclabel(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    return xml_want_attr(r, n, "type", "none dynamic");
}

static int read_own_cpu(struct reader *r, xmlNode *n)
{
    char level[XML_ATTR_MAX];

    if (xml_check_attrs(r, n, "level") < 0 || xml_need_attr(r, n, "level", level) < 0)
        return -1;
    if (r->d->cpu_level[0] != '\0')
        return define_fault(r, xml_line_of(n), ERR_INVALID,
            "<migrd:cpu>: the CPU level is there twice, here and in <cpu> or before");
    return define_text(r, &r->d->cpu_level, strcmp(level, "host") == 0 ? "" : level);
}

/* <migrd:xen on_watchdog='...'/>: libvirt has no word for it. */
static int read_own_xen(struct reader *r, xmlNode *n)
{
    char word[XML_ATTR_MAX];

    if (xml_check_attrs(r, n, "on_watchdog") < 0 || xml_need_attr(r, n, "on_watchdog", word) < 0)
        return -1;
    return define_on_event(r, xml_line_of(n), "on_watchdog", word, &r->d->on_watchdog);
}

/* Other programs' notes are theirs; what is in our namespace we know. */
static int read_metadata(struct reader *r, xmlNode *n, void *object)
{
    (void)object;
    for (xmlNode *c = n->children; c != NULL; c = c->next) {
        if (c->type != XML_ELEMENT_NODE)
            continue;
        if (c->ns == NULL || c->ns->href == NULL ||
            strcmp((const char *)c->ns->href, DEFINE_XML_NS) != 0) {
            if (define_metadata_add(r, n->doc, c) < 0)
                return -1;
            continue;
        }
        if (strcmp(xml_name_of(c), "cpu") != 0 && strcmp(xml_name_of(c), "xen") != 0)
            return define_fault(r, xml_line_of(c), ERR_UNSUPPORTED,
                "<%.40s> of namespace " DEFINE_XML_NS " is not supported", xml_name_of(c));
        if ((strcmp(xml_name_of(c), "cpu") == 0 ? read_own_cpu(r, c) : read_own_xen(r, c)) < 0)
            return -1;
    }
    return 0;
}

static int read_bootloader(struct reader *r, xmlNode *n, void *object)
{
    char *text;
    int rc;

    (void)object;
    if (!define_is_xen(r->d))
        return define_fault(r, xml_line_of(n), ERR_UNSUPPORTED,
            "<bootloader> in <domain> is not supported: kernels are not taken out of disk images; "
            "use <kernel>");
    text = xml_get_text(r, n);
    if (text == NULL)
        return -1;
    rc = define_bootloader(r, xml_line_of(n), text, &r->d->bootloader);
    free(text);
    return rc;
}

static int read_bootloader_args(struct reader *r, xmlNode *n, void *object)
{
    char *text = xml_get_text(r, n);
    int rc;

    (void)object;
    if (text == NULL)
        return -1;
    rc = define_add_bootloader_args(r, text);
    free(text);
    return rc;
}

static const struct xml_rule domain_rules[] = {
    { "name", "", read_name, NULL, false },
    { "uuid", "", read_uuid, NULL, false },
    { "title", "", read_title, NULL, false },
    { "description", "", read_description, NULL, false },
    { "metadata", "*", read_metadata, NULL, false },
    { "memory", "unit", xml_read_memory, NULL, false },
    { "currentMemory", "unit", xml_read_current_memory, NULL, false },
    { "memoryBacking", "", xml_read_backing, NULL, false },
    { "vcpu", "placement cpuset current", read_vcpu, NULL, false },
    { "os", "firmware", xml_read_os, NULL, false },
    { "features", "", read_features, NULL, false },
    { "cpu", "mode check migratable match", xml_read_cpu, NULL, false },
    { "clock", "offset adjustment basis", read_clock, NULL, false },
    { "on_poweroff", "", read_event, NULL, false },
    { "on_reboot", "", read_event, NULL, false },
    { "on_crash", "", read_event, NULL, false },
    { "pm", "", NULL, NULL, false },
    { "resource", "", NULL, NULL, false },
    { "devices", "", xml_read_devices, NULL, false },
    { "seclabel", "type model relabel", read_seclabel, NULL, true },
    { "maxMemory", "", NULL, "memory is not plugged in; raise <memory>", false },
    { "bootloader", "", read_bootloader, NULL, false },
    { "bootloader_args", "", read_bootloader_args, NULL, false },
    { "cputune", "", xml_read_cputune, NULL, false },
    { "launchSecurity", "", NULL, "encrypted memory cannot be migrated", false },
};

static int read_domain(struct reader *r, xmlDoc *doc, xmlNode *root, void *object)
{
    char type[XML_ATTR_MAX];

    (void)doc;
    (void)object;
    if (root == NULL || strcmp(xml_name_of(root), "domain") != 0 || root->ns != NULL)
        return define_fault(r, 1, ERR_INVALID, "<%.40s> is no domain; <domain> is needed",
            root == NULL ? "" : xml_name_of(root));
    if (xml_check_attrs(r, root, "type id") < 0 || xml_need_attr(r, root, "type", type) < 0 ||
        xml_want_attr(r, root, "type", "xvm kvm xen") < 0)
        return -1;
    if (define_text(r, &r->d->hypervisor, strcmp(type, "xen") == 0 ? "xen" : "xvm") < 0 ||
        xml_walk(r, root, domain_rules, XML_COUNT(domain_rules), NULL) < 0)
        return -1;
    if (r->d->kernel[0] == '\0' && r->d->bootloader[0] == '\0' &&
        r->d->type != MIGRD__GUEST_TYPE__GUEST_HVM)
        return define_fault(r, xml_line_of(root), ERR_UNSUPPORTED,
            "<os> has no <kernel>: only direct kernel boot is supported; add <kernel>, <initrd> "
            "and <cmdline>");
    if (r->d->max_memory_kib == 0)
        return define_fault(r, xml_line_of(root), ERR_INVALID, "<domain> has no <memory>");
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

int xml_parse(struct reader *r, const char *text, size_t len, use_root *use, void *object)
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
        rc = use(r, doc, xmlDocGetRootElement(doc), object);
    xmlFreeDoc(doc);
    xmlFreeParserCtxt(parser);
    return rc;
}

int define_read_xml(struct reader *r, const char *text, size_t len)
{
    return xml_parse(r, text, len, read_domain, NULL);
}

/* It becomes the child of a <devices>, as it is in a domain. */
static int read_device(struct reader *r, xmlDoc *doc, xmlNode *root, void *object)
{
    xmlNode *devices = root == NULL ? NULL : xmlNewNode(NULL, (const xmlChar *)"devices");

    (void)object;
    if (root == NULL)
        return define_fault(r, 1, ERR_INVALID, "there is no element");
    if (devices == NULL)
        return define_no_memory(r);
    xmlDocSetRootElement(doc, devices);
    xmlAddChild(devices, root);
    return xml_read_device(r, root);
}

int define_read_xml_device(struct reader *r, const char *text, size_t len)
{
    if (len > DEFINE_TEXT_MAX)
        return define_fault(r, 0, ERR_INVALID, "larger than %u bytes", DEFINE_TEXT_MAX);
    return xml_parse(r, text, len, read_device, NULL);
}
