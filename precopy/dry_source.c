/* SPDX-License-Identifier: ISC */
/*
 * A dry run, at the source: what a migration would be like, without one.
 *
 *   attach     as a migration does, so that there is never one of the domain at the same time
 *   identify   what the disks are, as a migration does
 *   ask        connect, DryRun -> Accept or Refuse: the target makes all its checks, builds
 *              nothing. The offer travels in a message of its own, not as a mark in an Offer: a
 *              host that does not know it refuses it.
 *   probe      share of zero pages; bursts of pages, dry_probe.c. Connection closed. Of a guest
 *              whose memory leaves as one stream neither this nor what follows can be had: its
 *              forecast is made of what moves to that host cost before, or of guesses
 *   sample     dirty log on; which pages were written after 10 ms to 5 s; what deltas of them
 *              would be, dry_delta.c; off
 *   forecast   outlook.c
 *
 * The guest runs all the time, and nothing of it is changed: the log's bits belong to nobody else.
 * A worker that dies leaves a log that the driver stops when it sees the closed connection.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "precopy/dry_delta.h"
#include "precopy/dry_probe.h"
#include "precopy/outlook.h"
#include "precopy/pages.h"
#include "precopy/worker_internal.h"

#define SLICE_NS (4 * NS_PER_MS)

static const unsigned sample_ms[] = { 10, 25, 50, 100, 200, 400, 700, 1000, 1600, 2500, 5000 };
#define COPY_MS 1000
#define COMPARE_MS 1600
#define SAMPLES (sizeof sample_ms / sizeof sample_ms[0])

struct dry {
    struct ctl *ctl;
    const Migrd__SourceStart *start;
    const Migrd__PrecopyParams *par;
    const struct worker_options *opt;
    uint64_t began_ns;
    struct attach at;
    bool paused;
    uint64_t *bitmap;
    struct tr_tls *tls;
    struct tr_conn *msg;
    char cipher[128];
    struct offer_facts facts;
    Migrd__CheckReport *checks;
    struct outlook look;
    struct dry_delta delta;
};

static void note(struct dry *d, Migrd__Phase phase, const char *text)
{
    Migrd__FromWorker m = MIGRD__FROM_WORKER__INIT;
    Migrd__Progress p = MIGRD__PROGRESS__INIT;

    p.phase = phase;
    p.pages_total = d->look.in.populated;
    p.elapsed_ms = (clock_ns() - d->began_ns) / NS_PER_MS;
    p.note = (char *)(uintptr_t)text;
    m.body_case = MIGRD__FROM_WORKER__BODY_PROGRESS;
    m.progress = &p;
    ctl_send(d->ctl, &m, NULL);
}

static int attach(struct dry *d, struct err *e)
{
    const Migrd__SourceStart *st = d->start;
    struct hv_info info;

    if (attach_open(&d->at, d->opt, st->hypervisor, st->run_dir, st->log_dir, e) < 0 ||
        d->at.ops->info(d->at.hv, st->domain->uuid, &info, e) < 0)
        return -1;
    if (info.state != HV_RUNNING && info.state != HV_BLOCKED && info.state != HV_PAUSED)
        return err_set(e, ERR_STATE, "domain %s is %s: only one that runs or is paused can move",
            st->domain->name, hv_state_name(info.state));
    d->paused = hv_is_paused(&info);
    if (attach_can_move(&d->at, st->domain, st->params, d->paused, e) < 0 ||
        attach_domain(&d->at, st->domain->uuid, HV_SOURCE, e) < 0 ||
        (d->bitmap = attach_bitmap(&d->at, e)) == NULL ||
        d->at.ops->mig_populated(d->at.mig, d->bitmap, e) < 0)
        return -1;
    d->look.in.populated = bitmap_count(d->bitmap, d->at.words);
    return 0;
}

/* --- the target's word --- */

