/* SPDX-License-Identifier: ISC */
/*
 * held: copies of what was written to an NFS server that may still forget it. NFSv3's quick
 * writes are in the server's memory until a COMMIT; each answer carries the server's write
 * verifier, which changes when it restarts. Until a COMMIT with the same verifier the data must be
 * kept, and written again if the verifier is another one. Buffers are kept for the next writes
 * within a limit. One thread's.
 */
#ifndef STORAGE_CHECK_DISK_HELD_H
#define STORAGE_CHECK_DISK_HELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HELD_COMMIT (UINT64_C(32) << 20) /* so many bytes are worth a COMMIT of their own */
#define HELD_MAX (UINT64_C(64) << 20)    /* with so many, writes wait for it */

#define HELD_CLASSES 10u /* 4 KiB .. 2 MiB */

struct held_piece {
    struct held_piece *next;
    uint64_t offset, seq;
    uint32_t len;
    unsigned size_class;
    const uint8_t *bytes; /* zeroes, or `data` */
    uint8_t data[];
};

struct held {
    struct held_piece *first, *last; /* in the order in which they were done */
    uint64_t bytes;                  /* of these */
    uint64_t taken;                  /* of pieces that are neither here nor spare */
    uint64_t seq;                    /* of the last one */
    struct held_piece *spare[HELD_CLASSES];
    uint64_t spare_bytes;
};

/* A piece to fill and write; `zeroes`: it has no room, its bytes are zeroes. NULL: no memory.
 * `len` is at most 1 MiB. */
struct held_piece *held_take(struct held *h, uint64_t offset, uint32_t len, bool zeroes);
/* Back, without being held. */
void held_give(struct held *h, struct held_piece *p);
/* It was written, not committed. */
void held_add(struct held *h, struct held_piece *p);
/* All up to `seq` is safe. */
void held_drop(struct held *h, uint64_t seq);
/* Is there room for one more of that length? One piece always fits. */
bool held_room(const struct held *h, uint64_t len);
void held_dispose(struct held *h);

#endif
