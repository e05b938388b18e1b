/* SPDX-License-Identifier: ISC */
/*
 * The jobs behind `xm save` and `xm restore`; the format is savefile.h's.
 *
 * Save: pause, write the file (outfile.h, or the descriptor that came). After success the
 * domain stays paused and migrd destroys or resumes it; after a failure or a cancel it is
 * resumed, unless it was paused before.
 * Restore: Offer, OfferSeen -> OfferVerdict (migration is empty), memory, state. migrd
 * resumes the domain after Finished.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "precopy/outfile.h"
#include "precopy/savefile.h"
#include "precopy/worker_internal.h"
#include "transport/digest.h"

static void report_pages(Migrd__Finished *f, const struct pages_count *count)
{
    struct pages_total c = { 0 };

    pages_total_add(&c, count);
    f->pages_sent = c.sent;
    f->pages_zero = c.zero;
    f->wire_bytes = c.bytes;
}

/* --- save --- */

struct save {
    struct ctl *ctl;
    const Migrd__SaveStart *start;
    struct attach at;
    bool paused;
    struct outfile file;
    uint64_t *work;
    struct pages_writer *w;
    uint64_t pause_ns;
};

static int pause_domain(struct save *s, struct err *e)
{
    struct hv_info info;

    if (s->at.ops->info(s->at.hv, s->start->domain->uuid, &info, e) < 0)
        return -1;
    s->pause_ns = clock_ns();
    if (hv_is_paused(&info))
        return 0;
    s->paused = true;
    return s->at.ops->mig_pause(s->at.mig, s->start->epoch, e);
}

static int write_head(struct save *s, uint64_t populated, struct err *e)
{
    Migrd__Offer o = MIGRD__OFFER__INIT;
    struct offer_regions regions;
    struct offer_host host;

    offer_set_host(&o, &host, &s->at);
    offer_set_regions(&o, &regions, &s->at.layout);
    o.protocol = PROTOCOL;
    o.domain = s->start->domain;
    o.epoch = s->start->epoch;
    o.channels = 1;
    o.stay_paused = s->start->stay_paused;
    o.populated_pages = populated;
    return savefile_write_head(s->file.fd, &o, e);
}

static int write_memory(struct save *s, struct err *e)
{
    struct pages_round r = { .number = 0, .live = false, .bitmap = s->work };

    s->w->ops = s->at.ops;
    s->w->mig = s->at.mig;
    s->w->layout = &s->at.layout;
    s->w->port = outfile_port(&s->file);
    s->w->channel = s->w->channels = 1;
    if (pages_write_round(s->w, &r, e) < 0 || pages_write_mark(s->w, FRAME_ROUND_END, 0, e) < 0)
        return -1;
    return pages_write_mark(s->w, FRAME_END, 0, e);
}

static int write_state(struct save *s, struct err *e)
{
    Migrd__FinalState f = MIGRD__FINAL_STATE__INIT;
    uint8_t *blob = NULL;
    size_t len = 0;
    int r;

    if (s->at.ops->state_save(s->at.mig, &blob, &len, e) < 0)
        return -1;
    f.state.data = blob;
    f.state.len = len;
    f.frames = s->w->seq;
    f.paused_wall_ns = clock_wall_ns() - (clock_ns() - s->pause_ns);
    f.sent_digest = tr_digest_fold(&s->w->fold, 1);
    r = savefile_write_final(s->file.fd, &f, e);
    free(blob);
    return r;
}

