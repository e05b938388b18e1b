/* SPDX-License-Identifier: ISC */
/* Acting on domains: pause, shutdown, save, migrate and their like. */
#define _GNU_SOURCE
#include "tools/xm.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/format.h"
#include "tools/migrate.h"

#define WAIT_STEP_US 500000

static int act(struct tool *t, const char *domain, Migrd__DomainAction action)
{
    Migrd__ActOnDomain a = MIGRD__ACT_ON_DOMAIN__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;

    a.domain = (char *)domain;
    a.action = action;
    CLIENT_BODY(rq, ACT, act, &a);
    return tool_do(t, &rq, TOOL_LONG_MS);
}

static int act_on_word(
    struct tool *t, int argc, char **argv, Migrd__DomainAction action, const char *verb)
{
    optind = 1;
    if (tool_words(t, argc, 1, 1) != 0)
        return TOOL_USAGE;
    if (xm_refuse_dom0(argv[1], verb))
        return TOOL_FAILED;
    return act(t, argv[1], action);
}

int xm_pause(struct tool *t, int argc, char **argv)
{
    return act_on_word(t, argc, argv, MIGRD__DOMAIN_ACTION__ACTION_PAUSE, "pause");
}

int xm_unpause(struct tool *t, int argc, char **argv)
{
    return act_on_word(t, argc, argv, MIGRD__DOMAIN_ACTION__ACTION_UNPAUSE, "unpause");
}

int xm_destroy(struct tool *t, int argc, char **argv)
{
    return act_on_word(t, argc, argv, MIGRD__DOMAIN_ACTION__ACTION_DESTROY, "destroy");
}

/* --- shutdown, reboot --- */

struct stop {
    bool all, wait, reboot, halt;
};

static int read_stop_options(struct tool *t, int argc, char **argv, struct stop *s)
{
    static const struct option options[] = {
        { "all", no_argument, NULL, 'a' },
        { "wait", no_argument, NULL, 'w' },
        { "reboot", no_argument, NULL, 'R' },
        { "halt", no_argument, NULL, 'H' },
        { NULL, 0, NULL, 0 },
    };
    int o;

    while ((o = getopt_long(argc, argv, "awRH", options, NULL)) != -1) {
        switch (o) {
        case 'a':
            s->all = true;
            break;
        case 'w':
            s->wait = true;
            break;
        case 'R':
            s->reboot = true;
            break;
        case 'H':
            s->halt = true;
            break;
        default:
            return tool_usage(t, NULL);
        }
    }
    if (s->halt && s->reboot)
        return tool_usage(t, "Can't specify halt and reboot");
    if (s->all && optind < argc)
        return tool_usage(t, "Can't specify a domain together with --all");
    if (!s->all && optind == argc)
        return tool_usage(t, "No domain parameter given");
    if (!s->all && optind + 1 < argc)
        return tool_usage(t, "No multiple domain parameters allowed");
    return TOOL_OK;
}

/* The record of `uuid` in a fresh list if it still runs with the id it had. */
static bool same_run(const Migrd__Reply *now, const Migrd__DomainInfo *d)
{
    for (size_t i = 0; i < now->n_domains; i++)
        if (strcmp(now->domains[i]->domain->uuid, d->domain->uuid) == 0)
            return now->domains[i]->domid == d->domid && strcmp(now->domains[i]->state, "shutdown");
    return false;
}

/* Waits until none of `r`'s domains marked in `waiting` runs on under its old id. */
static int wait_ended(struct tool *t, const Migrd__Reply *r, bool *waiting, const char *what)
{
    size_t left = 0;

    for (size_t i = 0; i < r->n_domains; i++)
        left += waiting[i];
    while (left > 0) {
        Migrd__Reply *now = tool_domains(t, false);

        if (now == NULL)
            return TOOL_FAILED;
        for (size_t i = 0; i < r->n_domains; i++) {
            if (!waiting[i] || same_run(now, r->domains[i]))
                continue;
            waiting[i] = false;
            left--;
            printf("Domain %s %s\n", r->domains[i]->domain->name, what);
        }
        tool_free(&now);
        fflush(stdout);
        if (left > 0)
            usleep(WAIT_STEP_US);
    }
    printf("All domains %s\n", what);
    return TOOL_OK;
}

