/* SPDX-License-Identifier: ISC */
/*
 * vCPUs and the scheduler's shares. Pins, weight and cap are Xen's; they are kept in the
 * domain's definition (folder.h) as well, which goes with it when it moves.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "hypervisor/xen/folder.h"
#include "hypervisor/xen/shares.h"
#include "hypervisor/xen/xen_internal.h"

#define LOCK_MS 5000

/* --- sets of CPUs --- */

/* Xen's maps have a byte for each eight CPUs that there can be. */
static void from_map(const uint8_t *map, int bytes, struct hv_cpus *out)
{
    memset(out, 0, sizeof *out);
    for (int i = 0; i < bytes && i < (int)sizeof out->word; i++)
        out->word[i / 8] |= (uint64_t)map[i] << (i % 8 * 8);
}

static void to_map(const struct hv_cpus *cpus, uint8_t *map, int bytes)
{
    for (int i = 0; i < bytes && i < (int)sizeof cpus->word; i++)
        map[i] = (uint8_t)(cpus->word[i / 8] >> (i % 8 * 8));
}

/* CPUs that the host has not, where none of those that are allowed is missing: any. */
static void widen(struct hv_cpus *c, int host_cpus)
{
    for (int i = 0; i < host_cpus; i++)
        if (!hv_cpus_has(c, (unsigned)i))
            return;
    memset(c, 0xff, sizeof *c);
}

/* --- vCPUs --- */

static int read_vcpu(
    xc_interface *xc, uint32_t domid, unsigned v, xc_cpumap_t map, int cpus, struct hv_vcpu *out)
{
    xc_vcpuinfo_t i;

    if (xc_vcpu_getinfo(xc, domid, v, &i) < 0 ||
        xc_vcpu_getaffinity(xc, domid, (int)v, map, NULL, XEN_VCPUAFFINITY_HARD) < 0)
        return -1;
    out->state = !i.online ? HV_VCPU_OFFLINE : i.blocked ? HV_VCPU_BLOCKED : HV_VCPU_RUNNING;
    out->cpu_ns = i.cpu_time;
    out->cpu = i.online ? (int)i.cpu : -1;
    from_map(map, (cpus + 7) / 8, &out->allowed);
    widen(&out->allowed, cpus);
    return 0;
}

int xen_vcpus(struct hv *hv, const char *uuid, struct hv_vcpu **list, unsigned *n, struct err *e)
{
    xc_domaininfo_t d;
    xc_interface *xc;
    xc_cpumap_t map;
    int cpus, r = 0;

    *list = NULL;
    *n = 0;
    if (xen_find(hv, uuid, &d, e) < 0)
        return -1;
    if (d.max_vcpu_id >= HV_VCPUS_MAX)
        return err_set(
            e, ERR_UNSUPPORTED, "domain %s: it has more than %d vCPUs", uuid, HV_VCPUS_MAX);
    xc = xen_lock(hv);
    cpus = xc_get_max_cpus(xc);
    map = xc_cpumap_alloc(xc);
    *list = calloc(d.max_vcpu_id + 1, sizeof **list);
    if (map == NULL || *list == NULL)
        r = err_set(e, ERR_MEMORY, "out of memory for the list of vCPUs");
    for (unsigned v = 0; r == 0 && v <= d.max_vcpu_id; v++)
        if (read_vcpu(xc, d.domain, v, map, cpus, &(*list)[v]) < 0)
            r = err_sys(e, "domain %s: vCPU %u", uuid, v);
    xen_unlock(hv);
    free(map);
    if (r == 0) {
        *n = d.max_vcpu_id + 1;
        return 0;
    }
    free(*list);
    *list = NULL;
    return -1;
}

/* Changes what `definition` answers. What Xen has counts: that this fails is only said. */
static void note(struct hv *hv, const char *uuid, unsigned vcpu, const struct hv_cpus *cpus,
    const struct hv_sched *sched)
{
    char dir[RUNDIR_LEN], *text = NULL;
    Migrd__Domain *def;
    struct err e;
    int lock, r = 0;

    xen_dir(hv, uuid, dir);
    lock = folder_lock(dir, false, LOCK_MS, &e);
    if (lock < 0 && e.code == ERR_NOT_FOUND)
        return; /* it was not made here */
    def = lock >= 0 ? folder_definition(dir, &e) : NULL;
    if (def != NULL && cpus != NULL)
        r = (text = hv_cpus_list(cpus)) != NULL ? hv_set_vcpu_pinning(def, vcpu, text, &e) : -1;
    if (def != NULL && sched != NULL) {
        def->cpu_weight = sched->weight;
        def->cpu_cap = sched->cap;
    }
    if (def == NULL ? e.code != ERR_NOT_FOUND : (r < 0 || folder_put_definition(dir, def, &e) < 0))
        log_warn("xen", "domain %s: its definition does not have this: %s", uuid, e.text);
    free(text);
    if (def != NULL)
        migrd__domain__free_unpacked(def, NULL);
    if (lock >= 0)
        close(lock);
}

