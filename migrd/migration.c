/* SPDX-License-Identifier: ISC */
/*
 * The engine under both tables. An event enters the migration's queue; the queue is
 * worked off in order, except that a cell MT_DEFER leaves its event where it is until the
 * state has changed. A cell's operation either acts at once or is a job in the pool, whose
 * result is the next event: so at any time at most one step is under way per migration,
 * and every step sees the outcome of the one before it.
 *
 * Life: active list -> (final state) history, `finished` list, last watch call -> freed
 * when MIGRATIONS_KEPT newer ones have ended. Worker, job and timer hold it in the active
 * list until they are gone.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/pbjson.h"
#include "migrd/events.h"
#include "migrd/facts_query.h"
#include "migrd/link_history.h"
#include "migrd/migration_internal.h"
#include "transport/pki.h"

/* --- lists --- */

struct migration *mig_new(struct migrd *m, enum mig_kind kind)
{
    struct migration *g = calloc(1, sizeof *g);
    struct migration **tail = &m->migrations->active;
    uuid_t u;

    if (g == NULL)
        return NULL;
    g->m = m;
    g->kind = kind;
    uuid_generate_random(u);
    uuid_unparse_lower(u, g->id);
    migrd__precopy_params__init(&g->params);
    g->start_wall_ns = clock_wall_ns();
    uv_timer_init(m->loop, &g->timer);
    g->timer.data = g;
    g->timer_open = true;
    while (*tail != NULL)
        tail = &(*tail)->next;
    *tail = g;
    return g;
}

static void mig_free(struct migration *g)
{
    if (g->def != NULL)
        migrd__domain__free_unpacked(g->def, NULL);
    if (g->home != NULL)
        migrd__domain__free_unpacked(g->home, NULL);
    if (g->offer != NULL)
        migrd__offer__free_unpacked(g->offer, NULL);
    if (g->facts != NULL)
        migrd__host_facts__free_unpacked(g->facts, NULL);
    if (g->checks != NULL)
        migrd__check_report__free_unpacked(g->checks, NULL);
    if (g->progress != NULL)
        migrd__progress__free_unpacked(g->progress, NULL);
    if (g->report != NULL)
        migrd__finished__free_unpacked(g->report, NULL);
    free(g);
}

static void unlink_from(struct migration **list, struct migration *g)
{
    for (; *list != NULL; list = &(*list)->next)
        if (*list == g) {
            *list = g->next;
            return;
        }
}

/* Newest first; drops the oldest beyond MIGRATIONS_KEPT. */
static void keep_in_history(struct migrations *ms, struct migration *g)
{
    struct migration **p = &ms->finished;

    g->next = ms->finished;
    ms->finished = g;
    for (unsigned n = 0; *p != NULL; n++) {
        struct migration *old = *p;

        if (n < MIGRATIONS_KEPT) {
            p = &old->next;
            continue;
        }
        *p = old->next;
        mig_free(old);
    }
}

static void timer_closed(uv_handle_t *h)
{
    struct migration *g = h->data;

    if (g->m->migrations->stopping)
        return; /* migrations_close frees the active ones */
    unlink_from(&g->m->migrations->active, g);
    if (g->is_query || (g->kind == MIG_IN && g->uuid[0] == '\0'))
        mig_free(g);
    else
        keep_in_history(g->m->migrations, g);
}

static void retire_if_free(struct migration *g)
{
    if (!g->is_over || g->worker != NULL || g->jobs > 0 || !g->timer_open || g->draining)
        return;
    g->timer_open = false;
    uv_close((uv_handle_t *)&g->timer, timer_closed);
}

struct migration *mig_by_session(struct migrd *m, const char *session)
{
    for (struct migration *g = m->migrations->active; g != NULL; g = g->next)
        if (g->kind == MIG_IN && strcmp(g->session, session) == 0)
            return g;
    return NULL;
}

struct migration *migration_next(struct migrd *m, struct migration *after, bool finished)
{
    struct migration *g = after != NULL ? after->next : m->migrations->active;

    if (after != NULL && after->is_over && !after->timer_open)
        return g;
    /* Sessions without an offer are nobody's business, those that have ended are in history. */
    while (g != NULL && (g->is_query || g->uuid[0] == '\0' || g->is_over))
        g = g->next;
    if (g == NULL && finished)
        return m->migrations->finished;
    return g;
}

