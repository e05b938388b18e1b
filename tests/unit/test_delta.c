/* SPDX-License-Identifier: ISC */
/* Scans, deltas and their cache. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>

#include "precopy/delta.h"

#define PAGE SCAN_PAGE

static _Alignas(4096) uint8_t a[PAGE], b[PAGE], c[PAGE];
static uint8_t out[DELTA_WORTH];

static uint64_t rng = 1;

static uint64_t chance(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static void fill(uint8_t *page)
{
    for (unsigned i = 0; i < PAGE; i++)
        page[i] = (uint8_t)chance();
}

static void check_scans(const struct scan_ops *ops)
{
    uint64_t mask[SCAN_MASK];
    bool zero;

    memset(a, 0, PAGE);
    assert_true(ops->is_zero(a));
    for (unsigned i = 0; i < PAGE; i++) {
        a[i] = 0x80;
        assert_false(ops->is_zero(a));
        memset(b, 0, PAGE);
        ops->replace(b, a, mask, &zero);
        assert_false(zero);
        assert_memory_equal(a, b, PAGE);
        for (unsigned w = 0; w < SCAN_WORDS; w++)
            assert_int_equal(mask[w / 64] >> (w % 64) & 1, w == i / 8);
        a[i] = 0;
    }
    ops->replace(b, a, mask, &zero);
    assert_true(zero);
    ops->replace(b, a, mask, &zero);
    assert_true(zero);
    for (unsigned i = 0; i < SCAN_MASK; i++)
        assert_int_equal(mask[i], 0);
}

static void scans_see_every_byte(void **state)
{
    (void)state;
    check_scans(&scan_portable);
    if (scan_avx2() == NULL)
        print_message("    no AVX2 here: only the portable scans were tested\n");
    else
        check_scans(scan_avx2());
    assert_ptr_equal(scan, scan_avx2() != NULL ? scan_avx2() : &scan_portable);
}

static void both_scans_agree(void **state)
{
    uint64_t m1[SCAN_MASK], m2[SCAN_MASK];
    bool z1, z2;

    (void)state;
    if (scan_avx2() == NULL)
        skip();
    for (int i = 0; i < 2000; i++) {
        fill(a);
        memcpy(b, a, PAGE);
        for (uint64_t n = chance() % 40; n > 0; n--)
            b[chance() % PAGE] = (uint8_t)chance();
        memcpy(c, b, PAGE);
        scan_portable.replace(b, a, m1, &z1);
        scan_avx2()->replace(c, a, m2, &z2);
        assert_memory_equal(m1, m2, sizeof m1);
        assert_memory_equal(b, c, PAGE);
        assert_int_equal(z1, z2);
    }
}

/* Changes words of a page at random, and brings a copy of the old one up to date by the delta. */
static void round_trip(unsigned changes, bool must_fit)
{
    uint64_t mask[SCAN_MASK], base;
    struct err e;
    size_t len;
    bool zero;

    fill(a);
    memcpy(b, a, PAGE); /* the sender's copy */
    memcpy(c, a, PAGE); /* the receiver's page */
    for (unsigned i = 0; i < changes; i++)
        a[chance() % PAGE] ^= (uint8_t)chance();
    base = delta_digest(b);
    scan->replace(b, a, mask, &zero);
    len = delta_encode(out, b, mask, base);
    if (must_fit)
        assert_in_range(len, DELTA_HEAD, DELTA_WORTH);
    if (len == 0)
        return;
    assert_int_equal(delta_apply(c, out, len, &e), len);
    assert_memory_equal(c, a, PAGE);
}

static void deltas_come_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3000; i++)
        round_trip(i / 10, i < 1500);
}

