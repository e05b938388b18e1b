/* SPDX-License-Identifier: ISC */
/*
 * The story. storage_serve forks one child per disk, so that a server that hangs costs only
 * its own disk, and looks at all of them at once. A child looks, packs a reply of one
 * disk into a pipe and ends; what it is doing at the moment stands in memory that both
 * see. When the time is over the parent kills what has not answered and says of
 * that disk what it was waiting for. A child that cannot even be killed (a hard NFS mount of
 * the kernel's) is left behind.
 *
 * The challenge: the source leaves a file beside the disk with 128 random bits in it, the
 * target looks for a file of that name beside what it calls the disk. Only the storage
 * can carry the bits there. A LUN gets none: its names are the proof, and its blocks belong to the
 * guest.
 */
#define _GNU_SOURCE
#include "storage-check/identity_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"
#include "storage-check/disk.h"
#include "storage-check/lease.h"
#include "storage-check/url.h"

#define DISKS_MAX 64u
#define ANSWER_MAX (256u << 10) /* bytes of one child's reply */

/* --- one disk --- */

/* What the target has of the files that the source's disk needs. */
static void look_backing(struct look *l)
{
    if (l->theirs == NULL || l->what != MIGRD__STORAGE_REQUEST__WHAT__ANSWER)
        return;
    for (size_t i = 0; i < l->theirs->n_backing; i++) {
        bool known = false;

        for (size_t k = 0; k < l->out->n_backing; k++)
            known = known || strcmp(l->out->backing[k], l->theirs->backing[i]) == 0;
        if (!known && l->theirs->backing[i][0] == '/' && access(l->theirs->backing[i], R_OK) == 0)
            id_add_backing(l->out, l->theirs->backing[i]);
    }
}

/* Who has it, by the record on the storage itself. Of a block device only this host's own processes
 * could be told, which is nothing to compare. */
static void look_lease(struct look *l)
{
    struct disk_options o = { .read_only = true,
        .host = l->rq->host,
        .initiator = l->rq->initiator,
        .secrets = l->rq->secrets,
        .timeout_ms = l->timeout_ms / 2 };
    struct lease_record r;
    struct err e;

    if (l->what == MIGRD__STORAGE_REQUEST__WHAT__CLEAN || look_failed(l) ||
        l->out->kind == MIGRD__STORAGE_KIND__STORAGE_BLOCK)
        return;
    look_step(l, "reading the record of its lease");
    if (lease_read(l->disk->source, &o, &r, &e) < 0) {
        log_warn("storage", "%s: its lease: %s", l->disk->source, e.text);
        return;
    }
    id_text(&l->out->lease_owner, "%s", r.owner);
    l->out->lease_epoch = r.epoch;
}

void look_at(struct look *l)
{
    struct storage_url u;
    struct err e;

    look_step(l, "looking");
    if (FAULT("storage-look"))
        look_fail(l, ERR_SYSTEM, "fault point storage-look");
    else if (storage_url_check_disk(l->disk->source, &u, &e) < 0)
        look_fail(l, e.code, "%s", e.text);
    else if (u.kind == MIGRD__STORAGE_KIND__STORAGE_NFS)
        look_nfs(l);
    else if (u.kind == MIGRD__STORAGE_KIND__STORAGE_ISCSI)
        look_iscsi(l);
    else
        look_file(l);
    look_backing(l);
    look_lease(l);
}

/* --- all disks --- */

struct child {
    pid_t pid;
    int fd;       /* -1: has ended, or never began */
    char *step;   /* shared */
    uint8_t *buf; /* its reply so far */
    size_t n;
    Migrd__StorageReply *reply;
};

static void set_kind(Migrd__DiskIdentity *id)
{
    struct storage_url u;

    if (storage_url_parse(id->source, &u, NULL) < 0 || u.kind == MIGRD__STORAGE_KIND__STORAGE_FILE)
        return; /* a file or a device: the host knows */
    id->kind = u.kind;
    id->shared = true;
}