struct migration *migration_find(struct migrd *m, const char *which)
{
    struct domain *d = registry_find(m->registry, which);

    for (struct migration *g = m->migrations->active; g != NULL; g = g->next)
        if (!g->is_over && (strcmp(g->id, which) == 0 || (d != NULL && d->mig == g)))
            return g;
    return NULL;
}

bool migration_leaves(const struct migration *g)
{
    return g->kind == MIG_OUT && !g->is_over;
}

struct migration *migration_by_id(struct migrd *m, const char *id)
{
    for (struct migration *g = m->migrations->active; g != NULL; g = g->next)
        if (strcmp(g->id, id) == 0)
            return g;
    for (struct migration *g = m->migrations->finished; g != NULL; g = g->next)
        if (strcmp(g->id, id) == 0)
            return g;
    return NULL;
}

struct domain *mig_domain(const struct migration *g)
{
    struct domain *d = registry_by_uuid(g->m->registry, g->uuid);

    return d != NULL && d->mig == g ? d : NULL;
}

/* --- states and words --- */

static const char *state_name(const struct migration *g)
{
    switch (g->kind) {
    case MIG_OUT:
        return mt_source_state_name((enum src_state)g->state);
    case MIG_IN:
        return mt_target_state_name((enum tgt_state)g->state);
    case MIG_DRY:
        return g->state == DRY_ENDED ? "ended" : "forecasting";
    case MIG_SAVE:
    case MIG_RESTORE:
    case MIG_DUMP:
        break;
    }
    return save_state_name(g);
}

static bool state_final(const struct migration *g)
{
    switch (g->kind) {
    case MIG_OUT:
        return mt_source_final((enum src_state)g->state);
    case MIG_IN:
        return mt_target_final((enum tgt_state)g->state);
    case MIG_SAVE:
    case MIG_RESTORE:
    case MIG_DUMP:
    case MIG_DRY:
        break;
    }
    return g->is_over;
}

bool migration_in_doubt(const struct migration *g)
{
    if (g->kind == MIG_OUT)
        return g->state == SRC_DOUBT || g->state == SRC_QUERYING || g->state == SRC_LOOKING ||
               g->state == SRC_TAKING_BACK;
    return g->kind == MIG_IN && g->state == TGT_DOUBT;
}

bool migration_holds(const struct migration *g)
{
    if (g->is_over)
        return false;
    if (g->kind == MIG_OUT)
        return g->state == SRC_PREPARING || g->state == SRC_PREPARED ||
               mt_source_committed((enum src_state)g->state) || g->state == SRC_RECLAIMING ||
               g->state == SRC_RETAKING;
    return g->kind == MIG_IN;
}

const char *migration_domain_state(const struct migration *g)
{
    if (migration_in_doubt(g))
        return "in doubt";
    switch (g->kind) {
    case MIG_OUT:
        return "migrating";
    case MIG_IN:
        return "incoming";
    case MIG_SAVE:
        return "saving";
    case MIG_DUMP:
        return "dumping";
    case MIG_DRY:
        return "forecasting";
    case MIG_RESTORE:
        break;
    }
    return "restoring";
}

static const char *direction(const struct migration *g)
{
    static const char *const words[] = { "out", "in", "save", "restore", "dry-run", "dump" };

    return words[g->kind];
}

/* A host, or a file. */
static const char *other_end(const struct migration *g)
{
    if (g->path[0] != '\0')
        return g->path;
    return g->owner[0] != '\0' ? g->owner : g->peer;
}

void mig_fail(struct migration *g, enum err_code code, const char *fmt, ...)
{
    va_list ap;

    if (g->failure.code != ERR_NONE)
        return;
    g->failure.code = code;
    if (g->failed_in[0] == '\0')
        snprintf(g->failed_in, sizeof g->failed_in, "%s", state_name(g));
    va_start(ap, fmt);
    vsnprintf(g->failure.text, sizeof g->failure.text, fmt, ap);
    va_end(ap);
}

