/* SPDX-License-Identifier: ISC */
/*
 * What went wrong with TLS, in words that name the certificate, its dates and the cure.
 * The side that refuses knows the exact reason (tls_note_refusal, from the verify
 * callback); the other side learns it from the alert (tls_error).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "transport/internal.h"

const char *tls_queue_text(char *out, size_t size)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code == 0 ? NULL : ERR_reason_error_string(code);

    snprintf(out, size, "%s", reason != NULL ? reason : "no detail");
    ERR_clear_error();
    return out;
}

struct cert_words {
    char subject[80], issuer[80], names[100], from[32], to[32], now[32];
};

static void describe(const X509 *cert, struct cert_words *w)
{
    cert_name_text(X509_get_subject_name(cert), w->subject, sizeof w->subject);
    cert_name_text(X509_get_issuer_name(cert), w->issuer, sizeof w->issuer);
    cert_alt_names(cert, w->names, sizeof w->names);
    cert_date(cert_time(X509_get0_notBefore(cert)), w->from);
    cert_date(cert_time(X509_get0_notAfter(cert)), w->to);
    cert_date(time(NULL), w->now);
}

void tls_note_refusal(struct tr_conn *c, X509 *cert, X509 *leaf, int verify_error)
{
    struct cert_words w = { .subject = "" };
    const char *kind = cert != leaf ? "CA certificate" : "certificate";
    size_t size = sizeof c->refusal;
    char *out = c->refusal;

    c->refused = true;
    if (cert != NULL)
        describe(cert, &w);
    switch (verify_error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        snprintf(out, size, "its %s (%s) expired on %s; renew it there: migctl pki renew", kind,
            w.subject, w.to);
        return;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        snprintf(out, size,
            "its %s (%s) is valid from %s only, and it is %s here; compare the clocks of both "
            "hosts",
            kind, w.subject, w.from, w.now);
        return;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        snprintf(out, size,
            "its certificate (%s) is for %s, not for %.80s; use one of its names, or issue it "
            "anew there with this one: migctl pki issue",
            w.subject, w.names[0] != '\0' ? w.names : "no host", c->expect);
        return;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        if (leaf != NULL)
            describe(leaf, &w);
        snprintf(out, size,
            "its certificate (%s), valid %s to %s, issued by %s, is not of the CA in %s; both "
            "hosts "
            "need certificates of one CA",
            w.subject, w.from, w.to, w.issuer, c->ca_file);
        return;
    }
    snprintf(out, size, "its %s (%s), valid %s to %s: %s", kind, w.subject, w.from, w.to,
        X509_verify_cert_error_string(verify_error));
}

/* The words for an alert about certificates, or NULL when it is about something else. */
static const char *alert_words(int alert)
{
    switch (alert) {
    case SSL_AD_CERTIFICATE_EXPIRED:
        return "expired; renew it: migctl pki renew (or compare the clocks of both hosts)";
    case SSL_AD_UNKNOWN_CA:
        return "not of its CA; both hosts need certificates of one CA";
    case SSL_AD_CERTIFICATE_REVOKED:
        return "revoked";
    case SSL_AD_CERTIFICATE_REQUIRED:
        return "missing; make one: migctl pki issue";
    case SSL_AD_BAD_CERTIFICATE:
        return "not valid there: not yet valid (compare the clocks of both hosts), or without the "
               "name by which it was called";
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
    case SSL_AD_CERTIFICATE_UNKNOWN:
    case SSL_AD_ACCESS_DENIED:
    case SSL_AD_DECRYPT_ERROR:
        return "not accepted; see the log there";
    }
    return NULL;
}

int tls_alert_error(struct tr_conn *c, int alert, struct err *e)
{
    const char *words = alert_words(alert);
    X509 *own = SSL_get_certificate(c->ssl);
    struct cert_words w;

    if (words == NULL)
        return err_set(e, ERR_PROTOCOL, "%s: ended TLS with alert %d (%s)", c->who, alert,
            SSL_alert_desc_string_long(alert));
    if (own == NULL)
        return err_set(e, ERR_REFUSED, "%s wants a certificate of this host: %s", c->who, words);
    describe(own, &w);
    return err_set(e, ERR_REFUSED,
        "%s does not take this host's certificate (%s, valid %s to %s): %s", c->who, w.subject,
        w.from, w.to, words);
}

static int queue_error(struct tr_conn *c, struct err *e)
{
    unsigned long code = ERR_peek_last_error();
    int reason = ERR_GET_REASON(code);
    char text[200];

    if (c->refused)
        return err_set(e, ERR_REFUSED, "%s: %s", c->who, c->refusal);
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET)
        return tls_alert_error(c, reason - SSL_AD_REASON_OFFSET, e);
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
        return err_set(
            e, ERR_REFUSED, "%s sent no certificate; make one there: migctl pki issue", c->who);
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        return err_set(e, ERR_PEER, "%s closed the connection", c->who);
    return err_set(e, ERR_PROTOCOL,
        "%s: TLS 1.3 failed: %s; both hosts need TLS (or both plain TCP) for relocation", c->who,
        tls_queue_text(text, sizeof text));
}

int tls_error(struct tr_conn *c, int ssl_error, int sys_errno, struct err *e)
{
    if (atomic_load(&c->aborted))
        err_set(e, ERR_CANCELLED, "%s: connection was aborted", c->who);
    else if (ssl_error == SSL_ERROR_ZERO_RETURN)
        err_set(e, ERR_PEER, "%s closed the connection", c->who);
    else if (ssl_error == SSL_ERROR_SYSCALL && sys_errno == ETIMEDOUT)
        err_set(e, ERR_TIMEOUT, "%s does not answer any more", c->who);
    else if (ssl_error == SSL_ERROR_SYSCALL)
        err_set(e, ERR_PEER, "%s: connection lost: %s", c->who,
            sys_errno != 0 ? strerror(sys_errno) : "end of file");
    else
        queue_error(c, e);
    ERR_clear_error();
    return -1;
}
