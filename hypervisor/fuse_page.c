/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "hypervisor/fuse_page.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "hypervisor/rundir.h"

#define LOOK_MS 1000u /* a writer may die before it wakes the watcher */
#define PATH_LEN (RUNDIR_LEN + 32)

int fuse_file_make(const char *dir, const char *name, const void *start, size_t len, struct err *e)
{
    char path[PATH_LEN];
    int fd, r;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, "%s", path);
    r = posix_fallocate(fd, 0, FUSE_PAGE_LEN); /* a hole could become a SIGBUS on a full disk */
    if (r != 0)
        err_set(e, ERR_SYSTEM, "%s: %s", path, strerror(r));
    else
        r = io_write_full(fd, start, len, IO_FOREVER, e);
    close(fd);
    return r != 0 ? -1 : 0;
}

void *fuse_file_map(const char *dir, const char *name, uint64_t magic, bool writing)
{
    int prot = writing ? PROT_READ | PROT_WRITE : PROT_READ;
    char path[PATH_LEN];
    uint64_t *p = NULL;
    struct stat st;
    void *at;
    int fd;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    fd = open(path, (writing ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= FUSE_PAGE_LEN) {
        at = mmap(NULL, FUSE_PAGE_LEN, prot, MAP_SHARED | MAP_POPULATE, fd, 0);
        p = at != MAP_FAILED ? at : NULL;
    }
    close(fd);
    if (p != NULL && *p != magic) {
        munmap(p, FUSE_PAGE_LEN);
        p = NULL;
    }
    return p;
}

int fuse_page_make(const char *dir, struct err *e)
{
    const struct fuse_page page = { .magic = FUSE_MAGIC };

    return fuse_file_make(dir, FUSE_FILE, &page, sizeof page, e);
}

struct fuse_page *fuse_page_map(const char *dir, bool writing)
{
    return fuse_file_map(dir, FUSE_FILE, FUSE_MAGIC, writing);
}

void fuse_page_wake(struct fuse_page *p)
{
    atomic_fetch_add(&p->turn, 1);
    syscall(SYS_futex, &p->turn, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void fuse_page_wait(const struct fuse_page *p, uint32_t turn, unsigned ms)
{
    struct timespec ts = { ms / 1000, (long)(ms % 1000) * (long)NS_PER_MS };

    syscall(SYS_futex, &p->turn, FUTEX_WAIT, turn, &ts, NULL, 0);
}

bool fuse_order_lit(struct fuse_order o, bool begun_blown, uint64_t epoch)
{
    if (o.epoch == 0)
        return !begun_blown;
    if (o.deadline == UINT64_MAX)
        return o.epoch <= epoch;
    return o.epoch == epoch && clock_boot_ms() < o.deadline;
}

static void since_text(uint64_t deadline_ms, char text[16])
{
    uint64_t now = clock_boot_ms(), wall = clock_wall_ns() / NS_PER_S;
    time_t then = (time_t)(wall - (now > deadline_ms ? (now - deadline_ms) / 1000 : 0));
    struct tm tm;

    localtime_r(&then, &tm);
    strftime(text, 16, "%H:%M:%S", &tm);
}

void fuse_order_reason(struct fuse_order o, uint64_t epoch, char *text, size_t size)
{
    char since[16];

    if (o.epoch == 0) {
        snprintf(text, size, "its fuse: the cluster has not let it run yet");
    } else if (o.epoch != epoch) {
        snprintf(text, size,
            "its fuse: the cluster lets epoch %" PRIu64 " run, this copy has epoch %" PRIu64,
            o.epoch, epoch);
    } else if (o.deadline == 0) {
        snprintf(text, size, "its fuse: the cluster has told this copy to stop");
    } else {
        since_text(o.deadline, since);
        snprintf(text, size,
            "its fuse: this host has had no lease of the cluster since %s; goes on when the "
            "cluster says so",
            since);
    }
}

unsigned fuse_order_sleep_ms(struct fuse_order o)
{
    uint64_t now = clock_boot_ms();

    if (o.epoch == 0 || o.deadline <= now || o.deadline - now > LOOK_MS)
        return LOOK_MS;
    return (unsigned)(o.deadline - now);
}