int migration_outcome(const struct migration *g, struct err *e)
{
    bool ok = g->kind == MIG_OUT  ? g->state == SRC_DONE
              : g->kind == MIG_IN ? g->state == TGT_DONE
                                  : g->failure.code == ERR_NONE;

    if (ok)
        return 0;
    if (g->failure.code == ERR_NONE)
        return err_set(e, ERR_INTERNAL, "ended in state %s", state_name(g));
    *e = g->failure;
    return -1;
}

void migration_info(const struct migration *g, Migrd__MigrationInfo *out)
{
    migrd__migration_info__init(out);
    out->id = (char *)(uintptr_t)g->id;
    out->domain = (char *)(uintptr_t)g->name;
    out->uuid = (char *)(uintptr_t)g->uuid;
    out->direction = (char *)(uintptr_t)direction(g);
    out->peer = (char *)(uintptr_t)other_end(g);
    out->state = (char *)(uintptr_t)state_name(g);
    out->progress = g->progress;
    out->report = g->report;
    out->start_wall_ns = g->start_wall_ns;
    out->end_wall_ns = g->end_wall_ns;
    out->epoch = g->epoch;
}

enum err_code mig_code_of(const char *name)
{
    for (int c = 1; c < ERR_CODE_MAX; c++)
        if (strcmp(err_code_name((enum err_code)c), name) == 0)
            return (enum err_code)c;
    return ERR_INTERNAL;
}

/* --- watchers and events --- */

int migration_watch(struct migration *g, migration_watch_fn *fn, void *arg)
{
    for (size_t i = 0; i < MIGRATION_WATCHERS_MAX; i++)
        if (g->watch[i].fn == NULL) {
            g->watch[i] = (struct watch){ fn, arg };
            return 0;
        }
    return -1;
}

void migration_unwatch(struct migrd *m, migration_watch_fn *fn, void *arg)
{
    if (m->migrations == NULL)
        return;
    for (struct migration *g = m->migrations->active; g != NULL; g = g->next)
        for (size_t i = 0; i < MIGRATION_WATCHERS_MAX; i++)
            if (g->watch[i].fn == fn && g->watch[i].arg == arg)
                g->watch[i].fn = NULL;
}

void mig_tell_watchers(struct migration *g, bool last)
{
    for (size_t i = 0; i < MIGRATION_WATCHERS_MAX; i++) {
        struct watch w = g->watch[i];

        if (w.fn == NULL)
            continue;
        if (last)
            g->watch[i].fn = NULL;
        w.fn(w.arg, g, last);
    }
}

static void publish(struct migration *g, const char *type)
{
    const Migrd__Progress *p = g->progress;
    char json[700];
    struct event ev = {
        .type = type, .uuid = g->uuid, .name = g->name, .migration = g->id, .json = json
    };

    if (g->uuid[0] == '\0')
        return;
    snprintf(json, sizeof json,
        "{\"direction\":\"%s\",\"peer\":\"%s\",\"state\":\"%s\",\"round\":%u,\"wire_bytes\":%llu,"
        "\"dirty_rate\":%llu,\"bandwidth\":%llu,\"expected_pause_ms\":%u}",
        direction(g), g->kind == MIG_OUT || g->kind == MIG_IN ? g->peer : "", state_name(g),
        p ? p->round : 0, p ? (unsigned long long)p->wire_bytes : 0,
        p ? (unsigned long long)p->dirty_rate : 0, p ? (unsigned long long)p->bandwidth : 0,
        p ? p->expected_pause_ms : 0);
    events_publish(g->m->events, &ev);
}

void mig_host_text(char *out, size_t len, const char *in)
{
    size_t n = 0;

    for (; *in != '\0' && n + 1 < len; in++)
        out[n++] = isalnum((unsigned char)*in) || strchr(".-_:%", *in) != NULL ? *in : '?';
    out[n] = '\0';
}

void mig_take_progress(struct migration *g, const Migrd__Progress *p)
{
    Migrd__Progress *copy = pb_copy(&p->base);
    bool new_round = g->progress == NULL || p->round != g->progress->round;

    if (copy == NULL)
        return;
    if (g->progress != NULL)
        migrd__progress__free_unpacked(g->progress, NULL);
    g->progress = copy;
    if (new_round)
        publish(g, "migration-round");
    if (p->note[0] != '\0')
        log_info("migration", "%s %s: %s", g->name, direction(g), p->note);
    publish(g, "migration-progress");
    mig_tell_watchers(g, false);
}

