/* SPDX-License-Identifier: ISC */
/*
 * The list of domains, and what a poll tidies up on its way: folders of domains that Xen has no
 * more, half-built domains whose builder died, log-dirty modes whose migration died.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "hypervisor/xen/folder.h"
#include "hypervisor/xen/xen_internal.h"

#define KIB_PER_PAGE (HV_PAGE_SIZE / 1024)

void xen_dir(const struct hv *hv, const char *uuid, char out[RUNDIR_LEN])
{
    snprintf(out, RUNDIR_LEN, "%s/%s", hv->run_dir, uuid);
}

void xen_file(const struct hv *hv, const char *uuid, const char *name, char out[RUNDIR_LEN])
{
    snprintf(out, RUNDIR_LEN, "%s/%s/%s", hv->run_dir, uuid, name);
}

void xen_store_read(struct xs_handle *xs, char *out, size_t size, const char *fmt, ...)
{
    char path[XEN_PATH_LEN];
    unsigned n = 0;
    va_list ap;
    char *text;

    va_start(ap, fmt);
    vsnprintf(path, sizeof path, fmt, ap);
    va_end(ap);
    text = xs_read(xs, XBT_NULL, path, &n);
    snprintf(out, size, "%.*s", text != NULL ? (int)n : 0, text != NULL ? text : "");
    free(text);
}

bool xen_store_number(struct xs_handle *xs, uint64_t *out, const char *path)
{
    char text[32], *end;

    xen_store_read(xs, text, sizeof text, "%s", path);
    *out = strtoull(text, &end, 10);
    return text[0] != '\0' && *end == '\0';
}

int xen_find(struct hv *hv, const char *uuid, xc_domaininfo_t *out, struct err *e)
{
    int r = xen_find_with(xen_lock(hv), uuid, out, e);
    char dir[RUNDIR_LEN];

    xen_unlock(hv);
    if (r < 0)
        return -1;
    xen_dir(hv, uuid, dir);
    if (folder_has(dir, FOLDER_BUILDING))
        return err_set(e, ERR_NOT_FOUND, "domain %s: it is not built yet", uuid);
    return 0;
}

int xen_epoch(const char *run_dir, const char *uuid, uint64_t epoch, struct err *e)
{
    char dir[RUNDIR_LEN];
    uint64_t seen;

    snprintf(dir, sizeof dir, "%s/%s", run_dir, uuid);
    seen = rundir_read_epoch(dir);
    if (epoch < seen)
        return err_set(e, ERR_EPOCH,
            "domain %s: epoch %" PRIu64 " is older than %" PRIu64 ", which it has seen already",
            uuid, epoch, seen);
    if (epoch == seen)
        return 0;
    if (mkdir(dir, 0755) < 0 && errno != EEXIST)
        return err_sys(e, "%s", dir);
    rundir_write_epoch(dir, epoch);
    xen_fuse_epoch(dir, epoch);
    return 0;
}

/* Xenstore's word for a path that root will open: nothing but a pty. */
static void take_console(const char *tty, char *out, size_t size)
{
    static const char ptys[] = "/dev/pts/";
    const char *number = tty + sizeof ptys - 1;

    if (strncmp(tty, ptys, sizeof ptys - 1) == 0 && number[0] != '\0' &&
        strspn(number, "0123456789") == strlen(number))
        snprintf(out, size, "%s", tty);
}

/* --- one domain --- */

static void fill(struct hv *hv, const xc_domaininfo_t *d, const char *uuid, struct hv_info *out)
{
    char dir[RUNDIR_LEN], path[XEN_PATH_LEN], tty[64];

    memset(out, 0, sizeof *out);
    xen_dir(hv, uuid, dir);
    snprintf(out->uuid, sizeof out->uuid, "%s", uuid);
    xen_store_read(hv->xs, out->name, sizeof out->name, "/local/domain/%u/name", d->domain);
    if (out->name[0] == '\0')
        snprintf(out->name, sizeof out->name, "%s", uuid);
    xen_store_read(hv->xs, tty, sizeof tty, "/local/domain/%u/console/tty", d->domain);
    take_console(tty, out->console, sizeof out->console);
    out->domid = d->domain;
    out->state = xen_state_of(d, folder_has(dir, FOLDER_INCOMING));
    out->reset = out->state == HV_SHUTDOWN && xen_shutdown_code(d) != SHUTDOWN_poweroff;
    out->epoch = rundir_read_epoch(dir);
    out->memory_kib = d->tot_pages * KIB_PER_PAGE;
    snprintf(path, sizeof path, "/local/domain/%u/memory/static-max", d->domain);
    if (!xen_store_number(hv->xs, &out->max_memory_kib, path))
        out->max_memory_kib = d->max_pages * KIB_PER_PAGE;
    if (out->memory_kib > out->max_memory_kib) /* its ACPI tables and rings are not in the maximum */
        out->memory_kib = out->max_memory_kib;
    out->vcpus = d->nr_online_vcpus;
    out->cpu_ns = d->cpu_time;
    out->pid = -1;
    xen_fuse_fill(hv, dir, d, out);
}

