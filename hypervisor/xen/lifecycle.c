/* SPDX-License-Identifier: ISC */
/*
 * What may change who runs. Xen counts pauses: a domain that is paused is not paused again,
 * and a resume takes all of them back. Building, attaching of disks and destroying is
 * done by xen-domain, which locks the domain's folder; what is here only looks at marks.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xenctrl.h>
#include <xenguest.h>

#include <xen/hvm/params.h> /* behind xenctrl.h, which says for whom */

#include "base/clock.h"
#include "base/log.h"
#include "hypervisor/xen/folder.h"
#include "hypervisor/xen/xen_internal.h"

#define PAUSES_MAX 255 /* of Xen's counter */
#define GONE_STEP_MS 20u

/* --- start --- */

static int check_memory(struct hv *hv, const Migrd__Domain *def, struct err *e)
{
    uint64_t need = hv_memory_need(def);
    struct hv_caps c;

    if (xen_capabilities(hv, &c, e) < 0)
        return -1;
    if (need <= c.memory_free_kib)
        return 0;
    return err_set(e, ERR_MEMORY,
        "domain %s: needs %" PRIu64 " MiB of memory (%" PRIu64
        " MiB for page tables in it), Xen has %" PRIu64
        " MiB free; give domain 0 less (dom0_mem= on Xen's command line) or end another domain",
        def->name, need >> 10, (need - def->memory_kib) >> 10, c.memory_free_kib >> 10);
}

static int check_free(struct hv *hv, const Migrd__Domain *def, struct err *e)
{
    xc_domaininfo_t d;
    struct err why;
    int r = xen_find_with(xen_lock(hv), def->uuid, &d, &why);

    xen_unlock(hv);
    if (r == 0)
        return err_set(
            e, ERR_EXISTS, "domain %s (%s) is here already, as %u", def->name, def->uuid, d.domain);
    return why.code == ERR_NOT_FOUND ? 0 : err_set(e, why.code, "%s", why.text);
}

/* What a xen-domain left that was killed, or that hangs. */
static void undo_start(struct hv *hv, const char *uuid)
{
    struct err why;

    if (xen_run(hv, "destroy", uuid, NULL, NULL, XEN_BUILD_TIMEOUT_MS, &why) < 0 &&
        why.code != ERR_NOT_FOUND)
        log_error("xen", "domain %s: its half-built copy: %s", uuid, why.text);
}

int xen_start(struct hv *hv, const Migrd__Domain *def, const struct hv_start *how, struct err *e)
{
    char epoch[32];
    const char *more[6] = { "--epoch", epoch };
    size_t n = 2;

    if (check_free(hv, def, e) < 0 || check_memory(hv, def, e) < 0)
        return -1;
    snprintf(epoch, sizeof epoch, "%" PRIu64, how->epoch);
    if (how->paused)
        more[n++] = "--paused";
    if (how->blown)
        more[n++] = "--blown";
    if (how->incoming && hv_guest_type(def) == MIGRD__GUEST_TYPE__GUEST_PV)
        more[n++] = "--background"; /* it is built while its memory comes */
    fuse_orders_before_start(&hv->fuses, def->uuid);
    if (xen_run(hv, how->incoming ? "incoming" : "start", def->uuid, def, more,
            XEN_BUILD_TIMEOUT_MS, e) < 0) {
        if (e == NULL || e->code != ERR_EXISTS)
            undo_start(hv, def->uuid);
        return -1;
    }
    if (fuse_orders_begin(&hv->fuses, def->uuid, how->epoch, e) < 0) {
        undo_start(hv, def->uuid);
        return -1;
    }
    xen_events_look(hv);
    return 0;
}

/* --- pause and resume --- */

