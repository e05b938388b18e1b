/* SPDX-License-Identifier: ISC */
/*
 * The fuse without KVM: a machine that has no vCPUs, its page, its watcher; and migrd's side with
 * the same page. Times here are only bounds that hold on a slow machine.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/io.h"
#include "hypervisor/fuse_orders.h"
#include "hypervisor/fuse_page.h"
#include "hypervisor/rundir.h"
#include "hypervisor/xvm/machine_internal.h"

#define UUID "6f1de1a2-0c57-4d3a-9b0e-00000000f05e"
#define LONG_MS 60000u

struct lab {
    char root[64], dir[128];
    struct fuse_orders fuses;
    struct machine *m;
};

static void soon(struct machine *m, bool held)
{
    for (int i = 0; i < 5000 && machine_suspended(m) != held; i++)
        usleep(1000);
    assert_int_equal(machine_suspended(m), held);
}

static void make_domain(struct lab *l)
{
    struct err e;

    assert_int_equal(mkdir(l->dir, 0755), 0);
    assert_int_equal(fuse_page_make(l->dir, &e), 0);
}

static void begin(struct lab *l, uint64_t epoch, bool blown)
{
    Migrd__Domain *def = calloc(1, sizeof *def);
    struct err e;

    assert_non_null(def);
    migrd__domain__init(def);
    def->name = strdup("guest");
    l->m = machine_new(l->dir, l->root);
    assert_non_null(l->m);
    l->m->def = def;
    l->m->epoch = epoch;
    assert_int_equal(fuse_open(l->m, blown, &e), 0);
    l->m->life = LIFE_PAUSED;
}

static int setup(void **state)
{
    struct lab *l = calloc(1, sizeof *l);

    assert_non_null(l);
    snprintf(l->root, sizeof l->root, "/tmp/migrd-test-XXXXXX");
    assert_non_null(mkdtemp(l->root));
    snprintf(l->dir, sizeof l->dir, "%s/" UUID, l->root);
    fuse_orders_init(&l->fuses, l->root);
    *state = l;
    return 0;
}

static int teardown(void **state)
{
    struct lab *l = *state;

    machine_free(&l->m);
    fuse_orders_close(&l->fuses);
    rundir_remove(l->dir);
    rmdir(l->root);
    free(l);
    return 0;
}

static void order(struct lab *l, uint64_t epoch, uint64_t deadline)
{
    struct err e;

    assert_int_equal(fuse_orders_set(&l->fuses, UUID, epoch, deadline, &e), 0);
}

static void test_without_limit(void **state)
{
    struct lab *l = *state;

    make_domain(l);
    begin(l, 3, false);
    assert_true(machine_may_write(l->m));
    assert_false(machine_suspended(l->m));
    order(l, 3, clock_boot_ms() + 30);
    soon(l->m, true);
    assert_false(machine_may_write(l->m));
    order(l, 3, UINT64_MAX);
    soon(l->m, false); /* it has not run under its epoch */
    fuse_set_epoch(l->m, 4);
    assert_true(machine_may_write(l->m)); /* no limit for 3: none for who was told to run as 4 */
}

static void test_begins_blown(void **state)
{
    struct lab *l = *state;
    char text[160];

    make_domain(l);
    begin(l, 5, true);
    assert_true(machine_suspended(l->m));
    assert_false(fuse_resume(l->m));
    fuse_reason(&l->m->fuse, text, sizeof text);
    assert_non_null(strstr(text, "has not let it run yet"));
    order(l, 4, UINT64_MAX); /* without a limit for an older one, which somebody ran on as 5 */
    soon(l->m, false);
    order(l, 5, clock_boot_ms() + LONG_MS);
    assert_true(machine_may_write(l->m));
    order(l, 5, 0);
    soon(l->m, true);
    fuse_reason(&l->m->fuse, text, sizeof text);
    assert_non_null(strstr(text, "told this copy to stop"));
}

static void test_latched(void **state)
{
    struct lab *l = *state;

    make_domain(l);
    begin(l, 5, true);
    order(l, 5, clock_boot_ms() + LONG_MS);
    soon(l->m, false);
    fuse_ran(l->m);
    order(l, 5, clock_boot_ms() + 20);
    soon(l->m, true);
    order(l, 5, clock_boot_ms() + LONG_MS);
    usleep(50000);
    assert_true(machine_suspended(l->m));
    assert_false(machine_may_write(l->m));
    assert_true(fuse_resume(l->m));
    assert_false(machine_suspended(l->m));
    assert_true(machine_may_write(l->m));
}

static void test_other_epochs(void **state)
{
    struct lab *l = *state;
    struct err e;

    make_domain(l);
    begin(l, 5, true);
    order(l, 6, clock_boot_ms() + LONG_MS); /* not ours */
    usleep(20000);
    assert_true(machine_suspended(l->m));
    assert_int_equal(fuse_orders_set(&l->fuses, UUID, 5, UINT64_MAX, &e), -1);
    assert_int_equal(e.code, ERR_EPOCH);
    fuse_set_epoch(l->m, 6);
    soon(l->m, false);
    fuse_ran(l->m);
    fuse_set_epoch(l->m, 7);
    assert_true(machine_suspended(l->m));
}