int xen_info(struct hv *hv, const char *uuid, struct hv_info *out, struct err *e)
{
    xc_domaininfo_t d;

    if (xen_find(hv, uuid, &d, e) < 0)
        return -1;
    fill(hv, &d, uuid, out);
    return 0;
}

Migrd__Domain *xen_definition(struct hv *hv, const char *uuid, struct err *e)
{
    struct xen_answer a;
    xc_domaininfo_t d;
    Migrd__Domain *def;
    char dir[RUNDIR_LEN];
    struct err why;

    if (xen_find(hv, uuid, &d, e) < 0)
        return NULL;
    xen_dir(hv, uuid, dir);
    def = folder_definition(dir, &why);
    if (def != NULL)
        return def;
    if (why.code != ERR_NOT_FOUND)
        log_warn("xen", "domain %s: %s", uuid, why.text);
    if (xen_run_answer(hv, "definition", uuid, NULL, NULL, HV_CALL_TIMEOUT_MS, &a, e) == 0) {
        def = migrd__domain__unpack(NULL, a.rest_len, (const uint8_t *)a.rest);
        if (def == NULL)
            err_set(e, ERR_PROTOCOL, "xen-domain: an answer without a definition");
    }
    free(a.text);
    return def;
}

/* --- all of them --- */

/* Its builder died: it never ran, and nobody will make it whole. */
static void remove_half_built(struct hv *hv, const char *uuid)
{
    char dir[RUNDIR_LEN];
    struct err e;
    bool whole;
    int lock;

    xen_dir(hv, uuid, dir);
    lock = folder_lock(dir, false, 0, &e);
    if (lock < 0)
        return; /* it is being built */
    whole = !folder_has(dir, FOLDER_BUILDING); /* since it was looked at */
    close(lock);
    if (whole)
        return;
    log_warn("xen", "domain %s: who built it ended before it was whole: it is removed", uuid);
    if (xen_run(hv, "destroy", uuid, NULL, NULL, XEN_BUILD_TIMEOUT_MS, &e) < 0 &&
        e.code != ERR_NOT_FOUND)
        log_error("xen", "domain %s: %s", uuid, e.text);
}

static bool is_listed(const struct hv_info *list, size_t n, const char *uuid)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].uuid, uuid) == 0)
            return true;
    return false;
}

/* A folder without a domain: of one that has ended, or that is just being built or destroyed. */
static void look_at_folder(struct hv *hv, const char *uuid)
{
    xc_domaininfo_t d;
    char dir[RUNDIR_LEN];
    struct err e;
    int lock, r;

    xen_dir(hv, uuid, dir);
    lock = folder_lock(dir, false, 0, NULL);
    if (lock < 0)
        return;
    r = xen_find_with(xen_lock(hv), uuid, &d, &e);
    xen_unlock(hv);
    if (r < 0 && e.code == ERR_NOT_FOUND) {
        rundir_remove(dir);
        folder_drop_log(hv->log_dir, uuid);
    }
    close(lock);
}

static void sweep_folders(struct hv *hv, const struct hv_info *list, size_t n)
{
    DIR *d = opendir(hv->run_dir);
    struct dirent *x;

    if (d == NULL)
        return;
    while ((x = readdir(d)) != NULL)
        if (rundir_is_uuid(x->d_name) && !is_listed(list, n, x->d_name))
            look_at_folder(hv, x->d_name);
    closedir(d);
}

/* False: not to be listed. */
static bool look_at(struct hv *hv, const xc_domaininfo_t *d, struct hv_info *out)
{
    char uuid[HV_UUID_LEN], dir[RUNDIR_LEN];

    if (xen_is_gone(d))
        return false;
    xen_uuid_text(d->handle, uuid);
    xen_dir(hv, uuid, dir);
    if (folder_has(dir, FOLDER_BUILDING)) {
        remove_half_built(hv, uuid);
        return false;
    }
    if (folder_has(dir, FOLDER_MIGRATION)) {
        xen_mig_sweep(hv, xen_lock(hv), uuid, d->domain);
        xen_unlock(hv);
    }
    xen_fuse_tend(hv, uuid, d->domain);
    fill(hv, d, uuid, out);
    /* Somebody else builds it, and has not named it yet. */
    return strcmp(out->name, uuid) != 0 || rundir_read_epoch(dir) != 0;
}

int xen_enumerate(struct hv *hv, struct hv_info **list, size_t *n, struct err *e)
{
    xc_domaininfo_t *all;
    size_t count;
    int r = xen_list(xen_lock(hv), &all, &count, e);

    xen_unlock(hv);
    *list = NULL;
    *n = 0;
    if (r < 0)
        return -1;
    *list = calloc(count + 1, sizeof **list);
    if (*list == NULL) {
        free(all);
        return err_set(e, ERR_MEMORY, "out of memory for the list of domains");
    }
    for (size_t i = 0; i < count; i++)
        if (look_at(hv, &all[i], &(*list)[*n]))
            ++*n;
    free(all);
    sweep_folders(hv, *list, *n);
    return 0;
}
