/* SPDX-License-Identifier: ISC */
/*
 * clock: the only clocks of the project. Durations and deadlines use the
 * monotonic one, in nanoseconds; what the cluster agrees on (leases, fuses) uses one that
 * counts while the host sleeps, in milliseconds; wall time is for logs, certificates and
 * records that people read. Pure modules (policy, decision core) get time as an argument.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_US UINT64_C(1000)

static inline uint64_t clock_of(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* Nanoseconds of CLOCK_MONOTONIC. */
static inline uint64_t clock_ns(void)
{
    return clock_of(CLOCK_MONOTONIC);
}

/* Milliseconds of CLOCK_BOOTTIME: it goes on while the host is suspended. */
static inline uint64_t clock_boot_ms(void)
{
    return clock_of(CLOCK_BOOTTIME) / NS_PER_MS;
}

/* Nanoseconds since the epoch by CLOCK_REALTIME. */
static inline uint64_t clock_wall_ns(void)
{
    return clock_of(CLOCK_REALTIME);
}

/* CPU time of the calling process, all threads, in nanoseconds. */
static inline uint64_t clock_cpu_ns(void)
{
    return clock_of(CLOCK_PROCESS_CPUTIME_ID);
}

#endif
