/* SPDX-License-Identifier: ISC */
/* Our TLS records against an OpenSSL that knows nothing of us, in both roles, and against records
 * that nobody should send. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/transport_util.h"
#include "transport/record.h"

static struct util_pki pki;
static struct tr_tls *host1;

static int setup(void **state)
{
    (void)state;
    util_pki_open(&pki);
    util_issue(&pki, "host1", 0, 0);
    util_issue(&pki, "host2", 0, 0);
    host1 = util_tls(&pki, "host1");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tr_tls_free(&host1);
    util_pki_close(&pki);
    return 0;
}

static void has(const struct err *e, enum err_code code, const char *part)
{
    assert_string_equal(err_code_name(e->code), err_code_name(code));
    if (strstr(e->text, part) == NULL)
        fail_msg("'%s' is not in '%s'", part, e->text);
}

/* --- a peer --- */

/* The other end of `c`: OpenSSL after its handshake, and the keys it made, for records by hand. */
struct peer {
    bool server;
    const char *suites; /* NULL: OpenSSL's choice */
    unsigned tickets;
    /* own */
    SSL_CTX *ctx;
    SSL *ssl;
    int fd;
    unsigned updates; /* KeyUpdates that it has read */
    struct tls_secret secret[2];
    struct record_key out, in;
    struct tr_conn *c;
    struct err err;
    char welcome[64];
};

static void keep_secret(const SSL *ssl, const char *line)
{
    struct peer *p = SSL_get_app_data(ssl);
    struct tr_conn probe = { .fd = -1 };
    SSL *s = (SSL *)ssl;

    SSL_set_app_data(s, (char *)&probe); /* as our own connection would see it */
    tls_keylog(ssl, line);
    SSL_set_app_data(s, (char *)p);
    for (unsigned i = 0; i < 2; i++)
        if (probe.secret[i].len > 0)
            p->secret[i] = probe.secret[i];
}

static void count_updates(
    int writes, int version, int type, const void *buf, size_t len, SSL *ssl, void *arg)
{
    struct peer *p = arg;

    (void)version;
    (void)ssl;
    if (!writes && type == SSL3_RT_HANDSHAKE && len > 0 && *(const uint8_t *)buf == 24)
        p->updates++;
}

