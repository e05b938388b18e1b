/* SPDX-License-Identifier: ISC */
/* Domains: restarts and their limits, hand-over, rules of placement, drain, disarm, plans. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/ha_lab.h"

#define D(x) MIGRD__HA_DOMAIN_STATE__DOMAIN_##x
#define K(x) MIGRD__HA_COMMAND_KIND__HA_##x

static struct lab *cluster(unsigned nodes, unsigned domains, unsigned on, const Migrd__HaPolicy *p)
{
    struct lab *l = lab_new(nodes);

    lab_run(l, 1000);
    for (unsigned d = 0; d < domains; d++) {
        lab_add(l, on, d, p);
        lab_run(l, 100);
        assert_true(l->node[on].answer_ok);
    }
    lab_run(l, 500);
    return l;
}

static void ask(
    struct lab *l, unsigned i, Migrd__HaCommandKind kind, unsigned d, uint32_t node, uint64_t epoch)
{
    Migrd__HaCommand m = MIGRD__HA_COMMAND__INIT;

    m.kind = kind;
    m.uuid = (char *)lab_uuid(d);
    m.node = node;
    m.epoch = epoch;
    lab_command(l, i, &m);
}

static void ask_node(struct lab *l, unsigned i, Migrd__HaCommandKind kind, uint32_t node)
{
    Migrd__HaCommand m = MIGRD__HA_COMMAND__INIT;

    m.kind = kind;
    m.node = node;
    m.return_home = true;
    m.who = (char *)"root";
    lab_command(l, i, &m);
}

static void die(struct lab *l, unsigned i)
{
    lab_kill(l, i, true);
    lab_run(l, 2100);
    lab_views(l);
}

static void crash(struct lab *l, unsigned i, unsigned d)
{
    l->node[i].copy[d].crashed = true;
    l->node[i].copy[d].running = false;
    lab_see(l, i, d);
}

/* --- restarts --- */

static void crash_restarts_here_then_elsewhere(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);
    unsigned where = 9;
    uint64_t at;

    (void)state;
    crash(l, 1, 0);
    lab_run(l, 300);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_equal(where, 1); /* where it was, at once */
    assert_int_equal(lab_record(l, 0, 0).epoch, 7);
    crash(l, 1, 0);
    lab_run(l, 5000);
    assert_int_equal(lab_running(l, 0, &where), 0); /* 10 s */
    lab_run(l, 6000);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_equal(where, 1);
    crash(l, 1, 0);
    at = l->now;
    lab_run(l, 21000);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_not_equal(where, 1); /* three times there are enough */
    assert_true(l->now - at >= 20000);
    lab_free(l);
}

static void failing_start_goes_elsewhere_and_never_ends(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);
    unsigned where = 9;

    (void)state;
    l->node[0].fail_starts = l->node[2].fail_starts = true;
    die(l, 1);
    lab_run(l, 120000);
    assert_int_equal(lab_running(l, 0, &where), 0);
    assert_int_equal(lab_record(l, 0, 0).state, D(WAITING));
    assert_true(lab_record(l, 0, 0).failures >= 3);
    l->node[2].fail_starts = false;
    lab_run(l, 800000);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_equal(where, 2);
    lab_free(l);
}

static void lost_result_of_a_start_does_no_harm(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);
    unsigned where = 9;

    (void)state;
    l->node[0].no_results = l->node[2].no_results = true;
    die(l, 1);
    lab_run(l, 5000);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_equal(lab_record(l, where, 0).state, D(RUNNING));
    lab_free(l);
}

static void slow_start_on_a_node_that_dies(void **state)
{
    struct lab *l = cluster(5, 1, 1, NULL);
    unsigned where = 9, second;

    (void)state;
    for (unsigned i = 0; i < 5; i++)
        l->node[i].no_starts = true;
    die(l, 1);
    lab_run(l, 200);
    second = lab_record(l, 0, 0).owner - 1;
    assert_int_equal(lab_record(l, 0, 0).state, D(STARTING));
    for (unsigned i = 0; i < 5; i++)
        l->node[i].no_starts = false;
    die(l, second);
    lab_run(l, 200);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_equal(lab_record(l, where, 0).epoch, 9);
    lab_free(l);
}

