/* SPDX-License-Identifier: ISC */
/*
 * core: a domain as an ELF core file, for gdb and crash. Pure: bytes out of memory map and
 * registers. Little-endian ELF64 for x86-64, in this order:
 *
 *   ELF header, PT_NOTE, a PT_LOAD for each region of memory, notes, up to a whole page;
 *   the regions, one after the other, pages of zeroes as holes.
 *
 * PT_LOAD: virtual address = physical address = that in the guest's memory. Notes: for each vCPU
 * "CORE" NT_PRSTATUS (general registers; the process number is that of the vCPU plus 1), then for
 * each "QEMU" type 0, version 1: segments and control registers, by which crash finds the page
 * tables and where the kernel lies.
 */
#ifndef CORE_H
#define CORE_H

#include <stddef.h>
#include <stdint.h>

#include "hypervisor/hypervisor.h"

struct core {
    uint8_t *head;     /* malloc'ed; free it */
    size_t head_len;   /* whole pages */
    uint64_t file_len; /* of all */
};

int core_layout(struct core *c, const struct hv_layout *l, const struct hv_registers *r, unsigned n,
    struct err *e);
/* Where that frame, which is in the layout, lies in the file. */
uint64_t core_offset(const struct core *c, const struct hv_layout *l, uint64_t gfn);

#endif
