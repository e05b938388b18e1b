/* SPDX-License-Identifier: ISC */
/*
 * worker: what the program migrd-worker does, as a function, so that tests can run it
 * over a hypervisor of their own. migrd's first message on the descriptor says which
 * job it is; the answer to every job is exactly one Finished, sent last.
 */
#ifndef WORKER_H
#define WORKER_H

#include <stdbool.h>

#include "hypervisor/hypervisor.h"

struct worker_options {
    const struct hv_ops *(*find)(const char *name); /* hv_driver, or a test's */
    bool sandbox;                                   /* drop privileges once attached */
    bool strict;                                    /* refuse to work when that fails */
};

/* Takes over `fd`. 0 when the job ended well. */
int worker_run(int fd, const struct worker_options *opt);

#endif
