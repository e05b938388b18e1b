/* SPDX-License-Identifier: ISC */
/*
 * Looking at this host for a migration, and judging an offer by what was seen.
 *
 *   look_new     in the loop: copies of all that the look needs
 *   look_work    in the pool: the hypervisor's capabilities, facts of the host, on the target
 *                also the disks (a program of their own, for servers hang) and boot files
 *   look_judge   in the loop: with what only the registry knows, compat_check; the report stays
 *                with the migration and goes to the source with the verdict
 *
 * Figures of the host are older than the judgement: the registry's counter at the beginning of
 * the look says which promises they cannot show yet.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/pbjson.h"
#include "migrd/compat/compat.h"
#include "migrd/compat/facts.h"
#include "migrd/define/define.h"
#include "migrd/migration_internal.h"
#include "storage-check/allow.h"
#include "storage-check/ask_disks.h"

/* --- what is asked of disks --- */

void mig_storage_request(
    const struct migrd *m, Migrd__StorageRequest *out, char secrets[PATHS_LEN + 32])
{
    const struct config *c = &m->config;

    migrd__storage_request__init(out);
    config_secrets(c, m->paths.etc, secrets, PATHS_LEN + 32);
    out->secrets = secrets;
    out->host = (char *)(uintptr_t)m->host_name;
    out->initiator = (char *)(uintptr_t)c->storage_initiator;
    out->timeout_ms = c->storage_timeout_ms;
    out->nfs_uid_base = c->storage_nfs_uid_base;
}

/* The disks of `def`, and what the source said of them. */
static Migrd__StorageRequest *ask_of(const struct migration *g)
{
    Migrd__StorageRequest rq;
    char secrets[PATHS_LEN + 32];
    bool told = g->offer != NULL && g->offer->identified && g->offer->n_disks == g->def->n_disks;

    mig_storage_request(g->m, &rq, secrets);
    rq.what = told ? MIGRD__STORAGE_REQUEST__WHAT__ANSWER : MIGRD__STORAGE_REQUEST__WHAT__IDENTIFY;
    rq.disks = g->def->disks;
    rq.n_disks = g->def->n_disks;
    rq.theirs = told ? g->offer->disks : NULL;
    rq.n_theirs = told ? g->offer->n_disks : 0;
    return pb_copy(&rq.base);
}

/* --- the definition that comes to stay --- */

const Migrd__Domain *look_home(const struct migration *g)
{
    return g->offer != NULL && g->offer->change_home ? g->offer->home : NULL;
}

int look_check_home(const struct migration *g, struct err *e)
{
    const Migrd__Domain *home = look_home(g);

    if (home == NULL)
        return 0;
    if (strcmp(home->uuid, g->def->uuid) != 0 || strcmp(home->name, g->def->name) != 0 ||
        strcmp(home->hypervisor, g->def->hypervisor) != 0)
        return err_set(e, ERR_PROTOCOL,
            "the definition that is to be kept here is not that of domain %s", g->name);
    return define_check(home, e) < 0 ? err_prefix(e, "its definition for the next boot") : 0;
}

/* --- a look --- */

struct mig_look *look_new(const struct migration *g, bool disks)
{
    struct mig_look *l = calloc(1, sizeof *l);

    if (l == NULL)
        return NULL;
    snprintf(l->host, sizeof l->host, "%s", g->m->host_name);
    if (g->kind == MIG_IN)
        snprintf(l->places, sizeof l->places, "%s", g->m->config.storage_places);
    l->since = registry_changes(g->m->registry);
    l->def = define_copy(g->def);
    if (look_home(g) != NULL && (l->home = define_copy(look_home(g))) == NULL) {
        look_free(&l);
        return NULL;
    }
    if (disks && l->def != NULL && l->def->n_disks > 0)
        l->storage = ask_of(g);
    if (l->def == NULL || (disks && l->def->n_disks > 0 && l->storage == NULL))
        look_free(&l);
    return l;
}

void look_free(struct mig_look **look)
{
    struct mig_look *l = *look;

    *look = NULL;
    if (l == NULL)
        return;
    if (l->def != NULL)
        migrd__domain__free_unpacked(l->def, NULL);
    if (l->home != NULL)
        migrd__domain__free_unpacked(l->home, NULL);
    if (l->storage != NULL)
        migrd__storage_request__free_unpacked(l->storage, NULL);
    if (l->facts != NULL)
        migrd__host_facts__free_unpacked(l->facts, NULL);
    if (l->disks != NULL)
        migrd__storage_reply__free_unpacked(l->disks, NULL);
    free(l);
}

static bool missing(const char *path)
{
    return path[0] != '\0' && access(path, R_OK) < 0;
}

