/* SPDX-License-Identifier: ISC */
/*
 * The rules of a migration, one by one: a world in which all is well, one thing that is not,
 * and the exact line that says so. Storage's own comparisons: test_compare.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/pbjson.h"
#include "hypervisor/hypervisor.h"
#include "migrd/compat/compat_internal.h"

#define MAC "00:16:3e:01:02:03"
#define T(s) ((char *)(uintptr_t)(s))

/* All of a comparison. */
struct world {
    Migrd__Domain def, other;
    Migrd__Vif vif, other_vif, *vifs[1], *other_vifs[1];
    Migrd__Disk disk, *disks[1];
    Migrd__HostFacts src, dst;
    Migrd__CpuReport guest, cpu;
    uint32_t guest_words[HV_FEATURE_WORDS], cpu_words[HV_FEATURE_WORDS];
    Migrd__NetFacts src_net, dst_net, tap, *src_nets[1], *dst_nets[2];
    Migrd__HugePages huge, *huges[1];
    Migrd__DiskIdentity there, *theres[1], here, *heres[1];
    uint32_t src_vlans[4], dst_vlans[4];
    char *src_subnets[2], *dst_subnets[2], *macs[1];
    const Migrd__Domain *others[1];
    struct err taken;
    Migrd__Offer offer;
    struct compat in;
};

static void make_nets(struct world *w)
{
    migrd__net_facts__init(&w->src_net);
    w->src_net.name = T("br0");
    w->src_net.kind = T("bridge");
    w->src_net.mtu = 1500;
    w->dst_net = w->src_net;
    w->src_subnets[0] = w->dst_subnets[0] = T("10.0.0.0/24");
    w->src_net.subnets = w->src_subnets;
    w->dst_net.subnets = w->dst_subnets;
    w->src_net.n_subnets = w->dst_net.n_subnets = 1;
    w->src_net.vlans = w->src_vlans;
    w->dst_net.vlans = w->dst_vlans;
    w->src_nets[0] = &w->src_net;
    w->dst_nets[0] = &w->dst_net;
    migrd__net_facts__init(&w->tap);
    w->tap.name = T("tap7");
    w->dst_nets[1] = &w->tap;
}

static void make_cpus(struct world *w)
{
    migrd__cpu_report__init(&w->guest);
    w->guest.vendor = T("AuthenticAMD");
    w->guest.model = T("AMD EPYC 7543");
    w->guest.xsave_size = 832;
    w->guest.xcr0 = 7;
    w->guest.tsc_khz = 2800000;
    w->guest.n_features = HV_FEATURE_WORDS;
    w->cpu = w->guest;
    w->guest_words[0] = w->cpu_words[0] = UINT32_C(1) << 26; /* xsave */
    w->guest.features = w->guest_words;
    w->cpu.features = w->cpu_words;
}

static void make_hosts(struct world *w)
{
    migrd__host_facts__init(&w->src);
    w->src.host = T("host1");
    w->src.hypervisor = T("xvm");
    w->src.hypervisor_release = T("1");
    w->src.release = T("0.1");
    w->src.cpu = &w->cpu;
    w->src.cpus = 8;
    w->src.max_vcpus = 64;
    w->src.memory_total_kib = 16u << 20;
    w->src.memory_free_kib = 8u << 20;
    w->dst = w->src;
    w->dst.host = T("host2");
    w->src.nets = w->src_nets;
    w->src.n_nets = 1;
    w->dst.nets = w->dst_nets;
    w->dst.n_nets = 2;
    migrd__huge_pages__init(&w->huge);
    w->huge.size_kib = 2048;
    w->huge.total = w->huge.free = 1024;
    w->huges[0] = &w->huge;
    w->dst.huge_pages = w->huges;
    w->dst.n_huge_pages = 1;
}

static void make_domains(struct world *w)
{
    migrd__vif__init(&w->vif);
    w->vif.mac = T(MAC);
    w->vif.bridge = T("br0");
    w->vifs[0] = &w->vif;
    migrd__domain__init(&w->def);
    w->def.uuid = T("11111111-2222-3333-4444-555555555555");
    w->def.name = T("web1");
    w->def.hypervisor = T("xvm");
    w->def.memory_kib = w->def.max_memory_kib = 1u << 20;
    w->def.vcpus = 2;
    w->def.kernel = T("/boot/vmlinuz");
    w->def.initrd = T("/boot/initrd.img");
    w->def.vifs = w->vifs;
    w->def.n_vifs = 1;
    w->other = w->def;
    w->other.name = T("db1");
    w->other_vif = w->vif;
    w->other_vif.mac = T("00:16:3e:01:02:04");
    w->other_vifs[0] = &w->other_vif;
    w->other.vifs = w->other_vifs;
    w->others[0] = &w->other;
    migrd__disk__init(&w->disk);
    w->disk.source = T("/srv/web1.img");
    w->disk.device = T("vda");
    w->disks[0] = &w->disk;
    migrd__disk_identity__init(&w->there);
    w->there.device = T("vda");
    w->there.source = T("/srv/web1.img");
    w->here = w->there;
    w->theres[0] = &w->there;
    w->heres[0] = &w->here;
}

