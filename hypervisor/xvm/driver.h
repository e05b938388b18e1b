/* SPDX-License-Identifier: ISC */
/*
 * driver: the client side of the bundled hypervisor. Implements hypervisor.h by
 * spawning one xvm-domain process per domain and talking to its control socket
 * (run_dir/<uuid>/control, messages of xvm.proto). Holds no state that a restart
 * would miss: the sockets on disk are the truth.
 */
#ifndef XVM_DRIVER_H
#define XVM_DRIVER_H

#include "hypervisor/hypervisor.h"

extern const struct hv_ops xvm_driver;

#endif
