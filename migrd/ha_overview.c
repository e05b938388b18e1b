/* SPDX-License-Identifier: ISC */
/*
 * An overview is put together of borrowed parts and copied once, without the definitions of the
 * domains, which may be megabytes.
 *
 * Events: "ha-phase" {phase, why}, "ha-armed" {armed}, "ha-node" {node, name, state, member, drain,
 * why}, "ha-domain" {state, owner, epoch, why} or {gone}, "ha-alarm" {text}.
 */
#define _GNU_SOURCE
#include "migrd/ha_overview.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/pbjson.h"
#include "migrd/events.h"
#include "migrd/ha.h"
#include "migrd/ha_watch.h"

#define SURVIVES_MAX 2 /* losses that are tried: all sets of so many nodes */

/* --- the overview --- */

struct parts {
    Migrd__HaOverview o;
    Migrd__HaState state;
    Migrd__HaTimes times;
    Migrd__HaFigures figures;
    Migrd__HaPlace place[HA_NODES_MAX], *places[HA_NODES_MAX];
    Migrd__HaFailover *failovers[HA_WATCH_KEPT];
    Migrd__HaDomain *domain, **domains;
    char text[300], undecided[700];
};

static void add_figures(struct parts *p, const struct cluster_figures *f)
{
    migrd__ha_times__init(&p->times);
    p->times.token = f->times.token;
    p->times.beat = f->times.beat;
    p->times.lease = f->times.lease;
    p->times.fuse_check = f->times.fuse_check;
    p->times.slack = f->times.slack;
    p->times.proof = f->times.proof;
    p->times.tilt = f->times.tilt;
    p->times.ready = f->times.ready;
    p->times.watchdog = f->times.watchdog;
    ha_times_print(&f->times, p->text, sizeof p->text);
    p->times.text = p->text;
    migrd__ha_figures__init(&p->figures);
    p->figures.ring_up = f->ring_up;
    p->figures.quorate = f->quorate;
    p->figures.ring_text = (char *)(uintptr_t)f->ring_text;
    p->figures.votes = (char *)(uintptr_t)f->votes;
    p->figures.messages_in = f->messages_in;
    p->figures.messages_out = f->messages_out;
    p->figures.beats_in = f->beats_in;
    p->figures.beats_out = f->beats_out;
    p->figures.beats_bad = f->beats_bad;
    p->figures.persist_last_us = f->persist_last_us;
    p->figures.persist_max_us = f->persist_max_us;
    p->figures.late_last_ms = f->late_last_ms;
    p->figures.late_max_ms = f->late_max_ms;
    p->figures.failovers = f->failovers;
    p->figures.watchdog = f->watchdog;
    p->o.times = &p->times;
    p->o.figures = &p->figures;
}

static void add_places(struct parts *p, struct cluster *c, const Migrd__HaState *s)
{
    for (size_t i = 0; i < s->n_nodes && i < HA_NODES_MAX; i++) {
        migrd__ha_place__init(&p->place[i]);
        p->place[i].node = s->nodes[i];
        p->place[i].name = (char *)(uintptr_t)cluster_node_name(c, s->nodes[i]);
        p->place[i].address = (char *)(uintptr_t)cluster_node_address(c, s->nodes[i]);
        p->places[p->o.n_places++] = &p->place[i];
    }
    p->o.places = p->places;
}

/* The same state; its domains have no definitions. False: no memory. */
static bool add_state(struct parts *p, const Migrd__HaState *s)
{
    p->domain = calloc(s->n_domain + 1, sizeof *p->domain);
    p->domains = calloc(s->n_domain + 1, sizeof(Migrd__HaDomain *));
    if (p->domain == NULL || p->domains == NULL)
        return false;
    p->state = *s;
    for (size_t i = 0; i < s->n_domain; i++) {
        p->domain[i] = *s->domain[i];
        p->domain[i].definition = (ProtobufCBinaryData){ 0, NULL };
        p->domains[i] = &p->domain[i];
    }
    p->state.domain = p->domains;
    p->o.state = &p->state;
    return true;
}

