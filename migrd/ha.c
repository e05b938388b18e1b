/* SPDX-License-Identifier: ISC */
/*
 * Opening, the loop's rounds, and the questions that others ask.
 *
 * A change here (ha_soon) or in the log is looked at once in the loop's next round: tasks go on,
 * copies are told, operators are answered, people hear of it. Nothing acts from within a callback
 * of the node: it may be in the middle of a list of actions.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "migrd/ha_internal.h"
#include "migrd/ha_overview.h"
#include "migrd/registry_internal.h"

/* --- rows --- */

struct ha_row *ha_row(struct ha *h, const char *uuid, bool make)
{
    struct ha_row *row;

    for (row = h->rows; row != NULL; row = row->next)
        if (strcmp(row->uuid, uuid) == 0)
            return row;
    row = make ? calloc(1, sizeof *row) : NULL;
    if (row == NULL)
        return NULL;
    snprintf(row->uuid, sizeof row->uuid, "%s", uuid);
    row->next = h->rows;
    h->rows = row;
    return row;
}

const char *ha_node_text(const struct ha *h, uint32_t id)
{
    const char *name = cluster_node_name(h->cluster, id);

    return name[0] != '\0' ? name : "unknown";
}

/* --- rounds --- */

static void round_now(struct ha *h, bool all);

static void tick_due(uv_timer_t *t)
{
    round_now(t->data, false);
}

static void scan_due(uv_timer_t *t)
{
    round_now(t->data, true);
}

static void soon_due(uv_idle_t *i)
{
    struct ha *h = i->data;

    uv_idle_stop(i);
    round_now(h, true);
}

void ha_soon(struct ha *h)
{
    if (!h->stopping)
        uv_idle_start(&h->soon, soon_due);
}

/* Ends that waited for whoever decides about them. */
static void run_policies(struct migrd *m)
{
    for (struct domain *d = registry_first(m->registry), *next; d != NULL; d = next) {
        next = d->next;
        registry_policy(m, d);
    }
}

/* What waited for the log to be known. */
static void catch_up(struct ha *h)
{
    bool final = false;

    if (h->caught_up)
        return;
    cluster_is_protected(h->cluster, "", &final);
    if (!final)
        return;
    h->caught_up = true;
    log_info("ha", "the cluster's log is known here");
    run_policies(h->m);
    registry_autostart_boot(h->m);
}

static void round_now(struct ha *h, bool all)
{
    bool waits;

    if (h->stopping)
        return;
    catch_up(h);
    waits = ha_do_more(h);
    if (h->log_changed) {
        h->log_changed = false;
        ha_overview_changed(h->m);
        ha_note_owners(h);
    }
    if (all) {
        ha_tell(h);
        ha_tell_host(h);
    }
    waits |= ha_wishes_more(h);
    if (waits && !uv_is_active((uv_handle_t *)&h->tick))
        uv_timer_start(&h->tick, tick_due, HA_TICK_MS, HA_TICK_MS);
    else if (!waits)
        uv_timer_stop(&h->tick);
}

/* --- the node's callbacks --- */

static void on_note(void *arg, bool alarm, const char *text)
{
    struct ha *h = arg;

    if (!alarm) {
        log_info("ha", "%s", text);
        return;
    }
    log_error("ha", "%s", text);
    ha_overview_alarm(h->m, text);
}

static void on_changed(void *arg)
{
    struct ha *h = arg;

    h->log_changed = true;
    ha_soon(h);
}

/* --- open and close --- */

static void open_handles(struct ha *h)
{
    uv_loop_t *loop = h->m->loop;

    uv_timer_init(loop, &h->tick);
    uv_timer_init(loop, &h->scan);
    uv_idle_init(loop, &h->soon);
    h->tick.data = h->scan.data = h->soon.data = h;
    uv_timer_start(&h->scan, scan_due, HA_SCAN_MS, HA_SCAN_MS);
}

static int open_cluster(struct ha *h, struct err *e)
{
    static const struct cluster_host host = { ha_do_fuse, ha_do_act, on_note, on_changed };
    struct migrd *m = h->m;
    const struct config *c = &m->config;
    char fence[PATHS_LEN + 32];
    const struct cluster_options o = { .host_name = m->host_name,
        .state_dir = m->paths.state,
        .key_file = c->cluster_key,
        .fence_file = fence,
        .watchdog = c->cluster_watchdog,
        .watchdog_ms = c->cluster_watchdog_ms,
        .beat_port = c->cluster_beat_port,
        .starts_at_once = c->cluster_starts_at_once,
        .moves_at_once =
            c->cluster_moves_at_once < c->max_outgoing ? c->cluster_moves_at_once : c->max_outgoing,
        .flight_limit = c->cluster_flight_record };

    config_fence(c, m->paths.etc, fence, sizeof fence);
    return cluster_open(m->loop, &o, &host, h, &h->cluster, e);
}

