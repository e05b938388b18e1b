/* SPDX-License-Identifier: ISC */
/*
 * The last step of a migration, source side; DESIGN.md section 4 is the law.
 *
 *   WantPause -> StepOk      migrd has PREPARED in its journal; the guest still runs
 *   pause, collect           the pause begins
 *   last round || state      pages by the channel threads, vCPU state by this one, and the
 *                            sample too where the pages take longer; of a guest whose memory is
 *                            a stream (hv_layout.stream) the state comes after it, and no
 *                            sample, since its pages cannot be looked at again
 *   FinalState               the target loads while this side hashes (a sample, or all memory
 *                            with verify)
 *   digests
 *   Ready                    the target holds everything, loaded and compared
 *   WantCommit -> StepOk     from the moment WantCommit is sent the guest is never
 *                            resumed by this program, unless migrd answers no
 *   Go -> Running            the pause ends
 *
 * Before WantCommit a failure means: undo (source.c), the guest goes on here. After it
 * the worker only reports; migrd, which knows what its journal says, decides.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "precopy/pages.h"
#include "precopy/source_internal.h"
#include "precopy/verify.h"

#define VERIFY_BYTES_PER_MS (100u << 10) /* slowest hashing that is waited for: 100 MiB/s */

static int point(const char *name, bool fires, struct err *e)
{
    return fires ? err_set(e, ERR_INTERNAL, "fault point %s", name) : 0;
}

static int want_pause(struct source *s, struct err *e)
{
    Migrd__FromWorker m = MIGRD__FROM_WORKER__INIT;
    Migrd__WantPause w = MIGRD__WANT_PAUSE__INIT;
    struct step_answer answer;

    w.epoch = s->start->epoch + 1;
    m.body_case = MIGRD__FROM_WORKER__BODY_WANT_PAUSE;
    m.want_pause = &w;
    return ask_migrd(s->ctl, s->msg, &m, &answer, e);
}

static int pause_guest(struct source *s, struct err *e)
{
    s->phase = MIGRD__PHASE__PHASE_PAUSED;
    steps_begin(&s->steps);
    s->pause_ns = s->steps.at_ns;
    if (!s->was_paused) {
        s->paused = true; /* also when it fails half-way: resuming a running guest is harmless */
        if (s->at.ops->mig_pause(s->at.mig, s->start->epoch, e) < 0)
            return -1;
    }
    steps_end(&s->steps, "pause");
    return 0;
}

static int last_pages(struct source *s, struct err *e)
{
    if (!s->log_on) {
        if (s->at.ops->mig_populated(s->at.mig, s->work, e) < 0)
            return -1;
        s->populated = bitmap_count(s->work, s->at.words);
        memcpy(s->known, s->work, s->at.words * sizeof *s->known);
    } else if (source_collect(s, s->work, "source-lose-dirty", e) < 0) {
        return -1;
    }
    steps_end(&s->steps, "collect");
    return 0;
}

static int send_final(struct source *s, const uint8_t *blob, size_t len, struct err *e)
{
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__FinalState f = MIGRD__FINAL_STATE__INIT;
    struct pages_total c;

    sender_count(s->sender, &c);
    f.state.data = (uint8_t *)blob;
    f.state.len = len;
    f.frames = c.frames;
    f.paused_wall_ns = clock_wall_ns() - (clock_ns() - s->pause_ns);
    f.sent_digest = sender_digest(s->sender);
    m.body_case = MIGRD__SESSION__BODY_FINAL_STATE;
    m.final_state = &f;
    return tr_send(s->msg, &m, e);
}

static void report_last(struct source *s, uint64_t began)
{
    unsigned i = s->n_report < SOURCE_ROUNDS_KEPT ? s->n_report++ : SOURCE_ROUNDS_KEPT - 1;
    Migrd__RoundReport *r = &s->report[i];
    struct pages_total c;

    sender_count(s->sender, &c);
    migrd__round_report__init(r);
    r->round = s->round;
    r->pages = c.sent - s->round_start.sent;
    r->zero = c.zero - s->round_start.zero;
    r->bytes = c.bytes - s->round_start.bytes;
    r->duration_us = (clock_ns() - began) / NS_PER_US;
    r->throttle = s->throttle;
    source_round_counts(s, r, &c);
    s->report_ptr[i] = r;
}

/* --- digests --- */

static int send_digests(
    struct source *s, const struct verify_range *range, size_t n, bool last, struct err *e)
{
    Migrd__DigestRange store[VERIFY_MESSAGE_RANGES], *ptr[VERIFY_MESSAGE_RANGES];
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__MemoryDigests d = MIGRD__MEMORY_DIGESTS__INIT;

