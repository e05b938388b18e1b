/* SPDX-License-Identifier: ISC */
/*
 * beat_seal: the format of beats on the wire, authenticated; the keys, and what was seen of each
 * sender so that nothing counts twice. No socket in here. The format is at the top of beat_seal.c.
 * All structs are plain values of the caller's; wipe keys with beat_keys_clear.
 */
#ifndef CLUSTER_BEAT_SEAL_H
#define CLUSTER_BEAT_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "cluster/core.h"

#define BEAT_HEAD 36
#define BEAT_MAC 32
#define BEAT_DATAGRAM_MAX (BEAT_HEAD + HA_BEAT_MAX + BEAT_MAC)

struct beat_key {
    uint8_t mac[32];
    uint32_t tag; /* names the key on the wire, tells nothing of it; 0 none */
};

struct beat_keys {
    struct beat_key now, before; /* before: good as well, for nodes that have not read the new */
};

/* Made of the file's bytes. The one in `now` becomes `before`, unless it is the same. */
int beat_keys_read(struct beat_keys *k, const char *path, struct err *e);
int beat_keys_make(struct beat_keys *k, const uint8_t *secret, size_t len, struct err *e);
void beat_keys_clear(struct beat_keys *k);

struct beat_head {
    uint32_t signer; /* tag of the key that signs this one */
    uint32_t newest; /* tag of the newest key that the sender has */
    uint32_t from, to;
    uint64_t stream; /* random, of the sender's process */
    uint64_t number; /* counts up from 1 */
};

/* Signed with the key that `head->signer` names. Returns the length; 0: too long, no such key. */
size_t beat_seal(const struct beat_keys *k, const struct beat_head *head, const uint8_t *bytes,
    size_t len, uint8_t out[BEAT_DATAGRAM_MAX]);

enum beat_verdict {
    BEAT_GOOD,
    BEAT_MALFORMED,   /* length or magic */
    BEAT_UNKNOWN_KEY, /* signed with a key that is not ours */
    BEAT_FORGED,      /* with one that is, and the sum is wrong */
};

/* `bytes` points into the datagram. `head` is filled for all but BEAT_MALFORMED; only what is good
 * is to be believed. */
enum beat_verdict beat_unseal(const struct beat_keys *k, const uint8_t *datagram, size_t n,
    struct beat_head *head, const uint8_t **bytes, size_t *len);

#define BEAT_STREAMS 4

/* What came of one sender. Late ones count, of the last 64; a stream that is not known is a new
 * process; those that it pushes out could be replayed, and are of processes that are long over,
 * which the core does not believe. */
struct beat_window {
    struct beat_seen {
        uint64_t stream, highest, bits; /* bit i: highest - i was seen; highest 0: free */
    } seen[BEAT_STREAMS];               /* the newest first */
};

/* False: it was seen before, or is too late to tell. */
bool beat_window_take(struct beat_window *w, uint64_t stream, uint64_t number);

#endif
