/* SPDX-License-Identifier: ISC */
/*
 * What the log wants done here. An action becomes a task; tasks are looked at whenever something
 * has changed and each HA_TICK_MS, and act when nothing else is under way for their domain:
 *
 *   START    there under that epoch: done. Another copy: failed. Else started, blown
 *   STOP     gone: done. The guest is asked; has it powered off, or is the deadline over: destroyed
 *   DESTROY  no copy of that epoch: done. Else destroyed, also where a migration holds it: what the
 *            migration then finds is a copy that is gone
 *   RESUME   runs: done. Blown: resumed. Its pages are on their way elsewhere: that move is
 *            cancelled, which makes it run. Stopped for a hand-over: failed
 *   MIGRATE  begun, once no more than migration-max-outgoing leave; its end is the result
 *
 * A DESTROY ends a START of its epoch that has not begun. The fuse is not a task: a store to
 * memory, at once.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrd/define/define.h"
#include "migrd/ha_internal.h"

static const char *const names[HA_ACT_MAX] = { [HA_ACT_START] = "start",
    [HA_ACT_STOP] = "stop",
    [HA_ACT_DESTROY] = "destroy",
    [HA_ACT_RESUME] = "resume",
    [HA_ACT_MIGRATE] = "migrate" };

const struct ha_task *ha_task_of(const struct ha *h, const char *uuid, enum ha_action_type type)
{
    for (const struct ha_task *t = h->tasks; t != NULL; t = t->next)
        if (!t->over && t->type == type && strcmp(t->uuid, uuid) == 0)
            return t;
    return NULL;
}

/* --- ends --- */

static void end(struct ha_task *t, const struct err *e)
{
    struct ha *h = t->h;
    bool ok = e == NULL || e->code == ERR_NONE;
    struct ha_wish *w = t->wish;
    struct err none = { 0 };

    if (t->over)
        return;
    t->over = true;
    t->wish = NULL;
    if (!ok)
        log_error("ha", "%s: %s under epoch %llu: %s", t->name, names[t->type],
            (unsigned long long)t->epoch, e->text);
    if (ok && (t->type == HA_ACT_STOP || t->type == HA_ACT_DESTROY) && !h->stopping)
        ha_tell(h); /* that it has gone, or the core asks again */
    if (t->id != 0 && h->cluster != NULL && !h->stopping)
        cluster_result(h->cluster, t->id, ok, ok ? "" : e->text);
    if (w != NULL)
        ha_wish_end(w, ok ? &none : e);
    ha_soon(h);
}

static void fail(struct ha_task *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct ha_task *t, const char *fmt, ...)
{
    struct err e;
    va_list ap;

    va_start(ap, fmt);
    err_setv(&e, ERR_STATE, fmt, ap);
    va_end(ap);
    end(t, &e);
}

/* Tasks live longer than an operation of the registry: ha_close comes after the loop. */
static void operated(void *arg, const char *uuid, const struct err *e)
{
    struct ha_task *t = arg;

    (void)uuid;
    t->begun = false;
    if (!t->asking) {
        end(t, e);
        return;
    }
    t->asking = false;
    if (e->code != ERR_NONE)
        t->deadline = 0; /* one that could not be asked is destroyed */
    ha_soon(t->h);
}

static void operate(struct ha_task *t, struct domain *d, enum registry_op op)
{
    const struct registry_args args = { .decided = true, .epoch = t->epoch };
    struct err e;

    t->begun = true;
    if (registry_act(t->h->m, d, op, &args, operated, t, &e) == 0)
        return;
    operated(t, t->uuid, &e);
}

/* --- each kind --- */

static void start(struct ha_task *t, struct domain *d)
{
    struct err e;

    if (d != NULL && d->live && ha_copy_epoch(d) == t->epoch) {
        end(t, NULL);
    } else if (d != NULL && d->live) {
        fail(t, "a copy of epoch %llu is on this host still", (unsigned long long)ha_copy_epoch(d));
    } else if (d == NULL || (d->busy == NULL && d->mig == NULL)) {
        t->begun = true;
        if (registry_start_decided(t->h->m, &t->def, t->epoch, operated, t, &e) == 0)
            return;
        t->begun = false;
        end(t, &e);
    }
}

static bool powered_off(const struct domain *d)
{
    return d->info.state == HV_SHUTDOWN || d->info.state == HV_CRASHED;
}

