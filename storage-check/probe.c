/* SPDX-License-Identifier: ISC */
/*
 * storage_ask: one run of `migrd-storage --serve`. The request goes to its stdin and is
 * closed, the reply is its stdout up to the end; what it writes to stderr goes into our log,
 * line by line. All three are pipes that are served at once, so that nobody waits for the
 * other. A process that is not done by the deadline is killed; it takes its children along
 * (they ask for that), and none of them holds our end of stdout, so that even one
 * that cannot be killed does not keep us.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/paths.h"
#include "storage-check/identity_internal.h"

#define PROGRAM "migrd-storage"
#define GRACE_MS 5000u /* beyond the time-out of the request */
#define EXIT_TRIES 100 /* of 5 ms, from the end of its reply to its own */
#define SAYS_MAX 2048u

enum { IN, OUT, ERR, ENDS };

struct ask {
    pid_t pid;
    int fd[ENDS]; /* our ends; -1: closed */
    const uint8_t *request;
    size_t request_len, sent;
    uint8_t *reply;
    size_t reply_len;
    char says[SAYS_MAX]; /* a line of its stderr, so far */
    size_t says_len;
};

/* --- the program --- */

static int spawn_with(struct ask *a, const char *program, int theirs[ENDS], struct err *e)
{
    char *argv[] = { (char *)(uintptr_t)program, (char *)(uintptr_t) "--serve", NULL };
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    int r;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    for (int i = 0; i < ENDS; i++)
        posix_spawn_file_actions_adddup2(&files, theirs[i], i);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    r = posix_spawn(&a->pid, program, &files, &attr, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    return r == 0 ? 0 : err_set(e, ERR_SYSTEM, "cannot start %s: %s", program, strerror(r));
}

static int start(struct ask *a, const char *program, struct err *e)
{
    int theirs[ENDS] = { -1, -1, -1 }, r = 0;

    for (int i = 0; i < ENDS; i++) {
        int p[2];

        if (pipe2(p, O_CLOEXEC) < 0) {
            r = err_sys(e, "cannot make a pipe for %s", PROGRAM);
            break;
        }
        a->fd[i] = i == IN ? p[1] : p[0];
        theirs[i] = i == IN ? p[0] : p[1];
        fcntl(a->fd[i], F_SETFL, O_NONBLOCK);
    }
    if (r == 0)
        r = spawn_with(a, program, theirs, e);
    for (int i = 0; i < ENDS; i++)
        io_close(&theirs[i]);
    return r;
}

/* --- the three pipes --- */

/* SIGPIPE of a process that died before it read all. */
static ssize_t write_quietly(int fd, const void *buf, size_t len)
{
    sigset_t pipe_set, old, pending;
    ssize_t n;
    int code;

    sigemptyset(&pipe_set);
    sigaddset(&pipe_set, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_set, &old);
    n = write(fd, buf, len);
    code = errno;
    if (n < 0 && code == EPIPE && sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1)
        sigtimedwait(&pipe_set, NULL, &(struct timespec){ 0, 0 });
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    errno = code;
    return n;
}

static void feed(struct ask *a)
{
    ssize_t n = write_quietly(a->fd[IN], a->request + a->sent, a->request_len - a->sent);

    if (n > 0)
        a->sent += (size_t)n;
    if (a->sent == a->request_len || (n < 0 && errno != EAGAIN && errno != EINTR))
        io_close(&a->fd[IN]);
}

static void take(struct ask *a)
{
    ssize_t n = read(a->fd[OUT], a->reply + a->reply_len, STORAGE_REPLY_MAX - a->reply_len);

    if (n > 0)
        a->reply_len += (size_t)n;
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        io_close(&a->fd[OUT]);
}

static void say_line(struct ask *a)
{
    a->says[a->says_len] = '\0';
    if (a->says_len > 0)
        log_warn("storage", "%s[%ld]: %s", PROGRAM, (long)a->pid, a->says);
    a->says_len = 0;
}

static void listen_to(struct ask *a)
{
    char buf[512];
    ssize_t n = read(a->fd[ERR], buf, sizeof buf);

    for (ssize_t i = 0; i < n; i++) {
        if (buf[i] == '\n' || a->says_len + 1 == sizeof a->says)
            say_line(a);
        if (buf[i] != '\n')
            a->says[a->says_len++] = buf[i];
    }
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        io_close(&a->fd[ERR]);
}

/* Until its stdout is at its end. */
static int converse(struct ask *a, uint64_t deadline, struct err *e)
{
    static void (*const serve[ENDS])(struct ask *) = { feed, take, listen_to };

    while (a->fd[OUT] >= 0) {
        struct pollfd p[ENDS];
        uint64_t now = clock_ns();

        if (now >= deadline)
            return err_set(e, ERR_TIMEOUT,
                "%s did not answer in time and was killed; the storage hangs", PROGRAM);
        for (int i = 0; i < ENDS; i++)
            p[i] = (struct pollfd){ .fd = a->fd[i], .events = i == IN ? POLLOUT : POLLIN };
        if (poll(p, ENDS, (int)((deadline - now) / NS_PER_MS) + 1) < 0 && errno != EINTR)
            return err_sys(e, "poll");
        for (int i = 0; i < ENDS; i++)
            if (a->fd[i] >= 0 && p[i].revents != 0)
                serve[i](a);
    }
    return 0;
}

/* Its exit status, as waitpid has it; it is given a moment, then killed. */
static int reap(struct ask *a, bool at_once)
{
    int status = -1;
    pid_t r = 0;

    if (a->pid <= 0)
        return -1;
    for (int i = 0; !at_once && i < EXIT_TRIES && (r = waitpid(a->pid, &status, WNOHANG)) == 0; i++)
        usleep(5000);
    if (r == 0) {
        kill(a->pid, SIGKILL);
        while (waitpid(a->pid, &status, 0) < 0 && errno == EINTR)
            ;
    }
    return status;
}

/* --- the reply --- */

Migrd__StorageReply *storage_reply_parse(const void *buf, size_t len, size_t n_disks, struct err *e)
{
    Migrd__StorageReply *r =
        len <= STORAGE_REPLY_MAX ? migrd__storage_reply__unpack(NULL, len, buf) : NULL;

    if (r == NULL) {
        err_set(e, ERR_INTERNAL, "%s: its answer cannot be read", PROGRAM);
        return NULL;
    }
    if (r->n_disks != n_disks || r->n_answers != n_disks || r->n_answer_errors != n_disks) {
        err_set(e, ERR_INTERNAL, "%s: %zu disks in its answer instead of %zu", PROGRAM, r->n_disks,
            n_disks);
        migrd__storage_reply__free_unpacked(r, NULL);
        return NULL;
    }
    return r;
}

static int finish(struct ask *a, size_t n_disks, Migrd__StorageReply **out, struct err *e)
{
    int status = reap(a, false);

    if (a->fd[ERR] >= 0)
        listen_to(a);
    say_line(a);
    if (status != -1 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
        return err_set(e, ERR_INTERNAL, "%s ended with %s %d; see the log", PROGRAM,
            WIFSIGNALED(status) ? "signal" : "status",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    *out = storage_reply_parse(a->reply, a->reply_len, n_disks, e);
    return *out != NULL ? 0 : -1;
}

/* --- the question --- */

static uint64_t limit_ms(const Migrd__StorageRequest *rq, unsigned timeout_ms)
{
    uint64_t own = (uint64_t)rq->timeout_ms + GRACE_MS;

    if (timeout_ms != 0)
        return timeout_ms;
    return own > STORAGE_ASK_MS ? own : STORAGE_ASK_MS;
}

static int run(struct ask *a, const char *program, const Migrd__StorageRequest *rq,
    unsigned timeout_ms, Migrd__StorageReply **out, struct err *e)
{
    uint64_t deadline = clock_ns() + limit_ms(rq, timeout_ms) * NS_PER_MS;

    if (start(a, program, e) < 0)
        return -1;
    if (converse(a, deadline, e) < 0) {
        reap(a, true);
        return -1;
    }
    return finish(a, rq->n_disks, out, e);
}

int storage_ask_program(const char *program, const Migrd__StorageRequest *rq, unsigned timeout_ms,
    Migrd__StorageReply **out, struct err *e)
{
    struct ask *a = calloc(1, sizeof *a);
    size_t len = migrd__storage_request__get_packed_size(rq);
    uint8_t *request = malloc(len + 1);
    int r = -1;

    *out = NULL;
    if (a != NULL)
        a->reply = malloc(STORAGE_REPLY_MAX);
    if (a == NULL || request == NULL || a->reply == NULL) {
        err_set(e, ERR_MEMORY, "out of memory for a question about disks");
    } else {
        a->fd[IN] = a->fd[OUT] = a->fd[ERR] = -1;
        a->request = request;
        a->request_len = migrd__storage_request__pack(rq, request);
        r = run(a, program, rq, timeout_ms, out, e);
        for (int i = 0; i < ENDS; i++)
            io_close(&a->fd[i]);
    }
    if (a != NULL)
        free(a->reply);
    free(a);
    free(request);
    return r;
}

int storage_ask(
    const Migrd__StorageRequest *rq, unsigned timeout_ms, Migrd__StorageReply **out, struct err *e)
{
    char program[PATHS_LEN];

    *out = NULL;
    if (paths_program(program, PROGRAM, e) < 0)
        return -1;
    return storage_ask_program(program, rq, timeout_ms, out, e);
}
