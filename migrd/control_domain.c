/* SPDX-License-Identifier: ISC */
/* Requests about domains: list, get, create, start, undefine, act, dump. */
#include <stdlib.h>
#include <string.h>
#include <stdio.h>

#include "base/log.h"
#include "migrd/control_internal.h"
#include "migrd/define/define.h"
#include "migrd/ha.h"
#include "migrd/registry.h"
#include "migrd/report.h"

#define WAIT_S 300
#define OVERRIDES_MAX 256
#define NOTES_MAX 16

void control_list(struct client *c, const Migrd__Request *rq)
{
    control_send_own(c, rq->serial, report_domains(c->m, rq->list->all));
}

void control_get(struct client *c, const Migrd__Request *rq)
{
    control_send_own(c, rq->serial, report_domain(c->m, rq->get->domain));
}

/* Answers with the domain as it is now. */
static void answer_domain(void *arg, const char *uuid, const struct err *e)
{
    struct request *r = arg;

    if (e->code != ERR_NONE)
        control_fail(r->c, r->serial, e);
    else
        control_send_own(r->c, r->serial, report_domain(r->c->m, uuid));
    request_end(r);
}

/* The same, or where the cluster has started it. */
static void answer_started(void *arg, const char *uuid, const struct err *e)
{
    struct request *r = arg;
    char where[400];

    if (e->code != ERR_NONE || !ha_elsewhere(r->c->m, uuid, where, sizeof where)) {
        answer_domain(arg, uuid, e);
        return;
    }
    control_ok(r->c, r->serial, where);
    request_end(r);
}

/* --- create --- */

/* Before the answer, so that they are seen whatever that is. */
static void send_notes(struct client *c, uint32_t serial, struct define_notes *notes)
{
    Migrd__Reply r = MIGRD__REPLY__INIT;
    char *list[NOTES_MAX], *save = NULL;

    r.notes = list;
    for (char *line = strtok_r(notes->text, "\n", &save); line != NULL && r.n_notes < NOTES_MAX;
         line = strtok_r(NULL, "\n", &save)) {
        log_info("control", "%s", line);
        list[r.n_notes++] = line;
    }
    if (r.n_notes > 0)
        control_send(c, serial, &r, false);
}

static Migrd__Domain *parse(
    struct client *c, uint32_t serial, const Migrd__CreateDomain *cr, struct err *e)
{
    struct define_notes notes;
    Migrd__Domain *def;

    if (cr->text.len > DEFINE_TEXT_MAX || cr->n_overrides > OVERRIDES_MAX) {
        err_set(e, ERR_INVALID, "%.200s: a definition has at most %u bytes and %u overrides",
            cr->file, DEFINE_TEXT_MAX, OVERRIDES_MAX);
        return NULL;
    }
    def = define_parse_noted((const char *)cr->text.data, cr->text.len, DEFINE_AUTO, cr->file,
        (const char *const *)cr->overrides, cr->n_overrides, &notes, e);
    send_notes(c, serial, &notes);
    if (def != NULL && strcmp(def->hypervisor, c->m->hv_ops->name) != 0) {
        err_set(e, ERR_UNSUPPORTED, "domain %s needs hypervisor %s; this host has %s", def->name,
            def->hypervisor, c->m->hv_ops->name);
        migrd__domain__free_unpacked(def, NULL);
        return NULL;
    }
    return def;
}

static void answer_dry_run(struct client *c, uint32_t serial, Migrd__Domain *def)
{
    Migrd__Reply r = MIGRD__REPLY__INIT;
    Migrd__DomainInfo info = MIGRD__DOMAIN_INFO__INIT, *list = &info;
    struct err e;
    char *xml = define_xml(def, -1, &e);

    info.domain = def;
    info.domid = -1;
    info.memory_kib = def->memory_kib;
    r.domains = &list;
    r.n_domains = 1;
    r.text = xml != NULL ? xml : (char *)(uintptr_t) "";
    control_send(c, serial, &r, true);
    free(xml);
}

