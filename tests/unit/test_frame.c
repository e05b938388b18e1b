/* SPDX-License-Identifier: ISC */
/* frame, digest: headers and runs of hostile peers; digests against known values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <sys/uio.h>

#include "hypervisor/hypervisor.h"
#include "transport/digest.h"
#include "transport/frame.h"

static const struct frame_header good = {
    .magic = FRAME_MAGIC,
    .version = FRAME_VERSION,
    .type = FRAME_PAGES,
    .round = 3,
    .runs = 2,
    .payload = 8192,
    .channel = 2,
    .seq = 9,
};

/* 1 MiB from 0, a hole, 16 MiB from 1 MiB up to 17 MiB, 1 MiB directly after it. */
static const struct hv_layout layout = {
    .n = 3,
    .region = { { 0, 160 }, { 256, 4096 }, { 4352, 256 } },
    .max_gfn = 4607,
};

static void a_good_header_passes(void **state)
{
    struct frame_header h = good;
    struct err e;

    (void)state;
    assert_int_equal(frame_check_header(&h, 2, 9, &e), 0);
    h.flags = FRAME_F_LIVE;
    assert_int_equal(frame_check_header(&h, 2, 9, &e), 0);
    h.flags = 0;
    h.type = FRAME_ROUND_END;
    h.runs = h.payload = 0;
    assert_int_equal(frame_check_header(&h, 2, 9, &e), 0);
    h.type = FRAME_END;
    assert_int_equal(frame_check_header(&h, 2, 9, NULL), 0);
}

#define BAD_HEADER(change)                                                                         \
    do {                                                                                           \
        struct frame_header h = good;                                                              \
        struct err e = { .code = ERR_NONE };                                                       \
        change;                                                                                    \
        assert_int_equal(frame_check_header(&h, 2, 9, &e), -1);                                    \
        assert_int_equal(e.code, ERR_PROTOCOL);                                                    \
        assert_true(e.text[0] != '\0');                                                            \
    } while (0)

static void bad_headers_are_refused(void **state)
{
    (void)state;
    BAD_HEADER(h.magic ^= 1);
    BAD_HEADER(h.magic = 0);
    BAD_HEADER(h.version = 2);
    BAD_HEADER(h.version = 0);
    BAD_HEADER(h.type = 0);
    BAD_HEADER(h.type = 4);
    BAD_HEADER(h.type = 255);
    BAD_HEADER(h.flags = 2);
    BAD_HEADER(h.flags = FRAME_F_LIVE | 0x8000);
    BAD_HEADER(h.type = FRAME_END; h.runs = h.payload = 0; h.flags = FRAME_F_LIVE);
    BAD_HEADER(h.reserved = UINT64_C(1) << 63);
    BAD_HEADER(h.channel = 1);
    BAD_HEADER(h.seq = 8);
    BAD_HEADER(h.seq = 10);
    BAD_HEADER(h.runs = 0);
    BAD_HEADER(h.runs = FRAME_RUNS_MAX + 1);
    BAD_HEADER(h.runs = UINT32_MAX);
    BAD_HEADER(h.payload = FRAME_PAYLOAD_MAX + 1);
    BAD_HEADER(h.payload = UINT32_MAX);
    BAD_HEADER(h.type = FRAME_ROUND_END);
    BAD_HEADER(h.type = FRAME_END; h.runs = 0);
    BAD_HEADER(h.type = FRAME_END; h.payload = 0);
}

static int check(const struct frame_run *runs, uint32_t n, uint32_t payload, struct err *e)
{
    struct frame_header h = good;

    h.runs = n;
    h.payload = payload;
    err_clear(e);
    return frame_check_runs(&h, runs, &layout, FRAME_EVERY, e);
}

static void good_runs_pass(void **state)
{
    struct err e;

    (void)state;
    assert_int_equal(
        check((struct frame_run[]){ { 0, 1, FRAME_RAW, 0, 4096, 0 } }, 1, 4096, &e), 0);
    assert_int_equal(
        check((struct frame_run[]){ { 0, 160, FRAME_ZERO, 0, 0, 0 },
                  { 256, 1023, FRAME_RAW, 0, 1023 * 4096, 0 }, { 4351, 1, FRAME_RAW, 0, 4096, 0 },
                  { 4352, 256, FRAME_ZERO, 0, 0, 0 } },
            4, 1024 * 4096, &e),
        0);
}

#define BAD_RUN(...)                                                                               \
    do {                                                                                           \
        struct frame_run r[] = { __VA_ARGS__ };                                                    \
        uint32_t sum = 0;                                                                          \
        struct err e;                                                                              \
        for (size_t i_ = 0; i_ < sizeof r / sizeof r[0]; i_++)                                     \
            sum += r[i_].length;                                                                   \
        assert_int_equal(check(r, sizeof r / sizeof r[0], sum, &e), -1);                           \
        assert_int_equal(e.code, ERR_PROTOCOL);                                                    \
    } while (0)