static int check_place(const struct mig_look *l, const char *what, const char *source, struct err *e)
{
    if (source[0] == '\0' || storage_allowed(l->places, source))
        return 0;
    return err_set(e, ERR_REFUSED,
        "%s of domain %s is %.200s; host %s takes from other hosts only what is in its "
        "relocation-storage-allow: add the place there, or move it to one that is",
        what, l->def->name, source, l->host);
}

/* What another host's domain names here is not even opened where it may not be. */
static int check_places(const struct mig_look *l, const Migrd__Domain *def, struct err *e)
{
    char what[80];

    for (size_t i = 0; i < def->n_disks; i++) {
        snprintf(what, sizeof what, "disk %.60s", def->disks[i]->device);
        if (check_place(l, what, def->disks[i]->source, e) < 0)
            return -1;
    }
    if (check_place(l, "kernel", def->kernel, e) < 0)
        return -1;
    return check_place(l, "initrd", def->initrd, e);
}

int look_work(struct mig_look *l, const struct hv_ops *ops, struct hv *hv, struct err *e)
{
    struct hv_caps caps;

    if (check_places(l, l->def, e) < 0 || (l->home != NULL && check_places(l, l->home, e) < 0) ||
        ops->capabilities(hv, &caps, e) < 0)
        return -1;
    l->facts = facts_gather(l->host, ops->name, &caps, l->def);
    if (l->facts == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    l->no_kernel = missing(l->def->kernel);
    l->no_initrd = missing(l->def->initrd);
    if (l->storage == NULL)
        return 0;
    l->disks = storage_ask_disks(l->storage, 0);
    return l->disks != NULL ? 0 : err_set(e, ERR_MEMORY, "out of memory for the disks");
}

void look_job_work(struct job *j)
{
    struct mig_job *mj = (struct mig_job *)j;

    j->result = mj->look != NULL ? look_work(mj->look, mj->ops, mj->hv, &j->err)
                                 : err_set(&j->err, ERR_MEMORY, "out of memory");
}

/* --- judging --- */

void mig_own_facts(const struct migrd *m, const struct domain *without, uint64_t since,
    Migrd__HostFacts *f, struct registry_promises *promised)
{
    registry_promised(m->registry, without, since, promised);
    f->memory_promised_kib = promised->memory_kib;
    f->memory_reserve_kib = registry_kept(m);
    f->overcommit = m->config.memory_overcommit;
}

/* The first refusal's class: an entry that is taken has its own. */
static void name_class(const struct checks *c, const struct err *taken, struct err *e)
{
    size_t i = 0;

    while (i < c->n && c->check[i].result != CHECK_REFUSED)
        i++;
    if (taken->code != ERR_NONE)
        e->code = taken->code;
    else if (i < c->n && strcmp(c->check[i].area, "memory") == 0)
        e->code = ERR_MEMORY;
}

static int compare(struct migration *g, const struct mig_look *l, const struct err *taken,
    const struct registry_promises *promised, const Migrd__Domain **others, struct err *e)
{
    const struct compat in = { .offer = g->offer,
        .target = l->facts,
        .n_disks = l->disks != NULL ? l->disks->n_disks : 0,
        .disks = l->disks != NULL ? l->disks->disks : NULL,
        .answers = l->disks != NULL ? l->disks->answers : NULL,
        .answer_errors = l->disks != NULL ? l->disks->answer_errors : NULL,
        .others = others,
        .n_others = registry_others(g->m->registry, g->def->uuid, others, REGISTRY_DOMAINS_MAX),
        .committed_kib = promised->committed_kib,
        .promised_huge_kib = promised->huge_kib,
        .taken = taken,
        .no_kernel = l->no_kernel,
        .no_initrd = l->no_initrd };
    struct checks c = { 0 };
    int r;

    compat_check(&in, &c);
    r = checks_verdict(&c, e);
    if (r < 0)
        name_class(&c, taken, e);
    if (g->checks != NULL)
        migrd__check_report__free_unpacked(g->checks, NULL);
    g->checks = compat_report(&c);
    log_info("migration", "%s: %zu checks for a guest of %s: %zu refused, %zu warnings", g->name,
        c.n, g->peer, c.refused, c.warned);
    checks_free(&c);
    return r;
}

int look_judge(struct migration *g, struct mig_look *l, const struct err *taken, struct err *e)
{
    static const struct err free_entry = { .code = ERR_NONE };
    const Migrd__Domain **others = calloc(REGISTRY_DOMAINS_MAX, sizeof *others);
    struct registry_promises promised;
    int r;

    if (others == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    mig_own_facts(g->m, mig_domain(g), l->since, l->facts, &promised);
    r = compare(g, l, taken != NULL ? taken : &free_entry, &promised, others, e);
    free(others);
    return r;
}
