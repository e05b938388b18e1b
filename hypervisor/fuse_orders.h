/* SPDX-License-Identifier: ISC */
/*
 * fuse_orders: a driver's side of hv_ops.fuse: what was ordered for each copy, and the pages that
 * the processes read which stop the domains (fuse_page.h). The driver owns the struct; run_dir,
 * the folder of the domains' folders, outlives it. All calls may come from any thread.
 */
#ifndef FUSE_ORDERS_H
#define FUSE_ORDERS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define FUSE_ORDERS_BUCKETS 256u

struct fuse_slot;

struct fuse_orders {
    const char *run_dir;
    pthread_mutex_t lock; /* the slots */
    struct fuse_slot *slot[FUSE_ORDERS_BUCKETS];
};

void fuse_orders_init(struct fuse_orders *f, const char *run_dir);
void fuse_orders_close(struct fuse_orders *f);

/* hv_ops.fuse. */
int fuse_orders_set(
    struct fuse_orders *f, const char *uuid, uint64_t epoch, uint64_t deadline_ms, struct err *e);
/* Can this domain's process be told? */
bool fuse_orders_reach(struct fuse_orders *f, const char *uuid);
/* Around the making of a domain; `begin` gives its page what was ordered for that epoch. */
void fuse_orders_before_start(struct fuse_orders *f, const char *uuid);
int fuse_orders_begin(struct fuse_orders *f, const char *uuid, uint64_t epoch, struct err *e);
/* It has gone, and what was ordered with it. */
void fuse_orders_forget(struct fuse_orders *f, const char *uuid);

#endif
