/* SPDX-License-Identifier: ISC */
/* libvirt's domain XML: what is understood, what is refused and how; and that every definition
 * survives being written and read, as XML and as xm's file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/hypervisor.h"
#include "migrd/define/define.h"

static Migrd__Domain *parse_err(const char *text, struct err *e)
{
    memset(e, 0, sizeof *e);
    return define_parse(text, strlen(text), DEFINE_AUTO, "f", NULL, 0, e);
}

static Migrd__Domain *parse(const char *text)
{
    struct err e;
    Migrd__Domain *d = parse_err(text, &e);

    if (d == NULL)
        fail_msg("%s\n%s", text, e.text);
    return d;
}

static void drop(Migrd__Domain *d)
{
    migrd__domain__free_unpacked(d, NULL);
}

/* What virsh dumpxml says of a guest made for direct kernel boot without a screen. */
static const char libvirt_like[] =
    "<?xml version='1.0' encoding='UTF-8'?>\n"
    "<!-- a comment -->\n"
    "<domain type='kvm' id='3'>\n"
    "  <name>web1</name>\n"
    "  <uuid>06ED00FE-1162-4fc4-b5d8-11993ee4a8b9</uuid>\n"
    "  <title>a title</title>\n"
    "  <metadata><libosinfo:libosinfo xmlns:libosinfo='http://libosinfo.org/x'>"
    "<libosinfo:os id='http://debian.org/debian/12'/></libosinfo:libosinfo></metadata>\n"
    "  <memory unit='GiB'>2</memory>\n"
    "  <currentMemory>1048576</currentMemory>\n"
    "  <memoryBacking><hugepages><page size='2048' unit='KiB'/></hugepages>"
    "<source type='memfd'/><access mode='shared'/></memoryBacking>\n"
    "  <vcpu placement='static' cpuset='0-3,^2'>4</vcpu>\n"
    "  <resource><partition>/machine</partition></resource>\n"
    "  <os>\n"
    "    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>\n"
    "    <kernel>/boot/vmlinuz</kernel>\n"
    "    <initrd>/boot/initrd.img</initrd>\n"
    "    <cmdline>console=ttyS0 root=/dev/vda a=&lt;&amp;&gt;</cmdline>\n"
    "    <boot dev='hd'/>\n"
    "  </os>\n"
    "  <features><acpi/><apic/></features>\n"
    "  <cpu mode='host-passthrough' check='none' migratable='on'>"
    "<topology sockets='1' dies='1' cores='2' threads='2'/></cpu>\n"
    "  <clock offset='utc'><timer name='rtc' tickpolicy='catchup'/></clock>\n"
    "  <on_poweroff>destroy</on_poweroff>\n"
    "  <on_reboot>restart</on_reboot>\n"
    "  <on_crash>preserve</on_crash>\n"
    "  <pm><suspend-to-mem enabled='no'/></pm>\n"
    "  <devices>\n"
    "    <emulator>/usr/bin/qemu-system-x86_64</emulator>\n"
    "    <disk type='file' device='disk'>\n"
    "      <driver name='qemu' type='raw' cache='none'/>\n"
    "      <source file='/var/lib/a, b.img' index='1'/>\n"
    "      <backingStore/>\n"
    "      <target dev='vda' bus='virtio'/>\n"
    "      <serial>S-1</serial>\n"
    "      <alias name='virtio-disk0'/>\n"
    "      <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/>\n"
    "    </disk>\n"
    "    <disk type='block' device='disk'><driver name='qemu' type='raw'/>"
    "<source dev='/dev/vg/b'/><target dev='vdb' bus='virtio'/><readonly/></disk>\n"
    "    <controller type='usb' index='0' model='none'/>\n"
    "    <controller type='pci' index='0' model='pcie-root'><alias name='x'/></controller>\n"
    "    <interface type='bridge'>\n"
    "      <mac address='52:54:00:AA:bb:cc'/>\n"
    "      <source bridge='br0'/>\n"
    "      <target dev='vnet0'/>\n"
    "      <model type='virtio'/>\n"
    "      <mtu size='9000'/>\n"
    "      <alias name='net0'/>\n"
    "    </interface>\n"
    "    <interface type='ethernet'><target dev='tap7' managed='no'/></interface>\n"
    "    <serial type='pty'><source path='/dev/pts/3'/><target type='isa-serial' port='0'/>"
    "</serial>\n"
    "    <console type='pty' tty='/dev/pts/3'><target type='serial' port='0'/></console>\n"
    "    <audio id='1' type='none'/>\n"
    "    <memballoon model='virtio'><stats period='5'/></memballoon>\n"
    "    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\n"
    "  </devices>\n"
    "  <seclabel type='dynamic' model='apparmor' relabel='yes'/>\n"
    "</domain>\n";

