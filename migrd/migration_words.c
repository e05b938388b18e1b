/* SPDX-License-Identifier: ISC */
/*
 * What the log says about a hand-over that did not go smoothly: one sentence each that names the
 * domain, the other host, the step, the reason, and what happens next. tests/integration/t_matrix
 * looks for them after each fault.
 *
 *   NAME to PEER, step STEP: failed (CODE): REASON; NEXT        (out)
 *   NAME from PEER, step STEP: failed (CODE): REASON; NEXT      (in)
 *   NAME to PEER, step STEP: in doubt (REASON); NEXT
 *   NAME to PEER, step STEP: migrd was restarted (STATE OF THE COPY); NEXT
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "migrd/migration_internal.h"

static bool here(const struct migration *g, const struct domain *d)
{
    return d != NULL && d->live && d->info.epoch <= g->epoch + 1;
}

static void next_out(const struct migration *g, char *out, size_t len)
{
    const struct domain *d = mig_domain(g);
    bool paused = (g->flags & JF_WAS_PAUSED) != 0;

    if (g->lost_epoch != 0)
        snprintf(out, len, "it runs there, or will; the copy here is destroyed");
    else if (!here(g, d))
        snprintf(out, len, "it does not run here any more");
    else if (g->not_resumed)
        snprintf(out, len, "it could not be resumed and stays paused here: xm unpause %s", g->name);
    else if (g->reclaimed)
        snprintf(out, len, "it was taken back and goes on here under epoch %llu",
            (unsigned long long)g->epoch + 1);
    else
        snprintf(out, len, "it %s here as before%s, and can be migrated again",
            paused ? "is paused" : "runs",
            g->prepared ? ", the target is told to drop its copy" : "");
}

static void next_in(const struct migration *g, char *out, size_t len)
{
    if (g->state == TGT_REFUSED)
        snprintf(out, len, "nothing was made here, it stays with its source");
    else
        snprintf(out, len, "the copy here is dropped and never runs");
}

void mig_say_failure(struct migration *g, const struct err *e)
{
    if (g->kind != MIG_OUT && g->kind != MIG_IN) {
        log_warn(
            "migration", "%s %s: failed (%s): %s", g->id, g->name, err_code_name(e->code), e->text);
        return;
    }
    if (g->kind == MIG_OUT)
        next_out(g, g->fate, sizeof g->fate);
    else
        next_in(g, g->fate, sizeof g->fate);
    log_warn("migration", "%s: %s %s %s, step %s: failed (%s): %s; %s", g->id, g->name,
        g->kind == MIG_OUT ? "to" : "from", g->peer, g->failed_in[0] ? g->failed_in : "end",
        err_code_name(e->code), e->text, g->fate);
}

int migration_told(const struct migration *g, struct err *e)
{
    struct err why;

    if (migration_outcome(g, &why) == 0)
        return 0;
    if (g->kind == MIG_OUT && g->fate[0] != '\0')
        return err_set(e, why.code, "%s to %s: %s; %s", g->name, g->peer, why.text, g->fate);
    return err_set(e, why.code, "%s", why.text);
}

void mig_say_given_away(const struct migration *g)
{
    const char *who = g->owner[0] ? g->owner : g->peer;

    if ((g->flags & JF_FORCED) != 0)
        log_warn("migration",
            "%s: %s to %s, step %s: in doubt (%s); %s: %s counts as its owner, the copy here is "
            "destroyed",
            g->id, g->name, g->peer, g->failed_in, g->failure.text, g->reason, who);
    else
        log_warn("migration",
            "%s: %s to %s, step %s: no answer (%s); asked, %s says that it runs it, the copy here "
            "is destroyed",
            g->id, g->name, g->peer, g->failed_in, g->failure.text, who);
}

/* No operator decides here. */
static void doubt_logged(const struct migration *g, const char *why, unsigned wait_s)
{
    if (g->kind == MIG_OUT)
        log_warn("migration",
            "%s: %s to %s, step %s: in doubt (%s); it stays paused here, the cluster's log and %s "
            "are asked again in %u s",
            g->id, g->name, g->peer, g->failed_in[0] ? g->failed_in : "committed", why, g->peer,
            wait_s);
    else
        log_warn("migration",
            "%s: %s from %s, step %s: in doubt (%s); the complete copy is held paused here until "
            "its source or the cluster's log says whose it is",
            g->id, g->name, g->peer, g->failed_in[0] ? g->failed_in : "ready", why);
}

void mig_say_doubt(const struct migration *g, unsigned wait_s)
{
    const char *why = g->failure.text[0] ? g->failure.text : "its source is gone";

    if (g->logged) {
        doubt_logged(g, why, wait_s);
        return;
    }
    if (g->kind == MIG_OUT)
        log_warn("migration",
            "%s: %s to %s, step %s: in doubt (%s); it stays paused here, %s is asked again in %u "
            "s, "
            "or migctl resolve %s decides",
            g->id, g->name, g->peer, g->failed_in[0] ? g->failed_in : "committed", why, g->peer,
            wait_s, g->name);
    else
        log_warn("migration",
            "%s: %s from %s, step %s: in doubt (%s); the complete copy is held paused here until "
            "its source says go or abort, or migctl resolve %s decides",
            g->id, g->name, g->peer, g->failed_in[0] ? g->failed_in : "ready", why, g->name);
}

static const char *restart_next(enum mt_op op)
{
    static const char *const words[MT_OP_MAX] = {
        [MT_NONE] = "it is held until its source or migctl resolve decides",
        [MT_QUERY] = "it stays paused and the target is asked",
        [MT_L_OWNER] = "it stays as it is and the cluster's log is asked whose it is",
        [MT_L_END] = "the cluster's log is told that it failed",
        [MT_CLOSE] = "nothing is left to do",
        [MT_J_ABORTED] = "the migration is over",
        [MT_J_RUNNING] = "this host is its owner",
        [MT_J_DISCARDED] = "the copy is dropped",
        [MT_RESUME] = "it is resumed",
        [MT_RESUME_NEW] = "it is resumed",
        [MT_DESTROY] = "the copy is destroyed",
    };

    return words[op] != NULL ? words[op] : mt_op_name(op);
}

void mig_say_restart(const struct journal_record *r, enum mt_copy copy, enum mt_op op)
{
    static const char *const copies[COPY_MAX] = { "no copy is here", "the copy here stands still",
        "the copy here runs" };

    log_warn("migration", "%s: %s %s %s, step %s: migrd was restarted (%s); %s", r->migration,
        r->name, r->kind == JK_OUT ? "to" : "from", r->peer, mt_step_name(r->step), copies[copy],
        restart_next(op));
}
