/* SPDX-License-Identifier: ISC */
/*
 * rundir: the folder of one running domain, RUN_DIR/<uuid>: `control` (socket), `pid`
 * ("PID START-TIME", the start time as in /proc/PID/stat, so that a reused number is
 * not mistaken), `epoch` (the newest the process has seen), and what devices put there.
 * xvm-domain makes it under another name and renames it when its socket listens: who
 * sees the folder can connect.
 */
#ifndef HYPERVISOR_RUNDIR_H
#define HYPERVISOR_RUNDIR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define RUNDIR_LEN 400

/* Is this how a uuid is written here? */
bool rundir_is_uuid(const char *name);

int rundir_write_pid(const char *dir, struct err *e);

/* The process of the folder; *alive false if it is certainly gone (or there is no pid file). What
 * can't be read, for lack of descriptors or memory, counts as alive, *pid -1 if unknown: whoever is
 * told that a domain is gone may start it elsewhere. */
void rundir_process(const char *dir, pid_t *pid, bool *alive);

void rundir_write_epoch(const char *dir, uint64_t epoch);
uint64_t rundir_read_epoch(const char *dir); /* 0 unknown */

/* The folder and all plain entries in it; fine if it is gone. */
void rundir_remove(const char *dir);

/* Removes half-made folders whose maker is gone. */
void rundir_sweep(const char *run_dir);

#endif
