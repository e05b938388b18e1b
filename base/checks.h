/* SPDX-License-Identifier: ISC */
/*
 * checks: the lines of a compatibility report: what was compared, its value on either
 * side, the verdict, and what would mend it. The list owns copies of all texts, has a
 * limit, and never fails: what does not fit is counted as a refusal.
 */
#ifndef BASE_CHECKS_H
#define BASE_CHECKS_H

#include <stddef.h>

#include "base/err.h"

#define CHECKS_MAX 256
#define CHECKS_TEXT 400

enum check_result { CHECK_OK, CHECK_WARN, CHECK_REFUSED };

struct check {
    enum check_result result;
    char area[16];                 /* "cpu", "memory", "network", "storage", "release", "domain" */
    char object[64];               /* "vda", "vif 00:16:3e:...", "vcpus" */
    char source[160], target[160]; /* the values; "" not known or no matter */
    char text[CHECKS_TEXT];        /* one sentence */
    char remedy[CHECKS_TEXT];      /* what would mend it; "" where it is fine */
};

struct checks {
    size_t n, refused, warned;
    struct check *check; /* malloc'ed */
};

/* A new line; the texts beside the first are set by checks_values and checks_remedy on it. Never
 * NULL. */
struct check *checks_add(struct checks *c, enum check_result r, const char *area,
    const char *object, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void checks_values(struct check *k, const char *source, const char *target);
void checks_remedy(struct check *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* 0, or -1 with the first refusal as text ("...; remedy", and how many more there are),
 * ERR_REFUSED. */
int checks_verdict(const struct checks *c, struct err *e);
const char *check_result_name(enum check_result r); /* "ok", "warning", "refused" */
void checks_free(struct checks *c);

#endif
