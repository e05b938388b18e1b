/* SPDX-License-Identifier: ISC */
/*
 * virtio-mmio transport. Constants are those of virtio 1.1: registers 4.2.2, status bits
 * 2.1. The virtqueues are in virtio_ring.c.
 *
 * Status register. It only grows, until the driver writes 0:
 *
 *   driver writes        when                              then
 *   0                    always                            workers stop, all is reset
 *   FEATURES_OK          driver's features are a subset    features are final
 *                        of ours and have VERSION_1
 *   FEATURES_OK          otherwise                         bit stays clear (3.1.1 step 6)
 *   DRIVER_OK            after FEATURES_OK                 activate, work begins
 *   DRIVER_OK            before                            bit stays clear
 *   other bits           always                            remembered
 *   (we) NEEDS_RESET     the driver broke a rule           no work until reset
 *
 * Threads. vCPUs read and write registers under `lock`. Each queue has worker threads
 * that sleep until the queue was kicked, the driver is there, and `hold` is 0; or, with
 * `workers` 0, the device has a thread that sleeps elsewhere and does the same when it wakes
 * up (virtio_serve). A device
 * may leave requests in flight when its worker returns; another thread ends them (`async`
 * counts them). Whoever wants silence (quiesce, reset, taking a queue away) raises `hold`
 * and waits until `busy` and `async` are 0; what belongs to the rings is touched by others
 * only then. A reset waits ABANDON_MS for requests in flight and then has the device give
 * them up; a pause does so only if the guest stands still anyway (machine_suspended).
 * Lock order: queue's lock, then `lock`, then the device's own; irq_lock is innermost.
 *
 * State of a section, of any version: u32 status, isr, offered_sel, features_sel,
 * queue_sel, generation; u64 features; u32 queues, and for each: u32 num, ready,
 * last_avail | used_idx << 16; u64 desc, avail, used; then the device's own.
 */
#define _GNU_SOURCE
#include "hypervisor/xvm/virtio_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define STATE_VERSION 1
#define ABANDON_MS 1000
#define MAGIC 0x74726976u
#define VERSION 2u
#define VENDOR 0x6d677264u
#define CONFIG_AT 0x100u

#define STATUS_DRIVER_OK 0x04u
#define STATUS_FEATURES_OK 0x08u
#define STATUS_NEEDS_RESET 0x40u
#define STATUS_DRIVER_BITS 0x8fu

enum mmio_reg {
    MMIO_MAGIC = 0x000,
    MMIO_VERSION = 0x004,
    MMIO_DEVICE_ID = 0x008,
    MMIO_VENDOR_ID = 0x00c,
    MMIO_DEVICE_FEATURES = 0x010,
    MMIO_DEVICE_FEATURES_SEL = 0x014,
    MMIO_DRIVER_FEATURES = 0x020,
    MMIO_DRIVER_FEATURES_SEL = 0x024,
    MMIO_QUEUE_SEL = 0x030,
    MMIO_QUEUE_NUM_MAX = 0x034,
    MMIO_QUEUE_NUM = 0x038,
    MMIO_QUEUE_READY = 0x044,
    MMIO_QUEUE_NOTIFY = 0x050,
    MMIO_INTERRUPT_STATUS = 0x060,
    MMIO_INTERRUPT_ACK = 0x064,
    MMIO_STATUS = 0x070,
    MMIO_QUEUE_DESC_LOW = 0x080,
    MMIO_QUEUE_DESC_HIGH = 0x084,
    MMIO_QUEUE_AVAIL_LOW = 0x090,
    MMIO_QUEUE_AVAIL_HIGH = 0x094,
    MMIO_QUEUE_USED_LOW = 0x0a0,
    MMIO_QUEUE_USED_HIGH = 0x0a4,
    MMIO_SHM_LEN_LOW = 0x0b0,
    MMIO_SHM_BASE_HIGH = 0x0bc,
    MMIO_CONFIG_GENERATION = 0x0fc,
};

/* All of this process; changed only while its machine is made and freed. */
static struct virtio *all_devices;

static struct virtio *virtio_of(struct device *d)
{
    return (struct virtio *)d;
}

/* ---- interrupts, broken drivers ---- */

