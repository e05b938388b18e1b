/* SPDX-License-Identifier: ISC */
/*
 * Options of virsh's migrations, as flags and typed parameters, into those of the engine.
 * There are two lists, of what is honoured and of what is known to be an option but is not;
 * the latter is refused by the option's name, and whatever is in no list by its own.
 *
 * Older clients have no typed parameters: migrate_old.c makes some of their arguments.
 */
#include <stdio.h>
#include <string.h>

#include <libxml/uri.h>

#include "migrd/define/define.h"
#include "migrd/libvirt/migrate.h"

#define MIB (1u << 20)
#define CHANNELS_MAX 16

static const unsigned honoured = LV_M_LIVE | LV_M_PEER2PEER | LV_M_PERSIST_DEST |
                                 LV_M_UNDEFINE_SOURCE | LV_M_PAUSED | LV_M_CHANGE_PROTECTION |
                                 LV_M_OFFLINE | LV_M_COMPRESSED | LV_M_ABORT_ON_ERROR |
                                 LV_M_AUTO_CONVERGE | LV_M_TLS | LV_M_PARALLEL;

static const struct {
    unsigned flag;
    const char *text;
} refused[] = {
    { 0x4, "--tunnelled is not supported: the relocation port has TLS of its own" },
    { 0x40, "--copy-storage-all is not supported: disks must be on storage that both hosts reach" },
    { 0x80, "--copy-storage-inc is not supported: disks must be on storage that both hosts reach" },
    { 0x200,
        "--unsafe is not supported: whether both hosts mean the same disks is always checked" },
    { 0x4000, "--rdma-pin-all is not supported: memory travels over TCP" },
    { 0x8000, "--postcopy is not supported: a guest that writes too fast is slowed down "
              "(--auto-converge), or stopped for the rest (--timeout)" },
    { 0x40000, "--copy-storage-synchronous-writes is not supported" },
    { 0x80000, "--postcopy-resume is not supported" },
    { 0x100000, "--zerocopy is not supported" },
};

static const struct {
    const char *field, *option;
} refused_params[] = {
    { "persistent_xml", "--persistent-xml" },
    { "graphics_uri", "--graphicsuri" },
    { "listen_address", "--listen-address (the target's xend-relocation-address says it)" },
    { "migrate_disks", "--migrate-disks" },
    { "disks_port", "--disks-port" },
    { "disks_uri", "--disks-uri" },
    { "bandwidth.postcopy", "--postcopy-bandwidth" },
    { "auto_converge.initial", "--auto-converge-initial (the policy finds it)" },
    { "auto_converge.increment", "--auto-converge-increment (the policy finds it)" },
    { "compression.mt.level", "--comp-mt-level" },
    { "compression.mt.threads", "--comp-mt-threads" },
    { "compression.mt.dthreads", "--comp-mt-dthreads" },
    { "tls.destination", "--tls-destination" },
};

static int check_flags(struct lv_call *k, unsigned flags, struct err *e)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if ((flags & refused[i].flag) != 0)
            return lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED, "%s", refused[i].text);
    return lv_check_flags(k, flags, honoured, e);
}

int lv_order_host(
    struct lv_call *k, struct lv_order *o, const char *text, bool with_port, struct err *e)
{
    xmlURI *uri = xmlParseURI(text);
    const char *host = uri != NULL && uri->server != NULL ? uri->server : "";
    size_t n = strlen(host);
    bool fits;

    if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
        host++;
        n -= 2;
    }
    fits = n > 0 && n < sizeof o->host;
    if (fits) {
        snprintf(o->host, sizeof o->host, "%.*s", (int)n, host);
        o->port = with_port && uri->port > 0 ? (unsigned)uri->port : 0;
    }
    xmlFreeURI(uri);
    if (fits)
        return 0;
    return lv_fail(
        k, e, LV_E_INVALID_ARG, "'%.100s' names no host; give one, as in xenmigr://host2", text);
}

/* libvirt's own, which is an address of QEMU's engine, or of another one. */
static int take_migrate_uri(struct lv_call *k, struct lv_order *o, const char *uri, struct err *e)
{
    static const char *const others[] = { "rdma:", "unix:", "fd:", "exec:" };

    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strncmp(uri, others[i], strlen(others[i])) == 0)
            return lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED,
                "migrate URI '%.100s': only a host's relocation port is supported, as in "
                "xenmigr://host2",
                uri);
    return lv_order_host(k, o, uri, true, e);
}

