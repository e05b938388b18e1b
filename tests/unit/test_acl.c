/* SPDX-License-Identifier: ISC */
/* xend-relocation-hosts-allow: who is admitted, what is warned of, what is refused, and why. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "relocation-acl/internal.h"
#include "relocation-acl/relocation-acl.h"

#define SUN "^host1\\.?.*$ ^localhost$"
#define XEND "^localhost$ ^localhost\\.localdomain$"

struct match_case {
    const char *list;
    const char *name, *address;
    int expression; /* -1 refused, -2 everybody is admitted */
};

static const struct match_case cases[] = {
    /* the line of Sun's manual */
    { SUN, "host1", "10.0.0.1", 0 },
    { SUN, "host1.lab", "10.0.0.1", 0 },
    { SUN, "HOST1.Lab", "10.0.0.1", 0 },
    { SUN, "localhost", "127.0.0.1", 1 },
    { SUN, "host2.lab", "10.0.0.2", -1 },
    { SUN, "", "127.0.0.1", -1 },
    { SUN, "localhost.localdomain", "127.0.0.1", -1 },
    { SUN, "myhost1.lab", "10.0.0.1", -1 },
    { SUN, "host10.evil.example", "6.6.6.6", 0 }, /* as xend; warned of */
    /* xend's shipped list */
    { XEND, "localhost", "127.0.0.1", 0 },
    { XEND, "localhost.localdomain", "127.0.0.1", 1 },
    { XEND, "localhostxlocaldomain", "10.0.0.1", -1 },
    { XEND, "localhost.evil.example", "6.6.6.6", -1 },
    { XEND, "", "10.0.0.1", -1 },
    /* everybody, nobody */
    { "", "any.example", "1.2.3.4", -2 },
    { "", "", "", -2 },
    { " ", "any.example", "1.2.3.4", -1 },
    { "   ", "", "1.2.3.4", -1 },
    { "\t", "", "1.2.3.4", -1 },
    /* blanks too many admit nobody more */
    { "^a$ ", "b", "1.2.3.4", -1 },
    { " ^a$", "b", "1.2.3.4", -1 },
    { "^a$  ^c$", "b", "1.2.3.4", -1 },
    { "^a$  ^c$", "c", "1.2.3.4", 1 },
    { "^a$\t^c$", "c", "1.2.3.4", 1 },
    { "^a$ ", "a", "1.2.3.4", 0 },
    /* anchored at the start, not at the end */
    { "host1", "host1", "1.2.3.4", 0 },
    { "host1", "host10.evil.example", "1.2.3.4", 0 },
    { "host1", "xhost1", "1.2.3.4", -1 },
    { "ost1", "host1", "1.2.3.4", -1 },
    { ".*ost1$", "host1", "1.2.3.4", 0 },
    { "^host1$", "host1.evil.example", "1.2.3.4", -1 },
    { "^host1$", "host1", "1.2.3.4", 0 },
    { "host1\\Z", "host1", "1.2.3.4", 0 },
    { "a|b", "b", "1.2.3.4", 0 },
    { "a|b", "xb", "1.2.3.4", -1 },
    { "^(a|b)\\.lab$", "b.lab", "1.2.3.4", 0 },
    { "(?P<n>a)(?P=n)$", "aa", "1.2.3.4", 0 },
    { "^host[0-9]{1,2}$", "host42", "1.2.3.4", 0 },
    { "^host[0-9]{1,2}$", "host420", "1.2.3.4", -1 },
    { "^(?!evil).*\\.lab$", "evil.lab", "1.2.3.4", -1 },
    { "^(?!evil).*\\.lab$", "good.lab", "1.2.3.4", 0 },
    /* names */
    { "^a$", "a.", "1.2.3.4", 0 },
    { "^a\\.b$", "a.b.", "1.2.3.4", 0 },
    { "^a", "a b", "1.2.3.4", -1 },
    { "^a", "a\nb", "1.2.3.4", -1 },
    { "^a$", "a\n", "1.2.3.4", -1 },
    { "^a", "a\x01", "1.2.3.4", -1 },
    { "^a", "a\xc3\xa4", "1.2.3.4", -1 },
    { "^my_host$", "my_host", "1.2.3.4", 0 },
    /* addresses */
    { "^10\\.0\\.0\\.[0-9]+$", "", "10.0.0.9", 0 },
    { "^10\\.0\\.0\\.[0-9]+$", "", "10.0.1.9", -1 },
    { "^10\\.0\\.0\\.", "", "10.0.0.9", 0 },
    { "^10\\.0\\.0\\.1$", "10.0.0.1", "6.6.6.6", -1 }, /* a name that looks like an address */
    { "^10\\.0\\.0\\.1$", "", "::ffff:10.0.0.1", 0 },
    { "^10\\.0\\.0\\.1$", "", "010.0.0.1", -1 },
    { "^10", "", "10.0.0.1\n", -1 },
    { "^10", "", "10 or so", -1 },
    { "^fd00::1$", "", "fd00::1", 0 },
    { "^fd00::1$", "", "FD00:0:0:0:0:0:0:1", 0 },
    { "^FD00::1$", "", "fd00::1", 0 },
    { "^fd00::1$", "", "fd00::12", -1 },
    { "^fd00:", "", "fd00:1::2", 0 },
    { "^::1$", "", "::1", 0 },
    { "^fe80::1%eth0$", "", "fe80::1%eth0", 0 },
    { "^fe80::1%eth0$", "", "fe80::1%eth1", -1 },
    { "^fe80::1$", "", "fe80::1%eth0", -1 },
    { "^fe80::1", "", "fe80::1%eth0 x", -1 },
    { "^a$ ^10\\.0\\.0\\.1$", "b", "10.0.0.1", 1 },
    /* catastrophic expressions count as not matching, and do not stop the others */
    { "^(a+)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b", "1.2.3.4",
        -1 },
    { "^(a|aa)+$ ^a.*b$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-b",
        "1.2.3.4", 1 },
    { "^(.*)(.*)(.*)(.*)(.*)x$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "1.2.3.4", -1 },
    { "(*LIMIT_MATCH=4000000000)^(a+)+$",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b", "1.2.3.4", -1 },
    { "^(?1)*$()", "b", "1.2.3.4", -1 },
};

static struct acl *compile(const char *list)
{
    struct acl *a;
    struct err e;

    if (acl_compile(list, true, NULL, NULL, &a, &e) != 0)
        fail_msg("%s: %s", list, e.text);
    return a;
}

static void test_matches(void **state)
{
    struct timespec begin, end;

    (void)state;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct match_case *c = &cases[i];
        struct acl *a = compile(c->list);
        struct acl_verdict v;

        acl_check(a, c->name, c->address, &v);
        if (v.allowed != (c->expression != -1) ||
            v.expression != (c->expression == -2 ? -1 : c->expression))
            fail_msg("case %zu, \"%s\": %s %s: %d %d %s", i, c->list, c->name, c->address,
                v.allowed, v.expression, v.why);
        assert_true(strlen(v.why) > 20);
        acl_free(&a);
        assert_null(a);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    assert_true(end.tv_sec - begin.tv_sec <= 2);
}

static void check_why(
    const char *list, bool set, const char *name, const char *address, const char *want)
{
    struct acl_verdict v;
    struct acl *a;
    struct err e;

    assert_int_equal(acl_compile(list, set, NULL, NULL, &a, &e), 0);
    acl_check(a, name, address, &v);
    assert_string_equal(v.why, want);
    acl_free(&a);
}

static void test_explanations(void **state)
{
    (void)state;
    check_why(SUN, true, "host3.lab", "10.0.0.9",
        "address 10.0.0.9 and name host3.lab match none of 2 expressions of "
        "xend-relocation-hosts-allow; add ^host3\\.lab$ to admit it");
    check_why("^a$", true, "", "10.0.0.9",
        "address 10.0.0.9 (without a confirmed name) does not match the one expression of "
        "xend-relocation-hosts-allow; add ^10\\.0\\.0\\.9$ to admit it");
    check_why(SUN, true, "host3.lab", "",
        "name host3.lab matches none of 2 expressions of xend-relocation-hosts-allow; add "
        "^host3\\.lab$ to admit it");
    check_why(SUN, true, "host1.lab", "10.0.0.1",
        "name host1.lab matches expression 1 of xend-relocation-hosts-allow, ^host1\\.?.*$");
    check_why("^10\\.", true, "", "10.0.0.1",
        "address 10.0.0.1 matches expression 1 of xend-relocation-hosts-allow, ^10\\.");
    check_why(
        "", true, "a", "10.0.0.1", "xend-relocation-hosts-allow is empty: everybody is admitted");
    check_why("", false, "a", "10.0.0.1",
        "address 10.0.0.1 and name a: xend-relocation-hosts-allow is not set, so only this host "
        "itself is admitted; set it to ^a$ to admit that host");
    check_why("", false, "localhost", "127.0.0.1",
        "name localhost is this host itself (xend-relocation-hosts-allow is not set)");
    check_why("", false, "", "::1",
        "address ::1 is this host itself (xend-relocation-hosts-allow is not set)");
}

/* What is suggested admits the host that was refused, and no other. */
static void test_suggestion_works(void **state)
{
    static const char *const hosts[][2] = { { "host3.lab", "10.0.0.9" }, { "", "10.0.0.9" },
        { "", "fe80::1%eth0.5" }, { "a-b_c.d", "::2" } };
    char suggestion[256], *p;
    struct acl_verdict v;
    struct acl *a;

    (void)state;
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        a = compile("^nobody$");
        acl_check(a, hosts[i][0], hosts[i][1], &v);
        acl_free(&a);
        p = strstr(v.why, "add ");
        assert_non_null(p);
        assert_int_equal(sscanf(p, "add %255s to admit it", suggestion), 1);
        a = compile(suggestion);
        acl_check(a, hosts[i][0], hosts[i][1], &v);
        assert_true(v.allowed);
        acl_check(a, "host3xlab", "10.0.0.90", &v);
        assert_false(v.allowed);
        acl_free(&a);
    }
}

static void test_not_set(void **state)
{
    struct acl_verdict v;
    struct acl *a;
    struct err e;

    (void)state;
    assert_int_equal(acl_compile("^anything", false, NULL, NULL, &a, &e), 0);
    assert_true(acl_admits_address(a, "127.0.0.1"));
    assert_true(acl_admits_address(a, "127.8.8.8"));
    assert_true(acl_admits_address(a, "::1"));
    assert_true(acl_admits_address(a, "::ffff:127.0.0.1"));
    assert_false(acl_admits_address(a, "10.0.0.1"));
    assert_false(acl_admits_address(a, ""));
    acl_check(a, "localhost", "10.0.0.1", &v);
    assert_true(v.allowed); /* as xend's list; the name has been confirmed */
    acl_check(a, "127.evil.example", "6.6.6.6", &v);
    assert_false(v.allowed);
    acl_check(a, "anything", "6.6.6.6", &v);
    assert_false(v.allowed);
    acl_free(&a);
}

static void collect(void *arg, const char *text)
{
    strncat(arg, text, 4000 - strlen(arg));
    strncat(arg, "\n", 4000 - strlen(arg));
}

struct warn_case {
    const char *list;
    const char *warning; /* part of it; NULL: none */
};

static const struct warn_case warnings[] = {
    { "^localhost$ ^localhost\\.localdomain$", NULL },
    { "^host1\\.lab$", NULL },
    { "^(host1|host2)\\.lab$", NULL },
    { "^(host1$|host2$)", NULL },
    { "^host1$|^host2$", NULL },
    { "^10\\.0\\.0\\.[0-9]+$", NULL },
    { "^host1\\Z", NULL },
    { "^host1(\\..*)?$ ^a$", "host1.evil.example" },
    { "^.*\\.lab$", NULL },
    { "^host[0-9$]$", NULL },
    { "^host[0-9]+\\.lab$", NULL },
    { "", "is empty: EVERY host" },
    { "  ", "nothing but blanks: nobody is admitted" },
    { "^a$  ^b$", "a blank too many" },
    { "^a$ ", "a blank too many" },
    { " ^a$", "a blank too many" },
    { "host1", "host1 has no $ at its end: it would admit host10 and host1.evil.example too" },
    { "^host1", "has no $ at its end: it would admit host10 and host1.evil.example too" },
    { "^host1\\.", "has no $ at its end: it would admit host1.evil.example too" },
    { "^10\\.0\\.0\\.", "has no $ at its end: it would admit 10.0.0.evil.example too" },
    { "^host1\\.?.*$", "would admit host1.evil.example and host10.evil.example too; write out" },
    { "^(a|b)", "has no $ at the end of each alternative" },
    { "^a$|^b", "has no $ at the end of each alternative" },
    { "^(a$|b)", "has no $ at the end of each alternative" },
    { "^[a-c]", "has no $ at the end" },
    { "^host1\\$", "has no $ at the end" },
    { "^host[$]", "has no $ at the end" },
    { "^[ab$]", "has no $ at the end" },
    { ".*", "admits EVERY host" },
    { "^.*$", "admits EVERY host" },
    { "^", "admits EVERY host" },
    { "()", "admits EVERY host" },
    { "a|", "admits EVERY host" },
    { "^(a$)?", "admits EVERY host" },
};

static void test_warnings(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof warnings / sizeof warnings[0]; i++) {
        const struct warn_case *w = &warnings[i];
        char text[4096] = "";
        struct acl *a;
        struct err e;

        assert_int_equal(acl_compile(w->list, true, collect, text, &a, &e), 0);
        acl_free(&a);
        if (w->warning == NULL ? text[0] != '\0' : strstr(text, w->warning) == NULL)
            fail_msg("\"%s\": warned: %s", w->list, text);
        text[0] = '\0';
        assert_int_equal(acl_compile(w->list, false, collect, text, &a, &e), 0);
        acl_free(&a);
        assert_string_equal(text, "");
    }
}

