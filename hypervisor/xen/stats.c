/* SPDX-License-Identifier: ISC */
/*
 * Figures of disks and vifs are those of the backends in domain 0: blkback's in sysfs, of
 * devices that a program serves (QEMU) none; a vif's are those of its network device, whose
 * rx is what the guest sent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "hypervisor/xen/xen_internal.h"

#define FIGURE_MAX 32u
#define SECTOR 512u
#define KIB_PER_PAGE (HV_PAGE_SIZE / 1024)

static uint64_t figure(const char *dir, const char *name)
{
    char path[256], *text;
    uint64_t n = 0;

    snprintf(path, sizeof path, "%s/statistics/%s", dir, name);
    text = io_read_file(path, FIGURE_MAX, NULL, NULL);
    if (text != NULL)
        n = strtoull(text, NULL, 10);
    free(text);
    return n;
}

static void disk_figures(
    struct hv *hv, const char *backend, uint32_t domid, const char *id, struct hv_disk_stats *out)
{
    char dir[160];

    memset(out, 0, sizeof *out);
    xen_store_read(hv->xs, out->device, sizeof out->device, "%s/dev", backend);
    xen_store_read(hv->xs, out->source, sizeof out->source, "%s/params", backend);
    snprintf(dir, sizeof dir, "/sys/bus/xen-backend/devices/vbd-%u-%.32s", domid, id);
    out->rd_ops = figure(dir, "rd_req");
    out->wr_ops = figure(dir, "wr_req");
    out->flush_ops = figure(dir, "f_req");
    out->rd_bytes = figure(dir, "rd_sect") * SECTOR;
    out->wr_bytes = figure(dir, "wr_sect") * SECTOR;
}

static void vif_figures(
    struct hv *hv, const char *backend, uint32_t domid, const char *id, struct hv_vif_stats *out)
{
    char dir[160];

    memset(out, 0, sizeof *out);
    xen_store_read(hv->xs, out->ifname, sizeof out->ifname, "%s/vifname", backend);
    if (out->ifname[0] == '\0')
        snprintf(out->ifname, sizeof out->ifname, "vif%u.%.5s", domid, id);
    xen_store_read(hv->xs, out->mac, sizeof out->mac, "%s/mac", backend);
    snprintf(dir, sizeof dir, "/sys/class/net/%s", out->ifname);
    out->rx_bytes = figure(dir, "tx_bytes");
    out->rx_packets = figure(dir, "tx_packets");
    out->rx_errors = figure(dir, "tx_errors");
    out->rx_drops = figure(dir, "tx_dropped");
    out->tx_bytes = figure(dir, "rx_bytes");
    out->tx_packets = figure(dir, "rx_packets");
    out->tx_errors = figure(dir, "rx_errors");
    out->tx_drops = figure(dir, "rx_dropped");
}

/* Of the devices of one kind ("vbd", "vif"), in the order of xenstore. */
static void all_devices(struct hv *hv, uint32_t domid, const char *kind, struct hv_stats *out)
{
    bool disks = kind[1] == 'b';
    unsigned *n = disks ? &out->n_disks : &out->n_vifs, count = 0;
    char path[XEN_PATH_LEN], backend[XEN_PATH_LEN];
    char **ids;

    snprintf(path, sizeof path, "/local/domain/%u/device/%s", domid, kind);
    ids = xs_directory(hv->xs, XBT_NULL, path, &count);
    for (unsigned i = 0; ids != NULL && i < count && *n < HV_STAT_DEVICES; i++) {
        xen_store_read(hv->xs, backend, sizeof backend, "%s/%s/backend", path, ids[i]);
        if (backend[0] == '\0')
            continue;
        if (disks)
            disk_figures(hv, backend, domid, ids[i], &out->disk[*n]);
        else
            vif_figures(hv, backend, domid, ids[i], &out->vif[*n]);
        ++*n;
    }
    free(ids);
}

int xen_stats(struct hv *hv, const char *uuid, struct hv_stats *out, struct err *e)
{
    xc_domaininfo_t d;

    if (xen_find(hv, uuid, &d, e) < 0)
        return -1;
    memset(out, 0, sizeof *out);
    out->actual_kib = out->rss_kib = d.tot_pages * KIB_PER_PAGE;
    out->unused_kib = HV_UNKNOWN;
    all_devices(hv, d.domain, "vbd", out);
    all_devices(hv, d.domain, "vif", out);
    return 0;
}
