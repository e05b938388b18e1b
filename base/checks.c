/* SPDX-License-Identifier: ISC */
#include "base/checks.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEP 16u

/* For lines that the list cannot take: written to, never read. */
static struct check *overflow(struct checks *c)
{
    static _Thread_local struct check nowhere;

    c->refused++;
    return &nowhere;
}

static struct check *next_line(struct checks *c)
{
    struct check *more;

    if (c->n == CHECKS_MAX)
        return NULL;
    if (c->n % STEP == 0) {
        more = realloc(c->check, (c->n + STEP) * sizeof *more);
        if (more == NULL)
            return NULL;
        c->check = more;
    }
    return &c->check[c->n++];
}

struct check *checks_add(struct checks *c, enum check_result r, const char *area,
    const char *object, const char *fmt, ...)
{
    struct check *k = next_line(c);
    va_list ap;

    if (k == NULL)
        return overflow(c);
    memset(k, 0, sizeof *k);
    k->result = r;
    snprintf(k->area, sizeof k->area, "%s", area);
    snprintf(k->object, sizeof k->object, "%s", object);
    va_start(ap, fmt);
    vsnprintf(k->text, sizeof k->text, fmt, ap);
    va_end(ap);
    c->refused += r == CHECK_REFUSED;
    c->warned += r == CHECK_WARN;
    return k;
}

void checks_values(struct check *k, const char *source, const char *target)
{
    snprintf(k->source, sizeof k->source, "%s", source);
    snprintf(k->target, sizeof k->target, "%s", target);
}

void checks_remedy(struct check *k, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(k->remedy, sizeof k->remedy, fmt, ap);
    va_end(ap);
}

int checks_verdict(const struct checks *c, struct err *e)
{
    const struct check *first = NULL;
    char more[48] = "";

    if (c->refused == 0)
        return 0;
    for (size_t i = 0; i < c->n && first == NULL; i++)
        if (c->check[i].result == CHECK_REFUSED)
            first = &c->check[i];
    if (c->refused > 1)
        snprintf(more, sizeof more, " (and %zu more)", c->refused - 1);
    if (first == NULL)
        return err_set(e, ERR_REFUSED, "more was found wrong than a report has lines for");
    return err_set(e, ERR_REFUSED, "%s%s%s%s", first->text, first->remedy[0] != '\0' ? "; " : "",
        first->remedy, more);
}

const char *check_result_name(enum check_result r)
{
    switch (r) {
    case CHECK_OK:
        return "ok";
    case CHECK_WARN:
        return "warning";
    case CHECK_REFUSED:
        return "refused";
    }
    return "?";
}

void checks_free(struct checks *c)
{
    free(c->check);
    *c = (struct checks){ 0 };
}