static void make_world(struct world *w)
{
    memset(w, 0, sizeof *w);
    make_nets(w);
    make_cpus(w);
    make_hosts(w);
    make_domains(w);
    migrd__offer__init(&w->offer);
    w->offer.source_host = T("host1");
    w->offer.domain = &w->def;
    w->offer.cpu = &w->cpu;
    w->offer.guest_cpu = &w->guest;
    w->offer.hypervisor_release = T("1");
    w->offer.source = &w->src;
    w->offer.identified = true;
    w->in = (struct compat){ .offer = &w->offer,
        .target = &w->dst,
        .others = w->others,
        .n_others = 1,
        .committed_kib = 4u << 20,
        .taken = &w->taken };
}

/* --- what is not well --- */

#define CASE(name) static void name(struct world *w)

CASE(name_taken)
{
    err_set(&w->taken, ERR_EXISTS, "domain web1 exists on host host2 already: running");
}
CASE(no_kernel)
{
    w->in.no_kernel = true;
}
CASE(no_initrd)
{
    w->in.no_initrd = true;
}
CASE(other_kind)
{
    w->dst.hypervisor = T("xen");
}
CASE(xvm_too_far)
{
    w->dst.hypervisor_release = T("3");
}
CASE(xvm_older)
{
    w->offer.hypervisor_release = T("2");
}
static void on_xen(struct world *w)
{
    w->def.hypervisor = w->src.hypervisor = w->dst.hypervisor = T("xen");
    w->offer.hypervisor_release = w->dst.hypervisor_release = T("4.17");
    w->dst.guest_types = 1u << MIGRD__GUEST_TYPE__GUEST_PVH | 1u << MIGRD__GUEST_TYPE__GUEST_PV;
}
CASE(xen_older)
{
    on_xen(w);
    w->offer.hypervisor_release = T("4.18");
}
CASE(xen_no_pvh)
{
    on_xen(w);
    w->dst.guest_types = 1u << MIGRD__GUEST_TYPE__GUEST_PV;
}
CASE(xen_no_pv)
{
    on_xen(w);
    w->def.type = MIGRD__GUEST_TYPE__GUEST_PV;
    w->dst.guest_types = 1u << MIGRD__GUEST_TYPE__GUEST_PVH;
}
CASE(xen_memory)
{
    on_xen(w);
    w->def.huge_pages = true; /* Xen has them by itself */
    w->dst.memory_free_kib = 1u << 20;
}
CASE(xen_native_tsc)
{
    on_xen(w);
    w->def.tsc_mode = T("native");
    w->cpu.tsc_khz = 2100000;
}
CASE(xen_vifname)
{
    on_xen(w);
    w->vif.ifname = T("tap7");
    w->tap.kind = T("tap");
}
CASE(migrd_too_far)
{
    w->dst.release = T("0.3");
}
CASE(migrd_older)
{
    w->src.release = T("0.2.1");
}
CASE(migrd_odd)
{
    w->src.release = T("devel");
}
CASE(no_facts)
{
    w->offer.source = NULL;
}
CASE(other_vendor)
{
    w->dst.cpu = &w->cpu;
    w->cpu.vendor = T("GenuineIntel");
}
CASE(no_cpu)
{
    w->offer.cpu = w->offer.guest_cpu = w->src.cpu = NULL;
}
CASE(lacks_avx512)
{
    w->guest_words[2] = UINT32_C(1) << 16 | UINT32_C(1) << 30;
}
CASE(lacks_avx2)
{
    w->guest_words[2] = UINT32_C(1) << 5;
}
/* A source of the release before names its host's CPU alone. */
CASE(old_source_lacks)
{
    static Migrd__CpuReport cpu;

    cpu = w->guest;
    w->guest_words[2] = UINT32_C(1) << 5;
    w->offer.cpu = &cpu;
    w->offer.guest_cpu = w->src.cpu = NULL;
}
CASE(xcr0_lacks)
{
    w->guest.xcr0 = 0xe7;
    w->guest.xsave_size = 2688;
}
CASE(xsave_larger)
{
    w->guest.xsave_size = 840;
}
CASE(tsc_faster)
{
    w->cpu.tsc_khz = 3080000;
}
CASE(tsc_faster_promised)
{
    tsc_faster(w);
    for (unsigned i = 0; hv_feature_word_name(i) != NULL; i++)
        if (strcmp(hv_feature_word_name(i), "80000007.edx") == 0)
            w->guest_words[i] = w->cpu_words[i] = 1u << 8;
}
CASE(tsc_slower)
{
    w->cpu.tsc_khz = 2100000;
}
CASE(many_vcpus)
{
    w->def.vcpus = 16;
}
CASE(one_cpu)
{
    w->dst.cpus = 1;
}
CASE(too_many_vcpus)
{
    w->def.vcpus = 65;
}
CASE(pinned_away)
{
    w->def.vcpu_pinning = T("8-11");
}
CASE(pinned_partly)
{
    w->def.vcpu_pinning = T("6-9");
}
CASE(memory_committed)
{
    w->in.committed_kib = 15u << 20;
    w->dst.memory_reserve_kib = 512u << 10;
}
CASE(memory_short)
{
    w->dst.memory_free_kib = 1536u << 10;
    w->dst.memory_reserve_kib = 768u << 10;
}
CASE(memory_promised)
{
    w->dst.memory_free_kib = 1536u << 10;
    w->dst.memory_promised_kib = 1u << 20;
}
CASE(memory_ballooned)
{
    w->def.max_memory_kib = 9u << 20;
}
CASE(memory_overcommit_short)
{
    w->dst.overcommit = true;
    w->dst.memory_free_kib = 512u << 10;
}
CASE(huge_none)
{
    w->def.huge_pages = true;
    w->dst.n_huge_pages = 0;
}
CASE(huge_short)
{
    w->def.huge_pages = true;
    w->huge.free = 500;
}
CASE(huge_promised)
{
    w->def.huge_pages = true;
    w->in.promised_huge_kib = 600u * 2048;
}
CASE(no_bridge)
{
    w->dst_net.kind = T("");
}
CASE(not_a_bridge)
{
    w->dst_net.kind = T("device");
}
CASE(mtu_smaller)
{
    w->src_net.mtu = 9000;
}
CASE(mtu_larger)
{
    w->dst_net.mtu = 9000;
}
CASE(vif_mtu)
{
    w->vif.mtu = 4000;
}
CASE(net_error)
{
    w->dst_net.error = T("VLANs of port eth1: it is secret");
}
CASE(vlan_missing)
{
    w->src_vlans[0] = 7;
    w->src_vlans[1] = 8;
    w->src_vlans[2] = 100;
    w->src_net.n_vlans = 3;
    w->dst_vlans[0] = 100;
    w->dst_net.n_vlans = 1;
}
CASE(vlan_untagged)
{
    w->src_vlans[0] = 100;
    w->src_net.n_vlans = 1;
}
CASE(vlan_only_there)
{
    w->dst_vlans[0] = 100;
    w->dst_net.n_vlans = 1;
}
CASE(subnet_differs)
{
    w->dst_subnets[0] = T("192.168.7.0/24");
}
CASE(subnet_one_side)
{
    w->dst_net.n_subnets = 0;
}
CASE(subnet_families)
{
    w->dst_subnets[0] = T("fd99::/64");
}
CASE(mac_of_domain)
{
    w->other_vif.mac = T("00:16:3E:01:02:03");
}
CASE(mac_on_bridge)
{
    w->macs[0] = T(MAC);
    w->dst_net.macs = w->macs;
    w->dst_net.n_macs = 1;
}
CASE(tap_in_use)
{
    w->vif.ifname = T("tap7");
    w->tap.kind = T("tap in use");
}
CASE(no_tap)
{
    w->vif.ifname = T("tap7");
    w->tap.kind = T("device");
}
CASE(disk_not_looked_at)
{
    w->def.disks = w->disks;
    w->def.n_disks = 1;
}
CASE(disk_not_told)
{
    disk_not_looked_at(w);
    w->in.disks = w->heres;
    w->in.n_disks = 1;
}
CASE(disk_renamed)
{
    disk_not_told(w);
    w->offer.disks = w->theres;
    w->offer.n_disks = 1;
    w->there.device = T("vdb");
}
CASE(old_source_disk_gone)
{
    disk_not_told(w);
    w->offer.identified = false;
    w->here.code = T("not-found");
    w->here.error = T("/srv/web1.img: No such file or directory");
}
CASE(old_source_disk_read_only)
{
    disk_not_told(w);
    w->offer.identified = false;
    w->here.read_only = true;
}
CASE(old_source_disk_in_use)
{
    disk_not_told(w);
    w->offer.identified = false;
    w->here.used_by = T("the device dm-0 that is made of it");
}

