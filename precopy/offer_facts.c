/* SPDX-License-Identifier: ISC */
/*
 * What an offer says of its source beside the domain: facts of the host (migrd gathered them),
 * the CPU that the guest was booted with, identities of the disks. A source that cannot tell one
 * of them leaves it out, and the target compares less.
 */
#include <ctype.h>
#include <string.h>

#include "base/checks.h"
#include "base/fault.h"
#include "base/log.h"
#include "precopy/worker_internal.h"
#include "storage-check/ask_disks.h"
#include "storage-check/identity.h"

/* Of Offer.cpu: the release before takes a word that it does not know for missing features. */
#define OFFER_CPU_WORDS 18

/* --- disks --- */

static Migrd__StorageRequest request(
    const Migrd__SourceStart *start, Migrd__StorageRequest__What what)
{
    Migrd__StorageRequest rq = *start->storage;

    rq.what = what;
    rq.disks = start->domain->disks;
    rq.n_disks = start->domain->n_disks;
    return rq;
}

int offer_identify(struct offer_facts *f, const Migrd__SourceStart *start, struct err *e)
{
    Migrd__StorageRequest rq;

    if (start->storage == NULL || start->domain->n_disks == 0)
        return 0;
    rq = request(start, MIGRD__STORAGE_REQUEST__WHAT__IDENTIFY);
    rq.challenge = true;
    f->disks = storage_ask_disks(&rq, 0);
    if (f->disks == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for the identities of disks");
    if (FAULT("source-identified"))
        return err_set(e, ERR_INTERNAL, "fault point source-identified");
    return 0;
}

static bool has_challenge(const struct offer_facts *f)
{
    for (size_t i = 0; f->disks != NULL && i < f->disks->n_disks; i++)
        if (f->disks->disks[i]->challenge != NULL)
            return true;
    return false;
}

void offer_forget(struct offer_facts *f, const Migrd__SourceStart *start)
{
    Migrd__StorageReply *r = NULL;
    Migrd__StorageRequest rq;
    struct err e = { 0 };

    if (has_challenge(f)) {
        rq = request(start, MIGRD__STORAGE_REQUEST__WHAT__CLEAN);
        rq.theirs = f->disks->disks;
        rq.n_theirs = f->disks->n_disks;
        if (storage_ask(&rq, 0, &r, &e) < 0)
            log_warn(
                "precopy", "%s: challenges stay beside its disks: %s", start->domain->name, e.text);
    }
    if (r != NULL)
        migrd__storage_reply__free_unpacked(r, NULL);
    if (f->disks != NULL)
        migrd__storage_reply__free_unpacked(f->disks, NULL);
    f->disks = NULL;
}

/* --- the offer --- */

static void set_guest_cpu(
    Migrd__Offer *o, struct offer_facts *f, const char *uuid, const struct attach *at)
{
    Migrd__CpuReport *cpu = &f->guest_cpu;
    struct err e = { 0 };

    if (at->ops->guest_cpu == NULL)
        return;
    if (at->ops->guest_cpu(at->hv, uuid, &f->guest, &e) < 0) {
        log_warn("precopy", "the CPU that the guest was booted with: %s", e.text);
        return;
    }
    offer_cpu(cpu, &f->guest);
    o->guest_cpu = cpu;
}

void offer_set_facts(Migrd__Offer *o, struct offer_facts *f, const Migrd__SourceStart *start,
    const struct attach *at)
{
    if (start->facts != NULL && start->facts->cpu != NULL) {
        f->host.cpu = *start->facts->cpu;
        o->cpu = &f->host.cpu;
        o->hypervisor_release = start->facts->hypervisor_release;
    } else {
        offer_set_host(o, &f->host, at);
    }
    if (o->cpu->n_features > OFFER_CPU_WORDS)
        o->cpu->n_features = OFFER_CPU_WORDS;
    o->source = start->facts;
    set_guest_cpu(o, f, start->domain->uuid, at);
    o->identified = f->disks != NULL || (start->storage != NULL && start->domain->n_disks == 0);
    if (f->disks != NULL) {
        o->disks = f->disks->disks;
        o->n_disks = f->disks->n_disks;
    }
}

/* --- what comes back --- */

static void limit_text(char *s, size_t room)
{
    size_t n = strlen(s);

    if (n >= room)
        s[room - 1] = '\0';
    for (; *s != '\0'; s++)
        if (iscntrl((unsigned char)*s))
            *s = '?';
}

void report_limit(Migrd__CheckReport *r)
{
    static const struct check room;

    while (r->n_checks > CHECKS_MAX)
        migrd__check__free_unpacked(r->checks[--r->n_checks], NULL);
    for (size_t i = 0; i < r->n_checks; i++) {
        Migrd__Check *k = r->checks[i];

        limit_text(k->result, sizeof room.area);
        limit_text(k->area, sizeof room.area);
        limit_text(k->object, sizeof room.object);
        limit_text(k->source, sizeof room.source);
        limit_text(k->target, sizeof room.target);
        limit_text(k->text, sizeof room.text);
        limit_text(k->remedy, sizeof room.remedy);
    }
}
