/* SPDX-License-Identifier: ISC */
#include "precopy/core.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

/* struct elf_prstatus of Linux, x86-64. */
struct prstatus {
    uint8_t siginfo[16], pending[16];
    uint32_t pid, ppid, pgrp, sid;
    uint8_t times[64];
    uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip,
        cs, rflags, rsp, ss, fs_base, gs_base, ds, es, fs, gs;
    uint64_t fpvalid;
};
_Static_assert(sizeof(struct prstatus) == 336, "core format");

struct qemu_segment {
    uint32_t selector, limit, flags, pad;
    uint64_t base;
};

/* The order of general registers in it is its own. */
struct qemu_cpu {
    uint32_t version, size;
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8_15[8], rip, rflags;
    struct qemu_segment cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt;
    uint64_t cr[5];
    uint64_t kernel_gs_base;
};
_Static_assert(sizeof(struct qemu_cpu) == 440, "core format");

#define NAME_ROOM 8 /* "CORE" and "QEMU" with their NUL, up to four bytes */
#define NOTE(desc) (sizeof(Elf64_Nhdr) + NAME_ROOM + sizeof(desc))

static struct prstatus prstatus_of(const struct hv_registers *r, unsigned vcpu)
{
    return (struct prstatus){ .pid = vcpu + 1,
        .r15 = r->gpr[HV_R15],
        .r14 = r->gpr[HV_R14],
        .r13 = r->gpr[HV_R13],
        .r12 = r->gpr[HV_R12],
        .rbp = r->gpr[HV_RBP],
        .rbx = r->gpr[HV_RBX],
        .r11 = r->gpr[HV_R11],
        .r10 = r->gpr[HV_R10],
        .r9 = r->gpr[HV_R9],
        .r8 = r->gpr[HV_R8],
        .rax = r->gpr[HV_RAX],
        .rcx = r->gpr[HV_RCX],
        .rdx = r->gpr[HV_RDX],
        .rsi = r->gpr[HV_RSI],
        .rdi = r->gpr[HV_RDI],
        .orig_rax = ~UINT64_C(0), /* not in a system call */
        .rip = r->rip,
        .cs = r->cs.selector,
        .rflags = r->rflags,
        .rsp = r->gpr[HV_RSP],
        .ss = r->ss.selector,
        .fs_base = r->fs.base,
        .gs_base = r->gs.base,
        .ds = r->ds.selector,
        .es = r->es.selector,
        .fs = r->fs.selector,
        .gs = r->gs.selector };
}

static struct qemu_segment segment_of(const struct hv_segment *s)
{
    return (struct qemu_segment){ s->selector, s->limit, s->flags, 0, s->base };
}

static struct qemu_cpu qemu_of(const struct hv_registers *r)
{
    struct qemu_cpu q = { .version = 1,
        .size = sizeof q,
        .rax = r->gpr[HV_RAX],
        .rbx = r->gpr[HV_RBX],
        .rcx = r->gpr[HV_RCX],
        .rdx = r->gpr[HV_RDX],
        .rsi = r->gpr[HV_RSI],
        .rdi = r->gpr[HV_RDI],
        .rsp = r->gpr[HV_RSP],
        .rbp = r->gpr[HV_RBP],
        .rip = r->rip,
        .rflags = r->rflags,
        .cs = segment_of(&r->cs),
        .ds = segment_of(&r->ds),
        .es = segment_of(&r->es),
        .fs = segment_of(&r->fs),
        .gs = segment_of(&r->gs),
        .ss = segment_of(&r->ss),
        .ldt = segment_of(&r->ldt),
        .tr = segment_of(&r->tr),
        .gdt = segment_of(&r->gdt),
        .idt = segment_of(&r->idt),
        .kernel_gs_base = r->kernel_gs_base };

    memcpy(q.r8_15, &r->gpr[HV_R8], sizeof q.r8_15);
    memcpy(q.cr, r->cr, sizeof q.cr);
    return q;
}

static uint8_t *put(uint8_t *at, const void *data, size_t len)
{
    memcpy(at, data, len);
    return at + len;
}

static uint8_t *put_note(uint8_t *at, const char *name, uint32_t type, const void *d, size_t len)
{
    const Elf64_Nhdr n = { .n_namesz = 5, .n_descsz = (Elf64_Word)len, .n_type = type };
    char text[NAME_ROOM] = { 0 };

    memcpy(text, name, 4);
    at = put(at, &n, sizeof n);
    at = put(at, text, sizeof text);
    return put(at, d, len);
}

static void put_notes(uint8_t *at, const struct hv_registers *r, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct prstatus p = prstatus_of(&r[i], i);

        at = put_note(at, "CORE", NT_PRSTATUS, &p, sizeof p);
    }
    for (unsigned i = 0; i < n; i++) {
        struct qemu_cpu q = qemu_of(&r[i]);

        at = put_note(at, "QEMU", 0, &q, sizeof q);
    }
}

static uint8_t *put_header(uint8_t *at, unsigned n_programs)
{
    const Elf64_Ehdr h = { .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
                               EV_CURRENT },
        .e_type = ET_CORE,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_phoff = sizeof h,
        .e_ehsize = sizeof h,
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = (Elf64_Half)n_programs };

    return put(at, &h, sizeof h);
}

int core_layout(struct core *c, const struct hv_layout *l, const struct hv_registers *r, unsigned n,
    struct err *e)
{
    const size_t programs = sizeof(Elf64_Ehdr) + (l->n + 1) * sizeof(Elf64_Phdr);
    const size_t notes = n * (NOTE(struct prstatus) + NOTE(struct qemu_cpu));
    Elf64_Phdr p = { .p_type = PT_NOTE, .p_offset = programs, .p_filesz = notes };
    uint8_t *at;

    c->head_len = (programs + notes + HV_PAGE_SIZE - 1) & ~(size_t)(HV_PAGE_SIZE - 1);
    c->file_len = c->head_len;
    c->head = calloc(1, c->head_len);
    if (c->head == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for the head of a core file");
    at = put_header(c->head, l->n + 1);
    at = put(at, &p, sizeof p);
    for (unsigned i = 0; i < l->n; i++) {
        const uint64_t len = l->region[i].pages << HV_PAGE_SHIFT;

        p = (Elf64_Phdr){ .p_type = PT_LOAD,
            .p_flags = PF_R | PF_W | PF_X,
            .p_offset = c->file_len,
            .p_vaddr = l->region[i].gfn << HV_PAGE_SHIFT,
            .p_paddr = l->region[i].gfn << HV_PAGE_SHIFT,
            .p_filesz = len,
            .p_memsz = len };
        at = put(at, &p, sizeof p);
        c->file_len += len;
    }
    put_notes(at, r, n);
    return 0;
}

uint64_t core_offset(const struct core *c, const struct hv_layout *l, uint64_t gfn)
{
    uint64_t at = c->head_len;

    for (unsigned i = 0; i < l->n; i++) {
        const struct hv_region *r = &l->region[i];

        if (gfn >= r->gfn && gfn - r->gfn < r->pages)
            return at + ((gfn - r->gfn) << HV_PAGE_SHIFT);
        at += r->pages << HV_PAGE_SHIFT;
    }
    return c->file_len;
}
