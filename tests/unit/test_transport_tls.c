/* SPDX-License-Identifier: ISC */
/* transport over TLS: who is let in, what each side is told when not, and two threads on one
 * connection. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/transport_util.h"

static struct util_pki pki, other;

static int setup(void **state)
{
    (void)state;
    util_pki_open(&pki);
    util_pki_open(&other);
    util_issue(&pki, "host1", 0, 0);
    util_issue(&pki, "host2", 0, 0);
    util_issue(&pki, "old", -3 * 86400, 1);
    util_issue(&pki, "early", 3 * 86400, 1);
    util_issue(&other, "host1", 0, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    util_pki_close(&pki);
    util_pki_close(&other);
    return 0;
}

/* tr_tls_open refuses certificates that would not pass; these tests want to send them. */
static struct tr_tls *unchecked(struct util_pki *p, const char *name)
{
    struct tr_tls *good = util_tls(p, "host1");
    struct util_files u;

    util_files(&u, p, name);
    assert_int_equal(SSL_CTX_use_certificate_file(good->ctx, u.cert, SSL_FILETYPE_PEM), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(good->ctx, u.key, SSL_FILETYPE_PEM), 1);
    return good;
}

/* Both sides' outcome of one connection to `host`; conns are closed. */
static void meet(struct tr_tls *client, struct tr_tls *server, const char *host,
    struct err *at_client, struct err *at_server)
{
    struct tr_options co = { .tls = client, .connect_timeout_ms = 3000 };
    struct util_server s = { .opt = { .tls = server, .connect_timeout_ms = 3000 } };
    struct tr_conn *c = NULL;

    err_clear(at_client);
    util_serve(&s);
    tr_connect(host, s.port, "RELOCATE 1", &co, &c, at_client);
    util_join(&s);
    *at_server = s.err;
    assert_true((c == NULL) == (at_client->code != ERR_NONE));
    tr_close(&c);
    tr_close(&s.conn);
    print_message("client: %s\nserver: %s\n", at_client->text, at_server->text);
}

static void has(const struct err *e, enum err_code code, const char *part)
{
    assert_string_equal(err_code_name(e->code), err_code_name(code));
    if (strstr(e->text, part) == NULL)
        fail_msg("'%s' is not in '%s'", part, e->text);
}

static void both_sides_know_each_other(void **state)
{
    struct tr_options co = { .tls = util_tls(&pki, "host1") };
    struct tr_options so = { .tls = util_tls(&pki, "host2") };
    struct tr_conn *a, *b;
    char text[6] = "";
    struct err e;

    (void)state;
    util_pair(&co, &so, &a, &b);
    assert_string_equal(tr_peer_name(a), "host2");
    assert_string_equal(tr_peer_name(b), "host1");
    assert_true(tr_peer_has_name(b, "host1"));
    assert_true(tr_peer_has_name(b, "host1.example.org"));
    assert_true(tr_peer_has_name(b, "127.0.0.1"));
    assert_true(tr_peer_has_name(b, "[::1]"));
    assert_false(tr_peer_has_name(b, "host10"));
    assert_false(tr_peer_has_name(b, "host2"));
    assert_false(tr_peer_has_name(b, "127.0.0.2"));
    assert_false(tr_peer_has_name(b, ""));
    assert_memory_equal(tr_cipher(a), "TLSv1.3 TLS_", 12);
    assert_int_equal(tr_write(a, "hello", 5, &e), 0);
    assert_int_equal(tr_read(b, text, 5, &e), 0);
    assert_string_equal(text, "hello");
    assert_int_equal(tr_write(b, "HELLO", 5, &e), 0);
    assert_int_equal(tr_read(a, text, 5, &e), 0);
    assert_string_equal(text, "HELLO");
    tr_close(&a);
    assert_int_equal(tr_read(b, text, 1, &e), -1);
    has(&e, ERR_PEER, "closed");
    tr_close(&b);
    tr_tls_free((struct tr_tls **)&co.tls);
    tr_tls_free((struct tr_tls **)&so.tls);
}

