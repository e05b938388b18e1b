/* SPDX-License-Identifier: ISC */
/*
 * Leases on iSCSI: SCSI-3 persistent reservations, type "write exclusive, registrants only".
 *
 * The key that a host registers is its claim; lease_record.c has its layout: an 'm', the domain (12
 * bits of a hash), the host (20 bits of a hash of its name and its machine id), the epoch (24
 * bits). The holder of the reservation holds the lease. Registrations belong to the session that
 * carries the guest's data, so all commands go through the disk's own connection; a preparing host
 * registers nothing, so that it cannot write by accident.
 *
 * Taking, under an epoch E:
 *   1  READ KEYS, READ RESERVATION; lease_judge decides on each key. Keys of another layout belong
 * to another program: refused. A key to be watched: nothing on the LUN may register for valid_ms
 * and a fifth more (below); hosts with unequal storage-lease-time must not share a LUN. 2  REGISTER
 * AND IGNORE EXISTING KEY 3  nobody holds: RESERVE. Another does: PREEMPT AND ABORT its key, or,
 * where the target has none (tgt), PREEMPT, and a LUN RESET behind it, because up to 10 of 200
 * writes in flight were seen to complete after PREEMPT alone. Both name the key that is expected,
 * so of two hosts that take at once one gets RESERVATION CONFLICT, and looks again. 4  other old
 * keys: PREEMPT 5  look again: we hold it, and no key of another is left. From step 3 on the target
 * itself refuses the writes of the epoch before.
 *
 * Renewing: REGISTER of the same key again. It fails when the registration is gone, and it counts
 * the target's generation up, which is the beat that others watch. Then READ RESERVATION.
 *
 * Losing a registration is not losing the lease: on tgt a registration ends with its session, and a
 * restart of the target forgets all of them. After each new connection the disk's gate is shut, and
 * before a request goes out:
 *   a newer epoch's key is there            LOST: we never register again by ourselves
 *   our key is still there                  register on this session, go on
 *   none of ours, and the lease is sure     nobody can have taken it: register, reserve, go on
 *   none of ours, and not sure              whoever took it meanwhile would be there with his key,
 * unless the target forgot that one, too: wait for 2 x valid_ms, in which he registers again (he is
 * sure, or he waits as we do, and the newer epoch wins); then register, reserve, go on the holder's
 * key is older than ours     we win: PREEMPT What this cannot tell: that a host which was started
 * as PROVEN, while this one was only cut off, ran and ended again before this one came back,
 * leaving nothing. "Proved not to run" must be true.
 *
 * Released: no key, no reservation; so nothing remembers the last epoch of a LUN that nobody
 * holds. Where the target can keep reservations through a restart (APTPL), it is asked to.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <iscsi/scsi-lowlevel.h> /* wants size_t */

#include "base/fault.h"
#include "storage-check/lease_internal.h"

#define WE_RO SCSI_PERSISTENT_RESERVE_TYPE_WRITE_EXCLUSIVE_REGISTRANTS_ONLY
#define KEYS_MAX 64u
#define TRIES 8u      /* of taking, against others that take at the same time */
#define ATTENTIONS 6u /* unit attentions in a row before a command counts as failed */

struct lease_iscsi {
    bool none;     /* the target has no persistent reservations */
    bool aptpl;    /* it can keep them through a restart */
    bool no_abort; /* it has no PREEMPT AND ABORT */
    bool taken;
    uint64_t key;             /* that we registered last; 0 none */
    uint64_t forgotten_since; /* lease_clock(); 0: the target knows our key */
    unsigned forgotten_on;    /* the connection on which this was seen */
    atomic_uint connection;   /* the last one that came up; 0 none since we look */
    atomic_bool refuses;      /* the lease is lost: requests on new connections, too */
    unsigned admitted;        /* the last one that we let requests go on */
};

/* Who is registered, and who holds. */
struct view {
    uint32_t generation;
    unsigned n;
    uint64_t key[KEYS_MAX];
    bool reserved;
    uint64_t holder;
    unsigned type;
};

/* ---- one command */

enum what { PR_KEYS, PR_RESERVATION, PR_CAPABILITIES, PR_OUT, PR_RESET, PR_READY };

struct command {
    enum what what;
    enum scsi_persistent_out_sa action;
    struct scsi_persistent_reserve_out_basic out;
    struct view *view;
    bool ptpl;
    int status; /* SCSI_STATUS_*; PR_RESET: 0 done */
    unsigned sense_key, ascq;
};

