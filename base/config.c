/* SPDX-License-Identifier: ISC */
/*
 * One table says everything about a key: name, type, place in struct config, range,
 * default and help. Setting, getting, printing, the example file and its test all come
 * from it, so that a new key is one line here, one member in config.h and one paragraph
 * in migrd.conf(5).
 *
 * Text of values: yes or no (also true, on, 1, ... as xend understood them); whole
 * numbers; sizes as 100M (K, M, G, T are powers of 1024); durations as 100ms, 5s, 2m, 1h,
 * always with their unit, because nobody remembers which unit a bare 5 was in. A
 * double quote cannot be part of a text: that is what keeps quoting in the file free of
 * escapes, and so keeps regular expressions readable.
 */
#define _GNU_SOURCE
#include "base/config.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/config_internal.h"
#include "base/cpulist.h"
#include "base/nearest.h"

enum type {
    TYPE_BOOL,
    TYPE_NUMBER,  /* unsigned */
    TYPE_PERCENT, /* unsigned */
    TYPE_BYTES,   /* uint64_t, bytes */
    TYPE_KIB,     /* uint64_t, KiB */
    TYPE_MS,      /* unsigned, milliseconds */
    TYPE_S,       /* unsigned, seconds */
    TYPE_TEXT,    /* char[size] */
    TYPE_WORD,    /* char[size], one of `words` */
};

struct key {
    const char *name;
    enum type type;
    size_t offset, size;
    uint64_t min, max; /* in the member's unit */
    const char *words; /* TYPE_WORD: separated by blanks */
    bool (*valid)(const char *text);
    const char *valid_means; /* for the error when `valid` says no */
    const char *def;
    const char *group; /* heading above it in the printed file, NULL: as the one before */
    const char *help;
};

/* ---- checks of single texts ---- */

static bool valid_path(const char *s)
{
    return s[0] == '\0' || s[0] == '/';
}

static bool valid_file(const char *s)
{
    return s[0] == '/';
}

static bool valid_host(const char *s)
{
    for (; *s != '\0'; s++)
        if (!isalnum((unsigned char)*s) && strchr(".-_", *s) == NULL)
            return false;
    return true;
}

/* An address (IPv6 with scope too), a host name, or the name of an interface. */
static bool valid_address(const char *s)
{
    for (; *s != '\0'; s++)
        if (!isalnum((unsigned char)*s) && strchr(".-_:%", *s) == NULL)
            return false;
    return true;
}

/* The hypervisor knows the levels; here nothing that would need quoting. */
static bool valid_level(const char *s)
{
    for (; *s != '\0'; s++)
        if (!isalnum((unsigned char)*s) && strchr("-+,./= _", *s) == NULL)
            return false;
    return true;
}

static bool valid_cpus(const char *s)
{
    cpu_set_t set;

    return cpulist_parse(s, &set, NULL) >= 0;
}

static bool valid_group(const char *s)
{
    return s[0] != '\0' && s[0] != '-' && valid_host(s);
}

static bool valid_port(const char *s)
{
    unsigned long port = 0;

    if (s[0] == '\0' || strlen(s) > 5)
        return false;
    for (; *s != '\0'; s++) {
        if (!isdigit((unsigned char)*s))
            return false;
        port = port * 10 + (unsigned long)(*s - '0');
    }
    return port >= 1 && port <= 65535;
}

/* "" or ADDRESS:PORT, with an IPv6 address in brackets. */
static bool valid_listen(const char *s)
{
    const char *colon = strrchr(s, ':');
    size_t n;

    if (s[0] == '\0')
        return true;
    if (colon == NULL || colon == s || !valid_port(colon + 1))
        return false;
    n = (size_t)(colon - s);
    if (s[0] == '[')
        return n > 2 && s[n - 1] == ']';
    return memchr(s, ':', n) == NULL && valid_address(s);
}

/* Names of servers whose sockets a client of libvirt looks for. */
static bool valid_servers(const char *s)
{
    static const char *const known[] = { "libvirt", "virtxend", "virtxvmd", "virtxenmigrd",
        "virtmigrdd" };
    size_t n, i;

    for (s += strspn(s, " "); *s != '\0'; s += n + strspn(s + n, " ")) {
        n = strcspn(s, " ");
        for (i = 0; i < sizeof known / sizeof known[0]; i++)
            if (strlen(known[i]) == n && strncmp(known[i], s, n) == 0)
                break;
        if (i == sizeof known / sizeof known[0])
            return false;
    }
    return true;
}

