/* SPDX-License-Identifier: ISC */
/*
 * Members of the driver that this build cannot do yet: each says so by name. Who writes
 * one takes it out of here; the file goes with the last of them.
 */
#include "hypervisor/xen/xen_internal.h"

static int not_here(struct err *e, const char *what)
{
    return err_set(e, ERR_UNSUPPORTED, "%s of Xen domains is not part of this build", what);
}

/* --- lifecycle ------------------------------------------------------------------------------- */

int xen_capabilities(struct hv *hv, struct hv_caps *out, struct err *e)
{
    (void)hv, (void)out;
    return not_here(e, "capabilities");
}

int xen_guest_cpu(struct hv *hv, const char *uuid, struct hv_caps *out, struct err *e)
{
    (void)hv, (void)uuid, (void)out;
    return not_here(e, "guest CPU");
}

int xen_enumerate(struct hv *hv, struct hv_info **list, size_t *n, struct err *e)
{
    (void)hv, (void)list, (void)n;
    return not_here(e, "list");
}

int xen_info(struct hv *hv, const char *uuid, struct hv_info *out, struct err *e)
{
    (void)hv, (void)uuid, (void)out;
    return not_here(e, "info");
}

Migrd__Domain *xen_definition(struct hv *hv, const char *uuid, struct err *e)
{
    (void)hv, (void)uuid;
    not_here(e, "definition");
    return NULL;
}

int xen_start(struct hv *hv, const Migrd__Domain *def, const struct hv_start *how, struct err *e)
{
    (void)hv, (void)def, (void)how;
    return not_here(e, "start");
}

int xen_pause(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    (void)hv, (void)uuid, (void)epoch;
    return not_here(e, "pause");
}

int xen_claim(struct hv *hv, const char *uuid, uint64_t epoch, bool decided, struct err *e)
{
    (void)hv, (void)uuid, (void)epoch, (void)decided;
    return not_here(e, "claim");
}

int xen_resume(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    (void)hv, (void)uuid, (void)epoch;
    return not_here(e, "resume");
}

int xen_fuse(struct hv *hv, const char *uuid, uint64_t epoch, uint64_t deadline_ms, struct err *e)
{
    (void)hv, (void)uuid, (void)epoch, (void)deadline_ms;
    return not_here(e, "a fuse");
}

int xen_shutdown(struct hv *hv, const char *uuid, bool reboot, struct err *e)
{
    (void)hv, (void)uuid, (void)reboot;
    return not_here(e, "shutdown");
}

int xen_destroy(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    (void)hv, (void)uuid, (void)epoch;
    return not_here(e, "destroy");
}

int xen_set_memory(struct hv *hv, const char *uuid, uint64_t memory_kib, struct err *e)
{
    (void)hv, (void)uuid, (void)memory_kib;
    return not_here(e, "another memory size");
}

int xen_vcpus(struct hv *hv, const char *uuid, struct hv_vcpu **list, unsigned *n, struct err *e)
{
    (void)hv, (void)uuid, (void)list, (void)n;
    return not_here(e, "the list of vCPUs");
}

int xen_pin(
    struct hv *hv, const char *uuid, unsigned vcpu, const struct hv_cpus *cpus, struct err *e)
{
    (void)hv, (void)uuid, (void)vcpu, (void)cpus;
    return not_here(e, "pinning");
}

int xen_set_vcpus(struct hv *hv, const char *uuid, unsigned n, struct err *e)
{
    (void)hv, (void)uuid, (void)n;
    return not_here(e, "another number of vCPUs");
}

int xen_sched_get(struct hv *hv, const char *uuid, struct hv_sched *out, struct err *e)
{
    (void)hv, (void)uuid, (void)out;
    return not_here(e, "weight and cap");
}

int xen_sched_set(struct hv *hv, const char *uuid, const struct hv_sched *sched, struct err *e)
{
    (void)hv, (void)uuid, (void)sched;
    return not_here(e, "weight and cap");
}

