/* SPDX-License-Identifier: ISC */
/*
 * Dry runs: what would a migration be like? Nothing moves, no journal line, no epoch; the domain is
 * held by one like by a migration, so that there is never one beside the other.
 *
 *   source   a look at this host; worker (job dry_run) -> Finished with a forecast, kept for the
 *            migration to come
 *   target   a session whose first message is a dry run: the checks of an offer, answered, and
 *            the session is nobody's business: it makes no entry, reserves nothing
 *
 * States of a source's: working, ended (migration_save's names); a target's stays in TGT_WAIT.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrd/define/define.h"
#include "migrd/link_history.h"
#include "migrd/migration_internal.h"

static struct link_kind link_of(const struct migration *g, const Migrd__Domain *def)
{
    return (struct link_kind){ .host = g->peer,
        .port = g->port,
        .channels = g->params.channels,
        .tls = (g->flags & JF_TLS) != 0,
        .compression = g->params.compression,
        .huge_pages = def != NULL && def->huge_pages };
}

static uint64_t wall_s(void)
{
    return clock_wall_ns() / NS_PER_S;
}

/* --- what other migrations use --- */

bool dry_history(const struct migration *g, Migrd__LinkHistory *out)
{
    const struct link_kind l = link_of(g, g->def);

    return link_history_get(g->m->migrations->history, &l, out);
}

void dry_score(struct migration *g)
{
    const struct link_kind l = link_of(g, g->def);
    struct link_history *h = g->m->migrations->history;
    Migrd__Finished *f = g->report;
    Migrd__Forecast *before;

    if (f == NULL)
        return;
    before = link_history_forecast(h, g->uuid, &l, &g->params, wall_s());
    if (before != NULL) {
        if (f->forecast != NULL)
            migrd__forecast__free_unpacked(f->forecast, NULL);
        f->forecast = before;
    }
    link_history_learn(h, g->m->loop, &l, &g->params, f, wall_s());
}

/* --- source --- */

static void end_now(struct migration *g)
{
    g->state = DRY_ENDED;
    if (g->worker == NULL)
        mig_close(g);
}

static void on_message(void *arg, const Migrd__FromWorker *fw)
{
    struct migration *g = arg;

    if (fw->body_case == MIGRD__FROM_WORKER__BODY_PROGRESS) {
        mig_take_progress(g, fw->progress);
        return;
    }
    log_error("migration", "%s: the worker of a dry run sends a message of kind %d", g->id,
        (int)fw->body_case);
    worker_kill(g->worker);
}

static void on_ended(void *arg, const Migrd__Finished *fin, const char *how)
{
    struct migration *g = arg;
    const struct link_kind l = link_of(g, g->def);

    g->worker = NULL;
    mig_take_report(g, fin);
    if (fin == NULL)
        mig_fail(g, ERR_INTERNAL, "%s", how);
    else if (!fin->ok)
        mig_fail(g, mig_code_of(fin->code), "%s", fin->text);
    else if (fin->forecast == NULL)
        mig_fail(g, ERR_INTERNAL, "the worker ended without a forecast");
    else
        link_history_dry_run(
            g->m->migrations->history, g->uuid, &l, &g->params, fin->forecast, wall_s());
    end_now(g);
}

static int start_worker(struct migration *g, struct err *e)
{
    static const struct worker_calls calls = { on_message, on_ended };
    Migrd__ToWorker t = MIGRD__TO_WORKER__INIT;
    struct src_start start;

    if (worker_start(g->m, 0, &calls, g, &g->worker, e) < 0)
        return -1;
    src_fill_start(g, &start);
    t.body_case = MIGRD__TO_WORKER__BODY_DRY_RUN;
    t.dry_run = &start.s;
    worker_send(g->worker, &t, -1);
    return 0;
}

