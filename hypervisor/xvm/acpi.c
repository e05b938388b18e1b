/* SPDX-License-Identifier: ISC */
/*
 * ACPI tables (ACPI specification 6.4, chapters 5, 6.4 and 20): RSDP, XSDT, FADT, FACS,
 * MADT and a DSDT in AML, written by the small encoder below. From them Linux learns the
 * vCPUs, the IOAPIC, the power button, how to switch off and reset, where the panic port
 * is ("QEMU0001"), and its virtio-mmio devices ("LNRO0005"). ACPI and not a table of the
 * older MP specification with virtio_mmio.device= parameters, because Debian's kernel
 * is built without the latter.
 *
 * All tables lie in one page-aligned block from ACPI_RSDP on, inside the range that the
 * memory map reserves and that a kernel without our hint scans for the RSDP.
 */
#include <stdio.h>
#include <string.h>

#include "hypervisor/xvm/machine_internal.h"

#define ACPI_LEN 0x4000u
#define FACS_OFFSET 0x40u
#define XSDT_OFFSET 0x80u
#define FADT_OFFSET 0x100u
#define MADT_OFFSET 0x400u
#define DSDT_OFFSET 0x1000u
#define HEADER_LEN 36u
#define FADT_LEN 244u
#define LOCAL_APIC 0xfee00000u
#define IO_APIC 0xfec00000u

#define FADT_WBINVD (1u << 0)
#define FADT_C1 (1u << 2)
#define FADT_NO_SLEEP_BUTTON (1u << 5)
#define FADT_RESET_REG (1u << 10)
#define BOOT_NO_VGA (1u << 2)
#define BOOT_NO_CMOS (1u << 5)
#define SLEEP_TYPE_S5 5
#define RESET_VALUE 0x06

/* A bounded output; what does not fit sets `full`. */
struct out {
    uint8_t *p;
    size_t len, cap;
    bool full;
};

static void put(struct out *o, const void *data, size_t len)
{
    if (o->full || len > o->cap - o->len) {
        o->full = true;
        return;
    }
    memcpy(o->p + o->len, data, len);
    o->len += len;
}

static void put8(struct out *o, unsigned v)
{
    uint8_t b = (uint8_t)v;

    put(o, &b, 1);
}

static void put_le(struct out *o, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        put8(o, (unsigned)(v >> (8 * i)) & 0xff);
}

static void poke(struct out *o, size_t at, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes && at + i < o->cap; i++)
        o->p[at + i] = (uint8_t)(v >> (8 * i));
}

/* Length and checksum come with finish. */
static void header(struct out *o, const char *signature, unsigned revision)
{
    put(o, signature, 4);
    put_le(o, 0, 4);
    put8(o, revision);
    put8(o, 0);
    put(o, "MIGRD ", 6);
    put(o, "XVM     ", 8);
    put_le(o, 1, 4);
    put(o, "XVM ", 4);
    put_le(o, 1, 4);
}

static uint8_t checksum(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + p[i]);
    return (uint8_t)-sum;
}

static void finish(struct out *o)
{
    poke(o, 4, o->len, 4);
    poke(o, 9, 0, 1);
    poke(o, 9, checksum(o->p, o->len), 1);
}

/* AML: an object with a package length in its two-byte form, closed by aml_end. */
static size_t aml_begin(struct out *o, const void *op, size_t len)
{
    put(o, op, len);
    put_le(o, 0, 2);
    return o->len - 2;
}

static void aml_end(struct out *o, size_t at)
{
    size_t len = o->len - at;

    if (len >= 4096)
        o->full = true;
    poke(o, at, 0x40 | (len & 0xf), 1);
    poke(o, at + 1, len >> 4, 1);
}

static void aml_name(struct out *o, const char *name)
{
    put8(o, 0x08);
    put(o, name, 4);
}

static void aml_string(struct out *o, const char *s)
{
    put8(o, 0x0d);
    put(o, s, strlen(s) + 1);
}

static void aml_byte(struct out *o, unsigned v)
{
    put8(o, 0x0a);
    put8(o, v);
}

