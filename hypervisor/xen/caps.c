/* SPDX-License-Identifier: ISC */
/*
 * CPUs as Xen's policies have them: CPUID leaves, of the most that an HVM or PVH guest may have
 * here (where there is no such guest: a PV one), and of one domain. A guest fits where its
 * own policy is a part of that.
 *
 * The TSC: Xen emulates it for a guest that comes from another frequency, or has the CPU
 * scale it; so every frequency can be given.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xenctrl.h>
#include <xenguest.h>

#include "hypervisor/cpu.h"
#include "hypervisor/xen/xen_internal.h"

#define KIB_PER_PAGE (HV_PAGE_SIZE / 1024)
#define SPARE_KIB (8u << 10) /* for Xen's own structures */
#define LEAF_EXTENDED 0x80000001u
#define TOLD_TWICE 0x0183f3ffu /* of the basic leaf's edx */
#define LEAF_XSTATE 0xdu
#define LEAF_BRAND 0x80000002u

struct leaves {
    xen_cpuid_leaf_t *leaf;
    xen_msr_entry_t *msr;
    uint32_t n, n_msrs;
};

static void free_leaves(struct leaves *l)
{
    free(l->leaf);
    free(l->msr);
}

static int take_leaves(xc_interface *xc, const xc_cpu_policy_t *policy, struct leaves *l)
{
    memset(l, 0, sizeof *l);
    if (xc_cpu_policy_get_size(xc, &l->n, &l->n_msrs) < 0)
        return -1;
    l->leaf = calloc(l->n + 1, sizeof *l->leaf);
    l->msr = calloc(l->n_msrs + 1, sizeof *l->msr);
    if (l->leaf == NULL || l->msr == NULL ||
        xc_cpu_policy_serialise(xc, policy, l->leaf, &l->n, l->msr, &l->n_msrs) < 0) {
        free_leaves(l);
        return -1;
    }
    return 0;
}

static const xen_cpuid_leaf_t *find_leaf(const struct leaves *l, uint32_t leaf, uint32_t index)
{
    for (uint32_t i = 0; i < l->n; i++)
        if (l->leaf[i].leaf == leaf &&
            (l->leaf[i].subleaf == index ||
                (index == 0 && l->leaf[i].subleaf == XEN_CPUID_NO_SUBLEAF)))
            return &l->leaf[i];
    return NULL;
}

static uint32_t word_of(const struct leaves *l, const struct hv_word_place *p)
{
    const xen_cpuid_leaf_t *x = find_leaf(l, p->leaf, p->index);

    if (x == NULL)
        return 0;
    return p->reg == HV_EAX ? x->a : p->reg == HV_EBX ? x->b : p->reg == HV_ECX ? x->c : x->d;
}

/* AMD's CPUs tell of these features twice; Xen's policy of a host only once, a domain's both times.
 */
static uint32_t told_twice(const struct leaves *l, const struct hv_word_place *p)
{
    const xen_cpuid_leaf_t *vendor = find_leaf(l, 0, 0), *basic = find_leaf(l, 1, 0);
    bool amd = vendor != NULL &&
               (memcmp(&vendor->b, "Auth", 4) == 0 || memcmp(&vendor->b, "Hygo", 4) == 0);

    return amd && basic != NULL && p->leaf == LEAF_EXTENDED && p->reg == HV_EDX
               ? basic->d & TOLD_TWICE
               : 0;
}

static void brand_of(const struct leaves *l, char out[49])
{
    uint32_t r[12] = { 0 };
    char text[49] = { 0 };
    size_t n;

    for (uint32_t i = 0; i < 3; i++) {
        const xen_cpuid_leaf_t *x = find_leaf(l, LEAF_BRAND + i, 0);

        if (x != NULL)
            memcpy(&r[4 * i], (uint32_t[]){ x->a, x->b, x->c, x->d }, 16);
    }
    memcpy(text, r, sizeof r);
    for (n = strlen(text); n > 0 && text[n - 1] == ' '; n--)
        text[n - 1] = '\0';
    snprintf(out, 49, "%s", text + strspn(text, " "));
}

static void fill_cpu(const struct leaves *l, struct hv_caps *out)
{
    const struct hv_word_place *p;
    const xen_cpuid_leaf_t *x = find_leaf(l, 0, 0);

    if (x != NULL)
        memcpy(out->cpu_vendor, (uint32_t[]){ x->b, x->d, x->c }, 12);
    if ((x = find_leaf(l, 1, 0)) != NULL)
        hv_cpu_signature(out, x->a);
    brand_of(l, out->cpu_model);
    for (unsigned w = 0; (p = hv_word_place(w)) != NULL; w++)
        out->features[w] = word_of(l, p) | told_twice(l, p);
    if ((x = find_leaf(l, LEAF_XSTATE, 0)) != NULL) {
        out->xcr0 = (uint64_t)x->d << 32 | x->a;
        out->xsave_size = x->c;
    }
}

