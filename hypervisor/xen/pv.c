/* SPDX-License-Identifier: ISC */
/* What both sides of a PV guest's move have in common; see pv.h. */
#define _GNU_SOURCE
#include "hypervisor/xen/pv.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"

static int make(struct hv_mig *m, struct err *e)
{
    struct xen_pv *pv = m->pv = calloc(1, sizeof *pv);

    if (pv == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    pv->fd = pv->answer = -1;
    pv->window = malloc((size_t)HV_BATCH_PAGES * HV_PAGE_SIZE);
    return pv->window != NULL ? 0 : err_set(e, ERR_MEMORY, "out of memory for a guest's stream");
}

int xen_pv_open(struct hv *hv, struct hv_mig *m, const xc_domaininfo_t *d, struct err *e)
{
    if (m->side == HV_VIEWER)
        return err_set(e, ERR_UNSUPPORTED,
            "domain %s: pv: its page tables hold this machine's frame numbers, so its memory "
            "cannot be dumped; use a pvh guest",
            m->uuid);
    if (make(m, e) < 0)
        return -1;
    return m->side == HV_TARGET ? pv_target_open(hv, m, e) : pv_source_open(hv, m, d, e);
}

/* In the sandbox nobody can be waited for: who started us does. */
void xen_pv_close(struct hv_mig *m)
{
    struct xen_pv *pv = m->pv;

    if (pv == NULL)
        return;
    m->pv = NULL;
    io_close(&pv->fd);
    io_close(&pv->answer);
    if (pv->pid > 0) {
        kill(pv->pid, SIGKILL);
        while (waitpid(pv->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    free(pv->window);
    free(pv);
}

void xen_pv_lay_out(struct hv_layout *l, uint64_t kib)
{
    memset(l, 0, sizeof *l);
    l->n = 1;
    l->region[0].pages = xen_pvstream_pages(kib / (HV_PAGE_SIZE / 1024));
    l->max_gfn = l->region[0].pages - 1;
    l->stream = true;
}

int xen_pv_populated(const struct hv_mig *m, uint64_t *bitmap)
{
    const uint64_t pages = m->layout.region[0].pages;

    memset(bitmap, 0, xen_bitmap_words(m) * sizeof *bitmap);
    for (uint64_t i = 0; i < pages; i++)
        bitmap[i >> 6] |= UINT64_C(1) << (i & 63);
    return 0;
}

int xen_pv_map(struct hv_mig *m, const uint64_t *gfn, size_t n, bool write, struct hv_mapping *map,
    struct err *e)
{
    if (n == 0 || n > HV_BATCH_PAGES)
        return err_set(e, ERR_INVALID, "mapping of %zu pages; 1 to %u", n, HV_BATCH_PAGES);
    if (write != (m->side == HV_TARGET))
        return err_set(e, ERR_STATE, "domain %s: a source is read, a target written", m->uuid);
    if (gfn[n - 1] > m->layout.max_gfn)
        return err_set(e, ERR_INVALID, "domain %s: page 0x%" PRIx64 " is beyond its stream",
            m->uuid, gfn[n - 1]);
    map->n = n;
    map->driver = NULL;
    return write ? pv_target_map(m, gfn, n, map, e) : pv_source_map(m, gfn, n, map, e);
}

void xen_pv_unmap(struct hv_mig *m, struct hv_mapping *map)
{
    if (m->side == HV_TARGET)
        pv_target_came(m);
    map->n = 0;
}

/* A line, or what there is at the end. */
int pv_answer(int fd, unsigned timeout_ms, struct err *e)
{
    uint64_t deadline = clock_ns() + timeout_ms * NS_PER_MS;
    char text[PV_ANSWER_MAX], *rest;
    size_t len = 0;

    while (len < sizeof text - 1 && memchr(text, '\n', len) == NULL) {
        ssize_t n;

        if (io_wait(fd, POLLIN, deadline, e) < 0)
            return err_prefix(e, "xen-domain");
        n = read(fd, text + len, sizeof text - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    text[len] = '\0';
    return xen_said(text, &rest, e);
}