static Migrd__DiskIdentity *new_identity(const Migrd__Disk *disk)
{
    Migrd__DiskIdentity *id = malloc(sizeof *id);

    if (id == NULL)
        return NULL;
    migrd__disk_identity__init(id);
    id_text(&id->device, "%s", disk->device);
    id_text(&id->source, "%s", disk->source);
    id_text(&id->cache, "%s", disk->cache);
    set_kind(id);
    return id;
}

static int send_reply(struct look *l, int fd)
{
    Migrd__StorageReply r = MIGRD__STORAGE_REPLY__INIT;
    char *answer = l->answer, *why = l->answer_error;
    uint8_t *buf;
    size_t n;
    int rc;

    r.n_disks = r.n_answers = r.n_answer_errors = 1;
    r.disks = &l->out;
    r.answers = &answer;
    r.answer_errors = &why;
    n = migrd__storage_reply__get_packed_size(&r);
    buf = n <= ANSWER_MAX ? malloc(n) : NULL;
    if (buf == NULL)
        return 1;
    migrd__storage_reply__pack(&r, buf);
    rc = io_write_full(fd, buf, n, IO_FOREVER, NULL);
    free(buf);
    return rc < 0;
}

/* The child's whole life. */
static int child_main(const Migrd__StorageRequest *rq, size_t i, unsigned ms, char *step, int fd)
{
    struct look l = { .what = rq->what,
        .rq = rq,
        .disk = rq->disks[i],
        .theirs = i < rq->n_theirs ? rq->theirs[i] : NULL,
        .timeout_ms = ms,
        .root = "",
        .step = step,
        .out = new_identity(rq->disks[i]) };
    int rc;

    if (l.out == NULL)
        return 1;
    look_at(&l);
    rc = send_reply(&l, fd);
    migrd__disk_identity__free_unpacked(l.out, NULL);
    return rc;
}

/* The asker waits for the end of our stdout, and must not wait for a child that hangs. */
static void leave_pipes(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0)
        return;
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    close(null);
}

