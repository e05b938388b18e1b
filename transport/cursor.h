/* SPDX-License-Identifier: ISC */
/*
 * cursor: how far a read or a write has come in its caller's vectors. It points into
 * them and owns nothing; a copy of the struct remembers a place. Whoever takes pieces
 * has counted before that so many bytes are left.
 */
#ifndef TRANSPORT_CURSOR_H
#define TRANSPORT_CURSOR_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct cursor {
    const struct iovec *iov;
    int n;
    size_t off; /* in iov[0] */
};

void cursor_skip(struct cursor *cur, size_t bytes);

/* The next piece, 1 to `limit` bytes in a row, and steps over it. There must be `limit` bytes. */
uint8_t *cursor_take(struct cursor *cur, size_t limit, size_t *len);

/* Copies of the next vectors, `max` at most and `limit` bytes of them at most, without stepping;
 * returns how many, and their bytes. */
int cursor_peek(const struct cursor *cur, struct iovec *out, int max, size_t limit, size_t *bytes);

#endif
