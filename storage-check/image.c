/* SPDX-License-Identifier: ISC */
/*
 * Signatures at offset 0, but VDI's at 64. Backing files: qcow and qcow2 name theirs by a
 * u64 offset at 8 and a u32 length at 16 (big-endian); QED by u32 offset and length at 56
 * and 60 (little-endian) if bit 0 of the features at 16 is set; VMDK in the text of its
 * descriptor, parentFileNameHint="...". A name that lies beyond the bytes at hand is "?".
 */
#define _GNU_SOURCE
#include "storage-check/image.h"

#include <stdio.h>
#include <string.h>

struct signature {
    const char *format;
    size_t at, len;
    const char *bytes;
};

static const struct signature signatures[] = {
    { "qcow", 0, 4, "QFI\xfb" },
    { "qed", 0, 4, "QED\0" },
    { "vmdk", 0, 4, "KDMV" },
    { "vmdk", 0, 4, "COWD" },
    { "vmdk", 0, 21, "# Disk DescriptorFile" },
    { "vdi", 64, 4, "\x7f\x10\xda\xbe" },
    { "vhdx", 0, 8, "vhdxfile" },
    { "vhd", 0, 8, "conectix" },
    { "parallels", 0, 16, "WithoutFreeSpace" },
    { "parallels", 0, 16, "WithouFreSpacExt" },
};

static uint64_t number(const uint8_t *p, size_t bytes, int big)
{
    uint64_t v = 0;

    for (size_t i = 0; i < bytes; i++)
        v = v << 8 | p[big ? i : bytes - 1 - i];
    return v;
}

/* A name in the header: printable, or it is not shown. */
static void take_name(
    const uint8_t *head, size_t len, uint64_t at, uint64_t n, char backing[IMAGE_NAME])
{
    if (n == 0 || at == 0)
        return;
    snprintf(backing, IMAGE_NAME, "?");
    if (n >= IMAGE_NAME || at > len || n > len - at)
        return;
    for (uint64_t i = 0; i < n; i++)
        backing[i] = head[at + i] >= 0x20 && head[at + i] != 0x7f ? (char)head[at + i] : '?';
    backing[n] = '\0';
}

static void vmdk_parent(const uint8_t *head, size_t len, char backing[IMAGE_NAME])
{
    static const char key[] = "parentFileNameHint=\"";
    const uint8_t *p = memmem(head, len, key, sizeof key - 1), *end;

    if (p == NULL)
        return;
    p += sizeof key - 1;
    end = memchr(p, '"', len - (size_t)(p - head));
    if (end != NULL)
        take_name(head, len, (uint64_t)(p - head), (uint64_t)(end - p), backing);
}

const char *image_format(const uint8_t *head, size_t len, char backing[IMAGE_NAME])
{
    const struct signature *s = NULL;

    backing[0] = '\0';
    for (size_t i = 0; i < sizeof signatures / sizeof signatures[0] && s == NULL; i++) {
        s = &signatures[i];
        if (len < s->at + s->len || memcmp(head + s->at, s->bytes, s->len) != 0)
            s = NULL;
    }
    if (s == NULL)
        return NULL;
    if (strcmp(s->format, "qcow") == 0 && len >= 20)
        take_name(head, len, number(head + 8, 8, 1), number(head + 16, 4, 1), backing);
    else if (strcmp(s->format, "qed") == 0 && len >= 64 && (head[16] & 1) != 0)
        take_name(head, len, number(head + 56, 4, 0), number(head + 60, 4, 0), backing);
    else if (strcmp(s->format, "vmdk") == 0)
        vmdk_parent(head, len, backing);
    if (strcmp(s->format, "qcow") == 0 && len >= 8 && number(head + 4, 4, 1) >= 2)
        return "qcow2";
    return s->format;
}
