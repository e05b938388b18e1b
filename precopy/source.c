/* SPDX-License-Identifier: ISC */
/*
 * The source worker, from SourceStart to Finished:
 *
 *   attach      driver, domain, layout, bitmaps
 *   identify    what the disks are; a challenge beside each
 *   connect     message channel, Offer -> Accept, challenges gone, data channels, sandbox
 *   rounds      source_rounds.c
 *   hand-over   source_handover.c
 *   undo        after a failure before COMMITTED, in the order that is kindest to the
 *               guest: resume it, lift the throttle, give the dirty bits back, stop
 *               the log, tell the target. Then Finished{ok=false, guest_resumed}.
 *
 * A failure after COMMITTED undoes nothing: Finished{ok=false, phase=COMMITTED}.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "precopy/pages.h"
#include "precopy/source_internal.h"

#define HELD_MS 5000
#define HELD_RETRY_US 100000

static int attach(struct source *s, struct err *e)
{
    const Migrd__SourceStart *st = s->start;
    struct hv_info info;

    if (attach_open(&s->at, s->opt, st->hypervisor, st->run_dir, st->log_dir, e) < 0 ||
        s->at.ops->info(s->at.hv, st->domain->uuid, &info, e) < 0)
        return -1;
    if (info.state != HV_RUNNING && info.state != HV_BLOCKED && info.state != HV_PAUSED)
        return err_set(e, ERR_STATE, "domain %s is %s: only one that runs or is paused can move",
            st->domain->name, hv_state_name(info.state));
    s->was_paused = hv_is_paused(&info);
    if (attach_can_move(&s->at, st->domain, st->params, s->was_paused, e) < 0 ||
        attach_domain(&s->at, st->domain->uuid, HV_SOURCE, e) < 0 ||
        attach_can_verify(&s->at, st->domain, s->par, e) < 0)
        return -1;
    s->work = attach_bitmap(&s->at, e);
    s->next = attach_bitmap(&s->at, e);
    s->harvest = attach_bitmap(&s->at, e);
    s->peek = attach_bitmap(&s->at, e);
    s->known = attach_bitmap(&s->at, e);
    if (getrandom(&s->seed, sizeof s->seed, 0) != (ssize_t)sizeof s->seed)
        return err_sys(e, "random numbers");
    return s->work == NULL || s->next == NULL || s->harvest == NULL || s->peek == NULL ||
                   s->known == NULL
               ? -1
               : 0;
}

/* --- the peer --- */

static int populated_now(struct source *s, struct err *e)
{
    if (s->at.ops->mig_populated(s->at.mig, s->work, e) < 0)
        return -1;
    s->populated = bitmap_count(s->work, s->at.words);
    return 0;
}

static int send_offer(struct source *s, struct err *e)
{
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__Offer o = MIGRD__OFFER__INIT;
    struct offer_regions regions;

    offer_set_facts(&o, &s->facts, s->start, &s->at);
    offer_set_regions(&o, &regions, &s->at.layout);
    o.protocol = PROTOCOL;
    o.migration = s->start->migration;
    o.source_host = s->start->own_name;
    o.domain = s->start->domain;
    o.epoch = s->start->epoch + 1;
    o.channels = s->channels;
    o.verify = s->par->verify;
    o.live = s->par->live && !s->was_paused;
    o.stay_paused = s->par->stay_paused || s->was_paused;
    o.change_home = s->par->change_home;
    o.home = s->par->change_home ? s->start->home : NULL;
    o.ha = s->start->ha;
    o.populated_pages = s->populated;
    o.encodings = encodings_wanted(s->par);
    m.body_case = MIGRD__SESSION__BODY_OFFER;
    m.offer = &o;
    return tr_send(s->msg, &m, e);
}

static int say_accepted(struct source *s, const Migrd__Accept *a, struct err *e)
{
    Migrd__FromWorker m = MIGRD__FROM_WORKER__INIT;
    Migrd__Accepted acc = MIGRD__ACCEPTED__INIT;

    acc.target_host = a->target_host;
    m.body_case = MIGRD__FROM_WORKER__BODY_ACCEPTED;
    m.accepted = &acc;
    return ctl_send(s->ctl, &m, e);
}

/* Only data are shaped: pings and the last step's messages do not queue for the cap. */
static int connect_one(struct source *s, const char *preamble, struct tr_shaper *shaper,
    struct tr_conn **out, struct err *e)
{
    struct tr_options opt = {
        .tls = s->tls, .dead_peer_ms = s->par->dead_peer_ms, .shaper = shaper
    };

