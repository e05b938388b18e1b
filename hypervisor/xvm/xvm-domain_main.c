/* SPDX-License-Identifier: ISC */
/*
 * xvm-domain: runs one domain of the bundled hypervisor. Started by the driver with the
 * names of folders and the uuid; the definition comes over the control socket. It listens
 * first, then puts itself into the background: when the command returns with 0 the socket
 * is there. The background process has a session of its own, no descriptor of its
 * starter and its log as standard output.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "hypervisor/xvm/control.h"
#include "hypervisor/xvm/fuse.h"
#include "hypervisor/rundir.h"

static const char usage[] =
    "usage: xvm-domain --run-dir DIR --log-dir DIR --uuid UUID [--name NAME] [--debug]\n"
    "Runs one domain of migrd's bundled hypervisor; started by migrd, see xvm-domain(8).\n";

struct options {
    const char *run_dir, *log_dir, *uuid, *name;
    bool debug;
};

struct start {
    struct options o;
    char making[RUNDIR_LEN], dir[RUNDIR_LEN], log[RUNDIR_LEN];
    int listen_fd;
};

static int stop_fd = -1;

static void on_term(int sig)
{
    uint64_t one = 1;
    int saved = errno;

    (void)sig;
    if (write(stop_fd, &one, sizeof one) < 0)
        errno = 0; /* it is full: told already */
    errno = saved;
}

/* 0 go on, 1 done, -1 wrong. */
static int parse(int argc, char **argv, struct options *o)
{
    static const struct option names[] = { { "run-dir", required_argument, NULL, 'r' },
        { "log-dir", required_argument, NULL, 'l' }, { "uuid", required_argument, NULL, 'u' },
        { "name", required_argument, NULL, 'n' }, { "debug", no_argument, NULL, 'd' },
        { "help", no_argument, NULL, 'h' }, { "version", no_argument, NULL, 'V' },
        { NULL, 0, NULL, 0 } };
    int c;

    while ((c = getopt_long(argc, argv, "h", names, NULL)) != -1) {
        switch (c) {
        case 'r':
            o->run_dir = optarg;
            break;
        case 'l':
            o->log_dir = optarg;
            break;
        case 'u':
            o->uuid = optarg;
            break;
        case 'n':
            o->name = optarg;
            break;
        case 'd':
            o->debug = true;
            break;
        case 'h':
            fputs(usage, stdout);
            return 1;
        case 'V':
            puts("xvm-domain " MIGRD_VERSION);
            return 1;
        default:
            return -1;
        }
    }
    if (optind != argc || o->run_dir == NULL || o->log_dir == NULL || o->uuid == NULL)
        return -1;
    return 0;
}

static int check(const struct options *o, struct err *e)
{
    if (!rundir_is_uuid(o->uuid))
        return err_set(e, ERR_INVALID, "--uuid %.64s: not a uuid in lower case", o->uuid);
    if (o->run_dir[0] != '/' || o->log_dir[0] != '/')
        return err_set(e, ERR_INVALID, "--run-dir and --log-dir must be absolute paths");
    if (o->name != NULL && (strchr(o->name, '/') != NULL || strlen(o->name) > 63))
        return err_set(e, ERR_INVALID, "--name %.64s: not a domain's name", o->name);
    return 0;
}

/* The folder under its first name, with a listening socket in it. Bound by a relative name: the
 * path may be longer than a socket's address. */
static int prepare(struct start *s, struct err *e)
{
    if (io_make_dirs(s->o.run_dir, 0755, e) < 0 || io_make_dirs(s->o.log_dir, 0755, e) < 0)
        return -1;
    snprintf(s->making, sizeof s->making, "%s/.%d", s->o.run_dir, (int)getpid());
    snprintf(s->dir, sizeof s->dir, "%s/%s", s->o.run_dir, s->o.uuid);
    snprintf(s->log, sizeof s->log, "%s/xvm-%s.log", s->o.log_dir,
        s->o.name != NULL ? s->o.name : s->o.uuid);
    rundir_remove(s->making);
    if (mkdir(s->making, 0755) < 0 || chdir(s->making) < 0)
        return err_sys(e, "%s", s->making);
    if (fuse_page_make(s->making, e) < 0)
        return -1;
    s->listen_fd = io_unix_listen("control", 0600, e);
    return s->listen_fd < 0 ? -1 : 0;
}

static int catch_signals(struct err *e)
{
    struct sigaction sa = { .sa_handler = on_term, .sa_flags = SA_RESTART };
    sigset_t none;

    stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop_fd < 0)
        return err_sys(e, "eventfd");
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    sigaction(SIGTERM, &sa, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    return 0;
}

static int redirect(const struct start *s, struct err *e)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int log = open(s->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);

    if (null < 0 || log < 0)
        return err_sys(e, "log file %s", s->log);
    dup2(null, STDIN_FILENO);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    close(null);
    close(log);
    return 0;
}

/* The background process up to the moment it can be talked to. */
static int settle(struct start *s, struct err *e)
{
    setsid();
    if (chdir("/") < 0 || catch_signals(e) < 0 || rundir_write_pid(s->making, e) < 0)
        return -1;
    if (rename(s->making, s->dir) < 0) {
        if (errno == ENOTEMPTY || errno == EEXIST)
            return err_set(e, ERR_EXISTS, "domain %s is running here already", s->o.uuid);
        return err_sys(e, "%s", s->dir);
    }
    return log_open("xvm-domain", s->log, e);
}

static int background(struct start *s, int ready)
{
    struct control_config cfg = {
        .uuid = s->o.uuid, .run_dir = s->dir, .log_dir = s->o.log_dir, .listen_fd = s->listen_fd
    };
    struct err e;

    if (settle(s, &e) < 0 || redirect(s, &e) < 0) {
        fprintf(stderr, "xvm-domain: %s\n", e.text);
        rundir_remove(s->making);
        return 1;
    }
    if (s->o.debug)
        log_set_level(LOG_LV_DEBUG);
    if (write(ready, "", 1) != 1)
        return 1;
    close(ready);
    cfg.stop_fd = stop_fd;
    if (control_serve(&cfg, &e) < 0) {
        log_error("xvm", "%s", e.text);
        return 1;
    }
    return 0;
}

/* Waits until the background process is ready or has given up. */
static int foreground(int ready)
{
    char byte;
    ssize_t n;

    do {
        n = read(ready, &byte, 1);
    } while (n < 0 && errno == EINTR);
    return n == 1 ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct start s = { .listen_fd = -1 };
    int r = parse(argc, argv, &s.o), ready[2];
    struct err e;
    pid_t pid;

    if (r != 0) {
        if (r < 0)
            fputs(usage, stderr);
        return r < 0 ? 2 : 0;
    }
    umask(022);
    if (check(&s.o, &e) < 0 || prepare(&s, &e) < 0) {
        fprintf(stderr, "xvm-domain: %s\n", e.text);
        rundir_remove(s.making);
        return 1;
    }
    if (pipe2(ready, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
        fprintf(stderr, "xvm-domain: %s\n", strerror(errno));
        rundir_remove(s.making);
        return 1;
    }
    if (pid != 0) {
        close(ready[1]);
        return foreground(ready[0]);
    }
    close(ready[0]);
    return background(&s, ready[1]);
}
