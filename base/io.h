/* SPDX-License-Identifier: ISC */
/*
 * io: descriptors done right: whole reads and writes, files replaced atomically,
 * unix sockets, deadlines. Every descriptor made here is close-on-exec.
 * Deadlines are absolute clock_ns() values; IO_FOREVER waits without end.
 */
#ifndef BASE_IO_H
#define BASE_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define IO_FOREVER UINT64_MAX

/* Waits for poll(2) `events` on fd; 0 ready, -1 with ERR_TIMEOUT or ERR_SYSTEM. */
int io_wait(int fd, short events, uint64_t deadline_ns, struct err *e);

/* Reads exactly `len` bytes; end of file before that is ERR_PEER. */
int io_read_full(int fd, void *buf, size_t len, uint64_t deadline_ns, struct err *e);

/* Writes all of `len` bytes; works on blocking and non-blocking descriptors, never raises SIGPIPE
 * on sockets. */
int io_write_full(int fd, const void *buf, size_t len, uint64_t deadline_ns, struct err *e);

/* Whole file of at most `limit` bytes, NUL-terminated; the caller frees. NULL on failure. */
char *io_read_file(const char *path, size_t limit, size_t *len, struct err *e);

/* Writes path.tmp, fsyncs it, renames it over path, fsyncs the folder. */
int io_replace_file(const char *path, const void *data, size_t len, mode_t mode, struct err *e);

/* Makes a name in the folder of `path`, created or renamed, durable. */
int io_sync_folder_of(const char *path, struct err *e);

/* mkdir -p; an existing folder is fine. */
int io_make_dirs(const char *path, mode_t mode, struct err *e);

/* A listening stream socket at `path` (a stale one is replaced), non-blocking; fd or -1. */
int io_unix_listen(const char *path, mode_t mode, struct err *e);

/* A connected stream socket, blocking; fd or -1. */
int io_unix_connect(const char *path, struct err *e);

int io_set_nonblock(int fd, bool on, struct err *e);

/* Closes *fd unless it is -1, and sets it to -1. */
void io_close(int *fd);

#endif