static int stop_domains(struct tool *t, const Migrd__Reply *r, const struct stop *s)
{
    Migrd__DomainAction action =
        s->reboot ? MIGRD__DOMAIN_ACTION__ACTION_REBOOT : MIGRD__DOMAIN_ACTION__ACTION_SHUTDOWN;
    bool *asked = calloc(r->n_domains + 1, sizeof *asked);
    int rc = TOOL_OK;

    if (asked == NULL)
        return tool_error("out of memory");
    for (size_t i = 0; i < r->n_domains; i++) {
        asked[i] = act(t, r->domains[i]->domain->uuid, action) == TOOL_OK;
        if (!asked[i])
            rc = TOOL_FAILED; /* the others are asked all the same */
    }
    if (s->wait && wait_ended(t, r, asked, s->reboot ? "rebooted" : "terminated") != TOOL_OK)
        rc = TOOL_FAILED;
    free(asked);
    return rc;
}

static int stop(struct tool *t, int argc, char **argv, struct stop *s)
{
    int rc = read_stop_options(t, argc, argv, s);
    Migrd__Reply *r;

    if (rc != TOOL_OK)
        return rc;
    if (!s->all && xm_refuse_dom0(argv[optind], s->reboot ? "reboot" : "shut down"))
        return TOOL_FAILED;
    r = s->all ? tool_domains(t, false) : tool_domain(t, argv[optind]);
    if (r == NULL)
        return TOOL_FAILED;
    rc = stop_domains(t, r, s);
    tool_free(&r);
    return rc;
}

int xm_shutdown(struct tool *t, int argc, char **argv)
{
    struct stop s = { 0 };

    return stop(t, argc, argv, &s);
}

int xm_reboot(struct tool *t, int argc, char **argv)
{
    struct stop s = { .reboot = true };

    return stop(t, argc, argv, &s);
}

/* --- save, restore --- */

/* Absolute, because the daemon has another working directory. */
static int absolute(const char *file, char out[PATH_MAX])
{
    char cwd[PATH_MAX];
    int n;

    if (file[0] == '/')
        n = snprintf(out, PATH_MAX, "%s", file);
    else if (getcwd(cwd, sizeof cwd) == NULL)
        return tool_error("the current folder is gone");
    else
        n = snprintf(out, PATH_MAX, "%s/%s", cwd, file);
    return n < PATH_MAX ? TOOL_OK : tool_error("%s: name too long", file);
}

int xm_save(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = {
        { "checkpoint", no_argument, NULL, 'c' },
        { NULL, 0, NULL, 0 },
    };
    Migrd__SaveDomain save = MIGRD__SAVE_DOMAIN__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    char path[PATH_MAX];
    int o;

    while ((o = getopt_long(argc, argv, "c", options, NULL)) != -1) {
        if (o != 'c')
            return tool_usage(t, NULL);
        return tool_error("xm save -c: leaving the domain running is not supported by migrd; "
                          "save it, then 'xm restore' the file");
    }
    if (tool_words(t, argc, 2, 2) != 0)
        return TOOL_USAGE;
    if (xm_refuse_dom0(argv[optind], "save") || absolute(argv[optind + 1], path) != TOOL_OK)
        return TOOL_FAILED;
    save.domain = argv[optind];
    save.path = path;
    CLIENT_BODY(rq, SAVE, save, &save);
    return tool_do(t, &rq, 0);
}

int xm_restore(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = {
        { "paused", no_argument, NULL, 'p' },
        { NULL, 0, NULL, 0 },
    };
    Migrd__RestoreDomain restore = MIGRD__RESTORE_DOMAIN__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    char path[PATH_MAX];
    int o;

    while ((o = getopt_long(argc, argv, "p", options, NULL)) != -1) {
        if (o != 'p')
            return tool_usage(t, NULL);
        restore.paused = true;
    }
    if (tool_words(t, argc, 1, 1) != 0)
        return TOOL_USAGE;
    if (absolute(argv[optind], path) != TOOL_OK)
        return TOOL_FAILED;
    if (access(path, F_OK) < 0)
        return tool_error("xm restore: Unable to read file %s", path);
    restore.path = path;
    CLIENT_BODY(rq, RESTORE, restore, &restore);
    return tool_do(t, &rq, 0);
}

