/* SPDX-License-Identifier: ISC */
/* What a Xen domain's fuse does when: the table of decisions, and what survives whoever dies. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "hypervisor/rundir.h"
#include "hypervisor/xen_hold.h"

#define NEVER 0
#define ALWAYS UINT64_MAX
#define NONE UINT64_MAX /* of `ran` */

static uint64_t later(void)
{
    return clock_boot_ms() + 60000;
}

static uint64_t over(void)
{
    return clock_boot_ms() - 1;
}

struct row {
    const char *what;
    struct fuse_order order;
    bool begun_blown;
    uint64_t epoch, ran;
    uint32_t held, person;
    bool paused, ended;
    enum xen_hold_step step;
};

static void the_table(void **s)
{
    const struct row rows[] = {
        { "no order yet, it runs", { 0, 0 }, false, 1, 1, 0, 0, false, false, XEN_HOLD_STAY },
        { "no order yet, it begins to run", { 0, 0 }, false, 1, NONE, 0, 0, false, false,
            XEN_HOLD_RAN },
        { "no order yet, but begun blown", { 0, 0 }, true, 1, NONE, 0, 0, true, false,
            XEN_HOLD_PAUSE },
        { "begun blown, and held", { 0, 0 }, true, 1, NONE, 1, 1, true, false, XEN_HOLD_STAY },
        { "the first order of one that began blown", { 1, later() }, true, 1, NONE, 1, 0, true,
            false, XEN_HOLD_RELEASE },
        { "before its deadline", { 1, later() }, false, 1, 1, 0, 0, false, false, XEN_HOLD_STAY },
        { "at its deadline", { 1, over() }, false, 1, 1, 0, 0, false, false, XEN_HOLD_PAUSE },
        { "told to stop", { 1, NEVER }, false, 1, 1, 0, 0, false, false, XEN_HOLD_PAUSE },
        { "no limit", { 1, ALWAYS }, false, 1, 1, 0, 0, false, false, XEN_HOLD_STAY },
        { "no limit, of an epoch before its own", { 1, ALWAYS }, false, 2, 2, 0, 0, false, false,
            XEN_HOLD_STAY },
        { "no limit, of a newer epoch", { 3, ALWAYS }, false, 2, 2, 0, 0, false, false,
            XEN_HOLD_PAUSE },
        { "a deadline of another epoch", { 3, later() }, false, 2, 2, 0, 0, false, false,
            XEN_HOLD_PAUSE },
        { "paused by somebody at its deadline", { 1, over() }, false, 1, 1, 0, 1, true, false,
            XEN_HOLD_PAUSE },
        { "held", { 1, over() }, false, 1, 1, 1, 0, true, false, XEN_HOLD_STAY },
        { "held, and somebody unpauses it", { 1, over() }, false, 1, 1, 1, 0, false, false,
            XEN_HOLD_PAUSE },
        { "lit again, has run", { 1, later() }, false, 1, 1, 1, 0, true, false, XEN_HOLD_STAY },
        { "lit again, has not run", { 1, later() }, false, 1, NONE, 1, 0, true, false,
            XEN_HOLD_RELEASE },
        { "lit again, has run under an epoch before", { 2, later() }, false, 2, 1, 1, 0, true,
            false, XEN_HOLD_RELEASE },
        { "lit, fresh, paused by somebody", { 1, later() }, false, 1, NONE, 0, 1, true, false,
            XEN_HOLD_STAY },
        { "lit, fresh, its state is still coming", { 1, later() }, false, 1, NONE, 2, 1, true,
            false, XEN_HOLD_RELEASE },
        { "lit, and somebody's pause is over", { 1, later() }, false, 1, 1, 0, 1, false, false,
            XEN_HOLD_RAN },
        { "lit, its guest has ended", { 1, later() }, false, 1, NONE, 0, 0, false, true,
            XEN_HOLD_STAY },
        { "suspended by a migration at its deadline", { 1, over() }, false, 1, 1, 0, 0, false, true,
            XEN_HOLD_PAUSE },
    };

    (void)s;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        struct xen_hold h = { .magic = XEN_HOLD_MAGIC,
            .begun_blown = r->begun_blown,
            .epoch = r->epoch,
            .ran = r->ran,
            .held = r->held,
            .person = r->person };

        if (xen_hold_step(r->order, &h, r->paused, r->ended) != r->step)
            fail_msg("%s: step %d", r->what, (int)xen_hold_step(r->order, &h, r->paused, r->ended));
    }
}

static void an_epoch_only_grows(void **s)
{
    struct xen_hold h = { .epoch = 5, .ran = 5 };

    (void)s;
    assert_false(xen_hold_fresh(&h));
    xen_hold_set_epoch(&h, 4);
    assert_int_equal(h.epoch, 5);
    xen_hold_set_epoch(&h, 6);
    assert_int_equal(h.epoch, 6);
    assert_true(xen_hold_fresh(&h));
}

/* Who comes after one that died finds what that one knew. */
static void the_page_outlives_its_process(void **s)
{
    char dir[] = "/tmp/test-xen-hold.XXXXXX";
    struct xen_hold *h;
    struct err e;

    (void)s;
    assert_non_null(mkdtemp(dir));
    assert_null(xen_hold_map(dir));
    assert_int_equal(xen_hold_make(dir, 7, true, &e), 0);
    assert_int_equal(xen_hold_make(dir, 7, true, &e), -1);
    h = xen_hold_map(dir);
    assert_non_null(h);
    assert_true(xen_hold_fresh(h));
    assert_false(xen_hold_lit((struct fuse_order){ 0, 0 }, h));
    h->held = 2;
    munmap(h, FUSE_PAGE_LEN);
    h = xen_hold_map(dir);
    assert_int_equal(h->held, 2);
    assert_int_equal(h->epoch, 7);
    munmap(h, FUSE_PAGE_LEN);
    rundir_remove(dir);
}

/* A page of something else is none. */
static void another_file_is_no_hold(void **s)
{
    char dir[] = "/tmp/test-xen-hold.XXXXXX", from[64], to[64];
    struct err e;

    (void)s;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(fuse_page_make(dir, &e), 0);
    snprintf(from, sizeof from, "%s/" FUSE_FILE, dir);
    snprintf(to, sizeof to, "%s/" XEN_HOLD_FILE, dir);
    assert_int_equal(rename(from, to), 0);
    assert_null(xen_hold_map(dir));
    rundir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table),
        cmocka_unit_test(an_epoch_only_grows),
        cmocka_unit_test(the_page_outlives_its_process),
        cmocka_unit_test(another_file_is_no_hold),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