static void test_bad_lists(void **state)
{
    static const char *const bad[][2] = {
        { "^host[1$", "expression 1, \"^host[1$\", does not compile: missing terminating ]" },
        { "^a$ ^(b$", "expression 2, \"^(b$\", does not compile: missing closing parenthesis (at "
                      "character 5); the whole list is refused" },
        { "^a$ *", "expression 2" },
        { "a)", "unmatched closing parenthesis" },
        { "(?L)a", "expression 1" },
        { "(*UTF)a", "expression 1" },
        { "\\C", "expression 1" },
        { "((((((((((((((((((((((((((((((((((((((((a))))))))))))))))))))))))))))))))))))))))",
            "too deeply nested" },
        { "^a$\n^b$", "control character 0x0a at character 4" },
        { "a\001", "control character 0x01 at character 2" },
    };
    struct acl *a;
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(acl_compile(bad[i][0], true, NULL, NULL, &a, &e), -1);
        assert_null(a);
        assert_int_equal(e.code, ERR_INVALID);
        if (strstr(e.text, bad[i][1]) == NULL)
            fail_msg("%s: %s", bad[i][0], e.text);
    }
}

static void test_long_lists(void **state)
{
    char *list = malloc(ACL_TEXT_MAX + 2);
    struct acl_verdict v;
    struct acl *a;
    struct err e;
    size_t n = 0;

    (void)state;
    for (int i = 0; i < ACL_EXPRESSIONS_MAX; i++)
        n += (size_t)sprintf(list + n, "%s^host%d\\.lab$", i > 0 ? " " : "", i);
    a = compile(list);
    acl_check(a, "host255.lab", "1.2.3.4", &v);
    assert_int_equal(v.expression, 255);
    acl_free(&a);
    strcpy(list + n, " ^x$");
    assert_int_equal(acl_compile(list, true, NULL, NULL, &a, &e), -1);
    assert_non_null(strstr(e.text, "more than 256 expressions"));

    memset(list, 'a', ACL_TEXT_MAX + 1);
    list[ACL_TEXT_MAX + 1] = '\0';
    assert_int_equal(acl_compile(list, true, NULL, NULL, &a, &e), -1);
    assert_non_null(strstr(e.text, "longer than 65536"));
    list[ACL_EXPRESSION_LEN] = '\0';
    assert_int_equal(acl_compile(list, true, NULL, NULL, &a, &e), -1);
    assert_non_null(strstr(e.text, "longer than 1023"));
    list[ACL_EXPRESSION_LEN - 1] = '\0';
    a = compile(list);
    acl_check(a, "a", "1.2.3.4", &v);
    assert_false(v.allowed);
    acl_free(&a);
    memset(list, ' ', ACL_TEXT_MAX);
    list[ACL_TEXT_MAX] = '\0';
    a = compile(list);
    assert_false(acl_admits_address(a, "1.2.3.4"));
    acl_free(&a);

    /* names of 255 and more characters */
    memset(list, 'a', 300);
    list[255] = '\0';
    a = compile("^a+$");
    acl_check(a, list, "1.2.3.4", &v);
    assert_true(v.allowed);
    list[255] = 'a';
    list[256] = '\0';
    acl_check(a, list, "1.2.3.4", &v);
    assert_false(v.allowed);
    acl_free(&a);
    free(list);
}

