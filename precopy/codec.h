/* SPDX-License-Identifier: ISC */
/*
 * codec: LZ4 and zstd (level 1) for runs of pages. One thread per struct, which holds the
 * libraries' contexts and frees them in codec_free. Decoding takes foreign bytes: it
 * writes what was asked for, no byte more, and takes no memory by their word.
 */
#ifndef CODEC_H
#define CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "transport/frame.h"

struct codec;

struct codec *codec_new(void); /* NULL: no memory */
void codec_free(struct codec **c);

/* Returns the length in dst[room], or 0 when it does not fit. FRAME_LZ4 or FRAME_ZSTD. */
size_t codec_pack(
    struct codec *c, enum frame_encoding how, const void *src, size_t len, void *dst, size_t room);
/* Exactly `len` bytes must come of it. */
int codec_unpack(struct codec *c, enum frame_encoding how, const void *src, size_t src_len,
    void *dst, size_t len, struct err *e);

#endif
