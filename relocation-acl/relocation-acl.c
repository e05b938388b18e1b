/* SPDX-License-Identifier: ISC */
/*
 * xend's rule: a list of regular expressions, separated by blanks; a peer is admitted if
 * one of them matches its full name or its address, from the first character on (Python's
 * re.match), and not necessarily to the last.
 *
 * What differs from xend, on purpose:
 *   - an empty expression (two blanks in a row, a blank at an end) is skipped; in xend it
 *     matched everybody. A list of nothing but blanks admits nobody.
 *   - names match without regard to case.
 *   - '$' is the very end (Python's also matches before a final newline).
 *   - a name must be confirmed (resolve.c) and of ordinary characters, or it is not used.
 *   - IPv6 addresses, in canonical text; v4-mapped ones as IPv4.
 *   - an expression that needs too many steps does not match; this is logged.
 *   - one expression that does not compile refuses the whole list.
 */
#include "relocation-acl/relocation-acl.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "relocation-acl/internal.h"

/* A subject has at most 255 characters: honest expressions stay far below these. 256 hopeless
 * ones, the most there can be, take 0.15 s together; one takes less than a millisecond. */
#define MATCH_LIMIT 5000
#define DEPTH_LIMIT 2500
#define HEAP_LIMIT_KIB 2048
#define PARENS_LIMIT 32

/* What the list of a host that has none is: its own names and addresses of the loopback. */
#define LOOPBACK_ONLY "^localhost$ ^localhost\\.localdomain$ ^127\\.[0-9.]+$ ^::1$"

struct expression {
    char *text;
    pcre2_code *code;
};

struct acl {
    bool set;
    bool everybody;
    int n;
    struct expression expressions[ACL_EXPRESSIONS_MAX];
};

/* ---- compile ---- */

struct compiler {
    void (*warn)(void *arg, const char *text);
    void *arg;
    struct acl *a;
    pcre2_compile_context *context;
};

static void warning(struct compiler *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void warning(struct compiler *c, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    if (c->warn == NULL)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    c->warn(c->arg, text);
}

static pcre2_code *compile_code(struct compiler *c, const char *text, struct err *e)
{
    const uint32_t options = PCRE2_ANCHORED | PCRE2_CASELESS | PCRE2_DOLLAR_ENDONLY |
                             PCRE2_NEVER_UTF | PCRE2_NEVER_UCP | PCRE2_NEVER_BACKSLASH_C;
    PCRE2_UCHAR message[160] = "";
    PCRE2_SIZE at;
    pcre2_code *code;
    int error;

    code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, options, &error, &at, c->context);
    if (code != NULL)
        return code;
    pcre2_get_error_message(error, message, sizeof message);
    err_set(e, ERR_INVALID,
        ACL_KEY ": expression %d, \"%.100s\", does not compile: %s (at character %zu); the whole "
                "list is refused",
        c->a->n + 1, text, (const char *)message, at + 1);
    return NULL;
}

static int add_expression(struct compiler *c, const char *begin, size_t n, struct err *e)
{
    struct expression *x = &c->a->expressions[c->a->n];
    char lint[512];

    if (c->a->n == ACL_EXPRESSIONS_MAX)
        return err_set(e, ERR_INVALID,
            ACL_KEY ": more than %d expressions; put some together with |", ACL_EXPRESSIONS_MAX);
    if (n >= ACL_EXPRESSION_LEN)
        return err_set(e, ERR_INVALID,
            ACL_KEY ": expression %d, \"%.40s...\", is longer than %d characters", c->a->n + 1,
            begin, ACL_EXPRESSION_LEN - 1);
    x->text = strndup(begin, n);
    if (x->text == NULL)
        return err_set(e, ERR_MEMORY, ACL_KEY ": no memory to compile it");
    x->code = compile_code(c, x->text, e);
    if (x->code == NULL) {
        free(x->text);
        return -1;
    }
    c->a->n++;
    if (c->warn != NULL && c->a->set) {
        acl_lint(x->text, x->code, lint, sizeof lint);
        if (lint[0] != '\0')
            warning(c, ACL_KEY ": %s", lint);
    }
    return 0;
}

