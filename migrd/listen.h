/* SPDX-License-Identifier: ISC */
/*
 * listen: TCP sockets where a key of the configuration says: an address (IPv6 with scope
 * too), "localhost" (both loopbacks, where there), an interface's name (all of its
 * addresses), or "" for everything. Close-on-exec, non-blocking; the caller closes them.
 */
#ifndef LISTEN_H
#define LISTEN_H

#include <stdbool.h>
#include <stddef.h>

#define LISTEN_MAX 32

/* How many are open, in fd; 0 and errno: none. */
size_t listen_on(const char *address, unsigned port, int fd[LISTEN_MAX]);
/* That errno in words. */
const char *listen_error(int error);
bool listen_is_address(const char *text);

#endif