struct expected {
    void (*spoil)(struct world *w);
    enum check_result result;
    const char *area, *object, *source, *target, *text, *remedy;
};

#define W CHECK_WARN
#define R CHECK_REFUSED
#define VIF "vif " MAC
#define BASELINE                                                                                   \
    "boot the guest at a level that both hosts have: `migctl cpu baseline host1 host2` tells it, " \
    "cpu_level= sets it"

static const struct expected table[] = {
    { name_taken, R, "domain", "web1", "", "", "domain web1 exists on host host2 already: running",
        "" },
    { no_kernel, W, "domain", "kernel", "/boot/vmlinuz", "missing",
        "host host2 has no /boot/vmlinuz: domain web1 runs there, but cannot boot there again",
        "copy it to host host2 before the guest reboots" },
    { no_initrd, W, "domain", "initrd", "/boot/initrd.img", "missing",
        "host host2 has no /boot/initrd.img: domain web1 runs there, but cannot boot there again",
        "copy it to host host2 before the guest reboots" },
    { other_kind, R, "release", "hypervisor", "xvm", "xen",
        "domain web1 needs hypervisor xvm, host host2 has xen", "move it to a host with xvm" },
    { xvm_too_far, R, "release", "xvm", "1", "3",
        "host host1 has xvm 1, host host2 has 3: a release works with the one before it and with "
        "no "
        "other",
        "update the older host, one release at a time" },
    { xvm_older, W, "release", "xvm", "2", "1",
        "host host2 has an older xvm, 1, than host host1, 2: what is new in the guest's state may "
        "be refused at the end, and the guest then goes on where it is",
        "update xvm on host host2" },
    { xen_older, R, "release", "xen", "4.18", "4.17",
        "host host1 has Xen 4.18, host host2 has 4.17: a guest cannot move to an older Xen",
        "update Xen on host host2, or shut the guest down and start it there" },
    { xen_no_pvh, R, "release", "guest type", "pvh", "not there",
        "domain web1 is a pvh guest, which Xen on host host2 cannot run",
        "switch on VT-x or AMD-V in the firmware of host host2" },
    { xen_no_pv, R, "release", "guest type", "pv", "not there",
        "domain web1 is a pv guest, which Xen on host host2 cannot run",
        "boot a Xen on host host2 that was built with PV, or make it a pvh guest (type=)" },
    { xen_memory, R, "memory", "memory", "1040 MiB", "1024 MiB free, 0 MiB promised, 0 MiB kept",
        "host host2 has 1024 MiB of memory free, of which 0 MiB are promised and 0 MiB are kept "
        "for the host: 1040 MiB more do not fit",
        "free memory on host host2, or choose another target" },
    { xen_native_tsc, W, "cpu", "tsc", "2800.000 MHz", "2100.000 MHz",
        "the guest reads the TSC of its host (tsc_mode native), which has another speed on host "
        "host2: its clock would go wrong",
        "start the guest without tsc_mode=, or choose a target with 2800.000 MHz" },
    { xen_vifname, R, "network", VIF, "tap7", "tap", "host host2 has an interface tap7 already",
        "leave vifname= out so that a name is made up" },
    { migrd_too_far, R, "release", "migrd", "0.1", "0.3",
        "host host1 has migrd 0.1, host host2 has 0.3: a release works with the one before it and "
        "with no other",
        "update the older host, one release at a time" },
    { migrd_older, W, "release", "migrd", "0.2.1", "0.1",
        "host host2 has an older migrd, 0.1, than host host1, 0.2.1: what is new in the guest's "
        "state may be refused at the end, and the guest then goes on where it is",
        "update migrd on host host2" },
    { migrd_odd, W, "release", "migrd", "devel", "0.1",
        "host host1 has migrd devel, host host2 has 0.1: which is the newer is not known",
        "use the same release on both hosts" },
    { no_facts, W, "release", "migrd", "", "0.1",
        "host host1 has a migrd that does not tell what its host has: networks and disks are not "
        "compared, only looked for on host host2",
        "update migrd on host host1" },
    { other_vendor, R, "cpu", "vendor", "AuthenticAMD", "GenuineIntel",
        "the guest was booted on a CPU by AuthenticAMD, host host2 has one by GenuineIntel",
        "choose a target with a CPU by AuthenticAMD, or shut the guest down and start it on host "
        "host2" },
    { no_cpu, R, "cpu", "vendor", "", "AuthenticAMD",
        "host host1 does not tell which CPU the guest was booted on",
        "update migrd on host host1" },
    { lacks_avx512, R, "cpu", "features", "AMD EPYC 7543", "lacks 2",
        "the CPU of host host2 lacks 2 features that the guest may use: avx512f avx512bw",
        BASELINE },
    { lacks_avx2, R, "cpu", "features", "AMD EPYC 7543", "lacks 1",
        "the CPU of host host2 lacks 1 feature that the guest may use: avx2", BASELINE },
    { old_source_lacks, R, "cpu", "features", "AMD EPYC 7543", "lacks 1",
        "the CPU of host host2 lacks 1 feature that the guest may use: avx2", BASELINE },
    { xcr0_lacks, R, "cpu", "xsave", "2688 bytes, XCR0 0xe7", "832 bytes, XCR0 0x7",
        "host host2 cannot keep parts of the guest's register state: avx512_opmask avx512_zmm "
        "avx512_hi16_zmm",
        BASELINE },
    { xsave_larger, R, "cpu", "xsave", "840 bytes, XCR0 0x7", "832 bytes, XCR0 0x7",
        "the guest's register state has 840 bytes, host host2 takes 832", BASELINE },
    { tsc_faster, W, "cpu", "tsc", "2800.000 MHz", "3080.000 MHz",
        "the guest's TSC would run 10.00 % too fast on host host2, 360 s an hour: programs that "
        "read it themselves measure wrong times; the kernel's clock (kvmclock) is right",
        "choose a target with 2800.000 MHz or less, or with TSC scaling" },
    { tsc_faster_promised, R, "cpu", "tsc", "2800.000 MHz", "3080.000 MHz",
        "the guest's TSC would run 10.00 % too fast on host host2, 360 s an hour: the guest was "
        "promised a steady one",
        "choose a target with 2800.000 MHz or less, or with TSC scaling" },
    { tsc_slower, W, "cpu", "tsc", "2800.000 MHz", "2100.000 MHz",
        "the TSC of host host2 runs 25.00 % slower than the guest's and cannot be scaled: KVM sets "
        "it forward each time the guest leaves the CPU, and in between it is slow",
        "choose a target with 2800.000 MHz or more, or with TSC scaling" },
    { many_vcpus, W, "cpu", "vcpus", "16", "8 CPUs, at most 64 vCPUs",
        "domain web1 has 16 vCPUs, host host2 has 8 CPUs: they will wait for one another",
        "boot it with 8 vCPUs or less, or choose a larger target" },
    { one_cpu, W, "cpu", "vcpus", "2", "1 CPUs, at most 64 vCPUs",
        "domain web1 has 2 vCPUs, host host2 has 1 CPU: they will wait for one another",
        "boot it with 1 vCPU or less, or choose a larger target" },
    { too_many_vcpus, R, "cpu", "vcpus", "65", "8 CPUs, at most 64 vCPUs",
        "domain web1 has 65 vCPUs, host host2 gives at most 64", "boot it with 64 vCPUs or less" },
    { pinned_away, W, "cpu", "pinning", "8-11", "CPUs 0-7",
        "the vCPUs are pinned to CPUs 8-11, of which host host2 has none: they will run on all of "
        "its CPUs",
        "choose CPUs that both hosts have (cpus=)" },
    { pinned_partly, W, "cpu", "pinning", "6-9", "CPUs 0-7",
        "the vCPUs are pinned to CPUs 6-9, of which host host2 lacks some: they will share the "
        "others",
        "choose CPUs that both hosts have (cpus=)" },
    { memory_committed, R, "memory", "memory", "1024 MiB",
        "16384 MiB, 15360 MiB of domains, 512 MiB kept",
        "host host2 has 16384 MiB of memory, its domains have 15360 MiB and 512 MiB are kept for "
        "the host: 1024 MiB more do not fit",
        "move or end a domain there, or change memory-reserve or memory-overcommit on host host2" },
    { memory_short, R, "memory", "memory", "1024 MiB",
        "1536 MiB free, 0 MiB promised, 768 MiB kept",
        "host host2 has 1536 MiB of memory free, of which 0 MiB are promised and 768 MiB are kept "
        "for the host: 1024 MiB more do not fit",
        "free memory on host host2, or choose another target" },
    { memory_promised, R, "memory", "memory", "1024 MiB",
        "1536 MiB free, 1024 MiB promised, 0 MiB kept",
        "host host2 has 1536 MiB of memory free, of which 1024 MiB are promised and 0 MiB are kept "
        "for the host: 1024 MiB more do not fit",
        "wait for the migrations under way, or free memory on host host2" },
    { memory_ballooned, R, "memory", "memory", "9216 MiB",
        "8192 MiB free, 0 MiB promised, 0 MiB kept",
        "host host2 has 8192 MiB of memory free, of which 0 MiB are promised and 0 MiB are kept "
        "for "
        "the host: 9216 MiB more do not fit",
        "free memory on host host2, or choose another target" },
    { memory_overcommit_short, R, "memory", "memory", "1024 MiB",
        "512 MiB free, 0 MiB promised, 0 MiB kept",
        "host host2 has 512 MiB of memory free, of which 0 MiB are promised and 0 MiB are kept for "
        "the host: 1024 MiB more do not fit",
        "free memory on host host2, or choose another target" },
    { huge_none, R, "memory", "huge pages", "512 of 2 MiB", "none",
        "domain web1 needs 512 huge pages of 2 MiB, host host2 has none",
        "on host host2: sysctl vm.nr_hugepages=512" },
    { huge_short, R, "memory", "huge pages", "512 of 2 MiB", "500 of 2 MiB free, 0 promised",
        "domain web1 needs 512 huge pages of 2 MiB, host host2 has 500 free, of which 0 are "
        "promised",
        "on host host2: sysctl vm.nr_hugepages=1036" },
    { huge_promised, R, "memory", "huge pages", "512 of 2 MiB", "1024 of 2 MiB free, 600 promised",
        "domain web1 needs 512 huge pages of 2 MiB, host host2 has 1024 free, of which 600 are "
        "promised",
        "on host host2: sysctl vm.nr_hugepages=1112" },
    { no_bridge, R, "network", VIF, "br0", "missing",
        "domain web1 needs bridge br0, which host host2 does not have",
        "create it there, with the same uplink as on host host1, or give the guest another "
        "bridge" },
    { not_a_bridge, R, "network", VIF, "br0", "device",
        "domain web1 needs bridge br0, which is no bridge on host host2",
        "create it there, with the same uplink as on host host1, or give the guest another "
        "bridge" },
    { mtu_smaller, R, "network", VIF, "MTU 9000", "MTU 1500",
        "bridge br0 of host host2 has MTU 1500, the guest sends packets of up to 9000 bytes: "
        "longer "
        "ones would be lost",
        "on host host2: ip link set br0 mtu 9000, and the same for its uplink" },
    { vif_mtu, R, "network", VIF, "MTU 4000", "MTU 1500",
        "bridge br0 of host host2 has MTU 1500, the guest sends packets of up to 4000 bytes: "
        "longer "
        "ones would be lost",
        "on host host2: ip link set br0 mtu 4000, and the same for its uplink" },
    { mtu_larger, W, "network", VIF, "MTU 1500", "MTU 9000",
        "bridge br0 of host host2 has MTU 9000, the guest takes packets of up to 1500 bytes: "
        "longer "
        "ones from there are lost",
        "give the bridges the same MTU" },
    { net_error, W, "network", VIF, "", "",
        "host host2: bridge br0: VLANs of port eth1: it is secret", "" },
    { vlan_missing, R, "network", VIF, "7-8 100", "100",
        "bridge br0 leads to VLAN 7-8 on host host1, and not on host host2",
        "let the uplink of br0 on host host2 carry VLAN 7-8" },
    { vlan_untagged, R, "network", VIF, "100", "untagged",
        "bridge br0 leads to VLAN 100 on host host1, and not on host host2",
        "let the uplink of br0 on host host2 carry VLAN 100" },
    { vlan_only_there, W, "network", VIF, "untagged", "100",
        "bridge br0 leads to VLAN 100 on host host2, and is untagged on host host1: whether that "
        "is "
        "the same network is not known",
        "give the bridges' uplinks the same tags" },
    { subnet_differs, R, "network", VIF, "10.0.0.0/24", "192.168.7.0/24",
        "bridge br0 is in subnet 10.0.0.0/24 on host host1 and in 192.168.7.0/24 on host host2: "
        "the "
        "guest would keep its address in the wrong network",
        "connect br0 of host host2 to the network of host host1" },
    { subnet_one_side, W, "network", VIF, "10.0.0.0/24", "no address",
        "the hosts have no addresses on bridge br0 that could be compared: whether it is the same "
        "network is not known",
        "none is needed if it is; an address of each host on br0 lets it be compared" },
    { subnet_families, W, "network", VIF, "10.0.0.0/24", "fd99::/64",
        "the hosts have no addresses on bridge br0 that could be compared: whether it is the same "
        "network is not known",
        "none is needed if it is; an address of each host on br0 lets it be compared" },
    { mac_of_domain, R, "network", VIF, MAC, "db1",
        "MAC 00:16:3e:01:02:03 is that of domain db1 on host host2",
        "give one of the two another MAC" },
    { mac_on_bridge, R, "network", VIF, MAC, "in use",
        "MAC 00:16:3e:01:02:03 is used by a guest on bridge br0 of host host2",
        "`bridge fdb show br br0` there tells on which port; give one of the two another MAC" },
    { tap_in_use, R, "network", VIF, "tap7", "tap in use",
        "tap tap7 is used by another process on host host2",
        "end it, or leave vifname= out so that a name is made up" },
    { no_tap, R, "network", VIF, "tap7", "device",
        "host host2 has an interface tap7, and it is no tap",
        "leave vifname= out so that a name is made up" },
    { disk_not_looked_at, R, "storage", "disks", "1", "0",
        "domain web1 has 1 disk, host host2 has looked at 0", "see the log of host host2" },
    { disk_not_told, R, "storage", "disks", "1", "0",
        "domain web1 has 1 disk, host host1 has looked at 0", "see the log of host host1" },
    { disk_renamed, R, "storage", "vda", "vdb", "vda",
        "disk 1 of domain web1 is vda; host host1 looked at vdb and host host2 at vda",
        "use the same release of migrd on both hosts" },
    { old_source_disk_gone, R, "storage", "vda", "/srv/web1.img", "error",
        "disk vda of domain web1 on host host2: /srv/web1.img: No such file or directory",
        "make /srv/web1.img reachable from host host2" },
    { old_source_disk_read_only, R, "storage", "vda", "/srv/web1.img", "read only",
        "disk vda of domain web1 is read only on host host2", "let host host2 write it" },
    { old_source_disk_in_use, R, "storage", "vda", "/srv/web1.img",
        "the device dm-0 that is made of it",
        "disk vda of domain web1 is in use on host host2 by the device dm-0 that is made of it",
        "end that there first" },
};

