/* SPDX-License-Identifier: ISC */
/* The report of a finished migration: what happened, the rounds, where the pause went. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "base/pbjson.h"
#include "tools/format.h"
#include "tools/migrate.h"

#define PAGE 4096u

static void number(char out[FORMAT_LEN], uint64_t v)
{
    snprintf(out, FORMAT_LEN, "%llu", (unsigned long long)v);
}

static const char *rate(char out[FORMAT_LEN], uint64_t bytes, uint64_t us)
{
    if (us == 0)
        snprintf(out, FORMAT_LEN, "-");
    else
        snprintf(out, FORMAT_LEN, "%.0f", (double)bytes / (1024 * 1024) / ((double)us / 1e6));
    return out;
}

static void print_rounds(const Migrd__Finished *f)
{
    struct table *t = table_new("rrrrrrrrr");

    if (f->n_rounds == 0) {
        table_print(&t, "", stdout);
        return;
    }
    table_row(
        t, "Round", "Pages", "Zero", "Skipped", "Sent", "Time", "MiB/s", "Dirty after", "Throttle");
    for (size_t i = 0; i < f->n_rounds; i++) {
        const Migrd__RoundReport *r = f->rounds[i];
        char c[8][FORMAT_LEN], slow[FORMAT_LEN];

        number(c[0], r->round);
        number(c[1], r->pages);
        number(c[2], r->zero);
        number(c[3], r->skipped);
        format_bytes(c[4], r->bytes);
        format_us(c[5], r->duration_us);
        rate(c[6], r->bytes, r->duration_us);
        number(c[7], r->dirty_after);
        snprintf(slow, sizeof slow, r->throttle > 0 ? "%u%%" : "-", r->throttle);
        table_row(t, c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], slow);
    }
    putchar('\n');
    table_print(&t, "  ", stdout);
}

static void pause_row(struct table *t, const Migrd__PauseStep *s, uint64_t pause_us)
{
    char name[80], us[FORMAT_LEN], share[FORMAT_LEN] = "";

    format_us(us, s->us);
    if (pause_us > 0 && s->within[0] != '\0')
        snprintf(name, sizeof name, "  %.30s: %.30s", s->where, s->name);
    else
        snprintf(name, sizeof name, "%.40s", s->name);
    if (pause_us > 0)
        snprintf(share, sizeof share, s->within[0] == '\0' ? "%.0f%%" : "(%.0f%%)",
            (double)s->us * 100 / (double)pause_us);
    table_row(t, name, us, share);
}

/* What others did in a step's time stands below it, and is in its time already. */
static void print_pause(const Migrd__Finished *f)
{
    struct table *t = table_new("lrr");

    for (size_t i = 0; i < f->n_pause_steps; i++) {
        const Migrd__PauseStep *s = f->pause_steps[i];

        if (s->within[0] != '\0' && f->pause_us > 0)
            continue;
        pause_row(t, s, f->pause_us);
        for (size_t k = 0; k < f->n_pause_steps; k++)
            if (f->pause_us > 0 && strcmp(f->pause_steps[k]->within, s->name) == 0)
                pause_row(t, f->pause_steps[k], f->pause_us);
    }
    if (f->n_pause_steps > 0)
        puts("\n  Where the pause went");
    table_print(&t, "    ", stdout);
}

/* "Encoding  raw 512 MiB, delta 12 MiB (31x)": bytes as they travelled, and what they stand for. */
static void print_encodings(const Migrd__Finished *f)
{
    const char *gap = "";

    for (size_t i = 0; i < f->n_encodings; i++) {
        const Migrd__EncodingCount *c = f->encodings[i];
        char bytes[FORMAT_LEN];

        if (c->bytes == 0) /* zero pages: the line above has them */
            continue;
        if (gap[0] == '\0')
            printf("  %-10s ", "Encoding");
        printf("%s%s %s", gap, c->encoding, format_bytes(bytes, c->bytes));
        if (c->bytes < c->pages * PAGE)
            printf(" (%.1fx)", (double)(c->pages * PAGE) / (double)c->bytes);
        gap = ", ";
    }
    if (gap[0] != '\0')
        putchar('\n');
}

