/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "precopy/sandbox.h"
#include "precopy/worker_internal.h"

/* --- the hypervisor --- */

int attach_open(struct attach *a, const struct worker_options *opt, const char *hypervisor,
    const char *run_dir, const char *log_dir, struct err *e)
{
    struct hv_config cfg = { .run_dir = run_dir, .log_dir = log_dir };

    memset(a, 0, sizeof *a);
    a->ops = opt->find(hypervisor);
    if (a->ops == NULL)
        return err_set(
            e, ERR_UNSUPPORTED, "this build has no hypervisor driver \"%.40s\"", hypervisor);
    return a->ops->open(&cfg, &a->hv, e);
}

int attach_can_move(const struct attach *a, const Migrd__Domain *d, Migrd__PrecopyParams *par,
    bool paused, struct err *e)
{
    bool live = par != NULL && par->live && !paused;
    struct err why = { 0 }, never = { 0 };

    if (a->ops->mig_check == NULL || a->ops->mig_check(a->hv, d->uuid, live, &why) == 0)
        return 0;
    if (!live)
        return err_set(e, why.code, "domain %s cannot be moved: %s", d->name, why.text);
    if (a->ops->mig_check(a->hv, d->uuid, false, &never) < 0)
        return err_set(e, never.code, "domain %s cannot be moved: %s", d->name, never.text);
    if (!par->allow_paused)
        return err_set(e, why.code,
            "domain %s cannot move while it runs: %s; with --allow-paused (or without --live) it "
            "is paused for the time that its move takes",
            d->name, why.text);
    log_info("precopy", "domain %s is paused for its move: %s", d->name, why.text);
    par->live = false;
    return 0;
}

int attach_domain(struct attach *a, const char *uuid, enum hv_side side, struct err *e)
{
    if (a->ops->mig_open(a->hv, uuid, side, &a->mig, e) < 0)
        return -1;
    if (a->ops->mig_layout(a->mig, &a->layout, e) < 0)
        return -1;
    a->words = HV_BITMAP_WORDS(a->layout.max_gfn);
    return 0;
}

int attach_can_verify(
    const struct attach *a, const Migrd__Domain *d, const Migrd__PrecopyParams *par, struct err *e)
{
    if (!a->layout.stream || !par->verify)
        return 0;
    return err_set(e, ERR_UNSUPPORTED,
        "domain %s: its memory leaves as one stream, which cannot be read again to be compared "
        "(--verify, migration-verify); without that, digests of all that was sent are compared",
        d->name);
}

void attach_close(struct attach *a)
{
    if (a->mig != NULL)
        a->ops->mig_close(&a->mig);
    if (a->hv != NULL)
        a->ops->close(&a->hv);
}

uint64_t *attach_bitmap(const struct attach *a, struct err *e)
{
    uint64_t *b = calloc(a->words, sizeof *b);

    if (b == NULL)
        err_set(e, ERR_MEMORY, "out of memory for a bitmap of %zu words", a->words);
    return b;
}

/* --- the peer --- */

int worker_tls(const Migrd__WorkerTls *files, struct tr_tls **out, struct err *e)
{
    struct tr_tls_files f;

    *out = NULL;
    if (files == NULL || files->ca[0] == '\0')
        return 0;
    f = (struct tr_tls_files){ .ca = files->ca, .cert = files->cert, .key = files->key };
    return tr_tls_open(&f, out, e);
}

static enum err_code code_of(const char *name)
{
    for (enum err_code c = ERR_SYSTEM; c < ERR_CODE_MAX; c++)
        if (strcmp(err_code_name(c), name) == 0)
            return c;
    return ERR_REFUSED;
}

/* The report of a message moves to its reader. */
static void take_report(Migrd__CheckReport **in, Migrd__CheckReport **out)
{
    if (out == NULL)
        return;
    *out = *in;
    *in = NULL;
    if (*out != NULL)
        report_limit(*out);
}

static int expect_or_report(struct tr_conn *c, Migrd__Session__BodyCase want, unsigned timeout_ms,
    Migrd__Session **out, Migrd__CheckReport **report, struct err *e)
{
    Migrd__Session *m;

    if (tr_recv(c, timeout_ms, &m, e) < 0)
        return -1;
    if (m->body_case == want) {
        *out = m;
        return 0;
    }
    if (m->body_case == MIGRD__SESSION__BODY_REFUSE) {
        tr_refused(c, m->refuse, e);
        take_report(&m->refuse->report, report);
    } else
        err_set(e, ERR_PROTOCOL, "message of kind %d came where %d was due", (int)m->body_case,
            (int)want);
    migrd__session__free_unpacked(m, NULL);
    return -1;
}