static void bad_runs_are_refused(void **state)
{
    (void)state;
    BAD_RUN({ 0, 0, FRAME_RAW, 0, 0, 0 });
    BAD_RUN({ 0, 1, FRAME_RAW, 1, 4096, 0 });
    BAD_RUN({ 0, 1, FRAME_RAW, 0, 4096, 1 });
    BAD_RUN({ 160, 1, FRAME_RAW, 0, 4096, 0 });        /* in the hole */
    BAD_RUN({ 159, 2, FRAME_RAW, 0, 8192, 0 });        /* half in the hole */
    BAD_RUN({ 255, 2, FRAME_RAW, 0, 8192, 0 });        /* from the hole */
    BAD_RUN({ 4351, 2, FRAME_RAW, 0, 8192, 0 });       /* across two regions */
    BAD_RUN({ 4607, 2, FRAME_RAW, 0, 8192, 0 });       /* over the end */
    BAD_RUN({ 4608, 1, FRAME_ZERO, 0, 0, 0 });         /* behind the end */
    BAD_RUN({ UINT64_MAX, 1, FRAME_RAW, 0, 4096, 0 }); /* sums that wrap */
    BAD_RUN({ UINT64_MAX - 1, 2, FRAME_ZERO, 0, 0, 0 });
    BAD_RUN({ 256, UINT32_MAX, FRAME_ZERO, 0, 0, 0 });
    BAD_RUN({ 256, 0x100001, FRAME_RAW, 0, 4096, 0 });    /* pages * 4096 wraps to 4096 */
    BAD_RUN({ 256, 1025, FRAME_RAW, 0, 1025 * 4096, 0 }); /* too many pages */
    BAD_RUN({ 256, 1024, FRAME_RAW, 0, 1024 * 4096, 0 }, { 1280, 1, FRAME_RAW, 0, 4096, 0 });
    BAD_RUN({ 0, 1, FRAME_RAW, 0, 4095, 0 });
    BAD_RUN({ 0, 1, FRAME_RAW, 0, 0, 0 });
    BAD_RUN({ 0, 1, FRAME_ZERO, 0, 1, 0 });
    BAD_RUN({ 0, 1, 5, 0, 4096, 0 });
    BAD_RUN({ 0, 1, 65535, 0, 0, 0 });
    BAD_RUN({ 5, 1, FRAME_RAW, 0, 4096, 0 }, { 5, 1, FRAME_RAW, 0, 4096, 0 }); /* twice */
    BAD_RUN({ 5, 2, FRAME_ZERO, 0, 0, 0 }, { 6, 1, FRAME_RAW, 0, 4096, 0 });   /* overlap */
    BAD_RUN({ 300, 1, FRAME_RAW, 0, 4096, 0 }, { 5, 1, FRAME_RAW, 0, 4096, 0 });
}

static void bad_encoded_runs_are_refused(void **state)
{
    (void)state;
    BAD_RUN({ 0, 1, FRAME_LZ4, 0, 0, 0 });
    BAD_RUN({ 0, 1, FRAME_ZSTD, 0, 0, 0 });
    BAD_RUN({ 0, 1, FRAME_LZ4, 0, 4096, 0 }); /* no shorter than raw */
    BAD_RUN({ 0, 1, FRAME_ZSTD, 0, 4096, 0 });
    BAD_RUN({ 0, 1, FRAME_DELTA, 0, 4096, 0 });
    BAD_RUN({ 0, 16, FRAME_LZ4, 0, 16 * 4096, 0 });
    BAD_RUN({ 0, 17, FRAME_LZ4, 0, 100, 0 }); /* too many pages */
    BAD_RUN({ 0, 17, FRAME_ZSTD, 0, 100, 0 });
    BAD_RUN({ 256, 0x10000001, FRAME_LZ4, 0, 100, 0 });
    BAD_RUN({ 0, 2, FRAME_DELTA, 0, 19, 0 }); /* less than two heads */
    BAD_RUN({ 0, 1, FRAME_DELTA, 0, 0, 0 });
    BAD_RUN({ 256, 1025, FRAME_DELTA, 0, 20000, 0 });
    BAD_RUN({ 256, 0x1999999a, FRAME_DELTA, 0, 100, 0 }); /* pages * 10 wraps */
    BAD_RUN({ 256, 1024, FRAME_DELTA, 0, 10240, 0 }, { 1280, 1, FRAME_LZ4, 0, 10, 0 });
}

