/* SPDX-License-Identifier: ISC */
/* One device of a definition comes, goes and changes; notes of other programs in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrd/define/define.h"

#define VDA "<disk type='file' device='disk'><source file='/a'/><target dev='vda'/></disk>"
#define VDB "<disk type='file' device='disk'><source file='/b'/><target dev='vdb'/></disk>"
#define NIC1                                                                                       \
    "<interface type='bridge'><source bridge='br0'/><mac "                                         \
    "address='02:00:00:00:00:01'/></interface>"
#define NIC2                                                                                       \
    "<interface type='bridge'><source bridge='br0'/><mac "                                         \
    "address='02:00:00:00:00:02'/></interface>"

static Migrd__Domain *domain(const char *head, const char *devices)
{
    char text[2000];
    struct err e;
    Migrd__Domain *d;

    snprintf(text, sizeof text,
        "<domain type='xvm'><name>d</name>%s<memory>65536</memory><os><type>linux</type>"
        "<kernel>/k</kernel></os><devices>%s</devices></domain>",
        head, devices);
    d = define_parse(text, strlen(text), DEFINE_XML, "f", NULL, 0, &e);
    if (d == NULL)
        fail_msg("%s", e.text);
    return d;
}

/* What comes of it replaces *d; or it fails with that text, and *d stays. */
static void change(Migrd__Domain **d, enum define_change how, const char *xml, const char *failure)
{
    struct err e;
    Migrd__Domain *next = define_change_device(*d, xml, strlen(xml), how, &e);

    if (failure != NULL) {
        if (next != NULL || strstr(e.text, failure) == NULL)
            fail_msg("expected '%s', got '%s'", failure, next != NULL ? "success" : e.text);
        return;
    }
    if (next == NULL)
        fail_msg("%s", e.text);
    migrd__domain__free_unpacked(*d, NULL);
    *d = next;
}

static void test_disks(void **state)
{
    Migrd__Domain *d = domain("", VDA);

    (void)state;
    change(&d, DEFINE_ATTACH, VDB, NULL);
    change(&d, DEFINE_ATTACH, VDB, "has a disk vdb already: /b");
    change(&d, DEFINE_ATTACH, "<disk type='file'><source file='/a'/><target dev='vdc'/></disk>",
        "there twice");
    change(&d, DEFINE_ATTACH, "<disk type='file'><target dev='vdc'/></disk>", "no <source>");
    assert_int_equal(d->n_disks, 2);
    change(&d, DEFINE_UPDATE,
        "<disk type='file'><source file='/c'/><target dev='vda'/><readonly/></disk>", NULL);
    assert_int_equal(d->n_disks, 2);
    assert_string_equal(d->disks[0]->source, "/c");
    assert_true(d->disks[0]->read_only);
    assert_string_equal(d->disks[1]->source, "/b");
    change(&d, DEFINE_UPDATE, "<disk type='file'><source file='/x'/><target dev='vdz'/></disk>",
        "no disk vdz");
    change(&d, DEFINE_DETACH, "<disk type='file'><source file='/x'/><target dev='vda'/></disk>",
        "is /c, not /x");
    change(&d, DEFINE_DETACH, "<disk type='file'><target dev='vda'/></disk>", NULL);
    assert_int_equal(d->n_disks, 1);
    assert_string_equal(d->disks[0]->device, "vdb");
    change(&d, DEFINE_DETACH, VDB, NULL);
    change(&d, DEFINE_DETACH, VDB, "no disk vdb");
    assert_int_equal(d->n_disks, 0);
    migrd__domain__free_unpacked(d, NULL);
}

static void test_interfaces(void **state)
{
    Migrd__Domain *d = domain("", NIC1);

    (void)state;
    change(&d, DEFINE_ATTACH, NIC2, NULL);
    change(&d, DEFINE_ATTACH, NIC2, "02:00:00:00:00:02 already");
    change(&d, DEFINE_ATTACH, "<interface type='bridge'><source bridge='br1'/></interface>", NULL);
    assert_int_equal(d->n_vifs, 3);
    assert_string_not_equal(d->vifs[2]->mac, "");
    change(&d, DEFINE_DETACH, "<interface type='bridge'><source bridge='br0'/></interface>",
        "2 such interfaces");
    change(&d, DEFINE_DETACH, "<interface type='bridge'><source bridge='br1'/></interface>", NULL);
    change(&d, DEFINE_UPDATE,
        "<interface type='bridge'><mac address='02:00:00:00:00:01'/><source bridge='br7'/>"
        "</interface>",
        NULL);
    assert_string_equal(d->vifs[0]->bridge, "br7");
    change(&d, DEFINE_DETACH,
        "<interface type='bridge'><mac address='02:00:00:00:00:01'/></interface>", NULL);
    change(&d, DEFINE_DETACH, NIC1, "no interface with MAC address 02:00:00:00:00:01");
    assert_int_equal(d->n_vifs, 1);
    assert_string_equal(d->vifs[0]->mac, "02:00:00:00:00:02");
    migrd__domain__free_unpacked(d, NULL);
}

