/* SPDX-License-Identifier: ISC */
/*
 * migctl storage: what migrd would find when it looked at a disk from this host (check), the
 * record of its lease (lease), and its removal (forget). Needs no running migrd; takes its
 * settings from migrd.conf.
 */
#define _GNU_SOURCE
#include "tools/migctl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/config.h"
#include "base/pbjson.h"
#include "storage-check/identity.h"
#include "storage-check/lease.h"

struct settings {
    struct config config;
    char host[256], secrets[PATHS_LEN + 32];
    bool json, read_only, force;
};

/* migrd.conf, or its defaults where there is none. */
static int load(struct tool *t, struct settings *s)
{
    struct err e;

    config_defaults(&s->config);
    if (config_load(&s->config, t->paths.config, &e) < 0 && e.code != ERR_NOT_FOUND)
        return tool_fail(&e);
    snprintf(s->host, sizeof s->host, "%s", s->config.host_name);
    if (s->host[0] == '\0')
        gethostname(s->host, sizeof s->host - 1);
    config_secrets(&s->config, t->paths.etc, s->secrets, sizeof s->secrets);
    return TOOL_OK;
}

/* --- check --- */

static int check(const struct settings *s, size_t n, char **sources)
{
    Migrd__StorageRequest rq = MIGRD__STORAGE_REQUEST__INIT;
    Migrd__Disk like = MIGRD__DISK__INIT;
    Migrd__StorageReply *r;
    struct err e;
    int rc;

    like.read_only = s->read_only;
    rq.n_disks = n;
    rq.disks = storage_disks(&like, sources, n);
    rq.host = (char *)(uintptr_t)s->host;
    rq.secrets = (char *)(uintptr_t)s->secrets;
    rq.initiator = (char *)(uintptr_t)s->config.storage_initiator;
    rq.timeout_ms = s->config.storage_timeout_ms;
    rq.nfs_uid_base = s->config.storage_nfs_uid_base;
    if (rq.disks == NULL)
        return tool_error("out of memory");
    if (storage_ask(&rq, 0, &r, &e) < 0) {
        rc = tool_fail(&e);
    } else {
        rc = storage_show(r, s->json, stdout) ? TOOL_OK : TOOL_FAILED;
        migrd__storage_reply__free_unpacked(r, NULL);
    }
    free(rq.disks);
    return rc;
}

/* --- lease --- */

static void print_lease(const char *source, const struct lease_record *r, bool json)
{
    json_t *o;

    if (json) {
        o = json_pack("{s:o,s:o,s:s,s:I,s:I,s:b}", "source", pbjson_text(source), "owner",
            pbjson_text(r->owner), "uuid", r->uuid, "epoch", (json_int_t)r->epoch, "beat",
            (json_int_t)r->beat, "released", (int)r->released);
        json_dumpf(o, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(o);
    } else if (r->owner[0] == '\0') {
        printf("%s: nobody has a lease on it\n", source);
    } else {
        printf("%s\n  owner    %s%s\n", source, r->owner, r->released ? " (given up)" : "");
        if (r->uuid[0] != '\0') /* the key of a reservation has no room for it */
            printf("  domain   %s\n", r->uuid);
        printf("  epoch    %" PRIu64 "\n  renewal  %" PRIu64 "\n", r->epoch, r->beat);
    }
}

static struct disk_options options_of(const struct settings *s)
{
    return (struct disk_options){ .read_only = true,
        .host = s->host,
        .initiator = s->config.storage_initiator,
        .secrets = s->secrets,
        .timeout_ms = s->config.storage_timeout_ms };
}

static int lease(const struct settings *s, size_t n, char **sources)
{
    struct disk_options o = options_of(s);
    int rc = TOOL_OK;

    for (size_t i = 0; i < n; i++) {
        struct lease_record r;
        struct err e;

        if (lease_read(sources[i], &o, &r, &e) < 0)
            rc = tool_fail(&e);
        else
            print_lease(sources[i], &r, s->json);
    }
    return rc;
}

/* --- forget --- */

static int forget_one(const struct settings *s, const char *source, struct err *e)
{
    struct disk_options o = options_of(s);
    struct lease_record r;

    if (lease_read(source, &o, &r, e) < 0)
        return -1;
    if (r.owner[0] != '\0' && !r.released && !s->force)
        return err_set(e, ERR_STATE,
            "disk %s: host %s has its lease (epoch %" PRIu64
            ") and has not given it up; if the domain runs nowhere: --force",
            source, r.owner, r.epoch);
    return lease_remove(source, &o, r.epoch, e);
}

static int forget(const struct settings *s, size_t n, char **sources)
{
    int rc = TOOL_OK;

    for (size_t i = 0; i < n; i++) {
        struct err e;

        if (forget_one(s, sources[i], &e) < 0)
            rc = tool_fail(&e);
    }
    return rc;
}

/* --- all --- */

int migctl_storage(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = { { "json", no_argument, NULL, 'j' },
        { "read-only", no_argument, NULL, 'r' }, { "force", no_argument, NULL, 'f' },
        { NULL, 0, NULL, 0 } };
    struct settings *s = calloc(1, sizeof *s);
    int o, rc;

    if (s == NULL)
        return tool_error("out of memory");
    rc = load(t, s);
    while (rc == TOOL_OK && (o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        s->json = s->json || o == 'j';
        s->read_only = s->read_only || o == 'r';
        s->force = s->force || o == 'f';
        if (o == '?')
            rc = tool_usage(t, NULL);
    }
    if (rc != TOOL_OK)
        ;
    else if (argc - optind >= 2 && strcmp(argv[optind], "check") == 0)
        rc = check(s, (size_t)(argc - optind - 1), argv + optind + 1);
    else if (argc - optind >= 2 && strcmp(argv[optind], "lease") == 0)
        rc = lease(s, (size_t)(argc - optind - 1), argv + optind + 1);
    else if (argc - optind >= 2 && strcmp(argv[optind], "forget") == 0)
        rc = forget(s, (size_t)(argc - optind - 1), argv + optind + 1);
    else
        rc = tool_usage(t, "give check, lease or forget, and what disks");
    free(s);
    return rc;
}
