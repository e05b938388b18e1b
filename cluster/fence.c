/* SPDX-License-Identifier: ISC */
/*
 * A job switches one node off, or asks its devices. It has a turn for each device that is at it; a
 * turn runs the agent once or more, one run after the other:
 *
 *   off     exit 0         then status
 *           else, or late  the device has failed
 *   status  exit 2 (off)   confirmed
 *           else           again after a second, while the device's time to confirm lasts; then
 * failed: a device that says "done" and goes on saying "on" has lied check   exit 0 or 2    answers
 *           else           does not
 *
 * A level has succeeded when all of its devices are confirmed; its failure is known when all have
 * ended, and then the next level begins.
 *
 * A run has four handles: process, its input, its output, a timer. An agent has a process group of
 * its own, which is killed when its time is over. It has ended when it was waited for and its
 * output is at its end; somebody whom it left behind may hold that open: only GRACE_MS are waited
 * for it. All handles are closed before the next run; the last close callback goes on (turn_next).
 */
#define _GNU_SOURCE
#include "cluster/fence.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "cluster/fence_conf.h"

#define OUTPUT_MAX 1024u /* of an agent that is kept */
#define TEXT_MAX 1000u
#define GRACE_MS 200u
#define KILL_MS 2000u  /* for a killed agent to be gone */
#define AGAIN_MS 1000u /* between two questions */
#define STATUS_OFF 2   /* exit status of `status`, by fence-agents' interface */

enum act { ACT_OFF, ACT_STATUS };

struct turn {
    struct job *job;
    struct turn *next;
    const struct fence_device *d;
    const struct fence_use *use;
    enum act act;
    uint64_t confirm_ms; /* until then, of the monotonic clock */
    /* the run */
    uv_process_t process;
    uv_pipe_t in, out;
    uv_timer_t timer;
    uv_write_t write;
    unsigned handles; /* to be closed */
    bool spawned, exited, ended, late, pausing, finishing;
    int64_t status;
    int signal;
    char why[200]; /* it could not be run */
    char input[FENCE_INPUT + 128], read[512], output[OUTPUT_MAX + 1];
    size_t n_output;
};

struct job {
    struct fence *f;
    struct job *next;
    const struct fence_target *t;
    bool check, level_ok;
    unsigned level;
    struct turn *turns; /* those that are at it */
    uint64_t began_ms;
    fence_done *done;
    void *arg;
    char text[TEXT_MAX];
};

struct fence {
    uv_loop_t *loop;
    struct fence_conf *conf;
    struct job *jobs;
    bool stopped;
};

static void job_go_on(struct job *j);
static void turn_next(struct turn *t);

static uint64_t now_ms(void)
{
    return clock_ns() / NS_PER_MS;
}

static const char *act_name(enum act a)
{
    return a == ACT_OFF ? "off" : "status";
}

static void say(struct job *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct job *j, const char *fmt, ...)
{
    size_t n = strlen(j->text);
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(j->text + n, sizeof j->text - n, fmt, ap);
    va_end(ap);
}

/* ---- one run of an agent ---- */

/* As one line; what is no ASCII may be anything. */
static void tidy_output(struct turn *t)
{
    while (t->n_output > 0 && (unsigned char)t->output[t->n_output - 1] <= ' ')
        t->n_output--;
    t->output[t->n_output] = '\0';
    for (size_t i = 0; i < t->n_output; i++)
        if (t->output[i] < ' ' || t->output[i] > '~')
            t->output[i] = t->output[i] == '\n' ? '|' : ' ';
}

static void on_handle_closed(uv_handle_t *h)
{
    struct turn *t = h->data;

    if (--t->handles == 0)
        turn_next(t);
}

static void close_one(uv_handle_t *h)
{
    if (!uv_is_closing(h))
        uv_close(h, on_handle_closed);
}

static void finish(struct turn *t)
{
    if (t->finishing)
        return;
    t->finishing = true;
    close_one((uv_handle_t *)&t->timer);
    if (t->pausing)
        return;
    if (t->spawned)
        close_one((uv_handle_t *)&t->process);
    close_one((uv_handle_t *)&t->in);
    close_one((uv_handle_t *)&t->out);
}

/* Also whom it has left behind. */
static void kill_group(const struct turn *t)
{
    if (t->spawned && t->process.pid > 1)
        kill(-t->process.pid, SIGKILL);
}

static void on_time(uv_timer_t *timer)
{
    struct turn *t = timer->data;

    kill_group(t);
    if (t->exited || t->late) {
        finish(t);
        return;
    }
    t->late = true;
    uv_timer_start(&t->timer, on_time, KILL_MS, 0);
}

