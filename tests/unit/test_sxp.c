/* SPDX-License-Identifier: ISC */
/* S-expressions as xend wrote them: quoting, escapes, comments, limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/sxp.h"

static struct sxp *parse(const char *text, struct err *e)
{
    return sxp_parse(text, strlen(text), "f", e);
}

static void test_strings(void **state)
{
    static const struct {
        const char *text, *value;
        bool odd;
    } cases[] = {
        { "(k v)", "v", false },
        { "(k)", "", false },
        { "(k 'a b')", "a b", false },
        { "(k \"a b\")", "a b", false },
        { "(k 'it\\'s')", "it's", false },
        { "(k \"it's\")", "it's", false },
        { "(k 'a\\\\.b')", "a\\.b", false },
        { "(k 'a\\.b')", "a\\.b", true },
        { "(k 'a\\$')", "a\\$", true },
        { "(k '\\x41\\102\\7')", "AB\a", false },
        { "(k '\\x4g')", "\004g", false },
        { "(k '\\t\\n')", "\t\n", false },
        { "(k '#not a comment')", "#not a comment", false },
        { "(k v)#c", "v", false },
        { "( k\n v#c\n)", "v", false },
        { "(k '')", "", false },
        { "(k 10.0.0.1/8)", "10.0.0.1/8", false },
        { "(k !x)", "!x", false },
        { "(k '(')", "(", false },
        { "(k \xc3\xa4)", "\xc3\xa4", false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err e;
        struct sxp *s = parse(cases[i].text, &e);
        const char *name = NULL, *value;
        const struct sxp *v;

        if (s == NULL)
            fail_msg("%s: %s", cases[i].text, e.text);
        value = sxp_pair(sxp_at(s, 0), &name);
        assert_string_equal(name, "k");
        assert_non_null(value);
        assert_string_equal(value, cases[i].value);
        v = sxp_at(sxp_at(s, 0), 1);
        assert_int_equal(v != NULL && v->odd_escape, cases[i].odd);
        sxp_free(&s);
        assert_null(s);
    }
}

static void test_trees(void **state)
{
    struct err e;
    struct sxp *s = parse("a\n(b (c d) ())\n(e f g)", &e);
    const char *name;

    (void)state;
    assert_non_null(s);
    assert_string_equal(sxp_at(s, 0)->text, "a");
    assert_int_equal(sxp_at(s, 1)->line, 2);
    assert_string_equal(sxp_at(sxp_at(sxp_at(s, 1), 1), 1)->text, "d");
    assert_null(sxp_at(sxp_at(sxp_at(s, 1), 2), 0));
    assert_null(sxp_at(s, 3));
    assert_null(sxp_pair(sxp_at(s, 0), &name));
    assert_null(sxp_pair(sxp_at(s, 1), &name));
    assert_null(sxp_pair(sxp_at(s, 2), &name));
    assert_null(sxp_pair(NULL, &name));
    sxp_free(&s);
    s = parse("", &e);
    assert_non_null(s);
    assert_null(s->first);
    sxp_free(&s);
}

static void test_bad(void **state)
{
    static const char *const bad[][2] = {
        { "(a", "f:1: list without its closing" },
        { "\n(a\n(b)", "f:2: list without" },
        { "a)", "f:1: ')' without '('" },
        { "\n'abc\n", "f:2: string without" },
        { "'abc\\", "f:1: string without" },
        { "'\\x'", "escape in a string" },
        { "'\\0'", "escape in a string" },
        { "'\\777'", "escape in a string" },
        { "\001", "control character" },
    };
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_null(parse(bad[i][0], &e));
        if (strstr(e.text, bad[i][1]) == NULL)
            fail_msg("%s: %s", bad[i][0], e.text);
    }
    assert_null(sxp_parse("'a\0b'", 5, "f", &e));
    assert_null(sxp_parse("a\0b", 3, "f", &e));
}

static void test_limits(void **state)
{
    char *big = malloc(SXP_TEXT_MAX + 1);
    struct sxp *s;
    struct err e;

    (void)state;
    memset(big, '(', SXP_TEXT_MAX + 1);
    assert_null(sxp_parse(big, 100, "f", &e));
    assert_non_null(strstr(e.text, "nested too deeply"));
    assert_null(sxp_parse(big, SXP_TEXT_MAX + 1, "f", &e));
    assert_non_null(strstr(e.text, "larger than"));
    for (size_t i = 0; i < SXP_TEXT_MAX; i++)
        big[i] = i % 2 ? ' ' : 'a';
    assert_null(sxp_parse(big, SXP_TEXT_MAX, "f", &e));
    assert_non_null(strstr(e.text, "too many elements"));
    s = sxp_parse(big, SXP_NODES_MAX * 2, "f", &e);
    assert_non_null(s);
    sxp_free(&s);
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_trees),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