void virtio_interrupt(struct virtio *v, uint32_t cause)
{
    __atomic_fetch_or(&v->isr, cause, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&v->irq_lock);
    machine_irq(v->d.m, v->d.irq, true);
    machine_irq(v->d.m, v->d.irq, false);
    pthread_mutex_unlock(&v->irq_lock);
}

static bool live(uint32_t status)
{
    return (status & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET)) == STATUS_DRIVER_OK;
}

/* Called with `lock` held. */
static void mark_broken(struct virtio *v, const char *why)
{
    bool driven = live(v->status);

    __atomic_store_n(&v->status, v->status | STATUS_NEEDS_RESET, __ATOMIC_RELEASE);
    if (!v->broken_logged)
        log_warn("xvm", "%s: the guest's driver broke the rules: %s; the device waits for a reset",
            v->name, why);
    v->broken_logged = true;
    if (driven)
        virtio_interrupt(v, VIRTIO_ISR_CONFIG);
}

void virtio_broken(struct virtio *v, const char *fmt, ...)
{
    char why[160];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&v->lock);
    mark_broken(v, why);
    pthread_mutex_unlock(&v->lock);
}

bool virtio_driven(const struct virtio *v)
{
    return live(__atomic_load_n(&v->status, __ATOMIC_ACQUIRE));
}

bool virtio_has(const struct virtio *v, uint64_t feature)
{
    return (v->features & feature) != 0;
}

bool virtio_held(const struct virtio *v)
{
    return __atomic_load_n(&v->hold, __ATOMIC_ACQUIRE) > 0;
}

/* ---- workers ---- */

/* Called with `lock` held. */
static void kick(struct virtio *v, unsigned queue)
{
    v->queue[queue].kicked = true;
    if (v->ops->workers > 0)
        pthread_cond_signal(&v->queue[queue].cond);
    else
        v->ops->poke(v);
}

void virtio_kick(struct virtio *v, unsigned queue)
{
    pthread_mutex_lock(&v->lock);
    kick(v, queue);
    pthread_mutex_unlock(&v->lock);
}

static void kick_all(struct virtio *v)
{
    for (unsigned i = 0; i < v->ops->queues; i++)
        kick(v, i);
}

static void raise_hold(struct virtio *v)
{
    __atomic_store_n(&v->hold, v->hold + 1, __ATOMIC_RELEASE);
    v->ops->wake(v);
}

/* True: nothing is going on any more. Waits at most until then; `lock` is held, and released while
 * waiting. */
static bool wait_idle(struct virtio *v, uint64_t until)
{
    struct timespec ts = { (time_t)(until / NS_PER_S), (long)(until % NS_PER_S) };
    int r = 0;

    while (v->busy + v->async > 0 && r != ETIMEDOUT)
        r = pthread_cond_clockwait(&v->idle, &v->lock, CLOCK_MONOTONIC, &ts);
    return v->busy + v->async == 0;
}

/* The device gives up what is in flight; `lock` is held, and released meanwhile. */
static void abandon(struct virtio *v, bool keep)
{
    pthread_mutex_unlock(&v->lock);
    v->ops->abandon(v, keep);
    pthread_mutex_lock(&v->lock);
}

/* Raises `hold` and waits until nothing is going on; `lock` is held, and released while waiting. */
static void hold(struct virtio *v)
{
    raise_hold(v);
    if (wait_idle(v, clock_ns() + ABANDON_MS * NS_PER_MS))
        return;
    while (v->busy > 0)
        pthread_cond_wait(&v->idle, &v->lock);
    if (v->async > 0)
        abandon(v, false);
}

static void release(struct virtio *v);

/* The same, but not for longer than a pause may take; false: not raised. */
static bool hold_for_pause(struct virtio *v)
{
    uint64_t until = machine_drain_until(v->d.m);

    if (until == 0) {
        hold(v);
        return true;
    }
    raise_hold(v);
    if (wait_idle(v, until))
        return true;
    if (v->busy == 0 && machine_suspended(v->d.m)) {
        abandon(v, true);
        return true;
    }
    release(v);
    machine_not_drained(v->d.m, v->d.ops->name);
    return false;
}

