/* SPDX-License-Identifier: ISC */
/* worker_internal: the jobs of a worker and what they share; private to precopy/. */
#ifndef WORKER_INTERNAL_H
#define WORKER_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "hypervisor/hypervisor.h"
#include "precopy/ctl.h"
#include "precopy/worker.h"
#include "precopy/worker.pb-c.h"
#include "transport/transport.h"

#define MIGRD_ANSWER_MS 20000 /* migrd journals a step, with fsync */
#define VERDICT_MS 60000      /* migrd reserves memory and starts an incoming domain */
#define ACCEPT_MS 90000       /* the source waits longer than the target takes */
#define DEFAULT_DEAD_PEER_MS 15000
#define PEER_STEP_MS 60000 /* the other side loads state, journals, resumes */
#define PROTOCOL 1

/* Each sends Finished itself. 0 when the job ended well. */
int source_run(struct ctl *ctl, const Migrd__SourceStart *start, const struct worker_options *opt);
int target_run(
    struct ctl *ctl, const Migrd__TargetStart *start, int fd, const struct worker_options *opt);
int dry_source_run(
    struct ctl *ctl, const Migrd__SourceStart *start, const struct worker_options *opt);
int query_run(struct ctl *ctl, const Migrd__QueryStart *start);
int facts_run(struct ctl *ctl, const Migrd__FactsStart *start);
int save_run(
    struct ctl *ctl, const Migrd__SaveStart *start, int fd, const struct worker_options *opt);
int restore_run(
    struct ctl *ctl, const Migrd__RestoreStart *start, int fd, const struct worker_options *opt);
int dump_run(struct ctl *ctl, const Migrd__DumpStart *start, const struct worker_options *opt);

/* The driver by name, opened, and one side of the domain's migration. On failure both are NULL. */
struct attach {
    const struct hv_ops *ops;
    struct hv *hv;
    struct hv_mig *mig;
    struct hv_layout layout;
    size_t words; /* of a bitmap */
};
int attach_open(struct attach *a, const struct worker_options *opt, const char *hypervisor,
    const char *run_dir, const char *log_dir, struct err *e);
/* Before attach_domain at a source: can this domain move as it is wished? With allow_paused, `par`
 * becomes a paused move where only that works. */
int attach_can_move(const struct attach *a, const Migrd__Domain *d, Migrd__PrecopyParams *par,
    bool paused, struct err *e);
int attach_domain(struct attach *a, const char *uuid, enum hv_side side, struct err *e);
/* After it: can all memory be compared, if that is wished? */
int attach_can_verify(const struct attach *a, const Migrd__Domain *d,
    const Migrd__PrecopyParams *par, struct err *e);
void attach_close(struct attach *a);

/* calloc of one bitmap. */
uint64_t *attach_bitmap(const struct attach *a, struct err *e);

/* Paths from migrd to an opened context; *out stays NULL for plain TCP. */
int worker_tls(const Migrd__WorkerTls *files, struct tr_tls **out, struct err *e);

/* The next message, which must be `want`; a Refuse becomes the error it carries. */
int expect(struct tr_conn *c, Migrd__Session__BodyCase want, unsigned timeout_ms,
    Migrd__Session **out, struct err *e);
/* The answer to an offer; tls: whether we speak it. *report: what the target checked, also where it
 * refuses; NULL where it does not tell. */
int expect_accept(struct tr_conn *c, bool tls, Migrd__Session **out, Migrd__CheckReport **report,
    struct err *e);
/* One question to another host, in a session of its own; query.c. */
struct ask_host {
    const char *host;
    unsigned port, dead_peer_ms;
    const struct tr_tls *tls; /* NULL: plain TCP */
};
int ask_host(struct ctl *ctl, const struct ask_host *a, const Migrd__Session *question,
    Migrd__Session__BodyCase want, Migrd__Session **out, struct err *e);
/* A job that is nothing but such a question: `start` is handed to `ask`; of its answer `answer` puts
 * into the report, which borrows, what it wants. */
