/* SPDX-License-Identifier: ISC */
/*
 * xen-fuse: stops one domain at its deadline (hv_ops.fuse), also when migrd hangs or is dead.
 * Started by xen-domain before the domain can run, and by migrd when it has died; ends when
 * its domain is gone. SIGTERM, which a host that shuts down sends to all, ends it as well: a domain
 * that has a deadline then stands still, since dom0 may take long to come to its end.
 *
 * It sleeps until the deadline, or until migrd wakes it, and looks (fuse_act.c). While the fuse
 * is blown it looks every 20 ms, since an `xl unpause` takes the pause back. All its memory is
 * locked, it runs in real time, and writes nothing anywhere: a disk that hangs, a host without
 * memory and a busy dom0 must not keep it from its work. `hold` is locked while it lives.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "hypervisor/xen/fuse.h"
#include "hypervisor/xen/xen_internal.h"

#define BLOWN_LOOK_MS 20u
#define EVERY_MS 1000u /* its domain may have gone */

static const char usage[] = "usage: xen-fuse --dir RUN_DIR/UUID --uuid UUID --domid N\n"
                            "Stops a domain of Xen's at its deadline; started by migrd, see "
                            "xen-fuse(8).\n";

static volatile sig_atomic_t ending;

struct watch {
    const char *dir, *uuid;
    uint32_t domid;
    xc_interface *xc;
    struct xen_fuse fuse;
};

static int parse(int argc, char **argv, struct watch *w)
{
    static const struct option names[] = { { "dir", required_argument, NULL, 'd' },
        { "uuid", required_argument, NULL, 'u' }, { "domid", required_argument, NULL, 'n' },
        { NULL, 0, NULL, 0 } };
    int c;

    while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (c == 'd')
            w->dir = optarg;
        else if (c == 'u')
            w->uuid = optarg;
        else if (c == 'n')
            w->domid = (uint32_t)strtoul(optarg, NULL, 10);
        else
            return -1;
    }
    if (optind != argc || w->dir == NULL || w->dir[0] != '/' || w->uuid == NULL)
        return -1;
    return rundir_is_uuid(w->uuid) && w->domid != 0 ? 0 : -1;
}

/* --- its domain --- */

static bool is_there(struct watch *w)
{
    char text[HV_UUID_LEN];
    xc_domaininfo_t d;

    if (xen_domain_facts(w->xc, w->domid, &d) < 0)
        return errno != ESRCH;
    xen_uuid_text(d.handle, text);
    return strcmp(text, w->uuid) == 0 && !xen_is_gone(&d);
}

static unsigned sleep_ms(struct watch *w)
{
    struct fuse_order o = fuse_page_read(w->fuse.page);
    unsigned ms = fuse_order_sleep_ms(o);

    if (!xen_hold_lit(o, w->fuse.hold))
        return BLOWN_LOOK_MS;
    return ms < EVERY_MS ? ms : EVERY_MS;
}

static void watch(struct watch *w)
{
    while (!ending && is_there(w)) {
        uint32_t turn = atomic_load(&w->fuse.page->turn);

        xen_fuse_look(&w->fuse, w->xc, w->domid); /* what Xen refuses is tried again */
        atomic_store(&w->fuse.hold->looked, clock_boot_ms());
        fuse_page_wait(w->fuse.page, turn, sleep_ms(w));
    }
    if (ending)
        xen_fuse_leave(&w->fuse, w->xc, w->domid);
}

static void on_term(int number)
{
    (void)number;
    ending = 1;
}

/* --- its start --- */

/* As far as the host lets us: a container may forbid any of these. */
static void be_first(void)
{
    struct sched_param prio = { .sched_priority = 1 };
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd >= 0) {
        io_write_full(fd, "-1000", 5, IO_FOREVER, NULL);
        close(fd);
    }
    mlockall(MCL_CURRENT | MCL_FUTURE);
    sched_setscheduler(0, SCHED_RR, &prio);
}

/* Kept to the end of the process. */
static int be_alone(const struct watch *w, struct err *e)
{
    char path[RUNDIR_LEN];
    int fd;

    snprintf(path, sizeof path, "%s/" XEN_HOLD_FILE, w->dir);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, "%s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    close(fd);
    return err_set(e, ERR_EXISTS, "%s: another one watches it", path);
}

static int begin(struct watch *w, struct err *e)
{
    if (be_alone(w, e) < 0)
        return -1;
    if (!xen_fuse_map(&w->fuse, w->dir))
        return err_set(e, ERR_SYSTEM, "%s: its fuse cannot be mapped", w->dir);
    w->xc = xen_open_xc(e);
    if (w->xc == NULL)
        return -1;
    be_first();
    if (!is_there(w))
        return err_set(e, ERR_NOT_FOUND, "domain %u is not this one", w->domid);
    if (xen_fuse_look(&w->fuse, w->xc, w->domid) < 0)
        return err_sys(e, "domain %u", w->domid);
    atomic_store(&w->fuse.hold->looked, clock_boot_ms());
    return rundir_write_pid(w->dir, e);
}

static void answer(const char *text)
{
    dprintf(STDOUT_FILENO, "%s\n", text);
    dup2(STDIN_FILENO, STDOUT_FILENO); /* who reads waits for the end of it */
}

int main(int argc, char **argv)
{
    struct watch w = { .dir = NULL };
    struct err e;
    pid_t pid;

    if (parse(argc, argv, &w) < 0) {
        fputs(usage, stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    pid = fork();
    if (pid < 0)
        perror("xen-fuse");
    if (pid != 0)
        return pid < 0;
    setsid();
    umask(022);
    if (begin(&w, &e) < 0) {
        answer(e.text);
        return 1;
    }
    answer("ok");
    signal(SIGTERM, on_term);
    if (chdir("/") < 0)
        return 1;
    watch(&w);
    return 0;
}
