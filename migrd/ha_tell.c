/* SPDX-License-Identifier: ISC */
/*
 * What the log is told of this host: each copy at start, when it changes, and every HA_SCAN_MS;
 * one that has gone once. Repeated words do no harm, so nothing is compared here; only "gone" needs
 * a memory, the rows. A copy that nobody protects is told as well: it may be protected next.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "migrd/ha_internal.h"

uint64_t ha_copy_epoch(const struct domain *d)
{
    return d->info.state == HV_CRASHED && d->info.domid < 0 ? d->epoch : d->info.epoch;
}

static bool is_busy(const struct domain *d, enum registry_op op)
{
    return d->busy != NULL && strcmp(d->busy, registry_op_name(op)) == 0;
}

static bool begun_by_log(const struct ha *h, const char *uuid)
{
    const struct ha_task *t = ha_task_of(h, uuid, HA_ACT_START);

    return t != NULL && t->begun;
}

static void look(const struct ha *h, const struct domain *d, struct ha_look *l)
{
    *l = (struct ha_look){ .live = d->live,
        .starting = !d->live && is_busy(d, REG_START) && !begun_by_log(h, d->uuid),
        .stopping = ha_task_of(h, d->uuid, HA_ACT_STOP) != NULL,
        .rebooting = is_busy(d, REG_RESTART) || d->last_end == HV_EV_REBOOT,
        .info = &d->info,
        .epoch = d->epoch,
        .last_end = d->last_end,
        .moving = d->mig != NULL,
        .owned = registry_owned(h->m, d) };
}

/* Nobody lights its fuse any more. */
static void look_if_left(const struct ha *h, const struct domain *d, struct ha_row *row)
{
    bool final = false, left;

    left = d->live && d->info.blown && !cluster_is_protected(h->cluster, d->uuid, &final) && final;
    if (left && !row->left)
        log_error("ha",
            "%s: its fuse has stopped it, and the cluster does not protect it any more: if it runs "
            "nowhere else, xm unpause %s lets it go on, else xm destroy %s",
            d->name, d->name, d->name);
    row->left = left;
}

void ha_tell_one(struct ha *h, const struct domain *d)
{
    struct ha_event e;
    struct ha_look l;
    struct ha_row *row;

    look(h, d, &l);
    if (!ha_look_event(&l, &e))
        return;
    row = ha_row(h, d->uuid, true);
    if (row == NULL)
        return;
    row->here = row->seen = true;
    row->epoch = e.u.domain.epoch;
    look_if_left(h, d, row);
    snprintf(e.u.domain.uuid, sizeof e.u.domain.uuid, "%s", d->uuid);
    cluster_domain(h->cluster, &e);
}

static void tell_gone(struct ha *h, struct ha_row *row)
{
    struct ha_event e = { .type = HA_EV_DOMAIN };

    row->here = false;
    e.u.domain.seen = HA_SEEN_GONE;
    e.u.domain.epoch = row->epoch;
    snprintf(e.u.domain.uuid, sizeof e.u.domain.uuid, "%s", row->uuid);
    cluster_domain(h->cluster, &e);
}

/* A row is kept for what was told, and for a fuse that a copy may still want. */
static bool needed(const struct ha *h, const struct ha_row *row)
{
    return row->here || (row->fuse_epoch != 0 && cluster_is_protected(h->cluster, row->uuid, NULL));
}

static void sweep(struct ha *h)
{
    for (struct ha_row **p = &h->rows; *p != NULL;) {
        struct ha_row *row = *p;

        if (needed(h, row)) {
            p = &row->next;
            continue;
        }
        *p = row->next;
        free(row);
    }
}

void ha_tell(struct ha *h)
{
    for (struct ha_row *row = h->rows; row != NULL; row = row->next)
        row->seen = false;
    for (struct domain *d = registry_first(h->m->registry); d != NULL; d = d->next)
        ha_tell_one(h, d);
    for (struct ha_row *row = h->rows; row != NULL; row = row->next)
        if (row->here && !row->seen)
            tell_gone(h, row);
    sweep(h);
}

/* Memory that the host keeps for itself is nobody's. Huge pages are not counted, nor is what runs
 * on them. */
void ha_tell_host(struct ha *h)
{
    const struct migrd *m = h->m;
    uint64_t total = m->caps.memory_total_kib - m->caps.host_kib, others = 0;

    total = total > registry_kept(m) ? total - registry_kept(m) : 0;
    for (const struct domain *d = registry_first(m->registry); d != NULL; d = d->next)
        if (d->live && d->live_def != NULL && !d->live_def->huge_pages &&
            !cluster_is_protected(h->cluster, d->uuid, NULL))
            others += d->live_def->memory_kib;
    if (h->memory_kib == total && h->others_kib == others)
        return;
    h->memory_kib = total;
    h->others_kib = others;
    cluster_capacity(h->cluster, total, m->caps.host_cpus, others);
}

/* --- the journal --- */

/* At once in memory, so that it is written once. */
static void note_owner(struct ha *h, struct domain *d, const Migrd__HaDomain *rec)
{
    const struct migration_owner own = { .uuid = d->uuid,
        .name = d->name,
        .host = ha_node_text(h, rec->owner),
        .epoch = rec->epoch,
        .why = "the cluster's log",
        .decided = true };
    struct err e;

    if (migration_set_owner(h->m, &own, NULL, NULL, &e) < 0)
        log_warn("ha", "%s", e.text);
    else
        registry_set_owner(h->m, d, own.host, own.epoch);
}

void ha_note_owners(struct ha *h)
{
    uint32_t own = cluster_own_id(h->cluster);

    for (struct domain *d = registry_first(h->m->registry); d != NULL; d = d->next) {
        const Migrd__HaDomain *rec = cluster_find(h->cluster, d->uuid);

        if (rec != NULL && rec->owner != 0 && rec->owner != own && rec->epoch > d->epoch &&
            !d->live && d->busy == NULL && d->mig == NULL)
            note_owner(h, d, rec);
    }
}
