/* SPDX-License-Identifier: ISC */
/*
 * Operations on one domain, in the pool, one at a time per domain. A start is a change of
 * epoch: the record (owner, epoch) is durable before the hypervisor is asked. Nothing
 * here acts on a domain that a migration holds.
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
#include "migrd/journal.h"
#include "migrd/migration.h"
#include "migrd/registry_internal.h"

struct op_job {
    struct job job; /* first */
    struct migrd *m;
    const struct hv_ops *ops;
    struct hv *hv;
    struct journal *journal;
    enum registry_op op;
    char uuid[HV_UUID_LEN];
    char name[HV_NAME_LEN];
    uint64_t epoch;       /* the domain's */
    uint64_t start_epoch; /* of a new boot */
    int domid;
    enum hv_proof proof;
    bool blown; /* the cluster's log says when it runs */
    struct registry_args args; /* zeroes if there are none */
    Migrd__Domain *def;
    struct hv_info built; /* a start: as it was right after it; uuid "" not known */
    bool gone; /* result of a restart: destroyed, but not started */
    registry_done *done;
    void *arg;
};

static const char *const op_names[REG_OP_MAX] = { [REG_START] = "start",
    [REG_PAUSE] = "pause",
    [REG_UNPAUSE] = "unpause",
    [REG_SHUTDOWN] = "shutdown",
    [REG_REBOOT] = "reboot",
    [REG_DESTROY] = "destroy",
    [REG_RESTART] = "restart",
    [REG_SET_MEMORY] = "set-memory",
    [REG_PIN] = "vcpu-pin",
    [REG_SET_VCPUS] = "vcpu-set",
    [REG_SCHED] = "sched-credit" };

const char *registry_op_name(enum registry_op op)
{
    return op_names[op];
}

/* --- in the pool --- */

static int boot(struct op_job *o, struct err *e)
{
    const struct hv_start how = {
        .epoch = o->start_epoch, .domid = o->domid, .paused = o->args.paused, .blown = o->blown,
        .proven = o->proof
    };
    struct journal_record r = { .kind = JK_DOMAIN, .epoch = o->start_epoch, .domid = o->domid };

    snprintf(r.uuid, sizeof r.uuid, "%s", o->uuid);
    snprintf(r.name, sizeof r.name, "%s", o->name);
    strcpy(r.peer, ".");
    strcpy(r.text, "start");
    if (journal_append(o->journal, &r, true, e) < 0)
        return -1;
    if (o->ops->start(o->hv, o->def, &how, e) < 0)
        return -1;
    /* Its number; and does it run already? A fuse may have been waiting for it. */
    if (o->ops->info(o->hv, o->uuid, &o->built, e) < 0)
        o->built.uuid[0] = '\0';
    return 0;
}

static int destroy(struct op_job *o, struct err *e)
{
    if (o->ops->destroy(o->hv, o->uuid, o->epoch, e) == 0)
        return 0;
    return e->code == ERR_NOT_FOUND ? 0 : -1;
}

static int act(struct op_job *o, struct err *e)
{
    switch (o->op) {
    case REG_START:
        return boot(o, e);
    case REG_PAUSE:
        return o->ops->pause(o->hv, o->uuid, o->epoch, e);
    case REG_UNPAUSE:
        return o->ops->resume(o->hv, o->uuid, o->epoch, e);
    case REG_SHUTDOWN:
        return o->ops->shutdown(o->hv, o->uuid, false, e);
    case REG_REBOOT:
        return o->ops->shutdown(o->hv, o->uuid, true, e);
    case REG_DESTROY:
        return destroy(o, e);
    case REG_RESTART:
        if (destroy(o, e) < 0)
            return -1;
        o->gone = true;
        return boot(o, e);
    case REG_SET_MEMORY:
        return o->ops->set_memory(o->hv, o->uuid, o->args.memory_kib, e);
    case REG_PIN:
        return o->ops->pin(o->hv, o->uuid, o->args.vcpu, &o->args.cpus, e);
    case REG_SET_VCPUS:
        return o->ops->set_vcpus(o->hv, o->uuid, o->args.vcpus, e);
    case REG_SCHED:
        return o->ops->sched_set(o->hv, o->uuid, &o->args.sched, e);
    case REG_OP_MAX:
        break;
    }
    return err_set(e, ERR_INTERNAL, "unknown operation %d", (int)o->op);
}

