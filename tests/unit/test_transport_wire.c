/* SPDX-License-Identifier: ISC */
/*
 * The two readers of the wire against each other: a small migration is written by the
 * C code to capture files, byte by byte what would travel, and wire_reader.py has to
 * accept it; then single bytes are changed, and it has to refuse every such capture.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sys/uio.h>

#include "tests/unit/transport_util.h"
#include "precopy/savefile.h"
#include "transport/digest.h"
#include "transport/frame.h"

#define READER "tests/integration/wire_reader.py"
#define CHANNELS 2
#define GUEST_PAGES 2048
#define SESSION "0123456789abcdef0123456789abcdef"

static char dir[] = "/tmp/migrd-wire.XXXXXX";
static uint8_t guest[GUEST_PAGES * 4096];

static uint8_t *page(uint64_t gfn)
{
    return guest + gfn * 4096;
}

/* --- recording --- */

struct recorder {
    int lfd, file;
    const char *greeting; /* said before the peer's line is read; NULL: the peer speaks */
    pthread_t thread;
};

static void copy_all(int from, int to)
{
    static __thread char buf[65536];
    ssize_t n;

    while ((n = read(from, buf, sizeof buf)) > 0)
        assert_int_equal(write(to, buf, (size_t)n), n);
    close(from);
    close(to);
}

static int open_file(const char *name)
{
    char path[100];
    int fd;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    return fd;
}

/* Plays the server of one connection and writes down what the client says. */
static void *record_main(void *arg)
{
    struct recorder *r = arg;
    int fd = accept4(r->lfd, NULL, NULL, SOCK_CLOEXEC);

    util_say(fd, "220 host2 migrd relocation 1\r\n220 go ahead\r\n");
    copy_all(fd, r->file);
    return NULL;
}

/* A connection whose client half is recorded in `name`. */
static struct tr_conn *record(struct recorder *r, const char *name, const char *preamble)
{
    struct util_server s = { .no_accept = true };
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof sa;
    struct tr_options opt = { .dead_peer_ms = 5000 };
    struct tr_conn *c;
    struct err e;

    r->file = open_file(name);
    r->lfd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(r->lfd, (struct sockaddr *)&sa, len), 0);
    assert_int_equal(listen(r->lfd, 1), 0);
    getsockname(r->lfd, (struct sockaddr *)&sa, &len);
    pthread_create(&r->thread, NULL, record_main, r);
    s.port = ntohs(sa.sin_port);
    if (tr_connect("127.0.0.1", s.port, preamble, &opt, &c, &e) < 0)
        fail_msg("%s", e.text);
    return c;
}

static void recorded(struct recorder *r, struct tr_conn **c)
{
    tr_close(c);
    pthread_join(r->thread, NULL);
    close(r->lfd);
}

/* --- the migration --- */

struct stream {
    struct tr_conn *c; /* or NULL: */
    int fd;
    struct recorder r;
    unsigned number;
    uint64_t seq, fold, bytes;
};

static void send_frame(struct stream *s, enum frame_type type, uint32_t round, bool live,
    struct frame_run *run, uint32_t runs)
{
    struct frame_header h = { .magic = FRAME_MAGIC,
        .version = FRAME_VERSION,
        .type = (uint8_t)type,
        .flags = live ? FRAME_F_LIVE : 0,
        .round = round,
        .runs = runs,
        .channel = s->number,
        .seq = s->seq++ };
    struct iovec v[20];
    struct err e;
    int n = 2;

    v[0] = (struct iovec){ &h, sizeof h };
    v[1] = (struct iovec){ run, runs * sizeof *run };
    for (uint32_t i = 0; i < runs; i++) {
        h.payload += run[i].length;
        if (run[i].encoding == FRAME_RAW)
            v[n++] = (struct iovec){ page(run[i].gfn), run[i].length };
    }
    h.digest = frame_digest(v + 1, live ? 1 : n - 1);
    tr_digest_add(&s->fold, h.digest);
    s->bytes += sizeof h + v[1].iov_len + h.payload;
    if (s->c == NULL)
        assert_int_equal(writev(s->fd, v, n), sizeof h + v[1].iov_len + h.payload);
    else if (tr_writev(s->c, v, n, &e) < 0)
        fail_msg("%s", e.text);
}

static void fill(uint64_t gfn, uint32_t pages, uint8_t with)
{
    for (uint32_t i = 0; i < pages * 4096; i++)
        page(gfn)[i] = (uint8_t)(with + i * 31);
}

