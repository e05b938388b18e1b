/* SPDX-License-Identifier: ISC */
/*
 * The registry on a hypervisor of one domain: crash and restart, and news that are older than
 * what is known. Polls are held back by a gate, so that an answer is as old as a test wants.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrd/events.h"
#include "migrd/journal.h"
#include "migrd/registry.h"

#define UUID "11111111-2222-3333-4444-555555555555"
#define WAIT_NS (10 * NS_PER_S)

/* The hypervisor: what it has, and what was asked of it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct hv_info now;
static bool there, gate_shut;
static atomic_uint n_start, n_destroy, n_enumerate;
static struct hv_event pending;
static bool has_event;
static int event_wake = -1;

static int fake_capabilities(struct hv *hv, struct hv_caps *out, struct err *e)
{
    (void)hv;
    (void)e;
    memset(out, 0, sizeof *out);
    out->memory_total_kib = out->memory_free_kib = 64u << 20;
    return 0;
}

static bool shut(void)
{
    bool r;

    pthread_mutex_lock(&lock);
    r = gate_shut;
    pthread_mutex_unlock(&lock);
    return r;
}

static int fake_enumerate(struct hv *hv, struct hv_info **list, size_t *n, struct err *e)
{
    (void)hv;
    (void)e;
    pthread_mutex_lock(&lock);
    *n = there;
    *list = calloc(1, sizeof **list);
    **list = now;
    pthread_mutex_unlock(&lock);
    atomic_fetch_add(&n_enumerate, 1);
    while (shut())
        usleep(1000);
    return 0;
}

static int fake_info(struct hv *hv, const char *uuid, struct hv_info *out, struct err *e)
{
    (void)hv;
    (void)uuid;
    (void)e;
    pthread_mutex_lock(&lock);
    *out = now;
    pthread_mutex_unlock(&lock);
    return 0;
}

static Migrd__Domain *fake_definition(struct hv *hv, const char *uuid, struct err *e)
{
    Migrd__Domain *d = malloc(sizeof *d);

    (void)hv;
    (void)e;
    migrd__domain__init(d);
    d->uuid = strdup(uuid);
    d->name = strdup("guest");
    d->memory_kib = d->max_memory_kib = 1024;
    return d;
}

static int fake_start(
    struct hv *hv, const Migrd__Domain *def, const struct hv_start *how, struct err *e)
{
    (void)hv;
    (void)def;
    (void)e;
    pthread_mutex_lock(&lock);
    there = true;
    now.state = HV_RUNNING;
    now.reset = false;
    now.epoch = how->epoch;
    now.domid = how->domid;
    pthread_mutex_unlock(&lock);
    atomic_fetch_add(&n_start, 1);
    return 0;
}

static int set_state(enum hv_state state)
{
    pthread_mutex_lock(&lock);
    now.state = state;
    pthread_mutex_unlock(&lock);
    return 0;
}

static int fake_pause(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    (void)hv;
    (void)uuid;
    (void)epoch;
    (void)e;
    return set_state(HV_PAUSED);
}

static int fake_destroy(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    (void)hv;
    (void)uuid;
    (void)epoch;
    (void)e;
    pthread_mutex_lock(&lock);
    there = false;
    pthread_mutex_unlock(&lock);
    atomic_fetch_add(&n_destroy, 1);
    return 0;
}

static int fake_event_fd(struct hv *hv)
{
    (void)hv;
    return event_wake;
}

static int fake_next_event(struct hv *hv, struct hv_event *out, struct err *e)
{
    uint64_t n;
    bool had = has_event;

    (void)hv;
    (void)e;
    if (read(event_wake, &n, sizeof n) < 0)
        n = 0;
    *out = pending;
    has_event = false;
    return had;
}

static const struct hv_ops fake = { .name = "fake",
    .capabilities = fake_capabilities,
    .enumerate = fake_enumerate,
    .info = fake_info,
    .definition = fake_definition,
    .start = fake_start,
    .pause = fake_pause,
    .destroy = fake_destroy,
    .event_fd = fake_event_fd,
    .next_event = fake_next_event };

/* --- the daemon around it --- */

static struct migrd m;
static char dir[64];

static struct domain *guest(void)
{
    return registry_by_uuid(m.registry, UUID);
}

static int set_up(void **state)
{
    size_t doubts;
    char path[128];
    struct err e;

    (void)state;
    memset(&m, 0, sizeof m);
    now = (struct hv_info){ .uuid = UUID, .name = "guest", .domid = 3, .epoch = 7 };
    there = true;
    gate_shut = has_event = false;
    n_start = n_destroy = n_enumerate = 0;
    event_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    strcpy(dir, "/tmp/test_registry.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/journal", dir);
    snprintf(m.paths.domains, sizeof m.paths.domains, "%s", dir);
    strcpy(m.host_name, "here");
    m.loop = malloc(sizeof *m.loop);
    assert_int_equal(uv_loop_init(m.loop), 0);
    m.hv_ops = &fake;
    m.caps.memory_total_kib = m.caps.memory_free_kib = 64u << 20;
    m.events = events_new();
    assert_int_equal(journal_open(path, &m.journal, &doubts, &e), 0);
    assert_int_equal(registry_make(&m, &e), 0);
    registry_note_record(&m, UUID, ".", 7, 3, false);
    assert_int_equal(registry_open(&m, &e), 0);
    assert_int_equal(registry_start(&m, &e), 0);
    assert_true(guest()->live);
    return 0;
}

