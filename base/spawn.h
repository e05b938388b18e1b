/* SPDX-License-Identifier: ISC */
/*
 * spawn: a program of ours as a child with a session of its own, clean signals and no
 * descriptor but the three standard ones. The caller waits for it.
 */
#ifndef BASE_SPAWN_H
#define BASE_SPAWN_H

#include <sys/types.h>

/* Its standard input, output and errors; -1 is /dev/null. 0, or an errno. */
int spawn_run(char *const argv[], int in, int out, int errors, pid_t *pid);

#endif
