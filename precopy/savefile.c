/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "precopy/savefile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/io.h"
#include "hypervisor/hypervisor.h"

#define OFFER_MAX (1u << 20)
#define FINAL_MAX (HV_STATE_MAX + 4096u)
#define VECTORS 64

struct file_head {
    char magic[8];
    uint32_t version, reserved;
};
_Static_assert(sizeof(struct file_head) == 16, "file format");

struct block_head {
    uint32_t length, reserved;
    uint64_t digest;
};
_Static_assert(sizeof(struct block_head) == 16, "file format");

/* --- blocks --- */

static int write_all(int fd, const void *buf, size_t len, struct err *e)
{
    if (io_write_full(fd, buf, len, IO_FOREVER, e) < 0)
        return err_prefix(e, "save file");
    return 0;
}

static int read_all(int fd, void *buf, size_t len, struct err *e)
{
    struct err w = { 0 };

    if (io_read_full(fd, buf, len, IO_FOREVER, &w) == 0)
        return 0;
    if (w.code == ERR_PEER)
        return err_set(e, ERR_INTEGRITY, "save file: it ends too early");
    return err_set(e, w.code, "save file: %s", w.text);
}

static int write_block(int fd, const ProtobufCMessage *m, struct err *e)
{
    size_t len = protobuf_c_message_get_packed_size(m);
    struct block_head head = { .length = (uint32_t)len };
    uint8_t *buf = malloc(len + 1);
    int r;

    if (buf == NULL)
        return err_set(e, ERR_MEMORY, "save file: out of memory for %zu bytes", len);
    protobuf_c_message_pack(m, buf);
    head.digest = XXH3_64bits(buf, len);
    r = write_all(fd, &head, sizeof head, e);
    if (r == 0)
        r = write_all(fd, buf, len, e);
    free(buf);
    return r;
}

static ProtobufCMessage *parse_block(const struct block_head *head, const uint8_t *buf,
    const ProtobufCMessageDescriptor *type, struct err *e)
{
    ProtobufCMessage *m = NULL;

    if (XXH3_64bits(buf, head->length) == head->digest)
        m = protobuf_c_message_unpack(type, NULL, head->length, buf);
    if (m == NULL)
        err_set(e, ERR_INTEGRITY, "save file: its %s is damaged", type->short_name);
    return m;
}

static ProtobufCMessage *read_block(
    int fd, const ProtobufCMessageDescriptor *type, size_t limit, struct err *e)
{
    ProtobufCMessage *m = NULL;
    struct block_head head;
    uint8_t *buf;

    if (read_all(fd, &head, sizeof head, e) < 0)
        return NULL;
    if (head.length > limit || head.reserved != 0) {
        err_set(e, ERR_INTEGRITY, "save file: its %s is said to have %u bytes", type->short_name,
            head.length);
        return NULL;
    }
    buf = malloc((size_t)head.length + 1);
    if (buf == NULL)
        err_set(e, ERR_MEMORY, "save file: out of memory for %u bytes", head.length);
    else if (read_all(fd, buf, head.length, e) == 0)
        m = parse_block(&head, buf, type, e);
    free(buf);
    return m;
}

int savefile_write_head(int fd, const Migrd__Offer *o, struct err *e)
{
    struct file_head h = { .version = SAVEFILE_VERSION };

    memcpy(h.magic, SAVEFILE_MAGIC, sizeof h.magic);
    if (write_all(fd, &h, sizeof h, e) < 0)
        return -1;
    return write_block(fd, &o->base, e);
}

int savefile_write_final(int fd, const Migrd__FinalState *f, struct err *e)
{
    return write_block(fd, &f->base, e);
}

Migrd__Offer *savefile_read_head(int fd, struct err *e)
{
    struct file_head h;

    if (read_all(fd, &h, sizeof h, e) < 0)
        return NULL;
    if (memcmp(h.magic, SAVEFILE_MAGIC, sizeof h.magic) != 0) {
        err_set(e, ERR_INVALID, "this is not a save file of migrd");
        return NULL;
    }
    if (h.version != SAVEFILE_VERSION) {
        err_set(e, ERR_UNSUPPORTED, "save file of format %u, this release reads %d", h.version,
            SAVEFILE_VERSION);
        return NULL;
    }
    return (Migrd__Offer *)read_block(fd, &migrd__offer__descriptor, OFFER_MAX, e);
}

Migrd__FinalState *savefile_read_final(int fd, struct err *e)
{
    return (Migrd__FinalState *)read_block(fd, &migrd__final_state__descriptor, FINAL_MAX, e);
}

/* --- frames --- */

/* Copies up to VECTORS of what is left after `done` bytes of iov[0]. */
static int window(struct iovec *out, const struct iovec *iov, int n, size_t done)
{
    int k = n < VECTORS ? n : VECTORS;

    memcpy(out, iov, (size_t)k * sizeof *out);
    out[0].iov_base = (char *)out[0].iov_base + done;
    out[0].iov_len -= done;
    return k;
}

static int whole_vectors(int fd, bool writing, const struct iovec *iov, int n, struct err *e)
{
    size_t done = 0; /* of iov[0] */

    while (n > 0) {
        struct iovec v[VECTORS];
        int k = window(v, iov, n, done);
        ssize_t r = writing ? writev(fd, v, k) : readv(fd, v, k);

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return err_sys(e, "save file");
        if (r == 0)
            return err_set(e, ERR_INTEGRITY, "save file: it ends too early");
        for (done += (size_t)r; n > 0 && done >= iov->iov_len; n--, iov++)
            done -= iov->iov_len;
    }
    return 0;
}

static int port_writev(void *ctx, const struct iovec *iov, int n, struct err *e)
{
    return whole_vectors(*(int *)ctx, true, iov, n, e);
}

static int port_readv(void *ctx, const struct iovec *iov, int n, struct err *e)
{
    return whole_vectors(*(int *)ctx, false, iov, n, e);
}

struct pages_port savefile_port(int *fd)
{
    return (struct pages_port){ port_writev, port_readv, fd };
}
