/* SPDX-License-Identifier: ISC */
/*
 * Procedures that change something. They check and start an operation of the registry,
 * which ends the call (lv_call_end); none of them blocks.
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "migrd/define/define.h"
#include "migrd/ha.h"
#include "migrd/libvirt/internal.h"
#include "migrd/migration.h"

#define START_PAUSED 1
#define START_FORCE_BOOT 8 /* there is no saved state to drop */
#define XML_PAUSED 1
#define DESTROY_GRACEFUL 1 /* a domain always gives back its disks in order */
#define SHUTDOWN_ACPI 1
#define UNDEFINE_NOTHING_TO_DROP 0x1b /* managed save, snapshots, kept NVRAM, checkpoints */

/* --- actions on a domain --- */

static int act(struct lv_call *k, const lv_dom *dom, enum registry_op op,
    const struct registry_args *args, registry_done *done, struct err *e)
{
    struct domain *d = lv_domain(k, dom, e);

    if (d == NULL)
        return -1;
    lv_audit(k, registry_op_name(op), d->name);
    return registry_act(k->m, d, op, args, done, k, e) < 0 ? -1 : LV_LATER;
}

static int act_flags(
    struct lv_call *k, const lv_dom_flags *a, unsigned known, enum registry_op op, struct err *e)
{
    if (lv_check_flags(k, a->flags, known, e) < 0)
        return -1;
    return act(k, &a->dom, op, NULL, lv_call_end, e);
}

int lv_suspend(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    struct domain *d = lv_domain(k, args, e);

    (void)ret;
    if (d == NULL)
        return -1;
    if (d->mig != NULL && migration_leaves(d->mig))
        return lv_suspend_moving(k, d, e);
    return act(k, args, REG_PAUSE, NULL, lv_call_end, e);
}

int lv_resume(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)ret;
    return act(k, args, REG_UNPAUSE, NULL, lv_call_end, e);
}

int lv_shutdown(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)ret;
    return act(k, args, REG_SHUTDOWN, NULL, lv_call_end, e);
}

int lv_shutdown_flags(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)ret;
    return act_flags(k, args, SHUTDOWN_ACPI, REG_SHUTDOWN, e);
}

int lv_reboot(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)ret;
    return act_flags(k, args, SHUTDOWN_ACPI, REG_REBOOT, e);
}

int lv_destroy(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)ret;
    return act(k, args, REG_DESTROY, NULL, lv_call_end, e);
}

int lv_destroy_flags(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)ret;
    return act_flags(k, args, DESTROY_GRACEFUL, REG_DESTROY, e);
}

int lv_create(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)ret;
    return act(k, args, REG_START, NULL, lv_call_end, e);
}

int lv_create_flags(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_flags *a = args;
    const struct registry_args how = { .paused = (a->flags & START_PAUSED) != 0 };

    (void)ret;
    if (lv_check_flags(k, a->flags, START_PAUSED | START_FORCE_BOOT, e) < 0)
        return -1;
    return act(k, &a->dom, REG_START, &how, lv_call_end, e);
}

/* --- definitions --- */

int lv_define_code(const struct err *e)
{
    switch (e->code) {
    case ERR_UNSUPPORTED:
        return LV_E_CONFIG_UNSUPPORTED;
    case ERR_INVALID:
        return LV_E_XML;
    case ERR_NOT_FOUND:
        return LV_E_NO_DEVICE;
    case ERR_EXISTS:
        return LV_E_INVALID;
    default:
        return 0;
    }
}

static Migrd__Domain *parse(struct lv_call *k, const char *xml, struct err *e)
{
    struct define_notes notes;
    Migrd__Domain *def =
        define_parse_noted(xml, strlen(xml), DEFINE_XML, "definition", NULL, 0, &notes, e);

    for (char *save = NULL, *l = strtok_r(notes.text, "\n", &save); l != NULL;
         l = strtok_r(NULL, "\n", &save))
        log_warn("libvirt", "%s", l);
    if (def == NULL) {
        k->code = lv_define_code(e);
        return NULL;
    }
    if (strcmp(def->hypervisor, k->m->hv_ops->name) == 0)
        return def;
    lv_fail(k, e, LV_E_CONFIG_UNSUPPORTED, "domain %s needs hypervisor %s; this host has %s",
        def->name, def->hypervisor, k->m->hv_ops->name);
    migrd__domain__free_unpacked(def, NULL);
    return NULL;
}

/* Of a definition that was refused. */
static int drop(Migrd__Domain *def)
{
    if (def != NULL)
        migrd__domain__free_unpacked(def, NULL);
    return -1;
}

static int define(struct lv_call *k, const char *xml, struct err *e)
{
    Migrd__Domain *def = parse(k, xml, e);

    if (def == NULL)
        return -1;
    lv_audit(k, "define", def->name);
    return registry_define(k->m, &def, lv_call_end, k, e) < 0 ? drop(def) : LV_LATER;
}

int lv_define(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)ret;
    return define(k, ((const lv_string *)args)->value, e);
}

int lv_define_flags(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_xml_flags *a = args;

    (void)ret;
    /* 1, "validate": what is not known is refused anyway. */
    return lv_check_flags(k, a->flags, 1, e) < 0 ? -1 : define(k, a->xml, e);
}

int lv_create_xml(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_xml_flags *a = args;
    bool paused = (a->flags & XML_PAUSED) != 0;
    Migrd__Domain *def;

    (void)ret;
    if (lv_check_flags(k, a->flags, XML_PAUSED, e) < 0 || (def = parse(k, a->xml, e)) == NULL)
        return -1;
    lv_audit(k, "create", def->name);
    return registry_create(k->m, &def, paused, lv_call_end, k, e) < 0 ? drop(def) : LV_LATER;
}

static int undefine(struct lv_call *k, const lv_dom *dom, struct err *e)
{
    struct domain *d = lv_domain(k, dom, e);

    if (d == NULL)
        return -1;
    if (d->def == NULL)
        return lv_fail(k, e, LV_E_INVALID, "cannot undefine transient domain %s", d->name);
    if (ha_refuses(k->m, d->uuid, d->name, "undefine", e) < 0)
        return -1;
    lv_audit(k, "undefine", d->name);
    return registry_undefine(k->m, d, lv_call_end, k, e) < 0 ? -1 : LV_LATER;
}

int lv_undefine(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)ret;
    return undefine(k, args, e);
}

int lv_undefine_flags(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_flags *a = args;

    (void)ret;
    if (lv_check_flags(k, a->flags, UNDEFINE_NOTHING_TO_DROP, e) < 0)
        return -1;
    return undefine(k, &a->dom, e);
}
