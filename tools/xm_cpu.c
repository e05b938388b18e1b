/* SPDX-License-Identifier: ISC */
/* xm's commands that change CPUs, their share, and the most memory of a domain. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/format.h"
#include "tools/xm.h"

#define NUMBER_MAX 1000000ul

/* A number within 0 and NUMBER_MAX; false for another text. */
static bool number(const char *text, unsigned *out)
{
    char *end;
    unsigned long n;

    errno = 0;
    n = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || n > NUMBER_MAX)
        return false;
    *out = (unsigned)n;
    return true;
}

static int change(struct tool *t, Migrd__TuneDomain *q)
{
    Migrd__Request rq = MIGRD__REQUEST__INIT;

    CLIENT_BODY(rq, TUNE_DOMAIN, tune_domain, q);
    return tool_do(t, &rq, 0);
}

/* --config, then the words; TOOL_OK, or the exit code. */
static int take_words(struct tool *t, int argc, char **argv, int words, bool *config_only)
{
    static const struct option options[] = {
        { "config", no_argument, NULL, 'C' },
        { NULL, 0, NULL, 0 },
    };
    int o;

    *config_only = false;
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o != 'C')
            return tool_usage(t, NULL);
        *config_only = true;
    }
    return tool_words(t, argc, words, words);
}

/* --- vcpu-pin --- */

/* vCPUs of the domain that runs, or may be there at its next boot; 0 with the error said. */
static unsigned count_vcpus(struct tool *t, const char *domain)
{
    Migrd__Reply *r = tool_domain(t, domain);
    unsigned n = r != NULL ? r->domains[0]->domain->vcpus : 0;

    tool_free(&r);
    return n;
}

int xm_vcpu_pin(struct tool *t, int argc, char **argv)
{
    Migrd__TuneDomain q = MIGRD__TUNE_DOMAIN__INIT;
    bool config_only, all;
    unsigned last;
    int rc = take_words(t, argc, argv, 3, &config_only);

    if (rc != TOOL_OK)
        return rc;
    if (xm_refuse_dom0(argv[optind], "pin the VCPUs of"))
        return TOOL_FAILED;
    q.domain = argv[optind];
    q.change = MIGRD__CPU_CHANGE__CPU_PIN;
    q.config_only = config_only;
    q.cpus = argv[optind + 2];
    all = strcmp(argv[optind + 1], "all") == 0;
    if (!all && !number(argv[optind + 1], &q.vcpu))
        return tool_usage(t, "VCPU '%s': give a number, or all", argv[optind + 1]);
    last = q.vcpu;
    if (all && (last = count_vcpus(t, q.domain)) == 0)
        return TOOL_FAILED;
    last -= all;
    for (; rc == TOOL_OK && q.vcpu <= last; q.vcpu++)
        rc = change(t, &q);
    return rc;
}

/* --- vcpu-set --- */

int xm_vcpu_set(struct tool *t, int argc, char **argv)
{
    Migrd__TuneDomain q = MIGRD__TUNE_DOMAIN__INIT;
    bool config_only;
    int rc = take_words(t, argc, argv, 2, &config_only);

    if (rc != TOOL_OK)
        return rc;
    if (xm_refuse_dom0(argv[optind], "set the VCPUs of"))
        return TOOL_FAILED;
    q.domain = argv[optind];
    q.change = MIGRD__CPU_CHANGE__CPU_COUNT;
    q.config_only = config_only;
    if (!number(argv[optind + 1], &q.vcpus))
        return tool_usage(t, "'%s': give a number of VCPUs", argv[optind + 1]);
    return change(t, &q);
}

/* --- sched-credit --- */

static void sched_row(const Migrd__DomainInfo *d)
{
    const Migrd__Domain *def = d->domain;
    char id[16] = "";

    if (d->domid >= 0)
        snprintf(id, sizeof id, "%d", d->domid);
    printf("%-32s %4s %6u %4u\n", def->name, id, def->cpu_weight != 0 ? def->cpu_weight : 256,
        def->cpu_cap);
}

static int show_sched(struct tool *t, const char *domain)
{
    Migrd__Reply *r = domain != NULL ? tool_domain(t, domain) : tool_domains(t, true);

    if (r == NULL)
        return TOOL_FAILED;
    printf("%-32s %4s %6s %4s\n", "Name", "ID", "Weight", "Cap");
    for (size_t i = 0; i < r->n_domains; i++)
        sched_row(r->domains[i]);
    tool_free(&r);
    return TOOL_OK;
}

/* TOOL_OK, or said what is wrong. */
static int take_sched(struct tool *t, int argc, char **argv, Migrd__TuneDomain *q)
{
    static const struct option options[] = {
        { "domain", required_argument, NULL, 'd' },
        { "weight", required_argument, NULL, 'w' },
        { "cap", required_argument, NULL, 'c' },
        { NULL, 0, NULL, 0 },
    };
    int o;

    while ((o = getopt_long(argc, argv, "d:w:c:", options, NULL)) != -1) {
        switch (o) {
        case 'd':
            q->domain = optarg;
            break;
        case 'w':
            q->set_weight = true;
            if (!number(optarg, &q->weight))
                return tool_usage(t, "weight '%s': give a number from 1 to 65535", optarg);
            break;
        case 'c':
            q->set_cap = true;
            if (!number(optarg, &q->cap))
                return tool_usage(t, "cap '%s': give a percentage of one CPU, or 0", optarg);
            break;
        default:
            return tool_usage(t, NULL);
        }
    }
    return tool_words(t, argc, 0, 0);
}

int xm_sched_credit(struct tool *t, int argc, char **argv)
{
    Migrd__TuneDomain q = MIGRD__TUNE_DOMAIN__INIT;
    int rc = take_sched(t, argc, argv, &q);

    if (rc != TOOL_OK)
        return rc;
    if (!q.set_weight && !q.set_cap)
        return show_sched(t, q.domain[0] != '\0' ? q.domain : NULL);
    if (q.domain[0] == '\0')
        return tool_usage(t, "Must specify a domain to set: -d");
    if (xm_refuse_dom0(q.domain, "set the weight of"))
        return TOOL_FAILED;
    q.change = MIGRD__CPU_CHANGE__CPU_SCHED;
    return change(t, &q);
}

/* --- mem-max --- */

int xm_mem_max(struct tool *t, int argc, char **argv)
{
    Migrd__TuneDomain q = MIGRD__TUNE_DOMAIN__INIT;
    bool config_only;
    int rc = take_words(t, argc, argv, 2, &config_only);

    if (rc != TOOL_OK)
        return rc;
    if (xm_refuse_dom0(argv[optind], "set the memory of"))
        return TOOL_FAILED;
    rc = xm_take_memory(t, argv[optind + 1], &q.memory_kib);
    if (rc != TOOL_OK)
        return rc;
    q.domain = argv[optind];
    q.change = MIGRD__CPU_CHANGE__MAX_MEMORY;
    q.config_only = config_only;
    return change(t, &q);
}