static void a_name_that_the_certificate_lacks_is_refused(void **state)
{
    const char *const no_alt[] = { NULL };
    struct pki_request rq = { .name = "bare", .alt_names = no_alt };
    struct tr_tls *c = util_tls(&pki, "host1"), *s;
    struct err ce, se;
    char out[128];

    (void)state;
    snprintf(out, sizeof out, "%s/bare", pki.dir);
    assert_int_equal(pki_issue(pki.dir, out, &rq, &ce), 0);
    s = util_tls(&pki, "bare");
    meet(c, s, "127.0.0.1", &ce, &se);
    has(&ce, ERR_REFUSED, "certificate (CN=bare) is for bare, not for 127.0.0.1");
    has(&se, ERR_REFUSED, "without the name by which it was called");
    tr_tls_free(&s);
    tr_tls_free(&c);
}

static void a_foreign_ca_is_refused_by_both(void **state)
{
    struct tr_tls *c = util_tls(&other, "host1"), *s = util_tls(&pki, "host2");
    struct err ce, se;

    (void)state;
    meet(c, s, "127.0.0.1", &ce, &se);
    has(&ce, ERR_REFUSED, "is not of the CA in");
    has(&se, ERR_REFUSED, "does not take this host's certificate");
    has(&se, ERR_REFUSED, "CN=host2");
    tr_tls_free(&c);
    tr_tls_free(&s);
}

static void a_client_of_another_ca_is_told_at_connect(void **state)
{
    struct tr_tls *c = util_tls(&other, "host1"), *s = util_tls(&pki, "host2");
    struct util_files u;
    struct err ce, se;

    (void)state;
    util_files(&u, &pki, "host1"); /* trusts the server, but is not of its CA */
    assert_int_equal(SSL_CTX_load_verify_file(c->ctx, u.ca), 1);
    meet(c, s, "127.0.0.1", &ce, &se);
    has(&ce, ERR_REFUSED, "does not take this host's certificate (CN=host1");
    has(&ce, ERR_REFUSED, "not of its CA");
    has(&se, ERR_REFUSED, "is not of the CA in");
    tr_tls_free(&c);
    tr_tls_free(&s);
}

static void an_expired_client_is_refused(void **state)
{
    struct tr_tls *c = unchecked(&pki, "old"), *s = util_tls(&pki, "host2");
    struct err ce, se;

    (void)state;
    meet(c, s, "127.0.0.1", &ce, &se);
    has(&se, ERR_REFUSED, "certificate (CN=old) expired on 20");
    has(&se, ERR_REFUSED, "migctl pki renew");
    has(&ce, ERR_REFUSED, "expired");
    tr_tls_free(&c);
    tr_tls_free(&s);
}

static void an_expired_server_is_refused(void **state)
{
    struct tr_tls *c = util_tls(&pki, "host1"), *s = unchecked(&pki, "old");
    struct err ce, se;

    (void)state;
    meet(c, s, "127.0.0.1", &ce, &se);
    has(&ce, ERR_REFUSED, "certificate (CN=old) expired on 20");
    has(&se, ERR_REFUSED, "does not take this host's certificate (CN=old");
    tr_tls_free(&c);
    tr_tls_free(&s);
}

static void a_certificate_from_the_future_is_refused(void **state)
{
    struct tr_tls *c = unchecked(&pki, "early"), *s = util_tls(&pki, "host2");
    struct err ce, se;

    (void)state;
    meet(c, s, "127.0.0.1", &ce, &se);
    has(&se, ERR_REFUSED, "is valid from 20");
    has(&se, ERR_REFUSED, "compare the clocks");
    has(&ce, ERR_REFUSED, "compare the clocks");
    tr_tls_free(&c);
    tr_tls_free(&s);
}

static void a_client_without_certificate_is_refused(void **state)
{
    struct tr_tls *c = util_tls(&pki, "host1"), *s = util_tls(&pki, "host2");
    struct util_files u;
    SSL_CTX *bare = SSL_CTX_new(TLS_method());
    struct err ce, se;

    (void)state;
    util_files(&u, &pki, "host1");
    SSL_CTX_load_verify_file(bare, u.ca);
    SSL_CTX_set_keylog_callback(bare, tls_keylog);
    SSL_CTX_free(c->ctx);
    c->ctx = bare;
    meet(c, s, "127.0.0.1", &ce, &se);
    has(&se, ERR_REFUSED, "sent no certificate");
    has(&ce, ERR_REFUSED, "wants a certificate of this host");
    tr_tls_free(&c);
    tr_tls_free(&s);
}