static void long_and_short_deltas(void **state)
{
    uint64_t none[SCAN_MASK] = { 0 }, all[SCAN_MASK], long_run[SCAN_MASK] = { 0 };
    struct err e;

    (void)state;
    fill(a);
    memcpy(b, a, PAGE);
    memset(all, 0xff, sizeof all);
    assert_int_equal(delta_encode(out, a, none, delta_digest(a)), DELTA_HEAD);
    assert_int_equal(delta_apply(b, out, DELTA_HEAD, &e), DELTA_HEAD);
    assert_int_equal(delta_encode(out, a, all, 0), 0);
    for (unsigned i = 60; i < 360; i++)
        long_run[i / 64] |= UINT64_C(1) << (i % 64);
    memset(b + 60 * 8, 0, 300 * 8);
    assert_int_equal(delta_encode(out, a, long_run, delta_digest(b)), DELTA_HEAD + 3 * 2 + 300 * 8);
    assert_true(delta_apply(b, out, sizeof out, &e) > 0);
    assert_memory_equal(a, b, PAGE);
}

/* A delta with this body for page a. */
static int apply(const uint8_t *body, size_t len, size_t said, enum err_code *code)
{
    uint8_t in[256];
    uint64_t base = delta_digest(a);
    struct err e = { 0 };
    uint8_t *exact;
    int r;

    memcpy(in, &base, 8);
    in[8] = (uint8_t)said;
    in[9] = (uint8_t)(said >> 8);
    memcpy(in + DELTA_HEAD, body, len);
    exact = malloc(DELTA_HEAD + len); /* so that the sanitizer sees a read behind the end */
    memcpy(exact, in, DELTA_HEAD + len);
    memcpy(b, a, PAGE);
    r = delta_apply(b, exact, DELTA_HEAD + len, &e);
    free(exact);
    *code = e.code;
    return r;
}

#define BAD_BODY(said, ...)                                                                        \
    do {                                                                                           \
        const uint8_t body[] = { __VA_ARGS__ };                                                    \
        enum err_code why;                                                                         \
                                                                                                   \
        assert_int_equal(apply(body, sizeof body, said, &why), -1);                                \
        assert_int_equal(why, ERR_PROTOCOL);                                                       \
    } while (0)

static void malformed_deltas_are_refused(void **state)
{
    static const uint8_t good[] = { 0xff, 0x01, 1, 2, 3, 4, 5, 6, 7, 8 };
    enum err_code code;
    struct err e;

    (void)state;
    fill(a);
    assert_int_equal(apply(good, sizeof good, sizeof good, &code), DELTA_HEAD + 10);
    assert_memory_equal(b + 4088, good + 2, 8);
    BAD_BODY(1, 0);                         /* half a head */
    BAD_BODY(2, 0, 0);                      /* no words */
    BAD_BODY(9, 0, 0, 1, 2, 3, 4, 5, 6, 7); /* seven bytes of eight */
    BAD_BODY(11, 0xff, 0x01, 1, 2, 3, 4, 5, 6, 7, 8, 0);
    BAD_BODY(18, 0xff, 0x03, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8); /* two from 511 */
    BAD_BODY(20, 5, 0, 1, 2, 3, 4, 5, 6, 7, 8, 5, 0, 1, 2, 3, 4, 5, 6, 7, 8); /* word 5 twice */
    BAD_BODY(20, 5, 0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 0, 1, 2, 3, 4, 5, 6, 7, 8); /* backwards */
    BAD_BODY(11, 5, 0, 1, 2, 3, 4, 5, 6, 7, 8); /* says more than there is */
    BAD_BODY(65535, 5, 0, 1, 2, 3, 4, 5, 6, 7, 8);
    for (size_t n = 0; n < DELTA_HEAD; n++)
        assert_int_equal(delta_apply(b, good, n, &e), -1);
}

static void another_base_is_refused(void **state)
{
    uint64_t mask[SCAN_MASK] = { 1 };
    struct err e;
    size_t len;

    (void)state;
    fill(a);
    memcpy(b, a, PAGE);
    b[4095] ^= 1;
    memcpy(c, b, PAGE);
    len = delta_encode(out, a, mask, delta_digest(a));
    assert_int_equal(delta_apply(b, out, len, &e), -1);
    assert_int_equal(e.code, ERR_INTEGRITY);
    assert_memory_equal(b, c, PAGE); /* and left alone */
}

