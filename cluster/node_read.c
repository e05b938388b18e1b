/* SPDX-License-Identifier: ISC */
/*
 * What the log has, for readers. A state is copied out of the core when somebody asks, and kept
 * until the log has moved. One that was handed out is good until the next event, also if a newer
 * one is made for another reader.
 */
#include <stdlib.h>
#include <string.h>

#include "cluster/node_internal.h"

void node_read_event(struct cluster *c)
{
    c->state_fresh = false;
    if (c->state_before != NULL)
        migrd__ha_state__free_unpacked(c->state_before, NULL);
    c->state_before = NULL;
}

void node_read_free(struct cluster *c)
{
    node_read_event(c);
    if (c->state != NULL)
        migrd__ha_state__free_unpacked(c->state, NULL);
    c->state = NULL;
}

static void place_now(const struct cluster *c, struct ha_place *p)
{
    *p = (struct ha_place){ .index = 0 };
    if (node_reader(c) != NULL)
        ha_core_place(node_reader(c), p);
}

static bool same_log(const struct ha_place *a, const struct ha_place *b)
{
    return a->term == b->term && a->index == b->index && a->chain == b->chain;
}

/* `local`: what this node knows by itself has to be of now as well. */
static const Migrd__HaState *state_of(struct cluster *c, bool local)
{
    const struct ha_core *reader = node_reader(c);
    struct ha_place place;
    Migrd__HaState *fresh;

    place_now(c, &place);
    if (c->state != NULL && (c->state_fresh || (!local && same_log(&place, &c->state_place))))
        return c->state;
    fresh = reader != NULL ? ha_core_state(reader) : NULL;
    if (fresh == NULL)
        return NULL;
    if (c->state_before == NULL)
        c->state_before = c->state;
    else if (c->state != NULL)
        migrd__ha_state__free_unpacked(c->state, NULL);
    c->state = fresh;
    c->state_place = place;
    c->state_fresh = true;
    return fresh;
}

const Migrd__HaState *cluster_state(struct cluster *c)
{
    return state_of(c, true);
}

static int compare_uuid(const void *key, const void *domain)
{
    return strcmp(key, (*(Migrd__HaDomain *const *)domain)->uuid);
}

const Migrd__HaDomain *cluster_find(struct cluster *c, const char *uuid)
{
    const Migrd__HaState *s = state_of(c, false);
    Migrd__HaDomain **found;

    if (s == NULL || s->n_domain == 0)
        return NULL;
    found = bsearch(uuid, s->domain, s->n_domain, sizeof(Migrd__HaDomain *), compare_uuid);
    return found != NULL ? *found : NULL;
}

bool cluster_is_protected(struct cluster *c, const char *uuid, bool *final)
{
    bool yes = cluster_find(c, uuid) != NULL;

    if (final != NULL)
        *final = yes || (c->core != NULL && c->state != NULL &&
                            c->place.phase == MIGRD__HA_PHASE__PHASE_ACTIVE);
    return yes;
}

uint32_t cluster_own_id(const struct cluster *c)
{
    return c->nodes.own;
}

static const Migrd__HaNode *log_node(struct cluster *c, uint32_t id)
{
    const Migrd__HaState *s = state_of(c, false);

    for (size_t i = 0; s != NULL && i < s->n_node; i++)
        if (s->node[i]->id == id)
            return s->node[i];
    return NULL;
}

/* What its migrd calls itself, else what corosync calls it. */
const char *cluster_node_name(struct cluster *c, uint32_t id)
{
    const Migrd__HaNode *n = log_node(c, id);
    const struct node_entry *entry = node_list_find(&c->nodes, id);

    if (n != NULL && n->name[0] != '\0')
        return n->name;
    return entry != NULL ? entry->name : "";
}

const char *cluster_node_address(struct cluster *c, uint32_t id)
{
    const struct node_entry *entry = node_list_find(&c->nodes, id);

    return entry != NULL ? entry->address : "";
}

