/* SPDX-License-Identifier: ISC */
/*
 * `virsh save`, `restore` and `dump`: a guest to a file and back. They become jobs like those of
 * xm and are answered when they have ended; virsh polls GET_JOB_INFO meanwhile. The file is
 * opened by a worker of this host: its path is absolute, and only who may change a domain names
 * one. A client that goes away stops nothing.
 *
 * --reset of a dump is a restart: the guest is ended once its core is written, and booted anew.
 */
#include <stdlib.h>
#include <string.h>

#include "migrd/libvirt/internal.h"
#include "migrd/migration.h"

#define SAVE_BYPASS_CACHE 1u
#define SAVE_RUNNING 2u
#define SAVE_PAUSED 4u
#define DUMP_CRASH 1u
#define DUMP_LIVE 2u
#define DUMP_BYPASS_CACHE 4u
#define DUMP_RESET 8u
#define DUMP_MEMORY_ONLY 16u /* that is what a core has */
#define FORMAT_RAW 0u        /* virsh's "elf" */

/* --- following a job --- */

static void followed(void *call, struct migration *g, bool last)
{
    struct err e = { 0 };

    if (!last)
        return;
    if (migration_outcome(g, &e) == 0)
        err_clear(&e);
    lv_call_end(call, "", &e);
}

int lv_follow(struct lv_call *k, struct migration *g, struct err *e)
{
    if (migration_watch(g, followed, k) == 0)
        return LV_LATER;
    return lv_fail(k, e, LV_E_BUSY, "too many clients watch this job; it goes on");
}

/* --- save and restore --- */

static int check_file(
    struct lv_call *k, const lv_text *xml, unsigned flags, struct migration_file *f, struct err *e)
{
    if (xml != NULL && *xml != NULL)
        return lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED,
            "--xml is not supported: a saved guest goes on with the devices that it was saved "
            "with");
    if (lv_check_flags(k, flags, SAVE_BYPASS_CACHE | SAVE_RUNNING | SAVE_PAUSED, e) < 0)
        return -1;
    f->running = (flags & SAVE_RUNNING) != 0;
    f->paused = (flags & SAVE_PAUSED) != 0;
    f->drop_cache = (flags & SAVE_BYPASS_CACHE) != 0;
    if (f->running && f->paused)
        return lv_fail(k, e, LV_E_INVALID_ARG, "--running and --paused exclude each other");
    return 0;
}

static int save(struct lv_call *k, const lv_dom *dom, const struct migration_file *f, struct err *e)
{
    struct domain *d = lv_domain(k, dom, e);
    struct migration *g;

    if (d == NULL)
        return -1;
    if (!d->live)
        return lv_fail(k, e, LV_E_INVALID, "domain is not running");
    lv_audit(k, "save", d->name);
    return migration_save(k->m, d, f, &g, e) < 0 ? -1 : lv_follow(k, g, e);
}

int lv_save(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_path *a = args;
    const struct migration_file f = { .path = a->path };

    (void)ret;
    return save(k, &a->dom, &f, e);
}

int lv_save_flags(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_save_args *a = args;
    struct migration_file f = { .path = a->path };

    (void)ret;
    return check_file(k, a->xml, a->flags, &f, e) < 0 ? -1 : save(k, &a->dom, &f, e);
}

static int restore(struct lv_call *k, const struct migration_file *f, struct err *e)
{
    struct migration *g;

    lv_audit(k, "restore", f->path);
    return migration_restore(k->m, f, &g, e) < 0 ? -1 : lv_follow(k, g, e);
}

int lv_restore(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const struct migration_file f = { .path = ((const lv_word *)args)->value };

    (void)ret;
    return restore(k, &f, e);
}

int lv_restore_flags(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_restore_args *a = args;
    struct migration_file f = { .path = a->path };

    (void)ret;
    return check_file(k, a->xml, a->flags, &f, e) < 0 ? -1 : restore(k, &f, e);
}

/* --- dump --- */

/* Its core is written: boots anew. */
static void dumped(void *call, struct migration *g, bool last)
{
    struct lv_call *k = call;
    struct domain *d;
    struct err e = { 0 };

    if (!last)
        return;
    d = lv_domain(k, k->args, &e); /* the first member of either procedure's arguments */
    if (d == NULL || migration_outcome(g, &e) < 0 ||
        registry_act(k->m, d, REG_RESTART, NULL, lv_call_end, k, &e) < 0)
        lv_call_end(k, "", &e);
}

static int dump(struct lv_call *k, const lv_dump_args *a, struct err *e)
{
    const unsigned known =
        DUMP_CRASH | DUMP_LIVE | DUMP_BYPASS_CACHE | DUMP_RESET | DUMP_MEMORY_ONLY;
    const unsigned ends = a->flags & (DUMP_CRASH | DUMP_LIVE | DUMP_RESET);
    const struct migration_file f = { .path = a->path,
        .live = (a->flags & DUMP_LIVE) != 0,
        .crash = (a->flags & DUMP_CRASH) != 0,
        .drop_cache = (a->flags & DUMP_BYPASS_CACHE) != 0 };
    struct domain *d = lv_domain(k, &a->dom, e);
    struct migration *g;

    if (d == NULL || lv_check_flags(k, a->flags, known, e) < 0)
        return -1;
    if ((ends & (ends - 1)) != 0)
        return lv_fail(k, e, LV_E_INVALID_ARG, "--crash, --live and --reset exclude each other");
    if (!d->live)
        return lv_fail(k, e, LV_E_INVALID, "domain is not running");
    lv_audit(k, "dump", d->name);
    if (migration_dump(k->m, d, &f, &g, e) < 0)
        return -1;
    if ((a->flags & DUMP_RESET) == 0)
        return lv_follow(k, g, e);
    if (migration_watch(g, dumped, k) == 0)
        return LV_LATER;
    return lv_fail(k, e, LV_E_BUSY, "too many clients watch this job; it goes on");
}

int lv_core_dump(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)ret;
    return dump(k, args, e);
}

int lv_core_dump_format(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dump_format_args *a = args;
    const lv_dump_args dump_it = { .dom = a->dom, .path = a->path, .flags = a->flags };

    (void)ret;
    if (a->format != FORMAT_RAW)
        return lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED,
            "cores are written as ELF; the other formats are not supported (--format elf)");
    return dump(k, &dump_it, e);
}
