/* SPDX-License-Identifier: ISC */
/*
 * xvm_smoke: the bundled hypervisor's driver, alone: a guest is started below one run
 * folder and moved to a second one and back, memory copied by memcpy, while it runs. Prints
 * how long each step took, which is the fixed part of a real migration's pause.
 *
 *   xvm_smoke KERNEL [name=value ...]
 *     cmdline=... initrd=... mem=MiB vcpus=N moves=N warm=S settle=S want=TEXT disk=PATH huge=1
 *     cpu=LEVEL
 *     The copy of each move begins with a blown fuse, which is lit after its resume.
 *     want: after the last move the console log must get this text again within 60 s.
 *     The guest's CPU must be what the level says, on every host.
 *
 * Exit status: 0 fine, 1 failed, 77 skipped (no /dev/kvm).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "hypervisor/cpu_level.h"
#include "hypervisor/hypervisor.h"

#define UUID "6f1de1a2-0c57-4d3a-9b0e-000000000001"
#define HOSTS 2

struct options {
    const char *kernel, *cmdline, *initrd, *want, *disk, *cpu;
    unsigned mem, vcpus, moves, warm, settle, huge;
};

struct host {
    struct hv *hv;
    char run[128], log[128];
};

static const struct hv_ops *ops;
static char base_dir[64];

static void die(const char *what, const struct err *e)
{
    printf("FAIL %s: %s\n", what, e->text);
    exit(1);
}

static double ms_since(uint64_t t)
{
    return (double)(clock_ns() - t) / 1e6;
}

static void parse(struct options *o, int argc, char **argv)
{
    static char kernel[PATH_MAX]; /* a definition wants absolute paths */

    *o = (struct options){ .kernel = realpath(argv[1], kernel) != NULL ? kernel : argv[1],
        .cmdline = "fill=64 ws=32 rate=100 tick_ms=500 verify_s=1",
        .initrd = "",
        .want = "static=ok ws=ok",
        .cpu = "",
        .mem = 256,
        .vcpus = 1,
        .moves = 4,
        .warm = 3,
        .settle = 2 };
    for (int i = 2; i < argc; i++) {
        char *v = strchr(argv[i], '=');

        if (v == NULL)
            continue;
        *v++ = '\0';
        if (strcmp(argv[i], "cmdline") == 0)
            o->cmdline = v;
        else if (strcmp(argv[i], "initrd") == 0)
            o->initrd = v;
        else if (strcmp(argv[i], "want") == 0)
            o->want = v;
        else if (strcmp(argv[i], "cpu") == 0)
            o->cpu = v;
        else if (strcmp(argv[i], "disk") == 0)
            o->disk = v;
        else if (strcmp(argv[i], "mem") == 0)
            o->mem = (unsigned)atoi(v);
        else if (strcmp(argv[i], "huge") == 0)
            o->huge = (unsigned)atoi(v);
        else if (strcmp(argv[i], "vcpus") == 0)
            o->vcpus = (unsigned)atoi(v);
        else if (strcmp(argv[i], "moves") == 0)
            o->moves = (unsigned)atoi(v);
        else if (strcmp(argv[i], "warm") == 0)
            o->warm = (unsigned)atoi(v);
        else if (strcmp(argv[i], "settle") == 0)
            o->settle = (unsigned)atoi(v);
    }
}

static void open_host(struct host *h, unsigned n)
{
    struct hv_config cfg = { .run_dir = h->run, .log_dir = h->log };
    struct err e;

    snprintf(h->run, sizeof h->run, "%s/h%u/xvm", base_dir, n);
    snprintf(h->log, sizeof h->log, "%s/h%u/log", base_dir, n);
    if (ops->open(&cfg, &h->hv, &e) < 0) {
        if (e.code == ERR_UNSUPPORTED) {
            printf("SKIP %s\n", e.text);
            exit(77);
        }
        die("open", &e);
    }
}

static void print_events(struct host *h, const char *who)
{
    struct hv_event ev;
    struct pollfd p = { .fd = ops->event_fd(h->hv), .events = POLLIN };

    poll(&p, 1, 200);
    while (ops->next_event(h->hv, &ev, NULL) == 1)
        printf("  event on %s: %s %s\n", who, hv_event_name(ev.type), ev.detail);
}

static void define(Migrd__Domain *d, Migrd__Disk *disk, const struct options *o)
{
    static Migrd__Disk *disks[1];

    migrd__domain__init(d);
    d->uuid = (char *)UUID;
    d->name = (char *)"smoke";
    d->hypervisor = (char *)"xvm";
    d->memory_kib = d->max_memory_kib = (uint64_t)o->mem << 10;
    d->vcpus = o->vcpus;
    d->kernel = (char *)o->kernel;
    d->initrd = (char *)o->initrd;
    d->cmdline = (char *)o->cmdline;
    d->rng = true;
    d->huge_pages = o->huge != 0;
    d->cpu_level = (char *)o->cpu;
    if (o->disk == NULL)
        return;
    migrd__disk__init(disk);
    disk->source = (char *)o->disk;
    disk->device = (char *)"vda";
    disks[0] = disk;
    d->disks = disks;
    d->n_disks = 1;
}

