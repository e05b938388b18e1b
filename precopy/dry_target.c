/* SPDX-License-Identifier: ISC */
/*
 * A dry run, at the target: the offer goes to migrd, which makes every check of a real one but
 * reserves, builds and journals nothing; then probes are taken until the source hangs up: their
 * bytes are read as a round's are, into memory that is fresh up to the first answer, and thrown
 * away.
 *
 * Bounded by itself, whatever the source does: LIMIT_MS in all, LIMIT_BYTES of probes.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "base/clock.h"
#include "precopy/worker_internal.h"

#define LIMIT_MS 30000
#define LIMIT_BYTES (UINT64_C(300) << 20)
#define FOLLOW_BYTES (8u << 20) /* more than a frame has */
#define SINK_BYTES ((size_t)128 << 20)
#define SINK_VECTORS 1024

static int ask_migrd_of(struct ctl *ctl, const Migrd__Offer *o, const char *cert,
    Migrd__ToWorker **m, struct err *e)
{
    const Migrd__OfferVerdict *v;

    if (send_offer_seen(ctl, o, cert, true, e) < 0 ||
        ctl_wait(ctl, MIGRD__TO_WORKER__BODY_OFFER_VERDICT, clock_ns() + VERDICT_MS * NS_PER_MS, m,
            NULL, e) < 0)
        return -1;
    v = (*m)->offer_verdict;
    return v->ok ? 0 : migrd_said(v->code, v->text, e);
}

static int accept_it(struct tr_conn *c, const Migrd__Offer *o, const char *own_name,
    Migrd__CheckReport *report, struct err *e)
{
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__Accept a = MIGRD__ACCEPT__INIT;

    a.channels = o->channels < TR_CHANNELS_MAX ? o->channels : TR_CHANNELS_MAX;
    a.target_host = (char *)(uintptr_t)own_name;
    a.report = report;
    m.body_case = MIGRD__SESSION__BODY_ACCEPT;
    m.accept = &a;
    return tr_send(c, &m, e);
}

struct probes {
    uint64_t total, bytes, cpu_ns; /* of all; since the last answer */
    uint8_t *sink;                 /* SINK_BYTES, fresh until probes were read into it */
    size_t at;
};

static void *fresh_memory(int flags)
{
    return mmap(
        NULL, SINK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

/* Memory like that of the guest to be: what it takes to get is part of what is measured. Huge pages
 * come from where the guest's do, if there are some to spare. */
static int make_sink(struct probes *s, bool huge, struct err *e)
{
    void *p = huge ? fresh_memory(MAP_HUGETLB) : MAP_FAILED;

    if (p == MAP_FAILED) {
        p = fresh_memory(MAP_NORESERVE);
        if (p != MAP_FAILED && huge)
            madvise(p, SINK_BYTES, MADV_HUGEPAGE);
    }
    if (p == MAP_FAILED)
        return err_sys(e, "no memory for probes");
    s->sink = p;
    return 0;
}

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

/* One vector a page, as a round's are. */
static int swallow(struct tr_conn *c, struct probes *s, size_t bytes, struct err *e)
{
    struct iovec iov[SINK_VECTORS];
    int n = 0;

    for (size_t left = bytes; left > 0;) {
        size_t part = left < HV_PAGE_SIZE ? left : HV_PAGE_SIZE;

        if (s->at == SINK_BYTES)
            s->at = 0;
        iov[n++] = (struct iovec){ s->sink + s->at, part };
        s->at += HV_PAGE_SIZE;
        left -= part;
        if ((n == SINK_VECTORS || left == 0) && tr_readv(c, iov, n, e) < 0)
            return -1;
        n = n == SINK_VECTORS ? 0 : n;
    }
    s->bytes += bytes;
    s->total += bytes;
    return 0;
}

static int take(struct tr_conn *c, const Migrd__Session *m, struct probes *s, struct err *e)
{
    if (m->body_case == MIGRD__SESSION__BODY_REFUSE)
        return tr_refused(c, m->refuse, e);
    if (m->body_case != MIGRD__SESSION__BODY_PROBE)
        return err_set(
            e, ERR_PROTOCOL, "message of kind %d came during a dry run", (int)m->body_case);
    if (m->probe->follow > FOLLOW_BYTES)
        return err_set(e, ERR_PROTOCOL, "a probe of %u bytes; %u are the most", m->probe->follow,
            FOLLOW_BYTES);
    if (s->total + m->probe->follow > LIMIT_BYTES)
        return err_set(
            e, ERR_PROTOCOL, "a dry run may not send more than %" PRIu64 " bytes", LIMIT_BYTES);
    if (swallow(c, s, m->probe->follow, e) < 0)
        return -1;
    if (m->probe->anew)
        s->at = 0;
    return m->probe->last ? answer(c, s, m->probe->number, e) : 0;
}

static int take_all(struct ctl *ctl, struct tr_conn *c, struct probes *s, struct err *e)
{
    uint64_t deadline = clock_ns() + LIMIT_MS * NS_PER_MS, now;

    while ((now = clock_ns()) < deadline) {
        struct err gone = { 0 };
        Migrd__Session *m;
        int r;

        if (tr_recv(c, (unsigned)((deadline - now) / NS_PER_MS) + 1, &m, &gone) < 0) {
            if (gone.code == ERR_PEER && !ctl_ended(ctl, e))
                return 0; /* the source has hung up */
            return err_set(e, gone.code, "%s", gone.text);
        }
        r = take(c, m, s, e);
        migrd__session__free_unpacked(m, NULL);
        if (r < 0)
            return -1;
    }
    return err_set(e, ERR_TIMEOUT, "a dry run may not take longer than %d s", LIMIT_MS / 1000);
}

int dry_target_run(struct ctl *ctl, struct tr_conn *c, const Migrd__Offer *o, const char *own_name,
    Migrd__ToWorker **verdict, struct err *e)
{
    struct probes s = { 0 };
    int r;

    if (offer_check(o, false, e) < 0 || ask_migrd_of(ctl, o, tr_peer_name(c), verdict, e) < 0 ||
        make_sink(&s, o->domain != NULL && o->domain->huge_pages, e) < 0)
        return -1;
    s.cpu_ns = clock_cpu_ns();
    r = accept_it(c, o, own_name, (*verdict)->offer_verdict->report, e) < 0
            ? -1
            : take_all(ctl, c, &s, e);
    munmap(s.sink, SINK_BYTES);
    return r;
}
