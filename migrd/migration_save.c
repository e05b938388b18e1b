/* SPDX-License-Identifier: ISC */
/*
 * Save, restore and dump: one worker, one file, no other host.
 *
 *   save:     worker pauses, writes, syncs, renames -> Finished ok -> the domain is destroyed
 *             (as xm save does); failed -> the worker has resumed it, and we make sure
 *   dump:     worker pauses, writes, resumes -> Finished ok -> with `crash` the domain is
 *             destroyed; failed -> as a save
 *   restore:  OfferSeen (what the file holds) -> checks, incoming domain -> OfferVerdict
 *             -> Finished ok -> epoch journalled, guest resumed; failed -> destroyed
 *
 * A save that is not finished is a folder's stray .tmp file; a restore that is not
 * finished is an incoming domain that no journal line knows: it is found and destroyed by
 * registry at the next start like any copy without an owner.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "migrd/define/define.h"
#include "migrd/migration_internal.h"

enum { SV_WORKING, SV_CHECKING, SV_MADE, SV_ENDING, SV_ENDED };

const char *save_state_name(const struct migration *g)
{
    static const char *const names[] = { "working", "checking", "loading", "ending", "ended" };

    return names[g->state];
}

/* --- jobs: a small chain instead of a table --- */

static void end_now(struct migration *g)
{
    g->state = SV_ENDED;
    if (g->worker == NULL)
        mig_close(g);
}

static void last_job(struct migration *g, enum mt_op op, void (*work)(struct job *));
static void destroy_work(struct job *j);

static void last_job_done(struct mig_job *mj)
{
    struct migration *g = mj->g;
    struct domain *d = mig_domain(g);
    bool destroyed = mj->op == MT_DESTROY;

    if (mj->job.result < 0)
        mig_fail(g, mj->job.err.code, "%s", mj->job.err.text);
    if (mj->job.result == 0 && d != NULL && destroyed) {
        registry_gone(g->m, d);
        registry_publish(
            g->m, d, g->kind == MIG_SAVE ? "domain-saved" : "domain-destroyed", g->path);
    } else if (mj->job.result == 0 && g->kind == MIG_DUMP) {
        registry_refresh(g->m);
    } else if (mj->job.result < 0 && g->kind == MIG_RESTORE && !destroyed) {
        last_job(g, MT_DESTROY, destroy_work); /* the file still has it: no copy that never runs */
        return;
    } else if (mj->job.result == 0 && d != NULL && g->kind == MIG_RESTORE) {
        registry_set_state(g->m, d, mj->leave_paused ? HV_PAUSED : HV_RUNNING);
        registry_set_owner(g->m, d, g->m->host_name, g->epoch);
        registry_publish(g->m, d, "domain-restored", g->path);
    }
    end_now(g);
}

static void destroy_work(struct job *j)
{
    struct mig_job *mj = (struct mig_job *)j;

    j->result = mj->ops->destroy(mj->hv, mj->uuid, mj->epoch, &j->err);
    if (j->result < 0 && j->err.code == ERR_NOT_FOUND)
        j->result = 0;
}

/* After a failed save: runs, unless it was paused before. */
static void resume_work(struct job *j)
{
    struct mig_job *mj = (struct mig_job *)j;
    struct hv_info info;

    j->result = mj->ops->info(mj->hv, mj->uuid, &info, &j->err);
    if (j->result == 0 && !mj->leave_paused && info.state == HV_PAUSED)
        j->result = mj->ops->resume(mj->hv, mj->uuid, mj->epoch, &j->err);
}

static void run_restored_work(struct job *j)
{
    struct mig_job *mj = (struct mig_job *)j;
    bool gone;

    j->result = journal_append_all(mj->journal, mj->rec, mj->n_rec, true, &j->err);
    if (j->result < 0)
        return;
    if (mj->leave_paused)
        mig_leave_paused(mj);
    else
        j->result = mig_resume(mj, &gone, &j->err);
}

static void last_job(struct migration *g, enum mt_op op, void (*work)(struct job *))
{
    struct mig_job *mj = mig_job_new(g, op);

    g->state = SV_ENDING;
    if (mj == NULL) {
        mig_fail(g, ERR_MEMORY, "out of memory");
        end_now(g);
        return;
    }
    mj->quiet = true;
    mj->then = last_job_done;
    mj->leave_paused = (g->flags & (JF_WAS_PAUSED | JF_STAY_PAUSED)) != 0;
    if (g->kind == MIG_RESTORE) {
        mig_owner_record(g, ".", g->epoch, &mj->rec[0]);
        mj->n_rec = 1;
    }
    mig_job_run(mj, work);
}

