/* SPDX-License-Identifier: ISC */
/*
 * find: domains in Xen's own list: by uuid, their state and their type. Domain 0 is not
 * among them, nor is one that is dying. For the driver and for xen-domain.
 */
#ifndef XEN_FIND_H
#define XEN_FIND_H

#include <xenctrl.h>

#include "hypervisor/hypervisor.h"
#include "hypervisor/rundir.h"

#define XEN_NO_SHUTDOWN 256u

enum xen_type { XEN_PV, XEN_PVH, XEN_HVM };

/* All but domain 0, in the order of their numbers; the caller frees *list. */
int xen_list(xc_interface *xc, xc_domaininfo_t **list, size_t *n, struct err *e);
/* ERR_NOT_FOUND; a domain that is dying is none. */
int xen_find_with(xc_interface *xc, const char *uuid, xc_domaininfo_t *out, struct err *e);

void xen_uuid_text(const uint8_t handle[16], char out[HV_UUID_LEN]);
bool xen_is_gone(const xc_domaininfo_t *d);
/* SHUTDOWN_*, or XEN_NO_SHUTDOWN. */
unsigned xen_shutdown_code(const xc_domaininfo_t *d);
enum hv_state xen_state_of(const xc_domaininfo_t *d, bool incoming);
enum xen_type xen_type_of(const xc_domaininfo_t *d); /* PVH: no emulated devices but the APIC */
const char *xen_type_name(enum xen_type t);

#endif
