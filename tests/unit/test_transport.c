/* SPDX-License-Identifier: ISC */
/* transport: the preamble's grammar, connecting, plain reads and writes, time limits, abort,
 * messages and their limits, the bandwidth cap. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/transport_util.h"

static void has(const struct err *e, enum err_code code, const char *part)
{
    assert_string_equal(err_code_name(e->code), err_code_name(code));
    if (strstr(e->text, part) == NULL)
        fail_msg("'%s' is not in '%s'", part, e->text);
}

/* --- preamble --- */

#define SESSION "0123456789abcdef0123456789abcdef"

static void preambles_are_read_strictly(void **state)
{
    static const struct {
        const char *line;
        enum err_code code;
        unsigned version, channel;
    } t[] = {
        { "RELOCATE 1", ERR_NONE, 1, 0 },
        { "CHANNEL " SESSION " 1", ERR_NONE, 0, 1 },
        { "CHANNEL " SESSION " 16", ERR_NONE, 0, 16 },
        { "RELOCATE 2", ERR_UNSUPPORTED, 0, 0 },
        { "RELOCATE 0", ERR_UNSUPPORTED, 0, 0 },
        { "RELOCATE 10000", ERR_PROTOCOL, 0, 0 },
        { "RELOCATE 18446744073709551617", ERR_PROTOCOL, 0, 0 },
        { "RELOCATE 01", ERR_PROTOCOL, 0, 0 },
        { "RELOCATE -1", ERR_PROTOCOL, 0, 0 },
        { "RELOCATE +1", ERR_PROTOCOL, 0, 0 },
        { "RELOCATE  1", ERR_PROTOCOL, 0, 0 },
        { "RELOCATE 1 ", ERR_PROTOCOL, 0, 0 },
        { "RELOCATE 1 2", ERR_PROTOCOL, 0, 0 },
        { "RELOCATE\t1", ERR_PROTOCOL, 0, 0 },
        { "RELOCATE 1\r", ERR_PROTOCOL, 0, 0 },
        { "RELOCATE ", ERR_PROTOCOL, 0, 0 },
        { "RELOCATE", ERR_PROTOCOL, 0, 0 },
        { "relocate 1", ERR_PROTOCOL, 0, 0 },
        { " RELOCATE 1", ERR_PROTOCOL, 0, 0 },
        { "", ERR_PROTOCOL, 0, 0 },
        { "CHANNEL", ERR_PROTOCOL, 0, 0 },
        { "CHANNEL " SESSION, ERR_PROTOCOL, 0, 0 },
        { "CHANNEL " SESSION " ", ERR_PROTOCOL, 0, 0 },
        { "CHANNEL " SESSION " 0", ERR_PROTOCOL, 0, 0 },
        { "CHANNEL " SESSION " 17", ERR_PROTOCOL, 0, 0 },
        { "CHANNEL " SESSION "0 1", ERR_PROTOCOL, 0, 0 },
        { "CHANNEL 0123456789abcdef0123456789abcde 1", ERR_PROTOCOL, 0, 0 },
        { "CHANNEL 0123456789ABCDEF0123456789abcdef 1", ERR_PROTOCOL, 0, 0 },
        { "CHANNEL 0123456789abcdeg0123456789abcdef 1", ERR_PROTOCOL, 0, 0 },
        { "receive", ERR_PROTOCOL, 0, 0 },
        { "\x16\x03\x01\x02", ERR_PROTOCOL, 0, 0 },
        { "GET / HTTP/1.1", ERR_PROTOCOL, 0, 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct err e = { .code = ERR_NONE };
        struct tr_preamble p;

        tr_preamble_parse(t[i].line, strlen(t[i].line), &p, &e);
        if (e.code != t[i].code)
            fail_msg("'%s': %s (%s)", t[i].line, err_code_name(e.code), e.text);
        for (const char *c = e.text; *c != '\0'; c++)
            assert_true(*c >= ' ' && *c <= '~');
        if (e.code != ERR_NONE)
            continue;
        assert_int_equal(p.version, t[i].version);
        assert_int_equal(p.channel, t[i].channel);
        assert_string_equal(p.session, t[i].channel != 0 ? SESSION : "");
    }
}

static void preambles_with_nul_or_too_long_are_refused(void **state)
{
    char line[TR_LINE_MAX * 2];
    struct tr_preamble p;
    struct err e;

    (void)state;
    assert_int_equal(tr_preamble_parse("RELOCATE 1\0x", 12, &p, &e), -1);
    assert_int_equal(tr_preamble_parse("RELOCATE \0", 10, &p, &e), -1);
    memset(line, '1', sizeof line);
    memcpy(line, "RELOCATE ", 9);
    assert_int_equal(tr_preamble_parse(line, sizeof line, &p, &e), -1);
    has(&e, ERR_PROTOCOL, "longer than");
    memset(line, ' ', sizeof line);
    assert_int_equal(tr_preamble_parse(line, sizeof line, &p, &e), -1);
}

static void answers_always_fit_and_hold_no_foreign_lines(void **state)
{
    char line[TR_LINE_MAX], longer[3000];
    size_t n;

    (void)state;
    n = tr_greeting(line, "host2");
    assert_string_equal(line, "220 host2 migrd relocation 1\r\n");
    assert_int_equal(n, strlen(line));
    tr_refusal(line, "evil\r\n220 go ahead");
    assert_string_equal(
        line, "530 evil??220 go ahead is not allowed by xend-relocation-hosts-allow\r\n");
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    n = tr_refusal(line, longer);
    assert_true(n < TR_LINE_MAX && n == strlen(line));
    assert_non_null(strstr(line, " is not allowed by xend-relocation-hosts-allow\r\n"));
    n = tr_bad_request(line, longer);
    assert_true(n == strlen(line) && line[n - 1] == '\n');
    tr_busy(line, "too many");
    assert_string_equal(line, "421 too many\r\n");
}

/* --- connecting --- */

static void the_servers_words_decide(void **state)
{
    static const struct {
        const char *greeting, *answer;
        enum err_code code;
        const char *part;
    } t[] = {
        { "530 host9 is not allowed by xend-relocation-hosts-allow\r\n", NULL, ERR_REFUSED,
            "host9 is not allowed" },
        { "421 too many migrations\r\n", NULL, ERR_RESOURCE, "too many migrations" },
        { "220 mail.example.org ESMTP\r\n", NULL, ERR_PROTOCOL, "port is not migrd's" },
        { "SSH-2.0-OpenSSH\x1b[31m\r\n", NULL, ERR_PROTOCOL, "it says 'SSH-2.0-OpenSSH?[31m'" },
        { "220 host2 migrd relocation 0\r\n", NULL, ERR_UNSUPPORTED, "update it" },
        { "220 host2 migrd relocation x\r\n", NULL, ERR_PROTOCOL, "greeting" },
        { "220 cut", NULL, ERR_PEER, "before its line was complete" },
        { NULL, "500 what?\r\n", ERR_PROTOCOL, "what?" },
        { NULL, "530 not you\n", ERR_REFUSED, "not you" },
        { NULL, "421 later\r\n", ERR_RESOURCE, "later" },
        { NULL, "22\r\n", ERR_PROTOCOL, "not a relocation port" },
        { NULL, "\r\n", ERR_PROTOCOL, "not a relocation port" },
        { NULL, "", ERR_PEER, "closed the connection" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct util_server s = {
            .greeting = t[i].greeting, .answer = t[i].answer, .no_accept = true
        };
        struct tr_options opt = { .connect_timeout_ms = 2000 };
        struct tr_conn *c;
        struct err e = { .code = ERR_NONE };

        util_serve(&s);
        assert_int_equal(tr_connect("127.0.0.1", s.port, "RELOCATE 1", &opt, &c, &e), -1);
        util_join(&s);
        has(&e, t[i].code, t[i].part);
        assert_null(c);
    }
}

static void a_line_that_never_ends_is_cut_off(void **state)
{
    char longer[TR_LINE_MAX * 3];
    struct util_server s = { .greeting = longer };
    struct tr_options opt = { .connect_timeout_ms = 2000 };
    struct tr_conn *c;
    struct err e;

    (void)state;
    memset(longer, '2', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    util_serve(&s);
    assert_int_equal(tr_connect("127.0.0.1", s.port, "RELOCATE 1", &opt, &c, &e), -1);
    util_join(&s);
    has(&e, ERR_PROTOCOL, "longer than");
}

static void a_server_that_says_nothing_costs_the_time_limit_only(void **state)
{
    struct util_server s = { .greeting = "", .hold_ms = 600 };
    struct tr_options opt = { .connect_timeout_ms = 200 };
    uint64_t start = clock_ns();
    struct tr_conn *c;
    struct err e;

    (void)state;
    util_serve(&s);
    assert_int_equal(tr_connect("127.0.0.1", s.port, "RELOCATE 1", &opt, &c, &e), -1);
    assert_true(clock_ns() - start < NS_PER_S / 2);
    has(&e, ERR_TIMEOUT, "accepts connections, but says nothing");
    util_join(&s);
}

static void hosts_are_named_in_every_form(void **state)
{
    static const struct {
        const char *host;
        bool ipv6;
    } t[] = { { "127.0.0.1", false }, { "localhost", false }, { "::1", true }, { "[::1]", true } };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct util_server s = { .ipv6 = t[i].ipv6 };
        struct tr_options opt = { .connect_timeout_ms = 2000 };
        struct tr_conn *c;
        struct err e;

        util_serve(&s);
        if (tr_connect(t[i].host, s.port, "CHANNEL " SESSION " 2", &opt, &c, &e) < 0)
            fail_msg("%s: %s", t[i].host, e.text);
        util_join(&s);
        assert_string_equal(s.line, "CHANNEL " SESSION " 2");
        assert_string_equal(tr_cipher(c), "plain TCP");
        assert_string_equal(tr_peer_name(c), "");
        assert_false(tr_peer_has_name(c, t[i].host));
        tr_close(&c);
        tr_close(&s.conn);
    }
}

static void failures_to_connect_say_what_to_do(void **state)
{
    struct tr_options opt = { .connect_timeout_ms = 3000 };
    struct tr_conn *c;
    struct err e;

    (void)state;
    assert_int_equal(tr_connect("127.0.0.1", 1, "RELOCATE 1", &opt, &c, &e), -1);
    has(&e, ERR_PEER, "127.0.0.1 port 1: connection refused; does migrd run there");
    assert_int_equal(tr_connect("no-such-host.invalid", 1, "RELOCATE 1", &opt, &c, &e), -1);
    assert_non_null(strstr(e.text, "no-such-host.invalid"));
    assert_true(e.code == ERR_NOT_FOUND || e.code == ERR_TIMEOUT);
}

/* --- reads and writes --- */

static const struct tr_options quick = { .dead_peer_ms = 300 };

struct task {
    struct tr_conn *c;
    struct iovec *v;
    int n, result;
    struct err err;
};

static void *task_write(void *arg)
{
    struct task *t = arg;

    t->result = tr_writev(t->c, t->v, t->n, &t->err);
    return NULL;
}

static void vectors_of_every_shape_arrive(void **state)
{
    enum { PIECES = 3000, MAX = 4099 };
    struct iovec *v = calloc(PIECES, sizeof *v), in[3];
    uint8_t *data = malloc((size_t)PIECES * MAX), *copy = malloc((size_t)PIECES * MAX);
    struct task t = { .v = v, .n = PIECES };
    struct tr_conn *a, *b;
    struct tr_stats st;
    size_t len = 0;
    pthread_t th;
    struct err e;

    (void)state;
    for (int i = 0; i < PIECES; i++) {
        v[i] = (struct iovec){ data + len, (size_t)(i * 7919) % MAX * (i % 5 != 0) };
        len += v[i].iov_len;
    }
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    util_pair(&quick, &quick, &a, &b);
    t.c = a;
    pthread_create(&th, NULL, task_write, &t);
    in[0] = (struct iovec){ copy, 1 };
    in[1] = (struct iovec){ copy + 1, 0 };
    in[2] = (struct iovec){ copy + 1, len - 1 };
    if (tr_readv(b, in, 3, &e) < 0)
        fail_msg("%s", e.text);
    pthread_join(th, NULL);
    assert_int_equal(t.result, 0);
    assert_memory_equal(data, copy, len);
    tr_stats(a, &st);
    assert_int_equal(st.sent, len);
    assert_true(st.write_ns > 0 && st.shaped_ns == 0);
    tr_stats(b, &st);
    assert_int_equal(st.received, len);
    assert_int_equal(tr_write(a, "", 0, &e), 0);
    assert_int_equal(tr_read(b, NULL, 0, &e), 0);
    tr_close(&a);
    tr_close(&b);
    free(v);
    free(data);
    free(copy);
}

static void a_peer_that_stalls_is_found(void **state)
{
    static char big[32 << 20];
    struct tr_conn *a, *b;
    uint64_t start;
    char byte;
    struct err e;

    (void)state;
    util_pair(&quick, &quick, &a, &b);
    start = clock_ns();
    assert_int_equal(tr_read(b, &byte, 1, &e), -1);
    has(&e, ERR_TIMEOUT, "silent for 0.3 s");
    assert_true(clock_ns() - start < 2 * NS_PER_S);
    assert_int_equal(tr_write(a, big, sizeof big, &e), -1); /* b does not read */
    assert_int_equal(e.code, ERR_TIMEOUT);
    assert_int_equal(tr_write(a, big, 1, &e), -1); /* broken for good */
    tr_close(&a);
    tr_close(&b);
}

static void a_patient_reader_waits_for_the_first_byte_only(void **state)
{
    struct tr_options patient = { .dead_peer_ms = 150, .patient = true };
    struct tr_conn *a, *b;
    char x = 'x';
    struct iovec v = { &x, 1 };
    struct task t = { .v = &v, .n = 1 };
    char two[2];
    pthread_t th;
    struct err e;

    (void)state;
    util_pair(&quick, &patient, &a, &b);
    t.c = a;
    pthread_create(&th, NULL, task_write, &t);
    usleep(400000);
    assert_int_equal(tr_read(b, two, 1, &e), 0);
    pthread_join(th, NULL);
    tr_write(a, "x", 1, &e);
    assert_int_equal(tr_read(b, two, 2, &e), -1);
    assert_int_equal(e.code, ERR_TIMEOUT);
    tr_close(&a);
    tr_close(&b);
}

static void *late_abort(void *arg)
{
    usleep(100000);
    tr_abort(arg);
    return NULL;
}

static void abort_wakes_whoever_waits(void **state)
{
    static char big[64 << 20];
    struct tr_options slow = { .shaper = tr_shaper_new(1000) }, plain = { .patient = true };
    struct tr_conn *a, *b;
    pthread_t th;
    struct err e;

    (void)state;
    for (int i = 0; i < 3; i++) {
        uint64_t start = clock_ns();
        int r;

        util_pair(i == 2 ? &slow : &plain, &plain, &a, &b);
        pthread_create(&th, NULL, late_abort, a);
        r = i == 0 ? tr_read(a, big, 1, &e) : tr_write(a, big, sizeof big, &e);
        assert_int_equal(r, -1);
        has(&e, ERR_CANCELLED, "aborted");
        assert_true(clock_ns() - start < NS_PER_S);
        pthread_join(th, NULL);
        assert_int_equal(tr_read(a, big, 1, &e), -1);
        assert_int_equal(e.code, ERR_CANCELLED);
        assert_int_equal(tr_read(b, big, sizeof big, &e), -1); /* and the peer notices */
        assert_int_equal(e.code, ERR_PEER);
        tr_close(&a);
        tr_close(&b);
    }
    tr_shaper_free(&slow.shaper);
}

static void what_was_written_arrives_though_closed_at_once(void **state)
{
    static char out[3 << 20], in[3 << 20];
    struct tr_options opt = { .dead_peer_ms = 5000 };
    struct iovec v = { out, sizeof out };
    struct task t = { .v = &v, .n = 1 };
    struct tr_conn *a, *b;
    pthread_t th;
    struct err e;

    (void)state;
    memset(out, 'z', sizeof out);
    util_pair(&opt, &opt, &a, &b);
    tr_write(b, "unread", 6, &e);
    t.c = a;
    pthread_create(&th, NULL, task_write, &t);
    assert_int_equal(tr_read(b, in, 1000, &e), 0);
    pthread_join(th, NULL);
    tr_close(&a);
    assert_int_equal(tr_read(b, in + 1000, sizeof in - 1000, &e), 0);
    assert_memory_equal(in, out, sizeof in);
    tr_close(&b);
}

/* --- bandwidth cap --- */

static void *discard(void *arg)
{
    struct tr_conn *c = arg;
    char *bin = malloc(1 << 20);
    struct err e;

    while (tr_read(c, bin, 4096, &e) == 0)
        ;
    free(bin);
    return NULL;
}

static void *send_for_a_while(void *arg)
{
    static char data[1 << 20];
    struct task *t = arg;
    uint64_t end = clock_ns() + 400 * NS_PER_MS;

    while (t->result == 0 && clock_ns() < end)
        t->result = tr_write(t->c, data, sizeof data / 8, &t->err);
    return NULL;
}

static void the_cap_holds_over_two_channels(void **state)
{
    struct tr_options capped = { .shaper = tr_shaper_new(40000000) };
    struct tr_conn *a[2], *b[2];
    struct task t[2] = { { 0 } };
    pthread_t w[2], r[2];
    struct tr_stats st[2];
    uint64_t start;
    double rate;

    (void)state;
    for (int i = 0; i < 2; i++) {
        util_pair(&capped, &quick, &a[i], &b[i]);
        t[i].c = a[i];
        pthread_create(&r[i], NULL, discard, b[i]);
    }
    start = clock_ns();
    for (int i = 0; i < 2; i++)
        pthread_create(&w[i], NULL, send_for_a_while, &t[i]);
    for (int i = 0; i < 2; i++)
        pthread_join(w[i], NULL);
    for (int i = 0; i < 2; i++)
        tr_stats(a[i], &st[i]);
    rate = (double)(st[0].sent + st[1].sent) * NS_PER_S / (double)(clock_ns() - start) / 1e6;
    print_message("cap 40 MB/s: %.1f MB/s, asleep %.0f and %.0f ms\n", rate,
        (double)st[0].shaped_ns / 1e6, (double)st[1].shaped_ns / 1e6);
    assert_true(rate < 44);
    assert_true(rate > 20); /* a busy machine may be late */
    assert_true(st[0].shaped_ns > 0 && st[1].sent > 0);
    for (int i = 0; i < 2; i++) {
        tr_close(&a[i]);
        pthread_join(r[i], NULL);
        tr_close(&b[i]);
    }
    tr_shaper_free(&capped.shaper);
}

/* A writer that waits for the cap hears of a reset at once. */
static void the_cap_does_not_hide_a_dead_peer(void **state)
{
    struct tr_options slow = { .shaper = tr_shaper_new(1000) };
    static char big[64 << 20];
    struct tr_conn *a, *b;
    uint64_t start = clock_ns();
    struct err e;

    (void)state;
    util_pair(&slow, &quick, &a, &b);
    assert_int_equal(tr_write(a, big, 1000, &e), 0);
    usleep(50000);
    tr_abort(b); /* with unread bytes: a reset */
    tr_close(&b);
    assert_int_equal(tr_write(a, big, sizeof big, &e), -1);
    has(&e, ERR_PEER, "connection lost");
    assert_true(clock_ns() - start < 3 * NS_PER_S);
    tr_close(&a);
    tr_shaper_free(&slow.shaper);
}

static void a_new_rate_holds_at_once(void **state)
{
    struct tr_shaper *s = tr_shaper_new(1000);
    uint64_t wait = 0;

    (void)state;
    while (shaper_take(s, 1 << 20, &wait) > 0)
        ;
    assert_true(wait > 0 && wait <= 20 * NS_PER_MS);
    tr_shaper_set(s, 0);
    assert_int_equal(shaper_take(s, 1 << 20, &wait), 1 << 20);
    tr_shaper_set(s, UINT64_MAX);
    usleep(1000);
    assert_true(shaper_take(s, 1 << 20, &wait) > 0);
    tr_shaper_free(&s);
}

/* --- messages --- */

static void send_refuse(struct tr_conn *c, const char *text)
{
    Migrd__Refuse refuse = MIGRD__REFUSE__INIT;
    Migrd__Session m = MIGRD__SESSION__INIT;
    struct err e;

    refuse.code = (char *)"memory";
    refuse.text = (char *)text;
    m.body_case = MIGRD__SESSION__BODY_REFUSE;
    m.refuse = &refuse;
    if (tr_send(c, &m, &e) < 0)
        fail_msg("%s", e.text);
}

static void messages_go_both_ways(void **state)
{
    struct tr_conn *a, *b;
    Migrd__Session *m;
    struct err e;

    (void)state;
    util_pair(&quick, &quick, &a, &b);
    send_refuse(a, "no\nroom");
    assert_int_equal(tr_recv(b, 0, &m, &e), 0);
    assert_int_equal(m->body_case, MIGRD__SESSION__BODY_REFUSE);
    assert_string_equal(m->refuse->text, "no\nroom");
    assert_int_equal(tr_refused(b, m->refuse, &e), -1);
    assert_int_equal(e.code, ERR_MEMORY);
    assert_string_equal(e.text, "127.0.0.1: no?room");
    migrd__session__free_unpacked(m, NULL);
    send_refuse(b, "");
    assert_int_equal(tr_recv(a, 1000, &m, &e), 0);
    migrd__session__free_unpacked(m, NULL);
    assert_int_equal(tr_recv(a, 50, &m, &e), -1); /* nothing there; the connection stays usable */
    assert_int_equal(e.code, ERR_TIMEOUT);
    send_refuse(b, "again");
    assert_int_equal(tr_recv(a, 50, &m, &e), 0);
    assert_string_equal(m->refuse->text, "again");
    migrd__session__free_unpacked(m, NULL);
    tr_close(&a);
    assert_int_equal(tr_recv(b, 1000, &m, &e), -1);
    assert_int_equal(e.code, ERR_PEER);
    tr_close(&b);
}

static void *answer_after_a_second(void *arg)
{
    struct tr_conn *c = arg;
    Migrd__Session *m;
    struct err e;

    tr_recv(c, 900, &m, &e); /* alive, but has nothing to say */
    send_refuse(c, "at last");
    return NULL;
}

static void pings_keep_a_quiet_session_alive(void **state)
{
    struct tr_conn *a, *b;
    Migrd__Session *m;
    pthread_t th;
    struct err e;

    (void)state;
    util_pair(&quick, &quick, &a, &b); /* dead after 300 ms of silence */
    pthread_create(&th, NULL, answer_after_a_second, b);
    if (tr_recv(a, 0, &m, &e) < 0)
        fail_msg("%s", e.text);
    assert_string_equal(m->refuse->text, "at last");
    migrd__session__free_unpacked(m, NULL);
    pthread_join(th, NULL);
    assert_int_equal(tr_recv(a, 0, &m, &e), -1); /* now nobody pings */
    has(&e, ERR_TIMEOUT, "no message came in time");
    tr_close(&a);
    tr_close(&b);
}

struct state_writer {
    struct tr_conn *c;
    size_t len;
    int result;
    struct err err;
};

static void *send_state(void *arg)
{
    struct state_writer *w = arg;
    Migrd__FinalState fs = MIGRD__FINAL_STATE__INIT;
    Migrd__Session m = MIGRD__SESSION__INIT;

    fs.state.data = malloc(w->len);
    fs.state.len = w->len;
    memset(fs.state.data, 0x5a, w->len);
    m.body_case = MIGRD__SESSION__BODY_FINAL_STATE;
    m.final_state = &fs;
    w->result = tr_send(w->c, &m, &w->err);
    free(fs.state.data);
    return NULL;
}

static void a_state_may_be_large_and_nothing_else(void **state)
{
    struct tr_options opt = { .dead_peer_ms = 5000 };
    struct state_writer w = { .len = 64u << 20 };
    struct tr_conn *a, *b;
    Migrd__Session *m;
    char *text = malloc(TR_MESSAGE_SMALL + 1);
    Migrd__Refuse refuse = MIGRD__REFUSE__INIT;
    Migrd__Session big = MIGRD__SESSION__INIT;
    pthread_t th;
    struct err e;

    (void)state;
    util_pair(&opt, &opt, &a, &b);
    w.c = a;
    pthread_create(&th, NULL, send_state, &w);
    if (tr_recv(b, 0, &m, &e) < 0)
        fail_msg("%s", e.text);
    pthread_join(th, NULL);
    assert_int_equal(m->final_state->state.len, w.len);
    assert_int_equal(m->final_state->state.data[w.len - 1], 0x5a);
    migrd__session__free_unpacked(m, NULL);
    w.len = TR_MESSAGE_MAX;
    send_state(&w);
    has(&w.err, ERR_RESOURCE, "at most");
    memset(text, 'x', TR_MESSAGE_SMALL);
    text[TR_MESSAGE_SMALL] = '\0';
    refuse.text = text;
    big.body_case = MIGRD__SESSION__BODY_REFUSE;
    big.refuse = &refuse;
    assert_int_equal(tr_send(a, &big, &e), -1);
    assert_int_equal(e.code, ERR_RESOURCE);
    send_refuse(a, "still in step"); /* what was refused was not sent in part */
    assert_int_equal(tr_recv(b, 0, &m, &e), 0);
    migrd__session__free_unpacked(m, NULL);
    tr_close(&a);
    tr_close(&b);
    free(text);
}

static void hostile_messages_are_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *part;
    } t[] = {
        { "\0\0\0\0", 4, "message of 0 bytes" },
        { "\xff\xff\xff\xff", 4, "message of 4294967295 bytes" },
        { "\x04\x80\0\1", 4, "message of 75497473 bytes" },
        { "\0\0\0\1\x1a", 5, "does not hold exactly one body" },
        { "\0\0\0\2\x08\x01", 6, "does not hold exactly one body" },
        { "\0\0\0\4\x1a\0\x1a\0", 8, "does not hold exactly one body" }, /* two bodies */
        { "\0\0\0\3\x1a\x05x", 7, "does not hold exactly one body" },    /* too short */
        { "\0\0\0\3\x1a\0x", 7, "does not hold exactly one body" },      /* bytes after it */
        { "\0\0\0\3\xa2\x06\0", 7, "unknown kind 100" },
        { "\0\0\0\3\x1a\1\xff", 7, "is malformed" },
        { "\0\0\0\14\x1a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 16, "exactly one body" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct tr_conn *a, *b;
        Migrd__Session *m;
        struct err e;

        util_pair(&quick, &quick, &a, &b);
        tr_write(a, t[i].bytes, t[i].len, &e);
        assert_int_equal(tr_recv(b, 200, &m, &e), -1);
        has(&e, ERR_PROTOCOL, t[i].part);
        tr_close(&a);
        tr_close(&b);
    }
}

static void a_state_of_many_fields_is_refused_before_it_is_unpacked(void **state)
{
    size_t len = 2u << 20, body = len - 5;
    uint8_t *buf = malloc(len);
    struct err e;

    (void)state;
    buf[0] = 0x32; /* final_state, length in four bytes */
    for (int i = 0; i < 4; i++)
        buf[1 + i] = (uint8_t)((body >> (7 * i) & 0x7f) | (i < 3 ? 0x80 : 0));
    for (size_t i = 5; i + 1 < len; i += 2)
        buf[i] = 0x78, buf[i + 1] = 0; /* unknown field 15 = 0 */
    if (body % 2 != 0)
        buf[len - 1] = 0;
    assert_null(message_parse(buf, len, &e));
    has(&e, ERR_PROTOCOL, "state message is malformed");
    free(buf);
}

static void a_message_that_trickles_is_cut_off(void **state)
{
    struct tr_conn *a, *b;
    Migrd__Session *m;
    uint64_t start;
    struct err e;

    (void)state;
    util_pair(&quick, &quick, &a, &b);
    tr_write(a, "\0\0\1\0\x1a", 5, &e);
    start = clock_ns();
    assert_int_equal(tr_recv(b, 5000, &m, &e), -1); /* not 5 s: the message has begun */
    assert_int_equal(e.code, ERR_TIMEOUT);
    assert_true(clock_ns() - start < 2 * NS_PER_S);
    assert_int_equal(tr_recv(b, 100, &m, &e), -1);
    tr_close(&a);
    tr_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(preambles_are_read_strictly),
        cmocka_unit_test(preambles_with_nul_or_too_long_are_refused),
        cmocka_unit_test(answers_always_fit_and_hold_no_foreign_lines),
        cmocka_unit_test(the_servers_words_decide),
        cmocka_unit_test(a_line_that_never_ends_is_cut_off),
        cmocka_unit_test(a_server_that_says_nothing_costs_the_time_limit_only),
        cmocka_unit_test(hosts_are_named_in_every_form),
        cmocka_unit_test(failures_to_connect_say_what_to_do),
        cmocka_unit_test(vectors_of_every_shape_arrive),
        cmocka_unit_test(a_peer_that_stalls_is_found),
        cmocka_unit_test(a_patient_reader_waits_for_the_first_byte_only),
        cmocka_unit_test(abort_wakes_whoever_waits),
        cmocka_unit_test(what_was_written_arrives_though_closed_at_once),
        cmocka_unit_test(the_cap_holds_over_two_channels),
        cmocka_unit_test(the_cap_does_not_hide_a_dead_peer),
        cmocka_unit_test(a_new_rate_holds_at_once),
        cmocka_unit_test(messages_go_both_ways),
        cmocka_unit_test(pings_keep_a_quiet_session_alive),
        cmocka_unit_test(a_state_may_be_large_and_nothing_else),
        cmocka_unit_test(hostile_messages_are_refused),
        cmocka_unit_test(a_state_of_many_fields_is_refused_before_it_is_unpacked),
        cmocka_unit_test(a_message_that_trickles_is_cut_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