    for (size_t i = 0; i < n; i++) {
        migrd__digest_range__init(&store[i]);
        store[i].gfn = range[i].gfn;
        store[i].pages = range[i].pages;
        store[i].low = range[i].low;
        store[i].high = range[i].high;
        ptr[i] = &store[i];
        s->verified_pages += range[i].pages;
    }
    d.n_ranges = n;
    d.ranges = ptr;
    d.last = last;
    m.body_case = MIGRD__SESSION__BODY_MEMORY_DIGESTS;
    m.memory_digests = &d;
    return tr_send(s->msg, &m, e);
}

static int hash_and_send(struct source *s, struct verify_range *range, size_t n, struct err *e)
{
    size_t done = 0;

    do {
        size_t k = n - done < VERIFY_MESSAGE_RANGES ? n - done : VERIFY_MESSAGE_RANGES;

        if (ctl_ended(s->ctl, e))
            return -1;
        if (verify_hash(s->at.ops, s->at.mig, range + done, k, e) < 0 ||
            send_digests(s, range + done, k, done + k == n, e) < 0)
            return -1;
        done += k;
    } while (done < n);
    return 0;
}

/* No longer than VERIFY_SAMPLE_US: as much of the sample as that allows. */
static int hash_sample(struct source *s, struct err *e)
{
    struct verify_population p = {
        .populated = s->known, .ever_dirty = s->harvest, .last = s->work, .words = s->at.words
    };
    size_t n = s->at.layout.stream ? 0 : verify_sample(&p, s->seed, s->pick);

    s->picked = true;
    if (verify_hash_some(s->at.ops, s->at.mig, s->pick, n, &s->n_pick, e) < 0)
        return -1;
    steps_end(&s->steps, "sample");
    return 0;
}

static int send_sample(struct source *s, struct err *e)
{
    size_t done = 0;

    if (!s->picked && hash_sample(s, e) < 0)
        return -1;
    do {
        size_t k =
            s->n_pick - done < VERIFY_MESSAGE_RANGES ? s->n_pick - done : VERIFY_MESSAGE_RANGES;

        if (send_digests(s, s->pick + done, k, done + k == s->n_pick, e) < 0)
            return -1;
        done += k;
    } while (done < s->n_pick);
    steps_end(&s->steps, "send-sample");
    return 0;
}

static int digests(struct source *s, struct err *e)
{
    struct verify_range *range = NULL;
    size_t n = 0;
    int r;

    if (!s->par->verify)
        return send_sample(s, e);
    memset(s->next, 0, s->at.words * sizeof *s->next);
    if (s->at.ops->mig_populated(s->at.mig, s->next, e) < 0 ||
        verify_list(s->next, &s->at.layout, &range, &n, e) < 0)
        return -1;
    r = hash_and_send(s, range, n, e);
    free(range);
    steps_end(&s->steps, "digests");
    return r;
}

/* --- pages and state --- */

static int save_state(struct source *s, uint8_t **blob, size_t *len, struct err *e)
{
    int r = s->at.ops->state_save(s->at.mig, blob, len, e);

    steps_end(&s->steps, "state-save");
    if (r == 0 && *len > HV_STATE_MAX)
        r = err_set(e, ERR_RESOURCE, "the state of vCPUs and devices is %zu bytes long", *len);
    return r;
}

static int send_rest(struct source *s, struct err *e)
{
    uint64_t began = clock_ns();
    uint8_t *blob = NULL;
    size_t len = 0;
    int r;

    source_send_round(s, false, true);
    r = s->at.layout.stream ? source_wait_round(s, false, e) : 0;
    if (r == 0)
        r = save_state(s, &blob, &len, e);
    if (r == 0 && !s->par->verify && sender_wait(s->sender, 0, NULL) == 0)
        r = hash_sample(s, e);
    if (r == 0)
        r = source_wait_round(s, false, e);
    steps_end(&s->steps, "last-round");
    if (r == 0)
        r = point("source-last-round", FAULT("source-last-round"), e);
    if (r == 0) {
        report_last(s, began);
        r = send_final(s, blob, len, e);
        steps_end(&s->steps, "send-state");
    }
    free(blob);
    return r;
}

/* --- the transaction --- */

