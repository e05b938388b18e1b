/* SPDX-License-Identifier: ISC */
/*
 * What the cluster's log wants of this host, and what operators want of protected domains, on a
 * hypervisor of one domain and with a log whose words the tests say.
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
#include "migrd/events.h"
#include "migrd/ha.h"
#include "migrd/journal.h"
#include "migrd/migration_internal.h"
#include "migrd/registry.h"

#define UUID "11111111-2222-3333-4444-555555555555"
#define WAIT_NS (10 * NS_PER_S)

/* --- the hypervisor --- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct hv_info now;
static bool there, start_fails;
static atomic_uint n_start, n_destroy, n_shutdown, n_resume;
static struct hv_start last_start;
static uint64_t fuse_epoch, fuse_deadline;
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

static int fake_enumerate(struct hv *hv, struct hv_info **list, size_t *n, struct err *e)
{
    (void)hv;
    (void)e;
    pthread_mutex_lock(&lock);
    *n = there;
    *list = calloc(1, sizeof **list);
    **list = now;
    pthread_mutex_unlock(&lock);
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

static Migrd__Domain *new_definition(void)
{
    Migrd__Domain *d = malloc(sizeof *d);

    migrd__domain__init(d);
    d->uuid = strdup(UUID);
    d->name = strdup("guest");
    d->hypervisor = strdup("xvm");
    d->kernel = strdup("/boot/guest");
    d->memory_kib = d->max_memory_kib = 4096;
    d->vcpus = 1;
    return d;
}

static Migrd__Domain *fake_definition(struct hv *hv, const char *uuid, struct err *e)
{
    (void)hv;
    (void)uuid;
    (void)e;
    return new_definition();
}

static void apply_fuse(void)
{
    if (!now.blown || fuse_epoch != now.epoch || fuse_deadline == 0)
        return;
    now.blown = false;
    now.state = HV_RUNNING;
}

static int fake_start(
    struct hv *hv, const Migrd__Domain *def, const struct hv_start *how, struct err *e)
{
    int r = 0;

    (void)hv;
    (void)def;
    pthread_mutex_lock(&lock);
    last_start = *how;
    if (start_fails) {
        r = err_set(e, ERR_NOT_FOUND, "its disk is not there");
    } else {
        there = true;
        now.epoch = how->epoch;
        now.domid = how->domid;
        now.blown = how->blown;
        now.fused = true;
        now.state = how->blown ? HV_PAUSED : HV_RUNNING;
        apply_fuse();
    }
    pthread_mutex_unlock(&lock);
    atomic_fetch_add(&n_start, 1);
    return r;
}

static int fake_fuse(
    struct hv *hv, const char *uuid, uint64_t epoch, uint64_t deadline, struct err *e)
{
    (void)hv;
    (void)uuid;
    (void)e;
    pthread_mutex_lock(&lock);
    fuse_epoch = epoch;
    fuse_deadline = deadline;
    apply_fuse();
    pthread_mutex_unlock(&lock);
    return 0;
}

static int fake_resume(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    (void)hv;
    (void)uuid;
    (void)epoch;
    (void)e;
    pthread_mutex_lock(&lock);
    now.state = HV_RUNNING;
    now.blown = false;
    pthread_mutex_unlock(&lock);
    atomic_fetch_add(&n_resume, 1);
    return 0;
}

static int fake_shutdown(struct hv *hv, const char *uuid, bool reboot, struct err *e)
{
    (void)hv;
    (void)uuid;
    (void)reboot;
    (void)e;
    atomic_fetch_add(&n_shutdown, 1);
    return 0;
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

static const struct hv_ops fake = { .name = "xvm",
    .capabilities = fake_capabilities,
    .enumerate = fake_enumerate,
    .info = fake_info,
    .definition = fake_definition,
    .start = fake_start,
    .fuse = fake_fuse,
    .resume = fake_resume,
    .shutdown = fake_shutdown,
    .destroy = fake_destroy,
    .event_fd = fake_event_fd,
    .next_event = fake_next_event };

/* --- the log: in the place of cluster/node.c --- */

