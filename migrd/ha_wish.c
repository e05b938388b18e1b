/* SPDX-License-Identifier: ISC */
/*
 * What operators want of protected domains. xm, migctl and virsh ask this host; the log decides:
 *
 *   start      want_run = true; answered when it runs, on whichever host the log has chosen
 *   shutdown   want_run = false; the log's STOP asks the guest
 *   destroy    want_run = false, so that nobody starts it again; then its copy here is destroyed
 *   define     the log's definition, memory and vCPUs are replaced; then the caller keeps its own
 *   reset      here, under the same epoch
 *   unpause    of one that the log has no more, and that its fuse has stopped: its fuse is lit
 *   pause, unpause, reboot, memory, CPUs: here, as of any domain
 *
 * Where nothing can be decided (no majority) these are refused, with the reason of the log.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/pbjson.h"
#include "migrd/ha_internal.h"
#include "migrd/ha_overview.h"

#define PLACE_MS 3000 /* the log finds a place at once, or says why not */

enum wish_kind { WISH_START, WISH_SHUTDOWN, WISH_DESTROY, WISH_DEFINE };

struct ha_wish {
    struct ha_wish *next;
    struct ha *h;
    enum wish_kind kind;
    char uuid[HV_UUID_LEN], name[HV_NAME_LEN];
    registry_done *done;
    void *arg;
    bool asking; /* the log has not answered yet */
    bool news;   /* it has, and that has not been looked at: not in the call that asked */
    bool ok, over;
    char text[300];        /* why not */
    uint64_t since, until; /* START: of the answer on, clock_boot_ms() */
};

static const char *state_text(int state, char text[32])
{
    pbjson_enum(&migrd__ha_domain_state__descriptor, state, text, 32);
    return text;
}

/* --- their ends --- */

void ha_wish_end(struct ha_wish *w, const struct err *e)
{
    if (w->over)
        return;
    w->over = true;
    if (w->done != NULL)
        w->done(w->arg, w->uuid, e);
    w->done = NULL;
    if (!w->h->stopping)
        ha_soon(w->h);
}

static void well(struct ha_wish *w)
{
    const struct err none = { 0 };

    ha_wish_end(w, &none);
}

