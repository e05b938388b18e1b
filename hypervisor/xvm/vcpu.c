/* SPDX-License-Identifier: ISC */
/*
 * vCPU threads. A thread is parked (waits on run_cond) or runs the guest:
 *
 *   parked --vcpus_run--> running --immediate_exit + signal--> parked
 *
 * vcpus_ask_to_park clears `run`, sets immediate_exit of each vCPU and signals it, all
 * under run_lock; the thread clears immediate_exit under the same lock after it has seen
 * `run` set, so no request is lost, wherever the signal hits. A thread goes back to park
 * only after KVM_RUN said EINTR: an I/O exit is completed by entering KVM_RUN again, so
 * registers are final when it parks.
 *
 * Throttle: a thread of its own starts a nap of its share of each THROTTLE_PERIOD for all
 * vCPUs at once. Parking ends a nap. In-kernel HLT sleeps inside KVM_RUN. A cap (cap.c)
 * makes them nap in the same way.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpulist.h"
#include "base/io.h"
#include "base/log.h"
#include "hypervisor/xvm/machine_internal.h"

_Static_assert(sizeof(struct hv_cpus) == sizeof(cpu_set_t), "a set of CPUs is a set of CPUs");

#define KICK_SIGNAL SIGUSR1
#define THROTTLE_PERIOD_NS (10 * NS_PER_MS)

static struct timespec timespec_of(uint64_t ns)
{
    return (struct timespec){ (time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S) };
}

void vcpus_kick(struct machine *m)
{
    for (unsigned i = 0; i < m->n_vcpus; i++) {
        struct vcpu *v = &m->vcpu[i];

        if (!v->has_thread || v->parked)
            continue;
        __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        pthread_kill(v->thread, KICK_SIGNAL);
    }
}

void vcpus_ask_to_park(struct machine *m)
{
    pthread_mutex_lock(&m->run_lock);
    m->run = false;
    vcpus_kick(m);
    pthread_cond_broadcast(&m->run_cond);
    pthread_mutex_unlock(&m->run_lock);
}

void vcpus_park(struct machine *m)
{
    unsigned threads = 0;

    for (unsigned i = 0; i < m->n_vcpus; i++)
        threads += m->vcpu[i].has_thread;
    vcpus_ask_to_park(m);
    pthread_mutex_lock(&m->run_lock);
    while (m->n_parked < threads)
        pthread_cond_wait(&m->parked_cond, &m->run_lock);
    pthread_mutex_unlock(&m->run_lock);
}

/* Tells a guest that uses kvmclock that it did not run, so its watchdogs stay calm. */
static void tell_clock(struct machine *m)
{
    for (unsigned i = 0; i < m->n_vcpus; i++)
        if (ioctl(m->vcpu[i].fd, KVM_KVMCLOCK_CTRL, 0) < 0 && errno != EINVAL)
            log_debug("xvm", "%s: KVM_KVMCLOCK_CTRL: errno %d", m->def->name, errno);
}

void vcpus_run(struct machine *m)
{
    tell_clock(m);
    pthread_mutex_lock(&m->run_lock);
    if (!m->stop_seen && m->holds == NULL)
        m->run = true;
    pthread_cond_broadcast(&m->run_cond);
    pthread_mutex_unlock(&m->run_lock);
}

void vcpu_nap(struct machine *m, unsigned ms)
{
    uint64_t until = clock_ns() + ms * NS_PER_MS;
    struct timespec ts = timespec_of(until);

    pthread_mutex_lock(&m->run_lock);
    while (m->run && clock_ns() < until)
        pthread_cond_timedwait(&m->run_cond, &m->run_lock, &ts);
    pthread_mutex_unlock(&m->run_lock);
}

static uint64_t rip_of(const struct vcpu *v)
{
    struct kvm_regs regs;

    return ioctl(v->fd, KVM_GET_REGS, &regs) < 0 ? 0 : regs.rip;
}

static void crash(struct vcpu *v, const char *what)
{
    char text[120];

    snprintf(text, sizeof text, "%s at rip 0x%llx of vcpu %u", what, (unsigned long long)rip_of(v),
        v->id);
    machine_guest_stopped(v->m, STOP_CRASH, text);
}

static void exit_io(struct vcpu *v)
{
    struct kvm_run *r = v->run;
    uint8_t *data = (uint8_t *)r + r->io.data_offset;

    for (uint32_t i = 0; i < r->io.count; i++, data += r->io.size) {
        if (r->io.direction == KVM_EXIT_IO_OUT)
            bus_write(v->m, true, r->io.port, data, r->io.size);
        else if (!bus_read(v->m, true, r->io.port, data, r->io.size))
            memset(data, 0xff, r->io.size);
    }
}