/* `domid` DOMID_INVALID: of the host's policy `index`. */
static int read_cpu(
    xc_interface *xc, uint32_t domid, unsigned index, struct hv_caps *out, struct err *e)
{
    xc_cpu_policy_t *policy = xc_cpu_policy_init();
    struct leaves l;
    int r;

    if (policy == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for a CPU policy");
    r = domid == DOMID_INVALID ? xc_cpu_policy_get_system(xc, index, policy)
                               : xc_cpu_policy_get_domain(xc, domid, policy);
    if (r == 0)
        r = take_leaves(xc, policy, &l);
    if (r == 0) {
        fill_cpu(&l, out);
        free_leaves(&l);
    } else {
        err_sys(e, "asking Xen for its CPU policy");
    }
    xc_cpu_policy_destroy(policy);
    return r == 0 ? 0 : -1;
}

static unsigned types_of(const xc_physinfo_t *p)
{
    unsigned types = 0;

    if (p->capabilities & XEN_SYSCTL_PHYSCAP_pv)
        types |= 1u << MIGRD__GUEST_TYPE__GUEST_PV;
    if (p->capabilities & XEN_SYSCTL_PHYSCAP_hvm)
        types |= 1u << MIGRD__GUEST_TYPE__GUEST_PVH | 1u << MIGRD__GUEST_TYPE__GUEST_HVM;
    return types;
}

/* What does not change while the host runs. */
static int read_caps(struct hv *hv, const xc_physinfo_t *p, struct hv_caps *c, struct err *e)
{
    unsigned index = p->capabilities & XEN_SYSCTL_PHYSCAP_hvm ? XEN_SYSCTL_cpu_policy_hvm_max
                                                              : XEN_SYSCTL_cpu_policy_pv_max;

    memset(c, 0, sizeof *c);
    snprintf(c->hypervisor, sizeof c->hypervisor, "xen");
    snprintf(c->release, sizeof c->release, "%s", hv->release);
    c->tsc_khz = p->cpu_khz;
    c->tsc_scaling = true;
    c->host_cpus = p->nr_cpus;
    c->max_vcpus = HV_VCPUS_MAX;
    c->guest_types = types_of(p);
    return read_cpu(hv->xc, DOMID_INVALID, index, c, e);
}

int xen_capabilities(struct hv *hv, struct hv_caps *out, struct err *e)
{
    xc_physinfo_t p = { 0 };
    xc_domaininfo_t own;
    uint64_t taken;
    int r = xc_physinfo(xen_lock(hv), &p);

    if (r == 0)
        r = xen_domain_facts(hv->xc, 0, &own);
    if (r < 0)
        err_sys(e, "asking Xen for the host's memory");
    if (r == 0 && !hv->has_caps) {
        r = read_caps(hv, &p, &hv->caps, e);
        hv->has_caps = r == 0;
    }
    *out = hv->caps;
    xen_unlock(hv);
    if (r < 0)
        return -1;
    out->host_kib = own.tot_pages * KIB_PER_PAGE;
    out->host_vcpus = own.nr_online_vcpus;
    taken = p.outstanding_pages * KIB_PER_PAGE + SPARE_KIB;
    out->memory_total_kib = p.total_pages * KIB_PER_PAGE;
    out->memory_free_kib = p.free_pages * KIB_PER_PAGE;
    out->memory_free_kib = out->memory_free_kib > taken ? out->memory_free_kib - taken : 0;
    return 0;
}

int xen_guest_cpu(struct hv *hv, const char *uuid, struct hv_caps *out, struct err *e)
{
    uint32_t mode = 0, khz = 0, incarnation = 0;
    uint64_t elapsed = 0;
    xc_domaininfo_t d;
    xc_interface *xc;
    int r;

    if (xen_find(hv, uuid, &d, e) < 0)
        return -1;
    memset(out, 0, sizeof *out);
    snprintf(out->hypervisor, sizeof out->hypervisor, "xen");
    snprintf(out->release, sizeof out->release, "%s", hv->release);
    xc = xen_lock(hv);
    r = read_cpu(xc, d.domain, 0, out, e);
    if (r == 0 && xc_domain_get_tsc_info(xc, d.domain, &mode, &elapsed, &khz, &incarnation) < 0)
        r = err_sys(e, "domain %s: its TSC", uuid);
    xen_unlock(hv);
    out->tsc_khz = khz;
    return r;
}
