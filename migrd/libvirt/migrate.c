/* SPDX-License-Identifier: ISC */
/*
 * virsh's migrations. The steps are virsh's, the migration is the engine's:
 *
 *   managed          virsh calls     here
 *   Begin    source  302, 213        may it leave? the definition, the domain is held
 *   Prepare  target  303, 214        may it come? where to; nothing is reserved
 *   Perform  source  305, 216        the migration of xm and migctl, from connect to the end
 *   Finish   target  306, 217        is it here? the domain
 *   Confirm  source  307, 218        the hold ends
 *
 *   --p2p            305 or 216 alone: the target is in the destination's URI
 *   --direct         216 alone, without cookie: the target is in the migrate URI
 *   2009's line      "xen:// xenmigr://host2": the destination's connection leads here as
 *                    well, the target is in the migrate URI; Finish looks at what became of
 *                    the migration instead of at the domain
 *
 * Who runs the guest is decided by journal and hand-over during Perform, and by nothing
 * else: Finish and Confirm only tell, whatever their `cancelled` says, and a step that is
 * left out, repeated or made up changes nothing. So it does not matter when virsh dies,
 * but that Perform is cancelled with its client; p2p and direct go on without one.
 * --offline is the exception: no guest, no Perform; see migrate_offline.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>

#include "base/fault.h"
#include "migrd/define/define.h"
#include "migrd/libvirt/migrate.h"

void lv_dom_uuid(const lv_dom *dom, char out[HV_UUID_LEN])
{
    uuid_t u;

    memcpy(u, dom->uuid, sizeof u);
    uuid_unparse_lower(u, out);
}

/* A point of a test at which migrd is stopped or killed. */
static int fault_at(bool fires, const char *name, struct err *e)
{
    return fires ? err_set(e, ERR_INTERNAL, "fault point %s", name) : 0;
}

static char *same(const char *text)
{
    return (char *)(uintptr_t)text;
}

/* --- Begin --- */

/* Both went through the same reader: equal definitions are equal bytes. */
static bool same_definition(const Migrd__Domain *a, const Migrd__Domain *b)
{
    size_t n = migrd__domain__get_packed_size(a);
    uint8_t *x, *y;
    bool equal;

    if (n != migrd__domain__get_packed_size(b))
        return false;
    x = malloc(n);
    y = malloc(n);
    equal = x != NULL && y != NULL;
    if (equal) {
        migrd__domain__pack(a, x);
        migrd__domain__pack(b, y);
        equal = memcmp(x, y, n) == 0;
    }
    free(x);
    free(y);
    return equal;
}

/* --xml: only what the domain is anyway. */
static int check_xml(
    struct lv_call *k, const struct lv_order *wanted, const char *own, struct err *e)
{
    const struct lv_order as_is = { .xml = own };
    Migrd__Domain *a = lv_order_definition(k, wanted, NULL, e), *b = NULL;
    int r = a != NULL && (b = lv_order_definition(k, &as_is, NULL, e)) != NULL ? 0 : -1;

    if (r == 0 && !same_definition(a, b))
        r = lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED,
            "--xml is not supported where it changes the definition: domain %s moves as it is",
            b->name);
    if (a != NULL)
        migrd__domain__free_unpacked(a, NULL);
    if (b != NULL)
        migrd__domain__free_unpacked(b, NULL);
    return r;
}

static int begin_ticket(struct lv_call *k, const struct domain *d, lv_begun *ret, struct err *e)
{
    Migrd__Ticket t = MIGRD__TICKET__INIT;

    t.step = MIGRD__TICKET_STEP__TICKET_BEGUN;
    t.uuid = same(d->uuid);
    t.source = k->m->host_name;
    t.epoch = d->epoch + 1;
    return lv_ticket_put(&t, &ret->cookie.cookie_val, &ret->cookie.cookie_len, e);
}

