/* SPDX-License-Identifier: ISC */
/*
 * guest_abi: numbers of the CPU, of PVH and of our hypervisor, for assembly and C alike.
 * The ports are a contract with hypervisor/xvm; tests/guests/README.md explains them.
 */
#ifndef GUEST_ABI_H
#define GUEST_ABI_H

#define XEN_ELFNOTE_PHYS32_ENTRY 18

#define PORT_CONSOLE 0x3f8
#define PORT_KEYBOARD 0x64
#define PORT_PANIC 0x505
#define PORT_SLEEP 0x506
#define PORT_OWNER 0x508
#define PORT_OWNER_HOST 0x50c
#define PORT_PM1_STATUS 0x600
#define PORT_PM1_CONTROL 0x604
#define KEYBOARD_RESET 0xfe
#define PM1_POWER_BUTTON 0x0100
#define PM1_SLP_EN 0x2000

#define CR0_MP 0x2
#define CR0_EM 0x4
#define CR0_TS 0x8
#define CR0_NE 0x20
#define CR0_PG 0x80000000
#define CR4_PAE 0x20
#define CR4_OSFXSR 0x200
#define CR4_OSXMMEXCPT 0x400
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define RFLAGS_ONE 0x2
#define RFLAGS_IOPL3 0x3000

/* Present, writable, user; accessed and dirty are set so that the CPU need not. */
#define PTE_TABLE 0x27
#define PTE_LARGE 0xe7

#define SEL_KERNEL_CODE 0x08
#define SEL_KERNEL_DATA 0x10
#define SEL_USER_DATA 0x1b
#define SEL_USER_CODE 0x23
#define SEL_TSS 0x28

/* UD2 in ring 3 with this in RAX is a call to ring 0. */
#define CALL_VECTOR 6
#define CALL_MAGIC 0x7a11

#define MAX_GIB 64 /* guest memory that can be mapped */

#endif
