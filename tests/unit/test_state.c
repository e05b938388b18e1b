/* SPDX-License-Identifier: ISC */
/* hypervisor/xvm/state.c: what is written is read back; no hostile blob gets out of bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hypervisor/hypervisor.h"
#include "hypervisor/xvm/state.h"

#define HEAD 12

/* Two sections: "a" with a u32 and a u64, "serial0" with three bytes. */
static uint8_t *sample(size_t *len)
{
    struct state_writer w;
    uint8_t *blob;
    struct err e;

    state_writer_init(&w);
    state_section_begin(&w, "a", 7);
    state_put_u32(&w, 0x01020304);
    state_put_u64(&w, UINT64_C(0x1122334455667788));
    state_section_end(&w);
    state_section_begin(&w, "serial0", 1);
    state_put(&w, "xyz", 3);
    state_section_end(&w);
    assert_int_equal(state_finish(&w, &blob, len, &e), 0);
    return blob;
}

static void round_trip(void **state)
{
    struct state_blob *b;
    struct state_reader r;
    struct err e;
    uint32_t v32;
    uint64_t v64;
    char text[3];
    size_t len;
    uint8_t *blob = sample(&len);

    (void)state;
    assert_int_equal(state_parse(blob, len, &b, &e), 0);
    assert_int_equal(state_open(b, "serial0", &r, &e), 0); /* any order */
    assert_int_equal(state_get(&r, text, 3, &e), 0);
    assert_memory_equal(text, "xyz", 3);
    assert_int_equal(state_end(&r, &e), 0);
    assert_int_equal(state_all_taken(b, &e), -1);
    assert_non_null(strstr(e.text, "section a "));
    assert_int_equal(state_open(b, "a", &r, &e), 0);
    assert_int_equal(r.version, 7);
    assert_int_equal(state_get_u32(&r, &v32, &e), 0);
    assert_int_equal(state_end(&r, &e), -1);
    assert_int_equal(state_get_u64(&r, &v64, &e), 0);
    assert_int_equal(v32, 0x01020304);
    assert_true(v64 == UINT64_C(0x1122334455667788));
    assert_int_equal(state_end(&r, &e), 0);
    assert_int_equal(state_all_taken(b, &e), 0);
    state_blob_free(&b);
    assert_null(b);
    free(blob);
}

static void readers_stay_inside(void **state)
{
    struct state_blob *b;
    struct state_reader r;
    struct err e;
    uint8_t buf[64];
    size_t len;
    uint8_t *blob = sample(&len);

    (void)state;
    assert_int_equal(state_parse(blob, len, &b, &e), 0);
    assert_int_equal(state_open(b, "serial0", &r, &e), 0);
    assert_int_equal(state_get(&r, buf, 4, &e), -1);
    assert_int_equal(e.code, ERR_PROTOCOL);
    assert_int_equal(state_get(&r, buf, 3, &e), 0);
    assert_int_equal(state_get_u64(&r, &(uint64_t){ 0 }, &e), -1);
    assert_int_equal(state_open(b, "nothing", &r, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, "nothing"));
    state_blob_free(&b);
    free(blob);
}

static void bad_heads(void **state)
{
    static const uint8_t newer[HEAD] = "XVMSTATE\2";
    struct state_blob *b;
    struct err e;

    (void)state;
    assert_int_equal(state_parse((const uint8_t *)"", 0, &b, &e), -1);
    assert_int_equal(state_parse((const uint8_t *)"XVMSTATE", 8, &b, &e), -1);
    assert_int_equal(state_parse((const uint8_t *)"XVMSTATX\1\0\0", HEAD, &b, &e), -1);
    assert_int_equal(state_parse(newer, HEAD, &b, &e), -1);
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    assert_null(b);
}

/* Every prefix of a good blob is either refused or a shorter good blob. */
static void truncated(void **state)
{
    struct state_blob *b;
    struct err e;
    size_t len, good = 0;
    uint8_t *blob = sample(&len);

    (void)state;
    for (size_t n = 0; n < len; n++) {
        uint8_t *copy = malloc(n + 1);

        assert_non_null(copy);
        memcpy(copy, blob, n);
        if (state_parse(copy, n, &b, &e) == 0) {
            good++;
            state_blob_free(&b);
        }
        free(copy);
    }
    assert_int_equal(good, 2); /* no section; only the first */
    free(blob);
}

static void append(uint8_t *p, size_t *at, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        p[(*at)++] = (uint8_t)(v >> (8 * i));
}

