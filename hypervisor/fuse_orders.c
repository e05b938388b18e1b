/* SPDX-License-Identifier: ISC */
/*
 * A slot for each uuid that an order was given for: the newest order, and the
 * page that the domain's process reads (fuse_page.h), mapped when there is one. An order for a
 * copy whose process is not there yet waits in the slot; the start puts it into the page. A
 * daemon that was restarted finds the pages of running domains in their folders.
 *
 *   fuse                 slot, and page if there is one; the process is woken if it must stop
 *                        sooner than it knows, or may go on
 *   start, before spawn  the page of a process before is given up
 *   start, spawned       the new page is mapped, and gets the order if it is of that epoch
 *   destroyed            the slot goes
 *
 * The lock is held for memory, and for open and mmap of one small file at most.
 */
#define _GNU_SOURCE
#include "hypervisor/fuse_orders.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "hypervisor/fuse_page.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/rundir.h"

struct fuse_slot {
    struct fuse_slot *next;
    char uuid[HV_UUID_LEN];
    struct fuse_order order; /* the newest; epoch 0: none */
    struct fuse_page *page;
};

void fuse_orders_init(struct fuse_orders *f, const char *run_dir)
{
    memset(f, 0, sizeof *f);
    f->run_dir = run_dir;
    pthread_mutex_init(&f->lock, NULL);
}

static struct fuse_slot **bucket(struct fuse_orders *f, const char *uuid)
{
    unsigned hash = 5381;

    for (; *uuid != '\0'; uuid++)
        hash = hash * 33 + (unsigned char)*uuid;
    return &f->slot[hash % FUSE_ORDERS_BUCKETS];
}

/* Where it is, or where it would be. Under fuse_lock, as all that follows. */
static struct fuse_slot **find(struct fuse_orders *f, const char *uuid)
{
    struct fuse_slot **at = bucket(f, uuid);

    while (*at != NULL && strcmp((*at)->uuid, uuid) != 0)
        at = &(*at)->next;
    return at;
}

static struct fuse_slot *slot_of(struct fuse_orders *f, const char *uuid)
{
    struct fuse_slot **at = find(f, uuid);

    if (*at == NULL && (*at = calloc(1, sizeof **at)) != NULL)
        snprintf((*at)->uuid, sizeof(*at)->uuid, "%s", uuid);
    return *at;
}

static void unmap(struct fuse_slot *s)
{
    if (s->page != NULL)
        munmap(s->page, FUSE_PAGE_LEN);
    s->page = NULL;
}

static void drop(struct fuse_slot **at)
{
    struct fuse_slot *s = *at;

    *at = s->next;
    unmap(s);
    free(s);
}

static bool map(struct fuse_orders *f, struct fuse_slot *s)
{
    char dir[RUNDIR_LEN];

    if (s->page == NULL) {
        snprintf(dir, sizeof dir, "%s/%s", f->run_dir, s->uuid);
        s->page = fuse_page_map(dir, true);
    }
    return s->page != NULL;
}

static void give(struct fuse_page *p, struct fuse_order o)
{
    struct fuse_order before = fuse_page_read(p);
    bool later = before.epoch == o.epoch && o.deadline >= before.deadline &&
                 before.deadline > clock_boot_ms();

    fuse_page_write(p, o);
    if (later)
        return; /* it finds out when it looks at its old deadline */
    fuse_page_wake(p);
}

static int order(struct fuse_orders *f, const char *uuid, struct fuse_order o, struct err *e)
{
    struct fuse_slot *s = slot_of(f, uuid);
    uint64_t seen;

    if (s == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory for its fuse", uuid);
    seen = map(f, s) ? atomic_load(&s->page->epoch) : 0;
    if (o.epoch < seen)
        return err_set(e, ERR_EPOCH,
            "domain %s: a fuse of epoch %" PRIu64 ": its copy has been told of epoch %" PRIu64,
            uuid, o.epoch, seen);
    s->order = o;
    if (s->page != NULL)
        give(s->page, o);
    return 0;
}

int fuse_orders_set(
    struct fuse_orders *f, const char *uuid, uint64_t epoch, uint64_t deadline_ms, struct err *e)
{
    int r;

    if (!rundir_is_uuid(uuid) || epoch == 0)
        return err_set(
            e, ERR_INVALID, "fuse of %.64s, epoch %" PRIu64 ": no such copy", uuid, epoch);
    pthread_mutex_lock(&f->lock);
    r = order(f, uuid, (struct fuse_order){ epoch, deadline_ms }, e);
    pthread_mutex_unlock(&f->lock);
    return r;
}

bool fuse_orders_reach(struct fuse_orders *f, const char *uuid)
{
    struct fuse_slot *s;
    bool there;

    pthread_mutex_lock(&f->lock);
    s = slot_of(f, uuid);
    there = s != NULL && map(f, s);
    pthread_mutex_unlock(&f->lock);
    return there;
}

void fuse_orders_before_start(struct fuse_orders *f, const char *uuid)
{
    struct fuse_slot **at;

    pthread_mutex_lock(&f->lock);
    at = find(f, uuid);
    if (*at != NULL)
        unmap(*at);
    pthread_mutex_unlock(&f->lock);
}

int fuse_orders_begin(struct fuse_orders *f, const char *uuid, uint64_t epoch, struct err *e)
{
    struct fuse_slot *s;
    int r = 0;

    pthread_mutex_lock(&f->lock);
    s = slot_of(f, uuid);
    if (s == NULL || !map(f, s))
        r = err_set(
            e, ERR_SYSTEM, "domain %s: its fuse cannot be mapped: %s", uuid, strerror(errno));
    else if (s->order.epoch == epoch)
        give(s->page, s->order);
    pthread_mutex_unlock(&f->lock);
    return r;
}

void fuse_orders_forget(struct fuse_orders *f, const char *uuid)
{
    struct fuse_slot **at;

    pthread_mutex_lock(&f->lock);
    at = find(f, uuid);
    if (*at != NULL)
        drop(at);
    pthread_mutex_unlock(&f->lock);
}

void fuse_orders_close(struct fuse_orders *f)
{
    for (unsigned i = 0; i < FUSE_ORDERS_BUCKETS; i++)
        while (f->slot[i] != NULL)
            drop(&f->slot[i]);
    pthread_mutex_destroy(&f->lock);
}