/* --- the worker's end --- */

static void on_ended(void *arg, const Migrd__Finished *fin, const char *how)
{
    struct migration *g = arg;
    bool ok = fin != NULL && fin->ok;

    g->worker = NULL;
    mig_take_report(g, fin);
    if (!ok)
        mig_fail(g, fin == NULL ? ERR_INTERNAL : mig_code_of(fin->code), "%s",
            fin != NULL ? fin->text : how);
    else if (g->failure.code == ERR_CANCELLED && g->kind != MIG_RESTORE)
        err_clear(&g->failure); /* too late: the file has its name */
    if (g->state == SV_ENDED)
        mig_close(g);
    else if (g->kind == MIG_DUMP && ok && !g->ends_guest)
        end_now(g); /* it runs again, or stands where it stood */
    else if (g->kind == MIG_SAVE || g->kind == MIG_DUMP)
        last_job(g, ok ? MT_DESTROY : MT_RESUME, ok ? destroy_work : resume_work);
    else if (g->state == SV_MADE)
        last_job(g, ok ? MT_RESUME : MT_DESTROY, ok ? run_restored_work : destroy_work);
    else if (g->state == SV_WORKING)
        end_now(g); /* nothing was made yet; while checking, the job's end finds no worker */
}

/* --- restore: the offer --- */

static void verdict(struct migration *g, const struct err *e)
{
    Migrd__ToWorker t = MIGRD__TO_WORKER__INIT;
    Migrd__OfferVerdict v = MIGRD__OFFER_VERDICT__INIT;

    if (g->worker == NULL)
        return;
    v.ok = e->code == ERR_NONE;
    v.code = (char *)(uintptr_t)err_code_name(e->code);
    v.text = (char *)(uintptr_t)e->text;
    v.uuid = g->uuid;
    v.channels = 1;
    t.body_case = MIGRD__TO_WORKER__BODY_OFFER_VERDICT;
    t.offer_verdict = &v;
    worker_send(g->worker, &t, -1);
}

static void refuse(struct migration *g, const struct err *e)
{
    mig_fail(g, e->code, "%s", e->text);
    verdict(g, e);
    end_now(g);
}

static void start_work(struct job *j)
{
    struct mig_job *mj = (struct mig_job *)j;
    const struct hv_start how = { .epoch = mj->epoch, .domid = mj->domid, .incoming = true };

    j->result = mj->ops->start(mj->hv, mj->def, &how, &j->err);
}

static void made(struct mig_job *mj)
{
    struct migration *g = mj->g;
    struct domain *d = mig_domain(g);

    if (mj->job.result < 0) {
        refuse(g, &mj->job.err);
        return;
    }
    if (d != NULL)
        registry_incoming_started(g->m, d, g->def, g->epoch, g->domid);
    g->state = SV_MADE;
    if (g->worker == NULL)
        last_job(g, MT_DESTROY, destroy_work);
    else
        verdict(g, &(struct err){ 0 });
}

static void looked(struct mig_job *mj)
{
    struct migration *g = mj->g;
    struct mig_job *next;
    struct err e = mj->job.err;

    if (mj->job.result < 0 || tgt_check_host(g, mj->look, &e) < 0) {
        refuse(g, &e);
        return;
    }
    next = mig_job_new(g, MT_START);
    if (next == NULL || (next->def = define_copy(g->def)) == NULL) {
        free(next);
        err_set(&e, ERR_MEMORY, "out of memory");
        refuse(g, &e);
        return;
    }
    next->domid = g->domid = registry_next_domid(g->m);
    next->quiet = true;
    next->then = made;
    mig_job_run(next, start_work);
}

