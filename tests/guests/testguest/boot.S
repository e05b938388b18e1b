/* SPDX-License-Identifier: ISC */
/*
 * boot: from the PVH entry (32 bit, no paging, EBX = start info) to ring 3.
 *
 * entry32 maps the first 4 GiB with 2 MiB pages and goes to long mode; long_entry calls
 * boot_ring0 (boot.c), which maps the rest and fills in what needs ring 0; then IRETQ drops
 * to guest_main in ring 3 with IOPL 3 and interrupts off. There is no way back, except for
 * exceptions. They are all fatal but one: UD2 with CALL_MAGIC in RAX is how ring 3 has
 * privileged registers checked (INT and SYSCALL are not emulated everywhere). On hosts without hardware virtualization every ring 0 instruction is
 * emulated, slowly: so little is done here.
 */
#include "guest_abi.h"

    .section .note.pvh, "a", @note
    .long 4, 4, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long entry32

    .section .text.boot, "ax"
    .code32
    .globl entry32
entry32:
    cld
    mov $boot_stack_top, %esp
    mov %ebx, start_info_pa

    movl $pdpt + PTE_TABLE, pml4
    mov $pdpt, %edi
    mov $page_dirs + PTE_TABLE, %eax
    mov $4, %ecx
1:  mov %eax, (%edi)
    add $8, %edi
    add $4096, %eax
    dec %ecx
    jnz 1b

    mov $page_dirs, %edi
    mov $PTE_LARGE, %eax
    mov $2048, %ecx
2:  mov %eax, (%edi)
    add $8, %edi
    add $0x200000, %eax
    dec %ecx
    jnz 2b

    mov $pml4, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $(CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT), %eax
    mov %eax, %cr4
    mov $MSR_EFER, %ecx
    rdmsr
    or $EFER_LME, %eax
    wrmsr
    mov %cr0, %eax
    and $~(CR0_EM | CR0_TS), %eax
    or $(CR0_PG | CR0_NE | CR0_MP), %eax
    mov %eax, %cr0
    lgdt gdt_pointer
    ljmp $SEL_KERNEL_CODE, $long_entry

    .code64
long_entry:
    mov $SEL_KERNEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $boot_stack_top, %rsp
    mov start_info_pa, %edi
    call boot_ring0

    mov $SEL_USER_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    push $SEL_USER_DATA
    push $user_stack_top - 8 /* as after a call */
    push $(RFLAGS_ONE | RFLAGS_IOPL3)
    push $SEL_USER_CODE
    push $guest_main
    iretq

/* Exceptions: an error code is made up where the CPU pushes none; then all look the same. */
    .text
    .altmacro
    .macro stub n
stub_\n:
    .if (\n != 8) && (\n != 17) && ((\n < 10) || (\n > 14))
    push $0
    .endif
    push $\n
    jmp fault_common
    .endm
    .set i, 0
    .rept 32
    stub %i
    .set i, i + 1
    .endr

fault_common:
    cmpq $CALL_VECTOR, (%rsp)
    jne 1f
    cmp $CALL_MAGIC, %rax
    je ring0_gate
1:  mov %rsp, %rdi
    call fault_ring0
    jmp .

ring0_gate: /* RDI = enum ring0_call; RAX = its result; goes on behind the UD2 */
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    call ring0_call
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    add $16, %rsp
    addq $2, (%rsp)
    iretq

    .section .rodata
    .globl stub_table
    .balign 8
    .macro stub_address n
    .quad stub_\n
    .endm
stub_table:
    .set i, 0
    .rept 32
    stub_address %i
    .set i, i + 1
    .endr

    .data
    .balign 16
    .globl gdt
gdt:
    .quad 0
    .quad 0x00af9b000000ffff /* kernel code, 64 bit */
    .quad 0x00cf93000000ffff /* kernel data */
    .quad 0x00cff3000000ffff /* user data */
    .quad 0x00affb000000ffff /* user code, 64 bit */
    .quad 0, 0               /* TSS, filled in by boot.c */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt

    .bss
    .balign 4096
    .globl pml4, pdpt, page_dirs, ring0_stack_top
pml4:
    .skip 4096
pdpt:
    .skip 4096
page_dirs:
    .skip 4096 * MAX_GIB
boot_stack:
    .skip 8192
boot_stack_top:
ring0_stack_top: /* free for exceptions once ring 3 runs */
user_stack:
    .skip 32768
user_stack_top:
start_info_pa:
    .skip 8

    .section .note.GNU-stack, "", @progbits