static void test_libvirt_like(void **state)
{
    Migrd__Domain *d = parse(libvirt_like);

    (void)state;
    assert_string_equal(d->name, "web1");
    assert_string_equal(d->uuid, "06ed00fe-1162-4fc4-b5d8-11993ee4a8b9");
    assert_string_equal(d->hypervisor, "xvm");
    assert_int_equal(d->max_memory_kib, 2 * 1024 * 1024);
    assert_int_equal(d->memory_kib, 1024 * 1024);
    assert_true(d->huge_pages && d->rng && d->balloon);
    assert_int_equal(d->vcpus, 4);
    assert_string_equal(d->vcpu_pinning, "0-3,^2");
    assert_string_equal(d->kernel, "/boot/vmlinuz");
    assert_string_equal(d->initrd, "/boot/initrd.img");
    assert_string_equal(d->cmdline, "console=ttyS0 root=/dev/vda a=<&>");
    assert_int_equal(d->n_disks, 2);
    assert_string_equal(d->disks[0]->source, "/var/lib/a, b.img");
    assert_string_equal(d->disks[0]->device, "vda");
    assert_string_equal(d->disks[0]->serial, "S-1");
    assert_false(d->disks[0]->read_only);
    assert_string_equal(d->disks[1]->source, "/dev/vg/b");
    assert_true(d->disks[1]->read_only);
    assert_int_equal(d->n_vifs, 2);
    assert_string_equal(d->vifs[0]->mac, "52:54:00:aa:bb:cc");
    assert_string_equal(d->vifs[0]->bridge, "br0");
    assert_string_equal(d->vifs[0]->ifname, "vnet0");
    assert_int_equal(d->vifs[0]->mtu, 9000);
    assert_string_equal(d->vifs[1]->ifname, "tap7");
    assert_memory_equal(d->vifs[1]->mac, "00:16:3e", 8);
    assert_int_equal(d->on_poweroff, MIGRD__ON_EVENT__ON_DESTROY);
    assert_int_equal(d->on_crash, MIGRD__ON_EVENT__ON_PRESERVE);
    drop(d);
}

#define DOMAIN(type, os, rest)                                                                     \
    "<domain type='" type "'><name>a</name><memory>65536</memory><os>" os "</os>" rest "</domain>"
#define OS "<type>hvm</type><kernel>/k</kernel>"
#define WITH(rest) DOMAIN("kvm", OS, rest)
#define DEVICE(x) WITH("<devices>" x "</devices>")
#define DISK(x) DEVICE("<disk type='file'><source file='/x'/><target dev='vda'/>" x "</disk>")
#define NET(protocol, name, x)                                                                     \
    DEVICE("<disk type='network'><source protocol='" protocol "' name='" name "'>" x               \
           "</source><target dev='vda'/></disk>")
#define VIF(x) DEVICE("<interface type='bridge'><source bridge='b'/>" x "</interface>")

static void test_small(void **state)
{
    static const char *const good[] = {
        WITH(""),
        "\xef\xbb\xbf" WITH(""),
        " \n" WITH("<description>x</description>"),
        DOMAIN("xen", "<type arch='x86_64'>linux</type><kernel>/k</kernel>", ""),
        DOMAIN("xvm", "<kernel><![CDATA[/k]]></kernel>", ""),
        WITH("<cpu mode='host-model'><model fallback='allow'/></cpu>"),
        WITH("<vcpu>2</vcpu><cpu><topology sockets='2' cores='1' threads='1'/></cpu>"),
        DEVICE("<memballoon model='none'/><rng model='virtio'><backend model='builtin'/></rng>"),
        DEVICE("<controller type='virtio-serial' index='0'/>"),
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        Migrd__Domain *d = parse(good[i]);

        assert_int_equal(d->memory_kib, 65536);
        assert_int_equal(d->max_memory_kib, 65536);
        assert_string_equal(d->kernel, "/k");
        assert_int_equal(d->balloon, strstr(good[i], "'none'") == NULL);
        drop(d);
    }
}

