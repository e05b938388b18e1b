/* SPDX-License-Identifier: ISC */
#include "base/nearest.h"

#include <limits.h>
#include <string.h>

static char folded(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (char)(c - 'A' + 'a');
    return c == '_' ? '-' : c;
}

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    unsigned m = a < b ? a : b;

    return m < c ? m : c;
}

unsigned nearest_distance(const char *a, const char *b)
{
    unsigned row[NEAREST_WORD_MAX + 1];
    size_t la = strlen(a), lb = strlen(b);

    if (la > NEAREST_WORD_MAX || lb > NEAREST_WORD_MAX)
        return UINT_MAX;
    for (size_t j = 0; j <= lb; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= la; i++) {
        unsigned diagonal = row[0];

        row[0] = (unsigned)i;
        for (size_t j = 1; j <= lb; j++) {
            unsigned above = row[j];
            unsigned change = diagonal + (folded(a[i - 1]) != folded(b[j - 1]));

            row[j] = min3(above + 1, row[j - 1] + 1, change);
            diagonal = above;
        }
    }
    return row[lb];
}

const char *nearest_word(const char *word, const char *const *words, size_t n)
{
    const char *best = NULL;
    size_t len = strlen(word), other;
    /* More than a third of the word wrong: naming another one would mislead. */
    unsigned best_distance = (unsigned)len / 3 + 2;

    for (size_t i = 0; i < n; i++) {
        unsigned d;

        other = strlen(words[i]);
        if ((other > len ? other - len : len - other) >= best_distance)
            continue; /* each missing character is an edit */
        d = nearest_distance(word, words[i]);
        if (d < best_distance) {
            best_distance = d;
            best = words[i];
        }
    }
    return best;
}