int xen_pause(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    xc_domaininfo_t d;
    unsigned code;

    if (xen_find(hv, uuid, &d, e) < 0 || xen_epoch(hv->run_dir, uuid, epoch, e) < 0)
        return -1;
    code = xen_shutdown_code(&d);
    if (code != XEN_NO_SHUTDOWN && code != SHUTDOWN_suspend)
        return err_set(e, ERR_STATE, "domain %s: its guest has ended", uuid);
    if (code == XEN_NO_SHUTDOWN && xen_do_pause(hv, uuid, &d, e) < 0)
        return -1;
    xen_events_look(hv);
    return 0;
}

int xen_unsuspend(xc_interface *xc, struct xs_handle *xs, uint32_t domid, struct err *e)
{
    if (xc_domain_resume(xc, domid, 1) < 0)
        return err_sys(e, "domain %u: calling its suspension off", domid);
    if (!xs_resume_domain(xs, domid))
        log_warn(
            "xen", "domain %u: xenstore was not told that it goes on: %s", domid, strerror(errno));
    return 0;
}

int xen_let_run(xc_interface *xc, struct xs_handle *xs, uint32_t domid, struct err *e)
{
    xc_domaininfo_t d;
    unsigned code;

    if (xen_domain_facts(xc, domid, &d) < 0)
        return err_sys(e, "domain %u", domid);
    code = xen_shutdown_code(&d);
    if (code == SHUTDOWN_suspend) {
        if (xen_unsuspend(xc, xs, domid, e) < 0)
            return -1;
    } else if (code != XEN_NO_SHUTDOWN) {
        return err_set(e, ERR_STATE, "domain %u: its guest has ended", domid);
    }
    for (int i = 0; i < PAUSES_MAX && (d.flags & XEN_DOMINF_paused) != 0; i++)
        if (xc_domain_unpause(xc, domid) < 0 || xen_domain_facts(xc, domid, &d) < 0)
            return err_sys(e, "domain %u: unpausing", domid);
    return 0;
}

/* Of a domain that came by a migration: everything that must be true before its first instruction.
 */
static int ready_incoming(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    char dir[RUNDIR_LEN];

    xen_dir(hv, uuid, dir);
    if (!folder_has(dir, FOLDER_INCOMING))
        return 0;
    if (!folder_says(dir, FOLDER_INCOMING, FOLDER_LOADED))
        return err_set(
            e, ERR_STATE, "domain %s: its state has not come yet; it can only be destroyed", uuid);
    if (xen_claim(hv, uuid, epoch, false, e) < 0)
        return -1;
    folder_unmark(dir, FOLDER_INCOMING);
    return 0;
}

int xen_resume(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    xc_domaininfo_t d;

    if (xen_find(hv, uuid, &d, e) < 0 || xen_epoch(hv->run_dir, uuid, epoch, e) < 0 ||
        ready_incoming(hv, uuid, epoch, e) < 0)
        return -1;
    xen_mig_sweep(hv, xen_lock(hv), uuid, d.domain);
    xen_unlock(hv);
    if (xen_do_resume(hv, uuid, d.domain, e) < 0)
        return -1;
    xen_events_look(hv);
    return 0;
}

/* What of an incoming domain's devices has waited for this is attached. No disk here tells whether
 * its owner lives: who decides is believed. */
int xen_claim(struct hv *hv, const char *uuid, uint64_t epoch, bool decided, struct err *e)
{
    xc_domaininfo_t d;
    char dir[RUNDIR_LEN];

    if (xen_find(hv, uuid, &d, e) < 0 || xen_epoch(hv->run_dir, uuid, epoch, e) < 0)
        return -1;
    xen_dir(hv, uuid, dir);
    if (decided)
        log_warn("xen",
            "domain %s: it is decided that it runs here; its disks cannot tell whether another "
            "host still writes to them",
            uuid);
    if (!folder_has(dir, FOLDER_INCOMING) || folder_has(dir, FOLDER_CLAIMED))
        return 0;
    return xen_run(hv, "claim", uuid, NULL, NULL, XEN_BUILD_TIMEOUT_MS, e);
}

/* --- the end --- */

