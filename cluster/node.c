/* SPDX-License-Identifier: ISC */
/*
 * The story. What happens (messages of the ring, beats, ends of writes, domains, results, commands,
 * time) goes to the core one event after the other, with the time of CLOCK_BOOTTIME in ms; the
 * actions that come out are carried out in their order, then the next event is taken. Carrying one
 * out may make an event (a start that fails at once, a ring that is lost while something is sent):
 * it waits in a queue until the actions of its step are done.
 *
 *   open     identity, what the disk has; readers are answered from a core that never steps
 *   nodes    corosync has told who the nodes are: the core is made (node_life.c), is told of all
 *            copies on this host, and the ring is joined
 *   nodes'   other nodes than those of the core: it goes on with the old ones until the log is
 *            disarmed, then a new core is made of what the disk has, under a new incarnation
 *   dead     a core without memory, or with a state that can't be, does nothing more; a new one is
 *            made after REVIVE_MS
 *
 * A core begins without the copies, capacity and view of before: the node keeps the newest of each.
 * Times come from the token that corosync has when the core begins.
 *
 * The core's own wake is a timerfd, since libuv's timers stand still while the host sleeps, and are
 * late by up to a ms and by whatever the loop did since it last read the clock.
 */
#include "cluster/node.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/pbjson.h"
#include "cluster/node_internal.h"

#define TICK_MS 100
#define SAY_AGAIN_MS 60000

void node_note(struct cluster *c, bool alarm, const char *fmt, ...)
{
    char text[700];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    c->alarmed |= alarm;
    c->host.note(c->arg, alarm, text);
}

const struct ha_core *node_reader(const struct cluster *c)
{
    return c->core != NULL ? c->core : c->shadow;
}

/* --- time --- */

static void arm_timer(struct cluster *c, uint64_t wake)
{
    struct itimerspec t = { .it_value = { (time_t)(wake / 1000), (long)(wake % 1000) * 1000000 } };

    c->wake = wake;
    if (wake == 0)
        t.it_value.tv_nsec = 1;
    timerfd_settime(c->timer_fd, TFD_TIMER_ABSTIME, &t, NULL);
}

/* The core doubts itself where a step comes later than `tilt`: said before it comes to that. */
static void measure_lateness(struct cluster *c, uint64_t now)
{
    uint64_t late = now > c->wake && c->wake != 0 ? now - c->wake : 0;

    c->late_last = late;
    if (late > c->late_max)
        c->late_max = late;
    if (late * 10 < c->times.tilt * UINT64_C(8) || now < c->late_said)
        return;
    c->late_said = now + SAY_AGAIN_MS;
    node_note(c, false,
        "migrd came %" PRIu64 " ms late to its cluster duties; from %u ms on it doubts itself and "
        "does not vote: is this host overloaded?",
        late, c->times.tilt);
}

static void on_timer(uv_poll_t *h, int status, int events)
{
    struct cluster *c = h->data;
    uint64_t times;

    (void)status;
    (void)events;
    if (read(c->timer_fd, &times, sizeof times) == sizeof times)
        node_feed(c, &(struct ha_event){ .type = HA_EV_TIME });
}

/* --- steps --- */

static void look_at_place(struct cluster *c)
{
    struct ha_place before = c->place;

    ha_core_place(c->core, &c->place);
    if (c->place.chain == before.chain && c->place.index == before.index &&
        c->place.term == before.term && c->place.phase == before.phase &&
        c->place.joined == before.joined)
        return;
    c->host.changed(c->arg);
}

static void end_step(struct cluster *c, bool turn, uint64_t now)
{
    const struct ha_record *saved;
    size_t n;

    if (turn && (saved = store_records(c->store, &n)) != NULL)
        flight_turn(c->flight, saved, n, now);
    if (c->alarmed && c->flight != NULL)
        flight_sync(c->flight);
    c->alarmed = false;
    node_look_at_times(c);
    look_at_place(c);
}

static void step(struct cluster *c, const struct ha_event *event)
{
    uint64_t now = clock_boot_ms();
    struct ha_actions out;
    bool turn;

    if (c->core == NULL)
        return;
    node_read_event(c);
    turn = c->flight != NULL && flight_event(c->flight, event, now);
    measure_lateness(c, now);
    ha_step(c->core, event, now, &out);
    arm_timer(c, out.wake);
    for (size_t i = 0; i < out.n; i++)
        node_act(c, &out.action[i]);
    end_step(c, turn, now);
}

