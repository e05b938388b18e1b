/* SPDX-License-Identifier: ISC */
/*
 * The target worker, from TargetStart to Finished. What comes -> what is done:
 *
 *   the socket     TLS, certificate against the name that the acl saw
 *   Query          QuerySeen -> QueryVerdict; QueryReply; end
 *   FactsQuery     FactsSeen -> FactsVerdict; HostFacts; end
 *   Offer          limits; OfferSeen -> OfferVerdict: migrd has journalled PREPARED and
 *                  started the incoming domain; Accept; data channels; sandbox
 *   RoundEnd       when all channels have ended the round: RoundAck; of the first one not
 *                  before the incoming domain has its devices
 *   FinalState     all channels ended; digest of the stream compared; state loaded
 *   MemoryDigests  hashed here too, compared
 *   (last of them) WantReady -> StepOk; Ready
 *   Go             GoReceived -> StepOk (migrd journalled RUNNING, resumed); Running
 *
 * Only migrd ever resumes the guest here. A failure before Ready was sent means that
 * this copy is worthless: Finished{phase=PRECOPY or PAUSED}. After it the copy is
 * complete and the source may have committed: Finished{phase=COMMITTED}, and migrd has
 * to learn from the source, the log or an operator. Cancel counts until Go came.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"
#include "precopy/encodings.h"
#include "precopy/receiver.h"
#include "precopy/steps.h"
#include "precopy/verify.h"
#include "precopy/worker_internal.h"
#include "transport/digest.h"

#define OFFER_MS 10000
#define CHANNELS_MS 20000
#define ROUND_LATE_MS 60000 /* a RoundEnd may overtake the pages of its round by that much */
#define DEVICES_MS 60000    /* hotplug scripts have so long */
#define PROGRESS_NS NS_PER_S
#define SLICE_NS (250 * NS_PER_MS)
#define PING_NS NS_PER_S

#define ROUND_ALL UINT64_MAX /* the end of all rounds */

enum stage { ST_ROUNDS, ST_DIGESTS, ST_READY, ST_DONE, ST_MAX };

struct target {
    struct ctl *ctl;
    const Migrd__TargetStart *start;
    const struct worker_options *opt;
    uint64_t began_ns;

    struct tr_tls *tls;
    struct tr_conn *msg, *data[TR_CHANNELS_MAX];
    unsigned channels;
    char cipher[128];

    Migrd__Session *first;    /* the offer or query */
    Migrd__ToWorker *verdict; /* migrd's on an offer; NULL: none came */
    struct attach at;
    struct receiver *rx;
    struct err rx_err;

    enum stage stage;
    Migrd__Phase phase;
    uint32_t round;
    uint64_t epoch, verified_pages, digest;
    uint64_t next_progress_ns;
    struct steps steps;
    uint64_t compare_ns; /* that comparing has taken so far */
};

/* --- the first message --- */

static int check_name(const struct target *t, const struct tr_conn *c, struct err *e)
{
    const Migrd__TargetStart *st = t->start;

    if (!st->check_peer_name || t->tls == NULL)
        return 0;
    if ((st->peer_name[0] != '\0' && tr_peer_has_name(c, st->peer_name)) ||
        tr_peer_has_name(c, st->peer_address))
        return 0;
    return err_set(e, ERR_REFUSED,
        "the certificate of \"%s\" is not valid for the host it comes from, %s (%s)",
        tr_peer_name(c), st->peer_name, st->peer_address);
}

static int accept_one(struct target *t, int fd, bool data, struct tr_conn **out, struct err *e)
{
    struct tr_options opt = {
        .tls = t->tls, .dead_peer_ms = t->start->dead_peer_ms, .patient = data
    };

    if (tr_accept(fd, &opt, out, e) < 0)
        return -1;
    ctl_watch(t->ctl, *out);
    return check_name(t, *out, e);
}