/* The worst that a configuration can do to one check stays bounded. */
static void test_worst_case(void **state)
{
    char list[ACL_EXPRESSIONS_MAX * 12 + 1] = "", name[ACL_NAME_LEN];
    struct timespec begin, end;
    struct acl_verdict v;
    struct acl *a;

    (void)state;
    for (int i = 0; i < ACL_EXPRESSIONS_MAX; i++)
        strcat(list, i > 0 ? " ^(a+)+$" : "^(a+)+$");
    memset(name, 'a', sizeof name);
    name[ACL_NAME_LEN - 1] = '\0';
    name[ACL_NAME_LEN - 2] = 'b';
    a = compile(list);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    acl_check(a, name, "1.2.3.4", &v);
    clock_gettime(CLOCK_MONOTONIC, &end);
    assert_false(v.allowed);
    assert_true(end.tv_sec - begin.tv_sec <= 3);
    acl_free(&a);
}

static void test_addresses(void **state)
{
    struct sockaddr_in6 six = { .sin6_family = AF_INET6 };
    struct sockaddr_in four = { .sin_family = AF_INET };
    struct sockaddr_storage other = { .ss_family = AF_UNIX };
    char text[128];

    (void)state;
    four.sin_addr.s_addr = htonl(0x0a000001);
    assert_int_equal(acl_address_text((struct sockaddr *)&four, text, sizeof text), 0);
    assert_string_equal(text, "10.0.0.1");
    inet_pton(AF_INET6, "::ffff:10.0.0.1", &six.sin6_addr);
    assert_int_equal(acl_address_text((struct sockaddr *)&six, text, sizeof text), 0);
    assert_string_equal(text, "10.0.0.1");
    inet_pton(AF_INET6, "fe80::1", &six.sin6_addr);
    six.sin6_scope_id = 1;
    assert_int_equal(acl_address_text((struct sockaddr *)&six, text, sizeof text), 0);
    assert_string_equal(text, "fe80::1%lo");
    six.sin6_scope_id = 4000000;
    assert_int_equal(acl_address_text((struct sockaddr *)&six, text, sizeof text), 0);
    assert_string_equal(text, "fe80::1%4000000");
    assert_int_equal(acl_address_text((struct sockaddr *)&other, text, sizeof text), -1);
}