static void add_failovers(struct parts *p, const struct ha_watch *w)
{
    const Migrd__HaFailover *f;

    for (unsigned i = 0; w != NULL && (f = ha_watch_failover(w, i)) != NULL; i++)
        p->failovers[p->o.n_failovers++] = (Migrd__HaFailover *)(uintptr_t)f;
    p->o.failovers = p->failovers;
}

/* As many losses as are survived, and the worst of one more. */
static void add_certificate(Migrd__HaOverview *o, struct cluster *c)
{
    for (unsigned k = 1; k <= SURVIVES_MAX; k++) {
        Migrd__HaPlan *plan = cluster_certificate(c, k);

        if (plan == NULL)
            return;
        if (o->certificate != NULL)
            migrd__ha_plan__free_unpacked(o->certificate, NULL);
        o->certificate = plan;
        if (!plan->holds || plan->k < k)
            return;
        o->survives = k;
    }
}

Migrd__HaOverview *ha_overview(struct migrd *m)
{
    struct cluster *c = ha_cluster(m);
    const Migrd__HaState *s = c != NULL ? cluster_state(c) : NULL;
    struct parts *p = s != NULL ? calloc(1, sizeof *p) : NULL;
    Migrd__HaOverview *copy = NULL;
    struct cluster_figures f;

    if (p == NULL)
        return NULL;
    migrd__ha_overview__init(&p->o);
    p->o.host = m->host_name;
    p->o.node = cluster_own_id(c);
    p->o.now = clock_boot_ms();
    p->o.log_now = m->ha_watch != NULL ? ha_watch_log_now(m->ha_watch, p->o.now) : s->time;
    if (ha_undecided(m, p->undecided, sizeof p->undecided))
        p->o.undecided = p->undecided;
    cluster_figures(c, &f);
    add_figures(p, &f);
    add_places(p, c, s);
    add_failovers(p, m->ha_watch);
    if (add_state(p, s))
        copy = pb_copy(&p->o.base);
    free(p->domain);
    free(p->domains);
    free(p);
    if (copy != NULL)
        add_certificate(copy, c);
    return copy;
}

/* --- why nothing is decided --- */

static bool is_member(const Migrd__HaLocal *l, uint32_t node)
{
    for (size_t i = 0; i < l->n_members; i++)
        if (l->members[i] == node)
            return true;
    return false;
}

/* "xen2, xen3": the configured nodes that are not in the view; how many. */
static unsigned absent(
    struct cluster *c, const Migrd__HaState *s, uint32_t own, char *text, size_t size)
{
    unsigned n = 0;
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < s->n_nodes; i++) {
        const char *name = cluster_node_name(c, s->nodes[i]);
        char number[24];

        if (s->nodes[i] == own || is_member(s->local, s->nodes[i]))
            continue;
        snprintf(number, sizeof number, "node %u", s->nodes[i]);
        if (used < size)
            used += (size_t)snprintf(text + used, size - used, "%s%s", n > 0 ? ", " : "",
                name[0] != '\0' ? name : number);
        n++;
    }
    return n;
}

bool ha_undecided(struct migrd *m, char *text, size_t size)
{
    struct cluster *c = ha_cluster(m);
    const Migrd__HaState *s = c != NULL ? cluster_state(c) : NULL;
    struct cluster_figures f;
    char away[400];
    unsigned n;

    if (s == NULL || s->local == NULL ||
        (s->local->phase == MIGRD__HA_PHASE__PHASE_ACTIVE && s->local->joined))
        return false;
    cluster_figures(c, &f);
    n = absent(c, s, cluster_own_id(c), away, sizeof away);
    if (!f.ring_up)
        snprintf(text, size,
            "corosync does not answer on host %s (%s): nothing is decided here; look at `systemctl "
            "status corosync` and `migctl cluster status`",
            m->host_name, f.ring_text);
    else if (s->local->phase == MIGRD__HA_PHASE__PHASE_ALONE && 2 * n >= s->n_nodes && n > 0)
        snprintf(text, size,
            "%s of %zu nodes %s away: nothing is decided, and protected guests stay paused until a "
            "majority is back; bring a node back, or see \"By hand\" in docs/ha.md",
            away, s->n_nodes, n == 1 ? "is" : "are");
    else
        snprintf(text, size,
            "nothing is decided yet: %s; this takes a moment after a node came or went",
            s->local->why[0] != '\0' ? s->local->why : "the log has not admitted this host yet");
    return true;
}

