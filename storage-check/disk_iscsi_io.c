/* SPDX-License-Identifier: ISC */
/*
 * Requests of an iSCSI disk: READ(16), WRITE(16), SYNCHRONIZE CACHE(16), UNMAP, WRITE SAME(16),
 * straight from and to the caller's memory. What a target cannot do is found out by trying: without
 * UNMAP a discard is done at once (it is advice), without WRITE SAME zeroes are written, without
 * SYNCHRONIZE CACHE(16) there is the one of 10 bytes, and without both there is no cache.
 *
 *   the target says                       the request
 *   UNIT ATTENTION                        is sent again; if the disk behind the LUN may have
 * changed, after a new login and a look at it BUSY, TASK SET FULL, NOT READY        is sent again a
 * little later TASK ABORTED, ABORTED COMMAND         is sent again RESERVATION CONFLICT, DATA
 * PROTECT    EACCES anything else                         EIO
 *
 * Commands of leases (disk_iscsi_run) wait in a list under the lock until there is a session,
 * whatever the gate says. One whose caller has given up waiting stays in the list until its answer
 * comes.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "storage-check/disk_iscsi.h"

#define BUSY_MS 50u
#define NOT_READY_MS 250u
#define DISCARD_MAX (UINT64_C(1) << 30) /* bytes of one command */
#define SAME_MAX (UINT64_C(16) << 20)
#define ZERO_CHUNK (1u << 16)

static uint8_t zeroes[ZERO_CHUNK]; /* never written */

/* ---- texts ---- */

void scsi_task_text(int status, const struct scsi_task *t, char *out, size_t size)
{
    if (status == SCSI_STATUS_CHECK_CONDITION && t != NULL)
        snprintf(out, size, "%s, %s", scsi_sense_key_str((int)t->sense.key),
            scsi_sense_ascq_str(t->sense.ascq));
    else if (status == SCSI_STATUS_RESERVATION_CONFLICT)
        snprintf(out, size, "RESERVATION CONFLICT");
    else
        snprintf(out, size, "status 0x%x", (unsigned)status);
}

/* ---- answers ---- */

static uint64_t at_most(uint64_t blocks, uint64_t bytes, uint32_t block_size)
{
    return blocks != 0 && blocks < bytes / block_size ? blocks * block_size
                                                      : bytes / block_size * block_size;
}

/* How much of the part one command writes where WRITE SAME is missing. */
static uint64_t zero_step(const struct scsi_disk *s, const struct net_part *p)
{
    uint64_t most = at_most(s->look.max_transfer, NET_PART_MAX, s->look.block_size);

    return p->len - p->done < most ? p->len - p->done : most;
}

/* The vector of such a part is of the block of zeroes. */
static bool is_written_zeroes(const struct net_part *p)
{
    return p->io->op == DISK_ZEROES && p->cut != NULL;
}

bool scsi_look_again(const struct scsi_task *t)
{
    switch (t->sense.ascq) {
    case SCSI_SENSE_ASCQ_CAPACITY_DATA_HAS_CHANGED:
    case SCSI_SENSE_ASCQ_INQUIRY_DATA_HAS_CHANGED:
    case 0x3f05: /* device identifier changed */
    case 0x3f0e: /* reported LUNs data has changed */
        return true;
    default:
        return false;
    }
}

/* True if the target just cannot do it, and the part goes on without. Several parts may be told so
 * at once: what counts is the command that failed. A flush that does nothing is worse than one that
 * fails: only a target that knows neither command has no cache. */
static bool learned(struct scsi_disk *s, const struct scsi_task *t)
{
    if (t->sense.key != SCSI_SENSE_ILLEGAL_REQUEST ||
        t->sense.ascq == SCSI_SENSE_ASCQ_LBA_OUT_OF_RANGE)
        return false;
    switch (t->cdb[0]) {
    case SCSI_OPCODE_SYNCHRONIZECACHE16:
        s->no_sync16 = true;
        return true;
    case SCSI_OPCODE_SYNCHRONIZECACHE10:
        s->no_sync = s->no_sync || t->sense.ascq == SCSI_SENSE_ASCQ_INVALID_OPERATION_CODE;
        return s->no_sync;
    case SCSI_OPCODE_UNMAP:
        s->no_unmap = true;
        return true;
    case SCSI_OPCODE_WRITE_SAME16:
        s->no_same = true;
        return true;
    default:
        return false;
    }
}

