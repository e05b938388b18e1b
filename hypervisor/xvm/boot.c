/* SPDX-License-Identifier: ISC */
/*
 * Starting a kernel: what PVH and bzImage have in common. The kind of the image
 * decides by its first bytes. Files are the administrator's, but a broken one must not
 * do more than be refused: every offset in them is checked by the loaders.
 */
#include "hypervisor/xvm/boot_internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"

#define KERNEL_MAX (256u << 20)
#define CR0_PE 0x1
#define CR0_ET 0x10
#define SEL_CODE 0x10
#define SEL_DATA 0x18
#define SEL_TSS 0x20

unsigned boot_memory_map(const struct machine *m, struct boot_map map[BOOT_MAPS])
{
    unsigned n = 0;

    map[n++] = (struct boot_map){ 0, BOOT_LOW_END, 1 };
    map[n++] = (struct boot_map){ BOOT_LOW_END, 0xa0000 - BOOT_LOW_END, 2 };
    map[n++] = (struct boot_map){ ACPI_RSDP, BOOT_HIGH - ACPI_RSDP, 2 };
    map[n++] = (struct boot_map){ BOOT_HIGH, m->region[0].len - BOOT_HIGH, 1 };
    if (m->n_regions > 1)
        map[n++] = (struct boot_map){ m->region[1].gpa, m->region[1].len, 1 };
    return n;
}

static int read_initrd(struct machine *m, int fd, uint64_t floor, uint64_t limit,
    struct boot_initrd *out, struct err *e)
{
    struct stat st;
    uint64_t end = m->region[0].len < limit ? m->region[0].len : limit, len;
    void *p;

    if (fstat(fd, &st) < 0)
        return err_sys(e, "initrd %s", m->def->initrd);
    len = (uint64_t)st.st_size;
    if (end < floor || len > end - floor)
        return err_set(e, ERR_MEMORY,
            "initrd %s: %llu KiB do not fit beside the kernel; give domain %s more memory",
            m->def->initrd, (unsigned long long)(len >> 10), m->def->name);
    out->addr = (end - len) & ~(uint64_t)(HV_PAGE_SIZE - 1);
    if (out->addr < floor || (p = machine_ram(m, out->addr, len)) == NULL)
        return err_set(e, ERR_MEMORY, "initrd %s: does not fit into memory", m->def->initrd);
    out->len = len;
    return io_read_full(fd, p, len, IO_FOREVER, e);
}

int boot_load_initrd(
    struct machine *m, uint64_t floor, uint64_t limit, struct boot_initrd *out, struct err *e)
{
    int fd, r;

    *out = (struct boot_initrd){ 0, 0 };
    if (m->def->initrd == NULL || m->def->initrd[0] == '\0')
        return 0;
    fd = open(m->def->initrd, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, "initrd %s", m->def->initrd);
    r = read_initrd(m, fd, floor, limit, out, e);
    close(fd);
    return r;
}

int boot_put_cmdline(struct machine *m, struct err *e)
{
    size_t len = strlen(m->def->cmdline);
    void *p = machine_ram(m, BOOT_CMDLINE, BOOT_CMDLINE_MAX);

    if (len >= BOOT_CMDLINE_MAX || p == NULL)
        return err_set(e, ERR_INVALID, "domain %s: command line of %zu characters; at most %u",
            m->def->name, len, BOOT_CMDLINE_MAX - 1);
    memcpy(p, m->def->cmdline, len + 1);
    return 0;
}

static struct kvm_segment flat(uint16_t selector, uint8_t type)
{
    return (struct kvm_segment){ .base = 0,
        .limit = 0xffffffff,
        .selector = selector,
        .type = type,
        .present = 1,
        .db = 1,
        .s = 1,
        .g = 1 };
}

static int put_gdt(struct machine *m, struct err *e)
{
    static const uint64_t gdt[] = { 0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff,
        0x00008b0000000067 };
    void *p = machine_ram(m, BOOT_GDT, sizeof gdt);

    if (p == NULL)
        return err_set(e, ERR_INTERNAL, "domain %s: no memory below 1 MiB", m->def->name);
    memcpy(p, gdt, sizeof gdt);
    return 0;
}

int boot_registers(struct machine *m, uint64_t rip, uint64_t rbx, uint64_t rsi, struct err *e)
{
    struct kvm_sregs s;
    struct kvm_regs r = { .rip = rip, .rbx = rbx, .rsi = rsi, .rflags = 2 };
    int fd = m->vcpu[0].fd;

    if (put_gdt(m, e) < 0)
        return -1;
    if (ioctl(fd, KVM_GET_SREGS, &s) < 0)
        return err_sys(e, "domain %s: boot registers", m->def->name);
    s.cs = flat(SEL_CODE, 0xb);
    s.ds = s.es = s.fs = s.gs = s.ss = flat(SEL_DATA, 0x3);
    s.tr = (struct kvm_segment){ .limit = 0x67, .selector = SEL_TSS, .type = 0xb, .present = 1 };
    s.ldt = (struct kvm_segment){ .unusable = 1 };
    s.gdt = (struct kvm_dtable){ .base = BOOT_GDT, .limit = 5 * 8 - 1 };
    s.idt = (struct kvm_dtable){ .base = 0, .limit = 0 };
    s.cr0 = CR0_PE | CR0_ET;
    s.cr3 = s.cr4 = s.efer = 0;
    if (ioctl(fd, KVM_SET_SREGS, &s) < 0 || ioctl(fd, KVM_SET_REGS, &r) < 0)
        return err_sys(e, "domain %s: boot registers", m->def->name);
    return 0;
}

static int boot_image(struct machine *m, const char *image, size_t len, struct err *e)
{
    int r = boot_is_elf(image, len) ? boot_pvh(m, image, len, e) : boot_bzimage(m, image, len, e);

    return r < 0 ? err_prefix(e, "kernel %s", m->def->kernel) : 0;
}

int boot_kernel(struct machine *m, struct err *e)
{
    size_t len;
    char *image;
    int r = -1;

    if (m->def->kernel == NULL || m->def->kernel[0] == '\0')
        return err_set(
            e, ERR_INVALID, "domain %s: no kernel; set kernel= in its definition", m->def->name);
    image = io_read_file(m->def->kernel, KERNEL_MAX, &len, e);
    if (image == NULL)
        return err_prefix(e, "domain %s: kernel", m->def->name);
    if (acpi_write(m, e) == 0 && boot_put_cmdline(m, e) == 0)
        r = boot_image(m, image, len, e);
    free(image);
    return r;
}