int lv_step_begin(struct lv_call *k, const struct lv_step *s, lv_begun *ret, struct err *e)
{
    struct domain *d = lv_domain(k, s->dom, e);
    bool offline = (s->flags & LV_M_OFFLINE) != 0;
    struct lv_move *mv = d != NULL ? lv_move_find(k, LV_MOVE_HELD, d->uuid) : NULL;
    struct lv_order o;

    lv_move_end(k->m, &mv); /* of an earlier Begin of this client */
    if (d == NULL || lv_order_take(k, s, &o, e) < 0 ||
        (offline ? lv_offline_begin(k, d, s->flags, e) : migration_may_leave(k->m, d, e)) < 0)
        return -1;
    ret->xml = define_xml(registry_definition(d), -1, e);
    if (ret->xml == NULL || (o.xml != NULL && check_xml(k, &o, ret->xml, e) < 0) ||
        begin_ticket(k, d, ret, e) < 0)
        return -1;
    if ((offline || (s->flags & LV_M_CHANGE_PROTECTION) != 0) && lv_move_hold(k, d, e) < 0)
        return -1;
    lv_audit(k, "begin to migrate", d->name);
    return fault_at(FAULT("virsh-begin"), "virsh-begin", e);
}

/* --- Prepare --- */

static bool is_loopback(const char *address)
{
    return strcmp(address, "localhost") == 0 || strncmp(address, "127.", 4) == 0 ||
           strcmp(address, "::1") == 0 || strcmp(address, "lo") == 0;
}

static int own_uri(struct lv_call *k, lv_name **out, struct err *e)
{
    const struct config *c = &k->m->config;
    char name[256], uri[320];

    if (!c->relocation_server || is_loopback(c->relocation_address))
        return lv_fail(k, e, LV_E_DENIED, "host %s takes no guests: %s", k->m->host_name,
            !c->relocation_server ? "xend-relocation-server = no"
                                  : "xend-relocation-address is its loopback; set it to \"\"");
    migration_own_name(k->m, name, sizeof name);
    snprintf(uri, sizeof uri, strchr(name, ':') != NULL ? "xenmigr://[%s]:%u" : "xenmigr://%s:%u",
        name, c->relocation_port);
    *out = calloc(1, sizeof **out);
    if (*out != NULL)
        **out = lv_copy(uri);
    return *out != NULL && **out != NULL ? 0 : err_set(e, ERR_MEMORY, "migrd is out of memory");
}

/* We are the source too: the destination's connection only names the scheme. */
static int prepare_away(
    struct lv_call *k, const struct lv_step *s, const struct lv_order *o, struct err *e)
{
    char own[256];

    migration_own_name(k->m, own, sizeof own);
    if ((s->flags & LV_M_OFFLINE) != 0)
        return lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED,
            "--offline needs a connection to the target: give its URI as the destination");
    if (o->host[0] == '\0' || strcmp(o->host, k->m->host_name) == 0 || strcmp(o->host, own) == 0)
        return lv_fail(k, e, LV_E_INVALID_ARG,
            "the destination is host %s, where the domain is already; name another one, as in: "
            "virsh migrate --live DOMAIN xen:// xenmigr://host2",
            k->m->host_name);
    return 0;
}

static int prepare_here(struct lv_call *k, const struct lv_step *s, const struct lv_order *o,
    const Migrd__Ticket *t, lv_prepared *ret, struct err *e)
{
    Migrd__Domain *def = lv_order_definition(k, o, t->uuid, e);
    int r = def == NULL ? -1 : registry_may_come(k->m, def, t->epoch, e);

    if (r == 0 && (s->flags & LV_M_OFFLINE) != 0)
        r = lv_offline_prepare(k, def, t->epoch, e);
    if (r == 0 && o->host[0] == '\0')
        r = own_uri(k, &ret->uri, e);
    if (r == 0)
        lv_audit(k, "prepare to take", def->name);
    if (def != NULL)
        migrd__domain__free_unpacked(def, NULL);
    return r;
}

