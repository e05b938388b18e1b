/* SPDX-License-Identifier: ISC */
/*
 * CPUs and figures of running domains. Pins are the domain's own business (it has the
 * threads); weight and cap are ours: a control group sees to them (cgroup.c), or, where
 * there is none for us, nice levels of the vCPUs' threads and the domain's own cap (cap.c).
 * What was set is noted in the definition that the domain was started with.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "hypervisor/xvm/cgroup.h"
#include "hypervisor/xvm/driver_internal.h"
#include "hypervisor/xvm/machine_internal.h"

/* The answer has the member that was asked for, or is freed and refused. */
static int call(
    struct hv *hv, const char *uuid, Migrd__Xvm__Op op, Migrd__Xvm__Reply **r, struct err *e)
{
    Migrd__Xvm__Request q = MIGRD__XVM__REQUEST__INIT;
    bool whole;

    q.op = op;
    if (driver_call(hv, uuid, &q, r, HV_CALL_TIMEOUT_MS, e) < 0)
        return -1;
    whole = op == MIGRD__XVM__OP__OP_STATS ? (*r)->stats != NULL
                                           : (*r)->n_vcpus > 0 && (*r)->n_vcpus <= XVM_MAX_VCPUS;
    if (whole)
        return 0;
    migrd__xvm__reply__free_unpacked(*r, NULL);
    return err_set(e, ERR_PROTOCOL, "xvm-domain: an answer without its figures");
}

/* --- vCPUs --- */

static void take_vcpu(const Migrd__Xvm__Vcpu *v, struct hv_vcpu *out)
{
    memset(out, 0, sizeof *out);
    out->state = v->state <= HV_VCPU_BLOCKED ? (enum hv_vcpu_state)v->state : HV_VCPU_BLOCKED;
    out->cpu_ns = v->cpu_ns;
    out->cpu = v->cpu;
    for (size_t i = 0; i < v->n_allowed && i < HV_CPUS_MAX / 64; i++)
        out->allowed.word[i] = v->allowed[i];
}

int driver_vcpus(struct hv *hv, const char *uuid, struct hv_vcpu **list, unsigned *n, struct err *e)
{
    Migrd__Xvm__Reply *r = NULL;
    int rc = 0;

    *list = NULL;
    *n = 0;
    if (call(hv, uuid, MIGRD__XVM__OP__OP_VCPUS, &r, e) < 0)
        return -1;
    *list = calloc(r->n_vcpus, sizeof **list);
    if (*list == NULL)
        rc = err_set(e, ERR_MEMORY, "out of memory for %zu vCPUs", r->n_vcpus);
    for (; rc == 0 && *n < r->n_vcpus; (*n)++)
        take_vcpu(r->vcpus[*n], &(*list)[*n]);
    migrd__xvm__reply__free_unpacked(r, NULL);
    return rc;
}

int driver_pin(
    struct hv *hv, const char *uuid, unsigned vcpu, const struct hv_cpus *cpus, struct err *e)
{
    Migrd__Xvm__Request q = MIGRD__XVM__REQUEST__INIT;
    static const struct hv_cpus none;
    int r;

