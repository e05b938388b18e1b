/* SPDX-License-Identifier: ISC */
/*
 * After a restart of migrd (or of the host): the journal's last step of each migration and
 * the copy that is found in the hypervisor decide what to do; mt_source_restart and
 * mt_target_restart are the tables. Workers of before see their socket closed and
 * give up, unless they are past their commit; in no case do they act without us.
 *
 *   out: STARTED, PREPARED   guest goes on here at e; the target is told
 *        COMMITTED           guest stays paused; the target is asked
 *        DONE                our copy goes
 *        RECLAIMED           guest goes on here at e+2
 *   of a protected domain, the cluster's log is told of STARTED, and asked after PREPARED, COMMITTED
 *   and RECLAIMED whose it is, before anything is resumed
 *   in:  PREPARED            incomplete: discarded
 *        READY               complete: held until the source, or the log, says go or abort
 *        RUNNING             runs, or is made to
 *        DISCARDED           what is left of it goes
 *
 * An operator's word (migration_resolve) enters here too: it is what replaces a proof.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrd/define/define.h"
#include "migrd/link_history.h"
#include "migrd/migration_internal.h"
#include "migrd/registry_internal.h"

/* --- reading --- */

static void keep_open(struct migrd *m, const struct journal_record *r)
{
    struct migrations *ms = m->migrations;

    if (ms->n_open == ms->cap_open) {
        size_t cap = ms->cap_open ? ms->cap_open * 2 : 16;
        struct journal_record *p = realloc(ms->open, cap * sizeof *p);

        if (p == NULL) {
            log_error("migration", "out of memory: %s is not recovered", r->migration);
            return;
        }
        ms->open = p;
        ms->cap_open = cap;
    }
    ms->open[ms->n_open++] = *r;
}

static void remember(struct migrd *m, const struct journal_record *r, Migrd__Outcome outcome)
{
    struct migration shadow;

    memset(&shadow, 0, sizeof shadow);
    memcpy(shadow.id, r->migration, sizeof shadow.id);
    memcpy(shadow.uuid, r->uuid, sizeof shadow.uuid);
    memcpy(shadow.cert, r->cert, sizeof shadow.cert);
    shadow.epoch = r->epoch;
    query_remember(m, &shadow, outcome);
}

static void read_out(struct migrd *m, const struct journal_record *r)
{
    if (r->step == STEP_DONE)
        registry_note_record(
            m, r->uuid, r->cert[0] != '\0' ? r->cert : r->peer, r->epoch, 0, false);
    if (r->step == STEP_RECLAIMED)
        registry_note_record(m, r->uuid, ".", r->epoch + 1, 0, false);
    if (r->step != STEP_ABORTED && r->step != STEP_CLOSED)
        keep_open(m, r);
}

static void read_in(struct migrd *m, const struct journal_record *r)
{
    if (r->step == STEP_RUNNING)
        registry_note_record(m, r->uuid, ".", r->epoch, 0, false);
    if (r->step == STEP_DISCARDED)
        remember(m, r, MIGRD__OUTCOME__OUTCOME_DISCARDED);
    else if (r->step == STEP_CLOSED)
        remember(m, r, MIGRD__OUTCOME__OUTCOME_RUNNING);
    if (r->step != STEP_CLOSED)
        keep_open(m, r);
}

static void read_record(void *arg, const struct journal_record *r)
{
    struct migrd *m = arg;

    switch (r->kind) {
    case JK_DOMAIN:
        registry_note_record(m, r->uuid, r->peer, r->epoch, r->domid, false);
        if ((r->flags & JF_FORCED) != 0)
            registry_note_proven(m, r->uuid, r->epoch);
        break;
    case JK_OUT:
        read_out(m, r);
        break;
    case JK_IN:
        read_in(m, r);
        break;
    case JK_DOUBT:
        registry_note_record(m, r->uuid, "", 0, 0, true);
        break;
    case JK_NOTE:
    case JK_MAX:
        break;
    }
}

int migrations_read_journal(struct migrd *m, struct err *e)
{
    m->migrations = calloc(1, sizeof *m->migrations);
    if (m->migrations == NULL)
        return err_set(e, ERR_MEMORY, "migrations: out of memory");
    journal_replay(m->journal, read_record, m);
    return 0;
}

