/* SPDX-License-Identifier: ISC */
/* migctl pki: certificates by transport/pki.h; works without a running migrd. */
#define _GNU_SOURCE
#include "tools/migctl.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/format.h"
#include "transport/pki.h"

#define ALT_MAX 32
#define DAYS_MAX 36500
#define WARN_DAYS 30

struct pki_words {
    const char *dir, *out, *name;
    const char *alt[ALT_MAX + 1];
    size_t n_alt;
    uint32_t days;
    long start_offset_s;
};

/* A day, UTC, as YYYY-MM-DD: the first on which the certificate is valid. */
static int parse_from(const char *word, long *offset_s, struct err *e)
{
    struct tm tm = { 0 };
    const char *end = strptime(word, "%Y-%m-%d", &tm);

    if (end == NULL || *end != '\0')
        return err_set(e, ERR_INVALID, "--from %s: give a day as 2026-01-31", word);
    *offset_s = (long)(timegm(&tm) - time(NULL));
    return 0;
}

static int read_pki(struct tool *t, int argc, char **argv, struct pki_words *w)
{
    static const struct option options[] = {
        { "dir", required_argument, NULL, 'd' },
        { "out", required_argument, NULL, 'o' },
        { "name", required_argument, NULL, 'n' },
        { "alt", required_argument, NULL, 'a' },
        { "days", required_argument, NULL, 'D' },
        { "from", required_argument, NULL, 'f' },
        { NULL, 0, NULL, 0 },
    };
    struct err e;
    int o;

    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (o) {
        case 'd':
            w->dir = optarg;
            break;
        case 'o':
            w->out = optarg;
            break;
        case 'n':
            w->name = optarg;
            break;
        case 'a':
            if (w->n_alt == ALT_MAX)
                return tool_usage(t, "at most %d --alt names", ALT_MAX);
            w->alt[w->n_alt++] = optarg;
            break;
        case 'D':
            if (parse_number(optarg, "days", 1, DAYS_MAX, &w->days, &e) < 0)
                return tool_usage(t, "%s", e.text);
            break;
        case 'f':
            if (parse_from(optarg, &w->start_offset_s, &e) < 0)
                return tool_usage(t, "%s", e.text);
            break;
        default:
            return tool_usage(t, NULL);
        }
    }
    if (w->out == NULL)
        w->out = w->dir;
    return TOOL_OK;
}

static int init(struct pki_words *w)
{
    struct pki_request rq = { .name = w->name != NULL ? w->name : "migrd CA", .days = w->days };
    struct err e;

    if (pki_init(w->dir, &rq, &e) < 0)
        return tool_fail(&e);
    printf("Made a certificate authority in %s. Keep ca.key safe: who has it may relocate to any\n"
           "host of this cluster. Next, for each host: migctl pki issue HOST --out DIR\n",
        w->dir);
    return TOOL_OK;
}

static int issue(struct pki_words *w, const char *host)
{
    struct pki_request rq = { .name = host,
        .alt_names = w->alt,
        .days = w->days,
        .start_offset_s = w->start_offset_s };
    struct err e;

    if (pki_issue(w->dir, w->out, &rq, &e) < 0)
        return tool_fail(&e);
    printf("Wrote host.key, host.crt and ca.crt for %s into %s; they belong into\n"
           "/etc/migrd/pki of that host.\n",
        host, w->out);
    return TOOL_OK;
}

static int client(struct pki_words *w, const char *name)
{
    struct pki_request rq = { .name = name,
        .alt_names = w->alt,
        .days = w->days,
        .start_offset_s = w->start_offset_s };
    char path[PATHS_LEN * 2];
    struct err e;

    if (w->out == w->dir) {
        snprintf(path, sizeof path, "%s/%s", w->dir, name);
        w->out = path;
    }
    if (pki_client(w->dir, w->out, &rq, &e) < 0)
        return tool_fail(&e);
    printf("Wrote clientkey.pem, clientcert.pem and cacert.pem for %s into %s. On a host with\n"
           "libvirt-tls = yes and this name in libvirt-tls-allow:\n"
           "virsh -c 'xvm+tls://HOST/system?pkipath=%s' list\n",
        name, w->out, w->out);
    return TOOL_OK;
}

static int renew(struct pki_words *w)
{
    struct err e;

    if (pki_renew(w->dir, w->out, w->days, &e) < 0)
        return tool_fail(&e);
    printf("Renewed %s/host.crt; 'migctl reload' makes migrd use it.\n", w->out);
    return TOOL_OK;
}

static int show_file(const char *file)
{
    struct pki_info i;
    char from[FORMAT_LEN], to[FORMAT_LEN];
    struct err e;
    time_t now = time(NULL);

    if (pki_show(file, &i, &e) < 0)
        return tool_fail(&e);
    format_wall(from, (uint64_t)i.not_before * 1000000000u);
    format_wall(to, (uint64_t)i.not_after * 1000000000u);
    printf("%s\n  Subject      %s%s\n  Issuer       %s\n", file, i.subject,
        i.is_ca ? " (certificate authority)" : "", i.issuer);
    if (i.names[0] != '\0')
        printf("  Names        %s\n", i.names);
    printf("  Valid        %s to %s", from, to);
    if (now > i.not_after)
        printf(" - EXPIRED");
    else if (now < i.not_before)
        printf(" - NOT YET VALID");
    else if (i.not_after - now < WARN_DAYS * 86400)
        printf(" - %ld days left", (long)((i.not_after - now) / 86400));
    printf("\n  Fingerprint  %s\n", i.fingerprint);
    return TOOL_OK;
}

static int show(struct pki_words *w, char **files, int n)
{
    static const char *const usual[] = { "ca.crt", "host.crt" };
    int rc = TOOL_OK, shown = 0;
    char path[PATHS_LEN * 2];

    for (int i = 0; i < n; i++)
        if (show_file(files[i]) != TOOL_OK)
            rc = TOOL_FAILED;
    for (size_t i = 0; n == 0 && i < sizeof usual / sizeof usual[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", w->dir, usual[i]);
        if (access(path, F_OK) < 0)
            continue;
        shown++;
        if (show_file(path) != TOOL_OK)
            rc = TOOL_FAILED;
    }
    if (n == 0 && shown == 0)
        return tool_error("%s: no certificates here; 'migctl pki init' makes an authority", w->dir);
    return rc;
}

int migctl_pki(struct tool *t, int argc, char **argv)
{
    struct pki_words w = { .dir = t->paths.pki };
    int rc = read_pki(t, argc, argv, &w), n = argc - optind - 1;
    char **words = argv + optind + 1;
    const char *verb;

    if (rc != TOOL_OK)
        return rc;
    if (n < 0)
        return tool_usage(t, "give init, issue, client, renew or show");
    verb = argv[optind];
    if (strcmp(verb, "show") == 0)
        return show(&w, words, n);
    if (strcmp(verb, "issue") == 0)
        return n == 1 ? issue(&w, words[0]) : tool_usage(t, "issue: give one host name");
    if (strcmp(verb, "client") == 0)
        return n == 1 ? client(&w, words[0]) : tool_usage(t, "client: give one name");
    if (n != 0)
        return tool_usage(t, "'%s': not expected", words[0]);
    if (strcmp(verb, "init") == 0)
        return init(&w);
    if (strcmp(verb, "renew") == 0)
        return renew(&w);
    return tool_usage(t, "'%s': give init, issue, client, renew or show", verb);
}
