/* SPDX-License-Identifier: ISC */
/* Migrations: start, follow, cancel, tune, and deciding about one in doubt. */
#define _GNU_SOURCE
#include "tools/migctl.h"

#include <string.h>

#include "tools/format.h"
#include "tools/migrate.h"

enum {
    OPT_PORT = 256,
    OPT_BUDGET,
    OPT_BANDWIDTH,
    OPT_CHANNELS,
    OPT_TIME_LIMIT,
    OPT_THROTTLE_MAX,
    OPT_COMPRESSION,
    OPT_VERIFY,
    OPT_PAUSED,
    OPT_NOT_LIVE,
    OPT_ALLOW_PAUSED,
    OPT_CHANGE_HOME,
    OPT_TLS,
    OPT_QUIET,
    OPT_JSON,
    OPT_DRY_RUN,
    OPT_STOP,
};

struct migrate_words {
    Migrd__Migrate m;
    Migrd__PrecopyParams p;
    enum migrate_show show;
    bool dry_run;
};

static int parse_compression(const char *word, Migrd__Compression *out, struct err *e)
{
    static const char *const words[] = { "auto", "none", "lz4", "zstd" };

    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(word, words[i]) == 0) {
            *out = (Migrd__Compression)(MIGRD__COMPRESSION__COMPRESSION_AUTO + i);
            return 0;
        }
    return err_set(e, ERR_INVALID, "compression '%s': give auto, none, lz4 or zstd", word);
}

/* Options with a value: 0, or -1 with the reason. */
static int number_option(struct migrate_words *w, int o, struct err *e)
{
    uint32_t ms;

    switch (o) {
    case OPT_PORT:
        return parse_number(optarg, "port", 1, 65535, &w->m.port, e);
    case OPT_BUDGET:
        return parse_duration(optarg, "budget", 1, &w->p.pause_budget_ms, e);
    case OPT_BANDWIDTH:
        return parse_bytes(optarg, "bandwidth", &w->p.bandwidth, e);
    case OPT_CHANNELS:
        return parse_number(optarg, "channels", 1, 16, &w->p.channels, e);
    case OPT_THROTTLE_MAX:
        return parse_number(optarg, "throttle-max", 1, 99, &w->p.throttle_max, e);
    case OPT_COMPRESSION:
        return parse_compression(optarg, &w->p.compression, e);
    case OPT_TIME_LIMIT:
        if (parse_duration(optarg, "time-limit", 1000, &ms, e) < 0)
            return -1;
        w->p.time_limit_s = (ms + 999) / 1000;
        return 0;
    default:
        return err_set(e, ERR_INVALID, "unknown option");
    }
}

/* Options without one, and --tls: true if `o` is one of them and fine. */
static bool word_option(struct migrate_words *w, int o)
{
    switch (o) {
    case OPT_VERIFY:
        w->p.verify = w->m.params_set_verify = true;
        return true;
    case OPT_PAUSED:
        w->p.stay_paused = true;
        return true;
    case OPT_NOT_LIVE:
        w->p.live = false;
        return true;
    case OPT_ALLOW_PAUSED:
        w->p.allow_paused = true;
        return true;
    case OPT_CHANGE_HOME:
        w->p.change_home = true;
        return true;
    case OPT_DRY_RUN:
        w->dry_run = true;
        return true;
    case OPT_QUIET:
        w->show = MIGRATE_SILENT;
        return true;
    case OPT_JSON:
        w->show = MIGRATE_JSON;
        return true;
    case OPT_TLS:
        w->m.tls = optarg;
        w->m.no_tls = strcmp(optarg, "no") == 0;
        return strcmp(optarg, "yes") == 0 || strcmp(optarg, "no") == 0;
    default:
        return false;
    }
}

static int read_migrate(struct tool *t, int argc, char **argv, struct migrate_words *w)
{
    static const struct option options[] = {
        { "port", required_argument, NULL, OPT_PORT },
        { "budget", required_argument, NULL, OPT_BUDGET },
        { "bandwidth", required_argument, NULL, OPT_BANDWIDTH },
        { "channels", required_argument, NULL, OPT_CHANNELS },
        { "time-limit", required_argument, NULL, OPT_TIME_LIMIT },
        { "throttle-max", required_argument, NULL, OPT_THROTTLE_MAX },
        { "compression", required_argument, NULL, OPT_COMPRESSION },
        { "verify", no_argument, NULL, OPT_VERIFY },
        { "paused", no_argument, NULL, OPT_PAUSED },
        { "not-live", no_argument, NULL, OPT_NOT_LIVE },
        { "allow-paused", no_argument, NULL, OPT_ALLOW_PAUSED },
        { "change-home", no_argument, NULL, OPT_CHANGE_HOME },
        { "tls", required_argument, NULL, OPT_TLS },
        { "dry-run", no_argument, NULL, OPT_DRY_RUN },
        { "quiet", no_argument, NULL, OPT_QUIET },
        { "json", no_argument, NULL, OPT_JSON },
        { "live", no_argument, NULL, 'l' }, /* fingers used to xm */
        { NULL, 0, NULL, 0 },
    };
    struct err e;
    int o;

    while ((o = getopt_long(argc, argv, "lq", options, NULL)) != -1) {
        if (o == '?')
            return tool_usage(t, NULL);
        if (o == 'l' || word_option(w, o == 'q' ? OPT_QUIET : o))
            continue;
        if (o == OPT_TLS)
            return tool_usage(t, "tls '%s': give yes or no", optarg);
        if (number_option(w, o, &e) < 0)
            return tool_usage(t, "%s", e.text);
    }
    if (tool_words(t, argc, 2, 2) != 0)
        return TOOL_USAGE;
    w->m.domain = argv[optind];
    w->m.host = argv[optind + 1];
    return TOOL_OK;
}

