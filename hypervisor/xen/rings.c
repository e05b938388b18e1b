/* SPDX-License-Identifier: ISC */
/*
 * The disks of a guest that stands still: its backends go on with what is in their rings, and a
 * write that reaches the storage after the guest runs elsewhere would undo a newer one. A ring's
 * page (xen/io/ring.h) begins with req_prod, req_event, rsp_prod, rsp_event, 32 bits each; all is
 * answered when req_prod == rsp_prod. The guest has granted the page to its backend's domain, which
 * is this one, so it can be mapped here as well; where it is stands in the frontend's folder:
 *
 *   device/vbd/N/ring-ref                              a ring of one page
 *   device/vbd/N/ring-ref0, ...                        of several: the first has the counters
 *   device/vbd/N/multi-queue-num-queues, queue-Q/...   several rings
 *
 * All of that is the guest's to write: who lies there only ends the migration of himself.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <xen/io/xenbus.h>

#include "base/clock.h"
#include "base/log.h"
#include "hypervisor/xen/mig_internal.h"

#define DRAIN_MS 3000
#define POLL_US 500
#define DISKS_MAX 256
#define QUEUES_MAX 64

enum { REQ_PROD = 0, RSP_PROD = 2 };

/* In the page's own words; the guest stands still, its backend writes. */
static unsigned unanswered(const volatile uint32_t *ring)
{
    return ring[REQ_PROD] - ring[RSP_PROD];
}

static int drain(const struct hv_mig *m, const uint32_t *ring, const char *disk, uint64_t deadline,
    struct err *e)
{
    while (unanswered(ring) != 0) {
        if (clock_ns() >= deadline)
            return err_set(e, ERR_TIMEOUT,
                "domain %s: disk %s: %u requests of the guest are without an answer for %d s: does "
                "its storage answer?",
                m->uuid, disk, unanswered(ring), DRAIN_MS / 1000);
        usleep(POLL_US);
    }
    return 0;
}

static int drain_ref(
    struct hv_mig *m, uint32_t ref, const char *disk, uint64_t deadline, struct err *e)
{
    uint32_t *ring = xengnttab_map_grant_ref(m->grants, m->domid, ref, PROT_READ);
    int r;

    if (ring == NULL)
        return err_sys(e, "domain %s: disk %s: mapping its ring", m->uuid, disk);
    r = drain(m, ring, disk, deadline, e);
    xengnttab_unmap(m->grants, ring, 1);
    return r;
}

static unsigned long read_number(struct hv_mig *m, const char *disk, const char *name, bool *there)
{
    char text[32];

    xen_store_read(
        m->xs, text, sizeof text, "/local/domain/%u/device/vbd/%s/%s", m->domid, disk, name);
    *there = text[0] != '\0';
    return strtoul(text, NULL, 10);
}

static int drain_queue(
    struct hv_mig *m, const char *disk, const char *prefix, uint64_t deadline, struct err *e)
{
    static const char *const names[] = { "ring-ref", "ring-ref0" };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char name[48];
        unsigned long ref;
        bool there;

        snprintf(name, sizeof name, "%s%s", prefix, names[i]);
        ref = read_number(m, disk, name, &there);
        if (there)
            return drain_ref(m, (uint32_t)ref, disk, deadline, e);
    }
    return 0;
}

static int drain_disk(struct hv_mig *m, const char *disk, uint64_t deadline, struct err *e)
{
    unsigned long queues;
    bool there;

    if (read_number(m, disk, "state", &there) != XenbusStateConnected)
        return 0;
    queues = read_number(m, disk, "multi-queue-num-queues", &there);
    if (queues <= 1)
        return drain_queue(m, disk, "", deadline, e);
    for (unsigned long q = 0; q < queues && q < QUEUES_MAX; q++) {
        char prefix[32];

        snprintf(prefix, sizeof prefix, "queue-%lu/", q);
        if (drain_queue(m, disk, prefix, deadline, e) < 0)
            return -1;
    }
    return 0;
}

int xen_rings_drain(struct hv_mig *m, struct err *e)
{
    uint64_t deadline = clock_ns() + DRAIN_MS * NS_PER_MS;
    char path[XEN_PATH_LEN], **disks;
    unsigned n = 0;
    int r = 0;

    if (m->grants == NULL)
        return 0;
    snprintf(path, sizeof path, "/local/domain/%u/device/vbd", m->domid);
    disks = xs_directory(m->xs, XBT_NULL, path, &n);
    for (unsigned i = 0; disks != NULL && r == 0 && i < n && i < DISKS_MAX; i++)
        r = drain_disk(m, disks[i], deadline, e);
    free(disks);
    return r;
}

void xen_rings_open(struct hv_mig *m)
{
    m->grants = xengnttab_open(NULL, 0);
    if (m->grants == NULL)
        log_warn("xen",
            "/dev/xen/gntdev: %m; a write of a guest that is under way when it stops cannot be "
            "waited for; load xen-gntdev");
}

void xen_rings_close(struct hv_mig *m)
{
    if (m->grants != NULL)
        xengnttab_close(m->grants);
}
