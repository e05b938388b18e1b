/* SPDX-License-Identifier: ISC */
/*
 * virsh migrate --offline --persistent: a domain that does not run moves, so there is only
 * its definition and the right to start it, which is the pair (owner, epoch) of the
 * journals. The target takes it under a newer epoch in Finish, the source notes the new
 * owner in Confirm; from Begin to Confirm the source starts nothing. Should virsh die
 * between the two, each host believes that it may start the domain, until one does: where
 * it has disks their leases let only the newer epoch have them.
 *
 *   Begin     source: it is off, ours, and defined; held
 *   Prepare   target: it may come under that epoch; remembered for this client
 *   Finish    target: owner record -> definition -> answer
 *   Confirm   source: owner record -> with --undefinesource the definition goes -> answer
 */
#include <stdlib.h>
#include <string.h>

#include "migrd/libvirt/migrate.h"

int lv_offline_begin(struct lv_call *k, struct domain *d, unsigned flags, struct err *e)
{
    if ((flags & LV_M_PERSIST_DEST) == 0)
        return lv_fail(k, e, LV_E_INVALID,
            "--offline needs --persistent: only the definition of domain %s moves", d->name);
    if (d->live)
        return lv_fail(k, e, LV_E_INVALID,
            "domain %s is %s: --offline moves one that is shut off; migrate it --live", d->name,
            registry_state(d));
    if (d->mig != NULL || d->busy != NULL)
        return lv_fail(k, e, LV_E_INVALID, "domain %s is busy: %s", d->name,
            d->busy != NULL ? d->busy : "migration in progress");
    if (d->doubt || !registry_owned(k->m, d))
        return lv_fail(k, e, LV_E_INVALID, "domain %s belongs to host %s: move it from there",
            d->name, d->doubt ? "(not known, see migctl journal)" : d->owner);
    return 0;
}

int lv_offline_prepare(struct lv_call *k, const Migrd__Domain *def, uint64_t epoch, struct err *e)
{
    struct lv_move *mv = lv_move_find(k, LV_MOVE_EXPECTED, def->uuid);

    if (mv == NULL)
        mv = lv_move_new(k, LV_MOVE_EXPECTED, def->uuid);
    if (mv == NULL)
        return lv_fail(k, e, LV_E_BUSY, "this client has begun too many migrations");
    mv->epoch = epoch;
    return 0;
}

/* --- Finish --- */

static int answer(struct lv_call *k, const char *uuid, lv_finished *f, struct err *e)
{
    struct domain *d = registry_by_uuid(k->m->registry, uuid);
    Migrd__Ticket t = MIGRD__TICKET__INIT;

    if (d == NULL)
        return lv_fail(k, e, LV_E_NO_DOMAIN, "domain %s has gone already", uuid);
    t.step = MIGRD__TICKET_STEP__TICKET_FINISHED;
    t.uuid = d->uuid;
    t.target = k->m->host_name;
    t.epoch = d->epoch;
    if (lv_ticket_put(&t, &f->cookie.cookie_val, &f->cookie.cookie_len, e) < 0)
        return -1;
    return lv_domain_put(d, &f->dom, e);
}

static void defined(void *call, const char *uuid, const struct err *e)
{
    struct lv_call *k = call;
    lv_finished f = { .cookie = { 0 } };
    struct err why = *e;
    int r = e->code == ERR_NONE ? answer(k, uuid, &f, &why) : -1;

    lv_call_finish(k, r, &f, &why);
    free(f.dom.name);
    free(f.cookie.cookie_val);
}

static void owned(void *call, const char *uuid, const struct err *e)
{
    struct lv_call *k = call;
    Migrd__Domain *def = k->def;
    struct err why = *e;

    k->def = NULL;
    if (e->code == ERR_NONE && registry_define(k->m, &def, defined, k, &why) == 0)
        return;
    migrd__domain__free_unpacked(def, NULL);
    defined(k, uuid, &why);
}

int lv_offline_finish(struct lv_call *k, const struct lv_order *o, struct err *e)
{
    Migrd__Domain *def = lv_order_definition(k, o, NULL, e);
    struct lv_move *mv = def != NULL ? lv_move_find(k, LV_MOVE_EXPECTED, def->uuid) : NULL;
    struct migration_owner own = { .host = "", .why = "its definition came" };
    int r = def != NULL ? 0 : -1;

    if (r == 0 && mv == NULL)
        r = lv_fail(
            k, e, LV_E_INVALID, "domain %s: this client's Prepare did not announce it", def->name);
    if (r == 0)
        r = registry_may_come(k->m, def, mv->epoch, e);
    if (r == 0) {
        own.uuid = def->uuid;
        own.name = def->name;
        own.epoch = mv->epoch;
        lv_audit(k, "take the definition of", def->name);
        r = migration_set_owner(k->m, &own, owned, k, e);
    }
    if (r == 0) {
        k->def = def;
        lv_move_end(k->m, &mv);
        return LV_LATER;
    }
    if (def != NULL)
        migrd__domain__free_unpacked(def, NULL);
    return -1;
}

/* --- Confirm --- */

static void given(void *move, const char *uuid, const struct err *e)
{
    struct lv_move *mv = move;
    struct lv_call *k = mv->k;
    const lv_confirm *a = k->args;
    struct domain *d;
    struct err why = *e;

    lv_move_end(k->m, &mv);
    d = registry_by_uuid(k->m->registry, uuid);
    if (e->code == ERR_NONE && d != NULL && d->def != NULL &&
        (a->flags & LV_M_UNDEFINE_SOURCE) != 0 &&
        registry_undefine(k->m, d, lv_call_end, k, &why) == 0)
        return;
    lv_call_end(k, uuid, &why);
}

/* From here on neither the client's end nor time lets anybody start it: the record may be slow. */
static int give(
    struct lv_call *k, struct lv_move *mv, const struct migration_owner *own, struct err *e)
{
    mv->kind = LV_MOVE_GIVEN;
    mv->c = NULL;
    mv->k = k;
    if (migration_set_owner(k->m, own, given, mv, e) == 0)
        return 0;
    lv_move_end(k->m, &mv);
    return -1;
}

int lv_offline_confirm(struct lv_call *k, const struct lv_step *s, struct err *e)
{
    struct domain *d = lv_domain(k, s->dom, e);
    struct migration_owner own = { .why = "its definition went there" };
    struct lv_move *mv;
    Migrd__Ticket *t;
    int r;

    if (d == NULL)
        return -1;
    mv = lv_move_find(k, LV_MOVE_HELD, d->uuid);
    t = lv_ticket_take(
        k, s->cookie, s->cookie_len, MIGRD__TICKET_STEP__TICKET_FINISHED, d->uuid, e);
    if (t == NULL)
        return -1;
    own.uuid = d->uuid;
    own.name = d->name;
    own.host = t->target;
    own.epoch = t->epoch;
    if (mv == NULL || d->epoch + 1 != t->epoch || strcmp(t->target, k->m->host_name) == 0 ||
        t->target[0] == '\0')
        r = lv_fail(k, e, LV_E_INVALID,
            "domain %s: this client's Begin did not announce its move, or too long ago", d->name);
    else
        r = give(k, mv, &own, e);
    migrd__ticket__free_unpacked(t, NULL);
    return r == 0 ? LV_LATER : -1;
}
