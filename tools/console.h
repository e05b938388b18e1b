/* SPDX-License-Identifier: ISC */
/*
 * console: this terminal joined to a domain's console pty. On a terminal every key goes
 * through, and ^] leaves. Otherwise standard input is sent, and after its end the answer
 * is printed until nothing has come for a second.
 */
#ifndef TOOLS_CONSOLE_H
#define TOOLS_CONSOLE_H

#include "base/err.h"

/* Returns when the user leaves, the console closes, or `limit_s` (0: none) have passed. */
int console_attach(const char *pty, unsigned limit_s, struct err *e);

#endif
