/* SPDX-License-Identifier: ISC */
/*
 * Events of all domains of one run_dir, whoever started them. From the first call of
 * event_fd or next_event on each domain has one subscribed connection here (a watch); who
 * never asks for events, as a worker, takes none. The end of a watch means that the process
 * is gone. New folders are seen by inotify: xvm-domain renames its folder into place when
 * its socket listens. What is read outside next_event (the end of a domain that is started
 * anew at once) sets wake_fd, so the epoll descriptor is readable whenever there is something.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "hypervisor/xvm/driver_internal.h"

#define SUBSCRIBE_TIMEOUT_MS 1000

struct watch {
    struct watch *next;
    char uuid[HV_UUID_LEN];
    struct msgconn *conn;
};

struct queued_event {
    struct queued_event *next;
    struct hv_event ev;
};

static void push(struct hv *hv, const char *uuid, enum hv_event_type type, const char *detail)
{
    struct queued_event *q = calloc(1, sizeof *q);

    if (q == NULL)
        return; /* no memory for an event: enumerate shows the truth */
    q->ev.type = type;
    snprintf(q->ev.uuid, sizeof q->ev.uuid, "%s", uuid);
    snprintf(q->ev.detail, sizeof q->ev.detail, "%s", detail);
    *hv->events_tail = q;
    hv->events_tail = &q->next;
}

static struct watch **find_watch(struct hv *hv, const char *uuid)
{
    struct watch **w = &hv->watches;

    while (*w != NULL && strcmp((*w)->uuid, uuid) != 0)
        w = &(*w)->next;
    return w;
}

/* Closing alone does not take it out of epoll while a child that was just forked has a copy. */
static void drop(struct hv *hv, struct watch **at)
{
    struct watch *w = *at;

    *at = w->next;
    epoll_ctl(hv->epoll_fd, EPOLL_CTL_DEL, msgconn_fd(w->conn), NULL);
    msgconn_free(&w->conn);
    free(w);
}

static int subscribe(struct hv *hv, struct watch *w, struct err *e)
{
    Migrd__Xvm__Request q = MIGRD__XVM__REQUEST__INIT;
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = w };
    struct xvm_client c;
    char dir[RUNDIR_LEN];

    driver_dir(hv, w->uuid, dir);
    if (xvm_connect(&c, dir, e) < 0)
        return -1;
    w->conn = c.conn;
    q.serial = 1;
    q.op = MIGRD__XVM__OP__OP_SUBSCRIBE;
    if (msgconn_send(w->conn, &q.base, -1, clock_ns() + SUBSCRIBE_TIMEOUT_MS * NS_PER_MS, e) < 0)
        return -1;
    if (epoll_ctl(hv->epoll_fd, EPOLL_CTL_ADD, msgconn_fd(w->conn), &ev) < 0)
        return err_sys(e, "epoll_ctl");
    return 0;
}

static void take_message(struct hv *hv, const struct watch *w, const Migrd__Xvm__Reply *r)
{
    if (r->event != NULL && r->event->type < HV_EV_MAX)
        push(hv, w->uuid, (enum hv_event_type)r->event->type, r->event->detail);
}

static void read_watch(struct hv *hv, struct watch *w)
{
    bool ended = msgconn_fill(w->conn, NULL) < 0;

    for (;;) {
        ProtobufCMessage *m = NULL;
        int r = msgconn_next(w->conn, &m, NULL, NULL);

        if (r <= 0) {
            ended |= r < 0;
            break;
        }
        take_message(hv, w, (Migrd__Xvm__Reply *)m);
        protobuf_c_message_free_unpacked(m, NULL);
    }
    if (ended) {
        push(hv, w->uuid, HV_EV_GONE, "its process has ended");
        drop(hv, find_watch(hv, w->uuid));
    }
}

