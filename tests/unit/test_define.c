/* SPDX-License-Identifier: ISC */
/* xm's domain file: what is understood, what is refused and how; overrides; rules; copies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrd/define/define.h"

static Migrd__Domain *parse_with(
    const char *text, const char *const *overrides, size_t n, struct err *e)
{
    memset(e, 0, sizeof *e);
    return define_parse(text, strlen(text), DEFINE_AUTO, "f", overrides, n, e);
}

static Migrd__Domain *parse(const char *text)
{
    struct err e;
    Migrd__Domain *d = parse_with(text, NULL, 0, &e);

    if (d == NULL)
        fail_msg("%s\n%s", text, e.text);
    return d;
}

static void drop(Migrd__Domain *d)
{
    migrd__domain__free_unpacked(d, NULL);
}

#define BASE "name = 'web1'\nkernel = '/boot/vmlinuz'\n"

static void test_full(void **state)
{
    Migrd__Domain *d = parse("#  -*- mode: python; -*-\n"
                             "kernel = \"/boot/vmlinuz-2.6.10-xenU\"\n"
                             "#ramdisk = \"/boot/initrd.gz\"\n"
                             "ramdisk='/boot/initrd.gz'  # the usual\r\n"
                             "builder='linux'\n"
                             "memory = 64\n"
                             "maxmem = \"128\"\n"
                             "name = \"ExampleDomain\"; vcpus = 2\n"
                             "uuid = '06ED00FE-1162-4fc4-b5d8-11993ee4a8b9'\n"
                             "cpus = \"0-3,5,^1\" # run on cpus 0,2,3,5\n"
                             "vif = [ 'mac=00:16:3E:00:00:11, bridge=xenbr0, mtu=9000',\n"
                             "        # a comment inside\n"
                             "        'bridge=xenbr1,vifname=web.1,type=netfront',\n"
                             "        '',\n"
                             "      ]\n"
                             "disk = [ 'phy:vg/web,xvda,w', 'file:/x.img,xvdb:disk,r' ,\n"
                             "         'tap:aio:/y.img , xvdc , rw, serial=AB-1',"
                             "'raw:/z.img,xvdd,w', '/u.img,xvde,ro', 'phy:/dev/sdb,xvdf,w' ]\n"
                             "root = \"/dev/xvda ro\"\n"
                             "extra = \"4 it\\'s \\x41\\\\\"\n"
                             "on_poweroff = 'destroy'\n"
                             "on_reboot   = \\\n  'restart'\n"
                             "on_crash    = ('preserve')\n"
                             "vnc = 0\nsdl=False\nvfb = []\nlocaltime = 0\nacpi=1\n"
                             "serial = 'pty'\ncpu_weight = 256\nbootloader = ''\n"
                             "hugepages = 1\nrng = True\nballoon = 0\nhypervisor = 'xvm'");

    (void)state;
    assert_string_equal(d->name, "ExampleDomain");
    assert_string_equal(d->uuid, "06ed00fe-1162-4fc4-b5d8-11993ee4a8b9");
    assert_string_equal(d->kernel, "/boot/vmlinuz-2.6.10-xenU");
    assert_string_equal(d->initrd, "/boot/initrd.gz");
    assert_string_equal(d->cmdline, "root=/dev/xvda ro 4 it's A\\");
    assert_int_equal(d->memory_kib, 64 * 1024);
    assert_int_equal(d->max_memory_kib, 128 * 1024);
    assert_int_equal(d->vcpus, 2);
    assert_string_equal(d->vcpu_pinning, "0-3,5,^1");
    assert_int_equal(d->n_vifs, 3);
    assert_string_equal(d->vifs[0]->mac, "00:16:3e:00:00:11");
    assert_string_equal(d->vifs[0]->bridge, "xenbr0");
    assert_int_equal(d->vifs[0]->mtu, 9000);
    assert_string_equal(d->vifs[1]->ifname, "web.1");
    assert_memory_equal(d->vifs[2]->mac, "00:16:3e:", 9);
    assert_string_not_equal(d->vifs[1]->mac, d->vifs[2]->mac);
    assert_int_equal(d->n_disks, 6);
    assert_string_equal(d->disks[0]->source, "/dev/vg/web");
    assert_string_equal(d->disks[0]->device, "xvda");
    assert_false(d->disks[0]->read_only);
    assert_string_equal(d->disks[1]->source, "/x.img");
    assert_string_equal(d->disks[1]->device, "xvdb");
    assert_true(d->disks[1]->read_only);
    assert_string_equal(d->disks[2]->source, "/y.img");
    assert_string_equal(d->disks[2]->serial, "AB-1");
    assert_string_equal(d->disks[3]->source, "/z.img");
    assert_string_equal(d->disks[4]->source, "/u.img");
    assert_true(d->disks[4]->read_only);
    assert_string_equal(d->disks[5]->source, "/dev/sdb");
    assert_int_equal(d->on_poweroff, MIGRD__ON_EVENT__ON_DESTROY);
    assert_int_equal(d->on_reboot, MIGRD__ON_EVENT__ON_RESTART);
    assert_int_equal(d->on_crash, MIGRD__ON_EVENT__ON_PRESERVE);
    assert_true(d->huge_pages && d->rng && !d->balloon);
    assert_string_equal(d->hypervisor, "xvm");
    assert_int_equal(d->type, MIGRD__GUEST_TYPE__GUEST_DEFAULT);
    drop(d);
}

static void assert_same(const Migrd__Domain *a, const Migrd__Domain *b)
{
    size_t n = migrd__domain__get_packed_size(a);
    uint8_t *pa = malloc(n + 1), *pb = malloc(n + 1);

    assert_int_equal(migrd__domain__get_packed_size(b), n);
    migrd__domain__pack(a, pa);
    migrd__domain__pack(b, pb);
    assert_memory_equal(pa, pb, n);
    free(pa);
    free(pb);
}

#define XEN BASE "hypervisor = 'xen'\n"

/* Files as they lie in a dom0's /etc/xen. */
static void test_xen(void **state)
{
    Migrd__Domain *
        d =
           parse("name = 'web1'; hypervisor = 'xen'\ntype = 'pv'\nbootloader = "
                 "'/usr/lib/xen-4.17/bin/pygrub'\n"
                 "bootloader_args = ['--offset=3', '-q']\ntsc_mode = 'native'\nmaxvcpus = 4\n"
                 "disk = ['format=raw, vdev=xvda, access=rw, target=/srv/a, b.img',\n"
                 "        '/srv/b.qcow2,qcow2,xvdb,r', '/dev/vg/c,,xvdc',\n"
                 "        'phy:vg/d,sda1,w', "
                 "'script=block-drbd,backendtype=phy,vdev=xvde,target=/dev/drbd0',\n"
                 "        'file:/x.img,xvdf,w,cache=none' ]\n"
                 "vif = ['mac=00:16:3e:00:00:01,bridge=br0,script=vif-bridge,model=netfront',\n"
                 "       "
                 "'script=/etc/xen/scripts/vif-route,ip=10.0.0.2,ip=fe80::1/64,rate=10Mb/s@50ms']\n"
                 "on_watchdog = 'restart'\n"),
       *back;
    struct err e;
    char *text;

    (void)state;
    assert_int_equal(d->type, MIGRD__GUEST_TYPE__GUEST_PV);
    assert_string_equal(d->bootloader, "pygrub");
    assert_int_equal(d->n_bootloader_args, 2);
    assert_string_equal(d->tsc_mode, "native");
    assert_int_equal(d->on_watchdog, MIGRD__ON_EVENT__ON_RESTART);
    assert_int_equal(d->n_disks, 6);
    assert_string_equal(d->disks[0]->source, "/srv/a, b.img");
    assert_string_equal(d->disks[0]->device, "xvda");
    assert_false(d->disks[0]->read_only);
    assert_string_equal(d->disks[0]->format, "");
    assert_string_equal(d->disks[1]->format, "qcow2");
    assert_true(d->disks[1]->read_only);
    assert_string_equal(d->disks[2]->source, "/dev/vg/c");
    assert_string_equal(d->disks[2]->device, "xvdc");
    assert_string_equal(d->disks[3]->device, "sda1");
    assert_string_equal(d->disks[4]->script, "block-drbd");
    assert_string_equal(d->disks[4]->backend, "phy");
    assert_string_equal(d->disks[4]->source, "/dev/drbd0");
    assert_string_equal(d->disks[5]->cache, "none");
    assert_string_equal(d->vifs[0]->model, "");
    assert_string_equal(d->vifs[0]->script, "");
    assert_string_equal(d->vifs[1]->script, "vif-route");
    assert_string_equal(d->vifs[1]->ip, "10.0.0.2 fe80::1/64");
    assert_int_equal(d->vifs[1]->rate_kib, 1221);
    free(d->disks[0]->source);
    d->disks[0]->source = strdup("/srv/a b.img");
    text = define_xm(d, &e);
    assert_non_null(text);
    back = parse(text);
    assert_same(d, back);
    free(text);
    drop(back);
    drop(d);
}

