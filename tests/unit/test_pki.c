/* SPDX-License-Identifier: ISC */
/* pki: a CA, host certificates, renewal, what is refused. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/stat.h>

#include "tests/unit/transport_util.h"

static struct util_pki pki;

static int setup(void **state)
{
    (void)state;
    util_pki_open(&pki);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    util_pki_close(&pki);
    return 0;
}

static const char *in_dir(const char *file)
{
    static char path[160];

    snprintf(path, sizeof path, "%s/%s", pki.dir, file);
    return path;
}

static mode_t mode_of(const char *file)
{
    struct stat st;

    assert_int_equal(stat(in_dir(file), &st), 0);
    return st.st_mode & 07777;
}

static void show(const char *file, struct pki_info *i)
{
    struct err e;

    if (pki_show(in_dir(file), i, &e) < 0)
        fail_msg("%s", e.text);
}

static void a_ca_signs_hosts(void **state)
{
    struct pki_info ca, host;
    time_t now = time(NULL);

    (void)state;
    util_issue(&pki, "host1", 0, 0);
    show("ca.crt", &ca);
    show("host1/host.crt", &host);
    assert_true(ca.is_ca);
    assert_false(host.is_ca);
    assert_string_equal(ca.subject, "CN=test CA");
    assert_string_equal(host.issuer, "CN=test CA");
    assert_string_equal(host.subject, "CN=host1");
    assert_string_equal(host.names, "host1, 127.0.0.1, ::1, localhost");
    assert_int_equal(strlen(host.fingerprint), 95);
    assert_true(host.not_before < now && host.not_before > now - 7200);
    assert_true(host.not_after > now + 824 * 86400L && host.not_after < now + 826 * 86400L);
    assert_true(ca.not_after > now + 3649 * 86400L);
    assert_int_equal(mode_of("ca.key"), 0600);
    assert_int_equal(mode_of("ca.crt"), 0644);
    assert_int_equal(mode_of("host1/host.key"), 0600);
    assert_int_equal(mode_of("host1/host.crt"), 0644);
    assert_int_equal(mode_of("host1/ca.crt"), 0644);
}

static void nothing_is_overwritten(void **state)
{
    struct pki_request rq = { .name = "host2" }, ca = { .name = "again" };
    struct err e;

    (void)state;
    assert_int_equal(pki_init(pki.dir, &ca, &e), -1);
    assert_int_equal(e.code, ERR_EXISTS);
    assert_non_null(strstr(e.text, "ca.key exists already"));
    assert_int_equal(pki_issue(pki.dir, in_dir("host2"), &rq, &e), 0);
    assert_int_equal(pki_issue(pki.dir, in_dir("host2"), &rq, &e), -1);
    assert_int_equal(e.code, ERR_EXISTS);
    assert_non_null(strstr(e.text, "migctl pki renew"));
}

static void renewal_keeps_key_and_names(void **state)
{
    struct pki_info before, after;
    struct util_files u;
    struct tr_tls *t;
    struct err e;
    char *key, *key2;

    (void)state;
    util_issue(&pki, "host3", -10 * 86400, 1);
    util_files(&u, &pki, "host3");
    assert_int_equal(tr_tls_open(&u.f, &t, &e), -1); /* expired */
    show("host3/host.crt", &before);
    key = io_read_file(in_dir("host3/host.key"), 4096, NULL, &e);
    if (pki_renew(pki.dir, in_dir("host3"), 30, &e) < 0)
        fail_msg("%s", e.text);
    show("host3/host.crt", &after);
    key2 = io_read_file(in_dir("host3/host.key"), 4096, NULL, &e);
    assert_string_equal(key, key2);
    assert_string_equal(before.subject, after.subject);
    assert_string_equal(before.names, after.names);
    assert_true(strcmp(before.fingerprint, after.fingerprint) != 0);
    assert_true(after.not_after > time(NULL) + 29 * 86400L);
    if (tr_tls_open(&u.f, &t, &e) < 0)
        fail_msg("%s", e.text);
    tr_tls_free(&t);
    free(key);
    free(key2);
}

static void bad_requests_are_refused(void **state)
{
    static const char *const bad[] = { "", "a b", "evil,DNS:other", "a/b", "h\nost", "h\xc3\xb6st",
        "a-name-of-more-than-sixty-four-characters-is-too-long-for-a-common-name" };
    const char *const alts[] = { "fine", "not fine", NULL };
    struct pki_request rq = { .name = "ok", .alt_names = alts };
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct pki_request r = { .name = bad[i] };

        assert_int_equal(pki_issue(pki.dir, in_dir("bad"), &r, &e), -1);
        assert_int_equal(e.code, ERR_INVALID);
    }
    assert_int_equal(pki_issue(pki.dir, in_dir("bad"), &rq, &e), -1);
    assert_non_null(strstr(e.text, "not fine"));
    rq.alt_names = NULL;
    rq.days = 1000000;
    assert_int_equal(pki_issue(pki.dir, in_dir("bad"), &rq, &e), -1);
    assert_int_equal(access(in_dir("bad"), F_OK), -1);
}

static void missing_and_broken_files_are_named(void **state)
{
    struct pki_request rq = { .name = "host9" };
    struct pki_info i;
    struct err e;

    (void)state;
    assert_int_equal(pki_issue("/nonexistent", in_dir("host9"), &rq, &e), -1);
    assert_non_null(strstr(e.text, "/nonexistent/ca.crt"));
    assert_int_equal(pki_renew(pki.dir, in_dir("nobody"), 0, &e), -1);
    assert_non_null(strstr(e.text, "nobody/host.crt"));
    assert_int_equal(pki_show(in_dir("ca.key"), &i, &e), -1);
    assert_non_null(strstr(e.text, "not a certificate in PEM form"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ca_signs_hosts),
        cmocka_unit_test(nothing_is_overwritten),
        cmocka_unit_test(renewal_keeps_key_and_names),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(missing_and_broken_files_are_named),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
