/* SPDX-License-Identifier: ISC */
/* What there is: status, list, migrations, journal, dump. */
#define _GNU_SOURCE
#include "tools/migctl.h"

#include <stdlib.h>
#include <string.h>

#include "tools/format.h"
#include "tools/migrate.h"

static const struct option json_only[] = {
    { "json", no_argument, NULL, 'j' },
    { NULL, 0, NULL, 0 },
};

static Migrd__Reply *get_migrations(struct tool *t, bool finished)
{
    Migrd__ListMigrations list = MIGRD__LIST_MIGRATIONS__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;

    list.finished = finished;
    CLIENT_BODY(rq, MIGRATIONS, migrations, &list);
    return tool_call(t, &rq, TOOL_SHORT_MS);
}

/* --- domains --- */

static void domain_table(const Migrd__Reply *r, const char *indent)
{
    struct table *t = table_new("lrlrrrll");

    table_row(t, "Name", "Id", "State", "Memory", "vCPUs", "Epoch", "Runs on", "Since");
    for (size_t i = 0; i < r->n_domains; i++) {
        const Migrd__DomainInfo *d = r->domains[i];
        char id[16] = "-", mem[FORMAT_LEN], vcpus[16], epoch[FORMAT_LEN], since[FORMAT_LEN];

        if (d->domid >= 0)
            snprintf(id, sizeof id, "%d", d->domid);
        format_bytes(mem, (d->memory_kib != 0 ? d->memory_kib : d->domain->memory_kib) * 1024);
        snprintf(vcpus, sizeof vcpus, "%u", d->domain->vcpus);
        snprintf(epoch, sizeof epoch, "%llu", (unsigned long long)d->epoch);
        table_row(t, d->domain->name, id, d->state, mem, vcpus, epoch,
            d->owner[0] != '\0' ? d->owner : "-", format_wall(since, d->start_wall_ns));
    }
    table_print(&t, indent, stdout);
    for (size_t i = 0; i < r->n_domains; i++)
        if (r->domains[i]->reason[0] != '\0')
            printf("%s%s is paused: %s\n", indent, r->domains[i]->domain->name,
                r->domains[i]->reason);
}

int migctl_list(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = {
        { "json", no_argument, NULL, 'j' },
        { "names", no_argument, NULL, 'n' },
        { NULL, 0, NULL, 0 },
    };
    bool json = false, names = false;
    Migrd__Reply *r;
    int o;

    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o == '?')
            return tool_usage(t, NULL);
        json = json || o == 'j';
        names = names || o == 'n';
    }
    if (tool_words(t, argc, 0, 0) != 0)
        return TOOL_USAGE;
    r = tool_domains(t, true);
    if (r == NULL)
        return TOOL_FAILED;
    if (json)
        tool_json(&r->base);
    else if (names)
        for (size_t i = 0; i < r->n_domains; i++)
            puts(r->domains[i]->domain->name);
    else if (r->n_domains == 0)
        puts("No domains yet; 'xm create FILE' makes one.");
    else
        domain_table(r, "");
    tool_free(&r);
    return TOOL_OK;
}

/* --- migrations --- */

static void result_text(const Migrd__MigrationInfo *m, char *out, size_t len)
{
    char total[FORMAT_LEN], pause[FORMAT_LEN];

    if (m->report == NULL)
        snprintf(out, len, "%s", m->state);
    else if (!m->report->ok)
        snprintf(out, len, "%s: %s", m->state, m->report->text);
    else if (m->report->pause_us > 0)
        snprintf(out, len, "%s in %s, pause %s", m->state, format_us(total, m->report->total_us),
            format_us(pause, m->report->pause_us));
    else
        snprintf(out, len, "%s in %s", m->state, format_us(total, m->report->total_us));
}

static void migration_table(const Migrd__Reply *r, const char *indent)
{
    struct table *t = table_new("llllll");

    table_row(t, "Id", "Domain", "Way", "Peer", "Began", "Result");
    for (size_t i = 0; i < r->n_migrations; i++) {
        const Migrd__MigrationInfo *m = r->migrations[i];
        char began[FORMAT_LEN], result[400];

        result_text(m, result, sizeof result);
        table_row(t, m->id, m->domain, m->direction, m->peer, format_wall(began, m->start_wall_ns),
            result);
    }
    table_print(&t, indent, stdout);
}

static int show_one(const Migrd__Reply *r, const char *id, bool json)
{
    const Migrd__MigrationInfo *found = NULL;

    for (size_t i = 0; i < r->n_migrations; i++)
        if (strncmp(r->migrations[i]->id, id, strlen(id)) == 0 ||
            strcmp(r->migrations[i]->domain, id) == 0 || strcmp(r->migrations[i]->uuid, id) == 0)
            found = r->migrations[i];
    if (found == NULL)
        return tool_error("Migration '%s' does not exist; 'migctl migrations -a' lists them", id);
    if (json)
        return tool_json(&found->base);
    report_print(found);
    return TOOL_OK;
}

