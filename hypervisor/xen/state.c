/* SPDX-License-Identifier: ISC */
/*
 * Standing still, and what is loaded then.
 *
 * A guest stops itself: control/shutdown in its xenstore says "suspend", it takes the word away,
 * quiets its frontends and shuts down with the code `suspend`, its vCPU 0 inside that
 * hypercall, which answers 0 where the guest goes on from a saved state (it then
 * connects anew to xenstore, console and devices) and 1 where it goes on in the domain it was in.
 *
 *   before it is asked             marked: should its holder die while it makes up its mind, the
 *                                  sweep lets it go on once it has suspended (mig.c)
 *   asked, no answer in ASK_MS     the word is taken back; the guest runs on
 *   answered, still running        waited for until DONE_MS, then given up; the mark stays
 *   suspended                      the mark is taken away before anybody is told: from here on the
 *                                  guest may be given to another host, and nothing here resumes it
 *                                  but who decides that; then its disks are waited for (rings.c)
 *
 * state_load: CPU policy first, since Xen compares the context with it; params; TSC; context last.
 * What was there before (rings, event channels, grants) is the new domain's own.
 */
#include "hypervisor/xen/pv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xen/hvm/params.h>
#include <xen/hvm/save.h>
#include <xen/sched.h>
#include <xenguest.h>

#include "base/clock.h"
#include "base/log.h"
#include "hypervisor/xen/stream.h"
#include "hypervisor/xen_blob.h"

#define ASK_MS 5000
#define DONE_MS 9000
#define POLL_US 500
#define WORD_EVERY 20 /* polls between two looks at the word */

_Static_assert(sizeof(struct xen_blob_leaf) == sizeof(xen_cpuid_leaf_t) &&
                   sizeof(struct xen_blob_msr) == sizeof(xen_msr_entry_t),
    "a blob's entries are Xen's");

/* --- pause and resume --- */

bool xen_is_suspended(const xc_domaininfo_t *d)
{
    return xen_shutdown_code(d) == SHUTDOWN_suspend;
}

static int check_epoch(const struct hv_mig *m, uint64_t epoch, struct err *e)
{
    if (epoch >= m->epoch)
        return 0;
    return err_set(e, ERR_EPOCH, "domain %s is at epoch %llu here, the order is of %llu", m->uuid,
        (unsigned long long)m->epoch, (unsigned long long)epoch);
}

static int write_word(struct hv_mig *m, const char *word, struct err *e)
{
    char path[XEN_PATH_LEN];

    snprintf(path, sizeof path, "/local/domain/%u/control/shutdown", m->domid);
    if (!xs_write(m->xs, XBT_NULL, path, word, (unsigned)strlen(word)))
        return err_sys(e, "domain %s: writing %s", m->uuid, path);
    return 0;
}

/* The guest takes the word away when it has read it. */
static bool is_asked(struct hv_mig *m)
{
    char word[16];

    xen_store_read(m->xs, word, sizeof word, "/local/domain/%u/control/shutdown", m->domid);
    return strcmp(word, "suspend") == 0;
}

/* 1 suspended, 0 not yet, -1 it ended in another way. */
static int look(struct hv_mig *m, struct err *e)
{
    xc_domaininfo_t d;

    if (xen_domain_facts(m->xc, m->domid, &d) < 0)
        return err_sys(e, "domain %s", m->uuid);
    if (xen_is_suspended(&d))
        return 1;
    if ((d.flags & (XEN_DOMINF_shutdown | XEN_DOMINF_dying)) != 0)
        return err_set(
            e, ERR_STATE, "domain %s: the guest shut down instead of suspending", m->uuid);
    return 0;
}

static int call_off(struct hv_mig *m, bool asked, struct err *e)
{
    if (asked)
        return write_word(m, "", e) < 0
                   ? -1
                   : err_set(e, ERR_TIMEOUT,
                         "domain %s: the guest does not answer a request to suspend: is its kernel "
                         "one with Xen's drivers, and alive?",
                         m->uuid);
    return err_set(e, ERR_TIMEOUT,
        "domain %s: the guest took the request to suspend and did not do so within %d s", m->uuid,
        DONE_MS / 1000);
}

static int await_suspend(struct hv_mig *m, struct err *e)
{
    uint64_t began = clock_ns(), waited = 0;
    bool asked = true;
    int r;

    for (unsigned i = 1; (r = look(m, e)) == 0; i++) {
        if (i % WORD_EVERY == 0)
            asked = asked && is_asked(m);
        waited = (clock_ns() - began) / NS_PER_MS;
        if (waited >= (asked ? ASK_MS : DONE_MS))
            return call_off(m, asked && is_asked(m), e);
        usleep(POLL_US);
    }
    return r < 0 ? -1 : 0;
}

