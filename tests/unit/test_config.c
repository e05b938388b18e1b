/* SPDX-License-Identifier: ISC */
/* migrd.conf: values, ranges, quoting, errors with their line, printing, the shipped example. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/config.h"
#include "base/io.h"
#include "base/log.h"
#include "base/nearest.h"

static char path[64];

static void write_file(const char *text, size_t len)
{
    FILE *f;

    strcpy(path, "/tmp/test_config.XXXXXX");
    close(mkstemp(path));
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    fclose(f);
}

static int load_bytes(struct config *c, const char *text, size_t len, struct err *e)
{
    int rc;

    write_file(text, len);
    rc = config_load(c, path, e);
    unlink(path);
    return rc;
}

static int load(struct config *c, const char *text, struct err *e)
{
    return load_bytes(c, text, strlen(text), e);
}

static void test_defaults(void **state)
{
    struct config c;

    (void)state;
    config_defaults(&c);
    assert_true(c.relocation_server);
    assert_int_equal(c.relocation_port, 8002);
    assert_string_equal(c.relocation_address, "localhost");
    assert_string_equal(c.relocation_hosts_allow, "^localhost$ ^localhost\\.localdomain$");
    assert_false(c.relocation_hosts_allow_set);
    assert_true(c.relocation_tls && c.relocation_check_name);
    assert_int_equal(c.relocation_max_sessions, 4);
    assert_int_equal(c.relocation_max_waiting, 256);
    assert_int_equal(c.relocation_preamble_ms, 5000);
    assert_int_equal(c.dead_peer_ms, 15000);
    assert_int_equal(c.pause_budget_ms, 100);
    assert_int_equal(c.bandwidth, 0);
    assert_int_equal(c.channels, 0);
    assert_int_equal(c.time_limit_s, 0);
    assert_int_equal(c.throttle_max, 80);
    assert_int_equal(c.max_rounds, 60);
    assert_false(c.verify);
    assert_int_equal(c.max_outgoing, 2);
    assert_string_equal(c.hypervisor, "xvm");
    assert_int_equal(c.memory_reserve_kib, 512 * 1024);
    assert_false(c.memory_overcommit);
    assert_true(c.xen_hotplug);
    assert_string_equal(c.control_group, "migrd");
    assert_false(c.cluster);
    assert_int_equal(c.cluster_beat_port, 8003);
    assert_string_equal(c.cluster_key, "/etc/corosync/authkey");
    assert_int_equal(c.cluster_watchdog_ms, 10000);
    assert_int_equal(c.cluster_starts_at_once, 4);
    assert_int_equal(c.cluster_moves_at_once, 2);
    assert_int_equal(c.cluster_flight_record, 64 << 20);
    assert_string_equal(c.log_level, "info");
}

static void test_fence_file(void **state)
{
    struct config c;
    char file[CONFIG_PATH_LEN];
    struct err e;

    (void)state;
    config_defaults(&c);
    config_fence(&c, "/x/etc/migrd", file, sizeof file);
    assert_string_equal(file, "/x/etc/migrd/fence.conf");
    assert_int_equal(config_set(&c, "cluster-fence", "/etc/fences", &e), 0);
    config_fence(&c, "/x/etc/migrd", file, sizeof file);
    assert_string_equal(file, "/etc/fences");
}

struct value_case {
    const char *key, *value, *printed; /* printed NULL: refused */
    const char *message;               /* part of the error */
};

