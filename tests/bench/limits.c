/* SPDX-License-Identifier: ISC */
/*
 * What this machine can do at best, in GB/s, as one JSON object: copying memory, TCP over
 * loopback with one and two streams, AES-128-GCM over a TLS record's 16 KiB, and first
 * touches of shared memory by page size. Each figure is the best of ROUNDS. Nothing of
 * the project is used, so that the figures say nothing about it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <linux/memfd.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 3, MIB = 1 << 20, RECORD = 16384 };

static const size_t copy_len = 256u * MIB;
static const size_t touch_len = 256u * MIB;
static const uint64_t stream_len = 2048ull * MIB;

static double now_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void *memory_or_die(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        err(1, "%zu bytes of memory", len);
    memset(p, 0x5a, len);
    return p;
}

static double copy_seconds(void)
{
    static char *from, *to;
    double began;

    if (from == NULL) {
        from = memory_or_die(copy_len);
        to = memory_or_die(copy_len);
    }
    began = now_s();
    memcpy(to, from, copy_len);
    return now_s() - began;
}

/* Seconds to touch each page of a new memfd; 0 if there are no such pages. */
static double touch_seconds(unsigned flags, size_t page)
{
    int fd = memfd_create("limits", MFD_CLOEXEC | flags);
    volatile char *p;
    double began, took;

    if (fd < 0 || ftruncate(fd, (off_t)touch_len) < 0)
        return 0;
    p = mmap(NULL, touch_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED)
        return 0;
    began = now_s();
    for (size_t at = 0; at < touch_len; at += page)
        p[at] = 1;
    took = now_s() - began;
    munmap((void *)p, touch_len);
    return took;
}

static double touch_4k_seconds(void)
{
    return touch_seconds(0, 4096);
}

static double touch_2m_seconds(void)
{
    return touch_seconds(MFD_HUGETLB | MFD_HUGE_2MB, 2 * MIB);
}

static double cipher_seconds(void)
{
    static unsigned char key[16], iv[12], in[RECORD], out[RECORD];
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    double began = now_s();
    int n;

    for (size_t done = 0; done < copy_len; done += RECORD)
        if (EVP_EncryptInit_ex(c, EVP_aes_128_gcm(), NULL, key, iv) != 1 ||
            EVP_EncryptUpdate(c, out, &n, in, RECORD) != 1)
            errx(1, "AES-128-GCM does not work");
    EVP_CIPHER_CTX_free(c);
    return now_s() - began;
}

/* A TCP connection to ourselves. */
static void connect_pair(int pair[2])
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof a;
    int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (l < 0 || bind(l, (struct sockaddr *)&a, sizeof a) < 0 || listen(l, 1) < 0 ||
        getsockname(l, (struct sockaddr *)&a, &len) < 0)
        err(1, "TCP on loopback");
    pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (pair[0] < 0 || connect(pair[0], (struct sockaddr *)&a, len) < 0 ||
        (pair[1] = accept(l, NULL, NULL)) < 0)
        err(1, "TCP on loopback");
    close(l);
}

static void *send_stream(void *arg)
{
    int fd = *(int *)arg;
    char *buf = memory_or_die(MIB);

    for (uint64_t done = 0; done < stream_len; done += MIB)
        if (send(fd, buf, MIB, 0) != MIB)
            err(1, "send");
    shutdown(fd, SHUT_WR);
    munmap(buf, MIB);
    return NULL;
}

static void *receive_stream(void *arg)
{
    int fd = *(int *)arg;
    char *buf = memory_or_die(MIB);

    while (recv(fd, buf, MIB, 0) > 0)
        ;
    munmap(buf, MIB);
    return NULL;
}

static double tcp_seconds(int streams)
{
    int pair[2][2];
    pthread_t thread[4];
    double began;

    for (int i = 0; i < streams; i++)
        connect_pair(pair[i]);
    began = now_s();
    for (int i = 0; i < streams; i++)
        if (pthread_create(&thread[2 * i], NULL, send_stream, &pair[i][0]) != 0 ||
            pthread_create(&thread[2 * i + 1], NULL, receive_stream, &pair[i][1]) != 0)
            errx(1, "no threads");
    for (int i = 0; i < 2 * streams; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < streams; i++) {
        close(pair[i][0]);
        close(pair[i][1]);
    }
    return now_s() - began;
}

static double tcp_1_seconds(void)
{
    return tcp_seconds(1);
}

static double tcp_2_seconds(void)
{
    return tcp_seconds(2);
}

static void measure(const char *name, double (*seconds)(void), double bytes, const char *after)
{
    double best = 0;

    for (int i = 0; i < ROUNDS; i++) {
        double s = seconds();

        if (s > 0 && (best <= 0 || s < best))
            best = s;
    }
    printf("  \"%s\": %.2f%s\n", name, best > 0 ? bytes / best / 1e9 : 0.0, after);
}

int main(void)
{
    puts("{");
    measure("memcpy", copy_seconds, (double)copy_len, ",");
    measure("tcp_1", tcp_1_seconds, (double)stream_len, ",");
    measure("tcp_2", tcp_2_seconds, 2 * (double)stream_len, ",");
    measure("aes_128_gcm", cipher_seconds, (double)copy_len, ",");
    measure("touch_4k", touch_4k_seconds, (double)touch_len, ",");
    measure("touch_2m", touch_2m_seconds, (double)touch_len, "");
    puts("}");
    return 0;
}
