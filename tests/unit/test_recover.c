/* SPDX-License-Identifier: ISC */
/*
 * What migrd makes of its journal at start, with a hypervisor that has one domain: records that
 * could not be written, damaged ones, and those of other migrations of the same domain.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"
#include "migrd/events.h"
#include "migrd/journal.h"
#include "migrd/migration_internal.h"
#include "migrd/registry_internal.h"

#define UUID "11111111-2222-3333-4444-555555555555"
#define M1 "aaaaaaaa-2222-3333-4444-555555555555"
#define M2 "bbbbbbbb-2222-3333-4444-555555555555"
#define M3 "cccccccc-2222-3333-4444-555555555555"
#define M4 "dddddddd-2222-3333-4444-555555555555"
#define WAIT_NS (20 * NS_PER_S)

static struct hv_info now; /* the hypervisor's domain; the pool's jobs come one by one */
static atomic_bool there;
static atomic_uint n_resume, n_destroy;
static atomic_uint n_silent;     /* so many answers are lost, the resume's among them */
static enum hv_state then_state; /* what the last one shows */

static int fake_capabilities(struct hv *hv, struct hv_caps *out, struct err *e)
{
    (void)hv;
    (void)e;
    memset(out, 0, sizeof *out);
    return 0;
}

static int fake_enumerate(struct hv *hv, struct hv_info **list, size_t *n, struct err *e)
{
    (void)hv;
    (void)e;
    *n = there;
    *list = calloc(1, sizeof **list);
    **list = now;
    return 0;
}