static const struct value_case values[] = {
    { "xend-relocation-server", "no", "no", NULL },
    { "xend-relocation-server", "TRUE", "yes", NULL },
    { "xend-relocation-server", "off", "no", NULL },
    { "xend-relocation-server", "maybe", NULL, "must be yes or no" },
    { "xend-relocation-server", "", NULL, "must be yes or no" },
    { "xend-relocation-port", "1", "1", NULL },
    { "xend-relocation-port", "65535", "65535", NULL },
    { "xend-relocation-port", "0", NULL, "from 1 to 65535" },
    { "xend-relocation-port", "65536", NULL, "from 1 to 65535" },
    { "xend-relocation-port", "-1", NULL, "whole number" },
    { "xend-relocation-port", "8002x", NULL, "whole number" },
    { "xend-relocation-port", "99999999999999999999", NULL, "whole number" },
    { "xend-relocation-address", "", "", NULL },
    { "xend-relocation-address", "eth0.12", "eth0.12", NULL },
    { "xend-relocation-address", "fe80::1%eth0", "fe80::1%eth0", NULL },
    { "xend-relocation-address", "10.0.0.1 10.0.0.2", NULL, "an address" },
    { "xend-relocation-hosts-allow", "^host1\\.?.*$ ^localhost$", "^host1\\.?.*$ ^localhost$",
        NULL },
    { "xend-relocation-hosts-allow", "a\"b", NULL, "double quote" },
    { "xend-relocation-hosts-allow", "a\tb", NULL, "control character 0x09" },
    { "relocation-tls-ca", "/etc/x.crt", "/etc/x.crt", NULL },
    { "relocation-tls-ca", "x.crt", NULL, "absolute path" },
    { "relocation-preamble-timeout", "100ms", "100ms", NULL },
    { "relocation-preamble-timeout", "120s", "2m", NULL },
    { "relocation-preamble-timeout", "2min", "2m", NULL },
    { "relocation-preamble-timeout", "5", NULL, "a time with its unit" },
    { "relocation-preamble-timeout", "0", NULL, "from 100ms to 5m" },
    { "relocation-preamble-timeout", "6m", NULL, "from 100ms to 5m" },
    { "relocation-preamble-timeout", "5S", NULL, "a time with its unit" },
    { "migration-time-limit", "0", "0", NULL },
    { "migration-time-limit", "90s", "90s", NULL },
    { "migration-time-limit", "3600s", "1h", NULL },
    { "migration-time-limit", "1500ms", NULL, "whole seconds" },
    { "migration-bandwidth", "100M", "100M", NULL },
    { "migration-bandwidth", "100MiB", "100M", NULL },
    { "migration-bandwidth", "1048576", "1M", NULL },
    { "migration-bandwidth", "1000", "1000", NULL },
    { "migration-bandwidth", "100m", NULL, "K, M, G or T" },
    { "migration-bandwidth", "20000000000G", NULL, "a size" },
    { "migration-bandwidth", "99999T", NULL, "from 0 to 1024T" },
    { "memory-reserve", "1G", "1G", NULL },
    { "memory-reserve", "1500", NULL, "a size" },
    { "memory-reserve", "1536K", "1536K", NULL },
    { "cluster", "yes", "yes", NULL },
    { "cluster-key", "", NULL, "absolute path" },
    { "cluster-watchdog", "", "", NULL },
    { "cluster-watchdog-time", "1s", NULL, "from 2s to 5m" },
    { "cluster-flight-record", "0", "0", NULL },
    { "migration-throttle-max", "80%", "80", NULL },
    { "migration-throttle-max", "100", NULL, "from 0 to 99" },
    { "host-name", "host1.lab", "host1.lab", NULL },
    { "host-name", "host 1", NULL, "a host name" },
    { "hypervisor", "xen", "xen", NULL },
    { "hypervisor", "xvm xen", NULL, "one of: xvm xen" },
    { "hypervisor", "en", NULL, "one of" },
    { "hypervisor", "", NULL, "one of" },
    { "control-group", "", NULL, "name of a group" },
    { "libvirt-sockets", "libvirt virtxend", "libvirt virtxend", NULL },
    { "libvirt-sockets", "", "", NULL },
    { "libvirt-sockets", "virtqemud", NULL, "names out of libvirt" },
    { "libvirt-sockets", "virtxend ../x", NULL, "names out of libvirt" },
    { "libvirt-max-clients", "0", NULL, "from 1 to 4096" },
    { "libvirt-max-calls", "1", NULL, "from 2 to 1024" },
    { "libvirt-max-bytes", "2M", "2M", NULL },
    { "libvirt-max-bytes", "1000", NULL, "from 1M to 1G" },
    { "libvirt-tls-port", "0", NULL, "from 1 to 65535" },
    { "libvirt-tls-cert", "x.pem", NULL, "an absolute path" },
    { "status-address", "127.0.0.1:8003", "127.0.0.1:8003", NULL },
    { "status-address", "[::1]:8003", "[::1]:8003", NULL },
    { "status-address", "::1:8003", NULL, "ADDRESS:PORT" },
    { "status-address", "127.0.0.1", NULL, "ADDRESS:PORT" },
    { "status-address", "127.0.0.1:0", NULL, "ADDRESS:PORT" },
    { "log-level", "debug", "debug", NULL },
    { "log-level", "verbose", NULL, "error warn info debug" },
    { "xend-relocation-prot", "1", NULL, "did you mean xend-relocation-port?" },
    { "xend_relocation_port", "1", NULL, "did you mean xend-relocation-port?" },
    { "hosts-allow", "1", NULL, "unknown key hosts-allow" },
};

