/* SPDX-License-Identifier: ISC */
/*
 * cpu: where a feature word of hv_caps comes from, for drivers that fill the words
 * from CPUID tables of their own (what the hypervisor offers) instead of the CPU's.
 */
#ifndef HYPERVISOR_CPU_H
#define HYPERVISOR_CPU_H

#include "hypervisor/hypervisor.h"

enum hv_reg { HV_EAX, HV_EBX, HV_ECX, HV_EDX };

struct hv_word_place {
    const char *name;
    uint32_t leaf, index;
    enum hv_reg reg;
};

/* NULL beyond the last word. */
const struct hv_word_place *hv_word_place(unsigned word);

/* Family, model number and stepping from CPUID 1.eax. */
void hv_cpu_signature(struct hv_caps *out, uint32_t leaf1_eax);

#endif
