/* SPDX-License-Identifier: ISC */
/* The classes of spare buffers are powers of two from 4 KiB on, so that a buffer serves again. */
#include "storage-check/disk_held.h"

#include <stdlib.h>

#define SMALLEST 4096u
#define SPARE_MAX HELD_COMMIT

static uint8_t zero_bytes[1u << 20]; /* never written */

static unsigned class_of(uint32_t len)
{
    unsigned c = 0;

    while (c + 1 < HELD_CLASSES && (SMALLEST << c) < len)
        c++;
    return c;
}

struct held_piece *held_take(struct held *h, uint64_t offset, uint32_t len, bool zeroes)
{
    unsigned c = zeroes ? 0 : class_of(len);
    struct held_piece *p = h->spare[c];

    if (p != NULL) {
        h->spare[c] = p->next;
        h->spare_bytes -= SMALLEST << c;
    } else {
        p = malloc(sizeof *p + (SMALLEST << c));
        if (p == NULL)
            return NULL;
    }
    p->next = NULL;
    p->offset = offset;
    p->seq = 0;
    p->len = len;
    p->size_class = c;
    p->bytes = zeroes ? zero_bytes : p->data;
    h->taken += len;
    return p;
}

static void put_away(struct held *h, struct held_piece *p)
{
    uint64_t size = SMALLEST << p->size_class;

    if (h->spare_bytes + size > SPARE_MAX) {
        free(p);
        return;
    }
    h->spare_bytes += size;
    p->next = h->spare[p->size_class];
    h->spare[p->size_class] = p;
}

void held_give(struct held *h, struct held_piece *p)
{
    h->taken -= p->len;
    put_away(h, p);
}

void held_add(struct held *h, struct held_piece *p)
{
    h->taken -= p->len;
    h->bytes += p->len;
    p->seq = ++h->seq;
    p->next = NULL;
    *(h->last != NULL ? &h->last->next : &h->first) = p;
    h->last = p;
}

void held_drop(struct held *h, uint64_t seq)
{
    while (h->first != NULL && h->first->seq <= seq) {
        struct held_piece *p = h->first;

        h->first = p->next;
        if (h->first == NULL)
            h->last = NULL;
        h->bytes -= p->len;
        put_away(h, p);
    }
}

bool held_room(const struct held *h, uint64_t len)
{
    return h->bytes + h->taken == 0 || h->bytes + h->taken + len <= HELD_MAX;
}

void held_dispose(struct held *h)
{
    held_drop(h, UINT64_MAX);
    for (unsigned c = 0; c < HELD_CLASSES; c++)
        while (h->spare[c] != NULL) {
            struct held_piece *p = h->spare[c];

            h->spare[c] = p->next;
            free(p);
        }
    h->spare_bytes = 0;
}
