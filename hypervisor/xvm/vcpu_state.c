/* SPDX-License-Identifier: ISC */
/*
 * State of one vCPU, section "vcpuN" version 1:
 *   u32 n and n CPUID entries (as booted), u32 TSC kHz, u64 TSC,
 *   sregs, regs, debug registers, XCRs, u32 length and XSAVE area,
 *   u32 n and n MSRs (u32 index, u64 value), LAPIC, MP state, events.
 *
 * Order of loading matters: CPUID first (it decides which bits the rest may have), sregs
 * before LAPIC (APIC base), XCRs before XSAVE, TSC before the TSC deadline, the deadline
 * after the LAPIC (its timer mode), MP state and events last.
 *
 * TSC: saved as the value at the moment clock->host_tsc was read, the same moment for all
 * vCPUs; loaded as that value plus the elapsed real time. Where KVM has the TSC offset
 * as an attribute it is used, so that vCPUs stay in step to the tick; otherwise, and where
 * KVM scales the host's TSC for this guest, the MSR is written and KVM's own matching
 * keeps them together.
 *
 * MSRs are those that KVM lists, and the MTRRs, which it emulates without listing them.
 * MSRs that KVM lists but refuses are tolerated: an MSR that cannot be read is not saved,
 * one that cannot be set is counted, and only those in `vital` fail the load.
 *
 * Writing kvmclock's MSRs makes KVM write into guest memory (the wall clock always, the
 * system time on some kernels), behind the back of the digests that are compared before
 * the switch. So the wall clock's are not carried, and the system time's waits for the
 * first run (vcpu_finish_load).
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/clock.h"
#include "base/log.h"
#include "hypervisor/xvm/kvm_internal.h"

#define VCPU_SECTION_VERSION 1
#define XSAVE_MAX 65536u
#define TSC_TOLERANCE_PPM 250

#define MSR_TSC 0x10
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_MTRR_FIRST 0x200 /* base and mask of each range */
#define MSR_MTRR_DEFAULT 0x2ff
#define MTRR_RANGES 8 /* as many as KVM has */
#define MSR_KVM_WALL_CLOCK 0x11
#define MSR_KVM_SYSTEM_TIME_OLD 0x12
#define MSR_KVM_WALL_CLOCK_NEW 0x4b564d00
#define MSR_KVM_SYSTEM_TIME 0x4b564d01

/* Without these a guest does not go on: system call and segment MSRs, PAT, kvmclock. */
static const uint32_t vital[] = { 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102, 0x174,
    0x175, 0x176, 0x277 };

/* struct kvm_msrs and struct kvm_msr_list with room for entries. */
struct msr_list {
    uint32_t nmsrs, padding;
    struct kvm_msr_entry entry[MSR_MAX];
};

struct msr_indices {
    uint32_t nmsrs;
    uint32_t index[MSR_MAX];
};

_Static_assert(offsetof(struct msr_list, entry) == offsetof(struct kvm_msrs, entries), "kvm_msrs");
_Static_assert(
    offsetof(struct msr_indices, index) == offsetof(struct kvm_msr_list, indices), "kvm_msr_list");

static bool is_vital(uint32_t msr)
{
    for (size_t i = 0; i < sizeof vital / sizeof vital[0]; i++)
        if (vital[i] == msr)
            return true;
    return false;
}

/* TSC goes by itself, deadlines after the LAPIC; Hyper-V's are never on offer. */
static bool is_carried(uint32_t msr)
{
    return msr != MSR_TSC && msr != MSR_KVM_WALL_CLOCK && msr != MSR_KVM_WALL_CLOCK_NEW &&
           msr != MSR_KVM_SYSTEM_TIME_OLD && (msr & 0xffffff00) != 0x40000000;
}

static void add_msr(struct msr_list *l, uint32_t *n, uint32_t index)
{
    if (*n == MSR_MAX)
        return;
    for (uint32_t i = 0; i < *n; i++)
        if (l->entry[i].index == index)
            return;
    l->entry[(*n)++].index = index;
}

