/* SPDX-License-Identifier: ISC */
/*
 * sender: the data channels of the source, one thread each. The coordinator starts a
 * round, waits in slices (doing its own work in between), and reads the counters. A
 * page always travels on the channel of its 2 MiB stripe, so the order on a channel is
 * the order of the page's contents, and rounds need no barrier between channels.
 */
#ifndef SENDER_H
#define SENDER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "hypervisor/hypervisor.h"
#include "precopy/pages.h"
#include "transport/transport.h"

struct sender;

/* Starts a thread per connection; channel i+1 is conn[i]. Connections and layout stay the caller's,
 * and must live until sender_free. `how` is for all channels together. NULL on failure. */
struct sender *sender_new(const struct hv_ops *ops, struct hv_mig *mig,
    const struct hv_layout *layout, struct tr_conn *const *conn, unsigned channels,
    const struct pages_encode *how, struct err *e);

/* Makes the threads give up (their connections are aborted), joins them, frees, sets NULL. */
void sender_free(struct sender **s);

/* `bitmap` must not change until the round is over. live: the guest may run, and pages marked
 * by sender_again are left out. last: FRAME_END follows the end of the round. */
void sender_start(struct sender *s, const uint64_t *bitmap, uint32_t round, bool live, bool last);

/* Pages known to be dirty again. Only between sender_start of a live round and its end. */
void sender_again(struct sender *s, const uint64_t *bitmap);

/* 1 the round has been sent on all channels, 0 not yet, -1 a channel failed. */
int sender_wait(struct sender *s, unsigned wait_ms, struct err *e);

void sender_count(const struct sender *s, struct pages_total *out);

/* Fold of all frames' digests, over all channels; only while no round is under way. */
uint64_t sender_digest(const struct sender *s);

#endif