static void on_exit_of(uv_process_t *p, int64_t status, int sig)
{
    struct turn *t = p->data;

    t->exited = true;
    t->status = status;
    t->signal = sig;
    if (t->ended)
        finish(t);
    else if (!t->finishing)
        uv_timer_start(&t->timer, on_time, GRACE_MS, 0);
}

static void give_buffer(uv_handle_t *h, size_t want, uv_buf_t *buf)
{
    struct turn *t = h->data;

    (void)want;
    *buf = uv_buf_init(t->read, sizeof t->read);
}

static void on_output(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct turn *t = s->data;
    size_t room = OUTPUT_MAX - t->n_output;

    if (n > 0) {
        room = (size_t)n < room ? (size_t)n : room;
        memcpy(t->output + t->n_output, buf->base, room);
        t->n_output += room;
    } else if (n < 0) {
        uv_read_stop(s);
        t->ended = true;
        if (t->exited)
            finish(t);
    }
}

static void on_written(uv_write_t *w, int status)
{
    struct turn *t = w->data;

    (void)status; /* an agent that reads nothing says so by its exit */
    close_one((uv_handle_t *)&t->in);
}

static void fill_input(struct turn *t)
{
    snprintf(t->input, sizeof t->input, "action=%s\n%s%s%s%s", act_name(t->act), t->d->input,
        t->use->plug[0] != '\0' ? "plug=" : "", t->use->plug, t->use->plug[0] != '\0' ? "\n" : "");
}

static int spawn(struct turn *t, int output)
{
    static char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin", locale[] = "LC_ALL=C";
    char *env[] = { path, locale, NULL }, *argv[] = { (char *)t->d->agent, NULL };
    uv_stdio_container_t io[3] = {
        { .flags = UV_CREATE_PIPE | UV_READABLE_PIPE, .data.stream = (uv_stream_t *)&t->in },
        { .flags = UV_INHERIT_FD, .data.fd = output },
        { .flags = UV_INHERIT_FD, .data.fd = output },
    };
    const uv_process_options_t o = { .exit_cb = on_exit_of,
        .file = t->d->agent,
        .args = argv,
        .env = env,
        .cwd = "/",
        .flags = UV_PROCESS_DETACHED, /* a session, and thereby a group, of its own */
        .stdio_count = 3,
        .stdio = io };
    int r = uv_spawn(t->job->f->loop, &t->process, &o);

    t->process.data = t;
    t->handles++; /* libuv has made it a handle even if it failed */
    t->spawned = true;
    if (r != 0)
        t->process.pid = 0;
    return r;
}

static void reset_run(struct turn *t)
{
    t->spawned = t->exited = t->ended = t->late = t->pausing = t->finishing = false;
    t->status = 0;
    t->signal = 0;
    t->why[0] = '\0';
    t->n_output = 0;
    t->handles = 1;
    uv_update_time(
        t->job->f->loop); /* limits count from now, not from when this turn of it began */
    uv_timer_init(t->job->f->loop, &t->timer);
    t->timer.data = t;
}

static void run(struct turn *t, enum act act)
{
    int p[2], r;
    uv_buf_t buf;

    reset_run(t);
    t->act = act;
    fill_input(t);
    uv_pipe_init(t->job->f->loop, &t->in, 0);
    uv_pipe_init(t->job->f->loop, &t->out, 0);
    t->in.data = t->out.data = t->write.data = t;
    t->handles += 2;
    if (pipe2(p, O_CLOEXEC) < 0) {
        snprintf(t->why, sizeof t->why, "pipe: %s", strerror(errno));
        finish(t);
        return;
    }
    r = uv_pipe_open(&t->out, p[0]);
    if (r != 0)
        close(p[0]);
    if (r == 0)
        r = spawn(t, p[1]);
    close(p[1]);
    if (r != 0) {
        snprintf(t->why, sizeof t->why, "%.120s: %s", t->d->agent, uv_strerror(r));
        finish(t);
        return;
    }
    buf = uv_buf_init(t->input, (unsigned)strlen(t->input));
    uv_read_start((uv_stream_t *)&t->out, give_buffer, on_output);
    if (uv_write(&t->write, (uv_stream_t *)&t->in, &buf, 1, on_written) != 0)
        close_one((uv_handle_t *)&t->in);
    uv_timer_start(&t->timer, on_time, t->d->timeout_s * UINT64_C(1000), 0);
}

static void on_pause(uv_timer_t *timer)
{
    finish(timer->data);
}

/* Then turn_next again. */
static void pause_turn(struct turn *t)
{
    reset_run(t);
    t->pausing = true;
    uv_timer_start(&t->timer, on_pause, AGAIN_MS, 0);
}

/* ---- a device's turn ---- */

