/* SPDX-License-Identifier: ISC */
/*
 * Grammar (Python's tokens; '#' comments; newlines count only outside brackets; a
 * backslash at the end of a line continues it):
 *
 *   file   = { [ NAME '=' value ] ( NEWLINE | ';' ) }
 *   value  = atom | '[' [ atom { ',' atom } [ ',' ] ] ']' | the same with '(' ')'
 *   atom   = 'text' | "text" | [ '-' ] number | True | False | None
 *
 * (x) is x, (x,) a list, as in Python. Everything else that Python has is refused with a
 * sentence that says what was found: import, if, calls, names of variables, '+' and '%'
 * between strings, strings side by side (nearly always a forgotten comma).
 */
#include "migrd/define/pyvalue.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define KEY_MAX 64
#define ASSIGNMENTS_MAX 512
#define MEMBERS_MAX 1024

struct scanner {
    struct reader *r;
    const char *p, *end;
    unsigned line;
    int brackets;
    unsigned members;
};

static int fault(struct scanner *s, const char *what)
{
    return define_fault(s->r, s->line, ERR_INVALID, "%s", what);
}

void pyvalue_free(struct pyvalue **v)
{
    struct pyvalue *todo = *v;

    while (todo != NULL) {
        struct pyvalue *next = todo->next;

        pyvalue_free(&todo->first); /* once: a list has no lists in it */
        free(todo->text);
        free(todo);
        todo = next;
    }
    *v = NULL;
}

void pyvalue_free_all(struct assignment **a)
{
    struct assignment *todo = *a;

    while (todo != NULL) {
        struct assignment *next = todo->next;

        pyvalue_free(&todo->value);
        free(todo->key);
        free(todo);
        todo = next;
    }
    *a = NULL;
}

static struct pyvalue *new_value(struct reader *r, enum pytype type)
{
    struct pyvalue *v = calloc(1, sizeof *v);

    if (v == NULL)
        define_no_memory(r);
    else
        v->type = type;
    return v;
}

/* ---- blanks ---- */

static bool at_end(const struct scanner *s)
{
    return s->p == s->end;
}

/* Blanks, comments and continued lines; newlines too inside brackets. */
static void skip_blanks(struct scanner *s)
{
    while (!at_end(s)) {
        if (*s->p == '\n' && s->brackets > 0) {
            s->line++;
            s->p++;
        } else if (*s->p == '\\' && s->end - s->p >= 2 && s->p[1] == '\n') {
            s->line++;
            s->p += 2;
        } else if (*s->p == '\\' && s->end - s->p >= 3 && s->p[1] == '\r' && s->p[2] == '\n') {
            s->line++;
            s->p += 3;
        } else if (*s->p == ' ' || *s->p == '\t' || *s->p == '\r' || *s->p == '\f') {
            s->p++;
        } else if (*s->p == '#') {
            while (!at_end(s) && *s->p != '\n')
                s->p++;
        } else {
            return;
        }
    }
}

/* ---- names ---- */

static bool is_name_char(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/* A name at s->p into `name`; false if there is none or it is too long. */
static bool read_name(struct scanner *s, char name[KEY_MAX])
{
    size_t n = 0;

    if (at_end(s) || !is_name_char(*s->p) || isdigit((unsigned char)*s->p))
        return false;
    while (!at_end(s) && is_name_char(*s->p)) {
        if (n + 1 == KEY_MAX)
            return false;
        name[n++] = *s->p++;
    }
    name[n] = '\0';
    return true;
}

static bool is_statement(const char *name)
{
    static const char *const words[] = { "import", "from", "if", "else", "elif", "for", "while",
        "def", "class", "try", "with", "print", "exec", "del", "return", "global", "raise",
        "assert", "pass", "lambda" };

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i], name) == 0)
            return true;
    return false;
}

/* ---- strings ---- */

static int hex_value(char c)
{
    if (isdigit((unsigned char)c))
        return c - '0';
    return isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10 : -1;
}

