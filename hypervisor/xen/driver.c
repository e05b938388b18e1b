/* SPDX-License-Identifier: ISC */
/*
 * Opening: a control domain is known by /proc/xen/capabilities, its way to Xen is
 * /dev/xen/privcmd. Libraries and hypervisor must be of one release, which Xen itself
 * tells by refusing the first call; xenstored must answer.
 */
#define _GNU_SOURCE
#include "hypervisor/xen/xen_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xentoollog.h>

#include "base/io.h"
#include "base/log.h"

#define PRIVCMD "/dev/xen/privcmd"
#define CAPABILITIES "/proc/xen/capabilities"
#define CAPABILITIES_MAX 4096
#define MESSAGE_LEN 300

static void __attribute__((format(printf, 5, 0))) on_message(struct xentoollog_logger *l,
    xentoollog_level level, int error, const char *context, const char *fmt, va_list ap)
{
    char text[MESSAGE_LEN];

    (void)l;
    if (level < XTL_WARN)
        return;
    vsnprintf(text, sizeof text, fmt, ap);
    text[strcspn(text, "\n")] = '\0';
    log_debug("xen", "%s: %s%s%s", context != NULL ? context : "libxc", text, error > 0 ? ": " : "",
        error > 0 ? strerror(error) : "");
}

static void on_progress(struct xentoollog_logger *l, const char *context, const char *what,
    int percent, unsigned long done, unsigned long total)
{
    (void)l, (void)context, (void)what, (void)percent, (void)done, (void)total;
}

static void no_destroy(struct xentoollog_logger *l)
{
    (void)l;
}

static struct xentoollog_logger quiet = {
    .vmessage = on_message, .progress = on_progress, .destroy = no_destroy
};

xc_interface *xen_open_xc(struct err *e)
{
    xc_interface *xc = xc_interface_open(&quiet, &quiet, 0);

    if (xc == NULL)
        err_sys(e, PRIVCMD);
    return xc;
}

xenforeignmemory_handle *xen_open_memory(struct err *e)
{
    xenforeignmemory_handle *h = xenforeignmemory_open(&quiet, 0);

    if (h == NULL)
        err_sys(e, PRIVCMD);
    return h;
}

struct xs_handle *xen_open_store(struct err *e)
{
    struct xs_handle *xs = xs_open(0);

    if (xs == NULL)
        err_set(e, ERR_SYSTEM, "xenstore: %s; is xenstored running?", strerror(errno));
    return xs;
}

xc_interface *xen_lock(struct hv *hv)
{
    pthread_mutex_lock(&hv->lock);
    return hv->xc;
}

void xen_unlock(struct hv *hv)
{
    pthread_mutex_unlock(&hv->lock);
}

/* Are we where Xen can be driven from? */
static int check_host(struct err *e)
{
    char *text;
    bool control;

    if (access(PRIVCMD, R_OK | W_OK) < 0)
        return err_set(e, ERR_UNSUPPORTED,
            PRIVCMD ": %s; boot the host under Xen and load xen-privcmd", strerror(errno));
    text = io_read_file(CAPABILITIES, CAPABILITIES_MAX, NULL, NULL);
    if (text == NULL)
        return err_set(
            e, ERR_UNSUPPORTED, CAPABILITIES ": %s; mount xenfs on /proc/xen", strerror(errno));
    control = strstr(text, "control_d") != NULL;
    free(text);
    if (!control)
        return err_set(e, ERR_UNSUPPORTED,
            CAPABILITIES " has no control_d: this is no control domain; run migrd in dom0");
    return 0;
}

static const char *scheduler_name(int id)
{
    static const struct {
        int id;
        const char *name;
    } known[] = { { XEN_SCHEDULER_CREDIT, "credit" }, { XEN_SCHEDULER_CREDIT2, "credit2" },
        { XEN_SCHEDULER_RTDS, "rtds" }, { XEN_SCHEDULER_ARINC653, "arinc653" },
        { XEN_SCHEDULER_NULL, "null" } };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].id == id)
            return known[i].name;
    return "";
}