int lv_step_prepare(struct lv_call *k, const struct lv_step *s, lv_prepared *ret, struct err *e)
{
    Migrd__Ticket *begun, t = MIGRD__TICKET__INIT;
    struct lv_order o;
    bool away;
    int r;

    if (lv_order_take(k, s, &o, e) < 0)
        return -1;
    begun = lv_ticket_take(k, s->cookie, s->cookie_len, MIGRD__TICKET_STEP__TICKET_BEGUN, NULL, e);
    if (begun == NULL)
        return -1;
    away = strcmp(begun->source, k->m->host_name) == 0;
    r = away ? prepare_away(k, s, &o, e) : prepare_here(k, s, &o, begun, ret, e);
    if (r == 0) {
        t = *begun;
        t.step = MIGRD__TICKET_STEP__TICKET_PREPARED;
        t.target = away ? same("") : k->m->host_name;
        r = lv_ticket_put(&t, &ret->cookie.cookie_val, &ret->cookie.cookie_len, e);
    }
    migrd__ticket__free_unpacked(begun, NULL);
    return r == 0 ? fault_at(FAULT("virsh-prepare"), "virsh-prepare", e) : r;
}

/* --- Perform --- */

static int performed(
    const struct migrd *m, const struct migration *g, lv_cookie *out, struct err *e)
{
    Migrd__Ticket t = MIGRD__TICKET__INIT;
    Migrd__MigrationInfo i;

    migration_info(g, &i);
    t.step = MIGRD__TICKET_STEP__TICKET_PERFORMED;
    t.uuid = i.uuid;
    t.source = same(m->host_name);
    t.target = i.peer;
    t.epoch = i.epoch;
    t.migration = i.id;
    return lv_ticket_put(&t, &out->value.value_val, &out->value.value_len, e);
}

/* For p2p and direct the answer's cookie is empty: virsh has nobody to give it to. */
static void watched(void *arg, struct migration *g, bool last)
{
    struct lv_move *mv = arg;
    struct lv_call *k = mv->k;
    lv_cookie cookie = { .value = { 0 } };
    struct err e = { 0 };
    int r;

    if (!last)
        return;
    r = migration_told(g, &e);
    if (r == 0 && mv->managed)
        r = performed(k->m, g, &cookie, &e);
    if (r == 0)
        r = fault_at(FAULT("virsh-performed"), "virsh-performed", &e);
    lv_move_end(k->m, &mv);
    lv_call_finish(k, r, &cookie, &e);
    free(cookie.value.value_val);
}

/* The migration ends with it. It may have gone meanwhile: events of the start are told to it. */
static void follow_client(struct lv_move *mv, struct lv_conn *c)
{
    mv->c = c;
    if (c->gone)
        lv_moves_forget(c);
}

static int start(struct lv_call *k, const struct lv_step *s, struct domain *d, struct lv_order *o,
    const Migrd__Ticket *managed, struct err *e)
{
    struct lv_move *mv = lv_move_find(k, LV_MOVE_HELD, d->uuid);
    Migrd__Migrate rq = MIGRD__MIGRATE__INIT;

    rq.domain = d->uuid;
    rq.host = o->host;
    rq.port = o->port;
    rq.params = &o->params;
    if ((s->flags & LV_M_TLS) != 0)
        rq.tls = same("yes");
    if (managed != NULL)
        rq.target = managed->target;
    lv_audit(k, "migrate", d->name);
    lv_move_end(k->m, &mv); /* from here on the migration holds it */
    mv = lv_move_new(k, LV_MOVE_RUNS, d->uuid);
    if (mv == NULL)
        return err_set(e, ERR_MEMORY, "migrd is out of memory");
    mv->k = k;
    mv->managed = managed != NULL;
    mv->c = NULL;
    if (migration_start(k->m, d, &rq, &mv->g, e) < 0) {
        lv_move_end(k->m, &mv);
        return -1;
    }
    if (migration_watch(mv->g, watched, mv) == 0) {
        if (mv->managed)
            follow_client(mv, k->c);
        return LV_LATER;
    }
    lv_move_end(k->m, &mv);
    return lv_fail(k, e, LV_E_BUSY, "too many clients watch this migration; it goes on");
}