static void test_xen_types(void **state)
{
    static const struct {
        const char *text;
        Migrd__GuestType type;
    } types[] = {
        { XEN, MIGRD__GUEST_TYPE__GUEST_PVH },
        { XEN "type = 'pvh'", MIGRD__GUEST_TYPE__GUEST_PVH },
        { XEN "builder = 'generic'", MIGRD__GUEST_TYPE__GUEST_PV },
        { BASE "builder = 'linux'\nhypervisor = 'xen'", MIGRD__GUEST_TYPE__GUEST_PV },
        { "name = 'w'; hypervisor = 'xen'; type = 'hvm'; boot = 'dc'; firmware = 'uefi'\n"
          "disk = ['/a.iso,raw,hdc,cdrom', 'file:/a.img,ioemu:hda,w']; vif = ['model=e1000']",
            MIGRD__GUEST_TYPE__GUEST_HVM },
        { BASE "type = 'pv'", MIGRD__GUEST_TYPE__GUEST_DEFAULT },
        { BASE "type = 'pvh'", MIGRD__GUEST_TYPE__GUEST_DEFAULT },
    };

    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        Migrd__Domain *d = parse(types[i].text), *back;
        struct err e;
        char *text = define_xm(d, &e);

        if (d->type != types[i].type || text == NULL)
            fail_msg("%s: type %d, %s", types[i].text, d->type, text == NULL ? e.text : text);
        back = parse(text);
        assert_same(d, back);
        free(text);
        drop(back);
        drop(d);
    }
}

