/* SPDX-License-Identifier: ISC */
/*
 * A migration's beginning, its end, and what is left when its holder dies.
 *
 * The holder has run_dir/<uuid>/migration flock'ed. Before it changes something of a domain that
 * Xen does not take back by itself (dirty log, cap of the scheduler), it writes that into
 * the file. Whoever gets the lock and finds such a mark undoes it: xen_mig_sweep, which
 * migrd calls for each domain every two seconds, and the next migration.
 *
 * The memory of a PVH guest, by its maximum (memory/static-max in xenstore), as libxl builds it:
 * RAM from 0 to that size, or to the special pages and the rest from 4 GiB; ACPI tables from
 * 0xfc000 on; the special pages below 0xff000. Both sides compute the same layout from
 * the same maximum. A guest that has frames elsewhere is refused.
 */
#define _GNU_SOURCE
#include "hypervisor/xen/pv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xen/hvm/params.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "hypervisor/xen/folder.h"
#include "hypervisor/xen/stream.h"

#define MARK_MAGIC "XENMIG1"
#define LOCK_WAIT_MS 500 /* a sweep holds it for some milliseconds */
#define LOCK_RETRY_US 5000
#define LATE_S 60
#define FILE_LEN (RUNDIR_LEN + 32)
#define ACPI_GFN 0xfc000u
#define SPECIAL_END 0xff000u
#define HIGH_GFN 0x100000u

static void file_of(char out[FILE_LEN], const char *dir, const char *name)
{
    snprintf(out, FILE_LEN, "%s/%s", dir, name);
}

/* --- the mark --- */

int xen_mark_write(struct hv_mig *m, struct err *e)
{
    struct xen_mark k = m->mark;

    memcpy(k.magic, MARK_MAGIC, sizeof k.magic);
    k.domid = m->domid;
    if (m->lock_fd >= 0 && pwrite(m->lock_fd, &k, sizeof k, 0) != (ssize_t)sizeof k)
        return err_sys(e, "domain %s: writing the mark of its migration", m->uuid);
    return 0;
}

static int try_lock(int fd)
{
    for (int left = LOCK_WAIT_MS * 1000;; left -= LOCK_RETRY_US) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK || left <= 0)
            return -1;
        usleep(LOCK_RETRY_US);
    }
}

static int take_lock(struct hv *hv, struct hv_mig *m, struct err *e)
{
    char dir[RUNDIR_LEN], path[FILE_LEN];

    xen_dir(hv, m->uuid, dir);
    file_of(path, dir, FOLDER_MIGRATION);
    if (mkdir(dir, 0755) < 0 && errno != EEXIST)
        return err_sys(e, "%s", dir);
    m->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (m->lock_fd < 0)
        return err_sys(e, "%s", path);
    if (try_lock(m->lock_fd) < 0)
        return err_set(e, ERR_STATE, "domain %s: another migration of it is under way", m->uuid);
    return 0;
}

/* The mark's domain may be gone, and its number given to another since: only that domain counts. */
static void undo(xc_interface *xc, struct xs_handle *xs, const struct xen_mark *k)
{
    struct err e = { 0 };

    if (k->log && xen_log_off(xc, k->domid, &e) < 0)
        log_warn("xen", "domain %u: its dirty log stays on: %s", k->domid, e.text);
    if (k->capped &&
        xen_set_cap(xc, k->domid, k->scheduler, (struct xen_shares){ k->weight, k->cap }, &e) < 0)
        log_warn("xen", "domain %u: its cap stays: %s", k->domid, e.text);
    if (k->late && xen_go_on(xc, xs, k->domid, &e) < 0)
        log_warn("xen", "domain %u: stays suspended: %s", k->domid, e.text);
}

static bool is_marked(const struct xen_mark *k)
{
    return memcmp(k->magic, MARK_MAGIC, sizeof k->magic) == 0 && (k->log || k->capped || k->late);
}

/* A guest that was asked to suspend, and that nobody waits for any more, may follow late: that mark
 * stays as long as it runs, but not for ever, or it would meet somebody else's request. */
static bool may_follow(xc_interface *xc, int fd, const struct xen_mark *k)
{
    xc_domaininfo_t d;
    struct stat st;

    return k->late && fstat(fd, &st) == 0 && time(NULL) - st.st_mtime < LATE_S &&
           xen_domain_facts(xc, k->domid, &d) == 0 && !xen_is_suspended(&d);
}

