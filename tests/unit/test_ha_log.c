/* SPDX-License-Identifier: ISC */
/* The cluster's log: terms, promises, commits, what a crash, a split or a late message may do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/ha_lab.h"

#define ACTIVE MIGRD__HA_PHASE__PHASE_ACTIVE

static void drain_node(struct lab *l, unsigned i, uint32_t node)
{
    Migrd__HaCommand m = MIGRD__HA_COMMAND__INIT;

    m.kind = MIGRD__HA_COMMAND_KIND__HA_DRAIN;
    m.node = node;
    lab_command(l, i, &m);
}

static bool drained(struct lab *l, unsigned i, uint32_t node)
{
    return lab_node_record(l, i, node).drain;
}

static void becomes_active(void **state)
{
    struct lab *l = lab_new(3);

    (void)state;
    lab_run(l, 1000);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(lab_phase(l, i), ACTIVE);
    assert_true(lab_agree(l, 0, 1) && lab_agree(l, 1, 2));
    drain_node(l, 1, 3);
    assert_true(l->node[1].answered && l->node[1].answer_ok);
    assert_true(drained(l, 0, 3) && drained(l, 2, 3));
    lab_free(l);
}

static void minority_decides_nothing(void **state)
{
    struct lab *l = lab_new(3);

    (void)state;
    lab_run(l, 1000);
    l->node[2].part = 1;
    lab_views(l);
    lab_run(l, 100);
    drain_node(l, 2, 1);
    assert_true(l->node[2].answered && !l->node[2].answer_ok);
    assert_non_null(strstr(l->node[2].answer, "only 1 of 3"));
    drain_node(l, 0, 2);
    assert_true(l->node[0].answer_ok);
    l->node[2].part = 0;
    lab_views(l);
    lab_run(l, 100);
    assert_true(drained(l, 2, 2) && lab_agree(l, 0, 2));
    lab_free(l);
}

/* A member whose disk has not answered has not acknowledged. */
static void commits_with_a_majority_of_disks(void **state)
{
    struct lab *l = lab_new(3);

    (void)state;
    lab_run(l, 1000);
    l->node[1].slow_disk = l->node[2].slow_disk = true;
    drain_node(l, 0, 3);
    lab_run(l, 50);
    assert_false(l->node[0].answered);
    l->node[1].slow_disk = false;
    lab_push(l, 1, &(struct ha_event){ .type = HA_EV_PERSISTED, .u.id = l->node[1].held_persist });
    lab_run(l, 50);
    assert_true(l->node[0].answered && l->node[0].answer_ok);
    lab_free(l);
}

/* What only a minority got and nobody acknowledged ends with the view, or is kept, by the newest.
 */
static void uncommitted_tail_of_a_minority_is_dropped(void **state)
{
    struct lab *l = lab_new(3);

    (void)state;
    lab_run(l, 1000);
    l->node[2].part = 1; /* before the view tells: its proposal reaches itself alone */
    drain_node(l, 2, 1);
    assert_false(l->node[2].answered);
    lab_views(l);
    lab_run(l, 100);
    drain_node(l, 0, 2);
    assert_true(l->node[0].answer_ok);
    assert_false(l->node[2].answered);
    l->node[2].part = 0;
    lab_views(l);
    lab_run(l, 100);
    assert_true(lab_agree(l, 0, 2) && lab_agree(l, 1, 2));
    /* It was proposed again: its answer is true. */
    assert_true(l->node[2].answered && l->node[2].answer_ok);
    assert_true(drained(l, 0, 1) && drained(l, 0, 2));
    lab_free(l);
}