/* Fixed and variable ranges first, the default type, which switches them on, last. */
static void add_mtrrs(struct msr_list *l, uint32_t *n)
{
    static const uint32_t fixed[] = { 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d,
        0x26e, 0x26f };

    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        add_msr(l, n, fixed[i]);
    for (uint32_t i = 0; i < 2 * MTRR_RANGES; i++)
        add_msr(l, n, MSR_MTRR_FIRST + i);
    add_msr(l, n, MSR_MTRR_DEFAULT);
}

static int put_msrs(struct vcpu *v, struct state_writer *w, struct err *e)
{
    struct msr_indices list = { .nmsrs = MSR_MAX };
    struct msr_list got = { .nmsrs = 0 };
    uint32_t n = 0, at = 0;

    if (ioctl(v->m->kvm_fd, KVM_GET_MSR_INDEX_LIST, &list) < 0)
        return err_sys(e, "vcpu %u: list of MSRs", v->id);
    for (uint32_t i = 0; i < list.nmsrs; i++)
        if (is_carried(list.index[i]))
            got.entry[n++].index = list.index[i];
    add_mtrrs(&got, &n);
    /* Each call stops at the first MSR that cannot be read: drop it and go on behind it. */
    while (at < n) {
        struct msr_list part;
        int done;

        part.nmsrs = n - at;
        memcpy(part.entry, got.entry + at, (n - at) * sizeof got.entry[0]);
        done = ioctl(v->fd, KVM_GET_MSRS, &part);
        if (done < 0)
            return err_sys(e, "vcpu %u: reading MSRs", v->id);
        memcpy(got.entry + at, part.entry, (size_t)done * sizeof got.entry[0]);
        at += (uint32_t)done;
        if (at < n) {
            n--;
            memmove(got.entry + at, got.entry + at + 1, (n - at) * sizeof got.entry[0]);
        }
    }
    state_put_u32(w, n);
    for (uint32_t i = 0; i < n; i++) {
        state_put_u32(w, got.entry[i].index);
        state_put_u64(w, got.entry[i].data);
    }
    return 0;
}

static int get_tsc_offset(const struct vcpu *v, uint64_t *offset)
{
    struct kvm_device_attr a = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uint64_t)(uintptr_t)offset
    };

    return ioctl(v->fd, KVM_GET_DEVICE_ATTR, &a);
}

static int set_tsc_offset(const struct vcpu *v, uint64_t offset)
{
    struct kvm_device_attr a = { .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
        .addr = (uint64_t)(uintptr_t)&offset };

    return ioctl(v->fd, KVM_SET_DEVICE_ATTR, &a);
}

static int set_msr(const struct vcpu *v, uint32_t index, uint64_t value)
{
    struct msr_list one = { .nmsrs = 1 };

    one.entry[0] = (struct kvm_msr_entry){ .index = index, .data = value };
    return ioctl(v->fd, KVM_SET_MSRS, &one) == 1 ? 0 : -1;
}

static uint64_t get_msr(const struct vcpu *v, uint32_t index, uint64_t other)
{
    struct msr_list one = { .nmsrs = 1 };

    one.entry[0] = (struct kvm_msr_entry){ .index = index };
    return ioctl(v->fd, KVM_GET_MSRS, &one) == 1 ? one.entry[0].data : other;
}

/* KVM scales the host's TSC for this guest: then an offset alone does not tell the guest's. */
static bool tsc_scaled(const struct vcpu *v, int khz)
{
    return khz > 0 && v->m->host_tsc_khz > 0 && khz != v->m->host_tsc_khz;
}

/* What the guest counts while the host counts `ticks`. */
static uint64_t guest_ticks(const struct vcpu *v, int khz, uint64_t ticks)
{
    if (!tsc_scaled(v, khz))
        return ticks;
    return (uint64_t)((unsigned __int128)ticks * (unsigned)khz / (unsigned)v->m->host_tsc_khz);
}

static void put_tsc(struct vcpu *v, struct state_writer *w, const struct clock_state *clock)
{
    int khz = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);
    uint64_t offset, tsc;

    if (v->m->has_tsc_offset && !tsc_scaled(v, khz) && get_tsc_offset(v, &offset) == 0)
        tsc = clock->host_tsc + offset;
    else
        tsc =
            get_msr(v, MSR_TSC, 0) - guest_ticks(v, khz, __builtin_ia32_rdtsc() - clock->host_tsc);
    state_put_u32(w, khz < 0 ? 0 : (uint32_t)khz);
    state_put_u64(w, tsc);
}

