/* SPDX-License-Identifier: ISC */
/*
 * pyvalue: the part of Python that xm's domain files consist of: assignments of plain
 * values. Nothing is run or computed; what would need that is refused by name and line.
 * The caller frees what it gets with pyvalue_free. Part of define.
 */
#ifndef DEFINE_PYVALUE_H
#define DEFINE_PYVALUE_H

#include "migrd/define/internal.h"

enum pytype { PY_TEXT, PY_NUMBER, PY_BOOL, PY_NONE, PY_LIST };

struct pyvalue {
    enum pytype type;
    char *text;            /* PY_TEXT; without NUL inside */
    long long number;      /* PY_NUMBER, PY_BOOL */
    struct pyvalue *first; /* PY_LIST: members, none of them a list */
    struct pyvalue *next;
};

/* `key = value`, in the order of the text. */
struct assignment {
    char *key;
    struct pyvalue *value;
    unsigned line;
    struct assignment *next;
};

/* All assignments of a text; NULL in *out for none. */
int pyvalue_parse(struct reader *r, const char *text, size_t len, struct assignment **out);

/* One value, the whole text (an override on the command line). */
int pyvalue_parse_one(struct reader *r, const char *text, struct pyvalue **out);

/* A number or word as it is, not Python; for overrides without quotes. */
struct pyvalue *pyvalue_plain(struct reader *r, const char *text);

void pyvalue_free(struct pyvalue **v);
void pyvalue_free_all(struct assignment **a);

#endif