static uint64_t copy_pages(struct hv_mig *from, struct hv_mig *to, const uint64_t *bits,
    const struct hv_layout *l, struct err *e)
{
    static struct hv_mapping a, b;
    static uint64_t gfn[HV_BATCH_PAGES];
    uint64_t pages = 0;
    size_t n = 0;

    for (uint64_t g = 0; g <= l->max_gfn + 1; g++) {
        if (g <= l->max_gfn && (bits[g >> 6] >> (g & 63) & 1) != 0)
            gfn[n++] = g;
        if (n == 0 || (n < HV_BATCH_PAGES && g <= l->max_gfn))
            continue;
        if (ops->mig_map(from, gfn, n, false, &a, e) < 0 ||
            ops->mig_map(to, gfn, n, true, &b, e) < 0)
            die("mig_map", e);
        for (size_t i = 0; i < n; i++)
            memcpy(b.page[i], a.page[i], HV_PAGE_SIZE);
        ops->mig_unmap(from, &a);
        ops->mig_unmap(to, &b);
        pages += n;
        n = 0;
    }
    return pages;
}

#define STEP(label, call)                                                                          \
    do {                                                                                           \
        uint64_t began_ = clock_ns();                                                              \
        if ((call) < 0)                                                                            \
            die(label, &e);                                                                        \
        printf(" %s %.3f", label, ms_since(began_));                                               \
    } while (0)

static void check_same(struct hv_mig *from, struct hv_mig *to, const struct hv_layout *l)
{
    static struct hv_mapping a, b;
    uint64_t bad = 0;
    struct err e;

    for (unsigned r = 0; r < l->n; r++) {
        for (uint64_t i = 0; i < l->region[r].pages; i++) {
            uint64_t g = l->region[r].gfn + i;

            if (ops->mig_map(from, &g, 1, false, &a, &e) < 0 ||
                ops->mig_map(to, &g, 1, false, &b, &e) < 0)
                die("mig_map", &e);
            if (memcmp(a.page[0], b.page[0], HV_PAGE_SIZE) != 0 && bad++ < 5)
                printf(" [frame 0x%llx differs]", (unsigned long long)g);
        }
    }
    printf(" differing=%llu", (unsigned long long)bad);
    if (bad != 0)
        exit(1);
}

static void move(struct host *from, struct host *to, const Migrd__Domain *d, uint64_t epoch)
{
    struct hv_start how = { .epoch = epoch, .domid = (int)epoch, .incoming = true, .blown = true };
    struct hv_mig *s = NULL, *t = NULL;
    struct hv_layout l;
    struct err e;
    uint64_t *bits, began, pause;
    uint8_t *blob;
    size_t words, len;

    if (ops->start(to->hv, d, &how, &e) < 0)
        die("start incoming", &e);
    if (ops->mig_open(from->hv, UUID, HV_SOURCE, &s, &e) < 0 ||
        ops->mig_open(to->hv, UUID, HV_TARGET, &t, &e) < 0)
        die("mig_open", &e);
    ops->mig_layout(s, &l, NULL);
    words = HV_BITMAP_WORDS(l.max_gfn);
    bits = calloc(words, sizeof *bits);
    STEP("dirty_start", ops->dirty_start(s, &e));
    STEP("populated", ops->mig_populated(s, bits, &e));
    began = clock_ns();
    printf(" [%llu pages", (unsigned long long)copy_pages(s, t, bits, &l, &e));
    printf(" %.0f ms]", ms_since(began));
    for (int round = 0; round < 2; round++) {
        memset(bits, 0, words * sizeof *bits);
        STEP("collect", ops->dirty_collect(s, bits, &e));
        printf(" [%llu pages]", (unsigned long long)copy_pages(s, t, bits, &l, &e));
    }
    memset(bits, 0, words * sizeof *bits);
    STEP("peek", ops->dirty_peek(s, bits, &e));
    memset(bits, 0, words * sizeof *bits);
    pause = clock_ns();
    STEP("\n  pause", ops->mig_pause(s, epoch - 1, &e));
    STEP("save", ops->state_save(s, &blob, &len, &e));
    STEP("collect", ops->dirty_collect(s, bits, &e));
    printf(" [%llu pages]", (unsigned long long)copy_pages(s, t, bits, &l, &e));
    STEP("load", ops->state_load(t, blob, len, &e));
    printf(" (%zu bytes)", len);
    if (getenv("SMOKE_COMPARE") != NULL)
        check_same(s, t, &l);
    STEP("resume", ops->mig_resume(t, epoch, &e));
    STEP("fuse", ops->fuse(to->hv, UUID, epoch, UINT64_MAX, &e));
    printf(" pause in all %.3f ms\n ", ms_since(pause));
    free(blob);
    free(bits);
    ops->mig_close(&s);
    ops->mig_close(&t);
    STEP("destroy", ops->destroy(from->hv, UUID, epoch, &e));
    puts("");
}

