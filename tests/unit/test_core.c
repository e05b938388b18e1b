/* SPDX-License-Identifier: ISC */
/* The head of a core file: what an ELF reader finds in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "precopy/core.h"

static const struct hv_layout layout = { .n = 2,
    .region = { { .gfn = 0, .pages = 160 }, { .gfn = 0x100000, .pages = 16 } },
    .max_gfn = 0x10000f };

static void test_programs(void **state)
{
    struct hv_registers r[2] = { { .rip = 1 }, { .rip = 2 } };
    const Elf64_Ehdr *h;
    const Elf64_Phdr *p;
    struct core c;
    struct err e;

    (void)state;
    assert_int_equal(core_layout(&c, &layout, r, 2, &e), 0);
    h = (const Elf64_Ehdr *)(const void *)c.head;
    p = (const Elf64_Phdr *)(const void *)(c.head + h->e_phoff);
    assert_memory_equal(h->e_ident, ELFMAG, SELFMAG);
    assert_int_equal(h->e_type, ET_CORE);
    assert_int_equal(h->e_machine, EM_X86_64);
    assert_int_equal(h->e_phnum, 3);
    assert_int_equal(p[0].p_type, PT_NOTE);
    assert_true(p[0].p_offset + p[0].p_filesz <= c.head_len);
    assert_int_equal(c.head_len % HV_PAGE_SIZE, 0);
    assert_int_equal(p[1].p_type, PT_LOAD);
    assert_int_equal(p[1].p_paddr, 0);
    assert_int_equal(p[1].p_offset, c.head_len);
    assert_int_equal(p[1].p_filesz, 160 * HV_PAGE_SIZE);
    assert_int_equal(p[2].p_paddr, UINT64_C(0x100000000));
    assert_int_equal(p[2].p_vaddr, p[2].p_paddr);
    assert_int_equal(p[2].p_offset, p[1].p_offset + p[1].p_filesz);
    assert_int_equal(c.file_len, p[2].p_offset + p[2].p_filesz);
    assert_int_equal(core_offset(&c, &layout, 159), p[1].p_offset + 159 * HV_PAGE_SIZE);
    assert_int_equal(core_offset(&c, &layout, 0x100001), p[2].p_offset + HV_PAGE_SIZE);
    free(c.head);
}

/* The descriptor of the n-th note of that name. */
static const uint8_t *note(const struct core *c, const char *name, unsigned n, size_t *len)
{
    const Elf64_Phdr *p = (const Elf64_Phdr *)(const void *)(c->head + sizeof(Elf64_Ehdr));
    const uint8_t *at = c->head + p->p_offset, *end = at + p->p_filesz;

    while (at < end) {
        const Elf64_Nhdr *h = (const Elf64_Nhdr *)(const void *)at;
        const uint8_t *text = at + sizeof *h, *d = text + ((h->n_namesz + 3) & ~3u);

        if (strcmp((const char *)text, name) == 0 && n-- == 0) {
            *len = h->n_descsz;
            return d;
        }
        at = d + ((h->n_descsz + 3) & ~3u);
    }
    return NULL;
}

static uint64_t u64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

static void test_registers(void **state)
{
    struct hv_registers r[2] = { { .rip = 0x1111 }, { .rip = 0x2222, .rflags = 0x202 } };
    const uint8_t *d;
    struct core c;
    struct err e;
    size_t len;

    (void)state;
    for (unsigned i = 0; i < HV_GPR_MAX; i++)
        r[1].gpr[i] = 0x100 + i;
    r[1].cs.selector = 0x33;
    r[1].gs.base = 0x7777;
    r[1].cr[3] = 0xabc000;
    r[1].idt.base = 0xfe00;
    r[1].kernel_gs_base = 0x9999;
    assert_int_equal(core_layout(&c, &layout, r, 2, &e), 0);

    /* struct elf_prstatus: process at 32, registers from 112: r15 first, then rip at 16. */
    d = note(&c, "CORE", 1, &len);
    assert_int_equal(len, 336);
    assert_int_equal(u64(d + 32) & 0xffffffff, 2);
    assert_int_equal(u64(d + 112), 0x100 + HV_R15);
    assert_int_equal(u64(d + 112 + 10 * 8), 0x100 + HV_RAX);
    assert_int_equal(u64(d + 112 + 16 * 8), 0x2222);
    assert_int_equal(u64(d + 112 + 17 * 8), 0x33);
    assert_int_equal(u64(d + 112 + 19 * 8), 0x100 + HV_RSP);
    assert_int_equal(u64(d + 112 + 22 * 8), 0x7777);

    /* QEMU's: version, size; rax at 8, rip behind r15; ten segments of 24 bytes; CR0 to CR4. */
    d = note(&c, "QEMU", 1, &len);
    assert_int_equal(len, 440);
    assert_int_equal(u64(d), UINT64_C(440) << 32 | 1);
    assert_int_equal(u64(d + 8), 0x100 + HV_RAX);
    assert_int_equal(u64(d + 8 + 8), 0x100 + HV_RBX);
    assert_int_equal(u64(d + 8 + 16 * 8), 0x2222);
    assert_int_equal(u64(d + 8 + 18 * 8 + 9 * 24 + 16), 0xfe00);
    assert_int_equal(u64(d + 8 + 18 * 8 + 10 * 24 + 3 * 8), 0xabc000);
    assert_int_equal(u64(d + 432), 0x9999);
    assert_null(note(&c, "QEMU", 2, &len));
    free(c.head);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_programs),
        cmocka_unit_test(test_registers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
