/* SPDX-License-Identifier: ISC */
/*
 * fence_conf: fence.conf in memory: devices (an agent with its options) and, for each node, levels
 * of them. Plain data, one allocation, read only after it was read. Internal to fence.c, and for
 * the parser's tests.
 *
 *     [device NAME]            agent = fence_ipmilan        a program of the folder for agents, or
 * a path option.KEY = VALUE           given to the agent as KEY=VALUE password-file = PATH its
 * first line is given as password=... timeout = 20                 s, of one run of it confirm = 10
 * s, in which `status` must say off after `off` [node NAME]              level1 = DEVICE[:PLUG] ...
 * all at once, all must succeed level2 = ...                 if level 1 did not
 */
#ifndef CLUSTER_FENCE_CONF_H
#define CLUSTER_FENCE_CONF_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define FENCE_FILE_MAX (64u << 10)
#define FENCE_DEVICES 64u
#define FENCE_NODES 32u
#define FENCE_LEVELS 8u
#define FENCE_AT_ONCE 8u /* devices of a level */
#define FENCE_INPUT 2048u
#define FENCE_NAME 41u /* inih cuts sections and keys at 49 bytes, silently */
#define FENCE_AGENTS "/usr/sbin"

struct fence_device {
    char name[FENCE_NAME], agent[256];
    char input[FENCE_INPUT]; /* its options as the agent wants them, a line each */
    unsigned timeout_s, confirm_s;
};

struct fence_use {
    unsigned device;       /* number of it */
    char plug[FENCE_NAME]; /* "" none */
};

struct fence_target {
    char name[FENCE_NAME];
    struct {
        unsigned n;
        struct fence_use use[FENCE_AT_ONCE];
    } level[FENCE_LEVELS]; /* n 0: left out */
};

struct fence_conf {
    unsigned n_devices, n_targets;
    struct fence_device device[FENCE_DEVICES];
    struct fence_target target[FENCE_NODES];
};

/* `name` is for errors. `files`: read password files, too. Free with free. */
struct fence_conf *fence_conf_parse(
    const char *text, size_t len, const char *name, bool files, struct err *e);
struct fence_conf *fence_conf_read(const char *path, struct err *e);
/* NULL: it has none. */
const struct fence_target *fence_conf_target(const struct fence_conf *c, const char *node);

#endif
