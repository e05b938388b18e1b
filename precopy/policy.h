/* SPDX-License-Identifier: ISC */
/*
 * policy: when to stop the guest. Pure: no clock, no I/O, no memory of its own; the
 * engine reports each finished round and gets a decision. It predicts the pause as
 * remaining bytes / measured bandwidth + fixed cost of the last step, stops the guest
 * only when that is inside the budget, throttles when rounds stop making progress,
 * and gives up, with a reason that names the knob to turn, when that does not help.
 */
#ifndef POLICY_H
#define POLICY_H

#include <stdbool.h>
#include <stdint.h>

#define POLICY_DEFAULT_BUDGET_MS 100
#define POLICY_DEFAULT_FIXED_US 8000 /* of the last step, before it could be measured */
/* What the engine tells as fixed_us once it has measured: journals, pause and resume; trips. */
#define POLICY_FIXED_BASE_US 6000
#define POLICY_FIXED_TRIPS 3
#define POLICY_MAX_ROUNDS 10000
#define POLICY_THROTTLE_LIMIT 99

struct policy_params {
    uint64_t budget_us;     /* longest pause wanted; 0: default */
    uint64_t fixed_us;      /* cost of the last step without its pages; 0: default */
    uint64_t time_limit_us; /* 0: none */
    uint32_t max_rounds;    /* 0: POLICY_MAX_ROUNDS */
    unsigned throttle_max;  /* percent; 0: never throttle */
    uint64_t bandwidth_cap; /* for the text of reasons only; 0: none */
    bool live;              /* false: stop before the first round */
};

/* One round, from the collect that began it to the target's acknowledgement. */
struct policy_round {
    uint64_t pages_sent; /* with their content */
    uint64_t pages_zero;
    uint64_t pages_skipped; /* were dirty again before their turn */
    uint64_t bytes;         /* on the wire */
    uint64_t duration_us;
    uint64_t dirty_pages; /* found by the collect that ended it, skipped ones included */
    uint64_t elapsed_us;  /* since the migration began */
    uint64_t tail_bytes;  /* of a long round, its last second or so: */
    uint64_t tail_us;     /* the link as it is now; 0: not measured */
};

enum policy_action {
    POLICY_CONTINUE,
    POLICY_STOP,     /* pause the guest and send the rest */
    POLICY_THROTTLE, /* set `throttle`, then go on */
    POLICY_GIVE_UP,  /* leave the guest running; reason is for the administrator */
    POLICY_ACTION_MAX
};

struct policy_decision {
    enum policy_action action;
    unsigned throttle;     /* percent in force from now on */
    uint64_t predicted_us; /* pause if the guest were stopped now */
    uint64_t dirty_rate;   /* bytes per second of the last round, each page once */
    uint64_t bandwidth;    /* bytes per second, smoothed */
    char reason[400];
};

/* Caller-owned; fields are the policy's own. */
struct policy {
    struct policy_params par;
    double bw_bytes, bw_us; /* fading sums: their quotient is the bandwidth */
    double page_us, page_n; /* the same of re-sent pages: what one takes, encoded as they are */
    double raw_share;       /* of dirty pages, those that are not zero */
    uint64_t most_pages;    /* most pages any collect found dirty */
    uint64_t best_pages;    /* least dirty pages since progress was last seen */
    uint64_t stall_since_us;
    uint32_t stall_rounds;
    uint32_t rounds, polish;
    unsigned throttle;
    bool have_round;
};

void policy_init(struct policy *p, const struct policy_params *par);

/* Before round 0: stop at once (not live), give up (budget out of reach), or go on. */
void policy_begin(const struct policy *p, struct policy_decision *out);

/* After each round. */
void policy_round(struct policy *p, const struct policy_round *r, struct policy_decision *out);

/* New knowledge or wishes on the way; they count from the next policy_round. */
void policy_set_budget(struct policy *p, uint64_t budget_us);
void policy_set_fixed(struct policy *p, uint64_t fixed_us);
void policy_set_cap(struct policy *p, uint64_t bandwidth_cap);

/* "continue", "stop", ...; never NULL. */
const char *policy_action_name(enum policy_action a);

#endif
