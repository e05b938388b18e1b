/* SPDX-License-Identifier: ISC */
/*
 * watchdog: the host's hardware watchdog, the last resort against a guest that its fuse did not
 * stop. Opened only if one is configured. It is petted from the loop while the decision core allows
 * it (HA_ACT_WATCHDOG); a core that stops allowing it, and a loop that hangs, reset the host after
 * the device's time. An ordinary end disarms it, the end of the process by any other way does not.
 * In the loop's thread.
 */
#ifndef CLUSTER_WATCHDOG_H
#define CLUSTER_WATCHDOG_H

#include <uv.h>

#include "base/err.h"

struct watchdog;

/* Opens and thereby arms the device: from now on it must be petted, and may be for `timeout_ms`.
 * -1: it is not there, somebody else has it, or it can't do that time. A FIFO that somebody reads,
 * or a file, stands in for a device in tests: without ioctls. */
int watchdog_open(
    uv_loop_t *loop, const char *path, unsigned timeout_ms, struct watchdog **out, struct err *e);
/* May be petted until then, in ms of clock_boot_ms(); petted at once if that is to come. */
void watchdog_allow(struct watchdog *w, uint64_t deadline_ms);
/* Petted less than its time ago. */
bool watchdog_fed(const struct watchdog *w);
/* The time that is in force: a device may have rounded it up to seconds. */
unsigned watchdog_time_ms(const struct watchdog *w);
/* `disarm`: an ordinary end, the host goes on; else it is left armed, and resets the host unless
 * the daemon is back in time. *w is NULL afterwards; freed when the loop has run its close
 * callback. */
void watchdog_close(struct watchdog **w, bool disarm);

#endif