static struct log {
    const struct cluster_host *host;
    void *arg;
    bool known; /* caught up */
    bool has;   /* the domain is protected */
    Migrd__HaDomain record;
    Migrd__HaState state;
    struct ha_event told;
    unsigned n_told, n_gone, n_asked, n_results;
    uint64_t result_id;
    bool result_ok;
    char result_text[300];
    bool asked_run, says_no;
    uint64_t others_kib;
} log_;

int cluster_open(uv_loop_t *loop, const struct cluster_options *o, const struct cluster_host *host,
    void *arg, struct cluster **out, struct err *e)
{
    (void)loop;
    (void)o;
    (void)e;
    log_.host = host;
    log_.arg = arg;
    *out = (struct cluster *)&log_;
    return 0;
}

int cluster_reload(struct cluster *c, struct err *e)
{
    (void)c;
    (void)e;
    return 0;
}

void cluster_stop(struct cluster *c)
{
    (void)c;
}

void cluster_close(struct cluster **c)
{
    *c = NULL;
}

void cluster_domain(struct cluster *c, const struct ha_event *domain)
{
    (void)c;
    log_.told = *domain;
    log_.n_told++;
    log_.n_gone += domain->u.domain.seen == HA_SEEN_GONE;
}

void cluster_capacity(struct cluster *c, uint64_t memory_kib, unsigned cpus, uint64_t others_kib)
{
    (void)c;
    (void)memory_kib;
    (void)cpus;
    log_.others_kib = others_kib;
}

void cluster_result(struct cluster *c, uint64_t id, bool ok, const char *text)
{
    (void)c;
    log_.n_results++;
    log_.result_id = id;
    log_.result_ok = ok;
    snprintf(log_.result_text, sizeof log_.result_text, "%s", text);
}

int cluster_ask(struct cluster *c, const Migrd__HaCommand *command, unsigned within_ms,
    cluster_answer *done, void *arg, struct err *e)
{
    Migrd__HaAnswer a = MIGRD__HA_ANSWER__INIT;

    (void)c;
    (void)within_ms;
    (void)e;
    log_.n_asked++;
    log_.asked_run = command->domain != NULL && command->domain->want_run;
    a.ok = !log_.says_no;
    a.text = (char *)(uintptr_t)(a.ok ? "" : "no room");
    done(arg, &a);
    return 0;
}

const Migrd__HaState *cluster_state(struct cluster *c)
{
    (void)c;
    return &log_.state;
}

const Migrd__HaDomain *cluster_find(struct cluster *c, const char *uuid)
{
    (void)c;
    return log_.has && strcmp(uuid, UUID) == 0 ? &log_.record : NULL;
}

bool cluster_is_protected(struct cluster *c, const char *uuid, bool *final)
{
    bool yes = cluster_find(c, uuid) != NULL;

    if (final != NULL)
        *final = yes || log_.known;
    return yes;
}

uint32_t cluster_own_id(const struct cluster *c)
{
    (void)c;
    return 1;
}

const char *cluster_node_name(struct cluster *c, uint32_t id)
{
    (void)c;
    return id == 1 ? "here" : "there";
}

const char *cluster_node_address(struct cluster *c, uint32_t id)
{
    (void)c;
    (void)id;
    return "192.0.2.1";
}

uint32_t cluster_node_id(struct cluster *c, const char *name)
{
    (void)c;
    (void)name;
    return 0;
}

void cluster_figures(const struct cluster *c, struct cluster_figures *out)
{
    (void)c;
    memset(out, 0, sizeof *out);
}

Migrd__HaPlan *cluster_what_if(struct cluster *c, const uint32_t *dead, unsigned n)
{
    (void)c;
    (void)dead;
    (void)n;
    return NULL;
}

