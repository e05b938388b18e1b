/* SPDX-License-Identifier: ISC */
/* What is pure in Xen's driver: definitions as libxl wants them and back, states, folders. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#ifdef XEN_RELEASE

#include <xenctrl.h>

#include "hypervisor/hypervisor.h"
#include "hypervisor/xen/find.h"
#include "hypervisor/xen/folder.h"
#include "hypervisor/xen/xen_domain.h"

#define UUID "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"

static Migrd__Disk disk = MIGRD__DISK__INIT;
static Migrd__Vif vif = MIGRD__VIF__INIT;
static Migrd__Disk *disks[] = { &disk };
static Migrd__Vif *vifs[] = { &vif };
static char *pins[] = { (char *)"2", (char *)"" };

static Migrd__Domain guest(void)
{
    Migrd__Domain d = MIGRD__DOMAIN__INIT;

    migrd__disk__init(&disk);
    migrd__vif__init(&vif);
    disk.source = (char *)"/img/a";
    disk.device = (char *)"xvda";
    vif.mac = (char *)"00:16:3e:0a:0b:0c";
    vif.bridge = (char *)"xenbr0";
    d.uuid = (char *)UUID;
    d.name = (char *)"web1";
    d.hypervisor = (char *)"xen";
    d.memory_kib = 131072;
    d.max_memory_kib = 262144;
    d.vcpus = 2;
    d.max_vcpus = 4;
    d.kernel = (char *)"/boot/vmlinux";
    d.initrd = (char *)"/boot/initrd";
    d.cmdline = (char *)"console=hvc0";
    d.disks = disks;
    d.n_disks = 1;
    d.vifs = vifs;
    d.n_vifs = 1;
    return d;
}

static void test_pvh(void **state)
{
    Migrd__Domain d = guest();
    libxl_domain_config c;
    struct err e;

    (void)state;
    d.vcpu_pins = pins;
    d.n_vcpu_pins = 2;
    d.cpu_weight = 512;
    d.cpu_cap = 50;
    vif.rate_kib = 1000;
    libxl_domain_config_init(&c);
    assert_int_equal(xen_config(&d, true, NULL, &c, &e), 0);
    assert_int_equal(c.c_info.type, LIBXL_DOMAIN_TYPE_PVH);
    assert_string_equal(c.c_info.name, "web1");
    assert_int_equal(c.b_info.target_memkb, 131072);
    assert_int_equal(c.b_info.max_memkb, 262144);
    assert_int_equal(c.b_info.max_vcpus, 4);
    assert_int_equal(c.b_info.avail_vcpus.map[0], 3);
    assert_int_equal(c.b_info.sched_params.weight, 512);
    assert_int_equal(c.b_info.sched_params.cap, 50);
    assert_int_equal(c.b_info.num_vcpu_hard_affinity, 4);
    assert_int_equal(c.b_info.vcpu_hard_affinity[0].map[0], 4);
    assert_int_equal(c.b_info.vcpu_hard_affinity[1].map[0], 0xff); /* any */
    assert_string_equal(c.b_info.kernel, "/boot/vmlinux");
    assert_string_equal(c.b_info.ramdisk, "/boot/initrd");
    assert_string_equal(c.b_info.cmdline, "console=hvc0");
    assert_int_equal(c.num_disks, 1);
    assert_string_equal(c.disks[0].pdev_path, "/img/a");
    assert_int_equal(c.disks[0].format, LIBXL_DISK_FORMAT_RAW);
    assert_int_equal(c.disks[0].readwrite, 1);
    assert_int_equal(c.num_nics, 1);
    assert_int_equal(c.nics[0].mac[5], 0x0c);
    assert_int_equal(c.nics[0].nictype, LIBXL_NIC_TYPE_VIF);
    assert_int_equal(c.nics[0].rate_bytes_per_interval, 51200); /* of 50 ms */
    assert_int_equal(c.on_crash, LIBXL_ACTION_ON_SHUTDOWN_PRESERVE);
    libxl_domain_config_dispose(&c);
}

static const char *script_of_disk(Migrd__Domain *d, libxl_domain_config *c)
{
    struct err e;

    libxl_domain_config_init(c);
    assert_int_equal(xen_config(d, true, "/x/xen-hotplug", c, &e), 0);
    return c->disks[0].script;
}