static int read_hex(struct scanner *s, char **out)
{
    int high, low;

    if (s->end - s->p < 2 || (high = hex_value(s->p[0])) < 0 || (low = hex_value(s->p[1])) < 0)
        return fault(s, "\\x in a string needs two hexadecimal digits");
    s->p += 2;
    if (high == 0 && low == 0)
        return fault(s, "NUL byte in a string");
    *(*out)++ = (char)(high * 16 + low);
    return 0;
}

static int read_octal(struct scanner *s, char **out)
{
    int code = 0;

    for (int n = 0; n < 3 && !at_end(s) && *s->p >= '0' && *s->p <= '7'; n++)
        code = code * 8 + (*s->p++ - '0');
    if (code == 0 || code > 255)
        return fault(s, "octal escape in a string is not a character");
    *(*out)++ = (char)code;
    return 0;
}

/* s->p is behind the backslash. */
static int read_escape(struct scanner *s, char **out)
{
    static const char letters[] = "abtnvfr\\'\"", meaning[] = "\a\b\t\n\v\f\r\\'\"";
    const char *known;

    if (at_end(s))
        return 0; /* the caller reports the missing quote */
    known = strchr(letters, *s->p);
    if (*s->p == '\n') {
        s->line++;
        s->p++;
    } else if (known != NULL) {
        *(*out)++ = meaning[known - letters];
        s->p++;
    } else if (*s->p == 'x') {
        s->p++;
        return read_hex(s, out);
    } else if (*s->p >= '0' && *s->p <= '7') {
        return read_octal(s, out);
    } else {
        *(*out)++ = '\\'; /* Python keeps both */
    }
    return 0;
}

static int read_string_into(struct scanner *s, char quote, char *out)
{
    unsigned line = s->line;

    while (!at_end(s) && *s->p != quote) {
        char c = *s->p++;

        if (c == '\n')
            break;
        if (c != '\\')
            *out++ = c;
        else if (read_escape(s, &out) < 0)
            return -1;
    }
    *out = '\0';
    if (at_end(s) || *s->p != quote)
        return define_fault(
            s->r, line, ERR_INVALID, "string without its closing %c in the same line", quote);
    s->p++;
    return 0;
}

static int read_string(struct scanner *s, struct pyvalue **out)
{
    char quote = *s->p, *fitting;

    if (s->end - s->p >= 3 && s->p[1] == quote && s->p[2] == quote)
        return fault(s, "strings in three quotes are not understood; use one");
    s->p++;
    *out = new_value(s->r, PY_TEXT);
    if (*out == NULL)
        return -1;
    /* No escape is longer than what it stands for. */
    (*out)->text = malloc((size_t)(s->end - s->p) + 1);
    if ((*out)->text == NULL)
        return define_no_memory(s->r);
    if (read_string_into(s, quote, (*out)->text) < 0)
        return -1;
    fitting = realloc((*out)->text, strlen((*out)->text) + 1);
    if (fitting != NULL)
        (*out)->text = fitting;
    return 0;
}

/* ---- atoms ---- */

static int read_number(struct scanner *s, struct pyvalue **out)
{
    bool minus = *s->p == '-';
    char digits[24], *end;
    size_t n = 0;

    s->p += minus;
    while (!at_end(s) && (is_name_char(*s->p) || *s->p == '.') && n + 1 < sizeof digits)
        digits[n++] = *s->p++;
    digits[n] = '\0';
    if (n == 0 || n > 18 || !isdigit((unsigned char)digits[0]))
        return fault(s, "this number is not understood");
    if (digits[0] == '0' && isdigit((unsigned char)digits[1]))
        return fault(s, "a number with a 0 in front is octal in Python; write it without");
    *out = new_value(s->r, PY_NUMBER);
    if (*out == NULL)
        return -1;
    (*out)->number = strtoll(digits, &end, strncmp(digits, "0x", 2) == 0 ? 16 : 10);
    if (*end != '\0')
        return define_fault(
            s->r, s->line, ERR_INVALID, "%s is not a whole number (a text needs quotes)", digits);
    if (minus)
        (*out)->number = -(*out)->number;
    return 0;
}

