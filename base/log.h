/* SPDX-License-Identifier: ISC */
/*
 * log: one line per event, in one form, from every program:
 *   2026-01-31T12:00:00.123456Z info  migrd[42] migration: web1 to host2: round 3 ...
 * `area` is the part that speaks ("migration", "acl", "xvm"). Log once, where the
 * decision is made; lower layers return a `struct err` instead. Lines are at most
 * 2 KiB; control characters from outside are replaced, so a peer cannot forge lines.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/err.h"

enum log_level { LOG_LV_ERROR, LOG_LV_WARN, LOG_LV_INFO, LOG_LV_DEBUG };

/* `program` must stay valid; `path` NULL means stderr. May be called again to change either. */
int log_open(const char *program, const char *path, struct err *e);

/* Opens the same path again, after a rotation. */
int log_reopen(struct err *e);

void log_set_level(enum log_level level);

/* "error", "warn", "info", "debug"; -1 for another word. */
int log_level_parse(const char *word);

void log_msg(enum log_level level, const char *area, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(...) log_msg(LOG_LV_ERROR, __VA_ARGS__)
#define log_warn(...) log_msg(LOG_LV_WARN, __VA_ARGS__)
#define log_info(...) log_msg(LOG_LV_INFO, __VA_ARGS__)
#define log_debug(...) log_msg(LOG_LV_DEBUG, __VA_ARGS__)

#endif
