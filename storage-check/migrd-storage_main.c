/* SPDX-License-Identifier: ISC */
/*
 * migrd-storage: looks at disks, in a process that can be killed when a server hangs. migrd
 * and its workers ask it by --serve (a StorageRequest on stdin, a StorageReply on stdout);
 * people by `identify`. See docs/migrd-storage.8.
 */
#define _GNU_SOURCE
#include <cap-ng.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "storage-check/identity.h"

#define REQUEST_MAX (1u << 20)
#define FILES_MAX 256u
#define CPU_S 120u
#define FILE_BYTES (1u << 20) /* it writes nothing but small files beside disks */
#define TIMEOUT_MAX_S 600ul

enum { EXIT_FINE, EXIT_PROBLEM, EXIT_WRONG_USAGE };

static void usage(FILE *to)
{
    fprintf(to, "usage: migrd-storage [options] identify SOURCE...\n"
                "       migrd-storage --serve\n"
                "Says what a disk is: a file, a block device, nfs://... or iscsi://...\n\n"
                "  --json             as JSON\n"
                "  --read-only        as a disk that the guest only reads\n"
                "  --secrets FILE     CHAP passwords (default /etc/migrd/storage-secrets)\n"
                "  --initiator NAME   iSCSI name of this host\n"
                "  --uid-base N       try whether user ids from N on fence an NFS disk\n"
                "  --timeout SECONDS  for each disk (default 10)\n"
                "  --wwn WWN          the block device must have that name\n"
                "  --serve            one request of migrd's on stdin, not for people\n\n"
                "Exit status 0: all disks can be used, 1: some cannot, 2: wrong usage.\n");
}

/* --- its own limits --- */

static void limit(int what, rlim_t value)
{
    struct rlimit r = { value, value };

    if (setrlimit(what, &r) < 0)
        log_warn("storage", "a resource limit cannot be set");
}

/* Root's rights on files, and ports that servers trust; nothing else, and no more later. */
static void confine(void)
{
    limit(RLIMIT_NOFILE, FILES_MAX);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_CPU, CPU_S);
    limit(RLIMIT_FSIZE, FILE_BYTES);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    signal(SIGPIPE, SIG_IGN);
    if (geteuid() != 0)
        return;
    capng_clear(CAPNG_SELECT_BOTH);
    capng_updatev(CAPNG_ADD, (capng_type_t)(CAPNG_EFFECTIVE | CAPNG_PERMITTED), CAP_DAC_OVERRIDE,
        CAP_DAC_READ_SEARCH, CAP_NET_BIND_SERVICE, -1);
    if (capng_apply(CAPNG_SELECT_BOTH) != 0)
        log_warn("storage", "capabilities cannot be dropped");
}

/* --- for migrd --- */

static uint8_t *read_request(size_t *len)
{
    uint8_t *buf = malloc(REQUEST_MAX + 1);
    ssize_t n = 1;

    *len = 0;
    while (buf != NULL && n > 0 && *len <= REQUEST_MAX) {
        n = read(STDIN_FILENO, buf + *len, REQUEST_MAX + 1 - *len);
        *len += n > 0 ? (size_t)n : 0;
    }
    return buf;
}

static int write_reply(const Migrd__StorageReply *r)
{
    size_t n = migrd__storage_reply__get_packed_size(r);
    uint8_t *buf = malloc(n + 1);
    struct err e;
    int rc = EXIT_PROBLEM;

    if (buf != NULL) {
        migrd__storage_reply__pack(r, buf);
        rc = io_write_full(STDOUT_FILENO, buf, n, IO_FOREVER, &e) < 0 ? EXIT_PROBLEM : EXIT_FINE;
        free(buf);
    }
    return rc;
}