static void release(struct virtio *v)
{
    __atomic_store_n(&v->hold, v->hold - 1, __ATOMIC_RELEASE);
    if (v->hold == 0)
        kick_all(v);
}

static bool may_work(const struct virtio *v, const struct virtio_queue *q)
{
    return v->hold == 0 && q->ready && live(v->status);
}

/* Called with `lock` held, which is released meanwhile. */
static void work(struct virtio *v, unsigned queue)
{
    v->queue[queue].kicked = false;
    v->busy++;
    pthread_mutex_unlock(&v->lock);
    v->ops->work(v, queue);
    pthread_mutex_lock(&v->lock);
    if (--v->busy == 0)
        pthread_cond_broadcast(&v->idle);
}

void virtio_serve(struct virtio *v, unsigned queue)
{
    pthread_mutex_lock(&v->lock);
    if (may_work(v, &v->queue[queue]))
        work(v, queue);
    pthread_mutex_unlock(&v->lock);
}

bool virtio_kick_event(struct virtio *v, unsigned queue, int fd, bool on)
{
    return machine_write_event(v->d.m, v->d.base + MMIO_QUEUE_NOTIFY, queue, fd, on);
}

static void *worker_main(void *arg)
{
    struct virtio_worker *w = arg;
    struct virtio *v = w->v;
    struct virtio_queue *q = &v->queue[w->queue];

    pthread_mutex_lock(&v->lock);
    while (!v->stop) {
        if (q->kicked && may_work(v, q))
            work(v, w->queue);
        else
            pthread_cond_wait(&q->cond, &v->lock);
    }
    pthread_mutex_unlock(&v->lock);
    return NULL;
}

void virtio_async_begin(struct virtio *v)
{
    pthread_mutex_lock(&v->lock);
    v->async++;
    pthread_mutex_unlock(&v->lock);
}

void virtio_async_end(struct virtio *v, unsigned n)
{
    pthread_mutex_lock(&v->lock);
    v->async -= n;
    if (v->async == 0)
        pthread_cond_broadcast(&v->idle);
    pthread_mutex_unlock(&v->lock);
}

/* Signals are the machine's business: the workers have them all blocked. */
static int start_workers(struct virtio *v, struct err *e)
{
    sigset_t all, before;
    int rc = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (unsigned i = 0; i < v->ops->queues * v->ops->workers && rc == 0; i++) {
        struct virtio_worker *w = &v->worker[i];

        w->v = v;
        w->queue = i / v->ops->workers;
        rc = pthread_create(&w->thread, NULL, worker_main, w);
        if (rc == 0)
            v->workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0)
        return err_set(e, ERR_RESOURCE, "%s: no thread: %s", v->name, strerror(rc));
    return 0;
}

static void stop_workers(struct virtio *v)
{
    pthread_mutex_lock(&v->lock);
    hold(v);
    v->stop = true;
    for (unsigned i = 0; i < v->ops->queues; i++)
        pthread_cond_broadcast(&v->queue[i].cond);
    pthread_mutex_unlock(&v->lock);
    if (v->ops->workers == 0)
        v->ops->stop(v);
    for (unsigned i = 0; i < v->workers; i++)
        pthread_join(v->worker[i].thread, NULL);
    v->workers = 0;
}

void virtio_config_changed(struct virtio *v)
{
    pthread_mutex_lock(&v->lock);
    v->generation++;
    if (live(v->status))
        virtio_interrupt(v, VIRTIO_ISR_CONFIG);
    pthread_mutex_unlock(&v->lock);
}

/* ---- registers; all with `lock` held ---- */

static struct virtio_queue *selected(struct virtio *v)
{
    return v->queue_sel < v->ops->queues ? &v->queue[v->queue_sel] : NULL;
}

static uint32_t queue_reg_read(struct virtio *v, enum mmio_reg reg)
{
    const struct virtio_queue *q = selected(v);

    if (q == NULL)
        return 0;
    if (reg == MMIO_QUEUE_NUM_MAX)
        return VIRTIO_QUEUE_SIZE;
    return reg == MMIO_QUEUE_READY && q->ready;
}