static void peer_prepare(struct peer *p)
{
    struct util_files f;

    util_files(&f, &pki, "host2");
    p->ctx = SSL_CTX_new(TLS_method());
    SSL_CTX_load_verify_file(p->ctx, f.ca);
    SSL_CTX_use_certificate_file(p->ctx, f.cert, SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(p->ctx, f.key, SSL_FILETYPE_PEM);
    SSL_CTX_set_verify(p->ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_num_tickets(p->ctx, p->tickets);
    SSL_CTX_set_keylog_callback(p->ctx, keep_secret);
    if (p->suites != NULL)
        SSL_CTX_set_ciphersuites(p->ctx, p->suites);
    p->ssl = SSL_new(p->ctx);
    SSL_set_app_data(p->ssl, (char *)p);
    SSL_set_msg_callback(p->ssl, count_updates);
    SSL_set_msg_callback_arg(p->ssl, p);
}

static void *peer_handshake(void *arg)
{
    struct peer *p = arg;
    char line[TR_LINE_MAX];

    if (p->server) {
        util_say(p->fd, "220 host2 migrd relocation 1\r\n");
        sock_read_line(p->fd, line, clock_ns() + NS_PER_S, NULL);
        util_say(p->fd, "220 go ahead\r\n");
    }
    SSL_set_fd(p->ssl, p->fd);
    if (p->server && SSL_accept(p->ssl) == 1)
        SSL_write(p->ssl, "250 host1\r\n", 11);
    if (!p->server && SSL_connect(p->ssl) == 1)
        SSL_read(p->ssl, p->welcome, sizeof p->welcome - 1);
    return NULL;
}

static void *peer_accept(void *arg)
{
    struct peer *p = arg;
    int lfd = p->fd;

    p->fd = accept4(lfd, NULL, NULL, SOCK_CLOEXEC);
    close(lfd);
    return peer_handshake(p);
}

static int listen_any(unsigned *port)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof sa;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    *port = ntohs(sa.sin_port);
    return fd;
}

static void meet(struct peer *p)
{
    struct tr_options opt = { .tls = host1, .dead_peer_ms = 3000 };
    struct err e = { .code = ERR_NONE };
    unsigned port, suite;
    pthread_t t;
    int lfd = listen_any(&port), r;

    peer_prepare(p);
    p->fd = lfd;
    if (p->server) {
        pthread_create(&t, NULL, peer_accept, p);
        r = tr_connect("127.0.0.1", port, "RELOCATE 1", &opt, &p->c, &e);
    } else {
        int fd = sock_connect("127.0.0.1", port, clock_ns() + NS_PER_S, &e);

        assert_true(fd >= 0);
        io_set_nonblock(fd, false, NULL);
        p->fd = fd;
        pthread_create(&t, NULL, peer_handshake, p);
        r = tr_accept(accept4(lfd, NULL, NULL, SOCK_CLOEXEC), &opt, &p->c, &e);
        close(lfd);
    }
    pthread_join(t, NULL);
    if (r < 0)
        fail_msg("no connection: %s", e.text);
    suite = SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(p->ssl));
    assert_int_equal(record_key_init(&p->out, suite, p->secret[p->server].bytes,
                         p->secret[p->server].len, true, &e),
        0);
    assert_int_equal(record_key_init(&p->in, suite, p->secret[!p->server].bytes,
                         p->secret[!p->server].len, false, &e),
        0);
    p->out.seq = p->server; /* the welcome has gone that way */
    p->in.seq = !p->server;
}

static void part(struct peer *p)
{
    record_key_wipe(&p->out);
    record_key_wipe(&p->in);
    tr_close(&p->c);
    SSL_free(p->ssl);
    SSL_CTX_free(p->ctx);
    close(p->fd);
}

/* --- with OpenSSL --- */

#define BULK (3u << 20)

static uint8_t *pattern(size_t len, unsigned seed)
{
    uint8_t *p = malloc(len);

    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)((i * 2654435761u + seed) >> 13);
    return p;
}

static void *peer_reads(void *arg)
{
    struct peer *p = arg;
    uint8_t *want = pattern(BULK, 1), buf[5000];

    for (size_t done = 0; done < BULK;) {
        int n = SSL_read(p->ssl, buf, sizeof buf);

        if (n <= 0 || memcmp(buf, want + done, (size_t)n) != 0) {
            err_set(&p->err, ERR_INTEGRITY, "peer: %d at byte %zu", n, done);
            break;
        }
        done += (size_t)n;
    }
    free(want);
    return NULL;
}

static void *peer_writes(void *arg)
{
    struct peer *p = arg;
    uint8_t *data = pattern(BULK, 2);

    for (size_t done = 0, n = 1; done < BULK; done += n, n = n * 3 % 70001) {
        if (n > BULK - done)
            n = BULK - done;
        if (done > BULK / 2 && p->updates < 1000000) { /* once */
            SSL_key_update(p->ssl, SSL_KEY_UPDATE_REQUESTED);
            p->updates += 1000000;
        }
        if (SSL_write(p->ssl, data + done, (int)n) != (int)n) {
            err_set(&p->err, ERR_PEER, "peer cannot write");
            break;
        }
    }
    free(data);
    return NULL;
}