static int greet(struct target *t, int fd, struct err *e)
{
    if (worker_tls(t->start->tls, &t->tls, e) < 0) {
        io_close(&fd);
        return -1;
    }
    if (accept_one(t, fd, false, &t->msg, e) < 0)
        return -1;
    snprintf(t->cipher, sizeof t->cipher, "%s", tr_cipher(t->msg));
    return tr_recv(t->msg, OFFER_MS, &t->first, e);
}

/* --- query --- */

static int ask_verdict(
    struct target *t, const Migrd__Query *q, Migrd__ToWorker **out, struct err *e)
{
    Migrd__FromWorker m = MIGRD__FROM_WORKER__INIT;
    Migrd__QuerySeen seen = MIGRD__QUERY_SEEN__INIT;

    if (strlen(q->migration) >= HV_UUID_LEN || strlen(q->domain_uuid) >= HV_UUID_LEN)
        return err_set(e, ERR_PROTOCOL, "the query names no migration");
    seen.migration = q->migration;
    seen.domain_uuid = q->domain_uuid;
    seen.epoch = q->epoch;
    seen.go = q->go;
    seen.abort = q->abort;
    seen.ha = q->ha;
    seen.peer_cert = (char *)tr_peer_name(t->msg);
    m.body_case = MIGRD__FROM_WORKER__BODY_QUERY;
    m.query = &seen;
    if (ctl_send(t->ctl, &m, e) < 0)
        return -1;
    return ctl_wait(t->ctl, MIGRD__TO_WORKER__BODY_QUERY_VERDICT,
        clock_ns() + VERDICT_MS * NS_PER_MS, out, NULL, e);
}

static int answer_query(struct target *t, const Migrd__Query *q, struct err *e)
{
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__QueryReply reply = MIGRD__QUERY_REPLY__INIT;
    Migrd__ToWorker *v;
    int r;

    if (ask_verdict(t, q, &v, e) < 0)
        return -1;
    reply.outcome = (Migrd__Outcome)v->query_verdict->outcome;
    reply.epoch = v->query_verdict->epoch;
    reply.text = v->query_verdict->text;
    reply.host = t->start->own_name;
    m.body_case = MIGRD__SESSION__BODY_QUERY_REPLY;
    m.query_reply = &reply;
    r = tr_send(t->msg, &m, e);
    migrd__to_worker__free_unpacked(v, NULL);
    t->phase = MIGRD__PHASE__PHASE_DONE;
    return r;
}

/* --- offer --- */

static int obey_verdict(
    struct target *t, const Migrd__Offer *o, const Migrd__OfferVerdict *v, struct err *e)
{
    unsigned most = t->start->channels_max == 0 ? TR_CHANNELS_MAX : t->start->channels_max;

    if (!v->ok)
        return migrd_said(v->code, v->text, e);
    if (attach_open(&t->at, t->opt, t->start->hypervisor, t->start->run_dir, t->start->log_dir, e) <
            0 ||
        attach_domain(&t->at, v->uuid, HV_TARGET, e) < 0 || offer_layout(o, &t->at.layout, e) < 0)
        return -1;
    t->channels = v->channels != 0 && v->channels < o->channels ? v->channels : o->channels;
    if (t->at.layout.stream)
        t->channels = 1;
    if (t->channels > most)
        t->channels = most;
    if (t->channels > TR_CHANNELS_MAX)
        t->channels = TR_CHANNELS_MAX;
    return 0;
}

static int prepare(struct target *t, struct err *e)
{
    Migrd__Offer *o = t->first->offer;

    if (offer_check(o, true, e) < 0)
        return -1;
    t->epoch = o->epoch;
    if (send_offer_seen(t->ctl, o, tr_peer_name(t->msg), false, e) < 0 ||
        ctl_wait(t->ctl, MIGRD__TO_WORKER__BODY_OFFER_VERDICT, clock_ns() + VERDICT_MS * NS_PER_MS,
            &t->verdict, NULL, e) < 0)
        return -1;
    return obey_verdict(t, o, t->verdict->offer_verdict, e);
}

