/* SPDX-License-Identifier: ISC */
/*
 * Procedures about CPUs, memory and scheduling: what they are, and changes of them (tune.h).
 * A call without flags, of the older kind, changes what runs and its definition, so that the change
 * is still there after the next boot; one with flags changes what they say. virsh sends the
 * flag "live" for `setmem` whatever the user says: there it is taken for no flag.
 *
 * A set of CPUs comes as bytes, CPU c being bit (c & 7) of byte (c >> 3); sets of several vCPUs
 * have the length that the client asked for, one behind the other.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpulist.h"
#include "migrd/define/define.h"
#include "migrd/domain_figures.h"
#include "migrd/libvirt/internal.h"
#include "migrd/tune.h"

#define AFFECT_LIVE 1
#define AFFECT_CONFIG 2
#define AFFECT (AFFECT_LIVE | AFFECT_CONFIG)
#define VCPU_MAXIMUM 4
#define MEMORY_MAXIMUM 4
#define TYPED_STRING_OKAY 4

_Static_assert(AFFECT_LIVE == TUNE_LIVE && AFFECT_CONFIG == TUNE_CONFIG, "flags are scopes");

#define SCHEDULER "credit"
#define WEIGHT "weight"
#define CAP "cap"
#define SCHED_PARAMS 2

static int no_memory(struct err *e)
{
    return err_set(e, ERR_MEMORY, "migrd is out of memory");
}

/* --- changes --- */

static int tune(
    struct lv_call *k, const lv_dom *dom, const char *what, struct tune *t, struct err *e)
{
    struct domain *d = lv_domain(k, dom, e);

    if (d == NULL)
        return -1;
    lv_audit(k, what, d->name);
    return tune_domain(k->m, d, t, lv_call_end, k, e) < 0 ? -1 : LV_LATER;
}

/* --- memory --- */

int lv_get_max_memory(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    struct domain *d = lv_domain(k, args, e);

    if (d == NULL)
        return -1;
    ((lv_uhyper *)ret)->value = registry_definition(d)->max_memory_kib;
    return 0;
}

static int set_memory(
    struct lv_call *k, const lv_dom *dom, uint64_t kib, unsigned flags, struct err *e)
{
    bool maximum = (flags & MEMORY_MAXIMUM) != 0;
    struct tune t = { .what = maximum ? TUNE_MAX_MEMORY : TUNE_MEMORY, .kib = kib };
    struct domain *d = lv_domain(k, dom, e);

    if (d == NULL || lv_check_flags(k, flags, AFFECT | MEMORY_MAXIMUM, e) < 0)
        return -1;
    t.scope = flags & AFFECT;
    if (t.scope == AFFECT_LIVE && tune_is_live(d, t.scope, e) < 0)
        return -1;
    if (t.scope == AFFECT_LIVE || t.scope == 0)
        t.scope = TUNE_ALL;
    return tune(k, dom, maximum ? "set-max-memory" : "set-memory", &t, e);
}

int lv_set_memory(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_memory *a = args;

    (void)ret;
    return set_memory(k, &a->dom, a->kib, a->flags, e);
}

int lv_set_memory_old(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_kib *a = args;

    (void)ret;
    return set_memory(k, &a->dom, a->kib, 0, e);
}

int lv_set_max_memory_old(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_kib *a = args;

    (void)ret;
    return set_memory(k, &a->dom, a->kib, MEMORY_MAXIMUM, e);
}

/* --- sets of CPUs --- */

static int take_set(
    struct lv_call *k, const char *bytes, unsigned len, struct hv_cpus *out, struct err *e)
{
    memset(out, 0, sizeof *out);
    for (unsigned c = 0; c < len * 8; c++) {
        if ((bytes[c >> 3] >> (c & 7) & 1) == 0)
            continue;
        if (c >= HV_CPUS_MAX)
            return lv_fail(k, e, LV_E_INVALID_ARG, "CPU %u: this host has no such CPU", c);
        out->word[c >> 6] |= UINT64_C(1) << (c & 63);
    }
    return 0;
}

static void put_set(const struct hv_cpus *set, char *bytes, unsigned len)
{
    memset(bytes, 0, len);
    for (unsigned c = 0; c < len * 8 && c < HV_CPUS_MAX; c++)
        if (hv_cpus_has(set, c))
            bytes[c >> 3] = (char)(bytes[c >> 3] | 1 << (c & 7));
}

