/* SPDX-License-Identifier: ISC */
/*
 * Page 0x83 (SPC-4, 7.8.6): four bytes of header, length of the rest in the last two,
 * then designators: code set, type and association, reserved, length, that many bytes.
 * Association 0 is the logical unit. Types: 1 T10 vendor, 2 EUI-64, 3 NAA, 8 SCSI name.
 * Page 0x80: the same header, then text.
 * READ KEYS, READ RESERVATION (SPC-4, 6.15): generation, length of what follows, entries.
 */
#include "storage-check/vpd.h"

#include <stdio.h>
#include <string.h>

#define HEADER 4u
#define PR_HEADER 8u
#define WRITE_EXCLUSIVE_RO_BIT 0x20u /* first byte of the type mask; write exclusive, registrants  \
                                      */
#define WRITE_PROTECT_BIT 0x80u

static uint32_t be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t be32(const uint8_t *p)
{
    return be16(p) << 16 | be16(p + 2);
}

static uint64_t be64(const uint8_t *p)
{
    return (uint64_t)be32(p) << 32 | be32(p + 4);
}

/* Bytes after the header that the device claims and that are there. */
static size_t body(const uint8_t *page, size_t len)
{
    size_t said;

    if (len < HEADER)
        return 0;
    said = be16(page + 2);
    return said < len - HEADER ? said : len - HEADER;
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\0';
}

/* Text without blanks at the ends; what is not printable is a '?', so that it can be shown. */
static void copy_text(const uint8_t *p, size_t n, char out[VPD_NAME_LEN])
{
    size_t to = 0;

    while (n > 0 && is_blank(p[n - 1]))
        n--;
    while (n > 0 && is_blank(*p))
        p++, n--;
    for (size_t i = 0; i < n && to + 1 < VPD_NAME_LEN; i++)
        out[to++] = p[i] > 0x20 && p[i] < 0x7f ? (char)p[i] : p[i] == ' ' ? ' ' : '?';
    out[to] = '\0';
}

static void copy_hex(const uint8_t *p, size_t n, char out[VPD_NAME_LEN])
{
    out[0] = '\0';
    for (size_t i = 0; i < n && 2 * i + 2 < VPD_NAME_LEN; i++)
        snprintf(out + 2 * i, 3, "%02x", p[i]);
}

static const char *kind_of(unsigned type)
{
    switch (type) {
    case 1:
        return "t10";
    case 2:
        return "eui64";
    case 3:
        return "naa";
    case 8:
        return "scsi-name";
    default:
        return NULL; /* ports, groups and vendors' own */
    }
}

static bool known(const struct vpd_name *names, size_t n, const struct vpd_name *one)
{
    for (size_t i = 0; i < n; i++)
        if (names[i].kind == one->kind && strcmp(names[i].value, one->value) == 0)
            return true;
    return false;
}

/* A designator of `len` bytes after its header at `p`. */
static bool name_of(const uint8_t *p, size_t len, struct vpd_name *out)
{
    bool binary = (p[0] & 0x0f) == 1;

    out->kind = kind_of(p[1] & 0x0f);
    if (out->kind == NULL || (p[1] & 0x30) != 0)
        return false;
    if (binary)
        copy_hex(p + HEADER, len, out->value);
    else
        copy_text(p + HEADER, len, out->value);
    return out->value[0] != '\0';
}

size_t vpd_names(const uint8_t *page, size_t len, struct vpd_name out[VPD_NAMES_MAX])
{
    size_t left = body(page, len), n = 0;
    const uint8_t *p = page + HEADER;

    if (left == 0 || page[1] != 0x83)
        return 0;
    while (left >= HEADER && n < VPD_NAMES_MAX) {
        size_t take = p[3];

        if (take > left - HEADER)
            break;
        if (name_of(p, take, &out[n]) && !known(out, n, &out[n]))
            n++;
        p += HEADER + take;
        left -= HEADER + take;
    }
    return n;
}

void vpd_serial(const uint8_t *page, size_t len, char out[VPD_NAME_LEN])
{
    size_t n = body(page, len);

    out[0] = '\0';
    if (n > 0 && page[1] == 0x80)
        copy_text(page + HEADER, n, out);
}

bool vpd_capacity(const uint8_t *data, size_t len, uint64_t *bytes, uint32_t *block_size)
{
    uint64_t last;

    if (len < 12)
        return false;
    last = be64(data);
    *block_size = be32(data + 8);
    if (*block_size < 512 || *block_size > (1u << 20) || (*block_size & (*block_size - 1)) != 0 ||
        last >= UINT64_MAX / *block_size)
        return false;
    *bytes = (last + 1) * *block_size;
    return true;
}

bool vpd_write_protected(const uint8_t *data, size_t len)
{
    return len >= HEADER && (data[2] & WRITE_PROTECT_BIT) != 0;
}

size_t vpd_keys(const uint8_t *data, size_t len, uint64_t keys[VPD_KEYS_MAX])
{
    size_t n, there;

    if (len < PR_HEADER)
        return 0;
    n = be32(data + 4) / 8;
    there = (len - PR_HEADER) / 8;
    if (there < n)
        n = there;
    for (size_t i = 0; i < n && i < VPD_KEYS_MAX; i++)
        keys[i] = be64(data + PR_HEADER + i * 8);
    return n < VPD_KEYS_MAX ? n : VPD_KEYS_MAX;
}

bool vpd_holder(const uint8_t *data, size_t len, uint64_t *key, unsigned *type)
{
    if (len < PR_HEADER + 16 || be32(data + 4) < 16)
        return false;
    *key = be64(data + PR_HEADER);
    *type = data[PR_HEADER + 13] & 0x0fu;
    return true;
}

bool vpd_can_reserve(const uint8_t *data, size_t len)
{
    if (len < 6 || be16(data) < 6)
        return false;
    /* bit TMV: the mask of types means something */
    return (data[3] & 0x80) == 0 || (data[4] & WRITE_EXCLUSIVE_RO_BIT) != 0;
}