Migrd__HaPlan *cluster_explain(struct cluster *c, const char *uuid)
{
    (void)c;
    (void)uuid;
    return NULL;
}

Migrd__HaPlan *cluster_certificate(struct cluster *c, unsigned k)
{
    (void)c;
    (void)k;
    return NULL;
}

/* --- the daemon around it --- */

static struct migrd m;
static char dir[64];

static struct domain *guest(void)
{
    return registry_by_uuid(m.registry, UUID);
}

static void turn(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uv_run(m.loop, UV_RUN_NOWAIT);
        usleep(500);
    }
}

static void wait_true(bool (*what)(void))
{
    uint64_t end = clock_ns() + WAIT_NS;

    while (clock_ns() < end && !what())
        turn(1);
    assert_true(what());
}

static void begin(bool running, bool protected)
{
    char path[128];
    size_t doubts;
    struct err e;

    memset(&m, 0, sizeof m);
    memset(&log_, 0, sizeof log_);
    migrd__ha_domain__init(&log_.record);
    migrd__ha_state__init(&log_.state);
    log_.record.uuid = (char *)(uintptr_t)UUID;
    log_.record.name = (char *)(uintptr_t) "guest";
    log_.record.owner = 1;
    log_.record.epoch = 7;
    log_.record.state = MIGRD__HA_DOMAIN_STATE__DOMAIN_RUNNING;
    log_.has = protected;
    log_.known = true;
    now = (struct hv_info){ .uuid = UUID, .name = "guest", .domid = 3, .epoch = 7, .fused = true };
    there = running;
    start_fails = has_event = false;
    fuse_epoch = fuse_deadline = 0;
    n_start = n_destroy = n_shutdown = n_resume = 0;
    event_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    strcpy(dir, "/tmp/test_ha.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/journal", dir);
    snprintf(m.paths.domains, sizeof m.paths.domains, "%s", dir);
    snprintf(m.paths.state, sizeof m.paths.state, "%s", dir);
    strcpy(m.host_name, "here");
    m.config.cluster = true;
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
    assert_int_equal(ha_open(&m, &e), 0);
    turn(5);
}

static int running(void **state)
{
    (void)state;
    begin(true, true);
    return 0;
}

static int stopped(void **state)
{
    (void)state;
    begin(false, true);
    return 0;
}

static int unprotected(void **state)
{
    (void)state;
    begin(true, false);
    return 0;
}

static int end(void **state)
{
    char path[128];

    (void)state;
    ha_stop(&m);
    registry_stop(&m);
    uv_run(m.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(m.loop), 0);
    ha_close(&m);
    registry_close(&m);
    journal_close(&m.journal);
    events_free(&m.events);
    free(m.loop);
    close(event_wake);
    snprintf(path, sizeof path, "rm -rf %s", dir);
    return system(path);
}

static void guest_ends(enum hv_event_type type)
{
    uint64_t one = 1;

    pthread_mutex_lock(&lock);
    now.state = type == HV_EV_CRASHED ? HV_CRASHED : HV_SHUTDOWN;
    pthread_mutex_unlock(&lock);
    pending = (struct hv_event){ .type = type, .uuid = UUID };
    has_event = true;
    assert_int_equal(write(event_wake, &one, sizeof one), sizeof one);
}

static void act(enum ha_action_type type, uint64_t id, uint64_t epoch)
{
    struct ha_action a = { .type = type, .id = id, .uuid = UUID, .epoch = epoch, .text = "a test" };
    Migrd__Domain *def = new_definition();
    uint8_t bytes[1000];

    if (type == HA_ACT_START) {
        a.len = migrd__domain__pack(def, bytes);
        a.bytes = bytes;
    }
    a.deadline = clock_boot_ms() + 60000;
    migrd__domain__free_unpacked(def, NULL);
    log_.host->act(log_.arg, &a);
}

static bool has_result(void)
{
    return log_.n_results > 0;
}

/* --- what the log wants --- */