static int in_action(enum what what)
{
    return what == PR_KEYS          ? SCSI_PERSISTENT_RESERVE_READ_KEYS
           : what == PR_RESERVATION ? SCSI_PERSISTENT_RESERVE_READ_RESERVATION
                                    : SCSI_PERSISTENT_RESERVE_REPORT_CAPABILITIES;
}

static int start(struct iscsi_context *c, unsigned lun, iscsi_command_cb cb, void *priv, void *arg)
{
    struct command *cmd = arg;
    int n = (int)lun;

    switch (cmd->what) {
    case PR_OUT:
        return iscsi_persistent_reserve_out_task(c, n, cmd->action,
                   SCSI_PERSISTENT_RESERVE_SCOPE_LU, WE_RO, &cmd->out, cb, priv) != NULL
                   ? 0
                   : -1;
    case PR_RESET:
        return iscsi_task_mgmt_lun_reset_async(c, lun, cb, priv);
    case PR_READY:
        return iscsi_testunitready_task(c, n, cb, priv) != NULL ? 0 : -1;
    case PR_KEYS:
    case PR_RESERVATION:
    case PR_CAPABILITIES:
        return iscsi_persistent_reserve_in_task(
                   c, n, in_action(cmd->what), 8 + KEYS_MAX * 8, cb, priv) != NULL
                   ? 0
                   : -1;
    }
    return -1;
}

static void unpack_keys(struct view *v, struct scsi_task *task)
{
    struct scsi_persistent_reserve_in_read_keys *k = scsi_datain_unmarshall(task);

    v->n = 0;
    if (k == NULL)
        return;
    v->generation = k->prgeneration;
    for (int i = 0; i < k->num_keys && v->n < KEYS_MAX; i++)
        v->key[v->n++] = k->keys[i];
}

static void unpack_reservation(struct view *v, struct scsi_task *task)
{
    struct scsi_persistent_reserve_in_read_reservation *r = scsi_datain_unmarshall(task);

    v->reserved = r != NULL && r->reserved;
    v->holder = v->reserved ? r->reservation_key : 0;
    v->type = v->reserved ? r->pr_type : 0;
}

static void result(int status, void *data, void *arg)
{
    struct command *cmd = arg;
    struct scsi_task *task = data;

    cmd->status = status;
    if (cmd->what == PR_RESET) {
        cmd->status =
            status == SCSI_STATUS_GOOD && data != NULL ? (int)*(uint32_t *)data : SCSI_STATUS_ERROR;
        return;
    }
    if (task == NULL) {
        cmd->status = SCSI_STATUS_ERROR;
        return;
    }
    if (status == SCSI_STATUS_CHECK_CONDITION) {
        cmd->sense_key = task->sense.key;
        cmd->ascq = (unsigned)task->sense.ascq;
    }
    if (status != SCSI_STATUS_GOOD)
        return;
    if (cmd->what == PR_KEYS)
        unpack_keys(cmd->view, task);
    if (cmd->what == PR_RESERVATION)
        unpack_reservation(cmd->view, task);
    if (cmd->what == PR_CAPABILITIES) {
        struct scsi_persistent_reserve_in_report_capabilities *c = scsi_datain_unmarshall(task);

        cmd->ptpl = c != NULL && c->ptpl_c;
    }
}

static unsigned ms_left(const struct lease *l)
{
    uint64_t now = lease_clock();

    return now < l->deadline_ns ? (unsigned)((l->deadline_ns - now) / NS_PER_MS) + 1 : 0;
}

/* 0: answered, see cmd->status. Unit attentions are news of the past, the command was not done. */
static int run(struct lease *l, struct command *cmd, struct err *e)
{
    struct disk_scsi s = {
        .start = start, .result = result, .arg = cmd, .management = cmd->what == PR_RESET
    };

    for (unsigned i = 0; i < ATTENTIONS; i++) {
        if (ms_left(l) == 0)
            return err_set(
                e, ERR_TIMEOUT, "disk %s: its lease: the target does not answer", l->source);
        if (disk_iscsi_run(l->disk, &s, ms_left(l), e) < 0)
            return err_prefix(e, "its lease");
        if (cmd->status != SCSI_STATUS_BUSY && (cmd->status != SCSI_STATUS_CHECK_CONDITION ||
                                                   cmd->sense_key != SCSI_SENSE_UNIT_ATTENTION))
            return 0;
    }
    return 0;
}