/* Where to, if it is not in the migrate URI. */
static int find_target(
    struct lv_call *k, const struct lv_step *s, struct lv_order *o, struct err *e)
{
    if (o->host[0] != '\0')
        return 0;
    if ((s->flags & LV_M_PEER2PEER) != 0)
        return lv_order_host(k, o, s->dconnuri != NULL ? s->dconnuri : "", false, e);
    if (s->cookie_len == 0)
        return lv_fail(k, e, LV_E_INVALID_ARG,
            "virsh does not tell where --direct leads to; name the host once more: virsh migrate "
            "--live --direct DOMAIN xenmigr://host2 xenmigr://host2");
    return lv_fail(k, e, LV_E_INVALID_ARG, "Perform comes without the target's migrate URI");
}

int lv_step_perform(struct lv_call *k, const struct lv_step *s, struct err *e)
{
    struct domain *d = lv_domain(k, s->dom, e);
    bool managed = (s->flags & LV_M_PEER2PEER) == 0 && s->cookie_len > 0;
    Migrd__Ticket *t = NULL;
    struct lv_order o;
    int r;

    if (d == NULL || lv_order_take(k, s, &o, e) < 0)
        return -1;
    if ((s->flags & LV_M_OFFLINE) != 0)
        return lv_fail(
            k, e, LV_E_ARGUMENT_UNSUPPORTED, "--offline is not supported with --p2p or --direct");
    if (o.xml != NULL && !managed)
        return lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED,
            "--xml is not supported with --p2p or --direct: domain %s moves as it is", d->name);
    if (managed && (t = lv_ticket_take(k, s->cookie, s->cookie_len,
                        MIGRD__TICKET_STEP__TICKET_PREPARED, d->uuid, e)) == NULL)
        return -1;
    r = find_target(k, s, &o, e);
    if (r == 0)
        r = start(k, s, d, &o, t, e);
    if (t != NULL)
        migrd__ticket__free_unpacked(t, NULL);
    return r;
}

/* --- Finish --- */

static int arrived_here(struct lv_call *k, const Migrd__Ticket *t, lv_dom *out, struct err *e)
{
    struct domain *d = registry_by_uuid(k->m->registry, t->uuid);

    if (d == NULL || !registry_owned(k->m, d) || d->epoch < t->epoch)
        return lv_fail(
            k, e, LV_E_NO_DOMAIN, "domain %s is not on host %s", t->uuid, k->m->host_name);
    if (!d->live)
        return lv_fail(k, e, LV_E_FAILED, "domain %s has arrived on host %s and ended", d->name,
            k->m->host_name);
    return lv_domain_put(d, out, e);
}

/* Its id over there is not known here. */
static int arrived_there(struct lv_call *k, const Migrd__Ticket *t, lv_dom *out, struct err *e)
{
    struct migration *g = migration_by_id(k->m, t->migration);
    Migrd__MigrationInfo i;

    if (g == NULL || migration_outcome(g, e) < 0)
        return lv_fail(k, e, LV_E_FAILED, "no migration of domain %s to host %s has ended well",
            t->uuid, t->target);
    migration_info(g, &i);
    if (strcmp(i.uuid, t->uuid) != 0)
        return lv_fail(k, e, LV_E_INVALID_ARG, "the cookie names another domain's migration");
    lv_uuid_bytes(t->uuid, out->uuid);
    out->id = -1;
    out->name = lv_copy(i.domain);
    return out->name != NULL ? 0 : err_set(e, ERR_MEMORY, "migrd is out of memory");
}

static int finish(struct lv_call *k, const Migrd__Ticket *t, lv_finished *ret, struct err *e)
{
    Migrd__Ticket done = *t;
    int r;

    if (strcmp(t->target, k->m->host_name) == 0)
        r = arrived_here(k, t, &ret->dom, e);
    else if (strcmp(t->source, k->m->host_name) == 0)
        r = arrived_there(k, t, &ret->dom, e);
    else
        r = lv_fail(k, e, LV_E_FAILED, "domain %s has gone to host %s, this is host %s", t->uuid,
            t->target, k->m->host_name);
    if (r < 0)
        return -1;
    done.step = MIGRD__TICKET_STEP__TICKET_FINISHED;
    return lv_ticket_put(&done, &ret->cookie.cookie_val, &ret->cookie.cookie_len, e);
}

