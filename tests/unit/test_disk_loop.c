/* SPDX-License-Identifier: ISC */
/* The thread of a disk on the network, with a protocol whose server is memory of the test. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "storage-check/disk_held.h"
#include "storage-check/disk_loop.h"

#define DISK_BYTES (1u << 20)
#define PART_BYTES 8192u
#define SLOTS 40u

/* ---- the protocol ---- */

struct fake {
    struct net_disk n; /* first */
    int fd;
    uint8_t memory[DISK_BYTES];
    struct net_part *queue[NET_PARTS];
    struct disk_mark mark; /* the disk's thread alone sees it */
    unsigned queued;
    /* what the test wants */
    atomic_uint refuse_connects; /* so many fail */
    atomic_uint foreign_connects;
    atomic_uint break_after; /* parts; 0 never */
    atomic_uint again_every; /* parts; 0 never */
    atomic_bool silent, silent_connect;
    atomic_int part_error;
    /* what the test looks at */
    atomic_uint connects, disconnects, resets, parts, flushes, probes, owners;
};

static struct fake *fake_of(struct net_disk *n)
{
    return (struct fake *)n;
}

static bool take_one(atomic_uint *count)
{
    if (atomic_load(count) == 0)
        return false;
    atomic_fetch_sub(count, 1);
    return true;
}

/* A socket that hears what it says. */
static int talk_to_oneself(void)
{
    struct sockaddr_un me = { .sun_family = AF_UNIX };
    socklen_t len = sizeof me;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&me, sizeof me.sun_family), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&me, &len), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&me, len), 0);
    return fd;
}

static int fake_connect(struct net_disk *n, const char *address, struct err *e)
{
    struct fake *s = fake_of(n);

    assert_string_equal(address, "127.0.0.1");
    if (take_one(&s->refuse_connects))
        return err_set(e, ERR_PEER, "nobody listens");
    atomic_fetch_add(&s->connects, 1);
    s->fd = talk_to_oneself();
    if (!n->opened)
        n->d.size = DISK_BYTES;
    if (take_one(&s->foreign_connects))
        net_foreign(n, "it is another one");
    else if (!atomic_load(&s->silent_connect))
        net_connected(n);
    return 0;
}

static void fake_prepare(struct net_disk *n)
{
    net_ready(n);
}

static void fake_disconnect(struct net_disk *n)
{
    struct fake *s = fake_of(n);
    struct linger how = { 0 };
    socklen_t len = sizeof how;

    if (s->fd >= 0 && getsockopt(s->fd, SOL_SOCKET, SO_LINGER, &how, &len) == 0)
        atomic_fetch_add(&s->resets, how.l_onoff != 0 && how.l_linger == 0);
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    s->queued = 0;
    atomic_fetch_add(&s->disconnects, 1);
}

static int fake_fd(struct net_disk *n)
{
    return fake_of(n)->fd;
}

static short fake_events(struct net_disk *n)
{
    (void)n;
    return POLLIN;
}

static void carry_out(struct fake *s, struct net_part *p)
{
    uint8_t *at = s->memory + p->io->offset + p->at;

    switch (p->io->op) {
    case DISK_READ:
        net_iov_to(p->iov, p->n_iov, 0, at, p->len);
        break;
    case DISK_WRITE:
        net_iov_from(p->iov, p->n_iov, 0, at, p->len);
        break;
    case DISK_ZEROES:
        memset(at, 0, p->len);
        break;
    case DISK_FLUSH:
        atomic_fetch_add(&s->flushes, 1);
        break;
    case DISK_DISCARD:
    case DISK_OP_MAX:
        break;
    }
}

/* Carries out what is queued, the last one first; some parts' answers get lost. */
static void work(struct fake *s)
{
    while (s->queued > 0 && !s->n.broken) {
        struct net_part *p = s->queue[--s->queued];
        unsigned number = atomic_fetch_add(&s->parts, 1) + 1;
        unsigned again = atomic_load(&s->again_every), limit = atomic_load(&s->break_after);

        if (again != 0 && number % again == 0) {
            net_part_again(p, number % 2);
            continue;
        }
        carry_out(s, p);
        if (limit != 0 && number % limit == 0)
            net_lost(&s->n, ERR_PEER, "unplugged");
        else
            net_part_done(p, atomic_load(&s->part_error));
    }
}

