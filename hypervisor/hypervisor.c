/* SPDX-License-Identifier: ISC */
#include "hypervisor/hypervisor.h"

#include <string.h>

#include "hypervisor/xvm/driver.h"

const struct hv_ops *const hv_drivers[] = { &xvm_driver, NULL };

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
