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

#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "hypervisor/xvm/machine_internal.h"

#define WAKE_AGAIN_NS NS_PER_MS

/* ---- is it lit? ---- */

bool fuse_lit(const struct fuse *f)
{
    if (f->page == NULL)
        return true;
    return fuse_order_lit(
        fuse_page_read(f->page), f->begun_blown, atomic_load(&((struct fuse *)f)->epoch));
}

void fuse_reason(const struct fuse *f, char *text, size_t size)
{
    struct fuse_order o = { 0, 0 };

    if (f->page != NULL)
        o = fuse_page_read(f->page);
    fuse_order_reason(o, atomic_load(&((struct fuse *)f)->epoch), text, size);
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

static void wait_for_turn(const struct fuse *f, uint32_t turn)
{
    fuse_page_wait(f->page, turn, fuse_order_sleep_ms(fuse_page_read(f->page)));
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

    f->page = fuse_page_map(m->run_dir, false);
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
