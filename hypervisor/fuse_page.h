/* SPDX-License-Identifier: ISC */
/*
 * fuse_page: the one page of memory that migrd and the process that can stop a domain share,
 * RUN_DIR/<uuid>/fuse. The file is made before the domain can be found; the process maps it for
 * reading only, migrd for writing, under a lock of its own (fuse_orders.h). Neither trusts its
 * length or content: it is never truncated, and what it says is an epoch and a time.
 *
 * Epoch and deadline can't be written at once. The deadline is 0 while the epoch changes, and the
 * epoch only grows, so a reader who sees the same epoch before and after has a deadline of that
 * very epoch, or 0: blown. A writer who dies in between leaves a blown fuse.
 */
#ifndef HV_FUSE_PAGE_H
#define HV_FUSE_PAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define FUSE_FILE "fuse"
#define FUSE_PAGE_LEN 4096u
#define FUSE_MAGIC UINT64_C(0x31657375665f6768)

struct fuse_page {
    uint64_t magic;
    _Atomic uint64_t epoch;    /* of the copy that the deadline is for; 0: none was ever set */
    _Atomic uint64_t deadline; /* as in hv_ops.fuse */
    _Atomic uint32_t turn;     /* changes when the process must look before the old deadline */
};

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
    "shared with another process: no hidden lock");

struct fuse_order {
    uint64_t epoch, deadline;
};

static inline struct fuse_order fuse_page_read(const struct fuse_page *page)
{
    struct fuse_page *p = (struct fuse_page *)page; /* C11 loads atomics through no const */
    struct fuse_order o;

    do {
        o.epoch = atomic_load(&p->epoch);
        o.deadline = atomic_load(&p->deadline);
    } while (atomic_load(&p->epoch) != o.epoch);
    return o;
}

/* One writer at a time. */
static inline void fuse_page_write(struct fuse_page *p, struct fuse_order o)
{
    if (atomic_load(&p->epoch) != o.epoch) {
        atomic_store(&p->deadline, 0);
        atomic_store(&p->epoch, o.epoch);
    }
    atomic_store(&p->deadline, o.deadline);
}

/* Such a page, `name` in a domain's folder, which begins with a magic number: made (one that is
 * there is refused), and mapped: NULL if there is none that can be. */
int fuse_file_make(const char *dir, const char *name, const void *start, size_t len, struct err *e);
void *fuse_file_map(const char *dir, const char *name, uint64_t magic, bool writing);

/* Makes the file in a domain's folder; refuses one that is there. */
int fuse_page_make(const char *dir, struct err *e);
/* NULL if there is none that can be mapped; unmap with munmap(page, FUSE_PAGE_LEN). */
struct fuse_page *fuse_page_map(const char *dir, bool writing);

/* Who watches it looks at once. The page must be mapped for writing. */
void fuse_page_wake(struct fuse_page *p);
/* Until somebody wakes it, or for so long; `turn` as it was before it looked. */
void fuse_page_wait(const struct fuse_page *p, uint32_t turn, unsigned ms);

/* May a copy of `epoch` run now? The table is at the top of xvm/fuse.c. */
bool fuse_order_lit(struct fuse_order o, bool begun_blown, uint64_t epoch);
/* Why it may not, for people. */
void fuse_order_reason(struct fuse_order o, uint64_t epoch, char *text, size_t size);
/* Time in ms that a watcher may sleep, if nobody wakes it: LOOK_MS at most. */
unsigned fuse_order_sleep_ms(struct fuse_order o);

#endif
