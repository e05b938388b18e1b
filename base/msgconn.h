/* SPDX-License-Identifier: ISC */
/*
 * msgconn: protobuf messages over a local stream socket, with descriptors.
 *
 * Used by the control socket, the workers' control pairs and the sockets of
 * xvm-domain (the relocation wire has a module of its own, transport/). One
 * message is a little-endian u32 length and that many bytes of one protobuf-c
 * message; a descriptor may ride on it by SCM_RIGHTS. The socket is made
 * non-blocking; an event loop uses queue/flush/fill/next, a simple client the
 * blocking pair send/recv. Not thread-safe. Receivers close descriptors they get.
 */
#ifndef BASE_MSGCONN_H
#define BASE_MSGCONN_H

#include <protobuf-c/protobuf-c.h>
#include <stdint.h>

#include "base/err.h"

#define MSGCONN_MAX_LEN (16u << 20)   /* the largest message anybody may choose */
#define MSGCONN_MAX_QUEUE (32u << 20) /* bytes unsent before a slow reader is an error */
#define MSGCONN_MAX_FDS 32            /* received descriptors nobody has taken yet */

struct msgconn;

/* Takes over `fd`. Messages that come in are of type `in`, at most `max_len` bytes. NULL: no
 * memory; fd is closed. */
struct msgconn *msgconn_new(int fd, const ProtobufCMessageDescriptor *in, uint32_t max_len);

/* Closes the socket and all descriptors not yet taken, frees, and sets *c to NULL. */
void msgconn_free(struct msgconn **c);

int msgconn_fd(const struct msgconn *c);

/* Appends a message to the output queue. `fd` is -1 or a descriptor to pass; it is duplicated, the
 * caller keeps its own. */
int msgconn_queue(struct msgconn *c, const ProtobufCMessage *m, int fd, struct err *e);

/* Writes what the socket takes: 0 all gone, 1 more to write (poll for POLLOUT), -1 broken. */
int msgconn_flush(struct msgconn *c, struct err *e);

/* Reads what is there: 0 fine, -1 end of file (ERR_PEER) or broken. Messages complete before the
 * end are still handed out by msgconn_next. */
int msgconn_fill(struct msgconn *c, struct err *e);

/*
 * The next whole message: 1 and *m (free with protobuf_c_message_free_unpacked), 0 none yet,
 * -1 malformed or too long: close the connection. *fd is the descriptor that came with it or -1;
 * NULL if none is expected (one that comes is closed).
 */
int msgconn_next(struct msgconn *c, ProtobufCMessage **m, int *fd, struct err *e);

/* Blocking: queue and flush, until `deadline_ns` (clock_ns, or IO_FOREVER). */
int msgconn_send(
    struct msgconn *c, const ProtobufCMessage *m, int fd, uint64_t deadline_ns, struct err *e);

/* Blocking: the next message, or -1. */
int msgconn_recv(
    struct msgconn *c, ProtobufCMessage **m, int *fd, uint64_t deadline_ns, struct err *e);

#endif
