/* SPDX-License-Identifier: ISC */
/*
 * migrd: the command line. `migrd -n` checks the configuration and says what it means:
 * every key with its value, and how the timers relate to each other.
 */
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "migrd/daemon.h"
#include "migrd/registry.h"
#include "migrd/worker.h"
#include "relocation-acl/relocation-acl.h"
#include "storage-check/allow.h"
#include "transport/tls_server.h"
#include "transport/transport.h"

enum { OPT_ROOT = 256, OPT_CONFIG, OPT_LEVEL, OPT_VERSION };

static void usage(FILE *to)
{
    fputs("usage: migrd [--root DIR] [--config FILE] [--log-level LEVEL] [-f]\n"
          "       migrd -n [--root DIR] [--config FILE]\n"
          "\n"
          "  --root DIR          everything below DIR: several hosts on one machine\n"
          "  --config FILE       instead of DIR/etc/migrd/migrd.conf\n"
          "  --log-level LEVEL   error, warn, info or debug, instead of the configuration's\n"
          "  -f, --foreground    do not detach (the default; migrd never does)\n"
          "  -n, --check         check the configuration, show what it means, and end\n"
          "  --version, --help\n",
        to);
}

static void print_warning(void *arg, const char *text)
{
    unsigned *n = arg;

    ++*n;
    printf("warning: %s\n", text);
}

static void print_keys(const struct config *c)
{
    const char *key, *help;
    char value[CONFIG_VALUE_MAX];

    for (size_t i = 0; (key = config_key(i, &help)) != NULL; i++)
        if (config_get(c, key, value, sizeof value) == 0)
            printf("%-32s = %s\n", key, value);
}

static void print_timers(const struct config *c)
{
    printf("\ntimers, ms:\n"
           "  a peer at the relocation port has %u for its line, from connect on\n"
           "  a silent peer of a migration is dead after %u\n"
           "  a pause longer than %u is not begun while the guest can be made to fit\n"
           "  figures of domains are %d old at most\n"
           "  a worker that has finished is gone after %d\n",
        c->relocation_preamble_ms, c->dead_peer_ms, c->pause_budget_ms, REGISTRY_POLL_MS,
        WORKER_GRACE_MS);
    if (c->pause_budget_ms >= c->dead_peer_ms)
        printf("warning: migration-pause-budget is not below relocation-dead-peer-timeout: a pause "
               "would look like a dead peer\n");
}

static int check_acl(const struct config *c)
{
    struct acl *acl = NULL;
    unsigned warnings = 0;
    struct err e;

    if (acl_compile(c->relocation_hosts_allow, c->relocation_hosts_allow_set, print_warning,
            &warnings, &acl, &e) < 0) {
        fprintf(stderr, "migrd: xend-relocation-hosts-allow: %s\n", e.text);
        return -1;
    }
    acl_free(&acl);
    if (storage_places_check(c->storage_places, &e) < 0) {
        fprintf(stderr, "migrd: relocation-storage-allow: %s\n", e.text);
        return -1;
    }
    return 0;
}

static int check_tls(const struct config *c, const struct paths *p)
{
    char path[3][CONFIG_PATH_LEN];
    struct tr_tls_files files;
    struct tr_tls *tls = NULL;
    struct err e;

    if (!c->relocation_tls) {
        puts("warning: relocation-tls = no: guests cross the network in clear text, and any host "
             "that "
             "the acl admits may send them");
        return 0;
    }
    config_tls_files(c, p->pki, path);
    files = (struct tr_tls_files){ path[0], path[1], path[2] };
    if (tr_tls_open(&files, &tls, &e) < 0) {
        printf("warning: no migration can pass until certificates are there: %s\n", e.text);
        return 0;
    }
    tr_tls_free(&tls);
    return 0;
}

static void check_libvirt_tls(const struct config *c, const struct paths *p)
{
    char path[3][CONFIG_PATH_LEN];
    const struct tr_tls_files files = { path[0], path[1], path[2] };
    struct tls_server *tls = NULL;
    struct err e;

    if (!c->libvirt_tls)
        return;
    config_libvirt_tls_files(c, p->pki, path);
    if (tls_server_open(&files, &tls, &e) < 0)
        printf("warning: libvirt-tls serves nobody until certificates are there: %s\n", e.text);
    tls_server_free(&tls);
}

static int check(const struct daemon_options *o)
{
    struct paths p;
    struct config c;
    struct err e;

    if (paths_init(&p, o->root, &e) < 0 || daemon_read_config(o, &p, &c, &e) < 0) {
        fprintf(stderr, "migrd: %s\n", e.text);
        return 1;
    }
    if (log_level_parse(c.log_level) < 0) {
        fprintf(stderr, "migrd: log-level %s is none of error, warn, info, debug\n", c.log_level);
        return 1;
    }
    if (hv_driver(c.hypervisor) == NULL) {
        fprintf(stderr, "migrd: hypervisor %s is not part of this build\n", c.hypervisor);
        return 1;
    }
    print_keys(&c);
    print_timers(&c);
    check_libvirt_tls(&c, &p);
    if (check_acl(&c) < 0 || check_tls(&c, &p) < 0)
        return 1;
    printf("\n%s: OK\n", o->config != NULL ? o->config : p.config);
    return 0;
}

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, struct daemon_options *o, bool *check_only)
{
    static const struct option options[] = { { "root", required_argument, NULL, OPT_ROOT },
        { "config", required_argument, NULL, OPT_CONFIG },
        { "log-level", required_argument, NULL, OPT_LEVEL },
        { "foreground", no_argument, NULL, 'f' }, { "check", no_argument, NULL, 'n' },
        { "version", no_argument, NULL, OPT_VERSION }, { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 } };
    int c;

    while ((c = getopt_long(argc, argv, "fnh", options, NULL)) != -1) {
        switch (c) {
        case OPT_ROOT:
            o->root = optarg;
            break;
        case OPT_CONFIG:
            o->config = optarg;
            break;
        case OPT_LEVEL:
            o->log_level = optarg;
            break;
        case 'f':
            break;
        case 'n':
            *check_only = true;
            break;
        case OPT_VERSION:
            puts("migrd " MIGRD_VERSION);
            return 0;
        case 'h':
            usage(stdout);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    if (optind == argc)
        return -1;
    usage(stderr);
    return 2;
}

/* A journal's compaction takes megabytes for a moment, in whichever thread of the pool does it. By
 * default each of these threads would keep as much for ever, in a heap of its own. */
static void keep_memory_small(void)
{
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_MMAP_THRESHOLD, 128 * 1024); /* fixed: large blocks go back when they are freed */
}

int main(int argc, char **argv)
{
    struct daemon_options o = { 0 };
    bool check_only = false;
    struct err e = { 0 };
    int r = parse(argc, argv, &o, &check_only);

    if (r >= 0)
        return r;
    keep_memory_small();
    if (check_only)
        return check(&o);
    if (daemon_run(&o, &e) < 0) {
        fprintf(stderr, "migrd: %s\n", e.text);
        return 1;
    }
    return 0;
}
