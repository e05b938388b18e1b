/* SPDX-License-Identifier: ISC */
/*
 * Procedures that ask about domains. A domain is known by its uuid; the name and the id
 * that a client sends along may be old and are not looked at.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uuid.h>

#include "migrd/define/define.h"
#include "migrd/libvirt/internal.h"

/* libvirt's numbers of states and reasons. */
enum { ST_RUNNING = 1, ST_BLOCKED, ST_PAUSED, ST_SHUTDOWN, ST_SHUTOFF, ST_CRASHED };
enum { WHY_UNKNOWN, PAUSED_USER = 1, PAUSED_MIGRATION = 2, PAUSED_IO = 5, PAUSED_STARTING = 11 };
enum { OFF_SHUTDOWN = 1, OFF_CRASHED = 3 };

#define XML_SECURE 1
#define XML_INACTIVE 2
#define XML_UPDATE_CPU 4
#define XML_MIGRATABLE 8

/* virConnectListAllDomains: groups of two or more bits, of which one must fit. */
#define LIST_ACTIVE 0x1
#define LIST_INACTIVE 0x2
#define LIST_PERSISTENT 0x4
#define LIST_TRANSIENT 0x8
#define LIST_RUNNING 0x10
#define LIST_PAUSED 0x20
#define LIST_SHUTOFF 0x40
#define LIST_OTHER 0x80
#define LIST_MANAGED_SAVE 0x100
#define LIST_NO_MANAGED_SAVE 0x200
#define LIST_AUTOSTART 0x400
#define LIST_NO_AUTOSTART 0x800
#define LIST_SNAPSHOT 0x1000
#define LIST_NO_SNAPSHOT 0x2000
#define LIST_CHECKPOINT 0x4000
#define LIST_NO_CHECKPOINT 0x8000

/* --- names and uuids --- */

void lv_uuid_bytes(const char *text, char out[LV_UUID_BYTES])
{
    uuid_t u;

    if (uuid_parse(text, u) < 0)
        uuid_clear(u);
    memcpy(out, u, LV_UUID_BYTES);
}

static void uuid_text(const char *bytes, char out[HV_UUID_LEN])
{
    uuid_t u;

    memcpy(u, bytes, sizeof u);
    uuid_unparse_lower(u, out);
}

struct domain *lv_domain(struct lv_call *k, const lv_dom *dom, struct err *e)
{
    char uuid[HV_UUID_LEN];
    struct domain *d;

    uuid_text(dom->uuid, uuid);
    d = registry_by_uuid(k->m->registry, uuid);
    if (d == NULL)
        lv_fail(k, e, LV_E_NO_DOMAIN, "no domain with matching uuid '%s' (%.64s)", uuid, dom->name);
    return d;
}

int lv_domain_put(const struct domain *d, lv_dom *out, struct err *e)
{
    lv_uuid_bytes(d->uuid, out->uuid);
    out->id = d->live ? d->info.domid : -1;
    out->name = lv_copy(d->name);
    return out->name != NULL ? 0 : err_set(e, ERR_MEMORY, "migrd is out of memory");
}

int lv_by_id(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    int id = ((const lv_int *)args)->value;

    for (struct domain *d = registry_first(k->m->registry); d != NULL; d = d->next)
        if (d->live && d->info.domid == id)
            return lv_domain_put(d, ret, e);
    return lv_fail(k, e, LV_E_NO_DOMAIN, "no domain with matching id %d", id);
}

int lv_by_name(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const char *name = ((const lv_word *)args)->value;

    for (struct domain *d = registry_first(k->m->registry); d != NULL; d = d->next)
        if (strcmp(d->name, name) == 0)
            return lv_domain_put(d, ret, e);
    return lv_fail(k, e, LV_E_NO_DOMAIN, "no domain with matching name '%.200s'", name);
}

int lv_by_uuid(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    char uuid[HV_UUID_LEN];
    struct domain *d;

    uuid_text(((const lv_uuid *)args)->uuid, uuid);
    d = registry_by_uuid(k->m->registry, uuid);
    if (d == NULL)
        return lv_fail(k, e, LV_E_NO_DOMAIN, "no domain with matching uuid '%s'", uuid);
    return lv_domain_put(d, ret, e);
}

/* --- state --- */

static int paused_reason(const struct domain *d)
{
    if (d->mig != NULL)
        return PAUSED_MIGRATION;
    return d->info.reason[0] != '\0' ? PAUSED_IO : PAUSED_USER;
}

