/* SPDX-License-Identifier: ISC */
/*
 * `virsh migrate --p2p`: one call, by which the client leaves all of it to this host. It
 * becomes a migration like that of xm or migctl, with the same acl, checks and hand-over,
 * and is answered when that has ended. A client that goes away stops nothing.
 *
 * The target is the host in --migrateuri (xenmigr://HOST[:PORT]), else that of the
 * destination's URI, whose port is that of a libvirt server and not of relocation. A flag
 * or parameter that cannot be honoured is refused by name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libxml/uri.h>

#include "migrd/libvirt/internal.h"
#include "migrd/migration.h"

#define MIB (1u << 20)
#define CHANNELS_MAX 16
#define HOST_MAX 256

#define F_LIVE 0x1u
#define F_PEER2PEER 0x2u
#define F_PERSIST_DEST 0x8u
#define F_UNDEFINE_SOURCE 0x10u
#define F_PAUSED 0x20u
#define F_CHANGE_PROTECTION 0x100u /* nobody else acts on a domain that moves anyway */
#define F_ABORT_ON_ERROR 0x1000u   /* that is so anyway */
#define F_AUTO_CONVERGE 0x2000u    /* migration-throttle-max says how much */
#define F_TLS 0x10000u
#define F_PARALLEL 0x20000u

static const unsigned honoured = F_LIVE | F_PEER2PEER | F_PERSIST_DEST | F_UNDEFINE_SOURCE |
                                 F_PAUSED | F_CHANGE_PROTECTION | F_ABORT_ON_ERROR |
                                 F_AUTO_CONVERGE | F_TLS | F_PARALLEL;

/* For the text of a refusal. */
static const struct {
    unsigned flag;
    const char *option;
} others[] = { { 0x4, "--tunnelled" }, { 0x40, "--copy-storage-all" },
    { 0x80, "--copy-storage-inc" }, { 0x200, "--unsafe" }, { 0x400, "--offline" },
    { 0x800, "--compressed" }, { 0x4000, "--rdma-pin-all" }, { 0x8000, "--postcopy" },
    { 0x40000, "--copy-storage-synchronous-writes" }, { 0x80000, "--postcopy-resume" },
    { 0x100000, "--zerocopy" } };

struct order {
    char host[HOST_MAX];
    unsigned port;
    Migrd__PrecopyParams params;
};

static int check_flags(struct lv_call *k, unsigned flags, struct err *e)
{
    const unsigned move = F_PERSIST_DEST | F_UNDEFINE_SOURCE;

    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if ((flags & others[i].flag) != 0)
            return lv_fail(
                k, e, LV_E_ARGUMENT_UNSUPPORTED, "%s is not supported", others[i].option);
    if (lv_check_flags(k, flags, honoured, e) < 0)
        return -1;
    if ((flags & F_PEER2PEER) == 0)
        return lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED, "only --p2p migrations are supported");
    if ((flags & move) != 0 && (flags & move) != move)
        return lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED,
            "--persistent and --undefinesource are supported together: the definition moves along");
    return 0;
}

/* "SCHEME://HOST[:PORT]/...", an IPv6 address in brackets. */
static int take_uri(
    struct lv_call *k, struct order *o, const char *text, bool with_port, struct err *e)
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

static int take_param(struct lv_call *k, struct order *o, const lv_param *p, struct err *e)
{
    const lv_value *v = &p->value;

    if (strcmp(p->field, "migrate_uri") == 0 && v->type == LV_STRING)
        return take_uri(k, o, v->lv_value_u.s, true, e);
    if (strcmp(p->field, "bandwidth") == 0 && v->type == LV_ULLONG &&
        v->lv_value_u.ul <= UINT32_MAX) {
        o->params.bandwidth = v->lv_value_u.ul * MIB;
        return 0;
    }
    if (strcmp(p->field, "parallel.connections") == 0 && v->type == LV_INT &&
        v->lv_value_u.i >= 1 && v->lv_value_u.i <= CHANNELS_MAX) {
        o->params.channels = (unsigned)v->lv_value_u.i;
        return 0;
    }
    return lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED,
        "migration parameter %.60s is not supported, or not with that value", p->field);
}

static int take_order(struct lv_call *k, const lv_perform *a, struct order *o, struct err *e)
{
    migrd__precopy_params__init(&o->params);
    if (check_flags(k, a->flags, e) < 0)
        return -1;
    for (u_int i = 0; i < a->params.params_len; i++)
        if (take_param(k, o, &a->params.params_val[i], e) < 0)
            return -1;
    if (o->host[0] == '\0' && take_uri(k, o, a->dconnuri != NULL ? *a->dconnuri : "", false, e) < 0)
        return -1;
    o->params.live = (a->flags & F_LIVE) != 0;
    o->params.stay_paused = (a->flags & F_PAUSED) != 0;
    o->params.change_home = (a->flags & F_UNDEFINE_SOURCE) != 0;
    return 0;
}

static void watched(void *call, struct migration *g, bool last)
{
    struct err e = { 0 };

    if (!last)
        return;
    if (migration_outcome(g, &e) == 0)
        err_clear(&e);
    lv_call_end(call, "", &e);
}

int lv_perform3(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_perform *a = args;
    struct domain *d = lv_domain(k, &a->dom, e);
    Migrd__Migrate rq = MIGRD__MIGRATE__INIT;
    struct order o = { .host = "" };
    struct migration *g;

    (void)ret; /* the answer's cookie is empty: virsh has nobody to give it to */
    if (d == NULL || take_order(k, a, &o, e) < 0)
        return -1;
    rq.domain = d->uuid;
    rq.host = o.host;
    rq.port = o.port;
    rq.params = &o.params;
    if ((a->flags & F_TLS) != 0)
        rq.tls = (char *)(uintptr_t) "yes";
    lv_audit(k, "migrate", d->name);
    if (migration_start(k->m, d, &rq, &g, e) < 0)
        return -1;
    if (migration_watch(g, watched, k) == 0)
        return LV_LATER;
    return lv_fail(k, e, LV_E_BUSY, "too many clients watch this migration; it goes on");
}
