/* SPDX-License-Identifier: ISC */
#include "transport/tls_server.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/internal.h"

#define DEAD_MS 30000 /* without a sign of life from the other machine */

struct tls_server {
    SSL_CTX *ctx;
};

struct tls_link {
    SSL *ssl;
    bool wants_write;
    bool broken;       /* an orderly end is not possible */
    char subject[200]; /* of the certificate that was refused first */
};

/* --- context --- */

static int verify_client(int ok, X509_STORE_CTX *x)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(x, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls_link *l = ssl != NULL ? SSL_get_app_data(ssl) : NULL;
    X509 *cert = X509_STORE_CTX_get_current_cert(x);

    if (!ok && l != NULL && cert != NULL && l->subject[0] == '\0')
        cert_name_text(X509_get_subject_name(cert), l->subject, sizeof l->subject);
    return ok && l != NULL;
}

static int configure(SSL_CTX *ctx)
{
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, verify_client);
    SSL_CTX_set_read_ahead(ctx, 0);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    return SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1 &&
                   SSL_CTX_set_num_tickets(ctx, 0) == 1
               ? 0
               : -1;
}

int tls_server_open(const struct tr_tls_files *files, struct tls_server **out, struct err *e)
{
    struct tls_server *s = calloc(1, sizeof *s);

    *out = NULL;
    if (s != NULL)
        s->ctx = SSL_CTX_new(TLS_server_method());
    if (s == NULL || s->ctx == NULL || configure(s->ctx) < 0) {
        tls_server_free(&s);
        return err_set(e, ERR_INTERNAL, "OpenSSL cannot be set up for TLS");
    }
    if (tls_load_files(s->ctx, files, e) < 0) {
        tls_server_free(&s);
        return -1;
    }
    *out = s;
    return 0;
}

void tls_server_free(struct tls_server **s)
{
    if (*s == NULL)
        return;
    SSL_CTX_free((*s)->ctx);
    free(*s);
    *s = NULL;
}

/* --- links --- */

struct tls_link *tls_link_new(const struct tls_server *s, int fd)
{
    struct tls_link *l = calloc(1, sizeof *l);

    if (l == NULL)
        return NULL;
    l->ssl = SSL_new(s->ctx);
    if (l->ssl == NULL || SSL_set_fd(l->ssl, fd) != 1) {
        l->broken = true;
        tls_link_free(&l);
        return NULL;
    }
    sock_tune(fd, DEAD_MS);
    SSL_set_app_data(l->ssl, l);
    SSL_set_accept_state(l->ssl);
    return l;
}

void tls_link_free(struct tls_link **l)
{
    if (*l == NULL)
        return;
    if (!(*l)->broken && SSL_is_init_finished((*l)->ssl))
        SSL_shutdown((*l)->ssl);
    SSL_free((*l)->ssl);
    ERR_clear_error();
    free(*l);
    *l = NULL;
}

/* After a call that gave r <= 0; sets errno and returns what recv would. */
static int outcome(struct tls_link *l, int r)
{
    int sys = errno, why = SSL_get_error(l->ssl, r);

    l->wants_write = why == SSL_ERROR_WANT_WRITE;
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) {
        errno = EAGAIN;
        return -1;
    }
    if (why == SSL_ERROR_ZERO_RETURN)
        return 0;
    l->broken = true;
    errno = why == SSL_ERROR_SYSCALL && sys != 0 && sys != EAGAIN ? sys : ECONNRESET;
    return -1;
}

static void prepare(struct tls_link *l)
{
    ERR_clear_error();
    errno = 0;
    l->wants_write = false;
}

static int handshake_error(struct tls_link *l, struct err *e)
{
    int reason = ERR_GET_REASON(ERR_peek_last_error());
    long verify = SSL_get_verify_result(l->ssl);
    char text[200];

    if (verify != X509_V_OK)
        return err_set(e, ERR_REFUSED, "its certificate %s is refused: %s", l->subject,
            X509_verify_cert_error_string(verify));
    if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
        return err_set(e, ERR_REFUSED, "it has no certificate");
    if (reason == 0 || reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        return err_set(e, ERR_PEER, "it left before TLS had come about");
    return err_set(e, ERR_PROTOCOL, "no TLS: %s", tls_queue_text(text, sizeof text));
}

int tls_link_handshake(struct tls_link *l, struct err *e)
{
    int r;

    prepare(l);
    r = SSL_do_handshake(l->ssl);
    if (r == 1)
        return 1;
    if (outcome(l, r) < 0 && errno == EAGAIN)
        return 0;
    l->broken = true;
    return handshake_error(l, e);
}

ssize_t tls_link_read(struct tls_link *l, void *buf, size_t len)
{
    int r;

    prepare(l);
    r = SSL_read(l->ssl, buf, len > INT_MAX ? INT_MAX : (int)len);
    return r > 0 ? r : outcome(l, r);
}

ssize_t tls_link_write(struct tls_link *l, const void *buf, size_t len)
{
    int r;

    prepare(l);
    r = SSL_write(l->ssl, buf, len > INT_MAX ? INT_MAX : (int)len);
    if (r > 0)
        return r;
    r = outcome(l, r);
    if (r == 0)
        errno = EPIPE;
    return -1;
}

bool tls_link_wants_write(const struct tls_link *l)
{
    return l->wants_write;
}

bool tls_link_name(const struct tls_link *l, unsigned number, char out[TR_NAME_LEN])
{
    X509 *cert = SSL_get0_peer_certificate(l->ssl);

    if (cert == NULL)
        return false;
    if (number > 0)
        return cert_alt_name(cert, number - 1, out, TR_NAME_LEN);
    cert_common_name(cert, out, TR_NAME_LEN);
    return true;
}
