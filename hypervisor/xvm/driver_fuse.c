/* SPDX-License-Identifier: ISC */
/*
 * Fuses, migrd's side. A slot for each uuid that an order was given for: the newest order, and the
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
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "hypervisor/xvm/driver_internal.h"
#include "hypervisor/xvm/fuse_page.h"

struct fuse_slot {
    struct fuse_slot *next;
    char uuid[HV_UUID_LEN];
    struct fuse_order order; /* the newest; epoch 0: none */
    struct fuse_page *page;
};

static struct fuse_slot **bucket(struct hv *hv, const char *uuid)
{
    unsigned hash = 5381;

    for (; *uuid != '\0'; uuid++)
        hash = hash * 33 + (unsigned char)*uuid;
    return &hv->fuse[hash % FUSE_BUCKETS];
}

/* Where it is, or where it would be. Under fuse_lock, as all that follows. */
static struct fuse_slot **find(struct hv *hv, const char *uuid)
{
    struct fuse_slot **at = bucket(hv, uuid);

    while (*at != NULL && strcmp((*at)->uuid, uuid) != 0)
        at = &(*at)->next;
    return at;
}

static struct fuse_slot *slot_of(struct hv *hv, const char *uuid)
{
    struct fuse_slot **at = find(hv, uuid);

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

static bool map(struct hv *hv, struct fuse_slot *s)
{
    char dir[RUNDIR_LEN], path[RUNDIR_LEN + sizeof "/" FUSE_FILE];
    struct stat st;
    void *p = MAP_FAILED;
    int fd;

    if (s->page != NULL)
        return true;
    driver_dir(hv, s->uuid, dir);
    snprintf(path, sizeof path, "%s/" FUSE_FILE, dir);
    fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= FUSE_PAGE_LEN)
        p = mmap(NULL, FUSE_PAGE_LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    close(fd);
    if (p == MAP_FAILED)
        return false;
    s->page = p;
    if (s->page->magic != FUSE_MAGIC)
        unmap(s);
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
    atomic_fetch_add(&p->turn, 1);
    syscall(SYS_futex, &p->turn, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static int order(struct hv *hv, const char *uuid, struct fuse_order o, struct err *e)
{
    struct fuse_slot *s = slot_of(hv, uuid);
    uint64_t seen;

    if (s == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory for its fuse", uuid);
    seen = map(hv, s) ? atomic_load(&s->page->epoch) : 0;
    if (o.epoch < seen)
        return err_set(e, ERR_EPOCH,
            "domain %s: a fuse of epoch %" PRIu64 ": its copy has been told of epoch %" PRIu64,
            uuid, o.epoch, seen);
    s->order = o;
    if (s->page != NULL)
        give(s->page, o);
    return 0;
}

int driver_fuse(
    struct hv *hv, const char *uuid, uint64_t epoch, uint64_t deadline_ms, struct err *e)
{
    int r;

    if (!rundir_is_uuid(uuid) || epoch == 0)
        return err_set(
            e, ERR_INVALID, "fuse of %.64s, epoch %" PRIu64 ": no such copy", uuid, epoch);
    pthread_mutex_lock(&hv->fuse_lock);
    r = order(hv, uuid, (struct fuse_order){ epoch, deadline_ms }, e);
    pthread_mutex_unlock(&hv->fuse_lock);
    return r;
}

bool fuses_reach(struct hv *hv, const char *uuid)
{
    struct fuse_slot *s;
    bool there;

    pthread_mutex_lock(&hv->fuse_lock);
    s = slot_of(hv, uuid);
    there = s != NULL && map(hv, s);
    pthread_mutex_unlock(&hv->fuse_lock);
    return there;
}

void fuses_before_start(struct hv *hv, const char *uuid)
{
    struct fuse_slot **at;

    pthread_mutex_lock(&hv->fuse_lock);
    at = find(hv, uuid);
    if (*at != NULL)
        unmap(*at);
    pthread_mutex_unlock(&hv->fuse_lock);
}

int fuses_begin(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    struct fuse_slot *s;
    int r = 0;

    pthread_mutex_lock(&hv->fuse_lock);
    s = slot_of(hv, uuid);
    if (s == NULL || !map(hv, s))
        r = err_set(
            e, ERR_SYSTEM, "domain %s: its fuse cannot be mapped: %s", uuid, strerror(errno));
    else if (s->order.epoch == epoch)
        give(s->page, s->order);
    pthread_mutex_unlock(&hv->fuse_lock);
    return r;
}

void fuses_forget(struct hv *hv, const char *uuid)
{
    struct fuse_slot **at;

    pthread_mutex_lock(&hv->fuse_lock);
    at = find(hv, uuid);
    if (*at != NULL)
        drop(at);
    pthread_mutex_unlock(&hv->fuse_lock);
}

void fuses_close(struct hv *hv)
{
    for (unsigned i = 0; i < FUSE_BUCKETS; i++)
        while (hv->fuse[i] != NULL)
            drop(&hv->fuse[i]);
    pthread_mutex_destroy(&hv->fuse_lock);
}
