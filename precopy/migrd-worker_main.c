/* SPDX-License-Identifier: ISC */
/*
 * migrd-worker: one migration, save, restore or query, in a process of its own. Started
 * by migrd with its end of a socket pair as descriptor 3; see docs/migrd-worker.8.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cpulist.h"
#include "base/log.h"
#include "precopy/worker.h"

#define CONTROL_FD 3

static void usage(FILE *to)
{
    fprintf(to, "usage: migrd-worker [--no-sandbox | --strict] [--debug] [--cpus LIST]\n"
                "Does one job for migrd, whose socket is descriptor 3. Not for people.\n");
}

/* For all threads that come. CPUs that this host does not have are no reason not to migrate. */
static void pin(const char *list)
{
    cpu_set_t set;
    struct err e;
    int named = cpulist_parse(list, &set, &e);

    if (named < 0)
        log_warn("worker", "%s: not pinned", e.text);
    else if (named > 0 && sched_setaffinity(0, sizeof set, &set) < 0)
        log_warn("worker", "CPUs %s: %s: not pinned", list, strerror(errno));
}

static int parse(int argc, char **argv, struct worker_options *opt)
{
    static const struct option options[] = { { "no-sandbox", no_argument, NULL, 'n' },
        { "strict", no_argument, NULL, 's' }, { "debug", no_argument, NULL, 'd' },
        { "cpus", required_argument, NULL, 'c' }, { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' }, { NULL, 0, NULL, 0 } };
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'n':
            opt->sandbox = false;
            break;
        case 's':
            opt->strict = true;
            break;
        case 'c':
            pin(optarg);
            break;
        case 'd':
            log_set_level(LOG_LV_DEBUG);
            break;
        case 'h':
            usage(stdout);
            return 0;
        case 'V':
            puts("migrd-worker " MIGRD_VERSION);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    return -1;
}

int main(int argc, char **argv)
{
    struct worker_options opt = { .find = hv_driver, .sandbox = true };
    int r = parse(argc, argv, &opt);

    if (r >= 0)
        return r;
    if (fcntl(CONTROL_FD, F_SETFD, FD_CLOEXEC) < 0) {
        fprintf(stderr, "migrd-worker: descriptor 3 is not open; migrd starts this program\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    log_open("migrd-worker", NULL, NULL);
    return worker_run(CONTROL_FD, &opt) == 0 ? 0 : 1;
}
