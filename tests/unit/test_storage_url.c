/* SPDX-License-Identifier: ISC */
/* Sources of disks: what they mean, what is refused and in which words; the file of passwords. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "storage-check/secrets.h"

static void nfs(void **state)
{
    struct storage_url u;
    struct err e;

    (void)state;
    assert_int_equal(storage_url_parse("nfs://st.lab/export/sub/a%20b.img?version=3&uid=7"
                                       "&gid=8&mountport=20048&nfsport=12049",
                         &u, &e),
        0);
    assert_int_equal(u.kind, MIGRD__STORAGE_KIND__STORAGE_NFS);
    assert_string_equal(u.host, "st.lab");
    assert_string_equal(u.path, "/export/sub");
    assert_string_equal(u.file, "/a b.img");
    assert_int_equal(u.version, 3);
    assert_int_equal(u.port, 12049);
    assert_int_equal(u.mount_port, 20048);
    assert_true(u.has_uid && u.uid == 7 && u.has_gid && u.gid == 8);
    assert_int_equal(storage_url_parse("nfs://[fd99::1]:2049/f", &u, &e), 0);
    assert_true(u.ipv6);
    assert_string_equal(u.host, "fd99::1");
    assert_string_equal(u.path, "/");
    assert_string_equal(u.file, "/f");
    assert_int_equal(u.port, 2049);
    assert_false(u.has_uid || u.has_gid);
    assert_int_equal(storage_url_parse("nfs://h/e/f", &u, &e), 0);
    assert_int_equal(u.port, 0);
    assert_int_equal(storage_url_parse("nfs://h/e/f?version=4", &u, &e), 0);
    assert_int_equal(u.port, 2049);
    assert_int_equal(storage_url_parse("nfs://h:7/e/f?nfsport=7", &u, &e), 0);
}

static void iscsi(void **state)
{
    char portal[300];
    struct storage_url u;
    struct err e;

    (void)state;
    assert_int_equal(storage_url_parse("iscsi://joe@st:3261/iqn.2026-01.lab:disk%31/5", &u, &e), 0);
    assert_int_equal(u.kind, MIGRD__STORAGE_KIND__STORAGE_ISCSI);
    assert_string_equal(u.user, "joe");
    assert_string_equal(u.target, "iqn.2026-01.lab:disk1");
    assert_int_equal(u.lun, 5);
    storage_url_portal(&u, portal, sizeof portal);
    assert_string_equal(portal, "st:3261");
    assert_int_equal(storage_url_parse("iscsi://[::1]/naa.6001405/0", &u, &e), 0);
    assert_string_equal(u.user, "");
    storage_url_portal(&u, portal, sizeof portal);
    assert_string_equal(portal, "[::1]:3260");
    assert_int_equal(storage_url_parse("iscsi://a@b@st/eui.02004567A425678D/1", &u, &e), 0);
    assert_string_equal(u.user, "a@b");
}

static void paths(void **state)
{
    struct storage_url u;
    struct err e;

    (void)state;
    assert_int_equal(storage_url_check_disk("/srv/a b?c.img", &u, &e), 0);
    assert_int_equal(u.kind, MIGRD__STORAGE_KIND__STORAGE_FILE);
    assert_string_equal(u.path, "/srv/a b?c.img");
    assert_false(storage_url_is_network("/nfs://x"));
    assert_true(storage_url_is_network("iscsi://x"));
}

static const struct {
    const char *source, *message;
} bad[] = {
    { "", "disk : this must be an absolute path, nfs://... or iscsi://..." },
    { "a.img", "disk a.img: this must be an absolute path" },
    { "http://h/x", "disk http://h/x: only nfs://, iscsi:// and paths are supported" },
    { "/a\nb", "disk /a?b: it has a control character (0x0a)" },
    { "nfs://h", "disk nfs://h: there is nothing behind the server's name" },
    { "nfs:///e/f", "the server's name is missing" },
    { "nfs://h/", "it names a folder; the name of the image file is missing" },
    { "nfs://h/e/", "it names a folder" },
    { "nfs://h/e/../f", "'.' and '..' are not allowed in the path" },
    { "nfs://h/./f", "'.' and '..' are not allowed" },
    { "nfs://h/e/%2e%2e", "'.' and '..' are not allowed" },
    { "nfs://h/e/f%", "'%' must be followed by two hex digits" },
    { "nfs://h/e/f%4", "'%' must be followed by two hex digits" },
    { "nfs://h/e/f%00", "it has a control character (0x00)" },
    { "nfs://h/e/f%0a", "it has a control character (0x0a)" },
    { "nfs://h x/e/f", "'h x' is no name of a server" },
    { "nfs://h:0/e/f", "port '0' must be from 1 to 65535" },
    { "nfs://h:/e/f", "port '' must be from 1 to 65535" },
    { "nfs://h:65536/e/f", "port '65536' must be from 1 to 65535" },
    { "nfs://h:99999999999999999999999/e/f", "port '99999999999999999999' must be" },
    { "nfs://::1/e/f", "an IPv6 address is put into brackets: [::1]" },
    { "nfs://[::1/e/f", "the ']' behind the IPv6 address is missing" },
    { "nfs://[::1]x/e/f", "the ']' behind the IPv6 address is missing" },
    { "nfs://[h]/e/f", "'h' is no IPv6 address" },
    { "nfs://joe@h/e/f", "disk nfs://joe@h/e/f: NFS knows no names of users" },
    { "nfs://h/e/f?version=5", "version=5 must be 3 or 4" },
    { "nfs://h/e/f?version", "option 'version' is not of the form key=value" },
    { "nfs://h/e/f?readahead=1", "option readahead is not known; version, nfsport" },
    { "nfs://h/e/f?uid=-1", "uid=-1 must be from 0 to 4294967294" },
    { "nfs://h/e/f?gid=4294967295", "gid=4294967295 must be from" },
    { "nfs://h/e/f?uid=1&uid=1", "option uid is there twice" },
    { "nfs://h:1/e/f?nfsport=2", "port 1 and nfsport=2 do not agree" },
    { "nfs://h/e/f?mountport=x", "mountport 'x' must be from 1 to 65535" },
    { "iscsi://h", "there is nothing behind the server's name" },
    { "iscsi://h/iqn.x:y", "the number of the LUN is missing" },
    { "iscsi://h/disk/1", "target 'disk' must begin with iqn., eui. or naa." },
    { "iscsi://h/iqn.x!y/1", "target 'iqn.x!y' has '!' in it" },
    { "iscsi://h/iqn.x:y/", "LUN '' must be a number from 0 to 16383" },
    { "iscsi://h/iqn.x:y/16384", "LUN '16384' must be a number" },
    { "iscsi://h/iqn.x:y/1/2", "LUN '1/2' must be a number" },
    { "iscsi://@h/iqn.x:y/1", "there is no user before the '@'" },
    { "iscsi://a b@h/iqn.x:y/1", "there is a blank in the user's name" },
    { "iscsi://joe%hunter2@h/iqn.x:y/1",
        "disk iscsi://joe@h/iqn.x:y/1: a password must not stand in a definition" },
    { "iscsi://joe:hun@ter2@h/iqn.x:y/1",
        "disk iscsi://joe@h/iqn.x:y/1: a password must not stand in a definition" },
};

static void refused(void **state)
{
    struct storage_url u;
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        err_clear(&e);
        if (storage_url_parse(bad[i].source, &u, &e) != -1 ||
            strstr(e.text, bad[i].message) == NULL || strstr(e.text, "ter2") != NULL)
            fail_msg("%s gave: %s", bad[i].source, e.text);
    }
    assert_int_equal(storage_url_check_disk("nfs://h/e/f?version=4", &u, &e), -1);
    assert_non_null(strstr(e.text, "NFS version 4 cannot carry a disk"));
}

/* `head`, then so many times 'x', then `tail`. */
static void too_long(const char *head, size_t n, const char *tail, const char *message)
{
    char *text = malloc(strlen(head) + n + strlen(tail) + 1);
    struct storage_url u;
    struct err e;

    strcpy(text, head);
    memset(text + strlen(head), 'x', n);
    strcpy(text + strlen(head) + n, tail);
    assert_int_equal(storage_url_parse(text, &u, &e), -1);
    if (strstr(e.text, message) == NULL)
        fail_msg("%s", e.text);
    free(text);
}

