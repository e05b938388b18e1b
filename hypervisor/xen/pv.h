/* SPDX-License-Identifier: ISC */
/*
 * pv: the move of a PV guest, which stands still for all of it. Its page tables hold the
 * frame numbers of its machine, which only libxc translates, so what moves is libxc's
 * stream: hv_layout.stream, the engine's "memory" being the stream's bytes.
 *
 *   source  xen-domain save       xc_domain_save, into a socket that is its standard input
 *           pv_source.c           reads it page by page
 *   target  pv_target.c           writes it, page by page, to RUN_DIR/<uuid>/stream
 *           xen-domain incoming   hands it to libxl_domain_create_restore
 *
 * The worker's end of both (struct hv_mig's `pv`) belongs to the migration; the map
 * functions are for one thread, all others for one, when that has ended.
 */
#ifndef XEN_PV_H
#define XEN_PV_H

#include "hypervisor/xen/mig_internal.h"
#include "hypervisor/xen_pvstream.h"

#define PV_SILENT_MS 60000 /* without a byte, or room for one */
#define PV_ANSWER_MAX 500
/* What a source sends to ask for the stream. */
#define PV_GO 'g'

struct xen_pv {
    int fd;             /* the stream */
    int answer;         /* a source's: what xen-domain says in the end */
    pid_t pid;          /* so, too */
    bool begun;         /* a source's: the stream was asked for */
    bool failed, taken; /* a target's: why; libxl has built the domain */
    struct err err;
    uint64_t next;                         /* page that is due */
    uint8_t *window;                       /* HV_BATCH_PAGES pages; a target's, as a ring */
    uint64_t present[HV_BATCH_PAGES / 64]; /* of a target's ring: came, and wait for others */
    size_t n_mapped;
    uint64_t mapped[HV_BATCH_PAGES];
    struct xen_pvstream stream;
};

/* Everything of mig_open but its lock. */
int xen_pv_open(struct hv *hv, struct hv_mig *m, const xc_domaininfo_t *d, struct err *e);
void xen_pv_close(struct hv_mig *m);
int xen_pv_populated(const struct hv_mig *m, uint64_t *bitmap);

int xen_pv_map(struct hv_mig *m, const uint64_t *gfn, size_t n, bool write, struct hv_mapping *map,
    struct err *e);
void xen_pv_unmap(struct hv_mig *m, struct hv_mapping *map);
int xen_pv_zero(struct hv_mig *m, uint64_t gfn, uint64_t n, struct err *e);
int xen_pv_state_save(struct hv_mig *m, uint8_t **blob, size_t *len, struct err *e);
int xen_pv_state_load(struct hv_mig *m, const uint8_t *blob, size_t len, struct err *e);

/* pv_source.c, pv_target.c: one side of those above. */
int pv_source_open(struct hv *hv, struct hv_mig *m, const xc_domaininfo_t *d, struct err *e);
int pv_source_map(
    struct hv_mig *m, const uint64_t *gfn, size_t n, struct hv_mapping *map, struct err *e);
int pv_target_open(struct hv *hv, struct hv_mig *m, struct err *e);
int pv_target_map(
    struct hv_mig *m, const uint64_t *gfn, size_t n, struct hv_mapping *map, struct err *e);
/* The pages that were mapped have their content. */
void pv_target_came(struct hv_mig *m);
/* One line of xen-domain's, "ok ..." or "CODE TEXT"; ERR_PEER: it ended without one. */
int pv_answer(int fd, unsigned timeout_ms, struct err *e);
/* The region that the stream of a guest with that maximum of memory takes. */
void xen_pv_lay_out(struct hv_layout *l, uint64_t kib);

#endif
