/* SPDX-License-Identifier: ISC */
/*
 * One job at a time goes to the thread and back; between two jobs the loop watches the handle's
 * descriptor, which becomes readable when a tracked key changes or corosync ends.
 *
 *   job: connect if there is no handle; take what was reported; read all keys; look up names
 *     failed       the handle is closed; next job after 100 ms, doubled up to 1 s
 *     reloading    corosync changes its configuration just now: next job after 100 ms
 *     read         readable: next job 100 ms later, so that one change is one job
 *                  names that are not known: next job after 30 s
 */
#include "cluster/nodelist.h"

#include <corosync/cmap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cluster/blocking.h"
#include "cluster/nodelist_parse.h"
#include "cluster/ring_error.h"

#define PAUSE_MS 100
#define PAUSE_MAX_MS 1000
#define NAMES_MS 30000
#define SILENT_MS 2000 /* a job that takes longer: corosync hangs */

struct read_job {
    struct blocking_job job;
    struct nodelist *owner;
    cmap_handle_t handle;
    bool connected, reloading, failed;
    struct nodelist_raw raw;
    struct node_list list;
    struct err err;
};

struct nodelist {
    uv_loop_t *loop;
    uv_timer_t timer;
    uv_poll_t *poll; /* of its own memory: closes later than we open the next */
    struct blocking *side;
    struct read_job *job; /* NULL: in the thread */
    uint64_t job_since;
    nodelist_changed *changed;
    void *arg;
    unsigned pause;
    bool have, stopped;
    struct node_list list;
    char text[sizeof((struct err *)0)->text];
    char silent[100];
};

/* --- in the thread --- */

/* What was reported is read again anyway. */
static void on_key(cmap_handle_t h, cmap_track_handle_t t, int32_t event, const char *key,
    struct cmap_notify_value now, struct cmap_notify_value before, void *arg)
{
    (void)h, (void)t, (void)event, (void)key, (void)now, (void)before, (void)arg;
}

static int track(cmap_handle_t h, const char *key, bool prefix)
{
    cmap_track_handle_t t;

    return cmap_track_add(h, key,
        CMAP_TRACK_ADD | CMAP_TRACK_DELETE | CMAP_TRACK_MODIFY | (prefix ? CMAP_TRACK_PREFIX : 0),
        on_key, NULL, &t);
}

static int connect_cmap(struct read_job *j)
{
    cs_error_t r = cmap_initialize(&j->handle);

    if (r != CS_OK)
        return ring_error(&j->err, r, "cmap");
    j->connected = true;
    if ((r = track(j->handle, "nodelist.", true)) != CS_OK ||
        (r = track(j->handle, "config.reload_in_progress", false)) != CS_OK ||
        (r = track(j->handle, "runtime.config.totem.token", false)) != CS_OK)
        return ring_error(&j->err, r, "cmap's changes");
    return 0;
}

/* Keys that are no numbers or short texts are not ours. */
static void read_key(struct read_job *j, const char *key, cmap_value_types_t type, size_t len)
{
    uint64_t number;
    uint32_t u32;
    char *text;

    if (type == CMAP_VALUETYPE_UINT32 && cmap_get_uint32(j->handle, key, &u32) == CS_OK) {
        number = u32;
        nodelist_key(&j->raw, key, &number, NULL);
    } else if (type == CMAP_VALUETYPE_STRING && len <= 65536 &&
               cmap_get_string(j->handle, key, &text) == CS_OK) {
        nodelist_key(&j->raw, key, NULL, text);
        free(text);
    }
}

static int read_nodes(struct read_job *j)
{
    char key[CMAP_KEYNAME_MAXLEN + 1];
    cmap_iter_handle_t it;
    cmap_value_types_t type;
    size_t len;
    cs_error_t r = cmap_iter_init(j->handle, "nodelist.node.", &it);

    if (r != CS_OK)
        return ring_error(&j->err, r, "cmap");
    while ((r = cmap_iter_next(j->handle, it, key, &len, &type)) == CS_OK)
        read_key(j, key, type, len);
    cmap_iter_finalize(j->handle, it);
    return r == CS_ERR_NO_SECTIONS ? 0 : ring_error(&j->err, r, "cmap");
}