/* What was checked, if that is why it is refused. */
static const Migrd__CheckReport *refused_by(const struct target *t)
{
    const Migrd__OfferVerdict *v = t->verdict != NULL ? t->verdict->offer_verdict : NULL;

    return v != NULL && !v->ok ? v->report : NULL;
}

static int send_accept(struct target *t, struct err *e)
{
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__Accept a = MIGRD__ACCEPT__INIT;

    a.session = t->start->session;
    a.channels = t->channels;
    a.target_host = t->start->own_name;
    a.encodings = t->first->offer->encodings & FRAME_EVERY;
    a.report = t->verdict->offer_verdict->report;
    m.body_case = MIGRD__SESSION__BODY_ACCEPT;
    m.accept = &a;
    return tr_send(t->msg, &m, e);
}

/* Waits in slices, so that a source that went away meanwhile is not waited for. */
static int await_channel(
    struct target *t, uint64_t deadline, Migrd__ToWorker **m, int *fd, struct err *e)
{
    for (;;) {
        uint64_t now = clock_ns(), next = now + SLICE_NS < deadline ? now + SLICE_NS : deadline;
        struct pollfd p = { .fd = tr_fd(t->msg), .events = POLLRDHUP };
        struct err w = { 0 };

        if (ctl_wait(t->ctl, MIGRD__TO_WORKER__BODY_CHANNEL, next, m, fd, &w) == 0)
            return 0;
        if (w.code != ERR_TIMEOUT)
            return err_set(e, w.code, "%s", w.text);
        if (poll(&p, 1, 0) > 0)
            return err_set(e, ERR_PEER, "the source went away before its data channels came");
        if (clock_ns() >= deadline)
            return err_set(e, ERR_TIMEOUT, "the source's data channels did not come in time");
    }
}

static int take_channel(struct target *t, uint64_t deadline, struct err *e)
{
    Migrd__ToWorker *m;
    unsigned n;
    int fd;

    if (await_channel(t, deadline, &m, &fd, e) < 0)
        return -1;
    n = m->channel->channel;
    migrd__to_worker__free_unpacked(m, NULL);
    if (n == 0 || n > t->channels || t->data[n - 1] != NULL || fd < 0) {
        io_close(&fd);
        return err_set(e, ERR_PROTOCOL, "data channel %u is not wanted", n);
    }
    if (accept_one(t, fd, true, &t->data[n - 1], e) < 0)
        return err_prefix(e, "data channel %u", n);
    if (strcmp(tr_peer_name(t->data[n - 1]), tr_peer_name(t->msg)) != 0)
        return err_set(e, ERR_REFUSED, "data channel %u comes with another certificate", n);
    return 0;
}

static int take_channels(struct target *t, struct err *e)
{
    uint64_t deadline = clock_ns() + CHANNELS_MS * NS_PER_MS;

    for (unsigned i = 0; i < t->channels; i++)
        if (take_channel(t, deadline, e) < 0)
            return -1;
    if (enter_sandbox(t->opt, e) < 0)
        return -1;
    t->rx = receiver_new(t->at.ops, t->at.mig, &t->at.layout, t->data, t->channels,
        t->first->offer->encodings & FRAME_EVERY, t->msg, e);
    return t->rx == NULL ? -1 : 0;
}

/* --- the stream --- */

static void progress(struct target *t)
{
    Migrd__FromWorker m = MIGRD__FROM_WORKER__INIT;
    Migrd__Progress p = MIGRD__PROGRESS__INIT;
    struct pages_total c;
    uint64_t now = clock_ns();

    if (now < t->next_progress_ns)
        return;
    t->next_progress_ns = now + PROGRESS_NS;
    receiver_count(t->rx, &c);
    p.phase = t->phase;
    p.round = t->round;
    p.pages_total = t->first->offer->populated_pages;
    p.pages_sent = c.sent;
    p.pages_zero = c.zero;
    p.wire_bytes = c.bytes;
    p.elapsed_ms = (now - t->began_ns) / NS_PER_MS;
    p.note = (char *)"";
    m.body_case = MIGRD__FROM_WORKER__BODY_PROGRESS;
    m.progress = &p;
    ctl_send(t->ctl, &m, NULL);
}

