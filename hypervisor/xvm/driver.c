/* SPDX-License-Identifier: ISC */
/*
 * The client side of the bundled hypervisor. A domain is its process: start spawns
 * xvm-domain (which puts itself into the background), every other call connects to the
 * domain's socket, asks, and hangs up. Nothing is remembered that a restart would miss.
 *
 * A folder whose socket nobody serves is stale once its process is really gone (pid and
 * start time); only then is it removed. A process that lives and does not answer keeps
 * its folder; destroy kills it, after checking the epoch file in its place.
 */
#define _GNU_SOURCE
#include "hypervisor/xvm/driver.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/paths.h"
#include "base/spawn.h"
#include "hypervisor/cpu.h"
#include "hypervisor/xvm/cgroup.h"
#include "hypervisor/xvm/driver_internal.h"
#include "hypervisor/xvm/machine_internal.h"

#define XVM_RELEASE "1"
#define PROBE_TIMEOUT_MS 2000
#define REFUSED_END_MS 3000 /* for the leases of a domain that could not be built */
#define WATCHED_DISKS 8u    /* of a claim: more of them need a second try */
#define BUILD_CALL_TIMEOUT_MS (3 * HV_CALL_TIMEOUT_MS)
#define MEMINFO_MAX 65536
#define MEMORY_SPARE_KIB (64u << 10) /* left to the host beyond what a domain may take */

void driver_dir(const struct hv *hv, const char *uuid, char out[RUNDIR_LEN])
{
    snprintf(out, RUNDIR_LEN, "%s/%s", hv->run_dir, uuid);
}

int driver_call(struct hv *hv, const char *uuid, Migrd__Xvm__Request *q, Migrd__Xvm__Reply **reply,
    unsigned timeout_ms, struct err *e)
{
    struct xvm_client c;
    char dir[RUNDIR_LEN];
    int r;

    if (!rundir_is_uuid(uuid))
        return err_set(e, ERR_INVALID, "%.64s: not a uuid in lower case", uuid);
    driver_dir(hv, uuid, dir);
    if (xvm_connect(&c, dir, e) < 0)
        return -1;
    r = xvm_call(&c, q, -1, reply, NULL, timeout_ms, e);
    xvm_disconnect(&c);
    return r;
}

static int simple_call(struct hv *hv, const char *uuid, Migrd__Xvm__Op op, uint64_t epoch,
    uint64_t value, struct err *e)
{
    Migrd__Xvm__Request q = MIGRD__XVM__REQUEST__INIT;

    q.op = op;
    q.epoch = epoch;
    q.value = value;
    return driver_call(hv, uuid, &q, NULL, HV_CALL_TIMEOUT_MS, e);
}

static void driver_close(struct hv **hvp)
{
    struct hv *hv = *hvp;

    if (hv == NULL)
        return;
    *hvp = NULL;
    events_close(hv);
    fuse_orders_close(&hv->fuses);
    pthread_mutex_destroy(&hv->lock);
    free(hv);
}

/* For the domains that are started; who starts none may have left it empty. */
static void keep_storage(struct hv *hv, const struct hv_config *cfg)
{
    Migrd__Xvm__Storage *s = &hv->storage;

    migrd__xvm__storage__init(s);
    snprintf(hv->host, sizeof hv->host, "%s", cfg->host != NULL ? cfg->host : "");
    snprintf(hv->secrets, sizeof hv->secrets, "%s", cfg->secrets != NULL ? cfg->secrets : "");
    snprintf(
        hv->initiator, sizeof hv->initiator, "%s", cfg->initiator != NULL ? cfg->initiator : "");
    s->host = hv->host;
    s->secrets = hv->secrets;
    s->initiator = hv->initiator;
    s->leases = cfg->leases;
    s->lease_ms = cfg->lease_ms;
    s->nfs_uid_base = cfg->nfs_uid_base;
    s->io_timeout_ms = cfg->io_timeout_ms;
}