static void both_ways(bool server, const char *suites, const char *name)
{
    struct peer p = { .server = server, .suites = suites };
    uint8_t *out = pattern(BULK, 1), *want = pattern(BULK, 2), *in = malloc(BULK);
    struct iovec v[4] = { { out, 48 }, { out + 48, 100000 }, { out, 0 },
        { out + 100048, BULK - 100048 } };
    struct iovec w[3] = { { in, 5 }, { in + 5, 70000 }, { in + 70005, BULK - 70005 } };
    pthread_t t;
    struct err e;

    meet(&p);
    assert_non_null(strstr(tr_cipher(p.c), name));
    pthread_create(&t, NULL, peer_reads, &p);
    assert_int_equal(tr_writev(p.c, v, 4, &e), 0);
    pthread_join(t, NULL);
    pthread_create(&t, NULL, peer_writes, &p);
    if (tr_readv(p.c, w, 3, &e) < 0)
        fail_msg("%s", e.text);
    pthread_join(t, NULL);
    assert_string_equal(p.err.text, "");
    assert_memory_equal(in, want, BULK);
    free(out);
    free(want);
    free(in);
    part(&p);
}

static void openssl_understands_us_and_we_it(void **state)
{
    (void)state;
    both_ways(true, NULL, "GCM");
    both_ways(false, NULL, "GCM");
    both_ways(true, "TLS_AES_256_GCM_SHA384", "AES_256");
    both_ways(false, "TLS_CHACHA20_POLY1305_SHA256", "CHACHA20");
}

static void our_keys_change_and_openssl_follows(void **state)
{
    uint64_t before = tls_rekey_after;
    struct peer p = { .server = true };
    uint8_t *out = pattern(BULK, 1);
    pthread_t t;
    struct err e;

    (void)state;
    tls_rekey_after = 20;
    meet(&p);
    pthread_create(&t, NULL, peer_reads, &p);
    assert_int_equal(tr_write(p.c, out, BULK, &e), 0);
    pthread_join(t, NULL);
    assert_string_equal(p.err.text, "");
    assert_true(p.updates >= 5);
    tls_rekey_after = before;
    free(out);
    part(&p);
}

