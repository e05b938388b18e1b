/* SPDX-License-Identifier: ISC */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "storage-check/allow.h"

static void places(void **state)
{
    static const struct {
        const char *places, *source;
        bool allowed;
    } t[] = {
        { "", "/etc/shadow", true },
        { "  \n", "nfs://anywhere/x", true },
        { "/srv/images", "/srv/images/web1.img", true },
        { "/srv/images/", "/srv/images/web1.img", true },
        { "/srv/im", "/srv/images/web1.img", false },
        { "/srv/images", "/srv/images", true },
        { "/srv/images", "/srv/images/../../etc/shadow", false },
        { "/srv/images", "/srv/images/..", false },
        { "/srv/images", "/srv/images/a..b", true },
        { "/srv/a nfs://stor/", "nfs://stor/export/x?version=3", true },
        { "nfs://stor/", "nfs://stor2/export/x", false },
        { "nfs://stor", "nfs://stor2/export/x", false },
        { "nfs://stor", "nfs://stor/export/x", true },
        { "nfs://stor/export", "nfs://stor/export?version=3", true },
        { "nfs://stor/export", "nfs://stor/export/../other/x", false },
        { "nfs://stor/export", "nfs://stor/export/%2e%2e/other/x", false },
        { "iscsi://10.0.0.9/", "iscsi://user@10.0.0.9/iqn.2026-01.org.example:a/1", true },
        { "iscsi://10.0.0.9/", "iscsi://10.0.0.9@10.0.0.8/iqn.2026-01.org.example:a/1", false },
        { "iscsi://10.0.0.9/", "", false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++)
        if (storage_allowed(t[i].places, t[i].source) != t[i].allowed)
            fail_msg("'%s' in '%s'", t[i].source, t[i].places);
}

static void links_are_followed(void **state)
{
    char dir[] = "/tmp/test_allow.XXXXXX", name[64];

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(name, sizeof name, "%s/disk", dir);
    assert_int_equal(symlink("/etc/hostname", name), 0);
    assert_false(storage_allowed(dir, name));
    assert_true(storage_allowed("/etc", name));
    assert_int_equal(unlink(name), 0);
    assert_true(storage_allowed(dir, name));
    /* what begins with a slash is a path, whatever else is in it */
    snprintf(name, sizeof name, "%s/a:", dir);
    assert_int_equal(symlink("/etc", name), 0);
    snprintf(name, sizeof name, "%s/a://hostname", dir);
    assert_false(storage_allowed(dir, name));
    snprintf(name, sizeof name, "%s/a:", dir);
    assert_int_equal(unlink(name), 0);
    assert_int_equal(rmdir(dir), 0);
}

static void lists(void **state)
{
    struct err e = { 0 };

    (void)state;
    assert_int_equal(storage_places_check("", &e), 0);
    assert_int_equal(storage_places_check("/srv  nfs://stor/x iscsi://10.0.0.9/", &e), 0);
    assert_int_equal(storage_places_check("/srv images", &e), -1);
    assert_string_equal(e.text,
        "'images' is no place of disks: say an absolute path or scheme://host/..., without ..");
    assert_int_equal(storage_places_check("nfs://", &e), -1);
    assert_int_equal(storage_places_check("nfs:///x", &e), -1);
    assert_int_equal(storage_places_check("/srv/../etc", &e), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places),
        cmocka_unit_test(links_are_followed),
        cmocka_unit_test(lists),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