static int fake_service(struct net_disk *n, short revents)
{
    struct fake *s = fake_of(n);
    uint64_t count = 1;

    if ((revents & POLLOUT) != 0)
        assert_true(write(s->fd, &count, sizeof count) == sizeof count || errno == EAGAIN);
    if ((revents & POLLIN) == 0)
        return 0;
    assert_int_equal(read(s->fd, &count, sizeof count), sizeof count);
    if (!atomic_load(&s->silent))
        work(s);
    return 0;
}

static uint64_t fake_part_max(struct net_disk *n, enum disk_op op)
{
    (void)n;
    return op == DISK_DISCARD ? UINT64_MAX : PART_BYTES;
}

static int fake_start(struct net_disk *n, struct net_part *p)
{
    struct fake *s = fake_of(n);

    if (s->queued == NET_PARTS / 2)
        return -1;
    s->queue[s->queued++] = p;
    return 0;
}

static void fake_probe(struct net_disk *n)
{
    atomic_fetch_add(&fake_of(n)->probes, 1);
}

static void fake_owner(struct net_disk *n)
{
    atomic_fetch_add(&fake_of(n)->owners, 1);
}

static void fake_mark(struct net_disk *n, struct disk_mark *m, bool expect)
{
    struct fake *s = fake_of(n);

    if (expect)
        s->mark = *m;
    else
        *m = s->mark;
}

static void fake_nothing(struct net_disk *n)
{
    (void)n;
}

static const struct net_ops fake_ops = {
    .connect = fake_connect,
    .prepare = fake_prepare,
    .disconnect = fake_disconnect,
    .fd = fake_fd,
    .events = fake_events,
    .service = fake_service,
    .part_max = fake_part_max,
    .start = fake_start,
    .probe = fake_probe,
    .owner = fake_owner,
    .mark = fake_mark,
    .turn = fake_nothing,
    .dispose = fake_nothing,
};

/* ---- requests ---- */

struct slot {
    struct disk_io io;
    struct iovec iov[3];
    uint8_t data[5 * PART_BYTES];
    bool busy;
    int error;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static struct slot slots[SLOTS];
static atomic_uint lost, back;
static uint8_t mirror[DISK_BYTES];

static void on_event(void *arg, enum disk_event ev, const char *text)
{
    (void)arg;
    assert_non_null(text);
    atomic_fetch_add(ev == DISK_LOST ? &lost : &back, 1);
}

static void on_done(struct disk_io *io, int error)
{
    struct slot *s = io->arg;

    pthread_mutex_lock(&lock);
    s->busy = false;
    s->error = error;
    pthread_cond_broadcast(&cond);
    pthread_mutex_unlock(&lock);
}

static void wait_for(struct slot *s)
{
    pthread_mutex_lock(&lock);
    while (s->busy)
        pthread_cond_wait(&cond, &lock);
    pthread_mutex_unlock(&lock);
}

static bool is_busy(struct slot *s)
{
    bool busy;

    pthread_mutex_lock(&lock);
    busy = s->busy;
    pthread_mutex_unlock(&lock);
    return busy;
}

static void wait_until(atomic_uint *count, unsigned n)
{
    for (unsigned i = 0; i < 5000 && atomic_load(count) < n; i++)
        usleep(1000);
    assert_true(atomic_load(count) >= n);
}

/* A vector of three pieces. */
static void submit(struct disk *d, unsigned i, enum disk_op op, uint64_t offset, uint64_t len)
{
    struct slot *s = &slots[i];
    size_t first = len / 3 / 512 * 512, second = len / 4;

    s->iov[0] = (struct iovec){ s->data, first };
    s->iov[1] = (struct iovec){ s->data + first, second };
    s->iov[2] = (struct iovec){ s->data + first + second, len - first - second };
    s->io = (struct disk_io){
        .op = op, .offset = offset, .len = len, .iov = s->iov, .n_iov = 3, .done = on_done, .arg = s
    };
    s->busy = true;
    disk_submit(d, &s->io);
}

static int run(struct disk *d, enum disk_op op, uint64_t offset, uint64_t len)
{
    submit(d, 0, op, offset, len);
    wait_for(&slots[0]);
    return slots[0].error;
}

static void run_at(struct disk *d, unsigned i, enum disk_op op)
{
    submit(d, i, op, 0, 512);
    wait_for(&slots[i]);
}

/* ---- the disk ---- */

static struct fake *make(unsigned timeout_ms)
{
    struct disk_options o = { .timeout_ms = timeout_ms, .event = on_event };
    struct storage_url u = { .kind = MIGRD__STORAGE_KIND__STORAGE_NFS, .host = "127.0.0.1" };
    struct fake *s = calloc(1, sizeof *s);