static void print_info(struct host *h)
{
    struct hv_info i;
    struct err e;

    if (ops->info(h->hv, UUID, &i, &e) < 0)
        die("info", &e);
    printf("  %s id %d %s epoch %llu mem %llu KiB vcpus %u cpu %.2f s pid %d console %s\n", i.name,
        i.domid, hv_state_name(i.state), (unsigned long long)i.epoch,
        (unsigned long long)i.memory_kib, i.vcpus, (double)i.cpu_ns / 1e9, i.pid, i.console);
}

/* What the guest was booted with: the host's CPU at that level, no more and no less. */
static void check_cpu(struct host *h, const char *level)
{
    struct hv_caps want, is;
    char names[400];
    struct err e;

    if (ops->capabilities(h->hv, &want, &e) < 0 || cpu_level_apply(level, &want, &e) < 0 ||
        ops->guest_cpu(h->hv, UUID, &is, &e) < 0)
        die("guest_cpu", &e);
    if (cpu_level_missing(is.features, HV_FEATURE_WORDS, want.features, names, sizeof names) > 0 ||
        cpu_level_missing(want.features, HV_FEATURE_WORDS, is.features, names, sizeof names) > 0 ||
        is.xcr0 != want.xcr0 || strcmp(is.cpu_vendor, want.cpu_vendor) != 0)
        printf("FAIL: the guest's CPU is not at its level: %s\n", names), exit(1);
    printf("  guest's CPU: %s, %s, XCR0 0x%llx, %u bytes, %llu kHz\n", is.cpu_model,
        cpu_level_of(is.features, HV_FEATURE_WORDS), (unsigned long long)is.xcr0, is.xsave_size,
        (unsigned long long)is.tsc_khz);
}

/* How often the console log of a host has the text. */
static unsigned count_text(const struct host *h, const char *text)
{
    char path[256], *log, *p;
    unsigned n = 0;

    snprintf(path, sizeof path, "%s/console-smoke.log", h->log);
    log = io_read_file(path, 16u << 20, NULL, NULL);
    if (log == NULL)
        return 0;
    for (p = log; (p = strstr(p, text)) != NULL; p += strlen(text))
        n++;
    free(log);
    return n;
}

static bool wait_text(const struct host *h, const char *text, unsigned more_than, unsigned seconds)
{
    for (unsigned i = 0; i < seconds * 10; i++) {
        if (count_text(h, text) > more_than)
            return true;
        usleep(100000);
    }
    return false;
}

static void run(struct host *host, const struct options *o)
{
    struct hv_start how = { .epoch = 1, .domid = 1 };
    unsigned at = 0, seen;
    Migrd__Domain d;
    Migrd__Disk disk;
    struct err e;

    define(&d, &disk, o);
    STEP("start", ops->start(host[0].hv, &d, &how, &e));
    puts("");
    if (!wait_text(&host[0], o->want, 0, 240))
        printf("FAIL: the guest did not say \"%s\"\n", o->want), exit(1);
    sleep(o->warm);
    print_info(&host[0]);
    check_cpu(&host[0], o->cpu);
    for (unsigned i = 0; i < o->moves; i++) {
        seen = count_text(&host[1 - at], o->want);
        move(&host[at], &host[1 - at], &d, i + 2);
        at = 1 - at;
        sleep(o->settle);
        print_info(&host[at]);
        check_cpu(&host[at], o->cpu);
        print_events(&host[0], "host0");
        print_events(&host[1], "host1");
        if (!wait_text(&host[at], o->want, seen, 60))
            printf("FAIL: silent after move %u\n", i + 1), exit(1);
        if (count_text(&host[at], "CORRUPT") != 0)
            printf("FAIL: the guest found wrong memory\n"), exit(1);
    }
    if (ops->shutdown(host[at].hv, UUID, false, &e) < 0)
        die("shutdown", &e);
    sleep(2);
    print_info(&host[at]);
    print_events(&host[at], "last host");
    STEP("destroy", ops->destroy(host[at].hv, UUID, 100, &e));
    puts("");
}

int main(int argc, char **argv)
{
    struct options o;
    struct host host[HOSTS];
    struct hv_caps caps;
    struct err e;

    if (argc < 2) {
        fprintf(stderr, "usage: xvm_smoke KERNEL [name=value ...]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    parse(&o, argc, argv);
    ops = hv_driver("xvm");
    snprintf(base_dir, sizeof base_dir, "/tmp/xvm-smoke.%d", (int)getpid());
    for (unsigned i = 0; i < HOSTS; i++) {
        open_host(&host[i], i);
        ops->event_fd(host[i].hv);
    }
    if (ops->capabilities(host[0].hv, &caps, &e) < 0)
        die("capabilities", &e);
    printf("%s %s: %s, %s, %llu kHz, %llu of %llu MiB free\n", caps.hypervisor, caps.release,
        caps.cpu_vendor, caps.cpu_model, (unsigned long long)caps.tsc_khz,
        (unsigned long long)caps.memory_free_kib >> 10,
        (unsigned long long)caps.memory_total_kib >> 10);
    run(host, &o);
    for (unsigned i = 0; i < HOSTS; i++)
        ops->close(&host[i].hv);
    printf("OK, logs in %s\n", base_dir);
    return 0;
}