static int connect_to_xen(struct hv *hv, struct err *e)
{
    int sched;

    hv->xc = xen_open_xc(e);
    if (hv->xc == NULL || xen_release_running(hv->xc, hv->release, sizeof hv->release, e) < 0)
        return -1;
    if (xc_sched_id(hv->xc, &sched) < 0)
        return err_set(e, ERR_UNSUPPORTED,
            "Xen %s refuses the libraries of %s that this was built with (%s); install those of "
            "one release",
            hv->release, xen_release_built(), strerror(errno));
    snprintf(hv->scheduler, sizeof hv->scheduler, "%s", scheduler_name(sched));
    hv->xs = xen_open_store(e);
    return hv->xs == NULL ? -1 : 0;
}

static void driver_close(struct hv **hvp)
{
    struct hv *hv = *hvp;

    if (hv == NULL)
        return;
    *hvp = NULL;
    xen_events_close(hv);
    if (hv->xs != NULL)
        xs_close(hv->xs);
    if (hv->xc != NULL)
        xc_interface_close(hv->xc);
    pthread_mutex_destroy(&hv->lock);
    pthread_mutex_destroy(&hv->events_lock);
    fuse_orders_close(&hv->fuses);
    free(hv);
}

static int driver_open(const struct hv_config *cfg, struct hv **out, struct err *e)
{
    struct hv *hv;

    *out = NULL;
    if (check_host(e) < 0 || io_make_dirs(cfg->run_dir, 0755, e) < 0 ||
        io_make_dirs(cfg->log_dir, 0755, e) < 0)
        return -1;
    hv = calloc(1, sizeof *hv);
    if (hv == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    snprintf(hv->run_dir, sizeof hv->run_dir, "%s", cfg->run_dir);
    snprintf(hv->log_dir, sizeof hv->log_dir, "%s", cfg->log_dir);
    pthread_mutex_init(&hv->lock, NULL);
    pthread_mutex_init(&hv->events_lock, NULL);
    fuse_orders_init(&hv->fuses, hv->run_dir);
    if (connect_to_xen(hv, e) < 0) {
        driver_close(&hv);
        return -1;
    }
    if (cfg->leases)
        log_info("xen", "storage-leases: none are kept here: Xen's own backends write to the disks "
                        "of domains, and look at no lease");
    *out = hv;
    return 0;
}

const struct hv_ops xen_driver = {
    .name = "xen",
    .open = driver_open,
    .close = driver_close,
    .capabilities = xen_capabilities,
    .enumerate = xen_enumerate,
    .info = xen_info,
    .definition = xen_definition,
    .guest_cpu = xen_guest_cpu,
    .start = xen_start,
    .pause = xen_pause,
    .claim = xen_claim,
    .yield = NULL, /* no disk of a Xen domain can tell that another host took it */
    .resume = xen_resume,
    .fuse = xen_fuse,
    .shutdown = xen_shutdown,
    .destroy = xen_destroy,
    .set_memory = xen_set_memory,
    .vcpus = xen_vcpus,
    .pin = xen_pin,
    .set_vcpus = xen_set_vcpus,
    .sched_get = xen_sched_get,
    .sched_set = xen_sched_set,
    .stats = xen_stats,
    .dmesg = xen_dmesg,
    .event_fd = xen_event_fd,
    .next_event = xen_next_event,
    .mig_check = xen_mig_check,
    .mig_open = xen_mig_open,
    .mig_close = xen_mig_close,
    .mig_layout = xen_mig_layout,
    .mig_populated = xen_mig_populated,
    .mig_map = xen_mig_map,
    .mig_unmap = xen_mig_unmap,
    .mig_zero = xen_mig_zero,
    .mig_settle = xen_mig_settle,
    .dirty_start = xen_dirty_start,
    .dirty_collect = xen_dirty_collect,
    .dirty_peek = xen_dirty_peek,
    .dirty_give_back = xen_dirty_give_back,
    .dirty_stop = xen_dirty_stop,
    .mig_pause = xen_mig_pause,
    .mig_resume = xen_mig_resume,
    .mig_registers = xen_mig_registers,
    .state_save = xen_state_save,
    .state_load = xen_state_load,
    .throttle = xen_throttle,
};