static void unwell(struct ha_wish *w, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void unwell(struct ha_wish *w, enum err_code code, const char *fmt, ...)
{
    struct err e;
    va_list ap;

    va_start(ap, fmt);
    err_setv(&e, code, fmt, ap);
    va_end(ap);
    ha_wish_end(w, &e);
}

/* --- a start --- */

static bool disarmed(struct ha *h)
{
    const Migrd__HaState *s = cluster_state(h->cluster);

    return s != NULL && s->armed == MIGRD__HA_ARMED__DISARMED;
}

static void look_at_start(struct ha_wish *w)
{
    const Migrd__HaDomain *d = cluster_find(w->h->cluster, w->uuid);
    uint64_t now = clock_boot_ms();

    if (d == NULL) {
        unwell(w, ERR_STATE, "domain %s is not protected any more; start it again", w->name);
    } else if (d->state == MIGRD__HA_DOMAIN_STATE__DOMAIN_RUNNING) {
        log_info("ha", "%s: started on host %s", w->name, ha_node_text(w->h, d->owner));
        well(w);
    } else if (disarmed(w->h) && now >= w->since + PLACE_MS) {
        unwell(w, ERR_STATE,
            "domain %s is to run, but high availability is disarmed: nothing is started until "
            "migctl ha arm",
            w->name);
    } else if (d->state == MIGRD__HA_DOMAIN_STATE__DOMAIN_WAITING &&
               (d->failures > 0 || now >= w->since + PLACE_MS)) {
        unwell(w, ERR_STATE, "domain %s is to run, but waits: %s (migctl ha explain %s)", w->name,
            d->why, w->name);
    } else if (now >= w->until) {
        unwell(w, ERR_TIMEOUT, "domain %s is being started on host %s; migctl ha status shows it",
            w->name, ha_node_text(w->h, d->owner));
    }
}

/* --- asking the log --- */

static void shut_down_here(struct ha_wish *w)
{
    struct domain *d = registry_by_uuid(w->h->m->registry, w->uuid);
    const struct registry_args args = { .decided = true };
    struct err e;

    if (d == NULL || !d->live)
        well(w);
    else if (registry_act(w->h->m, d, REG_SHUTDOWN, &args, NULL, NULL, &e) < 0)
        ha_wish_end(w, &e);
    else
        well(w);
}

static void decided(struct ha_wish *w)
{
    struct domain *d = registry_by_uuid(w->h->m->registry, w->uuid);

    switch (w->kind) {
    case WISH_START:
        w->since = clock_boot_ms();
        w->until = w->since + HA_START_MS;
        look_at_start(w);
        break;
    case WISH_SHUTDOWN:
        if (disarmed(w->h)) /* the log does not act: this host does */
            shut_down_here(w);
        else
            well(w);
        break;
    case WISH_DESTROY:
        if (d != NULL && d->live)
            ha_do_destroy_for(w->h, d, w);
        else
            well(w);
        break;
    case WISH_DEFINE:
        well(w);
        break;
    }
}

static void answered(void *arg, const Migrd__HaAnswer *a)
{
    struct ha_wish *w = arg;

    w->asking = false;
    w->news = true;
    w->ok = a != NULL && a->ok;
    snprintf(w->text, sizeof w->text, "%s", a != NULL ? a->text : "migrd is being stopped");
    ha_soon(w->h);
}

static void take_answer(struct ha_wish *w)
{
    char why[700];

    w->news = false;
    if (w->ok)
        decided(w);
    else if (ha_undecided(w->h->m, why, sizeof why))
        unwell(w, ERR_STATE, "domain %s is protected by the cluster: %s", w->name, why);
    else
        unwell(w, ERR_STATE, "domain %s is protected by the cluster, which refuses: %s", w->name,
            w->text);
}

struct set {
    Migrd__HaCommand c;
    Migrd__HaDomain d;
    char *field[4], who[300];
};

static void set_init(struct set *s, const struct ha *h, const char *uuid)
{
    migrd__ha_command__init(&s->c);
    migrd__ha_domain__init(&s->d);
    snprintf(s->who, sizeof s->who, "asked on %s", h->m->host_name);
    s->c.kind = MIGRD__HA_COMMAND_KIND__HA_SET;
    s->c.uuid = s->d.uuid = (char *)(uintptr_t)uuid;
    s->c.domain = &s->d;
    s->c.set = s->field;
    s->c.who = s->who;
}

static void set_field(struct set *s, const char *field)
{
    s->field[s->c.n_set++] = (char *)(uintptr_t)field;
}

static int ask(struct ha *h, enum wish_kind kind, const char *name, struct set *s,
    registry_done *done, void *arg, struct err *e)
{
    struct ha_wish *w = calloc(1, sizeof *w);

    if (w == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", name);
    *w = (struct ha_wish){ .h = h, .kind = kind, .done = done, .arg = arg };
    snprintf(w->uuid, sizeof w->uuid, "%s", s->c.uuid);
    snprintf(w->name, sizeof w->name, "%s", name);
    w->asking = true;
    if (cluster_ask(h->cluster, &s->c, HA_ASK_MS, answered, w, e) < 0) {
        free(w);
        return -1;
    }
    w->next = h->wishes;
    h->wishes = w;
    return 1;
}

static int want_run(struct ha *h, const struct domain *d, enum wish_kind kind, registry_done *done,
    void *arg, struct err *e)
{
    struct set s;

    set_init(&s, h, d->uuid);
    s.d.want_run = kind == WISH_START;
    set_field(&s, "want_run");
    return ask(h, kind, d->name, &s, done, arg, e);
}

/* --- what is asked for --- */

static int start(struct ha *h, const struct domain *d, const Migrd__HaDomain *rec,
    registry_done *done, void *arg, struct err *e)
{
    char text[32];

    if (rec->state != MIGRD__HA_DOMAIN_STATE__DOMAIN_STOPPED &&
        rec->state != MIGRD__HA_DOMAIN_STATE__DOMAIN_WAITING)
        return err_set(e, ERR_STATE, "domain %s is %s on host %s already", d->name,
            state_text((int)rec->state, text), ha_node_text(h, rec->owner));
    return want_run(h, d, WISH_START, done, arg, e);
}

static int end(struct ha *h, const struct domain *d, const Migrd__HaDomain *rec,
    enum wish_kind kind, registry_done *done, void *arg, struct err *e)
{
    char text[32];

    if (d->live && d->info.state == HV_INCOMING)
        return 0; /* of a hand-over: not the domain yet */
    if (d->live)
        return want_run(h, d, kind, done, arg, e);
    if (rec->want_run && rec->state == MIGRD__HA_DOMAIN_STATE__DOMAIN_WAITING)
        return want_run(h, d, kind, done, arg, e);
    if (rec->owner == 0 || rec->state == MIGRD__HA_DOMAIN_STATE__DOMAIN_STOPPED)
        return 0; /* the registry says that it does not run */
    return err_set(e, ERR_STATE, "domain %s does not run here: it is %s on host %s; do it there",
        d->name, state_text((int)rec->state, text), ha_node_text(h, rec->owner));
}

static int unknown(struct ha *h, const char *name, struct err *e)
{
    char why[700];

    if (!ha_undecided(h->m, why, sizeof why))
        snprintf(why, sizeof why, "this host is joining");
    return err_set(e, ERR_STATE,
        "domain %s: whether the cluster protects it is not known here yet: %s", name, why);
}

/* Its fuse had burnt when it was removed from the log, which lights it no more: an operator does. */
static int light(struct ha *h, const struct domain *d, struct err *e)
{
    bool final = false;

    cluster_is_protected(h->cluster, d->uuid, &final);
    if (!final)
        return unknown(h, d->name, e);
    log_warn("ha", "%s: an operator lets it go on; the cluster does not protect it", d->name);
    ha_do_fuse(h, d->uuid, d->info.epoch, UINT64_MAX);
    return 0;
}

int ha_operator(struct migrd *m, const struct domain *d, enum registry_op op,
    const struct registry_args *args, registry_done *done, void *arg, struct err *e)
{
    const Migrd__HaDomain *rec;
    bool unsure;

    if (m->ha == NULL || d->mig != NULL || d->busy != NULL)
        return 0; /* who holds it goes first */
    if (!ha_protected(m, d->uuid, &unsure) && op == REG_UNPAUSE && d->live && d->info.blown)
        return light(m->ha, d, e);
    if (!ha_protected(m, d->uuid, &unsure))
        return unsure && op == REG_START && !d->live ? unknown(m->ha, d->name, e) : 0;
    rec = cluster_find(m->ha->cluster, d->uuid);
    if (rec == NULL)
        return unknown(m->ha, d->name, e);
    switch (op) {
    case REG_START:
        if (args != NULL && args->paused && !d->live)
            return err_set(e, ERR_UNSUPPORTED,
                "domain %s is protected by the cluster, which starts no paused guests; start it, "
                "then pause it",
                d->name);
        return d->live ? 0 : start(m->ha, d, rec, done, arg, e);
    case REG_SHUTDOWN:
        return end(m->ha, d, rec, WISH_SHUTDOWN, done, arg, e);
    case REG_DESTROY:
        return end(m->ha, d, rec, WISH_DESTROY, done, arg, e);
    default:
        return 0;
    }
}

/* A domain of that name that the log knows under another uuid would be a second one. */
static int check_name(struct ha *h, const Migrd__Domain *def, struct err *e)
{
    const Migrd__HaState *s = cluster_state(h->cluster);

    for (size_t i = 0; s != NULL && i < s->n_domain; i++)
        if (strcmp(s->domain[i]->name, def->name) == 0 &&
            strcmp(s->domain[i]->uuid, def->uuid) != 0)
            return err_set(e, ERR_EXISTS,
                "domain %s is protected by the cluster under uuid %s; choose another name, or give "
                "that uuid",
                def->name, s->domain[i]->uuid);
    return 0;
}

int ha_define(struct migrd *m, const Migrd__Domain *def, bool run, registry_done *done, void *arg,
    struct err *e)
{
    struct ha *h = m->ha;
    const Migrd__HaDomain *rec;
    char text[32];
    struct set s;
    uint8_t *bytes;
    size_t len;
    bool unsure;
    int r;

    if (h == NULL)
        return 0;
    if (!ha_protected(m, def->uuid, &unsure))
        return unsure && run ? unknown(h, def->name, e) : check_name(h, def, e);
    rec = cluster_find(h->cluster, def->uuid);
    if (rec == NULL)
        return unknown(h, def->name, e);
    if (strcmp(rec->name, def->name) != 0)
        return err_set(
            e, ERR_EXISTS, "uuid %s is that of protected domain %s", def->uuid, rec->name);
    if (run && rec->state != MIGRD__HA_DOMAIN_STATE__DOMAIN_STOPPED &&
        rec->state != MIGRD__HA_DOMAIN_STATE__DOMAIN_WAITING)
        return err_set(e, ERR_EXISTS, "domain %s is %s on host %s already", def->name,
            state_text((int)rec->state, text), ha_node_text(h, rec->owner));
    len = migrd__domain__get_packed_size(def);
    bytes = malloc(len);
    if (bytes == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", def->name);
    migrd__domain__pack(def, bytes);
    set_init(&s, h, def->uuid);
    s.d.definition = (ProtobufCBinaryData){ len, bytes };
    s.d.memory_kib = def->max_memory_kib > def->memory_kib ? def->max_memory_kib : def->memory_kib;
    s.d.vcpus = def->vcpus;
    s.d.want_run = run;
    set_field(&s, "definition");
    set_field(&s, "memory_kib");
    set_field(&s, "vcpus");
    if (run)
        set_field(&s, "want_run");
    r = ask(h, run ? WISH_START : WISH_DEFINE, def->name, &s, done, arg, e);
    free(bytes);
    return r;
}

/* --- all of them --- */

bool ha_wishes_more(struct ha *h)
{
    bool waits = false;

    for (struct ha_wish *w = h->wishes; w != NULL; w = w->next) {
        if (!w->over && w->news)
            take_answer(w);
        else if (!w->over && !w->asking && w->kind == WISH_START)
            look_at_start(w);
    }
    for (struct ha_wish **p = &h->wishes; *p != NULL;) {
        struct ha_wish *w = *p;

        if (!w->over || w->asking) {
            waits |= w->kind == WISH_START && !w->asking;
            p = &w->next;
            continue;
        }
        *p = w->next;
        free(w);
    }
    return waits;
}

void ha_wishes_stop(struct ha *h)
{
    for (struct ha_wish *w = h->wishes; w != NULL; w = w->next)
        unwell(w, ERR_STATE, "domain %s: migrd is being stopped", w->name);
}

void ha_wishes_free(struct ha *h)
{
    while (h->wishes != NULL) {
        struct ha_wish *w = h->wishes;

        h->wishes = w->next;
        free(w);
    }
}