    if (ctl_ended(s->ctl, e) ||
        tr_connect(s->start->host, s->start->port, preamble, &opt, out, e) < 0)
        return -1;
    ctl_watch(s->ctl, *out);
    return 0;
}

static bool is_session(const char *text)
{
    return strlen(text) == TR_SESSION_LEN - 1 &&
           strspn(text, "0123456789abcdef") == TR_SESSION_LEN - 1;
}

static int connect_channels(struct source *s, const Migrd__Accept *a, struct err *e)
{
    char line[TR_LINE_MAX];
    struct pages_encode how;

    if (!is_session(a->session) || a->channels == 0 || a->channels > s->channels)
        return err_set(e, ERR_PROTOCOL, "the target's answer to the offer makes no sense");
    s->channels = a->channels;
    for (unsigned i = 0; i < s->channels; i++) {
        snprintf(line, sizeof line, "CHANNEL %s %u", a->session, i + 1);
        if (connect_one(s, line, s->shaper, &s->data[i], e) < 0)
            return err_prefix(e, "data channel %u", i + 1);
    }
    if (enter_sandbox(s->opt, e) < 0)
        return -1;
    how = encodings_plan(s->par, a->encodings, &s->at.layout);
    s->sender = sender_new(s->at.ops, s->at.mig, &s->at.layout, s->data, s->channels, &how, e);
    return s->sender == NULL ? -1 : 0;
}

static int negotiate(struct source *s, struct err *e)
{
    Migrd__Session *m;
    int r;

    if (s->checks != NULL)
        migrd__check_report__free_unpacked(s->checks, NULL);
    s->checks = NULL;
    if (send_offer(s, e) < 0 || expect_accept(s->msg, s->tls != NULL, &m, &s->checks, e) < 0)
        return -1;
    offer_forget(&s->facts, s->start);
    r = say_accepted(s, m->accept, e);
    if (r == 0)
        r = connect_channels(s, m->accept, e);
    migrd__session__free_unpacked(m, NULL);
    return r;
}

static int connect_and_offer(struct source *s, struct err *e)
{
    char line[32];

    snprintf(line, sizeof line, "RELOCATE %d", PROTOCOL);
    if (connect_one(s, line, NULL, &s->msg, e) < 0)
        return -1;
    if (FAULT("source-connected"))
        return err_set(e, ERR_INTERNAL, "fault point source-connected");
    return negotiate(s, e);
}

/* An attempt before this one may still be on its way out of the target, which says so. */
static bool ask_again(struct source *s, const struct err *why, uint64_t deadline)
{
    if (why->code != ERR_STATE || s->sender != NULL || clock_ns() >= deadline ||
        ctl_ended(s->ctl, NULL))
        return false;
    ctl_unwatch(s->ctl, s->msg);
    tr_close(&s->msg);
    usleep(HELD_RETRY_US);
    return true;
}