static int fake_info(struct hv *hv, const char *uuid, struct hv_info *out, struct err *e)
{
    (void)hv;
    if (n_resume > 0 && n_silent > 0 && --n_silent > 0)
        return err_set(e, ERR_TIMEOUT, "no answer");
    if (!there)
        return err_set(e, ERR_NOT_FOUND, "no domain %s", uuid);
    if (n_resume > 0 && then_state != HV_STATE_MAX_)
        now.state = then_state;
    *out = now;
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

static int fake_resume(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    (void)hv;
    (void)uuid;
    (void)epoch;
    atomic_fetch_add(&n_resume, 1);
    return n_silent > 0 ? err_set(e, ERR_TIMEOUT, "no answer") : 0;
}

static bool refuses; /* claims */
static enum err_code refusal;
static atomic_uint n_decided, n_given, n_yielded;

static int fake_claim(struct hv *hv, const char *uuid, uint64_t epoch, bool decided, struct err *e)
{
    (void)hv;
    (void)uuid;
    (void)epoch;
    atomic_fetch_add(decided ? &n_decided : &n_given, 1);
    return refuses ? err_set(e, refusal, "host there is alive") : 0;
}

static int fake_yield(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    (void)hv;
    (void)uuid;
    (void)epoch;
    (void)e;
    atomic_fetch_add(&n_yielded, 1);
    return 0;
}

static int fake_destroy(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    (void)hv;
    (void)uuid;
    (void)epoch;
    (void)e;
    there = false;
    atomic_fetch_add(&n_destroy, 1);
    return 0;
}

static int fake_event_fd(struct hv *hv)
{
    (void)hv;
    return -1;
}

static const struct hv_ops fake = { .name = "fake",
    .capabilities = fake_capabilities,
    .enumerate = fake_enumerate,
    .info = fake_info,
    .definition = fake_definition,
    .resume = fake_resume,
    .pause = fake_resume,
    .claim = fake_claim,
    .yield = fake_yield,
    .destroy = fake_destroy,
    .event_fd = fake_event_fd };

/* --- the daemon around it --- */

static struct migrd m;
static char dir[64], path[128];

static struct domain *guest(void)
{
    return registry_by_uuid(m.registry, UUID);
}

static void run_for(uint64_t ms)
{
    for (uint64_t end = clock_ns() + ms * NS_PER_MS; clock_ns() < end; usleep(500))
        uv_run(m.loop, UV_RUN_NOWAIT);
}

static void open_journal(void)
{
    size_t doubts;
    struct err e;

    assert_int_equal(journal_open(path, &m.journal, &doubts, &e), 0);
}

static void start(void)
{
    struct err e;

    open_journal();
    m.loop = malloc(sizeof *m.loop);
    assert_int_equal(uv_loop_init(m.loop), 0);
    m.events = events_new();
    assert_int_equal(registry_make(&m, &e), 0);
    assert_int_equal(migrations_read_journal(&m, &e), 0);
    assert_int_equal(registry_open(&m, &e), 0);
    assert_int_equal(migrations_open(&m, &e), 0);
    assert_int_equal(registry_start(&m, &e), 0);
    run_for(50);
}

static void stop(void)
{
    registry_stop(&m);
    migrations_stop(&m);
    uv_run(m.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(m.loop), 0);
    migrations_close(&m);
    registry_close(&m);
    journal_close(&m.journal);
    events_free(&m.events);
    free(m.loop);
}

static int set_up(void **state)
{
    (void)state;
    memset(&m, 0, sizeof m);
    now = (struct hv_info){
        .uuid = UUID, .name = "guest", .domid = 3, .epoch = 7, .state = HV_PAUSED
    };
    there = true;
    n_resume = n_destroy = n_silent = 0;
    n_decided = n_given = n_yielded = 0;
    refuses = false;
    then_state = HV_STATE_MAX_;
    strcpy(dir, "/tmp/test_recover.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/journal", dir);
    snprintf(m.paths.domains, sizeof m.paths.domains, "%s", dir);
    snprintf(m.paths.state, sizeof m.paths.state, "%s", dir);
    strcpy(m.host_name, "here");
    m.hv_ops = &fake;
    open_journal();
    return 0;
}

static int tear_down(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void put(enum journal_kind kind, enum mt_step step, const char *id, uint64_t epoch)
{
    struct journal_record r = { .kind = kind, .step = step, .epoch = epoch, .port = 1 };
    struct err e;

    strcpy(r.uuid, UUID);
    strcpy(r.name, "guest");
    strcpy(r.migration, id);
    strcpy(r.peer, kind == JK_DOMAIN ? "." : "127.0.0.1");
    strcpy(r.cert, kind == JK_OUT ? "there" : "");
    assert_int_equal(journal_append(m.journal, &r, true, &e), 0);
}

/* What a question about a migration that never was leaves. */
static void put_unknown(const char *id, uint64_t epoch)
{
    struct journal_record r = { .kind = JK_IN, .step = STEP_DISCARDED, .epoch = epoch };
    struct err e;

    strcpy(r.uuid, UUID);
    strcpy(r.migration, id);
    assert_int_equal(journal_append(m.journal, &r, true, &e), 0);
}

/* One byte of the last line but one. */
static void damage(size_t from_end)
{
    struct err e;
    size_t len, at;
    char *text = io_read_file(path, 1 << 20, &len, &e);

    assert_non_null(text);
    at = len;
    for (size_t lines = 0; at > 0 && lines <= from_end; at--)
        lines += text[at - 1] == '\n';
    text[at - 20] ^= 1;
    assert_int_equal(io_replace_file(path, text, len, 0600, &e), 0);
    free(text);
}

static char fault_file[] = "/tmp/test_recover_fault.XXXXXX";

static void arm(const char *text)
{
    char all[FAULT_TEXT] = "";
    int fd = open(fault_file, O_WRONLY);

    strcpy(all, text);
    assert_int_equal(pwrite(fd, all, sizeof all, 0), sizeof all);
    close(fd);
}

static void wait_for_state(int state)
{
    uint64_t end = clock_ns() + WAIT_NS;

    while (clock_ns() < end && (guest() == NULL || guest()->mig == NULL ||
                                   guest()->mig->state != state || guest()->mig->worker != NULL))
        run_for(1);
    assert_non_null(guest());
    assert_non_null(guest()->mig);
    assert_int_equal(guest()->mig->state, state);
}

/* The target has it, and the disk is full for a moment: whatever is written after that, the journal
 * must not say that this host owns it. */
static void an_owner_that_could_not_be_written(void **state)
{
    const struct ownership *o;

    (void)state;
    put(JK_DOMAIN, 0, "", 7);
    put(JK_OUT, STEP_COMMITTED, M1, 8);
    journal_close(&m.journal);
    start();
    wait_for_state(SRC_DOUBT);
    arm("1 journal-write=error\n");
    mig_post(guest()->mig, SRC_EV_RESOLVE_DISCARD);
    for (uint64_t end = clock_ns() + WAIT_NS; clock_ns() < end && guest() != NULL;)
        run_for(1);
    run_for(50);
    assert_int_equal(n_destroy, 1);
    stop();
    start();
    o = registry_ownership(m.registry, UUID);
    assert_non_null(o);
    assert_string_equal(o->owner, "there");
    assert_int_equal(o->epoch, 8);
    stop();
}

/* A target that is told to run it and takes long, for its leases say: what became of it is found
 * out, for the source takes it back if it is said not to run. */
static void run_with_lost_answers(enum hv_state state, unsigned silent, bool doubt)
{
    put(JK_IN, STEP_RUNNING, M1, 7);
    journal_close(&m.journal);
    now.state = HV_INCOMING;
    n_silent = silent;
    then_state = state;
    start();
    for (uint64_t end = clock_ns() + WAIT_NS; clock_ns() < end && n_resume == 0;)
        run_for(1);
    if (doubt)
        wait_for_state(TGT_DOUBT);
    for (uint64_t end = clock_ns() + WAIT_NS;
         !doubt && clock_ns() < end && guest() != NULL && guest()->mig != NULL;)
        run_for(1);
    assert_true(doubt || guest() == NULL || guest()->mig == NULL);
    assert_int_equal(n_resume, 1);
    assert_int_equal(n_destroy, state == HV_SHUTDOWN); /* what its definition says */
    stop();
}

static void a_lost_answer_of_one_that_runs(void **state)
{
    (void)state;
    run_with_lost_answers(HV_RUNNING, 4, false);
}

static void a_lost_answer_of_one_that_ended(void **state)
{
    (void)state;
    run_with_lost_answers(HV_SHUTDOWN, 2, false);
}

static void a_lost_answer_of_one_that_waits_for_its_disk(void **state)
{
    (void)state;
    strcpy(now.reason, "its server does not answer");
    run_with_lost_answers(HV_PAUSED, 2, false);
}

static void a_lost_answer_of_one_that_could_not_run(void **state)
{
    (void)state;
    run_with_lost_answers(HV_INCOMING, 4, true);
}

/* A target that cannot have the disks has not run it: should it lose its copy, the source's is
 * good. */
static void a_target_without_its_disks_has_not_run_it(void **state)
{
    const struct ownership *o;

    (void)state;
    put(JK_IN, STEP_READY, M1, 7);
    journal_close(&m.journal);
    now.state = HV_INCOMING;
    refuses = true;
    refusal = ERR_TIMEOUT;
    start();
    wait_for_state(TGT_DOUBT);
    mig_post(guest()->mig, TGT_EV_RESOLVE_RUN);
    run_for(100);
    wait_for_state(TGT_DOUBT);
    assert_int_equal(n_resume, 0);
    stop();
    there = false; /* the host is restarted */
    start();
    run_for(100);
    o = registry_ownership(m.registry, UUID);
    assert_true(o == NULL || strcmp(o->owner, "here") != 0);
    assert_non_null(m.migrations->ended);
    assert_string_equal(m.migrations->ended->id, M1);
    assert_int_equal(m.migrations->ended->outcome, MIGRD__OUTCOME__OUTCOME_DISCARDED);
    stop();
}

static int operator_runs_it_here(void)
{
    const Migrd__Resolve rq = { .base = PROTOBUF_C_MESSAGE_INIT(&migrd__resolve__descriptor),
        .domain = (char *)(uintptr_t) "guest",
        .reason = (char *)(uintptr_t) "the other one is off",
        .run_here = true,
        .force = true };
    char text[400];
    struct err e;

    return migration_resolve(&m, "guest", &rq, text, sizeof text, &e);
}

/* The lease says that the source is alive: an operator's word does not make the copy run, and what
 * he said is not taken for the source's. The source's own word, and a storage that refuses:
 * discarded. */
static void a_target_does_not_run_against_a_living_source(void **state)
{
    (void)state;
    put(JK_IN, STEP_READY, M1, 7);
    journal_close(&m.journal);
    now.state = HV_INCOMING;
    refuses = true;
    refusal = ERR_REFUSED;
    start();
    wait_for_state(TGT_DOUBT);
    assert_int_equal(operator_runs_it_here(), 0);
    run_for(100);
    wait_for_state(TGT_DOUBT);
    assert_int_equal(n_decided, 1);
    assert_int_equal(n_resume, 0);
    assert_int_equal(n_destroy, 0);
    assert_int_equal(guest()->mig->flags & JF_FORCED, 0);
    mig_post(guest()->mig, TGT_EV_QUERY_GO);
    for (uint64_t end = clock_ns() + WAIT_NS; clock_ns() < end && m.migrations->ended == NULL;)
        run_for(1);
    assert_int_equal(n_given, 1);
    assert_int_equal(n_resume, 0);
    assert_int_equal(n_destroy, 1);
    assert_non_null(m.migrations->ended);
    assert_int_equal(m.migrations->ended->outcome, MIGRD__OUTCOME__OUTCOME_DISCARDED);
    stop();
}

/* A source in doubt lets its disks go to whom an operator names, and takes them back only if the
 * target does not live. */
static void a_source_does_not_run_against_a_living_target(void **state)
{
    const struct ownership *o;

    (void)state;
    put(JK_DOMAIN, 0, "", 7);
    put(JK_OUT, STEP_COMMITTED, M1, 8);
    journal_close(&m.journal);
    refuses = true;
    refusal = ERR_REFUSED;
    start();
    wait_for_state(SRC_DOUBT);
    run_for(50);
    assert_true(n_yielded > 0);
    assert_int_equal(operator_runs_it_here(), 0);
    for (uint64_t end = clock_ns() + WAIT_NS; clock_ns() < end && n_decided == 0;)
        run_for(1);
    run_for(50);
    wait_for_state(SRC_DOUBT);
    assert_int_equal(n_resume, 0);
    o = registry_ownership(m.registry, UUID);
    assert_true(o == NULL || o->epoch < 9);
    refuses = false;
    assert_int_equal(operator_runs_it_here(), 0);
    for (uint64_t end = clock_ns() + WAIT_NS; clock_ns() < end && n_resume == 0;)
        run_for(1);
    assert_int_equal(n_decided, 2);
    assert_int_equal(n_resume, 1);
    run_for(50);
    o = registry_ownership(m.registry, UUID);
    assert_non_null(o);
    assert_int_equal(o->epoch, 9);
    stop();
}

static void a_question_supersedes_nothing(void **state)
{
    (void)state;
    put(JK_DOMAIN, 0, "", 7);
    put(JK_OUT, STEP_COMMITTED, M1, 8);
    put_unknown(M2, 1000);
    journal_close(&m.journal);
    start();
    wait_for_state(SRC_DOUBT);
    assert_int_equal(n_resume, 0);
    stop();
}

static void a_question_does_not_drop_a_complete_copy(void **state)
{
    (void)state;
    now.epoch = 8;
    now.state = HV_INCOMING;
    put(JK_IN, STEP_READY, M1, 8);
    put_unknown(M2, 8);
    journal_close(&m.journal);
    start();
    wait_for_state(TGT_DOUBT);
    assert_int_equal(n_destroy, 0);
    stop();
}

/* Its own end could not be written, but the host took the domain again after that. */
static void a_later_offer_supersedes(void **state)
{
    (void)state;
    now.epoch = 8;
    now.state = HV_INCOMING;
    put(JK_IN, STEP_READY, M1, 8);
    put(JK_IN, STEP_DISCARDED, M2, 8);
    journal_close(&m.journal);
    start();
    run_for(50);
    assert_int_equal(n_destroy, 1);
    stop();
}

/* The first offer failed, the second one, of the same epoch, did not; the guest is paused here. */
static void a_paused_guest_is_not_what_was_discarded(void **state)
{
    (void)state;
    now.epoch = 8;
    put(JK_IN, STEP_READY, M4, 8); /* how it ended could not be written */
    put(JK_IN, STEP_PREPARED, M1, 8);
    put(JK_IN, STEP_DISCARDED, M1, 8);
    put(JK_IN, STEP_RUNNING, M2, 8);
    put(JK_DOMAIN, 0, "", 8);
    put(JK_IN, STEP_CLOSED, M2, 8);
    put_unknown(M3, 1000);
    journal_close(&m.journal);
    start();
    run_for(100);
    assert_int_equal(n_destroy, 0);
    assert_non_null(guest());
    assert_null(guest()->mig);
    stop();
}

static void damage_where_it_may_have_committed(void **state)
{
    (void)state;
    put(JK_DOMAIN, 0, "", 7);
    put(JK_OUT, STEP_PREPARED, M1, 8);
    put(JK_OUT, STEP_COMMITTED, M1, 8);
    put(JK_NOTE, 0, "", 0);
    journal_close(&m.journal);
    damage(1);
    start();
    run_for(50);
    assert_int_equal(n_resume, 0);
    assert_true(guest()->doubt);
    stop();
}

static void unreadable_damage_doubts_who_is_known(void **state)
{
    (void)state;
    there = false;
    put(JK_DOMAIN, 0, "", 7);
    put(JK_NOTE, 0, "", 0);
    put(JK_NOTE, 0, "", 0);
    journal_close(&m.journal);
    {
        struct err e;
        size_t len;
        char *text = io_read_file(path, 1 << 20, &len, &e), *line = strchr(text, '\n') + 1;

        memset(line, 'x', strcspn(line, "\n"));
        assert_int_equal(io_replace_file(path, text, len, 0600, &e), 0);
        free(text);
    }
    start();
    assert_true(registry_in_doubt(m.registry, UUID));
    stop();
    open_journal();
    put(JK_DOMAIN, 0, "", 8);
    journal_close(&m.journal);
    start();
    assert_false(registry_in_doubt(m.registry, UUID));
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_owner_that_could_not_be_written, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_lost_answer_of_one_that_runs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_lost_answer_of_one_that_ended, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            a_lost_answer_of_one_that_waits_for_its_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_lost_answer_of_one_that_could_not_run, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            a_target_without_its_disks_has_not_run_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            a_target_does_not_run_against_a_living_source, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            a_source_does_not_run_against_a_living_target, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_question_supersedes_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            a_question_does_not_drop_a_complete_copy, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_later_offer_supersedes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            a_paused_guest_is_not_what_was_discarded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(damage_where_it_may_have_committed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(unreadable_damage_doubts_who_is_known, set_up, tear_down),
    };

    int fd = mkstemp(fault_file), r;

    if (fd < 0 || ftruncate(fd, FAULT_TEXT * 2) < 0)
        return 1;
    close(fd);
    setenv("MIGRD_FAULT_FILE", fault_file, 1);
    if (getenv("VERBOSE") == NULL)
        log_set_level(LOG_LV_ERROR);
    r = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(fault_file);
    return r;
}
