/* SPDX-License-Identifier: ISC */
/*
 * sandbox: what a worker gives up once it holds everything it needs: capabilities,
 * the right to gain privileges, new files and processes, and all system calls but
 * those that reading, writing, memory and threads need.
 */
#ifndef SANDBOX_H
#define SANDBOX_H

#include "base/err.h"

/* For good; before the channel threads are started. On failure some of it may be in force; the text
 * says what is missing. */
int sandbox_enter(struct err *e);

/* The calling thread's capabilities alone. */
int sandbox_drop_thread(struct err *e);

#endif
