/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "tools/format.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

char *format_bytes(char out[FORMAT_LEN], uint64_t bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double v = (double)bytes;
    size_t u = 0;

    while (v >= 1024 && u + 1 < sizeof units / sizeof units[0]) {
        v /= 1024;
        u++;
    }
    snprintf(out, FORMAT_LEN, u == 0 || v >= 100 ? "%.0f %s" : "%.1f %s", v, units[u]);
    return out;
}

char *format_us(char out[FORMAT_LEN], uint64_t us)
{
    if (us < 1000)
        snprintf(out, FORMAT_LEN, "%u us", (unsigned)us);
    else if (us < 100 * 1000)
        snprintf(out, FORMAT_LEN, "%.1f ms", (double)us / 1e3);
    else if (us < 1000 * 1000)
        snprintf(out, FORMAT_LEN, "%.0f ms", (double)us / 1e3);
    else if (us < 120u * 1000 * 1000)
        snprintf(out, FORMAT_LEN, "%.2f s", (double)us / 1e6);
    else
        snprintf(out, FORMAT_LEN, "%u min %u s", (unsigned)(us / 60000000),
            (unsigned)(us / 1000000 % 60));
    return out;
}

char *format_wall(char out[FORMAT_LEN], uint64_t wall_ns)
{
    time_t s = (time_t)(wall_ns / NS_PER_S);
    struct tm tm;

    if (wall_ns == 0 || localtime_r(&s, &tm) == NULL ||
        strftime(out, FORMAT_LEN, "%Y-%m-%d %H:%M:%S", &tm) == 0)
        snprintf(out, FORMAT_LEN, "-");
    return out;
}

char *format_uptime(char out[FORMAT_LEN], uint64_t s)
{
    unsigned days = (unsigned)(s / 86400), h = (unsigned)(s / 3600 % 24);
    unsigned min = (unsigned)(s / 60 % 60), sec = (unsigned)(s % 60);

    if (days > 0)
        snprintf(
            out, FORMAT_LEN, "%u day%s, %2u:%02u:%02u", days, days > 1 ? "s" : "", h, min, sec);
    else
        snprintf(out, FORMAT_LEN, "%2u:%02u:%02u", h, min, sec);
    return out;
}

/* The leading number of `text`; *rest is what follows it. */
static int leading_number(
    const char *text, const char *what, uint64_t *out, const char **rest, struct err *e)
{
    char *end;

    errno = 0;
    *out = isdigit((unsigned char)text[0]) ? strtoull(text, &end, 10) : 0;
    if (!isdigit((unsigned char)text[0]) || errno != 0)
        return err_set(e, ERR_INVALID, "%s '%s': not a number", what, text);
    *rest = end;
    return 0;
}

int parse_bytes(const char *text, const char *what, uint64_t *out, struct err *e)
{
    static const char units[] = "KMGT";
    const char *rest, *unit;
    unsigned shift = 0;

    if (leading_number(text, what, out, &rest, e) < 0)
        return -1;
    if (rest[0] != '\0') {
        unit = strchr(units, toupper((unsigned char)rest[0]));
        if (unit == NULL || (rest[1] != '\0' && strcmp(rest + 1, "iB") != 0))
            return err_set(e, ERR_INVALID, "%s '%s': give a number with K, M, G or T", what, text);
        shift = 10 * (unsigned)(unit - units + 1);
    }
    if (*out > UINT64_MAX >> 1 >> shift)
        return err_set(e, ERR_INVALID, "%s '%s': too large", what, text);
    *out <<= shift;
    return 0;
}

int parse_duration(
    const char *text, const char *what, unsigned unit_ms, uint32_t *out_ms, struct err *e)
{
    static const struct {
        const char *name;
        unsigned ms;
    } units[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "min", 60000 }, { "h", 3600000 } };
    const char *rest;
    uint64_t v, ms = 0;

    if (leading_number(text, what, &v, &rest, e) < 0)
        return -1;
    if (rest[0] == '\0')
        ms = unit_ms;
    for (size_t i = 0; ms == 0 && i < sizeof units / sizeof units[0]; i++)
        if (strcmp(rest, units[i].name) == 0)
            ms = units[i].ms;
    if (ms == 0)
        return err_set(e, ERR_INVALID, "%s '%s': give a number with ms, s, m or h", what, text);
    if (v > INT32_MAX / ms)
        return err_set(e, ERR_INVALID, "%s '%s': too long", what, text);
    *out_ms = (uint32_t)(v * ms);
    return 0;
}

int parse_number(
    const char *text, const char *what, uint32_t least, uint32_t most, uint32_t *out, struct err *e)
{
    const char *rest;
    uint64_t v;

    if (leading_number(text, what, &v, &rest, e) < 0)
        return -1;
    if (rest[0] != '\0' || v < least || v > most)
        return err_set(
            e, ERR_INVALID, "%s '%s': give a number from %u to %u", what, text, least, most);
    *out = (uint32_t)v;
    return 0;
}

/* --- tables --- */

#define TABLE_COLUMNS 16

struct table {
    const char *align;
    size_t columns, rows, room;
    size_t width[TABLE_COLUMNS];
    char **cells; /* rows x columns */
};

struct table *table_new(const char *align)
{
    struct table *t = calloc(1, sizeof *t);

    if (t == NULL)
        return NULL;
    t->align = align;
    t->columns = strnlen(align, TABLE_COLUMNS);
    return t;
}

static bool make_room(struct table *t)
{
    size_t room = t->room == 0 ? 16 : t->room * 2;
    char **cells;

    if (t->rows < t->room)
        return true;
    cells = reallocarray(t->cells, room * t->columns, sizeof *cells);
    if (cells == NULL)
        return false;
    t->cells = cells;
    t->room = room;
    return true;
}

void table_row(struct table *t, ...)
{
    va_list ap;

    if (t == NULL || !make_room(t))
        return;
    va_start(ap, t);
    for (size_t c = 0; c < t->columns; c++) {
        const char *text = va_arg(ap, const char *);
        size_t n = strlen(text);

        t->cells[t->rows * t->columns + c] = strdup(text);
        if (n > t->width[c])
            t->width[c] = n;
    }
    va_end(ap);
    t->rows++;
}

static void print_cell(const struct table *t, size_t c, const char *text, FILE *to)
{
    int width = (int)t->width[c];

    if (t->align[c] == 'r')
        fprintf(to, "%*s", width, text);
    else if (c + 1 < t->columns)
        fprintf(to, "%-*s", width, text);
    else
        fputs(text, to); /* no blanks at the line's end */
    fputs(c + 1 < t->columns ? "  " : "\n", to);
}

void table_print(struct table **tp, const char *indent, FILE *to)
{
    struct table *t = *tp;

    *tp = NULL;
    if (t == NULL)
        return;
    for (size_t r = 0; r < t->rows; r++) {
        fputs(indent, to);
        for (size_t c = 0; c < t->columns; c++) {
            char *cell = t->cells[r * t->columns + c];

            print_cell(t, c, cell != NULL ? cell : "", to);
            free(cell);
        }
    }
    free(t->cells);
    free(t);
}
