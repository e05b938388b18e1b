/* SPDX-License-Identifier: ISC */
/*
 * LZ4: one block without a frame. zstd: one frame with its content size, so that its
 * memory is the caller's buffers and one context of a fixed size; a window is never
 * allocated, as all of the output is in one piece. Contexts are made at first use.
 */
#include "precopy/codec.h"

#include <lz4.h>
#include <stdlib.h>
#include <zstd.h>

#define ZSTD_LEVEL 1

struct codec {
    void *lz4;
    ZSTD_CCtx *pack;
    ZSTD_DCtx *unpack;
};

struct codec *codec_new(void)
{
    return calloc(1, sizeof(struct codec));
}

void codec_free(struct codec **cp)
{
    struct codec *c = *cp;

    if (c == NULL)
        return;
    *cp = NULL;
    free(c->lz4);
    ZSTD_freeCCtx(c->pack);
    ZSTD_freeDCtx(c->unpack);
    free(c);
}

static size_t pack_lz4(struct codec *c, const void *src, size_t len, void *dst, size_t room)
{
    int n;

    if (c->lz4 == NULL)
        c->lz4 = malloc((size_t)LZ4_sizeofState());
    if (c->lz4 == NULL)
        return 0;
    n = LZ4_compress_fast_extState(c->lz4, src, dst, (int)len, (int)room, 1);
    return n > 0 ? (size_t)n : 0;
}

static size_t pack_zstd(struct codec *c, const void *src, size_t len, void *dst, size_t room)
{
    size_t n;

    if (c->pack == NULL)
        c->pack = ZSTD_createCCtx();
    if (c->pack == NULL)
        return 0;
    n = ZSTD_compressCCtx(c->pack, dst, room, src, len, ZSTD_LEVEL);
    return ZSTD_isError(n) ? 0 : n;
}

size_t codec_pack(
    struct codec *c, enum frame_encoding how, const void *src, size_t len, void *dst, size_t room)
{
    return how == FRAME_LZ4 ? pack_lz4(c, src, len, dst, room) : pack_zstd(c, src, len, dst, room);
}

static int unpack_zstd(
    struct codec *c, const void *src, size_t src_len, void *dst, size_t len, struct err *e)
{
    if (c->unpack == NULL)
        c->unpack = ZSTD_createDCtx();
    if (c->unpack == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for zstd");
    if (ZSTD_findFrameCompressedSize(src, src_len) != src_len ||
        ZSTD_getFrameContentSize(src, src_len) != len ||
        ZSTD_decompressDCtx(c->unpack, dst, len, src, src_len) != len)
        return err_set(e, ERR_PROTOCOL, "a zstd run is malformed");
    return 0;
}

int codec_unpack(struct codec *c, enum frame_encoding how, const void *src, size_t src_len,
    void *dst, size_t len, struct err *e)
{
    if (how != FRAME_LZ4)
        return unpack_zstd(c, src, src_len, dst, len, e);
    if (LZ4_decompress_safe(src, dst, (int)src_len, (int)len) != (int)len)
        return err_set(e, ERR_PROTOCOL, "an LZ4 run is malformed");
    return 0;
}
