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

#define FACTS_MACS_MAX 1024 /* of one bridge */
#define FACTS_SUBNETS_MAX 16

/* `def` (may be NULL): whose nets are looked at. NULL only without memory. What only the daemon
 * knows (promised memory, reserve, overcommit) is left 0. */
Migrd__HostFacts *facts_gather(
    const char *host, const char *hypervisor, const struct hv_caps *caps, const Migrd__Domain *def);

/* One bridge or device; what cannot be learnt is in `error`. Kinds: "" there is none, "bridge",
 * "tap", "tap in use", "device". */
Migrd__NetFacts *facts_net(const char *name);

/* A CPU as it is told to another host; NULL without memory. */
Migrd__CpuReport *facts_cpu(const struct hv_caps *caps);

#endif