static int check_maps(struct lv_call *k, int n, int maplen, struct err *e)
{
    if (n >= 0 && n <= LV_VCPUS_MAX && maplen >= 0 && maplen <= LV_CPU_MAP_MAX &&
        n * maplen <= LV_CPU_MAPS_MAX)
        return 0;
    return lv_fail(
        k, e, LV_E_INVALID_ARG, "room for %d vCPUs with %d bytes each: too much", n, maplen);
}

int lv_get_cpu_map(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_cpu_map_args *a = args;
    lv_cpu_map *r = ret;
    struct hv_cpus present, online;

    if (lv_check_flags(k, a->flags, 0, e) < 0)
        return -1;
    tune_host_cpus(k->m, &online);
    if (cpulist_host("present", &present) < 0)
        present = online;
    for (unsigned c = 0; c < HV_CPUS_MAX; c++) {
        r->online += hv_cpus_has(&online, c);
        if (hv_cpus_has(&present, c))
            r->n = (int)c + 1;
    }
    if (a->need_map == 0)
        return 0;
    r->map.map_len = ((unsigned)r->n + 7) / 8;
    r->map.map_val = calloc(1, r->map.map_len + 1);
    if (r->map.map_val == NULL)
        return no_memory(e);
    put_set(&online, r->map.map_val, r->map.map_len);
    return 0;
}

/* --- vCPUs --- */

int lv_host_max_vcpus(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_kind *a = args;

    if (a->type != NULL && strcmp(*a->type, k->m->hv_ops->name) != 0)
        return lv_fail(k, e, LV_E_INVALID_ARG, "unknown type '%.40s'; this host has %s", *a->type,
            k->m->hv_ops->name);
    ((lv_int *)ret)->value = (int)k->m->caps.max_vcpus;
    return 0;
}

static void vcpus_known(void *call, const struct domain_figures *f, const struct err *e)
{
    struct lv_call *k = call;
    const lv_vcpus_args *a = k->args;
    unsigned n = f->n_vcpus < (unsigned)a->maxinfo ? f->n_vcpus : (unsigned)a->maxinfo;
    unsigned maplen = (unsigned)a->maplen;
    lv_vcpus r = { .info = { .info_val = calloc(n + 1, sizeof(lv_vcpu)) },
        .maps = { .maps_val = calloc(n + 1, maplen + 1) } };
    int result = e->code == ERR_NONE ? 0 : -1;
    struct err why = *e;

    if (result == 0 && (r.info.info_val == NULL || r.maps.maps_val == NULL))
        result = no_memory(&why);
    if (result == 0) {
        r.info.info_len = n;
        r.maps.maps_len = n * maplen;
    }
    for (unsigned i = 0; i < r.info.info_len; i++) {
        r.info.info_val[i] = (lv_vcpu){ .number = i,
            .state = (int)f->vcpu[i].state, /* libvirt's numbers */
            .cpu_ns = f->vcpu[i].cpu_ns,
            .cpu = f->vcpu[i].cpu };
        put_set(&f->vcpu[i].allowed, r.maps.maps_val + i * maplen, maplen);
    }
    lv_call_finish(k, result, &r, &why);
    free(r.info.info_val);
    free(r.maps.maps_val);
}

int lv_get_vcpus(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_vcpus_args *a = args;
    struct domain *d = lv_domain(k, &a->dom, e);

    (void)ret;
    if (d == NULL || check_maps(k, a->maxinfo, a->maplen, e) < 0)
        return -1;
    return figures_ask(k->m, d, FIGURES_VCPUS, vcpus_known, k, e) < 0 ? -1 : LV_LATER;
}

static int pin(struct lv_call *k, const lv_dom *dom, unsigned vcpu, const char *bytes, unsigned len,
    unsigned scope, struct err *e)
{
    struct tune t = { .what = TUNE_PIN, .scope = scope, .vcpu = vcpu };

    return take_set(k, bytes, len, &t.cpus, e) < 0 ? -1 : tune(k, dom, "vcpu-pin", &t, e);
}

int lv_pin_vcpu(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_pin *a = args;

    (void)ret;
    return pin(k, &a->dom, a->vcpu, a->map.map_val, a->map.map_len, TUNE_ALL, e);
}

int lv_pin_vcpu_flags(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_pin_flags *a = args;

    (void)ret;
    if (lv_check_flags(k, a->flags, AFFECT, e) < 0)
        return -1;
    return pin(k, &a->dom, a->vcpu, a->map.map_val, a->map.map_len, a->flags, e);
}