static int mark_late(struct hv_mig *m, bool late, struct err *e)
{
    if (m->mark.late == late)
        return 0;
    m->mark.late = late;
    return xen_mark_write(m, e);
}

int xen_mig_pause(struct hv_mig *m, uint64_t epoch, struct err *e)
{
    int r;

    if (check_epoch(m, epoch, e) < 0)
        return -1;
    m->epoch = epoch;
    r = look(m, e);
    if (r == 0 &&
        (mark_late(m, true, e) < 0 || write_word(m, "suspend", e) < 0 || await_suspend(m, e) < 0))
        return -1;
    if (r < 0 || mark_late(m, false, e) < 0)
        return -1;
    return xen_rings_drain(m, e);
}

int xen_go_on(xc_interface *xc, struct xs_handle *xs, uint32_t domid, struct err *e)
{
    xc_domaininfo_t d;

    if (xen_domain_facts(xc, domid, &d) < 0)
        return err_sys(e, "domain %u", domid);
    return xen_is_suspended(&d) ? xen_unsuspend(xc, xs, domid, e) : 0;
}

int xen_mig_resume(struct hv_mig *m, uint64_t epoch, struct err *e)
{
    if (check_epoch(m, epoch, e) < 0)
        return -1;
    return xen_go_on(m->xc, m->xs, m->domid, e);
}

/* --- save --- */

/* What libxc sends too, of what a PVH domain can have. */
static const uint32_t moved_params[] = { HVM_PARAM_PAGING_RING_PFN, HVM_PARAM_MONITOR_RING_PFN,
    HVM_PARAM_SHARING_RING_PFN, HVM_PARAM_TIMER_MODE, HVM_PARAM_VM_GENERATION_ID_ADDR,
    HVM_PARAM_X87_FIP_WIDTH, HVM_PARAM_MCA_CAP };

#define N_MOVED (sizeof moved_params / sizeof moved_params[0])