static int driver_open(const struct hv_config *cfg, struct hv **out, struct err *e)
{
    struct hv *hv;

    *out = NULL;
    if (access("/dev/kvm", R_OK | W_OK) < 0)
        return err_set(e, ERR_UNSUPPORTED,
            "/dev/kvm: %s; load kvm_intel or kvm_amd, switch on virtualization in the firmware",
            strerror(errno));
    if (io_make_dirs(cfg->run_dir, 0755, e) < 0 || io_make_dirs(cfg->log_dir, 0755, e) < 0)
        return -1;
    hv = calloc(1, sizeof *hv);
    if (hv == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    hv->epoll_fd = hv->inotify_fd = hv->wake_fd = -1;
    snprintf(hv->run_dir, sizeof hv->run_dir, "%s", cfg->run_dir);
    snprintf(hv->log_dir, sizeof hv->log_dir, "%s", cfg->log_dir);
    if (cfg->cpu_level != NULL)
        snprintf(hv->cpu_level, sizeof hv->cpu_level, "%s", cfg->cpu_level);
    keep_storage(hv, cfg);
    pthread_mutex_init(&hv->lock, NULL);
    fuse_orders_init(&hv->fuses, hv->run_dir);
    hv->events_tail = &hv->events;
    rundir_sweep(hv->run_dir);
    *out = hv;
    return 0;
}

/* KiB of a line of /proc/meminfo; 0 if it is not there. */
static uint64_t meminfo(const char *key)
{
    char *text = io_read_file("/proc/meminfo", MEMINFO_MAX, NULL, NULL), *p;
    uint64_t kib = 0;

    if (text == NULL)
        return 0;
    p = strstr(text, key);
    if (p != NULL)
        kib = strtoull(p + strlen(key), NULL, 10);
    free(text);
    return kib;
}

/* The irqchip comes first: a vCPU without one makes KVM patch the running kernel's code, on all
 * CPUs of the host, and again when it goes. */
static int tsc_khz(int kvm_fd)
{
    int vm = ioctl(kvm_fd, KVM_CREATE_VM, 0), vcpu = -1, khz = 0;

    if (vm < 0)
        return 0;
    if (ioctl(vm, KVM_CREATE_IRQCHIP, 0) == 0)
        vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    if (vcpu >= 0) {
        khz = ioctl(vcpu, KVM_GET_TSC_KHZ, 0);
        close(vcpu);
    }
    close(vm);
    return khz < 0 ? 0 : khz;
}

/* What does not change while this process lives. */
static int read_caps(const struct hv *hv, struct hv_caps *c, struct err *e)
{
    struct cpuid_table t;
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), r, max;

    if (fd < 0)
        return err_sys(e, "/dev/kvm");
    memset(c, 0, sizeof *c);
    snprintf(c->hypervisor, sizeof c->hypervisor, "xvm");
    snprintf(c->release, sizeof c->release, XVM_RELEASE);
    hv_host_cpu(c);
    r = cpuid_offered(fd, &t, e);
    if (r == 0 && (r = cpuid_limit(&t, hv->cpu_level, e)) < 0)
        err_prefix(e, "host-cpu-level");
    if (r == 0)
        cpuid_caps(&t, c);
    c->tsc_scaling = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) > 0;
    max = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    c->max_vcpus = max > 0 && (unsigned)max < XVM_MAX_VCPUS ? (unsigned)max : XVM_MAX_VCPUS;
    c->tsc_khz = (uint64_t)tsc_khz(fd);
    c->host_cpus = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    close(fd);
    return r;
}

static Migrd__Xvm__Reply *call_info(
    struct hv *hv, const char *uuid, unsigned timeout_ms, struct err *e)
{
    Migrd__Xvm__Request q = MIGRD__XVM__REQUEST__INIT;
    Migrd__Xvm__Reply *r = NULL;

    q.op = MIGRD__XVM__OP__OP_INFO;
    if (driver_call(hv, uuid, &q, &r, timeout_ms, e) < 0)
        return NULL;
    if (r->info == NULL) {
        migrd__xvm__reply__free_unpacked(r, NULL);
        err_set(e, ERR_PROTOCOL, "xvm-domain: an info without content");
        return NULL;
    }
    return r;
}

