/* SPDX-License-Identifier: ISC */
/*
 * A dry run, at the source: what a migration would be like, without one.
 *
 *   attach     as a migration does, so that there is never one of the domain at the same time
 *   ask        connect, DryRun -> Accept or Refuse: the target makes all its checks, builds
 *              nothing. The offer travels in a message of its own, not as a mark in an Offer: a
 *              host that does not know it refuses it.
 *   probe      trips without content, then filler for PROBE_MS or PROBE_BYTES, under the cap
 *              no more than it gives in a second; CPU time of both workers. Connection closed.
 *   sample     share of zero pages; dirty log on; which pages were written after 10 ms to 5 s; off
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
#include "precopy/outlook.h"
#include "precopy/pages.h"
#include "precopy/worker_internal.h"

#define TRIPS 5
#define TRIP_MS 10000
#define PROBE_MS 300
#define PROBE_BYTES (64u << 20)
#define PROBE_BYTES_MIN (1u << 20)
#define FILLER_BYTES (256u << 10)
#define SLICE_NS (4 * NS_PER_MS)
#define ZERO_SAMPLE 2048

static const unsigned sample_ms[] = { 10, 25, 50, 100, 200, 400, 700, 1000, 1600, 2500, 5000 };

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
    uint32_t number; /* of the newest probe */
    uint8_t *filler;
    struct outlook look;
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
    d->paused = info.state == HV_PAUSED;
    if (attach_domain(&d->at, st->domain->uuid, HV_SOURCE, e) < 0 ||
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
    struct offer_host host;

    offer_set_host(&o, &host, &d->at);
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
    o.populated_pages = d->look.in.populated;
    m.body_case = MIGRD__SESSION__BODY_DRY_RUN;
    m.dry_run = &o;
    return tr_send(d->msg, &m, e);
}

static int ask(struct dry *d, struct err *e)
{
    struct tr_options opt = { .dead_peer_ms = d->par->dead_peer_ms };
    Migrd__Session *m;
    char line[32];

    snprintf(line, sizeof line, "RELOCATE %d", PROTOCOL);
    if (worker_tls(d->start->tls, &d->tls, e) < 0)
        return -1;
    opt.tls = d->tls;
    if (ctl_ended(d->ctl, e) ||
        tr_connect(d->start->host, d->start->port, line, &opt, &d->msg, e) < 0)
        return -1;
    ctl_watch(d->ctl, d->msg);
    snprintf(d->cipher, sizeof d->cipher, "%s", tr_cipher(d->msg));
    if (send_offer(d, e) < 0 || enter_sandbox(d->opt, e) < 0 ||
        expect_accept(d->msg, d->tls != NULL, &m, e) < 0)
        return -1;
    migrd__session__free_unpacked(m, NULL);
    return 0;
}

/* --- the link --- */

static int send_probe(struct dry *d, size_t bytes, bool last, struct err *e)
{
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__Probe p = MIGRD__PROBE__INIT;

    p.number = ++d->number;
    p.last = last;
    p.filler.data = d->filler;
    p.filler.len = bytes;
    m.body_case = MIGRD__SESSION__BODY_PROBE;
    m.probe = &p;
    return tr_send(d->msg, &m, e);
}

static int take_ack(struct dry *d, Migrd__ProbeAck *out, struct err *e)
{
    Migrd__Session *m;

    if (expect(d->msg, MIGRD__SESSION__BODY_PROBE_ACK, TRIP_MS, &m, e) < 0)
        return -1;
    *out = *m->probe_ack;
    migrd__session__free_unpacked(m, NULL);
    if (out->number != d->number)
        return err_set(e, ERR_PROTOCOL, "the target acknowledges a probe that was not sent");
    return 0;
}

static int measure_trip(struct dry *d, struct err *e)
{
    uint64_t least = UINT64_MAX;
    Migrd__ProbeAck ack;

    for (int i = 0; i < TRIPS; i++) {
        uint64_t began = clock_ns(), took;

        if (send_probe(d, 0, true, e) < 0 || take_ack(d, &ack, e) < 0)
            return -1;
        took = clock_ns() - began;
        if (took < least)
            least = took;
    }
    d->look.rtt_us = least / NS_PER_US;
    return 0;
}

static uint64_t probe_limit(const struct dry *d)
{
    uint64_t cap = d->par->bandwidth;

    if (cap == 0 || cap > PROBE_BYTES)
        return PROBE_BYTES;
    return cap < PROBE_BYTES_MIN ? PROBE_BYTES_MIN : cap;
}

static unsigned percent(uint64_t part, uint64_t whole)
{
    return whole > 0 ? (unsigned)(part * 100 / whole) : 0;
}