static int refused(
    const struct lease *l, const struct command *cmd, struct err *e, const char *what)
{
    if (cmd->status == SCSI_STATUS_CHECK_CONDITION)
        return err_set(e, ERR_SYSTEM, "disk %s: its lease: %s: %s (%04x)", l->source, what,
            scsi_sense_ascq_str((int)cmd->ascq), cmd->ascq);
    return err_set(e, ERR_SYSTEM, "disk %s: its lease: %s: status 0x%x", l->source, what,
        (unsigned)cmd->status);
}

/* The target does not know the command. */
static bool unknown_command(const struct command *cmd)
{
    return cmd->status == SCSI_STATUS_CHECK_CONDITION &&
           cmd->sense_key == SCSI_SENSE_ILLEGAL_REQUEST;
}

/* 0 done; 1 RESERVATION CONFLICT; -1. */
static int pr_out(struct lease *l, enum scsi_persistent_out_sa action, uint64_t key, uint64_t other,
    struct err *e)
{
    struct lease_iscsi *is = l->kind;
    struct command cmd = { .what = PR_OUT, .action = action };
    bool registers = action == SCSI_PERSISTENT_RESERVE_REGISTER ||
                     action == SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY;

    cmd.out.reservation_key = key;
    cmd.out.service_action_reservation_key = other;
    cmd.out.aptpl = registers && is->aptpl;
    if (run(l, &cmd, e) < 0)
        return -1;
    if (cmd.status == SCSI_STATUS_GOOD)
        return 0;
    if (cmd.status == SCSI_STATUS_RESERVATION_CONFLICT)
        return 1;
    if (action == SCSI_PERSISTENT_RESERVE_PREEMPT_AND_ABORT && unknown_command(&cmd)) {
        is->no_abort = true;
        return 1;
    }
    return refused(l, &cmd, e, "PERSISTENT RESERVE OUT");
}

/* 0; 1: the target has no reservations; -1. */
static int look(struct lease *l, struct view *v, struct err *e)
{
    struct command keys = { .what = PR_KEYS, .view = v };
    struct command holder = { .what = PR_RESERVATION, .view = v };

    memset(v, 0, sizeof *v);
    if (run(l, &keys, e) < 0)
        return -1;
    if (unknown_command(&keys))
        return 1;
    if (keys.status != SCSI_STATUS_GOOD)
        return refused(l, &keys, e, "READ KEYS");
    if (run(l, &holder, e) < 0)
        return -1;
    return holder.status == SCSI_STATUS_GOOD ? 0 : refused(l, &holder, e, "READ RESERVATION");
}

static bool has_key(const struct view *v, uint64_t key)
{
    for (unsigned i = 0; i < v->n; i++)
        if (v->key[i] == key)
            return true;
    return false;
}

/* A key as a record: hashes that are ours get their names back. */
static uint64_t key_of(const struct lease *l, uint64_t epoch)
{
    return lease_key(l->owner, lease_who_here()->machine, l->uuid, epoch);
}

static void note_of_key(const struct lease *l, uint64_t key, struct lease_note *out)
{
    uint64_t own = key_of(l, 0);

    memset(out, 0, sizeof *out);
    if (lease_key_host(key) == lease_key_host(own)) {
        snprintf(out->r.owner, sizeof out->r.owner, "%s", l->owner);
        out->who.machine = lease_who_here()->machine; /* of which process, nobody knows */
    } else {
        snprintf(out->r.owner, sizeof out->r.owner, "with-key-%016" PRIx64, key);
    }
    if (lease_key_domain(key) == lease_key_domain(own))
        snprintf(out->r.uuid, sizeof out->r.uuid, "%s", l->uuid);
    else
        snprintf(out->r.uuid, sizeof out->r.uuid, LEASE_HASHED "%03" PRIx32, lease_key_domain(key));
    out->r.epoch = lease_key_epoch(key);
}

static struct lease_bid masked_bid(const struct lease *l, uint64_t epoch, enum lease_claim claim)
{
    return lease_bid_of(l, lease_key_epoch(key_of(l, epoch)), claim);
}

/* ---- opening */