/* Splits at each blank, as xend did, to notice the empty expressions that xend saw. */
static int compile_list(struct compiler *c, const char *list, struct err *e)
{
    const char *p = list;
    bool empty = false;
    size_t n;

    for (;;) {
        n = strcspn(p, " \t");
        if (n == 0)
            empty = true;
        else if (add_expression(c, p, n, e) < 0)
            return -1;
        if (p[n] == '\0')
            break;
        p += n + 1;
    }
    if (c->a->n == 0)
        warning(c, ACL_KEY " has nothing but blanks: nobody is admitted; write \"\" to admit "
                           "everybody");
    else if (empty)
        warning(c, ACL_KEY " has a blank too many, an empty expression: it is skipped (in xend it "
                           "admitted everybody)");
    return 0;
}

static int check_text(const char *list, struct err *e)
{
    size_t n = strlen(list);

    if (n > ACL_TEXT_MAX)
        return err_set(e, ERR_INVALID, ACL_KEY ": longer than %d characters", ACL_TEXT_MAX);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)list[i] < ' ' && list[i] != '\t')
            return err_set(e, ERR_INVALID, ACL_KEY ": control character 0x%02x at character %zu",
                (unsigned char)list[i], i + 1);
    return 0;
}

int acl_compile(const char *hosts_allow, bool set, void (*warn)(void *arg, const char *text),
    void *arg, struct acl **out, struct err *e)
{
    struct compiler c = { .warn = warn, .arg = arg };
    int rc = 0;

    *out = NULL;
    if (!set)
        hosts_allow = LOOPBACK_ONLY;
    if (check_text(hosts_allow, e) < 0)
        return -1;
    c.a = calloc(1, sizeof *c.a);
    c.context = pcre2_compile_context_create(NULL);
    if (c.a == NULL || c.context == NULL) {
        rc = err_set(e, ERR_MEMORY, ACL_KEY ": no memory to compile it");
        goto out;
    }
    pcre2_set_parens_nest_limit(c.context, PARENS_LIMIT);
    c.a->set = set;
    c.a->everybody = hosts_allow[0] == '\0';
    if (c.a->everybody)
        warning(&c, ACL_KEY " is empty: EVERY host that reaches the relocation port may move "
                            "domains to this host");
    else
        rc = compile_list(&c, hosts_allow, e);
out:
    pcre2_compile_context_free(c.context);
    if (rc == 0)
        *out = c.a;
    else
        acl_free(&c.a);
    return rc;
}

void acl_free(struct acl **a)
{
    if (*a == NULL)
        return;
    for (int i = 0; i < (*a)->n; i++) {
        free((*a)->expressions[i].text);
        pcre2_code_free((*a)->expressions[i].code);
    }
    free(*a);
    *a = NULL;
}

/* ---- check ---- */

/* Contexts are made per match: checks are rare and may run in several threads. */
enum acl_match acl_match(const pcre2_code *code, const char *subject)
{
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    enum acl_match m = ACL_LIMIT;
    int rc;

    if (context != NULL && data != NULL) {
        pcre2_set_match_limit(context, MATCH_LIMIT);
        pcre2_set_depth_limit(context, DEPTH_LIMIT);
        pcre2_set_heap_limit(context, HEAP_LIMIT_KIB);
        /* JIT is left out: it would ignore the depth and heap limits. 0 is a match with more
         * groups than `data` holds. */
        rc =
            pcre2_match(code, (PCRE2_SPTR)subject, strlen(subject), 0, PCRE2_NO_JIT, data, context);
        m = rc >= 0 ? ACL_YES : rc == PCRE2_ERROR_NOMATCH ? ACL_NO : ACL_LIMIT;
    }
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    return m;
}

static bool matches(const struct acl *a, int i, const char *subject)
{
    if (subject[0] == '\0')
        return false;
    switch (acl_match(a->expressions[i].code, subject)) {
    case ACL_NO:
        return false;
    case ACL_YES:
        return true;
    case ACL_LIMIT:
        log_warn("acl",
            "expression %d of " ACL_KEY ", %.200s, takes too many steps on %.255s and counts as "
            "not matching; rewrite it without nested repetition",
            i + 1, a->expressions[i].text, subject);
        return false;
    }
    return false;
}

