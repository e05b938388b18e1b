/* SPDX-License-Identifier: ISC */
/*
 * receiver: the data channels of the target, one thread each, reading straight into
 * guest memory. The coordinator waits for "every channel has ended round n" and for
 * the end of all. A failure aborts all connections, the coordinator's too.
 */
#ifndef RECEIVER_H
#define RECEIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "hypervisor/hypervisor.h"
#include "precopy/pages.h"
#include "transport/transport.h"

struct receiver;

/* As sender_new; `encodings` is the bit mask of those that were agreed on. `layout` must live as
 * long. A failing channel also aborts `msg`, the coordinator's connection, so that it wakes up. */
struct receiver *receiver_new(const struct hv_ops *ops, struct hv_mig *mig,
    const struct hv_layout *layout, struct tr_conn *const *conn, unsigned channels,
    unsigned encodings, struct tr_conn *msg, struct err *e);
/* Aborts what still runs, joins, frees, sets NULL. */
void receiver_free(struct receiver **r);

/* Until all channels have ended `round`; 0, or -1 with the failure of a channel. */
int receiver_wait_round(struct receiver *r, uint32_t round, uint64_t deadline_ns, struct err *e);
/* Until all channels have ended for good. */
int receiver_wait_end(struct receiver *r, uint64_t deadline_ns, struct err *e);

/* True, with the reason, if a channel has failed. */
bool receiver_failed(struct receiver *r, struct err *e);

void receiver_count(const struct receiver *r, struct pages_total *out);
/* After receiver_wait_end. */
uint64_t receiver_digest(const struct receiver *r);

#endif
