/* SPDX-License-Identifier: ISC */
/*
 * sxp: S-expressions as xend wrote them (xend-config.sxp): lists in parentheses, atoms,
 * strings in '...' or "..." with Python-like escapes, '#' comments. A parsed text is one
 * tree that sxp_free frees; atoms are NUL-terminated and contain no NUL. Size, depth and
 * number of nodes are limited.
 */
#ifndef BASE_SXP_H
#define BASE_SXP_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define SXP_TEXT_MAX (256u * 1024)
#define SXP_DEPTH_MAX 32
#define SXP_NODES_MAX 16384

struct sxp {
    struct sxp *next;  /* sibling */
    struct sxp *first; /* of a list: its first member, NULL if empty */
    char *text;        /* of an atom or string; NULL for a list */
    unsigned line;     /* where it begins, 1.. */
    bool odd_escape;   /* a string with a backslash that escapes nothing ("\."); it was kept */
};

/* A list of the expressions in the text; NULL on failure, e says "FILE:LINE: ...". */
struct sxp *sxp_parse(const char *text, size_t len, const char *file, struct err *e);
void sxp_free(struct sxp **s);

/* Member n of a list, NULL if there is none or s is no list. */
const struct sxp *sxp_at(const struct sxp *s, size_t n);

/* The text of (NAME TEXT): "" for (NAME), NULL if s is not of that form. */
const char *sxp_pair(const struct sxp *s, const char **name);

#endif
