/* SPDX-License-Identifier: ISC */
/* hypervisor/xvm/memory.c: which huge pages of a guest are populated. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "hypervisor/xvm/machine_internal.h"

#define MIB (UINT64_C(1) << 20)
#define HUGE (2 * MIB)
#define FRAMES (HUGE / HV_PAGE_SIZE)

static bool bit(const uint64_t *b, uint64_t i)
{
    return (b[i >> 6] >> (i & 63) & 1) != 0;
}

static uint64_t count(const uint64_t *b, uint64_t words)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < words; i++)
        n += (unsigned)__builtin_popcountll(b[i]);
    return n;
}

static void make_ram(struct machine *m, Migrd__Domain *def)
{
    struct err e;

    migrd__domain__init(def);
    def->name = (char *)"memory";
    def->huge_pages = true;
    def->memory_kib = 16 << 10;
    *m = (struct machine){ .def = def, .ram_fd = -1 };
    if (ram_create(m, &e) < 0) {
        ram_free(m);
        print_message("no huge pages here: %s\n", e.text);
        skip();
    }
}

static void huge_pages_are_counted(void **state)
{
    uint64_t bitmap[16 * MIB / HV_PAGE_SIZE / 64];
    const uint64_t words = sizeof bitmap / sizeof bitmap[0];
    Migrd__Domain def;
    struct machine m;

    (void)state;
    make_ram(&m, &def);
    memset(bitmap, 0xff, sizeof bitmap);
    ram_populated(&m, bitmap);
    assert_int_equal(count(bitmap, words), 0);
    m.ram[3 * HUGE + 5] = 1;
    m.ram[7 * HUGE] = 0;
    ram_populated(&m, bitmap);
    assert_int_equal(count(bitmap, words), 2 * FRAMES);
    assert_true(bit(bitmap, 3 * FRAMES) && bit(bitmap, 4 * FRAMES - 1) && bit(bitmap, 7 * FRAMES));
    machine_discard(&m, 3 * HUGE, HUGE);
    ram_populated(&m, bitmap);
    assert_int_equal(count(bitmap, words), FRAMES);
    ram_free(&m);
}

/* What another mapping of the same file has written is not in our page tables. */
static void pages_of_another_mapping(void **state)
{
    uint64_t bitmap[16 * MIB / HV_PAGE_SIZE / 64], filled[16 * MIB / HV_PAGE_SIZE / 64] = { 0 };
    const uint64_t words = sizeof bitmap / sizeof bitmap[0];
    Migrd__Domain def;
    struct machine m;
    struct err e;
    uint8_t *other;

    (void)state;
    make_ram(&m, &def);
    other = mmap(NULL, m.ram_len, PROT_READ | PROT_WRITE, MAP_SHARED, m.ram_fd, 0);
    assert_ptr_not_equal(other, MAP_FAILED);
    m.ram[0] = 1;
    other[2 * HUGE] = 1;
    ram_populated(&m, bitmap);
    assert_int_equal(count(bitmap, words), 8 * FRAMES); /* nobody said which: all */
    filled[2 * FRAMES / 64 + 1] = 1;
    assert_int_equal(ram_take_filled(&m, filled, &e), 0);
    ram_populated(&m, bitmap);
    assert_int_equal(count(bitmap, words), 2 * FRAMES);
    assert_true(bit(bitmap, 0) && bit(bitmap, 2 * FRAMES));
    munmap(other, m.ram_len);
    ram_free(&m);
    assert_null(m.filled);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(huge_pages_are_counted),
        cmocka_unit_test(pages_of_another_mapping),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
