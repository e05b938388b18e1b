/* SPDX-License-Identifier: ISC */
/*
 * /metrics in the text format of Prometheus: the counters that other parts keep in
 * events.h, and gauges made from the reports at the moment of asking.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "migrd/events.h"
#include "migrd/report.h"
#include "migrd/status_internal.h"

#define KIB 1024.0
#define STATES_MAX 24

void metrics_head(FILE *f, const char *name, const char *type, const char *help)
{
    fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void metrics_gauge(FILE *f, const char *name, const char *help, double value)
{
    metrics_head(f, name, "gauge", help);
    fprintf(f, "%s %.17g\n", name, value);
}

/* A label's value with what the format wants escaped. */
void metrics_label(FILE *f, const char *before, const char *name, const char *value)
{
    fprintf(f, "%s%s=\"", before, name);
    for (; *value != '\0'; value++) {
        if (*value == '\n') {
            fputs("\\n", f);
            continue;
        }
        if (*value == '"' || *value == '\\')
            fputc('\\', f);
        fputc(*value, f);
    }
    fputc('"', f);
}

/* --- how many are in which state --- */

struct tally {
    const char *a[STATES_MAX], *b[STATES_MAX];
    unsigned count[STATES_MAX], n;
};

static void tally_add(struct tally *t, const char *a, const char *b)
{
    unsigned i = 0;

    while (i < t->n && (strcmp(t->a[i], a) != 0 || strcmp(t->b[i], b) != 0))
        i++;
    if (i == STATES_MAX)
        return;
    if (i == t->n) {
        t->a[i] = a;
        t->b[i] = b;
        t->n++;
    }
    t->count[i]++;
}

/* --- parts --- */

static void host(FILE *f, struct migrd *m)
{
    Migrd__Reply *r = report_host(m);
    const Migrd__HostInfo *h = r != NULL ? r->host : NULL;

    if (h != NULL) {
        metrics_head(f, "migrd_info", "gauge", "What runs here; always 1.");
        metrics_label(f, "migrd_info{", "host", h->host);
        metrics_label(f, ",", "version", h->version);
        metrics_label(f, ",", "hypervisor", h->hypervisor);
        fputs("} 1\n", f);
        metrics_gauge(f, "migrd_start_time_seconds", "When migrd started, seconds since 1970.",
            (double)h->start_wall_ns / 1e9);
        metrics_gauge(f, "migrd_cpus", "CPUs of the host.", h->cpus);
        metrics_gauge(f, "migrd_memory_total_bytes", "Memory of the host.",
            (double)h->memory_total_kib * KIB);
        metrics_gauge(f, "migrd_memory_free_bytes", "Memory that new domains may have.",
            (double)h->memory_free_kib * KIB);
        metrics_gauge(f, "migrd_memory_reserved_bytes", "Memory that new domains may not have.",
            (double)h->memory_reserved_kib * KIB);
        metrics_gauge(f, "migrd_warnings", "Things that the administrator should look at.",
            (double)h->n_warnings);
    }
    if (r != NULL)
        migrd__reply__free_unpacked(r, NULL);
}

typedef double domain_value(const Migrd__DomainInfo *d);

static double domain_memory(const Migrd__DomainInfo *d)
{
    return (double)d->memory_kib * KIB;
}

static double domain_cpu(const Migrd__DomainInfo *d)
{
    return (double)d->cpu_ns / 1e9;
}

static double domain_vcpus(const Migrd__DomainInfo *d)
{
    return d->domain->vcpus;
}

static void per_domain(FILE *f, const Migrd__Reply *r, const char *name, const char *type,
    const char *help, domain_value *value)
{
    metrics_head(f, name, type, help);
    for (size_t i = 0; i < r->n_domains; i++) {
        const Migrd__DomainInfo *d = r->domains[i];

        if (d->domain == NULL || d->domid < 0)
            continue;
        fputs(name, f);
        metrics_label(f, "{", "domain", d->domain->name);
        metrics_label(f, ",", "uuid", d->domain->uuid);
        fprintf(f, "} %.17g\n", value(d));
    }
}

