/* SPDX-License-Identifier: ISC */
/*
 * shrink: drops what a failing plan does not need: faults in ever smaller groups, noises, domains,
 * time. A change stays if the same oracle breaks. What a run draws hangs on time and purpose, not
 * on how much was drawn before, so what is left behaves much as it did.
 */
#include <string.h>

#include "cluster/sim/sim.h"

struct search {
    struct sim_plan *plan;
    const char *oracle;
    unsigned runs, runs_max;
};

/* Keeps `p` if it still fails. */
static bool fails(struct search *s, const struct sim_plan *p)
{
    struct sim_outcome o;
    struct err e;

    if (s->runs >= s->runs_max)
        return false;
    s->runs++;
    if (sim_run(p, NULL, &o, &e) < 0 || o.oracle == NULL || strcmp(o.oracle, s->oracle) != 0)
        return false;
    *s->plan = *p;
    return true;
}

static bool drop_faults(struct search *s, unsigned first, unsigned n)
{
    struct sim_plan p = *s->plan;

    memmove(p.fault + first, p.fault + first + n, (p.faults - first - n) * sizeof *p.fault);
    p.faults -= n;
    return fails(s, &p);
}

static void fewer_faults(struct search *s)
{
    for (unsigned n = s->plan->faults; n > 0; n /= 2)
        for (unsigned first = 0; first + n <= s->plan->faults;)
            if (!drop_faults(s, first, n))
                first += n;
}

static void less_noise(struct search *s)
{
    for (unsigned i = 0; i < SIM_NOISES; i++) {
        struct sim_plan p = *s->plan;

        if (p.noise[i] == 0)
            continue;
        p.noise[i] = 0;
        fails(s, &p);
    }
}

/* The last domain, unless a fault names it. */
static void fewer_domains(struct search *s)
{
    for (bool again = true; again && s->plan->domains > 1;) {
        struct sim_plan p = *s->plan;
        char text[200], last[24];

        p.domains--;
        snprintf(last, sizeof last, " domain %u ", s->plan->domains);
        for (unsigned i = 0; i < p.faults; i++) {
            sim_fault_text(&p.fault[i], text, sizeof text - 1);
            strcat(text, " ");
            if (strstr(text, last) != NULL)
                return;
        }
        again = fails(s, &p);
    }
}

static void sooner(struct search *s)
{
    for (bool again = true; again;) {
        struct sim_plan p = *s->plan;

        p.horizon_ms = p.horizon_ms * 3 / 4;
        again = p.horizon_ms > 100 && fails(s, &p);
    }
}

unsigned sim_shrink(struct sim_plan *p, const char *oracle, unsigned runs_max)
{
    struct search s = { .plan = p, .oracle = oracle, .runs_max = runs_max };
    unsigned before;

    do {
        before = p->faults;
        fewer_faults(&s);
        less_noise(&s);
        fewer_domains(&s);
        sooner(&s);
    } while (p->faults < before && s.runs < runs_max);
    return s.runs;
}