static const struct {
    const char *text, *message;
} bad[] = {
    /* no XML, or none of ours */
    { "<domain", "this is no XML" },
    { "<domain type='kvm'>\n<name>a</domain>",
        "f:2: this is no XML: Opening and ending tag mismatch" },
    { "<", "this is no XML" },
    { "<a/><b/>", "this is no XML" },
    { "<domainsnapshot/>", "<domainsnapshot> is no domain" },
    { "<domain/>", "<domain> has no attribute type" },
    { "<domain type='qemu'/>", "<domain type='qemu'> is not supported; supported: xvm kvm xen" },
    { "<domain type='kvm' x='1'/>", "<domain x=...>: this attribute is not supported" },
    { "<domain xmlns='urn:x' type='kvm'/>", "is no domain" },
    { "<!DOCTYPE domain>\n<domain type='kvm'/>", "<!DOCTYPE> is not supported" },
    { "<!DOCTYPE domain [<!ENTITY a 'b'>]><domain type='kvm'><name>&a;</name></domain>",
        "<!DOCTYPE> is not supported" },
    { "<!DOCTYPE domain SYSTEM 'file:///etc/passwd'><domain/>", "<!DOCTYPE> is not supported" },
    { "<domain type='kvm'><name>&a;</name></domain>", "this is no XML" },
    { WITH("text"), "there is text in <domain>" },
    { WITH("<foo/>"), "<foo> in <domain> is not supported" },
    { "<domain type='kvm' xmlns:qemu='http://libvirt.org/x'>\n<qemu:commandline/></domain>",
        "f:2: <qemu:commandline> is not supported" },
    { WITH("<name>b</name>"), "<name> is there twice in <domain>" },
    { "<domain type='kvm'><name><b/></name></domain>", "<name> has text, not elements" },
    /* values */
    { "<domain type='kvm'><name>a</name><os>" OS "</os></domain>", "<domain> has no <memory>" },
    { "<domain type='kvm'><memory>65536</memory><os>" OS "</os></domain>", "has no name" },
    { "<domain type='kvm'><memory unit='lots'>1</memory></domain>", "this unit is not known" },
    { "<domain type='kvm'><memory>x</memory></domain>", "is not an amount of memory" },
    { "<domain type='kvm'><memory>-1</memory></domain>", "is not an amount of memory" },
    { "<domain type='kvm'><memory>0</memory></domain>", "is not an amount of memory" },
    { "<domain type='kvm'><memory unit='TiB'>17</memory></domain>", "is not an amount of memory" },
    { "<domain type='kvm'><memory unit='TiB'>99999999999999</memory></domain>",
        "is not an amount of memory" },
    { WITH("<currentMemory>131072</currentMemory>"), "is more than max memory" },
    { WITH("<uuid>x</uuid>"), "uuid x is not of the form" },
    { WITH("<vcpu>0</vcpu>"), "<vcpu> must be from 1 to 64" },
    { WITH("<vcpu>4x</vcpu>"), "<vcpu> must be from 1 to 64" },
    { WITH("<vcpu placement='auto'>4</vcpu>"), "<vcpu placement='auto'> is not supported" },
    { WITH("<vcpu cpuset='a'>4</vcpu>"), "a list of CPUs" },
    { WITH("<maxMemory slots='1'>9</maxMemory>"), "memory is not plugged in" },
    { WITH("<on_crash>coredump-restart</on_crash>"),
        "on_crash: coredump-restart is not supported" },
    { WITH("<on_reboot>rename-restart</on_reboot>"), "on_reboot: rename-restart is not supported" },
    { WITH("<clock offset='localtime'/>"), "<clock offset='localtime'> is not supported" },
    { WITH("<features><hyperv/></features>"), "<hyperv> in <features> is not supported" },
    { WITH("<cpu mode='custom'/>"), "<cpu mode='custom'> has no <model>" },
    { WITH("<cpu mode='custom'><model>Haswell</model></cpu>"),
        "<model>Haswell</model> is not supported; use x86-64-v1 to x86-64-v4" },
    { WITH("<cpu><model>Haswell</model></cpu>"), "<model>Haswell</model> is not supported" },
    { WITH("<cpu mode='custom'><model>x86-64-v7</model></cpu>"), "x86-64-v7 is not known" },
    { WITH("<cpu match='minimum'><model>x86-64-v2</model></cpu>"),
        "<cpu match='minimum'> is not supported; supported: exact" },
    { WITH("<cpu mode='host-model'><feature name='zzzzzzz' policy='require'/></cpu>"),
        "there is no CPU feature zzzzzzz; migctl cpu show" },
    { WITH("<cpu mode='custom'><model>x86-64-v2</model><feature name='avx' policy='force'/></cpu>"),
        "<feature policy='force'> is not supported; supported: require disable" },
    { WITH("<cpu mode='host-passthrough'><feature policy='disable'/></cpu>"),
        "<feature> has no attribute name" },
    { WITH("<cpu><numa/></cpu>"), "the guest has one node" },
    { WITH("<metadata xmlns:m='urn:migrd:domain:1'><m:colour/></metadata>"),
        "<colour> of namespace urn:migrd:domain:1 is not supported" },
    { WITH("<metadata xmlns:m='urn:migrd:domain:1'><m:cpu/></metadata>"),
        "<cpu> has no attribute level" },
    { WITH("<metadata xmlns:m='urn:migrd:domain:1'><m:cpu level='x86-64-v2'/></metadata>"
           "<cpu mode='custom'><model>x86-64-v1</model></cpu>"),
        "<cpu> chooses features, and <metadata> has a level" },
    { WITH("<metadata xmlns:m='urn:migrd:domain:1'><m:cpu level='486'/></metadata>"),
        "cpu_level 486 is not known" },
    { DOMAIN("xen", OS, "<cpu mode='custom'><model>x86-64-v2</model></cpu>"),
        "cpu_level is not supported by hypervisor xen" },
    { WITH("<cpu><topology sockets='4' cores='1' threads='1'/></cpu>"), "<topology> has 4 CPUs" },
    { WITH("<cputune><shares>0</shares></cputune>"), "<shares> must be a number from 1 to 65535" },
    { WITH("<cputune><quota>5000</quota></cputune>"), "use <global_period> and <global_quota>" },
    { WITH("<cputune><global_quota>1500</global_quota></cputune>"), "a whole percentage" },
    { WITH("<cputune><vcpupin vcpu='64' cpuset='0'/></cputune>"), "from 0 to 63" },
    { WITH("<cputune><vcpupin vcpu='0' cpuset='x'/></cputune>"), "a list of CPUs" },
    { WITH("<cputune><vcpupin vcpu='9' cpuset='0'/></cputune>"), "vcpu 9 is pinned" },
    { WITH("<cputune><vcpupin vcpu='0' cpuset='0'/><vcpupin vcpu='0' cpuset='1'/></cputune>"),
        "is there twice" },
    { WITH("<cputune><emulatorpin cpuset='0'/></cputune>"), "neither pinned nor capped" },
    { WITH("<vcpu current='5'>4</vcpu>"), "must be from 1 to 4" },
    { WITH("<vcpu current='0'>4</vcpu>"), "must be from 1 to 4" },
    { WITH("<memoryBacking><locked/></memoryBacking>"), "guest memory is not locked" },
    { WITH("<memoryBacking><hugepages><page size='1048576' unit='KiB'/></hugepages>"
           "</memoryBacking>"),
        "<page size='1048576'> is not supported" },
    { WITH("<bootloader>/usr/bin/pygrub</bootloader>"), "kernels are not taken out" },
    { WITH("<launchSecurity type='sev'/>"), "encrypted memory cannot be migrated" },
    { WITH("<seclabel type='static'/>"), "<seclabel type='static'> is not supported" },
    { DOMAIN("kvm", "<type>hvm</type><boot dev='hd'/>", ""), "<os> has no <kernel>" },
    { DOMAIN("kvm", "<type>exe</type><kernel>/k</kernel>", ""), "<type>exe</type>" },
    { DOMAIN("kvm", "<type arch='aarch64'>hvm</type>", ""), "<type arch='aarch64'>" },
    { DOMAIN("kvm", OS "<loader>/x</loader>", ""), "there is no firmware" },
    { DOMAIN("kvm", "<kernel>k</kernel>", ""), "this must be an absolute path" },
    /* devices */
    { DISK("<shareable/>"), "written by several domains" },
    { DISK("<driver type='qcow2'/>"), "<driver type='qcow2'> is not supported; supported: raw" },
    { DISK("<driver type='raw' iothread='1'/>"), "<driver iothread=...>" },
    { DISK("<backingStore type='file'><source file='/y'/></backingStore>"), "<backingStore" },
    { DISK("<backingStore><source file='/y'/></backingStore>"), "images with a backing file" },
    { DISK("<encryption format='luks'/>"), "<encryption> in <disk> is not supported" },
    { DISK("<iotune/>"), "<iotune> in <disk> is not supported" },
    { DISK("<serial>a b</serial>"), "serial a b: at most 20 characters" },
    { DEVICE("<disk type='file'><target dev='vda'/></disk>"), "<disk> has no <source>" },
    { DEVICE("<disk type='file'><source file='/x'/></disk>"), "<disk> has no <target>" },
    { DEVICE("<disk type='block'><source file='/x'/></disk>"), "<source> has no attribute dev" },
    { DEVICE("<disk type='volume'/>"), "<disk type='volume'> is not supported" },
    { DEVICE("<disk type='network'/>"), "<disk> has no <source>" },
    { DISK("<driver type='raw' error_policy='enospace'/>"), "enospace is not supported" },
    { DISK("<driver type='raw' cache='directsync'/>"), "directsync is not supported" },
    { DISK("<wwn>12</wwn>"), "wwn 12: this must be 16 or 32 hex digits" },
    { NET("nfs", "/e/f", ""), "<source> has no <host>" },
    { NET("nfs", "e/f", "<host name='h'/>"), "must begin with '/'" },
    { NET("rbd", "e/f", "<host name='h'/>"), "<source protocol='rbd'> is not supported" },
    { NET("nfs", "/e/f", "<host name='h'/><host name='i'/>"), "<host> is there twice" },
    { NET("nfs", "/e/f", "<host name='h' transport='rdma'/>"), "transport='rdma'" },
    { NET("iscsi", "iqn.x:y/1", "<host name='a/b'/>"), "is none" },
    { NET("iscsi", "iqn.x:y/1", "<host name='h'/><initiator/>"), "<initiator> in <source>" },
    { NET("iscsi", "iqn.x:y/1",
          "<host name='h'/><auth username='u'><secret type='iscsi' usage='mine'/></auth>"),
        "<secret usage='mine'> is not supported; supported: storage-secrets" },
    { NET("iscsi", "iqn.x:y/z", "<host name='h'/>"), "LUN 'z' must be a number" },
    { DEVICE("<disk type='file' device='cdrom'/>"), "<disk device='cdrom'> is not supported" },
    { DEVICE("<disk type='file'><source file='/x'/><target dev='sda' bus='sata'/></disk>"),
        "<target bus='sata'> is not supported; supported: virtio xen" },
    { DEVICE("<interface type='network'><source network='default'/></interface>"),
        "there are no virtual networks; name the bridge" },
    { DEVICE("<interface type='user'/>"), "<interface type='user'> is not supported" },
    { DEVICE("<interface type='bridge'/>"), "has no <source bridge=...>" },
    { DEVICE("<interface type='ethernet'><source bridge='x'/></interface>"), "has no <source>" },
    { VIF("<model type='e1000'/>"), "<model type='e1000'> is not supported" },
    { VIF("<mtu size='1'/>"), "<mtu size='1'> must be from 68" },
    { VIF("<bandwidth/>"), "<bandwidth> in <interface> is not supported" },
    { VIF("<link state='down'/>"), "<link state='down'> is not supported" },
    { VIF("<script path='/x'/>"), "<script> in <interface> is not supported" },
    { DEVICE("<input type='tablet' bus='usb'/>"), "<input> in <devices> is not supported" },
    { DEVICE("<graphics type='vnc'/>"), "domains have no screen" },
    { DEVICE("<video/>"), "<video> in <devices> is not supported" },
    { DEVICE("<hostdev mode='subsystem' type='pci'/>"), "a device of the host cannot migrate" },
    { DEVICE("<filesystem/>"), "does not move along" },
    { DEVICE("<channel type='unix'/>"), "there is no guest agent" },
    { DEVICE("<tpm/>"), "there is no virtual TPM" },
    { DEVICE("<vsock/>"), "<vsock> in <devices> is not supported" },
    { DEVICE("<controller type='usb' model='ehci'/>"), "<controller model='ehci'>" },
    { DEVICE("<controller type='scsi'/>"), "<controller type='scsi'> is not supported" },
    { DEVICE("<console type='unix'/>"), "<console type='unix'> is not supported" },
    { DEVICE("<serial type='pty'/><serial type='pty'/>"), "<serial> is there twice" },
    { DEVICE("<rng model='virtio'><rate bytes='1'/></rng>"), "<rate> in <rng> is not supported" },
    { DEVICE("<rng model='virtio'><backend model='egd'/></rng>"), "<backend model='egd'>" },
    { DOMAIN("xen", "<type machine='xenpv'>hvm</type>", ""), "<type machine='xenpv'>" },
    { DOMAIN("xen", "<type>exe</type>", ""), "use xenpvh, xen or hvm" },
    { DOMAIN("xen", "<type>xen</type>", ""), "<os> has no <kernel>" },
    { DOMAIN("xen", "<type>hvm</type><loader>/x</loader>", ""), "it is hvmloader, or ovmf" },
    { DOMAIN("xen", "<type>hvm</type><boot dev='fd'/>", ""), "<boot dev='fd'> is not supported" },
    { DOMAIN("xen", "<kernel>/k</kernel>", "<bootloader>/tmp/x</bootloader>"),
        "bootloader /tmp/x" },
    { DOMAIN("xen", "<kernel>/k</kernel>", "<clock offset='localtime'/>"), "offset='localtime'" },
    { DOMAIN("xen", "<kernel>/k</kernel>", "<devices><hostdev/></devices>"),
        "a device of the host" },
    { DOMAIN("xen", "<kernel>/k</kernel>", "<features><viridian/></features>"), "<viridian>" },
    { DOMAIN("xen", "<kernel>/k</kernel>",
          "<devices><interface type='bridge'><source bridge='b'/>"
          "<bandwidth><outbound average='0'/></bandwidth>"
          "</interface></devices>"),
        "<outbound average='0'> must be a number" },
    { DEVICE("<memballoon/>"), "<memballoon> has no attribute model" },
};

