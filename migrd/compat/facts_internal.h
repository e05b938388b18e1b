/* SPDX-License-Identifier: ISC */
/* facts_internal: with a /sys of one's own, for tests; private to migrd/compat. */
#ifndef FACTS_INTERNAL_H
#define FACTS_INTERNAL_H

#include "base/err.h"
#include "migrd/compat/facts.h"

#define FACTS_SYS "/sys"
#define FACTS_VLANS_MAX 4096 /* as many as there are */

/* One bit a VLAN. */
struct vlan_set {
    uint64_t bit[FACTS_VLANS_MAX / 64];
};

char *facts_text(const char *s);
/* A whole number from a file below `sys`; 0 where there is none. */
uint64_t facts_number(const char *sys, const char *path);
void facts_huge_pages(const char *sys, Migrd__HostFacts *f);
Migrd__NetFacts *facts_net_at(const char *sys, const char *name);

/* facts_netlink.c: tags with which frames leave by `port`: its own, if it is a VLAN device, and, if
 * `filtering`, those of the bridge's filter. Added to `out`. */
int facts_port_vlans(const char *port, bool filtering, struct vlan_set *out, struct err *e);
/* One answer to that: of the link of that number, else nothing. */
struct nlmsghdr;
void facts_read_link(struct nlmsghdr *h, int ifindex, struct vlan_set *out);

#endif
