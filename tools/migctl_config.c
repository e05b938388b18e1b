/* SPDX-License-Identifier: ISC */
/*
 * migctl acl, config, import-xend, reload. `acl test` asks the running daemon; with
 * --config it compiles that file's rules here and asks the resolver itself, so that a new
 * rule can be tried before it is in force.
 */
#define _GNU_SOURCE
#include "tools/migctl.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/io.h"
#include "relocation-acl/relocation-acl.h"

static const struct option config_file_option[] = {
    { "config", required_argument, NULL, 'c' },
    { NULL, 0, NULL, 0 },
};

/* --- acl test --- */

static void warn(void *arg, const char *text)
{
    (void)arg;
    fprintf(stderr, "Warning: %s\n", text);
}

/* A word that is an address: the name that belongs to it, confirmed. A word that is a name: the
 * addresses that belong to it. Prints the verdict for each; true if all are admitted. */
static bool judge(const struct acl *a, const char *name, const char *address)
{
    struct acl_verdict v;

    acl_check(a, name, address, &v);
    printf("%s%s%s%s: %s: %s\n", name[0] != '\0' ? name : address, name[0] != '\0' ? " (" : "",
        name[0] != '\0' ? address : "", name[0] != '\0' ? ")" : "",
        v.allowed ? "admitted" : "refused", v.why);
    return v.allowed;
}

static bool judge_address(const struct acl *a, const struct addrinfo *ai)
{
    char name[ACL_NAME_LEN], why[512] = "", address[INET6_ADDRSTRLEN + 1];

    if (acl_address_text(ai->ai_addr, address, sizeof address) < 0)
        return false;
    if (acl_resolve(ai->ai_addr, ai->ai_addrlen, name, why, sizeof why) != 0)
        name[0] = '\0';
    if (name[0] == '\0' && why[0] != '\0')
        fprintf(stderr, "Note: %s\n", why);
    return judge(a, name, address);
}

static int acl_offline(const char *file, const char *who)
{
    struct config *c = calloc(1, sizeof *c);
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
    struct acl *a = NULL;
    struct err e;
    bool all = true;
    int rc = TOOL_FAILED, r;

    if (c == NULL)
        return tool_error("out of memory");
    config_defaults(c);
    if (config_load(c, file, &e) < 0 ||
        acl_compile(c->relocation_hosts_allow, c->relocation_hosts_allow_set, warn, NULL, &a, &e) <
            0) {
        rc = tool_fail(&e);
    } else if ((r = getaddrinfo(who, NULL, &hints, &list)) != 0) {
        fprintf(stderr, "Note: %s: %s; judged by its name alone\n", who, gai_strerror(r));
        rc = judge(a, who, "") ? TOOL_OK : TOOL_FAILED;
    } else {
        for (struct addrinfo *ai = list; ai != NULL; ai = ai->ai_next)
            all = judge_address(a, ai) && all;
        rc = all ? TOOL_OK : TOOL_FAILED;
        freeaddrinfo(list);
    }
    acl_free(&a);
    free(c);
    return rc;
}

/* The verdict is the second word of migrd's answer: "host1: refused: ...". */
static bool says_refused(const char *text, const char *who)
{
    static const char refused[] = ": refused";
    size_t n = strlen(who);

    return strncmp(text, who, n) == 0 && strncmp(text + n, refused, sizeof refused - 1) == 0;
}

static int acl_online(struct tool *t, const char *who)
{
    Migrd__AclTest test = MIGRD__ACL_TEST__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    Migrd__Reply *r;
    int rc;

    test.who = (char *)who;
    CLIENT_BODY(rq, ACL_TEST, acl_test, &test);
    r = tool_call(t, &rq, TOOL_LONG_MS);
    if (r == NULL)
        return TOOL_FAILED;
    puts(r->text);
    rc = says_refused(r->text, who) ? TOOL_FAILED : TOOL_OK;
    tool_free(&r);
    return rc;
}

int migctl_acl(struct tool *t, int argc, char **argv)
{
    const char *file = NULL;
    int o;

    while ((o = getopt_long(argc, argv, "", config_file_option, NULL)) != -1) {
        if (o != 'c')
            return tool_usage(t, NULL);
        file = optarg;
    }
    if (argc - optind != 2 || strcmp(argv[optind], "test") != 0)
        return tool_usage(t, "give 'test' and a host's name or address");
    return file != NULL ? acl_offline(file, argv[optind + 1]) : acl_online(t, argv[optind + 1]);
}

