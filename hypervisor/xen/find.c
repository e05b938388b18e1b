/* SPDX-License-Identifier: ISC */
/*
 * Which domain of Xen's is it, and how is it. The states, from xl's letters:
 *
 *   d    dying              no domain any more: what is left of it is given back soon
 *   s    shut down          power-off, reset: HV_SHUTDOWN; crash, watchdog: HV_CRASHED;
 *                           suspended by a migration or save: HV_PAUSED
 *   p    paused             HV_PAUSED; HV_INCOMING while its folder says so
 *   r, b, ------            on a CPU, idle, waiting for a CPU
 */
#define _GNU_SOURCE
#include "hypervisor/xen/find.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 128

void xen_uuid_text(const uint8_t handle[16], char out[HV_UUID_LEN])
{
    char *p = out;

    for (unsigned i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        p += sprintf(p, "%02x", handle[i]);
    }
}

bool xen_is_gone(const xc_domaininfo_t *d)
{
    return (d->flags & XEN_DOMINF_dying) != 0;
}

unsigned xen_shutdown_code(const xc_domaininfo_t *d)
{
    if ((d->flags & XEN_DOMINF_shutdown) == 0)
        return XEN_NO_SHUTDOWN;
    return d->flags >> XEN_DOMINF_shutdownshift & XEN_DOMINF_shutdownmask;
}

enum hv_state xen_state_of(const xc_domaininfo_t *d, bool incoming)
{
    switch (xen_shutdown_code(d)) {
    case XEN_NO_SHUTDOWN:
        break;
    case SHUTDOWN_suspend:
        return incoming ? HV_INCOMING : HV_PAUSED;
    case SHUTDOWN_crash:
    case SHUTDOWN_watchdog:
        return HV_CRASHED;
    default:
        return HV_SHUTDOWN;
    }
    if (incoming)
        return HV_INCOMING;
    if (d->flags & XEN_DOMINF_paused)
        return HV_PAUSED;
    return d->flags & XEN_DOMINF_blocked ? HV_BLOCKED : HV_RUNNING;
}

enum xen_type xen_type_of(const xc_domaininfo_t *d)
{
    if ((d->flags & XEN_DOMINF_hvm_guest) == 0)
        return XEN_PV;
    return d->arch_config.emulation_flags & XEN_X86_EMU_PIC ? XEN_HVM : XEN_PVH;
}

const char *xen_type_name(enum xen_type t)
{
    static const char *const names[] = { [XEN_PV] = "pv", [XEN_PVH] = "pvh", [XEN_HVM] = "hvm" };

    return names[t];
}

int xen_list(xc_interface *xc, xc_domaininfo_t **list, size_t *n, struct err *e)
{
    size_t have = 0;

    *list = NULL;
    *n = 0;
    for (uint32_t from = 1;;) {
        xc_domaininfo_t *more = realloc(*list, (have + BATCH) * sizeof **list);
        int got;

        if (more == NULL) {
            free(*list);
            *list = NULL;
            return err_set(e, ERR_MEMORY, "out of memory for the list of domains");
        }
        *list = more;
        got = xc_domain_getinfolist(xc, from, BATCH, more + have);
        if (got < 0) {
            err_sys(e, "asking Xen for its domains");
            free(*list);
            *list = NULL;
            return -1;
        }
        have += (size_t)got;
        if (got < BATCH)
            break;
        from = more[have - 1].domain + 1u;
    }
    *n = have;
    return 0;
}

int xen_find_with(xc_interface *xc, const char *uuid, xc_domaininfo_t *out, struct err *e)
{
    xc_domaininfo_t *list;
    size_t n;
    int r = -1;

    if (!rundir_is_uuid(uuid))
        return err_set(e, ERR_INVALID, "%.64s: not a uuid in lower case", uuid);
    if (xen_list(xc, &list, &n, e) < 0)
        return -1;
    for (size_t i = 0; i < n && r < 0; i++) {
        char text[HV_UUID_LEN];

        xen_uuid_text(list[i].handle, text);
        if (strcmp(text, uuid) != 0 || xen_is_gone(&list[i]))
            continue;
        *out = list[i];
        r = 0;
    }
    free(list);
    return r == 0 ? 0 : err_set(e, ERR_NOT_FOUND, "domain %s: no such domain is running", uuid);
}
