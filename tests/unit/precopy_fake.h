/* SPDX-License-Identifier: ISC */
/*
 * precopy_fake: a hypervisor in shared memory for the tests of the engine. The guest is a
 * forked process that dirties pages at a rate; workers are forked processes too, so that
 * they can be killed, and so that a thread sanitizer sees each program as it is.
 * Domains are made before the first fork and found again by uuid.
 */
#ifndef PRECOPY_FAKE_H
#define PRECOPY_FAKE_H

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "hypervisor/hypervisor.h"

#define FAKE_LOW_PAGES 160u /* the first region; the second begins at FAKE_HIGH_GFN */
#define FAKE_HIGH_GFN 256u
#define FAKE_DOMAINS 2
#define FAKE_STATE_LEN 5000u

struct fake_domain {
    char uuid[HV_UUID_LEN];
    uint64_t pages, words; /* the bitmaps' */
    uint64_t epoch;
    _Atomic int state; /* enum hv_state */
    atomic_bool run, parked, log_on, loaded, broken_layout;
    atomic_bool no_live, no_move; /* mig_check's answer */
    atomic_bool stream;           /* hv_layout.stream */
    _Atomic unsigned throttle, throttle_seen;
    _Atomic uint64_t written; /* pages, by the guest */
    uint64_t ws_first, ws_pages, pages_per_s;
    pid_t guest;
    uint8_t *mem; /* by gfn */
    _Atomic uint64_t *dirty, *populated;
};

struct hv {
    int unused;
};

struct hv_mig {
    struct fake_domain *d;
    enum hv_side side;
    uint64_t passed; /* pages of a stream */
};

static struct fake_domain *fake_domains[FAKE_DOMAINS];

static inline void *fake_shared(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        abort();
    return p;
}

static inline uint64_t fake_max_gfn(const struct fake_domain *d)
{
    return FAKE_HIGH_GFN + d->pages - 1;
}

static inline struct fake_domain *fake_new(unsigned slot, const char *uuid, uint64_t pages)
{
    struct fake_domain *d = fake_shared(sizeof *d);

    memcpy(d->uuid, uuid, HV_UUID_LEN);
    d->pages = pages;
    d->words = HV_BITMAP_WORDS(fake_max_gfn(d));
    d->mem = fake_shared((fake_max_gfn(d) + 1) * HV_PAGE_SIZE);
    d->dirty = fake_shared(d->words * 8);
    d->populated = fake_shared(d->words * 8);
    fake_domains[slot] = d;
    return d;
}

static inline void fake_free(unsigned slot)
{
    struct fake_domain *d = fake_domains[slot];

    munmap(d->mem, (fake_max_gfn(d) + 1) * HV_PAGE_SIZE);
    munmap(d->dirty, d->words * 8);
    munmap(d->populated, d->words * 8);
    munmap(d, sizeof *d);
    fake_domains[slot] = NULL;
}

static inline uint64_t *fake_page(struct fake_domain *d, uint64_t gfn)
{
    return (uint64_t *)(d->mem + gfn * HV_PAGE_SIZE);
}

static inline void fake_mark(_Atomic uint64_t *map, uint64_t gfn)
{
    atomic_fetch_or(&map[gfn >> 6], UINT64_C(1) << (gfn & 63));
}

/* Some pages of each 2 MiB with content, some zero but touched, the rest never touched. */
static inline void fake_fill(struct fake_domain *d, unsigned full_of_16, unsigned zero_of_16)
{
    for (uint64_t g = 0; g <= fake_max_gfn(d); g++) {
        if (g >= FAKE_LOW_PAGES && g < FAKE_HIGH_GFN)
            continue;
        if (g % 16 < full_of_16)
            for (unsigned i = 0; i < 512; i += 8)
                fake_page(d, g)[i] = g * 512 + i + 1;
        if (g % 16 < full_of_16 + zero_of_16)
            fake_mark(d->populated, g);
    }
}

/* --- the guest --- */

static inline void fake_guest_write(struct fake_domain *d, uint64_t n)
{
    uint64_t gfn = d->ws_first + n * 7919 % d->ws_pages;
    uint64_t *p = fake_page(d, gfn);

    if (n % 64 == 63) {
        memset(p, 0, HV_PAGE_SIZE);
    } else {
        p[0] = n + 1;
        p[511] = ~n;
        p[n % 512] = n;
    }
    fake_mark(d->populated, gfn);
    if (atomic_load(&d->log_on))
        fake_mark(d->dirty, gfn);
    atomic_store(&d->written, n + 1);
}

