/* SPDX-License-Identifier: ISC */
/*
 * Hand-overs of protected domains: what the cluster's log is asked, and what its answers mean to
 * the tables. e is the source's epoch, e+1 the target's, e+2 the source's after TAKE_BACK.
 *
 *   question    answer                                          event
 *   BEGIN       ok                                              OP_OK
 *               no                                              OP_FAILED
 *   HANDOVER    ok                                              LOG_THEIRS
 *   TAKE_BACK   ok                                              LOG_BACK
 *   these, no; and OWNER, ok: by the record
 *               (us, e)                                         LOG_OURS
 *               (us, e+2), and it is not being started          LOG_BACK
 *               (target, e+1)                                   LOG_THEIRS
 *               a newer epoch                                   LOG_ELSE
 *   OWNER       no                                              LOG_NONE
 *   END         ok, or the domain is protected no longer        OP_OK
 *               no                                              LOG_NONE
 *
 * HANDOVER is asked once. Its "no" is final: it was decided so, or it was never proposed. So is the
 * record that comes with it, as far as it is not older than what we know: epochs only grow.
 *
 * A question stays open until the log has decided, however long that takes; only the patience for
 * BEGIN, and for OWNER where the target can be asked as well, ends by a timer. An answer to a
 * question that was given up is not looked at.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "migrd/migration_internal.h"

#define BEGIN_MS 10000
#define LOOK_MS 3000
#define AGAIN_MS 1000
#define JOIN_MS 100 /* this host has not joined yet: just after a start */
#define TARGET_AGAIN_MS 1500

#define KIND(name) MIGRD__HA_COMMAND_KIND__HA_##name

struct log_ask {
    struct migration *g; /* NULL: given up */
    enum mt_op op;
};

/* --- who is meant --- */

static uint32_t own_id(const struct migrd *m)
{
    struct cluster *c = ha_cluster(m);

    return c != NULL ? cluster_own_id(c) : 0;
}

/* The first part of a name, up to its first dot; an address has none. */
static size_t short_name(const char *name)
{
    return strspn(name, "0123456789.:") == strlen(name) ? strlen(name) : strcspn(name, ".");
}

static bool same_host(const char *a, const char *b)
{
    size_t n = short_name(a);

    if (a[0] == '\0' || b[0] == '\0')
        return false;
    /* "alpha" and "alpha.example.net", but not "alpha.example.net" and "alpha.example.org" */
    return strcmp(a, b) == 0 ||
           (n == short_name(b) && strncmp(a, b, n) == 0 && (a[n] == '\0' || b[n] == '\0'));
}

uint32_t mig_log_node(const struct migrd *m, const char *host)
{
    struct cluster *c = ha_cluster(m);
    const Migrd__HaState *s = c != NULL ? cluster_state(c) : NULL;
    uint32_t found = c != NULL && host[0] != '\0' ? cluster_node_id(c, host) : 0;

    for (size_t i = 0; s != NULL && found == 0 && i < s->n_nodes; i++)
        if (strcmp(cluster_node_address(c, s->nodes[i]), host) == 0 ||
            same_host(cluster_node_name(c, s->nodes[i]), host))
            found = s->nodes[i];
    return found;
}

/* --- may it begin? --- */

static int refuse_unsure(const struct migrd *m, const char *name, struct err *e)
{
    return err_set(e, ERR_STATE,
        "the cluster's log is not caught up on host %s, so that nobody knows whether %s is "
        "protected "
        "by HA: migctl ha status says why; try again when it is",
        m->host_name, name);
}

int mig_log_may_leave(
    const struct migrd *m, const struct domain *d, const char *host, uint32_t *node, struct err *e)
{
    bool unsure = false;

    *node = 0;
    if (!ha_protected(m, d->uuid, &unsure))
        return unsure ? refuse_unsure(m, d->name, e) : 0;
    *node = mig_log_node(m, host);
    if (*node == 0)
        return err_set(e, ERR_REFUSED,
            "domain %s is protected by HA and %s is not a node of this cluster: migctl ha remove "
            "%s "
            "first",
            d->name, host, d->name);
    if (*node == own_id(m))
        return err_set(e, ERR_REFUSED, "domain %s is on host %s already", d->name, m->host_name);
    return 0;
}

