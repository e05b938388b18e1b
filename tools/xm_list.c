/* SPDX-License-Identifier: ISC */
/* Questions about domains: list, vcpu-list, domid, domname, uptime. Columns are xm's. */
#define _GNU_SOURCE
#include "tools/xm.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "tools/format.h"

static bool is_dom0(const char *which)
{
    return strcasecmp(which, "Domain-0") == 0 || strcmp(which, "0") == 0;
}

static bool names(const Migrd__DomainInfo *d, const char *which)
{
    char id[16];

    snprintf(id, sizeof id, "%d", d->domid);
    return strcmp(which, d->domain->name) == 0 || strcasecmp(which, d->domain->uuid) == 0 ||
           (d->domid >= 0 && strcmp(which, id) == 0);
}

static bool runs(const Migrd__DomainInfo *d)
{
    return d->domid >= 0;
}

static const Migrd__DomainInfo *find(const Migrd__Reply *r, const char *word)
{
    for (size_t k = 0; k < r->n_domains; k++)
        if (names(r->domains[k], word))
            return r->domains[k];
    return NULL;
}

/* Before anything is printed: an exit code. */
static int check_words(const Migrd__Reply *r, char **words, int n)
{
    for (int i = 0; i < n; i++)
        if (find(r, words[i]) == NULL && !is_dom0(words[i]))
            return tool_error("Domain '%s' does not exist.", words[i]);
    return TOOL_OK;
}

/* Calls fn for the domains that `words` name, in that order, or for all of them without words;
 * fn(NULL) is Domain-0. */
typedef void row_fn(void *arg, const Migrd__DomainInfo *d);

static void each_domain(const Migrd__Reply *r, char **words, int n, row_fn *fn, void *arg)
{
    for (int i = 0; i < n; i++)
        fn(arg, find(r, words[i]));
    if (n > 0)
        return;
    fn(arg, NULL);
    for (size_t k = 0; k < r->n_domains; k++)
        fn(arg, r->domains[k]);
}

/* --- list --- */

struct list {
    const Migrd__HostInfo *host;
    uint64_t guests_kib;
    const char *state; /* --state, or NULL */
};

static bool in_state(const struct list *l, const Migrd__DomainInfo *d)
{
    const char *now;

    if (l->state == NULL || strcmp(l->state, "all") == 0)
        return true;
    now = d == NULL ? "running" : xm_state(d);
    if (strcmp(l->state, "halted") == 0)
        return d != NULL && !runs(d);
    if (strcmp(l->state, "paused") == 0)
        return now[0] != '\0' && now[2] == 'p';
    return d == NULL || (runs(d) && now[2] != 'p');
}

/* Domain-0's own figures on Xen; elsewhere what the guests have not. */
static uint64_t host_kib(const struct list *l)
{
    return l->host->host_kib != 0 ? l->host->host_kib : l->host->memory_total_kib - l->guests_kib;
}

static unsigned host_vcpus(const struct list *l)
{
    return l->host->host_vcpus != 0 ? l->host->host_vcpus : l->host->cpus;
}

static void list_row(void *arg, const Migrd__DomainInfo *d)
{
    const struct list *l = arg;
    char id[16] = "";
    uint64_t kib;

    if (!in_state(l, d))
        return;
    if (d == NULL) {
        printf("%-40s %5s %5llu %5u %10s %8.1f\n", "Domain-0", "0",
            (unsigned long long)(host_kib(l) / 1024), host_vcpus(l), "r-----",
            (double)xm_host_cpu_ns() / 1e9);
        return;
    }
    if (runs(d))
        snprintf(id, sizeof id, "%d", d->domid);
    kib = runs(d) && d->memory_kib != 0 ? d->memory_kib : d->domain->memory_kib;
    printf("%-40s %5s %5llu %5u %10s %8.1f\n", d->domain->name, id,
        (unsigned long long)(kib / 1024), d->domain->vcpus, xm_state(d), (double)d->cpu_ns / 1e9);
}

