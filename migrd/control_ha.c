/* SPDX-License-Identifier: ISC */
/*
 * Requests about high availability. A command goes to the cluster's log under the name of who asks
 * for it; the pool looks that name up, since the system's user database may be a server. Its answer
 * comes when the log has decided, or says after the wait why it has not.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pbjson.h"
#include "migrd/control_internal.h"
#include "migrd/ha.h"
#include "migrd/ha_overview.h"
#include "migrd/job.h"
#include "migrd/registry.h"

#define WAIT_S 30
#define WAIT_S_MAX 3600
#define DEFINITION_MAX (64u << 10) /* what the core takes */
#define WHO_LEN 64

struct ask {
    struct job job;
    struct request *r;
    Migrd__HaCommand *command;
    unsigned within_ms;
    uid_t uid;
    char who[WHO_LEN];
};

/* The cluster, or NULL and answered. */
static struct cluster *the_cluster(struct client *c, uint32_t serial)
{
    struct cluster *cluster = ha_cluster(c->m);

    if (cluster == NULL)
        control_fail(c, serial,
            &(struct err){ ERR_STATE, "this host is in no cluster: `migctl cluster init` or `join` "
                                      "sets corosync up, then "
                                      "set cluster = yes in migrd.conf and restart migrd" });
    return cluster;
}

/* --- names to numbers --- */

static int node_of(struct cluster *c, const char *name, uint32_t *out, struct err *e)
{
    *out = cluster_node_id(c, name);
    if (*out == 0)
        return err_set(e, ERR_NOT_FOUND,
            "node %.64s is not in the cluster; `migctl node list` shows those that are", name);
    return 0;
}

static int nodes_of(struct cluster *c, char **names, size_t n, uint32_t **list, size_t *n_list,
    size_t max, struct err *e)
{
    if (n == 0)
        return 0;
    if (n > max)
        return err_set(e, ERR_INVALID, "at most %zu nodes can be named there", max);
    free(*list);
    *n_list = 0;
    *list = calloc(n, sizeof **list);
    if (*list == NULL)
        return err_set(e, ERR_MEMORY, "migrd is out of memory");
    for (size_t i = 0; i < n; i++)
        if (node_of(c, names[i], &(*list)[(*n_list)++], e) < 0)
            return -1;
    return 0;
}

/* By name or uuid, of those that the log has. */
static const Migrd__HaDomain *protected_domain(struct cluster *c, const char *which)
{
    const Migrd__HaDomain *d = cluster_find(c, which);
    const Migrd__HaState *s = d == NULL ? cluster_state(c) : NULL;

    for (size_t i = 0; s != NULL && d == NULL && i < s->n_domain; i++)
        if (strcmp(s->domain[i]->name, which) == 0)
            d = s->domain[i];
    return d;
}

static int find_protected(
    struct migrd *m, struct cluster *c, const char *which, char **uuid, struct err *e)
{
    const Migrd__HaDomain *d = protected_domain(c, which);
    const struct domain *here = d == NULL ? registry_find(m->registry, which) : NULL;

    if (here != NULL) /* by its id */
        d = cluster_find(c, here->uuid);
    if (d == NULL)
        return err_set(e, ERR_NOT_FOUND,
            "domain %.64s is not protected; `migctl ha status` lists those that are", which);
    *uuid = strdup(d->uuid);
    return *uuid != NULL ? 0 : err_set(e, ERR_MEMORY, "migrd is out of memory");
}

/* --- a domain that is added --- */

/* What a START on any host will need. */
static int put_definition(Migrd__HaDomain *x, const Migrd__Domain *def, struct err *e)
{
    size_t len = migrd__domain__get_packed_size(def);

    if (len > DEFINITION_MAX)
        return err_set(e, ERR_INVALID, "the definition of %s has %zu bytes; at most %u can be kept",
            def->name, len, DEFINITION_MAX);
    x->definition.data = malloc(len > 0 ? len : 1);
    if (x->definition.data == NULL)
        return err_set(e, ERR_MEMORY, "migrd is out of memory");
    x->definition.len = migrd__domain__pack(def, x->definition.data);
    x->memory_kib = def->max_memory_kib > def->memory_kib ? def->max_memory_kib : def->memory_kib;
    x->vcpus = def->vcpus;
    return 0;
}

