/* SPDX-License-Identifier: ISC */
/*
 * One mutex guards everything, the msgconn included. The thread polls the socket and
 * an eventfd (kicked by ctl_send when output is left over, and by ctl_free), reads what
 * is there, files it, and wakes the waiters.
 *
 *   Cancel      -> `cancelled`; watched connections aborted
 *   end of file -> `gone`;      watched connections aborted
 *   SetParams   -> `params` (merged, newest wins)
 *   the rest    -> mailbox
 */
#define _GNU_SOURCE
#include "precopy/ctl.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/msgconn.h"
#include "precopy/sandbox.h"

#define CLOSE_WAIT_NS (2 * NS_PER_S)

struct mail {
    Migrd__ToWorker *m;
    int fd;
};

struct ctl {
    pthread_mutex_t lock; /* all below */
    pthread_cond_t cond;
    struct msgconn *conn;
    struct mail mail[CTL_MAIL_MAX];
    unsigned n_mail;
    struct tr_conn *watch[CTL_WATCH_MAX];
    unsigned n_watch;
    bool cancelled, gone, held, stop, aborted;
    bool have_params;
    Migrd__SetParams params;
    char reason[300];

    pthread_t thread; /* set once */
    int kick;
};

static void abort_watched(struct ctl *c)
{
    if (c->held)
        return;
    c->aborted = true;
    for (unsigned i = 0; i < c->n_watch; i++)
        tr_abort(c->watch[i]);
}

static void on_cancel(struct ctl *c, const Migrd__Cancel *m)
{
    if (c->cancelled)
        return;
    c->cancelled = true;
    snprintf(c->reason, sizeof c->reason, "%s", m->reason[0] != '\0' ? m->reason : "cancelled");
    abort_watched(c);
}

static void on_gone(struct ctl *c, const struct err *e)
{
    if (c->gone)
        return;
    c->gone = true;
    log_warn("worker", "migrd is gone: %s", e->text);
    abort_watched(c);
}

static void merge_params(struct ctl *c, const Migrd__SetParams *m)
{
    if (m->set_bandwidth) {
        c->params.set_bandwidth = 1;
        c->params.bandwidth = m->bandwidth;
    }
    if (m->set_budget) {
        c->params.set_budget = 1;
        c->params.pause_budget_ms = m->pause_budget_ms;
    }
    c->have_params = true;
}

static void file_message(struct ctl *c, Migrd__ToWorker *m, int fd)
{
    bool keep = false;

    switch (m->body_case) {
    case MIGRD__TO_WORKER__BODY_CANCEL:
        on_cancel(c, m->cancel);
        break;
    case MIGRD__TO_WORKER__BODY_SET_PARAMS:
        merge_params(c, m->set_params);
        break;
    case MIGRD__TO_WORKER__BODY__NOT_SET:
        log_warn("worker", "migrd sent a message of an unknown kind; ignored");
        break;
    case MIGRD__TO_WORKER__BODY_SOURCE:
    case MIGRD__TO_WORKER__BODY_TARGET:
    case MIGRD__TO_WORKER__BODY_QUERY:
    case MIGRD__TO_WORKER__BODY_SAVE:
    case MIGRD__TO_WORKER__BODY_RESTORE:
    case MIGRD__TO_WORKER__BODY_CHANNEL:
    case MIGRD__TO_WORKER__BODY_OFFER_VERDICT:
    case MIGRD__TO_WORKER__BODY_QUERY_VERDICT:
    case MIGRD__TO_WORKER__BODY_STEP:
    default:
        keep = c->n_mail < CTL_MAIL_MAX;
        break;
    }
    if (keep) {
        c->mail[c->n_mail++] = (struct mail){ m, fd };
        return;
    }
    io_close(&fd);
    migrd__to_worker__free_unpacked(m, NULL);
}