/* Whether the running domain is asked for; -1: neither, or both. */
static int which(struct lv_call *k, const struct domain *d, unsigned flags, struct err *e)
{
    if ((flags & AFFECT) == AFFECT)
        return lv_fail(
            k, e, LV_E_INVALID_ARG, "flags for live and config together: ask for one of them");
    return tune_is_live(d, flags & AFFECT, e);
}

int lv_get_pins(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_pins_args *a = args;
    struct domain *d = lv_domain(k, &a->dom, e);
    const Migrd__Domain *def;
    lv_pins *r = ret;
    unsigned n;
    int live;

    if (d == NULL || lv_check_flags(k, a->flags, AFFECT, e) < 0 ||
        (live = which(k, d, a->flags, e)) < 0 || check_maps(k, a->n, a->maplen, e) < 0)
        return -1;
    def = live ? d->live_def : d->def;
    n = def == NULL ? 0 : live ? d->info.vcpus : define_max_vcpus(def);
    r->n = (int)n < a->n ? (int)n : a->n;
    r->maps.maps_len = (unsigned)(r->n * a->maplen);
    r->maps.maps_val = calloc(1, r->maps.maps_len + 1);
    if (r->maps.maps_val == NULL)
        return no_memory(e);
    for (int i = 0; i < r->n; i++) {
        struct hv_cpus set;

        tune_pinned(k->m, def, (unsigned)i, &set);
        put_set(&set, r->maps.maps_val + i * a->maplen, (unsigned)a->maplen);
    }
    return 0;
}

int lv_set_vcpus(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_count *a = args;
    struct tune t = { .what = TUNE_VCPUS, .scope = TUNE_ALL, .vcpus = a->n };

    (void)ret;
    return tune(k, &a->dom, "vcpu-set", &t, e);
}

int lv_set_vcpus_flags(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_count_flags *a = args;
    bool maximum = (a->flags & VCPU_MAXIMUM) != 0;
    struct tune t = {
        .what = maximum ? TUNE_MAX_VCPUS : TUNE_VCPUS, .scope = a->flags & AFFECT, .vcpus = a->n
    };

    (void)ret;
    if (lv_check_flags(k, a->flags, AFFECT | VCPU_MAXIMUM, e) < 0)
        return -1;
    return tune(k, &a->dom, "vcpu-set", &t, e);
}

int lv_get_vcpus_flags(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_dom_flags *a = args;
    struct domain *d = lv_domain(k, &a->dom, e);
    const Migrd__Domain *def;
    int live;

    if (d == NULL || lv_check_flags(k, a->flags, AFFECT | VCPU_MAXIMUM, e) < 0 ||
        (live = which(k, d, a->flags, e)) < 0)
        return -1;
    def = live || d->def == NULL ? registry_definition(d) : d->def;
    if ((a->flags & VCPU_MAXIMUM) != 0)
        ((lv_int *)ret)->value = (int)define_max_vcpus(def);
    else
        ((lv_int *)ret)->value = (int)(live ? d->info.vcpus : def->vcpus);
    return 0;
}

/* --- weight and cap --- */

int lv_get_sched_type(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    lv_sched_type *r = ret;

    if (lv_domain(k, args, e) == NULL)
        return -1;
    r->n = SCHED_PARAMS;
    r->type = lv_copy(SCHEDULER);
    return r->type != NULL ? 0 : no_memory(e);
}

/* `list` holds what *r shows. */
static int put_sched(
    const struct hv_sched *s, int room, struct lv_params *list, lv_param_list *r, struct err *e)
{
    if (lv_params_start(list, SCHED_PARAMS, e) < 0)
        return -1;
    lv_put_uint(list, WEIGHT, s->weight);
    if (room > 1)
        lv_put_uint(list, CAP, s->cap);
    r->params.params_len = list->len;
    r->params.params_val = list->val;
    return 0;
}

static void sched_known(void *call, const struct domain_figures *f, const struct err *e)
{
    struct lv_call *k = call;
    int room = ((const lv_sched_args *)k->args)->n; /* lv_sched_args_flags begin alike */
    struct lv_params list = { 0 };
    lv_param_list r = { { 0 } };
    struct err why = *e;
    int result = e->code == ERR_NONE ? put_sched(&f->sched, room, &list, &r, &why) : -1;

    lv_call_finish(k, result, &r, &why);
    lv_params_free(&list);
}

/* Of what runs, the hypervisor knows. */
static int get_sched(
    struct lv_call *k, const lv_dom *dom, int room, unsigned flags, lv_param_list *r, struct err *e)
{
    struct domain *d = lv_domain(k, dom, e);
    struct lv_params list;
    struct hv_sched s;
    int live;

