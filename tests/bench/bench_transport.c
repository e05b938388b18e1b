/* SPDX-License-Identifier: ISC */
/*
 * bench_transport [MIB [ROW]]: what the transport itself can move, without a hypervisor. A
 * process sends frames of 4 MiB out of memory in huge pages over loopback, another one
 * reads them into such memory, on 1, 2 and 4 channels, plain and with TLS. One line each:
 * GB/s, the CPU time of both processes per byte, and how often they sleep. Above it what this
 * machine can do at best: a copy, a cipher, a bare TCP stream. MIB, 2048 by default, is for each
 * line; ROW, say TLS, leaves out all others.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "transport/openssl.h"
#include "transport/pki.h"
#include "transport/transport.h"

#define FRAME (4u << 20)
#define HEADER 48u
#define MEMORY (256u << 20) /* of each channel's end: more than any cache */
#define LIMIT_BYTES (UINT64_C(1) << 30)
#define CHANNELS_MAX 4u
#define MIB 1048576.0

static uint64_t total = UINT64_C(2048) << 20;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_transport: %s: %s\n", what, why);
    exit(1);
}

/* Memory as guests have it: huge pages where they can be had, touched. */
static uint8_t *memory(size_t len)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE, flags | MAP_HUGETLB, -1, 0);

    if (p == MAP_FAILED) {
        p = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, -1, 0);
        if (p == MAP_FAILED)
            die("mmap", strerror(errno));
        madvise(p, len, MADV_HUGEPAGE);
    }
    for (size_t i = 0; i < len; i += 4096)
        memset(p + i, (int)(i >> 12) + 1, 64);
    return p;
}

/* What this process has spent. */
struct cost {
    double cpu_s;
    double waits; /* how often a thread of it went to sleep */
};

static struct cost cost_since(const struct cost *start)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (struct cost){
        (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
            ((double)u.ru_utime.tv_usec + (double)u.ru_stime.tv_usec) / 1e6 - start->cpu_s,
        (double)u.ru_nvcsw - start->waits,
    };
}

/* --- limits of the machine --- */

struct watch {
    uint64_t ns;
    struct cost cost;
};

static const struct cost none;

static struct watch watch_start(void)
{
    return (struct watch){ clock_ns(), cost_since(&none) };
}

static void show_limit(const char *what, uint64_t bytes, const struct watch *w)
{
    printf("%-36s %5.2f GB/s   %5.3f ns/B\n", what, (double)bytes / (double)(clock_ns() - w->ns),
        cost_since(&w->cost).cpu_s * 1e9 / (double)bytes);
    fflush(stdout);
}

static void limit_copy(void)
{
    uint8_t *a = memory(MEMORY / 2), *b = memory(MEMORY / 2);
    struct watch w = watch_start();

    for (uint64_t done = 0; done < 4 * LIMIT_BYTES; done += MEMORY / 2)
        memcpy(b, a, MEMORY / 2);
    show_limit("memcpy", 4 * LIMIT_BYTES, &w);
    munmap(a, MEMORY / 2);
    munmap(b, MEMORY / 2);
}

static void limit_cipher(const char *name, size_t len)
{
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, name, NULL);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t key[32] = { 1 }, iv[12] = { 2 }, *in = memory(MEMORY / 2), *out = memory(FRAME);
    struct watch w = watch_start();
    uint64_t done = 0;
    char what[64];
    int n;

    for (; done < LIMIT_BYTES; done += len) {
        EVP_EncryptInit_ex2(ctx, done == 0 ? cipher : NULL, done == 0 ? key : NULL, iv, NULL);
        EVP_EncryptUpdate(ctx, out, &n, in + done % (MEMORY / 2), (int)len);
        EVP_EncryptFinal_ex(ctx, out + len, &n);
    }
    snprintf(what, sizeof what, "%s, %zu KiB at a time", name, len >> 10);
    show_limit(what, done, &w);
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_free(cipher);
    munmap(in, MEMORY / 2);
    munmap(out, FRAME);
}

/* --- two processes --- */

struct way {
    const char *name;
    bool bare; /* send and recv, without the transport */
    bool tls;
    unsigned channels;
};

struct end { /* one channel's end, its thread's own */
    const struct way *way;
    struct tr_conn *conn;
    int fd;
    uint8_t *mem;
    uint64_t bytes;
};

static void send_frame(struct end *x, uint8_t *data, unsigned seq)
{
    char header[HEADER] = "";
    struct iovec v[2] = { { header, HEADER }, { data, FRAME } };
    struct err e;

    memcpy(header, &seq, sizeof seq);
    if (x->way->bare ? io_write_full(x->fd, data, FRAME, IO_FOREVER, &e) < 0
                     : tr_writev(x->conn, v, 2, &e) < 0)
        die("send", e.text);
}

