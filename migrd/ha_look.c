/* SPDX-License-Identifier: ISC */
/*
 * A copy in the core's words. `blown` means: it stands still and only its fuse is the reason.
 *
 *   hypervisor                      told
 *   none, also while the log starts one nothing     (the result of that start is the next word)
 *   none, while others start one    paused          (of the next epoch; if the log is given the
 * domain meanwhile, it must know)
 *   running, idle                   running
 *   paused                          paused, blown if its fuse did it
 *   incoming, of a hand-over        incoming
 *   incoming, given and left so     paused
 *   off by the guest's own wish     shutdown, by_guest
 *   off as the log asked            running         (it is destroyed next, and gone then)
 *   reset by the guest              paused, blown   (it is started anew under its epoch)
 *   crashed                         crashed
 *   does not answer                 paused          (it may only be slow; the journal has its
 * epoch)
 */
#include "migrd/ha_internal.h"

static void paused(struct ha_event *e, bool blown)
{
    e->u.domain.seen = HA_SEEN_PAUSED;
    e->u.domain.blown = blown;
}

static void ended(const struct ha_look *l, struct ha_event *e)
{
    if (l->rebooting) {
        paused(e, true);
    } else if (l->info->state == HV_CRASHED) {
        e->u.domain.seen = HA_SEEN_CRASHED;
    } else if (l->stopping) {
        e->u.domain.seen = HA_SEEN_RUNNING;
    } else {
        e->u.domain.seen = HA_SEEN_SHUTDOWN;
        e->u.domain.by_guest = true;
    }
}

static void alive(const struct ha_look *l, struct ha_event *e)
{
    switch (l->info->state) {
    case HV_PAUSED:
        paused(e, l->info->blown);
        break;
    case HV_INCOMING:
        if (!l->moving && l->owned && l->info->epoch == l->epoch)
            paused(e, l->info->blown);
        else
            e->u.domain.seen = HA_SEEN_INCOMING;
        break;
    case HV_SHUTDOWN:
    case HV_CRASHED:
        ended(l, e);
        break;
    case HV_RUNNING:
    case HV_BLOCKED:
    case HV_STATE_MAX_:
        e->u.domain.seen = HA_SEEN_RUNNING;
        break;
    }
}

bool ha_look_event(const struct ha_look *l, struct ha_event *e)
{
    e->type = HA_EV_DOMAIN;
    e->u.domain.by_guest = e->u.domain.blown = e->u.domain.fused = false;
    if (!l->live && !l->starting)
        return false;
    if (!l->live) {
        e->u.domain.epoch = l->epoch + 1;
        paused(e, false);
        return true;
    }
    e->u.domain.fused = l->info->fused;
    if (l->info->state == HV_CRASHED && l->info->domid < 0) {
        e->u.domain.epoch = l->epoch;
        paused(e, false);
        return true;
    }
    e->u.domain.epoch = l->info->epoch;
    alive(l, e);
    return true;
}
