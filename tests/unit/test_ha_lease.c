/* SPDX-License-Identifier: ISC */
/* Beats, leases, fuses, votes: a guest is paused only for its own host's fault, and started
 * elsewhere only on a proof. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/ha_lab.h"

#define ONLINE MIGRD__HA_NODE_STATE__NODE_ONLINE
#define AWAY MIGRD__HA_NODE_STATE__NODE_AWAY
#define EXPIRED MIGRD__HA_NODE_STATE__NODE_EXPIRED
#define RUNNING MIGRD__HA_DOMAIN_STATE__DOMAIN_RUNNING

static struct lab *with_domain(unsigned nodes, unsigned on)
{
    struct lab *l = lab_new(nodes);

    lab_run(l, 1000);
    lab_add(l, on, 0, NULL);
    lab_run(l, 500);
    assert_true(l->node[on].answer_ok);
    assert_true(lab_record(l, 0, 0).fused);
    return l;
}

static void times_obey_their_inequality(void **state)
{
    struct ha_times t;
    struct err e;
    char text[300];

    (void)state;
    for (unsigned token = 300; token <= 20000; token += 100) {
        ha_times_derive(&t, token, 0);
        assert_int_equal(ha_times_check(&t, &e), 0);
        assert_true(t.proof <= 2 * token); /* no longer than the detection */
    }
    ha_times_derive(&t, 1000, 0);
    ha_times_print(&t, text, sizeof text);
    assert_non_null(strstr(text, "proof 2000 >= lease 1830 + fuse 50 + slack 100"));
    t.lease = 1900;
    assert_int_equal(ha_times_check(&t, &e), -1);
    assert_non_null(strstr(e.text, "run twice"));
    ha_times_derive(&t, 1000, 0);
    t.beat = 500;
    assert_int_equal(ha_times_check(&t, &e), -1);
}

static void guest_runs_on_under_its_fuse(void **state)
{
    struct lab *l = with_domain(3, 1);

    (void)state;
    assert_true(l->node[1].copy[0].fuse < UINT64_MAX);
    lab_run(l, 20000);
    assert_true(lab_runs(l, 1, 0));
    assert_int_equal(l->node[1].resumes, 0);
    lab_free(l);
}

static void dead_host_is_recovered_once(void **state)
{
    struct lab *l = with_domain(3, 1);
    unsigned where = 9;

    (void)state;
    lab_kill(l, 1, true);
    lab_run(l, 1000);
    assert_int_equal(lab_running(l, 0, &where), 0);
    lab_run(l, 1100); /* corosync's detection */
    lab_views(l);
    lab_run(l, 60);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_not_equal(where, 1);
    assert_int_equal(lab_record(l, where, 0).epoch, 7);
    assert_int_equal(lab_record(l, where, 0).proof, MIGRD__HA_PROOF__PROOF_LEASE);
    assert_int_equal(lab_node_record(l, where, 2).state, EXPIRED);
    /* Its last beat was up to one beat old: silent for that and 2100 to 2160 ms. */
    assert_in_range(l->node[where].quiet_ms, 50, 2160 + l->times.beat - l->times.lease - 150);
    lab_free(l);
}

/* The majority sees the new view at once; the silence has to be long enough all the same. */
static void nothing_starts_before_the_proof(void **state)
{
    struct lab *l = with_domain(3, 1);
    unsigned where;

    (void)state;
    l->node[1].part = 1;
    lab_views(l);
    lab_run(l, 1500);
    assert_true(lab_runs(l, 1, 0)); /* its lease goes on for a while */
    assert_int_equal(lab_node_record(l, 0, 2).state, AWAY);
    lab_run(l, 350);
    assert_int_equal(lab_running(l, 0, &where), 0); /* its fuse has burnt */
    lab_run(l, 300);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_not_equal(where, 1);
    /* It comes back: its copy goes, and it is a member again. */
    l->node[1].part = 0;
    lab_views(l);
    lab_run(l, 500);
    assert_false(l->node[1].copy[0].here);
    assert_int_equal(lab_node_record(l, 0, 2).state, ONLINE);
    assert_true(lab_node_record(l, 0, 2).life > 1);
    assert_int_equal(lab_running(l, 0, &where), 1);
    lab_free(l);
}