/* A definition that names no hypervisor is for this host's. */
static void test_host_hypervisor(void **state)
{
    static const char text[] = BASE "vnc = 1\nvfb = ['type=vnc']\nkeymap = 'de'";
    struct define_notes notes;
    struct err e;
    Migrd__Domain *d;

    (void)state;
    define_default_hypervisor("xen");
    d = define_parse_noted(text, strlen(text), DEFINE_AUTO, "f", NULL, 0, &notes, &e);
    define_default_hypervisor("xvm");
    assert_non_null(d);
    assert_string_equal(d->hypervisor, "xen");
    assert_int_equal(d->type, MIGRD__GUEST_TYPE__GUEST_PVH);
    assert_string_equal(notes.text, "f:3: vnc is left out: domains have no screen; use xm console\n"
                                    "f:4: vfb is left out: domains have no screen; use xm console\n"
                                    "f:5: keymap is left out: domains have no screen; use xm "
                                    "console\n");
    drop(d);
}

static void test_defaults(void **state)
{
    Migrd__Domain *d = parse(BASE "vif=['']"),
                  *other = parse("\xef\xbb\xbf" BASE "restart='never'");

    (void)state;
    assert_int_equal(d->memory_kib, 128 * 1024);
    assert_int_equal(d->max_memory_kib, 128 * 1024);
    assert_int_equal(d->vcpus, 1);
    assert_string_equal(d->hypervisor, "xvm");
    assert_string_equal(d->cmdline, "");
    assert_int_equal(strlen(d->uuid), 36);
    assert_string_not_equal(d->uuid, other->uuid);
    assert_int_equal(d->on_crash, MIGRD__ON_EVENT__ON_DEFAULT);
    assert_int_equal(other->on_crash, MIGRD__ON_EVENT__ON_DESTROY);
    assert_int_equal(other->on_reboot, MIGRD__ON_EVENT__ON_DESTROY);
    assert_true(d->balloon);
    assert_false(d->rng || d->huge_pages);
    assert_int_equal(strlen(d->vifs[0]->mac), 17);
    drop(d);
    drop(other);
}

/* Each of these is taken. */
static const char *const good[] = {
    BASE "",
    BASE "memory = 0x40",
    BASE "memory = '64'",
    BASE "cpus = 3",
    BASE "cpus = ['0-3']",
    BASE "cpus = []",
    BASE "cpus = 'all'",
    BASE "vcpus = 2; cpus = ['0', 'all']",
    BASE "vcpus = 2; maxvcpus = 4; cpu_weight = 512; cpu_cap = 150",
    BASE "cpu_weight = 256; cpu_cap = 0; maxvcpus = 1",
    BASE "cpu = -1",
    BASE "cpu = 2",
    BASE "disk = ()",
    BASE "disk = ('file:/x,xvda,w',)",
    BASE "disk = 'file:/x,xvda,w'",
    BASE "disk = [ 'nfs://srv/export/x.img,xvda,w' ]",
    BASE "disk = [ 'file:/x,xvda,r', 'file:/x,xvdb,r' ]",
    BASE "vif = ['type=vif,model=virtio,script=vif-bridge']",
    BASE "ramdisk = None",
    BASE "builder = 'generic'",
    BASE "type = 'pvh'",
    BASE "dhcp = 'off'",
    BASE "on_xend_start = 'ignore'",
    BASE "cmdline = 'root=/dev/vda'",
    BASE "extra = ''",
    BASE "root = ''",
    BASE ";;\n;",
    BASE "extra = 'a\\\nb'",
    BASE "extra = 'a\\.b'",
    BASE "hugepages = 'yes'",
    "name = 'a.b_c+d-1'; kernel = '/k'",
};

static void test_good(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        drop(parse(good[i]));
}

struct bad_case {
    const char *text, *message; /* message: part of the error */
};

