/* SPDX-License-Identifier: ISC */
/*
 * Entries, names and definitions. A definition is one file, DOMAINS/UUID.xml, replaced
 * atomically in the pool; the entry changes when the file is safe. What runs is never read
 * from files but from the hypervisor. Owner and epoch come from the journal.
 */
#include "migrd/registry.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "migrd/define/define.h"
#include "migrd/events.h"
#include "migrd/ha.h"
#include "migrd/job.h"
#include "migrd/journal.h"
#include "migrd/registry_internal.h"

/* --- entries --- */

struct domain *registry_by_uuid(struct registry *r, const char *uuid)
{
    for (struct domain *d = r->domains; d != NULL; d = d->next)
        if (strcmp(d->uuid, uuid) == 0)
            return d;
    return NULL;
}

static struct domain *by_name(struct registry *r, const char *name)
{
    for (struct domain *d = r->domains; d != NULL; d = d->next)
        if (strcmp(d->name, name) == 0)
            return d;
    return NULL;
}

struct domain *registry_find(struct registry *r, const char *which)
{
    struct domain *d = by_name(r, which);
    char *end;
    long id;

    if (d == NULL)
        d = registry_by_uuid(r, which);
    if (d != NULL || which[0] == '\0')
        return d;
    id = strtol(which, &end, 10);
    if (*end != '\0' || id <= 0)
        return NULL;
    for (d = r->domains; d != NULL; d = d->next)
        if (d->live && d->info.domid == id)
            return d;
    return NULL;
}

struct domain *registry_first(struct registry *r)
{
    return r->domains;
}

struct ownership *registry_ownership(struct registry *r, const char *uuid)
{
    for (struct ownership *o = r->owners; o != NULL; o = o->next)
        if (strcmp(o->uuid, uuid) == 0)
            return o;
    return NULL;
}

static void set_ownership(
    struct migrd *m, const char *uuid, const char *owner, uint64_t epoch, bool doubt)
{
    struct ownership *o = registry_ownership(m->registry, uuid);

    if (o == NULL) {
        o = calloc(1, sizeof *o);
        if (o == NULL)
            return;
        snprintf(o->uuid, sizeof o->uuid, "%s", uuid);
        o->next = m->registry->owners;
        m->registry->owners = o;
    }
    o->doubt = doubt;
    if (epoch < o->epoch) /* the journal's order is that of writing, not of epochs */
        return;
    snprintf(o->owner, sizeof o->owner, "%s", owner);
    o->epoch = epoch;
}

/* A record that comes behind it ends its domain's doubt. */
static void doubt_all(struct registry *r)
{
    r->doubt_all = true;
    for (struct ownership *o = r->owners; o != NULL; o = o->next)
        o->doubt = true;
}

bool registry_in_doubt(struct registry *r, const char *uuid)
{
    const struct ownership *o = registry_ownership(r, uuid);

    return o != NULL ? o->doubt : r->doubt_all;
}

void registry_note_record(
    struct migrd *m, const char *uuid, const char *owner, uint64_t epoch, int domid, bool doubt)
{
    struct registry *r = m->registry;

    if (domid > r->last_domid)
        r->last_domid = domid;
    if (doubt && strcmp(uuid, "*") == 0)
        doubt_all(r);
    else if (uuid[0] != '\0')
        set_ownership(m, uuid, strcmp(owner, ".") == 0 ? m->host_name : owner, epoch, doubt);
}

void registry_note_proven(struct migrd *m, const char *uuid, uint64_t epoch)
{
    struct ownership *o = registry_ownership(m->registry, uuid);

    if (o != NULL)
        o->proven_epoch = epoch;
}

int registry_next_domid(struct migrd *m)
{
    return ++m->registry->last_domid;
}

struct domain *registry_add(struct migrd *m, const char *uuid, const char *name, struct err *e)
{
    struct registry *r = m->registry;
    const struct ownership *o = registry_ownership(r, uuid);
    struct domain *d, **tail = &r->domains;

    if (r->n_domains >= REGISTRY_DOMAINS_MAX) {
        err_set(e, ERR_RESOURCE, "domain %s: this host has %u domains already", name, r->n_domains);
        return NULL;
    }
    d = calloc(1, sizeof *d);
    if (d == NULL) {
        err_set(e, ERR_MEMORY, "domain %s: out of memory", name);
        return NULL;
    }
    snprintf(d->uuid, sizeof d->uuid, "%s", uuid);
    snprintf(d->name, sizeof d->name, "%s", name);
    snprintf(d->owner, sizeof d->owner, "%s", o != NULL ? o->owner : "");
    d->epoch = o != NULL ? o->epoch : 0;
    d->doubt = registry_in_doubt(r, uuid);
    d->ended = d->last_end = HV_EV_MAX;
    while (*tail != NULL)
        tail = &(*tail)->next;
    *tail = d;
    r->n_domains++;
    return d;
}

