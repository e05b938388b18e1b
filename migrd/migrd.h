/* SPDX-License-Identifier: ISC */
/*
 * migrd: what the parts of the daemon know of each other. One `struct migrd` per
 * process, made in main and passed to all; everything runs in the libuv loop's thread
 * except work handed to the pool (hypervisor calls, name lookups), which gets copies and
 * comes back as a callback in the loop. Parts: registry (domains), migration (hand-over),
 * worker (processes), relocation (port 8002), control (control.sock), status
 * (status.sock), journal. Each has a header of its own in this folder.
 */
#ifndef MIGRD_H
#define MIGRD_H

#include <uv.h>

#include "base/config.h"
#include "base/paths.h"
#include "hypervisor/hypervisor.h"

struct registry;
struct migrations;
struct relocation;
struct control;
struct status;
struct libvirt;
struct journal;
struct events;
struct ask_job;
struct ha;
struct ha_watch;

struct migrd {
    uv_loop_t *loop;
    struct paths paths;
    struct config config;
    char host_name[256];
    uint64_t start_wall_ns;
    const struct hv_ops *hv_ops; /* the default driver */
    struct hv *hv;
    struct hv_caps caps;
    struct journal *journal;
    struct registry *registry;
    struct migrations *migrations;
    struct relocation *relocation;
    struct control *control;
    struct status *status;
    struct libvirt *libvirt;
    struct ha *ha; /* NULL: `cluster = no` */
    struct ha_watch *ha_watch; /* ha_overview.c */
    struct events *events;
    struct ask_job *figures; /* domain_figures.c: what is asked, or waits for its turn */
};

#endif