static void test_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err e;
        Migrd__Domain *d =
            define_parse(bad[i].text, strlen(bad[i].text), DEFINE_XML, "f", NULL, 0, &e);

        if (d != NULL || strstr(e.text, bad[i].message) == NULL || strncmp(e.text, "f:", 2) != 0)
            fail_msg("case %zu: %s\ngave: %s", i, bad[i].text, d != NULL ? "a domain" : e.text);
    }
}

/* Texts that are made to hurt: depth, width, numbers, entities. */
static void test_hostile(void **state)
{
    char *text = malloc(DEFINE_TEXT_MAX + 1), *p = text;
    struct err e;

    (void)state;
    for (size_t i = 0; i < DEFINE_TEXT_MAX / 3; i++)
        p = stpcpy(p, "<a>");
    assert_null(parse_err(text, &e));
    p = stpcpy(text, "<domain type='kvm'><devices>");
    while (p + 64 < text + DEFINE_TEXT_MAX)
        p = stpcpy(p, "<interface type='ethernet'/>");
    strcpy(p, "</devices></domain>");
    assert_null(parse_err(text, &e));
    assert_non_null(strstr(e.text, "too many vifs"));
    p = stpcpy(text, "<domain type='");
    memset(p, 'x', 5000);
    strcpy(p + 5000, "'/>");
    assert_null(parse_err(text, &e));
    assert_non_null(strstr(e.text, "the value is too long"));
    p = stpcpy(text, "<domain type='kvm'>");
    for (int i = 0; i < 3000; i++)
        p += sprintf(p, "<!-- %d --><title/>", i);
    strcpy(p, "</domain>");
    assert_null(parse_err(text, &e));
    assert_non_null(strstr(e.text, "<title> is there twice"));
    free(text);
}

