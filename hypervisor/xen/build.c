/* SPDX-License-Identifier: ISC */
/* The verbs of xen-domain over libxl, but those of a domain that comes by a migration. */
#include <stdlib.h>

#include "hypervisor/hypervisor.h"
#include "hypervisor/xen/xen_domain.h"

static enum err_code code_of(int rc)
{
    switch (rc) {
    case ERROR_NOMEM:
        return ERR_MEMORY;
    case ERROR_INVAL:
        return ERR_INVALID;
    case ERROR_TIMEDOUT:
        return ERR_TIMEOUT;
    case ERROR_DOMAIN_NOTFOUND:
        return ERR_NOT_FOUND;
    case ERROR_FEATURE_REMOVED:
    case ERROR_NI:
        return ERR_UNSUPPORTED;
    default:
        return ERR_SYSTEM;
    }
}

int xl_fail(struct xl *x, struct err *e, int rc, const char *what)
{
    return err_set(e, code_of(rc), "%s: %s (libxl: %s)", what,
        x->said[0] != '\0' ? x->said : "no reason given", libxl_error_to_string(rc));
}

/* --- verbs --- */

int xl_start(struct xl *x, const Migrd__Domain *def, struct err *e)
{
    libxl_domain_config c;
    int rc, r;

    libxl_domain_config_init(&c);
    r = xen_config(def, true, x->hotplug, &c, e);
    if (r == 0) {
        rc = libxl_domain_create_new(x->ctx, &c, &x->domid, NULL, NULL);
        if (rc != 0)
            r = xl_fail(x, e, rc, "building the domain");
    }
    if (r == 0)
        xl_past_cache(x, def, c.disks, c.num_disks);
    libxl_domain_config_dispose(&c);
    return r;
}

int xl_destroy(struct xl *x, const Migrd__Domain *def, struct err *e)
{
    int rc = libxl_domain_destroy(x->ctx, x->domid, NULL);

    (void)def;
    return rc == 0 ? 0 : xl_fail(x, e, rc, "destroying the domain");
}

int xl_memory(struct xl *x, const Migrd__Domain *def, struct err *e)
{
    int rc = libxl_set_memory_target(x->ctx, x->domid, (int64_t)x->kib, 0, 1);

    (void)def;
    return rc == 0 ? 0 : xl_fail(x, e, rc, "another memory size");
}

int xl_vcpus(struct xl *x, const Migrd__Domain *def, struct err *e)
{
    libxl_bitmap map;
    int rc;

    (void)def;
    libxl_bitmap_init(&map);
    rc = libxl_cpu_bitmap_alloc(x->ctx, &map, HV_VCPUS_MAX);
    for (unsigned v = 0; rc == 0 && v < x->vcpus; v++)
        libxl_bitmap_set(&map, (int)v);
    if (rc == 0)
        rc = libxl_set_vcpuonline(x->ctx, x->domid, &map, NULL);
    libxl_bitmap_dispose(&map);
    return rc == 0 ? 0 : xl_fail(x, e, rc, "another number of vCPUs");
}

/* --- what is known of a domain that was not made here --- */

/* Without libxl's own notes: what Xen tells. */
static int bare_config(struct xl *x, libxl_domain_config *c)
{
    libxl_dominfo info;
    char *name = libxl_domid_to_name(x->ctx, x->domid);
    int rc;

    libxl_dominfo_init(&info);
    rc = libxl_domain_info(x->ctx, &info, x->domid);
    c->c_info.name = name;
    if (rc == 0) {
        c->c_info.type = info.domain_type;
        libxl_uuid_copy(x->ctx, &c->c_info.uuid, &info.uuid);
        libxl_domain_build_info_init_type(&c->b_info, info.domain_type);
        c->b_info.target_memkb = info.current_memkb;
        c->b_info.max_memkb = info.max_memkb;
        c->b_info.max_vcpus = (int)info.vcpu_max_id + 1;
    }
    libxl_dominfo_dispose(&info);
    return rc;
}

Migrd__Domain *xl_definition(struct xl *x, struct err *e)
{
    libxl_domain_config c;
    Migrd__Domain *def = NULL;
    int rc;

    libxl_domain_config_init(&c);
    rc = libxl_retrieve_domain_configuration(x->ctx, x->domid, &c, NULL);
    if (rc != 0) {
        libxl_domain_config_dispose(&c);
        libxl_domain_config_init(&c);
        rc = bare_config(x, &c);
    }
    if (rc == 0)
        def = xen_config_definition(&c, e);
    else
        xl_fail(x, e, rc, "its definition");
    libxl_domain_config_dispose(&c);
    return def;
}
