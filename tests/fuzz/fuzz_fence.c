/* SPDX-License-Identifier: ISC */
/* fence.conf: whatever is taken keeps its limits, and every use names a device. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/fence_conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_target(const struct fence_conf *c, const struct fence_target *t)
{
    unsigned uses = 0;

    for (unsigned i = 0; i < FENCE_LEVELS; i++) {
        if (t->level[i].n > FENCE_AT_ONCE)
            abort();
        for (unsigned k = 0; k < t->level[i].n; k++, uses++)
            if (t->level[i].use[k].device >= c->n_devices)
                abort();
    }
    if (uses == 0 || fence_conf_target(c, t->name) != t)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *text = malloc(len + 1);
    struct fence_conf *c;
    struct err e;

    memcpy(text, data, len);
    text[len] = '\0';
    c = fence_conf_parse(text, len, "fence.conf", false, &e);
    free(text);
    if (c == NULL)
        return 0;
    if (c->n_devices > FENCE_DEVICES || c->n_targets > FENCE_NODES)
        abort();
    for (unsigned i = 0; i < c->n_devices; i++)
        if (strlen(c->device[i].input) >= FENCE_INPUT || c->device[i].agent[0] != '/')
            abort();
    for (unsigned i = 0; i < c->n_targets; i++)
        check_target(c, &c->target[i]);
    free(c);
    return 0;
}