static void limits(void **state)
{
    (void)state;
    too_long("/", STORAGE_SOURCE_MAX, "", "it is longer than 1023 bytes");
    too_long("nfs://", STORAGE_HOST_MAX + 1, "/e/f", "name is longer than 253 characters");
    too_long("iscsi://h/iqn.", STORAGE_TARGET_MAX - 3, "/1", "name is longer than 223 characters");
    too_long("iscsi://", STORAGE_USER_MAX + 1, "@h/iqn.x:y/1", "name is longer than 255");
}

/* ---- secrets ---- */

static int search(const char *text, const char *source, struct secret *s, struct err *e)
{
    struct storage_url u;

    assert_int_equal(storage_url_parse(source, &u, e), 0);
    return secret_search(text, strlen(text), "secrets", &u, s, e);
}

static void secrets(void **state)
{
    static const char text[] = "# a comment\n"
                               "\n"
                               "st joe of the portal\r\n"
                               "  iqn.2026-01.lab:a \t joe\tp ss\t\n"
                               "st:3261 ann other\n"
                               "iqn.2026-01.lab:a eve last";
    struct secret s;
    struct err e;

    (void)state;
    assert_int_equal(search(text, "iscsi://joe@st/iqn.2026-01.lab:a/1", &s, &e), 1);
    assert_string_equal(s.password, "p ss");
    assert_int_equal(search(text, "iscsi://joe@st/iqn.2026-01.lab:b/1", &s, &e), 1);
    assert_string_equal(s.password, "of the portal");
    assert_int_equal(search(text, "iscsi://ann@st:3261/iqn.2026-01.lab:b/1", &s, &e), 1);
    assert_string_equal(s.password, "other");
    assert_int_equal(search(text, "iscsi://ann@st/iqn.2026-01.lab:b/1", &s, &e), 0);
    assert_int_equal(search(text, "iscsi://eve@st/iqn.2026-01.lab:a/1", &s, &e), 1);
    assert_string_equal(s.password, "last");
    assert_int_equal(search(text, "iscsi://st/iqn.2026-01.lab:a/1", &s, &e), 1);
    assert_string_equal(s.user, "joe");
}