static int may_be_added(const struct migrd *m, const struct domain *d, struct err *e)
{
    if (d->mig != NULL || d->busy != NULL)
        return err_set(e, ERR_STATE, "domain %s is busy (%s): add it when that has ended", d->name,
            d->busy != NULL ? d->busy : registry_state(d));
    if (d->doubt)
        return err_set(e, ERR_STATE,
            "domain %s is in doubt: decide with `migctl resolve` first, then add it", d->name);
    if (!d->live && !registry_owned(m, d))
        return err_set(e, ERR_STATE, "domain %s runs on host %s: add it there", d->name, d->owner);
    return 0;
}

static int fill_added(struct migrd *m, Migrd__HaCommand *q, const char *which, struct err *e)
{
    const struct domain *d = registry_find(m->registry, which);
    Migrd__HaDomain *x = q->domain;

    if (d == NULL)
        return err_set(e, ERR_NOT_FOUND,
            "no domain %.64s on host %s: ask on the host that runs or defines it", which,
            m->host_name);
    if (may_be_added(m, d, e) < 0)
        return -1;
    x->uuid = strdup(d->uuid);
    x->name = strdup(d->name);
    if (x->uuid == NULL || x->name == NULL)
        return err_set(e, ERR_MEMORY, "migrd is out of memory");
    x->obeys_fuse = m->hv_ops->fuse != NULL;
    q->epoch = d->live && d->info.epoch > d->epoch ? d->info.epoch : d->epoch;
    q->node = d->live ? cluster_own_id(ha_cluster(m)) : 0;
    return put_definition(x, registry_definition(d), e);
}

/* SET of what this host has now. */
static int fill_set(struct migrd *m, Migrd__HaCommand *q, const char *which, struct err *e)
{
    const struct domain *d;
    bool wanted = false;

    for (size_t i = 0; i < q->n_set; i++)
        wanted = wanted || strcmp(q->set[i], "definition") == 0;
    if (!wanted)
        return 0;
    d = registry_find(m->registry, which);
    if (d == NULL)
        return err_set(e, ERR_NOT_FOUND,
            "no domain %.64s on host %s: ask on the host that has the new definition", which,
            m->host_name);
    if (q->domain == NULL || q->domain->definition.len > 0)
        return err_set(e, ERR_INVALID, "a definition is taken from the host, not from a request");
    return put_definition(q->domain, registry_definition(d), e);
}

/* --- a command --- */

static bool for_operators(Migrd__HaCommandKind kind)
{
    return kind >= MIGRD__HA_COMMAND_KIND__HA_ADD && kind <= MIGRD__HA_COMMAND_KIND__HA_RELEASE;
}

static int give_domain(Migrd__HaCommand *q, struct err *e)
{
    if (q->domain != NULL)
        return 0;
    q->domain = malloc(sizeof *q->domain);
    if (q->domain == NULL)
        return err_set(e, ERR_MEMORY, "migrd is out of memory");
    migrd__ha_domain__init(q->domain);
    return 0;
}

static int fill_policy(
    struct cluster *c, const Migrd__HaRequest *rq, Migrd__HaPolicy *p, struct err *e)
{
    if (p == NULL)
        return 0;
    if (nodes_of(c, rq->preferred, rq->n_preferred, &p->preferred, &p->n_preferred, 8, e) < 0)
        return -1;
    return nodes_of(c, rq->only, rq->n_only, &p->only, &p->n_only, HA_NODES_MAX, e);
}