int expect(struct tr_conn *c, Migrd__Session__BodyCase want, unsigned timeout_ms,
    Migrd__Session **out, struct err *e)
{
    return expect_or_report(c, want, timeout_ms, out, NULL, e);
}

/* A host that wants TLS can't tell one who speaks plain TCP what is wrong: it closes. */
int expect_accept(
    struct tr_conn *c, bool tls, Migrd__Session **out, Migrd__CheckReport **report, struct err *e)
{
    *report = NULL;
    if (expect_or_report(c, MIGRD__SESSION__BODY_ACCEPT, ACCEPT_MS, out, report, e) == 0) {
        take_report(&(*out)->accept->report, report);
        return 0;
    }
    if (e->code == ERR_PEER && !tls)
        return err_prefix(e,
            "no answer to an offer in plain TCP: the target wants TLS (--tls yes), or its migrd "
            "ended");
    return -1;
}

int send_refuse(struct tr_conn *c, const struct err *why, const Migrd__CheckReport *report)
{
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__Refuse r = MIGRD__REFUSE__INIT;

    r.code = (char *)err_code_name(why->code);
    r.text = (char *)why->text;
    r.report = (Migrd__CheckReport *)(uintptr_t)report;
    m.body_case = MIGRD__SESSION__BODY_REFUSE;
    m.refuse = &r;
    return tr_send(c, &m, NULL);
}

/* --- offers --- */

void offer_set_regions(Migrd__Offer *o, struct offer_regions *store, const struct hv_layout *layout)
{
    for (unsigned i = 0; i < layout->n; i++) {
        migrd__region__init(&store->region[i]);
        store->region[i].gfn = layout->region[i].gfn;
        store->region[i].pages = layout->region[i].pages;
        store->ptr[i] = &store->region[i];
    }
    o->n_regions = layout->n;
    o->regions = store->ptr;
}

void offer_cpu(Migrd__CpuReport *cpu, struct hv_caps *caps)
{
    migrd__cpu_report__init(cpu);
    cpu->vendor = caps->cpu_vendor;
    cpu->model = caps->cpu_model;
    cpu->n_features = HV_FEATURE_WORDS;
    cpu->features = caps->features;
    cpu->xsave_size = caps->xsave_size;
    cpu->xcr0 = caps->xcr0;
    cpu->tsc_khz = caps->tsc_khz;
}

void offer_set_host(Migrd__Offer *o, struct offer_host *store, const struct attach *at)
{
    struct hv_caps *caps = &store->caps;
    Migrd__CpuReport *cpu = &store->cpu;
    struct err e = { 0 };

    memset(caps, 0, sizeof *caps);
    if (at->ops->capabilities(at->hv, caps, &e) < 0)
        log_warn("precopy", "capabilities of this host: %s", e.text);
    offer_cpu(cpu, caps);
    o->cpu = cpu;
    o->hypervisor_release = caps->release;
}

static int check_regions(const Migrd__Offer *o, struct err *e)
{
    uint64_t next = 0;

    if (o->n_regions == 0 || o->n_regions > HV_MAX_REGIONS)
        return err_set(e, ERR_PROTOCOL, "the offer has %zu memory regions, 1 to %d are allowed",
            o->n_regions, HV_MAX_REGIONS);
    for (size_t i = 0; i < o->n_regions; i++) {
        const Migrd__Region *r = o->regions[i];

        if (r->pages == 0 || r->gfn < next || r->pages > UINT64_C(1) << 36 ||
            r->gfn > UINT64_C(1) << 40)
            return err_set(e, ERR_PROTOCOL, "memory region %zu of the offer makes no sense", i);
        next = r->gfn + r->pages;
    }
    return 0;
}

int offer_check(const Migrd__Offer *o, bool needs_migration, struct err *e)
{
    if (o->protocol != PROTOCOL)
        return err_set(e, ERR_UNSUPPORTED,
            "the offer is of protocol %u, this host speaks %d; update the older host", o->protocol,
            PROTOCOL);
    if (needs_migration && (o->migration[0] == '\0' || strlen(o->migration) >= HV_UUID_LEN))
        return err_set(e, ERR_PROTOCOL, "the offer has no proper migration uuid");
    if (o->domain == NULL || strlen(o->domain->uuid) != HV_UUID_LEN - 1 ||
        o->domain->name[0] == '\0' || strlen(o->domain->name) >= HV_NAME_LEN)
        return err_set(e, ERR_PROTOCOL, "the offer has no proper domain");
    if (o->channels == 0)
        return err_set(e, ERR_PROTOCOL, "the offer wants no data channel");
    return check_regions(o, e);
}

