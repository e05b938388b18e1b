/* SPDX-License-Identifier: ISC */
/*
 * migration: hand-overs of domains, out and in, and saves and restores, from request to
 * report. The rules are migration_table's; here are its inputs (worker messages, results
 * of journal and hypervisor, operators, timers) and its operations. A migration does not
 * need whoever asked for it: watchers may come and go. All in the loop's thread.
 */
#ifndef MIGRATION_H
#define MIGRATION_H

#include "migrd/control.pb-c.h"
#include "migrd/journal.h"
#include "migrd/registry.h"

#define MIGRATIONS_KEPT 50         /* finished ones, with their reports */
#define MIGRATION_SPARE_SESSIONS 8 /* incoming sessions beyond the limit: questions, refusals */
#define MIGRATION_WATCHERS_MAX 32
#define MIGRATION_TELL_TRIES 20 /* of telling a target that we took our guest back */

struct migration;

/* Makes m->migrations; with the journal open and the registry filled, takes up what a crash left.
 */
int migrations_open(struct migrd *m, struct err *e);
/* Replays the journal's ownership into the registry; before registry_open. */
int migrations_read_journal(struct migrd *m, struct err *e);
/* SIGTERM: asks workers that may still stop to do so. */
void migrations_cancel_all(struct migrd *m, const char *reason);
/* Workers that still run. */
unsigned migrations_active(const struct migrd *m);
/* Handles closed, watchers told nothing more. Workers go on by themselves. */
void migrations_stop(struct migrd *m);
void migrations_close(struct migrd *m);

/* Could it leave this host now, to wherever? */
int migration_may_leave(const struct migrd *m, const struct domain *d, struct err *e);
/* Or do as many leave as may at once? */
bool migration_has_room(const struct migrd *m);
/* Starts one; *out lives at least until its last watch call. */
int migration_start(struct migrd *m, struct domain *d, const Migrd__Migrate *rq,
    struct migration **out, struct err *e);
/* The same request, but nothing moves: its report has a forecast. */
int migration_dry_run(struct migrd *m, struct domain *d, const Migrd__Migrate *rq,
    struct migration **out, struct err *e);
/* A file that a worker writes or reads, and what becomes of the guest. */
struct migration_file {
    const char *path;
    bool running, paused; /* save: how it will be restored; restore: how it is; neither: as it was */
    bool live;            /* dump: the guest runs on meanwhile */
    bool crash;           /* dump: and is ended afterwards */
    bool drop_cache;      /* the file need not stay in the host's memory */
};
int migration_save(struct migrd *m, struct domain *d, const struct migration_file *f,
    struct migration **out, struct err *e);
int migration_restore(
    struct migrd *m, const struct migration_file *f, struct migration **out, struct err *e);
/* Memory and registers to a core file. */
int migration_dump(struct migrd *m, struct domain *d, const struct migration_file *f,
    struct migration **out, struct err *e);
/* The guest goes to another host. */
bool migration_leaves(const struct migration *g);
/* By id, or by domain name, uuid or id; those that are not finished. */
struct migration *migration_find(struct migrd *m, const char *which);
/* Under way or ended; NULL: not known any more. */
struct migration *migration_by_id(struct migrd *m, const char *id);
int migration_cancel(struct migrd *m, struct migration *g, struct err *e);
int migration_tune(struct migration *g, const Migrd__SetParams *p, struct err *e);
/* What holds for the domain's migration under way, or would for the next one. */
struct migration_wishes migration_wishes(const struct migrd *m, const struct domain *d);
/* The operator's word where there is no proof. `risk` (may be NULL) gets the text of what it means.
 */
int migration_resolve(struct migrd *m, const char *domain, const Migrd__Resolve *rq, char *text,
    size_t len, struct err *e);

/* A change of owner without a hand-over, of a domain that does not run. */
struct migration_owner {
    const char *uuid, *name;
    const char *host; /* "" this one */
    uint64_t epoch;
    const char *why;  /* for the journal */
    bool by_operator; /* without proof */
    bool decided;     /* by the cluster's log, which else refuses it for protected domains */
};
/* `done` (may be NULL) when it is durable, and the registry knows. Copies *w. */
int migration_set_owner(struct migrd *m, const struct migration_owner *w, registry_done *done,
    void *arg, struct err *e);

/* `fn` is called with each progress and once, with last, at the end. */
typedef void migration_watch_fn(void *arg, struct migration *g, bool last);
int migration_watch(struct migration *g, migration_watch_fn *fn, void *arg);
void migration_unwatch(struct migrd *m, migration_watch_fn *fn, void *arg);
/* In the last call: 0, or -1 and why it failed. */
int migration_outcome(const struct migration *g, struct err *e);
/* The same for whoever gave the order: names domain and host, and what became of the guest. */
int migration_told(const struct migration *g, struct err *e);

/* Fills a message whose pointers are the migration's: pack it at once. */
void migration_info(const struct migration *g, Migrd__MigrationInfo *out);
/* Next of those under way (after NULL: the first), then of the finished ones. */
struct migration *migration_next(struct migrd *m, struct migration *after, bool finished);
bool migration_in_doubt(const struct migration *g);
/* Its guest stands still for the hand-over, or is about to: only the hand-over makes it run. */
bool migration_holds(const struct migration *g);
/* "migrating", "in doubt", "saving", ...: for a domain's state column. */
const char *migration_domain_state(const struct migration *g);

/* The hypervisor says that the domain ended or is gone. */
void migration_guest_ended(struct migrd *m, struct domain *d);

/* The name by which another host reaches this one: with TLS one that its certificate has. */
void migration_own_name(const struct migrd *m, char *out, size_t len);

/* Relocation: a session's socket after "220 go ahead" (not closed here); ERR_RESOURCE when full. */
int migration_session(
    struct migrd *m, int fd, const char *address, const char *name, struct err *e);
/* True if one more session would be taken. */
bool migration_session_room(const struct migrd *m);
/* A further channel of that session. */
int migration_channel(
    struct migrd *m, const char *session, unsigned channel, int fd, struct err *e);

#endif
