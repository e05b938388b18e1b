/* SPDX-License-Identifier: ISC */
/*
 * registers: canaries in the vCPU's registers that ring 3 can reach: XMM0..15, MXCSR, the x87
 * control word, FS and GS bases. The guest is compiled for general registers only, so nothing but
 * a lost or mixed-up vCPU state changes them. boot.c keeps the like for ring 0's registers.
 */
#include "guest.h"

#define MXCSR_CANARY 0x3f80u /* default with rounding down */
#define FCW_CANARY 0x077f    /* default with rounding down */

extern uint64_t fs_area[8], gs_area[8];

static uint64_t pattern[32] __attribute__((aligned(16)));

#define FOR_XMM(op)                                                                                \
    op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) \
        op(15)
#define LOAD(n) __asm__ volatile("movdqa %0, %%xmm" #n : : "m"(pattern[2 * (n)]), "m"(pattern));
#define STORE(n) __asm__ volatile("movdqa %%xmm" #n ", %0" : "=m"(seen[2 * (n)]));

void registers_init(void)
{
    uint32_t mxcsr = MXCSR_CANARY;
    uint16_t fcw = FCW_CANARY;
    for (unsigned i = 0; i < 32; i++)
        pattern[i] = mix64(opt.seed + 1000 + i);
    fs_area[0] = mix64(opt.seed + 2000);
    gs_area[0] = mix64(opt.seed + 2001);
    FOR_XMM(LOAD)
    __asm__ volatile("ldmxcsr %0; fninit; fldcw %1" : : "m"(mxcsr), "m"(fcw));
}

bool registers_fpu_ok(void)
{
    uint64_t seen[32] __attribute__((aligned(16)));
    uint32_t mxcsr;
    uint16_t fcw;
    FOR_XMM(STORE)
    __asm__ volatile("stmxcsr %0; fnstcw %1" : "=m"(mxcsr), "=m"(fcw));
    for (unsigned i = 0; i < 32; i++)
        if (seen[i] != pattern[i])
            return false;
    return mxcsr == MXCSR_CANARY && fcw == FCW_CANARY;
}

bool registers_ok(void)
{
    uint64_t fs, gs;
    __asm__ volatile("mov %%fs:0, %0; mov %%gs:0, %1" : "=&r"(fs), "=r"(gs));
    return fs == fs_area[0] && gs == gs_area[0] && call_ring0(RING0_CHECK_REGISTERS) == 0;
}
