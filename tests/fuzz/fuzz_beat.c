/* SPDX-License-Identifier: ISC */
/*
 * Datagrams of the beats' port, and keys of corosync's cmap. First byte even: a datagram; nothing
 * that the fuzzer makes is good, but the same bytes sealed are, and come back as they were, and
 * count once. Odd: lines "KEY=TEXT" or "KEY#NUMBER"; a list that is accepted is in order.
 */
#include <stdlib.h>
#include <string.h>

#include "cluster/beat_seal.h"
#include "cluster/nodelist_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct beat_keys keys;

static void check_sealed(const uint8_t *data, size_t len)
{
    uint8_t out[BEAT_DATAGRAM_MAX];
    struct beat_head head = { keys.now.tag, 1, 2, 3, 4, len + 1 }, h;
    struct beat_window w = { 0 };
    const uint8_t *bytes;
    size_t n = beat_seal(&keys, &head, data, len, out), back;

    if ((n == 0) != (len == 0 || len > HA_BEAT_MAX))
        abort();
    if (n == 0)
        return;
    if (beat_unseal(&keys, out, n, &h, &bytes, &back) != BEAT_GOOD || back != len ||
        memcmp(bytes, data, len) != 0 || memcmp(&h, &head, sizeof h) != 0)
        abort();
    if (!beat_window_take(&w, h.stream, h.number) || beat_window_take(&w, h.stream, h.number))
        abort();
}

static void datagram(const uint8_t *data, size_t len)
{
    struct beat_head h;
    const uint8_t *bytes;
    size_t n;
    uint8_t *own = malloc(len + 1); /* its own block: reads beyond it show */

    if (own == NULL)
        abort();
    memcpy(own, data, len);
    if (len >= 8 && own[4] == 0xff) { /* so that the sum is looked at as well */
        uint32_t tag = keys.now.tag;

        for (int i = 7; i >= 4; i--, tag >>= 8)
            own[i] = (uint8_t)tag;
    }
    if (beat_unseal(&keys, own, len, &h, &bytes, &n) == BEAT_GOOD)
        abort();
    check_sealed(own, len);
    free(own);
}

static void check_list(const struct node_list *list)
{
    if (list->n == 0 || list->n > HA_NODES_MAX || node_list_find(list, list->own) == NULL)
        abort();
    for (unsigned i = 0; i < list->n; i++) {
        const struct node_entry *n = &list->node[i];

        if (n->id == 0 || (i > 0 && list->node[i - 1].id >= n->id) ||
            memchr(n->name, '\0', sizeof n->name) == NULL || n->address[0] == '\0' ||
            memchr(n->address, '\0', sizeof n->address) == NULL)
            abort();
    }
}

static void key(struct nodelist_raw *raw, char *line)
{
    size_t at = strcspn(line, "=#");
    char kind = line[at];
    uint64_t number;

    line[at] = '\0';
    if (kind == '=') {
        nodelist_key(raw, line, NULL, line + at + 1);
    } else if (kind == '#') {
        number = strtoull(line + at + 1, NULL, 10);
        nodelist_key(raw, line, &number, NULL);
    }
}

static void cmap(const uint8_t *data, size_t len)
{
    struct nodelist_raw *raw = calloc(1, sizeof *raw);
    struct node_list *list = calloc(1, sizeof *list);
    char *text = malloc(len + 1), *line, *save = NULL;
    struct err e;

    if (raw == NULL || list == NULL || text == NULL)
        abort();
    memcpy(text, data, len);
    text[len] = '\0';
    raw->token = 1000;
    raw->has_own = true;
    for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        key(raw, line);
    if (nodelist_make(raw, list, &e) == 0)
        check_list(list);
    free(text);
    free(list);
    free(raw);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (keys.now.tag == 0 && beat_keys_make(&keys, (const uint8_t *)"secret", 6, NULL) < 0)
        abort();
    if (len == 0 || len > 65536)
        return 0;
    if (data[0] % 2 == 0)
        datagram(data + 1, len - 1);
    else
        cmap(data + 1, len - 1);
    return 0;
}