static void start_child(const Migrd__StorageRequest *rq, size_t i, unsigned ms, struct child *c)
{
    int p[2];

    c->fd = -1;
    c->step = mmap(NULL, LOOK_STEP, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (c->step == MAP_FAILED)
        c->step = NULL;
    c->buf = malloc(ANSWER_MAX);
    if (c->step == NULL || c->buf == NULL || pipe2(p, O_CLOEXEC) < 0)
        return;
    fflush(NULL);
    c->pid = fork();
    if (c->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(p[0]);
        leave_pipes();
        _exit(child_main(rq, i, ms, c->step, p[1]));
    }
    close(p[1]);
    if (c->pid < 0)
        close(p[0]);
    else
        c->fd = p[0];
}

/* Takes what has come; closes at its end. */
static void read_child(struct child *c)
{
    ssize_t n = read(c->fd, c->buf + c->n, ANSWER_MAX - c->n);

    if (n > 0) {
        c->n += (size_t)n;
        return;
    }
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    io_close(&c->fd);
    if (n == 0 && c->n > 0)
        c->reply = migrd__storage_reply__unpack(NULL, c->n, c->buf);
    if (c->reply != NULL &&
        (c->reply->n_disks != 1 || c->reply->n_answers != 1 || c->reply->n_answer_errors != 1)) {
        migrd__storage_reply__free_unpacked(c->reply, NULL);
        c->reply = NULL;
    }
}

static void wait_children(struct child *c, size_t n, uint64_t deadline)
{
    struct pollfd p[DISKS_MAX];

    for (;;) {
        size_t open = 0;
        uint64_t now = clock_ns();

        for (size_t i = 0; i < n; i++) {
            p[i] = (struct pollfd){ .fd = c[i].fd, .events = POLLIN };
            open += c[i].fd >= 0;
        }
        if (open == 0 || now >= deadline)
            return;
        if (poll(p, n, (int)((deadline - now) / NS_PER_MS) + 1) < 0 && errno != EINTR)
            return;
        for (size_t i = 0; i < n; i++)
            if (c[i].fd >= 0 && (p[i].revents & (POLLIN | POLLHUP | POLLERR)) != 0)
                read_child(&c[i]);
    }
}

/* What is said of a disk whose child brought no reply. */
static void say_why(Migrd__DiskIdentity *id, struct child *c, unsigned ms)
{
    char step[LOOK_STEP] = "starting";
    struct look l = { .out = id };

    if (c->step != NULL && c->step[0] != '\0')
        memcpy(step, c->step, sizeof step);
    step[sizeof step - 1] = '\0';
    if (c->fd >= 0)
        look_fail(&l, ERR_TIMEOUT,
            "%s: no answer in %u.%u s, while %s; check that the storage is up and that this host "
            "reaches it, or raise storage-timeout",
            id->source, ms / 1000, ms % 1000 / 100, step);
    else if (c->pid > 0)
        look_fail(&l, ERR_INTERNAL, "%s: the process that looked at it ended while %s; see the log",
            id->source, step);
    else
        look_fail(&l, ERR_SYSTEM, "%s: no process could be started to look at it", id->source);
}

static void end_child(struct child *c)
{
    if (c->pid > 0) {
        kill(c->pid, SIGKILL);
        /* One in an uninterruptible wait is init's when we have gone. */
        for (unsigned i = 0; i < 20 && waitpid(c->pid, NULL, WNOHANG) == 0; i++)
            usleep(5000);
    }
    io_close(&c->fd);
    free(c->buf);
    if (c->step != NULL)
        munmap(c->step, LOOK_STEP);
    if (c->reply != NULL)
        migrd__storage_reply__free_unpacked(c->reply, NULL);
}

/* Moves the reply of one child, or the reason why there is none, into place i. */
static void take_reply(
    Migrd__StorageReply *out, size_t i, const Migrd__Disk *disk, struct child *c, unsigned ms)
{
    if (c->reply != NULL) {
        out->disks[i] = c->reply->disks[0];
        out->answers[i] = c->reply->answers[0];
        out->answer_errors[i] = c->reply->answer_errors[0];
        c->reply->n_disks = c->reply->n_answers = c->reply->n_answer_errors = 0;
        return;
    }
    out->disks[i] = new_identity(disk);
    out->answers[i] = strdup("");
    out->answer_errors[i] = strdup("");
    if (out->disks[i] == NULL || out->answers[i] == NULL || out->answer_errors[i] == NULL)
        abort(); /* a few bytes, in a process of its own: its parent says that it died */
    say_why(out->disks[i], c, ms);
}

void storage_serve(const Migrd__StorageRequest *rq, Migrd__StorageReply *out)
{
    unsigned ms = rq->timeout_ms != 0 ? rq->timeout_ms : DISK_TIMEOUT_MS;
    struct child *c = calloc(DISKS_MAX, sizeof *c);
    size_t n = rq->n_disks < DISKS_MAX ? rq->n_disks : DISKS_MAX;
    uint64_t deadline = clock_ns() + ms * NS_PER_MS;

    out->disks = calloc(n + 1, sizeof(Migrd__DiskIdentity *));
    out->answers = calloc(n + 1, sizeof(char *));
    out->answer_errors = calloc(n + 1, sizeof(char *));
    if (c == NULL || out->disks == NULL || out->answers == NULL || out->answer_errors == NULL)
        abort();
    for (size_t i = 0; i < n; i++)
        start_child(rq, i, ms, &c[i]);
    wait_children(c, n, deadline);
    for (size_t i = 0; i < n; i++) {
        take_reply(out, i, rq->disks[i], &c[i], ms);
        out->n_disks = out->n_answers = out->n_answer_errors = i + 1;
    }
    for (size_t i = 0; i < n; i++)
        end_child(&c[i]);
    free(c);
}
