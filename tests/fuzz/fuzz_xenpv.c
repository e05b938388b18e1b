/* SPDX-License-Identifier: ISC */
/* The stream of a PV guest as the other host sends it, and the state behind it: in pieces of any
 * length it is found to be the same as in one. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "hypervisor/xen_pvstream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int64_t walk(const uint8_t *data, size_t len, size_t piece)
{
    struct xen_pvstream s = { .ended = false };
    size_t at = 0;

    while (at < len && !s.ended) {
        size_t n = len - at < piece ? len - at : piece;
        int64_t took = xen_pvstream_take(&s, data + at, n, NULL);

        if (took < 0)
            return -1;
        if ((size_t)took > n || (!s.ended && (size_t)took != n))
            abort();
        at += (size_t)took;
    }
    if (s.length != at)
        abort();
    return (int64_t)at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct xen_pvstate state;

    if (len > 0 && walk(data + 1, len - 1, len) != walk(data + 1, len - 1, data[0] % 32 + 1))
        abort();
    xen_pvstate_parse(data, len, &state, NULL);
    return 0;
}
