/* SPDX-License-Identifier: ISC */
/*
 * dry_probe: what pages of this guest cost between two hosts, measured by sending some to a target
 * that throws them away. The connection, the bitmap of populated pages and the sample are the
 * caller's, and must live until dry_probe_free. Blocks.
 */
#ifndef DRY_PROBE_H
#define DRY_PROBE_H

#include "precopy/worker_internal.h"

#define DRY_SAMPLE 2048

struct dry_pages { /* populated pages, every so many-th */
    uint64_t content[DRY_SAMPLE], zero[DRY_SAMPLE];
    unsigned n_content, n_zero;
};

struct dry_costs {
    double first_ns, again_ns; /* of a page with content: into fresh memory there, into used; 0:
                                  not measured */
    double zero_ns;
    double page_bytes; /* on the wire */
    double rate;       /* bytes per second */
    uint64_t rtt_us;
    unsigned source_cpu, target_cpu; /* percent of a CPU */
};

/* Looks which pages have content. */
int dry_sample(
    const struct attach *at, const uint64_t *populated, struct dry_pages *out, struct err *e);

double dry_zero_share(const struct dry_pages *pages);

struct dry_probe;

/* Pages are compressed as `par` says. Measures round trips and zero pages at once. NULL on failure.
 */
struct dry_probe *dry_probe_new(struct tr_conn *c, const struct attach *at,
    const uint64_t *populated, const struct dry_pages *pages, const Migrd__PrecopyParams *par,
    struct err *e);

/* Half of what it sends goes into memory that is fresh there. */
int dry_probe_send(struct dry_probe *p, struct err *e);

void dry_probe_result(const struct dry_probe *p, struct dry_costs *out);
void dry_probe_free(struct dry_probe **p);

#endif
