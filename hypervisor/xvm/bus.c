/* SPDX-License-Identifier: ISC */
/*
 * The two buses, ports and memory-mapped I/O: a list of devices, a dozen at most, so
 * it is simply walked. An access belongs to the device that its first byte lies in and
 * must end there; a device never sees an offset beyond its length.
 */
#include "hypervisor/xvm/machine_internal.h"

static bool overlap(const struct device *a, const struct device *b)
{
    return a->pio == b->pio && a->base < b->base + b->len && b->base < a->base + a->len;
}

int machine_add_device(struct machine *m, struct device *d, struct err *e)
{
    struct device **tail = &m->devices;

    for (; *tail != NULL; tail = &(*tail)->next)
        if (overlap(*tail, d))
            return err_set(e, ERR_INTERNAL, "device %s: its addresses are taken by %s",
                d->ops->name, (*tail)->ops->name);
    d->m = m;
    d->next = NULL;
    *tail = d;
    return 0;
}

static struct device *find(struct machine *m, bool pio, uint64_t addr, unsigned len)
{
    for (struct device *d = m->devices; d != NULL; d = d->next)
        if (d->pio == pio && addr >= d->base && addr - d->base < d->len)
            return len <= d->len - (addr - d->base) ? d : NULL;
    return NULL;
}

bool bus_read(struct machine *m, bool pio, uint64_t addr, void *data, unsigned len)
{
    struct device *d = find(m, pio, addr, len);

    if (d != NULL)
        d->ops->io_read(d, addr - d->base, data, len);
    return d != NULL;
}

bool bus_write(struct machine *m, bool pio, uint64_t addr, const void *data, unsigned len)
{
    struct device *d = find(m, pio, addr, len);

    if (d != NULL)
        d->ops->io_write(d, addr - d->base, data, len);
    return d != NULL;
}