/* --- events that wait --- */

static void *copy_of(const void *bytes, size_t len)
{
    void *copy = malloc(len + 1);

    if (copy != NULL && len > 0)
        memcpy(copy, bytes, len);
    return copy;
}

/* False: no memory. */
static bool input_copy(struct input *in)
{
    struct ha_event *e = &in->event;

    switch (e->type) {
    case HA_EV_MESSAGE:
    case HA_EV_BEAT:
        e->u.message.bytes = in->copy = copy_of(e->u.message.bytes, e->u.message.len);
        return in->copy != NULL;
    case HA_EV_RESULT:
        e->u.result.text = in->copy = strdup(e->u.result.text);
        return in->copy != NULL;
    case HA_EV_COMMAND:
        e->u.command = in->copy = pb_copy(&e->u.command->base);
        return in->copy != NULL;
    default:
        return true;
    }
}

static void input_free(struct input *in)
{
    if (in->event.type == HA_EV_COMMAND && in->copy != NULL)
        migrd__ha_command__free_unpacked(in->copy, NULL);
    else
        free(in->copy);
    free(in);
}

static struct input *input_new(const struct ha_event *event)
{
    struct input *in = calloc(1, sizeof *in);

    if (in == NULL)
        return NULL;
    in->event = *event;
    if (input_copy(in))
        return in;
    input_free(in);
    return NULL;
}

/* What can't be kept is lost as a beat is: the core asks again, or is told again. Only the order of
 * the ring has no gaps: it is left, and begins anew. */
bool node_wait_feed(struct cluster *c, const struct ha_event *event)
{
    struct input *in = input_new(event);

    if (in == NULL) {
        if (c->ring != NULL && (event->type == HA_EV_MESSAGE || event->type == HA_EV_VIEW))
            corosync_lose(c->ring, "no memory for a message of the cluster");
        return false;
    }
    if (c->last != NULL)
        c->last->next = in;
    else
        c->first = in;
    c->last = in;
    uv_async_send(&c->kick);
    return true;
}

static struct input *next_input(struct cluster *c)
{
    struct input *in = c->first;

    if (in == NULL)
        return NULL;
    c->first = in->next;
    if (c->first == NULL)
        c->last = NULL;
    return in;
}

void node_forget_waiting(struct cluster *c)
{
    struct input *in;

    while ((in = next_input(c)) != NULL)
        input_free(in);
}

/* `event`, or NULL, then all that waits. */
static void pump(struct cluster *c, const struct ha_event *event)
{
    struct input *in;

    c->stepping = true;
    if (event != NULL)
        step(c, event);
    while ((in = next_input(c)) != NULL) {
        step(c, &in->event);
        input_free(in);
    }
    c->stepping = false;
    node_consider(c);
}

static void on_kick(uv_async_t *h)
{
    struct cluster *c = h->data;

    if (!c->stopped && c->first != NULL)
        pump(c, NULL);
}

void node_feed(struct cluster *c, const struct ha_event *event)
{
    if (c->stopped || c->core == NULL)
        return;
    if (c->stepping) {
        node_wait_feed(c, event);
    } else if (c->first != NULL) {
        if (node_wait_feed(c, event))
            pump(c, NULL);
    } else {
        pump(c, event);
    }
}

/* --- what comes in --- */

void node_on_view(void *arg, const uint32_t *members, unsigned n)
{
    struct cluster *c = arg;

    c->view = (struct ha_event){ .type = HA_EV_VIEW };
    for (unsigned i = 0; i < n && i < HA_NODES_MAX; i++)
        c->view.u.view.members[c->view.u.view.n++] = members[i];
    node_feed(c, &c->view);
}

void node_on_quorum(void *arg, bool quorate)
{
    struct cluster *c = arg;

    c->quorate = quorate;
    node_feed(c, &(struct ha_event){ .type = HA_EV_QUORUM, .u.quorate = quorate });
}

void node_on_message(void *arg, uint32_t from, const uint8_t *bytes, size_t len)
{
    node_feed(arg, &(struct ha_event){ .type = HA_EV_MESSAGE, .u.message = { from, bytes, len } });
}

static void on_beat(void *arg, uint32_t from, const uint8_t *bytes, size_t len)
{
    node_feed(arg, &(struct ha_event){ .type = HA_EV_BEAT, .u.message = { from, bytes, len } });
}

