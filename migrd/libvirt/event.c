/* SPDX-License-Identifier: ISC */
/*
 * Lifecycle events: what the host's events mean in libvirt's numbers, and which clients
 * asked for them. A callback's number is the client's only; the others get a message of
 * their own each.
 */
#include <stdlib.h>
#include <string.h>

#include "migrd/events.h"
#include "migrd/libvirt/internal.h"

#define EVENT_LIFECYCLE 0
#define CALLBACKS_MAX 64 /* of a client */

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

/* `note`: of those with a detail, or the direction of a migration; NULL: any. The first that fits.
 */
static const struct meaning {
    const char *type, *note;
    int event, detail;
} meanings[] = {
    { "domain-defined", NULL, EV_DEFINED, 0 },
    { "domain-undefined", NULL, EV_UNDEFINED, 0 },
    { "domain-started", NULL, EV_STARTED, 0 },
    { "domain-found", NULL, EV_STARTED, 0 },
    { "domain-arrived", NULL, EV_STARTED, 1 },
    { "domain-restored", NULL, EV_STARTED, 2 },
    { "domain-paused", "\"detail\":\"\"", EV_SUSPENDED, 0 },
    { "domain-paused", NULL, EV_SUSPENDED, 2 }, /* its disk or lease */
    { "domain-left-paused", NULL, EV_SUSPENDED, 6 },
    { "domain-unpaused", NULL, EV_RESUMED, 0 },
    { "domain-shutdown", NULL, EV_SHUTDOWN, 0 },
    { "domain-crashed", NULL, EV_CRASHED, 0 },
    { "domain-destroyed", NULL, EV_STOPPED, 1 },
    { "domain-saved", NULL, EV_STOPPED, 4 },
    { "domain-gone", NULL, EV_STOPPED, 5 },
    { "migration-done", "\"direction\":\"out\"", EV_STOPPED, 3 },
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

static void send_lifecycle(struct lv_conn *c, lv_lifecycle *msg)
{
    struct lv_header h = { .prog = LV_PROGRAM,
        .vers = LV_VERSION,
        .proc = LV_DOMAIN_EVENT_CALLBACK_LIFECYCLE,
        .type = LV_MESSAGE };
    uint8_t *frame = lv_pack(&h, (xdrproc_t)xdr_lv_lifecycle, msg, NULL);

    lv_conn_send(c, frame, h.len);
}

static void tell(struct lv_conn *c, const char *uuid, lv_lifecycle *msg)
{
    struct lv_callback *next;

    for (struct lv_callback *b = c->callbacks; b != NULL && !c->gone; b = next) {
        next = b->next;
        if (b->uuid[0] != '\0' && strcmp(b->uuid, uuid) != 0)
            continue;
        msg->callback = b->number;
        send_lifecycle(c, msg);
        if (c->gone)
            return; /* and its callbacks with it */
    }
}

static void happened(void *arg, const struct event *ev)
{
    struct migrd *m = arg;
    const struct meaning *what = meaning_of(ev);
    lv_lifecycle msg = { 0 };
    struct lv_conn *next;
    struct domain *d;

    if (what == NULL || m->libvirt->conns == NULL)
        return;
    d = registry_by_uuid(m->registry, ev->uuid);
    msg.dom.name = (char *)(uintptr_t)ev->name;
    lv_uuid_bytes(ev->uuid, msg.dom.uuid);
    msg.dom.id = d != NULL && d->live ? d->info.domid : -1;
    msg.event = what->event;
    msg.detail = what->event == EV_STOPPED && what->detail == 1 ? stopped_detail(d, what->detail)
                                                                : what->detail;
    for (struct lv_conn *c = m->libvirt->conns; c != NULL; c = next) {
        next = c->next;
        tell(c, ev->uuid, &msg);
    }
}

int lv_events_start(struct migrd *m, struct err *e)
{
    m->libvirt->subscription = events_subscribe(m->events, 0, happened, m);
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

int lv_event_register(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_register *a = args;
    struct lv_conn *c = k->c;
    struct domain *d = NULL;
    struct lv_callback *b;

    if (a->event != EVENT_LIFECYCLE)
        return lv_fail(k, e, LV_E_UNSUPPORTED, "events of kind %d", a->event);
    if (a->dom != NULL && (d = lv_domain(k, a->dom, e)) == NULL)
        return -1;
    if (c->n_callbacks >= CALLBACKS_MAX)
        return lv_fail(k, e, LV_E_BUSY, "%d callbacks of this client", CALLBACKS_MAX);
    b = calloc(1, sizeof *b);
    if (b == NULL)
        return err_set(e, ERR_MEMORY, "migrd is out of memory");
    b->number = c->last_callback++;
    b->event = a->event;
    if (d != NULL)
        memcpy(b->uuid, d->uuid, sizeof b->uuid);
    b->next = c->callbacks;
    c->callbacks = b;
    c->n_callbacks++;
    ((lv_int *)ret)->value = b->number;
    return 0;
}

int lv_event_deregister(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    int number = ((const lv_int *)args)->value;

    (void)ret;
    for (struct lv_callback **p = &k->c->callbacks; *p != NULL; p = &(*p)->next) {
        struct lv_callback *b = *p;

        if (b->number != number)
            continue;
        *p = b->next;
        k->c->n_callbacks--;
        free(b);
        return 0;
    }
    return lv_fail(k, e, LV_E_INVALID_ARG, "no callback has number %d", number);
}