/* ---- the table ---- */

#define AT(member) offsetof(struct config, member), sizeof(((struct config *)NULL)->member)
#define ANY 0, 0, NULL, NULL, NULL

static const struct key keys[] = {
    { "xend-relocation-server", TYPE_BOOL, AT(relocation_server), ANY, "yes",
        "Relocation: which hosts may move domains here, and how",
        "Accept domains that other hosts relocate to this one." },
    { "xend-relocation-port", TYPE_NUMBER, AT(relocation_port), 1, 65535, NULL, NULL, NULL, "8002",
        NULL, "TCP port of the relocation server." },
    { "xend-relocation-address", TYPE_TEXT, AT(relocation_address), 0, 0, NULL, valid_address,
        "an address, a host name or an interface", "localhost", NULL,
        "Address or interface it listens on; \"\" is all of them." },
    { "xend-relocation-hosts-allow", TYPE_TEXT, AT(relocation_hosts_allow), ANY,
        "^localhost$ ^localhost\\.localdomain$", NULL,
        "Regular expressions, separated by blanks: a host whose full name or address matches one "
        "is admitted. \"\" admits everybody. Without this key: only this host itself." },
    { "relocation-storage-allow", TYPE_TEXT, AT(storage_places), ANY, "", NULL,
        "Where disks, kernels and initrds of domains that come from other hosts may be: beginnings of "
        "paths and URLs, separated by blanks, as /srv/images nfs://stor/guests. \"\" is anywhere." },
    { "relocation-tls", TYPE_BOOL, AT(relocation_tls), ANY, "yes", NULL,
        "Encrypt relocations, with certificates on both sides." },
    { "relocation-check-name", TYPE_BOOL, AT(relocation_check_name), ANY, "yes", NULL,
        "The peer's certificate and the forward lookup of its name must agree with it." },
    { "relocation-tls-ca", TYPE_TEXT, AT(tls_ca), 0, 0, NULL, valid_path, "an absolute path", "",
        NULL, "Certificate of the cluster's authority; \"\" is /etc/migrd/pki/ca.crt." },
    { "relocation-tls-cert", TYPE_TEXT, AT(tls_cert), 0, 0, NULL, valid_path, "an absolute path",
        "", NULL, "Certificate of this host; \"\" is /etc/migrd/pki/host.crt." },
    { "relocation-tls-key", TYPE_TEXT, AT(tls_key), 0, 0, NULL, valid_path, "an absolute path", "",
        NULL, "Its private key; \"\" is /etc/migrd/pki/host.key." },
    { "relocation-max-sessions", TYPE_NUMBER, AT(relocation_max_sessions), 1, 256, NULL, NULL, NULL,
        "4", NULL, "Incoming relocations at once." },
    { "relocation-max-waiting", TYPE_NUMBER, AT(relocation_max_waiting), 1, 65536, NULL, NULL, NULL,
        "256", NULL, "Connections at once that have not said yet what they want." },
    { "relocation-preamble-timeout", TYPE_MS, AT(relocation_preamble_ms), 100, 300000, NULL, NULL,
        NULL, "5s", NULL, "Time a connection has to say what it wants." },
    { "relocation-dead-peer-timeout", TYPE_MS, AT(dead_peer_ms), 1000, 3600000, NULL, NULL, NULL,
        "15s", NULL, "Silence after which the other host counts as gone." },

    { "migration-pause-budget", TYPE_MS, AT(pause_budget_ms), 1, 600000, NULL, NULL, NULL, "100ms",
        "Migration: defaults, each may be given per migration",
        "How long the guest may stand still at the end." },
    { "migration-bandwidth", TYPE_BYTES, AT(bandwidth), 0, UINT64_C(1) << 50, NULL, NULL, NULL, "0",
        NULL, "Bytes per second on the wire, as 100M; 0 is no limit." },
    { "migration-channels", TYPE_NUMBER, AT(channels), 0, 16, NULL, NULL, NULL, "0", NULL,
        "Data connections of one migration; 0 is as many as this host's CPUs make useful." },
    { "migration-cpus", TYPE_TEXT, AT(migration_cpus), 0, 0, NULL, valid_cpus,
        "a list of CPUs as 0-3,^2", "", NULL,
        "Host CPUs that migrations may use, as 0-3,^2; \"\" is all of them." },
    { "migration-time-limit", TYPE_S, AT(time_limit_s), 0, 604800, NULL, NULL, NULL, "0", NULL,
        "A migration that takes longer is given up, the guest goes on here; 0 is no limit." },
    { "migration-throttle-max", TYPE_PERCENT, AT(throttle_max), 0, 99, NULL, NULL, NULL, "80", NULL,
        "Slow a guest that writes faster than the link by at most this many percent." },
    { "migration-max-rounds", TYPE_NUMBER, AT(max_rounds), 1, 10000, NULL, NULL, NULL, "60", NULL,
        "Rounds of copying while the guest runs." },
    { "migration-compression", TYPE_WORD, AT(compression), 0, 0, "auto none lz4 zstd", NULL, NULL,
        "auto", NULL, "Compression of pages; auto: where it is measured to save time." },
    { "migration-delta-cache", TYPE_BYTES, AT(delta_cache), 0, UINT64_C(1) << 50, NULL, NULL, NULL,
        "1G", NULL,
        "Memory for copies of pages that are sent again, so that only what changed travels; 0 is "
        "off. Never more than a quarter of the guest's." },
    { "migration-verify", TYPE_BOOL, AT(verify), ANY, "no", NULL,
        "Compare all of the memory before the guest runs there, not a sample." },
    { "migration-max-outgoing", TYPE_NUMBER, AT(max_outgoing), 1, 256, NULL, NULL, NULL, "2", NULL,
        "Outgoing migrations at once; more are refused." },

    { "host-name", TYPE_TEXT, AT(host_name), 0, 0, NULL, valid_host, "a host name", "", "This host",
        "What this host calls itself; \"\" is the system's host name." },
    { "hypervisor", TYPE_WORD, AT(hypervisor), 0, 0, "xvm xen", NULL, NULL, "xvm", NULL,
        "Hypervisor of this host: xvm, the bundled one on KVM, or xen, from its control domain." },
    { "memory-reserve", TYPE_KIB, AT(memory_reserve_kib), 0, UINT64_C(1) << 40, NULL, NULL, NULL,
        "512M", NULL,
        "Memory that no domain gets, kept for the host itself; what Xen's Domain-0 has counts." },
    { "memory-overcommit", TYPE_BOOL, AT(memory_overcommit), ANY, "no", NULL,
        "Let domains have more memory together than the host has." },
    { "xen-hotplug", TYPE_BOOL, AT(xen_hotplug), ANY, "yes", NULL,
        "Connect plain disks and interfaces by xen-hotplug; no: all by Xen's own scripts." },
    { "host-cpu-level", TYPE_TEXT, AT(host_cpu_level), 0, 0, NULL, valid_level, "a CPU level", "",
        NULL,
        "CPU level that guests of this host see at most, as x86-64-v2 or what migctl cpu baseline "
        "prints; \"\" is all that the CPU has." },

    { "storage-leases", TYPE_BOOL, AT(storage_leases), ANY, "yes", "Storage",
        "Keep a record of owner and epoch beside each disk, and have the storage refuse others." },
    { "storage-lease-time", TYPE_MS, AT(storage_lease_ms), 1000, 60000, NULL, NULL, NULL, "5s",
        NULL, "A guest whose disk's record could not be renewed for that long is paused." },
    { "storage-timeout", TYPE_MS, AT(storage_timeout_ms), 500, 600000, NULL, NULL, NULL, "10s",
        NULL, "Silence after which a storage server counts as gone." },
    { "storage-nfs-uid-base", TYPE_NUMBER, AT(storage_nfs_uid_base), 0, 4000000000, NULL, NULL,
        NULL, "0", NULL,
        "First of 65536 user ids that disks on NFS belong to in turn, one for each epoch, so that "
        "the server refuses a stale host's writes; 0 is off." },
    { "storage-secrets", TYPE_TEXT, AT(storage_secrets), 0, 0, NULL, valid_path, "an absolute path",
        "", NULL, "File with the CHAP passwords; \"\" is /etc/migrd/storage-secrets." },
    { "storage-iscsi-initiator", TYPE_TEXT, AT(storage_initiator), 0, 0, NULL, valid_address,
        "an iSCSI name", "", NULL, "iSCSI name of this host; \"\" is made of its name." },

    { "cluster", TYPE_BOOL, AT(cluster), ANY, "no",
        "Cluster: domains of a host that dies run again on another one",
        "Take part in the cluster that corosync makes of the hosts in its corosync.conf." },
    { "cluster-beat-port", TYPE_NUMBER, AT(cluster_beat_port), 1, 65535, NULL, NULL, NULL, "8003",
        NULL, "UDP port on which the hosts tell each other that they live; the same on all of them." },
    { "cluster-key", TYPE_TEXT, AT(cluster_key), 0, 0, NULL, valid_file, "an absolute path",
        "/etc/corosync/authkey", NULL,
        "File with the key that signs what is sent there; the same on all hosts." },
    { "cluster-fence", TYPE_TEXT, AT(cluster_fence), 0, 0, NULL, valid_path, "an absolute path", "",
        NULL, "File that says how hosts are powered off; \"\" is /etc/migrd/fence.conf, which need "
              "not be there." },
    { "cluster-watchdog", TYPE_TEXT, AT(cluster_watchdog), 0, 0, NULL, valid_path,
        "an absolute path", "", NULL,
        "Hardware watchdog, as /dev/watchdog, that resets this host if migrd hangs and a guest "
        "outlives its deadline; \"\" is none." },
    { "cluster-watchdog-time", TYPE_MS, AT(cluster_watchdog_ms), 2000, 300000, NULL, NULL, NULL,
        "10s", NULL, "Time after which it does so." },
    { "cluster-starts-at-once", TYPE_NUMBER, AT(cluster_starts_at_once), 1, 64, NULL, NULL, NULL,
        "4", NULL, "Domains that the cluster starts on this host at the same time." },
    { "cluster-moves-at-once", TYPE_NUMBER, AT(cluster_moves_at_once), 1, 64, NULL, NULL, NULL, "2",
        NULL, "Domains that the cluster moves away from this host at the same time; at most "
              "migration-max-outgoing." },
    { "cluster-flight-record", TYPE_BYTES, AT(cluster_flight_record), 0, UINT64_C(1) << 40, NULL,
        NULL, NULL, "64M", NULL,
        "Size of the file with all that the decisions of this host were made of, for ha-sim "
        "--replay; the one before is kept as well. 0 is none." },

    { "control-group", TYPE_TEXT, AT(control_group), 0, 0, NULL, valid_group, "the name of a group",
        "migrd", "Sockets and logs", "Group that may use the control socket and virsh, beside root." },
    { "libvirt-sockets", TYPE_TEXT, AT(libvirt_sockets), 0, 0, NULL, valid_servers,
        "names out of libvirt virtxend virtxvmd virtxenmigrd virtmigrdd", "virtxend virtxvmd", NULL,
        "Servers in whose place virsh finds migrd, by /run/libvirt/NAME-sock, where no other one is; "
        "with libvirt it is virsh's default." },
    { "libvirt-max-clients", TYPE_NUMBER, AT(libvirt_max_clients), 1, 4096, NULL, NULL, NULL, "64",
        NULL, "Clients of libvirt's protocol (virsh) at once; more are hung up on." },
    { "libvirt-max-calls", TYPE_NUMBER, AT(libvirt_max_calls), 2, 1024, NULL, NULL, NULL, "32", NULL,
        "Calls of one such client under way at once; further ones wait." },
    { "libvirt-max-bytes", TYPE_BYTES, AT(libvirt_max_bytes), 1 << 20, 1 << 30, NULL, NULL, NULL,
        "16M", NULL,
        "Bytes held for one such client: of calls under way, and of answers that it has not taken." },
    { "libvirt-tls", TYPE_BOOL, AT(libvirt_tls), ANY, "no", NULL,
        "Serve virsh of other machines as well, with TLS and certificates on both sides." },
    { "libvirt-tls-address", TYPE_TEXT, AT(libvirt_tls_address), 0, 0, NULL, valid_address,
        "an address, a host name or an interface", "", NULL,
        "Address or interface for them; \"\" is all of them." },
    { "libvirt-tls-port", TYPE_NUMBER, AT(libvirt_tls_port), 1, 65535, NULL, NULL, NULL, "16514",
        NULL, "TCP port for them." },
    { "libvirt-tls-allow", TYPE_TEXT, AT(libvirt_tls_allow), ANY, "", NULL,
        "Names, separated by blanks: who has a certificate with one of them may do all that root may "
        "do with virsh. * and ? stand for any characters and any one character." },
    { "libvirt-tls-ca", TYPE_TEXT, AT(libvirt_tls_ca), 0, 0, NULL, valid_path, "an absolute path",
        "", NULL, "Certificate of their authority; \"\" is that of relocations." },
    { "libvirt-tls-cert", TYPE_TEXT, AT(libvirt_tls_cert), 0, 0, NULL, valid_path,
        "an absolute path", "", NULL, "Certificate of this host for them; \"\" as above." },
    { "libvirt-tls-key", TYPE_TEXT, AT(libvirt_tls_key), 0, 0, NULL, valid_path, "an absolute path",
        "", NULL, "Its private key; \"\" as above." },
    { "status-address", TYPE_TEXT, AT(status_address), 0, 0, NULL, valid_listen,
        "ADDRESS:PORT, or [IPV6]:PORT", "", NULL,
        "TCP address of the status pages, as 127.0.0.1:8003; \"\" is the unix socket only." },
    { "log-file", TYPE_TEXT, AT(log_file), 0, 0, NULL, valid_path, "an absolute path", "", NULL,
        "File of the log; \"\" is standard error, which systemd keeps in its journal." },
    { "log-level", TYPE_WORD, AT(log_level), 0, 0, "error warn info debug", NULL, NULL, "info",
        NULL, "How much is logged: error, warn, info or debug." },
};