static void on_persisted(void *arg, uint64_t id)
{
    struct cluster *c = arg;

    if (id > c->id_base && !c->disk_broken)
        node_feed(c, &(struct ha_event){ .type = HA_EV_PERSISTED, .u.id = id - c->id_base });
}

static void on_disk_trouble(void *arg, const char *text)
{
    struct cluster *c = arg;

    if (text != NULL)
        node_note(c, true,
            "%s: this node confirms nothing to the cluster until it can be written; it is tried "
            "again each second",
            text);
    else
        node_note(c, false, "the cluster's log can be written again");
}

static void on_nodes(void *arg, const struct node_list *list)
{
    struct cluster *c = arg;
    struct err e;

    c->nodes = *list;
    if (beat_nodes(c->beat, list, &e) < 0)
        node_note(c, true, "%s", e.text);
    if (c->core == NULL)
        c->revive_at = 0; /* what was wrong may be right */
    node_consider(c);
}

/* --- from the host --- */

static int compare_domain(const void *key, const void *domain)
{
    return strcmp(key, ((const struct ha_event *)domain)->u.domain.uuid);
}

static struct ha_event *known_domain(struct cluster *c, const char *uuid)
{
    return c->n_domains == 0
               ? NULL
               : bsearch(uuid, c->domains, c->n_domains, sizeof *c->domains, compare_domain);
}

static void add_domain(struct cluster *c, const struct ha_event *domain)
{
    size_t at = 0;

    if (c->n_domains == c->cap_domains) {
        size_t cap = c->cap_domains ? c->cap_domains * 2 : 64;
        struct ha_event *bigger = realloc(c->domains, cap * sizeof *bigger);

        if (bigger == NULL)
            return; /* told again in two seconds */
        c->domains = bigger;
        c->cap_domains = cap;
    }
    while (at < c->n_domains && strcmp(c->domains[at].u.domain.uuid, domain->u.domain.uuid) < 0)
        at++;
    memmove(c->domains + at + 1, c->domains + at, (c->n_domains - at) * sizeof *c->domains);
    c->domains[at] = *domain;
    c->n_domains++;
}

void cluster_domain(struct cluster *c, const struct ha_event *domain)
{
    struct ha_event *known = known_domain(c, domain->u.domain.uuid);

    if (domain->u.domain.seen == HA_SEEN_GONE && known != NULL) {
        c->n_domains--;
        memmove(known, known + 1, (size_t)(c->domains + c->n_domains - known) * sizeof *known);
    } else if (known != NULL) {
        *known = *domain;
    } else if (domain->u.domain.seen != HA_SEEN_GONE) {
        add_domain(c, domain);
    }
    node_feed(c, domain);
}

void cluster_capacity(struct cluster *c, uint64_t memory_kib, unsigned cpus, uint64_t others_kib)
{
    c->has_capacity = true;
    c->capacity =
        (struct ha_event){ .type = HA_EV_HOST, .u.host = { memory_kib, cpus, others_kib } };
    node_feed(c, &c->capacity);
}

/* Actions of a core that is gone have no one who waits for them. */
void cluster_result(struct cluster *c, uint64_t id, bool ok, const char *text)
{
    if (id >> ACTION_BITS != c->lives)
        return;
    node_feed(c, &(struct ha_event){ .type = HA_EV_RESULT,
                     .u.result = { id & ACTION_MASK, ok, text != NULL ? text : "" } });
}

/* --- health --- */

/* A slow disk delays each decision of the cluster. */
static void watch_disk(struct cluster *c, uint64_t now)
{
    struct store_figures f;
    uint64_t lease_us = c->times.lease * UINT64_C(1000);

    store_figures(c->store, &f);
    if (f.waiting_us > lease_us && now >= c->stuck_said) {
        c->stuck_said = now + SAY_AGAIN_MS;
        node_note(c, true,
            "%s/log: a write has been under way for %" PRIu64
            " ms: this node confirms nothing to the cluster; look at the disk",
            c->dir, f.waiting_us / 1000);
    } else if (f.last_us * 10 > lease_us * 8 && now >= c->slow_said) {
        c->slow_said = now + SAY_AGAIN_MS;
        node_note(c, false,
            "%s/log: a write took %" PRIu64 " ms; decisions of the cluster wait for it, and a "
            "failover is later by as much",
            c->dir, f.last_us / 1000);
    }
}

static void on_tick(uv_timer_t *t)
{
    struct cluster *c = t->data;
    uint64_t now = clock_boot_ms();

    node_ask_time(c, now);
    if (c->core != NULL)
        watch_disk(c, now);
    node_consider(c);
}