/* --- tests --- */

static void print_all(const struct checks *c)
{
    for (size_t i = 0; i < c->n; i++)
        print_error("%s | %s | %s | %s | %s | %s | %s\n", check_result_name(c->check[i].result),
            c->check[i].area, c->check[i].object, c->check[i].source, c->check[i].target,
            c->check[i].text, c->check[i].remedy);
}

static void test_all_well(void **state)
{
    struct checks c = { 0 };
    struct world w;
    struct err e = { 0 };

    (void)state;
    make_world(&w);
    compat_check(&w.in, &c);
    if (c.refused + c.warned > 0)
        print_all(&c);
    assert_int_equal(c.refused, 0);
    assert_int_equal(c.warned, 0);
    assert_true(c.n >= 12);
    assert_int_equal(checks_verdict(&c, &e), 0);
    checks_free(&c);
}

static bool is_line(const struct check *k, const struct expected *x)
{
    return k->result == x->result && strcmp(k->area, x->area) == 0 &&
           strcmp(k->object, x->object) == 0 && strcmp(k->source, x->source) == 0 &&
           strcmp(k->target, x->target) == 0 && strcmp(k->text, x->text) == 0 &&
           strcmp(k->remedy, x->remedy) == 0;
}

/* The line is there once, and no other thing is found wrong. */
static void check_case(size_t i)
{
    const struct expected *x = &table[i];
    struct checks c = { 0 };
    unsigned found = 0;
    struct world w;

    make_world(&w);
    x->spoil(&w);
    compat_check(&w.in, &c);
    for (size_t k = 0; k < c.n; k++)
        found += is_line(&c.check[k], x);
    if (found != 1 || c.refused + c.warned < 1) {
        print_all(&c);
        fail_msg("case %zu: %s", i, x->text);
    }
    if (c.refused != (x->result == R)) {
        print_all(&c);
        fail_msg("case %zu: %zu refusals", i, c.refused);
    }
    checks_free(&c);
}

