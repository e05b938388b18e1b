/* SPDX-License-Identifier: ISC */
/* Fault points: armed by the environment and, while the program runs, by a file. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"

static char path[] = "/tmp/test_fault.XXXXXX";
static int file;

static void arm(const char *line)
{
    char text[FAULT_TEXT] = "";

    snprintf(text, sizeof text, "%s\n", line);
    assert_int_equal(pwrite(file, text, sizeof text, 0), sizeof text);
}

static void told(char out[64])
{
    ssize_t n = pread(file, out, 63, FAULT_TEXT);

    out[n < 0 ? 0 : n] = '\0';
    out[strcspn(out, "\n")] = '\0';
}

static void an_unarmed_point_does_nothing(void **state)
{
    (void)state;
    assert_false(FAULT("nobody"));
}

static void the_environment_arms_once(void **state)
{
    (void)state;
    assert_true(FAULT("from-environment"));
    assert_false(FAULT("from-environment"));
}

static void the_file_arms_while_the_program_runs(void **state)
{
    char line[64], want[64];

    (void)state;
    arm("1 here=error");
    assert_false(FAULT("there"));
    assert_true(FAULT("here"));
    assert_false(FAULT("here"));
    told(line);
    snprintf(want, sizeof want, "1 %d here", (int)getpid());
    assert_string_equal(line, want);

    arm("2 here=error,there=sleep:1");
    assert_true(FAULT("here"));
    assert_false(FAULT("there")); /* it slept */
    arm("3 -=-");
    assert_false(FAULT("here"));
    assert_false(FAULT("from-environment")); /* a new text does not wake up the old ones */
}

static void nonsense_in_the_file_arms_nothing(void **state)
{
    char longest[FAULT_TEXT];

    (void)state;
    memset(longest, 'x', sizeof longest);
    memcpy(longest, "4 a=", 4);
    assert_int_equal(pwrite(file, longest, sizeof longest, 0), sizeof longest);
    assert_false(FAULT("a"));
    arm("here=error");
    assert_false(FAULT("here"));
}

static void a_stopped_process_goes_on_where_it_was(void **state)
{
    pid_t child;
    int status;

    (void)state;
    arm("5 stop-here=stop");
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(FAULT("stop-here") ? 1 : 7);
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    kill(child, SIGCONT);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unarmed_point_does_nothing),
        cmocka_unit_test(the_environment_arms_once),
        cmocka_unit_test(the_file_arms_while_the_program_runs),
        cmocka_unit_test(nonsense_in_the_file_arms_nothing),
        cmocka_unit_test(a_stopped_process_goes_on_where_it_was),
    };
    int r;

    file = mkstemp(path);
    if (file < 0)
        return 1;
    setenv("MIGRD_FAULT", "from-environment=error", 1);
    setenv("MIGRD_FAULT_FILE", path, 1);
    r = cmocka_run_group_tests(tests, NULL, NULL);
    close(file);
    unlink(path);
    return r;
}