/* "" where there is none. */
static void read_text(struct read_job *j, const char *key, char *to, size_t size)
{
    char *text = NULL;

    *to = '\0';
    if (cmap_get_string(j->handle, key, &text) != CS_OK)
        return;
    snprintf(to, size, "%s", text);
    free(text);
}

static bool reload_under_way(struct read_job *j)
{
    uint8_t busy = 0;

    return cmap_get_uint8(j->handle, "config.reload_in_progress", &busy) == CS_OK && busy != 0;
}

static int read_all(struct read_job *j)
{
    uint32_t number;

    memset(&j->raw, 0, sizeof j->raw);
    if (read_nodes(j) < 0)
        return -1;
    if (cmap_get_uint32(j->handle, "runtime.config.totem.token", &number) == CS_OK)
        j->raw.token = number;
    if (cmap_get_uint32(j->handle, "nodelist.local_node_pos", &number) == CS_OK) {
        j->raw.has_own = true;
        j->raw.own_position = number;
    }
    read_text(j, "totem.cluster_name", j->raw.cluster, sizeof j->raw.cluster);
    read_text(j, "totem.ip_version", j->raw.ip_version, sizeof j->raw.ip_version);
    j->reloading = reload_under_way(j);
    return 0;
}

static int take_reports(struct read_job *j)
{
    cs_error_t r = cmap_dispatch(j->handle, CS_DISPATCH_ALL);

    return r == CS_OK || r == CS_ERR_TRY_AGAIN ? 0 : ring_error(&j->err, r, "cmap");
}

static void disconnect(struct read_job *j)
{
    if (j->connected)
        cmap_finalize(j->handle);
    j->connected = false;
}

static void work(struct blocking_job *b)
{
    struct read_job *j = (struct read_job *)b;

    j->failed = true;
    j->reloading = false;
    err_clear(&j->err);
    if ((j->connected ? take_reports(j) : connect_cmap(j)) < 0 || read_all(j) < 0) {
        disconnect(j);
        return;
    }
    if (j->reloading || nodelist_make(&j->raw, &j->list, &j->err) < 0)
        return;
    for (unsigned i = 0; i < j->list.n; i++)
        nodelist_look_up(&j->list.node[i], j->raw.ip_version);
    j->failed = false;
}

static void drop(struct blocking_job *b)
{
    disconnect((struct read_job *)b);
    free(b);
}

/* --- in the loop --- */

static void on_poll_closed(uv_handle_t *h)
{
    free(h);
}

static void unwatch(struct nodelist *l)
{
    if (l->poll)
        uv_close((uv_handle_t *)l->poll, on_poll_closed);
    l->poll = NULL;
}

static void run(struct nodelist *l)
{
    struct read_job *j = l->job;

    unwatch(l);
    uv_timer_stop(&l->timer);
    l->job = NULL;
    l->job_since = uv_now(l->loop);
    blocking_run(l->side, &j->job);
}

static void on_timer(uv_timer_t *t)
{
    run(t->data);
}

static void run_later(struct nodelist *l, unsigned ms)
{
    uv_timer_start(&l->timer, on_timer, ms, 0);
}

static void on_readable(uv_poll_t *p, int status, int events)
{
    struct nodelist *l = p->data;

    (void)status, (void)events;
    unwatch(l);
    run_later(l, PAUSE_MS);
}

static int watch(struct nodelist *l, cmap_handle_t handle)
{
    int fd;

    if (cmap_fd_get(handle, &fd) != CS_OK || (l->poll = calloc(1, sizeof *l->poll)) == NULL)
        return -1;
    if (uv_poll_init(l->loop, l->poll, fd) != 0) {
        free(l->poll);
        l->poll = NULL;
        return -1;
    }
    l->poll->data = l;
    return uv_poll_start(l->poll, UV_READABLE, on_readable) == 0 ? 0 : -1;
}

static void say(struct nodelist *l, const char *text)
{
    if (strcmp(text, l->text) == 0)
        return;
    snprintf(l->text, sizeof l->text, "%s", text);
    if (*text)
        log_warn("nodelist", "%s", text);
}

