/* SPDX-License-Identifier: ISC */
/*
 * What the hypervisor tells: events at once, everything else every REGISTRY_POLL_MS.
 * An end (power-off, reset, crash) runs the domain's policy, once nobody holds the
 * domain. Restarts are limited: RESTART_LIMIT in RESTART_WINDOW_S, then the domain is
 * destroyed and stays off, for a guest that dies at boot would else burn the host.
 *
 * A poll's answer may be older than an operation that ended meanwhile, or than an event: an
 * answer counts only for domains that have not changed since it was asked for. The event that
 * a process has ended may be that of the domain's last life: only a poll says "gone". A domain
 * that is there but does not answer (its number is unknown) is left alone: it may only be slow.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrd/define/define.h"
#include "migrd/events.h"
#include "migrd/ha.h"
#include "migrd/job.h"
#include "migrd/migration.h"
#include "migrd/registry_internal.h"

/* --- waiting for the end --- */

int registry_wait_gone(struct migrd *m, struct domain *d, uint64_t wait_ms, registry_done *done,
    void *arg, struct err *e)
{
    struct waiter *w = calloc(1, sizeof *w);

    (void)m;
    if (w == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", d->name);
    *w = (struct waiter){ d->waiters, clock_ns() + wait_ms * NS_PER_MS, done, arg };
    d->waiters = w;
    return 0;
}

void registry_expire_waiters(struct migrd *m, struct domain *d, uint64_t now)
{
    struct waiter **p = &d->waiters;
    struct waiter *due = NULL;
    char uuid[HV_UUID_LEN];
    bool gone = !d->live;
    struct err e = { 0 };

    (void)m;
    while (*p != NULL) {
        struct waiter *w = *p;

        if (!gone && now < w->deadline_ns) {
            p = &w->next;
            continue;
        }
        *p = w->next;
        w->next = due;
        due = w;
    }
    if (due != NULL && !gone)
        err_set(&e, ERR_TIMEOUT, "domain %s is still here; it may ignore the request", d->name);
    memcpy(uuid, d->uuid, sizeof uuid);
    while (due != NULL) {
        struct waiter *w = due;

        due = w->next;
        w->done(w->arg, uuid, &e);
        free(w);
    }
}

/* --- policies --- */

static bool too_many_restarts(struct domain *d)
{
    uint64_t now = clock_ns(), oldest = d->restarts[0];

    memmove(d->restarts, d->restarts + 1, sizeof d->restarts - sizeof d->restarts[0]);
    d->restarts[RESTART_LIMIT - 1] = now;
    return oldest != 0 && now - oldest < RESTART_WINDOW_S * NS_PER_S;
}

static Migrd__OnEvent policy_of(const struct domain *d, enum hv_event_type end)
{
    const Migrd__Domain *def = registry_definition(d);
    Migrd__OnEvent p;

    if (end == HV_EV_SHUTDOWN)
        p = def->on_poweroff;
    else if (end == HV_EV_REBOOT)
        p = def->on_reboot;
    else
        p = def->on_crash;
    if (p != MIGRD__ON_EVENT__ON_DEFAULT)
        return p;
    return end == HV_EV_SHUTDOWN ? MIGRD__ON_EVENT__ON_DESTROY : MIGRD__ON_EVENT__ON_RESTART;
}

/* A guest that resets itself again and again is one that crashes. */
static void restart_protected(struct migrd *m, struct domain *d)
{
    const struct registry_args args = { .decided = true, .epoch = d->info.epoch };
    struct err e;

    if (!too_many_restarts(d)) {
        if (registry_act(m, d, REG_RESTART, &args, NULL, NULL, &e) < 0)
            log_error("domain", "%s: restart after its reset: %s", d->name, e.text);
        return;
    }
    log_error("domain", "%s: reset %d times in %d s: told as a crash", d->name, RESTART_LIMIT,
        RESTART_WINDOW_S);
    d->last_end = HV_EV_CRASHED;
    registry_set_state(m, d, HV_CRASHED);
}

/* Of a domain that the cluster protects: its log decides, and cleans up. A reset is no end. While it
 * is not known whether it is protected, the end waits. */
static void leave_to_log(struct migrd *m, struct domain *d)
{
    enum hv_event_type end = d->ended;

    if (!ha_protected(m, d->uuid, NULL))
        return;
    d->ended = HV_EV_MAX;
    if (!d->live)
        return;
    if (end == HV_EV_REBOOT && policy_of(d, end) == MIGRD__ON_EVENT__ON_RESTART) {
        restart_protected(m, d);
        return;
    }
    if (end == HV_EV_REBOOT)
        d->last_end = HV_EV_SHUTDOWN;
    ha_domain_changed(m, d);
}

void registry_policy(struct migrd *m, struct domain *d)
{
    enum hv_event_type end = d->ended;
    enum registry_op op = REG_DESTROY;
    Migrd__OnEvent policy;
    struct err e;

    if (end == HV_EV_MAX || d->mig != NULL || d->busy != NULL)
        return;
    if (ha_decides(m, d->uuid)) {
        leave_to_log(m, d);
        return;
    }
    d->ended = HV_EV_MAX;
    if (!d->live)
        return;
    policy = policy_of(d, end);
    if (policy == MIGRD__ON_EVENT__ON_PRESERVE) {
        log_info("domain", "%s: %s: kept for a look", d->name, hv_event_name(end));
        return;
    }
    if (policy == MIGRD__ON_EVENT__ON_RESTART) {
        op = REG_RESTART;
        if (too_many_restarts(d)) {
            op = REG_DESTROY;
            log_error("domain", "%s: restarted %d times in %d s: it stays off", d->name,
                RESTART_LIMIT, RESTART_WINDOW_S);
        }
    }
    if (registry_act(m, d, op, NULL, NULL, NULL, &e) < 0)
        log_error("domain", "%s: %s after %s: %s", d->name, registry_op_name(op),
            hv_event_name(end), e.text);
}

static const char *event_type(enum hv_event_type t)
{
    static const char *const types[HV_EV_MAX] = { "domain-started", "domain-paused",
        "domain-unpaused", "domain-shutdown", "domain-reboot", "domain-crashed", "domain-gone" };

    return types[t];
}

static void ended(struct migrd *m, struct domain *d, enum hv_event_type type, const char *detail)
{
    if (d->ended != HV_EV_MAX || !d->live)
        return;
    registry_set_state(m, d, type == HV_EV_CRASHED ? HV_CRASHED : HV_SHUTDOWN);
    d->ended = d->last_end = type;
    registry_publish(m, d, event_type(type), detail);
    if (type == HV_EV_CRASHED)
        ++*events_counter(m->events, "migrd_domain_crashes_total", "Guests that crashed");
    if (d->mig != NULL)
        migration_guest_ended(m, d);
    registry_policy(m, d);
}

static void gone(struct migrd *m, struct domain *d, const char *detail)
{
    if (!d->live || d->busy != NULL)
        return; /* the operation's own result tells */
    registry_gone(m, d);
    registry_publish(m, d, "domain-gone", detail);
    if (d->mig != NULL)
        migration_guest_ended(m, d);
    else
        registry_drop_unused(m, d);
}

/* A hand-over or save under way stops the guest, and lets it go on if it fails. */
static void tell_moved(struct migrd *m, struct domain *d, enum hv_state before)
{
    bool was = before == HV_PAUSED, is = d->info.state == HV_PAUSED;

    if (d->mig != NULL && before != HV_INCOMING && d->ended == HV_EV_MAX && was != is)
        registry_publish(
            m, d, event_type(is ? HV_EV_PAUSED : HV_EV_RESUMED), migration_domain_state(d->mig));
}

/* `detail`: why, if nobody asked for it (hv_info.reason). */
static void running_or_paused(
    struct migrd *m, struct domain *d, enum hv_event_type type, const char *detail)
{
    enum hv_state before = d->info.state;

    if (!d->live || d->busy != NULL)
        return;
    registry_set_state(m, d, type == HV_EV_PAUSED ? HV_PAUSED : HV_RUNNING);
    snprintf(d->info.reason, sizeof d->info.reason, "%.*s", (int)sizeof d->info.reason - 1,
        type == HV_EV_PAUSED ? detail : "");
    if (detail[0] != '\0')
        registry_publish(m, d, event_type(type), detail);
    else
        tell_moved(m, d, before);
    if (d->info.fused)
        registry_refresh(m); /* was it its fuse? */
}

static void on_hv_event(struct migrd *m, const struct hv_event *ev)
{
    struct domain *d = registry_by_uuid(m->registry, ev->uuid);

    if (d == NULL)
        return;
    switch (ev->type) {
    case HV_EV_SHUTDOWN:
    case HV_EV_REBOOT:
    case HV_EV_CRASHED:
        ended(m, d, ev->type, ev->detail);
        break;
    case HV_EV_GONE:
        if (d->live && d->busy == NULL)
            registry_refresh(m);
        break;
    case HV_EV_PAUSED:
    case HV_EV_RESUMED:
        running_or_paused(m, d, ev->type, ev->detail);
        break;
    case HV_EV_STARTED:
    case HV_EV_MAX:
        break;
    }
}

static void events_ready(uv_poll_t *h, int status, int events)
{
    struct migrd *m = h->data;
    struct hv_event ev;
    struct err e;
    int r = 0;

    (void)events;
    if (status < 0)
        return;
    for (int i = 0; i < 256 && (r = m->hv_ops->next_event(m->hv, &ev, &e)) == 1; i++)
        on_hv_event(m, &ev);
    if (r < 0) {
        log_error("registry", "events of %s stop: %s; the poll goes on", m->hv_ops->name, e.text);
        uv_poll_stop(h);
    }
}

/* --- poll --- */

struct poll_job {
    struct job job; /* first */
    struct migrd *m;
    const struct hv_ops *ops;
    struct hv *hv;
    uint64_t asked; /* registry's changes when it was asked */
    struct hv_info *list;
    size_t n;
    char (*known)[HV_UUID_LEN]; /* domains whose definition need not be asked for */
    size_t n_known;
    Migrd__Domain **def; /* of list[i], if it was asked for */
    struct hv_caps caps;
    bool caps_ok;
};

static bool is_known(const struct poll_job *p, const char *uuid)
{
    for (size_t i = 0; i < p->n_known; i++)
        if (strcmp(p->known[i], uuid) == 0)
            return true;
    return false;
}

/* What they were started with, by whomever. */
static void ask_definitions(struct poll_job *p)
{
    struct err e;

    p->def = calloc(p->n + 1, sizeof(Migrd__Domain *));
    for (size_t i = 0; p->def != NULL && i < p->n; i++) {
        if (is_known(p, p->list[i].uuid))
            continue;
        p->def[i] = p->ops->definition(p->hv, p->list[i].uuid, &e);
        if (p->def[i] == NULL)
            log_debug("registry", "%s: its definition is not known: %s", p->list[i].name, e.text);
    }
}

static void poll_work(struct job *j)
{
    struct poll_job *p = (struct poll_job *)j;
    struct err e;

    j->result = p->ops->enumerate(p->hv, &p->list, &p->n, &j->err);
    if (j->result == 0)
        ask_definitions(p);
    p->caps_ok = p->ops->capabilities(p->hv, &p->caps, &e) == 0;
}

static const struct hv_info *find_info(const struct poll_job *p, const char *uuid)
{
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->list[i].uuid, uuid) == 0)
            return &p->list[i];
    return NULL;
}

