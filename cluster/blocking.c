/* SPDX-License-Identifier: ISC */
/*
 * The thread and the loop share the struct; who lets go of it last frees it. The async handle is
 * sent to only under the lock and while open, since libuv allows nothing after uv_close.
 */
#define _GNU_SOURCE
#include "cluster/blocking.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct list {
    struct blocking_job *first, **last;
};

struct blocking {
    uv_async_t async;
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct list todo, ended;
    bool closed;
    unsigned holders; /* thread, loop */
};

static void push(struct list *l, struct blocking_job *j)
{
    j->next = NULL;
    *l->last = j;
    l->last = &j->next;
}

static struct blocking_job *pop(struct list *l)
{
    struct blocking_job *j = l->first;

    if (j == NULL)
        return NULL;
    l->first = j->next;
    if (l->first == NULL)
        l->last = &l->first;
    return j;
}

static void let_go(struct blocking *b)
{
    bool last;

    pthread_mutex_lock(&b->lock);
    last = --b->holders == 0;
    pthread_mutex_unlock(&b->lock);
    if (!last)
        return;
    pthread_cond_destroy(&b->more);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

/* NULL: closed, and nothing is left. */
static struct blocking_job *next_job(struct blocking *b, bool *closed)
{
    struct blocking_job *j;

    pthread_mutex_lock(&b->lock);
    while ((j = pop(&b->todo)) == NULL && !b->closed)
        pthread_cond_wait(&b->more, &b->lock);
    if (j == NULL)
        j = pop(&b->ended);
    *closed = b->closed;
    pthread_mutex_unlock(&b->lock);
    return j;
}

static bool hand_back(struct blocking *b, struct blocking_job *j)
{
    bool open;

    pthread_mutex_lock(&b->lock);
    open = !b->closed;
    if (open) {
        push(&b->ended, j);
        uv_async_send(&b->async);
    }
    pthread_mutex_unlock(&b->lock);
    return open;
}

static void *thread_main(void *arg)
{
    struct blocking *b = arg;
    struct blocking_job *j;
    bool closed;

    while ((j = next_job(b, &closed)) != NULL) {
        if (!closed)
            j->work(j);
        if (closed || !hand_back(b, j))
            j->drop(j);
    }
    let_go(b);
    return NULL;
}

/* In the loop. A `done` may close. */
static void on_ended(uv_async_t *async)
{
    struct blocking *b = async->data;
    struct blocking_job *j;

    for (;;) {
        pthread_mutex_lock(&b->lock);
        j = b->closed ? NULL : pop(&b->ended);
        pthread_mutex_unlock(&b->lock);
        if (j == NULL)
            return;
        j->done(j);
    }
}

static void on_closed(uv_handle_t *h)
{
    let_go(h->data);
}

/* Signals are for the loop's thread. */
static int start_thread(struct blocking *b, const char *name)
{
    sigset_t all, old;
    pthread_t id;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&id, NULL, thread_main, b);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r != 0)
        return r;
    pthread_setname_np(id, name);
    pthread_detach(id);
    return 0;
}

int blocking_open(uv_loop_t *loop, const char *name, struct blocking **out, struct err *e)
{
    struct blocking *b = calloc(1, sizeof *b);
    int r;

    if (b == NULL)
        return err_set(e, ERR_MEMORY, "no memory for the thread %s", name);
    r = uv_async_init(loop, &b->async, on_ended);
    if (r != 0) {
        free(b);
        return err_set(e, ERR_SYSTEM, "thread %s: %s", name, uv_strerror(r));
    }
    b->async.data = b;
    b->todo.last = &b->todo.first;
    b->ended.last = &b->ended.first;
    b->holders = 2;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->more, NULL);
    r = start_thread(b, name);
    if (r != 0) {
        b->holders = 1;
        uv_close((uv_handle_t *)&b->async, on_closed);
        return err_set(e, ERR_SYSTEM, "thread %s: %s", name, strerror(r));
    }
    *out = b;
    return 0;
}

void blocking_run(struct blocking *b, struct blocking_job *j)
{
    pthread_mutex_lock(&b->lock);
    push(&b->todo, j);
    pthread_cond_signal(&b->more);
    pthread_mutex_unlock(&b->lock);
}

void blocking_close(struct blocking **b)
{
    struct blocking *x = *b;

    if (x == NULL)
        return;
    *b = NULL;
    pthread_mutex_lock(&x->lock);
    x->closed = true;
    pthread_cond_signal(&x->more);
    pthread_mutex_unlock(&x->lock);
    uv_close((uv_handle_t *)&x->async, on_closed);
}
