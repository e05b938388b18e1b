/* SPDX-License-Identifier: ISC */
/*
 * A migration within one Xen host, step by step through the driver's contract: from one domain into
 * an incoming one beside it (another uuid), by copying. In dom0:
 *
 *   xen_smoke RUN_DIR SOURCE-UUID TARGET-UUID [ROUNDS]   all of it; the target stays paused, loaded
 *   xen_smoke RUN_DIR SOURCE-UUID cancel [ROUNDS]        rounds, suspend, state, and back again
 *   xen_smoke RUN_DIR SOURCE-UUID die log|throttle|pause dies with that at work
 *   xen_smoke RUN_DIR SOURCE-UUID sweep                  what migrd does about it
 *
 * Prints one line for each step, with its time; status 1 when a step fails or memory differs.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "hypervisor/hypervisor.h"

struct side {
    struct hv_mig *m;
    struct hv_layout layout;
};

static const struct hv_ops *ops;
static struct hv *hv;
static struct err error;
static uint64_t began, words, *bitmap;

static void step(const char *name)
{
    uint64_t now = clock_ns();

    printf("%-12s %8.1f ms\n", name, (double)(now - began) / 1e6);
    fflush(stdout);
    began = clock_ns();
}

static void must(int rc, const char *what)
{
    if (rc == 0)
        return;
    printf("%s: %s\n", what, error.text);
    exit(1);
}

static void attach(struct side *s, const char *uuid, enum hv_side side)
{
    must(ops->mig_open(hv, uuid, side, &s->m, &error), uuid);
    must(ops->mig_layout(s->m, &s->layout, &error), "layout");
    step("open");
}

static size_t next_batch(uint64_t *at, uint64_t *gfn)
{
    size_t n = 0;

    for (; *at < words * 64 && n < HV_BATCH_PAGES; ++*at)
        if ((bitmap[*at >> 6] >> (*at & 63) & 1) != 0)
            gfn[n++] = *at;
    return n;
}

static bool is_zero(const uint8_t *p)
{
    return p[0] == 0 && memcmp(p, p + 1, HV_PAGE_SIZE - 1) == 0;
}

static size_t copy_batch(struct side *from, struct side *to, const uint64_t *gfn, size_t n)
{
    static struct hv_mapping a, b;
    size_t zeroes = 0;

    must(ops->mig_map(from->m, gfn, n, false, &a, &error), "map source");
    must(ops->mig_map(to->m, gfn, n, true, &b, &error), "map target");
    for (size_t i = 0; i < n; i++) {
        if (is_zero(a.page[i])) {
            must(ops->mig_zero(to->m, gfn[i], 1, &error), "zero");
            zeroes++;
        } else {
            memcpy(b.page[i], a.page[i], HV_PAGE_SIZE);
        }
    }
    ops->mig_unmap(to->m, &b);
    ops->mig_unmap(from->m, &a);
    return zeroes;
}

static void copy(struct side *from, struct side *to)
{
    uint64_t gfn[HV_BATCH_PAGES], at = 0, pages = 0, zeroes = 0;
    size_t n;

    while ((n = next_batch(&at, gfn)) > 0) {
        pages += n;
        zeroes += to != NULL ? copy_batch(from, to, gfn, n) : 0;
    }
    printf("%" PRIu64 " pages, %" PRIu64 " zero\n", pages, zeroes);
}

static void collect(struct side *from)
{
    memset(bitmap, 0, words * sizeof *bitmap);
    must(ops->dirty_collect(from->m, bitmap, &error), "collect");
    step("collect");
}

static uint64_t compare(struct side *from, struct side *to)
{
    static struct hv_mapping a, b;
    uint64_t gfn[HV_BATCH_PAGES], at = 0, bad = 0;
    size_t n;

    must(ops->mig_populated(from->m, bitmap, &error), "populated");
    while ((n = next_batch(&at, gfn)) > 0) {
        must(ops->mig_map(from->m, gfn, n, false, &a, &error), "map source");
        must(ops->mig_map(to->m, gfn, n, true, &b, &error), "map target");
        for (size_t i = 0; i < n; i++)
            if (memcmp(a.page[i], b.page[i], HV_PAGE_SIZE) != 0 && bad++ < 10)
                printf("frame 0x%" PRIx64 " differs\n", gfn[i]);
        ops->mig_unmap(to->m, &b);
        ops->mig_unmap(from->m, &a);
    }
    return bad;
}

static void rounds(struct side *from, struct side *to, int n)
{
    words = HV_BITMAP_WORDS(from->layout.max_gfn);
    bitmap = calloc(words, sizeof *bitmap);
    if (bitmap == NULL)
        exit(1);
    must(ops->dirty_start(from->m, &error), "dirty_start");
    step("log on");
    must(ops->mig_populated(from->m, bitmap, &error), "populated");
    step("populated");
    for (int i = 0; i < n; i++) {
        copy(from, to);
        step("round");
        memset(bitmap, 0, words * sizeof *bitmap);
        must(ops->dirty_peek(from->m, bitmap, &error), "peek");
        step("peek");
        collect(from);
    }
    must(ops->mig_pause(from->m, 1000, &error), "pause");
    step("pause");
    must(ops->dirty_collect(from->m, bitmap, &error), "collect");
    copy(from, to);
    step("last round");
}

static int whole(struct side *from, const char *uuid, int n)
{
    struct side to;
    uint8_t *blob;
    uint64_t bad;
    size_t len;

    attach(&to, uuid, HV_TARGET);
    if (memcmp(&from->layout, &to.layout, sizeof to.layout) != 0)
        must(-1, "the layouts differ");
    rounds(from, &to, n);
    must(ops->state_save(from->m, &blob, &len, &error), "state_save");
    printf("%zu bytes of state\n", len);
    step("state save");
    must(ops->state_load(to.m, blob, len, &error), "state_load");
    step("state load");
    bad = compare(from, &to);
    printf("%" PRIu64 " frames differ\n", bad);
    step("compare");
    ops->mig_close(&to.m);
    free(blob);
    return bad == 0 ? 0 : 1;
}

static int cancel(struct side *from, int n)
{
    uint8_t *blob;
    size_t len;

    rounds(from, NULL, n);
    must(ops->state_save(from->m, &blob, &len, &error), "state_save");
    step("state save");
    free(blob);
    must(ops->mig_resume(from->m, 1000, &error), "resume");
    step("resume");
    must(ops->dirty_stop(from->m, &error), "dirty_stop");
    step("log off");
    return 0;
}

static int die(struct side *from, const char *with)
{
    must(ops->dirty_start(from->m, &error), "dirty_start");
    if (strcmp(with, "throttle") == 0)
        must(ops->throttle(from->m, 50, &error), "throttle");
    if (strcmp(with, "pause") == 0)
        must(ops->mig_pause(from->m, 1000, &error), "pause");
    step(with);
    return raise(SIGKILL);
}

static int sweep(void)
{
    struct hv_info *list;
    size_t n;

    must(ops->enumerate(hv, &list, &n, &error), "enumerate");
    for (size_t i = 0; i < n; i++)
        printf("%s %s %s\n", list[i].uuid, list[i].name, hv_state_name(list[i].state));
    free(list);
    return 0;
}

int main(int argc, char **argv)
{
    struct hv_config cfg = { .host = "here" };
    struct side from;
    int n, rc;

    if (argc < 4 && (argc < 3 || strcmp(argv[2], "sweep") != 0))
        return 2;
    cfg.run_dir = cfg.log_dir = argv[1];
    n = argc > 4 ? atoi(argv[4]) : 2;
    ops = hv_driver("xen");
    if (ops == NULL)
        return 77;
    began = clock_ns();
    must(ops->open(&cfg, &hv, &error), "open");
    step("driver");
    if (strcmp(argv[2], "sweep") == 0 || strcmp(argv[3], "sweep") == 0)
        return sweep();
    attach(&from, argv[2], HV_SOURCE);
    if (strcmp(argv[3], "cancel") == 0)
        rc = cancel(&from, n);
    else if (strcmp(argv[3], "die") == 0)
        rc = die(&from, argc > 4 ? argv[4] : "log");
    else
        rc = whole(&from, argv[3], n);
    ops->mig_close(&from.m);
    ops->close(&hv);
    return rc;
}
