/* SPDX-License-Identifier: ISC */
/*
 * The beginning of a fuse. xen-fuse answers on its standard output, with "ok" once it watches or
 * with the reason why it does not, and goes on in the background.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/paths.h"
#include "base/spawn.h"
#include "hypervisor/xen/fuse.h"
#include "hypervisor/xen/xen_internal.h"

#define ANSWER_MAX 400

/* One line; what comes before its end of file is enough. */
static int read_answer(int fd, char text[ANSWER_MAX], struct err *e)
{
    uint64_t deadline = clock_ns() + HV_CALL_TIMEOUT_MS * NS_PER_MS;
    size_t len = 0;

    while (len < ANSWER_MAX - 1) {
        ssize_t n;

        if (io_wait(fd, POLLIN, deadline, e) < 0)
            return -1;
        n = read(fd, text + len, ANSWER_MAX - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "its answer");
        if (n == 0)
            break;
        len += (size_t)n;
    }
    text[len] = '\0';
    text[strcspn(text, "\n")] = '\0';
    if (strcmp(text, "ok") == 0)
        return 0;
    return err_set(e, ERR_SYSTEM, "%s", len > 0 ? text : "it ended without a word");
}

/* The process that was started ends when its child in the background does the work. */
static void reap(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

static int run(char *const argv[], struct err *e)
{
    char text[ANSWER_MAX];
    int p[2], r;
    pid_t pid;

    if (pipe2(p, O_CLOEXEC) < 0)
        return err_sys(e, "pipe");
    r = spawn_run(argv, -1, p[1], -1, &pid);
    close(p[1]);
    if (r != 0) {
        close(p[0]);
        return err_set(e, ERR_SYSTEM, "%s: %s", argv[0], strerror(r));
    }
    reap(pid);
    r = read_answer(p[0], text, e);
    close(p[0]);
    return r;
}

int xen_fuse_spawn(const char *run_dir, const char *uuid, uint32_t domid, struct err *e)
{
    char program[PATHS_LEN], dir[RUNDIR_LEN], number[16];
    char *argv[] = { program, (char *)"--dir", dir, (char *)"--uuid", (char *)(uintptr_t)uuid,
        (char *)"--domid", number, NULL };

    if (paths_program(program, XEN_FUSE_PROGRAM, e) < 0)
        return -1;
    snprintf(dir, sizeof dir, "%s/%s", run_dir, uuid);
    snprintf(number, sizeof number, "%u", domid);
    if (run(argv, e) < 0)
        return err_prefix(e, "domain %s: " XEN_FUSE_PROGRAM, uuid);
    return 0;
}

static void remove_old(const char *dir, const char *name)
{
    char path[RUNDIR_LEN + 32];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
}

int xen_fuse_begin(const char *run_dir, const char *uuid, uint32_t domid, uint64_t epoch,
    bool blown, struct err *e)
{
    char dir[RUNDIR_LEN];

    snprintf(dir, sizeof dir, "%s/%s", run_dir, uuid);
    remove_old(dir, FUSE_FILE); /* of a domain of that uuid before, whose folder stayed */
    remove_old(dir, XEN_HOLD_FILE);
    if (fuse_page_make(dir, e) < 0 || xen_hold_make(dir, epoch, blown, e) < 0)
        return -1;
    return xen_fuse_spawn(run_dir, uuid, domid, e);
}

int xen_fuse_go(const char *run_dir, const char *uuid, uint32_t domid, struct err *e)
{
    xc_interface *xc = xen_open_xc(e);
    char dir[RUNDIR_LEN];
    struct xen_fuse f;
    int r = -1;

    if (xc == NULL)
        return -1;
    snprintf(dir, sizeof dir, "%s/%s", run_dir, uuid);
    if (xen_fuse_map(&f, dir)) {
        r = xen_fuse_resume(&f, xc, NULL, domid, e);
        xen_fuse_unmap(&f);
    } else {
        err_set(e, ERR_SYSTEM, "domain %s: its fuse cannot be mapped", uuid);
    }
    xc_interface_close(xc);
    return r;
}
