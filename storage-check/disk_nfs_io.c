/* SPDX-License-Identifier: ISC */
/*
 * Requests of an NFS disk: READ, WRITE (unstable), COMMIT of NFSv3, sent by libnfs's raw calls on
 * the file's handle. libnfs wants contiguous data, so a write is copied once into a buffer of ours,
 * which is kept until the server has committed it (disk_held.h); a read is copied once out of
 * libnfs's buffer.
 *
 * Flush: COMMIT of the whole file, unless nothing is held: then all that was written is safe.
 * Discard: NFSv3 has none, done at once. Zeroes: written.
 *
 * A server that restarts forgets what it had not committed. The connection breaks then, and
 * before requests go over the next one (nfs_prepare):
 *   nothing held                      nothing to do
 *   COMMIT, verifier as before        the server did not restart, all is safe
 *   COMMIT, another verifier          what is held is written again, one by one in the order in
 * which it was written first, then COMMIT A changed verifier in the answer to a WRITE or a flush
 * breaks the connection on purpose. If data cannot be made safe (the server refuses it, or a COMMIT
 * of our own fails), the next flush says so once.
 *
 * A COMMIT that fails may have been the server's only word about data that it has dropped, so that
 * another one succeeds. The flush gets its error, and what is held is written again by way of a new
 * connection before any COMMIT counts again (`rewrite`).
 *
 * What another process wrote and did not commit (disk_expect) cannot be written again here: if the
 * server's verifier is not the one that it saw, the next flush says so once.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "storage-check/disk_nfs.h"

#define JUKEBOX_MS 100u
#define REFUSED_MS 100u
#define REFUSED_TRIES                                                                              \
    15u /* longer than a renewal of the default storage-lease-time takes to come */

/* ---- answers ---- */

/* libnfs's own words are about its reconnecting, which is switched off. */
void nfs_broke(struct nfs_disk *f, const char *text)
{
    if (f->n.state == NET_CONNECTING)
        net_lost(&f->n, ERR_PEER, "connecting to %.100s: %.150s", f->n.d.url.host, text);
    else
        net_lost(&f->n, ERR_PEER, "the connection to %.100s broke", f->n.d.url.host);
}

bool nfs_answered(struct nfs_disk *f, int status, void *data)
{
    if (f->n.dying)
        return false;
    if (status == RPC_STATUS_SUCCESS)
        return true;
    nfs_broke(f, status == RPC_STATUS_ERROR && data != NULL ? data : "no answer");
    return false;
}

/* What a request gets, as disk.h says. */
static int plain_error(nfsstat3 status)
{
    switch ((int)status) {
    case NFS3_OK:
        return 0;
    case NFS3ERR_PERM:
    case NFS3ERR_ACCES:
    case NFS3ERR_ROFS:
        return EACCES;
    case NFS3ERR_NOSPC:
    case NFS3ERR_DQUOT:
        return ENOSPC;
    default:
        return EIO;
    }
}

static bool is_stale(nfsstat3 status)
{
    return status == NFS3ERR_STALE || status == NFS3ERR_BADHANDLE;
}

/* An owner before us may have given the file back too late; our lease mends that at its next
 * renewal. Who is not its owner any more loses the lease by then, and disk_abort ends what waits
 * here. */
static bool may_be_mended(const struct nfs_disk *f, const struct net_part *p, nfsstat3 status)
{
    return f->owned && plain_error(status) == EACCES && status != NFS3ERR_ROFS &&
           p->tries < REFUSED_TRIES;
}

/* A part that failed: tried again, looked into by connecting anew, or over. */
static void part_failed(struct net_part *p, nfsstat3 status)
{
    if (status == NFS3ERR_JUKEBOX)
        net_part_again(p, JUKEBOX_MS);
    else if (may_be_mended(nfs_of(p->net), p, status))
        net_part_again(p, REFUSED_MS);
    else if (is_stale(status))
        net_lost(p->net, ERR_NOT_FOUND, "the server does not know the file's handle any more");
    else
        net_part_done(p, plain_error(status));
}

