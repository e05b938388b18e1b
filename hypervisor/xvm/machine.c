/* SPDX-License-Identifier: ISC */
/*
 * The machine's life. The control thread makes all transitions; what a guest does to
 * itself comes in through machine_guest_stopped, which parks the vCPUs at once and
 * leaves the transition to the control thread (machine_take_stop).
 *
 *              pause      resume     load       save    guest stops  hold       no hold
 *   INCOMING   refused    refused    LOADED     refused    -          -          -
 *   LOADED     PAUSED     RUNNING    refused    refused    -          -          -
 *   BROKEN     refused    refused    refused    refused    -          -          -
 *   PAUSED     stays      RUNNING    refused    yes        STOPPED    -          -
 *   RUNNING    PAUSED     stays      refused    refused    STOPPED    SUSPENDED  -
 *   SUSPENDED  PAUSED     tries      refused    refused    STOPPED    -          RUNNING
 *   STOPPED    refused    refused    refused    refused    -          -          -
 *
 * A load that fails leaves BROKEN. Pausing parks the vCPUs first, then quiesces the
 * devices: a vCPU that still handles an I/O exit finds its device at work. Resuming goes
 * the other way round. A guest that stopped while it was being paused is STOPPED, and
 * the pause is refused with the reason. Where a device has requests in flight for too
 * long (a disk that hangs), the guest goes on, and the pause fails with the device's name.
 * A guest that came by migration and is to stay paused becomes PAUSED by a pause.
 *
 * Holds (suspend.c) are a device's reasons why the guest must stand still: RUNNING is
 * SUSPENDED for as long as there is one; devices stay at work meanwhile. Paused in that
 * state, a device may give up what is in flight and keeps it for the next start. Before
 * each resume the disks are made this host's (virtio_blk_claim); if that fails, nothing
 * has run or been written.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpulist.h"
#include "base/io.h"
#include "base/log.h"
#include "hypervisor/xvm/kvm_internal.h"

#define SUSPENDED_DRAIN_MS 300

static const char *const life_names[] = {
    [LIFE_INCOMING] = "incoming",
    [LIFE_LOADED] = "loaded",
    [LIFE_BROKEN] = "broken by a state that did not fit",
    [LIFE_PAUSED] = "paused",
    [LIFE_RUNNING] = "running",
    [LIFE_SUSPENDED] = "suspended",
    [LIFE_STOPPED] = "stopped",
};
_Static_assert(sizeof life_names / sizeof life_names[0] == LIFE_MAX, "name every life");

const char *life_name(enum life l)
{
    return (unsigned)l < LIFE_MAX ? life_names[l] : "unknown";
}

struct machine *machine_new(const char *run_dir, const char *log_dir)
{
    struct machine *m = calloc(1, sizeof *m);
    pthread_condattr_t attr;

    if (m == NULL)
        return NULL;
    snprintf(m->run_dir, sizeof m->run_dir, "%s", run_dir);
    snprintf(m->log_dir, sizeof m->log_dir, "%s", log_dir);
    m->kvm_fd = m->vm_fd = m->ram_fd = m->shared_fd = -1;
    m->stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->stop_event < 0) {
        free(m);
        return NULL;
    }
    pthread_mutex_init(&m->run_lock, NULL);
    pthread_mutex_init(&m->fuse.lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&m->run_cond, &attr);
    pthread_cond_init(&m->parked_cond, &attr);
    pthread_condattr_destroy(&attr);
    return m;
}

static void quiesce_devices(struct machine *m)
{
    for (struct device *d = m->devices; d != NULL; d = d->next)
        d->ops->quiesce(d);
}

static void start_devices(struct machine *m)
{
    for (struct device *d = m->devices; d != NULL; d = d->next)
        d->ops->start(d);
}

void machine_free(struct machine **mp)
{
    struct machine *m = *mp;

    if (m == NULL)
        return;
    *mp = NULL;
    fuse_close(m);
    if (m->n_vcpus != 0)
        vcpus_free(m);
    quiesce_devices(m);
    while (m->devices != NULL) {
        struct device *d = m->devices;

        m->devices = d->next;
        d->ops->free(d);
    }
    fuse_dispose(m);
    kvm_free_vm(m);
    dirty_free(m);
    ram_free(m);
    io_close(&m->stop_event);
    pthread_cond_destroy(&m->run_cond);
    pthread_cond_destroy(&m->parked_cond);
    pthread_mutex_destroy(&m->run_lock);
    if (m->def != NULL)
        migrd__domain__free_unpacked(m->def, NULL);
    free(m);
}

static int probe_vcpu_features(struct machine *m, struct err *e)
{
    struct kvm_device_attr a = { .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET };
    int xsave2 = ioctl(m->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);

    if (ioctl(m->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE) <= 0 ||
        ioctl(m->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XCRS) <= 0)
        return err_set(e, ERR_UNSUPPORTED, "/dev/kvm: no XSAVE; this CPU is too old");
    m->xsave_len = xsave2 > 4096 ? (uint32_t)xsave2 : 4096;
    m->host_tsc_khz = ioctl(m->vcpu[0].fd, KVM_GET_TSC_KHZ, 0);
    m->has_tsc_offset = ioctl(m->vcpu[0].fd, KVM_HAS_DEVICE_ATTR, &a) == 0;
    return 0;
}

static int alloc_bitmaps(struct machine *m, struct err *e)
{
    size_t words = HV_BITMAP_WORDS(m->max_gfn);

    m->device_dirty = calloc(words, sizeof *m->device_dirty);
    m->kvm_dirty = calloc(words, sizeof *m->kvm_dirty);
    if (m->device_dirty == NULL || m->kvm_dirty == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory for bitmaps", m->def->name);
    return 0;
}

/* CPUID and the first registers of a machine that boots here. */
static int boot(struct machine *m, struct err *e)
{
    struct cpuid_table level = m->offered;

    if (cpuid_limit(&level, m->def->cpu_level, e) < 0)
        return err_prefix(e, "domain %s", m->def->name);
    for (unsigned i = 0; i < m->n_vcpus; i++) {
        struct cpuid_table t = level;

        cpuid_for_vcpu(&t, i, m->n_vcpus);
        if (cpuid_set(&m->vcpu[i], &t, e) < 0)
            return -1;
    }
    for (struct device *d = m->devices; d != NULL; d = d->next)
        d->ops->reset(d);
    return boot_kernel(m, e);
}