/* Under the lock. A watch whose domain has ended meanwhile is read to its end first. */
static int watch_locked(struct hv *hv, const char *uuid, struct err *e)
{
    struct watch *w;

    w = *find_watch(hv, uuid);
    if (w != NULL)
        read_watch(hv, w);
    if (*find_watch(hv, uuid) != NULL)
        return 0;
    w = calloc(1, sizeof *w);
    if (w == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    snprintf(w->uuid, sizeof w->uuid, "%s", uuid);
    if (subscribe(hv, w, e) < 0) {
        msgconn_free(&w->conn);
        free(w);
        return -1;
    }
    w->next = hv->watches;
    hv->watches = w;
    return 0;
}

int events_watch(struct hv *hv, const char *uuid, struct err *e)
{
    int r;

    uint64_t one = 1;

    pthread_mutex_lock(&hv->lock);
    r = hv->events_open ? watch_locked(hv, uuid, e) : 0;
    if (hv->events != NULL && write(hv->wake_fd, &one, sizeof one) < 0 && errno != EAGAIN)
        r = err_sys(e, "eventfd");
    pthread_mutex_unlock(&hv->lock);
    return r;
}

void events_forget(struct hv *hv, const char *uuid)
{
    struct watch **w;

    pthread_mutex_lock(&hv->lock);
    w = find_watch(hv, uuid);
    if (*w != NULL)
        drop(hv, w);
    pthread_mutex_unlock(&hv->lock);
}

/* Under the lock: whatever runs now and is not watched yet. */
static void watch_all(struct hv *hv)
{
    DIR *d = opendir(hv->run_dir);
    struct dirent *x;

    if (d == NULL)
        return;
    while ((x = readdir(d)) != NULL)
        if (rundir_is_uuid(x->d_name))
            watch_locked(hv, x->d_name, NULL);
    closedir(d);
}

/* Under the lock. */
static int open_locked(struct hv *hv, struct err *e)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };
    struct epoll_event wake = { .events = EPOLLIN, .data.ptr = &hv->wake_fd };

    if (hv->events_open)
        return 0;
    hv->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    hv->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    hv->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (hv->epoll_fd < 0 || hv->inotify_fd < 0 || hv->wake_fd < 0)
        return err_sys(e, "xvm: event descriptors");
    if (inotify_add_watch(hv->inotify_fd, hv->run_dir, IN_MOVED_TO | IN_ONLYDIR) < 0)
        return err_sys(e, "xvm: watching %s", hv->run_dir);
    if (epoll_ctl(hv->epoll_fd, EPOLL_CTL_ADD, hv->inotify_fd, &ev) < 0 ||
        epoll_ctl(hv->epoll_fd, EPOLL_CTL_ADD, hv->wake_fd, &wake) < 0)
        return err_sys(e, "epoll_ctl");
    hv->events_open = true;
    watch_all(hv);
    return 0;
}

static void close_fds(struct hv *hv)
{
    io_close(&hv->inotify_fd);
    io_close(&hv->wake_fd);
    io_close(&hv->epoll_fd);
}

static bool pop(struct hv *hv, struct hv_event *out)
{
    struct queued_event *q = hv->events;

    if (q == NULL)
        return false;
    hv->events = q->next;
    if (hv->events == NULL)
        hv->events_tail = &hv->events;
    *out = q->ev;
    free(q);
    return true;
}

void events_close(struct hv *hv)
{
    struct hv_event ev;

    while (hv->watches != NULL)
        drop(hv, &hv->watches);
    while (pop(hv, &ev))
        ;
    close_fds(hv);
}

static void read_wake(struct hv *hv)
{
    uint64_t n;

    while (read(hv->wake_fd, &n, sizeof n) > 0)
        ; /* the queue is looked at in any case */
}

static void read_inotify(struct hv *hv)
{
    char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    ssize_t n;

    while ((n = read(hv->inotify_fd, buf, sizeof buf)) > 0)
        ; /* which folder does not matter: look at all */
    watch_all(hv);
}

int driver_event_fd(struct hv *hv)
{
    int fd;

    pthread_mutex_lock(&hv->lock);
    if (open_locked(hv, NULL) < 0)
        close_fds(hv);
    fd = hv->epoll_fd;
    pthread_mutex_unlock(&hv->lock);
    return fd;
}

int driver_next_event(struct hv *hv, struct hv_event *out, struct err *e)
{
    struct epoll_event ev;
    int n = 1, r = 0;

    pthread_mutex_lock(&hv->lock);
    if (open_locked(hv, e) < 0) {
        close_fds(hv);
        r = -1;
    }
    while (r == 0 && !(r = pop(hv, out)) && n > 0) {
        /* One at a time: what one event does may end the watch that the next one is of. */
        n = epoll_wait(hv->epoll_fd, &ev, 1, 0);
        if (n < 0 && errno != EINTR)
            r = err_sys(e, "epoll_wait");
        if (n != 1)
            continue;
        if (ev.data.ptr == NULL)
            read_inotify(hv);
        else if (ev.data.ptr == &hv->wake_fd)
            read_wake(hv);
        else
            read_watch(hv, ev.data.ptr);
    }
    pthread_mutex_unlock(&hv->lock);
    return r;
}