int lv_step_finish(struct lv_call *k, const struct lv_step *s, lv_finished *ret, struct err *e)
{
    struct lv_order o;
    Migrd__Ticket *t;
    int r;

    if (s->cancelled)
        return lv_fail(k, e, LV_E_FINISH_OK,
            "the migration was cancelled; where the guest runs was decided by the hosts alone");
    if (lv_order_take(k, s, &o, e) < 0)
        return -1;
    if ((s->flags & LV_M_OFFLINE) != 0)
        return lv_offline_finish(k, &o, e);
    t = lv_ticket_take(k, s->cookie, s->cookie_len, MIGRD__TICKET_STEP__TICKET_PERFORMED, NULL, e);
    if (t == NULL)
        return -1;
    r = finish(k, t, ret, e);
    migrd__ticket__free_unpacked(t, NULL);
    return r == 0 ? fault_at(FAULT("virsh-finish"), "virsh-finish", e) : r;
}

/* --- Confirm --- */

/* The domain may be gone from here by now: it is not looked up. */
int lv_step_confirm(struct lv_call *k, const struct lv_step *s, struct err *e)
{
    struct lv_move *mv;
    Migrd__Ticket *t;
    char uuid[HV_UUID_LEN];

    lv_dom_uuid(s->dom, uuid);
    if (s->cookie_len > 0) {
        t = lv_ticket_take(
            k, s->cookie, s->cookie_len, MIGRD__TICKET_STEP__TICKET_FINISHED, uuid, e);
        if (t == NULL)
            return -1;
        migrd__ticket__free_unpacked(t, NULL);
    }
    if (!s->cancelled && (s->flags & LV_M_OFFLINE) != 0)
        return lv_offline_confirm(k, s, e);
    mv = lv_move_find(k, LV_MOVE_HELD, uuid);
    lv_move_end(k->m, &mv);
    return fault_at(FAULT("virsh-confirm"), "virsh-confirm", e);
}

/* --- procedures --- */

#define STEP_OF(a)                                                                                 \
    {                                                                                              \
        .params = (a)->params.params_val, .n_params = (a)->params.params_len, .flags = (a)->flags  \
    }

int lv_begin3(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_begin *a = args;
    struct lv_step s = STEP_OF(a);

    s.dom = &a->dom;
    return lv_step_begin(k, &s, ret, e);
}

int lv_prepare3(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_prepare *a = args;
    struct lv_step s = STEP_OF(a);

    s.cookie = a->cookie.cookie_val;
    s.cookie_len = a->cookie.cookie_len;
    return lv_step_prepare(k, &s, ret, e);
}

int lv_perform3(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_perform *a = args;
    struct lv_step s = STEP_OF(a);

    (void)ret;
    s.dom = &a->dom;
    s.dconnuri = a->dconnuri != NULL ? *a->dconnuri : NULL;
    s.cookie = a->cookie.cookie_val;
    s.cookie_len = a->cookie.cookie_len;
    return lv_step_perform(k, &s, e);
}

int lv_finish3(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_finish *a = args;
    struct lv_step s = STEP_OF(a);

    s.cookie = a->cookie.cookie_val;
    s.cookie_len = a->cookie.cookie_len;
    s.cancelled = a->cancelled != 0;
    return lv_step_finish(k, &s, ret, e);
}

int lv_confirm3(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_confirm *a = args;
    struct lv_step s = STEP_OF(a);

    (void)ret;
    s.dom = &a->dom;
    s.cookie = a->cookie.cookie_val;
    s.cookie_len = a->cookie.cookie_len;
    s.cancelled = a->cancelled != 0;
    return lv_step_confirm(k, &s, e);
}
