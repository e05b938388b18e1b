/* SPDX-License-Identifier: ISC */
/* base: errors, files, local messages with descriptors, paths. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/io.h"
#include "base/msgconn.h"
#include "base/paths.h"
#include "hypervisor/domain.pb-c.h"

static void err_text_is_built_from_the_inside_out(void **state)
{
    struct err e;

    (void)state;
    assert_int_equal(err_set(&e, ERR_NOT_FOUND, "file %d", 7), -1);
    err_prefix(&e, "domain %s", "web1");
    assert_string_equal(e.text, "domain web1: file 7");
    assert_string_equal(err_code_name(e.code), "not-found");
    assert_int_equal(err_set(NULL, ERR_NOT_FOUND, "nobody listens"), -1);
}

static void a_long_error_is_cut_not_overrun(void **state)
{
    char longer[2000];
    struct err e;

    (void)state;
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    err_set(&e, ERR_INVALID, "%s", longer);
    err_prefix(&e, "%s", longer);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
}

static void a_file_is_replaced_whole(void **state)
{
    char dir[] = "/tmp/migrd-test.XXXXXX", path[64], *text;
    struct stat st;
    struct err e;
    size_t len;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/f", dir);
    assert_int_equal(io_replace_file(path, "one", 3, 0600, &e), 0);
    assert_int_equal(io_replace_file(path, "second", 6, 0600, &e), 0);
    text = io_read_file(path, 100, &len, &e);
    assert_non_null(text);
    assert_string_equal(text, "second");
    assert_int_equal(len, 6);
    free(text);
    assert_null(io_read_file(path, 5, NULL, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    unlink(path);
    rmdir(dir);
}

static void reads_end_at_their_deadline(void **state)
{
    struct err e;
    char b;
    int p[2];

    (void)state;
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    assert_int_equal(io_read_full(p[0], &b, 1, clock_ns() + 20 * NS_PER_MS, &e), -1);
    assert_int_equal(e.code, ERR_TIMEOUT);
    close(p[1]);
    assert_int_equal(io_read_full(p[0], &b, 1, IO_FOREVER, &e), -1);
    assert_int_equal(e.code, ERR_PEER);
    close(p[0]);
}

static void make_pair(struct msgconn *c[2], uint32_t max_len)
{
    int s[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
    for (int i = 0; i < 2; i++) {
        c[i] = msgconn_new(s[i], &migrd__domain__descriptor, max_len);
        assert_non_null(c[i]);
    }
}

static void messages_and_descriptors_keep_their_order(void **state)
{
    Migrd__Domain out = MIGRD__DOMAIN__INIT;
    struct msgconn *c[2];
    struct err e;
    char name[16];

    (void)state;
    make_pair(c, 1 << 16);
    for (int i = 0; i < 20; i++) {
        int fd = i % 3 == 0 ? open("/dev/null", O_RDONLY | O_CLOEXEC) : -1;

        snprintf(name, sizeof name, "d%d", i);
        out.name = name;
        assert_int_equal(msgconn_send(c[0], &out.base, fd, IO_FOREVER, &e), 0);
        io_close(&fd);
    }
    for (int i = 0; i < 20; i++) {
        ProtobufCMessage *m;
        int fd;

        assert_int_equal(msgconn_recv(c[1], &m, &fd, clock_ns() + NS_PER_S, &e), 0);
        snprintf(name, sizeof name, "d%d", i);
        assert_string_equal(((Migrd__Domain *)m)->name, name);
        assert_int_equal(fd >= 0, i % 3 == 0);
        io_close(&fd);
        protobuf_c_message_free_unpacked(m, NULL);
    }
    msgconn_free(&c[0]);
    assert_int_equal(msgconn_fill(c[1], &e), -1);
    assert_int_equal(e.code, ERR_PEER);
    msgconn_free(&c[1]);
}

static void a_message_beyond_the_limit_is_refused(void **state)
{
    Migrd__Domain out = MIGRD__DOMAIN__INIT;
    ProtobufCMessage *m;
    struct msgconn *c[2];
    char text[3000];
    struct err e;

    (void)state;
    make_pair(c, 1000);
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    out.cmdline = text;
    assert_int_equal(msgconn_send(c[0], &out.base, -1, IO_FOREVER, &e), 0);
    assert_int_equal(msgconn_recv(c[1], &m, NULL, clock_ns() + NS_PER_S, &e), -1);
    assert_int_equal(e.code, ERR_PROTOCOL);
    msgconn_free(&c[0]);
    msgconn_free(&c[1]);
}

static void garbage_is_malformed_not_fatal(void **state)
{
    static const char garbage[] = { 4, 0, 0, 0, (char)0xff, (char)0xff, (char)0xff, (char)0xff };
    ProtobufCMessage *m;
    struct msgconn *c;
    struct err e;
    int s[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
    c = msgconn_new(s[1], &migrd__domain__descriptor, 100);
    assert_int_equal(write(s[0], garbage, sizeof garbage), sizeof garbage);
    assert_int_equal(msgconn_recv(c, &m, NULL, clock_ns() + NS_PER_S, &e), -1);
    assert_int_equal(e.code, ERR_PROTOCOL);
    close(s[0]);
    msgconn_free(&c);
}

static void paths_follow_the_root(void **state)
{
    struct paths p;
    struct err e;

    (void)state;
    assert_int_equal(paths_init(&p, "/tmp/h1/", &e), 0);
    assert_string_equal(p.control, "/tmp/h1/run/migrd/control.sock");
    assert_int_equal(paths_init(&p, NULL, &e), 0);
    assert_string_equal(p.config, "/etc/migrd/migrd.conf");
    assert_int_equal(
        paths_init(&p, "/a/very/long/root/that/does/not/leave/room/for/sockets", &e), -1);
    assert_int_equal(e.code, ERR_INVALID);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(err_text_is_built_from_the_inside_out),
        cmocka_unit_test(a_long_error_is_cut_not_overrun),
        cmocka_unit_test(a_file_is_replaced_whole),
        cmocka_unit_test(reads_end_at_their_deadline),
        cmocka_unit_test(messages_and_descriptors_keep_their_order),
        cmocka_unit_test(a_message_beyond_the_limit_is_refused),
        cmocka_unit_test(garbage_is_malformed_not_fatal),
        cmocka_unit_test(paths_follow_the_root),
    };

    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