static size_t one_section(uint8_t *p, const char *name, size_t name_len, uint32_t body)
{
    size_t at = 0;

    memcpy(p, "XVMSTATE\1\0\0", HEAD);
    at = HEAD;
    append(p, &at, name_len, 2);
    memcpy(p + at, name, strlen(name));
    at += strlen(name);
    append(p, &at, 1, 4);
    append(p, &at, body, 4);
    return at;
}

static void hostile_sections(void **state)
{
    uint8_t p[256];
    struct state_blob *b;
    struct err e;
    size_t n;

    (void)state;
    n = one_section(p, "cpu", 3, 0xffffffff);
    assert_int_equal(state_parse(p, n, &b, &e), -1);
    assert_non_null(strstr(e.text, "cpu"));
    n = one_section(p, "cpu", 0xffff, 0);
    assert_int_equal(state_parse(p, n, &b, &e), -1);
    n = one_section(p, "", 0, 0);
    assert_int_equal(state_parse(p, n, &b, &e), -1);
    n = one_section(p, "../etc", 6, 0);
    assert_int_equal(state_parse(p, n, &b, &e), -1);
    n = one_section(p, "a\nb", 3, 0);
    assert_int_equal(state_parse(p, n, &b, &e), -1);
    n = one_section(p, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 36, 0);
    assert_int_equal(state_parse(p, n, &b, &e), -1);
    n = one_section(p, "cpu", 3, 0);
    memcpy(p + n, p + HEAD, n - HEAD); /* the same again */
    assert_int_equal(state_parse(p, 2 * n - HEAD, &b, &e), -1);
    assert_non_null(strstr(e.text, "twice"));
}

static void too_many_sections(void **state)
{
    struct state_writer w;
    struct state_blob *b;
    struct err e;
    uint8_t *blob;
    size_t len;

    (void)state;
    state_writer_init(&w);
    for (unsigned i = 0; i < 400; i++) {
        char name[8] = { 's', (char)('a' + i / 26 / 26), (char)('a' + i / 26 % 26),
            (char)('a' + i % 26) };

        state_section_begin(&w, name, 1);
        state_section_end(&w);
    }
    assert_int_equal(state_finish(&w, &blob, &len, &e), 0);
    assert_int_equal(state_parse(blob, len, &b, &e), -1);
    assert_int_equal(e.code, ERR_PROTOCOL);
    free(blob);
}

/* Misuse and excess show at the end, once. */
static void writer_fails_late(void **state)
{
    struct state_writer w;
    struct err e;
    uint8_t *blob;
    size_t len;

    (void)state;
    state_writer_init(&w);
    state_section_begin(&w, "open", 1);
    assert_int_equal(state_finish(&w, &blob, &len, &e), -1);
    assert_null(blob);
    state_writer_init(&w);
    state_section_begin(&w, "Bad Name", 1);
    assert_int_equal(state_finish(&w, &blob, &len, &e), -1);
    state_writer_init(&w);
    state_put(&w, "", HV_STATE_MAX); /* too long: must not be read */
    assert_int_equal(state_finish(&w, &blob, &len, &e), -1);
    state_writer_dispose(&w);
    state_writer_dispose(&w);
}

/* Random damage: the parser and the readers never leave the blob (the sanitizers watch). */
static void random_damage(void **state)
{
    size_t len;
    uint8_t *blob = sample(&len);

    (void)state;
    srand(1);
    for (unsigned i = 0; i < 20000; i++) {
        uint8_t *copy = malloc(len);
        struct state_blob *b;
        struct state_reader r;
        struct err e;
        uint64_t v;

        assert_non_null(copy);
        memcpy(copy, blob, len);
        for (unsigned k = 0; k < 1 + i % 4; k++)
            copy[HEAD + (size_t)rand() % (len - HEAD)] = (uint8_t)rand();
        if (state_parse(copy, len, &b, &e) == 0) {
            if (state_open(b, "a", &r, &e) == 0)
                while (state_get_u64(&r, &v, &e) == 0)
                    ;
            state_blob_free(&b);
        }
        free(copy);
    }
    free(blob);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(readers_stay_inside),
        cmocka_unit_test(bad_heads),
        cmocka_unit_test(truncated),
        cmocka_unit_test(hostile_sections),
        cmocka_unit_test(too_many_sections),
        cmocka_unit_test(writer_fails_late),
        cmocka_unit_test(random_damage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