static bool silent(const struct hv_info *info)
{
    return info->state == HV_CRASHED && info->domid < 0;
}

static void found_off(struct migrd *m, struct domain *d, const struct hv_info *info)
{
    if (info->reset)
        ended(m, d, HV_EV_REBOOT, "found reset");
    else
        ended(m, d, HV_EV_SHUTDOWN, "found powered off");
}

static void take_info(struct migrd *m, struct domain *d, const struct hv_info *info)
{
    enum hv_state before = d->info.state;
    bool blown = d->info.blown;

    if (silent(info))
        return;
    d->info = *info;
    if (info->state != before || info->blown != blown)
        ha_domain_changed(m, d);
    if (info->state == before || d->ended != HV_EV_MAX)
        return;
    /* An event that was missed, for example while migrd did not run. */
    if (info->state == HV_CRASHED)
        ended(m, d, HV_EV_CRASHED, "found crashed");
    else if (info->state == HV_SHUTDOWN)
        found_off(m, d, info);
    else
        tell_moved(m, d, before);
}

/* A domain that runs though nobody knew: an operator's own doing, or a start that timed out. */
static void adopt(struct poll_job *p, struct domain *d, const struct hv_info *info)
{
    Migrd__Domain **def = p->def != NULL ? &p->def[info - p->list] : NULL;
    struct migrd *m = p->m;
    struct err e;

    if (d == NULL)
        d = registry_add(m, info->uuid, info->name, &e);
    if (d == NULL)
        return;
    registry_set_live(m, d, true);
    d->info = *info;
    if (info->epoch > d->epoch)
        d->epoch = info->epoch;
    if (d->live_def == NULL && def != NULL && *def != NULL) {
        d->live_def = *def;
        *def = NULL;
    } else if (d->live_def == NULL && d->def != NULL) {
        d->live_def = define_copy(d->def);
    }
    registry_publish(m, d, "domain-found", "");
}