static int check_pinning(const struct machine *m, struct err *e)
{
    cpu_set_t set;

    for (unsigned i = 0; i <= m->def->n_vcpu_pins; i++)
        if (cpulist_parse(hv_vcpu_pinning(m->def, i), &set, e) < 0)
            return err_prefix(e, "domain %s", m->def->name);
    return 0;
}

int machine_build(
    struct machine *m, Migrd__Domain *def, const struct machine_how *how, struct err *e)
{
    m->def = def;
    m->domid = how->domid;
    m->epoch = how->epoch;
    m->incoming = how->incoming;
    if (check_pinning(m, e) < 0 || ram_create(m, e) < 0 || alloc_bitmaps(m, e) < 0 ||
        kvm_create_vm(m, e) < 0 || cpuid_offered(m->kvm_fd, &m->offered, e) < 0 ||
        cpuid_limit(&m->offered, m->host_cpu_level, e) < 0 || vcpus_create(m, e) < 0 ||
        probe_vcpu_features(m, e) < 0 || platform_create(m, e) < 0 ||
        devices_create(m, how->incoming, e) < 0)
        return -1;
    if (!how->incoming && boot(m, e) < 0)
        return -1;
    if (vcpus_start_threads(m, e) < 0 || fuse_open(m, how->blown, e) < 0)
        return -1;
    virtio_blk_drain(m);
    m->life = how->incoming ? LIFE_INCOMING : LIFE_PAUSED;
    return 0;
}

