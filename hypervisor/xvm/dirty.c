/* SPDX-License-Identifier: ISC */
/*
 * The dirty log of one domain. Two sources: KVM's bitmap per memory slot (manual
 * protect: reading does not re-protect, a separate call does) and `device_dirty`, set by
 * device threads. A fetch ORs both into the shared bitmap that the migration's client
 * has mapped. With `forget`, in this order: read KVM's bits, write-protect and clear
 * exactly those, answer. A write that falls between reading and protecting hits a page
 * that is in the answer already and is read by the sender afterwards, so it is not lost.
 *
 * Slots start at multiples of 64 frames, so a slot's words are words of the whole
 * bitmap. Clearing goes in steps of CLEAR_PAGES: KVM holds its MMU lock during one call,
 * and vCPUs that fault wait for it. Bits given back go into device_dirty.
 *
 * The dirty ring is not used: on the kernels tried it moved no pause and no total time,
 * and a full ring stops the vCPU, which the bitmap never does.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/io.h"
#include "hypervisor/xvm/machine_internal.h"

#define CLEAR_PAGES (UINT64_C(1) << 18) /* 1 GiB */

static size_t bitmap_bytes(const struct machine *m)
{
    return HV_BITMAP_WORDS(m->max_gfn) * sizeof(uint64_t);
}

static int set_slots(struct machine *m, uint32_t flags, struct err *e)
{
    for (unsigned i = 0; i < m->n_regions; i++) {
        struct kvm_userspace_memory_region r = { .slot = i,
            .flags = flags,
            .guest_phys_addr = m->region[i].gpa,
            .memory_size = m->region[i].len,
            .userspace_addr = (uint64_t)(uintptr_t)(m->ram + m->region[i].offset) };

        if (ioctl(m->vm_fd, KVM_SET_USER_MEMORY_REGION, &r) < 0)
            return err_sys(e, "domain %s: dirty log of memory slot %u", m->def->name, i);
    }
    return 0;
}

int dirty_open_shared(struct machine *m, struct err *e)
{
    size_t len = bitmap_bytes(m);

    if (m->shared != NULL)
        return 0;
    m->shared_fd = memfd_create("xvm-dirty", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (m->shared_fd < 0 || ftruncate(m->shared_fd, (off_t)len) < 0)
        return err_sys(e, "domain %s: dirty bitmap", m->def->name);
    m->shared = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, m->shared_fd, 0);
    if (m->shared == MAP_FAILED) {
        m->shared = NULL;
        return err_sys(e, "domain %s: dirty bitmap", m->def->name);
    }
    return 0;
}

void dirty_free(struct machine *m)
{
    if (m->shared != NULL)
        munmap(m->shared, bitmap_bytes(m));
    m->shared = NULL;
    io_close(&m->shared_fd);
    free((void *)m->device_dirty);
    m->device_dirty = NULL;
    free(m->kvm_dirty);
    m->kvm_dirty = NULL;
}

int dirty_start(struct machine *m, struct err *e)
{
    if (atomic_load(&m->logging))
        return err_set(e, ERR_STATE, "domain %s: its dirty log is on already", m->def->name);
    memset((void *)m->device_dirty, 0, bitmap_bytes(m));
    atomic_store(&m->logging, true);
    if (set_slots(m, KVM_MEM_LOG_DIRTY_PAGES, e) < 0) {
        dirty_stop(m, NULL);
        return -1;
    }
    return 0;
}

int dirty_stop(struct machine *m, struct err *e)
{
    if (!atomic_load(&m->logging))
        return 0;
    atomic_store(&m->logging, false);
    return set_slots(m, 0, e);
}

static int clear_slot(struct machine *m, unsigned slot, uint64_t *words, struct err *e)
{
    uint64_t pages = m->region[slot].len >> HV_PAGE_SHIFT;

    for (uint64_t first = 0; first < pages; first += CLEAR_PAGES) {
        uint64_t n = pages - first < CLEAR_PAGES ? pages - first : CLEAR_PAGES;
        uint64_t any = 0;
        struct kvm_clear_dirty_log c = { .slot = slot,
            .num_pages = (uint32_t)n,
            .first_page = first,
            .dirty_bitmap = words + (first >> 6) };

        for (uint64_t w = first >> 6; w < (first + n + 63) >> 6; w++)
            any |= words[w];
        if (any != 0 && ioctl(m->vm_fd, KVM_CLEAR_DIRTY_LOG, &c) < 0)
            return err_sys(e, "domain %s: clearing the dirty log", m->def->name);
    }
    return 0;
}

static int fetch_slot(struct machine *m, unsigned slot, bool forget, struct err *e)
{
    const struct ram_region *r = &m->region[slot];
    uint64_t *to = m->shared + (r->gpa >> HV_PAGE_SHIFT >> 6);
    size_t words = (size_t)((r->len >> HV_PAGE_SHIFT) + 63) >> 6;
    struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = m->kvm_dirty };

    if (ioctl(m->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0)
        return err_sys(e, "domain %s: reading the dirty log", m->def->name);
    if (forget && clear_slot(m, slot, m->kvm_dirty, e) < 0)
        return -1;
    for (size_t i = 0; i < words; i++)
        to[i] |= m->kvm_dirty[i];
    return 0;
}

int dirty_fetch(struct machine *m, bool forget, struct err *e)
{
    size_t words = HV_BITMAP_WORDS(m->max_gfn);

    if (!atomic_load(&m->logging))
        return err_set(e, ERR_STATE, "domain %s: its dirty log is off", m->def->name);
    for (unsigned i = 0; i < m->n_regions; i++)
        if (fetch_slot(m, i, forget, e) < 0)
            return -1;
    for (size_t i = 0; i < words; i++) {
        uint64_t v = atomic_load_explicit(&m->device_dirty[i], memory_order_relaxed);

        if (v != 0)
            m->shared[i] |= forget ? atomic_exchange(&m->device_dirty[i], 0) : v;
    }
    return 0;
}

void dirty_give_back(struct machine *m)
{
    size_t words = HV_BITMAP_WORDS(m->max_gfn);

    for (size_t i = 0; i < words; i++) {
        if (m->shared[i] != 0)
            atomic_fetch_or(&m->device_dirty[i], m->shared[i]);
        m->shared[i] = 0;
    }
}

void machine_dirty(struct machine *m, uint64_t gpa, uint64_t len)
{
    uint64_t last;

    if (!atomic_load_explicit(&m->logging, memory_order_relaxed) || len == 0)
        return;
    last = (gpa + len - 1) >> HV_PAGE_SHIFT;
    for (uint64_t g = gpa >> HV_PAGE_SHIFT; g <= last && g <= m->max_gfn; g++)
        atomic_fetch_or(&m->device_dirty[g >> 6], UINT64_C(1) << (g & 63));
}
