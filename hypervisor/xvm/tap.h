/* SPDX-License-Identifier: ISC */
/*
 * tap: the host's end of a guest's network card. A tap made here vanishes with its
 * descriptor; one that the administrator made beforehand is used as it is and stays.
 */
#ifndef XVM_TAP_H
#define XVM_TAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define TAP_NAME_LEN 16 /* IFNAMSIZ */
#define TAP_MTU_MAX 65521u

struct tap {
    int fd; /* non-blocking; one packet per read and write, each after a 12-byte virtio_net_hdr */
    char name[TAP_NAME_LEN];
    uint32_t mtu;
};

struct tap_config {
    const char *ifname; /* "" makes one up from `index` */
    const char *bridge; /* "" none */
    const uint8_t *mac; /* of the guest, 6 bytes */
    uint32_t mtu;       /* 0: the bridge's */
    unsigned index;
};

/* Makes it, puts it on the bridge and brings it up. An error names tap and bridge; nothing is left
 * then. */
int tap_open(struct tap *t, const struct tap_config *cfg, struct err *e);
void tap_close(struct tap *t);

/* Throws away what has come in so far. */
void tap_drain(const struct tap *t);

/* What the guest takes from us without checksums and cut to size; `flags` of TUNSETOFFLOAD. */
int tap_offload(const struct tap *t, unsigned flags, struct err *e);

#endif