/* The command of `rq` with numbers for names; the caller frees. NULL: *e. */
static Migrd__HaCommand *prepare(struct migrd *m, const Migrd__HaRequest *rq, struct err *e)
{
    struct cluster *c = ha_cluster(m);
    Migrd__HaCommand *q = rq->command != NULL ? pb_copy(&rq->command->base) : NULL;
    int rc = 0;

    if (q == NULL || !for_operators(q->kind)) {
        err_set(e, ERR_UNSUPPORTED, "this migrd does not know the command; is the tool newer?");
        rc = -1;
    } else if (q->kind == MIGRD__HA_COMMAND_KIND__HA_ADD) {
        rc = give_domain(q, e) < 0 ? -1 : fill_added(m, q, rq->domain, e);
    } else if (rq->domain[0] != '\0') {
        free(q->uuid != protobuf_c_empty_string ? q->uuid : NULL);
        q->uuid = (char *)(uintptr_t)protobuf_c_empty_string;
        rc = find_protected(m, c, rq->domain, &q->uuid, e);
        if (rc == 0 && q->kind == MIGRD__HA_COMMAND_KIND__HA_SET)
            rc = fill_set(m, q, rq->domain, e);
    }
    if (rc == 0 && rq->node[0] != '\0')
        rc = node_of(c, rq->node, &q->node, e);
    if (rc == 0 && q->domain != NULL)
        rc = fill_policy(c, rq, q->domain->policy, e);
    if (rc == 0)
        return q;
    if (q != NULL)
        migrd__ha_command__free_unpacked(q, NULL);
    return NULL;
}

/* What the log said; while it can't decide, the reason in the operator's words. */
static void answer_failed(struct request *r, const Migrd__HaAnswer *a)
{
    struct err e;
    char why[700];

    if (ha_undecided(r->c->m, why, sizeof why))
        err_set(&e, ERR_STATE, "%s%s", why,
            strcmp(a->text, DECIDED_LATER) == 0
                ? "; the command was taken and may still be decided later"
                : "");
    else
        err_set(&e, ERR_STATE, "%s", a->text[0] != '\0' ? a->text : "the cluster refused");
    control_fail(r->c, r->serial, &e);
}

static void decided(void *arg, const Migrd__HaAnswer *a)
{
    struct request *r = arg;
    Migrd__Reply reply = MIGRD__REPLY__INIT;

    if (a == NULL) {
        control_fail(r->c, r->serial,
            &(struct err){ ERR_STATE, "migrd is stopping; `migctl ha status` on another host says "
                                      "whether it was decided" });
    } else if (!a->ok) {
        answer_failed(r, a);
    } else {
        reply.ha_answer = (Migrd__HaAnswer *)(uintptr_t)a;
        control_send(r->c, r->serial, &reply, true);
    }
    request_end(r);
}

static void look_up_who(struct job *j)
{
    struct ask *a = (struct ask *)j;
    char buf[4096];
    struct passwd pw, *found = NULL;

    if (getpwuid_r(a->uid, &pw, buf, sizeof buf, &found) == 0 && found != NULL)
        snprintf(a->who, sizeof a->who, "%.63s", found->pw_name);
    else
        snprintf(a->who, sizeof a->who, "uid %u", a->uid);
}

static void who_is_known(struct job *j)
{
    struct ask *a = (struct ask *)j;
    struct cluster *c = ha_cluster(a->r->c->m);
    struct err e;

    if (a->command->who != protobuf_c_empty_string)
        free(a->command->who);
    a->command->who = a->who;
    if (c == NULL) {
        decided(a->r, NULL);
    } else if (cluster_ask(c, a->command, a->within_ms, decided, a->r, &e) < 0) {
        control_fail(a->r->c, a->r->serial, &e);
        request_end(a->r);
    }
    a->command->who = (char *)(uintptr_t)protobuf_c_empty_string;
    migrd__ha_command__free_unpacked(a->command, NULL);
    free(a);
}

static void audit(const struct client *c, const Migrd__HaRequest *rq)
{
    char kind[64], on[200];

    pbjson_enum(&migrd__ha_command_kind__descriptor, (int)rq->command->kind, kind, sizeof kind);
    snprintf(on, sizeof on, "%s %.60s%.60s%s", kind, rq->domain, rq->node,
        rq->command->dry_run ? " (asked only)" : "");
    control_audit(c, "ha", on);
}

