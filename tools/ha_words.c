/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "tools/ha_words.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

Migrd__Reply *tool_ha(struct tool *t)
{
    Migrd__GetHa get = MIGRD__GET_HA__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    Migrd__Reply *r;

    CLIENT_BODY(rq, GET_HA, get_ha, &get);
    r = tool_call(t, &rq, TOOL_SHORT_MS);
    if (r != NULL && (r->ha == NULL || r->ha->state == NULL || r->ha->state->local == NULL ||
                         r->ha->times == NULL || r->ha->figures == NULL)) {
        tool_error("migrd's answer says nothing of the cluster; is the tool newer?");
        tool_free(&r);
    }
    return r;
}

/* --- nodes and domains --- */

static const char *name_of(const Migrd__HaOverview *o, uint32_t id)
{
    for (size_t i = 0; i < o->n_places; i++)
        if (o->places[i]->node == id && o->places[i]->name[0] != '\0')
            return o->places[i]->name;
    for (size_t i = 0; i < o->state->n_node; i++)
        if (o->state->node[i]->id == id && o->state->node[i]->name[0] != '\0')
            return o->state->node[i]->name;
    return NULL;
}

char *ha_node_name(char out[HA_WORD_LEN], const Migrd__HaOverview *o, uint32_t id)
{
    const char *name = name_of(o, id);

    if (id == 0)
        snprintf(out, HA_WORD_LEN, "-");
    else if (name != NULL)
        snprintf(out, HA_WORD_LEN, "%s", name);
    else
        snprintf(out, HA_WORD_LEN, "node %u", id);
    return out;
}

const Migrd__HaNode *ha_node(const Migrd__HaOverview *o, uint32_t id)
{
    for (size_t i = 0; i < o->state->n_node; i++)
        if (o->state->node[i]->id == id)
            return o->state->node[i];
    return NULL;
}

uint32_t ha_node_id(const Migrd__HaOverview *o, const char *which)
{
    char *end;
    unsigned long id;

    for (size_t i = 0; i < o->state->n_nodes; i++) {
        const char *name = name_of(o, o->state->nodes[i]);

        if (name != NULL && strcmp(name, which) == 0)
            return o->state->nodes[i];
    }
    id = strtoul(which, &end, 10);
    for (size_t i = 0; *end == '\0' && i < o->state->n_nodes; i++)
        if (o->state->nodes[i] == id)
            return (uint32_t)id;
    return 0;
}

const Migrd__HaDomain *ha_domain(const Migrd__HaOverview *o, const char *which)
{
    for (size_t i = 0; i < o->state->n_domain; i++)
        if (strcmp(o->state->domain[i]->uuid, which) == 0 ||
            strcmp(o->state->domain[i]->name, which) == 0)
            return o->state->domain[i];
    return NULL;
}

bool ha_is_configured(const Migrd__HaOverview *o, uint32_t id)
{
    for (size_t i = 0; i < o->state->n_nodes; i++)
        if (o->state->nodes[i] == id)
            return true;
    return false;
}

bool ha_is_member(const Migrd__HaOverview *o, uint32_t id)
{
    const Migrd__HaLocal *l = o->state->local;

    for (size_t i = 0; i < l->n_members; i++)
        if (l->members[i] == id)
            return true;
    return false;
}

unsigned ha_members(const Migrd__HaOverview *o)
{
    unsigned n = 0;

    for (size_t i = 0; i < o->state->n_nodes; i++)
        n += ha_is_member(o, o->state->nodes[i]);
    return n;
}

bool ha_is_at(const Migrd__HaDomain *d, uint32_t node)
{
    return d->owner == node && d->state != MIGRD__HA_DOMAIN_STATE__DOMAIN_STOPPED &&
           d->state != MIGRD__HA_DOMAIN_STATE__DOMAIN_WAITING;
}

/* --- states --- */

static const char *word(const char *const *names, size_t n, int i)
{
    return i >= 0 && (size_t)i < n ? names[i] : "unknown";
}
#define WORD(names, i) word(names, sizeof(names) / sizeof((names)[0]), (int)(i))

const char *ha_node_state_text(const Migrd__HaNode *n)
{
    static const char *const names[] = { "never seen", "online", "AWAY", "DOWN (lease over)",
        "DOWN (fenced)" };

    if (n == NULL)
        return names[0];
    if (n->state == MIGRD__HA_NODE_STATE__NODE_ONLINE && n->drain)
        return "online, drained";
    return WORD(names, n->state);
}

const char *ha_domain_state_text(const Migrd__HaDomain *d)
{
    static const char *const names[] = { "stopped", "WAITING", "starting", "running", "migrating",
        "handed over", "returned", "stopping", "cleaning up" };

    if (d->blocked)
        return "BLOCKED";
    return WORD(names, d->state);
}

const char *ha_proof_text(Migrd__HaProof p)
{
    static const char *const names[] = { "none needed", "lease", "its host's word", "power-off",
        "storage fence", "an operator's word" };

    return WORD(names, p);
}

/* --- texts --- */

char *ha_say(char *out, size_t size, const Migrd__HaOverview *o, const char *text)
{
    size_t n = 0;

    out[0] = '\0';
    while (*text != '\0' && n + 1 < size) {
        const char *name = NULL;
        char *end = NULL;

        if (strncmp(text, "node ", 5) == 0 && isdigit((unsigned char)text[5]))
            name = name_of(o, (uint32_t)strtoul(text + 5, &end, 10));
        if (name != NULL) {
            n += (size_t)snprintf(out + n, size - n, "%s", name);
            text = end;
        } else {
            out[n++] = *text++;
            out[n] = '\0';
        }
    }
    return out;
}

char *ha_age(char out[HA_WORD_LEN], uint64_t ms)
{
    unsigned long long s = ms / 1000;

    if (s < 120)
        snprintf(out, HA_WORD_LEN, "%llu s", s);
    else if (s < 120 * 60)
        snprintf(out, HA_WORD_LEN, "%llu min", s / 60);
    else if (s < 48 * 3600)
        snprintf(out, HA_WORD_LEN, "%llu h", s / 3600);
    else
        snprintf(out, HA_WORD_LEN, "%llu days", s / 86400);
    return out;
}

char *ha_since(char out[HA_WORD_LEN], const Migrd__HaOverview *o, uint64_t log_time)
{
    return ha_age(out, o->log_now > log_time ? o->log_now - log_time : 0);
}
