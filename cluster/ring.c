/* SPDX-License-Identifier: ISC */
/*
 * One connection to corosync at a time: a handle of CPG and one of the quorum. Each is used by the
 * thread (blocking.h) or by the loop, never by both.
 *
 *   OFF       waits for the timer; then a job connects and joins the group
 *   JOINING   the job is in the thread, for as long as corosync hangs
 *   JOINED    the loop has the handles, the first membership has not come
 *   UP        the first membership with this process was told
 *   BROKEN    an error of the library, or too much waits: told in the next turn of the loop, never
 *             inside a call of the owner's; then the thread closes the handles, which can block
 *   TWICE     another process of this node was in the group first: out again, as BROKEN
 *   STOPPED   the thread leaves and closes; the loop's handles go when it has, or after half a
 * second
 *
 * Order. Memberships and messages come from one handle, in the order that CPG gave them: all
 * members see the same messages between the same two memberships. They are handed on as they come;
 * nothing is held back or merged, but for second processes of a node (ring_group.h).
 *
 * Sending. cpg_mcast_joined puts the message into memory that is shared with corosync, and a byte
 * into a socket; with corosync stopped and the socket full the library spins. So at most WINDOW
 * own messages are on their way, from the call until CPG delivers them to us as well; what comes
 * meanwhile waits here, in order, up to RING_QUEUE_MAX bytes. More than that is a ring that is
 * lost: the owner then knows that it must begin anew, which it would not if a message were dropped.
 *
 * A turn of the loop takes at most TURN_MESSAGES or TURN_NS of what has come; the rest keeps the
 * descriptor readable.
 */
#include "cluster/ring.h"

#include <corosync/cpg.h>
#include <corosync/quorum.h>
#include <corosync/votequorum.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "cluster/blocking.h"
#include "cluster/ring_error.h"
#include "cluster/ring_group.h"

#define PAUSE_MS 100
#define PAUSE_MAX_MS 1000
#define AGAIN_MS 2     /* until a message that corosync did not take is offered again */
#define VOTES_MS 10000 /* between two looks at the votes */
#define STOP_MS 500
#define SILENT_MS 2000 /* without an answer: it hangs */
#define JOIN_TRIES 50  /* of cpg_join, 20 ms apart, while members change */
#define WINDOW 64
#define TURN_MESSAGES 256
#define TURN_NS (5 * NS_PER_MS)

enum state { OFF, JOINING, JOINED, UP, BROKEN, TWICE, STOPPED };

struct handles {
    cpg_handle_t cpg;
    quorum_handle_t quorum;
    bool has_cpg, has_quorum;
    int cpg_fd, quorum_fd;
    uint32_t own, quorum_type;
};

/* Connects, or closes. */
struct link_job {
    struct blocking_job job;
    struct corosync_ring *owner;
    struct cpg_name group;
    struct handles h;
    bool ok, leave;
    struct err err;
};

struct votes_job {
    struct blocking_job job;
    struct corosync_ring *owner;
    uint32_t own;
    bool ok;
    struct votequorum_info info;
};

struct message {
    struct message *next;
    size_t len;
    uint8_t bytes[];
};

struct list {
    struct message *first, **last;
    uint64_t bytes;
};

struct watch {
    uv_poll_t poll;
    struct corosync_ring *owner;
};

struct corosync_ring {
    uv_loop_t *loop;
    uv_timer_t timer, votes_timer;
    struct blocking *side;
    struct corosync_callbacks cb;
    void *arg;
    struct cpg_name name;

    enum state state;
    uint64_t since; /* ns; of the state */
    struct handles h;
    struct watch *cpg_watch, *quorum_watch;
    struct ring_group group;
    bool closed, counting, count_again;
    unsigned pause;
    struct err err; /* why not up */
    char said[sizeof((struct err *)0)->text];
    struct list waiting;
    uint64_t sent_at[WINDOW]; /* ns; own messages that have not come back, the oldest first */
    unsigned sent_first, n_sent;
    struct corosync_figures f;
};

/* --- in the thread: connect, leave, votes --- */