static void test_start(void **state)
{
    (void)state;
    act(HA_ACT_START, 5, 9);
    log_.host->fuse(log_.arg, UUID, 9, UINT64_MAX);
    wait_true(has_result);
    assert_int_equal(log_.result_id, 5);
    assert_true(log_.result_ok);
    assert_true(last_start.blown);
    assert_int_equal(last_start.proven, HV_PROOF_CLUSTER);
    assert_int_equal(last_start.epoch, 9);
    turn(5);
    assert_int_equal(log_.told.u.domain.seen, HA_SEEN_RUNNING);
    assert_int_equal(log_.told.u.domain.epoch, 9);
    assert_int_equal(guest()->epoch, 9);
    assert_string_equal(guest()->owner, "here");
    /* The same again is done already. */
    log_.n_results = 0;
    act(HA_ACT_START, 6, 9);
    wait_true(has_result);
    assert_true(log_.result_ok);
    assert_int_equal(n_start, 1);
    /* Another life while this one is here is not. */
    log_.n_results = 0;
    act(HA_ACT_START, 7, 11);
    wait_true(has_result);
    assert_false(log_.result_ok);
    assert_int_equal(n_start, 1);
}

static void test_start_fails(void **state)
{
    (void)state;
    start_fails = true;
    act(HA_ACT_START, 5, 9);
    wait_true(has_result);
    assert_false(log_.result_ok);
    assert_non_null(strstr(log_.result_text, "its disk is not there"));
    assert_int_equal(log_.n_told, 0); /* it was never here */
}

static void test_start_destroyed_before(void **state)
{
    (void)state;
    act(HA_ACT_START, 5, 9);
    act(HA_ACT_DESTROY, 6, 9);
    wait_true(has_result);
    turn(200);
    assert_int_equal(log_.n_results, 2);
    assert_false(there);
}

static void test_destroy(void **state)
{
    (void)state;
    act(HA_ACT_DESTROY, 5, 5); /* another life: not there is a success */
    wait_true(has_result);
    assert_true(log_.result_ok);
    assert_int_equal(n_destroy, 0);
    log_.n_results = 0;
    act(HA_ACT_DESTROY, 6, 7);
    wait_true(has_result);
    assert_true(log_.result_ok);
    assert_int_equal(n_destroy, 1);
    turn(5);
    assert_int_equal(log_.n_gone, 1);
}

static bool was_asked(void)
{
    return n_shutdown > 0 && guest()->busy == NULL;
}

static void test_stop(void **state)
{
    (void)state;
    act(HA_ACT_STOP, 5, 7);
    wait_true(was_asked);
    assert_int_equal(log_.n_results, 0);
    guest_ends(HV_EV_SHUTDOWN);
    wait_true(has_result);
    assert_true(log_.result_ok);
    assert_int_equal(n_destroy, 1);
    assert_int_equal(n_start, 0);
    turn(5);
    assert_int_equal(log_.told.u.domain.seen, HA_SEEN_GONE);
}

static void blow(void)
{
    pthread_mutex_lock(&lock);
    now.state = HV_PAUSED;
    now.blown = true;
    pthread_mutex_unlock(&lock);
    registry_refresh(&m);
    turn(50);
}

static void test_resume(void **state)
{
    (void)state;
    act(HA_ACT_RESUME, 5, 7);
    wait_true(has_result);
    assert_true(log_.result_ok); /* it runs */
    blow();
    assert_true(log_.told.u.domain.blown);
    log_.n_results = 0;
    act(HA_ACT_RESUME, 6, 7);
    wait_true(has_result);
    assert_true(log_.result_ok);
    assert_int_equal(n_resume, 1);
}

