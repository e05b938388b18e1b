/* SPDX-License-Identifier: ISC */
/* Requests about migrations, saves and restores; progress goes to who asked for it. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "migrd/control_internal.h"
#include "migrd/migration.h"
#include "migrd/report.h"

static void send_info(struct request *r, const struct migration *g, bool last)
{
    Migrd__Reply reply = MIGRD__REPLY__INIT;
    Migrd__MigrationInfo info, *list = &info;
    Migrd__Failure f = MIGRD__FAILURE__INIT;
    struct err e;

    migration_info(g, &info);
    reply.migrations = &list;
    reply.n_migrations = 1;
    if (last && migration_told(g, &e) < 0) {
        f.code = (char *)(uintptr_t)err_code_name(e.code);
        f.text = e.text;
        reply.failure = &f;
    }
    control_send(r->c, r->serial, &reply, last);
}

static void watched(void *arg, struct migration *g, bool last)
{
    struct request *r = arg;

    if (last || r->progress)
        send_info(r, g, last);
    if (last)
        request_end(r);
}

static void follow(struct request *r, struct migration *g)
{
    if (migration_watch(g, watched, r) == 0)
        return;
    control_fail(r->c, r->serial,
        &(struct err){ ERR_RESOURCE, "too many clients watch this migration; it goes on" });
    request_end(r);
}

static void give_up(struct request *r, const struct err *e)
{
    control_fail(r->c, r->serial, e);
    request_end(r);
}

typedef int starter(struct migrd *m, struct domain *d, const Migrd__Migrate *rq,
    struct migration **out, struct err *e);

static void start(struct client *c, const Migrd__Request *rq, const Migrd__Migrate *mg,
    const char *what, starter *how)
{
    struct domain *d = control_domain(c, rq->serial, mg->domain);
    struct request *r;
    struct migration *g;
    struct err e;

    if (d == NULL || (r = request_new(c, rq)) == NULL)
        return;
    r->progress = mg->progress;
    control_audit(c, what, d->name);
    if (how(c->m, d, mg, &g, &e) < 0)
        give_up(r, &e);
    else
        follow(r, g);
}

void control_migrate(struct client *c, const Migrd__Request *rq)
{
    start(c, rq, rq->migrate, "migrate", migration_start);
}

void control_dry_run(struct client *c, const Migrd__Request *rq)
{
    start(c, rq, rq->dry_run, "dry run of", migration_dry_run);
}

void control_save(struct client *c, const Migrd__Request *rq)
{
    struct domain *d = control_domain(c, rq->serial, rq->save->domain);
    const struct migration_file f = { .path = rq->save->path };
    struct request *r;
    struct migration *g;
    struct err e;

    if (d == NULL || (r = request_new(c, rq)) == NULL)
        return;
    control_audit(c, "save", d->name);
    if (migration_save(c->m, d, &f, &g, &e) < 0)
        give_up(r, &e);
    else
        follow(r, g);
}

void control_restore(struct client *c, const Migrd__Request *rq)
{
    const struct migration_file f = { .path = rq->restore->path,
        .paused = rq->restore->paused,
        .running = !rq->restore->paused };
    struct request *r = request_new(c, rq);
    struct migration *g;
    struct err e;

    if (r == NULL)
        return;
    control_audit(c, "restore", rq->restore->path);
    if (migration_restore(c->m, &f, &g, &e) < 0)
        give_up(r, &e);
    else
        follow(r, g);
}

void control_dump_core(struct client *c, const Migrd__Request *rq)
{
    const Migrd__DumpCore *in = rq->dump_core;
    const struct migration_file f = { .path = in->path, .live = in->live, .crash = in->crash };
    struct domain *d = control_domain(c, rq->serial, in->domain);
    struct request *r;
    struct migration *g;
    struct err e;

    if (d == NULL || (r = request_new(c, rq)) == NULL)
        return;
    control_audit(c, "dump core of", d->name);
    if (migration_dump(c->m, d, &f, &g, &e) < 0)
        give_up(r, &e);
    else
        follow(r, g);
}

static struct migration *find(struct client *c, const Migrd__Request *rq, const char *which)
{
    struct migration *g = migration_find(c->m, which);
    struct err e;

    if (g == NULL) {
        err_set(&e, ERR_NOT_FOUND, "no migration of %.64s is under way on host %s", which,
            c->m->host_name);
        control_fail(c, rq->serial, &e);
    }
    return g;
}

void control_cancel(struct client *c, const Migrd__Request *rq)
{
    struct migration *g = find(c, rq, rq->cancel->domain);
    struct err e;

    if (g == NULL)
        return;
    control_audit(c, "cancel the migration of", rq->cancel->domain);
    if (migration_cancel(c->m, g, &e) < 0)
        control_fail(c, rq->serial, &e);
    else
        control_ok(c, rq->serial, "the migration is being cancelled");
}

void control_tune(struct client *c, const Migrd__Request *rq)
{
    struct migration *g = find(c, rq, rq->tune->domain);
    struct err e;

    if (g == NULL)
        return;
    control_audit(c, "tune the migration of", rq->tune->domain);
    if (rq->tune->params == NULL)
        control_fail(c, rq->serial, &(struct err){ ERR_INVALID, "nothing to change is given" });
    else if (migration_tune(g, rq->tune->params, &e) < 0)
        control_fail(c, rq->serial, &e);
    else
        control_ok(c, rq->serial, "");
}

void control_migrations(struct client *c, const Migrd__Request *rq)
{
    control_send_own(c, rq->serial, report_migrations(c->m, rq->migrations->finished));
}

void control_watch(struct client *c, const Migrd__Request *rq)
{
    struct migration *g = find(c, rq, rq->watch->domain);
    struct request *r;

    if (g == NULL || (r = request_new(c, rq)) == NULL)
        return;
    r->progress = true;
    send_info(r, g, false);
    follow(r, g);
}

void control_resolve(struct client *c, const Migrd__Request *rq)
{
    char text[400] = "";
    struct err e;

    control_audit(c, rq->resolve->run_here ? "resolve, run here:" : "resolve, discard here:",
        rq->resolve->domain);
    if (migration_resolve(c->m, rq->resolve->domain, rq->resolve, text, sizeof text, &e) < 0)
        control_fail(c, rq->serial, &e);
    else
        control_ok(c, rq->serial, text);
}
