/* SPDX-License-Identifier: ISC */
/*
 * xen_domain: the insides of the program `xen-domain`, which does what libxl does with
 * processes and scripts of its own. One verb per process; the definition (a packed
 * Migrd__Domain) comes on standard input, the answer is one line on standard output:
 * "ok NUMBER" (the domid; of `definition` the packed definition) or "CODE TEXT" with a name of
 * err_code_name().
 */
#ifndef XEN_DOMAIN_H
#define XEN_DOMAIN_H

#include <libxl.h>
#include <libxl_utils.h>

#include "base/err.h"
#include "hypervisor/domain.pb-c.h"
#include "hypervisor/rundir.h"

#define XEN_HOTPLUG "xen-hotplug"

struct xl {
    libxl_ctx *ctx;
    const char *run_dir;  /* the folder of all domains */
    const char *hotplug;  /* the path of xen-hotplug; NULL: Xen's scripts do it all */
    char dir[RUNDIR_LEN]; /* the domain's own */
    const char *uuid;
    uint64_t epoch, kib;
    unsigned vcpus;
    bool blown, comes; /* comes: by a migration */
    int answer;        /* -1: it was given */
    /* The domain is there, and counts from here on, though its build goes on: gives the answer. */
    int (*exists)(struct xl *x, struct err *e);
    uint32_t domid; /* of the domain, once there is one */
    int attach_fd;  /* xl_attach_begin's, of a domain that comes */
    struct xentoollog_logger *log;
    char said[400]; /* the first error that libxl told, for the answer */
};

/* --- config.c: a definition as libxl wants it, and back --- */

/* Everything but interfaces and disks if !devices (those of an incoming domain come later). The
 * caller runs libxl_domain_config_init before, and _dispose after, also after a failure. `hotplug`:
 * the script of devices that xen-hotplug may do, or NULL. */
int xen_config(const Migrd__Domain *def, bool devices, const char *hotplug, libxl_domain_config *c,
    struct err *e);
int xen_config_disk(const Migrd__Disk *d, libxl_device_disk *out, struct err *e);
/* What can be told of a domain that somebody else made. NULL on failure. */
Migrd__Domain *xen_config_definition(const libxl_domain_config *c, struct err *e);

/* ERR_* with what libxl said. `what`: "building the domain". */
int xl_fail(struct xl *x, struct err *e, int rc, const char *what);

/* --- build.c: the verbs --- */

/* Fills x->domid; the domain is paused. On failure something of it may be left, see discard. */
int xl_start(struct xl *x, const Migrd__Domain *def, struct err *e);
/* These work on x->domid; `def`, where it is not named, is NULL. */
int xl_destroy(struct xl *x, const Migrd__Domain *def, struct err *e);
int xl_memory(struct xl *x, const Migrd__Domain *def, struct err *e);
int xl_vcpus(struct xl *x, const Migrd__Domain *def, struct err *e);
/* NULL on failure. */
Migrd__Domain *xl_definition(struct xl *x, struct err *e);

/* --- incoming.c, stream.c --- */

/* Builds the domain without its memory's content and without devices: paused, ready for
 * mig_open(HV_TARGET). On failure nothing of it is left. */
int xl_incoming(struct xl *x, const Migrd__Domain *def, struct err *e);
/* libxl builds what a stream tells. */
int xl_restore(struct xl *x, libxl_domain_config *c, int fd, uint32_t *domid, struct err *e);

/* --- pv_save.c, pv_incoming.c --- */

/* The stream of a suspended PV guest, to standard input. */
int xl_save(struct xl *x, const Migrd__Domain *def, struct err *e);
/* Returns when the whole guest has come; calls x->exists before, once the domain is there. */
int xl_incoming_pv(struct xl *x, libxl_domain_config *c, struct err *e);
/* One that is under way in that folder ends; its folder's lock is free then. */
void xl_give_up_pv(const char *dir);

/* --- attach.c --- */

/* Makes the file that tells what is attached, and locks it: a descriptor for xl_attach, whose
 * lock also a child has that is forked then. -1 on failure. */
int xl_attach_begin(const struct xl *x, struct err *e);
/* Attaches what may come before the hand-over, and writes how that ended. */
int xl_attach(struct xl *x, const Migrd__Domain *def, int fd, struct err *e);
/* Attaches the rest. */
int xl_claim(struct xl *x, const Migrd__Domain *def, struct err *e);
/* Files that loop devices serve go past the page cache. disk[i] is that of def->disks[i]. */
void xl_past_cache(struct xl *x, const Migrd__Domain *def, const libxl_device_disk *disk, int n);

#endif