static void a_wish_for_a_new_key_is_answered(void **state)
{
    struct peer p = { .server = false };
    char buf[8] = "";
    struct err e;

    (void)state;
    meet(&p);
    assert_int_equal(SSL_key_update(p.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    assert_int_equal(SSL_write(p.ssl, "one", 3), 3);
    assert_int_equal(tr_read(p.c, buf, 3, &e), 0);
    assert_string_equal(buf, "one");
    assert_int_equal(tr_write(p.c, "two", 3, &e), 0);
    assert_int_equal(SSL_read(p.ssl, buf, 3), 3);
    assert_string_equal(buf, "two");
    assert_int_equal(p.updates, 1);
    assert_int_equal(tr_write(p.c, "six", 3, &e), 0);
    assert_int_equal(SSL_read(p.ssl, buf, 3), 3);
    assert_string_equal(buf, "six");
    assert_int_equal(p.updates, 1);
    part(&p);
}

static void tickets_are_skipped(void **state)
{
    struct peer p = { .server = true, .tickets = 3 };
    char buf[8] = "";
    struct err e;

    (void)state;
    meet(&p);
    assert_int_equal(SSL_new_session_ticket(p.ssl), 1);
    assert_int_equal(SSL_write(p.ssl, "data", 4), 4);
    assert_int_equal(tr_read(p.c, buf, 4, &e), 0);
    assert_string_equal(buf, "data");
    part(&p);
}

static void each_side_hears_the_other_close(void **state)
{
    struct peer p = { .server = true };
    char buf[8];
    struct err e;

    (void)state;
    meet(&p);
    tr_close(&p.c);
    assert_int_equal(SSL_read(p.ssl, buf, 1), 0);
    assert_int_equal(SSL_get_error(p.ssl, 0), SSL_ERROR_ZERO_RETURN);
    part(&p);
    p = (struct peer){ .server = false };
    meet(&p);
    assert_int_equal(SSL_write(p.ssl, "bye", 3), 3);
    SSL_shutdown(p.ssl);
    assert_int_equal(tr_read(p.c, buf, 3, &e), 0);
    assert_int_equal(tr_read(p.c, buf, 1, &e), -1);
    has(&e, ERR_PEER, "127.0.0.1 closed the connection");
    assert_int_equal(tr_read(p.c, buf, 1, &e), -1);
    has(&e, ERR_PEER, "closed the connection");
    part(&p);
}

static void secrets_do_not_stay(void **state)
{
    static const struct tls_secret zero[2];
    struct peer p = { .server = true };

    (void)state;
    meet(&p);
    assert_memory_equal(p.c->secret, zero, sizeof zero);
    part(&p);
}

/* --- records by hand --- */

static size_t seal(struct peer *p, uint8_t type, const void *data, size_t len, uint8_t *out)
{
    struct iovec v = { (void *)data, len };
    struct cursor cur = { &v, 1, 0 };

    return record_seal(&p->out, type, &cur, len, out);
}

/* As record_seal would with `pad` zeroes behind the type. */
static size_t seal_padded(
    struct peer *p, uint8_t type, const void *data, size_t len, size_t pad, uint8_t *out)
{
    uint8_t *inner = calloc(1, RECORD_PLAIN);
    size_t n;

    if (pad > RECORD_PLAIN - len)
        pad = RECORD_PLAIN - len;

    memcpy(inner, data, len);
    if (pad > 0)
        inner[len] = type;
    n = seal(p, pad > 0 ? 0 : type, inner, len + pad, out);
    free(inner);
    return n;
}

static void say(struct peer *p, const void *bytes, size_t len)
{
    assert_int_equal(io_write_full(p->fd, bytes, len, clock_ns() + NS_PER_S, NULL), 0);
}

/* The alert that we have sent, or -1. */
static int alert_seen(struct peer *p)
{
    uint8_t rec[RECORD_MAX], bytes[2] = { 0, 0 }, type = 0;
    struct iovec v = { bytes, sizeof bytes };
    struct cursor cur = { &v, 1, 0 };
    struct record_fault f;

    if (io_read_full(p->fd, rec, 2 + RECORD_EXTRA, clock_ns() + NS_PER_S, NULL) < 0 ||
        record_body_len(rec, &f) != 2 + 1 + (int)RECORD_TAG ||
        record_open(&p->in, rec, 2 + 1 + RECORD_TAG, cur, &type, &f) != 2 || type != RECORD_ALERT)
        return -1;
    return bytes[1];
}

/* One read of 100 bytes fails with these words, and the peer gets that alert; a good record behind
 * it is not taken. */
static void must_fail(struct peer *p, const char *words, int alert)
{
    uint8_t buf[100] = "", rec[RECORD_MAX];
    struct err e;

    assert_int_equal(tr_read(p->c, buf, sizeof buf, &e), -1);
    has(&e, ERR_PROTOCOL, words);
    has(&e, ERR_PROTOCOL, "127.0.0.1: ");
    assert_int_equal(alert_seen(p), alert);
    say(p, rec, seal(p, RECORD_DATA, buf, sizeof buf, rec));
    assert_int_equal(tr_read(p->c, buf, sizeof buf, &e), -1);
    has(&e, ERR_PROTOCOL, words);
}

static void changed_bytes_are_found(void **state)
{
    static const struct {
        size_t at;
        const char *words;
        int alert;
    } t[] = {
        { 0, "without protection", SSL_AD_UNEXPECTED_MESSAGE },
        { 1, "damaged or forged", SSL_AD_BAD_RECORD_MAC }, /* version */
        { 2, "damaged or forged", SSL_AD_BAD_RECORD_MAC },
        { 3, "too long", SSL_AD_RECORD_OVERFLOW },
        { 4, "damaged or forged", SSL_AD_BAD_RECORD_MAC }, /* shorter by some bytes */
        { 5, "damaged or forged", SSL_AD_BAD_RECORD_MAC }, /* first byte, middle, last, type */
        { 55, "damaged or forged", SSL_AD_BAD_RECORD_MAC },
        { 104, "damaged or forged", SSL_AD_BAD_RECORD_MAC },
        { 105, "damaged or forged", SSL_AD_BAD_RECORD_MAC },
        { 106, "damaged or forged", SSL_AD_BAD_RECORD_MAC }, /* tag */
        { 121, "damaged or forged", SSL_AD_BAD_RECORD_MAC },
    };
    uint8_t data[100] = { 7 }, rec[RECORD_MAX];

    (void)state;
    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct peer p = { .server = i % 2 == 0 };

        meet(&p);
        assert_int_equal(seal(&p, RECORD_DATA, data, sizeof data, rec), 122);
        rec[t[i].at] ^= t[i].at == 4 ? 4 : 0x74;
        say(&p, rec, 122);
        must_fail(&p, t[i].words, t[i].alert);
        part(&p);
    }
}

static void repeated_and_lost_records_are_found(void **state)
{
    uint8_t data[60] = { 7 }, rec[RECORD_MAX];
    struct peer p = { .server = false };
    size_t n;

    (void)state;
    meet(&p);
    n = seal(&p, RECORD_DATA, data, sizeof data, rec);
    say(&p, rec, n);
    say(&p, rec, n);
    must_fail(&p, "damaged or forged", SSL_AD_BAD_RECORD_MAC);
    part(&p);
    p = (struct peer){ .server = false };
    meet(&p);
    seal(&p, RECORD_DATA, data, sizeof data, rec);
    say(&p, rec, seal(&p, RECORD_DATA, data, sizeof data, rec));
    must_fail(&p, "damaged or forged", SSL_AD_BAD_RECORD_MAC);
    part(&p);
}

static void lengths_have_limits(void **state)
{
    static const struct {
        unsigned len;
        const char *words;
        int alert;
    } t[] = {
        { RECORD_PLAIN + 18, "too long", SSL_AD_RECORD_OVERFLOW },
        { 65535, "too long", SSL_AD_RECORD_OVERFLOW },
        { 16, "too short", SSL_AD_DECODE_ERROR },
        { 0, "too short", SSL_AD_DECODE_ERROR },
    };

    (void)state;
    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        uint8_t head[5] = { 23, 3, 3, (uint8_t)(t[i].len >> 8), (uint8_t)t[i].len };
        struct peer p = { .server = false };

        meet(&p);
        say(&p, head, sizeof head);
        must_fail(&p, t[i].words, t[i].alert);
        part(&p);
    }
}

