/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "tools/tool.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/pbjson.h"

int tool_fail(const struct err *e)
{
    fflush(stdout);
    fprintf(stderr, "Error: %s\n", e->text);
    return TOOL_FAILED;
}

int tool_error(const char *fmt, ...)
{
    va_list ap;

    fflush(stdout);
    fputs("Error: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return TOOL_FAILED;
}

int tool_usage(struct tool *t, const char *fmt, ...)
{
    va_list ap;

    fflush(stdout);
    if (fmt != NULL) {
        fputs("Error: ", stderr);
        va_start(ap, fmt);
        vfprintf(stderr, fmt, ap);
        va_end(ap);
        fputc('\n', stderr);
    }
    fprintf(stderr, "Usage: %s %s %s\n", t->program, t->cmd->name, t->cmd->args);
    fprintf(stderr, "Try '%s help %s' for more.\n", t->program, t->cmd->name);
    return TOOL_USAGE;
}

int tool_cmd_help(const struct tool *t, const struct tool_cmd *cmd)
{
    printf("Usage: %s %s %s\n\n%s\n", t->program, cmd->name, cmd->args, cmd->help);
    if (cmd->options != NULL)
        printf("\n%s", cmd->options);
    return TOOL_OK;
}

const struct tool_cmd *tool_find(const struct tool *t, const char *name)
{
    for (const struct tool_cmd *c = t->cmds; c->name != NULL; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

void tool_help(const struct tool *t, bool all, FILE *to)
{
    fprintf(to, "Usage: %s [--root DIR] <subcommand> [args]\n\n%s\n\n", t->program, t->about);
    fprintf(to, all ? "%s full list of subcommands:\n\n" : "Common %s commands:\n\n", t->program);
    for (const struct tool_cmd *c = t->cmds; c->name != NULL; c++)
        if (c->help != NULL && (all || c->common))
            fprintf(to, " %-20s %s\n", c->name, c->help);
    fprintf(to, "\n%s\n", t->footer);
    if (!all)
        fprintf(to, "For a complete list of subcommands run '%s help'.\n", t->program);
}

static const struct option global_options[] = {
    { "root", required_argument, NULL, 'R' },
    { "help", no_argument, NULL, 'h' },
    { "version", no_argument, NULL, 'V' },
    { NULL, 0, NULL, 0 },
};

/* Returns -1 to go on, or an exit code. */
static int read_globals(struct tool *t, int argc, char **argv)
{
    const char *root = getenv("MIGRD_ROOT");
    struct err e;
    int o;

    optind = 0; /* tests run several commands in one process */
    while ((o = getopt_long(argc, argv, "+hV", global_options, NULL)) != -1) {
        switch (o) {
        case 'R':
            root = optarg;
            break;
        case 'h':
            tool_help(t, true, stdout);
            return TOOL_OK;
        case 'V':
            printf("%s of migrd %s\n", t->program, MIGRD_VERSION);
            return TOOL_OK;
        default:
            fprintf(stderr, "Try '%s help'.\n", t->program);
            return TOOL_USAGE;
        }
    }
    if (paths_init(&t->paths, root, &e) < 0)
        return tool_fail(&e);
    return -1;
}

bool tool_asked_help(struct tool *t, int argc, char **argv)
{
    if (argc != 2 || t->cmd->help == NULL ||
        (strcmp(argv[1], "--help") != 0 && strcmp(argv[1], "-h") != 0))
        return false;
    tool_cmd_help(t, t->cmd);
    return true;
}

int tool_sub(struct tool *t, const struct tool_cmd *subs, int argc, char **argv)
{
    size_t n = strlen(t->cmd->name);

    if (argc < 2)
        return tool_usage(t, "'%s %s' wants one of its subcommands.", t->program, t->cmd->name);
    for (const struct tool_cmd *c = subs; c->name != NULL; c++) {
        if (strcmp(c->name + n + 1, argv[1]) != 0)
            continue;
        t->cmd = c;
        if (tool_asked_help(t, argc - 1, argv + 1))
            return TOOL_OK;
        optind = 0;
        return c->run(t, argc - 1, argv + 1);
    }
    return tool_usage(t, "'%s' is no subcommand of '%s %s'.", argv[1], t->program, t->cmd->name);
}

/* A full disk or a closed pipe must not look like success. */
static int flush_output(int rc)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return rc;
    if (errno == EPIPE)
        return rc == TOOL_OK ? TOOL_FAILED : rc;
    return tool_error("standard output: %s", strerror(errno));
}

int tool_run(struct tool *t, int argc, char **argv)
{
    int rc = read_globals(t, argc, argv), first = optind;

    if (rc >= 0)
        return rc;
    if (first >= argc) {
        tool_help(t, false, stderr);
        return TOOL_USAGE;
    }
    t->cmd = tool_find(t, argv[first]);
    if (t->cmd == NULL) {
        fprintf(stderr, "Error: Subcommand '%s' not found!\nTry '%s help' for a list.\n",
            argv[first], t->program);
        return TOOL_USAGE;
    }
    if (tool_asked_help(t, argc - first, argv + first))
        return TOOL_OK;
    optind = 0;
    rc = t->cmd->run(t, argc - first, argv + first);
    client_close(&t->client);
    return flush_output(rc);
}

struct client *tool_client(struct tool *t)
{
    struct err e;

    if (t->client == NULL && client_open(&t->paths, &t->client, &e) < 0)
        tool_fail(&e);
    return t->client;
}

Migrd__Reply *tool_call(struct tool *t, Migrd__Request *rq, unsigned timeout_ms)
{
    struct client *c = tool_client(t);
    Migrd__Reply *r;
    struct err e;

    if (c == NULL)
        return NULL;
    r = client_call(c, rq, timeout_ms, &e);
    if (r == NULL)
        tool_fail(&e);
    return r;
}

int tool_do(struct tool *t, Migrd__Request *rq, unsigned timeout_ms)
{
    Migrd__Reply *r = tool_call(t, rq, timeout_ms);
    int rc = r != NULL ? TOOL_OK : TOOL_FAILED;

    tool_free(&r);
    return rc;
}

void tool_free(Migrd__Reply **r)
{
    if (*r != NULL)
        migrd__reply__free_unpacked(*r, NULL);
    *r = NULL;
}

Migrd__Reply *tool_domain(struct tool *t, const char *which)
{
    Migrd__GetDomain get = MIGRD__GET_DOMAIN__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    Migrd__Reply *r;

    get.domain = (char *)which;
    CLIENT_BODY(rq, GET, get, &get);
    r = tool_call(t, &rq, TOOL_SHORT_MS);
    if (r != NULL && (r->n_domains == 0 || r->domains[0]->domain == NULL)) {
        tool_error("Domain '%s' does not exist.", which);
        tool_free(&r);
    }
    return r;
}

/* A daemon that leaves out the definition would make every printer check for it: drop such rows. */
static void drop_empty(Migrd__Reply *r)
{
    size_t kept = 0;

    for (size_t i = 0; i < r->n_domains; i++) {
        if (r->domains[i]->domain != NULL)
            r->domains[kept++] = r->domains[i];
        else
            migrd__domain_info__free_unpacked(r->domains[i], NULL);
    }
    r->n_domains = kept;
}

/* As xend did: by id, those that do not run after the others, by name. */
static int by_id(const void *a, const void *b)
{
    const Migrd__DomainInfo *x = *(Migrd__DomainInfo *const *)a;
    const Migrd__DomainInfo *y = *(Migrd__DomainInfo *const *)b;
    bool x_runs = x->domid >= 0, y_runs = y->domid >= 0;

    if (x_runs != y_runs)
        return x_runs ? -1 : 1;
    if (x_runs && x->domid != y->domid)
        return x->domid < y->domid ? -1 : 1;
    return strcmp(x->domain->name, y->domain->name);
}

Migrd__Reply *tool_domains(struct tool *t, bool all)
{
    Migrd__ListDomains list = MIGRD__LIST_DOMAINS__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    Migrd__Reply *r;

    list.all = all;
    CLIENT_BODY(rq, LIST, list, &list);
    r = tool_call(t, &rq, TOOL_SHORT_MS);
    if (r == NULL)
        return NULL;
    drop_empty(r);
    if (r->n_domains > 1)
        qsort(r->domains, r->n_domains, sizeof r->domains[0], by_id);
    return r;
}

int tool_print_json(json_t *j)
{
    int bad = j == NULL || json_dumpf(j, stdout, JSON_INDENT(2)) < 0;

    json_decref(j);
    if (bad)
        return tool_error("cannot print JSON: out of memory");
    putchar('\n');
    return TOOL_OK;
}

int tool_json(const ProtobufCMessage *m)
{
    return tool_print_json(pbjson(m));
}

int tool_words(struct tool *t, int argc, int least, int most)
{
    int n = argc - optind;

    if (n >= least && n <= most)
        return 0;
    if (least == most)
        return tool_usage(t, "'%s %s' requires %d argument%s.", t->program, t->cmd->name, least,
            least == 1 ? "" : "s");
    return tool_usage(
        t, "'%s %s' requires between %d and %d arguments.", t->program, t->cmd->name, least, most);
}