void mig_take_report(struct migration *g, const Migrd__Finished *f)
{
    if (f != NULL && g->report == NULL)
        g->report = pb_copy(&f->base);
}

/* --- the queue --- */

static struct mt_cell look_up(const struct migration *g, int event)
{
    return g->kind == MIG_OUT
               ? mt_source(g->logged, (enum src_state)g->state, (enum src_event)event)
               : mt_target(g->logged, (enum tgt_state)g->state, (enum tgt_event)event);
}

static const char *event_name(const struct migration *g, int event)
{
    return g->kind == MIG_OUT ? mt_source_event_name((enum src_event)event)
                              : mt_target_event_name((enum tgt_event)event);
}

static void add_asker(struct migration *g, const char *asker)
{
    if (asker[0] != '\0' && g->n_askers < ASKERS_MAX)
        snprintf(g->askers[g->n_askers++], TR_SESSION_LEN, "%s", asker);
}

/* Points "migrd-out-committing", "migrd-in-ready", ...: a state is entered, its operation not
 * begun. */
static void fault_at(const struct migration *g)
{
    char point[64];

    snprintf(point, sizeof point, "migrd-%s-%s", direction(g), state_name(g));
    if (FAULT(point))
        log_warn("fault", "point %s has no failure of its own", point);
}

static void enter(struct migration *g, struct mt_cell cell, const char *why)
{
    const char *before = state_name(g);
    bool moved = g->state != cell.next;

    g->state = cell.next;
    if (moved)
        log_info("migration", "%s %s %s: %s -> %s (%s%s%s)", g->id, g->name[0] ? g->name : "-",
            direction(g), before, state_name(g), why, cell.op == MT_NONE ? "" : "; ",
            cell.op == MT_NONE ? "" : mt_op_name((enum mt_op)cell.op));
    if (moved)
        fault_at(g);
    if (g->kind == MIG_OUT)
        src_run(g, (enum mt_op)cell.op);
    else
        tgt_run(g, (enum mt_op)cell.op);
    if (moved) { /* after the operation: a guest may be waiting for it */
        publish(g, "migration-state");
        mig_tell_watchers(g, false);
    }
    if (g->kind == MIG_IN)
        tgt_answer(g);
}

static bool take_one(struct migration *g)
{
    for (unsigned i = 0; i < g->n_queue; i++) {
        struct mig_event ev = g->queue[i];
        struct mt_cell cell = look_up(g, ev.event);

        if (cell.op == MT_DEFER)
            continue;
        g->n_queue--;
        memmove(&g->queue[i], &g->queue[i + 1], (g->n_queue - i) * sizeof g->queue[0]);
        add_asker(g, ev.asker);
        if (g->kind == MIG_IN && ev.event == TGT_EV_QUERY_ABORT)
            mig_fail(g, ERR_CANCELLED, "the source took the guest back");
        if (cell.op == MT_BUG)
            log_error("migration", "%s %s: event %s cannot come in state %s; ignored", g->id,
                g->name, event_name(g, ev.event), state_name(g));
        enter(g, cell, event_name(g, ev.event));
        return true;
    }
    return false;
}

/* Said twice it means no more than once: patient askers must not fill the queue. */
static bool waits_already(const struct migration *g, int event, const char *asker)
{
    for (unsigned i = 0; i < g->n_queue; i++)
        if (g->queue[i].event == event && strcmp(g->queue[i].asker, asker) == 0)
            return true;
    return false;
}

void mig_post_from(struct migration *g, int event, const char *asker)
{
    struct mig_event *ev;

    /* The half of the queue that questions cannot have holds one of each other event. */
    if (waits_already(g, event, asker) || (asker[0] != '\0' && g->n_queue >= QUEUE_MAX / 2))
        return;
    if (g->n_queue == QUEUE_MAX) {
        log_error(
            "migration", "%s: too many events wait; %s is dropped", g->id, event_name(g, event));
        return;
    }
    ev = &g->queue[g->n_queue++];
    ev->event = event;
    snprintf(ev->asker, sizeof ev->asker, "%s", asker);
    if (g->draining)
        return;
    g->draining = true;
    while (take_one(g))
        continue;
    g->draining = false;
    if (state_final(g) && !g->is_over && g->worker == NULL && g->jobs == 0)
        mig_close(g);
    retire_if_free(g);
}