void control_ha(struct client *c, const Migrd__Request *rq)
{
    const Migrd__HaRequest *q = rq->ha;
    unsigned wait_s = q->wait_s == 0 ? WAIT_S : q->wait_s < WAIT_S_MAX ? q->wait_s : WAIT_S_MAX;
    Migrd__HaCommand *command;
    struct ask *a = NULL;
    struct err e;

    if (the_cluster(c, rq->serial) == NULL)
        return;
    command = prepare(c->m, q, &e);
    if (command == NULL) {
        control_fail(c, rq->serial, &e);
        return;
    }
    audit(c, q);
    a = calloc(1, sizeof *a);
    if (a == NULL)
        control_fail(c, rq->serial, &(struct err){ ERR_MEMORY, "migrd is out of memory" });
    else
        a->r = request_new(c, rq);
    if (a == NULL || a->r == NULL) {
        migrd__ha_command__free_unpacked(command, NULL);
        free(a);
        return;
    }
    a->job.work = look_up_who;
    a->job.done = who_is_known;
    a->command = command;
    a->within_ms = wait_s * 1000;
    a->uid = c->uid;
    job_run(c->m->loop, &a->job);
}

/* --- questions --- */

static void answer_plan(struct client *c, uint32_t serial, Migrd__HaPlan *plan)
{
    Migrd__Reply r = MIGRD__REPLY__INIT;

    if (plan == NULL) {
        control_fail(c, serial, &(struct err){ ERR_MEMORY, "migrd is out of memory" });
        return;
    }
    r.ha_plan = plan;
    control_send(c, serial, &r, true);
    migrd__ha_plan__free_unpacked(plan, NULL);
}

static void answer_overview(struct client *c, uint32_t serial)
{
    Migrd__HaOverview *o = ha_overview(c->m);
    Migrd__Reply r = MIGRD__REPLY__INIT;

    if (o == NULL) {
        control_fail(c, serial, &(struct err){ ERR_MEMORY, "migrd is out of memory" });
        return;
    }
    r.ha = o;
    control_send(c, serial, &r, true);
    migrd__ha_overview__free_unpacked(o, NULL);
}

static void what_if(struct client *c, uint32_t serial, const Migrd__GetHa *q)
{
    struct cluster *cluster = ha_cluster(c->m);
    uint32_t *dead = NULL;
    size_t n = 0;
    struct err e;

    if (nodes_of(cluster, q->nodes, q->n_nodes, &dead, &n, HA_NODES_MAX, &e) < 0)
        control_fail(c, serial, &e);
    else
        answer_plan(c, serial, cluster_what_if(cluster, dead, (unsigned)n));
    free(dead);
}

static void explain(struct client *c, uint32_t serial, const char *which)
{
    struct cluster *cluster = ha_cluster(c->m);
    char *uuid = NULL;
    struct err e;

    if (find_protected(c->m, cluster, which, &uuid, &e) < 0)
        control_fail(c, serial, &e);
    else
        answer_plan(c, serial, cluster_explain(cluster, uuid));
    free(uuid);
}

void control_get_ha(struct client *c, const Migrd__Request *rq)
{
    const Migrd__GetHa *q = rq->get_ha;

    if (the_cluster(c, rq->serial) == NULL)
        return;
    switch (q->question) {
    case MIGRD__HA_QUESTION__HA_OVERVIEW:
        answer_overview(c, rq->serial);
        break;
    case MIGRD__HA_QUESTION__HA_EXPLAIN:
        explain(c, rq->serial, q->domain);
        break;
    case MIGRD__HA_QUESTION__HA_WHAT_IF:
        what_if(c, rq->serial, q);
        break;
    default:
        control_fail(c, rq->serial,
            &(struct err){
                ERR_UNSUPPORTED, "this migrd does not know the question; is the tool newer?" });
    }
}
