/* SPDX-License-Identifier: ISC */
/*
 * What the files of the status socket share: status.c (listeners inside the loop),
 * status_http.c (requests and answers), status_events.c (server-sent events),
 * status_metrics.c (/metrics). All in the loop's thread.
 */
#ifndef MIGRD_STATUS_INTERNAL_H
#define MIGRD_STATUS_INTERNAL_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <uv.h>

#include "migrd/migrd.h"

#define STATUS_CLIENTS_MAX 128u     /* connections per listener */
#define STATUS_STREAMS_MAX 32u      /* readers of /v1/events */
#define STATUS_STREAM_BYTES 262144u /* unsent events of one reader, then it loses some */
#define STATUS_HEARTBEAT_MS 15000u  /* silence on a stream before a comment is sent */
#define STATUS_REQUEST_MS 10000u    /* from connecting to the end of the first request */
#define STATUS_ANSWER_MS 60000u     /* for taking an answer */
#define STATUS_IDLE_MS 30000u       /* between requests, and without a byte moving */

struct status;

/* One listening socket with the HTTP server behind it. */
struct status_listener {
    struct status *s;
    struct MHD_Daemon *http; /* NULL: not in use */
    uv_poll_t poll;          /* of the server's epoll descriptor */
    uv_timer_t timer;        /* when the server wants to run by itself */
};

/* One connection; its deadline is what keeps a dawdler from holding a place for ever. */
struct status_client {
    struct status_client *next, **prev;
    struct MHD_Connection *connection;
    uint64_t deadline_ns; /* 0: none, it reads events */
};

struct status_stream;

struct status {
    struct migrd *m;
    struct status_listener unix_socket, tcp;
    struct status_client *clients;
    struct status_stream *streams;
    unsigned n_streams;
    uv_timer_t sweep;
    unsigned handles; /* of libuv, not closed yet; the last one frees us */
    bool stopping;
};

/* Makes the server behind `l` run as soon as the loop comes round. */
void status_kick(struct status_listener *l);

/* status_http.c */
enum MHD_Result status_request(void *cls, struct MHD_Connection *c, const char *url,
    const char *method, const char *version, const char *body, size_t *body_len, void **context);
void status_set_deadline(struct MHD_Connection *c, unsigned ms);

/* status_events.c: a response that streams events to `c`; NULL with *http_code set. */
struct MHD_Response *status_stream_new(
    struct status_listener *l, struct MHD_Connection *c, unsigned *http_code);
void status_streams_beat(struct status *s, uint64_t now_ns);
/* Makes all streams end at their next turn. */
void status_streams_end(struct status *s);

/* status_metrics.c: Prometheus text, malloc'ed; NULL without memory. */
char *status_metrics(struct migrd *m, size_t *len);

void metrics_head(FILE *f, const char *name, const char *type, const char *help);
void metrics_gauge(FILE *f, const char *name, const char *help, double value);
/* ` before NAME="value" ` with what the format wants escaped. */
void metrics_label(FILE *f, const char *before, const char *name, const char *value);

/* status_ha.c: the cluster's; nothing where there is none. */
void metrics_ha(FILE *f, struct migrd *m);

#endif