static uint32_t reg_read(struct virtio *v, uint64_t reg)
{
    switch ((enum mmio_reg)reg) {
    case MMIO_MAGIC:
        return MAGIC;
    case MMIO_VERSION:
        return VERSION;
    case MMIO_DEVICE_ID:
        return v->ops->type;
    case MMIO_VENDOR_ID:
        return VENDOR;
    case MMIO_DEVICE_FEATURES:
        return v->offered_sel < 2 ? (uint32_t)(v->offered >> 32 * v->offered_sel) : 0;
    case MMIO_QUEUE_NUM_MAX:
    case MMIO_QUEUE_READY:
        return queue_reg_read(v, (enum mmio_reg)reg);
    case MMIO_INTERRUPT_STATUS:
        return __atomic_load_n(&v->isr, __ATOMIC_SEQ_CST);
    case MMIO_STATUS:
        return v->status;
    case MMIO_CONFIG_GENERATION:
        return v->generation;
    case MMIO_SHM_LEN_LOW ... MMIO_SHM_BASE_HIGH:
        return UINT32_MAX; /* no shared memory */
    default:
        return 0; /* write-only and reserved registers */
    }
}

/* All as after power-on; no worker is busy. */
static void reset_locked(struct virtio *v)
{
    __atomic_store_n(&v->status, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&v->isr, 0, __ATOMIC_SEQ_CST);
    v->features = 0;
    v->offered_sel = v->features_sel = v->queue_sel = 0;
    for (unsigned i = 0; i < v->ops->queues; i++) {
        struct virtio_queue *q = &v->queue[i];

        q->num = VIRTIO_QUEUE_SIZE;
        q->ready = q->kicked = q->signalled_valid = q->no_notify = false;
        q->desc_gpa = q->avail_gpa = q->used_gpa = 0;
        q->desc = q->avail = q->used = NULL;
        q->last_avail = q->used_idx = q->staged = q->signalled = 0;
    }
    v->ops->reset(v);
}

static bool features_fit(const struct virtio *v, uint64_t features)
{
    return (features & ~v->offered) == 0 && (features & VIRTIO_FEATURE_VERSION_1) != 0;
}

static void status_write(struct virtio *v, uint32_t value)
{
    uint32_t next = v->status | (value & STATUS_DRIVER_BITS);

    if (value == 0) {
        hold(v);
        reset_locked(v);
        release(v);
        return;
    }
    if ((v->status & STATUS_FEATURES_OK) == 0 && !features_fit(v, v->features))
        next &= ~STATUS_FEATURES_OK;
    if ((next & STATUS_FEATURES_OK) == 0)
        next &= ~STATUS_DRIVER_OK;
    if ((next & ~v->status & STATUS_DRIVER_OK) != 0)
        v->ops->activate(v);
    __atomic_store_n(&v->status, next, __ATOMIC_RELEASE);
    kick_all(v);
}

static void ready_write(struct virtio *v, struct virtio_queue *q, uint32_t value)
{
    if (value == 0) {
        hold(v);
        q->ready = false;
        release(v);
    } else if (!q->ready) {
        if (virtio_ring_map(v, q)) {
            q->ready = true;
            kick(v, (unsigned)(q - v->queue));
        } else {
            mark_broken(v, "a queue with a bad size or address");
        }
    }
}

static void put_half(uint64_t *gpa, bool high, uint32_t value)
{
    *gpa =
        high ? (*gpa & UINT32_MAX) | (uint64_t)value << 32 : (*gpa & ~UINT64_C(0xffffffff)) | value;
}

static void queue_reg_write(struct virtio *v, enum mmio_reg reg, uint32_t value)
{
    struct virtio_queue *q = selected(v);
    bool high = ((unsigned)reg & 4u) != 0;

    if (q == NULL)
        return;
    if (reg == MMIO_QUEUE_READY)
        ready_write(v, q, value);
    else if (q->ready)
        return; /* the rings of a queue in use stay where they are */
    else if (reg == MMIO_QUEUE_NUM)
        q->num = value;
    else if (reg == MMIO_QUEUE_DESC_LOW || reg == MMIO_QUEUE_DESC_HIGH)
        put_half(&q->desc_gpa, high, value);
    else if (reg == MMIO_QUEUE_AVAIL_LOW || reg == MMIO_QUEUE_AVAIL_HIGH)
        put_half(&q->avail_gpa, high, value);
    else
        put_half(&q->used_gpa, high, value);
}