/* Some COMMIT has failed: what is held may be gone on the server, whose next COMMIT does not say
 * so. */
static bool must_rewrite(struct nfs_disk *f)
{
    if (f->rewrite)
        net_lost(&f->n, ERR_PEER, "the server could not make writes safe; they are written again");
    return f->rewrite;
}

_Static_assert(DISK_MARK_LEN == NFS3_WRITEVERFSIZE, "the verifier is the mark");

/* Of each answer that tells which life of the server it comes from. */
static void look_for_expected(struct nfs_disk *f, const char *verifier)
{
    if (!f->expecting || memcmp(f->expected, verifier, sizeof f->expected) == 0)
        return;
    log_error("storage",
        "disk %.200s: the server has restarted and forgotten what the guest wrote on the host it "
        "came from; the next flush fails",
        f->n.d.source);
    f->expecting = false;
    f->lost_writes = true;
}

static bool same_verifier(const struct nfs_disk *f, const char *verifier)
{
    return memcmp(f->verifier, verifier, sizeof f->verifier) == 0;
}

/* False, and the connection is given up, if the server has restarted since the last write. */
static bool check_verifier(struct nfs_disk *f, const char *verifier)
{
    look_for_expected(f, verifier);
    if (!f->has_verifier) {
        memcpy(f->verifier, verifier, sizeof f->verifier);
        f->has_verifier = true;
    }
    if (same_verifier(f, verifier))
        return true;
    net_lost(&f->n, ERR_PEER, "the server has restarted and may have forgotten writes");
    return false;
}

/* ---- read ---- */

static int send_read(struct nfs_disk *f, struct net_part *p);

static void read_done(struct rpc_context *rpc, int status, void *data, void *priv)
{
    struct net_part *p = priv;
    struct nfs_disk *f = nfs_of(p->net);
    READ3res *res = data;
    READ3resok *ok;

    (void)rpc;
    if (!nfs_answered(f, status, data))
        return;
    if (res->status != NFS3_OK) {
        part_failed(p, res->status);
        return;
    }
    ok = &res->READ3res_u.resok;
    if (ok->data.data_len == 0 || ok->data.data_len > p->len - p->done) {
        net_part_done(p, EIO); /* the file became shorter */
        return;
    }
    net_iov_to(p->iov, p->n_iov, p->done, ok->data.data_val, ok->data.data_len);
    p->done += ok->data.data_len;
    if (p->done == p->len)
        net_part_done(p, 0);
    else if (send_read(f, p) != 0)
        net_part_done(p, EIO);
}

static int send_read(struct nfs_disk *f, struct net_part *p)
{
    READ3args args = { .file = nfs_handle(f),
        .offset = p->io->offset + p->at + p->done,
        .count = (count3)(p->len - p->done) };

    return rpc_nfs3_read_async(f->rpc, read_done, &args, p) == 0 ? 0 : EIO;
}

/* ---- write ---- */

static int send_write(struct nfs_disk *f, struct net_part *p);

static struct held_piece *take_piece(struct net_part *p)
{
    struct held_piece *piece = p->own;

    p->own = NULL;
    return piece;
}

static void write_over(struct nfs_disk *f, struct net_part *p, stable_how committed)
{
    struct held_piece *piece = take_piece(p);

    /* A safe one is held, too, while older ones are: written again alone, these would undo it. */
    if (committed == UNSTABLE || f->held.first != NULL)
        held_add(&f->held, piece);
    else
        held_give(&f->held, piece);
    net_part_done(p, 0);
}

