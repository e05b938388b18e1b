/* SPDX-License-Identifier: ISC */
/*
 * The few ports of a PC that a guest needs to end itself or to be asked to.
 *
 *   0x60..0x64  keyboard controller: 0xfe to 0x64 resets; reads as idle
 *   0x505       panic: bit 0 written means that the guest panicked (reads 0x01: supported)
 *   0x506       nap: a 16-bit write of 1..1000 keeps this vCPU out of the guest that many ms
 *   0x508       owner: 32 bits of the epoch under which it runs; 0x50c 32 bits that stand for the
 *               host. A guest that writes them down can prove later who ran it, and when
 *   0x600       ACPI PM1 status and enable, 16 bits each: bit 8 is the power button
 *   0x604       ACPI PM1 control: bit 13 written switches the power off
 *   0xcf9       reset control: bit 2 written resets
 *
 * The power button is how `shutdown` asks: a guest with ACPI gets the system control
 * interrupt (GSI 3, level), one without may poll port 0x600. Resets do not restart
 * the machine in place: the domain stops and whoever owns it starts it anew.
 *
 * State section "acpi-pm" version 1: u32 status, u32 enable.
 */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/xvm/machine_internal.h"

#define PM1_POWER_BUTTON 0x0100u
#define PM1_SLEEP_ENABLE 0x2000u
#define PM1_ACPI_MODE 0x0001u
#define I8042_COMMAND 4
#define I8042_RESET 0xfe
#define RESET_BIT 0x04
#define PANICKED 0x01
#define NAP_MAX_MS 1000

struct port {
    struct device d;
    pthread_mutex_t lock; /* the power button's registers */
    uint16_t status, enable;
};

static struct port *port_of(struct device *d)
{
    return (struct port *)d;
}

static void read_zero(struct device *d, uint64_t offset, void *data, unsigned len)
{
    (void)d;
    (void)offset;
    memset(data, 0, len);
}

static void nothing(struct device *d)
{
    (void)d;
}

static void free_port(struct device *d)
{
    pthread_mutex_destroy(&port_of(d)->lock);
    free(d);
}

static int save_nothing(struct device *d, struct state_writer *w, struct err *e)
{
    (void)e;
    state_section_begin(w, d->ops->name, 1);
    state_section_end(w);
    return 0;
}

static int load_nothing(struct device *d, struct state_reader *r, struct err *e)
{
    (void)d;
    return state_end(r, e);
}

static uint8_t first_byte(const void *data)
{
    return *(const uint8_t *)data;
}

static void i8042_write(struct device *d, uint64_t offset, const void *data, unsigned len)
{
    (void)len;
    if (offset == I8042_COMMAND && first_byte(data) == I8042_RESET)
        machine_guest_stopped(d->m, STOP_REBOOT, "reset by keyboard controller");
}

static void reset_write(struct device *d, uint64_t offset, const void *data, unsigned len)
{
    (void)offset;
    (void)len;
    if ((first_byte(data) & RESET_BIT) != 0)
        machine_guest_stopped(d->m, STOP_REBOOT, "reset by port 0xcf9");
}

static void panic_read(struct device *d, uint64_t offset, void *data, unsigned len)
{
    (void)d;
    (void)offset;
    memset(data, 0, len);
    *(uint8_t *)data = PANICKED;
}

static void panic_write(struct device *d, uint64_t offset, const void *data, unsigned len)
{
    (void)offset;
    (void)len;
    if ((first_byte(data) & PANICKED) != 0)
        machine_guest_stopped(d->m, STOP_CRASH, "the guest panicked");
}

static void nap_write(struct device *d, uint64_t offset, const void *data, unsigned len)
{
    uint16_t ms = 0;

    (void)offset;
    memcpy(&ms, data, len < sizeof ms ? len : sizeof ms);
    if (ms > 0)
        vcpu_nap(d->m, ms > NAP_MAX_MS ? NAP_MAX_MS : ms);
}

/* FNV-1a: the same name gives the same number on every host. */
static uint32_t number_of(const char *name)
{
    uint32_t h = 2166136261u;

    for (; *name != '\0'; name++)
        h = (h ^ (uint8_t)*name) * 16777619u;
    return h;
}

static void owner_read(struct device *d, uint64_t offset, void *data, unsigned len)
{
    uint32_t regs[2] = { (uint32_t)d->m->epoch, number_of(d->m->storage.host) };

    memcpy(data, (uint8_t *)regs + offset, len);
}

static void write_nothing(struct device *d, uint64_t offset, const void *data, unsigned len)
{
    (void)d;
    (void)offset;
    (void)data;
    (void)len;
}