static void copy_info(struct hv *hv, const Migrd__Xvm__Info *i, struct hv_info *out)
{
    memset(out, 0, sizeof *out);
    snprintf(out->uuid, sizeof out->uuid, "%s", i->uuid);
    snprintf(out->name, sizeof out->name, "%s", i->name);
    snprintf(out->console, sizeof out->console, "%s", i->console);
    out->domid = i->domid;
    out->state = i->state < HV_STATE_MAX_ ? (enum hv_state)i->state : HV_CRASHED;
    out->epoch = i->epoch;
    out->memory_kib = i->memory_kib;
    out->max_memory_kib = i->max_memory_kib;
    out->vcpus = i->vcpus;
    out->cpu_ns = i->cpu_ns;
    out->pid = i->pid;
    snprintf(out->reason, sizeof out->reason, "%s", i->reason);
    out->fused = i->fused && fuse_orders_reach(&hv->fuses, out->uuid);
    out->blown = i->blown;
}

static int driver_info(struct hv *hv, const char *uuid, struct hv_info *out, struct err *e)
{
    Migrd__Xvm__Reply *r = call_info(hv, uuid, HV_CALL_TIMEOUT_MS, e);

    if (r == NULL)
        return -1;
    copy_info(hv, r->info, out);
    migrd__xvm__reply__free_unpacked(r, NULL);
    return 0;
}

/* A domain that lives but does not answer is shown with what its folder tells. */
static void silent_info(
    struct hv *hv, const char *dir, const char *uuid, pid_t pid, struct hv_info *out)
{
    memset(out, 0, sizeof *out);
    snprintf(out->uuid, sizeof out->uuid, "%s", uuid);
    snprintf(out->name, sizeof out->name, "%s", uuid);
    out->domid = -1;
    out->state = HV_CRASHED;
    out->epoch = rundir_read_epoch(dir);
    out->pid = pid;
    out->fused = fuse_orders_reach(&hv->fuses, uuid);
}

/* One folder of run_dir: true and *out, *lazy_kib (memory it may still take); false if there is no
 * domain in it (any more). */
static bool look_at(struct hv *hv, const char *uuid, struct hv_info *out, uint64_t *lazy_kib)
{
    Migrd__Xvm__Reply *r;
    char dir[RUNDIR_LEN];
    struct err e;
    bool alive;
    pid_t pid;

    r = call_info(hv, uuid, PROBE_TIMEOUT_MS, &e);
    if (r != NULL) {
        copy_info(hv, r->info, out);
        *lazy_kib = r->info->max_memory_kib > r->info->populated_kib
                        ? r->info->max_memory_kib - r->info->populated_kib
                        : 0;
        migrd__xvm__reply__free_unpacked(r, NULL);
        events_watch(hv, uuid, NULL);
        return true;
    }
    driver_dir(hv, uuid, dir);
    rundir_process(dir, &pid, &alive);
    if (!alive) {
        rundir_remove(dir);
        return false;
    }
    if (e.code == ERR_NOT_FOUND)
        return false; /* not built yet, or just going */
    log_warn("xvm", "domain %s: its process %d does not answer: %s", uuid, (int)pid, e.text);
    silent_info(hv, dir, uuid, pid, out);
    *lazy_kib = 0;
    return true;
}

static int list_domains(
    struct hv *hv, struct hv_info **list, size_t *n, uint64_t *lazy_kib, struct err *e)
{
    DIR *d = opendir(hv->run_dir);
    size_t cap = 0;
    struct dirent *x;
    int failed;

    *list = NULL;
    *n = 0;
    *lazy_kib = 0;
    if (d == NULL)
        return err_sys(e, "%s", hv->run_dir);
    while (errno = 0, (x = readdir(d)) != NULL) {
        uint64_t lazy = 0;

        if (!rundir_is_uuid(x->d_name))
            continue;
        if (*n == cap) {
            struct hv_info *more = realloc(*list, (cap * 2 + 8) * sizeof **list);

            if (more == NULL) {
                closedir(d);
                free(*list);
                *list = NULL;
                return err_set(e, ERR_MEMORY, "out of memory for the list of domains");
            }
            *list = more;
            cap = cap * 2 + 8;
        }
        if (look_at(hv, x->d_name, &(*list)[*n], &lazy))
            (*n)++;
        *lazy_kib += lazy;
    }
    failed = errno;
    closedir(d);
    if (failed == 0)
        return 0;
    free(*list);
    *list = NULL;
    errno = failed;
    return err_sys(e, "%s", hv->run_dir); /* a part of them would tell that the others are gone */
}

