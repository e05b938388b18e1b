/* SPDX-License-Identifier: ISC */
/*
 * A reader of xend's S-expressions. What xend's own parser did is kept, with two
 * exceptions that only ever hurt: a backslash that escapes nothing ('a\.b') stays
 * together with its character (xend dropped the character), and a text that ends inside
 * a list or string is an error with the line where that began.
 *
 *   blank       space, tab, newline, VT, FF, CR
 *   comment     '#' outside a string, to the end of the line; it ends an atom too
 *   string      '...' or "...", may span lines; \a \b \t \n \v \f \r \\ \' \" \xHH \OOO
 *   atom        anything else up to a blank, '#', or one of {}()<>[]!;
 *
 * Open lists are a stack of fixed depth, not recursion. A list's members hang on its
 * `first`; tail[] is where the next one goes.
 */
#include "base/sxp.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    const char *p, *end;
    const char *file;
    unsigned line;
    unsigned nodes;
    unsigned depth;
    struct sxp *open[SXP_DEPTH_MAX]; /* lists being read, [0] the result */
    struct sxp **tail[SXP_DEPTH_MAX];
    struct err *e;
};

static int fault(struct reader *r, unsigned line, const char *what)
{
    return err_set(r->e, ERR_INVALID, "%s:%u: %s", r->file, line, what);
}

static bool is_blank(char c)
{
    return c != '\0' && strchr(" \t\n\v\f\r", c) != NULL;
}

static struct sxp *add_node(struct reader *r)
{
    struct sxp *s;

    if (r->nodes >= SXP_NODES_MAX) {
        fault(r, r->line, "too many elements");
        return NULL;
    }
    s = calloc(1, sizeof *s);
    if (s == NULL) {
        err_set(r->e, ERR_MEMORY, "%s: no memory to read it", r->file);
        return NULL;
    }
    r->nodes++;
    s->line = r->line;
    *r->tail[r->depth] = s;
    r->tail[r->depth] = &s->next;
    return s;
}

static int begin_list(struct reader *r)
{
    struct sxp *s;

    if (r->depth + 1 >= SXP_DEPTH_MAX)
        return fault(r, r->line, "lists are nested too deeply");
    s = add_node(r);
    if (s == NULL)
        return -1;
    r->depth++;
    r->open[r->depth] = s;
    r->tail[r->depth] = &s->first;
    r->p++;
    return 0;
}

