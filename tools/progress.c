/* SPDX-License-Identifier: ISC */
/*
 * The progress of a migration on stderr: one line drawn again and again on a terminal, a
 * plain line each second elsewhere. Percent is the share of the guest's memory that the
 * target holds and that has not been written since: it may fall when a new round begins.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "tools/format.h"
#include "tools/migrate.h"

#define PAGE 4096u
#define BAR 20 /* characters */
#define BAR_LEAST 6
#define LINE_EVERY_NS NS_PER_S
#define WIDE 200 /* for a line that nobody cuts */

static unsigned percent(const Migrd__Progress *p)
{
    uint64_t left = p->pages_remaining;

    if (p->pages_total == 0)
        return 0;
    if (left > p->pages_total)
        left = p->pages_total;
    return (unsigned)((p->pages_total - left) * 100 / p->pages_total);
}

static void phase_text(const Migrd__Progress *p, char *out, size_t len)
{
    switch (p->phase) {
    case MIGRD__PHASE__PHASE_CONNECT:
        snprintf(out, len, "connecting");
        return;
    case MIGRD__PHASE__PHASE_PRECOPY:
        snprintf(out, len, "round %u", p->round);
        return;
    case MIGRD__PHASE__PHASE_PAUSED:
        snprintf(out, len, "guest paused");
        return;
    case MIGRD__PHASE__PHASE_COMMITTED:
        snprintf(out, len, "handing over");
        return;
    case MIGRD__PHASE__PHASE_DONE:
        snprintf(out, len, "done");
        return;
    case _MIGRD__PHASE_IS_INT_SIZE:
        break;
    }
    snprintf(out, len, "phase %d", (int)p->phase);
}

static const char *from_or_to(const Migrd__MigrationInfo *m)
{
    return strcmp(m->direction, "in") == 0 || strcmp(m->direction, "restore") == 0 ? "from" : "to";
}

/* As long as the line has room for it, "  [####....]"; nothing where it would say little. */
static void bar_text(char *out, size_t room, unsigned done)
{
    size_t n = room < BAR + 4 ? room - (room < 4 ? room : 4) : BAR;

    out[0] = '\0';
    if (n < BAR_LEAST)
        return;
    memcpy(out, "  [", 3);
    for (size_t i = 0; i < n; i++)
        out[3 + i] = i < done * n / 100 ? '#' : '.';
    memcpy(out + 3 + n, "]", 2);
}

/* Before the first measurement: what has gone out so far, over the time it took. */
static uint64_t link_rate(const Migrd__Progress *p)
{
    if (p->bandwidth != 0 || p->elapsed_ms == 0)
        return p->bandwidth;
    return p->wire_bytes * 1000 / p->elapsed_ms;
}

static void figures_text(const Migrd__Progress *p, char *out, size_t len)
{
    char phase[32], left[FORMAT_LEN], dirty[FORMAT_LEN], link[FORMAT_LEN], slow[32] = "";
    size_t n;

    phase_text(p, phase, sizeof phase);
    snprintf(out, len, "  %u%%  %s  %s left  link %s/s", percent(p), phase,
        format_bytes(left, p->pages_remaining * PAGE), format_bytes(link, link_rate(p)));
    if (p->round == 0)
        return; /* how fast the guest writes is known after the first round */
    if (p->throttle > 0)
        snprintf(slow, sizeof slow, "  throttle %u%%", p->throttle);
    n = strlen(out);
    snprintf(out + n, len - n, "  dirty %s/s  pause ~%u ms%s", format_bytes(dirty, p->dirty_rate),
        p->expected_pause_ms, slow);
}

void progress_line(const Migrd__MigrationInfo *m, char *out, size_t len, size_t width)
{
    const Migrd__Progress *p = m->progress;
    char who[512], figures[256], bar[BAR + 8];
    size_t used;

    snprintf(who, sizeof who, "%s %s %s", m->domain, from_or_to(m), m->peer);
    if (p == NULL || p->phase == MIGRD__PHASE__PHASE_CONNECT) {
        snprintf(out, len, "%s  %s", who, p == NULL ? m->state : "connecting");
        return;
    }
    figures_text(p, figures, sizeof figures);
    used = strlen(who) + strlen(figures);
    if (width != 0 && used > width) { /* the figures matter more than where to */
        snprintf(who, sizeof who, "%s", m->domain);
        used = strlen(who) + strlen(figures);
    }
    bar_text(bar, width > used ? width - used : 0, percent(p));
    snprintf(out, len, "%s%s%s", who, bar, figures);
}

static size_t terminal_width(void)
{
    struct winsize w;

    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

/* A remark of the policy stays on the screen, above the bar. */
static void show_note(struct progress *p, const Migrd__Progress *now)
{
    if (now->note == NULL || now->note[0] == '\0' ||
        strncmp(p->note, now->note, sizeof p->note - 1) == 0)
        return;
    snprintf(p->note, sizeof p->note, "%s", now->note);
    if (now->phase == MIGRD__PHASE__PHASE_CONNECT) /* of a dry run, which has no rounds */
        fprintf(stderr, "%s  %s\n", p->drawn ? "\r\033[K" : "", p->note);
    else
        fprintf(stderr, "%s  round %u: %s\n", p->drawn ? "\r\033[K" : "", now->round, p->note);
    p->drawn = false;
}

void progress_show(struct progress *p, const Migrd__MigrationInfo *m)
{
    uint64_t now = clock_ns();
    char line[512];
    size_t width;

    if (m->progress != NULL)
        show_note(p, m->progress);
    width = isatty(STDERR_FILENO) ? terminal_width() - 3 : WIDE;
    progress_line(m, line, sizeof line, width);
    if (!isatty(STDERR_FILENO)) {
        if (p->last_line_ns != 0 && now - p->last_line_ns < LINE_EVERY_NS)
            return;
        p->last_line_ns = now;
        fprintf(stderr, "%s\n", line);
        return;
    }
    if (strlen(line) > width)
        line[width] = '\0';
    fprintf(stderr, "\r%s\033[K", line);
    p->drawn = true;
}

void progress_end(struct progress *p)
{
    if (p->drawn)
        fputs("\r\033[K", stderr);
    p->drawn = false;
}
