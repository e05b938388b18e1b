/* SPDX-License-Identifier: ISC */
/*
 * OWN is the group that migrd is in, which systemd gives it to divide (Delegate=); where it is in
 * the root, OWN is /migrd. Below it:
 *
 *      UUID-PID           all threads of the domain        weight
 *      UUID-PID/vcpus     its vCPUs' threads               cap
 *
 * The cap is for vCPUs only: disks, leases and the control socket of a domain that has used up
 * its time must go on. PID is in the name because both copies of a domain that moves may be on one
 * machine.
 *
 * Version 2: the groups are threaded, so that a process may have threads in several of them and OWN
 * may have members beside them. The process first becomes a member of OWN, the root of the threaded
 * groups, then its threads are moved. Version 1: threads may be in any group.
 *
 *      weight             256 is the default of both       cpu.weight 100, cpu.shares 1024
 *      cap                percent of PERIOD_US             cpu.max, cpu.cfs_quota_us
 */
#define _GNU_SOURCE
#include "hypervisor/xvm/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <mntent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "hypervisor/rundir.h"

#define PERIOD_US 100000u
#define PATH_LEN 512
#define SELF_MAX 65536
#define SHARES_MIN 2u
#define SHARES_MAX 262144u
#define WEIGHT2_MAX 10000u

enum version { V1 = 1, V2 = 2 };

struct tree {
    enum version version;
    char root[PATH_LEN]; /* where it is mounted */
    char own[PATH_LEN];
    bool made_up; /* OWN is not what migrd is in */
};

/* --- finding it --- */

static bool has_word(const char *list, const char *word, const char *separators)
{
    size_t len = strlen(word);

    for (const char *p = list; *p != '\0'; p += strspn(p, separators)) {
        size_t n = strcspn(p, separators);

        if (n == len && memcmp(p, word, n) == 0)
            return true;
        p += n;
    }
    return false;
}

/* The path behind "N:CONTROLLERS:" of the line for that version; malloc'ed, NULL none. */
static char *own_path(enum version version)
{
    char *text = io_read_file("/proc/self/cgroup", SELF_MAX, NULL, NULL), *found = NULL, *save;

    if (text == NULL)
        return NULL;
    for (char *line = strtok_r(text, "\n", &save); line != NULL && found == NULL;
         line = strtok_r(NULL, "\n", &save)) {
        char *list = strchr(line, ':'), *path = list != NULL ? strchr(list + 1, ':') : NULL;

        if (path == NULL)
            continue;
        *path++ = '\0';
        if (version == V2 ? strncmp(line, "0:", 2) == 0 && list[1] == '\0'
                          : has_word(list + 1, "cpu", ","))
            found = strdup(path);
    }
    free(text);
    return found;
}

static bool is_mounted_at(const char *dir, enum version version)
{
    struct statfs s;

    return statfs(dir, &s) == 0 &&
           (uint64_t)s.f_type ==
               (version == V2 ? (uint64_t)CGROUP2_SUPER_MAGIC : (uint64_t)CGROUP_SUPER_MAGIC);
}

/* Is the cpu controller there for groups of this folder? */
static bool has_cpu(const char *dir)
{
    char path[PATH_LEN + 32], *text;
    bool yes;

    snprintf(path, sizeof path, "%s/cgroup.controllers", dir);
    text = io_read_file(path, SELF_MAX, NULL, NULL);
    yes = text != NULL && has_word(text, "cpu", " \n");
    free(text);
    return yes;
}

static bool take_mount(const struct mntent *mnt, struct tree *t)
{
    char *path;

    if (strcmp(mnt->mnt_type, "cgroup2") == 0)
        t->version = V2;
    else if (strcmp(mnt->mnt_type, "cgroup") == 0 && hasmntopt(mnt, "cpu") != NULL)
        t->version = V1;
    else
        return false;
    path = is_mounted_at(mnt->mnt_dir, t->version) ? own_path(t->version) : NULL;
    if (path == NULL)
        return false;
    t->made_up = strcmp(path, "/") == 0;
    snprintf(t->root, sizeof t->root, "%s", mnt->mnt_dir);
    snprintf(t->own, sizeof t->own, "%s%s", mnt->mnt_dir, t->made_up ? "/migrd" : path);
    free(path);
    return t->version == V1 || has_cpu(t->made_up ? t->root : t->own);
}

