/* SPDX-License-Identifier: ISC */
/*
 * Output is a list of packed messages; the descriptor of a message rides on the
 * sendmsg that carries its first byte, so the receiver has it before or with the
 * message. The kernel never merges two sendmsg calls that carry descriptors into
 * one recvmsg, and the order of descriptors is the order of messages; a flag in
 * the length word's top bit says that a message owns the next descriptor.
 */
#define _GNU_SOURCE
#include "base/msgconn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"

#define LEN_HAS_FD 0x80000000u
#define HEAD_LEN 4u
#define READ_CHUNK 65536u

struct out_msg {
    struct out_msg *next;
    size_t len, done;
    int fd;
    uint8_t data[];
};

struct msgconn {
    int fd;
    const ProtobufCMessageDescriptor *in;
    uint32_t max_len;
    struct out_msg *out_head, **out_tail;
    size_t out_bytes;
    uint8_t *buf;
    size_t buf_len, buf_cap;
    int fds[MSGCONN_MAX_FDS];
    unsigned n_fds;
};

struct msgconn *msgconn_new(int fd, const ProtobufCMessageDescriptor *in, uint32_t max_len)
{
    struct msgconn *c = calloc(1, sizeof *c);

    if (c == NULL || io_set_nonblock(fd, true, NULL) < 0) {
        free(c);
        close(fd);
        return NULL;
    }
    c->fd = fd;
    c->in = in;
    c->max_len = max_len > MSGCONN_MAX_LEN ? MSGCONN_MAX_LEN : max_len;
    c->out_tail = &c->out_head;
    return c;
}

static void pop_out(struct msgconn *c)
{
    struct out_msg *m = c->out_head;

    c->out_head = m->next;
    if (c->out_head == NULL)
        c->out_tail = &c->out_head;
    c->out_bytes -= m->len;
    io_close(&m->fd);
    free(m);
}

void msgconn_free(struct msgconn **cp)
{
    struct msgconn *c = *cp;

    if (c == NULL)
        return;
    *cp = NULL;
    while (c->out_head != NULL)
        pop_out(c);
    for (unsigned i = 0; i < c->n_fds; i++)
        close(c->fds[i]);
    close(c->fd);
    free(c->buf);
    free(c);
}

int msgconn_fd(const struct msgconn *c)
{
    return c->fd;
}

static void put_le32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)(v >> 16);
    p[3] = (uint8_t)(v >> 24);
}

static uint32_t get_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

int msgconn_queue(struct msgconn *c, const ProtobufCMessage *m, int fd, struct err *e)
{
    size_t len = protobuf_c_message_get_packed_size(m);
    struct out_msg *o;

    if (len > MSGCONN_MAX_LEN)
        return err_set(e, ERR_INTERNAL, "message of %zu bytes is too long to send", len);
    if (c->out_bytes + len > MSGCONN_MAX_QUEUE)
        return err_set(e, ERR_RESOURCE, "the reader is too slow: %zu bytes wait", c->out_bytes);
    o = malloc(sizeof *o + HEAD_LEN + len);
    if (o == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for a message of %zu bytes", len);
    o->next = NULL;
    o->len = HEAD_LEN + len;
    o->done = 0;
    o->fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (fd >= 0 && o->fd < 0) {
        free(o);
        return err_sys(e, "dup of a descriptor to pass");
    }
    put_le32(o->data, (uint32_t)len | (fd >= 0 ? LEN_HAS_FD : 0));
    protobuf_c_message_pack(m, o->data + HEAD_LEN);
    *c->out_tail = o;
    c->out_tail = &o->next;
    c->out_bytes += o->len;
    return 0;
}

static ssize_t send_part(int sock, struct out_msg *o)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } ctl;
    struct iovec iov = { o->data + o->done, o->len - o->done };
    struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (o->fd >= 0 && o->done == 0) {
        struct cmsghdr *cm;

        memset(&ctl, 0, sizeof ctl);
        mh.msg_control = ctl.space;
        mh.msg_controllen = sizeof ctl.space;
        cm = CMSG_FIRSTHDR(&mh);
        cm->cmsg_level = SOL_SOCKET;
        cm->cmsg_type = SCM_RIGHTS;
        cm->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cm), &o->fd, sizeof(int));
    }
    return sendmsg(sock, &mh, MSG_NOSIGNAL);
}

int msgconn_flush(struct msgconn *c, struct err *e)
{
    while (c->out_head != NULL) {
        ssize_t n = send_part(c->fd, c->out_head);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return 1;
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
            return err_set(e, ERR_PEER, "the other side closed the connection");
        if (n < 0)
            return err_sys(e, "sendmsg");
        c->out_head->done += (size_t)n;
        if (c->out_head->done == c->out_head->len)
            pop_out(c);
    }
    return 0;
}