static void long_row(void *arg, const Migrd__DomainInfo *d)
{
    const struct list *l = arg;

    if (!in_state(l, d))
        return;
    if (d != NULL)
        xm_print_sxp(d);
    else
        printf("(domain\n    (domid 0)\n    (name Domain-0)\n    (memory %llu)\n    (vcpus %u)\n"
               "    (state r-----)\n    (cpu_time %.3f)\n)\n",
            (unsigned long long)(host_kib(l) / 1024), host_vcpus(l),
            (double)xm_host_cpu_ns() / 1e9);
}

static Migrd__Reply *get_host(struct tool *t)
{
    Migrd__GetHost get = MIGRD__GET_HOST__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    Migrd__Reply *r;

    CLIENT_BODY(rq, HOST, host, &get);
    r = tool_call(t, &rq, TOOL_SHORT_MS);
    if (r != NULL && r->host == NULL) {
        tool_error("migrd's answer does not describe the host; are xm and migrd of one version?");
        tool_free(&r);
    }
    return r;
}

static int list_domains(struct tool *t, struct list *l, bool use_long, char **words, int n)
{
    Migrd__Reply *host = get_host(t), *r = host != NULL ? tool_domains(t, true) : NULL;
    int rc = TOOL_FAILED;

    if (r != NULL) {
        l->host = host->host;
        for (size_t i = 0; i < r->n_domains; i++)
            if (runs(r->domains[i]))
                l->guests_kib += r->domains[i]->memory_kib;
        if (l->guests_kib > l->host->memory_total_kib)
            l->guests_kib = l->host->memory_total_kib;
        rc = check_words(r, words, n);
    }
    if (rc == TOOL_OK) {
        if (!use_long)
            printf(
                "%-40s %5s %5s %5s %10s %9s\n", "Name", "ID", "Mem", "VCPUs", "State", "Time(s)");
        each_domain(r, words, n, use_long ? long_row : list_row, l);
    }
    tool_free(&r);
    tool_free(&host);
    return rc;
}

int xm_list(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = {
        { "long", no_argument, NULL, 'l' },
        { "vcpus", no_argument, NULL, 'v' },
        { "all", no_argument, NULL, 'a' },
        { "state", required_argument, NULL, 's' },
        { NULL, 0, NULL, 0 },
    };
    struct list l = { 0 };
    bool use_long = false;
    int o;

    while ((o = getopt_long(argc, argv, "lva", options, NULL)) != -1) {
        switch (o) {
        case 'l':
            use_long = true;
            break;
        case 'a': /* domains that do not run are listed anyway */
            break;
        case 's':
            l.state = optarg;
            break;
        case 'v':
            fputs("xm list -v is deprecated.  Please use xm vcpu-list.\n", stderr);
            return xm_vcpu_list(t, argc, argv);
        default:
            return tool_usage(t, NULL);
        }
    }
    if (l.state != NULL && optind < argc)
        return tool_usage(t, "You may specify either a state or a particular VM, but not both");
    if (l.state != NULL && strcmp(l.state, "all") != 0 && strcmp(l.state, "running") != 0 &&
        strcmp(l.state, "paused") != 0 && strcmp(l.state, "halted") != 0)
        return tool_usage(t, "state '%s': give running, paused, halted or all", l.state);
    return list_domains(t, &l, use_long, argv + optind, argc - optind);
}

/* --- vcpu-list --- */

static void vcpu_rows(void *arg, const Migrd__DomainInfo *d)
{
    Migrd__GetVcpus get = MIGRD__GET_VCPUS__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    Migrd__Reply *r;
    const char *state;
    char cpu[16];

    if (d == NULL || !runs(d))
        return; /* Domain-0's CPUs are the host's: see lscpu */
    get.domain = d->domain->uuid;
    CLIENT_BODY(rq, GET_VCPUS, get_vcpus, &get);
    r = tool_call(arg, &rq, 0);
    state = xm_state(d);
    for (size_t i = 0; r != NULL && i < r->n_vcpus; i++) {
        const Migrd__VcpuInfo *v = r->vcpus[i];

        snprintf(cpu, sizeof cpu, "%d", v->cpu);
        printf("%-32s %5d %5zu %5s %4.3s  %8.1f %s\n", d->domain->name, d->domid, i,
            v->cpu < 0 ? "-" : cpu,
            state[2] != '-' ? state
            : v->running    ? "r--"
                            : "-b-",
            (double)v->cpu_ns / 1e9, v->cpus[0] != '\0' ? v->cpus : "any cpu");
    }
    tool_free(&r);
}