static const struct bad_case bad[] = {
    /* Python that is not computed */
    { "import os\n" BASE, "f:1: import: a domain file is not run" },
    { BASE "if 1:\n  memory = 3", "f:3: if: a domain file is not run" },
    { BASE "def f(x):", "f:3: def:" },
    { BASE "print 'x'", "f:3: print:" },
    { BASE "arch = os.uname()[4]", "f:3: os....: nothing is called or looked up" },
    { BASE "extra = str(4)", "f:3: str(...: nothing is called" },
    { BASE "extra = other", "f:3: other: variables are not looked up" },
    { BASE "extra = 'a' + 'b'", "f:3: joining with + is not computed" },
    { BASE "extra = 'vm%d' % vmid", "f:3: formatting with % is not computed" },
    { BASE "extra = 'a' 'b'", "f:3: two strings side by side" },
    { BASE "disk = [ 'file:/x,xvda,w'\n 'file:/y,xvdb,w' ]", "f:4: two strings side by side" },
    { BASE "memory = 64 * 2", "f:3: arithmetic is not computed" },
    { BASE "disk = [ [ ] ]", "f:3: a list inside a list" },
    { BASE "disk = { }", "f:3: dictionaries" },
    { BASE "extra = '''a'''", "f:3: strings in three quotes" },
    { BASE "extra = r'a'", "f:3: strings with r in front" },
    { "'''doc'''\n" BASE, "f:1: a text that is not assigned" },
    { BASE "extra == 'a'", "f:3: extra: this is not of the form" },
    { BASE "extra", "f:3: extra: this is not of the form" },
    { BASE "4 = 3", "f:3: this is not of the form" },
    { BASE "vcpus = 1,", "f:3: a comma behind the value" },
    { BASE "vcpus = 1 2", "f:3: vcpus: something follows the value" },
    /* texts and numbers */
    { BASE "extra = 'a", "f:3: string without its closing '" },
    { BASE "extra = 'a\nb'", "f:3: string without its closing '" },
    { BASE "extra = \"a'", "f:3: string without its closing \"" },
    { BASE "extra = '\\x4'", "two hexadecimal digits" },
    { BASE "extra = '\\x00'", "NUL byte" },
    { BASE "extra = '\\0'", "octal escape" },
    { BASE "extra =", "f:3: the value is missing" },
    { BASE "extra =\nvcpus = 1", "f:3: the value is missing" },
    { BASE "disk = [ 'file:/x,xvda,w'", "f:3: list without its closing ]" },
    { BASE "disk = [ 'a' : 'b' ]", "f:3: a comma or the end of the list" },
    { BASE "memory = 0755", "f:3: a number with a 0 in front" },
    { BASE "memory = 1.5", "f:3: 1.5 is not a whole number" },
    { BASE "memory = 12abc", "not a whole number" },
    { BASE "memory = 99999999999999999999", "this number is not understood" },
    { BASE "memory = -", "this number is not understood" },
    /* keys and values */
    { BASE "memroy = 64", "f:3: unknown key memroy; did you mean memory?" },
    { BASE "on_chrash = 'restart'", "f:3: unknown key on_chrash; did you mean on_crash?" },
    { BASE "wibble_wobble = 1", "f:3: unknown key wibble_wobble; xm-domain(5)" },
    { BASE "memory = 64\nmemory = 65", "f:4: memory was set in line 3 already" },
    { BASE "memory = 0", "f:3: memory must be a whole number from 1" },
    { BASE "memory = 'lots'", "f:3: memory must be a whole number" },
    { BASE "memory = []", "f:3: memory must be a whole number" },
    { BASE "memory = 99999999", "f:3: memory must be a whole number from 1 to 16777216" },
    { BASE "memory = 64\nmaxmem = 32", "memory (65536 KiB) is more than max memory (32768 KiB)" },
    { BASE "vcpus = 0", "f:3: vcpus must be a whole number from 1 to 64" },
    { BASE "vcpus = 65", "vcpus must be a whole number from 1 to 64" },
    { BASE "vcpus = 2; cpus = ['0', '1', '2']", "vcpu 2 is pinned; the domain has at most 2" },
    { BASE "vcpus = 2; cpus = ['0', '1-']", "a list of CPUs" },
    { BASE "vcpus = 2; maxvcpus = 1", "maxvcpus = 1 must be from vcpus, 2, to 64" },
    { BASE "maxvcpus = 65", "maxvcpus must be a whole number from 1 to 64" },
    { BASE "cpu_weight = 65536", "f:3: cpu_weight must be a whole number from 1 to 65535" },
    { BASE "cpu_weight = -1", "cpu_weight must be a whole number from 1 to 65535" },
    { BASE "cpu_cap = -1", "f:3: cpu_cap must be a whole number from 0 to 65535" },
    { BASE "cpus = '3-1'", "cpus 3-1: this must be a list of CPUs" },
    { BASE "cpus = '0,'", "a list of CPUs" },
    { BASE "cpus = '0 1'", "a list of CPUs" },
    { BASE "cpus = '5000'", "a list of CPUs" },
    { BASE "cpu_level = 'Haswell'", "f: cpu_level Haswell is not known" },
    { BASE "cpu_level = 1", "cpu_level 1 is not known" },
    { BASE "cpu_level = 'x86-64-v2,+avx2'", "avx2: what it is built on" },
    { BASE "cpuid = ['1:ecx=x']", "f:3: cpuid is not supported: use cpu_level=" },
    { BASE "hypervisor = 'xen'\ncpu_level = 'x86-64-v2'", "not supported by hypervisor xen" },
    { BASE "kernel = ['x']", "kernel" },
    { "name = 'a'", "f: the domain has no kernel" },
    { "kernel = '/k'", "f: the domain has no name" },
    { "name = 'a'; kernel = 'k'", "kernel k: this must be an absolute path" },
    { "name = 'a'; kernel = '/k\\n'", "kernel has a control character (0x0a)" },
    { "name = 'a'; kernel = '/k '", "ends in a blank" },
    { "name = 'a'; kernel = '/\xff'", "kernel is not valid UTF-8" },
    { BASE "ramdisk = 'r'", "ramdisk r: this must be an absolute path" },
    { "name = 'a b'; kernel = '/k'", "name a b: a name has 1 to 63 characters" },
    { "name = ''; kernel = '/k'", "the domain has no name" },
    { "name = '12'; kernel = '/k'", "name 12: a number is not a name" },
    { "name = 12; kernel = '/k'", "name 12: a number is not a name" },
    { "name = '-a'; kernel = '/k'", "does not begin with '-'" },
    { "name = 'Domain-0'; kernel = '/k'", "is the host's own" },
    { "name = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'; kernel = '/k'",
        "1 to 63 characters" },
    { BASE "uuid = '12'", "uuid 12 is not of the form" },
    { BASE "uuid = '00000000-0000-0000-0000-000000000000'", "is the host's own" },
    { BASE "on_crash = 'rename-restart'", "f:3: on_crash: rename-restart is not supported" },
    { BASE "on_crash = 'coredump-destroy'", "coredump-destroy is not supported" },
    { BASE "on_crash = 'explode'", "on_crash: explode must be destroy, restart or preserve" },
    { BASE "on_crash = 1", "on_crash must be destroy" },
    { BASE "restart = 'sometimes'", "restart must be 'onreboot'" },
    { BASE "builder = 'hvm'", "f:3: builder = 'hvm' is not supported: there is no firmware" },
    { BASE "type = 'hvm'", "f:3: type = 'hvm' is not supported" },
    { BASE "builder = 'magic'", "builder must be 'linux' or 'generic'" },
    { BASE "hypervisor = 'kvm'", "hypervisor must be 'xvm' or 'xen'" },
    { BASE "hugepages = 2", "hugepages must be 1 or 0" },
    { BASE "boot = 'c'", "f:3: boot is not supported: it belongs to fully emulated machines" },
    { BASE "vnc = 1", "f:3: vnc is not supported: domains have no screen" },
    { BASE "vfb = [ 'type=vnc' ]", "vfb is not supported" },
    { BASE "sdl = 'yes'", "sdl is not supported" },
    { BASE "localtime = 1", "localtime is not supported" },
    { BASE "pci = [ '00:02.0' ]", "pci is not supported: a domain with a PCI device" },
    { BASE "bootloader = '/usr/bin/pygrub'", "bootloader is not supported: kernels are not taken" },
    { BASE "dhcp = 'dhcp'", "dhcp is not supported: write it into extra=" },
    { BASE "nfs_server = '1.2.3.4'", "write it into extra=" },
    { BASE "cmdline = 'a'\nextra = 'b'", "does not go with root= or extra=" },
    /* disks */
    { BASE "disk = [ 1 ]", "f:3: disk must be a list of texts" },
    { BASE "disk = 1", "f:3: disk must be a list of texts" },
    { BASE "disk = [ '' ]", "f:3: disk '' has 1 parts" },
    { BASE "disk = [ 'file:/x,xvda' ]", "has 2 parts; it must be of the form" },
    { BASE "disk = [ 'file:/a,b.img,xvda,w,x' ]", "disk mode 'xvda' must be r or w" },
    { BASE "disk = [ 'file:x.img,xvda,w' ]", "an absolute path is missing" },
    { BASE "disk = [ 'phy:,xvda,w' ]", "an absolute path is missing" },
    { BASE "disk = [ 'x.img,xvda,w' ]", "an absolute path is missing" },
    { BASE "disk = [ 'tap:qcow:/x,xvda,w' ]", "only raw images are supported" },
    { BASE "disk = [ 'tap2:vhd:/x,xvda,w' ]", "only raw images are supported" },
    { BASE "disk = [ 'nbd:/x,xvda,w' ]", "nbd: is not supported" },
    { BASE "disk = [ 'file:/x,ioemu:hda,w' ]", "there are no emulated disks" },
    { BASE "disk = [ 'file:/x,hdc:cdrom,r' ]", "there are no CD drives" },
    { BASE "disk = [ 'file:/x,xvda,w!' ]", "written by several domains" },
    { BASE "disk = [ 'file:/x,xvda,x' ]", "disk mode 'x' must be r or w" },
    { BASE "disk = [ 'file:/x,xvda,w,2' ]", "'2' behind the mode is not supported" },
    { BASE "disk = [ 'file:/x,xvda,w,serial=123456789012345678901' ]", "at most 20 characters" },
    { BASE "disk = [ 'file:/x,../a,w' ]", "this must be a name such as xvda" },
    { BASE "disk = [ 'file:/x,0x301,w' ]", "this must be a name such as xvda" },
    { BASE "disk = [ 'file:/x,xvda,w', 'file:/y,xvda,w' ]", "device xvda is taken by /x" },
    { BASE "disk = [ 'file:/x,xvda,w', 'file:/x,xvdb,r' ]", "is there twice, as xvda and xvdb" },
    { BASE "disk = [ 'format=qcow2, vdev=xvda, target=/x' ]", "only raw images are supported" },
    { BASE "disk = [ 'format=raw, vdev=xvda, access=w' ]", "has no target=" },
    { BASE "disk = [ 'format=raw, access=w, target=/x' ]", "has no vdev=" },
    { BASE "disk = [ '/x,raw,xvda,w,5' ]", "'5' is the 5th part" },
    { BASE "disk = [ '/x,raw,xvda,w,backendtype=nbd' ]", "must be phy, qdisk or tap" },
    { BASE "disk = [ 'format=bmp,vdev=xvda,target=/x' ]", "must be raw, qcow2, qcow, vhd or qed" },
    { BASE "disk = [ 'format=raw,vdev=xvda,colour=red,target=/x' ]", "'colour=red' is not known" },
    /* Xen */
    { XEN "rng = 1", "domains of Xen have no virtio devices" },
    { XEN "type = 'hmv'", "type must be 'pvh', 'pv' or 'hvm'" },
    { XEN "disk = ['file:/x,vda,w']", "Xen's disks are called xvda" },
    { XEN "disk = ['file:/x,xvda0,w']", "Xen's disks are called xvda" },
    { XEN "disk = ['nfs://h/e/f,xvda,w']", "mount the export" },
    { XEN "disk = ['file:/x,xvda,w,serial=S']", "serial is not supported by Xen's backends" },
    { XEN "disk = ['file:/x,xvda,w,on_io_error=stop']", "on_io_error other than report" },
    { XEN "disk = ['file:/x,xvda,w,cache=writeback']", "cache other than none" },
    { XEN "disk = ['/x,qcow2,xvda,w,backendtype=phy']", "backend phy takes raw images only" },
    { XEN "disk = ['/x,raw,xvda,w,script=/tmp/evil']",
        "the name of a script in /etc/xen/scripts/" },
    { XEN "disk = ['/x,raw,xvda,w,script=../evil']", "the name of a script in /etc/xen/scripts/" },
    { XEN "disk = ['file:/x,hdc:cdrom,r']", "there are no CD drives" },
    { XEN "vif = ['model=e1000']", "the interfaces of pvh guests are netfront" },
    { XEN "vif = ['script=/etc/xen/scripts/../../x']", "the name of a script" },
    { XEN "vif = ['ip=10.0.0.1;reboot']", "these must be addresses" },
    { XEN "vif = ['rate=fast']", "rate=fast must be of the form 10Mb/s" },
    { XEN "vif = ['rate=99999999999999999999GB/s']", "must be of the form 10Mb/s" },
    { XEN "vif = ['backend=net0']", "backend= is not supported" },
    { XEN "bootloader = '/home/me/pygrub'", "f:4: bootloader /home/me/pygrub is not supported" },
    { XEN "bootloader = 'pygrub'", "there is no disk to take a kernel from" },
    { XEN "bootloader = 'pygrub'; disk = ['file:/x,xvda,w']", "remove kernel or bootloader" },
    { XEN "bootloader_args = 'a'", "bootloader_args, and there is no bootloader" },
    { XEN "boot = 'c'", "boot is not supported: it belongs to fully emulated" },
    { XEN "tsc_mode = 'fast'", "tsc_mode fast must be default" },
    { XEN "type = 'hvm'; boot = 'x'", "boot x must be letters of c, d, n" },
    { XEN "type = 'hvm'; firmware = 'coreboot'", "use seabios or ovmf" },
    { "name = 'a'; hypervisor = 'xen'; type = 'hvm'", "nothing to boot from" },
    { XEN "on_watchdog = 'dance'", "on_watchdog: dance must be destroy" },
    { XEN "pci = ['01:00.0']", "pci is not supported" },
    { XEN "device_model_version = 'qemu-xen-traditional'", "there is one device model" },
    { BASE "on_watchdog = 'restart'", "on_watchdog is for domains of Xen, and hypervisor is xvm" },
    { BASE "tsc_mode = 1", "the guest uses the kvm-clock" },
    { BASE "vif = ['rate=1MB/s']", "rate= is not supported" },
    { BASE "disk = [ 'file:/x,xvda,w,on_io_error=retry' ]",
        "on_io_error retry must be report, stop or ignore" },
    { BASE "disk = [ 'file:/x,xvda,w,on_io_error=enospace' ]", "enospace is not supported" },
    { BASE "disk = [ 'file:/x,xvda,w,cache=directsync' ]", "use none or writethrough" },
    { BASE "disk = [ 'file:/x,xvda,w,cache=some' ]", "cache some must be none, writethrough" },
    { BASE "disk = [ 'file:/x,xvda,w,wwn=12' ]", "wwn 12: this must be 16 or 32 hex digits" },
    { BASE "disk = [ 'file:/x,xvda,w,npiv=1:2' ]", "npiv 1:2: this must be WWPN:WWNN" },
    { BASE "disk = [ 'file:/x,xvda,w,speed=1' ]", "'speed=1' is not known; serial=, on_io_error=" },
    { BASE "disk = [ 'nfs://h/e/f,xvda,w,wwn=0123456789abcdef' ]",
        "wwn and npiv are for disks of this host" },
    { BASE "disk = [ 'nfs:h/e/f,xvda,w' ]", "must be of the form nfs:SERVER:/EXPORT/FILE" },
    { BASE "disk = [ 'iscsi:iqn.x:y,xvda,w' ]", "must be of the form iscsi:TARGET/LUN@PORTAL" },
    { BASE "disk = [ 'nfs://h,xvda,w' ]", "disk nfs://h: there is nothing behind the server's" },
    { BASE "disk = [ 'nfs://h/e/f?version=4,xvda,w' ]", "leave version=4 out" },
    { BASE "disk = [ 'iscsi://u:pw@h/iqn.x:y/1,xvda,w' ]",
        "disk iscsi://u@h/iqn.x:y/1: a password must not stand in a definition" },
    /* vifs */
    { BASE "vif = [ 'mac' ]", "f:3: vif: 'mac' is not of the form key=value" },
    { BASE "vif = [ 'mac=00:16:3e:00:00' ]", "mac 00:16:3e:00:00: this must be of the form" },
    { BASE "vif = [ 'mac=01:16:3e:00:00:00' ]", "is a group address" },
    { BASE "vif = [ 'mac=00:00:00:00:00:00' ]", "is no address" },
    { BASE "vif = [ 'mac=00:16:3e:00:00:01', 'mac=00:16:3E:00:00:01' ]", "is there twice" },
    { BASE "vif = [ 'vifname=a', 'vifname=a' ]", "vifname a is there twice" },
    { BASE "vif = [ 'brigde=br0' ]", "unknown brigde=; did you mean bridge=?" },
    { BASE "vif = [ 'ip=1.2.3.4' ]", "ip= is not supported" },
    { BASE "vif = [ 'type=ioemu' ]", "type=ioemu is not supported" },
    { BASE "vif = [ 'model=e1000' ]", "model=e1000 is not supported" },
    { BASE "vif = [ 'bridge=../br0' ]", "is no name of an interface" },
    { BASE "vif = [ 'bridge=abcdefghijklmnop' ]", "is no name of an interface" },
    { BASE "vif = [ 'mtu=10' ]", "mtu=10 must be from 68 to 65535" },
    { BASE "vif = ['','','','','','','','','','','']", "12 devices (disks, vifs, rng, balloon)" },
};

