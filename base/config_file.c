/* SPDX-License-Identifier: ISC */
/*
 * The reader of migrd.conf. A line is empty, a comment ('#' first), or
 *
 *     key = value
 *     key = "value"
 *
 * Everything after '=' but blanks around it is the value, as it stands: no escapes, no
 * comments at the end of a line, because regular expressions are full of '\', ';', '#'
 * and '='. Quotes around the value keep blanks at its ends, and are needed for an empty
 * one. " #" in a value without quotes is refused: it is almost always meant as a
 * comment. All errors of a file are logged, so that one look is enough to mend it; the
 * caller's configuration changes only if there is none.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/config_internal.h"
#include "base/io.h"
#include "base/log.h"

#define ERRORS_MAX 50 /* a file with more is not what was meant; the rest is not read */

struct reader {
    struct config c;
    const char *path;
    unsigned line;
    unsigned seen[CONFIG_KEYS_MAX]; /* line of each key, 0 not yet */
    unsigned errors;
    struct err first;
};

static void fault(struct reader *r, struct err *e)
{
    if (r->line > 0)
        err_prefix(e, "%s:%u", r->path, r->line);
    else
        err_prefix(e, "%s", r->path);
    if (r->errors++ == 0)
        r->first = *e;
    log_error("config", "%s", e->text);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* Cuts blanks at both ends, in place. */
static char *trim(char *s)
{
    size_t n;

    while (is_blank(*s))
        s++;
    for (n = strlen(s); n > 0 && is_blank(s[n - 1]);)
        s[--n] = '\0';
    return s;
}

/* The value in a trimmed text, quotes taken off; NULL with e set. */
static char *unquote(const char *key, char *v, struct err *e)
{
    size_t n = strlen(v);

    if (v[0] == '"') {
        if (n < 2 || v[n - 1] != '"') {
            err_set(e, ERR_INVALID,
                "%.64s: no closing quote at the end of the line; nothing may follow it, a comment "
                "needs a line of its own",
                key);
            return NULL;
        }
        v[n - 1] = '\0';
        return v + 1;
    }
    if (n == 0) {
        err_set(e, ERR_INVALID, "%.64s: no value; write \"\" for an empty one", key);
        return NULL;
    }
    if (v[0] == '#' || strstr(v, " #") != NULL || strstr(v, "\t#") != NULL) {
        err_set(e, ERR_INVALID,
            "%.64s: a comment needs a line of its own; if the # belongs to the value, put the "
            "value in quotes",
            key);
        return NULL;
    }
    return v;
}

static int assign(struct reader *r, const char *key, char *text, struct err *e)
{
    int i = config_find(key, e);
    char *value;

    if (i < 0)
        return -1;
    if (r->seen[i] != 0)
        return err_set(
            e, ERR_INVALID, "%s was set in line %u already; remove one", key, r->seen[i]);
    r->seen[i] = r->line;
    value = unquote(key, text, e);
    return value == NULL ? -1 : config_set(&r->c, key, value, e);
}

static int read_line(struct reader *r, char *line, struct err *e)
{
    char *equals, *key;

    line = trim(line);
    if (line[0] == '\0' || line[0] == '#')
        return 0;
    if (line[0] == '[')
        return err_set(e, ERR_INVALID, "this file has no sections; remove %.64s", line);
    equals = strchr(line, '=');
    if (equals == NULL || equals == line)
        return err_set(e, ERR_INVALID, "\"%.64s\" is not of the form: key = value", line);
    *equals = '\0';
    key = trim(line);
    return assign(r, key, trim(equals + 1), e);
}

static void read_text(struct reader *r, char *text, size_t len)
{
    char *line = text, *end;
    struct err e;

    for (; line < text + len && r->errors < ERRORS_MAX; line = end + 1) {
        end = memchr(line, '\n', (size_t)(text + len - line));
        if (end == NULL)
            end = text + len; /* io_read_file has put a NUL there */
        *end = '\0';
        r->line++;
        if (strlen(line) != (size_t)(end - line)) {
            err_set(&e, ERR_INVALID, "NUL byte in the line");
            fault(r, &e);
        } else if (read_line(r, line, &e) < 0) {
            fault(r, &e);
        }
    }
    r->line = 0;
    if (r->errors == 0 && config_check(&r->c, &e) < 0)
        fault(r, &e);
}

int config_read(struct config *c, char *text, size_t len, const char *name, struct err *e)
{
    struct reader *r = calloc(1, sizeof *r);
    int rc = 0;

    if (r == NULL)
        return err_set(e, ERR_MEMORY, "%s: no memory to read it", name);
    config_defaults(&r->c);
    r->path = name;
    read_text(r, text, len);
    if (r->errors > 0)
        rc = err_set(e, r->first.code, "%s", r->first.text);
    else
        *c = r->c;
    free(r);
    return rc;
}

int config_load(struct config *c, const char *path, struct err *e)
{
    struct err failed;
    size_t len;
    char *text;
    int rc;

    text = io_read_file(path, CONFIG_FILE_MAX, &len, &failed);
    if (text == NULL) {
        if (errno == ENOENT && failed.code == ERR_SYSTEM)
            failed.code = ERR_NOT_FOUND;
        return err_set(e, failed.code, "%s", failed.text);
    }
    rc = config_read(c, text, len, path, e);
    free(text);
    return rc;
}
