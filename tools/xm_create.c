/* SPDX-License-Identifier: ISC */
/* Making domains and looking at them: create, new, start, delete, console. */
#define _GNU_SOURCE
#include "tools/xm.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "tools/console.h"
#include "tools/format.h"

#define FILE_MAX (256u * 1024) /* migrd takes no longer definition */
#define CONSOLE_TRIES 50       /* x 100 ms until a started domain has its console */

/* --- console --- */

static int join_console(const Migrd__DomainInfo *d, unsigned limit_s)
{
    struct err e;

    if (d->domid < 0)
        return tool_error("Domain '%s' is not started", d->domain->name);
    if (d->console[0] == '\0')
        return tool_error("Domain '%s' has no console", d->domain->name);
    if (console_attach(d->console, limit_s, &e) < 0)
        return tool_fail(&e);
    return TOOL_OK;
}

int xm_console(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = {
        { "quiet", no_argument, NULL, 'q' },
        { NULL, 0, NULL, 0 },
    };
    uint32_t limit_s = 0;
    bool quiet = false;
    Migrd__Reply *r;
    struct err e;
    int o, rc;

    while ((o = getopt_long(argc, argv, "qt:", options, NULL)) != -1) {
        if (o == 'q')
            quiet = true;
        else if (o != 't')
            return tool_usage(t, NULL);
        else if (parse_number(optarg, "seconds", 1, 86400, &limit_s, &e) < 0)
            return tool_usage(t, "%s", e.text);
    }
    if (optind + 1 != argc)
        return tool_usage(t, "No domain given");
    if (xm_refuse_dom0(argv[optind], "attach to the console of"))
        return TOOL_FAILED;
    if (quiet && freopen("/dev/null", "w", stderr) == NULL)
        return TOOL_FAILED;
    r = tool_domain(t, argv[optind]);
    if (r == NULL)
        return TOOL_FAILED;
    rc = join_console(r->domains[0], limit_s);
    tool_free(&r);
    return rc;
}

/* A domain just started may need a moment until its process has said where the console is. */
static int console_of(struct tool *t, const char *which)
{
    Migrd__Reply *r = NULL;
    int rc;

    for (int i = 0; i < CONSOLE_TRIES; i++) {
        tool_free(&r);
        r = tool_domain(t, which);
        if (r == NULL)
            return TOOL_FAILED;
        if (r->domains[0]->console[0] != '\0')
            break;
        usleep(100 * 1000);
    }
    rc = join_console(r->domains[0], 0);
    tool_free(&r);
    return rc;
}

/* --- create, new --- */

struct create {
    const char *file;
    char path[PATH_MAX]; /* absolute: the daemon has another working directory */
    char **vars;
    size_t n_vars;
    bool paused, dry_run, quiet, console;
};

static const char *resolve_file(struct create *c)
{
    char in_etc[PATH_MAX];

    if (realpath(c->file, c->path) != NULL)
        return c->path;
    snprintf(in_etc, sizeof in_etc, "/etc/xen/%s", c->file);
    if (strchr(c->file, '/') == NULL && realpath(in_etc, c->path) != NULL)
        return c->path;
    return NULL;
}

static char *read_stdin(size_t *len, struct err *e)
{
    char *buf = malloc(FILE_MAX + 1);

    if (buf == NULL) {
        err_set(e, ERR_MEMORY, "out of memory");
        return NULL;
    }
    *len = fread(buf, 1, FILE_MAX + 1, stdin);
    if (*len <= FILE_MAX)
        return buf;
    free(buf);
    err_set(e, ERR_INVALID, "standard input: longer than %u bytes", FILE_MAX);
    return NULL;
}

static char *read_definition(struct create *c, size_t *len, struct err *e)
{
    if (strcmp(c->file, "-") == 0) {
        snprintf(c->path, sizeof c->path, "standard input");
        return read_stdin(len, e);
    }
    if (resolve_file(c) == NULL) {
        err_set(e, ERR_NOT_FOUND, "Unable to open config file: %s", c->file);
        return NULL;
    }
    return io_read_file(c->path, FILE_MAX, len, e);
}