    assert_non_null(s);
    s->fd = -1;
    assert_true(net_init(&s->n, &fake_ops, u.kind, &o, &u, "nfs://127.0.0.1/e/f"));
    atomic_store(&lost, 0);
    atomic_store(&back, 0);
    return s;
}

static struct disk *opened(struct fake *s)
{
    struct err e;

    assert_int_equal(net_open(&s->n, &e), 0);
    return &s->n.d;
}

static void fill(uint8_t *p, size_t n, unsigned what)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(what * 31 + i / 7);
}

/* Rounds of requests that do not overlap, each checked against what has to be there. */
static void play(struct disk *d, unsigned rounds)
{
    const uint64_t region = DISK_BYTES / SLOTS / 512 * 512;

    memset(mirror, 0, sizeof mirror);
    for (unsigned r = 0; r < rounds; r++) {
        for (unsigned i = 0; i < SLOTS; i++) {
            unsigned dice = (r * 7 + i * 13) % 10;
            uint64_t at = i * region, len = (1 + (r + i) % 48) * 512;

            if (dice < 6) {
                fill(slots[i].data, len, r + i);
                memcpy(mirror + at, slots[i].data, len);
            } else if (dice == 6) {
                memset(mirror + at, 0, len);
            }
            submit(d, i, dice < 6 ? DISK_WRITE : dice == 6 ? DISK_ZEROES : DISK_READ, at, len);
        }
        for (unsigned i = 0; i < SLOTS; i++) {
            wait_for(&slots[i]);
            assert_int_equal(slots[i].error, 0);
            assert_memory_equal(slots[i].io.op == DISK_ZEROES ? mirror + i * region : slots[i].data,
                mirror + i * region, slots[i].io.len);
        }
        assert_int_equal(run(d, DISK_FLUSH, 0, 0), 0);
    }
    disk_abort(d); /* its thread is at rest */
    assert_memory_equal(((struct fake *)d)->memory, mirror, sizeof mirror);
}

/* ---- cases ---- */

static void plain(void **state)
{
    struct fake *s = make(5000);
    struct disk *d = opened(s);

    (void)state;
    assert_int_equal(disk_size(d), DISK_BYTES);
    assert_true(disk_is_network(d));
    play(d, 30);
    assert_int_equal(atomic_load(&lost), 0);
    assert_int_equal(run(d, DISK_DISCARD, 0, DISK_BYTES), 0);
    assert_int_equal(run(d, DISK_READ, 512, 0), 0);
    assert_int_equal(run(d, DISK_READ, DISK_BYTES - 512, 1024), EIO);
    assert_int_equal(run(d, DISK_READ, 100, 512), EIO);
    disk_close(&d);
    assert_null(d);
}

static void errors(void **state)
{
    struct fake *s = make(5000);
    struct disk *d = opened(s);

    (void)state;
    atomic_store(&s->part_error, ENOSPC);
    assert_int_equal(run(d, DISK_WRITE, 0, 5 * PART_BYTES), ENOSPC);
    atomic_store(&s->part_error, 0);
    assert_int_equal(run(d, DISK_WRITE, 0, 5 * PART_BYTES), 0);
    disk_close(&d);
}

static void breaks(void **state)
{
    struct fake *s = make(5000);
    struct disk *d = opened(s);

    (void)state;
    atomic_store(&s->break_after, 97);
    atomic_store(&s->again_every, 11);
    play(d, 20);
    wait_until(&lost, 1);
    assert_true(atomic_load(&s->connects) > 5);
    disk_close(&d);
}

