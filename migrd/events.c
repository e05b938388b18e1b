/* SPDX-License-Identifier: ISC */
/*
 * A ring of the last EVENTS_KEPT events with their own copies of all text, a small table
 * of subscribers and a list of counters. A subscriber may unsubscribe (itself or another)
 * from inside its callback: slots are only reused after the publishing call has returned.
 */
#include "migrd/events.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define SUBSCRIBERS_MAX 128

struct subscriber {
    events_fn *fn; /* NULL: slot is free */
    void *arg;
    int number;
};

struct counter {
    struct counter *next;
    char *name, *help;
    uint64_t value;
};

struct events {
    struct event kept[EVENTS_KEPT];
    uint64_t last_id;
    struct subscriber sub[SUBSCRIBERS_MAX];
    int last_number;
    unsigned publishing; /* depth */
    struct counter *counters, **counters_tail;
};

struct events *events_new(void)
{
    struct events *e = calloc(1, sizeof *e);

    if (e != NULL)
        e->counters_tail = &e->counters;
    return e;
}

static void event_clear(struct event *ev)
{
    free((void *)(uintptr_t)ev->type);
    free((void *)(uintptr_t)ev->uuid);
    free((void *)(uintptr_t)ev->name);
    free((void *)(uintptr_t)ev->migration);
    free(ev->json);
    memset(ev, 0, sizeof *ev);
}

void events_free(struct events **ep)
{
    struct events *e = *ep;

    if (e == NULL)
        return;
    *ep = NULL;
    for (size_t i = 0; i < EVENTS_KEPT; i++)
        event_clear(&e->kept[i]);
    while (e->counters != NULL) {
        struct counter *c = e->counters;

        e->counters = c->next;
        free(c->name);
        free(c->help);
        free(c);
    }
    free(e);
}

static char *copy_or_empty(const char *s)
{
    return strdup(s != NULL ? s : "");
}

static bool event_copy(struct event *to, const struct event *from)
{
    *to = (struct event){ .id = from->id,
        .wall_ns = from->wall_ns,
        .type = copy_or_empty(from->type),
        .uuid = copy_or_empty(from->uuid),
        .name = copy_or_empty(from->name),
        .migration = copy_or_empty(from->migration),
        .json = strdup(from->json != NULL ? from->json : "{}") };
    if (to->type && to->uuid && to->name && to->migration && to->json)
        return true;
    event_clear(to);
    return false;
}

uint64_t events_publish(struct events *e, struct event *ev)
{
    struct event *slot;
    struct event now;

    ev->id = ++e->last_id;
    if (ev->wall_ns == 0)
        ev->wall_ns = clock_wall_ns();
    slot = &e->kept[ev->id % EVENTS_KEPT];
    event_clear(slot);
    /* Subscribers see the kept copy's text: never NULL, and safe if one publishes in turn. */
    if (!event_copy(slot, ev) || !event_copy(&now, ev))
        return ev->id;
    e->publishing++;
    for (size_t i = 0; i < SUBSCRIBERS_MAX; i++)
        if (e->sub[i].fn != NULL)
            e->sub[i].fn(e->sub[i].arg, &now);
    e->publishing--;
    event_clear(&now);
    return ev->id;
}

static void replay(struct events *e, uint64_t after, events_fn *fn, void *arg)
{
    uint64_t first = e->last_id >= EVENTS_KEPT ? e->last_id - EVENTS_KEPT + 1 : 1;

    if (after + 1 > first)
        first = after + 1;
    for (uint64_t id = first; id <= e->last_id; id++)
        if (e->kept[id % EVENTS_KEPT].id == id)
            fn(arg, &e->kept[id % EVENTS_KEPT]);
}

int events_subscribe(struct events *e, uint64_t after, events_fn *fn, void *arg)
{
    for (size_t i = 0; i < SUBSCRIBERS_MAX; i++) {
        /* While an event is being published no slot is taken: it would get half of the events. */
        if (e->sub[i].fn != NULL || e->publishing > 0)
            continue;
        replay(e, after, fn, arg);
        e->sub[i] = (struct subscriber){ fn, arg, ++e->last_number };
        return e->last_number;
    }
    return -1;
}

void events_unsubscribe(struct events *e, int number)
{
    for (size_t i = 0; i < SUBSCRIBERS_MAX; i++)
        if (e->sub[i].fn != NULL && e->sub[i].number == number)
            e->sub[i].fn = NULL;
}

uint64_t *events_counter(struct events *e, const char *name, const char *help)
{
    struct counter *c;
    static uint64_t lost; /* without memory counting goes on, unseen */

    for (c = e->counters; c != NULL; c = c->next)
        if (strcmp(c->name, name) == 0)
            return &c->value;
    c = calloc(1, sizeof *c);
    if (c == NULL)
        return &lost;
    c->name = strdup(name);
    c->help = copy_or_empty(help);
    if (c->name == NULL || c->help == NULL) {
        free(c->name);
        free(c->help);
        free(c);
        return &lost;
    }
    *e->counters_tail = c;
    e->counters_tail = &c->next;
    return &c->value;
}

const char *events_counter_at(struct events *e, size_t i, const char **help, uint64_t *value)
{
    struct counter *c = e->counters;

    while (c != NULL && i-- > 0)
        c = c->next;
    if (c == NULL)
        return NULL;
    *help = c->help;
    *value = c->value;
    return c->name;
}
