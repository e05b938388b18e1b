/* SPDX-License-Identifier: ISC */
/*
 * Devices that come, go or change: in the definition, for the next boot. A guest sees its disks
 * and interfaces on a bus without hotplug, so one that runs keeps what it booted with, and
 * `--live` is refused.
 */
#include <string.h>

#include "migrd/define/define.h"
#include "migrd/libvirt/internal.h"

#define AFFECT_LIVE 1u
#define AFFECT_CONFIG 2u
#define UPDATE_FORCE 4u /* of a drive that is locked; there are none */

static int change(struct lv_call *k, const lv_dom *dom, const char *xml, unsigned flags,
    enum define_change how, struct err *e)
{
    static const char *const words[] = { "attach a device to", "detach a device of",
        "change a device of" };
    struct domain *d = lv_domain(k, dom, e);
    Migrd__Domain *def;

    if (d == NULL || lv_check_flags(k, flags,
                         AFFECT_LIVE | AFFECT_CONFIG | (how == DEFINE_UPDATE ? UPDATE_FORCE : 0),
                         e) < 0)
        return -1;
    if ((flags & AFFECT_LIVE) != 0 && !d->live)
        return lv_fail(k, e, LV_E_INVALID, "domain is not running");
    if (d->live && ((flags & AFFECT_LIVE) != 0 || (flags & AFFECT_CONFIG) == 0))
        return lv_fail(k, e, LV_E_UNSUPPORTED,
            "domain %s runs, and devices cannot come, go or change while it does; change its "
            "definition with --config, then shut it down and start it, or reboot it",
            d->name);
    if (d->def == NULL)
        return lv_fail(
            k, e, LV_E_INVALID, "domain %s is transient: it has no definition to change", d->name);
    def = define_change_device(d->def, xml, strlen(xml), how, e);
    if (def == NULL) {
        k->code = lv_define_code(e);
        return -1;
    }
    lv_audit(k, words[how], d->name);
    if (registry_define(k->m, &def, lv_call_end, k, e) == 0)
        return LV_LATER;
    migrd__domain__free_unpacked(def, NULL);
    return -1;
}

int lv_attach(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_xml *a = args;

    (void)ret;
    return change(k, &a->dom, a->xml, 0, DEFINE_ATTACH, e);
}

int lv_attach_flags(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_xml_flags *a = args;

    (void)ret;
    return change(k, &a->dom, a->xml, a->flags, DEFINE_ATTACH, e);
}

int lv_detach(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_xml *a = args;

    (void)ret;
    return change(k, &a->dom, a->xml, 0, DEFINE_DETACH, e);
}

int lv_detach_flags(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_xml_flags *a = args;

    (void)ret;
    return change(k, &a->dom, a->xml, a->flags, DEFINE_DETACH, e);
}

int lv_update_device(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_xml_flags *a = args;

    (void)ret;
    return change(k, &a->dom, a->xml, a->flags, DEFINE_UPDATE, e);
}