int ha_open(struct migrd *m, struct err *e)
{
    struct ha *h;

    if (!m->config.cluster)
        return 0;
    h = calloc(1, sizeof *h);
    if (h == NULL)
        return err_set(e, ERR_MEMORY, "cluster: out of memory");
    h->m = m;
    h->memory_kib = UINT64_MAX; /* not told yet; a host may have none to give */
    m->ha = h;
    open_handles(h);
    if (open_cluster(h, e) < 0)
        return err_prefix(e, "cluster"); /* ha_stop and ha_close see to the rest */
    ha_tell(h);
    ha_tell_host(h);
    return 0;
}

void ha_stop(struct migrd *m)
{
    struct ha *h = m->ha;

    if (h == NULL || h->stopping)
        return;
    ha_wishes_stop(h);
    h->stopping = true;
    uv_close((uv_handle_t *)&h->tick, NULL);
    uv_close((uv_handle_t *)&h->scan, NULL);
    uv_close((uv_handle_t *)&h->soon, NULL);
    if (h->cluster != NULL)
        cluster_stop(h->cluster);
}

void ha_close(struct migrd *m)
{
    struct ha *h = m->ha;

    if (h == NULL)
        return;
    if (h->cluster != NULL)
        cluster_close(&h->cluster);
    ha_do_close(h);
    ha_wishes_free(h);
    while (h->rows != NULL) {
        struct ha_row *row = h->rows;

        h->rows = row->next;
        free(row);
    }
    ha_overview_close(m);
    free(h);
    m->ha = NULL;
}

/* --- questions --- */

struct cluster *ha_cluster(const struct migrd *m)
{
    return m->ha != NULL ? m->ha->cluster : NULL;
}

/* Once it was known here, a loss of the ring makes nobody unsure: what runs here unprotected can't
 * have been added elsewhere. */
bool ha_protected(const struct migrd *m, const char *uuid, bool *unsure)
{
    struct cluster *c = ha_cluster(m);
    bool is = c != NULL && cluster_is_protected(c, uuid, NULL);

    if (unsure != NULL)
        *unsure = !is && ha_waits(m);
    return is;
}

bool ha_decides(const struct migrd *m, const char *uuid)
{
    bool unsure;

    return ha_protected(m, uuid, &unsure) || unsure;
}

bool ha_waits(const struct migrd *m)
{
    return m->config.cluster && (m->ha == NULL || !m->ha->caught_up);
}

int ha_refuses(
    const struct migrd *m, const char *uuid, const char *name, const char *what, struct err *e)
{
    bool unsure;

    if (m->ha == NULL || (!ha_protected(m, uuid, &unsure) && !unsure))
        return 0;
    if (unsure)
        return err_set(e, ERR_STATE,
            "domain %s: whether the cluster protects it is not known here yet: %s it when this "
            "host "
            "has joined (migctl cluster status)",
            name, what);
    return err_set(e, ERR_STATE,
        "domain %s is protected by the cluster, which would start it again: to %s it, first migctl "
        "ha remove %s",
        name, what, name);
}

static const Migrd__HaDomain *find(struct cluster *c, const char *which)
{
    const Migrd__HaState *s = cluster_state(c);

    for (size_t i = 0; s != NULL && i < s->n_domain; i++)
        if (strcmp(s->domain[i]->uuid, which) == 0 || strcmp(s->domain[i]->name, which) == 0)
            return s->domain[i];
    return NULL;
}

bool ha_elsewhere(const struct migrd *m, const char *which, char *text, size_t size)
{
    struct cluster *c = ha_cluster(m);
    const Migrd__HaDomain *d = c != NULL ? find(c, which) : NULL;

    if (d == NULL || d->state != MIGRD__HA_DOMAIN_STATE__DOMAIN_RUNNING ||
        d->owner == cluster_own_id(c))
        return false;
    snprintf(text, size, "domain %s runs on host %s", d->name, ha_node_text(m->ha, d->owner));
    return true;
}

void ha_domain_changed(struct migrd *m, const struct domain *d)
{
    (void)d;
    if (m->ha != NULL)
        ha_soon(m->ha);
}

void ha_domain_starts(struct migrd *m, const struct domain *d)
{
    if (m->ha != NULL && m->ha->cluster != NULL && !m->ha->stopping)
        ha_tell_one(m->ha, d);
}

bool ha_begins_blown(const struct migrd *m, const char *uuid)
{
    return ha_protected(m, uuid, NULL);
}

void ha_made(struct migrd *m, const char *uuid)
{
    struct ha_row *row = m->ha != NULL ? ha_row(m->ha, uuid, false) : NULL;

    if (row != NULL && row->fuse_epoch != 0)
        ha_do_fuse(m->ha, uuid, row->fuse_epoch, row->fuse_deadline);
}

int ha_ask(struct migrd *m, const Migrd__HaCommand *command, unsigned within_ms,
    cluster_answer *done, void *arg, struct err *e)
{
    if (m->ha == NULL)
        return err_set(e, ERR_STATE, "this host is not in a cluster: cluster = no");
    return cluster_ask(m->ha->cluster, command, within_ms, done, arg, e);
}
