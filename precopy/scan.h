/* SPDX-License-Identifier: ISC */
/*
 * scan: what the engine asks of a page's bytes: is it zero, which words of it changed. With AVX2
 * where the CPU has it, else 64-bit words; chosen once, before main. `page` may belong to a running
 * guest and change meanwhile; a result is then that of some mixture, and scan_replace still
 * describes exactly what it stored.
 */
#ifndef SCAN_H
#define SCAN_H

#include <stdbool.h>
#include <stdint.h>

#define SCAN_PAGE 4096u
#define SCAN_WORDS (SCAN_PAGE / 8) /* 64-bit words of a page */
#define SCAN_MASK (SCAN_WORDS / 64)

/* One set of functions; pages are aligned to 32 bytes. */
struct scan_ops {
    const char *name;
    bool (*is_zero)(const void *page);
    /* Stores `page` over `old`; bit i of `mask` is set where word i differed. *zero: what was
     * stored is all zeroes. Reads each word of `page` once. */
    void (*replace)(void *old, const void *page, uint64_t mask[SCAN_MASK], bool *zero);
};

extern const struct scan_ops scan_portable;
/* The best for this CPU. */
extern const struct scan_ops *scan;
/* NULL where the CPU, or the compiler's target, has none. */
const struct scan_ops *scan_avx2(void);

#endif
