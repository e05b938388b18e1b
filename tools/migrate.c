/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "tools/migrate.h"

#include <signal.h>
#include <string.h>

#define STEP_MS 200 /* how often ^C is looked at */

static volatile sig_atomic_t interrupts;

static void on_interrupt(int sig)
{
    (void)sig;
    interrupts = interrupts + 1;
}

int migrate_cancel(struct tool *t, const char *domain, struct err *e)
{
    Migrd__CancelMigration cancel = MIGRD__CANCEL_MIGRATION__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    struct client *c = NULL;
    Migrd__Reply *r;

    if (client_open(&t->paths, &c, e) < 0)
        return -1;
    cancel.domain = (char *)domain;
    CLIENT_BODY(rq, CANCEL, cancel, &cancel);
    r = client_call(c, &rq, TOOL_SHORT_MS, e);
    client_close(&c);
    if (r == NULL)
        return -1;
    tool_free(&r);
    return 0;
}

struct follow {
    struct tool *t;
    const char *domain;
    bool watch_only;
    enum migrate_show show;
    struct progress progress;
    int seen; /* interrupts that were acted upon */
};

/* True when the user wants to leave. */
static bool leave_now(struct follow *f)
{
    struct err e;

    if (f->seen == interrupts)
        return false;
    f->seen++;
    progress_end(&f->progress);
    if (f->watch_only || f->seen > 1) {
        fprintf(
            stderr, "Leaving; the migration goes on: 'migctl watch %s' follows it.\n", f->domain);
        return true;
    }
    fprintf(stderr, "Cancelling; ^C again leaves it to migrd.\n");
    if (migrate_cancel(f->t, f->domain, &e) < 0)
        fprintf(stderr, "Cannot be cancelled: %s\n", e.text);
    return false;
}

/* The forecast of a dry run, out of its report, so that JSON has it once and on top. */
static void lift_forecast(Migrd__MigrationInfo *m)
{
    if (strcmp(m->direction, "dry-run") != 0 || m->report == NULL)
        return;
    m->forecast = m->report->forecast;
    m->report->forecast = NULL;
}

static int finish(struct follow *f, const Migrd__Reply *r)
{
    Migrd__MigrationInfo *m = r->n_migrations > 0 ? r->migrations[0] : NULL;
    int rc = TOOL_OK;
    struct err e;

    progress_end(&f->progress);
    if (m != NULL)
        lift_forecast(m);
    if (m != NULL && f->show == MIGRATE_JSON)
        tool_json(&m->base);
    else if (m != NULL && f->show != MIGRATE_SILENT)
        report_print(m);
    if (m != NULL && checks_refused(m->report))
        rc = checks_refusal(m,
            strcmp(m->direction, "dry-run") == 0 && f->show != MIGRATE_SILENT);
    else if (client_failure(r, &e) < 0)
        rc = tool_fail(&e);
    else if (m != NULL && m->report != NULL && !m->report->ok)
        rc = tool_error("%s", m->report->text);
    else if (m != NULL && m->forecast != NULL && !forecast_is_good(m->forecast))
        rc = TOOL_WOULD_NOT;
    return rc;
}

static int follow_to_end(struct follow *f)
{
    for (;;) {
        Migrd__Reply *r = NULL;
        struct err e;
        int got = client_next(f->t->client, STEP_MS, &r, &e);
        bool last;

        if (got < 0) {
            progress_end(&f->progress);
            tool_fail(&e);
            return tool_error("what became of it: 'migctl migrations', once migrd runs again");
        }
        if (got > 0) {
            int rc = TOOL_OK;

            last = r->last || r->failure != NULL;
            if (last)
                rc = finish(f, r);
            else if (f->show == MIGRATE_PROGRESS && r->n_migrations > 0)
                progress_show(&f->progress, r->migrations[0]);
            tool_free(&r);
            if (last)
                return rc;
        }
        if (leave_now(f))
            return TOOL_FAILED;
    }
}

int migrate_follow(
    struct tool *t, Migrd__Request *rq, const char *domain, bool watch_only, enum migrate_show show)
{
    struct follow f = { .t = t, .domain = domain, .watch_only = watch_only, .show = show };
    struct sigaction sa = { .sa_handler = on_interrupt }, before;
    struct err e;
    int rc;

    if (tool_client(t) == NULL)
        return TOOL_FAILED;
    interrupts = 0;
    sigaction(SIGINT, &sa, &before);
    rc = client_send(t->client, rq, &e) < 0 ? tool_fail(&e) : follow_to_end(&f);
    sigaction(SIGINT, &before, NULL);
    return rc;
}
