/* SPDX-License-Identifier: ISC */
/*
 * store: what the decision core has told this node's disk (HA_ACT_PERSIST), in one file. Writes
 * are done by a thread of its own, several that wait by one sync; their end is told in the loop,
 * in their order. What the disk refuses is never told as written: it is said once, and tried again
 * until it works. The store owns copies of its records; all calls come from the loop's thread.
 */
#ifndef CLUSTER_STORE_H
#define CLUSTER_STORE_H

#include <uv.h>

#include "cluster/core.h"

#define STORE_RECORD_MAX (100u << 20) /* the core's state is at most 64 MiB */
#define STORE_RECORDS_MAX 1000000u
#define STORE_FILE_MAX (512u << 20)

struct store;

struct store_callbacks {
    /* `id` and all that were put before it are on the disk. */
    void (*persisted)(void *arg, uint64_t id);
    /* The disk refuses: `text` has the object, the reason, the way out; said once. NULL: it works
     * again. */
    void (*trouble)(void *arg, const char *text);
};

/* Reads the file at `path`; there need be none. -1: it can't be read, or is damaged elsewhere than
 * at its end; *e has the way out. Blocks. After a failure `*out` is to be closed where it is not
 * NULL, once the loop has run its close callbacks. */
int store_open(uv_loop_t *loop, const char *path, const struct store_callbacks *cb, void *arg,
    struct store **out, struct err *e);
/* `whole` replaces what is there. Ids grow. -1: no memory, or more than the limits: nothing may
 * count as written from then on. */
int store_put(
    struct store *s, uint64_t id, const uint8_t *bytes, size_t len, bool whole, struct err *e);
/* All that counts, oldest first, also what is still being written; good until the next call of
 * store_put or the next callback. NULL: no memory. */
const struct ha_record *store_records(struct store *s, size_t *n);
/* Everything that was put has been told as written. */
bool store_idle(const struct store *s);
/* The newest and the slowest synced write; how long the oldest record waits already, 0 none. */
struct store_figures {
    uint64_t last_us, max_us, waiting_us;
};
void store_figures(struct store *s, struct store_figures *out);
/* Waits for the write that is under way, writes what waits once; no callback after it. */
void store_stop(struct store *s);
/* After the loop has run its close callbacks. */
void store_close(struct store **s);

/* The reader: calls `record` for each of them; *good: bytes of the file that are
 * right, what is behind is a torn end. -1: not such a file, or damaged before its end. */
typedef int store_record(void *arg, const uint8_t *bytes, size_t len, bool whole, struct err *e);
int store_parse(
    const uint8_t *bytes, size_t len, store_record *record, void *arg, size_t *good, struct err *e);

#endif
