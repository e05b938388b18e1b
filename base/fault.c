/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "base/fault.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

#define FAULT_MAX 16

struct armed {
    char name[64];
    char action[32];
    bool fired;
};

static struct armed armed[FAULT_MAX];
static unsigned n_armed;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void arm_one(const char *name, size_t name_len, const char *action, size_t action_len)
{
    struct armed *a;

    if (n_armed == FAULT_MAX || name_len >= sizeof a->name || action_len >= sizeof a->action)
        return;
    a = &armed[n_armed++];
    memcpy(a->name, name, name_len);
    memcpy(a->action, action, action_len);
}

static void arm_from_environment(void)
{
    const char *p = secure_getenv("MIGRD_FAULT");

    while (p != NULL && *p != '\0') {
        size_t len = strcspn(p, ",");
        const char *eq = memchr(p, '=', len);

        if (eq != NULL)
            arm_one(p, (size_t)(eq - p), eq + 1, len - (size_t)(eq + 1 - p));
        p += len + (p[len] == ',');
    }
}

static struct armed *take(const char *name)
{
    struct armed *found = NULL;

    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < n_armed && found == NULL; i++)
        if (!armed[i].fired && strcmp(armed[i].name, name) == 0)
            found = &armed[i];
    if (found != NULL)
        found->fired = true;
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
    struct armed *a;

    pthread_once(&once, arm_from_environment);
    if (n_armed == 0)
        return false;
    a = take(name);
    if (a == NULL)
        return false;
    log_warn("fault", "point %s fires: %s", name, a->action);
    if (strcmp(a->action, "kill") == 0)
        kill(getpid(), SIGKILL);
    if (strcmp(a->action, "exit") == 0)
        _exit(99);
    if (strcmp(a->action, "stop") == 0)
        kill(getpid(), SIGSTOP);
    if (strncmp(a->action, "sleep:", 6) == 0)
        sleep_ms(atol(a->action + 6));
    return strcmp(a->action, "error") == 0;
}
