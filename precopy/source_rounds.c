/* SPDX-License-Identifier: ISC */
/*
 * Rounds of a live migration. `work` is what a round sends:
 *
 *   dirty_start, then `work` = populated   a write in between is in the log: sent twice
 *   send `work`; meanwhile peek at the log and leave out what is dirty again
 *   RoundEnd, RoundAck                     the bytes have arrived: bandwidth is measured
 *   collect into `next`; policy decides; swap
 *
 * Asked to stop the guest now, the coordinator has it paused in the middle of a round: what
 * is left of the round, and then what it had dirtied, is sent while it stands.
 *
 * A page left out stays in the dirty log, so the collect that ends the round finds it.
 * The coordinator sends a Ping every second, so that the target knows it is alive.
 *
 * A trip, as the policy's fixed cost has it, is the time from RoundEnd to RoundAck without
 * what still waited in the data channels' sockets: the last step counts those bytes apart.
 */
#include <inttypes.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "precopy/pages.h"
#include "precopy/source_internal.h"

#define SLICE_MS 5
#define PEEK_NS (20 * NS_PER_MS)
#define PEEK_SHARE 20 /* a peek may cost one part in so many of the time */
#define PROGRESS_NS (200 * NS_PER_MS)
#define PING_NS NS_PER_S
#define SAMPLE_NS (500 * NS_PER_MS)

void source_progress(struct source *s, const char *note)
{
    Migrd__FromWorker m = MIGRD__FROM_WORKER__INIT;
    Migrd__Progress p = MIGRD__PROGRESS__INIT;
    struct pages_total c = { 0 };
    struct encoding_counts counts;
    uint64_t done;

    if (s->sender != NULL)
        sender_count(s->sender, &c);
    done = c.sent + c.zero + c.skipped -
           (s->round_start.sent + s->round_start.zero + s->round_start.skipped);
    p.phase = s->phase;
    p.round = s->round;
    p.pages_total = s->populated;
    p.pages_sent = c.sent;
    p.pages_zero = c.zero;
    p.pages_skipped = c.skipped;
    p.pages_remaining = done < s->round_pages ? s->round_pages - done : 0;
    p.pages_dirty = s->round > 0 ? s->round_pages : 0;
    p.dirty_rate = s->decision.dirty_rate;
    p.bandwidth = s->decision.bandwidth;
    p.wire_bytes = c.bytes;
    p.expected_pause_ms = (uint32_t)(s->decision.predicted_us / 1000);
    p.throttle = s->throttle;
    p.elapsed_ms = (clock_ns() - s->began_ns) / NS_PER_MS;
    p.note = (char *)note;
    p.n_encodings = encodings_count(&counts, &c, NULL);
    p.encodings = counts.ptr;
    m.body_case = MIGRD__FROM_WORKER__BODY_PROGRESS;
    m.progress = &p;
    ctl_send(s->ctl, &m, NULL);
    s->next_progress_ns = clock_ns() + PROGRESS_NS;
}

static void take_params(struct source *s)
{
    Migrd__SetParams p;

    if (!ctl_params(s->ctl, &p))
        return;
    if (p.set_bandwidth) {
        tr_shaper_set(s->shaper, p.bandwidth);
        policy_set_cap(&s->policy, p.bandwidth);
    }
    if (p.set_budget)
        policy_set_budget(&s->policy, (uint64_t)p.pause_budget_ms * 1000);
    s->stop = s->stop || p.stop;
}

/* Somebody does not want to wait for the policy. */
static void heed_stop(struct source *s)
{
    if (!s->stop)
        return;
    s->decision.action = POLICY_STOP;
    snprintf(s->decision.reason, sizeof s->decision.reason, "asked to stop the guest now");
}

static int stop_in_round(struct source *s, struct err *e)
{
    if (source_stop(s, e) < 0)
        return -1;
    source_progress(s, "asked to stop the guest now, in the middle of a round");
    return 0;
}

static int peek(struct source *s, uint64_t now, struct err *e)
{
    uint64_t cost;

    memset(s->peek, 0, s->at.words * sizeof *s->peek);
    if (s->at.ops->dirty_peek(s->at.mig, s->peek, e) < 0)
        return -1;
    sender_again(s->sender, s->peek);
    source_forecast(s, s->peek, s->first_round_ns, false);
    cost = (clock_ns() - now) * PEEK_SHARE;
    s->next_peek_ns = now + (cost > PEEK_NS ? cost : PEEK_NS);
    return 0;
}

