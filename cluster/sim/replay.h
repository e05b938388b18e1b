/* SPDX-License-Identifier: ISC */
/*
 * replay: gives the events that a core of a real cluster has recorded (cluster/record.h) to a new
 * core, and prints what it decides.
 */
#ifndef CLUSTER_SIM_REPLAY_H
#define CLUSTER_SIM_REPLAY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

/* `out` NULL: nothing is printed; `verbose`: each event and action, not only decisions. *digest,
 * unless NULL, is actions_digest() of all steps. */
int replay_file(const char *path, bool verbose, FILE *out, uint64_t *digest, struct err *e);

#endif