static int measure_rate(struct dry *d, struct err *e)
{
    uint64_t began = clock_ns(), cpu = clock_cpu_ns(), limit = probe_limit(d), sent = 0, took;
    Migrd__ProbeAck ack;
    bool last = false;

    while (!last) {
        sent += FILLER_BYTES;
        last = sent >= limit || clock_ns() - began >= PROBE_MS * NS_PER_MS;
        if (send_probe(d, FILLER_BYTES, last, e) < 0)
            return -1;
    }
    if (take_ack(d, &ack, e) < 0)
        return -1;
    took = clock_ns() - began;
    if (ack.bytes != sent)
        return err_set(e, ERR_PROTOCOL, "the target acknowledges %" PRIu64 " of %" PRIu64 " bytes",
            ack.bytes, sent);
    if (took > d->look.rtt_us * NS_PER_US * 2) /* the answer's way is not part of it */
        took -= d->look.rtt_us * NS_PER_US;
    d->look.probe = (double)sent * 1e9 / (double)took;
    d->look.source_cpu = percent(clock_cpu_ns() - cpu, took);
    d->look.target_cpu = percent(ack.cpu_us * NS_PER_US, took);
    return 0;
}

static void hang_up(struct dry *d)
{
    if (d->msg != NULL) {
        ctl_unwatch(d->ctl, d->msg);
        tr_close(&d->msg);
    }
    tr_tls_free(&d->tls);
    free(d->filler);
    d->filler = NULL;
}

static int probe(struct dry *d, struct err *e)
{
    int r;

    d->filler = malloc(FILLER_BYTES);
    if (d->filler == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for the probe");
    for (size_t i = 0; i < FILLER_BYTES; i++) /* nothing that a tunnel could compress */
        d->filler[i] = (uint8_t)((i * UINT64_C(0x9e3779b97f4a7c15)) >> 56 ^ (i >> 8));
    r = measure_trip(d, e) < 0 || measure_rate(d, e) < 0 ? -1 : 0;
    hang_up(d);
    return r;
}

/* --- the guest --- */

static int count_zero(struct dry *d, const uint64_t *gfn, size_t n, unsigned *zero, struct err *e)
{
    struct hv_mapping map;

    if (n == 0)
        return 0;
    if (d->at.ops->mig_map(d->at.mig, gfn, n, false, &map, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        *zero += map.page[i][0] == 0 && memcmp(map.page[i], map.page[i] + 1, HV_PAGE_SIZE - 1) == 0;
    d->at.ops->mig_unmap(d->at.mig, &map);
    return 0;
}

/* Of every so many-th populated page. */
static int sample_zero(struct dry *d, struct err *e)
{
    uint64_t every = d->look.in.populated / ZERO_SAMPLE + 1, seen = 0;
    unsigned zero = 0, total = 0;
    uint64_t gfn[HV_BATCH_PAGES];
    size_t n = 0;

    for (uint64_t g = 0; g <= d->at.layout.max_gfn; g++) {
        if (!bitmap_test(d->bitmap, g) || seen++ % every != 0)
            continue;
        total++;
        gfn[n++] = g;
        if (n < HV_BATCH_PAGES)
            continue;
        if (count_zero(d, gfn, n, &zero, e) < 0)
            return -1;
        n = 0;
    }
    if (count_zero(d, gfn, n, &zero, e) < 0)
        return -1;
    d->look.in.zero_share = total > 0 ? (double)zero / total : 0;
    return 0;
}

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
    for (size_t i = 0; i < sizeof sample_ms / sizeof sample_ms[0]; i++) {
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
    }
    d->look.collect_us = cost / NS_PER_US / (sizeof sample_ms / sizeof sample_ms[0]);
    return 0;
}

static int sample_guest(struct dry *d, struct err *e)
{
    struct err stop = { 0 };
    int r;

    if (sample_zero(d, e) < 0)
        return -1;
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
    if (e == NULL)
        f.forecast = &d->look.message;
    send_finished(d->ctl, &f, e);
}

static int fail(struct dry *d, struct err *e)
{
    ctl_ended(d->ctl, e); /* the cause, where a cancel broke the connection */
    if (d->msg != NULL)
        send_refuse(d->msg, e);
    report(d, e);
    return -1;
}

static int work(struct dry *d, struct err *e)
{
    if (attach(d, e) < 0)
        return -1;
    note(d, MIGRD__PHASE__PHASE_CONNECT, "asking the target");
    if (ask(d, e) < 0)
        return -1;
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
    attach_close(&d.at);
    free(d.bitmap);
    return r;
}
