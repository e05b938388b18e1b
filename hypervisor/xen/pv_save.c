/* SPDX-License-Identifier: ISC */
/*
 * `xen-domain save`: the stream of a PV guest, by libxc, into the socket that is standard
 * input, once a byte has come from there. The guest stands still already and stays so:
 * whoever asked decides what becomes of it. The end of the socket before that byte means
 * that nobody wants it.
 */
#define _GNU_SOURCE
#include "hypervisor/xen/pv.h"

#include <errno.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xenguest.h>

#include "hypervisor/xen/find.h"
#include "hypervisor/xen/xen_domain.h"

/* libxc looks itself whether the guest is suspended. */
static int is_still(void *arg)
{
    (void)arg;
    return 1;
}

static int await_go(struct err *e)
{
    char c;
    ssize_t n;

    do
        n = read(STDIN_FILENO, &c, 1);
    while (n < 0 && errno == EINTR);
    return n == 1 && c == PV_GO ? 0 : err_set(e, ERR_CANCELLED, "nobody wants its memory");
}

int xl_save(struct xl *x, const Migrd__Domain *def, struct err *e)
{
    struct save_callbacks calls = { .suspend = is_still };
    xc_interface *xc;
    int rc;

    (void)def;
    if (await_go(e) < 0)
        return -1;
    xc = xc_interface_open(x->log, x->log, 0);
    if (xc == NULL)
        return err_sys(e, "/dev/xen/privcmd");
    rc = xc_domain_save(xc, STDIN_FILENO, x->domid, 0, &calls, XC_STREAM_PLAIN, -1);
    if (rc != 0)
        err_sys(e, "saving its memory: %s", x->said[0] != '\0' ? x->said : "no reason given");
    xc_interface_close(xc);
    return rc == 0 ? 0 : -1;
}
