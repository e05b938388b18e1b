/* SPDX-License-Identifier: ISC */
/*
 * The local sockets' messages: what a user of the control socket, a worker or an xvm-domain sends.
 * The first byte chooses the type of message, the rest is the stream, given in pieces. Messages
 * are shown as JSON, as the tools and the status socket do, and sent on.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/msgconn.h"
#include "base/pbjson.h"
#include "hypervisor/xvm/xvm.pb-c.h"
#include "migrd/control.pb-c.h"
#include "precopy/worker.pb-c.h"

#define STREAM_MAX 65536u
#define MESSAGE_MAX 16384u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const ProtobufCMessageDescriptor *const types[] = { &migrd__request__descriptor,
    &migrd__reply__descriptor, &migrd__to_worker__descriptor, &migrd__from_worker__descriptor,
    &migrd__xvm__request__descriptor, &migrd__xvm__reply__descriptor };

static void check_message(ProtobufCMessage *m)
{
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *packed = malloc(n + 1);
    json_t *j = pbjson(m), *back;
    char *text = json_dumps(j, 0);

    if (protobuf_c_message_pack(m, packed) != n)
        abort();
    if (text == NULL)
        abort();
    back = json_loads(text, JSON_ALLOW_NUL, NULL);
    if (back == NULL)
        abort();
    json_decref(back);
    json_decref(j);
    free(text);
    free(packed);
    protobuf_c_message_free_unpacked(m, NULL);
}

static int take_all(struct msgconn *c)
{
    ProtobufCMessage *m;
    struct err e;
    int fd, r;

    while ((r = msgconn_next(c, &m, &fd, &e)) == 1) {
        io_close(&fd);
        check_message(m);
    }
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct msgconn *c;
    struct err e;
    int pair[2];

    if (len < 2 || len > STREAM_MAX || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        return 0;
    c = msgconn_new(pair[0], types[data[0] % (sizeof types / sizeof types[0])], MESSAGE_MAX);
    if (c == NULL)
        abort();
    for (size_t at = 1, step = 1 + data[1] % 64; at < len; at += step, step = step * 2 + 1) {
        if (step > len - at)
            step = len - at;
        if (write(pair[1], data + at, step) != (ssize_t)step)
            abort();
        if (msgconn_fill(c, &e) < 0 || take_all(c) < 0)
            break;
    }
    close(pair[1]);
    if (msgconn_fill(c, &e) < 0)
        take_all(c);
    msgconn_free(&c);
    return 0;
}
