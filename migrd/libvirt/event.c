/* SPDX-License-Identifier: ISC */
/*
 * Events: what the host's events mean in libvirt's numbers, and which clients asked for
 * them. A callback's number is the client's only; everybody gets a message of his own.
 *
 * A migration as clients see it, following libvirt's own drivers:
 *     source   iterations, suspended (migrated) at the pause, stopped (migrated), job completed;
 *              resumed (migrated) if it failed after the pause, stopped (failed) if it is gone
 *     target   started (migrated) when the empty domain is there, iterations, resumed (migrated)
 *              or suspended (paused) at the end; stopped (failed) if it failed
 *
 * A client is told what it has not read yet up to libvirt-max-bytes, then it is cut off
 * (conn.c); the others notice nothing.
 *
 * Registrations of clients before libvirt 1.3 (167, 105) have no number, and their messages
 * are the new ones without it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrd/events.h"
#include "migrd/libvirt/internal.h"
#include "migrd/migration.h"

#define CLOSE_EOF 1
#define CALLBACKS_MAX 64 /* of a client */
#define IO_ERROR_PAUSE 1

/* libvirt's numbers of what can be asked for. Those that are missing here never happen. */
enum {
    ID_LIFECYCLE = 0,
    ID_REBOOT = 1,
    ID_IO_ERROR = 4,
    ID_IO_ERROR_REASON = 6,
    ID_BALLOON = 13,
    ID_DEVICE_REMOVED = 15,
    ID_TUNABLE = 17,
    ID_DEVICE_ADDED = 19,
    ID_ITERATION = 20,
    ID_JOB_COMPLETED = 21,
    ID_LAST = 26
};

static const struct kind {
    int proc, old_proc; /* old 0: clients of that time know no such event */
} kinds[ID_LAST + 1] = {
    [ID_LIFECYCLE] = { LV_DOMAIN_EVENT_CALLBACK_LIFECYCLE, LV_DOMAIN_EVENT_LIFECYCLE },
    [ID_REBOOT] = { LV_DOMAIN_EVENT_CALLBACK_REBOOT, LV_DOMAIN_EVENT_REBOOT },
    [ID_IO_ERROR] = { LV_DOMAIN_EVENT_CALLBACK_IO_ERROR, LV_DOMAIN_EVENT_IO_ERROR },
    [ID_IO_ERROR_REASON] = { LV_DOMAIN_EVENT_CALLBACK_IO_ERROR_REASON,
        LV_DOMAIN_EVENT_IO_ERROR_REASON },
    [ID_BALLOON] = { LV_DOMAIN_EVENT_CALLBACK_BALLOON_CHANGE, LV_DOMAIN_EVENT_BALLOON_CHANGE },
    [ID_DEVICE_REMOVED] = { LV_DOMAIN_EVENT_CALLBACK_DEVICE_REMOVED,
        LV_DOMAIN_EVENT_DEVICE_REMOVED },
    [ID_TUNABLE] = { LV_DOMAIN_EVENT_CALLBACK_TUNABLE, 0 },
    [ID_DEVICE_ADDED] = { LV_DOMAIN_EVENT_CALLBACK_DEVICE_ADDED, 0 },
    [ID_ITERATION] = { LV_DOMAIN_EVENT_CALLBACK_MIGRATION_ITERATION, 0 },
    [ID_JOB_COMPLETED] = { LV_DOMAIN_EVENT_CALLBACK_JOB_COMPLETED, 0 },
};

enum {
    EV_DEFINED,
    EV_UNDEFINED,
    EV_STARTED,
    EV_SUSPENDED,
    EV_RESUMED,
    EV_STOPPED,
    EV_SHUTDOWN,
    EV_CRASHED = 8
};

/* Parts of an event's JSON. */
#define DETAIL(text) "\"detail\":\"" text "\""
#define PAUSED "\"state\":\"paused\""

/* `note`: of those with a detail, or the direction of a migration; NULL: any. The first that fits.
 */
