/* SPDX-License-Identifier: ISC */
/*
 * TLS records out of a peer's hands, by the whole way in: a connection whose keys are
 * known reads what the fuzzer wrote. The input is a list of items: one byte says what
 * comes, two give a length, then so many bytes.
 *
 *   'p' TYPE...  content, protected as it should be        'P' the same with padding
 *   'k'          the fuzzer's side changes its key         'r' bytes as they are
 *
 * Whatever arrives, reads must end, give no byte that was not sent as data, and after a
 * failure give none at all.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/internal.h"
#include "transport/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DATA_MAX (1u << 18)

static const uint8_t secret[32] = { 1, 2, 3 };

struct input {
    struct record_key key;
    uint8_t wire[DATA_MAX]; /* what is sent, until the socket would not take more */
    size_t wire_len;
    uint8_t sent[DATA_MAX]; /* contents of well-made data records */
    size_t sent_len;
};

static void add_protected(struct input *in, const uint8_t *p, size_t len, bool pad)
{
    uint8_t inner[RECORD_PLAIN + 1] = "";
    struct iovec v = { inner, sizeof inner };
    struct cursor cur = { &v, 1, 0 };
    size_t content = len > 0 ? len - 1 : 0, inner_len;

    if (content > RECORD_PLAIN - 300)
        content = RECORD_PLAIN - 300;
    memcpy(inner, p + (len > 0), content);
    inner[content] = len > 0 ? p[0] : 0;
    inner_len = content + (pad ? content % 256 : 0);
    if (in->wire_len + inner_len + RECORD_EXTRA > sizeof in->wire)
        return;
    in->wire_len +=
        record_seal(&in->key, inner[inner_len], &cur, inner_len, in->wire + in->wire_len);
    while (inner_len > 0 && inner[inner_len] == 0)
        inner_len--;
    if (inner[inner_len] == RECORD_DATA) {
        memcpy(in->sent + in->sent_len, inner, inner_len);
        in->sent_len += inner_len;
    }
}

static void build(struct input *in, const uint8_t *p, size_t size)
{
    struct err e;

    while (size >= 3) {
        uint8_t what = p[0];
        size_t len = (size_t)p[1] << 8 | p[2];

        p += 3;
        size -= 3;
        if (len > size)
            len = size;
        if (what == 'k')
            record_key_next(&in->key, &e);
        else if (what == 'p' || what == 'P')
            add_protected(in, p, len, what == 'P');
        else if (in->wire_len + len <= sizeof in->wire) {
            memcpy(in->wire + in->wire_len, p, len);
            in->wire_len += len;
        }
        p += len;
        size -= len;
    }
}

/* Reads in vectors whose sizes the data choose; what arrives must be what was sent, in order. */
static void read_all(struct tr_conn *c, const struct input *in)
{
    uint8_t buf[40000];
    size_t got = 0;
    struct err e;

    for (unsigned i = 0;; i++) {
        size_t a = i % 3 == 0 ? 1 + i : in->wire[i % 64] * 130u, b = i % 5;
        struct iovec v[3] = { { buf, a }, { NULL, 0 }, { buf + a, b } };
        struct cursor cur = { v, 3, 0 };
        ssize_t n = a + b > 0 ? stream_read(c, &cur, a + b, &e) : 1;

        if (n > (ssize_t)(a + b))
            abort();
        if (a + b == 0)
            continue;
        if (n < 0 && stream_read(c, &cur, 1, &e) >= 0)
            abort();
        if (n <= 0)
            break;
        if ((size_t)n > in->sent_len - got || memcmp(buf, in->sent + got, (size_t)n) != 0)
            abort();
        got += (size_t)n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct input in;
    static SSL_CTX *ctx;
    struct tr_conn c = { .server = size % 2 == 0, .who = "fuzz", .dead_ns = 1 };
    struct err e;
    int fd[2], room = 4 * DATA_MAX;

    if (ctx == NULL)
        ctx = SSL_CTX_new(TLS_method());
    c.ssl = SSL_new(ctx);
    if (c.ssl == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) < 0 ||
        record_key_init(&in.key, 0x1301, secret, sizeof secret, true, &e) < 0)
        abort();
    setsockopt(fd[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    in.wire_len = in.sent_len = 0;
    memset(in.wire, 0, 64);
    build(&in, data, size);
    c.fd = fd[0];
    pthread_mutex_init(&c.write_lock, NULL);
    pthread_mutex_init(&c.read_lock, NULL);
    memcpy(c.secret[0].bytes, secret, sizeof secret);
    memcpy(c.secret[1].bytes, secret, sizeof secret);
    c.secret[0].len = c.secret[1].len = sizeof secret;
    if (stream_start(&c, 0x1301, &e) < 0)
        abort();
    if (write(fd[1], in.wire, in.wire_len) >= 0) {
        shutdown(fd[1], SHUT_WR);
        read_all(&c, &in);
    }
    stream_goodbye(&c, true);
    stream_free(&c);
    SSL_free(c.ssl);
    record_key_wipe(&in.key);
    close(fd[0]);
    close(fd[1]);
    return 0;
}