static int save(struct save *s, int fd, const struct worker_options *opt, struct err *e)
{
    const Migrd__SaveStart *st = s->start;

    if (attach_open(&s->at, opt, st->hypervisor, st->run_dir, st->log_dir, e) < 0 ||
        attach_domain(&s->at, st->domain->uuid, HV_SOURCE, e) < 0)
        return -1;
    s->work = attach_bitmap(&s->at, e);
    s->w = calloc(1, sizeof *s->w);
    if (s->w == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for saving");
    s->file.count = &s->w->count;
    if (s->work == NULL || outfile_open(&s->file, fd, e) < 0 || pause_domain(s, e) < 0 ||
        s->at.ops->mig_populated(s->at.mig, s->work, e) < 0)
        return -1;
    s->file.pages = bitmap_count(s->work, s->at.words);
    if (write_head(s, s->file.pages, e) < 0 || write_memory(s, e) < 0 || write_state(s, e) < 0)
        return err_prefix(e, "%s", st->path);
    return ctl_hold(s->ctl, e) ? outfile_finish(&s->file, e) : -1;
}

static void undo_save(struct save *s, struct err *e)
{
    struct err again = { 0 };

    if (s->paused && s->at.ops->mig_resume(s->at.mig, s->start->epoch, &again) < 0)
        log_error(
            "precopy", "%s: after a failed save: resume: %s", s->start->domain->name, again.text);
    log_warn("precopy", "%s: save failed: %s", s->start->domain->name, e->text);
}

int save_run(
    struct ctl *ctl, const Migrd__SaveStart *start, int fd, const struct worker_options *opt)
{
    struct save s = { .ctl = ctl,
        .start = start,
        .file = { .fd = fd,
            .path = start->path,
            .drop_cache = start->drop_cache,
            .ctl = ctl,
            .began_ns = clock_ns() } };
    Migrd__Finished f = MIGRD__FINISHED__INIT;
    struct err e = { 0 };
    int r = save(&s, fd, opt, &e);

    if (r < 0)
        undo_save(&s, &e);
    f.phase = r == 0 ? MIGRD__PHASE__PHASE_DONE : MIGRD__PHASE__PHASE_PAUSED;
    f.guest_resumed = r < 0 && s.paused;
    f.total_us = (clock_ns() - s.file.began_ns) / NS_PER_US;
    if (s.w != NULL)
        report_pages(&f, &s.w->count);
    outfile_close(&s.file);
    attach_close(&s.at);
    send_finished(ctl, &f, r < 0 ? &e : NULL);
    free(s.work);
    free(s.w);
    return r;
}

/* --- restore --- */

struct restore {
    struct ctl *ctl;
    const Migrd__RestoreStart *start;
    int fd;
    struct attach at;
    Migrd__Offer *offer;
    struct pages_reader *r;
};

static int ask_for_domain(struct restore *s, const struct worker_options *opt, struct err *e)
{
    Migrd__ToWorker *v;
    int r;

    if (send_offer_seen(s->ctl, s->offer, "", false, e) < 0 ||
        ctl_wait(s->ctl, MIGRD__TO_WORKER__BODY_OFFER_VERDICT, clock_ns() + VERDICT_MS * NS_PER_MS,
            &v, NULL, e) < 0)
        return -1;
    if (!v->offer_verdict->ok)
        r = migrd_said(v->offer_verdict->code, v->offer_verdict->text, e);
    else
        r = attach_open(&s->at, opt, s->start->hypervisor, s->start->run_dir, s->start->log_dir, e);
    if (r == 0)
        r = attach_domain(&s->at, v->offer_verdict->uuid, HV_TARGET, e);
    migrd__to_worker__free_unpacked(v, NULL);
    return r == 0 ? offer_layout(s->offer, &s->at.layout, e) : r;
}

static int read_memory(struct restore *s, struct err *e)
{
    enum frame_type type = FRAME_PAGES;
    uint32_t round = 0;

    s->r->ops = s->at.ops;
    s->r->mig = s->at.mig;
    s->r->layout = &s->at.layout;
    s->r->port = savefile_port(&s->fd);
    s->r->channel = s->r->channels = 1;
    s->r->encodings = FRAME_PLAIN;
    while (type != FRAME_END) {
        if (ctl_ended(s->ctl, e) || pages_read_frame(s->r, &type, &round, e) < 0)
            return -1;
        if (round != 0)
            return err_set(e, ERR_INTEGRITY, "save file: a frame of round %u", round);
    }
    return 0;
}

static int read_state(struct restore *s, struct err *e)
{
    Migrd__FinalState *f = savefile_read_final(s->fd, e);
    int r;

    if (f == NULL)
        return -1;
    if (f->frames != s->r->seq || f->sent_digest != tr_digest_fold(&s->r->fold, 1))
        r = err_set(e, ERR_INTEGRITY, "save file: frames are missing or damaged");
    else
        r = s->at.ops->state_load(s->at.mig, f->state.data, f->state.len, e);
    migrd__final_state__free_unpacked(f, NULL);
    return r;
}

/* Of a pipe the other end may never come: what is no regular file is refused. */
static int open_saved(struct restore *s, struct err *e)
{
    struct stat st;

    if (s->fd < 0)
        s->fd = open(s->start->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (s->fd < 0 || fstat(s->fd, &st) < 0)
        return err_sys(e, "cannot open %s", s->start->path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "%s is no regular file", s->start->path);
    return 0;
}

static int restore(struct restore *s, const struct worker_options *opt, struct err *e)
{
    if (open_saved(s, e) < 0)
        return -1;
    s->r = calloc(1, sizeof *s->r);
    if (s->r == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for restoring");
    s->offer = savefile_read_head(s->fd, e);
    if (s->offer == NULL || offer_check(s->offer, false, e) < 0)
        return err_prefix(e, "%s", s->start->path);
    if (ask_for_domain(s, opt, e) < 0 || enter_sandbox(opt, e) < 0)
        return -1;
    if (read_memory(s, e) < 0 || read_state(s, e) < 0)
        return err_prefix(e, "%s", s->start->path);
    if (s->start->drop_cache)
        posix_fadvise(s->fd, 0, 0, POSIX_FADV_DONTNEED);
    return 0;
}

int restore_run(
    struct ctl *ctl, const Migrd__RestoreStart *start, int fd, const struct worker_options *opt)
{
    struct restore s = { .ctl = ctl, .start = start, .fd = fd };
    Migrd__Finished f = MIGRD__FINISHED__INIT;
    uint64_t began = clock_ns();
    struct err e = { 0 };
    int r = restore(&s, opt, &e);

    if (r < 0)
        log_warn("precopy", "restore from %s failed: %s", start->path, e.text);
    f.phase = r == 0 ? MIGRD__PHASE__PHASE_DONE : MIGRD__PHASE__PHASE_PRECOPY;
    f.total_us = (clock_ns() - began) / NS_PER_US;
    if (s.r != NULL)
        report_pages(&f, &s.r->count);
    io_close(&s.fd);
    attach_close(&s.at);
    send_finished(ctl, &f, r < 0 ? &e : NULL);
    if (s.offer != NULL)
        migrd__offer__free_unpacked(s.offer, NULL);
    free(s.r);
    return r;
}