static void read_frame(struct end *x, uint8_t *data, unsigned seq)
{
    unsigned header[HEADER / sizeof(unsigned)];
    struct iovec v = { data, FRAME };
    struct err e;

    if (x->way->bare) {
        if (io_read_full(x->fd, data, FRAME, IO_FOREVER, &e) < 0)
            die("read", e.text);
        return;
    }
    if (tr_read(x->conn, header, HEADER, &e) < 0 || tr_readv(x->conn, &v, 1, &e) < 0)
        die("read", e.text);
    if (header[0] != seq)
        die("read", "frames out of order");
}

static void *send_all(void *arg)
{
    struct end *x = arg;

    for (uint64_t done = 0; done < x->bytes; done += FRAME)
        send_frame(x, x->mem + done % MEMORY, (unsigned)(done / FRAME));
    return NULL;
}

static void *read_all(void *arg)
{
    struct end *x = arg;

    for (uint64_t done = 0; done < x->bytes; done += FRAME)
        read_frame(x, x->mem + done % MEMORY, (unsigned)(done / FRAME));
    return NULL;
}

static void on_threads(struct end *x, unsigned n, void *(*run)(void *))
{
    pthread_t t[CHANNELS_MAX];

    for (unsigned i = 0; i < n; i++)
        if (pthread_create(&t[i], NULL, run, &x[i]) != 0)
            die("thread", strerror(errno));
    for (unsigned i = 0; i < n; i++)
        pthread_join(t[i], NULL);
}

static void ends_init(struct end *x, const struct way *w)
{
    for (unsigned i = 0; i < w->channels; i++)
        x[i] = (struct end){ .way = w, .mem = memory(MEMORY), .bytes = total / w->channels };
}

/* Tells the other process one byte, or waits for one. */
static void tell(int fd)
{
    if (write(fd, "", 1) != 1)
        die("pipe", strerror(errno));
}

static void hear(int fd)
{
    char byte;

    if (read(fd, &byte, 1) != 1)
        die("pipe", "the other process ended");
}

static int accept_one(int lfd)
{
    int fd = accept4(lfd, NULL, NULL, SOCK_CLOEXEC);
    char line[TR_LINE_MAX];

    if (fd < 0)
        die("accept", strerror(errno));
    return io_write_full(fd, line, tr_greeting(line, "bench"), IO_FOREVER, NULL) < 0 ? -1 : fd;
}

static struct tr_conn *accept_conn(int fd, const struct tr_options *opt)
{
    struct tr_conn *c = NULL;
    char line[TR_LINE_MAX], byte = 0;
    struct err e;

    while (byte != '\n')
        if (read(fd, &byte, 1) != 1)
            die("accept", "no preamble");
    io_write_full(fd, line, tr_go_ahead(line), IO_FOREVER, NULL);
    if (tr_accept(fd, opt, &c, &e) < 0)
        die("accept", e.text);
    return c;
}

/* The reading process: accepts, says that it is ready, reads, tells its CPU seconds. */
static void reader(const struct way *w, const struct tr_tls *tls, int lfd, int in, int out)
{
    struct tr_options opt = { .tls = w->tls ? tls : NULL };
    struct end x[CHANNELS_MAX];
    struct cost cost;

    ends_init(x, w);
    for (unsigned i = 0; i < w->channels; i++) {
        x[i].fd = accept_one(lfd);
        if (!w->bare)
            x[i].conn = accept_conn(x[i].fd, &opt);
    }
    tell(out);
    hear(in);
    cost = cost_since(&none);
    on_threads(x, w->channels, read_all);
    cost = cost_since(&cost);
    if (write(out, &cost, sizeof cost) != sizeof cost)
        die("pipe", strerror(errno));
    hear(in);
    exit(0);
}

