/* SPDX-License-Identifier: ISC */
#include "precopy/steps.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"

/* What a target does, and when: between FinalState and Ready, or between Go and Running. */
static const struct {
    const char *name, *within, *where;
} known[] = {
    { "last-pages", "ready", "target" },
    { "state-load", "ready", "target" },
    { "compare", "ready", "target" },
    { "note-ready", "ready", "target's migrd" },
    { "journal", "running", "target's migrd" },
    { "resume", "running", "target's migrd" },
};

void steps_begin(struct steps *s)
{
    s->at_ns = clock_ns();
}

static void add(
    struct steps *s, const char *name, uint64_t us, const char *within, const char *where)
{
    Migrd__PauseStep *p = &s->step[s->n];

    if (s->n == STEPS_MAX)
        return;
    migrd__pause_step__init(p);
    snprintf(s->name[s->n], STEP_NAME_LEN, "%s", name);
    p->name = s->name[s->n];
    p->us = us;
    p->within = (char *)(uintptr_t)within;
    p->where = (char *)(uintptr_t)where;
    s->ptr[s->n++] = p;
}

void steps_end(struct steps *s, const char *name)
{
    uint64_t now = clock_ns();

    add(s, name, (now - s->at_ns) / NS_PER_US, "", "");
    s->at_ns = now;
}

void steps_within(
    struct steps *s, const char *name, uint64_t us, const char *within, const char *where)
{
    add(s, name, us, within, where);
}

void steps_target(struct steps *s, const char *name, uint64_t us)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].name, name) == 0) {
            add(s, name, us, known[i].within, known[i].where);
            return;
        }
    add(s, name, us, "running", "target");
}

static int is_word(const char *name)
{
    size_t n = strlen(name);

    return n > 0 && n < STEP_NAME_LEN && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

void steps_take(struct steps *s, const Migrd__Running *r)
{
    for (size_t i = 0; i < r->n_steps && i < STEPS_OF_TARGET_MAX; i++)
        if (is_word(r->steps[i]->name))
            steps_target(s, r->steps[i]->name, r->steps[i]->us);
}

void steps_give(const struct steps *s, struct steps_store *store, Migrd__Running *r)
{
    unsigned n = s->n < STEPS_OF_TARGET_MAX ? s->n : STEPS_OF_TARGET_MAX;

    for (unsigned i = 0; i < n; i++) {
        migrd__target_step__init(&store->step[i]);
        store->step[i].name = s->step[i].name;
        store->step[i].us = s->step[i].us;
        store->ptr[i] = &store->step[i];
    }
    r->n_steps = n;
    r->steps = store->ptr;
}
