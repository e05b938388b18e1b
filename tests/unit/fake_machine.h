/* SPDX-License-Identifier: ISC */
/*
 * fake_machine: the machine.h that a device model sees, without KVM: memory from the
 * heap, a dirty flag for each page, counted interrupts. Include once in a test program;
 * it defines the functions of machine.h which devices call. Dirty check: what differs
 * from `shadow` must be marked.
 */
#ifndef FAKE_MACHINE_H
#define FAKE_MACHINE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "hypervisor/xvm/machine.h"
#include "hypervisor/xvm/state.h"

#define FAKE_RAM (UINT64_C(4) << 20)
#define FAKE_PAGES (FAKE_RAM >> 12)
#define FAKE_GSIS 24
#define FAKE_DEVICES 8

struct machine {
    uint8_t *ram, *shadow;
    uint8_t dirty[FAKE_PAGES];     /* atomic */
    uint8_t discarded[FAKE_PAGES]; /* atomic */
    unsigned edges[FAKE_GSIS];     /* atomic */
    bool level[FAKE_GSIS];
    struct device *dev[FAKE_DEVICES];
    unsigned n_dev;
    Migrd__Domain def;
    char dir[64];
    uint64_t drain_until_ns;
    const char *undrained, *unflushed;
    struct machine_storage storage;
    uint64_t epoch;
    struct machine_hold *hold; /* of one device at most; atomic */
    bool blown;                /* the fuse; atomic */
};

int machine_add_device(struct machine *m, struct device *d, struct err *e)
{
    if (m->n_dev == FAKE_DEVICES)
        return err_set(e, ERR_RESOURCE, "too many devices");
    m->dev[m->n_dev++] = d;
    return 0;
}

/* Devices must do without, and see all writes. */
bool machine_write_event(struct machine *m, uint64_t gpa, uint32_t value, int fd, bool on)
{
    (void)m;
    (void)gpa;
    (void)value;
    (void)fd;
    (void)on;
    return false;
}

void machine_irq(struct machine *m, int gsi, bool level)
{
    bool before = __atomic_exchange_n(&m->level[gsi], level, __ATOMIC_SEQ_CST);

    if (level && !before)
        __atomic_fetch_add(&m->edges[gsi], 1, __ATOMIC_SEQ_CST);
}

/* Devices' threads change it while a test looks. */
static inline bool fake_level(struct machine *m, int gsi)
{
    return __atomic_load_n(&m->level[gsi], __ATOMIC_SEQ_CST);
}

void *machine_ram(struct machine *m, uint64_t gpa, uint64_t len)
{
    return gpa >= FAKE_RAM || len > FAKE_RAM - gpa ? NULL : m->ram + gpa;
}

static void mark(uint8_t *flags, uint64_t gpa, uint64_t len)
{
    assert_true(gpa < FAKE_RAM && len <= FAKE_RAM - gpa);
    for (uint64_t p = gpa >> 12; len > 0 && p <= (gpa + len - 1) >> 12; p++)
        __atomic_store_n(&flags[p], 1, __ATOMIC_SEQ_CST);
}

void machine_dirty(struct machine *m, uint64_t gpa, uint64_t len)
{
    mark(m->dirty, gpa, len);
}

void machine_discard(struct machine *m, uint64_t gpa, uint64_t len)
{
    memset(m->ram + gpa, 0, len);
    mark(m->discarded, gpa, len);
    mark(m->dirty, gpa, len);
}

uint64_t machine_drain_until(const struct machine *m)
{
    return m->drain_until_ns;
}

void machine_not_drained(struct machine *m, const char *device)
{
    m->undrained = device;
}

void machine_not_flushed(struct machine *m, const char *device)
{
    m->unflushed = device;
}

void machine_suspend(
    struct machine *m, struct machine_hold *h, enum machine_hold_kind kind, const char *text)
{
    h->kind = kind;
    snprintf(h->text, sizeof h->text, "%s", text);
    __atomic_store_n(&m->hold, h, __ATOMIC_SEQ_CST);
}

void machine_unsuspend(struct machine *m, struct machine_hold *h)
{
    if (__atomic_load_n(&m->hold, __ATOMIC_SEQ_CST) == h)
        __atomic_store_n(&m->hold, NULL, __ATOMIC_SEQ_CST);
}

bool machine_suspended(struct machine *m)
{
    return __atomic_load_n(&m->hold, __ATOMIC_SEQ_CST) != NULL;
}

