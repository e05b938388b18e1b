/* SPDX-License-Identifier: ISC */
/*
 * The fuse. An order is what migrd wrote to the page; the copy's own epoch is P.
 *
 *   order                     lit?
 *   none yet                  unless the domain began blown
 *   epoch E, no limit         if E <= P: who runs it under a newer epoch was told to
 *   epoch E, a deadline       if E is P and the deadline is to come
 *
 * A blown fuse is a hold (suspend.c): vCPUs stand still, requests to disks are kept. What ends it:
 *
 *   the copy                  lit again               resume, when lit    resume, when blown
 *   never ran under P         goes on by itself       goes on             refused
 *   has run under P           stays                   goes on             refused
 *   paused by somebody        stays                   goes on             the pause ends, not the
 * hold
 *
 * Who looks. The watcher sleeps until the deadline, or until migrd says by a futex that the order
 * got shorter; it asks for real-time scheduling and kicks the vCPUs out of the guest. Each vCPU
 * looks before each KVM_RUN, so that a process that was stopped (SIGSTOP, a suspended host: both
 * end KVM_RUN) and goes on too late executes nothing in between. Disks look before a request is
 * taken, and in the thread that sends before each piece of it; when the hold begins they are poked,
 * and destroy connections on which anything is unsent or not acknowledged, as at the loss of a
 * lease.
 */
#define _GNU_SOURCE
#include "hypervisor/xvm/fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "hypervisor/xvm/machine_internal.h"
#include "hypervisor/rundir.h"

#define LOOK_MS 1000u /* between two looks at most: a writer may die before it wakes us */
#define WAKE_AGAIN_NS NS_PER_MS

/* ---- the file ---- */

int fuse_make(const char *dir, struct err *e)
{
    const struct fuse_page page = { .magic = FUSE_MAGIC };
    char path[RUNDIR_LEN];
    int fd, r;

    snprintf(path, sizeof path, "%s/" FUSE_FILE, dir);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, "%s", path);
    r = posix_fallocate(fd, 0, FUSE_PAGE_LEN); /* a hole could become a SIGBUS on a full disk */
    if (r != 0)
        err_set(e, ERR_SYSTEM, "%s: %s", path, strerror(r));
    else
        r = io_write_full(fd, &page, sizeof page, IO_FOREVER, e);
    close(fd);
    return r != 0 ? -1 : 0;
}

static const struct fuse_page *map_page(const char *dir)
{
    const struct fuse_page *p = NULL;
    char path[RUNDIR_LEN];
    struct stat st;
    void *at;
    int fd;

    snprintf(path, sizeof path, "%s/" FUSE_FILE, dir);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) == 0 && st.st_size >= FUSE_PAGE_LEN) {
        at = mmap(NULL, FUSE_PAGE_LEN, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
        p = at != MAP_FAILED ? at : NULL;
    }
    close(fd);
    if (p != NULL && p->magic != FUSE_MAGIC) {
        munmap((void *)p, FUSE_PAGE_LEN);
        p = NULL;
    }
    return p;
}

/* ---- is it lit? ---- */

static bool is_lit(const struct fuse *f, struct fuse_order o, uint64_t epoch, uint64_t now_ms)
{
    if (o.epoch == 0)
        return !f->begun_blown;
    if (o.deadline == UINT64_MAX)
        return o.epoch <= epoch;
    return o.epoch == epoch && now_ms < o.deadline;
}

bool fuse_lit(const struct fuse *f)
{
    struct fuse_order o;

    if (f->page == NULL)
        return true;
    o = fuse_page_read(f->page);
    /* Without a limit, no clock. */
    return is_lit(f, o, atomic_load(&((struct fuse *)f)->epoch),
        o.epoch != 0 && o.deadline != UINT64_MAX ? clock_boot_ms() : 0);
}

static void since_text(uint64_t deadline_ms, char text[16])
{
    uint64_t now = clock_boot_ms(), wall = clock_wall_ns() / NS_PER_S;
    time_t then = (time_t)(wall - (now > deadline_ms ? (now - deadline_ms) / 1000 : 0));
    struct tm tm;

    localtime_r(&then, &tm);
    strftime(text, 16, "%H:%M:%S", &tm);
}

void fuse_reason(const struct fuse *f, char *text, size_t size)
{
    uint64_t epoch = atomic_load(&((struct fuse *)f)->epoch);
    struct fuse_order o = { 0, 0 };
    char since[16];

    if (f->page != NULL)
        o = fuse_page_read(f->page);
    if (o.epoch == 0) {
        snprintf(text, size, "its fuse: the cluster has not let it run yet");
    } else if (o.epoch != epoch) {
        snprintf(text, size,
            "its fuse: the cluster lets epoch %" PRIu64 " run, this copy has epoch %" PRIu64,
            o.epoch, epoch);
    } else if (o.deadline == 0) {
        snprintf(text, size, "its fuse: the cluster has told this copy to stop");
    } else {
        since_text(o.deadline, since);
        snprintf(text, size,
            "its fuse: this host has had no lease of the cluster since %s; goes on when the "
            "cluster says so",
            since);
    }
}

/* ---- the hold ---- */