static void wrong_content_is_refused(void **state)
{
    static const struct {
        uint8_t type;
        const char *bytes;
        size_t len;
        const char *words;
        int alert;
    } t[] = {
        { 0, "", 0, "nothing but padding", SSL_AD_UNEXPECTED_MESSAGE },
        { 0, "\0\0\0", 3, "nothing but padding", SSL_AD_UNEXPECTED_MESSAGE },
        { 99, "x", 1, "unknown type", SSL_AD_UNEXPECTED_MESSAGE },
        { 20, "\1", 1, "unknown type", SSL_AD_UNEXPECTED_MESSAGE },
        { 22, "", 0, "empty handshake", SSL_AD_UNEXPECTED_MESSAGE },
        { 22, "\30\0\0\2\0\0", 6, "malformed KeyUpdate", SSL_AD_DECODE_ERROR },
        { 22, "\30\0\0\0", 4, "malformed KeyUpdate", SSL_AD_DECODE_ERROR },
        { 22, "\30\0\0\1\2", 5, "malformed KeyUpdate", SSL_AD_ILLEGAL_PARAMETER },
        { 22, "\30\0\0\1\0\30", 6, "more behind a KeyUpdate", SSL_AD_UNEXPECTED_MESSAGE },
        { 22, "\4\0\0\1\0", 5, "too late", SSL_AD_UNEXPECTED_MESSAGE }, /* ticket by a client */
        { 22, "\15\0\0\1\0", 5, "too late", SSL_AD_UNEXPECTED_MESSAGE },
        { 22, "\1\0\0\1\0", 5, "too late", SSL_AD_UNEXPECTED_MESSAGE },
        { 21, "\2", 1, "malformed alert", SSL_AD_DECODE_ERROR },
        { 21, "\2\50\0", 3, "malformed alert", SSL_AD_DECODE_ERROR },
        { 21, "", 0, "malformed alert", SSL_AD_DECODE_ERROR },
    };
    uint8_t rec[RECORD_MAX];

    (void)state;
    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct peer p = { .server = false };

        meet(&p);
        say(&p, rec, seal(&p, t[i].type, t[i].bytes, t[i].len, rec));
        must_fail(&p, t[i].words, t[i].alert);
        part(&p);
    }
}

