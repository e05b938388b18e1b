/* SPDX-License-Identifier: ISC */
/*
 * boot: what only ring 0 can do. boot_ring0 runs once, emulated instruction by instruction on
 * some hosts: it copies the start info, maps RAM above 4 GiB, installs the TSS and the IDT,
 * switches kvmclock on and loads privileged registers with values that RING0_CHECK_REGISTERS
 * later expects to find unchanged. Any exception afterwards is the end: fault_ring0 reports it.
 */
#include "guest.h"

struct boot_info boot;

struct start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist, cmdline, rsdp;
    uint64_t memmap; /* from version 1 on */
    uint32_t memmap_entries, reserved;
};
#define START_INFO_MAGIC 0x336ec578u

struct memmap_entry {
    uint64_t addr, size;
    uint32_t type, reserved;
};
#define MEMMAP_RAM 1

struct tss {
    uint32_t reserved0;
    uint64_t rsp[3], reserved1, ist[7];
    uint64_t reserved2;
    uint16_t reserved3, iomap;
} __attribute__((packed));

/*
 * Ports for ring 3. IOPL 3 should be enough, but a KVM without hardware virtualization runs ring 3
 * with the host's IOPL and asks the TSS when it emulates the instruction: so everything is allowed
 * twice.
 */
struct io_tss {
    struct tss tss;
    uint8_t allowed[65536 / 8 + 1]; /* 0 bits allow; the last byte ends the map */
};

struct idt_gate {
    uint16_t offset0, selector;
    uint8_t ist, type;
    uint16_t offset1;
    uint32_t offset2, reserved;
};