static int take_offer(struct migration *g, const Migrd__OfferSeen *o, struct err *e)
{
    struct domain *d;

    g->def = o->domain != NULL ? define_copy(o->domain) : NULL;
    g->offer = migrd__offer__unpack(NULL, o->offer.len, o->offer.data);
    if (g->def == NULL || g->offer == NULL)
        return err_set(e, ERR_PROTOCOL, "%s: what it holds cannot be read", g->path);
    if (g->as_saved && g->offer->stay_paused)
        g->flags |= JF_STAY_PAUSED;
    d = registry_incoming(g->m, g->def, g, e);
    if (d == NULL)
        return -1;
    snprintf(g->uuid, sizeof g->uuid, "%s", d->uuid);
    snprintf(g->name, sizeof g->name, "%s", d->name);
    if (ha_refuses(g->m, d->uuid, d->name, "restore", e) < 0)
        return -1;
    if (!registry_owned(g->m, d))
        return err_set(e, ERR_STATE, "domain %s was given to host %s; its saved state is history",
            d->name, d->owner);
    g->epoch = (o->epoch > d->epoch ? o->epoch : d->epoch) + 1;
    return 0;
}

static void on_message(void *arg, const Migrd__FromWorker *fw)
{
    struct migration *g = arg;
    struct mig_job *mj;
    struct err e = { 0 };

    if (fw->body_case == MIGRD__FROM_WORKER__BODY_PROGRESS) {
        mig_take_progress(g, fw->progress);
        return;
    }
    if (fw->body_case != MIGRD__FROM_WORKER__BODY_OFFER || g->kind != MIG_RESTORE ||
        g->state != SV_WORKING) {
        log_error(
            "migration", "%s: the worker sends a message of kind %d", g->path, (int)fw->body_case);
        worker_kill(g->worker);
        return;
    }
    if (take_offer(g, fw->offer, &e) == 0 && (mj = mig_job_new(g, MT_CHECK)) != NULL) {
        g->state = SV_CHECKING;
        mj->quiet = true;
        mj->then = looked;
        mj->look = look_new(g, true);
        mig_look_run(mj);
        return;
    }
    if (e.code == ERR_NONE)
        err_set(&e, ERR_MEMORY, "out of memory");
    refuse(g, &e);
}

/* --- requests --- */

static int check_path(const char *path, struct err *e)
{
    if (path[0] != '/' || strlen(path) >= sizeof((struct migration *)0)->path)
        return err_set(e, ERR_INVALID,
            "%.100s: an absolute path of at most %zu characters is needed", path,
            sizeof((struct migration *)0)->path - 1);
    return 0;
}

static bool is_below(const char *folder, const char *path)
{
    size_t n = strlen(folder);

    return n > 0 && strncmp(folder, path, n) == 0 && path[n] == '/';
}

static bool is_named_by(const Migrd__Domain *def, const char *path)
{
    bool found = def != NULL && (strcmp(def->kernel, path) == 0 || strcmp(def->initrd, path) == 0);

    for (size_t i = 0; def != NULL && i < def->n_disks && !found; i++)
        found = strcmp(def->disks[i]->source, path) == 0;
    return found;
}

/* What is at the path is replaced: slips that would cost a guest, or what this daemon knows. */
static int check_target(struct migrd *m, const char *path, struct err *e)
{
    const struct paths *p = &m->paths;

    if (is_below(p->state, path) || is_below(p->run, path) || is_below(p->etc, path))
        return err_set(
            e, ERR_INVALID, "%s is among migrd's own files; name a file elsewhere", path);
    for (const struct domain *d = registry_first(m->registry); d != NULL; d = d->next)
        if (is_named_by(d->def, path) || is_named_by(d->live_def, path))
            return err_set(e, ERR_INVALID,
                "%s is a disk, kernel or initrd of domain %s, and would be replaced; name another "
                "file",
                path, d->name);
    return 0;
}

static int start_worker(struct migration *g, Migrd__ToWorker *t, struct err *e)
{
    static const struct worker_calls calls = { on_message, on_ended };

    if (worker_start(g->m, 0, &calls, g, &g->worker, e) < 0)
        return -1;
    worker_send(g->worker, t, -1);
    return 0;
}

static struct migration *new_one(struct migrd *m, enum mig_kind kind, const char *path)
{
    struct migration *g = mig_new(m, kind);

    if (g == NULL)
        return NULL;
    g->state = SV_WORKING;
    snprintf(g->path, sizeof g->path, "%s", path);
    return g;
}