static void test_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        const struct value_case *v = &values[i];
        char out[CONFIG_VALUE_MAX] = "?";
        struct config c, before;
        struct err e = { 0 };
        int rc;

        config_defaults(&c);
        before = c;
        rc = config_set(&c, v->key, v->value, &e);
        if (v->printed == NULL) {
            if (rc != -1 || e.code != ERR_INVALID || strstr(e.text, v->message) == NULL)
                fail_msg("%s = %s: rc %d, %s", v->key, v->value, rc, e.text);
            assert_memory_equal(&c, &before, sizeof c);
            continue;
        }
        if (rc != 0)
            fail_msg("%s = %s: %s", v->key, v->value, e.text);
        assert_int_equal(config_get(&c, v->key, out, sizeof out), 0);
        assert_string_equal(out, v->printed);
    }
}

static void test_long_values(void **state)
{
    char text[CONFIG_VALUE_MAX + 1];
    struct config c;
    struct err e;

    (void)state;
    config_defaults(&c);
    memset(text, 'a', sizeof text);
    text[CONFIG_VALUE_MAX] = '\0';
    assert_int_equal(config_set(&c, "xend-relocation-hosts-allow", text, &e), -1);
    assert_non_null(strstr(e.text, "1024 bytes, at most 1023 fit"));
    text[CONFIG_VALUE_MAX - 1] = '\0';
    assert_int_equal(config_set(&c, "xend-relocation-hosts-allow", text, &e), 0);
    assert_string_equal(c.relocation_hosts_allow, text);
}

static void test_file(void **state)
{
    struct config c;
    struct err e;

    (void)state;
    assert_int_equal(load(&c,
                         "# comment\n"
                         "\n"
                         "  \t \r\n"
                         "xend-relocation-hosts-allow = \"^host1\\.?.*$ ^localhost$\"\r\n"
                         "\txend-relocation-port=9002\n"
                         "xend-relocation-address = \"\"\n"
                         "migration-pause-budget =   250ms  \n"
                         "log-level = debug",
                         &e),
        0);
    assert_string_equal(c.relocation_hosts_allow, "^host1\\.?.*$ ^localhost$");
    assert_true(c.relocation_hosts_allow_set);
    assert_int_equal(c.relocation_port, 9002);
    assert_string_equal(c.relocation_address, "");
    assert_int_equal(c.pause_budget_ms, 250);
    assert_string_equal(c.log_level, "debug");
    assert_int_equal(c.channels, 0);

    /* A regular expression stays as it was written. */
    assert_int_equal(
        load(&c, "xend-relocation-hosts-allow = ^(a|b);c=d:[x]#y\\x22'$ ^z$ \n", &e), 0);
    assert_string_equal(c.relocation_hosts_allow, "^(a|b);c=d:[x]#y\\x22'$ ^z$");
    assert_int_equal(load(&c, "xend-relocation-hosts-allow = \"^a$ \"\n", &e), 0);
    assert_string_equal(c.relocation_hosts_allow, "^a$ ");
    assert_int_equal(load(&c, "", &e), 0);
    assert_false(c.relocation_hosts_allow_set);
}

struct file_case {
    const char *text, *where, *message;
};