/* --- taking up --- */

static enum mt_copy copy_of(const struct domain *d, uint64_t epoch)
{
    if (d == NULL || !d->live || d->info.epoch > epoch)
        return COPY_ABSENT; /* a later life of the domain is none of this migration's business */
    if (d->info.state == HV_PAUSED && !hv_is_paused(&d->info))
        return COPY_RUNS; /* it waits for its disk, and goes on by itself */
    return d->info.state == HV_RUNNING || d->info.state == HV_BLOCKED ? COPY_RUNS : COPY_HELD;
}

/* What was discarded never ran; anything else has nothing to do with it. */
static bool was_discarded(const struct journal_record *r, const struct domain *d)
{
    return r->name[0] != '\0' && d != NULL && d->live && d->info.state == HV_INCOMING &&
           d->info.epoch == r->epoch;
}

static struct migration *rebuild(struct migrd *m, const struct journal_record *r, struct domain *d)
{
    struct migration *g = mig_new(m, r->kind == JK_OUT ? MIG_OUT : MIG_IN);

    if (g == NULL)
        return NULL;
    memcpy(g->id, r->migration, sizeof g->id);
    memcpy(g->uuid, r->uuid, sizeof g->uuid);
    memcpy(g->name, r->name, sizeof g->name);
    memcpy(g->peer, r->peer, sizeof g->peer);
    if (r->kind == JK_OUT)
        memcpy(g->owner, r->cert, sizeof r->cert);
    else
        memcpy(g->cert, r->cert, sizeof g->cert);
    g->port = r->port;
    g->flags = r->flags;
    g->logged = (r->flags & JF_PROTECTED) != 0;
    g->epoch = r->epoch;
    g->domid = d->live ? d->info.domid : 0;
    g->def = d->live_def != NULL ? define_copy(d->live_def) : NULL;
    g->start_wall_ns = r->wall_ns;
    g->prepared = r->kind == JK_OUT && r->step != STEP_STARTED;
    g->given_away = r->kind == JK_OUT && r->step == STEP_DONE;
    return g;
}

/* Damaged lines may have been those of COMMITTED: what stands still is not made to run. */
static bool may_have_committed(
    const struct migrd *m, const struct journal_record *r, const struct domain *d)
{
    return r->kind == JK_OUT && (r->flags & JF_PROTECTED) == 0 &&
           (r->step == STEP_STARTED || r->step == STEP_PREPARED) && d != NULL && d->live && d->info.state == HV_PAUSED && d->info.epoch < r->epoch &&
           registry_in_doubt(m->registry, r->uuid);
}

static void take_up(struct migrd *m, const struct journal_record *r)
{
    struct domain *d = registry_by_uuid(m->registry, r->uuid);
    /* The newest epoch of a copy here that is this migration's business. */
    enum mt_copy copy = copy_of(d, r->kind == JK_IN            ? r->epoch
                                   : r->step == STEP_RECLAIMED ? r->epoch + 1
                                                               : r->epoch - 1);
    bool logged = (r->flags & JF_PROTECTED) != 0;
    struct mt_cell cell = r->kind == JK_OUT ? mt_source_restart(logged, r->step, copy)
                                            : mt_target_restart(logged, r->step, copy);
    struct migration *g;
    struct err e;

    if (cell.op == MT_BUG ||
        (r->kind == JK_IN && r->step == STEP_DISCARDED && !was_discarded(r, d)))
        return;
    if (may_have_committed(m, r, d)) {
        log_error("migration",
            "%s: %s to %s, step %s: the journal is damaged and %s may have it: it stays paused; "
            "look there, then: migctl resolve %s --run-here --force --reason ..., xm unpause %s",
            r->migration, r->name, r->peer, mt_step_name(r->step), r->peer, r->name, r->name);
        return;
    }
    mig_say_restart(r, copy, (enum mt_op)cell.op);
    if (d == NULL)
        d = registry_add(m, r->uuid, r->name, &e);
    if (d == NULL || d->mig != NULL || (g = rebuild(m, r, d)) == NULL) {
        log_error("migration", "%s %s cannot be taken up", r->migration, r->name);
        return;
    }
    d->mig = g;
    g->state = cell.next;
    snprintf(g->failed_in, sizeof g->failed_in, "%s", mt_step_name(r->step));
    mig_fail(g, ERR_PEER, "migrd was restarted in the middle of it");
    if (cell.op == MT_J_RECLAIMED || r->step == STEP_RECLAIMED)
        g->reclaimed = true;
    if (g->kind == MIG_OUT)
        src_run(g, (enum mt_op)cell.op);
    else
        tgt_run(g, (enum mt_op)cell.op);
    if (cell.op == MT_CLOSE && g->jobs == 0)
        mig_close(g);
}

