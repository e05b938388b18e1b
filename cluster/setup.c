/* SPDX-License-Identifier: ISC */
/*
 * corosync.conf, written and read.
 *
 * Written: one directive a line; knet with encryption; the token as it is given (token_coefficient
 * 0, else corosync adds 650 ms for a third node); votequorum without two_node: majorities are
 * counted by the core, of all configured nodes. Below a token of 500 ms knet's heartbeats, each
 * 200 ms by themselves, are too rare to tell a dead link from a late thread: their times are given.
 *
 * Read: sections in braces, "key: value" lines, # comments; what does not matter is passed over.
 */
#define _GNU_SOURCE
#include "cluster/setup.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define KNET_TOKEN 500 /* from there on knet's own times fit */
#define KNET_INTERVAL 200
#define DEPTH_MAX 8

/* --- nodes --- */

static bool word_ok(const char *s, const char *more)
{
    if (!isalnum((unsigned char)s[0]))
        return false;
    for (; *s != '\0'; s++)
        if (!isalnum((unsigned char)*s) && strchr(more, *s) == NULL)
            return false;
    return true;
}

static bool address_ok(const char *s)
{
    struct in6_addr a;

    return inet_pton(AF_INET, s, &a) == 1 || inet_pton(AF_INET6, s, &a) == 1 || word_ok(s, ".-");
}

static uint32_t free_id(const struct setup *s)
{
    uint32_t id = 1;

    for (unsigned i = 0; i < s->n; i++)
        if (s->node[i].id == id) {
            id++;
            i = UINT32_MAX; /* from the beginning */
        }
    return id;
}

/* The part of `text` before `end`, into `out`; false: too long, or nothing. */
static bool part(char *out, size_t size, const char *text, const char *end)
{
    size_t n = (size_t)(end - text);

    if (n == 0 || n >= size)
        return false;
    memcpy(out, text, n);
    out[n] = '\0';
    return true;
}

static int bad_node(const char *text, struct err *e)
{
    return err_set(e, ERR_INVALID,
        "node '%.80s': give NAME=ADDRESS, or ID:NAME=ADDRESS,ADDRESS2, as 2:xen2=10.0.0.2,10.1.0.2",
        text);
}

int setup_add_node(struct setup *s, const char *text, struct err *e)
{
    const char *p = text, *equals = strchr(text, '='), *comma;
    struct setup_node x = { .id = 0 };

    if (s->n == HA_NODES_MAX)
        return err_set(e, ERR_RESOURCE, "a cluster has at most %d nodes", HA_NODES_MAX);
    if (equals == NULL)
        return bad_node(text, e);
    if (memchr(text, ':', (size_t)(equals - text)) != NULL) {
        char *end;
        unsigned long id = isdigit((unsigned char)text[0]) ? strtoul(text, &end, 10) : 0;

        if (id == 0 || id > INT32_MAX || *end != ':')
            return bad_node(text, e);
        x.id = (uint32_t)id;
        p = end + 1;
    } else {
        x.id = free_id(s);
    }
    comma = strchr(equals, ',');
    if (!part(x.name, sizeof x.name, p, equals) ||
        !part(x.address[0], sizeof x.address[0], equals + 1,
            comma != NULL ? comma : equals + strlen(equals)) ||
        (comma != NULL &&
            !part(x.address[1], sizeof x.address[1], comma + 1, comma + strlen(comma))))
        return bad_node(text, e);
    s->node[s->n++] = x;
    return 0;
}

