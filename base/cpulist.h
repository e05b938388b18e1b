/* SPDX-License-Identifier: ISC */
/*
 * cpulist: a list of host CPUs as people write it, in xm's form: "0-3,^2,7". For the
 * pinning of vCPUs and of migration workers. Nothing is kept.
 */
#ifndef CPULIST_H
#define CPULIST_H

#include <stddef.h>

#include "base/err.h"

/* Into `cpu_set`, a cpu_set_t. 1; 0 if the list is NULL or empty, which names no CPU; -1 if it is
 * malformed or takes all away that it names. */
int cpulist_parse(const char *list, void *cpu_set, struct err *e);

/* The host's: "online", those that work, or "present". -1: it does not tell. */
int cpulist_host(const char *which, void *cpu_set);

#define CPULIST_LEN 4096 /* holds any */

/* The shortest list of that set, "" of none; what does not fit into `len` bytes is cut off. */
void cpulist_format(const void *cpu_set, char *list, size_t len);

#endif