static void plain_bytes_are_not_tls(void **state)
{
    struct tr_options co = { .dead_peer_ms = 2000 };
    struct util_server s = { .opt = {
                                 .tls = util_tls(&pki, "host2"), .connect_timeout_ms = 2000 } };
    struct tr_conn *c;
    struct err e;

    (void)state;
    util_serve(&s);
    assert_int_equal(tr_connect("127.0.0.1", s.port, "RELOCATE 1", &co, &c, &e), 0);
    assert_int_equal(tr_write(c, "GET / HTTP/1.0\r\n\r\n", 18, &e), 0);
    util_join(&s);
    has(&s.err, ERR_PROTOCOL, "both hosts need TLS");
    tr_close(&c);
    tr_tls_free((struct tr_tls **)&s.opt.tls);
}

static void a_silent_client_does_not_hold_the_handshake(void **state)
{
    struct tr_options co = { .dead_peer_ms = 2000 };
    struct util_server s = { .opt = { .tls = util_tls(&pki, "host2"), .connect_timeout_ms = 200 } };
    struct tr_conn *c;
    uint64_t start = clock_ns();
    struct err e;

    (void)state;
    util_serve(&s);
    assert_int_equal(tr_connect("127.0.0.1", s.port, "RELOCATE 1", &co, &c, &e), 0);
    util_join(&s);
    has(&s.err, ERR_TIMEOUT, "TLS did not come about in time");
    assert_true(clock_ns() - start < 3 * NS_PER_S);
    tr_close(&c);
    tr_tls_free((struct tr_tls **)&s.opt.tls);
}

static void own_files_are_checked_when_loaded(void **state)
{
    struct util_files u, v;
    struct tr_tls_files mixed;
    struct tr_tls *t;
    struct err e;

    (void)state;
    util_files(&u, &pki, "old");
    assert_int_equal(tr_tls_open(&u.f, &t, &e), -1);
    has(&e, ERR_REFUSED, "expired on 20");
    util_files(&u, &pki, "early");
    assert_int_equal(tr_tls_open(&u.f, &t, &e), -1);
    has(&e, ERR_REFUSED, "valid from");
    util_files(&u, &pki, "host1");
    util_files(&v, &other, "host1");
    mixed = (struct tr_tls_files){ v.ca, u.cert, u.key };
    assert_int_equal(tr_tls_open(&mixed, &t, &e), -1);
    has(&e, ERR_INVALID, "is not of the CA in");
    mixed = (struct tr_tls_files){ u.ca, u.cert, v.key };
    assert_int_equal(tr_tls_open(&mixed, &t, &e), -1);
    has(&e, ERR_INVALID, "does not belong to certificate");
    mixed = (struct tr_tls_files){ u.ca, u.key, u.key };
    assert_int_equal(tr_tls_open(&mixed, &t, &e), -1);
    has(&e, ERR_INVALID, u.key);
    mixed = (struct tr_tls_files){ "/nonexistent/ca.crt", u.cert, u.key };
    assert_int_equal(tr_tls_open(&mixed, &t, &e), -1);
    has(&e, ERR_INVALID, "/nonexistent/ca.crt");
    assert_null(t);
}

/* --- two threads --- */

#define DUPLEX_BYTES (24u << 20)

struct worker {
    struct tr_conn *c;
    unsigned seed;
    int result;
    struct err err;
};

static uint32_t step(uint32_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 17;
    *x ^= *x << 5;
    return *x;
}

/* Pieces of every size, in vectors, of a sequence that the reader can compute. */
static void *duplex_write(void *arg)
{
    struct worker *w = arg;
    static const size_t sizes[] = { 48, 4096, 1, 16384, 24, 70000, 4096, 0, 16383, 131072 };
    uint32_t x = w->seed;
    size_t done = 0;

    while (done < DUPLEX_BYTES && w->result == 0) {
        uint8_t *buf = malloc(512u << 10), *p = buf;
        struct iovec v[10];

        for (unsigned i = 0; i < 10; i++) {
            size_t len = sizes[(i + done) % 10];

            v[i] = (struct iovec){ p, len };
            for (size_t k = 0; k < len; k++)
                p[k] = (uint8_t)step(&x);
            p += len;
        }
        done += (size_t)(p - buf);
        w->result = tr_writev(w->c, v, 10, &w->err);
        free(buf);
    }
    return NULL;
}