#define N_KEYS (sizeof keys / sizeof keys[0])
_Static_assert(N_KEYS <= CONFIG_KEYS_MAX, "raise CONFIG_KEYS_MAX");

static void *member(struct config *c, const struct key *k)
{
    return (char *)c + k->offset;
}

static const void *member_of(const struct config *c, const struct key *k)
{
    return (const char *)c + k->offset;
}

/* ---- text to value ---- */

static int parse_bool(const char *v, bool *out)
{
    static const char *const yes[] = { "yes", "y", "1", "on", "true", "t" };
    static const char *const no[] = { "no", "n", "0", "off", "false", "f" };

    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        if (strcasecmp(v, yes[i]) == 0) {
            *out = true;
            return 0;
        }
        if (strcasecmp(v, no[i]) == 0) {
            *out = false;
            return 0;
        }
    }
    return -1;
}

struct unit {
    const char *name, *also;
    uint64_t factor;
};

/* Largest first: printing takes the first that divides. */
static const struct unit size_units[] = {
    { "T", "TiB", UINT64_C(1) << 40 },
    { "G", "GiB", UINT64_C(1) << 30 },
    { "M", "MiB", UINT64_C(1) << 20 },
    { "K", "KiB", UINT64_C(1) << 10 },
    { "", "B", 1 },
    { NULL, NULL, 0 },
};
static const struct unit time_units[] = {
    { "h", "h", 3600000 },
    { "m", "min", 60000 },
    { "s", "s", 1000 },
    { "ms", "ms", 1 },
    { NULL, NULL, 0 },
};

