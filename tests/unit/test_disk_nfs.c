/* SPDX-License-Identifier: ISC */
/* Writes, flushes and what is written again: disk_nfs_io against a server of the test's own, which
 * answers when the test says so. The calls of libnfs and of the loop are replaced. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "storage-check/disk_nfs.h"

#define CALLS 32u
#define FILE_BYTES 64u

struct call {
    rpc_cb cb;
    void *priv;
    bool commit;
    uint64_t offset;
    uint32_t count;
    uint8_t byte; /* the first one */
};

static struct {
    struct call call[CALLS];
    unsigned n;
    char verifier;
    uint8_t file[FILE_BYTES]; /* by offset: one byte stands for a write */
} server;

static struct nfs_disk *f;
static int part_result;
static unsigned losses;

/* ---- libnfs ---- */

int rpc_nfs3_write_async(struct rpc_context *rpc, rpc_cb cb, struct WRITE3args *a, void *priv)
{
    (void)rpc;
    assert_true(server.n < CALLS);
    server.call[server.n++] = (struct call){ .cb = cb,
        .priv = priv,
        .offset = a->offset,
        .count = a->count,
        .byte = (uint8_t)a->data.data_val[0] };
    return 0;
}

int rpc_nfs3_commit_async(struct rpc_context *rpc, rpc_cb cb, struct COMMIT3args *a, void *priv)
{
    (void)rpc;
    (void)a;
    assert_true(server.n < CALLS);
    server.call[server.n++] = (struct call){ .cb = cb, .priv = priv, .commit = true };
    return 0;
}

int rpc_nfs3_read_async(struct rpc_context *rpc, rpc_cb cb, struct READ3args *a, void *priv)
{
    (void)rpc;
    (void)cb;
    (void)a;
    (void)priv;
    return -1;
}

/* ---- the loop ---- */

void net_lost(struct net_disk *n, enum err_code code, const char *fmt, ...)
{
    (void)code;
    (void)fmt;
    losses += !n->broken;
    n->broken = true;
}

void net_ready(struct net_disk *n)
{
    n->state = NET_UP;
}

void net_heard(struct net_disk *n)
{
    (void)n;
}

void net_part_done(struct net_part *p, int error)
{
    (void)p;
    part_result = error;
}

void net_part_again(struct net_part *p, unsigned delay_ms)
{
    (void)p;
    (void)delay_ms;
    part_result = EAGAIN;
}

void net_iov_from(const struct iovec *iov, unsigned n, uint64_t skip, void *to, uint64_t len)
{
    (void)n;
    memcpy(to, (uint8_t *)iov->iov_base + skip, len);
}

void net_iov_to(const struct iovec *iov, unsigned n, uint64_t skip, const void *from, uint64_t len)
{
    (void)iov;
    (void)n;
    (void)skip;
    (void)from;
    (void)len;
}

/* ---- the server ---- */

/* The oldest call is answered. */
static void answer(nfsstat3 status, stable_how committed)
{
    struct call c = server.call[0];
    WRITE3res w = { .status = status };
    COMMIT3res k = { .status = status };

    assert_true(server.n > 0);
    memmove(server.call, server.call + 1, --server.n * sizeof server.call[0]);
    if (c.commit) {
        k.COMMIT3res_u.resok.verf[0] = server.verifier;
        c.cb(NULL, RPC_STATUS_SUCCESS, &k, c.priv);
        return;
    }
    if (status == NFS3_OK)
        server.file[c.offset / DISK_SECTOR] = c.byte;
    w.WRITE3res_u.resok.count = c.count;
    w.WRITE3res_u.resok.committed = committed;
    w.WRITE3res_u.resok.verf[0] = server.verifier;
    c.cb(NULL, RPC_STATUS_SUCCESS, &w, c.priv);
}

/* The server has lost what was not committed, and the disk has connected anew. */
static void reconnect(void)
{
    assert_true(f->n.broken || server.n == 0);
    nfs_forget(f);
    server.n = 0;
    f->n.broken = false;
    f->n.state = NET_PREPARING;
    nfs_prepare(&f->n);
}