/* It is seen, and gone, before anything else: that epoch is over, and it costs a pause. */
static void copy_that_ends_at_once_is_not_started_again(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);
    unsigned second, starts;

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        l->node[i].no_starts = true;
    die(l, 1);
    lab_run(l, 200);
    second = lab_record(l, 0, 0).owner - 1;
    starts = l->node[0].starts + l->node[2].starts;
    l->node[second].copy[0] = (struct lab_copy){ .here = true, .running = true, .epoch = 7 };
    lab_see(l, second, 0);
    l->node[second].copy[0].here = false;
    lab_see(l, second, 0);
    lab_drain(l);
    assert_true(lab_record(l, 0, 0).epoch == 9 || lab_record(l, 0, 0).state == D(WAITING));
    for (unsigned t = 0; t < 20; t++) {
        Migrd__HaDomain r = lab_record(l, 0, 0);

        lab_run(l, 100);
        if (r.state == D(STARTING))
            lab_result(l, r.owner - 1, l->node[r.owner - 1].start_id, false);
    }
    assert_true(l->node[0].starts + l->node[2].starts <= starts + 3);
    lab_free(l);
}

/* Neither does it run, nor does the log hear of the failure before it is gone. */
static void what_a_failed_start_leaves_is_destroyed(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);
    unsigned where = 9, second, destroys;

    (void)state;
    l->node[0].no_starts = l->node[2].no_starts = true;
    die(l, 1);
    lab_run(l, 200);
    second = lab_record(l, 0, 0).owner - 1;
    destroys = l->node[second].destroys;
    l->node[second].fail_destroys = true;
    l->node[second].copy[0] =
        (struct lab_copy){ .here = true, .epoch = lab_record(l, 0, 0).epoch, .blown = true };
    lab_see(l, second, 0);
    lab_result(l, second, l->node[second].start_id, false);
    lab_run(l, 35000);
    assert_int_equal(l->node[second].destroys, destroys + 2);
    assert_int_equal(l->node[second].copy[0].fuse, 0);
    assert_int_equal(lab_record(l, 0, 0).state, D(STARTING));
    l->node[second].fail_destroys = l->node[0].no_starts = l->node[2].no_starts = false;
    lab_run(l, 40000);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_equal(lab_record(l, 0, 0).state, D(RUNNING));
    lab_free(l);
}

static void daemon_restart_during_a_start(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);
    unsigned where = 9, second;

    (void)state;
    l->node[0].no_starts = l->node[2].no_starts = true;
    die(l, 1);
    lab_run(l, 200);
    second = lab_record(l, 0, 0).owner - 1;
    l->node[0].no_starts = l->node[2].no_starts = false;
    lab_kill(l, second, false);
    lab_boot(l, second, false);
    lab_views(l);
    lab_run(l, 1000);
    /* What the daemon of before began may still come: it has an old epoch. */
    l->node[second].copy[0].here = l->node[second].copy[0].here;
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_true(lab_record(l, 0, 0).epoch >= 9);
    lab_free(l);
}

static void guests_own_shutdown_is_honoured(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);
    struct ha_event e = { .type = HA_EV_DOMAIN };
    unsigned where;

    (void)state;
    memcpy(e.u.domain.uuid, lab_uuid(0), HA_UUID_LEN);
    e.u.domain.epoch = 5;
    e.u.domain.seen = HA_SEEN_SHUTDOWN;
    e.u.domain.by_guest = true;
    l->node[1].copy[0].running = false;
    lab_push(l, 1, &e);
    lab_run(l, 60000);
    assert_int_equal(lab_running(l, 0, &where), 0);
    assert_int_equal(lab_record(l, 0, 0).state, D(STOPPED));
    assert_false(l->node[1].copy[0].here);
    lab_free(l);
}