static void *duplex_read(void *arg)
{
    struct worker *w = arg;
    uint8_t *buf = malloc(1 << 20);
    uint32_t x = w->seed, n = 77;
    size_t done = 0;

    while (done < DUPLEX_BYTES && w->result == 0) {
        size_t a = step(&n) % 40000 + 1, b = step(&n) % 300;
        struct iovec v[2] = { { buf, a }, { buf + a, b } };

        if (a + b > DUPLEX_BYTES - done)
            v[0].iov_len = DUPLEX_BYTES - done, v[1].iov_len = 0;
        w->result = tr_readv(w->c, v, 2, &w->err);
        for (size_t i = 0; i < v[0].iov_len + v[1].iov_len && w->result == 0; i++)
            if (buf[i] != (uint8_t)step(&x))
                w->result = err_set(&w->err, ERR_INTEGRITY, "byte %zu differs", done + i);
        done += v[0].iov_len + v[1].iov_len;
    }
    free(buf);
    return NULL;
}

static void two_threads_on_each_end(void **state)
{
    struct tr_options co = { .tls = util_tls(&pki, "host1") };
    struct tr_options so = { .tls = util_tls(&pki, "host2") };
    struct worker w[4];
    struct tr_conn *a, *b;
    pthread_t t[4];

    (void)state;
    tls_rekey_after = 200; /* records: several changes of the key on the way */
    util_pair(&co, &so, &a, &b);
    w[0] = (struct worker){ .c = a, .seed = 1 };
    w[1] = (struct worker){ .c = b, .seed = 1 };
    w[2] = (struct worker){ .c = b, .seed = 2 };
    w[3] = (struct worker){ .c = a, .seed = 2 };
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, i % 2 == 0 ? duplex_write : duplex_read, &w[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    for (int i = 0; i < 4; i++)
        if (w[i].result != 0)
            fail_msg("thread %d: %s", i, w[i].err.text);
    tr_close(&a);
    tr_close(&b);
    tr_tls_free((struct tr_tls **)&co.tls);
    tr_tls_free((struct tr_tls **)&so.tls);
}

static void *blocked_read(void *arg)
{
    struct worker *w = arg;
    char byte;

    w->result = tr_read(w->c, &byte, 1, &w->err);
    return NULL;
}

static void *blocked_write(void *arg)
{
    struct worker *w = arg;
    static char big[1 << 20];

    while (w->result == 0)
        w->result = tr_write(w->c, big, sizeof big, &w->err);
    return NULL;
}

static void abort_ends_a_reader_and_a_writer(void **state)
{
    struct tr_options co = { .tls = util_tls(&pki, "host1") };
    struct tr_options so = { .tls = util_tls(&pki, "host2") };
    struct worker r = { 0 }, w = { 0 };
    struct tr_conn *a, *b;
    pthread_t t[2];
    uint64_t start;

    (void)state;
    util_pair(&co, &so, &a, &b);
    r.c = w.c = a;
    pthread_create(&t[0], NULL, blocked_read, &r);
    pthread_create(&t[1], NULL, blocked_write, &w);
    usleep(200000);
    start = clock_ns();
    tr_abort(a);
    pthread_join(t[0], NULL);
    pthread_join(t[1], NULL);
    assert_true(clock_ns() - start < NS_PER_S);
    has(&r.err, ERR_CANCELLED, "aborted");
    has(&w.err, ERR_CANCELLED, "aborted");
    tr_close(&a);
    tr_close(&b);
    tr_tls_free((struct tr_tls **)&co.tls);
    tr_tls_free((struct tr_tls **)&so.tls);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_sides_know_each_other),
        cmocka_unit_test(a_name_that_the_certificate_lacks_is_refused),
        cmocka_unit_test(a_foreign_ca_is_refused_by_both),
        cmocka_unit_test(a_client_of_another_ca_is_told_at_connect),
        cmocka_unit_test(an_expired_client_is_refused),
        cmocka_unit_test(an_expired_server_is_refused),
        cmocka_unit_test(a_certificate_from_the_future_is_refused),
        cmocka_unit_test(a_client_without_certificate_is_refused),
        cmocka_unit_test(plain_bytes_are_not_tls),
        cmocka_unit_test(a_silent_client_does_not_hold_the_handshake),
        cmocka_unit_test(own_files_are_checked_when_loaded),
        cmocka_unit_test(two_threads_on_each_end),
        cmocka_unit_test(abort_ends_a_reader_and_a_writer),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
