/* SPDX-License-Identifier: ISC */
/*
 * The target of a PV guest's stream. Its pages come in frames of the engine, data first and
 * zeroes after them, so they are gathered in a ring until those before them are there; then they
 * are looked at (xen_pvstream.h: this worker is sandboxed, the next reader is root) and go to
 * xen-domain by the socket in the domain's folder. Behind the last record comes the end
 * record of libxl's stream, and then the answer: libxl has built the domain. What is left of
 * the last page, and of the region, must be zeroes.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/io.h"
#include "hypervisor/xen/folder.h"
#include "hypervisor/xen/pv.h"

#define BUILT_MS 55000 /* what libxl builds behind the stream; the source waits no longer */

static const uint8_t libxl_end[8]; /* a record of type 0 and length 0 */

int pv_target_open(struct hv *hv, struct hv_mig *m, struct err *e)
{
    char dir[RUNDIR_LEN], path[RUNDIR_LEN];
    Migrd__Domain *def;

    xen_dir(hv, m->uuid, dir);
    def = folder_definition(dir, e);
    if (def == NULL)
        return -1;
    xen_pv_lay_out(
        &m->layout, def->max_memory_kib > def->memory_kib ? def->max_memory_kib : def->memory_kib);
    migrd__domain__free_unpacked(def, NULL);
    xen_file(hv, m->uuid, FOLDER_STREAM, path);
    m->pv->fd = io_unix_connect(path, e);
    if (m->pv->fd < 0)
        return err_prefix(e, "domain %s does not wait for its memory", m->uuid);
    return io_set_nonblock(m->pv->fd, true, e);
}

/* --- the ring --- */

static uint8_t *slot(struct xen_pv *pv, uint64_t page)
{
    return pv->window + page % HV_BATCH_PAGES * HV_PAGE_SIZE;
}

static bool is_present(const struct xen_pv *pv, uint64_t page)
{
    return (pv->present[page % HV_BATCH_PAGES / 64] >> page % 64 & 1) != 0;
}

static void set_present(struct xen_pv *pv, uint64_t page, bool here)
{
    uint64_t *word = &pv->present[page % HV_BATCH_PAGES / 64], bit = UINT64_C(1) << page % 64;

    *word = here ? *word | bit : *word & ~bit;
}

static int write_bytes(struct xen_pv *pv, const void *data, size_t len, struct err *e)
{
    struct err why, first;

    if (io_write_full(pv->fd, data, len, clock_ns() + PV_SILENT_MS * NS_PER_MS, &first) == 0)
        return 0;
    /* libxl refused it, and says why */
    if (pv_answer(pv->fd, HV_CALL_TIMEOUT_MS, &why) < 0 && why.code != ERR_PEER)
        return err_set(e, why.code, "%s", why.text);
    return err_set(e, first.code, "handing the guest's stream to libxl: %s", first.text);
}

static int end_stream(struct xen_pv *pv, struct err *e)
{
    if (write_bytes(pv, libxl_end, sizeof libxl_end, e) < 0)
        return -1;
    if (shutdown(pv->fd, SHUT_WR) < 0)
        return err_sys(e, "shutdown");
    if (pv_answer(pv->fd, BUILT_MS, e) < 0)
        return -1;
    pv->taken = true;
    return 0;
}

static bool is_zero(const uint8_t *p, size_t len)
{
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

static int hand_over(struct xen_pv *pv, const uint8_t *p, size_t len, struct err *e)
{
    const bool before = pv->stream.ended;
    int64_t took = xen_pvstream_take(&pv->stream, p, len, e);

    if (took < 0 || (took > 0 && write_bytes(pv, p, (size_t)took, e) < 0) ||
        (pv->stream.ended && !before && end_stream(pv, e) < 0))
        return -1;
    if (is_zero(p + took, len - (size_t)took))
        return 0;
    return err_set(e, ERR_PROTOCOL, "there are bytes behind the guest's stream");
}

/* What is due and here; up to the end of the ring at once. */
static int advance(struct xen_pv *pv, struct err *e)
{
    while (is_present(pv, pv->next)) {
        const uint64_t first = pv->next;

        do
            set_present(pv, pv->next++, false);
        while (pv->next % HV_BATCH_PAGES != 0 && is_present(pv, pv->next));
        if (hand_over(pv, slot(pv, first), (size_t)(pv->next - first) * HV_PAGE_SIZE, e) < 0)
            return -1;
    }
    return 0;
}

static int check_place(const struct hv_mig *m, uint64_t page, struct err *e)
{
    const struct xen_pv *pv = m->pv;

    if (pv->failed)
        return err_set(e, pv->err.code, "%s", pv->err.text);
    if (page <= m->layout.max_gfn && page - pv->next < HV_BATCH_PAGES && !is_present(pv, page))
        return 0;
    return err_set(e, ERR_PROTOCOL,
        "domain %s: page 0x%" PRIx64 " of its stream came, 0x%" PRIx64 " is due", m->uuid, page,
        pv->next);
}

/* --- the contract --- */

int pv_target_map(
    struct hv_mig *m, const uint64_t *gfn, size_t n, struct hv_mapping *map, struct err *e)
{
    struct xen_pv *pv = m->pv;

    for (size_t i = 0; i < n; i++) {
        if (check_place(m, gfn[i], e) < 0)
            return -1;
        pv->mapped[i] = gfn[i];
        map->page[i] = slot(pv, gfn[i]);
    }
    pv->n_mapped = n;
    return 0;
}

void pv_target_came(struct hv_mig *m)
{
    struct xen_pv *pv = m->pv;

    for (size_t i = 0; i < pv->n_mapped; i++)
        set_present(pv, pv->mapped[i], true);
    pv->n_mapped = 0;
    if (!pv->failed && advance(pv, &pv->err) < 0)
        pv->failed = true;
}

int xen_pv_zero(struct hv_mig *m, uint64_t gfn, uint64_t n, struct err *e)
{
    struct xen_pv *pv = m->pv;

    for (uint64_t page = gfn; page < gfn + n; page++) {
        if (check_place(m, page, e) < 0)
            return -1;
        memset(slot(pv, page), 0, HV_PAGE_SIZE);
        set_present(pv, page, true);
        if (advance(pv, e) < 0)
            return -1;
    }
    return 0;
}

int xen_pv_state_load(struct hv_mig *m, const uint8_t *blob, size_t len, struct err *e)
{
    const struct xen_pv *pv = m->pv;
    struct xen_pvstate s;

    if (m->side != HV_TARGET)
        return err_set(e, ERR_STATE, "domain %s is not an incoming one", m->uuid);
    if (pv->failed)
        return err_set(e, pv->err.code, "domain %s: %s", m->uuid, pv->err.text);
    if (xen_pvstate_parse(blob, len, &s, e) < 0)
        return err_prefix(e, "domain %s", m->uuid);
    if (s.vcpus != m->vcpus)
        return err_set(e, ERR_INVALID,
            "domain %s: its state does not fit here: it is of %u vCPUs, the domain has %u", m->uuid,
            s.vcpus, m->vcpus);
    if (!pv->taken || s.length != pv->stream.length)
        return err_set(e, ERR_INTEGRITY,
            "domain %s: %" PRIu64 " bytes of its stream of %" PRIu64 " came", m->uuid,
            pv->stream.length, s.length);
    return xen_mark_loaded(m, e);
}
