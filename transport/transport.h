/* SPDX-License-Identifier: ISC */
/*
 * transport: the relocation wire: greeting and preamble, TLS 1.3 with certificates on
 * both sides, the message channel, and page-batch frames. Everything here blocks, in a
 * worker's threads; migrd itself only uses the preamble functions, which do no I/O. A
 * `struct tr_conn` is used by one reading and one writing thread; tr_abort may come from
 * any. Bytes and formats: docs/WIRE.md and frame.h.
 */
#ifndef TRANSPORT_H
#define TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "transport/session.pb-c.h"

#define TR_PORT 8002                /* xend-relocation-port */
#define TR_VERSION 1                /* of the protocol: greeting, RELOCATE line, Offer */
#define TR_VERSION_OLDEST 1         /* the oldest that this release still speaks */
#define TR_LINE_MAX 512             /* bytes of a greeting or preamble line with its CR LF */
#define TR_MESSAGE_MAX (72u << 20)  /* of a FinalState: HV_STATE_MAX and room */
#define TR_MESSAGE_SMALL (1u << 20) /* of every other message */
#define TR_CHANNELS_MAX 16
#define TR_SESSION_LEN 33 /* 32 hex digits and NUL */
#define TR_NAME_LEN 256

/* --- preamble: pure text, both sides --- */

enum tr_request { TR_REQ_RELOCATE, TR_REQ_CHANNEL };

struct tr_preamble {
    enum tr_request request;
    unsigned version;             /* RELOCATE */
    char session[TR_SESSION_LEN]; /* CHANNEL */
    unsigned channel;             /* CHANNEL: 1.. */
};

/* Parses one line without its line end. ERR_PROTOCOL with a text for the peer; a version that this
 * release does not speak is ERR_UNSUPPORTED. */
int tr_preamble_parse(const char *line, size_t len, struct tr_preamble *out, struct err *e);

/* The server's lines, with CR LF, into `out` (TR_LINE_MAX). Returns the length. */
size_t tr_greeting(char *out, const char *host);
size_t tr_refusal(char *out, const char *who);
size_t tr_go_ahead(char *out);
size_t tr_bad_request(char *out, const char *why); /* 500 ... */
size_t tr_busy(char *out, const char *why);        /* 421 ... try again later */

/* --- TLS --- */

struct tr_tls;

struct tr_tls_files {
    const char *ca, *cert, *key; /* PEM */
};

/* Loads and checks (key matches, not expired, chain ends in ca). Errors name file and cure. */
int tr_tls_open(const struct tr_tls_files *files, struct tr_tls **out, struct err *e);
void tr_tls_free(struct tr_tls **t);

/* --- connections --- */

struct tr_conn;

/* A token bucket shared by all channels of a migration; rate 0: no cap. Thread-safe. */
struct tr_shaper;
struct tr_shaper *tr_shaper_new(uint64_t bytes_per_s);
void tr_shaper_set(struct tr_shaper *s, uint64_t bytes_per_s);
void tr_shaper_free(struct tr_shaper **s);

struct tr_options {
    const struct tr_tls *tls;    /* NULL: plain TCP */
    unsigned connect_timeout_ms; /* also bounds greeting, preamble, handshake; 0: 10000, or
                                     dead_peer_ms if that is longer */
    unsigned dead_peer_ms;       /* TCP_USER_TIMEOUT, keepalive, every read and write that
                                    makes no progress; 0: 15000 */
    bool patient;                /* a read may wait for its first byte without limit (TCP keepalive
                                    still finds a dead host): for data channels, whose peer is
                                    watched on the message channel */
    struct tr_shaper *shaper;    /* may be NULL; not owned */
};

/*
 * Client: connects, reads the greeting, sends `preamble` (a line without end), waits for 220, does
 * TLS. The certificate must be valid for `host` (name or address, [v6] too; a name is also accepted
 * where the certificate's name is its short form). When it returns 0, the server has accepted our
 * certificate as well. ERR_REFUSED: a 530 (with the server's text) or a certificate; ERR_RESOURCE:
 * a 421; ERR_TIMEOUT, ERR_PEER, ERR_PROTOCOL as named. Cannot be aborted: it is bounded.
 */
int tr_connect(const char *host, unsigned port, const char *preamble, const struct tr_options *opt,
    struct tr_conn **out, struct err *e);

/* Server: takes over `fd` after migrd has answered "220 go ahead"; does TLS. Any certificate of the
 * CA passes; the caller compares tr_peer_has_name. On failure fd is closed. */
int tr_accept(int fd, const struct tr_options *opt, struct tr_conn **out, struct err *e);

/* Common name of the peer's certificate, "" without TLS. */
const char *tr_peer_name(const struct tr_conn *c);
/* True if the certificate is valid for this host name or address. */
bool tr_peer_has_name(const struct tr_conn *c, const char *name);
/* "TLSv1.3 TLS_AES_128_GCM_SHA256" or "plain TCP". */
const char *tr_cipher(const struct tr_conn *c);
int tr_fd(const struct tr_conn *c);

/* Makes all reads and writes of this connection fail now with ERR_CANCELLED; from any thread. */
void tr_abort(struct tr_conn *c);
/* Orderly end where possible (bounded by 1 s), frees, sets NULL. */
void tr_close(struct tr_conn **c);

/*
 * A write is whole or the connection is broken; two writers exclude each other for the length of
 * one call. ERR_TIMEOUT: no progress for dead_peer_ms; ERR_PEER: closed or reset by the peer;
 * ERR_REFUSED: the peer did not take our certificate. After any failure only tr_abort, tr_stats
 * and tr_close make sense. Zero lengths are fine.
 */
int tr_write(struct tr_conn *c, const void *buf, size_t len, struct err *e);
int tr_writev(struct tr_conn *c, const struct iovec *iov, int n, struct err *e);
int tr_read(struct tr_conn *c, void *buf, size_t len, struct err *e); /* exactly len */
int tr_readv(struct tr_conn *c, const struct iovec *iov, int n, struct err *e);

struct tr_stats {
    uint64_t sent, received;    /* bytes of payload given to TCP or TLS */
    uint64_t write_ns, read_ns; /* time spent inside writes and reads */
    uint64_t shaped_ns;         /* of it asleep for the bandwidth cap */
};
void tr_stats(const struct tr_conn *c, struct tr_stats *out);

/* --- messages --- */

int tr_send(struct tr_conn *c, const Migrd__Session *m, struct err *e);

/*
 * Next message other than ping and pong (handled here); free with
 * migrd__session__free_unpacked. While it waits it pings the peer three times in dead_peer_ms.
 * timeout_ms > 0: waits so long at most, however alive the peer is. 0: for ever, as long as
 * something, be it a ping, comes within each dead_peer_ms; so a peer that neither sends nor sits in
 * tr_recv for longer must call tr_ping. ERR_TIMEOUT before the first byte of a message leaves the
 * connection usable; every other failure is final. A Refuse is returned like any other.
 */
int tr_recv(struct tr_conn *c, unsigned timeout_ms, Migrd__Session **m, struct err *e);

/* A sign of life; skipped when another thread is writing just now. */
int tr_ping(struct tr_conn *c, struct err *e);

/* An error from a Refuse: its code, and "HOST: text" with control characters replaced. */
int tr_refused(const struct tr_conn *c, const Migrd__Refuse *r, struct err *e);

#endif
