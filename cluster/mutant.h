/* SPDX-License-Identifier: ISC */
/*
 * mutant: deliberate bugs of the core, to see whether the oracles see them. A build of the core
 * with -DHA_MUTANTS asks mutant(N) at five places; every other build has the constant false there,
 * and nothing to choose.
 *
 *   1 MUTANT_VOTE     a vote that a node's lease is over does not wait for `proof`
 *   2 MUTANT_ACK      beats are acknowledged after such a vote
 *   3 MUTANT_COMMIT   an entry counts as committed when its own delivery is on the own disk
 *   4 MUTANT_FUSE     a fuse is renewed without a majority's acknowledgement
 *   5 MUTANT_HANDOVER HANDOVER does not look whose the domain is, and under which epoch
 */
#ifndef CLUSTER_MUTANT_H
#define CLUSTER_MUTANT_H

#include <stdbool.h>

enum { MUTANT_NONE, MUTANT_VOTE, MUTANT_ACK, MUTANT_COMMIT, MUTANT_FUSE, MUTANT_HANDOVER };
#define MUTANTS 5

#ifdef HA_MUTANTS
extern unsigned mutant_chosen;
#define mutant(n) (mutant_chosen == (n))
#else
#define mutant(n) false
#endif

/* false: this build has none. */
bool mutant_choose(unsigned n);

#endif