/* Did the domain have a later life in `k`? Not in what was discarded: its epoch is a peer's word,
 * and a question about a migration that never was makes such a record too. But an offer that
 * was taken here, of the same epoch and later, shows that the one before it had ended. */
static bool is_later(const struct journal_record *k, const struct journal_record *r, bool behind)
{
    if (strcmp(k->uuid, r->uuid) != 0)
        return false;
    if (k->kind == JK_IN && k->step == STEP_DISCARDED)
        return r->kind == JK_IN && k->name[0] != '\0' && k->epoch == r->epoch && behind;
    return k->epoch > r->epoch || (k->epoch == r->epoch && behind);
}

/* A later life of the domain is known here: this migration's last record could not be written
 * when it ended (a full disk), and its earlier ones must not disturb what came after. Of two of
 * the same epoch the first one failed, for else there would be no second one. */
static bool superseded(const struct migrd *m, size_t i)
{
    const struct migrations *ms = m->migrations;
    const struct journal_record *r = &ms->open[i];
    const struct ownership *o = registry_ownership(m->registry, r->uuid);

    for (size_t k = 0; k < ms->n_open; k++)
        if (k != i && is_later(&ms->open[k], r, k > i))
            return true;
    if (o == NULL || o->epoch < r->epoch)
        return false;
    if (r->kind == JK_IN) /* RUNNING made that owner itself */
        return r->step != STEP_RUNNING;
    return r->step == STEP_STARTED || r->step == STEP_PREPARED || r->step == STEP_COMMITTED;
}

static void close_superseded(struct migrd *m, const struct journal_record *r)
{
    struct journal_record end = *r;
    struct err e;

    if (r->step == STEP_DISCARDED)
        return;
    end.step = STEP_CLOSED;
    if (r->kind == JK_IN && r->step != STEP_RUNNING)
        end.step = STEP_DISCARDED;
    if (r->kind == JK_IN)
        remember(m, r,
            end.step == STEP_CLOSED ? MIGRD__OUTCOME__OUTCOME_RUNNING
                                    : MIGRD__OUTCOME__OUTCOME_DISCARDED);
    log_info("migration", "%s %s: journal says %s, but it has moved on since: %s", r->migration,
        r->name, mt_step_name(r->step), mt_step_name(end.step));
    if (journal_append(m->journal, &end, false, &e) < 0)
        log_warn("migration", "%s: %s", r->migration, e.text);
}

/* A copy that never ran and that no journal line gives to this host: the rest of a restore or
 * an offer that was under way when migrd died. */
static void destroy_strays(struct migrd *m)
{
    struct err e;

    for (struct domain *d = registry_first(m->registry); d != NULL; d = d->next) {
        const struct ownership *o = registry_ownership(m->registry, d->uuid);

        if (!d->live || d->info.state != HV_INCOMING || d->mig != NULL)
            continue;
        if (o != NULL && strcmp(o->owner, m->host_name) == 0 && o->epoch >= d->info.epoch)
            continue;
        log_warn("migration", "%s: an incoming copy without a migration: destroyed", d->name);
        if (registry_act(m, d, REG_DESTROY, NULL, NULL, NULL, &e) < 0)
            log_error("migration", "%s: %s", d->name, e.text);
    }
}

int migrations_open(struct migrd *m, struct err *e)
{
    struct migrations *ms = m->migrations;
    char path[PATHS_LEN + 32];

    (void)e;
    snprintf(path, sizeof path, "%s/link-history.json", m->paths.state);
    ms->history = link_history_open(path);
    for (size_t i = 0; i < ms->n_open; i++) {
        if (superseded(m, i))
            close_superseded(m, &ms->open[i]);
        else
            take_up(m, &ms->open[i]);
    }
    destroy_strays(m);
    free(ms->open);
    ms->open = NULL;
    ms->n_open = ms->cap_open = 0;
    return 0;
}

