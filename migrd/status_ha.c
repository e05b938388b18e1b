/* SPDX-License-Identifier: ISC */
/* /metrics of the cluster: nodes and domains by state, this host's lease, beats, disk, loop. */
#define _GNU_SOURCE
#include "base/pbjson.h"
#include "migrd/ha_overview.h"
#include "migrd/status_internal.h"

static void by_state(FILE *f, const char *name, const char *help,
    const ProtobufCEnumDescriptor *states, const unsigned *count, unsigned n)
{
    char text[64];

    metrics_head(f, name, "gauge", help);
    for (unsigned i = 0; i < n; i++) {
        pbjson_enum(states, (int)i, text, sizeof text);
        fputs(name, f);
        metrics_label(f, "{", "state", text);
        fprintf(f, "} %u\n", count[i]);
    }
}

#define NODE_STATES (MIGRD__HA_NODE_STATE__NODE_FENCED + 1)
#define DOMAIN_STATES (MIGRD__HA_DOMAIN_STATE__DOMAIN_CLEANING + 1)

static void states(FILE *f, const Migrd__HaState *s)
{
    unsigned node[NODE_STATES] = { 0 }, domain[DOMAIN_STATES] = { 0 }, blocked = 0;

    for (size_t i = 0; i < s->n_node; i++)
        if (s->node[i]->state < NODE_STATES)
            node[s->node[i]->state]++;
    for (size_t i = 0; i < s->n_domain; i++) {
        blocked += s->domain[i]->blocked != 0;
        if (s->domain[i]->state < DOMAIN_STATES)
            domain[s->domain[i]->state]++;
    }
    by_state(f, "migrd_ha_nodes", "Nodes of the cluster by state.",
        &migrd__ha_node_state__descriptor, node, NODE_STATES);
    by_state(f, "migrd_ha_domains", "Protected domains by state.",
        &migrd__ha_domain_state__descriptor, domain, DOMAIN_STATES);
    metrics_gauge(f, "migrd_ha_domains_blocked",
        "Protected domains that could not be stopped and wait for a person.", blocked);
}

static void counter(FILE *f, const char *name, const char *help, uint64_t value)
{
    metrics_head(f, name, "counter", help);
    fprintf(f, "%s %llu\n", name, (unsigned long long)value);
}

static void figures(FILE *f, const Migrd__HaFigures *x)
{
    metrics_gauge(f, "migrd_ha_corosync_up", "1: corosync answers on this host.", x->ring_up);
    metrics_gauge(f, "migrd_ha_quorate", "1: corosync says that there is quorum.", x->quorate);
    counter(f, "migrd_ha_beats_received_total", "Beats of other nodes.", x->beats_in);
    counter(f, "migrd_ha_beats_sent_total", "Beats to other nodes.", x->beats_out);
    counter(f, "migrd_ha_beats_bad_total", "Beats that were dropped.", x->beats_bad);
    counter(
        f, "migrd_ha_messages_received_total", "Ordered messages, own ones too.", x->messages_in);
    counter(f, "migrd_ha_messages_sent_total", "Ordered messages of this host.", x->messages_out);
    metrics_gauge(f, "migrd_ha_persist_seconds", "The last synced write of the log.",
        (double)x->persist_last_us / 1e6);
    metrics_gauge(
        f, "migrd_ha_persist_max_seconds", "The longest one.", (double)x->persist_max_us / 1e6);
    metrics_gauge(f, "migrd_ha_late_max_seconds", "The latest step after its time.",
        (double)x->late_max_ms / 1e3);
    counter(f, "migrd_ha_failovers_total", "Domains started here that ran elsewhere before.",
        x->failovers);
    metrics_gauge(f, "migrd_ha_watchdog", "1: the hardware watchdog is open and fed.", x->watchdog);
}

static void own(FILE *f, const Migrd__HaOverview *o)
{
    const Migrd__HaLocal *l = o->state->local;
    uint64_t left = l->lease_until > o->now ? l->lease_until - o->now : 0;

    if (l->lease_until != UINT64_MAX)
        metrics_gauge(f, "migrd_ha_lease_seconds",
            "What is left of this host's lease; its protected guests pause at 0.",
            (double)left / 1e3);
    metrics_gauge(f, "migrd_ha_members", "Nodes in this host's view.", (double)l->n_members);
    metrics_gauge(f, "migrd_ha_deciding", "1: the log decides here.", o->undecided[0] == '\0');
    metrics_gauge(
        f, "migrd_ha_armed", "1: armed.", o->state->armed == MIGRD__HA_ARMED__ARMED ? 1 : 0);
    metrics_gauge(f, "migrd_ha_term", "Term of the log.", (double)o->state->term);
    metrics_gauge(f, "migrd_ha_index", "Newest entry of the log.", (double)o->state->index);
}

static void certificate(FILE *f, const Migrd__HaOverview *o)
{
    metrics_gauge(f, "migrd_ha_survives",
        "Any so many nodes can be lost (2 is the most that is tried).", o->survives);
    if (o->certificate != NULL)
        metrics_gauge(f, "migrd_ha_without_place",
            "Domains without a place if one node more than that were lost, in the worst case.",
            o->certificate->lost);
}

void metrics_ha(FILE *f, struct migrd *m)
{
    Migrd__HaOverview *o = ha_overview(m);

    if (o == NULL)
        return;
    states(f, o->state);
    if (o->state->local != NULL)
        own(f, o);
    figures(f, o->figures);
    certificate(f, o);
    migrd__ha_overview__free_unpacked(o, NULL);
}
