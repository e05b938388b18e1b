/* SPDX-License-Identifier: ISC */
/*
 * Guest memory: one memfd, mapped once. Its first 3 GiB are at guest-physical 0, the
 * rest is at 4 GiB, so that devices and the APICs have the gap. The memfd is sealed
 * against a change of size: who maps it cannot be made to fault by truncation. What the
 * guest never touched is a hole, which is what a migration skips.
 *
 * hugetlbfs does not tell holes from data. There a page is taken for populated if it is
 * in our page tables (the guest, KVM and the devices all write through our mapping) or if
 * a migration's client said that it wrote it. The file's own count of pages is the check:
 * where it disagrees, all pages are taken for populated.
 *
 * Without hugetlbfs transparent huge pages are asked for: the kernel grants them where
 * transparent_hugepage/shmem_enabled is advise, within_size or always.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "hypervisor/xvm/machine_internal.h"

#define RAM_MIN (UINT64_C(4) << 20)
#define RAM_MAX (UINT64_C(4) << 40)
#define HUGE_PAGE (UINT64_C(2) << 20)
#define HUGE_FRAMES (HUGE_PAGE / HV_PAGE_SIZE)
#define LOOK_AT 16u /* huge pages of one mincore */
#define TRIES 3     /* the guest may populate more while we count */

static int check_size(const struct machine *m, struct err *e)
{
    uint64_t unit = m->def->huge_pages ? HUGE_PAGE : HV_PAGE_SIZE;

    if (m->ram_len < RAM_MIN || m->ram_len > RAM_MAX || m->ram_len % unit != 0)
        return err_set(e, ERR_INVALID,
            "domain %s: memory of %llu KiB: choose a multiple of %llu KiB from %llu up",
            m->def->name, (unsigned long long)(m->ram_len >> 10), (unsigned long long)(unit >> 10),
            (unsigned long long)(RAM_MIN >> 10));
    return 0;
}

static void lay_out(struct machine *m)
{
    uint64_t low = m->ram_len < RAM_LOW_MAX ? m->ram_len : RAM_LOW_MAX;

    m->region[0] = (struct ram_region){ 0, low, 0 };
    m->n_regions = 1;
    m->max_gfn = (low >> HV_PAGE_SHIFT) - 1;
    if (m->ram_len > low) {
        m->region[1] = (struct ram_region){ RAM_HIGH_BASE, m->ram_len - low, low };
        m->n_regions = 2;
        m->max_gfn = ((RAM_HIGH_BASE + m->ram_len - low) >> HV_PAGE_SHIFT) - 1;
    }
}

static int no_memory(const struct machine *m, struct err *e)
{
    return err_set(e, ERR_MEMORY, "domain %s: this host cannot give %llu MiB of %smemory%s",
        m->def->name, (unsigned long long)(m->ram_len >> 20),
        m->def->huge_pages ? "huge-page " : "",
        m->def->huge_pages ? "; raise vm.nr_hugepages" : "");
}

