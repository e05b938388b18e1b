/* SPDX-License-Identifier: ISC */
/*
 * One xen-domain, from its start to its answer. The definition goes in as a memfd, so
 * that neither side waits for the other; the answer is one line: "ok REST" or "CODE TEXT".
 * A process that does not end in time is killed with its session's leader only: what it
 * left half done is found by its folder's mark (folder.h).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/paths.h"
#include "base/spawn.h"
#include "hypervisor/xen/xen_internal.h"

#define PROGRAM "xen-domain"
#define ARGS_MAX 24

static int definition_fd(const Migrd__Domain *def, struct err *e)
{
    size_t n = migrd__domain__get_packed_size(def);
    uint8_t *bytes = malloc(n + 1);
    int fd;

    if (bytes == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", def->name);
    migrd__domain__pack(def, bytes);
    fd = memfd_create("definition", MFD_CLOEXEC);
    if (fd < 0 || io_write_full(fd, bytes, n, IO_FOREVER, e) < 0 || lseek(fd, 0, SEEK_SET) != 0) {
        err_sys(e, "domain %s: memfd", def->name);
        io_close(&fd);
    }
    free(bytes);
    return fd;
}

/* Until its end of file; 0 if that came in time. */
static int read_all(int fd, struct xen_answer *a, uint64_t deadline, struct err *e)
{
    for (;;) {
        size_t room;
        ssize_t n;

        if (io_wait(fd, POLLIN, deadline, e) < 0)
            return -1;
        if (a->cap - a->len < 2) {
            size_t cap = a->cap * 2 + 1024;
            char *more = cap <= XEN_ANSWER_MAX ? realloc(a->text, cap) : NULL;

            if (more == NULL)
                return err_set(e, ERR_RESOURCE, PROGRAM ": its answer is too long");
            a->text = more;
            a->cap = cap;
        }
        room = a->cap - a->len - 1;
        n = read(fd, a->text + a->len, room);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, PROGRAM ": its answer");
        if (n == 0)
            break;
        a->len += (size_t)n;
    }
    if (a->text != NULL)
        a->text[a->len] = '\0';
    return 0;
}

static enum err_code code_of(const char *name, size_t n)
{
    for (int c = ERR_NONE + 1; c < ERR_CODE_MAX; c++) {
        const char *known = err_code_name((enum err_code)c);

        if (strlen(known) == n && memcmp(known, name, n) == 0)
            return (enum err_code)c;
    }
    return ERR_SYSTEM;
}

int xen_said(char *text, char **rest, struct err *e)
{
    char *blank = strchr(text, ' ');

    if (blank == NULL)
        return err_set(e, ERR_PEER, PROGRAM ": ended without an answer");
    *rest = blank + 1;
    if (strncmp(text, "ok ", 3) == 0)
        return 0;
    blank[1 + strcspn(blank + 1, "\n")] = '\0';
    return err_set(e, code_of(text, (size_t)(blank - text)), "%s", blank + 1);
}

/* The rest behind "ok ", or its error. */
static int understand(struct xen_answer *a, int status, struct err *e)
{
    bool none = a->text == NULL || strchr(a->text, ' ') == NULL;

    if (none && WIFSIGNALED(status))
        return err_set(e, ERR_SYSTEM, PROGRAM ": ended by signal %d", WTERMSIG(status));
    if (none)
        return err_set(e, ERR_SYSTEM, PROGRAM ": ended without an answer, status %d",
            WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    if (xen_said(a->text, &a->rest, e) < 0)
        return -1;
    a->rest_len = a->len - (size_t)(a->rest - a->text);
    return 0;
}

static void reap(pid_t pid, bool kill_it, int *status)
{
    if (kill_it)
        kill(pid, SIGKILL);
    while (waitpid(pid, status, 0) < 0 && errno == EINTR)
        ;
}

int xen_spawn(struct hv *hv, const char *verb, const char *uuid, const char *const *more, int in,
    int *answer, pid_t *pid, struct err *e)
{
    char program[PATHS_LEN];
    char *argv[ARGS_MAX] = { program, (char *)(uintptr_t)verb, (char *)"--run-dir", hv->run_dir,
        (char *)"--log-dir", hv->log_dir, (char *)"--uuid", (char *)(uintptr_t)uuid };
    size_t n = 8;
    int p[2], r;

    for (; more != NULL && *more != NULL && n < ARGS_MAX - 1; more++)
        argv[n++] = (char *)(uintptr_t)*more;
    if (paths_program(program, PROGRAM, e) < 0)
        return -1;
    if (pipe2(p, O_CLOEXEC) < 0)
        return err_sys(e, "pipe");
    r = spawn_run(argv, in, p[1], -1, pid);
    close(p[1]);
    *answer = p[0];
    if (r == 0)
        return 0;
    io_close(answer);
    return err_set(e, ERR_SYSTEM, "%s: %s", program, strerror(r));
}

int xen_run_answer(struct hv *hv, const char *verb, const char *uuid, const Migrd__Domain *def,
    const char *const *more, unsigned timeout_ms, struct xen_answer *a, struct err *e)
{
    uint64_t deadline = clock_ns() + timeout_ms * NS_PER_MS;
    int in = -1, answer, status = 0, r;
    pid_t pid;

    memset(a, 0, sizeof *a);
    if (def != NULL && (in = definition_fd(def, e)) < 0)
        return -1;
    r = xen_spawn(hv, verb, uuid, more, in, &answer, &pid, e);
    io_close(&in);
    if (r < 0)
        return -1;
    r = read_all(answer, a, deadline, e);
    io_close(&answer);
    reap(pid, r < 0, &status);
    if (r < 0)
        return err_prefix(e, PROGRAM " %s", verb);
    return understand(a, status, e);
}

int xen_run(struct hv *hv, const char *verb, const char *uuid, const Migrd__Domain *def,
    const char *const *more, unsigned timeout_ms, struct err *e)
{
    struct xen_answer a;
    int r = xen_run_answer(hv, verb, uuid, def, more, timeout_ms, &a, e);

    free(a.text);
    return r;
}