static void test_resolve(void **state)
{
    struct sockaddr_in four = { .sin_family = AF_INET };
    struct sockaddr_storage other = { .ss_family = AF_UNIX };
    struct addrinfo hints = { .ai_family = AF_INET }, *list;
    char name[ACL_NAME_LEN], why[256];

    (void)state;
    assert_int_equal(
        acl_resolve((struct sockaddr *)&other, sizeof other, name, why, sizeof why), 0);
    assert_string_equal(name, "");
    assert_string_equal(why, "not an internet address");
    four.sin_addr.s_addr = htonl(0x7f000001);
    assert_int_equal(acl_resolve((struct sockaddr *)&four, 4, name, why, sizeof why), 0);
    assert_string_equal(why, "not an internet address");
    if (getaddrinfo("localhost", NULL, &hints, &list) != 0)
        skip(); /* a machine without even that name */
    freeaddrinfo(list);
    assert_int_equal(acl_resolve((struct sockaddr *)&four, sizeof four, name, why, sizeof why), 0);
    if (strncmp(name, "localhost", 9) != 0)
        fail_msg("127.0.0.1 is \"%s\" (%s)", name, why);
    assert_string_equal(why, "");
    assert_int_equal(acl_resolve((struct sockaddr *)&four, sizeof four, name, NULL, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches),
        cmocka_unit_test(test_explanations),
        cmocka_unit_test(test_suggestion_works),
        cmocka_unit_test(test_not_set),
        cmocka_unit_test(test_warnings),
        cmocka_unit_test(test_bad_lists),
        cmocka_unit_test(test_long_lists),
        cmocka_unit_test(test_worst_case),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_resolve),
    };
    struct err e;

    log_open("test_acl", "/dev/null", &e);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
