/* SPDX-License-Identifier: ISC */
/*
 * One device of a definition comes, goes or changes. It is read, as one of a domain is, behind
 * the devices that a copy of the definition has, and then takes its place there: stays (attach),
 * goes with the one that it means (detach), or replaces it (update). A disk is known by its name
 * in the guest, an interface by its MAC address, or as the only one that what is said of it fits;
 * random number generator and balloon are there or not.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "migrd/define/internal.h"

#define NONE ((size_t)-1)

struct change {
    struct reader r; /* r.d: the copy */
    const Migrd__Domain *before;
    enum define_change how;
};

/* --- lists --- */

/* The new one is the last of list; `at` is the one that it means, NONE: there is none such. The
 * one to be freed then is the last. */
static void settle(enum define_change how, void **list, size_t n, size_t at)
{
    void *old = list[at];

    if (how == DEFINE_UPDATE) {
        list[at] = list[n - 1];
        list[n - 1] = old;
    } else {
        memmove(&list[at], &list[at + 1], (n - 2 - at) * sizeof *list);
        list[n - 2] = old;
    }
}

static void drop_last_disk(Migrd__Domain *d)
{
    migrd__disk__free_unpacked(d->disks[--d->n_disks], NULL);
}

static void drop_last_vif(Migrd__Domain *d)
{
    migrd__vif__free_unpacked(d->vifs[--d->n_vifs], NULL);
}

/* --- disks --- */

static int change_disk(struct change *c)
{
    Migrd__Domain *d = c->r.d;
    const Migrd__Disk *k = d->disks[d->n_disks - 1];
    size_t at = NONE;

    for (size_t i = 0; i + 1 < d->n_disks; i++)
        if (strcmp(d->disks[i]->device, k->device) == 0)
            at = i;
    if (c->how == DEFINE_ATTACH)
        return at == NONE ? 0
                          : err_set(c->r.e, ERR_EXISTS, "domain %s has a disk %s already: %.100s",
                                d->name, k->device, d->disks[at]->source);
    if (at == NONE)
        return err_set(c->r.e, ERR_NOT_FOUND, "domain %s has no disk %s", d->name, k->device);
    if (k->source[0] != '\0' && c->how == DEFINE_DETACH &&
        strcmp(k->source, d->disks[at]->source) != 0)
        return err_set(c->r.e, ERR_NOT_FOUND, "disk %s of domain %s is %.100s, not %.100s",
            k->device, d->name, d->disks[at]->source, k->source);
    settle(c->how, (void **)d->disks, d->n_disks, at);
    if (c->how == DEFINE_DETACH)
        drop_last_disk(d);
    drop_last_disk(d);
    return 0;
}

/* --- interfaces --- */

/* What is said of it fits; with an address, nothing else matters. */
static bool vif_fits(const Migrd__Vif *said, const Migrd__Vif *v)
{
    if (said->mac[0] != '\0')
        return strcasecmp(said->mac, v->mac) == 0;
    return (said->bridge[0] == '\0' || strcmp(said->bridge, v->bridge) == 0) &&
           (said->ifname[0] == '\0' || strcmp(said->ifname, v->ifname) == 0);
}

static int find_vif(struct change *c, const Migrd__Vif *said, size_t *at)
{
    const Migrd__Domain *d = c->r.d;
    size_t fits = 0;

    for (size_t i = 0; i + 1 < d->n_vifs; i++)
        if (vif_fits(said, d->vifs[i])) {
            *at = i;
            fits++;
        }
    if (fits == 1)
        return 0;
    if (fits > 1)
        return err_set(c->r.e, ERR_INVALID,
            "domain %s has %zu such interfaces; say which by its <mac>", d->name, fits);
    return err_set(c->r.e, ERR_NOT_FOUND, "domain %s has no interface with MAC address %.20s",
        d->name, said->mac[0] != '\0' ? said->mac : "(none is given)");
}

static int change_vif(struct change *c)
{
    Migrd__Domain *d = c->r.d;
    Migrd__Vif *v = d->vifs[d->n_vifs - 1];
    size_t at = NONE;

    if (c->how == DEFINE_ATTACH) {
        for (size_t i = 0; i + 1 < d->n_vifs; i++)
            if (v->mac[0] != '\0' && strcasecmp(d->vifs[i]->mac, v->mac) == 0)
                return err_set(c->r.e, ERR_EXISTS,
                    "domain %s has an interface with MAC address %s already", d->name, v->mac);
        return 0;
    }
    if (find_vif(c, v, &at) < 0)
        return -1;
    if (c->how == DEFINE_UPDATE && v->mac[0] == '\0' &&
        define_text(&c->r, &v->mac, d->vifs[at]->mac) < 0)
        return -1;
    settle(c->how, (void **)d->vifs, d->n_vifs, at);
    if (c->how == DEFINE_DETACH)
        drop_last_vif(d);
    drop_last_vif(d);
    return 0;
}

/* --- what is there or not --- */

static int change_switch(struct change *c, const char *what, bool had, protobuf_c_boolean *now)
{
    if (c->how == DEFINE_ATTACH && had && *now)
        return err_set(c->r.e, ERR_EXISTS, "domain %s has a %s already", c->r.d->name, what);
    if (c->how == DEFINE_DETACH && !had)
        return err_set(c->r.e, ERR_NOT_FOUND, "domain %s has no %s", c->r.d->name, what);
    if (c->how == DEFINE_DETACH)
        *now = false;
    return 0;
}

static int apply(struct change *c)
{
    if (c->r.d->n_disks > c->before->n_disks)
        return change_disk(c);
    if (c->r.d->n_vifs > c->before->n_vifs)
        return change_vif(c);
    if (c->r.rng_set)
        return change_switch(c, "random number generator", c->before->rng, &c->r.d->rng);
    if (c->r.balloon_set)
        return change_switch(c, "balloon", c->before->balloon, &c->r.d->balloon);
    return err_set(c->r.e, ERR_UNSUPPORTED,
        "%s: a device of this kind cannot come or go; a domain has it by itself", c->r.file);
}

Migrd__Domain *define_change_device(
    const Migrd__Domain *d, const char *xml, size_t len, enum define_change how, struct err *e)
{
    struct change c = {
        .r = { .file = "device", .e = e, .partial = how == DEFINE_DETACH },
        .before = d,
        .how = how,
    };

    c.r.d = define_copy(d);
    if (c.r.d == NULL) {
        define_no_memory(&c.r);
        return NULL;
    }
    if (define_read_xml_device(&c.r, xml, len) == 0 && apply(&c) == 0) {
        c.r.balloon_set = true; /* it is what it is */
        if (define_fill(&c.r) == 0 && define_check(c.r.d, e) == 0)
            return c.r.d;
    }
    migrd__domain__free_unpacked(c.r.d, NULL);
    return NULL;
}