/* --- birth and death --- */

static void copy_options(struct cluster *c, const struct cluster_options *o)
{
    snprintf(c->host_name, sizeof c->host_name, "%s", o->host_name);
    snprintf(c->dir, sizeof c->dir, "%s/cluster", o->state_dir);
    snprintf(c->flight_path, sizeof c->flight_path, "%.*s/flight", NODE_PATH_LEN - 16, c->dir);
    snprintf(c->watchdog_path, sizeof c->watchdog_path, "%s", o->watchdog);
    c->watchdog_ms = o->watchdog[0] != '\0' ? o->watchdog_ms : 0;
    c->starts_at_once = o->starts_at_once;
    c->moves_at_once = o->moves_at_once;
    c->flight_limit = o->flight_limit;
}

static int open_disk(struct cluster *c, struct err *e)
{
    static const struct store_callbacks cb = { on_persisted, on_disk_trouble };
    char path[NODE_PATH_LEN + 8];

    if (io_make_dirs(c->dir, 0700, e) < 0 || node_identity(c, e) < 0)
        return -1;
    snprintf(path, sizeof path, "%s/log", c->dir);
    if (store_open(c->loop, path, &cb, c, &c->store, e) < 0)
        return -1;
    return node_make_shadow(c, e);
}

static int open_timers(struct cluster *c, struct err *e)
{
    c->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    if (c->timer_fd < 0)
        return err_sys(e, "a timer for the cluster");
    if (uv_poll_init(c->loop, &c->timer, c->timer_fd) < 0)
        return err_set(e, ERR_SYSTEM, "a timer for the cluster can't be watched");
    c->timer.data = c;
    c->timer_made = true;
    uv_poll_start(&c->timer, UV_READABLE, on_timer);
    uv_async_init(c->loop, &c->kick, on_kick);
    c->kick.data = c;
    uv_timer_init(c->loop, &c->tick);
    c->tick.data = c;
    uv_timer_start(&c->tick, on_tick, TICK_MS, TICK_MS);
    return 0;
}

static int open_all(struct cluster *c, const struct cluster_options *o, struct err *e)
{
    if (open_disk(c, e) < 0 || open_timers(c, e) < 0 ||
        beat_open(c->loop, o->key_file, o->beat_port, on_beat, c, &c->beat, e) < 0)
        return -1;
    node_open_fence(c, o->fence_file);
    return nodelist_open(c->loop, on_nodes, c, &c->nodelist, e);
}

int cluster_open(uv_loop_t *loop, const struct cluster_options *o, const struct cluster_host *host,
    void *arg, struct cluster **out, struct err *e)
{
    struct cluster *c = calloc(1, sizeof *c);

    *out = c;
    if (c == NULL)
        return err_set(e, ERR_MEMORY, "no memory for the cluster");
    c->loop = loop;
    c->host = *host;
    c->arg = arg;
    c->timer_fd = -1;
    copy_options(c, o);
    if (open_all(c, o, e) == 0)
        return 0;
    cluster_stop(c);
    return -1;
}

int cluster_reload(struct cluster *c, struct err *e)
{
    return beat_reload(c->beat, e);
}

void cluster_stop(struct cluster *c)
{
    if (c->stopped)
        return;
    c->stopped = true;
    if (c->nodelist != NULL)
        nodelist_stop(c->nodelist);
    if (c->ring != NULL)
        corosync_stop(c->ring);
    if (c->beat != NULL)
        beat_stop(c->beat);
    node_power_stop(c);
    if (c->timer_made) {
        uv_close((uv_handle_t *)&c->timer, NULL);
        uv_close((uv_handle_t *)&c->tick, NULL);
        uv_close((uv_handle_t *)&c->kick, NULL);
    }
    if (c->store != NULL)
        store_stop(c->store);
    node_ask_forget(c, true);
    flight_close(&c->flight);
}

void cluster_close(struct cluster **cp)
{
    struct cluster *c = *cp;

    if (c == NULL)
        return;
    *cp = NULL;
    node_forget_waiting(c);
    node_read_free(c);
    ha_core_free(&c->core);
    ha_core_free(&c->shadow);
    nodelist_close(&c->nodelist);
    corosync_close(&c->ring);
    beat_close(&c->beat);
    store_close(&c->store);
    node_power_close(c);
    io_close(&c->timer_fd);
    free(c->domains);
    free(c);
}
