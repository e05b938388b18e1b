/* SPDX-License-Identifier: ISC */
/*
 * Facts of a host: a /sys of the test's own making, and, as root, real bridges in a network
 * namespace of its own.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "migrd/compat/facts_internal.h"

static char sys[64];

static void put_bytes(const char *path, const void *data, size_t len)
{
    char full[512];
    int fd;

    snprintf(full, sizeof full, "%s/%s", sys, path);
    for (char *p = full + strlen(sys) + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        mkdir(full, 0755);
        *p = '/';
    }
    fd = open(full, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), (ssize_t)len);
    close(fd);
}

static void put(const char *path, const char *text)
{
    put_bytes(path, text, strlen(text));
}

static int make_root(void **state)
{
    (void)state;
    strcpy(sys, "/tmp/test_facts.XXXXXX");
    return mkdtemp(sys) != NULL ? 0 : -1;
}

static int drop_root(void **state)
{
    char command[96];

    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", sys);
    return system(command);
}

/* --- huge pages --- */

static void test_huge_pages(void **state)
{
    Migrd__HostFacts *f = malloc(sizeof *f);

    (void)state;
    migrd__host_facts__init(f);
    put("kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "512\n");
    put("kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "300\n");
    put("kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "100\n");
    put("kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0\n");
    put("kernel/mm/hugepages/other/nr_hugepages", "7\n");
    facts_huge_pages(sys, f);
    assert_int_equal(f->n_huge_pages, 2);
    for (size_t i = 0; i < 2; i++)
        if (f->huge_pages[i]->size_kib == 2048) {
            assert_int_equal(f->huge_pages[i]->total, 512);
            assert_int_equal(f->huge_pages[i]->free, 200);
        }
    migrd__host_facts__free_unpacked(f, NULL);
}

static void test_no_huge_pages(void **state)
{
    Migrd__HostFacts *f = malloc(sizeof *f);

    (void)state;
    migrd__host_facts__init(f);
    facts_huge_pages(sys, f);
    assert_int_equal(f->n_huge_pages, 0);
    migrd__host_facts__free_unpacked(f, NULL);
}

/* --- networks --- */

static void expect_kind(const char *name, const char *kind, unsigned mtu)
{
    Migrd__NetFacts *n = facts_net_at(sys, name);

    assert_string_equal(n->name, name);
    assert_string_equal(n->kind, kind);
    assert_int_equal(n->mtu, mtu);
    migrd__net_facts__free_unpacked(n, NULL);
}

static void test_kinds(void **state)
{
    (void)state;
    put("class/net/zz-dev/mtu", "1500\n");
    put("class/net/zz-tap/mtu", "9000\n");
    put("class/net/zz-tap/tun_flags", "0x5002\n");
    put("class/net/zz-tap/carrier", "0\n");
    put("class/net/zz-used/tun_flags", "0x5002\n");
    put("class/net/zz-used/carrier", "1\n");
    put("class/net/zz-br/mtu", "1400\n");
    put("class/net/zz-br/bridge/vlan_filtering", "0\n");
    put("mtu", "1\n");
    expect_kind("zz-dev", "device", 1500);
    expect_kind("zz-tap", "tap", 9000);
    expect_kind("zz-used", "tap in use", 0);
    expect_kind("zz-br", "bridge", 1400);
    expect_kind("zz-none", "", 0);
    expect_kind("..", "", 0);
    expect_kind("", "", 0);
    expect_kind("../../class/net/zz-dev", "", 0);
    expect_kind("a-name-that-is-too-long", "", 0);
}

static struct __fdb_entry entry(unsigned last, unsigned port, bool local)
{
    struct __fdb_entry f = { .mac_addr = { 0x00, 0x16, 0x3e, 0, 0, (uint8_t)last },
        .port_no = (uint8_t)port,
        .port_hi = (uint8_t)(port >> 8),
        .is_local = local };

    return f;
}

/* Only what came in by a tap is a guest's; an entry that is cut off is none. */
static void test_macs(void **state)
{
    const struct __fdb_entry table[] = { entry(1, 1, false), entry(2, 2, false), entry(3, 2, true),
        entry(4, 0x102, false), entry(5, 9, false), entry(6, 2, false) };
    Migrd__NetFacts *n;

    (void)state;
    put("class/net/zz-br/bridge/vlan_filtering", "0\n");
    put("class/net/zz-br/brif/zz-up", "");
    put("class/net/zz-br/brif/zz-tap", "");
    put("class/net/zz-br/brif/zz-far", "");
    put("class/net/zz-up/brport/port_no", "0x1\n");
    put("class/net/zz-tap/brport/port_no", "0x2\n");
    put("class/net/zz-tap/tun_flags", "0x5002\n");
    put("class/net/zz-far/brport/port_no", "0x102\n");
    put("class/net/zz-far/tun_flags", "0x5002\n");
    put_bytes("class/net/zz-br/brforward", table, sizeof table - 4);
    n = facts_net_at(sys, "zz-br");
    assert_string_equal(n->error, "");
    assert_int_equal(n->n_macs, 2);
    assert_string_equal(n->macs[0], "00:16:3e:00:00:02");
    assert_string_equal(n->macs[1], "00:16:3e:00:00:04");
    migrd__net_facts__free_unpacked(n, NULL);
}

/* --- netlink --- */

static struct nl_msg *link_message(int family, int ifindex)
{
    struct nl_msg *m = nlmsg_alloc_simple(RTM_NEWLINK, 0);
    struct ifinfomsg i = { .ifi_family = (unsigned char)family, .ifi_index = ifindex };

    assert_int_equal(nlmsg_append(m, &i, sizeof i, NLMSG_ALIGNTO), 0);
    return m;
}

static void put_vlan(struct nl_msg *m, uint16_t vid, uint16_t flags)
{
    struct bridge_vlan_info v = { flags, vid };

    assert_int_equal(nla_put(m, IFLA_BRIDGE_VLAN_INFO, sizeof v, &v), 0);
}

static bool in_set(const struct vlan_set *s, unsigned v)
{
    return (s->bit[v / 64] >> (v % 64) & 1) != 0;
}

static unsigned size_of(const struct vlan_set *s)
{
    unsigned n = 0;

    for (unsigned v = 0; v < FACTS_VLANS_MAX; v++)
        n += in_set(s, v);
    return n;
}

static void test_filter_message(void **state)
{
    struct nl_msg *m = link_message(AF_BRIDGE, 7);
    struct nlattr *spec = nla_nest_start(m, IFLA_AF_SPEC);
    struct vlan_set s = { { 0 } };

    (void)state;
    put_vlan(m, 1, BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED);
    put_vlan(m, 100, 0);
    put_vlan(m, 4094, 0);
    put_vlan(m, 4095, 0); /* none of these exists */
    put_vlan(m, 0, 0);
    put_vlan(m, 60000, 0);
    assert_int_equal(nla_put_u16(m, IFLA_BRIDGE_VLAN_INFO, 5), 0); /* too short */
    assert_int_equal(nla_put_u32(m, IFLA_BRIDGE_FLAGS, 6), 0);
    nla_nest_end(m, spec);
    facts_read_link(nlmsg_hdr(m), 8, &s);
    assert_int_equal(size_of(&s), 0); /* another port */
    facts_read_link(nlmsg_hdr(m), 7, &s);
    assert_int_equal(size_of(&s), 2);
    assert_true(in_set(&s, 100) && in_set(&s, 4094));
    nlmsg_free(m);
}

static void test_tag_message(void **state)
{
    struct nl_msg *m = link_message(AF_UNSPEC, 7);
    struct nlattr *info = nla_nest_start(m, IFLA_LINKINFO), *data;
    struct vlan_set s = { { 0 } };

    (void)state;
    assert_int_equal(nla_put_string(m, IFLA_INFO_KIND, "vlan"), 0);
    data = nla_nest_start(m, IFLA_INFO_DATA);
    assert_int_equal(nla_put_u16(m, IFLA_VLAN_ID, 7), 0);
    nla_nest_end(m, data);
    nla_nest_end(m, info);
    facts_read_link(nlmsg_hdr(m), 7, &s);
    assert_int_equal(size_of(&s), 1);
    assert_true(in_set(&s, 7));
    nlmsg_free(m);
}

/* --- a real kernel --- */

static bool run(const char *command)
{
    if (system(command) == 0)
        return true;
    fprintf(stderr, "failed: %s\n", command);
    return false;
}

/* What every kernel with bridges can. */
static void must(const char *command)
{
    if (!run(command))
        _exit(2);
}

static void check(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "not so: %s\n", what);
        _exit(1);
    }
}

static void plain_bridge(void)
{
    Migrd__NetFacts *n;
    bool vlan;

    must("ip link add up0 type veth peer name far0 && ip link add br0 type bridge");
    must("ip link set up0 master br0");
    must("ip tuntap add tap0 mode tap && ip link set tap0 master br0");
    must("ip addr add 10.1.2.3/20 dev br0 && ip link set br0 up mtu 1400");
    vlan = run("ip link add link far0 name far0.7 type vlan id 7 && ip link set far0.7 master br0");
    n = facts_net("br0");
    check(strcmp(n->kind, "bridge") == 0 && n->error[0] == '\0', "br0 is a bridge");
    check(!vlan || (n->n_vlans == 1 && n->vlans[0] == 7), "br0 leads to VLAN 7");
    check(vlan || n->n_vlans == 0, "br0 is untagged");
    check(n->mtu == 1400, "MTU of br0");
    check(n->n_subnets == 1 && strcmp(n->subnets[0], "10.1.0.0/20") == 0, "subnet of br0");
    migrd__net_facts__free_unpacked(n, NULL);
    n = facts_net("tap0");
    check(strcmp(n->kind, "tap") == 0, "tap0 is a tap");
    migrd__net_facts__free_unpacked(n, NULL);
}

static void filtering_bridge(void)
{
    Migrd__NetFacts *n;

    if (!run("ip link add br1 type bridge vlan_filtering 1"))
        return; /* this kernel has no such filter */
    must("ip link add up1 type veth peer name far1");
    must("ip link set up1 master br1 && bridge vlan add dev up1 vid 100-102");
    must("ip tuntap add tap1 mode tap && ip link set tap1 master br1");
    must("bridge vlan add dev tap1 vid 200 pvid untagged && bridge vlan add dev tap1 vid 300");
    n = facts_net("br1");
    check(n->n_vlans == 3 && n->vlans[0] == 100 && n->vlans[2] == 102, "VLANs of br1");
    migrd__net_facts__free_unpacked(n, NULL);
}

/* 0, 1 something is wrong, 2 it cannot be tried here. */
static int in_namespace(void)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 ||
            mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("sysfs", "/sys", "sysfs", 0, NULL) < 0)
            _exit(2);
        plain_bridge();
        filtering_bridge();
        _exit(0);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static void test_kernel(void **state)
{
    int r = in_namespace();

    (void)state;
    if (r == 2)
        skip(); /* not root, or no bridges, taps or VLANs here */
    assert_int_equal(r, 0);
}