static void op_work(struct job *j)
{
    struct op_job *o = (struct op_job *)j;

    j->result = act(o, &j->err);
    if (j->result == 0)
        err_clear(&j->err);
}

/* --- back in the loop --- */

static void started(struct migrd *m, struct domain *d, struct op_job *o)
{
    registry_set_live(m, d, true);
    if (d->live_def != NULL)
        migrd__domain__free_unpacked(d->live_def, NULL);
    d->live_def = o->def;
    o->def = NULL;
    d->info = (struct hv_info){ .domid = o->domid,
        .state = o->args.paused || o->blown ? HV_PAUSED : HV_RUNNING,
        .fused = o->blown,
        .blown = o->blown,
        .epoch = o->start_epoch,
        .memory_kib = d->live_def->memory_kib,
        .max_memory_kib = d->live_def->max_memory_kib,
        .vcpus = d->live_def->vcpus,
        .pid = -1 };
    if (o->built.uuid[0] != '\0')
        d->info = o->built;
    d->start_wall_ns = clock_wall_ns();
    d->ended = d->last_end = HV_EV_MAX;
    registry_set_owner(m, d, m->host_name, o->start_epoch);
    ha_made(m, d->uuid);
    registry_publish(m, d, "domain-started", "");
}

/* What the hypervisor's definition of it has, too. */
static void note_cpus(struct migrd *m, struct domain *d, const struct op_job *o)
{
    const struct registry_args *a = &o->args;
    char text[300], *list;
    struct err e;

    if (o->op == REG_PIN) {
        list = hv_cpus_list(&a->cpus);
        snprintf(text, sizeof text, "vcpu %u: %.200s", a->vcpu,
            list == NULL ? "?" : list[0] != '\0' ? list : "any CPU");
        if (list != NULL && d->live_def != NULL &&
            hv_set_vcpu_pinning(d->live_def, a->vcpu, list, &e) < 0)
            log_error("domain", "%s: %s", d->name, e.text);
        free(list);
    } else if (o->op == REG_SCHED) {
        snprintf(text, sizeof text, "weight %u, cap %u", a->sched.weight, a->sched.cap);
        if (d->live_def != NULL)
            define_set_sched(d->live_def, a->sched.weight, a->sched.cap);
    } else {
        snprintf(text, sizeof text, "%u vCPUs", a->vcpus);
        d->info.vcpus = a->vcpus;
    }
    registry_publish(m, d, "domain-cpus", text);
}

static void apply(struct migrd *m, struct domain *d, struct op_job *o)
{
    switch (o->op) {
    case REG_START:
        started(m, d, o);
        break;
    case REG_RESTART:
        registry_publish(m, d, "domain-destroyed", "");
        started(m, d, o);
        break;
    case REG_DESTROY:
        registry_gone(m, d);
        registry_publish(m, d, "domain-destroyed", "");
        if (d->mig != NULL)
            migration_guest_ended(m, d);
        break;
    case REG_PAUSE:
        registry_set_state(m, d, HV_PAUSED);
        registry_publish(m, d, "domain-paused", "");
        break;
    case REG_UNPAUSE:
        registry_set_state(m, d, HV_RUNNING);
        registry_publish(m, d, "domain-unpaused", "");
        break;
    case REG_SHUTDOWN:
    case REG_REBOOT:
        registry_publish(
            m, d, o->op == REG_REBOOT ? "domain-reboot-asked" : "domain-shutdown-asked", "");
        break;
    case REG_SET_MEMORY:
        d->info.memory_kib = o->args.memory_kib;
        registry_publish(m, d, "domain-memory", "");
        break;
    case REG_PIN:
    case REG_SET_VCPUS:
    case REG_SCHED:
        note_cpus(m, d, o);
        break;
    case REG_OP_MAX:
        break;
    }
}

