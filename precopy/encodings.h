/* SPDX-License-Identifier: ISC */
/* encodings: what the parameters and the peer allow, and the counters in messages. */
#ifndef ENCODINGS_H
#define ENCODINGS_H

#include "hypervisor/hypervisor.h"
#include "precopy/pages.h"
#include "precopy/worker.pb-c.h"

/* For Offer.encodings. */
unsigned encodings_wanted(const Migrd__PrecopyParams *par);
/* How to encode, given what both sides agreed on. */
struct pages_encode encodings_plan(
    const Migrd__PrecopyParams *par, unsigned agreed, const struct hv_layout *layout);

/* Storage of the counters in one message. */
struct encoding_counts {
    Migrd__EncodingCount of[FRAME_ENCODINGS], *ptr[FRAME_ENCODINGS];
};
/* What was added since `since` (NULL: from the start). Returns how many of c->ptr are set. */
size_t encodings_count(
    struct encoding_counts *c, const struct pages_total *now, const struct pages_total *since);

#endif
