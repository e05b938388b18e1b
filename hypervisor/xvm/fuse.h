/* SPDX-License-Identifier: ISC */
/*
 * fuse: the process's side of hv_ops.fuse: may the guest run, may a request go out to its disks?
 * A thread stops the guest at the deadline; vCPUs and disks ask by themselves as well, so that a
 * process that was stopped does nothing before that thread has had its turn. All of it belongs to
 * the machine. The states are at the top of fuse.c.
 */
#ifndef XVM_FUSE_H
#define XVM_FUSE_H

#include <pthread.h>

#include "hypervisor/fuse_page.h"
#include "hypervisor/xvm/machine.h"

struct fuse {
    const struct fuse_page *page; /* NULL: this domain has none, and no limit */
    bool begun_blown;
    _Atomic uint64_t epoch; /* the copy's */
    pthread_mutex_t lock;   /* what follows; taken before the machine's run_lock */
    bool fresh;             /* has not run under its epoch */
    atomic_bool on;         /* the hold is; written under lock */
    struct machine_hold hold;
    pthread_t thread;
    bool has_thread;
    atomic_bool stop, ended; /* to the watcher, and by it */
};

/* Control thread: maps what the folder has, and begins to watch; before the machine runs. A folder
 * without a fuse is none of our making: fine unless `blown`. */
int fuse_open(struct machine *m, bool blown, struct err *e);
/* Ends the watcher; before the devices go, which may still ask. */
void fuse_close(struct machine *m);
/* After them. */
void fuse_dispose(struct machine *m);
/* The copy has another epoch from now on, and has not run under it. */
void fuse_set_epoch(struct machine *m, uint64_t epoch);
/* The guest runs now. */
void fuse_ran(struct machine *m);
/* Sets or ends the hold as the page says; any thread. */
void fuse_look(struct machine *m);
/* Somebody wants it to run: a fuse that is lit holds it no longer. False: it is blown. */
bool fuse_resume(struct machine *m);

/* Any thread; a few loads, and a clock if there is a limit. */
bool fuse_lit(const struct fuse *f);
/* What people read. */
void fuse_reason(const struct fuse *f, char *text, size_t size);

#endif