static void test_each(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        check_case(i);
}

static void no_complaint(void (*change)(struct world *w))
{
    struct checks c = { 0 };
    struct world w;

    make_world(&w);
    change(&w);
    compat_check(&w.in, &c);
    if (c.refused + c.warned > 0)
        print_all(&c);
    assert_int_equal(c.refused + c.warned, 0);
    checks_free(&c);
}

CASE(within_tolerance)
{
    w->cpu.tsc_khz = 2800700; /* 250 ppm */
}
CASE(scaled)
{
    w->cpu.tsc_khz = 2100000;
    w->dst.tsc_scaling = true;
}
CASE(overcommitted)
{
    memory_committed(w);
    w->dst.overcommit = true;
    w->dst.memory_promised_kib = 8u << 20;
}
CASE(huge_enough)
{
    w->def.huge_pages = true;
    w->dst.memory_free_kib = 0;
    w->in.promised_huge_kib = 512u * 2048;
}
CASE(more_vlans_there)
{
    w->src_vlans[0] = w->dst_vlans[0] = 100;
    w->dst_vlans[1] = 101;
    w->src_net.n_vlans = 1;
    w->dst_net.n_vlans = 2;
}
CASE(a_common_subnet)
{
    w->dst_subnets[1] = w->src_subnets[0];
    w->dst_subnets[0] = T("192.168.7.0/24");
    w->dst_net.n_subnets = 2;
}
CASE(nobody_has_addresses)
{
    w->src_net.n_subnets = w->dst_net.n_subnets = 0;
}
CASE(newer_target)
{
    w->dst.release = T("0.2");
    w->dst.hypervisor_release = T("2");
}
CASE(own_tap)
{
    w->vif.ifname = T("tap7");
    w->tap.kind = T("tap");
}
CASE(alone)
{
    w->def.n_vifs = 0;
    w->in.n_others = 0;
}
CASE(less_cpu_than_the_source_has)
{
    static Migrd__CpuReport big;

    big = w->guest;
    big.xcr0 = 0xe7;
    w->offer.cpu = &big; /* the guest was given less: that counts */
}