typedef int ask_question(struct ctl *ctl, const void *start, const struct tr_tls *tls,
    Migrd__Session **out, struct err *e);
typedef void ask_answer(const Migrd__Session *m, Migrd__Finished *f);
int ask_job(struct ctl *ctl, const Migrd__WorkerTls *paths, ask_question *ask, ask_answer *answer,
    const void *start);

/* `report` of a refused offer, or NULL. */
int send_refuse(struct tr_conn *c, const struct err *why, const Migrd__CheckReport *report);

/* The memory map of an offer against limits, and against the domain made for it. */
int offer_check(const Migrd__Offer *o, bool needs_migration, struct err *e);
int offer_layout(const Migrd__Offer *o, const struct hv_layout *mine, struct err *e);
/* Points the offer's regions at `store` (HV_MAX_REGIONS of each). */
struct offer_regions {
    Migrd__Region region[HV_MAX_REGIONS];
    Migrd__Region *ptr[HV_MAX_REGIONS];
};
void offer_set_regions(
    Migrd__Offer *o, struct offer_regions *store, const struct hv_layout *layout);

/* Points the offer's CPU and release at `store`, filled from what this host can do. */
struct offer_host {
    struct hv_caps caps;
    Migrd__CpuReport cpu;
};
/* The report borrows from `caps`. */
void offer_cpu(Migrd__CpuReport *cpu, struct hv_caps *caps);
void offer_set_host(Migrd__Offer *o, struct offer_host *store, const struct attach *at);

/* offer_facts.c: what else the target compares. The disks are looked at before the connection is
 * made, each gets a challenge that the target reads back; forget removes them, once the target has
 * answered and before the sandbox: both start a program. */
struct offer_facts {
    struct offer_host host;
    struct hv_caps guest;
    Migrd__CpuReport guest_cpu;
    Migrd__StorageReply *disks; /* NULL: the domain has none, or nobody said how to look */
};
int offer_identify(struct offer_facts *f, const Migrd__SourceStart *start, struct err *e);
void offer_set_facts(Migrd__Offer *o, struct offer_facts *f, const Migrd__SourceStart *start,
    const struct attach *at);
void offer_forget(struct offer_facts *f, const Migrd__SourceStart *start);
/* A report of another host's, in bounds: not more lines than CHECKS_MAX, texts cut and clean. */
void report_limit(Migrd__CheckReport *r);

/* An offer as it came, to migrd; `cert` is the name in the certificate, or "". */
int send_offer_seen(
    struct ctl *ctl, const Migrd__Offer *o, const char *cert, bool dry_run, struct err *e);
/* The target's part of a dry run, after its first message; returns when the source hangs up.
 * *verdict: migrd's message, the caller's; NULL if there was none. */
int dry_target_run(struct ctl *ctl, struct tr_conn *c, const Migrd__Offer *o, const char *own_name,
    Migrd__ToWorker **verdict, struct err *e);
/* The target's part of a facts session, after its first message. */
int facts_answer(struct ctl *ctl, struct tr_conn *c, const Migrd__FactsQuery *q, struct err *e);
/* Code and text of a verdict or step as an error; returns -1. */
int migrd_said(const char *code, const char *text, struct err *e);
/* Waits for StepOk, pinging `peer` (may be NULL) meanwhile; ok=false is an error with migrd's text. */
struct step_answer {
    bool came;                       /* yes or no */
    uint64_t journal_us, resume_us; /* migrd's own times; 0 where it did nothing */
};
int await_step(struct ctl *ctl, struct tr_conn *peer, struct step_answer *a, struct err *e);
/* Sends `m` and waits for its StepOk. */
int ask_migrd(struct ctl *ctl, struct tr_conn *peer, const Migrd__FromWorker *m,
    struct step_answer *a, struct err *e);
void send_finished(struct ctl *ctl, Migrd__Finished *f, const struct err *e);

/* Drops what is not needed after attaching; logs. -1 only when opt->strict. */
int enter_sandbox(const struct worker_options *opt, struct err *e);

#endif