static void features_write(struct virtio *v, uint32_t value)
{
    if ((v->status & STATUS_FEATURES_OK) != 0 || v->features_sel > 1)
        return;
    put_half(&v->features, v->features_sel == 1, value);
}

static void reg_write(struct virtio *v, uint64_t reg, uint32_t value)
{
    switch ((enum mmio_reg)reg) {
    case MMIO_DEVICE_FEATURES_SEL:
        v->offered_sel = value;
        break;
    case MMIO_DRIVER_FEATURES:
        features_write(v, value);
        break;
    case MMIO_DRIVER_FEATURES_SEL:
        v->features_sel = value;
        break;
    case MMIO_QUEUE_SEL:
        v->queue_sel = value;
        break;
    case MMIO_QUEUE_NUM:
    case MMIO_QUEUE_READY:
    case MMIO_QUEUE_DESC_LOW:
    case MMIO_QUEUE_DESC_HIGH:
    case MMIO_QUEUE_AVAIL_LOW:
    case MMIO_QUEUE_AVAIL_HIGH:
    case MMIO_QUEUE_USED_LOW:
    case MMIO_QUEUE_USED_HIGH:
        queue_reg_write(v, (enum mmio_reg)reg, value);
        break;
    case MMIO_QUEUE_NOTIFY:
        if (value < v->ops->queues)
            kick(v, value);
        break;
    case MMIO_INTERRUPT_ACK:
        __atomic_fetch_and(&v->isr, ~value, __ATOMIC_SEQ_CST);
        break;
    case MMIO_STATUS:
        status_write(v, value);
        break;
    default:
        break; /* read-only and reserved registers */
    }
}

static void mmio_read(struct device *d, uint64_t offset, void *data, unsigned len)
{
    struct virtio *v = virtio_of(d);
    uint32_t value;

    memset(data, 0, len);
    pthread_mutex_lock(&v->lock);
    if (offset >= CONFIG_AT) {
        uint64_t at = offset - CONFIG_AT;

        if (at < v->ops->config_len) {
            uint64_t room = v->ops->config_len - at;

            v->ops->config_read(v, (unsigned)at, data, len < room ? len : (unsigned)room);
        }
    } else if (len == sizeof value && offset % sizeof value == 0) {
        value = reg_read(v, offset);
        memcpy(data, &value, sizeof value);
    }
    pthread_mutex_unlock(&v->lock);
}

static void mmio_write(struct device *d, uint64_t offset, const void *data, unsigned len)
{
    struct virtio *v = virtio_of(d);
    uint32_t value;

    pthread_mutex_lock(&v->lock);
    if (offset >= CONFIG_AT) {
        uint64_t at = offset - CONFIG_AT;

        if (at < v->ops->config_len && len <= v->ops->config_len - at)
            v->ops->config_write(v, (unsigned)at, data, len);
    } else if (len == sizeof value && offset % sizeof value == 0) {
        memcpy(&value, data, sizeof value);
        reg_write(v, offset, value);
    }
    pthread_mutex_unlock(&v->lock);
}

/* ---- device ---- */

static void device_quiesce(struct device *d)
{
    struct virtio *v = virtio_of(d);
    bool first;

    pthread_mutex_lock(&v->lock);
    first = !v->quiesced && hold_for_pause(v);
    if (first)
        v->quiesced = true;
    pthread_mutex_unlock(&v->lock);
    if (first)
        v->ops->quiesced(v);
}

static void device_start(struct device *d)
{
    struct virtio *v = virtio_of(d);

    if (!v->quiesced)
        return;
    v->ops->start(v);
    pthread_mutex_lock(&v->lock);
    v->quiesced = false;
    /* An interrupt may have been lost on the way from another host; one too many does no harm. */
    if (__atomic_load_n(&v->isr, __ATOMIC_SEQ_CST) != 0)
        virtio_interrupt(v, 0);
    release(v);
    pthread_mutex_unlock(&v->lock);
}