/* Each way to write a disk's storage, and what it is then. */
static void test_storage(void **state)
{
    static const char text[] = BASE
        "disk = [ 'nfs://st/export/a.img?nfsport=12049,vda,w,cache=none,on_io_error=stop',"
        " 'nfs:st:/export/b.img,vdb,r', 'iscsi:iqn.2026-01.lab:d/3@st,vdc,w,on_io_error=report',"
        " 'iscsi://joe@[fd99::1]:3261/iqn.2026-01.lab:d/4,vdd,w,cache=writeback',"
        " 'phy:mapper/x,vde,w,serial=S1,wwn=600140500000000000000000000000AB,"
        "npiv=2100000000000001:2000000000000001,on_io_error=ignore' ]";
    struct err e;
    Migrd__Domain *d = parse_with(text, NULL, 0, &e);

    (void)state;
    assert_non_null(d);
    assert_string_equal(d->disks[0]->source, "nfs://st/export/a.img?nfsport=12049");
    assert_string_equal(d->disks[0]->cache, "none");
    assert_int_equal(d->disks[0]->on_io_error, MIGRD__ON_IO_ERROR__IO_STOP);
    assert_string_equal(d->disks[1]->source, "nfs://st/export/b.img");
    assert_true(d->disks[1]->read_only);
    assert_string_equal(d->disks[2]->source, "iscsi://st/iqn.2026-01.lab:d/3");
    assert_int_equal(d->disks[2]->on_io_error, MIGRD__ON_IO_ERROR__IO_REPORT);
    assert_string_equal(d->disks[3]->source, "iscsi://joe@[fd99::1]:3261/iqn.2026-01.lab:d/4");
    assert_string_equal(d->disks[4]->source, "/dev/mapper/x");
    assert_string_equal(d->disks[4]->wwn, "600140500000000000000000000000ab");
    assert_string_equal(d->disks[4]->npiv, "2100000000000001:2000000000000001");
    assert_int_equal(d->disks[4]->on_io_error, MIGRD__ON_IO_ERROR__IO_IGNORE);
    migrd__domain__free_unpacked(d, NULL);
}

