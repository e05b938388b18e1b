/* SPDX-License-Identifier: ISC */
/* source_internal: one migration as the source sees it; private to precopy/source*.c. */
#ifndef SOURCE_INTERNAL_H
#define SOURCE_INTERNAL_H

#include "precopy/encodings.h"
#include "precopy/outlook.h"
#include "precopy/policy.h"
#include "precopy/sender.h"
#include "precopy/steps.h"
#include "precopy/verify.h"
#include "precopy/worker_internal.h"

#define SOURCE_ROUNDS_KEPT 64 /* of the report; the last ones are kept */

struct source {
    struct ctl *ctl; /* the job: set once */
    const Migrd__SourceStart *start;
    const Migrd__PrecopyParams *par;
    const struct worker_options *opt;
    uint64_t began_ns;

    struct attach at; /* the guest */
    bool was_paused;  /* by somebody else, before we came: never ours to resume */
    bool paused;      /* by us */
    bool stop;        /* asked to pause it now, whatever that costs */
    bool stopped;     /* the pause has begun */
    bool log_on;
    unsigned throttle;
    uint64_t *work, *next; /* pages of this round, and of the one after it */
    uint64_t *harvest;     /* all that was ever collected, to give back */
    uint64_t *known;       /* what was populated when the log went on */
    uint64_t seed;         /* of the sample that is compared */
    uint64_t *peek;
    uint64_t populated;

    struct offer_facts facts;
    Migrd__CheckReport *checks; /* the target's word */
    struct tr_tls *tls; /* the peer */
    struct tr_shaper *shaper;
    struct tr_conn *msg, *data[TR_CHANNELS_MAX];
    unsigned channels;
    struct sender *sender;

    Migrd__Phase phase; /* progress */
    struct policy policy;
    struct policy_decision decision;
    uint32_t round;
    uint64_t round_pages, ack_min_us;
    uint64_t next_peek_ns, next_progress_ns, next_ping_ns;
    struct pages_total round_start;
    struct {
        uint64_t at_ns, bytes;
    } sample[2]; /* of the round under way: the older one is a half to one second old */

    uint64_t pause_ns; /* when the guest was stopped; the pause so far is since then */
    bool committed; /* migrd was asked to write COMMITTED, and did not say no */

    Migrd__RoundReport report[SOURCE_ROUNDS_KEPT], *report_ptr[SOURCE_ROUNDS_KEPT];
    struct encoding_counts report_counts[SOURCE_ROUNDS_KEPT + 1]; /* source_round_counts picks */
    unsigned n_report;
    struct steps steps;
    struct verify_range pick[VERIFY_SAMPLE_MAX]; /* the sample, hashed */
    size_t n_pick;
    bool picked;
    uint64_t pause_us, verified_pages;

    struct outlook look; /* the forecast of the first round */
    bool forecast_made;
    uint64_t first_round_ns;
};

/* source_rounds.c: everything before the pause. 0: time to pause; s->work has what is left. */
int source_rounds(struct source *s, struct err *e);
/* Starts to send s->work, and waits until all of it is sent; progress, pings and new parameters on
 * the way. */
void source_send_round(struct source *s, bool live, bool last);
int source_wait_round(struct source *s, bool live, struct err *e);
void source_progress(struct source *s, const char *note);
/* The round's pages by encoding, into its report. */
void source_round_counts(struct source *s, Migrd__RoundReport *r, const struct pages_total *now);
/* ORs what was written since the last collect into bitmap, and keeps it to be given back. The fault
 * point loses the bit of one page of it. */
int source_collect(struct source *s, uint64_t *bitmap, const char *point, struct err *e);

/* source_forecast.c: pages known to be dirty in the first round; its end is the last chance. */
void source_forecast(struct source *s, const uint64_t *dirty, uint64_t round_began, bool ended);

/* source_handover.c: from the pause to RUNNING. A pause may begin before, in a round. */
int source_stop(struct source *s, struct err *e);
int source_handover(struct source *s, struct err *e);

#endif
