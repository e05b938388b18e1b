/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "base/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <unistd.h>

extern char **environ;

static void set_stream(posix_spawn_file_actions_t *fa, int stream, int fd)
{
    if (fd < 0)
        posix_spawn_file_actions_addopen(
            fa, stream, "/dev/null", stream == STDIN_FILENO ? O_RDONLY : O_WRONLY, 0);
    else
        posix_spawn_file_actions_adddup2(fa, fd, stream);
}

int spawn_run(char *const argv[], int in, int out, int errors, pid_t *pid)
{
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t attr;
    sigset_t none, all;
    int r;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&fa);
    set_stream(&fa, STDIN_FILENO, in);
    set_stream(&fa, STDOUT_FILENO, out);
    set_stream(&fa, STDERR_FILENO, errors);
    posix_spawn_file_actions_addclosefrom_np(&fa, STDERR_FILENO + 1);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(
        &attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    r = posix_spawn(pid, argv[0], &fa, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&fa);
    return r;
}
