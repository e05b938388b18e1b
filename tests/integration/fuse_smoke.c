/* SPDX-License-Identifier: ISC */
/*
 * fuse_smoke: the fuse of the bundled hypervisor, on real KVM: a guest that never stops by itself
 * (it spins, and writes to its memory) is run under deadlines. Says how late it stands still, by
 * the CPU time that its vCPUs still take after the deadline.
 *
 *   fuse_smoke KERNEL [name=value ...]
 *     cmdline=... vcpus=N blows=N disk=SOURCE file=PATH
 *     file: the disk as this machine sees it; it must not change under a blown fuse, and in the end
 *     the guest must have found all that it wrote on it.
 *
 * Exit status: 0 fine, 1 failed, 77 skipped (no /dev/kvm).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "hypervisor/hypervisor.h"

#define END_ALL exit
#include "tests/integration/smoke.h"

#define UUID "6f1de1a2-0c57-4d3a-9b0e-00000000f05e"
#define VCPUS_MAX 8
#define QUIET_MS 400 /* of CPU time that does not change: it stands still */

struct options {
    const char *kernel, *cmdline, *disk;
    unsigned vcpus, blows;
};

static const char *disk_file; /* NULL: none to look at */

static const struct hv_ops *ops;
static struct hv *hv;
static char base_dir[64];
static struct err e; /* of the last call */

static void parse(struct options *o, int argc, char **argv)
{
    static char kernel[PATH_MAX];

    *o = (struct options){ .kernel = realpath(argv[1], kernel) != NULL ? kernel : argv[1],
        .cmdline = "ws=16 rate=max idle=spin tick_ms=100 verify_s=0",
        .vcpus = 1,
        .blows = 10 };
    for (int i = 2; i < argc; i++) {
        char *v = strchr(argv[i], '=');

        if (v == NULL)
            continue;
        *v++ = '\0';
        if (strcmp(argv[i], "cmdline") == 0)
            o->cmdline = v;
        else if (strcmp(argv[i], "disk") == 0)
            o->disk = v;
        else if (strcmp(argv[i], "file") == 0)
            disk_file = v;
        else if (strcmp(argv[i], "vcpus") == 0)
            o->vcpus = (unsigned)atoi(v);
        else if (strcmp(argv[i], "blows") == 0)
            o->blows = (unsigned)atoi(v);
    }
}

static void open_hv(void)
{
    static char run[96], logs[96];
    struct hv_config cfg = { .run_dir = run, .log_dir = logs };

    snprintf(run, sizeof run, "%s/xvm", base_dir);
    snprintf(logs, sizeof logs, "%s/log", base_dir);
    if (ops->open(&cfg, &hv, &e) == 0)
        return;
    printf("%s %s\n", e.code == ERR_UNSUPPORTED ? "SKIP" : "FAIL", e.text);
    exit(e.code == ERR_UNSUPPORTED ? 77 : 1);
}

static struct hv_info info(void)
{
    struct hv_info i;

    DO(ops->info(hv, UUID, &i, &e));
    return i;
}

static bool runs(const struct hv_info *i)
{
    return i->state == HV_RUNNING || i->state == HV_BLOCKED;
}

static bool wait_state(bool running, bool blown, unsigned ms)
{
    uint64_t until = clock_ns() + ms * NS_PER_MS;

    do {
        struct hv_info i = info();

        if (running ? runs(&i) : i.state == HV_PAUSED && i.blown == blown)
            return true;
        usleep(1000);
    } while (clock_ns() < until);
    return false;
}

/* ---- CPU time of the vCPUs, straight from the kernel ---- */

struct threads {
    int fd[VCPUS_MAX];
    unsigned n;
};

static void open_threads(struct threads *t, int pid)
{
    char path[300], name[32];
    struct dirent *d;
    DIR *dir;

    t->n = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    dir = opendir(path);
    NEED("threads", dir != NULL);
    while ((d = readdir(dir)) != NULL && t->n < VCPUS_MAX) {
        FILE *f;

        snprintf(path, sizeof path, "/proc/%d/task/%s/comm", pid, d->d_name);
        f = fopen(path, "re");
        if (f == NULL)
            continue;
        if (fgets(name, sizeof name, f) != NULL && strncmp(name, "vcpu", 4) == 0) {
            snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, d->d_name);
            t->fd[t->n++] = open(path, O_RDONLY | O_CLOEXEC);
        }
        fclose(f);
    }
    closedir(dir);
}