/* With the lock held; `left`: what stays marked. */
static void sweep_locked(
    xc_interface *xc, struct xs_handle *xs, int fd, uint32_t domid, struct xen_mark *left)
{
    struct xen_mark k;

    memset(left, 0, sizeof *left);
    if (pread(fd, &k, sizeof k, 0) != (ssize_t)sizeof k || !is_marked(&k))
        return;
    if (k.domid == domid && may_follow(xc, fd, &k)) {
        *left = k;
        left->log = left->capped = 0;
        k.late = 0;
    }
    if (k.domid == domid && is_marked(&k)) {
        log_info("xen", "domain %u: undoing what a migration left", domid);
        undo(xc, xs, &k);
    } else if (left->late) {
        return; /* as it is */
    }
    if (pwrite(fd, left, sizeof *left, 0) < 0)
        log_warn("xen", "domain %u: the mark of a migration stays: %s", domid, strerror(errno));
}

void xen_mig_sweep(struct hv *hv, xc_interface *xc, const char *uuid, uint32_t domid)
{
    char dir[RUNDIR_LEN], path[FILE_LEN];
    struct xen_mark left;
    int fd;

    xen_dir(hv, uuid, dir);
    file_of(path, dir, FOLDER_MIGRATION);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        sweep_locked(xc, hv->xs, fd, domid, &left);
    close(fd);
}

/* --- layout --- */

static void add_region(struct hv_layout *l, uint64_t gfn, uint64_t pages)
{
    l->region[l->n++] = (struct hv_region){ gfn, pages };
    l->max_gfn = gfn + pages - 1;
}

static void lay_out(struct hv_layout *l, uint64_t pages)
{
    uint64_t low = pages < XEN_SPECIAL_GFN ? pages : XEN_SPECIAL_GFN;

    memset(l, 0, sizeof *l);
    if (low < ACPI_GFN) {
        add_region(l, 0, low);
        add_region(l, ACPI_GFN, SPECIAL_END - ACPI_GFN);
    } else {
        add_region(l, 0, SPECIAL_END);
    }
    if (pages > low)
        add_region(l, HIGH_GFN, pages - low);
}

static uint64_t read_kib(struct hv_mig *m, const char *name)
{
    char text[32];

    xen_store_read(m->xs, text, sizeof text, "/local/domain/%u/memory/%s", m->domid, name);
    return strtoull(text, NULL, 10);
}

int xen_maximum_kib(struct hv_mig *m, uint64_t *kib, struct err *e)
{
    *kib = read_kib(m, "static-max");
    if (*kib >= 1024 && *kib <= UINT64_C(1) << 34)
        return 0;
    return err_set(e, ERR_STATE,
        "domain %s: xenstore does not tell its maximum of memory (memory/static-max)", m->uuid);
}

static int find_layout(struct hv_mig *m, struct err *e)
{
    uint64_t kib;

    if (xen_maximum_kib(m, &kib, e) < 0)
        return -1;
    lay_out(&m->layout, kib / (HV_PAGE_SIZE / 1024));
    return 0;
}

static int find_ring(
    struct hv_mig *m, uint32_t param, const char *what, uint64_t must, uint64_t *gfn, struct err *e)
{
    if (xc_hvm_param_get(m->xc, m->domid, param, gfn) < 0)
        return err_sys(e, "domain %s: asking for the page of its %s", m->uuid, what);
    if (*gfn == must || m->side == HV_VIEWER)
        return 0;
    return err_set(e, ERR_UNSUPPORTED,
        "domain %s: the page of its %s is at frame 0x%llx, where an incoming domain has it at "
        "0x%llx; it was built by another release of libxc; restart it here, then it moves",
        m->uuid, what, (unsigned long long)*gfn, (unsigned long long)must);
}

/* --- the mark of an incoming domain --- */

static int open_incoming(struct hv *hv, struct hv_mig *m, struct err *e)
{
    char dir[RUNDIR_LEN], path[FILE_LEN];

    xen_dir(hv, m->uuid, dir);
    file_of(path, dir, FOLDER_INCOMING);
    m->incoming_fd = open(path, O_RDWR | O_CLOEXEC);
    if (m->incoming_fd < 0)
        return err_set(e, ERR_STATE, "domain %s is not an incoming one: %s: %s", m->uuid, path,
            strerror(errno));
    file_of(path, dir, FOLDER_ATTACH);
    m->attach_fd = open(path, O_RDONLY | O_CLOEXEC);
    return m->attach_fd < 0 ? err_sys(e, "domain %s: %s", m->uuid, path) : 0;
}

int xen_mark_loaded(struct hv_mig *m, struct err *e)
{
    static const char line[] = FOLDER_LOADED "\n";

    if (pwrite(m->incoming_fd, line, sizeof line - 1, 0) != (ssize_t)sizeof line - 1)
        return err_sys(e, "domain %s: noting that its state is here", m->uuid);
    return 0;
}

/* --- opening --- */

