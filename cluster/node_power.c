/* SPDX-License-Identifier: ISC */
/* What ends hosts: other ones by their fence agents, this one by its watchdog. */
#include <stdlib.h>
#include <unistd.h>

#include "cluster/node_internal.h"

/* --- fence agents --- */

void node_open_fence(struct cluster *c, const char *file)
{
    struct err e;

    if (file[0] == '\0' || access(file, F_OK) < 0)
        return;
    if (fence_open(c->loop, file, &c->fence, &e) == 0)
        return;
    c->fence = NULL;
    node_note(
        c, true, "%s; no host is powered off until that is corrected and migrd restarted", e.text);
}

/* As fence.conf calls it: corosync's name, or its migrd's. NULL: it does not. */
static const char *fence_name(struct cluster *c, uint32_t id)
{
    const struct node_entry *entry = node_list_find(&c->nodes, id);
    const char *own = cluster_node_name(c, id);

    if (c->fence == NULL)
        return NULL;
    if (entry != NULL && entry->name[0] != '\0' && fence_knows(c->fence, entry->name))
        return entry->name;
    return own[0] != '\0' && fence_knows(c->fence, own) ? own : NULL;
}

static void forget(struct fencing *f)
{
    struct fencing **at = &f->cluster->fencings;

    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
    free(f);
}

static void on_fenced(void *arg, bool ok, const char *text)
{
    struct fencing *f = arg;
    struct cluster *c = f->cluster;
    uint64_t id = f->id;

    forget(f);
    cluster_result(c, id, ok, text);
}

void node_fence(struct cluster *c, const struct ha_action *a)
{
    uint64_t id = a->id | (uint64_t)c->lives << ACTION_BITS;
    const char *name = fence_name(c, a->node);
    struct fencing *f;
    struct err e;

    if (c->flight != NULL)
        flight_sync(c->flight);
    if (name == NULL) {
        cluster_result(c, id, false, "fence.conf has no device for it");
        return;
    }
    f = malloc(sizeof *f);
    if (f == NULL) {
        cluster_result(c, id, false, "no memory");
        return;
    }
    *f = (struct fencing){ .next = c->fencings, .cluster = c, .id = id };
    c->fencings = f;
    node_note(c, true, "node %u (%s) is to be powered off: %s", a->node, name, a->text);
    if (fence_node(c->fence, name, on_fenced, f, &e) < 0) {
        forget(f);
        cluster_result(c, id, false, e.text);
    }
}

/* --- watchdog --- */

void node_watchdog(struct cluster *c, uint64_t deadline)
{
    struct err e;

    if (c->watchdog == NULL) {
        if (c->watchdog_path[0] == '\0' || c->watchdog_failed || !c->place.joined)
            return;
        if (watchdog_open(c->loop, c->watchdog_path, c->watchdog_ms, &c->watchdog, &e) < 0) {
            c->watchdog = NULL;
            c->watchdog_failed = true;
            node_note(c, true, "%s; this host goes on without a watchdog", e.text);
            return;
        }
        node_note(c, false, "watchdog %s is armed, %u ms", c->watchdog_path,
            watchdog_time_ms(c->watchdog));
    }
    watchdog_allow(c->watchdog, deadline);
}

void node_power_stop(struct cluster *c)
{
    if (c->fence != NULL)
        fence_stop(c->fence);
    if (c->watchdog != NULL)
        watchdog_close(&c->watchdog, true);
}

void node_power_close(struct cluster *c)
{
    while (c->fencings != NULL)
        forget(c->fencings);
    fence_close(&c->fence);
}