/* Without facts of this host the target compares less, and says so. */
static void looked(struct mig_job *mj)
{
    struct migration *g = mj->g;
    struct err e = { 0 };

    if (mj->job.result < 0)
        log_warn("migration", "facts of this host for %s: %s", g->name, mj->job.err.text);
    src_keep_facts(g, mj->look);
    if (g->failure.code != ERR_NONE || start_worker(g, &e) < 0) {
        mig_fail(g, e.code, "%s", e.text);
        end_now(g);
    }
}

static int start_look(struct migration *g, struct err *e)
{
    struct mig_job *mj = mig_job_new(g, MT_CHECK);

    if (mj == NULL || (mj->look = look_new(g, false)) == NULL) {
        free(mj);
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", g->name);
    }
    mj->quiet = true;
    mj->then = looked;
    mig_job_run(mj, look_job_work);
    return 0;
}

int migration_dry_run(struct migrd *m, struct domain *d, const Migrd__Migrate *rq,
    struct migration **out, struct err *e)
{
    struct migration *g;

    if (src_check_request(m, d, rq, e) < 0)
        return -1;
    g = mig_new(m, MIG_DRY);
    if (g == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", d->name);
    g->state = DRY_WORKING;
    if (src_take_request(g, d, rq, e) < 0 || start_look(g, e) < 0) {
        mig_fail(g, e->code, "%s", e->text);
        end_now(g);
        return -1;
    }
    log_info("migration", "%s: dry run of %s to %s port %u, %s", g->id, g->name, g->peer, g->port,
        (g->flags & JF_TLS) != 0 ? "TLS" : "plain TCP");
    *out = g;
    return 0;
}

/* --- target --- */

static void answer(struct migration *g, const struct err *e)
{
    g->op_error = *e;
    tgt_verdict(g, e->code == ERR_NONE);
    if (e->code == ERR_NONE)
        log_info("migration", "%s asks for a dry run of %s: would be taken", g->peer, g->name);
    else
        log_info("migration", "%s asks for a dry run of %s: %s", g->peer, g->name, e->text);
}

static void checked(struct mig_job *mj)
{
    struct migration *g = mj->g;
    struct err e = mj->job.err;

    if (mj->job.result == 0 && look_judge(g, mj->look, &g->taken, &e) == 0)
        err_clear(&e);
    answer(g, &e);
}

/* A name that is taken is a line of the report; what cannot be read, or held, ends it. */
static int look(struct migration *g, struct err *e)
{
    if (g->def == NULL || g->offer == NULL)
        return err_set(e, ERR_PROTOCOL, "the offer cannot be read");
    if (look_check_home(g, e) < 0 || tgt_check_session(g, e) < 0 || mig_log_may_come(g, e) < 0)
        return -1;
    if (registry_may_come(g->m, g->def, g->epoch, e) == 0)
        return 0;
    if (!tgt_goes_on(e))
        return -1;
    g->taken = *e;
    err_clear(e);
    return 0;
}

void dry_offer(struct migration *g, const Migrd__OfferSeen *o)
{
    struct err e = { 0 };
    struct mig_job *mj = NULL;

    g->is_query = true; /* makes no entry, in no list */
    mig_host_text(g->peer, sizeof g->peer, o->source_host);
    snprintf(g->cert, sizeof g->cert, "%s", o->peer_cert);
    g->epoch = o->epoch;
    g->offer = migrd__offer__unpack(NULL, o->offer.len, o->offer.data);
    g->def = o->domain != NULL ? define_copy(o->domain) : NULL;
    if (o->domain != NULL)
        snprintf(g->name, sizeof g->name, "%s", o->domain->name);
    if (look(g, &e) < 0) {
        answer(g, &e);
        return;
    }
    mj = mig_job_new(g, MT_CHECK);
    if (mj == NULL || (mj->look = look_new(g, true)) == NULL) {
        free(mj);
        err_set(&e, ERR_MEMORY, "out of memory");
        answer(g, &e);
        return;
    }
    mj->quiet = true;
    mj->then = checked;
    mig_look_run(mj);
}
