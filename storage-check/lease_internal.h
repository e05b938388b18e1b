/* SPDX-License-Identifier: ISC */
/*
 * lease, inside: the record and its codec, the judgement of records that are found (both pure),
 * the state machine, and what a kind of storage implements (lease_ops). lease.c owns the
 * struct and its thread; a kind owns what `kind` points at. Nobody outside storage-check
 * includes this but tests.
 */
#ifndef STORAGE_CHECK_LEASE_INTERNAL_H
#define STORAGE_CHECK_LEASE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "storage-check/disk_internal.h"
#include "storage-check/lease.h"
#include "storage-check/lease_who.h"

/* ---- the record */

#define LEASE_RECORD_SIZE 512u
#define LEASE_SUFFIX ".migrd-lease"
#define LEASE_VALID_MIN_MS 200u
#define LEASE_VALID_MAX_MS 600000u

/* Before a domain of which only a hash is known, in place of its uuid. */
#define LEASE_HASHED "of-hash-"

/* What stands on the storage: the public part, and what only leases care for. */
struct lease_note {
    struct lease_record r;
    bool claimed;   /* being taken: nobody has written under it yet */
    uint64_t nonce; /* of the process that took it, never 0 */
    struct lease_who who;
    uint32_t valid_ms;
    bool has_was; /* user id, group id and mode that the disk had before leases changed them */
    uint32_t was_uid, was_gid, was_mode;
};

/* The texts of n must be valid (lease_note_ok); anything else is a bug and gives all zeroes. */
void lease_encode(const struct lease_note *n, uint8_t out[LEASE_RECORD_SIZE]);
/* Accepts exactly what lease_encode makes. */
int lease_decode(const uint8_t *data, size_t len, struct lease_note *out, struct err *e);
/* Writes its last line, the checksum, anew. */
void lease_mend(uint8_t record[LEASE_RECORD_SIZE]);
bool lease_note_ok(const struct lease_note *n);

/* Name of a record in the folder of an NFS disk: "EPOCH.UUID". */
#define LEASE_ENTRY_LEN 60
void lease_entry_name(uint64_t epoch, const char *uuid, char out[LEASE_ENTRY_LEN]);
bool lease_entry_parse(const char *name, uint64_t *epoch, char uuid[37]);

/* ---- the judgement */

struct lease_bid {
    const char *owner, *uuid;
    const struct lease_who *who;
    uint64_t epoch, nonce;
    enum lease_claim claim;
};

enum lease_verdict {
    LEASE_TAKE,  /* no obstacle */
    LEASE_WATCH, /* only if it stays unchanged for longer than it may */
    LEASE_OLDER, /* the storage knows this epoch of another's, or a newer one */
};

/* One record that was found against our bid. */
enum lease_verdict lease_judge(const struct lease_note *found, const struct lease_bid *b);
/* How long a record must stay unchanged before its holder counts as gone. */
uint64_t lease_watch_ns(uint32_t its_valid_ms, uint32_t our_valid_ms);
/* The error for a verdict. */
int lease_refuse(struct err *e, enum lease_verdict v, const struct lease_note *found,
    const struct lease_bid *b, const char *source);

/* ---- keys of SCSI reservations */

uint64_t lease_key(const char *host, uint64_t machine, const char *uuid, uint64_t epoch);
bool lease_key_ours(uint64_t key); /* has our layout */
uint64_t lease_key_epoch(uint64_t key);
uint32_t lease_key_host(uint64_t key);
uint32_t lease_key_domain(uint64_t key);

/* ---- states */

enum lease_state { LS_PREPARED, LS_HELD, LS_UNSURE, LS_LOST, LS_RELEASED, LS_MAX };
enum lease_happened { LH_TAKEN, LH_RENEWED, LH_LATE, LH_FOREIGN, LH_RELEASED, LH_MAX };

enum lease_state lease_next(enum lease_state s, enum lease_happened h);
const char *lease_state_name(enum lease_state s);

/* ---- a kind of storage */

enum lease_seen {
    LEASE_SEEN_OURS,    /* the storage says that it is ours */
    LEASE_SEEN_NOTHING, /* it could not be asked, or does not know */
    LEASE_SEEN_FOREIGN, /* it is certain that another owner has it */
};

struct lease;

/* Calls of one lease come one at a time, with l->io held, and end by l->deadline_ns, which `take`
 * may move on while it watches a foreign record. Each member is there. */
struct lease_ops {
    int (*open)(struct lease *l, struct err *e);
    /* Under `epoch`; on success l->epoch, fence and note are set. */
    int (*take)(struct lease *l, uint64_t epoch, enum lease_claim claim, struct err *e);
    enum lease_seen (*renew)(struct lease *l, struct err *e);
    int (*release)(struct lease *l, struct err *e);
    /* After open succeeded or failed; once. */
    void (*close)(struct lease *l);
};

extern const struct lease_ops lease_nfs_ops, lease_iscsi_ops, lease_file_ops;

int lease_nfs_read(const struct storage_url *u, const struct disk_options *o,
    struct lease_record *out, struct err *e);
int lease_nfs_remove(
    const struct storage_url *u, const struct disk_options *o, uint64_t epoch, struct err *e);
int lease_iscsi_read(
    const char *source, const struct disk_options *o, struct lease_record *out, struct err *e);
int lease_iscsi_remove(
    const char *source, const struct disk_options *o, uint64_t epoch, struct err *e);
int lease_file_read(const char *path, struct lease_record *out, struct err *e);
int lease_file_remove(const char *path, uint64_t epoch, struct err *e);

struct lease {
    const struct lease_ops *ops;
    void *kind; /* the kind's own */
    /* as wished; strings are ours */
    char *source;
    struct storage_url url;
    struct disk_options options;
    char owner[LEASE_OWNER_MAX], uuid[37];
    uint64_t nonce;
    uint32_t valid_ms;
    unsigned nfs_uid_base;
    struct disk *disk;
    void (*lost)(void *arg, const char *text);
    void (*sure)(void *arg, bool sure, const char *text);
    void *arg;

    pthread_mutex_t io; /* around calls of ops; taken before `lock` */
    uint64_t epoch;     /* under io: that was taken last */
    uint64_t deadline_ns;
    uint64_t drained_ns; /* lease_clock(); from then on nothing of an owner before gets through */

    pthread_mutex_t lock; /* what follows */
    pthread_cond_t wake;
    pthread_t thread;
    enum lease_state state;
    bool hurry; /* renew now */
    bool told_unsure;
    char fence[16], note[400];

    atomic_bool stop;
    atomic_bool yielded;         /* changed under io */
    _Atomic uint64_t sure_until; /* lease_clock(); 0 never */
};

/*
 * The clock of leases. It goes on while the host is suspended, which the other monotonic clock
 * does not: a lease must not look fresh after that.
 */
static inline uint64_t lease_clock(void)
{
    return clock_of(CLOCK_BOOTTIME);
}

void lease_set_fence(struct lease *l, const char *fence, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* From any thread: renew as soon as possible. */
void lease_hurry(struct lease *l);
struct lease_bid lease_bid_of(const struct lease *l, uint64_t epoch, enum lease_claim claim);
/* Sleeps; ERR_CANCELLED when the lease is being closed. Moves the deadline on by as much. */
int lease_pause(struct lease *l, uint64_t ns, struct err *e);
uint64_t lease_random(void); /* never 0 */

#endif
