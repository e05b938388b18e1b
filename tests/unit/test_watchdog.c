/* SPDX-License-Identifier: ISC */
/* The watchdog with a FIFO in place of the device: what is written to it, and when not. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "cluster/watchdog.h"

struct lab {
    char dir[64], path[80];
    int fd;
    uv_loop_t loop;
    uv_timer_t stop;
};

static int setup(void **state)
{
    struct lab *l = calloc(1, sizeof *l);

    assert_non_null(l);
    snprintf(l->dir, sizeof l->dir, "/tmp/migrd-test-XXXXXX");
    assert_non_null(mkdtemp(l->dir));
    snprintf(l->path, sizeof l->path, "%s/watchdog", l->dir);
    assert_int_equal(mkfifo(l->path, 0600), 0);
    l->fd = open(l->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    uv_loop_init(&l->loop);
    *state = l;
    return 0;
}

static int teardown(void **state)
{
    struct lab *l = *state;

    uv_run(&l->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&l->loop), 0);
    close(l->fd);
    unlink(l->path);
    rmdir(l->dir);
    free(l);
    return 0;
}

static void on_stop(uv_timer_t *t)
{
    uv_close((uv_handle_t *)t, NULL);
    uv_stop(t->loop);
}

static void turn(struct lab *l, unsigned ms)
{
    uv_timer_init(&l->loop, &l->stop);
    uv_timer_start(&l->stop, on_stop, ms, 0);
    uv_run(&l->loop, UV_RUN_DEFAULT);
}

/* What came since the last look. */
static size_t written(struct lab *l, char *last)
{
    char text[256];
    ssize_t n = read(l->fd, text, sizeof text);

    if (n > 0)
        *last = text[n - 1];
    return n > 0 ? (size_t)n : 0;
}

static void test_petted_while_allowed(void **state)
{
    struct lab *l = *state;
    struct watchdog *w;
    char last = 0;
    struct err e;

    assert_int_equal(watchdog_open(&l->loop, l->path, 1000, &w, &e), 0);
    assert_int_equal(written(l, &last), 1);
    assert_true(watchdog_fed(w));
    turn(l, 500);
    assert_true(written(l, &last) >= 1);
    watchdog_allow(w, clock_boot_ms()); /* no more */
    turn(l, 500);
    assert_int_equal(written(l, &last), 0);
    turn(l, 700);
    assert_false(watchdog_fed(w));
    watchdog_allow(w, clock_boot_ms() + 1000);
    assert_true(written(l, &last) >= 1);
    assert_int_equal(last, '\n');
    watchdog_close(&w, true);
    assert_int_equal(written(l, &last), 1);
    assert_int_equal(last, 'V');
}

static void test_left_armed(void **state)
{
    struct lab *l = *state;
    struct watchdog *w;
    char last = 0;
    struct err e;

    assert_int_equal(watchdog_open(&l->loop, l->path, 2000, &w, &e), 0);
    watchdog_close(&w, false);
    assert_null(w);
    assert_int_equal(written(l, &last), 1);
    assert_int_equal(last, '\n');
}

static void test_refused(void **state)
{
    struct lab *l = *state;
    struct watchdog *w;
    struct err e;

    assert_int_equal(watchdog_open(&l->loop, l->path, 10, &w, &e), -1);
    assert_int_equal(watchdog_open(&l->loop, "/nonexistent/watchdog", 5000, &w, &e), -1);
    assert_non_null(strstr(e.text, "/nonexistent/watchdog"));
    assert_int_equal(watchdog_open(&l->loop, "/dev/null", 5000, &w, &e), -1);
    assert_non_null(strstr(e.text, "is no watchdog"));
    assert_null(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_petted_while_allowed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_left_armed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
