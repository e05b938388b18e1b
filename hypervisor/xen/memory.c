/* SPDX-License-Identifier: ISC */
/*
 * Guest memory.
 *
 * Source: which frames hold something is asked of Xen in batches, until as many are found as the
 * domain has, unless it has all of its RAM anyhow; pages are mapped for each call and not kept,
 * since a guest may give a frame back and get another page for it meanwhile. A frame without a page
 * reads as zeroes.
 *
 * Target: nobody else touches the domain's memory, so what is mapped stays mapped. Where the guest
 * has all its memory, blocks of 2 MiB are allocated (as one page where Xen can) and
 * mapped when the first of their pages comes; else, and at the rims, page by page.
 * A frame that the source sends as zeroes is allocated as well: a hole is not memory. New
 * pages come zeroed from Xen, but for its debug builds, so they are looked at.
 */
#include "hypervisor/xen/pv.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "hypervisor/xen/stream.h"

#define BLOCK_ORDER 9
#define TYPE_BATCH 1024 /* of xc_get_pfn_type_batch */
#define FULL_SLACK                                                                                 \
    512 /* pages that a guest has given away for grants and its shared page, at most */

/* Pages that were mapped for one call only. */
struct transient {
    void *at;
    size_t n;
};

static const uint8_t zero_page[HV_PAGE_SIZE] __attribute__((aligned(HV_PAGE_SIZE)));

static bool bit(const uint64_t *bitmap, uint64_t i)
{
    return (bitmap[i >> 6] >> (i & 63) & 1) != 0;
}

static void set_bit(uint64_t *bitmap, uint64_t i)
{
    bitmap[i >> 6] |= UINT64_C(1) << (i & 63);
}

/* The bits of [from, end) that are in the word of `from`; *next: where the rest begins. */
static uint64_t word_of_range(uint64_t from, uint64_t end, uint64_t *next)
{
    uint64_t at = from & 63, n = 64 - at < end - from ? 64 - at : end - from;

    *next = from + n;
    return (n == 64 ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1) << at;
}

static void clear_bits(uint64_t *bitmap, uint64_t from, uint64_t end)
{
    for (uint64_t next; from < end; from = next)
        bitmap[from >> 6] &= ~word_of_range(from, end, &next);
}

static void set_bits(uint64_t *bitmap, uint64_t from, uint64_t end)
{
    for (uint64_t next; from < end; from = next)
        bitmap[from >> 6] |= word_of_range(from, end, &next);
}

void xen_mask_bitmap(const struct hv_mig *m, uint64_t *bitmap)
{
    uint64_t next = 0;

    for (unsigned i = 0; i < m->layout.n; i++) {
        clear_bits(bitmap, next, m->layout.region[i].gfn);
        next = m->layout.region[i].gfn + m->layout.region[i].pages;
    }
    clear_bits(bitmap, next, (uint64_t)xen_bitmap_words(m) * 64);
    clear_bits(bitmap, m->store_gfn, m->store_gfn + 1);
    clear_bits(bitmap, m->console_gfn, m->console_gfn + 1);
}

/* --- what is populated --- */

static int scan_batch(
    struct hv_mig *m, uint64_t gfn, unsigned n, uint64_t *bitmap, uint64_t *found, struct err *e)
{
    xen_pfn_t type[TYPE_BATCH];

    for (unsigned i = 0; i < n; i++)
        type[i] = gfn + i;
    if (xen_frame_types(m->xc, m->domid, n, type) < 0)
        return err_sys(e, "domain %s: asking for its frames from 0x%" PRIx64, m->uuid, gfn);
    for (unsigned i = 0; i < n; i++) {
        if (type[i] == XEN_DOMCTL_PFINFO_XTAB || type[i] == XEN_DOMCTL_PFINFO_BROKEN)
            continue;
        set_bit(bitmap, gfn + i);
        ++*found;
    }
    return 0;
}

static int scan_region(struct hv_mig *m, const struct hv_region *r, uint64_t all, uint64_t *bitmap,
    uint64_t *found, struct err *e)
{
    for (uint64_t at = 0; at < r->pages && *found < all; at += TYPE_BATCH) {
        uint64_t left = r->pages - at;

        if (scan_batch(m, r->gfn + at, left < TYPE_BATCH ? (unsigned)left : TYPE_BATCH, bitmap,
                found, e) < 0)
            return -1;
    }
    return 0;
}