static void test_overrides(void **state)
{
    static const char *const set[] = { "memory=512", "name=b", "extra=quiet",
        "disk=phy:/dev/x,vdz,w" };
    struct err e;
    Migrd__Domain *d = define_parse(
        libvirt_like, strlen(libvirt_like), DEFINE_XML, "f", set, sizeof set / sizeof set[0], &e);

    (void)state;
    assert_non_null(d);
    assert_int_equal(d->memory_kib, 512 * 1024);
    assert_string_equal(d->name, "b");
    assert_string_equal(d->cmdline, "quiet");
    assert_int_equal(d->n_disks, 1);
    assert_string_equal(d->disks[0]->device, "vdz");
    assert_int_equal(d->n_vifs, 2);
    drop(d);
}

/* ---- every definition survives being written and read ---- */

static uint64_t seed;

static unsigned rnd(unsigned below)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(seed >> 33) % below;
}

/* Printable, with everything in it that needs quoting somewhere. */
static char *random_text(const char *begin, unsigned most, const char *pool)
{
    size_t n = strlen(begin), len = rnd(most) + 1;
    char *s = malloc(n + len + 3);

    strcpy(s, begin);
    for (size_t i = 0; i < len; i++)
        s[n++] = pool[rnd((unsigned)strlen(pool))];
    s[n++] = 'x'; /* no blank at the end */
    s[n] = '\0';
    return s;
}

#define PLAIN "abcXYZ019._+-"
#define WILD "ab \"'<>&;\\#%=[](){}$`~!?*|]],>-"

/* Half of the disks stay files. */
static void random_storage(Migrd__Disk *k, size_t i)
{
    static const char *const sources[] = { "nfs://st.lab/export/d#.img",
        "nfs://[fd99::1]:12049/e/a%3Fb#?mountport=12050&uid=7",
        "iscsi://joe@st:3261/iqn.2026-01.lab:d#/3", "iscsi://[fd99::1]/naa.60014/#" };
    static const char *const caches[] = { "none", "writethrough", "writeback", "unsafe" };

    k->on_io_error = (Migrd__OnIoError)rnd(4);
    if (rnd(2))
        k->cache = strdup(caches[rnd(4)]);
    if (rnd(2)) {
        free(k->source);
        k->source = strdup(sources[rnd(4)]);
        *strchr(k->source, '#') = (char)('0' + i);
    } else if (strncmp(k->source, "/dev", 4) == 0 && rnd(2)) {
        k->wwn = strdup("600140500000000000000000000000ab");
        k->npiv = strdup("2100000000000001:2000000000000001");
    }
}

