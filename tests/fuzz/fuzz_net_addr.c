/* SPDX-License-Identifier: ISC */
/* Frames that a guest sends, and the table of its addresses as another host sends it: whatever
 * comes, the table stays bounded, every announcement is a frame of the guest's, and the table
 * survives a move. First byte: how many; then frames, each with its length in front, or a section's
 * body. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/xvm/virtio_net_addr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const uint8_t mac[NET_MAC_LEN] = { 0x02, 0, 0, 0, 0, 0x0a };

static void check_announcements(const struct net_addrs *t)
{
    uint8_t frame[NET_ANNOUNCE_LEN];

    if (t->n > NET_ADDRS_MAX)
        abort();
    for (unsigned i = 0; i < t->n; i++) {
        size_t n = net_addrs_announcement(t, i, mac, frame);

        if (n < 60 || n > sizeof frame || memcmp(frame + 6, mac, NET_MAC_LEN) != 0 ||
            (frame[0] & 1) == 0)
            abort();
    }
}

static void check_move(const struct net_addrs *t)
{
    struct net_addrs there;
    struct state_writer w;
    struct state_blob *b = NULL;
    struct state_reader r;
    struct err e;
    uint8_t *blob;
    size_t n;

    state_writer_init(&w);
    state_section_begin(&w, "a", 1);
    net_addrs_save(t, &w);
    state_section_end(&w);
    if (state_finish(&w, &blob, &n, &e) < 0)
        abort();
    if (state_parse(blob, n, &b, &e) < 0 || state_open(b, "a", &r, &e) < 0 ||
        net_addrs_load(&there, &r, &e) < 0 || state_end(&r, &e) < 0 || there.n != t->n ||
        there.router != t->router)
        abort();
    state_blob_free(&b);
    free(blob);
}

static void learn_all(struct net_addrs *t, const uint8_t *data, size_t len)
{
    while (len > 0) {
        size_t n = data[0] < len - 1 ? data[0] : len - 1;
        uint8_t *frame = malloc(n + 1); /* its own block: reads beyond it show */

        memcpy(frame, data + 1, n);
        if (n >= 14)
            memcpy(frame + 6, mac, NET_MAC_LEN);
        if (n < 14 || net_addrs_wants(frame))
            net_addrs_learn(t, mac, frame, n);
        free(frame);
        data += 1 + n;
        len -= 1 + n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct net_addrs t = { 0 };
    struct err e;

    if (len == 0)
        return 0;
    if (data[0] == 0) {
        struct state_reader r = { "a", 2, data + 1, data + len };

        if (net_addrs_load(&t, &r, &e) < 0)
            return 0;
    }
    learn_all(&t, data + 1, len - 1);
    check_announcements(&t);
    check_move(&t);
    return 0;
}