static void put_cpuid(const struct vcpu *v, struct state_writer *w)
{
    state_put_u32(w, v->cpuid.nent);
    state_put(w, v->cpuid.entry, v->cpuid.nent * sizeof v->cpuid.entry[0]);
}

static int put_xsave(struct vcpu *v, struct state_writer *w, struct err *e)
{
    uint32_t len = v->m->xsave_len;
    void *area = calloc(1, len);
    int r;

    if (area == NULL)
        return err_set(e, ERR_MEMORY, "vcpu %u: out of memory", v->id);
    r = ioctl(v->fd, len > 4096 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, area);
    if (r < 0)
        err_sys(e, "vcpu %u: floating point state", v->id);
    else
        put_struct(w, area, len);
    free(area);
    return r < 0 ? -1 : 0;
}

/* Reads a fixed struct by `request` and appends it. */
static int put_ioctl(struct vcpu *v, struct state_writer *w, unsigned long request,
    const char *what, void *s, size_t len, struct err *e)
{
    memset(s, 0, len);
    if (ioctl(v->fd, request, s) < 0)
        return err_sys(e, "vcpu %u: %s", v->id, what);
    put_struct(w, s, len);
    return 0;
}

int vcpu_save(
    struct vcpu *v, struct state_writer *w, const struct clock_state *clock, struct err *e)
{
    char name[16];
    union {
        struct kvm_sregs sregs;
        struct kvm_regs regs;
        struct kvm_debugregs debug;
        struct kvm_xcrs xcrs;
        struct kvm_lapic_state lapic;
        struct kvm_mp_state mp;
        struct kvm_vcpu_events events;
    } u;

    snprintf(name, sizeof name, "vcpu%u", v->id);
    state_section_begin(w, name, VCPU_SECTION_VERSION);
    put_cpuid(v, w);
    put_tsc(v, w, clock);
    /* MP state first among these: reading it makes KVM take in a pending INIT or SIPI. */
    if (put_ioctl(v, w, KVM_GET_MP_STATE, "MP state", &u.mp, sizeof u.mp, e) < 0 ||
        put_ioctl(v, w, KVM_GET_SREGS, "segments", &u.sregs, sizeof u.sregs, e) < 0 ||
        put_ioctl(v, w, KVM_GET_REGS, "registers", &u.regs, sizeof u.regs, e) < 0 ||
        put_ioctl(v, w, KVM_GET_DEBUGREGS, "debug registers", &u.debug, sizeof u.debug, e) < 0 ||
        put_ioctl(v, w, KVM_GET_XCRS, "XCRs", &u.xcrs, sizeof u.xcrs, e) < 0 ||
        put_xsave(v, w, e) < 0 || put_msrs(v, w, e) < 0 ||
        put_ioctl(v, w, KVM_GET_LAPIC, "local APIC", &u.lapic, sizeof u.lapic, e) < 0 ||
        put_ioctl(v, w, KVM_GET_VCPU_EVENTS, "events", &u.events, sizeof u.events, e) < 0)
        return -1;
    state_section_end(w);
    return 0;
}

/* What a section holds, read completely before the first ioctl. */
struct vcpu_image {
    struct cpuid_table cpuid;
    uint32_t tsc_khz;
    uint64_t tsc;
    struct kvm_mp_state mp;
    struct kvm_sregs sregs;
    struct kvm_regs regs;
    struct kvm_debugregs debug;
    struct kvm_xcrs xcrs;
    struct kvm_lapic_state lapic;
    struct kvm_vcpu_events events;
    uint64_t kvmclock; /* its MSR, 0 off */
    uint32_t n_msrs;   /* the others */
    struct kvm_msr_entry msr[MSR_MAX];
    uint8_t *xsave; /* of the machine's xsave_len */
};

static int too_many(const struct state_reader *r, const char *what, uint32_t n, struct err *e)
{
    return err_set(e, ERR_UNSUPPORTED, "domain state: section %s: %u %s", r->name, n, what);
}