/* Digits and a unit without a blank between; 0 needs none. */
static int parse_scaled(const char *v, const struct unit *units, uint64_t *out)
{
    char *end;
    unsigned long long n;

    if (!isdigit((unsigned char)v[0]))
        return -1;
    errno = 0;
    n = strtoull(v, &end, 10);
    if (errno != 0)
        return -1;
    if (n == 0 && *end == '\0') {
        *out = 0;
        return 0;
    }
    for (; units->name != NULL; units++)
        if (strcmp(end, units->name) == 0 || strcmp(end, units->also) == 0)
            return __builtin_mul_overflow(n, units->factor, out) ? -1 : 0;
    return -1;
}

static int parse_number(const char *v, bool percent, uint64_t *out)
{
    char *end;

    if (!isdigit((unsigned char)v[0]))
        return -1;
    errno = 0;
    *out = strtoull(v, &end, 10);
    if (percent && *end == '%')
        end++;
    return errno != 0 || *end != '\0' ? -1 : 0;
}

/* In the member's unit. */
static int parse_amount(const struct key *k, const char *v, uint64_t *out)
{
    uint64_t unit = k->type == TYPE_KIB ? 1024 : k->type == TYPE_S ? 1000 : 1;

    if (k->type == TYPE_NUMBER || k->type == TYPE_PERCENT)
        return parse_number(v, k->type == TYPE_PERCENT, out);
    if (parse_scaled(v, k->type == TYPE_MS || k->type == TYPE_S ? time_units : size_units, out) < 0)
        return -1;
    if (*out % unit != 0)
        return -1;
    *out /= unit;
    return 0;
}