static void write_done(struct rpc_context *rpc, int status, void *data, void *priv)
{
    struct net_part *p = priv;
    struct nfs_disk *f = nfs_of(p->net);
    WRITE3res *res = data;
    WRITE3resok *ok;

    (void)rpc;
    if (!nfs_answered(f, status, data))
        return;
    if (res->status != NFS3_OK) {
        held_give(&f->held, take_piece(p));
        part_failed(p, res->status);
        return;
    }
    ok = &res->WRITE3res_u.resok;
    if (!check_verifier(f, ok->verf))
        return;
    if (ok->count == 0 || ok->count > p->len - p->done) {
        held_give(&f->held, take_piece(p));
        net_part_done(p, EIO);
        return;
    }
    p->done += ok->count;
    if (p->done == p->len) {
        /* an earlier piece of it may be unstable although the last one is not */
        write_over(f, p, p->done == ok->count ? ok->committed : UNSTABLE);
    } else if (send_write(f, p) != 0) {
        held_give(&f->held, take_piece(p));
        net_part_done(p, EIO);
    }
}

static int send_piece(
    struct nfs_disk *f, const struct held_piece *piece, uint64_t from, rpc_cb cb, void *priv)
{
    WRITE3args args = { .file = nfs_handle(f),
        .offset = piece->offset + from,
        .count = (count3)(piece->len - from),
        .stable = UNSTABLE };

    args.data.data_len = args.count;
    args.data.data_val = (char *)(uintptr_t)(piece->bytes + from);
    return rpc_nfs3_write_async(f->rpc, cb, &args, priv) == 0 ? 0 : EIO;
}

static int send_write(struct nfs_disk *f, struct net_part *p)
{
    return send_piece(f, p->own, p->done, write_done, p);
}

static int start_write(struct nfs_disk *f, struct net_part *p)
{
    bool zeroes = p->io->op == DISK_ZEROES;
    struct held_piece *piece;
    int rc;

    if (!held_room(&f->held, p->len))
        return -1;
    piece = held_take(&f->held, p->io->offset + p->at, (uint32_t)p->len, zeroes);
    if (piece == NULL)
        return EIO;
    if (!zeroes)
        net_iov_from(p->iov, p->n_iov, 0, piece->data, p->len);
    p->own = piece;
    rc = send_write(f, p);
    if (rc != 0)
        held_give(&f->held, take_piece(p));
    return rc;
}

/* ---- commit ---- */

static int send_commit(struct nfs_disk *f, rpc_cb cb, void *priv)
{
    COMMIT3args args = { .file = nfs_handle(f), .offset = 0, .count = 0 };

    return rpc_nfs3_commit_async(f->rpc, cb, &args, priv) == 0 ? 0 : EIO;
}

/* Not: later, not for you, no such file. */
static bool loses_data(nfsstat3 status)
{
    return status != NFS3ERR_JUKEBOX && !is_stale(status) && plain_error(status) != EACCES;
}

/* With nothing held it was another host that wrote, and nobody can do that again. The same is true
 * of what another process owes, whatever is held here beside it. */
static void flush_failed(struct nfs_disk *f, struct net_part *p, nfsstat3 status)
{
    bool loses = loses_data(status);

    f->rewrite = f->rewrite || (loses && f->held.first != NULL);
    if (loses && (f->held.first == NULL || f->expecting)) {
        f->expecting = false;
        net_part_done(p, DISK_WRITES_LOST);
    } else {
        part_failed(p, status);
    }
}

static void flush_done(struct rpc_context *rpc, int status, void *data, void *priv)
{
    struct net_part *p = priv;
    struct nfs_disk *f = nfs_of(p->net);
    COMMIT3res *res = data;

    (void)rpc;
    if (!nfs_answered(f, status, data))
        return;
    if (res->status != NFS3_OK) {
        flush_failed(f, p, res->status);
        return;
    }
    if (must_rewrite(f) || !check_verifier(f, res->COMMIT3res_u.resok.verf))
        return;
    f->committed = true;
    f->expecting = false;
    held_drop(&f->held, p->done);
    net_part_done(p, f->lost_writes ? DISK_WRITES_LOST : 0);
    f->lost_writes = false;
}

