/* SPDX-License-Identifier: ISC */
/* A forecast, and how good it was. */
#include <stdio.h>
#include <string.h>

#include "tools/format.h"
#include "tools/migrate.h"

#define PAGE 4096u

static char *ms(char out[FORMAT_LEN], double v)
{
    return format_us(out, (uint64_t)(v * 1000));
}

bool forecast_is_good(const Migrd__Forecast *f)
{
    return f->converges >= FORECAST_SURE;
}

static void print_curve(const Migrd__Forecast *f)
{
    struct table *t = table_new("rrrr");

    if (f->n_curve > 0) {
        puts("\n  What the guest writes");
        table_row(t, "Within", "Pages", "Memory", "MiB/s");
    }
    for (size_t i = 0; i < f->n_curve; i++) {
        const Migrd__ForecastPoint *p = f->curve[i];
        char when[FORMAT_LEN], pages[FORMAT_LEN], size[FORMAT_LEN], rate[FORMAT_LEN];

        snprintf(pages, sizeof pages, "%llu", (unsigned long long)p->pages);
        snprintf(rate, sizeof rate, "%.0f",
            p->ms > 0 ? (double)p->pages * PAGE / (1 << 20) * 1000 / p->ms : 0);
        table_row(t, ms(when, p->ms), pages, format_bytes(size, p->pages * PAGE), rate);
    }
    table_print(&t, "    ", stdout);
}

static void print_inputs(const Migrd__Forecast *f)
{
    char a[FORMAT_LEN], b[FORMAT_LEN], c[FORMAT_LEN];

    printf("\n  %-10s %s populated, %.0f %% of it zero pages\n", "Memory",
        format_bytes(a, f->populated_pages * PAGE), f->zero_share * 100);
    printf("  %-10s %s/s by a probe, round trip %s, CPU here %u %%, there %u %%\n", "Link",
        format_bytes(b, f->probe_bandwidth), format_us(c, f->rtt_us), f->source_cpu, f->target_cpu);
    printf("  %-10s %s/s expected, from %u migration%s to that host%s\n", "Engine",
        format_bytes(a, f->bandwidth), f->history, f->history == 1 ? "" : "s",
        f->history == 0 ? ": a guess from the probe" : "");
}

void forecast_print(const Migrd__MigrationInfo *m, const Migrd__Forecast *f)
{
    char t[3][FORMAT_LEN], p[3][FORMAT_LEN], wire[FORMAT_LEN];

    printf("%s to %s: %s in all (%s to %s), paused for %s (%s to %s; budget %u ms).\n", m->domain,
        m->peer, ms(t[0], f->total_ms), ms(t[1], f->total_low_ms), ms(t[2], f->total_high_ms),
        ms(p[0], f->pause_ms), ms(p[1], f->pause_low_ms), ms(p[2], f->pause_high_ms), f->budget_ms);
    printf("%s in %u round%s%s, converges with a probability of %.0f %%.\n",
        format_bytes(wire, f->wire_bytes), f->rounds, f->rounds == 1 ? "" : "s",
        f->throttle > 0 ? ", the guest throttled" : "", f->converges * 100);
    if (!forecast_is_good(f) && f->reason[0] != '\0')
        printf("It would fail: %s.\n", f->reason);
    if (f->knob[0] != '\0')
        printf("What would help: %s\n", f->knob);
    print_inputs(f);
    print_curve(f);
}

static double off(double forecast, double was)
{
    return was > 0 ? (forecast - was) * 100 / was : 0;
}

void forecast_print_score(const Migrd__Finished *f)
{
    const Migrd__Forecast *c = f->forecast;
    double total = (double)f->total_us / 1000, pause = (double)f->pause_us / 1000;
    char a[FORMAT_LEN], b[FORMAT_LEN], d[FORMAT_LEN], e[FORMAT_LEN];

    if (c == NULL)
        return;
    if (!f->ok) {
        printf("  %-10s converges with a probability of %.0f %% (%s)\n", "Forecast",
            c->converges * 100, c->basis);
        return;
    }
    printf("  %-10s %s in all (was %s, %+.0f %%), pause %s (was %s, %+.0f %%), by the %s\n",
        "Forecast", ms(a, c->total_ms), ms(b, total), off(c->total_ms, total), ms(d, c->pause_ms),
        ms(e, pause), off(c->pause_ms, pause), c->basis);
}
