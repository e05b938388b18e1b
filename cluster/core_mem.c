/* SPDX-License-Identifier: ISC */
/* Memory of a step: blocks that are filled one after the other and emptied at once. Out of memory
 * is a jump, so that no caller has to look. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "cluster/core_internal.h"

#define BLOCK ((size_t)16 << 10)
#define ALIGN ((size_t)16)

struct ha_block {
    struct ha_block *next;
    size_t size, used;
    _Alignas(16) uint8_t data[];
};

void arena_init(struct ha_arena *a, jmp_buf *oom)
{
    *a = (struct ha_arena){ .oom = oom };
}

static void blocks_free(struct ha_block *b)
{
    while (b) {
        struct ha_block *next = b->next;

        free(b);
        b = next;
    }
}

void arena_reset(struct ha_arena *a)
{
    struct ha_block *last = a->block;

    if (!last)
        return;
    while (last->next) {
        struct ha_block *next = last->next;

        free(last);
        last = next;
    }
    a->block = last;
    last->used = 0;
}

void arena_free(struct ha_arena *a)
{
    blocks_free(a->block);
    a->block = NULL;
}

/* The first block, the last of the list, is an ordinary one and stays for ever. */
static struct ha_block *block_add(struct ha_arena *a, size_t n)
{
    size_t size = a->block && n > BLOCK ? n : BLOCK;
    struct ha_block *b = malloc(sizeof *b + size);

    if (!b)
        longjmp(*a->oom, 1);
    b->size = size;
    b->used = 0;
    b->next = a->block;
    a->block = b;
    return b;
}

void *arena_alloc(struct ha_arena *a, size_t n)
{
    struct ha_block *b = a->block;
    void *p;

    n = (n + ALIGN - 1) & ~(ALIGN - 1);
    while (!b || b->size - b->used < n)
        b = block_add(a, n);
    p = b->data + b->used;
    b->used += n;
    memset(p, 0, n);
    return p;
}

char *arena_text(struct ha_arena *a, const char *fmt, ...)
{
    char buf[500];
    va_list ap;
    char *p;
    size_t n;

    va_start(ap, fmt);
    vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    n = strlen(buf) + 1;
    p = arena_alloc(a, n);
    memcpy(p, buf, n);
    return p;
}

static void *pb_alloc(void *data, size_t n)
{
    return arena_alloc(data, n);
}

static void pb_free(void *data, void *p)
{
    (void)data;
    (void)p;
}

ProtobufCAllocator arena_protobuf(struct ha_arena *a)
{
    return (ProtobufCAllocator){ .alloc = pb_alloc, .free = pb_free, .allocator_data = a };
}

void *arena_keep(struct ha_arena *a, void *old, size_t n)
{
    void *p = realloc(old, n ? n : 1);

    if (!p)
        longjmp(*a->oom, 1);
    return p;
}

char *ha_text(char *buf, size_t size, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(buf, size, fmt, ap);
    va_end(ap);
    return buf;
}

void ha_copy(char *to, size_t size, const char *from)
{
    size_t n = strnlen(from, size - 1);

    memcpy(to, from, n);
    to[n] = 0;
}
