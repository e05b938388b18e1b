/* SPDX-License-Identifier: ISC */
/*
 * lookup: confirmed names of peers' addresses (acl_resolve), in the pool, without ever
 * starving it: at most LOOKUP_AT_ONCE run, others wait in line, answers (also "no name")
 * are kept LOOKUP_KEEP_S. In the loop's thread.
 */
#ifndef LOOKUP_H
#define LOOKUP_H

#include <sys/socket.h>
#include <uv.h>

#include "base/err.h"

#define LOOKUP_AT_ONCE 4
#define LOOKUP_KEEP_S 30
#define LOOKUP_CACHE 256
#define LOOKUP_LINE_MAX 512

struct lookup;

struct lookup *lookup_new(uv_loop_t *loop);
/* After the loop has ended. Pending callbacks are dropped. */
void lookup_free(struct lookup **l);

/* `name` "" and why it is: not confirmed. */
typedef void lookup_fn(void *arg, const char *name, const char *why);

/* Calls fn at once from the cache, or later. -1: the line is full; fn is not called. */
int lookup_name(struct lookup *l, const struct sockaddr *sa, socklen_t len, const char *address,
    lookup_fn *fn, void *arg);
/* The asker is gone: its callback will not be called. */
void lookup_forget(struct lookup *l, void *arg);

#endif