int xm_dump_core(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = {
        { "live", no_argument, NULL, 'L' },
        { "crash", no_argument, NULL, 'C' },
        { "reset", no_argument, NULL, 'R' },
        { NULL, 0, NULL, 0 },
    };
    Migrd__DumpCore core = MIGRD__DUMP_CORE__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    char path[PATH_MAX];
    int o;

    while ((o = getopt_long(argc, argv, "LCR", options, NULL)) != -1) {
        if (o == 'R')
            return tool_error("xm dump-core --reset is not supported; dump it, then 'xm reboot'");
        if (o != 'L' && o != 'C')
            return tool_usage(t, NULL);
        *(o == 'L' ? &core.live : &core.crash) = true;
    }
    if (tool_words(t, argc, 2, 2) != 0)
        return TOOL_USAGE;
    if (core.live && core.crash)
        return tool_error("xm dump-core: --live and --crash exclude each other");
    if (xm_refuse_dom0(argv[optind], "dump-core") || absolute(argv[optind + 1], path) != TOOL_OK)
        return TOOL_FAILED;
    core.domain = argv[optind];
    core.path = path;
    CLIENT_BODY(rq, DUMP_CORE, dump_core, &core);
    return tool_do(t, &rq, 0);
}

/* --- memory --- */

int xm_take_memory(struct tool *t, const char *word, uint64_t *kib)
{
    uint64_t bytes;
    struct err e;

    if (parse_bytes(word, "memory", &bytes, &e) < 0)
        return tool_usage(t, "%s", e.text);
    if (word[strspn(word, "0123456789")] == '\0') {
        if (bytes > UINT64_MAX >> 21)
            return tool_usage(t, "memory '%s': too large", word);
        bytes <<= 20;
    }
    *kib = bytes / 1024;
    return TOOL_OK;
}

int xm_mem_set(struct tool *t, int argc, char **argv)
{
    Migrd__SetMemory set = MIGRD__SET_MEMORY__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    int rc;

    optind = 1;
    if (tool_words(t, argc, 2, 2) != 0)
        return TOOL_USAGE;
    if (xm_refuse_dom0(argv[1], "set the memory of"))
        return TOOL_FAILED;
    rc = xm_take_memory(t, argv[2], &set.memory_kib);
    if (rc != TOOL_OK)
        return rc;
    set.domain = argv[1];
    CLIENT_BODY(rq, SET_MEMORY, set_memory, &set);
    return tool_do(t, &rq, TOOL_LONG_MS);
}

/* --- migrate --- */

/* The node's number meant memory placement on the target, which its migrd decides. */
static int check_node(struct tool *t, const char *word)
{
    if (strcmp(word, "-1") == 0)
        return TOOL_OK;
    if (strcmp(word, "0") == 0) {
        fputs("xm migrate: -n 0 is ignored: the target places the domain's memory.\n", stderr);
        return TOOL_OK;
    }
    return tool_usage(
        t, "node '%s': the target places the domain's memory; leave -n out or give -1", word);
}

static int read_migrate_options(
    struct tool *t, int argc, char **argv, Migrd__Migrate *m, Migrd__PrecopyParams *p)
{
    static const struct option options[] = {
        { "live", no_argument, NULL, 'l' },
        { "port", required_argument, NULL, 'p' },
        { "node", required_argument, NULL, 'n' },
        { "ssl", no_argument, NULL, 's' },
        { "change_home_server", no_argument, NULL, 'c' },
        { "allow-paused", no_argument, NULL, 'P' },
        { NULL, 0, NULL, 0 },
    };
    struct err e;
    int o;

    while ((o = getopt_long(argc, argv, "lp:n:sc", options, NULL)) != -1) {
        switch (o) {
        case 'l':
            p->live = true;
            break;
        case 'p':
            if (parse_number(optarg, "port", 0, 65535, &m->port, &e) < 0)
                return tool_usage(t, "%s", e.text);
            break;
        case 'n':
            if (check_node(t, optarg) != TOOL_OK)
                return TOOL_USAGE;
            break;
        case 's':
            m->tls = (char *)"yes";
            break;
        case 'c':
            p->change_home = true;
            break;
        case 'P':
            p->live = p->allow_paused = true;
            break;
        default:
            return tool_usage(t, NULL);
        }
    }
    if (argc - optind != 2)
        return tool_usage(t, "Invalid number of arguments");
    m->domain = argv[optind];
    m->host = argv[optind + 1];
    return TOOL_OK;
}

int xm_migrate(struct tool *t, int argc, char **argv)
{
    Migrd__Migrate m = MIGRD__MIGRATE__INIT;
    Migrd__PrecopyParams p = MIGRD__PRECOPY_PARAMS__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    int rc = read_migrate_options(t, argc, argv, &m, &p);

    if (rc != TOOL_OK)
        return rc;
    if (xm_refuse_dom0(m.domain, "migrate"))
        return TOOL_FAILED;
    m.params = &p;
    CLIENT_BODY(rq, MIGRATE, migrate, &m);
    return migrate_follow(t, &rq, m.domain, false, MIGRATE_SILENT);
}
