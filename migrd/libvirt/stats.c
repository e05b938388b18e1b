/* SPDX-License-Identifier: ISC */
/*
 * Procedures that give what the devices of a running domain have counted, and its memory. A disk is
 * known by its name in the guest or by its source, all disks together by ""; a vif by its tap or
 * its MAC.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "migrd/domain_figures.h"
#include "migrd/libvirt/internal.h"

#define TYPED_STRING_OKAY 4
#define DISK_FIGURES 6

enum memory_tag { MEM_UNUSED = 4, MEM_ACTUAL = 6, MEM_RSS = 7 };
#define MEMORY_FIGURES 3

static int ask(struct lv_call *k, const lv_dom *dom, figures_done *done, struct err *e)
{
    struct domain *d = lv_domain(k, dom, e);

    if (d == NULL)
        return -1;
    return figures_ask(k->m, d, FIGURES_STATS, done, k, e) < 0 ? -1 : LV_LATER;
}

/* --- disks --- */

static void add(struct hv_disk_stats *sum, const struct hv_disk_stats *d)
{
    sum->rd_ops += d->rd_ops;
    sum->rd_bytes += d->rd_bytes;
    sum->wr_ops += d->wr_ops;
    sum->wr_bytes += d->wr_bytes;
    sum->flush_ops += d->flush_ops;
    sum->errors += d->errors;
}

static int find_disk(struct lv_call *k, const struct hv_stats *s, const char *path,
    struct hv_disk_stats *out, struct err *e)
{
    bool found = path[0] == '\0';

    memset(out, 0, sizeof *out);
    for (unsigned i = 0; i < s->n_disks; i++) {
        const struct hv_disk_stats *d = &s->disk[i];

        if (path[0] != '\0' && strcmp(path, d->device) != 0 && strcmp(path, d->source) != 0)
            continue;
        add(out, d);
        found = true;
    }
    return found ? 0 : lv_fail(k, e, LV_E_INVALID_ARG, "invalid path: %.200s", path);
}

static void disk_known(void *call, const struct domain_figures *f, const struct err *e)
{
    struct lv_call *k = call;
    struct hv_disk_stats d;
    lv_disk_stats r;
    struct err why = *e;
    int result = e->code == ERR_NONE ? 0 : -1;

    if (result == 0)
        result = find_disk(k, f->stats, ((const lv_dom_path *)k->args)->path, &d, &why);
    if (result == 0)
        r = (lv_disk_stats){ (quad_t)d.rd_ops, (quad_t)d.rd_bytes, (quad_t)d.wr_ops,
            (quad_t)d.wr_bytes, (quad_t)d.errors };
    lv_call_finish(k, result, &r, &why);
}

int lv_get_disk_stats(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)ret;
    return ask(k, &((const lv_dom_path *)args)->dom, disk_known, e);
}

static int put_disk(
    const struct hv_disk_stats *d, unsigned room, struct lv_params *list, struct err *e)
{
    if (lv_params_start(list, room < DISK_FIGURES ? room : DISK_FIGURES, e) < 0)
        return -1;
    lv_put_llong(list, "rd_operations", d->rd_ops);
    lv_put_llong(list, "rd_bytes", d->rd_bytes);
    lv_put_llong(list, "wr_operations", d->wr_ops);
    lv_put_llong(list, "wr_bytes", d->wr_bytes);
    lv_put_llong(list, "flush_operations", d->flush_ops);
    lv_put_llong(list, "errs", d->errors);
    return 0;
}

static void disk_known_flags(void *call, const struct domain_figures *f, const struct err *e)
{
    struct lv_call *k = call;
    const lv_disk_stats_args *a = k->args;
    struct lv_params list = { 0 };
    struct hv_disk_stats d;
    lv_param_count r = { .n = 0 };
    struct err why = *e;
    int result = e->code == ERR_NONE ? 0 : -1;

    if (result == 0)
        result = find_disk(k, f->stats, a->path, &d, &why);
    if (result == 0)
        result = put_disk(&d, (unsigned)a->n, &list, &why);
    r.n = (int)list.len;
    r.params.params_len = list.len;
    r.params.params_val = list.val;
    lv_call_finish(k, result, &r, &why);
    lv_params_free(&list);
}