/* Only the ordered channel stood still: beats go on, and nobody's guest notices. */
static void stalled_channel_pauses_nobody(void **state)
{
    struct lab *l = with_domain(3, 1);

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct ha_event e = { .type = HA_EV_VIEW };

        e.u.view.members[e.u.view.n++] = l->node[i].id;
        lab_push(l, (int)i, &e);
    }
    lab_run(l, 10000);
    assert_true(lab_runs(l, 1, 0));
    lab_views(l);
    lab_run(l, 500);
    assert_true(lab_runs(l, 1, 0));
    assert_int_equal(lab_record(l, 0, 0).epoch, 5);
    lab_free(l);
}

/* Paused by its fuse, nobody had taken it: it goes on where it is. */
static void paused_guest_goes_on_where_it_is(void **state)
{
    struct lab *l = with_domain(3, 1);
    unsigned where = 9;

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        l->node[i].part = (int)i; /* everybody alone */
    lab_views(l);
    lab_run(l, 5000);
    assert_int_equal(lab_running(l, 0, &where), 0);
    for (unsigned i = 0; i < 3; i++)
        l->node[i].part = 0;
    lab_views(l);
    lab_run(l, 500);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_equal(where, 1);
    assert_int_equal(lab_record(l, 0, 0).epoch, 5);
    assert_true(l->node[1].resumes > 0);
    lab_free(l);
}

/* Another node's death costs a healthy node's guest nothing. */
static void death_of_another_pauses_nobody(void **state)
{
    struct lab *l = with_domain(3, 1);

    (void)state;
    lab_kill(l, 2, true);
    lab_run(l, 2100);
    lab_views(l);
    lab_run(l, 5000);
    assert_int_equal(l->node[1].resumes, 0);
    assert_true(lab_runs(l, 1, 0));
    assert_int_equal(lab_node_record(l, 0, 3).state, EXPIRED);
    lab_free(l);
}

/* A restarted daemon finds its guest, and the guest notices nothing. */
static void daemon_restart_keeps_the_guest(void **state)
{
    struct lab *l = with_domain(3, 1);

    (void)state;
    lab_kill(l, 1, false);
    lab_run(l, 300);
    lab_views(l);
    lab_run(l, 300);
    lab_boot(l, 1, false);
    lab_views(l);
    lab_run(l, 5000);
    assert_true(lab_runs(l, 1, 0));
    assert_int_equal(l->node[1].resumes, 0);
    assert_int_equal(lab_record(l, 0, 0).epoch, 5);
    assert_int_equal(l->node[1].destroys, 0);
    lab_free(l);
}

/* Removed while the daemon is away: the next one has lit no fuse, and puts out the one before. */
static void removed_without_its_daemon_runs_on(void **state)
{
    Migrd__HaCommand m = MIGRD__HA_COMMAND__INIT;
    struct lab *l = with_domain(3, 1);

    (void)state;
    lab_kill(l, 1, false);
    lab_run(l, 300);
    lab_views(l);
    lab_run(l, 300);
    m.kind = MIGRD__HA_COMMAND_KIND__HA_REMOVE;
    m.uuid = (char *)lab_uuid(0);
    m.force = true;
    lab_command(l, 0, &m);
    assert_true(l->node[0].answered && l->node[0].answer_ok);
    lab_boot(l, 1, false);
    lab_views(l);
    lab_run(l, 5000);
    assert_true(lab_runs(l, 1, 0));
    assert_true(l->node[1].copy[0].fuse == UINT64_MAX);
    lab_free(l);
}

/* Restarted under the same members, no view tells of it but its own. */
static void fast_restart_is_noticed(void **state)
{
    struct lab *l = with_domain(3, 1);

    (void)state;
    lab_kill(l, 1, false);
    lab_boot(l, 1, false);
    {
        struct ha_event e = { .type = HA_EV_VIEW, .u.view = { .members = { 1, 2, 3 }, .n = 3 } };

        lab_push(l, 1, &e);
    }
    lab_run(l, 3000);
    assert_int_equal(lab_phase(l, 1), MIGRD__HA_PHASE__PHASE_ACTIVE);
    assert_int_equal(lab_node_record(l, 0, 2).incarnation, l->node[1].incarnation);
    assert_true(lab_runs(l, 1, 0));
    lab_free(l);
}