static bool names_known(const struct node_list *list, char *unknown, size_t size)
{
    for (unsigned i = 0; i < list->n; i++)
        if (list->node[i].socket_len == 0) {
            snprintf(unknown, size,
                "the address %s of node %u is not known here: enter it in /etc/hosts, or write a "
                "number in corosync.conf",
                list->node[i].address, list->node[i].id);
            return false;
        }
    return true;
}

/* A name that was known and is not just now keeps its address. */
static void keep_addresses(const struct node_list *old, struct node_list *list)
{
    for (unsigned i = 0; i < list->n; i++) {
        struct node_entry *n = &list->node[i];
        const struct node_entry *o = node_list_find(old, n->id);

        if (n->socket_len == 0 && o && strcmp(o->address, n->address) == 0) {
            n->socket = o->socket;
            n->socket_len = o->socket_len;
        }
    }
}

static void take(struct nodelist *l, struct node_list *list)
{
    char unknown[NODE_ADDRESS_LEN + 150] = "";

    if (l->have)
        keep_addresses(&l->list, list);
    if (!names_known(list, unknown, sizeof unknown))
        run_later(l, NAMES_MS);
    say(l, unknown);
    if (l->have && memcmp(list, &l->list, sizeof *list) == 0)
        return;
    l->list = *list;
    l->have = true;
    log_info("nodelist", "%u nodes, this one is %u, token %u ms", list->n, list->own, list->token);
    l->changed(l->arg, &l->list);
}

static void done(struct blocking_job *b)
{
    struct read_job *j = (struct read_job *)b;
    struct nodelist *l = j->owner;

    l->job = j;
    if (j->connected && watch(l, j->handle) < 0) {
        unwatch(l);
        run_later(l, PAUSE_MAX_MS); /* no descriptor: the next job looks again */
    }
    if (j->reloading) {
        run_later(l, PAUSE_MS);
    } else if (j->failed) {
        say(l, j->err.text);
        run_later(l, l->pause);
        l->pause = l->pause * 2 < PAUSE_MAX_MS ? l->pause * 2 : PAUSE_MAX_MS;
    } else {
        l->pause = PAUSE_MS;
        take(l, &j->list);
    }
}

/* --- whoever uses it --- */

int nodelist_open(
    uv_loop_t *loop, nodelist_changed *changed, void *arg, struct nodelist **out, struct err *e)
{
    struct nodelist *l = calloc(1, sizeof *l);
    struct read_job *j = calloc(1, sizeof *j);

    if (l == NULL || j == NULL || blocking_open(loop, "nodelist", &l->side, e) < 0) {
        if (l == NULL || j == NULL)
            err_set(e, ERR_MEMORY, "no memory for the list of nodes");
        free(l);
        free(j);
        return -1;
    }
    j->job = (struct blocking_job){ work, done, drop, NULL };
    j->owner = l;
    l->loop = loop;
    l->job = j;
    l->changed = changed;
    l->arg = arg;
    l->pause = PAUSE_MS;
    snprintf(l->text, sizeof l->text, "corosync was not asked yet");
    uv_timer_init(loop, &l->timer);
    l->timer.data = l;
    run(l);
    *out = l;
    return 0;
}

const struct node_list *nodelist_get(const struct nodelist *l)
{
    return l->have ? &l->list : NULL;
}

const char *nodelist_text(const struct nodelist *l)
{
    if (l->job == NULL && !l->stopped && uv_now(l->loop) - l->job_since > SILENT_MS)
        return RING_SILENT;
    return l->text;
}

void nodelist_stop(struct nodelist *l)
{
    if (l->stopped)
        return;
    l->stopped = true;
    unwatch(l);
    uv_close((uv_handle_t *)&l->timer, NULL);
    if (l->job) { /* its handle may block as well */
        blocking_run(l->side, &l->job->job);
        l->job = NULL;
    }
    blocking_close(&l->side);
}

void nodelist_close(struct nodelist **l)
{
    free(*l);
    *l = NULL;
}