static void free_def(Migrd__Domain **def)
{
    if (*def != NULL)
        migrd__domain__free_unpacked(*def, NULL);
    *def = NULL;
}

static void domain_free(struct domain *d)
{
    free_def(&d->def);
    free_def(&d->live_def);
    free(d);
}

void registry_drop_unused(struct migrd *m, struct domain *d)
{
    struct registry *r = m->registry;

    if (d->def != NULL || d->live || d->mig != NULL || d->busy != NULL || d->waiters != NULL)
        return;
    for (struct domain **p = &r->domains; *p != NULL; p = &(*p)->next) {
        if (*p != d)
            continue;
        *p = d->next;
        r->n_domains--;
        domain_free(d);
        return;
    }
}

void registry_touch(struct migrd *m, struct domain *d)
{
    d->changed = ++m->registry->changes;
    ha_domain_changed(m, d);
}

void registry_set_state(struct migrd *m, struct domain *d, enum hv_state state)
{
    registry_touch(m, d);
    d->info.state = state;
}

void registry_set_live(struct migrd *m, struct domain *d, bool live)
{
    bool came = live && !d->live;

    d->live = live;
    registry_touch(m, d);
    if (came) {
        d->appeared = d->changed;
        d->last_end = HV_EV_MAX;
    }
    if (!live) {
        free_def(&d->live_def);
        memset(&d->info, 0, sizeof d->info);
        d->start_wall_ns = 0;
    }
}

bool registry_owned(const struct migrd *m, const struct domain *d)
{
    return d->owner[0] == '\0' || strcmp(d->owner, m->host_name) == 0;
}

const Migrd__Domain *registry_definition(const struct domain *d)
{
    static const Migrd__Domain empty = MIGRD__DOMAIN__INIT;

    if (d->live_def != NULL)
        return d->live_def;
    return d->def != NULL ? d->def : &empty;
}

const char *registry_state(const struct domain *d)
{
    if (d->busy != NULL && !d->live)
        return "starting";
    if (!d->live)
        return d->doubt ? "in doubt" : "shut off";
    /* Loaded, owned and left paused by a migration that was asked to. */
    if (d->info.state == HV_INCOMING && d->mig == NULL)
        return "paused";
    return hv_state_name(d->info.state);
}

void registry_publish(struct migrd *m, const struct domain *d, const char *type, const char *detail)
{
    char json[1024], clean[512];
    struct event ev = { .type = type, .uuid = d->uuid, .name = d->name, .json = json };
    size_t n = 0;

    for (; *detail != '\0' && n + 2 < sizeof clean; detail++)
        if (*detail != '"' && *detail != '\\' && (unsigned char)*detail >= ' ')
            clean[n++] = *detail;
    clean[n] = '\0';
    snprintf(json, sizeof json, "{\"domid\":%d,\"state\":\"%s\",\"epoch\":%llu,\"detail\":\"%s\"}",
        d->live ? d->info.domid : -1, registry_state(d), (unsigned long long)d->epoch, clean);
    log_info("domain", "%s: %s%s%s", d->name, type, clean[0] ? ": " : "", clean);
    events_publish(m->events, &ev);
}

/* --- definitions on disk --- */

static void definition_path(const struct migrd *m, const char *uuid, char *out, size_t len)
{
    snprintf(out, len, "%s/%s.xml", m->paths.domains, uuid);
}

static int load_definition(struct migrd *m, const char *file, struct err *e)
{
    char path[PATHS_LEN + 260];
    Migrd__Domain *def;
    struct domain *d;
    char *text;
    size_t len;

    snprintf(path, sizeof path, "%s/%s", m->paths.domains, file);
    text = io_read_file(path, DEFINE_TEXT_MAX, &len, e);
    if (text == NULL)
        return -1;
    def = define_parse(text, len, DEFINE_XML, path, NULL, 0, e);
    free(text);
    if (def == NULL)
        return -1;
    d = registry_by_uuid(m->registry, def->uuid);
    if (d != NULL || by_name(m->registry, def->name) != NULL) {
        err_set(e, ERR_EXISTS, "%s: name or uuid of another definition", path);
        free_def(&def);
        return -1;
    }
    d = registry_add(m, def->uuid, def->name, e);
    if (d == NULL) {
        free_def(&def);
        return -1;
    }
    d->def = def;
    return 0;
}