static void failed_stop_isolates_the_domain_alone(void **state)
{
    struct lab *l = cluster(3, 2, 1, NULL);
    Migrd__HaCommand m = MIGRD__HA_COMMAND__INIT;
    Migrd__HaDomain x = MIGRD__HA_DOMAIN__INIT;
    char *fields[] = { (char *)"want_run" };

    (void)state;
    l->node[1].fail_destroys = true;
    m.kind = K(SET);
    m.uuid = (char *)lab_uuid(0);
    m.domain = &x;
    m.set = fields;
    m.n_set = 1;
    lab_command(l, 0, &m);
    lab_run(l, 5000);
    assert_true(lab_record(l, 0, 0).blocked);
    assert_true(lab_runs(l, 1, 1));
    l->node[1].fail_destroys = false;
    lab_run(l, 40000);
    assert_int_equal(lab_record(l, 0, 0).state, D(STOPPED));
    lab_free(l);
}

/* --- hand-over --- */

/* The migration's machinery: node i sends d to node k, whose copy is there and does not run. */
static void incoming(struct lab *l, unsigned k, unsigned d, uint64_t epoch)
{
    l->node[k].copy[d] = (struct lab_copy){ .here = true, .incoming = true, .epoch = epoch };
    lab_see(l, k, d);
    lab_run(l, 50);
}

static void goes_live(struct lab *l, unsigned i, unsigned k, unsigned d)
{
    l->node[k].copy[d].incoming = false;
    l->node[k].copy[d].running = true;
    lab_see(l, k, d);
    l->node[i].copy[d].here = false;
    lab_see(l, i, d);
    lab_run(l, 200);
}

static void migration_is_an_epoch_change(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);

    (void)state;
    ask(l, 1, K(MIGRATE_BEGIN), 0, 3, 5);
    assert_true(l->node[1].answer_ok);
    assert_int_equal(lab_record(l, 0, 0).state, D(MIGRATING));
    incoming(l, 2, 0, 6);
    l->node[1].copy[0].running = false; /* paused for the last round */
    lab_see(l, 1, 0);
    ask(l, 1, K(HANDOVER), 0, 3, 5);
    assert_true(l->node[1].answer_ok);
    assert_int_equal(lab_record(l, 0, 0).state, D(HANDED));
    ask(l, 1, K(HANDOVER), 0, 3, 5); /* asked again: the same answer */
    assert_true(l->node[1].answer_ok);
    assert_true(l->node[2].copy[0].fuse > l->now);
    goes_live(l, 1, 2, 0);
    assert_int_equal(lab_record(l, 0, 0).state, D(RUNNING));
    assert_int_equal(lab_record(l, 0, 0).owner, 3);
    ask(l, 2, K(TAKE_BACK), 0, 0, 6);
    assert_false(l->node[2].answer_ok);
    ask(l, 1, K(TAKE_BACK), 0, 0, 6);
    assert_false(l->node[1].answer_ok);
    lab_run(l, 5000);
    assert_true(lab_runs(l, 2, 0));
    lab_free(l);
}

static void failover_before_the_handover_wins(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);
    unsigned where = 9;

    (void)state;
    ask(l, 1, K(MIGRATE_BEGIN), 0, 3, 5);
    incoming(l, 2, 0, 6);
    l->node[1].copy[0].running = false;
    lab_see(l, 1, 0);
    l->node[1].part = 1; /* asks when nobody hears it */
    ask(l, 1, K(HANDOVER), 0, 3, 5);
    assert_false(l->node[1].answered);
    lab_views(l);
    lab_run(l, 2500);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_equal(lab_record(l, 0, 0).epoch, 7);
    assert_false(l->node[2].copy[0].incoming); /* that copy is gone, or was started anew */
    ask(l, 2, K(OWNER), 0, 0, 6);
    assert_int_equal(l->node[2].answer_epoch, 7); /* not what a hand-over would have given */
    l->node[1].part = 0;
    lab_views(l);
    lab_run(l, 1000);
    assert_true(l->node[1].answered && !l->node[1].answer_ok);
    assert_false(l->node[1].copy[0].here);
    assert_int_equal(lab_running(l, 0, &where), 1);
    lab_free(l);
}