static int iscsi_open(struct lease *l, struct err *e)
{
    struct lease_iscsi *is = calloc(1, sizeof *is);
    struct command caps = { .what = PR_CAPABILITIES };
    struct view v;
    int r;

    if (is == NULL)
        return err_set(e, ERR_MEMORY, "disk %s: no memory for its lease", l->source);
    l->kind = is;
    if (l->disk == NULL || disk_kind(l->disk) != MIGRD__STORAGE_KIND__STORAGE_ISCSI)
        return err_set(e, ERR_INTERNAL, "disk %s: its lease needs its session", l->source);
    r = look(l, &v, e);
    if (r < 0)
        return -1;
    is->none = r == 1;
    if (is->none)
        lease_set_fence(l, "",
            "the target has no persistent reservations: nothing keeps another host "
            "from writing to this LUN");
    else
        lease_set_fence(l, "", "the lease has not been taken yet");
    if (!is->none && run(l, &caps, e) < 0)
        return -1;
    is->aptpl = caps.status == SCSI_STATUS_GOOD && caps.ptpl;
    return 0;
}

/* In the disk's thread. Nobody renews a lost lease, so nobody else would answer. */
static void connection_up(void *arg, unsigned connection)
{
    struct lease *l = arg;
    struct lease_iscsi *is = l->kind;

    atomic_store(&is->connection, connection);
    if (atomic_load(&is->refuses))
        disk_admit(l->disk, connection, EACCES);
    lease_hurry(l);
}

/* A verdict on a connection that is gone already has no effect; the next one has its own turn. */
static void admit(struct lease *l, unsigned connection, int verdict)
{
    struct lease_iscsi *is = l->kind;

    is->admitted = connection;
    if (connection != 0)
        disk_admit(l->disk, connection, verdict);
}

/* ---- taking */

static int foreign_program(const struct lease *l, uint64_t key, struct err *e)
{
    return err_set(e, ERR_REFUSED,
        "disk %s: another program uses persistent reservations on this LUN (key %016" PRIx64
        "); end it, or clear them: sg_persist --out --clear",
        l->source, key);
}

/* Step 1. Who is registered and does not hold is taking it just now, or died while he did: RESERVE
 * and PREEMPT decide between us, not this look. */
static int judge_view(
    struct lease *l, const struct view *v, const struct lease_bid *b, bool *watch, struct err *e)
{
    struct lease_iscsi *is = l->kind;
    struct lease_note found;
    enum lease_verdict verdict;

    *watch = false;
    for (unsigned i = 0; i < v->n; i++)
        if (!lease_key_ours(v->key[i]))
            return foreign_program(l, v->key[i], e);
    if (!v->reserved || (v->holder == is->key && v->type == WE_RO))
        return 0;
    if (v->type != WE_RO || !lease_key_ours(v->holder))
        return foreign_program(l, v->holder, e);
    note_of_key(l, v->holder, &found);
    verdict = lease_judge(&found, b);
    *watch = verdict == LEASE_WATCH;
    return verdict == LEASE_OLDER ? lease_refuse(e, verdict, &found, b, l->source) : 0;
}

/* Nobody registers: a living holder does so all the time. */
static int watch_target(
    struct lease *l, const struct view *first, const struct lease_bid *b, struct err *e)
{
    uint64_t ns = lease_watch_ns(l->valid_ms, l->valid_ms), until = lease_clock() + ns;
    struct view v;

    while (lease_clock() < until) {
        struct lease_note found;

        if (lease_pause(l, ns / 20, e) < 0 || look(l, &v, e) != 0)
            return -1;
        if (!v.reserved) /* he released it, or his session ended */
            return 0;
        note_of_key(l, v.holder, &found);
        if (v.generation != first->generation)
            return lease_refuse(e, LEASE_WATCH, &found, b, l->source);
    }
    return 0;
}

static int reset_lun(struct lease *l, struct err *e)
{
    struct command cmd = { .what = PR_RESET };

    if (run(l, &cmd, e) < 0)
        return -1;
    return cmd.status == 0 ? 0 : refused(l, &cmd, e, "LUN RESET");
}

/* One key of an epoch before goes, and its commands in flight with it. As pr_out. */
static int preempt(struct lease *l, uint64_t key, struct err *e)
{
    struct lease_iscsi *is = l->kind;
    int r = 1;

    if (!is->no_abort)
        r = pr_out(l, SCSI_PERSISTENT_RESERVE_PREEMPT_AND_ABORT, is->key, key, e);
    if (r != 1 || !is->no_abort)
        return r;
    r = pr_out(l, SCSI_PERSISTENT_RESERVE_PREEMPT, is->key, key, e);
    return r == 0 ? reset_lun(l, e) : r;
}

