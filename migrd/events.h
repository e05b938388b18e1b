/* SPDX-License-Identifier: ISC */
/*
 * events: what happens on this host, as it happens: for the status socket's
 * server-sent events, for counters, and later for libvirt's clients. Publishing calls
 * each subscriber at once, in the loop's thread; the event is the publisher's and lives
 * only during the call. The last EVENTS_KEPT are kept, so that a client that comes back
 * with Last-Event-ID misses nothing short.
 */
#ifndef MIGRD_EVENTS_H
#define MIGRD_EVENTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define EVENTS_KEPT 256

struct events;

struct event {
    uint64_t id; /* 1.., set by events_publish */
    uint64_t wall_ns;
    const char *type; /* "domain-started", "migration-progress", "acl-refused", ... */
    const char *uuid; /* "" none */
    const char *name;
    const char *migration;
    char *json; /* an object with the rest; owned by the publisher */
};

typedef void events_fn(void *arg, const struct event *ev);

struct events *events_new(void);
void events_free(struct events **e);
uint64_t events_publish(struct events *e, struct event *ev);
/* Returns a number for events_unsubscribe. Replays kept events with id > after first. */
int events_subscribe(struct events *e, uint64_t after, events_fn *fn, void *arg);
void events_unsubscribe(struct events *e, int number);

/* Counters, for /metrics: names as "migrd_acl_refused_total". Made at first use, never freed. */
uint64_t *events_counter(struct events *e, const char *name, const char *help);
/* Number i, NULL beyond the last. */
const char *events_counter_at(struct events *e, size_t i, const char **help, uint64_t *value);

#endif
