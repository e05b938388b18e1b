/* SPDX-License-Identifier: ISC */
/*
 * fault: named fault points inside the real code, so that a test can hit an exact
 * step. `FAULT("source-after-commit")` does nothing unless the point is armed:
 *
 *   MIGRD_FAULT       "name=action[,name=action...]", for the life of the process
 *   MIGRD_FAULT_FILE  a file that is looked at at each point, so that a test arms points while
 *                     the programs run. Its first FAULT_TEXT bytes: "SERIAL name=action[,...]\n"
 *                     padded with zeroes; a new SERIAL arms anew. The process writes
 *                     "SERIAL PID name\n" behind them when a point fires. The file is opened
 *                     at the first point and must be written in place, in one piece.
 *
 * Both are read from the environment once. Actions: kill (SIGKILL to oneself), exit, stop (SIGSTOP
 * until somebody sends SIGCONT), error (the macro is true), sleep:MS. Each fires once in each
 * process. Without the variables a point costs one comparison; with -DNO_FAULTS nothing.
 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include <stdbool.h>

#define FAULT_TEXT 512

#ifdef NO_FAULTS
#define FAULT(name) (false)
#else
#define FAULT(name) fault_hit(name)
#endif

/* True when the armed action is "error": the caller takes its failure path. */
bool fault_hit(const char *name);

#endif