/* The source waits for us meanwhile: it hears a ping each second. `round` may be ROUND_ALL. */
static int await_pages(struct target *t, uint64_t round, struct err *e)
{
    uint64_t deadline = clock_ns() + ROUND_LATE_MS * NS_PER_MS;
    struct err w = { 0 };
    int r;

    do {
        uint64_t next = clock_ns() + PING_NS;

        r = round == ROUND_ALL ? receiver_wait_end(t->rx, next, &w)
                               : receiver_wait_round(t->rx, (uint32_t)round, next, &w);
        if (r < 0 && w.code == ERR_TIMEOUT)
            tr_ping(t->msg, NULL);
    } while (r < 0 && w.code == ERR_TIMEOUT && !receiver_failed(t->rx, &w) &&
             clock_ns() < deadline && !ctl_ended(t->ctl, &w));
    return r < 0 ? err_set(e, w.code, "%s", w.text) : 0;
}

/* The source waits for us meanwhile, as in await_pages. */
static int await_devices(struct target *t, struct err *e)
{
    uint64_t deadline = clock_ns() + DEVICES_MS * NS_PER_MS;
    struct err w = { 0 };
    int r;

    if (t->at.ops->mig_settle == NULL)
        return 0;
    while ((r = t->at.ops->mig_settle(t->at.mig, clock_ns() + PING_NS, &w)) < 0 &&
           w.code == ERR_TIMEOUT && clock_ns() < deadline && !ctl_ended(t->ctl, &w))
        tr_ping(t->msg, NULL);
    return r < 0 ? err_set(e, w.code, "%s", w.text) : 0;
}

static int on_round_end(struct target *t, const Migrd__RoundEnd *end, struct err *e)
{
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__RoundAck ack = MIGRD__ROUND_ACK__INIT;
    struct pages_total c;

    if (t->stage != ST_ROUNDS || end->round != t->round)
        return err_set(
            e, ERR_PROTOCOL, "round %u ends where round %u was under way", end->round, t->round);
    if (await_pages(t, end->round, e) < 0)
        return -1;
    receiver_count(t->rx, &c);
    if (c.frames != end->frames)
        return err_set(e, ERR_INTEGRITY, "round %u: %" PRIu64 " frames came, %" PRIu64 " were sent",
            end->round, c.frames, end->frames);
    if (t->round == 0 && await_devices(t, e) < 0)
        return -1;
    ack.round = end->round;
    ack.frames = c.frames;
    m.body_case = MIGRD__SESSION__BODY_ROUND_ACK;
    m.round_ack = &ack;
    t->round++;
    progress(t);
    return tr_send(t->msg, &m, e);
}

static void step(struct target *t, const char *name, uint64_t since)
{
    steps_target(&t->steps, name, (clock_ns() - since) / NS_PER_US);
}

static int on_final_state(struct target *t, const Migrd__FinalState *f, struct err *e)
{
    struct pages_total c;
    uint64_t began = clock_ns();

    if (t->stage != ST_ROUNDS)
        return err_set(e, ERR_PROTOCOL, "the final state came twice");
    t->phase = MIGRD__PHASE__PHASE_PAUSED;
    if (f->state.len > HV_STATE_MAX)
        return err_set(e, ERR_PROTOCOL, "the final state is %zu bytes long", f->state.len);
    if (await_pages(t, ROUND_ALL, e) < 0)
        return -1;
    step(t, "last-pages", began);
    receiver_count(t->rx, &c);
    t->digest = receiver_digest(t->rx);
    if (c.frames != f->frames || t->digest != f->sent_digest)
        return err_set(e, ERR_INTEGRITY,
            "what came differs from what was sent (%" PRIu64 " frames of %" PRIu64 ")", c.frames,
            f->frames);
    began = clock_ns();
    if (t->at.ops->state_load(t->at.mig, f->state.data, f->state.len, e) < 0)
        return -1;
    step(t, "state-load", began);
    if (FAULT("target-loaded"))
        return err_set(e, ERR_INTERNAL, "fault point target-loaded");
    t->stage = ST_DIGESTS;
    return 0;
}