static int send_offer(struct dry *d, struct err *e)
{
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__Offer o = MIGRD__OFFER__INIT;
    struct offer_regions regions;

    offer_set_facts(&o, &d->facts, d->start, &d->at);
    offer_set_regions(&o, &regions, &d->at.layout);
    o.protocol = PROTOCOL;
    o.source_host = d->start->own_name;
    o.domain = d->start->domain;
    o.epoch = d->start->epoch + 1;
    o.channels = d->par->channels == 0 ? 1 : d->par->channels;
    o.verify = d->par->verify;
    o.live = d->par->live && !d->paused;
    o.stay_paused = d->par->stay_paused || d->paused;
    o.change_home = d->par->change_home;
    o.home = d->par->change_home ? d->start->home : NULL;
    o.populated_pages = d->look.in.populated;
    m.body_case = MIGRD__SESSION__BODY_DRY_RUN;
    m.dry_run = &o;
    return tr_send(d->msg, &m, e);
}

static int ask(struct dry *d, struct err *e)
{
    struct tr_options opt = { .dead_peer_ms = d->par->dead_peer_ms };
    Migrd__Session *m = NULL;
    char line[32];
    int r;

    snprintf(line, sizeof line, "RELOCATE %d", PROTOCOL);
    if (worker_tls(d->start->tls, &d->tls, e) < 0)
        return -1;
    opt.tls = d->tls;
    if (ctl_ended(d->ctl, e) ||
        tr_connect(d->start->host, d->start->port, line, &opt, &d->msg, e) < 0)
        return -1;
    ctl_watch(d->ctl, d->msg);
    snprintf(d->cipher, sizeof d->cipher, "%s", tr_cipher(d->msg));
    r = send_offer(d, e);
    if (r == 0)
        r = expect_accept(d->msg, d->tls != NULL, &m, &d->checks, e);
    offer_forget(&d->facts, d->start);
    if (m != NULL)
        migrd__session__free_unpacked(m, NULL);
    return r < 0 ? r : enter_sandbox(d->opt, e);
}

/* --- the link --- */

static void hang_up(struct dry *d)
{
    if (d->msg != NULL) {
        ctl_unwatch(d->ctl, d->msg);
        tr_close(&d->msg);
    }
    tr_tls_free(&d->tls);
}

static int probe(struct dry *d, struct err *e)
{
    struct dry_pages *pages = malloc(sizeof *pages);
    struct dry_probe *p = NULL;
    int r = -1;

    if (pages == NULL)
        err_set(e, ERR_MEMORY, "out of memory for the probe");
    else if (dry_sample(&d->at, d->bitmap, pages, e) == 0)
        p = dry_probe_new(d->msg, &d->at, d->bitmap, pages, d->par, e);
    if (p != NULL && dry_probe_send(p, e) == 0) {
        d->look.in.zero_share = dry_zero_share(pages);
        dry_probe_result(p, &d->look.probe);
        r = 0;
    }
    dry_probe_free(&p);
    free(pages);
    hang_up(d);
    return r;
}

/* --- the guest --- */

static int wait_until(struct dry *d, uint64_t when, struct err *e)
{
    uint64_t now;

    while ((now = clock_ns()) < when) {
        uint64_t left = when - now < SLICE_NS ? when - now : SLICE_NS;
        struct timespec ts = { 0, (long)left };

        if (ctl_ended(d->ctl, e))
            return -1;
        nanosleep(&ts, NULL);
    }
    return ctl_ended(d->ctl, e) ? -1 : 0;
}