    if (d == NULL || lv_check_flags(k, flags, AFFECT | TYPED_STRING_OKAY, e) < 0 ||
        (live = which(k, d, flags, e)) < 0)
        return -1;
    if (live)
        return figures_ask(k->m, d, FIGURES_SCHED, sched_known, k, e) < 0 ? -1 : LV_LATER;
    s = hv_sched_of(d->def != NULL ? d->def : registry_definition(d));
    return put_sched(&s, room, &list, r, e); /* freed with *r */
}

int lv_get_sched(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_sched_args *a = args;

    return get_sched(k, &a->dom, a->n, 0, ret, e);
}

int lv_get_sched_flags(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_sched_args_flags *a = args;

    return get_sched(k, &a->dom, a->n, a->flags, ret, e);
}

/* A whole number, whatever its type. */
static int take_number(struct lv_call *k, const lv_param *p, unsigned *out, struct err *e)
{
    long long n = -1;

    switch (p->value.type) {
    case LV_INT:
        n = p->value.lv_value_u.i;
        break;
    case LV_UINT:
        n = p->value.lv_value_u.u;
        break;
    case LV_LLONG:
        n = p->value.lv_value_u.l;
        break;
    case LV_ULLONG:
        n = p->value.lv_value_u.ul > LLONG_MAX ? LLONG_MAX : (long long)p->value.lv_value_u.ul;
        break;
    case LV_DOUBLE:
    case LV_BOOL:
    case LV_STRING:
        return lv_fail(k, e, LV_E_INVALID_ARG, "parameter '%s' must be a whole number", p->field);
    }
    if (n < 0 || n > HV_WEIGHT_MAX)
        return lv_fail(k, e, LV_E_INVALID_ARG, "parameter '%s' must be from 0 to %d, not %lld",
            p->field, HV_WEIGHT_MAX, n);
    *out = (unsigned)n;
    return 0;
}

static int take_param(struct lv_call *k, const lv_param *p, struct tune *t, struct err *e)
{
    bool weight = strcmp(p->field, WEIGHT) == 0;
    bool *set = weight ? &t->set_weight : &t->set_cap;

    if (!weight && strcmp(p->field, CAP) != 0)
        return lv_fail(k, e, LV_E_INVALID_ARG,
            "parameter '%.80s' is not known; there are " WEIGHT " and " CAP, p->field);
    if (*set)
        return lv_fail(k, e, LV_E_INVALID_ARG, "parameter '%s' is there twice", p->field);
    *set = true;
    return take_number(k, p, weight ? &t->sched.weight : &t->sched.cap, e);
}

static int set_sched(struct lv_call *k, const lv_dom *dom, const lv_param *params, unsigned n,
    unsigned scope, struct err *e)
{
    struct tune t = { .what = TUNE_SCHED, .scope = scope };

    if (n == 0)
        return lv_fail(
            k, e, LV_E_INVALID_ARG, "no parameter to set; there are " WEIGHT " and " CAP);
    for (unsigned i = 0; i < n; i++)
        if (take_param(k, &params[i], &t, e) < 0)
            return -1;
    return tune(k, dom, "sched-credit", &t, e);
}

int lv_set_sched(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_sched_set *a = args;

    (void)ret;
    return set_sched(k, &a->dom, a->params.params_val, a->params.params_len, TUNE_ALL, e);
}

int lv_set_sched_flags(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_sched_set_flags *a = args;

    (void)ret;
    if (lv_check_flags(k, a->flags, AFFECT, e) < 0)
        return -1;
    return set_sched(k, &a->dom, a->params.params_val, a->params.params_len, a->flags, e);
}

/* --- event --- */

/* <shares> and <global_quota> of the XML have these names. */
void lv_event_cpus(struct migrd *m, const struct domain *d)
{
    const Migrd__Domain *def = registry_definition(d);
    struct hv_sched s = hv_sched_of(def);
    struct lv_params list;
    struct lv_field field;

    if (lv_params_start(&list, HV_VCPUS_MAX + 3, NULL) < 0)
        return;
    lv_put_ullong(&list, "cputune.cpu_shares", s.weight);
    lv_put_ullong(&list, "cputune.global_quota", (uint64_t)s.cap * 1000);
    for (unsigned i = 0; i < d->info.vcpus && i < HV_VCPUS_MAX; i++) {
        const char *pinned = hv_vcpu_pinning(def, i);

        if (pinned[0] != '\0')
            lv_put_text(&list, lv_field(&field, "cputune.vcpupin%u", i), pinned);
    }
    lv_event_tunable(m, d, &list);
    lv_params_free(&list);
}