int xen_pin(
    struct hv *hv, const char *uuid, unsigned vcpu, const struct hv_cpus *cpus, struct err *e)
{
    xc_domaininfo_t d;
    xc_interface *xc;
    xc_cpumap_t map;
    int max, r = -1, failed = ENOMEM;

    if (xen_find(hv, uuid, &d, e) < 0)
        return -1;
    if (vcpu > d.max_vcpu_id)
        return err_set(e, ERR_INVALID, "domain %s: it has no vCPU %u", uuid, vcpu);
    xc = xen_lock(hv);
    max = xc_get_max_cpus(xc);
    map = xc_cpumap_alloc(xc);
    if (map != NULL) {
        to_map(cpus, map, (max + 7) / 8);
        r = xc_vcpu_setaffinity(xc, d.domain, (int)vcpu, map, NULL, XEN_VCPUAFFINITY_HARD);
        failed = errno;
    }
    xen_unlock(hv);
    free(map);
    if (r < 0 && failed == EINVAL)
        return err_set(e, ERR_INVALID, "domain %s: this host has none of those CPUs", uuid);
    errno = failed;
    if (r < 0)
        return err_sys(e, "domain %s: pinning vCPU %u", uuid, vcpu);
    note(hv, uuid, vcpu, cpus, NULL);
    return 0;
}

int xen_set_vcpus(struct hv *hv, const char *uuid, unsigned n, struct err *e)
{
    char text[16];
    const char *more[] = { "--vcpus", text, NULL };
    xc_domaininfo_t d;

    if (xen_find(hv, uuid, &d, e) < 0)
        return -1;
    if (n == 0 || n > d.max_vcpu_id + 1)
        return err_set(
            e, ERR_INVALID, "domain %s: it can have 1 to %u vCPUs", uuid, d.max_vcpu_id + 1);
    snprintf(text, sizeof text, "%u", n);
    return xen_run(hv, "vcpus", uuid, NULL, more, HV_CALL_TIMEOUT_MS, e);
}

/* --- shares --- */

static int no_shares(const struct hv *hv, struct err *e)
{
    return err_set(e, ERR_UNSUPPORTED,
        "Xen's scheduler here is %s, which has no weight and cap; boot Xen with sched=credit2",
        hv->scheduler[0] != '\0' ? hv->scheduler : "unknown");
}

int xen_sched_get(struct hv *hv, const char *uuid, struct hv_sched *out, struct err *e)
{
    struct xen_shares s;
    xc_domaininfo_t d;
    int r;

    if (!xen_has_shares(hv->scheduler))
        return no_shares(hv, e);
    if (xen_find(hv, uuid, &d, e) < 0)
        return -1;
    r = xen_shares_get(xen_lock(hv), hv->scheduler, d.domain, &s);
    xen_unlock(hv);
    if (r < 0)
        return err_sys(e, "domain %s: its weight and cap", uuid);
    *out = (struct hv_sched){ .weight = s.weight, .cap = s.cap };
    snprintf(out->how, sizeof out->how, "%s", hv->scheduler);
    return 0;
}

int xen_sched_set(struct hv *hv, const char *uuid, const struct hv_sched *sched, struct err *e)
{
    struct xen_shares s = { (uint16_t)sched->weight, (uint16_t)sched->cap };
    xc_domaininfo_t d;
    int r;

    if (!xen_has_shares(hv->scheduler))
        return no_shares(hv, e);
    if (xen_find(hv, uuid, &d, e) < 0)
        return -1;
    r = xen_shares_set(xen_lock(hv), hv->scheduler, d.domain, s);
    xen_unlock(hv);
    if (r < 0)
        return err_sys(e, "domain %s: weight %u, cap %u", uuid, sched->weight, sched->cap);
    note(hv, uuid, 0, NULL, sched);
    return 0;
}
