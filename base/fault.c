/* SPDX-License-Identifier: ISC */
/*
 * Slots of the environment come first and stay, those of the file are parsed again when its
 * text has changed. The file stays open because a worker's sandbox forbids to open one.
 */
#define _GNU_SOURCE
#include "base/fault.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

#define FAULT_MAX 16

struct armed {
    char name[64];
    char action[32];
    bool fired, from_file;
};

static struct armed armed[FAULT_MAX]; /* under lock, as all below but `active` */
static unsigned n_armed, n_environment;
static int file = -1;
static char text[FAULT_TEXT];
static bool active; /* set once */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void arm_one(const char *name, size_t name_len, const char *action, size_t action_len)
{
    struct armed *a;

    if (n_armed == FAULT_MAX || name_len >= sizeof a->name || action_len >= sizeof a->action)
        return;
    a = &armed[n_armed++];
    memset(a, 0, sizeof *a);
    memcpy(a->name, name, name_len);
    memcpy(a->action, action, action_len);
}

static void arm_list(const char *p)
{
    while (*p != '\0') {
        size_t len = strcspn(p, ",");
        const char *eq = memchr(p, '=', len);

        if (eq != NULL)
            arm_one(p, (size_t)(eq - p), eq + 1, len - (size_t)(eq + 1 - p));
        p += len + (p[len] == ',');
    }
}

static void arm_from_environment(void)
{
    const char *list = secure_getenv("MIGRD_FAULT"), *path = secure_getenv("MIGRD_FAULT_FILE");

    if (list != NULL)
        arm_list(list);
    n_environment = n_armed;
    if (path != NULL)
        file = open(path, O_RDWR | O_CLOEXEC);
    active = n_armed > 0 || file >= 0;
}

static void arm_from_file(void)
{
    char now[FAULT_TEXT] = "", *list;

    if (file < 0 || pread(file, now, sizeof now - 1, 0) < 0 || strcmp(now, text) == 0)
        return;
    memcpy(text, now, sizeof text);
    n_armed = n_environment;
    now[strcspn(now, "\n")] = '\0';
    list = strchr(now, ' ');
    if (list != NULL)
        arm_list(list + 1);
    for (unsigned i = n_environment; i < n_armed; i++)
        armed[i].from_file = true;
}

static void tell(const char *name)
{
    char line[128] = "";

    snprintf(
        line, sizeof line, "%.*s %d %s\n", (int)strcspn(text, " \n"), text, (int)getpid(), name);
    if (pwrite(file, line, sizeof line, FAULT_TEXT) < 0)
        log_warn("fault", "point %s fires unseen", name);
}

/* Copies the action of a point that is armed and has not fired. */
static bool take(const char *name, char action[32])
{
    bool found = false;

    pthread_mutex_lock(&lock);
    arm_from_file();
    for (unsigned i = 0; i < n_armed && !found; i++) {
        if (armed[i].fired || strcmp(armed[i].name, name) != 0)
            continue;
        found = armed[i].fired = true;
        memcpy(action, armed[i].action, sizeof armed[i].action);
        if (armed[i].from_file)
            tell(name);
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static void sleep_ms(long ms)
{
    struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

    nanosleep(&ts, NULL);
}

bool fault_hit(const char *name)
{
    char action[32];

    pthread_once(&once, arm_from_environment);
    if (!active || !take(name, action))
        return false;
    log_warn("fault", "point %s fires: %s", name, action);
    if (strcmp(action, "kill") == 0)
        kill(getpid(), SIGKILL);
    if (strcmp(action, "exit") == 0)
        _exit(99);
    if (strcmp(action, "stop") == 0)
        raise(SIGSTOP); /* this thread goes no step further, the others stop soon */
    if (strncmp(action, "sleep:", 6) == 0)
        sleep_ms(atol(action + 6));
    return strcmp(action, "error") == 0;
}
