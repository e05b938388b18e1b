/* SPDX-License-Identifier: ISC */
/*
 * Expressions that admit more than they seem to. Two questions are asked. Of the text:
 * does every alternative end in '$'? Of the compiled expression: does it match hosts that
 * nobody has in mind? For the second, the literal characters that the expression begins
 * with are taken ("host1" of ^host1\.?.*$) and continued in ways an attacker could choose
 * for a name in a zone of his own: host10, host1.evil.example.
 */
#include <stdio.h>
#include <string.h>

#include "relocation-acl/internal.h"
#include "relocation-acl/relocation-acl.h"

#define NEST_MAX 40

struct nesting {
    bool all;    /* alternatives so far end at the end */
    bool last;   /* so does the current one, up to here */
    bool around; /* a look-around: consumes nothing, says nothing */
};

/* Behind a character class that begins at p. */
static const char *skip_class(const char *p)
{
    p++;
    if (*p == '^')
        p++;
    if (*p == ']')
        p++;
    while (*p != '\0' && *p != ']') {
        if (*p == '\\' && p[1] != '\0')
            p++;
        p++;
    }
    return *p == ']' ? p + 1 : p;
}

static bool is_look_around(const char *open)
{
    return open[1] == '?' && (open[2] == '=' || open[2] == '!' ||
                                 (open[2] == '<' && (open[3] == '=' || open[3] == '!')));
}

static void close_group(struct nesting *n, int *depth)
{
    struct nesting *inner;

    if (*depth == 0)
        return;
    inner = &n[(*depth)--];
    if (!inner->around)
        n[*depth].last = inner->all && inner->last;
}

bool acl_end_anchored(const char *p)
{
    struct nesting n[NEST_MAX] = { { .all = true } };
    int depth = 0;

    while (*p != '\0') {
        if (*p == '\\' && p[1] != '\0') {
            n[depth].last = p[1] == 'z' || p[1] == 'Z';
            p += 2;
            continue;
        }
        if (*p == '[') {
            n[depth].last = false;
            p = skip_class(p);
            continue;
        }
        if (*p == '(') {
            if (depth + 1 == NEST_MAX)
                return false;
            n[++depth] = (struct nesting){ .all = true, .around = is_look_around(p) };
        } else if (*p == ')') {
            close_group(n, &depth);
        } else if (*p == '|') {
            n[depth].all = n[depth].all && n[depth].last;
            n[depth].last = false;
        } else if (*p != '+') {
            n[depth].last = *p == '$';
        }
        p++;
    }
    return n[0].all && n[0].last;
}

/* The characters that every match begins with, as far as that is plain to see. */
static void literal_prefix(const char *p, char *out, size_t len)
{
    size_t n = 0;

    if (strchr(p, '|') != NULL) {
        out[0] = '\0'; /* may hold for one alternative only */
        return;
    }
    while (*p == '^')
        p++;
    while (*p != '\0' && n + 1 < len) {
        if (*p == '\\' && p[1] != '\0' && strchr(".-_", p[1]) != NULL)
            p++;
        else if (strchr("\\.+*?()[]{}^$", *p) != NULL)
            break;
        out[n++] = *p++;
    }
    if (n > 0 && (*p == '?' || *p == '*' || *p == '{'))
        n--; /* the last one is optional */
    out[n] = '\0';
}

static void list_probe(const pcre2_code *code, const char *probe, char *list, size_t len)
{
    size_t n = strlen(list);

    if (acl_match(code, probe) == ACL_YES)
        snprintf(list + n, len - n, "%s%s", n > 0 ? " and " : "", probe);
}

/* Hosts that it admits and that were hardly meant: at most two, "" none. An expression that ends in
 * '$' may well mean host10 (^host[0-9]+$), but not names in zones of others. */
static void strangers(
    const char *prefix, const pcre2_code *code, bool anchored, char *out, size_t len)
{
    static const char *const tails[] = { "0", ".evil.example", "0.evil.example", "evil.example" };
    size_t n = strlen(prefix);
    bool dot = n > 0 && prefix[n - 1] == '.';
    char probe[128];

    out[0] = '\0';
    for (size_t i = anchored ? 1 : 0; i < sizeof tails / sizeof tails[0]; i++) {
        /* "10.0.0." + "0" is what was meant; "10.0.0..evil" is no name. */
        if (n == 0 || (dot && i < 3) || strstr(out, " and ") != NULL)
            continue;
        snprintf(probe, sizeof probe, "%s%s", prefix, tails[i]);
        list_probe(code, probe, out, len);
    }
}

static bool admits_everybody(const pcre2_code *code)
{
    return acl_match(code, "q7.evil.example") == ACL_YES &&
           acl_match(code, "203.0.113.77") == ACL_YES && acl_match(code, "2001:db8::77") == ACL_YES;
}

void acl_lint(const char *expression, const pcre2_code *code, char *out, size_t len)
{
    char prefix[64], who[320];
    bool anchored = acl_end_anchored(expression);

    out[0] = '\0';
    literal_prefix(expression, prefix, sizeof prefix);
    strangers(prefix, code, anchored, who, sizeof who);
    if (admits_everybody(code))
        snprintf(out, len, "%.100s admits EVERY host that reaches the relocation port", expression);
    else if (!anchored && who[0] != '\0')
        snprintf(out, len, "%.100s has no $ at its end: it would admit %s too", expression, who);
    else if (!anchored)
        snprintf(out, len,
            "%.100s has no $ at the end of each alternative: it admits every longer name too",
            expression);
    else if (who[0] != '\0')
        snprintf(out, len,
            "%.100s would admit %s too; write out the whole name, or the domain that it is in",
            expression, who);
}