static const struct meaning {
    const char *type, *note;
    int event, detail;
} meanings[] = {
    { "domain-defined", DETAIL("again"), EV_DEFINED, 1 },
    { "domain-defined", NULL, EV_DEFINED, 0 },
    { "domain-undefined", NULL, EV_UNDEFINED, 0 },
    { "domain-started", NULL, EV_STARTED, 0 },
    { "domain-found", NULL, EV_STARTED, 0 },
    { "domain-incoming", NULL, EV_STARTED, 1 },
    { "domain-restored", NULL, EV_STARTED, 2 },
    { "domain-paused", DETAIL(""), EV_SUSPENDED, 0 },
    { "domain-paused", DETAIL("migrating"), EV_SUSPENDED, 1 },
    { "domain-paused", DETAIL("saving"), EV_SUSPENDED, 0 },
    { "domain-paused", NULL, EV_SUSPENDED, 2 }, /* its disk or lease */
    { "domain-left-paused", NULL, EV_SUSPENDED, 6 },
    { "domain-arrived", PAUSED, EV_SUSPENDED, 0 },
    { "domain-arrived", NULL, EV_RESUMED, 1 },
    { "domain-unpaused", DETAIL("migrating"), EV_RESUMED, 1 },
    { "domain-unpaused", NULL, EV_RESUMED, 0 },
    { "domain-shutdown", NULL, EV_SHUTDOWN, 0 },
    { "domain-crashed", NULL, EV_CRASHED, 0 },
    { "domain-destroyed", NULL, EV_STOPPED, 1 },
    { "domain-saved", NULL, EV_STOPPED, 4 },
    { "domain-discarded", NULL, EV_STOPPED, 5 },
    { "domain-gone", NULL, EV_STOPPED, 5 },
    { "migration-done", "\"direction\":\"out\"", EV_STOPPED, 3 },
    { "migration-failed", NULL, EV_STOPPED, 5 },
};

/* A domain that was destroyed because it had ended by itself. */
static int stopped_detail(const struct domain *d, int detail)
{
    if (d == NULL || d->last_end == HV_EV_MAX)
        return detail;
    return d->last_end == HV_EV_CRASHED ? 2 : 0;
}

static const struct meaning *meaning_of(const struct event *ev)
{
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
        if (strcmp(ev->type, meanings[i].type) == 0 &&
            (meanings[i].note == NULL || strstr(ev->json, meanings[i].note) != NULL))
            return &meanings[i];
    return NULL;
}

/* --- sending --- */

/* What a message of any kind begins with. */
static lv_event head_of(const struct migrd *m, const struct event *ev)
{
    const struct domain *d = registry_by_uuid(m->registry, ev->uuid);
    lv_event head = { .dom.name = (char *)(uintptr_t)ev->name,
        .dom.id = d != NULL && d->live ? d->info.domid : -1 };

    lv_uuid_bytes(ev->uuid, head.dom.uuid);
    return head;
}

static void send_one(struct lv_conn *c, const struct lv_callback *b, xdrproc_t xdr, lv_event *msg)
{
    const struct kind *k = &kinds[b->event];
    struct lv_header h = { .prog = LV_PROGRAM,
        .vers = LV_VERSION,
        .proc = b->old ? k->old_proc : k->proc,
        .type = LV_MESSAGE };
    uint8_t *frame;

    msg->callback = b->number;
    frame = lv_pack(&h, xdr, msg, NULL);
    if (frame != NULL && b->old)
        lv_drop_word(&h, frame);
    lv_conn_send(c, frame, h.len);
}

/* `msg`: one of the structures that begin like an lv_event. */
static void tell(struct migrd *m, int event, const char *uuid, xdrproc_t xdr, void *msg)
{
    struct lv_conn *next_conn;
    struct lv_callback *next;

    for (struct lv_conn *c = m->libvirt->conns; c != NULL; c = next_conn) {
        next_conn = c->next;
        for (struct lv_callback *b = c->callbacks; b != NULL; b = next) {
            next = b->next;
            if (b->event != event || (b->uuid[0] != '\0' && strcmp(b->uuid, uuid) != 0))
                continue;
            send_one(c, b, xdr, msg);
            if (c->gone)
                break; /* and its callbacks with it */
        }
    }
}

