/* SPDX-License-Identifier: ISC */
/* Made by malloc throughout, so that protobuf-c frees it. */
#include "hypervisor/xvm/figures.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* NULL: out of memory. */
static void *copy_of(const void *data, size_t len)
{
    void *p = malloc(len);

    return p != NULL ? memcpy(p, data, len) : NULL;
}

static Migrd__Xvm__Reply *reply_new(void)
{
    static const Migrd__Xvm__Reply empty = MIGRD__XVM__REPLY__INIT;

    return copy_of(&empty, sizeof empty);
}

/* Of what is not whole. */
static Migrd__Xvm__Reply *drop(Migrd__Xvm__Reply *r)
{
    if (r != NULL)
        migrd__xvm__reply__free_unpacked(r, NULL);
    return NULL;
}

/* --- vCPUs --- */

static Migrd__Xvm__Vcpu *vcpu_new(const struct vcpu *v)
{
    Migrd__Xvm__Vcpu out = MIGRD__XVM__VCPU__INIT;
    struct hv_vcpu now;

    vcpu_look(v, &now);
    out.tid = (uint32_t)v->tid;
    out.state = now.state;
    out.cpu_ns = now.cpu_ns;
    out.cpu = now.cpu;
    out.n_allowed = sizeof now.allowed.word / sizeof now.allowed.word[0];
    out.allowed = copy_of(now.allowed.word, sizeof now.allowed.word);
    return out.allowed != NULL ? copy_of(&out, sizeof out) : NULL;
}

Migrd__Xvm__Reply *figures_vcpus(struct machine *m)
{
    Migrd__Xvm__Reply *r = reply_new();

    if (r == NULL || (r->vcpus = calloc(m->n_vcpus, sizeof(void *))) == NULL)
        return drop(r);
    for (; r->n_vcpus < m->n_vcpus; r->n_vcpus++)
        if ((r->vcpus[r->n_vcpus] = vcpu_new(&m->vcpu[r->n_vcpus])) == NULL)
            return drop(r);
    return r;
}

/* --- memory, disks, vifs --- */

static Migrd__Xvm__DiskStats *disk_new(const struct hv_disk_stats *s)
{
    Migrd__Xvm__DiskStats out = MIGRD__XVM__DISK_STATS__INIT;

    out.device = strdup(s->device);
    out.source = strdup(s->source);
    out.rd_ops = s->rd_ops;
    out.rd_bytes = s->rd_bytes;
    out.wr_ops = s->wr_ops;
    out.wr_bytes = s->wr_bytes;
    out.flush_ops = s->flush_ops;
    out.errors = s->errors;
    return out.device != NULL && out.source != NULL ? copy_of(&out, sizeof out) : NULL;
}

static Migrd__Xvm__VifStats *vif_new(const struct hv_vif_stats *s)
{
    Migrd__Xvm__VifStats out = MIGRD__XVM__VIF_STATS__INIT;

    out.ifname = strdup(s->ifname);
    out.mac = strdup(s->mac);
    out.rx_bytes = s->rx_bytes;
    out.rx_packets = s->rx_packets;
    out.rx_errors = s->rx_errors;
    out.rx_drops = s->rx_drops;
    out.tx_bytes = s->tx_bytes;
    out.tx_packets = s->tx_packets;
    out.tx_errors = s->tx_errors;
    out.tx_drops = s->tx_drops;
    return out.ifname != NULL && out.mac != NULL ? copy_of(&out, sizeof out) : NULL;
}

static bool add_disks(struct machine *m, Migrd__Xvm__Stats *s)
{
    struct hv_disk_stats *list = calloc(HV_STAT_DEVICES, sizeof *list);
    unsigned n = list != NULL ? virtio_blk_stats(m, list, HV_STAT_DEVICES) : 0;
    bool ok = list != NULL && (s->disks = calloc(HV_STAT_DEVICES, sizeof(void *))) != NULL;

    for (unsigned i = 0; ok && i < n; i++, s->n_disks += ok)
        ok = (s->disks[i] = disk_new(&list[i])) != NULL;
    free(list);
    return ok;
}

static bool add_vifs(struct machine *m, Migrd__Xvm__Stats *s)
{
    struct hv_vif_stats *list = calloc(HV_STAT_DEVICES, sizeof *list);
    unsigned n = list != NULL ? virtio_net_stats(m, list, HV_STAT_DEVICES) : 0;
    bool ok = list != NULL && (s->vifs = calloc(HV_STAT_DEVICES, sizeof(void *))) != NULL;

    for (unsigned i = 0; ok && i < n; i++, s->n_vifs += ok)
        ok = (s->vifs[i] = vif_new(&list[i])) != NULL;
    free(list);
    return ok;
}

Migrd__Xvm__Reply *figures_stats(struct machine *m)
{
    static const Migrd__Xvm__Stats empty = MIGRD__XVM__STATS__INIT;
    uint64_t balloon = m->def->balloon ? virtio_balloon_now(m) : 0;
    Migrd__Xvm__Reply *r = reply_new();

    if (r == NULL || (r->stats = copy_of(&empty, sizeof empty)) == NULL)
        return drop(r);
    r->stats->actual_kib = balloon != 0 ? balloon : m->ram_len >> 10;
    r->stats->rss_kib = ram_populated_kib(m);
    return add_disks(m, r->stats) && add_vifs(m, r->stats) ? r : drop(r);
}