static void domains(FILE *f, struct migrd *m)
{
    Migrd__Reply *r = report_domains(m, true);
    struct tally t = { .n = 0 };

    if (r == NULL)
        return;
    metrics_head(f, "migrd_domains", "gauge", "Domains of this host by state.");
    for (size_t i = 0; i < r->n_domains; i++)
        tally_add(&t, r->domains[i]->state, "");
    for (unsigned i = 0; i < t.n; i++) {
        metrics_label(f, "migrd_domains{", "state", t.a[i]);
        fprintf(f, "} %u\n", t.count[i]);
    }
    per_domain(f, r, "migrd_domain_memory_bytes", "gauge", "Memory of a domain that runs here.",
        domain_memory);
    per_domain(f, r, "migrd_domain_vcpus", "gauge", "Its vCPUs.", domain_vcpus);
    per_domain(
        f, r, "migrd_domain_cpu_seconds_total", "counter", "CPU time of its vCPUs.", domain_cpu);
    migrd__reply__free_unpacked(r, NULL);
}

static const struct {
    const char *name, *help;
    size_t offset; /* of a uint64_t in Progress */
    double factor;
} progress_values[] = {
    { "migrd_migration_remaining_bytes", "Memory still to send in this round.",
        offsetof(Migrd__Progress, pages_remaining), 4096 },
    { "migrd_migration_dirty_bytes_per_second", "How fast the guest writes.",
        offsetof(Migrd__Progress, dirty_rate), 1 },
    { "migrd_migration_link_bytes_per_second", "How fast its memory is sent.",
        offsetof(Migrd__Progress, bandwidth), 1 },
    { "migrd_migration_wire_bytes", "Sent so far.", offsetof(Migrd__Progress, wire_bytes), 1 },
};

static void per_migration(FILE *f, const Migrd__Reply *r)
{
    for (size_t v = 0; v < sizeof progress_values / sizeof progress_values[0]; v++) {
        metrics_head(f, progress_values[v].name, "gauge", progress_values[v].help);
        for (size_t i = 0; i < r->n_migrations; i++) {
            const Migrd__MigrationInfo *g = r->migrations[i];
            const char *p = (const char *)g->progress;

            if (p == NULL || g->report != NULL)
                continue;
            fputs(progress_values[v].name, f);
            metrics_label(f, "{", "domain", g->domain);
            metrics_label(f, ",", "migration", g->id);
            fprintf(f, "} %.17g\n",
                (double)*(const uint64_t *)(const void *)(p + progress_values[v].offset) *
                    progress_values[v].factor);
        }
    }
}

static void migrations(FILE *f, struct migrd *m)
{
    Migrd__Reply *r = report_migrations(m, false);
    struct tally t = { .n = 0 };

    if (r == NULL)
        return;
    metrics_head(f, "migrd_migrations", "gauge", "Migrations under way, by direction and state.");
    for (size_t i = 0; i < r->n_migrations; i++)
        tally_add(&t, r->migrations[i]->direction, r->migrations[i]->state);
    for (unsigned i = 0; i < t.n; i++) {
        metrics_label(f, "migrd_migrations{", "direction", t.a[i]);
        metrics_label(f, ",", "state", t.b[i]);
        fprintf(f, "} %u\n", t.count[i]);
    }
    per_migration(f, r);
    migrd__reply__free_unpacked(r, NULL);
}

static void counters(FILE *f, struct migrd *m)
{
    const char *name, *help;
    uint64_t value;

    for (size_t i = 0; (name = events_counter_at(m->events, i, &help, &value)) != NULL; i++) {
        metrics_head(f, name, "counter", help != NULL ? help : "");
        fprintf(f, "%s %" PRIu64 "\n", name, value);
    }
}

char *status_metrics(struct migrd *m, size_t *len)
{
    char *text = NULL;
    FILE *f = open_memstream(&text, len);

    if (f == NULL)
        return NULL;
    host(f, m);
    domains(f, m);
    migrations(f, m);
    metrics_ha(f, m);
    counters(f, m);
    fclose(f);
    return text;
}