static int read_word(struct scanner *s, struct pyvalue **out)
{
    char name[KEY_MAX];

    if (!read_name(s, name))
        return fault(s, "this value is not understood");
    if (!at_end(s) && (*s->p == '\'' || *s->p == '"'))
        return define_fault(
            s->r, s->line, ERR_INVALID, "strings with %s in front are not understood", name);
    if (strcmp(name, "None") == 0) {
        *out = new_value(s->r, PY_NONE);
    } else if (strcmp(name, "True") == 0 || strcmp(name, "False") == 0) {
        *out = new_value(s->r, PY_BOOL);
        if (*out != NULL)
            (*out)->number = name[0] == 'T';
    } else if (!at_end(s) && (*s->p == '(' || *s->p == '.' || *s->p == '[')) {
        return define_fault(s->r, s->line, ERR_UNSUPPORTED,
            "%s%c...: nothing is called or looked up in a domain file; write the value", name,
            *s->p);
    } else {
        return define_fault(s->r, s->line, ERR_UNSUPPORTED,
            "%s: variables are not looked up; write the value (a text needs quotes)", name);
    }
    return *out == NULL ? -1 : 0;
}

static int read_atom(struct scanner *s, struct pyvalue **out)
{
    if (at_end(s) || *s->p == '\n' || *s->p == ';')
        return fault(s, "the value is missing");
    if (*s->p == '\'' || *s->p == '"')
        return read_string(s, out);
    if (*s->p == '-' || isdigit((unsigned char)*s->p))
        return read_number(s, out);
    if (*s->p == '[' || *s->p == '(')
        return fault(s, "a list inside a list is not understood");
    if (*s->p == '{')
        return fault(s, "dictionaries are not understood");
    return read_word(s, out);
}

/* What may not stand behind a value; 0 if nothing is wrong. */
static int refuse_operator(struct scanner *s)
{
    if (at_end(s))
        return 0;
    switch (*s->p) {
    case '+':
        return define_fault(
            s->r, s->line, ERR_UNSUPPORTED, "joining with + is not computed; write the whole text");
    case '%':
        return define_fault(s->r, s->line, ERR_UNSUPPORTED,
            "formatting with %% is not computed; write the resulting text");
    case '*':
    case '/':
    case '-':
        return define_fault(
            s->r, s->line, ERR_UNSUPPORTED, "arithmetic is not computed; write the result");
    case '\'':
    case '"':
        return fault(s, "two strings side by side; is a comma missing?");
    default:
        return 0;
    }
}

/* ---- lists ---- */

/* Members up to `close`; tells whether a comma was seen. */
static int read_members(struct scanner *s, char close, struct pyvalue **first, bool *comma)
{
    struct pyvalue **tail = first;
    unsigned line = s->line;

    for (;;) {
        skip_blanks(s);
        if (!at_end(s) && *s->p == close)
            break;
        if (at_end(s))
            return define_fault(s->r, line, ERR_INVALID, "list without its closing %c", close);
        if (++s->members > MEMBERS_MAX)
            return fault(s, "too many values in lists");
        if (read_atom(s, tail) < 0)
            return -1;
        tail = &(*tail)->next;
        skip_blanks(s);
        if (refuse_operator(s) < 0)
            return -1;
        if (!at_end(s) && *s->p == ',') {
            *comma = true;
            s->p++;
        } else if (!at_end(s) && *s->p != close) {
            return fault(s, "a comma or the end of the list is missing here");
        }
    }
    s->p++;
    return 0;
}

static int read_list(struct scanner *s, struct pyvalue **out)
{
    char open = *s->p++;
    struct pyvalue *list = new_value(s->r, PY_LIST), *only;
    bool comma = false;

    *out = list;
    if (list == NULL)
        return -1;
    s->brackets++;
    if (read_members(s, open == '[' ? ']' : ')', &list->first, &comma) < 0)
        return -1;
    s->brackets--;
    only = list->first;
    if (open == '(' && only != NULL && only->next == NULL && !comma) {
        list->first = NULL;
        pyvalue_free(&list);
        *out = only;
    }
    return 0;
}

