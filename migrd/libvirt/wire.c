/* SPDX-License-Identifier: ISC */
/*
 * A frame: seven big-endian words (length of all of it, program, version, procedure,
 * type, serial, status), then the payload in XDR. XDR itself, with the limits of remote.x,
 * is libtirpc's; here is what it does not look at: that the payload ends where the frame
 * does, and how large either may be.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "migrd/libvirt/internal.h"

static uint32_t get_word(const uint8_t *p, unsigned i)
{
    uint32_t v;

    memcpy(&v, p + i * 4, 4);
    return ntohl(v);
}

static void put_word(uint8_t *p, unsigned i, uint32_t v)
{
    v = htonl(v);
    memcpy(p + i * 4, &v, 4);
}

int lv_header_read(const uint8_t *p, size_t n, struct lv_header *h, struct err *e)
{
    if (n < 4)
        return 0;
    h->len = get_word(p, 0);
    if (h->len < LV_HEADER_BYTES || h->len > LV_FRAME_MAX)
        return err_set(e, ERR_PROTOCOL, "a frame of %u bytes; %u to %u are allowed", h->len,
            LV_HEADER_BYTES, LV_FRAME_MAX);
    if (n < h->len)
        return 0;
    h->prog = get_word(p, 1);
    h->vers = get_word(p, 2);
    h->proc = (int32_t)get_word(p, 3);
    h->type = (int32_t)get_word(p, 4);
    h->serial = get_word(p, 5);
    h->status = (int32_t)get_word(p, 6);
    return 1;
}

static void header_write(uint8_t *p, const struct lv_header *h)
{
    put_word(p, 0, h->len);
    put_word(p, 1, h->prog);
    put_word(p, 2, h->vers);
    put_word(p, 3, (uint32_t)h->proc);
    put_word(p, 4, (uint32_t)h->type);
    put_word(p, 5, h->serial);
    put_word(p, 6, (uint32_t)h->status);
}

uint8_t *lv_pack(struct lv_header *h, xdrproc_t proc, void *data, struct err *e)
{
    size_t payload = proc == NULL ? 0 : xdr_sizeof(proc, data);
    uint8_t *frame;
    bool ok = true;
    XDR x;

    if (payload > LV_ANSWER_MAX - LV_HEADER_BYTES || (payload == 0 && proc != NULL)) {
        err_set(e, ERR_RESOURCE, "the answer is too long for libvirt's protocol");
        return NULL;
    }
    h->len = (uint32_t)(LV_HEADER_BYTES + payload);
    frame = malloc(h->len);
    if (frame == NULL) {
        err_set(e, ERR_MEMORY, "migrd is out of memory");
        return NULL;
    }
    header_write(frame, h);
    if (proc != NULL) {
        xdrmem_create(&x, (char *)frame + LV_HEADER_BYTES, (u_int)payload, XDR_ENCODE);
        ok = proc(&x, data);
        xdr_destroy(&x);
    }
    if (ok)
        return frame;
    free(frame);
    err_set(e, ERR_INTERNAL, "the answer cannot be encoded");
    return NULL;
}

void lv_drop_word(struct lv_header *h, uint8_t *frame)
{
    h->len -= 4;
    put_word(frame, 0, h->len);
    memmove(frame + LV_HEADER_BYTES, frame + LV_HEADER_BYTES + 4, h->len - LV_HEADER_BYTES);
}

uint8_t *lv_pack_raw(struct lv_header *h, const void *data, size_t n)
{
    uint8_t *frame = malloc(LV_HEADER_BYTES + n);

    if (frame == NULL)
        return NULL;
    h->len = (uint32_t)(LV_HEADER_BYTES + n);
    header_write(frame, h);
    if (n > 0)
        memcpy(frame + LV_HEADER_BYTES, data, n);
    return frame;
}

int lv_unpack(xdrproc_t proc, const uint8_t *p, size_t n, void *out, struct err *e)
{
    bool ok;
    XDR x;

    if (proc == NULL)
        return n == 0 ? 0 : err_set(e, ERR_PROTOCOL, "the call has %zu bytes too many", n);
    xdrmem_create(&x, (char *)(uintptr_t)p, (u_int)n, XDR_DECODE);
    ok = proc(&x, out);
    /* What comes is what would be sent: no bytes too many, no NUL inside a string. */
    if (ok && (xdr_getpos(&x) != n || xdr_sizeof(proc, out) != n)) {
        xdr_free(proc, out);
        return err_set(e, ERR_PROTOCOL, "the call's arguments have bytes that do not belong there");
    }
    xdr_destroy(&x);
    if (ok)
        return 0;
    xdr_free(proc, out);
    return err_set(e, ERR_PROTOCOL, "the call's arguments cannot be decoded");
}

char *lv_copy(const char *text)
{
    return strdup(text != NULL ? text : "");
}
