/* SPDX-License-Identifier: ISC */
/*
 * What the files of transport/ share and nobody else includes: the connection itself,
 * sockets (socket.c), TLS (tls.c, tls_text.c) and certificates (cert.c).
 */
#ifndef TRANSPORT_INTERNAL_H
#define TRANSPORT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "transport/openssl.h"
#include "transport/transport.h"

#define TLS_RECORD 16384 /* most plain bytes of one record */

struct tr_tls {
    SSL_CTX *ctx;
    char ca_file[256], cert_file[256];
};

struct tr_conn {
    /* set while connecting, constant afterwards */
    int fd;
    bool server;
    bool patient;
    SSL *ssl; /* NULL: plain; every use takes ssl_lock */
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

    /* OpenSSL allows one thread at a time inside an SSL. It never blocks in there, because the
     * socket does not; waiting is done outside of the lock. */
    pthread_mutex_t ssl_lock;

    /* One tr_writev at a time; protects stage and rekey_bytes. */
    pthread_mutex_t write_lock;
    uint8_t *stage; /* TLS: small pieces become one record here */
    uint64_t rekey_bytes;

    atomic_bool aborted; /* by tr_abort */
    atomic_bool broken;  /* an error happened: no orderly end */
    _Atomic uint64_t sent, received, write_ns, read_ns, shaped_ns;
};

/* --- socket.c ---------------------------------------------------------------------- */

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

/* --- preamble.c ---------------------------------------------------------------------- */

/* Client: "220 host migrd relocation 1"; other answers become errors. */
int greeting_check(const char *line, const char *who, struct err *e);
/* Client: the answer to the preamble. */
int answer_check(const char *line, const char *who, struct err *e);
/* Copies foreign text; what is not printable ASCII becomes '?'. */
void text_clean(char *out, size_t size, const char *in, size_t len);

/* --- tls.c, tls_text.c ----------------------------------------------------------------- */

int tls_handshake(struct tr_conn *c, const struct tr_tls *t, uint64_t deadline_ns, struct err *e);
/* Wrote or read > 0 bytes; 0: wait for *events; -1: failed. */
ssize_t tls_write_some(
    struct tr_conn *c, const void *buf, size_t len, short *events, struct err *e);
ssize_t tls_read_some(struct tr_conn *c, void *buf, size_t len, short *events, struct err *e);
/* Sends close_notify if the socket takes it now. */
void tls_goodbye(struct tr_conn *c);
void tls_free(struct tr_conn *c);

/* Bytes after which the sender's key is changed; a variable for the tests. */
extern uint64_t tls_rekey_after;

/* Text and code for what SSL_get_error and the error queue say. */
int tls_error(struct tr_conn *c, int ssl_error, int sys_errno, struct err *e);
/* Called by the verify callback: fills c->refusal. `cert` is at fault, `leaf` is the peer's own. */
void tls_note_refusal(struct tr_conn *c, X509 *cert, X509 *leaf, int verify_error);
/* The last entry of OpenSSL's error queue as text. */
const char *tls_queue_text(char *out, size_t size);

/* --- conn.c ------------------------------------------------------------------------ */

/* As tr_read, with deadlines for the first and the last byte (IO_FOREVER: none) and progress within
 * dead_ns between them; *any tells on failure whether bytes were lost. */
int conn_read(struct tr_conn *c, void *buf, size_t len, uint64_t first_ns, uint64_t last_ns,
    bool *any, struct err *e);
/* As tr_writev; does nothing and returns 1 when another thread is writing. */
int conn_try_write(struct tr_conn *c, const void *buf, size_t len, struct err *e);

/* --- message.c ----------------------------------------------------------------------- */

/* The bytes of one message as an object (free with migrd__session__free_unpacked), or NULL. */
Migrd__Session *message_parse(const uint8_t *buf, size_t len, struct err *e);

/* --- shaper.c ------------------------------------------------------------------------ */

/* Takes up to `want` bytes: returns how many may go now, or 0 and *wait_ns to come again. */
size_t shaper_take(struct tr_shaper *s, size_t want, uint64_t *wait_ns);

/* --- cert.c -------------------------------------------------------------------------- */

void cert_common_name(const X509 *cert, char *out, size_t size);
void cert_name_text(const X509_NAME *name, char *out, size_t size);
/* "host2, host2.example.org, 10.0.0.2" */
void cert_alt_names(const X509 *cert, char *out, size_t size);
bool cert_has_name(X509 *cert, const char *name);
time_t cert_time(const ASN1_TIME *t);
/* "2026-01-31 12:00:00 UTC" */
void cert_date(time_t t, char out[32]);
/* First certificate of a PEM file. */
X509 *cert_load(const char *path, struct err *e);

#endif