static void aborts(void **state)
{
    struct fake *s = make(60000);
    struct disk *d = opened(s);

    (void)state;
    atomic_store(&s->silent, true);
    for (unsigned i = 0; i < SLOTS; i++)
        submit(d, i, DISK_WRITE, i * 16384, 4 * PART_BYTES);
    disk_abort(d);
    for (unsigned i = 0; i < SLOTS; i++) {
        assert_false(is_busy(&slots[i]));
        assert_int_equal(slots[i].error, ECANCELED);
    }
    assert_int_equal(atomic_load(&s->disconnects), 1);
    assert_int_equal(atomic_load(&s->resets), 1); /* the kernel sends nothing any more either */
    atomic_store(&s->silent, false);
    assert_int_equal(run(d, DISK_WRITE, 0, 512), 0);
    assert_int_equal(atomic_load(&s->connects), 2);
    assert_int_equal(atomic_load(&lost), 0); /* nothing was lost: it was closed */
    disk_close(&d);
}

static void silent(void **state)
{
    struct fake *s = make(200);
    struct disk *d = opened(s);

    (void)state;
    atomic_store(&s->silent, true);
    submit(d, 0, DISK_WRITE, 0, 4096);
    wait_until(&lost, 1);
    assert_true(atomic_load(&s->probes) >= 1);
    assert_true(is_busy(&slots[0]));
    atomic_store(&s->silent, false);
    wait_for(&slots[0]);
    assert_int_equal(slots[0].error, 0);
    wait_until(&back, 1);
    disk_close(&d);
}

static void refused_connects(void **state)
{
    struct fake *s = make(5000);
    struct disk *d = opened(s);

    (void)state;
    atomic_store(&s->refuse_connects, 3);
    atomic_store(&s->break_after, 1);
    submit(d, 0, DISK_WRITE, 0, 512);
    wait_until(&lost, 1);
    atomic_store(&s->break_after, 0);
    wait_for(&slots[0]);
    assert_int_equal(slots[0].error, 0);
    assert_int_equal(atomic_load(&back), 1);
    disk_close(&d);
}

static void foreign(void **state)
{
    struct fake *s = make(5000);
    struct disk *d = opened(s);

    (void)state;
    atomic_store(&s->foreign_connects, 1);
    atomic_store(&s->break_after, 1);
    assert_int_equal(run(d, DISK_WRITE, 0, 512), ESTALE);
    atomic_store(&s->break_after, 0);
    assert_int_equal(run(d, DISK_READ, 0, 512), ESTALE);
    wait_until(&back, 1); /* it is looked at again after two seconds */
    assert_int_equal(run(d, DISK_READ, 0, 512), 0);
    disk_close(&d);
}

/* Eight flushes while the server is silent: the first alone or with some of the others, then all
 * the rest at once. Returns how many the server saw. */
static unsigned flush_eight(struct fake *s, int error)
{
    unsigned before = atomic_load(&s->flushes);

    atomic_store(&s->silent, true);
    for (unsigned i = 0; i < 8; i++) {
        submit(&s->n.d, i, DISK_FLUSH, 0, 0);
        usleep(1000);
    }
    atomic_store(&s->silent, false);
    for (bool busy = true; busy;) {
        run_at(&s->n.d, 8, DISK_READ); /* has it look at what it was sent */
        busy = false;
        for (unsigned i = 0; i < 8; i++)
            busy = busy || is_busy(&slots[i]);
    }
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(slots[i].error, error);
    return atomic_load(&s->flushes) - before;
}

static void flushes(void **state)
{
    struct fake *s = make(5000);
    struct disk *d = opened(s);

    (void)state;
    assert_in_range(flush_eight(s, 0), 1, 7);
    atomic_store(&s->part_error, EIO);
    assert_in_range(flush_eight(s, EIO), 1, 7);
    atomic_store(&s->part_error, 0);
    atomic_store(&s->break_after, 3); /* each third answer gets lost, with the connection */
    assert_true(flush_eight(s, 0) >= 1);
    atomic_store(&s->break_after, 0);
    atomic_store(&s->silent, true);
    for (unsigned i = 0; i < 8; i++)
        submit(d, i, DISK_FLUSH, 0, 0);
    usleep(1000);
    disk_abort(d);
    for (unsigned i = 0; i < 8; i++) {
        assert_false(is_busy(&slots[i]));
        assert_int_equal(slots[i].error, ECANCELED);
    }
    atomic_store(&s->silent, false);
    assert_int_equal(run(d, DISK_FLUSH, 0, 0), 0);
    disk_close(&d);
}

static atomic_uint gate_connection;

static void on_up(void *arg, unsigned connection)
{
    (void)arg;
    atomic_store(&gate_connection, connection);
}