/* --- digests --- */

static bool in_layout(const struct hv_layout *l, uint64_t gfn, uint64_t pages)
{
    for (unsigned i = 0; i < l->n; i++)
        if (gfn >= l->region[i].gfn && gfn - l->region[i].gfn < l->region[i].pages)
            return pages <= l->region[i].pages - (gfn - l->region[i].gfn);
    return false;
}

static int copy_ranges(struct target *t, const Migrd__MemoryDigests *d, struct verify_range *theirs,
    struct verify_range *ours, struct err *e)
{
    if (d->n_ranges > VERIFY_MESSAGE_RANGES)
        return err_set(e, ERR_PROTOCOL, "%zu digests in one message", d->n_ranges);
    for (size_t i = 0; i < d->n_ranges; i++) {
        const Migrd__DigestRange *r = d->ranges[i];

        if (r->pages == 0 || r->pages > TR_DIGEST_PAGES ||
            !in_layout(&t->at.layout, r->gfn, r->pages))
            return err_set(e, ERR_PROTOCOL, "a digest is of memory that the guest has not");
        theirs[i] = (struct verify_range){ r->gfn, (uint32_t)r->pages, r->low, r->high };
        ours[i] = theirs[i];
    }
    return 0;
}

static int compare(struct target *t, const Migrd__MemoryDigests *d, struct err *e)
{
    struct verify_range theirs[VERIFY_MESSAGE_RANGES], ours[VERIFY_MESSAGE_RANGES];
    uint64_t bad, began = clock_ns();
    char where[200];

    if (copy_ranges(t, d, theirs, ours, e) < 0 ||
        verify_hash(t->at.ops, t->at.mig, ours, d->n_ranges, e) < 0)
        return -1;
    for (size_t i = 0; i < d->n_ranges; i++)
        t->verified_pages += ours[i].pages;
    bad = verify_compare(theirs, ours, d->n_ranges, where, sizeof where);
    t->compare_ns += clock_ns() - began;
    if (bad > 0)
        return err_set(e, ERR_INTEGRITY,
            "memory differs after the transfer in ranges of %" PRIu64 " pages: %s", bad, where);
    return 0;
}

static int become_ready(struct target *t, struct err *e)
{
    Migrd__FromWorker ask = MIGRD__FROM_WORKER__INIT;
    Migrd__WantReady want = MIGRD__WANT_READY__INIT;
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__Ready ready = MIGRD__READY__INIT;
    struct step_answer answer;
    uint64_t began = clock_ns();

    if (FAULT("target-before-ready"))
        return err_set(e, ERR_INTERNAL, "fault point target-before-ready");
    want.epoch = t->epoch;
    ask.body_case = MIGRD__FROM_WORKER__BODY_WANT_READY;
    ask.want_ready = &want;
    if (ask_migrd(t->ctl, t->msg, &ask, &answer, e) < 0)
        return -1;
    steps_target(&t->steps, "compare", t->compare_ns / NS_PER_US);
    step(t, "note-ready", began);
    ready.epoch = t->epoch;
    ready.received_digest = t->digest;
    m.body_case = MIGRD__SESSION__BODY_READY;
    m.ready = &ready;
    t->stage = ST_READY;
    t->phase = MIGRD__PHASE__PHASE_COMMITTED; /* may be, from now on */
    if (tr_send(t->msg, &m, e) < 0)
        return -1;
    if (FAULT("target-after-ready"))
        return err_set(e, ERR_INTERNAL, "fault point target-after-ready");
    return 0;
}

static int on_digests(struct target *t, const Migrd__MemoryDigests *d, struct err *e)
{
    if (t->stage != ST_DIGESTS)
        return err_set(e, ERR_PROTOCOL, "digests of memory came at the wrong time");
    if (compare(t, d, e) < 0)
        return -1;
    tr_ping(t->msg, NULL);
    return d->last ? become_ready(t, e) : 0;
}

