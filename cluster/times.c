/* SPDX-License-Identifier: ISC */
/*
 * The times of the cluster. A proof of silence must not be ready before the last guest of the
 * silent node has stopped:
 *
 *   proof >= lease + fuse_check + slack + 1 % of their sum
 *
 * The node's guests stop at the latest `lease` after it sent the newest beat that a majority saw,
 * plus `fuse_check`. A voter counts `proof` from the moment it saw that beat, which is not before
 * it was sent. 1 %: the two clocks may differ by so much. Nothing is added to corosync's
 * detection, 2.2 x token: the silence began before it, and is as long when the new view comes.
 */
#include <stdio.h>

#include "cluster/core.h"

#define FUSE_CHECK 50u

static unsigned clamp(unsigned x, unsigned low, unsigned high)
{
    return x < low ? low : x > high ? high : x;
}

/* What the lease may be: proof without the rest, rounded down to 10 ms. */
static unsigned lease_for(const struct ha_times *t)
{
    unsigned sum = (unsigned)((uint64_t)t->proof * 100 / 101), rest = t->fuse_check + t->slack;

    return sum > rest ? (sum - rest) / 10 * 10 : 0;
}

void ha_times_derive(struct ha_times *t, unsigned token, unsigned watchdog)
{
    *t = (struct ha_times){ .token = token, .watchdog = watchdog, .fuse_check = FUSE_CHECK };
    t->beat = clamp(token / 10, 20, 250);
    t->slack = 50 + token / 20;
    t->proof = 2 * token;
    t->lease = lease_for(t);
    t->tilt = clamp(token / 4, 50, 1000);
    t->ready = 120000;
}

static uint64_t needed(const struct ha_times *t)
{
    uint64_t sum = (uint64_t)t->lease + t->fuse_check + t->slack;

    return sum + (sum + 99) / 100;
}

int ha_times_check(const struct ha_times *t, struct err *e)
{
    if (t->token == 0 || t->beat == 0 || t->lease == 0)
        return err_set(e, ERR_INVALID,
            "token %u, beat %u, lease %u ms: none of them may be 0; a token of 300 ms is the least "
            "that works",
            t->token, t->beat, t->lease);
    if (t->proof < needed(t))
        return err_set(e, ERR_INVALID,
            "proof %u ms is shorter than lease %u + fuse %u + slack %u + 1 %% = %llu ms: a domain "
            "could "
            "run twice; lengthen the proof or shorten the lease",
            t->proof, t->lease, t->fuse_check, t->slack, (unsigned long long)needed(t));
    if (t->lease < 4 * (uint64_t)t->beat)
        return err_set(e, ERR_INVALID,
            "lease %u ms holds fewer than four beats of %u ms: healthy guests would be paused; "
            "lengthen the token",
            t->lease, t->beat);
    if (t->tilt >= t->lease)
        return err_set(e, ERR_INVALID,
            "tilt %u ms is not shorter than the lease of %u ms: a node that stood still would "
            "believe itself",
            t->tilt, t->lease);
    return 0;
}

void ha_times_print(const struct ha_times *t, char *text, size_t size)
{
    snprintf(text, size,
        "proof %u >= lease %u + fuse %u + slack %u + 1 %% = %llu ms; failover: detection 2.2 x "
        "token = "
        "%u ms, in which the proof of %u ms passes, then the decision, then the start",
        t->proof, t->lease, t->fuse_check, t->slack, (unsigned long long)needed(t),
        t->token * 22 / 10, t->proof);
}