static int read_value(struct scanner *s, struct pyvalue **out)
{
    int rc;

    *out = NULL;
    skip_blanks(s);
    rc = !at_end(s) && (*s->p == '[' || *s->p == '(') ? read_list(s, out) : read_atom(s, out);
    if (rc == 0) {
        skip_blanks(s);
        rc = refuse_operator(s);
    }
    if (rc < 0)
        pyvalue_free(out);
    return rc;
}

/* ---- statements ---- */

static int read_key(struct scanner *s, char key[KEY_MAX])
{
    if (*s->p == '\'' || *s->p == '"')
        return fault(s, "a text that is not assigned to anything; use # for comments");
    if (!read_name(s, key))
        return fault(s, "this is not of the form: key = value");
    if (is_statement(key))
        return define_fault(s->r, s->line, ERR_UNSUPPORTED,
            "%s: a domain file is not run as Python, only key = value is understood", key);
    skip_blanks(s);
    if (at_end(s) || *s->p != '=' || (s->end - s->p >= 2 && s->p[1] == '='))
        return define_fault(
            s->r, s->line, ERR_INVALID, "%s: this is not of the form: key = value", key);
    s->p++;
    return 0;
}

static int read_assignment(struct scanner *s, struct assignment **out)
{
    struct assignment *a;
    char key[KEY_MAX];
    unsigned line = s->line;

    if (read_key(s, key) < 0)
        return -1;
    a = calloc(1, sizeof *a);
    if (a == NULL)
        return define_no_memory(s->r);
    *out = a; /* the caller frees the chain on failure */
    a->line = line;
    a->key = strdup(key);
    if (a->key == NULL)
        return define_no_memory(s->r);
    if (read_value(s, &a->value) < 0)
        return -1;
    if (!at_end(s) && *s->p == ',')
        return fault(s, "a comma behind the value makes it a list; remove it or use [ ]");
    if (!at_end(s) && *s->p != '\n' && *s->p != ';')
        return define_fault(s->r, s->line, ERR_INVALID,
            "%s: something follows the value; it is not understood", key);
    return 0;
}

static int read_all(struct scanner *s, struct assignment **out)
{
    struct assignment **tail = out;
    unsigned n = 0;

    for (;;) {
        skip_blanks(s);
        if (at_end(s))
            return 0;
        if (*s->p == '\n' || *s->p == ';') {
            s->line += *s->p == '\n';
            s->p++;
            continue;
        }
        if (++n > ASSIGNMENTS_MAX)
            return fault(s, "too many assignments");
        if (read_assignment(s, tail) < 0)
            return -1;
        tail = &(*tail)->next;
    }
}

int pyvalue_parse(struct reader *r, const char *text, size_t len, struct assignment **out)
{
    struct scanner s = { .r = r, .p = text, .end = text + len, .line = 1 };

    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        s.p += 3;
    *out = NULL;
    if (read_all(&s, out) == 0)
        return 0;
    pyvalue_free_all(out);
    return -1;
}

int pyvalue_parse_one(struct reader *r, const char *text, struct pyvalue **out)
{
    struct scanner s = { .r = r, .p = text, .end = text + strlen(text), .line = 0 };

    if (read_value(&s, out) < 0)
        return -1;
    if (at_end(&s))
        return 0;
    pyvalue_free(out);
    return define_fault(r, 0, ERR_INVALID, "something follows the value in %.60s", text);
}

struct pyvalue *pyvalue_plain(struct reader *r, const char *text)
{
    struct pyvalue *v = new_value(r, PY_TEXT);

    if (v == NULL)
        return NULL;
    v->text = strdup(text);
    if (v->text == NULL) {
        define_no_memory(r);
        pyvalue_free(&v);
    }
    return v;
}