static void gate(void **state)
{
    struct fake *s = make(5000);
    struct disk *d = opened(s);

    (void)state;
    atomic_store(&gate_connection, 0);
    disk_set_gate(d, on_up, NULL);
    assert_int_equal(run(d, DISK_WRITE, 0, 512), 0); /* it was connected before */
    disk_abort(d);
    submit(d, 0, DISK_WRITE, 0, 512);
    wait_until(&gate_connection, 2);
    disk_admit(d, 1, 0); /* an older one */
    usleep(20000);
    assert_true(is_busy(&slots[0]));
    disk_admit(d, 2, EACCES);
    wait_for(&slots[0]);
    assert_int_equal(slots[0].error, EACCES);
    assert_int_equal(run(d, DISK_READ, 0, 512), EACCES);
    disk_admit(d, 2, 0);
    while (run(d, DISK_READ, 0, 512) == EACCES) /* until the thread has heard of it */
        usleep(1000);
    assert_int_equal(slots[0].error, 0);
    disk_admit(d, 0, EACCES); /* the lease is lost */
    while (run(d, DISK_WRITE, 0, 512) == 0)
        usleep(1000);
    assert_int_equal(slots[0].error, EACCES);
    disk_close(&d);
}

static void owner(void **state)
{
    struct fake *s = make(5000);
    struct disk *d = opened(s);
    struct err e;

    (void)state;
    assert_int_equal(disk_set_owner(d, 7, 8, &e), 0);
    wait_until(&s->owners, 1);
    disk_close(&d);
}

static void marks(void **state)
{
    struct fake *s = make(5000);
    struct disk *d = opened(s);
    struct disk_mark m = { .owed = true, .server = "abcdefg" }, got;

    (void)state;
    disk_mark(d, &got);
    assert_false(got.owed);
    disk_expect(d, &m);
    assert_int_equal(run(d, DISK_WRITE, 0, 512), 0);
    disk_mark(d, &got);
    assert_true(got.owed);
    assert_memory_equal(got.server, m.server, sizeof m.server);
    disk_close(&d);
}

static void not_opened(void **state)
{
    struct fake *s = make(5000);
    struct err e;

    (void)state;
    atomic_store(&s->refuse_connects, 1);
    assert_int_equal(net_open(&s->n, &e), -1);
    assert_string_equal(e.text, "disk nfs://127.0.0.1/e/f: nobody listens");
    s = make(100);
    atomic_store(&s->silent_connect, true);
    assert_int_equal(net_open(&s->n, &e), -1);
    assert_int_equal(e.code, ERR_TIMEOUT);
    assert_non_null(strstr(e.text, "the server 127.0.0.1 does not answer within 100 ms"));
}

/* ---- what a server may still forget ---- */

static void held_pieces(void **state)
{
    struct held h = { .first = NULL };
    struct held_piece *p;
    uint64_t mark;

    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 64; i++) {
            p = held_take(&h, i * 4096, i % 2 == 0 ? 4096 : 1u << 20, i % 5 == 0);
            assert_non_null(p);
            if (i % 5 == 0)
                assert_int_equal(p->bytes[4095], 0);
            else
                memset(p->data, (int)i, p->len);
            held_add(&h, p);
        }
        mark = h.first->next->seq;
        held_drop(&h, mark);
        assert_int_equal(h.first->seq, mark + 1);
        assert_int_equal(h.first->data[h.first->len - 1], 2);
        p = held_take(&h, 0, 1000, false);
        held_give(&h, p);
        assert_int_equal(h.taken, 0);
        held_drop(&h, UINT64_MAX);
        assert_null(h.first);
        assert_null(h.last);
        assert_int_equal(h.bytes, 0);
    }
    assert_true(held_room(&h, HELD_MAX + 1));
    p = held_take(&h, 0, 1u << 20, false);
    assert_true(held_room(&h, HELD_MAX - (1u << 20)));
    assert_false(held_room(&h, HELD_MAX));
    held_give(&h, p);
    held_dispose(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(plain), cmocka_unit_test(errors),
        cmocka_unit_test(flushes), cmocka_unit_test(breaks), cmocka_unit_test(aborts),
        cmocka_unit_test(silent), cmocka_unit_test(refused_connects), cmocka_unit_test(foreign),
        cmocka_unit_test(gate), cmocka_unit_test(owner), cmocka_unit_test(marks),
        cmocka_unit_test(not_opened), cmocka_unit_test(held_pieces) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