static bool somebody_asked(const struct migrd *m, int event)
{
    for (const struct lv_conn *c = m->libvirt->conns; c != NULL; c = c->next)
        for (const struct lv_callback *b = c->callbacks; b != NULL; b = b->next)
            if (b->event == event)
                return true;
    return false;
}

/* --- domains --- */

/* Its going is part of what a migration or save does, whose end says what it meant. */
static bool is_leaving(const struct domain *d)
{
    Migrd__MigrationInfo i;

    if (d == NULL || d->mig == NULL)
        return false;
    migration_info(d->mig, &i);
    return strcmp(i.direction, "out") == 0 || strcmp(i.direction, "save") == 0;
}

static void tell_lifecycle(struct migrd *m, const struct event *ev)
{
    const struct domain *d = registry_by_uuid(m->registry, ev->uuid);
    const struct meaning *what = meaning_of(ev);
    lv_event head = head_of(m, ev);
    lv_lifecycle msg = { .dom = head.dom };

    if (what == NULL || (strcmp(ev->type, "domain-gone") == 0 && is_leaving(d)))
        return;
    if (strcmp(ev->type, "migration-failed") == 0 && (!is_leaving(d) || d->live))
        return; /* it is still here, or was discarded */
    msg.event = what->event;
    msg.detail = what->detail;
    if (what->event == EV_STOPPED && what->detail == 1)
        msg.detail = stopped_detail(d, what->detail);
    tell(m, ID_LIFECYCLE, ev->uuid, (xdrproc_t)xdr_lv_lifecycle, &msg);
}

static void tell_reboot(struct migrd *m, const struct event *ev)
{
    lv_event msg = head_of(m, ev);

    tell(m, ID_REBOOT, ev->uuid, (xdrproc_t)xdr_lv_event, &msg);
}

static void tell_memory(struct migrd *m, const struct event *ev)
{
    const struct domain *d = registry_by_uuid(m->registry, ev->uuid);
    lv_event_memory msg = { .dom = head_of(m, ev).dom };

    if (d == NULL)
        return;
    msg.kib = d->info.memory_kib;
    tell(m, ID_BALLOON, ev->uuid, (xdrproc_t)xdr_lv_event_memory, &msg);
}

/* The disk that a reason speaks of: the longest target whose name is a word of it, else the only
 * one that there is. */
static const Migrd__Disk *disk_in(const Migrd__Domain *def, const char *reason)
{
    const Migrd__Disk *found = NULL;

    for (size_t i = 0; i < def->n_disks; i++) {
        const char *at = strstr(reason, def->disks[i]->device);

        if (at != NULL && (found == NULL || strlen(def->disks[i]->device) > strlen(found->device)))
            found = def->disks[i];
    }
    return found != NULL || def->n_disks != 1 ? found : def->disks[0];
}

/* A guest that nobody paused waits for a disk, or for its lease. */
static void tell_io_error(struct migrd *m, const struct event *ev)
{
    const struct meaning *what = meaning_of(ev);
    struct domain *d = registry_by_uuid(m->registry, ev->uuid);
    const Migrd__Disk *disk;
    lv_event_io_reason msg = { .dom = head_of(m, ev).dom, .action = IO_ERROR_PAUSE };
    lv_event_io plain;

    if (what == NULL || what->event != EV_SUSPENDED || what->detail != 2 || d == NULL)
        return;
    disk = disk_in(registry_definition(d), d->info.reason);
    msg.path = disk != NULL ? disk->source : (char *)(uintptr_t) "";
    msg.alias = disk != NULL ? disk->device : (char *)(uintptr_t) "";
    msg.reason = d->info.reason;
    plain = (lv_event_io){ 0, msg.dom, msg.path, msg.alias, msg.action };
    tell(m, ID_IO_ERROR, ev->uuid, (xdrproc_t)xdr_lv_event_io, &plain);
    tell(m, ID_IO_ERROR_REASON, ev->uuid, (xdrproc_t)xdr_lv_event_io_reason, &msg);
}