/* --- go --- */

static int on_go(struct target *t, const Migrd__Go *go, struct err *e)
{
    Migrd__FromWorker ask = MIGRD__FROM_WORKER__INIT;
    Migrd__GoReceived got = MIGRD__GO_RECEIVED__INIT;
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__Running running = MIGRD__RUNNING__INIT;
    struct steps_store store;
    struct step_answer answer;
    uint64_t began = clock_ns();

    if (t->stage != ST_READY || go->epoch != t->epoch)
        return err_set(
            e, ERR_PROTOCOL, "GO for epoch %" PRIu64 " came at the wrong time", go->epoch);
    if (!ctl_hold(t->ctl, e))
        return -1;
    if (FAULT("target-after-go"))
        return err_set(e, ERR_INTERNAL, "fault point target-after-go");
    got.epoch = t->epoch;
    ask.body_case = MIGRD__FROM_WORKER__BODY_GO_RECEIVED;
    ask.go_received = &got;
    if (ask_migrd(t->ctl, t->msg, &ask, &answer, e) < 0)
        return -1;
    steps_target(&t->steps, "journal", answer.journal_us);
    steps_target(&t->steps, "resume", answer.resume_us);
    if (FAULT("target-after-running"))
        return err_set(e, ERR_INTERNAL, "fault point target-after-running");
    running.epoch = t->epoch;
    running.resume_us = (clock_ns() - began) / NS_PER_US;
    steps_give(&t->steps, &store, &running);
    m.body_case = MIGRD__SESSION__BODY_RUNNING;
    m.running = &running;
    t->stage = ST_DONE;
    t->phase = MIGRD__PHASE__PHASE_DONE;
    if (tr_send(t->msg, &m, NULL) < 0)
        log_warn("precopy", "the source went away before it could learn that the guest runs here");
    return 0;
}

static int dispatch(struct target *t, const Migrd__Session *m, struct err *e)
{
    switch (m->body_case) {
    case MIGRD__SESSION__BODY_ROUND_END:
        return on_round_end(t, m->round_end, e);
    case MIGRD__SESSION__BODY_FINAL_STATE:
        return on_final_state(t, m->final_state, e);
    case MIGRD__SESSION__BODY_MEMORY_DIGESTS:
        return on_digests(t, m->memory_digests, e);
    case MIGRD__SESSION__BODY_GO:
        return on_go(t, m->go, e);
    case MIGRD__SESSION__BODY_REFUSE:
        return tr_refused(t->msg, m->refuse, e);
    case MIGRD__SESSION__BODY__NOT_SET:
    case MIGRD__SESSION__BODY_OFFER:
    case MIGRD__SESSION__BODY_ACCEPT:
    case MIGRD__SESSION__BODY_ROUND_ACK:
    case MIGRD__SESSION__BODY_READY:
    case MIGRD__SESSION__BODY_RUNNING:
    case MIGRD__SESSION__BODY_QUERY:
    case MIGRD__SESSION__BODY_QUERY_REPLY:
    case MIGRD__SESSION__BODY_PING:
    case MIGRD__SESSION__BODY_PONG:
    case MIGRD__SESSION__BODY_DRY_RUN:
    case MIGRD__SESSION__BODY_PROBE:
    case MIGRD__SESSION__BODY_PROBE_ACK:
    case MIGRD__SESSION__BODY_FACTS_QUERY:
    case MIGRD__SESSION__BODY_FACTS:
    default:
        return err_set(
            e, ERR_PROTOCOL, "message of kind %d came at the wrong time", (int)m->body_case);
    }
}

static int receive(struct target *t, struct err *e)
{
    while (t->stage != ST_DONE) {
        Migrd__Session *m;
        int r = tr_recv(t->msg, 0, &m, e);

        if (r == 0) {
            r = dispatch(t, m, e);
            migrd__session__free_unpacked(m, NULL);
        }
        if (r < 0)
            return -1;
    }
    return 0;
}