static int connect_bare(unsigned port)
{
    struct sockaddr_in sa = { .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char byte = 0;

    if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
        die("connect", strerror(errno));
    while (byte != '\n')
        if (read(fd, &byte, 1) != 1)
            die("connect", "no greeting");
    return fd;
}

static void writer(const struct way *w, const struct tr_tls *tls, unsigned port, int in, int out)
{
    struct tr_options opt = { .tls = w->tls ? tls : NULL };
    struct end x[CHANNELS_MAX];
    struct cost cost, peer;
    uint64_t start;
    double s;
    struct err e;

    ends_init(x, w);
    for (unsigned i = 0; i < w->channels; i++) {
        if (w->bare)
            x[i].fd = connect_bare(port);
        else if (tr_connect("127.0.0.1", port, "RELOCATE 1", &opt, &x[i].conn, &e) < 0)
            die("connect", e.text);
    }
    hear(in);
    start = clock_ns();
    cost = cost_since(&none);
    tell(out);
    on_threads(x, w->channels, send_all);
    cost = cost_since(&cost);
    if (read(in, &peer, sizeof peer) != sizeof peer)
        die("pipe", "the other process ended");
    s = (double)(clock_ns() - start) / 1e9;
    printf("%-9s %8u   %5.2f   %14.3f %9.3f   %14.1f %9.1f   %s\n", w->name, w->channels,
        (double)total / s / 1e9, cost.cpu_s * 1e9 / (double)total, peer.cpu_s * 1e9 / (double)total,
        cost.waits * MIB / (double)total, peer.waits * MIB / (double)total,
        w->bare ? "send, recv" : tr_cipher(x[0].conn));
    tell(out);
    for (unsigned i = 0; i < w->channels; i++) {
        munmap(x[i].mem, MEMORY);
        if (w->bare)
            close(x[i].fd);
        tr_close(&x[i].conn);
    }
}

static int listen_here(unsigned *port)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof sa;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(fd, CHANNELS_MAX) < 0 ||
        getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
        die("listen", strerror(errno));
    *port = ntohs(sa.sin_port);
    return fd;
}

static void measure(const struct way *w, const struct tr_tls *tls)
{
    int to[2], from[2], status;
    unsigned port;
    int lfd = listen_here(&port);
    pid_t pid;

    if (pipe(to) < 0 || pipe(from) < 0)
        die("pipe", strerror(errno));
    fflush(stdout);
    pid = fork();
    if (pid < 0)
        die("fork", strerror(errno));
    if (pid == 0)
        reader(w, tls, lfd, to[0], from[1]);
    close(from[1]);
    writer(w, tls, port, from[0], to[1]);
    waitpid(pid, &status, 0);
    close(lfd);
    close(to[0]);
    close(to[1]);
    close(from[0]);
}

/* --- a certificate for both ends --- */

static struct tr_tls *make_tls(void)
{
    const char *const alt[] = { "127.0.0.1", NULL };
    struct pki_request ca = { .name = "bench CA" }, host = { .name = "bench", .alt_names = alt };
    char dir[] = "/tmp/migrd-bench.XXXXXX", file[3][64], cmd[64];
    struct tr_tls_files f = { file[0], file[1], file[2] };
    struct tr_tls *t = NULL;
    struct err e;

    if (mkdtemp(dir) == NULL)
        die("/tmp", strerror(errno));
    snprintf(file[0], sizeof file[0], "%s/ca.crt", dir);
    snprintf(file[1], sizeof file[1], "%s/host.crt", dir);
    snprintf(file[2], sizeof file[2], "%s/host.key", dir);
    if (pki_init(dir, &ca, &e) < 0 || pki_issue(dir, dir, &host, &e) < 0 ||
        tr_tls_open(&f, &t, &e) < 0)
        die("certificate", e.text);
    snprintf(cmd, sizeof cmd, "rm -r %s", dir);
    if (system(cmd) != 0)
        die(dir, "cannot be removed");
    return t;
}

int main(int argc, char **argv)
{
    static const struct way ways[] = { { "bare TCP", true, false, 1 }, { "plain", false, false, 1 },
        { "plain", false, false, 2 }, { "plain", false, false, 4 }, { "TLS", false, true, 1 },
        { "TLS", false, true, 2 }, { "TLS", false, true, 4 } };
    const char *only = argc == 3 ? argv[2] : "";
    struct tr_tls *tls;

    if (argc > 3 || (argc > 1 && atoi(argv[1]) < 16))
        die("usage", "bench_transport [MIB [ROW]], 16 at least");
    if (argc > 1)
        total = (uint64_t)atoi(argv[1]) << 20;
    signal(SIGPIPE, SIG_IGN);
    tls = make_tls();
    if (*only == '\0') {
        limit_copy();
        limit_cipher("AES-128-GCM", 16384);
        limit_cipher("ChaCha20-Poly1305", 16384);
    }
    printf("\n%-9s %8s   %5s   %24s   %24s\n%35s %9s   %14s %9s\n", "", "channels", "GB/s",
        "CPU, ns per byte", "waits per MiB", "sending", "receiving", "sending", "receiving");
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++)
        if (strncmp(ways[i].name, only, strlen(only)) == 0)
            measure(&ways[i], tls);
    tr_tls_free(&tls);
    return 0;
}