/* All are killed between the disk and the acknowledgement, in each order of coming back. */
static void full_restart_keeps_what_was_committed(void **state)
{
    (void)state;
    for (unsigned late = 0; late < 3; late++) {
        struct lab *l = lab_new(3);

        lab_run(l, 1000);
        drain_node(l, 0, 2);
        assert_true(l->node[0].answer_ok);
        for (unsigned i = 0; i < 3; i++)
            lab_kill(l, i, true);
        lab_run(l, 50);
        for (unsigned i = 0; i < 3; i++)
            if (i != late)
                lab_boot(l, i, true);
        lab_views(l);
        lab_run(l, 200);
        for (unsigned i = 0; i < 3; i++)
            if (i != late)
                assert_true(drained(l, i, 2));
        lab_boot(l, late, true);
        lab_views(l);
        lab_run(l, 200);
        assert_true(drained(l, late, 2));
        assert_true(lab_agree(l, 0, 1) && lab_agree(l, 1, 2));
        lab_free(l);
    }
}

/* A member that does not answer holds the others up for half a token, not for ever. */
static void hung_member_does_not_stop_the_log(void **state)
{
    struct lab *l = lab_new(5);

    (void)state;
    lab_run(l, 1000);
    l->node[4].hangs = true;
    lab_kill(l, 3, true);
    lab_views(l);
    lab_run(l, 400);
    assert_int_not_equal(lab_phase(l, 0), ACTIVE);
    lab_run(l, 400);
    assert_int_equal(lab_phase(l, 0), ACTIVE);
    drain_node(l, 0, 2);
    assert_true(l->node[0].answer_ok);
    l->node[4].hangs = false;
    lab_run(l, 200);
    assert_int_equal(lab_phase(l, 4), ACTIVE);
    assert_true(lab_agree(l, 0, 4));
    lab_free(l);
}

/* A node that lost its disk may have acknowledged what nobody else here has. */
static void blank_node_does_not_count(void **state)
{
    struct lab *l = lab_new(3);
    struct lab_node *n = &l->node[1];

    (void)state;
    lab_run(l, 1000);
    for (unsigned i = 0; i < 3; i++)
        lab_kill(l, i, true);
    while (n->n_disk > 0)
        free(n->disk[--n->n_disk].bytes);
    lab_boot(l, 1, true);
    lab_boot(l, 2, true);
    lab_views(l);
    lab_run(l, 5000);
    assert_int_not_equal(lab_phase(l, 1), ACTIVE);
    assert_int_not_equal(lab_phase(l, 2), ACTIVE);
    lab_boot(l, 0, true);
    lab_views(l);
    lab_run(l, 500);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(lab_phase(l, i), ACTIVE);
    assert_true(lab_agree(l, 0, 1));
    lab_free(l);
}

static void late_messages_of_an_older_term_are_ignored(void **state)
{
    struct lab *l = lab_new(3);
    struct lab_event old[64];
    unsigned n = 0;

    (void)state;
    lab_run(l, 1000);
    /* Node 1's proposal is held back for node 3 until a new term has begun. */
    lab_step(l, 0, &(struct ha_event){ .type = HA_EV_TIME });
    {
        Migrd__HaCommand m = MIGRD__HA_COMMAND__INIT;
        struct ha_event e = { .type = HA_EV_COMMAND };

        m.kind = MIGRD__HA_COMMAND_KIND__HA_DRAIN;
        m.node = 2;
        e.u.command = &m;
        lab_step(l, 0, &e);
    }
    for (unsigned k = l->head; k < l->tail; k++)
        if (l->queue[k % LAB_QUEUE].to == 2 && l->queue[k % LAB_QUEUE].e.type == HA_EV_MESSAGE) {
            old[n++] = l->queue[k % LAB_QUEUE];
            l->queue[k % LAB_QUEUE].e = (struct ha_event){ .type = HA_EV_MAX };
            l->queue[k % LAB_QUEUE].bytes = NULL;
        }
    assert_true(n > 0);
    lab_views(l);
    lab_run(l, 200);
    for (unsigned k = 0; k < n; k++) {
        lab_step(l, 2, &old[k].e);
        free(old[k].bytes);
    }
    lab_run(l, 200);
    assert_true(drained(l, 0, 2) && drained(l, 2, 2));
    assert_true(lab_agree(l, 0, 2) && lab_agree(l, 0, 1));
    lab_free(l);
}

