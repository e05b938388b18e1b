/* SPDX-License-Identifier: ISC */
/*
 * ha_watch: looks at the state of the cluster's log each time it has changed, and remembers what
 * people ask for afterwards: which domains were started anew, where, on which proof, and how long
 * each part of it took. Pure: states and times go in, differences come out. One allocation; what
 * it hands out belongs to it and is good until the next look.
 */
#ifndef HA_WATCH_H
#define HA_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "migrd/control.pb-c.h"

#define HA_WATCH_KEPT 32 /* failovers */

struct ha_watch;

enum ha_news_type {
    HA_NEWS_PHASE, /* of this node: whether anything is decided here */
    HA_NEWS_NODE,
    HA_NEWS_DOMAIN, /* gone: not protected any more */
    HA_NEWS_ARMED,
};

struct ha_news {
    enum ha_news_type type;
    const Migrd__HaState *state;
    const Migrd__HaNode *node;
    const Migrd__HaDomain *domain; /* without a word of the old one where it is gone */
    const char *uuid;              /* DOMAIN; of one that has gone too */
    bool gone;
};
typedef void ha_watch_fn(void *arg, const struct ha_news *news);

/* NULL: no memory. */
struct ha_watch *ha_watch_new(void);
void ha_watch_free(struct ha_watch **w);
/* `now_ms`: the clock of HaLocal. The first look has no news. */
void ha_watch_look(struct ha_watch *w, const Migrd__HaState *s, uint64_t now_ms, uint64_t wall_ns,
    ha_watch_fn *fn, void *arg);
/* The log's time goes on while nothing is decided. */
uint64_t ha_watch_log_now(const struct ha_watch *w, uint64_t now_ms);
/* Newest first; NULL behind the last. */
const Migrd__HaFailover *ha_watch_failover(const struct ha_watch *w, unsigned i);

#endif
