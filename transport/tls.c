/* SPDX-License-Identifier: ISC */
/*
 * TLS 1.3 by OpenSSL, certificates on both sides, no tickets, no resumption. The
 * client checks the server's name; the server takes any certificate of the CA and tells
 * the client so, as the first thing inside TLS: "250 <common name seen>". Without that
 * line a TLS 1.3 client does not know yet whether its own certificate was taken.
 *
 * Only the handshake is made here, by one thread. What follows it is tls_stream.c's, with
 * the secrets that the keylog callback has seen; OpenSSL reads not a byte beyond.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "transport/internal.h"

#define SUITES_AES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define SUITES_CHACHA "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"
#define LINGER_MS 1000

static bool has_aes(void)
{
#if defined(__x86_64__) || defined(__i386__)
    return __builtin_cpu_supports("aes") != 0;
#else
    return true;
#endif
}

/* --- context --- */

static int verify_peer(int ok, X509_STORE_CTX *x)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(x, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tr_conn *c = ssl != NULL ? SSL_get_app_data(ssl) : NULL;
    X509 *cert = X509_STORE_CTX_get_current_cert(x);
    int depth = X509_STORE_CTX_get_error_depth(x);

    if (c == NULL)
        return 0;
    if (ok && depth == 0 && c->expect[0] != '\0' && !cert_has_name(cert, c->expect)) {
        X509_STORE_CTX_set_error(x, X509_V_ERR_HOSTNAME_MISMATCH);
        ok = 0;
    }
    if (!ok && !c->refused)
        tls_note_refusal(c, cert, X509_STORE_CTX_get0_cert(x), X509_STORE_CTX_get_error(x));
    return ok;
}

static int configure(SSL_CTX *ctx)
{
    uint64_t options = SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE;

    SSL_CTX_set_options(ctx, options);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, verify_peer);
    SSL_CTX_set_read_ahead(ctx, 0);
    SSL_CTX_set_keylog_callback(ctx, tls_keylog);
    return SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 &&
                   SSL_CTX_set_num_tickets(ctx, 0) == 1 &&
                   SSL_CTX_set_ciphersuites(ctx, has_aes() ? SUITES_AES : SUITES_CHACHA) == 1
               ? 0
               : -1;
}

/* "cannot read FILE: reason; make it with migctl pki" */
static int file_error(struct err *e, const char *what, const char *path)
{
    char why[200];

    tls_queue_text(why, sizeof why);
    return err_set(e, ERR_INVALID, "%s %s: %s; make one with migctl pki issue", what, path,
        access(path, R_OK) < 0 ? strerror(errno) : why);
}

static int load_files(SSL_CTX *ctx, const struct tr_tls_files *f, struct err *e)
{
    if (SSL_CTX_load_verify_file(ctx, f->ca) != 1)
        return file_error(e, "CA certificate", f->ca);
    if (SSL_CTX_use_certificate_chain_file(ctx, f->cert) != 1)
        return file_error(e, "certificate", f->cert);
    if (SSL_CTX_use_PrivateKey_file(ctx, f->key, SSL_FILETYPE_PEM) != 1) {
        if (ERR_GET_REASON(ERR_peek_last_error()) != X509_R_KEY_VALUES_MISMATCH)
            return file_error(e, "key", f->key);
        ERR_clear_error();
        return err_set(e, ERR_INVALID, "key %s does not belong to certificate %s", f->key, f->cert);
    }
    return 0;
}

static int own_error(const struct tr_tls_files *f, X509 *cert, int why, struct err *e)
{
    char from[32], to[32], now[32];

    cert_date(cert_time(X509_get0_notBefore(cert)), from);
    cert_date(cert_time(X509_get0_notAfter(cert)), to);
    cert_date(time(NULL), now);
    switch (why) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return err_set(e, ERR_REFUSED, "certificate %s expired on %s; renew it: migctl pki renew",
            f->cert, to);
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return err_set(e, ERR_REFUSED,
            "certificate %s is valid from %s only, and it is %s here; set the clock", f->cert, from,
            now);
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        return err_set(e, ERR_INVALID,
            "certificate %s is not of the CA in %s; issue it anew with "
            "that CA: migctl pki issue",
            f->cert, f->ca);
    }
    return err_set(e, ERR_INVALID, "certificate %s (valid %s to %s): %s", f->cert, from, to,
        X509_verify_cert_error_string(why));
}

/* What the peer is going to check, found out here and now. */
static int check_own(SSL_CTX *ctx, const struct tr_tls_files *f, struct err *e)
{
    X509_STORE_CTX *x = X509_STORE_CTX_new();
    X509 *cert = SSL_CTX_get0_certificate(ctx);
    STACK_OF(X509) *chain = NULL;
    int r = -1;

    SSL_CTX_get0_chain_certs(ctx, &chain);
    if (x == NULL || X509_STORE_CTX_init(x, SSL_CTX_get_cert_store(ctx), cert, chain) != 1)
        err_set(e, ERR_MEMORY, "certificate %s: out of memory", f->cert);
    else if (X509_verify_cert(x) == 1)
        r = 0;
    else
        own_error(f, cert, X509_STORE_CTX_get_error(x), e);
    X509_STORE_CTX_free(x);
    ERR_clear_error();
    return r;
}

int tls_load_files(SSL_CTX *ctx, const struct tr_tls_files *files, struct err *e)
{
    return load_files(ctx, files, e) < 0 ? -1 : check_own(ctx, files, e);
}