bool acl_name_usable(const char *name)
{
    char address[128];
    size_t n = strlen(name);

    if (n == 0 || n >= ACL_NAME_LEN)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)name[i]) && strchr(".-_", name[i]) == NULL)
            return false;
    /* "10.0.0.1" as a name would slip through expressions that were meant for addresses. */
    return acl_address_canonical(name, address, sizeof address) < 0;
}

void acl_quote(const char *text, char *out, size_t len)
{
    size_t n = 0;

    for (; *text != '\0' && n + 3 < len; text++) {
        if (strchr("\\.+*?()[]{}|^$", *text) != NULL)
            out[n++] = '\\';
        out[n++] = *text;
    }
    out[n] = '\0';
}

/* "address 10.0.0.9 and name host3.lab", with what there is of it. */
static void describe(const char *name, const char *address, char *out, size_t len)
{
    if (address[0] != '\0' && name[0] != '\0')
        snprintf(out, len, "address %.60s and name %.100s", address, name);
    else if (name[0] != '\0')
        snprintf(out, len, "name %.150s", name);
    else if (address[0] != '\0')
        snprintf(out, len, "address %.60s (without a confirmed name)", address);
    else
        snprintf(out, len, "a host without usable name or address");
}

static void refuse(
    const struct acl *a, const char *name, const char *address, struct acl_verdict *v)
{
    bool both = name[0] != '\0' && address[0] != '\0';
    char who[200], quoted[180];

    describe(name, address, who, sizeof who);
    acl_quote(name[0] != '\0' ? name : address, quoted, sizeof quoted);
    if (!a->set)
        snprintf(v->why, sizeof v->why,
            "%s: " ACL_KEY " is not set, so only this host itself is admitted; set it to ^%s$ to "
            "admit that host",
            who, quoted);
    else if (a->n == 1)
        snprintf(v->why, sizeof v->why,
            "%s %s not match the one expression of " ACL_KEY "; add ^%s$ to admit it", who,
            both ? "do" : "does", quoted);
    else
        snprintf(v->why, sizeof v->why,
            "%s %s none of %d expressions of " ACL_KEY "; add ^%s$ to admit it", who,
            both ? "match" : "matches", a->n, quoted);
}

static void admit(
    const struct acl *a, int i, const char *kind, const char *subject, struct acl_verdict *v)
{
    v->allowed = true;
    v->expression = i;
    snprintf(v->pattern, sizeof v->pattern, "%s", a->expressions[i].text);
    snprintf(v->subject, sizeof v->subject, "%s", subject);
    if (a->set)
        snprintf(v->why, sizeof v->why, "%s %.150s matches expression %d of " ACL_KEY ", %.200s",
            kind, subject, i + 1, a->expressions[i].text);
    else
        snprintf(v->why, sizeof v->why, "%s %.150s is this host itself (" ACL_KEY " is not set)",
            kind, subject);
}

static void copy_name(const char *name, char out[ACL_NAME_LEN])
{
    size_t n = strlen(name);

    out[0] = '\0';
    if (n > ACL_NAME_LEN)
        return;
    if (n > 0 && name[n - 1] == '.') /* the root's dot is not part of what people write */
        n--;
    if (n >= ACL_NAME_LEN)
        return;
    memcpy(out, name, n);
    out[n] = '\0';
    if (!acl_name_usable(out))
        out[0] = '\0';
}

void acl_check(const struct acl *a, const char *name, const char *address, struct acl_verdict *v)
{
    char host[ACL_NAME_LEN], ip[128];

    memset(v, 0, sizeof *v);
    v->expression = -1;
    copy_name(name, host);
    if (acl_address_canonical(address, ip, sizeof ip) < 0)
        ip[0] = '\0';
    if (a->everybody) {
        v->allowed = true;
        snprintf(v->subject, sizeof v->subject, "%s", host[0] != '\0' ? host : ip);
        snprintf(v->why, sizeof v->why, ACL_KEY " is empty: everybody is admitted");
        return;
    }
    for (int i = 0; i < a->n; i++) {
        if (matches(a, i, host)) {
            admit(a, i, "name", host, v);
            return;
        }
        if (matches(a, i, ip)) {
            admit(a, i, "address", ip, v);
            return;
        }
    }
    refuse(a, host, ip, v);
}

bool acl_admits_address(const struct acl *a, const char *address)
{
    struct acl_verdict v;

    acl_check(a, "", address, &v);
    return v.allowed;
}