static void on_deliver(cpg_handle_t, const struct cpg_name *, uint32_t, uint32_t, void *, size_t);
static void on_members(cpg_handle_t, const struct cpg_name *, const struct cpg_address *, size_t,
    const struct cpg_address *, size_t, const struct cpg_address *, size_t);
static void on_quorum(quorum_handle_t, uint32_t, struct quorum_ring_id, uint32_t, const uint32_t *);

/* Asked for with the other one, and of no use here. */
static void on_nodes(quorum_handle_t h, struct quorum_ring_id ring, uint32_t n, const uint32_t *all,
    uint32_t n_joined, const uint32_t *joined, uint32_t n_left, const uint32_t *left)
{
    (void)h, (void)ring, (void)n, (void)all, (void)n_joined, (void)joined, (void)n_left, (void)left;
}

static int connect_cpg(struct link_job *j)
{
    cpg_model_v1_data_t model = {
        .model = CPG_MODEL_V1, .cpg_deliver_fn = on_deliver, .cpg_confchg_fn = on_members
    };
    cs_error_t r =
        cpg_model_initialize(&j->h.cpg, CPG_MODEL_V1, (cpg_model_data_t *)&model, j->owner);

    if (r != CS_OK)
        return ring_error(&j->err, r, "cpg");
    j->h.has_cpg = true;
    if ((r = cpg_local_get(j->h.cpg, &j->h.own)) != CS_OK ||
        (r = cpg_fd_get(j->h.cpg, &j->h.cpg_fd)) != CS_OK)
        return ring_error(&j->err, r, "cpg");
    return 0;
}

static int connect_quorum(struct link_job *j)
{
    quorum_model_v1_data_t model = {
        .model = QUORUM_MODEL_V1, .quorum_notify_fn = on_quorum, .nodelist_notify_fn = on_nodes
    };
    cs_error_t r = quorum_model_initialize(
        &j->h.quorum, QUORUM_MODEL_V1, (quorum_model_data_t *)&model, &j->h.quorum_type, j->owner);

    if (r != CS_OK)
        return ring_error(&j->err, r, "quorum");
    j->h.has_quorum = true;
    if (j->h.quorum_type != QUORUM_SET)
        return err_set(&j->err, ERR_INVALID,
            "corosync.conf has no quorum provider: add quorum { provider: corosync_votequorum }");
    if ((r = quorum_trackstart(j->h.quorum, CS_TRACK_CURRENT | CS_TRACK_CHANGES)) != CS_OK ||
        (r = quorum_fd_get(j->h.quorum, &j->h.quorum_fd)) != CS_OK)
        return ring_error(&j->err, r, "quorum");
    return 0;
}

static int join(struct link_job *j)
{
    cs_error_t r = cpg_join(j->h.cpg, &j->group);

    for (unsigned i = 0; r == CS_ERR_TRY_AGAIN && i < JOIN_TRIES; i++) {
        usleep(20000);
        r = cpg_join(j->h.cpg, &j->group);
    }
    return r == CS_OK ? 0 : ring_error(&j->err, r, "joining the group");
}

static void disconnect(struct handles *h)
{
    if (h->has_quorum)
        quorum_finalize(h->quorum);
    if (h->has_cpg)
        cpg_finalize(h->cpg);
    h->has_quorum = h->has_cpg = false;
}

static void connect_work(struct blocking_job *b)
{
    struct link_job *j = (struct link_job *)b;

    j->ok = connect_cpg(j) == 0 && connect_quorum(j) == 0 && join(j) == 0;
    if (!j->ok)
        disconnect(&j->h);
}

static void leave_work(struct blocking_job *b)
{
    struct link_job *j = (struct link_job *)b;

    if (j->leave)
        cpg_leave(j->h.cpg, &j->group);
    disconnect(&j->h);
}

static void link_drop(struct blocking_job *b)
{
    disconnect(&((struct link_job *)b)->h);
    free(b);
}

