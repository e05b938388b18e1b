/* SPDX-License-Identifier: ISC */
/*
 * One side of a migration. Guest memory is the domain's memfd, mapped here once as a
 * whole: mig_map only computes addresses. Dirty bitmaps come through a second memfd that
 * the domain's process fills; this side is the only client, and both touch it in turns
 * that requests and replies order.
 *
 * On the target `touched` has a bit for each page that may hold something: what the memfd
 * had when it was opened, and what was mapped for writing since. A page without the bit
 * is a hole, or part of a huge page that the kernel zeroed, so mig_zero leaves it alone.
 * With huge pages the domain is told at the end which pages were written here: it cannot
 * see that, and a later migration away from there asks it what is populated.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <linux/memfd.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "hypervisor/xvm/driver_internal.h"

struct hv_mig {
    struct xvm_client c;
    enum hv_side side;
    char uuid[HV_UUID_LEN];
    struct hv_layout layout;
    uint64_t offset[HV_MAX_REGIONS]; /* of each region in the memfd */
    bool huge_pages;
    int ram_fd;
    uint8_t *ram;
    uint64_t ram_len;
    uint64_t *shared; /* mapped bitmap, HV_BITMAP_WORDS */
    _Atomic uint64_t *touched;
};

static size_t bitmap_bytes(const struct hv_mig *m)
{
    return HV_BITMAP_WORDS(m->layout.max_gfn) * sizeof(uint64_t);
}

static int call_fd(struct hv_mig *m, Migrd__Xvm__Op op, uint64_t epoch, uint64_t value, int fd_in,
    Migrd__Xvm__Reply **reply, int *fd_out, struct err *e)
{
    Migrd__Xvm__Request q = MIGRD__XVM__REQUEST__INIT;

    q.op = op;
    q.epoch = epoch;
    q.value = value;
    return xvm_call(&m->c, &q, fd_in, reply, fd_out, HV_CALL_TIMEOUT_MS, e);
}

static int call(struct hv_mig *m, Migrd__Xvm__Op op, uint64_t epoch, uint64_t value, struct err *e)
{
    return call_fd(m, op, epoch, value, -1, NULL, NULL, e);
}

/* The layout comes from our own process, but is checked: a memfd is mapped by it. */
static int take_layout(struct hv_mig *m, const Migrd__Xvm__Layout *l, struct err *e)
{
    uint64_t next = 0;

    if (l == NULL || l->n_regions == 0 || l->n_regions > HV_MAX_REGIONS)
        return err_set(e, ERR_PROTOCOL, "xvm-domain: no memory layout");
    m->layout.n = (unsigned)l->n_regions;
    m->layout.max_gfn = l->max_gfn;
    m->huge_pages = l->huge_pages;
    for (unsigned i = 0; i < m->layout.n; i++) {
        const Migrd__Xvm__Region *r = l->regions[i];

        if (r->gfn < next || r->pages == 0 || r->pages > l->max_gfn + 1 ||
            r->gfn > l->max_gfn + 1 - r->pages || r->offset != m->ram_len)
            return err_set(e, ERR_PROTOCOL, "xvm-domain: malformed memory layout");
        next = r->gfn + r->pages;
        m->layout.region[i] = (struct hv_region){ r->gfn, r->pages };
        m->offset[i] = r->offset;
        m->ram_len += r->pages << HV_PAGE_SHIFT;
    }
    return 0;
}

static void *map_fd(int fd, uint64_t len, const char *what, struct err *e)
{
    struct stat st;
    void *p;

    if (fd < 0 || fstat(fd, &st) < 0 || (uint64_t)st.st_size < len) {
        err_set(e, ERR_PROTOCOL, "xvm-domain: its %s is missing or too short", what);
        return NULL;
    }
    p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        err_sys(e, "mapping the %s", what);
        return NULL;
    }
    return p;
}

static int open_ram(struct hv_mig *m, struct err *e)
{
    Migrd__Xvm__Reply *r = NULL;
    int rc;

    if (call_fd(m, MIGRD__XVM__OP__OP_MIG_OPEN, 0, m->side, -1, &r, &m->ram_fd, e) < 0)
        return -1;
    rc = take_layout(m, r->layout, e);
    migrd__xvm__reply__free_unpacked(r, NULL);
    if (rc < 0)
        return -1;
    m->ram = map_fd(m->ram_fd, m->ram_len, "memory", e);
    if (m->ram == NULL)
        return -1;
    if (!m->huge_pages)
        madvise(m->ram, m->ram_len, MADV_HUGEPAGE); /* granted where shmem_enabled says so */
    return 0;
}