static void read_all(struct ctl *c)
{
    struct err e = { 0 };
    int filled = msgconn_fill(c->conn, &e);
    ProtobufCMessage *m;
    int fd, r;

    while ((r = msgconn_next(c->conn, &m, &fd, filled < 0 ? NULL : &e)) == 1)
        file_message(c, (Migrd__ToWorker *)m, fd);
    if (filled < 0 || r < 0)
        on_gone(c, &e);
}

static void *reader(void *arg)
{
    struct ctl *c = arg;
    struct err e = { 0 };

    if (geteuid() == 0 && sandbox_drop_thread(&e) < 0)
        log_debug("worker", "reader of migrd: %s", e.text);
    pthread_mutex_lock(&c->lock);
    while (!c->stop) {
        bool more = !c->gone && msgconn_flush(c->conn, NULL) == 1;
        struct pollfd pf[2] = { { .fd = c->kick, .events = POLLIN },
            { .fd = c->gone ? -1 : msgconn_fd(c->conn),
                .events = (short)(POLLIN | (more ? POLLOUT : 0)) } };
        uint64_t n;

        pthread_mutex_unlock(&c->lock);
        poll(pf, 2, -1);
        if ((pf[0].revents & POLLIN) != 0 && read(c->kick, &n, sizeof n) < 0)
            log_debug("worker", "wake-up without a cause");
        pthread_mutex_lock(&c->lock);
        if ((pf[1].revents & (POLLIN | POLLHUP | POLLERR)) != 0)
            read_all(c);
        pthread_cond_broadcast(&c->cond);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

struct ctl *ctl_new(int fd, struct err *e)
{
    struct ctl *c = calloc(1, sizeof *c);
    pthread_condattr_t attr;

    if (c == NULL) {
        close(fd);
        err_set(e, ERR_MEMORY, "out of memory for the line to migrd");
        return NULL;
    }
    migrd__set_params__init(&c->params);
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->cond, &attr);
    pthread_condattr_destroy(&attr);
    c->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->conn = msgconn_new(fd, &migrd__to_worker__descriptor, MSGCONN_MAX_LEN);
    if (c->conn == NULL || c->kick < 0 || pthread_create(&c->thread, NULL, reader, c) != 0) {
        err_sys(e, "cannot set up the line to migrd");
        msgconn_free(&c->conn);
        io_close(&c->kick);
        free(c);
        return NULL;
    }
    return c;
}

static void kick(struct ctl *c)
{
    uint64_t one = 1;

    if (write(c->kick, &one, sizeof one) < 0)
        log_debug("worker", "the reader has been woken already");
}

static void flush_last(struct ctl *c)
{
    uint64_t deadline = clock_ns() + CLOSE_WAIT_NS;

    if (c->gone)
        return;
    while (msgconn_flush(c->conn, NULL) == 1)
        if (io_wait(msgconn_fd(c->conn), POLLOUT, deadline, NULL) < 0)
            return;
}

void ctl_free(struct ctl **cp)
{
    struct ctl *c = *cp;

    if (c == NULL)
        return;
    *cp = NULL;
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_mutex_unlock(&c->lock);
    kick(c);
    pthread_join(c->thread, NULL);
    flush_last(c);
    msgconn_free(&c->conn);
    for (unsigned i = 0; i < c->n_mail; i++) {
        io_close(&c->mail[i].fd);
        migrd__to_worker__free_unpacked(c->mail[i].m, NULL);
    }
    io_close(&c->kick);
    pthread_cond_destroy(&c->cond);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

int ctl_send(struct ctl *c, const Migrd__FromWorker *m, struct err *e)
{
    int r = -1;

    pthread_mutex_lock(&c->lock);
    if (c->gone) {
        err_set(e, ERR_PEER, "migrd is gone");
    } else if (msgconn_queue(c->conn, &m->base, -1, e) == 0) {
        r = msgconn_flush(c->conn, e);
        if (r == 1) {
            kick(c);
            r = 0;
        }
    }
    pthread_mutex_unlock(&c->lock);
    return r;
}

/* Called with the lock. */
static bool ended(const struct ctl *c, bool waiting, struct err *e)
{
    if (c->cancelled && !c->held) {
        err_set(e, ERR_CANCELLED, "%s", c->reason);
        return true;
    }
    if (c->gone && (!c->held || waiting)) {
        err_set(e, ERR_PEER, "migrd on this host is gone");
        return true;
    }
    return false;
}

static int take(struct ctl *c, Migrd__ToWorker__BodyCase want, Migrd__ToWorker **out, int *fd)
{
    for (unsigned i = 0; i < c->n_mail; i++) {
        if (want != MIGRD__TO_WORKER__BODY__NOT_SET && c->mail[i].m->body_case != want)
            continue;
        *out = c->mail[i].m;
        if (fd != NULL)
            *fd = c->mail[i].fd;
        else
            io_close(&c->mail[i].fd);
        c->n_mail--;
        memmove(&c->mail[i], &c->mail[i + 1], (c->n_mail - i) * sizeof c->mail[0]);
        return 1;
    }
    return 0;
}

int ctl_wait(struct ctl *c, Migrd__ToWorker__BodyCase want, uint64_t deadline_ns,
    Migrd__ToWorker **out, int *fd, struct err *e)
{
    struct timespec ts = { .tv_sec = (time_t)(deadline_ns / NS_PER_S),
        .tv_nsec = (long)(deadline_ns % NS_PER_S) };
    int r = 0, w = 0;

    pthread_mutex_lock(&c->lock);
    for (;;) {
        if (c->cancelled && !c->held && ended(c, true, e)) {
            r = -1;
            break;
        }
        if (take(c, want, out, fd))
            break;
        if (ended(c, true, e)) {
            r = -1;
            break;
        }
        if (w == ETIMEDOUT) {
            r = err_set(e, ERR_TIMEOUT, "migrd did not answer in time");
            break;
        }
        if (deadline_ns == IO_FOREVER)
            pthread_cond_wait(&c->cond, &c->lock);
        else
            w = pthread_cond_timedwait(&c->cond, &c->lock, &ts);
    }
    pthread_mutex_unlock(&c->lock);
    return r;
}

int ctl_first(struct ctl *c, uint64_t deadline_ns, Migrd__ToWorker **out, int *fd, struct err *e)
{
    return ctl_wait(c, MIGRD__TO_WORKER__BODY__NOT_SET, deadline_ns, out, fd, e);
}

bool ctl_ended(struct ctl *c, struct err *e)
{
    bool r;

    pthread_mutex_lock(&c->lock);
    r = ended(c, false, e);
    pthread_mutex_unlock(&c->lock);
    return r;
}

void ctl_watch(struct ctl *c, struct tr_conn *conn)
{
    pthread_mutex_lock(&c->lock);
    if (c->n_watch < CTL_WATCH_MAX)
        c->watch[c->n_watch++] = conn;
    if (c->aborted)
        tr_abort(conn);
    pthread_mutex_unlock(&c->lock);
}

void ctl_unwatch(struct ctl *c, struct tr_conn *conn)
{
    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < c->n_watch; i++)
        if (c->watch[i] == conn)
            c->watch[i] = c->watch[--c->n_watch];
    pthread_mutex_unlock(&c->lock);
}

bool ctl_hold(struct ctl *c, struct err *e)
{
    bool ok;

    pthread_mutex_lock(&c->lock);
    ok = !ended(c, true, e);
    if (ok)
        c->held = true;
    pthread_mutex_unlock(&c->lock);
    return ok;
}

void ctl_release(struct ctl *c)
{
    pthread_mutex_lock(&c->lock);
    c->held = false;
    if (c->cancelled || c->gone)
        abort_watched(c);
    pthread_mutex_unlock(&c->lock);
}

bool ctl_params(struct ctl *c, Migrd__SetParams *out)
{
    bool have;

    pthread_mutex_lock(&c->lock);
    have = c->have_params;
    if (have) {
        *out = c->params;
        migrd__set_params__init(&c->params);
        c->have_params = false;
    }
    pthread_mutex_unlock(&c->lock);
    return have;
}