static const char *type_wants(enum type t)
{
    switch (t) {
    case TYPE_BOOL:
        return "yes or no";
    case TYPE_NUMBER:
        return "a whole number";
    case TYPE_PERCENT:
        return "a whole number of percent";
    case TYPE_BYTES:
    case TYPE_KIB:
        return "a size such as 512M (K, M, G or T)";
    case TYPE_MS:
        return "a time with its unit, such as 100ms, 5s or 2m";
    case TYPE_S:
        return "a time of whole seconds with its unit, such as 90s or 5m";
    case TYPE_TEXT:
    case TYPE_WORD:
        return "a text";
    }
    return "?";
}

static void format_amount(enum type t, uint64_t n, char *out, size_t len)
{
    const struct unit *u = t == TYPE_MS || t == TYPE_S ? time_units : size_units;

    if (t == TYPE_NUMBER || t == TYPE_PERCENT || n == 0) {
        snprintf(out, len, "%" PRIu64, n);
        return;
    }
    n *= t == TYPE_KIB ? 1024 : t == TYPE_S ? 1000 : 1;
    while (u[1].name != NULL && n % u->factor != 0)
        u++;
    snprintf(out, len, "%" PRIu64 "%s", n / u->factor, u->name);
}

static int set_amount(struct config *c, const struct key *k, const char *v, struct err *e)
{
    char low[32], high[32];
    unsigned small;
    uint64_t n;

    if (parse_amount(k, v, &n) < 0)
        return err_set(
            e, ERR_INVALID, "%s = %.64s: this must be %s", k->name, v, type_wants(k->type));
    if (n < k->min || n > k->max) {
        format_amount(k->type, k->min, low, sizeof low);
        format_amount(k->type, k->max, high, sizeof high);
        return err_set(
            e, ERR_INVALID, "%s = %.64s: this must be from %s to %s", k->name, v, low, high);
    }
    if (k->size == sizeof n) {
        memcpy(member(c, k), &n, sizeof n);
    } else {
        small = (unsigned)n;
        memcpy(member(c, k), &small, sizeof small);
    }
    return 0;
}

