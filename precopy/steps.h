/* SPDX-License-Identifier: ISC */
/*
 * steps: where the pause goes. A list of steps that follow one another, as one thread took
 * them, and of what others did in the time of one of them. Owns its strings; lives inside
 * the struct of a source or target, nothing to free.
 */
#ifndef STEPS_H
#define STEPS_H

#include <stdint.h>

#include "precopy/worker.pb-c.h"
#include "transport/transport.h"

#define STEPS_MAX 32
#define STEPS_OF_TARGET_MAX 16 /* of a Running */
#define STEP_NAME_LEN 32

struct steps {
    uint64_t at_ns; /* the step under way began then */
    unsigned n;
    char name[STEPS_MAX][STEP_NAME_LEN];
    Migrd__PauseStep step[STEPS_MAX], *ptr[STEPS_MAX];
};

void steps_begin(struct steps *s);
/* Ends the step that began at the last call; the next one begins. */
void steps_end(struct steps *s, const char *name);
/* What `where` did within a step; both are literals. */
void steps_within(
    struct steps *s, const char *name, uint64_t us, const char *within, const char *where);

/* The target's steps in its own report and, of a Running, in the source's: within the step in
 * which the source waited for them. Names come from a peer: what is not a plain word, or too
 * many, is left out. */
void steps_target(struct steps *s, const char *name, uint64_t us);
void steps_take(struct steps *s, const Migrd__Running *r);

/* The steps as a Running carries them; `store` holds what `r` points to. */
struct steps_store {
    Migrd__TargetStep step[STEPS_OF_TARGET_MAX], *ptr[STEPS_OF_TARGET_MAX];
};
void steps_give(const struct steps *s, struct steps_store *store, Migrd__Running *r);

#endif