static uint32_t by_number(struct cluster *c, const char *name)
{
    char *end;
    unsigned long id = strtoul(name, &end, 10);

    if (end == name || *end != '\0' || id == 0 || id > UINT32_MAX)
        return 0;
    if (log_node(c, (uint32_t)id) == NULL && node_list_find(&c->nodes, (uint32_t)id) == NULL)
        return 0;
    return (uint32_t)id;
}

uint32_t cluster_node_id(struct cluster *c, const char *name)
{
    const Migrd__HaState *s = state_of(c, false);

    for (size_t i = 0; s != NULL && i < s->n_node; i++)
        if (strcmp(s->node[i]->name, name) == 0 && name[0] != '\0')
            return s->node[i]->id;
    for (unsigned i = 0; i < c->nodes.n; i++)
        if (strcmp(c->nodes.node[i].name, name) == 0 && name[0] != '\0')
            return c->nodes.node[i].id;
    return by_number(c, name);
}

Migrd__HaPlan *cluster_what_if(struct cluster *c, const uint32_t *dead, unsigned n)
{
    const struct ha_core *reader = node_reader(c);

    return reader != NULL ? ha_core_what_if(reader, dead, n) : NULL;
}

Migrd__HaPlan *cluster_explain(struct cluster *c, const char *uuid)
{
    const struct ha_core *reader = node_reader(c);

    return reader != NULL ? ha_core_explain(reader, uuid) : NULL;
}

Migrd__HaPlan *cluster_certificate(struct cluster *c, unsigned k)
{
    const struct ha_core *reader = node_reader(c);

    return reader != NULL ? ha_core_certificate(reader, k) : NULL;
}

/* --- figures --- */

static void votes_text(const struct corosync_figures *f, char *text, size_t size)
{
    int n = 0;

    *text = '\0';
    if (f->expected > 0)
        n = snprintf(text, size, "%u of %u votes, %u needed", f->votes, f->expected, f->needed);
    if (f->expected > 0 && f->device[0] != '\0')
        snprintf(text + n, size - (size_t)n, "; quorum device %.63s: %u, %s", f->device,
            f->device_votes, f->device_casts ? "votes" : "does not vote");
}

/* The first that is wrong of: no core, corosync, its nodes, beats. */
static const char *trouble(
    const struct cluster *c, const struct corosync_figures *ring, const struct beat_figures *beats)
{
    if (c->core == NULL)
        return c->why;
    if (ring->text[0] != '\0')
        return ring->text;
    return beats->text[0] != '\0' ? beats->text : nodelist_text(c->nodelist);
}

static void ring_figures(
    const struct cluster *c, const struct beat_figures *beats, struct cluster_figures *out)
{
    struct corosync_figures f = { .up = false };

    if (c->ring != NULL)
        corosync_figures(c->ring, &f);
    out->ring_up = f.up && c->core != NULL;
    out->quorate = f.quorate;
    snprintf(out->ring_text, sizeof out->ring_text, "%.199s", trouble(c, &f, beats));
    votes_text(&f, out->votes, sizeof out->votes);
    out->messages_in = f.messages_in;
    out->messages_out = f.messages_out;
}

void cluster_figures(const struct cluster *c, struct cluster_figures *out)
{
    struct beat_figures beats;
    struct store_figures disk;

    *out = (struct cluster_figures){ .times = c->times };
    beat_figures(c->beat, &beats);
    ring_figures(c, &beats, out);
    out->beats_in = beats.in;
    out->beats_out = beats.out;
    out->beats_bad = beats.bad;
    store_figures(c->store, &disk);
    out->persist_last_us = disk.last_us;
    out->persist_max_us = disk.max_us;
    out->late_last_ms = c->late_last;
    out->late_max_ms = c->late_max;
    out->failovers = c->failovers;
    out->watchdog = c->watchdog != NULL && watchdog_fed(c->watchdog);
}
