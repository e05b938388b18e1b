/* SPDX-License-Identifier: ISC */
/*
 * xenstore says that some domain came, ended or went (@introduceDomain, @releaseDomain), not
 * which: each time Xen's list is compared with what it was. A pause by somebody else makes
 * no such sign; migrd's poll sees it. Our own calls ask for a look (xen_events_look).
 *
 *   was          is                event
 *   -            anything          started, then as from running
 *   running      paused            paused (incoming: none)
 *   paused       running           resumed
 *   any          shut down         shutdown, reboot or crashed, by the code
 *   any          -                 gone; another number under the same uuid: gone and started
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "hypervisor/xen/folder.h"
#include "hypervisor/xen/xen_internal.h"

struct seen {
    char uuid[HV_UUID_LEN];
    uint32_t domid;
    enum hv_state state;
    unsigned code;
};

struct queued {
    struct queued *next;
    struct hv_event event;
};

struct xen_events {
    struct xs_handle *xs;
    int epoll_fd, wake_fd;
    struct seen *seen;
    size_t n_seen;
    struct queued *first, **tail;
};

/* --- what has changed --- */

static void put(struct xen_events *v, enum hv_event_type type, const char *uuid, const char *detail)
{
    struct queued *q = calloc(1, sizeof *q);

    if (q == NULL)
        return; /* the poll tells it */
    q->event.type = type;
    snprintf(q->event.uuid, sizeof q->event.uuid, "%s", uuid);
    snprintf(q->event.detail, sizeof q->event.detail, "%s", detail);
    *v->tail = q;
    v->tail = &q->next;
}

static void tell_end(struct xen_events *v, const struct seen *s)
{
    switch (s->code) {
    case SHUTDOWN_poweroff:
        put(v, HV_EV_SHUTDOWN, s->uuid, "");
        break;
    case SHUTDOWN_crash:
        put(v, HV_EV_CRASHED, s->uuid, "the guest crashed");
        break;
    case SHUTDOWN_watchdog:
        put(v, HV_EV_CRASHED, s->uuid, "the guest's watchdog went off");
        break;
    case SHUTDOWN_soft_reset:
        put(v, HV_EV_REBOOT, s->uuid, "soft reset");
        break;
    default:
        put(v, HV_EV_REBOOT, s->uuid, "");
    }
}

static bool is_ended(enum hv_state s)
{
    return s == HV_SHUTDOWN || s == HV_CRASHED;
}

static void tell_change(struct xen_events *v, enum hv_state was, const struct seen *s)
{
    bool stood = was == HV_PAUSED || was == HV_INCOMING;

    if (is_ended(s->state) && !is_ended(was))
        tell_end(v, s);
    else if (s->state == HV_PAUSED && was != HV_PAUSED && was != HV_INCOMING)
        put(v, HV_EV_PAUSED, s->uuid, "");
    else if ((s->state == HV_RUNNING || s->state == HV_BLOCKED) && stood)
        put(v, HV_EV_RESUMED, s->uuid, "");
}

static const struct seen *find_seen(const struct seen *list, size_t n, const char *uuid)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].uuid, uuid) == 0)
            return &list[i];
    return NULL;
}

static void compare(struct xen_events *v, const struct seen *now, size_t n)
{
    for (size_t i = 0; i < v->n_seen; i++) {
        const struct seen *s = find_seen(now, n, v->seen[i].uuid);

        if (s == NULL || s->domid != v->seen[i].domid)
            put(v, HV_EV_GONE, v->seen[i].uuid, "");
    }
    for (size_t i = 0; i < n; i++) {
        const struct seen *was = find_seen(v->seen, v->n_seen, now[i].uuid);
        bool known = was != NULL && was->domid == now[i].domid;

        if (!known && now[i].state != HV_INCOMING)
            put(v, HV_EV_STARTED, now[i].uuid, "");
        tell_change(v, known ? was->state : HV_RUNNING, &now[i]);
    }
}

/* The list as it is; one that is being built is not in it. */
static struct seen *take_list(struct hv *hv, size_t *n)
{
    xc_domaininfo_t *all;
    struct seen *list;
    size_t count;
    struct err e;
    int r = xen_list(xen_lock(hv), &all, &count, &e);