static size_t aml_device(struct out *o, const char *name, const char *hid, unsigned uid)
{
    size_t at = aml_begin(o, "\x5b\x82", 2);

    put(o, name, 4);
    aml_name(o, "_HID");
    aml_string(o, hid);
    aml_name(o, "_UID");
    aml_byte(o, uid);
    return at;
}

/* Name(_CRS, Buffer { resources, end tag }) */
static void aml_resources(struct out *o, const uint8_t *res, unsigned len)
{
    size_t at;

    aml_name(o, "_CRS");
    at = aml_begin(o, "\x11", 1);
    aml_byte(o, len + 2);
    put(o, res, len);
    put(o, "\x79", 2); /* end tag, its checksum 0 means none */
    aml_end(o, at);
}

static void aml_virtio(struct out *o, const struct device *d, unsigned n)
{
    uint8_t res[21];
    struct out r = { res, 0, sizeof res, false };
    char name[8];
    size_t at;

    put_le(&r, 0x86, 1); /* 32-bit fixed memory range, writable */
    put_le(&r, 9, 2);
    put8(&r, 1);
    put_le(&r, d->base, 4);
    put_le(&r, d->len, 4);
    put_le(&r, 0x89, 1); /* extended interrupt: consumer, edge, active high, exclusive */
    put_le(&r, 6, 2);
    put8(&r, 0x03);
    put8(&r, 1);
    put_le(&r, (uint64_t)d->irq, 4);
    snprintf(name, sizeof name, "V%03u", n % 1000);
    at = aml_device(o, name, "LNRO0005", n);
    aml_resources(o, res, sizeof res);
    aml_end(o, at);
}

static void aml_panic(struct out *o)
{
    uint8_t res[8];
    struct out r = { res, 0, sizeof res, false };
    size_t at;

    put8(&r, 0x47); /* I/O port, 16 bits decoded */
    put8(&r, 1);
    put_le(&r, PORT_PANIC, 2);
    put_le(&r, PORT_PANIC, 2);
    put8(&r, 1);
    put8(&r, 1);
    at = aml_device(o, "PNC0", "QEMU0001", 0);
    aml_resources(o, res, sizeof res);
    aml_end(o, at);
}

static void write_dsdt(const struct machine *m, struct out *o)
{
    unsigned n = 0;
    size_t at;

    header(o, "DSDT", 2);
    at = aml_begin(o, "\x10", 1); /* Scope(\_SB) */
    put(o, "\\_SB_", 5);
    aml_panic(o);
    for (const struct device *d = m->devices; d != NULL; d = d->next)
        if (!d->pio)
            aml_virtio(o, d, n++);
    aml_end(o, at);
    aml_name(o, "_S5_");
    at = aml_begin(o, "\x12", 1);
    put8(o, 4);
    aml_byte(o, SLEEP_TYPE_S5);
    aml_byte(o, SLEEP_TYPE_S5);
    put8(o, 0);
    put8(o, 0);
    aml_end(o, at);
    finish(o);
}

static void write_madt(const struct machine *m, struct out *o)
{
    header(o, "APIC", 3);
    put_le(o, LOCAL_APIC, 4);
    put_le(o, 1, 4); /* there are 8259s too */
    for (unsigned i = 0; i < m->n_vcpus; i++) {
        put8(o, 0);
        put8(o, 8);
        put8(o, i); /* processor */
        put8(o, i); /* APIC id */
        put_le(o, 1, 4);
    }
    put8(o, 1);
    put8(o, 12);
    put8(o, 0);
    put8(o, 0);
    put_le(o, IO_APIC, 4);
    put_le(o, 0, 4); /* its first GSI */
    put8(o, 2);      /* the system control interrupt is level, active high */
    put8(o, 10);
    put8(o, 0);
    put8(o, GSI_SCI);
    put_le(o, GSI_SCI, 4);
    put_le(o, 0x0d, 2);
    finish(o);
}

/* Generic address of an I/O port. */
static void poke_port(struct out *o, size_t at, unsigned port, unsigned bits)
{
    poke(o, at, 1, 1);
    poke(o, at + 1, bits, 1);
    poke(o, at + 2, 0, 1);
    poke(o, at + 3, bits == 8 ? 1 : bits == 16 ? 2 : 3, 1);
    poke(o, at + 4, port, 8);
}