/* --- migrations --- */

static bool migration_of(struct migrd *m, const struct event *ev, Migrd__MigrationInfo *i)
{
    struct migration *g = migration_by_id(m, ev->migration);

    if (g != NULL)
        migration_info(g, i);
    return g != NULL;
}

static void tell_iteration(struct migrd *m, const struct event *ev)
{
    lv_event_number msg = { .dom = head_of(m, ev).dom };
    Migrd__MigrationInfo i;

    if (!migration_of(m, ev, &i) || i.progress == NULL)
        return;
    msg.number = (int)i.progress->round + 1; /* libvirt counts from 1 */
    tell(m, ID_ITERATION, ev->uuid, (xdrproc_t)xdr_lv_event_number, &msg);
}

static void tell_params(
    struct migrd *m, int event, const char *uuid, lv_dom dom, const struct lv_params *params)
{
    lv_event_params msg = { .dom = dom };

    msg.params.params_len = params->len;
    msg.params.params_val = params->val;
    tell(m, event, uuid, (xdrproc_t)xdr_lv_event_params, &msg);
}

static void tell_job(struct migrd *m, const struct event *ev)
{
    Migrd__MigrationInfo i;
    struct lv_params params;
    struct err e;

    if (!somebody_asked(m, ID_JOB_COMPLETED) || !migration_of(m, ev, &i) ||
        lv_job_params(&i, &params, &e) < 0)
        return;
    tell_params(m, ID_JOB_COMPLETED, ev->uuid, head_of(m, ev).dom, &params);
    lv_params_free(&params);
}

static void tell_cpus(struct migrd *m, const struct event *ev)
{
    struct domain *d = registry_by_uuid(m->registry, ev->uuid);

    if (d != NULL && somebody_asked(m, ID_TUNABLE))
        lv_event_cpus(m, d);
}

/* --- what the host tells --- */

static void happened(void *arg, const struct event *ev)
{
    static const struct {
        const char *type;
        void (*tell)(struct migrd *m, const struct event *ev);
    } more[] = { { "domain-reboot", tell_reboot }, { "domain-memory", tell_memory },
        { "domain-cpus", tell_cpus },
        { "domain-paused", tell_io_error }, { "migration-round", tell_iteration },
        { "migration-done", tell_job }, { "migration-failed", tell_job } };
    struct migrd *m = arg;

    if (m->libvirt->conns == NULL)
        return;
    tell_lifecycle(m, ev);
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++)
        if (strcmp(ev->type, more[i].type) == 0)
            more[i].tell(m, ev);
}

void lv_event_device(struct migrd *m, const struct domain *d, bool added, const char *alias)
{
    const struct event ev = { .uuid = d->uuid, .name = d->name };
    lv_event_name msg = { .dom = head_of(m, &ev).dom, .name = (char *)(uintptr_t)alias };

    tell(m, added ? ID_DEVICE_ADDED : ID_DEVICE_REMOVED, d->uuid, (xdrproc_t)xdr_lv_event_name,
        &msg);
}

void lv_event_tunable(struct migrd *m, const struct domain *d, const struct lv_params *params)
{
    const struct event ev = { .uuid = d->uuid, .name = d->name };

    if (params->len > 0)
        tell_params(m, ID_TUNABLE, d->uuid, head_of(m, &ev).dom, params);
}

int lv_events_start(struct migrd *m, struct err *e)
{
    m->libvirt->subscription = events_subscribe(m->events, INT64_MAX, happened, m);
    return m->libvirt->subscription >= 0
               ? 0
               : err_set(e, ERR_RESOURCE, "too many subscribers of events");
}

void lv_events_stop(struct migrd *m)
{
    events_unsubscribe(m->events, m->libvirt->subscription);
}

void lv_events_forget(struct lv_conn *c)
{
    struct lv_callback *next;

    for (struct lv_callback *b = c->callbacks; b != NULL; b = next) {
        next = b->next;
        free(b);
    }
    c->callbacks = NULL;
}

/* --- registrations --- */

