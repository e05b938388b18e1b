/* SPDX-License-Identifier: ISC */
/*
 * What lasts no longer than the client that began it:
 *
 *   HELD      source, from Begin on: others leave the domain alone. Ends with Perform,
 *             Confirm, the client, or after HELD_S
 *   RUNS      source, Perform: when the client goes before the answer, the migration is
 *             cancelled, unless it has passed its commit: then it ends as it would
 *   GIVEN     source, Confirm of a definition alone: as HELD, until the record of its new owner
 *             is durable, however long that takes, with a client or without
 *   EXPECTED  target, Prepare of a definition alone: its epoch, for Finish
 *
 * None of it is written anywhere: a restart of migrd ends it too.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrd/libvirt/migrate.h"

#define HELD_S 60
#define MOVES_MAX 32 /* of one client, besides its calls */

static const char held_text[] = "it is about to be migrated by virsh";

struct lv_move *lv_move_new(struct lv_call *k, enum lv_move_kind kind, const char *uuid)
{
    struct libvirt *lv = k->m->libvirt;
    struct lv_move *mv;
    unsigned n = 0;

    for (mv = lv->moves; mv != NULL; mv = mv->next)
        n += mv->c == k->c && mv->kind != LV_MOVE_RUNS;
    mv = n < MOVES_MAX || kind == LV_MOVE_RUNS ? calloc(1, sizeof *mv) : NULL;
    if (mv == NULL)
        return NULL;
    mv->kind = kind;
    mv->c = k->c;
    mv->since_ns = clock_ns();
    memcpy(mv->uuid, uuid, sizeof mv->uuid);
    mv->next = lv->moves;
    lv->moves = mv;
    return mv;
}

struct lv_move *lv_move_find(const struct lv_call *k, enum lv_move_kind kind, const char *uuid)
{
    for (struct lv_move *mv = k->m->libvirt->moves; mv != NULL; mv = mv->next)
        if (mv->c == k->c && mv->kind == kind && strcmp(mv->uuid, uuid) == 0)
            return mv;
    return NULL;
}

void lv_move_end(struct migrd *m, struct lv_move **mv)
{
    struct lv_move *old = *mv;

    *mv = NULL;
    if (old == NULL)
        return;
    for (struct lv_move **p = &m->libvirt->moves; *p != NULL; p = &(*p)->next)
        if (*p == old) {
            *p = old->next;
            break;
        }
    if (old->kind == LV_MOVE_HELD || old->kind == LV_MOVE_GIVEN)
        registry_unhold(m, old->uuid, held_text);
    free(old);
}

int lv_move_hold(struct lv_call *k, struct domain *d, struct err *e)
{
    struct lv_move *mv = lv_move_find(k, LV_MOVE_HELD, d->uuid);

    lv_move_end(k->m, &mv); /* the same client begins again */
    mv = lv_move_new(k, LV_MOVE_HELD, d->uuid);
    if (mv == NULL)
        return lv_fail(k, e, LV_E_BUSY, "this client has begun too many migrations");
    if (registry_hold(d, held_text, e) == 0)
        return 0;
    lv_move_end(k->m, &mv);
    return -1;
}

/* Afterwards it may be over, and `mv` with it. */
static void cancel(struct migrd *m, struct lv_move *mv)
{
    char uuid[sizeof mv->uuid];
    struct err e;

    memcpy(uuid, mv->uuid, sizeof uuid);
    mv->c = NULL;
    if (migration_cancel(m, mv->g, &e) == 0)
        log_warn("libvirt", "%s: its virsh is gone: the migration is cancelled", uuid);
    else
        log_warn("libvirt", "%s: its virsh is gone: %s", uuid, e.text);
}

static struct lv_move *of_client(const struct lv_conn *c)
{
    struct lv_move *mv = c->m->libvirt->moves;

    while (mv != NULL && mv->c != c)
        mv = mv->next;
    return mv;
}

void lv_moves_forget(struct lv_conn *c)
{
    struct lv_move *mv;

    /* Each may end others: clients are told, and one that does not read is cut off. */
    while ((mv = of_client(c)) != NULL)
        if (mv->kind == LV_MOVE_RUNS)
            cancel(c->m, mv);
        else
            lv_move_end(c->m, &mv);
}

void lv_moves_tick(struct migrd *m, uint64_t now)
{
    struct lv_move *mv, *next;

    for (mv = m->libvirt->moves; mv != NULL; mv = next) {
        next = mv->next;
        if (mv->kind == LV_MOVE_HELD && now > mv->since_ns + HELD_S * NS_PER_S)
            lv_move_end(m, &mv);
    }
}