static void load_definitions(struct migrd *m)
{
    DIR *dir = opendir(m->paths.domains);
    struct dirent *de;
    struct err e;

    while (dir != NULL && (de = readdir(dir)) != NULL) {
        size_t n = strlen(de->d_name);

        if (n < 5 || strcmp(de->d_name + n - 4, ".xml") != 0)
            continue;
        /* One bad file must not hide the other domains. */
        if (load_definition(m, de->d_name, &e) < 0)
            log_error("registry", "definition left out: %s", e.text);
    }
    if (dir != NULL)
        closedir(dir);
}

struct define_job {
    struct job job; /* first */
    struct migrd *m;
    Migrd__Domain *def; /* NULL: undefine */
    char uuid[HV_UUID_LEN];
    char path[PATHS_LEN + 64];
    registry_done *done;
    void *arg;
};

static void define_work(struct job *j)
{
    struct define_job *dj = (struct define_job *)j;
    char *xml;

    if (dj->def == NULL) {
        j->result = unlink(dj->path) < 0 ? err_sys(&j->err, "%s", dj->path) : 0;
        if (j->result == 0)
            registry_autostart_forget(dj->m, dj->uuid);
        return;
    }
    xml = define_xml(dj->def, -1, &j->err);
    j->result = xml == NULL ? -1 : io_replace_file(dj->path, xml, strlen(xml), 0600, &j->err);
    free(xml);
}

static void define_finish(struct job *j)
{
    struct define_job *dj = (struct define_job *)j;
    struct domain *d = registry_by_uuid(dj->m->registry, dj->uuid);

    if (d != NULL) {
        d->busy = NULL;
        if (j->result == 0) {
            bool again = d->def != NULL && dj->def != NULL;

            free_def(&d->def);
            d->def = dj->def;
            dj->def = NULL;
            d->autostart = d->autostart && d->def != NULL;
            registry_publish(dj->m, d, d->def ? "domain-defined" : "domain-undefined",
                again ? "again" : "");
        }
        registry_policy(dj->m, d); /* of an end that came meanwhile */
        registry_drop_unused(dj->m, d);
    }
    if (dj->done != NULL)
        dj->done(dj->arg, dj->uuid, &j->err);
    free_def(&dj->def);
    free(dj);
}

