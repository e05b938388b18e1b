/* SPDX-License-Identifier: ISC */
/* The state of a Xen guest as the other host sends it: what is accepted is written and read back
 * the same, and its context can be walked to its end. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/xen_blob.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void walk(const struct xen_blob *b)
{
    struct xen_context_entry entry;
    size_t at = 0;
    int r;

    while ((r = xen_context_next(b->context, b->context_len, &at, &entry, NULL)) == 1)
        if (entry.body + entry.len > b->context + b->context_len)
            abort();
    if (r < 0 || at != b->context_len)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct xen_blob *b, *again;
    uint8_t *packed;
    size_t n;

    if (xen_blob_parse(data, len, &b, NULL) < 0)
        return 0;
    walk(b);
    if (xen_blob_pack(b, &packed, &n, NULL) < 0 || xen_blob_parse(packed, n, &again, NULL) < 0)
        abort();
    if (again->n_leaves != b->n_leaves || again->n_params != b->n_params ||
        again->context_len != b->context_len ||
        memcmp(again->context, b->context, b->context_len) != 0)
        abort();
    xen_blob_free(&again);
    xen_blob_free(&b);
    free(packed);
    return 0;
}