int migctl_migrate(struct tool *t, int argc, char **argv)
{
    struct migrate_words w = { MIGRD__MIGRATE__INIT, MIGRD__PRECOPY_PARAMS__INIT,
        MIGRATE_PROGRESS, false };
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    int rc;

    w.p.live = true;
    rc = read_migrate(t, argc, argv, &w);
    if (rc != TOOL_OK)
        return rc;
    w.m.params = &w.p;
    w.m.progress = w.show == MIGRATE_PROGRESS;
    if (w.dry_run) /* a request of its own: a migrd that does not know it moves nothing */
        CLIENT_BODY(rq, DRY_RUN, dry_run, &w.m);
    else
        CLIENT_BODY(rq, MIGRATE, migrate, &w.m);
    return migrate_follow(t, &rq, w.m.domain, false, w.show);
}

int migctl_watch(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = {
        { "json", no_argument, NULL, OPT_JSON },
        { NULL, 0, NULL, 0 },
    };
    Migrd__WatchMigration watch = MIGRD__WATCH_MIGRATION__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    enum migrate_show show = MIGRATE_PROGRESS;
    int o;

    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o != OPT_JSON)
            return tool_usage(t, NULL);
        show = MIGRATE_JSON;
    }
    if (tool_words(t, argc, 1, 1) != 0)
        return TOOL_USAGE;
    watch.domain = argv[optind];
    CLIENT_BODY(rq, WATCH, watch, &watch);
    return migrate_follow(t, &rq, watch.domain, true, show);
}

int migctl_cancel(struct tool *t, int argc, char **argv)
{
    Migrd__CancelMigration cancel = MIGRD__CANCEL_MIGRATION__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;

    optind = 1;
    if (tool_words(t, argc, 1, 1) != 0)
        return TOOL_USAGE;
    cancel.domain = argv[1];
    CLIENT_BODY(rq, CANCEL, cancel, &cancel);
    return tool_do(t, &rq, TOOL_SHORT_MS);
}

int migctl_tune(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = {
        { "bandwidth", required_argument, NULL, OPT_BANDWIDTH },
        { "budget", required_argument, NULL, OPT_BUDGET },
        { "stop", no_argument, NULL, OPT_STOP },
        { NULL, 0, NULL, 0 },
    };
    Migrd__TuneMigration tune = MIGRD__TUNE_MIGRATION__INIT;
    Migrd__SetParams set = MIGRD__SET_PARAMS__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    struct err e;
    int o;

    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o == '?')
            return tool_usage(t, NULL);
        set.stop = set.stop || o == OPT_STOP;
        if (o == OPT_STOP)
            continue;
        if (o == OPT_BANDWIDTH ? parse_bytes(optarg, "bandwidth", &set.bandwidth, &e) < 0
                               : parse_duration(optarg, "budget", 1, &set.pause_budget_ms, &e) < 0)
            return tool_usage(t, "%s", e.text);
        set.set_bandwidth = set.set_bandwidth || o == OPT_BANDWIDTH;
        set.set_budget = set.set_budget || o == OPT_BUDGET;
    }
    if (tool_words(t, argc, 1, 1) != 0)
        return TOOL_USAGE;
    if (!set.set_bandwidth && !set.set_budget && !set.stop)
        return tool_usage(t, "nothing to change: give --bandwidth, --budget or --stop");
    tune.domain = argv[optind];
    tune.params = &set;
    CLIENT_BODY(rq, TUNE, tune, &tune);
    return tool_do(t, &rq, TOOL_SHORT_MS);
}

int migctl_resolve(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = {
        { "run-here", no_argument, NULL, 'r' },
        { "discard", no_argument, NULL, 'd' },
        { "force", no_argument, NULL, 'f' },
        { "reason", required_argument, NULL, 'w' },
        { NULL, 0, NULL, 0 },
    };
    Migrd__Resolve resolve = MIGRD__RESOLVE__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    int o;

    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (o) {
        case 'r':
            resolve.run_here = true;
            break;
        case 'd':
            resolve.discard = true;
            break;
        case 'f':
            resolve.force = true;
            break;
        case 'w':
            resolve.reason = optarg;
            break;
        default:
            return tool_usage(t, NULL);
        }
    }
    if (tool_words(t, argc, 1, 1) != 0)
        return TOOL_USAGE;
    if (resolve.run_here == resolve.discard)
        return tool_usage(t, "give either --run-here or --discard");
    resolve.domain = argv[optind];
    CLIENT_BODY(rq, RESOLVE, resolve, &resolve);
    return tool_do(t, &rq, TOOL_LONG_MS);
}