static void op_finish(struct job *j)
{
    struct op_job *o = (struct op_job *)j;
    struct migrd *m = o->m;
    struct domain *d = registry_by_uuid(m->registry, o->uuid);

    if (d != NULL) { /* busy keeps it, but be sure */
        d->busy = NULL;
        registry_touch(m, d);
        if (j->result == 0) {
            apply(m, d, o);
        } else {
            log_error("domain", "%s: %s failed: %s", d->name, op_names[o->op], j->err.text);
            if (o->gone || (o->op == REG_START && d->live))
                registry_gone(m, d);
            if (o->gone)
                registry_publish(m, d, "domain-destroyed", "");
            if (o->op == REG_START && !d->live)
                registry_set_live(m, d, false); /* drops live_def of a failed start */
        }
        registry_refresh(m);
    }
    if (o->done != NULL)
        o->done(o->arg, o->uuid, &j->err);
    d = registry_by_uuid(m->registry, o->uuid);
    if (d != NULL && d->ended != HV_EV_MAX && d->busy == NULL)
        registry_policy(m, d);
    else if (d != NULL)
        registry_drop_unused(m, d);
    if (o->def != NULL)
        migrd__domain__free_unpacked(o->def, NULL);
    free(o);
}

/* --- may it be done? --- */

static int check_may_run(const struct migrd *m, const struct domain *d, struct err *e)
{
    if (d->doubt)
        return err_set(e, ERR_STATE,
            "domain %s: the journal was damaged where it spoke of it, so it is not known whether "
            "it runs on another host; look there, then: migctl resolve %s --run-here --force "
            "--reason ...",
            d->name, d->name);
    if (!registry_owned(m, d))
        return err_set(e, ERR_STATE,
            "domain %s was given to host %s (epoch %llu); start it there, or, if it ended there: "
            "migctl resolve %s --run-here --force --reason ...",
            d->name, d->owner, (unsigned long long)d->epoch, d->name);
    return 0;
}

static int check_start(struct migrd *m, struct domain *d, bool decided, struct err *e)
{
    const Migrd__Domain *def = registry_definition(d);

    if (d->live)
        return err_set(e, ERR_STATE, "domain %s is %s already", d->name, registry_state(d));
    if (!decided && check_may_run(m, d, e) < 0)
        return -1;
    if (def->huge_pages)
        return 0; /* its process tells whether there are enough */
    return registry_fits(
        m, d, m->caps.memory_free_kib, m->caps.memory_total_kib - m->caps.host_kib,
        def->memory_kib, e);
}

static int check(struct migrd *m, struct domain *d, enum registry_op op,
    const struct registry_args *args, struct err *e)
{
    const bool decided = args != NULL && args->decided;
    const bool held = d->mig != NULL && !(decided && op == REG_DESTROY);

    if (held && migration_in_doubt(d->mig))
        return err_set(e, ERR_STATE,
            "domain %s is in doubt: its hand-over has no answer yet; bring the other host back, or "
            "decide with migctl resolve",
            d->name);
    if (held)
        return err_set(e, ERR_STATE, "domain %s is busy: migration in progress", d->name);
    if (d->busy != NULL)
        return err_set(e, ERR_STATE, "domain %s is busy: %s", d->name, d->busy);
    if (op == REG_START)
        return check_start(m, d, decided, e);
    if (!d->live)
        return err_set(e, ERR_STATE, "domain %s does not run here: it is %s%s%s", d->name,
            registry_state(d), registry_owned(m, d) ? "" : ", given to host ",
            registry_owned(m, d) ? "" : d->owner);
    /* A doubt does not count for what ran here until it crashed; an owner elsewhere does. */
    if (!decided && (op == REG_UNPAUSE || (op == REG_RESTART && !registry_owned(m, d))) &&
        check_may_run(m, d, e) < 0)
        return -1;
    if (op == REG_SET_MEMORY && (args == NULL || args->memory_kib < 1024))
        return err_set(e, ERR_INVALID, "domain %s: memory must be at least 1 MiB", d->name);
    if (op == REG_SET_MEMORY && args->memory_kib > d->info.max_memory_kib)
        return err_set(e, ERR_INVALID, "domain %s: at most %llu MiB (maxmem)", d->name,
            (unsigned long long)d->info.max_memory_kib / 1024);
    return 0;
}