static struct lv_callback *add(
    struct lv_call *k, int event, const lv_dom *dom, bool old, struct err *e)
{
    struct lv_conn *c = k->c;
    struct domain *d = NULL;
    struct lv_callback *b;

    if (event < 0 || event > ID_LAST) {
        lv_fail(k, e, LV_E_INVALID_ARG, "no event has number %d", event);
        return NULL;
    }
    if (dom != NULL && (d = lv_domain(k, dom, e)) == NULL)
        return NULL;
    if (c->n_callbacks >= CALLBACKS_MAX) {
        lv_fail(k, e, LV_E_BUSY, "%d callbacks of this client", CALLBACKS_MAX);
        return NULL;
    }
    b = calloc(1, sizeof *b);
    if (b == NULL) {
        err_set(e, ERR_MEMORY, "migrd is out of memory");
        return NULL;
    }
    b->number = c->last_callback++;
    b->event = event;
    b->old = old;
    if (d != NULL)
        memcpy(b->uuid, d->uuid, sizeof b->uuid);
    b->next = c->callbacks;
    c->callbacks = b;
    c->n_callbacks++;
    return b;
}

/* Of old ones the event's number is looked for. */
static int drop(struct lv_call *k, bool old, int number, struct err *e)
{
    for (struct lv_callback **p = &k->c->callbacks; *p != NULL; p = &(*p)->next) {
        struct lv_callback *b = *p;

        if (b->old != old || (old ? b->event : b->number) != number)
            continue;
        *p = b->next;
        k->c->n_callbacks--;
        free(b);
        return 0;
    }
    return lv_fail(k, e, LV_E_INVALID_ARG, "no %s has number %d",
        old ? "event that was asked for" : "callback", number);
}

/* --- the end of migrd --- */

int lv_close_register(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)args;
    (void)ret;
    if (k->c->tell_close)
        return lv_fail(k, e, LV_E_INVALID_ARG, "A close callback is already registered");
    k->c->tell_close = true;
    return 0;
}

int lv_close_deregister(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)args;
    (void)ret;
    if (!k->c->tell_close)
        return lv_fail(k, e, LV_E_INVALID_ARG, "no close callback is registered");
    k->c->tell_close = false;
    return 0;
}

void lv_tell_close(struct lv_conn *c)
{
    struct lv_header h = { .prog = LV_PROGRAM,
        .vers = LV_VERSION,
        .proc = LV_CONNECT_EVENT_CONNECTION_CLOSED,
        .type = LV_MESSAGE };
    lv_int reason = { .value = CLOSE_EOF };
    uint8_t *frame;

    if (!c->tell_close)
        return;
    frame = lv_pack(&h, (xdrproc_t)xdr_lv_int, &reason, NULL);
    lv_conn_send(c, frame, h.len);
}

int lv_event_register(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_register *a = args;
    struct lv_callback *b = add(k, a->event, a->dom, false, e);

    if (b == NULL)
        return -1;
    ((lv_int *)ret)->value = b->number;
    return 0;
}

int lv_event_deregister(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)ret;
    return drop(k, false, ((const lv_int *)args)->value, e);
}

int lv_event_register_old(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    int event = ((const lv_int *)args)->value;

    (void)ret;
    if (event >= 0 && event <= ID_LAST && kinds[event].proc != 0 && kinds[event].old_proc == 0)
        return lv_fail(k, e, LV_E_UNSUPPORTED, "event %d needs a newer client", event);
    return add(k, event, NULL, true, e) != NULL ? 0 : -1;
}

int lv_event_deregister_old(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)ret;
    return drop(k, true, ((const lv_int *)args)->value, e);
}

/* Both answer how many callbacks are left. */
int lv_lifecycle_register_old(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)args;
    ((lv_int *)ret)->value = (int)k->c->n_callbacks + 1;
    return add(k, ID_LIFECYCLE, NULL, true, e) != NULL ? 0 : -1;
}

int lv_lifecycle_deregister_old(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)args;
    if (drop(k, true, ID_LIFECYCLE, e) < 0)
        return -1;
    ((lv_int *)ret)->value = (int)k->c->n_callbacks;
    return 0;
}