static int connect_peer(struct source *s, struct err *e)
{
    uint64_t deadline = clock_ns() + HELD_MS * NS_PER_MS;
    int r;

    s->channels = s->par->channels == 0 || s->at.layout.stream ? 1 : s->par->channels;
    if (s->channels > TR_CHANNELS_MAX)
        s->channels = TR_CHANNELS_MAX;
    s->shaper = tr_shaper_new(s->par->bandwidth);
    if (s->shaper == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for the bandwidth cap");
    if (worker_tls(s->start->tls, &s->tls, e) < 0)
        return -1;
    while ((r = connect_and_offer(s, e)) < 0 && s->msg != NULL && ask_again(s, e, deadline))
        err_clear(e);
    offer_forget(&s->facts, s->start);
    return r;
}

/* --- the end --- */

static void log_failure(const struct source *s, const char *what, const struct err *e)
{
    log_error(
        "precopy", "%s: after a failed migration: %s: %s", s->start->domain->name, what, e->text);
}

/* Nothing is more urgent than this, and what fails once may work a moment later. After the last try
 * migrd goes on trying, over a connection of its own. */
static bool resume_guest(struct source *s)
{
    static const unsigned wait_ms[] = { 20, 100, 300 };
    struct err e = { 0 };

    for (size_t i = 0;; i++) {
        if (FAULT("source-resume"))
            err_set(&e, ERR_INTERNAL, "fault point source-resume");
        else if (s->at.ops->mig_resume(s->at.mig, s->start->epoch, &e) == 0)
            return true;
        log_failure(s, "resume", &e);
        if (i == sizeof wait_ms / sizeof wait_ms[0])
            return false;
        usleep(wait_ms[i] * 1000);
    }
}

/* True if the guest runs here again, or never stopped. */
static bool undo(struct source *s)
{
    struct err e = { 0 };
    bool runs = !s->was_paused;

    if (s->paused && !resume_guest(s))
        runs = false;
    if (s->throttle > 0 && s->at.ops->throttle(s->at.mig, 0, &e) < 0)
        log_failure(s, "throttle", &e);
    if (s->log_on && s->at.ops->dirty_give_back(s->at.mig, s->harvest, &e) < 0)
        log_failure(s, "dirty bits", &e);
    if (s->log_on && s->at.ops->dirty_stop(s->at.mig, &e) < 0)
        log_failure(s, "dirty log", &e);
    s->paused = s->log_on = false;
    s->throttle = 0;
    return runs;
}

static void close_connections(struct source *s)
{
    sender_free(&s->sender);
    for (unsigned i = 0; i < TR_CHANNELS_MAX; i++) {
        if (s->data[i] == NULL)
            continue;
        ctl_unwatch(s->ctl, s->data[i]);
        tr_close(&s->data[i]);
    }
    if (s->msg != NULL) {
        ctl_unwatch(s->ctl, s->msg);
        tr_close(&s->msg);
    }
    tr_shaper_free(&s->shaper);
    tr_tls_free(&s->tls);
}

static void report(struct source *s, const struct err *e, bool guest_runs)
{
    Migrd__Finished f = MIGRD__FINISHED__INIT;
    struct pages_total c = { 0 };
    struct encoding_counts counts;
    char cipher[128] = "";

    if (s->sender != NULL)
        sender_count(s->sender, &c);
    if (s->msg != NULL)
        snprintf(cipher, sizeof cipher, "%s", tr_cipher(s->msg));
    f.phase = s->phase;
    f.guest_resumed = e != NULL && guest_runs;
    f.n_rounds = s->n_report;
    f.rounds = s->report_ptr;
    f.total_us = (clock_ns() - s->began_ns) / NS_PER_US;
    f.pause_us = s->pause_us;
    f.wire_bytes = c.bytes;
    f.pages_sent = c.sent;
    f.pages_zero = c.zero;
    f.n_encodings = encodings_count(&counts, &c, NULL);
    f.encodings = counts.ptr;
    f.verified_pages = e == NULL ? s->verified_pages : 0;
    f.cipher = cipher;
    f.channels = s->channels;
    f.n_pause_steps = s->steps.n;
    f.pause_steps = s->steps.ptr;
    f.forecast = s->forecast_made ? &s->look.message : NULL;
    f.checks = s->checks;
    send_finished(s->ctl, &f, e);
}

static int fail(struct source *s, struct err *e)
{
    bool runs = false;

    if (s->committed) {
        log_error("precopy", "%s: %s", s->start->domain->name, e->text);
    } else {
        ctl_ended(s->ctl, e); /* the cause, where a cancel broke the connections */
        runs = s->at.mig == NULL || undo(s);
        if (s->msg != NULL)
            send_refuse(s->msg, e, NULL);
        log_warn("precopy", "%s: migration to %s failed: %s", s->start->domain->name,
            s->start->host, e->text);
    }
    report(s, e, runs);
    return -1;
}

static void dispose(struct source *s)
{
    close_connections(s);
    offer_forget(&s->facts, s->start);
    if (s->checks != NULL)
        migrd__check_report__free_unpacked(s->checks, NULL);
    attach_close(&s->at);
    free(s->work);
    free(s->next);
    free(s->harvest);
    free(s->peek);
    free(s->known);
}

int source_run(struct ctl *ctl, const Migrd__SourceStart *start, const struct worker_options *opt)
{
    static const Migrd__PrecopyParams defaults = MIGRD__PRECOPY_PARAMS__INIT;
    struct source s = { .ctl = ctl, .start = start, .opt = opt, .began_ns = clock_ns() };
    struct err e = { 0 };
    int r;

    s.par = start->params != NULL ? start->params : &defaults;
    s.phase = MIGRD__PHASE__PHASE_CONNECT;
    if (attach(&s, &e) < 0 || populated_now(&s, &e) < 0 ||
        offer_identify(&s.facts, start, &e) < 0 || connect_peer(&s, &e) < 0 ||
        source_rounds(&s, &e) < 0 || source_handover(&s, &e) < 0) {
        r = fail(&s, &e);
    } else {
        report(&s, NULL, false);
        r = 0;
    }
    dispose(&s);
    return r;
}