static int driver_enumerate(struct hv *hv, struct hv_info **list, size_t *n, struct err *e)
{
    uint64_t lazy;

    return list_domains(hv, list, n, &lazy, e);
}

/* What a new domain may take: available, minus what the others have been promised. */
static int memory_free(struct hv *hv, uint64_t *kib, struct err *e)
{
    struct hv_info *list;
    uint64_t lazy, have = meminfo("MemAvailable:");
    size_t n;

    if (list_domains(hv, &list, &n, &lazy, e) < 0)
        return -1;
    free(list);
    *kib = have > lazy + MEMORY_SPARE_KIB ? have - lazy - MEMORY_SPARE_KIB : 0;
    return 0;
}

static int driver_capabilities(struct hv *hv, struct hv_caps *out, struct err *e)
{
    int r = 0;

    pthread_mutex_lock(&hv->lock);
    if (!hv->has_caps) {
        r = read_caps(hv, &hv->caps, e);
        hv->has_caps = r == 0;
    }
    *out = hv->caps;
    pthread_mutex_unlock(&hv->lock);
    if (r < 0)
        return -1;
    out->memory_total_kib = meminfo("MemTotal:");
    return memory_free(hv, &out->memory_free_kib, e);
}

static Migrd__Domain *driver_definition(struct hv *hv, const char *uuid, struct err *e)
{
    Migrd__Xvm__Request q = MIGRD__XVM__REQUEST__INIT;
    Migrd__Xvm__Reply *r = NULL;
    Migrd__Domain *def;

    q.op = MIGRD__XVM__OP__OP_DEFINITION;
    if (driver_call(hv, uuid, &q, &r, HV_CALL_TIMEOUT_MS, e) < 0)
        return NULL;
    def = r->definition;
    r->definition = NULL;
    migrd__xvm__reply__free_unpacked(r, NULL);
    if (def == NULL)
        err_set(e, ERR_PROTOCOL, "xvm-domain: an answer without a definition");
    return def;
}

static void copy_cpu(const Migrd__Xvm__Cpu *c, struct hv_caps *out)
{
    memset(out, 0, sizeof *out);
    snprintf(out->hypervisor, sizeof out->hypervisor, "xvm");
    snprintf(out->release, sizeof out->release, XVM_RELEASE);
    snprintf(out->cpu_vendor, sizeof out->cpu_vendor, "%s", c->vendor);
    snprintf(out->cpu_model, sizeof out->cpu_model, "%s", c->model);
    for (size_t i = 0; i < c->n_features && i < HV_FEATURE_WORDS; i++)
        out->features[i] = c->features[i];
    out->xsave_size = c->xsave_size;
    out->xcr0 = c->xcr0;
    out->tsc_khz = c->tsc_khz;
    out->cpu_family = c->family;
    out->cpu_model_no = c->model_no;
    out->cpu_stepping = c->stepping;
}

static int driver_guest_cpu(struct hv *hv, const char *uuid, struct hv_caps *out, struct err *e)
{
    Migrd__Xvm__Request q = MIGRD__XVM__REQUEST__INIT;
    Migrd__Xvm__Reply *r = NULL;
    int ok;

    q.op = MIGRD__XVM__OP__OP_CPU;
    if (driver_call(hv, uuid, &q, &r, HV_CALL_TIMEOUT_MS, e) < 0)
        return -1;
    ok = r->cpu != NULL ? 0 : err_set(e, ERR_PROTOCOL, "xvm-domain: an answer without a CPU");
    if (ok == 0)
        copy_cpu(r->cpu, out);
    migrd__xvm__reply__free_unpacked(r, NULL);
    return ok;
}