static void handshake_messages_may_come_in_pieces(void **state)
{
    static const uint8_t update[5] = { 24, 0, 0, 1, 0 };
    uint8_t rec[RECORD_MAX], ticket[1000] = { 4, 0, 3, 228 }, two[8] = { 4, 0, 0, 1, 9, 4, 0, 0 };
    struct peer p = { .server = true };
    char buf[8] = "";
    struct err e;

    (void)state;
    meet(&p);
    for (unsigned i = 0; i < 5; i++)
        say(&p, rec, seal(&p, RECORD_HANDSHAKE, update + i, 1, rec));
    record_key_next(&p.out, &e);
    say(&p, rec, seal(&p, RECORD_HANDSHAKE, ticket, 300, rec));
    say(&p, rec, seal(&p, RECORD_HANDSHAKE, ticket + 300, 700, rec));
    say(&p, rec, seal(&p, RECORD_HANDSHAKE, two, 8, rec));
    say(&p, rec, seal(&p, RECORD_HANDSHAKE, "\1x", 2, rec));
    say(&p, rec, seal(&p, RECORD_DATA, "there", 5, rec));
    if (tr_read(p.c, buf, 5, &e) < 0)
        fail_msg("%s", e.text);
    assert_string_equal(buf, "there");
    say(&p, rec, seal(&p, RECORD_HANDSHAKE, update, 3, rec));
    say(&p, rec, seal(&p, RECORD_DATA, "no", 2, rec));
    must_fail(&p, "broke off", SSL_AD_UNEXPECTED_MESSAGE);
    part(&p);
}

static void records_without_data_have_a_limit(void **state)
{
    static const uint8_t update[5] = { 24, 0, 0, 1, 1 };
    struct peer p = { .server = false };
    uint8_t rec[RECORD_MAX];
    char buf[4] = "";
    struct err e;

    (void)state;
    meet(&p);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 32; i++)
            say(&p, rec, seal(&p, RECORD_DATA, "", 0, rec));
        say(&p, rec, seal(&p, RECORD_DATA, "ok", 2, rec));
        assert_int_equal(tr_read(p.c, buf, 2, &e), 0);
    }
    for (unsigned i = 0; i < 33; i++) {
        say(&p, rec, seal(&p, RECORD_HANDSHAKE, update, 5, rec));
        record_key_next(&p.out, &e);
    }
    must_fail(&p, "records without data", SSL_AD_UNEXPECTED_MESSAGE);
    part(&p);
}