static int run_define(struct migrd *m, struct domain *d, Migrd__Domain *def, registry_done *done,
    void *arg, struct err *e)
{
    struct define_job *dj;

    if (d->busy != NULL)
        return err_set(e, ERR_STATE, "domain %s is busy: %s", d->name, d->busy);
    dj = calloc(1, sizeof *dj);
    if (dj == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", d->name);
    dj->job.work = define_work;
    dj->job.done = define_finish;
    dj->m = m;
    dj->def = def;
    dj->done = done;
    dj->arg = arg;
    snprintf(dj->uuid, sizeof dj->uuid, "%s", d->uuid);
    definition_path(m, d->uuid, dj->path, sizeof dj->path);
    d->busy = def != NULL ? "define" : "undefine";
    job_run(m->loop, &dj->job);
    return 0;
}

/* The entry for a new definition; ERR_EXISTS if its name is another's. */
/* Its entry in *out, NULL if there is none yet. */
static int look_up(
    const struct migrd *m, const Migrd__Domain *def, struct domain **out, struct err *e)
{
    struct domain *d = by_name(m->registry, def->name);

    if (d != NULL && strcmp(d->uuid, def->uuid) != 0)
        return err_set(e, ERR_EXISTS,
            "domain %s exists on host %s already, with uuid %s; choose another name, or end and "
            "forget that one (xm destroy, xm delete)",
            def->name, m->host_name, d->uuid);
    d = registry_by_uuid(m->registry, def->uuid);
    if (d != NULL && strcmp(d->name, def->name) != 0)
        return err_set(e, ERR_EXISTS, "uuid %s is that of domain %s here", def->uuid, d->name);
    *out = d;
    return 0;
}

static struct domain *entry_for(struct migrd *m, const Migrd__Domain *def, struct err *e)
{
    struct domain *d;

    if (look_up(m, def, &d, e) < 0)
        return NULL;
    return d != NULL ? d : registry_add(m, def->uuid, def->name, e);
}

int registry_define_here(
    struct migrd *m, Migrd__Domain **def, registry_done *done, void *arg, struct err *e)
{
    struct domain *d;

    if (define_check(*def, e) < 0 || (d = entry_for(m, *def, e)) == NULL)
        return -1;
    if (run_define(m, d, *def, done, arg, e) < 0) {
        registry_drop_unused(m, d);
        return -1;
    }
    *def = NULL;
    return 0;
}

/* A definition that the cluster's log is asked about first. */
struct agreed {
    struct migrd *m;
    Migrd__Domain *def;
    registry_done *done;
    void *arg;
};

static void agreed(void *arg, const char *uuid, const struct err *e)
{
    struct agreed *a = arg;
    struct err why;

    if (e->code != ERR_NONE)
        why = *e;
    else if (registry_define_here(a->m, &a->def, a->done, a->arg, &why) == 0)
        err_clear(&why);
    if (why.code != ERR_NONE && a->done != NULL)
        a->done(a->arg, uuid, &why);
    free_def(&a->def);
    free(a);
}

int registry_define(
    struct migrd *m, Migrd__Domain **def, registry_done *done, void *arg, struct err *e)
{
    struct agreed *a;
    struct domain *d;
    int r;

    if (m->ha == NULL)
        return registry_define_here(m, def, done, arg, e);
    if (define_check(*def, e) < 0 || look_up(m, *def, &d, e) < 0)
        return -1;
    a = calloc(1, sizeof *a);
    if (a == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", (*def)->name);
    *a = (struct agreed){ m, *def, done, arg };
    r = ha_define(m, *def, false, agreed, a, e);
    if (r > 0) {
        *def = NULL;
        return 0;
    }
    free(a);
    return r < 0 ? -1 : registry_define_here(m, def, done, arg, e);
}

int registry_start_decided(struct migrd *m, Migrd__Domain **def, uint64_t epoch,
    registry_done *done, void *arg, struct err *e)
{
    const struct registry_args args = { .decided = true, .epoch = epoch };
    struct domain *d = entry_for(m, *def, e);

    if (d == NULL)
        return -1;
    if (d->live || d->busy != NULL || d->mig != NULL)
        return err_set(
            e, ERR_EXISTS, "domain %s exists here already and is %s", d->name, registry_state(d));
    free_def(&d->live_def);
    d->live_def = *def;
    *def = NULL;
    if (registry_act(m, d, REG_START, &args, done, arg, e) == 0)
        return 0;
    free_def(&d->live_def);
    registry_drop_unused(m, d);
    return -1;
}

int registry_create(struct migrd *m, Migrd__Domain **def, bool paused, registry_done *done,
    void *arg, struct err *e)
{
    const struct registry_args args = { .paused = paused };
    struct domain *d;
    int r;

    if (define_check(*def, e) < 0)
        return -1;
    r = ha_define(m, *def, true, done, arg, e);
    if (r > 0)
        free_def(def);
    if (r != 0)
        return r < 0 ? -1 : 0;
    if ((d = entry_for(m, *def, e)) == NULL)
        return -1;
    if (d->live || d->busy != NULL || d->live_def != NULL)
        return err_set(
            e, ERR_EXISTS, "domain %s exists here already and is %s", d->name, registry_state(d));
    d->live_def = *def;
    *def = NULL;
    if (registry_act(m, d, REG_START, &args, done, arg, e) == 0)
        return 0;
    *def = d->live_def;
    d->live_def = NULL;
    registry_drop_unused(m, d);
    return -1;
}

int registry_undefine(
    struct migrd *m, struct domain *d, registry_done *done, void *arg, struct err *e)
{
    if (d->def == NULL)
        return err_set(e, ERR_NOT_FOUND, "domain %s is not defined here, it only runs", d->name);
    if (d->mig != NULL)
        return err_set(e, ERR_STATE, "domain %s is busy: migration in progress", d->name);
    return run_define(m, d, NULL, done, arg, e);
}

/* --- memory --- */

void registry_memory(const struct registry *r, const struct domain *without,
    uint64_t *committed_kib, uint64_t *incoming_kib)
{
    *committed_kib = 0;
    *incoming_kib = 0;
    for (struct domain *d = r->domains; d != NULL; d = d->next) {
        if (d->live_def == NULL || d == without || d->live_def->huge_pages)
            continue;
        *committed_kib += d->live_def->memory_kib;
        if (d->busy != NULL || !d->live || d->info.state == HV_INCOMING)
            *incoming_kib += d->live_def->memory_kib;
    }
}

uint64_t registry_changes(const struct registry *r)
{
    return r->changes;
}

void registry_promised(const struct registry *r, const struct domain *without, uint64_t since,
    struct registry_promises *out)
{
    *out = (struct registry_promises){ 0 };
    for (const struct domain *d = r->domains; d != NULL; d = d->next) {
        const Migrd__Domain *def = d->live_def;
        uint64_t most;

        if (def == NULL || d == without)
            continue;
        if (!def->huge_pages)
            out->committed_kib += def->memory_kib;
        if (d->live && d->appeared <= since)
            continue;
        most = hv_memory_need(def);
        if (def->huge_pages)
            out->huge_kib += most;
        else
            out->memory_kib += most;
    }
}

size_t registry_others(
    const struct registry *r, const char *uuid, const Migrd__Domain **out, size_t max)
{
    size_t n = 0;

    for (const struct domain *d = r->domains; d != NULL && n < max; d = d->next)
        if (d->live_def != NULL && strcmp(d->uuid, uuid) != 0)
            out[n++] = d->live_def;
    return n;
}

uint64_t registry_kept(const struct migrd *m)
{
    const uint64_t reserve = m->config.memory_reserve_kib;

    return reserve > m->caps.host_kib ? reserve - m->caps.host_kib : 0;
}

int registry_fits(const struct migrd *m, const struct domain *self, uint64_t free_kib,
    uint64_t total_kib, uint64_t need_kib, struct err *e)
{
    const uint64_t reserve = registry_kept(m);
    uint64_t committed, incoming;

    if (m->config.memory_overcommit)
        return 0;
    registry_memory(m->registry, self, &committed, &incoming);
    if (need_kib > total_kib || committed + reserve + need_kib > total_kib)
        return err_set(e, ERR_MEMORY,
            "host %s has %llu MiB, its domains have %llu MiB and %llu MiB are kept for the host: "
            "%llu MiB more do not fit (memory-reserve, memory-overcommit)",
            m->host_name, (unsigned long long)total_kib / 1024,
            (unsigned long long)committed / 1024, (unsigned long long)reserve / 1024,
            (unsigned long long)need_kib / 1024);
    if (need_kib + incoming + reserve > free_kib)
        return err_set(e, ERR_MEMORY,
            "host %s has %llu MiB free, of which %llu MiB are promised and %llu MiB are kept for "
            "the host: %llu MiB more do not fit",
            m->host_name, (unsigned long long)free_kib / 1024, (unsigned long long)incoming / 1024,
            (unsigned long long)reserve / 1024, (unsigned long long)need_kib / 1024);
    return 0;
}

/* --- for migrations --- */

static int check_free(const struct migrd *m, const struct domain *d, struct err *e)
{
    if (!d->live && d->mig == NULL && d->busy == NULL)
        return 0;
    if (d->mig != NULL) /* of an attempt before, which ends soon: the source asks again */
        return err_set(e, ERR_STATE, "domain %s exists on host %s already: a migration holds it",
            d->name, m->host_name);
    return err_set(e, ERR_EXISTS, "domain %s exists on host %s already: %s", d->name, m->host_name,
        registry_state(d));
}

int registry_check_epoch(
    const struct migrd *m, const char *name, uint64_t known, uint64_t offered, struct err *e)
{
    if (known < offered || known == 0)
        return 0;
    return err_set(e, ERR_EPOCH,
        "host %s knows domain %s at epoch %llu, the offer is for %llu: it comes from a host that "
        "does not own it any more",
        m->host_name, name, (unsigned long long)known, (unsigned long long)offered);
}

int registry_may_come(
    const struct migrd *m, const Migrd__Domain *def, uint64_t epoch, struct err *e)
{
    const struct ownership *o;
    struct domain *d;

    if (define_check(def, e) < 0 || look_up(m, def, &d, e) < 0 ||
        (d != NULL && check_free(m, d, e) < 0))
        return -1;
    o = registry_ownership(m->registry, def->uuid);
    return registry_check_epoch(m, def->name,
        d != NULL   ? d->epoch
        : o != NULL ? o->epoch
                    : 0,
        epoch, e);
}

struct domain *registry_incoming(
    struct migrd *m, const Migrd__Domain *def, struct migration *mig, struct err *e)
{
    struct domain *d;

    if (define_check(def, e) < 0)
        return NULL;
    d = entry_for(m, def, e);
    if (d == NULL)
        return NULL;
    if (check_free(m, d, e) < 0)
        return NULL;
    d->mig = mig;
    return d;
}

int registry_reserve(struct domain *d, const Migrd__Domain *def, struct err *e)
{
    free_def(&d->live_def);
    d->live_def = define_copy(def);
    return d->live_def != NULL ? 0 : err_set(e, ERR_MEMORY, "domain %s: out of memory", d->name);
}

void registry_incoming_started(
    struct migrd *m, struct domain *d, const Migrd__Domain *def, uint64_t epoch, int domid)
{
    registry_set_live(m, d, true);
    if (d->live_def == NULL)
        d->live_def = define_copy(def);
    d->info = (struct hv_info){ .domid = domid,
        .state = HV_INCOMING,
        .epoch = epoch,
        .memory_kib = def->memory_kib,
        .max_memory_kib = def->max_memory_kib,
        .vcpus = def->vcpus,
        .pid = -1 };
    snprintf(d->info.uuid, sizeof d->info.uuid, "%s", d->uuid);
    snprintf(d->info.name, sizeof d->info.name, "%s", d->name);
    d->start_wall_ns = clock_wall_ns();
}

void registry_set_owner(struct migrd *m, struct domain *d, const char *owner, uint64_t epoch)
{
    snprintf(d->owner, sizeof d->owner, "%s", owner);
    if (epoch > d->epoch)
        d->epoch = epoch;
    d->doubt = false;
    set_ownership(m, d->uuid, owner, epoch, false);
}

void registry_gone(struct migrd *m, struct domain *d)
{
    registry_set_live(m, d, false);
    d->ended = HV_EV_MAX;
    registry_expire_waiters(m, d, clock_ns());
}

void registry_release(struct migrd *m, struct domain *d)
{
    d->mig = NULL;
    if (!d->live)
        free_def(&d->live_def);
    if (d->ended != HV_EV_MAX)
        registry_policy(m, d);
    else
        registry_drop_unused(m, d);
    registry_refresh(m);
}

/* --- open and close --- */

static void find_running(struct migrd *m, const struct hv_info *info)
{
    struct domain *d = registry_by_uuid(m->registry, info->uuid);
    struct err e;

    if (d == NULL)
        d = registry_add(m, info->uuid, info->name, &e);
    if (d == NULL) {
        log_error("registry", "running domain %s cannot be registered: %s", info->name, e.text);
        return;
    }
    registry_set_live(m, d, true);
    d->info = *info;
    if (info->epoch > d->epoch)
        d->epoch = info->epoch;
    if (info->domid > m->registry->last_domid)
        m->registry->last_domid = info->domid;
    d->live_def = m->hv_ops->definition(m->hv, info->uuid, &e);
    if (d->live_def == NULL) {
        log_error("registry", "running domain %s: definition unknown: %s", info->name, e.text);
        d->live_def = d->def != NULL ? define_copy(d->def) : NULL;
    }
    log_info("registry", "%s runs here as %d: %s, epoch %llu", info->name, info->domid,
        hv_state_name(info->state), (unsigned long long)info->epoch);
}

int registry_make(struct migrd *m, struct err *e)
{
    m->registry = calloc(1, sizeof *m->registry);
    return m->registry != NULL ? 0 : err_set(e, ERR_MEMORY, "registry: out of memory");
}

int registry_open(struct migrd *m, struct err *e)
{
    struct hv_info *list = NULL;
    size_t n = 0;

    load_definitions(m);
    registry_autostart_load(m);
    if (m->hv_ops->enumerate(m->hv, &list, &n, e) < 0)
        return err_prefix(e, "cannot ask hypervisor %s for its domains", m->hv_ops->name);
    for (size_t i = 0; i < n; i++)
        find_running(m, &list[i]);
    free(list);
    return 0;
}

void registry_close(struct migrd *m)
{
    struct registry *r = m->registry;

    if (r == NULL)
        return;
    m->registry = NULL;
    while (r->domains != NULL) {
        struct domain *d = r->domains;

        r->domains = d->next;
        while (d->waiters != NULL) {
            struct waiter *w = d->waiters;

            d->waiters = w->next;
            free(w);
        }
        domain_free(d);
    }
    while (r->owners != NULL) {
        struct ownership *o = r->owners;

        r->owners = o->next;
        free(o);
    }
    free(r);
}
