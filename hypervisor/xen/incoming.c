/* SPDX-License-Identifier: ISC */
/*
 * `xen-domain incoming`: the domain that a migration fills. libxl restores it from a
 * stream of nothing (stream.h) and ends early: xenstore, console, event channels and grant
 * table are there before the first byte of the guest comes, and the domain stays
 * paused. The engine then loads memory and state itself, interfaces and disks are attached
 * meanwhile (attach.c), and no program of libxl has to run while the guest stands still. Of a
 * PV guest libxl reads all there is: pv_incoming.c.
 *
 * Why not feed libxl the whole stream: its save helper holds each page twice, takes 4 KiB
 * pages only, and builds devices after the last byte, in the pause.
 */
#include <unistd.h>
#include <xenctrl.h>

#include "base/io.h"
#include "hypervisor/xen/stream.h"
#include "hypervisor/xen/xen_domain.h"

int xl_restore(struct xl *x, libxl_domain_config *c, int fd, uint32_t *domid, struct err *e)
{
    libxl_domain_restore_params how;
    int rc;

    libxl_domain_restore_params_init(&how);
    how.stream_version = XEN_STREAM_VERSION;
    rc = libxl_domain_create_restore(x->ctx, c, domid, fd, -1, &how, NULL, NULL);
    libxl_domain_restore_params_dispose(&how);
    return rc == 0 ? 0 : xl_fail(x, e, rc, "building the incoming domain");
}

static int build(struct xl *x, const Migrd__Domain *def, libxl_domain_config *c, struct err *e)
{
    const libxl_version_info *v = libxl_get_version_info(x->ctx);
    int fd, rc;

    if (v == NULL)
        return err_set(e, ERR_SYSTEM, "Xen does not tell its version");
    if (xen_config(def, false, NULL, c, e) < 0)
        return -1;
    if (c->c_info.type == LIBXL_DOMAIN_TYPE_PV)
        return xl_incoming_pv(x, c, e);
    fd = xen_stream_open((unsigned)v->xen_version_major, (unsigned)v->xen_version_minor, e);
    if (fd < 0)
        return -1;
    rc = xl_restore(x, c, fd, &x->domid, e);
    io_close(&fd);
    return rc;
}

int xl_incoming(struct xl *x, const Migrd__Domain *def, struct err *e)
{
    libxl_domain_config c;
    int rc;

    if (def->type == MIGRD__GUEST_TYPE__GUEST_HVM)
        return err_set(e, ERR_UNSUPPORTED,
            "domain %s: an HVM guest's device model has a state of its own, which is not moved",
            def->name);
    libxl_domain_config_init(&c);
    rc = build(x, def, &c, e);
    libxl_domain_config_dispose(&c);
    return rc;
}