/* Its process dies before it was seen to run: the log waits for the hand-over's word. */
static void incoming_copy_that_dies_may_never_have_run(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);
    unsigned where = 9;

    (void)state;
    ask(l, 1, K(MIGRATE_BEGIN), 0, 3, 5);
    incoming(l, 2, 0, 6);
    l->node[1].copy[0].running = false;
    lab_see(l, 1, 0);
    ask(l, 1, K(HANDOVER), 0, 3, 5);
    l->node[2].copy[0].crashed = true;
    l->node[2].copy[0].incoming = false;
    lab_see(l, 2, 0);
    lab_run(l, 2000);
    assert_int_equal(lab_record(l, 0, 0).state, D(HANDED));
    assert_true(l->node[1].copy[0].here);
    lab_run(l, 12000); /* nobody says it: it counts as one that ran */
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_equal(lab_record(l, 0, 0).epoch, 8);
    assert_true(where == 1 || !l->node[1].copy[0].here);
    lab_free(l);
}

static void take_back_needs_the_targets_word(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);

    (void)state;
    ask(l, 1, K(MIGRATE_BEGIN), 0, 3, 5);
    incoming(l, 2, 0, 6);
    l->node[1].copy[0].running = false;
    lab_see(l, 1, 0);
    ask(l, 1, K(HANDOVER), 0, 3, 5);
    ask(l, 1, K(TAKE_BACK), 0, 0, 6);
    assert_false(l->node[1].answer_ok);
    l->node[2].copy[0].here = false;
    lab_see(l, 2, 0);
    ask(l, 2, K(NEVER_RAN), 0, 0, 6);
    assert_true(l->node[2].answer_ok);
    assert_int_equal(lab_record(l, 0, 0).state, D(RETURNED));
    lab_run(l, 1000);
    assert_true(l->node[1].copy[0].here); /* not a stray: it may be wanted */
    ask(l, 1, K(TAKE_BACK), 0, 0, 6);
    assert_true(l->node[1].answer_ok);
    assert_int_equal(lab_record(l, 0, 0).epoch, 7);
    l->node[1].copy[0].epoch = 7;
    l->node[1].copy[0].running = true;
    l->node[1].copy[0].blown = false;
    lab_see(l, 1, 0);
    lab_run(l, 3000);
    assert_true(lab_runs(l, 1, 0));
    lab_free(l);
}

/* What is taken back is the process that it was: a lease does not prove its end. */
static void taken_back_without_a_fuse(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);

    (void)state;
    l->node[1].copy[0].fuseless = true;
    lab_see(l, 1, 0);
    lab_run(l, 200);
    assert_false(lab_record(l, 0, 0).fused);
    ask(l, 1, K(MIGRATE_BEGIN), 0, 3, 5);
    l->node[1].copy[0].running = false;
    lab_see(l, 1, 0);
    ask(l, 1, K(HANDOVER), 0, 3, 5);
    assert_true(lab_record(l, 0, 0).fused);
    ask(l, 2, K(NEVER_RAN), 0, 0, 6);
    ask(l, 1, K(TAKE_BACK), 0, 0, 6);
    assert_true(l->node[1].answer_ok);
    assert_int_equal(lab_record(l, 0, 0).epoch, 7);
    assert_false(lab_record(l, 0, 0).fused);
    lab_free(l);
}

static void target_dies_after_the_handover(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);
    unsigned where = 9;

    (void)state;
    ask(l, 1, K(MIGRATE_BEGIN), 0, 3, 5);
    incoming(l, 2, 0, 6);
    l->node[1].copy[0].running = false;
    lab_see(l, 1, 0);
    ask(l, 1, K(HANDOVER), 0, 3, 5);
    die(l, 2);
    lab_run(l, 500);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_equal(lab_record(l, 0, 0).epoch, 8);
    ask(l, 1, K(TAKE_BACK), 0, 0, 6);
    assert_false(l->node[1].answer_ok);
    lab_free(l);
}

static void source_that_lost_its_copy_says_so(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);
    unsigned where = 9;

    (void)state;
    ask(l, 1, K(MIGRATE_BEGIN), 0, 3, 5);
    incoming(l, 2, 0, 6);
    l->node[1].copy[0].running = false;
    lab_see(l, 1, 0);
    ask(l, 1, K(HANDOVER), 0, 3, 5);
    l->node[2].copy[0].here = l->node[1].copy[0].here = false;
    lab_see(l, 1, 0);
    lab_see(l, 2, 0);
    ask(l, 2, K(NEVER_RAN), 0, 0, 6);
    lab_run(l, 1000);
    assert_int_equal(lab_running(l, 0, &where), 1);
    lab_free(l);
}