static int save_policy(struct hv_mig *m, struct xen_blob *b, struct err *e)
{
    xc_cpu_policy_t *policy = xc_cpu_policy_init();
    uint32_t leaves = XEN_BLOB_LEAVES_MAX, msrs = XEN_BLOB_MSRS_MAX;
    int rc = 0;

    if (policy == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for a CPU policy");
    if (xc_cpu_policy_get_domain(m->xc, m->domid, policy) < 0 ||
        xc_cpu_policy_serialise(m->xc, policy, (xen_cpuid_leaf_t *)b->leaf, &leaves,
            (xen_msr_entry_t *)b->msr, &msrs) < 0)
        rc = err_sys(e, "domain %s: reading its CPU policy", m->uuid);
    xc_cpu_policy_destroy(policy);
    b->n_leaves = leaves;
    b->n_msrs = msrs;
    return rc;
}

static int save_params(struct hv_mig *m, struct xen_blob *b, struct err *e)
{
    for (size_t i = 0; i < N_MOVED; i++) {
        struct xen_blob_param *p = &b->param[b->n_params];

        p->index = moved_params[i];
        if (xc_hvm_param_get(m->xc, m->domid, moved_params[i], &p->value) < 0)
            return err_sys(e, "domain %s: reading its parameter %u", m->uuid, moved_params[i]);
        b->n_params++;
    }
    if (xc_domain_get_tsc_info(
            m->xc, m->domid, &b->tsc.mode, &b->tsc.ns, &b->tsc.khz, &b->tsc.incarnation) < 0)
        return err_sys(e, "domain %s: reading its TSC", m->uuid);
    return 0;
}

static int save_context(struct hv_mig *m, struct xen_blob *b, struct err *e)
{
    int len = xc_domain_hvm_getcontext(m->xc, m->domid, NULL, 0);

    if (len <= 0 || len > (int)XEN_BLOB_CONTEXT_MAX)
        return err_sys(e, "domain %s: asking for the size of its context", m->uuid);
    b->context = malloc((size_t)len);
    if (b->context == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for the context of a domain");
    len = xc_domain_hvm_getcontext(m->xc, m->domid, b->context, (uint32_t)len);
    if (len < 0)
        return err_sys(e, "domain %s: reading its context", m->uuid);
    b->context_len = (uint32_t)len;
    return 0;
}

/* Not only who migrates it can let it go on: the sweep did, or `xl resume`. What is saved here may
 * run elsewhere next, so nothing may run here. */
int xen_check_still(struct hv_mig *m, struct err *e)
{
    int r = look(m, e);

    return r != 0 ? r
                  : err_set(e, ERR_STATE,
                        "domain %s runs, though its state is to be saved: somebody let it go on",
                        m->uuid);
}

int xen_state_save(struct hv_mig *m, uint8_t **blob, size_t *len, struct err *e)
{
    struct xen_blob *b;
    int rc = -1;

    *blob = NULL;
    *len = 0;
    if (m->pv != NULL)
        return xen_pv_state_save(m, blob, len, e);
    if (xen_check_still(m, e) < 0)
        return -1;
    b = calloc(1, sizeof *b);
    if (b == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for the state of a domain");
    b->vcpus = m->vcpus;
    if (save_policy(m, b, e) == 0 && save_params(m, b, e) == 0 && save_context(m, b, e) == 0)
        rc = xen_blob_pack(b, blob, len, e);
    xen_blob_free(&b);
    return rc;
}

/* --- load --- */

static int load_policy(struct hv_mig *m, struct xen_blob *b, struct err *e)
{
    uint32_t leaf = 0, subleaf = 0, msr = 0;

    if (xc_set_domain_cpu_policy(m->xc, m->domid, b->n_leaves, (xen_cpuid_leaf_t *)b->leaf,
            b->n_msrs, (xen_msr_entry_t *)b->msr, &leaf, &subleaf, &msr) == 0)
        return 0;
    return err_sys(e,
        "domain %s: its state does not fit here: section cpuid: Xen refuses what the guest sees of "
        "the CPU (leaf 0x%x, subleaf 0x%x, MSR 0x%x)",
        m->uuid, leaf, subleaf, msr);
}

static bool is_moved(uint64_t index)
{
    for (size_t i = 0; i < N_MOVED; i++)
        if (moved_params[i] == index)
            return true;
    return false;
}

static bool is_page(uint64_t index)
{
    return index == HVM_PARAM_PAGING_RING_PFN || index == HVM_PARAM_MONITOR_RING_PFN ||
           index == HVM_PARAM_SHARING_RING_PFN;
}

static bool is_special(uint64_t gfn)
{
    return gfn - XEN_SPECIAL_GFN < XEN_SPECIAL_PAGES;
}

static int load_param(struct hv_mig *m, const struct xen_blob_param *p, struct err *e)
{
    uint64_t now;

    if (!is_moved(p->index) || (is_page(p->index) && p->value != 0 && !is_special(p->value)))
        return err_set(e, ERR_PROTOCOL,
            "domain %s: its state does not fit here: section params: number %llu is not for guests "
            "to bring along",
            m->uuid, (unsigned long long)p->index);
    if (xc_hvm_param_get(m->xc, m->domid, (uint32_t)p->index, &now) < 0)
        return err_sys(
            e, "domain %s: section params: number %llu", m->uuid, (unsigned long long)p->index);
    if (now == p->value || xc_hvm_param_set(m->xc, m->domid, (uint32_t)p->index, p->value) == 0)
        return 0;
    return err_sys(e,
        "domain %s: its state does not fit here: section params: number %llu = 0x%llx", m->uuid,
        (unsigned long long)p->index, (unsigned long long)p->value);
}

static int load(struct hv_mig *m, struct xen_blob *b, struct err *e)
{
    if (b->vcpus != m->vcpus)
        return err_set(e, ERR_INVALID,
            "domain %s: its state does not fit here: section vcpus: it is of %u vCPUs, the domain "
            "has "
            "%u",
            m->uuid, (unsigned)b->vcpus, m->vcpus);
    if (load_policy(m, b, e) < 0)
        return -1;
    for (uint32_t i = 0; i < b->n_params; i++)
        if (load_param(m, &b->param[i], e) < 0)
            return -1;
    if (xc_domain_set_tsc_info(
            m->xc, m->domid, b->tsc.mode, b->tsc.ns, b->tsc.khz, b->tsc.incarnation) < 0)
        return err_sys(e, "domain %s: its state does not fit here: section tsc: mode %u, %u kHz",
            m->uuid, b->tsc.mode, b->tsc.khz);
    if (xc_domain_hvm_setcontext(m->xc, m->domid, b->context, b->context_len) < 0)
        return err_sys(e,
            "domain %s: its state does not fit here: section context: Xen refuses it (xl dmesg "
            "tells which part)",
            m->uuid);
    return 0;
}

int xen_state_load(struct hv_mig *m, const uint8_t *blob, size_t len, struct err *e)
{
    struct xen_blob *b;
    int rc;

    if (m->side != HV_TARGET)
        return err_set(e, ERR_STATE, "domain %s is not an incoming one", m->uuid);
    if (m->pv != NULL)
        return xen_pv_state_load(m, blob, len, e);
    if (xen_blob_parse(blob, len, &b, e) < 0)
        return err_prefix(e, "domain %s", m->uuid);
    pthread_mutex_lock(&m->lock);
    rc = load(m, b, e);
    if (rc == 0)
        rc = xen_mark_loaded(m, e);
    pthread_mutex_unlock(&m->lock);
    xen_blob_free(&b);
    return rc;
}

/* --- registers --- */

static struct hv_segment segment(uint32_t sel, uint32_t limit, uint32_t arbytes, uint64_t base)
{
    /* arbytes: bits 8 and on of the descriptor's word, its bits 12 and on moved down by four */
    uint32_t flags = (arbytes & 0xff) << 8 | (arbytes & 0xf00) << 12;

    return (struct hv_segment){ .selector = sel, .limit = limit, .flags = flags, .base = base };
}

static void fill_registers(struct hv_registers *r, const struct hvm_hw_cpu *c)
{
    const uint64_t gpr[HV_GPR_MAX] = { c->rax, c->rcx, c->rdx, c->rbx, c->rsp, c->rbp, c->rsi,
        c->rdi, c->r8, c->r9, c->r10, c->r11, c->r12, c->r13, c->r14, c->r15 };

    memcpy(r->gpr, gpr, sizeof gpr);
    r->rip = c->rip;
    r->rflags = c->rflags;
    r->cs = segment(c->cs_sel, c->cs_limit, c->cs_arbytes, c->cs_base);
    r->ds = segment(c->ds_sel, c->ds_limit, c->ds_arbytes, c->ds_base);
    r->es = segment(c->es_sel, c->es_limit, c->es_arbytes, c->es_base);
    r->fs = segment(c->fs_sel, c->fs_limit, c->fs_arbytes, c->fs_base);
    r->gs = segment(c->gs_sel, c->gs_limit, c->gs_arbytes, c->gs_base);
    r->ss = segment(c->ss_sel, c->ss_limit, c->ss_arbytes, c->ss_base);
    r->ldt = segment(c->ldtr_sel, c->ldtr_limit, c->ldtr_arbytes, c->ldtr_base);
    r->tr = segment(c->tr_sel, c->tr_limit, c->tr_arbytes, c->tr_base);
    r->gdt = (struct hv_segment){ .limit = c->gdtr_limit, .base = c->gdtr_base };
    r->idt = (struct hv_segment){ .limit = c->idtr_limit, .base = c->idtr_base };
    r->cr[0] = c->cr0;
    r->cr[2] = c->cr2;
    r->cr[3] = c->cr3;
    r->cr[4] = c->cr4;
    r->kernel_gs_base = c->shadow_gs;
}

static int take_registers(
    struct hv_mig *m, const struct xen_blob *b, struct hv_registers *list, struct err *e)
{
    struct xen_context_entry entry;
    size_t at = 0;
    int r;

    while ((r = xen_context_next(b->context, b->context_len, &at, &entry, e)) == 1) {
        struct hvm_hw_cpu c;

        if (entry.type != HVM_SAVE_CODE(CPU) || entry.instance >= m->vcpus || entry.len < sizeof c)
            continue;
        memcpy(&c, entry.body, sizeof c);
        fill_registers(&list[entry.instance], &c);
    }
    return r;
}

/* A vCPU that is not up has no registers: they are all zero. */
int xen_mig_registers(struct hv_mig *m, struct hv_registers **list, unsigned *n, struct err *e)
{
    struct xen_blob *b = calloc(1, sizeof *b);

    *n = m->vcpus;
    *list = calloc(m->vcpus, sizeof **list);
    if (b == NULL || *list == NULL)
        err_set(e, ERR_MEMORY, "out of memory for registers");
    else if (save_context(m, b, e) == 0 && take_registers(m, b, *list, e) == 0) {
        xen_blob_free(&b);
        return 0;
    }
    xen_blob_free(&b);
    free(*list);
    *list = NULL;
    *n = 0;
    return -1;
}