/* A state of more than one message. */
static void large_state_travels_in_parts(void **state)
{
    struct lab *l = lab_new(3);
    static uint8_t big[60000];

    (void)state;
    lab_run(l, 1000);
    l->node[2].part = 1;
    lab_views(l);
    lab_run(l, 100);
    for (unsigned d = 0; d < LAB_DOMAINS; d++) {
        Migrd__HaCommand m = MIGRD__HA_COMMAND__INIT;
        Migrd__HaDomain x = MIGRD__HA_DOMAIN__INIT;

        x.uuid = (char *)lab_uuid(d);
        x.name = (char *)"big";
        x.definition.data = big;
        x.definition.len = sizeof big;
        m.kind = MIGRD__HA_COMMAND_KIND__HA_ADD;
        m.domain = &x;
        lab_command(l, 0, &m);
        assert_true(l->node[0].answer_ok);
    }
    l->node[2].part = 0;
    lab_views(l);
    lab_run(l, 200);
    assert_int_equal(lab_phase(l, 2), ACTIVE);
    assert_true(lab_agree(l, 0, 2));
    lab_kill(l, 2, false);
    lab_boot(l, 2, false);
    lab_views(l);
    lab_run(l, 200);
    assert_true(lab_agree(l, 0, 2));
    lab_free(l);
}

static void other_configuration_stays_out(void **state)
{
    struct lab *l = lab_new(3);

    (void)state;
    lab_run(l, 1000);
    lab_kill(l, 2, false);
    l->node[2].one_more = 9;
    lab_boot(l, 2, false);
    lab_views(l);
    lab_run(l, 2000);
    assert_int_equal(lab_phase(l, 0), ACTIVE);
    assert_int_not_equal(lab_phase(l, 2), ACTIVE);
    assert_true(l->node[0].alarms > 0 && l->node[2].alarms > 0);
    lab_free(l);
}

static void damaged_records_are_refused(void **state)
{
    struct lab *l = lab_new(3);
    struct ha_config config = { .node = 1, .incarnation = 9, .n_nodes = 1, .nodes = { 1 } };
    struct ha_record saved[3];
    struct err e;

    (void)state;
    lab_run(l, 1000);
    config.times = l->times;
    saved[0] = (struct ha_record){ (const uint8_t *)"\xff\xff\xff", 3 };
    assert_null(ha_core_new(&config, saved, 1, 0, &e));
    assert_non_null(strstr(e.text, "record 1 of 1"));
    /* The first term's record comes twice. */
    for (unsigned i = 0; i < 3; i++)
        saved[i] = (struct ha_record){ l->node[0].disk[i / 2].bytes, l->node[0].disk[i / 2].len };
    for (unsigned i = 0; i < l->node[0].n_disk; i++)
        if (l->node[0].disk[i].len > 40) {
            saved[0] = saved[1] =
                (struct ha_record){ l->node[0].disk[i].bytes, l->node[0].disk[i].len };
            break;
        }
    assert_null(ha_core_new(&config, saved, 2, 0, &e));
    lab_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(becomes_active),
        cmocka_unit_test(minority_decides_nothing),
        cmocka_unit_test(commits_with_a_majority_of_disks),
        cmocka_unit_test(uncommitted_tail_of_a_minority_is_dropped),
        cmocka_unit_test(full_restart_keeps_what_was_committed),
        cmocka_unit_test(hung_member_does_not_stop_the_log),
        cmocka_unit_test(blank_node_does_not_count),
        cmocka_unit_test(late_messages_of_an_older_term_are_ignored),
        cmocka_unit_test(large_state_travels_in_parts),
        cmocka_unit_test(other_configuration_stays_out),
        cmocka_unit_test(damaged_records_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
