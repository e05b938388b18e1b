/* SPDX-License-Identifier: ISC */
/*
 * PVH: an ELF64 image that says by a note (owner "Xen", type 18) where its 32-bit entry
 * is. It starts in protected mode without paging, EBX pointing to the start info: magic,
 * command line, initrd as the first module, ACPI's RSDP, memory map. The layout is that
 * of Xen's public hvm/start_info.h, version 1.
 */
#include "hypervisor/xvm/boot_internal.h"

#include <elf.h>
#include <string.h>

#define NOTE_PHYS32_ENTRY 18
#define START_MAGIC 0x336ec578u
#define MAX_PROGRAM_HEADERS 64
#define MODLIST_OFFSET 0x100
#define MEMMAP_OFFSET 0x200

struct start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
    uint32_t memmap_entries, reserved;
};
_Static_assert(sizeof(struct start_info) == 56, "start info of PVH version 1");

struct module {
    uint64_t paddr, size, cmdline_paddr, reserved;
};
_Static_assert(sizeof(struct module) == 32, "module of PVH");

struct memmap_entry {
    uint64_t addr, size;
    uint32_t type, reserved;
};
_Static_assert(sizeof(struct memmap_entry) == 24, "memory map entry of PVH");

bool boot_is_elf(const char *image, size_t len)
{
    return len >= SELFMAG && memcmp(image, ELFMAG, SELFMAG) == 0;
}

static bool inside(uint64_t at, uint64_t n, size_t len)
{
    return at <= len && n <= len - at;
}

static size_t pad4(uint32_t n)
{
    return ((size_t)n + 3) & ~(size_t)3;
}

/* Looks through one note segment for the entry point. */
static bool find_entry(const char *p, size_t len, uint64_t *entry)
{
    size_t at = 0;

    while (inside(at, sizeof(Elf64_Nhdr), len)) {
        Elf64_Nhdr n;
        size_t name, desc;

        memcpy(&n, p + at, sizeof n);
        name = at + sizeof n;
        desc = name + pad4(n.n_namesz);
        if (!inside(desc, pad4(n.n_descsz), len))
            return false;
        if (n.n_type == NOTE_PHYS32_ENTRY && n.n_namesz == 4 && memcmp(p + name, "Xen", 4) == 0 &&
            (n.n_descsz == 4 || n.n_descsz == 8)) {
            *entry = 0;
            memcpy(entry, p + desc, n.n_descsz);
            return true;
        }
        at = desc + pad4(n.n_descsz);
    }
    return false;
}

static int load_segment(
    struct machine *m, const char *image, const Elf64_Phdr *h, uint64_t *end, struct err *e)
{
    uint8_t *to;

    if (h->p_filesz > h->p_memsz)
        return err_set(e, ERR_INVALID, "a segment is longer in the file than in memory");
    if (h->p_memsz == 0)
        return 0;
    to = machine_ram(m, h->p_paddr, h->p_memsz);
    if (to == NULL || h->p_paddr < BOOT_HIGH)
        return err_set(e, ERR_INVALID,
            "a segment at 0x%llx of %llu KiB does not fit; give domain %s more memory",
            (unsigned long long)h->p_paddr, (unsigned long long)(h->p_memsz >> 10), m->def->name);
    memcpy(to, image + h->p_offset, h->p_filesz); /* the rest is zero in fresh memory */
    if (h->p_paddr + h->p_memsz > *end)
        *end = h->p_paddr + h->p_memsz;
    return 0;
}

/* Segments into memory; *entry from the note, *end behind the last byte. */
static int load_elf(
    struct machine *m, const char *image, size_t len, uint64_t *entry, uint64_t *end, struct err *e)
{
    Elf64_Ehdr h;
    bool found = false;

    if (!inside(0, sizeof h, len))
        return err_set(e, ERR_INVALID, "ELF header is cut short");
    memcpy(&h, image, sizeof h);
    if (h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_machine != EM_X86_64 ||
        h.e_phentsize != sizeof(Elf64_Phdr) || h.e_phnum > MAX_PROGRAM_HEADERS)
        return err_set(e, ERR_INVALID, "not an x86-64 ELF64 kernel");
    if (!inside(h.e_phoff, (uint64_t)h.e_phnum * sizeof(Elf64_Phdr), len))
        return err_set(e, ERR_INVALID, "program headers are cut short");
    for (unsigned i = 0; i < h.e_phnum; i++) {
        Elf64_Phdr p;

        memcpy(&p, image + h.e_phoff + i * sizeof p, sizeof p);
        if (!inside(p.p_offset, p.p_filesz, len))
            return err_set(e, ERR_INVALID, "segment %u is cut short", i);
        if (p.p_type == PT_NOTE && !found)
            found = find_entry(image + p.p_offset, p.p_filesz, entry);
        if (p.p_type == PT_LOAD && load_segment(m, image, &p, end, e) < 0)
            return -1;
    }
    if (!found)
        return err_set(e, ERR_INVALID,
            "ELF without a PVH entry note; use the bzImage or a kernel with CONFIG_PVH");
    return 0;
}

static int put_start_info(struct machine *m, const struct boot_initrd *initrd, struct err *e)
{
    uint8_t *base = machine_ram(m, BOOT_START_INFO, HV_PAGE_SIZE);
    struct start_info s = { .magic = START_MAGIC,
        .version = 1,
        .nr_modules = initrd->len != 0,
        .modlist_paddr = initrd->len != 0 ? BOOT_START_INFO + MODLIST_OFFSET : 0,
        .cmdline_paddr = BOOT_CMDLINE,
        .rsdp_paddr = ACPI_RSDP,
        .memmap_paddr = BOOT_START_INFO + MEMMAP_OFFSET };
    struct module mod = { .paddr = initrd->addr, .size = initrd->len };
    struct boot_map map[BOOT_MAPS];

    if (base == NULL)
        return err_set(e, ERR_INTERNAL, "no memory below 1 MiB");
    s.memmap_entries = boot_memory_map(m, map);
    for (unsigned i = 0; i < s.memmap_entries; i++) {
        struct memmap_entry x = { map[i].addr, map[i].len, map[i].type, 0 };

        memcpy(base + MEMMAP_OFFSET + i * sizeof x, &x, sizeof x);
    }
    memcpy(base + MODLIST_OFFSET, &mod, sizeof mod);
    memcpy(base, &s, sizeof s);
    return 0;
}

int boot_pvh(struct machine *m, const char *image, size_t len, struct err *e)
{
    uint64_t entry = 0, end = BOOT_HIGH;
    struct boot_initrd initrd;

    if (load_elf(m, image, len, &entry, &end, e) < 0 ||
        boot_load_initrd(m, end, RAM_LOW_MAX, &initrd, e) < 0 || put_start_info(m, &initrd, e) < 0)
        return -1;
    return boot_registers(m, entry, BOOT_START_INFO, 0, e);
}
