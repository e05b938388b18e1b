/* SPDX-License-Identifier: ISC */
/*
 * journal: what must survive a crash of migrd or of the host: each domain's owner and
 * epoch, and each step of each hand-over. An append-only text file, one checksummed
 * line per record (format in journal.c), fsync'ed before journal_append returns.
 * Thread-safe: appends come from the pool, reads from the loop. Opening it replays it,
 * cuts off a torn last line, and rewrites it with the live records only; so does an append
 * that finds it grown to twice that.
 */
#ifndef JOURNAL_H
#define JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "hypervisor/hypervisor.h"
#include "migrd/migration_table.h"

#define JOURNAL_LINE_MAX 2048
#define JOURNAL_SHOWN 2000         /* lines kept in memory for journal_tail */
#define JOURNAL_INCOMING_KEPT 1000 /* ended incoming migrations that can still be asked about */

enum journal_kind {
    JK_DOMAIN, /* owner and epoch of a domain changed */
    JK_OUT,    /* a step of an outgoing migration */
    JK_IN,     /* a step of an incoming one */
    JK_DOUBT,  /* the journal was damaged where it spoke of this domain */
    JK_NOTE,   /* for people */
    JK_MAX
};

#define JF_WAS_PAUSED 1u /* the guest was paused before the migration began */
#define JF_STAY_PAUSED 2u
#define JF_CHANGE_HOME 4u
#define JF_TLS 8u
#define JF_FORCED 16u /* an operator decided without proof */
#define JF_PERSISTENT 32u
#define JF_UNDEFINE 64u /* source: the definition goes when the guest has */
#define JF_PROTECTED 128u /* the cluster's log decides whose the domain is */

struct journal_record {
    enum journal_kind kind;
    enum mt_step step;     /* JK_OUT, JK_IN */
    uint64_t seq, wall_ns; /* set by append */
    char migration[HV_UUID_LEN];
    char uuid[HV_UUID_LEN];
    char name[HV_NAME_LEN];
    char peer[256]; /* JK_DOMAIN: the owner's host; else the other side */
    char cert[128]; /* name in the other side's certificate */
    unsigned port;
    uint64_t epoch;
    int domid; /* JK_DOMAIN: last number given here; 0 none */
    unsigned flags;
    char text[400];
};

struct journal;

/* *n_doubts: damaged lines in the middle; each is logged, and JK_DOUBT records name the domains (a
 * uuid of "*": the line does not say which). Makes the file if there is none. */
int journal_open(const char *path, struct journal **out, size_t *n_doubts, struct err *e);
void journal_close(struct journal **j);

/* Writes and, if `sync`, fsyncs. Unsynced records survive a crash of migrd, not one of the host. On
 * failure nothing of the record is left in the file, and the step must not be taken. */
int journal_append(struct journal *j, struct journal_record *r, bool sync, struct err *e);

/* The same for several records at once: all of them or none. */
int journal_append_all(
    struct journal *j, struct journal_record *r, size_t n, bool sync, struct err *e);
#define JOURNAL_BATCH_MAX 4

/* The records that were live at open, oldest first. */
void journal_replay(
    const struct journal *j, void (*fn)(void *arg, const struct journal_record *r), void *arg);

/* The last `n` lines for people, oldest first; `uuid` "" for all. */
void journal_tail(struct journal *j, size_t n, const char *uuid,
    void (*fn)(void *arg, uint64_t wall_ns, const char *text), void *arg);

/* Duration of the slowest fsync so far and the number of appends, for metrics. */
void journal_stats(struct journal *j, uint64_t *appends, uint64_t *slowest_ns);

/* One line with its end into `out` (JOURNAL_LINE_MAX), and back; for tests and tools. */
size_t journal_format(char *out, const struct journal_record *r);
int journal_parse(const char *line, size_t len, struct journal_record *r, struct err *e);

#endif