bool machine_may_write(struct machine *m)
{
    return !__atomic_load_n(&m->blown, __ATOMIC_SEQ_CST);
}

bool machine_paused(const struct machine *m)
{
    (void)m;
    return false;
}

const struct machine_storage *machine_storage(const struct machine *m)
{
    return &m->storage;
}

uint64_t machine_epoch(const struct machine *m)
{
    return m->epoch;
}

const Migrd__Domain *machine_def(const struct machine *m)
{
    return &m->def;
}

const char *machine_run_dir(const struct machine *m)
{
    return m->dir;
}

const char *machine_log_dir(const struct machine *m)
{
    return m->dir;
}

void machine_guest_stopped(struct machine *m, enum machine_stop why, const char *detail)
{
    (void)m;
    (void)why;
    (void)detail;
}

static struct machine *fake_new(void)
{
    struct machine *m = calloc(1, sizeof *m);

    assert_non_null(m);
    m->ram = aligned_alloc(4096, FAKE_RAM);
    m->shadow = malloc(FAKE_RAM);
    assert_non_null(m->ram);
    assert_non_null(m->shadow);
    memset(m->ram, 0, FAKE_RAM);
    migrd__domain__init(&m->def);
    m->def.name = (char *)(uintptr_t) "guest";
    m->def.uuid = (char *)(uintptr_t) "11111111-2222-3333-4444-555555555555";
    m->epoch = 1;
    m->def.memory_kib = FAKE_RAM >> 10;
    m->def.max_memory_kib = FAKE_RAM >> 10;
    snprintf(m->dir, sizeof m->dir, "/tmp/migrd-test-XXXXXX");
    assert_non_null(mkdtemp(m->dir));
    return m;
}

static void fake_free(struct machine **mp)
{
    static const char *const files[] = { "console-guest.log", "console-guest.log.1", "disk" };
    struct machine *m = *mp;
    char path[128];

    *mp = NULL;
    for (unsigned i = 0; i < m->n_dev; i++)
        m->dev[i]->ops->free(m->dev[i]);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", m->dir, files[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(m->dir), 0);
    free(m->ram);
    free(m->shadow);
    free(m);
}

/* With the thread sanitizer the two would take minutes; it has other things to look for. */
#ifdef __SANITIZE_THREAD__
static inline void fake_clean(struct machine *m)
{
    (void)m;
}

static inline void fake_check_dirty(const struct machine *m)
{
    (void)m;
}
#else
static inline void fake_clean(struct machine *m)
{
    memcpy(m->shadow, m->ram, FAKE_RAM);
    memset(m->dirty, 0, sizeof m->dirty);
}

/* Every page that changed since fake_clean is marked. */
static inline void fake_check_dirty(const struct machine *m)
{
    for (uint64_t p = 0; p < FAKE_PAGES; p++)
        if (memcmp(m->ram + (p << 12), m->shadow + (p << 12), 4096) != 0 && !m->dirty[p])
            fail_msg("page %llu changed and is not marked dirty", (unsigned long long)p);
}
#endif

static inline unsigned fake_edges(struct machine *m, int gsi)
{
    return __atomic_load_n(&m->edges[gsi], __ATOMIC_SEQ_CST);
}

/* Saves the devices of one machine and loads them into another; -1 as load says. */
static inline int fake_move(struct machine *from, struct machine *to, struct err *e)
{
    struct state_writer w;
    struct state_blob *b = NULL;
    uint8_t *blob;
    size_t len;
    int rc = 0;

    state_writer_init(&w);
    for (unsigned i = 0; i < from->n_dev; i++) {
        from->dev[i]->ops->quiesce(from->dev[i]);
        assert_int_equal(from->dev[i]->ops->save(from->dev[i], &w, e), 0);
    }
    assert_int_equal(state_finish(&w, &blob, &len, e), 0);
    memcpy(to->ram, from->ram, FAKE_RAM);
    assert_int_equal(state_parse(blob, len, &b, e), 0);
    for (unsigned i = 0; i < to->n_dev && rc == 0; i++) {
        struct state_reader r;

        assert_int_equal(state_open(b, to->dev[i]->ops->name, &r, e), 0);
        rc = to->dev[i]->ops->load(to->dev[i], &r, e);
    }
    if (rc == 0)
        assert_int_equal(state_all_taken(b, e), 0);
    state_blob_free(&b);
    free(blob);
    return rc;
}

#endif