static int get_cpuid(struct state_reader *r, struct cpuid_table *t, struct err *e)
{
    uint32_t n;

    memset(t, 0, sizeof *t);
    if (state_get_u32(r, &n, e) < 0)
        return -1;
    if (n > CPUID_MAX)
        return too_many(r, "CPUID leaves", n, e);
    t->nent = n;
    return state_get(r, t->entry, n * sizeof t->entry[0], e);
}

static int get_xsave(struct state_reader *r, const struct vcpu *v, uint8_t **area, struct err *e)
{
    uint32_t n;

    if (state_get_u32(r, &n, e) < 0)
        return -1;
    if (n > XSAVE_MAX || n > v->m->xsave_len)
        return too_many(r, "bytes of floating point state, more than this host has", n, e);
    *area = calloc(1, v->m->xsave_len);
    if (*area == NULL)
        return err_set(e, ERR_MEMORY, "vcpu %u: out of memory", v->id);
    return state_get(r, *area, n, e);
}

static int get_msrs(struct state_reader *r, struct vcpu_image *i, struct err *e)
{
    uint32_t n;

    if (state_get_u32(r, &n, e) < 0)
        return -1;
    if (n > MSR_MAX)
        return too_many(r, "MSRs", n, e);
    for (uint32_t k = 0; k < n; k++) {
        uint32_t index;
        uint64_t data;

        if (state_get_u32(r, &index, e) < 0 || state_get_u64(r, &data, e) < 0)
            return -1;
        if (index == MSR_KVM_SYSTEM_TIME)
            i->kvmclock = data;
        else
            i->msr[i->n_msrs++] = (struct kvm_msr_entry){ .index = index, .data = data };
    }
    return 0;
}

static int read_image(struct vcpu *v, struct state_blob *b, struct vcpu_image *i, struct err *e)
{
    struct state_reader r;
    char name[16];

    snprintf(name, sizeof name, "vcpu%u", v->id);
    if (open_version(b, name, VCPU_SECTION_VERSION, &r, e) < 0 || get_cpuid(&r, &i->cpuid, e) < 0 ||
        state_get_u32(&r, &i->tsc_khz, e) < 0 || state_get_u64(&r, &i->tsc, e) < 0 ||
        get_struct(&r, &i->mp, sizeof i->mp, e) < 0 ||
        get_struct(&r, &i->sregs, sizeof i->sregs, e) < 0 ||
        get_struct(&r, &i->regs, sizeof i->regs, e) < 0 ||
        get_struct(&r, &i->debug, sizeof i->debug, e) < 0 ||
        get_struct(&r, &i->xcrs, sizeof i->xcrs, e) < 0 || get_xsave(&r, v, &i->xsave, e) < 0 ||
        get_msrs(&r, i, e) < 0 || get_struct(&r, &i->lapic, sizeof i->lapic, e) < 0 ||
        get_struct(&r, &i->events, sizeof i->events, e) < 0)
        return -1;
    return state_end(&r, e);
}

static int set_ioctl(
    const struct vcpu *v, unsigned long request, const char *what, void *s, struct err *e)
{
    return ioctl(v->fd, request, s) < 0 ? err_sys(e, "domain state: vcpu %u: %s", v->id, what) : 0;
}

static void set_tsc(
    const struct vcpu *v, const struct vcpu_image *i, const struct clock_state *clock)
{
    int here = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);
    uint64_t khz = i->tsc_khz, off = khz * TSC_TOLERANCE_PPM / 1000000;
    uint64_t tsc = i->tsc + (uint64_t)((unsigned __int128)clock->elapsed_ns * khz / 1000000);

    if (khz != 0 && here > 0 && ((uint64_t)here + off < khz || (uint64_t)here > khz + off) &&
        ioctl(v->fd, KVM_SET_TSC_KHZ, (unsigned long)khz) < 0 && v->id == 0)
        log_warn("xvm", "%s: its TSC ran at %u kHz, here it runs at %d kHz and KVM cannot scale it",
            v->m->def->name, i->tsc_khz, here);
    here = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);
    if (v->m->has_tsc_offset && !tsc_scaled(v, here) &&
        set_tsc_offset(v, tsc - clock->host_tsc) == 0)
        return;
    tsc += guest_ticks(v, here, __builtin_ia32_rdtsc() - clock->host_tsc);
    if (set_msr(v, MSR_TSC, tsc) < 0)
        log_warn("xvm", "%s: vcpu %u: its TSC cannot be set", v->m->def->name, v->id);
}