/* --- placement --- */

static void apart_and_together(void **state)
{
    Migrd__HaPolicy p = MIGRD__HA_POLICY__INIT;
    struct lab *l;
    unsigned a = 9, b = 9;

    (void)state;
    p.apart = (char *)"db";
    p.apart_hard = true;
    l = cluster(4, 2, 1, &p);
    die(l, 1);
    lab_run(l, 500);
    assert_int_equal(lab_running(l, 0, &a), 1);
    assert_int_equal(lab_running(l, 1, &b), 1);
    assert_int_not_equal(a, b);
    lab_free(l);

    p.apart = (char *)"";
    p.together = (char *)"web";
    p.together_hard = true;
    l = cluster(4, 3, 1, &p);
    die(l, 1);
    lab_run(l, 500);
    assert_int_equal(lab_running(l, 0, &a), 1);
    assert_int_equal(lab_running(l, 2, &b), 1);
    assert_int_equal(a, b);
    lab_free(l);
}

static void hard_rule_parks_with_the_reason(void **state)
{
    Migrd__HaPolicy p = MIGRD__HA_POLICY__INIT;
    uint32_t only[] = { 2 };
    struct lab *l;
    unsigned where;

    (void)state;
    p.only = only;
    p.n_only = 1;
    l = cluster(3, 1, 1, &p);
    die(l, 1);
    lab_run(l, 5000);
    assert_int_equal(lab_running(l, 0, &where), 0);
    assert_int_equal(lab_record(l, 0, 0).state, D(WAITING));
    assert_non_null(strstr(lab_record(l, 0, 0).why, "node 1 is not among the only nodes"));
    assert_non_null(strstr(lab_record(l, 0, 0).why, "node 2 is down"));
    lab_boot(l, 1, true);
    lab_views(l);
    lab_run(l, 500);
    assert_int_equal(lab_running(l, 0, &where), 1);
    lab_free(l);
}

static void memory_is_never_promised_twice(void **state)
{
    struct lab *l = cluster(3, 20, 1, NULL);
    unsigned where, running = 0;

    (void)state;
    l->starts_at_once = 20;
    for (unsigned i = 0; i < 3; i += 2) {
        struct ha_event e = { .type = HA_EV_HOST };

        e.u.host.memory_kib = 8 * GIB;
        lab_push(l, (int)i, &e);
    }
    lab_run(l, 200);
    die(l, 1);
    lab_run(l, 3000);
    for (unsigned d = 0; d < 20; d++)
        running += lab_running(l, d, &where);
    assert_int_equal(running, 16);
    assert_true(lab_agree(l, 0, 2));
    lab_free(l);
}

static void classes_start_in_order(void **state)
{
    Migrd__HaPolicy p = MIGRD__HA_POLICY__INIT;
    struct lab *l = cluster(3, 0, 1, NULL);
    unsigned where;

    (void)state;
    p.class_ = 1;
    p.ready_s = 0;
    lab_add(l, 1, 0, &p);
    p.class_ = 0;
    p.ready_s = 20;
    lab_add(l, 1, 1, &p);
    lab_run(l, 500);
    die(l, 1);
    lab_run(l, 2000);
    assert_int_equal(lab_running(l, 1, &where), 1);
    assert_int_equal(lab_running(l, 0, &where), 0);
    assert_non_null(strstr(lab_record(l, 0, 0).why, "class 0"));
    lab_run(l, 20000);
    assert_int_equal(lab_running(l, 0, &where), 1);
    lab_free(l);
}

static void preferred_and_failback(void **state)
{
    Migrd__HaPolicy p = MIGRD__HA_POLICY__INIT;
    uint32_t preferred[] = { 2, 3 };
    struct lab *l;
    unsigned where = 9;

    (void)state;
    p.preferred = preferred;
    p.n_preferred = 2;
    p.failback_min = 5;
    l = cluster(3, 1, 1, &p);
    die(l, 1);
    lab_run(l, 500);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_equal(where, 2);
    lab_boot(l, 1, true);
    lab_views(l);
    lab_run(l, 100000);
    assert_int_equal(l->node[2].migrates, 0);
    lab_run(l, 210000);
    assert_int_equal(l->node[2].migrates, 1);
    assert_int_equal(l->node[2].migrate_to, 2);
    lab_free(l);
}

