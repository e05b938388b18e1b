/* SPDX-License-Identifier: ISC */
/*
 * record: the protection of TLS 1.3 records (RFC 8446 section 5) with keys that a
 * handshake has made: one record_key per direction, used by one thread at a time. No
 * sockets here, and no state but the key: bytes come and go by the caller's memory. The
 * secrets are wiped by record_key_wipe, which every record_key needs in the end.
 */
#ifndef TRANSPORT_RECORD_H
#define TRANSPORT_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "transport/cursor.h"
#include "transport/openssl.h"

#define RECORD_PLAIN 16384u /* most content of one record */
#define RECORD_HEADER 5u
#define RECORD_TAG 16u
/* What protection adds: header, type, tag. */
#define RECORD_EXTRA (RECORD_HEADER + 1 + RECORD_TAG)
#define RECORD_MAX (RECORD_PLAIN + RECORD_EXTRA)
#define RECORD_SECRET_MAX 48u

enum record_type { RECORD_ALERT = 21, RECORD_HANDSHAKE = 22, RECORD_DATA = 23 };

struct record_suite;

struct record_key {
    const struct record_suite *suite;
    EVP_CIPHER_CTX *ctx;
    bool seals;
    uint8_t secret[RECORD_SECRET_MAX]; /* application_traffic_secret_N */
    uint8_t iv[12];
    uint64_t seq; /* records under this key */
};

/* `suite` is the number of RFC 8446 B.4; `secret` is copied and may be wiped then. */
int record_key_init(struct record_key *k, unsigned suite, const uint8_t *secret, size_t len,
    bool seals, struct err *e);
/* The next generation (section 7.2), for after a KeyUpdate. */
int record_key_next(struct record_key *k, struct err *e);
/* A key of zeroes, never made, is fine. */
void record_key_wipe(struct record_key *k);

/* One record of the next `len` bytes (up to RECORD_PLAIN) into `out`, which has room for them and
 * RECORD_EXTRA more; steps over them. Returns the record's length, 0 if OpenSSL fails. Each byte
 * is read once: what changes meanwhile is sent as it was or as it becomes, and well protected. */
size_t record_seal(
    struct record_key *k, uint8_t type, struct cursor *from, size_t len, uint8_t *out);

/* What is wrong with a peer's record: the alert for the peer, and words for our error. */
struct record_fault {
    int alert;
    const char *why;
};

/* From the header: how many bytes follow it, or -1. */
int record_body_len(const uint8_t head[RECORD_HEADER], struct record_fault *f);

/* Room that record_open wants for a record with that body. */
size_t record_room(size_t body_len);

/*
 * Opens the record (header and body) at `rec` into `to`, which has record_room bytes; returns
 * the length of the content, which is at most that, and *type, or -1. The room behind the content
 * is overwritten too, and so is all of it by a record that turns out to be forged.
 */
ssize_t record_open(struct record_key *k, const uint8_t *rec, size_t body_len, struct cursor to,
    uint8_t *type, struct record_fault *f);

#endif