void control_create(struct client *c, const Migrd__Request *rq)
{
    const Migrd__CreateDomain *cr = rq->create;
    struct err e = { 0 };
    Migrd__Domain *def = parse(c, rq->serial, cr, &e);
    struct request *r;
    int rc;

    if (def == NULL) {
        control_fail(c, rq->serial, &e);
        return;
    }
    if (cr->dry_run) {
        answer_dry_run(c, rq->serial, def);
    } else if ((r = request_new(c, rq)) != NULL) {
        control_audit(c, cr->define_only ? "define" : "create", def->name);
        rc = cr->define_only ? registry_define(c->m, &def, answer_domain, r, &e)
                             : registry_create(c->m, &def, cr->start_paused, answer_started, r, &e);
        if (rc < 0) {
            control_fail(c, rq->serial, &e);
            request_end(r);
        }
    }
    if (def != NULL)
        migrd__domain__free_unpacked(def, NULL);
}

/* --- actions --- */

static void act(struct client *c, const Migrd__Request *rq, struct domain *d, enum registry_op op,
    const struct registry_args *args, registry_done *done, bool wait_gone, uint32_t wait_s)
{
    struct request *r = request_new(c, rq);
    struct err e;

    if (r == NULL)
        return;
    r->wait_gone = wait_gone;
    r->wait_s = wait_s != 0 ? wait_s : WAIT_S;
    control_audit(c, registry_op_name(op), d->name);
    if (registry_act(c->m, d, op, args, done, r, &e) == 0)
        return;
    control_fail(c, rq->serial, &e);
    request_end(r);
}

void control_start_domain(struct client *c, const Migrd__Request *rq)
{
    const struct registry_args args = { .paused = rq->start->paused };
    struct domain *d = control_domain(c, rq->serial, rq->start->domain);

    if (d != NULL)
        act(c, rq, d, REG_START, &args, answer_started, false, 0);
}

void control_undefine(struct client *c, const Migrd__Request *rq)
{
    struct domain *d = control_domain(c, rq->serial, rq->undefine->domain);
    struct request *r;
    struct err e;

    if (d == NULL || (r = request_new(c, rq)) == NULL)
        return;
    control_audit(c, "undefine", d->name);
    if (ha_refuses(c->m, d->uuid, d->name, "undefine", &e) == 0 &&
        registry_undefine(c->m, d, request_done, r, &e) == 0)
        return;
    control_fail(c, rq->serial, &e);
    request_end(r);
}

/* The guest has been asked; with `wait` the answer comes when it has gone. */
static void asked(void *arg, const char *uuid, const struct err *e)
{
    struct request *r = arg;
    struct domain *d = registry_by_uuid(r->c->m->registry, uuid);
    struct err why;

    if (e->code != ERR_NONE || !r->wait_gone || d == NULL || !d->live) {
        request_done(r, uuid, e);
        return;
    }
    if (registry_wait_gone(r->c->m, d, (uint64_t)r->wait_s * 1000, request_done, r, &why) < 0)
        request_done(r, uuid, &why);
}

void control_act(struct client *c, const Migrd__Request *rq)
{
    static const enum registry_op ops[] = { [MIGRD__DOMAIN_ACTION__ACTION_PAUSE] = REG_PAUSE,
        [MIGRD__DOMAIN_ACTION__ACTION_UNPAUSE] = REG_UNPAUSE,
        [MIGRD__DOMAIN_ACTION__ACTION_SHUTDOWN] = REG_SHUTDOWN,
        [MIGRD__DOMAIN_ACTION__ACTION_REBOOT] = REG_REBOOT,
        [MIGRD__DOMAIN_ACTION__ACTION_DESTROY] = REG_DESTROY };
    const Migrd__ActOnDomain *a = rq->act;
    struct domain *d;

    if (a->action <= MIGRD__DOMAIN_ACTION__ACTION_NONE ||
        (size_t)a->action >= sizeof ops / sizeof ops[0]) {
        control_fail(c, rq->serial, &(struct err){ ERR_UNSUPPORTED, "unknown action" });
        return;
    }
    d = control_domain(c, rq->serial, a->domain);
    if (d != NULL)
        act(c, rq, d, ops[a->action], NULL, asked,
            a->wait && a->action == MIGRD__DOMAIN_ACTION__ACTION_SHUTDOWN, a->wait_s);
}

void control_dump(struct client *c, const Migrd__Request *rq)
{
    struct domain *d = control_domain(c, rq->serial, rq->dump->domain);
    struct err e;
    char *text;

    if (d == NULL)
        return;
    text = rq->dump->xml ? define_xml(registry_definition(d), d->live ? d->info.domid : -1, &e)
                         : define_xm(registry_definition(d), &e);
    if (text == NULL)
        control_fail(c, rq->serial, &e);
    else
        control_ok(c, rq->serial, text);
    free(text);
}