static int start(enum disk_op op, uint8_t byte, stable_how committed, nfsstat3 status)
{
    uint8_t data[DISK_SECTOR];
    struct iovec iov = { data, sizeof data };
    struct disk_io io = { .op = op, .iov = &iov, .n_iov = 1, .len = sizeof data };
    struct net_part p = { .net = &f->n, .io = &io, .iov = &iov, .n_iov = 1, .len = sizeof data };
    int rc;

    memset(data, byte, sizeof data);
    part_result = -1;
    rc = nfs_start(&f->n, &p);
    if (rc > 0)
        return rc;
    if (server.n > 0)
        answer(status, committed);
    return part_result;
}

static int setup(void **state)
{
    (void)state;
    memset(&server, 0, sizeof server);
    server.verifier = 1;
    losses = 0;
    f = calloc(1, sizeof *f);
    f->n.state = NET_UP;
    f->n.d.source = strdup("nfs://server/disk");
    return f->n.d.source != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    held_dispose(&f->held);
    free(f->n.d.source);
    free(f);
    return 0;
}

/* ---- tests ---- */

/* What was made safe at once must not be undone by an older write that is done again. */
static void mixed_stability(void **state)
{
    (void)state;
    assert_int_equal(start(DISK_WRITE, 1, UNSTABLE, NFS3_OK), 0);
    assert_int_equal(start(DISK_WRITE, 2, FILE_SYNC, NFS3_OK), 0);
    server.verifier = 2;
    reconnect();
    while (server.n > 0)
        answer(NFS3_OK, UNSTABLE);
    assert_int_equal(server.file[0], 2);
    assert_int_equal(f->n.state, NET_UP);
    assert_int_equal(f->held.bytes, 0);
    /* alone it is not held */
    assert_int_equal(start(DISK_WRITE, 3, FILE_SYNC, NFS3_OK), 0);
    assert_int_equal(f->held.bytes, 0);
}

/* The server tells once that it could not write, drops the data and says yes the next time. */
static void failed_commit(void **state)
{
    (void)state;
    assert_int_equal(start(DISK_WRITE, 1, UNSTABLE, NFS3_OK), 0);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3ERR_NOSPC), ENOSPC);
    server.file[0] = 0;
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), -1);
    assert_int_equal(losses, 1);
    reconnect();
    while (server.n > 0)
        answer(NFS3_OK, UNSTABLE);
    assert_int_equal(server.file[0], 1);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), 0);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), 0);
    assert_int_equal(losses, 1);
}

/* It still cannot: the guest is told that the data is lost, once. */
static void failed_again(void **state)
{
    (void)state;
    assert_int_equal(start(DISK_WRITE, 1, UNSTABLE, NFS3_OK), 0);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3ERR_IO), EIO);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), -1);
    reconnect();
    answer(NFS3ERR_IO, UNSTABLE);
    assert_int_equal(f->n.state, NET_UP);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), DISK_WRITES_LOST);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), 0);
}

/* Nobody here has the data. */
static void failed_of_another(void **state)
{
    (void)state;
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3ERR_IO), DISK_WRITES_LOST);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), 0);
}

/* A fenced host's data is not lost, and nothing is written again. */
static void fenced(void **state)
{
    (void)state;
    assert_int_equal(start(DISK_WRITE, 1, UNSTABLE, NFS3_OK), 0);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3ERR_ACCES), EACCES);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3ERR_JUKEBOX), EAGAIN);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), 0);
    assert_int_equal(losses, 0);
}

/* The file's owner may be put right again by the lease: not for ever. */
static void refused_for_a_moment(void **state)
{
    (void)state;
    f->owned = true;
    assert_int_equal(start(DISK_WRITE, 1, UNSTABLE, NFS3ERR_ACCES), EAGAIN);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3ERR_ACCES), EAGAIN);
    assert_int_equal(start(DISK_WRITE, 1, UNSTABLE, NFS3ERR_ROFS), EACCES);
    assert_int_equal(start(DISK_WRITE, 1, UNSTABLE, NFS3_OK), 0);
    assert_int_equal(losses, 0);
}

