/* SPDX-License-Identifier: ISC */
/*
 * xen_internal: the insides of the Xen driver, file by file. A handle of libxenctrl is for one
 * thread at a time: `xc` is used with `lock` held, between xen_lock and xen_unlock;
 * a migration opens handles of its own. libxenstore's handle may be used by all.
 *
 * What Xen does not keep of a domain that was built here is in run_dir/<uuid>/: see folder.h.
 */
#ifndef XEN_INTERNAL_H
#define XEN_INTERNAL_H

#include <pthread.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>
#include <xenstore.h>

#include "hypervisor/fuse_orders.h"
#include "hypervisor/rundir.h"
#include "hypervisor/xen/driver.h"
#include "hypervisor/xen/find.h"
#include "hypervisor/xen/release.h"

#define XEN_PATH_LEN 128 /* of a path in xenstore */
/* libxl gives each device 40 s of its own. */
#define XEN_BUILD_TIMEOUT_MS (30 * HV_CALL_TIMEOUT_MS)
#define XEN_ANSWER_MAX (4u << 20)

struct xen_events;

struct hv {
    char run_dir[256], log_dir[256]; /* set by open, read only */
    struct xs_handle *xs;
    struct fuse_orders fuses;
    char release[32], scheduler[16]; /* so, too */
    pthread_mutex_t lock;            /* protects xc, and what follows */
    xc_interface *xc;
    bool has_caps;
    struct hv_caps caps;
    pthread_mutex_t events_lock;
    struct xen_events *events;
};

/* --- driver.c: handles --- */

/* libxenctrl's and libxenforeignmemory's messages go to the log, at debug level. NULL on failure;
 * for a process of its own handles (a migration's) too. */
xc_interface *xen_open_xc(struct err *e);
xenforeignmemory_handle *xen_open_memory(struct err *e);
struct xs_handle *xen_open_store(struct err *e);

xc_interface *xen_lock(struct hv *hv);
void xen_unlock(struct hv *hv);

/* --- domains.c: which domain is it, how is it --- */

void xen_dir(const struct hv *hv, const char *uuid, char out[RUNDIR_LEN]);
/* A file of its folder. */
void xen_file(const struct hv *hv, const char *uuid, const char *name, char out[RUNDIR_LEN]);

/* The domain with that uuid; ERR_NOT_FOUND, also while it is being built. */
int xen_find(struct hv *hv, const char *uuid, xc_domaininfo_t *out, struct err *e);

/* Epoch that this host has seen; refuses an older one (ERR_EPOCH), keeps a newer one. */
int xen_epoch(const char *run_dir, const char *uuid, uint64_t epoch, struct err *e);

int xen_enumerate(struct hv *hv, struct hv_info **list, size_t *n, struct err *e);
int xen_info(struct hv *hv, const char *uuid, struct hv_info *out, struct err *e);
Migrd__Domain *xen_definition(struct hv *hv, const char *uuid, struct err *e);

