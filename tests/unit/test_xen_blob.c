/* SPDX-License-Identifier: ISC */
/* The state of a Xen guest: written, read back, and refused when it is not what it says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hypervisor/xen_blob.h"

/* A context: header, one vCPU (4 bytes of it), end. */
static size_t make_context(uint8_t *to, uint16_t vcpu)
{
    const uint8_t header[] = { 1, 0, 0, 0, 24, 0, 0, 0, 0x86, 0x12, 0x38, 0x54, 1, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 };
    const uint8_t cpu[] = { 2, 0, (uint8_t)vcpu, 0, 4, 0, 0, 0, 'a', 'b', 'c', 'd' };
    const uint8_t end[8] = { 0 };
    size_t n = 0;

    memcpy(to, header, sizeof header);
    n += sizeof header;
    memcpy(to + n, cpu, sizeof cpu);
    n += sizeof cpu;
    memcpy(to + n, end, sizeof end);
    return n + sizeof end;
}

static struct xen_blob *sample(void)
{
    struct xen_blob *b = calloc(1, sizeof *b);

    assert_non_null(b);
    b->vcpus = 2;
    b->n_leaves = 2;
    b->leaf[1] = (struct xen_blob_leaf){ 7, 0, 1, 2, 3, 4 };
    b->n_msrs = 1;
    b->msr[0] = (struct xen_blob_msr){ 0x10a, 0, 99 };
    b->n_params = 2;
    b->param[0] = (struct xen_blob_param){ 27, 0xfeff8 };
    b->param[1] = (struct xen_blob_param){ 34, 5 };
    b->tsc.khz = 2400000;
    b->tsc.ns = 77;
    b->context = malloc(64);
    assert_non_null(b->context);
    b->context_len = (uint32_t)make_context(b->context, 1);
    return b;
}

static void expect_refused(const struct xen_blob *b, const char *names)
{
    struct xen_blob *back;
    struct err e = { 0 };
    uint8_t *bytes;
    size_t len;

    assert_int_equal(xen_blob_pack(b, &bytes, &len, &e), 0);
    assert_int_equal(xen_blob_parse(bytes, len, &back, &e), -1);
    assert_null(back);
    assert_non_null(strstr(e.text, names));
    free(bytes);
}

static void test_round_trip(void **state)
{
    struct xen_blob *b = sample(), *back;
    struct err e = { 0 };
    uint8_t *bytes;
    size_t len;

    (void)state;
    assert_int_equal(xen_blob_pack(b, &bytes, &len, &e), 0);
    assert_int_equal(xen_blob_parse(bytes, len, &back, &e), 0);
    assert_int_equal(back->vcpus, 2);
    assert_memory_equal(back->leaf, b->leaf, sizeof b->leaf);
    assert_memory_equal(back->msr, b->msr, sizeof b->msr);
    assert_memory_equal(back->param, b->param, sizeof b->param);
    assert_int_equal(back->tsc.khz, 2400000);
    assert_int_equal(back->tsc.ns, 77);
    assert_int_equal(back->context_len, b->context_len);
    assert_memory_equal(back->context, b->context, b->context_len);
    xen_blob_free(&back);
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(xen_blob_parse(bytes, cut, &back, &e), -1);
    free(bytes);
    xen_blob_free(&b);
}

static void test_refused(void **state)
{
    struct xen_blob *b = sample();

    (void)state;
    b->param[1].index = 27;
    expect_refused(b, "params");
    b->param[1].index = 34;
    make_context(b->context, 2);
    expect_refused(b, "vCPU that the domain has not");
    make_context(b->context, 1);
    b->context[8] = 0;
    expect_refused(b, "context");
    make_context(b->context, 1);
    b->context_len -= 8;
    expect_refused(b, "no end");
    b->context_len = 0;
    expect_refused(b, "context");
    xen_blob_free(&b);
}

static void test_walk(void **state)
{
    struct xen_blob *b = sample();
    struct xen_context_entry entry;
    struct err e = { 0 };
    size_t at = 0;

    (void)state;
    assert_int_equal(xen_context_next(b->context, b->context_len, &at, &entry, &e), 1);
    assert_int_equal(entry.type, 1);
    assert_int_equal(xen_context_next(b->context, b->context_len, &at, &entry, &e), 1);
    assert_int_equal(entry.type, 2);
    assert_int_equal(entry.instance, 1);
    assert_memory_equal(entry.body, "abcd", 4);
    assert_int_equal(xen_context_next(b->context, b->context_len, &at, &entry, &e), 0);
    b->context[36] = 0xff; /* the vCPU's length */
    at = 32;
    assert_int_equal(xen_context_next(b->context, b->context_len, &at, &entry, &e), -1);
    xen_blob_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_walk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