static void write_fadt(struct out *o)
{
    header(o, "FACP", 3);
    o->len = FADT_LEN; /* the rest of the block is zero */
    poke(o, 36, ACPI_RSDP + FACS_OFFSET, 4);
    poke(o, 40, ACPI_RSDP + DSDT_OFFSET, 4);
    poke(o, 46, GSI_SCI, 2);
    poke(o, 56, PORT_PM1_EVENT, 4);
    poke(o, 64, PORT_PM1_CONTROL, 4);
    poke(o, 88, 4, 1);
    poke(o, 89, 2, 1);
    poke(o, 96, 0xffff, 2); /* no C2 */
    poke(o, 98, 0xffff, 2); /* no C3 */
    poke(o, 109, BOOT_NO_VGA | BOOT_NO_CMOS, 2);
    poke(o, 112, FADT_WBINVD | FADT_C1 | FADT_NO_SLEEP_BUTTON | FADT_RESET_REG, 4);
    poke_port(o, 116, PORT_RESET, 8);
    poke(o, 128, RESET_VALUE, 1);
    poke(o, 132, ACPI_RSDP + FACS_OFFSET, 8);
    poke(o, 140, ACPI_RSDP + DSDT_OFFSET, 8);
    poke_port(o, 148, PORT_PM1_EVENT, 32);
    poke_port(o, 172, PORT_PM1_CONTROL, 16);
    finish(o);
}

static void write_xsdt(struct out *o)
{
    header(o, "XSDT", 1);
    put_le(o, ACPI_RSDP + FADT_OFFSET, 8);
    put_le(o, ACPI_RSDP + MADT_OFFSET, 8);
    finish(o);
}

static void write_rsdp(struct out *o)
{
    put(o, "RSD PTR ", 8);
    put8(o, 0);
    put(o, "MIGRD ", 6);
    put8(o, 2);
    put_le(o, 0, 4);
    put_le(o, HEADER_LEN, 4);
    put_le(o, ACPI_RSDP + XSDT_OFFSET, 8);
    put_le(o, 0, 4);
    poke(o, 8, checksum(o->p, 20), 1);
    poke(o, 32, checksum(o->p, HEADER_LEN), 1);
}

static void write_facs(struct out *o)
{
    put(o, "FACS", 4);
    put_le(o, 64, 4);
    poke(o, 32, 2, 1);
}

int acpi_write(struct machine *m, struct err *e)
{
    uint8_t *base = machine_ram(m, ACPI_RSDP, ACPI_LEN);
    struct out rsdp, facs, xsdt, fadt, madt, dsdt;

    if (base == NULL)
        return err_set(e, ERR_INTERNAL, "domain %s: no memory below 1 MiB", m->def->name);
    memset(base, 0, ACPI_LEN);
    rsdp = (struct out){ base, 0, FACS_OFFSET, false };
    facs = (struct out){ base + FACS_OFFSET, 0, XSDT_OFFSET - FACS_OFFSET, false };
    xsdt = (struct out){ base + XSDT_OFFSET, 0, FADT_OFFSET - XSDT_OFFSET, false };
    fadt = (struct out){ base + FADT_OFFSET, 0, MADT_OFFSET - FADT_OFFSET, false };
    madt = (struct out){ base + MADT_OFFSET, 0, DSDT_OFFSET - MADT_OFFSET, false };
    dsdt = (struct out){ base + DSDT_OFFSET, 0, ACPI_LEN - DSDT_OFFSET, false };
    write_rsdp(&rsdp);
    write_facs(&facs);
    write_xsdt(&xsdt);
    write_fadt(&fadt);
    write_madt(m, &madt);
    write_dsdt(m, &dsdt);
    if (rsdp.full || facs.full || xsdt.full || fadt.full || madt.full || dsdt.full)
        return err_set(e, ERR_INTERNAL, "domain %s: its ACPI tables do not fit", m->def->name);
    return 0;
}