static int take_fds(struct msgconn *c, struct msghdr *mh, struct err *e)
{
    int r = 0;

    for (struct cmsghdr *cm = CMSG_FIRSTHDR(mh); cm != NULL; cm = CMSG_NXTHDR(mh, cm)) {
        size_t n;

        if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
            continue;
        n = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(cm) + i * sizeof fd, sizeof fd);
            if (c->n_fds < MSGCONN_MAX_FDS) {
                c->fds[c->n_fds++] = fd;
            } else {
                close(fd);
                r = err_set(e, ERR_PROTOCOL, "the other side passed too many descriptors");
            }
        }
    }
    return r;
}

static int make_room(struct msgconn *c, struct err *e)
{
    size_t cap = c->buf_len + READ_CHUNK;
    uint8_t *p;

    if (cap <= c->buf_cap)
        return 0;
    cap = cap * 2;
    p = realloc(c->buf, cap);
    if (p == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for a message");
    c->buf = p;
    c->buf_cap = cap;
    return 0;
}

int msgconn_fill(struct msgconn *c, struct err *e)
{
    /* A bounded buffer: one maximal message and a chunk; the rest waits in the socket. */
    while (c->buf_len < (size_t)c->max_len + READ_CHUNK) {
        char ctl[CMSG_SPACE(sizeof(int) * 8)];
        struct iovec iov;
        struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl };
        ssize_t n;

        if (make_room(c, e) < 0)
            return -1;
        iov.iov_base = c->buf + c->buf_len;
        iov.iov_len = READ_CHUNK;
        mh.msg_controllen = sizeof ctl;
        n = recvmsg(c->fd, &mh, MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return 0;
        if (n == 0 || (n < 0 && errno == ECONNRESET))
            return err_set(e, ERR_PEER, "the other side closed the connection");
        if (n < 0)
            return err_sys(e, "recvmsg");
        c->buf_len += (size_t)n;
        if (take_fds(c, &mh, e) < 0)
            return -1;
    }
    return 0;
}

static int shift_fd(struct msgconn *c, struct err *e)
{
    int fd;

    if (c->n_fds == 0)
        return err_set(e, ERR_PROTOCOL, "a message announces a descriptor that did not come");
    fd = c->fds[0];
    c->n_fds--;
    memmove(c->fds, c->fds + 1, c->n_fds * sizeof c->fds[0]);
    return fd;
}

int msgconn_next(struct msgconn *c, ProtobufCMessage **m, int *fd, struct err *e)
{
    uint32_t word, len;
    int got = -1;

    if (c->buf_len < HEAD_LEN)
        return 0;
    word = get_le32(c->buf);
    len = word & ~LEN_HAS_FD;
    if (len > c->max_len)
        return err_set(
            e, ERR_PROTOCOL, "message of %u bytes, at most %u are allowed", len, c->max_len);
    if (c->buf_len < HEAD_LEN + (size_t)len)
        return 0;
    if ((word & LEN_HAS_FD) != 0 && (got = shift_fd(c, e)) < 0)
        return -1;
    *m = protobuf_c_message_unpack(c->in, NULL, len, c->buf + HEAD_LEN);
    c->buf_len -= HEAD_LEN + len;
    memmove(c->buf, c->buf + HEAD_LEN + len, c->buf_len);
    if (*m == NULL || fd == NULL)
        io_close(&got);
    if (*m == NULL)
        return err_set(e, ERR_PROTOCOL, "malformed message of %u bytes", len);
    if (fd != NULL)
        *fd = got;
    return 1;
}

int msgconn_send(
    struct msgconn *c, const ProtobufCMessage *m, int fd, uint64_t deadline_ns, struct err *e)
{
    int r;

    if (msgconn_queue(c, m, fd, e) < 0)
        return -1;
    while ((r = msgconn_flush(c, e)) == 1)
        if (io_wait(c->fd, POLLOUT, deadline_ns, e) < 0)
            return -1;
    return r;
}

int msgconn_recv(
    struct msgconn *c, ProtobufCMessage **m, int *fd, uint64_t deadline_ns, struct err *e)
{
    bool ended = false;

    for (;;) {
        int r = msgconn_next(c, m, fd, e);

        if (r != 0)
            return r < 0 ? -1 : 0;
        if (ended)
            return -1;
        if (io_wait(c->fd, POLLIN, deadline_ns, e) < 0)
            return -1;
        ended = msgconn_fill(c, e) < 0;
    }
}