/* Nothing else may be in the folder; what a dead process left is removed. */
static int check_free(struct hv *hv, const Migrd__Domain *def, struct err *e)
{
    char dir[RUNDIR_LEN];
    bool alive;
    pid_t pid;

    if (!rundir_is_uuid(def->uuid))
        return err_set(
            e, ERR_INVALID, "domain %s: %.64s is not a uuid in lower case", def->name, def->uuid);
    driver_dir(hv, def->uuid, dir);
    if (access(dir, F_OK) < 0)
        return 0;
    rundir_process(dir, &pid, &alive);
    if (alive)
        return err_set(e, ERR_EXISTS, "domain %s (%s) is here already, process %d", def->name,
            def->uuid, (int)pid);
    rundir_remove(dir);
    return 0;
}

static int check_memory(struct hv *hv, const Migrd__Domain *def, struct err *e)
{
    uint64_t want = def->max_memory_kib > def->memory_kib ? def->max_memory_kib : def->memory_kib;
    uint64_t have;

    if (def->huge_pages)
        return 0; /* reserved when mapped: the domain's process tells */
    if (memory_free(hv, &have, e) < 0)
        return -1;
    if (want > have)
        return err_set(e, ERR_MEMORY,
            "domain %s: needs %" PRIu64 " MiB of memory, this host has %" PRIu64
            " MiB free for domains",
            def->name, want >> 10, have >> 10);
    return 0;
}

/* Text that the starting process wrote to its standard error, without newlines at the end. */
static void read_complaint(int fd, char *text, size_t size)
{
    size_t n = 0;
    ssize_t r;

    while (n < size - 1 && (r = read(fd, text + n, size - 1 - n)) > 0)
        n += (size_t)r;
    while (n > 0 && text[n - 1] == '\n')
        n--;
    text[n] = '\0';
}

