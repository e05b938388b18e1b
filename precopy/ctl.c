/* SPDX-License-Identifier: ISC */
/*
 * One mutex guards everything, the msgconn included. The thread polls the socket and
 * an eventfd (kicked by ctl_send when output is left over, and by ctl_free), reads what
 * is there, files it, and wakes the waiter. A waiter polls the socket too: the answers it
 * waits for come while the guest stands still, and a hand-over from thread to thread takes as
 * long as one from process to process. Whoever comes first reads; what the thread has
 * read makes `wake` readable.
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
    struct msgconn *conn;
    struct mail mail[CTL_MAIL_MAX];
    unsigned n_mail;
    struct tr_conn *watch[CTL_WATCH_MAX];
    unsigned n_watch;
    bool cancelled, gone, held, stop, aborted;
    bool waiting; /* somebody is in ctl_wait */
    bool have_params;
    Migrd__SetParams params;
    char reason[300];

    pthread_t thread; /* set once */
    int kick, wake;
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
    c->params.stop = c->params.stop || m->stop;
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

static void make_readable(int event)
{
    uint64_t one = 1;

    if (write(event, &one, sizeof one) < 0)
        log_debug("worker", "an eventfd is readable already");
}

static void drain(int event)
{
    uint64_t n;

    if (read(event, &n, sizeof n) < 0)
        log_debug("worker", "wake-up without a cause");
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

        pthread_mutex_unlock(&c->lock);
        poll(pf, 2, -1);
        if ((pf[0].revents & POLLIN) != 0)
            drain(c->kick);
        pthread_mutex_lock(&c->lock);
        if ((pf[1].revents & (POLLIN | POLLHUP | POLLERR)) != 0)
            read_all(c);
        if (c->waiting)
            make_readable(c->wake);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

struct ctl *ctl_new(int fd, struct err *e)
{
    struct ctl *c = calloc(1, sizeof *c);

    if (c == NULL) {
        close(fd);
        err_set(e, ERR_MEMORY, "out of memory for the line to migrd");
        return NULL;
    }
    migrd__set_params__init(&c->params);
    pthread_mutex_init(&c->lock, NULL);
    c->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->conn = msgconn_new(fd, &migrd__to_worker__descriptor, MSGCONN_MAX_LEN);
    if (c->conn == NULL || c->kick < 0 || c->wake < 0 ||
        pthread_create(&c->thread, NULL, reader, c) != 0) {
        err_sys(e, "cannot set up the line to migrd");
        msgconn_free(&c->conn);
        io_close(&c->kick);
        io_close(&c->wake);
        free(c);
        return NULL;
    }
    return c;
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
    make_readable(c->kick);
    pthread_join(c->thread, NULL);
    flush_last(c);
    msgconn_free(&c->conn);
    for (unsigned i = 0; i < c->n_mail; i++) {
        io_close(&c->mail[i].fd);
        migrd__to_worker__free_unpacked(c->mail[i].m, NULL);
    }
    io_close(&c->kick);
    io_close(&c->wake);
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
            make_readable(c->kick);
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

/* With the lock, which is given away meanwhile. False when the time is over. */
static bool wait_for_more(struct ctl *c, uint64_t deadline_ns)
{
    struct pollfd pf[2] = { { .fd = c->wake, .events = POLLIN },
        { .fd = c->gone ? -1 : msgconn_fd(c->conn), .events = POLLIN } };
    struct timespec ts;
    uint64_t now = clock_ns(), left = deadline_ns > now ? deadline_ns - now : 0;
    int r;

    ts = (struct timespec){ (time_t)(left / NS_PER_S), (long)(left % NS_PER_S) };
    c->waiting = true;
    pthread_mutex_unlock(&c->lock);
    r = ppoll(pf, 2, deadline_ns == IO_FOREVER ? NULL : &ts, NULL);
    pthread_mutex_lock(&c->lock);
    c->waiting = false;
    if (pf[0].revents != 0)
        drain(c->wake);
    if (r > 0 && pf[1].revents != 0)
        read_all(c);
    return r != 0;
}

int ctl_wait(struct ctl *c, Migrd__ToWorker__BodyCase want, uint64_t deadline_ns,
    Migrd__ToWorker **out, int *fd, struct err *e)
{
    bool late = false;
    int r = 0;

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
        if (late) {
            r = err_set(e, ERR_TIMEOUT, "migrd did not answer in time");
            break;
        }
        late = !wait_for_more(c, deadline_ns);
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