/* Makes a domain of Xen of it. */
static void random_xen(Migrd__Domain *d)
{
    static const char *const formats[] = { "qcow2", "vhd", "qed" },
                             *const backends[] = { "qdisk", "tap" },
                             *const modes[] = { "always_emulate", "native", "native_paravirt" },
                             *const boots[] = { "c", "dc", "ncd" };

    d->type = (Migrd__GuestType)(rnd(3) + 1);
    d->rng = false;
    d->on_watchdog = (Migrd__OnEvent)rnd(4);
    if (rnd(2))
        d->tsc_mode = strdup(modes[rnd(3)]);
    if (d->type == MIGRD__GUEST_TYPE__GUEST_HVM && rnd(2)) {
        d->boot = strdup(boots[rnd(3)]);
        d->firmware = strdup("ovmf");
    } else if (d->type != MIGRD__GUEST_TYPE__GUEST_HVM && d->n_disks > 0 && rnd(2)) {
        free(d->kernel);
        d->kernel = (char *)(uintptr_t)protobuf_c_empty_string;
        d->bootloader = strdup("pygrub");
        d->bootloader_args = malloc(2 * sizeof *d->bootloader_args);
        d->bootloader_args[0] = strdup("--kernel=/a<&'\"\\b");
        d->bootloader_args[1] = strdup("-q");
        d->n_bootloader_args = 2;
    }
    for (size_t i = 0; i < d->n_disks; i++) {
        Migrd__Disk *k = d->disks[i];

        if (rnd(2))
            k->format = strdup(formats[rnd(3)]);
        if (rnd(2))
            k->backend = strdup(backends[rnd(2)]);
        if (rnd(2))
            k->script = strdup("block-x.1");
        if (rnd(2))
            k->cache = strdup("none");
        k->on_io_error = (Migrd__OnIoError)rnd(2);
        if (d->type == MIGRD__GUEST_TYPE__GUEST_HVM)
            k->cdrom = k->read_only = rnd(2);
    }
    for (size_t i = 0; i < d->n_vifs; i++) {
        Migrd__Vif *v = d->vifs[i];

        if (rnd(2))
            v->script = strdup("vif-route");
        if (d->type == MIGRD__GUEST_TYPE__GUEST_HVM && rnd(2))
            v->model = strdup(rnd(2) ? "e1000" : "netfront");
        if (rnd(2))
            v->ip = strdup("10.0.0.1 fe80::1/64 192.168.0.0/16");
        v->rate_kib = rnd(3);
    }
}

static Migrd__Domain *random_domain(void)
{
    Migrd__Domain *d = malloc(sizeof *d);
    char text[64];

    migrd__domain__init(d);
    d->name = random_text("n", 60, PLAIN);
    sprintf(text, "%08x-1234-4567-89ab-%012x", rnd(1 << 30) + 1, rnd(1 << 30));
    d->uuid = strdup(text);
    d->hypervisor = strdup(rnd(2) ? "xvm" : "xen");
    d->max_memory_kib = ((uint64_t)rnd(1 << 20) + 2) * 1024;
    d->memory_kib = d->max_memory_kib / 2 / 1024 * 1024;
    d->vcpus = rnd(64) + 1;
    if (rnd(3) == 0)
        d->title = random_text("t", 60, WILD);
    if (rnd(3) == 0)
        d->description = random_text("d", 200, "ab \n\t'\"<>&\\]");
    if (rnd(3) == 0)
        d->metadata = strdup("<a:x xmlns:a=\"urn:a\" k=\"&lt;'\">\n  t\t<a:y/> &amp; \\n</a:x>"
                             "<y xmlns=\"urn:b\"/>");
    d->kernel = random_text("/", 40, "ab\"'<>& ;");
    if (rnd(2))
        d->initrd = random_text("/", 40, "ab\\#%[]()$`!?*|");
    if (rnd(4))
        d->cmdline = random_text("c", 400, WILD);
    if (rnd(2))
        d->vcpu_pinning = strdup("0-3,^2,7");
    else if (rnd(2))
        assert_int_equal(hv_set_vcpu_pinning(d, rnd(d->vcpus), "1,3", NULL), 0);
    if (rnd(2))
        define_set_vcpus(d, d->vcpus, d->vcpus + rnd(65 - d->vcpus));
    if (rnd(2))
        define_set_sched(d, rnd(HV_WEIGHT_MAX) + 1, rnd(HV_CAP_MAX + 1));
    d->n_disks = rnd(5);
    d->disks = malloc((d->n_disks + 1) * sizeof *d->disks);
    for (size_t i = 0; i < d->n_disks; i++) {
        Migrd__Disk *k = d->disks[i] = malloc(sizeof *k);

        migrd__disk__init(k);
        sprintf(text, "/%s%zu", rnd(2) ? "dev/" : "", i);
        k->source = random_text(text, 30, "ab \"'<>&;\\#%=:");
        sprintf(text, "xvd%c", (char)('a' + i));
        k->device = strdup(text);
        k->read_only = rnd(2);
        if (strcmp(d->hypervisor, "xen") == 0)
            continue;
        if (rnd(2))
            k->serial = random_text("s", 17, PLAIN);
        random_storage(k, i);
    }
    d->n_vifs = rnd(5);
    d->vifs = malloc((d->n_vifs + 1) * sizeof *d->vifs);
    for (size_t i = 0; i < d->n_vifs; i++) {
        Migrd__Vif *v = d->vifs[i] = malloc(sizeof *v);

        migrd__vif__init(v);
        sprintf(text, "00:16:3e:%02x:%02x:%02zx", rnd(256), rnd(256), i);
        v->mac = strdup(text);
        if (rnd(2))
            v->bridge = random_text("b", 12, PLAIN);
        sprintf(text, "t%zu", i);
        if (rnd(2))
            v->ifname = strdup(text);
        v->mtu = rnd(2) ? 68 + rnd(65467) : 0;
    }
    d->on_poweroff = (Migrd__OnEvent)rnd(4);
    d->on_reboot = (Migrd__OnEvent)rnd(4);
    d->on_crash = (Migrd__OnEvent)rnd(4);
    d->huge_pages = rnd(2);
    d->rng = rnd(2);
    d->balloon = rnd(2);
    if (strcmp(d->hypervisor, "xen") == 0)
        random_xen(d);
    return d;
}

