/* SPDX-License-Identifier: ISC */
/* A list of pieces between the caller and the thread; a piece is bytes, or a wish. */
#include "cluster/record_file.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"

#define WAIT_NS 200000000L /* pieces are written together */
#define MUCH (1u << 20)    /* bytes that are written at once */

enum kind { BYTES, TURN, SYNC };

struct piece {
    struct piece *next;
    enum kind kind;
    size_t len;
    uint8_t bytes[];
};

struct record_file {
    char path[4096];
    int fd; /* the thread's */
    pthread_t thread;

    pthread_mutex_t lock; /* all below; never held while the disk works */
    pthread_cond_t wake;
    struct piece *first, *last;
    size_t waiting;
    bool urgent, stop, failed, told;
    struct err why;
};

/* --- the thread --- */

static int open_file(struct record_file *f, struct err *e)
{
    f->fd = open(f->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return f->fd < 0 ? err_sys(e, "%s", f->path) : 0;
}

static int turn(struct record_file *f, struct err *e)
{
    char old[sizeof f->path + 2];

    snprintf(old, sizeof old, "%s.1", f->path);
    io_close(&f->fd);
    if (rename(f->path, old) < 0)
        return err_sys(e, "rename of %s", f->path);
    return open_file(f, e);
}

static int write_piece(struct record_file *f, const struct piece *p, struct err *e)
{
    switch (p->kind) {
    case BYTES:
        return io_write_full(f->fd, p->bytes, p->len, IO_FOREVER, e) < 0
                   ? err_prefix(e, "%s", f->path)
                   : 0;
    case TURN:
        return turn(f, e);
    case SYNC:
        break;
    }
    return fdatasync(f->fd) < 0 ? err_sys(e, "fsync of %s", f->path) : 0;
}

static void free_pieces(struct piece *p)
{
    while (p != NULL) {
        struct piece *next = p->next;

        free(p);
        p = next;
    }
}

/* With the lock. */
static struct piece *take_all(struct record_file *f)
{
    struct piece *all = f->first;

    f->first = f->last = NULL;
    f->waiting = 0;
    f->urgent = false;
    return all;
}

/* With the lock: until there is something, and a little longer. */
static void wait_for_pieces(struct record_file *f)
{
    struct timespec until;

    while (f->first == NULL && !f->stop)
        pthread_cond_wait(&f->wake, &f->lock);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += WAIT_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (!f->urgent && !f->stop && pthread_cond_timedwait(&f->wake, &f->lock, &until) == 0)
        ;
}

static void *writer(void *arg)
{
    struct record_file *f = arg;
    bool end = false;

    pthread_mutex_lock(&f->lock);
    while (!end) {
        struct piece *all;
        struct err e;
        int r = 0;

        wait_for_pieces(f);
        end = f->stop;
        all = take_all(f);
        if (f->failed)
            r = -1;
        pthread_mutex_unlock(&f->lock);
        for (const struct piece *p = all; p != NULL && r == 0; p = p->next)
            r = write_piece(f, p, &e);
        free_pieces(all);
        pthread_mutex_lock(&f->lock);
        if (r < 0 && !f->failed) {
            f->failed = true;
            f->why = e;
        }
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* --- the caller --- */

static void put(struct record_file *f, enum kind kind, const void *bytes, size_t len)
{
    struct piece *p = malloc(sizeof *p + len);

    if (p != NULL) {
        *p = (struct piece){ .kind = kind, .len = len };
        if (len > 0)
            memcpy(p->bytes, bytes, len);
    }
    pthread_mutex_lock(&f->lock);
    if (p == NULL || f->waiting + len > RECORD_WAITING_MAX) {
        if (!f->failed)
            err_set(&f->why, ERR_RESOURCE, "%s: the disk does not keep up", f->path);
        f->failed = true;
    }
    if (f->failed) {
        pthread_mutex_unlock(&f->lock);
        free(p);
        return;
    }
    if (f->last != NULL)
        f->last->next = p;
    else
        f->first = p;
    f->urgent |= kind != BYTES || f->waiting > MUCH;
    if (f->last == NULL || f->urgent)
        pthread_cond_signal(&f->wake);
    f->last = p;
    f->waiting += len;
    pthread_mutex_unlock(&f->lock);
}

void record_file_put(struct record_file *f, const void *bytes, size_t len)
{
    put(f, BYTES, bytes, len);
}

void record_file_turn(struct record_file *f)
{
    put(f, TURN, NULL, 0);
}

void record_file_sync(struct record_file *f)
{
    put(f, SYNC, NULL, 0);
}

bool record_file_failed(struct record_file *f, struct err *e)
{
    bool tell;

    pthread_mutex_lock(&f->lock);
    tell = f->failed && !f->told;
    f->told |= tell;
    if (tell)
        *e = f->why;
    pthread_mutex_unlock(&f->lock);
    return tell;
}

static void dispose(struct record_file *f)
{
    io_close(&f->fd);
    free_pieces(f->first);
    pthread_cond_destroy(&f->wake);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

struct record_file *record_file_open(const char *path, struct err *e)
{
    struct record_file *f = calloc(1, sizeof *f);
    pthread_condattr_t attr;
    int r;

    if (f == NULL) {
        err_set(e, ERR_MEMORY, "%s: out of memory", path);
        return NULL;
    }
    snprintf(f->path, sizeof f->path, "%s", path);
    pthread_mutex_init(&f->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&f->wake, &attr);
    pthread_condattr_destroy(&attr);
    r = open_file(f, e);
    if (r == 0 && pthread_create(&f->thread, NULL, writer, f) != 0)
        r = err_set(e, ERR_SYSTEM, "%s: no thread to write it", path);
    if (r == 0)
        return f;
    dispose(f);
    return NULL;
}

void record_file_close(struct record_file **fp)
{
    struct record_file *f = *fp;

    if (f == NULL)
        return;
    *fp = NULL;
    pthread_mutex_lock(&f->lock);
    f->stop = true;
    pthread_cond_signal(&f->wake);
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->thread, NULL);
    dispose(f);
}