void machine_guest_stopped(struct machine *m, enum machine_stop why, const char *detail)
{
    uint64_t one = 1;
    bool first;

    pthread_mutex_lock(&m->run_lock);
    first = !m->stop_seen;
    if (first) {
        m->stop_why = why;
        snprintf(m->stop_detail, sizeof m->stop_detail, "%s", detail == NULL ? "" : detail);
        m->stop_seen = true;
    }
    pthread_mutex_unlock(&m->run_lock);
    vcpus_ask_to_park(m);
    if (first && write(m->stop_event, &one, sizeof one) < 0)
        log_error("xvm", "%s: telling of its end: errno %d", m->def->name, errno);
}

static bool stop_seen(struct machine *m)
{
    bool seen;

    pthread_mutex_lock(&m->run_lock);
    seen = m->stop_seen;
    pthread_mutex_unlock(&m->run_lock);
    return seen;
}

bool machine_take_stop(struct machine *m)
{
    uint64_t n;

    if (read(m->stop_event, &n, sizeof n) < 0 && errno != EAGAIN)
        log_error("xvm", "%s: eventfd: errno %d", m->def->name, errno);
    if (!stop_seen(m) ||
        (m->life != LIFE_RUNNING && m->life != LIFE_SUSPENDED && m->life != LIFE_PAUSED))
        return false;
    vcpus_park(m);
    quiesce_devices(m);
    if (m->stop_why == STOP_SHUTDOWN && m->reboot_asked)
        m->stop_why = STOP_REBOOT;
    m->life = LIFE_STOPPED;
    return true;
}

static int wrong_life(const struct machine *m, const char *action, struct err *e)
{
    return err_set(e, ERR_STATE, "domain %s: cannot %s: it is %s%s%s", m->def->name, action,
        life_name(m->life), m->life == LIFE_STOPPED ? ": " : "",
        m->life == LIFE_STOPPED ? m->stop_detail : "");
}

/* What of a loaded state waits for the moment from which the guest is this host's. */
static int finish_load(struct machine *m, struct err *e)
{
    for (unsigned i = 0; i < m->n_vcpus; i++)
        if (vcpu_finish_load(&m->vcpu[i], e) < 0)
            return err_prefix(e, "domain %s", m->def->name);
    return 0;
}

static int drain_devices(struct machine *m, unsigned drain_ms, struct err *e)
{
    m->undrained = m->unflushed = NULL;
    m->drain_until_ns = clock_ns() + drain_ms * NS_PER_MS;
    quiesce_devices(m);
    m->drain_until_ns = 0;
    if (m->life == LIFE_SUSPENDED)
        m->unflushed = NULL; /* the guest hears of it by its next flush, here or elsewhere */
    if (m->undrained == NULL && m->unflushed == NULL)
        return 0;
    start_devices(m);
    if (m->life == LIFE_RUNNING)
        vcpus_run(m);
    if (m->unflushed != NULL)
        return err_set(e, ERR_SYSTEM,
            "domain %s: cannot pause: %s cannot flush its disk; see the domain's log and the disk",
            m->def->name, m->unflushed);
    return err_set(e, ERR_TIMEOUT,
        "domain %s: cannot pause: %s has requests in flight for %u ms; does its disk hang?",
        m->def->name, m->undrained, drain_ms);
}

