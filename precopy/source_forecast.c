/* SPDX-License-Identifier: ISC */
/*
 * The forecast that a migration without a dry run carries: made once, in its first round, from what
 * is known there anyway: the peeks of the dirty log are the curve, the channels' counters the
 * costs, a sample of pages the share of zeroes. After AFTER_US, or when the round ends sooner. It
 * costs the coordinating thread about a millisecond, while the channels send.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "precopy/dry_probe.h"
#include "precopy/pages.h"
#include "precopy/source_internal.h"

#define AFTER_US 200000
#define PAGES_MIN 1024
#define ZERO_NS 150.0

/* Of all pages, by a sample: what was sent by now is one end of memory. */
static double zero_share(const struct source *s, const struct pages_total *sent)
{
    struct dry_pages *pages = malloc(sizeof *pages);
    double content = (double)(sent->sent + sent->zero);
    double share = content > 0 ? (double)sent->zero / content : 0;
    struct err e = { 0 };

    if (pages != NULL && dry_sample(&s->at, s->known, pages, &e) == 0)
        share = dry_zero_share(pages);
    free(pages);
    return share;
}

static void make(struct source *s, uint64_t us)
{
    struct outlook *o = &s->look;
    struct pages_total c;

    sender_count(s->sender, &c);
    o->in.populated = s->populated;
    o->in.zero_share = zero_share(s, &c);
    if (c.sent >= PAGES_MIN)
        o->measured_ns = ((double)us * 1000 - (double)c.zero * ZERO_NS) / (double)c.sent;
    o->history = s->start->history;
    o->basis = "first round";
    o->quick = true;
    outlook_make(o, s->par, s->par->live && !s->was_paused);
    s->forecast_made = true;
}

void source_forecast(struct source *s, const uint64_t *dirty, uint64_t round_began, bool ended)
{
    uint64_t us = (clock_ns() - round_began) / NS_PER_US;

    if (s->forecast_made || s->round > 0)
        return;
    outlook_point(&s->look, us, bitmap_count(dirty, s->at.words));
    if (ended || us >= AFTER_US)
        make(s, us);
}
