/* SPDX-License-Identifier: ISC */
/*
 * facts: what this host is and has, as HostFacts: CPU, memory, huge pages, and the bridges
 * and devices that a domain names. Read from the driver's capabilities, /sys and netlink;
 * blocks for milliseconds: run in the pool or in a worker. The caller frees the message.
 */
#ifndef MIGRD_FACTS_H
#define MIGRD_FACTS_H

#include "hypervisor/hypervisor.h"
#include "transport/session.pb-c.h"

/* `def` (may be NULL): whose nets are looked at. NULL only without memory. */
Migrd__HostFacts *facts_gather(
    const char *host, const char *hypervisor, const struct hv_caps *caps, const Migrd__Domain *def);

/* One bridge or device; what cannot be learnt is in `error`. */
Migrd__NetFacts *facts_net(const char *name);

#endif
