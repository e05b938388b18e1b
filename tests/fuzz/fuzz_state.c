/* SPDX-License-Identifier: ISC */
/* The state of a domain as the other host sends it: every section is read to its end. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "hypervisor/xvm/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const char *const names[] = { "machine", "clock", "vcpu0", "irqchip", "pit", "serial0",
    "a" };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct state_blob *b;
    struct err e;

    if (state_parse(data, len, &b, &e) < 0)
        return 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct state_reader r;
        uint8_t rest[64];
        uint32_t v32;
        uint64_t v64;

        if (state_open(b, names[i], &r, &e) < 0)
            continue;
        if (state_get_u32(&r, &v32, &e) == 0 && state_get_u64(&r, &v64, &e) == 0)
            while (state_get(&r, rest, sizeof rest, &e) == 0)
                ;
        if (r.p > r.end)
            abort();
        if (state_end(&r, &e) == 0 && r.p != r.end)
            abort();
    }
    state_all_taken(b, &e);
    state_blob_free(&b);
    return 0;
}