/* The first flush asks in any case: another host may have written, and moved here without a COMMIT.
 */
static int start_flush(struct nfs_disk *f, struct net_part *p)
{
    if (f->lost_writes) {
        f->lost_writes = false;
        return DISK_WRITES_LOST;
    }
    if (f->held.first == NULL && f->committed) {
        net_part_done(p, 0);
        return 0;
    }
    if (must_rewrite(f))
        return 0;
    p->done = f->held.seq;
    return send_commit(f, flush_done, p);
}

static void own_commit_done(struct rpc_context *rpc, int status, void *data, void *priv)
{
    struct nfs_disk *f = priv;
    COMMIT3res *res = data;

    (void)rpc;
    if (!nfs_answered(f, status, data))
        return;
    net_heard(&f->n);
    f->n.n_own--;
    f->committing = false;
    if (res->status == NFS3ERR_JUKEBOX || (f->owned && plain_error(res->status) == EACCES))
        return; /* it stays held, and is asked for again */
    if (is_stale(res->status)) {
        net_lost(&f->n, ERR_NOT_FOUND, "the server does not know the file's handle any more");
        return;
    }
    if (res->status != NFS3_OK) {
        f->lost_writes = true;
        held_drop(&f->held, f->commit_seq);
        return;
    }
    if (must_rewrite(f) || !check_verifier(f, res->COMMIT3res_u.resok.verf))
        return;
    f->expecting = false;
    held_drop(&f->held, f->commit_seq);
}

void nfs_turn(struct net_disk *n)
{
    struct nfs_disk *f = nfs_of(n);

    if (n->state != NET_UP || n->broken || f->committing || f->held.bytes < HELD_COMMIT)
        return;
    if (must_rewrite(f))
        return;
    f->commit_seq = f->held.seq;
    if (send_commit(f, own_commit_done, f) != 0) {
        net_lost(n, ERR_MEMORY, "no memory for a COMMIT");
        return;
    }
    f->committing = true;
    n->n_own++;
}

/* ---- after a reconnect ---- */

static void replay_next(struct nfs_disk *f);

/* The server is there, but does not take it. */
static void give_up_held(struct nfs_disk *f, nfsstat3 status)
{
    log_error("storage",
        "disk %.200s: %llu bytes that the server had forgotten cannot be written again (NFS error "
        "%d); "
        "the next flush fails",
        f->n.d.source, (unsigned long long)f->held.bytes, (int)status);
    f->lost_writes = true;
    f->rewrite = false;
    held_drop(&f->held, UINT64_MAX);
    net_ready(&f->n);
}

static bool replay_failed(struct nfs_disk *f, nfsstat3 status)
{
    net_heard(&f->n);
    if (status == NFS3_OK)
        return false;
    if (status == NFS3ERR_JUKEBOX || is_stale(status))
        net_lost(&f->n, ERR_PEER, "the server is not ready (NFS error %d)", (int)status);
    else
        give_up_held(f, status);
    return true;
}

static void replay_committed(struct rpc_context *rpc, int status, void *data, void *priv)
{
    struct nfs_disk *f = priv;
    COMMIT3res *res = data;

    (void)rpc;
    if (!nfs_answered(f, status, data) || replay_failed(f, res->status) ||
        !check_verifier(f, res->COMMIT3res_u.resok.verf))
        return;
    f->rewrite = false;
    held_drop(&f->held, UINT64_MAX);
    net_ready(&f->n);
}

static void replay_written(struct rpc_context *rpc, int status, void *data, void *priv)
{
    struct nfs_disk *f = priv;
    WRITE3res *res = data;
    uint32_t count;

    (void)rpc;
    if (!nfs_answered(f, status, data) || replay_failed(f, res->status) ||
        !check_verifier(f, res->WRITE3res_u.resok.verf))
        return;
    count = res->WRITE3res_u.resok.count;
    if (count == 0 || count > f->replay->len - f->replay_done) {
        give_up_held(f, NFS3ERR_IO);
        return;
    }
    f->replay_done += count;
    if (f->replay_done == f->replay->len) {
        f->replay = f->replay->next;
        f->replay_done = 0;
    }
    replay_next(f);
}