    if (memcmp(cpus, &none, sizeof none) == 0)
        return err_set(e, ERR_INVALID, "domain %s: vcpu %u: no CPU is left to it", uuid, vcpu);
    q.op = MIGRD__XVM__OP__OP_PIN;
    q.value = vcpu;
    q.cpus = hv_cpus_list(cpus);
    if (q.cpus == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    r = driver_call(hv, uuid, &q, NULL, HV_CALL_TIMEOUT_MS, e);
    free(q.cpus);
    return r;
}

int driver_set_vcpus(struct hv *hv, const char *uuid, unsigned n, struct err *e)
{
    Migrd__Xvm__Reply *r = NULL;
    unsigned now;

    if (call(hv, uuid, MIGRD__XVM__OP__OP_VCPUS, &r, e) < 0)
        return -1;
    now = (unsigned)r->n_vcpus;
    migrd__xvm__reply__free_unpacked(r, NULL);
    if (n == now)
        return 0;
    return err_set(e, ERR_UNSUPPORTED,
        "xvm cannot plug vCPUs into, or out of, a guest that runs: it has %u; change the number "
        "for its "
        "next boot (virsh setvcpus --config, xm vcpu-set --config)",
        now);
}

/* --- weight and cap --- */

struct threads {
    pid_t pid, vcpu[XVM_MAX_VCPUS];
    unsigned n;
};

/* The numbers come from a process that runs a guest: another one's threads are not for it to name.
 */
static int check_threads(const struct threads *t, const char *uuid, struct err *e)
{
    char path[64];

    for (unsigned i = 0; i < t->n; i++) {
        snprintf(path, sizeof path, "/proc/%d/task/%d", (int)t->pid, (int)t->vcpu[i]);
        if (t->vcpu[i] <= 0 || access(path, F_OK) < 0)
            return err_set(e, ERR_PROTOCOL, "domain %s: %d is no thread of its process %d", uuid,
                (int)t->vcpu[i], (int)t->pid);
    }
    return 0;
}

static int find_threads(struct hv *hv, const char *uuid, struct threads *t, struct err *e)
{
    Migrd__Xvm__Reply *r = NULL;
    char dir[RUNDIR_LEN];
    bool alive;

    if (call(hv, uuid, MIGRD__XVM__OP__OP_VCPUS, &r, e) < 0)
        return -1;
    t->n = (unsigned)r->n_vcpus;
    for (unsigned i = 0; i < t->n; i++)
        t->vcpu[i] = (pid_t)r->vcpus[i]->tid;
    migrd__xvm__reply__free_unpacked(r, NULL);
    driver_dir(hv, uuid, dir);
    rundir_process(dir, &t->pid, &alive);
    if (!alive)
        return err_set(e, ERR_NOT_FOUND, "domain %s: its process is gone", uuid);
    return check_threads(t, uuid, e);
}

/* Where the kernel groups processes by session, levels count within a group only, and the group has
 * a level of its own. */
static void set_session_nice(pid_t pid, int level)
{
    char path[64];
    int fd;

    snprintf(path, sizeof path, "/proc/%d/autogroup", (int)pid);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (dprintf(fd, "%d", level) < 0)
        log_debug("xvm", "%s: %m", path);
    close(fd);
}

static int set_nice(const struct threads *t, int level, struct err *e)
{
    for (unsigned i = 0; i < t->n; i++)
        if (setpriority(PRIO_PROCESS, (id_t)t->vcpu[i], level) < 0)
            return err_sys(e, "nice level %d of thread %d", level, (int)t->vcpu[i]);
    set_session_nice(t->pid, level);
    return 0;
}

static int note(
    struct hv *hv, const char *uuid, const struct hv_sched *s, bool cap_here, struct err *e)
{
    Migrd__Xvm__Request q = MIGRD__XVM__REQUEST__INIT;
    Migrd__Xvm__Sched sched = MIGRD__XVM__SCHED__INIT;

