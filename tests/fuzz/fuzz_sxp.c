/* SPDX-License-Identifier: ISC */
/* S-expressions: any bytes are read or refused, and every node can be walked and freed. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/sxp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static size_t walk(const struct sxp *s, int depth)
{
    size_t n = 0;

    if (depth > SXP_DEPTH_MAX)
        abort();
    for (; s != NULL; s = s->next) {
        if (s->text != NULL && s->first != NULL)
            abort();
        n += s->text != NULL ? strlen(s->text) : walk(s->first, depth + 1);
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct err e;
    struct sxp *s = sxp_parse((const char *)data, len, "f", &e);

    if (s != NULL && walk(s->first, 1) > len)
        abort();
    sxp_free(&s);
    return 0;
}
