/* SPDX-License-Identifier: ISC */
/*
 * A change of owner without a hand-over, of a domain that does not run: by an operator's
 * word, or because its definition moves to another host. The record is durable before the
 * registry hears of it, and before `done` does.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "migrd/migration_internal.h"

struct owner_job {
    struct job job; /* first */
    struct migrd *m;
    struct journal_record rec;
    registry_done *done;
    void *arg;
};

static void owner_work(struct job *j)
{
    struct owner_job *o = (struct owner_job *)j;

    j->result = journal_append(o->m->journal, &o->rec, true, &j->err);
    if (j->result == 0)
        err_clear(&j->err);
}

static void note(struct migrd *m, const struct journal_record *r)
{
    const char *owner = strcmp(r->peer, ".") == 0 ? m->host_name : r->peer;
    struct domain *d = registry_by_uuid(m->registry, r->uuid);

    if (d != NULL && r->epoch >= d->epoch) /* it may have been started here meanwhile */
        registry_set_owner(m, d, owner, r->epoch);
    else if (d == NULL)
        registry_note_record(m, r->uuid, owner, r->epoch, 0, false);
    if ((r->flags & JF_FORCED) != 0)
        registry_note_proven(m, r->uuid, r->epoch);
}

static void owner_done(struct job *j)
{
    struct owner_job *o = (struct owner_job *)j;

    if (j->result == 0)
        note(o->m, &o->rec);
    else
        log_error("migration", "%s: its new owner (%s) cannot be written down: %s", o->rec.name,
            o->rec.text, j->err.text);
    if (o->done != NULL)
        o->done(o->arg, o->rec.uuid, &j->err);
    free(o);
}

int migration_set_owner(struct migrd *m, const struct migration_owner *w, registry_done *done,
    void *arg, struct err *e)
{
    struct owner_job *o;

    if (!w->decided && ha_refuses(m, w->uuid, w->name, "give an owner to", e) < 0)
        return -1;
    o = calloc(1, sizeof *o);
    if (o == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", w->name);
    o->job.work = owner_work;
    o->job.done = owner_done;
    o->m = m;
    o->done = done;
    o->arg = arg;
    o->rec = (struct journal_record){ .kind = JK_DOMAIN, .epoch = w->epoch };
    o->rec.flags = w->by_operator ? JF_FORCED : 0;
    snprintf(o->rec.uuid, sizeof o->rec.uuid, "%s", w->uuid);
    snprintf(o->rec.name, sizeof o->rec.name, "%s", w->name);
    snprintf(o->rec.peer, sizeof o->rec.peer, "%s", w->host[0] != '\0' ? w->host : ".");
    snprintf(o->rec.text, sizeof o->rec.text, "%s", w->why);
    job_run(m->loop, &o->job);
    return 0;
}
