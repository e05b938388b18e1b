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

struct xl {
    libxl_ctx *ctx;
    const char *run_dir;  /* the folder of all domains */
    char dir[RUNDIR_LEN]; /* the domain's own */
    uint64_t epoch, kib;
    unsigned vcpus;
    uint32_t domid; /* of the domain, once there is one */
    struct xentoollog_logger *log;
    char said[400]; /* the first error that libxl told, for the answer */
};

/* --- config.c: a definition as libxl wants it, and back ------------------------------------ */

/* Everything but the disks if !disks (those of an incoming domain wait for its claim). The caller
 * runs libxl_domain_config_init before, and _dispose after, also after a failure. */
int xen_config(const Migrd__Domain *def, bool disks, libxl_domain_config *c, struct err *e);
int xen_config_disk(const Migrd__Disk *d, libxl_device_disk *out, struct err *e);
/* What can be told of a domain that somebody else made. NULL on failure. */
Migrd__Domain *xen_config_definition(const libxl_domain_config *c, struct err *e);

/* ERR_* with what libxl said. `what`: "building the domain". */
int xl_fail(struct xl *x, struct err *e, int rc, const char *what);

/* --- build.c: the verbs ----------------------------------------------------------------------- */

/* Fills x->domid; the domain is paused. On failure something of it may be left, see discard. */
int xl_start(struct xl *x, const Migrd__Domain *def, struct err *e);
/* These work on x->domid; `def`, where it is not named, is NULL. */
int xl_claim(struct xl *x, const Migrd__Domain *def, struct err *e);
int xl_destroy(struct xl *x, const Migrd__Domain *def, struct err *e);
int xl_memory(struct xl *x, const Migrd__Domain *def, struct err *e);
int xl_vcpus(struct xl *x, const Migrd__Domain *def, struct err *e);
/* NULL on failure. */
Migrd__Domain *xl_definition(struct xl *x, struct err *e);

/* --- incoming.c, stream.c -------------------------------------------------------------------- */

/* Builds the domain without its memory's content and without disks: paused, ready for
 * mig_open(HV_TARGET). On failure nothing of it is left. */
int xl_incoming(struct xl *x, const Migrd__Domain *def, struct err *e);

#endif