/* Seldom enough for a handle of its own each time. */
static void votes_work(struct blocking_job *b)
{
    struct votes_job *j = (struct votes_job *)b;
    votequorum_callbacks_t none = { 0 };
    votequorum_handle_t h;

    if (votequorum_initialize(&h, &none) != CS_OK)
        return;
    j->ok = votequorum_getinfo(h, j->own, &j->info) == CS_OK;
    votequorum_finalize(h);
}

static void votes_drop(struct blocking_job *b)
{
    free(b);
}

/* --- lists --- */

static void list_push(struct list *l, struct message *m)
{
    m->next = NULL;
    *l->last = m;
    l->last = &m->next;
    l->bytes += m->len;
}

static struct message *list_pop(struct list *l)
{
    struct message *m = l->first;

    if (m == NULL)
        return NULL;
    l->first = m->next;
    if (l->first == NULL)
        l->last = &l->first;
    l->bytes -= m->len;
    return m;
}

static void list_empty(struct list *l)
{
    struct message *m;

    while ((m = list_pop(l)) != NULL)
        free(m);
}

/* --- states --- */

static void enter(struct corosync_ring *r, enum state state)
{
    r->state = state;
    r->since = clock_ns();
}

static void on_timer(uv_timer_t *t);

static void wake(struct corosync_ring *r, unsigned ms)
{
    uv_timer_start(&r->timer, on_timer, ms, 0);
}

static void on_watch_closed(uv_handle_t *h)
{
    free(h->data);
}

static void unwatch(struct watch **w)
{
    if (*w)
        uv_close((uv_handle_t *)&(*w)->poll, on_watch_closed);
    *w = NULL;
}

static struct link_job *link_job(struct corosync_ring *r, void (*work)(struct blocking_job *),
    void (*done)(struct blocking_job *))
{
    struct link_job *j = calloc(1, sizeof *j);

    if (j == NULL)
        return NULL;
    j->job = (struct blocking_job){ work, done, link_drop, NULL };
    j->owner = r;
    j->group = r->name;
    return j;
}

static void say(struct corosync_ring *r)
{
    if (strcmp(r->said, r->err.text) == 0)
        return;
    snprintf(r->said, sizeof r->said, "%s", r->err.text);
    log_warn("ring", "%s", r->err.text);
}

static void broken(struct corosync_ring *r, enum state state)
{
    if (r->state == JOINED || r->state == UP) {
        enter(r, state);
        wake(r, 0);
    }
}

static void off(struct corosync_ring *r, unsigned pause)
{
    enter(r, OFF);
    wake(r, pause);
}

/* --- connecting --- */

static void on_readable_cpg(uv_poll_t *p, int status, int events);
static void on_readable_quorum(uv_poll_t *p, int status, int events);

static struct watch *watch(struct corosync_ring *r, int fd, uv_poll_cb cb)
{
    struct watch *w = calloc(1, sizeof *w);

    if (w == NULL)
        return NULL;
    w->owner = r;
    w->poll.data = w;
    if (uv_poll_init(r->loop, &w->poll, fd) != 0) {
        free(w);
        return NULL;
    }
    if (uv_poll_start(&w->poll, UV_READABLE, cb) != 0)
        unwatch(&w);
    return w;
}

static void on_connected(struct blocking_job *b)
{
    struct link_job *j = (struct link_job *)b;
    struct corosync_ring *r = j->owner;

    if (!j->ok) {
        r->err = j->err;
        say(r);
        off(r, r->pause);
        r->pause = r->pause * 2 < PAUSE_MAX_MS ? r->pause * 2 : PAUSE_MAX_MS;
        free(j);
        return;
    }
    r->h = j->h;
    r->f.own = j->h.own;
    free(j);
    enter(r, JOINED);
    err_set(&r->err, ERR_STATE, "corosync has not told who is in the group");
    r->cpg_watch = watch(r, r->h.cpg_fd, on_readable_cpg);
    r->quorum_watch = watch(r, r->h.quorum_fd, on_readable_quorum);
    if (r->cpg_watch == NULL || r->quorum_watch == NULL) {
        err_set(&r->err, ERR_MEMORY, "no memory for the ring");
        broken(r, BROKEN);
    }
}