void mig_post(struct migration *g, int event)
{
    mig_post_from(g, event, "");
}

/* --- the end --- */

static void summary_dry(const struct migration *g, const Migrd__Finished *f)
{
    const Migrd__Forecast *c = f != NULL ? f->forecast : NULL;

    if (c == NULL)
        return;
    log_info("migration",
        "%s: to %s it would take %.3f s in all, stop the guest for %.1f ms, send %.1f MiB in %u "
        "rounds; converges %.0f %%%s%s",
        g->name, g->peer, c->total_ms / 1000, c->pause_ms, (double)c->wire_bytes / (1 << 20),
        c->rounds, c->converges * 100, c->knob[0] != '\0' ? "; would help: " : "", c->knob);
}

/* Only a source's worker that lived to the end knows how long the guest stood still. */
static void summary_moved(const struct migration *g, const Migrd__Finished *f)
{
    const char *way = g->kind == MIG_IN ? "from" : "to";
    char stood[64] = "";

    if (f == NULL) {
        log_info("migration", "%s: %s %s %s: its worker ended before it could tell any figures",
            g->name, direction(g), way, other_end(g));
        return;
    }
    if (f->pause_us > 0)
        snprintf(stood, sizeof stood, "%zu rounds, guest stopped for %.1f ms, ", f->n_rounds,
            (double)f->pause_us / 1e3);
    log_info("migration",
        "%s: %s %s %s: %.3f s in all, %s%.1f MiB on the wire, %llu pages sent, %llu zero, %u "
        "channels, %s",
        g->name, direction(g), way, other_end(g), (double)f->total_us / 1e6, stood,
        (double)f->wire_bytes / (1 << 20), (unsigned long long)f->pages_sent,
        (unsigned long long)f->pages_zero, f->channels, f->cipher[0] ? f->cipher : "-");
}

static void summary(struct migration *g)
{
    const Migrd__Finished *f = g->report;
    struct err e = { 0 };

    if (migration_outcome(g, &e) < 0) {
        mig_say_failure(g, &e);
        return;
    }
    if (g->kind == MIG_DRY) {
        summary_dry(g, f);
        return;
    }
    summary_moved(g, f);
}

static void count(struct migration *g, bool ok)
{
    static const char *const names[6][2] = {
        { "migrd_migrations_out_failed_total", "migrd_migrations_out_ok_total" },
        { "migrd_migrations_in_failed_total", "migrd_migrations_in_ok_total" },
        { "migrd_saves_failed_total", "migrd_saves_ok_total" },
        { "migrd_restores_failed_total", "migrd_restores_ok_total" },
        { "migrd_dry_runs_failed_total", "migrd_dry_runs_ok_total" },
        { "migrd_dumps_failed_total", "migrd_dumps_ok_total" },
    };

    ++*events_counter(g->m->events, names[g->kind][ok], "Ended migrations, saves and restores");
    if (g->report != NULL && (g->kind == MIG_OUT || g->kind == MIG_IN))
        *events_counter(g->m->events,
            g->kind == MIG_OUT ? "migrd_migration_sent_bytes_total"
                               : "migrd_migration_received_bytes_total",
            "Bytes of relocation streams") += g->report->wire_bytes;
}

void mig_close(struct migration *g)
{
    struct domain *d = mig_domain(g);
    struct err e;
    bool ok = migration_outcome(g, &e) == 0;

    if (g->is_over)
        return;
    g->is_over = true;
    g->end_wall_ns = clock_wall_ns();
    mig_log_forget(g);
    if (g->timer_open)
        uv_timer_stop(&g->timer);
    if (g->uuid[0] != '\0') {
        summary(g);
        count(g, ok);
        publish(g, ok ? "migration-done" : "migration-failed");
    } else if (!g->is_query && g->kind == MIG_IN) {
        log_info("migration", "a session from %s ended without an offer: %s", g->address,
            g->failure.text[0] ? g->failure.text : "closed");
    }
    if (d != NULL)
        registry_release(g->m, d);
    if (g->kind == MIG_OUT)
        src_undefine(g);
    mig_tell_watchers(g, true);
    retire_if_free(g);
}

