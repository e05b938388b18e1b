/* SPDX-License-Identifier: ISC */
/*
 * The CPU's feature words, in an order that every release keeps: new words go to the
 * end. Names follow /proc/cpuinfo of Linux where it has one. hv_cpuid_word reads a word
 * out of any CPUID leaf by its place, so that drivers can fill the same words from what
 * they offer to guests.
 */
#include "hypervisor/cpu.h"

#include <cpuid.h>
#include <string.h>

/* The register of a leaf that a word is. */
static const struct hv_word_place places[] = {
    { "1.ecx", 0x1, 0, HV_ECX }, { "1.edx", 0x1, 0, HV_EDX }, { "7.0.ebx", 0x7, 0, HV_EBX },
    { "7.0.ecx", 0x7, 0, HV_ECX }, { "7.0.edx", 0x7, 0, HV_EDX }, { "7.1.eax", 0x7, 1, HV_EAX },
    { "7.1.edx", 0x7, 1, HV_EDX }, { "7.2.edx", 0x7, 2, HV_EDX }, { "d.0.eax", 0xd, 0, HV_EAX },
    { "d.1.eax", 0xd, 1, HV_EAX }, { "80000001.ecx", 0x80000001, 0, HV_ECX },
    { "80000001.edx", 0x80000001, 0, HV_EDX }, { "80000007.edx", 0x80000007, 0, HV_EDX },
    { "80000008.ebx", 0x80000008, 0, HV_EBX }, { "80000021.eax", 0x80000021, 0, HV_EAX },
    { "6.eax", 0x6, 0, HV_EAX }, { "14.0.ebx", 0x14, 0, HV_EBX }, { "19.ebx", 0x19, 0, HV_EBX },
    { "40000001.eax", 0x40000001, 0, HV_EAX }, /* KVM's own; 0 on a bare CPU */
};
#define N_PLACES (sizeof places / sizeof places[0])
_Static_assert(N_PLACES <= HV_FEATURE_WORDS, "more words than hv_caps has room for");

static const char *const names_1_ecx[32] = { "pni", "pclmulqdq", "dtes64", "monitor", "ds_cpl",
    "vmx", "smx", "est", "tm2", "ssse3", "cid", "sdbg", "fma", "cx16", "xtpr", "pdcm", NULL, "pcid",
    "dca", "sse4_1", "sse4_2", "x2apic", "movbe", "popcnt", "tsc_deadline_timer", "aes", "xsave",
    "osxsave", "avx", "f16c", "rdrand", "hypervisor" };
static const char *const names_1_edx[32] = { "fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce",
    "cx8", "apic", NULL, "sep", "mtrr", "pge", "mca", "cmov", "pat", "pse36", "pn", "clflush", NULL,
    "dts", "acpi", "mmx", "fxsr", "sse", "sse2", "ss", "ht", "tm", "ia64", "pbe" };
static const char *const names_7_ebx[32] = { "fsgsbase", "tsc_adjust", "sgx", "bmi1", "hle", "avx2",
    "fdp_excptn_only", "smep", "bmi2", "erms", "invpcid", "rtm", "cqm", "zero_fcs_fds", "mpx",
    "rdt_a", "avx512f", "avx512dq", "rdseed", "adx", "smap", "avx512ifma", "pcommit", "clflushopt",
    "clwb", "intel_pt", "avx512pf", "avx512er", "avx512cd", "sha_ni", "avx512bw", "avx512vl" };
static const char *const names_7_ecx[32] = { "prefetchwt1", "avx512vbmi", "umip", "pku", "ospke",
    "waitpkg", "avx512_vbmi2", "cet_ss", "gfni", "vaes", "vpclmulqdq", "avx512_vnni",
    "avx512_bitalg", "tme", "avx512_vpopcntdq", NULL, "la57", NULL, NULL, NULL, NULL, NULL, "rdpid",
    "key_locker", "bus_lock_detect", "cldemote", NULL, "movdiri", "movdir64b", "enqcmd", "sgx_lc",
    "pks" };
