/* SPDX-License-Identifier: ISC */
/*
 * sandbox: what a running domain's process may still ask of the kernel. Entered once
 * the machine is built (its disks, taps and pty are open), for all threads. A system
 * call that is not on the list fails with EPERM: a forgotten one must not kill a guest.
 * With disks on the network it may make sockets of the internet's families and connect
 * them: a server that was gone is reached anew, by its name.
 */
#ifndef XVM_SANDBOX_H
#define XVM_SANDBOX_H

#include "base/err.h"

/* Cannot be undone. Fails when the kernel has no seccomp; the caller goes on without, and says so.
 */
int xvm_sandbox_enter(bool network, struct err *e);

#endif