void fuse_look(struct machine *m)
{
    struct fuse *f = &m->fuse;
    char text[sizeof f->hold.text];
    bool lit, blew = false;

    pthread_mutex_lock(&f->lock);
    lit = fuse_lit(f);
    if (!lit && !atomic_load(&f->on)) {
        fuse_reason(f, text, sizeof text);
        atomic_store(&f->on, true);
        machine_suspend(m, &f->hold, HOLD_WAIT, text);
        blew = true;
    } else if (lit && atomic_load(&f->on) && f->fresh) {
        atomic_store(&f->on, false);
        machine_unsuspend(m, &f->hold);
    }
    pthread_mutex_unlock(&f->lock);
    if (blew)
        virtio_blk_poke(m);
}

bool machine_may_write(struct machine *m)
{
    struct fuse *f = &m->fuse;

    if (fuse_lit(f) && !atomic_load(&f->on))
        return true;
    fuse_look(m);
    return !atomic_load(&f->on);
}

void fuse_ran(struct machine *m)
{
    pthread_mutex_lock(&m->fuse.lock);
    m->fuse.fresh = false;
    pthread_mutex_unlock(&m->fuse.lock);
}

void fuse_set_epoch(struct machine *m, uint64_t epoch)
{
    pthread_mutex_lock(&m->fuse.lock);
    atomic_store(&m->fuse.epoch, epoch);
    m->fuse.fresh = true;
    pthread_mutex_unlock(&m->fuse.lock);
    fuse_look(m);
}

bool fuse_resume(struct machine *m)
{
    struct fuse *f = &m->fuse;
    bool lit;

    pthread_mutex_lock(&f->lock);
    lit = fuse_lit(f);
    if (lit && atomic_load(&f->on)) {
        atomic_store(&f->on, false);
        machine_unsuspend(m, &f->hold);
    }
    pthread_mutex_unlock(&f->lock);
    return lit;
}

/* ---- the watcher ---- */

static unsigned sleep_ms(const struct fuse *f)
{
    struct fuse_order o = fuse_page_read(f->page);
    uint64_t now = clock_boot_ms();

    if (o.epoch == 0 || o.deadline <= now || o.deadline - now > LOOK_MS)
        return LOOK_MS;
    return (unsigned)(o.deadline - now);
}

static void wait_for_turn(const struct fuse *f, uint32_t turn)
{
    unsigned ms = sleep_ms(f);
    struct timespec ts = { ms / 1000, (long)(ms % 1000) * (long)NS_PER_MS };

    syscall(SYS_futex, &f->page->turn, FUTEX_WAIT, turn, &ts, NULL, 0);
}

static void *watch(void *arg)
{
    struct machine *m = arg;
    struct fuse *f = &m->fuse;

    prctl(PR_SET_NAME, "fuse");
    while (!atomic_load(&f->stop)) {
        uint32_t turn = atomic_load(&((struct fuse_page *)f->page)->turn);

        fuse_look(m);
        wait_for_turn(f, turn);
    }
    atomic_store(&f->ended, true);
    return NULL;
}

/* Before all that is not real-time, where the host lets us. */
static int start_watcher(struct machine *m)
{
    struct sched_param prio = { .sched_priority = 1 };
    sigset_t all, before;
    pthread_attr_t attr;
    int r;

    pthread_attr_init(&attr);
    pthread_attr_setinheritsched(&attr, PTHREAD_EXPLICIT_SCHED);
    pthread_attr_setschedpolicy(&attr, SCHED_RR);
    pthread_attr_setschedparam(&attr, &prio);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&m->fuse.thread, &attr, watch, m);
    if (r != 0)
        r = pthread_create(&m->fuse.thread, NULL, watch, m);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return r;
}

int fuse_open(struct machine *m, bool blown, struct err *e)
{
    struct fuse *f = &m->fuse;
    int r;

    f->page = map_page(m->run_dir);
    f->begun_blown = blown;
    f->fresh = true;
    atomic_store(&f->epoch, m->epoch);
    if (f->page == NULL && blown)
        return err_set(e, ERR_SYSTEM,
            "domain %s: %s/" FUSE_FILE ": cannot be mapped, and it is to begin with a blown fuse",
            m->def->name, m->run_dir);
    if (f->page == NULL)
        return 0;
    fuse_look(m);
    r = start_watcher(m);
    if (r != 0)
        return err_set(
            e, ERR_RESOURCE, "domain %s: thread of its fuse: %s", m->def->name, strerror(r));
    f->has_thread = true;
    return 0;
}

/* The page is not ours to write: a wake-up that comes too early is repeated. */
static void end_watcher(struct fuse *f)
{
    const struct timespec step = { .tv_nsec = (long)WAKE_AGAIN_NS };

    atomic_store(&f->stop, true);
    while (!atomic_load(&f->ended)) {
        syscall(SYS_futex, &f->page->turn, FUTEX_WAKE, 1, NULL, NULL, 0);
        nanosleep(&step, NULL);
    }
    pthread_join(f->thread, NULL);
    f->has_thread = false;
}

void fuse_close(struct machine *m)
{
    struct fuse *f = &m->fuse;

    if (f->has_thread)
        end_watcher(f);
}

void fuse_dispose(struct machine *m)
{
    struct fuse *f = &m->fuse;

    if (f->page != NULL)
        munmap((void *)f->page, FUSE_PAGE_LEN);
    f->page = NULL;
    pthread_mutex_destroy(&f->lock);
}