static void send_rounds(struct stream s[CHANNELS])
{
    struct frame_run a[] = { { 0, 1, FRAME_RAW, 0, 4096, 0 }, { 5, 500, FRAME_ZERO, 0, 0, 0 },
        { 1024, 3, FRAME_RAW, 0, 3 * 4096, 0 } };
    struct frame_run b[] = { { 600, 2, FRAME_RAW, 0, 8192, 0 }, { 602, 1, FRAME_ZERO, 0, 0, 0 } };
    struct frame_run again[] = { { 600, 1, FRAME_ZERO, 0, 0, 0 },
        { 1536, 1, FRAME_RAW, 0, 4096, 0 } };

    fill(0, 1, 3);
    fill(1024, 3, 9);
    fill(600, 2, 77);
    send_frame(&s[0], FRAME_PAGES, 0, true, a, 3);
    send_frame(&s[1], FRAME_PAGES, 0, true, b, 2);
    for (int i = 0; i < CHANNELS; i++)
        send_frame(&s[i], FRAME_ROUND_END, 0, false, NULL, 0);
    memset(page(600), 0, 4096);
    fill(1536, 1, 200);
    send_frame(&s[1], FRAME_PAGES, 1, false, again, 2);
}

static void end_streams(struct stream s[CHANNELS])
{
    for (int i = 0; i < CHANNELS; i++) {
        send_frame(&s[i], FRAME_ROUND_END, 1, false, NULL, 0);
        send_frame(&s[i], FRAME_END, 1, false, NULL, 0);
    }
}

static void send_msg(struct tr_conn *c, Migrd__Session__BodyCase kind, void *body)
{
    Migrd__Session m = MIGRD__SESSION__INIT;
    struct err e;

    m.body_case = kind;
    m.offer = body; /* all bodies are pointers in one union */
    if (tr_send(c, &m, &e) < 0)
        fail_msg("%s", e.text);
}

/* To the connection, or as the head of a save file. */
static void send_offer(struct tr_conn *c, int file)
{
    Migrd__Offer o = MIGRD__OFFER__INIT;
    Migrd__Domain d = MIGRD__DOMAIN__INIT;
    Migrd__Region r = MIGRD__REGION__INIT, *regions[1] = { &r };

    d.name = (char *)"web1";
    d.uuid = (char *)"8d0a3c2e-0000-4000-8000-000000000001";
    r.pages = GUEST_PAGES;
    o.protocol = TR_VERSION;
    o.migration = (char *)"8d0a3c2e-0000-4000-8000-000000000002";
    o.domain = &d;
    o.epoch = 7;
    o.channels = 4;
    o.n_regions = 1;
    o.regions = regions;
    if (c != NULL) {
        send_msg(c, MIGRD__SESSION__BODY_OFFER, &o);
        return;
    }
    o.migration = (char *)"";
    o.channels = 1;
    assert_int_equal(savefile_write_head(file, &o, NULL), 0);
}

static void send_round_end(struct tr_conn *c, struct stream s[CHANNELS])
{
    Migrd__RoundEnd end = MIGRD__ROUND_END__INIT;

    for (int i = 0; i < CHANNELS; i++) {
        end.frames += s[i].seq;
        end.wire_bytes += s[i].bytes;
    }
    if (s[1].seq > 2) { /* the second channel is one frame into round 1 already */
        end.frames -= 1;
        end.wire_bytes -= 48 + 2 * 24 + 4096;
    }
    send_msg(c, MIGRD__SESSION__BODY_ROUND_END, &end);
}

static uint64_t send_final(struct tr_conn *c, struct stream s[CHANNELS])
{
    Migrd__FinalState f = MIGRD__FINAL_STATE__INIT;
    uint64_t of[CHANNELS] = { s[0].fold, s[1].fold };
    static uint8_t state[3000];

    f.state.data = state;
    f.state.len = sizeof state;
    f.frames = s[0].seq + s[1].seq;
    f.sent_digest = tr_digest_fold(of, CHANNELS);
    send_msg(c, MIGRD__SESSION__BODY_FINAL_STATE, &f);
    return f.sent_digest;
}