static void padding_is_cut_off(void **state)
{
    static const size_t pads[] = { 1, 2, 15, 16, 17, 255, 4000, 20000, 0 };
    struct peer p = { .server = false };
    uint8_t rec[RECORD_MAX];
    struct err e;

    (void)state;
    meet(&p);
    for (unsigned i = 0; i < sizeof pads / sizeof pads[0]; i++) {
        uint8_t small[9] = "", big[40000];
        struct iovec v[4] = { { small, 2 }, { small + 2, 1 }, { small + 3, 0 }, { small + 3, 5 } };
        struct iovec w[2] = { { big, 7 }, { big + 7, 3 } };

        say(&p, rec, seal_padded(&p, RECORD_DATA, "pad", 3, pads[i], rec)); /* bounced */
        say(&p, rec, seal_padded(&p, RECORD_DATA, "d\0ed!", 5, pads[i], rec));
        assert_int_equal(tr_readv(p.c, v, 4, &e), 0);
        assert_memory_equal(small, "padd\0ed!", 9);
        w[1].iov_len = sizeof big - 7; /* straight: the padding lies in what comes later */
        say(&p, rec, seal_padded(&p, RECORD_DATA, "straight", 8, pads[i], rec));
        say(&p, rec, seal_padded(&p, RECORD_DATA, "", 0, pads[i], rec));
        memset(big, 'x', sizeof big);
        for (size_t done = 8; done < sizeof big;) {
            size_t n = sizeof big - done > RECORD_PLAIN ? RECORD_PLAIN : sizeof big - done;

            say(&p, rec, seal(&p, RECORD_DATA, big + done, n, rec));
            done += n;
        }
        memset(big, 0, sizeof big);
        assert_int_equal(tr_readv(p.c, w, 2, &e), 0);
        assert_memory_equal(big, "straightxxx", 11);
        assert_int_equal(big[sizeof big - 1], 'x');
    }
    part(&p);
}

static void an_end_in_the_middle_is_told(void **state)
{
    uint8_t data[100] = { 7 }, rec[RECORD_MAX], buf[100];
    static const size_t cut[] = { 0, 1, 5, 6, 121 };
    struct err e;

    (void)state;
    for (unsigned i = 0; i < sizeof cut / sizeof cut[0]; i++) {
        struct peer p = { .server = false };

        meet(&p);
        seal(&p, RECORD_DATA, data, sizeof data, rec);
        say(&p, rec, cut[i]);
        shutdown(p.fd, SHUT_WR);
        assert_int_equal(tr_read(p.c, buf, sizeof buf, &e), -1);
        has(&e, ERR_PEER, cut[i] == 0 ? "closed the connection" : "in the middle of a TLS record");
        part(&p);
    }
}

static void a_peers_alert_is_told(void **state)
{
    static const uint8_t cancelled[2] = { 1, 90 }, bad[2] = { 2, 20 };
    struct peer p = { .server = false };
    uint8_t rec[RECORD_MAX], buf[4] = "";
    struct err e;

    (void)state;
    meet(&p);
    say(&p, rec, seal(&p, RECORD_ALERT, cancelled, 2, rec));
    say(&p, rec, seal(&p, RECORD_DATA, "on", 2, rec));
    assert_int_equal(tr_read(p.c, buf, 2, &e), 0);
    say(&p, rec, seal(&p, RECORD_ALERT, bad, 2, rec));
    assert_int_equal(tr_read(p.c, buf, 1, &e), -1);
    has(&e, ERR_PROTOCOL, "127.0.0.1: ended TLS with alert 20 (bad record mac)");
    part(&p);
}

/* A side that only writes learns from its broken write why the peer went. */
static void a_writer_hears_the_last_words(void **state)
{
    static const uint8_t bad[2] = { 2, 20 };
    static uint8_t block[1 << 20];
    struct peer p = { .server = false };
    uint8_t rec[RECORD_MAX];
    struct err e;
    int r = 0;

    (void)state;
    meet(&p);
    assert_int_equal(tr_write(p.c, block, 100000, &e), 0);
    say(&p, rec, seal(&p, RECORD_ALERT, bad, 2, rec));
    close(p.fd); /* with unread bytes: a reset follows the alert */
    for (unsigned i = 0; i < 100 && r == 0; i++)
        r = tr_write(p.c, block, sizeof block, &e);
    assert_int_equal(r, -1);
    has(&e, ERR_PROTOCOL, "ended TLS with alert 20 (bad record mac)");
    p.fd = dup(0);
    part(&p);
}