static uint64_t cpu_ns(const struct threads *t)
{
    uint64_t sum = 0;
    char text[100];

    for (unsigned i = 0; i < t->n; i++) {
        ssize_t n = pread(t->fd[i], text, sizeof text - 1, 0);

        if (n <= 0)
            continue;
        text[n] = '\0';
        sum += strtoull(text, NULL, 10);
    }
    return sum;
}

static void close_threads(struct threads *t)
{
    while (t->n > 0)
        close(t->fd[--t->n]);
}

/* When CPU time was seen to move for the last time, in ns of CLOCK_BOOTTIME, and how much it moved
 * after `from_ns`. */
static uint64_t last_motion(const struct threads *t, uint64_t from_ns, uint64_t *moved)
{
    uint64_t before = cpu_ns(t), last = 0, at_from = 0, now;

    do {
        uint64_t cpu = cpu_ns(t);

        now = clock_of(CLOCK_BOOTTIME);
        if (now < from_ns || at_from == 0)
            at_from = cpu;
        if (cpu != before)
            last = now;
        before = cpu;
        usleep(100);
    } while (now < from_ns + QUIET_MS * NS_PER_MS);
    *moved = before - at_from;
    return last;
}

/* ---- the steps ---- */

static void fuse(uint64_t epoch, uint64_t deadline)
{
    DO(ops->fuse(hv, UUID, epoch, deadline, &e));
}

static Migrd__Domain *define(const struct options *o)
{
    static Migrd__Domain d;
    static Migrd__Disk disk, *disks[1] = { &disk };

    migrd__domain__init(&d);
    d.uuid = (char *)UUID;
    d.name = (char *)"fuse";
    d.hypervisor = (char *)"xvm";
    d.memory_kib = d.max_memory_kib = 64 << 10;
    d.vcpus = o->vcpus;
    d.kernel = (char *)o->kernel;
    d.initrd = (char *)"";
    d.cmdline = (char *)o->cmdline;
    if (o->disk != NULL) {
        migrd__disk__init(&disk);
        disk.source = (char *)o->disk;
        disk.device = (char *)"vda";
        d.disks = disks;
        d.n_disks = 1;
    }
    return &d;
}

static void begins_blown(const Migrd__Domain *d)
{
    struct hv_start how = { .epoch = 4, .domid = 1, .blown = true };
    struct threads t;
    struct hv_info i;
    uint64_t began;

    fuse(3, UINT64_MAX); /* of an older copy: of no account */
    DO(ops->start(hv, d, &how, &e));
    i = info();
    NEED("begins blown", i.state == HV_PAUSED && i.blown && i.fused && i.epoch == 4);
    printf("blown from the start: %s\n", i.reason);
    open_threads(&t, i.pid);
    NEED("no CPU time", cpu_ns(&t) < 20 * NS_PER_MS);
    close_threads(&t);
    NEED("resume is refused", ops->resume(hv, UUID, 4, &e) < 0 && e.code == ERR_STATE);
    printf("resume: %s\n", e.text);
    began = clock_ns();
    fuse(4, clock_boot_ms() + 5000);
    NEED("runs by itself", wait_state(true, false, 2000));
    printf("lit: runs after %.1f ms\n", (double)(clock_ns() - began) / 1e6);
    NEED("older epoch", ops->fuse(hv, UUID, 3, UINT64_MAX, &e) < 0 && e.code == ERR_EPOCH);
    DO(ops->destroy(hv, UUID, 4, &e));
}

/* An order that came before its copy. */
static void lit_before(const Migrd__Domain *d)
{
    struct hv_start how = { .epoch = 6, .domid = 2, .blown = true };

    fuse(6, clock_boot_ms() + 60000);
    DO(ops->start(hv, d, &how, &e));
    NEED("runs at once", wait_state(true, false, 1000));
}