static int check_node(const struct setup *s, unsigned i, struct err *e)
{
    const struct setup_node *x = &s->node[i];

    if (x->id == 0 || x->id > INT32_MAX)
        return err_set(e, ERR_INVALID, "node %s: its id must be 1 to %d", x->name, INT32_MAX);
    if (!word_ok(x->name, ".-_"))
        return err_set(e, ERR_INVALID,
            "node '%s': a name has letters, digits, dots, - and _; it is the host's name", x->name);
    for (unsigned l = 0; l < SETUP_LINKS; l++) {
        if (x->address[l][0] == '\0') {
            if (l == 0 || s->node[0].address[l][0] != '\0')
                return err_set(e, ERR_INVALID,
                    "node %s has no address on link %u, and others do: give all nodes one", x->name,
                    l);
        } else if (!address_ok(x->address[l])) {
            return err_set(e, ERR_INVALID, "node %s: '%s' is neither an address nor a host's name",
                x->name, x->address[l]);
        } else if (s->node[0].address[l][0] == '\0') {
            return err_set(e, ERR_INVALID,
                "node %s has an address on link %u, and %s has none: give all nodes one", x->name,
                l, s->node[0].name);
        }
    }
    return 0;
}

static int check_pair(const struct setup_node *a, const struct setup_node *b, struct err *e)
{
    if (a->id == b->id)
        return err_set(e, ERR_INVALID, "nodes %s and %s both have id %u", a->name, b->name, a->id);
    if (strcmp(a->name, b->name) == 0)
        return err_set(e, ERR_INVALID, "two nodes are called %s", a->name);
    for (unsigned i = 0; i < SETUP_LINKS; i++)
        for (unsigned j = 0; j < SETUP_LINKS; j++)
            if (a->address[i][0] != '\0' && strcmp(a->address[i], b->address[j]) == 0)
                return err_set(e, ERR_INVALID, "nodes %s and %s both have address %s", a->name,
                    b->name, a->address[i]);
    return 0;
}

int setup_check(const struct setup *s, struct err *e)
{
    if (!word_ok(s->name, ".-_"))
        return err_set(
            e, ERR_INVALID, "cluster '%s': a name has letters, digits, dots, - and _", s->name);
    if (s->token < SETUP_TOKEN_MIN || s->token > SETUP_TOKEN_MAX)
        return err_set(e, ERR_INVALID,
            "token %u ms: give %d to %d; 1000 is safe, 500 makes failovers faster", s->token,
            SETUP_TOKEN_MIN, SETUP_TOKEN_MAX);
    if (s->n == 0)
        return err_set(e, ERR_INVALID, "no nodes: give --node NAME=ADDRESS for each host");
    for (unsigned i = 0; i < s->n; i++) {
        if (check_node(s, i, e) < 0)
            return -1;
        for (unsigned j = 0; j < i; j++)
            if (check_pair(&s->node[j], &s->node[i], e) < 0)
                return -1;
    }
    if (s->key_len != 0 && (s->key_len < SETUP_KEY_MIN || s->key_len > SETUP_KEY_MAX))
        return err_set(e, ERR_INVALID, "the key has %zu bytes; corosync wants %d to %d", s->key_len,
            SETUP_KEY_MIN, SETUP_KEY_MAX);
    return 0;
}

const char *setup_advice(unsigned nodes)
{
    if (nodes == 1)
        return "one node alone can take nothing over";
    if (nodes == 2)
        return "two nodes cannot fail over: when one is gone, the other one is no majority and "
               "must "
               "stop its domains. Add a third host; a small one that runs corosync and migrd, and "
               "no domains, is enough (a witness: memory-reserve as large as its memory)";
    if (nodes % 2 == 0)
        return "an even number of nodes survives no more losses than one node fewer";
    return "";
}

int setup_make_key(struct setup *s, struct err *e)
{
    s->key_len = SETUP_KEY_LEN;
    if (getrandom(s->key, s->key_len, 0) != (ssize_t)s->key_len)
        return err_sys(e, "no random bytes for the key");
    return 0;
}