static void free_poll(struct poll_job *p)
{
    for (size_t i = 0; p->def != NULL && i < p->n; i++)
        if (p->def[i] != NULL)
            migrd__domain__free_unpacked(p->def[i], NULL);
    free(p->def);
    free(p->known);
    free(p->list);
    free(p);
}

static void poll_finish(struct job *j)
{
    struct poll_job *p = (struct poll_job *)j;
    struct migrd *m = p->m;
    struct registry *r = m->registry;

    r->polling = false;
    if (p->caps_ok) {
        m->caps.memory_free_kib = p->caps.memory_free_kib;
        m->caps.memory_total_kib = p->caps.memory_total_kib;
        m->caps.host_kib = p->caps.host_kib;
        m->caps.host_vcpus = p->caps.host_vcpus;
    }
    if (j->result < 0 && r->poll_failures++ == 0)
        log_error(
            "registry", "hypervisor %s does not list its domains: %s", p->ops->name, j->err.text);
    if (j->result == 0)
        r->poll_failures = 0;
    for (struct domain *d = r->domains, *next; j->result == 0 && d != NULL; d = next) {
        const struct hv_info *info = find_info(p, d->uuid);

        next = d->next;
        registry_expire_waiters(m, d, clock_ns());
        if (d->busy != NULL || d->changed > p->asked)
            continue;
        if (info != NULL && d->live)
            take_info(m, d, info);
        else if (info == NULL && d->live)
            gone(m, d, "its process has ended");
        else if (info != NULL && d->mig == NULL && !silent(info))
            adopt(p, d, info);
        else if (info == NULL)
            registry_drop_unused(m, d);
    }
    for (size_t i = 0; j->result == 0 && i < p->n; i++)
        if (registry_by_uuid(r, p->list[i].uuid) == NULL && r->changes == p->asked)
            adopt(p, NULL, &p->list[i]);
    free_poll(p);
    if (r->poll_again)
        registry_refresh(m);
}