static int sample_writes(struct dry *d, struct err *e)
{
    uint64_t began = clock_ns(), cost = 0;

    memset(d->bitmap, 0, d->at.words * sizeof *d->bitmap);
    for (size_t i = 0; i < SAMPLES; i++) {
        uint64_t before, after;

        if (wait_until(d, began + sample_ms[i] * NS_PER_MS, e) < 0)
            return -1;
        before = clock_ns();
        if (d->at.ops->dirty_collect(d->at.mig, d->bitmap, e) < 0)
            return -1;
        after = clock_ns();
        cost += after - before;
        outlook_point(&d->look, ((before + after) / 2 - began) / NS_PER_US,
            bitmap_count(d->bitmap, d->at.words));
        if ((sample_ms[i] == COPY_MS && dry_delta_begin(&d->delta, &d->at, d->bitmap, e) < 0) ||
            (sample_ms[i] == COMPARE_MS && dry_delta_compare(&d->delta, &d->at, e) < 0))
            return -1;
    }
    d->look.admit_ns = d->delta.admit_ns;
    d->look.hit_ns = d->delta.hit_ns;
    d->look.hit_bytes = d->delta.hit_bytes;
    d->look.collect_us = cost / NS_PER_US / SAMPLES;
    return 0;
}

static int sample_guest(struct dry *d, struct err *e)
{
    struct err stop = { 0 };
    int r;

    if (d->paused || !d->par->live)
        return 0;
    if (d->at.ops->dirty_start(d->at.mig, e) < 0)
        return -1;
    r = sample_writes(d, e);
    if (d->at.ops->dirty_stop(d->at.mig, &stop) < 0)
        log_error(
            "precopy", "%s: after a dry run: dirty log: %s", d->start->domain->name, stop.text);
    return r;
}

/* --- the job --- */

static void report(struct dry *d, const struct err *e)
{
    Migrd__Finished f = MIGRD__FINISHED__INIT;

    f.phase = e == NULL ? MIGRD__PHASE__PHASE_DONE : MIGRD__PHASE__PHASE_CONNECT;
    f.guest_resumed = true; /* it never stood still */
    f.total_us = (clock_ns() - d->began_ns) / NS_PER_US;
    f.cipher = d->cipher;
    f.channels = d->look.in.channels;
    f.checks = d->checks;
    if (e == NULL)
        f.forecast = &d->look.message;
    send_finished(d->ctl, &f, e);
}

static int fail(struct dry *d, struct err *e)
{
    ctl_ended(d->ctl, e); /* the cause, where a cancel broke the connection */
    if (d->msg != NULL)
        send_refuse(d->msg, e, NULL);
    report(d, e);
    return -1;
}

static int work(struct dry *d, struct err *e)
{
    if (attach(d, e) < 0)
        return -1;
    note(d, MIGRD__PHASE__PHASE_CONNECT, "asking the target");
    if (offer_identify(&d->facts, d->start, e) < 0 || ask(d, e) < 0)
        return -1;
    if (d->at.layout.stream) { /* no page of it can be had before it leaves */
        note(d, MIGRD__PHASE__PHASE_CONNECT, "the target would take it; its link is not probed");
        return 0;
    }
    note(d, MIGRD__PHASE__PHASE_CONNECT, "the target would take it; probing the link");
    if (probe(d, e) < 0)
        return -1;
    note(d, MIGRD__PHASE__PHASE_CONNECT, "watching for 5 s what the guest writes");
    return sample_guest(d, e);
}

int dry_source_run(
    struct ctl *ctl, const Migrd__SourceStart *start, const struct worker_options *opt)
{
    static const Migrd__PrecopyParams defaults = MIGRD__PRECOPY_PARAMS__INIT;
    struct dry d = { .ctl = ctl, .start = start, .opt = opt, .began_ns = clock_ns() };
    struct err e = { 0 };
    int r;

    d.par = start->params != NULL ? start->params : &defaults;
    d.look.history = start->history;
    d.look.basis = "dry run";
    r = work(&d, &e);
    if (r == 0) {
        outlook_make(&d.look, d.par, d.par->live && !d.paused);
        report(&d, NULL);
    } else {
        r = fail(&d, &e);
    }
    hang_up(&d);
    offer_forget(&d.facts, start);
    if (d.checks != NULL)
        migrd__check_report__free_unpacked(d.checks, NULL);
    dry_delta_end(&d.delta);
    attach_close(&d.at);
    free(d.bitmap);
    return r;
}