static bool find(struct tree *t)
{
    FILE *f = setmntent("/proc/self/mounts", "re");
    struct mntent mnt;
    bool found = false;
    char text[4096];

    memset(t, 0, sizeof *t);
    while (f != NULL && !found && getmntent_r(f, &mnt, text, sizeof text) != NULL)
        found = take_mount(&mnt, t);
    if (f != NULL)
        endmntent(f);
    return found;
}

/* --- writing to it --- */

static int put(const char *dir, const char *file, const char *text, struct err *e)
{
    char path[PATH_LEN + 128];
    int fd, r = 0;

    snprintf(path, sizeof path, "%s/%s", dir, file);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, "%s", path);
    if (write(fd, text, strlen(text)) < 0)
        r = err_sys(e, "%s: writing %s", path, text);
    close(fd);
    return r;
}

static int put_number(const char *dir, const char *file, long long n, struct err *e)
{
    char text[32];

    snprintf(text, sizeof text, "%lld", n);
    return put(dir, file, text, e);
}

/* 1 made, 0 it was there. */
static int make_dir(const char *dir, struct err *e)
{
    if (mkdir(dir, 0755) == 0)
        return 1;
    return errno == EEXIST ? 0 : err_sys(e, "%s", dir);
}

static unsigned within(uint64_t n, unsigned min, unsigned max)
{
    return n < min ? min : n > max ? max : (unsigned)n;
}

/* `n` times the weight of a process. */
static int put_weight(const struct tree *t, const char *dir, uint64_t n, unsigned of, struct err *e)
{
    return t->version == V2
               ? put_number(dir, "cpu.weight", within(n * 100 / of, 1, WEIGHT2_MAX), e)
               : put_number(dir, "cpu.shares", within(n * 1024 / of, SHARES_MIN, SHARES_MAX), e);
}

static int put_cap(const struct tree *t, const char *dir, unsigned cap, struct err *e)
{
    long long quota_us = (long long)PERIOD_US * cap / 100;
    char text[64];

    if (t->version == V1)
        return put_number(dir, "cpu.cfs_period_us", PERIOD_US, e) < 0
                   ? -1
                   : put_number(dir, "cpu.cfs_quota_us", cap != 0 ? quota_us : -1, e);
    if (cap == 0)
        snprintf(text, sizeof text, "max %u", PERIOD_US);
    else
        snprintf(text, sizeof text, "%lld %u", quota_us, PERIOD_US);
    return put(dir, "cpu.max", text, e);
}

/* --- the groups --- */

/* OWN is there and may be divided. One that we make gets the weight of as many processes as there
 * are CPUs: its domains are not to share one process's part. */
static int prepare_own(const struct tree *t, struct err *e)
{
    int made = make_dir(t->own, e);

    if (made < 0)
        return -1;
    if (t->version == V2 &&
        ((t->made_up && put(t->root, "cgroup.subtree_control", "+cpu", e) < 0) ||
            put(t->own, "cgroup.subtree_control", "+cpu", e) < 0))
        return -1;
    return made == 1 && t->made_up
               ? put_weight(t, t->own, (uint64_t)sysconf(_SC_NPROCESSORS_ONLN), 1, e)
               : 0;
}

static int make_group(const struct tree *t, const char *dir, struct err *e)
{
    int made = make_dir(dir, e);

    if (made == 1 && t->version == V2 && put(dir, "cgroup.type", "threaded", e) < 0)
        return -1;
    return made;
}

static const char *threads_file(const struct tree *t)
{
    return t->version == V2 ? "cgroup.threads" : "tasks";
}

static int move_process(const struct tree *t, const char *dir, pid_t pid, struct err *e)
{
    char path[64];
    struct dirent *x;
    int r = 0;
    DIR *d;

    if (t->version == V1)
        return put_number(dir, "cgroup.procs", pid, e);
    if (put_number(t->own, "cgroup.procs", pid, e) < 0)
        return -1;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    d = opendir(path);
    if (d == NULL)
        return err_sys(e, "%s", path);
    while (r == 0 && (x = readdir(d)) != NULL)
        if (x->d_name[0] != '.' && put(dir, threads_file(t), x->d_name, e) < 0)
            r = errno == ESRCH ? 0 : -1; /* a thread that has ended */
    closedir(d);
    return r;
}

static int move_vcpus(
    const struct tree *t, const char *dir, const struct cgroup_domain *d, struct err *e)
{
    for (unsigned i = 0; i < d->n_vcpus; i++)
        if (put_number(dir, threads_file(t), d->vcpu[i], e) < 0)
            return -1;
    return put_weight(t, dir, d->n_vcpus, 1, e);
}