static inline void fake_guest(struct fake_domain *d)
{
    uint64_t n = 0, due_ns = clock_ns();

    for (;;) {
        if (!atomic_load(&d->run)) {
            struct timespec ts = { 0, 50000 };

            atomic_store(&d->parked, true);
            while (!atomic_load(&d->run))
                nanosleep(&ts, NULL);
            due_ns = clock_ns();
            atomic_store(&d->parked, false);
            continue;
        }
        if (d->pages_per_s > 0 && clock_ns() >= due_ns) {
            unsigned t = atomic_load(&d->throttle);

            for (unsigned i = 0; i < 16; i++)
                fake_guest_write(d, n++);
            due_ns += UINT64_C(16) * NS_PER_S * 100 / (100 - t) / d->pages_per_s;
        } else {
            struct timespec ts = { 0, 20000 };

            nanosleep(&ts, NULL);
        }
    }
}

static inline void fake_start_guest(struct fake_domain *d)
{
    pid_t pid;

    atomic_store(&d->state, HV_RUNNING);
    atomic_store(&d->run, true);
    pid = fork();
    if (pid > 0)
        d->guest = pid; /* in shared memory: not for the child to write */
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        fake_guest(d);
        _exit(0);
    }
}

static inline void fake_end_guest(struct fake_domain *d)
{
    if (d->guest > 0) {
        kill(d->guest, SIGKILL);
        waitpid(d->guest, NULL, 0);
    }
    d->guest = 0;
}

/* --- the driver --- */

static inline int fake_open(const struct hv_config *cfg, struct hv **out, struct err *e)
{
    (void)cfg;
    *out = calloc(1, sizeof **out);
    return *out == NULL ? err_set(e, ERR_MEMORY, "fake") : 0;
}

static inline void fake_close(struct hv **hv)
{
    free(*hv);
    *hv = NULL;
}

static inline int fake_capabilities(struct hv *hv, struct hv_caps *out, struct err *e)
{
    (void)hv, (void)e;
    memset(out, 0, sizeof *out);
    memcpy(out->cpu_vendor, "FakeVendor", 11);
    return 0;
}

static inline struct fake_domain *fake_find(const char *uuid)
{
    for (unsigned i = 0; i < FAKE_DOMAINS; i++)
        if (fake_domains[i] != NULL && strcmp(fake_domains[i]->uuid, uuid) == 0)
            return fake_domains[i];
    return NULL;
}

static inline int fake_info(struct hv *hv, const char *uuid, struct hv_info *out, struct err *e)
{
    struct fake_domain *d = fake_find(uuid);

    (void)hv;
    if (d == NULL)
        return err_set(e, ERR_NOT_FOUND, "no domain %s", uuid);
    memset(out, 0, sizeof *out);
    memcpy(out->uuid, uuid, HV_UUID_LEN);
    out->state = (enum hv_state)atomic_load(&d->state);
    out->epoch = d->epoch;
    return 0;
}

static inline int fake_mig_open(
    struct hv *hv, const char *uuid, enum hv_side side, struct hv_mig **out, struct err *e)
{
    struct fake_domain *d = fake_find(uuid);

    (void)hv;
    if (d == NULL)
        return err_set(e, ERR_NOT_FOUND, "no domain %s", uuid);
    *out = calloc(1, sizeof **out);
    (*out)->d = d;
    (*out)->side = side;
    return 0;
}

static inline void fake_mig_close(struct hv_mig **m)
{
    free(*m);
    *m = NULL;
}

static inline int fake_layout(struct hv_mig *m, struct hv_layout *out, struct err *e)
{
    (void)e;
    memset(out, 0, sizeof *out);
    out->n = 2;
    out->region[0] = (struct hv_region){ 0, FAKE_LOW_PAGES };
    out->region[1] = (struct hv_region){ FAKE_HIGH_GFN, m->d->pages };
    out->max_gfn = fake_max_gfn(m->d);
    if (atomic_load(&m->d->broken_layout))
        out->region[1].pages--;
    out->stream = atomic_load(&m->d->stream);
    return 0;
}