static int serve(void)
{
    Migrd__StorageReply *r = malloc(sizeof *r);
    Migrd__StorageRequest *rq;
    size_t len;
    uint8_t *buf = read_request(&len);
    int rc;

    rq = buf != NULL && len <= REQUEST_MAX ? migrd__storage_request__unpack(NULL, len, buf) : NULL;
    free(buf);
    if (rq == NULL || r == NULL) {
        log_error("storage", "no request on stdin that makes sense; --serve is for migrd");
        free(r);
        return EXIT_PROBLEM;
    }
    migrd__storage_reply__init(r);
    storage_serve(rq, r);
    rc = write_reply(r);
    migrd__storage_reply__free_unpacked(r, NULL);
    migrd__storage_request__free_unpacked(rq, NULL);
    return rc;
}

/* --- for people --- */

struct options {
    bool json, serve;
    Migrd__StorageRequest rq;
    Migrd__Disk disk; /* what all have in common */
};

static int identify(struct options *o, size_t n, char **sources)
{
    Migrd__StorageReply *r = malloc(sizeof *r);
    int rc = EXIT_PROBLEM;

    o->rq.disks = storage_disks(&o->disk, sources, n);
    if (r != NULL && o->rq.disks != NULL) {
        o->rq.n_disks = n;
        migrd__storage_reply__init(r);
        storage_serve(&o->rq, r);
        rc = storage_show(r, o->json, stdout) ? EXIT_FINE : EXIT_PROBLEM;
        migrd__storage_reply__free_unpacked(r, NULL);
        r = NULL;
    }
    free(r);
    free(o->rq.disks);
    return rc;
}

static bool number(const char *text, unsigned long most, uint32_t unit, uint32_t *out)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);

    if (*end != '\0' || end == text || v > most) {
        fprintf(stderr, "migrd-storage: %s: not a number up to %lu\n", text, most);
        return false;
    }
    *out = (uint32_t)v * unit;
    return true;
}

/* -1: go on; else an exit status. */
static int parse(int argc, char **argv, struct options *o)
{
    static const struct option options[] = { { "serve", no_argument, NULL, 's' },
        { "json", no_argument, NULL, 'j' }, { "secrets", required_argument, NULL, 'p' },
        { "initiator", required_argument, NULL, 'i' }, { "timeout", required_argument, NULL, 't' },
        { "uid-base", required_argument, NULL, 'u' }, { "wwn", required_argument, NULL, 'w' },
        { "read-only", no_argument, NULL, 'r' }, { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' }, { NULL, 0, NULL, 0 } };
    int c;

    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (c) {
        case 's':
            o->serve = true;
            break;
        case 'j':
            o->json = true;
            break;
        case 'p':
            o->rq.secrets = optarg;
            break;
        case 'i':
            o->rq.initiator = optarg;
            break;
        case 't':
            if (!number(optarg, TIMEOUT_MAX_S, 1000, &o->rq.timeout_ms))
                return EXIT_WRONG_USAGE;
            break;
        case 'u':
            if (!number(optarg, UINT32_MAX / 2, 1, &o->rq.nfs_uid_base))
                return EXIT_WRONG_USAGE;
            break;
        case 'w':
            o->disk.wwn = optarg;
            break;
        case 'r':
            o->disk.read_only = true;
            break;
        case 'h':
            usage(stdout);
            return EXIT_FINE;
        case 'V':
            printf("migrd-storage of migrd %s\n", MIGRD_VERSION);
            return EXIT_FINE;
        default:
            usage(stderr);
            return EXIT_WRONG_USAGE;
        }
    }
    return -1;
}

int main(int argc, char **argv)
{
    struct options o = { .rq = MIGRD__STORAGE_REQUEST__INIT, .disk = MIGRD__DISK__INIT };
    char host[256] = "";
    int rc;

    o.rq.secrets = (char *)(uintptr_t) "/etc/migrd/storage-secrets";
    gethostname(host, sizeof host - 1);
    o.rq.host = host;
    if (log_open("migrd-storage", NULL, NULL) < 0)
        return EXIT_PROBLEM;
    rc = parse(argc, argv, &o);
    if (rc >= 0)
        return rc;
    if (!o.serve && (argc - optind < 2 || strcmp(argv[optind], "identify") != 0)) {
        usage(stderr);
        return EXIT_WRONG_USAGE;
    }
    confine();
    return o.serve ? serve() : identify(&o, (size_t)(argc - optind - 1), argv + optind + 1);
}