/* --- events --- */

static json_t *enum_json(const ProtobufCEnumDescriptor *d, int value)
{
    char text[64];

    pbjson_enum(d, value, text, sizeof text);
    return pbjson_text(text);
}

static void publish(
    struct migrd *m, const char *type, const char *uuid, const char *name, json_t *detail)
{
    struct event ev = { .type = type, .uuid = uuid, .name = name, .migration = "" };

    ev.json = detail != NULL ? json_dumps(detail, JSON_COMPACT) : NULL;
    events_publish(m->events, &ev);
    free(ev.json);
    json_decref(detail);
}

static void publish_node(struct migrd *m, const Migrd__HaNode *n)
{
    publish(m, "ha-node", "", "",
        json_pack("{s:i,s:o,s:o,s:b,s:b,s:o}", "node", (int)n->id, "name", pbjson_text(n->name),
            "state", enum_json(&migrd__ha_node_state__descriptor, (int)n->state), "member",
            (int)n->member, "drain", (int)n->drain, "why", pbjson_text(n->why)));
}

static void publish_domain(struct migrd *m, const struct ha_news *x)
{
    const Migrd__HaDomain *d = x->domain;

    if (x->gone)
        publish(m, "ha-domain", x->uuid, "", json_pack("{s:b}", "gone", 1));
    else
        publish(m, "ha-domain", d->uuid, d->name,
            json_pack("{s:o,s:i,s:I,s:o}", "state",
                enum_json(&migrd__ha_domain_state__descriptor, (int)d->state), "owner",
                (int)d->owner, "epoch", (json_int_t)d->epoch, "why", pbjson_text(d->why)));
}

static void news(void *arg, const struct ha_news *x)
{
    const Migrd__HaLocal *l = x->state->local;
    struct migrd *m = arg;

    switch (x->type) {
    case HA_NEWS_PHASE:
        if (l != NULL)
            publish(m, "ha-phase", "", "",
                json_pack("{s:o,s:o}", "phase",
                    enum_json(&migrd__ha_phase__descriptor, (int)l->phase), "why",
                    pbjson_text(l->why)));
        break;
    case HA_NEWS_ARMED:
        publish(m, "ha-armed", "", "",
            json_pack(
                "{s:o}", "armed", enum_json(&migrd__ha_armed__descriptor, (int)x->state->armed)));
        break;
    case HA_NEWS_NODE:
        publish_node(m, x->node);
        break;
    case HA_NEWS_DOMAIN:
        publish_domain(m, x);
        break;
    }
}

void ha_overview_changed(struct migrd *m)
{
    struct cluster *c = ha_cluster(m);
    const Migrd__HaState *s = c != NULL ? cluster_state(c) : NULL;

    if (s == NULL)
        return;
    if (m->ha_watch == NULL)
        m->ha_watch = ha_watch_new();
    if (m->ha_watch != NULL)
        ha_watch_look(m->ha_watch, s, clock_boot_ms(), clock_wall_ns(), news, m);
}

void ha_overview_alarm(struct migrd *m, const char *text)
{
    publish(m, "ha-alarm", "", "", json_pack("{s:o}", "text", pbjson_text(text)));
}

void ha_overview_close(struct migrd *m)
{
    ha_watch_free(&m->ha_watch);
}