/* Under the lock. */
static void update_sci(struct port *p)
{
    machine_irq(p->d.m, GSI_SCI, (p->status & p->enable) != 0);
}

static void pm1_read(struct device *d, uint64_t offset, void *data, unsigned len)
{
    struct port *p = port_of(d);
    uint16_t regs[3];

    pthread_mutex_lock(&p->lock);
    regs[0] = p->status;
    regs[1] = p->enable;
    regs[2] = PM1_ACPI_MODE;
    pthread_mutex_unlock(&p->lock);
    memcpy(data, (uint8_t *)regs + offset, len);
}

static void pm1_write(struct device *d, uint64_t offset, const void *data, unsigned len)
{
    struct port *p = port_of(d);
    uint16_t v = 0;

    if (len > sizeof v || offset % 2 != 0)
        return;
    memcpy(&v, data, len);
    if (offset == PORT_PM1_CONTROL - PORT_PM1_EVENT) {
        if ((v & PM1_SLEEP_ENABLE) != 0)
            machine_guest_stopped(d->m, STOP_SHUTDOWN, "power-off");
        return;
    }
    pthread_mutex_lock(&p->lock);
    if (offset == 0)
        p->status &= (uint16_t)~v; /* ones clear */
    else
        p->enable = v;
    update_sci(p);
    pthread_mutex_unlock(&p->lock);
}

static int pm1_save(struct device *d, struct state_writer *w, struct err *e)
{
    (void)e;
    state_section_begin(w, d->ops->name, 1);
    state_put_u32(w, port_of(d)->status);
    state_put_u32(w, port_of(d)->enable);
    state_section_end(w);
    return 0;
}

static int pm1_load(struct device *d, struct state_reader *r, struct err *e)
{
    uint32_t status, enable;

    if (state_get_u32(r, &status, e) < 0 || state_get_u32(r, &enable, e) < 0)
        return -1;
    port_of(d)->status = (uint16_t)status;
    port_of(d)->enable = (uint16_t)enable;
    return state_end(r, e);
}

static void pm1_reset(struct device *d)
{
    port_of(d)->status = 0;
    port_of(d)->enable = 0;
}

#define PLAIN_PORT(title, read, write)                                                             \
    {                                                                                              \
        .name = title, .io_read = read, .io_write = write, .quiesce = nothing, .start = nothing,   \
        .save = save_nothing, .load = load_nothing, .reset = nothing, .free = free_port            \
    }

static const struct device_ops i8042_ops = PLAIN_PORT("i8042", read_zero, i8042_write);
static const struct device_ops reset_ops = PLAIN_PORT("reset", read_zero, reset_write);
static const struct device_ops panic_ops = PLAIN_PORT("panic", panic_read, panic_write);
static const struct device_ops nap_ops = PLAIN_PORT("nap", read_zero, nap_write);
static const struct device_ops owner_ops = PLAIN_PORT("owner", owner_read, write_nothing);
static const struct device_ops pm1_ops = {
    .name = "acpi-pm",
    .io_read = pm1_read,
    .io_write = pm1_write,
    .quiesce = nothing,
    .start = nothing,
    .save = pm1_save,
    .load = pm1_load,
    .reset = pm1_reset,
    .free = free_port,
};

static const struct {
    const struct device_ops *ops;
    uint64_t base, len;
    int irq;
} ports[] = {
    { &i8042_ops, PORT_I8042, 5, -1 },
    { &panic_ops, PORT_PANIC, 1, -1 },
    { &nap_ops, PORT_NAP, 2, -1 },
    { &owner_ops, PORT_OWNER, 8, -1 },
    { &pm1_ops, PORT_PM1_EVENT, 6, GSI_SCI },
    { &reset_ops, PORT_RESET, 1, -1 },
};

int platform_create(struct machine *m, struct err *e)
{
    for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++) {
        struct port *p = calloc(1, sizeof *p);

        if (p == NULL)
            return err_set(e, ERR_MEMORY, "device %s: out of memory", ports[i].ops->name);
        pthread_mutex_init(&p->lock, NULL);
        p->d = (struct device){ .ops = ports[i].ops,
            .pio = true,
            .base = ports[i].base,
            .len = ports[i].len,
            .irq = ports[i].irq };
        if (machine_add_device(m, &p->d, e) < 0) {
            free_port(&p->d);
            return -1;
        }
    }
    return 0;
}

void platform_power_button(struct machine *m)
{
    for (struct device *d = m->devices; d != NULL; d = d->next) {
        struct port *p = port_of(d);

        if (d->ops != &pm1_ops)
            continue;
        pthread_mutex_lock(&p->lock);
        p->status |= PM1_POWER_BUTTON;
        update_sci(p);
        pthread_mutex_unlock(&p->lock);
    }
}