int offer_layout(const Migrd__Offer *o, const struct hv_layout *mine, struct err *e)
{
    bool same = o->n_regions == mine->n;

    for (unsigned i = 0; same && i < mine->n; i++)
        same = o->regions[i]->gfn == mine->region[i].gfn &&
               o->regions[i]->pages == mine->region[i].pages;
    if (same)
        return 0;
    return err_set(e, ERR_INVALID,
        "the memory map of the domain differs between the hosts (%zu regions there, %u here): "
        "their "
        "hypervisor releases do not fit",
        o->n_regions, mine->n);
}

/* --- migrd --- */

int send_offer_seen(
    struct ctl *ctl, const Migrd__Offer *o, const char *cert, bool dry_run, struct err *e)
{
    Migrd__FromWorker m = MIGRD__FROM_WORKER__INIT;
    Migrd__OfferSeen seen = MIGRD__OFFER_SEEN__INIT;
    size_t len = migrd__offer__get_packed_size(o);
    uint8_t *packed = malloc(len);
    int r;

    if (packed == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for the offer");
    migrd__offer__pack(o, packed);
    seen.migration = o->migration;
    seen.source_host = o->source_host;
    seen.domain = o->domain;
    seen.epoch = o->epoch;
    seen.offer.data = packed;
    seen.offer.len = len;
    seen.peer_cert = (char *)cert;
    seen.dry_run = dry_run;
    m.body_case = MIGRD__FROM_WORKER__BODY_OFFER;
    m.offer = &seen;
    r = ctl_send(ctl, &m, e);
    free(packed);
    return r;
}

int migrd_said(const char *code, const char *text, struct err *e)
{
    return err_set(e, code_of(code), "%.400s", text);
}

/* The peer must not take us for dead while migrd writes its journal. */
static int wait_and_ping(struct ctl *ctl, struct tr_conn *peer, Migrd__ToWorker **m, struct err *e)
{
    uint64_t deadline = clock_ns() + MIGRD_ANSWER_MS * NS_PER_MS;

    for (;;) {
        uint64_t now = clock_ns(), next = now + NS_PER_S < deadline ? now + NS_PER_S : deadline;
        struct err w = { 0 };

        if (ctl_wait(ctl, MIGRD__TO_WORKER__BODY_STEP, next, m, NULL, &w) == 0)
            return 0;
        if (w.code != ERR_TIMEOUT || clock_ns() >= deadline)
            return err_set(e, w.code, "%s", w.text);
        if (peer != NULL)
            tr_ping(peer, NULL); /* a dead one shows at the next real message */
    }
}

int await_step(struct ctl *ctl, struct tr_conn *peer, struct step_answer *a, struct err *e)
{
    Migrd__ToWorker *m;
    int r = 0;

    *a = (struct step_answer){ .came = false };
    if (wait_and_ping(ctl, peer, &m, e) < 0)
        return -1;
    a->came = true;
    a->journal_us = m->step->journal_us;
    a->resume_us = m->step->resume_us;
    if (!m->step->ok)
        r = migrd_said(m->step->code, m->step->text, e);
    migrd__to_worker__free_unpacked(m, NULL);
    return r;
}

int ask_migrd(struct ctl *ctl, struct tr_conn *peer, const Migrd__FromWorker *m,
    struct step_answer *a, struct err *e)
{
    return ctl_send(ctl, m, e) < 0 ? -1 : await_step(ctl, peer, a, e);
}

void send_finished(struct ctl *ctl, Migrd__Finished *f, const struct err *e)
{
    Migrd__FromWorker m = MIGRD__FROM_WORKER__INIT;

    f->ok = e == NULL;
    f->cpu_us = clock_cpu_ns() / NS_PER_US;
    if (e != NULL) {
        f->code = (char *)err_code_name(e->code);
        f->text = (char *)e->text;
    }
    m.body_case = MIGRD__FROM_WORKER__BODY_FINISHED;
    m.finished = f;
    if (ctl_send(ctl, &m, NULL) < 0)
        log_warn("worker", "nobody is there to hear: %s", e != NULL ? e->text : "finished well");
}

int enter_sandbox(const struct worker_options *opt, struct err *e)
{
    struct err why = { 0 };

    if (!opt->sandbox || sandbox_enter(&why) == 0)
        return 0;
    log_warn("worker", "running without a sandbox: %s", why.text);
    if (!opt->strict)
        return 0;
    if (e != NULL)
        *e = why;
    return -1;
}
