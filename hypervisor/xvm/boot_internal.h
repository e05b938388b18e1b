/* SPDX-License-Identifier: ISC */
/*
 * boot_internal: where things lie in a fresh guest's memory, and what the two loaders
 * (boot_pvh.c, boot_bzimage.c) have in common. Nothing of it matters once the guest runs.
 *
 *   0x1000 GDT  0x6000 PVH start info  0x7000 zero page  0x20000 command line
 *   0x9fc00..0xfffff reserved, ACPI at 0xe0000  0x100000 kernel ... initrd at the end
 */
#ifndef XVM_BOOT_INTERNAL_H
#define XVM_BOOT_INTERNAL_H

#include "hypervisor/xvm/machine_internal.h"

#define BOOT_GDT 0x1000u
#define BOOT_START_INFO 0x6000u
#define BOOT_ZERO_PAGE 0x7000u
#define BOOT_CMDLINE 0x20000u
#define BOOT_CMDLINE_MAX 2048u
#define BOOT_LOW_END 0x9fc00u
#define BOOT_HIGH 0x100000u
#define BOOT_MAPS 5

/* The memory map in e820's types: 1 RAM, 2 reserved. */
struct boot_map {
    uint64_t addr, len;
    uint32_t type;
};

struct boot_initrd {
    uint64_t addr, len; /* len 0: none */
};

unsigned boot_memory_map(const struct machine *m, struct boot_map map[BOOT_MAPS]);

/* Reads the initrd to the end of memory below `limit`, above `floor`. */
int boot_load_initrd(
    struct machine *m, uint64_t floor, uint64_t limit, struct boot_initrd *out, struct err *e);

int boot_put_cmdline(struct machine *m, struct err *e);

/* vCPU 0 in 32-bit protected mode, flat segments, paging off. */
int boot_registers(struct machine *m, uint64_t rip, uint64_t rbx, uint64_t rsi, struct err *e);

bool boot_is_elf(const char *image, size_t len);
int boot_pvh(struct machine *m, const char *image, size_t len, struct err *e);
int boot_bzimage(struct machine *m, const char *image, size_t len, struct err *e);

#endif