static void connect_ring(struct corosync_ring *r)
{
    struct link_job *j = link_job(r, connect_work, on_connected);

    if (j == NULL) {
        off(r, PAUSE_MAX_MS);
        return;
    }
    enter(r, JOINING);
    blocking_run(r->side, &j->job);
}

/* --- loss --- */

static void on_disconnected(struct blocking_job *b)
{
    struct corosync_ring *r = ((struct link_job *)b)->owner;

    free(b);
    off(r, r->pause);
}

/* The handles go to the thread. Without memory for that they stay open. */
static void give_back(struct corosync_ring *r, void (*done)(struct blocking_job *), bool leave)
{
    struct link_job *j = link_job(r, leave_work, done);

    unwatch(&r->cpg_watch);
    unwatch(&r->quorum_watch);
    if (j) {
        j->h = r->h;
        j->leave = leave && r->h.has_cpg;
    }
    memset(&r->h, 0, sizeof r->h);
    if (j)
        blocking_run(r->side, &j->job);
    else
        wake(r, PAUSE_MAX_MS);
}

static void forget(struct corosync_ring *r)
{
    list_empty(&r->waiting);
    r->n_sent = 0;
    memset(&r->group, 0, sizeof r->group);
    r->f.up = r->f.quorate = false;
    r->f.expected = 0;
}

static void lose(struct corosync_ring *r)
{
    bool was = r->f.up, quorate = r->f.quorate;
    unsigned pause = r->state == TWICE ? PAUSE_MAX_MS : PAUSE_MS;

    say(r);
    forget(r);
    enter(r, JOINING); /* a job is in the thread */
    r->pause = pause;
    give_back(r, on_disconnected, false);
    if (was)
        r->f.losses++;
    if (quorate)
        r->cb.quorum(r->arg, false);
    if (was)
        r->cb.view(r->arg, NULL, 0);
}

/* --- what comes from corosync --- */

static struct corosync_ring *ring_of(cpg_handle_t h)
{
    void *r = NULL;

    return cpg_context_get(h, &r) == CS_OK ? r : NULL;
}

/* One of ours has come back. */
static void seen(struct corosync_ring *r)
{
    if (r->n_sent == 0)
        return;
    r->n_sent--;
    r->sent_first = (r->sent_first + 1) % WINDOW;
}

static void on_deliver(cpg_handle_t h, const struct cpg_name *group, uint32_t node, uint32_t pid,
    void *bytes, size_t len)
{
    struct corosync_ring *r = ring_of(h);

    (void)group;
    if (r == NULL || r->state != UP)
        return;
    if (node == r->f.own && pid == (uint32_t)getpid())
        seen(r);
    if (!ring_group_speaks(&r->group, node, pid) || len == 0 || len > HA_MESSAGE_MAX) {
        r->f.refused++;
        return;
    }
    r->f.messages_in++;
    r->cb.message(r->arg, node, bytes, len);
}

static size_t processes(struct ring_process *to, const struct cpg_address *from, size_t n)
{
    if (n > CPG_MEMBERS_MAX)
        n = CPG_MEMBERS_MAX;
    for (size_t i = 0; i < n; i++)
        to[i] = (struct ring_process){ from[i].nodeid, from[i].pid };
    return n;
}

/* 0: no other process of this node is in the group. */
static uint32_t other_of_ours(
    const struct corosync_ring *r, const struct ring_process *all, size_t n, bool *here)
{
    uint32_t other = 0;

    *here = false;
    for (size_t i = 0; i < n; i++) {
        if (all[i].node != r->f.own)
            continue;
        if (all[i].pid == (uint32_t)getpid())
            *here = true;
        else
            other = all[i].pid;
    }
    return other;
}

static void up(struct corosync_ring *r)
{
    enter(r, UP);
    r->f.up = true;
    r->f.connects++;
    r->pause = PAUSE_MS;
    r->said[0] = '\0';
    err_clear(&r->err);
    log_info(
        "ring", "in the group \"%.*s\" as node %u", (int)r->name.length, r->name.value, r->f.own);
}

