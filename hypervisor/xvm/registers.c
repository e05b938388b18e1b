/* SPDX-License-Identifier: ISC */
/* Registers of vCPUs that stand still, for a core file. */
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

#include "hypervisor/xvm/kvm_internal.h"

#define MSR_KERNEL_GS_BASE 0xc0000102

/* struct kvm_msrs with one entry. */
struct one_msr {
    uint32_t n, padding;
    struct kvm_msr_entry entry;
};
_Static_assert(offsetof(struct one_msr, entry) == offsetof(struct kvm_msrs, entries), "kvm_msrs");

static struct hv_segment segment(const struct kvm_segment *s)
{
    return (struct hv_segment){ .selector = s->selector,
        .limit = s->limit,
        .base = s->base,
        .flags = (uint32_t)s->type << 8 | (uint32_t)s->s << 12 | (uint32_t)s->dpl << 13 |
                 (uint32_t)s->present << 15 | (uint32_t)s->avl << 20 | (uint32_t)s->l << 21 |
                 (uint32_t)s->db << 22 | (uint32_t)s->g << 23 };
}

static void take_general(const struct kvm_regs *r, struct hv_registers *out)
{
    const uint64_t gpr[HV_GPR_MAX] = { [HV_RAX] = r->rax,
        [HV_RCX] = r->rcx,
        [HV_RDX] = r->rdx,
        [HV_RBX] = r->rbx,
        [HV_RSP] = r->rsp,
        [HV_RBP] = r->rbp,
        [HV_RSI] = r->rsi,
        [HV_RDI] = r->rdi,
        [HV_R8] = r->r8,
        [HV_R9] = r->r9,
        [HV_R10] = r->r10,
        [HV_R11] = r->r11,
        [HV_R12] = r->r12,
        [HV_R13] = r->r13,
        [HV_R14] = r->r14,
        [HV_R15] = r->r15 };

    memcpy(out->gpr, gpr, sizeof gpr);
    out->rip = r->rip;
    out->rflags = r->rflags;
}

static void take_segments(const struct kvm_sregs *s, struct hv_registers *out)
{
    out->cs = segment(&s->cs);
    out->ds = segment(&s->ds);
    out->es = segment(&s->es);
    out->fs = segment(&s->fs);
    out->gs = segment(&s->gs);
    out->ss = segment(&s->ss);
    out->ldt = segment(&s->ldt);
    out->tr = segment(&s->tr);
    out->gdt = (struct hv_segment){ .limit = s->gdt.limit, .base = s->gdt.base };
    out->idt = (struct hv_segment){ .limit = s->idt.limit, .base = s->idt.base };
    out->cr[0] = s->cr0;
    out->cr[2] = s->cr2;
    out->cr[3] = s->cr3;
    out->cr[4] = s->cr4;
}

int vcpu_registers(const struct vcpu *v, struct hv_registers *out, struct err *e)
{
    struct one_msr msr = { .n = 1, .entry = { .index = MSR_KERNEL_GS_BASE } };
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    memset(out, 0, sizeof *out);
    if (ioctl(v->fd, KVM_GET_REGS, &regs) < 0 || ioctl(v->fd, KVM_GET_SREGS, &sregs) < 0)
        return err_sys(e, "vcpu %u: registers", v->id);
    take_general(&regs, out);
    take_segments(&sregs, out);
    if (ioctl(v->fd, KVM_GET_MSRS, &msr) == 1)
        out->kernel_gs_base = msr.entry.data;
    return 0;
}
