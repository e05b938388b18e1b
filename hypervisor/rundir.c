/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "hypervisor/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"

#define SMALL_FILE 1024

bool rundir_is_uuid(const char *s)
{
    for (unsigned i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        bool hex = (s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f');

        if (dash ? s[i] != '-' : !hex)
            return false;
    }
    return s[36] == '\0';
}

#define NOT_READ UINT64_MAX

static uint64_t none_or_not_read(int reason)
{
    return reason == ENOENT || reason == ESRCH ? 0 : NOT_READ;
}

/* Field 22 of /proc/PID/stat; 0 if there is no such process. A zombie does not count. NOT_READ: it
 * can't be told, for lack of descriptors or memory. */
static uint64_t start_time(pid_t pid)
{
    char path[64], text[SMALL_FILE];
    uint64_t start = 0;
    ssize_t n;
    char *p;
    int fd, reason;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return none_or_not_read(errno);
    n = read(fd, text, sizeof text - 1);
    reason = n < 0 ? errno : ESRCH;
    close(fd);
    if (n <= 0)
        return none_or_not_read(reason);
    text[n] = '\0';
    p = strrchr(text, ')');
    if (p == NULL || p[1] == '\0' || p[2] == 'Z' || p[2] == 'X')
        return 0;
    for (unsigned field = 2; p != NULL && field < 22; field++)
        p = strchr(p + 1, ' ');
    if (p != NULL)
        start = strtoull(p, NULL, 10);
    return start;
}

static void path_of(char out[RUNDIR_LEN], const char *dir, const char *name)
{
    snprintf(out, RUNDIR_LEN, "%s/%s", dir, name);
}

int rundir_write_pid(const char *dir, struct err *e)
{
    char path[RUNDIR_LEN], text[64];
    int n = snprintf(text, sizeof text, "%d %" PRIu64 "\n", (int)getpid(), start_time(getpid()));

    path_of(path, dir, "pid");
    return io_replace_file(path, text, (size_t)n, 0644, e);
}

void rundir_process(const char *dir, pid_t *pid, bool *alive)
{
    char path[RUNDIR_LEN];
    uint64_t start = 0;
    int number = 0;
    char *text;

    *pid = -1;
    *alive = false;
    path_of(path, dir, "pid");
    text = io_read_file(path, SMALL_FILE, NULL, NULL);
    if (text == NULL) {
        *alive = access(path, F_OK) == 0 || errno != ENOENT;
        return;
    }
    if (sscanf(text, "%d %" SCNu64, &number, &start) == 2 && number > 1 && start != 0) {
        uint64_t now = start_time(number);

        *pid = number;
        *alive = now == start || now == NOT_READ;
    }
    free(text);
}

void rundir_write_epoch(const char *dir, uint64_t epoch)
{
    char path[RUNDIR_LEN], text[32];
    int n = snprintf(text, sizeof text, "%" PRIu64 "\n", epoch);
    int fd;

    /* Written in place: it is read only when the process does not answer, and a tmpfs keeps one
     * short write whole. */
    path_of(path, dir, "epoch");
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return;
    if (pwrite(fd, text, (size_t)n, 0) == n && ftruncate(fd, n) < 0)
        unlink(path);
    close(fd);
}

uint64_t rundir_read_epoch(const char *dir)
{
    char path[RUNDIR_LEN];
    uint64_t epoch = 0;
    char *text;

    path_of(path, dir, "epoch");
    text = io_read_file(path, SMALL_FILE, NULL, NULL);
    if (text != NULL)
        epoch = strtoull(text, NULL, 10);
    free(text);
    return epoch;
}

void rundir_remove(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *x;

    if (d == NULL)
        return;
    while ((x = readdir(d)) != NULL)
        if (strcmp(x->d_name, ".") != 0 && strcmp(x->d_name, "..") != 0)
            unlinkat(dirfd(d), x->d_name, 0);
    closedir(d);
    rmdir(dir);
}

void rundir_sweep(const char *run_dir)
{
    DIR *d = opendir(run_dir);
    struct dirent *x;

    if (d == NULL)
        return;
    while ((x = readdir(d)) != NULL) {
        char path[RUNDIR_LEN];
        long pid = x->d_name[0] == '.' ? strtol(x->d_name + 1, NULL, 10) : 0;

        if (pid <= 1 || strlen(x->d_name) > 16 || start_time((pid_t)pid) != 0)
            continue;
        path_of(path, run_dir, x->d_name);
        rundir_remove(path);
    }
    closedir(d);
}
