/* SPDX-License-Identifier: ISC */
/*
 * Lists of typed parameters, which libvirt uses wherever a structure would have to grow:
 * a name, a type, a value. What does not fit, and what there is no memory for, is left out.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "migrd/libvirt/internal.h"

int lv_params_start(struct lv_params *l, unsigned max, struct err *e)
{
    *l = (struct lv_params){ .val = calloc(max, sizeof *l->val), .max = max };
    return l->val != NULL ? 0 : err_set(e, ERR_MEMORY, "migrd is out of memory");
}

void lv_params_free(struct lv_params *l)
{
    for (unsigned i = 0; i < l->len; i++)
        xdr_free((xdrproc_t)xdr_lv_param, (char *)&l->val[i]);
    free(l->val);
    *l = (struct lv_params){ 0 };
}

static lv_param *add(struct lv_params *l, const char *field, lv_value_type type)
{
    lv_param *p = l->len < l->max ? &l->val[l->len] : NULL;

    if (p == NULL || (p->field = lv_copy(field)) == NULL)
        return NULL;
    p->value.type = type;
    l->len++;
    return p;
}

void lv_put_ullong(struct lv_params *l, const char *field, uint64_t v)
{
    lv_param *p = add(l, field, LV_ULLONG);

    if (p != NULL)
        p->value.lv_value_u.ul = v;
}

/* What is larger than it holds is its largest. */
void lv_put_llong(struct lv_params *l, const char *field, uint64_t v)
{
    lv_param *p = add(l, field, LV_LLONG);

    if (p != NULL)
        p->value.lv_value_u.l = v > INT64_MAX ? INT64_MAX : (int64_t)v;
}

void lv_put_uint(struct lv_params *l, const char *field, unsigned v)
{
    lv_param *p = add(l, field, LV_UINT);

    if (p != NULL)
        p->value.lv_value_u.u = v;
}

void lv_put_int(struct lv_params *l, const char *field, int v)
{
    lv_param *p = add(l, field, LV_INT);

    if (p != NULL)
        p->value.lv_value_u.i = v;
}

void lv_put_bool(struct lv_params *l, const char *field, bool v)
{
    lv_param *p = add(l, field, LV_BOOL);

    if (p != NULL)
        p->value.lv_value_u.b = v;
}

void lv_put_text(struct lv_params *l, const char *field, const char *text)
{
    char *copy = lv_copy(text);
    lv_param *p = copy != NULL ? add(l, field, LV_STRING) : NULL;

    if (p != NULL)
        p->value.lv_value_u.s = copy;
    else
        free(copy);
}

const char *lv_field(struct lv_field *f, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(f->name, sizeof f->name, fmt, ap);
    va_end(ap);
    return f->name;
}
