/* SPDX-License-Identifier: ISC */
/*
 * driver_internal: the insides of the xvm driver, shared by driver.c (lifecycle),
 * driver_events.c and driver_mig.c.
 */
#ifndef XVM_DRIVER_INTERNAL_H
#define XVM_DRIVER_INTERNAL_H

#include <pthread.h>

#include "hypervisor/cpu_level.h"
#include "hypervisor/xvm/client.h"
#include "hypervisor/xvm/driver.h"
#include "hypervisor/fuse_orders.h"
#include "hypervisor/rundir.h"

struct watch; /* an event connection to one domain */
struct queued_event;

struct hv {
    char run_dir[256], log_dir[256]; /* set by open, read only */
    char host[256], secrets[256], initiator[224];
    Migrd__Xvm__Storage storage; /* its strings are those above */
    char cpu_level[CPU_LEVEL_MAX];   /* so, too */
    bool has_caps;                   /* under lock: caps holds what does not change */
    struct hv_caps caps;

    struct fuse_orders fuses;

    pthread_mutex_t lock; /* protects everything below, and caps */
    bool events_open;
    int epoll_fd, inotify_fd, wake_fd;
    struct watch *watches;
    struct queued_event *events, **events_tail;
};

void driver_dir(const struct hv *hv, const char *uuid, char out[RUNDIR_LEN]);

/* One call on a connection of its own. */
int driver_call(struct hv *hv, const char *uuid, Migrd__Xvm__Request *q, Migrd__Xvm__Reply **reply,
    unsigned timeout_ms, struct err *e);

/* driver_events.c */
void events_close(struct hv *hv);
/* From now on this domain's events are reported, if anybody has asked for events. */
int events_watch(struct hv *hv, const char *uuid, struct err *e);
/* Forgets a domain that never came to be: no HV_EV_GONE. */
void events_forget(struct hv *hv, const char *uuid);
int driver_event_fd(struct hv *hv);
int driver_next_event(struct hv *hv, struct hv_event *out, struct err *e);

/* driver_cpu.c: the members of hv_ops with the same names. */
int driver_vcpus(
    struct hv *hv, const char *uuid, struct hv_vcpu **list, unsigned *n, struct err *e);
int driver_pin(
    struct hv *hv, const char *uuid, unsigned vcpu, const struct hv_cpus *cpus, struct err *e);
int driver_set_vcpus(struct hv *hv, const char *uuid, unsigned n, struct err *e);
int driver_sched_get(struct hv *hv, const char *uuid, struct hv_sched *out, struct err *e);
int driver_sched_set(struct hv *hv, const char *uuid, const struct hv_sched *sched, struct err *e);
int driver_stats(struct hv *hv, const char *uuid, struct hv_stats *out, struct err *e);
/* Weight and cap of a domain that was just built; never fails a start. */
void driver_place(struct hv *hv, const Migrd__Domain *def);

/* driver_mig.c: the members of hv_ops with the same names. */
int driver_mig_open(
    struct hv *hv, const char *uuid, enum hv_side side, struct hv_mig **out, struct err *e);
void driver_mig_close(struct hv_mig **m);
int driver_mig_layout(struct hv_mig *m, struct hv_layout *out, struct err *e);
int driver_mig_populated(struct hv_mig *m, uint64_t *bitmap, struct err *e);
int driver_mig_map(struct hv_mig *m, const uint64_t *gfn, size_t n, bool write,
    struct hv_mapping *map, struct err *e);
void driver_mig_unmap(struct hv_mig *m, struct hv_mapping *map);
int driver_mig_zero(struct hv_mig *m, uint64_t gfn, uint64_t n, struct err *e);
int driver_dirty_start(struct hv_mig *m, struct err *e);
int driver_dirty_collect(struct hv_mig *m, uint64_t *bitmap, struct err *e);
int driver_dirty_peek(struct hv_mig *m, uint64_t *bitmap, struct err *e);
int driver_dirty_give_back(struct hv_mig *m, const uint64_t *bitmap, struct err *e);
int driver_dirty_stop(struct hv_mig *m, struct err *e);
int driver_mig_pause(struct hv_mig *m, uint64_t epoch, struct err *e);
int driver_mig_resume(struct hv_mig *m, uint64_t epoch, struct err *e);
int driver_state_save(struct hv_mig *m, uint8_t **blob, size_t *len, struct err *e);
int driver_state_load(struct hv_mig *m, const uint8_t *blob, size_t len, struct err *e);
int driver_mig_registers(struct hv_mig *m, struct hv_registers **list, unsigned *n, struct err *e);
int driver_throttle(struct hv_mig *m, unsigned percent, struct err *e);

#endif