/* Steps 2 to 4, with what `v` shows; as pr_out: 1 means that somebody was quicker, look again. */
static int secure(struct lease *l, const struct view *v, uint64_t key, struct err *e)
{
    struct lease_iscsi *is = l->kind;
    uint64_t before = is->key;
    int r = pr_out(l, SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY, 0, key, e);

    if (r != 0)
        return r;
    is->key = key;
    if (FAULT("lease-claimed"))
        return err_set(e, ERR_SYSTEM, "fault lease-claimed");
    if (!v->reserved)
        r = pr_out(l, SCSI_PERSISTENT_RESERVE_RESERVE, key, 0, e);
    else if (v->holder != key && v->holder != before)
        r = preempt(l, v->holder, e);
    for (unsigned i = 0; r == 0 && i < v->n; i++)
        if (v->key[i] != key && v->key[i] != before && v->key[i] != v->holder)
            r = preempt(l, v->key[i], e);
    return r;
}

/* Step 5. */
static bool is_ours(const struct lease *l, const struct view *v)
{
    const struct lease_iscsi *is = l->kind;

    if (!v->reserved || v->holder != is->key || v->type != WE_RO || !has_key(v, is->key))
        return false;
    for (unsigned i = 0; i < v->n; i++)
        if (v->key[i] != is->key)
            return false;
    return true;
}

static int too_many(const struct lease *l, struct err *e)
{
    return err_set(e, ERR_REFUSED,
        "disk %s: its lease: several hosts take it at the same time, or the target forgets what it "
        "said; try again",
        l->source);
}

static int take_key(struct lease *l, const struct lease_bid *b, uint64_t key, struct err *e)
{
    struct lease_iscsi *is = l->kind;
    uint64_t watched = 0; /* holder */
    struct view v;
    bool watch;

    for (unsigned i = 0; i < TRIES; i++) {
        int r = look(l, &v, e);

        if (r != 0 || judge_view(l, &v, b, &watch, e) < 0)
            return -1;
        if (is->key == key && is_ours(l, &v))
            return 0;
        if (watch && v.holder != watched) {
            if (watch_target(l, &v, b, e) < 0)
                return -1;
            watched = v.holder; /* look again: he may be gone, and another be there */
        } else if (secure(l, &v, key, e) < 0) {
            return -1;
        }
    }
    return too_many(l, e);
}

/* Back to nothing, after a claim that was refused. */
static void unregister(struct lease *l)
{
    struct lease_iscsi *is = l->kind;

    if (is->key != 0)
        pr_out(l, SCSI_PERSISTENT_RESERVE_REGISTER, is->key, 0, NULL);
    is->key = 0;
}

static int iscsi_take(struct lease *l, uint64_t epoch, enum lease_claim claim, struct err *e)
{
    struct lease_iscsi *is = l->kind;
    const struct lease_bid b = masked_bid(l, epoch, claim);
    bool refused = atomic_exchange(&is->refuses, false);
    unsigned connection;

    if (!is->none) {
        disk_set_gate(l->disk, connection_up, l);
        connection = atomic_load(&is->connection);
        if (take_key(l, &b, key_of(l, epoch), e) < 0) {
            atomic_store(&is->refuses, refused);
            if (refused) /* one that came up meanwhile */
                admit(l, atomic_load(&is->connection), EACCES);
            if (!is->taken) {
                unregister(l);
                disk_set_gate(l->disk, NULL, NULL);
            }
            return -1;
        }
        lease_set_fence(l, "reservation", "key %016" PRIx64 ", write exclusive, registrants only%s",
            is->key, is->aptpl ? ", kept through a restart of the target" : "");
        admit(l, connection, 0);
    }
    is->taken = true;
    is->forgotten_since = 0;
    l->epoch = epoch;
    return 0;
}

/* ---- renewing */

static enum lease_seen lost(struct lease *l, uint64_t key, struct err *e)
{
    struct lease_iscsi *is = l->kind;
    struct lease_note found;

    note_of_key(l, key, &found);
    err_set(e, ERR_EPOCH,
        "disk %s: host %s took its lease under epoch %" PRIu64 ", ours was %" PRIu64, l->source,
        found.r.owner, found.r.epoch, l->epoch);
    is->key = 0;
    atomic_store(&is->refuses, true);
    admit(l, atomic_load(&is->connection), EACCES);
    return LEASE_SEEN_FOREIGN;
}