static int set_text(struct config *c, const struct key *k, const char *v, struct err *e)
{
    size_t len;

    for (const char *p = v; *p != '\0'; p++) {
        if (*p == '"')
            return err_set(e, ERR_INVALID,
                "%s: a double quote cannot be part of a value; in a regular expression write "
                "\\x22",
                k->name);
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            return err_set(e, ERR_INVALID,
                "%s: control character 0x%02x in the value (a tab counts as one; use blanks)",
                k->name, (unsigned char)*p);
    }
    if (strlen(v) >= k->size)
        return err_set(e, ERR_INVALID, "%s: the value has %zu bytes, at most %zu fit", k->name,
            strlen(v), k->size - 1);
    if (k->valid != NULL && !k->valid(v))
        return err_set(e, ERR_INVALID, "%s = %.64s: this must be %s", k->name, v, k->valid_means);
    len = strlen(v);
    memmove(member(c, k), v, len); /* v may be this very member */
    memset((char *)member(c, k) + len, 0, k->size - len);
    return 0;
}

static bool has_word(const char *words, const char *w)
{
    size_t n = strlen(w);

    if (n == 0 || strchr(w, ' ') != NULL)
        return false;
    for (const char *p = strstr(words, w); p != NULL; p = strstr(p + 1, w))
        if ((p == words || p[-1] == ' ') && (p[n] == '\0' || p[n] == ' '))
            return true;
    return false;
}