static void sample(struct source *s, uint64_t now)
{
    struct pages_total c;

    if (now - s->sample[1].at_ns < SAMPLE_NS)
        return;
    sender_count(s->sender, &c);
    s->sample[0] = s->sample[1];
    s->sample[1].at_ns = now;
    s->sample[1].bytes = c.bytes;
}

static int chores(struct source *s, bool live, struct err *e)
{
    uint64_t now = clock_ns();

    if (ctl_ended(s->ctl, e))
        return -1;
    take_params(s);
    sample(s, now);
    if (live && s->stop && !s->stopped && stop_in_round(s, e) < 0)
        return -1;
    if (live && now >= s->next_peek_ns && peek(s, now, e) < 0)
        return -1;
    if (now >= s->next_ping_ns) {
        s->next_ping_ns = now + PING_NS;
        if (tr_ping(s->msg, e) < 0)
            return -1;
    }
    if (now >= s->next_progress_ns)
        source_progress(s, "");
    return 0;
}

/* A peer that refuses closes its end: what it said explains more than our broken pipe. */
static void ask_why(struct source *s, struct err *e)
{
    struct err why = { 0 };
    Migrd__Session *m;

    if (ctl_ended(s->ctl, e))
        return;
    if (tr_recv(s->msg, 500, &m, &why) < 0)
        return;
    if (m->body_case == MIGRD__SESSION__BODY_REFUSE)
        tr_refused(s->msg, m->refuse, e);
    migrd__session__free_unpacked(m, NULL);
}

int source_wait_round(struct source *s, bool live, struct err *e)
{
    int r;

    while ((r = sender_wait(s->sender, SLICE_MS, e)) == 0)
        if (chores(s, live, e) < 0)
            return -1;
    if (r < 0)
        ask_why(s, e);
    return r < 0 ? -1 : 0;
}

void source_send_round(struct source *s, bool live, bool last)
{
    sender_count(s->sender, &s->round_start);
    s->round_pages = bitmap_count(s->work, s->at.words);
    s->next_peek_ns = clock_ns() + PEEK_NS;
    s->sample[1].at_ns = clock_ns();
    s->sample[1].bytes = s->round_start.bytes;
    s->sample[0] = s->sample[1];
    sender_start(s->sender, s->work, s->round, live, last);
}

static bool tcp_info(const struct tr_conn *c, struct tcp_info *ti)
{
    socklen_t len = sizeof *ti;

    memset(ti, 0, sizeof *ti); /* an older kernel knows fewer fields */
    return getsockopt(tr_fd(c), IPPROTO_TCP, TCP_INFO, ti, &len) == 0;
}

/* How long the bytes that wait in our sockets now, at the end of a round, will take. */
static uint64_t drain_us(const struct source *s, uint64_t round_bytes, uint64_t round_us)
{
    uint64_t queued = 0, rate = s->decision.bandwidth;
    struct tcp_info ti;

    for (unsigned i = 0; i < s->channels; i++)
        if (tcp_info(s->data[i], &ti))
            queued += ti.tcpi_notsent_bytes + (uint64_t)ti.tcpi_unacked * ti.tcpi_snd_mss;
    if (rate == 0 && round_bytes > queued && round_us > 0) /* nothing was measured before */
        rate = (uint64_t)((double)(round_bytes - queued) * 1e6 / (double)round_us);
    return rate > 0 ? (uint64_t)((double)queued * 1e6 / (double)rate) : 0;
}

static void note_trip(struct source *s, uint64_t ack_us, uint64_t drain)
{
    uint64_t us = ack_us > drain ? ack_us - drain : 0;
    struct tcp_info ti;

    if (tcp_info(s->msg, &ti) && us < ti.tcpi_rtt)
        us = ti.tcpi_rtt < ack_us ? ti.tcpi_rtt : ack_us;
    if (s->ack_min_us == 0 || us < s->ack_min_us)
        s->ack_min_us = us + 1;
}