static int tear_down(void **state)
{
    char path[128];

    (void)state;
    pthread_mutex_lock(&lock);
    gate_shut = false;
    pthread_mutex_unlock(&lock);
    registry_stop(&m);
    uv_run(m.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(m.loop), 0);
    registry_close(&m);
    journal_close(&m.journal);
    events_free(&m.events);
    free(m.loop);
    close(event_wake);
    snprintf(path, sizeof path, "%s/journal", dir);
    unlink(path);
    rmdir(dir);
    return 0;
}

/* Runs the loop until *n is at least `want`, and what is under way has ended. */
static void run_until(atomic_uint *n, unsigned want)
{
    uint64_t end = clock_ns() + WAIT_NS;

    while (clock_ns() < end && (atomic_load(n) < want || guest()->busy != NULL)) {
        uv_run(m.loop, UV_RUN_NOWAIT);
        usleep(500);
    }
    assert_true(atomic_load(n) >= want);
}

static void poll_twice(void)
{
    for (int i = 0; i < 2; i++) {
        unsigned before = atomic_load(&n_enumerate);

        registry_refresh(&m);
        run_until(&n_enumerate, before + 1);
        for (int k = 0; k < 20; k++) {
            uv_run(m.loop, UV_RUN_NOWAIT);
            usleep(500);
        }
    }
}

static void send_event(enum hv_event_type type)
{
    uint64_t one = 1;

    pending = (struct hv_event){ .type = type, .uuid = UUID };
    has_event = true;
    assert_int_equal(write(event_wake, &one, sizeof one), sizeof one);
}

static void test_crash_restarts_once(void **state)
{
    (void)state;
    set_state(HV_CRASHED);
    send_event(HV_EV_CRASHED);
    run_until(&n_start, 1);
    assert_int_equal(n_destroy, 1);
    assert_int_equal(guest()->epoch, 8);
    /* The end of its first life is told late. */
    send_event(HV_EV_GONE);
    poll_twice();
    assert_true(guest()->live);
    assert_non_null(guest()->live_def);
    assert_int_equal(n_start, 1);
}

static void test_silence_is_no_crash(void **state)
{
    (void)state;
    pthread_mutex_lock(&lock);
    now.state = HV_CRASHED;
    now.domid = -1;
    pthread_mutex_unlock(&lock);
    poll_twice();
    assert_int_equal(guest()->info.state, HV_RUNNING);
    assert_int_equal(n_destroy, 0);
}

static void test_owner_elsewhere_is_not_restarted(void **state)
{
    (void)state;
    registry_set_owner(&m, guest(), "there", 9);
    set_state(HV_CRASHED);
    poll_twice();
    assert_int_equal(guest()->info.state, HV_CRASHED);
    assert_int_equal(n_destroy, 0);
    assert_int_equal(n_start, 0);
}

static void test_old_poll_does_not_unpause(void **state)
{
    unsigned before = atomic_load(&n_enumerate);
    struct err e;

    (void)state;
    pthread_mutex_lock(&lock);
    gate_shut = true;
    pthread_mutex_unlock(&lock);
    registry_refresh(&m);
    run_until(&n_enumerate, before + 1);
    assert_int_equal(registry_act(&m, guest(), REG_PAUSE, NULL, NULL, NULL, &e), 0);
    run_until(&n_enumerate, before + 1);
    assert_int_equal(guest()->info.state, HV_PAUSED);
    pthread_mutex_lock(&lock);
    gate_shut = false;
    pthread_mutex_unlock(&lock);
    /* Only the old answer comes in; nothing may be seen of it, not even for a moment. */
    for (int k = 0; k < 100; k++) {
        uv_run(m.loop, UV_RUN_NOWAIT);
        assert_int_equal(guest()->info.state, HV_PAUSED);
        usleep(500);
    }
}

static void test_gone_is_gone(void **state)
{
    (void)state;
    pthread_mutex_lock(&lock);
    there = false;
    pthread_mutex_unlock(&lock);
    send_event(HV_EV_GONE);
    for (int k = 0; k < 2000 && guest() != NULL; k++) {
        uv_run(m.loop, UV_RUN_NOWAIT);
        usleep(500);
    }
    assert_null(guest()); /* it was not defined */
}

/* No event came of it: what the poll finds is a reset, not the power-off that would end it. */
static void test_missed_reset_restarts(void **state)
{
    (void)state;
    pthread_mutex_lock(&lock);
    now.state = HV_SHUTDOWN;
    now.reset = true;
    pthread_mutex_unlock(&lock);
    registry_refresh(&m);
    run_until(&n_start, 1);
    assert_int_equal(n_destroy, 1);
    poll_twice();
    assert_int_equal(n_start, 1);
}

/* Made by somebody else while we look. */
static void test_stranger_has_its_definition(void **state)
{
    static const char uuid[] = "99999999-2222-3333-4444-555555555555";

    (void)state;
    pthread_mutex_lock(&lock);
    strcpy(now.uuid, uuid);
    strcpy(now.name, "other");
    pthread_mutex_unlock(&lock);
    registry_refresh(&m);
    for (int k = 0; k < 2000 && registry_by_uuid(m.registry, uuid) == NULL; k++) {
        uv_run(m.loop, UV_RUN_NOWAIT);
        if (k % 200 == 199)
            registry_refresh(&m);
        usleep(500);
    }
    assert_non_null(registry_by_uuid(m.registry, uuid));
    assert_int_equal(registry_definition(registry_by_uuid(m.registry, uuid))->memory_kib, 1024);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_crash_restarts_once),
        TEST(test_silence_is_no_crash),
        TEST(test_owner_elsewhere_is_not_restarted),
        TEST(test_old_poll_does_not_unpause),
        TEST(test_gone_is_gone),
        TEST(test_missed_reset_restarts),
        TEST(test_stranger_has_its_definition),
    };

    log_set_level(LOG_LV_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