int setup_own(const struct setup *s)
{
    struct ifaddrs *list = NULL;
    int found = -1;

    if (getifaddrs(&list) < 0)
        return -1;
    for (const struct ifaddrs *i = list; i != NULL && found < 0; i = i->ifa_next) {
        char text[INET6_ADDRSTRLEN] = "";

        if (i->ifa_addr == NULL)
            continue;
        if (i->ifa_addr->sa_family == AF_INET)
            inet_ntop(
                AF_INET, &((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr, text, sizeof text);
        else if (i->ifa_addr->sa_family == AF_INET6)
            inet_ntop(AF_INET6, &((struct sockaddr_in6 *)(void *)i->ifa_addr)->sin6_addr, text,
                sizeof text);
        for (unsigned n = 0; n < s->n && text[0] != '\0'; n++)
            if (strcmp(s->node[n].address[0], text) == 0)
                found = (int)n;
    }
    freeifaddrs(list);
    return found;
}

/* --- written --- */

static void put_totem(FILE *f, const struct setup *s, const char *key_file)
{
    fprintf(f,
        "totem {\n"
        "    version: 2\n"
        "    cluster_name: %s\n"
        "    transport: knet\n"
        "    crypto_cipher: aes256\n"
        "    crypto_hash: sha256\n"
        "    token: %u\n"
        "    # as given, whatever the number of nodes\n"
        "    token_coefficient: 0\n",
        s->name, s->token);
    if (key_file != NULL)
        fprintf(f, "    keyfile: %s\n", key_file);
    for (unsigned l = 0; l < SETUP_LINKS && s->token < KNET_TOKEN; l++)
        if (s->node[0].address[l][0] != '\0')
            fprintf(f,
                "    interface {\n"
                "        linknumber: %u\n"
                "        knet_ping_interval: %d\n"
                "        knet_ping_timeout: %d\n"
                "    }\n",
                l, KNET_INTERVAL, 3 * KNET_INTERVAL);
    fputs("}\n\n", f);
}

static void put_nodes(FILE *f, const struct setup *s)
{
    fputs("nodelist {\n", f);
    for (unsigned i = 0; i < s->n; i++) {
        const struct setup_node *x = &s->node[i];

        fprintf(f, "    node {\n        nodeid: %u\n        name: %s\n", x->id, x->name);
        for (unsigned l = 0; l < SETUP_LINKS; l++)
            if (x->address[l][0] != '\0')
                fprintf(f, "        ring%u_addr: %s\n", l, x->address[l]);
        fputs("    }\n", f);
    }
    fputs("}\n\n", f);
}

char *setup_conf(const struct setup *s, const char *key_file)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    if (f == NULL)
        return NULL;
    fputs("# corosync's configuration for migrd, the same on all hosts: docs/ha.md.\n"
          "# Made by `migctl cluster`; one directive a line.\n\n",
        f);
    put_totem(f, s, key_file);
    put_nodes(f, s);
    fputs("quorum {\n"
          "    # no two_node: majorities are of all nodes above\n"
          "    provider: corosync_votequorum\n"
          "}\n\n"
          "logging {\n"
          "    to_logfile: no\n"
          "    to_syslog: yes\n"
          "    timestamp: on\n"
          "}\n",
        f);
    if (fclose(f) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

/* --- read --- */

enum section { SECTION_OTHER, SECTION_TOTEM, SECTION_NODELIST, SECTION_NODE };

struct reader {
    struct setup *s;
    enum section at[DEPTH_MAX];
    unsigned depth, line;
};

static enum section section_of(const char *name, unsigned depth, enum section above)
{
    if (depth == 0 && strcmp(name, "totem") == 0)
        return SECTION_TOTEM;
    if (depth == 0 && strcmp(name, "nodelist") == 0)
        return SECTION_NODELIST;
    if (depth == 1 && above == SECTION_NODELIST && strcmp(name, "node") == 0)
        return SECTION_NODE;
    return SECTION_OTHER;
}

static int set_text(
    char *out, size_t size, const char *value, const struct reader *r, struct err *e)
{
    if (strlen(value) >= size)
        return err_set(e, ERR_INVALID, "corosync.conf line %u: too long", r->line);
    snprintf(out, size, "%s", value);
    return 0;
}

static uint32_t set_number(const char *value)
{
    unsigned long v = strtoul(value, NULL, 10);

    return v <= INT32_MAX ? (uint32_t)v : 0;
}

static int directive(struct reader *r, const char *key, const char *value, struct err *e)
{
    enum section at = r->depth > 0 ? r->at[r->depth - 1] : SECTION_OTHER;
    struct setup_node *x = at == SECTION_NODE ? &r->s->node[r->s->n - 1] : NULL;

    if (at == SECTION_TOTEM && strcmp(key, "cluster_name") == 0)
        return set_text(r->s->name, sizeof r->s->name, value, r, e);
    if (at == SECTION_TOTEM && strcmp(key, "token") == 0)
        r->s->token = set_number(value);
    if (x == NULL)
        return 0;
    if (strcmp(key, "nodeid") == 0)
        x->id = set_number(value);
    else if (strcmp(key, "name") == 0)
        return set_text(x->name, sizeof x->name, value, r, e);
    else if (strcmp(key, "ring0_addr") == 0)
        return set_text(x->address[0], sizeof x->address[0], value, r, e);
    else if (strcmp(key, "ring1_addr") == 0)
        return set_text(x->address[1], sizeof x->address[1], value, r, e);
    return 0;
}

static int open_section(struct reader *r, const char *name, struct err *e)
{
    enum section s;

    if (r->depth == DEPTH_MAX)
        return err_set(e, ERR_INVALID, "corosync.conf line %u: too many braces", r->line);
    s = section_of(name, r->depth, r->depth > 0 ? r->at[r->depth - 1] : SECTION_OTHER);
    if (s == SECTION_NODE) {
        if (r->s->n == HA_NODES_MAX)
            return err_set(e, ERR_RESOURCE, "corosync.conf has more than %d nodes", HA_NODES_MAX);
        r->s->node[r->s->n++] = (struct setup_node){ .id = 0 };
    }
    r->at[r->depth++] = s;
    return 0;
}

/* Without blanks at both ends. */
static char *trim(char *s)
{
    char *end = s + strlen(s);

    while (end > s && isspace((unsigned char)end[-1]))
        *--end = '\0';
    while (isspace((unsigned char)*s))
        s++;
    return s;
}

static int read_line(struct reader *r, char *line, struct err *e)
{
    char *colon, *s = trim(line);
    size_t n = strlen(s);

    if (n == 0 || s[0] == '#')
        return 0;
    if (s[n - 1] == '{') {
        s[n - 1] = '\0';
        return open_section(r, trim(s), e);
    }
    if (strcmp(s, "}") == 0) {
        if (r->depth == 0)
            return err_set(e, ERR_INVALID, "corosync.conf line %u: a brace too many", r->line);
        r->depth--;
        return 0;
    }
    colon = strchr(s, ':');
    if (colon == NULL)
        return err_set(e, ERR_INVALID, "corosync.conf line %u: no colon in '%.60s'", r->line, s);
    *colon = '\0';
    return directive(r, trim(s), trim(colon + 1), e);
}

int setup_read_conf(struct setup *s, const char *text, size_t len, struct err *e)
{
    struct reader r = { .s = s };
    char line[1024];

    memset(s, 0, sizeof *s);
    if (len > SETUP_TEXT_MAX)
        return err_set(e, ERR_INVALID, "corosync.conf has more than %u bytes", SETUP_TEXT_MAX);
    for (size_t at = 0; at < len;) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t n = end != NULL ? (size_t)(end - text) - at : len - at;

        r.line++;
        if (n >= sizeof line || memchr(text + at, '\0', n) != NULL)
            return err_set(e, ERR_INVALID, "corosync.conf line %u: too long, or no text", r.line);
        memcpy(line, text + at, n);
        line[n] = '\0';
        if (read_line(&r, line, e) < 0)
            return -1;
        at += n + 1;
    }
    if (r.depth != 0)
        return err_set(e, ERR_INVALID, "corosync.conf ends inside of a section");
    return 0;
}