static void check_condition(struct scsi_disk *s, struct net_part *p, const struct scsi_task *t)
{
    char text[160];

    switch ((int)t->sense.key) {
    case SCSI_SENSE_NO_SENSE:
    case SCSI_SENSE_RECOVERED_ERROR:
        net_part_done(p, 0);
        return;
    case SCSI_SENSE_UNIT_ATTENTION:
        scsi_task_text(SCSI_STATUS_CHECK_CONDITION, t, text, sizeof text);
        if (scsi_look_again(t))
            net_lost(&s->n, ERR_PEER, "the target says: %s", text);
        else
            net_part_again(p, 0);
        return;
    case SCSI_SENSE_NOT_READY:
        net_part_again(p, NOT_READY_MS);
        return;
    case SCSI_SENSE_COMMAND_ABORTED:
        net_part_again(p, BUSY_MS);
        return;
    case SCSI_SENSE_DATA_PROTECTION:
        /* 2707: space allocation failed */
        net_part_done(p, t->sense.ascq == 0x2707 ? ENOSPC : EACCES);
        return;
    default:
        break;
    }
    if (t->sense.ascq == SCSI_SENSE_ASCQ_LOGICAL_UNIT_NOT_SUPPORTED)
        net_lost(&s->n, ERR_NOT_FOUND, "the target has no LUN %u any more", s->n.d.url.lun);
    else if (learned(s, t))
        net_part_again(p, 0);
    else
        net_part_done(p, EIO);
}

/* Of zeroes that are written, there may be more to write. */
static void command_done(struct scsi_disk *s, struct net_part *p, const struct scsi_task *t)
{
    if (t->residual_status == SCSI_RESIDUAL_UNDERFLOW && t->residual > 0) {
        net_part_done(p, EIO);
        return;
    }
    p->done += is_written_zeroes(p) ? zero_step(s, p) : p->len;
    if (p->done >= p->len)
        net_part_done(p, 0);
    else if (scsi_start(&s->n, p) != 0)
        net_part_done(p, EIO);
}

static void part_answered(struct iscsi_context *c, int status, void *data, void *priv)
{
    struct net_part *p = priv;
    struct scsi_disk *s = scsi_of(p->net);
    struct scsi_task *t = data;

    (void)c;
    if (s->n.dying) {
        scsi_free_scsi_task(t);
        return;
    }
    switch (status) {
    case SCSI_STATUS_GOOD:
    case SCSI_STATUS_CONDITION_MET:
        command_done(s, p, t);
        break;
    case SCSI_STATUS_CHECK_CONDITION:
        check_condition(s, p, t);
        break;
    case SCSI_STATUS_BUSY:
    case SCSI_STATUS_TASK_SET_FULL:
    case SCSI_STATUS_TASK_ABORTED:
        net_part_again(p, BUSY_MS);
        break;
    case SCSI_STATUS_CANCELLED: /* a task management function of ours ended it */
        net_part_again(p, 0);
        break;
    case SCSI_STATUS_RESERVATION_CONFLICT:
        net_part_done(p, EACCES);
        break;
    case SCSI_STATUS_ERROR:
    case SCSI_STATUS_TIMEOUT:
        net_lost(&s->n, ERR_PEER, "the connection to %.100s broke: %.150s", s->n.d.url.host,
            iscsi_get_error(s->ctx));
        break;
    default:
        net_part_done(p, EIO);
    }
    scsi_free_scsi_task(t);
}

/* ---- parts ---- */

/* One block is sent along. */
static bool can_write_same(const struct scsi_disk *s)
{
    return !s->no_same && s->look.block_size <= ZERO_CHUNK;
}

uint64_t scsi_part_max(struct net_disk *n, enum disk_op op)
{
    const struct scsi_disk *s = scsi_of(n);
    const struct scsi_look *l = &s->look;

    switch (op) {
    case DISK_DISCARD:
        return at_most(l->max_unmap, DISCARD_MAX, l->block_size);
    case DISK_ZEROES:
        if (can_write_same(s))
            return at_most(l->max_same, SAME_MAX, l->block_size);
        return at_most(l->max_transfer, NET_PART_MAX, l->block_size);
    case DISK_READ:
    case DISK_WRITE:
    case DISK_FLUSH:
    case DISK_OP_MAX:
        break;
    }
    return at_most(l->max_transfer, NET_PART_MAX, l->block_size);
}