static int take_compression(
    struct lv_call *k, struct lv_order *o, const char *method, struct err *e)
{
    if (strcmp(method, "zstd") == 0)
        o->params.compression = MIGRD__COMPRESSION__COMPRESSION_ZSTD;
    else if (strcmp(method, "lz4") == 0)
        o->params.compression = MIGRD__COMPRESSION__COMPRESSION_LZ4;
    else if (strcmp(method, "none") == 0)
        o->params.compression = MIGRD__COMPRESSION__COMPRESSION_NONE;
    else if (strcmp(method, "xbzrle") != 0) /* deltas against what was sent: always there */
        return lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED,
            "compression method %.40s is not supported; migrd has zstd, lz4, xbzrle and none",
            method);
    return 0;
}

static int take_text(
    struct lv_call *k, struct lv_order *o, const char *field, const char *text, struct err *e)
{
    if (strcmp(field, "migrate_uri") == 0)
        return take_migrate_uri(k, o, text, e);
    if (strcmp(field, "compression") == 0)
        return take_compression(k, o, text, e);
    if (strcmp(field, "destination_xml") == 0)
        o->xml = text;
    else if (strcmp(field, "destination_name") == 0)
        o->name = text;
    else
        return 1;
    return 0;
}

static int take_number(struct lv_order *o, const lv_param *p)
{
    const lv_value *v = &p->value;

    if (strcmp(p->field, "bandwidth") == 0 && v->type == LV_ULLONG &&
        v->lv_value_u.ul <= UINT32_MAX)
        o->params.bandwidth = v->lv_value_u.ul * MIB;
    else if (strcmp(p->field, "parallel.connections") == 0 && v->type == LV_INT &&
             v->lv_value_u.i >= 1 && v->lv_value_u.i <= CHANNELS_MAX)
        o->params.channels = (unsigned)v->lv_value_u.i;
    else if (strcmp(p->field, "compression.xbzrle.cache") == 0 && v->type == LV_ULLONG)
        o->params.delta_cache = v->lv_value_u.ul;
    else
        return 1;
    return 0;
}

static int take_param(struct lv_call *k, struct lv_order *o, const lv_param *p, struct err *e)
{
    int r = p->value.type == LV_STRING ? take_text(k, o, p->field, p->value.lv_value_u.s, e)
                                       : take_number(o, p);

    if (r <= 0)
        return r;
    for (size_t i = 0; i < sizeof refused_params / sizeof refused_params[0]; i++)
        if (strcmp(p->field, refused_params[i].field) == 0)
            return lv_fail(
                k, e, LV_E_ARGUMENT_UNSUPPORTED, "%s is not supported", refused_params[i].option);
    return lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED,
        "migration parameter %.60s is not supported, or not with that value", p->field);
}

int lv_order_take(struct lv_call *k, const struct lv_step *s, struct lv_order *o, struct err *e)
{
    *o = (struct lv_order){ .host = "" };
    migrd__precopy_params__init(&o->params);
    if (check_flags(k, s->flags, e) < 0)
        return -1;
    for (u_int i = 0; i < s->n_params; i++)
        if (take_param(k, o, &s->params[i], e) < 0)
            return -1;
    if (o->name != NULL && s->dom != NULL && strcmp(o->name, s->dom->name) != 0)
        return lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED,
            "--dname is not supported: domain %.64s keeps its name", s->dom->name);
    o->params.live = (s->flags & LV_M_LIVE) != 0;
    o->params.stay_paused = (s->flags & LV_M_PAUSED) != 0;
    o->params.change_home = (s->flags & LV_M_PERSIST_DEST) != 0;
    o->params.undefine_source = (s->flags & LV_M_UNDEFINE_SOURCE) != 0;
    return 0;
}

Migrd__Domain *lv_order_definition(
    struct lv_call *k, const struct lv_order *o, const char *uuid, struct err *e)
{
    Migrd__Domain *def = NULL;

    if (o->xml == NULL) {
        lv_fail(k, e, LV_E_INVALID_ARG, "the step comes without the domain's definition");
        return NULL;
    }
    def = define_parse(o->xml, strlen(o->xml), DEFINE_XML, "definition", NULL, 0, e);
    if (def == NULL) {
        k->code = e->code == ERR_UNSUPPORTED ? LV_E_CONFIG_UNSUPPORTED : LV_E_XML;
        return NULL;
    }
    if (strcmp(def->hypervisor, k->m->hv_ops->name) != 0)
        lv_fail(k, e, LV_E_CONFIG_UNSUPPORTED, "domain %s needs hypervisor %s; host %s has %s",
            def->name, def->hypervisor, k->m->host_name, k->m->hv_ops->name);
    else if (uuid != NULL && strcmp(def->uuid, uuid) != 0)
        lv_fail(k, e, LV_E_INVALID_ARG, "the definition is that of another domain, %s", def->uuid);
    else if (o->name != NULL && strcmp(o->name, def->name) != 0)
        lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED,
            "--dname is not supported: domain %s keeps its name", def->name);
    else
        return def;
    migrd__domain__free_unpacked(def, NULL);
    return NULL;
}