static int await_ready(struct source *s, struct err *e)
{
    /* The guest is paused: no longer than a dead peer is waited for. */
    uint64_t bytes = s->par->verify ? s->populated * HV_PAGE_SIZE : 0;
    unsigned dead_ms = s->par->dead_peer_ms != 0 ? s->par->dead_peer_ms : DEFAULT_DEAD_PEER_MS;
    /* behind a stream's last byte the target has its domain still to make whole */
    unsigned more_ms = s->at.layout.stream ? PEER_STEP_MS : 0;
    unsigned wait_ms = dead_ms + more_ms + (unsigned)(bytes / VERIFY_BYTES_PER_MS);
    Migrd__Session *m;
    int r = 0;

    if (expect(s->msg, MIGRD__SESSION__BODY_READY, wait_ms, &m, e) < 0)
        return ctl_ended(s->ctl, e) ? -1 : err_prefix(e, "waiting for the target to be ready");
    if (m->ready->epoch != s->start->epoch + 1)
        r = err_set(e, ERR_PROTOCOL, "the target is ready for epoch %" PRIu64 ", not %" PRIu64,
            m->ready->epoch, s->start->epoch + 1);
    else if (m->ready->received_digest != sender_digest(s->sender))
        r = err_set(e, ERR_INTEGRITY,
            "what the target received differs from what was sent: the guest stays here");
    migrd__session__free_unpacked(m, NULL);
    steps_end(&s->steps, "ready");
    return r;
}

static int commit(struct source *s, struct err *e)
{
    Migrd__FromWorker m = MIGRD__FROM_WORKER__INIT;
    Migrd__WantCommit w = MIGRD__WANT_COMMIT__INIT;
    struct step_answer answer;
    int r;

    if (!ctl_hold(s->ctl, e))
        return -1;
    w.epoch = s->start->epoch + 1;
    m.body_case = MIGRD__FROM_WORKER__BODY_WANT_COMMIT;
    m.want_commit = &w;
    if (ctl_send(s->ctl, &m, e) < 0) {
        ctl_release(s->ctl);
        return -1;
    }
    s->committed = true;
    s->phase = MIGRD__PHASE__PHASE_COMMITTED;
    r = await_step(s->ctl, s->msg, &answer, e);
    if (r < 0 && answer.came) {
        s->committed = false;
        s->phase = MIGRD__PHASE__PHASE_PAUSED;
        ctl_release(s->ctl);
    }
    steps_end(&s->steps, "commit");
    steps_within(&s->steps, "journal", answer.journal_us, "commit", "migrd");
    return r;
}

static int go(struct source *s, struct err *e)
{
    Migrd__Session m = MIGRD__SESSION__INIT, *answer;
    Migrd__Go g = MIGRD__GO__INIT;
    int r = 0;

    g.epoch = s->start->epoch + 1;
    m.body_case = MIGRD__SESSION__BODY_GO;
    m.go = &g;
    if (tr_send(s->msg, &m, e) < 0)
        return -1;
    if (point("source-after-go", FAULT("source-after-go"), e) < 0)
        return -1;
    if (expect(s->msg, MIGRD__SESSION__BODY_RUNNING, PEER_STEP_MS, &answer, e) < 0)
        return -1;
    if (answer->running->epoch != g.epoch)
        r = err_set(e, ERR_PROTOCOL, "the target runs under another epoch than was agreed");
    steps_end(&s->steps, "running");
    s->pause_us = (s->steps.at_ns - s->pause_ns) / NS_PER_US;
    steps_take(&s->steps, answer->running);
    migrd__session__free_unpacked(answer, NULL);
    return r;
}

int source_stop(struct source *s, struct err *e)
{
    if (want_pause(s, e) < 0 || point("source-before-pause", FAULT("source-before-pause"), e) < 0 ||
        pause_guest(s, e) < 0 || point("source-after-pause", FAULT("source-after-pause"), e) < 0)
        return -1;
    s->stopped = true;
    return 0;
}

int source_handover(struct source *s, struct err *e)
{
    if (s->stopped)
        steps_end(&s->steps, "rest-of-round");
    if ((!s->stopped && source_stop(s, e) < 0) || last_pages(s, e) < 0 || send_rest(s, e) < 0 || digests(s, e) < 0 || await_ready(s, e) < 0 ||
        point("source-before-commit", FAULT("source-before-commit"), e) < 0 || commit(s, e) < 0)
        return -1;
    if (point("source-after-commit", FAULT("source-after-commit"), e) < 0 || go(s, e) < 0)
        return err_prefix(e, "in doubt after COMMITTED, the guest stays paused here");
    s->phase = MIGRD__PHASE__PHASE_DONE;
    return 0;
}