/* libiscsi's vectors are the system's under another name. */
_Static_assert(sizeof(struct scsi_iovec) == sizeof(struct iovec) &&
                   offsetof(struct scsi_iovec, iov_len) == offsetof(struct iovec, iov_len),
    "struct scsi_iovec is no struct iovec");

static struct scsi_task *write_zeroes(struct scsi_disk *s, struct net_part *p, uint64_t lba)
{
    uint64_t step = zero_step(s, p), left = step;
    unsigned n = (unsigned)((step + ZERO_CHUNK - 1) / ZERO_CHUNK);

    if (p->cut == NULL)
        p->cut = calloc(n, sizeof *p->cut);
    if (p->cut == NULL)
        return NULL;
    for (unsigned i = 0; i < n; i++) {
        p->cut[i].iov_base = zeroes;
        p->cut[i].iov_len = (size_t)(left < ZERO_CHUNK ? left : ZERO_CHUNK);
        left -= p->cut[i].iov_len;
    }
    return iscsi_write16_iov_task(s->ctx, (int)s->n.d.url.lun, lba + p->done / s->look.block_size,
        NULL, (uint32_t)step, (int)s->look.block_size, 0, 0, 0, 0, 0, part_answered, p,
        (struct scsi_iovec *)p->cut, (int)n);
}

static struct scsi_task *send_command(struct scsi_disk *s, struct net_part *p)
{
    uint32_t block = s->look.block_size, blocks = (uint32_t)(p->len / block);
    uint64_t lba = (p->io->offset + p->at) / block;
    struct scsi_iovec *iov = (struct scsi_iovec *)p->iov;
    struct unmap_list range = { .lba = lba, .num = blocks };
    int lun = (int)s->n.d.url.lun;

    switch (p->io->op) {
    case DISK_READ:
        return iscsi_read16_iov_task(s->ctx, lun, lba, (uint32_t)p->len, (int)block, 0, 0, 0, 0, 0,
            part_answered, p, iov, (int)p->n_iov);
    case DISK_WRITE:
        return iscsi_write16_iov_task(s->ctx, lun, lba, NULL, (uint32_t)p->len, (int)block, 0, 0, 0,
            0, 0, part_answered, p, iov, (int)p->n_iov);
    case DISK_FLUSH:
        return s->no_sync16
                   ? iscsi_synchronizecache10_task(s->ctx, lun, 0, 0, 0, 0, part_answered, p)
                   : iscsi_synchronizecache16_task(s->ctx, lun, 0, 0, 0, 0, part_answered, p);
    case DISK_DISCARD:
        return iscsi_unmap_task(s->ctx, lun, 0, 0, &range, 1, part_answered, p);
    case DISK_ZEROES:
        if (!can_write_same(s))
            return write_zeroes(s, p, lba);
        return iscsi_writesame16_task(s->ctx, lun, lba, zeroes, block, blocks, 0,
            p->io->unmap && s->look.provisioned, 0, 0, part_answered, p);
    case DISK_OP_MAX:
        break;
    }
    return NULL;
}

int scsi_start(struct net_disk *n, struct net_part *p)
{
    struct scsi_disk *s = scsi_of(n);

    if ((p->io->op == DISK_DISCARD && (s->no_unmap || !s->look.provisioned)) ||
        (p->io->op == DISK_FLUSH && s->no_sync)) {
        net_part_done(p, 0);
        return 0;
    }
    return send_command(s, p) != NULL ? 0 : EIO;
}

/* ---- commands of leases ---- */

struct scsi_call {
    struct scsi_call *next;
    struct scsi_disk *disk;
    struct disk_scsi s;
    bool sent, done, left; /* left: its caller has gone, and the call is to be freed */
    enum err_code error;
};

/* Under the lock. */
static void call_over(struct scsi_call *call, enum err_code error)
{
    struct scsi_call **at = &call->disk->calls;

    while (*at != call)
        at = &(*at)->next;
    *at = call->next;
    call->done = true;
    call->error = error;
    if (call->left)
        free(call);
    else
        pthread_cond_broadcast(&call->disk->n.cond);
}