static void stop(struct ha_task *t, struct domain *d)
{
    if (d == NULL || !d->live || ha_copy_epoch(d) != t->epoch)
        end(t, NULL);
    else if (d->busy != NULL)
        return;
    else if (powered_off(d) || clock_boot_ms() >= t->deadline)
        operate(t, d, REG_DESTROY);
    else if (!t->asked && d->mig == NULL) {
        t->asked = t->asking = true;
        operate(t, d, REG_SHUTDOWN);
    }
}

static void destroy(struct ha_task *t, struct domain *d)
{
    const struct ha_task *s = ha_task_of(t->h, t->uuid, HA_ACT_START);

    if (s != NULL && s->epoch == t->epoch) {
        if (!s->begun)
            fail((struct ha_task *)(uintptr_t)s, "it was to be destroyed before it had begun");
        return;
    }
    if (d == NULL || !d->live || ha_copy_epoch(d) != t->epoch)
        end(t, NULL);
    else if (d->busy == NULL)
        operate(t, d, REG_DESTROY);
}

/* Pages may take minutes, and a resume now could come after the hand-over's pause: it ends. */
static void resume_moving(struct ha_task *t, struct migration *g)
{
    struct err e;

    if (!migration_leaves(g) || migration_holds(g)) {
        fail(t, "a migration holds it");
    } else if (!t->asked) {
        t->asked = true;
        if (migration_cancel(t->h->m, g, &e) < 0)
            end(t, &e);
    }
}

static void resume(struct ha_task *t, struct domain *d)
{
    if (d == NULL || !d->live || ha_copy_epoch(d) != t->epoch)
        fail(t, "no copy of that epoch is here");
    else if (d->info.state == HV_RUNNING || d->info.state == HV_BLOCKED)
        end(t, NULL);
    else if (d->busy != NULL || d->last_end == HV_EV_REBOOT)
        return; /* it is being restarted, or soon */
    else if (d->mig != NULL)
        resume_moving(t, d->mig);
    else if (!d->info.blown)
        fail(t, "it stands still, but not by its fuse");
    else
        operate(t, d, REG_UNPAUSE);
}

static void moved(void *arg, struct migration *g, bool last)
{
    struct ha_task *t = arg;
    struct err e = { 0 };

    if (!last)
        return;
    migration_outcome(g, &e);
    t->mig = NULL;
    t->begun = false;
    end(t, &e);
}

static void migrate(struct ha_task *t, struct domain *d)
{
    Migrd__PrecopyParams params = MIGRD__PRECOPY_PARAMS__INIT;
    Migrd__Migrate rq = MIGRD__MIGRATE__INIT;
    struct err e;

    if (d == NULL || !d->live || ha_copy_epoch(d) != t->epoch) {
        fail(t, "no copy of that epoch is here");
        return;
    }
    if (d->busy != NULL || !migration_has_room(t->h->m))
        return; /* one that has arrived takes a while to end here */
    params.live = true;
    rq.params = &params;
    rq.domain = d->uuid;
    rq.host = t->host;
    rq.target = t->target;
    if (migration_start(t->h->m, d, &rq, &t->mig, &e) < 0)
        end(t, &e);
    else if (migration_watch(t->mig, moved, t) < 0)
        fail(t, "nobody can be told any more how it ends"); /* the hand-over tells the log itself */
    else
        t->begun = true;
}

/* --- all of them --- */

static void go_on(struct ha_task *t)
{
    struct domain *d = registry_by_uuid(t->h->m->registry, t->uuid);

    switch (t->type) {
    case HA_ACT_START:
        start(t, d);
        break;
    case HA_ACT_STOP:
        stop(t, d);
        break;
    case HA_ACT_DESTROY:
        destroy(t, d);
        break;
    case HA_ACT_RESUME:
        resume(t, d);
        break;
    case HA_ACT_MIGRATE:
        migrate(t, d);
        break;
    default:
        t->over = true;
        break;
    }
}

static void task_free(struct ha_task *t)
{
    if (t->def != NULL)
        migrd__domain__free_unpacked(t->def, NULL);
    free(t);
}

bool ha_do_more(struct ha *h)
{
    struct ha_task *last = h->tasks;

    while (last != NULL && last->next != NULL)
        last = last->next;
    for (struct ha_task *t = h->tasks; t != NULL;
         t = t != last ? t->next : NULL) /* later ones wait */
        if (!t->over && !t->begun && !h->stopping)
            go_on(t);
    for (struct ha_task **p = &h->tasks; *p != NULL;) {
        struct ha_task *t = *p;

        if (!t->over || t->begun) {
            p = &t->next;
            continue;
        }
        *p = t->next;
        task_free(t);
    }
    return h->tasks != NULL;
}

