/* SPDX-License-Identifier: ISC */
/*
 * A dry run, at the target: the offer goes to migrd, which makes every check of a real one but
 * reserves, builds and journals nothing; then probes are taken until the source hangs up.
 *
 * Bounded by itself, whatever the source does: LIMIT_MS in all, LIMIT_BYTES of filler.
 */
#include <inttypes.h>

#include "base/clock.h"
#include "precopy/worker_internal.h"

#define LIMIT_MS 30000
#define LIMIT_BYTES (UINT64_C(128) << 20)

static int ask_migrd_of(struct ctl *ctl, const Migrd__Offer *o, const char *cert, struct err *e)
{
    Migrd__ToWorker *m;
    const Migrd__OfferVerdict *v;
    int r = 0;

    if (send_offer_seen(ctl, o, cert, true, e) < 0 ||
        ctl_wait(ctl, MIGRD__TO_WORKER__BODY_OFFER_VERDICT, clock_ns() + VERDICT_MS * NS_PER_MS, &m,
            NULL, e) < 0)
        return -1;
    v = m->offer_verdict;
    if (!v->ok)
        r = migrd_said(v->code, v->text, e);
    migrd__to_worker__free_unpacked(m, NULL);
    return r;
}

static int accept_it(struct tr_conn *c, const Migrd__Offer *o, const char *own_name, struct err *e)
{
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__Accept a = MIGRD__ACCEPT__INIT;

    a.channels = o->channels < TR_CHANNELS_MAX ? o->channels : TR_CHANNELS_MAX;
    a.target_host = (char *)(uintptr_t)own_name;
    m.body_case = MIGRD__SESSION__BODY_ACCEPT;
    m.accept = &a;
    return tr_send(c, &m, e);
}

struct probes {
    uint64_t total, bytes, cpu_ns; /* of all; since the last answer */
};

static int answer(struct tr_conn *c, struct probes *s, uint32_t number, struct err *e)
{
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__ProbeAck ack = MIGRD__PROBE_ACK__INIT;
    uint64_t now = clock_cpu_ns();

    ack.number = number;
    ack.bytes = s->bytes;
    ack.cpu_us = (now - s->cpu_ns) / NS_PER_US;
    s->bytes = 0;
    s->cpu_ns = now;
    m.body_case = MIGRD__SESSION__BODY_PROBE_ACK;
    m.probe_ack = &ack;
    return tr_send(c, &m, e);
}

static int take(struct tr_conn *c, const Migrd__Session *m, struct probes *s, struct err *e)
{
    if (m->body_case == MIGRD__SESSION__BODY_REFUSE)
        return tr_refused(c, m->refuse, e);
    if (m->body_case != MIGRD__SESSION__BODY_PROBE)
        return err_set(
            e, ERR_PROTOCOL, "message of kind %d came during a dry run", (int)m->body_case);
    s->bytes += m->probe->filler.len;
    s->total += m->probe->filler.len;
    if (s->total > LIMIT_BYTES)
        return err_set(
            e, ERR_PROTOCOL, "a dry run may not send more than %" PRIu64 " bytes", LIMIT_BYTES);
    return m->probe->last ? answer(c, s, m->probe->number, e) : 0;
}

int dry_target_run(
    struct ctl *ctl, struct tr_conn *c, const Migrd__Offer *o, const char *own_name, struct err *e)
{
    uint64_t deadline = clock_ns() + LIMIT_MS * NS_PER_MS, now;
    struct probes s = { .cpu_ns = clock_cpu_ns() };

    if (offer_check(o, false, e) < 0 || ask_migrd_of(ctl, o, tr_peer_name(c), e) < 0 ||
        accept_it(c, o, own_name, e) < 0)
        return -1;
    while ((now = clock_ns()) < deadline) {
        struct err gone = { 0 };
        Migrd__Session *m;
        int r;

        if (tr_recv(c, (unsigned)((deadline - now) / NS_PER_MS) + 1, &m, &gone) < 0) {
            if (gone.code == ERR_PEER && !ctl_ended(ctl, e))
                return 0; /* the source has hung up */
            return err_set(e, gone.code, "%s", gone.text);
        }
        r = take(c, m, &s, e);
        migrd__session__free_unpacked(m, NULL);
        if (r < 0)
            return -1;
    }
    return err_set(e, ERR_TIMEOUT, "a dry run may not take longer than %d s", LIMIT_MS / 1000);
}