/* --- jobs --- */

struct mig_job *mig_job_new(struct migration *g, enum mt_op op)
{
    struct mig_job *mj = calloc(1, sizeof *mj);

    if (mj == NULL)
        return NULL;
    mj->g = g;
    mj->op = op;
    mj->kind = g->kind;
    mj->ops = g->m->hv_ops;
    mj->hv = g->m->hv;
    mj->journal = g->m->journal;
    mj->sync = true;
    mj->epoch = g->epoch;
    mj->domid = g->domid;
    snprintf(mj->uuid, sizeof mj->uuid, "%s", g->uuid);
    return mj;
}

static void job_finished(struct job *j)
{
    struct mig_job *mj = (struct mig_job *)j;
    struct migration *g = mj->g;
    bool quiet = mj->quiet;
    int ok = g->kind == MIG_OUT ? (int)SRC_EV_OP_OK : (int)TGT_EV_OP_OK;
    int failed = g->kind == MIG_OUT ? (int)SRC_EV_OP_FAILED : (int)TGT_EV_OP_FAILED;

    g->jobs--;
    if (j->result == 0)
        err_clear(&j->err);
    g->op_error = j->err;
    if (j->result < 0)
        log_warn(
            "migration", "%s %s: %s failed: %s", g->id, g->name, mt_op_name(mj->op), j->err.text);
    if (g->kind == MIG_OUT && (mj->op == MT_RESUME || mj->op == MT_RESUME_NEW))
        g->not_resumed = j->result < 0;
    if (j->result < 0 && mj->op == MT_J_STARTED)
        mig_fail(g, j->err.code, "%s", j->err.text);
    g->journal_us = mj->journal_us;
    g->resume_us = mj->resume_us;
    if (mj->then != NULL)
        mj->then(mj);
    if (!quiet)
        mig_post(g, j->result == 0 ? ok : mj->denied ? (int)TGT_EV_OP_DENIED : failed);
    else if (state_final(g) && !g->is_over && g->worker == NULL && g->jobs == 0)
        mig_close(g);
    if (mj->def != NULL)
        migrd__domain__free_unpacked(mj->def, NULL);
    look_free(&mj->look);
    free(mj);
    retire_if_free(g);
}

void mig_job_run(struct mig_job *mj, void (*work)(struct job *j))
{
    mj->job.work = work;
    mj->job.done = job_finished;
    mj->g->jobs++;
    job_run(mj->g->m->loop, &mj->job);
}

/* Nobody waits for the answer. */
static bool is_abandoned(const struct migration *g)
{
    return g->m->migrations->stopping || (g->kind == MIG_IN && g->worker == NULL);
}

static void look_finished(struct job *j);

static void next_looks(struct migrations *ms)
{
    while (ms->looks < LOOKS_MAX && ms->looks_first != NULL) {
        struct mig_job *mj = ms->looks_first;

        ms->looks_first = mj->next;
        if (is_abandoned(mj->g)) {
            mj->job.result = err_set(&mj->job.err, ERR_CANCELLED, "nobody waits for it any more");
            job_finished(&mj->job);
            continue;
        }
        ms->looks++;
        mj->job.work = look_job_work;
        mj->job.done = look_finished;
        job_run(mj->g->m->loop, &mj->job);
    }
}

static void look_finished(struct job *j)
{
    struct migrations *ms = ((struct mig_job *)j)->g->m->migrations;

    ms->looks--;
    job_finished(j);
    next_looks(ms);
}

void mig_look_run(struct mig_job *mj)
{
    struct migrations *ms = mj->g->m->migrations;
    struct mig_job **last = &ms->looks_first;

    mj->g->jobs++;
    while (*last != NULL)
        last = &(*last)->next;
    *last = mj;
    next_looks(ms);
}

void mig_job_end(struct mig_job *mj)
{
    mj->g->jobs++;
    job_finished(&mj->job);
}

void mig_journal_work(struct job *j)
{
    struct mig_job *mj = (struct mig_job *)j;
    uint64_t began = clock_ns();

    j->result = journal_append_all(mj->journal, mj->rec, mj->n_rec, mj->sync, &j->err);
    mj->journal_us = (clock_ns() - began) / NS_PER_US;
}

