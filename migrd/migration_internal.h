/* SPDX-License-Identifier: ISC */
/*
 * migration_internal: what migration.c (lists, queue of events, jobs), migration_source.c,
 * migration_target.c, migration_query.c, migration_recover.c, migration_log.c and
 * migration_save.c share.
 */
#ifndef MIGRATION_INTERNAL_H
#define MIGRATION_INTERNAL_H

#include "migrd/ha.h"
#include "migrd/job.h"
#include "migrd/migration.h"
#include "migrd/worker.h"
#include "transport/transport.h"

#define QUEUE_MAX 32
#define ASKERS_MAX 8

enum mig_kind { MIG_OUT, MIG_IN, MIG_SAVE, MIG_RESTORE, MIG_DRY, MIG_DUMP };

enum { DRY_WORKING, DRY_ENDED }; /* states of a MIG_DRY */

struct mig_event {
    int event;
    char asker[TR_SESSION_LEN]; /* QUERY*: the session that asks */
};

struct watch {
    migration_watch_fn *fn; /* NULL: free */
    void *arg;
};

struct migration {
    struct migration *next;
    struct migrd *m;
    enum mig_kind kind;
    int state; /* src_state, tgt_state; save and restore: bool ended */
    char id[HV_UUID_LEN];
    char session[TR_SESSION_LEN]; /* MIG_IN */
    char uuid[HV_UUID_LEN], name[HV_NAME_LEN];
    char peer[256];  /* MIG_OUT: as asked for; MIG_IN: the source's name */
    char owner[256]; /* MIG_OUT: the target's own name */
    char expected[256]; /* MIG_OUT: what that name must be; "" any */
    char address[64], peer_name[256], cert[128]; /* MIG_IN */
    char path[512];                              /* save, restore, dump */
    bool as_saved;   /* MIG_RESTORE: paused if it was saved so */
    bool ends_guest; /* MIG_DUMP: it is destroyed when its core is written */
    unsigned port, flags;
    uint64_t epoch; /* the target's: the source's own is one less, after a reclaim one more */
    int domid;      /* MIG_IN, MIG_RESTORE */
    Migrd__PrecopyParams params;
    Migrd__Domain *def;
    Migrd__Domain *home; /* MIG_OUT, MIG_DRY at the source: Offer.home; NULL none */
    Migrd__Offer *offer;
    Migrd__HostFacts *facts;    /* MIG_OUT, MIG_DRY at the source: of this host */
    Migrd__CheckReport *checks; /* MIG_IN: what the offer came to */
    struct err taken;           /* MIG_IN: why the domain may have no entry; checks go on */
    struct worker *worker;
    bool is_query; /* MIG_IN: a session that only asks */
    bool asks_go;  /* and its source has committed a protected domain */
    bool logged;   /* the cluster's log decides whose it is */
    uint32_t node; /* MIG_OUT, logged: the target's; 0 not known since a restart */
    struct log_ask *ask; /* the question that is open; not owned */
    char lost_to[256];   /* MIG_OUT: the log gave it to that host, */
    uint64_t lost_epoch; /* under that epoch */
    bool is_over;  /* in the finished list, or about to be */
    bool draining, cancelled;
    bool prepared;  /* MIG_OUT: the target may hold a complete copy */
    bool reclaimed; /* MIG_OUT: taken back after COMMITTED */
    struct mig_event queue[QUEUE_MAX];
    unsigned n_queue, jobs;
    char askers[ASKERS_MAX][TR_SESSION_LEN];
    unsigned n_askers;
    uv_timer_t timer; /* back-off of questions */
    bool timer_open;
    unsigned tries;
    Migrd__Progress *progress;
    Migrd__Finished *report;
    uint64_t journal_us, resume_us; /* how long the last step took, for the worker's report */
    bool ran;                       /* MIG_IN: resumed in the job that wrote RUNNING, and how it went: */
    int ran_result;
    struct err ran_err;
    struct err failure; /* why it failed; first reason stands */
    char failed_in[24]; /* the state, or before a restart the journal's step, in which it came */
    char fate[200];     /* what becomes of the domain; "" until it has failed */
    bool not_resumed;   /* MIG_OUT: the guest should run here and could not be made to */
    bool given_away;    /* MIG_OUT: the journal has DONE and the new owner */
    struct err op_error;
    char reason[200]; /* operator's */
    struct watch watch[MIGRATION_WATCHERS_MAX];
    uint64_t start_wall_ns, end_wall_ns;
};

/* An incoming migration that has ended: what to answer when its source asks. */
struct ended_in {
    struct ended_in *next;
    char id[HV_UUID_LEN], uuid[HV_UUID_LEN], cert[128];
    Migrd__Outcome outcome;
    uint64_t epoch;
};

/* A host that is being asked what it is; facts_query.c. */
struct facts_ask;

/* A domain of ours that a target may still hold: it is told that we took it back. */
struct teller;

