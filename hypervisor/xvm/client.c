/* SPDX-License-Identifier: ISC */
#include "hypervisor/xvm/client.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "hypervisor/rundir.h"

int xvm_connect(struct xvm_client *c, const char *dir, struct err *e)
{
    char path[RUNDIR_LEN];
    int fd;

    *c = (struct xvm_client){ NULL, 0 };
    snprintf(path, sizeof path, "%s/control", dir);
    fd = io_unix_connect(path, e);
    if (fd < 0) {
        if (errno == ENOENT || errno == ECONNREFUSED)
            err_set(e, ERR_NOT_FOUND, "%s: no such domain is running", dir);
        return -1;
    }
    c->conn = msgconn_new(fd, &migrd__xvm__reply__descriptor, XVM_MESSAGE_MAX);
    return c->conn == NULL ? err_set(e, ERR_MEMORY, "out of memory for a connection") : 0;
}

void xvm_disconnect(struct xvm_client *c)
{
    msgconn_free(&c->conn);
}

/* The next reply to `serial`; events that come in between are not for a caller. */
static int wait_reply(struct xvm_client *c, uint64_t serial, Migrd__Xvm__Reply **reply, int *fd,
    uint64_t deadline, struct err *e)
{
    for (;;) {
        ProtobufCMessage *m = NULL;

        *fd = -1;
        if (msgconn_recv(c->conn, &m, fd, deadline, e) < 0)
            return -1;
        *reply = (Migrd__Xvm__Reply *)m;
        if ((*reply)->serial == serial)
            return 0;
        migrd__xvm__reply__free_unpacked(*reply, NULL);
        *reply = NULL;
        io_close(fd);
    }
}

int xvm_call(struct xvm_client *c, Migrd__Xvm__Request *q, int fd_in, Migrd__Xvm__Reply **reply,
    int *fd_out, unsigned timeout_ms, struct err *e)
{
    uint64_t deadline = clock_ns() + timeout_ms * NS_PER_MS;
    Migrd__Xvm__Reply *r = NULL;
    int fd = -1;

    if (reply != NULL)
        *reply = NULL;
    if (fd_out != NULL)
        *fd_out = -1;
    if (c->conn == NULL)
        return err_set(e, ERR_PEER, "the connection to the domain's process is closed");
    q->serial = ++c->serial;
    if (msgconn_send(c->conn, &q->base, fd_in, deadline, e) < 0 ||
        wait_reply(c, q->serial, &r, &fd, deadline, e) < 0)
        return err_prefix(e, "xvm-domain");
    if (r->code != 0) {
        err_set(e, r->code < ERR_CODE_MAX ? (enum err_code)r->code : ERR_INTERNAL, "%s", r->error);
        migrd__xvm__reply__free_unpacked(r, NULL);
        io_close(&fd);
        return -1;
    }
    if (fd_out != NULL)
        *fd_out = fd;
    else
        io_close(&fd);
    if (reply != NULL)
        *reply = r;
    else
        migrd__xvm__reply__free_unpacked(r, NULL);
    return 0;
}