static int end_of_round(struct source *s, uint64_t round_began, struct err *e)
{
    Migrd__Session m = MIGRD__SESSION__INIT, *answer;
    Migrd__RoundEnd end = MIGRD__ROUND_END__INIT;
    struct pages_total c;
    uint64_t began = clock_ns(), drain;
    int r = 0;

    sender_count(s->sender, &c);
    drain = drain_us(s, c.bytes - s->round_start.bytes, (began - round_began) / NS_PER_US);
    end.round = s->round;
    end.frames = c.frames;
    end.wire_bytes = c.bytes;
    m.body_case = MIGRD__SESSION__BODY_ROUND_END;
    m.round_end = &end;
    if (tr_send(s->msg, &m, e) < 0 ||
        expect(s->msg, MIGRD__SESSION__BODY_ROUND_ACK, 0, &answer, e) < 0) {
        if (ctl_ended(s->ctl, e))
            return -1;
        return err_prefix(e, "round %u", s->round);
    }
    if (answer->round_ack->round != s->round || answer->round_ack->frames != c.frames)
        r = err_set(e, ERR_PROTOCOL, "round %u: the target acknowledges something else", s->round);
    migrd__session__free_unpacked(answer, NULL);
    note_trip(s, (clock_ns() - began) / NS_PER_US, drain);
    return r;
}

static Migrd__RoundReport *next_report(struct source *s)
{
    Migrd__RoundReport *r;

    if (s->n_report == SOURCE_ROUNDS_KEPT) { /* the first is the most telling: keep it */
        memmove(&s->report[1], &s->report[2], (SOURCE_ROUNDS_KEPT - 2) * sizeof s->report[0]);
        s->n_report--;
    }
    r = &s->report[s->n_report];
    migrd__round_report__init(r);
    s->report_ptr[s->n_report++] = r;
    return r;
}

/* Reports move when there are too many, their counters stay: one place for round 0, which is kept,
 * the others in turn. */
void source_round_counts(struct source *s, Migrd__RoundReport *r, const struct pages_total *now)
{
    unsigned i = s->round == 0 ? 0 : 1 + (s->round - 1) % SOURCE_ROUNDS_KEPT;

    r->n_encodings = encodings_count(&s->report_counts[i], now, &s->round_start);
    r->encodings = s->report_counts[i].ptr;
}

static void account(struct source *s, uint64_t began, uint64_t dirty, struct policy_round *out)
{
    Migrd__RoundReport *r = next_report(s);
    struct pages_total c;

    sender_count(s->sender, &c);
    r->round = s->round;
    r->pages = c.sent - s->round_start.sent;
    r->zero = c.zero - s->round_start.zero;
    r->skipped = c.skipped - s->round_start.skipped;
    r->bytes = c.bytes - s->round_start.bytes;
    r->duration_us = (clock_ns() - began) / NS_PER_US;
    r->dirty_after = dirty;
    r->throttle = s->throttle;
    source_round_counts(s, r, &c);
    *out = (struct policy_round){ .pages_sent = r->pages,
        .pages_zero = r->zero,
        .pages_skipped = r->skipped,
        .bytes = r->bytes,
        .duration_us = r->duration_us,
        .dirty_pages = dirty,
        .elapsed_us = (clock_ns() - s->began_ns) / NS_PER_US,
        .tail_bytes = c.bytes - s->sample[0].bytes,
        .tail_us = (clock_ns() - s->sample[0].at_ns) / NS_PER_US };
    log_debug("precopy",
        "round %u: %" PRIu64 " pages, %" PRIu64 " zero, %" PRIu64 " skipped, %" PRIu64
        " us, dirty %" PRIu64,
        r->round, r->pages, r->zero, r->skipped, r->duration_us, dirty);
}

static void lose_one(struct source *s, uint64_t *bitmap, const char *point)
{
    uint64_t n = bitmap_count(bitmap, s->at.words), skip;

    if (n == 0 || !FAULT(point))
        return;
    skip = s->seed % n;
    for (size_t i = 0; i < s->at.words; i++)
        for (uint64_t left = bitmap[i]; left != 0; left &= left - 1)
            if (skip-- == 0) {
                bitmap[i] &= ~(left & -left);
                log_warn("fault", "the dirty bit of frame %#zx is lost",
                    i * 64 + (unsigned)__builtin_ctzll(left));
                return;
            }
}

