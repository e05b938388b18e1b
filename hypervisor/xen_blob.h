/* SPDX-License-Identifier: ISC */
/*
 * xen_blob: the state of a Xen guest (PVH), as one host gives it to another: a container of
 * named sections (hypervisor/xvm/state.h) with what libxc would send beside memory. The
 * bytes come from a peer: everything is counted and compared here before Xen sees it. No
 * part of it needs Xen, so it is in every build, and its tests run everywhere.
 */
#ifndef XEN_BLOB_H
#define XEN_BLOB_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define XEN_BLOB_LEAVES_MAX 1024
#define XEN_BLOB_MSRS_MAX 256
#define XEN_BLOB_PARAMS_MAX 64
#define XEN_BLOB_CONTEXT_MAX (8u << 20)

struct xen_blob_leaf { /* as xen_cpuid_leaf_t */
    uint32_t leaf, subleaf, a, b, c, d;
};

struct xen_blob_msr { /* as xen_msr_entry_t */
    uint32_t index, flags;
    uint64_t value;
};

struct xen_blob_param {
    uint64_t index, value;
};

struct xen_blob {
    uint32_t vcpus; /* the most that it may have */
    uint32_t n_leaves, n_msrs, n_params;
    struct xen_blob_leaf leaf[XEN_BLOB_LEAVES_MAX];
    struct xen_blob_msr msr[XEN_BLOB_MSRS_MAX];
    struct xen_blob_param param[XEN_BLOB_PARAMS_MAX];
    struct {
        uint32_t mode, khz, incarnation;
        uint64_t ns;
    } tsc;
    uint32_t context_len;
    uint8_t *context; /* malloc'ed */
};

int xen_blob_pack(const struct xen_blob *b, uint8_t **out, size_t *len, struct err *e);
/* Errors name the section. On success free with xen_blob_free. */
int xen_blob_parse(const uint8_t *data, size_t len, struct xen_blob **out, struct err *e);
void xen_blob_free(struct xen_blob **b);

/* Entries of an HVM context. The walk ends at the end entry. */
struct xen_context_entry {
    uint16_t type, instance;
    uint32_t len;
    const uint8_t *body;
};

/* *at begins with 0; 1 an entry, 0 the end, -1 malformed. */
int xen_context_next(
    const uint8_t *context, size_t len, size_t *at, struct xen_context_entry *out, struct err *e);
/* Well-formed from the header to the end, no entry of a vCPU that the domain has not. */
int xen_context_check(const uint8_t *context, size_t len, uint32_t vcpus, struct err *e);

#endif
