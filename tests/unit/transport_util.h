/* SPDX-License-Identifier: ISC */
/*
 * For the tests of transport/: a throw-away CA with host certificates, and a server in a
 * thread that greets, reads one line, answers, and calls tr_accept for one connection.
 */
#ifndef TRANSPORT_UTIL_H
#define TRANSPORT_UTIL_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "transport/internal.h"
#include "transport/pki.h"

struct util_server {
    /* set by the test before util_serve */
    const char *greeting; /* NULL: the real one; "" none */
    const char *answer;   /* NULL: go ahead; "" none */
    struct tr_options opt;
    bool no_accept;   /* closes after the answer */
    unsigned hold_ms; /* stays silent that long before it closes, with no_accept */
    bool ipv6;
    /* results, after util_join */
    char line[TR_LINE_MAX];
    struct tr_conn *conn;
    struct err err;
    /* own */
    int lfd;
    unsigned port;
    pthread_t thread;
};

static inline void util_say(int fd, const char *text)
{
    io_write_full(fd, text, strlen(text), IO_FOREVER, NULL);
}

static void *util_server_main(void *arg)
{
    struct util_server *s = arg;
    int fd = accept4(s->lfd, NULL, NULL, SOCK_CLOEXEC);
    uint64_t deadline = clock_ns() + 5 * NS_PER_S;
    char line[TR_LINE_MAX];

    if (fd < 0)
        return NULL;
    tr_greeting(line, "server.example.org");
    util_say(fd, s->greeting != NULL ? s->greeting : line);
    if (s->greeting == NULL && sock_read_line(fd, s->line, deadline, &s->err) == 0) {
        tr_go_ahead(line);
        util_say(fd, s->answer != NULL ? s->answer : line);
        if (!s->no_accept) {
            tr_accept(fd, &s->opt, &s->conn, &s->err);
            return NULL;
        }
    }
    usleep(s->hold_ms * 1000);
    close(fd);
    return NULL;
}

static inline void util_serve(struct util_server *s)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    struct sockaddr *sa = s->ipv6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
    socklen_t len = s->ipv6 ? sizeof v6 : sizeof v4;

    s->lfd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s->lfd >= 0);
    assert_int_equal(bind(s->lfd, sa, len), 0);
    assert_int_equal(listen(s->lfd, 1), 0);
    assert_int_equal(getsockname(s->lfd, sa, &len), 0);
    s->port = ntohs(s->ipv6 ? v6.sin6_port : v4.sin_port);
    assert_int_equal(pthread_create(&s->thread, NULL, util_server_main, s), 0);
}

static inline void util_join(struct util_server *s)
{
    pthread_join(s->thread, NULL);
    close(s->lfd);
}

/* Two ends of one connection over loopback; options may differ. */
static inline void util_pair(const struct tr_options *client, const struct tr_options *server,
    struct tr_conn **a, struct tr_conn **b)
{
    struct util_server s = { .opt = *server };
    struct err e = { .code = ERR_NONE };

    util_serve(&s);
    if (tr_connect("127.0.0.1", s.port, "RELOCATE 1", client, a, &e) < 0)
        fail_msg("connect: %s", e.text);
    util_join(&s);
    if (s.conn == NULL)
        fail_msg("accept: %s", s.err.text);
    *b = s.conn;
}

/* --- certificates --- */

struct util_pki {
    char dir[64];
};

static inline void util_pki_open(struct util_pki *p)
{
    struct pki_request rq = { .name = "test CA" };
    struct err e;

    strcpy(p->dir, "/tmp/migrd-pki.XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    if (pki_init(p->dir, &rq, &e) < 0)
        fail_msg("%s", e.text);
}

static inline void util_pki_close(struct util_pki *p)
{
    char cmd[100];

    snprintf(cmd, sizeof cmd, "rm -r %s", p->dir);
    assert_int_equal(system(cmd), 0);
}

/* A certificate for `name`, 127.0.0.1, ::1 and localhost in DIR/<name>. */
static inline void util_issue(struct util_pki *p, const char *name, long offset_s, unsigned days)
{
    const char *const alt[] = { "127.0.0.1", "::1", "localhost", NULL };
    struct pki_request rq = {
        .name = name, .alt_names = alt, .start_offset_s = offset_s, .days = days
    };
    char out[128];
    struct err e;

    snprintf(out, sizeof out, "%s/%s", p->dir, name);
    if (pki_issue(p->dir, out, &rq, &e) < 0)
        fail_msg("%s", e.text);
}

struct util_files {
    char ca[160], cert[160], key[160];
    struct tr_tls_files f;
};

static inline void util_files(struct util_files *u, struct util_pki *p, const char *name)
{
    snprintf(u->ca, sizeof u->ca, "%s/%s/ca.crt", p->dir, name);
    snprintf(u->cert, sizeof u->cert, "%s/%s/host.crt", p->dir, name);
    snprintf(u->key, sizeof u->key, "%s/%s/host.key", p->dir, name);
    u->f = (struct tr_tls_files){ u->ca, u->cert, u->key };
}

static inline struct tr_tls *util_tls(struct util_pki *p, const char *name)
{
    struct util_files u;
    struct tr_tls *t;
    struct err e;

    util_files(&u, p, name);
    if (tr_tls_open(&u.f, &t, &e) < 0)
        fail_msg("%s", e.text);
    return t;
}

#endif
