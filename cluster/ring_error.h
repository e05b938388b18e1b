/* SPDX-License-Identifier: ISC */
/* ring_error: what corosync's libraries answer, in words that say what to do. */
#ifndef CLUSTER_RING_ERROR_H
#define CLUSTER_RING_ERROR_H

#include "base/err.h"

#define RING_SILENT                                                                                \
    "corosync does not answer: it hangs, or gets no CPU; see its log, then systemctl restart "     \
    "corosync"

/* `cs` is a cs_error_t, `what` the part of corosync that was asked. Returns -1. */
int ring_error(struct err *e, int cs, const char *what);

#endif
