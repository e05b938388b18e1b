/* SPDX-License-Identifier: ISC */
/* One harness for both texts of a definition: what is accepted passes the rules and survives being
 * written and read. Included by fuzz_xmfile.c and fuzz_xml.c, which choose the format. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "migrd/define/define.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_back(const Migrd__Domain *d, char *text)
{
    size_t n = migrd__domain__get_packed_size(d);
    uint8_t *before, *after;
    Migrd__Domain *back;
    struct err e;

    if (text == NULL)
        return; /* not sayable in this form */
    back = define_parse(text, strlen(text), DEFINE_AUTO, "f", NULL, 0, &e);
    if (back == NULL || migrd__domain__get_packed_size(back) != n)
        abort();
    before = malloc(n + 1);
    after = malloc(n + 1);
    migrd__domain__pack(d, before);
    migrd__domain__pack(back, after);
    if (memcmp(before, after, n) != 0)
        abort();
    free(before);
    free(after);
    migrd__domain__free_unpacked(back, NULL);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct err e;
    Migrd__Domain *d = define_parse((const char *)data, len, FUZZ_FORMAT, "f", NULL, 0, &e);

    if (d == NULL)
        return 0;
    if (define_check(d, &e) != 0)
        abort();
    check_back(d, define_xml(d, 1, &e));
    check_back(d, define_xm(d, &e));
    migrd__domain__free_unpacked(d, NULL);
    return 0;
}