/* While its pages travel the move gives way; a hand-over that has stopped the guest does not. */
static void test_resume_of_a_moving_one(void **state)
{
    struct migration g = { .m = &m, .kind = MIG_OUT, .state = SRC_ASKING };

    (void)state;
    blow();
    guest()->mig = &g;
    act(HA_ACT_RESUME, 5, 7);
    wait_true(has_result);
    assert_false(log_.result_ok);
    assert_false(g.cancelled);
    log_.n_results = 0;
    g.state = SRC_PRECOPY;
    act(HA_ACT_RESUME, 6, 7);
    turn(200);
    assert_true(g.cancelled);
    assert_int_equal(log_.n_results, 0);
    assert_int_equal(n_resume, 0);
    guest()->mig = NULL; /* and left as it was */
    wait_true(has_result);
    assert_true(log_.result_ok);
    assert_int_equal(n_resume, 1);
}

/* --- ends of guests --- */

static bool told_shutdown(void)
{
    return log_.told.u.domain.seen == HA_SEEN_SHUTDOWN;
}

static bool told_crashed(void)
{
    return log_.told.u.domain.seen == HA_SEEN_CRASHED;
}

static bool restarted(void)
{
    return n_start > 0 && guest()->busy == NULL;
}

static void test_ends_are_the_logs(void **state)
{
    (void)state;
    guest_ends(HV_EV_SHUTDOWN);
    wait_true(told_shutdown);
    assert_true(log_.told.u.domain.by_guest);
    turn(50);
    assert_int_equal(n_destroy + n_start, 0);
}

static void test_crash_is_the_logs(void **state)
{
    (void)state;
    guest_ends(HV_EV_CRASHED);
    wait_true(told_crashed);
    turn(50);
    assert_int_equal(n_destroy + n_start, 0);
}

static void test_reset(void **state)
{
    (void)state;
    log_.host->fuse(log_.arg, UUID, 7, UINT64_MAX);
    guest_ends(HV_EV_REBOOT);
    wait_true(restarted);
    assert_int_equal(last_start.epoch, 7);
    assert_true(last_start.blown);
    turn(50);
    assert_int_equal(now.state, HV_RUNNING); /* the log's last word was still good */
    assert_int_equal(log_.n_gone, 0);
    assert_int_equal(log_.told.u.domain.seen, HA_SEEN_RUNNING);
    assert_int_equal(log_.told.u.domain.epoch, 7);
}

static void test_unprotected_as_ever(void **state)
{
    (void)state;
    guest_ends(HV_EV_CRASHED);
    wait_true(restarted);
    assert_int_equal(last_start.epoch, 8);
    assert_false(last_start.blown);
    assert_int_equal(log_.others_kib, 4096);
}

/* --- operators --- */

static struct err done_err;
static unsigned n_done;

static void done(void *arg, const char *uuid, const struct err *e)
{
    (void)arg;
    (void)uuid;
    done_err = *e;
    n_done++;
}

static bool is_done(void)
{
    return n_done > 0;
}

static bool is_blown(void)
{
    return guest()->info.blown;
}

static int operator_does(enum registry_op op, struct err *e)
{
    n_done = 0;
    return registry_act(&m, guest(), op, NULL, done, NULL, e);
}

static void test_operator_destroys(void **state)
{
    struct err e;

    (void)state;
    assert_int_equal(operator_does(REG_DESTROY, &e), 0);
    assert_int_equal(n_destroy, 0); /* first the log */
    assert_int_equal(log_.n_asked, 1);
    assert_false(log_.asked_run);
    wait_true(is_done);
    assert_int_equal(done_err.code, ERR_NONE);
    assert_int_equal(n_destroy, 1);
}

static void test_operator_is_refused(void **state)
{
    struct err e;

    (void)state;
    log_.says_no = true;
    assert_int_equal(operator_does(REG_DESTROY, &e), 0);
    wait_true(is_done);
    assert_int_equal(done_err.code, ERR_STATE);
    assert_non_null(strstr(done_err.text, "no room"));
    assert_int_equal(n_destroy, 0);
    assert_int_equal(ha_refuses(&m, UUID, "guest", "undefine", &e), -1);
    assert_non_null(strstr(e.text, "migctl ha remove guest"));
}

