/* SPDX-License-Identifier: ISC */
/*
 * precopy_lab: one migration between two forked workers, with the test in the part of
 * both migrds: it listens on a loopback port, does the preamble, answers every question,
 * and disturbs where the scenario says so.
 */
#ifndef PRECOPY_LAB_H
#define PRECOPY_LAB_H

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/io.h"
#include "base/log.h"
#include "base/msgconn.h"
#include "precopy/worker.h"
#include "precopy/worker.pb-c.h"
#include "precopy_fake.h"
#include "transport/transport.h"

#define LAB_SOURCE "11111111-1111-4111-8111-111111111111"
#define LAB_TARGET "22222222-2222-4222-8222-222222222222"
#define LAB_MIGRATION "33333333-3333-4333-8333-333333333333"
#define LAB_SESSION "0123456789abcdef0123456789abcdef"
#define LAB_EPOCH 7
#define LAB_CHECK "enough memory, or not" /* the line of the target's report */

/* A sanitizer's report at exit needs system calls that the sandbox forbids. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define LAB_CAN_SANDBOX false
#else
#define LAB_CAN_SANDBOX true
#endif

enum lab_who { LAB_SRC, LAB_DST };

/* A disturbance happens when this kind of message has come from that worker for the n-th time. */
enum lab_do {
    LAB_NOTHING,
    LAB_CANCEL,     /* migrd cancels the worker that sent it */
    LAB_DIE,        /* the migrd of that worker is gone */
    LAB_SAY_NO,     /* StepOk{ok=false}, or a verdict that refuses */
    LAB_KILL_OTHER, /* SIGKILL to the worker on the other side */
    LAB_KILL_SELF,
    LAB_SET_PARAMS, /* new bandwidth */
    LAB_STOP_GUEST, /* at once, whatever is left */
};

struct lab_disturb {
    enum lab_who who;
    Migrd__FromWorker__BodyCase on;
    unsigned nth; /* 1.. */
    enum lab_do what;
    uint64_t bandwidth;
};

struct lab_scenario {
    Migrd__PrecopyParams par;
    struct lab_disturb disturb;
    const char *fault[2]; /* MIGRD_FAULT of source and target */
    Migrd__WorkerTls *tls[2];
    const char *host;      /* NULL: 127.0.0.1 */
    const char *peer_name; /* the certificate's must be this one; NULL: any */
    bool sandbox;
    bool expect_kill[2];
    unsigned limit_s;
};

struct lab_end {
    Migrd__FromWorker *m; /* Finished, or NULL */
    int status;           /* of waitpid */
};

struct lab {
    const struct lab_scenario *sc;
    struct fake_domain *d[2];
    int listener;
    unsigned port;
    struct msgconn *conn[2];
    pid_t pid[2];
    unsigned seen[2][32]; /* by body case */
    bool disturbed;
    struct lab_end end[2];
    unsigned go_received;
    uint64_t wire;
    double dirty_rate;
};

static inline void lab_listen(struct lab *l)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof a;

    l->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(l->listener, (struct sockaddr *)&a, sizeof a) < 0 || listen(l->listener, 32) < 0 ||
        getsockname(l->listener, (struct sockaddr *)&a, &len) < 0)
        abort();
    l->port = ntohs(a.sin_port);
}