/* A key that ends our lease: of this domain and not older, or of another domain that holds. */
static uint64_t ending_key(const struct lease *l, const struct view *v)
{
    uint64_t own = key_of(l, l->epoch);

    for (unsigned i = 0; i < v->n; i++)
        if (v->key[i] != own && lease_key_ours(v->key[i]) &&
            lease_key_domain(v->key[i]) == lease_key_domain(own) &&
            lease_key_epoch(v->key[i]) >= lease_key_epoch(own))
            return v->key[i];
    if (v->reserved && v->holder != own && lease_key_ours(v->holder) &&
        (lease_key_domain(v->holder) != lease_key_domain(own) ||
            lease_key_epoch(v->holder) >= lease_key_epoch(own)))
        return v->holder;
    return 0;
}

/* May a target that does not know us be told again? */
static bool may_come_back(struct lease *l, const struct view *v, uint64_t key, struct err *e)
{
    struct lease_iscsi *is = l->kind;
    unsigned connection = atomic_load(&is->connection);
    uint64_t now = lease_clock(), grace = 2 * (uint64_t)l->valid_ms * NS_PER_MS;

    if (has_key(v, key) || now < atomic_load(&l->sure_until)) {
        is->forgotten_since = 0;
        return true;
    }
    if (is->forgotten_since == 0 || is->forgotten_on != connection) {
        is->forgotten_since = now;
        is->forgotten_on = connection; /* on another one, nobody knows what was in between */
    }
    if (now - is->forgotten_since >= grace) {
        is->forgotten_since = 0;
        return true;
    }
    err_set(e, ERR_STATE,
        "disk %s: the target has forgotten who may write; waits %" PRIu64
        " ms for a host with a newer epoch before it registers again",
        l->source, (grace - (now - is->forgotten_since)) / NS_PER_MS);
    return false;
}

/* The registration of this session is gone, or there is a new session. */
static enum lease_seen regain(struct lease *l, struct err *e)
{
    struct lease_iscsi *is = l->kind;
    uint64_t key = key_of(l, l->epoch), end;
    unsigned connection = atomic_load(&is->connection);
    struct view v;

    for (unsigned i = 0; i < TRIES; i++) {
        if (look(l, &v, e) != 0)
            return LEASE_SEEN_NOTHING;
        end = ending_key(l, &v);
        if (end != 0)
            return lost(l, end, e);
        if (v.reserved && (v.type != WE_RO || !lease_key_ours(v.holder))) {
            foreign_program(l, v.holder, e);
            return LEASE_SEEN_NOTHING;
        }
        if (i > 0 && is_ours(l, &v)) {
            admit(l, connection, 0);
            return LEASE_SEEN_OURS;
        }
        if (i == 0 && !may_come_back(l, &v, key, e))
            return LEASE_SEEN_NOTHING;
        if (secure(l, &v, key, e) < 0)
            return LEASE_SEEN_NOTHING;
    }
    too_many(l, e);
    return LEASE_SEEN_NOTHING;
}

static enum lease_seen renew_none(struct lease *l, struct err *e)
{
    struct command cmd = { .what = PR_READY };

    if (run(l, &cmd, e) < 0)
        return LEASE_SEEN_NOTHING;
    if (cmd.status == SCSI_STATUS_GOOD)
        return LEASE_SEEN_OURS;
    refused(l, &cmd, e, "TEST UNIT READY");
    return LEASE_SEEN_NOTHING;
}

static enum lease_seen iscsi_renew(struct lease *l, struct err *e)
{
    struct lease_iscsi *is = l->kind;
    struct view v = { 0 };
    struct command holder = { .what = PR_RESERVATION, .view = &v };
    int r;

    if (is->none)
        return renew_none(l, e);
    if (is->key == 0 || atomic_load(&is->connection) != is->admitted)
        return regain(l, e);
    /* Who yields does not count the generation up: to others it looks like a holder that is gone.
     */
    r = atomic_load(&l->yielded) ? 0
                                 : pr_out(l, SCSI_PERSISTENT_RESERVE_REGISTER, is->key, is->key, e);
    if (r == 1)
        return regain(l, e);
    if (r < 0 || run(l, &holder, e) < 0)
        return LEASE_SEEN_NOTHING;
    if (holder.status != SCSI_STATUS_GOOD) {
        refused(l, &holder, e, "READ RESERVATION");
        return LEASE_SEEN_NOTHING;
    }
    is->forgotten_since = 0;
    return v.reserved && v.holder == is->key ? LEASE_SEEN_OURS : regain(l, e);
}

