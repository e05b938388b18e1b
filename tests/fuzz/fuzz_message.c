/* SPDX-License-Identifier: ISC */
/* One message of the message channel. What is accepted packs into the bytes that it says, as a
 * worker does with an offer for migrd; it reads again as the same kind, or not at all (unknown
 * fields with odd tags). */
#include <stdlib.h>

#include "transport/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e;
    Migrd__Session *m = message_parse(data, size, &e), *again;
    uint8_t *buf;
    size_t n;

    if (m == NULL)
        return 0;
    n = migrd__session__get_packed_size(m);
    buf = malloc(n);
    if (buf == NULL || migrd__session__pack(m, buf) != n)
        abort();
    again = migrd__session__unpack(NULL, n, buf);
    if (again != NULL && again->body_case != m->body_case)
        abort();
    if (again != NULL)
        migrd__session__free_unpacked(again, NULL);
    migrd__session__free_unpacked(m, NULL);
    free(buf);
    return 0;
}
