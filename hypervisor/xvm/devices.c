/* SPDX-License-Identifier: ISC */
/*
 * devices: the explicit list of what a domain's machine has. Slots of virtio-mmio go
 * to disks, vifs, rng and balloon in this order, without gaps, so the same definition
 * gives the same machine on both hosts of a migration. Serial first: what a later
 * device has to say about its start finds a console.
 */
#include "hypervisor/xvm/machine.h"

/* The next slot, or -1 when all are taken. */
static int take_slot(struct machine *m, unsigned *next, struct err *e)
{
    if (*next >= VIRTIO_MMIO_SLOTS)
        return err_set(e, ERR_RESOURCE,
            "domain %s: more than %u virtio devices; remove disks or vifs from its definition",
            machine_def(m)->name, VIRTIO_MMIO_SLOTS);
    return (int)(*next)++;
}

static int create_disks(struct machine *m, bool incoming, unsigned *next, struct err *e)
{
    const Migrd__Domain *def = machine_def(m);

    for (size_t i = 0; i < def->n_disks; i++) {
        int slot = take_slot(m, next, e);

        if (slot < 0 || virtio_blk_create(m, (unsigned)slot, def->disks[i], incoming, e) < 0)
            return -1;
    }
    return 0;
}

static int create_vifs(struct machine *m, unsigned *next, struct err *e)
{
    const Migrd__Domain *def = machine_def(m);

    for (size_t i = 0; i < def->n_vifs; i++) {
        int slot = take_slot(m, next, e);

        if (slot < 0 || virtio_net_create(m, (unsigned)slot, def->vifs[i], (unsigned)i, e) < 0)
            return -1;
    }
    return 0;
}

static int create_extras(struct machine *m, unsigned *next, struct err *e)
{
    const Migrd__Domain *def = machine_def(m);
    int slot;

    if (def->rng) {
        slot = take_slot(m, next, e);
        if (slot < 0 || virtio_rng_create(m, (unsigned)slot, e) < 0)
            return -1;
    }
    if (def->balloon) {
        slot = take_slot(m, next, e);
        if (slot < 0 || virtio_balloon_create(m, (unsigned)slot, e) < 0)
            return -1;
    }
    return 0;
}

int devices_create(struct machine *m, bool incoming, struct err *e)
{
    unsigned next = 0;

    if (serial_create(m, e) < 0 || create_disks(m, incoming, &next, e) < 0 ||
        create_vifs(m, &next, e) < 0 || create_extras(m, &next, e) < 0)
        return -1;
    return 0;
}