static const struct file_case bad_files[] = {
    { "xend-relocation-port 8002\n", ":1: ", "not of the form: key = value" },
    { "\n\nxend-relocation-prot = 8002\n", ":3: ", "did you mean xend-relocation-port?" },
    { "= 3\n", ":1: ", "not of the form" },
    { "[relocation]\n", ":1: ", "no sections" },
    { "xend-relocation-port = 8002\nxend-relocation-port = 8003\n",
        ":2: ", "set in line 1 already" },
    { "xend-relocation-port =\n", ":1: ", "no value; write \"\"" },
    { "xend-relocation-port = 8002 # the usual\n", ":1: ", "a comment needs a line of its own" },
    { "xend-relocation-address = \"eth0\" # x\n", ":1: ", "no closing quote" },
    { "xend-relocation-address = \"eth0\n", ":1: ", "no closing quote" },
    { "xend-relocation-address = \"\n", ":1: ", "no closing quote" },
    { "xend-relocation-hosts-allow = \"^a$\" \"^b$\"\n", ":1: ", "double quote" },
    { "xend-relocation-port = 8002; migration-channels = 1\n", ":1: ", "whole number" },
    { "relocation-tls-key = /k\n", ": ", "belong together" },
    { "a = 1\nb = 2\n", ":1: ", "unknown key a" },
};