static void tell_view(struct corosync_ring *r)
{
    uint32_t members[HA_NODES_MAX];

    for (unsigned i = 0; i < r->group.n; i++)
        members[i] = r->group.member[i].node;
    if (r->group.overflow)
        log_error("ring", "the group has more than %d nodes: some do not count", HA_NODES_MAX);
    r->cb.view(r->arg, members, r->group.n);
}

static void members_changed(struct corosync_ring *r, const struct ring_process *all, size_t n,
    const struct ring_process *gone, size_t n_gone, const struct ring_process *come, size_t n_come)
{
    bool here;
    uint32_t other = other_of_ours(r, all, n, &here);

    if (r->state == JOINED && here && other) {
        err_set(&r->err, ERR_EXISTS,
            "another migrd of this host is in the group, process %u: stop one of them", other);
        broken(r, TWICE);
        return;
    }
    if (r->state == JOINED && here)
        up(r);
    if (r->state != UP)
        return;
    if (!here) {
        err_set(&r->err, ERR_STATE, "corosync put this process out of the group");
        broken(r, BROKEN);
        return;
    }
    if (ring_group_change(&r->group, all, n, gone, n_gone, come, n_come))
        tell_view(r);
}

static void on_members(cpg_handle_t h, const struct cpg_name *group, const struct cpg_address *all,
    size_t n, const struct cpg_address *left, size_t n_left, const struct cpg_address *joined,
    size_t n_joined)
{
    struct corosync_ring *r = ring_of(h);
    struct ring_process now[CPG_MEMBERS_MAX], gone[CPG_MEMBERS_MAX], come[CPG_MEMBERS_MAX];

    (void)group;
    if (r == NULL)
        return;
    n = processes(now, all, n);
    n_left = processes(gone, left, n_left);
    n_joined = processes(come, joined, n_joined);
    members_changed(r, now, n, gone, n_left, come, n_joined);
}

static void count_votes(struct corosync_ring *r);

static void on_quorum(quorum_handle_t h, uint32_t quorate, struct quorum_ring_id ring, uint32_t n,
    const uint32_t *members)
{
    const void *context = NULL;
    struct corosync_ring *r;

    (void)ring, (void)n, (void)members;
    if (quorum_context_get(h, &context) != CS_OK || context == NULL)
        return;
    r = (struct corosync_ring *)(uintptr_t)context;
    if (r->state != JOINED && r->state != UP)
        return;
    count_votes(r);
    if (r->f.quorate == (quorate != 0))
        return;
    r->f.quorate = quorate != 0;
    r->cb.quorum(r->arg, r->f.quorate);
}

/* --- sending --- */

/* False: corosync takes no more for now, or the ring is broken. */
static bool offer(struct corosync_ring *r)
{
    struct message *m = r->waiting.first;
    struct iovec iov = { m->bytes, m->len };
    cs_error_t cs = cpg_mcast_joined(r->h.cpg, CPG_TYPE_AGREED, &iov, 1);

    switch (cs) {
    case CS_OK:
        break;
    case CS_ERR_TRY_AGAIN:
    case CS_ERR_NO_MEMORY:
    case CS_ERR_NO_RESOURCES:
    case CS_ERR_BUSY:
        wake(r, AGAIN_MS);
        return false;
    default:
        ring_error(&r->err, cs, "sending");
        broken(r, BROKEN);
        return false;
    }
    r->f.messages_out++;
    free(list_pop(&r->waiting));
    r->sent_at[(r->sent_first + r->n_sent++) % WINDOW] = clock_ns();
    return true;
}

static void pump(struct corosync_ring *r)
{
    while (r->state == UP && r->waiting.first && r->n_sent < WINDOW)
        if (!offer(r))
            return;
}