static bool same(const Migrd__Domain *a, const Migrd__Domain *b)
{
    size_t n = migrd__domain__get_packed_size(a);
    uint8_t *pa = malloc(n + 1), *pb = malloc(n + 1);
    bool equal = migrd__domain__get_packed_size(b) == n;

    if (equal) {
        migrd__domain__pack(a, pa);
        migrd__domain__pack(b, pb);
        equal = memcmp(pa, pb, n) == 0;
    }
    free(pa);
    free(pb);
    return equal;
}

static void check_back(const Migrd__Domain *d, char *text)
{
    Migrd__Domain *back;

    assert_non_null(text);
    back = parse(text);
    if (!same(d, back))
        fail_msg("not the same again:\n%s", text);
    drop(back);
    free(text);
}

static void test_round_trips(void **state)
{
    (void)state;
    for (seed = 1; seed < 2000000000; seed += 1000003) {
        uint64_t keep = seed;
        Migrd__Domain *d = random_domain(), *copy;
        struct err e;

        seed = keep;
        if (define_check(d, &e) != 0)
            fail_msg("%s", e.text);
        copy = define_copy(d);
        assert_true(same(d, copy));
        drop(copy);
        check_back(d, define_xml(d, (int)(keep % 3) - 1, &e));
        check_back(d, define_xm(d, &e));
        drop(d);
    }
}

static void test_writer(void **state)
{
    Migrd__Domain *d = parse(libvirt_like);
    struct err e;
    char *text = define_xml(d, 7, &e);

    (void)state;
    assert_non_null(strstr(text, "<domain type=\"xvm\" id=\"7\">\n  <name>web1</name>\n"));
    free(text);
    text = define_xml(d, -1, &e);
    assert_non_null(strstr(text, "<domain type=\"xvm\">\n"));
    free(text);
    assert_null(define_xm(d, &e)); /* the comma in a path */
    assert_non_null(strstr(e.text, "use XML"));
    d->vcpus = 0;
    assert_null(define_xml(d, 7, &e));
    assert_non_null(strstr(e.text, "vcpus = 0"));
    drop(d);
}