/* One of a domain that exists here, which it holds from now on; NULL: refused. */
static struct migration *hold(struct migrd *m, enum mig_kind kind, struct domain *d,
    const struct migration_file *f, struct err *e)
{
    struct migration *g;

    if (check_path(f->path, e) < 0 || check_target(m, f->path, e) < 0)
        return NULL;
    if (d->mig != NULL || d->busy != NULL) {
        err_set(e, ERR_STATE, "domain %s is busy: %s", d->name,
            d->busy != NULL ? d->busy : "migration in progress");
        return NULL;
    }
    if (!d->live || d->live_def == NULL) {
        err_set(e, ERR_STATE, "domain %s does not run here", d->name);
        return NULL;
    }
    g = new_one(m, kind, f->path);
    if (g == NULL) {
        err_set(e, ERR_MEMORY, "out of memory");
        return NULL;
    }
    memcpy(g->uuid, d->uuid, sizeof g->uuid);
    memcpy(g->name, d->name, sizeof g->name);
    g->epoch = d->epoch;
    g->flags = hv_is_paused(&d->info) ? JF_WAS_PAUSED : 0;
    d->mig = g;
    return g;
}

/* The worker opens its file by itself: this process never waits for a disk. */
static int begin(struct migration *g, Migrd__ToWorker *t, struct migration **out, struct err *e)
{
    if (start_worker(g, t, e) < 0) {
        mig_fail(g, e->code, "%s", e->text);
        end_now(g);
        return -1;
    }
    *out = g;
    return 0;
}

int migration_save(struct migrd *m, struct domain *d, const struct migration_file *f,
    struct migration **out, struct err *e)
{
    Migrd__ToWorker t = MIGRD__TO_WORKER__INIT;
    Migrd__SaveStart s = MIGRD__SAVE_START__INIT;
    struct migration *g;

    if (ha_refuses(m, d->uuid, d->name, "save", e) < 0 || (g = hold(m, MIG_SAVE, d, f, e)) == NULL)
        return -1;
    s.hypervisor = (char *)(uintptr_t)m->hv_ops->name;
    s.run_dir = m->paths.hv;
    s.log_dir = m->paths.log;
    s.domain = d->live_def;
    s.epoch = d->epoch;
    s.path = g->path;
    s.stay_paused = f->paused || (!f->running && (g->flags & JF_WAS_PAUSED) != 0);
    s.drop_cache = f->drop_cache;
    t.body_case = MIGRD__TO_WORKER__BODY_SAVE;
    t.save = &s;
    return begin(g, &t, out, e);
}

int migration_dump(struct migrd *m, struct domain *d, const struct migration_file *f,
    struct migration **out, struct err *e)
{
    Migrd__ToWorker t = MIGRD__TO_WORKER__INIT;
    Migrd__DumpStart s = MIGRD__DUMP_START__INIT;
    struct migration *g;

    if ((f->crash && ha_refuses(m, d->uuid, d->name, "dump and end", e) < 0) ||
        (g = hold(m, MIG_DUMP, d, f, e)) == NULL)
        return -1;
    g->ends_guest = f->crash;
    s.hypervisor = (char *)(uintptr_t)m->hv_ops->name;
    s.run_dir = m->paths.hv;
    s.log_dir = m->paths.log;
    s.domain = d->live_def;
    s.epoch = d->epoch;
    s.path = g->path;
    s.live = f->live;
    s.leave_paused = f->crash;
    s.drop_cache = f->drop_cache;
    t.body_case = MIGRD__TO_WORKER__BODY_DUMP;
    t.dump = &s;
    return begin(g, &t, out, e);
}

int migration_restore(
    struct migrd *m, const struct migration_file *f, struct migration **out, struct err *e)
{
    Migrd__ToWorker t = MIGRD__TO_WORKER__INIT;
    Migrd__RestoreStart s = MIGRD__RESTORE_START__INIT;
    struct migration *g;

    if (check_path(f->path, e) < 0)
        return -1;
    g = new_one(m, MIG_RESTORE, f->path);
    if (g == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    g->flags = f->paused ? JF_STAY_PAUSED : 0;
    g->as_saved = !f->paused && !f->running;
    s.hypervisor = (char *)(uintptr_t)m->hv_ops->name;
    s.run_dir = m->paths.hv;
    s.log_dir = m->paths.log;
    s.path = g->path;
    s.drop_cache = f->drop_cache;
    t.body_case = MIGRD__TO_WORKER__BODY_RESTORE;
    t.restore = &s;
    return begin(g, &t, out, e);
}