static const char *const names_7_edx[32] = { NULL, NULL, "avx512_4vnniw", "avx512_4fmaps", "fsrm",
    "uintr", NULL, NULL, "avx512_vp2intersect", "srbds_ctrl", "md_clear", "rtm_always_abort", NULL,
    "tsx_force_abort", "serialize", "hybrid_cpu", "tsxldtrk", NULL, "pconfig", "arch_lbr", "ibt",
    NULL, "amx_bf16", "avx512_fp16", "amx_tile", "amx_int8", "spec_ctrl", "stibp", "flush_l1d",
    "arch_capabilities", "core_capabilities", "spec_ctrl_ssbd" };
static const char *const names_7_1_eax[32] = { NULL, NULL, NULL, NULL, "avx_vnni", "avx512_bf16",
    NULL, "cmpccxadd", NULL, NULL, "fzrm", "fsrs", "fsrc", NULL, NULL, NULL, NULL, "fred", "lkgs",
    NULL, NULL, "amx_fp16", NULL, "avx_ifma", NULL, NULL, "lam" };
static const char *const names_d_0_eax[32] = { "x87", "sse_state", "avx_state", "bndregs", "bndcsr",
    "opmask", "zmm_hi256", "hi16_zmm", NULL, "pkru_state", NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    "xtilecfg", "xtiledata" };
static const char *const names_d_1_eax[32] = { "xsaveopt", "xsavec", "xgetbv1", "xsaves", "xfd" };
static const char *const names_ext_ecx[32] = { "lahf_lm", "cmp_legacy", "svm", "extapic",
    "cr8_legacy", "abm", "sse4a", "misalignsse", "3dnowprefetch", "osvw", "ibs", "xop", "skinit",
    "wdt", NULL, "lwp", "fma4", "tce", NULL, "nodeid_msr", NULL, "tbm", "topoext", "perfctr_core",
    "perfctr_nb", NULL, "bpext", "ptsc", "perfctr_llc", "mwaitx" };
static const char *const names_ext_edx[32] = { "fpu", "vme", "de", "pse", "tsc", "msr", "pae",
    "mce", "cx8", "apic", NULL, "syscall", "mtrr", "pge", "mca", "cmov", "pat", "pse36", NULL, "mp",
    "nx", NULL, "mmxext", "mmx", "fxsr", "fxsr_opt", "pdpe1gb", "rdtscp", NULL, "lm", "3dnowext",
    "3dnow" };
static const char *const names_7_power[32] = { "ts", "fid", "vid", "ttp", "tm", "stc",
    "100mhzsteps", "hwpstate", "constant_tsc", "cpb", "aperfmperf" };
static const char *const names_8_ebx[32] = { "clzero", "irperf", "xsaveerptr", NULL, "rdpru", NULL,
    NULL, NULL, NULL, "wbnoinvd", NULL, NULL, "amd_ibpb", NULL, "amd_ibrs", "amd_stibp", NULL,
    "amd_stibp_always_on", NULL, NULL, NULL, NULL, NULL, "amd_ppin", "amd_ssbd", "virt_ssbd",
    "amd_ssb_no", NULL, "amd_psfd" };

static const char *const names_7_1_edx[32] = { NULL, NULL, NULL, NULL, "avx_vnni_int8",
    "avx_ne_convert", NULL, NULL, "amx_complex", NULL, NULL, NULL, NULL, NULL, "prefetchi" };
static const char *const names_21_eax[32] = { "no_nested_data_bp", NULL, "lfence_serializing", NULL,
    NULL, NULL, "null_sel_clr_base", NULL, "autoibrs", "no_smm_ctl_msr" };
static const char *const names_6_eax[32] = { "dtherm", "ida", "arat", NULL, "pln", "ecmd", "pts",
    "hwp", "hwp_notify", "hwp_act_window", "hwp_epp", "hwp_pkg_req" };