/* The whole list in as few calls as refusals allow. */
static int set_msrs(const struct vcpu *v, const struct vcpu_image *i, struct err *e)
{
    struct msr_list part;
    uint32_t at = 0;

    while (at < i->n_msrs) {
        int done;

        part.nmsrs = i->n_msrs - at;
        memcpy(part.entry, i->msr + at, part.nmsrs * sizeof part.entry[0]);
        done = ioctl(v->fd, KVM_SET_MSRS, &part);
        if (done < 0)
            return err_sys(e, "domain state: vcpu %u: MSRs", v->id);
        at += (uint32_t)done;
        if (at == i->n_msrs)
            break;
        if (get_msr(v, i->msr[at].index, ~i->msr[at].data) != i->msr[at].data) {
            if (is_vital(i->msr[at].index))
                return err_set(e, ERR_UNSUPPORTED,
                    "domain state: vcpu %u: this host refuses MSR 0x%x", v->id, i->msr[at].index);
            v->m->msr_refused++;
            log_debug(
                "xvm", "%s: vcpu %u: MSR 0x%x refused", v->m->def->name, v->id, i->msr[at].index);
        }
        at++;
    }
    return 0;
}

static int apply_image(
    struct vcpu *v, struct vcpu_image *i, const struct clock_state *clock, struct err *e)
{
    uint64_t deadline = 0;

    /* The set must carry these flags for KVM to take the values. */
    i->events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR;
    for (uint32_t k = 0; k < i->n_msrs; k++)
        if (i->msr[k].index == MSR_TSC_DEADLINE)
            deadline = i->msr[k].data;
    if (cpuid_set(v, &i->cpuid, e) < 0 ||
        set_ioctl(v, KVM_SET_SREGS, "segments", &i->sregs, e) < 0 ||
        set_ioctl(v, KVM_SET_REGS, "registers", &i->regs, e) < 0 ||
        set_ioctl(v, KVM_SET_XCRS, "XCRs", &i->xcrs, e) < 0 ||
        set_ioctl(v, KVM_SET_XSAVE, "floating point state", i->xsave, e) < 0)
        return -1;
    set_tsc(v, i, clock);
    v->kvmclock_msr = i->kvmclock;
    if (set_msrs(v, i, e) < 0 || set_ioctl(v, KVM_SET_LAPIC, "local APIC", &i->lapic, e) < 0)
        return -1;
    if (deadline != 0 && set_msr(v, MSR_TSC_DEADLINE, deadline) < 0)
        log_warn("xvm", "%s: vcpu %u: its timer deadline cannot be set", v->m->def->name, v->id);
    if (set_ioctl(v, KVM_SET_MP_STATE, "MP state", &i->mp, e) < 0 ||
        set_ioctl(v, KVM_SET_VCPU_EVENTS, "events", &i->events, e) < 0 ||
        set_ioctl(v, KVM_SET_DEBUGREGS, "debug registers", &i->debug, e) < 0)
        return -1;
    return 0;
}

int vcpu_finish_load(struct vcpu *v, struct err *e)
{
    if (v->kvmclock_msr != 0 && set_msr(v, MSR_KVM_SYSTEM_TIME, v->kvmclock_msr) < 0)
        return err_set(e, ERR_UNSUPPORTED, "vcpu %u: this host refuses kvmclock", v->id);
    v->kvmclock_msr = 0;
    return 0;
}

int vcpu_load(struct vcpu *v, struct state_blob *b, const struct cpuid_table *host,
    const struct clock_state *clock, struct err *e)
{
    struct vcpu_image *i = calloc(1, sizeof *i);
    int r = -1;

    if (i == NULL)
        return err_set(e, ERR_MEMORY, "vcpu %u: out of memory", v->id);
    if (read_image(v, b, i, e) == 0 && cpuid_fits(&i->cpuid, host, e) == 0)
        r = apply_image(v, i, clock, e);
    free(i->xsave);
    free(i);
    return r;
}