static void encodings_must_be_agreed_on(void **state)
{
    const struct frame_run runs[] = { { 0, 1, FRAME_RAW, 0, 4096, 0 },
        { 1, 1, FRAME_ZERO, 0, 0, 0 }, { 2, 16, FRAME_LZ4, 0, 1, 0 },
        { 2, 16, FRAME_ZSTD, 0, 65535, 0 }, { 2, 2, FRAME_DELTA, 0, 20, 0 } };
    struct frame_header h = good;
    struct err e;

    (void)state;
    h.runs = 1;
    for (unsigned i = 0; i < FRAME_ENCODINGS; i++) {
        bool plain = i == FRAME_RAW || i == FRAME_ZERO;

        h.payload = runs[i].length;
        assert_int_equal(frame_check_runs(&h, &runs[i], &layout, 1u << i, &e), 0);
        assert_int_equal(
            frame_check_runs(&h, &runs[i], &layout, FRAME_EVERY & ~(1u << i), &e), plain ? 0 : -1);
        assert_int_equal(frame_check_runs(&h, &runs[i], &layout, 0, &e), plain ? 0 : -1);
    }
}

static void the_payload_is_the_sum_of_the_runs(void **state)
{
    struct frame_run r = { 0, 1, FRAME_RAW, 0, 4096, 0 };
    struct err e;

    (void)state;
    assert_int_equal(check(&r, 1, 4095, &e), -1);
    assert_int_equal(check(&r, 1, 4097, &e), -1);
    assert_int_equal(check(&r, 1, 0, &e), -1);
}

static void pages_keep_to_their_channel(void **state)
{
    struct frame_header h = good;
    struct frame_run r[2] = { { 512, 512, FRAME_ZERO, 0, 0, 0 },
        { 2560, 1, FRAME_RAW, 0, 4096, 0 } };
    struct err e;

    (void)state;
    assert_int_equal(frame_channel_of(0, 4), 1);
    assert_int_equal(frame_channel_of(511, 4), 1);
    assert_int_equal(frame_channel_of(512, 4), 2);
    assert_int_equal(frame_channel_of(2048, 4), 1);
    assert_int_equal(frame_channel_of(UINT64_MAX, 1), 1);
    assert_int_equal(frame_check_channel(&h, r, 4, &e), 0);
    assert_int_equal(frame_check_channel(&h, r, 3, &e), -1); /* 2560 / 512 % 3 */
    r[0].pages = 513;
    assert_int_equal(frame_check_channel(&h, r, 4, &e), -1);
    assert_int_equal(frame_check_channel(&h, r, 1, &e), 0);
    h.channel = 1;
    r[0].pages = 1;
    assert_int_equal(frame_check_channel(&h, r, 4, &e), -1);
}

static void digests_have_known_values(void **state)
{
    struct iovec v[3] = { { (void *)"ab", 2 }, { NULL, 0 }, { (void *)"c", 1 } };
    uint64_t d[2] = { 0, 0 }, low, high;

    (void)state;
    /* XXH3-64 of "" and "abc", XXH3-128 of "abc", from the reference implementation's xxhsum */
    assert_true(frame_digest(NULL, 0) == UINT64_C(0x2d06800538d394c2));
    assert_true(frame_digest(v, 3) == UINT64_C(0x78af5f94892f3950));
    tr_digest_memory("abc", 3, &low, &high);
    assert_true(high == UINT64_C(0x06b05ab6733a6185) && low == UINT64_C(0x78af5f94892f3950));
    assert_true(tr_digest_fold(d, 2) == 0);
    d[0] = UINT64_C(1) << 63;
    d[1] = 1;
    assert_true(tr_digest_fold(d, 2) == (1 ^ 4));
}

static void the_fold_sees_order_and_channel(void **state)
{
    uint64_t ab = 0, ba = 0, d[2], swapped[2];

    (void)state;
    tr_digest_add(&ab, 1);
    tr_digest_add(&ab, 2);
    tr_digest_add(&ba, 2);
    tr_digest_add(&ba, 1);
    assert_true(ab != ba);
    d[0] = swapped[1] = ab;
    d[1] = swapped[0] = ba;
    assert_true(tr_digest_fold(d, 2) != tr_digest_fold(swapped, 2));
    d[1] = ab;
    assert_true(tr_digest_fold(d, 2) != 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_header_passes),
        cmocka_unit_test(bad_headers_are_refused),
        cmocka_unit_test(good_runs_pass),
        cmocka_unit_test(bad_runs_are_refused),
        cmocka_unit_test(bad_encoded_runs_are_refused),
        cmocka_unit_test(encodings_must_be_agreed_on),
        cmocka_unit_test(the_payload_is_the_sum_of_the_runs),
        cmocka_unit_test(pages_keep_to_their_channel),
        cmocka_unit_test(digests_have_known_values),
        cmocka_unit_test(the_fold_sees_order_and_channel),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
