/* SPDX-License-Identifier: ISC */
/*
 * The report of a comparison as people and programs see it, byte by byte; and what is done
 * with a report that a host has made up.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/checks.h"
#include "base/pbjson.h"
#include "migrd/compat/compat.h"
#include "precopy/worker_internal.h"
#include "tools/migrate.h"

static char shown[8192];

/* What `fn` writes to that stream. */
static void capture(
    FILE *stream, void (*fn)(const Migrd__MigrationInfo *m), const Migrd__MigrationInfo *m)
{
    FILE *file = tmpfile();
    int keep;
    size_t n;

    fflush(stream);
    keep = dup(fileno(stream));
    dup2(fileno(file), fileno(stream));
    fn(m);
    fflush(stream);
    dup2(keep, fileno(stream));
    close(keep);
    rewind(file);
    n = fread(shown, 1, sizeof shown - 1, file);
    shown[n] = '\0';
    fclose(file);
}

static Migrd__CheckReport *report(void)
{
    struct checks c = { 0 };
    struct check *k;
    Migrd__CheckReport *r;

    k = checks_add(&c, CHECK_OK, "cpu", "vendor", "both CPUs are by the same vendor");
    checks_values(k, "AuthenticAMD", "AuthenticAMD");
    k = checks_add(&c, CHECK_WARN, "domain", "kernel",
        "host host2 has no /boot/vmlinuz: domain web1 runs there, but cannot boot there again");
    checks_values(k, "/boot/vmlinuz", "missing");
    checks_remedy(k, "copy it to host host2 before the guest reboots");
    k = checks_add(&c, CHECK_REFUSED, "network", "vif 00:16:3e:01:02:03",
        "domain web1 needs bridge br7, which host host2 does not have");
    checks_values(k, "br7", "missing");
    checks_remedy(k, "create it there");
    k = checks_add(&c, CHECK_REFUSED, "storage", "vda", "disk vda is another one on host host2");
    checks_values(k, "/srv/images/of/the/old/building/under/its/roof/web1.img", "");
    r = compat_report(&c);
    checks_free(&c);
    return r;
}

static void fill(Migrd__MigrationInfo *m, Migrd__Finished *f, const char *direction)
{
    migrd__migration_info__init(m);
    migrd__finished__init(f);
    m->domain = (char *)"web1";
    m->peer = (char *)"host2";
    m->direction = (char *)(uintptr_t)direction;
    m->report = f;
    f->checks = report();
}

static void print_all(const Migrd__MigrationInfo *m)
{
    checks_print(m, true);
}

static void print_some(const Migrd__MigrationInfo *m)
{
    checks_print(m, false);
}

static void refuse(const Migrd__MigrationInfo *m)
{
    assert_int_equal(checks_refusal(m, false), TOOL_FAILED);
}

/* Refusals come first, each line followed by what would mend it; long values lose their middle. */
static const char table_text[] =
    "Checks by host host2: 2 refused, 1 warning, 1 ok\n"
    "  Result   Area     Object                 Source                                         "
    "Target        Check\n"
    "  refused  network  vif 00:16:3e:01:02:03  br7                                            "
    "missing       domain web1 needs bridge br7, which host host2 does not have\n"
    "                                                                                          "
    "              -> create it there\n"
    "  refused  storage  vda                    /srv/images/of/the/ol...der/its/roof/web1.img  "
    "-             disk vda is another one on host host2\n"
    "  warning  domain   kernel                 /boot/vmlinuz                                  "
    "missing       host host2 has no /boot/vmlinuz: domain web1 runs there, but cannot boot the"
    "re again\n"
    "                                                                                          "
    "              -> copy it to host host2 before the guest reboots\n"
    "  ok       cpu      vendor                 AuthenticAMD                                   "
    "AuthenticAMD  both CPUs are by the same vendor\n"
    "\n";

static void test_table(void **state)
{
    Migrd__MigrationInfo m;
    Migrd__Finished f;

    (void)state;
    fill(&m, &f, "dry-run");
    capture(stdout, print_all, &m);
    assert_string_equal(shown, table_text);
    migrd__check_report__free_unpacked(f.checks, NULL);
}

static void test_only_what_matters(void **state)
{
    Migrd__MigrationInfo m;
    Migrd__Finished f;

    (void)state;
    fill(&m, &f, "in");
    capture(stdout, print_some, &m);
    assert_non_null(strstr(shown, "\nChecks by this host: 2 refused"));
    assert_null(strstr(shown, "vendor"));
    /* All fine: not a word. */
    for (size_t i = 0; i < f.checks->n_checks; i++)
        strcpy(f.checks->checks[i]->result, "ok");
    capture(stdout, print_some, &m);
    assert_string_equal(shown, "");
    assert_false(checks_refused(&f));
    migrd__check_report__free_unpacked(f.checks, NULL);
    f.checks = NULL;
    capture(stdout, print_all, &m);
    assert_string_equal(shown, "");
    assert_false(checks_refused(&f));
}

static void test_refusal(void **state)
{
    Migrd__MigrationInfo m;
    Migrd__Finished f;

    (void)state;
    fill(&m, &f, "out");
    assert_true(checks_refused(&f));
    capture(stderr, refuse, &m);
    assert_string_equal(shown,
        "Error: host host2 refuses web1: domain web1 needs bridge br7, which host host2 does not "
        "have\n"
        "What would mend it: create it there\n"
        "And 1 more: 'migctl migrate --dry-run web1 host2' shows all.\n");
    migrd__check_report__free_unpacked(f.checks, NULL);
}

static void test_json(void **state)
{
    Migrd__CheckReport *r = report();
    json_t *j = pbjson(&r->base);
    char *text = json_dumps(json_array_get(json_object_get(j, "checks"), 2), JSON_COMPACT);

    (void)state;
    assert_string_equal(text,
        "{\"result\":\"refused\",\"area\":\"network\",\"object\":\"vif 00:16:3e:01:02:03\","
        "\"source\":\"br7\",\"target\":\"missing\",\"text\":\"domain web1 needs bridge br7, which "
        "host host2 does not have\",\"remedy\":\"create it there\"}");
    free(text);
    json_decref(j);
    migrd__check_report__free_unpacked(r, NULL);
}

static Migrd__Check *made_up(size_t len)
{
    Migrd__Check *k = malloc(sizeof *k);

    migrd__check__init(k);
    k->text = malloc(len + 1);
    memset(k->text, '\a', len);
    k->text[len] = '\0';
    k->result = strdup("refused");
    return k;
}

/* As it comes from the wire. */
static void test_limits(void **state)
{
    Migrd__CheckReport *r = malloc(sizeof *r);

    (void)state;
    migrd__check_report__init(r);
    r->checks = calloc(CHECKS_MAX + 50, sizeof(Migrd__Check *));
    while (r->n_checks < CHECKS_MAX + 50)
        r->checks[r->n_checks++] = made_up(3000);
    report_limit(r);
    assert_int_equal(r->n_checks, CHECKS_MAX);
    assert_int_equal(strlen(r->checks[7]->text), CHECKS_TEXT - 1);
    assert_int_equal(strspn(r->checks[7]->text, "?"), CHECKS_TEXT - 1);
    assert_string_equal(r->checks[7]->result, "refused");
    migrd__check_report__free_unpacked(r, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_only_what_matters),
        cmocka_unit_test(test_refusal),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