static inline bool fake_is_populated(const struct fake_domain *d, uint64_t gfn)
{
    return (atomic_load(&d->populated[gfn >> 6]) >> (gfn & 63) & 1) != 0;
}

/* Of a stream: in order at the source, each page once at the target. */
static inline int fake_pass(struct hv_mig *m, uint64_t gfn, struct err *e)
{
    uint64_t place = gfn < FAKE_LOW_PAGES ? gfn : FAKE_LOW_PAGES + gfn - FAKE_HIGH_GFN;

    if (!atomic_load(&m->d->stream))
        return 0;
    if (m->side == HV_SOURCE ? place != m->passed : fake_is_populated(m->d, gfn))
        return err_set(e, ERR_STATE, "page %llu of the stream, %llu have passed",
            (unsigned long long)place, (unsigned long long)m->passed);
    fake_mark(m->d->populated, gfn);
    m->passed++;
    return 0;
}

static inline int fake_all_passed(const struct hv_mig *m, struct err *e)
{
    if (!atomic_load(&m->d->stream) || m->passed == FAKE_LOW_PAGES + m->d->pages)
        return 0;
    return err_set(e, ERR_STATE, "only %llu pages of the stream have passed",
        (unsigned long long)m->passed);
}

static inline int fake_populated(struct hv_mig *m, uint64_t *bitmap, struct err *e)
{
    (void)e;
    for (uint64_t i = 0; i < m->d->words; i++)
        bitmap[i] = atomic_load(&m->d->populated[i]);
    for (uint64_t g = 0; atomic_load(&m->d->stream) && g <= fake_max_gfn(m->d); g++)
        if (g < FAKE_LOW_PAGES || g >= FAKE_HIGH_GFN)
            bitmap[g >> 6] |= UINT64_C(1) << (g & 63);
    return 0;
}

static inline int fake_map(struct hv_mig *m, const uint64_t *gfn, size_t n, bool write,
    struct hv_mapping *map, struct err *e)
{
    if (n > HV_BATCH_PAGES)
        return err_set(e, ERR_INVALID, "too many pages");
    map->n = n;
    for (size_t i = 0; i < n; i++) {
        map->page[i] = m->d->mem + gfn[i] * HV_PAGE_SIZE;
        if (fake_pass(m, gfn[i], e) < 0)
            return -1;
        if (write)
            fake_mark(m->d->populated, gfn[i]);
    }
    return 0;
}

static inline void fake_unmap(struct hv_mig *m, struct hv_mapping *map)
{
    (void)m;
    map->n = 0;
}

static inline int fake_zero(struct hv_mig *m, uint64_t gfn, uint64_t n, struct err *e)
{
    for (uint64_t g = gfn; g < gfn + n; g++) {
        if (fake_pass(m, g, e) < 0)
            return -1;
        if (fake_is_populated(m->d, g))
            memset(fake_page(m->d, g), 0, HV_PAGE_SIZE);
    }
    return 0;
}

static inline int fake_dirty_start(struct hv_mig *m, struct err *e)
{
    (void)e;
    for (uint64_t i = 0; i < m->d->words; i++)
        atomic_store(&m->d->dirty[i], 0);
    atomic_store(&m->d->log_on, true);
    return 0;
}

static inline int fake_collect(struct hv_mig *m, uint64_t *bitmap, struct err *e)
{
    (void)e;
    for (uint64_t i = 0; i < m->d->words; i++)
        bitmap[i] |= atomic_exchange(&m->d->dirty[i], 0);
    return 0;
}

static inline int fake_peek(struct hv_mig *m, uint64_t *bitmap, struct err *e)
{
    (void)e;
    for (uint64_t i = 0; i < m->d->words; i++)
        bitmap[i] |= atomic_load(&m->d->dirty[i]);
    return 0;
}

static inline int fake_give_back(struct hv_mig *m, const uint64_t *bitmap, struct err *e)
{
    (void)e;
    for (uint64_t i = 0; i < m->d->words; i++)
        atomic_fetch_or(&m->d->dirty[i], bitmap[i]);
    return 0;
}

static inline int fake_dirty_stop(struct hv_mig *m, struct err *e)
{
    (void)e;
    atomic_store(&m->d->log_on, false);
    return 0;
}

