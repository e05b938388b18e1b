/* SPDX-License-Identifier: ISC */
/*
 * nearest: "did you mean": the known word that a misspelt one was probably meant to be.
 * Pure; used by every parser that refuses unknown keys (migrd.conf, xm's domain file).
 */
#ifndef BASE_NEAREST_H
#define BASE_NEAREST_H

#include <stddef.h>

#define NEAREST_WORD_MAX 64

/* Edits (insert, delete, change a character; case and '_' against '-' cost nothing) between two
 * words; words beyond NEAREST_WORD_MAX count as far from everything. */
unsigned nearest_distance(const char *a, const char *b);

/* The closest of `words`, or NULL if none is close enough to be worth naming. */
const char *nearest_word(const char *word, const char *const *words, size_t n);

#endif
