/* SPDX-License-Identifier: ISC */
#include "migrd/lookup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "migrd/job.h"
#include "relocation-acl/relocation-acl.h"

struct answer {
    char address[64];
    char name[ACL_NAME_LEN], why[256];
    uint64_t until_ns;
};

/* One asker; those of the same address share a job. */
struct ask {
    struct ask *next;
    struct sockaddr_storage sa;
    socklen_t len;
    char address[64];
    lookup_fn *fn;
    void *arg;
    bool running;
};

struct lookup {
    uv_loop_t *loop;
    struct answer cache[LOOKUP_CACHE];
    struct ask *line, **tail;
    unsigned waiting, running;
};

struct lookup_job {
    struct job job; /* first */
    struct lookup *l;
    struct sockaddr_storage sa;
    socklen_t len;
    struct answer answer;
};

struct lookup *lookup_new(uv_loop_t *loop)
{
    struct lookup *l = calloc(1, sizeof *l);

    if (l == NULL)
        return NULL;
    l->loop = loop;
    l->tail = &l->line;
    return l;
}

void lookup_free(struct lookup **lp)
{
    struct lookup *l = *lp;

    if (l == NULL)
        return;
    *lp = NULL;
    while (l->line != NULL) {
        struct ask *a = l->line;

        l->line = a->next;
        free(a);
    }
    free(l);
}

static struct answer *cached(struct lookup *l, const char *address)
{
    uint64_t now = clock_ns();

    for (size_t i = 0; i < LOOKUP_CACHE; i++)
        if (l->cache[i].until_ns > now && strcmp(l->cache[i].address, address) == 0)
            return &l->cache[i];
    return NULL;
}

static void keep(struct lookup *l, const struct answer *a)
{
    struct answer *oldest = &l->cache[0];

    for (size_t i = 1; i < LOOKUP_CACHE; i++)
        if (l->cache[i].until_ns < oldest->until_ns)
            oldest = &l->cache[i];
    *oldest = *a;
    oldest->until_ns = clock_ns() + LOOKUP_KEEP_S * NS_PER_S;
}

static void work(struct job *j)
{
    struct lookup_job *lj = (struct lookup_job *)j;

    acl_resolve((struct sockaddr *)&lj->sa, lj->len, lj->answer.name, lj->answer.why,
        sizeof lj->answer.why);
}

static void start_some(struct lookup *l);

/* Everybody who asked for this address, taken out of the line first: a callback may ask again. */
static void tell(struct lookup *l, const struct answer *a)
{
    struct ask **p = &l->line, *due = NULL, **due_tail = &due;

    while (*p != NULL) {
        struct ask *k = *p;

        if (strcmp(k->address, a->address) != 0) {
            p = &k->next;
            continue;
        }
        *p = k->next;
        k->next = NULL;
        *due_tail = k;
        due_tail = &k->next;
        l->waiting--;
    }
    l->tail = p;
    while (due != NULL) {
        struct ask *k = due;

        due = k->next;
        if (k->fn != NULL)
            k->fn(k->arg, a->name, a->why);
        free(k);
    }
}

static void done(struct job *j)
{
    struct lookup_job *lj = (struct lookup_job *)j;
    struct lookup *l = lj->l;

    l->running--;
    keep(l, &lj->answer);
    tell(l, &lj->answer);
    free(lj);
    start_some(l);
}

static bool start_one(struct lookup *l, struct ask *a)
{
    struct lookup_job *lj = calloc(1, sizeof *lj);

    if (lj == NULL)
        return false;
    lj->job.work = work;
    lj->job.done = done;
    lj->l = l;
    lj->sa = a->sa;
    lj->len = a->len;
    memcpy(lj->answer.address, a->address, sizeof a->address);
    for (struct ask *k = a; k != NULL; k = k->next)
        if (strcmp(k->address, a->address) == 0)
            k->running = true;
    l->running++;
    job_run(l->loop, &lj->job);
    return true;
}

static void start_some(struct lookup *l)
{
    for (struct ask *a = l->line; a != NULL && l->running < LOOKUP_AT_ONCE; a = a->next)
        if (!a->running && !start_one(l, a))
            return;
}

int lookup_name(struct lookup *l, const struct sockaddr *sa, socklen_t len, const char *address,
    lookup_fn *fn, void *arg)
{
    const struct answer *c = cached(l, address);
    struct ask *a;

    if (c != NULL) {
        struct answer copy = *c;

        fn(arg, copy.name, copy.why);
        return 0;
    }
    if (l->waiting >= LOOKUP_LINE_MAX || (a = calloc(1, sizeof *a)) == NULL)
        return -1;
    memcpy(&a->sa, sa, len);
    a->len = len;
    snprintf(a->address, sizeof a->address, "%s", address);
    a->fn = fn;
    a->arg = arg;
    for (struct ask *k = l->line; k != NULL; k = k->next)
        if (k->running && strcmp(k->address, address) == 0)
            a->running = true;
    *l->tail = a;
    l->tail = &a->next;
    l->waiting++;
    start_some(l);
    return 0;
}

void lookup_forget(struct lookup *l, void *arg)
{
    struct ask **p = &l->line;

    while (*p != NULL) {
        struct ask *a = *p;

        if (a->arg == arg && !a->running) { /* its place is for those who still wait */
            *p = a->next;
            l->waiting--;
            free(a);
            continue;
        }
        if (a->arg == arg)
            a->fn = NULL;
        p = &a->next;
    }
    l->tail = p;
}
