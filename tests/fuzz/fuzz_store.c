/* SPDX-License-Identifier: ISC */
/*
 * The disk of a cluster's node, as a damaged disk leaves it. The input is taken as it is, and once
 * more as a list of payloads (each after two bytes with its length) that are put into right frames,
 * so that the fuzzer reaches what is behind the checksum. What is accepted is within the limits,
 * and what it says is right is so when nothing follows.
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "cluster/store.h"

#define INPUT_MAX 65536
#define HEAD 16
#define FRAME 24

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int take(void *arg, const uint8_t *bytes, size_t len, bool whole, struct err *e)
{
    size_t *sum = arg;

    (void)e;
    (void)whole;
    if (len > STORE_RECORD_MAX)
        abort();
    for (size_t i = 0; i < len; i++)
        *sum += bytes[i];
    return 0;
}

static void read_all(const uint8_t *bytes, size_t len)
{
    size_t good = 0, again = 0, sum = 0, sum_again = 0;
    struct err e;

    if (store_parse(bytes, len, take, &sum, &good, &e) < 0)
        return;
    if (good > len || store_parse(bytes, good, take, &sum_again, &again, &e) < 0 || again != good ||
        sum != sum_again)
        abort();
}

static void put_number(uint8_t *at, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(v >> 8 * i);
}

static size_t frames(const uint8_t *data, size_t len, uint8_t *out)
{
    uint64_t number = 1;
    size_t at = HEAD;

    memcpy(out, "MIGRDHL1\1\2\3\4\5\6\7", HEAD);
    for (; len >= 2; number++) {
        size_t n = (size_t)data[0] | (size_t)data[1] << 8;

        data += 2;
        len -= 2;
        n = n < len ? n : len;
        memcpy(out + at, "HAF1", 4);
        put_number(out + at + 4, n, 4);
        put_number(out + at + 8, number, 8);
        put_number(out + at + 16,
            XXH3_64bits_withSeed(
                data, n, XXH3_64bits_withSeed(out + at, 16, UINT64_C(0x0007060504030201))),
            8);
        memcpy(out + at + FRAME, data, n);
        at += FRAME + n;
        data += n;
        len -= n;
    }
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint8_t *out;

    if (len > INPUT_MAX)
        return 0;
    read_all(data, len);
    out = malloc(HEAD + len * (FRAME + 1) + 1);
    if (out == NULL)
        abort();
    read_all(out, frames(data, len, out));
    free(out);
    return 0;
}