/* What a CPU without XSAVE says of its areas means nothing. */
CASE(no_xsave)
{
    w->guest_words[0] = w->cpu_words[0] = 0;
    w->guest_words[8] = 7; /* "d.0.eax" */
    w->guest.xcr0 = 0xe7;
    w->guest.xsave_size = 2688;
    w->cpu.xcr0 = w->cpu.xsave_size = 0;
}

static void test_fine(void **state)
{
    (void)state;
    no_complaint(within_tolerance);
    no_complaint(scaled);
    no_complaint(overcommitted);
    no_complaint(huge_enough);
    no_complaint(more_vlans_there);
    no_complaint(a_common_subnet);
    no_complaint(nobody_has_addresses);
    no_complaint(newer_target);
    no_complaint(own_tap);
    no_complaint(alone);
    no_complaint(no_xsave);
    no_complaint(less_cpu_than_the_source_has);
}

static void test_releases(void **state)
{
    static const struct {
        const char *s, *t;
        enum release_step step;
    } rows[] = { { "0.1", "0.1", REL_SAME }, { "0.1", "0.1.7", REL_SAME },
        { "0.1", "0.2", REL_TARGET_NEWER }, { "0.2.9", "0.1", REL_TARGET_OLDER },
        { "0.1", "0.3", REL_TOO_FAR }, { "0.9", "1.0", REL_TARGET_NEWER },
        { "0.9", "1.1", REL_TOO_FAR }, { "1.0", "0.9", REL_TARGET_OLDER },
        { "4.17", "4.18.1", REL_TARGET_NEWER }, { "4.17", "6.0", REL_TOO_FAR },
        { "1", "2", REL_TARGET_NEWER }, { "3", "2", REL_TARGET_OLDER }, { "3", "1", REL_TOO_FAR },
        { "1", "1.0", REL_UNKNOWN }, { "", "1", REL_UNKNOWN }, { "devel", "devel", REL_SAME },
        { "0.1-rc", "0.1", REL_SAME }, { "0.1", "1234567.0", REL_UNKNOWN },
        { "0.", "0.1", REL_UNKNOWN } };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (compat_release_step(rows[i].s, rows[i].t) != rows[i].step)
            fail_msg("%s and %s: %d", rows[i].s, rows[i].t,
                (int)compat_release_step(rows[i].s, rows[i].t));
}

