/* SPDX-License-Identifier: ISC */
/*
 * What the files of transport/ share and nobody else includes: the connection itself,
 * sockets (socket.c), TLS (tls.c, tls_text.c, tls_stream.c) and certificates (cert.c).
 */
#ifndef TRANSPORT_INTERNAL_H
#define TRANSPORT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "transport/cursor.h"
#include "transport/openssl.h"
#include "transport/transport.h"

struct tr_tls {
    SSL_CTX *ctx;
    char ca_file[256], cert_file[256];
};

struct tls_secret {
    uint8_t bytes[48];
    size_t len;
};

struct tls_stream;

struct tr_conn {
    /* set while connecting, constant afterwards */
    int fd;
    bool server;
    bool patient;
    SSL *ssl; /* NULL: plain; has the certificates, and did the handshake */
    struct tls_stream *stream;
    uint64_t dead_ns;
    struct tr_shaper *shaper;
    char who[TR_NAME_LEN];  /* the peer in error texts: "host2" or an address */
    char name[TR_NAME_LEN]; /* common name of its certificate */
    char cipher[96];
    char expect[TR_NAME_LEN]; /* client: the name the server's certificate must have */
    const char *ca_file;
    X509 *peer_cert;

    /* why the peer's certificate was refused; written during the handshake only */
    bool refused;
    char refusal[400];

    struct tls_secret secret[2]; /* of the client, of the server; during the handshake only */

    pthread_mutex_t write_lock; /* one tr_writev at a time; the writer's part of stream */
    pthread_mutex_t read_lock;  /* one tr_readv at a time; the reader's part of stream */

    atomic_bool aborted; /* by tr_abort */
    atomic_bool broken;  /* an error happened: no orderly end */
    _Atomic uint64_t sent, received, write_ns, read_ns, shaped_ns;
};

/* --- socket.c --- */

/* Connects to one of the addresses of host; fd (non-blocking, options set) or -1. */
int sock_connect(const char *host, unsigned port, uint64_t deadline_ns, struct err *e);
/* Options that hold for both sides: no delay, keepalive, user timeout. */
void sock_tune(int fd, unsigned dead_peer_ms);
/* Bulk data on a short link: a congestion control without pacing. */
void sock_tune_congestion(int fd);
/* "10.0.0.2" or "[fe80::1]", or "peer" */
void sock_peer_text(int fd, char out[TR_NAME_LEN]);
/* A line up to LF, CR LF cut off, NUL-terminated; reads not a byte more. */
int sock_read_line(int fd, char line[TR_LINE_MAX], uint64_t deadline_ns, struct err *e);

/* --- preamble.c --- */

/* Client: "220 host migrd relocation 1"; other answers become errors. */
int greeting_check(const char *line, const char *who, struct err *e);
/* Client: the answer to the preamble. */
int answer_check(const char *line, const char *who, struct err *e);
/* Copies foreign text; what is not printable ASCII becomes '?'. */
void text_clean(char *out, size_t size, const char *in, size_t len);

/* --- tls.c, tls_text.c --- */

int tls_handshake(struct tr_conn *c, const struct tr_tls *t, uint64_t deadline_ns, struct err *e);
void tls_free(struct tr_conn *c);

/* Certificates and key into ctx, checked as the peer will: key matches, not expired, of the CA. */
int tls_load_files(SSL_CTX *ctx, const struct tr_tls_files *files, struct err *e);

/* Text and code for what SSL_get_error and the error queue say. */
int tls_error(struct tr_conn *c, int ssl_error, int sys_errno, struct err *e);
/* The peer ended the connection with this alert. */
int tls_alert_error(struct tr_conn *c, int alert, struct err *e);
/* Called by the verify callback: fills c->refusal. `cert` is at fault, `leaf` is the peer's own. */
void tls_note_refusal(struct tr_conn *c, X509 *cert, X509 *leaf, int verify_error);
/* The last entry of OpenSSL's error queue as text. */
const char *tls_queue_text(char *out, size_t size);

/* --- tls_stream.c --- */

/* Records under one key of ours, before it is changed; a variable for the tests. */
extern uint64_t tls_rekey_after;

/* Takes the secrets of the application's keys while the handshake makes them. */
void tls_keylog(const SSL *ssl, const char *line);
/* When the handshake is through: c->secret goes into use with the cipher suite of that number (RFC
 * 8446 B.4), and is wiped. */
int stream_start(struct tr_conn *c, unsigned suite, struct err *e);
void stream_free(struct tr_conn *c);
/* All `left` bytes; under write_lock. */
int stream_writev(struct tr_conn *c, struct cursor *cur, size_t left, struct err *e);
/* Up to `want` bytes, which are stepped over; 0: wait for POLLIN; -1: failed. Under read_lock. */
ssize_t stream_read(struct tr_conn *c, struct cursor *cur, size_t want, struct err *e);
/* Sends close_notify, or an alert that is still to be sent, if the socket takes it now. Nobody else
 * uses the connection then. True if an alert is on its way, which must not be cut off. */
bool stream_goodbye(struct tr_conn *c, bool broken);

/* --- conn.c --- */

/* As tr_read, with deadlines for the first and the last byte (IO_FOREVER: none) and progress within
 * dead_ns between them; *any tells on failure whether bytes were lost. */
int conn_read(struct tr_conn *c, void *buf, size_t len, uint64_t first_ns, uint64_t last_ns,
    bool *any, struct err *e);
/* Waits for poll's events; IO_FOREVER is no deadline. */
int conn_wait(struct tr_conn *c, short events, uint64_t deadline_ns, struct err *e);
/* How many of `want` bytes the cap lets go; waits for at least some. 0: aborted. */
size_t conn_shaped(struct tr_conn *c, size_t want);
/* -1 and an error: tr_abort was called; what errno says. */
int conn_aborted(struct tr_conn *c, struct err *e);
int conn_errno(struct tr_conn *c, struct err *e);
/* As tr_writev; does nothing and returns 1 when another thread is writing. */
int conn_try_write(struct tr_conn *c, const void *buf, size_t len, struct err *e);

/* --- message.c --- */

/* The bytes of one message as an object (free with migrd__session__free_unpacked), or NULL. */
Migrd__Session *message_parse(const uint8_t *buf, size_t len, struct err *e);

/* --- shaper.c --- */

/* Takes up to `want` bytes: returns how many may go now, or 0 and *wait_ns to come again. */
size_t shaper_take(struct tr_shaper *s, size_t want, uint64_t *wait_ns);

/* --- cert.c --- */

void cert_common_name(const X509 *cert, char *out, size_t size);
void cert_name_text(const X509_NAME *name, char *out, size_t size);
/* "host2, host2.example.org, 10.0.0.2" */
void cert_alt_names(const X509 *cert, char *out, size_t size);
/* One of them, "" if it is of another kind; false: there are not so many. */
bool cert_alt_name(const X509 *cert, unsigned number, char *out, size_t size);
bool cert_has_name(X509 *cert, const char *name);
time_t cert_time(const ASN1_TIME *t);
/* "2026-01-31 12:00:00 UTC" */
void cert_date(time_t t, char out[32]);
/* First certificate of a PEM file. */
X509 *cert_load(const char *path, struct err *e);

#endif