/* --- config --- */

static int print_keys(void)
{
    const char *help, *key;

    for (size_t i = 0; (key = config_key(i, &help)) != NULL; i++)
        printf("%-32s %s\n", key, help);
    return TOOL_OK;
}

static int print_config(const struct config *c)
{
    char *text = config_print(c);

    if (text == NULL)
        return tool_error("out of memory");
    fputs(text, stdout);
    free(text);
    return TOOL_OK;
}

static int print_key(const struct config *c, const char *key)
{
    char value[CONFIG_VALUE_MAX + 1];

    if (config_get(c, key, value, sizeof value) < 0)
        return tool_error("no such key: %s; 'migctl config keys' lists them", key);
    puts(value);
    return TOOL_OK;
}

static int with_config(struct tool *t, const char *file, int n, char **words)
{
    struct config *c = calloc(1, sizeof *c);
    struct err e;
    int rc;

    if (c == NULL)
        return tool_error("out of memory");
    config_defaults(c);
    if (config_load(c, file, &e) < 0 && e.code != ERR_NOT_FOUND)
        rc = tool_fail(&e);
    else if (n == 2 && strcmp(words[0], "get") == 0)
        rc = print_key(c, words[1]);
    else if (n == 0 || (n == 1 && strcmp(words[0], "show") == 0))
        rc = print_config(c);
    else
        rc = tool_usage(t, "give show, get KEY or keys");
    free(c);
    return rc;
}

int migctl_config(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = {
        { "file", required_argument, NULL, 'f' },
        { NULL, 0, NULL, 0 },
    };
    const char *file = t->paths.config;
    int o;

    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o != 'f')
            return tool_usage(t, NULL);
        file = optarg;
    }
    if (argc - optind == 1 && strcmp(argv[optind], "keys") == 0)
        return print_keys();
    return with_config(t, file, argc - optind, argv + optind);
}

/* --- import-xend, reload --- */

static int write_config(const struct config *c, const char *output)
{
    char *text = config_print(c);
    struct err e;
    int rc = TOOL_OK;

    if (text == NULL)
        return tool_error("out of memory");
    if (output == NULL)
        fputs(text, stdout);
    else if (io_replace_file(output, text, strlen(text), 0644, &e) < 0)
        rc = tool_fail(&e);
    else
        fprintf(
            stderr, "Wrote %s; 'migrd -n' checks it, 'migctl reload' puts it in force.\n", output);
    free(text);
    return rc;
}

int migctl_import_xend(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = {
        { "output", required_argument, NULL, 'o' },
        { NULL, 0, NULL, 0 },
    };
    const char *output = NULL;
    char *notes = NULL;
    struct config *c;
    struct err e;
    int o, rc;

    while ((o = getopt_long(argc, argv, "o:", options, NULL)) != -1) {
        if (o != 'o')
            return tool_usage(t, NULL);
        output = optarg;
    }
    if (tool_words(t, argc, 1, 1) != 0)
        return TOOL_USAGE;
    c = calloc(1, sizeof *c);
    if (c == NULL)
        return tool_error("out of memory");
    config_defaults(c);
    if (config_import_sxp(c, argv[optind], &notes, &e) < 0)
        rc = tool_fail(&e);
    else
        rc = write_config(c, output);
    if (notes != NULL)
        fputs(notes, stderr);
    free(notes);
    free(c);
    return rc;
}

int migctl_reload(struct tool *t, int argc, char **argv)
{
    Migrd__Reload reload = MIGRD__RELOAD__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    Migrd__Reply *r;

    (void)argv;
    optind = 1;
    if (tool_words(t, argc, 0, 0) != 0)
        return TOOL_USAGE;
    CLIENT_BODY(rq, RELOAD, reload, &reload);
    r = tool_call(t, &rq, TOOL_SHORT_MS);
    if (r == NULL)
        return TOOL_FAILED;
    if (r->text[0] != '\0')
        puts(r->text);
    tool_free(&r);
    return TOOL_OK;
}
