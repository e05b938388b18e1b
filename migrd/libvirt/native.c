/* SPDX-License-Identifier: ISC */
/*
 * Definitions as xm has them into libvirt's XML and back: virsh domxml-from-native and
 * domxml-to-native, format xen-xm. Nothing is looked up or changed.
 */
#include <string.h>

#include "migrd/define/define.h"
#include "migrd/libvirt/internal.h"

#define FORMAT "xen-xm"

static int check(struct lv_call *k, const lv_native *a, struct err *e)
{
    if (strcmp(a->format, FORMAT) != 0)
        return lv_fail(
            k, e, LV_E_INVALID_ARG, "format '%.60s': the only one is " FORMAT, a->format);
    return lv_check_flags(k, a->flags, 0, e);
}

static int convert(
    struct lv_call *k, const lv_native *a, enum define_format from, lv_string *out, struct err *e)
{
    Migrd__Domain *def;

    if (check(k, a, e) < 0)
        return -1;
    def = define_parse(a->text, strlen(a->text), from, "configuration", NULL, 0, e);
    if (def == NULL)
        return -1;
    out->value = from == DEFINE_XM ? define_xml(def, -1, e) : define_xm(def, e);
    migrd__domain__free_unpacked(def, NULL);
    return out->value != NULL ? 0 : -1;
}

int lv_from_native(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    return convert(k, args, DEFINE_XM, ret, e);
}

int lv_to_native(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    return convert(k, args, DEFINE_XML, ret, e);
}
