/* SPDX-License-Identifier: ISC */
/*
 * fault: named fault points inside the real code, so that a test can hit an exact
 * step. `FAULT("source-after-commit")` does nothing unless MIGRD_FAULT in the
 * environment names the point: "name=action[,name=action...]", where action is
 *   kill (SIGKILL to oneself), exit, stop (SIGSTOP), error (the macro is true),
 *   sleep:MS. Each fires once. Compiled to nothing with -DNO_FAULTS.
 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include <stdbool.h>

#ifdef NO_FAULTS
#define FAULT(name) (false)
#else
#define FAULT(name) fault_hit(name)
#endif

/* True when the armed action is "error": the caller takes its failure path. */
bool fault_hit(const char *name);

#endif