static int open_bitmaps(struct hv_mig *m, struct err *e)
{
    int fd = -1;

    if (call_fd(m, MIGRD__XVM__OP__OP_MIG_BITMAP, 0, 0, -1, NULL, &fd, e) < 0)
        return -1;
    m->shared = map_fd(fd, bitmap_bytes(m), "dirty bitmap", e);
    io_close(&fd);
    if (m->shared == NULL)
        return -1;
    memset(m->shared, 0, bitmap_bytes(m));
    m->touched = calloc(1, bitmap_bytes(m));
    if (m->touched == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for a bitmap");
    return m->side == HV_TARGET ? driver_mig_populated(m, (uint64_t *)m->touched, e) : 0;
}

int driver_mig_open(
    struct hv *hv, const char *uuid, enum hv_side side, struct hv_mig **out, struct err *e)
{
    struct hv_mig *m = calloc(1, sizeof *m);
    char dir[RUNDIR_LEN];

    *out = NULL;
    if (m == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    m->ram_fd = -1;
    m->side = side;
    memcpy(m->uuid, uuid, strnlen(uuid, sizeof m->uuid - 1));
    driver_dir(hv, uuid, dir);
    if (xvm_connect(&m->c, dir, e) < 0 || open_ram(m, e) < 0 || open_bitmaps(m, e) < 0) {
        driver_mig_close(&m);
        return -1;
    }
    *out = m;
    return 0;
}

void driver_mig_close(struct hv_mig **mp)
{
    struct hv_mig *m = *mp;

    if (m == NULL)
        return;
    *mp = NULL;
    xvm_disconnect(&m->c);
    if (m->ram != NULL)
        munmap(m->ram, m->ram_len);
    if (m->shared != NULL)
        munmap(m->shared, bitmap_bytes(m));
    io_close(&m->ram_fd);
    free((void *)m->touched);
    free(m);
}

int driver_mig_layout(struct hv_mig *m, struct hv_layout *out, struct err *e)
{
    (void)e;
    *out = m->layout;
    return 0;
}

static void take_shared(struct hv_mig *m, uint64_t *bitmap)
{
    size_t words = HV_BITMAP_WORDS(m->layout.max_gfn);

    for (size_t i = 0; i < words; i++) {
        bitmap[i] |= m->shared[i];
        m->shared[i] = 0;
    }
}

/* Bits [from, from + n), whole words where possible. */
static void set_bits(uint64_t *bitmap, uint64_t from, uint64_t n)
{
    uint64_t end = from + n;

    while (from < end) {
        uint64_t bit = from & 63, in_word = 64 - bit < end - from ? 64 - bit : end - from;

        bitmap[from >> 6] |= (in_word == 64 ? ~UINT64_C(0) : (UINT64_C(1) << in_word) - 1) << bit;
        from += in_word;
    }
}

static int populated_region(struct hv_mig *m, unsigned i, uint64_t *bitmap, struct err *e)
{
    const struct hv_region *r = &m->layout.region[i];
    off_t at = (off_t)m->offset[i], end = at + (off_t)(r->pages << HV_PAGE_SHIFT);

    while (at < end) {
        off_t data = lseek(m->ram_fd, at, SEEK_DATA), hole;
        uint64_t from, to;

        if (data < 0 && errno == ENXIO)
            return 0; /* nothing but hole from here on */
        if (data < 0)
            return err_sys(e, "domain %s: looking for its used memory", m->uuid);
        if (data >= end)
            return 0;
        hole = lseek(m->ram_fd, data, SEEK_HOLE);
        if (hole < 0 || hole > end)
            hole = end;
        from = (uint64_t)(data - (off_t)m->offset[i]) >> HV_PAGE_SHIFT;
        to = ((uint64_t)(hole - (off_t)m->offset[i]) + HV_PAGE_SIZE - 1) >> HV_PAGE_SHIFT;
        set_bits(bitmap, r->gfn + from, to - from);
        at = hole;
    }
    return 0;
}

/* hugetlbfs does not tell holes from data: a source's domain knows its own, a target's memory is
 * known only before its first page. */
static int populated_huge(struct hv_mig *m, uint64_t *bitmap, struct err *e)
{
    struct err why = { 0 };
    struct stat st;

    if (m->side == HV_TARGET && fstat(m->ram_fd, &st) == 0 && st.st_blocks == 0)
        return 0;
    if (m->side != HV_TARGET && call(m, MIGRD__XVM__OP__OP_POPULATED, 0, 0, &why) == 0) {
        take_shared(m, bitmap);
        return 0;
    }
    if (why.code != ERR_NONE && why.code != ERR_UNSUPPORTED) /* it may be of an older release */
        return err_set(e, why.code, "%s", why.text);
    for (unsigned i = 0; i < m->layout.n; i++)
        set_bits(bitmap, m->layout.region[i].gfn, m->layout.region[i].pages);
    return 0;
}

int driver_mig_populated(struct hv_mig *m, uint64_t *bitmap, struct err *e)
{
    memset(bitmap, 0, bitmap_bytes(m));
    if (m->huge_pages)
        return populated_huge(m, bitmap, e);
    for (unsigned i = 0; i < m->layout.n; i++)
        if (populated_region(m, i, bitmap, e) < 0)
            return -1;
    return 0;
}

/* NULL if [gfn, gfn + n) is not wholly RAM. */
static uint8_t *address(const struct hv_mig *m, uint64_t gfn, uint64_t n)
{
    for (unsigned i = 0; i < m->layout.n; i++) {
        const struct hv_region *r = &m->layout.region[i];

        if (gfn >= r->gfn && gfn - r->gfn < r->pages && n <= r->pages - (gfn - r->gfn))
            return m->ram + m->offset[i] + ((gfn - r->gfn) << HV_PAGE_SHIFT);
    }
    return NULL;
}

static void touch(struct hv_mig *m, uint64_t gfn)
{
    uint64_t bit = UINT64_C(1) << (gfn & 63);

    if ((atomic_load_explicit(&m->touched[gfn >> 6], memory_order_relaxed) & bit) == 0)
        atomic_fetch_or_explicit(&m->touched[gfn >> 6], bit, memory_order_relaxed);
}

int driver_mig_map(struct hv_mig *m, const uint64_t *gfn, size_t n, bool write,
    struct hv_mapping *map, struct err *e)
{
    if (n > HV_BATCH_PAGES)
        return err_set(e, ERR_INVALID, "mapping of %zu pages; at most %u", n, HV_BATCH_PAGES);
    if (write && m->side != HV_TARGET)
        return err_set(e, ERR_STATE, "domain %s: the source's memory is not for writing", m->uuid);
    for (size_t i = 0; i < n; i++) {
        map->page[i] = address(m, gfn[i], 1);
        if (map->page[i] == NULL)
            return err_set(
                e, ERR_INVALID, "domain %s: frame 0x%" PRIx64 " is not memory", m->uuid, gfn[i]);
        if (write)
            touch(m, gfn[i]);
    }
    map->n = n;
    map->driver = NULL;
    return 0;
}

void driver_mig_unmap(struct hv_mig *m, struct hv_mapping *map)
{
    (void)m;
    map->n = 0;
}

int driver_mig_zero(struct hv_mig *m, uint64_t gfn, uint64_t n, struct err *e)
{
    uint8_t *p = address(m, gfn, n);

    if (p == NULL || m->side != HV_TARGET)
        return err_set(e, ERR_INVALID,
            "domain %s: frames 0x%" PRIx64 " + %" PRIu64 " are not a target's memory", m->uuid, gfn,
            n);
    for (uint64_t i = 0; i < n; i++, p += HV_PAGE_SIZE) {
        uint64_t g = gfn + i,
                 word = atomic_load_explicit(&m->touched[g >> 6], memory_order_relaxed);

        if ((word >> (g & 63) & 1) != 0)
            memset(p, 0, HV_PAGE_SIZE);
    }
    return 0;
}

int driver_dirty_start(struct hv_mig *m, struct err *e)
{
    return call(m, MIGRD__XVM__OP__OP_DIRTY_START, 0, 0, e);
}

int driver_dirty_collect(struct hv_mig *m, uint64_t *bitmap, struct err *e)
{
    if (call(m, MIGRD__XVM__OP__OP_DIRTY_COLLECT, 0, 0, e) < 0)
        return -1;
    take_shared(m, bitmap);
    return 0;
}

int driver_dirty_peek(struct hv_mig *m, uint64_t *bitmap, struct err *e)
{
    if (call(m, MIGRD__XVM__OP__OP_DIRTY_PEEK, 0, 0, e) < 0)
        return -1;
    take_shared(m, bitmap);
    return 0;
}

int driver_dirty_give_back(struct hv_mig *m, const uint64_t *bitmap, struct err *e)
{
    memcpy(m->shared, bitmap, bitmap_bytes(m));
    return call(m, MIGRD__XVM__OP__OP_DIRTY_GIVE_BACK, 0, 0, e);
}

int driver_dirty_stop(struct hv_mig *m, struct err *e)
{
    return call(m, MIGRD__XVM__OP__OP_DIRTY_STOP, 0, 0, e);
}

int driver_mig_pause(struct hv_mig *m, uint64_t epoch, struct err *e)
{
    return call(m, MIGRD__XVM__OP__OP_MIG_PAUSE, epoch, 0, e);
}

int driver_mig_resume(struct hv_mig *m, uint64_t epoch, struct err *e)
{
    return call(m, MIGRD__XVM__OP__OP_MIG_RESUME, epoch, 0, e);
}

/* Bytes that come in a memfd: state, registers. */
static int call_bytes(
    struct hv_mig *m, Migrd__Xvm__Op op, uint8_t **blob, size_t *len, struct err *e)
{
    Migrd__Xvm__Reply *r = NULL;
    int fd = -1, rc = -1;

    *blob = NULL;
    *len = 0;
    if (call_fd(m, op, 0, 0, -1, &r, &fd, e) < 0)
        return -1;
    if (fd < 0 || r->value > HV_STATE_MAX)
        err_set(e, ERR_PROTOCOL, "xvm-domain: state without bytes");
    else if ((*blob = malloc((size_t)r->value + 1)) == NULL)
        err_set(e, ERR_MEMORY, "out of memory for the domain's state");
    else if (pread(fd, *blob, (size_t)r->value, 0) != (ssize_t)r->value)
        err_set(e, ERR_PROTOCOL, "xvm-domain: state is cut short");
    else
        rc = 0;
    *len = rc == 0 ? (size_t)r->value : 0;
    if (rc < 0) {
        free(*blob);
        *blob = NULL;
    }
    migrd__xvm__reply__free_unpacked(r, NULL);
    io_close(&fd);
    return rc;
}

int driver_state_save(struct hv_mig *m, uint8_t **blob, size_t *len, struct err *e)
{
    return call_bytes(m, MIGRD__XVM__OP__OP_STATE_SAVE, blob, len, e);
}

int driver_mig_registers(
    struct hv_mig *m, struct hv_registers **list, unsigned *n, struct err *e)
{
    uint8_t *bytes;
    size_t len;

    *list = NULL;
    *n = 0;
    if (call_bytes(m, MIGRD__XVM__OP__OP_REGISTERS, &bytes, &len, e) < 0)
        return -1;
    if (len == 0 || len % sizeof **list != 0) {
        free(bytes);
        return err_set(e, ERR_PROTOCOL, "domain %s: registers of another release of xvm-domain; "
                                        "restart the domain, or move it", m->uuid);
    }
    *list = (struct hv_registers *)(void *)bytes; /* malloc'ed: aligned for anything */
    *n = (unsigned)(len / sizeof **list);
    return 0;
}

static int call_load(struct hv_mig *m, size_t len, int fd, struct err *e)
{
    Migrd__Xvm__Request q = MIGRD__XVM__REQUEST__INIT;

    q.op = MIGRD__XVM__OP__OP_STATE_LOAD;
    q.value = len;
    q.filled = m->huge_pages;
    if (m->huge_pages)
        memcpy(m->shared, (const void *)m->touched, bitmap_bytes(m));
    return xvm_call(&m->c, &q, fd, NULL, NULL, HV_CALL_TIMEOUT_MS, e);
}

int driver_state_load(struct hv_mig *m, const uint8_t *blob, size_t len, struct err *e)
{
    int fd, rc;

    if (len > HV_STATE_MAX)
        return err_set(e, ERR_INVALID, "state of %zu bytes; at most %u", len, HV_STATE_MAX);
    fd = memfd_create("xvm-state", MFD_CLOEXEC);
    if (fd < 0)
        return err_sys(e, "memfd_create");
    rc = io_write_full(fd, blob, len, IO_FOREVER, e);
    if (rc == 0)
        rc = call_load(m, len, fd, e);
    close(fd);
    return rc;
}

int driver_throttle(struct hv_mig *m, unsigned percent, struct err *e)
{
    return call(m, MIGRD__XVM__OP__OP_THROTTLE, 0, percent, e);
}