static void note_known(struct poll_job *p, const struct registry *r)
{
    p->known = calloc(r->n_domains + 1, sizeof *p->known);
    for (const struct domain *d = r->domains; p->known != NULL && d != NULL; d = d->next)
        if (d->live_def != NULL && p->n_known < r->n_domains)
            memcpy(p->known[p->n_known++], d->uuid, sizeof d->uuid);
}

void registry_refresh(struct migrd *m)
{
    struct registry *r = m->registry;
    struct poll_job *p;

    if (r == NULL || r->stopping)
        return;
    if (r->polling) {
        r->poll_again = true;
        return;
    }
    r->poll_again = false;
    p = calloc(1, sizeof *p);
    if (p == NULL)
        return;
    p->job.work = poll_work;
    p->job.done = poll_finish;
    p->m = m;
    p->ops = m->hv_ops;
    p->hv = m->hv;
    p->asked = r->changes;
    note_known(p, r);
    r->polling = true;
    job_run(m->loop, &p->job);
}

static void poll_due(uv_timer_t *t)
{
    registry_refresh(t->data);
}

int registry_start(struct migrd *m, struct err *e)
{
    struct registry *r = m->registry;
    int fd = m->hv_ops->event_fd(m->hv), rc;

    uv_timer_init(m->loop, &r->poll_timer);
    r->poll_timer.data = m;
    r->timer_open = true;
    uv_timer_start(&r->poll_timer, poll_due, REGISTRY_POLL_MS, REGISTRY_POLL_MS);
    /* Ends that happened while no migrd was there. */
    for (struct domain *d = r->domains, *next; d != NULL; d = next) {
        next = d->next;
        if (d->live && d->mig == NULL && d->info.state == HV_CRASHED && !silent(&d->info))
            ended(m, d, HV_EV_CRASHED, "found crashed");
        else if (d->live && d->mig == NULL && d->info.state == HV_SHUTDOWN)
            found_off(m, d, &d->info);
    }
    if (fd < 0)
        return 0;
    rc = uv_poll_init(m->loop, &r->event_poll, fd);
    if (rc < 0)
        return err_set(e, ERR_SYSTEM, "events of the hypervisor: %s", uv_strerror(rc));
    r->event_poll.data = m;
    r->events_open = true;
    uv_poll_start(&r->event_poll, UV_READABLE, events_ready);
    return 0;
}

void registry_stop(struct migrd *m)
{
    struct registry *r = m->registry;

    if (r == NULL || r->stopping)
        return;
    r->stopping = true;
    if (r->timer_open)
        uv_close((uv_handle_t *)&r->poll_timer, NULL);
    if (r->events_open)
        uv_close((uv_handle_t *)&r->event_poll, NULL);
}