static void exit_mmio(struct vcpu *v)
{
    struct kvm_run *r = v->run;

    if (r->mmio.is_write)
        bus_write(v->m, false, r->mmio.phys_addr, r->mmio.data, r->mmio.len);
    else if (!bus_read(v->m, false, r->mmio.phys_addr, r->mmio.data, r->mmio.len))
        memset(r->mmio.data, 0xff, sizeof r->mmio.data);
}

static void exit_internal_error(struct vcpu *v)
{
    const struct kvm_run *r = v->run;
    char text[80];
    int n;

    n = snprintf(text, sizeof text, "KVM internal error %u", r->internal.suberror);
    if (r->internal.suberror == KVM_INTERNAL_ERROR_EMULATION) {
        n = snprintf(text, sizeof text, "KVM cannot emulate an instruction");
        if ((r->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0)
            for (unsigned i = 0; i < r->emulation_failure.insn_size && i < 15; i++)
                n += snprintf(text + n, sizeof text - (size_t)n, "%s%02x", i == 0 ? " (" : " ",
                    r->emulation_failure.insn_bytes[i]);
        if (n > 0 && text[n - 1] != 'n')
            snprintf(text + n, sizeof text - (size_t)n, ")");
    }
    crash(v, text);
}

static void exit_system_event(struct vcpu *v)
{
    switch (v->run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        machine_guest_stopped(v->m, STOP_SHUTDOWN, "power-off");
        break;
    case KVM_SYSTEM_EVENT_RESET:
        machine_guest_stopped(v->m, STOP_REBOOT, "reset");
        break;
    default:
        crash(v, "system crash event");
        break;
    }
}

static void handle_exit(struct vcpu *v)
{
    char text[64];

    switch (v->run->exit_reason) {
    case KVM_EXIT_IO:
        exit_io(v);
        break;
    case KVM_EXIT_MMIO:
        exit_mmio(v);
        break;
    case KVM_EXIT_SHUTDOWN:
        crash(v, "triple fault");
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        exit_internal_error(v);
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        exit_system_event(v);
        break;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        break;
    case KVM_EXIT_HLT: /* only without the in-kernel irqchip */
        vcpu_nap(v->m, 1);
        break;
    default:
        snprintf(text, sizeof text, "KVM exit %u", v->run->exit_reason);
        crash(v, text);
        break;
    }
}

/* Runs the guest until it is to park, nap, or has stopped. */
static void run_guest(struct vcpu *v)
{
    char text[80];

    for (;;) {
        if (!fuse_lit(&v->m->fuse))
            fuse_look(v->m); /* asks us to park, before the guest executes anything */
        if (ioctl(v->fd, KVM_RUN, 0) == 0) {
            handle_exit(v);
            continue;
        }
        if (errno == EAGAIN)
            continue;
        if (errno != EINTR) {
            snprintf(text, sizeof text, "KVM_RUN: %s", strerror(errno));
            crash(v, text);
        }
        return;
    }
}

/* -1: a CPU list that none of this host's CPUs is on. */
static int apply_pinning(const struct vcpu *v, const char *list)
{
    cpu_set_t set;
    struct err e;

    if (cpulist_parse(list, &set, &e) <= 0)
        memset(&set, 0xff, sizeof set);
    return pthread_setaffinity_np(v->thread, sizeof set, &set) != 0 ? -1 : 0;
}

static void pin(const struct vcpu *v)
{
    const char *list = hv_vcpu_pinning(v->m->def, v->id);

    if (list[0] != '\0' && apply_pinning(v, list) < 0)
        log_warn("xvm", "%s: vcpu %u cannot run on cpus %s: this host has none of them",
            v->m->def->name, v->id, list);
}

int vcpu_pin(struct machine *m, unsigned vcpu, const char *list, struct err *e)
{
    const char *all = list[0] != '\0' ? list : m->def->vcpu_pinning;
    cpu_set_t set;

    if (vcpu >= m->n_vcpus)
        return err_set(e, ERR_INVALID, "domain %s: vcpu %u: it has vcpus 0 to %u", m->def->name,
            vcpu, m->n_vcpus - 1);
    if (cpulist_parse(all, &set, e) < 0)
        return err_prefix(e, "domain %s", m->def->name);
    if (apply_pinning(&m->vcpu[vcpu], all) < 0)
        return err_set(e, ERR_INVALID, "domain %s: vcpu %u: this host has none of the CPUs %.200s",
            m->def->name, vcpu, all);
    return hv_set_vcpu_pinning(m->def, vcpu, list, e);
}

static void prepare_thread(struct vcpu *v)
{
    char text[64];
    sigset_t none;

    snprintf(text, sizeof text, "vcpu%u", v->id);
    prctl(PR_SET_NAME, text);
    v->tid = gettid();
    snprintf(text, sizeof text, "/proc/self/task/%d/stat", v->tid);
    v->stat_fd = open(text, O_RDONLY | O_CLOEXEC);
    sigemptyset(&none);
    sigaddset(&none, KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &none, NULL);
    pin(v);
}

/* Under run_lock: waits until the guest may run; false to end the thread. */
static bool wait_to_run(struct vcpu *v)
{
    struct machine *m = v->m;

    while (!m->quit) {
        uint64_t until =
            m->throttle_until_ns > m->cap_until_ns ? m->throttle_until_ns : m->cap_until_ns;
        struct timespec ts = timespec_of(until);

        if (!m->run && !v->parked) {
            v->parked = true;
            m->n_parked++;
            pthread_cond_signal(&m->parked_cond);
        }
        if (m->run && v->parked) {
            v->parked = false;
            m->n_parked--;
        }
        if (!m->run)
            pthread_cond_wait(&m->run_cond, &m->run_lock);
        else if (clock_ns() < until)
            pthread_cond_timedwait(&m->run_cond, &m->run_lock, &ts);
        else
            return true;
    }
    return false;
}

static void *vcpu_thread(void *arg)
{
    struct vcpu *v = arg;
    struct machine *m = v->m;

    prepare_thread(v);
    pthread_mutex_lock(&m->run_lock);
    while (wait_to_run(v)) {
        __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        pthread_mutex_unlock(&m->run_lock);
        run_guest(v);
        pthread_mutex_lock(&m->run_lock);
    }
    pthread_mutex_unlock(&m->run_lock);
    return NULL;
}

static void *throttle_thread(void *arg)
{
    struct machine *m = arg;
    uint64_t next = clock_ns();

    prctl(PR_SET_NAME, "throttle");
    pthread_mutex_lock(&m->run_lock);
    while (!m->quit && m->throttle_percent != 0) {
        struct timespec ts;

        m->throttle_until_ns = next + THROTTLE_PERIOD_NS * m->throttle_percent / 100;
        if (m->run)
            vcpus_kick(m);
        next += THROTTLE_PERIOD_NS;
        if (next < clock_ns())
            next = clock_ns();
        ts = timespec_of(next);
        while (!m->quit && m->throttle_percent != 0 && clock_ns() < next)
            pthread_cond_timedwait(&m->run_cond, &m->run_lock, &ts);
    }
    m->throttle_until_ns = 0;
    pthread_cond_broadcast(&m->run_cond);
    pthread_mutex_unlock(&m->run_lock);
    return NULL;
}

static void set_throttle(struct machine *m, unsigned percent)
{
    pthread_mutex_lock(&m->run_lock);
    m->throttle_percent = percent;
    pthread_cond_broadcast(&m->run_cond);
    pthread_mutex_unlock(&m->run_lock);
}

int vcpus_throttle(struct machine *m, unsigned percent, struct err *e)
{
    int r;

    if (percent > 99)
        return err_set(
            e, ERR_INVALID, "domain %s: throttle of %u percent; at most 99", m->def->name, percent);
    set_throttle(m, percent);
    if (percent == 0 && m->has_throttle_thread) {
        pthread_join(m->throttle_thread, NULL);
        m->has_throttle_thread = false;
    }
    if (percent == 0 || m->has_throttle_thread)
        return 0;
    r = pthread_create(&m->throttle_thread, NULL, throttle_thread, m);
    if (r != 0) {
        set_throttle(m, 0);
        return err_set(e, ERR_SYSTEM, "domain %s: throttle thread: %s", m->def->name, strerror(r));
    }
    m->has_throttle_thread = true;
    return 0;
}

static void on_kick(int sig)
{
    (void)sig; /* its only work is to end KVM_RUN */
}

static int create_one(struct machine *m, struct vcpu *v, size_t run_len, struct err *e)
{
    v->fd = ioctl(m->vm_fd, KVM_CREATE_VCPU, (unsigned long)v->id);
    if (v->fd < 0)
        return err_sys(e, "domain %s: vcpu %u", m->def->name, v->id);
    v->run = mmap(NULL, run_len, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    if (v->run == MAP_FAILED) {
        v->run = NULL;
        return err_sys(e, "domain %s: vcpu %u: its run page", m->def->name, v->id);
    }
    v->run_len = run_len;
    return 0;
}

int vcpus_create(struct machine *m, struct err *e)
{
    struct sigaction sa = { .sa_handler = on_kick };
    unsigned n = m->def->vcpus == 0 ? 1 : m->def->vcpus;
    int run_len = ioctl(m->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

    if (n > XVM_MAX_VCPUS)
        return err_set(
            e, ERR_INVALID, "domain %s: %u vCPUs; at most %u", m->def->name, n, XVM_MAX_VCPUS);
    if (run_len < 0)
        return err_sys(e, "/dev/kvm: size of the run page");
    if (sigaction(KICK_SIGNAL, &sa, NULL) < 0)
        return err_sys(e, "domain %s: signal handler", m->def->name);
    m->vcpu = calloc(n, sizeof *m->vcpu);
    if (m->vcpu == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", m->def->name);
    for (unsigned i = 0; i < n; i++)
        m->vcpu[i] = (struct vcpu){ .m = m, .id = i, .fd = -1, .stat_fd = -1 };
    m->n_vcpus = n;
    for (unsigned i = 0; i < n; i++)
        if (create_one(m, &m->vcpu[i], (size_t)run_len, e) < 0)
            return -1;
    return 0;
}

int vcpus_start_threads(struct machine *m, struct err *e)
{
    for (unsigned i = 0; i < m->n_vcpus; i++) {
        struct vcpu *v = &m->vcpu[i];
        int r = pthread_create(&v->thread, NULL, vcpu_thread, v);

        if (r != 0)
            return err_set(
                e, ERR_SYSTEM, "domain %s: thread of vcpu %u: %s", m->def->name, i, strerror(r));
        v->has_thread = true;
    }
    vcpus_park(m);
    return 0;
}

void vcpus_free(struct machine *m)
{
    vcpus_throttle(m, 0, NULL);
    cap_set(m, 0, NULL);
    vcpus_ask_to_park(m);
    pthread_mutex_lock(&m->run_lock);
    m->quit = true;
    pthread_cond_broadcast(&m->run_cond);
    pthread_mutex_unlock(&m->run_lock);
    for (unsigned i = 0; i < m->n_vcpus; i++) {
        struct vcpu *v = &m->vcpu[i];

        if (v->has_thread)
            pthread_join(v->thread, NULL);
        if (v->run != NULL)
            munmap(v->run, v->run_len);
        io_close(&v->fd);
        io_close(&v->stat_fd);
    }
    free(m->vcpu);
    m->vcpu = NULL;
    m->n_vcpus = 0;
}

static uint64_t cpu_ns_of(const struct vcpu *v)
{
    clockid_t id;

    return v->has_thread && pthread_getcpuclockid(v->thread, &id) == 0 ? clock_of(id) : 0;
}

uint64_t vcpus_cpu_ns(const struct machine *m)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < m->n_vcpus; i++)
        sum += cpu_ns_of(&m->vcpu[i]);
    return sum;
}

#define STAT_CPU 36 /* words of /proc/.../stat from the state, which is word 0, to the CPU */

/* The thread's state ('R', 'S', ...) and the CPU it ran on last; '\0' not known. */
static char thread_state(const struct vcpu *v, int *cpu)
{
    char text[512];
    ssize_t n = pread(v->stat_fd, text, sizeof text - 1, 0);
    const char *p, *word;

    *cpu = -1;
    if (n <= 0)
        return '\0';
    text[n] = '\0';
    p = strrchr(text, ')');
    if (p == NULL || p[1] != ' ')
        return '\0';
    word = p + 2;
    for (unsigned i = 0; i < STAT_CPU && word != NULL; i++) {
        word = strchr(word, ' ');
        word += word != NULL;
    }
    if (word != NULL)
        *cpu = atoi(word);
    return p[2];
}

bool vcpus_sleep(const struct machine *m)
{
    int cpu;

    for (unsigned i = 0; i < m->n_vcpus; i++)
        if (thread_state(&m->vcpu[i], &cpu) != 'S')
            return false;
    return true;
}

void vcpu_look(const struct vcpu *v, struct hv_vcpu *out)
{
    memset(out, 0, sizeof *out);
    out->state = thread_state(v, &out->cpu) == 'R' ? HV_VCPU_RUNNING : HV_VCPU_BLOCKED;
    out->cpu_ns = cpu_ns_of(v);
    if (pthread_getaffinity_np(v->thread, sizeof out->allowed, (cpu_set_t *)&out->allowed) != 0)
        memset(&out->allowed, 0xff, sizeof out->allowed);
}
