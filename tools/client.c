/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "tools/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/msgconn.h"

#define SEND_LIMIT_MS 10000

struct client {
    struct msgconn *conn;
    uint32_t serial; /* of the request sent last */
};

/* Why nobody could be reached, in words that help; `er` is connect's errno. */
static int explain_connect(const char *path, const char *root, int er, struct err *e)
{
    if (er == EACCES || er == EPERM)
        return err_set(e, ERR_REFUSED,
            "%s: permission denied; run this as root, or as a member of the group that "
            "control-group names in migrd.conf (usually migrd)",
            path);
    if (er == ENOENT || er == ECONNREFUSED)
        return err_set(e, ERR_NOT_FOUND, "migrd does not answer on %s: is it running? %s%s", path,
            root[0] != '\0' ? "start it with: migrd --root " : "start it with: ",
            root[0] != '\0' ? root : "systemctl start migrd");
    errno = er;
    return err_sys(e, "%s", path);
}

static int connect_to(const struct paths *p, struct err *e)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd;

    if (strlen(p->control) >= sizeof sa.sun_path)
        return err_set(e, ERR_INVALID, "%s: too long for a socket's path", p->control);
    memcpy(sa.sun_path, p->control, strlen(p->control) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(e, "socket");
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0) {
        int er = errno;

        close(fd);
        return explain_connect(p->control, p->root, er, e);
    }
    return fd;
}

int client_open(const struct paths *p, struct client **out, struct err *e)
{
    struct client *c = calloc(1, sizeof *c);
    int fd;

    if (c == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    fd = connect_to(p, e);
    if (fd >= 0) {
        c->conn = msgconn_new(fd, &migrd__reply__descriptor, MSGCONN_MAX_LEN);
        if (c->conn == NULL)
            err_set(e, ERR_MEMORY, "out of memory");
    }
    if (c->conn == NULL) {
        free(c);
        return -1;
    }
    *out = c;
    return 0;
}

void client_close(struct client **c)
{
    if (*c == NULL)
        return;
    msgconn_free(&(*c)->conn);
    free(*c);
    *c = NULL;
}

static uint64_t deadline(unsigned timeout_ms)
{
    return timeout_ms == 0 ? IO_FOREVER : clock_ns() + timeout_ms * NS_PER_MS;
}

int client_send(struct client *c, Migrd__Request *rq, struct err *e)
{
    rq->serial = ++c->serial;
    if (msgconn_send(c->conn, &rq->base, -1, deadline(SEND_LIMIT_MS), e) < 0)
        return err_prefix(e, "asking migrd");
    return 0;
}

static enum err_code code_of(const char *name)
{
    for (int i = 0; i < ERR_CODE_MAX; i++)
        if (strcmp(name, err_code_name((enum err_code)i)) == 0)
            return (enum err_code)i;
    return ERR_SYSTEM;
}

int client_failure(const Migrd__Reply *r, struct err *e)
{
    if (r->failure == NULL)
        return 0;
    return err_set(e, code_of(r->failure->code), "%s", r->failure->text);
}

int client_next(struct client *c, unsigned timeout_ms, Migrd__Reply **out, struct err *e)
{
    uint64_t until = deadline(timeout_ms);

    for (;;) {
        ProtobufCMessage *m;
        struct err why;

        err_clear(&why);
        if (msgconn_recv(c->conn, &m, NULL, until, &why) < 0) {
            if (why.code == ERR_TIMEOUT)
                return 0;
            if (why.code == ERR_PEER)
                return err_set(e, ERR_PEER,
                    "migrd closed the connection before it answered; its log (xm log) may say why");
            return err_set(e, why.code, "control socket: %s", why.text);
        }
        *out = (Migrd__Reply *)m;
        if ((*out)->serial == c->serial)
            return 1;
        migrd__reply__free_unpacked(*out, NULL); /* of a request given up before */
    }
}

static unsigned left_ms(uint64_t until)
{
    uint64_t now = clock_ns();

    if (until == IO_FOREVER)
        return 0;
    return now < until ? (unsigned)((until - now) / NS_PER_MS) + 1 : 1;
}

Migrd__Reply *client_call(struct client *c, Migrd__Request *rq, unsigned timeout_ms, struct err *e)
{
    uint64_t until = deadline(timeout_ms);
    Migrd__Reply *r;

    if (client_send(c, rq, e) < 0)
        return NULL;
    for (;;) {
        int got = client_next(c, left_ms(until), &r, e);

        if (got == 0)
            err_set(e, ERR_TIMEOUT, "migrd did not answer within %u s; it may still carry it out",
                (timeout_ms + 999) / 1000);
        if (got <= 0)
            return NULL;
        for (size_t i = 0; i < r->n_notes; i++)
            fprintf(stderr, "Note: %s\n", r->notes[i]);
        if (client_failure(r, e) == 0 && r->last)
            return r;
        if (r->failure != NULL) {
            migrd__reply__free_unpacked(r, NULL);
            return NULL;
        }
        migrd__reply__free_unpacked(r, NULL);
    }
}
