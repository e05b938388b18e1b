/* SPDX-License-Identifier: ISC */
/*
 * The source of a PV guest's stream. `xen-domain save` is started with the migration, before
 * the worker's sandbox, and waits on its standard input, a socket. With the first page that is
 * asked for, when the guest stands still, it gets PV_GO and writes the stream into that
 * socket; its answer comes by a pipe when all is written. When the worker goes, it ends.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "hypervisor/xen/pv.h"

#define FRAME_NUMBER 8         /* bytes that a frame without content takes */
#define FIXED_BYTES (6u << 20) /* whatever is no page */

/* The stream has one entry for each frame that the guest has ever had a number for. */
static int check_room(const struct hv_mig *m, const xc_domaininfo_t *d, struct err *e)
{
    const uint64_t room = m->layout.region[0].pages * HV_PAGE_SIZE;
    xen_pfn_t top;

    if (xc_domain_maximum_gpfn(m->xc, m->domid, &top) < 0)
        return err_sys(e, "domain %s: asking for its highest frame", m->uuid);
    if (top < UINT64_C(1) << 40 && d->tot_pages < UINT64_C(1) << 40 &&
        d->tot_pages * (HV_PAGE_SIZE + FRAME_NUMBER) + top * FRAME_NUMBER + FIXED_BYTES <= room)
        return 0;
    return err_set(e, ERR_UNSUPPORTED,
        "domain %s: its memory map reaches up to frame 0x%" PRIx64 " and holds %" PRIu64
        " pages, more than its maximum of memory allows for; restart it, then it moves",
        m->uuid, (uint64_t)top, (uint64_t)d->tot_pages);
}

static int start(struct hv *hv, struct hv_mig *m, struct err *e)
{
    struct xen_pv *pv = m->pv;
    int s[2], r;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) < 0)
        return err_sys(e, "socketpair");
    pv->fd = s[0];
    r = xen_spawn(hv, "save", m->uuid, NULL, s[1], &pv->answer, &pv->pid, e);
    close(s[1]);
    return r;
}

int pv_source_open(struct hv *hv, struct hv_mig *m, const xc_domaininfo_t *d, struct err *e)
{
    uint64_t kib;

    if (xen_maximum_kib(m, &kib, e) < 0)
        return -1;
    xen_pv_lay_out(&m->layout, kib);
    return check_room(m, d, e) < 0 ? -1 : start(hv, m, e);
}

/* Why it ended early. */
static int cut_short(const struct xen_pv *pv, struct err *e)
{
    if (pv_answer(pv->answer, HV_CALL_TIMEOUT_MS, e) == 0)
        err_set(e, ERR_INTERNAL, "xen-domain: the guest's stream ended before its end");
    return -1;
}

/* Up to len bytes; zeroes behind the end of the stream. */
static int read_stream(struct xen_pv *pv, uint8_t *to, size_t len, struct err *e)
{
    while (len > 0 && !pv->stream.ended) {
        ssize_t n;
        int64_t took;

        if (io_wait(pv->fd, POLLIN, clock_ns() + PV_SILENT_MS * NS_PER_MS, e) < 0)
            return err_prefix(e, "xen-domain: the guest's stream");
        n = read(pv->fd, to, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return cut_short(pv, e);
        took = xen_pvstream_take(&pv->stream, to, (size_t)n, e);
        if (took < 0)
            return -1;
        if (took < n)
            return err_set(e, ERR_INTERNAL, "xen-domain: bytes behind the guest's stream");
        to += n;
        len -= (size_t)n;
    }
    memset(to, 0, len);
    return 0;
}

static int begin(struct xen_pv *pv, struct err *e)
{
    const char go = PV_GO;

    pv->begun = true;
    return io_write_full(pv->fd, &go, 1, clock_ns() + PV_SILENT_MS * NS_PER_MS, e);
}

int pv_source_map(
    struct hv_mig *m, const uint64_t *gfn, size_t n, struct hv_mapping *map, struct err *e)
{
    struct xen_pv *pv = m->pv;

    for (size_t i = 0; i < n; i++) {
        if (gfn[i] != pv->next + i)
            return err_set(e, ERR_STATE,
                "domain %s: page 0x%" PRIx64 " of its stream was asked for, 0x%" PRIx64 " is due",
                m->uuid, gfn[i], pv->next + i);
        map->page[i] = pv->window + i * HV_PAGE_SIZE;
    }
    if ((!pv->begun && begin(pv, e) < 0) || read_stream(pv, pv->window, n * HV_PAGE_SIZE, e) < 0)
        return err_prefix(e, "domain %s", m->uuid);
    pv->next += n;
    return 0;
}

int xen_pv_state_save(struct hv_mig *m, uint8_t **blob, size_t *len, struct err *e)
{
    struct xen_pv *pv = m->pv;
    const struct xen_pvstate s = { .vcpus = m->vcpus, .length = pv->stream.length };

    if (!pv->stream.ended)
        return err_set(e, ERR_STATE, "domain %s: its stream has not been read to its end", m->uuid);
    if (pv_answer(pv->answer, HV_CALL_TIMEOUT_MS, e) < 0 || xen_check_still(m, e) < 0)
        return -1;
    *blob = malloc(XEN_PVSTREAM_STATE_LEN);
    if (*blob == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for the state of a domain");
    xen_pvstate_pack(&s, *blob);
    *len = XEN_PVSTREAM_STATE_LEN;
    return 0;
}