static inline void lab_worker(struct lab *l, enum lab_who who)
{
    struct worker_options opt = {
        .find = fake_driver, .sandbox = l->sc->sandbox && LAB_CAN_SANDBOX, .strict = true
    };
    int sv[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
        abort();
    fflush(NULL);
    l->pid[who] = fork();
    if (l->pid[who] == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(sv[0]);
        close(l->listener);
        if (who == LAB_DST)
            msgconn_free(&l->conn[LAB_SRC]);
        if (l->sc->fault[who] != NULL)
            setenv("MIGRD_FAULT", l->sc->fault[who], 1);
        signal(SIGPIPE, SIG_IGN);
        log_open(who == LAB_SRC ? "source" : "target", NULL, NULL);
        log_set_level(getenv("LAB_LOG") != NULL ? LOG_LV_DEBUG : LOG_LV_ERROR);
        worker_run(sv[1], &opt);
        exit(0); /* with the sanitizers' last word */
    }
    close(sv[1]);
    l->conn[who] = msgconn_new(sv[0], &migrd__from_worker__descriptor, MSGCONN_MAX_LEN);
}

static inline void lab_tell(struct lab *l, enum lab_who who, const Migrd__ToWorker *m, int fd)
{
    if (l->conn[who] != NULL)
        msgconn_send(l->conn[who], &m->base, fd, clock_ns() + NS_PER_S, NULL);
}

static inline void lab_start_source(struct lab *l)
{
    Migrd__ToWorker m = MIGRD__TO_WORKER__INIT;
    Migrd__SourceStart s = MIGRD__SOURCE_START__INIT;
    Migrd__Domain d = MIGRD__DOMAIN__INIT;
    Migrd__PrecopyParams par = l->sc->par;

    d.uuid = (char *)LAB_SOURCE;
    d.name = (char *)"guest";
    s.migration = (char *)LAB_MIGRATION;
    s.hypervisor = (char *)"fake";
    s.domain = &d;
    s.epoch = LAB_EPOCH;
    s.host = (char *)(l->sc->host != NULL ? l->sc->host : "127.0.0.1");
    s.port = l->port;
    s.own_name = (char *)"host1";
    s.tls = l->sc->tls[LAB_SRC];
    s.params = &par;
    m.body_case = MIGRD__TO_WORKER__BODY_SOURCE;
    m.source = &s;
    lab_tell(l, LAB_SRC, &m, -1);
}

static inline void lab_start_target(struct lab *l, int fd)
{
    Migrd__ToWorker m = MIGRD__TO_WORKER__INIT;
    Migrd__TargetStart t = MIGRD__TARGET_START__INIT;

    t.hypervisor = (char *)"fake";
    t.session = (char *)LAB_SESSION;
    t.peer_address = (char *)"192.0.2.1";
    t.own_name = (char *)"host2";
    t.tls = l->sc->tls[LAB_DST];
    t.channels_max = 8;
    t.check_peer_name = l->sc->peer_name != NULL;
    t.peer_name = (char *)(l->sc->peer_name != NULL ? l->sc->peer_name : "");
    t.dead_peer_ms = l->sc->par.dead_peer_ms;
    m.body_case = MIGRD__TO_WORKER__BODY_TARGET;
    m.target = &t;
    lab_tell(l, LAB_DST, &m, fd);
}

static inline void lab_pass_channel(struct lab *l, unsigned n, int fd)
{
    Migrd__ToWorker m = MIGRD__TO_WORKER__INIT;
    Migrd__ChannelArrived c = MIGRD__CHANNEL_ARRIVED__INIT;

    c.channel = n;
    m.body_case = MIGRD__TO_WORKER__BODY_CHANNEL;
    m.channel = &c;
    lab_tell(l, LAB_DST, &m, fd);
}

/* migrd's part of a connection: greeting, one line, go ahead. */
static inline void lab_accept(struct lab *l)
{
    int fd = accept4(l->listener, NULL, NULL, SOCK_CLOEXEC);
    struct tr_preamble p;
    char buf[TR_LINE_MAX];
    size_t n = 0;

    if (fd < 0 || write(fd, buf, tr_greeting(buf, "host2")) < 0)
        abort();
    while (n < sizeof buf && read(fd, buf + n, 1) == 1 && buf[n] != '\n')
        n++;
    if (n > 0 && buf[n - 1] == '\r')
        n--;
    if (tr_preamble_parse(buf, n, &p, NULL) == 0) {
        if (write(fd, buf, tr_go_ahead(buf)) < 0)
            abort();
        if (p.request == TR_REQ_RELOCATE)
            lab_start_target(l, fd);
        else
            lab_pass_channel(l, p.channel, fd);
    }
    close(fd);
}

static inline void lab_step(struct lab *l, enum lab_who who, bool ok)
{
    Migrd__ToWorker m = MIGRD__TO_WORKER__INIT;
    Migrd__StepOk s = MIGRD__STEP_OK__INIT;

    s.ok = ok;
    s.code = (char *)(ok ? "" : "refused");
    s.text = (char *)(ok ? "" : "the journal is full");
    m.body_case = MIGRD__TO_WORKER__BODY_STEP;
    m.step = &s;
    lab_tell(l, who, &m, -1);
}

static inline void lab_verdict(struct lab *l, bool ok)
{
    Migrd__ToWorker m = MIGRD__TO_WORKER__INIT;
    Migrd__OfferVerdict v = MIGRD__OFFER_VERDICT__INIT;
    Migrd__CheckReport report = MIGRD__CHECK_REPORT__INIT;
    Migrd__Check line = MIGRD__CHECK__INIT, *lines[] = { &line };

    line.result = (char *)(ok ? "ok" : "refused");
    line.area = (char *)"memory";
    line.text = (char *)LAB_CHECK;
    report.checks = lines;
    report.n_checks = 1;
    v.report = &report;
    v.ok = ok;
    v.code = (char *)(ok ? "" : "memory");
    v.text = (char *)(ok ? "" : "not enough memory: 1 GiB wanted, 3 MiB free");
    v.uuid = (char *)LAB_TARGET;
    m.body_case = MIGRD__TO_WORKER__BODY_OFFER_VERDICT;
    m.offer_verdict = &v;
    lab_tell(l, LAB_DST, &m, -1);
}

static inline void lab_query_verdict(struct lab *l, const Migrd__QuerySeen *q)
{
    Migrd__ToWorker m = MIGRD__TO_WORKER__INIT;
    Migrd__QueryVerdict v = MIGRD__QUERY_VERDICT__INIT;

    v.outcome = q->go ? MIGRD__OUTCOME__OUTCOME_RUNNING : MIGRD__OUTCOME__OUTCOME_PREPARED;
    v.epoch = q->epoch;
    v.text = (char *)"so it is";
    m.body_case = MIGRD__TO_WORKER__BODY_QUERY_VERDICT;
    m.query_verdict = &v;
    lab_tell(l, LAB_DST, &m, -1);
}

static inline void lab_facts_verdict(struct lab *l, bool ok)
{
    Migrd__ToWorker m = MIGRD__TO_WORKER__INIT;
    Migrd__FactsVerdict v = MIGRD__FACTS_VERDICT__INIT;
    Migrd__HostFacts f = MIGRD__HOST_FACTS__INIT;
    Migrd__CpuReport cpu = MIGRD__CPU_REPORT__INIT;
    uint32_t features[3] = { 1, 0, 5 };

    f.host = (char *)"host2";
    cpu.vendor = (char *)"GenuineIntel";
    cpu.features = features;
    cpu.n_features = 3;
    f.cpu = &cpu;
    v.ok = ok;
    v.code = (char *)(ok ? "" : "memory");
    v.text = (char *)(ok ? "" : "out of memory");
    v.facts = ok ? &f : NULL;
    m.body_case = MIGRD__TO_WORKER__BODY_FACTS_VERDICT;
    m.facts_verdict = &v;
    lab_tell(l, LAB_DST, &m, -1);
}

static inline void lab_cancel(struct lab *l, enum lab_who who)
{
    Migrd__ToWorker m = MIGRD__TO_WORKER__INIT;
    Migrd__Cancel c = MIGRD__CANCEL__INIT;

    c.reason = (char *)"the administrator changed her mind";
    m.body_case = MIGRD__TO_WORKER__BODY_CANCEL;
    m.cancel = &c;
    lab_tell(l, who, &m, -1);
}

static inline void lab_params(struct lab *l, uint64_t bandwidth, bool stop)
{
    Migrd__ToWorker m = MIGRD__TO_WORKER__INIT;
    Migrd__SetParams p = MIGRD__SET_PARAMS__INIT;

    p.set_bandwidth = !stop;
    p.bandwidth = bandwidth;
    p.stop = stop;
    m.body_case = MIGRD__TO_WORKER__BODY_SET_PARAMS;
    m.set_params = &p;
    lab_tell(l, LAB_SRC, &m, -1);
}

/* True: the message must not be answered in the usual way any more. */
static inline bool lab_disturb(struct lab *l, enum lab_who who, bool *ok)
{
    const struct lab_disturb *d = &l->sc->disturb;

    l->disturbed = true;
    switch (d->what) {
    case LAB_CANCEL:
        lab_cancel(l, who);
        return true;
    case LAB_DIE:
        msgconn_free(&l->conn[who]);
        return true;
    case LAB_SAY_NO:
        *ok = false;
        return false;
    case LAB_KILL_OTHER:
        kill(l->pid[!who], SIGKILL);
        return false;
    case LAB_KILL_SELF:
        kill(l->pid[who], SIGKILL);
        return false;
    case LAB_SET_PARAMS:
    case LAB_STOP_GUEST:
        lab_params(l, d->bandwidth, d->what == LAB_STOP_GUEST);
        return false;
    case LAB_NOTHING:
        break;
    }
    return false;
}

static inline void lab_message(struct lab *l, enum lab_who who, Migrd__FromWorker *m)
{
    const struct lab_disturb *d = &l->sc->disturb;
    bool ok = true, quiet = false;

    l->seen[who][m->body_case]++;
    if (d->what != LAB_NOTHING && d->who == who && d->on == m->body_case &&
        d->nth == l->seen[who][m->body_case])
        quiet = lab_disturb(l, who, &ok);
    switch (m->body_case) {
    case MIGRD__FROM_WORKER__BODY_OFFER:
        if (!quiet)
            lab_verdict(l, ok);
        break;
    case MIGRD__FROM_WORKER__BODY_QUERY:
        lab_query_verdict(l, m->query);
        break;
    case MIGRD__FROM_WORKER__BODY_FACTS:
        lab_facts_verdict(l, ok);
        break;
    case MIGRD__FROM_WORKER__BODY_WANT_PAUSE:
    case MIGRD__FROM_WORKER__BODY_WANT_COMMIT:
    case MIGRD__FROM_WORKER__BODY_WANT_READY:
        if (!quiet)
            lab_step(l, who, ok);
        break;
    case MIGRD__FROM_WORKER__BODY_GO_RECEIVED:
        l->go_received++;
        if (!quiet) {
            atomic_store(&l->d[LAB_DST]->state, HV_RUNNING);
            lab_step(l, who, ok);
        }
        break;
    case MIGRD__FROM_WORKER__BODY_FINISHED:
        l->end[who].m = m;
        return;
    default:
        break;
    }
    migrd__from_worker__free_unpacked(m, NULL);
}

static inline void lab_read(struct lab *l, enum lab_who who)
{
    ProtobufCMessage *m;
    bool over = msgconn_fill(l->conn[who], NULL) < 0;

    while (l->conn[who] != NULL && msgconn_next(l->conn[who], &m, NULL, NULL) == 1)
        lab_message(l, who, (Migrd__FromWorker *)m);
    if (over)
        msgconn_free(&l->conn[who]);
}

static inline bool lab_reap(struct lab *l)
{
    for (int i = 0; i < 2; i++)
        if (l->pid[i] > 0 && waitpid(l->pid[i], &l->end[i].status, WNOHANG) == l->pid[i])
            l->pid[i] = 0;
    /* A target that was never called waits for its first message: nobody needs it any more. */
    if (l->listener >= 0 && l->pid[LAB_SRC] == 0 && l->pid[LAB_DST] > 0 &&
        l->conn[LAB_SRC] == NULL && l->conn[LAB_DST] != NULL &&
        l->seen[LAB_DST][MIGRD__FROM_WORKER__BODY_OFFER] == 0) {
        struct pollfd p = { l->listener, POLLIN, 0 };

        if (poll(&p, 1, 300) == 0 && l->seen[LAB_DST][MIGRD__FROM_WORKER__BODY_FINISHED] == 0)
            msgconn_free(&l->conn[LAB_DST]);
    }
    return l->pid[0] == 0 && l->pid[1] == 0 && l->conn[0] == NULL && l->conn[1] == NULL;
}

/* Until both workers have ended. False when it took too long. */
static inline bool lab_drive(struct lab *l)
{
    uint64_t deadline = clock_ns() + (l->sc->limit_s != 0 ? l->sc->limit_s : 60) * NS_PER_S;

    while (!lab_reap(l)) {
        struct pollfd p[3] = { { l->listener, POLLIN, 0 },
            { l->conn[0] != NULL ? msgconn_fd(l->conn[0]) : -1, POLLIN, 0 },
            { l->conn[1] != NULL ? msgconn_fd(l->conn[1]) : -1, POLLIN, 0 } };

        if (clock_ns() > deadline)
            return false;
        poll(p, 3, 20);
        for (int i = 0; i < 2; i++)
            if (p[i + 1].revents != 0)
                lab_read(l, (enum lab_who)i);
        if ((p[0].revents & POLLIN) != 0)
            lab_accept(l);
    }
    return true;
}

/* Runs a migration to the end of both workers. */
static inline bool lab_run(struct lab *l)
{
    lab_listen(l);
    lab_worker(l, LAB_SRC);
    lab_worker(l, LAB_DST);
    lab_start_source(l);
    return lab_drive(l);
}

static inline void lab_init(struct lab *l, const struct lab_scenario *sc, uint64_t pages)
{
    memset(l, 0, sizeof *l);
    l->sc = sc;
    l->listener = -1;
    l->d[LAB_SRC] = fake_new(LAB_SRC, LAB_SOURCE, pages);
    l->d[LAB_DST] = fake_new(LAB_DST, LAB_TARGET, pages);
    l->d[LAB_SRC]->epoch = LAB_EPOCH;
    l->d[LAB_DST]->epoch = LAB_EPOCH + 1;
    atomic_store(&l->d[LAB_DST]->state, HV_INCOMING);
}

static inline void lab_end(struct lab *l)
{
    for (int i = 0; i < 2; i++) {
        if (l->pid[i] > 0) {
            kill(l->pid[i], SIGKILL);
            waitpid(l->pid[i], NULL, 0);
        }
        msgconn_free(&l->conn[i]);
        if (l->end[i].m != NULL)
            migrd__from_worker__free_unpacked(l->end[i].m, NULL);
        fake_end_guest(l->d[i]);
        fake_free((unsigned)i);
    }
    io_close(&l->listener);
}

static inline const Migrd__Finished *lab_finished(const struct lab *l, enum lab_who who)
{
    return l->end[who].m != NULL ? l->end[who].m->finished : NULL;
}

#endif