static void test_hotplug(void **state)
{
    Migrd__Domain d = guest(), *back;
    libxl_domain_config c;
    struct err e;

    (void)state;
    vif.bridge = (char *)"xenbr0";
    assert_string_equal(script_of_disk(&d, &c), "/x/xen-hotplug");
    assert_string_equal(c.nics[0].script, "/x/xen-hotplug");
    back = xen_config_definition(&c, &e);
    assert_non_null(back);
    assert_string_equal(back->disks[0]->script, ""); /* another host has it elsewhere */
    assert_string_equal(back->vifs[0]->script, "");
    migrd__domain__free_unpacked(back, NULL);
    libxl_domain_config_dispose(&c);

    vif.script = (char *)"vif-route";
    disk.script = (char *)"block-drbd";
    assert_string_equal(script_of_disk(&d, &c), "block-drbd");
    assert_string_equal(c.nics[0].script, "vif-route");
    libxl_domain_config_dispose(&c);
    vif.script = disk.script = (char *)"";
    vif.ip = (char *)"10.0.0.1";
    disk.format = (char *)"qcow2";
    assert_null(script_of_disk(&d, &c));
    assert_null(c.nics[0].script);
    libxl_domain_config_dispose(&c);
    vif.ip = disk.format = (char *)"";
    d.type = MIGRD__GUEST_TYPE__GUEST_PV;
    d.bootloader = (char *)"pygrub";
    assert_null(script_of_disk(&d, &c));
    libxl_domain_config_dispose(&c);
}

static void test_incoming_has_no_devices(void **state)
{
    Migrd__Domain d = guest();
    libxl_domain_config c;
    struct err e;

    (void)state;
    libxl_domain_config_init(&c);
    assert_int_equal(xen_config(&d, false, NULL, &c, &e), 0);
    assert_int_equal(c.num_disks, 0);
    assert_int_equal(c.num_nics, 0);
    libxl_domain_config_dispose(&c);
}

static void test_types(void **state)
{
    Migrd__Domain d = guest();
    libxl_domain_config c;
    struct err e;

    (void)state;
    d.type = MIGRD__GUEST_TYPE__GUEST_PV;
    d.bootloader = (char *)"pygrub";
    libxl_domain_config_init(&c);
    assert_int_equal(xen_config(&d, true, NULL, &c, &e), 0);
    assert_int_equal(c.c_info.type, LIBXL_DOMAIN_TYPE_PV);
    assert_string_equal(c.b_info.bootloader, "pygrub");
    libxl_domain_config_dispose(&c);
    d.type = MIGRD__GUEST_TYPE__GUEST_HVM;
    d.boot = (char *)"dc";
    d.firmware = (char *)"ovmf";
    d.tsc_mode = (char *)"native";
    libxl_domain_config_init(&c);
    assert_int_equal(xen_config(&d, true, NULL, &c, &e), 0);
    assert_int_equal(c.c_info.type, LIBXL_DOMAIN_TYPE_HVM);
    assert_string_equal(c.b_info.u.hvm.boot, "dc");
    assert_int_equal(c.b_info.u.hvm.bios, LIBXL_BIOS_TYPE_OVMF);
    assert_int_equal(c.b_info.tsc_mode, LIBXL_TSC_MODE_NATIVE);
    assert_int_equal(c.nics[0].nictype, LIBXL_NIC_TYPE_VIF_IOEMU);
    libxl_domain_config_dispose(&c);
}

static void refuse(Migrd__Domain *d, enum err_code code)
{
    libxl_domain_config c;
    struct err e = { 0 };

    libxl_domain_config_init(&c);
    assert_int_equal(xen_config(d, true, NULL, &c, &e), -1);
    assert_int_equal(e.code, code);
    libxl_domain_config_dispose(&c);
}

static void test_refusals(void **state)
{
    Migrd__Domain d = guest();

    (void)state;
    disk.source = (char *)"nfs://server/export/a";
    refuse(&d, ERR_UNSUPPORTED);
    d = guest();
    vif.mac = (char *)"00:16";
    refuse(&d, ERR_INVALID);
    d = guest();
    d.uuid = (char *)"none";
    refuse(&d, ERR_INVALID);
    d = guest();
    d.tsc_mode = (char *)"fast";
    refuse(&d, ERR_INVALID);
    d = guest();
    d.vcpu_pinning = (char *)"1-";
    refuse(&d, ERR_INVALID);
}

/* xl looks after its own domains: their policies are not ours. */
static void test_back(void **state)
{
    Migrd__Domain d = guest(), *back;
    libxl_domain_config c;
    struct err e;

    (void)state;
    disk.format = (char *)"qcow2";
    disk.read_only = true;
    libxl_domain_config_init(&c);
    assert_int_equal(xen_config(&d, true, NULL, &c, &e), 0);
    back = xen_config_definition(&c, &e);
    assert_non_null(back);
    libxl_domain_config_dispose(&c);
    assert_string_equal(back->uuid, UUID);
    assert_string_equal(back->name, "web1");
    assert_string_equal(back->hypervisor, "xen");
    assert_int_equal(back->type, MIGRD__GUEST_TYPE__GUEST_PVH);
    assert_int_equal(back->memory_kib, 131072);
    assert_int_equal(back->max_memory_kib, 262144);
    assert_int_equal(back->vcpus, 2);
    assert_int_equal(back->max_vcpus, 4);
    assert_int_equal(back->n_disks, 1);
    assert_string_equal(back->disks[0]->format, "qcow2");
    assert_true(back->disks[0]->read_only);
    assert_int_equal(back->n_vifs, 1);
    assert_string_equal(back->vifs[0]->mac, "00:16:3e:0a:0b:0c");
    assert_string_equal(back->vifs[0]->bridge, "xenbr0");
    assert_int_equal(back->on_crash, MIGRD__ON_EVENT__ON_PRESERVE);
    assert_int_equal(back->on_reboot, MIGRD__ON_EVENT__ON_PRESERVE);
    migrd__domain__free_unpacked(back, NULL);
}

