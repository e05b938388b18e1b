/* SPDX-License-Identifier: ISC */
/*
 * Linux's own boot protocol (Documentation/x86/boot.rst), 32-bit entry: the protected
 * mode part goes to 1 MiB, the zero page gets a copy of the setup header, the memory map,
 * initrd, command line and where ACPI's RSDP is; ESI points to the zero page. The kernel
 * unpacks itself upwards, so the initrd lies as high as it may.
 */
#include "hypervisor/xvm/boot_internal.h"

#include <asm/bootparam.h>
#include <stddef.h>
#include <string.h>

#define SECTOR 512u
#define MAGIC_HDRS 0x53726448u
#define PROTOCOL_MIN 0x0206
#define PROTOCOL_RSDP 0x020e
#define LOADER_UNKNOWN 0xff
#define INITRD_LIMIT_OLD 0x37ffffffu

_Static_assert(offsetof(struct boot_params, hdr) == 0x1f1, "zero page of Linux");

static int read_header(const char *image, size_t len, struct setup_header *h, struct err *e)
{
    if (len < 0x1f1 + sizeof *h)
        return err_set(e, ERR_INVALID, "too short to be a Linux kernel");
    memcpy(h, image + 0x1f1, sizeof *h);
    if (h->header != MAGIC_HDRS)
        return err_set(e, ERR_INVALID, "neither a Linux bzImage nor an ELF image");
    if (h->version < PROTOCOL_MIN || (h->loadflags & LOADED_HIGH) == 0)
        return err_set(
            e, ERR_INVALID, "boot protocol %x.%02x is too old", h->version >> 8, h->version & 0xff);
    if (h->setup_sects == 0)
        h->setup_sects = 4;
    return 0;
}

/* The protected mode part to 1 MiB; *end is where the kernel is done unpacking. */
static int load_code(struct machine *m, const char *image, size_t len, const struct setup_header *h,
    uint64_t *end, struct err *e)
{
    size_t setup = ((size_t)h->setup_sects + 1) * SECTOR, code;
    uint64_t pref = h->version >= 0x020a ? h->pref_address : BOOT_HIGH;
    uint64_t need = h->version >= 0x020a ? h->init_size : 0;
    void *to;

    if (setup >= len)
        return err_set(e, ERR_INVALID, "the kernel behind its setup sectors is missing");
    code = len - setup;
    to = machine_ram(m, BOOT_HIGH, code);
    if (pref < BOOT_HIGH)
        pref = BOOT_HIGH;
    *end = pref + (need > code ? need : code);
    if (to == NULL || *end < pref || *end > m->region[0].len)
        return err_set(e, ERR_MEMORY, "needs %llu MiB of memory to unpack itself",
            (unsigned long long)(*end >> 20));
    memcpy(to, image + setup, code);
    return 0;
}

static void fill_zero_page(struct machine *m, struct boot_params *z, const struct setup_header *h,
    const struct boot_initrd *initrd)
{
    struct boot_map map[BOOT_MAPS];

    memset(z, 0, sizeof *z);
    z->hdr = *h;
    z->hdr.type_of_loader = LOADER_UNKNOWN;
    z->hdr.cmd_line_ptr = BOOT_CMDLINE;
    z->hdr.ramdisk_image = (uint32_t)initrd->addr;
    z->hdr.ramdisk_size = (uint32_t)initrd->len;
    z->hdr.code32_start = BOOT_HIGH;
    if (h->version >= PROTOCOL_RSDP)
        z->acpi_rsdp_addr = ACPI_RSDP;
    z->e820_entries = (uint8_t)boot_memory_map(m, map);
    for (unsigned i = 0; i < z->e820_entries; i++) {
        z->e820_table[i].addr = map[i].addr;
        z->e820_table[i].size = map[i].len;
        z->e820_table[i].type = map[i].type;
    }
}

int boot_bzimage(struct machine *m, const char *image, size_t len, struct err *e)
{
    struct setup_header h;
    struct boot_initrd initrd;
    struct boot_params *z = machine_ram(m, BOOT_ZERO_PAGE, sizeof *z);
    uint64_t end = 0, limit;

    if (z == NULL)
        return err_set(e, ERR_INTERNAL, "no memory below 1 MiB");
    if (read_header(image, len, &h, e) < 0 || load_code(m, image, len, &h, &end, e) < 0)
        return -1;
    limit = (h.initrd_addr_max != 0 ? h.initrd_addr_max : INITRD_LIMIT_OLD) + UINT64_C(1);
    if (boot_load_initrd(m, end, limit, &initrd, e) < 0)
        return -1;
    fill_zero_page(m, z, &h, &initrd);
    return boot_registers(m, BOOT_HIGH, 0, BOOT_ZERO_PAGE, e);
}
