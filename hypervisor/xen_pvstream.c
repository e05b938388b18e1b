/* SPDX-License-Identifier: ISC */
/*
 *   image header     24 bytes: marker, id, version 3, options; big-endian. Bit 0 of the options
 * says big-endian, and nothing else is known domain header    16 bytes: type (1: x86 PV), page
 * shift, two bytes, release of Xen records          type, length of the body; the body, padded to 8
 * bytes END              a record without a body
 *
 * Records that only a checkpointed stream has (VERIFY, CHECKPOINT, lists of dirty frames), an HVM
 * guest's, and what nobody knows are refused, also those that say that they may be left
 * out. What is in the bodies is libxc's own affair.
 *
 * The state behind it, little-endian: "XENPV", zeroes to 8 bytes, u32 version (1), u32 vCPUs, u64
 * length of the stream.
 */
#include "hypervisor/xen_pvstream.h"

#include <endian.h>
#include <string.h>

#define IMAGE_ID 0x58454e46u /* "XENF" */
#define IMAGE_VERSION 3
#define DOMAIN_X86_PV 1
#define PAGE_SHIFT 12
#define STATE_MAGIC "XENPV\0\0"
#define STATE_VERSION 1

enum { IMAGE_LEN = 24, DOMAIN_LEN = 16, RECORD_LEN = 8 };
enum { ST_IMAGE, ST_DOMAIN, ST_RECORD };
enum { REC_END = 0 };

/* Of PV guests, by the numbers that they have in Xen's libxc-migration-stream. */
static const char *const record_names[] = { [REC_END] = "END",
    [1] = "PAGE_DATA",
    [2] = "X86_PV_INFO",
    [3] = "X86_PV_P2M_FRAMES",
    [4] = "X86_PV_VCPU_BASIC",
    [5] = "X86_PV_VCPU_EXTENDED",
    [6] = "X86_PV_VCPU_XSAVE",
    [7] = "SHARED_INFO",
    [8] = "X86_TSC_INFO",
    [12] = "X86_PV_VCPU_MSRS",
    [16] = "STATIC_DATA_END",
    [17] = "X86_CPUID_POLICY",
    [18] = "X86_MSR_POLICY" };

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof v);
    return le32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return le64toh(v);
}

static int check_image(const uint8_t *h, struct err *e)
{
    uint16_t options;

    memcpy(&options, h + 16, sizeof options);
    if (get64(h) != UINT64_MAX || be32toh(get32(h + 8)) != IMAGE_ID)
        return err_set(e, ERR_PROTOCOL, "the stream of the guest does not begin as libxc's do");
    if (be32toh(get32(h + 12)) != IMAGE_VERSION || options != 0)
        return err_set(e, ERR_UNSUPPORTED,
            "the stream of the guest is of libxc's version %u, options 0x%x; %u and 0 are known",
            be32toh(get32(h + 12)), be16toh(options), IMAGE_VERSION);
    return 0;
}

static int check_domain(const uint8_t *h, struct err *e)
{
    if (get32(h) == DOMAIN_X86_PV && (get32(h + 4) & 0xffff) == PAGE_SHIFT)
        return 0;
    return err_set(e, ERR_PROTOCOL, "the stream is of a guest of type %u, page shift %u; not pv",
        get32(h), get32(h + 4) & 0xffff);
}

static int check_record(struct xen_pvstream *s, struct err *e)
{
    uint32_t type = get32(s->head), len = get32(s->head + 4);

    if (type >= sizeof record_names / sizeof record_names[0] || record_names[type] == NULL)
        return err_set(e, ERR_PROTOCOL, "the stream of a pv guest has a record of type 0x%x", type);
    if (len > XEN_PVSTREAM_RECORD_MAX || (type == REC_END && len != 0))
        return err_set(e, ERR_PROTOCOL, "record %s of the guest's stream is %u bytes long",
            record_names[type], len);
    s->skip = ((uint64_t)len + 7) & ~UINT64_C(7);
    s->ended = type == REC_END;
    return 0;
}

static size_t head_len(const struct xen_pvstream *s)
{
    return s->stage == ST_IMAGE ? IMAGE_LEN : s->stage == ST_DOMAIN ? DOMAIN_LEN : RECORD_LEN;
}

static int take_head(struct xen_pvstream *s, struct err *e)
{
    int r = s->stage == ST_IMAGE    ? check_image(s->head, e)
            : s->stage == ST_DOMAIN ? check_domain(s->head, e)
                                    : check_record(s, e);

    s->n_head = 0;
    if (s->stage != ST_RECORD)
        s->stage++;
    return r;
}

/* A piece of a body, or of a header: how many bytes. */
static size_t take_piece(struct xen_pvstream *s, const uint8_t *data, size_t len)
{
    size_t n = s->skip;

    if (n > 0) {
        n = n < len ? n : len;
        s->skip -= n;
        return n;
    }
    n = head_len(s) - s->n_head;
    n = n < len ? n : len;
    memcpy(s->head + s->n_head, data, n);
    s->n_head += n;
    return n;
}

int64_t xen_pvstream_take(struct xen_pvstream *s, const uint8_t *data, size_t len, struct err *e)
{
    size_t at = 0;

    while (at < len && !s->ended) {
        at += take_piece(s, data + at, len - at);
        if (s->n_head == head_len(s) && take_head(s, e) < 0)
            return -1;
    }
    s->length += at;
    return (int64_t)at;
}

/* --- the state behind it --- */

void xen_pvstate_pack(const struct xen_pvstate *s, uint8_t out[XEN_PVSTREAM_STATE_LEN])
{
    const uint32_t words[] = { htole32(STATE_VERSION), htole32(s->vcpus) };
    const uint64_t length = htole64(s->length);

    memcpy(out, STATE_MAGIC, 8);
    memcpy(out + 8, words, sizeof words);
    memcpy(out + 16, &length, sizeof length);
}

int xen_pvstate_parse(const uint8_t *data, size_t len, struct xen_pvstate *out, struct err *e)
{
    if (len != XEN_PVSTREAM_STATE_LEN || memcmp(data, STATE_MAGIC, 8) != 0)
        return err_set(e, ERR_PROTOCOL, "the state is not that of a pv guest of Xen");
    if (get32(data + 8) != STATE_VERSION)
        return err_set(e, ERR_UNSUPPORTED,
            "the state of the pv guest is of version %u, this host knows %d; update the older host",
            get32(data + 8), STATE_VERSION);
    out->vcpus = get32(data + 12);
    out->length = get64(data + 16);
    return 0;
}

/* Beside each page its number (8 bytes), and those of frames that hold nothing; tables of the p2m;
 * vCPUs. */
uint64_t xen_pvstream_pages(uint64_t guest_pages)
{
    return guest_pages + guest_pages / 128 + 2048;
}