static void send_digests(struct tr_conn *c)
{
    Migrd__DigestRange r[2] = { MIGRD__DIGEST_RANGE__INIT, MIGRD__DIGEST_RANGE__INIT };
    Migrd__DigestRange *p[2] = { &r[0], &r[1] };
    Migrd__MemoryDigests d = MIGRD__MEMORY_DIGESTS__INIT;

    r[0].gfn = 512;
    r[1].gfn = 1536;
    for (int i = 0; i < 2; i++) {
        r[i].pages = TR_DIGEST_PAGES;
        tr_digest_memory(page(r[i].gfn), r[i].pages * 4096, &r[i].low, &r[i].high);
    }
    d.n_ranges = 2;
    d.ranges = p;
    send_msg(c, MIGRD__SESSION__BODY_MEMORY_DIGESTS, &d);
    d.n_ranges = 0;
    d.last = true;
    send_msg(c, MIGRD__SESSION__BODY_MEMORY_DIGESTS, &d);
}

static uint64_t record_source(uint64_t *frames_of_round_0)
{
    struct stream s[CHANNELS] = { { .number = 1 }, { .number = 2 } };
    struct recorder r;
    struct tr_conn *c = record(&r, "000.c2s", "RELOCATE 1");
    Migrd__Go go = MIGRD__GO__INIT;
    uint64_t digest;
    struct err e;

    s[0].c = record(&s[0].r, "001.c2s", "CHANNEL " SESSION " 1");
    s[1].c = record(&s[1].r, "002.c2s", "CHANNEL " SESSION " 2");
    send_offer(c, -1);
    send_rounds(s);
    *frames_of_round_0 = 4;
    send_round_end(c, s);
    assert_int_equal(tr_ping(c, &e), 0);
    end_streams(s);
    digest = send_final(c, s);
    send_digests(c);
    go.epoch = 7;
    send_msg(c, MIGRD__SESSION__BODY_GO, &go);
    recorded(&r, &c);
    recorded(&s[0].r, &s[0].c);
    recorded(&s[1].r, &s[1].c);
    return digest;
}

/* The target's half goes the same way; its own first lines take the place of the preamble. */
static void record_target(uint64_t digest, uint64_t frames_of_round_0)
{
    struct recorder r;
    struct tr_conn *c =
        record(&r, "000.s2c", "220 host2.example.org migrd relocation 1\r\n220 go ahead");
    Migrd__Accept accept = MIGRD__ACCEPT__INIT;
    Migrd__RoundAck ack = MIGRD__ROUND_ACK__INIT;
    Migrd__Ready ready = MIGRD__READY__INIT;
    Migrd__Running running = MIGRD__RUNNING__INIT;
    int fd;

    accept.session = (char *)SESSION;
    accept.channels = CHANNELS;
    send_msg(c, MIGRD__SESSION__BODY_ACCEPT, &accept);
    ack.frames = frames_of_round_0;
    send_msg(c, MIGRD__SESSION__BODY_ROUND_ACK, &ack);
    ready.epoch = running.epoch = 7;
    ready.received_digest = digest;
    send_msg(c, MIGRD__SESSION__BODY_READY, &ready);
    send_msg(c, MIGRD__SESSION__BODY_RUNNING, &running);
    recorded(&r, &c);
    for (int i = 1; i <= CHANNELS; i++) {
        char name[10];

        snprintf(name, sizeof name, "00%d.s2c", i);
        fd = open_file(name);
        util_say(fd, "220 host2.example.org migrd relocation 1\r\n220 go ahead\r\n");
        close(fd);
    }
}

/* --- the tests --- */

static int setup(void **state)
{
    uint64_t frames, digest;

    (void)state;
    assert_non_null(mkdtemp(dir));
    digest = record_source(&frames);
    record_target(digest, frames);
    return 0;
}

static int teardown(void **state)
{
    char cmd[100];

    (void)state;
    snprintf(cmd, sizeof cmd, "rm -r %s", dir);
    return system(cmd);
}

/* Exit status of the reader on `what` below dir; skips the test where it cannot run. */
static int reader(const char *option, const char *what)
{
    char cmd[300];
    int r;

    if (access(READER, R_OK) < 0) {
        print_message("no %s here: run from the top of the source tree\n", READER);
        skip();
    }
    snprintf(cmd, sizeof cmd, "/usr/bin/python3 " READER " %s %s/%s 2>%s/errors", option, dir, what,
        dir);
    r = system(cmd);
    assert_true(WIFEXITED(r));
    if (WEXITSTATUS(r) == 2 || WEXITSTATUS(r) == 127) {
        print_message("the reader cannot run here: it needs python3 and python3-xxhash\n");
        skip();
    }
    return WEXITSTATUS(r);
}

static void the_other_reader_accepts_it(void **state)
{
    (void)state;
    assert_int_equal(reader("", ""), 0);
}