/* What another process wrote, and goes on with: `f` is that process at first. */
static void go_on_as_another(void)
{
    struct disk_mark m = { .owed = false };
    struct net_disk n = f->n;

    nfs_mark(&f->n, &m, false);
    held_dispose(&f->held);
    memset(f, 0, sizeof *f);
    f->n.state = NET_UP;
    f->n.d.source = n.d.source;
    nfs_mark(&f->n, &m, true);
}

static void moved_unflushed(void **state)
{
    (void)state;
    assert_int_equal(start(DISK_WRITE, 1, UNSTABLE, NFS3_OK), 0);
    go_on_as_another();
    go_on_as_another(); /* it moves on before its first flush */
    assert_int_equal(start(DISK_WRITE, 2, UNSTABLE, NFS3_OK), 0);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), 0);
    go_on_as_another();
    server.verifier = 2; /* nothing is owed any more */
    assert_int_equal(start(DISK_WRITE, 3, UNSTABLE, NFS3_OK), 0);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), 0);
    assert_int_equal(losses, 0);
}

static void moved_and_forgotten(void **state)
{
    (void)state;
    assert_int_equal(start(DISK_WRITE, 1, UNSTABLE, NFS3_OK), 0);
    server.verifier = 2;
    go_on_as_another();
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), DISK_WRITES_LOST);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), 0);
    /* heard of by a write */
    assert_int_equal(start(DISK_WRITE, 1, UNSTABLE, NFS3_OK), 0);
    go_on_as_another();
    server.verifier = 3;
    assert_int_equal(start(DISK_WRITE, 2, UNSTABLE, NFS3_OK), 0);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), DISK_WRITES_LOST);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), 0);
    /* the server restarts after the first write here: that one is written again, the other is lost
     */
    assert_int_equal(start(DISK_WRITE, 3, UNSTABLE, NFS3_OK), 0);
    go_on_as_another();
    assert_int_equal(start(DISK_WRITE, 4, UNSTABLE, NFS3_OK), 0);
    server.verifier = 4;
    server.file[0] = 0;
    reconnect();
    while (server.n > 0)
        answer(NFS3_OK, UNSTABLE);
    assert_int_equal(server.file[0], 4);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), DISK_WRITES_LOST);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), 0);
}

/* The first flush fails: what was written here is written again, what the other process wrote
 * cannot be. */
static void moved_and_failed(void **state)
{
    (void)state;
    assert_int_equal(start(DISK_WRITE, 1, UNSTABLE, NFS3_OK), 0);
    go_on_as_another();
    assert_int_equal(start(DISK_WRITE, 2, UNSTABLE, NFS3_OK), 0);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3ERR_IO), DISK_WRITES_LOST);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), -1);
    server.file[0] = 0;
    reconnect();
    while (server.n > 0)
        answer(NFS3_OK, UNSTABLE);
    assert_int_equal(server.file[0], 2);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), 0);
}

/* Its COMMIT had failed: the server's next one would succeed and say nothing. */
static void moved_after_failure(void **state)
{
    (void)state;
    assert_int_equal(start(DISK_WRITE, 1, UNSTABLE, NFS3_OK), 0);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3ERR_NOSPC), ENOSPC);
    go_on_as_another();
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), DISK_WRITES_LOST);
    assert_int_equal(start(DISK_FLUSH, 0, UNSTABLE, NFS3_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(mixed_stability, setup, teardown),
        cmocka_unit_test_setup_teardown(failed_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(failed_again, setup, teardown),
        cmocka_unit_test_setup_teardown(failed_of_another, setup, teardown),
        cmocka_unit_test_setup_teardown(fenced, setup, teardown),
        cmocka_unit_test_setup_teardown(refused_for_a_moment, setup, teardown),
        cmocka_unit_test_setup_teardown(moved_unflushed, setup, teardown),
        cmocka_unit_test_setup_teardown(moved_and_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(moved_and_failed, setup, teardown),
        cmocka_unit_test_setup_teardown(moved_after_failure, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