static int set_key(struct config *c, const struct key *k, const char *v, struct err *e)
{
    switch (k->type) {
    case TYPE_BOOL:
        if (parse_bool(v, member(c, k)) < 0)
            return err_set(e, ERR_INVALID, "%s = %.64s: this must be yes or no", k->name, v);
        return 0;
    case TYPE_WORD:
        if (!has_word(k->words, v))
            return err_set(
                e, ERR_INVALID, "%s = %.64s: this must be one of: %s", k->name, v, k->words);
        return set_text(c, k, v, e);
    case TYPE_TEXT:
        return set_text(c, k, v, e);
    case TYPE_NUMBER:
    case TYPE_PERCENT:
    case TYPE_BYTES:
    case TYPE_KIB:
    case TYPE_MS:
    case TYPE_S:
        return set_amount(c, k, v, e);
    }
    return err_set(e, ERR_INTERNAL, "%s: key of an unknown type", k->name);
}

/* ---- API ---- */

void config_defaults(struct config *c)
{
    memset(c, 0, sizeof *c);
    for (size_t i = 0; i < N_KEYS; i++)
        set_key(c, &keys[i], keys[i].def, NULL);
}

int config_find(const char *key, struct err *e)
{
    const char *names[N_KEYS], *near;

    for (size_t i = 0; i < N_KEYS; i++) {
        if (strcmp(keys[i].name, key) == 0)
            return (int)i;
        names[i] = keys[i].name;
    }
    near = nearest_word(key, names, N_KEYS);
    if (near != NULL)
        return err_set(e, ERR_INVALID, "unknown key %.64s; did you mean %s?", key, near);
    return err_set(e, ERR_INVALID, "unknown key %.64s; migrd.conf(5) lists the known ones", key);
}

int config_set(struct config *c, const char *key, const char *value, struct err *e)
{
    int i = config_find(key, e);

    if (i < 0 || set_key(c, &keys[i], value, e) < 0)
        return -1;
    if (keys[i].offset == offsetof(struct config, relocation_hosts_allow))
        c->relocation_hosts_allow_set = true;
    return 0;
}

static void get_key(const struct config *c, const struct key *k, char *out, size_t len)
{
    unsigned small;
    uint64_t n;

    switch (k->type) {
    case TYPE_BOOL:
        snprintf(out, len, "%s", *(const bool *)member_of(c, k) ? "yes" : "no");
        return;
    case TYPE_TEXT:
    case TYPE_WORD:
        snprintf(out, len, "%s", (const char *)member_of(c, k));
        return;
    case TYPE_NUMBER:
    case TYPE_PERCENT:
    case TYPE_BYTES:
    case TYPE_KIB:
    case TYPE_MS:
    case TYPE_S:
        if (k->size == sizeof n) {
            memcpy(&n, member_of(c, k), sizeof n);
        } else {
            memcpy(&small, member_of(c, k), sizeof small);
            n = small;
        }
        format_amount(k->type, n, out, len);
        return;
    }
}

int config_get(const struct config *c, const char *key, char *out, size_t len)
{
    int i = config_find(key, NULL);

    if (i < 0)
        return -1;
    get_key(c, &keys[i], out, len);
    return 0;
}

void config_secrets(const struct config *c, const char *etc, char *out, size_t len)
{
    if (c->storage_secrets[0] != '\0')
        snprintf(out, len, "%s", c->storage_secrets);
    else
        snprintf(out, len, "%s/storage-secrets", etc);
}

void config_fence(const struct config *c, const char *etc, char *out, size_t len)
{
    if (c->cluster_fence[0] != '\0')
        snprintf(out, len, "%s", c->cluster_fence);
    else
        snprintf(out, len, "%s/fence.conf", etc);
}

static void tls_files(
    const char *const set[3], const char *const otherwise[3], char out[3][CONFIG_PATH_LEN])
{
    for (int i = 0; i < 3; i++)
        snprintf(out[i], CONFIG_PATH_LEN, "%s", set[i][0] != '\0' ? set[i] : otherwise[i]);
}