/* A record that is as new as the offer is of a later life. */
static int check_record(const struct migration *g, struct err *e)
{
    const Migrd__HaDomain *d = cluster_find(ha_cluster(g->m), g->def->uuid);

    if (d == NULL || d->epoch < g->epoch)
        return 0;
    return err_set(e, ERR_EPOCH,
        "the cluster's log on host %s has domain %s under epoch %llu already: epoch %llu comes too "
        "late",
        g->m->host_name, g->def->name, (unsigned long long)d->epoch, (unsigned long long)g->epoch);
}

int mig_log_may_come(const struct migration *g, struct err *e)
{
    const struct migrd *m = g->m;
    bool theirs = g->offer->ha, unsure = false, ours = ha_protected(m, g->def->uuid, &unsure);

    if (!theirs && !ours)
        return 0;
    if (theirs && ha_cluster(m) == NULL)
        return err_set(e, ERR_REFUSED,
            "domain %s is protected by HA, and host %s is not in a cluster (cluster = no): migctl "
            "ha "
            "remove %s first, or make the host a node of it",
            g->def->name, m->host_name, g->def->name);
    if (!theirs)
        return err_set(e, ERR_REFUSED,
            "domain %s is protected by HA on host %s, and host %s does not know that: it must be a "
            "node of the same cluster",
            g->def->name, m->host_name, g->peer);
    if (!ours && unsure)
        return refuse_unsure(m, g->def->name, e);
    if (!ours)
        return err_set(e, ERR_REFUSED,
            "domain %s is protected by HA on host %s, but the cluster of host %s does not know it: "
            "are they nodes of the same cluster? migctl cluster status shows it",
            g->def->name, g->peer, m->host_name);
    return check_record(g, e);
}

/* --- what an answer means --- */

/* The log knows it no longer: from here on it is a domain like others. */
static bool has_left(struct migration *g, const Migrd__HaAnswer *a)
{
    bool unsure = false;

    if (a->owner != 0 || a->epoch != 0 || ha_protected(g->m, g->uuid, &unsure) || unsure)
        return false;
    log_warn("migration", "%s: %s is not protected by HA any more", g->id, g->name);
    g->logged = false;
    g->flags &= ~(uint32_t)JF_PROTECTED;
    return true;
}

static bool is_starting(const Migrd__HaAnswer *a)
{
    return a->state == MIGRD__HA_DOMAIN_STATE__DOMAIN_STARTING;
}

static int by_record(const struct migration *g, const Migrd__HaAnswer *a)
{
    uint64_t e = g->epoch - 1;
    bool us = a->owner == own_id(g->m);

    if (a->epoch == e && us)
        return SRC_EV_LOG_OURS;
    if (a->epoch == e + 2 && us && !is_starting(a))
        return SRC_EV_LOG_BACK;
    if (a->epoch == e + 1 && !us && (g->node == 0 || a->owner == g->node))
        return SRC_EV_LOG_THEIRS;
    return a->epoch > e ? SRC_EV_LOG_ELSE : SRC_EV_LOG_NONE;
}

static int source_handover(struct migration *g, const Migrd__HaAnswer *a)
{
    if (a->ok)
        return SRC_EV_LOG_THEIRS;
    err_set(&g->op_error, ERR_REFUSED, "the cluster's log does not hand it over: %s", a->text);
    return has_left(g, a) ? (int)SRC_EV_LOG_OURS : by_record(g, a);
}

static int source_event(struct migration *g, enum mt_op op, const Migrd__HaAnswer *a)
{
    switch (op) {
    case MT_L_BEGIN:
        if (a->ok)
            return SRC_EV_OP_OK;
        mig_fail(g, ERR_REFUSED, "the cluster's log refuses the move: %s", a->text);
        return SRC_EV_OP_FAILED;
    case MT_L_END:
        return a->ok || has_left(g, a) ? (int)SRC_EV_OP_OK : (int)SRC_EV_LOG_NONE;
    case MT_L_HANDOVER:
        return source_handover(g, a);
    case MT_L_TAKE_BACK:
        return a->ok ? (int)SRC_EV_LOG_BACK
                     : (has_left(g, a) ? (int)SRC_EV_LOG_NONE : by_record(g, a));
    default:
        break;
    }
    /* Whether it was handed over before it left the log, its target knows. */
    if (has_left(g, a))
        return g->state == SRC_ASKING ? (int)SRC_EV_LOG_THEIRS : (int)SRC_EV_LOG_NONE;
    return a->ok ? by_record(g, a) : (int)SRC_EV_LOG_NONE;
}