/* A member hangs: the channel still counts it, its fuses burn, the others' votes prove it. */
static void hung_daemon_is_recovered(void **state)
{
    struct lab *l = with_domain(3, 1);
    unsigned where = 9;

    (void)state;
    l->node[1].hangs = true;
    lab_run(l, 2800);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_not_equal(where, 1);
    l->node[1].hangs = false;
    lab_run(l, 3000);
    assert_false(l->node[1].copy[0].here);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_equal(lab_node_record(l, 0, 2).state, ONLINE);
    lab_free(l);
}

static struct lab *with_watchdog(void)
{
    struct lab *l = with_domain(3, 1);

    l->times.watchdog = 10000;
    lab_kill(l, 1, false);
    lab_boot(l, 1, false);
    lab_views(l);
    lab_run(l, 1000);
    assert_true(lab_runs(l, 1, 0));
    assert_true(l->node[1].petted > l->now + 7400);
    return l;
}

/* The host is the watchdog's only while a copy runs that has defied its fuse. */
static void copy_that_defies_its_fuse_is_the_watchdogs(void **state)
{
    struct lab *l = with_watchdog();

    (void)state;
    l->node[1].copy[0].defies = true;
    l->node[1].part = 1;
    lab_views(l);
    lab_run(l, 17000); /* lease, half of the watchdog's time, the whole of it */
    assert_true(l->node[1].petted <= l->now);
    l->node[1].copy[0].defies = false;
    lab_run(l, 100);
    assert_true(l->node[1].petted > l->now + 9800);
    lab_free(l);
}

/* It learns of what its fuses did when it goes on, and is not reset for what it believed before. */
static void who_stood_still_pets_at_once(void **state)
{
    struct lab *l = with_watchdog();

    (void)state;
    l->node[1].hangs = true;
    lab_run(l, 9000);
    l->node[1].hangs = false;
    lab_run(l, 50);
    assert_true(l->node[1].petted > l->now + 9900);
    lab_free(l);
}

/* Who stood still believes nothing of before, and does not vote at once. */
static void who_stood_still_does_not_vote(void **state)
{
    struct lab *l = with_domain(3, 1);

    (void)state;
    l->node[0].hangs = true;
    lab_run(l, 1500);
    l->node[2].hangs = true; /* both voters stand still while node 2 goes on */
    l->node[1].part = 1;
    lab_run(l, 1500);
    l->node[0].hangs = l->node[2].hangs = false;
    l->node[1].part = 0;
    lab_run(l, 1000);
    assert_int_not_equal(lab_node_record(l, 0, 2).state, EXPIRED);
    assert_int_equal(lab_record(l, 0, 0).epoch, 5);
    lab_free(l);
}

/* One node alone does not hear another: no proof, and a new life when it hears it again. */
static void lonely_vote_is_healed(void **state)
{
    struct lab *l = with_domain(3, 1);
    uint64_t life;

    (void)state;
    l->node[0].hangs = true;
    lab_run(l, 100);
    l->drop_beats = true; /* everybody's: votes of all against all, but no majority has the time */
    l->node[0].hangs = false;
    lab_run(l, 1700);
    l->drop_beats = false;
    lab_run(l, 300);
    life = lab_node_record(l, 0, 2).life;
    lab_run(l, 20000);
    assert_true(lab_node_record(l, 0, 2).life >= life);
    assert_int_equal(lab_node_record(l, 0, 2).n_votes, 0);
    assert_int_equal(lab_node_record(l, 0, 2).state, ONLINE);
    assert_true(lab_runs(l, 1, 0) || l->node[1].copy[0].here == false);
    lab_free(l);
}

/* Beats that are forged, cut, of another incarnation, repeated. */
static void strange_beats_count_for_nothing(void **state)
{
    struct lab *l = with_domain(3, 1);
    Migrd__HaBeat m = MIGRD__HA_BEAT__INIT;
    uint8_t bytes[HA_BEAT_MAX];
    struct ha_event e = { .type = HA_EV_BEAT };
    uint32_t node = 2;
    uint64_t inc = l->node[1].incarnation, life = 1, seq = 1000000;

    (void)state;
    l->node[1].part = 1;
    lab_views(l);
    m.version = 1;
    m.from = 2;
    m.incarnation = inc - 1;
    m.life = 1;
    for (unsigned t = 0; t < 250; t++) {
        m.seq = 5000 + t;
        e.u.message.from = 2;
        e.u.message.bytes = bytes;
        e.u.message.len = migrd__ha_beat__pack(&m, bytes);
        lab_step(l, 0, &e);
        lab_step(l, 2, &e);
        e.u.message.len = 3;
        lab_step(l, 0, &e);
        lab_run(l, 10);
    }
    assert_int_equal(lab_node_record(l, 0, 2).state, EXPIRED);
    /* An acknowledgement of a beat that was never sent. */
    m.from = 1;
    m.incarnation = l->node[0].incarnation;
    m.n_ack_node = m.n_ack_incarnation = m.n_ack_life = m.n_ack_seq = 1;
    m.ack_node = &node;
    m.ack_incarnation = &inc;
    m.ack_life = &life;
    m.ack_seq = &seq;
    m.seq = 1 << 30;
    e.u.message.from = 1;
    e.u.message.len = migrd__ha_beat__pack(&m, bytes);
    lab_step(l, 1, &e);
    assert_false(lab_runs(l, 1, 0));
    lab_free(l);
}

