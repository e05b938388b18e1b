/* SPDX-License-Identifier: ISC */
/*
 * cpu_level: the CPU that a guest is shown, as text in its definition:
 *   ""                       what the host has
 *   "x86-64-v1" to "-v4"     a level of the x86-64 psABI, the same on every host
 *   "VENDOR/WORD=HEX,..."    a level of one's own, made by `migctl cpu baseline`, with the names
 *                            of hv_feature_word_name; words that are not named are 0
 * "host" and the psABI's levels may be followed by ",-FEATURE" and ",+FEATURE". Pure: masks,
 * no CPUID. What a feature needs is taken away with it.
 */
#ifndef HYPERVISOR_CPU_LEVEL_H
#define HYPERVISOR_CPU_LEVEL_H

#include "hypervisor/hypervisor.h"

#define CPU_LEVEL_MAX 400 /* bytes of the text */

/* Is it a level at all, and can a 64-bit guest boot with it? For define_check. */
int cpu_level_check(const char *level, struct err *e);
/* Takes away from `caps` (what the host offers) what the level has not. ERR_REFUSED, with the
 * names, if the level has something that the host lacks. */
int cpu_level_apply(const char *level, struct hv_caps *caps, struct err *e);
/* The text for what all of `caps` share; -1 if vendors differ. */
int cpu_level_common(const struct hv_caps *caps, size_t n, char out[CPU_LEVEL_MAX], struct err *e);
/* The highest level of the psABI whose features are all there; "" none. */
const char *cpu_level_of(const uint32_t *features, size_t n);
/* Features of `guest` that `host` lacks, by name, as "avx512f avx512bw"; returns how many. What
 * does not fit into `out` is counted only; words beyond `n` count as 0. `out` may be NULL. */
unsigned cpu_level_missing(
    const uint32_t *guest, size_t n, const uint32_t *host, char *out, size_t len);

#endif
