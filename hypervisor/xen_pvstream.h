/* SPDX-License-Identifier: ISC */
/*
 * xen_pvstream: the stream that libxc writes of a PV guest, looked at as it passes: is it
 * one, where does it end. The bytes come from a peer or from the guest's own tables, and
 * their next reader is libxc as root, so its frame is checked here first. The struct is
 * the caller's and holds no memory. No part of it needs Xen: it is in every build.
 */
#ifndef XEN_PVSTREAM_H
#define XEN_PVSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define XEN_PVSTREAM_RECORD_MAX (16u << 20) /* of a body; pages come by 4 MiB */
#define XEN_PVSTREAM_STATE_LEN 24

struct xen_pvstream {
    uint64_t length; /* bytes that are part of it, so far */
    bool ended;      /* its last record is complete */
    unsigned stage;
    uint64_t skip;    /* of a body, its padding with it */
    uint8_t head[24]; /* the header that is being gathered */
    size_t n_head;
};

/* How many of the bytes belong to the stream: all of them until it has ended. -1: it is none. */
int64_t xen_pvstream_take(struct xen_pvstream *s, const uint8_t *data, size_t len, struct err *e);

/* What a source sends behind the stream: which one it was. */
struct xen_pvstate {
    uint32_t vcpus;
    uint64_t length;
};

void xen_pvstate_pack(const struct xen_pvstate *s, uint8_t out[XEN_PVSTREAM_STATE_LEN]);
int xen_pvstate_parse(const uint8_t *data, size_t len, struct xen_pvstate *out, struct err *e);

/* Pages of a region of HV_PAGE_SIZE that the stream of a guest fits into, whatever it holds. */
uint64_t xen_pvstream_pages(uint64_t guest_pages);

#endif