struct table_pointer {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

struct fault_frame {
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

/* boot.S and guest.ld */
extern uint64_t gdt[], pdpt[], page_dirs[];
extern const uint64_t stub_table[32];
extern char ring0_stack_top[], image_end[];
/* Called by boot.S. */
void boot_ring0(const struct start_info *si);
void fault_ring0(const struct fault_frame *f);
uint64_t ring0_call(enum ring0_call c);

static struct io_tss tss;
static struct idt_gate idt[32];

/* kvmclock's page; its own so that the hypervisor's writes touch nothing else. */
uint8_t pvclock_page[PAGE] __attribute__((aligned(PAGE)));
uint64_t fs_area[8] __attribute__((aligned(64))), gs_area[8] __attribute__((aligned(64)));

static void wrmsr(uint32_t msr, uint64_t v)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}

static uint64_t rdmsr(uint32_t msr)
{
    uint32_t lo, hi;
    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return (uint64_t)hi << 32 | lo;
}

static void cpuid(uint32_t leaf, uint32_t out[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
                     : "a"(leaf), "c"(0));
}

static void copy_cmdline(const char *from)
{
    size_t i = 0;
    while (from && from[i] && i < sizeof(boot.cmdline) - 1) {
        boot.cmdline[i] = from[i];
        i++;
    }
    boot.cmdline[i] = 0;
}

static void warn(const char *text)
{
    for (size_t i = 0; i < sizeof(boot.warning) - 1; i++) {
        boot.warning[i] = text[i];
        if (!text[i])
            break;
    }
}

static void add_ram(uint64_t start, uint64_t end)
{
    uint64_t low = ((uint64_t)image_end + PAGE - 1) & ~(uint64_t)(PAGE - 1);
    if (start < low)
        start = low;
    if (end > (uint64_t)MAX_GIB << 30) {
        end = (uint64_t)MAX_GIB << 30;
        warn("memory above 64 GiB is left alone");
    }
    start = (start + PAGE - 1) & ~(uint64_t)(PAGE - 1);
    end &= ~(uint64_t)(PAGE - 1);
    if (start >= end)
        return;
    if (boot.ranges == MAX_RANGES) {
        warn("more than 16 ranges of memory: the rest is left alone");
        return;
    }
    boot.ram[boot.ranges].start = start;
    boot.ram[boot.ranges].end = end;
    boot.ranges++;
}

/* boot.S mapped the first 4 GiB. */
static void map_gib(unsigned gib)
{
    for (unsigned i = 0; i < 512; i++)
        page_dirs[gib * 512 + i] = ((uint64_t)gib << 30 | (uint64_t)i << 21) | PTE_LARGE;
    pdpt[gib] = (uint64_t)&page_dirs[(uint64_t)gib * 512] | PTE_TABLE;
}

static void read_start_info(const struct start_info *si)
{
    if (si->magic != START_INFO_MAGIC || si->version < 1 || !si->memmap) {
        warn("no memory map in the start info: only 16 MiB are used");
        add_ram(0x100000, 0x1000000);
        return;
    }
    copy_cmdline((const char *)si->cmdline);
    const struct memmap_entry *e = (const struct memmap_entry *)si->memmap;
    for (uint32_t i = 0; i < si->memmap_entries && i < 128; i++)
        if (e[i].type == MEMMAP_RAM)
            add_ram(e[i].addr, e[i].addr + e[i].size);
    for (unsigned r = 0; r < boot.ranges; r++)
        for (unsigned gib = boot.ram[r].start >> 30; gib <= (boot.ram[r].end - 1) >> 30; gib++)
            if (gib >= 4 && !pdpt[gib])
                map_gib(gib);
}

static void set_gate(unsigned vector, uint64_t handler)
{
    idt[vector].offset0 = (uint16_t)handler;
    idt[vector].offset1 = (uint16_t)(handler >> 16);
    idt[vector].offset2 = (uint32_t)(handler >> 32);
    idt[vector].selector = SEL_KERNEL_CODE;
    idt[vector].type = 0x8e;
}

static void load_tables(void)
{
    uint64_t base = (uint64_t)&tss;
    tss.tss.rsp[0] = (uint64_t)ring0_stack_top;
    tss.tss.iomap = offsetof(struct io_tss, allowed);
    tss.allowed[sizeof(tss.allowed) - 1] = 0xff;
    gdt[SEL_TSS / 8] = (offsetof(struct io_tss, allowed) + sizeof(tss.allowed) - 1) |
                       (base & 0xffffff) << 16 | UINT64_C(0x89) << 40 | (base >> 24 & 0xff) << 56;
    gdt[SEL_TSS / 8 + 1] = base >> 32;
    __asm__ volatile("ltr %w0" : : "r"(SEL_TSS));

    for (unsigned i = 0; i < 32; i++)
        set_gate(i, stub_table[i]);
    struct table_pointer p = { sizeof(idt) - 1, (uint64_t)idt };
    __asm__ volatile("lidt %0" : : "m"(p));
}

static void look_at_cpu(void)
{
    uint32_t r[4];
    cpuid(0x40000000, r);
    if (r[1] == 0x4b4d564b && r[2] == 0x564b4d56 && r[3] == 0x4d) { /* KVMKVMKVM */
        uint32_t kvm_max = r[0];
        cpuid(0x40000001, r);
        boot.kvmclock = r[0] & 1u << 3;
        if (kvm_max >= 0x40000010) {
            cpuid(0x40000010, r);
            boot.cpuid_tsc_khz = r[0];
        }
    }
    cpuid(1, r);
    boot.cpuid1_ecx = r[2];
    cpuid(0, r);
    uint32_t max = r[0];
    if (max >= 7) {
        cpuid(7, r);
        boot.cpuid7_ebx = r[1];
    }
    if (!boot.cpuid_tsc_khz && max >= 0x15) {
        cpuid(0x15, r);
        if (r[0] && r[1] && r[2])
            boot.cpuid_tsc_khz = (uint32_t)((uint64_t)r[2] * r[1] / r[0] / 1000);
    }
    if (boot.kvmclock)
        wrmsr(0x4b564d01, (uint64_t)pvclock_page | 1);
}

/* Values that stay for the guest's life; nothing uses them, so only a lost state changes them. */
static const struct {
    uint32_t msr;
    uint64_t value;
} canaries[] = {
    { 0xc0000081, UINT64_C(0x0018000800000000) }, /* STAR */
    { 0xc0000082, UINT64_C(0x00000000001a2b30) }, /* LSTAR */
    { 0xc0000083, UINT64_C(0x00000000001c2d30) }, /* CSTAR */
    { 0xc0000084, UINT64_C(0x0000000000040700) }, /* SFMASK */
    { 0xc0000102, UINT64_C(0x0000000000123450) }, /* KERNEL_GS_BASE */
};
#define CANARIES (sizeof(canaries) / sizeof(canaries[0]))
#define DR_CANARY UINT64_C(0x0000000000abc000)

static void load_registers(void)
{
    for (size_t i = 0; i < CANARIES; i++)
        wrmsr(canaries[i].msr, canaries[i].value);
    wrmsr(0xc0000100, (uint64_t)fs_area);
    wrmsr(0xc0000101, (uint64_t)gs_area);
    __asm__ volatile("mov %0, %%dr0" : : "r"(DR_CANARY));
    __asm__ volatile("mov %0, %%dr3" : : "r"(DR_CANARY + 0x3000));
}

/* 0, or 1 + the number of the first register that changed. */
static uint64_t check_registers(void)
{
    uint64_t dr0, dr3;
    for (size_t i = 0; i < CANARIES; i++)
        if (rdmsr(canaries[i].msr) != canaries[i].value)
            return 1 + i;
    __asm__ volatile("mov %%dr0, %0" : "=r"(dr0));
    __asm__ volatile("mov %%dr3, %0" : "=r"(dr3));
    if (dr0 != DR_CANARY || dr3 != DR_CANARY + 0x3000)
        return 1 + CANARIES;
    return 0;
}

static void triple_fault(void)
{
    struct table_pointer none = { 0, 0 };
    __asm__ volatile("lidt %0" : : "m"(none));
    (void)*(volatile uint8_t *)((uint64_t)MAX_GIB << 31); /* a page fault without an IDT */
}

uint64_t ring0_call(enum ring0_call c)
{
    switch (c) {
    case RING0_CHECK_REGISTERS:
        return check_registers();
    case RING0_TRIPLE_FAULT:
        triple_fault();
        break;
    }
    return 0;
}

void boot_ring0(const struct start_info *si)
{
    read_start_info(si);
    load_tables();
    look_at_cpu();
    load_registers();
}

void fault_ring0(const struct fault_frame *f)
{
    uint64_t cr2;
    __asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
    put("\nfault vector=");
    put_u64(f->vector);
    put(" error=");
    put_hex(f->error);
    put(" rip=");
    put_hex(f->rip);
    put(" cs=");
    put_hex(f->cs);
    put(" rsp=");
    put_hex(f->rsp);
    put(" cr2=");
    put_hex(cr2);
    put("\n");
    panic("exception in the guest");
}