static int end_list(struct reader *r)
{
    if (r->depth == 0)
        return fault(r, r->line, "')' without '('");
    r->depth--;
    r->p++;
    return 0;
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

/* Up to `most` digits of the base at r->p; -1 if there is none. */
static int read_code(struct reader *r, int base, int most)
{
    int value = 0, n = 0;

    while (n < most && r->p < r->end && digit_value(*r->p) < base) {
        value = value * base + digit_value(*r->p++);
        n++;
    }
    return n == 0 ? -1 : value;
}

/* r->p is behind the backslash. Appends what it means at *out. */
static int read_escape(struct reader *r, struct sxp *s, char **out)
{
    static const char letters[] = "abtnvfr\\'\"", meaning[] = "\a\b\t\n\v\f\r\\'\"";
    const char *known;
    int code;

    if (r->p == r->end)
        return 0; /* the caller reports the missing quote */
    known = *r->p == '\0' ? NULL : strchr(letters, *r->p);
    if (known != NULL) {
        *(*out)++ = meaning[known - letters];
        r->p++;
        return 0;
    }
    if (*r->p == 'x' || (*r->p >= '0' && *r->p <= '7')) {
        if (*r->p == 'x') {
            r->p++;
            code = read_code(r, 16, 2);
        } else {
            code = read_code(r, 8, 3);
        }
        if (code < 1 || code > 0xff)
            return fault(r, r->line, "escape in a string is not a character from \\x01 to \\xff");
        *(*out)++ = (char)code;
        return 0;
    }
    s->odd_escape = true;
    *(*out)++ = '\\'; /* and the character follows as itself */
    return 0;
}

static int read_string(struct reader *r)
{
    struct sxp *s = add_node(r);
    char quote = *r->p++, *out;
    unsigned line = r->line;

    if (s == NULL)
        return -1;
    s->text = out = malloc((size_t)(r->end - r->p) + 2);
    if (out == NULL)
        return err_set(r->e, ERR_MEMORY, "%s: no memory to read it", r->file);
    while (r->p < r->end && *r->p != quote) {
        char c = *r->p++;

        if (c == '\0')
            return fault(r, r->line, "NUL byte in a string");
        if (c == '\n')
            r->line++;
        if (c != '\\')
            *out++ = c;
        else if (read_escape(r, s, &out) < 0)
            return -1;
    }
    *out = '\0';
    if (r->p == r->end)
        return fault(r, line, "string without its closing quote");
    r->p++;
    out = realloc(s->text, (size_t)(out - s->text) + 1);
    if (out != NULL)
        s->text = out;
    return 0;
}

static bool ends_atom(char c)
{
    return c == '\0' || c == '#' || is_blank(c) || strchr("{}()<>[]!;", c) != NULL;
}

static int read_atom(struct reader *r)
{
    struct sxp *s = add_node(r);
    const char *begin = r->p++;

    if (s == NULL)
        return -1;
    while (r->p < r->end && !ends_atom(*r->p))
        r->p++;
    s->text = strndup(begin, (size_t)(r->p - begin));
    return s->text != NULL ? 0 : err_set(r->e, ERR_MEMORY, "%s: no memory to read it", r->file);
}

static int read_next(struct reader *r)
{
    char c = *r->p;

    if (c == '\n')
        r->line++;
    if (is_blank(c)) {
        r->p++;
        return 0;
    }
    if (c == '#') {
        while (r->p < r->end && *r->p != '\n')
            r->p++;
        return 0;
    }
    if (c == '(')
        return begin_list(r);
    if (c == ')')
        return end_list(r);
    if (c == '"' || c == '\'')
        return read_string(r);
    if ((unsigned char)c < ' ' || c == 0x7f)
        return fault(r, r->line, "control character outside a string");
    return read_atom(r);
}

struct sxp *sxp_parse(const char *text, size_t len, const char *file, struct err *e)
{
    struct reader r = { .p = text, .end = text + len, .file = file, .line = 1, .e = e };
    struct sxp *top;

    if (len > SXP_TEXT_MAX) {
        err_set(e, ERR_INVALID, "%s: larger than %u bytes", file, SXP_TEXT_MAX);
        return NULL;
    }
    top = calloc(1, sizeof *top);
    if (top == NULL) {
        err_set(e, ERR_MEMORY, "%s: no memory to read it", file);
        return NULL;
    }
    top->line = 1;
    r.open[0] = top;
    r.tail[0] = &top->first;
    while (r.p < r.end)
        if (read_next(&r) < 0)
            goto failed;
    if (r.depth == 0)
        return top;
    fault(&r, r.open[r.depth]->line, "list without its closing ')'");
failed:
    sxp_free(&top);
    return NULL;
}

/* Children are moved in front of the siblings still to be freed: no recursion. */
void sxp_free(struct sxp **s)
{
    struct sxp *todo = *s, *last, *next;

    while (todo != NULL) {
        next = todo->next;
        if (todo->first != NULL) {
            for (last = todo->first; last->next != NULL;)
                last = last->next;
            last->next = next;
            next = todo->first;
        }
        free(todo->text);
        free(todo);
        todo = next;
    }
    *s = NULL;
}

const struct sxp *sxp_at(const struct sxp *s, size_t n)
{
    const struct sxp *c = s == NULL ? NULL : s->first;

    while (c != NULL && n-- > 0)
        c = c->next;
    return c;
}

const char *sxp_pair(const struct sxp *s, const char **name)
{
    const struct sxp *key = sxp_at(s, 0), *value = sxp_at(s, 1);

    if (key == NULL || key->text == NULL)
        return NULL;
    *name = key->text;
    if (value == NULL)
        return "";
    return value->next == NULL ? value->text : NULL;
}
