/* SPDX-License-Identifier: ISC */
/* A copy in the core's words: each state of the hypervisor, and what migrd knows beside it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "migrd/ha_internal.h"

static struct hv_info info;

static struct ha_look look(enum hv_state state)
{
    info = (struct hv_info){ .state = state, .epoch = 7, .domid = 3, .fused = true };
    return (struct ha_look){ .live = true, .info = &info, .epoch = 6, .last_end = HV_EV_MAX };
}

static struct ha_event told(const struct ha_look *l)
{
    struct ha_event e;

    memset(&e, 0xff, sizeof e);
    assert_true(ha_look_event(l, &e));
    assert_int_equal(e.type, HA_EV_DOMAIN);
    return e;
}

static void check(const struct ha_look *l, enum ha_seen seen, bool blown, bool by_guest)
{
    struct ha_event e = told(l);

    assert_int_equal(e.u.domain.seen, seen);
    assert_int_equal(e.u.domain.blown, blown);
    assert_int_equal(e.u.domain.by_guest, by_guest);
    assert_int_equal(e.u.domain.epoch, 7);
    assert_true(e.u.domain.fused);
}

static void test_alive(void **state)
{
    struct ha_look l = look(HV_RUNNING);

    (void)state;
    check(&l, HA_SEEN_RUNNING, false, false);
    l = look(HV_BLOCKED);
    check(&l, HA_SEEN_RUNNING, false, false);
    l = look(HV_PAUSED);
    check(&l, HA_SEEN_PAUSED, false, false);
    info.blown = true;
    check(&l, HA_SEEN_PAUSED, true, false);
    info.fused = false;
    assert_false(told(&l).u.domain.fused);
}

static void test_incoming(void **state)
{
    struct ha_look l = look(HV_INCOMING);

    (void)state;
    l.moving = true;
    check(&l, HA_SEEN_INCOMING, false, false);
    l.moving = false; /* the rest of a hand-over */
    check(&l, HA_SEEN_INCOMING, false, false);
    l.owned = true; /* of an older epoch */
    check(&l, HA_SEEN_INCOMING, false, false);
    l.epoch = 7; /* given to this host, and left paused as it was */
    check(&l, HA_SEEN_PAUSED, false, false);
}

/* Somebody starts it while the log may be given it. */
static void test_starting(void **state)
{
    struct ha_look l = look(HV_CRASHED);
    struct ha_event e;

    (void)state;
    l.live = false;
    assert_false(ha_look_event(&l, &e));
    l.starting = true;
    e = told(&l);
    assert_int_equal(e.u.domain.seen, HA_SEEN_PAUSED);
    assert_int_equal(e.u.domain.epoch, 7); /* the journal's is 6 */
    assert_false(e.u.domain.blown);
    assert_false(e.u.domain.fused);
}

static void test_ends(void **state)
{
    struct ha_look l = look(HV_SHUTDOWN);

    (void)state;
    l.last_end = HV_EV_SHUTDOWN;
    check(&l, HA_SEEN_SHUTDOWN, false, true);
    l.stopping = true; /* the log has asked for it: gone is the next word */
    check(&l, HA_SEEN_RUNNING, false, false);
    l = look(HV_CRASHED);
    check(&l, HA_SEEN_CRASHED, false, false);
    l.stopping = true;
    check(&l, HA_SEEN_CRASHED, false, false);
}

/* Never gone in between, and never crashed. */
static void test_reset(void **state)
{
    struct ha_look l = look(HV_SHUTDOWN);

    (void)state;
    l.rebooting = true;
    check(&l, HA_SEEN_PAUSED, true, false);
    l = look(HV_RUNNING);
    l.rebooting = true;
    check(&l, HA_SEEN_RUNNING, false, false);
}

static void test_none(void **state)
{
    struct ha_look l = { .last_end = HV_EV_MAX };
    struct ha_event e;

    (void)state;
    assert_false(ha_look_event(&l, &e));
}

/* A process that does not answer is neither gone nor crashed. */
static void test_silent(void **state)
{
    struct ha_look l = look(HV_CRASHED);

    (void)state;
    info.domid = -1;
    l.epoch = 7;
    check(&l, HA_SEEN_PAUSED, false, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alive),
        cmocka_unit_test(test_incoming),
        cmocka_unit_test(test_starting), cmocka_unit_test(test_ends),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_silent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
