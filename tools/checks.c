/* SPDX-License-Identifier: ISC */
/* What the target compared before a migration: a table, or the first refusal in words. */
#include <stdio.h>
#include <string.h>

#include "tools/format.h"
#include "tools/migrate.h"

#define VALUE_SHOWN 46 /* columns of a value; --json has all of it */

static const char *const results[] = { "refused", "warning", "ok" };

static size_t count(const Migrd__CheckReport *r, const char *result)
{
    size_t n = 0;

    for (size_t i = 0; i < r->n_checks; i++)
        n += strcmp(r->checks[i]->result, result) == 0;
    return n;
}

bool checks_refused(const Migrd__Finished *f)
{
    return f != NULL && f->checks != NULL && count(f->checks, "refused") > 0;
}

/* The middle of a long value is left out: paths and names differ at their ends. */
static const char *value(char out[VALUE_SHOWN + 8], const char *text)
{
    size_t n = strlen(text), half = (VALUE_SHOWN - 3) / 2;

    if (text[0] == '\0')
        text = "-";
    if (n <= VALUE_SHOWN)
        snprintf(out, VALUE_SHOWN + 8, "%s", text);
    else
        snprintf(out, VALUE_SHOWN + 8, "%.*s...%s", (int)half, text, text + n - half);
    return out;
}

static void print_rows(struct table *t, const Migrd__CheckReport *r, const char *result)
{
    for (size_t i = 0; i < r->n_checks; i++) {
        const Migrd__Check *k = r->checks[i];
        char s[VALUE_SHOWN + 8], v[VALUE_SHOWN + 8], remedy[420];

        if (strcmp(k->result, result) != 0)
            continue;
        table_row(
            t, k->result, k->area, k->object, value(s, k->source), value(v, k->target), k->text);
        if (k->remedy[0] == '\0')
            continue;
        snprintf(remedy, sizeof remedy, "-> %s", k->remedy);
        table_row(t, "", "", "", "", "", remedy);
    }
}

void checks_print(const Migrd__MigrationInfo *m, bool all)
{
    const Migrd__CheckReport *r = m->report != NULL ? m->report->checks : NULL;
    size_t n_refused, n_warned;
    struct table *t;

    if (r == NULL)
        return;
    n_refused = count(r, "refused");
    n_warned = count(r, "warning");
    if (!all && n_refused + n_warned == 0)
        return;
    printf("%sChecks by %s%s: %zu refused, %zu warning%s, %zu ok\n", all ? "" : "\n",
        strcmp(m->direction, "in") == 0 ? "this host" : "host ",
        strcmp(m->direction, "in") == 0 ? "" : m->peer, n_refused, n_warned,
        n_warned == 1 ? "" : "s", count(r, "ok"));
    t = table_new("llllll");
    table_row(t, "Result", "Area", "Object", "Source", "Target", "Check");
    for (size_t i = 0; i < (all ? 3u : 2u); i++)
        print_rows(t, r, results[i]);
    table_print(&t, "  ", stdout);
    if (all)
        putchar('\n');
}

int checks_refusal(const Migrd__MigrationInfo *m, bool all_shown)
{
    const Migrd__CheckReport *r = m->report->checks;
    size_t n = count(r, "refused"), i = 0;

    while (strcmp(r->checks[i]->result, "refused") != 0)
        i++;
    tool_error("host %s refuses %s: %s", m->peer, m->domain, r->checks[i]->text);
    if (r->checks[i]->remedy[0] != '\0')
        fprintf(stderr, "What would mend it: %s\n", r->checks[i]->remedy);
    if (n > 1 && !all_shown)
        fprintf(stderr, "And %zu more: 'migctl migrate --dry-run %s %s' shows all.\n", n - 1,
            m->domain, m->peer);
    return TOOL_FAILED;
}
