/* SPDX-License-Identifier: ISC */
/* The stream of a PV guest: its end is found however it is cut, and what is none is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hypervisor/xen_pvstream.h"

static const uint8_t image[24] = { 255, 255, 255, 255, 255, 255, 255, 255, 'X', 'E', 'N', 'F', 0, 0,
    0, 3 };
static const uint8_t domain[16] = { 1, 0, 0, 0, 12, 0, 0, 0, 4, 0, 0, 0, 17, 0, 0, 0 };

struct bytes {
    size_t len;
    uint8_t at[512];
};

static void put(struct bytes *b, const void *p, size_t len)
{
    memcpy(b->at + b->len, p, len);
    b->len += len;
}

static void put_record(struct bytes *b, uint32_t type, uint32_t len, size_t body)
{
    static const uint8_t text[64] = { 1, 2, 3 };

    put(b, &type, sizeof type);
    put(b, &len, sizeof len);
    put(b, text, body);
}

static struct bytes sample(void)
{
    struct bytes b = { .len = 0 };

    put(&b, image, sizeof image);
    put(&b, domain, sizeof domain);
    put_record(&b, 16, 0, 0);
    put_record(&b, 1, 13, 16);
    put_record(&b, 7, 32, 32);
    put_record(&b, 0, 0, 0);
    return b;
}

/* Where it ends, fed in pieces; -1 refused. */
static int64_t walk(const struct bytes *b, size_t piece, struct err *e)
{
    struct xen_pvstream s = { .ended = false };
    size_t at = 0;

    while (at < b->len && !s.ended) {
        size_t n = b->len - at < piece ? b->len - at : piece;
        int64_t took = xen_pvstream_take(&s, b->at + at, n, e);

        if (took < 0)
            return -1;
        assert_true(s.ended || (size_t)took == n);
        at += (size_t)took;
    }
    assert_int_equal(s.length, at);
    return s.ended ? (int64_t)at : -2;
}

static void ends(void **state)
{
    struct bytes b = sample();
    size_t len = b.len;
    struct err e;

    (void)state;
    for (size_t piece = 1; piece < len + 9; piece++)
        assert_int_equal(walk(&b, piece, &e), len);
    put(&b, "rest", 4);
    for (size_t piece = 1; piece < len + 9; piece++)
        assert_int_equal(walk(&b, piece, &e), len);
}

static void is_cut(void **state)
{
    struct bytes b = sample();
    struct err e;

    (void)state;
    while (b.len-- > 0)
        assert_int_equal(walk(&b, 7, &e), -2);
}

static void refused(struct bytes b, size_t at, uint8_t value, const char *names)
{
    struct err e = { 0 };

    b.at[at] = value;
    assert_int_equal(walk(&b, 5, &e), -1);
    assert_non_null(strstr(e.text, names));
}

static void is_none(void **state)
{
    struct bytes b = sample();

    (void)state;
    refused(b, 0, 0, "does not begin");
    refused(b, 8, 'x', "does not begin");
    refused(b, 15, 4, "version 4");
    refused(b, 17, 1, "options 0x1");
    refused(b, 24, 2, "type 2");
    refused(b, 28, 13, "page shift 13");
    refused(b, 40, 9, "type 0x9");    /* an HVM guest's */
    refused(b, 40, 14, "type 0xe");   /* a checkpoint */
    refused(b, 43, 0x80, "type 0x8"); /* may be left out */
    refused(b, 48 + 7, 2, "PAGE_DATA of the guest's stream is 33554445 bytes");
    refused(b, b.len - 4, 8, "END of the guest's stream is 8 bytes");
}

static void state_behind(void **state)
{
    const struct xen_pvstate s = { .vcpus = 3, .length = UINT64_C(0x123456789a) };
    uint8_t bytes[XEN_PVSTREAM_STATE_LEN + 1] = { 0 };
    struct xen_pvstate back;
    struct err e;

    (void)state;
    xen_pvstate_pack(&s, bytes);
    assert_int_equal(xen_pvstate_parse(bytes, XEN_PVSTREAM_STATE_LEN, &back, &e), 0);
    assert_int_equal(back.vcpus, 3);
    assert_int_equal(back.length, s.length);
    assert_int_equal(xen_pvstate_parse(bytes, XEN_PVSTREAM_STATE_LEN + 1, &back, &e), -1);
    assert_int_equal(xen_pvstate_parse(bytes, XEN_PVSTREAM_STATE_LEN - 1, &back, &e), -1);
    bytes[8] = 2;
    assert_int_equal(xen_pvstate_parse(bytes, XEN_PVSTREAM_STATE_LEN, &back, &e), -1);
    assert_non_null(strstr(e.text, "version 2"));
    bytes[0] = 'x';
    assert_int_equal(xen_pvstate_parse(bytes, XEN_PVSTREAM_STATE_LEN, &back, &e), -1);
}

/* A page with its number, and 64 vCPUs, always fit. */
static void has_room(void **state)
{
    static const uint64_t pages[] = { 1, 1000, 1u << 15, 1u << 20, UINT64_C(1) << 32 };

    (void)state;
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++)
        assert_true(xen_pvstream_pages(pages[i]) * 4096 > pages[i] * (4096 + 24) + (6u << 20));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends),
        cmocka_unit_test(is_cut),
        cmocka_unit_test(is_none),
        cmocka_unit_test(state_behind),
        cmocka_unit_test(has_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
