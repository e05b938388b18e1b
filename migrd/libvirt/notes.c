/* SPDX-License-Identifier: ISC */
/*
 * Title, description and other programs' notes (virsh desc, virsh metadata). They are of the
 * definition and not of the guest: --live and --config mean the same, and what is set counts at
 * once, whether the domain runs or not.
 */
#include <stdlib.h>
#include <string.h>

#include "migrd/define/define.h"
#include "migrd/libvirt/internal.h"

enum { NOTE_DESCRIPTION, NOTE_TITLE, NOTE_ELEMENT };

#define AFFECT_LIVE 1u
#define AFFECT_CONFIG 2u

static const Migrd__Domain *definition(const struct domain *d)
{
    return d->def != NULL ? d->def : registry_definition(d);
}

static char *get(const Migrd__Domain *def, int type, const char *uri, struct err *e)
{
    const char *text = type == NOTE_TITLE ? def->title : def->description;

    if (type == NOTE_ELEMENT)
        return define_metadata_get(def, uri, e);
    return text[0] != '\0' ? lv_copy(text) : NULL;
}

int lv_metadata(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_metadata *a = args;
    struct domain *d = lv_domain(k, &a->dom, e);
    const char *uri = a->uri != NULL ? *a->uri : "";

    if (d == NULL || lv_check_flags(k, a->flags, AFFECT_LIVE | AFFECT_CONFIG, e) < 0)
        return -1;
    if (a->type < NOTE_DESCRIPTION || a->type > NOTE_ELEMENT)
        return lv_fail(k, e, LV_E_INVALID_ARG, "metadata of type %d", a->type);
    ((lv_string *)ret)->value = get(definition(d), a->type, uri, e);
    if (((lv_string *)ret)->value != NULL)
        return 0;
    return lv_fail(k, e, LV_E_NO_METADATA, "Requested metadata element is not present");
}

static int put(struct lv_call *k, const lv_set_metadata_args *a, Migrd__Domain *def, struct err *e)
{
    const char *text = a->text != NULL ? *a->text : NULL;
    const char *key = a->key != NULL ? *a->key : "", *uri = a->uri != NULL ? *a->uri : "";

    switch (a->type) {
    case NOTE_DESCRIPTION:
        return define_set_note(&def->description, text, e);
    case NOTE_TITLE:
        return define_set_note(&def->title, text, e);
    case NOTE_ELEMENT:
        return define_metadata_set(def, uri, key, text, e);
    default:
        return lv_fail(k, e, LV_E_INVALID_ARG, "metadata of type %d", a->type);
    }
}

int lv_set_metadata(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_set_metadata_args *a = args;
    struct domain *d = lv_domain(k, &a->dom, e);
    Migrd__Domain *def;

    (void)ret;
    if (d == NULL || lv_check_flags(k, a->flags, AFFECT_LIVE | AFFECT_CONFIG, e) < 0)
        return -1;
    if (d->def == NULL)
        return lv_fail(
            k, e, LV_E_INVALID, "domain %s is transient: it has no definition to change", d->name);
    def = define_copy(d->def);
    if (def == NULL)
        return err_set(e, ERR_MEMORY, "migrd is out of memory");
    lv_audit(k, "set metadata of", d->name);
    if (put(k, a, def, e) == 0 && registry_define(k->m, &def, lv_call_end, k, e) == 0)
        return LV_LATER;
    if (k->code == 0)
        k->code = lv_define_code(e);
    migrd__domain__free_unpacked(def, NULL);
    return -1;
}