void config_tls_files(const struct config *c, const char *pki, char out[3][CONFIG_PATH_LEN])
{
    static const char *const names[3] = { "ca.crt", "host.crt", "host.key" };
    const char *const set[3] = { c->tls_ca, c->tls_cert, c->tls_key };
    char path[3][CONFIG_PATH_LEN];

    for (int i = 0; i < 3; i++)
        snprintf(path[i], CONFIG_PATH_LEN, "%.*s/%s", CONFIG_PATH_LEN - 16, pki, names[i]);
    tls_files(set, (const char *const[]){ path[0], path[1], path[2] }, out);
}

void config_libvirt_tls_files(const struct config *c, const char *pki, char out[3][CONFIG_PATH_LEN])
{
    const char *const set[3] = { c->libvirt_tls_ca, c->libvirt_tls_cert, c->libvirt_tls_key };
    char path[3][CONFIG_PATH_LEN];

    config_tls_files(c, pki, path);
    tls_files(set, (const char *const[]){ path[0], path[1], path[2] }, out);
}

const char *config_key(size_t i, const char **help)
{
    if (i >= N_KEYS)
        return NULL;
    if (help != NULL)
        *help = keys[i].help;
    return keys[i].name;
}

int config_check(const struct config *c, struct err *e)
{
    if ((c->tls_cert[0] == '\0') != (c->tls_key[0] == '\0'))
        return err_set(e, ERR_INVALID,
            "relocation-tls-cert and relocation-tls-key belong together: set both or neither");
    if ((c->libvirt_tls_cert[0] == '\0') != (c->libvirt_tls_key[0] == '\0'))
        return err_set(e, ERR_INVALID,
            "libvirt-tls-cert and libvirt-tls-key belong together: set both or neither");
    if (c->libvirt_tls && c->libvirt_tls_allow[strspn(c->libvirt_tls_allow, " ")] == '\0')
        return err_set(e, ERR_INVALID,
            "libvirt-tls = yes needs libvirt-tls-allow, the names in certificates that are let in");
    return 0;
}

/* ---- printing ---- */

/* Comment lines of at most 96 columns. */
static void print_comment(FILE *f, const char *text)
{
    while (*text != '\0') {
        size_t n = strlen(text);

        if (n > 94) {
            n = 94;
            while (n > 0 && text[n] != ' ')
                n--;
        }
        fprintf(f, "# %.*s\n", (int)n, text);
        text += n;
        while (*text == ' ')
            text++;
    }
}

static bool needs_quotes(const char *v)
{
    size_t n = strlen(v);

    return n == 0 || v[0] == ' ' || v[n - 1] == ' ' || v[0] == '#' || strstr(v, " #") != NULL;
}

/* A value that is the default is printed as a comment, so that the file shows what was decided. */
static void print_key(
    FILE *f, const struct config *c, const struct config *defaults, const struct key *k)
{
    char value[CONFIG_VALUE_MAX], normal[CONFIG_VALUE_MAX];
    bool is_list = k->offset == offsetof(struct config, relocation_hosts_allow);
    bool is_default;

    get_key(c, k, value, sizeof value);
    get_key(defaults, k, normal, sizeof normal);
    is_default = is_list ? !c->relocation_hosts_allow_set : strcmp(value, normal) == 0;
    if (k->group != NULL)
        fprintf(f, "\n#\n# %s\n#\n", k->group);
    fputc('\n', f);
    print_comment(f, k->help);
    fprintf(f, needs_quotes(value) ? "%s%s = \"%s\"\n" : "%s%s = %s\n", is_default ? "#" : "",
        k->name, value);
}

char *config_print(const struct config *c)
{
    struct config defaults;
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    bool failed;

    if (f == NULL)
        return NULL;
    config_defaults(&defaults);
    fputs("# migrd.conf: configuration of migrd(8); described in migrd.conf(5).\n"
          "# Lines that begin with '#' are comments; values shown in them are the defaults.\n"
          "# `migrd -n` checks this file; a reload of the service makes it take effect.\n",
        f);
    for (size_t i = 0; i < N_KEYS; i++)
        print_key(f, c, &defaults, &keys[i]);
    failed = ferror(f) != 0;
    if (fclose(f) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