static inline int fake_check_epoch(const struct fake_domain *d, uint64_t epoch, struct err *e)
{
    if (epoch == d->epoch)
        return 0;
    return err_set(e, ERR_EPOCH, "epoch %llu, domain has %llu", (unsigned long long)epoch,
        (unsigned long long)d->epoch);
}

static inline int fake_mig_pause(struct hv_mig *m, uint64_t epoch, struct err *e)
{
    if (fake_check_epoch(m->d, epoch, e) < 0)
        return -1;
    atomic_store(&m->d->run, false);
    while (m->d->guest > 0 && !atomic_load(&m->d->parked))
        usleep(20);
    atomic_store(&m->d->state, HV_PAUSED);
    return 0;
}

static inline int fake_mig_resume(struct hv_mig *m, uint64_t epoch, struct err *e)
{
    if (fake_check_epoch(m->d, epoch, e) < 0)
        return -1;
    atomic_store(&m->d->state, HV_RUNNING);
    atomic_store(&m->d->run, true);
    return 0;
}

static inline int fake_state_save(struct hv_mig *m, uint8_t **blob, size_t *len, struct err *e)
{
    if (fake_all_passed(m, e) < 0)
        return -1;
    *len = FAKE_STATE_LEN;
    *blob = malloc(*len);
    memset(*blob, (int)(m->d->pages & 0x7f), *len);
    return 0;
}

static inline int fake_state_load(struct hv_mig *m, const uint8_t *blob, size_t len, struct err *e)
{
    if (len != FAKE_STATE_LEN || blob[17] != (m->d->pages & 0x7f))
        return err_set(e, ERR_INVALID, "section cpu: does not fit");
    if (fake_all_passed(m, e) < 0)
        return -1;
    atomic_store(&m->d->loaded, true);
    return 0;
}

/* One vCPU, whose instruction pointer is 0x1234. */
static inline int fake_registers(
    struct hv_mig *m, struct hv_registers **list, unsigned *n, struct err *e)
{
    if (atomic_load(&m->d->state) == HV_RUNNING)
        return err_set(e, ERR_STATE, "it runs");
    *n = 1;
    *list = calloc(1, sizeof **list);
    if (*list == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    (*list)->rip = 0x1234;
    return 0;
}

static inline int fake_throttle(struct hv_mig *m, unsigned percent, struct err *e)
{
    (void)e;
    atomic_store(&m->d->throttle, percent);
    if (percent > atomic_load(&m->d->throttle_seen))
        atomic_store(&m->d->throttle_seen, percent);
    return 0;
}

static inline int fake_mig_check(struct hv *hv, const char *uuid, bool live, struct err *e)
{
    (void)hv;
    for (unsigned i = 0; i < FAKE_DOMAINS; i++) {
        const struct fake_domain *d = fake_domains[i];

        if (d == NULL || strcmp(d->uuid, uuid) != 0)
            continue;
        if (atomic_load(&d->no_move))
            return err_set(e, ERR_UNSUPPORTED, "it is nailed down");
        if (live && atomic_load(&d->no_live))
            return err_set(e, ERR_UNSUPPORTED, "there is no dirty log");
    }
    return 0;
}

static const struct hv_ops fake_ops = {
    .name = "fake",
    .open = fake_open,
    .close = fake_close,
    .capabilities = fake_capabilities,
    .info = fake_info,
    .mig_check = fake_mig_check,
    .mig_open = fake_mig_open,
    .mig_close = fake_mig_close,
    .mig_layout = fake_layout,
    .mig_populated = fake_populated,
    .mig_map = fake_map,
    .mig_unmap = fake_unmap,
    .mig_zero = fake_zero,
    .dirty_start = fake_dirty_start,
    .dirty_collect = fake_collect,
    .dirty_peek = fake_peek,
    .dirty_give_back = fake_give_back,
    .dirty_stop = fake_dirty_stop,
    .mig_pause = fake_mig_pause,
    .mig_resume = fake_mig_resume,
    .mig_registers = fake_registers,
    .state_save = fake_state_save,
    .state_load = fake_state_load,
    .throttle = fake_throttle,
};

static inline const struct hv_ops *fake_driver(const char *name)
{
    return strcmp(name, "fake") == 0 ? &fake_ops : NULL;
}

#endif