struct migrations {
    struct migration *active, *finished;
    struct ended_in *ended; /* newest first */
    struct teller *tellers;
    struct facts_ask *asks;
    struct link_history *history; /* costs of earlier ones; NULL: no memory for it */
    struct journal_record *open; /* unfinished ones, from the journal */
    size_t n_open, cap_open;
    unsigned looks;              /* in the pool; mig_look_run */
    struct mig_job *looks_first; /* those that wait */
    bool stopping;
};

/* --- migration.c --- */

struct migration *mig_new(struct migrd *m, enum mig_kind kind);
struct migration *mig_by_session(struct migrd *m, const char *session);
/* Feeds an event to the migration's table; operations follow at once or later. */
void mig_post(struct migration *g, int event);
void mig_post_from(struct migration *g, int event, const char *asker);
/* Keeps the first reason. */
void mig_fail(struct migration *g, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void mig_tell_watchers(struct migration *g, bool last);
/* One sentence of the log about what went wrong and what is done about it. */
void mig_say_failure(struct migration *g, const struct err *e);
void mig_say_given_away(const struct migration *g);
void mig_say_doubt(const struct migration *g, unsigned wait_s);
void mig_say_restart(const struct journal_record *r, enum mt_copy copy, enum mt_op op);
/* The migration has ended: history, counters, summary, watchers. It is freed later, once no
 * worker and no job holds it. */
void mig_close(struct migration *g);
/* Copies a host's name or address; what cannot be part of one becomes '?'. */
void mig_host_text(char *out, size_t len, const char *in);
void mig_take_progress(struct migration *g, const Migrd__Progress *p);
void mig_take_report(struct migration *g, const Migrd__Finished *f);
struct domain *mig_domain(const struct migration *g);
void mig_worker_tls(const struct migrd *m, Migrd__WorkerTls *out, char path[3][PATHS_LEN]);

/* What this host is looked at for, and what was found; migration_look.c. */
struct mig_look {
    char host[256];
    Migrd__Domain *def, *home;      /* the latter NULL: none comes */
    Migrd__StorageRequest *storage; /* NULL: no disk is looked at */
    char places[sizeof((struct config *)0)->storage_places]; /* where all that must be; "" anywhere */
    uint64_t since;                 /* the registry's counter when it began */
    Migrd__HostFacts *facts;
    Migrd__StorageReply *disks;
    bool no_kernel, no_initrd;
};
/* Of the migration's domain; with `disks` as its offer wants. NULL only without memory. */
struct mig_look *look_new(const struct migration *g, bool disks);
void look_free(struct mig_look **look);
/* Of an offer: the definition that this host is to keep, if it is not what runs; NULL none. */
const Migrd__Domain *look_home(const struct migration *g);
/* Is it one of that domain? */
int look_check_home(const struct migration *g, struct err *e);
/* In the pool. */
int look_work(struct mig_look *l, const struct hv_ops *ops, struct hv *hv, struct err *e);
void look_job_work(struct job *j);
/* In the loop: the verdict on the offer; its report is the migration's. `taken`: why there can be no
 * entry for it, or NULL. */
int look_judge(struct migration *g, struct mig_look *l, const struct err *taken, struct err *e);
/* How this host looks at disks; the pointers are the daemon's, and `secrets`. */
void mig_storage_request(
    const struct migrd *m, Migrd__StorageRequest *out, char secrets[PATHS_LEN + 32]);
/* What only the daemon knows of this host, into `f`. */
void mig_own_facts(const struct migrd *m, const struct domain *without, uint64_t since,
    Migrd__HostFacts *f, struct registry_promises *promised);

/* Jobs: an operation with a result, in the pool; posts OP_OK or OP_FAILED. */
struct mig_job {
    struct job job; /* first */
    struct migration *g;
    enum mt_op op;
    enum mig_kind kind;
    const struct hv_ops *ops;
    struct hv *hv;
    struct journal *journal;
    struct journal_record rec[JOURNAL_BATCH_MAX];
    size_t n_rec;
    bool sync, leave_paused;
    bool decided; /* by an operator, not by the other host */
    bool blown;   /* MT_START: it begins with a blown fuse */
    bool denied;  /* the storage says whose the disks are, or that they are not ours: definite */
    char uuid[HV_UUID_LEN];
    uint64_t epoch;
    int domid;
    Migrd__Domain *def;
    struct mig_look *look; /* owned; NULL none */
    struct mig_job *next;  /* of the looks that wait */
    void (*then)(struct mig_job *mj); /* in the loop, before the event; NULL none */
    bool quiet;                       /* posts no event */
    uint64_t journal_us, resume_us;
    int ran_result; /* of a resume in the same job as its record */
    struct err ran_err;
};
struct mig_job *mig_job_new(struct migration *g, enum mt_op op);
void mig_job_run(struct mig_job *mj, void (*work)(struct job *j));
/* A look at disks, which may wait for a server that hangs: only so many at once, the others wait,
 * so that journal and resumes find a thread. */
#define LOOKS_MAX 8
void mig_look_run(struct mig_job *mj);
/* The end of a job whose work has been done already. */
void mig_job_end(struct mig_job *mj);
void mig_journal_work(struct job *j);
/* In the pool: resumes, and makes sure whether it runs if the answer is lost. *gone: the process is,
 * and whether the guest ran nobody knows. */
int mig_resume(struct mig_job *mj, bool *gone, struct err *e);
/* Instead: it is a paused guest of this host now, and may move on as such. */
void mig_leave_paused(struct mig_job *mj);
/* In the pool, before a record says that the guest runs here: where this host cannot have the disks,
 * it must not. */
int mig_claim(struct mig_job *mj, struct err *e);
/* An operator's decision came to nothing: what follows is not his. */
void mig_not_decided(struct migration *g);
/* Record of that step with the migration's identity. */
void mig_record(const struct migration *g, enum mt_step step, struct journal_record *r);
void mig_owner_record(
    const struct migration *g, const char *owner, uint64_t epoch, struct journal_record *r);
/* Writes a step that only helps a restart; no event follows. */
void mig_note_step(struct migration *g, enum mt_step step);

/* --- sides --- */

void src_run(struct migration *g, enum mt_op op);
/* Data channels where nobody asked for a number: each keeps a CPU busy on both hosts, and the guests
 * keep half of them. */
#define AUTO_CHANNELS_TLS 4
#define AUTO_CHANNELS_PLAIN 2
unsigned mig_auto_channels(bool tls, unsigned cpus);
void tgt_run(struct migration *g, enum mt_op op);
/* The migration has ended, and holds the domain no longer: as asked for, its definition goes. */
void src_undefine(struct migration *g);
/* Answers those who asked, if the state allows an answer. */
void tgt_answer(struct migration *g);
int tgt_check_offer(struct migration *g, struct err *e);
/* Is there room for one more session? */
int tgt_check_session(const struct migration *g, struct err *e);
/* Do the other checks go on after that one, so that the report is whole? */
bool tgt_goes_on(const struct err *e);
/* Back from a look: the verdict, and if it is good the memory is promised. */
int tgt_check_host(struct migration *g, struct mig_look *l, struct err *e);
/* Answers the worker's OfferSeen; no: with op_error. */
void tgt_verdict(struct migration *g, bool ok);

/* May this domain leave, to where the request says? */
int src_check_request(
    const struct migrd *m, const struct domain *d, const Migrd__Migrate *rq, struct err *e);
/* Domain, target and parameters of a request; the domain is held. */
int src_take_request(
    struct migration *g, struct domain *d, const Migrd__Migrate *rq, struct err *e);
/* A worker's job, and its store. */
struct src_start {
    Migrd__SourceStart s;
    Migrd__WorkerTls tls;
    Migrd__LinkHistory history;
    Migrd__StorageRequest storage;
    char path[3][PATHS_LEN], secrets[PATHS_LEN + 32];
};
void src_fill_start(struct migration *g, struct src_start *out);
/* After a look at this host: what was seen goes into the offer. */
void src_keep_facts(struct migration *g, struct mig_look *l);
/* A code by its name; ERR_INTERNAL if there is none of that name. */
enum err_code mig_code_of(const char *name);

/* --- the cluster's log; migration_log.c --- */

/* Asks it; one question of a migration at a time, the one before is given up. */
void mig_log_ask(struct migration *g, enum mt_op op);
void mig_log_forget(struct migration *g);
/* Asks again soon. */
void mig_log_wait(struct migration *g);
/* A node by its name, short or long, or its address; 0: none. */
uint32_t mig_log_node(const struct migrd *m, const char *host);
/* *node: the target's, 0 if the domain is not protected. */
int mig_log_may_leave(
    const struct migrd *m, const struct domain *d, const char *host, uint32_t *node, struct err *e);
int mig_log_may_come(const struct migration *g, struct err *e);
/* Target: the log is told that it will never run it; then the session gets its answer, or none. */
void mig_log_never(struct migration *session, const char *uuid, uint64_t epoch,
    Migrd__Outcome outcome, const char *text);

/* --- dry runs --- */

/* Target: a session asks. */
void dry_offer(struct migration *g, const Migrd__OfferSeen *o);
/* Source: what migrations on this link cost; false: not known. */
bool dry_history(const struct migration *g, Migrd__LinkHistory *out);
/* Source: a report has come; puts the forecast of a fresh dry run into it, and learns. */
void dry_score(struct migration *g);

/* --- questions --- */

/* Source: asks the target; posts an SRC_EV_ANS_ event. */
void query_start(struct migration *g);
/* Source: tells the target, in the background and with patience, that it must not run it. */
void query_tell_abort(struct migrd *m, const struct migration *g);
void query_stop_all(struct migrd *m);
/* Target: a session asks. */
void query_seen(struct migration *session, const Migrd__QuerySeen *q);
void query_reply(
    struct migration *session, Migrd__Outcome outcome, uint64_t epoch, const char *text);
/* The same about a migration of that domain under that epoch: a "never" of a protected one is told
 * to the cluster's log first. */
void query_answer(struct migration *session, const char *uuid, Migrd__Outcome outcome,
    uint64_t epoch, const char *text);
void query_remember(struct migrd *m, const struct migration *g, Migrd__Outcome outcome);

void save_message(struct migration *g, const Migrd__FromWorker *fw);
const char *save_state_name(const struct migration *g);

#endif
