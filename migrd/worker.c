/* SPDX-License-Identifier: ISC */
/*
 * Three libuv handles per worker: process, poll of the socket, timer (limit, then grace).
 * `ended` needs two things, in any order: the process has exited, and its last messages have
 * been read; so the exit callback drains the socket first. Memory goes when the
 * handles' close callbacks have all run.
 */
#define _GNU_SOURCE
#include "migrd/worker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/msgconn.h"

#define WORKER_FD 3

struct worker {
    struct migrd *m;
    struct worker_calls calls;
    void *arg;
    struct msgconn *conn;
    Migrd__Finished *fin;
    uv_process_t process;
    uv_poll_t poll;
    uv_timer_t timer;
    unsigned open_handles;
    bool poll_open, exited;
    int pid;
};

static void handle_closed(uv_handle_t *h)
{
    struct worker *w = h->data;

    if (--w->open_handles > 0)
        return;
    msgconn_free(&w->conn);
    if (w->fin != NULL)
        migrd__finished__free_unpacked(w->fin, NULL);
    free(w);
}

static void stop_poll(struct worker *w)
{
    if (w->poll_open)
        uv_close((uv_handle_t *)&w->poll, handle_closed);
    w->poll_open = false;
}

static void time_is_up(uv_timer_t *t)
{
    struct worker *w = t->data;

    log_warn("worker", "pid %d %s: killed", w->pid,
        w->fin != NULL ? "has finished but does not go" : "outlives its limit");
    worker_kill(w);
}

/* Takes Finished out of the message, so that it can be kept. */
static void take_finished(struct worker *w, Migrd__FromWorker *fw)
{
    if (w->fin != NULL)
        migrd__finished__free_unpacked(w->fin, NULL);
    w->fin = fw->finished;
    fw->finished = NULL;
    fw->body_case = MIGRD__FROM_WORKER__BODY__NOT_SET;
    uv_timer_start(&w->timer, time_is_up, WORKER_GRACE_MS, 0);
}

/* Hands out what has come. False: the stream is broken. */
static bool deliver(struct worker *w)
{
    ProtobufCMessage *msg;
    struct err e;
    int r;

    while ((r = msgconn_next(w->conn, &msg, NULL, &e)) == 1) {
        Migrd__FromWorker *fw = (Migrd__FromWorker *)msg;

        if (fw->body_case == MIGRD__FROM_WORKER__BODY_FINISHED)
            take_finished(w, fw);
        else if (w->calls.message != NULL && fw->body_case != MIGRD__FROM_WORKER__BODY__NOT_SET)
            w->calls.message(w->arg, fw);
        migrd__from_worker__free_unpacked(fw, NULL);
    }
    if (r < 0)
        log_error("worker", "pid %d: %s", w->pid, e.text);
    return r == 0;
}

static void update_poll(struct worker *w, int more_to_write);

static void socket_ready(uv_poll_t *h, int status, int events)
{
    struct worker *w = h->data;
    struct err e;
    bool up = status == 0;
    int more = 0;

    if (up && (events & UV_READABLE) != 0)
        up = msgconn_fill(w->conn, &e) == 0;
    if (!deliver(w)) {
        worker_kill(w);
        up = false;
    }
    if (up && w->poll_open)
        up = (more = msgconn_flush(w->conn, &e)) >= 0;
    if (!up)
        stop_poll(w); /* its exit follows; if it hangs without a socket the limit or this ends it */
    else if (w->poll_open)
        update_poll(w, more);
    if (!up && !w->exited && w->fin == NULL)
        uv_timer_start(&w->timer, time_is_up, WORKER_GRACE_MS, 0);
}

static void update_poll(struct worker *w, int more_to_write)
{
    uv_poll_start(&w->poll, UV_READABLE | (more_to_write ? UV_WRITABLE : 0), socket_ready);
}