int migctl_migrations(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = {
        { "all", no_argument, NULL, 'a' },
        { "json", no_argument, NULL, 'j' },
        { NULL, 0, NULL, 0 },
    };
    bool json = false, all = false;
    int o, rc = TOOL_OK;
    Migrd__Reply *r;

    while ((o = getopt_long(argc, argv, "a", options, NULL)) != -1) {
        if (o == '?')
            return tool_usage(t, NULL);
        json = json || o == 'j';
        all = all || o == 'a';
    }
    if (tool_words(t, argc, 0, 1) != 0)
        return TOOL_USAGE;
    r = get_migrations(t, all || optind < argc);
    if (r == NULL)
        return TOOL_FAILED;
    if (optind < argc)
        rc = show_one(r, argv[optind], json);
    else if (json)
        rc = tool_json(&r->base);
    else if (r->n_migrations == 0)
        puts(all ? "No migrations." : "No migration is under way; -a lists those that have ended.");
    else
        migration_table(r, "");
    tool_free(&r);
    return rc;
}

/* --- status --- */

static void print_host(const Migrd__HostInfo *h)
{
    char a[FORMAT_LEN], b[FORMAT_LEN], c[FORMAT_LEN];

    printf("Host        %s, migrd %s since %s\n", h->host, h->version,
        format_wall(a, h->start_wall_ns));
    printf("Hypervisor  %s %s, %u CPU%s, %s\n", h->hypervisor, h->hypervisor_release, h->cpus,
        h->cpus == 1 ? "" : "s", h->cpu_model);
    printf("Memory      %s, %s free, %s kept back\n", format_bytes(a, h->memory_total_kib * 1024),
        format_bytes(b, h->memory_free_kib * 1024), format_bytes(c, h->memory_reserved_kib * 1024));
    printf("Relocation  %s\n", h->relocation);
    for (size_t i = 0; i < h->n_warnings; i++)
        printf("Warning     %s\n", h->warnings[i]);
}

static void print_status(
    const Migrd__HostInfo *h, const Migrd__Reply *domains, const Migrd__Reply *migrations)
{
    print_host(h);
    printf("Domains     %u running, %u defined\n", h->running, h->defined);
    if (domains->n_domains > 0) {
        putchar('\n');
        domain_table(domains, "  ");
        putchar('\n');
    }
    if (migrations->n_migrations == 0)
        puts("Migrations  none under way");
    else
        printf("Migrations  %zu under way\n\n", migrations->n_migrations);
    for (size_t i = 0; i < migrations->n_migrations; i++) {
        char line[512];

        progress_line(migrations->migrations[i], line, sizeof line, 0);
        printf("  %s\n", line);
    }
}

int migctl_status(struct tool *t, int argc, char **argv)
{
    Migrd__GetHost get = MIGRD__GET_HOST__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    Migrd__Reply *host, *domains = NULL, *migrations = NULL;
    bool json = false;
    int o, rc = TOOL_FAILED;

    while ((o = getopt_long(argc, argv, "", json_only, NULL)) != -1) {
        if (o != 'j')
            return tool_usage(t, NULL);
        json = true;
    }
    if (tool_words(t, argc, 0, 0) != 0)
        return TOOL_USAGE;
    CLIENT_BODY(rq, HOST, host, &get);
    host = tool_call(t, &rq, TOOL_SHORT_MS);
    if (host != NULL && host->host != NULL)
        domains = tool_domains(t, true);
    if (domains != NULL)
        migrations = get_migrations(t, false);
    if (migrations != NULL) {
        if (json)
            rc = tool_json(&host->host->base);
        else
            print_status(host->host, domains, migrations);
        rc = TOOL_OK;
    }
    tool_free(&host);
    tool_free(&domains);
    tool_free(&migrations);
    return rc;
}

/* --- journal, dump --- */

int migctl_journal(struct tool *t, int argc, char **argv)
{
    Migrd__ReadJournal journal = MIGRD__READ_JOURNAL__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    Migrd__Reply *r;
    struct err e;
    int o;

    journal.last = 50;
    while ((o = getopt(argc, argv, "n:")) != -1) {
        if (o != 'n')
            return tool_usage(t, NULL);
        if (parse_number(optarg, "entries", 1, 1000000, &journal.last, &e) < 0)
            return tool_usage(t, "%s", e.text);
    }
    if (tool_words(t, argc, 0, 1) != 0)
        return TOOL_USAGE;
    if (optind < argc)
        journal.domain = argv[optind];
    CLIENT_BODY(rq, JOURNAL, journal, &journal);
    r = tool_call(t, &rq, TOOL_SHORT_MS);
    if (r == NULL)
        return TOOL_FAILED;
    for (size_t i = 0; i < r->n_lines; i++) {
        char when[FORMAT_LEN];

        printf("%s  %s\n", format_wall(when, r->lines[i]->wall_ns), r->lines[i]->text);
    }
    tool_free(&r);
    return TOOL_OK;
}

int migctl_dump(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = {
        { "xml", no_argument, NULL, 'x' },
        { NULL, 0, NULL, 0 },
    };
    Migrd__DumpDomain dump = MIGRD__DUMP_DOMAIN__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    Migrd__Reply *r;
    size_t len;
    int o;

    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o != 'x')
            return tool_usage(t, NULL);
        dump.xml = true;
    }
    if (tool_words(t, argc, 1, 1) != 0)
        return TOOL_USAGE;
    dump.domain = argv[optind];
    CLIENT_BODY(rq, DUMP, dump, &dump);
    r = tool_call(t, &rq, TOOL_SHORT_MS);
    if (r == NULL)
        return TOOL_FAILED;
    len = strlen(r->text);
    while (len > 0 && r->text[len - 1] == '\n')
        len--;
    printf("%.*s\n", (int)len, r->text);
    tool_free(&r);
    return TOOL_OK;
}
