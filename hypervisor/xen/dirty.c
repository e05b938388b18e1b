/* SPDX-License-Identifier: ISC */
/*
 * Xen's dirty log: `clean` hands it over and begins anew, `peek` only shows it. Its bitmap is a
 * buffer for hypercalls, made when the log starts. Bits that the engine gives back
 * (`returned`) are kept here and added to the next collect.
 *
 * A log that somebody left on (xl's save helper that died) makes `enable` fail with
 * EINVAL: it is switched off and on again, since whose bits it holds nobody knows.
 *
 * The throttle is the scheduler's cap: percent of one CPU. Before it is set, the mark says what it
 * was.
 */
#include "hypervisor/xen/mig_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LEAST_CAP 1

/* --- the log --- */

int xen_log_off(xc_interface *xc, uint32_t domid, struct err *e)
{
    if (xen_log_dirty(xc, domid, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0, NULL) < 0 && errno != ESRCH)
        return err_sys(e, "switching the dirty log off");
    return 0;
}

static unsigned long log_pages(const struct hv_mig *m)
{
    size_t bytes = xen_bitmap_words(m) * sizeof(uint64_t);

    return (bytes + XC_PAGE_SIZE - 1) / XC_PAGE_SIZE;
}

static int make_buffers(struct hv_mig *m, struct err *e)
{
    if (m->log != NULL)
        return 0;
    m->log_buffer.ubuf = (void *)-1; /* as the macros of xenctrl.h do */
    m->log = xc__hypercall_buffer_alloc_pages(m->xc, &m->log_buffer, (int)log_pages(m));
    m->returned = calloc(xen_bitmap_words(m), sizeof *m->returned);
    if (m->log == NULL || m->returned == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for the dirty log");
    return 0;
}

void xen_log_free(struct hv_mig *m)
{
    if (m->log != NULL)
        xc__hypercall_buffer_free_pages(m->xc, &m->log_buffer, (int)log_pages(m));
    free(m->returned);
    m->log = NULL;
    m->returned = NULL;
}

static int enable(struct hv_mig *m)
{
    if (xen_log_dirty(m->xc, m->domid, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, NULL, 0, NULL) >= 0)
        return 0;
    if (errno != EINVAL ||
        xen_log_dirty(m->xc, m->domid, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0, NULL) < 0)
        return -1;
    return xen_log_dirty(m->xc, m->domid, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, NULL, 0, NULL) < 0
               ? -1
               : 0;
}

int xen_dirty_start(struct hv_mig *m, struct err *e)
{
    if (m->side != HV_SOURCE)
        return err_set(e, ERR_STATE, "domain %s: only a source has a dirty log", m->uuid);
    if (m->pv != NULL)
        return err_set(e, ERR_UNSUPPORTED,
            "domain %s: a pv guest moves only while it stands still; move it with --allow-paused",
            m->uuid);
    m->mark.log = 1;
    if (make_buffers(m, e) < 0 || xen_mark_write(m, e) < 0)
        return -1;
    if (enable(m) < 0) {
        if (errno == EOPNOTSUPP)
            return err_set(e, ERR_UNSUPPORTED,
                "domain %s: this Xen keeps no dirty log of such a guest (built without shadow "
                "paging); move it with --allow-paused",
                m->uuid);
        return err_sys(e, "domain %s: switching its dirty log on", m->uuid);
    }
    memset(m->returned, 0, xen_bitmap_words(m) * sizeof *m->returned);
    return 0;
}

static int read_log(struct hv_mig *m, unsigned op, uint64_t *bitmap, struct err *e)
{
    xc_shadow_op_stats_t stats;
    size_t words = xen_bitmap_words(m);

    if (!m->mark.log || m->log == NULL)
        return err_set(e, ERR_STATE, "domain %s: its dirty log is off", m->uuid);
    if (xen_log_dirty(m->xc, m->domid, op, &m->log_buffer, m->layout.max_gfn + 1, &stats) < 0)
        return err_sys(e, "domain %s: reading its dirty log", m->uuid);
    xen_mask_bitmap(m, m->log);
    for (size_t i = 0; i < words; i++)
        bitmap[i] |= m->log[i];
    return 0;
}

int xen_dirty_collect(struct hv_mig *m, uint64_t *bitmap, struct err *e)
{
    size_t words = xen_bitmap_words(m);

    if (read_log(m, XEN_DOMCTL_SHADOW_OP_CLEAN, bitmap, e) < 0)
        return -1;
    for (size_t i = 0; i < words; i++) {
        bitmap[i] |= m->returned[i];
        m->returned[i] = 0;
    }
    return 0;
}

int xen_dirty_peek(struct hv_mig *m, uint64_t *bitmap, struct err *e)
{
    return read_log(m, XEN_DOMCTL_SHADOW_OP_PEEK, bitmap, e);
}

int xen_dirty_give_back(struct hv_mig *m, const uint64_t *bitmap, struct err *e)
{
    if (m->returned == NULL)
        return err_set(e, ERR_STATE, "domain %s: its dirty log is off", m->uuid);
    for (size_t i = 0; i < xen_bitmap_words(m); i++)
        m->returned[i] |= bitmap[i];
    return 0;
}

int xen_dirty_stop(struct hv_mig *m, struct err *e)
{
    if (!m->mark.log)
        return 0;
    if (xen_log_off(m->xc, m->domid, e) < 0)
        return err_prefix(e, "domain %s", m->uuid);
    m->mark.log = 0;
    return xen_mark_write(m, e);
}

/* --- throttle --- */

int xen_set_cap(xc_interface *xc, uint32_t domid, const char *scheduler, struct xen_shares shares,
    struct err *e)
{
    int rc = xen_shares_set(xc, scheduler, domid, shares);

    return rc < 0 && errno != ESRCH ? err_sys(e, "setting its cap") : 0;
}

static int get_cap(struct hv_mig *m, struct err *e)
{
    struct xen_shares s;

    if (!xen_has_shares(m->scheduler))
        return err_set(e, ERR_UNSUPPORTED, "domain %s: the scheduler \"%s\" has no cap", m->uuid,
            m->scheduler);
    if (xen_shares_get(m->xc, m->scheduler, m->domid, &s) < 0)
        return err_sys(e, "domain %s: asking for its cap", m->uuid);
    m->mark.weight = s.weight;
    m->mark.cap = s.cap;
    memcpy(m->mark.scheduler, m->scheduler, sizeof m->mark.scheduler);
    return 0;
}

static uint16_t cap_for(const struct hv_mig *m, unsigned percent)
{
    unsigned all = m->mark.cap != 0 ? m->mark.cap : m->vcpus * 100;
    unsigned cap = all * (100 - percent) / 100;

    return (uint16_t)(cap < LEAST_CAP ? LEAST_CAP : cap > HV_CAP_MAX ? HV_CAP_MAX : cap);
}

int xen_throttle(struct hv_mig *m, unsigned percent, struct err *e)
{
    uint16_t cap;

    if (percent > 99)
        return err_set(e, ERR_INVALID, "a throttle of %u percent; at most 99", percent);
    if (percent == 0 && !m->mark.capped)
        return 0;
    if (!m->mark.capped) {
        if (get_cap(m, e) < 0)
            return -1;
        m->mark.capped = 1;
        if (xen_mark_write(m, e) < 0)
            return -1;
    }
    cap = percent == 0 ? m->mark.cap : cap_for(m, percent);
    if (xen_set_cap(m->xc, m->domid, m->scheduler, (struct xen_shares){ m->mark.weight, cap }, e) <
        0)
        return err_prefix(e, "domain %s", m->uuid);
    if (percent != 0)
        return 0;
    m->mark.capped = 0;
    return xen_mark_write(m, e);
}