bool corosync_send(struct corosync_ring *r, const uint8_t *bytes, size_t len)
{
    struct message *m;

    if (r->state != UP || len == 0 || len > HA_MESSAGE_MAX)
        return false;
    m = r->waiting.bytes + len <= RING_QUEUE_MAX ? malloc(sizeof *m + len) : NULL;
    if (m == NULL) {
        err_set(&r->err, ERR_RESOURCE,
            "corosync does not take messages: %llu bytes wait for it; see its log",
            (unsigned long long)r->waiting.bytes);
        broken(r, BROKEN);
        return false;
    }
    m->len = len;
    memcpy(m->bytes, bytes, len);
    list_push(&r->waiting, m);
    pump(r);
    return true;
}

void corosync_lose(struct corosync_ring *r, const char *why)
{
    err_set(&r->err, ERR_RESOURCE, "%s", why);
    broken(r, BROKEN);
}

/* --- turns of the loop --- */

static void turn_ended(struct corosync_ring *r, uint64_t begun)
{
    uint64_t us = (clock_ns() - begun) / NS_PER_US;

    if (us > r->f.dispatch_max_us)
        r->f.dispatch_max_us = us;
}

/* libuv has given up a descriptor with an error. */
static void dispatched(struct corosync_ring *r, cs_error_t cs, int status, const char *what)
{
    if (status == 0 && (cs == CS_OK || cs == CS_ERR_TRY_AGAIN))
        return;
    ring_error(&r->err, cs == CS_OK || cs == CS_ERR_TRY_AGAIN ? CS_ERR_LIBRARY : cs, what);
    broken(r, BROKEN);
}

static void on_readable_cpg(uv_poll_t *p, int status, int events)
{
    struct corosync_ring *r = ((struct watch *)p->data)->owner;
    uint64_t begun = clock_ns();
    cs_error_t cs = CS_OK;

    (void)events;
    for (unsigned i = 0; i < TURN_MESSAGES && cs == CS_OK && clock_ns() - begun < TURN_NS; i++) {
        if (r->state != JOINED && r->state != UP)
            return;
        cs = cpg_dispatch(r->h.cpg, CS_DISPATCH_ONE_NONBLOCKING);
    }
    dispatched(r, cs, status, "cpg");
    pump(r);
    turn_ended(r, begun);
}

static void on_readable_quorum(uv_poll_t *p, int status, int events)
{
    struct corosync_ring *r = ((struct watch *)p->data)->owner;
    uint64_t begun = clock_ns();
    cs_error_t cs;

    (void)events;
    if (r->state != JOINED && r->state != UP)
        return;
    cs = quorum_dispatch(r->h.quorum, CS_DISPATCH_ONE_NONBLOCKING);
    dispatched(r, cs, status, "quorum");
    turn_ended(r, begun);
}

/* --- votes --- */

static void on_votes(struct blocking_job *b)
{
    struct votes_job *j = (struct votes_job *)b;
    struct corosync_ring *r = j->owner;
    const struct votequorum_info *i = &j->info;
    bool again = r->count_again;

    r->counting = r->count_again = false;
    if (j->ok && (r->state == JOINED || r->state == UP)) {
        r->f.votes = i->total_votes;
        r->f.expected = i->highest_expected;
        r->f.needed = i->quorum;
        r->f.device_votes = i->flags & VOTEQUORUM_INFO_QDEVICE_REGISTERED ? i->qdevice_votes : 0;
        r->f.device_casts = (i->flags & VOTEQUORUM_INFO_QDEVICE_CAST_VOTE) != 0;
        snprintf(r->f.device, sizeof r->f.device, "%.*s", (int)sizeof r->f.device - 1,
            i->flags & VOTEQUORUM_INFO_QDEVICE_REGISTERED ? i->qdevice_name : "");
    }
    free(j);
    if (again && (r->state == JOINED || r->state == UP))
        count_votes(r);
}

static void count_votes(struct corosync_ring *r)
{
    struct votes_job *j;

    r->count_again = r->counting; /* what is being counted may be older */
    if (r->counting || (j = calloc(1, sizeof *j)) == NULL)
        return;
    r->counting = true;
    j->job = (struct blocking_job){ votes_work, on_votes, votes_drop, NULL };
    j->owner = r;
    j->own = r->f.own;
    blocking_run(r->side, &j->job);
}