/* An HVM guest without drivers for Xen does not look at xenstore, but at its power button. */
static bool has_drivers(xc_interface *xc, const xc_domaininfo_t *d)
{
    uint64_t irq = 0;

    return xen_type_of(d) != XEN_HVM ||
           xc_hvm_param_get(xc, d->domain, HVM_PARAM_CALLBACK_IRQ, &irq) < 0 || irq != 0;
}

static int press_button(struct hv *hv, const xc_domaininfo_t *d, const char *uuid, struct err *e)
{
    int r = xc_domain_send_trigger(xen_lock(hv), d->domain, XEN_DOMCTL_SENDTRIGGER_POWER, 0);

    xen_unlock(hv);
    return r < 0 ? err_sys(e, "domain %s: its power button", uuid) : 0;
}

int xen_shutdown(struct hv *hv, const char *uuid, bool reboot, struct err *e)
{
    const char *word = reboot ? "reboot" : "poweroff";
    char path[XEN_PATH_LEN];
    xc_domaininfo_t d;
    bool drivers;

    if (xen_find(hv, uuid, &d, e) < 0)
        return -1;
    if (xen_shutdown_code(&d) != XEN_NO_SHUTDOWN)
        return err_set(e, ERR_STATE, "domain %s: its guest has ended, or is suspended", uuid);
    drivers = has_drivers(xen_lock(hv), &d);
    xen_unlock(hv);
    if (!drivers && !reboot)
        return press_button(hv, &d, uuid, e);
    if (!drivers)
        return err_set(e, ERR_UNSUPPORTED,
            "domain %s: the guest has no drivers for Xen, so it cannot be asked for a reboot; shut "
            "it down and start it",
            uuid);
    snprintf(path, sizeof path, "/local/domain/%u/control/shutdown", d.domain);
    if (!xs_write(hv->xs, XBT_NULL, path, word, (unsigned)strlen(word)))
        return err_sys(e, "xenstore: %s", path);
    return 0;
}

/* Its memory is given back page by page; a page that a backend still has mapped keeps it there. */
static void wait_gone(struct hv *hv, uint32_t domid, const char *uuid)
{
    const struct timespec step = { .tv_nsec = (long)(GONE_STEP_MS * NS_PER_MS) };
    uint64_t deadline = clock_ns() + HV_CALL_TIMEOUT_MS * NS_PER_MS;
    xc_domaininfo_t d;

    while (clock_ns() < deadline) {
        int r = xen_domain_facts(xen_lock(hv), domid, &d);

        xen_unlock(hv);
        if (r < 0)
            return;
        nanosleep(&step, NULL);
    }
    log_warn("xen", "domain %s: destroyed, but something on this host still has its memory mapped",
        uuid);
}

int xen_destroy(struct hv *hv, const char *uuid, uint64_t epoch, struct err *e)
{
    xc_domaininfo_t d;
    int r = xen_find_with(xen_lock(hv), uuid, &d, e);

    xen_unlock(hv);
    if (r < 0 || xen_epoch(hv->run_dir, uuid, epoch, e) < 0)
        return -1;
    xen_mig_sweep(hv, xen_lock(hv), uuid, d.domain);
    xen_unlock(hv);
    if (xen_run(hv, "destroy", uuid, NULL, NULL, XEN_BUILD_TIMEOUT_MS, e) < 0)
        return -1;
    wait_gone(hv, d.domain, uuid);
    fuse_orders_forget(&hv->fuses, uuid);
    xen_events_look(hv);
    return 0;
}

int xen_set_memory(struct hv *hv, const char *uuid, uint64_t memory_kib, struct err *e)
{
    char kib[32];
    const char *more[] = { "--kib", kib, NULL };
    xc_domaininfo_t d;

    if (xen_find(hv, uuid, &d, e) < 0)
        return -1;
    snprintf(kib, sizeof kib, "%" PRIu64, memory_kib);
    return xen_run(hv, "memory", uuid, NULL, more, HV_CALL_TIMEOUT_MS, e);
}