    xen_unlock(hv);
    if (r < 0) {
        log_debug("xen", "events: %s", e.text);
        return NULL;
    }
    list = calloc(count + 1, sizeof *list);
    *n = 0;
    for (size_t i = 0; list != NULL && i < count; i++) {
        struct seen *s = &list[*n];
        char dir[RUNDIR_LEN];

        xen_uuid_text(all[i].handle, s->uuid);
        xen_dir(hv, s->uuid, dir);
        if (xen_is_gone(&all[i]) || folder_has(dir, FOLDER_BUILDING))
            continue;
        s->domid = all[i].domain;
        s->code = xen_shutdown_code(&all[i]);
        s->state = xen_state_of(&all[i], folder_has(dir, FOLDER_INCOMING));
        ++*n;
    }
    free(all);
    return list;
}

static void look(struct hv *hv, struct xen_events *v, bool tell)
{
    size_t n;
    struct seen *now = take_list(hv, &n);

    if (now == NULL)
        return;
    if (tell)
        compare(v, now, n);
    free(v->seen);
    v->seen = now;
    v->n_seen = n;
}

/* --- signs --- */

static bool add_fd(int epoll_fd, int fd)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.fd = fd };

    return fd >= 0 && epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0;
}

static void close_events(struct xen_events *v)
{
    while (v->first != NULL) {
        struct queued *q = v->first;

        v->first = q->next;
        free(q);
    }
    if (v->xs != NULL)
        xs_close(v->xs);
    io_close(&v->epoll_fd);
    io_close(&v->wake_fd);
    free(v->seen);
    free(v);
}

static struct xen_events *open_events(struct err *e)
{
    struct xen_events *v = calloc(1, sizeof *v);

    if (v == NULL) {
        err_set(e, ERR_MEMORY, "out of memory");
        return NULL;
    }
    v->tail = &v->first;
    v->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    v->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    v->xs = xen_open_store(e);
    if (v->xs != NULL && xs_watch(v->xs, "@introduceDomain", "") &&
        xs_watch(v->xs, "@releaseDomain", "") && add_fd(v->epoll_fd, v->wake_fd) &&
        add_fd(v->epoll_fd, xs_fileno(v->xs)))
        return v;
    if (v->xs != NULL)
        err_sys(e, "watching xenstore");
    close_events(v);
    return NULL;
}

int xen_event_fd(struct hv *hv)
{
    struct err e;
    int fd = -1;

    pthread_mutex_lock(&hv->events_lock);
    if (hv->events == NULL) {
        hv->events = open_events(&e);
        if (hv->events != NULL)
            look(hv, hv->events, false);
        else
            log_warn("xen", "no events, the poll goes on: %s", e.text);
    }
    if (hv->events != NULL)
        fd = hv->events->epoll_fd;
    pthread_mutex_unlock(&hv->events_lock);
    return fd;
}

void xen_events_look(struct hv *hv)
{
    uint64_t one = 1;

    pthread_mutex_lock(&hv->events_lock);
    if (hv->events != NULL && write(hv->events->wake_fd, &one, sizeof one) < 0)
        log_debug("xen", "events: %s", strerror(errno));
    pthread_mutex_unlock(&hv->events_lock);
}

/* All signs that are there, as one. */
static bool take_signs(struct xen_events *v)
{
    uint64_t count;
    bool any = read(v->wake_fd, &count, sizeof count) > 0;
    char **sign;

    while ((sign = xs_check_watch(v->xs)) != NULL) {
        free(sign);
        any = true;
    }
    return any;
}

int xen_next_event(struct hv *hv, struct hv_event *out, struct err *e)
{
    struct xen_events *v;
    struct queued *q;
    int r = 0;

    pthread_mutex_lock(&hv->events_lock);
    v = hv->events;
    if (v == NULL)
        r = err_set(e, ERR_STATE, "nobody has asked for events");
    else if (v->first == NULL && take_signs(v))
        look(hv, v, true);
    if (r == 0 && (q = v->first) != NULL) {
        *out = q->event;
        v->first = q->next;
        if (v->first == NULL)
            v->tail = &v->first;
        free(q);
        r = 1;
    }
    pthread_mutex_unlock(&hv->events_lock);
    return r;
}

void xen_events_close(struct hv *hv)
{
    if (hv->events != NULL)
        close_events(hv->events);
    hv->events = NULL;
}
