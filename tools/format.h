/* SPDX-License-Identifier: ISC */
/*
 * format: numbers for people and back: sizes, durations, times; tables whose columns are
 * as wide as what is in them. Everything formatted goes into the caller's buffer, which
 * is returned for use inside printf.
 */
#ifndef TOOLS_FORMAT_H
#define TOOLS_FORMAT_H

#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

#define FORMAT_LEN 32

/* "0 B", "640 KiB", "1.9 GiB". */
char *format_bytes(char out[FORMAT_LEN], uint64_t bytes);
/* "85 us", "98.3 ms", "4.21 s", "3 min 20 s". */
char *format_us(char out[FORMAT_LEN], uint64_t us);
/* Local time, "2026-01-31 12:00:00"; "-" for 0. */
char *format_wall(char out[FORMAT_LEN], uint64_t wall_ns);
/* "3 days, 2:07:09" as xm writes it. */
char *format_uptime(char out[FORMAT_LEN], uint64_t seconds);

/* "512", "64k", "100M", "2G" (powers of 1024) in bytes. `what` names it in errors. */
int parse_bytes(const char *text, const char *what, uint64_t *out, struct err *e);
/* "100ms", "60s", "2m", "1h" in ms; a bare number counts in `unit_ms`. */
int parse_duration(
    const char *text, const char *what, unsigned unit_ms, uint32_t *out_ms, struct err *e);
/* Decimal, least..most. */
int parse_number(const char *text, const char *what, uint32_t least, uint32_t most, uint32_t *out,
    struct err *e);

/* --- tables --- */

struct table;

/* `align` has one letter per column: 'l' or 'r'. NULL without memory. */
struct table *table_new(const char *align);
/* One row of as many cells as there are columns; texts are copied. */
void table_row(struct table *t, ...);
/* Prints with two blanks between columns, each line after `indent`, and frees. */
void table_print(struct table **t, const char *indent, FILE *to);

#endif