/* What a migration fails with, in the order of the report. */
static void test_verdict(void **state)
{
    struct checks c = { 0 };
    struct err e = { 0 };
    struct world w;

    (void)state;
    make_world(&w);
    no_bridge(&w);
    huge_none(&w);
    too_many_vcpus(&w);
    compat_check(&w.in, &c);
    assert_int_equal(c.refused, 3);
    assert_int_equal(checks_verdict(&c, &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    assert_string_equal(e.text,
        "domain web1 has 65 vCPUs, host host2 gives at most 64; boot it with 64 vCPUs or less (and "
        "2 more)");
    checks_free(&c);
}

static void test_message(void **state)
{
    struct checks c = { 0 };
    Migrd__CheckReport *r;
    char *text;
    json_t *j;

    (void)state;
    checks_remedy(compat_line(&(struct compare){ .out = &c }, CHECK_REFUSED, "network", "vif\n1",
                      "br\xc3\xa4 0", "br\xc3 0", "bridge %s", "\x1b[31mred"),
        "mend \xf4\x90\x80\x80 it");
    compat_line(&(struct compare){ .out = &c }, CHECK_OK, "cpu", "vendor", "", "", "fine");
    r = compat_report(&c);
    j = pbjson(&r->base);
    text = json_dumps(j, JSON_COMPACT);
    assert_string_equal(text,
        "{\"checks\":[{\"result\":\"refused\",\"area\":\"network\",\"object\":\"vif?1\",\"source\":"
        "\"br\xc3\xa4 0\",\"target\":\"br? 0\",\"text\":\"bridge ?[31mred\",\"remedy\":\"mend ???? "
        "it\"},{\"result\":\"ok\",\"area\":\"cpu\",\"object\":\"vendor\",\"source\":\"\","
        "\"target\":"
        "\"\",\"text\":\"fine\",\"remedy\":\"\"}]}");
    free(text);
    json_decref(j);
    migrd__check_report__free_unpacked(r, NULL);
    checks_free(&c);
}

/* Nothing at all is known of either side: lines, no crash. */
static void test_empty(void **state)
{
    Migrd__HostFacts dst = MIGRD__HOST_FACTS__INIT;
    Migrd__Domain def = MIGRD__DOMAIN__INIT;
    Migrd__Offer offer = MIGRD__OFFER__INIT;
    const struct compat in = { .offer = &offer, .target = &dst };
    struct checks c = { 0 };
    Migrd__CheckReport *r;

    (void)state;
    offer.domain = &def;
    compat_check(&in, &c);
    assert_true(c.refused > 0);
    r = compat_report(&c);
    assert_int_equal(r->n_checks, c.n);
    migrd__check_report__free_unpacked(r, NULL);
    checks_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_well),
        cmocka_unit_test(test_each),
        cmocka_unit_test(test_fine),
        cmocka_unit_test(test_releases),
        cmocka_unit_test(test_verdict),
        cmocka_unit_test(test_message),
        cmocka_unit_test(test_empty),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