int tr_tls_open(const struct tr_tls_files *files, struct tr_tls **out, struct err *e)
{
    struct tr_tls *t = calloc(1, sizeof *t);

    *out = NULL;
    if (t != NULL)
        t->ctx = SSL_CTX_new(TLS_method());
    if (t == NULL || t->ctx == NULL || configure(t->ctx) < 0) {
        tr_tls_free(&t);
        return err_set(e, ERR_INTERNAL, "OpenSSL cannot be set up for TLS 1.3");
    }
    snprintf(t->ca_file, sizeof t->ca_file, "%s", files->ca);
    snprintf(t->cert_file, sizeof t->cert_file, "%s", files->cert);
    if (tls_load_files(t->ctx, files, e) < 0) {
        tr_tls_free(&t);
        return -1;
    }
    *out = t;
    return 0;
}

void tr_tls_free(struct tr_tls **t)
{
    if (*t == NULL)
        return;
    SSL_CTX_free((*t)->ctx);
    free(*t);
    *t = NULL;
}

/* --- handshake --- */

void tls_free(struct tr_conn *c)
{
    stream_free(c);
    X509_free(c->peer_cert);
    SSL_free(c->ssl);
    c->peer_cert = NULL;
    c->ssl = NULL;
}

/* After a call that gave `r` <= 0: the events to wait for and 0, or -1. */
static int wants(struct tr_conn *c, int r, short *events, struct err *e)
{
    int sys = errno, why = SSL_get_error(c->ssl, r);

    switch (why) {
    case SSL_ERROR_WANT_READ:
        *events = POLLIN;
        return 0;
    case SSL_ERROR_WANT_WRITE:
        *events = POLLOUT;
        return 0;
    }
    return tls_error(c, why, sys, e);
}

static int wait_for(struct tr_conn *c, short events, uint64_t deadline_ns, struct err *e)
{
    if (io_wait(c->fd, events, deadline_ns, e) == 0)
        return 0;
    if (e != NULL && e->code == ERR_TIMEOUT)
        err_set(e, ERR_TIMEOUT, "%s: TLS did not come about in time", c->who);
    return -1;
}

static int exchange(struct tr_conn *c, uint64_t deadline_ns, struct err *e)
{
    for (;;) {
        short events = 0;
        int r;

        if (clock_ns() >= deadline_ns)
            return err_set(e, ERR_TIMEOUT, "%s: TLS did not come about in time", c->who);
        ERR_clear_error();
        errno = 0;
        r = SSL_do_handshake(c->ssl);
        if (r == 1)
            return 0;
        if (wants(c, r, &events, e) < 0 || wait_for(c, events, deadline_ns, e) < 0)
            return -1;
    }
}

/* Server: "250 <name>", when the client's certificate has been taken. */
static int send_welcome(struct tr_conn *c, struct err *e)
{
    char line[TR_LINE_MAX];
    struct iovec v = { line, (size_t)snprintf(line, sizeof line, "250 %s\r\n", c->name) };
    struct cursor cur = { &v, 1, 0 };

    return stream_writev(c, &cur, v.iov_len, e);
}

static int read_welcome(struct tr_conn *c, uint64_t deadline_ns, struct err *e)
{
    char line[TR_LINE_MAX];
    struct iovec v = { line, sizeof line };
    struct cursor cur = { &v, 1, 0 };
    size_t len = 0;

    while (len == 0 || line[len - 1] != '\n') {
        ssize_t n;

        if (len == sizeof line)
            return err_set(e, ERR_PROTOCOL, "%s: line is too long", c->who);
        n = stream_read(c, &cur, 1, e);
        if (n < 0 || (n == 0 && wait_for(c, POLLIN, deadline_ns, e) < 0))
            return -1;
        len += (size_t)n;
    }
    if (len < 4 || memcmp(line, "250 ", 4) != 0)
        return err_set(e, ERR_PROTOCOL, "%s: no welcome after TLS", c->who);
    return 0;
}

/* So that our alert arrives: closing with unread bytes would reset the connection. */
static void linger(int fd)
{
    uint64_t deadline = clock_ns() + LINGER_MS * NS_PER_MS;
    char bin[4096];

    shutdown(fd, SHUT_WR);
    while (clock_ns() < deadline && io_wait(fd, POLLIN, deadline, NULL) == 0)
        if (recv(fd, bin, sizeof bin, MSG_DONTWAIT) <= 0 && errno != EAGAIN)
            return;
}

static void note_session(struct tr_conn *c)
{
    c->peer_cert = SSL_get1_peer_certificate(c->ssl);
    if (c->peer_cert != NULL)
        cert_common_name(c->peer_cert, c->name, sizeof c->name);
    snprintf(
        c->cipher, sizeof c->cipher, "%s %s", SSL_get_version(c->ssl), SSL_get_cipher_name(c->ssl));
}

/* From here on the bytes of the socket are not OpenSSL's any more. */
static int start_records(struct tr_conn *c, struct err *e)
{
    if (SSL_has_pending(c->ssl))
        return err_set(e, ERR_INTERNAL, "%s: TLS read beyond its handshake", c->who);
    return stream_start(c, SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(c->ssl)), e);
}

int tls_handshake(struct tr_conn *c, const struct tr_tls *t, uint64_t deadline_ns, struct err *e)
{
    int r;

    c->ca_file = t->ca_file;
    c->ssl = SSL_new(t->ctx);
    if (c->ssl == NULL || SSL_set_fd(c->ssl, c->fd) != 1)
        return err_set(e, ERR_MEMORY, "TLS: out of memory");
    SSL_set_app_data(c->ssl, c);
    if (c->server)
        SSL_set_accept_state(c->ssl);
    else
        SSL_set_connect_state(c->ssl);
    r = exchange(c, deadline_ns, e);
    if (r == 0) {
        note_session(c);
        r = start_records(c, e);
    }
    if (r == 0)
        r = c->server ? send_welcome(c, e) : read_welcome(c, deadline_ns, e);
    if (r < 0)
        linger(c->fd);
    return r;
}