/* --- all of it --- */

static void test_gather(void **state)
{
    struct hv_caps caps = { .release = "1",
        .cpu_vendor = "GenuineIntel",
        .cpu_model = "x",
        .features = { 1, 2, 3 },
        .tsc_khz = 5,
        .tsc_scaling = true,
        .host_cpus = 3,
        .max_vcpus = 4,
        .memory_total_kib = 10,
        .memory_free_kib = 9 };
    Migrd__Vif v = MIGRD__VIF__INIT, *vifs[3] = { &v, &v, &v };
    Migrd__Domain d = MIGRD__DOMAIN__INIT;
    Migrd__HostFacts *f;

    (void)state;
    v.bridge = (char *)"no-such-bridge";
    v.ifname = (char *)"lo";
    d.vifs = vifs;
    d.n_vifs = 3;
    f = facts_gather("host1", "xvm", &caps, &d);
    assert_string_equal(f->host, "host1");
    assert_string_equal(f->hypervisor, "xvm");
    assert_string_equal(f->hypervisor_release, "1");
    assert_string_equal(f->release, MIGRD_VERSION);
    assert_string_equal(f->cpu->vendor, "GenuineIntel");
    assert_int_equal(f->cpu->n_features, HV_FEATURE_WORDS);
    assert_int_equal(f->cpu->features[2], 3);
    assert_int_equal(f->cpus, 3);
    assert_int_equal(f->memory_free_kib, 9);
    assert_true(f->tsc_scaling);
    assert_int_equal(f->n_nets, 2);
    assert_string_equal(f->nets[0]->kind, "");
    assert_string_equal(f->nets[1]->kind, "device");
    assert_true(migrd__host_facts__get_packed_size(f) > 0);
    migrd__host_facts__free_unpacked(f, NULL);
    f = facts_gather("host1", "xvm", &caps, NULL);
    assert_int_equal(f->n_nets, 0);
    migrd__host_facts__free_unpacked(f, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_huge_pages, make_root, drop_root),
        cmocka_unit_test_setup_teardown(test_no_huge_pages, make_root, drop_root),
        cmocka_unit_test_setup_teardown(test_kinds, make_root, drop_root),
        cmocka_unit_test_setup_teardown(test_macs, make_root, drop_root),
        cmocka_unit_test(test_filter_message),
        cmocka_unit_test(test_tag_message),
        cmocka_unit_test(test_kernel),
        cmocka_unit_test(test_gather),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
