/* SPDX-License-Identifier: ISC */
/*
 * The flight record of a decision core, as a damaged disk leaves it. Bytes behind the magic that
 * are not in right frames are put into one, so that the fuzzer reaches what is behind the checksum.
 * Each event that is accepted is within the limits of the core.
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "cluster/record.h"

#define MAGIC "MIGRDHA1"
#define INPUT_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_event(const struct ha_event *e)
{
    if (e->type >= HA_EV_MAX)
        abort();
    if (e->type == HA_EV_VIEW && e->u.view.n > HA_NODES_MAX)
        abort();
    if (e->type == HA_EV_DOMAIN &&
        (memchr(e->u.domain.uuid, '\0', HA_UUID_LEN) == NULL || e->u.domain.seen >= HA_SEEN_MAX))
        abort();
    if (e->type == HA_EV_COMMAND && e->u.command == NULL)
        abort();
    if (e->type == HA_EV_RESULT && e->u.result.text == NULL)
        abort();
}

static void read_all(const uint8_t *bytes, size_t len)
{
    struct err e;
    struct flight_reader *r = flight_read(bytes, len, &e);
    struct ha_event event;
    uint64_t now;
    size_t n;

    if (r == NULL)
        return;
    flight_saved(r, &n, &now);
    if (flight_config(r)->n_nodes > HA_NODES_MAX || n > FLIGHT_SAVED_MAX)
        abort();
    while (flight_next(r, &event, &now, &e) > 0)
        check_event(&event);
    flight_read_free(&r);
}

/* The input is a list of payloads, each after two bytes with its length. */
static size_t frame(const uint8_t *data, size_t len, uint8_t *out)
{
    size_t at = sizeof MAGIC - 1;

    memcpy(out, MAGIC, at);
    while (len >= 2) {
        uint32_t n = (uint32_t)data[0] | (uint32_t)data[1] << 8, sum;

        data += 2;
        len -= 2;
        n = n < len ? n : (uint32_t)len;
        sum = XXH32(data, n, 0);
        memcpy(out + at, &n, 4);
        memcpy(out + at + 4, &sum, 4);
        memcpy(out + at + 8, data, n);
        at += 8 + n;
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
    out = malloc(len * 5 + 16);
    if (out == NULL)
        abort();
    read_all(out, frame(data, len, out));
    free(out);
    return 0;
}