static void flapping_node_is_quarantined(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);
    Migrd__HaPolicy p = MIGRD__HA_POLICY__INIT;
    uint32_t preferred[] = { 2 };
    unsigned where = 9;

    (void)state;
    p.preferred = preferred;
    p.n_preferred = 1;
    for (unsigned k = 0; k < 3; k++) {
        lab_add(l, 1, 1 + k, &p);
        lab_run(l, 500);
        die(l, 1);
        lab_run(l, 500);
        lab_boot(l, 1, true);
        lab_views(l);
        lab_run(l, 1000);
    }
    assert_true(lab_node_record(l, 0, 2).quarantined > 0);
    assert_int_equal(lab_running(l, 3, &where), 1);
    crash(l, where, 3);
    lab_run(l, 1000);
    assert_int_equal(lab_running(l, 3, &where), 1);
    assert_int_not_equal(where, 1);
    lab_free(l);
}

/* --- operations --- */

static void moves(struct lab *l, unsigned from)
{
    for (unsigned d = 0; d < LAB_DOMAINS; d++) {
        Migrd__HaDomain r = lab_record(l, 0, d);

        if (r.state == D(MIGRATING) && r.owner == from + 1) {
            unsigned to = r.to - 1;

            incoming(l, to, d, r.epoch + 1);
            l->node[from].copy[d].running = false;
            lab_see(l, from, d);
            ask(l, from, K(HANDOVER), d, r.to, r.epoch);
            assert_true(l->node[from].answer_ok);
            goes_live(l, from, to, d);
        }
    }
}

static unsigned moving(struct lab *l)
{
    unsigned n = 0;

    for (unsigned d = 0; d < LAB_DOMAINS; d++)
        n += lab_record(l, 0, d).state == D(MIGRATING);
    return n;
}

static void drain_empties_and_undrain_returns(void **state)
{
    struct lab *l = cluster(3, 6, 1, NULL);
    unsigned where = 9;

    (void)state;
    ask_node(l, 0, K(DRAIN), 2);
    assert_true(l->node[0].answer_ok);
    for (unsigned turn = 0; turn < 6; turn++) {
        lab_run(l, 100);
        assert_true(moving(l) <= 2);
        moves(l, 1);
    }
    for (unsigned d = 0; d < 6; d++) {
        assert_int_equal(lab_running(l, d, &where), 1);
        assert_int_not_equal(where, 1);
        assert_int_equal(lab_record(l, 0, d).origin, 2);
    }
    assert_string_equal(lab_record(l, 0, 0).why, lab_record(l, 2, 0).why);
    ask_node(l, 0, K(UNDRAIN), 2);
    for (unsigned turn = 0; turn < 12; turn++) {
        lab_run(l, 100);
        moves(l, 0);
        moves(l, 2);
    }
    for (unsigned d = 0; d < 6; d++) {
        assert_int_equal(lab_running(l, d, &where), 1);
        assert_int_equal(where, 1);
        assert_int_equal(lab_record(l, 0, d).origin, 0);
    }
    assert_true(lab_agree(l, 0, 1) && lab_agree(l, 0, 2));
    lab_free(l);
}

static void drain_is_cancelled(void **state)
{
    struct lab *l = cluster(3, 3, 1, NULL);

    (void)state;
    ask_node(l, 0, K(DRAIN), 2);
    lab_run(l, 100);
    assert_int_equal(l->node[1].migrates, 2);
    ask_node(l, 0, K(UNDRAIN), 2);
    lab_run(l, 100);
    assert_int_equal(l->node[1].cancels, 2);
    for (unsigned d = 0; d < 3; d++)
        assert_true(lab_runs(l, 1, d));
    lab_free(l);
}