static void device_reset(struct device *d)
{
    struct virtio *v = virtio_of(d);

    pthread_mutex_lock(&v->lock);
    hold(v);
    reset_locked(v);
    release(v);
    pthread_mutex_unlock(&v->lock);
}

static void device_free(struct device *d)
{
    struct virtio *v = virtio_of(d);

    stop_workers(v);
    for (struct virtio **p = &all_devices; *p != NULL; p = &(*p)->next)
        if (*p == v) {
            *p = v->next;
            break;
        }
    for (unsigned i = 0; i < v->ops->queues; i++) {
        pthread_cond_destroy(&v->queue[i].cond);
        pthread_mutex_destroy(&v->queue[i].lock);
    }
    pthread_cond_destroy(&v->idle);
    pthread_mutex_destroy(&v->irq_lock);
    pthread_mutex_destroy(&v->lock);
    v->ops->destroy(v);
}

static uint32_t state_version(const struct virtio *v)
{
    return v->ops->state_version > STATE_VERSION ? v->ops->state_version : STATE_VERSION;
}

static int device_save(struct device *d, struct state_writer *w, struct err *e)
{
    struct virtio *v = virtio_of(d);

    (void)e;
    state_section_begin(w, v->name, state_version(v));
    state_put_u32(w, v->status);
    state_put_u32(w, __atomic_load_n(&v->isr, __ATOMIC_SEQ_CST));
    state_put_u32(w, v->offered_sel);
    state_put_u32(w, v->features_sel);
    state_put_u32(w, v->queue_sel);
    state_put_u32(w, v->generation);
    state_put_u64(w, v->features);
    state_put_u32(w, v->ops->queues);
    for (unsigned i = 0; i < v->ops->queues; i++) {
        const struct virtio_queue *q = &v->queue[i];

        state_put_u32(w, q->num);
        state_put_u32(w, q->ready);
        state_put_u32(w, q->last_avail | (uint32_t)q->used_idx << 16);
        state_put_u64(w, q->desc_gpa);
        state_put_u64(w, q->avail_gpa);
        state_put_u64(w, q->used_gpa);
    }
    v->ops->save(v, w);
    state_section_end(w);
    return 0;
}

static int load_queue(
    struct virtio *v, struct virtio_queue *q, struct state_reader *r, struct err *e)
{
    uint32_t ready, idx;

    if (state_get_u32(r, &q->num, e) < 0 || state_get_u32(r, &ready, e) < 0 ||
        state_get_u32(r, &idx, e) < 0 || state_get_u64(r, &q->desc_gpa, e) < 0 ||
        state_get_u64(r, &q->avail_gpa, e) < 0 || state_get_u64(r, &q->used_gpa, e) < 0)
        return -1;
    if (ready != 0 && !virtio_ring_map(v, q))
        return err_set(e, ERR_INVALID, "%s: a queue with a bad size or address", v->name);
    q->ready = ready != 0;
    q->last_avail = (uint16_t)idx;
    q->used_idx = (uint16_t)(idx >> 16);
    q->no_notify = true; /* whatever the ring says: the next time the queue is empty, we ask */
    return 0;
}

static int load_transport(struct virtio *v, struct state_reader *r, struct err *e)
{
    uint32_t status, isr, queues;

    if (state_get_u32(r, &status, e) < 0 || state_get_u32(r, &isr, e) < 0 ||
        state_get_u32(r, &v->offered_sel, e) < 0 || state_get_u32(r, &v->features_sel, e) < 0 ||
        state_get_u32(r, &v->queue_sel, e) < 0 || state_get_u32(r, &v->generation, e) < 0 ||
        state_get_u64(r, &v->features, e) < 0 || state_get_u32(r, &queues, e) < 0)
        return -1;
    if (queues != v->ops->queues)
        return err_set(
            e, ERR_INVALID, "%s: %u queues, here it has %u", v->name, queues, v->ops->queues);
    if ((status & STATUS_FEATURES_OK) != 0 && !features_fit(v, v->features))
        return err_set(e, ERR_UNSUPPORTED, "%s: the guest uses features %#llx, here are %#llx",
            v->name, (unsigned long long)v->features, (unsigned long long)v->offered);
    if ((status & (STATUS_FEATURES_OK | STATUS_DRIVER_OK)) == STATUS_DRIVER_OK)
        return err_set(e, ERR_INVALID, "%s: a driver at work without agreed features", v->name);
    for (unsigned i = 0; i < queues; i++)
        if (load_queue(v, &v->queue[i], r, e) < 0)
            return -1;
    __atomic_store_n(&v->isr, isr & (VIRTIO_ISR_USED | VIRTIO_ISR_CONFIG), __ATOMIC_SEQ_CST);
    __atomic_store_n(
        &v->status, status & (STATUS_DRIVER_BITS | STATUS_NEEDS_RESET), __ATOMIC_RELEASE);
    return 0;
}

