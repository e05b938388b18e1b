/* SPDX-License-Identifier: ISC */
/*
 * The VM as a whole: its creation (in-kernel irqchip and PIT, memory slots, manual dirty
 * log), interrupt lines, and the state that is not a vCPU's.
 *
 * Sections: "machine" (what both sides must agree on), "clock", "irqchip" (both PICs,
 * IOAPIC), "pit". Kernel structs go as they are with their size in front: the x86 ABI
 * of KVM is fixed, and a size that differs is refused.
 *
 * Clock: the guest's time goes on while it is moved. The clock section has kvmclock and
 * this host's CLOCK_REALTIME read together; the target adds the real time that has passed
 * since, never less than nothing, to kvmclock and (vcpu_state.c) to the TSCs. Hosts
 * whose clocks differ make the guest jump forward by the difference, never back.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <x86intrin.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "hypervisor/xvm/kvm_internal.h"

#define TSS_ADDR 0xfffbd000u
#define IDENTITY_MAP_ADDR UINT64_C(0xfffbc000)

static int open_kvm(struct machine *m, struct err *e)
{
    m->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (m->kvm_fd < 0)
        return err_set(e, ERR_UNSUPPORTED,
            "/dev/kvm: %s; load kvm_intel or kvm_amd, switch on virtualization in the firmware",
            strerror(errno));
    if (ioctl(m->kvm_fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        return err_set(
            e, ERR_UNSUPPORTED, "/dev/kvm: another API version than %d", KVM_API_VERSION);
    return 0;
}

static int create_chips(struct machine *m, struct err *e)
{
    struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
    uint64_t identity = IDENTITY_MAP_ADDR;

    if (ioctl(m->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 ||
        ioctl(m->vm_fd, KVM_SET_TSS_ADDR, (unsigned long)TSS_ADDR) < 0)
        return err_sys(e, "domain %s: KVM's own addresses", m->def->name);
    if (ioctl(m->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return err_sys(e, "domain %s: in-kernel interrupt controllers", m->def->name);
    if (ioctl(m->vm_fd, KVM_CREATE_PIT2, &pit) < 0)
        return err_sys(e, "domain %s: in-kernel timer", m->def->name);
    return 0;
}

static int enable_manual_dirty_log(struct machine *m, struct err *e)
{
    struct kvm_enable_cap cap = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
        .args = { KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE } };

    if (ioctl(m->vm_fd, KVM_ENABLE_CAP, &cap) < 0)
        return err_set(e, ERR_UNSUPPORTED,
            "/dev/kvm: no manual dirty log protection; a kernel of 5.0 or newer is needed");
    return 0;
}

static int add_slots(struct machine *m, struct err *e)
{
    for (unsigned i = 0; i < m->n_regions; i++) {
        struct kvm_userspace_memory_region r = { .slot = i,
            .guest_phys_addr = m->region[i].gpa,
            .memory_size = m->region[i].len,
            .userspace_addr = (uint64_t)(uintptr_t)(m->ram + m->region[i].offset) };

        if (ioctl(m->vm_fd, KVM_SET_USER_MEMORY_REGION, &r) < 0)
            return err_sys(e, "domain %s: memory slot %u", m->def->name, i);
    }
    return 0;
}

int kvm_create_vm(struct machine *m, struct err *e)
{
    if (open_kvm(m, e) < 0)
        return -1;
    m->vm_fd = ioctl(m->kvm_fd, KVM_CREATE_VM, 0);
    if (m->vm_fd < 0)
        return err_sys(e, "domain %s: creating a virtual machine", m->def->name);
    if (enable_manual_dirty_log(m, e) < 0 || create_chips(m, e) < 0 || add_slots(m, e) < 0)
        return -1;
    return 0;
}

void kvm_free_vm(struct machine *m)
{
    io_close(&m->vm_fd);
    io_close(&m->kvm_fd);
}

void machine_irq(struct machine *m, int gsi, bool level)
{
    struct kvm_irq_level l = { .irq = (uint32_t)gsi, .level = level };

    if (ioctl(m->vm_fd, KVM_IRQ_LINE, &l) < 0)
        log_debug("xvm", "%s: interrupt line %d: errno %d", m->def->name, gsi, errno);
}

bool machine_write_event(struct machine *m, uint64_t gpa, uint32_t value, int fd, bool on)
{
    struct kvm_ioeventfd f = { .datamatch = value,
        .addr = gpa,
        .len = sizeof value,
        .fd = fd,
        .flags = KVM_IOEVENTFD_FLAG_DATAMATCH | (on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN) };

    if (ioctl(m->vm_fd, KVM_IOEVENTFD, &f) == 0)
        return true;
    log_debug(
        "xvm", "%s: ioeventfd at %#llx: errno %d", m->def->name, (unsigned long long)gpa, errno);
    return false;
}

void put_struct(struct state_writer *w, const void *s, size_t len)
{
    state_put_u32(w, (uint32_t)len);
    state_put(w, s, len);
}

int get_struct(struct state_reader *r, void *s, size_t len, struct err *e)
{
    uint32_t n;

    if (state_get_u32(r, &n, e) < 0)
        return -1;
    if (n != len)
        return err_set(e, ERR_UNSUPPORTED,
            "domain state: section %s: a structure of %u bytes where this host has %zu", r->name, n,
            len);
    return state_get(r, s, len, e);
}

int open_version(
    struct state_blob *b, const char *name, uint32_t version, struct state_reader *r, struct err *e)
{
    if (state_open(b, name, r, e) < 0)
        return -1;
    if (r->version != version)
        return err_set(e, ERR_UNSUPPORTED,
            "domain state: section %s has version %u, this xvm reads %u", name, r->version,
            version);
    return 0;
}

static int save_chips(struct machine *m, struct state_writer *w, struct err *e)
{
    struct kvm_pit_state2 pit;

    state_section_begin(w, "irqchip", 1);
    for (uint32_t id = 0; id < 3; id++) {
        struct kvm_irqchip c = { .chip_id = id };

        if (ioctl(m->vm_fd, KVM_GET_IRQCHIP, &c) < 0)
            return err_sys(e, "domain %s: state of interrupt controller %u", m->def->name, id);
        put_struct(w, &c, sizeof c);
    }
    state_section_end(w);
    memset(&pit, 0, sizeof pit);
    if (ioctl(m->vm_fd, KVM_GET_PIT2, &pit) < 0)
        return err_sys(e, "domain %s: state of the timer", m->def->name);
    state_section_begin(w, "pit", 1);
    put_struct(w, &pit, sizeof pit);
    state_section_end(w);
    return 0;
}

int vm_save(struct machine *m, struct state_writer *w, struct err *e)
{
    state_section_begin(w, "machine", 1);
    state_put_u64(w, m->ram_len);
    state_put_u32(w, m->n_vcpus);
    state_section_end(w);
    return save_chips(m, w, e);
}

static int load_machine(struct machine *m, struct state_blob *b, struct err *e)
{
    struct state_reader r;
    uint64_t ram;
    uint32_t n;

    if (open_version(b, "machine", 1, &r, e) < 0 || state_get_u64(&r, &ram, e) < 0 ||
        state_get_u32(&r, &n, e) < 0 || state_end(&r, e) < 0)
        return -1;
    if (ram != m->ram_len || n != m->n_vcpus)
        return err_set(e, ERR_INVALID,
            "domain state: section machine: of %llu KiB and %u vCPUs, this domain has %llu and %u",
            (unsigned long long)(ram >> 10), n, (unsigned long long)(m->ram_len >> 10), m->n_vcpus);
    return 0;
}

int vm_load(struct machine *m, struct state_blob *b, struct err *e)
{
    struct state_reader r;
    struct kvm_pit_state2 pit;

    if (load_machine(m, b, e) < 0 || open_version(b, "irqchip", 1, &r, e) < 0)
        return -1;
    for (uint32_t id = 0; id < 3; id++) {
        struct kvm_irqchip c;

        if (get_struct(&r, &c, sizeof c, e) < 0)
            return -1;
        c.chip_id = id;
        if (ioctl(m->vm_fd, KVM_SET_IRQCHIP, &c) < 0)
            return err_sys(e, "domain state: section irqchip: chip %u", id);
    }
    if (state_end(&r, e) < 0 || open_version(b, "pit", 1, &r, e) < 0 ||
        get_struct(&r, &pit, sizeof pit, e) < 0 || state_end(&r, e) < 0)
        return -1;
    if (ioctl(m->vm_fd, KVM_SET_PIT2, &pit) < 0)
        return err_sys(e, "domain state: section pit");
    return 0;
}

int clock_save(struct machine *m, struct state_writer *w, struct clock_state *c, struct err *e)
{
    struct kvm_clock_data d;

    memset(&d, 0, sizeof d);
    if (ioctl(m->vm_fd, KVM_GET_CLOCK, &d) < 0)
        return err_sys(e, "domain %s: its clock", m->def->name);
    memset(c, 0, sizeof *c);
    c->guest_ns = d.clock;
    c->wall_ns = (d.flags & KVM_CLOCK_REALTIME) != 0 ? d.realtime : clock_wall_ns();
    c->host_tsc = (d.flags & KVM_CLOCK_HOST_TSC) != 0 ? d.host_tsc : __rdtsc();
    state_section_begin(w, "clock", 1);
    state_put_u64(w, c->guest_ns);
    state_put_u64(w, c->wall_ns);
    state_section_end(w);
    return 0;
}

int clock_load(struct machine *m, struct state_blob *b, struct clock_state *c, struct err *e)
{
    struct state_reader r;
    struct kvm_clock_data d;
    uint64_t now;

    memset(c, 0, sizeof *c);
    if (open_version(b, "clock", 1, &r, e) < 0 || state_get_u64(&r, &c->guest_ns, e) < 0 ||
        state_get_u64(&r, &c->wall_ns, e) < 0 || state_end(&r, e) < 0)
        return -1;
    now = clock_wall_ns();
    c->host_tsc = __rdtsc();
    c->elapsed_ns = now > c->wall_ns ? now - c->wall_ns : 0;
    if (c->elapsed_ns > NS_PER_S)
        log_info("xvm", "%s: its clock goes forward by %.3f s, the time it was not running",
            m->def->name, (double)c->elapsed_ns / (double)NS_PER_S);
    memset(&d, 0, sizeof d);
    d.clock = c->guest_ns + c->elapsed_ns;
    if (ioctl(m->vm_fd, KVM_SET_CLOCK, &d) < 0)
        return err_sys(e, "domain state: section clock");
    return 0;
}
