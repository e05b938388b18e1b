/* SPDX-License-Identifier: ISC */
/*
 *   libxl header       ident, version 2, options; big-endian
 *   LIBXC_CONTEXT      an empty record: libxc's stream follows
 *     image header     marker, id, version 3, options; big-endian
 *     domain header    x86 HVM (which PVH is, too), page shift, release of Xen; little-endian
 *     STATIC_DATA_END  no CPU policy came before: libxl gives the domain its own
 *     PAGE_DATA        the special pages, to be allocated, without content
 *     HVM_PARAMS       the gfns of the rings; libxc prepares both pages
 *     HVM_CONTEXT      a header and an end: Xen leaves all vCPUs down
 *     END
 *   END
 *
 * Everything is a few hundred bytes, so it is written into a file in memory at once.
 */
#define _GNU_SOURCE
#include "hypervisor/xen/stream.h"

#include <endian.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xen/hvm/params.h>
#include <xen/hvm/save.h>

#include "base/io.h"

#define IMAGE_ID 0x58454e46u                     /* "XENF" */
#define IMAGE_VERSION 3
#define DOMAIN_X86_HVM 2

#define LIBXL_END 0
enum {
    REC_END = 0,
    REC_PAGE_DATA = 1,
    REC_HVM_CONTEXT = 9,
    REC_HVM_PARAMS = 10,
    REC_STATIC_DATA_END = 16
};

/* In the uppermost bits of a page's word. */
#define PAGE_ALLOCATE_ONLY ((uint64_t)(XEN_DOMCTL_PFINFO_XALLOC >> 28) << 60)

struct bytes {
    size_t len;
    uint8_t at[1024];
};

static void put(struct bytes *b, const void *p, size_t len)
{
    memcpy(b->at + b->len, p, len);
    b->len += len;
}

static void put16(struct bytes *b, uint16_t v)
{
    put(b, &v, sizeof v);
}

static void put32(struct bytes *b, uint32_t v)
{
    put(b, &v, sizeof v);
}

static void put64(struct bytes *b, uint64_t v)
{
    put(b, &v, sizeof v);
}

/* Bodies are padded to 8 bytes, which the length does not count. */
static void record(struct bytes *b, uint32_t type, const struct bytes *body)
{
    static const uint8_t zeroes[8];

    put32(b, type);
    put32(b, (uint32_t)body->len);
    put(b, body->at, body->len);
    put(b, zeroes, -body->len & 7);
}

static void headers(struct bytes *b, unsigned xen_major, unsigned xen_minor)
{
    put64(b, UINT64_MAX);
    put32(b, htobe32(IMAGE_ID));
    put32(b, htobe32(IMAGE_VERSION));
    put16(b, 0);
    put16(b, 0);
    put32(b, 0);
    put32(b, DOMAIN_X86_HVM);
    put16(b, XC_PAGE_SHIFT);
    put16(b, 0);
    put32(b, xen_major);
    put32(b, xen_minor);
}

static void pages(struct bytes *b)
{
    struct bytes body = { .len = 0 };

    put32(&body, XEN_SPECIAL_PAGES);
    put32(&body, 0);
    for (uint64_t i = 0; i < XEN_SPECIAL_PAGES; i++)
        put64(&body, (XEN_SPECIAL_GFN + i) | PAGE_ALLOCATE_ONLY);
    record(b, REC_PAGE_DATA, &body);
}

static void params(struct bytes *b)
{
    struct bytes body = { .len = 0 };

    put32(&body, 2);
    put32(&body, 0);
    put64(&body, HVM_PARAM_STORE_PFN);
    put64(&body, XEN_SPECIAL_STORE);
    put64(&body, HVM_PARAM_CONSOLE_PFN);
    put64(&body, XEN_SPECIAL_CONSOLE);
    record(b, REC_HVM_PARAMS, &body);
}

static void context_entry(struct bytes *b, uint16_t type, const void *p, uint32_t len)
{
    struct hvm_save_descriptor d = { .typecode = type, .length = len };

    put(b, &d, sizeof d);
    put(b, p, len);
}

static void context(struct bytes *b)
{
    struct hvm_save_header head = { .magic = HVM_FILE_MAGIC, .version = HVM_FILE_VERSION };
    struct bytes body = { .len = 0 };

    context_entry(&body, HVM_SAVE_CODE(HEADER), &head, sizeof head);
    context_entry(&body, HVM_SAVE_CODE(END), NULL, 0);
    record(b, REC_HVM_CONTEXT, &body);
}

int xen_stream_open(unsigned xen_major, unsigned xen_minor, struct err *e)
{
    static const struct bytes none;
    struct bytes b = { .len = 0 };
    int fd = memfd_create("xen-stream", MFD_CLOEXEC);

    if (fd < 0)
        return err_sys(e, "memfd_create");
    put64(&b, htobe64(XEN_LIBXL_IDENT));
    put32(&b, htobe32(XEN_STREAM_VERSION));
    put32(&b, 0);
    record(&b, XEN_LIBXL_LIBXC_CONTEXT, &none);
    headers(&b, xen_major, xen_minor);
    record(&b, REC_STATIC_DATA_END, &none);
    pages(&b);
    params(&b);
    context(&b);
    record(&b, REC_END, &none);
    record(&b, LIBXL_END, &none);
    if (io_write_full(fd, b.at, b.len, IO_FOREVER, e) < 0 || lseek(fd, 0, SEEK_SET) < 0) {
        io_close(&fd);
        return -1;
    }
    return fd;
}
