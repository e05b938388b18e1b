/* SPDX-License-Identifier: ISC */
/*
 * record_file: a file that is only appended to, written by a thread of its own, so that a disk that
 * stands still never holds up the caller. What was put is written within a quarter of a second, in
 * its order. The first failure ends the writing; it is told once. The caller's bytes are copied.
 */
#ifndef CLUSTER_RECORD_FILE_H
#define CLUSTER_RECORD_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define RECORD_WAITING_MAX (64u << 20) /* bytes that wait for the disk; more is a failure */

struct record_file;

/* A new file at `path`, in place of what is there. NULL: it can't be made. */
struct record_file *record_file_open(const char *path, struct err *e);
void record_file_put(struct record_file *f, const void *bytes, size_t len);
/* What is put from now on goes to a new file; the one so far becomes PATH.1. */
void record_file_turn(struct record_file *f);
/* What was put so far gets on the disk, soon. */
void record_file_sync(struct record_file *f);
/* True, once: it can't be written any more; *e has why. */
bool record_file_failed(struct record_file *f, struct err *e);
/* Waits until all is written. */
void record_file_close(struct record_file **f);

#endif