static int target_event(struct migration *g, const Migrd__HaAnswer *a)
{
    if (has_left(g, a) || !a->ok || a->epoch < g->epoch)
        return TGT_EV_LOG_NONE;
    if (a->epoch == g->epoch && a->owner == own_id(g->m) && !is_starting(a) &&
        a->state != MIGRD__HA_DOMAIN_STATE__DOMAIN_RETURNED)
        return TGT_EV_LOG_OURS;
    mig_fail(g, ERR_EPOCH, "the cluster's log gave it to node %u under epoch %llu", a->owner,
        (unsigned long long)a->epoch);
    return TGT_EV_LOG_ELSE;
}

/* Who has it now: for our journal, before our copy goes. */
static void lost(struct migration *g, const Migrd__HaAnswer *a)
{
    const char *name = a->owner != 0 ? cluster_node_name(ha_cluster(g->m), a->owner) : "";

    g->lost_epoch = a->epoch;
    snprintf(g->lost_to, sizeof g->lost_to, "%s", name[0] != '\0' ? name : "another node");
    err_clear(&g->failure);
    mig_fail(g, ERR_EPOCH, "the cluster's log gave it to %s under epoch %llu: the copy here is old",
        g->lost_to, (unsigned long long)a->epoch);
}

/* --- asking --- */

/* Points "migrd-asked-handover", "migrd-answered-handover", ...: with the question on its way, and
 * with its answer not looked at. */
static void point(const char *when, enum mt_op op)
{
    static const char *const names[MT_OP_MAX] = { [MT_L_BEGIN] = "begin",
        [MT_L_HANDOVER] = "handover",
        [MT_L_OWNER] = "owner",
        [MT_L_TAKE_BACK] = "take-back",
        [MT_L_END] = "end" };
    char name[64];

    snprintf(name, sizeof name, "migrd-%s-%s", when, names[op] != NULL ? names[op] : "never");
    if (FAULT(name))
        log_warn("fault", "point %s has no failure of its own", name);
}

/* A target may have got its answer elsewhere. */
static bool waits(const struct migration *g)
{
    return g->kind == MIG_OUT ? mt_source_asks((enum src_state)g->state) : g->state == TGT_DOUBT;
}

static void answered(void *arg, const Migrd__HaAnswer *a)
{
    struct log_ask *ask = arg;
    struct migration *g = ask->g;
    enum mt_op op = ask->op;
    int event;

    free(ask);
    if (g == NULL)
        return;
    g->ask = NULL;
    if (a == NULL || !waits(g)) /* migrd ends: what is open is asked after its restart */
        return;
    point("answered", op);
    uv_timer_stop(&g->timer);
    event = g->kind == MIG_OUT ? source_event(g, op, a) : target_event(g, a);
    log_info("migration", "%s %s: %s: %s%s%s (owner %u, epoch %llu): %s", g->id, g->name,
        mt_op_name(op), a->ok ? "yes" : "no", a->text[0] != '\0' ? ", " : "", a->text, a->owner,
        (unsigned long long)a->epoch,
        g->kind == MIG_OUT ? mt_source_event_name((enum src_event)event)
                           : mt_target_event_name((enum tgt_event)event));
    if (a->ok && a->warning[0] != '\0')
        log_warn("migration", "%s: %s: %s", g->id, g->name, a->warning);
    if (g->kind == MIG_OUT && event == SRC_EV_LOG_ELSE)
        lost(g, a);
    mig_post(g, event);
}

void mig_log_forget(struct migration *g)
{
    if (g->ask != NULL)
        g->ask->g = NULL;
    g->ask = NULL;
}

static void timer_due(uv_timer_t *t)
{
    struct migration *g = t->data;

    if (g->kind == MIG_OUT && g->state == SRC_BEGINNING)
        mig_fail(g, ERR_TIMEOUT,
            "the cluster's log did not answer in %u s whether it may move: migctl ha status says "
            "why",
            BEGIN_MS / 1000);
    if (g->kind == MIG_OUT && g->state == SRC_LOOKING)
        mig_log_forget(g);
    mig_post(g, g->kind == MIG_OUT ? (int)SRC_EV_TIMER : (int)TGT_EV_TIMER);
}