static void print_totals(const Migrd__Finished *f)
{
    char a[FORMAT_LEN], b[FORMAT_LEN];

    printf("\n  %-10s %s in %s", "Wire", format_bytes(a, f->wire_bytes), format_us(b, f->total_us));
    if (f->channels > 0)
        printf(", %u channel%s", f->channels, f->channels > 1 ? "s" : "");
    printf(", %s\n", f->cipher[0] != '\0' ? f->cipher : "plain TCP");
    printf("  %-10s %llu pages sent (%s), %llu zero pages\n", "Memory",
        (unsigned long long)f->pages_sent, format_bytes(a, f->pages_sent * PAGE),
        (unsigned long long)f->pages_zero);
    print_encodings(f);
    if (f->ok)
        printf("  %-10s %llu pages compared before the hand-over\n", "Verified",
            (unsigned long long)f->verified_pages);
    if (f->cpu_us > 0)
        printf("  %-10s %s of this host's CPU\n", "Processor", format_us(a, f->cpu_us));
    forecast_print_score(f);
}

/* A save and a restore are kept as migrations to and from a file. */
static bool is(const Migrd__MigrationInfo *m, const char *direction)
{
    return strcmp(m->direction, direction) == 0;
}

static void print_success(const Migrd__MigrationInfo *m)
{
    const Migrd__Finished *f = m->report;
    char total[FORMAT_LEN], pause[FORMAT_LEN];

    format_us(total, f->total_us);
    if (is(m, "in"))
        printf("%s came from %s in %s.\n", m->domain, m->peer, total);
    else if (is(m, "save"))
        printf("%s was saved to %s in %s.\n", m->domain, m->peer, total);
    else if (is(m, "dump"))
        printf("%s was dumped to %s in %s, paused for %s.\n", m->domain, m->peer, total,
            format_us(pause, f->pause_us));
    else if (is(m, "restore"))
        printf("%s was restored from %s in %s.\n", m->domain, m->peer, total);
    else
        printf("%s now runs on %s: %s in all, paused for %s.\n", m->domain, m->peer, total,
            format_us(pause, f->pause_us));
}

static void print_failure(const Migrd__MigrationInfo *m)
{
    const Migrd__Finished *f = m->report;
    char total[FORMAT_LEN], phase[32];

    pbjson_enum(&migrd__phase__descriptor, (int)f->phase, phase, sizeof phase);
    printf("%s %s: %s after %s in phase %s.\n", m->domain,
        is(m, "save")      ? "was not saved"
        : is(m, "restore") ? "was not restored"
        : is(m, "dump")    ? "was not dumped"
        : is(m, "dry-run") ? "has no forecast"
                           : "did not move",
        strcmp(f->code, "cancelled") == 0 ? "cancelled" : "failed", format_us(total, f->total_us),
        phase);
    if (!is(m, "in") && !is(m, "restore") && f->guest_resumed)
        puts("The guest runs on here.");
    else if (strcmp(m->state, "in doubt") == 0)
        printf(
            "It is in doubt which host owns %s: see 'migctl resolve' in migctl(1).\n", m->domain);
}

void report_print(const Migrd__MigrationInfo *m)
{
    const Migrd__Finished *f = m->report;

    if (f == NULL) {
        printf("%s: %s\n", m->domain, m->state);
        return;
    }
    if (is(m, "dry-run"))
        checks_print(m, true);
    if (is(m, "dry-run") && m->forecast != NULL) {
        forecast_print(m, m->forecast);
        return;
    }
    if (f->ok)
        print_success(m);
    else
        print_failure(m);
    if (!is(m, "dry-run"))
        checks_print(m, false);
    print_rounds(f);
    print_pause(f);
    if (f->wire_bytes > 0)
        print_totals(f);
}