/* --- holds --- */

int registry_hold(struct domain *d, const char *why, struct err *e)
{
    if (d->mig != NULL || d->busy != NULL)
        return err_set(e, ERR_STATE, "domain %s is busy: %s", d->name,
            d->busy != NULL ? d->busy : "migration in progress");
    d->busy = why;
    return 0;
}

void registry_unhold(struct migrd *m, const char *uuid, const char *why)
{
    struct domain *d = registry_by_uuid(m->registry, uuid);

    if (d == NULL || d->busy != why)
        return;
    d->busy = NULL;
    if (d->ended != HV_EV_MAX)
        registry_policy(m, d);
    else
        registry_drop_unused(m, d);
}

/* --- starting an operation --- */

/* A restarted domain boots as defined now; a transient one as it was made. */
static Migrd__Domain *boot_definition(const struct domain *d, enum registry_op op)
{
    if (op != REG_START && op != REG_RESTART)
        return NULL;
    if (d->def != NULL && (op == REG_RESTART || d->live_def == NULL))
        return define_copy(d->def);
    return d->live_def != NULL ? define_copy(d->live_def) : NULL;
}

/* Under which epoch, on which word. What the cluster protects is reset under the epoch that the log
 * gave it. */
static void take_epoch(struct op_job *o, const struct migrd *m, const struct domain *d)
{
    const struct ownership *own = registry_ownership(m->registry, d->uuid);
    const bool starts = o->op == REG_START || o->op == REG_RESTART;

    o->epoch = d->live && d->info.epoch > d->epoch ? d->info.epoch : d->epoch;
    if (o->args.decided || (o->op == REG_RESTART && ha_protected(m, d->uuid, NULL))) {
        o->epoch = d->live ? d->info.epoch : o->args.epoch;
        o->start_epoch = o->op == REG_START ? o->args.epoch : o->epoch;
        o->blown = starts;
        o->proof = HV_PROOF_CLUSTER;
        return;
    }
    o->start_epoch = o->epoch + 1;
    if (own != NULL && own->proven_epoch != 0 && own->proven_epoch == o->epoch)
        o->proof = HV_PROOF_WORD;
}

static int act_here(struct migrd *m, struct domain *d, enum registry_op op,
    const struct registry_args *args, registry_done *done, void *arg, struct err *e)
{
    struct op_job *o;

    if (check(m, d, op, args, e) < 0)
        return -1;
    o = calloc(1, sizeof *o);
    if (o == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", d->name);
    o->def = boot_definition(d, op);
    if ((op == REG_START || op == REG_RESTART) && o->def == NULL) {
        free(o);
        return err_set(e, ERR_STATE, "domain %s: its definition is not known", d->name);
    }
    o->job.work = op_work;
    o->job.done = op_finish;
    o->m = m;
    o->ops = m->hv_ops;
    o->hv = m->hv;
    o->journal = m->journal;
    o->op = op;
    snprintf(o->uuid, sizeof o->uuid, "%s", d->uuid);
    snprintf(o->name, sizeof o->name, "%s", d->name);
    if (args != NULL)
        o->args = *args;
    take_epoch(o, m, d);
    if (op == REG_START || op == REG_RESTART)
        o->domid = registry_next_domid(m);
    o->done = done;
    o->arg = arg;
    d->busy = op_names[op];
    if (op == REG_START)
        ha_domain_starts(m, d);
    job_run(m->loop, &o->job);
    return 0;
}

int registry_act(struct migrd *m, struct domain *d, enum registry_op op,
    const struct registry_args *args, registry_done *done, void *arg, struct err *e)
{
    int taken = args != NULL && args->decided ? 0 : ha_operator(m, d, op, args, done, arg, e);

    if (taken != 0)
        return taken < 0 ? -1 : 0;
    return act_here(m, d, op, args, done, arg, e);
}