/* --- the operator's word --- */

static const char risk_run[] = "If the other host runs this domain too, two copies will write to "
                               "the same disks and destroy them. "
                               "Make sure that it is off there (power the host off if you cannot "
                               "reach it), then repeat with --force.";
static const char risk_discard[] =
    "If no other host runs this domain, its memory is lost: it can only be booted anew. "
    "Look at the other host first, then repeat with --force.";

/* No migration is under way: the domain was given away, or the journal was damaged. */
static int take_ownership(struct migrd *m, struct domain *d, const char *reason, struct err *e)
{
    char why[400];
    const struct migration_owner own = {
        .uuid = d->uuid, .name = d->name, .host = "", .epoch = d->epoch + 1, .why = why,
        .by_operator = true
    };

    snprintf(why, sizeof why, "operator: %.300s", reason);
    return migration_set_owner(m, &own, NULL, NULL, e);
}

void mig_not_decided(struct migration *g)
{
    if ((g->flags & JF_FORCED) != 0)
        log_error("migration", "%s: %s: the operator's decision came to nothing: %s", g->id,
            g->name, g->op_error.text);
    g->flags &= ~(uint32_t)JF_FORCED;
    g->reason[0] = '\0';
}

static int resolve_migration(
    struct migration *g, const Migrd__Resolve *rq, char *text, size_t len, struct err *e)
{
    int event;

    if (g->logged)
        return err_set(e, ERR_STATE,
            "domain %s is protected by HA: the cluster's log decides, as soon as a majority of the "
            "nodes is there; migctl ha status %s shows it, and migctl ha confirm-dead NODE tells it "
            "that a lost node is off",
            g->name, g->name);
    if (!migration_in_doubt(g))
        return err_set(e, ERR_STATE,
            "the migration of %s is under way, not in doubt; migctl cancel stops it", g->name);
    if (g->kind == MIG_OUT)
        event = rq->run_here ? (int)SRC_EV_RESOLVE_RUN : (int)SRC_EV_RESOLVE_DISCARD;
    else
        event = rq->run_here ? (int)TGT_EV_RESOLVE_RUN : (int)TGT_EV_RESOLVE_DISCARD;
    g->flags |= JF_FORCED;
    snprintf(g->reason, sizeof g->reason, "operator: %.160s", rq->reason);
    log_warn("migration", "%s: %s: an operator decides without proof: %s (%s)", g->id, g->name,
        rq->run_here ? "run it here" : "discard it here", rq->reason);
    mig_post(g, event);
    snprintf(text, len, "%s: %s", g->name,
        rq->run_here
            ? "it will run here, if its disks do not tell that the other host is alive; the "
              "log says what came of it"
            : "the copy here will be discarded");
    return 0;
}

int migration_resolve(struct migrd *m, const char *domain, const Migrd__Resolve *rq, char *text,
    size_t len, struct err *e)
{
    struct domain *d = registry_find(m->registry, domain);
    struct migration *g = migration_find(m, domain);

    if (d == NULL && g == NULL)
        return err_set(e, ERR_NOT_FOUND, "no domain %.64s here", domain);
    if (rq->run_here == rq->discard)
        return err_set(e, ERR_INVALID, "either run it here or discard it here");
    if (g == NULL && !d->doubt && registry_owned(m, d))
        return err_set(e, ERR_STATE, "domain %s is not in doubt: this host owns it", d->name);
    if (rq->reason[0] == '\0')
        return err_set(e, ERR_INVALID, "a reason is needed: it is kept in the journal");
    if (!rq->force)
        return err_set(e, ERR_REFUSED, "%s: there is no proof. %s", d != NULL ? d->name : g->name,
            rq->run_here ? risk_run : risk_discard);
    if (g != NULL)
        return resolve_migration(g, rq, text, len, e);
    if (ha_refuses(m, d->uuid, d->name, "resolve", e) < 0)
        return -1;
    if (!rq->run_here)
        return err_set(e, ERR_STATE,
            "domain %s does not run here; migctl has nothing to discard (xm delete removes its "
            "definition)",
            d->name);
    snprintf(text, len, "%s: this host owns it again; start it when you like", d->name);
    return take_ownership(m, d, rq->reason, e);
}
