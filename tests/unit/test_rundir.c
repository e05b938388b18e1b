/* SPDX-License-Identifier: ISC */
/* The process of a domain's folder: alive, gone, and not to be told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hypervisor/rundir.h"

static char dir[] = "/tmp/test_rundir.XXXXXX";

static void write_pid(const char *text)
{
    char path[64];
    FILE *f;

    snprintf(path, sizeof path, "%s/pid", dir);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static bool is_alive(pid_t *pid)
{
    bool alive = true;

    rundir_process(dir, pid, &alive);
    return alive;
}

static void test_gone(void **state)
{
    char text[64];
    pid_t pid;

    (void)state;
    assert_false(is_alive(&pid)); /* no file */
    assert_int_equal(pid, -1);
    snprintf(text, sizeof text, "%d 1\n", (int)getpid()); /* its number is another one's */
    write_pid(text);
    assert_false(is_alive(&pid));
    pid = fork();
    if (pid == 0)
        _exit(0);
    snprintf(text, sizeof text, "%d 12345\n", (int)pid);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    write_pid(text);
    assert_false(is_alive(&pid));
}

/* Without a descriptor nothing can be read: that is no reason to call it gone. */
static void test_not_to_be_told(void **state)
{
    struct rlimit before, none;
    struct err e;
    pid_t pid;

    (void)state;
    assert_int_equal(rundir_write_pid(dir, &e), 0);
    assert_true(is_alive(&pid));
    assert_int_equal(pid, getpid());
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){ 0, before.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_true(is_alive(&pid));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(pid, -1);
    assert_true(is_alive(&pid));
}

static int make(void **state)
{
    (void)state;
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int drop(void **state)
{
    (void)state;
    rundir_remove(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_gone),
        cmocka_unit_test(test_not_to_be_told) };

    return cmocka_run_group_tests(tests, make, drop);
}