static bool is_ram(const struct hv_region *r)
{
    return r->gfn == 0 || r->gfn >= XEN_SPECIAL_GFN + XEN_SPECIAL_PAGES;
}

/* ACPI tables and special pages, which stay as they were built: asked for once. */
static int scan_rims(struct hv_mig *m, uint64_t *found, struct err *e)
{
    if (m->rims != NULL)
        return 0;
    m->rims = calloc(xen_bitmap_words(m), sizeof *m->rims);
    if (m->rims == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for a bitmap");
    for (unsigned i = 0; i < m->layout.n; i++)
        if (!is_ram(&m->layout.region[i]) &&
            scan_region(m, &m->layout.region[i], UINT64_MAX, m->rims, found, e) < 0) {
            free(m->rims);
            m->rims = NULL;
            return -1;
        }
    return 0;
}

static uint64_t count_ram(const struct hv_mig *m)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < m->layout.n; i++)
        n += is_ram(&m->layout.region[i]) ? m->layout.region[i].pages : 0;
    return n;
}

/* All RAM counts as populated where about as many pages are there: asking for each takes longer
 * than sending the few that are not as zeroes. */
static int scan_all(struct hv_mig *m, uint64_t *bitmap, struct err *e)
{
    uint64_t found = 0;
    xc_domaininfo_t d;
    bool full;

    if (xen_domain_facts(m->xc, m->domid, &d) < 0)
        return err_sys(e, "domain %s", m->uuid);
    if (scan_rims(m, &found, e) < 0)
        return -1;
    memcpy(bitmap, m->rims, xen_bitmap_words(m) * sizeof *bitmap);
    full = d.tot_pages + FULL_SLACK >= count_ram(m);
    for (unsigned i = 0; i < m->layout.n; i++) {
        const struct hv_region *r = &m->layout.region[i];

        if (is_ram(r) && full)
            set_bits(bitmap, r->gfn, r->gfn + r->pages);
        else if (is_ram(r) && scan_region(m, r, d.tot_pages, bitmap, &found, e) < 0)
            return -1;
    }
    return 0;
}

int xen_mig_populated(struct hv_mig *m, uint64_t *bitmap, struct err *e)
{
    int rc;

    if (m->pv != NULL)
        return xen_pv_populated(m, bitmap);
    memset(bitmap, 0, xen_bitmap_words(m) * sizeof *bitmap);
    pthread_mutex_lock(&m->lock);
    rc = scan_all(m, bitmap, e);
    pthread_mutex_unlock(&m->lock);
    if (rc == 0)
        xen_mask_bitmap(m, bitmap);
    return rc;
}

/* --- mapping --- */

static bool in_layout(const struct hv_mig *m, uint64_t gfn)
{
    if (gfn == m->store_gfn || gfn == m->console_gfn)
        return false;
    for (unsigned i = 0; i < m->layout.n; i++)
        if (gfn - m->layout.region[i].gfn < m->layout.region[i].pages)
            return true;
    return false;
}

static int map_each(struct hv_mig *m, const uint64_t *gfn, size_t n, bool write, int *error,
    void **at, struct err *e)
{
    xen_pfn_t frame[HV_BATCH_PAGES];

    for (size_t i = 0; i < n; i++)
        frame[i] = gfn[i];
    *at = xenforeignmemory_map(
        m->memory, m->domid, write ? PROT_READ | PROT_WRITE : PROT_READ, n, frame, error);
    if (*at == NULL)
        return err_sys(e, "domain %s: mapping %zu of its pages", m->uuid, n);
    return 0;
}

static int source_map(
    struct hv_mig *m, const uint64_t *gfn, size_t n, struct hv_mapping *map, struct err *e)
{
    int error[HV_BATCH_PAGES];
    void *at;

