/* SPDX-License-Identifier: ISC */
#include "cluster/core.h"

#include <stdlib.h>

struct ha_core {
    struct ha_config config;
};

struct ha_core *ha_core_new(const struct ha_config *config, const struct ha_record *saved, size_t n,
    uint64_t now, struct err *e)
{
    struct ha_core *c = calloc(1, sizeof *c);

    (void)saved;
    (void)n;
    (void)now;
    if (!c) {
        err_set(e, ERR_MEMORY, "no memory for the cluster's decision core");
        return NULL;
    }
    c->config = *config;
    return c;
}

void ha_core_free(struct ha_core **c)
{
    free(*c);
    *c = NULL;
}

void ha_step(struct ha_core *c, const struct ha_event *e, uint64_t now, struct ha_actions *out)
{
    (void)e;
    *out = (struct ha_actions){ .wake = now + c->config.times.beat };
}