static void test_bad_files(void **state)
{
    struct config c, before;
    struct err e;

    (void)state;
    config_defaults(&c);
    before = c;
    for (size_t i = 0; i < sizeof bad_files / sizeof bad_files[0]; i++) {
        const struct file_case *f = &bad_files[i];

        assert_int_equal(load(&c, f->text, &e), -1);
        if (strncmp(e.text, path, strlen(path)) != 0 ||
            strncmp(e.text + strlen(path), f->where, strlen(f->where)) != 0 ||
            strstr(e.text, f->message) == NULL)
            fail_msg("%s: %s", f->text, e.text);
        assert_memory_equal(&c, &before, sizeof c);
    }
    assert_int_equal(load_bytes(&c, "log-level\0 = info\n", 18, &e), -1);
    assert_non_null(strstr(e.text, ":1: NUL byte"));
    assert_int_equal(config_load(&c, "/nowhere/migrd.conf", &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(config_load(&c, "/tmp", &e), -1);
    assert_int_equal(e.code, ERR_SYSTEM);
}

/* Every key set to something else than its default survives printing and reading. */
static void test_round_trip(void **state)
{
    static const char *const set[][2] = { { "xend-relocation-server", "no" },
        { "xend-relocation-port", "9" }, { "xend-relocation-address", "" },
        { "xend-relocation-hosts-allow", " ^a\\.b$  #x " }, { "relocation-storage-allow", "/srv nfs://stor/" },
        { "relocation-tls", "no" },
        { "relocation-check-name", "no" }, { "relocation-tls-ca", "/a b#" },
        { "relocation-tls-cert", "/c" }, { "relocation-tls-key", "/k" },
        { "relocation-max-sessions", "9" }, { "relocation-max-waiting", "9" },
        { "relocation-preamble-timeout", "1500ms" }, { "relocation-dead-peer-timeout", "61s" },
        { "migration-pause-budget", "7m" }, { "migration-bandwidth", "3K" },
        { "migration-channels", "4" }, { "migration-cpus", "0-1" },
        { "migration-time-limit", "90s" }, { "migration-throttle-max", "0" },
        { "migration-max-rounds", "7" }, { "migration-compression", "zstd" },
        { "migration-delta-cache", "64M" }, { "migration-verify", "yes" },
        { "migration-max-outgoing", "7" }, { "host-name", "h" }, { "hypervisor", "xen" },
        { "memory-reserve", "0" }, { "memory-overcommit", "yes" },
        { "xen-hotplug", "no" },
        { "host-cpu-level", "x86-64-v2" }, { "storage-leases", "no" },
        { "storage-lease-time", "7s" }, { "storage-timeout", "3s" },
        { "storage-nfs-uid-base", "100000" }, { "storage-secrets", "/s" },
        { "storage-iscsi-initiator", "iqn.2026-01.x:y" }, { "cluster", "yes" },
        { "cluster-beat-port", "9" }, { "cluster-key", "/k" }, { "cluster-fence", "/f" },
        { "cluster-watchdog", "/dev/watchdog" }, { "cluster-watchdog-time", "3s" },
        { "cluster-starts-at-once", "9" }, { "cluster-moves-at-once", "9" },
        { "cluster-flight-record", "0" }, { "control-group", "root" },
        { "libvirt-sockets", "libvirt" }, { "libvirt-max-clients", "7" }, { "libvirt-max-calls", "7" },
        { "libvirt-max-bytes", "3M" }, { "libvirt-tls", "yes" }, { "libvirt-tls-address", "eth0" },
        { "libvirt-tls-port", "9" }, { "libvirt-tls-allow", "a*.b  c" }, { "libvirt-tls-ca", "/a" },
        { "libvirt-tls-cert", "/b" }, { "libvirt-tls-key", "/c" }, { "status-address", "[::]:1" }, { "log-file", "/l" }, { "log-level", "warn" } };
    struct config c, d, back;
    struct err e;
    size_t n = 0;
    char *text;

    (void)state;
    config_defaults(&c);
    d = c;
    for (; config_key(n, NULL) != NULL; n++) {
        char before[CONFIG_VALUE_MAX], after[CONFIG_VALUE_MAX];

        assert_true(n < sizeof set / sizeof set[0]);
        assert_string_equal(set[n][0], config_key(n, NULL));
        config_get(&d, set[n][0], before, sizeof before);
        assert_int_equal(config_set(&c, set[n][0], set[n][1], &e), 0);
        config_get(&c, set[n][0], after, sizeof after);
        assert_string_not_equal(before, after);
    }
    text = config_print(&c);
    assert_non_null(text);
    if (load(&back, text, &e) != 0)
        fail_msg("%s\n%s", e.text, text);
    free(text);
    assert_memory_equal(&c, &back, sizeof c);

    text = config_print(&d);
    assert_int_equal(load(&back, text, &e), 0);
    free(text);
    assert_memory_equal(&d, &back, sizeof d);

    /* The default list, asked for in so many words, is not the same as none. */
    c = d;
    assert_int_equal(
        config_set(&c, "xend-relocation-hosts-allow", c.relocation_hosts_allow, &e), 0);
    text = config_print(&c);
    assert_int_equal(load(&back, text, &e), 0);
    free(text);
    assert_true(back.relocation_hosts_allow_set);
}

/* conf/migrd.conf is what config_print makes of the defaults; with its keys uncommented it still
 * says the same. */
static void test_example(void **state)
{
    struct config d, c;
    struct err e;
    size_t len;
    char *printed, *text = io_read_file("conf/migrd.conf", 1 << 20, &len, NULL);

    (void)state;
    if (text == NULL)
        skip(); /* not run from the top of the source tree */
    config_defaults(&d);
    printed = config_print(&d);
    assert_string_equal(text, printed);
    free(printed);
    for (char *p = text; p != NULL; p = strchr(p + 1, '\n')) {
        char *hash = *p == '\n' ? p + 1 : p;

        if (hash[0] == '#' && hash[1] != ' ' && hash[1] != '\n')
            hash[0] = ' ';
    }
    assert_int_equal(load(&c, text, &e), 0);
    assert_true(c.relocation_hosts_allow_set);
    c.relocation_hosts_allow_set = false;
    assert_memory_equal(&c, &d, sizeof c);
    free(text);
}

static void test_keys_have_help(void **state)
{
    const char *help, *name;

    (void)state;
    for (size_t i = 0; (name = config_key(i, &help)) != NULL; i++) {
        assert_true(strlen(help) > 10);
        assert_int_equal(help[strlen(help) - 1], '.');
    }
    assert_int_equal(config_get(NULL, "nothing", NULL, 0), -1);
}

static void test_nearest(void **state)
{
    static const char *const words[] = { "memory", "maxmem", "vcpus", "name" };

    (void)state;
    assert_int_equal(nearest_distance("kitten", "sitting"), 3);
    assert_int_equal(nearest_distance("", "abc"), 3);
    assert_int_equal(nearest_distance("on_crash", "ON-CRASH"), 0);
    assert_string_equal(nearest_word("memroy", words, 4), "memory");
    assert_string_equal(nearest_word("vcpu", words, 4), "vcpus");
    assert_null(nearest_word("bootloader", words, 4));
    assert_null(nearest_word(
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        words, 4));
}

/* ---- import of xend-config.sxp ---- */

static int import(struct config *c, const char *text, char **notes, struct err *e)
{
    int rc;

    write_file(text, strlen(text));
    config_defaults(c);
    rc = config_import_sxp(c, path, notes, e);
    unlink(path);
    return rc;
}

static void test_import(void **state)
{
    struct config c;
    struct err e;
    char *notes;

    (void)state;
    assert_int_equal(import(&c,
                         "# -*- sh -*-\n"
                         "(logfile /var/log/xen/xend.log)\n"
                         "#(xend-relocation-port 1)\n"
                         "(xend-relocation-server yes)\n"
                         "(xend-relocation-port            9002)\n"
                         "(xend-relocation-address '')\n"
                         "(xend-relocation-hosts-allow '^localhost$ ^localhost\\\\.localdomain$')\n"
                         "(xend-relocation-ssl-server yes)\n"
                         "(network-script 'network-bridge netdev=eth1')\n"
                         "(xend-relocation-port 1)\n"
                         "(some-thing (nested (deeper)))\n",
                         &notes, &e),
        0);
    assert_true(c.relocation_server);
    assert_int_equal(c.relocation_port, 9002);
    assert_string_equal(c.relocation_address, "");
    assert_string_equal(c.relocation_hosts_allow, "^localhost$ ^localhost\\.localdomain$");
    assert_true(c.relocation_hosts_allow_set);
    assert_non_null(strstr(notes, ":2: logfile is not taken over; here: log-file\n"));
    assert_non_null(strstr(notes, ":8: xend-relocation-ssl-server is not taken over; here: "
                                  "relocation-tls"));
    assert_non_null(strstr(notes, ":10: xend-relocation-port again"));
    assert_non_null(strstr(notes, ":11: some-thing is not taken over: migrd has nothing like it"));
    assert_null(strstr(notes, "no xend-"));
    free(notes);

    assert_int_equal(import(&c, "(xend-relocation-hosts-allow '^a\\.b$')", &notes, &e), 0);
    assert_string_equal(c.relocation_hosts_allow, "^a\\.b$");
    assert_string_equal(c.relocation_address, "localhost");
    assert_non_null(strstr(notes, ":1: xend-relocation-hosts-allow has a single backslash"));
    assert_non_null(strstr(notes, "no xend-relocation-address: xend listened on all interfaces"));
    free(notes);

    assert_int_equal(import(&c, "(xend-relocation-hosts-allow)", NULL, &e), 0);
    assert_string_equal(c.relocation_hosts_allow, "");
    assert_true(c.relocation_hosts_allow_set);
    assert_int_equal(import(&c, "(xend-relocation-hosts-allow \"^a$\n\t^b$\")", NULL, &e), 0);
    assert_string_equal(c.relocation_hosts_allow, "^a$  ^b$");
}

static void test_bad_import(void **state)
{
    static const char *const bad[][2] = {
        { "(xend-relocation-port 8002", ":1: list without its closing" },
        { "\n(xend-relocation-port eight)", ":2: xend-relocation-port = eight: this must be" },
        { "(xend-relocation-port (8002))", ":1: (xend-relocation-port ...) must have one value" },
        { "(xend-relocation-port 8002 8003)", "must have one value" },
        { "(xend-relocation-address 'a b')", "an address" },
        { "(xend-relocation-hosts-allow 'a\"b')", "double quote" },
    };
    struct config c, d;
    struct err e;
    char *notes;

    (void)state;
    config_defaults(&d);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(import(&c, bad[i][0], &notes, &e), -1);
        if (strstr(e.text, bad[i][1]) == NULL)
            fail_msg("%s: %s", bad[i][0], e.text);
        assert_null(notes);
        assert_memory_equal(&c, &d, sizeof c);
    }
    assert_int_equal(config_import_sxp(&c, "/nowhere", &notes, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_fence_file),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_long_values),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_example),
        cmocka_unit_test(test_keys_have_help),
        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_import),
        cmocka_unit_test(test_bad_import),
    };
    struct err e;

    log_open("test_config", "/dev/null", &e);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
