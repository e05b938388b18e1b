/* SPDX-License-Identifier: ISC */
/*
 * heap: a binary heap of events by (time, seq): events of the same instant come in the order in
 * which they were made, so that a run is the same each time. And the bytes that they share.
 */
#include <stdlib.h>
#include <string.h>

#include "cluster/sim/world.h"

struct blob *blob_make(struct world *w, const uint8_t *bytes, size_t len)
{
    struct blob *b = malloc(sizeof *b + len);

    if (b == NULL) {
        w->no_memory = true;
        return NULL;
    }
    b->refs = 1;
    b->len = len;
    if (len > 0)
        memcpy(b->bytes, bytes, len);
    return b;
}

struct blob *blob_hold(struct blob *b)
{
    if (b != NULL)
        b->refs++;
    return b;
}

void blob_drop(struct blob *b)
{
    if (b != NULL && --b->refs == 0)
        free(b);
}

static bool before(const struct event *a, const struct event *b)
{
    return a->at < b->at || (a->at == b->at && a->seq < b->seq);
}

bool heap_push(struct heap *h, const struct event *e)
{
    size_t i = h->n;

    if (h->n == h->room) {
        size_t room = h->room > 0 ? 2 * h->room : 256;
        struct event *more = realloc(h->event, room * sizeof *more);

        if (more == NULL)
            return false;
        h->event = more;
        h->room = room;
    }
    h->event[i] = *e;
    h->event[i].seq = h->seq++;
    h->n++;
    for (size_t up; i > 0 && before(&h->event[i], &h->event[up = (i - 1) / 2]); i = up) {
        struct event t = h->event[i];

        h->event[i] = h->event[up];
        h->event[up] = t;
    }
    return true;
}

bool heap_pop(struct heap *h, struct event *e)
{
    size_t i = 0;
    struct event last;

    if (h->n == 0)
        return false;
    *e = h->event[0];
    last = h->event[--h->n];
    for (size_t c; (c = 2 * i + 1) < h->n; i = c) {
        if (c + 1 < h->n && before(&h->event[c + 1], &h->event[c]))
            c++;
        if (!before(&h->event[c], &last))
            break;
        h->event[i] = h->event[c];
    }
    if (h->n > 0)
        h->event[i] = last;
    return true;
}

void heap_free(struct heap *h)
{
    for (size_t i = 0; i < h->n; i++)
        blob_drop(h->event[i].blob);
    free(h->event);
    memset(h, 0, sizeof *h);
}