static void replay_next(struct nfs_disk *f)
{
    int rc = f->replay != NULL ? send_piece(f, f->replay, f->replay_done, replay_written, f)
                               : send_commit(f, replay_committed, f);

    if (rc != 0)
        net_lost(&f->n, ERR_MEMORY, "no memory to write again");
}

static void asked(struct rpc_context *rpc, int status, void *data, void *priv)
{
    struct nfs_disk *f = priv;
    COMMIT3res *res = data;

    (void)rpc;
    if (!nfs_answered(f, status, data) || replay_failed(f, res->status))
        return;
    look_for_expected(f, res->COMMIT3res_u.resok.verf);
    f->expecting = false;
    if (!f->rewrite && same_verifier(f, res->COMMIT3res_u.resok.verf)) {
        held_drop(&f->held, UINT64_MAX);
        net_ready(&f->n);
        return;
    }
    log_info("storage", "disk %.200s: %s; %llu bytes are written again", f->n.d.source,
        f->rewrite ? "the server could not make writes safe" : "the server has restarted",
        (unsigned long long)f->held.bytes);
    memcpy(f->verifier, res->COMMIT3res_u.resok.verf, sizeof f->verifier);
    f->replay = f->held.first;
    f->replay_done = 0;
    replay_next(f);
}

void nfs_prepare(struct net_disk *n)
{
    struct nfs_disk *f = nfs_of(n);

    if (f->held.first == NULL) {
        f->has_verifier = false;
        f->rewrite = false;
        net_ready(n);
    } else if (send_commit(f, asked, f) != 0) {
        net_lost(n, ERR_MEMORY, "no memory for a COMMIT");
    }
}

/* ---- from one process to the next ---- */

static void expect(struct nfs_disk *f, const struct disk_mark *m)
{
    f->lost_writes = f->lost_writes || m->lost;
    f->expecting = m->owed;
    memcpy(f->expected, m->server, sizeof f->expected);
}

/* A COMMIT that failed was the server's word about what only this process can write again. */
void nfs_mark(struct net_disk *n, struct disk_mark *m, bool expected)
{
    struct nfs_disk *f = nfs_of(n);

    if (expected) {
        expect(f, m);
        return;
    }
    m->lost = f->lost_writes || f->rewrite;
    m->owed = f->expecting || f->held.first != NULL;
    if (m->owed)
        memcpy(m->server, f->expecting ? f->expected : f->verifier, sizeof m->server);
}

/* ---- parts ---- */

uint64_t nfs_part_max(struct net_disk *n, enum disk_op op)
{
    const struct nfs_disk *f = nfs_of(n);

    switch (op) {
    case DISK_READ:
        return f->read_max;
    case DISK_WRITE:
    case DISK_ZEROES:
        return f->write_max;
    case DISK_FLUSH:
    case DISK_DISCARD:
    case DISK_OP_MAX:
        break;
    }
    return UINT64_MAX;
}

int nfs_start(struct net_disk *n, struct net_part *p)
{
    struct nfs_disk *f = nfs_of(n);

    p->done = 0;
    switch (p->io->op) {
    case DISK_READ:
        return send_read(f, p);
    case DISK_WRITE:
    case DISK_ZEROES:
        return start_write(f, p);
    case DISK_FLUSH:
        return start_flush(f, p);
    case DISK_DISCARD:
        net_part_done(p, 0);
        return 0;
    case DISK_OP_MAX:
        break;
    }
    return EIO;
}

void nfs_forget(struct nfs_disk *f)
{
    for (struct net_part *p = f->n.flying; p != NULL; p = p->next)
        if (p->own != NULL)
            held_give(&f->held, take_piece(p));
    f->committing = false;
}