static void two_of_five_at_once(void **state)
{
    struct lab *l = with_domain(5, 1);
    unsigned where = 9;

    (void)state;
    lab_add(l, 2, 1, NULL);
    lab_run(l, 500);
    lab_kill(l, 1, true);
    lab_kill(l, 2, true);
    lab_run(l, 2100);
    lab_views(l);
    lab_run(l, 200);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_equal(lab_running(l, 1, &where), 1);
    lab_free(l);
}

/* Two of three die: the last one may decide nothing, and pauses. One is back: both go on. */
static void two_of_three_at_once(void **state)
{
    struct lab *l = with_domain(3, 1);
    unsigned where = 9;

    (void)state;
    lab_add(l, 0, 1, NULL);
    lab_run(l, 500);
    lab_kill(l, 1, true);
    lab_kill(l, 2, true);
    lab_run(l, 2100);
    lab_views(l);
    lab_run(l, 5000);
    assert_int_equal(lab_running(l, 0, &where) + lab_running(l, 1, &where), 0);
    lab_boot(l, 2, true);
    lab_views(l);
    lab_run(l, 3000);
    assert_int_equal(lab_running(l, 1, &where), 1);
    assert_int_equal(where, 0);
    assert_int_equal(lab_record(l, 0, 1).epoch, 5);
    assert_int_equal(lab_running(l, 0, &where), 1);
    lab_free(l);
}

/* The owner joins first, or between the others. */
static void all_at_once_with(unsigned owner)
{
    struct lab *l = with_domain(3, owner);
    unsigned where = 9;

    for (unsigned i = 0; i < 3; i++)
        lab_kill(l, i, true);
    lab_run(l, 1000);
    for (unsigned i = 0; i < 3; i++)
        lab_boot(l, i, true);
    lab_views(l);
    lab_run(l, 1000);
    assert_int_equal(lab_running(l, 0, &where), 1);
    assert_int_equal(lab_record(l, 0, 0).state, RUNNING);
    assert_int_equal(lab_record(l, 0, 0).failures, 0);
    assert_int_equal(lab_record(l, 0, 0).epoch, 7); /* one place, and none of before the joins */
    lab_free(l);
}

static void all_at_once(void **state)
{
    (void)state;
    for (unsigned owner = 0; owner < 3; owner++)
        all_at_once_with(owner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_obey_their_inequality),
        cmocka_unit_test(guest_runs_on_under_its_fuse),
        cmocka_unit_test(dead_host_is_recovered_once),
        cmocka_unit_test(nothing_starts_before_the_proof),
        cmocka_unit_test(stalled_channel_pauses_nobody),
        cmocka_unit_test(paused_guest_goes_on_where_it_is),
        cmocka_unit_test(death_of_another_pauses_nobody),
        cmocka_unit_test(daemon_restart_keeps_the_guest),
        cmocka_unit_test(removed_without_its_daemon_runs_on),
        cmocka_unit_test(fast_restart_is_noticed),
        cmocka_unit_test(hung_daemon_is_recovered),
        cmocka_unit_test(copy_that_defies_its_fuse_is_the_watchdogs),
        cmocka_unit_test(who_stood_still_pets_at_once),
        cmocka_unit_test(who_stood_still_does_not_vote),
        cmocka_unit_test(lonely_vote_is_healed),
        cmocka_unit_test(strange_beats_count_for_nothing),
        cmocka_unit_test(two_of_five_at_once),
        cmocka_unit_test(two_of_three_at_once),
        cmocka_unit_test(all_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
