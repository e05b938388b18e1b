/* SPDX-License-Identifier: ISC */
/*
 * Domains that start with the host. The mark is an empty file STATE/autostart/UUID beside the
 * definition. They are started once after each boot of the host, one after the other, by the
 * first migrd of it: STATE/boot-id has the kernel's boot id once that is done, so that a restart
 * of migrd alone never starts a domain that an operator has stopped. A migrd that ends in the
 * middle leaves the old id, and the next one starts what does not run yet.
 *
 * A start is one like any other: the owner, the leases and the memory have their say, and one that
 * is refused is logged and left. In a cluster all of them wait until its log is known here: what it
 * protects is started by the log, where it is to run.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "migrd/ha.h"
#include "migrd/job.h"
#include "migrd/registry_internal.h"

#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_LEN 64
#define MARK_PATH (PATHS_LEN + 64)

/* --- the mark --- */

static void mark_path(const struct migrd *m, const char *uuid, char out[MARK_PATH])
{
    snprintf(out, MARK_PATH, "%s/autostart/%s", m->paths.state, uuid);
}

void registry_autostart_load(struct migrd *m)
{
    char path[MARK_PATH];

    for (struct domain *d = m->registry->domains; d != NULL; d = d->next) {
        mark_path(m, d->uuid, path);
        d->autostart = access(path, F_OK) == 0;
    }
}

void registry_autostart_forget(const struct migrd *m, const char *uuid)
{
    char path[MARK_PATH];

    mark_path(m, uuid, path);
    if (unlink(path) < 0 && errno != ENOENT)
        log_error("registry", "%s: %s", path, strerror(errno));
}

struct mark_job {
    struct job job; /* first */
    struct migrd *m;
    bool on;
    char uuid[HV_UUID_LEN];
    registry_done *done;
    void *arg;
};

static void mark_work(struct job *j)
{
    struct mark_job *mj = (struct mark_job *)j;
    char path[MARK_PATH];

    snprintf(path, sizeof path, "%s/autostart", mj->m->paths.state);
    if (io_make_dirs(path, 0700, &j->err) < 0) {
        j->result = -1;
        return;
    }
    mark_path(mj->m, mj->uuid, path);
    if (mj->on)
        j->result = io_replace_file(path, "", 0, 0600, &j->err);
    else if (unlink(path) < 0 && errno != ENOENT)
        j->result = err_sys(&j->err, "%s", path);
    else
        j->result = io_sync_folder_of(path, &j->err);
}

static void mark_done(struct job *j)
{
    struct mark_job *mj = (struct mark_job *)j;
    struct domain *d = registry_by_uuid(mj->m->registry, mj->uuid);

    if (d != NULL && j->result == 0)
        d->autostart = mj->on;
    registry_unhold(mj->m, mj->uuid, "autostart");
    if (j->result == 0)
        err_clear(&j->err);
    mj->done(mj->arg, mj->uuid, &j->err);
    free(mj);
}

int registry_set_autostart(
    struct migrd *m, struct domain *d, bool on, registry_done *done, void *arg, struct err *e)
{
    struct mark_job *mj;

    if (d->def == NULL)
        return err_set(e, ERR_STATE,
            "domain %s is not defined here, it only runs: it cannot start with the host", d->name);
    mj = calloc(1, sizeof *mj);
    if (mj == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", d->name);
    if (registry_hold(d, "autostart", e) < 0) {
        free(mj);
        return -1;
    }
    mj->job.work = mark_work;
    mj->job.done = mark_done;
    mj->m = m;
    mj->on = on;
    mj->done = done;
    mj->arg = arg;
    snprintf(mj->uuid, sizeof mj->uuid, "%s", d->uuid);
    job_run(m->loop, &mj->job);
    return 0;
}

/* --- at boot --- */

struct boot {
    struct job job; /* first; the last thing that it does */
    struct migrd *m;
    char id[BOOT_ID_LEN], path[PATHS_LEN + 16];
    unsigned tried, failed;
    size_t n, next;
    char uuid[][HV_UUID_LEN]; /* what is to be started */
};

static bool read_id(const char *path, char out[BOOT_ID_LEN])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, BOOT_ID_LEN - 1);

    if (fd >= 0)
        close(fd);
    out[n > 0 ? n : 0] = '\0';
    out[strcspn(out, "\n")] = '\0';
    return out[0] != '\0';
}

static void id_work(struct job *j)
{
    struct boot *b = (struct boot *)j;

    j->result = io_replace_file(b->path, b->id, strlen(b->id), 0600, &j->err);
}

static void id_done(struct job *j)
{
    if (j->result < 0)
        log_error(
            "registry", "domains that start with the host will be started again: %s", j->err.text);
    free(j);
}

static void start_next(struct boot *b);

static void started(void *arg, const char *uuid, const struct err *e)
{
    struct boot *b = arg;

    if (e->code != ERR_NONE) {
        b->failed++;
        log_error("registry", "%s could not be started with the host: %s", uuid, e->text);
    }
    start_next(b);
}

static void start_next(struct boot *b)
{
    while (b->next < b->n && !b->m->registry->stopping) {
        const char *uuid = b->uuid[b->next++];
        struct domain *d = registry_by_uuid(b->m->registry, uuid);
        struct err e;

        if (d == NULL || d->live || !d->autostart)
            continue;
        if (ha_protected(b->m, uuid, NULL)) {
            log_info("registry", "%s is protected by the cluster, whose log starts it", d->name);
            continue;
        }
        log_info("registry", "%s starts with the host", d->name);
        b->tried++;
        if (registry_act(b->m, d, REG_START, NULL, started, b, &e) == 0)
            return;
        b->failed++;
        log_error("registry", "%s could not be started with the host: %s", d->name, e.text);
    }
    if (b->next < b->n) { /* this migrd ends: the next one goes on */
        free(b);
        return;
    }
    if (b->tried > 0)
        log_info(
            "registry", "%u domains start with the host, %u of them failed", b->tried, b->failed);
    b->job.work = id_work;
    b->job.done = id_done;
    job_run(b->m->loop, &b->job);
}

void registry_autostart_boot(struct migrd *m)
{
    char id[BOOT_ID_LEN], last[BOOT_ID_LEN], path[PATHS_LEN + 16];
    size_t n = m->registry->n_domains;
    struct boot *b;

    snprintf(path, sizeof path, "%s/boot-id", m->paths.state);
    if (ha_waits(m) || !read_id(BOOT_ID, id) || (read_id(path, last) && strcmp(id, last) == 0))
        return;
    b = calloc(1, sizeof *b + n * sizeof b->uuid[0]);
    if (b == NULL) {
        log_error("registry", "out of memory: no domain is started with the host");
        return;
    }
    b->m = m;
    memcpy(b->id, id, sizeof b->id);
    memcpy(b->path, path, sizeof path);
    for (struct domain *d = m->registry->domains; d != NULL && b->n < n; d = d->next)
        if (d->autostart)
            memcpy(b->uuid[b->n++], d->uuid, HV_UUID_LEN);
    start_next(b);
}