/* --- the cache --- */

static void a_cache_knows_its_pages(void **state)
{
    struct delta_cache *k = delta_cache_new(64 * PAGE, 1);
    uint8_t *p;

    (void)state;
    assert_null(delta_cache_find(k, 5, 1));
    p = delta_cache_admit(k, 5, 1);
    assert_non_null(p);
    memset(p, 7, PAGE);
    assert_ptr_equal(delta_cache_find(k, 5, 2), p);
    assert_null(delta_cache_find(k, 5 + 8, 2)); /* the same set */
    delta_cache_drop(k, 5);
    delta_cache_drop(k, 6);
    assert_null(delta_cache_find(k, 5, 2));
    for (uint64_t g = 0; g < 64; g++)
        assert_non_null(delta_cache_admit(k, g, 3));
    assert_null(delta_cache_admit(k, 64, 3));
    assert_null(delta_cache_admit(k, 64, 4));
    delta_cache_free(&k);
    assert_null(k);
}

static void a_channel_uses_all_of_its_cache(void **state)
{
    struct delta_cache *k = delta_cache_new(1024 * PAGE, 4);
    unsigned n = 0;

    (void)state;
    for (uint64_t g = 512; g < 4096; g++) /* of channel 2: two blocks */
        if (g / 512 % 4 == 1)
            n += delta_cache_admit(k, g, 1) != NULL;
    assert_int_equal(n, 1024);
    delta_cache_free(&k);
}

/* Hits per page when `pages` are written in turn, `part` of them in each round. */
static double cyclic(uint64_t cache, uint64_t pages, uint64_t part)
{
    struct delta_cache *k = delta_cache_new(cache * PAGE, 1);
    unsigned hits = 0, seen = 0;
    uint64_t g = 0;

    for (uint32_t round = 1; round < 60; round++)
        for (uint64_t i = 0; i < part; i++, g = (g + 1) % pages) {
            bool hit = delta_cache_find(k, g, round) != NULL;

            if (!hit)
                delta_cache_admit(k, g, round);
            hits += round > 30 && hit;
            seen += round > 30;
        }
    delta_cache_free(&k);
    return (double)hits / seen;
}

static void a_cyclic_writer_does_not_thrash(void **state)
{
    (void)state;
    assert_true(cyclic(1024, 1024, 1024) == 1.0);
    assert_true(cyclic(1024, 2048, 2048) > 0.49); /* half of it is in, and stays */
    assert_true(cyclic(1024, 4096, 4096) > 0.24);
    assert_true(cyclic(1024, 4096, 1024) > 0.15); /* its turn comes every fourth round */
}

static void old_pages_make_room(void **state)
{
    struct delta_cache *k = delta_cache_new(1024 * PAGE, 1);
    unsigned in = 0;

    (void)state;
    for (uint64_t g = 0; g < 1024; g++)
        delta_cache_admit(k, g, 1);
    for (uint32_t round = 2; round < 40; round++)
        for (uint64_t g = 4096; g < 4096 + 512; g++)
            if (delta_cache_find(k, g, round) == NULL)
                delta_cache_admit(k, g, round);
    for (uint64_t g = 4096; g < 4096 + 512; g++)
        in += delta_cache_find(k, g, 40) != NULL;
    assert_int_equal(in, 512);
    delta_cache_free(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scans_see_every_byte),
        cmocka_unit_test(both_scans_agree),
        cmocka_unit_test(deltas_come_back),
        cmocka_unit_test(long_and_short_deltas),
        cmocka_unit_test(malformed_deltas_are_refused),
        cmocka_unit_test(another_base_is_refused),
        cmocka_unit_test(a_cache_knows_its_pages),
        cmocka_unit_test(a_channel_uses_all_of_its_cache),
        cmocka_unit_test(a_cyclic_writer_does_not_thrash),
        cmocka_unit_test(old_pages_make_room),
    };

    return cmocka_run_group_tests_name("delta", tests, NULL, NULL);
}