/* Text of a node of xenstore, "" if there is none; a NUL is put at its end. */
void xen_store_read(struct xs_handle *xs, char *out, size_t size, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* The same as a number; false if there is none. */
bool xen_store_number(struct xs_handle *xs, uint64_t *out, const char *path);

/* --- run.c: xen-domain --- */

/* What it answered behind "ok ", NUL-terminated; text is to be freed, also after a failure. */
struct xen_answer {
    char *text, *rest;
    size_t len, cap, rest_len;
};

/* Runs one verb of xen-domain to its end; `def` and `more` (further arguments, NULL-terminated) may
 * be NULL. The error is that of xen-domain, or why it gave none. */
int xen_run(struct hv *hv, const char *verb, const char *uuid, const Migrd__Domain *def,
    const char *const *more, unsigned timeout_ms, struct err *e);
int xen_run_answer(struct hv *hv, const char *verb, const char *uuid, const Migrd__Domain *def,
    const char *const *more, unsigned timeout_ms, struct xen_answer *a, struct err *e);

/* Only starts it: `in` is its standard input (-1 none); *answer is to be closed, *pid waited for.
 */
int xen_spawn(struct hv *hv, const char *verb, const char *uuid, const char *const *more, int in,
    int *answer, pid_t *pid, struct err *e);
/* An answer, which is written into: "ok REST" is 0 and *rest; all else the error that it tells. */
int xen_said(char *text, char **rest, struct err *e);

/* --- caps.c --- */

int xen_capabilities(struct hv *hv, struct hv_caps *out, struct err *e);
int xen_guest_cpu(struct hv *hv, const char *uuid, struct hv_caps *out, struct err *e);

/* --- look.c: Xen's log; what can move --- */

int xen_dmesg(struct hv *hv, bool clear, char **text, struct err *e);
int xen_mig_check(struct hv *hv, const char *uuid, bool live, struct err *e);

/* --- lifecycle.c --- */

int xen_start(struct hv *hv, const Migrd__Domain *def, const struct hv_start *how, struct err *e);
int xen_pause(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e);
int xen_claim(struct hv *hv, const char *uuid, uint64_t epoch, bool decided, struct err *e);
int xen_resume(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e);
int xen_fuse(struct hv *hv, const char *uuid, uint64_t epoch, uint64_t deadline_ms, struct err *e);
int xen_shutdown(struct hv *hv, const char *uuid, bool reboot, struct err *e);
int xen_destroy(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e);
int xen_set_memory(struct hv *hv, const char *uuid, uint64_t memory_kib, struct err *e);
/* Calls a suspension off: the guest goes on, as far as nobody has paused it. */
int xen_unsuspend(xc_interface *xc, struct xs_handle *xs, uint32_t domid, struct err *e);
/* That, and takes all pauses back. */
int xen_let_run(xc_interface *xc, struct xs_handle *xs, uint32_t domid, struct err *e);

/* --- fuse.c: see fuse.h --- */

/* What pause and resume come to: a fuse may hold the domain, too. */
int xen_do_pause(struct hv *hv, const char *uuid, const xc_domaininfo_t *d, struct err *e);
int xen_do_resume(struct hv *hv, const char *uuid, uint32_t domid, struct err *e);
/* The copy has that epoch from now on. */
void xen_fuse_epoch(const char *dir, uint64_t epoch);
/* Starts its xen-fuse again, if that has died. */
void xen_fuse_tend(struct hv *hv, const char *uuid, uint32_t domid);
/* fused, blown and reason. */
void xen_fuse_fill(struct hv *hv, const char *dir, const xc_domaininfo_t *d, struct hv_info *i);

/* --- vcpus.c, stats.c, events.c --- */

int xen_vcpus(struct hv *hv, const char *uuid, struct hv_vcpu **list, unsigned *n, struct err *e);
int xen_pin(
    struct hv *hv, const char *uuid, unsigned vcpu, const struct hv_cpus *cpus, struct err *e);
int xen_set_vcpus(struct hv *hv, const char *uuid, unsigned n, struct err *e);
int xen_sched_get(struct hv *hv, const char *uuid, struct hv_sched *out, struct err *e);
int xen_sched_set(struct hv *hv, const char *uuid, const struct hv_sched *sched, struct err *e);
int xen_stats(struct hv *hv, const char *uuid, struct hv_stats *out, struct err *e);
int xen_event_fd(struct hv *hv);
int xen_next_event(struct hv *hv, struct hv_event *out, struct err *e);
void xen_events_close(struct hv *hv);
/* Something may have changed that xenstore does not tell. */
void xen_events_look(struct hv *hv);

/* --- mig*.c, dirty.c, state.c: the migration --- */

int xen_mig_open(
    struct hv *hv, const char *uuid, enum hv_side side, struct hv_mig **out, struct err *e);
void xen_mig_close(struct hv_mig **m);
int xen_mig_layout(struct hv_mig *m, struct hv_layout *out, struct err *e);
int xen_mig_populated(struct hv_mig *m, uint64_t *bitmap, struct err *e);
int xen_mig_map(struct hv_mig *m, const uint64_t *gfn, size_t n, bool write, struct hv_mapping *map,
    struct err *e);
void xen_mig_unmap(struct hv_mig *m, struct hv_mapping *map);
int xen_mig_zero(struct hv_mig *m, uint64_t gfn, uint64_t n, struct err *e);
int xen_mig_settle(struct hv_mig *m, uint64_t deadline_ns, struct err *e);
int xen_dirty_start(struct hv_mig *m, struct err *e);
int xen_dirty_collect(struct hv_mig *m, uint64_t *bitmap, struct err *e);
int xen_dirty_peek(struct hv_mig *m, uint64_t *bitmap, struct err *e);
int xen_dirty_give_back(struct hv_mig *m, const uint64_t *bitmap, struct err *e);
int xen_dirty_stop(struct hv_mig *m, struct err *e);
int xen_mig_pause(struct hv_mig *m, uint64_t epoch, struct err *e);
int xen_mig_resume(struct hv_mig *m, uint64_t epoch, struct err *e);
int xen_mig_registers(struct hv_mig *m, struct hv_registers **list, unsigned *n, struct err *e);
int xen_state_save(struct hv_mig *m, uint8_t **blob, size_t *len, struct err *e);
int xen_state_load(struct hv_mig *m, const uint8_t *blob, size_t len, struct err *e);
int xen_throttle(struct hv_mig *m, unsigned percent, struct err *e);

/* Undoes what a migration whose holder died has left at this domain: log-dirty off, the cap given
 * back. Does nothing while somebody holds run_dir/<uuid>/migration. Called by enumerate (with
 * the lock held) and before resume and destroy. */
void xen_mig_sweep(struct hv *hv, xc_interface *xc, const char *uuid, uint32_t domid);

#endif