static const char *const names_kvm[32] = { "kvm_clock", "kvm_nop_io", "kvm_mmu_op", "kvm_clock_new",
    "kvm_async_pf", "kvm_steal_time", "kvm_eoi", "kvm_unhalt", NULL, "kvm_tlb_flush",
    "kvm_async_pf_vmexit", "kvm_send_ipi", "kvm_poll_control", "kvm_sched_yield",
    "kvm_async_pf_int", "kvm_msi_ext_dest_id", "kvm_hc_map_gpa_range", "kvm_migration_control",
    NULL, NULL, NULL, NULL, NULL, NULL, "kvm_clock_stable" };

/* By word, NULL where no bit of the word has a name. */
static const char *const *const names[N_PLACES] = { names_1_ecx, names_1_edx, names_7_ebx,
    names_7_ecx, names_7_edx, names_7_1_eax, names_7_1_edx, NULL, names_d_0_eax, names_d_1_eax,
    names_ext_ecx, names_ext_edx, names_7_power, names_8_ebx, names_21_eax, names_6_eax, NULL, NULL,
    names_kvm };

const struct hv_word_place *hv_word_place(unsigned word)
{
    return word < N_PLACES ? &places[word] : NULL;
}

const char *hv_feature_word_name(unsigned word)
{
    return word < N_PLACES ? places[word].name : NULL;
}

const char *hv_feature_name(unsigned word, unsigned bit)
{
    if (word >= N_PLACES || bit > 31 || names[word] == NULL)
        return NULL;
    return names[word][bit];
}

static uint32_t host_word(const struct hv_word_place *p)
{
    unsigned r[4] = { 0 };

    if (!__get_cpuid_count(p->leaf, p->index, &r[HV_EAX], &r[HV_EBX], &r[HV_ECX], &r[HV_EDX]))
        return 0;
    return r[p->reg];
}

void hv_cpu_signature(struct hv_caps *out, uint32_t leaf1_eax)
{
    uint32_t family = leaf1_eax >> 8 & 0xf, model = leaf1_eax >> 4 & 0xf;

    if (family == 0xf || family == 6)
        model |= (leaf1_eax >> 16 & 0xf) << 4;
    if (family == 0xf)
        family += leaf1_eax >> 20 & 0xff;
    out->cpu_family = family;
    out->cpu_model_no = model;
    out->cpu_stepping = leaf1_eax & 0xf;
}

static void host_model(struct hv_caps *out)
{
    uint32_t r[12] = { 0 };
    size_t from = 0;

    for (unsigned i = 0; i < 3; i++)
        if (!__get_cpuid(0x80000002 + i, &r[4 * i], &r[4 * i + 1], &r[4 * i + 2], &r[4 * i + 3]))
            return;
    memcpy(out->cpu_model, r, sizeof r);
    out->cpu_model[48] = '\0';
    while (out->cpu_model[from] == ' ')
        from++;
    memmove(out->cpu_model, out->cpu_model + from, sizeof out->cpu_model - from);
    for (size_t n = strlen(out->cpu_model); n > 0 && out->cpu_model[n - 1] == ' '; n--)
        out->cpu_model[n - 1] = '\0';
}

void hv_host_cpu(struct hv_caps *out)
{
    unsigned a = 0, b = 0, c = 0, d = 0;

    memset(out->features, 0, sizeof out->features);
    memset(out->cpu_vendor, 0, sizeof out->cpu_vendor);
    __get_cpuid(0, &a, &b, &c, &d);
    memcpy(out->cpu_vendor, &b, 4);
    memcpy(out->cpu_vendor + 4, &d, 4);
    memcpy(out->cpu_vendor + 8, &c, 4);
    if (__get_cpuid(1, &a, &b, &c, &d))
        hv_cpu_signature(out, a);
    host_model(out);
    for (unsigned i = 0; i < N_PLACES; i++)
        out->features[i] = host_word(&places[i]);
    if (__get_cpuid_count(0xd, 0, &a, &b, &c, &d)) {
        out->xcr0 = (uint64_t)d << 32 | a;
        out->xsave_size = c;
    }
}
