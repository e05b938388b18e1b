/* SPDX-License-Identifier: ISC */
/*
 * kvm_internal: what kvm.c and vcpu_state.c share: the form in which KVM's structs go
 * into a state section, and the clock that both the VM and its vCPUs are set by.
 */
#ifndef XVM_KVM_INTERNAL_H
#define XVM_KVM_INTERNAL_H

#include "hypervisor/xvm/machine_internal.h"

/* A struct with its length in front; reading refuses another length. */
void put_struct(struct state_writer *w, const void *s, size_t len);
int get_struct(struct state_reader *r, void *s, size_t len, struct err *e);

/* state_open, and the version must be this one. */
int open_version(struct state_blob *b, const char *name, uint32_t version, struct state_reader *r,
    struct err *e);

int clock_save(struct machine *m, struct state_writer *w, struct clock_state *c, struct err *e);
/* Sets kvmclock; c is what vcpu_load wants. */
int clock_load(struct machine *m, struct state_blob *b, struct clock_state *c, struct err *e);

#endif