/* RFC 8448 section 3: the server's first data, its second record under this key. */
static void the_rfcs_example_opens(void **state)
{
    static const uint8_t secret[32] = { 0xa1, 0x1a, 0xf9, 0xf0, 0x55, 0x31, 0xf8, 0x56, 0xad, 0x47,
        0x11, 0x6b, 0x45, 0xa9, 0x50, 0x32, 0x82, 0x04, 0xb4, 0xf4, 0x4b, 0xfb, 0x6b, 0x3a, 0x4b,
        0x4f, 0x1f, 0x3f, 0xcb, 0x63, 0x16, 0x43 };
    static const uint8_t rec[72] = { 0x17, 0x03, 0x03, 0x00, 0x43, 0x2e, 0x93, 0x7e, 0x11, 0xef,
        0x4a, 0xc7, 0x40, 0xe5, 0x38, 0xad, 0x36, 0x00, 0x5f, 0xc4, 0xa4, 0x69, 0x32, 0xfc, 0x32,
        0x25, 0xd0, 0x5f, 0x82, 0xaa, 0x1b, 0x36, 0xe3, 0x0e, 0xfa, 0xf9, 0x7d, 0x90, 0xe6, 0xdf,
        0xfc, 0x60, 0x2d, 0xcb, 0x50, 0x1a, 0x59, 0xa8, 0xfc, 0xc4, 0x9c, 0x4b, 0xf2, 0xe5, 0xf0,
        0xa2, 0x1c, 0x00, 0x47, 0xc2, 0xab, 0xf3, 0x32, 0x54, 0x0d, 0xd0, 0x32, 0xe1, 0x67, 0xc2,
        0x95, 0x5d };
    uint8_t text[50], type;
    struct iovec v = { text, sizeof text };
    struct cursor cur = { &v, 1, 0 };
    struct record_fault f;
    struct record_key k;
    struct err e;

    (void)state;
    assert_int_equal(record_key_init(&k, 0x1301, secret, sizeof secret, false, &e), 0);
    k.seq = 1;
    assert_int_equal(record_body_len(rec, &f), 67);
    assert_int_equal(record_open(&k, rec, 67, cur, &type, &f), 50);
    assert_int_equal(type, RECORD_DATA);
    for (unsigned i = 0; i < sizeof text; i++)
        assert_int_equal(text[i], i);
    record_key_wipe(&k);
    assert_int_equal(record_key_init(&k, 0x1304, secret, sizeof secret, false, &e), -1);
    record_key_wipe(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(openssl_understands_us_and_we_it),
        cmocka_unit_test(our_keys_change_and_openssl_follows),
        cmocka_unit_test(a_wish_for_a_new_key_is_answered),
        cmocka_unit_test(tickets_are_skipped),
        cmocka_unit_test(each_side_hears_the_other_close),
        cmocka_unit_test(secrets_do_not_stay),
        cmocka_unit_test(changed_bytes_are_found),
        cmocka_unit_test(repeated_and_lost_records_are_found),
        cmocka_unit_test(lengths_have_limits),
        cmocka_unit_test(wrong_content_is_refused),
        cmocka_unit_test(handshake_messages_may_come_in_pieces),
        cmocka_unit_test(records_without_data_have_a_limit),
        cmocka_unit_test(padding_is_cut_off),
        cmocka_unit_test(an_end_in_the_middle_is_told),
        cmocka_unit_test(a_peers_alert_is_told),
        cmocka_unit_test(a_writer_hears_the_last_words),
        cmocka_unit_test(the_rfcs_example_opens),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, setup, teardown);
}