static void process_exited(uv_process_t *p, int64_t status, int signal)
{
    struct worker *w = p->data;
    char how[96];
    struct err e;

    w->exited = true;
    if (w->poll_open) {
        msgconn_fill(w->conn, &e);
        deliver(w);
    }
    if (signal != 0)
        snprintf(
            how, sizeof how, "the worker was ended by signal %d (%s)", signal, strsignal(signal));
    else
        snprintf(how, sizeof how, "the worker ended with status %d", (int)status);
    log_debug("worker", "pid %d: %s", w->pid, how);
    if (w->calls.ended != NULL)
        w->calls.ended(w->arg, w->fin, how);
    w->calls = (struct worker_calls){ NULL, NULL };
    stop_poll(w);
    uv_close((uv_handle_t *)&w->timer, handle_closed);
    uv_close((uv_handle_t *)&w->process, handle_closed);
}

static int spawn(struct worker *w, int fd, struct err *e)
{
    char program[PATHS_LEN];
    char option[] = "--cpus";
    char *argv[] = { program, option, w->m->config.migration_cpus, NULL };
    uv_stdio_container_t io[WORKER_FD + 1] = { { .flags = UV_IGNORE }, { .flags = UV_IGNORE },
        { .flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO },
        { .flags = UV_INHERIT_FD, .data.fd = fd } };
    uv_process_options_t o = {
        .file = program, .args = argv, .stdio = io, .stdio_count = 4, .exit_cb = process_exited
    };
    int r;

    if (paths_program(program, "migrd-worker", e) < 0)
        return -1;
    r = uv_spawn(w->m->loop, &w->process, &o);
    w->open_handles++; /* initialised even when it fails */
    if (r < 0) {
        uv_close((uv_handle_t *)&w->process, handle_closed);
        return err_set(e, ERR_SYSTEM, "cannot start %s: %s", program, uv_strerror(r));
    }
    w->pid = w->process.pid;
    return 0;
}

int worker_start(struct migrd *m, uint64_t limit_ms, const struct worker_calls *calls, void *arg,
    struct worker **out, struct err *e)
{
    struct worker *w = calloc(1, sizeof *w);
    int sv[2];

    if (w == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0) {
        free(w);
        return err_set(e, ERR_SYSTEM, "cannot make a socket pair for a worker");
    }
    w->m = m;
    w->process.data = w->poll.data = w->timer.data = w;
    w->conn = msgconn_new(sv[0], &migrd__from_worker__descriptor, WORKER_MESSAGE_MAX);
    if (w->conn == NULL) {
        close(sv[1]);
        free(w);
        return err_set(e, ERR_MEMORY, "out of memory for a worker");
    }
    uv_timer_init(m->loop, &w->timer);
    w->open_handles = 1;
    if (spawn(w, sv[1], e) < 0) {
        close(sv[1]);
        uv_close((uv_handle_t *)&w->timer, handle_closed);
        return -1;
    }
    close(sv[1]);
    w->calls = *calls;
    w->arg = arg;
    uv_poll_init(m->loop, &w->poll, msgconn_fd(w->conn));
    w->open_handles++;
    w->poll_open = true;
    update_poll(w, 0);
    if (limit_ms > 0)
        uv_timer_start(&w->timer, time_is_up, limit_ms, 0);
    *out = w;
    return 0;
}

void worker_send(struct worker *w, const Migrd__ToWorker *m, int fd)
{
    struct err e;
    int more;

    if (!w->poll_open)
        return;
    if (msgconn_queue(w->conn, &m->base, fd, &e) < 0 || (more = msgconn_flush(w->conn, &e)) < 0) {
        log_error("worker", "pid %d cannot be told: %s", w->pid, e.text);
        return;
    }
    update_poll(w, more);
}

void worker_cancel(struct worker *w, const char *reason)
{
    Migrd__Cancel c = MIGRD__CANCEL__INIT;
    Migrd__ToWorker m = MIGRD__TO_WORKER__INIT;

    c.reason = (char *)(uintptr_t)reason;
    m.body_case = MIGRD__TO_WORKER__BODY_CANCEL;
    m.cancel = &c;
    worker_send(w, &m, -1);
}

void worker_kill(struct worker *w)
{
    if (!w->exited)
        uv_process_kill(&w->process, SIGKILL);
}

void worker_forget(struct worker *w)
{
    w->calls = (struct worker_calls){ NULL, NULL };
}

int worker_pid(const struct worker *w)
{
    return w->pid;
}