/* --- states --- */

static enum hv_state state_of(uint32_t flags, bool incoming)
{
    xc_domaininfo_t d = { .flags = flags };

    return xen_state_of(&d, incoming);
}

static uint32_t ended(unsigned code)
{
    return XEN_DOMINF_shutdown | code << XEN_DOMINF_shutdownshift;
}

static void test_states(void **state)
{
    (void)state;
    assert_int_equal(state_of(XEN_DOMINF_running, false), HV_RUNNING);
    assert_int_equal(state_of(0, false), HV_RUNNING); /* waits for a CPU */
    assert_int_equal(state_of(XEN_DOMINF_blocked, false), HV_BLOCKED);
    assert_int_equal(state_of(XEN_DOMINF_paused | XEN_DOMINF_blocked, false), HV_PAUSED);
    assert_int_equal(state_of(XEN_DOMINF_paused, true), HV_INCOMING);
    assert_int_equal(state_of(ended(SHUTDOWN_poweroff), false), HV_SHUTDOWN);
    assert_int_equal(state_of(ended(SHUTDOWN_reboot), false), HV_SHUTDOWN);
    assert_int_equal(state_of(ended(SHUTDOWN_suspend), false), HV_PAUSED);
    assert_int_equal(state_of(ended(SHUTDOWN_crash), false), HV_CRASHED);
    assert_int_equal(state_of(ended(SHUTDOWN_watchdog) | XEN_DOMINF_paused, false), HV_CRASHED);
}

static void test_type_of(void **state)
{
    xc_domaininfo_t d = { .flags = 0 };

    (void)state;
    assert_int_equal(xen_type_of(&d), XEN_PV);
    d.flags = XEN_DOMINF_hvm_guest;
    d.arch_config.emulation_flags = XEN_X86_EMU_LAPIC;
    assert_int_equal(xen_type_of(&d), XEN_PVH);
    d.arch_config.emulation_flags = XEN_X86_EMU_ALL & ~XEN_X86_EMU_VPCI;
    assert_int_equal(xen_type_of(&d), XEN_HVM);
}

static void test_uuid(void **state)
{
    static const uint8_t handle[16] = { 0x0a, 0x1b, 0x2c, 0x3d, 0x4e, 0x5f, 0x60, 0x71, 0x82, 0x93,
        0xa4, 0xb5, 0xc6, 0xd7, 0xe8, 0xf9 };
    char text[HV_UUID_LEN];

    (void)state;
    xen_uuid_text(handle, text);
    assert_string_equal(text, UUID);
}

/* --- folders --- */

static void test_folder(void **state)
{
    char base[] = "/tmp/test_xen.XXXXXX", dir[64];
    Migrd__Domain d = guest(), *back;
    struct err e;
    int lock;

    (void)state;
    assert_non_null(mkdtemp(base));
    snprintf(dir, sizeof dir, "%s/%s", base, UUID);
    assert_int_equal(folder_lock(dir, false, 0, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    lock = folder_lock(dir, true, 0, &e);
    assert_true(lock >= 0);
    assert_int_equal(folder_lock(dir, true, 50, &e), -1);
    assert_int_equal(e.code, ERR_TIMEOUT);
    assert_null(folder_definition(dir, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(folder_put_definition(dir, &d, &e), 0);
    back = folder_definition(dir, &e);
    assert_non_null(back);
    assert_string_equal(back->name, "web1");
    migrd__domain__free_unpacked(back, NULL);
    assert_int_equal(folder_mark(dir, FOLDER_INCOMING, "", &e), 0);
    assert_true(folder_has(dir, FOLDER_INCOMING));
    assert_false(folder_says(dir, FOLDER_INCOMING, FOLDER_LOADED));
    assert_int_equal(folder_mark(dir, FOLDER_INCOMING, FOLDER_LOADED, &e), 0);
    assert_true(folder_says(dir, FOLDER_INCOMING, FOLDER_LOADED));
    folder_unmark(dir, FOLDER_INCOMING);
    assert_false(folder_has(dir, FOLDER_INCOMING));
    /* Removed by its holder: the next lock is that of a new folder, whatever the old holder does.
     */
    rundir_remove(dir);
    assert_int_not_equal(access(dir, F_OK), 0);
    assert_int_equal(folder_lock(dir, false, 0, &e), -1);
    close(lock);
    lock = folder_lock(dir, true, 0, &e);
    assert_true(lock >= 0);
    close(lock);
    rundir_remove(dir);
    rmdir(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pvh),
        cmocka_unit_test(test_hotplug),
        cmocka_unit_test(test_incoming_has_no_devices),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_back),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_type_of),
        cmocka_unit_test(test_uuid),
        cmocka_unit_test(test_folder),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    puts("skip: Xen's driver is not part of this build");
    return 77;
}

#endif
