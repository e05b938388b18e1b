/* SPDX-License-Identifier: ISC */
/*
 * lease_who: which machine, which boot of it, and which process took a lease. A host's name says
 * too little: two machines may bear it, and of one machine two processes may want one disk.
 * Values without an owner; 0 means that it is not known.
 */
#ifndef STORAGE_CHECK_LEASE_WHO_H
#define STORAGE_CHECK_LEASE_WHO_H

#include <stdbool.h>
#include <stdint.h>

struct lease_who {
    uint64_t machine; /* hash of /etc/machine-id */
    uint64_t boot;    /* hash of the boot id */
    uint32_t pid;
    uint64_t started; /* clock ticks after the boot */
    uint64_t pids;    /* the namespace in which pid counts */
};

/* Of this process. Looked at once: the first call must come before a sandbox hides /proc. */
const struct lease_who *lease_who_here(void);

/* Is it certain that this process, of another boot or of this one, does not run any more? Of this
 * machine only. */
bool lease_who_gone(const struct lease_who *w, const struct lease_who *here);

#endif