static void fill(const struct migration *g, enum mt_op op, Migrd__HaCommand *c)
{
    migrd__ha_command__init(c);
    c->uuid = (char *)(uintptr_t)g->uuid;
    c->who = (char *)(uintptr_t)g->id;
    c->node = g->node;
    c->epoch = g->epoch - 1;
    c->kind = KIND(OWNER);
    if (op == MT_L_BEGIN)
        c->kind = KIND(MIGRATE_BEGIN);
    else if (op == MT_L_HANDOVER)
        c->kind = KIND(HANDOVER);
    else if (op == MT_L_END)
        c->kind = KIND(MIGRATE_END);
    else if (op == MT_L_TAKE_BACK)
        c->kind = KIND(TAKE_BACK);
    if (op == MT_L_END)
        c->text = (char *)(uintptr_t)g->failure.text;
    if (op == MT_L_TAKE_BACK) {
        c->epoch = g->epoch;
        c->node = own_id(g->m);
    }
}

static void not_asked(struct migration *g, const struct err *e)
{
    if (g->tries++ % 60 == 0)
        log_error(
            "migration", "%s: %s: the cluster's log cannot be asked: %s", g->id, g->name, e->text);
    mig_log_forget(g);
    mig_post(g, g->kind == MIG_OUT ? (int)SRC_EV_LOG_NONE : (int)TGT_EV_LOG_NONE);
}

void mig_log_ask(struct migration *g, enum mt_op op)
{
    struct log_ask *ask;
    Migrd__HaCommand c;
    struct err e = { 0 };

    mig_log_forget(g);
    if (ha_waits(g->m)) {
        uv_timer_start(&g->timer, timer_due, JOIN_MS, 0);
        return;
    }
    ask = calloc(1, sizeof *ask);
    if (ask == NULL) {
        not_asked(g, &(struct err){ ERR_MEMORY, "out of memory" });
        return;
    }
    *ask = (struct log_ask){ g, op };
    g->ask = ask;
    if (op == MT_L_BEGIN)
        uv_timer_start(&g->timer, timer_due, BEGIN_MS, 0);
    else if (g->kind == MIG_OUT && g->state == SRC_LOOKING)
        uv_timer_start(&g->timer, timer_due, LOOK_MS, 0);
    fill(g, op, &c);
    if (ha_ask(g->m, &c, 0, answered, ask, &e) == 0) {
        point("asked", op);
        return;
    }
    not_asked(g, &e);
    free(ask);
}

void mig_log_wait(struct migration *g)
{
    if (g->logged)
        uv_timer_start(&g->timer, timer_due, g->kind == MIG_OUT ? AGAIN_MS : TARGET_AGAIN_MS, 0);
}

/* --- a target's "never" --- */

struct never {
    struct migrd *m;
    char session[TR_SESSION_LEN];
    Migrd__Outcome outcome;
    uint64_t epoch;
    char text[64];
};

static void never_answered(void *arg, const Migrd__HaAnswer *a)
{
    struct never *n = arg;
    struct migration *session =
        a != NULL && n->m->migrations != NULL ? mig_by_session(n->m, n->session) : NULL;

    if (session != NULL && a->ok) {
        query_reply(session, n->outcome, n->epoch, n->text);
    } else if (session != NULL) {
        log_warn(
            "migration", "%s: not answered, the log did not take it: %s", session->peer, a->text);
        if (session->worker != NULL)
            worker_kill(session->worker);
    }
    free(n);
}

void mig_log_never(struct migration *session, const char *uuid, uint64_t epoch,
    Migrd__Outcome outcome, const char *text)
{
    struct never *n = calloc(1, sizeof *n);
    Migrd__HaCommand c = MIGRD__HA_COMMAND__INIT;
    struct err e = { ERR_MEMORY, "out of memory" };

    c.kind = KIND(NEVER_RAN);
    c.uuid = (char *)(uintptr_t)uuid;
    c.epoch = epoch;
    if (n != NULL) {
        n->m = session->m;
        n->outcome = outcome;
        n->epoch = epoch;
        snprintf(n->session, sizeof n->session, "%s", session->session);
        snprintf(n->text, sizeof n->text, "%s", text);
    }
    if (n != NULL && ha_ask(session->m, &c, 0, never_answered, n, &e) == 0) {
        point("asked", MT_NONE);
        return;
    }
    log_warn("migration", "%s: not answered: %s", session->peer, e.text);
    free(n);
    if (session->worker != NULL)
        worker_kill(session->worker);
}
