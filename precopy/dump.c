/* SPDX-License-Identifier: ISC */
/*
 * The job behind `xm dump-core` and `virsh dump`: memory and registers of a domain to a core
 * file; the format is core.h's, the file outfile.h's.
 *
 * The guest is paused (but not one that stands still already), its registers are read; with
 * `live` it goes on at once, and its memory is then a mixture of moments, else when the file is
 * whole. After a failure or a cancel it goes on in any case; after success with `leave_paused` it
 * stays paused for migrd, which ends it.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "precopy/core.h"
#include "precopy/outfile.h"
#include "precopy/scan.h"
#include "precopy/worker_internal.h"

struct dump {
    const Migrd__DumpStart *start;
    struct attach at;
    struct outfile file;
    struct pages_count count;
    struct core core;
    bool paused; /* by us */
    uint64_t pause_ns, stood_ns;
    uint64_t *populated;
    uint64_t gfn[HV_BATCH_PAGES];
    struct hv_mapping map;
};

static int pause_domain(struct dump *d, struct err *e)
{
    struct hv_info info;

    if (d->at.ops->info(d->at.hv, d->start->domain->uuid, &info, e) < 0)
        return -1;
    if (hv_is_paused(&info) || info.state == HV_SHUTDOWN || info.state == HV_CRASHED)
        return 0;
    d->pause_ns = clock_ns();
    if (d->at.ops->mig_pause(d->at.mig, d->start->epoch, e) < 0)
        return -1;
    d->paused = true;
    return 0;
}

static int resume_domain(struct dump *d, struct err *e)
{
    if (!d->paused)
        return 0;
    if (d->at.ops->mig_resume(d->at.mig, d->start->epoch, e) < 0)
        return -1;
    d->paused = false;
    d->stood_ns = clock_ns() - d->pause_ns;
    return 0;
}

static int write_head(struct dump *d, struct err *e)
{
    struct hv_registers *list;
    unsigned n;
    int r;

    if (d->at.ops->mig_registers(d->at.mig, &list, &n, e) < 0)
        return -1;
    r = core_layout(&d->core, &d->at.layout, list, n, e);
    free(list);
    return r < 0 ? -1 : outfile_write(&d->file, d->core.head, d->core.head_len, 0, e);
}

/* Pages with content go out in runs of neighbours; the others stay holes. */
static int write_mapped(struct dump *d, size_t n, struct err *e)
{
    size_t i = 0;

    while (i < n) {
        size_t from = i;

        if (scan->is_zero(d->map.page[i])) {
            d->count.pages[FRAME_ZERO]++;
            i++;
            continue;
        }
        do
            i++;
        while (i < n && d->gfn[i] == d->gfn[i - 1] + 1 &&
               d->map.page[i] == d->map.page[i - 1] + HV_PAGE_SIZE &&
               !scan->is_zero(d->map.page[i]));
        if (outfile_write(&d->file, d->map.page[from], (i - from) * HV_PAGE_SIZE,
                core_offset(&d->core, &d->at.layout, d->gfn[from]), e) < 0)
            return -1;
        d->count.pages[FRAME_RAW] += i - from;
        d->count.bytes += (i - from) * HV_PAGE_SIZE;
    }
    return 0;
}

static int write_batch(struct dump *d, size_t n, struct err *e)
{
    int r;

    if (n == 0)
        return 0;
    if (outfile_step(&d->file, e) < 0 ||
        d->at.ops->mig_map(d->at.mig, d->gfn, n, false, &d->map, e) < 0)
        return -1;
    r = write_mapped(d, n, e);
    d->at.ops->mig_unmap(d->at.mig, &d->map);
    return r;
}

static int write_memory(struct dump *d, struct err *e)
{
    size_t n = 0;

    d->file.pages = bitmap_count(d->populated, d->at.words);
    for (uint64_t g = 0; g <= d->at.layout.max_gfn; g++) {
        if (!bitmap_test(d->populated, g))
            continue;
        d->gfn[n++] = g;
        if (n < HV_BATCH_PAGES)
            continue;
        if (write_batch(d, n, e) < 0)
            return -1;
        n = 0;
    }
    if (write_batch(d, n, e) < 0)
        return -1;
    return ftruncate(d->file.fd, (off_t)d->core.file_len) < 0 ? err_sys(e, "%s", d->file.path) : 0;
}

static int dump(struct dump *d, const struct worker_options *opt, struct err *e)
{
    const Migrd__DumpStart *st = d->start;

    if (attach_open(&d->at, opt, st->hypervisor, st->run_dir, st->log_dir, e) < 0 ||
        attach_domain(&d->at, st->domain->uuid, HV_VIEWER, e) < 0 ||
        (d->populated = attach_bitmap(&d->at, e)) == NULL || outfile_open(&d->file, -1, e) < 0)
        return -1;
    if (pause_domain(d, e) < 0 || write_head(d, e) < 0 || (st->live && resume_domain(d, e) < 0) ||
        d->at.ops->mig_populated(d->at.mig, d->populated, e) < 0 || write_memory(d, e) < 0)
        return -1;
    return ctl_hold(d->file.ctl, e) ? outfile_finish(&d->file, e) : -1;
}

/* Whatever came of it, the guest is where it belongs. */
static int settle(struct dump *d, int r, struct err *e)
{
    struct err why;

    if ((r == 0 && d->start->leave_paused) || resume_domain(d, &why) == 0)
        return r;
    log_error("precopy", "%s: after a dump: resume: %s", d->start->domain->name, why.text);
    if (r == 0)
        *e = why;
    return -1;
}

static void report(const struct dump *d, Migrd__Finished *f, int r)
{
    struct pages_total c = { 0 };

    pages_total_add(&c, &d->count);
    f->phase = r == 0 ? MIGRD__PHASE__PHASE_DONE : MIGRD__PHASE__PHASE_PRECOPY;
    f->guest_resumed = !d->paused;
    f->total_us = (clock_ns() - d->file.began_ns) / NS_PER_US;
    f->pause_us = d->stood_ns / NS_PER_US;
    f->pages_sent = c.sent;
    f->pages_zero = c.zero;
    f->wire_bytes = c.bytes;
}

int dump_run(struct ctl *ctl, const Migrd__DumpStart *start, const struct worker_options *opt)
{
    Migrd__Finished f = MIGRD__FINISHED__INIT;
    struct dump *d = calloc(1, sizeof *d);
    struct err e = { 0 };
    int r;

    if (d == NULL) {
        err_set(&e, ERR_MEMORY, "out of memory for a dump");
        send_finished(ctl, &f, &e);
        return -1;
    }
    d->start = start;
    d->file = (struct outfile){ .fd = -1,
        .path = start->path,
        .drop_cache = start->drop_cache,
        .ctl = ctl,
        .began_ns = clock_ns(),
        .count = &d->count };
    r = settle(d, dump(d, opt, &e), &e);
    if (r < 0)
        log_warn("precopy", "%s: dump failed: %s", start->domain->name, e.text);
    report(d, &f, r);
    outfile_close(&d->file);
    attach_close(&d->at);
    send_finished(ctl, &f, r < 0 ? &e : NULL);
    free(d->core.head);
    free(d->populated);
    free(d);
    return r;
}