int xen_stats(struct hv *hv, const char *uuid, struct hv_stats *out, struct err *e)
{
    (void)hv, (void)uuid, (void)out;
    return not_here(e, "figures");
}

int xen_event_fd(struct hv *hv)
{
    (void)hv;
    return -1;
}

int xen_next_event(struct hv *hv, struct hv_event *out, struct err *e)
{
    (void)hv, (void)out;
    return not_here(e, "events");
}

void xen_events_close(struct hv *hv)
{
    (void)hv;
}

/* --- migration ---------------------------------------------------------------------------------
 */

int xen_mig_open(
    struct hv *hv, const char *uuid, enum hv_side side, struct hv_mig **out, struct err *e)
{
    (void)hv, (void)uuid, (void)side;
    *out = NULL;
    return not_here(e, "migration");
}

void xen_mig_close(struct hv_mig **m)
{
    *m = NULL;
}

int xen_mig_layout(struct hv_mig *m, struct hv_layout *out, struct err *e)
{
    (void)m, (void)out;
    return not_here(e, "migration");
}

int xen_mig_populated(struct hv_mig *m, uint64_t *bitmap, struct err *e)
{
    (void)m, (void)bitmap;
    return not_here(e, "migration");
}

int xen_mig_map(struct hv_mig *m, const uint64_t *gfn, size_t n, bool write, struct hv_mapping *map,
    struct err *e)
{
    (void)m, (void)gfn, (void)n, (void)write, (void)map;
    return not_here(e, "migration");
}

void xen_mig_unmap(struct hv_mig *m, struct hv_mapping *map)
{
    (void)m, (void)map;
}

int xen_mig_zero(struct hv_mig *m, uint64_t gfn, uint64_t n, struct err *e)
{
    (void)m, (void)gfn, (void)n;
    return not_here(e, "migration");
}

int xen_dirty_start(struct hv_mig *m, struct err *e)
{
    (void)m;
    return not_here(e, "migration");
}

int xen_dirty_collect(struct hv_mig *m, uint64_t *bitmap, struct err *e)
{
    (void)m, (void)bitmap;
    return not_here(e, "migration");
}

int xen_dirty_peek(struct hv_mig *m, uint64_t *bitmap, struct err *e)
{
    (void)m, (void)bitmap;
    return not_here(e, "migration");
}

int xen_dirty_give_back(struct hv_mig *m, const uint64_t *bitmap, struct err *e)
{
    (void)m, (void)bitmap;
    return not_here(e, "migration");
}

int xen_dirty_stop(struct hv_mig *m, struct err *e)
{
    (void)m;
    return not_here(e, "migration");
}

int xen_mig_pause(struct hv_mig *m, uint64_t epoch, struct err *e)
{
    (void)m, (void)epoch;
    return not_here(e, "migration");
}

int xen_mig_resume(struct hv_mig *m, uint64_t epoch, struct err *e)
{
    (void)m, (void)epoch;
    return not_here(e, "migration");
}

int xen_mig_registers(struct hv_mig *m, struct hv_registers **list, unsigned *n, struct err *e)
{
    (void)m, (void)list, (void)n;
    return not_here(e, "migration");
}

int xen_state_save(struct hv_mig *m, uint8_t **blob, size_t *len, struct err *e)
{
    (void)m, (void)blob, (void)len;
    return not_here(e, "migration");
}

int xen_state_load(struct hv_mig *m, const uint8_t *blob, size_t len, struct err *e)
{
    (void)m, (void)blob, (void)len;
    return not_here(e, "migration");
}

int xen_throttle(struct hv_mig *m, unsigned percent, struct err *e)
{
    (void)m, (void)percent;
    return not_here(e, "migration");
}

void xen_mig_sweep(struct hv *hv, xc_interface *xc, const char *uuid, uint32_t domid)
{
    (void)hv, (void)xc, (void)uuid, (void)domid;
}