static void flip(const char *name, long at, uint8_t with)
{
    char path[100];
    uint8_t b;
    int fd;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &b, 1, at), 1);
    b ^= with;
    assert_int_equal(pwrite(fd, &b, 1, at), 1);
    close(fd);
}

static void it_notices_every_changed_byte(void **state)
{
    enum { LINE = sizeof "CHANNEL " SESSION " 1\r\n" - 1 }; /* before the first frame */
    static const struct {
        const char *name;
        long at;
    } t[] = {
        { "000.c2s", 3 },              /* RELOCATE */
        { "000.c2s", 12 + 1 },         /* length of the offer */
        { "000.c2s", 12 + 4 },         /* kind of the first message */
        { "000.s2c", 42 + 14 + 4 },    /* kind of the accept */
        { "001.c2s", 9 },              /* session */
        { "001.c2s", LINE - 3 },       /* number of the channel */
        { "001.c2s", LINE },           /* magic */
        { "001.c2s", LINE + 4 },       /* version */
        { "001.c2s", LINE + 5 },       /* type */
        { "001.c2s", LINE + 6 },       /* flags: no longer live, digest without payload */
        { "001.c2s", LINE + 8 },       /* round */
        { "001.c2s", LINE + 12 },      /* runs */
        { "001.c2s", LINE + 16 },      /* payload */
        { "001.c2s", LINE + 20 },      /* channel */
        { "001.c2s", LINE + 24 },      /* seq */
        { "001.c2s", LINE + 32 },      /* digest */
        { "001.c2s", LINE + 40 },      /* reserved */
        { "001.c2s", LINE + 48 },      /* gfn */
        { "001.c2s", LINE + 48 + 8 },  /* pages */
        { "001.c2s", LINE + 48 + 12 }, /* encoding */
        { "001.c2s", LINE + 48 + 14 }, /* reserved */
        { "002.c2s", LINE + 48 + 2 * 24 + 4096 + 10 }, /* page 601, sent alive: memory digest */
    };

    char *errors, where[40];
    struct err e;

    (void)state;
    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        char cmd[200], file[64];

        snprintf(cmd, sizeof cmd, "mkdir %s/bad%u && cp %s/*.?2? %s/bad%u", dir, i, dir, dir, i);
        assert_int_equal(system(cmd), 0);
        snprintf(file, sizeof file, "bad%u/%s", i, t[i].name);
        flip(file, t[i].at, 1);
    }
    assert_int_equal(reader("", "bad*"), 1);
    snprintf(where, sizeof where, "%s/errors", dir);
    errors = io_read_file(where, 65536, NULL, &e);
    assert_non_null(errors);
    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        snprintf(where, sizeof where, "/bad%u: ", i);
        if (strstr(errors, where) == NULL)
            fail_msg("%s: byte %ld was changed, and nobody noticed", t[i].name, t[i].at);
    }
    free(errors);
}

static void it_reads_save_files(void **state)
{
    struct frame_run run[] = { { 3, 2, FRAME_RAW, 0, 8192, 0 }, { 9, 600, FRAME_ZERO, 0, 0, 0 } };
    struct stream s = { .number = 1, .fd = open_file("web1.save") };
    Migrd__FinalState f = MIGRD__FINAL_STATE__INIT;
    off_t frames;

    (void)state;
    send_offer(NULL, s.fd);
    frames = lseek(s.fd, 0, SEEK_CUR);
    send_frame(&s, FRAME_PAGES, 0, false, run, 2);
    send_frame(&s, FRAME_ROUND_END, 0, false, NULL, 0);
    send_frame(&s, FRAME_END, 0, false, NULL, 0);
    f.frames = s.seq;
    f.sent_digest = tr_digest_fold(&s.fold, 1);
    assert_int_equal(savefile_write_final(s.fd, &f, NULL), 0);
    assert_int_equal(reader("--save", "web1.save"), 0);
    flip("web1.save", 30, 1); /* digest of the offer */
    assert_int_equal(reader("--save", "web1.save"), 1);
    flip("web1.save", 30, 1);
    flip("web1.save", frames + 48 + 2 * 24 + 100, 1); /* a byte of a page */
    assert_int_equal(reader("--save", "web1.save"), 1);
    flip("web1.save", frames + 48 + 2 * 24 + 100, 1);
    assert_int_equal(write(s.fd, "", 1), 1);
    assert_int_equal(reader("--save", "web1.save"), 1);
    close(s.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_other_reader_accepts_it),
        cmocka_unit_test(it_notices_every_changed_byte),
        cmocka_unit_test(it_reads_save_files),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