static void test_others(void **state)
{
    static const char rng[] = "<rng model='virtio'><backend model='random'/></rng>";
    static const char balloon[] = "<memballoon model='virtio'/>";
    Migrd__Domain *d = domain("", "<memballoon model='none'/>");

    (void)state;
    change(&d, DEFINE_DETACH, rng, "no random number generator");
    change(&d, DEFINE_ATTACH, rng, NULL);
    assert_true(d->rng && !d->balloon);
    change(&d, DEFINE_ATTACH, rng, "already");
    change(&d, DEFINE_ATTACH, balloon, NULL);
    assert_true(d->rng && d->balloon);
    change(&d, DEFINE_UPDATE, "<memballoon model='none'/>", NULL);
    assert_false(d->balloon);
    change(&d, DEFINE_DETACH, rng, NULL);
    assert_false(d->rng);
    change(&d, DEFINE_ATTACH, "<console type='pty'/>", "cannot come or go");
    change(&d, DEFINE_ATTACH, "<tpm/>", "no virtual TPM");
    change(&d, DEFINE_ATTACH, "<bogus/>", "<bogus> in <devices> is not supported");
    change(&d, DEFINE_ATTACH, "<disk", "no XML");
    change(&d, DEFINE_ATTACH, "", "no XML");
    change(&d, DEFINE_ATTACH, "<!DOCTYPE disk><disk/>", "DOCTYPE");
    migrd__domain__free_unpacked(d, NULL);
}

/* The guest's part of a definition is never lost by a change of another. */
static void test_rest_stays(void **state)
{
    Migrd__Domain *d = domain("<title>t</title>", VDA NIC1 "<rng model='virtio'/>");
    size_t before = migrd__domain__get_packed_size(d);

    (void)state;
    change(&d, DEFINE_ATTACH, VDB, NULL);
    change(&d, DEFINE_ATTACH, NIC2, NULL);
    assert_true(d->rng && d->balloon);
    change(&d, DEFINE_DETACH, NIC2, NULL);
    change(&d, DEFINE_DETACH, VDB, NULL);
    assert_int_equal(migrd__domain__get_packed_size(d), before);
    migrd__domain__free_unpacked(d, NULL);
}

static void test_notes(void **state)
{
    Migrd__Domain *d = domain("<title> a title </title><description>two\nlines</description>"
                              "<metadata xmlns:a='urn:a'><a:x k='1'>text<a:y/></a:x>"
                              "<y xmlns='urn:b'/></metadata>",
        VDA);
    struct err e;
    char *text;

    (void)state;
    assert_string_equal(d->title, "a title");
    assert_string_equal(d->description, "two\nlines");
    text = define_metadata_get(d, "urn:a", &e);
    assert_string_equal(text, "<a:x xmlns:a=\"urn:a\" k=\"1\">text<a:y/></a:x>");
    free(text);
    assert_null(define_metadata_get(d, "urn:c", &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(define_metadata_set(d, "urn:b", "b", "<z v='2'/>", &e), 0);
    text = define_metadata_get(d, "urn:b", &e);
    assert_string_equal(text, "<b:z xmlns:b=\"urn:b\" v=\"2\"/>");
    free(text);
    assert_int_equal(define_metadata_set(d, "urn:a", "a", NULL, &e), 0);
    assert_null(define_metadata_get(d, "urn:a", &e));
    assert_string_equal(d->metadata, "<b:z xmlns:b=\"urn:b\" v=\"2\"/>");
    assert_int_equal(define_check(d, &e), 0);
    migrd__domain__free_unpacked(d, NULL);
}

/* As a peer might send them. */
static void test_bad_notes(void **state)
{
    static const char *const bad[] = { "<x/>", "text", "</metadata><metadata>", "<a:x/>",
        "<migrd:cpu xmlns:migrd='urn:migrd:domain:1' level='host'/>", "<a:x xmlns:a='urn:a'>" };
    Migrd__Domain *d = domain("", "");
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        d->metadata = (char *)(uintptr_t)bad[i];
        if (define_check(d, &e) == 0)
            fail_msg("taken: %s", bad[i]);
    }
    d->metadata = (char *)(uintptr_t) "";
    d->title = (char *)(uintptr_t) "two\nlines";
    assert_int_equal(define_check(d, &e), -1);
    d->title = (char *)(uintptr_t) " blank";
    assert_int_equal(define_check(d, &e), -1);
    d->title = (char *)protobuf_c_empty_string;
    d->metadata = (char *)protobuf_c_empty_string;
    assert_int_equal(define_metadata_set(d, "urn:migrd:domain:1", "m", "<cpu/>", &e), -1);
    migrd__domain__free_unpacked(d, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disks),
        cmocka_unit_test(test_interfaces),
        cmocka_unit_test(test_others),
        cmocka_unit_test(test_rest_stays),
        cmocka_unit_test(test_notes),
        cmocka_unit_test(test_bad_notes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