static void renewed(void)
{
    struct hv_info i;

    for (int n = 0; n < 20; n++) {
        fuse(6, clock_boot_ms() + 300);
        usleep(100000);
        i = info();
        NEED("goes on while it is renewed", runs(&i));
    }
}

static double blow(const struct threads *t, uint64_t *moved)
{
    uint64_t deadline = clock_boot_ms() + 200, last;

    fuse(6, deadline);
    last = last_motion(t, deadline * NS_PER_MS, moved);
    return last > deadline * NS_PER_MS ? (double)(last - deadline * NS_PER_MS) / 1e6 : 0;
}

#define DISK_SEEN (16u << 20)

static uint64_t hash_disk(void)
{
    uint64_t hash = 0;
    char *data = malloc(DISK_SEEN);
    int fd = open(disk_file, O_RDONLY | O_CLOEXEC);
    ssize_t n = data != NULL && fd >= 0 ? pread(fd, data, DISK_SEEN, 0) : -1;

    NEED("read the disk's file", n > 0);
    hash = XXH3_64bits(data, (size_t)n);
    close(fd);
    free(data);
    return hash;
}

/* The server finishes what it has got; nothing comes after that. */
static void disk_stands_still(void)
{
    uint64_t before;

    if (disk_file == NULL)
        return;
    usleep(100000);
    before = hash_disk();
    usleep(300000);
    NEED("nothing is written under a blown fuse", hash_disk() == before);
}

/* The guest looks at its disk all the time. */
static void disk_is_fine(void)
{
    char path[200], *text, *last, *next;
    uint64_t before;

    if (disk_file == NULL)
        return;
    before = hash_disk();
    usleep(500000);
    NEED("the guest writes", hash_disk() != before);
    snprintf(path, sizeof path, "%s/log/console-fuse.log", base_dir);
    text = io_read_file(path, 16u << 20, NULL, &e);
    NEED("console", text != NULL);
    for (last = NULL, next = text; (next = strstr(next, " disk=")) != NULL; next++)
        last = next;
    NEED("the guest speaks of its disk", last != NULL);
    printf("the guest says: %.*s\n", (int)strcspn(last, "\r\n"), last);
    NEED("disk=ok", strncmp(last, " disk=ok", 8) == 0 && strstr(last, "io_errors=0") != NULL);
    free(text);
}

static void relight(void)
{
    struct hv_info i;

    NEED("blown", wait_state(false, true, 1000));
    disk_stands_still();
    NEED("resume is refused", ops->resume(hv, UUID, 6, &e) < 0 && e.code == ERR_STATE);
    fuse(6, clock_boot_ms() + 60000);
    usleep(20000);
    i = info();
    NEED("waits for resume", i.state == HV_PAUSED && i.blown);
    DO(ops->resume(hv, UUID, 6, &e));
    NEED("runs again", wait_state(true, false, 1000));
}

static void blows(unsigned n)
{
    double late, sum = 0, most = 0;
    struct threads t;
    uint64_t moved;

    open_threads(&t, info().pid);
    for (unsigned i = 0; i < n; i++) {
        late = blow(&t, &moved);
        sum += late;
        most = late > most ? late : most;
        relight();
    }
    printf("blows: %u, late by %.2f ms on average, %.2f at most\n", n, sum / n, most);
    close_threads(&t);
}

/* At once, without its socket. */
static void told_to_stop(void)
{
    uint64_t began = clock_of(CLOCK_BOOTTIME), last, moved;
    struct threads t;

    open_threads(&t, info().pid);
    fuse(6, 0);
    last = last_motion(&t, began, &moved);
    printf("told to stop: after %.2f ms\n", last > began ? (double)(last - began) / 1e6 : 0);
    close_threads(&t);
    printf("reason: %s\n", info().reason);
    relight();
}

