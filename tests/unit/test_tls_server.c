/* SPDX-License-Identifier: ISC */
/* tls_server: TLS of an event loop's server against OpenSSL's client, both ends in one thread. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>

#include "tests/unit/transport_util.h"
#include "transport/tls_server.h"

static struct util_pki pki;
static struct tls_server *server;
static struct tls_link *accepted;
static SSL *client;
static int fd[2] = { -1, -1 };

static int setup(void **state)
{
    char path[3][160];
    const struct tr_tls_files files = { path[0], path[1], path[2] };
    struct pki_request rq = { .name = "admin" };
    struct err e;

    (void)state;
    signal(SIGPIPE, SIG_IGN); /* as in migrd */
    util_pki_open(&pki);
    util_issue(&pki, "host1", 0, 0);
    snprintf(path[0], sizeof path[0], "%s/host1/ca.crt", pki.dir);
    snprintf(path[1], sizeof path[1], "%s/host1/host.crt", pki.dir);
    snprintf(path[2], sizeof path[2], "%s/host1/host.key", pki.dir);
    assert_int_equal(tls_server_open(&files, &server, &e), 0);
    snprintf(path[0], sizeof path[0], "%s/admin", pki.dir);
    assert_int_equal(pki_client(pki.dir, path[0], &rq, &e), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tls_server_free(&server);
    util_pki_close(&pki);
    return 0;
}

/* `name`: folder of the client's files, NULL for a client without a certificate. */
static void begin(const char *name, int version)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    char path[160];

    SSL_CTX_set_max_proto_version(ctx, version);
    if (name != NULL) {
        snprintf(path, sizeof path, "%s/%s/clientcert.pem", pki.dir, name);
        assert_int_equal(SSL_CTX_use_certificate_chain_file(ctx, path), 1);
        snprintf(path, sizeof path, "%s/%s/clientkey.pem", pki.dir, name);
        assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, path, SSL_FILETYPE_PEM), 1);
    }
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd), 0);
    client = SSL_new(ctx);
    SSL_CTX_free(ctx);
    SSL_set_fd(client, fd[0]);
    SSL_set_connect_state(client);
    accepted = tls_link_new(server, fd[1]);
    assert_non_null(accepted);
}

static int end(void **state)
{
    (void)state;
    tls_link_free(&accepted);
    SSL_free(client);
    client = NULL;
    io_close(&fd[0]);
    io_close(&fd[1]);
    return 0;
}

/* What the server says in the end. */
static int shake(struct err *e)
{
    int r = 0;

    for (int i = 0; i < 20 && r == 0; i++) {
        SSL_do_handshake(client);
        r = tls_link_handshake(accepted, e);
    }
    ERR_clear_error();
    return r;
}

static void expect_name(unsigned number, const char *name)
{
    char got[TR_NAME_LEN];

    assert_true(tls_link_name(accepted, number, got));
    assert_string_equal(got, name);
}

static void test_admits(void **state)
{
    static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
    char got[TR_NAME_LEN], byte = 0;
    struct err e;

    for (size_t i = 0; i < 2; i++) {
        begin("admin", versions[i]);
        assert_int_equal(shake(&e), 1);
        expect_name(0, "admin");
        expect_name(1, "admin");
        assert_false(tls_link_name(accepted, 2, got));
        assert_int_equal(SSL_do_handshake(client), 1);
        /* Nothing but what was sent comes: a ticket would be mistaken for it. */
        assert_int_equal(SSL_read(client, &byte, 1), -1);
        assert_int_equal(recv(fd[0], &byte, 1, MSG_PEEK), -1);
        assert_int_equal(tls_link_write(accepted, "\1", 1), 1);
        assert_int_equal(SSL_read(client, &byte, 1), 1);
        assert_int_equal(byte, 1);
        end(state);
    }
}

static void test_bytes(void **state)
{
    static char out[100000], in[200000];
    size_t sent = 0, got = 0;
    struct err e;
    ssize_t n;

    (void)state;
    begin("admin", TLS1_3_VERSION);
    assert_int_equal(shake(&e), 1);
    for (size_t i = 0; i < sizeof out; i++)
        out[i] = (char)(i * 7 / 3);
    errno = 0;
    assert_int_equal(tls_link_read(accepted, in, sizeof in), -1);
    assert_int_equal(errno, EAGAIN);
    while (got < sizeof out) {
        int w = sent < sizeof out ? SSL_write(client, out + sent, (int)(sizeof out - sent)) : 0;

        sent += w > 0 ? (size_t)w : 0;
        n = tls_link_read(accepted, in + got, sizeof in - got);
        assert_true(n > 0 || errno == EAGAIN);
        got += n > 0 ? (size_t)n : 0;
    }
    assert_memory_equal(in, out, sizeof out);
    /* One who takes nothing fills the socket, and then waits. */
    while ((n = tls_link_write(accepted, out, sizeof out)) > 0)
        ;
    assert_int_equal(n, -1);
    assert_int_equal(errno, EAGAIN);
    assert_true(tls_link_wants_write(accepted));
    SSL_shutdown(client);
    io_close(&fd[0]);
    assert_int_equal(tls_link_read(accepted, in, sizeof in), 0);
}

static void refused(const char *words)
{
    struct err e = { .text = "" };

    assert_int_equal(shake(&e), -1);
    if (strstr(e.text, words) == NULL)
        fail_msg("%s: not in: %s", words, e.text);
}

static void test_refuses(void **state)
{
    struct util_pki other;
    struct pki_request rq = { .name = "stranger" };
    char path[200];
    struct err e;

    begin(NULL, TLS1_3_VERSION);
    refused("it has no certificate");
    end(state);
    util_pki_open(&other);
    snprintf(path, sizeof path, "%s/stranger", pki.dir);
    assert_int_equal(pki_client(other.dir, path, &rq, &e), 0);
    util_pki_close(&other);
    begin("stranger", TLS1_3_VERSION);
    refused("CN=stranger is refused");
    end(state);
    rq = (struct pki_request){ .name = "late", .days = 1, .start_offset_s = -10 * 86400 };
    snprintf(path, sizeof path, "%s/late", pki.dir);
    assert_int_equal(pki_client(pki.dir, path, &rq, &e), 0);
    begin("late", TLS1_3_VERSION);
    refused("expired");
    end(state);
    begin("admin", TLS1_1_VERSION);
    refused("no TLS");
}

static void test_nonsense(void **state)
{
    struct err e;

    begin("admin", TLS1_3_VERSION);
    assert_int_equal(tls_link_handshake(accepted, &e), 0);
    assert_true(send(fd[0], "GET / HTTP/1.1\r\n\r\n", 18, 0) == 18);
    assert_int_equal(tls_link_handshake(accepted, &e), -1);
    end(state);
    begin("admin", TLS1_3_VERSION);
    io_close(&fd[0]);
    assert_int_equal(tls_link_handshake(accepted, &e), -1);
    assert_int_equal(e.code, ERR_PEER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_admits, end),
        cmocka_unit_test_teardown(test_bytes, end),
        cmocka_unit_test_teardown(test_refuses, end),
        cmocka_unit_test_teardown(test_nonsense, end),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
