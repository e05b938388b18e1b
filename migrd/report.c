/* SPDX-License-Identifier: ISC */
/*
 * Messages that own all they hold: built from copies, so that the caller may keep them
 * after the domain or migration is gone.
 */
#include "migrd/report.h"

#include <stdlib.h>
#include <string.h>

#include "base/pbjson.h"
#include "migrd/define/define.h"
#include "migrd/migration.h"
#include "migrd/registry.h"
#include "migrd/relocation.h"

static Migrd__Reply *new_reply(void)
{
    Migrd__Reply *r = malloc(sizeof *r);

    if (r != NULL)
        migrd__reply__init(r);
    return r;
}

/* protobuf-c's empty string is static: its free knows. */
static char *text(const char *s)
{
    return s[0] != '\0' ? strdup(s) : (char *)(uintptr_t)protobuf_c_empty_string;
}

static Migrd__Reply *failed(Migrd__Reply *r, enum err_code code, const char *why)
{
    if (r == NULL)
        return NULL;
    r->failure = malloc(sizeof *r->failure);
    if (r->failure != NULL) {
        migrd__failure__init(r->failure);
        r->failure->code = text(err_code_name(code));
        r->failure->text = text(why);
    }
    return r;
}

static Migrd__Domain *definition(const struct domain *d)
{
    Migrd__Domain *def = define_copy(registry_definition(d));

    if (def == NULL)
        return NULL;
    /* A definition that is not known still has its identity. */
    if (def->name == NULL || def->name[0] == '\0')
        def->name = text(d->name);
    if (def->uuid == NULL || def->uuid[0] == '\0')
        def->uuid = text(d->uuid);
    return def;
}

static Migrd__DomainInfo *domain_info(struct migrd *m, const struct domain *d)
{
    Migrd__DomainInfo *i = malloc(sizeof *i);

    if (i == NULL)
        return NULL;
    migrd__domain_info__init(i);
    i->domain = definition(d);
    i->domid = d->live ? d->info.domid : -1;
    i->state = text(d->mig != NULL ? migration_domain_state(d->mig) : registry_state(d));
    i->memory_kib = d->live ? d->info.memory_kib : registry_definition(d)->memory_kib;
    i->cpu_ns = d->live ? d->info.cpu_ns : 0;
    i->epoch = d->epoch;
    i->owner = text(d->owner[0] != '\0' ? d->owner : m->host_name);
    i->console = text(d->live ? d->info.console : "");
    i->reason = text(d->live ? d->info.reason : "");
    i->persistent = d->def != NULL;
    i->start_wall_ns = d->start_wall_ns;
    return i;
}

static void add_domain(Migrd__Reply *r, struct migrd *m, const struct domain *d)
{
    Migrd__DomainInfo *i = domain_info(m, d);
    Migrd__DomainInfo **list =
        i != NULL ? realloc(r->domains, (r->n_domains + 1) * sizeof *list) : NULL;

    if (list == NULL) {
        if (i != NULL)
            migrd__domain_info__free_unpacked(i, NULL);
        return;
    }
    r->domains = list;
    r->domains[r->n_domains++] = i;
}

Migrd__Reply *report_domains(struct migrd *m, bool all)
{
    Migrd__Reply *r = new_reply();

    for (struct domain *d = registry_first(m->registry); r != NULL && d != NULL; d = d->next)
        if (all || d->live || d->mig != NULL)
            add_domain(r, m, d);
    return r;
}

Migrd__Reply *report_domain(struct migrd *m, const char *which)
{
    struct domain *d = registry_find(m->registry, which);
    Migrd__Reply *r = new_reply();
    struct err e;

    if (r == NULL)
        return NULL;
    if (d == NULL) {
        err_set(&e, ERR_NOT_FOUND, "no domain %.64s on host %s", which, m->host_name);
        return failed(r, e.code, e.text);
    }
    add_domain(r, m, d);
    return r;
}

static void add_migration(Migrd__Reply *r, const struct migration *g)
{
    Migrd__MigrationInfo borrowed, *copy, **list;

    migration_info(g, &borrowed);
    copy = pb_copy(&borrowed.base);
    list = copy != NULL ? realloc(r->migrations, (r->n_migrations + 1) * sizeof *list) : NULL;
    if (list == NULL) {
        if (copy != NULL)
            migrd__migration_info__free_unpacked(copy, NULL);
        return;
    }
    r->migrations = list;
    r->migrations[r->n_migrations++] = copy;
}

Migrd__Reply *report_migrations(struct migrd *m, bool finished)
{
    Migrd__Reply *r = new_reply();

    for (struct migration *g = migration_next(m, NULL, finished); r != NULL && g != NULL;
         g = migration_next(m, g, finished))
        add_migration(r, g);
    return r;
}

static void add_warnings(Migrd__HostInfo *h, const char *lines)
{
    while (*lines != '\0') {
        size_t n = strcspn(lines, "\n");
        char **list = realloc(h->warnings, (h->n_warnings + 1) * sizeof *list);

        if (list == NULL)
            return;
        h->warnings = list;
        h->warnings[h->n_warnings++] = strndup(lines, n);
        lines += n + (lines[n] == '\n');
    }
}

static void add_counts(struct migrd *m, Migrd__HostInfo *h)
{
    uint64_t committed, incoming;

    registry_memory(m->registry, NULL, &committed, &incoming);
    h->memory_reserved_kib = registry_kept(m) + incoming;
    for (struct domain *d = registry_first(m->registry); d != NULL; d = d->next) {
        h->running += d->live;
        h->defined += d->def != NULL;
    }
    for (struct migration *g = migration_next(m, NULL, false); g != NULL;
         g = migration_next(m, g, false))
        h->migrations++;
}

Migrd__Reply *report_host(struct migrd *m)
{
    Migrd__Reply *r = new_reply();
    Migrd__HostInfo *h = malloc(sizeof *h);

    if (r == NULL || h == NULL) {
        free(h);
        free(r);
        return NULL;
    }
    migrd__host_info__init(h);
    r->host = h;
    h->host = text(m->host_name);
    h->version = text(MIGRD_VERSION);
    h->start_wall_ns = m->start_wall_ns;
    h->cpus = m->caps.host_cpus;
    h->memory_total_kib = m->caps.memory_total_kib;
    h->memory_free_kib = m->caps.memory_free_kib;
    h->host_kib = m->caps.host_kib;
    h->host_vcpus = m->caps.host_vcpus;
    h->cpu_mhz = (uint32_t)(m->caps.tsc_khz / 1000);
    h->hypervisor = text(m->caps.hypervisor);
    h->hypervisor_release = text(m->caps.release);
    h->cpu_model = text(m->caps.cpu_model);
    h->cpu_vendor = text(m->caps.cpu_vendor);
    h->relocation = text(relocation_text(m));
    add_warnings(h, relocation_warnings(m));
    add_counts(m, h);
    return r;
}