int ram_create(struct machine *m, struct err *e)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;

    m->ram_len = (m->def->max_memory_kib ? m->def->max_memory_kib : m->def->memory_kib) << 10;
    if (check_size(m, e) < 0)
        return -1;
    lay_out(m);
    if (m->def->huge_pages)
        flags |= MFD_HUGETLB | MFD_HUGE_2MB;
    m->ram_fd = memfd_create("xvm-ram", flags);
    if (m->ram_fd < 0)
        return err_sys(e, "domain %s: memory", m->def->name);
    if (ftruncate(m->ram_fd, (off_t)m->ram_len) < 0)
        return no_memory(m, e);
    if (fcntl(m->ram_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return err_sys(e, "domain %s: sealing its memory", m->def->name);
    m->ram = mmap(NULL, m->ram_len, PROT_READ | PROT_WRITE, MAP_SHARED, m->ram_fd, 0);
    if (m->ram == MAP_FAILED) {
        m->ram = NULL;
        return no_memory(m, e);
    }
    madvise(m->ram, m->ram_len, MADV_DONTDUMP);
    if (!m->def->huge_pages)
        madvise(m->ram, m->ram_len, MADV_HUGEPAGE);
    return 0;
}

void ram_free(struct machine *m)
{
    if (m->ram != NULL)
        munmap(m->ram, m->ram_len);
    m->ram = NULL;
    io_close(&m->ram_fd);
    free(m->filled);
    m->filled = NULL;
}

void ram_leave(struct machine *m)
{
    m->ram = NULL;
    m->ram_fd = -1;
}

uint64_t ram_populated_kib(const struct machine *m)
{
    struct stat st;

    return fstat(m->ram_fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks / 2;
}

/* --- what is populated, with huge pages --- */

static bool was_filled(const struct machine *m, uint64_t page)
{
    return m->filled != NULL && (m->filled[page >> 6] >> (page & 63) & 1) != 0;
}

static uint64_t *words_of(uint64_t *bitmap, const struct ram_region *r, uint64_t at)
{
    return bitmap + ((r->gpa + at) >> HV_PAGE_SHIFT >> 6);
}

/* Returns how many huge pages of the region are populated, as far as we know. */
static uint64_t mark_region(const struct machine *m, const struct ram_region *r, uint64_t *bitmap)
{
    unsigned char there[LOOK_AT * HUGE_FRAMES];
    uint64_t n = 0;

    for (uint64_t at = 0; at < r->len; at += HUGE_PAGE) {
        uint64_t i = at / HUGE_PAGE % LOOK_AT;
        uint64_t len =
            r->len - at < sizeof there * HV_PAGE_SIZE ? r->len - at : sizeof there * HV_PAGE_SIZE;

        if (i == 0 && mincore(m->ram + r->offset + at, len, there) < 0)
            memset(there, 0, sizeof there); /* the file's count will tell */
        if ((there[i * HUGE_FRAMES] & 1) == 0 && !was_filled(m, (r->offset + at) / HUGE_PAGE))
            continue;
        memset(words_of(bitmap, r, at), 0xff, HUGE_FRAMES / 8);
        n++;
    }
    return n;
}

void ram_populated(const struct machine *m, uint64_t *bitmap)
{
    const size_t bytes = HV_BITMAP_WORDS(m->max_gfn) * sizeof *bitmap;

    for (unsigned t = 0; t < TRIES; t++) {
        uint64_t kib = ram_populated_kib(m), n = 0;

        memset(bitmap, 0, bytes);
        for (unsigned i = 0; i < m->n_regions; i++)
            n += mark_region(m, &m->region[i], bitmap);
        if (n * (HUGE_PAGE >> 10) == kib && ram_populated_kib(m) == kib)
            return;
    }
    for (unsigned i = 0; i < m->n_regions; i++)
        memset(words_of(bitmap, &m->region[i], 0), 0xff,
            (size_t)(m->region[i].len / HV_PAGE_SIZE / 8));
}

int ram_take_filled(struct machine *m, const uint64_t *bitmap, struct err *e)
{
    const size_t words = (size_t)(m->ram_len / HUGE_PAGE / 64 + 1);

    if (m->filled == NULL && (m->filled = calloc(words, sizeof *m->filled)) == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory for a bitmap", m->def->name);
    for (unsigned i = 0; i < m->n_regions; i++) {
        const struct ram_region *r = &m->region[i];
        const uint64_t *w = bitmap + (r->gpa >> HV_PAGE_SHIFT >> 6);

        for (uint64_t at = 0; at < r->len; at += HUGE_PAGE) {
            uint64_t any = 0, page = (r->offset + at) / HUGE_PAGE;

            for (unsigned k = 0; k < HUGE_FRAMES / 64; k++)
                any |= *w++;
            if (any != 0)
                m->filled[page >> 6] |= UINT64_C(1) << (page & 63);
        }
    }
    return 0;
}

static const struct ram_region *find(const struct machine *m, uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < m->n_regions; i++) {
        const struct ram_region *r = &m->region[i];

        if (gpa >= r->gpa && gpa - r->gpa < r->len && len <= r->len - (gpa - r->gpa))
            return r;
    }
    return NULL;
}

void *machine_ram(struct machine *m, uint64_t gpa, uint64_t len)
{
    const struct ram_region *r = find(m, gpa, len);

    return r == NULL ? NULL : m->ram + r->offset + (gpa - r->gpa);
}

void machine_discard(struct machine *m, uint64_t gpa, uint64_t len)
{
    const struct ram_region *r = find(m, gpa, len);

    if (r == NULL)
        return;
    if (fallocate(m->ram_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
            (off_t)(r->offset + (gpa - r->gpa)), (off_t)len) < 0)
        log_debug("xvm", "%s: giving back %llu bytes of memory: errno %d", m->def->name,
            (unsigned long long)len, errno);
    machine_dirty(m, gpa, len); /* its content changed to zeroes */
}