/* ---- giving up */

/* CLEAR takes registrations of our older sessions away, too. */
static int iscsi_release(struct lease *l, struct err *e)
{
    struct lease_iscsi *is = l->kind;
    struct view v;
    int r;

    if (is->none || is->key == 0)
        return 0;
    if (look(l, &v, e) != 0)
        return -1;
    if (is_ours(l, &v))
        r = pr_out(l, SCSI_PERSISTENT_RESERVE_CLEAR, is->key, 0, e);
    else
        r = pr_out(l, SCSI_PERSISTENT_RESERVE_REGISTER, is->key, 0, e);
    is->key = 0;
    return r < 0 ? -1 : 0;
}

static void iscsi_close(struct lease *l)
{
    struct lease_iscsi *is = l->kind;

    if (is != NULL && is->taken && !is->none)
        disk_set_gate(l->disk, NULL, NULL);
    free(is);
}

const struct lease_ops lease_iscsi_ops = {
    .open = iscsi_open,
    .take = iscsi_take,
    .renew = iscsi_renew,
    .release = iscsi_release,
    .close = iscsi_close,
};

/* ---- looking from outside */

/* A lease that is none: enough to run commands on a session of its own. 0 and what there is; 1: no
 * reservations; -1, and the disk may be open all the same. */
static int outside_look(struct lease *l, struct lease_iscsi *is, const char *source,
    const struct disk_options *o, struct view *v, struct err *e)
{
    unsigned ms = o->timeout_ms != 0 ? o->timeout_ms : DISK_TIMEOUT_MS;

    memset(l, 0, sizeof *l);
    memset(is, 0, sizeof *is);
    l->source = (char *)source;
    snprintf(l->owner, sizeof l->owner, "%s", o->host != NULL ? o->host : "");
    l->kind = is;
    l->deadline_ns = lease_clock() + ms * NS_PER_MS;
    return disk_open(source, o, &l->disk, e) < 0 ? -1 : look(l, v, e);
}

static void outside_close(struct lease *l)
{
    if (l->disk != NULL)
        disk_close(&l->disk);
}

int lease_iscsi_read(
    const char *source, const struct disk_options *o, struct lease_record *out, struct err *e)
{
    struct lease_iscsi is;
    struct lease_note n;
    struct lease l;
    struct view v;
    int r = outside_look(&l, &is, source, o, &v, e);

    if (r == 0 && v.reserved && lease_key_ours(v.holder)) {
        note_of_key(&l, v.holder, &n);
        *out = n.r;
        out->uuid[0] = '\0'; /* the key has a hash only */
        out->beat = v.generation;
    } else if (r == 0 && v.reserved) {
        snprintf(out->owner, sizeof out->owner, "another-program-with-key-%016" PRIx64, v.holder);
    }
    outside_close(&l);
    return r < 0 ? -1 : 0;
}

static int clear_all(struct lease *l, const struct view *v, uint64_t epoch, struct err *e)
{
    struct lease_iscsi *is = l->kind;
    int r;

    for (unsigned i = 0; i < v->n; i++) {
        if (!lease_key_ours(v->key[i]))
            return foreign_program(l, v->key[i], e);
        if (lease_key_epoch(v->key[i]) > (epoch & 0xffffff))
            return err_set(e, ERR_EPOCH,
                "disk %s: its lease knows epoch %" PRIu64 ", newer than %" PRIu64, l->source,
                lease_key_epoch(v->key[i]), epoch);
    }
    is->key = key_of(l, epoch);
    r = pr_out(l, SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY, 0, is->key, e);
    if (r == 0)
        r = pr_out(l, SCSI_PERSISTENT_RESERVE_CLEAR, is->key, 0, e);
    return r == 1 ? too_many(l, e) : r;
}

int lease_iscsi_remove(
    const char *source, const struct disk_options *o, uint64_t epoch, struct err *e)
{
    struct lease_iscsi is;
    struct lease l;
    struct view v;
    int r = outside_look(&l, &is, source, o, &v, e);

    if (r == 0 && (v.n > 0 || v.reserved))
        r = clear_all(&l, &v, epoch, e);
    outside_close(&l);
    return r < 0 ? -1 : 0;
}
