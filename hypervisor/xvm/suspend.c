/* SPDX-License-Identifier: ISC */
/*
 * Holds: a device that cannot serve the guest (its disk's server is gone, a lease cannot
 * be renewed) stops it, from whichever thread finds out. vCPUs are asked to park at once;
 * the control thread, woken by stop_event, makes the transition and tells of it:
 *
 *   RUNNING    and a hold      SUSPENDED, HV_EV_PAUSED with the gravest hold's text
 *   SUSPENDED  and none left   RUNNING, HV_EV_RESUMED
 *   RUNNING    and none left   came and went before anybody looked: vCPUs run again
 *
 * In all other lives holds are only remembered: what is paused stays so, and becomes
 * SUSPENDED rather than RUNNING when it is resumed too early.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "hypervisor/xvm/machine_internal.h"

static void wake_control(struct machine *m)
{
    uint64_t one = 1;

    if (write(m->stop_event, &one, sizeof one) < 0 && errno != EAGAIN)
        log_error("xvm", "%s: eventfd: errno %d", m->def->name, errno);
}

void machine_suspend(
    struct machine *m, struct machine_hold *h, enum machine_hold_kind kind, const char *text)
{
    pthread_mutex_lock(&m->run_lock);
    h->kind = kind;
    snprintf(h->text, sizeof h->text, "%s", text);
    if (!h->on) {
        h->on = true;
        h->next = m->holds;
        m->holds = h;
    }
    pthread_mutex_unlock(&m->run_lock);
    vcpus_ask_to_park(m);
    wake_control(m);
}

void machine_unsuspend(struct machine *m, struct machine_hold *h)
{
    bool was;

    pthread_mutex_lock(&m->run_lock);
    was = h->on;
    h->on = false;
    for (struct machine_hold **p = &m->holds; was && *p != NULL; p = &(*p)->next)
        if (*p == h) {
            *p = h->next;
            break;
        }
    pthread_mutex_unlock(&m->run_lock);
    if (was)
        wake_control(m);
}

bool machine_suspended(struct machine *m)
{
    bool any;

    pthread_mutex_lock(&m->run_lock);
    any = m->holds != NULL;
    pthread_mutex_unlock(&m->run_lock);
    return any;
}

/* The gravest; NULL: none. Under run_lock. */
static const struct machine_hold *gravest(const struct machine *m)
{
    const struct machine_hold *worst = m->holds;

    for (const struct machine_hold *h = worst; h != NULL; h = h->next)
        if (h->kind > worst->kind)
            worst = h;
    return worst;
}

void machine_reason(struct machine *m, char *text, size_t len)
{
    const struct machine_hold *h;

    pthread_mutex_lock(&m->run_lock);
    h = m->life == LIFE_SUSPENDED ? gravest(m) : NULL;
    snprintf(text, len, "%s", h != NULL ? h->text : "");
    pthread_mutex_unlock(&m->run_lock);
}

int machine_check_lost(struct machine *m, const char *action, struct err *e)
{
    const struct machine_hold *h;
    int r = 0;

    pthread_mutex_lock(&m->run_lock);
    h = gravest(m);
    if (h != NULL && h->kind == HOLD_LOST)
        r = err_set(e, ERR_STATE, "domain %s: cannot %s: %s", m->def->name, action, h->text);
    pthread_mutex_unlock(&m->run_lock);
    return r;
}

/* vCPUs that were asked to park for nothing. */
static void run_again(struct machine *m)
{
    bool run;

    pthread_mutex_lock(&m->run_lock);
    run = m->run || m->stop_seen;
    pthread_mutex_unlock(&m->run_lock);
    if (!run)
        vcpus_run(m);
}

enum hv_event_type machine_take_holds(struct machine *m)
{
    bool held = machine_suspended(m);

    if (m->life == LIFE_RUNNING && held) {
        vcpus_park(m);
        m->life = LIFE_SUSPENDED;
        return HV_EV_PAUSED;
    }
    if (m->life == LIFE_SUSPENDED && !held) {
        m->life = LIFE_RUNNING;
        fuse_ran(m);
        virtio_blk_again(m);
        vcpus_run(m);
        return HV_EV_RESUMED;
    }
    if (m->life == LIFE_RUNNING)
        run_again(m);
    return HV_EV_MAX;
}