static int migration(struct target *t, struct err *e)
{
    if (FAULT("target-offer"))
        return err_set(e, ERR_INTERNAL, "fault point target-offer");
    if (prepare(t, e) < 0)
        return -1;
    t->phase = MIGRD__PHASE__PHASE_PRECOPY;
    if (send_accept(t, e) < 0 || take_channels(t, e) < 0)
        return -1;
    return receive(t, e);
}

/* --- the end --- */

static void report(struct target *t, const struct pages_total *c, const struct err *e)
{
    Migrd__Finished f = MIGRD__FINISHED__INIT;
    struct encoding_counts counts;

    f.phase = t->phase;
    f.total_us = (clock_ns() - t->began_ns) / NS_PER_US;
    f.wire_bytes = c->bytes;
    f.pages_sent = c->sent;
    f.pages_zero = c->zero;
    f.n_encodings = encodings_count(&counts, c, NULL);
    f.encodings = counts.ptr;
    f.verified_pages = e == NULL ? t->verified_pages : 0;
    f.cipher = t->cipher;
    f.channels = t->channels;
    f.n_pause_steps = t->steps.n;
    f.pause_steps = t->steps.ptr;
    send_finished(t->ctl, &f, e);
}

static void close_connections(struct target *t)
{
    for (unsigned i = 0; i < TR_CHANNELS_MAX; i++) {
        if (t->data[i] == NULL)
            continue;
        ctl_unwatch(t->ctl, t->data[i]);
        tr_close(&t->data[i]);
    }
    if (t->msg != NULL) {
        ctl_unwatch(t->ctl, t->msg);
        tr_close(&t->msg);
    }
    tr_tls_free(&t->tls);
}

/* The cause rather than its effect: a cancel or a dead channel aborts the message channel too. */
static void find_cause(struct target *t, struct err *e)
{
    if (ctl_ended(t->ctl, e))
        return;
    if (t->rx != NULL)
        receiver_failed(t->rx, e);
}

int target_run(
    struct ctl *ctl, const Migrd__TargetStart *start, int fd, const struct worker_options *opt)
{
    struct target t = { .ctl = ctl, .start = start, .opt = opt, .began_ns = clock_ns() };
    struct pages_total c = { 0 };
    struct err e = { 0 };
    int r;

    t.phase = MIGRD__PHASE__PHASE_CONNECT;
    r = greet(&t, fd, &e);
    if (r == 0 && t.first->body_case == MIGRD__SESSION__BODY_OFFER)
        r = migration(&t, &e);
    else if (r == 0 && t.first->body_case == MIGRD__SESSION__BODY_QUERY)
        r = answer_query(&t, t.first->query, &e);
    else if (r == 0 && t.first->body_case == MIGRD__SESSION__BODY_DRY_RUN)
        r = dry_target_run(ctl, t.msg, t.first->dry_run, start->own_name, &t.verdict, &e);
    else if (r == 0 && t.first->body_case == MIGRD__SESSION__BODY_FACTS_QUERY)
        r = facts_answer(ctl, t.msg, t.first->facts_query, &e);
    else if (r == 0)
        r = err_set(
            &e, ERR_PROTOCOL, "the source began with message kind %d", (int)t.first->body_case);
    if (r < 0) {
        find_cause(&t, &e);
        if (t.msg != NULL)
            send_refuse(t.msg, &e, refused_by(&t));
        log_warn("precopy", "incoming migration failed: %s", e.text);
    }
    if (t.rx != NULL)
        receiver_count(t.rx, &c);
    receiver_free(&t.rx);
    attach_close(&t.at);
    report(&t, &c, r < 0 ? &e : NULL);
    close_connections(&t);
    if (t.verdict != NULL)
        migrd__to_worker__free_unpacked(t.verdict, NULL);
    if (t.first != NULL)
        migrd__session__free_unpacked(t.first, NULL);
    return r;
}