int xm_vcpu_list(struct tool *t, int argc, char **argv)
{
    Migrd__Reply *r = tool_domains(t, true);
    int rc;

    if (r == NULL)
        return TOOL_FAILED;
    if (optind == 0)
        optind = 1;
    rc = check_words(r, argv + optind, argc - optind);
    if (rc == TOOL_OK)
        printf("%-32s %5s %5s %5s %5s %9s %s\n", "Name", "ID", "VCPU", "CPU", "State", "Time(s)",
            "CPU Affinity");
    if (rc == TOOL_OK)
        each_domain(r, argv + optind, argc - optind, vcpu_rows, t);
    tool_free(&r);
    return rc;
}

/* --- names and numbers --- */

int xm_domid(struct tool *t, int argc, char **argv)
{
    Migrd__Reply *r;

    optind = 1;
    if (tool_words(t, argc, 1, 1) != 0)
        return TOOL_USAGE;
    if (is_dom0(argv[1])) {
        puts("0");
        return TOOL_OK;
    }
    r = tool_domain(t, argv[1]);
    if (r == NULL)
        return TOOL_FAILED;
    if (runs(r->domains[0]))
        printf("%d\n", r->domains[0]->domid);
    else
        puts("None"); /* as xm printed it for a managed domain at rest */
    tool_free(&r);
    return TOOL_OK;
}

int xm_domname(struct tool *t, int argc, char **argv)
{
    Migrd__Reply *r;

    optind = 1;
    if (tool_words(t, argc, 1, 1) != 0)
        return TOOL_USAGE;
    if (is_dom0(argv[1])) {
        puts("Domain-0");
        return TOOL_OK;
    }
    r = tool_domain(t, argv[1]);
    if (r == NULL)
        return TOOL_FAILED;
    puts(r->domains[0]->domain->name);
    tool_free(&r);
    return TOOL_OK;
}

/* --- uptime --- */

static uint64_t uptime_s(const Migrd__DomainInfo *d)
{
    uint64_t now = clock_wall_ns();

    if (d == NULL)
        return clock_of(CLOCK_BOOTTIME) / NS_PER_S;
    return d->start_wall_ns != 0 && now > d->start_wall_ns ? (now - d->start_wall_ns) / NS_PER_S
                                                           : 0;
}

static void uptime_row(void *arg, const Migrd__DomainInfo *d)
{
    bool brief = *(bool *)arg;
    const char *name = d == NULL ? "Domain-0" : d->domain->name;
    int id = d == NULL ? 0 : d->domid;
    char up[FORMAT_LEN], day[FORMAT_LEN];

    if (d != NULL && !runs(d))
        return;
    format_uptime(up, uptime_s(d));
    if (!brief) {
        printf("%-32s %3d %s\n", name, id, up);
        return;
    }
    *strrchr(up, ':') = '\0'; /* hours and minutes will do */
    format_wall(day, clock_wall_ns());
    printf(" %s up %s, %s (%d)\n", day + strlen("2026-01-31 "), up, name, id);
}

int xm_uptime(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = {
        { "short", no_argument, NULL, 's' },
        { NULL, 0, NULL, 0 },
    };
    bool brief = false;
    Migrd__Reply *r;
    int o, rc;

    while ((o = getopt_long(argc, argv, "s", options, NULL)) != -1) {
        if (o != 's')
            return tool_usage(t, NULL);
        brief = true;
    }
    r = tool_domains(t, true);
    if (r == NULL)
        return TOOL_FAILED;
    rc = check_words(r, argv + optind, argc - optind);
    if (rc == TOOL_OK && !brief)
        puts("Name                              ID Uptime");
    if (rc == TOOL_OK)
        each_domain(r, argv + optind, argc - optind, uptime_row, &brief);
    tool_free(&r);
    return rc;
}