static void log_run(struct turn *t)
{
    tidy_output(t);
    log_info("fence", "node %s: %s: %s: %s %lld%s%s", t->job->t->name, t->d->name, act_name(t->act),
        t->why[0] != '\0' ? "not run, status"
        : t->late         ? "killed, status"
                          : "exit status",
        (long long)t->status, t->why[0] != '\0' || t->n_output > 0 ? ": " : "",
        t->why[0] != '\0' ? t->why : t->output);
}

static bool ran(const struct turn *t)
{
    return t->why[0] == '\0' && !t->late && t->signal == 0 && t->exited;
}

static void why_failed(const struct turn *t, char *text, size_t size)
{
    if (t->why[0] != '\0')
        snprintf(text, size, "%s", t->why);
    else if (t->late)
        snprintf(text, size, "no answer within %u s, killed", t->d->timeout_s);
    else if (t->signal != 0)
        snprintf(text, size, "ended by signal %d", t->signal);
    else
        snprintf(text, size, "exit status %lld%s%.120s", (long long)t->status,
            t->n_output > 0 ? ": " : "", t->output);
}

static void turn_end(struct turn *t, bool ok, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void turn_end(struct turn *t, bool ok, const char *fmt, ...)
{
    struct job *j = t->job;
    struct turn **at = &j->turns;
    char text[400];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (j->check)
        say(j, "%s%s: %s", j->text[0] != '\0' ? "; " : "", t->d->name, text);
    else
        say(j, "%slevel %u, %s: %s", j->text[0] != '\0' ? "; " : "", j->level, t->d->name, text);
    j->level_ok = j->level_ok && ok;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    free(t);
    if (j->turns == NULL)
        job_go_on(j);
}

static void check_ended(struct turn *t)
{
    char why[200];

    if (ran(t) && (t->status == 0 || t->status == STATUS_OFF)) {
        turn_end(t, true, "says that it is %s", t->status == 0 ? "on" : "off");
        return;
    }
    why_failed(t, why, sizeof why);
    turn_end(t, false, "does not answer: %s", why);
}

static void off_ended(struct turn *t)
{
    char why[200];

    if (ran(t) && t->status == 0) {
        t->confirm_ms = now_ms() + t->d->confirm_s * UINT64_C(1000);
        run(t, ACT_STATUS);
        return;
    }
    why_failed(t, why, sizeof why);
    turn_end(t, false, "off: %s", why);
}

static void status_ended(struct turn *t)
{
    char why[200];

    if (ran(t) && t->status == STATUS_OFF) {
        turn_end(t, true, "off, and says so");
        return;
    }
    if (now_ms() < t->confirm_ms) {
        pause_turn(t);
        return;
    }
    why_failed(t, why, sizeof why);
    if (ran(t) && t->status == 0)
        turn_end(
            t, false, "off was done, but after %u s it still says that it is on", t->d->confirm_s);
    else
        turn_end(t, false, "off was done, but it does not say so: status: %s", why);
}

static void stopped_turn(struct turn *t)
{
    struct job *j = t->job, **in = &j->f->jobs;
    struct turn **at = &j->turns;

    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    free(t);
    if (j->turns != NULL)
        return;
    while (*in != j)
        in = &(*in)->next;
    *in = j->next;
    free(j);
}

/* All handles of the run are closed. */
static void turn_next(struct turn *t)
{
    if (t->job->f->stopped) {
        stopped_turn(t);
        return;
    }
    if (t->pausing) {
        run(t, ACT_STATUS);
        return;
    }
    log_run(t);
    if (t->job->check)
        check_ended(t);
    else if (t->act == ACT_OFF)
        off_ended(t);
    else
        status_ended(t);
}

/* ---- a job ---- */

static bool begin_turn(struct job *j, const struct fence_use *use)
{
    struct turn *t = calloc(1, sizeof *t);

    if (t == NULL)
        return false;
    t->job = j;
    t->d = &j->f->conf->device[use->device];
    t->use = use;
    t->next = j->turns;
    j->turns = t;
    return true;
}

/* False: no memory for one of them, which counts as a failure of the level. */
static bool begin_level(struct job *j, unsigned level)
{
    bool all = true;

    for (unsigned i = 0; i < j->t->level[level].n; i++)
        all = begin_turn(j, &j->t->level[level].use[i]) && all;
    return all;
}

/* A run that fails at once ends in a later turn of the loop: the list stays as it is. */
static void run_all(struct job *j, enum act act)
{
    for (struct turn *t = j->turns; t != NULL; t = t->next)
        run(t, act);
}

static void job_end(struct job *j, bool ok)
{
    struct job **at = &j->f->jobs;
    char text[TEXT_MAX + 200];

    while (*at != j)
        at = &(*at)->next;
    *at = j->next;
    snprintf(text, sizeof text, "node %s%s (%.1f s): %s", j->t->name,
        j->check ? ""
        : ok     ? " is off, confirmed"
                 : " is not known to be off",
        (double)(now_ms() - j->began_ms) / 1000, j->text);
    if (ok)
        log_info("fence", "%s", text);
    else
        log_error("fence", "%s", text);
    j->done(j->arg, ok, text);
    free(j);
}

/* Nothing is at it: the next level, or the end. */
static void job_go_on(struct job *j)
{
    bool over = j->check || (j->level > 0 && j->level_ok);

    while (!over && j->level < FENCE_LEVELS) {
        j->level_ok = begin_level(j, j->level++);
        if (j->turns == NULL)
            continue;
        run_all(j, ACT_OFF);
        return;
    }
    job_end(j, over && j->level_ok);
}

static struct job *job_new(
    struct fence *f, const char *node, bool check, fence_done *done, void *arg, struct err *e)
{
    const struct fence_target *t = fence_conf_target(f->conf, node);
    struct job *j;

    if (t == NULL || f->stopped) {
        err_set(e, ERR_NOT_FOUND, "node %.64s: fence.conf has no [node %.64s]", node, node);
        return NULL;
    }
    for (j = f->jobs; j != NULL && !check; j = j->next)
        if (j->t == t && !j->check) {
            err_set(e, ERR_STATE, "node %s: is being switched off already", t->name);
            return NULL;
        }
    j = calloc(1, sizeof *j);
    if (j == NULL) {
        err_set(e, ERR_MEMORY, "out of memory");
        return NULL;
    }
    *j = (struct job){ .f = f, .t = t, .check = check, .done = done, .arg = arg };
    j->began_ms = now_ms();
    j->next = f->jobs;
    f->jobs = j;
    return j;
}

int fence_node(struct fence *f, const char *node, fence_done *done, void *arg, struct err *e)
{
    struct job *j = job_new(f, node, false, done, arg, e);

    if (j == NULL)
        return -1;
    log_warn("fence", "node %s: is switched off", j->t->name);
    job_go_on(j);
    return 0;
}

static void job_drop(struct job *j)
{
    j->f->jobs = j->next;
    while (j->turns != NULL) {
        struct turn *t = j->turns;

        j->turns = t->next;
        free(t);
    }
    free(j);
}

int fence_check(struct fence *f, const char *node, fence_done *done, void *arg, struct err *e)
{
    struct job *j = job_new(f, node, true, done, arg, e);

    if (j == NULL)
        return -1;
    j->level_ok = true;
    for (unsigned i = 0; i < FENCE_LEVELS; i++)
        if (!begin_level(j, i)) {
            job_drop(j);
            return err_set(e, ERR_MEMORY, "out of memory");
        }
    run_all(j, ACT_STATUS);
    return 0;
}

bool fence_knows(const struct fence *f, const char *node)
{
    return fence_conf_target(f->conf, node) != NULL;
}

unsigned fence_longest_ms(const struct fence *f, const char *node)
{
    const struct fence_target *t = fence_conf_target(f->conf, node);
    unsigned sum = 0;

    for (unsigned i = 0; t != NULL && i < FENCE_LEVELS; i++) {
        unsigned most = 0;

        for (unsigned k = 0; k < t->level[i].n; k++) {
            const struct fence_device *d = &f->conf->device[t->level[i].use[k].device];
            unsigned ms = (2 * d->timeout_s + d->confirm_s) * 1000 + 2 * KILL_MS + AGAIN_MS;

            most = ms > most ? ms : most;
        }
        sum += most;
    }
    return sum;
}

int fence_open(uv_loop_t *loop, const char *file, struct fence **out, struct err *e)
{
    struct fence *f;

    *out = NULL;
    f = calloc(1, sizeof *f);
    if (f == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    f->loop = loop;
    f->conf = fence_conf_read(file, e);
    if (f->conf == NULL) {
        free(f);
        return -1;
    }
    for (unsigned i = 0; i < f->conf->n_devices; i++)
        if (access(f->conf->device[i].agent, X_OK) < 0)
            log_warn("fence", "device %s: %s: %s; install the package fence-agents, or mend %s",
                f->conf->device[i].name, f->conf->device[i].agent, strerror(errno), file);
    *out = f;
    return 0;
}

void fence_stop(struct fence *f)
{
    f->stopped = true;
    for (struct job *j = f->jobs; j != NULL; j = j->next)
        for (struct turn *t = j->turns; t != NULL; t = t->next) {
            if (!t->exited)
                kill_group(t);
            finish(t);
        }
}

void fence_close(struct fence **fp)
{
    struct fence *f = *fp;

    if (f == NULL)
        return;
    *fp = NULL;
    explicit_bzero(f->conf, sizeof *f->conf);
    free(f->conf);
    free(f);
}
