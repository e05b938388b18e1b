/* SPDX-License-Identifier: ISC */
/*
 * xen_fuse_smoke: the fuse of a Xen domain, in a dom0, through the driver's contract: a PVH guest
 * that never stops by itself is run under deadlines, which processes set that are then killed. Says
 * how late it stands still.
 *
 *   xen_fuse_smoke KERNEL [blows]     beside xen-domain and xen-fuse
 *
 * Exit status: 0 fine, 1 failed, 77 skipped (no Xen).
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef XEN_RELEASE
#include <xenctrl.h>

#include "base/clock.h"
#include "base/log.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/rundir.h"
#include "hypervisor/xen/find.h"

#define END_ALL end_all
#include "tests/integration/smoke.h"

#define UUID "6f1de1a2-0c57-4d3a-9b0e-0000000000f0"
#define RUN_DIR "/run/xen-fuse-smoke"
#define SLOW_MS 10000 /* of a host that QEMU emulates */
#define GOES UINT64_C(600000)

static const struct hv_ops *ops;
static struct hv *hv;
static xc_interface *xc;
static uint32_t domid;
static struct err e; /* of the last call */

static void end_all(int status)
{
    fflush(stdout);
    if (hv != NULL && ops->destroy(hv, UUID, 1000, &e) < 0 && e.code != ERR_NOT_FOUND)
        printf("destroy: %s\n", e.text);
    exit(status);
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

static bool wait_state(bool running, bool blown)
{
    uint64_t until = clock_ns() + SLOW_MS * NS_PER_MS;

    do {
        struct hv_info i = info();

        if (running ? runs(&i) : i.state == HV_PAUSED && i.blown == blown)
            return true;
        usleep(1000);
    } while (clock_ns() < until);
    return false;
}

static bool still(unsigned ms)
{
    uint64_t cpu = info().cpu_ns;

    usleep(ms * 1000);
    return info().cpu_ns == cpu;
}

static void fuse(uint64_t epoch, uint64_t from_now)
{
    uint64_t at = from_now == GOES ? UINT64_MAX : from_now == 0 ? 0 : clock_boot_ms() + from_now;

    DO(ops->fuse(hv, UUID, epoch, at, &e));
}

/* As urgent as xen-fuse, or it is our own lateness that is measured. */
static uint64_t paused_at(void)
{
    uint64_t until = clock_boot_ms() + SLOW_MS;
    xc_domaininfo_t d;

    while (clock_boot_ms() < until) {
        if (xc_domain_getinfolist(xc, domid, 1, &d) == 1 && d.domain == domid &&
            (d.flags & XEN_DOMINF_paused) != 0)
            return clock_boot_ms();
        usleep(500);
    }
    return UINT64_MAX;
}

static void start(const char *kernel)
{
    Migrd__Domain def = MIGRD__DOMAIN__INIT;
    struct hv_start how = { .epoch = 5, .blown = true };

    def.uuid = (char *)UUID;
    def.name = (char *)"fuse-smoke";
    def.kernel = (char *)(uintptr_t)kernel;
    def.cmdline = (char *)"ws=16 rate=max idle=spin tick_ms=100 verify_s=0";
    def.memory_kib = def.max_memory_kib = 128 << 10;
    def.vcpus = def.max_vcpus = 1;
    def.type = MIGRD__GUEST_TYPE__GUEST_PVH;
    DO(ops->start(hv, &def, &how, &e));
    domid = (uint32_t)info().domid;
}

/* No instruction before the first order; then it goes on by itself. */
static void begins_blown(void)
{
    struct hv_info i = info();

    NEED("begins blown", i.state == HV_PAUSED && i.blown && i.fused);
    printf("reason: %s\n", i.reason);
    NEED("nothing has run", i.cpu_ns == 0 && still(300));
    NEED("no resume under a blown fuse", ops->resume(hv, UUID, 5, &e) < 0 && e.code == ERR_STATE);
    printf("resume: %s\n", e.text);
    fuse(5, GOES);
    NEED("goes on by the first fuse", wait_state(true, false));
    NEED("and runs", !still(500));
}

/* Somebody else lights the fuse, and is killed at once. */
static uint64_t light_and_die(unsigned ms)
{
    uint64_t at = clock_boot_ms() + ms;
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        ops->fuse(hv, UUID, 5, at, &e);
        raise(SIGKILL);
    }
    NEED("a process that dies", pid > 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
    return at;
}

static void deadlines(unsigned n)
{
    uint64_t sum = 0, most = 0;

    for (unsigned i = 0; i < n; i++) {
        uint64_t deadline = light_and_die(300 + 37 * i), at = paused_at();

        NEED("stops at its deadline", at != UINT64_MAX && at >= deadline);
        sum += at - deadline;
        most = at - deadline > most ? at - deadline : most;
        NEED("is blown", wait_state(false, true) && still(200));
        fuse(5, GOES);
        NEED("one that has run stays", still(300) && info().blown);
        DO(ops->resume(hv, UUID, 5, &e));
        NEED("goes on by resume", wait_state(true, false));
        usleep(100 * 1000);
    }
    printf("%u deadlines: stopped %.1f ms later, %llu ms at most\n", n, (double)sum / n,
        (unsigned long long)most);
}

static void people(void)
{
    DO(ops->pause(hv, UUID, 5, &e));
    fuse(5, 0);
    usleep(100 * 1000);
    NEED("a person's pause is seen", wait_state(false, false));
    DO(ops->resume(hv, UUID, 5, &e)); /* ends that pause only */
    NEED("then its fuse holds it", wait_state(false, true) && still(300));
    NEED("and is what is left", ops->resume(hv, UUID, 5, &e) < 0 && e.code == ERR_STATE);
    DO(ops->pause(hv, UUID, 5, &e));
    NEED("paused under a blown fuse", !info().blown);
    DO(ops->pause(hv, UUID, 6, &e)); /* a new epoch: fresh */
    fuse(6, GOES);
    usleep(300 * 1000);
    NEED("a person's pause survives", still(300) && info().state == HV_PAUSED && !info().blown);
    DO(ops->resume(hv, UUID, 6, &e));
    NEED("until resume", wait_state(true, false));
}

/* Xen's own tools know nothing of fuses. */
static void strangers(void)
{
    fuse(6, 0);
    NEED("blown", wait_state(false, true));
    NEED("unpause", xc_domain_unpause(xc, domid) == 0);
    usleep(500 * 1000);
    NEED("held again", wait_state(false, true) && still(300));
    fuse(6, GOES);
    DO(ops->resume(hv, UUID, 6, &e));
    NEED("runs", wait_state(true, false));
    NEED("pause", xc_domain_pause(xc, domid) == 0);
    fuse(6, 0);
    usleep(1200 * 1000);
    NEED("a stranger's pause is one", info().state == HV_PAUSED && !info().blown);
    fuse(6, GOES);
    DO(ops->resume(hv, UUID, 6, &e));
    NEED("runs again", wait_state(true, false));
}

static void fuse_dies(void)
{
    struct hv_info *list;
    pid_t pid;
    bool alive;
    size_t n;

    fuse(6, 0);
    NEED("blown", wait_state(false, true));
    rundir_process(RUN_DIR "/" UUID, &pid, &alive);
    NEED("xen-fuse is there", alive && kill(pid, SIGKILL) == 0);
    usleep(200 * 1000);
    NEED("is not fused", !info().fused && info().blown);
    DO(ops->enumerate(hv, &list, &n, &e));
    NEED("listed as fused", n >= 1 && info().fused && info().blown);
    free(list);
    fuse(6, GOES);
    NEED("still held", still(500) && info().blown);
    DO(ops->resume(hv, UUID, 6, &e));
    NEED("goes on", wait_state(true, false));
    fuse(6, 500);
    NEED("the new one stops it", wait_state(false, true));
}

/* A host that shuts down ends it before its domains have ended. */
static void host_shuts_down(void)
{
    pid_t pid;
    bool alive;

    fuse(6, 60000);
    DO(ops->resume(hv, UUID, 6, &e));
    NEED("runs with a deadline", wait_state(true, false));
    usleep(1100 * 1000); /* it knows by then */
    rundir_process(RUN_DIR "/" UUID, &pid, &alive);
    NEED("SIGTERM", alive && kill(pid, SIGTERM) == 0);
    NEED("stands still", wait_state(false, true) && still(500));
    NEED("unwatched", !info().fused);
}

static void ends(void)
{
    pid_t pid;
    bool alive;

    rundir_process(RUN_DIR "/" UUID, &pid, &alive);
    DO(ops->destroy(hv, UUID, 6, &e));
    for (int i = 0; i < 100 && kill(pid, 0) == 0; i++)
        usleep(100 * 1000);
    NEED("xen-fuse has ended", kill(pid, 0) < 0);
}

int main(int argc, char **argv)
{
    const struct hv_config cfg = { .run_dir = RUN_DIR, .log_dir = RUN_DIR };
    const struct sched_param prio = { .sched_priority = 1 };

    if (argc < 2)
        return 2;
    log_open("smoke", NULL, &e);
    ops = hv_driver("xen");
    if (ops->open(&cfg, &hv, &e) < 0) {
        printf("%s %s\n", e.code == ERR_UNSUPPORTED ? "SKIP" : "FAIL", e.text);
        return e.code == ERR_UNSUPPORTED ? 77 : 1;
    }
    xc = xc_interface_open(NULL, NULL, 0);
    NEED("Xen", xc != NULL);
    start(argv[1]);
    begins_blown();
    sched_setscheduler(0, SCHED_RR, &prio);
    deadlines(argc > 2 ? (unsigned)atoi(argv[2]) : 5);
    people();
    strangers();
    fuse_dies();
    host_shuts_down();
    ends();
    printf("fine\n");
    return 0;
}
#else
int main(void)
{
    printf("SKIP this build has no Xen\n");
    return 77;
}
#endif