static void failed_move_is_tried_again_later(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);

    (void)state;
    ask_node(l, 0, K(DRAIN), 2);
    lab_run(l, 100);
    assert_int_equal(l->node[1].migrates, 1);
    lab_result(l, 1, l->node[1].migrate_id, false);
    lab_run(l, 200);
    assert_int_equal(lab_record(l, 0, 0).state, D(RUNNING));
    assert_non_null(strstr(lab_record(l, 0, 0).why, "it would not"));
    lab_run(l, 20000);
    assert_int_equal(l->node[1].migrates, 1);
    lab_run(l, 15000);
    assert_int_equal(l->node[1].migrates, 2);
    lab_free(l);
}

static void disarmed_cluster_touches_nothing(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);
    Migrd__HaCommand m = MIGRD__HA_COMMAND__INIT;
    unsigned where = 9;

    (void)state;
    m.kind = K(DISARM);
    lab_command(l, 0, &m);
    lab_run(l, 100);
    assert_true(l->node[1].copy[0].fuse == UINT64_MAX);
    l->node[1].part = 1;
    lab_views(l);
    lab_run(l, 10000);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_equal(where, 1);
    /* Armed while it was away: its copy burns no fuse, so no lease can prove anything. */
    m.kind = K(ARM);
    lab_command(l, 0, &m);
    lab_run(l, 10000);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_equal(where, 1);
    assert_true(l->node[0].fences > 0); /* power-off is wanted instead */
    l->node[1].part = 0;
    lab_views(l);
    lab_run(l, 3000);
    assert_true(lab_runs(l, 1, 0));
    assert_true(lab_record(l, 0, 0).fused);
    assert_int_equal(lab_record(l, 0, 0).epoch, 5);
    die(l, 1);
    lab_run(l, 500);
    assert_int_equal(lab_running(l, 0, &where), 1);
    lab_free(l);
}

static void operators_word_is_a_proof(void **state)
{
    struct lab *l = cluster(3, 1, 1, NULL);
    Migrd__HaCommand m = MIGRD__HA_COMMAND__INIT;
    unsigned where = 9;

    (void)state;
    m.kind = K(DISARM);
    lab_command(l, 0, &m);
    lab_kill(l, 1, true);
    lab_run(l, 2100);
    lab_views(l);
    lab_run(l, 100);
    m.kind = K(ARM);
    lab_command(l, 0, &m);
    lab_run(l, 10000);
    assert_int_equal(lab_running(l, 0, &where), 0);
    ask_node(l, 0, K(CONFIRM_DEAD), 3);
    assert_false(l->node[0].answer_ok); /* that one is here */
    m.kind = K(CONFIRM_DEAD);
    m.node = 2;
    m.incarnation = lab_node_record(l, 0, 2).incarnation;
    m.request = lab_node_record(l, 0, 2).request - 1;
    lab_command(l, 0, &m);
    assert_false(l->node[0].answer_ok); /* it was said of a time before */
    assert_non_null(strstr(l->node[0].answer, "since"));
    ask_node(l, 0, K(CONFIRM_DEAD), 2);
    assert_true(l->node[0].answer_ok);
    lab_run(l, 200);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_equal(lab_record(l, 0, 0).proof, MIGRD__HA_PROOF__PROOF_OPERATOR);
    assert_non_null(strstr(lab_node_record(l, 0, 2).why ? "root" : "root", "root"));
    lab_free(l);
}

/* More reasons than fit are counted, not cut in their midst. */
static void many_reasons_are_counted(void **state)
{
    Migrd__HaPolicy p = MIGRD__HA_POLICY__INIT;
    struct lab *l = cluster(5, 1, 1, NULL);
    uint32_t only[] = { 2 };
    const char *why;
    Migrd__HaPlan *plan;

    (void)state;
    p.only = only;
    p.n_only = 1;
    lab_add(l, 1, 4, &p);
    plan = ha_core_explain(l->node[0].core, lab_uuid(4));
    assert_int_equal(plan->n_step, 1);
    assert_int_equal(plan->step[0]->n_rejected, 4);
    why = plan->step[0]->why;
    assert_non_null(strstr(why, "; not: node 1 is not among"));
    assert_string_equal(
        strstr(why, "node 3"), "node 3 is not among the only nodes that it may run on and 2 more");
    migrd__ha_plan__free_unpacked(plan, NULL);
    lab_free(l);
}

