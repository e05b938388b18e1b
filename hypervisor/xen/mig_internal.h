/* SPDX-License-Identifier: ISC */
/*
 * mig_internal: one side of a migration of a Xen domain. All descriptors are opened by
 * mig_open, since a worker may open none later. `xc` is for one thread at a time:
 * `lock` is held around it where several threads come (memory.c).
 */
#ifndef XEN_MIG_INTERNAL_H
#define XEN_MIG_INTERNAL_H

#include <stdatomic.h>

#include "hypervisor/xen/shares.h"
#include "hypervisor/xen/xen_internal.h"

#include <xengnttab.h> /* behind xenctrl.h, which says how Xen's headers are to be read */

struct xen_pv;

#define BLOCK_PAGES 512u /* 2 MiB: what is allocated, and on a target mapped, at once */

/* What must be undone when the holder of run_dir/<uuid>/migration is gone; the file's content. */
struct xen_mark {
    char magic[8];
    uint32_t domid;
    uint8_t log;    /* the dirty log is on */
    uint8_t late;   /* asked to suspend, and nobody waits for it: should it do so, resume it */
    uint8_t capped; /* the throttle is on; before, weight and cap were: */
    uint8_t unused;
    uint16_t weight, cap;
    char scheduler[16];
};

struct xen_target {
    bool whole; /* blocks are allocated whole: the guest has all its memory */
    size_t n_blocks;
    _Atomic(uint8_t *) *block; /* mapped for the whole migration, NULL not yet */
    uint64_t *populated;       /* pages outside of such blocks that were allocated here */
};

struct hv_mig {
    enum hv_side side;
    char uuid[HV_UUID_LEN];
    uint32_t domid;
    uint64_t epoch; /* the newest seen when it was opened */
    char scheduler[16];
    unsigned vcpus;
    pthread_mutex_t lock;
    xc_interface *xc;
    xenforeignmemory_handle *memory;
    struct xs_handle *xs;
    xengnttab_handle *grants; /* a source's; NULL: this kernel has none */
    int lock_fd;     /* -1 a viewer's */
    int incoming_fd; /* a target's: the mark that its folder has */
    int attach_fd;   /* a target's: what is attached, see attach.c */
    struct xen_mark mark;
    struct xen_pv *pv; /* of a PV guest, which has nothing of what follows but a layout; pv.h */
    struct hv_layout layout;
    uint64_t store_gfn, console_gfn; /* of the rings, which stay where they are */
    uint64_t *rims; /* bitmap of what is populated outside of RAM; NULL not asked yet */
    struct xen_target target;
    /* dirty.c */
    xc_hypercall_buffer_t log_buffer;
    uint64_t *log; /* that buffer, page by page; NULL not made */
    uint64_t *returned;
};

static inline size_t xen_bitmap_words(const struct hv_mig *m)
{
    return HV_BITMAP_WORDS(m->layout.max_gfn);
}

/* Clears what is not sent: bits outside of the layout and those of the two rings. */
void xen_mask_bitmap(const struct hv_mig *m, uint64_t *bitmap);

/* mig.c: writes the mark, so that another process can undo what follows. */
int xen_mark_write(struct hv_mig *m, struct err *e);
/* That an incoming domain may run now. */
int xen_mark_loaded(struct hv_mig *m, struct err *e);
/* The most memory it may have, by xenstore: from 1 MiB to 16 TiB, or ERR_STATE. */
int xen_maximum_kib(struct hv_mig *m, uint64_t *kib, struct err *e);

/* memory.c: what a target holds; what both sides remember. */
int xen_target_init(struct hv_mig *m, bool whole, struct err *e);
void xen_memory_free(struct hv_mig *m);

/* dirty.c */
int xen_log_off(xc_interface *xc, uint32_t domid, struct err *e);
int xen_set_cap(xc_interface *xc, uint32_t domid, const char *scheduler, struct xen_shares shares,
    struct err *e);
void xen_log_free(struct hv_mig *m);

/* rings.c: waits until all that a guest which stands still has asked of its disks is done. */
int xen_rings_drain(struct hv_mig *m, struct err *e);
void xen_rings_open(struct hv_mig *m);
void xen_rings_close(struct hv_mig *m);

/* state.c: lets a suspended domain go on; another is left as it is. */
int xen_go_on(xc_interface *xc, struct xs_handle *xs, uint32_t domid, struct err *e);
bool xen_is_suspended(const xc_domaininfo_t *d);
/* What is saved may run elsewhere next: refused if it runs here. */
int xen_check_still(struct hv_mig *m, struct err *e);

#endif
