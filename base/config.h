/* SPDX-License-Identifier: ISC */
/*
 * config: migrd.conf: "key = value" lines, '#' comments, keys named as xend's
 * properties where xend had one. An unknown key is an error with its line and the
 * nearest known key; so is a value out of range. A `struct config` is a plain value
 * (fixed-size strings): the daemon builds a new one on SIGHUP and swaps it in whole.
 */
#ifndef BASE_CONFIG_H
#define BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define CONFIG_VALUE_MAX 1024
#define CONFIG_PATH_LEN 256 /* as PATHS_LEN */

struct config {
    /* xend's keys */
    bool relocation_server;                      /* xend-relocation-server = yes */
    unsigned relocation_port;                    /* xend-relocation-port = 8002 */
    char relocation_address[256];                /* xend-relocation-address = localhost; "" all; an
                                                    address, or an interface's name */
    char relocation_hosts_allow[CONFIG_VALUE_MAX]; /* xend-relocation-hosts-allow =
                                                    ^localhost$ ^localhost\.localdomain$ */
    bool relocation_hosts_allow_set;             /* an explicit "" admits everybody, with a warning */
    /* relocation, ours */
    bool relocation_tls;                         /* relocation-tls = yes */
    bool relocation_check_name;                  /* relocation-check-name = yes: certificate and
                                                    forward lookup must agree with the peer */
    char tls_ca[256], tls_cert[256], tls_key[256]; /* relocation-tls-ca...; "" means pki folder's */
    unsigned relocation_max_sessions;            /* relocation-max-sessions = 4 incoming at once */
    unsigned relocation_max_waiting;             /* relocation-max-waiting = 256 before preamble */
    unsigned relocation_preamble_ms;             /* relocation-preamble-timeout = 5s */
    unsigned dead_peer_ms;                       /* relocation-dead-peer-timeout = 15s */
    /* migration defaults; each may be given per migration */
    unsigned pause_budget_ms;                    /* migration-pause-budget = 100ms */
    uint64_t bandwidth;                          /* migration-bandwidth = 0 (no cap); 100M = MiB/s */
    unsigned channels;                           /* migration-channels = 0 */
    char migration_cpus[256];                    /* migration-cpus = "" (all) */
    unsigned time_limit_s;                       /* migration-time-limit = 0 (none) */
    unsigned throttle_max;                       /* migration-throttle-max = 80 percent */
    unsigned max_rounds;                         /* migration-max-rounds = 60 */
    char compression[8];                         /* migration-compression = auto none lz4 zstd */
    uint64_t delta_cache;                        /* migration-delta-cache = 1G; 0: no deltas */
    bool verify;                                 /* migration-verify = no */
    unsigned max_outgoing;                       /* migration-max-outgoing = 2 at once */
    /* host */
    char host_name[256];                         /* host-name = "" (gethostname) */
    char hypervisor[16];                         /* hypervisor = xvm: default for new domains */
    uint64_t memory_reserve_kib;                 /* memory-reserve = 512M kept for the host */
    bool memory_overcommit;                      /* memory-overcommit = no */
    bool xen_hotplug;                            /* xen-hotplug = yes */
    char host_cpu_level[400];                    /* host-cpu-level = "" (all that the CPU has) */
    /* storage */
    bool storage_leases;                         /* storage-leases = yes */
    unsigned storage_lease_ms;                   /* storage-lease-time = 5s */
    unsigned storage_timeout_ms;                 /* storage-timeout = 10s */
    unsigned storage_nfs_uid_base;               /* storage-nfs-uid-base = 0 (none) */
    char storage_secrets[256];                   /* storage-secrets = "" (PREFIX/etc/migrd/...) */
    char storage_places[1024];                   /* relocation-storage-allow = "" */
    char storage_initiator[224];                 /* storage-iscsi-initiator = "" */
    /* cluster */
    bool cluster;                                /* cluster = no */
    unsigned cluster_beat_port;                  /* cluster-beat-port = 8003 */
    char cluster_key[256];                       /* cluster-key = /etc/corosync/authkey */
    char cluster_fence[256];                     /* cluster-fence = "" (PREFIX/etc/migrd/...) */
    char cluster_watchdog[256];                  /* cluster-watchdog = "" (none) */
    unsigned cluster_watchdog_ms;                /* cluster-watchdog-time = 10s */
    unsigned cluster_starts_at_once;             /* cluster-starts-at-once = 4 */
    unsigned cluster_moves_at_once;              /* cluster-moves-at-once = 2 */
    uint64_t cluster_flight_record;              /* cluster-flight-record = 64M; 0: none */
    /* sockets and logs */
    char control_group[64];                      /* control-group = migrd */
    char libvirt_sockets[128];                   /* libvirt-sockets = virtxend virtxvmd */
    unsigned libvirt_max_clients;                /* libvirt-max-clients = 64 */
    unsigned libvirt_max_calls;                  /* libvirt-max-calls = 32, of a client at once */
    uint64_t libvirt_max_bytes;                  /* libvirt-max-bytes = 16M, of a client at once */
    bool libvirt_tls;                            /* libvirt-tls = no */
    char libvirt_tls_address[256];               /* libvirt-tls-address = "" (all) */
    unsigned libvirt_tls_port;                   /* libvirt-tls-port = 16514 */
    char libvirt_tls_allow[CONFIG_VALUE_MAX];    /* libvirt-tls-allow = "" (nobody) */
    char libvirt_tls_ca[256], libvirt_tls_cert[256], libvirt_tls_key[256]; /* libvirt-tls-ca...; ""
                                                    means those of relocations */
    char status_address[256];                    /* status-address = "" (unix socket only) or
                                                    127.0.0.1:8003 */
    char log_file[256];                          /* log-file = "" (stderr) */
    char log_level[16];                          /* log-level = info */
};

void config_defaults(struct config *c);

/* Reads `path` over the defaults. A missing file is ERR_NOT_FOUND; all errors of a file are logged
 * (area "config"), the first one is returned. */
int config_load(struct config *c, const char *path, struct err *e);

/* One assignment, as in the file. */
int config_set(struct config *c, const char *key, const char *value, struct err *e);

/* Value of a key as text (for `migrd -n` and `migctl config`); -1 for an unknown key. */
int config_get(const struct config *c, const char *key, char *out, size_t len);

/* Key number i with its one-line description and default, NULL beyond the last. */
const char *config_key(size_t i, const char **help);

/* Reads xend-config.sxp into c: known relocation keys are taken, others are listed in `notes`
 * (malloc'ed text, a line each; may be NULL), so that the administrator sees what was left. */
int config_import_sxp(struct config *c, const char *path, char **notes, struct err *e);

/* The file with the passwords of network disks; `etc` is paths.etc. */
void config_secrets(const struct config *c, const char *etc, char *out, size_t len);

/* The file with the fence agents; `etc` is paths.etc. */
void config_fence(const struct config *c, const char *etc, char *out, size_t len);

/* ca, cert and key, in this order: of relocations, of libvirt's clients. `pki` is paths.pki. */
void config_tls_files(const struct config *c, const char *pki, char out[3][CONFIG_PATH_LEN]);
void config_libvirt_tls_files(const struct config *c, const char *pki, char out[3][CONFIG_PATH_LEN]);

/* The whole configuration as a migrd.conf; malloc'ed. */
char *config_print(const struct config *c);

#endif
