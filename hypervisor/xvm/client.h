/* SPDX-License-Identifier: ISC */
/*
 * client: one connection to an xvm-domain's control socket (xvm.proto): connect, call,
 * close. Used by the driver only. A connection is for one thread at a time.
 */
#ifndef XVM_CLIENT_H
#define XVM_CLIENT_H

#include "base/msgconn.h"
#include "hypervisor/xvm/xvm.pb-c.h"

#define XVM_MESSAGE_MAX (1u << 20)
#define XVM_MAX_CLIENTS 16

struct xvm_client {
    struct msgconn *conn;
    uint64_t serial;
};

/* dir is the domain's run folder. ERR_NOT_FOUND: nobody listens there. */
int xvm_connect(struct xvm_client *c, const char *dir, struct err *e);
void xvm_disconnect(struct xvm_client *c);

/*
 * Sends *q (its serial is filled in, fd_in or -1 rides on it) and waits for the reply.
 * *reply, if wanted, is to be freed with migrd__xvm__reply__free_unpacked. *fd_out, if
 * wanted, is the descriptor that came or -1. A refusal of the domain comes as its error.
 */
int xvm_call(struct xvm_client *c, Migrd__Xvm__Request *q, int fd_in, Migrd__Xvm__Reply **reply,
    int *fd_out, unsigned timeout_ms, struct err *e);

#endif