static void test_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err e;
        Migrd__Domain *d = parse_with(bad[i].text, NULL, 0, &e);

        if (d != NULL || strstr(e.text, bad[i].message) == NULL || strncmp(e.text, "f:", 2) != 0)
            fail_msg("case %zu: %s\ngave: %s", i, bad[i].text, d != NULL ? "a domain" : e.text);
    }
}

static void test_limits(void **state)
{
    size_t n = DEFINE_TEXT_MAX + 1;
    char *text = malloc(n + 1);
    struct err e;

    (void)state;
    memset(text, '#', n);
    text[n] = '\0';
    assert_null(define_parse(text, n, DEFINE_AUTO, "f", NULL, 0, &e));
    assert_non_null(strstr(e.text, "larger than 262144 bytes"));
    assert_null(define_parse("name\0", 5, DEFINE_AUTO, "f", NULL, 0, &e));
    assert_non_null(strstr(e.text, "NUL byte"));
    memset(text, '[', n);
    memcpy(text, "disk=", 5);
    text[DEFINE_TEXT_MAX] = '\0';
    assert_null(parse_with(text, NULL, 0, &e));
    /* very many strings, very many assignments */
    strcpy(text, "disk=[");
    for (size_t i = 6; i + 3 < DEFINE_TEXT_MAX; i += 3)
        memcpy(text + i, "'',", 4);
    assert_null(parse_with(text, NULL, 0, &e));
    assert_non_null(strstr(e.text, "too many values in lists"));
    text[0] = '\0';
    for (size_t i = 0; i + 5 < DEFINE_TEXT_MAX; i += 4)
        memcpy(text + i, "a=1;", 5);
    assert_null(parse_with(text, NULL, 0, &e));
    assert_non_null(strstr(e.text, "too many assignments"));
    free(text);
    assert_null(define_parse(BASE "x=1", strlen(BASE "x=1"), DEFINE_XM, NULL, NULL, 0, NULL));
}

