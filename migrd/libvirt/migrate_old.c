/* SPDX-License-Identifier: ISC */
/*
 * The steps for clients without typed parameters, and `virsh migrate --direct`, which never
 * sends any: their arguments are made into the parameters of the newer protocol.
 */
#include <string.h>

#include "migrd/libvirt/migrate.h"

#define OLD_PARAMS_MAX 4

struct old {
    lv_param params[OLD_PARAMS_MAX];
    struct lv_step s;
};

static lv_param *add(struct old *o, const char *field, lv_value_type type)
{
    lv_param *p = &o->params[o->s.n_params++];

    p->field = (char *)(uintptr_t)field;
    p->value.type = type;
    return p;
}

static void add_text(struct old *o, const char *field, const char *text)
{
    if (text != NULL)
        add(o, field, LV_STRING)->value.lv_value_u.s = (char *)(uintptr_t)text;
}

static const char *text_of(lv_text *const *p)
{
    return *p != NULL ? **p : NULL;
}

static const char *name_of(lv_name *const *p)
{
    return *p != NULL ? **p : NULL;
}

static int take_flags(struct lv_call *k, struct old *o, uint64_t flags, struct err *e)
{
    *o = (struct old){ .s = { .params = o->params, .flags = (unsigned)flags } };
    if (flags > UINT32_MAX)
        return lv_fail(k, e, LV_E_INVALID_ARG, "unsupported flags in procedure %d", k->h.proc);
    if ((flags & LV_M_OFFLINE) != 0)
        return lv_fail(k, e, LV_E_ARGUMENT_UNSUPPORTED,
            "--offline needs a client with typed parameters (virDomainMigrate3)");
    return 0;
}

static void add_rest(struct old *o, const char *name, uint64_t bandwidth)
{
    add_text(o, "destination_name", name);
    if (bandwidth != 0)
        add(o, "bandwidth", LV_ULLONG)->value.lv_value_u.ul = bandwidth;
}

int lv_begin3_old(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_begin_old *a = args;
    struct old o;

    if (take_flags(k, &o, a->flags, e) < 0)
        return -1;
    o.s.dom = &a->dom;
    add_text(&o, "destination_xml", text_of(&a->xml));
    add_rest(&o, name_of(&a->name), a->bandwidth);
    return lv_step_begin(k, &o.s, ret, e);
}

int lv_prepare3_old(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_prepare_old *a = args;
    struct old o;

    if (take_flags(k, &o, a->flags, e) < 0)
        return -1;
    o.s.cookie = a->cookie.cookie_val;
    o.s.cookie_len = a->cookie.cookie_len;
    add_text(&o, "migrate_uri", name_of(&a->uri));
    add_text(&o, "destination_xml", a->xml);
    add_rest(&o, name_of(&a->name), a->bandwidth);
    return lv_step_prepare(k, &o.s, ret, e);
}

int lv_perform3_old(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_perform_old *a = args;
    struct old o;

    (void)ret;
    if (take_flags(k, &o, a->flags, e) < 0)
        return -1;
    o.s.dom = &a->dom;
    o.s.dconnuri = name_of(&a->dconnuri);
    o.s.cookie = a->cookie.cookie_val;
    o.s.cookie_len = a->cookie.cookie_len;
    add_text(&o, "migrate_uri", name_of(&a->uri));
    add_text(&o, "destination_xml", text_of(&a->xml));
    add_rest(&o, name_of(&a->name), a->bandwidth);
    return lv_step_perform(k, &o.s, e);
}

int lv_finish3_old(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_finish_old *a = args;
    struct old o;

    if (take_flags(k, &o, a->flags, e) < 0)
        return -1;
    o.s.cookie = a->cookie.cookie_val;
    o.s.cookie_len = a->cookie.cookie_len;
    o.s.cancelled = a->cancelled != 0;
    return lv_step_finish(k, &o.s, ret, e);
}

int lv_confirm3_old(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_confirm_old *a = args;
    struct old o;

    (void)ret;
    if (take_flags(k, &o, a->flags, e) < 0)
        return -1;
    o.s.dom = &a->dom;
    o.s.cookie = a->cookie.cookie_val;
    o.s.cookie_len = a->cookie.cookie_len;
    o.s.cancelled = a->cancelled != 0;
    return lv_step_confirm(k, &o.s, e);
}
