/* SPDX-License-Identifier: ISC */
/*
 * Pages are looked at in steps of 64 bytes (portable) or 128 (AVX2), with one test a
 * step: most pages that are not zero say so in their first bytes, and those that are
 * take memory bandwidth, whatever the code.
 */
#include "precopy/scan.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static bool portable_is_zero(const void *page)
{
    const uint64_t *w = page;

    for (unsigned i = 0; i < SCAN_WORDS; i += 8)
        if ((w[i] | w[i + 1] | w[i + 2] | w[i + 3] | w[i + 4] | w[i + 5] | w[i + 6] | w[i + 7]) !=
            0)
            return false;
    return true;
}

static void portable_replace(void *old, const void *page, uint64_t mask[SCAN_MASK], bool *zero)
{
    const volatile uint64_t *from = page; /* a second read could give another value */
    uint64_t *to = old, any = 0;

    for (unsigned m = 0; m < SCAN_MASK; m++) {
        uint64_t bits = 0;

        for (unsigned i = 0; i < 64; i++) {
            uint64_t word = from[m * 64 + i];

            bits |= (uint64_t)(word != to[m * 64 + i]) << i;
            to[m * 64 + i] = word;
            any |= word;
        }
        mask[m] = bits;
    }
    *zero = any == 0;
}

const struct scan_ops scan_portable = { "portable", portable_is_zero, portable_replace };

#if defined(__x86_64__)

#define AVX2 __attribute__((target("avx2")))

AVX2 static bool avx2_is_zero(const void *page)
{
    const __m256i *v = page;

    for (unsigned i = 0; i < SCAN_PAGE / 32; i += 4) {
        __m256i or
            = _mm256_or_si256(
                _mm256_or_si256(_mm256_loadu_si256(v + i), _mm256_loadu_si256(v + i + 1)),
                _mm256_or_si256(_mm256_loadu_si256(v + i + 2), _mm256_loadu_si256(v + i + 3)));

        if (!_mm256_testz_si256(or, or))
            return false;
    }
    return true;
}

/* The four bits of one step. The load is volatile: what is compared is what is stored. */
AVX2 static unsigned replace_four(__m256i *to, const volatile __m256i *from, __m256i *any)
{
    __m256i v = *from, same = _mm256_cmpeq_epi64(v, _mm256_loadu_si256(to));

    _mm256_storeu_si256(to, v);
    *any = _mm256_or_si256(*any, v);
    return ~(unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(same)) & 15u;
}

AVX2 static void avx2_replace(void *old, const void *page, uint64_t mask[SCAN_MASK], bool *zero)
{
    __m256i any = _mm256_setzero_si256();

    for (unsigned m = 0; m < SCAN_MASK; m++) {
        __m256i *to = (__m256i *)old + m * 16;
        const volatile __m256i *from = (const volatile __m256i *)page + m * 16;
        uint64_t bits = 0;

        for (unsigned i = 0; i < 16; i++)
            bits |= (uint64_t)replace_four(to + i, from + i, &any) << (4 * i);
        mask[m] = bits;
    }
    *zero = _mm256_testz_si256(any, any) != 0;
}

static const struct scan_ops ops_avx2 = { "avx2", avx2_is_zero, avx2_replace };

const struct scan_ops *scan_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") ? &ops_avx2 : NULL;
}

#else

const struct scan_ops *scan_avx2(void)
{
    return NULL;
}

#endif

const struct scan_ops *scan = &scan_portable;

__attribute__((constructor)) static void choose(void)
{
    const struct scan_ops *best = scan_avx2();

    if (best != NULL)
        scan = best;
}