int machine_pause(struct machine *m, unsigned drain_ms, struct err *e)
{
    switch (m->life) {
    case LIFE_PAUSED:
        return 0;
    case LIFE_LOADED:
        if (virtio_blk_claim(m, m->epoch, false, e) < 0 || finish_load(m, e) < 0)
            return -1;
        m->life = LIFE_PAUSED;
        return 0;
    case LIFE_RUNNING:
        break;
    case LIFE_SUSPENDED: /* nobody waits for what is in flight: it may be given up */
        drain_ms = drain_ms < SUSPENDED_DRAIN_MS ? drain_ms : SUSPENDED_DRAIN_MS;
        break;
    case LIFE_INCOMING:
    case LIFE_BROKEN:
    case LIFE_STOPPED:
    case LIFE_MAX:
        return wrong_life(m, "pause", e);
    }
    vcpus_park(m);
    if (!stop_seen(m) && drain_devices(m, drain_ms, e) < 0)
        return -1;
    if (stop_seen(m))
        return err_set(e, ERR_STATE, "domain %s: cannot pause: it has just ended itself: %s",
            m->def->name, m->stop_detail);
    m->life = LIFE_PAUSED;
    atomic_store(&m->goes, false);
    return 0;
}

/* All is ready: devices and vCPUs go on, unless a device still has a reason against it. */
static void go_on(struct machine *m)
{
    atomic_store(&m->goes, true);
    fuse_look(m);
    start_devices(m);
    if (machine_suspended(m)) {
        m->life = LIFE_SUSPENDED;
        return;
    }
    m->life = LIFE_RUNNING;
    fuse_ran(m);
    vcpus_run(m);
}

int machine_claim(struct machine *m, uint64_t epoch, bool decided, struct err *e)
{
    if (m->life != LIFE_LOADED && m->life != LIFE_PAUSED)
        return m->life == LIFE_INCOMING || m->life == LIFE_BROKEN ? wrong_life(m, "run", e) : 0;
    if (virtio_blk_claim(m, epoch, decided, e) < 0)
        return err_prefix(e, "domain %s: cannot run", m->def->name);
    return 0;
}

int machine_yield(struct machine *m, struct err *e)
{
    return m->life == LIFE_PAUSED ? virtio_blk_yield(m, e) : wrong_life(m, "yield its disks", e);
}

static int refuse_blown(const struct machine *m, struct err *e)
{
    char text[160];

    fuse_reason(&m->fuse, text, sizeof text);
    return err_set(e, ERR_STATE, "domain %s: cannot run: %s", m->def->name, text);
}

int machine_resume(struct machine *m, struct err *e)
{
    bool loaded = m->life == LIFE_LOADED;
    bool lit = fuse_resume(m);

    switch (m->life) {
    case LIFE_RUNNING:
        return 0;
    case LIFE_LOADED:
    case LIFE_PAUSED:
        break;
    case LIFE_SUSPENDED:
        if (!lit)
            return refuse_blown(m, e);
        break;
    case LIFE_INCOMING:
    case LIFE_BROKEN:
    case LIFE_STOPPED:
    case LIFE_MAX:
        return wrong_life(m, "run", e);
    }
    if (virtio_blk_claim(m, m->epoch, false, e) < 0)
        return err_prefix(e, "domain %s: cannot run", m->def->name);
    if (loaded && finish_load(m, e) < 0)
        return -1;
    go_on(m);
    if (m->incoming)
        virtio_net_announce(m);
    m->incoming = false;
    return 0;
}

/* Each writes its own section, named as its ops are. */
static int save_devices(struct machine *m, struct state_writer *w, struct err *e)
{
    for (struct device *d = m->devices; d != NULL; d = d->next)
        if (d->ops->save(d, w, e) < 0)
            return err_prefix(e, "device %s", d->ops->name);
    return 0;
}

static int save_all(struct machine *m, struct state_writer *w, struct err *e)
{
    struct clock_state clock;

    /* KVM's timer goes on ticking: a tick that moves from the controllers to a LAPIC meanwhile must
     * be seen there, so the LAPICs come second. */
    if (clock_save(m, w, &clock, e) < 0 || vm_save(m, w, e) < 0)
        return -1;
    for (unsigned i = 0; i < m->n_vcpus; i++)
        if (vcpu_save(&m->vcpu[i], w, &clock, e) < 0)
            return -1;
    return save_devices(m, w, e);
}