void mig_record(const struct migration *g, enum mt_step step, struct journal_record *r)
{
    *r = (struct journal_record){ .kind = g->kind == MIG_OUT ? JK_OUT : JK_IN,
        .step = step,
        .port = g->port,
        .epoch = g->epoch,
        .flags = g->flags };
    snprintf(r->migration, sizeof r->migration, "%s", g->id);
    snprintf(r->uuid, sizeof r->uuid, "%s", g->uuid);
    snprintf(r->name, sizeof r->name, "%s", g->name);
    snprintf(r->peer, sizeof r->peer, "%s", g->peer);
    /* The target's own name is needed to say who owns it; the source's certificate to check a
     * question. */
    snprintf(r->cert, sizeof r->cert, "%.*s", (int)sizeof r->cert - 1,
        g->kind == MIG_OUT ? g->owner : g->cert);
    snprintf(r->text, sizeof r->text, "%s", g->reason);
}

void mig_owner_record(
    const struct migration *g, const char *owner, uint64_t epoch, struct journal_record *r)
{
    *r = (struct journal_record){ .kind = JK_DOMAIN, .epoch = epoch, .domid = g->domid };
    snprintf(r->uuid, sizeof r->uuid, "%s", g->uuid);
    snprintf(r->name, sizeof r->name, "%s", g->name);
    snprintf(r->peer, sizeof r->peer, "%s", owner);
    snprintf(r->migration, sizeof r->migration, "%s", g->id);
}

void mig_note_step(struct migration *g, enum mt_step step)
{
    struct mig_job *mj = mig_job_new(g, MT_NONE);

    if (mj == NULL)
        return;
    mig_record(g, step, &mj->rec[0]);
    mj->n_rec = 1;
    mj->sync = false;
    mj->quiet = true;
    mig_job_run(mj, mig_journal_work);
}

void mig_worker_tls(const struct migrd *m, Migrd__WorkerTls *out, char path[3][PATHS_LEN])
{
    migrd__worker_tls__init(out);
    config_tls_files(&m->config, m->paths.pki, path);
    out->ca = path[0];
    out->cert = path[1];
    out->key = path[2];
}

void migration_own_name(const struct migrd *m, char *out, size_t len)
{
    char path[3][PATHS_LEN], *save = NULL, *first = NULL;
    Migrd__WorkerTls tls;
    struct pki_info cert;

    snprintf(out, len, "%s", m->host_name);
    mig_worker_tls(m, &tls, path);
    if (!m->config.relocation_tls || pki_show(tls.cert, &cert, NULL) < 0)
        return;
    for (char *n = strtok_r(cert.names, ", ", &save); n != NULL; n = strtok_r(NULL, ", ", &save)) {
        if (strcmp(n, m->host_name) == 0)
            return;
        if (first == NULL && n[0] != '*')
            first = n;
    }
    if (first != NULL)
        snprintf(out, len, "%s", first);
}

/* --- operators --- */

int migration_cancel(struct migrd *m, struct migration *g, struct err *e)
{
    (void)m;
    if (g->kind == MIG_OUT && g->state == SRC_ASKING)
        return err_set(e, ERR_STATE,
            "the cluster is deciding who has %s: it is too late to cancel its migration, and the "
            "guest stays paused until there is an answer (migctl ha status)",
            g->name);
    if (g->kind == MIG_OUT && look_up(g, SRC_EV_CANCEL).op == MT_REFUSE)
        return err_set(e, ERR_STATE,
            "migration of %s is past the point of commit (%s): it cannot be cancelled", g->name,
            state_name(g));
    if (g->kind == MIG_IN && look_up(g, TGT_EV_CANCEL).op == MT_REFUSE)
        return err_set(e, ERR_STATE, "incoming %s is complete (%s): its source decides now",
            g->name, state_name(g));
    mig_fail(g, ERR_CANCELLED, "cancelled");
    g->cancelled = true;
    if (g->kind == MIG_OUT)
        mig_post(g, SRC_EV_CANCEL);
    else if (g->kind == MIG_IN)
        mig_post(g, TGT_EV_CANCEL);
    else if (g->worker != NULL)
        worker_cancel(g->worker, "cancelled");
    return 0;
}