/* Without room it is asked how much there is. */
static void disk_counted(void *call, const struct domain_figures *f, const struct err *e)
{
    struct lv_call *k = call;
    lv_param_count r = { .n = DISK_FIGURES };
    struct hv_disk_stats d;
    struct err why = *e;
    int result = e->code == ERR_NONE ? 0 : -1;

    if (result == 0)
        result = find_disk(k, f->stats, ((const lv_disk_stats_args *)k->args)->path, &d, &why);
    lv_call_finish(k, result, &r, &why);
}

int lv_get_disk_stats_flags(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_disk_stats_args *a = args;

    (void)ret;
    if (lv_check_flags(k, a->flags, TYPED_STRING_OKAY, e) < 0)
        return -1;
    if (a->n < 0)
        return lv_fail(k, e, LV_E_INVALID_ARG, "room for %d figures: it cannot be negative", a->n);
    return ask(k, &a->dom, a->n == 0 ? disk_counted : disk_known_flags, e);
}

/* --- vifs --- */

static const struct hv_vif_stats *find_vif(const struct hv_stats *s, const char *device)
{
    for (unsigned i = 0; i < s->n_vifs; i++)
        if (strcmp(device, s->vif[i].ifname) == 0 || strcasecmp(device, s->vif[i].mac) == 0)
            return &s->vif[i];
    return NULL;
}

static void vif_known(void *call, const struct domain_figures *f, const struct err *e)
{
    struct lv_call *k = call;
    const char *device = ((const lv_dom_path *)k->args)->path;
    const struct hv_vif_stats *v = NULL;
    lv_vif_stats r = { 0 };
    struct err why = *e;
    int result = e->code == ERR_NONE ? 0 : -1;

    if (result == 0 && (v = find_vif(f->stats, device)) == NULL)
        result = lv_fail(k, &why, LV_E_INVALID_ARG,
            "'%.64s' is not a known interface; virsh domiflist tells them", device);
    if (v != NULL)
        r = (lv_vif_stats){ (quad_t)v->rx_bytes, (quad_t)v->rx_packets, (quad_t)v->rx_errors,
            (quad_t)v->rx_drops, (quad_t)v->tx_bytes, (quad_t)v->tx_packets, (quad_t)v->tx_errors,
            (quad_t)v->tx_drops };
    lv_call_finish(k, result, &r, &why);
}

int lv_get_vif_stats(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)ret;
    return ask(k, &((const lv_dom_path *)args)->dom, vif_known, e);
}

/* --- memory --- */

static void memory_known(void *call, const struct domain_figures *f, const struct err *e)
{
    struct lv_call *k = call;
    unsigned room = ((const lv_dom_count_flags *)k->args)->n, n = 0;
    lv_memory_stat list[MEMORY_FIGURES];
    lv_memory_stats r;

    if (e->code == ERR_NONE) {
        list[n++] = (lv_memory_stat){ MEM_ACTUAL, f->stats->actual_kib };
        list[n++] = (lv_memory_stat){ MEM_RSS, f->stats->rss_kib };
        if (f->stats->unused_kib != HV_UNKNOWN)
            list[n++] = (lv_memory_stat){ MEM_UNUSED, f->stats->unused_kib };
    }
    r.stats.stats_len = n < room ? n : room;
    r.stats.stats_val = list;
    lv_call_finish(k, e->code == ERR_NONE ? 0 : -1, &r, e);
}

int lv_get_memory_stats(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_count_flags *a = args;

    (void)ret;
    if (lv_check_flags(k, a->flags, 0, e) < 0)
        return -1;
    return ask(k, &a->dom, memory_known, e);
}
