/* SPDX-License-Identifier: ISC */
/* What the core wants done. A failure here is never an error of the core's: what was not sent is
 * sent again, what was not written is not confirmed, what was not done is told by a result. */
#include <stdio.h>

#include "cluster/node_internal.h"

static void persist(struct cluster *c, const struct ha_action *a)
{
    struct err e;

    if (c->disk_broken)
        return;
    c->id_newest = c->id_base + a->id;
    if (store_put(c->store, c->id_newest, a->bytes, a->len, a->whole, &e) == 0)
        return;
    c->disk_broken = true;
    node_note(
        c, true, "%s: this node confirms nothing to the cluster any more; restart migrd", e.text);
}

/* Its own migrations and restarts are none. */
static bool is_failover(struct cluster *c, const struct ha_action *a)
{
    const Migrd__HaDomain *d = cluster_find(c, a->uuid);

    return d != NULL && d->epoch == a->epoch && d->proof != MIGRD__HA_PROOF__PROOF_NONE &&
           d->proof != MIGRD__HA_PROOF__PROOF_SELF;
}

static void host_act(struct cluster *c, const struct ha_action *a)
{
    struct ha_action copy = *a;

    copy.id |= (uint64_t)c->lives << ACTION_BITS;
    c->host.act(c->arg, &copy);
}

static void note(struct cluster *c, const struct ha_action *a)
{
    c->alarmed |= a->alarm;
    c->host.note(c->arg, a->alarm, a->text);
}

void node_act(struct cluster *c, const struct ha_action *a)
{
    switch (a->type) {
    case HA_ACT_SEND:
        if (c->ring != NULL)
            corosync_send(c->ring, a->bytes, a->len);
        break;
    case HA_ACT_BEAT:
        beat_send(c->beat, a->node, a->bytes, a->len);
        break;
    case HA_ACT_PERSIST:
        persist(c, a);
        break;
    case HA_ACT_FUSE:
        c->host.fuse(c->arg, a->uuid, a->epoch, a->deadline);
        break;
    case HA_ACT_START:
        c->failovers += is_failover(c, a);
        host_act(c, a);
        break;
    case HA_ACT_STOP:
    case HA_ACT_DESTROY:
    case HA_ACT_RESUME:
    case HA_ACT_MIGRATE:
    case HA_ACT_CANCEL:
        host_act(c, a);
        break;
    case HA_ACT_FENCE:
        node_fence(c, a);
        break;
    case HA_ACT_ANSWER:
        node_answered(c, a->id, a->answer);
        break;
    case HA_ACT_WATCHDOG:
        node_watchdog(c, a->deadline);
        break;
    case HA_ACT_NOTE:
        note(c, a);
        break;
    case HA_ACT_MAX:
        break;
    }
}