static void group_of(const struct tree *t, const char *uuid, pid_t pid, char out[PATH_LEN])
{
    snprintf(out, PATH_LEN, "%.440s/%.36s-%d", t->own, uuid, (int)pid);
}

static void remove_group(const char *dir)
{
    char vcpus[PATH_LEN + 300];

    snprintf(vcpus, sizeof vcpus, "%s/vcpus", dir);
    if ((rmdir(vcpus) < 0 && errno != ENOENT) || rmdir(dir) < 0)
        log_debug("xvm", "%s: %s", dir, strerror(errno));
}

/* What was made and has no members yet. */
static void undo(const struct tree *t, const struct cgroup_domain *d)
{
    char dir[PATH_LEN];

    group_of(t, d->uuid, d->pid, dir);
    remove_group(dir);
}

static int apply(
    const struct tree *t, const struct cgroup_domain *d, const struct hv_sched *s, struct err *e)
{
    char dir[PATH_LEN], vcpus[PATH_LEN + 8];
    int made;

    group_of(t, d->uuid, d->pid, dir);
    snprintf(vcpus, sizeof vcpus, "%s/vcpus", dir);
    if (prepare_own(t, e) < 0 || make_group(t, dir, e) < 0)
        return -1;
    if (t->version == V2 && put(dir, "cgroup.subtree_control", "+cpu", e) < 0)
        return -1;
    made = make_group(t, vcpus, e);
    if (made < 0 ||
        (made == 1 && (move_process(t, dir, d->pid, e) < 0 || move_vcpus(t, vcpus, d, e) < 0)))
        return -1;
    return put_weight(t, dir, s->weight, HV_WEIGHT, e) < 0 ? -1 : put_cap(t, vcpus, s->cap, e);
}

int cgroup_apply(const struct cgroup_domain *d, struct hv_sched *sched, struct err *e)
{
    struct err why;
    struct tree t;

    if (!find(&t))
        return err_set(e, ERR_UNSUPPORTED, "there is no control group with the cpu controller");
    if (apply(&t, d, sched, &why) < 0) {
        undo(&t, d);
        return err_set(e, ERR_UNSUPPORTED, "%s", why.text);
    }
    snprintf(sched->how, sizeof sched->how, "cgroup%d", (int)t.version);
    return 0;
}

const char *cgroup_of(const char *uuid, pid_t pid)
{
    char dir[PATH_LEN];
    struct tree t;

    if (!find(&t))
        return NULL;
    group_of(&t, uuid, pid, dir);
    if (access(dir, F_OK) < 0)
        return NULL;
    return t.version == V2 ? "cgroup2" : "cgroup1";
}

/* It has ended, and whoever has to hear of it has not asked yet. */
static bool is_zombie(pid_t pid)
{
    char path[64], *text, *end;
    bool yes;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    text = io_read_file(path, SELF_MAX, NULL, NULL);
    end = text != NULL ? strrchr(text, ')') : NULL;
    yes = end != NULL && strncmp(end, ") Z", 3) == 0;
    free(text);
    return yes;
}

/* "UUID-PID" of a process that is gone? */
static bool is_stale(const char *name)
{
    char uuid[HV_UUID_LEN], end;
    int pid;

    if (sscanf(name, "%36[0-9a-f-]-%d%c", uuid, &pid, &end) != 2 || !rundir_is_uuid(uuid))
        return false;
    return pid > 0 && ((kill(pid, 0) < 0 && errno == ESRCH) || is_zombie(pid));
}

void cgroup_sweep(void)
{
    char dir[PATH_LEN + 300];
    struct dirent *x;
    struct tree t;
    DIR *d;

    if (!find(&t) || (d = opendir(t.own)) == NULL)
        return;
    while ((x = readdir(d)) != NULL) {
        if (!is_stale(x->d_name))
            continue;
        snprintf(dir, sizeof dir, "%s/%s", t.own, x->d_name);
        remove_group(dir);
    }
    closedir(d);
}

/* A level is worth a quarter more than the next. */
int cgroup_nice(unsigned weight)
{
    double part = (double)weight / HV_WEIGHT;
    int level = 0;

    for (; part > 1.118 && level > -20; level--)
        part /= 1.25;
    for (; part < 1 / 1.118 && level < 19; level++)
        part *= 1.25;
    return level;
}
