/* SPDX-License-Identifier: ISC */
/*
 * Procedures about the connection and the host. What the host has comes from the
 * hypervisor's capabilities, which the registry keeps fresh.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrd/libvirt/internal.h"

enum feature {
    FEATURE_P2P = 4,
    FEATURE_DIRECT = 5,
    FEATURE_MIGRATION_V3 = 6,
    FEATURE_CHANGE_PROTECTION = 7,
    FEATURE_TYPED_STRING = 9,
    FEATURE_KEEPALIVE = 10,
    FEATURE_OFFLINE = 12,
    FEATURE_MIGRATION_PARAMS = 13,
    FEATURE_EVENT_CALLBACK = 14,
    FEATURE_CLOSE_CALLBACK = 15
};

#define OPEN_READ_ONLY 1
#define AUTH_NONE 0
#define LIB_VERSION 9000000 /* the release of libvirt whose protocol this is */

static int put(char **out, const char *text, struct err *e)
{
    *out = lv_copy(text);
    return *out != NULL ? 0 : err_set(e, ERR_MEMORY, "migrd is out of memory");
}

/* --- connection --- */

int lv_auth_list(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    lv_auth *a = ret;

    (void)k;
    (void)args;
    a->types.types_val = calloc(1, sizeof *a->types.types_val);
    if (a->types.types_val == NULL)
        return err_set(e, ERR_MEMORY, "migrd is out of memory");
    a->types.types_len = 1;
    a->types.types_val[0] = AUTH_NONE; /* the socket knows who it is */
    return 0;
}

/* "": ours. Else the scheme of a driver of ours, or of Xen's tools, and the system's instance. */
static bool is_ours(const struct migrd *m, const char *uri)
{
    const char *const schemes[] = { "xvm", "xen", "xenmigr", "migrd", m->hv_ops->name };
    const char *rest = strstr(uri, "://");
    size_t n;

    if (uri[0] == '\0')
        return true;
    if (rest == NULL)
        return false;
    n = strcspn(uri, "+:");
    rest += 3;
    if (strncmp(rest, "/session", 8) == 0)
        return false;
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++)
        if (strlen(schemes[i]) == n && strncmp(uri, schemes[i], n) == 0)
            return true;
    return false;
}

int lv_open_connection(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const lv_open *o = args;
    const char *uri = o->name != NULL ? *o->name : "";

    (void)ret;
    if (lv_check_flags(k, o->flags, OPEN_READ_ONLY, e) < 0)
        return -1;
    if (k->c->opened)
        return lv_fail(k, e, LV_E_INVALID, "the connection is open already");
    if (!is_ours(k->m, uri))
        return lv_fail(k, e, LV_E_NO_CONNECT,
            "no connection driver available for %.200s; this host's domains are at %s:///system",
            uri, k->m->hv_ops->name);
    if ((o->flags & OPEN_READ_ONLY) != 0)
        k->c->read_only = true;
    k->c->opened = true;
    return 0;
}

int lv_close_connection(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)args;
    (void)ret;
    (void)e;
    k->c->ending = true;
    return 0;
}

int lv_supports(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    static const enum feature features[] = { FEATURE_P2P, FEATURE_DIRECT, FEATURE_MIGRATION_V3,
        FEATURE_CHANGE_PROTECTION, FEATURE_TYPED_STRING, FEATURE_KEEPALIVE, FEATURE_OFFLINE,
        FEATURE_MIGRATION_PARAMS, FEATURE_EVENT_CALLBACK, FEATURE_CLOSE_CALLBACK };
    int feature = ((const lv_int *)args)->value;
    lv_int *r = ret;

    (void)e;
    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++)
        if (feature == (int)features[i])
            r->value = 1;
    if (feature == FEATURE_KEEPALIVE)
        k->c->keepalive = true;
    return 0;
}

int lv_type(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)args;
    return put(&((lv_word *)ret)->value, k->m->hv_ops->name, e);
}

int lv_uri(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    char uri[64];

    (void)args;
    snprintf(uri, sizeof uri, "%s:///system", k->m->hv_ops->name);
    return put(&((lv_word *)ret)->value, uri, e);
}

int lv_hostname(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)args;
    return put(&((lv_word *)ret)->value, k->m->host_name, e);
}

/* A unix socket or TLS: there is no other way in. */
int lv_is_secure(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)k;
    (void)args;
    (void)e;
    ((lv_int *)ret)->value = 1;
    return 0;
}

/* "4.17" is 4017000. */
int lv_version(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    unsigned major = 0, minor = 0, release = 0;

    (void)args;
    if (sscanf(k->m->caps.release, "%u.%u.%u", &major, &minor, &release) < 1)
        return err_set(
            e, ERR_INTERNAL, "release %s of the hypervisor is no number", k->m->caps.release);
    ((lv_uhyper *)ret)->value = major * 1000000ull + minor * 1000ull + release;
    return 0;
}

int lv_lib_version(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)k;
    (void)args;
    (void)e;
    ((lv_uhyper *)ret)->value = LIB_VERSION;
    return 0;
}

/* --- host --- */

int lv_node_info(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    const struct hv_caps *c = &k->m->caps;
    lv_node *n = ret;

    (void)args;
    (void)e;
    snprintf(n->model, sizeof n->model, "x86_64");
    n->memory = c->memory_total_kib;
    n->cpus = (int)c->host_cpus;
    n->mhz = (int)(c->tsc_khz / 1000);
    n->nodes = n->sockets = n->threads = 1;
    n->cores = n->cpus;
    return 0;
}

int lv_free_memory(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)args;
    (void)e;
    ((lv_uhyper *)ret)->value = k->m->caps.memory_free_kib * 1024;
    return 0;
}

int lv_get_capabilities(struct lv_call *k, const void *args, void *ret, struct err *e)
{
    (void)args;
    return (((lv_string *)ret)->value = lv_capabilities(k->m, e)) != NULL ? 0 : -1;
}