/* The machine's resume refuses, and says why. */
static void test_resume_says_why(void **state)
{
    struct lab *l = *state;
    struct err e;

    make_domain(l);
    begin(l, 5, true);
    assert_int_equal(machine_resume(l->m, &e), 0); /* nobody has paused it any more */
    assert_int_equal(l->m->life, LIFE_SUSPENDED);
    assert_int_equal(machine_resume(l->m, &e), -1);
    assert_int_equal(e.code, ERR_STATE);
    assert_non_null(strstr(e.text, "its fuse"));
    order(l, 5, clock_boot_ms() + LONG_MS);
    soon(l->m, false);
    assert_int_equal(machine_take_holds(l->m), HV_EV_RESUMED);
    assert_int_equal(l->m->life, LIFE_RUNNING);
    order(l, 5, 0);
    soon(l->m, true);
    assert_int_equal(machine_take_holds(l->m), HV_EV_PAUSED);
    order(l, 5, clock_boot_ms() + LONG_MS);
    assert_int_equal(machine_take_holds(l->m), HV_EV_MAX);
    assert_int_equal(machine_resume(l->m, &e), 0);
    assert_int_equal(l->m->life, LIFE_RUNNING);
}

static void test_order_before_process(void **state)
{
    struct lab *l = *state;
    struct err e;

    order(l, 9, clock_boot_ms() + LONG_MS);
    assert_false(fuse_orders_reach(&l->fuses, UUID));
    assert_int_equal(fuse_orders_begin(&l->fuses, UUID, 9, &e), -1); /* no process, no page */
    make_domain(l);
    fuse_orders_before_start(&l->fuses, UUID);
    assert_int_equal(fuse_orders_begin(&l->fuses, UUID, 9, &e), 0);
    begin(l, 9, true);
    assert_false(machine_suspended(l->m));
}

/* The order was for a life before. */
static void test_order_of_another_start(void **state)
{
    struct lab *l = *state;
    struct err e;

    order(l, 8, UINT64_MAX);
    make_domain(l);
    assert_int_equal(fuse_orders_begin(&l->fuses, UUID, 9, &e), 0);
    begin(l, 9, true);
    assert_true(machine_suspended(l->m));
}

/* A page of a process that has gone is not written any more. */
static void test_another_process(void **state)
{
    struct lab *l = *state;
    struct err e;

    make_domain(l);
    assert_true(fuse_orders_reach(&l->fuses, UUID));
    order(l, 40, UINT64_MAX);
    rundir_remove(l->dir);
    make_domain(l);
    fuse_orders_before_start(&l->fuses, UUID);
    order(l, 2, clock_boot_ms() + LONG_MS);
    assert_int_equal(fuse_orders_begin(&l->fuses, UUID, 2, &e), 0);
    begin(l, 2, true);
    assert_false(machine_suspended(l->m));
    fuse_orders_forget(&l->fuses, UUID);
    order(l, 2, 0); /* found again, as by a daemon that was restarted */
    soon(l->m, true);
}

static void test_bad_files(void **state)
{
    struct lab *l = *state;
    char path[200];
    struct err e;

    make_domain(l);
    snprintf(path, sizeof path, "%s/" FUSE_FILE, l->dir);
    assert_int_equal(truncate(path, 100), 0);
    assert_false(fuse_orders_reach(&l->fuses, UUID));
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(truncate(path, FUSE_PAGE_LEN), 0);
    assert_false(fuse_orders_reach(&l->fuses, UUID)); /* no magic */
    assert_int_equal(fuse_page_make(l->dir, &e), -1);
    assert_int_equal(fuse_orders_set(&l->fuses, "no uuid", 1, 0, &e), -1);
    assert_int_equal(fuse_orders_set(&l->fuses, UUID, 0, 0, &e), -1);
}

/* Without a page: no limit, but nobody may count on one. */
static void test_no_page(void **state)
{
    struct lab *l = *state;
    struct err e;

    assert_int_equal(mkdir(l->dir, 0755), 0);
    begin(l, 5, false);
    assert_true(machine_may_write(l->m));
    assert_null(l->m->fuse.page);
    assert_int_equal(fuse_open(l->m, true, &e), -1);
}

struct racer {
    struct fuse_page page;
    atomic_bool stop;
};

static void *write_orders(void *arg)
{
    struct racer *r = arg;

    for (uint64_t epoch = 1; epoch <= 20000; epoch++) {
        fuse_page_write(&r->page, (struct fuse_order){ epoch, epoch * 10 + 1 });
        fuse_page_write(&r->page, (struct fuse_order){ epoch, epoch * 10 + 2 });
    }
    atomic_store(&r->stop, true);
    return NULL;
}

/* A reader never sees a deadline of another epoch. */
static void test_torn(void **state)
{
    struct racer r = { .stop = false };
    pthread_t t;

    (void)state;
    assert_int_equal(pthread_create(&t, NULL, write_orders, &r), 0);
    while (!atomic_load(&r.stop)) {
        struct fuse_order o = fuse_page_read(&r.page);

        if (o.deadline != 0)
            assert_int_equal(o.deadline / 10, o.epoch);
    }
    pthread_join(t, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_without_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_begins_blown, setup, teardown),
        cmocka_unit_test_setup_teardown(test_latched, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_epochs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resume_says_why, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order_before_process, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order_of_another_start, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_process, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_page, setup, teardown),
        cmocka_unit_test(test_torn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
