/* SPDX-License-Identifier: ISC */
/* A target waits for the devices of its domain: the file that tells, and its lock. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef XEN_RELEASE

#include "base/clock.h"
#include "hypervisor/xen/mig_internal.h"

#define SHORT_NS (50 * NS_PER_MS)

struct fixture {
    char path[32];
    int writer; /* an open file description of its own, as the child of xen-domain has one */
    struct hv_mig m;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    strcpy(f->path, "/tmp/settle.XXXXXX");
    f->writer = mkstemp(f->path);
    f->m.attach_fd = open(f->path, O_RDONLY | O_CLOEXEC);
    strcpy(f->m.uuid, "a domain");
    assert_true(f->writer >= 0 && f->m.attach_fd >= 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    unlink(f->path);
    close(f->m.attach_fd);
    if (f->writer >= 0)
        close(f->writer);
    free(f);
    return 0;
}

static void lock(struct fixture *f)
{
    struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    assert_int_equal(fcntl(f->writer, F_OFD_SETLK, &whole), 0);
}

static void says(struct fixture *f, const char *text)
{
    assert_int_equal(write(f->writer, text, strlen(text)), (ssize_t)strlen(text));
}

static void test_whole(void **state)
{
    struct fixture *f = *state;
    struct err e = { 0 };

    says(f, "vif 0\ndisk xvda\nwhole\n");
    assert_int_equal(xen_mig_settle(&f->m, clock_ns() + SHORT_NS, &e), 0);
}

static void test_under_way(void **state)
{
    struct fixture *f = *state;
    struct err e = { 0 };

    lock(f);
    says(f, "vif 0\nwhole\n"); /* what it says counts once its writer is done */
    assert_int_equal(xen_mig_settle(&f->m, clock_ns() + SHORT_NS, &e), -1);
    assert_int_equal(e.code, ERR_TIMEOUT);
    close(f->writer);
    f->writer = -1;
    assert_int_equal(xen_mig_settle(&f->m, clock_ns() + SHORT_NS, &e), 0);
}

static void test_failed(void **state)
{
    struct fixture *f = *state;
    struct err e = { 0 };

    says(f, "vif 0\nfailed disk xvda: no such device\n");
    assert_int_equal(xen_mig_settle(&f->m, clock_ns() + SHORT_NS, &e), -1);
    assert_non_null(strstr(e.text, "disk xvda: no such device"));
}

static void test_cut_short(void **state)
{
    struct fixture *f = *state;
    struct err e = { 0 };

    assert_int_equal(xen_mig_settle(&f->m, clock_ns() + SHORT_NS, &e), -1);
    assert_non_null(strstr(e.text, "cut short"));
    says(f, "vif 0\ndisk xvda\n");
    assert_int_equal(xen_mig_settle(&f->m, clock_ns() + SHORT_NS, &e), -1);
    assert_non_null(strstr(e.text, "cut short"));
}

static void test_stream_has_its_own(void **state)
{
    struct fixture *f = *state;
    struct err e = { 0 };

    f->m.layout.stream = true;
    lock(f);
    assert_int_equal(xen_mig_settle(&f->m, clock_ns() + SHORT_NS, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_under_way, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_short, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stream_has_its_own, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    puts("skip: Xen's driver is not part of this build");
    return 77;
}

#endif