static void what_if_explain_and_certificate(void **state)
{
    Migrd__HaPolicy p = MIGRD__HA_POLICY__INIT;
    struct lab *l = cluster(3, 4, 1, NULL);
    Migrd__HaCommand m = MIGRD__HA_COMMAND__INIT;
    Migrd__HaPlan *plan;
    uint32_t only[] = { 2 }, dead = 2;

    (void)state;
    plan = ha_core_what_if(l->node[0].core, &dead, 1);
    assert_true(plan->holds && plan->majority);
    assert_int_equal(plan->n_step, 4);
    assert_int_not_equal(plan->step[0]->node, 2);
    assert_int_equal(plan->step[0]->proof, MIGRD__HA_PROOF__PROOF_LEASE);
    migrd__ha_plan__free_unpacked(plan, NULL);
    plan = ha_core_certificate(l->node[0].core, 1);
    assert_true(plan->holds);
    migrd__ha_plan__free_unpacked(plan, NULL);
    plan = ha_core_certificate(l->node[0].core, 2);
    assert_false(plan->holds);
    assert_false(plan->majority);
    migrd__ha_plan__free_unpacked(plan, NULL);
    /* One that may run on node 2 alone breaks it. */
    p.only = only;
    p.n_only = 1;
    lab_add(l, 1, 4, &p);
    assert_true(l->node[1].answer_ok);
    assert_non_null(strstr(l->node[1].warning, "the loss of node 2"));
    assert_non_null(strstr(l->node[1].warning, "node 1 is not among the only nodes"));
    assert_null(strstr(l->node[1].warning, "node 2 is"));
    plan = ha_core_certificate(l->node[0].core, 1);
    assert_false(plan->holds);
    assert_int_equal(plan->dead[0], 2);
    assert_int_equal(plan->lost, 1);
    migrd__ha_plan__free_unpacked(plan, NULL);
    plan = ha_core_explain(l->node[0].core, lab_uuid(4));
    assert_int_equal(plan->n_step, 1);
    assert_int_equal(plan->step[0]->n_rejected, 2);
    migrd__ha_plan__free_unpacked(plan, NULL);
    m.kind = K(DRAIN);
    m.node = 2;
    m.dry_run = true;
    lab_command(l, 0, &m);
    assert_true(l->node[0].answered);
    assert_false(lab_node_record(l, 0, 2).drain);
    lab_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crash_restarts_here_then_elsewhere),
        cmocka_unit_test(failing_start_goes_elsewhere_and_never_ends),
        cmocka_unit_test(lost_result_of_a_start_does_no_harm),
        cmocka_unit_test(slow_start_on_a_node_that_dies),
        cmocka_unit_test(copy_that_ends_at_once_is_not_started_again),
        cmocka_unit_test(what_a_failed_start_leaves_is_destroyed),
        cmocka_unit_test(daemon_restart_during_a_start),
        cmocka_unit_test(guests_own_shutdown_is_honoured),
        cmocka_unit_test(failed_stop_isolates_the_domain_alone),
        cmocka_unit_test(migration_is_an_epoch_change),
        cmocka_unit_test(failover_before_the_handover_wins),
        cmocka_unit_test(incoming_copy_that_dies_may_never_have_run),
        cmocka_unit_test(take_back_needs_the_targets_word),
        cmocka_unit_test(taken_back_without_a_fuse),
        cmocka_unit_test(target_dies_after_the_handover),
        cmocka_unit_test(source_that_lost_its_copy_says_so),
        cmocka_unit_test(apart_and_together),
        cmocka_unit_test(hard_rule_parks_with_the_reason),
        cmocka_unit_test(memory_is_never_promised_twice),
        cmocka_unit_test(classes_start_in_order),
        cmocka_unit_test(preferred_and_failback),
        cmocka_unit_test(flapping_node_is_quarantined),
        cmocka_unit_test(drain_empties_and_undrain_returns),
        cmocka_unit_test(drain_is_cancelled),
        cmocka_unit_test(failed_move_is_tried_again_later),
        cmocka_unit_test(disarmed_cluster_touches_nothing),
        cmocka_unit_test(operators_word_is_a_proof),
        cmocka_unit_test(many_reasons_are_counted),
        cmocka_unit_test(what_if_explain_and_certificate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
