/* SPDX-License-Identifier: ISC */
/*
 * control: the control thread of an xvm-domain process: serves xvm.proto on a listening
 * socket and owns the machine.
 */
#ifndef XVM_CONTROL_H
#define XVM_CONTROL_H

#include "base/err.h"

struct control_config {
    const char *uuid;
    const char *run_dir; /* this domain's folder */
    const char *log_dir;
    int listen_fd;
    int stop_fd; /* an eventfd: somebody wants the process to end (SIGTERM) */
};

/* Returns when the domain is destroyed, was never built, or stop_fd says so; everything of it is
 * released and its folder removed then. -1 if it could not serve at all. */
int control_serve(const struct control_config *cfg, struct err *e);

#endif
