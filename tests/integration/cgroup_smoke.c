/* SPDX-License-Identifier: ISC */
/*
 * cgroup_smoke: the control group of a domain on the real kernel, of whatever version it has, for a
 * process of four threads of which two play vCPUs and burn CPU. Prints what the kernel says; 77
 * where there is no control group for us.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "hypervisor/xvm/cgroup.h"

#define UUID "6f1de1a2-0c57-4d3a-9b0e-0000000000cc"
#define VCPUS 2
#define THREADS 3 /* beside the first */

static void *burn(void *arg)
{
    prctl(PR_SET_NAME, arg);
    for (;;)
        (void)clock_ns();
    return NULL;
}

static void *wait_for_ever(void *arg)
{
    prctl(PR_SET_NAME, arg);
    for (;;)
        pause();
    return NULL;
}

static void child(void)
{
    pthread_t t;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pthread_create(&t, NULL, burn, (void *)(uintptr_t) "vcpu0");
    pthread_create(&t, NULL, burn, (void *)(uintptr_t) "vcpu1");
    pthread_create(&t, NULL, wait_for_ever, (void *)(uintptr_t) "disk");
    wait_for_ever((void *)(uintptr_t) "main");
}

static bool read_line(const char *path, char *text, size_t size)
{
    FILE *f = fopen(path, "re");
    bool ok = f != NULL && fgets(text, (int)size, f) != NULL;

    if (f != NULL)
        fclose(f);
    text[ok ? strcspn(text, "\n") : 0] = '\0';
    return ok;
}

/* Calls `each` for every thread; returns how many there are. */
static unsigned each_thread(
    pid_t pid, void (*each)(pid_t tid, const char *name, void *arg), void *arg)
{
    char path[300], name[32];
    struct dirent *x;
    unsigned n = 0;
    DIR *d;

    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    d = opendir(path);
    while (d != NULL && (x = readdir(d)) != NULL) {
        if (x->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/comm", (int)pid, x->d_name);
        if (read_line(path, name, sizeof name))
            each(atoi(x->d_name), name, arg);
        n++;
    }
    if (d != NULL)
        closedir(d);
    return n;
}

struct vcpus {
    pid_t tid[VCPUS];
    unsigned n;
};

static void find_vcpu(pid_t tid, const char *name, void *arg)
{
    struct vcpus *v = arg;

    if (strncmp(name, "vcpu", 4) == 0 && v->n < VCPUS)
        v->tid[v->n++] = tid;
}

/* Prints the thread's group: the line that names ours. */
static void show_group(pid_t tid, const char *name, void *arg)
{
    char path[64], line[300];
    bool *ok = arg, found = false;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/cgroup", (int)tid);
    f = fopen(path, "re");
    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL)
        found = strstr(line, UUID) != NULL;
    if (f != NULL)
        fclose(f);
    line[strcspn(line, "\n")] = '\0';
    printf("  %-6s %s\n", name, found ? line : "in another group");
    *ok = *ok && found && (strncmp(name, "vcpu", 4) == 0) == (strstr(line, "/vcpus") != NULL);
}

/* What the process uses is what its vCPUs use. */
static int set(const struct cgroup_domain *d, unsigned weight, unsigned cap)
{
    struct hv_sched s = { .weight = weight, .cap = cap };
    uint64_t used, began;
    clockid_t clock;
    struct err e;

    if (cgroup_apply(d, &s, &e) < 0 || clock_getcpuclockid(d->pid, &clock) != 0) {
        printf("weight %u, cap %u: %s\n", weight, cap, e.text);
        return -1;
    }
    began = clock_ns();
    used = clock_of(clock);
    usleep(1000000);
    used = clock_of(clock) - used;
    printf("%s: weight %u, cap %u: the vCPUs use %.0f %% of a CPU\n", s.how, weight, cap,
        100.0 * (double)used / (double)(clock_ns() - began));
    return 0;
}

static int look(const struct cgroup_domain *d)
{
    bool ok = true;

    if (set(d, 512, 0) < 0)
        return 77;
    each_thread(d->pid, show_group, &ok);
    if (!ok || set(d, 128, 50) < 0 || set(d, 256, 5) < 0 || set(d, 256, 150) < 0 ||
        set(d, 1, 0) < 0 || set(d, 65535, 0) < 0)
        return 1;
    if (cgroup_of(d->uuid, d->pid) == NULL)
        return 1;
    return 0;
}

static int end(pid_t pid, int rc)
{
    const char *left;

    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    cgroup_sweep();
    left = cgroup_of(UUID, pid);
    if (rc == 0)
        printf("%s\n", left == NULL ? "OK" : "FAILED: the group is still there");
    return rc == 0 && left != NULL ? 1 : rc;
}

int main(void)
{
    struct vcpus v = { .n = 0 };
    struct cgroup_domain d = { .uuid = UUID, .vcpu = v.tid };

    setvbuf(stdout, NULL, _IOLBF, 0);
    log_set_level(LOG_LV_DEBUG);
    d.pid = fork();
    if (d.pid == 0)
        child();
    for (unsigned i = 0; v.n < VCPUS && i < 5000; i++) {
        usleep(1000);
        v.n = 0;
        each_thread(d.pid, find_vcpu, &v);
    }
    d.n_vcpus = v.n;
    return end(d.pid, v.n == VCPUS ? look(&d) : 1);
}
