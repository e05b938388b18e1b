/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "hypervisor/xen/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"

#define DEFINITION "definition"
#define DEFINITION_MAX (1u << 20)
#define MARK_MAX 256u
#define LOCK_STEP_MS 20u

static void path_of(char out[RUNDIR_LEN], const char *dir, const char *name)
{
    snprintf(out, RUNDIR_LEN, "%s/%s", dir, name);
}

/* The descriptor is that of the file which is there by that name: its folder may have been removed,
 * and made anew, before we had the lock. */
static bool still_there(int fd, const char *path)
{
    struct stat ours, there;

    return fstat(fd, &ours) == 0 && stat(path, &there) == 0 && ours.st_ino == there.st_ino &&
           ours.st_dev == there.st_dev;
}

static int open_lock(const char *dir, const char *path, bool make, struct err *e)
{
    int fd;

    do {
        if (make && mkdir(dir, 0755) < 0 && errno != EEXIST)
            return err_sys(e, "%s", dir);
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    } while (fd < 0 && errno == ENOENT && make); /* it was just removed */
    if (fd >= 0)
        return fd;
    if (errno == ENOENT)
        return err_set(e, ERR_NOT_FOUND, "%s: no such folder", dir);
    return err_sys(e, "%s", path);
}

int folder_lock(const char *dir, bool make, unsigned wait_ms, struct err *e)
{
    const struct timespec step = { .tv_nsec = (long)(LOCK_STEP_MS * NS_PER_MS) };
    uint64_t deadline = clock_ns() + wait_ms * NS_PER_MS;
    char path[RUNDIR_LEN];

    path_of(path, dir, "lock");
    for (;;) {
        int fd = open_lock(dir, path, make, e);

        if (fd < 0)
            return -1;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0 && still_there(fd, path))
            return fd;
        close(fd);
        if (clock_ns() >= deadline)
            return err_set(e, ERR_TIMEOUT, "%s: somebody else works on it", dir);
        nanosleep(&step, NULL);
    }
}

bool folder_has(const char *dir, const char *mark)
{
    char path[RUNDIR_LEN];

    path_of(path, dir, mark);
    return access(path, F_OK) == 0;
}

int folder_mark(const char *dir, const char *mark, const char *line, struct err *e)
{
    char path[RUNDIR_LEN], text[MARK_MAX];
    int n = snprintf(text, sizeof text, "%s\n", line);

    path_of(path, dir, mark);
    return io_replace_file(path, text, (size_t)n < sizeof text ? (size_t)n : sizeof text, 0644, e);
}

void folder_unmark(const char *dir, const char *mark)
{
    char path[RUNDIR_LEN];

    path_of(path, dir, mark);
    unlink(path);
}

bool folder_says(const char *dir, const char *mark, const char *line)
{
    char path[RUNDIR_LEN], *text;
    bool same;

    path_of(path, dir, mark);
    text = io_read_file(path, MARK_MAX, NULL, NULL);
    if (text == NULL)
        return false;
    text[strcspn(text, "\n")] = '\0';
    same = strcmp(text, line) == 0;
    free(text);
    return same;
}

void folder_log_path(const char *log_dir, const char *uuid, char out[RUNDIR_LEN])
{
    snprintf(out, RUNDIR_LEN, "%s/xen-%s.log", log_dir, uuid);
}

void folder_drop_log(const char *log_dir, const char *uuid)
{
    char path[RUNDIR_LEN];
    struct stat st;

    folder_log_path(log_dir, uuid, path);
    if (stat(path, &st) == 0 && st.st_size == 0)
        unlink(path);
}

int folder_put_definition(const char *dir, const Migrd__Domain *def, struct err *e)
{
    size_t n = migrd__domain__get_packed_size(def);
    uint8_t *bytes = malloc(n + 1);
    char path[RUNDIR_LEN];
    int r;

    if (bytes == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", def->name);
    path_of(path, dir, DEFINITION);
    r = io_replace_file(path, bytes, migrd__domain__pack(def, bytes), 0600, e);
    free(bytes);
    return r;
}

Migrd__Domain *folder_definition(const char *dir, struct err *e)
{
    Migrd__Domain *def;
    char path[RUNDIR_LEN];
    size_t n;
    char *bytes;

    path_of(path, dir, DEFINITION);
    if (access(path, F_OK) < 0 && errno == ENOENT) {
        err_set(e, ERR_NOT_FOUND, "%s: no such file", path);
        return NULL;
    }
    bytes = io_read_file(path, DEFINITION_MAX, &n, e);
    if (bytes == NULL)
        return NULL;
    def = migrd__domain__unpack(NULL, n, (const uint8_t *)bytes);
    free(bytes);
    if (def == NULL)
        err_set(e, ERR_INTEGRITY, "%s: it does not parse", path);
    return def;
}