static void test_operator_starts(void **state)
{
    Migrd__Domain *def = new_definition();
    struct err e;

    (void)state;
    n_done = 0;
    assert_int_equal(registry_define_here(&m, &def, done, NULL, &e), 0);
    wait_true(is_done);
    assert_int_equal(operator_does(REG_START, &e), -1); /* the log says that it runs */
    log_.record.state = MIGRD__HA_DOMAIN_STATE__DOMAIN_STOPPED;
    assert_int_equal(operator_does(REG_START, &e), 0);
    log_.record.state = MIGRD__HA_DOMAIN_STATE__DOMAIN_STARTING;
    log_.record.owner = 2;
    turn(50);
    assert_true(log_.asked_run);
    assert_int_equal(n_done, 0);
    log_.record.state = MIGRD__HA_DOMAIN_STATE__DOMAIN_RUNNING;
    log_.host->changed(log_.arg);
    wait_true(is_done);
    assert_int_equal(done_err.code, ERR_NONE);
    assert_int_equal(n_start, 0); /* on another host */
}

/* It stood still by its fuse when it was removed. */
static void test_operator_lights(void **state)
{
    struct err e;

    (void)state;
    pthread_mutex_lock(&lock);
    now.state = HV_PAUSED;
    now.blown = true;
    pthread_mutex_unlock(&lock);
    registry_refresh(&m);
    wait_true(is_blown);
    log_.known = false;
    assert_int_equal(operator_does(REG_UNPAUSE, &e), -1);
    assert_int_equal(fuse_epoch, 0);
    log_.known = true;
    assert_int_equal(operator_does(REG_UNPAUSE, &e), 0);
    wait_true(is_done);
    assert_int_equal(done_err.code, ERR_NONE);
    assert_int_equal(fuse_epoch, 7);
    assert_true(fuse_deadline == UINT64_MAX);
    assert_int_equal(n_resume, 1);
}

/* What counts once it is protected no more: written once, by the log's word. */
static void test_owner_is_noted(void **state)
{
    Migrd__Domain *def = new_definition();
    struct err e;

    (void)state;
    n_done = 0;
    assert_int_equal(registry_define_here(&m, &def, done, NULL, &e), 0);
    wait_true(is_done);
    log_.record.owner = 2;
    log_.record.epoch = 9;
    log_.host->changed(log_.arg);
    turn(50);
    assert_int_equal(guest()->epoch, 9);
    assert_string_not_equal(guest()->owner, "here");
    log_.has = false;
    assert_int_equal(operator_does(REG_START, &e), -1);
    assert_non_null(strstr(e.text, "was given to host"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_start, stopped, end),
        cmocka_unit_test_setup_teardown(test_start_fails, stopped, end),
        cmocka_unit_test_setup_teardown(test_start_destroyed_before, stopped, end),
        cmocka_unit_test_setup_teardown(test_destroy, running, end),
        cmocka_unit_test_setup_teardown(test_stop, running, end),
        cmocka_unit_test_setup_teardown(test_resume, running, end),
        cmocka_unit_test_setup_teardown(test_resume_of_a_moving_one, running, end),
        cmocka_unit_test_setup_teardown(test_ends_are_the_logs, running, end),
        cmocka_unit_test_setup_teardown(test_crash_is_the_logs, running, end),
        cmocka_unit_test_setup_teardown(test_reset, running, end),
        cmocka_unit_test_setup_teardown(test_unprotected_as_ever, unprotected, end),
        cmocka_unit_test_setup_teardown(test_operator_destroys, running, end),
        cmocka_unit_test_setup_teardown(test_operator_is_refused, running, end),
        cmocka_unit_test_setup_teardown(test_operator_starts, stopped, end),
        cmocka_unit_test_setup_teardown(test_operator_lights, unprotected, end),
        cmocka_unit_test_setup_teardown(test_owner_is_noted, stopped, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