int lv_domain_state(const struct domain *d, int *reason)
{
    static const int states[HV_STATE_MAX_] = { [HV_RUNNING] = ST_RUNNING,
        [HV_BLOCKED] = ST_BLOCKED,
        [HV_PAUSED] = ST_PAUSED,
        [HV_SHUTDOWN] = ST_SHUTDOWN,
        [HV_CRASHED] = ST_CRASHED,
        [HV_INCOMING] = ST_PAUSED };

    *reason = WHY_UNKNOWN;
    if (!d->live) {
        if (d->last_end != HV_EV_MAX)
            *reason = d->last_end == HV_EV_CRASHED ? OFF_CRASHED : OFF_SHUTDOWN;
        return ST_SHUTOFF;
    }
    if (d->info.state == HV_PAUSED)
        *reason = paused_reason(d);
    if (d->info.state == HV_INCOMING)
        *reason = d->mig != NULL ? PAUSED_STARTING : PAUSED_USER;
    return d->info.state < HV_STATE_MAX_ ? states[d->info.state] : 0;
}

int lv_get_state(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_flags *a = args;
    struct domain *d = lv_domain(k, &a->dom, e);
    lv_dom_state *s = ret;

    if (d == NULL || lv_check_flags(k, a->flags, 0, e) < 0)
        return -1;
    s->state = lv_domain_state(d, &s->reason);
    return 0;
}

int lv_get_info(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    struct domain *d = lv_domain(k, args, e);
    const Migrd__Domain *def;
    lv_dom_info *i = ret;
    int reason;

    if (d == NULL)
        return -1;
    def = registry_definition(d);
    i->state = (u_char)lv_domain_state(d, &reason);
    i->max_kib = d->live ? d->info.max_memory_kib : def->max_memory_kib;
    i->kib = d->live ? d->info.memory_kib : def->memory_kib;
    i->vcpus = (u_short)(d->live ? d->info.vcpus : def->vcpus);
    i->cpu_ns = d->live ? d->info.cpu_ns : 0;
    return 0;
}

int lv_max_vcpus(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    struct domain *d = lv_domain(k, args, e);

    if (d == NULL)
        return -1;
    ((lv_int *)ret)->value = (int)registry_definition(d)->vcpus;
    return 0;
}

int lv_os_type(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const struct domain *d = lv_domain(k, args, e);

    if (d == NULL)
        return -1;
    ((lv_word *)ret)->value = lv_copy(lv_os_word(k->m, hv_guest_type(registry_definition(d))));
    return ((lv_word *)ret)->value != NULL ? 0 : err_set(e, ERR_MEMORY, "migrd is out of memory");
}

int lv_is_active(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    struct domain *d = lv_domain(k, args, e);

    if (d == NULL)
        return -1;
    ((lv_int *)ret)->value = d->live;
    return 0;
}

int lv_is_persistent(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    struct domain *d = lv_domain(k, args, e);

    if (d == NULL)
        return -1;
    ((lv_int *)ret)->value = d->def != NULL;
    return 0;
}

int lv_autostart(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    struct domain *d = lv_domain(k, args, e);

    if (d == NULL)
        return -1;
    ((lv_int *)ret)->value = d->autostart;
    return 0;
}

int lv_set_autostart(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_switch *a = args;
    struct domain *d = lv_domain(k, &a->dom, e);

    (void)ret;
    if (d == NULL)
        return -1;
    lv_audit(k, a->on != 0 ? "autostart of" : "no autostart of", d->name);
    return registry_set_autostart(k->m, d, a->on != 0, lv_call_end, k, e) < 0 ? -1 : LV_LATER;
}

/* Was the definition changed since it was started? */
int lv_is_updated(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)ret; /* whoever changes one changes the other, or says that it is for the next start */
    return lv_domain(k, args, e) == NULL ? -1 : 0;
}

/* Nobody's state is kept for the next start. */
int lv_managed_save(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_flags *a = args;

    (void)ret;
    return lv_domain(k, &a->dom, e) == NULL ? -1 : lv_check_flags(k, a->flags, 0, e);
}

/* --- definition --- */

int lv_xml(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const unsigned known = XML_SECURE | XML_INACTIVE | XML_UPDATE_CPU | XML_MIGRATABLE;
    const lv_dom_flags *a = args;
    struct domain *d = lv_domain(k, &a->dom, e);
    lv_string *out = ret;
    struct define_live live = { .id = -1, .console = "" };
    bool inactive = (a->flags & XML_INACTIVE) != 0;

    if (d == NULL || lv_check_flags(k, a->flags, known, e) < 0)
        return -1;
    if ((a->flags & XML_SECURE) != 0 && k->c->read_only)
        return lv_fail(k, e, LV_E_DENIED, "operation forbidden: read only access prevents this");
    if (inactive && d->def != NULL) {
        out->value = define_xml(d->def, -1, e);
    } else {
        if (d->live && !inactive)
            live = (struct define_live){ .id = d->info.domid, .console = d->info.console };
        out->value = define_xml_live(registry_definition(d), &live, e);
    }
    return out->value != NULL ? 0 : -1;
}

