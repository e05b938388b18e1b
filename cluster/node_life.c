/* SPDX-License-Identifier: ISC */
/*
 * The beginning of a core: the first one when corosync has told who the nodes are, another one
 * where the nodes have changed and the log is disarmed, or where one has died. Each has an
 * incarnation that no core of this node had before: the larger of wall time and what the file
 * `incarnation` has, made different for each start also where the clock was set back and the disk
 * is new.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "cluster/node_internal.h"

#define REVIVE_MS 10000
#define SHADOW_NODE UINT32_MAX

/* --- identity --- */

static int read_boot_id(struct cluster *c, struct err *e)
{
    char *text = io_read_file("/proc/sys/kernel/random/boot_id", 64, NULL, e);

    if (text == NULL)
        return -1;
    text[strcspn(text, "\n")] = '\0';
    snprintf(c->boot_id, sizeof c->boot_id, "%.36s", text);
    free(text);
    return 0;
}

static uint64_t read_counter(const char *path)
{
    struct err e;
    char *text = io_read_file(path, 64, NULL, &e);
    uint64_t n = text != NULL ? strtoull(text, NULL, 10) : 0;

    free(text);
    return n > UINT64_MAX / 2 ? 0 : n;
}

/* A disk that can't be written is no reason to leave guests alone: time makes it new as well. */
int node_identity(struct cluster *c, struct err *e)
{
    char path[NODE_PATH_LEN + 16], text[80];
    uint64_t counter, seed[2] = { (uint64_t)getpid(), clock_ns() };
    struct err why;
    int n;

    if (read_boot_id(c, e) < 0)
        return -1;
    snprintf(path, sizeof path, "%s/incarnation", c->dir);
    counter = read_counter(path);
    c->incarnation = clock_wall_ns() / NS_PER_MS << 20;
    c->incarnation |= (XXH3_64bits(c->boot_id, 36) ^ XXH3_64bits(seed, sizeof seed)) & 0xfff00;
    if (c->incarnation < counter + LIVES_MAX)
        c->incarnation = counter + LIVES_MAX;
    n = snprintf(text, sizeof text, "%" PRIu64 "\n", c->incarnation);
    if (io_replace_file(path, text, (size_t)n, 0600, &why) < 0)
        log_warn("ha", "%s; this start is told from others by its time alone", why.text);
    return 0;
}

/* --- a core that only reads --- */

int node_make_shadow(struct cluster *c, struct err *e)
{
    struct ha_config config = { .node = SHADOW_NODE, .incarnation = 1, .nodes = { SHADOW_NODE } };
    const struct ha_record *saved;
    size_t n;

    config.n_nodes = 1;
    ha_times_derive(&config.times, 1000, 0);
    saved = store_records(c->store, &n);
    if (saved == NULL)
        return err_set(e, ERR_MEMORY, "no memory for the cluster's saved state");
    c->shadow = ha_core_new(&config, saved, n, clock_boot_ms(), e);
    if (c->shadow == NULL)
        return err_prefix(e, "%s/log", c->dir);
    snprintf(c->why, sizeof c->why, "corosync has not answered yet");
    return 0;
}

/* --- a core --- */

static void no_core(struct cluster *c, const char *why)
{
    if (strcmp(c->why, why) == 0)
        return;
    snprintf(c->why, sizeof c->why, "%s", why);
    node_note(c, true, "this host takes no part in the cluster: %s", why);
}

static int make_config(struct cluster *c, struct ha_config *config, struct err *e)
{
    *config = (struct ha_config){ .node = c->nodes.own,
        .incarnation = c->incarnation + c->lives,
        .n_nodes = c->nodes.n,
        .starts_at_once = c->starts_at_once,
        .moves_at_once = c->moves_at_once };
    snprintf(config->name, sizeof config->name, "%s", c->host_name);
    snprintf(config->boot_id, sizeof config->boot_id, "%s", c->boot_id);
    for (unsigned i = 0; i < c->nodes.n; i++)
        config->nodes[i] = c->nodes.node[i].id;
    ha_times_derive(&config->times, c->nodes.token, c->watchdog_ms);
    if (c->lives >= LIVES_MAX)
        return err_set(e, ERR_RESOURCE, "its core began %u times; restart migrd", LIVES_MAX);
    if (node_list_find(&c->nodes, c->nodes.own) == NULL)
        return err_set(e, ERR_INVALID,
            "corosync's nodelist does not have this node (id %u); "
            "correct corosync.conf",
            c->nodes.own);
    return ha_times_check(&config->times, e);
}

static void open_flight(struct cluster *c, const struct ha_record *saved, size_t n, uint64_t now)
{
    char before[NODE_PATH_LEN + 4];
    struct err e;

    flight_close(&c->flight);
    if (c->flight_limit == 0)
        return;
    snprintf(before, sizeof before, "%s.1", c->flight_path);
    if (rename(c->flight_path, before) < 0 && errno != ENOENT)
        node_note(c, false, "%s can't be kept: %s", c->flight_path, strerror(errno));
    c->flight = flight_open(c->flight_path, c->flight_limit, &c->config, saved, n, now, &e);
    if (c->flight == NULL)
        node_note(c, false, "%s; the cluster's decisions are not recorded", e.text);
}