    if (map_each(m, gfn, n, false, error, &at, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        map->page[i] =
            error[i] == 0 ? (uint8_t *)at + i * HV_PAGE_SIZE : (uint8_t *)(uintptr_t)zero_page;
    map->driver = at;
    map->n = n;
    return 0;
}

/* --- a target's memory --- */

int xen_target_init(struct hv_mig *m, bool whole, struct err *e)
{
    struct xen_target *t = &m->target;

    t->n_blocks = (size_t)(m->layout.max_gfn / BLOCK_PAGES + 1);
    t->block = calloc(t->n_blocks, sizeof *t->block);
    t->populated = calloc(xen_bitmap_words(m), sizeof *t->populated);
    if (t->block == NULL || t->populated == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for the map of a domain");
    t->whole = whole;
    return scan_all(m, t->populated, e);
}

void xen_memory_free(struct hv_mig *m)
{
    struct xen_target *t = &m->target;

    for (size_t i = 0; t->block != NULL && i < t->n_blocks; i++)
        if (t->block[i] != NULL)
            xenforeignmemory_unmap(m->memory, t->block[i], BLOCK_PAGES);
    free((void *)t->block);
    free(t->populated);
    free(m->rims);
    m->rims = NULL;
    t->block = NULL;
    t->populated = NULL;
}

static int no_memory(const struct hv_mig *m, uint64_t gfn, struct err *e)
{
    return err_set(e, ERR_MEMORY,
        "domain %s: Xen gives no memory for its frame 0x%" PRIx64
        ": this host has too little free, or the domain's maximum is reached",
        m->uuid, gfn);
}

/* A block that lies in RAM as a whole and had nothing before. */
static bool is_whole_block(const struct hv_mig *m, uint64_t gfn)
{
    uint64_t first = gfn & ~(uint64_t)(BLOCK_PAGES - 1);

    if (!m->target.whole)
        return false;
    for (uint64_t g = first; g < first + BLOCK_PAGES; g += 64)
        if (g <= m->layout.max_gfn && m->target.populated[g >> 6] != 0)
            return false;
    for (unsigned i = 0; i < m->layout.n; i++) {
        const struct hv_region *r = &m->layout.region[i];

        if (first >= r->gfn && first + BLOCK_PAGES <= r->gfn + r->pages)
            return is_ram(r);
    }
    return false;
}

static int populate_block(struct hv_mig *m, uint64_t first, struct err *e)
{
    xen_pfn_t frame[BLOCK_PAGES];

    frame[0] = first;
    if (xc_domain_populate_physmap(m->xc, m->domid, 1, BLOCK_ORDER, 0, frame) == 1)
        return 0;
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        frame[i] = first + i;
    if (xc_domain_populate_physmap_exact(m->xc, m->domid, BLOCK_PAGES, 0, 0, frame) < 0)
        return no_memory(m, first, e);
    return 0;
}

static int make_block(struct hv_mig *m, uint64_t first, struct err *e)
{
    uint64_t gfn[BLOCK_PAGES];
    int error[BLOCK_PAGES];
    void *at;

    if (populate_block(m, first, e) < 0)
        return -1;
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        gfn[i] = first + i;
    if (map_each(m, gfn, BLOCK_PAGES, true, error, &at, e) < 0)
        return -1;
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        if (error[i] != 0) {
            xenforeignmemory_unmap(m->memory, at, BLOCK_PAGES);
            return no_memory(m, gfn[i], e);
        }
    atomic_store_explicit(&m->target.block[first / BLOCK_PAGES], at, memory_order_release);
    return 0;
}

/* NULL without an error: the page is in no block. */
static uint8_t *page_of_block(struct hv_mig *m, uint64_t gfn, int *rc, struct err *e)
{
    size_t b = gfn / BLOCK_PAGES;
    uint8_t *at = atomic_load_explicit(&m->target.block[b], memory_order_acquire);

    if (at == NULL) {
        pthread_mutex_lock(&m->lock);
        at = atomic_load_explicit(&m->target.block[b], memory_order_relaxed);
        if (at == NULL && is_whole_block(m, gfn)) {
            *rc = make_block(m, (uint64_t)b * BLOCK_PAGES, e);
            at = atomic_load_explicit(&m->target.block[b], memory_order_relaxed);
        }
        pthread_mutex_unlock(&m->lock);
    }
    return at != NULL ? at + (gfn % BLOCK_PAGES) * HV_PAGE_SIZE : NULL;
}

static int populate_each(struct hv_mig *m, const uint64_t *gfn, size_t n, struct err *e)
{
    xen_pfn_t frame[HV_BATCH_PAGES];
    size_t k = 0;
    int rc = 0;

    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < n; i++)
        if (!bit(m->target.populated, gfn[i])) {
            set_bit(m->target.populated, gfn[i]);
            frame[k++] = gfn[i];
        }
    if (k > 0 && xc_domain_populate_physmap_exact(m->xc, m->domid, k, 0, 0, frame) < 0)
        rc = no_memory(m, gfn[0], e);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

static int map_transient(
    struct hv_mig *m, const uint64_t *gfn, size_t n, struct transient *t, struct err *e)
{
    int error[HV_BATCH_PAGES];

    if (populate_each(m, gfn, n, e) < 0 || map_each(m, gfn, n, true, error, &t->at, e) < 0)
        return -1;
    t->n = n;
    for (size_t i = 0; i < n; i++)
        if (error[i] != 0) {
            xenforeignmemory_unmap(m->memory, t->at, n);
            return no_memory(m, gfn[i], e);
        }
    return 0;
}

static int map_rest(struct hv_mig *m, const uint64_t *gfn, const size_t *index, size_t n,
    struct hv_mapping *map, struct err *e)
{
    struct transient *t = malloc(sizeof *t);

    if (t == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    if (map_transient(m, gfn, n, t, e) < 0) {
        free(t);
        return -1;
    }
    for (size_t i = 0; i < n; i++)
        map->page[index[i]] = (uint8_t *)t->at + i * HV_PAGE_SIZE;
    map->driver = t;
    return 0;
}

static int target_map(
    struct hv_mig *m, const uint64_t *gfn, size_t n, struct hv_mapping *map, struct err *e)
{
    uint64_t rest[HV_BATCH_PAGES];
    size_t index[HV_BATCH_PAGES], k = 0;
    int rc = 0;

    for (size_t i = 0; i < n; i++) {
        map->page[i] = page_of_block(m, gfn[i], &rc, e);
        if (rc < 0)
            return -1;
        if (map->page[i] == NULL) {
            rest[k] = gfn[i];
            index[k++] = i;
        }
    }
    map->driver = NULL;
    map->n = n;
    return k == 0 ? 0 : map_rest(m, rest, index, k, map, e);
}

/* --- the contract --- */

int xen_mig_map(struct hv_mig *m, const uint64_t *gfn, size_t n, bool write, struct hv_mapping *map,
    struct err *e)
{
    if (m->pv != NULL)
        return xen_pv_map(m, gfn, n, write, map, e);
    if (n == 0 || n > HV_BATCH_PAGES)
        return err_set(e, ERR_INVALID, "mapping of %zu pages; 1 to %u", n, HV_BATCH_PAGES);
    if (write && m->side != HV_TARGET)
        return err_set(e, ERR_STATE, "domain %s: only a target's memory is written", m->uuid);
    for (size_t i = 0; i < n; i++)
        if (!in_layout(m, gfn[i]))
            return err_set(
                e, ERR_INVALID, "domain %s: frame 0x%" PRIx64 " is not memory", m->uuid, gfn[i]);
    return m->side == HV_TARGET ? target_map(m, gfn, n, map, e) : source_map(m, gfn, n, map, e);
}

void xen_mig_unmap(struct hv_mig *m, struct hv_mapping *map)
{
    struct transient *t = map->driver;

    if (m->pv != NULL) {
        xen_pv_unmap(m, map);
        return;
    }
    if (t != NULL && m->side != HV_TARGET)
        xenforeignmemory_unmap(m->memory, map->driver, map->n);
    if (t != NULL && m->side == HV_TARGET) {
        xenforeignmemory_unmap(m->memory, t->at, t->n);
        free(t);
    }
    map->driver = NULL;
    map->n = 0;
}

static void clear_page(uint8_t *page)
{
    uint64_t first;

    memcpy(&first, page, sizeof first);
    if (first != 0 || memcmp(page, page + 8, HV_PAGE_SIZE - 8) != 0)
        memset(page, 0, HV_PAGE_SIZE);
}

int xen_mig_zero(struct hv_mig *m, uint64_t gfn, uint64_t n, struct err *e)
{
    uint64_t list[BLOCK_PAGES];
    struct hv_mapping map;

    if (m->pv != NULL)
        return xen_pv_zero(m, gfn, n, e);
    for (uint64_t done = 0, k; done < n; done += k) {
        k = n - done < BLOCK_PAGES ? n - done : BLOCK_PAGES;
        for (uint64_t i = 0; i < k; i++)
            list[i] = gfn + done + i;
        if (xen_mig_map(m, list, (size_t)k, true, &map, e) < 0)
            return -1;
        for (uint64_t i = 0; i < k; i++)
            clear_page(map.page[i]);
        xen_mig_unmap(m, &map);
    }
    return 0;
}
