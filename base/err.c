/* SPDX-License-Identifier: ISC */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const code_names[] = {
    [ERR_NONE] = "none",
    [ERR_SYSTEM] = "system",
    [ERR_MEMORY] = "memory",
    [ERR_INVALID] = "invalid",
    [ERR_PROTOCOL] = "protocol",
    [ERR_REFUSED] = "refused",
    [ERR_EXISTS] = "exists",
    [ERR_NOT_FOUND] = "not-found",
    [ERR_STATE] = "state",
    [ERR_TIMEOUT] = "timeout",
    [ERR_PEER] = "peer",
    [ERR_CANCELLED] = "cancelled",
    [ERR_RESOURCE] = "resource",
    [ERR_UNSUPPORTED] = "unsupported",
    [ERR_EPOCH] = "epoch",
    [ERR_INTEGRITY] = "integrity",
    [ERR_INTERNAL] = "internal",
};
_Static_assert(sizeof code_names / sizeof code_names[0] == ERR_CODE_MAX, "name every code");

int err_setv(struct err *e, enum err_code code, const char *fmt, va_list ap)
{
    if (e == NULL)
        return -1;
    e->code = code;
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    return -1;
}

int err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    err_setv(e, code, fmt, ap);
    va_end(ap);
    return -1;
}

int err_sys(struct err *e, const char *fmt, ...)
{
    int saved = errno;
    size_t n;
    va_list ap;

    if (e == NULL)
        return -1;
    e->code = saved == ENOMEM ? ERR_MEMORY : ERR_SYSTEM;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    n = strlen(e->text);
    snprintf(e->text + n, sizeof e->text - n, ": %s", strerror(saved));
    errno = saved;
    return -1;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
    char old[sizeof e->text];
    size_t n;
    va_list ap;

    if (e == NULL)
        return -1;
    memcpy(old, e->text, sizeof old);
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    n = strlen(e->text);
    snprintf(e->text + n, sizeof e->text - n, ": %.*s", (int)(sizeof old - 1), old);
    return -1;
}

const char *err_code_name(enum err_code code)
{
    if ((unsigned)code >= ERR_CODE_MAX)
        return "unknown";
    return code_names[code];
}

void err_clear(struct err *e)
{
    if (e == NULL)
        return;
    e->code = ERR_NONE;
    e->text[0] = '\0';
}