static int device_load(struct device *d, struct state_reader *r, struct err *e)
{
    struct virtio *v = virtio_of(d);
    int rc;

    if (r->version < STATE_VERSION || r->version > state_version(v))
        return err_set(e, ERR_UNSUPPORTED, "%s: state version %u, this release reads %u to %u",
            v->name, r->version, STATE_VERSION, state_version(v));
    pthread_mutex_lock(&v->lock);
    reset_locked(v);
    rc = load_transport(v, r, e);
    pthread_mutex_unlock(&v->lock);
    if (rc < 0 || v->ops->load(v, r, e) < 0)
        return -1;
    if (live(v->status))
        v->ops->activate(v);
    return state_end(r, e);
}

void virtio_init(struct virtio *v, const struct virtio_ops *ops, struct machine *m, unsigned slot,
    const char *kind, unsigned index, uint64_t features)
{
    snprintf(v->name, sizeof v->name, "virtio-%s%u", kind, index);
    v->ops = ops;
    v->offered =
        features | VIRTIO_FEATURE_INDIRECT | VIRTIO_FEATURE_EVENT_IDX | VIRTIO_FEATURE_VERSION_1;
    v->d_ops = (struct device_ops){ .name = v->name,
        .io_read = mmio_read,
        .io_write = mmio_write,
        .quiesce = device_quiesce,
        .start = device_start,
        .save = device_save,
        .load = device_load,
        .reset = device_reset,
        .free = device_free };
    v->d = (struct device){ .ops = &v->d_ops,
        .m = m,
        .base = VIRTIO_MMIO_BASE + slot * VIRTIO_MMIO_LEN,
        .len = VIRTIO_MMIO_LEN,
        .irq = VIRTIO_MMIO_IRQ(slot) };
    pthread_mutex_init(&v->lock, NULL);
    pthread_mutex_init(&v->irq_lock, NULL);
    pthread_cond_init(&v->idle, NULL);
    v->quiesced = true;
    v->hold = 1;
    for (unsigned i = 0; i < ops->queues; i++) {
        v->queue[i].num = VIRTIO_QUEUE_SIZE;
        pthread_mutex_init(&v->queue[i].lock, NULL);
        pthread_cond_init(&v->queue[i].cond, NULL);
    }
}

void virtio_dispose(struct virtio *v)
{
    device_free(&v->d);
}

int virtio_add(struct virtio *v, struct err *e)
{
    if (start_workers(v, e) < 0 || machine_add_device(v->d.m, &v->d, e) < 0) {
        device_free(&v->d);
        return -1;
    }
    v->next = all_devices;
    all_devices = v;
    return 0;
}

struct virtio *virtio_find(
    const struct machine *m, enum virtio_type type, const struct virtio *after)
{
    struct virtio *v = after != NULL ? after->next : all_devices;

    while (v != NULL && (v->d.m != m || v->ops->type != type))
        v = v->next;
    return v;
}

unsigned virtio_count(const struct machine *m, enum virtio_type type)
{
    unsigned n = 0;

    for (struct virtio *v = virtio_find(m, type, NULL); v != NULL; v = virtio_find(m, type, v))
        n++;
    return n;
}

void virtio_no_config_write(struct virtio *v, unsigned offset, const void *data, unsigned len)
{
    (void)v;
    (void)offset;
    (void)data;
    (void)len;
}

void virtio_nothing(struct virtio *v)
{
    (void)v;
}

void virtio_no_abandon(struct virtio *v, bool keep)
{
    (void)v;
    (void)keep;
}