/* --- list --- */

/* Bits of all groups that hold for the domain. */
static unsigned list_bits(const struct domain *d)
{
    unsigned bits = LIST_NO_MANAGED_SAVE | LIST_NO_SNAPSHOT | LIST_NO_CHECKPOINT;
    int reason, state = lv_domain_state(d, &reason);

    bits |= d->live ? LIST_ACTIVE : LIST_INACTIVE;
    bits |= d->autostart ? LIST_AUTOSTART : LIST_NO_AUTOSTART;
    bits |= d->def != NULL ? LIST_PERSISTENT : LIST_TRANSIENT;
    if (state == ST_RUNNING)
        return bits | LIST_RUNNING;
    if (state == ST_PAUSED)
        return bits | LIST_PAUSED;
    return bits | (state == ST_SHUTOFF ? LIST_SHUTOFF : LIST_OTHER);
}

bool lv_is_listed(const struct domain *d, unsigned flags)
{
    static const unsigned groups[] = { LIST_ACTIVE | LIST_INACTIVE,
        LIST_PERSISTENT | LIST_TRANSIENT, LIST_RUNNING | LIST_PAUSED | LIST_SHUTOFF | LIST_OTHER,
        LIST_MANAGED_SAVE | LIST_NO_MANAGED_SAVE, LIST_AUTOSTART | LIST_NO_AUTOSTART,
        LIST_SNAPSHOT | LIST_NO_SNAPSHOT, LIST_CHECKPOINT | LIST_NO_CHECKPOINT };
    unsigned bits = list_bits(d);

    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++)
        if ((flags & groups[i]) != 0 && (flags & groups[i] & bits) == 0)
            return false;
    return true;
}

int lv_list_all(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_list_args *a = args;
    lv_list *l = ret;
    unsigned n = 0;

    if (lv_check_flags(k, a->flags, LV_LIST_ALL, e) < 0)
        return -1;
    for (struct domain *d = registry_first(k->m->registry); d != NULL; d = d->next)
        n += lv_is_listed(d, a->flags);
    l->n = n;
    if (a->need_results == 0 || n == 0)
        return 0;
    l->domains.domains_val = calloc(n, sizeof *l->domains.domains_val);
    if (l->domains.domains_val == NULL)
        return err_set(e, ERR_MEMORY, "migrd is out of memory");
    for (struct domain *d = registry_first(k->m->registry); d != NULL; d = d->next)
        if (lv_is_listed(d, a->flags) &&
            lv_domain_put(d, &l->domains.domains_val[l->domains.domains_len++], e) < 0)
            return -1;
    return 0;
}

/* --- lists in the older form --- */

static unsigned count(const struct migrd *m, bool live)
{
    unsigned n = 0;

    for (const struct domain *d = registry_first(m->registry); d != NULL; d = d->next)
        n += d->live == live;
    return n;
}

int lv_active_count(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)args;
    (void)e;
    ((lv_int *)ret)->value = (int)count(k->m, true);
    return 0;
}

int lv_defined_count(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)args;
    (void)e;
    ((lv_int *)ret)->value = (int)count(k->m, false);
    return 0;
}

int lv_active_ids(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    int most = ((const lv_int *)args)->value;
    lv_ids *l = ret;

    l->ids.ids_val = calloc(count(k->m, true) + 1, sizeof *l->ids.ids_val);
    if (l->ids.ids_val == NULL)
        return err_set(e, ERR_MEMORY, "migrd is out of memory");
    for (const struct domain *d = registry_first(k->m->registry); d != NULL; d = d->next)
        if (d->live && (int)l->ids.ids_len < most)
            l->ids.ids_val[l->ids.ids_len++] = d->info.domid;
    return 0;
}

int lv_defined_names(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    int most = ((const lv_int *)args)->value;
    lv_names *l = ret;

    l->names.names_val = calloc(count(k->m, false) + 1, sizeof *l->names.names_val);
    if (l->names.names_val == NULL)
        return err_set(e, ERR_MEMORY, "migrd is out of memory");
    for (const struct domain *d = registry_first(k->m->registry); d != NULL; d = d->next) {
        if (d->live || (int)l->names.names_len >= most)
            continue;
        l->names.names_val[l->names.names_len] = lv_copy(d->name);
        if (l->names.names_val[l->names.names_len++] == NULL)
            return err_set(e, ERR_MEMORY, "migrd is out of memory");
    }
    return 0;
}