/* Runs xvm-domain until it is in the background and listens. */
static int spawn_domain(struct hv *hv, const Migrd__Domain *def, struct err *e)
{
    char program[PATHS_LEN], text[400];
    char *argv[] = { program, (char *)"--run-dir", hv->run_dir, (char *)"--log-dir", hv->log_dir,
        (char *)"--uuid", def->uuid, (char *)"--name", def->name,
        getenv("XVM_DEBUG") != NULL ? (char *)"--debug" : NULL, NULL };
    int p[2], status = 0, r;
    pid_t pid;

    if (paths_program(program, "xvm-domain", e) < 0)
        return -1;
    if (pipe2(p, O_CLOEXEC) < 0)
        return err_sys(e, "pipe");
    r = spawn_run(argv, -1, -1, p[1], &pid);
    close(p[1]);
    if (r != 0) {
        close(p[0]);
        return err_set(e, ERR_SYSTEM, "%s: %s", program, strerror(r));
    }
    read_complaint(p[0], text, sizeof text);
    close(p[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    return err_set(e, ERR_SYSTEM, "domain %s: its process did not start: %s", def->name,
        text[0] != '\0' ? text : "no reason given");
}

/* Waits for the end of the folder's process, if it lives; kills it when it has not come by itself
 * after `grace_ms`. */
static int end_process(const char *dir, int grace_ms, struct err *e)
{
    struct pollfd p = { .events = POLLIN };
    bool alive;
    pid_t pid;

    rundir_process(dir, &pid, &alive);
    if (!alive)
        return 0;
    p.fd = pidfd_open(pid, 0);
    if (p.fd < 0)
        return errno == ESRCH ? 0 : err_sys(e, "process %d", (int)pid);
    rundir_process(dir, &pid, &alive); /* the descriptor is that process now, or it is gone */
    if (alive && grace_ms > 0 && poll(&p, 1, grace_ms) > 0)
        alive = false;
    if (alive && pidfd_send_signal(p.fd, SIGKILL, NULL, 0) < 0 && errno != ESRCH) {
        close(p.fd);
        return err_sys(e, "killing process %d", (int)pid);
    }
    if (alive && poll(&p, 1, HV_CALL_TIMEOUT_MS) <= 0) {
        close(p.fd);
        return err_set(e, ERR_TIMEOUT, "process %d does not die", (int)pid);
    }
    close(p.fd);
    return 0;
}

/* A process that has refused ends by itself, and first gives back the leases of the disks that it
 * had opened: killed at once it would leave them for the next start to watch. */
static void undo_start(struct hv *hv, const char *uuid)
{
    char dir[RUNDIR_LEN];

    events_forget(hv, uuid);
    driver_dir(hv, uuid, dir);
    end_process(dir, REFUSED_END_MS, NULL);
    rundir_remove(dir);
}

static int driver_start(
    struct hv *hv, const Migrd__Domain *def, const struct hv_start *how, struct err *e)
{
    Migrd__Xvm__Request q = MIGRD__XVM__REQUEST__INIT;
    Migrd__Xvm__Build b = MIGRD__XVM__BUILD__INIT;
    /* Leases whose holder died are watched for 2.6 times their time, one after the other. */
    unsigned lease_ms = hv->storage.leases && !how->incoming ? 3 * hv->storage.lease_ms : 0;
    unsigned ms = BUILD_CALL_TIMEOUT_MS + lease_ms * (unsigned)def->n_disks;

    if (check_free(hv, def, e) < 0 || check_memory(hv, def, e) < 0)
        return -1;
    fuse_orders_before_start(&hv->fuses, def->uuid);
    if (spawn_domain(hv, def, e) < 0)
        return -1;
    b.definition = (Migrd__Domain *)def;
    b.domid = how->domid;
    b.incoming = how->incoming;
    b.paused = how->paused;
    b.blown = how->blown;
    b.proven = how->proven != HV_PROOF_NONE;
    b.proof = how->proven;
    b.storage = &hv->storage;
    b.host_cpu_level = hv->cpu_level;
    q.op = MIGRD__XVM__OP__OP_BUILD;
    q.epoch = how->epoch;
    q.build = &b;
    if (fuse_orders_begin(&hv->fuses, def->uuid, how->epoch, e) < 0 || events_watch(hv, def->uuid, e) < 0 ||
        driver_call(hv, def->uuid, &q, NULL, ms, e) < 0) {
        undo_start(hv, def->uuid);
        return -1;
    }
    driver_place(hv, def);
    return 0;
}

static int driver_pause(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    return simple_call(hv, uuid, MIGRD__XVM__OP__OP_PAUSE, epoch, 0, e);
}

static int driver_resume(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    return simple_call(hv, uuid, MIGRD__XVM__OP__OP_RESUME, epoch, 0, e);
}

/* Who decided must be shown that the disks' owner is gone: that is watched, disk after disk. */
static int driver_claim(
    struct hv *hv, const char *uuid, uint64_t epoch, bool decided, struct err *e)
{
    Migrd__Xvm__Request q = MIGRD__XVM__REQUEST__INIT;
    unsigned watch_ms = decided && hv->storage.leases ? 2 * hv->storage.lease_ms : 0;

    q.op = MIGRD__XVM__OP__OP_CLAIM;
    q.epoch = epoch;
    q.value = decided;
    return driver_call(hv, uuid, &q, NULL, HV_CALL_TIMEOUT_MS + WATCHED_DISKS * watch_ms, e);
}

static int driver_yield(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    return simple_call(hv, uuid, MIGRD__XVM__OP__OP_YIELD, epoch, 0, e);
}

static int driver_shutdown(struct hv *hv, const char *uuid, bool reboot, struct err *e)
{
    return simple_call(hv, uuid, MIGRD__XVM__OP__OP_SHUTDOWN, 0, reboot, e);
}

static int driver_set_memory(struct hv *hv, const char *uuid, uint64_t memory_kib, struct err *e)
{
    return simple_call(hv, uuid, MIGRD__XVM__OP__OP_SET_MEMORY, 0, memory_kib, e);
}

/* It did not answer, or went away meanwhile. */
static int destroy_by_force(const char *dir, uint64_t epoch, struct err *e)
{
    uint64_t seen = rundir_read_epoch(dir);

    if (epoch < seen)
        return err_set(e, ERR_EPOCH,
            "%s: epoch %" PRIu64 " is older than %" PRIu64 ", which it has seen already", dir,
            epoch, seen);
    if (end_process(dir, 0, e) < 0)
        return -1;
    rundir_remove(dir);
    return 0;
}

/* Until the process is gone: its end closes the connection. */
static void wait_for_end(struct xvm_client *c)
{
    uint64_t deadline = clock_ns() + HV_CALL_TIMEOUT_MS * NS_PER_MS;

    while (msgconn_fill(c->conn, NULL) == 0 &&
           io_wait(msgconn_fd(c->conn), POLLIN, deadline, NULL) == 0)
        ;
}

static int driver_destroy(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    Migrd__Xvm__Request q = MIGRD__XVM__REQUEST__INIT;
    struct xvm_client c;
    char dir[RUNDIR_LEN];
    struct err why;
    int r;

    if (!rundir_is_uuid(uuid))
        return err_set(e, ERR_INVALID, "%.64s: not a uuid in lower case", uuid);
    driver_dir(hv, uuid, dir);
    if (access(dir, F_OK) < 0)
        return err_set(e, ERR_NOT_FOUND, "domain %s: no such domain is running", uuid);
    q.op = MIGRD__XVM__OP__OP_DESTROY;
    q.epoch = epoch;
    err_clear(&why);
    r = xvm_connect(&c, dir, &why);
    if (r == 0)
        r = xvm_call(&c, &q, -1, NULL, NULL, HV_CALL_TIMEOUT_MS, &why);
    if (r == 0)
        wait_for_end(&c);
    xvm_disconnect(&c);
    cgroup_sweep();
    if (r == 0) {
        fuse_orders_forget(&hv->fuses, uuid);
        return 0;
    }
    if (why.code != ERR_TIMEOUT && why.code != ERR_PEER && why.code != ERR_NOT_FOUND)
        return err_set(e, why.code, "%s", why.text);
    if (destroy_by_force(dir, epoch, e) < 0)
        return -1;
    fuse_orders_forget(&hv->fuses, uuid);
    return 0;
}

static int driver_fuse(
    struct hv *hv, const char *uuid, uint64_t epoch, uint64_t deadline_ms, struct err *e)
{
    return fuse_orders_set(&hv->fuses, uuid, epoch, deadline_ms, e);
}

const struct hv_ops xvm_driver = {
    .name = "xvm",
    .open = driver_open,
    .close = driver_close,
    .capabilities = driver_capabilities,
    .enumerate = driver_enumerate,
    .info = driver_info,
    .definition = driver_definition,
    .guest_cpu = driver_guest_cpu,
    .start = driver_start,
    .pause = driver_pause,
    .resume = driver_resume,
    .claim = driver_claim,
    .yield = driver_yield,
    .fuse = driver_fuse,
    .shutdown = driver_shutdown,
    .destroy = driver_destroy,
    .set_memory = driver_set_memory,
    .vcpus = driver_vcpus,
    .pin = driver_pin,
    .set_vcpus = driver_set_vcpus,
    .sched_get = driver_sched_get,
    .sched_set = driver_sched_set,
    .stats = driver_stats,
    .event_fd = driver_event_fd,
    .next_event = driver_next_event,
    .mig_open = driver_mig_open,
    .mig_close = driver_mig_close,
    .mig_layout = driver_mig_layout,
    .mig_populated = driver_mig_populated,
    .mig_map = driver_mig_map,
    .mig_unmap = driver_mig_unmap,
    .mig_zero = driver_mig_zero,
    .dirty_start = driver_dirty_start,
    .dirty_collect = driver_dirty_collect,
    .dirty_peek = driver_dirty_peek,
    .dirty_give_back = driver_dirty_give_back,
    .dirty_stop = driver_dirty_stop,
    .mig_pause = driver_mig_pause,
    .mig_resume = driver_mig_resume,
    .mig_registers = driver_mig_registers,
    .state_save = driver_state_save,
    .state_load = driver_state_load,
    .throttle = driver_throttle,
};