static void test_overrides(void **state)
{
    static const char *const set[] = { "name=web2", "memory=256", "vcpus='2'", "extra=quiet",
        "disk=phy:vg/a,xvda,w", "disk=file:/b,xvdb,r", "vif=", "on_crash=preserve", "rng=1",
        "cpus=0-1" };
    static const char *const lists[] = { "disk=['file:/b,xvdb,r']", "vif=[]" };
    static const char *const wrong[][2] = {
        { "memory", "command line: \"memory\" is not of the form key=value" },
        { "=3", "is not of the form key=value" },
        { "memory=much", "command line: memory must be a whole number" },
        { "memroy=3", "command line: unknown key memroy; did you mean memory?" },
        { "disk=['a' + 'b']", "command line: joining with +" },
        { "disk=['a'] x", "something follows the value" },
        { "vnc=1", "command line: vnc is not supported" },
        { "memory=1 2", "must be a whole number" },
    };
    static const char *const text = BASE
        "root = '/dev/xvda'\nextra = 'ro'\nmaxmem = 512\ndisk = ['file:/a,xvda,w']\nvif=['','']\n";
    Migrd__Domain *d;
    struct err e;

    (void)state;
    d = parse_with(text, set, sizeof set / sizeof set[0], &e);
    if (d == NULL)
        fail_msg("%s", e.text);
    assert_string_equal(d->name, "web2");
    assert_int_equal(d->memory_kib, 256 * 1024);
    assert_int_equal(d->vcpus, 2);
    assert_string_equal(d->cmdline, "root=/dev/xvda quiet");
    assert_int_equal(d->n_disks, 2);
    assert_string_equal(d->disks[0]->source, "/dev/vg/a");
    assert_true(d->disks[1]->read_only);
    assert_int_equal(d->n_vifs, 1);
    assert_int_equal(d->on_crash, MIGRD__ON_EVENT__ON_PRESERVE);
    assert_true(d->rng);
    assert_string_equal(d->vcpu_pinning, "0-1");
    drop(d);
    d = parse_with(text, lists, 2, &e);
    assert_non_null(d);
    assert_int_equal(d->n_disks, 1);
    assert_int_equal(d->n_vifs, 0);
    drop(d);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_null(parse_with(text, &wrong[i][0], 1, &e));
        if (strstr(e.text, wrong[i][1]) == NULL)
            fail_msg("%s: %s", wrong[i][0], e.text);
    }
}

static void test_copy_and_write(void **state)
{
    Migrd__Domain *d = parse(BASE "extra = 'a \"b\" \\'c\\' \\\\d'\ndisk = [ 'file:/a,xvda,w' ]\n"
                                  "vif = [ 'bridge=br0' ]\non_crash='preserve'\n"),
                  *copy = define_copy(d), *back;
    struct err e;
    char *text;

    (void)state;
    assert_same(d, copy);
    text = define_xm(d, &e);
    assert_non_null(text);
    back = parse(text);
    free(text);
    assert_same(d, back);
    copy->memory_kib -= 4;
    assert_null(define_xm(copy, &e));
    assert_non_null(strstr(e.text, "no whole number of MiB"));
    drop(copy);
    drop(d);
    drop(back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_xen),
        cmocka_unit_test(test_xen_types),
        cmocka_unit_test(test_host_hypervisor),
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_storage),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_copy_and_write),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