/* The process stands still across its deadline. */
static void stopped_process(void)
{
    struct hv_info i = info();
    uint64_t before, moved, began;
    struct threads t;

    open_threads(&t, i.pid);
    fuse(6, clock_boot_ms() + 100);
    kill(i.pid, SIGSTOP);
    usleep(20000);
    began = clock_ns();
    fuse(6, clock_boot_ms() + 150); /* nobody answers there; a store all the same */
    printf("a store while the process is stopped: %.3f ms\n", (double)(clock_ns() - began) / 1e6);
    usleep(400000);
    before = cpu_ns(&t);
    kill(i.pid, SIGCONT);
    last_motion(&t, clock_of(CLOCK_BOOTTIME), &moved);
    printf("continued after its deadline: vCPUs used %.3f ms of CPU, to park\n",
        (double)(cpu_ns(&t) - before) / 1e6);
    close_threads(&t);
    relight();
}

static void daemon_restarts(void)
{
    fuse(6, clock_boot_ms() + 500);
    ops->close(&hv);
    open_hv();
    NEED("still fused", info().fused);
    fuse(6, clock_boot_ms() + 60000);
    usleep(700000);
    NEED("found again", wait_state(true, false, 0));
}

static void paused_by_somebody(void)
{
    struct hv_info i;

    DO(ops->pause(hv, UUID, 6, &e));
    fuse(6, 0);
    usleep(100000);
    i = info();
    NEED("paused, not by its fuse", i.state == HV_PAUSED && !i.blown);
    DO(ops->resume(hv, UUID, 6, &e));
    NEED("the pause ends, the fuse holds", wait_state(false, true, 0));
    relight();
    DO(ops->pause(hv, UUID, 6, &e));
    fuse(6, 0);
    usleep(50000);
    fuse(6, clock_boot_ms() + 60000);
    DO(ops->resume(hv, UUID, 6, &e));
    NEED("blew while paused: runs", wait_state(true, false, 500));
}

/* As a copy that is taken back: it needs an order for that very epoch. */
static void newer_epoch(void)
{
    DO(ops->pause(hv, UUID, 6, &e));
    DO(ops->resume(hv, UUID, 8, &e));
    NEED("no order for 8", wait_state(false, true, 500));
    printf("reason: %s\n", info().reason);
    fuse(8, clock_boot_ms() + 60000);
    NEED("runs by itself", wait_state(true, false, 1000));
    DO(ops->destroy(hv, UUID, 8, &e));
}

/* Protected later. */
static void begins_without(const Migrd__Domain *d)
{
    struct hv_start how = { .epoch = 9, .domid = 3 };

    DO(ops->start(hv, d, &how, &e));
    usleep(300000);
    NEED("no limit", wait_state(true, false, 0));
    fuse(9, clock_boot_ms() + 100);
    NEED("a limit", wait_state(false, true, 1000));
    fuse(9, UINT64_MAX);
    DO(ops->resume(hv, UUID, 9, &e));
    NEED("none again", wait_state(true, false, 1000));
    DO(ops->destroy(hv, UUID, 9, &e));
}

int main(int argc, char **argv)
{
    const struct sched_param prio = { .sched_priority = 1 };
    struct options o;
    Migrd__Domain *d;
    char cmd[128];

    if (argc < 2) {
        fputs("usage: fuse_smoke KERNEL [name=value ...]\n", stderr);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    log_open("fuse_smoke", "", NULL);
    sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &prio); /* to see it when it happens */
    parse(&o, argc, argv);
    ops = hv_driver("xvm");
    snprintf(base_dir, sizeof base_dir, "/tmp/fuse-smoke-XXXXXX");
    NEED("folder", mkdtemp(base_dir) != NULL);
    open_hv();
    d = define(&o);
    begins_blown(d);
    lit_before(d);
    renewed();
    blows(o.blows);
    told_to_stop();
    stopped_process();
    disk_is_fine();
    daemon_restarts();
    paused_by_somebody();
    newer_epoch();
    begins_without(d);
    ops->close(&hv);
    snprintf(cmd, sizeof cmd, "rm -rf %s", base_dir);
    if (system(cmd) != 0)
        return 1;
    puts("PASS");
    return 0;
}