int migration_tune(struct migration *g, const Migrd__SetParams *p, struct err *e)
{
    Migrd__ToWorker t = MIGRD__TO_WORKER__INIT;

    if (g->kind != MIG_OUT || (g->worker == NULL && g->state != SRC_STARTING))
        return err_set(e, ERR_STATE, "%s is not being migrated away from this host", g->name);
    if (p->set_bandwidth)
        g->params.bandwidth = p->bandwidth;
    if (p->set_budget && p->pause_budget_ms != 0)
        g->params.pause_budget_ms = p->pause_budget_ms;
    if (p->stop)
        g->params.live = false;
    if (g->worker == NULL) /* it will begin with them */
        return 0;
    t.body_case = MIGRD__TO_WORKER__BODY_SET_PARAMS;
    t.set_params = (Migrd__SetParams *)(uintptr_t)p;
    worker_send(g->worker, &t, -1);
    return 0;
}

struct migration_wishes migration_wishes(const struct migrd *m, const struct domain *d)
{
    struct migration_wishes w = d->wish;

    if (d->mig != NULL && d->mig->kind == MIG_OUT) {
        w.bandwidth = d->mig->params.bandwidth;
        w.pause_budget_ms = d->mig->params.pause_budget_ms;
        return w;
    }
    if (!w.set_bandwidth)
        w.bandwidth = m->config.bandwidth;
    if (w.pause_budget_ms == 0)
        w.pause_budget_ms = m->config.pause_budget_ms;
    return w;
}

void migration_guest_ended(struct migrd *m, struct domain *d)
{
    struct migration *g = d->mig;

    (void)m;
    if (g == NULL || g->is_over)
        return;
    if (g->kind == MIG_OUT) {
        if (!mt_source_committed((enum src_state)g->state))
            mig_fail(g, ERR_STATE, "the guest ended during its migration");
        mig_post(g, SRC_EV_GUEST_GONE);
    } else if (g->kind == MIG_IN) {
        if (g->state == TGT_RECEIVING || g->state == TGT_READY || g->state == TGT_DOUBT)
            mig_fail(g, ERR_STATE, "the incoming domain's process ended");
        mig_post(g, TGT_EV_GUEST_GONE);
    } else if (g->worker != NULL) {
        worker_cancel(g->worker, "the guest ended");
    }
}

/* --- the daemon's end --- */

void migrations_cancel_all(struct migrd *m, const char *reason)
{
    for (struct migration *g = m->migrations->active; g != NULL; g = g->next) {
        if (g->worker == NULL || g->is_over)
            continue;
        mig_fail(g, ERR_CANCELLED, "%s", reason);
        /* A worker past its commit ignores it. */
        worker_cancel(g->worker, reason);
    }
}

unsigned migrations_active(const struct migrd *m)
{
    unsigned n = 0;

    for (const struct migration *g = m->migrations->active; g != NULL; g = g->next)
        n += g->worker != NULL || g->jobs > 0;
    return n;
}

void migrations_stop(struct migrd *m)
{
    struct migrations *ms = m->migrations;

    if (ms == NULL || ms->stopping)
        return;
    ms->stopping = true;
    query_stop_all(m);
    facts_stop_all(m);
    for (struct migration *g = ms->active; g != NULL; g = g->next) {
        if (g->worker != NULL)
            worker_forget(g->worker);
        mig_log_forget(g);
        if (g->timer_open)
            uv_close((uv_handle_t *)&g->timer, NULL);
        g->timer_open = false;
    }
}

void migrations_close(struct migrd *m)
{
    struct migrations *ms = m->migrations;

    if (ms == NULL)
        return;
    m->migrations = NULL;
    while (ms->active != NULL) {
        struct migration *g = ms->active;

        ms->active = g->next;
        mig_free(g);
    }
    while (ms->finished != NULL) {
        struct migration *g = ms->finished;

        ms->finished = g->next;
        mig_free(g);
    }
    while (ms->ended != NULL) {
        struct ended_in *e = ms->ended;

        ms->ended = e->next;
        free(e);
    }
    link_history_close(&ms->history);
    free(ms->open);
    free(ms);
}