static void test_cpu_level(void **state)
{
    static const struct {
        const char *text, *level;
    } good[] = {
        { WITH("<cpu mode='custom' match='exact' check='full'><model fallback='forbid'>x86-64-v2"
               "</model><feature policy='disable' name='avx'/><feature policy='require' "
               "name='aes'/></cpu>"),
            "x86-64-v2,-avx,+aes" },
        { WITH("<cpu><model>x86-64-v3</model></cpu>"), "x86-64-v3" },
        { WITH("<cpu mode='host-passthrough'><feature policy='disable' name='avx512f'/></cpu>"),
            "host,-avx512f" },
        { WITH("<cpu mode='host-passthrough'/>"), "" },
        { WITH("<metadata><x:y xmlns:x='urn:x'/><m:cpu xmlns:m='urn:migrd:domain:1' "
               "level='AuthenticAMD/1.edx=178bfbff,80000001.edx=2fd3fbff'/></metadata>"
               "<cpu mode='host-model'/>"),
            "AuthenticAMD/1.edx=178bfbff,80000001.edx=2fd3fbff" },
        { WITH("<metadata><m:cpu xmlns:m='urn:migrd:domain:1' level='host'/></metadata>"), "" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        Migrd__Domain *d = parse(good[i].text), *back;
        char *xml, *xm;
        struct err e;

        assert_string_equal(d->cpu_level, good[i].level);
        xml = define_xml(d, -1, &e);
        xm = define_xm(d, &e);
        assert_non_null(xml);
        assert_non_null(xm);
        back = parse(xml);
        assert_string_equal(back->cpu_level, good[i].level);
        drop(back);
        back = parse(xm);
        assert_string_equal(back->cpu_level, good[i].level);
        drop(back);
        free(xml);
        free(xm);
        drop(d);
    }
}

/* What virsh sets, in the words of libvirt's XML; and in xm's. */
static void test_cpus(void **state)
{
    Migrd__Domain *d = parse(DOMAIN("kvm", OS,
        "<vcpu cpuset='0-3' current='2'>4</vcpu><cputune><shares>512</shares>"
        "<global_period>50000</global_period><global_quota>75000</global_quota>"
        "<vcpupin vcpu='1' cpuset='1,3'/></cputune>"));
    struct hv_sched s = hv_sched_of(d);
    struct err e;
    char *text;

    (void)state;
    assert_int_equal(d->vcpus, 2);
    assert_int_equal(define_max_vcpus(d), 4);
    assert_string_equal(hv_vcpu_pinning(d, 0), "0-3");
    assert_string_equal(hv_vcpu_pinning(d, 1), "1,3");
    assert_string_equal(hv_vcpu_pinning(d, 63), "0-3");
    assert_int_equal(s.weight, 512);
    assert_int_equal(s.cap, 150);
    text = define_xml(d, -1, &e);
    assert_non_null(strstr(text, "<global_quota>150000</global_quota>"));
    assert_non_null(
        strstr(text, "<vcpu placement=\"static\" cpuset=\"0-3\" current=\"2\">4</vcpu>"));
    free(text);
    text = define_xm(d, &e);
    assert_non_null(strstr(text, "maxvcpus = 4"));
    assert_non_null(strstr(text, "cpus = [ '0-3', '1,3', '0-3', '0-3' ]"));
    free(text);
    assert_int_equal(hv_set_vcpu_pinning(d, 1, "", &e), 0);
    assert_int_equal(d->n_vcpu_pins, 0);
    drop(d);
}

/* As libvirt's own driver for Xen writes it. */
static const char xen_like[] =
    "<domain type='xen' id='3'>\n  <name>web1</name>\n"
    "  <uuid>06ed00fe-1162-4fc4-b5d8-11993ee4a8b9</uuid>\n  <memory unit='KiB'>262144</memory>\n"
    "  <bootloader>/usr/lib/xen-4.17/bin/pygrub</bootloader>\n"
    "  <os><type arch='x86_64' machine='xenpv'>linux</type></os>\n"
    "  <clock offset='variable' adjustment='0' basis='utc'>"
    "<timer name='tsc' present='yes' mode='native'/></clock>\n"
    "  "
    "<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>\n"
    "  <devices>\n    <emulator>/usr/lib/xen-4.17/bin/qemu-system-i386</emulator>\n"
    "    <disk type='block' device='disk'><driver name='phy' type='raw'/><source dev='/dev/vg/a'/>"
    "<target dev='xvda' bus='xen'/></disk>\n"
    "    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source "
    "file='/b.qcow2'/>"
    "<target dev='xvdb' bus='xen'/></disk>\n"
    "    <controller type='xenbus' index='0'/>\n"
    "    <interface type='bridge'><mac address='00:16:3e:00:00:01'/><source bridge='xenbr0'/>"
    "<ip address='10.0.0.2' family='ipv4' prefix='24'/><script path='vif-bridge'/>"
    "<target dev='vif3.0'/><bandwidth><outbound average='512'/></bandwidth></interface>\n"
    "    <console type='pty' tty='/dev/pts/2'><source path='/dev/pts/2'/>"
    "<target type='xen' port='0'/></console>\n"
    "    <input type='mouse' bus='xen'/><input type='keyboard' bus='xen'/>\n"
    "    <graphics type='vnc' port='-1'><listen type='address'/></graphics>\n"
    "    <video><model type='cirrus'/></video>\n    <memballoon model='xen'/>\n"
    "  </devices>\n</domain>\n";

static void test_xen(void **state)
{
    struct define_notes notes;
    struct err e;
    Migrd__Domain *d =
        define_parse_noted(xen_like, strlen(xen_like), DEFINE_XML, "f", NULL, 0, &notes, &e);
    char *text;

    (void)state;
    if (d == NULL)
        fail_msg("%s", e.text);
    assert_int_equal(d->type, MIGRD__GUEST_TYPE__GUEST_PV);
    assert_string_equal(d->bootloader, "pygrub");
    assert_string_equal(d->tsc_mode, "native");
    assert_string_equal(d->disks[0]->backend, "phy");
    assert_string_equal(d->disks[1]->backend, "qdisk");
    assert_string_equal(d->disks[1]->format, "qcow2");
    assert_string_equal(d->vifs[0]->ip, "10.0.0.2/24");
    assert_int_equal(d->vifs[0]->rate_kib, 512);
    assert_non_null(strstr(notes.text, "<graphics> is left out: domains have no screen"));
    text = define_xml(d, 3, &e);
    assert_non_null(strstr(text, "<domain type=\"xen\" id=\"3\">"));
    assert_non_null(strstr(text, "<type arch=\"x86_64\" machine=\"xenpv\">linux</type>"));
    assert_non_null(strstr(text, "<bootloader>pygrub</bootloader>\n  <os>"));
    assert_non_null(strstr(text, "<target dev=\"xvda\" bus=\"xen\"/>"));
    assert_non_null(strstr(text, "<driver name=\"qemu\" type=\"qcow2\"/>"));
    assert_non_null(strstr(text, "<target type=\"xen\"/>"));
    assert_non_null(strstr(text, "<memballoon model=\"xen\"/>"));
    assert_non_null(strstr(text, "<model type=\"netfront\"/>"));
    free(text);
    drop(d);
}

static void test_xen_types(void **state)
{
    static const struct {
        const char *text, *written;
        Migrd__GuestType type;
    } good[] = {
        { DOMAIN("xen", "<type>xenpvh</type><kernel>/k</kernel>", ""),
            "<type arch=\"x86_64\" machine=\"xenpvh\">xenpvh</type>",
            MIGRD__GUEST_TYPE__GUEST_PVH },
        { DOMAIN("xen", "<kernel>/k</kernel>", ""), "machine=\"xenpvh\">xenpvh</type>",
            MIGRD__GUEST_TYPE__GUEST_PVH },
        { DOMAIN("xen", "<type machine='xenpv'>xen</type><kernel>/k</kernel><boot dev='hd'/>", ""),
            "machine=\"xenpv\">linux</type>", MIGRD__GUEST_TYPE__GUEST_PV },
        { DOMAIN("xen",
              "<type arch='x86_64' machine='xenfv'>hvm</type><loader type='rom'>"
              "/usr/lib/xen-4.17/boot/hvmloader</loader><boot dev='cdrom'/><boot dev='hd'/>",
              "<features><acpi/><apic/><pae/></features><devices><disk type='file' device='cdrom'>"
              "<source file='/a.iso'/><target dev='hdc' bus='ide'/></disk></devices>"),
            "<boot dev=\"cdrom\"/>\n    <boot dev=\"hd\"/>", MIGRD__GUEST_TYPE__GUEST_HVM },
        { DOMAIN("xen",
              "<type>hvm</type><kernel>/k</kernel><loader type='pflash' readonly='yes'>"
              "/usr/lib/xen/boot/ovmf.bin</loader>",
              ""),
            "<os firmware=\"efi\">", MIGRD__GUEST_TYPE__GUEST_HVM },
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        Migrd__Domain *d = parse(good[i].text);
        struct err e;
        char *text = define_xml(d, -1, &e);

        if (d->type != good[i].type || text == NULL || strstr(text, good[i].written) == NULL)
            fail_msg("%s: type %d\n%s", good[i].text, d->type, text != NULL ? text : e.text);
        check_back(d, text);
        drop(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpu_level),
        cmocka_unit_test(test_libvirt_like),
        cmocka_unit_test(test_cpus),
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_writer),
        cmocka_unit_test(test_xen),
        cmocka_unit_test(test_xen_types),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