static int read_create_options(struct tool *t, int argc, char **argv, struct create *c)
{
    static const struct option options[] = {
        { "quiet", no_argument, NULL, 'q' },
        { "paused", no_argument, NULL, 'p' },
        { "dryrun", no_argument, NULL, 'n' },
        { "console_autoconnect", no_argument, NULL, 'c' },
        { "defconfig", required_argument, NULL, 'f' },
        { "config", required_argument, NULL, 'F' },
        { NULL, 0, NULL, 0 },
    };
    int o;

    while ((o = getopt_long(argc, argv, "qpncf:F:", options, NULL)) != -1) {
        switch (o) {
        case 'q':
            c->quiet = true;
            break;
        case 'p':
            c->paused = true;
            break;
        case 'n':
            c->dry_run = true;
            break;
        case 'c':
            c->console = true;
            break;
        case 'f':
        case 'F':
            c->file = optarg;
            break;
        default:
            return tool_usage(t, NULL);
        }
    }
    if (c->file == NULL && optind < argc)
        c->file = argv[optind++];
    if (c->file == NULL)
        return tool_usage(t, "No config file given");
    c->vars = argv + optind;
    c->n_vars = (size_t)(argc - optind);
    for (size_t i = 0; i < c->n_vars; i++)
        if (strchr(c->vars[i], '=') == NULL)
            return tool_usage(t, "'%s': expected key=value", c->vars[i]);
    return TOOL_OK;
}

static Migrd__Reply *send_create(struct tool *t, struct create *c, bool define_only)
{
    Migrd__CreateDomain create = MIGRD__CREATE_DOMAIN__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    Migrd__Reply *r;
    struct err e;
    char *text;

    text = read_definition(c, &create.text.len, &e);
    if (text == NULL) {
        tool_fail(&e);
        return NULL;
    }
    if (!c->quiet)
        printf("Using config file \"%s\".\n", c->path);
    create.text.data = (uint8_t *)text;
    create.file = c->path;
    create.overrides = c->vars;
    create.n_overrides = c->n_vars;
    create.start_paused = c->paused;
    create.define_only = define_only;
    create.dry_run = c->dry_run;
    CLIENT_BODY(rq, CREATE, create, &create);
    r = tool_call(t, &rq, TOOL_LONG_MS);
    free(text);
    return r;
}

static void say_started(const Migrd__Reply *r)
{
    if (r->n_domains > 0 && r->domains[0]->domain != NULL)
        printf("Started domain %s (id=%d)\n", r->domains[0]->domain->name, r->domains[0]->domid);
    else if (r->text[0] != '\0')
        printf("Started: %s\n", r->text);
}

static void show_dry_run(const Migrd__Reply *r)
{
    for (size_t i = 0; i < r->n_domains; i++)
        if (r->domains[i]->domain != NULL)
            xm_print_sxp(r->domains[i]);
    if (r->n_domains == 0 && r->text[0] != '\0')
        puts(r->text);
}

int xm_create(struct tool *t, int argc, char **argv)
{
    struct create c = { 0 };
    int rc = read_create_options(t, argc, argv, &c);
    Migrd__Reply *r;

    if (rc != TOOL_OK)
        return rc;
    r = send_create(t, &c, false);
    if (r == NULL)
        return TOOL_FAILED;
    if (c.dry_run)
        show_dry_run(r);
    else if (!c.quiet)
        say_started(r);
    if (c.console && !c.dry_run && r->n_domains > 0 && r->domains[0]->domain != NULL)
        rc = console_of(t, r->domains[0]->domain->uuid);
    tool_free(&r);
    return rc;
}

int xm_new(struct tool *t, int argc, char **argv)
{
    struct create c = { 0 };
    int rc = read_create_options(t, argc, argv, &c);
    Migrd__Reply *r;

    if (rc != TOOL_OK)
        return rc;
    r = send_create(t, &c, true);
    if (r == NULL)
        return TOOL_FAILED;
    if (c.dry_run)
        show_dry_run(r);
    tool_free(&r);
    return TOOL_OK;
}

/* --- start, delete --- */

int xm_start(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = {
        { "paused", no_argument, NULL, 'p' },
        { "console_autoconnect", no_argument, NULL, 'c' },
        { NULL, 0, NULL, 0 },
    };
    Migrd__StartDomain start = MIGRD__START_DOMAIN__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    bool console = false;
    int o, rc;

    while ((o = getopt_long(argc, argv, "pc", options, NULL)) != -1) {
        if (o == 'p')
            start.paused = true;
        else if (o == 'c')
            console = true;
        else
            return tool_usage(t, NULL);
    }
    if (tool_words(t, argc, 1, 1) != 0)
        return TOOL_USAGE;
    start.domain = argv[optind];
    CLIENT_BODY(rq, START, start, &start);
    rc = tool_do(t, &rq, TOOL_LONG_MS);
    if (rc == TOOL_OK && console)
        rc = console_of(t, start.domain);
    return rc;
}

int xm_delete(struct tool *t, int argc, char **argv)
{
    Migrd__UndefineDomain undefine = MIGRD__UNDEFINE_DOMAIN__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;

    optind = 1;
    if (tool_words(t, argc, 1, 1) != 0)
        return TOOL_USAGE;
    if (xm_refuse_dom0(argv[1], "delete"))
        return TOOL_FAILED;
    undefine.domain = argv[1];
    CLIENT_BODY(rq, UNDEFINE, undefine, &undefine);
    return tool_do(t, &rq, TOOL_SHORT_MS);
}