static int check_type(const struct hv_mig *m, const xc_domaininfo_t *d, struct err *e)
{
    enum xen_type t = xen_type_of(d);

    if (t != XEN_HVM)
        return 0;
    return err_set(e, ERR_UNSUPPORTED,
        "domain %s: hvm: the state of its device model (QEMU) cannot be moved; use a pvh guest",
        m->uuid);
}

static int check_source(const struct hv_mig *m, const xc_domaininfo_t *d, struct err *e)
{
    if (m->side != HV_SOURCE || (d->flags & XEN_DOMINF_paused) == 0 || xen_is_suspended(d))
        return 0;
    return err_set(e, ERR_STATE,
        "domain %s is paused: a Xen guest takes part in its migration (it suspends itself), "
        "which a paused one cannot; unpause it first",
        m->uuid);
}

static int open_handles(struct hv_mig *m, struct err *e)
{
    m->xc = xen_open_xc(e);
    if (m->xc == NULL)
        return -1;
    m->memory = xen_open_memory(e);
    if (m->memory == NULL)
        return -1;
    m->xs = xen_open_store(e);
    return m->xs == NULL ? -1 : 0;
}

static int attach(struct hv *hv, struct hv_mig *m, struct err *e)
{
    xc_domaininfo_t d;
    char dir[RUNDIR_LEN];

    if (open_handles(m, e) < 0 || xen_find_with(m->xc, m->uuid, &d, e) < 0)
        return -1;
    m->domid = d.domain;
    m->vcpus = d.max_vcpu_id + 1;
    xen_dir(hv, m->uuid, dir);
    m->epoch = rundir_read_epoch(dir);
    if (check_type(m, &d, e) < 0 || check_source(m, &d, e) < 0)
        return -1;
    if (m->side != HV_VIEWER && take_lock(hv, m, e) < 0)
        return -1;
    if (m->lock_fd >= 0)
        sweep_locked(m->xc, m->xs, m->lock_fd, m->domid, &m->mark);
    if (m->side == HV_SOURCE)
        xen_rings_open(m);
    if (xen_type_of(&d) == XEN_PV)
        return m->side == HV_TARGET && open_incoming(hv, m, e) < 0 ? -1 : xen_pv_open(hv, m, &d, e);
    if (find_layout(m, e) < 0 ||
        find_ring(m, HVM_PARAM_STORE_PFN, "xenstore ring", XEN_SPECIAL_STORE, &m->store_gfn, e) <
            0 ||
        find_ring(
            m, HVM_PARAM_CONSOLE_PFN, "console ring", XEN_SPECIAL_CONSOLE, &m->console_gfn, e) < 0)
        return -1;
    if (m->side != HV_TARGET)
        return 0;
    if (open_incoming(hv, m, e) < 0)
        return -1;
    return xen_target_init(m, read_kib(m, "target") >= read_kib(m, "static-max"), e);
}

int xen_mig_open(
    struct hv *hv, const char *uuid, enum hv_side side, struct hv_mig **out, struct err *e)
{
    struct hv_mig *m = calloc(1, sizeof *m);

    *out = NULL;
    if (m == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    m->side = side;
    m->lock_fd = m->incoming_fd = m->attach_fd = -1;
    pthread_mutex_init(&m->lock, NULL);
    snprintf(m->uuid, sizeof m->uuid, "%s", uuid);
    snprintf(m->scheduler, sizeof m->scheduler, "%s", hv->scheduler);
    if (attach(hv, m, e) < 0) {
        xen_mig_close(&m);
        return -1;
    }
    *out = m;
    return 0;
}

static void undo_own(struct hv_mig *m)
{
    struct err e = { 0 };

    if (m->mark.log && xen_dirty_stop(m, &e) < 0)
        log_debug("xen", "domain %s: %s", m->uuid, e.text);
    if (m->mark.capped && xen_throttle(m, 0, &e) < 0)
        log_debug("xen", "domain %s: %s", m->uuid, e.text);
}

void xen_mig_close(struct hv_mig **mp)
{
    struct hv_mig *m = *mp;

    if (m == NULL)
        return;
    *mp = NULL;
    xen_pv_close(m);
    if (m->xc != NULL) {
        undo_own(m);
        xen_log_free(m);
        xen_memory_free(m);
        xc_interface_close(m->xc);
    }
    if (m->memory != NULL)
        xenforeignmemory_close(m->memory);
    if (m->xs != NULL)
        xs_close(m->xs);
    xen_rings_close(m);
    io_close(&m->lock_fd);
    io_close(&m->incoming_fd);
    io_close(&m->attach_fd);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

int xen_mig_layout(struct hv_mig *m, struct hv_layout *out, struct err *e)
{
    (void)e;
    *out = m->layout;
    return 0;
}