static void on_votes_timer(uv_timer_t *t)
{
    struct corosync_ring *r = t->data;

    if (r->state == UP)
        count_votes(r);
}

/* --- the owner's calls --- */

static void finish(struct corosync_ring *r)
{
    if (r->closed)
        return;
    r->closed = true;
    blocking_close(&r->side);
    uv_close((uv_handle_t *)&r->timer, NULL);
    uv_close((uv_handle_t *)&r->votes_timer, NULL);
}

static void on_left(struct blocking_job *b)
{
    struct corosync_ring *r = ((struct link_job *)b)->owner;

    free(b);
    finish(r);
}

static void on_timer(uv_timer_t *t)
{
    struct corosync_ring *r = t->data;

    switch (r->state) {
    case OFF:
        connect_ring(r);
        return;
    case UP:
        pump(r);
        return;
    case BROKEN:
    case TWICE:
        lose(r);
        return;
    case STOPPED:
        finish(r);
        return;
    case JOINING: /* no memory for the job that closes: without handles, connect anew */
        connect_ring(r);
        return;
    case JOINED:
        return;
    }
}

int corosync_open(uv_loop_t *loop, const char *group, const struct corosync_callbacks *cb,
    void *arg, struct corosync_ring **out, struct err *e)
{
    struct corosync_ring *r = calloc(1, sizeof *r);

    if (r == NULL)
        return err_set(e, ERR_MEMORY, "no memory for the ring");
    if (strlen(group) >= CPG_MAX_NAME_LENGTH) {
        free(r);
        return err_set(
            e, ERR_INVALID, "group %s: a name of at most %d bytes", group, CPG_MAX_NAME_LENGTH - 1);
    }
    if (blocking_open(loop, "ring", &r->side, e) < 0) {
        free(r);
        return -1;
    }
    r->loop = loop;
    r->cb = *cb;
    r->arg = arg;
    r->name.length = (uint32_t)strlen(group);
    memcpy(r->name.value, group, r->name.length);
    r->waiting.last = &r->waiting.first;
    r->pause = PAUSE_MS;
    uv_timer_init(loop, &r->timer);
    uv_timer_init(loop, &r->votes_timer);
    r->timer.data = r->votes_timer.data = r;
    uv_timer_start(&r->votes_timer, on_votes_timer, VOTES_MS, VOTES_MS);
    connect_ring(r);
    *out = r;
    return 0;
}

static uint64_t age_ms(uint64_t since)
{
    return (clock_ns() - since) / NS_PER_MS;
}

static void why(const struct corosync_ring *r, struct corosync_figures *f)
{
    if (r->state == UP && f->unseen_ms > SILENT_MS)
        snprintf(f->text, sizeof f->text, "%s (a message waits for %llu ms)", RING_SILENT,
            (unsigned long long)f->unseen_ms);
    else if (r->state == UP && !f->quorate)
        snprintf(f->text, sizeof f->text,
            "corosync has no quorum, %u of %u votes: start it on more nodes, see "
            "corosync-quorumtool",
            f->votes, f->needed);
    else if ((r->state == JOINING || r->state == JOINED) && age_ms(r->since) > SILENT_MS)
        snprintf(f->text, sizeof f->text, "%s", RING_SILENT);
    else
        snprintf(f->text, sizeof f->text, "%.*s", (int)sizeof f->text - 1, r->err.text);
}

void corosync_figures(const struct corosync_ring *r, struct corosync_figures *out)
{
    *out = r->f;
    out->waiting_bytes = r->waiting.bytes;
    out->unseen_ms = r->n_sent ? age_ms(r->sent_at[r->sent_first]) : 0;
    why(r, out);
}

void corosync_stop(struct corosync_ring *r)
{
    bool linked = r->h.has_cpg;

    if (r->state == STOPPED)
        return;
    forget(r);
    enter(r, STOPPED);
    if (!linked) {
        finish(r);
        return;
    }
    give_back(r, on_left, true);
    wake(r, STOP_MS);
}

void corosync_close(struct corosync_ring **r)
{
    if (*r)
        forget(*r);
    free(*r);
    *r = NULL;
}