int machine_save(struct machine *m, uint8_t **blob, size_t *len, struct err *e)
{
    struct state_writer w;

    if (m->life != LIFE_PAUSED || stop_seen(m))
        return wrong_life(m, "save its state", e);
    state_writer_init(&w);
    if (save_all(m, &w, e) < 0) {
        state_writer_dispose(&w);
        return -1;
    }
    return state_finish(&w, blob, len, e);
}

static int load_devices(struct machine *m, struct state_blob *b, struct err *e)
{
    for (struct device *d = m->devices; d != NULL; d = d->next) {
        struct state_reader r;

        if (state_open(b, d->ops->name, &r, e) < 0 || d->ops->load(d, &r, e) < 0)
            return err_prefix(e, "device %s", d->ops->name);
    }
    return 0;
}

/* Interrupt controllers before the vCPUs' LAPICs, devices last: they raise their lines. */
static int load_all(struct machine *m, struct state_blob *b, struct err *e)
{
    struct clock_state clock;

    if (vm_load(m, b, e) < 0 || clock_load(m, b, &clock, e) < 0)
        return -1;
    for (unsigned i = 0; i < m->n_vcpus; i++)
        if (vcpu_load(&m->vcpu[i], b, &m->offered, &clock, e) < 0)
            return -1;
    return load_devices(m, b, e) < 0 || state_all_taken(b, e) < 0 ? -1 : 0;
}

int machine_load(struct machine *m, const uint8_t *blob, size_t len, struct err *e)
{
    struct state_blob *b = NULL;
    int r = -1;

    if (m->life != LIFE_INCOMING)
        return wrong_life(m, "load a state", e);
    m->msr_refused = 0;
    if (state_parse(blob, len, &b, e) == 0)
        r = load_all(m, b, e);
    state_blob_free(&b);
    m->life = r == 0 ? LIFE_LOADED : LIFE_BROKEN;
    if (m->msr_refused != 0)
        log_debug("xvm", "%s: %u MSRs kept the values of this host", m->def->name, m->msr_refused);
    return r;
}

int machine_press_power(struct machine *m, bool reboot, struct err *e)
{
    if (m->life != LIFE_RUNNING)
        return wrong_life(m, "ask it to shut down", e);
    m->reboot_asked = reboot;
    platform_power_button(m);
    return 0;
}

enum hv_state machine_state(const struct machine *m)
{
    switch (m->life) {
    case LIFE_INCOMING:
    case LIFE_LOADED:
    case LIFE_BROKEN:
        return HV_INCOMING;
    case LIFE_PAUSED:
    case LIFE_SUSPENDED:
        return HV_PAUSED;
    case LIFE_RUNNING:
        return vcpus_sleep(m) ? HV_BLOCKED : HV_RUNNING;
    case LIFE_STOPPED:
        return m->stop_why == STOP_CRASH ? HV_CRASHED : HV_SHUTDOWN;
    case LIFE_MAX:
        break;
    }
    return HV_CRASHED;
}

uint64_t machine_drain_until(const struct machine *m)
{
    return m->drain_until_ns;
}

void machine_not_drained(struct machine *m, const char *device)
{
    m->undrained = device;
}

void machine_not_flushed(struct machine *m, const char *device)
{
    m->unflushed = device;
}

const Migrd__Domain *machine_def(const struct machine *m)
{
    return m->def;
}

bool machine_paused(const struct machine *m)
{
    return !atomic_load(&m->goes);
}

const struct machine_storage *machine_storage(const struct machine *m)
{
    return &m->storage;
}

uint64_t machine_epoch(const struct machine *m)
{
    return m->epoch;
}

const char *machine_run_dir(const struct machine *m)
{
    return m->run_dir;
}

const char *machine_log_dir(const struct machine *m)
{
    return m->log_dir;
}