static struct ha_task *add(struct ha *h, const char *uuid, enum ha_action_type type, uint64_t epoch)
{
    struct ha_task *t = calloc(1, sizeof *t), **tail = &h->tasks;
    const Migrd__HaDomain *rec = cluster_find(h->cluster, uuid);

    if (t == NULL)
        return NULL;
    t->h = h;
    t->type = type;
    t->epoch = epoch;
    snprintf(t->uuid, sizeof t->uuid, "%s", uuid);
    snprintf(t->name, sizeof t->name, "%s", rec != NULL ? rec->name : uuid);
    while (*tail != NULL)
        tail = &(*tail)->next;
    *tail = t;
    ha_soon(h);
    return t;
}

void ha_do_destroy_for(struct ha *h, const struct domain *d, struct ha_wish *w)
{
    struct ha_task *t = add(h, d->uuid, HA_ACT_DESTROY, ha_copy_epoch(d));
    struct err e;

    if (t != NULL) {
        t->wish = w;
        return;
    }
    err_set(&e, ERR_MEMORY, "domain %s: out of memory", d->name);
    ha_wish_end(w, &e);
}

/* --- what the core wants --- */

void ha_do_fuse(void *host, const char *uuid, uint64_t epoch, uint64_t deadline)
{
    struct ha *h = host;
    struct ha_row *row = ha_row(h, uuid, true);
    struct err e;

    if (row != NULL) {
        row->fuse_epoch = epoch;
        row->fuse_deadline = deadline;
    }
    err_clear(&e);
    if (h->m->hv_ops->fuse != NULL &&
        h->m->hv_ops->fuse(h->m->hv, uuid, epoch, deadline, &e) < 0 && e.code != ERR_NOT_FOUND)
        log_debug("ha", "%s: fuse of epoch %llu: %s", uuid, (unsigned long long)epoch, e.text);
}

/* The definition of a START; what the log has is checked as if it came from a peer. */
static int take_definition(struct ha_task *t, const struct ha_action *a, struct err *e)
{
    t->def = migrd__domain__unpack(NULL, a->len, a->bytes);
    if (t->def == NULL)
        return err_set(e, ERR_INVALID,
            "the definition that the cluster's log has does not parse; "
            "give it a new one: virsh define, or migctl ha set");
    if (strcmp(t->def->uuid, t->uuid) != 0)
        return err_set(e, ERR_INVALID, "the definition that the cluster's log has is that of %.64s",
            t->def->uuid);
    if (strcmp(t->def->hypervisor, t->h->m->hv_ops->name) != 0)
        return err_set(e, ERR_UNSUPPORTED, "it needs hypervisor %.32s, this host has %s",
            t->def->hypervisor, t->h->m->hv_ops->name);
    return define_check(t->def, e);
}

static void cancel(struct ha *h, const struct ha_action *a)
{
    const struct ha_task *waits = ha_task_of(h, a->uuid, HA_ACT_MIGRATE);
    struct migration *g = migration_find(h->m, a->uuid);
    struct err e;

    if (waits != NULL && !waits->begun)
        fail((struct ha_task *)(uintptr_t)waits, "it was cancelled before it had begun");
    if (g == NULL || !migration_leaves(g))
        return;
    if (migration_cancel(h->m, g, &e) < 0)
        log_warn("ha", "%s: its migration is not cancelled: %s", a->uuid, e.text);
}

void ha_do_act(void *host, const struct ha_action *a)
{
    struct ha *h = host;
    struct ha_task *t;
    struct err e;

    if (a->type == HA_ACT_CANCEL) {
        cancel(h, a);
        return;
    }
    t = add(h, a->uuid, a->type, a->epoch);
    if (t == NULL) {
        cluster_result(h->cluster, a->id, false, "this host's migrd is out of memory");
        return;
    }
    log_info("ha", "%s: %s under epoch %llu: %s", t->name, names[a->type],
        (unsigned long long)a->epoch, a->text);
    t->id = a->id;
    t->deadline = a->deadline;
    err_clear(&e);
    if (a->type == HA_ACT_START && take_definition(t, a, &e) < 0)
        end(t, &e);
    if (a->type == HA_ACT_MIGRATE) {
        snprintf(t->host, sizeof t->host, "%s", cluster_node_address(h->cluster, a->node));
        snprintf(t->target, sizeof t->target, "%s", cluster_node_name(h->cluster, a->node));
    }
}

void ha_do_close(struct ha *h)
{
    while (h->tasks != NULL) {
        struct ha_task *t = h->tasks;

        h->tasks = t->next;
        task_free(t);
    }
}