int source_collect(struct source *s, uint64_t *bitmap, const char *point, struct err *e)
{
    if (s->at.ops->dirty_collect(s->at.mig, bitmap, e) < 0)
        return -1;
    lose_one(s, bitmap, point);
    bitmap_or(s->harvest, bitmap, s->at.words);
    return 0;
}

static int collect(struct source *s, struct err *e)
{
    char point[48];

    snprintf(point, sizeof point, "source-round-%u-lose-dirty", s->round);
    memset(s->next, 0, s->at.words * sizeof *s->next);
    return source_collect(s, s->next, point, e);
}

static int obey(struct source *s, struct err *e)
{
    const struct policy_decision *d = &s->decision;

    if (d->reason[0] != '\0')
        log_info("precopy", "%s: round %u: %s: %s", s->start->domain->name, s->round,
            policy_action_name(d->action), d->reason);
    source_progress(s, d->reason);
    switch (d->action) {
    case POLICY_GIVE_UP:
        return err_set(e, ERR_RESOURCE, "%s", d->reason);
    case POLICY_THROTTLE:
        s->throttle = d->throttle;
        return s->at.ops->throttle(s->at.mig, d->throttle, e);
    case POLICY_CONTINUE:
    case POLICY_STOP:
    case POLICY_ACTION_MAX:
        break;
    }
    return 0;
}

/* One round and the decision after it. */
static int one_round(struct source *s, uint64_t *began, struct err *e)
{
    struct policy_round r;
    uint64_t *swap = s->work, now;
    char point[40];

    source_send_round(s, true, false);
    snprintf(point, sizeof point, "source-round-%u", s->round);
    if (FAULT(point))
        return err_set(e, ERR_INTERNAL, "fault point %s", point);
    if (source_wait_round(s, true, e) < 0 || end_of_round(s, *began, e) < 0 || collect(s, e) < 0)
        return -1;
    now = clock_ns();
    source_forecast(s, s->next, s->first_round_ns, true);
    account(s, *began, bitmap_count(s->next, s->at.words), &r);
    *began = now;
    snprintf(point, sizeof point, "source-round-%u-end", s->round);
    if (FAULT(point))
        return err_set(e, ERR_INTERNAL, "fault point %s", point);
    take_params(s);
    policy_set_fixed(&s->policy, POLICY_FIXED_BASE_US + POLICY_FIXED_TRIPS * s->ack_min_us);
    policy_round(&s->policy, &r, &s->decision);
    heed_stop(s);
    s->work = s->next;
    s->next = swap;
    s->round++;
    s->round_pages = r.dirty_pages;
    return obey(s, e);
}

static void init_policy(struct source *s)
{
    struct policy_params p = { .budget_us = (uint64_t)s->par->pause_budget_ms * 1000,
        .time_limit_us = (uint64_t)s->par->time_limit_s * 1000000,
        .max_rounds = s->par->max_rounds,
        .throttle_max = s->par->throttle_max,
        .bandwidth_cap = s->par->bandwidth,
        .live = s->par->live && !s->was_paused };

    policy_init(&s->policy, &p);
    take_params(s);
    policy_begin(&s->policy, &s->decision);
    heed_stop(s);
}

int source_rounds(struct source *s, struct err *e)
{
    uint64_t began;

    s->phase = MIGRD__PHASE__PHASE_PRECOPY;
    init_policy(s);
    if (obey(s, e) < 0)
        return -1;
    if (s->decision.action == POLICY_STOP)
        return 0;
    if (s->at.ops->dirty_start(s->at.mig, e) < 0)
        return -1;
    s->log_on = true;
    if (s->at.ops->mig_populated(s->at.mig, s->work, e) < 0)
        return -1;
    memcpy(s->known, s->work, s->at.words * sizeof *s->known);
    s->populated = bitmap_count(s->work, s->at.words);
    began = s->first_round_ns = clock_ns();
    do {
        if (one_round(s, &began, e) < 0)
            return -1;
    } while (s->decision.action != POLICY_STOP);
    return 0;
}