static void call_answered(struct iscsi_context *c, int status, void *data, void *priv)
{
    struct scsi_call *call = priv;
    struct scsi_disk *s = call->disk;
    bool lost = s->n.dying || status == SCSI_STATUS_ERROR || status == SCSI_STATUS_TIMEOUT;
    bool task = !call->s.management;

    (void)c;
    if (!s->n.dying) {
        s->n.n_own--;
        net_heard(&s->n);
    }
    pthread_mutex_lock(&s->n.lock);
    if (!call->left && !lost)
        call->s.result(status, data, call->s.arg);
    call_over(call, lost ? ERR_PEER : ERR_NONE);
    pthread_mutex_unlock(&s->n.lock);
    if (task && data != NULL)
        scsi_free_scsi_task(data);
}

static bool has_session(const struct scsi_disk *s)
{
    return !s->n.broken &&
           (s->n.state == NET_GATED || s->n.state == NET_PREPARING || s->n.state == NET_UP);
}

void scsi_turn(struct net_disk *n)
{
    struct scsi_disk *s = scsi_of(n);
    struct scsi_call *next;
    bool any = false;

    pthread_mutex_lock(&n->lock);
    n->wanted = n->state == NET_IDLE && s->calls != NULL;
    for (struct scsi_call *call = s->calls; call != NULL && has_session(s); call = next) {
        next = call->next;
        if (call->sent)
            continue;
        if (call->s.start(s->ctx, n->d.url.lun, call_answered, call, call->s.arg) != 0) {
            call_over(call, ERR_PEER);
            continue;
        }
        call->sent = any = true;
        n->n_own++;
    }
    pthread_mutex_unlock(&n->lock);
    if (any)
        n->ops->service(n, POLLOUT);
}

void scsi_forget(struct scsi_disk *s)
{
    struct scsi_call *next;

    pthread_mutex_lock(&s->n.lock);
    for (struct scsi_call *call = s->calls; call != NULL; call = next) {
        next = call->next;
        if (call->sent)
            call_over(call, ERR_PEER);
    }
    pthread_mutex_unlock(&s->n.lock);
}

static struct timespec after_ms(unsigned ms)
{
    uint64_t at = clock_ns() + ms * NS_PER_MS;

    return (struct timespec){ (time_t)(at / NS_PER_S), (long)(at % NS_PER_S) };
}

/* Under the lock. */
static int wait_for(struct scsi_call *call, unsigned timeout_ms, struct err *e)
{
    struct scsi_disk *s = call->disk;
    struct timespec until = after_ms(timeout_ms);
    enum err_code error;

    while (!call->done)
        if (pthread_cond_timedwait(&s->n.cond, &s->n.lock, &until) == ETIMEDOUT && !call->done) {
            bool sent = call->sent;

            call->left = true;
            if (!sent)
                call_over(call, ERR_TIMEOUT);
            return err_set(e, ERR_TIMEOUT, "disk %.200s: %s within %u ms", s->n.d.source,
                sent ? "the target did not answer" : "there was no session", timeout_ms);
        }
    error = call->error;
    free(call);
    if (error == ERR_NONE)
        return 0;
    return err_set(
        e, error, "disk %.200s: the session broke before the target answered", s->n.d.source);
}

int disk_iscsi_run(struct disk *d, const struct disk_scsi *what, unsigned timeout_ms, struct err *e)
{
    struct scsi_disk *s = (struct scsi_disk *)d;
    struct scsi_call *call, **last;
    int rc;

    if (d->kind != MIGRD__STORAGE_KIND__STORAGE_ISCSI)
        return err_set(e, ERR_UNSUPPORTED, "disk %.200s: this is no iSCSI disk", d->source);
    call = calloc(1, sizeof *call);
    if (call == NULL)
        return err_set(e, ERR_MEMORY, "disk %.200s: out of memory", d->source);
    call->disk = s;
    call->s = *what;
    pthread_mutex_lock(&s->n.lock);
    for (last = &s->calls; *last != NULL;)
        last = &(*last)->next;
    *last = call;
    s->n.called = true;
    net_wake(&s->n);
    rc = wait_for(call, timeout_ms, e);
    pthread_mutex_unlock(&s->n.lock);
    return rc;
}
