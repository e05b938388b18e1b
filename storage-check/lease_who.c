/* SPDX-License-Identifier: ISC */
#include "storage-check/lease_who.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

static struct lease_who here;

/* Bytes read into `text`, which is ended; negative errno. */
static int read_text(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    text[0] = '\0';
    if (fd < 0)
        return -errno;
    n = read(fd, text, size - 1);
    close(fd);
    if (n < 0)
        return -EIO;
    text[n] = '\0';
    return (int)n;
}

/* Of the first line; 0 if there is none. */
static uint64_t hash_of_file(const char *path)
{
    char text[128];
    size_t n;

    if (read_text(path, text, sizeof text) <= 0)
        return 0;
    n = strcspn(text, "\n");
    return n != 0 ? (uint64_t)XXH3_64bits(text, n) : 0;
}

/* Field 22 of /proc/PID/stat, and the state; the name before them may hold anything. 0; -ENOENT
 * there is no such process; another errno if nobody knows. */
static int process_start(uint32_t pid, uint64_t *started, char *state)
{
    char path[40], text[1024], *at;
    int r;

    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    r = read_text(path, text, sizeof text);
    if (r < 0)
        return r == -ESRCH ? -ENOENT : r;
    at = strrchr(text, ')');
    if (at == NULL || at[1] != ' ')
        return -EIO;
    at += 2;
    *state = *at;
    for (unsigned field = 3; field < 22 && at != NULL; field++)
        at = (at = strchr(at, ' ')) != NULL ? at + 1 : NULL;
    if (at == NULL)
        return -EIO;
    *started = strtoull(at, NULL, 10);
    return 0;
}

static void look(void)
{
    struct stat st;
    char state;

    here.machine = hash_of_file("/etc/machine-id");
    here.boot = hash_of_file("/proc/sys/kernel/random/boot_id");
    here.pid = (uint32_t)getpid();
    if (stat("/proc/self/ns/pid", &st) == 0 && process_start(here.pid, &here.started, &state) == 0)
        here.pids = st.st_ino;
}

const struct lease_who *lease_who_here(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, look);
    return &here;
}

bool lease_who_gone(const struct lease_who *w, const struct lease_who *ours)
{
    uint64_t started = 0;
    char state = '\0';
    int r;

    if (w->machine == 0 || w->machine != ours->machine || w->boot == 0 || ours->boot == 0)
        return false;
    if (w->boot != ours->boot)
        return true;
    if (w->pids == 0 || w->pids != ours->pids || w->pid == 0)
        return false;
    r = process_start(w->pid, &started, &state);
    return r == -ENOENT || (r == 0 && (started != w->started || state == 'Z' || state == 'X'));
}