    sched.weight = s->weight;
    sched.cap = s->cap;
    sched.cap_here = cap_here;
    q.op = MIGRD__XVM__OP__OP_SCHED;
    q.sched = &sched;
    return driver_call(hv, uuid, &q, NULL, HV_CALL_TIMEOUT_MS, e);
}

static int apply(struct hv *hv, const char *uuid, struct hv_sched *s, struct err *e)
{
    struct cgroup_domain d = { .uuid = uuid };
    struct threads t;
    struct err why;

    if (find_threads(hv, uuid, &t, e) < 0)
        return -1;
    d.pid = t.pid;
    d.vcpu = t.vcpu;
    d.n_vcpus = t.n;
    if (cgroup_apply(&d, s, &why) == 0)
        return set_nice(&t, 0, e) < 0 ? -1 : note(hv, uuid, s, false, e);
    log_debug("xvm", "domain %s: weight by nice, cap by itself: %s", uuid, why.text);
    return set_nice(&t, cgroup_nice(s->weight), e) < 0 ? -1 : note(hv, uuid, s, true, e);
}

static int check_sched(const char *uuid, const struct hv_sched *s, struct err *e)
{
    if (s->weight < 1 || s->weight > HV_WEIGHT_MAX)
        return err_set(e, ERR_INVALID, "domain %s: weight %u must be from 1 to %d", uuid, s->weight,
            HV_WEIGHT_MAX);
    if (s->cap > HV_CAP_MAX)
        return err_set(
            e, ERR_INVALID, "domain %s: cap %u must be from 0 to %d", uuid, s->cap, HV_CAP_MAX);
    return 0;
}

int driver_sched_set(struct hv *hv, const char *uuid, const struct hv_sched *sched, struct err *e)
{
    struct hv_sched s = *sched;

    return check_sched(uuid, &s, e) < 0 ? -1 : apply(hv, uuid, &s, e);
}

int driver_sched_get(struct hv *hv, const char *uuid, struct hv_sched *out, struct err *e)
{
    Migrd__Domain *def = xvm_driver.definition(hv, uuid, e);
    char dir[RUNDIR_LEN];
    const char *how;
    bool alive;
    pid_t pid;

    if (def == NULL)
        return -1;
    *out = hv_sched_of(def);
    migrd__domain__free_unpacked(def, NULL);
    driver_dir(hv, uuid, dir);
    rundir_process(dir, &pid, &alive);
    how = alive ? cgroup_of(uuid, pid) : NULL;
    snprintf(out->how, sizeof out->how, "%s", how != NULL ? how : "nice");
    return 0;
}

void driver_place(struct hv *hv, const Migrd__Domain *def)
{
    struct hv_sched s = hv_sched_of(def);
    struct err e;

    cgroup_sweep();
    if (apply(hv, def->uuid, &s, &e) < 0)
        log_warn("xvm", "domain %s: runs without its weight %u and cap %u: %s", def->name, s.weight,
            s.cap, e.text);
}

/* --- figures --- */

static void take_disk(const Migrd__Xvm__DiskStats *d, struct hv_disk_stats *out)
{
    snprintf(out->device, sizeof out->device, "%s", d->device);
    snprintf(out->source, sizeof out->source, "%s", d->source);
    out->rd_ops = d->rd_ops;
    out->rd_bytes = d->rd_bytes;
    out->wr_ops = d->wr_ops;
    out->wr_bytes = d->wr_bytes;
    out->flush_ops = d->flush_ops;
    out->errors = d->errors;
}

static void take_vif(const Migrd__Xvm__VifStats *v, struct hv_vif_stats *out)
{
    snprintf(out->ifname, sizeof out->ifname, "%s", v->ifname);
    snprintf(out->mac, sizeof out->mac, "%s", v->mac);
    out->rx_bytes = v->rx_bytes;
    out->rx_packets = v->rx_packets;
    out->rx_errors = v->rx_errors;
    out->rx_drops = v->rx_drops;
    out->tx_bytes = v->tx_bytes;
    out->tx_packets = v->tx_packets;
    out->tx_errors = v->tx_errors;
    out->tx_drops = v->tx_drops;
}

int driver_stats(struct hv *hv, const char *uuid, struct hv_stats *out, struct err *e)
{
    Migrd__Xvm__Reply *r = NULL;

    memset(out, 0, sizeof *out);
    if (call(hv, uuid, MIGRD__XVM__OP__OP_STATS, &r, e) < 0)
        return -1;
    out->actual_kib = r->stats->actual_kib;
    out->rss_kib = r->stats->rss_kib;
    out->unused_kib = HV_UNKNOWN;
    for (; out->n_disks < r->stats->n_disks && out->n_disks < HV_STAT_DEVICES; out->n_disks++)
        take_disk(r->stats->disks[out->n_disks], &out->disk[out->n_disks]);
    for (; out->n_vifs < r->stats->n_vifs && out->n_vifs < HV_STAT_DEVICES; out->n_vifs++)
        take_vif(r->stats->vifs[out->n_vifs], &out->vif[out->n_vifs]);
    migrd__xvm__reply__free_unpacked(r, NULL);
    return 0;
}
