/* SPDX-License-Identifier: ISC */
#include "hypervisor/hypervisor.h"

#include <stdlib.h>
#include <string.h>

#include "base/cpulist.h"
#include "hypervisor/xvm/driver.h"
#ifdef XEN_RELEASE
#include "hypervisor/xen/driver.h"
#endif

#define HV_ALL_CPUS "0-1023"

const struct hv_ops *const hv_drivers[] = {
    &xvm_driver,
#ifdef XEN_RELEASE
    &xen_driver,
#endif
    NULL,
};

static const char *const state_names[] = {
    [HV_RUNNING] = "running",
    [HV_BLOCKED] = "blocked",
    [HV_PAUSED] = "paused",
    [HV_SHUTDOWN] = "shutdown",
    [HV_CRASHED] = "crashed",
    [HV_INCOMING] = "incoming",
};
_Static_assert(sizeof state_names / sizeof state_names[0] == HV_STATE_MAX_, "name every state");

static const char *const event_names[] = {
    [HV_EV_STARTED] = "started",
    [HV_EV_PAUSED] = "paused",
    [HV_EV_RESUMED] = "resumed",
    [HV_EV_SHUTDOWN] = "shutdown",
    [HV_EV_REBOOT] = "reboot",
    [HV_EV_CRASHED] = "crashed",
    [HV_EV_GONE] = "gone",
};
_Static_assert(sizeof event_names / sizeof event_names[0] == HV_EV_MAX, "name every event");

const struct hv_ops *hv_driver(const char *name)
{
    for (size_t i = 0; hv_drivers[i] != NULL; i++)
        if (strcmp(hv_drivers[i]->name, name) == 0)
            return hv_drivers[i];
    return NULL;
}

/*
 * Xen gives a domain its present memory at once (what the balloon has is free), and out of the same
 * pool page tables: as libxl reckons, for a guest with hardware's help 1 MiB for each vCPU and two
 * pages for each MiB that it may have; and a little for special pages and Xen's own structures.
 */
static uint64_t xen_need(const Migrd__Domain *d)
{
    const uint64_t most = d->max_memory_kib > d->memory_kib ? d->max_memory_kib : d->memory_kib;
    const uint64_t vcpus = d->max_vcpus > d->vcpus ? d->max_vcpus : d->vcpus;

    if (hv_guest_type(d) == MIGRD__GUEST_TYPE__GUEST_PV)
        return d->memory_kib + 5 * 1024;
    return d->memory_kib + vcpus * 1024 + most / 1024 * 8 + 6 * 1024;
}

uint64_t hv_memory_need(const Migrd__Domain *d)
{
    if (strcmp(d->hypervisor, "xen") == 0)
        return xen_need(d);
    return d->max_memory_kib > d->memory_kib ? d->max_memory_kib : d->memory_kib;
}

Migrd__GuestType hv_guest_type(const Migrd__Domain *def)
{
    return def->type == MIGRD__GUEST_TYPE__GUEST_DEFAULT ? MIGRD__GUEST_TYPE__GUEST_PVH : def->type;
}

const char *hv_guest_type_name(Migrd__GuestType t)
{
    switch (t) {
    case MIGRD__GUEST_TYPE__GUEST_PV:
        return "pv";
    case MIGRD__GUEST_TYPE__GUEST_HVM:
        return "hvm";
    default:
        return "pvh";
    }
}

bool hv_is_paused(const struct hv_info *i)
{
    return i->state == HV_PAUSED && i->reason[0] == '\0';
}

const char *hv_state_name(enum hv_state s)
{
    return (unsigned)s < HV_STATE_MAX_ ? state_names[s] : "unknown";
}

const char *hv_event_name(enum hv_event_type t)
{
    return (unsigned)t < HV_EV_MAX ? event_names[t] : "unknown";
}

bool hv_cpus_has(const struct hv_cpus *c, unsigned cpu)
{
    return cpu < HV_CPUS_MAX && (c->word[cpu >> 6] >> (cpu & 63) & 1) != 0;
}

const char *hv_vcpu_pinning(const Migrd__Domain *def, unsigned vcpu)
{
    if (vcpu < def->n_vcpu_pins && def->vcpu_pins[vcpu][0] != '\0')
        return def->vcpu_pins[vcpu];
    return def->vcpu_pinning;
}

char *hv_cpus_list(const struct hv_cpus *c)
{
    char list[CPULIST_LEN];

    cpulist_format(c, list, sizeof list);
    return strdup(strcmp(list, HV_ALL_CPUS) == 0 ? "" : list);
}

/* Room for that vCPU: those before it get empty lists. */
static int grow_pins(Migrd__Domain *def, unsigned vcpu)
{
    char **list;

    if (vcpu < def->n_vcpu_pins)
        return 0;
    list = realloc(def->vcpu_pins, (vcpu + 1) * sizeof *list);
    if (list == NULL)
        return -1;
    for (def->vcpu_pins = list; def->n_vcpu_pins <= vcpu; def->n_vcpu_pins++)
        if ((list[def->n_vcpu_pins] = strdup("")) == NULL)
            return -1;
    return 0;
}

int hv_set_vcpu_pinning(Migrd__Domain *def, unsigned vcpu, const char *list, struct err *e)
{
    char *copy = strdup(list);

    if (copy == NULL || grow_pins(def, vcpu) < 0) {
        free(copy);
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", def->name);
    }
    free(def->vcpu_pins[vcpu]);
    def->vcpu_pins[vcpu] = copy;
    while (def->n_vcpu_pins > 0 && def->vcpu_pins[def->n_vcpu_pins - 1][0] == '\0')
        free(def->vcpu_pins[--def->n_vcpu_pins]);
    return 0;
}

struct hv_sched hv_sched_of(const Migrd__Domain *def)
{
    return (struct hv_sched){ .weight = def->cpu_weight != 0 ? def->cpu_weight : HV_WEIGHT,
        .cap = def->cpu_cap };
}