/* A node is told what it has to start from: copies, capacity, who is there. */
static void tell_core(struct cluster *c)
{
    for (size_t i = 0; i < c->n_domains; i++)
        node_wait_feed(c, &c->domains[i]);
    if (c->has_capacity)
        node_wait_feed(c, &c->capacity);
    if (c->view.type == HA_EV_VIEW && c->view.u.view.n > 0)
        node_wait_feed(c, &c->view);
    node_wait_feed(c, &(struct ha_event){ .type = HA_EV_QUORUM, .u.quorate = c->quorate });
}

static void say_start(struct cluster *c)
{
    node_note(c, false, "node %u of %u in cluster %s, corosync's token is %u ms", c->config.node,
        c->config.n_nodes, c->nodes.cluster, c->nodes.token);
}

void node_look_at_times(struct cluster *c)
{
    const struct ha_times *now = ha_core_times(c->core);
    char text[400];

    if (memcmp(&c->times, now, sizeof *now) == 0)
        return;
    c->times = *now;
    ha_times_print(&c->times, text, sizeof text);
    node_note(c, false, "timers: %s", text);
}

static void drop_core(struct cluster *c)
{
    node_forget_waiting(c);
    node_ask_forget(c, false);
    node_read_free(c);
    ha_core_free(&c->core);
    ha_core_free(&c->shadow);
    c->id_base = c->id_newest;
    c->revive_at = 0;
    c->wake = 0;
}

static int join_ring(struct cluster *c, struct err *e)
{
    static const struct corosync_callbacks cb = { node_on_view, node_on_quorum, node_on_message };

    if (c->ring != NULL)
        return 0;
    return corosync_open(c->loop, CLUSTER_GROUP, &cb, c, &c->ring, e);
}

static void make_core(struct cluster *c)
{
    const struct ha_record *saved;
    struct ha_config config;
    uint64_t now = clock_boot_ms();
    struct ha_core *core;
    struct err e;
    size_t n;

    if (make_config(c, &config, &e) < 0 || join_ring(c, &e) < 0) {
        no_core(c, e.text);
        return;
    }
    saved = store_records(c->store, &n);
    core = saved != NULL ? ha_core_new(&config, saved, n, now, &e) : NULL;
    if (core == NULL) {
        no_core(c, saved != NULL ? e.text : "no memory for its saved state");
        return;
    }
    drop_core(c);
    c->core = core;
    c->config = config;
    c->lives++;
    c->why[0] = '\0';
    ha_core_place(core, &c->place);
    say_start(c);
    node_look_at_times(c);
    open_flight(c, saved, n, now);
    tell_core(c);
}

/* --- when --- */

static bool same_nodes(const struct cluster *c)
{
    if (c->nodes.n != c->config.n_nodes || c->nodes.own != c->config.node)
        return false;
    for (unsigned i = 0; i < c->nodes.n; i++)
        if (c->nodes.node[i].id != c->config.nodes[i])
            return false;
    return true;
}

static void other_nodes(struct cluster *c, uint64_t now)
{
    if (c->place.armed == MIGRD__HA_ARMED__DISARMED) {
        if (now < c->revive_at)
            return;
        c->revive_at = now + REVIVE_MS;
        node_note(c, false,
            "corosync has other nodes now, %u instead of %u, and the cluster is disarmed: this "
            "node begins anew with them; when all nodes have, arm it (migctl ha arm)",
            c->nodes.n, c->config.n_nodes);
        c->nodes_wait = false;
        make_core(c);
    } else if (!c->nodes_wait) {
        c->nodes_wait = true;
        node_note(c, true,
            "corosync has other nodes now, %u instead of %u: high availability goes on with those "
            "of before until it is disarmed: migctl ha disarm, then migctl ha arm when each node "
            "has begun anew",
            c->nodes.n, c->config.n_nodes);
    }
}

static void look_at_token(struct cluster *c)
{
    if (c->nodes.token == c->config.times.token || c->nodes.token == c->token_said)
        return;
    c->token_said = c->nodes.token;
    node_note(c, true,
        "corosync's token is %u ms now, was %u: times of high availability stay as they are until "
        "migrd is restarted, which must be done on all nodes: migctl ha disarm, restart each "
        "migrd, "
        "migctl ha arm",
        c->nodes.token, c->config.times.token);
}

/* Fuses burn down by themselves meanwhile; the host need not be reset for it. */
static void look_at_death(struct cluster *c, uint64_t now)
{
    if (c->revive_at == 0) {
        c->revive_at = now + REVIVE_MS;
        node_note(c, true,
            "the decision core has stopped, for lack of memory or because of a state that can't "
            "be; another one begins in %u s",
            REVIVE_MS / 1000);
    } else if (now >= c->revive_at) {
        c->revive_at = now + REVIVE_MS;
        make_core(c);
    }
    if (c->watchdog != NULL)
        node_watchdog(c, now + c->watchdog_ms);
}

void node_consider(struct cluster *c)
{
    uint64_t now = clock_boot_ms();

    if (c->stopped || c->stepping || c->nodes.n == 0)
        return;
    if (c->core == NULL) {
        if (now < c->revive_at)
            return;
        c->revive_at = now + REVIVE_MS;
        make_core(c);
    } else if (c->place.dead) {
        look_at_death(c, now);
    } else if (!same_nodes(c)) {
        other_nodes(c, now);
    } else {
        look_at_token(c);
    }
}