static void secrets_wrong(void **state)
{
    struct storage_url u;
    struct secret s;
    struct err e;

    (void)state;
    assert_int_equal(search("a b c\na b\n", "iscsi://j@s/iqn.x:y/1", &s, &e), -1);
    assert_string_equal(
        e.text, "secrets:2: the line must be of the form 'TARGET-or-PORTAL USER PASSWORD'");
    assert_int_equal(storage_url_parse("iscsi://j@s/iqn.x:y/1", &u, &e), 0);
    assert_int_equal(secret_search("a\0b", 3, "secrets", &u, &s, &e), -1);
    assert_string_equal(e.text, "secrets: has a NUL byte: this is no text");
    assert_int_equal(secret_find(NULL, &u, &s, &e), -1);
    assert_non_null(strstr(e.text, "there is no password of user j; put the line 'iqn.x:y j"));
    assert_int_equal(storage_url_parse("iscsi://s/iqn.x:y/1", &u, &e), 0);
    assert_int_equal(secret_find("/nonexistent/secrets", &u, &s, &e), 0);
}

static void secrets_file(void **state)
{
    char path[] = "/tmp/test_secrets.XXXXXX";
    struct storage_url u;
    struct secret s;
    struct err e;
    int fd = mkstemp(path);

    (void)state;
    if (geteuid() != 0)
        skip(); /* the file must be root's */
    assert_int_equal(write(fd, "iqn.x:y joe word\n", 17), 17);
    assert_int_equal(storage_url_parse("iscsi://joe@h/iqn.x:y/1", &u, &e), 0);
    assert_int_equal(secret_find(path, &u, &s, &e), 1);
    assert_string_equal(s.password, "word");
    secret_wipe(&s);
    assert_string_equal(s.password, "");
    assert_int_equal(fchmod(fd, 0640), 0);
    assert_int_equal(secret_find(path, &u, &s, &e), -1);
    assert_non_null(strstr(e.text, "others than root may use it (mode 0640); chmod 0600 it"));
    assert_int_equal(fchmod(fd, 0600), 0);
    assert_int_equal(fchown(fd, 65534, 0), 0);
    assert_int_equal(secret_find(path, &u, &s, &e), -1);
    assert_non_null(strstr(e.text, "it belongs to user 65534, who could change passwords"));
    assert_int_equal(fchown(fd, 0, 0), 0);
    assert_int_equal(ftruncate(fd, 70000), 0);
    assert_int_equal(secret_find(path, &u, &s, &e), -1);
    assert_non_null(strstr(e.text, "larger than 65536 bytes"));
    close(fd);
    unlink(path);
    assert_int_equal(secret_find("/tmp", &u, &s, &e), -1);
    assert_non_null(strstr(e.text, "/tmp: this is no regular file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(nfs), cmocka_unit_test(iscsi),
        cmocka_unit_test(paths), cmocka_unit_test(refused), cmocka_unit_test(limits),
        cmocka_unit_test(secrets), cmocka_unit_test(secrets_wrong),
        cmocka_unit_test(secrets_file) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
